//! What `servers.toml` means, once it has been read and found free of mistakes.
//!
//! Decides which configurations exist: a value of these types is complete, cross-checked and has its
//! defaults filled in. What the file says, and where a mistake in it stands, is `config/file.rs`.
//! Knows nothing of the rooms that use it. Invariant: a [`Config`] that exists may be served.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use crate::ids::{AgentId, Environment, ServerId, TemplateName};

mod account;
pub mod admin;
mod agent;
pub mod break_glass;
pub mod cluster;
mod credential;
mod export;
pub mod feed;
pub mod file;
pub mod fresh;
pub mod gate;
pub mod introspection;
mod issuer;
pub mod kept;
pub mod keyfile;
pub mod keys;
pub mod known;
pub(crate) mod leaf;
pub mod load;
pub mod mandate;
pub mod mistake;
pub mod net;
pub mod pins;
pub mod process;
mod reader;
pub mod record;
pub mod redact;
pub mod replace;
pub mod rotated;
pub mod rows;
pub mod seal;
pub mod secret;
pub mod set;
pub mod spiffe;
pub mod store;
pub mod webhook;

pub use account::{LinkClient, OauthConfig};
pub use admin::{AdminClient, AdminConfig, ConsoleConfig};
pub use agent::{
    API_KEY_PREFIX, AgentClient, AgentConfig, AgentKind, AgentState, ApiKeyConfig, DeclaredProof, KnownBy,
};
pub use break_glass::BreakGlassConfig;
pub use cluster::ClusterConfig;
pub use credential::{
    ActorToken, ClientAuthentication, CredentialConfig, ExchangeConfig, IdJagConfig, OnStale, PrivateKey,
    SigningAlgorithm, StaticConfig, TokenRequest,
};
pub use export::{ExportConfig, ExportPlace, TelemetryConfig};
pub use feed::FeedConfig;
pub use gate::{Approvers, GateConfig, GateKind};
pub use introspection::{IntrospectionConfig, IntrospectionProof, Nameless};
pub use issuer::{Algorithm, ClaimNames, IssuerConfig, OwnSign, RegistrationConfig, ScopeMode, ScopeRule};
pub use load::{Loaded, Overrides, issuer_with_defaults, load, load_set, load_with};
pub use mandate::{AgentBudget, BreakerConfig, Budget, MandateNeed, Placed, TemplateConfig};
pub use mistake::Mistake;
pub use net::Network;
pub use pins::PinLock;
pub use process::ProcessConfig;
pub use record::{KeysConfig, ObjectStoreConfig, RecordConfig, SinkConfig};
pub use redact::RedactedPath;
pub use rows::ChangedRows;
pub use seal::Seal;
pub use secret::SecretReference;
pub use set::FileSet;
pub use store::{PostgresConfig, StoreConfig};
pub use webhook::WebhookConfig;

