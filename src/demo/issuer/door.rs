//! The door: which requests are answered at all.
//!
//! Decides by `Host` and `Origin`. Invariant: a page of the Internet that is open in somebody's browser
//! (by DNS rebinding or by a cross-site request) gets no answer; other pages of this machine do, because
//! browser-based MCP tools are such pages. Signing in takes our own page.

use std::sync::Arc;

use axum::extract::{Request, State as Extracted};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, CACHE_CONTROL, HOST,
    ORIGIN, REFERRER_POLICY, VARY, X_CONTENT_TYPE_OPTIONS,
};
use http::{HeaderMap, HeaderValue, Method, StatusCode};

use super::state::State;
use crate::limit;

pub(super) async fn guard(Extracted(state): Extracted<Arc<State>>, request: Request, next: Next) -> Response {
    let Some(_place) = state.place() else {
        return (StatusCode::SERVICE_UNAVAILABLE, "too many requests at once; try again").into_response();
    };
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or("");
    if !state.hosts.iter().any(|own| own.eq_ignore_ascii_case(host)) {
        return (StatusCode::MISDIRECTED_REQUEST, "this is the demo issuer; use the URL that it prints")
            .into_response();
    }
    let origin = request.headers().get(ORIGIN).cloned();
    let signing_in = request.method() == Method::POST && request.uri().path() == "/authorize";
    let allowed = origin.as_ref().is_none_or(|origin| {
        if signing_in { is_own(&state, origin) } else { is_own(&state, origin) || is_loopback(origin) }
    });
    if !allowed {
        return (StatusCode::FORBIDDEN, "requests of other sites are refused").into_response();
    }
    let mut response = if request.method() == Method::OPTIONS {
        preflight()
    } else {
        match tokio::time::timeout(limit::DEMO_REQUEST_TIMEOUT, next.run(request)).await {
            Ok(response) => response,
            Err(_) => StatusCode::REQUEST_TIMEOUT.into_response(),
        }
    };
    let headers = response.headers_mut();
    if let Some(origin) = origin.filter(|_| !signing_in) {
        headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin);
    }
    headers.insert(VARY, HeaderValue::from_static("origin"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    // With `no-referrer` browsers say `Origin: null` for our own form as well, and nobody could sign in.
    headers.insert(REFERRER_POLICY, HeaderValue::from_static("same-origin"));
    response
}

fn preflight() -> Response {
    let mut headers = HeaderMap::new();
    headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
    headers.insert(
        ACCESS_CONTROL_ALLOW_HEADERS,
        HeaderValue::from_static("authorization, content-type, mcp-protocol-version"),
    );
    (StatusCode::NO_CONTENT, headers).into_response()
}

fn is_own(state: &State, origin: &HeaderValue) -> bool {
    let own = |host: &String| origin.as_bytes().strip_prefix(b"http://") == Some(host.as_bytes());
    state.hosts.iter().any(own)
}

/// A page of this machine, whatever its port.
fn is_loopback(origin: &HeaderValue) -> bool {
    let Some(url) = origin.to_str().ok().and_then(|text| url::Url::parse(text).ok()) else { return false };
    matches!(url.scheme(), "http" | "https") && crate::egress::is_loopback(&url)
}
