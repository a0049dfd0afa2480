//! Arguments in one spelling (RFC 8785), so that a digest over them means what they mean.
//!
//! Decides which numbers two readers could read differently. Invariant: equal texts mean equal arguments; what a double
//! cannot hold exactly has no text.

use std::fmt::Write as _;

use crate::wire::{Json, Value};

/// The largest integer up to which every one has a double of its own.
const SAFE_INTEGER_MAX: f64 = 9_007_199_254_740_991.0;

/// Arguments as they are digested.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Canonical {
    /// RFC 8785.
    pub text: String,
    /// Numbers that were spelled otherwise, as they were: 1.0 and 1 are one number, and not one argument for every
    /// server.
    pub spelled: String,
}

/// The arguments in one spelling.
///
/// # Errors
/// The number that is outside of I-JSON (RFC 7493).
pub fn canonical(value: Value<'_>) -> Result<Canonical, String> {
    let mut canonical = Canonical::default();
    write(value, &mut canonical)?;
    Ok(canonical)
}

fn write(value: Value<'_>, to: &mut Canonical) -> Result<(), String> {
    if let Some(object) = value.as_object() {
        let mut members: Vec<_> = object.members().collect();
        members.sort_by(|(one, _), (other, _)| one.encode_utf16().cmp(other.encode_utf16()));
        to.text.push('{');
        for (place, (key, value)) in members.into_iter().enumerate() {
            if place > 0 {
                to.text.push(',');
            }
            to.text.push_str(Json::of(key.as_ref()).as_str());
            to.text.push(':');
            write(value, to)?;
        }
        to.text.push('}');
    } else if let Some(elements) = value.as_array() {
        to.text.push('[');
        for (place, element) in elements.enumerate() {
            if place > 0 {
                to.text.push(',');
            }
            write(element, to)?;
        }
        to.text.push(']');
    } else if let Some(text) = value.as_str() {
        to.text.push_str(Json::of(text.as_ref()).as_str());
    } else if value.is_number() {
        let number = number(value.raw()).ok_or_else(|| value.raw().chars().take(40).collect::<String>())?;
        if number != value.raw() {
            to.spelled.push_str(value.raw());
            to.spelled.push(' ');
        }
        to.text.push_str(&number);
    } else {
        to.text.push_str(value.raw());
    }
    Ok(())
}

/// A number as ECMAScript spells it; nothing where a double is not exactly that.
fn number(raw: &str) -> Option<String> {
    let value: f64 = raw.parse().ok()?;
    let shortest = format!("{value:e}");
    if !value.is_finite() || decimal(raw)? != decimal(&shortest)? {
        return None;
    }
    if value.fract() == 0.0 && value.abs() > SAFE_INTEGER_MAX {
        return None;
    }
    if value == 0.0 {
        return Some("0".to_owned());
    }
    let (digits, exponent) = decimal(&shortest)?;
    let sign = if value < 0.0 { "-" } else { "" };
    // The number is 0.DIGITS times ten to the power of `point`.
    let count = i64::try_from(digits.len()).ok()?;
    let point = exponent.checked_add(count)?;
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or_default());
    let (whole, rest) = digits.split_at_checked(usize::try_from(point).unwrap_or_default().min(digits.len()))?;
    let mut text = String::from(sign);
    match point {
        _ if count <= point && point <= 21 => text.push_str(&format!("{digits}{}", zeros(point - count))),
        1..=21 => text.push_str(&format!("{whole}.{rest}")),
        -5..=0 => text.push_str(&format!("0.{}{digits}", zeros(-point))),
        _ => {
            let (first, rest) = digits.split_at_checked(1)?;
            let fraction = if rest.is_empty() { String::new() } else { format!(".{rest}") };
            // Writing to a string cannot fail.
            let _infallible = write!(text, "{first}{fraction}e{:+}", point - 1);
        }
    }
    Some(text)
}

