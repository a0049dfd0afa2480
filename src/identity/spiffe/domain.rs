//! One trust domain as we know it: its bundle, kept fresh by a task of its own.
//!
//! Decides when a bundle is read and when it is too old. Refuses to know SVIDs. Invariants: what the domain withdrew
//! leaves with the next reading, which its refresh hint sets, and at once where the Workload API says it; a bundle that is older than the one we have is never
//! taken; one that cannot be had any more leaves after `jwks_stale_max`.

use std::io::Read as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use rustls::server::danger::ClientCertVerifier;
use tokio::sync::{Semaphore, watch};
use tokio_util::sync::CancellationToken;

use super::bundle::Bundle;
use super::endpoint::{Endpoint, Known, Neighbours, Vouching};
use super::roots::Roots;
use crate::config::IssuerConfig;
use crate::config::set::replaceable;
use crate::config::spiffe::{BundleEndpoint, BundlePlace, KnownBy, SpiffeConfig};
use crate::egress::workload::{Asked, Bundles};
use crate::egress::{self, EgressError, EgressPolicy, OauthClient, oauth_client, oauth_client_trusting};
use crate::identity::issuer::{IssuerReadiness, News, pause_after};
use crate::ids::{Digest, IssuerAlias};
use crate::limit;

mod follow;
mod look;

pub use look::{BundleFacts, look_at_bundle};

/// One trust domain as we know it.
#[derive(Debug)]
pub(in crate::identity) struct Domain {
    alias: IssuerAlias,
    config: SpiffeConfig,
    stale_max: Duration,
    policy: EgressPolicy,
    known: ArcSwapOption<Bundle>,
    /// The roots that the Workload API says, which come apart from the keys.
    apart: ArcSwapOption<Roots>,
    /// The roots by which a bundle endpoint is known that has an SVID of the trust domain itself.
    trusted: Known,
    /// The others, one of which may vouch for its endpoint.
    neighbours: Arc<Neighbours>,
    /// Rises whenever something that was verified before must be looked at again.
    generation: Arc<AtomicU64>,
    /// Requests that wait for the bundle; more are answered at once.
    waiting: Semaphore,
    attempts: watch::Sender<Attempt>,
    /// The highest sequence that there ever was; outlives the bundle that had it, and reloads.
    highest: Arc<Mutex<Option<u64>>>,
    news: News,
    /// It is configured no longer, or in another way.
    retired: AtomicBool,
    stop: CancellationToken,
}

/// The last attempt to read the bundle.
#[derive(Debug, Clone, Default)]
struct Attempt {
    count: u64,
    problem: Option<String>,
    /// The same for roots that come apart.
    roots_count: u64,
    roots_problem: Option<String>,
}

impl Domain {
    /// Nothing is known yet; [`Self::run`] finds out.
    pub fn new(issuer: &IssuerConfig, config: &SpiffeConfig, allow_loopback: bool, stop: CancellationToken) -> Self {
        let policy = match &config.bundle {
            BundlePlace::File(_) | BundlePlace::Workload(_) => EgressPolicy::public(),
            BundlePlace::Web(url) | BundlePlace::Spiffe(BundleEndpoint { url, .. }) => {
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
            apart: ArcSwapOption::empty(),
            trusted: Known::default(),
            neighbours: Arc::default(),
            generation: Arc::default(),
            waiting: Semaphore::new(limit::JWKS_WAITING_MAX),
            attempts: watch::Sender::new(Attempt::default()),
            highest: Arc::default(),
            news: News::default(),
            retired: AtomicBool::new(false),
            stop,
        }
    }

    /// The same, which tells others when its bundle changes.
    pub fn telling(self, news: &News) -> Self {
        Self { news: Arc::clone(news), ..self }
    }

    /// The same among others.
    pub fn among(self, neighbours: &Arc<Neighbours>) -> Self {
        Self { neighbours: Arc::clone(neighbours), ..self }
    }

    /// The same in the place of another one, which knows how far the trust domain had come.
    pub fn after(self, before: &Self) -> Self {
        Self { highest: Arc::clone(&before.highest), ..self }
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
        if self.known().is_none() {
            self.wait_until(|attempt| attempt.count > 0).await;
        }
    }

    /// The same for whoever comes with a certificate.
    pub async fn wait_for_roots(&self) {
        if !self.comes_apart() {
            self.wait().await;
        } else if self.apart().is_none() {
            self.wait_until(|attempt| attempt.roots_count > 0).await;
        }
    }

    async fn wait_until(&self, done: impl FnMut(&Attempt) -> bool) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut attempts = self.attempts.subscribe();
        let _in_time = tokio::time::timeout(limit::JWKS_WAIT, attempts.wait_for(done)).await;
    }

