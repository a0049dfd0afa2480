//! What can be asked over the control socket, and what is answered: the words of its JSON.
//!
//! Decides which orders make sense. Refuses to know who carries them out. Invariant: an order becomes a
//! revocation only with an actor and a moment that its sender did not choose.

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};

use crate::gateway::{ReloadOrder, ReloadReport, ShadowReport};
use crate::identity::described::Described;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::record::redact;

/// What the gateway does for its operators; `gateway.rs` implements it.
pub trait Operations: Send + Sync + 'static {
    /// Takes access back: durable in the store, in force, on the record, in that order; answers the epoch
    /// that includes it.
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<RevocationEpoch, Failure>>;
    /// Lifts a revocation: on the record, then in force; answers the epoch without it, or nothing where none holds
    /// since then. Loosening: nobody is asked here who may.
    fn lift(&self, lifting: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>>;
    /// All revocations that hold, and the epoch they belong to.
    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>>;
    /// Reads all files again; a set with problems changes nothing and is reported with them.
    fn reload(&self, actor: String, order: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>>;
    /// What an operator wants to see at a glance.
    fn status(&self) -> BoxFuture<'_, serde_json::Value>;
    /// Whether it can serve, and what is in the way.
    fn ready(&self) -> BoxFuture<'_, Readiness>;
    /// What the next policies would decide otherwise; nothing where there are none.
    fn shadow(&self) -> ShadowReport {
        ShadowReport::default()
    }
    /// The metrics as text.
    fn metrics(&self) -> String;
}

/// Taking a revocation back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifting {
    /// Which: the epoch since which it holds.
    pub since: RevocationEpoch,
    /// Who.
    pub actor: String,
    /// Why.
    pub note: String,
}

/// `POST /revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationOrder {
    /// `token`, `session`, `subject`, `client`, `agent`, `owner`, `server` or `everything`.
    pub target: String,
    /// The issuer's alias, for subjects and clients.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// What is named: a `jti` or SHA-256, a `sid`, a `sub`, a client id, an agent, an owner as files spell it, a
    /// server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Only what was issued before now; otherwise a block until it is lifted.
    #[serde(default)]
    pub sign_out: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl RevocationOrder {
    /// The revocation that the actor orders at this moment (seconds since 1970).
    ///
    /// # Errors
    /// A lower-case sentence that says what is wrong with the order.
    pub fn at(&self, actor: &str, now: i64) -> Result<Revocation, String> {
        if self.value.len() > limit::REVOCATION_VALUE_BYTES_MAX {
            return Err(format!("what is named is longer than {} bytes", limit::REVOCATION_VALUE_BYTES_MAX));
        }
        let words = Described { kind: &self.target, issuer: &self.issuer, value: &self.value };
        let target = RevocationTarget::try_from(words).map_err(|error| format!("{error}"))?;
        if self.sign_out && !target.can_sign_out() {
            return Err(format!("nothing is issued to the {} as such: revoke it without signing out", self.target));
        }
        let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap_or_default();
        let mode = if self.sign_out {
            RevocationMode::SignOut { issued_before: now.saturating_add(skew) }
        } else {
            RevocationMode::Block
        };
        Ok(Revocation { target, mode, actor: actor.to_owned(), note: redact::text(&self.note).into_owned(), at: now })
    }
}

/// The answer to `POST /revoke`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
}

/// The answer to `GET /revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRevocations {
    /// The epoch they belong to.
    pub epoch: RevocationEpoch,
    /// All that hold, oldest first.
    pub revocations: Vec<HeldRevocation>,
}

/// One revocation that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRevocation {
    /// The epoch since which it holds: what it is lifted by.
    pub since: RevocationEpoch,
    /// `token`, `session`, `subject`, `client`, `agent`, `owner`, `server` or `everything`.
    pub target: String,
    /// The issuer's alias.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// What is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `block` or `sign_out`.
    pub mode: String,
    /// For a sign-out: what was issued before this moment, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// Who did it.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When, seconds since 1970.
    pub at: i64,
}

impl HeldRevocations {
    /// Puts them into words.
    #[must_use]
    pub fn new(epoch: RevocationEpoch, held: &[Held]) -> Self {
        let words = |Held { since, revocation }: &Held| {
            let Described { kind, issuer, value } = Described::from(&revocation.target);
            HeldRevocation {
                since: *since,
                target: kind.to_owned(),
                issuer: issuer.to_owned(),
                value: value.to_owned(),
                mode: revocation.mode.as_str().to_owned(),
                issued_before: revocation.mode.issued_before(),
                actor: revocation.actor.clone(),
                note: revocation.note.clone(),
                at: revocation.at,
            }
        };
        Self { epoch, revocations: held.iter().map(words).collect() }
    }
}

/// The answer to `GET /readyz`; 503 where something is in the way.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Readiness {
    /// What was looked at.
    pub checks: Vec<ReadinessCheck>,
}

/// One thing that was looked at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReadinessCheck {
    /// What: `journal`, `store`, `policy`, `issuer:corp`, `server:git`.
    pub name: String,
    /// Whether it is well.
    pub well: bool,
    /// Whether the gateway can serve without it.
    pub optional: bool,
    /// What is wrong.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub detail: String,
}

impl Readiness {
    /// Whether everything that is needed is well.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.checks.iter().all(|check| check.well || check.optional)
    }
}

/// What is answered where something went wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Problem {
    /// The stable code.
    pub reason: String,
    /// What happened.
    pub detail: String,
}
