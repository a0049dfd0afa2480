//! Follows a store that several replicas have in common: revocations, the files to serve, who lives.
//!
//! Decides in which order a change takes effect: in force first, then on the record. Refuses to know how the store
//! says that something changed; it looks by itself as well. Invariant: what another replica took back is refused here
//! as soon as it was seen, and this replica's record tells it like its own.

use std::sync::Arc;
use std::time::Instant;

use tokio::task::JoinHandle;

use super::{Gateway, Standing};
use crate::identity::revoked::RevocationStore as _;
use crate::ids::{PolicyRevision, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;
use crate::record::Journal;
use crate::store::{Changed, Store};

/// Follows the store until the gateway stops, and then says that this replica is gone.
pub async fn follow_store(gateway: Arc<Gateway>, recorded: RevocationEpoch) {
    let Some(changes) = gateway.store.changes() else { return };
    let (stopping, mut follower) = (gateway.stopping(), Follower::new(recorded));
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

/// What is remembered between two looks.
struct Follower {
    /// Up to which epoch our own record tells what became of revocations.
    recorded: RevocationEpoch,
    beat: Option<Instant>,
    was_current: bool,
    /// The files that were looked for last.
    wanted: Option<PolicyRevision>,
    taking_up: Option<JoinHandle<()>>,
}

impl Follower {
    const fn new(recorded: RevocationEpoch) -> Self {
        Self { recorded, beat: None, was_current: true, wanted: None, taking_up: None }
    }

    async fn look(&mut self, gateway: &Arc<Gateway>) {
        match self.seen(gateway).await {
            Ok(()) => {}
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
        let moment = gateway.store.moment().await?;
        // It said so at some moment in between.
        let half = i64::try_from(began.elapsed().as_micros() / 2).unwrap_or_default();
        let in_force = gateway.revocation_epoch();
        if moment.epoch < in_force {
            let detail = format!("it went back from epoch {} to {}: was it restored?", in_force.0, moment.epoch.0);
            return Err(Failure::before(crate::outcome::Reason::StoreUnavailable, detail));
        }
        if moment.epoch > in_force {
            gateway.take_revocations().await?;
        }
        let served = gateway.snapshot().policy.revision();
        gateway.standing.saw(began, asked_us.saturating_add(half), &moment, served);
        if moment.epoch > self.recorded {
            self.record(gateway).await?;
        }
        if self.beat.is_none_or(|last| last.elapsed() >= limit::HEARTBEAT_INTERVAL) {
            gateway.standing.met(gateway.store.heartbeat(&gateway.standing.own(served)).await?);
            self.beat = Some(began);
        }
        Ok(())
    }

    /// Puts on the record what other replicas took back or lifted, and drops the credentials that it concerns.
    async fn record(&mut self, gateway: &Gateway) -> Result<(), Failure> {
        let changes = gateway.store.changed_since(self.recorded).await?;
        for change in changes.iter().filter(|change| !change.lifted) {
            gateway.delegate.drop_for(&change.revocation.target).await;
        }
        for change in changes {
            record_one(&gateway.journal, &gateway.standing, &change).await?;
            self.recorded = change.epoch;
        }
        Ok(())
    }
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

/// Puts on the record what became of revocations while this replica was away; answers up to which epoch that is.
/// A journal that is new has nothing to be brought up to.
///
/// # Errors
/// When the store cannot be read, or the record cannot be written.
pub async fn record_missed(
    store: &Store,
    journal: &Journal,
    standing: &Standing,
    told: Option<RevocationEpoch>,
) -> Result<RevocationEpoch, Failure> {
    let Some(mut recorded) = told.filter(|_| standing.is_shared()) else { return store.revocation_epoch().await };
    loop {
        let changes = store.changed_since(recorded).await?;
        let Some(last) = changes.last().map(|change| change.epoch) else { return Ok(recorded) };
        for change in changes {
            record_one(journal, standing, &change).await?;
        }
        recorded = last;
    }
}

async fn record_one(journal: &Journal, standing: &Standing, change: &Changed) -> Result<(), Failure> {
    if change.replica == standing.own.replica {
        // Recorded where it was ordered.
        return Ok(());
    }
    let mut note = change.revocation.noted(change.epoch);
    note.lifted = change.lifted;
    note.ordered_at = Some(change.replica);
    journal.revoked(&note).await
}
