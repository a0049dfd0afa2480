//! Decides who is told when a batch is safe: everyone who waits for a line of it, with as few wake-ups
//! across threads as possible.
//!
//! Waking a task from outside its runtime costs a lock and often a system call each. So the writer wakes one
//! waiter of each lane, and that one wakes the others from inside. Invariant: a batch settles exactly once, nobody
//! who asks later waits, and whoever was chosen to wake others does so even when it is dropped instead.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use crate::lanes;

/// Lines that are made safe together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether it became safe; `None` while nobody knows.
    safe: Option<bool>,
    waiting: Vec<Waiting>,
}

/// Somebody who waits, and on which lane. Gone once it is woken, or waits no more.
#[derive(Debug)]
struct Waiting {
    lane: usize,
    waker: Option<Waker>,
}

impl Batch {
    /// Says how it ended, if nobody has yet, and wakes one waiter of each lane.
    pub(super) fn settle(&self, safe: bool) {
        let mut state = lock(&self.state);
        state.safe.get_or_insert(safe);
        let mut told: Vec<usize> = Vec::new();
        let mut first: Vec<Waker> = Vec::new();
        for waiting in &mut state.waiting {
            if !told.contains(&waiting.lane)
                && let Some(waker) = waiting.waker.take()
            {
                told.push(waiting.lane);
                first.push(waker);
            }
        }
        drop(state);
        first.into_iter().for_each(Waker::wake);
    }
}

impl State {
    /// Everybody else who waits on a lane.
    fn others(&mut self, lane: usize) -> Vec<Waker> {
        self.waiting
            .iter_mut()
            .filter(|waiting| waiting.lane == lane)
            .filter_map(|waiting| waiting.waker.take())
            .collect()
    }
}

/// Resolves when the batch is settled: whether its lines are safe.
#[derive(Debug)]
pub(super) struct Settled {
    batch: Arc<Batch>,
    /// Where it waits: the place in the list, and the lane.
    place: Option<(usize, usize)>,
}

impl Settled {
    pub(super) const fn of(batch: Arc<Batch>) -> Self {
        Self { batch, place: None }
    }

    /// Waits for it in a thread that is nobody's task.
    pub(super) fn wait(self) -> bool {
        struct Unpark(std::thread::Thread);
        impl std::task::Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        let waker = Arc::new(Unpark(std::thread::current())).into();
        let mut context = Context::from_waker(&waker);
        let mut settled = std::pin::pin!(self);
        loop {
            match settled.as_mut().poll(&mut context) {
                Poll::Ready(safe) => return safe,
                Poll::Pending => std::thread::park(),
            }
        }
    }
}

impl Future for Settled {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let batch = Arc::clone(&self.batch);
        let mut state = lock(&batch.state);
        if let Some(safe) = state.safe {
            let others = self.place.take().map(|(_, lane)| state.others(lane));
            drop(state);
            others.into_iter().flatten().for_each(Waker::wake);
            return Poll::Ready(safe);
        }
        match self.place.and_then(|(place, _)| state.waiting.get_mut(place)) {
            Some(Waiting { waker: Some(waker), .. }) => waker.clone_from(context.waker()),
            Some(waiting) => waiting.waker = Some(context.waker().clone()),
            None => {
                let lane = lanes::here();
                self.place = Some((state.waiting.len(), lane));
                state.waiting.push(Waiting { lane, waker: Some(context.waker().clone()) });
            }
        }
        Poll::Pending
    }
}

/// Whoever gives up waiting may be the one who was woken for the others.
impl Drop for Settled {
    fn drop(&mut self) {
        let Some((place, lane)) = self.place.take() else { return };
        let mut state = lock(&self.batch.state);
        if let Some(waiting) = state.waiting.get_mut(place) {
            waiting.waker = None;
        }
        let others = if state.safe.is_some() { state.others(lane) } else { Vec::new() };
        drop(state);
        others.into_iter().for_each(Waker::wake);
    }
}

/// Locks; a panic elsewhere left nothing half-done that these locks guard.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    async fn in_time<T>(future: impl Future<Output = T>) -> T {
        tokio::time::timeout(Duration::from_secs(5), future).await.expect("nobody woke it")
    }

    #[tokio::test]
    async fn everybody_is_told_though_only_one_is_woken_from_outside() {
        let batch = Arc::new(Batch::default());
        let waiting: Vec<_> = (0..10).map(|_| tokio::spawn(Settled::of(Arc::clone(&batch)))).collect();
        tokio::task::yield_now().await;
        let settling = Arc::clone(&batch);
        std::thread::spawn(move || settling.settle(true)).join().unwrap();
        for waiting in waiting {
            assert!(in_time(waiting).await.unwrap());
        }
        assert!(in_time(Settled::of(batch)).await, "nobody who asks later waits");
    }

    #[tokio::test]
    async fn whoever_gives_up_before_or_after_it_was_woken_leaves_nobody_behind() {
        let batch = Arc::new(Batch::default());
        let mut waiting: Vec<_> = (0..4).map(|_| tokio::spawn(Settled::of(Arc::clone(&batch)))).collect();
        tokio::task::yield_now().await;
        let early = waiting.remove(0);
        early.abort();
        let _ = early.await;
        // The first that is left is woken, and is gone before it is polled.
        batch.settle(false);
        let late = waiting.remove(0);
        late.abort();
        for waiting in waiting {
            assert!(!in_time(waiting).await.unwrap());
        }
    }
}
