//! Registers assistants where the identity provider does not, and logs them in with a client of the administrator's.
//!
//! Decides who is sent on to the provider, and where its answer goes. Refuses to issue anything of its own: tokens are
//! the provider's. Invariants: nobody is sent anywhere who has not consented, on our own page and in this browser, to
//! exactly this client, this place, this resource and these scopes; what a client got, no other can redeem or refresh;
//! what was handed out before its client, its person or everything was taken back is void for good; nothing is kept, so
//! that nobody can fill anything.

use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use url::Url;

mod answer;
mod authorize;
mod back;
mod client;
mod cookie;
mod metadata;
mod page;
mod token;

use crate::config::fresh::FreshSecrets;
use crate::config::{Config, IssuerConfig, RegistrationConfig, ScopeMode};
use crate::egress::EgressPolicy;
use crate::ids::{Digest, IssuerAlias, PrincipalKey, RevocationEpoch, ServerId, network};
use crate::limit;
use crate::outcome::{Failure, Stop};
use crate::record::event::AdminNote;
use crate::wire::handle::Sealer;
use crate::wire::voids::{Holder, Mark};

pub use metadata::{WELL_KNOWN, issuer_url};

/// Where a provider authorizes people and redeems codes.
#[derive(Debug, Clone)]
pub struct Places {
    /// The exact `iss`.
    pub issuer: String,
    /// Where people log in.
    pub authorize: Url,
    /// Where codes become tokens.
    pub token: Url,
    /// How it may be reached.
    pub policy: EgressPolicy,
}

/// What the gateway does for this room.
pub trait Grounds: Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// Where a provider is reached; nothing while its metadata is not known.
    fn places(&self, alias: &IssuerAlias) -> Option<Places>;
    /// The epoch of the revocations in force.
    fn epoch(&self) -> RevocationEpoch;
    /// The marks of whatever is void once that client of the issuer is taken back.
    fn marks(&self, alias: &IssuerAlias, client: &str) -> Vec<Mark>;
    /// Whom a token of the provider's lets in, and what that rests on.
    fn holder<'a>(&'a self, token: &'a str) -> BoxFuture<'a, Result<Holder, Stop>>;
    /// Records what a client got.
    fn noted<'a>(&'a self, note: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Scopes that are about the login, whatever it is for.
const OF_THE_LOGIN: [&str; 4] = ["openid", "offline_access", "profile", "email"];

/// The room.
pub struct Facade {
    grounds: Arc<dyn Grounds>,
    sealer: Arc<Sealer>,
    secrets: FreshSecrets,
    visits: moka::sync::Cache<IpAddr, Arc<AtomicU32>>,
}

/// What a request is about: one issuer whose clients are registered here.
struct Desk<'a> {
    /// Where this is, as clients know it: our own `issuer`.
    issuer: String,
    /// The public URL without a slash at its end.
    base: String,
    is_secure: bool,
    config: &'a IssuerConfig,
    registration: &'a RegistrationConfig,
    /// The epoch at which the request came: what is taken back while it is answered is taken back of its answer.
    epoch: RevocationEpoch,
}

/// What a sealed text is for.
#[derive(Debug, Clone, Copy)]
enum Purpose {
    Client,
    Login,
    Code,
    Refresh,
}

impl Purpose {
    const fn word(self) -> &'static str {
        match self {
            Self::Client => "facade-client",
            Self::Login => "facade-login",
            Self::Code => "facade-code",
            Self::Refresh => "facade-refresh",
        }
    }
}

impl Facade {
    /// The room, with the gateway behind it.
    #[must_use]
    pub fn new(grounds: Arc<dyn Grounds>, sealer: Arc<Sealer>) -> Arc<Self> {
        let visits = moka::sync::Cache::builder()
            .max_capacity(limit::NOISE_SOURCES_MAX as u64)
            .time_to_live(Duration::from_secs(60))
            .build();
        Arc::new(Self { grounds, sealer, secrets: FreshSecrets::default(), visits })
    }

    /// Whether only our own pages may ask for this: a person stands behind it, and not a program.
    #[must_use]
    pub fn is_page(path: &str) -> bool {
        ["authorize", "consent", "callback"].iter().any(|page| path.ends_with(page))
    }

    /// The document of RFC 8414 for what follows `/oauth/`; nothing where no client is registered there.
    #[must_use]
    pub fn metadata(&self, alias: &str) -> Option<Response<Bytes>> {
        let config = self.grounds.config();
        let desk = Desk::of(&config, alias)?;
        Some(answer::json(StatusCode::OK, &metadata::document(&desk)))
    }

