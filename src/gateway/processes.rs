//! Processes that were started with a credential end with whatever that hangs on.
//!
//! Decides when that is looked at: whenever something was taken back, and now and then, because one may just be starting
//! meanwhile. Refuses to know how a process is ended. Invariant: where nobody knows whether it stands, it does not.

use std::sync::Arc;

use super::Gateway;
use super::mandates::follow_mandates;
use super::uses::follow_uses;
use crate::delegate::Handed;
use crate::ids::MandateId;
use crate::limit;

impl Gateway {
    /// Ends processes whose credential, caller or mandate was taken back.
    async fn end_processes(&self) {
        for handed in self.upstreams.handed() {
            if !(self.delegate.may_go_on(&handed).await && self.is_mandated(&handed).await) {
                handed.taken_back().cancel();
            }
        }
    }

    async fn is_mandated(&self, handed: &Handed) -> bool {
        let Some(name) = handed.mandate() else { return true };
        let Ok(id) = MandateId::new(name) else { return false };
        let now_us = self.standing.now_us();
        match self.guard.mandates().find(&id, self.revocation_epoch()).await {
            Ok(Some(held)) => self.live.not_revoked(&held).is_ok() && !held.all().any(|one| one.is_over(now_us)),
            Ok(None) => false,
            Err(failure) => {
                tracing::warn!(%failure, mandate = %id, "whether it stands is not known: its processes are ended");
                false
            }
        }
    }
}

/// Looks after what ends with something else, without anybody ordering it here.
pub async fn follow_what_ends(gateway: Arc<Gateway>) {
    tokio::join!(follow_mandates(Arc::clone(&gateway)), follow_uses(Arc::clone(&gateway)), follow_processes(gateway));
}

async fn follow_processes(gateway: Arc<Gateway>) {
    let (stopping, mut decisions) = (gateway.stopping(), gateway.decisions());
    loop {
        tokio::select! {
            () = stopping.cancelled() => return,
            changed = decisions.changed() => {
                if changed.is_err() {
                    return;
                }
            }
            () = tokio::time::sleep(limit::PROCESSES_LOOK_INTERVAL) => {}
        }
        gateway.end_processes().await;
    }
}
