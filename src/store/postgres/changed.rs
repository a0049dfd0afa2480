//! What raised the epoch, as rows of PostgreSQL: each replica puts all of it on its own record.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::{Postgres, within};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::store::changed::{Changed, Noted, What};
use crate::store::row::Row;
use crate::store::{epoch, unavailable};

impl Postgres {
    /// What raised the epoch since then, at whichever replica, oldest first and as much as is remembered.
    pub(in crate::store) async fn changed_since(&self, since: RevocationEpoch) -> Result<Vec<Changed>, Failure> {
        let rows = within(async {
            sqlx::query(
                "SELECT epoch, nonce, replica, lifted, kind, issuer, value, mode, issued_before, actor, note, at
                 FROM changes WHERE epoch > $1 ORDER BY epoch LIMIT $2",
            )
            .bind(since.0.cast_signed())
            .bind(limit::REVOCATION_CHANGES_TAKEN_MAX)
            .fetch_all(&self.own)
            .await
        })
        .await?;
        rows.iter().map(read).collect()
    }

    /// What tells that epoch from the same one of another history, where it is remembered.
    pub(in crate::store) async fn nonce(&self, epoch: RevocationEpoch) -> Result<Option<u32>, Failure> {
        let nonce = within(async {
            let row = sqlx::query("SELECT nonce FROM changes WHERE epoch = $1").bind(epoch.0.cast_signed());
            let row = row.fetch_optional(&self.own).await?;
            row.map(|row| row.try_get::<Option<i64>, _>(0)).transpose()
        });
        Ok(nonce.await?.flatten().and_then(|nonce| u32::try_from(nonce).ok()))
    }

    /// Notes what raised the epoch for the records of the other replicas, and forgets the oldest.
    pub(super) async fn note(
        &self,
        connection: &mut PgConnection,
        epoch: i64,
        noted: &Noted,
    ) -> Result<(), sqlx::Error> {
        sqlx::query(
            "INSERT INTO changes
                 (epoch, replica, lifted, kind, issuer, value, mode, issued_before, actor, note, at, nonce)
             VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
             ON CONFLICT (epoch) DO UPDATE SET
                 replica = excluded.replica, lifted = excluded.lifted, kind = excluded.kind,
                 issuer = excluded.issuer, value = excluded.value, mode = excluded.mode,
                 issued_before = excluded.issued_before, actor = excluded.actor, note = excluded.note,
                 at = excluded.at, nonce = excluded.nonce",
        )
        .bind(epoch)
        .bind(self.replica.to_string())
        .bind(noted.lifted)
        .bind(&noted.kind)
        .bind(&noted.issuer)
        .bind(&noted.value)
        .bind(noted.mode)
        .bind(noted.issued_before)
        .bind(&noted.actor)
        .bind(&noted.note)
        .bind(noted.at)
        .bind(noted.nonce)
        .execute(&mut *connection)
        .await?;
        sqlx::query("DELETE FROM changes WHERE epoch <= $1")
            .bind(epoch - limit::REVOCATION_CHANGES_MAX)
            .execute(connection)
            .await
            .map(drop)
    }
}

fn read(row: &PgRow) -> Result<Changed, Failure> {
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
