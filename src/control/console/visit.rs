//! Somebody who is signed in looks at a page, or sends one of its forms.
//!
//! Decides who that is, and whether a form came from one of our own pages. Refuses to know what it orders. Invariant: a
//! [`Visit`] exists only for a session whose token holds at this moment; a [`Posted`] only with the session's CSRF
//! token, from our own origin as the browser says it.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts};
use axum::response::{IntoResponse as _, Response};
use http::header::{HeaderMap, HeaderName, HeaderValue, LOCATION, ORIGIN, SET_COOKIE};
use http::request::Parts;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};

use super::session::{Session, Use};
use super::{Console, cookie, layout, login, not_here};
use crate::config::{AdminConfig, ConsoleConfig, IssuerConfig};
use crate::identity::Caller;
use crate::limit;
pub(super) use crate::oauth::browser::query;
use crate::oauth::person::SignIn;
use crate::outcome::{Reason, Stop};
use crate::policy::AdminOperation;

const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// What the files say of the console.
#[derive(Clone)]
pub(super) struct Settings {
    pub(super) admin: AdminConfig,
    pub(super) console: ConsoleConfig,
    issuer: Arc<IssuerConfig>,
    allow_loopback: bool,
    /// What browsers see before every path.
    base: String,
}

/// A page that somebody looks at.
pub(super) struct Visit {
    pub(super) console: Arc<Console>,
    pub(super) settings: Settings,
    pub(super) session: Arc<Session>,
    pub(super) caller: Caller,
    pub(super) cookie: Option<String>,
    /// The query, still encoded.
    pub(super) query: Option<String>,
}

/// A form of ours that somebody sent.
pub(super) struct Posted {
    pub(super) visit: Visit,
    fields: Vec<(String, String)>,
}

impl Console {
    /// What the files say of the console; nothing where they have none.
    pub(super) fn settings(&self) -> Option<Settings> {
        let config = self.operations.config()?;
        let admin = config.admin.clone()?;
        let console = admin.console.clone()?;
        let base = format!("{}/admin", admin.public_url.path().trim_end_matches('/'));
        let issuer = config.issuers.iter().find(|issuer| issuer.alias == console.issuer).cloned()?;
        // As for its keys: what may listen on other interfaces never talks to an issuer on this machine.
        let allow_loopback = config.gateway.listen.ip().is_loopback();
        Some(Settings { admin, console, issuer, allow_loopback, base })
    }
}

impl Settings {
    /// Where people sign in, and what for.
    pub(super) fn sign_in(&self) -> SignIn {
        SignIn {
            issuer: Arc::clone(&self.issuer),
            client_id: self.console.client_id.clone(),
            client_secret: self.console.client_secret.clone(),
            redirect: format!("{}/login/callback", self.admin.resource()),
            scopes: self.console.scopes.clone(),
            resource: Some(self.admin.resource()),
            acr: self.admin.acr.clone(),
            allow_loopback: self.allow_loopback,
        }
    }

    /// The address of a page, as browsers see it.
    pub(super) fn path(&self, page: &str) -> String {
        format!("{}{page}", self.base)
    }

    /// Whether browsers come over TLS.
    pub(super) fn is_secure(&self) -> bool {
        self.admin.public_url.scheme() == "https"
    }

    /// What the gateway is called here.
    pub(super) fn name(&self) -> &str {
        self.admin.public_url.host_str().unwrap_or("this gateway")
    }
}

impl FromRequestParts<Arc<Console>> for Visit {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, console: &Arc<Console>) -> Result<Self, Response> {
        let Some(settings) = console.settings() else { return Err(not_here()) };
        let page = parts.uri.path_and_query().map_or("/", |path| path.as_str()).to_owned();
        let page = if login::is_own(&page) { page } else { "/".to_owned() };
        let id = cookie::read(&parts.headers, cookie::SESSION, settings.is_secure()).map(str::to_owned);
        let how = if parts.uri.path() == super::STREAM { Use::Follow } else { Use::Click };
        let Some(session) = id.as_deref().and_then(|id| console.sessions.find(id, how)) else {
            return Err(unknown(&settings, &parts.headers, &page, id.is_some()));
        };
        let caller = match session.caller(console).await {
            Ok(caller) => caller,
            Err(stop) => return Err(fallen(console, &settings, &stop, id.as_deref(), &page)),
        };
        let query = parts.uri.query().map(str::to_owned);
        Ok(Self { console: Arc::clone(console), settings, session, caller, cookie: id, query })
    }
}

impl FromRequest<Arc<Console>> for Posted {
    type Rejection = Response;

