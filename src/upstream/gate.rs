//! How many requests one upstream is given at once, and how many may wait.
//!
//! Decides who is turned away as busy. Knows nothing of transports. Invariant: housekeeping and calls
//! never take each other's places, neither among those in flight nor among those that wait.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

use crate::config::HealthConfig;
use crate::limit;
use crate::outcome::{Failure, Reason};

/// A place among the calls in flight.
pub(super) type Permit = OwnedSemaphorePermit;

/// How many requests one upstream is given at once.
#[derive(Debug)]
pub(super) struct Gate {
    calls: Places,
    errands: Places,
    max: u32,
}

/// The places of one of them, and how many wait for one.
#[derive(Debug)]
struct Places {
    free: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Places {
    fn new(places: usize) -> Self {
        Self { free: Arc::new(Semaphore::new(places)), waiting: AtomicUsize::new(0) }
    }
}

impl Gate {
    pub(super) fn new(health: &HealthConfig) -> Self {
        let max = u32::try_from(health.calls_in_flight_max).unwrap_or(u32::MAX >> 4).clamp(1, u32::MAX >> 4);
        Self { calls: Places::new(max as usize), errands: Places::new(limit::ERRANDS_IN_FLIGHT_MAX), max }
    }

    /// Takes a place, waiting for one if not too many wait already.
    pub(super) async fn enter(&self, errand: bool, until: Instant) -> Result<Permit, Failure> {
        let busy = |detail: &str| Failure::before(Reason::UpstreamBusy, detail);
        let places = if errand { &self.errands } else { &self.calls };
        if let Ok(permit) = Arc::clone(&places.free).try_acquire_owned() {
            return Ok(permit);
        }
        let _waiting = Waiter::begin(&places.waiting, self.max as usize)
            .ok_or_else(|| busy("it has too many calls in flight, and as many wait"))?;
        match tokio::time::timeout_at(until, Arc::clone(&places.free).acquire_owned()).await {
            Ok(Ok(permit)) => Ok(permit),
            Ok(Err(_)) => Err(busy("it is being closed")),
            Err(_) => Err(busy("no call in flight ended in time")),
        }
    }

    /// Waits until no call is in flight.
    pub(super) async fn idle(&self) {
        // An error would say that the gate is closed, which is as good.
        let _ = self.calls.free.acquire_many(self.max).await;
    }
}

/// One that waits for a place; counted until it is dropped.
struct Waiter<'a>(&'a AtomicUsize);

impl<'a> Waiter<'a> {
    fn begin(waiting: &'a AtomicUsize, max: usize) -> Option<Self> {
        let before = waiting.fetch_add(1, Ordering::AcqRel);
        let waiter = Self(waiting);
        (before < max).then_some(waiter)
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test]
    async fn housekeeping_has_so_many_places_of_its_own() {
        let health = HealthConfig { calls_in_flight_max: 1, ..super::super::tests::patient() };
        let gate = Gate::new(&health);
        let soon = || Instant::now() + Duration::from_millis(50);
        let mut places = Vec::new();
        for _ in 0..limit::ERRANDS_IN_FLIGHT_MAX {
            places.push(gate.enter(true, soon()).await.unwrap());
        }
        assert_eq!(gate.enter(true, soon()).await.unwrap_err().reason, Reason::UpstreamBusy);
        let call = gate.enter(false, soon()).await;
        assert!(call.is_ok(), "calls are counted apart");
        // As many calls as may wait do, and are not in the way of housekeeping that waits.
        let later = Instant::now() + Duration::from_secs(60);
        let waits = gate.enter(false, later);
        tokio::pin!(waits);
        assert!(futures_util::poll!(waits.as_mut()).is_pending());
        let turned_away = gate.enter(false, later).await.unwrap_err();
        assert!(turned_away.detail.contains("as many wait"), "{turned_away}");
        let waited = gate.enter(true, soon()).await.unwrap_err();
        assert!(waited.detail.contains("ended in time"), "{waited}");
        places.pop();
        assert!(gate.enter(true, soon()).await.is_ok());
    }
}
