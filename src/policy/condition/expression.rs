//! What a condition asks, and its value for one question.
//!
//! Decides one of three values and nothing else; every test of a value of another type is *unknown*.
//! Invariant: no step fails, loops or has an effect.

use std::sync::Arc;

use rust_decimal::Decimal;

use super::arguments::{Json, Member, Members, Parsed, decimal};
use super::clock::Window;
use super::{Facts, Quantifier, Truth, place};
use crate::identity::{Behind, ClientProof, Persona};
use crate::limit::CONDITION_VALUE_CHARACTERS_MAX;
use crate::policy::label::Seen;

/// What can be asked.
#[derive(Debug)]
pub(super) enum Expression {
    All(Vec<Arc<Self>>),
    Any(Vec<Arc<Self>>),
    Not(Arc<Self>),
    /// No other arguments than these.
    Only(Vec<String>),
    Argument(Vec<String>, Test),
    Present(Vec<String>, bool),
    Time(Window),
    ClientProof(ClientProof),
    AuthenticatedWithin(i64),
    Acr(Vec<String>),
    Human(bool),
    Autonomous(bool),
    /// Whether it is part of a mandate.
    Mandate(bool),
    /// Of which templates that may be.
    Template(Vec<String>),
    /// All of these labels were seen.
    Seen(Seen),
}

/// A test of one value.
#[derive(Debug)]
pub(super) enum Test {
    OneOf(Vec<Scalar>),
    Range {
        bound: Bound,
        limit: Decimal,
    },
    StartsWith(Vec<String>),
    EndsWith(Vec<String>),
    /// Characters.
    Length(Bound, usize),
    /// Elements of a list.
    Elements(Bound, usize),
    PathUnder(Vec<String>),
    UrlHostIn(Vec<String>),
}

/// Which side of a limit is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Bound {
    AtLeast,
    AtMost,
    Above,
    Below,
}

impl Bound {
    fn holds<T: PartialOrd>(self, value: &T, limit: &T) -> bool {
        match self {
            Self::AtLeast => value >= limit,
            Self::AtMost => value <= limit,
            Self::Above => value > limit,
            Self::Below => value < limit,
        }
    }
}

/// A value that a file can write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scalar {
    Text(String),
    Number(Decimal),
    Boolean(bool),
}

/// Whether a person stands behind the caller.
const fn human(persona: &Persona) -> Truth {
    match persona.behind {
        Behind::Person => Truth::True,
        Behind::Nobody => Truth::False,
        Behind::Unknown => Truth::Unknown,
    }
}

impl Expression {
    pub(super) fn value(&self, facts: &Facts<'_>, quantifier: Quantifier) -> Truth {
        match self {
            Self::All(parts) => Truth::all(parts.iter().map(|part| part.value(facts, quantifier))),
            Self::Any(parts) => Truth::any(parts.iter().map(|part| part.value(facts, quantifier))),
            Self::Not(part) => part.value(facts, quantifier.turned()).not(),
            Self::Only(allowed) => match &facts.arguments {
                Parsed::Unknown => Truth::Unknown,
                Parsed::Members(members) => {
                    Truth::of(members.names().all(|name| allowed.iter().any(|known| known == name)))
                }
            },
            Self::Argument(path, test) => match (&facts.arguments, path.split_first()) {
                (Parsed::Members(members), Some((name, rest))) => {
                    member(members, name, rest, quantifier, &|text| test.value(text, quantifier))
                }
                _ => Truth::Unknown,
            },
            Self::Present(path, expected) => match (&facts.arguments, path.split_first()) {
                (Parsed::Members(members), Some((name, rest))) => {
                    let present = present(members, name, rest);
                    if *expected { present } else { present.not() }
                }
                _ => Truth::Unknown,
            },
            Self::Time(window) => facts.now.map_or(Truth::Unknown, |now| Truth::of(window.contains(now))),
            Self::ClientProof(least) => Truth::of(facts.persona.client_proof >= *least),
            Self::AuthenticatedWithin(seconds_max) => match (facts.now, facts.persona.authenticated_at) {
                (Some(now), Some(at)) => match now.as_second().checked_sub(at) {
                    // A login in the future is a broken clock, not a fresh login.
                    Some(age) if age >= -AUTHENTICATION_SKEW_SECONDS => Truth::of(age <= *seconds_max),
                    _ => Truth::Unknown,
                },
                _ => Truth::Unknown,
            },
            Self::Acr(accepted) => {
                facts.persona.acr.as_ref().map_or(Truth::Unknown, |acr| Truth::of(accepted.contains(acr)))
            }
            Self::Human(expected) => {
                let human = human(facts.persona);
                if *expected { human } else { human.not() }
            }
            Self::Autonomous(expected) => {
                let agent = facts.persona.agent.as_ref();
                agent.map_or(Truth::Unknown, |agent| Truth::of(agent.autonomous == *expected))
            }
            Self::Mandate(expected) => {
                let is_under = facts.situation.is_under_mandate();
                if *expected { is_under } else { is_under.not() }
            }
            Self::Template(accepted) => facts.situation.is_of_template(accepted),
            Self::Seen(labels) => facts.situation.has_seen(*labels),
        }
    }