/// The digits of a number without zeros at either end, and the power of ten that the last one counts; the sign aside.
fn decimal(text: &str) -> Option<(String, i64)> {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let exponent: i64 = exponent.strip_prefix('+').unwrap_or(exponent).parse().ok()?;
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let all = format!("{whole}{fraction}");
    let kept = all.trim_start_matches('0');
    let digits = kept.trim_end_matches('0');
    if digits.is_empty() {
        return Some((String::new(), 0));
    }
    let dropped = i64::try_from(kept.len() - digits.len()).ok()?;
    let below = i64::try_from(fraction.len()).ok()?;
    Some((digits.to_owned(), exponent.checked_sub(below)?.checked_add(dropped)?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn text(json: &str) -> Result<String, String> {
        canonical(Json::parse(json, Source::Client).unwrap().value()).map(|canonical| canonical.text)
    }

    #[test]
    fn the_examples_of_the_standard_are_spelled_as_it_says() {
        let example = r#"{"numbers":[333333333.3333333,1E30,4.50,2e-3,0.000000000000000000000000001],"string":"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/","literals":[null,true,false]}"#;
        // 1E30 is a whole number beyond those that everybody has: it is refused, and so is no other of them.
        assert_eq!(text(example).unwrap_err(), "1E30");
        let rest = example.replace("1E30,", "");
        let expected = "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,4.5,0.002,1e-27],\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}";
        assert_eq!(text(&rest).unwrap(), expected);
        let keys = r#"{"\u20ac":"Euro Sign","\r":"Carriage Return","\ufb33":"Hebrew","1":"One","\ud83d\ude00":"Emoji","\u0080":"Control","\u00f6":"o"}"#;
        let order: Vec<usize> = ["\"\\r\"", "\"1\"", "\"\u{80}\"", "\"ö\"", "\"€\"", "\"😀\"", "\"\u{fb33}\""]
            .iter()
            .map(|key| text(keys).unwrap().find(key).unwrap())
            .collect();
        assert!(order.is_sorted(), "{order:?}");
    }

    #[test]
    fn numbers_are_spelled_as_in_the_appendix_or_refused() {
        for (raw, spelled) in [
            ("0", Some("0")),
            ("-0", Some("0")),
            ("0.0", Some("0")),
            ("1", Some("1")),
            ("1.0", Some("1")),
            ("-1.50", Some("-1.5")),
            ("100", Some("100")),
            ("1e2", Some("100")),
            ("9007199254740991", Some("9007199254740991")),
            ("-9007199254740991", Some("-9007199254740991")),
            ("9007199254740992", None),
            ("9007199254740993", None),
            ("1e400", None),
            ("1e-400", None),
            ("5e-324", Some("5e-324")),
            ("1.7976931348623157e308", None),
            ("3.141592653589793", Some("3.141592653589793")),
            ("3.141592653589793238462643383279", None),
            ("0.1", Some("0.1")),
            ("0.10000000000000001", None),
            ("0.000001", Some("0.000001")),
            ("0.0000001", Some("1e-7")),
            ("1.5e-9", Some("1.5e-9")),
            ("333333333.33333329", Some("333333333.3333333")),
            ("123456.789", Some("123456.789")),
        ] {
            // The appendix gives doubles; a text with more digits than they have is another number.
            let expected = if raw == "333333333.33333329" { None } else { spelled };
            assert_eq!(number(raw).as_deref(), expected, "{raw}");
        }
    }

    #[test]
    fn what_means_the_same_is_the_same_and_every_other_spelling_of_a_number_is_kept() {
        let of = |json: &str| canonical(Json::parse(json, Source::Client).unwrap().value()).unwrap();
        assert_eq!(of(r#"{"b":1,"a":"\u0061"}"#), of("{ \"a\" : \"a\", \"b\":1 }"));
        let (one, other) = (of(r#"{"n":1}"#), of(r#"{"n":1.0}"#));
        assert_eq!(one.text, other.text);
        assert_ne!(one, other);
        for (one, other) in [("[]", "{}"), ("[[]]", "[[],[]]"), ("\"1\"", "1"), ("null", "\"null\""), ("[1,2]", "[12]")]
        {
            assert_ne!(of(one), of(other), "{one} {other}");
        }
    }
}
