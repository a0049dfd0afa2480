//! Asks one issuer what its opaque tokens are (RFC 7662), and remembers the answers for a moment.
//!
//! Decides which answers can be read. Refuses to know what they must say. Invariants: `"active": false` alone says that
//! a token is none; whatever else goes wrong is trouble, and trouble lets nobody in, however good the token was a
//! minute ago. One question at a time for one token, and not many at a time for all; tokens that nobody has seen
//! active keep no place from those that were.

use std::fmt;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::{Mutex, OnceCell, Semaphore};
use url::Url;
use url::form_urlencoded::{Serializer, byte_serialize};

use super::assertion;
use super::chain::Fresh;
use super::issuer::{Issuer, pause_after};
use super::now_s;
use super::token::Claims;
use crate::config::{IntrospectionConfig, IntrospectionProof, IssuerConfig, SecretReference};
use crate::egress::{self, EgressPolicy, OauthClient, oauth_client};
use crate::ids::{Digest, IssuerAlias};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// Asks one issuer.
#[derive(Debug)]
pub(super) struct Introspector {
    alias: IssuerAlias,
    /// The issuer's exact name, which our assertions are for.
    issuer: String,
    config: Arc<IntrospectionConfig>,
    policy: EgressPolicy,
    client: OnceCell<OauthClient>,
    secret: Mutex<Option<Kept>>,
    replies: moka::future::Cache<Digest, Arc<Reply>>,
    /// Tokens that were active lately: somebody uses them.
    lately: moka::sync::Cache<Digest, ()>,
    /// Questions about those.
    known: Lane,
    /// Questions about all others, which anybody can make up.
    unknown: Lane,
    /// Since when, and how many times in a row, our own client has been refused.
    refused: std::sync::Mutex<Option<(Instant, u32)>>,
}

/// Some places to ask, and some to wait for one.
#[derive(Debug)]
struct Lane {
    /// Questions under way.
    asking: Semaphore,
    /// Requests that wait to ask; more are answered at once, or junk tokens could pile them up.
    waiting: Semaphore,
}

impl Lane {
    const fn new() -> Self {
        Self {
            asking: Semaphore::const_new(limit::INTROSPECTIONS_MAX),
            waiting: Semaphore::const_new(limit::JWKS_WAITING_MAX),
        }
    }
}

/// Our secret, and when it was read.
#[derive(Debug)]
struct Kept {
    value: Arc<SecretString>,
    read_at: Instant,
}

/// What the issuer said of a token that is active.
pub(super) struct Reply {
    body: Vec<u8>,
    /// When it was asked, seconds since 1970.
    pub asked_at: i64,
}

impl fmt::Debug for Reply {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Reply").field("asked_at", &self.asked_at).finish_non_exhaustive()
    }
}

impl Reply {
    /// What it says, under the names of claims.
    pub fn claims(&self) -> Result<Claims<'_>, Failure> {
        serde_json::from_slice(&self.body).map_err(|_| trouble("an introspection answer is not one JSON object"))
    }
}

impl Introspector {
    /// Asks nobody yet; `None` for an issuer without opaque tokens. With `allow_loopback` it may be on this machine.
    pub fn new(issuer: &IssuerConfig, allow_loopback: bool) -> Option<Self> {
        let config = Arc::clone(issuer.introspection.as_ref()?);
        let url = Url::parse(&issuer.issuer).ok();
        let own = config.endpoint.as_ref();
        let on_loopback = url.iter().chain(own).any(|url| url.scheme() == "http" || egress::is_loopback(url));
        let host = url.as_ref().and_then(Url::host_str);
        let policy =
            EgressPolicy::issuer(host, allow_loopback && on_loopback).with_private_host(own.and_then(Url::host_str));
        let replies = moka::future::Cache::builder()
            .max_capacity(limit::INTROSPECTED_CACHE_BYTES_MAX)
            .weigher(|_, reply: &Arc<Reply>| u32::try_from(reply.body.len().saturating_add(256)).unwrap_or(u32::MAX))
            .time_to_live(limit::INTROSPECTED_LIFE_MAX)
            .build();
        Some(Self {
            alias: issuer.alias.clone(),
            issuer: issuer.issuer.clone(),
            config,
            policy,
            client: OnceCell::new(),
            secret: Mutex::new(None),
            replies,
            lately: moka::sync::Cache::builder()
                .max_capacity(limit::INTROSPECTED_LATELY_MAX)
                .time_to_live(limit::INTROSPECTED_LATELY)
                .build(),
            known: Lane::new(),
            unknown: Lane::new(),
            refused: std::sync::Mutex::new(None),
        })
    }

