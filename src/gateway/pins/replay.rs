//! Definitions that a store has forgotten to be rejected.
//!
//! Decides what is offered again after a store was restored. Invariant: what somebody decided on since is offered only
//! where the record tells that it was accepted.

use serde::Deserialize;

use super::rows::{Kept, PinState, Shelved};
use crate::ids::{DefinitionDigest, Digest, PinKind, ServerId};
use crate::outcome::Failure;
use crate::shelf::{Change, Shelf};

/// What the record tells of a definition that somebody decided on.
#[derive(Debug, Clone, Deserialize)]
pub struct Decided {
    /// Which.
    pub digest: String,
    server: ServerId,
    kind: PinKind,
    #[serde(default)]
    name: String,
    /// `accepted` or `rejected`.
    pub state: String,
}

/// The changes of a definition whose row was changed since, with the last word about it where that is known.
///
/// # Errors
/// `store_unavailable`.
pub async fn decided(shelf: &dyn Shelf, key: &str, last: Option<&Decided>) -> Result<Vec<Change>, Failure> {
    // What goes on with another row has no name of its own.
    let Some(digest) = Digest::from_hex(key).map(DefinitionDigest) else { return Ok(Vec::new()) };
    let known = Shelved::read(shelf).await?.by_digest().remove(&digest);
    let named = || last.map(|last| Kept::bare(&last.server, last.kind, &last.name, digest));
    // Nobody has seen it by what is stored: it waits for somebody.
    let Some(mut kept) = known.or_else(named) else { return Ok(Vec::new()) };
    let accepted = last.is_some_and(|last| last.state == "accepted");
    kept.says.state = if accepted { PinState::Accepted } else { PinState::Rejected };
    "reconcile".clone_into(&mut kept.says.by);
    Ok(kept.changes(None))
}
