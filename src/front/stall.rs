//! Gives up answers that their clients do not take: a connection that writes nothing, a stream of HTTP/2 that is not read.
//!
//! Decides how long an answer waits for its client. Refuses to know what it says, and whose it is. Invariant: nothing that
//! waits to be written waits for ever, and one stream of a connection that is not read costs the others nothing.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http_body::{Frame, SizeHint};
use hyper::rt::Executor;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Sleep;

use crate::limit;

tokio::task_local! {
    /// How far the answer has come that is made in this task.
    static DELIVERY: Arc<Delivery>;
}

/// How far one answer has come.
#[derive(Debug, Default)]
struct Delivery {
    begun: Notify,
    /// Pieces that the connection has taken.
    taken: AtomicU64,
    /// The connection has a piece that it cannot send yet: it asks for the next one as soon as it could.
    waits: AtomicBool,
}

impl Delivery {
    /// Done once the client has taken nothing for so long, while there was something for it.
    async fn stalled(&self) {
        self.begun.notified().await;
        loop {
            let before = self.taken.load(Ordering::Acquire);
            tokio::time::sleep(limit::WRITE_STALL_MAX).await;
            if self.waits.load(Ordering::Acquire) && self.taken.load(Ordering::Acquire) == before {
                return;
            }
        }
    }
}

/// Runs what HTTP/2 makes of each request, and drops it when its client does not read: that resets the stream.
#[derive(Debug, Clone, Copy)]
pub(super) struct Streams;

impl<F> Executor<F> for Streams
where
    F: Future + Send + 'static,
    F::Output: Send,
{
    fn execute(&self, stream: F) {
        let delivery = Arc::<Delivery>::default();
        let watched = Arc::clone(&delivery);
        tokio::spawn(DELIVERY.scope(delivery, async move {
            tokio::select! {
                biased;
                _ = stream => {}
                () = watched.stalled() => tracing::debug!("an answer was given up that its client does not read"),
            }
        }));
    }
}

/// Follows how an answer is taken, in pieces that are small enough for HTTP/2 to keep the last one of.
pub(super) fn followed(response: Response<Body>) -> Response<Body> {
    let Ok(delivery) = DELIVERY.try_with(Arc::clone) else { return response };
    delivery.begun.notify_one();
    response.map(|body| Body::new(Followed { body, rest: Bytes::new(), delivery }))
}

struct Followed {
    body: Body,
    /// What was too long for one piece.
    rest: Bytes,
    delivery: Arc<Delivery>,
}

impl http_body::Body for Followed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        if self.rest.is_empty() {
            self.delivery.waits.store(false, Ordering::Release);
            match ready!(Pin::new(&mut self.body).poll_frame(context)) {
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(bytes) => self.rest = bytes,
                    Err(trailers) => return Poll::Ready(Some(Ok(trailers))),
                },
                end => return Poll::Ready(end),
            }
        }
        let length = self.rest.len().min(limit::HTTP2_PIECE_BYTES_MAX);
        let piece = self.rest.split_to(length);
        self.delivery.taken.fetch_add(1, Ordering::AcqRel);
        self.delivery.waits.store(true, Ordering::Release);
        Poll::Ready(Some(Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.rest.is_empty() && self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        let (inner, rest) = (self.body.size_hint(), self.rest.len() as u64);
        let mut hint = SizeHint::new();
        hint.set_lower(inner.lower() + rest);
        if let Some(upper) = inner.upper() {
            hint.set_upper(upper + rest);
        }
        hint
    }
}

/// A connection whose peer has to take what is written.
pub(super) struct Brisk<S> {
    stream: S,
    /// Runs while something waits to be written.
    waits: Option<Pin<Box<Sleep>>>,
}

impl<S> Brisk<S> {
    pub(super) const fn new(stream: S) -> Self {
        Self { stream, waits: None }
    }

    /// What came of a write; an error once nothing was taken for so long.
    fn judged<T>(&mut self, polled: Poll<io::Result<T>>, context: &mut Context<'_>) -> Poll<io::Result<T>> {
        if polled.is_ready() {
            self.waits = None;
            return polled;
        }
        let waits = self.waits.get_or_insert_with(|| Box::pin(tokio::time::sleep(limit::WRITE_STALL_MAX)));
        ready!(waits.as_mut().poll(context));
        Poll::Ready(Err(io::Error::new(io::ErrorKind::TimedOut, "the peer takes nothing of what is written")))
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Brisk<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Brisk<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.judged(polled, context)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.judged(polled, context)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_flush(context);
        self.judged(polled, context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.stream).poll_shutdown(context);
        self.judged(polled, context)
    }
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt as _;

    use super::*;

    #[tokio::test]
    async fn an_answer_over_http_2_goes_in_pieces_that_together_are_what_it_was() {
        let whole: Vec<u8> = (0..=u8::MAX).cycle().take(2 * limit::HTTP2_PIECE_BYTES_MAX + 5).collect();
        let delivery = Arc::<Delivery>::default();
        let answer = Response::new(Body::from(whole.clone()));
        let mut followed = DELIVERY.sync_scope(Arc::clone(&delivery), || followed(answer)).into_body();
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        while let Some(frame) = followed.frame().await {
            let piece = frame.unwrap().into_data().unwrap();
            assert!(delivery.waits.load(Ordering::Acquire));
            let left = (whole.len() - pieces.concat().len() - piece.len()) as u64;
            assert_eq!(http_body::Body::size_hint(&followed).exact(), Some(left));
            pieces.push(piece.to_vec());
        }
        assert_eq!(pieces.iter().map(Vec::len).collect::<Vec<_>>(), [16 * 1024, 16 * 1024, 5]);
        assert_eq!(pieces.concat(), whole);
        assert!(http_body::Body::is_end_stream(&followed) && !delivery.waits.load(Ordering::Acquire));
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_nothing_to_say_is_not_given_up_however_long_that_is() {
        let delivery = Arc::<Delivery>::default();
        let silent = Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::convert::Infallible>>());
        let mut followed = DELIVERY.sync_scope(Arc::clone(&delivery), || followed(Response::new(silent))).into_body();
        tokio::select! {
            _ = followed.frame() => panic!("it says nothing"),
            () = delivery.stalled() => panic!("it waits for no client"),
            () = tokio::time::sleep(10 * limit::WRITE_STALL_MAX) => {}
        }
    }
}
