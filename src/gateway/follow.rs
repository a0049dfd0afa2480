//! Follows a store that several replicas have in common: revocations, the files to serve, who lives.
//!
//! Decides in which order a change takes effect: in force first, then on the record. Refuses to know how the store
//! says that something changed; it looks by itself as well. Invariant: what another replica took back is refused here
//! as soon as it was seen, and this replica's record tells it like its own.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::Gateway;
use crate::identity::revoked::RevocationStore as _;
use crate::ids::{PolicyRevision, ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;
use crate::record::Journal;
use crate::record::event::RevocationNote;
use crate::store::{Changed, Store};

/// Follows the store until the gateway stops, and then says that this replica is gone.
pub async fn follow_store(gateway: Arc<Gateway>) {
    let Some(changes) = gateway.store.changes() else { return };
    let (stopping, mut follower) = (gateway.stopping(), Follower::new());
    loop {
        follower.look(&gateway).await;
        let woken = tokio::select! {
            () = stopping.cancelled() => break,
            woken = changes.next(limit::STORE_LOOK_INTERVAL) => woken,
        };
        if woken {
            // Somebody may have come or gone.
            follower.beat = None;
        }
    }
    if let Err(failure) = gateway.store.leave().await {
        tracing::warn!(%failure, "the other replicas were not told that this one stops");
    }
}

/// Has everybody who acts looked at again whenever an issuer's keys or a trust domain's bundle change: what carried
/// them may be gone.
pub async fn follow_keys(gateway: Arc<Gateway>) {
    let (stopping, mut news) = (gateway.stopping(), gateway.identity.news());
    while let Some(Ok(())) = stopping.run_until_cancelled(news.changed()).await {
        gateway.decided_anew();
    }
}

/// What is remembered between two looks.
struct Follower {
    beat: Option<Instant>,
    was_current: bool,
    /// The files that were looked for last.
    wanted: Option<PolicyRevision>,
    taking_up: Option<JoinHandle<()>>,
    recording: Option<JoinHandle<bool>>,
    is_recorded: bool,
}

impl Follower {
    const fn new() -> Self {
        Self { beat: None, was_current: true, wanted: None, taking_up: None, recording: None, is_recorded: true }
    }

    async fn look(&mut self, gateway: &Arc<Gateway>) {
        match self.seen(gateway).await {
            Ok(()) => gateway.standing.well(),
            Err(failure) => {
                if gateway.standing.missed(failure.detail.clone()) {
                    tracing::warn!(%failure, "the store cannot be seen");
                }
            }
        }
        let current = gateway.standing.current().is_ok();
        if current != self.was_current {
            self.was_current = current;
            if current {
                tracing::info!("the store is heard of again: calls are served");
            } else {
                tracing::error!("the store was not heard of for too long: calls are refused");
            }
            // Open streams are decided again.
            gateway.decided_anew();
        }
        gateway.follow_pins().await;
        self.record(gateway).await;
        // Files may take longer to read and to test than the store may be out of sight.
        if self.taking_up.as_ref().is_none_or(JoinHandle::is_finished)
            && let Some(active) = gateway.standing.wanted(Instant::now())
        {
            let first = self.wanted.replace(active) != Some(active);
            self.taking_up = Some(tokio::spawn(take_up(Arc::clone(gateway), active, first)));
        }
    }

    async fn seen(&mut self, gateway: &Arc<Gateway>) -> Result<(), Failure> {
        let began = Instant::now();
        let asked_us = jiff::Timestamp::now().as_microsecond();
        // Before it is asked: what is taken back here meanwhile is no sign that it went back.
        let in_force = gateway.revocation_epoch();
        let moment = gateway.store.moment().await?;
        // It said so at some moment in between.
        let half = i64::try_from(began.elapsed().as_micros() / 2).unwrap_or_default();
        gateway.standing.compare(in_force, moment.epoch)?;
        if moment.epoch > in_force {
            gateway.take_revocations().await?;
            // Building a policy anew takes longer than the store may be out of sight.
            let gateway = Arc::clone(gateway);
            tokio::spawn(async move {
                while let Err(failure) = gateway.take_ended().await {
                    tracing::error!(%failure, "grants that have ended may still be in force; it is tried again");
                    tokio::time::sleep(limit::HEARTBEAT_INTERVAL).await;
                }
            });
        }
        let served = gateway.snapshot().policy.revision();
        gateway.standing.saw(began, asked_us.saturating_add(half), &moment, served);
        if self.beat.is_none_or(|last| last.elapsed() >= limit::HEARTBEAT_INTERVAL) {
            gateway.standing.met(gateway.store.heartbeat(&gateway.standing.own(served)).await?);
            self.beat = Some(began);
        }
        Ok(())
    }

    /// Has put on the record what is in force and not told there; a look waits neither for that nor for its end.
    async fn record(&mut self, gateway: &Arc<Gateway>) {
        if let Some(recording) = self.recording.take_if(|recording| recording.is_finished()) {
            self.is_recorded = recording.await.unwrap_or(false);
        }
        // Where it is held, somebody is telling.
        let behind = || gateway.standing.told.try_lock().is_ok_and(|told| *told < gateway.revocation_epoch());
        if self.recording.is_none() && gateway.standing.believed().is_ok() && behind() {
            self.recording = Some(tokio::spawn(record(Arc::clone(gateway), self.is_recorded)));
        }
    }
}

impl Gateway {
    /// Puts on the record what was ordered here, and before it what was missed until then; nothing that is there.
    ///
    /// # Errors
    /// When the record cannot be written, or the store not be read; it is tried again where replicas have the store in
    /// common.
    pub(crate) async fn tell(&self, note: &RevocationNote<'_>) -> Result<(), Failure> {
        if !self.standing.is_shared() {
            return self.journal.revoked(note).await;
        }
        let mut told = self.standing.told.lock().await;
        if note.epoch.0 == told.0.saturating_add(1) {
            self.journal.revoked(note).await?;
            *told = note.epoch;
        }
        self.tell_up_to(&mut told, note.epoch).await
    }

    /// Puts on the record what became of revocations up to that epoch, and drops the credentials that it concerns.
    pub(super) async fn tell_up_to(&self, told: &mut RevocationEpoch, epoch: RevocationEpoch) -> Result<(), Failure> {
        while *told < epoch {
            let changes = self.store.changed_since(*told).await?;
            if changes.is_empty() {
                // Nobody remembers what that was.
                *told = epoch;
            }
            for change in changes.iter().filter(|change| !change.lifted) {
                self.delegate.drop_for(&change.revocation.target).await;
            }
            for change in changes {
                record_one(&self.journal, self.standing.own.replica, &change).await?;
                *told = change.epoch;
            }
        }
        Ok(())
    }
}

/// Puts on the record what is in force; answers whether it is there. Whether it was the last time is known, so that
/// trouble is said once.
async fn record(gateway: Arc<Gateway>, was_recorded: bool) -> bool {
    let recorded = {
        let mut told = gateway.standing.told.lock().await;
        gateway.tell_up_to(&mut told, gateway.revocation_epoch()).await
    };
    let Err(failure) = recorded else { return true };
    if was_recorded {
        tracing::error!(%failure, "what was taken back elsewhere is not on the record; it is tried again");
    }
    // Until it is worth another try.
    tokio::time::sleep(limit::HEARTBEAT_INTERVAL).await;
    false
}

/// Takes up the files that the store names, if they are here; says that they are not where that is news.
async fn take_up(gateway: Arc<Gateway>, active: PolicyRevision, first: bool) {
    let revision = active.0.short();
    match gateway.take_up(active).await {
        Ok(true) => tracing::info!(%revision, "the files that the store names are served"),
        Ok(false) if first => tracing::warn!(%revision, "other files are to be served than are here"),
        Ok(false) => {}
        Err(failure) => tracing::error!(%failure, "the files that the store names are not served"),
    }
}

/// Puts on the record what became of revocations and is not told there: while this replica was away, or when it ended
/// between the store and the record. Answers up to which epoch that is. A journal that is new has nothing to be brought
/// up to.
///
/// # Errors
/// When the store cannot be read, or the record cannot be written.
pub async fn record_missed(
    store: &Store,
    journal: &Journal,
    own: ReplicaId,
    told: Option<RevocationEpoch>,
) -> Result<RevocationEpoch, Failure> {
    let Some(mut recorded) = told else { return store.revocation_epoch().await };
    loop {
        let changes = store.changed_since(recorded).await?;
        let Some(last) = changes.last().map(|change| change.epoch) else { return Ok(recorded) };
        for change in changes {
            record_one(journal, own, &change).await?;
        }
        recorded = last;
    }
}

async fn record_one(journal: &Journal, own: ReplicaId, change: &Changed) -> Result<(), Failure> {
    let mut note = change.revocation.noted(change.epoch);
    note.lifted = change.lifted;
    note.ordered_at = Some(change.replica).filter(|replica| *replica != own);
    journal.revoked(&note).await
}
