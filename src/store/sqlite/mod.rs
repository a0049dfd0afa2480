//! SQLite in the state directory: the store of one gateway.
//!
//! Decides how the file is opened, upgraded and copied. Invariant: what was acknowledged is on the disk
//! (`synchronous = FULL`), and nobody else can read it.

pub mod look;

mod changed;
mod executable;
mod reconcile;
mod revocation;
mod shelf;
mod voided;

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePool, SqlitePoolOptions, SqliteSynchronous};
use sqlx::{Connection as _, Row as _, SqlSafeStr as _};

use super::shelf::Rooms;
use super::{StateDirectory, StoreError, epoch, unavailable};
use crate::ids::{ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;

pub(super) const FILE: &str = "store.sqlite";

/// The store of one gateway.
#[derive(Debug, Clone)]
pub(super) struct Sqlite {
    /// SQLite has one writer; a pool of one makes everyone else wait here instead of failing there.
    pub(super) writer: SqlitePool,
    readers: SqlitePool,
    rooms: Rooms,
}

impl Sqlite {
    /// Opens the store of a state directory that is ours, and brings its tables up to date.
    ///
    /// # Errors
    /// [`StoreError::Unusable`], or [`StoreError::Newer`].
    pub(super) async fn open(state: &StateDirectory) -> Result<Self, StoreError> {
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
            .after_release(|connection, _| {
                Box::pin(async move {
                    // Where the disk is full, SQLite ends a transaction by itself; the library goes on counting it, and
                    // would begin no other. What is being rolled back is done once the ping is answered.
                    if connection.is_in_transaction() {
                        connection.ping().await?;
                    }
                    Ok(!connection.is_in_transaction())
                })
            })
            .connect_with(options.clone())
            .await
            .map_err(|problem| unusable(problem.to_string()))?;
        upgrade(&writer, state, migrations).await?;
        let readers = SqlitePoolOptions::new().max_connections(limit::STORE_READERS_MAX).connect_lazy_with(options);
        // Nobody else has it.
        let store = Self { writer, readers, rooms: Rooms::shared_by(1) };
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
    pub(super) async fn replica(&self) -> Result<ReplicaId, Failure> {
        let row = sqlx::query("SELECT replica FROM meta").fetch_one(&self.readers).await.map_err(unavailable)?;
        let text: String = row.try_get(0).map_err(unavailable)?;
        text.parse().map_err(unavailable)
    }

    /// Finishes what is being written and closes every connection.
    pub(super) async fn close(&self) {
        self.readers.close().await;
        self.writer.close().await;
    }

    pub(super) async fn epoch(&self) -> Result<RevocationEpoch, Failure> {
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
        migration(4, "shelf", include_str!("migrations/0004_shelf.sql")),
        migration(5, "revoked mandates", include_str!("migrations/0005_revoked_mandates.sql")),
        migration(6, "revoked kinds", include_str!("migrations/0006_revoked_kinds.sql")),
        migration(7, "changes", include_str!("migrations/0007_changes.sql")),
    ])
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[tokio::test]
    async fn the_files_are_ours_alone_and_the_name_stays() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Sqlite::open(&state).await.unwrap();
        let replica = store.replica().await.unwrap();
        for entry in std::fs::read_dir(state.path()).unwrap() {
            let entry = entry.unwrap();
            let mode = entry.metadata().unwrap().permissions().mode() & 0o777;
            assert_eq!(mode, 0o600, "{:?}", entry.path());
        }
        store.close().await;
        let again = Sqlite::open(&state).await.unwrap();
        assert_eq!(again.replica().await.unwrap(), replica);
    }

    #[tokio::test]
    async fn a_store_that_somebody_else_holds_is_waited_for_so_long() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let (store, other) = (Sqlite::open(&state).await.unwrap(), Sqlite::open(&state).await.unwrap());
        let held = other.writer.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let began = std::time::Instant::now();
        assert!(store.writer.begin_with("BEGIN IMMEDIATE").await.is_err());
        let took = began.elapsed();
        // Above, only that it is not waited for without end: a machine under load is slow.
        assert!(took >= limit::STORE_BUSY_TIMEOUT && took < 15 * limit::STORE_BUSY_TIMEOUT, "{took:?}");
        drop(held);
        assert!(store.writer.begin_with("BEGIN IMMEDIATE").await.is_ok());
    }

    #[tokio::test]
    async fn an_upgrade_keeps_a_copy_and_the_older_program_refuses_the_result() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Sqlite::open(&state).await.unwrap();
        let replica = store.replica().await.unwrap();
        store.close().await;
        let copy = state.path().join(format!("store.version-{}.sqlite", look::known()));
        assert!(!copy.exists(), "nothing was changed");
        std::fs::write(&copy, "half a copy").unwrap();

        let mut all: Vec<Migration> = migrations().iter().cloned().collect();
        let sql = "CREATE TABLE later (one INTEGER) STRICT";
        let next = look::known() + 1;
        all.push(Migration::new(next, "later".into(), MigrationType::Simple, sql.into_sql_str(), false));
        let store = Sqlite::open_with(&state, &Migrator::with_migrations(all)).await.unwrap();
        assert_eq!(store.replica().await.unwrap(), replica);
        store.close().await;
        assert_eq!(std::fs::metadata(&copy).unwrap().permissions().mode() & 0o777, 0o600);

        let error = Sqlite::open(&state).await.unwrap_err();
        assert!(matches!(error, StoreError::Newer { version, .. } if version == next), "{error}");
        std::fs::rename(&copy, state.path().join(FILE)).unwrap();
        let restored = Sqlite::open(&state).await.unwrap();
        assert_eq!(restored.replica().await.unwrap(), replica, "what was kept is a whole store");
    }

    #[tokio::test]
    async fn a_link_in_place_of_the_store_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        std::os::unix::fs::symlink("/dev/null", state.path().join(FILE)).unwrap();
        assert!(Sqlite::open(&state).await.is_err());
    }
}
