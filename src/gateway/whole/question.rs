//! What one replica asks another about its record, and what it is answered.
//!
//! Decides how a question is answered from one record. Refuses to know who asks. Invariant: a question changes nothing, and
//! an answer has so many bytes at most.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::config::{FileSet, Mistake, Overrides};
use crate::evidence::{self, Simulation, Suggested, Usage};
use crate::gateway::understand::understand;
use crate::limit;
use crate::policy::Policy;
use crate::record::related::{self, Lines, Related, Root};

/// A question about one record.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Question {
    /// What has that id.
    Find { id: String },
    /// Which lines belong to that.
    Lines { related: Related },
    /// Which rows would have been enough.
    Suggest { since: Timestamp, until: Timestamp, agent: Option<String> },
    /// What these policies would decide otherwise.
    Simulate { since: Timestamp, until: Timestamp, policies: BTreeMap<String, String> },
}

/// What one record says to it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Answer {
    /// To [`Question::Find`].
    Found { roots: BTreeSet<Root> },
    /// To [`Question::Lines`], with what belongs to it as far as it is known by then.
    Lines { lines: Lines, related: Related },
    /// To [`Question::Suggest`].
    Suggested(Suggested),
    /// To [`Question::Simulate`].
    Simulated(Simulation),
}

/// The files that are served, in whose world the next policies are understood.
pub(super) struct World {
    pub(super) files: std::sync::Arc<FileSet>,
    pub(super) overrides: Overrides,
}

impl Question {
    /// What it is about, for the record.
    pub(super) fn about(&self) -> String {
        match self {
            Self::Find { id } => format!("show {id}"),
            Self::Lines { .. } => "show what belongs to that".to_owned(),
            Self::Suggest { since, .. } => format!("suggest since {since}"),
            Self::Simulate { since, .. } => format!("simulate since {since}"),
        }
    }

    /// The answer of the record in that directory. Reads all of it.
    ///
    /// # Errors
    /// What is in the way, for people.
    pub(super) fn answer(self, journal: &Path, world: &World) -> Result<Answer, String> {
        let unreadable = |error: io::Error| format!("its record cannot be read: {error}");
        match self {
            Self::Find { id } => related::find(journal, &id).map(|roots| Answer::Found { roots }).map_err(unreadable),
            Self::Lines { mut related } => {
                let lines = related::lines(journal, &mut related, limit::RECORD_TOLD_BYTES_MAX).map_err(unreadable)?;
                Ok(Answer::Lines { lines, related })
            }
            Self::Suggest { since, until, agent } => {
                let usage = Usage::read(journal, since, until).map_err(unreadable)?;
                Ok(Answer::Suggested(Suggested::by(&usage, agent.as_deref())))
            }
            Self::Simulate { since, until, policies } => {
                let policy = world.policy(policies)?;
                let found = evidence::simulate(journal, &policy, since, until).map_err(unreadable)?;
                Ok(Answer::Simulated(found))
            }
        }
    }
}

impl World {
    /// The policy that these files are.
    fn policy(&self, policies: BTreeMap<String, String>) -> Result<Policy, String> {
        let policies = policies.into_iter().map(|(name, text)| (name, text.into_bytes())).collect();
        let understood = understand(self.files.with_policies(policies), &self.overrides);
        understood.map(|understood| understood.policy).map_err(|mistakes| first(&mistakes))
    }
}

/// The first mistake, and how many more there are.
pub(super) fn first(mistakes: &[Mistake]) -> String {
    let more = match mistakes.len().saturating_sub(1) {
        0 => String::new(),
        more => format!(" (and {more} more)"),
    };
    let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
    format!("the next policies would not be served: {first}{more}")
}
