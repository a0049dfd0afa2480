//! Reads the arguments of a call, only as far as a condition asks.
//!
//! No `Value`, no floats: a number stays the text that the upstream will read. Invariant: an argument that
//! could be read in two ways (a name given twice, a broken value) is *unknown*, never one of the readings.

use std::borrow::Cow;
use std::fmt;

use rust_decimal::Decimal;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::ids::Action;

/// The arguments of a call as a decision gets them.
#[derive(Debug, Clone, Copy)]
pub enum Arguments<'a> {
    /// Not known: lists, and methods that nobody here has heard of.
    Unknown,
    /// The call has none, which is the same as an empty object.
    None,
    /// The JSON text of `params.arguments`, as `wire` has checked it.
    Json(&'a str),
}

impl<'a> Arguments<'a> {
    /// What a request for that brings: the JSON text of `params.arguments`, where it has some. Of a method that nobody
    /// here has heard of, nobody knows which of its parameters are arguments.
    #[must_use]
    pub const fn of(action: &Action, text: Option<&'a str>) -> Self {
        match (text, action) {
            (Some(text), _) => Self::Json(text),
            (None, Action::Method(_)) => Self::Unknown,
            (None, _) => Self::None,
        }
    }
}

/// Arguments of which the outermost object has been read.
#[derive(Debug)]
pub(super) enum Parsed<'a> {
    Unknown,
    Members(Members<'a>),
}

impl<'a> Parsed<'a> {
    pub(super) fn of(arguments: Arguments<'a>) -> Self {
        match arguments {
            Arguments::Unknown => Self::Unknown,
            Arguments::None => Self::Members(Members::default()),
            Arguments::Json(text) => Members::read(text).map_or(Self::Unknown, Self::Members),
        }
    }
}

/// The members of one JSON object, unread.
#[derive(Debug, Default)]
pub(super) struct Members<'a>(Vec<(Name<'a>, &'a RawValue)>);

/// What a name leads to in an object.
pub(super) enum Member<'a> {
    Absent,
    One(&'a str),
    Twice,
}

impl<'a> Members<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        serde_json::from_str(text).ok()
    }

    pub(super) fn get(&self, name: &str) -> Member<'a> {
        let mut found = self.0.iter().filter(|(known, _)| known.0 == name);
        match (found.next(), found.next()) {
            (None, _) => Member::Absent,
            (Some((_, value)), None) => Member::One(value.get()),
            (Some(_), Some(_)) => Member::Twice,
        }
    }

    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| name.0.as_ref())
    }
}

impl<'de: 'a, 'a> Deserialize<'de> for Members<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// A member's name, borrowed where it has no escapes.
#[derive(Debug)]
struct Name<'a>(Cow<'a, str>);

impl<'de: 'a, 'a> Deserialize<'de> for Name<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Name<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("a string")
            }

            fn visit_borrowed_str<E>(self, text: &'de str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Borrowed(text)))
            }

            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Reader)
    }
}

/// One JSON value, read one level deep.
#[derive(Debug)]
pub(super) enum Json<'a> {
    Null,
    Boolean(bool),
    Number(&'a str),
    Text(Cow<'a, str>),
    List(Vec<&'a str>),
    Object(&'a str),
}

impl<'a> Json<'a> {
    pub(super) fn read(text: &'a str) -> Option<Self> {
        let text = text.trim_matches([' ', '\t', '\n', '\r']);
        Some(match text.bytes().next()? {
            b'n' => Self::Null,
            b't' | b'f' => Self::Boolean(serde_json::from_str(text).ok()?),
            b'"' => Self::Text(serde_json::from_str::<Name<'a>>(text).ok()?.0),
            b'[' => {
                let elements: Vec<&'a RawValue> = serde_json::from_str(text).ok()?;
                Self::List(elements.into_iter().map(RawValue::get).collect())
            }
            b'{' => Self::Object(text),
            b'-' | b'0'..=b'9' => Self::Number(text),
            _ => return None,
        })
    }
}

/// A JSON number as an exact decimal; `None` where it has more digits than 28 or is too large.
pub(super) fn decimal(text: &str) -> Option<Decimal> {
    match text.split_once(['e', 'E']) {
        None => Decimal::from_str_exact(text).ok(),
        Some((mantissa, _)) => {
            Decimal::from_str_exact(mantissa).ok()?;
            let value = Decimal::from_scientific(text).ok()?;
            // An exponent that pushed digits out would compare as another number.
            (value.is_zero() == Decimal::from_str_exact(mantissa).ok()?.is_zero()).then_some(value)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_exact_or_unknown() {
        assert_eq!(decimal("9007199254740993"), Some(Decimal::from(9_007_199_254_740_993_i64)));
        assert_eq!(decimal("0.1").map(|n| n * Decimal::from(3)), decimal("0.3"));
        assert_eq!(decimal("1e3"), Some(Decimal::from(1000)));
        assert_eq!(decimal("1.50"), decimal("1.5"));
        assert_eq!(decimal("1.2E-2"), decimal("0.012"));
        for unknown in ["1e400", "1e-400", "123456789012345678901234567890123", "0.1234567890123456789012345678901"] {
            assert_eq!(decimal(unknown), None, "{unknown}");
        }
    }

    #[test]
    fn a_name_given_twice_is_seen_in_any_spelling() {
        let members = Members::read(r#"{"a":1,"\u0061":2,"b":3}"#).unwrap();
        assert!(matches!(members.get("a"), Member::Twice));
        assert!(matches!(members.get("b"), Member::One("3")));
        assert!(matches!(members.get("c"), Member::Absent));
    }
}
