//! A pipeline for tests of the protocol: it answers what its script says and remembers what it was asked.

use std::collections::{HashMap, VecDeque};
use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::pipeline::Pipeline;
use crate::call::{ClientFacts, Endpoint, Request};
use crate::config::{
    Algorithm, ClaimNames, Config, Durability, GatewayConfig, IssuerConfig, QuotaConfig, ReloadMode, ScopeMode,
    ScopeRule,
};
use crate::gateway::sessions::Since;
use crate::gateway::whole::Proven;
use crate::identity::{Presented, Shown};
use crate::ids::{Digest, IssuerAlias, PrincipalKey};
use crate::outcome::{Failure, Outcome, Reason, Refusal, Stop};
use crate::upstream::Event;
use crate::watch::{Interest, Watched};
use crate::wire::Json;
use crate::wire::mcp::{Kind, Version};
use crate::wire::voids::Holder;

/// A configuration on a loopback listener with one issuer.
pub(crate) fn config() -> Config {
    let issuer = IssuerConfig {
        alias: IssuerAlias::new("corp").unwrap(),
        issuer: "https://idp.example".into(),
        audiences: Vec::new(),
        admin_audiences: Vec::new(),
        algorithms: vec![Algorithm::Es256],
        token_types: vec!["at+jwt".into()],
        token_life_max: Duration::from_secs(3600),
        leeway: Duration::from_secs(30),
        claims: ClaimNames::none(),
        optional_claims: Vec::new(),
        own_tokens: Vec::new(),
        default_roles: Vec::new(),
        scopes: ScopeMode::Required(vec![ScopeRule {
            scope: "deploy".into(),
            object: "*/*".into(),
            actions: vec!["call".into()],
        }]),
        interactive_default: None,
        jwks_stale_max: Duration::from_secs(3600),
        sender_constraint: crate::config::SenderConstraint::None,
        kind: crate::config::spiffe::IssuerKind::Oidc,
        introspection: None,
        registration: None,
        link: None,
    };
    Config {
        gateway: GatewayConfig {
            listen: "127.0.0.1:8080".parse().unwrap(),
            public_url: Url::parse("http://127.0.0.1:8080").unwrap(),
            state: "/nonexistent".into(),
            store: crate::config::StoreConfig::Sqlite,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            client_ca: None,
            client_certificate_header: None,
            dpop: crate::config::DpopMode::Proof,
            allow_loopback_issuers: true,
            reload: ReloadMode::Signal,
            durability: Durability::Os,
            shutdown_grace: Duration::from_secs(5),
        },
        cluster: None,
        record: crate::config::RecordConfig::fixture(),
        keys: crate::config::KeysConfig::default(),
        telemetry: None,
        exports: Vec::new(),
        feeds: Vec::new(),
        quota: QuotaConfig {
            requests_per_second: 10,
            requests_burst: 10,
            calls_in_flight_max: 10,
            streams_max: 10,
            refusals_per_second: 10,
            refusals_burst: 10,
        },
        issuers: vec![Arc::new(issuer)],
        anonymous: false,
        local: None,
        admin: None,
        servers: Vec::new(),
        environments: Vec::new(),
        agents: std::collections::BTreeMap::new(),
        pins: Arc::default(),
        attest_every: crate::limit::ATTEST_EVERY,
        breaker: crate::config::BreakerConfig::default(),
        templates: std::collections::BTreeMap::new(),
        gates: Vec::new(),
        break_glass: Vec::new(),
        webhooks: Vec::new(),
        policies: "/nonexistent".into(),
        file: std::path::PathBuf::from("/nonexistent/servers.toml"),
    }
}

