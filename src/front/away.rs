//! What was handed on to other replicas and is not answered yet, so that whoever cancels it is handed on, too.
//!
//! Decides how long that is remembered: while its answer is read, and for a while once nobody reads it, because a legacy call
//! goes on when its client disconnects. Knows nothing of what is asked. Invariant: what is being read is never forgotten, and
//! has one of so many places.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::session::SessionKey;
use crate::ids::ReplicaId;
use crate::limit;

/// A request of a session of ours, as its client names it.
pub(super) type Asked = (SessionKey, String);

/// What was handed on and where to.
#[derive(Debug)]
pub(super) struct Away {
    pub(super) places: Arc<Semaphore>,
    /// What is being read; each has a place.
    read: Mutex<HashMap<Asked, ReplicaId>>,
    /// What nobody read to its end.
    left: Cache<Asked, ReplicaId>,
}

impl Away {
    pub(super) fn new() -> Arc<Self> {
        let left = Cache::builder()
            .max_capacity(limit::RELAYS_MAX as u64)
            .eviction_policy(EvictionPolicy::lru())
            .time_to_live(limit::SESSION_AGE_MAX)
            .build();
        Arc::new(Self { places: Arc::new(Semaphore::new(limit::RELAYS_MAX)), read: Mutex::default(), left })
    }

    /// A place for what is handed on now; nothing where there are too many.
    pub(super) fn enter(self: &Arc<Self>, asked: Option<Asked>, to: ReplicaId) -> Option<Place> {
        let permit = Arc::clone(&self.places).try_acquire_owned().ok()?;
        if let Some(asked) = &asked {
            self.read().insert(asked.clone(), to);
        }
        Some(Place { away: Arc::clone(self), asked, to, is_over: false, _permit: permit })
    }

    /// Where a request went; it is cancelled once.
    pub(super) fn take(&self, asked: &Asked) -> Option<ReplicaId> {
        let read = self.read().remove(asked);
        read.or_else(|| self.left.remove(asked))
    }

    fn read(&self) -> MutexGuard<'_, HashMap<Asked, ReplicaId>> {
        self.read.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One request that was handed on, for as long as its answer is read.
#[derive(Debug)]
pub(super) struct Place {
    away: Arc<Away>,
    asked: Option<Asked>,
    to: ReplicaId,
    /// There is nothing left to cancel.
    is_over: bool,
    _permit: OwnedSemaphorePermit,
}

impl Place {
    /// Nothing of it goes on.
    pub(super) const fn over(&mut self) {
        self.is_over = true;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(asked) = self.asked.take() else { return };
        // What was cancelled is not there any more.
        let is_there = self.away.read().remove(&asked).is_some();
        if is_there && !self.is_over {
            self.away.left.insert(asked, self.to);
        }
    }
}

/// The answer of another replica on its way to the client.
pub(super) struct Answer<B: Body> {
    pub(super) body: B,
    pub(super) place: Place,
}

impl<B: Body> Drop for Answer<B> {
    fn drop(&mut self) {
        // Nobody asks for the rest of an answer that has none.
        if self.body.is_end_stream() {
            self.place.over();
        }
    }
}

impl<B: Body<Data = Bytes> + Unpin> Body for Answer<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let frame = ready!(Pin::new(&mut self.body).poll_frame(context));
        if frame.is_none() {
            self.place.over();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::{BodyExt as _, Full};

    use super::*;

    fn asked(session: u8, id: &str) -> Asked {
        (SessionKey::of_test(session), id.to_owned())
    }

    #[tokio::test]
    async fn what_is_being_read_is_known_however_much_is_handed_on_besides() {
        let (away, there) = (Away::new(), ReplicaId::new());
        let long = away.enter(Some(asked(1, "long")), there).unwrap();
        for number in 0..=limit::RELAYS_MAX {
            let place = away.enter(Some(asked(2, &number.to_string())), there).unwrap();
            let answer = Answer { body: Full::new(Bytes::from_static(b"{}")), place };
            answer.collect().await.unwrap();
        }
        assert_eq!(away.read().len(), 1, "what was read to its end is forgotten");
        away.left.run_pending_tasks();
        assert_eq!(away.left.entry_count(), 0);
        assert_eq!(away.take(&asked(1, "long")), Some(there));
        assert_eq!(away.take(&asked(1, "long")), None, "it is cancelled once");
        drop(long);
        assert_eq!(away.take(&asked(1, "long")), None);
    }

    #[tokio::test]
    async fn what_nobody_reads_to_its_end_can_still_be_cancelled_and_what_never_went_cannot() {
        let (away, there) = (Away::new(), ReplicaId::new());
        let place = away.enter(Some(asked(1, "gone")), there).unwrap();
        drop(Answer { body: Full::new(Bytes::from_static(b"{}")), place });
        assert_eq!(away.take(&asked(1, "gone")), Some(there));
        let mut failed = away.enter(Some(asked(1, "failed")), there).unwrap();
        failed.over();
        drop(failed);
        assert_eq!(away.take(&asked(1, "failed")), None);
    }

    #[test]
    fn so_many_have_a_place() {
        let (away, there) = (Away::new(), ReplicaId::new());
        let all: Vec<_> = (0..limit::RELAYS_MAX).map(|_| away.enter(None, there).unwrap()).collect();
        assert!(away.enter(Some(asked(1, "one too many")), there).is_none());
        assert!(away.read().is_empty());
        drop(all);
        assert!(away.enter(None, there).is_some());
    }
}