    /// Whether the other would ask alike, so that a reload may keep what this one knows.
    pub fn is_like(&self, other: &Self) -> bool {
        self.alias == other.alias
            && self.issuer == other.issuer
            && self.config == other.config
            && self.policy == other.policy
    }

    /// How it asks.
    pub fn config(&self) -> &IntrospectionConfig {
        &self.config
    }

    /// What the issuer says of the token, or said moments ago.
    pub async fn ask(&self, issuer: &Issuer, shown: Fresh<'_>) -> Result<Arc<Reply>, Stop> {
        // The one who comes first asks for all who come meanwhile; if that one leaves, the next one does.
        let asked = self.replies.try_get_with(shown.digest, self.ask_now(issuer, shown)).await;
        asked.map_err(|stop| Stop::clone(&stop))
    }

    async fn ask_now(&self, issuer: &Issuer, shown: Fresh<'_>) -> Result<Arc<Reply>, Stop> {
        self.is_welcome()?;
        let endpoint = self.endpoint(issuer).await?;
        let busy = || self.unavailable("too many tokens are asked about at once");
        let lane = if self.lately.contains_key(&shown.digest) { &self.known } else { &self.unknown };
        let _waiting = lane.waiting.try_acquire().map_err(|_| busy())?;
        let place = tokio::time::timeout(limit::JWKS_WAIT, lane.asking.acquire()).await.map_err(|_| busy())?;
        let _place = place.map_err(|_| busy())?;
        let request = self.request(&endpoint, shown.text).await.map_err(|problem| self.unavailable(&problem))?;
        let client = self.client().await.map_err(|problem| self.unavailable(&problem))?;
        let asked_at = now_s();
        let answer = client.send(request).await.map_err(|error| self.unavailable(&error.to_string()))?;
        self.took_us_for(answer.status());
        match answer.status() {
            StatusCode::OK => {}
            status @ (StatusCode::BAD_REQUEST | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) => {
                self.forget_secret().await;
                let client = &self.config.client_id;
                return Err(self
                    .unavailable(&format!(
                        "its introspection endpoint answered {status} to our client `{client}`: see the client's secret or \
                         key and its right to introspect"
                    ))
                    .into());
            }
            status => return Err(self.unavailable(&format!("its introspection endpoint answered {status}")).into()),
        }
        let body = answer.into_body();
        if body.len() > limit::INTROSPECTED_BYTES_MAX {
            let message = format!("its answer is larger than {} bytes", limit::INTROSPECTED_BYTES_MAX);
            return Err(self.unavailable(&message).into());
        }
        let reply = Reply { body, asked_at };
        let active = match reply.claims() {
            Ok(claims) => claims.raw("active").map(str::to_owned),
            Err(_) => None,
        };
        match active.as_deref() {
            Some("true") => {
                self.lately.insert(shown.digest, ());
                Ok(Arc::new(reply))
            }
            Some("false") => Err(Refusal::new(Reason::TokenInactive).into()),
            _ => Err(self.unavailable("its answer does not say whether the token is active").into()),
        }
    }

    /// Whether we may ask: an issuer that does not know our client is not asked with it again and again, which many
    /// answer with a lock.
    fn is_welcome(&self) -> Result<(), Failure> {
        let refused = *self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        match refused {
            Some((since, times)) if since.elapsed() < pause_after(times) => {
                Err(self.unavailable("it refused our client a moment ago"))
            }
            _ => Ok(()),
        }
    }

