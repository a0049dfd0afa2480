//! Signing in and out: the page, the way to the issuer, and the end of a session.
//!
//! Decides what a browser keeps while it is away: a sealed note with `state`, `nonce` and verifier, so that an answer
//! is good in the browser that asked for it and in no other, and nobody who is not signed in fills anything here.
//! Invariant: wherever somebody is sent afterwards is one of our own pages.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use maud::html;
use serde::{Deserialize, Serialize};

use super::visit::{Posted, Settings, query};
use super::{Console, cookie, layout, not_here};
use crate::identity::now_s;
use crate::ids::{Digest, PrincipalKey};
use crate::limit;

/// What handles of this purpose are sealed for.
const PURPOSE: &str = "console login";

/// What a browser keeps for us between the first step of a login and the last.
#[derive(Serialize, Deserialize)]
pub(super) struct Pending {
    pub(super) state: String,
    pub(super) nonce: String,
    pub(super) verifier: String,
    /// The page of ours that was wanted.
    pub(super) to: String,
    begun_at: i64,
}

/// `GET /login`: says where one signs in, and leaves going there to whoever reads it.
pub(super) async fn page(State(console): State<Arc<Console>>, RawQuery(raw): RawQuery) -> Response {
    let Some(settings) = console.settings() else { return not_here() };
    let to = wanted(raw.as_deref());
    ask_to_sign_in(&settings, &to, None)
}

/// The page that asks somebody to sign in.
pub(super) fn ask_to_sign_in(settings: &Settings, to: &str, because: Option<&str>) -> Response {
    let start = settings.path(&format!("/login/start?to={}", encoded(to)));
    let body = html! {
        @if let Some(because) = because { p.notice role="status" { (because) } }
        p { "This console shows what the gateway at " b { (settings.name()) } " lets through, and why." }
        p { a.button href=(start) { "Sign in with " (settings.console.issuer) } }
        p.quiet { "What is looked at or changed here is on the record with your name, your own access aside." }
    };
    layout::outside(settings, StatusCode::OK, "Sign in", &body)
}

/// `GET /login/start`: to the issuer.
pub(super) async fn start(State(console): State<Arc<Console>>, RawQuery(raw): RawQuery) -> Response {
    let Some(settings) = console.settings() else { return not_here() };
    let to = wanted(raw.as_deref());
    let fresh = query(raw.as_deref(), "fresh").as_deref() == Some("1");
    let begun = match console.provider.begin(&settings.sign_in(), fresh).await {
        Ok(begun) => begun,
        Err(problem) => return failed(&settings, StatusCode::BAD_GATEWAY, &problem),
    };
    let pending = Pending { state: begun.state, nonce: begun.nonce, verifier: begun.verifier, to, begun_at: now_s() };
    let sealed = serde_json::to_vec(&pending).ok();
    let sealed = sealed.and_then(|content| console.sealer.seal(PURPOSE, nobody(), &content).ok());
    let kept = sealed.and_then(|sealed| {
        cookie::set(cookie::LOGIN, &sealed, settings.is_secure(), Some(limit::CONSOLE_LOGIN_AGE_MAX))
    });
    match (kept, HeaderValue::from_str(begun.page.as_str())) {
        (Some(kept), Ok(page)) => (StatusCode::SEE_OTHER, [(SET_COOKIE, kept), (LOCATION, page)]).into_response(),
        _ => failed(&settings, StatusCode::INTERNAL_SERVER_ERROR, "the login cannot be begun"),
    }
}

/// `POST /logout`.
pub(super) async fn logout(posted: Posted) -> Response {
    let visit = &posted.visit;
    if let Some(id) = &visit.cookie {
        visit.console.sessions.end(id);
    }
    visit.console.note(&visit.caller, "sign_out").await;
    let mut response =
        ask_to_sign_in(&visit.settings, "/", Some("You are signed out here. Your issuer may still know you."));
    if let Some(gone) = cookie::clear(cookie::SESSION, visit.settings.is_secure()) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}

/// What this browser kept, if it is ours and not too old.
pub(super) fn pending(console: &Console, settings: &Settings, headers: &HeaderMap) -> Option<Pending> {
    let sealed = cookie::read(headers, cookie::LOGIN, settings.is_secure())?;
    let content = console.sealer.open(PURPOSE, nobody(), sealed)?;
    let pending: Pending = serde_json::from_slice(&content).ok()?;
    is_current(pending.begun_at, now_s()).then_some(pending)
}

/// Whether a login that was begun then may still be finished.
fn is_current(begun_at: i64, now: i64) -> bool {
    let age_max = i64::try_from(limit::CONSOLE_LOGIN_AGE_MAX.as_secs()).unwrap_or_default();
    now.saturating_sub(begun_at) <= age_max
}

/// A login that came to nothing.
pub(super) fn failed(settings: &Settings, status: StatusCode, problem: &str) -> Response {
    let body = html! {
        p.problem role="alert" { (super::text::shown(problem)) }
        p { a.button href=(settings.path("/login")) { "Try again" } }
    };
    layout::outside(settings, status, "You are not signed in", &body)
}

/// The page that is wanted afterwards.
fn wanted(raw: Option<&str>) -> String {
    query(raw, "to").filter(|to| is_own(to)).unwrap_or_else(|| "/".to_owned())
}

/// Whether that is a path of ours, which no browser reads as another site's.
pub(super) fn is_own(path: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/?&=%._~:+-*".contains(&byte);
    path.starts_with('/')
        && !path.starts_with("//")
        && path.len() <= limit::REVOCATION_VALUE_BYTES_MAX
        && path.bytes().all(plain)
}

pub(super) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// Whoever begins a login is nobody yet.
fn nobody() -> PrincipalKey {
    PrincipalKey(Digest::sha256(PURPOSE.as_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_finished_in_time_or_begun_again() {
        let age_max = i64::try_from(limit::CONSOLE_LOGIN_AGE_MAX.as_secs()).unwrap();
        assert!(is_current(1_000, 1_000 + age_max) && !is_current(1_000, 1_001 + age_max));
    }

    #[test]
    fn only_a_page_of_ours_is_wanted_afterwards() {
        for good in ["/", "/log?subject=user%3Acorp%2Fann", "/revocations/17/lift"] {
            assert!(is_own(good), "{good}");
        }
        let long = format!("/{}", "x".repeat(limit::REVOCATION_VALUE_BYTES_MAX));
        for bad in ["", "log", "//evil.example", "/\\evil.example", "https://evil.example", "/a\r\nb", "/a b", &long] {
            assert!(!is_own(bad), "{bad}");
        }
    }
}
