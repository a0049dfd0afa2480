//! Whose token or certificate was found good before, for longer than the finding itself may be used.
//!
//! Decides who is no stranger. Refuses to let anybody in: whoever is known here is verified like everybody else.
//! Invariants: neither a reload nor another finding takes anybody out; nobody is in it longer than what they came with
//! lives by its own word, an opaque token aside, which has said nothing of that; what is remembered is bounded.

use std::sync::Arc;

use super::cache::Entry;
use super::ground::Ground;
use super::presented::{Presented, Shown};
use super::{Identity, now_s, verify, workload};
use crate::ids::Digest;
use crate::limit;

/// Whose token or certificate was found good before, by its digest.
#[derive(Debug)]
pub(super) struct Acquaintances {
    /// Until when, seconds since 1970.
    until: moka::sync::Cache<Digest, i64>,
}

impl Acquaintances {
    pub fn new() -> Self {
        // Only who was verified comes in here; whoever was verified last is the likeliest to come again.
        let until = moka::sync::Cache::builder()
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .max_capacity(limit::ACQUAINTANCES_MAX)
            .build();
        Self { until }
    }

    /// Remembers one who was found good.
    pub fn met(&self, digest: Digest, entry: &Entry, now: i64) {
        self.until.insert(digest, good_until(entry, now));
    }

    /// Whether that is somebody who was found good before.
    pub fn know(&self, digest: &Digest, now: i64) -> bool {
        self.until.get(digest).is_some_and(|until| now < until)
    }
}

/// Until when nobody is a stranger who comes with this.
fn good_until(entry: &Entry, now: i64) -> i64 {
    let own = entry.until.max(entry.verified.token.expires_at);
    match *entry.verified.ground {
        // How long it lives is the issuer's to say each time; meanwhile it is somebody's.
        Ground::Word { .. } => own.max(now.saturating_add(verify::seconds(limit::INTROSPECTED_LATELY))),
        _ => own,
    }
}

impl Identity {
    /// Remembers what was found good: for a moment to be used again, and for longer that it is no stranger's.
    pub(super) fn keep(&self, digest: Digest, entry: &Arc<Entry>) {
        let now = now_s();
        self.acquaintances.met(digest, entry, now);
        self.cache.keep(digest, Arc::clone(entry), now);
    }

    /// Whether that comes with a token that was found good before, or without one over a connection with a certificate
    /// that was.
    #[must_use]
    pub fn has_seen(&self, shown: &Shown<'_>) -> bool {
        let digest = match (shown.credential, shown.certificate) {
            (Presented::Bearer(text) | Presented::Dpop(text), _) if text.len() > limit::TOKEN_BYTES_MAX => {
                return false;
            }
            (Presented::Bearer(text) | Presented::Dpop(text), _) => Digest::sha256(text.as_bytes()),
            (Presented::Nothing, Some(certificate)) => workload::digest(certificate),
            (Presented::Nothing, None) => return false,
        };
        self.acquaintances.know(&digest, now_s())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whoever_was_met_longest_ago_makes_room() {
        let known = Acquaintances::new();
        let digest = |number: u64| Digest::sha256(&number.to_be_bytes());
        for number in 0..limit::ACQUAINTANCES_MAX * 2 {
            known.until.insert(digest(number), 100);
        }
        known.until.run_pending_tasks();
        assert!(known.until.entry_count() <= limit::ACQUAINTANCES_MAX);
        let last = digest(limit::ACQUAINTANCES_MAX * 2 - 1);
        assert!(known.know(&last, 99) && !known.know(&last, 100) && !known.know(&digest(0), 99));
    }
}
