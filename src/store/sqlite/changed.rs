//! What raised the epoch, as rows of SQLite: the record is brought up to them, also after a crash.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::{Sqlite, epoch, unavailable};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::store::changed::{Changed, Noted, What};
use crate::store::row::Row;

impl Sqlite {
    /// What raised the epoch since then, oldest first.
    pub(in crate::store) async fn changed_since(&self, since: RevocationEpoch) -> Result<Vec<Changed>, Failure> {
        let rows = sqlx::query(
            "SELECT epoch, nonce, replica, lifted, kind, issuer, value, mode, issued_before, actor, note, at
             FROM changes WHERE epoch > ? ORDER BY epoch LIMIT ?",
        )
        .bind(since.0.cast_signed())
        .bind(limit::REVOCATION_CHANGES_TAKEN_MAX)
        .fetch_all(&self.readers)
        .await
        .map_err(unavailable)?;
        rows.iter().map(read).collect()
    }

    /// What tells that epoch from the same one of another history, where it is remembered.
    pub(in crate::store) async fn nonce(&self, epoch: RevocationEpoch) -> Result<Option<u32>, Failure> {
        let row = sqlx::query("SELECT nonce FROM changes WHERE epoch = ?").bind(epoch.0.cast_signed());
        let row = row.fetch_optional(&self.readers).await.map_err(unavailable)?;
        let nonce = row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose().map_err(unavailable)?;
        Ok(nonce.flatten().and_then(|nonce| u32::try_from(nonce).ok()))
    }
}

/// Notes what raised the epoch, and forgets the oldest.
pub(super) async fn note(connection: &mut SqliteConnection, epoch: i64, noted: &Noted) -> Result<(), Failure> {
    sqlx::query(
        "INSERT OR REPLACE INTO changes
             (epoch, nonce, replica, lifted, kind, issuer, value, mode, issued_before, actor, note, at)
         VALUES (?, ?, (SELECT replica FROM meta), ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    )
    .bind(epoch)
    .bind(noted.nonce)
    .bind(noted.lifted)
    .bind(&noted.kind)
    .bind(&noted.issuer)
    .bind(&noted.value)
    .bind(noted.mode)
    .bind(noted.issued_before)
    .bind(&noted.actor)
    .bind(&noted.note)
    .bind(noted.at)
    .execute(&mut *connection)
    .await
    .map_err(unavailable)?;
    sqlx::query("DELETE FROM changes WHERE epoch <= ?")
        .bind(epoch - limit::REVOCATION_CHANGES_MAX)
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Changed, Failure> {
    let text = |index: usize| row.try_get::<String, _>(index).map_err(unavailable);
    let at_epoch: i64 = row.try_get(0).map_err(unavailable)?;
    let nonce: Option<i64> = row.try_get(1).map_err(unavailable)?;
    let lifted = row.try_get(3).map_err(unavailable)?;
    let columns = Row {
        kind: text(4)?,
        issuer: text(5)?,
        value: text(6)?,
        mode: text(7)?,
        issued_before: row.try_get(8).map_err(unavailable)?,
        actor: text(9)?,
        note: text(10)?,
        at: row.try_get(11).map_err(unavailable)?,
        epoch: at_epoch,
    };
    Ok(Changed {
        epoch: epoch(at_epoch),
        nonce: nonce.and_then(|nonce| u32::try_from(nonce).ok()),
        replica: text(2)?.parse().map_err(unavailable)?,
        what: What::read(columns, lifted)?,
    })
}
