//! A source for tests: servers that list what a test says, when it says.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::slice::{List, Slice};
use super::source::{Access, Facts, Listed, Listing, Source};
use crate::config::{
    Config, CredentialConfig, Durability, GatewayConfig, HealthConfig, Isolation, ListAs, Prefix, QuotaConfig,
    ReloadMode, ServerConfig, TransportConfig,
};
use crate::ids::{AuthorizationContext, Digest, Environment, PrincipalKey, ServerId};
use crate::outcome::{Failure, Reason};
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// What one server does.
#[derive(Clone, Default)]
pub(super) struct Script {
    pub(super) lists: HashMap<Kind, Vec<String>>,
    pub(super) capabilities: Option<String>,
    pub(super) instructions: Option<String>,
    pub(super) down: bool,
    pub(super) panics: bool,
    pub(super) broken: Option<Kind>,
    pub(super) slow: Duration,
    pub(super) ttl: Option<Duration>,
}

impl Script {
    pub(super) fn tools(names: &[&str]) -> Self {
        Self::default().with(Kind::Tool, names.iter().map(|name| tool(name)))
    }

    pub(super) fn with(mut self, kind: Kind, items: impl IntoIterator<Item = String>) -> Self {
        self.lists.insert(kind, items.into_iter().collect());
        self
    }

