//! Reading the files again: a set with a mistake changes nothing, a good one is swapped in whole.
//!
//! Decides whether a new set may replace the old one without somebody saying that it may widen. Invariant:
//! what is served was read twice alike, linted and tested.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};

use super::understand::{Understood, understand};
use super::{Gateway, Snapshot, wider};
use crate::config::{
    AdminClient, AdminConfig, Config, DpopMode, FileSet, GatewayConfig, Loaded, Mistake, Overrides, Seal, ServerConfig,
    keyfile,
};
use crate::identity::Identity;
use crate::ids::{PolicyRevision, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::{Difference, FailedTest, Strictness};
use crate::record::event::ReloadNote;
use crate::record::redact;
use crate::wire::handle::Sealer;

/// How a reload is ordered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReloadOrder {
    /// Loads a set that removes denies or adds allows.
    #[serde(default)]
    pub allow_widening: bool,
}

/// How it went; with problems nothing was changed.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReloadReport {
    /// The revision before.
    pub from: Option<PolicyRevision>,
    /// The revision now in force.
    pub to: Option<PolicyRevision>,
    /// Rows that are new.
    pub added: Vec<String>,
    /// Rows that are gone.
    pub removed: Vec<String>,
    /// Mistakes as `file:line:column: what, what instead`; or why widening was refused.
    pub problems: Vec<String>,
    /// What should be looked at, although it was loaded.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// The names of the keys that handles are sealed with now, the one that writes first; empty where nothing was
    /// loaded.
    #[serde(default)]
    pub seal_keys: Vec<String>,
}

/// Where a gateway's files are, and what was added to them in memory.
#[derive(Debug, Clone)]
pub struct Files {
    /// `servers.toml`.
    pub path: PathBuf,
    /// What the program adds in memory.
    pub overrides: Overrides,
}

/// Something that is read again along with the files, such as certificates; answers what is wrong with it.
pub type Along = Box<dyn Fn() -> Result<(), String> + Send + Sync>;

/// Reads files again, one time after the other.
pub struct Reloader {
    files: Files,
    along: Vec<Along>,
    /// Held while what is in force is built anew, from other files or without grants that have ended.
    pub(super) one_at_a_time: tokio::sync::Mutex<()>,
}

/// On whose word a set is served.
#[derive(Clone, Copy)]
enum Word<'a> {
    /// Of somebody here: the other replicas are told.
    Given(&'a str, ReloadOrder),
    /// Of somebody at another replica, as the store tells it: the store is told nothing, whoever has meanwhile said
    /// otherwise is not overruled.
    Heard,
}

/// A set of files that can be served, and what it would change.
struct Judged {
    understood: Understood,
    difference: Difference,
    /// Somebody may do more, or is believed more.
    widens: bool,
    failed: Vec<FailedTest>,
}

impl Judged {
    fn new(before: &Snapshot, understood: Understood) -> Self {
        let mut difference = before.written_policy.difference(&understood.policy);
        let rows = before.files.changed_rows(&understood.loaded.files);
        let widens = difference.widens || trusts_more(&before.written, understood.config()) || rows.runs_something_else;
        let shown = |rows: Vec<String>| rows.into_iter().map(|row| redact::secrets(&row).into_owned());
        difference.added.extend(shown(rows.added));
        difference.removed.extend(shown(rows.removed));
        let failed = understood.policy.run_tests().failed;
        Self { understood, difference, widens, failed }
    }
}

impl Files {
    /// Reads and lints everything; its tests are still to be run.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn read(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.path)?, &self.overrides)
    }

    /// The same with `policies.next/` in the place of `policies/`, where that exists.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn read_next(&self) -> Result<Option<Understood>, Vec<Mistake>> {
        FileSet::read_next(&self.path)?.map(|files| understand(files, &self.overrides)).transpose()
    }
}

