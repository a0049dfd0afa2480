//! What `servers.toml` and `policies/agents.toml` say, read into what they mean.
//!
//! Decides which texts become a [`Config`] and which are mistakes; reads no file and asks nobody. Invariant:
//! either everything was understood and every name that is used is declared, or there is no configuration.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::keys;
use super::load::{LOCAL_ALIAS, Overrides};
use super::mistake::{Found, Mistake, Name, Source, did_you_mean};
use super::process::plain;
use super::reader::Table;
use super::{
    AgentConfig, BreakerConfig, ClusterConfig, Config, ExportConfig, FeedConfig, IssuerConfig, KeysConfig, LocalUser,
    QuotaConfig, RecordConfig, ServerConfig, TelemetryConfig, WebhookConfig,
};
use crate::ids::{AgentId, Environment};
use crate::limit;

mod account;
pub(super) mod address;
mod admin;
mod agent;
mod api_key;
mod break_glass;
mod cluster;
mod command;
mod credential;
mod export;
mod feed;
pub(super) mod gate;
mod gateway;
mod introspection;
mod issuer;
mod key;
mod local;
pub(super) mod mandate;
mod process;
mod record;
mod registration;
mod server;
mod spiffe;
#[cfg(test)]
mod tests;
mod token_request;
mod webhook;

pub use address::is_private;
pub use credential::{looks_like_a_secret, names_a_secret};

/// A text and the file that it came from.
#[derive(Debug, Clone, Copy)]
pub struct Text<'i> {
    /// The file, as messages name it.
    pub file: &'i str,
    /// What it says.
    pub text: &'i str,
}

/// Where `servers.toml` says that the policies are, whatever else is wrong with it.
pub(super) fn policies_path(text: &str) -> String {
    let table = toml::de::DeTable::parse_recoverable(text).0;
    let written = table.get_ref().get("gateway").and_then(|gateway| gateway.get_ref().get("policies"));
    written.and_then(|value| value.get_ref().as_str()).unwrap_or("policies").to_owned()
}

/// Reads both texts into a configuration and its warnings; `base` is where relative paths start from.
///
/// # Errors
/// Every mistake of both.
pub fn parse(
    servers: Text<'_>,
    agents: Option<Text<'_>>,
    base: &Path,
    overrides: &Overrides,
) -> Result<(Config, Vec<Mistake>), Vec<Mistake>> {
    let source = Source::new(servers.file, servers.text);
    let mut parts =
        Table::parse(&source, &keys::TOP).map(|top| read_top(top, Path::new(servers.file), base, overrides));
    let agents_source = agents.map(|agents| Source::new(agents.file, agents.text));
    let read_agents = match &agents_source {
        None => Some(agent::Agents::default()),
        Some(source) => Table::parse(source, &keys::AGENTS).map(|top| agent::read_all(top, overrides.today())),
    };
    let agent::Agents { agents, attest_every, breaker } = match read_agents {
        Some(read) => read,
        None => agent::Agents { agents: None, ..agent::Agents::default() },
    };
    let read_agents = agents;
    let mut found = source.take();
    let mut found_agents = agents_source.as_ref().map(Source::take).unwrap_or_default();
    // Names are looked up only in files that were understood: otherwise every use of a server that has
    // a mistake of its own would be another mistake.
    if let (Some(parts), Some(agents)) = (&mut parts, &read_agents) {
        parts
            .environments
            .extend(parts.servers.iter().filter_map(|server| server.as_ref().map(|s| s.environment.clone())));
        let declared = Declared {
            issuers: parts.issuer_names.iter().map(String::as_str).collect(),
            agents: agents.iter().map(|(id, _)| id.as_str()).collect(),
            environments: parts.environments.iter().map(Environment::as_str).collect(),
            whole: parts.servers.iter().all(Option::is_some),
            inert: overrides.undeclared_issuers_are_inert,
        };
        declared.resolve(&source, &mut found);
        if let Some(local) = &overrides.local {
            match local::agent(local, agents) {
                Ok(agent) => parts.local = Some(LocalUser { name: local.name.clone(), agent }),
                Err(message) => found.mistakes.push(Mistake::whole(servers.file, message)),
            }
        }
        if let Some(source) = &agents_source {
            declared.resolve(source, &mut found_agents);
        }
        if let Some(Some(admin)) = &parts.admin
            && let Some((span, message)) =
                admin::shared_client(admin, &agents.iter().filter_map(|(_, agent)| agent.as_ref()))
        {
            found.mistakes.push(Mistake::at(&source.file, source.text, span.start, message));
        }
    }
    for mistakes in [&mut found.mistakes, &mut found_agents.mistakes] {
        mistakes.sort_by_key(|mistake| (mistake.line, mistake.column));
    }
    found.mistakes.extend(found_agents.mistakes);
    found.warnings.extend(found_agents.warnings);
    match (parts, read_agents) {
        (Some(parts), Some(agents)) if found.mistakes.is_empty() => match parts.complete(agents) {
            Some(config) => Ok((Config { attest_every, breaker, ..config }, found.warnings)),
            // Unreachable as long as every missing part was reported; a defect there must not serve.
            None => {
                Err(vec![Mistake::whole(servers.file, "cannot be read, and why was not noted; please report this")])
            }
        },
        _ => Err(found.mistakes),
    }
}

