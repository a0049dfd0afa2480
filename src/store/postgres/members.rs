//! Which replicas live, and which files all of them are to serve.
//!
//! Decides when a replica counts as gone, by the store's clock. Invariant: which files are served is changed by an
//! administrator's word, or by a replica that starts where no other lives, and by nobody else.

use sqlx::Row as _;
use sqlx::postgres::{PgConnection, PgRow};

use super::{Postgres, durable, revision, tell, within};
use crate::ids::{PolicyRevision, ReplicaId};
use crate::limit;
use crate::outcome::Failure;
use crate::store::{Member, unavailable};

/// Whether a member lives.
const LIVES: &str = "NOT gone AND seen_at > clock_timestamp() - make_interval(secs => $1)";

impl Postgres {
    /// Says that this replica starts. Answers which files it is to serve: its own, where no other replica lives.
    /// Others that were not heard of and have not said that they stop are waited for: after an outage of the database
    /// they live, and have had no chance to say so.
    pub(in crate::store) async fn join(&self, own: &Member) -> Result<PolicyRevision, Failure> {
        if self.others_are_silent(own).await? {
            tracing::info!("other replicas were not heard of: they are waited for");
            tokio::time::sleep(2 * limit::HEARTBEAT_INTERVAL).await;
        }
        let active = within(async {
            let mut transaction = self.own.begin().await?;
            durable(&mut transaction).await?;
            // Held until the end: of two that start together, the second sees the first.
            sqlx::query("SELECT FROM meta FOR UPDATE").execute(&mut *transaction).await?;
            forget_gone(&mut transaction).await?;
            sqlx::query(sqlx::AssertSqlSafe(format!(
                "UPDATE meta SET revision = $2, revision_by = 'start', revision_at = clock_timestamp()
                 WHERE revision IS NULL OR NOT EXISTS (SELECT FROM members WHERE replica <> $3 AND {LIVES})"
            )))
            .bind(limit::MEMBER_GONE_AFTER.as_secs_f64())
            .bind(own.revision.to_string())
            .bind(own.replica.to_string())
            .execute(&mut *transaction)
            .await?;
            beat(&mut transaction, own).await?;
            let row = sqlx::query("SELECT revision FROM meta").fetch_one(&mut *transaction).await?;
            let active: Option<String> = row.try_get(0)?;
            tell(&mut transaction).await?;
            transaction.commit().await?;
            Ok(active)
        });
        active.await?.as_deref().and_then(revision).ok_or_else(|| unavailable("the revision that it holds is not one"))
    }

    /// Whether there are other replicas that have not said that they stop, and none of them lives.
    async fn others_are_silent(&self, own: &Member) -> Result<bool, Failure> {
        within(async {
            let others = format!(
                "SELECT count(*) > 0 AND count(*) FILTER (WHERE {LIVES}) = 0 FROM members
                 WHERE replica <> $2 AND NOT gone AND seen_at > clock_timestamp() - make_interval(secs => $3)"
            );
            sqlx::query(sqlx::AssertSqlSafe(others))
                .bind(limit::MEMBER_GONE_AFTER.as_secs_f64())
                .bind(own.replica.to_string())
                .bind(limit::MEMBER_FORGOTTEN_AFTER.as_secs_f64())
                .fetch_one(&self.own)
                .await?
                .try_get(0)
        })
        .await
    }

    /// Says that this replica lives; answers all that do.
    pub(in crate::store) async fn heartbeat(&self, own: &Member) -> Result<Vec<Member>, Failure> {
        let rows = within(async {
            let mut connection = self.own.acquire().await?;
            beat(&mut connection, own).await?;
            let select = format!("SELECT replica, advertise, version, revision FROM members WHERE {LIVES} LIMIT $2");
            sqlx::query(sqlx::AssertSqlSafe(select))
                .bind(limit::MEMBER_GONE_AFTER.as_secs_f64())
                .bind(limit::MEMBERS_MAX)
                .fetch_all(&mut *connection)
                .await
        });
        rows.await?.iter().map(read).collect()
    }

    /// Replicas that do not live, and when they were heard of last, microseconds since 1970.
    pub(in crate::store) async fn gone(&self) -> Result<Vec<(ReplicaId, i64)>, Failure> {
        let rows = within(async {
            let select = format!(
                "SELECT replica, (extract(epoch FROM seen_at) * 1000000)::bigint FROM members WHERE NOT ({LIVES})
                 ORDER BY seen_at DESC LIMIT $2"
            );
            sqlx::query(sqlx::AssertSqlSafe(select))
                .bind(limit::MEMBER_GONE_AFTER.as_secs_f64())
                .bind(limit::MEMBERS_MAX)
                .fetch_all(&self.own)
                .await
        });
        let told = |row: &PgRow| {
            let replica: String = row.try_get(0).map_err(unavailable)?;
            Ok((replica.parse().map_err(unavailable)?, row.try_get(1).map_err(unavailable)?))
        };
        rows.await?.iter().map(told).collect()
    }

    /// Says that this replica stops.
    pub(in crate::store) async fn leave(&self) -> Result<(), Failure> {
        within(async {
            let mut transaction = self.own.begin().await?;
            sqlx::query("UPDATE members SET gone = true WHERE replica = $1")
                .bind(self.replica().to_string())
                .execute(&mut *transaction)
                .await?;
            tell(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }

    /// Makes these the files that all replicas are to serve.
    pub(in crate::store) async fn activate(&self, revision: PolicyRevision, actor: &str) -> Result<(), Failure> {
        within(async {
            let mut transaction = self.own.begin().await?;
            durable(&mut transaction).await?;
            sqlx::query("UPDATE meta SET revision = $1, revision_by = $2, revision_at = clock_timestamp()")
                .bind(revision.to_string())
                .bind(actor)
                .execute(&mut *transaction)
                .await?;
            tell(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }
}

async fn beat(connection: &mut PgConnection, own: &Member) -> Result<(), sqlx::Error> {
    sqlx::query(
        "INSERT INTO members (replica, advertise, version, revision, gone, seen_at)
         VALUES ($1, $2, $3, $4, false, clock_timestamp())
         ON CONFLICT (replica) DO UPDATE SET
             advertise = excluded.advertise, version = excluded.version, revision = excluded.revision,
             gone = false, seen_at = excluded.seen_at",
    )
    .bind(own.replica.to_string())
    .bind(&own.advertise)
    .bind(&own.version)
    .bind(own.revision.to_string())
    .execute(connection)
    .await
    .map(drop)
}

/// Replicas that were not heard of for so long do not come back under that name.
async fn forget_gone(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let old = "DELETE FROM members WHERE seen_at < clock_timestamp() - make_interval(secs => $1)";
    sqlx::query(old).bind(limit::MEMBER_FORGOTTEN_AFTER.as_secs_f64()).execute(&mut *connection).await?;
    let unknown = "DELETE FROM executables WHERE replica NOT IN (SELECT replica FROM members)";
    sqlx::query(unknown).execute(connection).await.map(drop)
}

fn read(row: &PgRow) -> Result<Member, Failure> {
    let text = |index: usize| row.try_get::<String, _>(index).map_err(unavailable);
    let revision = revision(&text(3)?).ok_or_else(|| unavailable("the revision of a replica is not one"))?;
    Ok(Member {
        replica: text(0)?.parse().map_err(unavailable)?,
        advertise: row.try_get(1).map_err(unavailable)?,
        version: text(2)?,
        revision,
    })
}
