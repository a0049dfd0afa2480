//! The way back from the provider.
//!
//! Invariants: only the browser that consented comes back, once; an answer that names another issuer is not the
//! provider's (RFC 9207); the code goes on to the one client that consent was given for, sealed to it, and is as
//! old as the login.

use bytes::Bytes;
use http::Response;
use http::header::HeaderMap;
use serde::{Deserialize, Serialize};

use super::{Desk, Facade, Moment, Parameters, Purpose, page, same};
use crate::limit;

/// A code of the provider's, for one client.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Code {
    pub(super) code: String,
    pub(super) redirect: String,
    pub(super) challenge: String,
    pub(super) name: String,
    pub(super) scope: String,
    /// What a person consented to the use of.
    pub(super) resource: String,
    pub(super) until: Moment,
}

impl Facade {
    /// Takes the provider's answer to the client.
    pub(super) fn come_back(&self, desk: &Desk<'_>, query: &str, headers: &HeaderMap) -> Response<Bytes> {
        const STALE: &str = "this answer is not for a login of this browser, or came too late: start again";
        let Some(told) = Parameters::read(query.as_bytes()) else { return page::refused("a parameter comes twice") };
        let Some(login) = self.login_of(desk, headers).filter(|login| login.is_agreed) else {
            return page::refused(STALE);
        };
        if !same(told.get("state").unwrap_or_default(), &login.nonce) {
            return page::refused(STALE);
        }
        if told.get("iss").is_some_and(|iss| iss != desk.config.issuer) {
            return page::refused("the answer is not that of the identity provider");
        }
        if let Some(error) = told.get("error") {
            return self.send_back(desk, &login, &[("error", known_error(error))]);
        }
        let Some(code) = told.get("code") else {
            return self.send_back(desk, &login, &[("error", "server_error")]);
        };
        let sealed = Code {
            code: code.to_owned(),
            redirect: login.redirect.clone(),
            challenge: login.challenge.clone(),
            name: login.name.clone(),
            scope: login.scope.clone(),
            resource: login.resource.clone(),
            until: Moment::now().after(limit::FACADE_CODE_LIFE),
        };
        match self.seal(Purpose::Code, (desk, &login.client), desk.nobody(login.since), &sealed) {
            Some(code) => self.send_back(desk, &login, &[("code", &code)]),
            None => self.send_back(desk, &login, &[("error", "server_error")]),
        }
    }
}

/// The codes of RFC 6749 and OpenID Connect; whatever else a provider says is its own trouble.
fn known_error(error: &str) -> &str {
    const KNOWN: [&str; 9] = [
        "access_denied",
        "invalid_request",
        "unauthorized_client",
        "unsupported_response_type",
        "invalid_scope",
        "temporarily_unavailable",
        "login_required",
        "consent_required",
        "interaction_required",
    ];
    KNOWN.into_iter().find(|known| *known == error).unwrap_or("server_error")
}
