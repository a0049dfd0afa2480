//! What was lifted, as rows of PostgreSQL, so that handles from before stay void at every replica.

use sqlx::Row as _;
use sqlx::postgres::PgConnection;

use super::{Postgres, durable, within};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::unavailable;
use crate::store::voided::{FORGOTTEN, SECTION, Voided, sorted};

impl Postgres {
    /// What was lifted after that epoch, as far as it is remembered.
    pub(in crate::store) async fn voided(&self, after: RevocationEpoch) -> Result<Voided, Failure> {
        let rows = within(async {
            sqlx::query("SELECT epoch, key, number FROM meta LEFT JOIN shelf ON section = $1 AND owner > $2")
                .bind(SECTION)
                .bind(sorted(after.0.cast_signed()))
                .fetch_all(&self.own)
                .await
        })
        .await?;
        let mut voided = Voided::default();
        for row in rows {
            let (now, key, number) = (row.try_get(0), row.try_get(1), row.try_get(2));
            voided.take(now.map_err(unavailable)?, key.map_err(unavailable)?, number.map_err(unavailable)?);
        }
        Ok(voided)
    }

    /// Keeps so many; what is forgotten voids every handle that is as old.
    pub(in crate::store) async fn forget_voided(&self, kept: i64) -> Result<(), Failure> {
        within(async {
            let mut transaction = self.pool.begin().await?;
            durable(&mut transaction).await?;
            let row = sqlx::query(
                "SELECT max(number), max(owner) FROM
                     (SELECT number, owner FROM shelf WHERE section = $1 AND key <> $2 ORDER BY owner DESC OFFSET $3) old",
            )
            .bind(SECTION)
            .bind(FORGOTTEN)
            .bind(kept)
            .fetch_one(&mut *transaction)
            .await?;
            let (Some(since), Some(owner)) =
                (row.try_get::<Option<i64>, _>(0)?, row.try_get::<Option<String>, _>(1)?)
            else {
                return Ok(());
            };
            put(&mut transaction, FORGOTTEN, &owner, since).await?;
            // All that were lifted as early: the rows of one change go together.
            sqlx::query("DELETE FROM shelf WHERE section = $1 AND key <> $2 AND owner <= $3")
                .bind(SECTION)
                .bind(FORGOTTEN)
                .bind(&owner)
                .execute(&mut *transaction)
                .await?;
            transaction.commit().await
        })
        .await
    }
}

/// Remembers that these names of marks had been taken back since then, and are lifted in that epoch.
pub(super) async fn void(
    connection: &mut PgConnection,
    names: impl Iterator<Item = String>,
    since: i64,
    lifted: i64,
) -> Result<(), sqlx::Error> {
    for name in names {
        put(connection, &name, &sorted(lifted), since).await?;
    }
    Ok(())
}

/// Says that nobody knows what was taken back before that epoch.
pub(super) async fn forget(connection: &mut PgConnection, before: i64) -> Result<(), sqlx::Error> {
    put(connection, FORGOTTEN, &sorted(before), before).await
}

async fn put(connection: &mut PgConnection, key: &str, owner: &str, since: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO shelf AS held (section, key, version, owner, body, number, expires_at)
         VALUES ($1, $2, 0, $3, '', $4, NULL)
         ON CONFLICT (section, key) DO UPDATE SET
             owner = greatest(held.owner, excluded.owner), number = greatest(held.number, excluded.number)",
    )
    .bind(SECTION)
    .bind(key)
    .bind(owner)
    .bind(since)
    .execute(connection)
    .await
    .map(drop)
}
