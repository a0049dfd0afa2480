//! What was lifted, as rows of SQLite, so that handles from before stay void.

use sqlx::Row as _;
use sqlx::sqlite::SqliteConnection;

use super::{Sqlite, unavailable};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;
use crate::store::voided::{FORGOTTEN, SECTION, Voided, sorted};

impl Sqlite {
    /// What was lifted after that epoch, as far as it is remembered.
    pub(in crate::store) async fn voided(&self, after: RevocationEpoch) -> Result<Voided, Failure> {
        let rows = sqlx::query("SELECT epoch, key, number FROM meta LEFT JOIN shelf ON section = ? AND owner > ?")
            .bind(SECTION)
            .bind(sorted(after.0.cast_signed()))
            .fetch_all(&self.readers)
            .await
            .map_err(unavailable)?;
        let mut voided = Voided::default();
        for row in rows {
            let (now, key, number) = (row.try_get(0), row.try_get(1), row.try_get(2));
            voided.take(now.map_err(unavailable)?, key.map_err(unavailable)?, number.map_err(unavailable)?);
        }
        Ok(voided)
    }

    /// Keeps so many; what is forgotten voids every handle that is as old.
    pub(in crate::store) async fn forget_voided(&self, kept: i64) -> Result<(), Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let row = sqlx::query(
            "SELECT max(number), max(owner) FROM
                 (SELECT number, owner FROM shelf WHERE section = ?1 AND key <> ?2 ORDER BY owner DESC LIMIT -1 OFFSET ?3)",
        )
        .bind(SECTION)
        .bind(FORGOTTEN)
        .bind(kept)
        .fetch_one(&mut *transaction)
        .await
        .map_err(unavailable)?;
        let (Some(since), Some(owner)) = (
            row.try_get::<Option<i64>, _>(0).map_err(unavailable)?,
            row.try_get::<Option<String>, _>(1).map_err(unavailable)?,
        ) else {
            return Ok(());
        };
        // All that were lifted as early: the rows of one change go together.
        sqlx::query("DELETE FROM shelf WHERE section = ? AND key <> ? AND owner <= ?")
            .bind(SECTION)
            .bind(FORGOTTEN)
            .bind(&owner)
            .execute(&mut *transaction)
            .await
            .map_err(unavailable)?;
        put(&mut transaction, FORGOTTEN, &owner, since).await?;
        transaction.commit().await.map_err(unavailable)
    }
}

/// Remembers that these names of marks had been taken back since then, and are lifted in that epoch.
pub(super) async fn void(
    connection: &mut SqliteConnection,
    names: impl Iterator<Item = String>,
    since: i64,
    lifted: i64,
) -> Result<(), Failure> {
    for name in names {
        put(connection, &name, &sorted(lifted), since).await?;
    }
    Ok(())
}

/// Says that nobody knows what was taken back before that epoch.
pub(super) async fn forget(connection: &mut SqliteConnection, before: i64) -> Result<(), Failure> {
    put(connection, FORGOTTEN, &sorted(before), before).await
}

async fn put(connection: &mut SqliteConnection, key: &str, owner: &str, since: i64) -> Result<(), Failure> {
    sqlx::query(
        "INSERT INTO shelf (section, key, version, owner, body, number, expires_at) VALUES (?, ?, 0, ?, '', ?, NULL)
         ON CONFLICT (section, key) DO UPDATE SET
             owner = max(owner, excluded.owner), number = max(number, excluded.number)",
    )
    .bind(SECTION)
    .bind(key)
    .bind(owner)
    .bind(since)
    .execute(connection)
    .await
    .map(drop)
    .map_err(unavailable)
}
