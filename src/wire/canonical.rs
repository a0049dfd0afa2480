//! One spelling for each JSON value (RFC 8785), so that what means the same has the same digest.
//!
//! Decides how members are ordered and how strings and numbers are spelled. Refuses to round: a number that a double
//! cannot hold exactly keeps all its digits, in a spelling of its own that RFC 8785 does not have. Invariant: two
//! values have one spelling if and only if they are equal, member order and spelling aside.

use std::fmt::Write as _;

use super::Value;

/// The canonical spelling of a value without duplicate keys.
#[must_use]
pub fn canonical(value: Value<'_>) -> String {
    let mut text = String::with_capacity(value.raw().len());
    write(&mut text, value);
    text
}

/// The depth is that of scanned JSON, which is bounded.
fn write(text: &mut String, value: Value<'_>) {
    if let Some(object) = value.as_object() {
        let mut members: Vec<_> = object.members().collect();
        members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
        text.push('{');
        for (index, (key, member)) in members.into_iter().enumerate() {
            if index > 0 {
                text.push(',');
            }
            string(text, &key);
            text.push(':');
            write(text, member);
        }
        text.push('}');
    } else if let Some(elements) = value.as_array() {
        text.push('[');
        for (index, element) in elements.enumerate() {
            if index > 0 {
                text.push(',');
            }
            write(text, element);
        }
        text.push(']');
    } else if let Some(content) = value.as_str() {
        string(text, &content);
    } else if value.is_number() {
        number(text, value.raw());
    } else {
        text.push_str(value.raw());
    }
}

/// A string as RFC 8785 spells it: only what has to be escaped is.
fn string(text: &mut String, content: &str) {
    text.push('"');
    for character in content.chars() {
        match character {
            '"' => text.push_str("\\\""),
            '\\' => text.push_str("\\\\"),
            '\u{8}' => text.push_str("\\b"),
            '\t' => text.push_str("\\t"),
            '\n' => text.push_str("\\n"),
            '\u{c}' => text.push_str("\\f"),
            '\r' => text.push_str("\\r"),
            control if control < ' ' => {
                // Writing to a string cannot fail.
                let _infallible = write!(text, "\\u{:04x}", u32::from(control));
            }
            other => text.push(other),
        }
    }
    text.push('"');
}

/// What a number is, exactly: `0.DIGITS` times ten to the power of `point`.
#[derive(PartialEq, Eq)]
struct Decimal {
    negative: bool,
    /// Without zeros at either end; empty for zero.
    digits: String,
    point: i64,
}

impl Decimal {
    /// Of what JSON calls a number, or Rust prints with an exponent. `None` where its exponent is out of all bounds.
    fn of(raw: &str) -> Option<Self> {
        let (negative, raw) = raw.strip_prefix('-').map_or((false, raw), |rest| (true, rest));
        let (mantissa, exponent) = raw.split_once(['e', 'E']).unwrap_or((raw, "0"));
        let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let all = format!("{whole}{fraction}");
        let digits = all.trim_start_matches('0');
        let leading = all.len() - digits.len();
        let digits = digits.trim_end_matches('0').to_owned();
        if digits.is_empty() {
            return Some(Self { negative: false, digits, point: 0 });
        }
        let shift = i64::try_from(whole.len()).ok()?.checked_sub(i64::try_from(leading).ok()?)?;
        Some(Self { negative, digits, point: exponent.checked_add(shift)? })
    }
}

fn number(text: &mut String, raw: &str) {
    let Some(exact) = Decimal::of(raw) else {
        // No double and no other spelling of it is equal to this one, as far as anybody can tell.
        text.push_str(raw);
        return;
    };
    let double: f64 = raw.parse().unwrap_or(f64::NAN);
    let shortest = if double.is_finite() { Decimal::of(&format!("{double:e}")) } else { None };
    if exact.negative {
        text.push('-');
    }
    if shortest.as_ref() == Some(&exact) {
        plain(text, &exact);
    } else {
        let _infallible = write!(text, "0.{}e{}", exact.digits, exact.point);
    }
}

