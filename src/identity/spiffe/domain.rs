//! One trust domain as we know it: its bundle, kept fresh by a task of its own.
//!
//! Decides when a bundle is read and when it is too old. Refuses to know SVIDs. Invariants: what the domain withdrew
//! leaves with the next reading, which its refresh hint sets; a bundle that is older than the one we have is never
//! taken; one that cannot be had any more leaves after `jwks_stale_max`.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::bundle::Bundle;
use crate::config::IssuerConfig;
use crate::config::spiffe::{BundlePlace, SpiffeConfig};
use crate::egress::{self, EgressPolicy, OauthClient, oauth_client};
use crate::identity::issuer::IssuerReadiness;
use crate::ids::IssuerAlias;
use crate::limit;

/// One trust domain as we know it.
#[derive(Debug)]
pub(in crate::identity) struct Domain {
    alias: IssuerAlias,
    config: SpiffeConfig,
    stale_max: Duration,
    policy: EgressPolicy,
    known: ArcSwapOption<Bundle>,
    /// Rises whenever something that was verified before must be looked at again.
    generation: Arc<AtomicU64>,
    /// Requests that wait for the bundle; more are answered at once.
    waiting: Semaphore,
    attempts: watch::Sender<Attempt>,
    stop: CancellationToken,
}

/// The last attempt to read the bundle.
#[derive(Debug, Clone, Default)]
struct Attempt {
    count: u64,
    problem: Option<String>,
}

impl Domain {
    /// Nothing is known yet; [`Self::run`] finds out.
    pub fn new(issuer: &IssuerConfig, config: &SpiffeConfig, allow_loopback: bool, stop: CancellationToken) -> Self {
        let policy = match &config.bundle {
            BundlePlace::File(_) => EgressPolicy::public(),
            BundlePlace::Web(url) => {
                let on_loopback = url.scheme() == "http" || egress::is_loopback(url);
                EgressPolicy::issuer(url.host_str(), allow_loopback && on_loopback)
            }
        };
        Self {
            alias: issuer.alias.clone(),
            config: config.clone(),
            stale_max: issuer.jwks_stale_max,
            policy,
            known: ArcSwapOption::empty(),
            generation: Arc::default(),
            waiting: Semaphore::new(limit::JWKS_WAITING_MAX),
            attempts: watch::Sender::new(Attempt::default()),
            stop,
        }
    }

    /// Whether the other would be read alike, so that a reload may keep what this one knows.
    pub fn is_like(&self, other: &Self) -> bool {
        self.alias == other.alias
            && self.config == other.config
            && self.stale_max == other.stale_max
            && self.policy == other.policy
    }

    /// Rises whenever something that was verified before must be looked at again.
    pub const fn generation(&self) -> &Arc<AtomicU64> {
        &self.generation
    }

    /// Waits for the very first attempt to read the bundle, so that who comes with the start is not refused for it.
    pub async fn wait(&self) {
        if self.known().is_some() {
            return;
        }
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut attempts = self.attempts.subscribe();
        let _in_time = tokio::time::timeout(limit::JWKS_WAIT, attempts.wait_for(|attempt| attempt.count > 0)).await;
    }