/// One complete configuration of the gateway.
#[derive(Debug, Clone)]
pub struct Config {
    /// `[gateway]`.
    pub gateway: GatewayConfig,
    /// `[cluster]`: how replicas reach each other.
    pub cluster: Option<ClusterConfig>,
    /// `[record]`: how the record is signed and kept.
    pub record: RecordConfig,
    /// `[keys]`: keys that the gateway does not make for itself.
    pub keys: KeysConfig,
    /// `[telemetry]`: traces and metrics for a collector.
    pub telemetry: Option<TelemetryConfig>,
    /// `[export.NAME]`: the record for whoever watches it.
    pub exports: Vec<ExportConfig>,
    /// `[admin]`: the administrators' listener; without it there is the control socket alone.
    pub admin: Option<AdminConfig>,
    /// `[limits]`: what one principal may use at once.
    pub quota: QuotaConfig,
    /// `[issuers.ALIAS]`, in the order of the file.
    pub issuers: Vec<Arc<IssuerConfig>>,
    /// `[feeds.NAME]`, in the order of the file.
    pub feeds: Vec<Arc<FeedConfig>>,
    /// `[anonymous]`: accepted on a loopback listener only.
    pub anonymous: bool,
    /// Whom a gateway in the assistant's own process serves, and nobody else; never in a file.
    pub local: Option<LocalUser>,
    /// `[servers.ID]`, in the order of the file, which is the order of every list.
    pub servers: Vec<Arc<ServerConfig>>,
    /// The environments that exist: those of the servers, plus `environments = [...]`.
    pub environments: Vec<Environment>,
    /// `policies/agents.toml`.
    pub agents: BTreeMap<AgentId, Arc<AgentConfig>>,
    /// `policies/pins.lock`.
    pub pins: Arc<PinLock>,
    /// How often owners say that agents and servers are still needed.
    pub attest_every: Duration,
    /// `[breaker]` of `policies/agents.toml`.
    pub breaker: BreakerConfig,
    /// `policies/mandates.toml`.
    pub templates: BTreeMap<TemplateName, Arc<TemplateConfig>>,
    /// `[webhooks.NAME]`: who is told that something happened.
    pub webhooks: Vec<WebhookConfig>,
    /// `policies/gates.toml`, in the order of their names.
    pub gates: Vec<Arc<GateConfig>>,
    /// What somebody gets for a moment in an emergency, from the same file, in the order of their names.
    pub break_glass: Vec<BreakGlassConfig>,
    /// Where the policy files are.
    pub policies: PathBuf,
    /// The file that this was read from.
    pub file: PathBuf,
}

impl Config {
    /// The server of that name, if there is one.
    #[must_use]
    pub fn server(&self, id: &ServerId) -> Option<&Arc<ServerConfig>> {
        self.servers.iter().find(|server| server.id == *id)
    }
}

/// `[gateway]`: where it listens and what it calls itself.
#[derive(Debug, Clone)]
pub struct GatewayConfig {
    /// Address of the MCP listener.
    pub listen: SocketAddr,
    /// The only source of resource names and metadata, without a trailing slash; never taken from `Host`.
    pub public_url: Url,
    /// State directory: journal, store, keys, control socket. Mode 0700.
    pub state: PathBuf,
    /// Where rows are kept.
    pub store: StoreConfig,
    /// Browser origins that may call, beside `public_url`'s own and loopback ones on a loopback listener.
    pub allowed_origins: Vec<String>,
    /// Host names that requests may carry, beside `public_url`'s and the listener's own.
    pub allowed_hosts: Vec<String>,
    /// Proxies whose `Forwarded`/`X-Forwarded-For` are believed.
    pub trusted_proxies: Vec<Network>,
    /// TLS certificate and key, reloaded when the files change.
    pub tls: Option<TlsConfig>,
    /// Whose certificates clients may show there, PEM; they may also show none.
    pub client_ca: Option<PathBuf>,
    /// In which header a trusted proxy tells of the client's certificate.
    pub client_certificate_header: Option<CertificateHeader>,
    /// What a DPoP proof needs.
    pub dpop: DpopMode,
    /// `http:` and loopback issuers are accepted; only together with a loopback listener.
    pub allow_loopback_issuers: bool,
    /// When changed files are read again.
    pub reload: ReloadMode,
    /// How sure an intent is to survive before its call is forwarded.
    pub durability: Durability,
    /// How long in-flight calls may take to finish when the gateway stops.
    pub shutdown_grace: Duration,
}

impl GatewayConfig {
    /// The resource that tokens are for, and the endpoint's URL: `/mcp`, or `/mcp/{server}`.
    #[must_use]
    pub fn resource(&self, server: Option<&ServerId>) -> String {
        let base = self.public_url.as_str().trim_end_matches('/');
        server.map_or_else(|| format!("{base}/mcp"), |server| format!("{base}/mcp/{server}"))
    }