    /// Who verifies certificates, where there are roots; nothing where that is not known.
    pub(super) fn roots(&self) -> Option<Option<Arc<dyn ClientCertVerifier>>> {
        if self.comes_apart() {
            return Some(self.apart()?.verifier.clone());
        }
        Some(self.known()?.roots.clone())
    }

    /// The bundle, unless it is too old.
    pub(super) fn known(&self) -> Option<Arc<Bundle>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() <= self.stale_max)
    }

    /// Whether there is a bundle that is not too old.
    fn is_known(&self) -> bool {
        self.known().is_some()
    }

    /// Whether somebody may get in: by its bundle, or by roots that came without one.
    pub fn is_ready(&self) -> bool {
        self.is_known() || self.has_roots()
    }

    /// Whether a key for JWT-SVIDs is in the bundle; nothing where there is no bundle.
    pub fn has_key(&self, key: &Digest) -> Option<bool> {
        Some(self.known()?.has(key))
    }

    /// How it is.
    pub fn readiness(&self) -> IssuerReadiness {
        let known = self.known();
        let roots = usize::from(self.roots().flatten().is_some());
        let Attempt { problem, roots_problem, .. } = self.attempts.borrow().clone();
        IssuerReadiness {
            alias: self.alias.clone(),
            issuer: format!("spiffe://{}", self.config.trust_domain),
            keys: known.as_ref().map_or(0, |known| known.len()) + roots,
            age: known.map(|known| known.fetched_at.elapsed()),
            problem: problem.or(roots_problem),
        }
    }

    /// Ends the task of a domain that is configured no longer.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// Whether nobody keeps its bundle fresh any more.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Reads the bundle now and then until it is stopped.
    pub async fn run(self: Arc<Self>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_fresh()).await;
    }

    async fn keep_fresh(&self) {
        if let BundlePlace::Workload(socket) = &self.config.bundle {
            return self.follow(socket).await;
        }
        let (mut client, mut failures) = (None, 0_u32);
        if let Some(voucher) = self.config.voucher().and_then(|name| self.neighbours.find(name)) {
            // Both begin at once, and one is not known before the other.
            voucher.wait_for_roots().await;
        }
        loop {
            let outcome = match &client {
                Some(client) => self.read(Option::as_ref(client)).await,
                // What was in the way, such as roots that could not be read, may be gone.
                None => match self.client().await {
                    Ok(built) => self.read(client.insert(built).as_ref()).await,
                    Err(problem) => Err(problem),
                },
            };
            failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
            self.finished(outcome);
            if failures > 0 && !self.is_known() && matches!(self.config.bundle, BundlePlace::Spiffe(_)) {
                // What its endpoint was known by is too old as well, and there may be a newer file.
                client = None;
            }
            let refresh = self.known.load().as_ref().map(|known| known.refresh);
            let pause = match (failures, refresh) {
                (0, refresh) => self.often(refresh.unwrap_or(limit::BUNDLE_REFRESH_MIN)),
                // While the last one holds, the next is looked for as its hint says.
                (_, Some(refresh)) => self.often(refresh.min(limit::JWKS_RETRY_MAX)),
                (failures, None) => pause_after(failures),
            };
            tokio::time::sleep(pause).await;
        }
    }

    /// How long one may wait with the next reading, so that the last one does not become too old meanwhile.
    fn often(&self, wanted: Duration) -> Duration {
        wanted.min((self.stale_max / 2).max(limit::BUNDLE_REFRESH_MIN))
    }

    /// The workload API has said that it has nothing of the trust domain for us.
    fn withdrawn(&self, nothing: Bundle) {
        self.finished(Ok(nothing));
        let problem = "its workload API has no bundle of it for this process".to_owned();
        tracing::warn!(issuer = %self.alias, trust_domain = %self.config.trust_domain, problem, "no key of a trust domain counts any more");
        self.attempts.send_modify(|attempt| attempt.problem = Some(problem));
    }

    fn moved(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    /// What the bundle is asked for with, where it is not a file.
    async fn client(&self) -> Result<Option<OauthClient>, String> {
        let policy = self.policy.clone();
        let build: Box<dyn FnOnce() -> Result<OauthClient, EgressError> + Send> = match &self.config.bundle {
            BundlePlace::File(_) | BundlePlace::Workload(_) => return Ok(None),
            // Reading the system's roots takes milliseconds; not on a worker that answers requests.
            BundlePlace::Web(_) => Box::new(move || oauth_client(policy)),
            BundlePlace::Spiffe(BundleEndpoint { id, known_by, .. }) => {
                let vouching = match known_by {
                    KnownBy::Another(name) => Vouching::Another(name.clone(), Arc::clone(&self.neighbours)),
                    KnownBy::ItsOwn(first) => {
                        let path = first.clone();
                        let text = tokio::task::spawn_blocking(move || file(&path)).await;
                        let text = text.map_err(|error| error.to_string())??;
                        let told = |problem: String| format!("{}: {problem}", first.display());
                        self.trusted.store(Some(rooted(Bundle::read(&text).map_err(told)?).map_err(told)?.anchors));
                        Vouching::Itself(Arc::clone(&self.trusted))
                    }
                };
                let endpoint = Endpoint::new(id, vouching);
                Box::new(move || oauth_client_trusting(policy, endpoint))
            }
        };
        let built = tokio::task::spawn_blocking(build).await;
        built.map_err(|error| error.to_string())?.map(Some).map_err(|error| error.to_string())
    }

    /// Whether its endpoint is known by the bundle before.
    const fn vouches_for_itself(&self) -> bool {
        matches!(self.config.bundle, BundlePlace::Spiffe(_)) && self.config.voucher().is_none()
    }

    async fn read(&self, client: Option<&OauthClient>) -> Result<Bundle, String> {
        let text = match (&self.config.bundle, client) {
            (BundlePlace::File(path), _) => {
                let path = path.clone();
                tokio::task::spawn_blocking(move || file(&path)).await.map_err(|error| error.to_string())??
            }
            (BundlePlace::Web(url) | BundlePlace::Spiffe(BundleEndpoint { url, .. }), Some(client)) => {
                web(client, url.as_str()).await?
            }
            (BundlePlace::Web(_) | BundlePlace::Spiffe(_), None) => {
                return Err("there is no client to ask with".to_owned());
            }
            // It is who says what is in force; there is no sequence that could go back.
            (BundlePlace::Workload(socket), _) => {
                let mut bundles = Bundles::open(socket, Asked::Keys, false).await?;
                let said = bundles.next(self.config.trust_domain.as_str());
                let said = tokio::time::timeout(limit::WORKLOAD_API_TIMEOUT, said).await;
                let said = said.map_err(|_| "it says nothing".to_owned())??;
                let none = || format!("it has no bundle of the trust domain {}", self.config.trust_domain);
                return Bundle::of_workload_api(&said.ok_or_else(none)?.bundle);
            }
        };
        let fresh = Bundle::read(&text)?;
        let fresh = if self.vouches_for_itself() { rooted(fresh)? } else { fresh };
        let had = *self.highest.lock().unwrap_or_else(PoisonError::into_inner);
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
                let mut highest = self.highest.lock().unwrap_or_else(PoisonError::into_inner);
                *highest = (*highest).max(bundle.sequence);
                drop(highest);
                if self.vouches_for_itself() {
                    self.trusted.store(Some(Arc::clone(&bundle.anchors)));
                }
                let before = self.known.swap(Some(Arc::new(bundle)));
                if before.is_none_or(|before| before.digest != digest) {
                    self.moved();
                    tracing::info!(issuer = %self.alias, trust_domain = %self.config.trust_domain, "the bundle changed");
                }
                None
            }
            Err(problem) => {
                tracing::warn!(issuer = %self.alias, bundle = %self.config.bundle, problem, "the bundle of a trust domain was not read");
                if self.known.load().is_some() && self.known().is_none() {
                    self.known.store(None);
                    self.moved();
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

/// A bundle with which an endpoint can be known again.
fn rooted(bundle: Bundle) -> Result<Bundle, String> {
    if bundle.anchors.is_empty() {
        return Err("it has no root, so that its endpoint would be unknown from then on: it is not taken".to_owned());
    }
    Ok(bundle)
}

/// A file that nobody else can write or replace.
fn file(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: std::io::Error| format!("{}: {error}", path.display());
    let opened = std::fs::File::open(path).map_err(told)?;
    if opened.metadata().map_err(told)?.mode() & 0o022 != 0 {
        return Err(format!("{}: others can write it: chmod go-w", path.display()));
    }
    if let Some(message) = replaceable(path) {
        return Err(format!("{}: others can replace it: {message}", path.display()));
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

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::config::spiffe::{IssuerKind, TrustDomain};
    use crate::identity::fixture::issuer_config;

    fn domain(bundle: &Path, stale_max: Duration) -> Arc<Domain> {
        let spiffe = SpiffeConfig {
            trust_domain: TrustDomain::new("mesh.test").unwrap(),
            bundle: BundlePlace::File(bundle.to_owned()),
            svid_life_max: Duration::from_secs(3600),
        };
        let kind = IssuerKind::Spiffe(spiffe.clone());
        let issuer = IssuerConfig { kind, jwks_stale_max: stale_max, ..issuer_config() };
        Arc::new(Domain::new(&issuer, &spiffe, false, CancellationToken::new()))
    }

    fn write(bundle: &Path, sequence: u64) {
        let text = serde_json::json!({ "keys": [], "spiffe_sequence": sequence, "spiffe_refresh_hint": 1 });
        std::fs::write(bundle, text.to_string()).unwrap();
    }

    async fn looked(domain: &Domain) -> Option<String> {
        domain.finished(domain.read(None).await);
        domain.attempts.borrow().problem.clone()
    }

    #[tokio::test]
    async fn an_old_bundle_is_not_taken_however_long_the_new_one_has_been_away_and_whatever_is_reloaded() {
        let place = tempfile::tempdir().unwrap();
        let bundle = place.path().join("bundle.json");
        let domain = domain(&bundle, Duration::from_millis(50));
        write(&bundle, 5);
        assert_eq!(looked(&domain).await, None);
        tokio::time::sleep(Duration::from_millis(80)).await;
        write(&bundle, 4);
        for _ in 0..3 {
            assert!(looked(&domain).await.unwrap().contains("went back from 5 to 4"));
            assert!(domain.known().is_none(), "there is none left, and the old one is none");
        }
        // One that is read in another way since a reload knows as well.
        let other = place.path().join("other.json");
        write(&other, 4);
        let moved = self::domain(&other, Duration::from_secs(60));
        let moved = Arc::into_inner(moved).unwrap().after(&domain);
        assert!(looked(&moved).await.unwrap().contains("went back from 5 to 4"));
        write(&other, 6);
        assert_eq!(looked(&moved).await, None);
        write(&bundle, 5);
        assert!(looked(&domain).await.unwrap().contains("went back from 6 to 5"), "they are one domain");
    }

    #[tokio::test(start_paused = true)]
    async fn a_bundle_that_was_never_there_is_not_looked_for_each_second() {
        let place = tempfile::tempdir().unwrap();
        let domain = domain(&place.path().join("missing.json"), Duration::from_secs(60));
        let running = tokio::spawn(Arc::clone(&domain).run());
        tokio::time::sleep(Duration::from_secs(3_600)).await;
        let count = domain.attempts.borrow().count;
        assert!((100..=130).contains(&count), "{count}");
        domain.retire();
        running.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_bundle_is_read_again_before_it_is_too_old_whatever_it_says_of_itself() {
        let place = tempfile::tempdir().unwrap();
        let bundle = place.path().join("bundle.json");
        let text = serde_json::json!({ "keys": [], "spiffe_refresh_hint": limit::BUNDLE_REFRESH_MAX.as_secs() });
        std::fs::write(&bundle, text.to_string()).unwrap();
        let domain = domain(&bundle, Duration::from_secs(60));
        let running = tokio::spawn(Arc::clone(&domain).run());
        tokio::time::sleep(Duration::from_secs(295)).await;
        let count = domain.attempts.borrow().count;
        assert_eq!(count, 10, "every half minute, so that it is never a minute old");
        domain.retire();
        running.await.unwrap();
        assert_eq!(domain.often(Duration::from_secs(5)), Duration::from_secs(5));
    }

    #[test]
    fn a_bundle_that_others_could_replace_is_not_read() {
        let place = tempfile::tempdir().unwrap();
        let shared = place.path().join("shared");
        std::fs::create_dir(&shared).unwrap();
        let bundle = shared.join("bundle.json");
        write(&bundle, 1);
        let link = place.path().join("link.json");
        std::os::unix::fs::symlink(&bundle, &link).unwrap();
        for (mode, good) in [(0o755, true), (0o777, false), (0o1777, true), (0o757, false)] {
            std::fs::set_permissions(&shared, std::fs::Permissions::from_mode(mode)).unwrap();
            for path in [&bundle, &link] {
                assert_eq!(file(path).is_ok(), good, "{mode:o} {}", path.display());
            }
        }
    }
}