    async fn from_request(request: Request<Body>, console: &Arc<Console>) -> Result<Self, Response> {
        let (mut parts, body) = request.into_parts();
        let visit = Visit::from_request_parts(&mut parts, console).await?;
        if !is_from_our_page(&parts.headers) {
            return Err(visit.foreign());
        }
        let collected = Limited::new(body, limit::CONSOLE_FORM_BYTES_MAX).collect();
        let Ok(Ok(body)) = tokio::time::timeout(limit::BODY_READ_TIMEOUT, collected).await else {
            return Err(visit.problem(StatusCode::BAD_REQUEST, "the form is too long, or did not arrive"));
        };
        let fields: Vec<(String, String)> = url::form_urlencoded::parse(&body.to_bytes()).into_owned().collect();
        let posted = Self { visit, fields };
        if !posted.visit.session.is_own(&posted.field("csrf")) {
            return Err(posted.visit.foreign());
        }
        Ok(posted)
    }
}

impl Posted {
    /// The names of what was filled in.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.fields.iter().map(|(name, _)| name.as_str())
    }

    /// What was filled in; nothing where it comes twice.
    pub(super) fn field(&self, name: &str) -> String {
        let mut found = self.fields.iter().filter(|(own, _)| own == name);
        match (found.next(), found.next()) {
            (Some((_, value)), None) => value.trim().to_owned(),
            _ => String::new(),
        }
    }
}

impl Visit {
    /// A value of the query; nothing where it comes twice.
    pub(super) fn asked(&self, name: &str) -> Option<String> {
        query(self.query.as_deref(), name).map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
    }

    /// Whether the rules let them; what they do is decided again, and recorded, when they do it.
    pub(super) fn may(&self, operation: AdminOperation) -> bool {
        self.console.operations.authorize(&self.caller, operation).is_ok()
    }

    /// A page that says what is wrong.
    pub(super) fn problem(&self, status: StatusCode, problem: &str) -> Response {
        let body = maud::html! { p.problem role="alert" { (super::text::shown(problem)) } };
        layout::inside(self, status, "That cannot be done", "", &body)
    }

    fn foreign(&self) -> Response {
        self.problem(
            StatusCode::FORBIDDEN,
            "this form did not come from a page of this console, or from one of an earlier session: open the page again",
        )
    }
}

/// Whether a browser says that one of our own pages sent this. The listener has refused every foreign `Origin`; a
/// request that carries neither header comes from no browser of these years.
fn is_from_our_page(headers: &HeaderMap) -> bool {
    match headers.get(FETCH_SITE) {
        Some(site) => site.as_bytes() == b"same-origin",
        None => headers.contains_key(ORIGIN),
    }
}

/// Whether another site had the browser fetch this.
pub(super) fn is_foreign_fetch(headers: &HeaderMap) -> bool {
    headers.get(FETCH_SITE).is_some_and(|site| !matches!(site.as_bytes(), b"same-origin" | b"none"))
}

/// Nobody is signed in: they are asked to, and come back to the page that they wanted.
fn unknown(settings: &Settings, headers: &HeaderMap, page: &str, had_one: bool) -> Response {
    let to = format!("/login?to={}", login::encoded(page));
    let Ok(location) = HeaderValue::from_str(&settings.path(&to)) else { return not_here() };
    // A script cannot follow to another site; it loads the page anew.
    let mut response = if headers.contains_key("hx-request") {
        (StatusCode::UNAUTHORIZED, [(HeaderName::from_static("hx-redirect"), location)]).into_response()
    } else {
        (StatusCode::SEE_OTHER, [(LOCATION, location)]).into_response()
    };
    if had_one && let Some(gone) = cookie::clear(cookie::SESSION, settings.is_secure()) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}

/// They are nobody any more, or nobody can tell.
fn fallen(console: &Console, settings: &Settings, stop: &Stop, id: Option<&str>, page: &str) -> Response {
    if matches!(stop, Stop::Failed(_)) || stop.reason() == Reason::RateLimited {
        let problem = format!("nobody can tell now who you are: {stop} ({})", stop.reason().code());
        return login::failed(settings, StatusCode::SERVICE_UNAVAILABLE, &problem);
    }
    if let Some(id) = id {
        console.sessions.end(id);
    }
    let because = match stop.reason() {
        Reason::TokenExpired => "Your login has ended.".to_owned(),
        reason => format!("Your login holds no more: {stop} ({}).", reason.code()),
    };
    let mut response = login::ask_to_sign_in(settings, page, Some(&because));
    *response.status_mut() = StatusCode::UNAUTHORIZED;
    if let Some(gone) = cookie::clear(cookie::SESSION, settings.is_secure()) {
        response.headers_mut().append(SET_COOKIE, gone);
    }
    response
}
