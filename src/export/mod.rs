//! Sends the record to whoever watches it, in their words, and remembers how far it came.
//!
//! Decides nothing about calls, and nobody waits for it: it reads the segments that the journal has written. Refuses to
//! send what is not on the record, and of that arguments, values that conditions read, and free text. Invariant: every
//! record is sent at least once, in order; after a restart or a place that was down at most the last batch twice.
//!
//! [`ocsf`] has the words, `cursor` the place in the record, `place` the ways out, `follow` the loop. `bucket` puts the
//! checkpoints, and not what they cover, into an object store.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::config::{ExportConfig, ObjectStoreConfig};
use crate::ids::{ReplicaId, ServerId};
use crate::record::{Holds, Journal, Metrics, journal};

mod bucket;
mod cursor;
mod follow;
pub mod ocsf;
mod place;

use bucket::Putter;
use cursor::Cursor;
use follow::Follower;

/// Everything that is exported, and how each is.
#[derive(Debug, Default)]
pub struct Exports {
    all: Vec<Export>,
    holds: Arc<Holds>,
}

#[derive(Debug)]
struct Export {
    config: ExportConfig,
    status: Arc<Status>,
    cursor: PathBuf,
}

/// How one is.
#[derive(Debug, Default)]
pub(crate) struct Status(Mutex<Option<String>>);

impl Status {
    fn set(&self, problem: Option<String>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = problem;
    }

    fn get(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Exports {
    /// Reads how far each is; from then on nothing is removed that one has yet to read.
    ///
    /// # Errors
    /// A cursor that cannot be read: where it begins again would be a guess.
    pub fn open(state: &Path, configs: &[ExportConfig]) -> Result<Self, String> {
        let directory = state.join("export");
        let holds = Arc::new(Holds::default());
        let mut all = Vec::new();
        for config in configs {
            let cursor = directory.join(format!("{}.json", config.name));
            let read = Cursor::read(&cursor)
                .map_err(|error| format!("{}: {error}; remove it to begin with the oldest record", cursor.display()))?;
            holds.read_up_to(config.name.as_str(), read.unwrap_or_default().last());
            all.push(Export { config: config.clone(), status: Arc::default(), cursor });
        }
        Ok(Self { all, holds })
    }

    /// What the journal must know before it removes anything.
    #[must_use]
    pub fn holds(&self) -> Arc<Holds> {
        Arc::clone(&self.holds)
    }

    /// Begins to send, in tasks that end with `stop`.
    pub fn start(&self, state: &Path, journal: &Journal, tasks: &TaskTracker, stop: &CancellationToken) {
        for export in &self.all {
            let follower = Follower {
                config: export.config.clone(),
                journal: journal::directory(state),
                cursor: export.cursor.clone(),
                status: Arc::clone(&export.status),
                holds: Arc::clone(&self.holds),
                metrics: Arc::clone(journal.metrics()),
                written: journal.written(),
            };
            tasks.spawn(stop.clone().run_until_cancelled_owned(follower.run()));
        }
    }

    /// Begins to put checkpoints into a bucket; ends by itself after the journal has ended.
    #[must_use]
    pub fn put(
        config: &ObjectStoreConfig,
        journal: &Journal,
        replica: ReplicaId,
        metrics: &Arc<Metrics>,
    ) -> Option<tokio::task::JoinHandle<()>> {
        let (config, metrics) = (config.clone(), Arc::clone(metrics));
        let putter = Putter { config, replica, checkpoints: journal.checkpoints()?, metrics };
        Some(tokio::spawn(putter.run()))
    }

    /// What is in the way of each, by name; nothing where it is well.
    #[must_use]
    pub fn problems(&self) -> Vec<(ServerId, Option<String>)> {
        self.all.iter().map(|export| (export.config.name.clone(), export.status.get())).collect()
    }
}
