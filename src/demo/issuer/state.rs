//! What the issuer remembers, each kind with a bound and a time after which it is forgotten.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::SystemTime;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use moka::policy::EvictionPolicy;
use moka::sync::Cache;
use secrecy::SecretString;

use super::mint::Mint;
use super::{DemoClient, DemoOptions, DemoUser};
use crate::ids::Digest;
use crate::limit;

/// The issuer's state. Secrets that others hold are kept as digests.
#[derive(Debug)]
pub(super) struct State {
    pub options: DemoOptions,
    /// Its `iss`.
    pub url: String,
    /// The values of `Host` that are answered.
    pub hosts: [String; 2],
    pub mint: Mint,
    pub door_secret: SecretString,
    /// Clients that registered themselves, by client id.
    pub registered: Cache<String, Registered>,
    /// Authorization requests whose page is open, by their id.
    pub pending: Cache<String, Authorization>,
    /// Codes that were not redeemed yet, by digest.
    pub codes: Cache<Digest, Grant>,
    /// Refresh tokens, by digest.
    pub refresh: Cache<Digest, Grant>,
    /// Sessions that were ended.
    pub ended: Cache<String, ()>,
    in_flight: AtomicUsize,
}

/// A client that registered itself.
#[derive(Debug, Clone)]
pub(super) struct Registered {
    pub name: String,
    pub redirect_uris: Vec<String>,
    /// Absent for a public client.
    pub secret: Option<Digest>,
}

/// An authorization request that was found in order.
#[derive(Debug, Clone)]
pub(super) struct Authorization {
    pub client: String,
    pub redirect_uri: String,
    pub challenge: String,
    pub state: Option<String>,
    pub nonce: Option<String>,
    pub scope: String,
    pub resource: String,
}

/// What a code or a refresh token stands for.
#[derive(Debug, Clone)]
pub(super) struct Grant {
    pub authorization: Authorization,
    pub user: DemoUser,
    pub session: String,
    pub signed_in_at: i64,
}

/// One request under way; leaves when dropped.
pub(super) struct Place<'a>(&'a AtomicUsize);

impl State {
    pub fn new(options: DemoOptions, address: SocketAddr, mint: Mint) -> Result<Self, String> {
        let hosts = [address.to_string(), format!("localhost:{}", address.port())];
        Ok(Self {
            url: format!("http://{address}"),
            hosts,
            mint,
            door_secret: SecretString::from(random()?),
            registered: table(limit::DEMO_CLIENTS_MAX, limit::DEMO_REGISTRATION_LIFE),
            pending: table(limit::DEMO_PENDING_MAX, limit::DEMO_PAGE_LIFE),
            codes: table(limit::DEMO_PENDING_MAX, limit::DEMO_CODE_LIFE),
            refresh: table(limit::DEMO_SESSIONS_MAX, limit::DEMO_SESSION_LIFE),
            ended: table(limit::DEMO_SESSIONS_MAX, limit::DEMO_SESSION_LIFE),
            in_flight: AtomicUsize::new(0),
            options,
        })
    }

    /// Room for one more request, if there is any.
    pub fn place(&self) -> Option<Place<'_>> {
        let place = Place(&self.in_flight);
        (self.in_flight.fetch_add(1, Ordering::AcqRel) < limit::DEMO_REQUESTS_MAX).then_some(place)
    }

    pub fn user(&self, name: &str) -> Option<&DemoUser> {
        self.options.users.iter().find(|user| user.name == name)
    }

    /// A client that people sign in to: one that registered itself, or one that was known before.
    pub fn client(&self, id: &str) -> Option<Registered> {
        let known = self.options.pages.iter().find(|pages| pages.id == id);
        let known = known.map(|pages| Registered {
            name: pages.name.clone(),
            redirect_uris: vec![pages.redirect_uri.clone()],
            secret: None,
        });
        known.or_else(|| self.registered.get(id))
    }

    pub fn confidential(&self, id: &str) -> Option<&DemoClient> {
        self.options.clients.iter().find(|client| client.id == id)
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What is full forgets what was used longest ago, so that registering in a loop locks nobody out for good.
fn table<K, V>(entries_max: u64, life: std::time::Duration) -> Cache<K, V>
where
    K: std::hash::Hash + Eq + Send + Sync + 'static,
    V: Clone + Send + Sync + 'static,
{
    Cache::builder().max_capacity(entries_max).eviction_policy(EvictionPolicy::lru()).time_to_live(life).build()
}

/// 256 unguessable bits as text.
pub(super) fn random() -> Result<String, String> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the random number generator failed".to_owned())?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// The digest under which a secret that somebody else holds is kept.
pub(super) fn digest(secret: &str) -> Digest {
    Digest::of("bailiwick/demo/v1", &[secret.as_bytes()])
}

/// Seconds since 1970 by this machine's clock.
pub(super) fn now_s() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_secs()).unwrap_or(i64::MAX)
}
