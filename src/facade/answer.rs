//! How answers of this room look. None may be kept, and none shows where it was asked from.

use bytes::Bytes;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, LOCATION, PRAGMA, REFERRER_POLICY, RETRY_AFTER};
use http::{HeaderName, Response, StatusCode};
use maud::Markup;
use serde_json::{Value, json};

fn of(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    response
}

/// A document.
pub(super) fn json(status: StatusCode, body: &Value) -> Response<Bytes> {
    of(status, "application/json", body.to_string())
}

/// An error of OAuth, for a program.
pub(super) fn error(status: StatusCode, code: &str, description: &str) -> Response<Bytes> {
    json(status, &json!({ "error": code, "error_description": description }))
}

/// A page: it runs nothing, shows nothing of elsewhere, and is framed by nobody.
pub(super) fn page(status: StatusCode, markup: Markup) -> Response<Bytes> {
    // What a form may lead to is not named: browsers hold every redirect after it against that, and where a provider
    // sends people on the way is its own affair.
    const POLICY: &str = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; base-uri 'none'";
    let mut response = of(status, "text/html; charset=utf-8", markup.into_string());
    for (name, value) in [
        ("content-security-policy", POLICY),
        ("x-content-type-options", "nosniff"),
        ("x-frame-options", "DENY"),
        ("cross-origin-opener-policy", "same-origin"),
        ("x-robots-tag", "noindex"),
    ] {
        response.headers_mut().insert(HeaderName::from_static(name), HeaderValue::from_static(value));
    }
    // Not `no-referrer`: browsers then say `Origin: null` of our own form.
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

/// Sends the browser on, with GET.
pub(super) fn redirect(to: &str) -> Option<Response<Bytes>> {
    let mut response = of(StatusCode::SEE_OTHER, "text/plain; charset=utf-8", "");
    response.headers_mut().insert(LOCATION, HeaderValue::from_str(to).ok()?);
    response.headers_mut().insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    Some(response)
}

/// 404.
pub(super) fn absent() -> Response<Bytes> {
    of(StatusCode::NOT_FOUND, "text/plain; charset=utf-8", "not found\n")
}

/// 405.
pub(super) fn only(method: &'static str) -> Response<Bytes> {
    let mut response = of(StatusCode::METHOD_NOT_ALLOWED, "text/plain; charset=utf-8", "");
    response.headers_mut().insert(ALLOW, HeaderValue::from_static(method));
    response
}

/// 413.
pub(super) fn too_large() -> Response<Bytes> {
    error(StatusCode::PAYLOAD_TOO_LARGE, "invalid_request", "the body is too large or did not arrive")
}

/// 429.
pub(super) fn slow_down() -> Response<Bytes> {
    let mut response = error(StatusCode::TOO_MANY_REQUESTS, "temporarily_unavailable", "slow down");
    response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("60"));
    response
}
