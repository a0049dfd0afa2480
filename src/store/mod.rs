//! Decides how what happens at run time is kept: SQLite in the state directory. The only room that
//! knows SQL, and it refuses to know anything else: each other room declares the store that it needs.
//!
//! Invariant: what was acknowledged is on the disk (`synchronous = FULL`), and every change that may
//! alter an answer raises the epoch in the same transaction.

mod executable;
pub mod look;
mod reconcile;
mod revocation;
pub mod state;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Row as _, SqlSafeStr as _};

pub use reconcile::ToldChange;
pub use state::StateDirectory;

use crate::ids::{ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason};

const FILE: &str = "store.sqlite";

/// The store of one gateway.
#[derive(Debug, Clone)]
pub struct Store {
    /// SQLite has one writer; a pool of one makes everyone else wait here instead of failing there.
    writer: SqlitePool,
    readers: SqlitePool,
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
    /// A later version of this program has written it.
    #[error(
        "the store {place} has version {version}, and this program knows version {known}: start the newer program that \
         wrote it, or restore the copy that it kept beside the store before it upgraded"
    )]
    Newer {
        /// The file.
        place: String,
        /// The version of its tables.
        version: i64,
        /// The version that this program writes.
        known: i64,
    },
}

impl Store {
    /// Opens the store of a state directory that is ours, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], or [`StoreError::Newer`].
    pub async fn open(state: &StateDirectory) -> Result<Self, StoreError> {
        Self::open_with(state, &migrations()).await
    }

    async fn open_with(state: &StateDirectory, migrations: &Migrator) -> Result<Self, StoreError> {
        let path = state.path().join(FILE);
        let unusable = |problem: String| StoreError::Unusable { place: path.display().to_string(), problem };
        // SQLite would take the umask's mode; its -wal and -shm files take this file's.
        File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(rustix::fs::OFlags::NOFOLLOW.bits().cast_signed())
            .open(&path)
            .map_err(|problem| unusable(problem.to_string()))?;
        let options = SqliteConnectOptions::new()
            .filename(&path)
            .create_if_missing(false)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Full)
            .foreign_keys(true)
            .busy_timeout(limit::STORE_BUSY_TIMEOUT);
        let writer = SqlitePoolOptions::new()
            .max_connections(1)
            .idle_timeout(None)
            .max_lifetime(None)
            .connect_with(options.clone())
            .await
            .map_err(|problem| unusable(problem.to_string()))?;
        upgrade(&writer, state, migrations).await?;
        let readers = SqlitePoolOptions::new().max_connections(limit::STORE_READERS_MAX).connect_lazy_with(options);
        let store = Self { writer, readers };
        sqlx::query("INSERT INTO meta (one, epoch, replica) VALUES (1, 0, ?) ON CONFLICT DO NOTHING")
            .bind(ReplicaId::new().to_string())
            .execute(&store.writer)
            .await
            .map_err(|problem| unusable(problem.to_string()))?;
        Ok(store)
    }

    /// The name of this state directory: records and handles of every run carry it.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`].
    pub async fn replica(&self) -> Result<ReplicaId, Failure> {
        let row = sqlx::query("SELECT replica FROM meta").fetch_one(&self.readers).await.map_err(unavailable)?;
        let text: String = row.try_get(0).map_err(unavailable)?;
        text.parse().map_err(unavailable)
    }

    /// Refuses a store that has forgotten revocations which the journal remembers.
    ///
    /// # Errors
    /// [`StoreError::OlderThanJournal`], or [`StoreError::Unusable`] when it cannot be read.
    pub async fn check_not_older_than(&self, recorded: Option<RevocationEpoch>) -> Result<(), StoreError> {
        let store = self
            .epoch()
            .await
            .map_err(|problem| StoreError::Unusable { place: FILE.to_owned(), problem: problem.detail })?;
        match recorded {
            Some(journal) if journal > store => {
                Err(StoreError::OlderThanJournal { store: store.0, journal: journal.0 })
            }
            _ => Ok(()),
        }
    }

    /// Finishes what is being written and closes every connection.
    pub async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    async fn epoch(&self) -> Result<RevocationEpoch, Failure> {
        let row = sqlx::query("SELECT epoch FROM meta").fetch_one(&self.readers).await.map_err(unavailable)?;
        row.try_get::<i64, _>(0).map(epoch).map_err(unavailable)
    }
}

