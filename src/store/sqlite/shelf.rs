//! The rows of rooms, in SQLite. One writer at a time: what is read in a transaction stays so.

use sqlx::sqlite::{SqliteConnection, SqliteRow};
use sqlx::{QueryBuilder, Row as _};

use super::Sqlite;
use super::changed::note;
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Change, Changed, Name, Row, Section, Tell, Version};
use crate::store::changed::Noted;
use crate::store::shelf::{Found, Rooms, Step, in_order, in_places, order, step};
use crate::store::{epoch, unavailable};

const COLUMNS: &str = "key, version, owner, body, number, expires_at";

/// How a batch ends before its end.
#[derive(Debug)]
pub(super) enum Halt {
    Conflict,
    Full,
}

impl Sqlite {
    pub(in crate::store) async fn row(&self, section: Section, key: &str) -> Result<Option<Row>, Failure> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM shelf WHERE section = ? AND key = ? AND (expires_at IS NULL OR expires_at > ?)"
        ));
        let found = sqlx::query(sql).bind(section.name).bind(key).bind(now_us()).fetch_optional(&self.readers).await;
        found.map_err(unavailable)?.as_ref().map(read).transpose()
    }

    pub(in crate::store) async fn named(&self, names: &[Name]) -> Result<Vec<Option<Row>>, Failure> {
        if names.is_empty() {
            return Ok(Vec::new());
        }
        let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS}, section FROM shelf WHERE ("));
        for (place, (section, key)) in names.iter().enumerate() {
            sql.push(if place == 0 { "(section = " } else { " OR (section = " });
            sql.push_bind(section.name).push(" AND key = ").push_bind(key.as_str()).push(")");
        }
        sql.push(") AND (expires_at IS NULL OR expires_at > ").push_bind(now_us()).push(")");
        let rows = sql.build().fetch_all(&self.readers).await.map_err(unavailable)?;
        let found = rows.iter().map(|row| Ok((row.try_get(6).map_err(unavailable)?, read(row)?)));
        Ok(in_places(names, &found.collect::<Result<Vec<_>, Failure>>()?))
    }

    pub(in crate::store) async fn rows(
        &self,
        section: Section,
        owner: Option<&str>,
        after: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        let by_owner = if owner.is_some() { "AND owner = ?4" } else { "" };
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM shelf
             WHERE section = ?1 AND key > ?2 AND (expires_at IS NULL OR expires_at > ?3) {by_owner}
             ORDER BY key LIMIT {}",
            limit::SHELF_ROWS_READ_MAX
        ));
        let query = sqlx::query(sql).bind(section.name).bind(after.unwrap_or("")).bind(now_us());
        let query = if let Some(owner) = owner { query.bind(owner) } else { query };
        query.fetch_all(&self.readers).await.map_err(unavailable)?.iter().map(read).collect()
    }

    pub(in crate::store) async fn change(&self, changes: &[Change], tell: Tell) -> Result<Changed, Failure> {
        let order = order(changes)?;
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let (now, mut numbers) = (now_us(), Vec::with_capacity(changes.len()));
        let row = sqlx::query("UPDATE meta SET shelf_version = shelf_version + 1 RETURNING shelf_version")
            .fetch_one(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let version = Version(row.try_get(0).map_err(unavailable)?);
        for index in order {
            let Some(change) = changes.get(index) else { continue };
            match apply(&mut transaction, &self.rooms, change, version, now).await? {
                Ok(number) => numbers.push((index, number)),
                Err(Halt::Conflict) => return Ok(Changed::Conflict(index)),
                Err(Halt::Full) => return Ok(Changed::Full(index)),
            }
        }
        let told = match tell {
            Tell::Nobody => None,
            Tell::Everybody => {
                let row = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch")
                    .fetch_one(&mut *transaction)
                    .await
                    .map_err(unavailable)?;
                let next: i64 = row.try_get(0).map_err(unavailable)?;
                note(&mut transaction, next, &Noted::rows(changes, now.div_euclid(1_000_000))?).await?;
                Some(epoch(next))
            }
        };
        transaction.commit().await.map_err(unavailable)?;
        Ok(Changed::Done { numbers: in_order(changes.len(), &numbers), version, epoch: told })
    }

    /// Removes rows that have expired; answers how many.
    pub(in crate::store) async fn sweep(&self) -> Result<u64, Failure> {
        let swept = sqlx::query(
            "DELETE FROM shelf WHERE (section, key) IN
                 (SELECT section, key FROM shelf WHERE expires_at <= ? ORDER BY expires_at LIMIT ?)",
        )
        .bind(now_us())
        .bind(limit::SHELF_SWEPT_MAX)
        .execute(&self.writer)
        .await
        .map_err(unavailable)?;
        Ok(swept.rows_affected())
    }
}

