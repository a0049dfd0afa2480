//! The administrators' listener: a door for people and programs elsewhere, with a token for it.
//!
//! Decides what a request is before anything of it is looked at: `Host` and `Origin`, then who sends it, then the
//! path. Refuses to know what the operations do. Invariants: a token for MCP opens nothing here; whoever was not
//! authenticated is told where to get a token and what the API is, which is no secret, and nothing of this gateway.
//!
//! Everything is below the resource, `<public_url>/admin`, and answers also where a proxy has taken that away: the API
//! below [`routes::API`], and pages for people below `/` ([`Administrators::with_pages`]), which bring a login of their
//! own.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use axum::Router;
use axum::body::Body;
use axum::response::IntoResponse as _;
use http::header::{
    ACCESS_CONTROL_ALLOW_ORIGIN, ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, RETRY_AFTER, WWW_AUTHENTICATE,
    X_CONTENT_TYPE_OPTIONS,
};
use http::{Method, Request, Response, StatusCode, Uri};
use tower::ServiceExt as _;

use super::actor::Actor;
use super::operations::Operations;
use super::{problem, routes};
use crate::config::{AdminConfig, Config, ScopeMode};
use crate::front::{Answers, Guard, Protected, RequestBody, bearer, client_address, quotable};
use crate::limit;
use crate::outcome::reason::Channel;
use crate::outcome::{Reason, Refusal, Stop};

const WELL_KNOWN: &str = "/.well-known/oauth-protected-resource";
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");
const JSON: HeaderValue = HeaderValue::from_static("application/json");

/// What answers administrators.
pub struct Administrators {
    operations: Arc<dyn Operations>,
    api: Router,
    pages: Router,
    outside: ArcSwapOption<Outside>,
}

/// From where a page is asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Peer(pub(super) IpAddr);

/// What one configuration says about the outside.
struct Outside {
    config: Arc<Config>,
    admin: AdminConfig,
    guard: Guard,
    /// The path of the resource: what a proxy may or may not take away.
    base: String,
}

impl Administrators {
    /// The API alone.
    #[must_use]
    pub fn new(operations: Arc<dyn Operations>) -> Self {
        let api = routes::router(&operations);
        let pages = Router::new()
            .fallback(async || problem::problem(StatusCode::NOT_FOUND, "target_unknown", "the API is below /api/v1"));
        Self { operations, api, pages, outside: ArcSwapOption::empty() }
    }

    /// With pages for people at every path that is not the API's. Their requests have passed `Host` and `Origin` and
    /// nothing else: who sends them is theirs to find out.
    #[must_use]
    pub fn with_pages(self, pages: Router) -> Self {
        Self { pages, ..self }
    }

    async fn answered(&self, mut request: Request<Body>, peer: IpAddr) -> Response<Body> {
        let Some(outside) = self.outside() else {
            let refusal = Refusal::new(Reason::ShuttingDown).hint("the files have no [admin] any more");
            return problem::refused(&refusal);
        };
        let peer = client_address(peer, request.headers(), &outside.config.gateway.trusted_proxies);
        if let Err(reason) = outside.guard.check(request.uri(), request.headers()) {
            self.operations.knocked(reason, peer);
            return problem::refused(&Refusal::new(reason));
        }
        if let Some(response) = outside.well_known(&request) {
            return response;
        }
        let Some(uri) = outside.relative(request.uri()) else {
            return problem::refused(&Refusal::new(Reason::RequestInvalid));
        };
        let below_api = uri.path().strip_prefix(routes::API).filter(|rest| rest.is_empty() || rest.starts_with('/'));
        let Some(path) = below_api.map(str::to_owned) else {
            *request.uri_mut() = uri;
            request.extensions_mut().insert(Peer(peer));
            return answer(&self.pages, request).await;
        };
        if path == routes::DOCUMENT_PATH && *request.method() == Method::GET {
            return routes::document().await;
        }
        let bearer = bearer(request.headers());
        let challenged = |stop: Stop| challenged(problem::stopped(&stop), &stop, Some(&outside.config));
        if let Err(refusal) = self.operations.admits(bearer, peer) {
            return challenged(refusal.into());
        }
        let caller = match self.operations.authenticate(bearer).await {
            Ok(caller) => caller,
            Err(stop) => {
                self.operations.knocked(stop.reason(), peer);
                return challenged(stop);
            }
        };
        let Some(uri) = with_path(&uri, if path.is_empty() { "/" } else { &path }) else {
            return problem::refused(&Refusal::new(Reason::RequestInvalid));
        };
        *request.uri_mut() = uri;
        request.extensions_mut().insert(Actor::caller(caller));
        answer(&self.api, request).await
    }

