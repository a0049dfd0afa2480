//! Conditions agree with a naive oracle that reads the arguments as `serde_json` values.

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::{Arguments, Truth};
use crate::identity::{Behind, ClientProof};
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
    Time(Hours),
    Human(bool),
    Proof(usize),
    Acr(&'static str),
    AuthenticatedWithin(i64),
}

/// A window of whole hours, an hour east of Greenwich, which begins on one day of the week or on every one.
#[derive(Debug, Clone, Copy)]
struct Hours {
    day: Option<usize>,
    from: i64,
    to: i64,
}

/// What is known beside the arguments.
#[derive(Debug, Clone)]
struct Facts {
    /// Hours since the beginning of 1970, which was a Thursday.
    hour: i64,
    behind: Behind,
    proof: usize,
    acr: Option<&'static str>,
    /// How many minutes ago they logged in.
    authenticated: Option<i64>,
}

const DAYS: [&str; 7] = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
const PROOFS: [(&str, ClientProof); 6] = [
    ("none", ClientProof::None),
    ("public", ClientProof::Public),
    ("secret", ClientProof::Secret),
    ("private_key", ClientProof::PrivateKey),
    ("mtls", ClientProof::Mtls),
    ("svid", ClientProof::Svid),
];
const KINDS_OF_LOGIN: [&str; 2] = ["password", "mfa"];

