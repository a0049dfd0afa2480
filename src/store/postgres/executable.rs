//! What each server ran last at this replica: machines may differ.

use sqlx::Row as _;

use super::{Postgres, within};
use crate::ids::{Digest, ServerId};
use crate::outcome::Failure;

impl Postgres {
    /// Remembers what a server runs; answers what it ran before, if anybody knows.
    pub(in crate::store) async fn remember_executable(
        &self,
        server: &ServerId,
        digest: Digest,
    ) -> Result<Option<Digest>, Failure> {
        within(async {
            let mut transaction = self.pool.begin().await?;
            let row = sqlx::query("SELECT digest FROM executables WHERE replica = $1 AND server = $2 FOR UPDATE")
                .bind(self.replica.to_string())
                .bind(server.as_str())
                .fetch_optional(&mut *transaction)
                .await?;
            let before = row.map(|row| row.try_get::<String, _>(0)).transpose()?;
            sqlx::query(
                "INSERT INTO executables (replica, server, digest) VALUES ($1, $2, $3)
                 ON CONFLICT (replica, server) DO UPDATE SET digest = excluded.digest",
            )
            .bind(self.replica.to_string())
            .bind(server.as_str())
            .bind(digest.to_string())
            .execute(&mut *transaction)
            .await?;
            transaction.commit().await?;
            Ok(before.as_deref().and_then(Digest::from_hex))
        })
        .await
    }
}