    pub(super) fn any_part(&self, wanted: &dyn Fn(&Self) -> bool) -> bool {
        wanted(self)
            || match self {
                Self::All(parts) | Self::Any(parts) => parts.iter().any(|part| part.any_part(wanted)),
                Self::Not(part) => part.any_part(wanted),
                _ => false,
            }
    }

    /// What of the arguments it reads.
    pub(super) fn arguments_read(&self, read: &mut Vec<ArgumentRead>) {
        match self {
            Self::All(parts) | Self::Any(parts) => parts.iter().for_each(|part| part.arguments_read(read)),
            Self::Not(part) => part.arguments_read(read),
            Self::Only(_) => read.push(ArgumentRead::Names),
            Self::Argument(path, _) => read.push(ArgumentRead::Value(path.join("."))),
            Self::Present(path, _) => read.push(ArgumentRead::Presence(path.join("."))),
            _ => {}
        }
    }

    /// Whether it can be true only with a closed set of arguments.
    pub(super) fn closes(&self) -> bool {
        match self {
            Self::Only(_) => true,
            Self::All(parts) => parts.iter().any(|part| part.closes()),
            Self::Any(parts) => parts.iter().all(|part| part.closes()),
            _ => false,
        }
    }

    pub(super) fn read(&self, facts: &Facts<'_>, read: &mut Vec<(String, String)>) {
        let (what, mut value) = match self {
            Self::All(parts) | Self::Any(parts) => return parts.iter().for_each(|part| part.read(facts, read)),
            Self::Not(part) => return part.read(facts, read),
            Self::Only(_) => match &facts.arguments {
                Parsed::Unknown => return,
                Parsed::Members(members) => ("arguments".to_owned(), members.names().collect::<Vec<_>>().join(" ")),
            },
            Self::Argument(path, _) => match &facts.arguments {
                Parsed::Unknown => return,
                Parsed::Members(members) => (path.join("."), raw(members, path)),
            },
            // What it is makes no difference, and is nobody's business.
            Self::Present(path, _) => match (&facts.arguments, path.split_first()) {
                (Parsed::Members(members), Some((name, rest))) => {
                    let value = match present(members, name, rest) {
                        Truth::True => PRESENT,
                        Truth::False => ABSENT,
                        Truth::Unknown => "[unknown]",
                    };
                    (path.join("."), value.to_owned())
                }
                _ => return,
            },
            Self::Time(_) => ("time".to_owned(), facts.now.map_or_else(|| "unknown".to_owned(), |now| now.to_string())),
            Self::ClientProof(_) => ("client_proof".to_owned(), facts.persona.client_proof.as_str().to_owned()),
            Self::AuthenticatedWithin(_) => {
                let at = facts.persona.authenticated_at;
                ("authenticated_at".to_owned(), at.map_or_else(|| "unknown".to_owned(), |at| at.to_string()))
            }
            Self::Acr(_) => ("acr".to_owned(), facts.persona.acr.clone().unwrap_or_else(|| "unknown".to_owned())),
            Self::Human(_) => ("human".to_owned(), human(facts.persona).to_string()),
            Self::Autonomous(_) => {
                let agent = facts.persona.agent.as_ref();
                ("autonomous".to_owned(), agent.map_or_else(|| "unknown".to_owned(), |a| a.autonomous.to_string()))
            }
            Self::Mandate(_) | Self::Template(_) => ("mandate".to_owned(), facts.situation.mandate_told()),
            Self::Seen(_) => ("seen".to_owned(), facts.situation.seen_told()),
        };
        if value.len() > CONDITION_VALUE_CHARACTERS_MAX
            && let Some((end, _)) = value.char_indices().nth(CONDITION_VALUE_CHARACTERS_MAX)
        {
            value.truncate(end);
        }
        match read.iter_mut().find(|(known, _)| *known == what) {
            // A value says more than that there is one.
            Some((_, known)) if *known == PRESENT => *known = value,
            Some(_) => {}
            None => read.push((what, value)),
        }
    }
}

/// What of the arguments a condition reads, by the names of the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::policy) enum ArgumentRead {
    /// Which ones there are.
    Names,
    /// What this one is.
    Value(String),
    /// Whether there is this one.
    Presence(String),
}