/// A number that a double holds, as ECMAScript prints it.
fn plain(text: &mut String, decimal: &Decimal) {
    let Decimal { digits, point, .. } = decimal;
    let (count, point) = (i64::try_from(digits.len()).unwrap_or(i64::MAX), *point);
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    if digits.is_empty() {
        text.push('0');
    } else if count <= point && point <= 21 {
        text.push_str(digits);
        text.push_str(&zeros(point - count));
    } else if 0 < point && point <= 21 {
        let (whole, fraction) = digits.split_at_checked(usize::try_from(point).unwrap_or_default()).unwrap_or_default();
        let _infallible = write!(text, "{whole}.{fraction}");
    } else if -6 < point && point <= 0 {
        let _infallible = write!(text, "0.{}{digits}", zeros(-point));
    } else {
        let (first, rest) = digits.split_at_checked(1).unwrap_or_default();
        let dot = if rest.is_empty() { "" } else { "." };
        let _infallible = write!(text, "{first}{dot}{rest}e{:+}", point - 1);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::{Json, Source};
    use super::*;

    fn spelled(text: &str) -> String {
        canonical(Json::parse(text, Source::Client).unwrap().value())
    }

    #[test]
    fn the_example_of_rfc_8785_comes_out_as_it_says() {
        let text = r#"{
            "numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
            "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/",
            "literals": [null, true, false]
        }"#
        .replace('\n', " ");
        // The first number is not what a double holds, whose shortest spelling RFC 8785 would take.
        let expected = r#"{"literals":[null,true,false],"numbers":[0.33333333333333329e9,1e+30,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#;
        assert_eq!(spelled(&text), expected);
    }

    #[test]
    fn members_are_ordered_by_their_utf_16() {
        let text = r#"{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}"#;
        let keys: Vec<char> = spelled(text).chars().filter(char::is_ascii_digit).collect();
        assert_eq!(keys, ['2', '1', '4', '6', '7', '1', '5', '3'].map(|c| c)[..].to_vec(), "{}", spelled(text));
    }

    #[test]
    fn what_is_equal_is_spelled_alike_and_nothing_else_is() {
        for alike in [
            &["1", "1.0", "1e0", "10e-1", "0.1E+1", "100.00e-2"][..],
            &["0", "-0", "0.0", "0e9", "-0.0e-7"],
            &["9007199254740993", "9007199254740993.0"],
            &["0.1", "1e-1", "0.10"],
            &["1e21", "1000000000000000000000"],
        ] {
            for other in alike {
                assert_eq!(spelled(alike[0]), spelled(other), "{other}");
            }
        }
        let different =
            ["9007199254740992", "9007199254740993", "0.1", "0.1000000000000000055511151231257827", "1e400"];
        for (index, one) in different.iter().enumerate() {
            for other in &different[index + 1..] {
                assert_ne!(spelled(one), spelled(other));
            }
        }
        assert_eq!(spelled("1e999999999999999999999"), "1e999999999999999999999");
        assert_eq!(
            ["1e-6", "1e-7", "123456789012345680000", "-1.5", "1e21"].map(spelled),
            ["0.000001", "1e-7", "123456789012345680000", "-1.5", "1e+21"]
        );
        assert_eq!(spelled(r#"{"b":[{"y":1,"x":"\u0041"}],"a" : null}"#), r#"{"a":null,"b":[{"x":"A","y":1}]}"#);
    }

    proptest! {
        #[test]
        fn a_double_is_spelled_so_that_it_reads_back(bits in any::<u64>()) {
            let double = f64::from_bits(bits);
            prop_assume!(double.is_finite());
            let text = spelled(&serde_json::to_string(&double).unwrap());
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), if double == 0.0 { 0 } else { double.to_bits() });
            prop_assert_eq!(spelled(&text), text);
        }
    }
}