impl From<Understood> for Snapshot {
    fn from(understood: Understood) -> Self {
        let identity_revision = Identity::FIRST_REVISION;
        let Loaded { config, files, .. } = understood.loaded;
        let written = Arc::new(config);
        let (policy, files) = (Arc::new(understood.policy), Arc::new(files));
        let written_policy = Arc::clone(&policy);
        let (config, barred) = (Arc::clone(&written), Arc::default());
        Self { config, written, barred, policy, written_policy, files, identity_revision }
    }
}

impl Reloader {
    /// A reloader of these files, and of whatever else is read again along with them.
    #[must_use]
    pub fn new(files: Files, along: Vec<Along>) -> Self {
        Self { files, along, one_at_a_time: tokio::sync::Mutex::new(()) }
    }

    /// How strictly its files are read.
    #[must_use]
    pub const fn strictness(&self) -> Strictness {
        if self.files.overrides.undeclared_issuers_are_inert { Strictness::Demo } else { Strictness::Serve }
    }
}

impl Gateway {
    /// Reads all files again.
    ///
    /// # Errors
    /// When the reload could not be recorded; a set with mistakes is no error but a report with problems.
    pub async fn reload(&self, actor: &str, order: ReloadOrder) -> Result<ReloadReport, Failure> {
        let _one = self.reloader.one_at_a_time.lock().await;
        let before = self.snapshot();
        let judged = self.judged(&before).await;
        self.load(judged, &before, Word::Given(actor, order)).await
    }

    /// Serves the files that all replicas are to serve, where they are here: an administrator said so at another
    /// replica, of exactly these. Answers whether they are.
    ///
    /// # Errors
    /// As [`Gateway::reload`], and when these files cannot be served here.
    pub(super) async fn take_up(&self, active: PolicyRevision) -> Result<bool, Failure> {
        let _one = self.reloader.one_at_a_time.lock().await;
        let before = self.snapshot();
        let judged = self.judged(&before).await;
        if before.policy.revision() == active {
            return Ok(true);
        }
        if !judged.as_ref().is_ok_and(|judged| judged.understood.policy.revision() == active) {
            return Ok(false);
        }
        // Reading and testing took its time.
        if self.standing.active() != Some(active) {
            return Ok(false);
        }
        let report = self.load(judged, &before, Word::Heard).await?;
        match report.problems.into_iter().next() {
            None => Ok(true),
            Some(problem) => Err(Failure::before(Reason::Internal, problem)),
        }
    }

    /// Reading, comparing and testing a large policy takes long; nobody's call waits for it.
    async fn judged(&self, before: &Arc<Snapshot>) -> Result<Judged, Vec<Mistake>> {
        let (files, old) = (self.reloader.files.clone(), Arc::clone(before));
        tokio::task::spawn_blocking(move || files.read().map(|understood| Judged::new(&old, understood)))
            .await
            .unwrap_or_else(|error| Err(vec![Mistake::whole("servers.toml", format!("reading it failed: {error}"))]))
    }