    /// Whether nobody but this machine is served, a proxy in front of it included.
    #[must_use]
    pub fn is_for_this_machine(&self) -> bool {
        self.listen.ip().is_loopback() && self.is_named_for_this_machine() && self.trusted_proxies.is_empty()
    }

    /// Whether its name is one of this machine's: what others call otherwise is reached from elsewhere, wherever it
    /// listens.
    #[must_use]
    pub fn is_named_for_this_machine(&self) -> bool {
        file::address::is_loopback(&self.public_url)
    }
}

/// The one user of `stdio --standalone`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LocalUser {
    /// The operating system's name of the user: `user:local/NAME` in rules.
    pub name: String,
    /// The interactive agent that the user's assistant is.
    pub agent: AgentId,
}

/// TLS of a listener: PEM files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsConfig {
    /// Certificate chain, leaf first.
    pub certificate: PathBuf,
    /// Private key.
    pub key: PathBuf,
}

/// When changed files are read again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReloadMode {
    /// On `bailiwick reload` or SIGHUP.
    Signal,
    /// Whenever a file changes; for laptops and the demo.
    Watch,
}

/// In which header a trusted proxy tells of the client's certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CertificateHeader {
    /// `Client-Cert` and `Client-Cert-Chain` (RFC 9440).
    ClientCert,
    /// `X-Forwarded-Client-Cert`, as Envoy writes it.
    Xfcc,
}

/// What a DPoP proof needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DpopMode {
    /// To be fresh and new.
    Proof,
    /// To be made with a nonce of ours as well.
    Nonce,
}

/// What a token must be bound to, so that whoever steals it can do nothing with it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum SenderConstraint {
    /// To nothing; one that is bound still needs its proof.
    #[default]
    None,
    /// To a key (RFC 9449).
    Dpop,
    /// To a client certificate (RFC 8705).
    Mtls,
    /// To either.
    Any,
}

/// How sure an intent is to survive before its call is forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Durability {
    /// On the disk: survives the machine's death. The default.
    Fsync,
    /// In the page cache: survives our own death but not the machine's.
    Os,
}

/// `[limits]`: what one principal may use at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaConfig {
    /// Requests per second, sustained.
    pub requests_per_second: u32,
    /// Requests that may come at once after a pause.
    pub requests_burst: u32,
    /// Calls in flight.
    pub calls_in_flight_max: usize,
    /// Open streams (listens, GET streams).
    pub streams_max: usize,
    /// Of whoever is nobody yet, from one address: refusals per second, sustained.
    pub refusals_per_second: u32,
    /// Refusals that may come at once after a pause.
    pub refusals_burst: u32,
}

/// `[servers.ID]`: an upstream MCP server.
#[derive(Debug, Clone)]
pub struct ServerConfig {
    /// Its name here.
    pub id: ServerId,
    /// One line for people.
    pub title: Option<String>,
    /// Who answers for it: a person or group. An ownerless server is not served.
    pub owner: String,
    /// When that answer has to be given again.
    pub review: Option<jiff::civil::Date>,
    /// After this day it is there for nobody.
    pub expires: Option<jiff::civil::Date>,
    /// Whether somebody who may use nothing of it may know that it exists, and whom to ask.
    pub discoverable: bool,
    /// Where its effects land.
    pub environment: Environment,
    /// How it is reached.
    pub transport: TransportConfig,
    /// What is presented to it.
    pub credential: CredentialConfig,
    /// Tools whose credential differs from the server's, by upstream tool name.
    pub tool_credentials: BTreeMap<String, CredentialConfig>,
    /// What all callers together may use of single tools.
    pub tool_budgets: BTreeMap<String, AgentBudget>,
    /// How its names appear on `/mcp`.
    pub prefix: Prefix,
    /// With whose credential its lists are fetched.
    pub list_as: ListAs,
    /// Whether callers share upstream sessions.
    pub isolation: Isolation,
    /// Which of its definitions are shown before somebody has accepted them.
    pub pins: PinMode,
    /// Tools of which to call them twice is to call them once, by their own names.
    pub idempotent: Vec<String>,
    /// How long its tools stay listed while it is down.
    pub on_down: Duration,
    /// Lists are fetched again at most this often.
    pub list_refresh_min: Duration,
    /// URI prefixes that route to it on `/mcp`.
    pub uris: Vec<String>,
    /// Time-outs and bounds of its connections.
    pub health: HealthConfig,
    /// Inbound HTTP headers that are passed on, lower case.
    pub forward_headers: Vec<String>,
    /// Hosts that it may ask users to visit (elicitation in URL mode): exact, or all below after `*.`.
    pub elicit_url_hosts: Vec<String>,
    /// Arguments of its tools that are left out of the record.
    pub redact: Vec<RedactedPath>,
}

