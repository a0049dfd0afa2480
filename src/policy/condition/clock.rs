//! Windows of time in a zone: working hours, change freezes.
//!
//! The zone data is compiled in, so that two machines decide alike.

use std::fmt;

use jiff::Timestamp;
use jiff::civil::{DateTime, Time, Weekday};
use jiff::tz::TimeZone;

/// A window of time; every part that is set must hold.
#[derive(Debug, Clone)]
pub(in crate::policy) struct Window {
    pub(super) zone: TimeZone,
    pub(super) zone_name: String,
    /// Days on which the window begins; empty means all.
    pub(super) days: Vec<Weekday>,
    /// From this time of day until before that one; across midnight when the first is later.
    pub(super) hours: Option<(Time, Time)>,
    /// Not before this local moment.
    pub(super) after: Option<DateTime>,
    /// Before this local moment.
    pub(super) before: Option<DateTime>,
}

impl Window {
    /// Whether a moment lies in the window.
    pub(super) fn contains(&self, now: Timestamp) -> bool {
        let local = self.zone.to_datetime(now);
        let (time, today) = (local.time(), local.weekday());
        let begins_on = |day: Weekday| self.days.is_empty() || self.days.contains(&day);
        let in_hours = match self.hours {
            None => begins_on(today),
            Some((from, to)) if from <= to => from <= time && time < to && begins_on(today),
            Some((from, to)) => (time >= from && begins_on(today)) || (time < to && begins_on(today.previous())),
        };
        in_hours && self.after.is_none_or(|after| local >= after) && self.before.is_none_or(|before| local < before)
    }
}

impl fmt::Display for Window {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("the time is")?;
        if !self.days.is_empty() {
            let days: Vec<&str> = self.days.iter().map(|day| day_name(*day)).collect();
            write!(formatter, " on {}", days.join(", "))?;
        }
        if let Some((from, to)) = self.hours {
            write!(formatter, " from {} to {}", from.strftime("%H:%M"), to.strftime("%H:%M"))?;
        }
        if let Some(after) = self.after {
            write!(formatter, " after {after}")?;
        }
        if let Some(before) = self.before {
            write!(formatter, " before {before}")?;
        }
        write!(formatter, " in {}", self.zone_name)
    }
}

const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

/// A day as files spell it: `mon` to `sun`.
pub(super) fn day(text: &str) -> Option<Weekday> {
    DAYS.iter().find(|(name, _)| *name == text).map(|(_, day)| *day)
}

fn day_name(day: Weekday) -> &'static str {
    DAYS.iter().find(|(_, known)| *known == day).map_or("", |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn window(days: &[&str], hours: Option<(&str, &str)>) -> Window {
        Window {
            zone: TimeZone::get("Europe/Berlin").unwrap(),
            zone_name: "Europe/Berlin".to_owned(),
            days: days.iter().map(|name| day(name).unwrap()).collect(),
            hours: hours.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())),
            after: None,
            before: None,
        }
    }

    fn at(window: &Window, text: &str) -> bool {
        window.contains(text.parse().unwrap())
    }

    #[test]
    fn working_hours_follow_the_zone_through_summer_time() {
        let hours = window(&["mon", "tue", "wed", "thu", "fri"], Some(("08:00", "18:00")));
        assert!(at(&hours, "2026-11-23T07:00:00Z"));
        assert!(!at(&hours, "2026-11-23T06:59:59Z"));
        assert!(at(&hours, "2026-07-06T06:00:00Z"));
        assert!(!at(&hours, "2026-11-23T17:00:00Z"));
        assert!(!at(&hours, "2026-11-22T10:00:00Z"), "a Sunday");
    }

    #[test]
    fn a_window_across_midnight_belongs_to_the_day_on_which_it_begins() {
        let night = window(&["fri"], Some(("22:00", "04:00")));
        assert!(at(&night, "2026-11-27T22:00:00Z"));
        assert!(at(&night, "2026-11-28T02:59:00Z"));
        assert!(!at(&night, "2026-11-28T03:00:00Z"));
        assert!(!at(&night, "2026-11-28T22:00:00Z"));
    }

    #[test]
    fn a_freeze_ends() {
        let mut freeze = window(&[], None);
        freeze.after = Some("2026-12-20T00:00:00".parse().unwrap());
        freeze.before = Some("2027-01-07T00:00:00".parse().unwrap());
        assert!(at(&freeze, "2026-12-31T12:00:00Z"));
        assert!(!at(&freeze, "2027-01-06T23:00:00Z"));
        assert!(!at(&freeze, "2026-12-19T22:59:59Z"));
    }
}
