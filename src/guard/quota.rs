//! What one principal may use at once: requests a second, calls in flight, open streams.
//!
//! Invariant: one greedy caller meets its own limits before it can slow anyone else; the state kept per
//! principal is bounded, and forgotten when idle.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use arc_swap::ArcSwap;
use governor::clock::DefaultClock;
use governor::state::keyed::DashMapStateStore;
use governor::{Quota, RateLimiter};

use crate::config::QuotaConfig;
use crate::ids::PrincipalKey;
use crate::limit;
use crate::outcome::{Reason, Refusal};

type Rates = RateLimiter<PrincipalKey, DashMapStateStore<PrincipalKey>, DefaultClock>;

/// What principals use at the moment, and what each may.
pub struct Quotas {
    rules: ArcSwap<Rules>,
    usage: moka::sync::Cache<PrincipalKey, Arc<Usage>>,
}

struct Rules {
    config: QuotaConfig,
    rates: Rates,
}

#[derive(Debug, Default)]
struct Usage {
    calls: AtomicUsize,
    streams: AtomicUsize,
    subscriptions: AtomicUsize,
    tasks: AtomicUsize,
    mandated: AtomicUsize,
    /// Places here are no longer counted with those of the same principal.
    is_forgotten: AtomicBool,
}

/// A place among a principal's calls or streams; free again when it is dropped.
#[derive(Debug)]
pub struct Slot {
    usage: Arc<Usage>,
    kind: SlotKind,
}

#[derive(Debug, Clone, Copy)]
enum SlotKind {
    Call,
    Stream,
    Subscription,
    Task,
    Mandated,
}

impl std::fmt::Debug for Quotas {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Quotas").finish_non_exhaustive()
    }
}

/// Whoever comes last finds a place, whatever others have filled: somebody who is not remembered has no limits.
fn remembered(principals_max: u64) -> moka::sync::Cache<PrincipalKey, Arc<Usage>> {
    moka::sync::Cache::builder()
        .eviction_policy(moka::policy::EvictionPolicy::lru())
        .max_capacity(principals_max)
        .build()
}

impl Quotas {
    /// Quotas that nobody uses yet.
    #[must_use]
    pub fn new(config: &QuotaConfig) -> Self {
        Self {
            rules: ArcSwap::from_pointee(Rules::new(config)),
            // Nothing expires by itself: a principal whose slots are held must not begin again at zero.
            usage: remembered(limit::PRINCIPALS_REMEMBERED_MAX),
        }
    }

    /// Takes over a new configuration; what is in use stays in use.
    pub fn reconfigure(&self, config: &QuotaConfig) {
        if self.rules.load().config != *config {
            self.rules.store(Arc::new(Rules::new(config)));
        }
    }

