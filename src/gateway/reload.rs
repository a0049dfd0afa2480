//! Reading the files again: a set with a mistake changes nothing, a good one is swapped in whole.
//!
//! Decides whether a new set may replace the old one without somebody saying that it may widen. Invariant:
//! what is served was read twice alike, linted and tested.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::keys::{InUse, Keys};
use super::understand::{Understood, understand};
use super::{Gateway, Snapshot, trusts};
use crate::config::keyfile::Missing;
use crate::config::{Config, FileSet, Loaded, Mistake, Overrides, Seal};
use crate::identity::Identity;
use crate::ids::{Digest, PolicyRevision};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::{Difference, FailedTest, Strictness, Wrong};
use crate::record::event::ReloadNote;
use crate::record::redact;

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
    pub(super) keys: InUse,
    /// Held while what is in force is built anew, from other files or without grants that have ended.
    pub(super) one_at_a_time: tokio::sync::Mutex<()>,
}

/// What is in force is not what a start would take.
const REFUSED_NEXT: &str = "the next start is refused";

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
        let widens =
            difference.widens || trusts::trusts_more(&before.written, understood.config()) || rows.runs_something_else;
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
        Self { files, along, keys: InUse::default(), one_at_a_time: tokio::sync::Mutex::new(()) }
    }

    /// Remembers these keys as those that are in use.
    pub fn start_with(&self, keys: &Keys) {
        self.keys.exchange(keys);
    }

    /// Which files they are.
    pub(super) const fn files(&self) -> &Files {
        &self.files
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
                    // At three in the morning the brake must work: what only narrows may break expected allows, and refuse
                    // for another reason than before. The next start does not know what was in force.
                    if failed.wrong != Wrong::LetThrough && !widens {
                        report.warnings.push(format!("{REFUSED_NEXT}: {failed}"));
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
                        report.warnings.extend(broken.map(|broken| format!("{REFUSED_NEXT}: {broken}")));
                    }
                }
                report.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                let door =
                    |config: &Config| config.admin.as_ref().map(|admin| format!("{:?}", (admin.listen, &admin.tls)));
                if door(understood.config()) != door(&before.config) {
                    report.warnings.push("where administrators connect is taken at the next start".to_owned());
                }
                let mut keys = None;
                // Whoever widens has time; the brake waits for no place where secrets are kept.
                if report.problems.is_empty() && widens {
                    match self.read_keys(understood.config()).await {
                        Ok(read) => keys = Some(read),
                        Err(problem) => report.problems.push(problem),
                    }
                }
                let mut next = None;
                if report.problems.is_empty() {
                    understood.log_warnings();
                    match self.left_of(understood.into(), BTreeSet::clone(&self.ended.load())).await {
                        Ok(left) => next = Some(left),
                        Err(failure) => report.problems.push(failure.detail),
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
                    && let Some(keys) = keys
                    && let Err(problem) = self.exchange(keys, &mut report)
                {
                    report.problems.push(problem);
                }
                if report.problems.is_empty()
                    && let Some(next) = next
                {
                    report.to = Some(revision);
                    let written = Arc::clone(&next.written);
                    self.swap(next, widens).await;
                    if !widens {
                        let read = self.read_keys(&written).await;
                        if let Err(problem) = read.and_then(|keys| self.exchange(keys, &mut report)) {
                            tracing::error!(problem, "no key is exchanged");
                            report.warnings.push(format!("{REFUSED_NEXT}: {problem}; the keys in use stay"));
                        }
                    }
                    report.seal_keys = self.sealer.key_ids();
                }
            }
        }
        let is_well =
            report.problems.is_empty() && !report.warnings.iter().any(|warning| warning.starts_with(REFUSED_NEXT));
        self.journal.metrics().files_well.set(i64::from(is_well));
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
        if report.to.is_some() {
            self.tell_of_rotations().await;
        }
        self.remember_reload(actor, &report);
        self.journal.reloaded(&note).await?;
        tracing::info!(actor, loaded = report.to.is_some(), problem, "reload");
        Ok(report)
    }

    /// The keys that these files name, or that are there: none is made where somebody has one in use.
    async fn read_keys(&self, config: &Config) -> Result<Keys, String> {
        // Where the state is does not change while we have it.
        let state = self.config().gateway.state.clone();
        Keys::read(config, &state, self.journal.replica(), Missing::Refuse).await
    }

    /// Puts keys to use, and says which are new and which are gone.
    fn exchange(&self, keys: Keys, report: &mut ReloadReport) -> Result<(), String> {
        let (added, removed) = self.take_keys(keys)?;
        report.added.extend(added);
        report.removed.extend(removed);
        Ok(())
    }

    async fn swap(&self, snapshot: Snapshot, widens: bool) {
        let written = Arc::clone(&snapshot.written);
        // Reads secrets, which takes its time; those of servers that were taken back, too, which may be lifted. What only
        // narrows is in force before.
        if widens {
            self.delegate.reload(&written).await;
        }
        self.put(Some(snapshot));
        self.guard.quotas().reconfigure(&written.quota);
        self.decided_anew();
        if !widens {
            self.delegate.reload(&written).await;
        }
    }

    /// Reads `policies.next/` again: decisions are evaluated under it from now on. Answers why not, where it is there
    /// and cannot be understood; what is in force has nothing to do with that.
    pub async fn read_next(&self) -> Option<String> {
        let files = self.reloader.files.clone();
        let read = tokio::task::spawn_blocking(move || files.read_next()).await;
        let next = match read {
            Ok(Ok(next)) => Ok(next.map(Snapshot::from)),
            Ok(Err(mistakes)) => {
                let first = mistakes.first().map(ToString::to_string).unwrap_or_default();
                let more = mistakes.len().saturating_sub(1);
                let more = if more == 0 { String::new() } else { format!(" (and {more} more)") };
                Err(format!("the next policies are not evaluated: {first}{more}"))
            }
            Err(error) => Err(format!("the next policies are not evaluated: {error}")),
        };
        self.shadow.keep(next);
        let problem = self.put_next().await;
        problem.iter().for_each(|problem| tracing::warn!("{problem}"));
        problem
    }

    /// Evaluates decisions under the next policies as they were read, without the grants that have ended: those are gone
    /// from what is in force, too. Answers why not.
    pub(super) async fn put_next(&self) -> Option<String> {
        let next = match self.shadow.kept() {
            Ok(None) => Ok(None),
            Ok(Some(written)) => {
                let left = self.left_of(written, BTreeSet::clone(&self.ended.load())).await;
                let why = |failure: Failure| format!("the next policies are not evaluated: {}", failure.detail);
                left.map(|snapshot| Some(snapshot.policy)).map_err(why)
            }
            Err(problem) => Err(problem),
        };
        let problem = next.as_ref().err().cloned();
        self.shadow.put(next, self.snapshot().policy.revision());
        problem
    }

    /// Tells open streams that decisions may have changed.
    pub fn decided_anew(&self) {
        self.decisions.send_modify(|moved| *moved = moved.wrapping_add(1));
    }
}

