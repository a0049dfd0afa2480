//! Decides how what happens at run time is kept: SQLite in the state directory, or PostgreSQL for several replicas.
//! The only room that knows SQL, and it refuses to know anything else: each other room declares the store that it
//! needs.
//!
//! Each back end has a directory with one file for each concern; `tests.rs` holds both against the same tests.
//! Invariant: what was acknowledged is durable, and every change that may alter an answer raises the epoch in the same
//! transaction.

mod changed;
mod counted;
mod postgres;
mod row;
mod shelf;
#[cfg(test)]
mod shelf_tests;
mod sqlite;
pub mod state;
#[cfg(test)]
mod tests;
mod voided;

use std::collections::BTreeMap;
use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub use changed::{Changed, RowTold, What};
use counted::Counted;
pub use postgres::Changes;
pub use sqlite::look;
pub use state::StateDirectory;
pub use voided::Voided;

use crate::config::StoreConfig;
use crate::identity::revoked::{Held, Revocation, RevocationStore};
use crate::ids::{Digest, PolicyRevision, ReplicaId, RevocationEpoch, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Change, Changed as Batch, Name, Row, Section, Shelf, Tell};
use crate::wire::voids::Mark;
use postgres::Postgres;
use sqlite::Sqlite;

/// The store of one gateway, or of all its replicas.
#[derive(Debug, Clone)]
pub struct Store(Backend, Arc<Counted>);

#[derive(Debug, Clone)]
enum Backend {
    Sqlite(Sqlite),
    Postgres(Postgres),
}

/// Why the store cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The database refuses.
    #[error("cannot use the store {place}: {problem}; if it is damaged, restore a backup of the state directory")]
    Unusable {
        /// The file.
        place: String,
        /// What SQLite or the file system says.
        problem: String,
    },
    /// The database cannot be reached, or refuses.
    #[error("cannot use the store on PostgreSQL: {0}")]
    Unreachable(String),
    /// It was restored from before the last revocations, which would silently come back to life.
    #[error(
        "the store is older than the journal: it knows revocations up to epoch {store}, the journal up to {journal}; \
         run `bailiwick store reconcile`, which takes over what the journal tells"
    )]
    OlderThanJournal {
        /// The store's epoch.
        store: u64,
        /// The last epoch that the journal tells.
        journal: u64,
    },
    /// It went back, and came to the same epochs again with other changes.
    #[error(
        "the store went back and came to epoch {epoch} again with other changes than the journal tells; run `bailiwick \
         store reconcile`, which takes over what the journal tells since"
    )]
    OtherHistory {
        /// The last epoch that the journal tells.
        epoch: u64,
    },
    /// A replica has seen it go back.
    #[error(
        "{0}; run `bailiwick store reconcile` with the journal of a replica that knows more than the store, or of all of \
         them one after the other"
    )]
    WentBack(String),
    /// A later version of this program has written it.
    #[error(
        "the store {place} has version {version}, and this program knows version {known}: start the newer program that \
         wrote it, or restore the copy that it kept beside the store before it upgraded"
    )]
    Newer {
        /// The file, or `on PostgreSQL`.
        place: String,
        /// The version of its tables.
        version: i64,
        /// The version that this program writes.
        known: i64,
    },
}

/// What a store says of one moment, all of it at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// How many changes it has seen that may alter an answer.
    pub epoch: RevocationEpoch,
    /// Its clock: microseconds since 1970.
    pub now_us: i64,
    /// The files that replicas are to serve, where they have a store in common.
    pub active: Option<PolicyRevision>,
    /// That a replica has seen it go back; nothing where nobody has.
    pub went_back: Option<String>,
}

/// What the journal tells of one epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ToldChange {
    /// It was taken back.
    Revoked(Revocation),
    /// Somebody lifted what had been taken back; what the record says of that.
    Lifted(Revocation),
    /// Rows of rooms were changed: what was told of them, and what is done to the rows that are here.
    Rows(Vec<RowTold>, Vec<Change>),
}

/// One epoch as the journal tells it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// What was changed.
    pub change: ToldChange,
    /// What tells it from the same epoch of another history.
    pub nonce: Option<u32>,
}

/// A replica as the store knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Which one.
    pub replica: ReplicaId,
    /// Where others reach it, `host:port`; `None` where they do not.
    pub advertise: Option<String>,
    /// Which program it runs.
    pub version: String,
    /// Which files it serves.
    pub revision: PolicyRevision,
}

