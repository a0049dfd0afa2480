//! The threads that serve connections: which there are, and which of them this is.
//!
//! Each lane is a thread with a runtime of its own. Whatever one connection needs, its socket, the connections to
//! upstreams, its timers, stays on one lane, so that a call wakes nobody on another thread on its way: with a
//! runtime of several threads that was a third of all that a call cost. Decides on which lane a connection is
//! served. Refuses to know what is served. Invariant: a lane runs until [`Lanes::stop`], so that what was begun on
//! one, and is used from others, does not lose the runtime that drives it.

use std::cell::Cell;
use std::num::NonZero;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::thread::JoinHandle;

use tokio::runtime::{Builder, Handle};
use tokio_util::sync::CancellationToken;

use crate::limit;

thread_local! {
    /// The number of this thread's lane, counted from one; zero for all other threads.
    static HERE: Cell<usize> = const { Cell::new(0) };
}

/// Which lane this thread is: from one to [`limit::LANES_MAX`], and zero for every other thread.
#[must_use]
pub fn here() -> usize {
    HERE.get()
}

/// The lanes of a gateway.
#[derive(Debug, Default)]
pub struct Lanes {
    lanes: Vec<Lane>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct Lane {
    runtime: Handle,
    /// What is being served on it.
    held: Arc<AtomicUsize>,
}

impl Lanes {
    /// One lane for each core that this process may use.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be had.
    pub fn start() -> std::io::Result<Self> {
        let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
        let mut started = Self::default();
        for number in 1..=cores.min(limit::LANES_MAX) {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            started.lanes.push(Lane { runtime: runtime.handle().clone(), held: Arc::default() });
            let stop = started.stop.clone();
            let thread = std::thread::Builder::new().name(format!("lane-{number}")).spawn(move || {
                HERE.set(number);
                runtime.block_on(stop.cancelled());
            })?;
            started.threads.get_mut().unwrap_or_else(PoisonError::into_inner).push(thread);
        }
        Ok(started)
    }

    /// No lanes: everything is served where it is asked for.
    #[must_use]
    pub fn none() -> Self {
        Self::default()
    }

    /// Serves on the lane that has the least to do, which is counted in connections.
    pub fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        let Some(lane) = self.lanes.iter().min_by_key(|lane| lane.held.load(Ordering::Relaxed)) else {
            tokio::spawn(work);
            return;
        };
        let place = Place::new(&lane.held);
        lane.runtime.spawn(async move {
            let _place = place;
            work.await;
        });
    }

    /// Ends all lanes and whatever still runs on them.
    pub async fn stop(&self) {
        self.stop.cancel();
        let threads = std::mem::take(&mut *self.threads.lock().unwrap_or_else(PoisonError::into_inner));
        let ended = tokio::task::spawn_blocking(move || {
            for thread in threads {
                let _ = thread.join();
            }
        });
        let _ = ended.await;
    }
}

/// Threads that nobody waits for still end.
impl Drop for Lanes {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

/// One thing that is served on a lane.
struct Place(Arc<AtomicUsize>);

impl Place {
    fn new(held: &Arc<AtomicUsize>) -> Self {
        held.fetch_add(1, Ordering::Relaxed);
        Self(Arc::clone(held))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One of something for each lane, made when it is first used there.
#[derive(Debug)]
pub struct PerLane<T> {
    slots: Box<[OnceLock<T>]>,
}

impl<T> PerLane<T> {
    /// None yet.
    #[must_use]
    pub fn new() -> Self {
        Self { slots: (0..=limit::LANES_MAX).map(|_| OnceLock::new()).collect() }
    }

    /// The one of this lane, and `make` where it is the first to ask. `None` for no thread that there is.
    pub fn here(&self, make: impl FnOnce() -> T) -> Option<&T> {
        Some(self.slots.get(here())?.get_or_init(make))
    }
}

impl<T> Default for PerLane<T> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn connections_are_spread_evenly_and_each_stays_on_its_lane() {
        let lanes = Lanes::start().unwrap();
        let count = lanes.lanes.len();
        assert!((1..=limit::LANES_MAX).contains(&count));
        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 * count {
            let sender = sender.clone();
            lanes.spawn(async move {
                let before = here();
                tokio::task::yield_now().await;
                sender.send((before, here())).unwrap();
                std::future::pending::<()>().await;
            });
        }
        let mut each = vec![0; count + 1];
        for _ in 0..2 * count {
            let (before, after) = seen.recv().await.unwrap();
            assert_eq!(before, after);
            each[after] += 1;
        }
        assert_eq!(each[0], 0, "on a thread that is no lane");
        assert!(each[1..].iter().all(|served| *served == 2), "{each:?}");
        lanes.stop().await;
        assert!(lanes.lanes.iter().all(|lane| lane.held.load(Ordering::Relaxed) == 0), "what was served is gone");
    }

    #[tokio::test]
    async fn without_lanes_the_caller_s_runtime_serves() {
        let (sender, served) = tokio::sync::oneshot::channel();
        Lanes::none().spawn(async move { sender.send(here()).unwrap() });
        assert_eq!(served.await.unwrap(), 0);
    }

    #[tokio::test]
    async fn each_lane_has_its_own() {
        let lanes = Lanes::start().unwrap();
        let per_lane = Arc::new(PerLane::new());
        let (sender, mut seen) = tokio::sync::mpsc::unbounded_channel();
        for _ in 0..2 * lanes.lanes.len() {
            let (per_lane, sender) = (Arc::clone(&per_lane), sender.clone());
            lanes.spawn(async move { sender.send((here(), *per_lane.here(here).unwrap())).unwrap() });
        }
        for _ in 0..2 * lanes.lanes.len() {
            let (lane, own) = seen.recv().await.unwrap();
            assert_eq!(lane, own);
        }
    }
}