    async fn load(
        &self,
        judged: Result<Judged, Vec<Mistake>>,
        before: &Snapshot,
        word: Word<'_>,
    ) -> Result<ReloadReport, Failure> {
        let (actor, order, heard) = match word {
            Word::Given(actor, order) => (actor, order, false),
            Word::Heard => ("store", ReloadOrder::default(), true),
        };
        let mut report = ReloadReport { from: Some(before.policy.revision()), ..ReloadReport::default() };
        match judged {
            Err(mistakes) => report.problems = mistakes.iter().map(ToString::to_string).collect(),
            Ok(Judged { understood, difference, widens, failed }) => {
                let (revision, active) = (understood.policy.revision(), self.standing.active());
                // What the other replicas serve may be narrower than what was served here.
                let widens = widens || active.is_some_and(|active| active != before.policy.revision());
                let ordered = heard || active == Some(revision);
                report.added = difference.added;
                report.removed = difference.removed;
                for failed in failed {
                    // At three in the morning the brake must work: what only narrows may break expected allows.
                    if failed.expected_allow && !widens {
                        report.warnings.push(format!("expected to be allowed, and is not any more: {failed}"));
                    } else {
                        report.problems.push(failed.to_string());
                    }
                }
                let (seal, broken) = (understood.loaded.files.seal(), understood.loaded.files.seal_mistake());
                match may_widen(seal, order) {
                    Ok(()) => {}
                    // Somebody who may has said so at another replica.
                    Err(_) if ordered && broken.is_none() => {}
                    Err(why) if widens => {
                        report.problems.push(broken.map_or(why.to_owned(), |broken| broken.to_string()));
                    }
                    // The brake works with a broken seal, too; the next start will not.
                    Err(_) => {
                        report.warnings.extend(broken.map(|broken| format!("the next start is refused: {broken}")));
                    }
                }
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                if understood.config().keys.journal != before.written.keys.journal {
                    report.warnings.push("the journal keys that the files name are taken at the next start".to_owned());
                }
                let door =
                    |config: &Config| config.admin.as_ref().map(|admin| format!("{:?}", (admin.listen, &admin.tls)));
                if door(understood.config()) != door(&before.config) {
                    report.warnings.push("where administrators connect is taken at the next start".to_owned());
                }
                let mut keys = Vec::new();
                if report.problems.is_empty() {
                    match self.seal_keys(understood.config()).await {
                        Ok(read) => keys = read,
                        Err(problem) => report.problems.push(problem),
                    }
                }
                if report.problems.is_empty()
                    && !ordered
                    && let Err(failure) = self.store.activate(revision, actor).await
                {
                    let problem = format!("the other replicas were not told: {}", failure.detail);
                    // The brake works at each replica by itself.
                    if widens { report.problems.push(problem) } else { report.warnings.push(problem) }
                }
                // Last: what was refused changes no key.
                if report.problems.is_empty()
                    && let Err(problem) = self.sealer.replace(bytes(&keys))
                {
                    report.problems.push(problem.to_string());
                }
                if report.problems.is_empty() {
                    report.seal_keys = self.sealer.key_ids();
                    report.to = Some(understood.policy.revision());
                    understood.log_warnings();
                    self.swap(self.left_of(understood.into(), BTreeSet::clone(&self.ended.load())).await?).await;
                }
            }
        }
        report.warnings.extend(self.read_next().await);
        // What was loaded is in force, whatever is wrong with these.
        let along = self.reloader.along.iter().filter_map(|along| along().err());
        report.warnings.extend(along.inspect(|problem| tracing::error!("{problem}")));
        let problem = report.problems.first().map(String::as_str);
        let note = ReloadNote {
            actor,
            from: report.from,
            to: report.to,
            added: &report.added,
            removed: &report.removed,
            problem,
        };
        self.remember_reload(actor, &report);
        self.journal.reloaded(&note).await?;
        tracing::info!(actor, loaded = report.to.is_some(), problem, "reload");
        Ok(report)
    }

    async fn swap(&self, snapshot: Snapshot) {
        let written = Arc::clone(&snapshot.written);
        // Reads secrets, which takes its time; those of servers that were taken back, too, which may be lifted.
        self.delegate.reload(&written).await;
        self.put(Some(snapshot));
        self.guard.quotas().reconfigure(&written.quota);
        self.decided_anew();
    }

    /// Reads `policies.next/` again: decisions are evaluated under it from now on. Answers why not, where it is there
    /// and cannot be understood; what is in force has nothing to do with that.
    pub async fn read_next(&self) -> Option<String> {
        let files = self.reloader.files.clone();
        let read = tokio::task::spawn_blocking(move || files.read_next()).await;
        let next = match read {
            Ok(Ok(next)) => Ok(next.map(|next| next.policy)),
            Ok(Err(mistakes)) => {
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                let more = mistakes.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
                Err(format!("the next policies are not evaluated: {first}{more}"))
            }
            Err(error) => Err(format!("the next policies are not evaluated: {error}")),
        };
        let problem = next.as_ref().err().cloned();
        problem.iter().for_each(|problem| tracing::warn!("{problem}"));
        self.shadow.put(next, self.snapshot().policy.revision());
        problem
    }

