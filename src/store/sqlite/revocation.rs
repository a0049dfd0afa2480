//! Revocations as rows of SQLite.

use sqlx::Row as _;
use sqlx::sqlite::{SqliteConnection, SqliteRow};

use super::changed::note;
use super::voided::void;
use super::{Sqlite, epoch, unavailable};
use crate::identity::described::Described;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::changed::Noted;
use crate::store::row::{self, Counts, Row};
use crate::store::voided::names;
use crate::wire::voids::Mark;

impl Sqlite {
    /// Adds one; durable when it returns.
    pub(in crate::store) async fn revoke(&self, revocation: &Revocation) -> Result<RevocationEpoch, Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let row = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch")
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let next: i64 = row.try_get(0).map_err(unavailable)?;
        row::has_room(revocation, counts(&mut transaction, revocation).await?)?;
        upsert(&mut transaction, revocation, next).await?;
        note(&mut transaction, next, &Noted::revocation(revocation, false)?).await?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(epoch(next))
    }

    /// Takes back the one that holds since then; durable when it returns.
    pub(in crate::store) async fn lift(
        &self,
        since: RevocationEpoch,
        also: &[Mark],
        actor: &str,
        why: &str,
    ) -> Result<Option<(RevocationEpoch, Revocation)>, Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let row = sqlx::query(
            "DELETE FROM revocations WHERE epoch = ?
             RETURNING kind, issuer, value, mode, issued_before, actor, note, at, epoch",
        )
        .bind(since.0.cast_signed())
        .fetch_optional(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let Some(lifted) = row.as_ref().map(read).transpose()? else { return Ok(None) };
        // Whoever compares epochs has to see that something changed.
        let row = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch")
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let next: i64 = row.try_get(0).map_err(unavailable)?;
        let names = names(&lifted.revocation.target).chain(also.iter().map(|mark| mark.name()));
        void(&mut transaction, names, since.0.cast_signed(), next).await?;
        let told = Revocation { actor: actor.to_owned(), note: why.to_owned(), ..lifted.revocation.clone() };
        note(&mut transaction, next, &Noted::revocation(&told, true)?).await?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(Some((epoch(next), lifted.revocation)))
    }

    /// All that hold, and the epoch that they belong to.
    pub(in crate::store) async fn revocations(&self) -> Result<(RevocationEpoch, Vec<Held>), Failure> {
        // One transaction: the epoch belongs to exactly these rows.
        let mut transaction = self.readers.begin().await.map_err(unavailable)?;
        let row = sqlx::query("SELECT epoch FROM meta").fetch_one(&mut *transaction).await.map_err(unavailable)?;
        let current = row.try_get::<i64, _>(0).map(epoch).map_err(unavailable)?;
        let rows = sqlx::query(
            "SELECT kind, issuer, value, mode, issued_before, actor, note, at, epoch FROM revocations ORDER BY epoch",
        )
        .fetch_all(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let held = rows.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        Ok((current, held))
    }
}

async fn counts(connection: &mut SqliteConnection, revocation: &Revocation) -> Result<Counts, Failure> {
    let words = Described::from(&revocation.target);
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {} FROM revocations", row::COUNTS)))
        .bind(words.kind)
        .bind(words.issuer)
        .bind(words.value)
        .bind(revocation.mode.as_str())
        .fetch_one(connection)
        .await
        .map_err(unavailable)?;
    let count = |index: usize| row.try_get::<i64, _>(index).map_err(unavailable);
    Ok(Counts { all: count(0)?, of_feeds: count(1)?, blocks_of_feeds: count(2)?, own: count(3)? })
}

/// Takes back whatever holds of this target in this mode, in that epoch.
pub(super) async fn remove(
    connection: &mut SqliteConnection,
    target: &RevocationTarget,
    mode: RevocationMode,
    epoch: i64,
) -> Result<(), Failure> {
    let words = Described::from(target);
    let sql = "DELETE FROM revocations WHERE kind = ? AND issuer = ? AND value = ? AND mode = ? RETURNING epoch";
    let row = sqlx::query(sql)
        .bind(words.kind)
        .bind(words.issuer)
        .bind(words.value)
        .bind(mode.as_str())
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?;
    let Some(row) = row else { return Ok(()) };
    void(connection, names(target), row.try_get(0).map_err(unavailable)?, epoch).await
}

/// Writes one revocation; one of the same target and mode is renewed and never takes anything back.
pub(super) async fn upsert(
    connection: &mut SqliteConnection,
    revocation: &Revocation,
    epoch: i64,
) -> Result<(), Failure> {
    let words = Described::from(&revocation.target);
    sqlx::query(
        "INSERT INTO revocations (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
         VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
         ON CONFLICT DO UPDATE SET
             issued_before = max(issued_before, excluded.issued_before),
             actor = excluded.actor, note = excluded.note, at = excluded.at, epoch = excluded.epoch",
    )
    .bind(words.kind)
    .bind(words.issuer)
    .bind(words.value)
    .bind(revocation.mode.as_str())
    .bind(revocation.mode.issued_before())
    .bind(&revocation.actor)
    .bind(&revocation.note)
    .bind(revocation.at)
    .bind(epoch)
    .execute(connection)
    .await
    .map_err(unavailable)?;
    Ok(())
}

fn read(row: &SqliteRow) -> Result<Held, Failure> {
    let text = |index: usize| row.try_get::<String, _>(index).map_err(unavailable);
    Row {
        kind: text(0)?,
        issuer: text(1)?,
        value: text(2)?,
        mode: text(3)?,
        issued_before: row.try_get(4).map_err(unavailable)?,
        actor: text(5)?,
        note: text(6)?,
        at: row.try_get(7).map_err(unavailable)?,
        epoch: row.try_get(8).map_err(unavailable)?,
    }
    .read()
}
