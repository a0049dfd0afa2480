//! Decides whether access was taken back. A block holds until it is lifted; a sign-out refuses only
//! what was issued before it.
//!
//! The check runs on every call, after every cache hit: a snapshot behind one atomic load, no store.
//! Invariant: [`Revocations::epoch`] rises whenever any answer may have changed.

use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use super::caller::TokenFacts;
use crate::ids::{IssuerAlias, RevocationEpoch};
use crate::outcome::{Failure, Reason, Refusal};

/// What a revocation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationTarget {
    /// One token, by `jti` or by the SHA-256 of the token in hexadecimal.
    Token(String),
    /// One login session, by `sid`.
    Session(String),
    /// One subject of an issuer, by `sub`.
    Subject(IssuerAlias, String),
    /// One client of an issuer.
    Client(IssuerAlias, String),
    /// Everything and everyone.
    Everything,
}

/// How long it holds, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationMode {
    /// Until an administrator lifts it.
    Block,
    /// For what was issued before this moment (seconds since 1970, skew already added).
    SignOut {
        /// The moment.
        issued_before: i64,
    },
}

/// One revocation as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What it is about.
    pub target: RevocationTarget,
    /// How long it holds.
    pub mode: RevocationMode,
    /// Who did it: `user:...` or `host:UID`.
    pub actor: String,
    /// Why, as the administrator wrote it.
    pub note: String,
    /// When, seconds since 1970 by the store's clock.
    pub at: i64,
}

/// What this room needs of the store.
pub trait RevocationStore: Send + Sync {
    /// Adds one; durable when it returns. Answers the epoch that includes it.
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<RevocationEpoch, Failure>>;
    /// All that hold, and the epoch that they belong to.
    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Revocation>), Failure>>;
    /// The epoch alone, for polling.
    fn revocation_epoch(&self) -> BoxFuture<'_, Result<RevocationEpoch, Failure>>;
}

/// The revocations that hold, as one immutable snapshot.
#[derive(Debug, Default)]
pub struct Revocations {
    snapshot: ArcSwap<Snapshot>,
}

#[derive(Debug, Default)]
struct Snapshot {
    epoch: RevocationEpoch,
    held: Vec<Revocation>,
}

impl Revocations {
    /// The epoch of the snapshot.
    #[must_use]
    pub fn epoch(&self) -> RevocationEpoch {
        self.snapshot.load().epoch
    }

    /// Replaces the snapshot.
    pub fn replace(&self, epoch: RevocationEpoch, held: Vec<Revocation>) {
        self.snapshot.store(Arc::new(Snapshot { epoch, held }));
    }

    /// Whether the token's bearer may still act; answers the epoch at which that was so.
    ///
    /// # Errors
    /// [`Reason::Revoked`].
    pub fn check(&self, token: &TokenFacts) -> Result<RevocationEpoch, Refusal> {
        let snapshot = self.snapshot.load();
        if snapshot.held.iter().any(|revocation| revocation.covers(token)) {
            return Err(Refusal::new(Reason::Revoked));
        }
        Ok(snapshot.epoch)
    }
}

impl Revocation {
    fn covers(&self, token: &TokenFacts) -> bool {
        let named = match &self.target {
            RevocationTarget::Token(id) => token.id.as_ref() == Some(id) || token.digest.to_string() == *id,
            RevocationTarget::Session(session) => token.session.as_ref() == Some(session),
            RevocationTarget::Subject(issuer, subject) => {
                token.issuer == *issuer && token.subject.as_ref() == Some(subject)
            }
            RevocationTarget::Client(issuer, client) => {
                token.issuer == *issuer && token.client.as_ref() == Some(client)
            }
            RevocationTarget::Everything => true,
        };
        named
            && match self.mode {
                RevocationMode::Block => true,
                // A token that does not say when it was issued counts as issued before.
                RevocationMode::SignOut { issued_before } => token.issued_at.is_none_or(|at| at <= issued_before),
            }
    }
}