    /// What the configuration in force says; found out again only when that changed.
    fn outside(&self) -> Option<Arc<Outside>> {
        let config = self.operations.config()?;
        let known = self.outside.load_full().filter(|known| Arc::ptr_eq(&known.config, &config));
        if known.is_some() {
            return known;
        }
        let fresh = Outside::new(config).map(Arc::new);
        self.outside.store(fresh.clone());
        fresh
    }
}

impl Answers for Administrators {
    async fn answer(self: Arc<Self>, request: Request<RequestBody>, peer: IpAddr) -> Response<Body> {
        let mut response = self.answered(request.map(Body::new), peer).await;
        let headers = response.headers_mut();
        // What one administrator sees is nobody else's, and is what it says it is.
        headers.entry(CACHE_CONTROL).or_insert(NO_STORE);
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        response
    }

    fn connections_max(&self) -> usize {
        limit::ADMIN_CONNECTIONS_MAX
    }

    fn shutdown_grace(&self) -> Duration {
        self.operations.config().map_or(Duration::ZERO, |config| config.gateway.shutdown_grace)
    }
}

async fn answer(router: &Router, request: Request<Body>) -> Response<Body> {
    match router.clone().oneshot(request).await {
        Ok(response) => response,
        Err(never) => match never {},
    }
}

impl Outside {
    fn new(config: Arc<Config>) -> Option<Self> {
        let admin = config.admin.clone()?;
        let guard = Guard::for_own_pages(admin.listen, &admin.public_url, &admin.allowed_hosts);
        let base = format!("{}/admin", admin.public_url.path().trim_end_matches('/'));
        Some(Self { config, admin, guard, base })
    }

    /// The address without the resource's own path, for whoever stands behind no proxy that takes it away.
    fn relative(&self, uri: &Uri) -> Option<Uri> {
        let rest = uri.path().strip_prefix(self.base.as_str());
        match rest {
            Some("") => with_path(uri, "/"),
            Some(rest) if rest.starts_with('/') => with_path(uri, rest),
            _ => Some(uri.clone()),
        }
    }

    /// RFC 9728, readable by any web page: it is public and the same for everybody.
    fn well_known(&self, request: &Request<Body>) -> Option<Response<Body>> {
        let rest = request.uri().path().strip_prefix(WELL_KNOWN)?;
        if !matches!(rest, "" | "/" | "/admin") && rest != self.base {
            return Some(problem::problem(StatusCode::NOT_FOUND, "target_unknown", "this is about another resource"));
        }
        let mut response = match *request.method() {
            Method::GET | Method::HEAD => {
                let issuers = crate::front::authorization_servers(&self.config);
                let resource = self.admin.resource();
                let scopes = scopes(&self.config);
                let document = Protected {
                    resource: &resource,
                    issuers: &issuers,
                    scopes: &scopes,
                    name: "Bailiwick administration",
                    bound: None,
                };
                ([(CONTENT_TYPE, JSON)], document.document()).into_response()
            }
            _ => {
                let mut response = problem::problem(StatusCode::METHOD_NOT_ALLOWED, "method_unknown", "this is read");
                response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
                response
            }
        };
        response.headers_mut().insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        Some(response)
    }
}

/// The same with another path.
fn with_path(uri: &Uri, path: &str) -> Option<Uri> {
    let text = uri.query().map_or_else(|| path.to_owned(), |query| format!("{path}?{query}"));
    text.parse().ok()
}