    /// Answers what came to `/oauth/{path}`.
    pub async fn answer<B>(&self, path: &str, request: Request<B>, peer: IpAddr) -> Response<Bytes>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let config = self.grounds.config();
        let (alias, what) = path.split_once('/').unwrap_or((path, ""));
        let epoch = self.grounds.epoch();
        let Some(desk) = Desk::of(&config, alias).map(|desk| Desk { epoch, ..desk }) else { return answer::absent() };
        let visits = self.visits.get_with(network(peer), Arc::default);
        if visits.fetch_add(1, Ordering::Relaxed) >= limit::FACADE_REQUESTS_PER_MINUTE_MAX {
            return answer::slow_down();
        }
        let (head, body) = request.into_parts();
        let query = head.uri.query().unwrap_or_default();
        match (&head.method, what) {
            (&Method::GET, "authorize") => self.authorize(&desk, query),
            (&Method::GET, "callback") => self.come_back(&desk, query, &head.headers),
            (&Method::POST, "register" | "token" | "consent") => {
                let Some(body) = read(body).await else { return answer::too_large() };
                match what {
                    "register" => self.register(&desk, &body),
                    "consent" => self.consent(&desk, &body, &head.headers),
                    _ => self.token(&desk, &body, &head.headers).await,
                }
            }
            (_, "authorize" | "callback") => answer::only("GET"),
            (_, "register" | "token" | "consent") => answer::only("POST"),
            _ => answer::absent(),
        }
    }

    /// Seals something for one purpose, one issuer and whoever else it belongs to; it is void with what it rests on.
    fn seal(
        &self,
        purpose: Purpose,
        (desk, owner): (&Desk<'_>, &str),
        rests_on: Holder,
        content: &impl Serialize,
    ) -> Option<String> {
        let holder = rests_on.opened_as(desk.principal(owner));
        self.sealer.seal_for(purpose.word(), &holder, &serde_json::to_vec(content).ok()?).ok()
    }

    fn open<T: DeserializeOwned>(
        &self,
        purpose: Purpose,
        (desk, owner): (&Desk<'_>, &str),
        sealed: &str,
    ) -> Option<(T, RevocationEpoch)> {
        let (max, principal) = (limit::FACADE_SEALED_BYTES_MAX, desk.principal(owner));
        let (holder, bytes) = self.sealer.open_resting(purpose.word(), principal, sealed, max)?;
        Some((serde_json::from_slice(&bytes).ok()?, holder.epoch()))
    }

    /// Whether neither that client nor the administrator's, which all of them share, was taken back since that epoch.
    fn holds(&self, desk: &Desk<'_>, client: &str, since: RevocationEpoch) -> bool {
        let marks = [&desk.registration.client_id, client].map(|id| self.grounds.marks(&desk.config.alias, id));
        self.sealer.holds(&desk.nobody(since).and(marks.into_iter().flatten()))
    }
}

impl<'a> Desk<'a> {
    fn of(config: &'a Config, alias: &str) -> Option<Self> {
        let issuer = config.issuers.iter().find(|issuer| issuer.alias.as_str() == alias)?;
        let registration = issuer.registration.as_ref()?;
        let url = &config.gateway.public_url;
        let base = url.as_str().trim_end_matches('/').to_owned();
        let is_secure = url.scheme() == "https";
        Some(Self {
            issuer: issuer_url(url, &issuer.alias),
            base,
            is_secure,
            config: issuer,
            registration,
            epoch: RevocationEpoch(0),
        })
    }

    /// What rests on no person yet.
    fn nobody(&self, since: RevocationEpoch) -> Holder {
        Holder::new(self.principal(""), since, Vec::new())
    }

    fn principal(&self, owner: &str) -> PrincipalKey {
        let parts = [self.issuer.as_bytes(), self.registration.client_id.as_bytes(), owner.as_bytes()];
        PrincipalKey(Digest::of("bailiwick/facade/v1", &parts))
    }

    /// Where the provider sends people back to.
    fn callback(&self) -> String {
        format!("{}/callback", self.issuer)
    }

    /// What the provider is asked for where a client asks for that: scopes that are written for this gateway, and those
    /// about the login itself. Whatever else the administrator's client could get there is nobody's here.
    fn scopes(&self, asked: &str) -> String {
        let rules = match &self.config.scopes {
            ScopeMode::Required(rules) => rules.as_slice(),
            ScopeMode::Ignored => &[],
        };
        let written = &self.registration.scopes;
        let known = |scope: &&str| {
            OF_THE_LOGIN.contains(scope)
                || written.iter().any(|own| own == scope)
                || rules.iter().any(|rule| rule.scope == *scope)
        };
        let mut scopes: Vec<&str> = Vec::new();
        for scope in asked.split_ascii_whitespace().filter(known).chain(written.iter().map(String::as_str)) {
            if !scopes.contains(&scope) {
                scopes.push(scope);
            }
        }
        scopes.join(" ")
    }

    /// All of this gateway.
    fn whole(&self) -> String {
        format!("{}/mcp", self.base)
    }

    /// The one resource that a token will be for; nothing where it may reach all of them. That is so where the provider
    /// is not told, or gives tokens for a name that all of this gateway has.
    fn narrowed<'r>(&self, resource: &'r str) -> Option<&'r str> {
        let told = self.registration.sends_resource && self.config.audiences.is_empty();
        (told && resource != self.whole()).then_some(resource)
    }

    /// Whether a token of the provider's is for this gateway, and for nothing of it but what a person agreed to, as far
    /// as it says for whom it is. It came from the provider itself, so nobody has to prove that it is the provider's.
    fn is_for_us(&self, token: &str, agreed: &str) -> bool {
        let payload = token.split('.').nth(1).and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
        let claims = payload.and_then(|payload| serde_json::from_slice::<serde_json::Value>(&payload).ok());
        let named: Vec<String> = match claims.as_ref().and_then(|claims| claims.get("aud")) {
            None => return true,
            Some(serde_json::Value::Array(all)) => {
                all.iter().filter_map(|aud| aud.as_str().map(str::to_owned)).collect()
            }
            Some(aud) => aud.as_str().map(str::to_owned).into_iter().collect(),
        };
        match self.narrowed(agreed) {
            Some(only) => {
                let mut ours = named.iter().filter(|aud| self.serves(aud)).peekable();
                ours.peek().is_some() && ours.all(|aud| aud == only)
            }
            None => named.iter().any(|aud| self.serves(aud) || self.config.audiences.contains(aud)),
        }
    }

    /// Whether the resource is one of ours.
    fn serves(&self, resource: &str) -> bool {
        let rest = resource.strip_prefix(&self.base).and_then(|rest| rest.strip_prefix("/mcp"));
        let server = |rest: &str| rest.strip_prefix('/').is_some_and(|name| ServerId::new(name).is_ok());
        rest.is_some_and(|rest| rest.is_empty() || server(rest))
    }
}

