//! Reading the files again: a set with a mistake changes nothing, a good one is swapped in whole.
//!
//! Decides whether a new set may replace the old one without somebody saying that it may widen. Invariant:
//! what is served was read twice alike, linted and tested.

use std::path::PathBuf;
use std::sync::Arc;

use super::{Gateway, Snapshot};
use crate::config::{self, Config, FileSet, Mistake, Overrides};
use crate::control::{ReloadOrder, ReloadReport};
use crate::front::Certificates;
use crate::limit;
use crate::outcome::Failure;
use crate::policy::{Policy, Sources, Strictness, World};
use crate::record::event::ReloadNote;

/// Where a gateway's files are, and what was added to them in memory.
#[derive(Debug, Clone)]
pub(super) struct Files {
    pub(super) path: PathBuf,
    pub(super) overrides: Overrides,
    pub(super) strictness: Strictness,
}

/// A snapshot that may be served.
pub(super) struct Loaded {
    pub(super) snapshot: Snapshot,
    pub(super) warnings: Vec<Mistake>,
    pub(super) files: FileSet,
}

/// Reads files again, one time after the other.
pub(super) struct Reloader {
    files: Files,
    certificates: Option<Arc<Certificates>>,
    one_at_a_time: tokio::sync::Mutex<()>,
}

impl Files {
    /// Reads, lints and tests everything.
    pub(super) fn load(&self) -> Result<Loaded, Vec<Mistake>> {
        let loaded = config::load_with(&self.path, &self.overrides)?;
        let (policy, warnings) = policy(&loaded.config, &loaded.files, self.strictness)?;
        let snapshot = Snapshot { config: Arc::new(loaded.config), policy };
        Ok(Loaded { snapshot, warnings: loaded.warnings.into_iter().chain(warnings).collect(), files: loaded.files })
    }
}

/// Builds the policy of a configuration, and runs its own tests.
///
/// # Errors
/// Every mistake, and every expected decision that comes out otherwise.
pub fn policy(
    config: &Config,
    files: &FileSet,
    strictness: Strictness,
) -> Result<(Policy, Vec<Mistake>), Vec<Mistake>> {
    let shown = |mistakes: Vec<crate::policy::Mistake>| {
        mistakes.into_iter().map(|mistake| in_file(files, mistake)).collect::<Vec<_>>()
    };
    let sources = Sources::from_files(files.policy_files()).of_set(files.revision());
    let built = Policy::build(&sources, &World::of(config, strictness)).map_err(shown)?;
    let failed = built.policy.run_tests().failed;
    if failed.is_empty() {
        return Ok((built.policy, shown(built.warnings)));
    }
    Err(failed.into_iter().map(|failed| Mistake::whole(files.shown("tests.toml"), failed)).collect())
}

/// A mistake of the policy room, in the words of the configuration's.
fn in_file(files: &FileSet, mistake: crate::policy::Mistake) -> Mistake {
    Mistake {
        file: files.shown(&mistake.file),
        line: mistake.line as usize,
        column: mistake.column as usize,
        message: mistake.message,
    }
}

impl Reloader {
    pub(super) fn new(files: Files, certificates: Option<Arc<Certificates>>) -> Self {
        Self { files, certificates, one_at_a_time: tokio::sync::Mutex::new(()) }
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
        let files = self.reloader.files.clone();
        let loaded = tokio::task::spawn_blocking(move || files.load())
            .await
            .unwrap_or_else(|error| Err(vec![Mistake::whole("servers.toml", format!("reading it failed: {error}"))]));
        let mut report = ReloadReport { from: Some(before.policy.revision()), ..ReloadReport::default() };
        match loaded {
            Err(mistakes) => report.problems = mistakes.iter().map(ToString::to_string).collect(),
            Ok(loaded) => {
                let difference = before.policy.difference(&loaded.snapshot.policy);
                report.added = difference.added;
                report.removed = difference.removed;
                if difference.widens && !order.allow_widening {
                    report.problems.push(
                        "the new set removes a deny or adds an allow: look at the rows, then reload with --allow-widening"
                            .to_owned(),
                    );
                } else {
                    report.to = Some(loaded.snapshot.policy.revision());
                    loaded.warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
                    self.swap(loaded.snapshot);
                }
            }
        }
        if let Some(certificates) = &self.reloader.certificates
            && let Err(error) = certificates.reload()
        {
            report.problems.push(error.to_string());
        }
        let problem = report.problems.first().map(String::as_str);
        let note = ReloadNote {
            actor,
            from: report.from,
            to: report.to,
            added: &report.added,
            removed: &report.removed,
            problem,
        };
        self.journal.reloaded(&note).await?;
        tracing::info!(actor, loaded = report.to.is_some(), problem, "reload");
        Ok(report)
    }

    /// Puts a snapshot in force. Rooms that hold connections learn of it first, so that no decision is made
    /// for a server that nobody can reach yet.
    fn swap(&self, snapshot: Snapshot) {
        let config = Arc::clone(&snapshot.config);
        self.upstreams.reconfigure(&config);
        self.identity.reload(&config);
        self.delegate.reconfigure(&config);
        self.catalog.apply(&config);
        self.quotas.reconfigure(&config.quota);
        self.live.snapshot.store(Arc::new(snapshot));
        self.decided_anew();
    }

    /// Tells open streams that decisions may have changed.
    pub(super) fn decided_anew(&self) {
        self.decisions.send_modify(|moved| *moved = moved.wrapping_add(1));
    }
}

/// Reads the files again whenever one of them changes: for laptops and the demo.
pub(super) async fn watch_files(gateway: Arc<Gateway>) {
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
    let directories = match gateway.reloader.files.load() {
        Ok(loaded) => loaded.files.watched(),
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
        let order = ReloadOrder { allow_widening: true };
        match gateway.reload("watch", order).await {
            Ok(report) => report.problems.iter().for_each(|problem| tracing::error!("{problem}")),
            Err(failure) => tracing::error!(%failure, "reload"),
        }
    }
}
