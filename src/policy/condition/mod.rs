//! Named, typed conditions: `policies/conditions.toml`.
//!
//! Each table is one condition, which rules name in their fifth column. The keys of a table are tests, and
//! all of them must hold:
//!
//! ```toml
//! [small-rollout]                          # the arguments of the call
//! only = ["service", "replicas"]           # no other argument is given
//! argument = "replicas"                    # the one that is tested; "spec.size" goes deeper
//! at_least = 1                             # numbers: at_least, at_most, above, below
//! at_most = 5
//!
//! [own-files]
//! argument = "paths"                       # a list: an allow needs every element, a deny any
//! path_under = ["/srv/data"]               # or url_host_in = ["api.example.com", "*.example.org"]
//!
//! [known-branch]
//! argument = "branch"                      # text: equals, one_of, starts_with, ends_with,
//! one_of = ["main", "next"]                #       length_at_least, length_at_most (characters)
//!
//! [few-and-dry]
//! all = [                                  # all, any, not; a text is another condition's name
//!   "known-branch",
//!   { argument = "files", elements_at_most = 20 },
//!   { not = { argument = "force", present = true } },
//! ]
//!
//! [outside-hours]
//! not = { time = { zone = "Europe/Berlin", days = ["mon", "fri"], from = "08:00", to = "18:00" } }
//!
//! [strong-login]                           # facts about the caller
//! client_proof = "private_key"             # at least: none, public, secret, private_key, mtls, svid
//! authenticated_within = "15m"
//! acr = ["urn:example:mfa"]
//! human = true                             # a person stands behind the call; false forbids one
//! autonomous = false                       # the agent acts on its own
//!
//! [reports-only]                           # facts about the moment of the call
//! mandate = true                           # it is part of a mandate
//! mandate_template = ["nightly"]           # of one of these templates
//! seen = ["private"]                       # its caller has seen all of these labels
//! hint = "log in again with a second factor"
//! ```
//!
//! Decides three values: a missing argument or one of the wrong type is *unknown*, and so is what is built
//! on it. Only the rule decides what unknown means: an allow needs *true*, a deny applies unless *false*.
//! Refuses to guess. No side effects, no loops, no floats.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;

mod arguments;
mod clock;
mod expression;
mod parse;
mod place;
#[cfg(test)]
mod property;
mod show;
mod situation;
mod values;

pub use arguments::Arguments;
pub(super) use parse::{Table, client_proof, conditions};
pub use situation::Situation;
pub(super) use situation::UNKNOWN;

use self::arguments::Parsed;
pub(super) use self::expression::ArgumentRead;
use self::expression::Expression;
pub use self::expression::PRESENT;
use super::source::Mistake;
use crate::identity::Persona;
use crate::ids::ConditionName;
use crate::limit::CONDITION_VALUES_MAX;

/// The three values of Kleene's logic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Truth {
    /// It surely does not hold.
    False,
    /// Nobody knows: something is missing, of the wrong type, or ambiguous.
    Unknown,
    /// It surely holds.
    True,
}

impl Truth {
    pub(super) const fn of(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }

    const fn not(self) -> Self {
        match self {
            Self::False => Self::True,
            Self::Unknown => Self::Unknown,
            Self::True => Self::False,
        }
    }

    fn all(values: impl Iterator<Item = Self>) -> Self {
        values.min().unwrap_or(Self::True)
    }

    fn any(values: impl Iterator<Item = Self>) -> Self {
        values.max().unwrap_or(Self::False)
    }
}

impl fmt::Display for Truth {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::False => "false",
            Self::Unknown => "unknown",
            Self::True => "true",
        })
    }
}

/// How a test reads a list; `not` turns it around.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Quantifier {
    /// Every element, as an allow needs it.
    Every,
    /// Any element, as a deny needs it.
    Any,
}

impl Quantifier {
    const fn turned(self) -> Self {
        match self {
            Self::Every => Self::Any,
            Self::Any => Self::Every,
        }
    }

    fn join(self, values: impl Iterator<Item = Truth>) -> Truth {
        match self {
            Self::Every => Truth::all(values),
            Self::Any => Truth::any(values),
        }
    }
}