/// A pipeline that does what the test says. A bearer token is the caller's name; `bad` is no token.
pub(crate) struct Scripted {
    pub(crate) config: Arc<Config>,
    /// What the next call yields; the call ends (or hangs, see `hang`) after these.
    pub(crate) events: Mutex<VecDeque<Event>>,
    /// After the events the call stays open.
    pub(crate) hang: bool,
    /// Nothing is ever decided.
    pub(crate) undecided: bool,
    /// Every request that came through.
    pub(crate) seen: Mutex<Vec<Request>>,
    /// How many calls were dropped before their end.
    pub(crate) cancelled: Arc<Mutex<usize>>,
    /// What open watches yield.
    pub(crate) watched: Mutex<Option<mpsc::UnboundedReceiver<Watched>>>,
    pub(crate) ready: bool,
    /// What is kept of sessions, and how often that was asked for.
    pub(crate) sessions: Mutex<HashMap<String, Since>>,
    pub(crate) asked_of_sessions: Mutex<usize>,
    /// How long lists are.
    pub(crate) long: usize,
    pub(crate) refusals: Mutex<Vec<Reason>>,
    /// Whose questions nobody answered.
    pub(crate) given_up: Mutex<Vec<Request>>,
    pub(crate) declined: Mutex<Vec<(String, Reason)>>,
    /// Tasks that open watches were to hear of.
    pub(crate) followed: Arc<Mutex<Vec<String>>>,
    /// Whose roots have changed.
    pub(crate) roots: Mutex<Vec<String>>,
}

/// An open watch.
pub(crate) struct Heard {
    told: mpsc::UnboundedReceiver<Watched>,
    followed: Arc<Mutex<Vec<String>>>,
}

pub(crate) struct Call {
    events: VecDeque<Event>,
    hang: bool,
    over: bool,
    cancelled: Arc<Mutex<usize>>,
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.over {
            *self.cancelled.lock().unwrap() += 1;
        }
    }
}

impl Scripted {
    pub(crate) fn new(events: impl IntoIterator<Item = Event>) -> Self {
        Self {
            config: Arc::new(config()),
            events: Mutex::new(events.into_iter().collect()),
            hang: false,
            undecided: false,
            seen: Mutex::default(),
            cancelled: Arc::default(),
            watched: Mutex::default(),
            ready: true,
            sessions: Mutex::default(),
            asked_of_sessions: Mutex::default(),
            long: 0,
            refusals: Mutex::default(),
            given_up: Mutex::default(),
            declined: Mutex::default(),
            followed: Arc::default(),
            roots: Mutex::default(),
        }
    }
}

impl Pipeline for Scripted {
    type Caller = String;
    type Running = Call;
    type Watch = Heard;

    fn config(&self) -> Arc<Config> {
        Arc::clone(&self.config)
    }

    fn asked_by_replica(&self, proof: &str) -> Option<Proven> {
        (proof == "of a replica").then(Proven::of_test)
    }

    async fn tell_replica(&self, _: &Proven, _body: &[u8]) -> Result<Vec<u8>, Stop> {
        Ok(Vec::new())
    }

    async fn authenticate(&self, shown: Shown<'_>, _: &Endpoint, _: IpAddr) -> Result<String, Stop> {
        let token = match shown.credential {
            Presented::Nothing => None,
            Presented::Bearer(token) | Presented::Dpop(token) => Some(token),
        };
        match token {
            None => Err(Refusal::new(Reason::TokenMissing).into()),
            Some("" | "bad") => Err(Refusal::new(Reason::TokenMalformed).into()),
            Some(name) => Ok(name.to_owned()),
        }
    }

    fn refused_unauthenticated(&self, reason: Reason, _: IpAddr) {
        self.refusals.lock().unwrap().push(reason);
    }

    fn refused(&self, caller: &String, reason: Reason) {
        self.declined.lock().unwrap().push((caller.clone(), reason));
    }

    fn principal(caller: &String) -> PrincipalKey {
        PrincipalKey(Digest::of("test", &[caller.as_bytes()]))
    }

    fn holder(&self, caller: &String) -> Holder {
        Self::principal(caller).into()
    }

    fn credential(caller: &String) -> Digest {
        Digest::sha256(caller.as_bytes())
    }

    async fn call(self: Arc<Self>, _: String, request: Box<Request>) -> Call {
        self.seen.lock().unwrap().push(*request);
        if self.undecided {
            std::future::pending::<()>().await;
        }
        let events = std::mem::take(&mut *self.events.lock().unwrap());
        Call { events, hang: self.hang, over: false, cancelled: Arc::clone(&self.cancelled) }
    }

    fn abandon(&self, _: crate::ids::ParkId) {}

