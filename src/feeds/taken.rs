//! Which messages were taken: each of them once.
//!
//! Invariants: of several that come at once with the same identifier one goes on, and no other is acknowledged before
//! that one is; one that could not be carried out may come again; what is remembered is bounded. What is forgotten too
//! early takes nothing more back when it comes again, see [`super::order`].

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crate::config::FeedConfig;
use crate::ids::Digest;
use crate::limit;

/// Identifiers of messages that were taken, or are being; the flag says that one was.
#[derive(Clone)]
pub(super) struct Taken(moka::sync::Cache<Digest, Arc<AtomicBool>>);

/// A message that is being taken; forgotten unless it is kept.
pub(super) struct Taking {
    taken: Taken,
    id: Digest,
    is_done: Arc<AtomicBool>,
}

/// Whether a message goes on.
pub(super) enum Begun {
    /// It does.
    Now(Taking),
    /// It was taken already.
    Before,
    /// Another of the same identifier is being taken: whether that succeeds is not known yet.
    UnderWay,
}

impl Taken {
    /// Remembers for as long as a message may be old, and the difference of clocks on both sides.
    pub(super) fn new(age_max: Duration) -> Self {
        let cache = moka::sync::Cache::builder()
            .max_capacity(limit::FEED_IDS_MAX as u64)
            .time_to_live(age_max.saturating_add(limit::LEEWAY_MAX.saturating_mul(2)));
        Self(cache.build())
    }

    /// Begins to take the message of that identifier.
    pub(super) fn begin(&self, feed: &FeedConfig, id: &str) -> Begun {
        let id = Digest::of("bailiwick/feed/v1", &[feed.name.as_str().as_bytes(), id.as_bytes()]);
        let entry = self.0.entry(id).or_default();
        if entry.is_fresh() {
            // Made only where it is begun: one that is dropped is forgotten.
            return Begun::Now(Taking { taken: self.clone(), id, is_done: entry.into_value() });
        }
        if entry.value().load(Ordering::Acquire) { Begun::Before } else { Begun::UnderWay }
    }
}

impl Taking {
    /// It was carried out.
    pub(super) fn keep(self) {
        self.is_done.store(true, Ordering::Release);
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        if !self.is_done.load(Ordering::Acquire) {
            self.taken.0.invalidate(&self.id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::feeds::rate::tests::feed;

    fn begin(taken: &Taken, name: &str, id: &str) -> Option<Taking> {
        match taken.begin(&feed(name, 1), id) {
            Begun::Now(taking) => Some(taking),
            Begun::Before | Begun::UnderWay => None,
        }
    }

    #[test]
    fn a_message_is_taken_once_and_one_that_failed_may_come_again() {
        let taken = Taken::new(limit::LOGOUT_AGE_MAX);
        drop(begin(&taken, "a", "1").unwrap());
        let taking = begin(&taken, "a", "1").unwrap();
        let again = taken.begin(&feed("a", 1), "1");
        assert!(matches!(again, Begun::UnderWay), "nobody knows yet whether it succeeds");
        taking.keep();
        for _again in 0..3 {
            assert!(matches!(taken.begin(&feed("a", 1), "1"), Begun::Before));
        }
        assert!(begin(&taken, "b", "1").is_some(), "another feed counts for itself");
        assert!(begin(&taken, "a", "2").is_some());
    }

    #[test]
    fn so_many_are_remembered() {
        let taken = Taken::new(limit::EVENT_AGE_MAX);
        for id in 0..limit::FEED_IDS_MAX + 1_000 {
            begin(&taken, "a", &id.to_string()).unwrap().keep();
        }
        taken.0.run_pending_tasks();
        assert!(taken.0.entry_count() <= limit::FEED_IDS_MAX as u64);
    }
}
