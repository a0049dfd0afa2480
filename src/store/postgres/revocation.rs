//! Revocations as rows of PostgreSQL.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::voided::void;
use super::{Postgres, durable, tell, within};
use crate::identity::described::Described;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::changed::Noted;
use crate::store::row::{self, Counts, Row};
use crate::store::voided::names;
use crate::store::{epoch, unavailable};
use crate::wire::voids::Mark;

impl Postgres {
    /// Adds one; durable when it returns. The row of the epoch is held until then, so that epochs are as old as they
    /// are great at every replica.
    pub(in crate::store) async fn revoke(&self, revocation: &Revocation) -> Result<RevocationEpoch, Failure> {
        let noted = Noted::revocation(revocation, false)?;
        let added = within(async {
            let mut transaction = self.own.begin().await?;
            durable(&mut transaction).await?;
            let row =
                sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch").fetch_one(&mut *transaction).await?;
            let next: i64 = row.try_get(0)?;
            let counts = counts(&mut transaction, revocation).await?;
            if let Err(failure) = row::has_room(revocation, counts) {
                return Ok(Err(failure));
            }
            upsert(&mut transaction, revocation, next).await?;
            self.note(&mut transaction, next, &noted).await?;
            tell(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Ok(epoch(next)))
        });
        added.await?
    }

    /// Takes back the one that holds since then; durable when it returns.
    pub(in crate::store) async fn lift(
        &self,
        since: RevocationEpoch,
        also: &[Mark],
        actor: &str,
        note: &str,
    ) -> Result<Option<(RevocationEpoch, Revocation)>, Failure> {
        let lifted = within(async {
            let mut transaction = self.own.begin().await?;
            durable(&mut transaction).await?;
            // Whoever compares epochs has to see that something changed.
            let row =
                sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch").fetch_one(&mut *transaction).await?;
            let next: i64 = row.try_get(0)?;
            let row = sqlx::query(
                "DELETE FROM revocations WHERE epoch = $1
                 RETURNING epoch, kind, issuer, value, mode, issued_before, actor, note, at",
            )
            .bind(since.0.cast_signed())
            .fetch_optional(&mut *transaction)
            .await?;
            let revocation = match row.as_ref().map(read).transpose() {
                Ok(Some(Some(held))) => held.revocation,
                Ok(_) => return Ok(Ok(None)),
                Err(failure) => return Ok(Err(failure)),
            };
            let names = names(&revocation.target).chain(also.iter().map(|mark| mark.name()));
            void(&mut transaction, names, since.0.cast_signed(), next).await?;
            let told = Revocation { actor: actor.to_owned(), note: note.to_owned(), ..revocation.clone() };
            let noted = match Noted::revocation(&told, true) {
                Ok(noted) => noted,
                Err(failure) => return Ok(Err(failure)),
            };
            self.note(&mut transaction, next, &noted).await?;
            tell(&mut transaction).await?;
            transaction.commit().await?;
            Ok(Ok(Some((epoch(next), revocation))))
        });
        lifted.await?
    }

    /// All that hold, and the epoch that they belong to: one statement sees one moment.
    pub(in crate::store) async fn revocations(&self) -> Result<(RevocationEpoch, Vec<Held>), Failure> {
        let rows = within(async {
            sqlx::query(
                "SELECT revocations.epoch, kind, issuer, value, mode, issued_before, actor, note, at, meta.epoch
                 FROM meta LEFT JOIN revocations ON true ORDER BY revocations.epoch",
            )
            .fetch_all(&self.own)
            .await
        })
        .await?;
        let first = rows.first().ok_or_else(|| unavailable("it has lost the row of its epoch"))?;
        let current = first.try_get::<i64, _>(9).map(epoch).map_err(unavailable)?;
        let held: Result<Vec<Option<Held>>, Failure> = rows.iter().map(read).collect();
        Ok((current, held?.into_iter().flatten().collect()))
    }
}

async fn counts(connection: &mut PgConnection, revocation: &Revocation) -> Result<Counts, sqlx::Error> {
    let words = Described::from(&revocation.target);
    let row = sqlx::query(sqlx::AssertSqlSafe(format!("SELECT {} FROM revocations", row::COUNTS)))
        .bind(words.kind)
        .bind(words.issuer)
        .bind(words.value)
        .bind(revocation.mode.as_str())
        .fetch_one(connection)
        .await?;
    Ok(Counts {
        all: row.try_get(0)?,
        of_feeds: row.try_get(1)?,
        blocks_of_feeds: row.try_get(2)?,
        own: row.try_get(3)?,
    })
}

/// Takes back whatever holds of this target in this mode, in that epoch.
pub(super) async fn remove(
    connection: &mut PgConnection,
    target: &RevocationTarget,
    mode: RevocationMode,
    epoch: i64,
) -> Result<(), sqlx::Error> {
    let words = Described::from(target);
    let sql = "DELETE FROM revocations WHERE kind = $1 AND issuer = $2 AND value = $3 AND mode = $4 RETURNING epoch";
    let row = sqlx::query(sql)
        .bind(words.kind)
        .bind(words.issuer)
        .bind(words.value)
        .bind(mode.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(row) = row else { return Ok(()) };
    void(connection, names(target), row.try_get(0)?, epoch).await
}

/// Writes one revocation; one of the same target and mode is renewed and never takes anything back.
pub(super) async fn upsert(
    connection: &mut PgConnection,
    revocation: &Revocation,
    epoch: i64,
) -> Result<(), sqlx::Error> {
    let words = Described::from(&revocation.target);
    sqlx::query(
        "INSERT INTO revocations AS held (kind, issuer, value, mode, issued_before, actor, note, at, epoch)
         VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)
         ON CONFLICT (kind, issuer, value, mode) DO UPDATE SET
             issued_before = greatest(held.issued_before, excluded.issued_before),
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
    .map(drop)
}

/// Nothing where no revocation holds: the epoch has a row all the same.
fn read(row: &PgRow) -> Result<Option<Held>, Failure> {
    let text = |index: usize| row.try_get::<String, _>(index).map_err(unavailable);
    let kind: Option<String> = row.try_get(1).map_err(unavailable)?;
    let Some(kind) = kind else { return Ok(None) };
    let row = Row {
        kind,
        issuer: text(2)?,
        value: text(3)?,
        mode: text(4)?,
        issued_before: row.try_get(5).map_err(unavailable)?,
        actor: text(6)?,
        note: text(7)?,
        at: row.try_get(8).map_err(unavailable)?,
        epoch: row.try_get(0).map_err(unavailable)?,
    };
    row.read().map(Some)
}
