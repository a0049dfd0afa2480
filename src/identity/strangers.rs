//! How often somebody from one place may come without being known, before nobody looks at what they bring.
//!
//! Decides who is turned away before anything is verified. Refuses to know what was wrong with what they brought.
//! Invariants: a place that is busy says nothing of whom `acquaintances` knows there; what is remembered of places is
//! bounded.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crate::config::QuotaConfig;
use crate::ids::network;
use crate::limit;

/// What came from where.
#[derive(Debug)]
pub struct Strangers {
    began: Instant,
    /// When the refusals of each place would be used up at the allowed rate, in microseconds since the beginning.
    places: moka::sync::Cache<IpAddr, Arc<AtomicU64>>,
    /// Until then some place may have come too often; most of the time none has, and nothing is looked for.
    busy_until: AtomicU64,
}

impl Default for Strangers {
    fn default() -> Self {
        // Whoever comes last finds a place, so that a flood from everywhere is no protection.
        let places = moka::sync::Cache::builder()
            .eviction_policy(moka::policy::EvictionPolicy::lru())
            .max_capacity(limit::STRANGERS_REMEMBERED_MAX)
            .build();
        Self { began: Instant::now(), places, busy_until: AtomicU64::new(0) }
    }
}

impl Strangers {
    /// Counts one who was refused.
    pub fn refused(&self, peer: IpAddr, quota: &QuotaConfig) {
        self.refused_at(self.now_us(), peer, quota);
    }

    /// Whether too many were refused from there lately.
    #[must_use]
    pub fn are_too_many(&self, peer: IpAddr, quota: &QuotaConfig) -> bool {
        self.are_too_many_at(self.now_us(), peer, quota)
    }

    fn refused_at(&self, now_us: u64, peer: IpAddr, quota: &QuotaConfig) {
        let each = 1_000_000 / u64::from(quota.refusals_per_second.max(1));
        let most = u64::from(quota.refusals_burst).saturating_mul(each);
        let place = self.places.get_with(network(peer), Arc::default);
        // What is beyond the burst is not held against anybody: they are turned away until it is less.
        let count = |until: u64| Some(until.max(now_us).saturating_add(each).min(now_us.saturating_add(most)));
        let before = place.fetch_update(Ordering::AcqRel, Ordering::Acquire, count).unwrap_or_default();
        if before.max(now_us).saturating_add(each) >= now_us.saturating_add(most) {
            self.busy_until.fetch_max(now_us.saturating_add(most), Ordering::AcqRel);
        }
    }

    fn are_too_many_at(&self, now_us: u64, peer: IpAddr, quota: &QuotaConfig) -> bool {
        if now_us >= self.busy_until.load(Ordering::Relaxed) {
            return false;
        }
        let each = 1_000_000 / u64::from(quota.refusals_per_second.max(1));
        let most = u64::from(quota.refusals_burst).saturating_mul(each);
        let until = self.places.get(&network(peer)).map_or(0, |until| until.load(Ordering::Acquire));
        until.saturating_sub(now_us).saturating_add(each) > most
    }

    fn now_us(&self) -> u64 {
        u64::try_from(self.began.elapsed().max(Duration::from_micros(1)).as_micros()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const QUOTA: QuotaConfig = QuotaConfig {
        requests_per_second: 1,
        requests_burst: 1,
        calls_in_flight_max: 1,
        streams_max: 1,
        refusals_per_second: 10,
        refusals_burst: 5,
    };

    fn address(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn whoever_was_refused_too_often_waits_and_others_do_not() {
        let strangers = Strangers::default();
        let (one, neighbour, other) = (address("2001:db8::1"), address("2001:db8::2"), address("192.0.2.1"));
        for _ in 0..QUOTA.refusals_burst {
            assert!(!strangers.are_too_many_at(1, one, &QUOTA));
            strangers.refused_at(1, one, &QUOTA);
        }
        assert!(strangers.are_too_many_at(1, one, &QUOTA) && strangers.are_too_many_at(1, neighbour, &QUOTA));
        assert!(!strangers.are_too_many_at(1, other, &QUOTA));
        // One more every tenth of a second, and no debt for having knocked on.
        for _ in 0..1_000 {
            strangers.refused_at(1, one, &QUOTA);
        }
        assert!(!strangers.are_too_many_at(100_001, one, &QUOTA));
        strangers.refused_at(100_001, one, &QUOTA);
        assert!(strangers.are_too_many_at(100_001, one, &QUOTA));
        assert!(!strangers.are_too_many_at(10_000_000, one, &QUOTA));
    }

    #[test]
    fn a_flood_from_everywhere_takes_no_more_room_than_there_is() {
        let strangers = Strangers::default();
        for number in 0..u32::try_from(limit::STRANGERS_REMEMBERED_MAX * 2).unwrap() {
            strangers.refused_at(1, IpAddr::V4(number.into()), &QUOTA);
        }
        strangers.places.run_pending_tasks();
        assert!(strangers.places.entry_count() <= limit::STRANGERS_REMEMBERED_MAX);
        let last = address("198.51.100.7");
        for _ in 0..QUOTA.refusals_burst {
            strangers.refused_at(1, last, &QUOTA);
        }
        assert!(strangers.are_too_many_at(1, last, &QUOTA), "whoever comes now is counted");
    }
}