    /// Reads the keys of handles again, and looks whether they can be used: whoever comes back with a handle is known by
    /// the older ones.
    async fn seal_keys(&self, config: &Config) -> Result<Vec<SecretString>, String> {
        // Where the state is does not change while we have it.
        let state = self.config().gateway.state.clone();
        let keys = keyfile::load(&config.keys.seal, &state, "seal").await.map_err(|error| error.to_string())?;
        Sealer::new(bytes(&keys)).map_err(|error| error.to_string())?;
        Ok(keys)
    }

    /// Tells open streams that decisions may have changed.
    pub fn decided_anew(&self) {
        self.decisions.send_modify(|moved| *moved = moved.wrapping_add(1));
    }
}

fn bytes(keys: &[SecretString]) -> impl Iterator<Item = &[u8]> {
    keys.iter().map(|key| key.expose_secret().as_bytes())
}

/// Whether a set may be loaded after which somebody may do more: it is what was reviewed, or somebody who looks at
/// it says so. Nobody can say so of a set that differs from what was reviewed: they seal it, or break with seals.
const fn may_widen(seal: Seal, order: ReloadOrder) -> Result<(), &'static str> {
    match (seal, order.allow_widening) {
        (Seal::Fits, _) | (Seal::Absent, true) => Ok(()),
        (Seal::Absent, false) => Err("somebody may do more afterwards: look at the rows, then reload with \
                                      --allow-widening, or seal what was reviewed with `bailiwick check --seal`"),
        (Seal::Broken, _) => Err("the files are not those that were sealed"),
    }
}

/// Whether a configuration may let in somebody, or run or reach something, that the old one did not: whose
/// tokens are believed, which clients are which agent, where servers are and what they are presented with, who may know
/// that they exist; and what agents may do beside the rules.
fn trusts_more(before: &Config, after: &Config) -> bool {
    let text = |value: &dyn std::fmt::Debug| format!("{value:?}");
    let servers = |config: &Config| -> BTreeMap<ServerId, String> {
        let facts = |server: &Arc<ServerConfig>| {
            let ServerConfig { transport, credential, tool_credentials, list_as, isolation, .. } = &**server;
            let told = (&server.forward_headers, &server.elicit_url_hosts);
            text(&(transport, credential, tool_credentials, list_as, isolation, told))
        };
        config.servers.iter().map(|server| (server.id.clone(), facts(server))).collect()
    };
    let (old_servers, new_servers) = (servers(before), servers(after));
    let discoverable = after
        .servers
        .iter()
        .any(|server| server.discoverable && before.server(&server.id).is_none_or(|old| !old.discoverable));
    wider::lets_agents_do_more(before, after)
        || discoverable
        // Tokens are for it, and clients are sent there.
        || before.gateway.public_url != after.gateway.public_url
        || text(&before.issuers) != text(&after.issuers)
        || believes_more(&before.gateway, &after.gateway)
        || (after.anonymous && !before.anonymous)
        || after.local != before.local
        || after.keys != before.keys
        || after.pins.accepts_more_than(&before.pins)
        || after.servers.iter().any(|server| before.server(&server.id).is_some_and(|old| old.pins < server.pins))
        || administers_more(before.admin.as_ref(), after.admin.as_ref())
        || new_servers.iter().any(|(id, facts)| old_servers.get(id) != Some(facts))
}

/// Whether another proxy, or another of its headers, may say which certificate a client has, or an older proof of a key
/// is enough.
fn believes_more(before: &GatewayConfig, after: &GatewayConfig) -> bool {
    let vouched = after.client_certificate_header.is_some()
        && (after.client_certificate_header != before.client_certificate_header
            || after.trusted_proxies != before.trusted_proxies);
    vouched || (before.dpop == DpopMode::Nonce && after.dpop != DpopMode::Nonce)
}

