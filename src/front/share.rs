//! What a web page of an allowed origin may send and read. Whether it is allowed was decided before.

use axum::body::Body;
use http::header::{ACCESS_CONTROL_ALLOW_ORIGIN, HeaderMap, HeaderValue, VARY};
use http::{Response, StatusCode};

use super::answer;

/// The answer to a browser that asks what it may send: whatever it named, because the origin is allowed.
pub(super) fn preflight(request_headers: &HeaderMap) -> Response<Body> {
    use http::header::{
        ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_MAX_AGE,
        ACCESS_CONTROL_REQUEST_HEADERS,
    };
    let mut response = answer::empty(StatusCode::NO_CONTENT);
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST, DELETE"));
    if let Some(named) = request_headers.get(ACCESS_CONTROL_REQUEST_HEADERS) {
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, named.clone());
    }
    headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("600"));
    response
}

/// Lets a web page of an allowed origin read the response.
pub(super) fn share(headers: &mut HeaderMap, origin: HeaderValue) {
    use http::header::ACCESS_CONTROL_EXPOSE_HEADERS;
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    headers.insert(
        ACCESS_CONTROL_EXPOSE_HEADERS,
        HeaderValue::from_static("mcp-session-id, www-authenticate, retry-after, dpop-nonce"),
    );
    headers.insert(VARY, HeaderValue::from_static("origin"));
}