impl ServerConfig {
    /// Whether some of its calls are made with an account that its caller has linked.
    #[must_use]
    pub fn has_accounts(&self) -> bool {
        let all = std::iter::once(&self.credential).chain(self.tool_credentials.values());
        all.into_iter().any(|credential| matches!(credential, CredentialConfig::Oauth(_)))
    }

    /// Whether its process is held by nothing but its limits.
    #[must_use]
    pub const fn is_unconfined(&self) -> bool {
        matches!(&self.transport, TransportConfig::Stdio { process, .. } if matches!(process.sandbox, process::Sandbox::None))
    }

    /// Whether its process was given the network, and with it this machine's own addresses.
    #[must_use]
    pub fn reaches_this_machine(&self) -> bool {
        let TransportConfig::Stdio { process, .. } = &self.transport else { return false };
        matches!(&process.sandbox, process::Sandbox::Required(reach) if reach.network == process::Network::On)
    }
}

/// How an upstream is reached.
#[derive(Debug, Clone)]
pub enum TransportConfig {
    /// Streamable HTTP.
    Http {
        /// The MCP endpoint.
        url: Url,
        /// Private and loopback addresses are allowed for this server; off by default (SSRF).
        allow_private: bool,
    },
    /// A child process that speaks MCP on its standard streams.
    Stdio {
        /// Executable and arguments; no shell.
        command: Vec<String>,
        /// The whole environment of the child: values may be secret references.
        environment: BTreeMap<String, SecretReference>,
        /// Its working directory; a private one when absent.
        directory: Option<PathBuf>,
        /// What it may use and reach.
        process: ProcessConfig,
    },
}

/// How a server's names appear on `/mcp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Prefix {
    /// `server__name`.
    Server,
    /// Verbatim; a collision is refused and reported.
    None,
}

/// With whose credential lists are fetched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ListAs {
    /// The gateway's: one slice for everyone.
    Gateway,
    /// The caller's: never shown to another.
    Caller,
}

/// Which definitions of a server are shown before somebody has accepted them, from none to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum PinMode {
    /// None.
    Strict,
    /// Those of its first complete list, where nothing about them is odd.
    FirstUse,
    /// All: nothing is pinned.
    Off,
}

impl PinMode {
    /// As the file spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::FirstUse => "first_use",
            Self::Off => "off",
        }
    }
}

/// Whether callers share upstream sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Isolation {
    /// A session or process for each principal.
    Principal,
    /// One for all; declares no client capabilities.
    Shared,
}

/// Time-outs and bounds of one upstream's connections.
#[derive(Debug, Clone)]
pub struct HealthConfig {
    /// To connect, or to start the process and have it answer.
    pub connect_timeout: Duration,
    /// To the first byte of an answer.
    pub first_byte_timeout: Duration,
    /// Between two messages of a stream.
    pub idle_timeout: Duration,
    /// For the whole call.
    pub call_timeout: Duration,
    /// For the answer to what it asks in the middle of a call.
    pub input_timeout: Duration,
    /// Calls in flight at once; more wait in a queue of the same length.
    pub calls_in_flight_max: usize,
}
