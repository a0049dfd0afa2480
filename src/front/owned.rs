//! What each principal holds of something that all principals hold together.
//!
//! Decides nothing: it counts. Refuses to know what is held. Invariant: what one principal holds is counted for it until
//! it is dropped, so that whoever has most can make room first and nobody has to for another one.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use moka::policy::EvictionPolicy;
use moka::sync::Cache;

use crate::ids::PrincipalKey;
use crate::limit;

/// All principals that hold something.
#[derive(Debug, Clone)]
pub(super) struct Owners(Cache<PrincipalKey, Arc<Own>>);

/// What one of them holds.
#[derive(Debug, Default)]
pub(super) struct Own {
    bytes: AtomicUsize,
    parts: AtomicUsize,
}

/// One thing that somebody holds.
#[derive(Debug)]
pub(super) struct Part {
    own: Arc<Own>,
    bytes: AtomicUsize,
    is_counted: AtomicBool,
}

impl Owners {
    /// Nobody holds anything; what is held longer than that without anything new is not counted with that any more.
    pub(super) fn new(idle_max: Duration) -> Self {
        let builder = Cache::builder().eviction_policy(EvictionPolicy::lru());
        Self(builder.max_capacity(limit::PRINCIPALS_REMEMBERED_MAX).time_to_idle(idle_max).build())
    }

    /// What a principal holds.
    pub(super) fn of(&self, principal: PrincipalKey) -> Arc<Own> {
        self.0.get_with(principal, Arc::default)
    }
}

impl Own {
    /// How many bytes of how many things.
    pub(super) fn held(&self) -> (usize, usize) {
        (self.bytes.load(Ordering::Acquire), self.parts.load(Ordering::Acquire))
    }

    /// One thing more.
    pub(super) fn part(self: &Arc<Self>, bytes: usize) -> Part {
        self.parts.fetch_add(1, Ordering::AcqRel);
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        Part { own: Arc::clone(self), bytes: AtomicUsize::new(bytes), is_counted: AtomicBool::new(true) }
    }
}

impl Part {
    /// Whose it is.
    pub(super) const fn own(&self) -> &Arc<Own> {
        &self.own
    }

    /// It has grown.
    pub(super) fn grow(&self, bytes: usize) {
        self.bytes.fetch_add(bytes, Ordering::AcqRel);
        self.own.bytes.fetch_add(bytes, Ordering::AcqRel);
    }

    /// It has become smaller, by no more than it has grown.
    pub(super) fn shrink(&self, bytes: usize) {
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        self.own.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Part {
    /// It is held no more, whenever the last of its copies goes.
    pub(super) fn release(&self) {
        self.own.bytes.fetch_sub(self.bytes.swap(0, Ordering::AcqRel), Ordering::AcqRel);
        if self.is_counted.swap(false, Ordering::AcqRel) {
            self.own.parts.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.release();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_principals_are_counted_and_for_as_long_as_they_hold_anything_new() {
        let idle_max = Duration::from_secs(60);
        let policy = Owners::new(idle_max).0.policy();
        assert_eq!(policy.max_capacity(), Some(limit::PRINCIPALS_REMEMBERED_MAX));
        assert_eq!((policy.time_to_idle(), policy.time_to_live()), (Some(idle_max), None));
    }
}