    /// Admits one request of any kind.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn request(&self, principal: PrincipalKey) -> Result<(), Refusal> {
        self.rules.load().rates.check_key(&principal).map_err(|_| Refusal::new(Reason::RateLimited))
    }

    /// Takes a place among the principal's calls in flight.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn call(&self, principal: PrincipalKey) -> Result<Slot, Refusal> {
        let max = self.rules.load().config.calls_in_flight_max;
        self.take(principal, SlotKind::Call, max).ok_or_else(|| Refusal::new(Reason::ConcurrencyLimited))
    }

    /// Takes a place among the principal's open streams.
    ///
    /// # Errors
    /// `streams_limited`.
    pub fn stream(&self, principal: PrincipalKey) -> Result<Slot, Refusal> {
        let max = self.rules.load().config.streams_max;
        self.take(principal, SlotKind::Stream, max).ok_or_else(|| Refusal::new(Reason::StreamsLimited))
    }

    /// Takes a place among the resources that the principal hears of.
    ///
    /// # Errors
    /// `streams_limited`.
    pub fn subscription(&self, principal: PrincipalKey) -> Result<Slot, Refusal> {
        let slot = self.take(principal, SlotKind::Subscription, limit::SUBSCRIPTIONS_PER_PRINCIPAL_MAX);
        slot.ok_or_else(|| Refusal::new(Reason::StreamsLimited).hint("unsubscribe from a resource first"))
    }

    /// Takes a place among the tasks that the gateway follows for the principal.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn task(&self, principal: PrincipalKey) -> Result<Slot, Refusal> {
        let taken = self.take(principal, SlotKind::Task, limit::TASKS_FOLLOWED_MAX);
        taken.ok_or_else(|| Refusal::new(Reason::ConcurrencyLimited))
    }

    /// Takes a place among the tasks of the principal that are cancelled with their mandates.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn mandated(&self, principal: PrincipalKey) -> Result<Slot, Refusal> {
        let taken = self.take(principal, SlotKind::Mandated, limit::TASKS_MANDATED_MAX);
        taken.ok_or_else(|| Refusal::new(Reason::ConcurrencyLimited))
    }

    /// Forgets principals that use nothing and have recovered; to be called now and then.
    pub fn forget_idle(&self) {
        self.rules.load().rates.retain_recent();
        for (principal, usage) in &self.usage {
            let counters =
                [SlotKind::Call, SlotKind::Stream, SlotKind::Subscription, SlotKind::Task, SlotKind::Mandated];
            // First forgotten and then looked at: whoever takes a place meanwhile sees the one or is seen by the other.
            usage.is_forgotten.store(true, Ordering::SeqCst);
            let unused = counters.iter().all(|kind| kind.counter(&usage).load(Ordering::SeqCst) == 0);
            if unused {
                self.usage.invalidate(principal.as_ref());
            } else {
                usage.is_forgotten.store(false, Ordering::SeqCst);
            }
        }
    }

    fn take(&self, principal: PrincipalKey, kind: SlotKind, max: usize) -> Option<Slot> {
        for _ in 0..limit::SLOT_TRIES_MAX {
            let usage = self.usage.get_with(principal, Arc::default);
            let one_more = |used: usize| (used < max).then_some(used + 1);
            kind.counter(&usage).fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more).ok()?;
            let slot = Slot { usage: Arc::clone(&usage), kind };
            if !usage.is_forgotten.load(Ordering::SeqCst) {
                return Some(slot);
            }
            // It is being forgotten at this moment: the next one is another.
            drop(slot);
            std::thread::yield_now();
        }
        None
    }
}

impl Rules {
    fn new(config: &QuotaConfig) -> Self {
        let at_least_one = |value| std::num::NonZeroU32::new(value).unwrap_or(std::num::NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(config.requests_per_second))
            .allow_burst(at_least_one(config.requests_burst));
        Self { config: config.clone(), rates: RateLimiter::dashmap(quota) }
    }
}

impl SlotKind {
    const fn counter(self, usage: &Usage) -> &AtomicUsize {
        match self {
            Self::Call => &usage.calls,
            Self::Stream => &usage.streams,
            Self::Subscription => &usage.subscriptions,
            Self::Task => &usage.tasks,
            Self::Mandated => &usage.mandated,
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.kind.counter(&self.usage).fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    fn quotas() -> Quotas {
        Quotas::new(&QuotaConfig {
            requests_per_second: 1,
            requests_burst: 2,
            calls_in_flight_max: 2,
            streams_max: 1,
            refusals_per_second: 10,
            refusals_burst: 10,
        })
    }

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::sha256(name.as_bytes()))
    }

    #[test]
    fn so_many_principals_are_remembered_and_none_is_forgotten_for_its_age() {
        let policy = quotas().usage.policy();
        assert_eq!(policy.max_capacity(), Some(limit::PRINCIPALS_REMEMBERED_MAX));
        assert_eq!((policy.time_to_live(), policy.time_to_idle()), (None, None));
    }

    #[test]
    fn whoever_comes_last_is_remembered_however_often_others_came_before() {
        let usage = remembered(4);
        for _ in 0..50 {
            for name in ["a", "b", "c", "d"] {
                usage.get_with(principal(name), Arc::default);
            }
            usage.run_pending_tasks();
        }
        let last = usage.get_with(principal("last"), Arc::default);
        usage.run_pending_tasks();
        assert!(usage.get(&principal("last")).is_some_and(|kept| Arc::ptr_eq(&kept, &last)));
    }