/// Brings the tables up to date, and keeps a copy of a store that has rows before it changes them.
async fn upgrade(writer: &SqlitePool, state: &StateDirectory, migrations: &Migrator) -> Result<(), StoreError> {
    let path = state.path().join(FILE);
    let unusable = |problem: String| StoreError::Unusable { place: path.display().to_string(), problem };
    let mut connection = writer.acquire().await.map_err(|problem| unusable(problem.to_string()))?;
    let version = look::version(&mut connection).await.map_err(|problem| unusable(problem.to_string()))?;
    let known = migrations.iter().map(|migration| migration.version).max().unwrap_or_default();
    if version > known {
        return Err(StoreError::Newer { place: path.display().to_string(), version, known });
    }
    if version > 0 && version < known {
        let kept = state.path().join(format!("store.version-{version}.sqlite"));
        // A copy of an upgrade that did not come to its end may be half a copy.
        match std::fs::remove_file(&kept) {
            Err(problem) if problem.kind() != std::io::ErrorKind::NotFound => {
                return Err(unusable(problem.to_string()));
            }
            _ => {}
        }
        look::copy_from(&mut connection, &kept)
            .await
            .map_err(|problem| unusable(format!("a copy has to be kept before its tables are changed: {problem}")))?;
        tracing::info!(from = version, to = known, kept = %kept.display(), "the store is upgraded");
    }
    migrations.run(&mut *connection).await.map_err(|problem| unusable(problem.to_string()))
}

fn migrations() -> Migrator {
    let migration = |version, description: &'static str, sql: &'static str| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "revocations", include_str!("migrations/0001_revocations.sql")),
        migration(2, "executables", include_str!("migrations/0002_executables.sql")),
        migration(3, "revoked names", include_str!("migrations/0003_revoked_names.sql")),
    ])
}

const fn epoch(stored: i64) -> RevocationEpoch {
    RevocationEpoch(stored.cast_unsigned())
}

fn unavailable(problem: impl std::fmt::Display) -> Failure {
    Failure::before(Reason::StoreUnavailable, format!("the store cannot be used: {problem}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn a_store_that_is_older_than_the_journal_does_not_start() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        assert!(store.check_not_older_than(None).await.is_ok());
        assert!(store.check_not_older_than(Some(RevocationEpoch(0))).await.is_ok());
        let error = store.check_not_older_than(Some(RevocationEpoch(3))).await.unwrap_err();
        assert!(matches!(error, StoreError::OlderThanJournal { store: 0, journal: 3 }), "{error}");
    }

    #[tokio::test]
    async fn the_files_are_ours_alone_and_the_name_stays() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        let replica = store.replica().await.unwrap();
        for entry in std::fs::read_dir(state.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
        store.close().await;
        let again = Store::open(&state).await.unwrap();
        assert_eq!(again.replica().await.unwrap(), replica);
    }

    #[tokio::test]
    async fn a_store_that_somebody_else_holds_is_waited_for_so_long() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let (store, other) = (Store::open(&state).await.unwrap(), Store::open(&state).await.unwrap());
        let held = other.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let began = std::time::Instant::now();
        assert!(store.writer.begin_with("BEGIN IMMEDIATE").await.is_err());
        let took = began.elapsed();
        assert!(took >= limit::STORE_BUSY_TIMEOUT && took < 2 * limit::STORE_BUSY_TIMEOUT, "{took:?}");
        drop(held);
        assert!(store.writer.begin_with("BEGIN IMMEDIATE").await.is_ok());
    }

    #[tokio::test]
    async fn an_upgrade_keeps_a_copy_and_the_older_program_refuses_the_result() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state).await.unwrap();
        let replica = store.replica().await.unwrap();
        store.close().await;
        let copy = state.path().join(format!("store.version-{}.sqlite", look::known()));
        assert!(!copy.exists(), "nothing was changed");
        std::fs::write(&copy, "half a copy").unwrap();

        let mut all: Vec<Migration> = migrations().iter().cloned().collect();
        let sql = "CREATE TABLE later (one INTEGER) STRICT";
        let next = look::known() + 1;
        all.push(Migration::new(next, "later".into(), MigrationType::Simple, sql.into_sql_str(), false));
        let store = Store::open_with(&state, &Migrator::with_migrations(all)).await.unwrap();
        assert_eq!(store.replica().await.unwrap(), replica);
        store.close().await;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

        let error = Store::open(&state).await.unwrap_err();
        assert!(matches!(error, StoreError::Newer { version, .. } if version == next), "{error}");
        std::fs::rename(&copy, state.path().join(FILE)).unwrap();
        let restored = Store::open(&state).await.unwrap();
        assert_eq!(restored.replica().await.unwrap(), replica, "what was kept is a whole store");
    }

    #[tokio::test]
    async fn a_link_in_place_of_the_store_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        std::os::unix::fs::symlink("/dev/null", state.path().join(FILE)).unwrap();
        assert!(Store::open(&state).await.is_err());
    }
}