impl Store {
    /// Opens the store that the configuration names, and brings its tables up to date. The state directory is ours.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn open(state: &StateDirectory, config: &StoreConfig) -> Result<Self, StoreError> {
        let backend = match config {
            StoreConfig::Sqlite => Backend::Sqlite(Sqlite::open(state).await?),
            StoreConfig::Postgres(config) => Backend::Postgres(Postgres::open(state, config).await?),
        };
        Ok(Self(backend, Arc::default()))
    }

    /// The name of the state directory: records and handles of every run carry it.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn replica(&self) -> Result<ReplicaId, Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.replica().await,
            Backend::Postgres(store) => Ok(store.replica()),
        }
    }

    /// Refuses a store that has forgotten revocations which the journal remembers.
    ///
    /// # Errors
    /// [`StoreError::OlderThanJournal`], or [`StoreError::Unusable`] when it cannot be read.
    pub async fn check_not_older_than(&self, recorded: Option<RevocationEpoch>) -> Result<(), StoreError> {
        let store = self.revocation_epoch().await.map_err(|problem| match self.0 {
            Backend::Sqlite(_) => StoreError::Unusable { place: sqlite::FILE.to_owned(), problem: problem.detail },
            Backend::Postgres(_) => StoreError::Unreachable(problem.detail),
        })?;
        match recorded {
            Some(journal) if journal > store => {
                Err(StoreError::OlderThanJournal { store: store.0, journal: journal.0 })
            }
            _ => self.check_believed().await,
        }
    }

    async fn check_believed(&self) -> Result<(), StoreError> {
        let moment = self.moment().await.map_err(|problem| StoreError::Unreachable(problem.detail))?;
        moment.went_back.map_or(Ok(()), |told| Err(StoreError::WentBack(told)))
    }

    /// Refuses a store that tells another change of an epoch than the journal does.
    ///
    /// # Errors
    /// [`StoreError::OtherHistory`], or [`StoreError::Unreachable`] when it cannot be read.
    pub async fn check_same_history(&self, recorded: Option<(RevocationEpoch, u32)>) -> Result<(), StoreError> {
        let Some((epoch, nonce)) = recorded else { return Ok(()) };
        let known = match &self.0 {
            Backend::Sqlite(store) => store.nonce(epoch).await,
            Backend::Postgres(store) => store.nonce(epoch).await,
        };
        match known.map_err(|problem| StoreError::Unreachable(problem.detail))? {
            Some(other) if other != nonce => Err(StoreError::OtherHistory { epoch: epoch.0 }),
            // What is not remembered any more contradicts nothing.
            _ => Ok(()),
        }
    }

    /// Says to every replica that this store went back; alone with it there is nobody to tell.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn distrust(&self, told: &str) -> Result<(), Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(store) => store.distrust(told).await,
        }
    }

    /// What it says of this moment.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn moment(&self) -> Result<Moment, Failure> {
        match &self.0 {
            Backend::Sqlite(store) => Ok(Moment {
                epoch: store.epoch().await?,
                now_us: jiff::Timestamp::now().as_microsecond(),
                active: None,
                went_back: None,
            }),
            Backend::Postgres(store) => store.moment().await,
        }
    }

    /// Its clock, by which revocations are dated: seconds since 1970.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn now_s(&self) -> Result<i64, Failure> {
        Ok(self.moment().await?.now_us.div_euclid(1_000_000))
    }

    /// What wakes whoever follows a store that replicas have in common; `None` where nobody else changes it.
    #[must_use]
    pub fn changes(&self) -> Option<Changes> {
        match &self.0 {
            Backend::Sqlite(_) => None,
            Backend::Postgres(store) => Some(store.changes()),
        }
    }

    /// What raised the epoch since then, oldest first: a part of it, of as much as is remembered.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn changed_since(&self, since: RevocationEpoch) -> Result<Vec<Changed>, Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.changed_since(since).await,
            Backend::Postgres(store) => store.changed_since(since).await,
        }
    }

    /// Remembers what a server runs; answers what it ran before, if anybody knows.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn remember_executable(&self, server: &ServerId, digest: Digest) -> Result<Option<Digest>, Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.remember_executable(server, digest).await,
            Backend::Postgres(store) => store.remember_executable(server, digest).await,
        }
    }

    /// Takes these changes over in their order, each under its epoch, and is at `to` afterwards. Other replicas hear of
    /// them as of any other change, and the store is believed again.
    ///
    /// # Errors
    /// `store_unavailable`; nothing is changed then.
    pub async fn catch_up(&self, told: &BTreeMap<u64, Told>, to: RevocationEpoch) -> Result<(), Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.catch_up(told, to).await,
            Backend::Postgres(store) => store.catch_up(told, to).await,
        }
    }

    /// Says that a replica lives and what it serves; answers all that live. Alone with the store, nobody is told.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn heartbeat(&self, own: &Member) -> Result<Vec<Member>, Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(vec![own.clone()]),
            Backend::Postgres(store) => store.heartbeat(own).await,
        }
    }

    /// Replicas that do not live and are not forgotten, with the moment at which they were heard of last, microseconds
    /// since 1970: what they did is on records that nobody can be asked for.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn gone(&self) -> Result<Vec<(ReplicaId, i64)>, Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(Vec::new()),
            Backend::Postgres(store) => store.gone().await,
        }
    }

    /// Says that this replica stops: whatever is bound to it is gone.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn leave(&self) -> Result<(), Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(store) => store.leave().await,
        }
    }

    /// Says that this replica starts. Answers which files it is to serve: its own, where no other replica lives.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn join(&self, own: &Member) -> Result<PolicyRevision, Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(own.revision),
            Backend::Postgres(store) => store.join(own).await,
        }
    }

    /// Makes these the files that all replicas are to serve, because this administrator said so.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn activate(&self, revision: PolicyRevision, actor: &str) -> Result<(), Failure> {
        match &self.0 {
            Backend::Sqlite(_) => Ok(()),
            Backend::Postgres(store) => store.activate(revision, actor).await,
        }
    }

    /// Removes rows of rooms that have expired; answers how many. To be called now and then.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn sweep(&self) -> Result<u64, Failure> {
        self.forget_voided(i64::try_from(limit::VOIDED_MARKS_MAX).unwrap_or(i64::MAX)).await?;
        match &self.0 {
            Backend::Sqlite(store) => store.sweep().await,
            Backend::Postgres(store) => store.sweep().await,
        }
    }

    /// What was taken back and lifted again after that epoch, as far as it is remembered: handles from before stay void.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn voided(&self, after: RevocationEpoch) -> Result<Voided, Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.voided(after).await,
            Backend::Postgres(store) => store.voided(after).await,
        }
    }

    /// Forgets the oldest of what was lifted where more than so many are remembered.
    async fn forget_voided(&self, kept: i64) -> Result<(), Failure> {
        match &self.0 {
            Backend::Sqlite(store) => store.forget_voided(kept).await,
            Backend::Postgres(store) => store.forget_voided(kept).await,
        }
    }

    /// The version of its tables, what it holds, and whose it is.
    ///
    /// # Errors
    /// [`StoreError`].
    pub async fn look(config: &StoreConfig, state: &std::path::Path) -> Result<look::Looked, StoreError> {
        match config {
            StoreConfig::Sqlite => look::look(state).await,
            StoreConfig::Postgres(config) => postgres::look(config, state).await,
        }
    }

    /// Finishes what is being written and closes every connection.
    pub async fn close(&self) {
        match &self.0 {
            Backend::Sqlite(store) => store.close().await,
            Backend::Postgres(store) => store.close().await,
        }
    }
}

