//! How long a body may take, and how much of one that is too large is taken in.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream::{self, StreamExt as _};
use http_body::Frame;
use http_body_util::StreamBody;
use tokio::time::Instant;

use super::body::read;
use super::memory::Memory;
use crate::ids::{Digest, PrincipalKey};
use crate::limit;
use crate::outcome::{Reason, Refusal};

const CHUNK: usize = 64 * 1024;

/// Reads a body that comes in such pieces; how it went, and how long it took.
async fn read_of(pieces: impl stream::Stream<Item = Bytes> + Send) -> (Result<Vec<u8>, Refusal>, Duration) {
    let began = Instant::now();
    let body = pin!(pieces.map(|piece| Ok::<_, Infallible>(Frame::data(piece))));
    let memory = Arc::<Memory>::default();
    let held = memory.enter(PrincipalKey(Digest::sha256(b"ann"))).unwrap();
    let read = read(StreamBody::new(body), &held).await;
    (read, began.elapsed())
}

fn near(took: Duration, max: Duration) -> bool {
    took >= max && took < max + Duration::from_secs(1)
}

#[tokio::test(start_paused = true)]
async fn a_body_that_does_not_arrive_is_waited_for_so_long() {
    let beginning = stream::iter([Bytes::from_static(b"{")]);
    let (read, took) = read_of(beginning.chain(stream::pending())).await;
    assert_eq!(read.unwrap_err().reason, Reason::RequestInvalid);
    assert!(near(took, limit::BODY_READ_TIMEOUT), "{took:?}");
}

#[tokio::test]
async fn a_body_is_taken_in_as_long_as_its_sender_has_room_and_makes_room_when_it_is_done_with() {
    let (memory, ann) = (Arc::<Memory>::default(), PrincipalKey(Digest::sha256(b"ann")));
    let read_all = async || {
        let held = memory.enter(ann)?;
        let pieces = stream::repeat_with(|| Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; CHUNK]))));
        let count = limit::REQUEST_BYTES_MAX / CHUNK;
        read(StreamBody::new(pin!(pieces.take(count))), &held).await.map(|bytes| (bytes, held))
    };
    let mut kept = Vec::new();
    let refused = loop {
        match read_all().await {
            Ok(read) => kept.push(read),
            Err(refusal) => break refusal,
        }
    };
    assert_eq!(refused.reason, Reason::ConcurrencyLimited);
    assert_eq!(kept.len(), limit::HELD_PER_PRINCIPAL_BYTES_MAX / limit::REQUEST_BYTES_MAX - 1);
    assert!(memory.held(ann) <= limit::HELD_PER_PRINCIPAL_BYTES_MAX);
    kept.pop();
    assert!(read_all().await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_drips_gets_no_more_time_with_each_drop() {
    let drops = stream::unfold((), |()| async {
        tokio::time::sleep(Duration::from_secs(3)).await;
        Some((Bytes::from_static(b" "), ()))
    });
    let (read, took) = read_of(drops).await;
    assert_eq!(read.unwrap_err().reason, Reason::RequestInvalid);
    assert!(near(took, limit::BODY_READ_TIMEOUT), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn of_a_body_without_end_so_much_is_thrown_away_and_no_more() {
    let taken = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&taken);
    let flood = stream::repeat_with(move || {
        counted.fetch_add(CHUNK, Ordering::SeqCst);
        Bytes::from(vec![b'x'; CHUNK])
    });
    let (read, _) = read_of(flood).await;
    assert_eq!(read.unwrap_err().reason, Reason::BodyTooLarge);
    let taken = taken.load(Ordering::SeqCst);
    let max = limit::REQUEST_BYTES_MAX + limit::BODY_DISCARDED_BYTES_MAX;
    assert!(taken >= max && taken <= max + 2 * CHUNK, "{taken}");
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_large_and_slow_is_not_waited_for() {
    let mut left = limit::REQUEST_BYTES_MAX / CHUNK + 1;
    let stalling = stream::poll_fn(move |_| {
        left = left.saturating_sub(1);
        if left > 0 { Poll::Ready(Some(Bytes::from(vec![b'x'; CHUNK]))) } else { Poll::Pending }
    });
    let one_more = stream::iter([Bytes::from(vec![b'x'; 2 * CHUNK])]);
    let (read, took) = read_of(one_more.chain(stalling)).await;
    assert_eq!(read.unwrap_err().reason, Reason::BodyTooLarge);
    assert!(near(took, limit::BODY_DISCARD_TIMEOUT), "{took:?}");
}