/// What was read of `servers.toml`; `None` where it was reported.
struct Parts {
    file: PathBuf,
    gateway: Option<gateway::Gateway>,
    cluster: Option<Option<ClusterConfig>>,
    record: Option<RecordConfig>,
    keys: Option<KeysConfig>,
    telemetry: Option<Option<TelemetryConfig>>,
    exports: Vec<Option<ExportConfig>>,
    webhooks: Vec<Option<WebhookConfig>>,
    /// Absent where there is none, `Some(None)` where it was reported.
    admin: Option<Option<admin::Admin>>,
    quota: Option<QuotaConfig>,
    anonymous: bool,
    local: Option<LocalUser>,
    feeds: Vec<Option<FeedConfig>>,
    issuers: Vec<Option<IssuerConfig>>,
    issuer_names: Vec<String>,
    servers: Vec<Option<ServerConfig>>,
    environments: Vec<Environment>,
}

fn read_top(mut top: Table<'_, '_>, file: &Path, base: &Path, overrides: &Overrides) -> Parts {
    let written = top.has("gateway") || overrides.public_url.is_some();
    if !written {
        top.mistake(&(0..0), "the file has no [gateway]: write one with public_url = \"https://...\"");
    }
    let gateway_table = top.table_or_empty("gateway", &keys::GATEWAY).filter(|_| written);
    let gateway = gateway_table.and_then(|table| gateway::read(table, base, overrides));
    let cluster_place = top.place("cluster");
    let cluster = if top.has("cluster") {
        let read = top.table("cluster", &keys::CLUSTER).and_then(|table| cluster::read(table, base, overrides));
        if gateway.as_ref().is_some_and(|gateway| !gateway.config.store.is_shared()) {
            let message = "[cluster] is for replicas that have a store in common: write store = \"postgres://...\" below \
                           [gateway], or remove it";
            top.mistake(&cluster_place, message);
        }
        read.map(Some)
    } else {
        if gateway.as_ref().is_some_and(|gateway| gateway.config.store.is_shared()) {
            let message = "no [cluster]: a session that was begun at one replica is unknown to all others";
            top.source.warning(&cluster_place, message);
        }
        Some(None)
    };
    let record = top.table_or_empty("record", &keys::RECORD).and_then(|table| record::read(table, base));
    let keys_place = top.place("keys");
    let keys = top.table_or_empty("keys", &keys::KEYS).and_then(|table| key::read(table, base));
    let telemetry = if top.has("telemetry") {
        top.table("telemetry", &keys::TELEMETRY).and_then(|table| export::telemetry(table, base)).map(Some)
    } else {
        Some(None)
    };
    let export_place = top.place("export");
    let exports: Vec<_> = top
        .named_tables("export", &keys::EXPORT, export::name)
        .into_iter()
        .map(|(name, table)| export::export(table, name, base))
        .collect();
    if exports.len() > limit::EXPORTS_MAX {
        top.mistake(&export_place, format!("{} exports are too many: at most {}", exports.len(), limit::EXPORTS_MAX));
    }
    let webhook_place = top.place("webhooks");
    let spell = |text: &str| export::name(text).map(|name| name.to_string());
    let webhooks = top.named_tables("webhooks", &keys::gates::WEBHOOK, spell);
    let webhooks: Vec<_> = webhooks.into_iter().map(|(name, table)| webhook::read(table, name)).collect();
    too_many(&top, "webhooks", webhooks.len(), limit::WEBHOOKS_MAX);
    if let (Some(gateway), Some(keys)) = (&gateway, &keys)
        && gateway.config.store.is_shared()
        && !webhooks.is_empty()
        && keys.webhook.is_empty()
    {
        let message =
            "all replicas sign with the same key: write webhook = [\"env:NAME\"] or [\"file:PATH\"] below [keys]";
        top.mistake(&webhook_place, message);
    }
    if let (Some(gateway), Some(keys)) = (&gateway, &keys)
        && gateway.config.store.is_shared()
    {
        key::needed(keys).into_iter().for_each(|message| top.mistake(&keys_place, message));
    }
    let admin = top.has("admin").then(|| {
        let table = top.table("admin", &keys::ADMIN)?;
        admin::read(table, base, gateway.as_ref())
    });
    let quota = top.table_or_empty("limits", &keys::LIMITS).and_then(gateway::read_quota);
    let anonymous = top.table("anonymous", &keys::ANONYMOUS).is_some_and(|mut table| {
        let enabled = table.at::<bool>("enabled");
        let alone = gateway.as_ref().is_none_or(|gateway| gateway.config.is_for_this_machine());
        let refused = enabled.as_ref().filter(|enabled| *enabled.get_ref() && !alone);
        if let Some(enabled) = refused {
            let message = "anonymous callers are accepted on a loopback listener only, and behind no proxy: listen on \
                           127.0.0.1 with a public_url on this machine and without trusted_proxies, or remove [anonymous]";
            table.mistake(&enabled.span(), message);
        }
        enabled.is_some_and(toml::Spanned::into_inner)
    });
    let environments = top.get::<Vec<Environment>>("environments").unwrap_or_default();
    let issuer_place = top.place("issuers");
    let (mut issuer_names, mut issuers) = (Vec::new(), Vec::new());
    let loopback_allowed = gateway.as_ref().is_none_or(|gateway| gateway.loopback_issuers_allowed());
    let mut seen = issuer::Seen::default();
    for (alias, table) in top.named_tables("issuers", &keys::ISSUER, issuer::alias) {
        issuer_names.push(alias.as_str().to_owned());
        issuers.push(issuer::read(table, alias, (base, loopback_allowed), &mut seen));
    }
    let understood: Vec<&IssuerConfig> = issuers.iter().flatten().collect();
    spiffe::hold_vouchers(&top, &seen.endpoints, &understood, understood.len() == issuers.len());
    for injected in &overrides.issuers {
        if issuer_names.iter().any(|name| name == injected.alias.as_str()) {
            let message = format!("the alias `{}` is taken by the development issuer: use another one", injected.alias);
            top.mistake(&issuer_place, message);
        }
        if let Some(agent) = &injected.interactive_default {
            top.source.refers(issuer_place.clone(), Name::Agent(agent.clone()));
        }
        issuer_names.push(injected.alias.as_str().to_owned());
        issuers.push(Some(injected.clone()));
    }
    if overrides.local.is_some() {
        issuer_names.push(LOCAL_ALIAS.to_owned());
    } else if issuers.is_empty() && !anonymous {
        let message = "nobody could be authenticated: write [issuers.ALIAS] with issuer = \"https://...\" \
                       (`bailiwick demo` brings an issuer of its own)";
        top.mistake(&issuer_place, message);
    }
    too_many(&top, "issuers", issuers.len(), limit::ISSUERS_MAX);
    let feeds: Vec<_> = top
        .named_tables("feeds", &keys::FEED, feed::name)
        .into_iter()
        .map(|(name, table)| feed::read(table, name, base, loopback_allowed))
        .collect();
    too_many(&top, "feeds", feeds.len(), limit::FEEDS_MAX);
    let own = gateway.iter().flat_map(|gateway| {
        let cluster = cluster.iter().flatten().map(|cluster| &cluster.tls);
        let key = gateway.config.tls.iter().chain(cluster).map(|tls| &tls.key);
        [&gateway.config.state, &gateway.policies].into_iter().chain(key)
    });
    let admin_key = admin.iter().flatten().flat_map(|admin| &admin.config.tls).map(|tls| &tls.key);
    let own = own.chain(admin_key);
    let kept: Vec<_> = own.map(PathBuf::as_path).chain([file]).map(plain).collect();
    let places = process::Places { base, kept: &kept };
    let servers: Vec<_> = top
        .named_tables("servers", &keys::SERVER, server::id)
        .into_iter()
        .map(|(id, table)| server::read(table, id, places, overrides))
        .chain(overrides.servers.iter().cloned().map(Some))
        .collect();
    too_many(&top, "servers", servers.len(), limit::SERVERS_MAX);
    if let Some(gateway) = &gateway {
        gateway.check_header(&top, servers.iter().flatten());
    }
    let accounts = servers.iter().flatten().any(ServerConfig::has_accounts);
    if let (Some(gateway), Some(keys), true) = (&gateway, &keys, accounts)
        && gateway.config.store.is_shared()
        && keys.vault.is_empty()
    {
        top.mistake(&keys_place, key::missing("vault"));
    }
    let console = admin.iter().flatten().filter_map(|admin| admin.config.console.as_ref()).next();
    let signs_in =
        |issuer: &IssuerConfig| issuer.link.is_some() || console.is_some_and(|console| console.issuer == issuer.alias);
    for issuer in issuers.iter().flatten().filter(|issuer| accounts && !signs_in(issuer)) {
        let message = format!(
            "nobody of issuer `{}` can link an account: write link_client_id below [issuers.{}]",
            issuer.alias, issuer.alias
        );
        top.source.warning(&issuer_place, message);
    }
    if servers.is_empty() {
        top.source.warning(&(0..0), "no [servers.ID]: there is nothing to call");
    }
    Parts {
        file: file.to_owned(),
        gateway,
        cluster,
        record,
        keys,
        telemetry,
        exports,
        webhooks,
        admin,
        quota,
        anonymous,
        local: None,
        feeds,
        issuers,
        issuer_names,
        servers,
        environments,
    }
}

