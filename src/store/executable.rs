//! What each server ran last, as rows. Invariant: of two gateways that start one after the other, the second knows
//! what the first one ran.

use sqlx::Row as _;

use super::{Store, unavailable};
use crate::ids::{Digest, ServerId};
use crate::outcome::Failure;

impl Store {
    /// Remembers what a server runs; answers what it ran before, if anybody knows.
    ///
    /// # Errors
    /// [`Reason::StoreUnavailable`](crate::outcome::Reason::StoreUnavailable).
    pub async fn remember_executable(&self, server: &ServerId, digest: Digest) -> Result<Option<Digest>, Failure> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateDirectory;

    #[tokio::test]
    async fn what_a_server_ran_is_known_to_the_next_gateway() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let (one, other) = (Digest::sha256(b"one"), Digest::sha256(b"other"));
        let server = ServerId::new("notes").unwrap();
        let store = Store::open(&state).await.unwrap();
        assert_eq!(store.remember_executable(&server, one).await.unwrap(), None);
        store.close().await;
        let store = Store::open(&state).await.unwrap();
        assert_eq!(store.remember_executable(&server, other).await.unwrap(), Some(one));
        assert_eq!(store.remember_executable(&server, other).await.unwrap(), Some(other));
    }
}