/// Whether somebody may give something back who could not, or with a login that was not enough. A client that is taken
/// off the list, a shorter time and a stricter kind of login are brakes. So is no listener at all, but for the socket:
/// it may widen where there is none.
fn administers_more(before: Option<&AdminConfig>, after: Option<&AdminConfig>) -> bool {
    let (Some(before), Some(after)) = (before, after) else { return before.is_some() != after.is_some() };
    let door = |admin: &AdminConfig| {
        let AdminConfig { listen, public_url, allowed_hosts, tls, .. } = admin;
        format!("{:?}", (listen, public_url, allowed_hosts, tls))
    };
    let weaker =
        !before.acr.is_empty() && (after.acr.is_empty() || after.acr.iter().any(|value| !before.acr.contains(value)));
    weaker
        || after.auth_age_max > before.auth_age_max
        || after.clients.iter().any(|client| {
            let known = |old: &AdminClient| {
                old.is(&client.issuer, Some(&client.client_id)) && (old.approves || !client.approves)
            };
            !before.clients.iter().any(known)
        })
        || door(before) != door(after)
}

/// Reads the files again whenever one of them changes: for laptops and the demo.
pub async fn watch_files(gateway: Arc<Gateway>) {
    use notify::Watcher as _;
    let (changed, mut changes) = tokio::sync::mpsc::channel(1);
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| !event.kind.is_access()) {
            // A full channel means that a look is due already.
            let _ = changed.try_send(());
        }
    });
    let Ok(mut watcher) = watcher.inspect_err(|error| tracing::error!(%error, "files cannot be watched")) else {
        return;
    };
    let directories = match gateway.reloader.files.read() {
        Ok(understood) => understood.loaded.files.watched(),
        Err(_) => return,
    };
    for directory in directories {
        if let Err(error) = watcher.watch(&directory, notify::RecursiveMode::NonRecursive) {
            tracing::warn!(%error, directory = %directory.display(), "not watched");
        }
    }
    let stopping = gateway.stopping();
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            change = changes.recv() => if change.is_none() { return },
        }
        // Editors write, rename and write again.
        tokio::time::sleep(limit::WATCH_FILES_DEBOUNCE).await;
        while changes.try_recv().is_ok() {}
        if gateway.reads_the_same().await {
            // Something else lies beside them: a file that the gateway itself writes there would never let it rest.
            gateway
                .reloader
                .along
                .iter()
                .filter_map(|along| along().err())
                .for_each(|problem| tracing::error!("{problem}"));
            continue;
        }
        let order = ReloadOrder { allow_widening: true };
        match gateway.reload("watch", order).await {
            Ok(report) => report.problems.iter().for_each(|problem| tracing::error!("{problem}")),
            Err(failure) => tracing::error!(%failure, "reload"),
        }
    }
}