fn too_many(top: &Table<'_, '_>, what: &str, count: usize, count_max: usize) {
    if count > count_max {
        top.mistake(&top.place(what), format!("{count} {what} are too many: at most {count_max}"));
    }
}

/// What an undeclared issuer would say is nothing: its feeds do not exist here.
fn feeds(read: Vec<Option<FeedConfig>>, issuers: &[Arc<IssuerConfig>]) -> Option<Vec<Arc<FeedConfig>>> {
    let all: Vec<FeedConfig> = read.into_iter().collect::<Option<_>>()?;
    let known = |feed: &FeedConfig| issuers.iter().any(|issuer| issuer.alias == feed.issuer);
    Some(all.into_iter().filter(known).map(Arc::new).collect())
}

impl Parts {
    fn complete(self, agents: Vec<(AgentId, Option<AgentConfig>)>) -> Option<Config> {
        let gateway = self.gateway?;
        let issuers: Vec<Arc<IssuerConfig>> =
            self.issuers.into_iter().map(|issuer| issuer.map(Arc::new)).collect::<Option<_>>()?;
        let known = |client: &super::AgentClient| issuers.iter().any(|issuer| issuer.alias == client.issuer);
        let mut by_id = BTreeMap::new();
        for (id, agent) in agents {
            let mut agent = agent?;
            // What an undeclared issuer would say is nothing: its clients do not exist here.
            agent.clients.retain(known);
            by_id.insert(id, Arc::new(agent));
        }
        let record = self.record?;
        let redacting = |server: ServerConfig| {
            let redact = record.redact.iter().filter(|row| row.is_at(&server.id)).cloned().collect();
            Arc::new(ServerConfig { redact, ..server })
        };
        let servers = self.servers.into_iter().map(|server| server.map(redacting)).collect::<Option<_>>()?;
        let mut environments: Vec<Environment> = Vec::new();
        for environment in self.environments {
            if !environments.contains(&environment) {
                environments.push(environment);
            }
        }
        Some(Config {
            gateway: gateway.config,
            cluster: self.cluster?,
            record,
            keys: self.keys?,
            telemetry: self.telemetry?,
            exports: self.exports.into_iter().collect::<Option<_>>()?,
            webhooks: self.webhooks.into_iter().collect::<Option<_>>()?,
            admin: match self.admin {
                None => None,
                Some(read) => {
                    let mut admin = read?.config;
                    admin.clients.retain(|client| issuers.iter().any(|issuer| issuer.alias == client.issuer));
                    Some(admin)
                }
            },
            quota: self.quota?,
            anonymous: self.anonymous,
            local: self.local,
            feeds: feeds(self.feeds, &issuers)?,
            issuers,
            servers,
            environments,
            agents: by_id,
            // Another file of the set, which is read beside this one.
            pins: Arc::default(),
            // The file of the agents is read beside this one.
            attest_every: limit::ATTEST_EVERY,
            breaker: BreakerConfig::default(),
            // Read once it is known what else there is.
            templates: BTreeMap::new(),
            gates: Vec::new(),
            break_glass: Vec::new(),
            policies: gateway.policies,
            file: self.file,
        })
    }
}