    pub(super) fn resources(self, uris: &[&str]) -> Self {
        self.with(Kind::Resource, uris.iter().map(|uri| format!(r#"{{"uri":"{uri}","name":"r"}}"#)))
    }

    pub(super) fn templates(self, templates: &[&str]) -> Self {
        let item = |template: &&str| format!(r#"{{"uriTemplate":"{template}","name":"t"}}"#);
        self.with(Kind::ResourceTemplate, templates.iter().map(item))
    }
}

pub(super) fn tool(name: &str) -> String {
    format!(r#"{{"name":{},"inputSchema":{{"type":"object"}}}}"#, serde_json::to_string(name).unwrap())
}

/// One fetch: server, principal, and the list (`None` is facts).
pub(super) type Fetch = (String, Option<PrincipalKey>, Option<Kind>);

/// The fake upstreams. A server may have one script for each principal.
#[derive(Default)]
pub(super) struct Fake {
    pub(super) scripts: Mutex<HashMap<(String, Option<PrincipalKey>), Script>>,
    /// Every fetch.
    pub(super) log: Mutex<Vec<Fetch>>,
    /// Where whatever is listed whole is accepted.
    pub(super) accepts: Mutex<Option<Arc<super::pins::Pins>>>,
}

impl Fake {
    pub(super) fn set(&self, server: &str, script: Script) {
        self.scripts.lock().unwrap().insert((server.to_owned(), None), script);
    }

    pub(super) fn set_for(&self, server: &str, principal: PrincipalKey, script: Script) {
        self.scripts.lock().unwrap().insert((server.to_owned(), Some(principal)), script);
    }

    pub(super) fn fetches(&self, server: &str) -> usize {
        self.log.lock().unwrap().iter().filter(|(of, _, kind)| of == server && kind.is_none()).count()
    }

    fn script(&self, server: &ServerId, access: &Access<PrincipalKey>, kind: Option<Kind>) -> Script {
        let principal = match access.context() {
            AuthorizationContext::Gateway => None,
            AuthorizationContext::Principal(principal) => Some(principal),
        };
        self.log.lock().unwrap().push((server.to_string(), principal, kind));
        self.scripts.lock().unwrap().get(&(server.to_string(), principal)).cloned().unwrap_or_default()
    }
}

impl Source for Fake {
    type Caller = PrincipalKey;

    fn facts<'a>(
        &'a self,
        server: &'a ServerId,
        access: &'a Access<PrincipalKey>,
    ) -> BoxFuture<'a, Result<Facts, Failure>> {
        Box::pin(async move {
            let script = self.script(server, access, None);
            tokio::time::sleep(script.slow).await;
            assert!(!script.panics, "as the test wants it");
            if script.down {
                return Err(Failure::before(Reason::UpstreamUnreachable, "connection refused"));
            }
            let announced: serde_json::Map<_, _> =
                script.lists.keys().map(|kind| (kind.capability().to_owned(), serde_json::json!({}))).collect();
            let capabilities = script
                .capabilities
                .map_or_else(|| Json::of(&announced), |text| Json::parse(text, crate::wire::Source::Upstream).unwrap());
            Ok(Facts { capabilities, instructions: script.instructions, info: None })
        })
    }

    fn list<'a>(
        &'a self,
        server: &'a ServerId,
        access: &'a Access<PrincipalKey>,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Listing, Failure>> {
        Box::pin(async move {
            let script = self.script(server, access, Some(kind));
            if script.down || script.broken == Some(kind) {
                return Err(Failure::after(Reason::UpstreamGarbage, "not a list"));
            }
            let items = script.lists.get(&kind).cloned().unwrap_or_default();
            let items = items.into_iter().map(|item| Json::parse(item, crate::wire::Source::Upstream).unwrap());
            Ok(Listing { items: items.collect(), ttl: script.ttl, public: false, own: false })
        })
    }

    fn listed<'a>(&'a self, listed: Listed<'a>) -> BoxFuture<'a, ()> {
        Box::pin(async move {
            let Some(pins) = self.accepts.lock().unwrap().clone().filter(|_| listed.complete) else { return };
            let held = |pinned: super::pins::Pinned| super::pins::HeldPin {
                digest: pinned.digest,
                server: listed.server.id.clone(),
                kind: pinned.kind,
                name: pinned.name,
                copy: None,
            };
            let accepted = listed.slice.pinned().into_iter().map(held).collect();
            pins.hold(super::pins::Held { accepted, ..super::pins::Held::default() });
        })
    }
}

pub(super) fn principal(name: &str) -> PrincipalKey {
    PrincipalKey(Digest::sha256(name.as_bytes()))
}

pub(crate) fn server(id: &str) -> ServerConfig {
    let second = Duration::from_secs(1);
    ServerConfig {
        id: ServerId::new(id).unwrap(),
        title: None,
        owner: "user:corp/owner".to_owned(),
        review: None,
        expires: None,
        environment: Environment::new("production").unwrap(),
        transport: TransportConfig::Http {
            url: format!("https://{id}.example/mcp").parse().unwrap(),
            allow_private: false,
        },
        credential: CredentialConfig::None,
        tool_credentials: std::collections::BTreeMap::new(),
        tool_budgets: std::collections::BTreeMap::new(),
        prefix: Prefix::Server,
        list_as: ListAs::Gateway,
        isolation: Isolation::Principal,
        pins: crate::config::PinMode::Off,
        on_down: Duration::from_secs(600),
        list_refresh_min: Duration::from_secs(60),
        uris: Vec::new(),
        health: HealthConfig {
            connect_timeout: second,
            first_byte_timeout: second,
            idle_timeout: second,
            call_timeout: second,
            input_timeout: Duration::from_secs(10),
            calls_in_flight_max: 8,
        },
        forward_headers: Vec::new(),
        discoverable: false,
        elicit_url_hosts: Vec::new(),
        redact: Vec::new(),
        idempotent: Vec::new(),
    }
}

pub(super) fn config(servers: Vec<ServerConfig>) -> Arc<Config> {
    Arc::new(Config {
        gateway: GatewayConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: "https://gateway.example".parse().unwrap(),
            state: PathBuf::from("state"),
            store: crate::config::StoreConfig::Sqlite,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            client_ca: None,
            client_certificate_header: None,
            dpop: crate::config::DpopMode::Proof,
            allow_loopback_issuers: false,
            reload: ReloadMode::Signal,
            durability: Durability::Fsync,
            shutdown_grace: Duration::from_secs(1),
        },
        cluster: None,
        record: crate::config::RecordConfig::fixture(),
        keys: crate::config::KeysConfig::default(),
        telemetry: None,
        exports: Vec::new(),
        feeds: Vec::new(),
        quota: QuotaConfig {
            requests_per_second: 1,
            requests_burst: 1,
            calls_in_flight_max: 1,
            streams_max: 1,
            refusals_per_second: 10,
            refusals_burst: 10,
        },
        issuers: Vec::new(),
        anonymous: false,
        local: None,
        admin: None,
        servers: servers.into_iter().map(Arc::new).collect(),
        environments: Vec::new(),
        agents: std::collections::BTreeMap::new(),
        pins: Arc::default(),
        attest_every: crate::limit::ATTEST_EVERY,
        breaker: crate::config::BreakerConfig::default(),
        templates: std::collections::BTreeMap::new(),
        gates: Vec::new(),
        break_glass: Vec::new(),
        webhooks: Vec::new(),
        policies: PathBuf::from("policies"),
        file: PathBuf::from("/nonexistent/servers.toml"),
    })
}

/// A slice with these tools, as if a server had listed them.
pub(crate) fn slice(server: &str, tools: &[&str], instructions: Option<&str>) -> Slice {
    listed(server, tools, instructions, None)
}

/// The same, called fresh for so long.
pub(super) fn slice_for(server: &str, tools: &[&str], ttl: Duration) -> Slice {
    listed(server, tools, None, Some(ttl))
}

fn listed(server: &str, tools: &[&str], instructions: Option<&str>, ttl: Option<Duration>) -> Slice {
    let server = ServerId::new(server).unwrap();
    let items = tools.iter().map(|text| Json::parse(*text, crate::wire::Source::Upstream).unwrap()).collect();
    let list = List::read(&server, Kind::Tool, &Listing { items, ttl, public: false, own: false });
    let facts = Facts {
        capabilities: Json::of(&serde_json::json!({ "tools": {} })),
        instructions: instructions.map(str::to_owned),
        info: None,
    };
    let empty = Arc::new(List::empty());
    let lists = [Arc::new(list), Arc::clone(&empty), Arc::clone(&empty), empty];
    Slice::new(server, AuthorizationContext::Gateway, Arc::new(facts), lists)
}
