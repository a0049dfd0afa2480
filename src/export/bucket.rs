//! Puts checkpoints into a bucket, where whoever cuts the record's end cannot reach them.
//!
//! Decides what an object is called: after the gateway and the number of records, so that each checkpoint has its own. That
//! an object is not replaced is the bucket's affair: whoever has the key could leave any condition out. Refuses to hold anybody up: what cannot be put is tried again, or made up for by the next one, which
//! covers everything that this one did. Invariant: nothing but checkpoints leaves through here.

use std::sync::Arc;
use std::time::Duration;

use http::{Request, header};
use rusty_s3::actions::S3Action as _;
use rusty_s3::{Bucket, Credentials, UrlStyle};
use secrecy::ExposeSecret as _;
use tokio::sync::watch;
use tokio::time::sleep;

use crate::config::ObjectStoreConfig;
use crate::egress::{EgressPolicy, OauthClient, oauth_client};
use crate::ids::ReplicaId;
use crate::limit;
use crate::record::{CheckpointNote, Metrics};

/// How long a signed address is good for.
const SIGNED_FOR: Duration = Duration::from_secs(60);

/// Follows the checkpoints of one gateway.
pub(super) struct Putter {
    pub config: ObjectStoreConfig,
    pub replica: ReplicaId,
    pub checkpoints: watch::Receiver<Option<CheckpointNote>>,
    pub metrics: Arc<Metrics>,
}

impl Putter {
    /// Runs until the last checkpoint is signed, and has been put or could not be.
    pub async fn run(mut self) {
        let (mut client, mut failures, mut put) = (None, 0_u32, None);
        loop {
            let latest = self.checkpoints.borrow_and_update().clone();
            if let Some(note) = latest.filter(|note| put != Some(note.size)) {
                if let Err(problem) = self.put(&mut client, &note).await {
                    self.metrics.checkpoint_sink_failures.inc();
                    failures = failures.saturating_add(1);
                    if failures == 1 {
                        let bucket = &self.config.bucket;
                        tracing::warn!(
                            bucket,
                            problem,
                            "a checkpoint could not be put into the bucket; it is tried again"
                        );
                    }
                    let is_last = self.checkpoints.has_changed().is_err();
                    if is_last && failures >= limit::OBJECT_STORE_LAST_TRIES {
                        let size = note.size;
                        tracing::error!(size, problem, "the last checkpoint is not in the bucket");
                        return;
                    }
                    self.pause(failures).await;
                    continue;
                }
                if failures > 0 {
                    tracing::info!(size = note.size, "checkpoints reach the bucket again");
                }
                (failures, put) = (0, Some(note.size));
            }
            if self.checkpoints.changed().await.is_err() {
                return;
            }
        }
    }

    /// Waits for the time of another try: longer each time, and no longer than until there is another checkpoint, or
    /// none to come.
    async fn pause(&mut self, failures: u32) {
        sleep(limit::OBJECT_STORE_PAUSE_MIN).await;
        let more = longer(failures);
        tokio::select! {
            () = sleep(more) => {}
            _changed = self.checkpoints.changed() => {}
        }
    }

    async fn put(&self, client: &mut Option<OauthClient>, note: &CheckpointNote) -> Result<(), String> {
        let client = match client {
            Some(client) => client,
            None => {
                // The administrator wrote this address, and stores are near.
                let built = tokio::task::spawn_blocking(|| oauth_client(EgressPolicy::server(true))).await;
                client.insert(built.map_err(|error| error.to_string())?.map_err(|error| error.to_string())?)
            }
        };
        let request = Request::put(self.signed(note.size).await?.as_str())
            .header(header::CONTENT_TYPE, "text/plain; charset=utf-8")
            .body(note.text.as_bytes().to_vec())
            .map_err(|error| error.to_string())?;
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        if answer.status().is_success() { Ok(()) } else { Err(format!("the store answered {}", answer.status())) }
    }

    /// Where it goes, signed for a minute. The keys are read each time: those that were exchanged are taken over.
    async fn signed(&self, size: u64) -> Result<url::Url, String> {
        let ObjectStoreConfig { endpoint, bucket, region, prefix, access_key_id, secret_access_key } = &self.config;
        let id = access_key_id.read().await.map_err(|error| error.to_string())?;
        let secret = secret_access_key.read().await.map_err(|error| error.to_string())?;
        let bucket = Bucket::new(endpoint.clone(), UrlStyle::Path, bucket.clone(), region.clone())
            .map_err(|error| error.to_string())?;
        let credentials = Credentials::new(id.expose_secret(), secret.expose_secret());
        let name = format!("{prefix}{}/{size:020}", self.replica);
        Ok(bucket.put_object(Some(&credentials), &name).sign(SIGNED_FOR))
    }
}

/// How much longer than at least another try waits, after so many failures.
fn longer(failures: u32) -> Duration {
    limit::OBJECT_STORE_PAUSE_MIN.saturating_mul(1 << failures.min(10)).min(limit::OBJECT_STORE_PAUSE_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tries_become_rarer_and_never_stop() {
        let pauses: Vec<Duration> = (1..20).map(longer).collect();
        assert!(pauses.is_sorted() && pauses[0] >= limit::OBJECT_STORE_PAUSE_MIN, "{pauses:?}");
        assert_eq!((pauses[18], longer(u32::MAX)), (limit::OBJECT_STORE_PAUSE_MAX, limit::OBJECT_STORE_PAUSE_MAX));
    }
}
