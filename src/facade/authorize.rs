//! The way to the provider: what a client asks for, our page, and the consent of the person in front of it.
//!
//! Invariants: a client that is not known, or would be sent elsewhere than it registered, gets a page and no redirect,
//! and so does everything that is wrong before a person has consented; consent is for one client, one place and one
//! browser, once.

use bytes::Bytes;
use http::header::{HeaderMap, SET_COOKIE};
use http::{Response, StatusCode};
use serde::{Deserialize, Serialize};
use url::Url;

use super::{Desk, Facade, Moment, Parameters, Purpose, answer, client, cookie, page, random, same};
use crate::ids::RevocationEpoch;
use crate::limit;

/// A login under way, kept in the browser that it belongs to.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Login {
    /// What comes back with the form, and later from the provider.
    pub(super) nonce: String,
    pub(super) is_agreed: bool,
    /// The client, as it is recorded.
    pub(super) client: String,
    pub(super) name: String,
    pub(super) redirect: String,
    pub(super) state: Option<String>,
    pub(super) challenge: String,
    /// What the provider is asked for: what the page shows, and no more than that is ever asked for later.
    pub(super) scope: String,
    pub(super) resource: String,
    pub(super) until: Moment,
    /// The epoch at which it was begun: whoever is taken back since does not finish it.
    #[serde(skip)]
    pub(super) since: RevocationEpoch,
}

impl Facade {
    /// Shows who asks for what; nobody has agreed to anything yet.
    pub(super) fn authorize(&self, desk: &Desk<'_>, query: &str) -> Response<Bytes> {
        let login = match self.login(desk, query) {
            Ok(login) => login,
            Err(problem) => return page::refused(problem),
        };
        let shown = page::Asked {
            client: &login.name,
            redirect: &login.redirect,
            issuer: desk.config.alias.as_str(),
            scope: &login.scope,
            resource: desk.narrowed(&login.resource),
            gateway: &desk.whole(),
            action: &format!("{}/consent", desk.issuer),
            nonce: &login.nonce,
        };
        self.with_login(desk, &login, answer::page(StatusCode::OK, page::consent(&shown)))
    }

    fn login(&self, desk: &Desk<'_>, query: &str) -> Result<Login, &'static str> {
        let asked = Parameters::read(query.as_bytes()).ok_or("a parameter comes twice")?;
        let id = asked.get("client_id").ok_or("it names no client")?;
        let client = self
            .client(desk, id)
            .ok_or("this client is not registered here, or not any more: remove its saved login and try again")?;
        let redirect = asked.get("redirect_uri").ok_or("it names no redirect_uri")?;
        if !client.may_backto(redirect) {
            return Err("the redirect_uri is not one that the client registered");
        }
        if asked.get("response_type") != Some("code") || asked.get("response_mode").is_some_and(|mode| mode != "query")
        {
            return Err("only response_type=code is supported");
        }
        let challenge = asked.get("code_challenge").unwrap_or_default();
        if asked.get("code_challenge_method") != Some("S256") || challenge.len() != limit::PKCE_S256_CHARACTERS {
            return Err("PKCE with S256 is required");
        }
        let own = desk.whole();
        let resource = asked.get("resource").unwrap_or(&own);
        if !desk.serves(resource) {
            return Err("the resource is not one of this gateway");
        }
        let bounded = |name: &str| match asked.get(name) {
            Some(value) if value.len() > limit::FACADE_PARAMETER_BYTES_MAX => Err("state or scope is too long"),
            value => Ok(value.map(str::to_owned)),
        };
        Ok(Login {
            nonce: random().ok_or("try again")?,
            is_agreed: false,
            client: client::short(id),
            name: client.name,
            redirect: redirect.to_owned(),
            state: bounded("state")?,
            challenge: challenge.to_owned(),
            scope: desk.scopes(&bounded("scope")?.unwrap_or_default()),
            resource: resource.to_owned(),
            until: Moment::now().after(limit::FACADE_LOGIN_LIFE),
            since: desk.epoch,
        })
    }

    /// Takes the answer of the page.
    pub(super) fn consent(&self, desk: &Desk<'_>, body: &[u8], headers: &HeaderMap) -> Response<Bytes> {
        const STALE: &str = "this page is not of this browser's login, or too old: start again";
        let Some(form) = Parameters::read(body) else { return page::refused("a parameter comes twice") };
        let Some(login) = self.login_of(desk, headers).filter(|login| !login.is_agreed) else {
            return page::refused(STALE);
        };
        if !same(form.get("nonce").unwrap_or_default(), &login.nonce) {
            return page::refused(STALE);
        }
        if form.get("answer") != Some("allow") {
            return self.send_back(desk, &login, &[("error", "access_denied")]);
        }
        let Some(places) = self.grounds.places(&desk.config.alias) else {
            return page::refused("the identity provider cannot be reached now: try again");
        };
        let Some(nonce) = random() else { return page::refused("try again") };
        let to = onward(desk, places.authorize, &login, &nonce);
        let agreed = Login { nonce, is_agreed: true, ..login };
        let response = answer::redirect(to.as_str()).unwrap_or_else(|| page::refused("try again"));
        self.with_login(desk, &agreed, response)
    }

    /// The login that this browser has begun.
    pub(super) fn login_of(&self, desk: &Desk<'_>, headers: &HeaderMap) -> Option<Login> {
        let sealed = cookie::read(headers, desk.is_secure)?;
        let (login, since): (Login, _) = self.open(Purpose::Login, (desk, ""), sealed)?;
        let is_good = login.until > Moment::now() && self.holds(desk, &login.client, since);
        is_good.then_some(Login { since, ..login })
    }

    fn with_login(&self, desk: &Desk<'_>, login: &Login, mut response: Response<Bytes>) -> Response<Bytes> {
        let sealed = self.seal(Purpose::Login, (desk, ""), desk.nobody(login.since), login);
        let Some(cookie) = sealed.and_then(|sealed| cookie::set(&sealed, desk.is_secure)) else {
            return page::refused("what the client asks for is too long");
        };
        response.headers_mut().insert(SET_COOKIE, cookie);
        response
    }

    /// Ends a login: the browser goes back to the client, which learns who answered.
    pub(super) fn send_back(&self, desk: &Desk<'_>, login: &Login, told: &[(&str, &str)]) -> Response<Bytes> {
        let Ok(mut to) = Url::parse(&login.redirect) else { return page::refused("start again") };
        to.query_pairs_mut()
            .extend_pairs(told)
            .extend_pairs(login.state.iter().map(|state| ("state", state)))
            .append_pair("iss", &desk.issuer);
        let mut response = answer::redirect(to.as_str()).unwrap_or_else(|| page::refused("start again"));
        if let Some(cookie) = cookie::set("", desk.is_secure) {
            response.headers_mut().insert(SET_COOKIE, cookie);
        }
        response
    }
}

/// Where the provider logs the person in, with the administrator's client and the PKCE challenge of the real one.
fn onward(desk: &Desk<'_>, mut to: Url, login: &Login, nonce: &str) -> Url {
    let callback = desk.callback();
    {
        let mut pairs = to.query_pairs_mut();
        pairs
            .append_pair("response_type", "code")
            .append_pair("client_id", &desk.registration.client_id)
            .append_pair("redirect_uri", &callback)
            .append_pair("state", nonce)
            .append_pair("code_challenge", &login.challenge)
            .append_pair("code_challenge_method", "S256");
        if !login.scope.is_empty() {
            pairs.append_pair("scope", &login.scope);
        }
        if desk.registration.sends_resource {
            pairs.append_pair("resource", &login.resource);
        }
    }
    to
}
