//! PostgreSQL: the store that several replicas have in common.
//!
//! Decides how it is reached, how long it is waited for, and who upgrades its tables: one replica, while the others
//! wait. Refuses to know what a replica does without it. Invariant: nothing here waits longer than
//! [`limit::STORE_TIMEOUT`], and every change wakes whoever listens in the transaction that makes it; however many calls
//! wait for a connection, taking back and following do not wait behind them.

mod changed;
mod changes;
mod executable;
mod members;
mod reconcile;
mod revocation;
mod shelf;
#[cfg(test)]
mod tests;
mod voided;

use std::path::Path;
use std::str::FromStr as _;
use std::time::Duration;

use secrecy::ExposeSecret as _;
use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::{PgConnectOptions, PgConnection, PgPool, PgPoolOptions};
use sqlx::{Connection as _, Row as _, SqlSafeStr as _};

pub use changes::Changes;

use super::look::Looked;
use super::shelf::Rooms;
use super::state::replica_of;
use super::{Moment, StateDirectory, StoreError, epoch, unavailable};
use crate::config::{PostgresConfig, store as address};
use crate::ids::{Digest, PolicyRevision, ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;

/// Whatever changes is told on this channel; what it was is read from the tables.
const CHANNEL: &str = "bailiwick";

/// The store of all replicas, as one of them has it.
#[derive(Debug, Clone)]
pub(super) struct Postgres {
    /// For calls, whose rows these are.
    pub(super) pool: PgPool,
    /// For what must not wait behind calls: following the store, saying that this replica lives, revocations.
    own: PgPool,
    replica: ReplicaId,
    rooms: Rooms,
}

impl Postgres {
    /// Connects and brings the tables up to date.
    pub(super) async fn open(state: &StateDirectory, config: &PostgresConfig) -> Result<Self, StoreError> {
        Self::open_within(state, config, limit::STORE_UPGRADE_WAIT_MAX).await
    }

    async fn open_within(
        state: &StateDirectory,
        config: &PostgresConfig,
        upgrade_wait: Duration,
    ) -> Result<Self, StoreError> {
        let options = options(config).await?;
        let known = migrations();
        let mut connection = connect(&options).await?;
        let upgraded = tokio::time::timeout(upgrade_wait, upgrade(&mut connection, &known)).await;
        upgraded.unwrap_or_else(|_| {
            Err(unreachable("its tables are being upgraded for too long; look who holds the lock"))
        })?;
        let _ = connection.close().await;
        let replica = replica_of(state.path())
            .await
            .map_err(|problem| StoreError::Unusable { place: state.path().display().to_string(), problem })?;
        let timeout = |duration: Duration| format!("{}ms", duration.as_millis());
        let options = options.options([
            ("statement_timeout", timeout(limit::STORE_TIMEOUT)),
            ("idle_in_transaction_session_timeout", timeout(2 * limit::STORE_TIMEOUT)),
        ]);
        let pool = |connections: u32, options| {
            let pool = PgPoolOptions::new().max_connections(connections).acquire_timeout(limit::STORE_TIMEOUT);
            pool.connect_lazy_with(options)
        };
        let own = pool(limit::STORE_OWN_CONNECTIONS_MAX, options.clone());
        let pool = pool(limit::STORE_CONNECTIONS_MAX, options);
        Ok(Self { pool, own, replica, rooms: Rooms::shared_by(limit::SHELF_SHARES) })
    }

    pub(super) const fn replica(&self) -> ReplicaId {
        self.replica
    }

    pub(super) fn changes(&self) -> Changes {
        Changes::follow(self.own.clone())
    }

    pub(super) async fn moment(&self) -> Result<Moment, Failure> {
        Self::moment_over(&self.own).await
    }

    /// The clock, for calls.
    pub(super) async fn clock_us(&self) -> Result<i64, Failure> {
        Ok(Self::moment_over(&self.pool).await?.now_us)
    }

    async fn moment_over(pool: &PgPool) -> Result<Moment, Failure> {
        let seen = within(async {
            let row = sqlx::query(
                "SELECT epoch, revision, (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, pg_is_in_recovery(),
                        went_back
                 FROM meta",
            )
            .fetch_one(pool)
            .await?;
            let moment = Moment {
                epoch: epoch(row.try_get(0)?),
                active: row.try_get::<Option<String>, _>(1)?.as_deref().and_then(revision),
                now_us: row.try_get(2)?,
                went_back: row.try_get(4)?,
            };
            Ok((moment, row.try_get::<bool, _>(3)?))
        });
        match seen.await? {
            (moment, false) => Ok(moment),
            // It may lag for any time behind what was taken back.
            (_, true) => Err(unavailable("the database is a standby, which may lag behind: reach the primary")),
        }
    }

    /// Says to every replica that the store went back; what was said first stays.
    pub(super) async fn distrust(&self, told: &str) -> Result<(), Failure> {
        within(async {
            let mut transaction = self.own.begin().await?;
            durable(&mut transaction).await?;
            sqlx::query("UPDATE meta SET went_back = coalesce(went_back, $1)")
                .bind(told)
                .execute(&mut *transaction)
                .await?;
            tell(&mut transaction).await?;
            transaction.commit().await
        })
        .await
    }

    pub(super) async fn epoch(&self) -> Result<RevocationEpoch, Failure> {
        Ok(self.moment().await?.epoch)
    }

    pub(super) async fn close(&self) {
        // A connection that hangs is not waited for.
        let both = async { tokio::join!(self.pool.close(), self.own.close()) };
        let _ = tokio::time::timeout(limit::STORE_TIMEOUT, both).await;
    }
}

/// Looks at the store without changing it.
pub(super) async fn look(config: &PostgresConfig, state: &Path) -> Result<Looked, StoreError> {
    let mut connection = connect(&options(config).await?).await?;
    let version = version(&mut connection).await.map_err(unreachable)?;
    if version == 0 {
        return Err(unreachable("it has no tables yet: no replica has started with it"));
    }
    let row = sqlx::query("SELECT epoch, (SELECT count(*) FROM revocations) FROM meta")
        .fetch_one(&mut connection)
        .await
        .map_err(unreachable)?;
    let replica = replica_of(state).await.map_err(unreachable)?;
    let looked = Looked {
        version,
        version_known: known(&migrations()),
        epoch: row.try_get(0).map(epoch).map_err(unreachable)?,
        revocations: row.try_get(1).map_err(unreachable)?,
        replica: replica.to_string(),
    };
    let _ = connection.close().await;
    Ok(looked)
}

async fn options(config: &PostgresConfig) -> Result<PgConnectOptions, StoreError> {
    let url = config.url.read().await.map_err(unreachable)?;
    address::address(url.expose_secret()).map_err(unreachable)?;
    // What it would say of an address that it cannot use may hold parts of it.
    let mut options = PgConnectOptions::from_str(url.expose_secret())
        .map_err(|_| unreachable("its address cannot be used: look at its sslmode, port and file names"))?;
    if let Some(password) = &config.password {
        options = options.password(password.read().await.map_err(unreachable)?.expose_secret());
    }
    if options.get_application_name().is_none() {
        options = options.application_name("bailiwick");
    }
    Ok(options)
}

async fn connect(options: &PgConnectOptions) -> Result<PgConnection, StoreError> {
    let connected = tokio::time::timeout(limit::STORE_TIMEOUT, PgConnection::connect_with(options)).await;
    connected.map_err(|_| unreachable("it does not answer"))?.map_err(unreachable)
}

/// Brings the tables up to date, under a lock that replicas which start together wait for.
async fn upgrade(connection: &mut PgConnection, migrations: &Migrator) -> Result<(), StoreError> {
    let (version, known) = (version(connection).await.map_err(unreachable)?, known(migrations));
    if version > known {
        return Err(StoreError::Newer { place: "on PostgreSQL".to_owned(), version, known });
    }
    if version < known {
        tracing::info!(from = version, to = known, "the store is upgraded");
        migrations.run(connection).await.map_err(unreachable)?;
    }
    Ok(())
}

async fn version(connection: &mut PgConnection) -> Result<i64, sqlx::Error> {
    let has: bool = sqlx::query("SELECT to_regclass('_sqlx_migrations') IS NOT NULL")
        .fetch_one(&mut *connection)
        .await?
        .try_get(0)?;
    if !has {
        return Ok(0);
    }
    sqlx::query("SELECT coalesce(max(version), 0) FROM _sqlx_migrations").fetch_one(connection).await?.try_get(0)
}

fn known(migrations: &Migrator) -> i64 {
    migrations.iter().map(|migration| migration.version).max().unwrap_or_default()
}

fn migrations() -> Migrator {
    let migration = |version, description: &'static str, sql: &'static str| {
        Migration::new(version, description.into(), MigrationType::Simple, sql.into_sql_str(), false)
    };
    Migrator::with_migrations(vec![
        migration(1, "replicas", include_str!("migrations/0001_replicas.sql")),
        migration(2, "shelf", include_str!("migrations/0002_shelf.sql")),
        migration(3, "revoked mandates", include_str!("migrations/0003_revoked_mandates.sql")),
        migration(4, "revoked kinds", include_str!("migrations/0004_revoked_kinds.sql")),
        migration(5, "changes", include_str!("migrations/0005_changes.sql")),
    ])
}

/// A statement, or several, that are not waited for any longer than that.
async fn within<T>(work: impl Future<Output = Result<T, sqlx::Error>>) -> Result<T, Failure> {
    match tokio::time::timeout(limit::STORE_TIMEOUT, work).await {
        Ok(done) => done.map_err(unavailable),
        Err(_) => Err(unavailable("it does not answer in time")),
    }
}

/// Wakes whoever listens, once the transaction is done.
async fn tell(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("SELECT pg_notify($1, '')").bind(CHANNEL).execute(connection).await.map(drop)
}

/// What is acknowledged is on the disk, also where the database was told that it need not be.
async fn durable(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statement = "SELECT set_config('synchronous_commit', 'on', true) \
                     WHERE current_setting('synchronous_commit') = 'off'";
    sqlx::query(statement).execute(connection).await.map(drop)
}

fn revision(text: &str) -> Option<PolicyRevision> {
    Digest::from_hex(text).map(PolicyRevision)
}

fn unreachable(problem: impl std::fmt::Display) -> StoreError {
    StoreError::Unreachable(problem.to_string())
}
