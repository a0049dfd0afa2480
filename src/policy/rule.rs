//! One rule: a `p` row that was read and found to make sense.
//!
//! Knows what a rule says, not whether it is used. Invariant: a rule's environments are those in which it
//! can ever be asked; `*` is expanded.

use std::fmt;
use std::sync::Arc;

use super::model::Row;
use super::object::ObjectPattern;
use super::role::{EnvironmentSet, NameId};
use crate::ids::Action;

/// A rule of the policy, by its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct RuleId(pub(super) u32);

/// What a rule does where it applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Effect {
    /// Allows, when its condition is *true*.
    Allow,
    /// Denies, unless its condition is *false*; wins.
    Deny,
}

impl Effect {
    /// The spelling in files and in Casbin.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

/// A rule of the policy.
#[derive(Debug)]
pub struct Rule {
    /// Where it stands: `file:line`.
    pub(super) place: Arc<str>,
    pub(super) line: u32,
    pub(super) subject: Arc<str>,
    pub(super) subject_id: NameId,
    pub(super) environments: EnvironmentSet,
    pub(super) environment: String,
    pub(super) object: ObjectPattern,
    pub(super) action: Action,
    pub(super) action_name: Arc<str>,
    /// Index into the conditions; `None` is `-`.
    pub(super) condition: Option<usize>,
    pub(super) condition_name: Arc<str>,
    pub(super) effect: Effect,
}

impl Rule {
    /// Where it stands: `file:line`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The file that it stands in.
    #[must_use]
    pub fn file(&self) -> &str {
        self.place.rsplit_once(':').map_or("", |(file, _)| file)
    }

    /// The line that it stands in, from 1.
    #[must_use]
    pub const fn line(&self) -> u32 {
        self.line
    }

    /// Allow or deny.
    #[must_use]
    pub const fn effect(&self) -> Effect {
        self.effect
    }

    /// Whom it speaks about, as written.
    #[must_use]
    pub fn subject(&self) -> &str {
        &self.subject
    }

    /// What it speaks about, as written.
    #[must_use]
    pub fn object(&self) -> &str {
        &self.object.text
    }

    /// The condition's name, if it has one.
    #[must_use]
    pub fn condition(&self) -> Option<&str> {
        self.condition.map(|_| &*self.condition_name)
    }

    /// The row that Casbin gets for one environment.
    pub(super) fn row(&self, environment: &Arc<str>) -> Row {
        [
            Arc::clone(&self.subject),
            Arc::clone(environment),
            Arc::clone(&self.object.text),
            Arc::clone(&self.action_name),
            Arc::clone(&self.condition_name),
            Arc::from(self.effect.as_str()),
        ]
    }

    /// The rule as a sentence.
    #[must_use]
    pub fn sentence(&self) -> String {
        self.to_string()
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let verb = match self.effect {
            Effect::Allow => "may",
            Effect::Deny => "must not",
        };
        write!(formatter, "{} {verb} {} {}", self.subject, self.action, self.object.text)?;
        match self.environment.as_str() {
            "*" => formatter.write_str(" in every environment")?,
            environment => write!(formatter, " in {environment}")?,
        }
        match (self.condition, self.effect) {
            (None, _) => Ok(()),
            (Some(_), Effect::Allow) => write!(formatter, " when `{}` holds", self.condition_name),
            (Some(_), Effect::Deny) => write!(formatter, " unless `{}` surely does not hold", self.condition_name),
        }
    }
}
