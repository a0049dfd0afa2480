//! What nobody read of a request's body, taken in before the answer goes out (RFC 9112, section 9.3).
//!
//! An answer may be known before the body is here: a token that is refused, a path that is nothing. A connection whose
//! last body was not read to its end cannot carry another request, and ends without a word; a client that already sends
//! its next one is told nothing. Decides how much of a leftover is worth keeping the connection for, and says so where
//! it is not. Refuses to know what the body says. Invariant: nothing of a leftover is kept.

use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, ready};

use axum::body::Body;
use bytes::Bytes;
use http::header::CONNECTION;
use http::{HeaderValue, Response};
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::limit;

/// The body of a request of a listener. What its reader leaves of it goes back to the connection.
#[derive(Debug)]
pub struct RequestBody {
    body: Option<Incoming>,
    desk: Option<Desk>,
}

/// Where the requests of one HTTP/1 connection leave what they did not read: they come one after the other.
#[derive(Debug, Clone, Default)]
pub(super) struct Desk(Arc<Mutex<Option<Incoming>>>);

impl RequestBody {
    /// A body whose connection does not mind what is left of it: a stream of HTTP/2 ends by itself.
    pub(super) const fn of_stream(body: Incoming) -> Self {
        Self { body: Some(body), desk: None }
    }
}

impl Desk {
    /// The body of the next request.
    pub(super) fn lend(&self, body: Incoming) -> RequestBody {
        RequestBody { body: Some(body), desk: Some(self.clone()) }
    }

    /// The answer to the request, once what it left is taken in, or with a word that the connection ends with it.
    ///
    /// Who waits to be told to go on (`Expect: 100-continue`) is not made to send what nobody wants.
    pub(super) async fn cleared(&self, mut response: Response<Body>, is_expecting: bool) -> Response<Body> {
        let left = self.0.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(left) = left
            && (is_expecting || !discarded(left).await)
        {
            response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

/// Whether the rest came to its end within the limits.
async fn discarded(mut rest: Incoming) -> bool {
    let whole = async {
        let mut bytes: usize = 0;
        while let Some(frame) = rest.frame().await {
            let Ok(frame) = frame else { return false };
            bytes += frame.data_ref().map_or(0, Bytes::len);
            if bytes > limit::BODY_LEFT_BYTES_MAX {
                return false;
            }
        }
        true
    };
    tokio::time::timeout(limit::BODY_LEFT_TIMEOUT, whole).await.unwrap_or(false)
}

impl http_body::Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Some(body) = self.body.as_mut() else { return Poll::Ready(None) };
        let frame = ready!(Pin::new(body).poll_frame(context));
        if !matches!(frame, Some(Ok(_))) {
            self.body = None;
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.body.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.body.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

impl Drop for RequestBody {
    fn drop(&mut self) {
        if let (Some(body), Some(desk)) = (self.body.take(), &self.desk)
            && !body.is_end_stream()
        {
            *desk.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(body);
        }
    }
}
