//! The values of the files that TOML has no type for: durations, dates, counts.
//!
//! Decides how they are spelled. Invariant: none of them is zero, negative or so large that arithmetic on
//! it could overflow.

use std::time::Duration;

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};

use crate::limit;

/// A duration as the files write it: a whole number and `ms`, `s`, `m`, `h` or `d`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Period(pub Duration);

impl Period {
    /// Reads one.
    ///
    /// # Errors
    /// A lower-case sentence that says how a duration is spelled.
    pub fn parse(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a duration: write a number and a unit, such as 500ms, 30s, 10m, 24h");
        let digits = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at_checked(digits).ok_or_else(refuse)?;
        let number: u64 = number.parse().map_err(|_| refuse())?;
        let milliseconds = match unit {
            "ms" => 1,
            "s" => 1_000,
            "m" => 60_000,
            "h" => 3_600_000,
            "d" => 86_400_000,
            _ => return Err(refuse()),
        };
        let duration = Duration::from_millis(number.checked_mul(milliseconds).ok_or_else(refuse)?);
        if duration.is_zero() {
            return Err(format!("`{text}` is nothing: write a duration of at least 1ms"));
        }
        if duration > limit::CONFIGURED_DURATION_MAX {
            return Err(format!("`{text}` is too long: write at most 366d"));
        }
        Ok(Self(duration))
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).map_err(D::Error::custom)
    }
}

/// A size as the files write it: a whole number and `B`, `KiB`, `MiB`, `GiB` or `TiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Size(pub u64);

impl Size {
    fn parse(text: &str) -> Option<Self> {
        let (number, unit) = text.split_at_checked(text.bytes().take_while(u8::is_ascii_digit).count())?;
        let shift = ["B", "KiB", "MiB", "GiB", "TiB"].iter().position(|known| *known == unit)? * 10;
        let size = number.parse::<u64>().ok()?.checked_mul(1 << shift)?;
        // Sums of sizes must not overflow, and no disk is larger.
        (1..=1 << 60).contains(&size).then_some(Self(size))
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Self::parse(&text).ok_or_else(|| {
            D::Error::custom(format!("`{text}` is not a size: write a number and a unit, such as 4KiB, 64MiB, 2GiB"))
        })
    }
}

/// A day as TOML writes it: `2027-03-31`, without quotation marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day(pub jiff::civil::Date);

impl<'de> Deserialize<'de> for Day {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let refuse = || D::Error::custom("this is not a day: write it without quotation marks, such as 2027-03-31");
        let written = toml::value::Datetime::deserialize(deserializer).map_err(|_| refuse())?;
        let (Some(date), None) = (written.date, written.time) else { return Err(refuse()) };
        let year = i16::try_from(date.year).map_err(|_| refuse())?;
        let month = i8::try_from(date.month).map_err(|_| refuse())?;
        let day = i8::try_from(date.day).map_err(|_| refuse())?;
        jiff::civil::Date::new(year, month, day).map(Self).map_err(|_| refuse())
    }
}

/// How many of something may be at once: at least one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Count(pub u32);

impl<'de> Deserialize<'de> for Count {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = i64::deserialize(deserializer)?;
        u32::try_from(number)
            .ok()
            .filter(|number| (1..=limit::CONFIGURED_COUNT_MAX).contains(number))
            .map(Self)
            .ok_or_else(|| {
                D::Error::custom(format!("{number} is out of range: write 1 to {}", limit::CONFIGURED_COUNT_MAX))
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_a_whole_number_with_a_unit() {
        assert_eq!(Period::parse("10m").unwrap().0, Duration::from_secs(600));
        assert_eq!(Period::parse("250ms").unwrap().0, Duration::from_millis(250));
        for wrong in ["", "10", "m", "1.5h", "-1s", "10 m", "0s", "400d", "99999999999999999999d", "1w", "é"] {
            assert!(Period::parse(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_size_is_a_whole_number_with_a_unit() {
        assert_eq!(Size::parse("8MiB"), Some(Size(8 * 1024 * 1024)));
        assert_eq!(Size::parse("1TiB"), Some(Size(1 << 40)));
        for wrong in ["", "8", "MiB", "0B", "8MB", "1.5GiB", "-1KiB", "18446744073709551615TiB", "2000000TiB", "é"] {
            assert_eq!(Size::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn durations_and_counts_are_bounded() {
        let longest = limit::CONFIGURED_DURATION_MAX.as_secs();
        assert_eq!(Period::parse(&format!("{longest}s")).unwrap().0, limit::CONFIGURED_DURATION_MAX);
        assert!(Period::parse(&format!("{}s", longest + 1)).unwrap_err().contains("too long"));
        let count = |number: u32| toml::from_str::<std::collections::BTreeMap<String, Count>>(&format!("n = {number}"));
        assert_eq!(count(limit::CONFIGURED_COUNT_MAX).unwrap()["n"].0, limit::CONFIGURED_COUNT_MAX);
        assert!(count(limit::CONFIGURED_COUNT_MAX + 1).is_err() && count(0).is_err());
    }
}