/// Reads the text of `conditions.toml` alone.
///
/// # Errors
/// Every mistake in it.
pub fn read(text: &str) -> Result<Vec<Condition>, Vec<Mistake>> {
    let mut mistakes = Vec::new();
    let found = conditions("conditions.toml", text, &mut mistakes);
    if mistakes.is_empty() { Ok(found) } else { Err(mistakes) }
}

/// One named condition.
#[derive(Debug)]
pub struct Condition {
    pub(super) name: ConditionName,
    expression: Arc<Expression>,
    pub(super) hint: Option<String>,
}

/// What conditions may read of one question.
pub(super) struct Facts<'a> {
    persona: &'a Persona,
    arguments: Parsed<'a>,
    now: Option<Timestamp>,
    situation: &'a Situation,
}

impl<'a> Facts<'a> {
    /// The facts of a call.
    pub(super) fn new(persona: &'a Persona, arguments: Arguments<'a>, now: Timestamp) -> Self {
        Self { persona, arguments: Parsed::of(arguments), now: Some(now), situation: &UNKNOWN }
    }

    /// The same with what else is known of the moment.
    pub(super) fn within(self, situation: &'a Situation) -> Self {
        Self { situation, ..self }
    }

    /// What is known before there is a call: neither arguments nor time.
    pub(super) fn before_a_call(persona: &'a Persona) -> Self {
        Self { persona, arguments: Parsed::Unknown, now: None, situation: &UNKNOWN }
    }
}

impl Condition {
    /// Its name.
    #[must_use]
    pub const fn name(&self) -> &ConditionName {
        &self.name
    }

    /// Its values for a call: as an allow reads it, and as a deny does.
    #[must_use]
    pub fn values(&self, persona: &Persona, arguments: Arguments<'_>, now: Timestamp) -> (Truth, Truth) {
        let facts = Facts::new(persona, arguments, now);
        (self.value(&facts, Quantifier::Every), self.value(&facts, Quantifier::Any))
    }

    /// Its value; `Every` is how an allow reads it, `Any` how a deny does.
    pub(super) fn value(&self, facts: &Facts<'_>, quantifier: Quantifier) -> Truth {
        self.expression.value(facts, quantifier)
    }

    /// What it read, for the record: the path or fact, and its value as the call had it.
    pub(super) fn values_read(&self, facts: &Facts<'_>) -> Vec<(String, String)> {
        let mut read = Vec::new();
        self.expression.read(facts, &mut read);
        read.truncate(CONDITION_VALUES_MAX);
        read
    }

    /// What of the arguments it reads.
    pub(super) fn arguments_read(&self) -> Vec<ArgumentRead> {
        let mut read = Vec::new();
        self.expression.arguments_read(&mut read);
        read
    }

    /// Whether it reads the value of an argument.
    pub(super) fn reads_arguments(&self) -> bool {
        self.expression.any_part(&|part| matches!(part, Expression::Argument(..)))
    }

    /// Whether it reads which mandate a call is part of, or what its caller has seen.
    pub(super) fn reads_situation(&self) -> bool {
        self.expression.any_part(&|part| matches!(part, Expression::Mandate(_) | Expression::Template(_)))
            || self.reads_seen()
    }

    /// Whether it reads what the caller has seen.
    pub(super) fn reads_seen(&self) -> bool {
        self.expression.any_part(&|part| matches!(part, Expression::Seen(_)))
    }

    /// Whether another condition is built on it.
    pub(super) fn is_part_of_another(&self) -> bool {
        // Reading shares what is named; nothing else holds an expression twice.
        Arc::strong_count(&self.expression) > 1
    }

    /// Whether it can hold only where no other arguments are given than those that it names.
    #[must_use]
    pub fn closes_arguments(&self) -> bool {
        self.expression.closes()
    }

    /// Whether it reads arguments without closing their set.
    pub(super) fn leaves_arguments_open(&self) -> bool {
        self.expression.any_part(&|part| matches!(part, Expression::Argument(..) | Expression::Present(..)))
            && !self.expression.closes()
    }
}

impl fmt::Display for Condition {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.expression.fmt(formatter)
    }
}
