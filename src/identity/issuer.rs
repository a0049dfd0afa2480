//! One issuer as we know it: its metadata and keys, kept fresh by a task of its own.
//!
//! Decides when keys are fetched and when they are too old. Refuses to know tokens. Invariants: one fetch
//! at a time (this task's); an issuer that is down slows nobody but its own tokens, and its last keys
//! leave after `jwks_stale_max`; keys that it withdrew leave with the next fetch.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use tokio::sync::{Notify, Semaphore, watch};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::discovery;
use super::keys::KeySet;
use super::transmitter;
use crate::config::IssuerConfig;
use crate::config::feed::TransmitterConfig;
use crate::egress::{self, EgressPolicy, OauthClient, oauth_client};
use crate::ids::IssuerAlias;
use crate::limit;

/// One issuer as we know it.
#[derive(Debug)]
pub(super) struct Issuer {
    alias: IssuerAlias,
    /// The exact `iss`.
    url: String,
    stale_max: Duration,
    policy: EgressPolicy,
    signs: Signs,
    source: KeySource,
    known: ArcSwapOption<Known>,
    /// Rises whenever something that was verified before must be looked at again.
    generation: AtomicU64,
    nudge: Notify,
    /// Requests that wait for this issuer; more are answered at once, or junk tokens could pile them up.
    waiting: Semaphore,
    /// When somebody last asked for new keys, which anybody with a made-up key id can do.
    asked: Mutex<Option<Asked>>,
    attempts: watch::Sender<Attempt>,
    /// Moves whenever what was verified has to be looked at again; one for all issuers.
    news: News,
    /// It is configured no longer, or in another way.
    retired: AtomicBool,
    stop: CancellationToken,
}

/// Tells whoever acts on what was verified that an issuer's keys changed.
pub(super) type News = Arc<watch::Sender<u64>>;

/// Whether an issuer is of use only with keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Signs {
    /// Its tokens are JWTs.
    Always,
    /// It can be asked about tokens, and may sign none.
    Perhaps,
}

/// Where an issuer says what its keys are.
#[derive(Debug, Clone, PartialEq, Eq)]
enum KeySource {
    /// In the metadata of OpenID Connect Discovery.
    Discovery,
    /// As a transmitter of events: in its own metadata, or at this place.
    Transmitter(Option<Url>),
}

/// When somebody asked for new keys, and how many attempts there had been by then.
#[derive(Debug, Clone, Copy)]
struct Asked {
    at: Instant,
    count: u64,
}

/// What the issuer told us last.
#[derive(Debug)]
pub(super) struct Known {
    pub keys: KeySet,
    pub token_endpoint: Option<Url>,
    pub introspection_endpoint: Option<Url>,
    pub authorization_endpoint: Option<Url>,
    pub fetched_at: Instant,
}

/// The last attempt to fetch.
#[derive(Debug, Clone, Default)]
struct Attempt {
    count: u64,
    /// The issuer said which keys it has, were it none.
    answered: bool,
    problem: Option<String>,
}

/// How an issuer is, for `/readyz` and people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuerReadiness {
    /// Its name here.
    pub alias: IssuerAlias,
    /// Its exact `iss`.
    pub issuer: String,
    /// Usable keys; 0 while it was never reached, or for longer than `jwks_stale_max`.
    pub keys: usize,
    /// How old they are.
    pub age: Option<Duration>,
    /// What went wrong at the last attempt.
    pub problem: Option<String>,
}

impl Issuer {
    /// Nothing is known yet; [`Self::run`] finds out.
    ///
    /// With `allow_loopback` an issuer that is itself on loopback, or plain HTTP, may be asked; the
    /// metadata of any other one still cannot lead us there.
    pub fn new(config: &IssuerConfig, allow_loopback: bool, stop: CancellationToken) -> Self {
        let url = Url::parse(&config.issuer).ok();
        let host = url.as_ref().and_then(|url| url.host_str().map(str::to_owned));
        let on_loopback = url.is_some_and(|url| url.scheme() == "http" || egress::is_loopback(&url));
        Self {
            alias: config.alias.clone(),
            url: config.issuer.clone(),
            stale_max: config.jwks_stale_max,
            policy: EgressPolicy::issuer(host.as_deref(), allow_loopback && on_loopback),
            signs: if config.introspection.is_some() { Signs::Perhaps } else { Signs::Always },
            source: KeySource::Discovery,
            known: ArcSwapOption::empty(),
            generation: AtomicU64::new(0),
            nudge: Notify::new(),
            waiting: Semaphore::new(limit::JWKS_WAITING_MAX),
            asked: Mutex::new(None),
            attempts: watch::Sender::new(Attempt::default()),
            news: News::default(),
            retired: AtomicBool::new(false),
            stop,
        }
    }

    /// The same for a transmitter of events, whose keys are kept like those of the issuer that it speaks of.
    pub fn transmitter(
        config: &TransmitterConfig,
        speaks_of: &IssuerConfig,
        allow_loopback: bool,
        stop: CancellationToken,
    ) -> Self {
        let config_of_its_own = IssuerConfig { issuer: config.issuer.clone(), ..speaks_of.clone() };
        let mut transmitter = Self::new(&config_of_its_own, allow_loopback, stop);
        let keys_host = config.keys.as_ref().and_then(Url::host_str);
        transmitter.policy = transmitter.policy.with_private_host(keys_host);
        transmitter.source = KeySource::Transmitter(config.keys.clone());
        transmitter
    }

