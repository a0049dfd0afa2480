//! What each principal keeps in memory here: the bodies that come from it, and the answers that it has not taken yet.
//!
//! Decides whether one more request, one more piece of a body or one more list finds room. Refuses to know what any of
//! them says. Invariants: a byte is counted from before it is kept until its last copy is gone, whatever carries it; what
//! one principal fills is no other's room. The end of a call is never refused for want of room, because it has happened:
//! there are only as many calls of one principal as its quota says.

use std::collections::HashMap;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};

use axum::body::Body;
use bytes::Bytes;
use foldhash::quality::RandomState;
use http::Response;
use http_body::{Frame, SizeHint};

use crate::ids::PrincipalKey;
use crate::limit;
use crate::outcome::{Reason, Refusal};

const SHARDS: usize = 16;

/// What all principals keep here.
#[derive(Debug, Default)]
pub(super) struct Memory {
    shards: [Mutex<HashMap<PrincipalKey, usize, RandomState>>; SHARDS],
}

/// What one request keeps; nothing any more once this and all that carries it is dropped.
#[derive(Debug)]
pub(super) struct Held {
    memory: Arc<Memory>,
    principal: PrincipalKey,
    bytes: AtomicUsize,
}

impl Memory {
    /// Lets one more request of a principal in.
    ///
    /// # Errors
    /// `concurrency_limited` where too much is kept for it already.
    pub(super) fn enter(self: &Arc<Self>, principal: PrincipalKey) -> Result<Arc<Held>, Refusal> {
        let held = Arc::new(Held { memory: Arc::clone(self), principal, bytes: AtomicUsize::new(0) });
        held.more(limit::HELD_PER_REQUEST_BYTES).map(|()| held)
    }

    fn shard(&self, principal: PrincipalKey) -> MutexGuard<'_, HashMap<PrincipalKey, usize, RandomState>> {
        let [zero, ..] = &self.shards;
        let first = principal.0.as_bytes().first().copied().unwrap_or_default();
        let shard = self.shards.get(usize::from(first) % SHARDS).unwrap_or(zero);
        // Nothing in here can be left half done by a panic.
        shard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[cfg(test)]
    pub(super) fn held(&self, principal: PrincipalKey) -> usize {
        self.shard(principal).get(&principal).copied().unwrap_or_default()
    }
}

impl Held {
    /// Keeps so much more.
    ///
    /// # Errors
    /// `concurrency_limited` where its principal would keep too much.
    pub(super) fn more(&self, bytes: usize) -> Result<(), Refusal> {
        if self.change(|own| own + bytes, limit::HELD_PER_PRINCIPAL_BYTES_MAX) {
            return Ok(());
        }
        let hint = "read the answers to your earlier requests, or send fewer and smaller ones at once";
        Err(Refusal::new(Reason::ConcurrencyLimited).hint(hint))
    }

    /// The request is answered with so much, and nothing else of it is kept.
    fn answered(&self, bytes: usize) {
        self.change(|_| limit::HELD_PER_REQUEST_BYTES + bytes, usize::MAX);
    }

    /// One more piece of an answer, which is kept for as long as somebody has it.
    fn piece(&self, bytes: Bytes) -> Bytes {
        let (memory, principal) = (Arc::clone(&self.memory), self.principal);
        let held = Arc::new(Self { memory, principal, bytes: AtomicUsize::new(0) });
        held.change(|_| bytes.len(), usize::MAX);
        Bytes::from_owner(Counted { bytes, _held: held })
    }

    fn change(&self, to: impl FnOnce(usize) -> usize, at_most: usize) -> bool {
        let mut shard = self.memory.shard(self.principal);
        let all = shard.entry(self.principal).or_default();
        // Only ever changed in here.
        let own = self.bytes.load(Ordering::Relaxed);
        let then = to(own);
        let sum = all.saturating_sub(own).saturating_add(then);
        let fits = then <= own || sum <= at_most;
        if fits {
            *all = sum;
            self.bytes.store(then, Ordering::Relaxed);
        }
        if *all == 0 {
            shard.remove(&self.principal);
        }
        fits
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.change(|_| 0, usize::MAX);
    }
}

/// Bytes that are counted until the last of their copies is dropped.
struct Counted {
    bytes: Bytes,
    _held: Arc<Held>,
}