#[derive(Debug, Clone)]
enum Test {
    AtMost(f64),
    AtLeast(f64),
    Above(f64),
    Below(f64),
    OneOf(Vec<&'static str>),
    OneOfNumbers(Vec<f64>),
    Equals(f64),
    Is(bool),
    StartsWith(&'static str),
    EndsWith(&'static str),
    LengthAtMost(usize),
    LengthAtLeast(usize),
    ElementsAtMost(usize),
    PathUnder,
    HostIn,
}

const PATHS: [&str; 4] = ["a", "b", "c.d", "c.d.e"];
const TEXTS: [&str; 13] = [
    "",
    "x",
    "xy",
    "/srv/x",
    "/srv/../x",
    "/etc/x",
    "/srvx",
    "https://a.example/x",
    "https://b.c.example/",
    "https://c.example",
    "https://a.example.evil/",
    "https://evil@a.example/",
    "ftp://a.example/",
];
const NUMBERS: [f64; 8] = [-2.0, -1.5, 0.0, 0.5, 1.0, 2.0, 2.5, 3.0];

fn asked() -> impl Strategy<Value = Asked> {
    let text = || proptest::sample::select(&TEXTS[..]);
    let number = || proptest::sample::select(&NUMBERS[..]);
    let test = prop_oneof![
        number().prop_map(Test::AtMost),
        number().prop_map(Test::AtLeast),
        number().prop_map(Test::Above),
        number().prop_map(Test::Below),
        number().prop_map(Test::Equals),
        any::<bool>().prop_map(Test::Is),
        proptest::collection::vec(text(), 1..3).prop_map(Test::OneOf),
        proptest::collection::vec(number(), 1..3).prop_map(Test::OneOfNumbers),
        text().prop_map(Test::StartsWith),
        text().prop_map(Test::EndsWith),
        (0..3_usize).prop_map(Test::LengthAtMost),
        (0..3_usize).prop_map(Test::LengthAtLeast),
        (0..3_usize).prop_map(Test::ElementsAtMost),
        Just(Test::PathUnder),
        Just(Test::HostIn),
    ];
    let path = || proptest::sample::select(&PATHS[..]);
    let leaf = prop_oneof![
        6 => (path(), test).prop_map(|(path, test)| Asked::Test(path, test)),
        1 => (path(), any::<bool>()).prop_map(|(path, expected)| Asked::Present(path, expected)),
        1 => proptest::sample::subsequence(vec!["a", "b", "c"], 0..=3).prop_map(Asked::Only),
        1 => hours().prop_map(Asked::Time),
        1 => any::<bool>().prop_map(Asked::Human),
        1 => (0..PROOFS.len()).prop_map(Asked::Proof),
        1 => proptest::sample::select(&KINDS_OF_LOGIN[..]).prop_map(Asked::Acr),
        1 => (1..60_i64).prop_map(Asked::AuthenticatedWithin),
    ];
    leaf.prop_recursive(3, 12, 3, |inner| {
        prop_oneof![
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Asked::All),
            proptest::collection::vec(inner.clone(), 1..3).prop_map(Asked::Any),
            inner.prop_map(|part| Asked::Not(Box::new(part))),
        ]
    })
}

fn hours() -> impl Strategy<Value = Hours> {
    (proptest::option::of(0..DAYS.len()), 0..24_i64, 1..24_i64).prop_map(|(day, from, lasts)| Hours {
        day,
        from,
        to: (from + lasts) % 24,
    })
}

fn facts() -> impl Strategy<Value = Facts> {
    let behind = proptest::sample::select(vec![Behind::Person, Behind::Nobody, Behind::Unknown]);
    let acr = proptest::option::of(proptest::sample::select(&KINDS_OF_LOGIN[..]));
    let authenticated = proptest::option::of(0..90_i64);
    // Two weeks, so that every hour of the week comes.
    (480_000..480_336_i64, behind, 0..PROOFS.len(), acr, authenticated)
        .prop_map(|(hour, behind, proof, acr, authenticated)| Facts { hour, behind, proof, acr, authenticated })
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        (-3..5_i64).prop_map(Value::from),
        proptest::sample::select(vec![0.5, 2.5, -1.5, 1.0]).prop_map(Value::from),
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
            Self::Time(Hours { day, from, to }) => {
                let days = day.map_or_else(String::new, |day| format!("days = [{:?}], ", DAYS[day]));
                format!("{{ time = {{ zone = \"Etc/GMT-1\", {days}from = \"{from:02}:00\", to = \"{to:02}:00\" }} }}")
            }
            Self::Human(expected) => format!("{{ human = {expected} }}"),
            Self::Proof(least) => format!("{{ client_proof = {:?} }}", PROOFS[*least].0),
            Self::Acr(kind) => format!("{{ acr = [{kind:?}] }}"),
            Self::AuthenticatedWithin(minutes) => format!("{{ authenticated_within = \"{minutes}m\" }}"),
            Self::Test(path, test) => {
                let test = match test {
                    Test::AtMost(limit) => format!("at_most = {limit:?}"),
                    Test::AtLeast(limit) => format!("at_least = {limit:?}"),
                    Test::Above(limit) => format!("above = {limit:?}"),
                    Test::Below(limit) => format!("below = {limit:?}"),
                    Test::Equals(number) => format!("equals = {number:?}"),
                    Test::Is(wanted) => format!("equals = {wanted}"),
                    Test::OneOf(texts) => format!("one_of = {texts:?}"),
                    Test::OneOfNumbers(numbers) => format!("one_of = {numbers:?}"),
                    Test::StartsWith(prefix) => format!("starts_with = {prefix:?}"),
                    Test::EndsWith(suffix) => format!("ends_with = {suffix:?}"),
                    Test::LengthAtMost(limit) => format!("length_at_most = {limit}"),
                    Test::LengthAtLeast(limit) => format!("length_at_least = {limit}"),
                    Test::ElementsAtMost(limit) => format!("elements_at_most = {limit}"),
                    Test::PathUnder => "path_under = \"/srv\"".to_owned(),
                    Test::HostIn => "url_host_in = [\"a.example\", \"*.c.example\"]".to_owned(),
                };
                format!("{{ argument = {path:?}, {test} }}")
            }
        }
    }

