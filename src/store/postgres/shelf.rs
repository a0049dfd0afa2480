//! The rows of rooms, in PostgreSQL: each row that a batch finds is locked until its end.

use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{QueryBuilder, Row as _};

use super::{Postgres, durable, tell, within};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Change, Changed, Name, Row, Section, Tell, Version};
use crate::store::changed::Noted;
use crate::store::shelf::{Found, Rooms, Step, in_order, in_places, order, step};
use crate::store::{epoch, unavailable};

/// The columns of a row, and the store's clock.
const COLUMNS: &str = "key, version, owner, body, number, expires_at";
pub(super) const NOW: &str = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint";

/// How a batch ends before its end.
#[derive(Debug)]
pub(super) enum Halt {
    Conflict(usize),
    Full(usize),
    /// Somebody has made the row since it was looked for.
    Again,
}

impl Postgres {
    pub(in crate::store) async fn row(&self, section: Section, key: &str) -> Result<Option<Row>, Failure> {
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM shelf
             WHERE section = $1 AND key = $2 AND (expires_at IS NULL OR expires_at > {NOW})"
        ));
        within(async {
            let found = sqlx::query(sql).bind(section.name).bind(key).fetch_optional(&self.pool).await?;
            found.as_ref().map(read).transpose()
        })
        .await
    }

    pub(in crate::store) async fn named(&self, names: &[Name]) -> Result<Vec<Option<Row>>, Failure> {
        let found = within(async {
            let mut rows = Vec::with_capacity(names.len());
            if !names.is_empty() {
                let mut sql = QueryBuilder::new(format!("SELECT {COLUMNS}, section FROM shelf WHERE ("));
                for (place, (section, key)) in names.iter().enumerate() {
                    sql.push(if place == 0 { "(section = " } else { " OR (section = " });
                    sql.push_bind(section.name).push(" AND key = ").push_bind(key.as_str()).push(")");
                }
                sql.push(format!(") AND (expires_at IS NULL OR expires_at > {NOW})"));
                for row in sql.build().fetch_all(&self.pool).await? {
                    rows.push((row.try_get(6)?, read(&row)?));
                }
            }
            Ok(rows)
        });
        Ok(in_places(names, &found.await?))
    }

    pub(in crate::store) async fn rows(
        &self,
        section: Section,
        owner: Option<&str>,
        after: Option<&str>,
    ) -> Result<Vec<Row>, Failure> {
        let by_owner = if owner.is_some() { "AND owner = $3" } else { "" };
        let sql = sqlx::AssertSqlSafe(format!(
            "SELECT {COLUMNS} FROM shelf
             WHERE section = $1 AND key > $2 AND (expires_at IS NULL OR expires_at > {NOW}) {by_owner}
             ORDER BY key LIMIT {}",
            limit::SHELF_ROWS_READ_MAX
        ));
        within(async {
            let query = sqlx::query(sql).bind(section.name).bind(after.unwrap_or(""));
            let query = if let Some(owner) = owner { query.bind(owner) } else { query };
            query.fetch_all(&self.pool).await?.iter().map(read).collect()
        })
        .await
    }

    pub(in crate::store) async fn change(&self, changes: &[Change], told: Tell) -> Result<Changed, Failure> {
        let order = order(changes)?;
        let noted = match told {
            Tell::Nobody => None,
            Tell::Everybody => Some(Noted::rows(changes, 0)?),
        };
        for _ in 0..limit::SHELF_TRIES_MAX {
            match within(self.attempt(changes, &order, noted.as_ref())).await? {
                Ok(done) => return Ok(done),
                Err(Halt::Conflict(index)) => return Ok(Changed::Conflict(index)),
                Err(Halt::Full(index)) => return Ok(Changed::Full(index)),
                Err(Halt::Again) => {}
            }
        }
        Err(unavailable("too many change the same row"))
    }

    async fn attempt(
        &self,
        changes: &[Change],
        order: &[usize],
        noted: Option<&Noted>,
    ) -> Result<Result<Changed, Halt>, sqlx::Error> {
        let mut transaction = self.pool.begin().await?;
        durable(&mut transaction).await?;
        let sql = sqlx::AssertSqlSafe(format!("SELECT nextval('shelf_version'), {NOW}"));
        let row = sqlx::query(sql).fetch_one(&mut *transaction).await?;
        let (version, now): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
        // First, as a revocation does: whoever raises the epoch comes one after the other.
        let raised = match noted {
            None => None,
            Some(noted) => {
                let raise = sqlx::query("UPDATE meta SET epoch = epoch + 1 RETURNING epoch");
                let next: i64 = raise.fetch_one(&mut *transaction).await?.try_get(0)?;
                let noted = Noted { at: now.div_euclid(1_000_000), ..noted.clone() };
                self.note(&mut transaction, next, &noted).await?;
                Some(epoch(next))
            }
        };
        let mut numbers = Vec::with_capacity(changes.len());
        for index in order {
            let Some(change) = changes.get(*index) else { continue };
            match apply(&mut transaction, &self.rooms, (*index, change), Version(version), now).await? {
                Ok(number) => numbers.push((*index, number)),
                Err(halt) => return Ok(Err(halt)),
            }
        }
        if raised.is_some() {
            tell(&mut transaction).await?;
        }
        transaction.commit().await?;
        let numbers = in_order(changes.len(), &numbers);
        Ok(Ok(Changed::Done { numbers, version: Version(version), epoch: raised }))
    }

    /// Removes rows that have expired; answers how many.
    pub(in crate::store) async fn sweep(&self) -> Result<u64, Failure> {
        let sql = sqlx::AssertSqlSafe(format!(
            "DELETE FROM shelf WHERE (section, key) IN
                 (SELECT section, key FROM shelf WHERE expires_at <= {NOW} ORDER BY expires_at LIMIT $1
                  FOR UPDATE SKIP LOCKED)"
        ));
        within(async {
            let swept = sqlx::query(sql).bind(limit::SHELF_SWEPT_MAX).execute(&self.pool).await?;
            Ok(swept.rows_affected())
        })
        .await
    }
}

