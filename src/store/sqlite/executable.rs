//! What each server ran last, as rows. Invariant: of two gateways that start one after the other, the second knows
//! what the first one ran.

use sqlx::Row as _;

use super::{Sqlite, unavailable};
use crate::ids::{Digest, ServerId};
use crate::outcome::Failure;

impl Sqlite {
    /// Remembers what a server runs; answers what it ran before, if anybody knows.
    pub(in crate::store) async fn remember_executable(
        &self,
        server: &ServerId,
        digest: Digest,
    ) -> Result<Option<Digest>, Failure> {
        let mut transaction = self.writer.begin_with("BEGIN IMMEDIATE").await.map_err(unavailable)?;
        let row = sqlx::query("SELECT digest FROM executables WHERE server = ?")
            .bind(server.as_str())
            .fetch_optional(&mut *transaction)
            .await
            .map_err(unavailable)?;
        let before = row.map(|row| row.try_get::<String, _>(0)).transpose().map_err(unavailable)?;
        sqlx::query(
            "INSERT INTO executables (server, digest) VALUES (?, ?)
             ON CONFLICT DO UPDATE SET digest = excluded.digest",
        )
        .bind(server.as_str())
        .bind(digest.to_string())
        .execute(&mut *transaction)
        .await
        .map_err(unavailable)?;
        transaction.commit().await.map_err(unavailable)?;
        Ok(before.as_deref().and_then(Digest::from_hex))
    }
}