    /// Takes down whether our client was known. An odd token may be answered otherwise; 401 is about us (RFC 7662).
    fn took_us_for(&self, status: StatusCode) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        *refused = match (status, *refused) {
            (StatusCode::UNAUTHORIZED, before) => {
                Some((Instant::now(), before.map_or(0, |(_, times)| times).saturating_add(1)))
            }
            (StatusCode::OK, _) => None,
            (_, before) => before,
        };
    }

    async fn endpoint(&self, issuer: &Issuer) -> Result<Url, Failure> {
        if let Some(endpoint) = &self.config.endpoint {
            return Ok(endpoint.clone());
        }
        if issuer.known().is_none() {
            issuer.first_attempt().await;
        }
        let known = issuer.known().ok_or_else(|| self.unavailable("its metadata could not be fetched"))?;
        known.introspection_endpoint.clone().ok_or_else(|| {
            self.unavailable("its metadata names no introspection_endpoint: write `endpoint` below its introspection")
        })
    }

    async fn client(&self) -> Result<&OauthClient, String> {
        let build = || async {
            let policy = self.policy.clone();
            // Reading the system's roots takes milliseconds; not on a worker that answers requests.
            let built = tokio::task::spawn_blocking(move || oauth_client(policy)).await;
            built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
        };
        self.client.get_or_try_init(build).await
    }

    async fn request(&self, endpoint: &Url, token: &str) -> Result<Request<Vec<u8>>, String> {
        let client = self.config.client_id.as_str();
        let mut further = Vec::new();
        let mut header = None;
        match &self.config.proof {
            IntrospectionProof::Secret(reference) => {
                let secret = self.secret(reference).await?;
                // RFC 6749 section 2.3.1: both are form-encoded first.
                let encoded = |text: &str| byte_serialize(text.as_bytes()).collect::<String>();
                let pair = SecretString::from(format!("{}:{}", encoded(client), encoded(secret.expose_secret())));
                header = Some(basic(&pair)?);
            }
            IntrospectionProof::PrivateKey { key, id } => {
                let key = self.secret(key).await?;
                let assertion = assertion::sign(&key, id.as_deref(), client, &self.issuer, now_s())?;
                further.push(("client_id", SecretString::from(client)));
                further.push(("client_assertion_type", SecretString::from(assertion::KIND)));
                further.push(("client_assertion", assertion));
            }
        }
        let mut form = Serializer::new(String::new());
        form.append_pair("token", token).append_pair("token_type_hint", "access_token");
        form.extend_pairs(further.iter().map(|(name, value)| (*name, value.expose_secret())));
        let mut request = Request::post(endpoint.as_str())
            .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
            .header(ACCEPT, "application/json");
        if let Some(value) = header {
            request = request.header(AUTHORIZATION, value);
        }
        request.body(form.finish().into_bytes()).map_err(|error| error.to_string())
    }

    /// Our secret; read again now and then, and used on as it was while it cannot be.
    async fn secret(&self, reference: &SecretReference) -> Result<Arc<SecretString>, String> {
        let mut kept = self.secret.lock().await;
        let age_max = match reference {
            SecretReference::File(_) => limit::SECRET_LOOK_INTERVAL,
            _ => limit::SECRET_EXEC_INTERVAL,
        };
        if let Some(kept) = kept.as_ref().filter(|kept| kept.read_at.elapsed() < age_max) {
            return Ok(Arc::clone(&kept.value));
        }
        match (reference.read().await, kept.as_mut()) {
            (Ok(value), _) => {
                let value = Arc::new(value);
                *kept = Some(Kept { value: Arc::clone(&value), read_at: Instant::now() });
                Ok(value)
            }
            (Err(error), Some(old)) => {
                tracing::warn!(issuer = %self.alias, %error, "our secret at the issuer could not be read again");
                old.read_at = Instant::now();
                Ok(Arc::clone(&old.value))
            }
            (Err(error), None) => Err(error.to_string()),
        }
    }

    /// It may have been exchanged; what a program prints is not asked for more often than files are looked at.
    async fn forget_secret(&self) {
        let mut kept = self.secret.lock().await;
        if kept.as_ref().is_some_and(|kept| kept.read_at.elapsed() >= limit::SECRET_LOOK_INTERVAL) {
            *kept = None;
        }
    }

    /// As if everything that was said had been said too long ago.
    #[cfg(test)]
    pub fn forget_replies(&self) {
        self.replies.invalidate_all();
    }

    fn unavailable(&self, problem: &str) -> Failure {
        trouble(&format!("issuer `{}` does not say what an opaque token is: {problem}", self.alias))
    }
}