    /// The same, which tells others when its keys change.
    pub fn telling(self, news: &News) -> Self {
        Self { news: Arc::clone(news), ..self }
    }

    /// The exact `iss`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Whether the other would be fetched alike, so that a reload may keep what this one knows.
    pub fn is_like(&self, other: &Self) -> bool {
        self.alias == other.alias
            && self.url == other.url
            && self.stale_max == other.stale_max
            && self.policy == other.policy
            && self.signs == other.signs
            && self.source == other.source
    }

    /// Its name here.
    pub const fn alias(&self) -> &IssuerAlias {
        &self.alias
    }

    /// Rises whenever something that was verified before must be looked at again.
    pub fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    /// What the issuer told us last, unless that is too long ago.
    pub fn known(&self) -> Option<Arc<Known>> {
        self.known.load_full().filter(|known| known.fetched_at.elapsed() <= self.stale_max)
    }

    /// Where it may be reached, for the clients of others that talk to it.
    pub const fn policy(&self) -> &EgressPolicy {
        &self.policy
    }

    /// How it is.
    pub fn readiness(&self) -> IssuerReadiness {
        let known = self.known();
        IssuerReadiness {
            alias: self.alias.clone(),
            issuer: self.url.clone(),
            keys: known.as_ref().map_or(0, |known| known.keys.len()),
            age: known.map(|known| known.fetched_at.elapsed()),
            problem: self.attempts.borrow().problem.clone(),
        }
    }

    /// Waits for the very first attempt, so that a token that comes with the start is not refused for it.
    pub async fn first_attempt(&self) {
        let Ok(_place) = self.waiting.try_acquire() else { return };
        let mut attempts = self.attempts.subscribe();
        let _in_time = tokio::time::timeout(limit::JWKS_WAIT, attempts.wait_for(|attempt| attempt.count > 0)).await;
    }

    /// Asks for new keys because a token names one that is unknown, and waits for the answer. Whoever asks
    /// with junk key ids makes us fetch once within [`limit::JWKS_UNKNOWN_KEY_INTERVAL_MIN`]. Answers whether
    /// the keys that we have now are what the issuer says.
    pub async fn refresh_for_unknown_key(&self) -> bool {
        let mut attempts = self.attempts.subscribe();
        let Ok(_place) = self.waiting.try_acquire() else { return false };
        let after = self.ask(attempts.borrow_and_update().count);
        let newer = attempts.wait_for(|attempt| attempt.count > after);
        match tokio::time::timeout(limit::JWKS_WAIT, newer).await {
            Ok(Ok(attempt)) => attempt.answered,
            _ => false,
        }
    }

    /// Wakes the task unless somebody did lately. Answers the attempt after which the keys are new enough.
    fn ask(&self, count: u64) -> u64 {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(asked) = asked.filter(|asked| asked.at.elapsed() < limit::JWKS_UNKNOWN_KEY_INTERVAL_MIN) {
            return asked.count;
        }
        *asked = Some(Asked { at: Instant::now(), count });
        self.nudge.notify_one();
        count
    }

    /// Ends the task of an issuer that is configured no longer.
    pub fn retire(&self) {
        self.retired.store(true, Ordering::Release);
        self.stop.cancel();
    }

    /// Whether nobody keeps its keys fresh any more, because the configuration has another one or none.
    pub fn is_retired(&self) -> bool {
        self.retired.load(Ordering::Acquire)
    }

    /// Fetches now and then until it is stopped.
    pub async fn run(self: Arc<Self>) {
        let stop = self.stop.clone();
        stop.run_until_cancelled(self.keep_fresh()).await;
    }

