//! A revocation as the columns of a row, whichever database keeps it. The words for targets and modes are the ones
//! that records and the control socket use as well.
//!
//! Invariant: a row that is not understood refuses; it is never skipped.

use super::{epoch, unavailable};
use crate::identity::described::Described;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::limit;
use crate::outcome::{Failure, Reason};

/// The columns of a row.
pub(super) struct Row {
    pub(super) kind: String,
    pub(super) issuer: String,
    pub(super) value: String,
    pub(super) mode: String,
    pub(super) issued_before: Option<i64>,
    pub(super) actor: String,
    pub(super) note: String,
    pub(super) at: i64,
    pub(super) epoch: i64,
}

impl Row {
    /// The revocation that it says; what cannot be understood would be a revocation that is lost.
    pub(super) fn read(self) -> Result<Held, Failure> {
        let words = Described { kind: &self.kind, issuer: &self.issuer, value: &self.value };
        let mode = match (self.mode.as_str(), self.issued_before) {
            ("block", None) => RevocationMode::Block,
            ("sign_out", Some(issued_before)) => RevocationMode::SignOut { issued_before },
            (mode, _) => return Err(unavailable(format!("a revocation has the mode `{mode}`"))),
        };
        let target = words.try_into().map_err(unavailable)?;
        let revocation = Revocation { target, mode, actor: self.actor, note: self.note, at: self.at };
        Ok(Held { since: epoch(self.epoch), revocation })
    }
}

/// How many revocations are held.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counts {
    pub(super) all: i64,
    /// Of them, those that feeds ordered.
    pub(super) of_feeds: i64,
    /// Of those, the blocks: a feed lifts none.
    pub(super) blocks_of_feeds: i64,
    /// The one of that target and mode.
    pub(super) own: i64,
}

/// The counts for a revocation: its target and mode are the parameters.
pub(super) const COUNTS: &str = "count(*), coalesce(sum(CASE WHEN actor LIKE 'feed:%' THEN 1 ELSE 0 END), 0),
    coalesce(sum(CASE WHEN actor LIKE 'feed:%' AND mode = 'block' THEN 1 ELSE 0 END), 0),
    coalesce(sum(CASE WHEN kind = $1 AND issuer = $2 AND value = $3 AND mode = $4 THEN 1 ELSE 0 END), 0)";

/// Whether one more has room among so many. What is renewed takes none.
pub(super) fn has_room(revocation: &Revocation, counts: Counts) -> Result<(), Failure> {
    let held = counts.all;
    if counts.own > 0 {
        return Ok(());
    }
    if revocation.actor.starts_with("feed:") && counts.of_feeds >= limit::REVOCATIONS_OF_FEEDS_MAX {
        let detail = "what feeds revoked has no more room: the rest is for administrators; look at what can be lifted";
        return Err(Failure::before(Reason::StoreUnavailable, detail));
    }
    let blocks = revocation.actor.starts_with("feed:") && revocation.mode == RevocationMode::Block;
    if blocks && counts.blocks_of_feeds >= limit::REVOCATIONS_LEFT_MAX {
        let detail = "blocks of people who left have no more room: the rest is for logouts, which end by themselves; \
                      lift those of people who answer for nothing any more";
        return Err(Failure::before(Reason::StoreUnavailable, detail));
    }
    // The one that covers all others always has room.
    if held >= limit::REVOCATIONS_MAX && revocation.target != RevocationTarget::Everything {
        let detail = format!("{held} revocations are held; revoke a client or subject, or everything");
        return Err(Failure::before(Reason::StoreUnavailable, detail));
    }
    Ok(())
}
