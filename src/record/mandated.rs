//! What the record says of mandates and agents: which one a call is part of, and what became of one.
//!
//! Decides the spelling. Refuses to know who decided. Invariant: a purpose is called declared, because nobody checked it.

use serde::Serialize;

use super::appender::Mark;
use super::journal::Journal;
use super::redact;
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;

/// The mandate that a call names.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MandateFacts<'a> {
    /// Its name.
    pub id: &'a str,
    /// Its template.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub template: Option<&'a str>,
    /// The one above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parent: Option<&'a str>,
    /// What it is for, as its opener said.
    #[serde(rename = "purpose_declared", skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize")]
    pub purpose: &'a str,
}

/// Who answers for what takes part in a call.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct OwnerFacts<'a> {
    /// For the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
    /// For the server.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub server: Option<&'a str>,
}

/// What became of a mandate.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct MandateNote<'a> {
    /// `opened`, `completed` or `expired`.
    pub event: &'static str,
    /// Which.
    #[serde(flatten)]
    pub mandate: MandateFacts<'a>,
    /// By whom.
    #[serde(serialize_with = "redact::serialize")]
    pub actor: &'a str,
    /// The agent that it is for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub agent: Option<&'a str>,
    /// For whom that agent acts.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub subject: Option<&'a str>,
    /// When it is over by itself, seconds since 1970.
    pub ends_at: i64,
    /// Calls that were made under it, by server, where it is over.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub calls: &'a [(String, i64)],
    /// Why, where the breaker ended it.
    #[serde(skip_serializing_if = "str::is_empty")]
    pub note: &'a str,
    /// The epoch that includes its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<RevocationEpoch>,
}

/// What became of an agent, or of the attestation of an agent or a server.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct LifecycleNote<'a> {
    /// `suspended`, `resumed`, `retired`, `expired` or `attested`.
    pub event: &'static str,
    /// `agent`, `server`, or `tool`, whose name is `SERVER/NAME`.
    pub kind: &'static str,
    /// Which.
    pub id: &'a str,
    /// Who answers for it.
    pub owner: &'a str,
    /// By whom: a person, `host:UID`, `breaker`, or `clock`.
    #[serde(serialize_with = "redact::serialize")]
    pub actor: &'a str,
    /// For whom it is stopped, where it is not stopped for everybody.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "redact::serialize_option")]
    pub subject: Option<&'a str>,
    /// Why.
    #[serde(skip_serializing_if = "str::is_empty", serialize_with = "redact::serialize_words")]
    pub note: &'a str,
    /// The epoch that includes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub epoch: Option<RevocationEpoch>,
}

/// The fields of a line about a mandate.
#[derive(Serialize)]
struct MandateFields<'a> {
    mandate: &'a MandateNote<'a>,
}

/// The fields of a line about an agent or a server.
#[derive(Serialize)]
struct LifecycleFields<'a> {
    lifecycle: &'a LifecycleNote<'a>,
}

impl Journal {
    /// Records what became of a mandate; durable when it returns.
    ///
    /// # Errors
    /// [`Reason::RecordUnavailable`](crate::outcome::Reason::RecordUnavailable).
    pub async fn mandated(&self, note: &MandateNote<'_>) -> Result<(), Failure> {
        self.note_durably("mandate", &MandateFields { mandate: note }, Mark::Plain).await
    }

    /// Records what became of an agent or an attestation; durable when it returns.
    ///
    /// # Errors
    /// As [`Journal::mandated`].
    pub async fn lived(&self, note: &LifecycleNote<'_>) -> Result<(), Failure> {
        self.note_durably("lifecycle", &LifecycleFields { lifecycle: note }, Mark::Plain).await
    }
}