/// The scopes that some operation of the gateway's own needs.
fn scopes(config: &Config) -> Vec<String> {
    let rules = config.issuers.iter().filter_map(|issuer| match &issuer.scopes {
        ScopeMode::Required(rules) => Some(rules),
        ScopeMode::Ignored => None,
    });
    let mut scopes: Vec<String> = Vec::new();
    for rule in rules.flatten().filter(|rule| rule.object.starts_with("bailiwick/")) {
        if !scopes.contains(&rule.scope) {
            scopes.push(rule.scope.clone());
        }
    }
    scopes
}

/// The response with what HTTP wants beside it: where to get a token, or another one, or how long to wait.
pub(super) fn challenged(mut response: Response<Body>, stop: &Stop, config: Option<&Arc<Config>>) -> Response<Body> {
    let seconds = match stop.reason().channel() {
        Channel::TooManyRequests => Some(1),
        Channel::Unavailable => Some(2),
        _ => None,
    };
    if let Some(seconds) = seconds {
        response.headers_mut().insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
    if let Some(admin) = config.and_then(|config| config.admin.as_ref())
        && let Some(value) = challenge(admin, stop)
        && let Ok(value) = HeaderValue::from_str(&value)
    {
        response.headers_mut().insert(WWW_AUTHENTICATE, value);
    }
    response
}

/// The value of `WWW-Authenticate`; a step-up is asked for as RFC 9470 says.
fn challenge(admin: &AdminConfig, stop: &Stop) -> Option<String> {
    let url = &admin.public_url;
    let (origin, path) = (url.origin().ascii_serialization(), url.path().trim_end_matches('/'));
    let mut value = format!("Bearer resource_metadata=\"{}\"", quotable(&format!("{origin}{WELL_KNOWN}{path}/admin")));
    match (stop.reason(), stop.reason().channel()) {
        (Reason::InsufficientUserAuthentication, _) => {
            value.push_str(", error=\"insufficient_user_authentication\"");
            if !admin.acr.is_empty() {
                value.push_str(&format!(", acr_values=\"{}\"", quotable(&admin.acr.join(" "))));
            }
            value.push_str(&format!(", max_age=\"{}\"", admin.auth_age_max.as_secs()));
        }
        (Reason::TokenMissing, _) => {}
        (_, Channel::Unauthorized) => value.push_str(", error=\"invalid_token\""),
        (_, Channel::InsufficientScope) => {
            value.push_str(", error=\"insufficient_scope\"");
            if let Stop::Refused(refusal) = stop {
                value.push_str(&format!(", scope=\"{}\"", quotable(&refusal.scopes.join(" "))));
            }
        }
        _ => return None,
    }
    Some(value)
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;
    use http_body_util::BodyExt as _;

    use super::super::operations::{Lifting, Readiness, Revoked};
    use super::*;
    use crate::gateway::{ReloadOrder, ReloadReport};
    use crate::identity::revoked::{Held, Revocation};
    use crate::ids::RevocationEpoch;
    use crate::outcome::Failure;
    use crate::record::Who;
    use crate::record::event::AdminNote;

    /// A gateway that has a configuration and does nothing.
    struct Idle(Option<Arc<Config>>);

    impl crate::control::governs::Governs for Idle {}

    impl Operations for Idle {
        fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>> {
            Box::pin(std::future::ready(Ok(0)))
        }
        fn revoke(&self, _: Revocation) -> BoxFuture<'_, Result<Revoked, Failure>> {
            panic!("nothing is ordered here")
        }
        fn lift(&self, _: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>> {
            panic!("nothing is ordered here")
        }
        fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
            panic!("nothing is ordered here")
        }
        fn reload(&self, _: String, _: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>> {
            panic!("nothing is ordered here")
        }
        fn status(&self) -> BoxFuture<'_, serde_json::Value> {
            panic!("nothing is ordered here")
        }
        fn ready(&self) -> BoxFuture<'_, Readiness> {
            panic!("nothing is ordered here")
        }
        fn metrics(&self) -> String {
            panic!("nothing is ordered here")
        }
        fn config(&self) -> Option<Arc<Config>> {
            self.0.clone()
        }
        fn administered<'a>(&'a self, _: &'a AdminNote<'a>, _: Option<&'a Who>) -> BoxFuture<'a, Result<(), Failure>> {
            panic!("nothing is ordered here")
        }
    }

    fn admin(public_url: &str) -> AdminConfig {
        AdminConfig {
            listen: "127.0.0.1:9443".parse().unwrap(),
            public_url: url::Url::parse(public_url).unwrap(),
            allowed_hosts: Vec::new(),
            tls: None,
            clients: Vec::new(),
            acr: vec!["mfa".to_owned(), "hw\"k".to_owned()],
            auth_age_max: Duration::from_secs(300),
            console: None,
        }
    }

    fn administrators(admin: Option<AdminConfig>) -> Administrators {
        let mut config = crate::front::fixture::config();
        config.admin = admin;
        let pages = Router::new().fallback(async |request: Request<Body>| request.uri().to_string());
        Administrators::new(Arc::new(Idle(Some(Arc::new(config))))).with_pages(pages)
    }

    async fn asked(administrators: &Administrators, host: &str, target: &str) -> (StatusCode, String) {
        let request = Request::get(target).header("host", host).body(Body::empty()).unwrap();
        let response = administrators.answered(request, "127.0.0.1".parse().unwrap()).await;
        let status = response.status();
        (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
    }

    #[tokio::test]
    async fn pages_have_every_path_but_the_apis_with_or_without_what_a_proxy_takes_away() {
        let administrators = administrators(Some(admin("https://gw.example/tools")));
        for (target, seen) in [
            ("/", "/"),
            ("/servers?down=1", "/servers?down=1"),
            ("/tools/admin", "/"),
            ("/tools/admin/", "/"),
            ("/tools/admin/servers?down=1", "/servers?down=1"),
            ("/tools/administrators", "/tools/administrators"),
            ("/api/v1x", "/api/v1x"),
        ] {
            assert_eq!(
                asked(&administrators, "gw.example", target).await,
                (StatusCode::OK, seen.to_owned()),
                "{target}"
            );
        }
        for target in ["/api/v1", "/api/v1/", "/api/v1/status", "/tools/admin/api/v1/status", "/api/v1/openapi.jso"] {
            assert_eq!(asked(&administrators, "gw.example", target).await.0, StatusCode::UNAUTHORIZED, "{target}");
        }
        assert_eq!(
            asked(&administrators, "evil.example", "/").await.0,
            StatusCode::FORBIDDEN,
            "no rebound name sees one"
        );
        let metadata = "/.well-known/oauth-protected-resource/tools/admin";
        let (status, document) = asked(&administrators, "gw.example", metadata).await;
        assert!(status == StatusCode::OK && document.contains("\"https://gw.example/tools/admin\""), "{document}");
        let elsewhere = asked(&administrators, "gw.example", "/.well-known/oauth-protected-resource/mcp").await;
        assert_eq!(elsewhere.0, StatusCode::NOT_FOUND);
    }

    #[tokio::test]
    async fn without_the_section_nothing_is_answered() {
        assert_eq!(asked(&administrators(None), "localhost", "/").await.0, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn a_challenge_says_what_would_help_and_stays_within_its_quotes() {
        let admin = admin("https://gw.example");
        let told = |refusal: Refusal| challenge(&admin, &refusal.into());
        let start = "Bearer resource_metadata=\"https://gw.example/.well-known/oauth-protected-resource/admin\"";
        assert_eq!(told(Refusal::new(Reason::TokenMissing)).unwrap(), start);
        let invalid = told(Refusal::new(Reason::AudienceMismatch)).unwrap();
        assert_eq!(invalid, format!("{start}, error=\"invalid_token\""));
        let step_up = told(Refusal::new(Reason::InsufficientUserAuthentication)).unwrap();
        let wanted = ", error=\"insufficient_user_authentication\", acr_values=\"mfa hwk\", max_age=\"300\"";
        assert_eq!(step_up, format!("{start}{wanted}"));
        let mut scope = Refusal::new(Reason::InsufficientScope);
        scope.scopes = vec!["admin".to_owned()];
        assert!(told(scope).unwrap().ends_with(", error=\"insufficient_scope\", scope=\"admin\""));
        assert_eq!(told(Refusal::new(Reason::NotAllowed)), None);
    }
}
