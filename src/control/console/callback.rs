//! `GET /login/callback`: somebody comes back from the issuer.
//!
//! Decides whether they become a session. Invariants: the answer was asked for by this browser; ID token and access
//! token are one person's; whoever signs in gets a session that nobody knew before, and the one they had ends.

use std::net::IpAddr;
use std::sync::Arc;

use axum::Extension;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use http::header::{HeaderMap, HeaderValue, LOCATION, SET_COOKIE};

use super::login::{failed, pending};
use super::session::Use;
use super::visit::{Settings, query};
use super::{Console, cookie, not_here};
use crate::control::listener::Peer;
use crate::identity::Caller;
use crate::limit;
use crate::oauth::person::Returned;
use crate::outcome::Reason;
use crate::record::event::AdminNote;

/// The page that the issuer sends browsers to.
pub(super) async fn page(
    State(console): State<Arc<Console>>,
    Extension(Peer(peer)): Extension<Peer>,
    RawQuery(raw): RawQuery,
    headers: HeaderMap,
) -> Response {
    let Some(settings) = console.settings() else { return not_here() };
    // The issuer is asked each time: not for whoever has been refused too often, unless they are somebody's already.
    let known = cookie::read(&headers, cookie::SESSION, settings.is_secure());
    if known.and_then(|id| console.sessions.find(id, Use::Follow)).is_none()
        && console.operations.admits(None, peer).is_err()
    {
        let problem = "too much that was refused came from your address: wait a moment, and load this page again";
        return failed(&settings, StatusCode::TOO_MANY_REQUESTS, problem);
    }
    let mut response = match come_back(&console, &settings, raw.as_deref(), (&headers, peer)).await {
        Ok(response) => response,
        Err((status, problem)) => failed(&settings, status, &problem),
    };
    // Good for one try.
    if let Some(gone) = cookie::clear(cookie::LOGIN, settings.is_secure()) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}

async fn come_back(
    console: &Console,
    settings: &Settings,
    raw: Option<&str>,
    (headers, peer): (&HeaderMap, IpAddr),
) -> Result<Response, (StatusCode, String)> {
    let wrong = |problem: &str| (StatusCode::BAD_REQUEST, problem.to_owned());
    let Some(kept) = pending(console, settings, headers) else {
        return Err(wrong("this login was begun in another browser, or too long ago"));
    };
    let state = query(raw, "state").unwrap_or_default();
    if aws_lc_rs::constant_time::verify_slices_are_equal(state.as_bytes(), kept.state.as_bytes()).is_err() {
        return Err(wrong("this is the answer to another login than the one that this browser began last"));
    }
    if let Some(code) = query(raw, "error") {
        let code: String = code.chars().take(limit::HOST_SHOWN_CHARACTERS_MAX).collect();
        return Err(wrong(&format!("the issuer refuses: {code}")));
    }
    let code = query(raw, "code").ok_or_else(|| wrong("the issuer's answer has no code"))?;
    let issuer = query(raw, "iss");
    let returned = Returned { code: &code, issuer: issuer.as_deref(), nonce: &kept.nonce, verifier: &kept.verifier };
    let logged_in = console.provider.finish(&settings.sign_in(), returned).await;
    let logged_in = logged_in.map_err(|problem| {
        console.operations.knocked(Reason::TokenMissing, peer);
        (StatusCode::BAD_GATEWAY, problem)
    })?;
    let caller = console.authenticate(&logged_in.granted.access).await.map_err(|stop| {
        console.operations.knocked(stop.reason(), peer);
        let problem = format!("the issuer's access token is refused here: {stop} ({})", stop.reason().code());
        (StatusCode::FORBIDDEN, problem)
    })?;
    let token = caller.token();
    if token.subject.as_ref() != Some(&logged_in.subject) || token.issuer != settings.console.issuer {
        return Err((StatusCode::FORBIDDEN, "the issuer's ID token and access token are two people's".to_owned()));
    }
    let Some(person) = caller.persona().user.clone() else {
        return Err((StatusCode::FORBIDDEN, "nobody stands behind the issuer's access token".to_owned()));
    };
    if let Some(before) = cookie::read(headers, cookie::SESSION, settings.is_secure()) {
        console.sessions.end(before);
    }
    console.note(&caller, "sign_in").await;
    let id = console.sessions.begin(person.to_string(), logged_in.granted, caller);
    let session = cookie::set(cookie::SESSION, &id, settings.is_secure(), None);
    let page = HeaderValue::from_str(&settings.path(&kept.to)).ok();
    match (session, page) {
        (Some(session), Some(page)) => {
            Ok((StatusCode::SEE_OTHER, [(SET_COOKIE, session), (LOCATION, page)]).into_response())
        }
        _ => Err((StatusCode::INTERNAL_SERVER_ERROR, "the session cannot be begun".to_owned())),
    }
}

impl Console {
    /// Records that somebody signed in or out. They are told nothing of a record that cannot be written: whatever they
    /// do next is recorded as well, and refused where it has to be.
    pub(super) async fn note(&self, caller: &Caller, operation: &'static str) {
        let actor = super::super::actor::Actor::caller(caller.clone());
        let note = AdminNote {
            operation,
            object: "bailiwick/console",
            actor: &actor.name(),
            actor_kind: actor.kind(),
            brakes: false,
            client: actor.client(),
            outcome: "done",
            reason: None,
            rule: None,
            about: "",
            detail: "",
        };
        if let Err(failure) = self.operations.administered(&note, actor.who()).await {
            tracing::error!(%failure, operation, "a login is not on the record");
        }
    }
}