impl Gateway {
    /// Whether the files say, byte for byte, what is in force.
    async fn reads_the_same(&self) -> bool {
        let path = self.reloader.files.path.clone();
        let read = tokio::task::spawn_blocking(move || FileSet::read(&path)).await;
        matches!(read, Ok(Ok(set)) if set.digest() == self.snapshot().files.digest())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::PinMode;
    use crate::front::fixture::config;

    #[test]
    fn what_lets_somebody_else_in_widens_although_no_rule_changed() {
        let (before, mut after) = (config(), config());
        assert!(!trusts_more(&before, &after));
        for issuer in &mut after.issuers {
            Arc::make_mut(issuer).audiences.push("another".to_owned());
        }
        assert!(trusts_more(&before, &after), "an audience");
        let mut after = config();
        after.anonymous = true;
        assert!(trusts_more(&before, &after), "anybody");
        assert!(!trusts_more(&after, &before), "nobody any more");
        let mut after = config();
        after.gateway.public_url = "https://other.example/".parse().unwrap();
        assert!(trusts_more(&before, &after), "tokens for another resource");
        let (mut vouched, mut other) = (config(), config());
        vouched.gateway.client_certificate_header = Some(crate::config::CertificateHeader::Xfcc);
        other.gateway.client_certificate_header = vouched.gateway.client_certificate_header;
        other.gateway.trusted_proxies = vec!["10.0.0.1".parse().unwrap()];
        assert!(trusts_more(&before, &vouched) && trusts_more(&vouched, &other), "who tells of certificates");
        assert!(!trusts_more(&vouched, &before), "nobody tells of any");
        let mut strict = config();
        strict.gateway.dpop = DpopMode::Nonce;
        assert!(trusts_more(&strict, &before) && !trusts_more(&before, &strict), "older proofs");
        let (mut hidden, mut shown) = (config(), config());
        let server = crate::catalog::fake::server("git");
        shown.servers = vec![Arc::new(ServerConfig { discoverable: true, ..server.clone() })];
        hidden.servers = vec![Arc::new(ServerConfig { discoverable: false, ..server })];
        assert!(trusts_more(&hidden, &shown), "who may know that it exists");
        assert!(!trusts_more(&shown, &hidden), "fewer know of it");
        let (mut strict, mut loose) = (config(), config());
        let server = crate::catalog::fake::server("git");
        strict.servers = vec![Arc::new(ServerConfig { pins: PinMode::Strict, ..server.clone() })];
        loose.servers = vec![Arc::new(ServerConfig { pins: PinMode::FirstUse, ..server })];
        assert!(trusts_more(&strict, &loose), "what nobody has accepted");
        assert!(!trusts_more(&loose, &strict), "less is shown");
        let text = format!("version = 1\n[git]\ninstructions = [\"{}\"]\n", "0".repeat(64));
        loose.servers.clone_from(&strict.servers);
        loose.pins = Arc::new(crate::config::PinLock::read("pins.lock", &text).unwrap());
        assert!(trusts_more(&strict, &loose), "a definition");
        assert!(!trusts_more(&loose, &strict), "one less is accepted");
        let admin = AdminConfig {
            listen: "127.0.0.1:9443".parse().unwrap(),
            public_url: before.gateway.public_url.clone(),
            allowed_hosts: Vec::new(),
            tls: None,
            clients: Vec::new(),
            acr: vec!["strong".to_owned()],
            auth_age_max: std::time::Duration::from_secs(300),
            console: None,
        };
        let (mut with, mut weaker) = (config(), config());
        with.admin = Some(admin.clone());
        weaker.admin = Some(AdminConfig { acr: Vec::new(), ..admin.clone() });
        assert!(trusts_more(&before, &with) && trusts_more(&with, &weaker), "administrators");
        assert!(!trusts_more(&weaker, &with), "a stricter login is a brake");
        assert!(trusts_more(&with, &before), "the socket may widen where there are none");
        let client =
            AdminClient { issuer: with.issuers[0].alias.clone(), client_id: "console".to_owned(), approves: false };
        let (mut looks, mut approves) = (config(), config());
        looks.admin = Some(AdminConfig { clients: vec![client.clone()], ..admin.clone() });
        let approving = AdminClient { approves: true, ..client.clone() };
        approves.admin = Some(AdminConfig { clients: vec![approving], ..admin.clone() });
        assert!(trusts_more(&looks, &approves), "what a program keeps approves");
        assert!(!trusts_more(&approves, &looks), "it approves no more");
        let (mut another, mut slower, mut moved) = (config(), config(), config());
        another.admin = Some(AdminConfig { clients: vec![client], ..admin.clone() });
        slower.admin = Some(AdminConfig { auth_age_max: std::time::Duration::from_secs(301), ..admin.clone() });
        moved.admin = Some(AdminConfig { allowed_hosts: vec!["evil.example".to_owned()], ..admin });
        for wider in [&another, &slower, &moved] {
            assert!(trusts_more(&with, wider), "{:?}", wider.admin);
        }
        assert!(!trusts_more(&another, &with) && !trusts_more(&slower, &with), "they are brakes");
    }
}
