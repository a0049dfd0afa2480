//! What a demo starts, on which addresses, and in which order it ends.
//!
//! Invariant: the issuer and the samples listen on loopback, the gateway refuses anything else for their sake, and
//! nothing outlives the process.

use std::fmt::Write as _;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use secrecy::SecretString;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use url::{Host, Url};

use super::state::DemoState;
use crate::cli::output::{QUIET, STRONG, WARNING};
use crate::cli::stdio::client::Client;
use crate::cli::use_it::DemoArguments;
use crate::config::{self, Config, Overrides, TransportConfig};
use crate::demo::issuer::ALIAS;
use crate::demo::upstreams::{self, Backstage, Sample, Started};
use crate::demo::{DOOR_FILE, DemoClient, DemoIssuer, DemoOptions, DemoPages, DemoUser, MintRequest};
use crate::ids::{AgentId, ServerId};
use crate::oauth::browser::random;
use crate::record::journal;
use crate::serve::{self, Options, Served, StartError};

/// Where the issuer is, unless something else is there.
const ISSUER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 7810);

/// Who can sign in: name, title, group.
pub(super) const PEOPLE: [(&str, &str, &str); 3] = [
    ("alice", "Alice, a developer", "developers"),
    ("bob", "Bob, an auditor", "auditors"),
    ("carol", "Carol, a release manager", "release-managers"),
];
/// So many of them have assistants.
pub(super) const LISTED: usize = 2;

/// The client of an agent that acts on its own.
pub(super) const SOFTWARE: &str = "release-bot";

/// How it is told that an address is taken.
const CANNOT_LISTEN: &str = "cannot listen on ";