fn trouble(problem: &str) -> Failure {
    Failure::before(Reason::IssuerUnavailable, problem.to_owned())
}

fn basic(pair: &SecretString) -> Result<HeaderValue, String> {
    use base64::Engine as _;
    let encoded = base64::engine::general_purpose::STANDARD.encode(pair.expose_secret());
    let mut value = HeaderValue::try_from(format!("Basic {encoded}"))
        .map_err(|_| "our client id or secret cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Nameless;
    use crate::identity::fixture::issuer_config;

    fn introspector(proof: IntrospectionProof) -> Introspector {
        let mut issuer = issuer_config();
        issuer.introspection = Some(Arc::new(IntrospectionConfig {
            endpoint: Some("https://idp.example/introspect".parse().unwrap()),
            client_id: "gateway".to_owned(),
            proof,
            prefix: None,
            nameless: Nameless::Refused,
        }));
        Introspector::new(&issuer, false).unwrap()
    }

    #[tokio::test]
    async fn what_issuers_said_takes_bounded_memory() {
        let introspector = introspector(IntrospectionProof::Secret(SecretReference::Plain("x".to_owned())));
        let count = limit::INTROSPECTED_CACHE_BYTES_MAX / limit::INTROSPECTED_BYTES_MAX as u64 + 10;
        for number in 0..count {
            let reply = Arc::new(Reply { body: vec![0; limit::INTROSPECTED_BYTES_MAX], asked_at: 0 });
            introspector.replies.insert(Digest::sha256(&number.to_be_bytes()), reply).await;
        }
        introspector.replies.run_pending_tasks().await;
        assert!(introspector.replies.weighted_size() <= limit::INTROSPECTED_CACHE_BYTES_MAX);
        assert!(introspector.replies.entry_count() > 10);
    }

    #[test]
    fn tokens_that_were_active_lately_take_bounded_memory() {
        let introspector = introspector(IntrospectionProof::Secret(SecretReference::Plain("x".to_owned())));
        for number in 0..limit::INTROSPECTED_LATELY_MAX + 1_000 {
            introspector.lately.insert(Digest::sha256(&number.to_be_bytes()), ());
        }
        introspector.lately.run_pending_tasks();
        assert!(introspector.lately.entry_count() <= limit::INTROSPECTED_LATELY_MAX);
    }

    #[tokio::test]
    async fn a_secret_that_was_exchanged_is_read_again_and_one_that_is_gone_is_used_on() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("secret");
        std::fs::write(&path, "one").unwrap();
        let reference = SecretReference::File(path.clone());
        let introspector = introspector(IntrospectionProof::Secret(reference.clone()));
        let shown = || async { introspector.secret(&reference).await.unwrap().expose_secret().to_owned() };
        let time_passes = || async {
            let mut kept = introspector.secret.lock().await;
            kept.as_mut().unwrap().read_at = Instant::now().checked_sub(limit::SECRET_LOOK_INTERVAL).unwrap();
        };
        assert_eq!(shown().await, "one");
        std::fs::write(&path, "two").unwrap();
        assert_eq!(shown().await, "one");
        time_passes().await;
        assert_eq!(shown().await, "two");
        std::fs::remove_file(&path).unwrap();
        time_passes().await;
        assert_eq!(shown().await, "two");
        introspector.forget_secret().await;
        assert_eq!(shown().await, "two", "it was looked for a moment ago");
        time_passes().await;
        introspector.forget_secret().await;
        assert!(introspector.secret(&reference).await.is_err());
    }

    #[test]
    fn a_reply_is_never_printed() {
        let reply = Reply { body: b"{\"sub\":\"alice\"}".to_vec(), asked_at: 7 };
        assert_eq!(format!("{reply:?}"), "Reply { asked_at: 7, .. }");
    }
}