    async fn give_up(self: Arc<Self>, _: String, request: Request) {
        self.given_up.lock().unwrap().push(request);
    }

    async fn next_event(running: &mut Call) -> Event {
        tokio::task::yield_now().await;
        match running.events.pop_front() {
            Some(event) => {
                running.over |= matches!(event, Event::Done(_));
                event
            }
            None if running.hang => std::future::pending().await,
            None => {
                running.over = true;
                Event::Done(Outcome::Complete(Json::of(&serde_json::json!({ "content": [] }))))
            }
        }
    }

    async fn roots_changed(self: Arc<Self>, caller: String, _: Endpoint, _: ClientFacts) {
        self.roots.lock().unwrap().push(caller);
    }

    async fn list(self: &Arc<Self>, caller: &String, request: &Request, kind: Kind) -> Result<Json, Stop> {
        self.seen.lock().unwrap().push(request.clone());
        let (member, name, long) = (kind.list_member(), Json::of(caller), "x".repeat(self.long));
        Ok(Json::joined(format!(
            r#"{{"{member}":[{{"name":{},"inputSchema":{{"type":"object"}},"description":"{long}"}}],"resultType":"complete","ttlMs":0,"cacheScope":"private"}}"#,
            name.as_str()
        )))
    }

    async fn discover(self: &Arc<Self>, _: &String, request: &Request) -> Result<Json, Stop> {
        self.seen.lock().unwrap().push(request.clone());
        Ok(Json::of(&serde_json::json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0,
            "cacheScope": "private", "capabilities": { "tools": {} },
            "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "scripted", "version": "1" } } })))
    }

    async fn initialize(self: &Arc<Self>, _: &String, request: &Request, version: Version) -> Result<Json, Stop> {
        self.seen.lock().unwrap().push(request.clone());
        Ok(Json::of(&serde_json::json!({ "protocolVersion": version.as_str(), "capabilities": { "tools": {} },
            "serverInfo": { "name": "scripted", "version": "1" } })))
    }

    async fn session(&self, session: &str) -> Result<Since, Failure> {
        *self.asked_of_sessions.lock().unwrap() += 1;
        Ok(self.sessions.lock().unwrap().get(session).cloned().unwrap_or_default())
    }

    async fn keep_session(&self, _: &String, session: &str, since: &Since, _: i64) -> Result<(), Stop> {
        let mut sessions = self.sessions.lock().unwrap();
        let known = sessions.entry(session.to_owned()).or_default();
        *known = known.with(since);
        Ok(())
    }

    async fn watch(
        self: &Arc<Self>,
        _: &String,
        _: &Endpoint,
        _: &ClientFacts,
        _: Interest,
    ) -> Result<Self::Watch, Stop> {
        let told = self.watched.lock().unwrap().take().ok_or_else(|| Refusal::new(Reason::StreamsLimited))?;
        Ok(Heard { told, followed: Arc::clone(&self.followed) })
    }

    fn honoured(_: &Self::Watch) -> Interest {
        Interest { tools: true, ..Interest::default() }
    }

    async fn renew(_: &mut Self::Watch, _: String) {}

    fn subscribe(_: &mut Self::Watch, _: String) -> impl Future<Output = Outcome> + Send + 'static {
        std::future::ready(Outcome::Complete(Json::of(&serde_json::json!({}))))
    }

    fn unsubscribe(_: &mut Self::Watch, _: &str) {}

    fn follow_task(watch: &mut Self::Watch, id: String) {
        watch.followed.lock().unwrap().push(id);
    }

    async fn next_watched(watch: &mut Self::Watch) -> Watched {
        watch.told.recv().await.unwrap_or(Watched::Ended(Reason::ShuttingDown))
    }

    async fn fallen(self: Arc<Self>, _: String) {
        std::future::pending::<()>().await;
    }

    fn stopping(&self) -> CancellationToken {
        CancellationToken::new()
    }

    fn has_page(&self, _: &str) -> bool {
        false
    }

    async fn page(self: &Arc<Self>, _: &http::Method, _: crate::link::Visit<'_>) -> http::Response<String> {
        http::Response::new(String::new())
    }

    fn is_ready(&self) -> bool {
        self.ready
    }
}