/// The names that exist, against which every use of one is held.
struct Declared<'a> {
    issuers: Vec<&'a str>,
    agents: Vec<&'a str>,
    environments: Vec<&'a str>,
    /// Whether every server was understood; otherwise an environment may be missing for that reason only.
    whole: bool,
    inert: bool,
}

impl<'a> Declared<'a> {
    /// What a configuration declares that was understood as a whole.
    fn of(config: &'a Config, overrides: &Overrides) -> Self {
        Self {
            issuers: config.issuers.iter().map(|issuer| issuer.alias.as_str()).collect(),
            agents: config.agents.keys().map(AgentId::as_str).collect(),
            environments: config.environments.iter().map(Environment::as_str).collect(),
            whole: true,
            inert: overrides.undeclared_issuers_are_inert,
        }
    }

    fn resolve(&self, source: &Source<'_>, found: &mut Found) {
        for (span, name) in std::mem::take(&mut found.references) {
            let (what, written, known, add) = match &name {
                Name::Issuer(alias) => {
                    ("issuer", alias.as_str(), &self.issuers, "declare [issuers.ALIAS] in servers.toml")
                }
                Name::Agent(agent) => {
                    ("agent", agent.as_str(), &self.agents, "declare [agents.ID] in policies/agents.toml")
                }
                Name::Environment(_) if !self.whole => continue,
                Name::Environment(environment) => {
                    let add = "no server is in it; or add it to `environments` in servers.toml";
                    ("environment", environment.as_str(), &self.environments, add)
                }
            };
            if known.contains(&written) {
                continue;
            }
            let near = did_you_mean(written, known.iter().copied());
            let hint = if near.is_empty() { format!(": {add}") } else { near };
            if self.inert && matches!(name, Name::Issuer(_)) {
                let message = format!("{what} `{written}` is not declared: this has no effect here");
                found.warnings.push(Mistake::at(&source.file, source.text, span.start, message));
            } else {
                let message = format!("{what} `{written}` is not declared{hint}");
                found.mistakes.push(Mistake::at(&source.file, source.text, span.start, message));
            }
        }
    }
}