pub(super) async fn apply(
    connection: &mut PgConnection,
    rooms: &Rooms,
    (index, change): (usize, &Change),
    version: Version,
    now: i64,
) -> Result<Result<i64, Halt>, sqlx::Error> {
    let found = sqlx::query("SELECT version, number, expires_at FROM shelf WHERE section = $1 AND key = $2 FOR UPDATE")
        .bind(change.section.name)
        .bind(&change.key)
        .fetch_optional(&mut *connection)
        .await?;
    let mut found = match &found {
        None => None,
        Some(row) => {
            Some(Found { version: Version(row.try_get(0)?), number: row.try_get(1)?, expires_at_us: row.try_get(2)? })
        }
    };
    if found.is_some_and(|found| found.expires_at_us.is_some_and(|until| until <= now)) {
        delete(connection, change).await?;
        found = None;
    }
    let (owner, body, line, number, expires_at_us) = match step(change, found) {
        Step::Conflict => return Ok(Err(Halt::Conflict(index))),
        Step::Keep { number } => return Ok(Ok(number)),
        Step::Delete => {
            delete(connection, change).await?;
            return Ok(Ok(0));
        }
        Step::Write { owner, body, line, number, expires_at_us } => (owner, body, line, number, expires_at_us),
    };
    let statement = if found.is_some() {
        "UPDATE shelf SET version = $3, owner = coalesce($4, owner), body = coalesce($5, body) || $8, number = $6,
             expires_at = $7
         WHERE section = $1 AND key = $2"
    } else {
        if !rooms.take(change.section) {
            let count = sqlx::query("SELECT count(*) FROM shelf WHERE section = $1").bind(change.section.name);
            if !rooms.counted(change.section, count.fetch_one(&mut *connection).await?.try_get(0)?) {
                return Ok(Err(Halt::Full(index)));
            }
        }
        "INSERT INTO shelf (section, key, version, owner, body, number, expires_at)
         VALUES ($1, $2, $3, coalesce($4, ''), coalesce($5, '') || $8, $6, $7) ON CONFLICT DO NOTHING"
    };
    let written = sqlx::query(statement)
        .bind(change.section.name)
        .bind(&change.key)
        .bind(version.0)
        .bind(owner)
        .bind(body)
        .bind(number)
        .bind(expires_at_us)
        .bind(line)
        .execute(connection)
        .await?;
    Ok(if written.rows_affected() == 1 { Ok(number) } else { Err(Halt::Again) })
}

async fn delete(connection: &mut PgConnection, change: &Change) -> Result<(), sqlx::Error> {
    sqlx::query("DELETE FROM shelf WHERE section = $1 AND key = $2")
        .bind(change.section.name)
        .bind(&change.key)
        .execute(connection)
        .await
        .map(drop)
}

fn read(row: &PgRow) -> Result<Row, sqlx::Error> {
    Ok(Row {
        key: row.try_get(0)?,
        version: Version(row.try_get(1)?),
        owner: row.try_get(2)?,
        body: row.try_get(3)?,
        number: row.try_get(4)?,
        expires_at_us: row.try_get(5)?,
    })
}