impl RevocationStore for Store {
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<RevocationEpoch, Failure>> {
        match &self.0 {
            Backend::Sqlite(store) => store.revoke(revocation).boxed(),
            Backend::Postgres(store) => store.revoke(revocation).boxed(),
        }
    }

    fn lift<'a>(
        &'a self,
        since: RevocationEpoch,
        also: &'a [Mark],
        actor: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<Option<(RevocationEpoch, Revocation)>, Failure>> {
        match &self.0 {
            Backend::Sqlite(store) => store.lift(since, also, actor, note).boxed(),
            Backend::Postgres(store) => store.lift(since, also, actor, note).boxed(),
        }
    }

    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>> {
        match &self.0 {
            Backend::Sqlite(store) => store.revocations().boxed(),
            Backend::Postgres(store) => store.revocations().boxed(),
        }
    }

    fn revocation_epoch(&self) -> BoxFuture<'_, Result<RevocationEpoch, Failure>> {
        match &self.0 {
            Backend::Sqlite(store) => store.epoch().boxed(),
            Backend::Postgres(store) => store.epoch().boxed(),
        }
    }
}

impl Shelf for Store {
    fn row<'a>(&'a self, section: Section, key: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
        self.1.read(section);
        match &self.0 {
            Backend::Sqlite(store) => store.row(section, key).boxed(),
            Backend::Postgres(store) => store.row(section, key).boxed(),
        }
    }

    fn named<'a>(&'a self, names: &'a [Name]) -> BoxFuture<'a, Result<Vec<Option<Row>>, Failure>> {
        names.first().iter().for_each(|(section, _)| self.1.read(*section));
        match &self.0 {
            Backend::Sqlite(store) => store.named(names).boxed(),
            Backend::Postgres(store) => store.named(names).boxed(),
        }
    }

    fn rows<'a>(
        &'a self,
        section: Section,
        owner: Option<&'a str>,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
        self.1.read(section);
        match &self.0 {
            Backend::Sqlite(store) => store.rows(section, owner, after).boxed(),
            Backend::Postgres(store) => store.rows(section, owner, after).boxed(),
        }
    }

    fn change(&self, changes: Vec<Change>, tell: Tell) -> BoxFuture<'_, Result<Batch, Failure>> {
        changes.first().iter().for_each(|change| self.1.changed(change.section));
        async move {
            match &self.0 {
                Backend::Sqlite(store) => store.change(&changes, tell).await,
                Backend::Postgres(store) => store.change(&changes, tell).await,
            }
        }
        .boxed()
    }

    fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        async move {
            match &self.0 {
                Backend::Sqlite(_) => Ok(self.moment().await?.now_us),
                Backend::Postgres(store) => store.clock_us().await,
            }
        }
        .boxed()
    }
}

const fn epoch(stored: i64) -> RevocationEpoch {
    RevocationEpoch(stored.cast_unsigned())
}

fn unavailable(problem: impl std::fmt::Display) -> Failure {
    Failure::before(Reason::StoreUnavailable, format!("the store cannot be used: {problem}"))
}
