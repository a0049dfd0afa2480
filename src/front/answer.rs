//! Turns replies into HTTP responses; the table of `outcome::reply` has decided what they say.

use axum::body::Body;
use bytes::Bytes;
use http::header::{
    ACCEPT, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
};
use http::{Response, StatusCode};
use serde_json::json;

use super::memory::Held;
use super::metadata::Names;
use crate::call::Endpoint;
use crate::outcome::reply::{self, Reply};
use crate::outcome::{Reason, Refusal, Stop};
use crate::wire::mcp::{Era, Method, Version, code};
use crate::wire::{Json, Message, WireError};

const X_ACCEL_BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
pub(super) const EVENT_STREAM: HeaderValue = HeaderValue::from_static("text/event-stream");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A response that is one JSON document.
pub(super) fn document(status: StatusCode, bytes: impl Into<Bytes>) -> Response<Body> {
    let mut response = Response::new(Body::from(bytes.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, JSON);
    // What one caller sees is never another's.
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}

/// A message with HTTP 200.
pub(super) fn message(message: &Message) -> Response<Body> {
    document(StatusCode::OK, message.as_bytes().clone())
}

/// A result in the shape of its era, spliced into its envelope.
pub(super) fn result(id: &Json, result: &Json) -> Response<Body> {
    message(&Message::result(id, result))
}

/// A list, as far as what its caller has in memory leaves room for it.
pub(super) fn listed(about: About<'_>, id: &Json, list: &Json, held: &Held) -> Response<Body> {
    match held.more(list.as_bytes().len()) {
        Ok(()) => result(id, list),
        Err(refusal) => about.stopped(refusal),
    }
}

/// A row of the table.
pub(super) fn reply(reply: &Reply, names: &Names, endpoint: &Endpoint) -> Response<Body> {
    let status = StatusCode::from_u16(reply.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = document(status, reply.message.as_bytes().clone());
    if let Some(challenge) = &reply.challenge
        && let Ok(value) = HeaderValue::from_str(&names.challenge(endpoint, challenge))
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    if let Some(seconds) = reply.retry_after_seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// What is known of a request that is being answered.
#[derive(Clone, Copy)]
pub(super) struct About<'a> {
    pub(super) names: &'a Names,
    pub(super) endpoint: &'a Endpoint,
    pub(super) id: Option<&'a Json>,
    pub(super) method: Option<Method>,
    pub(super) era: Era,
}

/// Goes along with a refusal that nothing behind the front has put on the record.
#[derive(Debug, Clone, Copy)]
pub(super) struct Untold(pub(super) Reason);

/// A response that refuses for a reason that is yet to be told.
pub(super) fn untold(mut response: Response<Body>, reason: Reason) -> Response<Body> {
    response.extensions_mut().insert(Untold(reason));
    response
}

impl About<'_> {
    /// A stop, as the table has it; it is yet to be told.
    pub(super) fn stopped(self, stop: impl Into<Stop>) -> Response<Body> {
        let stop = stop.into();
        let reason = stop.reason();
        untold(self.told(stop), reason)
    }

    /// The same of a stop that is on the record already.
    pub(super) fn told(self, stop: impl Into<Stop>) -> Response<Body> {
        reply(&reply::stopped(&stop.into(), self.id, self.method, self.era), self.names, self.endpoint)
    }

    /// -32022 with the versions that are spoken here, newest first.
    pub(super) fn version_unsupported(self, requested: &str) -> Response<Body> {
        let error = json!({
            "code": code::UNSUPPORTED_VERSION,
            "message": "Unsupported protocol version",
            "data": {
                "supported": Version::ALL.map(Version::as_str),
                "requested": requested,
                "reason": Reason::VersionUnsupported.code(),
            },
        });
        let bytes = Message::error(self.id, &Json::of(&error)).as_bytes().clone();
        untold(document(StatusCode::BAD_REQUEST, bytes), Reason::VersionUnsupported)
    }
}

/// A refusal of a body that is not one message.
pub(super) fn unreadable(first_byte: Option<u8>, error: &WireError) -> Refusal {
    match error {
        WireError::NotRpc(_) if first_byte == Some(b'[') => {
            Refusal::new(Reason::RequestInvalid).hint("send one message in each POST: batches are not taken")
        }
        WireError::NotRpc(_) => Refusal::new(Reason::RequestInvalid).hint(error.to_string()),
        _ => Refusal::new(Reason::MessageMalformed).hint(error.to_string()),
    }
}

/// A stream of events that no proxy may hold back or keep.
pub(super) fn events(body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, EVENT_STREAM);
    headers.insert(CACHE_CONTROL, NO_STORE);
    headers.insert(X_ACCEL_BUFFERING, HeaderValue::from_static("no"));
    response
}

/// Whether a client would rather have a stream than a document: it names that first. Clients that take what comes name
/// JSON first.
pub(super) fn prefers_events(headers: &HeaderMap) -> bool {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok());
    accept.and_then(|accept| accept.split(',').next()).is_some_and(|first| first.trim() == "text/event-stream")
}

/// A message as the only event of a stream, with everything else of its answer. What is not a message stays as it is.
pub(super) async fn as_events(answer: Response<Body>) -> Response<Body> {
    if answer.status() != StatusCode::OK || answer.headers().get(CONTENT_TYPE) != Some(&JSON) {
        return answer;
    }
    let (parts, body) = answer.into_parts();
    // It is in memory already, and one message is one line.
    let Ok(document) = axum::body::to_bytes(body, usize::MAX).await else { return empty(StatusCode::BAD_GATEWAY) };
    let mut response = events(Body::from([b"event: message\ndata: ", document.as_ref(), b"\n\n"].concat()));
    *response.extensions_mut() = parts.extensions;
    for (name, value) in parts.headers.iter().filter(|(name, _)| **name != CONTENT_TYPE) {
        response.headers_mut().insert(name, value.clone());
    }
    response
}

/// A status and nothing else.
pub(super) fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    response
}

/// 405, naming what is allowed.
pub(super) fn method_not_allowed(allowed: &'static str) -> Response<Body> {
    let mut response = empty(StatusCode::METHOD_NOT_ALLOWED);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(allowed));
    response
}

/// A short text for people and probes.
pub(super) fn text(status: StatusCode, text: impl Into<Body>) -> Response<Body> {
    let mut response = Response::new(text.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response.headers_mut().insert(CACHE_CONTROL, NO_STORE);
    response
}
