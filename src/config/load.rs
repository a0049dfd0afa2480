//! Loads a configuration: the files as one set, read twice, then understood.
//!
//! Decides what a program may add in memory ([`Overrides`]); nothing here can be switched by a caller of the
//! gateway. Invariant: what is answered was read from files that nobody else can write.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use url::Url;

use super::file::{Text, gate, mandate, parse};
use super::pins::{self, PinLock};
use super::redact;
use super::set::{FileSet, SERVERS_FILE};
use super::{Config, IssuerConfig, Mistake, ReloadMode, ServerConfig};
use crate::ids::{AgentId, IssuerAlias, ServerId};

/// The alias of the development issuer.
pub const DEMO_ALIAS: &str = "demo";
/// The alias of the one user of `stdio --standalone`; no file may declare it.
pub const LOCAL_ALIAS: &str = "local";
/// The alias of somebody without a credential; no file may declare it.
pub const ANONYMOUS_ALIAS: &str = "anonymous";
/// The alias that vouches for API keys; no file may declare it.
pub const KEYS_ALIAS: &str = "keys";
/// The agent that every client of the development issuer becomes.
pub const DEMO_AGENT: &str = "assistant";
/// Where the development issuer would be if nobody said otherwise.
const DEMO_ISSUER: &str = "http://127.0.0.1:7810";

/// A configuration that may be served, and the files that it was read from.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// What the files mean.
    pub config: Config,
    /// What an administrator should look at, although it can be served.
    pub warnings: Vec<Mistake>,
    /// The files: their digest is the revision, and the policy room reads its own from here.
    pub files: FileSet,
}

/// What a program adds to the files, in memory only: how `demo` and tests start.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Listens here instead.
    pub listen: Option<SocketAddr>,
    /// Is called this instead.
    pub public_url: Option<Url>,
    /// Listens for other replicas here instead.
    pub cluster_listen: Option<SocketAddr>,
    /// Tells other replicas this address instead.
    pub advertise: Option<String>,
    /// Administrators connect here instead, over plain HTTP, and call it so; where the files have such a listener.
    pub admin_listen: Option<SocketAddr>,
    /// Keeps its state here instead.
    pub state: Option<PathBuf>,
    /// Watches files, or does not.
    pub reload: Option<ReloadMode>,
    /// Issuers that no file may name, such as the development issuer; they need a loopback listener.
    pub issuers: Vec<IssuerConfig>,
    /// Servers that no file names.
    pub servers: Vec<ServerConfig>,
    /// Where servers of the file really listen.
    pub server_urls: BTreeMap<ServerId, Url>,
    /// A name of an issuer that is not declared has no effect, instead of being a mistake.
    pub undeclared_issuers_are_inert: bool,
    /// The gateway runs in the assistant's process, for this user alone, and is served on no address.
    pub local: Option<LocalOverride>,
    /// The day on which reviews and expiries are looked at; today when absent.
    pub today: Option<jiff::civil::Date>,
}

/// Who uses `stdio --standalone`.
#[derive(Debug, Clone)]
pub struct LocalOverride {
    /// The operating system's name of the user.
    pub name: String,
    /// Which agent the assistant is; the files must make that clear where nothing is said.
    pub agent: Option<AgentId>,
}

impl Overrides {
    /// What `stdio --standalone` adds: one user, and a name for a gateway that nobody can reach.
    ///
    /// # Errors
    /// None that could be brought about from outside.
    pub fn for_standalone(user: String, agent: Option<AgentId>) -> Result<Self, Vec<Mistake>> {
        let url =
            Url::parse("http://localhost").map_err(|error| vec![Mistake::whole("--standalone", error.to_string())])?;
        Ok(Self {
            listen: Some(SocketAddr::from(([127, 0, 0, 1], 0))),
            public_url: Some(url),
            local: Some(LocalOverride { name: user, agent }),
            ..Self::default()
        })
    }

    /// What `demo` adds, as far as it is known before anything listens: its issuer has the alias `demo`, names
    /// of other issuers have no effect. The demo puts the addresses in that it got.
    ///
    /// # Errors
    /// None that could be brought about from outside.
    pub fn for_demo() -> Result<Self, Vec<Mistake>> {
        let alias =
            IssuerAlias::new(DEMO_ALIAS).map_err(|error| vec![Mistake::whole(DEMO_ALIAS, error.to_string())])?;
        let mut issuer = issuer_with_defaults(&alias, DEMO_ISSUER)?;
        issuer.claims.groups = Some("groups".to_owned());
        issuer.claims.person = Some("sub".to_owned());
        issuer.interactive_default = AgentId::new(DEMO_AGENT).ok();
        Ok(Self {
            issuers: vec![issuer],
            reload: Some(ReloadMode::Watch),
            undeclared_issuers_are_inert: true,
            ..Self::default()
        })
    }