/// Everything that runs.
pub(super) struct Stage {
    pub(super) served: Served,
    issuer: DemoIssuer,
    samples: Vec<(Sample, Started)>,
    state: DemoState,
    /// What is otherwise than the files say.
    notes: Vec<String>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Stage {
    /// Starts issuer, samples and gateway.
    pub(super) async fn start(arguments: &DemoArguments) -> Result<Self, StartError> {
        let mut overrides = Overrides::for_demo().map_err(StartError::Mistakes)?;
        overrides.listen = arguments.listen.map(with_port).transpose()?;
        let file = arguments.files.config.clone();
        let planned = config::load_with(&file, &overrides).map_err(StartError::Mistakes)?.config;
        let listen = planned.gateway.listen;
        if planned.gateway.tls.is_some() || planned.admin.as_ref().is_some_and(|admin| admin.tls.is_some()) {
            let told = "the demo speaks plain HTTP on this machine: use files without [gateway.tls] and [admin.tls]";
            return Err(trouble(told));
        }
        let state =
            DemoState::prepare(&planned.gateway.state, arguments.state.as_deref()).map_err(StartError::Trouble)?;
        let (tasks, stop) = (TaskTracker::new(), CancellationToken::new());
        let mut notes = Vec::new();
        overrides.admin_listen = planned.admin.as_ref().map(|admin| admin.listen);
        let issuer = start_issuer(&planned, listen, &state, &tasks, &stop).await?;
        let samples = start_samples(&planned, &mut overrides, &mut notes).await?;
        overrides.issuers = vec![issuer.issuer_config().map_err(StartError::Trouble)?];
        overrides.public_url = Some(Url::parse(&format!("http://{listen}")).map_err(trouble)?);
        overrides.state = Some(state.path().to_owned());
        let served = start_gateway(file, overrides, &mut notes).await?;
        Ok(Self { served, issuer, samples, state, notes, tasks, stop })
    }

    /// Whether a sample server of this demo is behind the gateway.
    pub(super) fn has(&self, sample: Sample) -> bool {
        self.samples.iter().any(|(started, _)| *started == sample)
    }

    /// The merged endpoint.
    pub(super) fn url(&self) -> String {
        self.served.gateway.config().gateway.resource(None)
    }

    /// The console, where people of this issuer can sign in to it.
    pub(super) fn console(&self) -> Option<String> {
        let config = self.served.gateway.config();
        let admin = config.admin.as_ref()?;
        let console = admin.console.as_ref().filter(|console| console.issuer.as_str() == ALIAS);
        console.map(|_| admin.resource())
    }

    /// Where journal, store and control socket are.
    pub(super) fn state(&self) -> &Path {
        self.state.path()
    }

    /// What can be done to the sample server `deploy`.
    pub(super) fn backstage(&self) -> Option<&Backstage> {
        self.samples.iter().find_map(|(_, started)| started.backstage())
    }

    /// Where the segments of the journal are.
    pub(super) fn journal(&self) -> PathBuf {
        journal::directory(self.state.path())
    }

    /// An assistant of that person.
    pub(super) fn assistant(&self, user: &str) -> Result<Client, String> {
        self.client(&self.issuer.mint(&MintRequest { user: user.to_owned(), ..MintRequest::default() })?)
    }

    /// An agent that acts on its own, as that client.
    pub(super) fn software(&self, client: &str) -> Result<Client, String> {
        self.client(&self.issuer.mint_for_client(client)?)
    }

    fn client(&self, token: &SecretString) -> Result<Client, String> {
        let url = self.url();
        Client::new(&Url::parse(&url).map_err(|error| format!("{url}: {error}"))?, Some(token))
    }

    /// What runs where.
    pub(super) fn told(&self) -> String {
        let mut text = String::new();
        let people: Vec<String> = PEOPLE.iter().map(|(name, _, group)| format!("{name} in {group}")).collect();
        let mut row = |name: &str, value: &str, more: &str| {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "{STRONG}{name:<10}{STRONG:#}{value}  {QUIET}{more}{QUIET:#}");
        };
        row("gateway", &self.url(), "the one MCP server that assistants see");
        if let Some(console) = self.console() {
            row("console", &format!("{console}/"), "for people who look after it; carol may");
        }
        row("issuer", self.issuer.url(), &people.join(", "));
        for (sample, started) in &self.samples {
            let more = match sample {
                Sample::Notes => "speaks MCP 2026-07-28",
                Sample::Deploy => "speaks MCP 2025-11-25 and older",
            };
            row(sample.as_str(), &started.url(), more);
        }
        let until =
            if self.state.is_temporary() { "journal and keys; removed at the end" } else { "journal and keys; kept" };
        row("state", &self.state.path().display().to_string(), until);
        for note in &self.notes {
            let _infallible = writeln!(text, "{WARNING}{note}{WARNING:#}");
        }
        text
    }

    /// Ends everything, the gateway first.
    pub(super) async fn stop(self, cause: &str) {
        self.served.stop(cause).await;
        for (_, sample) in self.samples {
            // It ends with the process anyway.
            let _ended = tokio::time::timeout(std::time::Duration::from_secs(2), sample.stop()).await;
        }
        self.stop.cancel();
        self.tasks.close();
        let _ended = tokio::time::timeout(std::time::Duration::from_secs(2), self.tasks.wait()).await;
        drop(self.state);
    }
}

/// Starts the gateway; where something else has the address for administrators, they get another one.
async fn start_gateway(file: PathBuf, mut overrides: Overrides, notes: &mut Vec<String>) -> Result<Served, StartError> {
    let options = |overrides: &Overrides| Options { file: file.clone(), overrides: overrides.clone() };
    let taken = match serve::start(options(&overrides)).await {
        Err(StartError::Trouble(problem)) if problem.starts_with(CANNOT_LISTEN) => problem,
        other => return other,
    };
    let told = |planned: SocketAddr| taken.strip_prefix(&format!("{CANNOT_LISTEN}{planned}: "));
    let Some((planned, because)) = overrides.admin_listen.and_then(|planned| Some((planned, told(planned)?))) else {
        return Err(StartError::Trouble(format!("{taken}; name another address with --listen")));
    };
    let other = with_port(any(planned))?;
    overrides.admin_listen = Some(other);
    notes.push(format!("`console` is at {other}, because of {planned}: {because}"));
    notes.push("(which address it wants stands in servers.toml: `listen` under [admin])".to_owned());
    serve::start(options(&overrides)).await
}

