//! Looks at a store, or copies it, without owning it: also while a gateway has it open.
//!
//! Decides nothing about what it sees. Invariant: nothing here could change a row, because none of it is opened for
//! writing, and a copy is one moment of the store, readable by us alone.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use sqlx::sqlite::{SqliteConnectOptions, SqliteConnection};
use sqlx::{Connection as _, Row as _};

use super::{FILE, StoreError, epoch, migrations};
use crate::ids::RevocationEpoch;
use crate::limit;

/// What a store is, from outside.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Looked {
    /// The version of its tables.
    pub version: i64,
    /// The version that this program writes.
    pub version_known: i64,
    /// How many changes it has seen that may alter an answer.
    pub epoch: RevocationEpoch,
    /// Revocations that hold.
    pub revocations: i64,
    /// The name of the state directory.
    pub replica: String,
}

/// Looks at the store of a state directory.
///
/// # Errors
/// [`StoreError::Unusable`], also where there is none.
pub async fn look(state: &Path) -> Result<Looked, StoreError> {
    let unusable = unusable_in(state);
    let mut store = open(state).await?;
    let version = version(&mut store).await.map_err(&unusable)?;
    let row = sqlx::query("SELECT epoch, replica, (SELECT count(*) FROM revocations) FROM meta")
        .fetch_one(&mut store)
        .await
        .map_err(&unusable)?;
    let looked = Looked {
        version,
        version_known: known(),
        epoch: row.try_get(0).map(epoch).map_err(&unusable)?,
        replica: row.try_get(1).map_err(&unusable)?,
        revocations: row.try_get(2).map_err(&unusable)?,
    };
    store.close().await.map_err(&unusable)?;
    Ok(looked)
}

/// Copies the store of a state directory, as it is at one moment, into a file that is not there yet.
///
/// # Errors
/// [`StoreError::Unusable`], also where there is no store, or something at its destination.
pub async fn copy(state: &Path, to: &Path) -> Result<(), StoreError> {
    let unusable = unusable_in(state);
    let mut store = open(state).await?;
    copy_from(&mut store, to).await.map_err(&unusable)?;
    store.close().await.map_err(&unusable)
}

pub(super) async fn copy_from(store: &mut SqliteConnection, to: &Path) -> Result<(), sqlx::Error> {
    // SQLite would take the umask's mode; it writes into a file that is empty.
    let file = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    let named = to.to_str().ok_or_else(|| sqlx::Error::Protocol("the path is not UTF-8".to_owned()))?;
    sqlx::query("VACUUM INTO ?").bind(named).execute(store).await?;
    file.sync_all()?;
    Ok(())
}

/// The version of the tables; 0 where there are none yet.
pub(super) async fn version(store: &mut SqliteConnection) -> Result<i64, sqlx::Error> {
    let tables = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = '_sqlx_migrations'";
    let has: i64 = sqlx::query(tables).fetch_one(&mut *store).await?.try_get(0)?;
    if has == 0 {
        return Ok(0);
    }
    sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(store).await?.try_get(0)
}

/// The version of the tables that this program writes.
pub(super) fn known() -> i64 {
    migrations().iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn unusable_in(state: &Path) -> impl Fn(sqlx::Error) -> StoreError {
    let place = state.join(FILE).display().to_string();
    move |problem| StoreError::Unusable { place: place.clone(), problem: problem.to_string() }
}

async fn open(state: &Path) -> Result<SqliteConnection, StoreError> {
    let options = SqliteConnectOptions::new()
        .filename(state.join(FILE))
        .create_if_missing(false)
        .read_only(true)
        .busy_timeout(limit::STORE_BUSY_TIMEOUT);
    SqliteConnection::connect_with(&options).await.map_err(unusable_in(state))
}

#[cfg(test)]
mod tests {
    use super::super::Sqlite;
    use super::*;
    use crate::store::StateDirectory;

    #[tokio::test]
    async fn whoever_looks_cannot_write_whether_a_gateway_runs_or_not() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Sqlite::open(&state).await.unwrap();
        for number in 0..2 {
            let mut looks = open(state.path()).await.unwrap();
            let written = sqlx::query("UPDATE meta SET epoch = 9").execute(&mut looks).await;
            assert!(written.unwrap_err().to_string().contains("readonly"));
            looks.close().await.unwrap();
            assert_eq!(look(state.path()).await.unwrap().epoch, RevocationEpoch(0));
            copy(state.path(), &place.path().join(format!("copy-{number}"))).await.unwrap();
            store.close().await;
        }
    }
}
