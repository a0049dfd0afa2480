//! How answers to feeds look. Decides nothing else; none of them may be kept by anybody.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE};
use http::{Response, StatusCode};
use serde_json::json;

use crate::outcome::reason::Channel;
use crate::outcome::{Reason, Stop};

/// A status, and JSON where there is something to say.
pub(super) fn json(status: StatusCode, body: Option<&serde_json::Value>) -> Response<Bytes> {
    let bytes = body.map(|body| Bytes::from(body.to_string())).unwrap_or_default();
    let mut response = Response::new(bytes);
    *response.status_mut() = status;
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    if body.is_some() {
        response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    }
    response
}

/// The status of a stop.
pub(super) fn status(stop: &Stop) -> StatusCode {
    match stop {
        Stop::Failed(_) => StatusCode::SERVICE_UNAVAILABLE,
        Stop::Refused(refusal) => match refusal.reason {
            Reason::FeedRefused => StatusCode::UNAUTHORIZED,
            Reason::RateLimited => StatusCode::TOO_MANY_REQUESTS,
            Reason::BodyTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            reason if reason.channel() == Channel::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::BAD_REQUEST,
        },
    }
}

/// A stop in the words of OAuth, for whoever looks at a log of an identity provider.
pub(super) fn plain(stop: &Stop) -> Response<Bytes> {
    let error = if status(stop).is_server_error() { "temporarily_unavailable" } else { "invalid_request" };
    let body = json!({ "error": error, "error_description": described(stop) });
    with_headers(json(status(stop), Some(&body)))
}

/// What belongs to some statuses.
pub(super) fn with_headers(mut response: Response<Bytes>) -> Response<Bytes> {
    match response.status() {
        StatusCode::UNAUTHORIZED => {
            response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"feeds\""));
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("5"));
        }
        _ => {}
    }
    response
}

/// Reason and hint.
pub(super) fn described(stop: &Stop) -> String {
    match stop {
        Stop::Refused(refusal) => format!("{}: {}", refusal.reason.code(), refusal.hint),
        // Our own trouble is nobody else's business.
        Stop::Failed(failure) => format!("{}: {}", failure.reason.code(), failure.reason.hint()),
    }
}

/// There is no such feed: what is not configured does not exist.
pub(super) fn absent() -> Response<Bytes> {
    let mut response = json(StatusCode::NOT_FOUND, None);
    *response.body_mut() = Bytes::from_static(b"not found\n");
    response
}

/// 405.
pub(super) fn post_only() -> Response<Bytes> {
    let mut response = json(StatusCode::METHOD_NOT_ALLOWED, None);
    response.headers_mut().insert(ALLOW, HeaderValue::from_static("POST"));
    response
}

/// 429, before anything was looked at.
pub(super) fn slow_down() -> Response<Bytes> {
    with_headers(json(StatusCode::TOO_MANY_REQUESTS, None))
}
