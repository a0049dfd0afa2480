//! Hears that something changed in the store (`LISTEN`).
//!
//! Decides nothing: whoever is woken reads the tables. Invariant: nothing relies on being woken; a connection that is
//! lost, or that silently says nothing any more, is made again, and whoever waits looks by itself meanwhile.

use std::sync::Arc;
use std::time::Duration;

use sqlx::postgres::{PgListener, PgPool};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::CHANNEL;
use crate::limit;

/// What wakes whoever follows the store. Dropping it ends the listening.
#[derive(Debug)]
pub struct Changes {
    changed: Arc<Notify>,
    listening: AbortHandle,
}

impl Changes {
    pub(super) fn follow(pool: PgPool) -> Self {
        let changed = Arc::new(Notify::new());
        let tell = Arc::clone(&changed);
        let listening = tokio::spawn(async move {
            while !pool.is_closed() {
                if let Err(error) = listen(&pool, &tell).await {
                    tracing::debug!(%error, "the store is not listened to");
                }
                tokio::time::sleep(limit::STORE_LISTEN_RETRY).await;
            }
        });
        Self { changed, listening: listening.abort_handle() }
    }

    /// Waits until something may have changed, and no longer than that; answers whether the store said so.
    pub async fn next(&self, at_most: Duration) -> bool {
        tokio::time::timeout(at_most, self.changed.notified()).await.is_ok()
    }
}

impl Drop for Changes {
    fn drop(&mut self) {
        self.listening.abort();
    }
}

/// Listens for a while.
async fn listen(pool: &PgPool, changed: &Notify) -> Result<(), sqlx::Error> {
    let mut listener = PgListener::connect_with(pool).await?;
    listener.listen(CHANNEL).await?;
    // What changed before.
    changed.notify_one();
    let until = tokio::time::Instant::now() + limit::STORE_LISTEN_LIFE;
    while let Ok(heard) = tokio::time::timeout_at(until, listener.try_recv()).await {
        changed.notify_one();
        if heard?.is_none() {
            break;
        }
    }
    Ok(())
}
