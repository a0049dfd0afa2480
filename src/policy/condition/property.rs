//! Conditions agree with a naive oracle that reads the arguments as `serde_json` values.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::{Arguments, Truth};
use crate::policy::fixture::user;

/// A condition as the generator makes it.
#[derive(Debug, Clone)]
enum Asked {
    All(Vec<Self>),
    Any(Vec<Self>),
    Not(Box<Self>),
    Only(Vec<&'static str>),
    Test(&'static str, Test),
    Present(&'static str, bool),
}

#[derive(Debug, Clone)]
enum Test {
    AtMost(i64),
    Above(i64),
    OneOf(Vec<&'static str>),
    Equals(i64),
    StartsWith(&'static str),
    LengthAtMost(usize),
    ElementsAtMost(usize),
    PathUnder,
}

const PATHS: [&str; 4] = ["a", "b", "c.d", "c.d.e"];
const TEXTS: [&str; 5] = ["", "x", "xy", "/srv/x", "/srv/../x"];

fn asked() -> impl Strategy<Value = Asked> {
    let text = || proptest::sample::select(&TEXTS[..]);
    let test = prop_oneof![
        (-2..4_i64).prop_map(Test::AtMost),
        (-2..4_i64).prop_map(Test::Above),
        (-2..4_i64).prop_map(Test::Equals),
        proptest::collection::vec(text(), 1..3).prop_map(Test::OneOf),
        text().prop_map(Test::StartsWith),
        (0..3_usize).prop_map(Test::LengthAtMost),
        (0..3_usize).prop_map(Test::ElementsAtMost),
        Just(Test::PathUnder),
    ];
    let path = || proptest::sample::select(&PATHS[..]);
    let leaf = prop_oneof![
        6 => (path(), test).prop_map(|(path, test)| Asked::Test(path, test)),
        1 => (path(), any::<bool>()).prop_map(|(path, expected)| Asked::Present(path, expected)),
        1 => proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_map(Asked::Only),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Asked::All),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Asked::Any),
            inner.prop_map(|part| Asked::Not(Box::new(part))),
        ]
    })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..5_i64).prop_map(Value::from),
        proptest::sample::select(vec![0.5, 2.5, -1.5]).prop_map(Value::from),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        let name = proptest::sample::select(vec!["a", "b", "c", "d", "e"]);
        prop_oneof![
            proptest::collection::vec(inner.clone(), 0..3).prop_map(Value::from),
            proptest::collection::vec((name, inner), 0..3)
                .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()),
        ]
    })
}

fn arguments() -> impl Strategy<Value = Value> {
    let name = proptest::sample::select(vec!["a", "b", "c", "z"]);
    proptest::collection::vec((name, json()), 0..4)
        .prop_map(|members| members.into_iter().map(|(name, value)| (name.to_owned(), value)).collect())
}

impl Asked {
    fn toml(&self) -> String {
        let list = |parts: &[Self]| parts.iter().map(Self::toml).collect::<Vec<_>>().join(", ");
        match self {
            Self::All(parts) => format!("{{ all = [{}] }}", list(parts)),
            Self::Any(parts) => format!("{{ any = [{}] }}", list(parts)),
            Self::Not(part) => format!("{{ not = {} }}", part.toml()),
            Self::Only(names) => format!("{{ only = {names:?} }}"),
            Self::Present(path, expected) => format!("{{ argument = {path:?}, present = {expected} }}"),
            Self::Test(path, test) => {
                let test = match test {
                    Test::AtMost(limit) => format!("at_most = {limit}"),
                    Test::Above(limit) => format!("above = {limit}"),
                    Test::Equals(number) => format!("equals = {number}"),
                    Test::OneOf(texts) => format!("one_of = {texts:?}"),
                    Test::StartsWith(prefix) => format!("starts_with = {prefix:?}"),
                    Test::LengthAtMost(limit) => format!("length_at_most = {limit}"),
                    Test::ElementsAtMost(limit) => format!("elements_at_most = {limit}"),
                    Test::PathUnder => "path_under = \"/srv\"".to_owned(),
                };
                format!("{{ argument = {path:?}, {test} }}")
            }
        }
    }

