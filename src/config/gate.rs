//! `policies/gates.toml`: which calls need a person, whose, how many, for how long.
//!
//! Decides nothing. Invariant: a gate that asks somebody for approval names who may give it.

use std::fmt;
use std::time::Duration;

use crate::ids::Environment;

/// `[gates.NAME]`: calls that need a person's word.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GateConfig {
    /// Its name: part of what an approval is bound to.
    pub name: String,
    /// It stops nothing by itself: flows of `labels.toml` name it.
    pub flows: bool,
    /// Object patterns as in rules; none means every object.
    pub objects: Vec<Written>,
    /// Labels that a call has, one of them; none means whatever it does with data.
    pub labels: Vec<Written>,
    /// Where effects land; none means everywhere.
    pub environments: Vec<Environment>,
    /// What is done, as rules spell it.
    pub actions: Vec<String>,
    /// The named condition under which the call needs it; a condition that cannot be decided counts as one that holds.
    pub when: Option<Written>,
    /// What is needed.
    pub kind: GateKind,
    /// Who may approve.
    pub approvers: Vec<Approvers>,
    /// How many different persons.
    pub approvals: u32,
    /// How long a request waits for them.
    pub pending_for: Duration,
    /// How long what they approved can be used.
    pub approved_for: Duration,
    /// What it does cannot be undone: nobody approves it beforehand.
    pub irreversible: bool,
    /// Kinds of login that approve here, beside what `[admin]` demands.
    pub acr: Vec<String>,
    /// How old the approver's login may be, where that is shorter than `[admin]` says.
    pub auth_age_max: Option<Duration>,
}

/// What a gate needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GateKind {
    /// Another person approves.
    Approve,
    /// The same person says yes to this very call.
    Confirm,
}

impl GateKind {
    /// As files and records spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Confirm => "confirm",
        }
    }
}

/// Who may approve.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Approvers {
    /// Whoever answers for the server.
    Owner,
    /// A person or a group, as rules spell them.
    Subject(String),
}

impl fmt::Display for Approvers {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Owner => "owner",
            Self::Subject(subject) => subject,
        })
    }
}

/// A text of the file that another room looks up, and where it stands.
#[derive(Clone)]
pub struct Written {
    /// What it says.
    pub text: String,
    /// Its line, from 1.
    pub line: usize,
    /// Its column in characters, from 1.
    pub column: usize,
}

/// Where it stands makes no difference to what it means.
impl fmt::Debug for Written {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.text, formatter)
    }
}

impl PartialEq for Written {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Written {}
