//! Cuts the streams of a caller whose access was taken back, also while the client does not read them.
//!
//! A stream is pulled by its connection, so one whose client has stopped reading is asked nothing and learns
//! nothing. Each has a watchdog beside it that waits for the caller to fall. Knows nothing of what a stream
//! carries. Invariant: within a second of a revocation nothing is kept or written for that caller any more.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::task::{Context, Poll, Waker};

use axum::body::Body;
use bytes::Bytes;
use http::Response;
use http::header::CONTENT_TYPE;
use http_body::Frame;
use http_body_util::BodyExt as _;
use tokio_util::sync::CancellationToken;

use super::answer::EVENT_STREAM;
use crate::limit;

/// Lets go of a connection that carries nothing but the stream: HTTP/1.1 knows no other way to end a stream
/// that nobody reads. Over HTTP/2 the stream alone is emptied, because others share its connection.
#[derive(Debug, Clone)]
pub(super) struct Leash(Arc<Held>);

#[derive(Debug)]
struct Held {
    stream: Mutex<Stream>,
    connection: OnceLock<CancellationToken>,
    /// The stream has ended, or its connection has dropped it.
    over: CancellationToken,
}

#[derive(Debug)]
struct Stream {
    /// `None` once it was cut.
    body: Option<Body>,
    /// Whoever waits for the next frame.
    reader: Option<Waker>,
}

/// The body that the connection pulls.
struct Leashed(Arc<Held>);

/// Puts a stream of events on a leash that is pulled once `fallen` is done; leaves any other response alone.
pub fn leash<F>(response: Response<Body>, fallen: impl FnOnce() -> F) -> Response<Body>
where
    F: Future<Output = ()> + Send + 'static,
{
    if response.headers().get(CONTENT_TYPE) != Some(&EVENT_STREAM) {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let stream = Mutex::new(Stream { body: Some(body), reader: None });
    let held = Arc::new(Held { stream, connection: OnceLock::new(), over: CancellationToken::new() });
    parts.extensions.insert(Leash(Arc::clone(&held)));
    tokio::spawn(watch(Arc::clone(&held), fallen()));
    Response::from_parts(parts, Body::new(Leashed(held)))
}

impl Leash {
    /// Ties the connection to it that carries this stream and nothing else.
    pub(super) fn tie(&self, connection: &CancellationToken) {
        // It is tied once: a response belongs to one connection.
        let _ = self.0.connection.set(connection.clone());
    }
}

/// Waits for the caller to fall; whoever reads is told why and then gone, which takes no time.
async fn watch(held: Arc<Held>, fallen: impl Future<Output = ()>) {
    tokio::select! {
        () = held.over.cancelled() => return,
        () = fallen => {}
    }
    if tokio::time::timeout(limit::STREAM_FAREWELL, held.over.cancelled()).await.is_err() {
        held.cut().await;
    }
}

impl Held {
    /// Lets the stream end as it would have if somebody had read it, and keeps nothing of it.
    async fn cut(&self) {
        let (body, reader) = {
            let mut stream = self.lock();
            (stream.body.take(), stream.reader.take())
        };
        if let Some(mut body) = body {
            let rest = async { while let Some(Ok(_)) = body.frame().await {} };
            let _ = tokio::time::timeout(limit::STREAM_FAREWELL, rest).await;
        }
        if let Some(reader) = reader {
            reader.wake();
        }
        if let Some(connection) = self.connection.get() {
            tracing::debug!("a stream was cut that nobody read");
            connection.cancel();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Stream> {
        self.stream.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl http_body::Body for Leashed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut stream = self.0.lock();
        let Some(body) = &mut stream.body else { return Poll::Ready(None) };
        let polled = Pin::new(body).poll_frame(context);
        match &polled {
            Poll::Pending => stream.reader = Some(context.waker().clone()),
            Poll::Ready(None | Some(Err(_))) => self.0.over.cancel(),
            Poll::Ready(Some(Ok(_))) => {}
        }
        polled
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.0.over.cancel();
        // The watchdog may hold the other end for a moment; the stream goes now.
        self.0.lock().body = None;
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::time::Duration;

    use futures_util::stream;
    use tokio::sync::oneshot;

    use super::*;

    fn events(body: Body) -> Response<Body> {
        super::super::answer::events(body)
    }

    fn endless() -> Body {
        Body::from_stream(stream::pending::<Result<Bytes, Infallible>>())
    }

    #[tokio::test]
    async fn a_stream_that_is_read_ends_by_itself_and_its_connection_stays() {
        let (fall, fallen) = oneshot::channel::<()>();
        let connection = CancellationToken::new();
        let body = Body::from_stream(stream::once(async { Ok::<_, Infallible>("data: last\n\n") }));
        let response = leash(events(body), || async { drop(fallen.await) });
        response.extensions().get::<Leash>().unwrap().tie(&connection);
        fall.send(()).unwrap();
        let read = response.into_body().collect().await.unwrap().to_bytes();
        assert_eq!(read, "data: last\n\n");
        tokio::time::sleep(limit::STREAM_FAREWELL * 3).await;
        assert!(!connection.is_cancelled());
    }

    #[tokio::test]
    async fn a_stream_that_nobody_reads_is_emptied_and_its_connection_let_go() {
        let (fall, fallen) = oneshot::channel::<()>();
        let (dropped, mut seen) = oneshot::channel::<()>();
        let connection = CancellationToken::new();
        let body = Body::from_stream(stream::unfold(dropped, |dropped| async move {
            std::future::pending::<()>().await;
            Some((Ok::<_, Infallible>(Bytes::new()), dropped))
        }));
        let response = leash(events(body), || async { drop(fallen.await) });
        response.extensions().get::<Leash>().unwrap().tie(&connection);
        fall.send(()).unwrap();
        tokio::time::timeout(Duration::from_secs(1), connection.cancelled()).await.expect("it is cut within a second");
        assert!(seen.try_recv().is_err_and(|error| error == oneshot::error::TryRecvError::Closed), "it is dropped");
        assert!(response.into_body().frame().await.is_none(), "what is left of it is over");
    }

    #[tokio::test]
    async fn a_reader_that_waits_is_woken_when_its_stream_is_cut() {
        let (fall, fallen) = oneshot::channel::<()>();
        let response = leash(events(endless()), || async { drop(fallen.await) });
        let reading = tokio::spawn(async move { response.into_body().frame().await.is_none() });
        tokio::task::yield_now().await;
        fall.send(()).unwrap();
        assert!(tokio::time::timeout(Duration::from_secs(2), reading).await.unwrap().unwrap());
    }

    #[tokio::test]
    async fn what_is_no_stream_has_no_watchdog() {
        let response = leash(Response::new(Body::from("{}")), std::future::pending::<()>);
        assert!(response.extensions().get::<Leash>().is_none());
    }
}
