//! Which messages were taken: each of them once.
//!
//! Invariants: of several that come at once with the same identifier one goes on; one that could not be carried out may
//! come again; what is remembered is bounded. What is forgotten too early takes nothing more back when it comes again,
//! see [`super::order`].

use std::time::Duration;

use crate::config::FeedConfig;
use crate::ids::Digest;
use crate::limit;

/// Identifiers of messages that were taken, or are being.
pub(super) struct Taken(moka::sync::Cache<Digest, ()>);

/// A message that is being taken; forgotten unless it is kept.
pub(super) struct Taking<'a> {
    taken: &'a Taken,
    id: Digest,
    is_done: bool,
}

impl Taken {
    /// Remembers for as long as a message may be old, and the difference of clocks on both sides.
    pub(super) fn new(age_max: Duration) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(limit::FEED_IDS_MAX as u64)
            .time_to_live(age_max.saturating_add(limit::LEEWAY_MAX.saturating_mul(2)));
        Self(cache.build())
    }

    /// Begins to take the message of that identifier; nothing where it was taken already.
    pub(super) fn begin(&self, feed: &FeedConfig, id: &str) -> Option<Taking<'_>> {
        let id = Digest::of("bailiwick/feed/v1", &[feed.name.as_str().as_bytes(), id.as_bytes()]);
        let entry = self.0.entry(id).or_insert(());
        // Made only where it is begun: one that is dropped is forgotten.
        entry.is_fresh().then(|| Taking { taken: self, id, is_done: false })
    }
}

impl Taking<'_> {
    /// It was carried out.
    pub(super) fn keep(mut self) {
        self.is_done = true;
    }
}

impl Drop for Taking<'_> {
    fn drop(&mut self) {
        if !self.is_done {
            self.taken.0.invalidate(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeds::rate::tests::feed;

    #[test]
    fn a_message_is_taken_once_and_one_that_failed_may_come_again() {
        let taken = Taken::new(limit::LOGOUT_AGE_MAX);
        drop(taken.begin(&feed("a", 1), "1").unwrap());
        let taking = taken.begin(&feed("a", 1), "1").unwrap();
        assert!(taken.begin(&feed("a", 1), "1").is_none(), "it is being taken");
        taking.keep();
        for _again in 0..3 {
            assert!(taken.begin(&feed("a", 1), "1").is_none());
        }
        assert!(taken.begin(&feed("b", 1), "1").is_some(), "another feed counts for itself");
        assert!(taken.begin(&feed("a", 1), "2").is_some());
    }

    #[test]
    fn so_many_are_remembered() {
        let taken = Taken::new(limit::EVENT_AGE_MAX);
        let feed = feed("a", 1);
        for id in 0..limit::FEED_IDS_MAX + 1_000 {
            taken.begin(&feed, &id.to_string()).unwrap().keep();
        }
        taken.0.run_pending_tasks();
        assert!(taken.0.entry_count() <= limit::FEED_IDS_MAX as u64);
    }
}