    #[test]
    fn one_principal_reaches_its_own_limits_and_nobody_elses() {
        let quotas = quotas();
        let (greedy, other) = (principal("greedy"), principal("other"));
        let slots: Vec<_> = (0..2).map(|_| quotas.call(greedy).unwrap()).collect();
        assert_eq!(quotas.call(greedy).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert!(quotas.call(other).is_ok());
        let _stream = quotas.stream(greedy).unwrap();
        assert_eq!(quotas.stream(greedy).unwrap_err().reason, Reason::StreamsLimited);
        drop(slots);
        assert!(quotas.call(greedy).is_ok());
    }

    #[test]
    fn the_tasks_that_are_followed_for_one_principal_are_bounded() {
        let quotas = quotas();
        let slots: Vec<_> = (0..limit::TASKS_FOLLOWED_MAX).map(|_| quotas.task(principal("a")).unwrap()).collect();
        assert_eq!(quotas.task(principal("a")).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert!(quotas.task(principal("b")).is_ok());
        let _mandated: Vec<_> =
            (0..limit::TASKS_MANDATED_MAX).map(|_| quotas.mandated(principal("a")).unwrap()).collect();
        assert!(quotas.mandated(principal("a")).is_err() && quotas.mandated(principal("b")).is_ok());
        drop(slots);
        assert!(quotas.task(principal("a")).is_ok());
    }

    #[test]
    fn forgetting_never_forgets_what_is_held() {
        let quotas = quotas();
        let stream = quotas.stream(principal("a")).unwrap();
        quotas.forget_idle();
        assert!(quotas.stream(principal("a")).is_err());
        drop(stream);
        quotas.forget_idle();
        assert!(quotas.stream(principal("a")).is_ok());
    }

    #[test]
    fn forgetting_meanwhile_gives_nobody_more_places() {
        let (quotas, used) = (quotas(), AtomicUsize::new(0));
        let taking = AtomicUsize::new(4);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        if let Ok(slot) = quotas.call(principal("a")) {
                            assert!(
                                used.fetch_add(1, Ordering::SeqCst) < 2,
                                "more calls at once than there are places"
                            );
                            std::thread::yield_now();
                            used.fetch_sub(1, Ordering::SeqCst);
                            drop(slot);
                        }
                    }
                    taking.fetch_sub(1, Ordering::SeqCst);
                });
            }
            while taking.load(Ordering::SeqCst) > 0 {
                quotas.forget_idle();
            }
        });
        assert!(quotas.call(principal("a")).is_ok(), "and takes none away");
    }

    #[test]
    fn one_principal_hears_of_so_many_resources_and_nobody_else_pays_for_it() {
        let quotas = quotas();
        let take = |name| quotas.subscription(principal(name));
        let held: Vec<_> = (0..limit::SUBSCRIPTIONS_PER_PRINCIPAL_MAX).map(|_| take("greedy").unwrap()).collect();
        assert_eq!(take("greedy").unwrap_err().reason, Reason::StreamsLimited);
        assert!(take("other").is_ok());
        drop(held);
        assert!(take("greedy").is_ok());
    }

    #[test]
    fn the_rate_is_per_principal() {
        let quotas = quotas();
        let (greedy, other) = (principal("greedy"), principal("other"));
        assert!(quotas.request(greedy).is_ok() && quotas.request(greedy).is_ok());
        assert_eq!(quotas.request(greedy).unwrap_err().reason, Reason::RateLimited);
        assert!(quotas.request(other).is_ok());
    }

    #[test]
    fn a_new_configuration_keeps_what_is_in_use() {
        let quotas = quotas();
        let _slot = quotas.call(principal("a")).unwrap();
        let config = QuotaConfig { calls_in_flight_max: 1, ..quotas.rules.load().config.clone() };
        quotas.reconfigure(&config);
        assert!(quotas.call(principal("a")).is_err());
    }
}
