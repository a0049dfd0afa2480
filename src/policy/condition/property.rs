//! Conditions agree with a naive oracle that reads the arguments as `serde_json` values.

use std::cmp::Ordering;

use jiff::Timestamp;
use proptest::prelude::*;
use serde_json::Value;

use super::{Arguments, Facts as Known, Quantifier, Situation, Truth};
use crate::identity::{AgentFacts, Behind, ClientProof};
use crate::policy::fixture::{agent, user};
use crate::policy::label::Seen;

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
    Autonomous(bool),
    Mandate(bool),
    Template(Vec<&'static str>),
    Seen(Vec<&'static str>),
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
    /// Whether their agent works alone; nothing where there is no agent.
    autonomous: Option<bool>,
    mandate: Under,
    /// What they have seen, where somebody has looked.
    seen: Option<Vec<&'static str>>,
}

/// What is known of the mandate of a call.
#[derive(Debug, Clone, Copy)]
enum Under {
    NobodyLooked,
    Nothing,
    Free,
    Template(&'static str),
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
const TEMPLATES: [&str; 2] = ["nightly", "daily"];
/// Each is also all that stand before it, but for the first.
const LABELS: [&str; 4] = ["untrusted", "internal", "private", "regulated"];
const KINDS_OF_LOGIN: [&str; 2] = ["password", "mfa"];

#[derive(Debug, Clone)]
enum Test {
    AtMost(i32),
    AtLeast(i32),
    Above(i32),
    Below(i32),
    OneOf(Vec<Value>),
    Equals(Value),
    StartsWith(&'static str),
    EndsWith(&'static str),
    LengthAtMost(usize),
    LengthAtLeast(usize),
    ElementsAtMost(usize),
    ElementsAtLeast(usize),
    PathUnder(Vec<&'static str>),
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
const DIRECTORIES: [&str; 4] = ["/srv", "/srv/x", "/etc", "/"];
/// In hundredths, so that the oracle counts with whole numbers; as binary fractions most of them are not what they say.
const NUMBERS: [i32; 10] = [-200, -150, 0, 7, 29, 50, 100, 200, 250, 300];

/// As files and arguments spell it.
fn spelled(hundredths: i32) -> Value {
    Value::from(f64::from(hundredths) / 100.0)
}

/// What a file can write as one value, and an argument be.
fn scalar() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<bool>().prop_map(Value::from),
        proptest::sample::select(&NUMBERS[..]).prop_map(spelled),
        proptest::sample::select(&TEXTS[..]).prop_map(Value::from),
    ]
}

fn asked() -> impl Strategy<Value = Asked> {
    let text = || proptest::sample::select(&TEXTS[..]);
    let number = || proptest::sample::select(&NUMBERS[..]);
    let test = prop_oneof![
        1 => number().prop_map(Test::AtMost),
        1 => number().prop_map(Test::AtLeast),
        1 => number().prop_map(Test::Above),
        1 => number().prop_map(Test::Below),
        1 => scalar().prop_map(Test::Equals),
        1 => proptest::collection::vec(scalar(), 1..4).prop_map(Test::OneOf),
        1 => text().prop_map(Test::StartsWith),
        1 => text().prop_map(Test::EndsWith),
        1 => (0..3_usize).prop_map(Test::LengthAtMost),
        1 => (0..3_usize).prop_map(Test::LengthAtLeast),
        1 => (0..3_usize).prop_map(Test::ElementsAtMost),
        1 => (0..3_usize).prop_map(Test::ElementsAtLeast),
        2 => proptest::sample::subsequence(&DIRECTORIES[..], 1..3).prop_map(Test::PathUnder),
        1 => Just(Test::HostIn),
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
        1 => any::<bool>().prop_map(Asked::Autonomous),
        1 => any::<bool>().prop_map(Asked::Mandate),
        1 => proptest::sample::subsequence(&TEMPLATES[..], 1..=2).prop_map(Asked::Template),
        1 => proptest::sample::subsequence(&LABELS[..], 1..=2).prop_map(Asked::Seen),
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
    let mandate = prop_oneof![
        Just(Under::NobodyLooked),
        Just(Under::Nothing),
        Just(Under::Free),
        proptest::sample::select(&TEMPLATES[..]).prop_map(Under::Template),
    ];
    let seen = proptest::option::of(proptest::sample::subsequence(&LABELS[..], 0..=2));
    let autonomous = proptest::option::of(any::<bool>());
    // Two weeks, so that every hour of the week comes.
    (480_000..480_336_i64, behind, 0..PROOFS.len(), acr, authenticated, autonomous, mandate, seen).prop_map(
        |(hour, behind, proof, acr, authenticated, autonomous, mandate, seen)| Facts {
            hour,
            behind,
            proof,
            acr,
            authenticated,
            autonomous,
            mandate,
            seen,
        },
    )
}

fn json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![Just(Value::Null), (-3..5_i64).prop_map(Value::from), scalar(), scalar(),];
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
            Self::Autonomous(expected) => format!("{{ autonomous = {expected} }}"),
            Self::Mandate(expected) => format!("{{ mandate = {expected} }}"),
            Self::Template(names) => format!("{{ mandate_template = {names:?} }}"),
            Self::Seen(labels) => format!("{{ seen = {labels:?} }}"),
            Self::Test(path, test) => {
                let test = match test {
                    Test::AtMost(limit) => format!("at_most = {}", spelled(*limit)),
                    Test::AtLeast(limit) => format!("at_least = {}", spelled(*limit)),
                    Test::Above(limit) => format!("above = {}", spelled(*limit)),
                    Test::Below(limit) => format!("below = {}", spelled(*limit)),
                    Test::Equals(value) => format!("equals = {value}"),
                    Test::OneOf(values) => format!("one_of = {}", Value::from(values.clone())),
                    Test::StartsWith(prefix) => format!("starts_with = {prefix:?}"),
                    Test::EndsWith(suffix) => format!("ends_with = {suffix:?}"),
                    Test::LengthAtMost(limit) => format!("length_at_most = {limit}"),
                    Test::LengthAtLeast(limit) => format!("length_at_least = {limit}"),
                    Test::ElementsAtMost(limit) => format!("elements_at_most = {limit}"),
                    Test::ElementsAtLeast(limit) => format!("elements_at_least = {limit}"),
                    Test::PathUnder(directories) => format!("path_under = {directories:?}"),
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
            Self::Autonomous(expected) => facts.autonomous.map(|autonomous| autonomous == *expected),
            Self::Mandate(expected) => match facts.mandate {
                Under::NobodyLooked => None,
                Under::Nothing => Some(!*expected),
                Under::Free | Under::Template(_) => Some(*expected),
            },
            Self::Template(names) => match facts.mandate {
                Under::NobodyLooked => None,
                Under::Nothing | Under::Free => Some(false),
                Under::Template(name) => Some(names.contains(&name)),
            },
            Self::Seen(labels) => {
                facts.seen.as_ref().map(|seen| labels.iter().all(|label| seen.iter().any(|seen| is(seen, label))))
            }
            Self::Only(names) => Some(arguments.as_object()?.keys().all(|key| names.contains(&key.as_str()))),
            Self::Present(path, expected) => present(arguments, path).map(|present| present == *expected),
            Self::Test(path, test) => find(arguments, path, every, &|value| test.oracle(value, every)),
        }
    }
}

/// Whether something with this label is something with that one.
fn is(label: &str, other: &str) -> bool {
    let place = |name: &str| LABELS.iter().position(|label| *label == name).unwrap();
    label == other || (other != "untrusted" && label != "untrusted" && place(label) > place(other))
}

impl Facts {
    fn situation(&self) -> Situation {
        let situation = match self.mandate {
            Under::NobodyLooked => Situation::default(),
            Under::Nothing => Situation::without_mandate(),
            Under::Free => Situation::under(None),
            Under::Template(name) => Situation::under(Some(name)),
        };
        match &self.seen {
            None => situation,
            Some(seen) => {
                let with = |seen: Seen, label: &&str| seen.with(Seen::named(label).unwrap());
                situation.having_seen(seen.iter().fold(Seen::NOTHING, with))
            }
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
        match (self, value) {
            (Self::ElementsAtMost(limit), Value::Array(values)) => return Some(values.len() <= *limit),
            (Self::ElementsAtLeast(limit), Value::Array(values)) => return Some(values.len() >= *limit),
            (Self::ElementsAtMost(_) | Self::ElementsAtLeast(_), _) => return None,
            _ => {}
        }
        if let Value::Array(values) = value {
            return over(values, every, &|value| self.oracle(value, every));
        }
        let hundredths = |value: &Value| value.as_f64().map(|number| (number * 100.0).round());
        let compared = |limit: &i32| hundredths(value)?.partial_cmp(&f64::from(*limit));
        match self {
            Self::AtMost(limit) => compared(limit).map(Ordering::is_le),
            Self::AtLeast(limit) => compared(limit).map(Ordering::is_ge),
            Self::Above(limit) => compared(limit).map(Ordering::is_gt),
            Self::Below(limit) => compared(limit).map(Ordering::is_lt),
            Self::Equals(wanted) => among(std::slice::from_ref(wanted), value),
            Self::OneOf(wanted) => among(wanted, value),
            Self::StartsWith(prefix) => value.as_str().map(|text| text.starts_with(prefix)),
            Self::EndsWith(suffix) => value.as_str().map(|text| text.ends_with(suffix)),
            Self::LengthAtMost(limit) => value.as_str().map(|text| text.chars().count() <= *limit),
            Self::LengthAtLeast(limit) => value.as_str().map(|text| text.chars().count() >= *limit),
            Self::PathUnder(directories) => match value.as_str()? {
                "/srv/x" => Some(directories.iter().any(|directory| ["/", "/srv", "/srv/x"].contains(directory))),
                "/etc/x" => Some(directories.iter().any(|directory| ["/", "/etc"].contains(directory))),
                "/srvx" => Some(directories.contains(&"/")),
                _ => None,
            },
            Self::HostIn => match value.as_str()? {
                "https://a.example/x" | "https://b.c.example/" => Some(true),
                "https://c.example" | "https://a.example.evil/" => Some(false),
                _ => None,
            },
            Self::ElementsAtMost(_) | Self::ElementsAtLeast(_) => None,
        }
    }
}

/// Whether it is one of these; nobody knows, where none of them is even of its kind.
fn among(wanted: &[Value], value: &Value) -> Option<bool> {
    // Both were written from the same hundredths.
    let same = |other: &&Value| match (*other, value) {
        (Value::Number(one), Value::Number(other)) => one.as_f64() == other.as_f64(),
        (one, other) => one == other,
    };
    let of_its_kind = |other: &&Value| std::mem::discriminant(*other) == std::mem::discriminant(value);
    let its_kind: Vec<&Value> = wanted.iter().filter(of_its_kind).collect();
    (!its_kind.is_empty()).then(|| its_kind.iter().any(same))
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
        persona.agent = facts.autonomous.map(|autonomous| AgentFacts { autonomous, ..agent(&[]) });
        let situation = facts.situation();
        let known = Known::new(&persona, Arguments::Json(&text), now).within(&situation);
        let values = [Quantifier::Every, Quantifier::Any].map(|quantifier| condition[0].value(&known, quantifier));
        prop_assert_eq!((values[0], values[1]), expected);
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

#[test]
fn a_path_in_any_argument_is_under_a_directory_or_it_is_not() {
    let persona = user("ann", &[]);
    for path in PATHS {
        let condition =
            super::read(&format!("[tested]\nargument = {path:?}\npath_under = [\"/srv\", \"/etc\"]")).unwrap();
        let with = |text: &str| {
            let members = path.rsplit('.').fold(Value::from(text), |inner, name| serde_json::json!({ name: inner }));
            condition[0].values(&persona, Arguments::Json(&members.to_string()), Timestamp::UNIX_EPOCH)
        };
        assert_eq!(with("/srv/x"), (Truth::True, Truth::True), "{path}");
        assert_eq!(with("/etc"), (Truth::True, Truth::True), "{path}");
        assert_eq!(with("/srvx"), (Truth::False, Truth::False), "{path}");
        assert_eq!(with("/srv/../x"), (Truth::Unknown, Truth::Unknown), "{path}");
    }
}