/// What the record says of an argument of which only that was looked at.
pub const PRESENT: &str = "present";
const ABSENT: &str = "absent";

/// How far a login may lie ahead of our clock.
const AUTHENTICATION_SKEW_SECONDS: i64 = 60;

/// Applies a test to the member of an object, and to each element where there is a list on the way.
fn member(
    members: &Members<'_>,
    name: &str,
    rest: &[String],
    quantifier: Quantifier,
    test: &dyn Fn(&str) -> Truth,
) -> Truth {
    match members.get(name) {
        Member::Absent | Member::Twice => Truth::Unknown,
        Member::One(text) => descend(text, rest, quantifier, test),
    }
}

fn descend(text: &str, path: &[String], quantifier: Quantifier, test: &dyn Fn(&str) -> Truth) -> Truth {
    let Some((name, rest)) = path.split_first() else { return test(text) };
    match Json::read(text) {
        Some(Json::List(elements)) if !elements.is_empty() => {
            quantifier.join(elements.iter().map(|element| descend(element, path, quantifier, test)))
        }
        Some(Json::Object(text)) => match Members::read(text) {
            Some(members) => member(&members, name, rest, quantifier, test),
            None => Truth::Unknown,
        },
        _ => Truth::Unknown,
    }
}

/// Whether a path leads to something; *unknown* where something on the way is not an object.
fn present(members: &Members<'_>, name: &str, rest: &[String]) -> Truth {
    let text = match members.get(name) {
        Member::Absent => return Truth::False,
        Member::Twice => return Truth::Unknown,
        Member::One(text) => text,
    };
    let Some((name, rest)) = rest.split_first() else { return Truth::True };
    match Json::read(text) {
        Some(Json::Object(text)) => Members::read(text).map_or(Truth::Unknown, |members| present(&members, name, rest)),
        _ => Truth::Unknown,
    }
}

/// The text that a path leads to, for the record.
fn raw(members: &Members<'_>, path: &[String]) -> String {
    let Some((name, rest)) = path.split_first() else { return String::new() };
    match members.get(name) {
        Member::Absent => ABSENT.to_owned(),
        Member::Twice => "given twice".to_owned(),
        Member::One(text) if rest.is_empty() => text.to_owned(),
        Member::One(text) => match Members::read(text) {
            Some(members) => raw(&members, rest),
            None => text.to_owned(),
        },
    }
}

impl Test {
    fn value(&self, text: &str, quantifier: Quantifier) -> Truth {
        let Some(json) = Json::read(text) else { return Truth::Unknown };
        match (self, json) {
            (Self::Elements(bound, limit), Json::List(elements)) => Truth::of(bound.holds(&elements.len(), limit)),
            (Self::Elements(..), _) => Truth::Unknown,
            // Nothing to test is not the same as everything passing.
            (_, Json::List(elements)) if elements.is_empty() => Truth::Unknown,
            (_, Json::List(elements)) => {
                quantifier.join(elements.iter().map(|element| self.value(element, quantifier)))
            }
            (Self::OneOf(accepted), json) => one_of(accepted, &json),
            (Self::Range { bound, limit }, Json::Number(number)) => {
                decimal(number).map_or(Truth::Unknown, |number| Truth::of(bound.holds(&number, limit)))
            }
            (Self::StartsWith(prefixes), Json::Text(text)) => {
                Truth::of(prefixes.iter().any(|prefix| text.starts_with(prefix)))
            }
            (Self::EndsWith(suffixes), Json::Text(text)) => {
                Truth::of(suffixes.iter().any(|suffix| text.ends_with(suffix)))
            }
            (Self::Length(bound, limit), Json::Text(text)) => Truth::of(bound.holds(&text.chars().count(), limit)),
            (Self::PathUnder(directories), Json::Text(text)) => place::path_under(&text, directories),
            (Self::UrlHostIn(hosts), Json::Text(text)) => place::url_host_in(&text, hosts),
            _ => Truth::Unknown,
        }
    }
}

fn one_of(accepted: &[Scalar], json: &Json<'_>) -> Truth {
    let value = match json {
        Json::Text(text) => Scalar::Text(text.clone().into_owned()),
        Json::Boolean(value) => Scalar::Boolean(*value),
        Json::Number(number) => match decimal(number) {
            Some(number) => Scalar::Number(number),
            None => return Truth::Unknown,
        },
        Json::Null | Json::List(_) | Json::Object(_) => return Truth::Unknown,
    };
    let same_type = |other: &Scalar| std::mem::discriminant(other) == std::mem::discriminant(&value);
    if !accepted.iter().any(same_type) {
        return Truth::Unknown;
    }
    Truth::of(accepted.contains(&value))
}