    /// `None` is unknown.
    fn oracle(&self, arguments: &Value, every: bool) -> Option<bool> {
        match self {
            Self::All(parts) => and(&parts.iter().map(|part| part.oracle(arguments, every)).collect::<Vec<_>>()),
            Self::Any(parts) => or(&parts.iter().map(|part| part.oracle(arguments, every)).collect::<Vec<_>>()),
            Self::Not(part) => part.oracle(arguments, !every).map(|value| !value),
            Self::Only(names) => Some(arguments.as_object()?.keys().all(|key| names.contains(&key.as_str()))),
            Self::Present(path, expected) => present(arguments, path).map(|present| present == *expected),
            Self::Test(path, test) => find(arguments, path, every, &|value| test.oracle(value, every)),
        }
    }
}

fn and(values: &[Option<bool>]) -> Option<bool> {
    if values.contains(&Some(false)) {
        Some(false)
    } else {
        values.iter().all(|value| *value == Some(true)).then_some(true)
    }
}

fn or(values: &[Option<bool>]) -> Option<bool> {
    let turned: Vec<Option<bool>> = values.iter().map(|value| value.map(|value| !value)).collect();
    and(&turned).map(|value| !value)
}

fn over(values: &[Value], every: bool, each: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
    if values.is_empty() {
        return None;
    }
    let values: Vec<Option<bool>> = values.iter().map(each).collect();
    if every { and(&values) } else { or(&values) }
}

fn find(value: &Value, path: &str, every: bool, test: &dyn Fn(&Value) -> Option<bool>) -> Option<bool> {
    if path.is_empty() {
        return test(value);
    }
    if let Value::Array(values) = value {
        return over(values, every, &|value| find(value, path, every, test));
    }
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    find(value.as_object()?.get(name)?, rest, every, test)
}

fn present(value: &Value, path: &str) -> Option<bool> {
    let (name, rest) = path.split_once('.').unwrap_or((path, ""));
    match value.as_object()?.get(name) {
        None => Some(false),
        Some(_) if rest.is_empty() => Some(true),
        Some(value) => present(value, rest),
    }
}

impl Test {
    fn oracle(&self, value: &Value, every: bool) -> Option<bool> {
        if let (Self::ElementsAtMost(limit), Value::Array(values)) = (self, value) {
            return Some(values.len() <= *limit);
        }
        if let Self::ElementsAtMost(_) = self {
            return None;
        }
        if let Value::Array(values) = value {
            return over(values, every, &|value| self.oracle(value, every));
        }
        #[expect(clippy::cast_precision_loss, reason = "the generated numbers are tiny")]
        match self {
            Self::AtMost(limit) => value.as_f64().map(|number| number <= *limit as f64),
            Self::Above(limit) => value.as_f64().map(|number| number > *limit as f64),
            Self::Equals(wanted) => value.as_f64().map(|number| number == *wanted as f64),
            Self::OneOf(texts) => value.as_str().map(|text| texts.contains(&text)),
            Self::StartsWith(prefix) => value.as_str().map(|text| text.starts_with(prefix)),
            Self::LengthAtMost(limit) => value.as_str().map(|text| text.chars().count() <= *limit),
            Self::PathUnder => match value.as_str()? {
                "/srv/x" => Some(true),
                _ => None,
            },
            Self::ElementsAtMost(_) => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn conditions_agree_with_a_naive_oracle(asked in asked(), arguments in arguments()) {
        let condition = super::read(&format!("tested = {}", asked.toml()))
            .map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}")))?;
        let text = arguments.to_string();
        let truth = |value: Option<bool>| value.map_or(Truth::Unknown, Truth::of);
        let expected = (truth(asked.oracle(&arguments, true)), truth(asked.oracle(&arguments, false)));
        let persona = user("ann", &[]);
        prop_assert_eq!(condition[0].values(&persona, Arguments::Json(&text), Timestamp::UNIX_EPOCH), expected);
    }

    #[test]
    fn no_text_makes_reading_or_deciding_panic(file in "\\PC{0,200}", arguments in "\\PC{0,200}") {
        let persona = user("ann", &[]);
        let _ = super::read(&file);
        for condition in super::read("[a]\nargument = \"a.b\"\npath_under = \"/\"\nonly = [\"a\"]").unwrap() {
            let (as_allow, as_deny) = condition.values(&persona, Arguments::Json(&arguments), Timestamp::UNIX_EPOCH);
            prop_assert_ne!((as_allow, as_deny), (Truth::True, Truth::False));
        }
    }
}