/// The parameters of a query or a form; none where one of them comes twice (RFC 6749 section 3.1).
struct Parameters(Vec<(String, String)>);

impl Parameters {
    fn read(bytes: &[u8]) -> Option<Self> {
        let mut all: Vec<(String, String)> = Vec::new();
        for (name, value) in url::form_urlencoded::parse(bytes) {
            if all.iter().any(|(known, _)| *known == name) {
                return None;
            }
            all.push((name.into_owned(), value.into_owned()));
        }
        Some(Self(all))
    }

    /// The value; an empty one counts as absent.
    fn get(&self, name: &str) -> Option<&str> {
        let found = self.0.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str());
        found.filter(|value| !value.is_empty())
    }
}

/// A moment, seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
struct Moment(i64);

impl Moment {
    fn now() -> Self {
        Self(jiff::Timestamp::now().as_second())
    }

    fn after(self, life: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(life.as_secs()).unwrap_or(i64::MAX)))
    }
}

/// 128 random bits, as text.
fn random() -> Option<String> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    Some(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether two texts are alike, in a time that does not tell where they differ.
fn same(one: &str, other: &str) -> bool {
    let (one, other) = (Digest::sha256(one.as_bytes()), Digest::sha256(other.as_bytes()));
    aws_lc_rs::constant_time::verify_slices_are_equal(one.as_bytes(), other.as_bytes()).is_ok()
}

fn header<'a>(headers: &'a HeaderMap, name: &http::HeaderName) -> &'a str {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
}

async fn read<B>(mut body: B) -> Option<Vec<u8>>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
{
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(data) = frame.ok()?.into_data() else { continue };
            if bytes.len() + data.len() > limit::FACADE_BODY_BYTES_MAX {
                return None;
            }
            bytes.extend_from_slice(&data);
        }
        Some(bytes)
    };
    tokio::time::timeout(limit::BODY_READ_TIMEOUT, collect).await.ok().flatten()
}

#[cfg(test)]
mod tests;
