//! Conditions as people read them: hints, explanations, warnings.

use std::fmt;
use std::sync::Arc;

use super::expression::{Bound, Expression, Scalar, Test};

impl fmt::Display for Scalar {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Text(text) => write!(formatter, "`{text}`"),
            Self::Number(number) => number.fmt(formatter),
            Self::Boolean(value) => value.fmt(formatter),
        }
    }
}

impl Bound {
    const fn words(self) -> &'static str {
        match self {
            Self::AtLeast => "at least",
            Self::AtMost => "at most",
            Self::Above => "above",
            Self::Below => "below",
        }
    }
}

impl fmt::Display for Expression {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let join = |parts: &[Arc<Self>], word: &str| {
            let parts: Vec<String> = parts
                .iter()
                .map(|part| match &**part {
                    Self::All(inner) | Self::Any(inner) if inner.len() > 1 => format!("({part})"),
                    _ => part.to_string(),
                })
                .collect();
            parts.join(word)
        };
        let texts = |texts: &[String]| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::All(parts) => formatter.write_str(&join(parts, " and ")),
            Self::Any(parts) => formatter.write_str(&join(parts, " or ")),
            Self::Not(part) => write!(formatter, "not ({part})"),
            Self::Only(names) if names.is_empty() => formatter.write_str("no argument is given"),
            Self::Only(names) => write!(formatter, "no other argument than {} is given", texts(names)),
            Self::Argument(path, test) => write!(formatter, "`{}` {test}", path.join(".")),
            Self::Present(path, true) => write!(formatter, "`{}` is given", path.join(".")),
            Self::Present(path, false) => write!(formatter, "`{}` is not given", path.join(".")),
            Self::Time(window) => window.fmt(formatter),
            Self::ClientProof(least) => write!(formatter, "the client proves itself by {} or better", least.as_str()),
            Self::AuthenticatedWithin(seconds) => write!(formatter, "the login is at most {seconds} seconds old"),
            Self::Acr(accepted) => write!(formatter, "the login is of class {}", texts(accepted)),
            Self::Human(true) => formatter.write_str("a person stands behind the call"),
            Self::Human(false) => formatter.write_str("no person stands behind the call"),
            Self::Autonomous(true) => formatter.write_str("the agent acts on its own"),
            Self::Autonomous(false) => formatter.write_str("the agent is used by a person"),
            Self::Mandate(true) => formatter.write_str("the call is part of a mandate"),
            Self::Mandate(false) => formatter.write_str("the call is part of no mandate"),
            Self::Template(accepted) => write!(formatter, "its mandate is of the template {}", texts(accepted)),
            Self::Seen(labels) => write!(formatter, "its caller has seen {labels}"),
        }
    }
}

impl fmt::Display for Test {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let texts = |texts: &[String]| texts.iter().map(|text| format!("`{text}`")).collect::<Vec<_>>().join(", ");
        match self {
            Self::OneOf(accepted) => {
                let accepted: Vec<String> = accepted.iter().map(ToString::to_string).collect();
                write!(formatter, "is {}", accepted.join(" or "))
            }
            Self::Range { bound, limit } => write!(formatter, "is {} {limit}", bound.words()),
            Self::StartsWith(prefixes) => write!(formatter, "starts with {}", texts(prefixes)),
            Self::EndsWith(suffixes) => write!(formatter, "ends with {}", texts(suffixes)),
            Self::Length(bound, limit) => write!(formatter, "has {} {limit} characters", bound.words()),
            Self::Elements(bound, limit) => write!(formatter, "has {} {limit} elements", bound.words()),
            Self::PathUnder(directories) => write!(formatter, "lies under {}", texts(directories)),
            Self::UrlHostIn(hosts) => write!(formatter, "leads to {}", texts(hosts)),
        }
    }
}