pub(super) async fn apply(
    connection: &mut SqliteConnection,
    rooms: &Rooms,
    change: &Change,
    version: Version,
    now: i64,
) -> Result<Result<i64, Halt>, Failure> {
    let found = sqlx::query("SELECT version, number, expires_at FROM shelf WHERE section = ? AND key = ?")
        .bind(change.section.name)
        .bind(&change.key)
        .fetch_optional(&mut *connection)
        .await
        .map_err(unavailable)?;
    let mut found = match &found {
        None => None,
        Some(row) => Some(Found {
            version: Version(row.try_get(0).map_err(unavailable)?),
            number: row.try_get(1).map_err(unavailable)?,
            expires_at_us: row.try_get(2).map_err(unavailable)?,
        }),
    };
    if found.is_some_and(|found| found.expires_at_us.is_some_and(|until| until <= now)) {
        delete(connection, change).await?;
        found = None;
    }
    let (owner, body, line, number, expires_at_us) = match step(change, found) {
        Step::Conflict => return Ok(Err(Halt::Conflict)),
        Step::Keep { number } => return Ok(Ok(number)),
        Step::Delete => {
            delete(connection, change).await?;
            return Ok(Ok(0));
        }
        Step::Write { owner, body, line, number, expires_at_us } => (owner, body, line, number, expires_at_us),
    };
    let statement = if found.is_some() {
        "UPDATE shelf SET version = ?3, owner = coalesce(?4, owner), body = coalesce(?5, body) || ?8, number = ?6,
             expires_at = ?7
         WHERE section = ?1 AND key = ?2"
    } else {
        if !rooms.take(change.section) {
            let row = sqlx::query("SELECT count(*) FROM shelf WHERE section = ?")
                .bind(change.section.name)
                .fetch_one(&mut *connection)
                .await
                .map_err(unavailable)?;
            if !rooms.counted(change.section, row.try_get(0).map_err(unavailable)?) {
                return Ok(Err(Halt::Full));
            }
        }
        "INSERT INTO shelf (section, key, version, owner, body, number, expires_at)
         VALUES (?1, ?2, ?3, coalesce(?4, ''), coalesce(?5, '') || ?8, ?6, ?7)"
    };
    sqlx::query(statement)
        .bind(change.section.name)
        .bind(&change.key)
        .bind(version.0)
        .bind(owner)
        .bind(body)
        .bind(number)
        .bind(expires_at_us)
        .bind(line)
        .execute(connection)
        .await
        .map_err(unavailable)?;
    Ok(Ok(number))
}

async fn delete(connection: &mut SqliteConnection, change: &Change) -> Result<(), Failure> {
    sqlx::query("DELETE FROM shelf WHERE section = ? AND key = ?")
        .bind(change.section.name)
        .bind(&change.key)
        .execute(connection)
        .await
        .map(drop)
        .map_err(unavailable)
}

pub(super) fn now_us() -> i64 {
    jiff::Timestamp::now().as_microsecond()
}

fn read(row: &SqliteRow) -> Result<Row, Failure> {
    Ok(Row {
        key: row.try_get(0).map_err(unavailable)?,
        version: Version(row.try_get(1).map_err(unavailable)?),
        owner: row.try_get(2).map_err(unavailable)?,
        body: row.try_get(3).map_err(unavailable)?,
        number: row.try_get(4).map_err(unavailable)?,
        expires_at_us: row.try_get(5).map_err(unavailable)?,
    })
}
