//! Mandates: tasks that were given to a caller, narrower than what the rules allow.
//!
//! Decides what a mandate says and what it leaves of a call. Refuses to know how its handle travels and who may open
//! one. Invariants: a call passes only where the mandate, every mandate above it and their templates as they are now all
//! let it; what a mandate says never grows after it was opened, and what it leaves open is what its templates say now; with
//! its holder's access it is over, and stays so.

mod book;
mod idle;
mod open;
mod scope;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

pub(super) use book::unchanged;
pub use book::{Completion, Looked, MANDATES, Mandates, ended};
pub use idle::Use;
pub use open::{Opening, Wish};
pub(super) use scope::check;

use super::Party;
use super::approval::Token;
use crate::config::{Budget, Config};
use crate::identity::Revocations;
use crate::identity::revoked::{Barred, Revocation, RevocationTarget};
use crate::ids::{AgentId, Digest, Environment, MandateId, RevocationEpoch, TemplateName};
use crate::record::mandated::MandateFacts;
use crate::shelf::Version;

/// What a mandate says, as it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mandate {
    /// Its name in the record and on command lines.
    pub id: MandateId,
    /// Its template; absent where somebody who may has written it freely.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<TemplateName>,
    /// The digest of the one caller who may use it.
    pub holder: Digest,
    /// The agent that the holder is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<AgentId>,
    /// For whom the agent acts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Who opened it, as the record names them.
    pub opener: String,
    /// The digest of the caller who opened it, where that was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opener_key: Option<Digest>,
    /// What is known of them, so that they do not approve what is done under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub opened_by: Option<Party>,
    /// By what revocations know its holder: with their access it is over as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bearer: Option<Token>,
    /// What it is for, as its opener declared.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub purpose: String,
    /// The mandates above it, the outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub above: Vec<MandateId>,
    /// What its opener has left of the tools; nothing where they were not narrowed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<Vec<String>>,
    /// Conditions beside those of the template.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// What its opener has left of the environments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub environments: Option<Vec<Environment>>,
    /// What it may use up.
    #[serde(default, skip_serializing_if = "Budget::is_open")]
    pub budget: Budget,
    /// Whether it began without the labels of what went before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub isolated: bool,
    /// When it was opened, microseconds since 1970 by the store's clock.
    pub opened_us: i64,
    /// When it is over by itself.
    pub ends_us: i64,
    /// It ends sooner where nobody has used it for so many seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub idle_seconds: Option<u64>,
    /// How it was ended before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<Ended>,
    /// Its end is on the record.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) told: bool,
}

/// Who ends a mandate whose time has come.
pub const CLOCK: &str = "clock";
/// Who ends a mandate that nobody uses.
pub const IDLE: &str = "idle";

/// How a mandate was ended: before its time, or told of once that had come.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ended {
    /// When, microseconds since 1970 by the store's clock.
    pub at_us: i64,
    /// By whom.
    pub by: String,
}

impl Ended {
    /// Whether its time had come: nobody ended it.
    #[must_use]
    pub fn is_by_the_clock(&self) -> bool {
        self.by == CLOCK || self.is_by_disuse()
    }

    /// Whether nobody used it.
    #[must_use]
    pub fn is_by_disuse(&self) -> bool {
        self.by == IDLE
    }
}

/// A mandate that a call was found to be part of, and those above it.
#[derive(Debug, Clone)]
pub struct Held {
    /// Each with the version in which it was read, the outermost first and the call's own last.
    pub(super) chain: Arc<[(Arc<Mandate>, Version)]>,
    own: Arc<Mandate>,
    /// The epoch as which it was read.
    epoch: RevocationEpoch,
}

