//! Decides who is told when a batch is safe: everyone who waits for a line of it, with as few wake-ups
//! across threads as possible.
//!
//! Waking a task from outside the runtime costs a lock and often a system call each. So the writer
//! wakes a lone waiter itself, but hands several to the relay, a task that wakes them from inside.
//! Invariant: a batch settles exactly once, and nobody who asks later waits.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use tokio::sync::Notify;

/// Lines that are made safe together.
#[derive(Debug, Default)]
pub(super) struct Batch {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Whether it became safe; `None` while nobody knows.
    safe: Option<bool>,
    waiting: Vec<Waker>,
}

impl Batch {
    /// Says how it ended, if nobody has yet, and hands over everyone who waits.
    pub(super) fn settle(&self, safe: bool) -> Vec<Waker> {
        let mut state = lock(&self.state);
        state.safe.get_or_insert(safe);
        std::mem::take(&mut state.waiting)
    }
}

/// Resolves when the batch is settled: whether its lines are safe.
#[derive(Debug)]
pub(super) struct Settled {
    batch: Arc<Batch>,
    slot: Option<usize>,
}

impl Settled {
    pub(super) const fn of(batch: Arc<Batch>) -> Self {
        Self { batch, slot: None }
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
            return Poll::Ready(safe);
        }
        match self.slot.and_then(|slot| state.waiting.get_mut(slot)) {
            Some(waker) => waker.clone_from(context.waker()),
            None => {
                self.slot = Some(state.waiting.len());
                state.waiting.push(context.waker().clone());
            }
        }
        Poll::Pending
    }
}

/// Wakes many tasks from inside their runtime.
#[derive(Debug, Default)]
pub(super) struct Relay {
    ready: Mutex<Vec<Waker>>,
    call: Notify,
    alive: AtomicBool,
}

impl Relay {
    /// Takes wakers from the writer's thread.
    pub(super) fn wake(&self, mut wakers: Vec<Waker>) {
        if wakers.len() < 2 || !self.alive.load(Ordering::Acquire) {
            wakers.into_iter().for_each(Waker::wake);
            return;
        }
        lock(&self.ready).append(&mut wakers);
        self.call.notify_one();
        // The runtime may have gone between the two looks; then nobody but us will wake them.
        if !self.alive.load(Ordering::Acquire) {
            self.drain();
        }
    }

    /// Wakes what was handed over, for as long as the runtime runs this.
    pub(super) async fn run(self: Arc<Self>) {
        let _ended = Ended(Arc::clone(&self));
        self.alive.store(true, Ordering::Release);
        loop {
            self.call.notified().await;
            self.drain();
        }
    }

    fn drain(&self) {
        let ready = std::mem::take(&mut *lock(&self.ready));
        ready.into_iter().for_each(Waker::wake);
    }
}

/// Notices that the runtime dropped the relay.
struct Ended(Arc<Relay>);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.alive.store(false, Ordering::Release);
        self.0.drain();
    }
}

/// Locks; a panic elsewhere left nothing half-done that these locks guard.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
