//! Taking access back in the running gateway: durable, in force, on the record, in that order.
//!
//! Decides what is waited for. Refuses to know who orders it. Invariant: what was acknowledged is in force, whatever else
//! of the store cannot be read and whether the record can be written or not.

use std::sync::Arc;

use super::Gateway;
use crate::identity::revoked::{Revocation, RevocationStore as _, RevocationTarget};
use crate::ids::RevocationEpoch;
use crate::outcome::Failure;

impl Gateway {
    /// Takes something back, and answers the epoch that includes it and whether it is on the record. Authorization
    /// servers are not asked yet.
    ///
    /// # Errors
    /// `store_unavailable`: nothing was taken back, or it is not in force.
    pub async fn revoke_now(&self, revocation: &Revocation) -> Result<(RevocationEpoch, Result<(), Failure>), Failure> {
        self.standing.believed()?;
        let known = self.revocation_epoch();
        let epoch = self.store.revoke(revocation).await?;
        self.standing.compare(RevocationEpoch(known.0.saturating_add(1)), epoch)?;
        // What rests on it is void before anybody comes back with a new login.
        let marks: Vec<_> = revocation.target.marks().into_iter().map(|mark| (mark, epoch)).collect();
        self.sealer.void(&marks, RevocationEpoch(0));
        // Where nothing else has changed it is in force at once: reading the store takes several turns of its threads, each
        // of which waits for a processor that is busy.
        if self.live.revocations.add(epoch, revocation) {
            self.put(None);
            self.decided_anew();
        }
        // In force before it is on the record: a full disk must not keep a door open.
        if let Err(failure) = self.take_revocations().await {
            if self.revocation_epoch() < epoch {
                return Err(failure);
            }
            tracing::error!(%failure, "which agents are stopped cannot be read: what was known of it stays in force");
        }
        let told = self.tell(epoch).await.inspect_err(|failure| {
            // It holds: to say that it failed would be wrong, and have whoever ordered it look elsewhere.
            tracing::error!(%failure, epoch = epoch.0, "a revocation is in force and not on the record");
            self.journal.metrics().refused(failure.reason);
        });
        Ok((epoch, told))
    }

    /// Has credentials taken back that a revocation names, and keeps nobody waiting for their authorization servers.
    pub fn take_back_soon(&self, target: RevocationTarget) {
        let delegate = Arc::clone(&self.delegate);
        tokio::spawn(async move {
            if let Err(failure) = delegate.take_back(&target).await {
                tracing::error!(%failure, "which credentials a revocation names is not known");
            }
        });
    }
}