async fn start_issuer(
    planned: &Config,
    gateway: SocketAddr,
    state: &DemoState,
    tasks: &TaskTracker,
    stop: &CancellationToken,
) -> Result<DemoIssuer, StartError> {
    let user = |(name, title, group): &(&str, &str, &str)| DemoUser {
        name: (*name).to_owned(),
        title: (*title).to_owned(),
        groups: vec![(*group).to_owned()],
    };
    let options = |listen| DemoOptions {
        listen,
        users: PEOPLE.iter().map(user).collect(),
        // Nobody else has its secret: only the show is this software.
        clients: vec![DemoClient { id: SOFTWARE.to_owned(), secret: random().into(), may_exchange: false }],
        pages: console_of(planned).into_iter().collect(),
        resource: format!("http://{gateway}/mcp"),
        scopes: Vec::new(),
        interactive_default: AgentId::new(config::load::DEMO_AGENT).ok(),
        default_roles: Vec::new(),
        door_file: Some(state.path().join(DOOR_FILE)),
    };
    match DemoIssuer::start(options(ISSUER), tasks, stop.clone()).await {
        Ok(issuer) => Ok(issuer),
        Err(_taken) => DemoIssuer::start(options(any(ISSUER)), tasks, stop.clone()).await.map_err(StartError::Trouble),
    }
}

/// The console's client, if it is one of this issuer.
fn console_of(planned: &Config) -> Option<DemoPages> {
    let admin = planned.admin.as_ref()?;
    let console = admin.console.as_ref().filter(|console| console.issuer.as_str() == ALIAS)?;
    Some(DemoPages {
        id: console.client_id.clone(),
        name: "Bailiwick's console".to_owned(),
        redirect_uri: format!("http://{}/admin/login/callback", admin.listen),
    })
}

/// Starts the samples that the files name, where the files say that they are.
async fn start_samples(
    planned: &Config,
    overrides: &mut Overrides,
    notes: &mut Vec<String>,
) -> Result<Vec<(Sample, Started)>, StartError> {
    let mut samples = Vec::new();
    for sample in Sample::ALL {
        let Ok(id) = ServerId::new(sample.as_str()) else { continue };
        let Some(address) = planned.server(&id).and_then(|server| loopback(&server.transport)) else { continue };
        let started = match upstreams::start(sample, address).await {
            Ok(started) => started,
            Err(taken) => {
                let started = upstreams::start(sample, any(address)).await.map_err(trouble)?;
                notes.push(format!("`{sample}` is at {}, because of {address}: {taken}", started.address()));
                started
            }
        };
        if started.address() != address {
            overrides.server_urls.insert(id, Url::parse(&started.url()).map_err(trouble)?);
        }
        samples.push((sample, started));
    }
    Ok(samples)
}

/// The address of a server on this machine over plain HTTP.
fn loopback(transport: &TransportConfig) -> Option<SocketAddr> {
    let TransportConfig::Http { url, .. } = transport else { return None };
    let port = url.port_or_known_default()?;
    match url.host()? {
        Host::Ipv4(address) if address.is_loopback() && url.scheme() == "http" => Some((address, port).into()),
        Host::Ipv6(address) if address.is_loopback() && url.scheme() == "http" => Some((address, port).into()),
        _ => None,
    }
}

fn any(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), 0)
}

/// Port 0 becomes one that is free now, because the gateway's name has it in it.
fn with_port(address: SocketAddr) -> Result<SocketAddr, StartError> {
    if address.port() != 0 {
        return Ok(address);
    }
    std::net::TcpListener::bind(address).and_then(|listener| listener.local_addr()).map_err(trouble)
}

fn trouble(error: impl std::fmt::Display) -> StartError {
    StartError::Trouble(error.to_string())
}