    /// As if the interval between two questions for new keys had passed.
    #[cfg(test)]
    pub fn forget_last_question(&self) {
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    async fn keep_fresh(&self) {
        let (mut client, mut failures) = (None, 0_u32);
        loop {
            let outcome = match &client {
                Some(client) => self.fetch(client).await,
                // What was in the way, such as roots that could not be read, may be gone.
                None => match self.client().await {
                    Ok(built) => self.fetch(client.insert(built)).await,
                    Err(problem) => Err(problem),
                },
            };
            failures = if outcome.is_ok() { 0 } else { failures.saturating_add(1) };
            self.finished(outcome);
            let pause = if failures == 0 {
                limit::JWKS_REFRESH.min(self.stale_max / 2).max(limit::JWKS_RETRY_MIN)
            } else {
                pause_after(failures)
            };
            let _nudged = tokio::time::timeout(pause, self.nudge.notified()).await;
        }
    }

    async fn client(&self) -> Result<OauthClient, String> {
        let policy = self.policy.clone();
        // Reading the system's roots takes milliseconds; not on a worker that answers requests.
        let built = tokio::task::spawn_blocking(move || oauth_client(policy)).await;
        built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    fn moved(&self) {
        self.generation.fetch_add(1, Ordering::AcqRel);
        self.news.send_modify(|news| *news = news.wrapping_add(1));
    }

    fn finished(&self, outcome: Result<Known, String>) {
        let answered = outcome.is_ok();
        let problem = match outcome {
            Ok(known) => {
                let problem = known.keys.problem().filter(|_| self.signs == Signs::Always);
                let before = self.known.swap(Some(Arc::new(known)));
                let now = self.known.load();
                if before.as_ref().map(|known| known.keys.digest) != now.as_ref().map(|known| known.keys.digest) {
                    self.moved();
                    tracing::info!(issuer = %self.alias, keys = now.as_ref().map_or(0, |known| known.keys.len()), "keys of the issuer changed");
                }
                if let Some(problem) = &problem {
                    tracing::warn!(issuer = %self.alias, problem, "the issuer has no key that can be used");
                }
                problem
            }
            Err(problem) => {
                tracing::warn!(issuer = %self.alias, problem, "the issuer's metadata or keys could not be fetched");
                if self.known.load().is_some() && self.known().is_none() {
                    self.known.store(None);
                    self.moved();
                }
                Some(problem)
            }
        };
        self.attempts.send_modify(|attempt| {
            attempt.count += 1;
            attempt.answered = answered;
            attempt.problem = problem;
        });
    }

    async fn fetch(&self, client: &OauthClient) -> Result<Known, String> {
        if let KeySource::Transmitter(place) = &self.source {
            let keys = transmitter::keys(client, &self.url, place.as_ref()).await?;
            let fetched_at = Instant::now();
            let (token_endpoint, introspection_endpoint, authorization_endpoint) = (None, None, None);
            return Ok(Known { keys, token_endpoint, introspection_endpoint, authorization_endpoint, fetched_at });
        }
        let metadata = discovery::metadata(client, &self.url).await?;
        let keys = match &metadata.jwks_uri {
            Some(place) => KeySet::new(&discovery::keys(client, place).await?),
            None if self.signs == Signs::Perhaps => KeySet::none(),
            None => return Err("its metadata names no jwks_uri, so nobody can verify what it signs".to_owned()),
        };
        Ok(Known {
            keys,
            token_endpoint: metadata.token_endpoint,
            introspection_endpoint: metadata.introspection_endpoint,
            authorization_endpoint: metadata.authorization_endpoint,
            fetched_at: Instant::now(),
        })
    }
}

/// How long nobody is asked after so many failures in a row.
pub(super) fn pause_after(failures: u32) -> Duration {
    let doublings = failures.saturating_sub(1);
    let doubled = limit::JWKS_RETRY_MIN.saturating_mul(1_u32.checked_shl(doublings).unwrap_or(u32::MAX));
    doubled.min(limit::JWKS_RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::time::Instant as Moment;

    use super::*;
    use crate::identity::fixture::issuer_config;

    /// An issuer that nobody asks anything of: its task does not run.
    fn silent() -> Arc<Issuer> {
        Arc::new(Issuer::new(&issuer_config(), false, CancellationToken::new()))
    }

    fn near(took: Duration, max: Duration) -> bool {
        took >= max && took < max + Duration::from_secs(1)
    }

    #[tokio::test(start_paused = true)]
    async fn a_request_waits_for_keys_so_long() {
        let issuer = silent();
        let began = Moment::now();
        issuer.first_attempt().await;
        assert!(near(began.elapsed(), limit::JWKS_WAIT), "{:?}", began.elapsed());
        let began = Moment::now();
        assert!(!issuer.refresh_for_unknown_key().await);
        assert!(near(began.elapsed(), limit::JWKS_WAIT), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn so_many_requests_wait_for_keys_and_others_are_answered_at_once() {
        let issuer = silent();
        let waiting: Vec<_> = (0..limit::JWKS_WAITING_MAX)
            .map(|_| {
                let issuer = Arc::clone(&issuer);
                tokio::spawn(async move { issuer.refresh_for_unknown_key().await })
            })
            .collect();
        while issuer.waiting.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(issuer.refresh_for_unknown_key().now_or_never(), Some(false));
        assert_eq!(issuer.first_attempt().now_or_never(), Some(()));
        for waiting in waiting {
            assert!(!waiting.await.unwrap());
        }
    }

    #[tokio::test]
    async fn unknown_keys_make_us_ask_once_within_the_interval() {
        let issuer = silent();
        let nudged = || issuer.nudge.notified().now_or_never().is_some();
        assert_eq!(issuer.ask(3), 3);
        assert!(nudged());
        let asked_before =
            |age| issuer.asked.lock().unwrap().as_mut().unwrap().at = Instant::now().checked_sub(age).unwrap();
        asked_before(limit::JWKS_UNKNOWN_KEY_INTERVAL_MIN - Duration::from_secs(1));
        assert_eq!(issuer.ask(4), 3, "what that attempt finds is new enough");
        assert!(!nudged());
        asked_before(limit::JWKS_UNKNOWN_KEY_INTERVAL_MIN);
        assert_eq!(issuer.ask(4), 4);
        assert!(nudged());
    }
}