    /// The bundle, unless it is too old.
    pub(super) fn known(&self) -> Option<Arc<Bundle>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() <= self.stale_max)
    }

    /// Whether there is a bundle that is not too old.
    pub fn is_known(&self) -> bool {
        self.known().is_some()
    }

    /// How it is.
    pub fn readiness(&self) -> IssuerReadiness {
        let known = self.known();
        let roots = known.as_ref().map_or(0, |known| usize::from(known.roots.is_some()));
        IssuerReadiness {
            alias: self.alias.clone(),
            issuer: format!("spiffe://{}", self.config.trust_domain),
            keys: known.as_ref().map_or(0, |known| known.len() + roots),
            age: known.map(|known| known.fetched_at.elapsed()),
            problem: self.attempts.borrow().problem.clone(),
        }
    }

    /// Ends the task of a domain that is configured no longer.
    pub fn retire(&self) {
        self.stop.cancel();
    }

    /// Reads the bundle now and then until it is stopped.
    pub async fn run(self: Arc<Self>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_fresh()).await;
    }

    async fn keep_fresh(&self) {
        let client = match self.client().await {
            Ok(client) => client,
            Err(problem) => return self.finished(Err(problem)),
        };
        loop {
            self.finished(self.read(client.as_ref()).await);
            let refresh = self.known.load().as_ref().map_or(limit::BUNDLE_REFRESH_MIN, |known| known.refresh);
            let failed = self.attempts.borrow().problem.is_some();
            tokio::time::sleep(if failed { refresh.min(limit::JWKS_RETRY_MAX) } else { refresh }).await;
        }
    }

    /// What the bundle is asked for with, where it is not a file.
    async fn client(&self) -> Result<Option<OauthClient>, String> {
        if matches!(self.config.bundle, BundlePlace::File(_)) {
            return Ok(None);
        }
        let policy = self.policy.clone();
        // Reading the system's roots takes milliseconds; not on a worker that answers requests.
        let built = tokio::task::spawn_blocking(move || oauth_client(policy)).await;
        built.map_err(|error| error.to_string())?.map(Some).map_err(|error| error.to_string())
    }

    async fn read(&self, client: Option<&OauthClient>) -> Result<Bundle, String> {
        let text = match (&self.config.bundle, client) {
            (BundlePlace::File(path), _) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || file(&path)).await.map_err(|error| error.to_string())??
            }
            (BundlePlace::Web(url), Some(client)) => web(client, url.as_str()).await?,
            (BundlePlace::Web(_), None) => return Err("there is no client to ask with".to_owned()),
        };
        let fresh = Bundle::read(&text)?;
        let had = self.known.load().as_ref().and_then(|known| known.sequence);
        match (had, fresh.sequence) {
            (Some(had), Some(came)) if came < had => Err(format!(
                "its sequence went back from {had} to {came}: somebody serves an old bundle, which is not taken"
            )),
            (Some(had), None) => Err(format!("it has lost its sequence, which was {had}: it is not taken")),
            _ => Ok(fresh),
        }
    }

    fn finished(&self, outcome: Result<Bundle, String>) {
        let problem = match outcome {
            Ok(bundle) => {
                let digest = bundle.digest;
                let before = self.known.swap(Some(Arc::new(bundle)));
                if before.is_none_or(|before| before.digest != digest) {
                    self.generation.fetch_add(1, Ordering::AcqRel);
                    tracing::info!(issuer = %self.alias, trust_domain = %self.config.trust_domain, "the bundle changed");
                }
                None
            }
            Err(problem) => {
                tracing::warn!(issuer = %self.alias, bundle = %self.config.bundle, problem, "the bundle of a trust domain was not read");
                if self.known.load().is_some() && self.known().is_none() {
                    self.known.store(None);
                    self.generation.fetch_add(1, Ordering::AcqRel);
                }
                Some(problem)
            }
        };
        self.attempts.send_modify(|attempt| {
            attempt.count += 1;
            attempt.problem = problem;
        });
    }
}

/// What a bundle holds, for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BundleFacts {
    /// Keys that verify JWT-SVIDs.
    pub jwt_keys: usize,
    /// Whether it has roots, which verify X.509-SVIDs.
    pub roots: bool,
    /// How often it wants to be read.
    pub refresh: Duration,
}

/// Reads the bundle of a trust domain once, as a gateway with this listener would.
///
/// # Errors
/// Why it cannot be had, in words.
pub async fn look_at_bundle(
    issuer: &IssuerConfig,
    config: &SpiffeConfig,
    listens_on_loopback: bool,
) -> Result<BundleFacts, String> {
    let domain = Domain::new(issuer, config, listens_on_loopback, CancellationToken::new());
    let bundle = domain.read(domain.client().await?.as_ref()).await?;
    Ok(BundleFacts { jwt_keys: bundle.len(), roots: bundle.roots.is_some(), refresh: bundle.refresh })
}

/// A file that nobody else can write.
fn file(path: &PathBuf) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let opened = std::fs::File::open(path).map_err(told)?;
    if opened.metadata().map_err(told)?.mode() & 0o022 != 0 {
        return Err(format!("{}: others can write it: chmod go-w", path.display()));
    }
    let mut text = Vec::new();
    opened.take(limit::OAUTH_RESPONSE_BYTES_MAX as u64 + 1).read_to_end(&mut text).map_err(told)?;
    if text.len() > limit::OAUTH_RESPONSE_BYTES_MAX {
        return Err(format!("{}: it is larger than {} bytes", path.display(), limit::OAUTH_RESPONSE_BYTES_MAX));
    }
    Ok(text)
}

async fn web(client: &OauthClient, url: &str) -> Result<Vec<u8>, String> {
    let request = http::Request::get(url).body(Vec::new()).map_err(|error| error.to_string())?;
    let answer = client.send(request).await.map_err(|error| error.to_string())?;
    if answer.status() != http::StatusCode::OK {
        return Err(format!("it answered {}", answer.status()));
    }
    Ok(answer.into_body())
}