/// Whether a set may be loaded after which somebody may do more: it is what was reviewed, or somebody who looks at
/// it says so. Nobody can say so of a set that differs from what was reviewed: they seal it, or break with seals.
const fn may_widen(seal: Seal, order: ReloadOrder) -> Result<(), &'static str> {
    match (seal, order.allow_widening) {
        (Seal::Fits, _) | (Seal::Absent, true) => Ok(()),
        (Seal::Absent, false) => Err("somebody may do more afterwards: look at the rows, then type `bailiwick reload \
                                      --allow-widening`, or seal what was reviewed with `bailiwick check --seal`"),
        (Seal::Broken, _) => Err("the files are not those that were sealed"),
    }
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
    // A file is nobody's word: whoever may write it has not said that somebody may do more. The demo's are its own.
    let order = ReloadOrder { allow_widening: gateway.reloader.strictness() == Strictness::Demo };
    let stopping = gateway.stopping();
    let mut tried = None;
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            change = changes.recv() => if change.is_none() { return },
        }
        // Editors write, rename and write again.
        tokio::time::sleep(limit::WATCH_FILES_DEBOUNCE).await;
        while changes.try_recv().is_ok() {}
        let read = gateway.read_state().await;
        let is_served = read.is_some_and(|(digest, _)| digest == gateway.snapshot().files.digest());
        if is_served || tried == Some(read) {
            // Something else lies beside them: a file that the gateway itself writes there would never let it rest, also
            // where they were refused.
            gateway
                .reloader
                .along
                .iter()
                .filter_map(|along| along().err())
                .for_each(|problem| tracing::error!("{problem}"));
            continue;
        }
        tried = Some(read);
        match gateway.reload("watch", order).await {
            Ok(report) => report.problems.iter().for_each(|problem| tracing::error!("{problem}")),
            Err(failure) => tracing::error!(%failure, "reload"),
        }
    }
}

impl Gateway {
    /// What the files say, byte for byte, and whether they are sealed; `None` where they cannot be read.
    async fn read_state(&self) -> Option<(Digest, Seal)> {
        let path = self.reloader.files.path.clone();
        let read = tokio::task::spawn_blocking(move || FileSet::read(&path)).await;
        read.ok()?.ok().map(|set| (set.digest(), set.seal()))
    }
}
