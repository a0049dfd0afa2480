//! The order in which a gateway ends.
//!
//! Decides who is waited for, and how long. Invariant: the record is closed after everything that is on it, its last
//! checkpoint is sent after that, and the store goes last.

use std::time::Duration;

use super::{Opened, Served, Standalone};
use crate::limit;

impl Served {
    /// Stops: no new requests, streams end, calls in flight get their grace, children are reaped, and the
    /// journal is closed last.
    pub async fn stop(self, cause: &str) {
        tracing::info!(cause, "stopping");
        self.gateway.begin_to_stop();
        let _ = self.front.await;
        if let Some(cluster) = self.cluster {
            let _ = cluster.await;
        }
        if let Some(administrators) = self.administrators {
            let _ = administrators.await;
        }
        self.opened.close(cause).await;
    }
}

impl Standalone {
    /// Stops: streams end, children are reaped, and the journal is closed last.
    pub async fn stop(self, cause: &str) {
        self.gateway.begin_to_stop();
        drop(self.front);
        self.opened.close(cause).await;
    }
}

impl Opened {
    async fn close(self, cause: &str) {
        self.gateway.upstreams().shutdown().await;
        self.control.cancel();
        let _ = self.control_task.await;
        self.late.cancel();
        self.tasks.close();
        if tokio::time::timeout(Duration::from_secs(5), self.tasks.wait()).await.is_err() {
            tracing::warn!("background tasks did not end in time");
        }
        // What is still under way ends now, and the record says so before it is closed.
        self.lanes.stop().await;
        if let Err(failure) = self.gateway.journal().stop(cause).await {
            tracing::error!(%failure, "the journal could not be closed");
        }
        if let Some(putting) = self.putting
            && tokio::time::timeout(limit::OBJECT_STORE_LAST_WAIT, putting).await.is_err()
        {
            tracing::error!("the last checkpoint did not reach the bucket in time");
        }
        self.gateway.store().close().await;
        tracing::info!("stopped");
    }
}