    pub(super) fn today(&self) -> jiff::civil::Date {
        self.today.unwrap_or_else(|| jiff::tz::TimeZone::UTC.to_datetime(jiff::Timestamp::now()).date())
    }
}

/// Loads `servers.toml` and what it names, as `serve` does.
///
/// # Errors
/// Every mistake that was found, in the order of the files.
pub fn load(path: &Path) -> Result<Loaded, Vec<Mistake>> {
    load_with(path, &Overrides::default())
}

/// Loads `servers.toml` and what it names, with something added in memory.
///
/// # Errors
/// Every mistake that was found, in the order of the files.
pub fn load_with(path: &Path, overrides: &Overrides) -> Result<Loaded, Vec<Mistake>> {
    load_set(FileSet::read(path)?, overrides)
}

/// Understands files that were read: what a reload does once it knows that they have changed.
///
/// # Errors
/// Every mistake that was found, in the order of the files.
pub fn load_set(files: FileSet, overrides: &Overrides) -> Result<Loaded, Vec<Mistake>> {
    let servers_name = files.shown(SERVERS_FILE);
    let agents_name = files.shown("agents.toml");
    let servers = files.text(SERVERS_FILE)?.unwrap_or("");
    let agents = files.text("agents.toml")?.map(|text| Text { file: &agents_name, text });
    let pins_name = files.shown(pins::FILE);
    let lock = files.text(pins::FILE)?.map_or_else(|| Ok(PinLock::default()), |text| PinLock::read(&pins_name, text));
    let parsed = parse(Text { file: &servers_name, text: servers }, agents, files.base(), overrides);
    let ((mut config, mut warnings), lock) = match (parsed, lock) {
        (Ok(parsed), Ok(lock)) => (parsed, lock),
        (parsed, lock) => {
            return Err([parsed.err(), lock.err()].into_iter().flatten().flatten().collect());
        }
    };
    if let (Some(admin), Some(listen)) = (&mut config.admin, overrides.admin_listen) {
        admin.public_url = Url::parse(&format!("http://{listen}"))
            .map_err(|error| vec![Mistake::whole("[admin]", error.to_string())])?;
        admin.listen = listen;
    }
    warnings.extend(lock.warnings(&pins_name, (&servers_name, servers), &config.servers));
    warnings.extend(redact::warnings(&config.record.redact, (&servers_name, servers), &config.servers, &lock));
    config.pins = Arc::new(lock);
    let mandates_name = files.shown("mandates.toml");
    if let Some(text) = files.text("mandates.toml")? {
        let (templates, more) = mandate::read_all(Text { file: &mandates_name, text }, &config)?;
        config.templates = templates;
        warnings.extend(more);
    }
    let gates_name = files.shown("gates.toml");
    if let Some(text) = files.text("gates.toml")? {
        let parsed = gate::parse(Text { file: &gates_name, text }, &config, overrides)?;
        config.gates = parsed.gates.into_iter().map(Arc::new).collect();
        config.break_glass = parsed.break_glass;
        warnings.extend(parsed.warnings);
    }
    Ok(Loaded { config, warnings, files })
}

/// The configuration of an issuer of which only alias and `iss` are known: everything else has its default.
///
/// # Errors
/// When the issuer is not a URL, or not one that a file could name on a loopback listener.
pub fn issuer_with_defaults(alias: &IssuerAlias, issuer: &str) -> Result<IssuerConfig, Vec<Mistake>> {
    let issuer = toml::Value::String(issuer.to_owned());
    let text = format!(
        "[gateway]\npublic_url = \"http://127.0.0.1:7800\"\nallow_loopback_issuers = true\n[issuers.{alias}]\nissuer = {issuer}\n"
    );
    let name = "(the issuer added in memory)";
    let (config, _) = parse(Text { file: name, text: &text }, None, Path::new("."), &Overrides::default())?;
    let found = config.issuers.first().map(|issuer| IssuerConfig::clone(issuer));
    found.ok_or_else(|| vec![Mistake::whole(name, "no issuer was read")])
}