impl Mandate {
    /// As the record tells of it.
    #[must_use]
    pub fn facts(&self) -> MandateFacts<'_> {
        MandateFacts {
            id: self.id.as_str(),
            template: self.template.as_ref().map(TemplateName::as_str),
            parent: self.above.last().map(MandateId::as_str),
            purpose: &self.purpose,
        }
    }

    /// The same without what is kept of it for ourselves: which human its opener is concerns whoever weighs an approval,
    /// and nobody else.
    #[must_use]
    pub fn as_told(&self) -> Self {
        Self { told: false, opened_by: None, bearer: None, ..self.clone() }
    }

    /// Whether it was taken back, or its holder's access since it was opened.
    #[must_use]
    pub fn is_taken_back(&self, revocations: &Revocations) -> bool {
        let stands = |bearer: &Token| bearer.facts(false).is_some_and(|facts| revocations.check(&facts).is_ok());
        revocations.is_mandate_revoked(&self.id) || !self.bearer.as_ref().is_none_or(stands)
    }

    /// Whether its holder is that agent, or acts through it.
    fn is_used_by(&self, agent: &AgentId) -> bool {
        let by = self.opened_by.as_ref().filter(|_| self.opener_key == Some(self.holder));
        let further = by.is_some_and(|by| by.agents.iter().any(|further| further == agent.as_str()));
        further || self.agent.as_ref() == Some(agent)
    }

    /// Whether somebody answers for an agent that uses it, or for the key that it is used with.
    fn is_answered_for_by(&self, owner: &String, config: &Config) -> bool {
        let facts = self.bearer.as_ref().and_then(|bearer| bearer.facts(false));
        let client = facts.as_ref().and_then(|facts| facts.client.as_ref());
        config.agents.iter().filter(|(id, _)| self.is_used_by(id)).any(|(_, agent)| {
            let theirs = agent.keys.iter().any(|key| key.owner == *owner && Some(&key.id) == client);
            agent.owner == *owner || theirs
        })
    }

    /// Whether an agent that uses it is blocked, or whoever answers for one; `config` as the files say it. What was taken
    /// back by these names is lifted only once that has ended it.
    #[must_use]
    pub fn is_barred(&self, barred: &Barred, config: &Config) -> bool {
        barred.agents.iter().any(|agent| self.is_used_by(agent))
            || barred.owners.iter().any(|owner| self.is_answered_for_by(owner, config))
    }

    /// Whether that takes it back, or the access of its holder.
    #[must_use]
    pub fn is_of(&self, revocation: &Revocation, config: &Config) -> bool {
        let facts = self.bearer.as_ref().and_then(|bearer| bearer.facts(false));
        match &revocation.target {
            RevocationTarget::Mandate(id) => self.id == *id || self.above.contains(id),
            RevocationTarget::Agent(agent) => self.is_used_by(agent),
            RevocationTarget::Owner(owner) => self.is_answered_for_by(owner, config),
            _ => facts.is_some_and(|facts| revocation.covers(&facts)),
        }
    }

    /// After how long without any use it ends.
    #[must_use]
    pub fn idle(&self) -> Option<std::time::Duration> {
        self.idle_seconds.map(std::time::Duration::from_secs)
    }

    /// Whether it is over at that moment.
    #[must_use]
    pub const fn is_over(&self, now_us: i64) -> bool {
        self.ended.is_some() || self.ends_us <= now_us
    }

    /// `active`, `completed` or `expired`.
    #[must_use]
    pub fn state(&self, now_us: i64) -> &'static str {
        match &self.ended {
            Some(ended) if ended.is_by_the_clock() => "expired",
            Some(_) => "completed",
            None if self.ends_us <= now_us => "expired",
            None => "active",
        }
    }
}

impl Held {
    pub(super) fn new(chain: Vec<(Arc<Mandate>, Version)>, epoch: RevocationEpoch) -> Option<Self> {
        let own = Arc::clone(&chain.last()?.0);
        Some(Self { chain: chain.into(), own, epoch })
    }

    /// The epoch as which it was read: once another is in force, it may have been completed since.
    #[must_use]
    pub const fn epoch(&self) -> RevocationEpoch {
        self.epoch
    }

    /// The call's own mandate.
    #[must_use]
    pub fn mandate(&self) -> &Mandate {
        &self.own
    }

    /// Every mandate that counts, the outermost first.
    pub fn all(&self) -> impl Iterator<Item = &Mandate> {
        self.chain.iter().map(|(mandate, _)| &**mandate)
    }

    /// Whoever opened it, and those above it.
    #[must_use]
    pub fn openers(&self) -> Vec<Party> {
        let of = |mandate: &Mandate| mandate.opened_by.clone().unwrap_or_else(|| Party::called(&mandate.opener));
        self.all().map(of).collect()
    }

    /// When the first of them is over by itself, microseconds since 1970.
    #[must_use]
    pub fn ends_us(&self) -> i64 {
        self.all().map(|mandate| mandate.ends_us).min().unwrap_or(i64::MIN)
    }

    /// As the record tells of it.
    #[must_use]
    pub fn facts(&self) -> MandateFacts<'_> {
        self.own.facts()
    }

    /// Whether it began without the labels of what went before: what is below one knows only what was seen under it.
    #[must_use]
    pub fn is_isolated(&self) -> bool {
        self.chain.first().is_some_and(|(outermost, _)| outermost.isolated)
    }
}