    /// `None` is unknown.
    fn oracle(&self, (arguments, facts): (&Value, &Facts), every: bool) -> Option<bool> {
        let known = (arguments, facts);
        match self {
            Self::All(parts) => and(&parts.iter().map(|part| part.oracle(known, every)).collect::<Vec<_>>()),
            Self::Any(parts) => or(&parts.iter().map(|part| part.oracle(known, every)).collect::<Vec<_>>()),
            Self::Not(part) => part.oracle(known, !every).map(|value| !value),
            Self::Time(hours) => Some(hours.has(facts.hour + 1)),
            Self::Human(expected) => match facts.behind {
                Behind::Person => Some(*expected),
                Behind::Nobody => Some(!*expected),
                Behind::Unknown => None,
            },
            Self::Proof(least) => Some(facts.proof >= *least),
            Self::Acr(kind) => facts.acr.map(|acr| acr == *kind),
            Self::AuthenticatedWithin(minutes) => facts.authenticated.map(|ago| ago <= *minutes),
            Self::Only(names) => Some(arguments.as_object()?.keys().all(|key| names.contains(&key.as_str()))),
            Self::Present(path, expected) => present(arguments, path).map(|present| present == *expected),
            Self::Test(path, test) => find(arguments, path, every, &|value| test.oracle(value, every)),
        }
    }
}

impl Hours {
    /// Hour by hour from where it began last: whether this one is reached before its end.
    fn has(self, hour: i64) -> bool {
        let began = (0..24).map(|back| hour - back).find(|hour| hour.rem_euclid(24) == self.from).unwrap();
        let over = (began..=hour).any(|hour| hour.rem_euclid(24) == self.to);
        // The first day of 1970 was the fourth of its week.
        let weekday = usize::try_from((began.div_euclid(24) + 3).rem_euclid(7)).unwrap();
        !over && self.day.is_none_or(|day| day == weekday)
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
        #[expect(clippy::float_cmp, reason = "the generated numbers are halves")]
        match self {
            Self::AtMost(limit) => value.as_f64().map(|number| number <= *limit),
            Self::AtLeast(limit) => value.as_f64().map(|number| number >= *limit),
            Self::Above(limit) => value.as_f64().map(|number| number > *limit),
            Self::Below(limit) => value.as_f64().map(|number| number < *limit),
            Self::Equals(wanted) => value.as_f64().map(|number| number == *wanted),
            Self::Is(wanted) => value.as_bool().map(|value| value == *wanted),
            Self::OneOf(texts) => value.as_str().map(|text| texts.contains(&text)),
            Self::OneOfNumbers(numbers) => value.as_f64().map(|number| numbers.contains(&number)),
            Self::StartsWith(prefix) => value.as_str().map(|text| text.starts_with(prefix)),
            Self::EndsWith(suffix) => value.as_str().map(|text| text.ends_with(suffix)),
            Self::LengthAtMost(limit) => value.as_str().map(|text| text.chars().count() <= *limit),
            Self::LengthAtLeast(limit) => value.as_str().map(|text| text.chars().count() >= *limit),
            Self::PathUnder => match value.as_str()? {
                "/srv/x" => Some(true),
                "/etc/x" | "/srvx" => Some(false),
                _ => None,
            },
            Self::HostIn => match value.as_str()? {
                "https://a.example/x" | "https://b.c.example/" => Some(true),
                "https://c.example" | "https://a.example.evil/" => Some(false),
                _ => None,
            },
            Self::ElementsAtMost(_) => None,
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4_000))]

    #[test]
    fn conditions_agree_with_a_naive_oracle(asked in asked(), arguments in arguments(), facts in facts()) {
        let condition = super::read(&format!("tested = {}", asked.toml()))
            .map_err(|mistakes| TestCaseError::fail(format!("{mistakes:?}")))?;
        let text = arguments.to_string();
        let truth = |value: Option<bool>| value.map_or(Truth::Unknown, Truth::of);
        let known = (&arguments, &facts);
        let expected = (truth(asked.oracle(known, true)), truth(asked.oracle(known, false)));
        let now = Timestamp::from_second(facts.hour * 3_600).unwrap();
        let mut persona = user("ann", &[]);
        persona.behind = facts.behind;
        persona.client_proof = PROOFS[facts.proof].1;
        persona.acr = facts.acr.map(str::to_owned);
        persona.authenticated_at = facts.authenticated.map(|minutes| now.as_second() - minutes * 60);
        prop_assert_eq!(condition[0].values(&persona, Arguments::Json(&text), now), expected);
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