impl AsRef<[u8]> for Counted {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

/// An answer that is counted until it has left.
struct Leaving {
    body: Body,
    held: Arc<Held>,
    /// All of it is counted already.
    whole: bool,
}

/// Counts an answer for as long as it or a piece of it is kept.
pub(super) fn leaving(response: Response<Body>, held: Arc<Held>) -> Response<Body> {
    let length = http_body::Body::size_hint(response.body()).exact().and_then(|length| usize::try_from(length).ok());
    if let Some(length) = length {
        held.answered(length);
    }
    response.map(|body| Body::new(Leaving { body, held, whole: length.is_some() }))
}

impl http_body::Body for Leaving {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let polled = Pin::new(&mut self.body).poll_frame(context);
        polled.map_ok(|frame| {
            frame.map_data(|bytes| match self.whole {
                true => Bytes::from_owner(Counted { bytes, _held: Arc::clone(&self.held) }),
                false => self.held.piece(bytes),
            })
        })
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
    use std::convert::Infallible;

    use futures_util::stream;
    use http_body_util::BodyExt as _;

    use super::*;
    use crate::ids::Digest;

    const MAX: usize = limit::HELD_PER_PRINCIPAL_BYTES_MAX;

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::of("test", &[name.as_bytes()]))
    }

    #[test]
    fn one_principal_keeps_so_much_and_no_other_is_refused_for_it() {
        let (memory, ann) = (Arc::<Memory>::default(), principal("ann"));
        let body = memory.enter(ann).unwrap();
        body.more(MAX - 2 * limit::HELD_PER_REQUEST_BYTES).unwrap();
        let last = memory.enter(ann).unwrap();
        assert_eq!(memory.held(ann), MAX);
        assert_eq!(last.more(1).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert_eq!(memory.enter(ann).unwrap_err().reason, Reason::ConcurrencyLimited);
        assert!(memory.enter(principal("bob")).is_ok());
        drop(body);
        last.more(1).unwrap();
        drop(last);
        assert_eq!(memory.held(ann), 0);
        assert!(memory.shards.iter().all(|shard| shard.lock().unwrap().is_empty()), "nobody is remembered for nothing");
    }

    #[tokio::test]
    async fn an_answer_is_kept_until_the_last_copy_of_its_last_piece_is_gone() {
        let (memory, ann) = (Arc::<Memory>::default(), principal("ann"));
        let held = memory.enter(ann).unwrap();
        held.more(5_000).unwrap();
        let mut response = leaving(Response::new(Body::from(vec![b'x'; 100_000])), held);
        let whole = limit::HELD_PER_REQUEST_BYTES + 100_000;
        assert_eq!(memory.held(ann), whole, "the request is gone, the answer is there");
        assert_eq!(http_body::Body::size_hint(response.body()).exact(), Some(100_000));
        let piece = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let copy = piece.slice(5..10);
        drop((response, piece));
        assert_eq!(memory.held(ann), whole, "who writes it has a piece of it yet");
        drop(copy);
        assert_eq!(memory.held(ann), 0);
    }

    #[tokio::test]
    async fn of_a_stream_that_is_counted_which_was_said_and_not_taken() {
        let (memory, ann) = (Arc::<Memory>::default(), principal("ann"));
        let said = stream::iter([Ok::<_, Infallible>(Bytes::from_static(b"12345")), Ok(Bytes::from_static(b"678"))]);
        let mut response = leaving(Response::new(Body::from_stream(said)), memory.enter(ann).unwrap());
        let own = limit::HELD_PER_REQUEST_BYTES;
        let first = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        let second = response.body_mut().frame().await.unwrap().unwrap().into_data().unwrap();
        assert_eq!((&first[..], &second[..], memory.held(ann)), (&b"12345"[..], &b"678"[..], own + 8));
        drop(first);
        assert_eq!(memory.held(ann), own + 3);
        drop((response, second));
        assert_eq!(memory.held(ann), 0);
    }

    #[test]
    fn the_end_of_a_call_is_counted_and_never_refused() {
        let (memory, ann) = (Arc::<Memory>::default(), principal("ann"));
        let call = memory.enter(ann).unwrap();
        let other = memory.enter(ann).unwrap();
        other.more(MAX - 2 * limit::HELD_PER_REQUEST_BYTES).unwrap();
        let response = leaving(Response::new(Body::from(vec![b'x'; 10_000])), call);
        assert_eq!(memory.held(ann), MAX + 10_000);
        assert!(memory.enter(ann).is_err());
        drop((response, other));
        assert_eq!(memory.held(ann), 0);
    }
}
