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
use crate::record::changed::{ChangeNote, RowNote};
use crate::record::event::RevocationNote;
use crate::store::{Changed, Store, What};

/// Follows the store until the gateway stops, and then says that this replica is gone.
pub async fn follow_store(gateway: Arc<Gateway>) {
    let Some(changes) = gateway.store.changes() else { return follow_alone(gateway).await };
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
    taking_ended: Once,
}

/// Something that is done anew whenever that is wanted, and never twice at a time: what is wanted while it is done may
/// have come too late for it, and is done after it.
#[derive(Debug, Default)]
struct Once {
    wanted: bool,
    doing: Option<JoinHandle<()>>,
}

impl Once {
    /// Does it, where it is wanted and not being done.
    fn go_on<F: Future<Output = ()> + Send + 'static>(&mut self, doing: impl FnOnce() -> F) {
        if self.wanted && self.doing.as_ref().is_none_or(JoinHandle::is_finished) {
            self.wanted = false;
            self.doing = Some(tokio::spawn(doing()));
        }
    }
}

impl Follower {
    const fn new() -> Self {
        Self {
            beat: None,
            was_current: true,
            wanted: None,
            taking_up: None,
            recording: None,
            is_recorded: true,
            taking_ended: Once { wanted: false, doing: None },
        }
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
        // Building a policy anew takes longer than the store may be out of sight.
        self.taking_ended.go_on(|| take_ended(Arc::clone(gateway)));
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
        if let Some(told) = &moment.went_back {
            gateway.standing.distrust(told);
        }
        if let Err(failure) = gateway.standing.compare(in_force, moment.epoch) {
            if moment.epoch < in_force && moment.went_back.is_none() {
                // Also for those that start from now on, and for this one after a restart.
                gateway.store.distrust(&failure.detail).await?;
            }
            return Err(failure);
        }
        if gateway.is_behind(moment.epoch) {
            self.taking_ended.wanted = true;
            gateway.put_in_force().await?;
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
    /// Whether a replica lives no more. The store is asked of one that is not known to: it may have begun just now.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn is_gone(&self, replica: ReplicaId) -> Result<bool, Failure> {
        let lives = || self.standing.members().iter().any(|member| member.replica == replica);
        if replica == self.standing.replica() || lives() {
            return Ok(false);
        }
        let served = self.snapshot().policy.revision();
        self.standing.met(self.store.heartbeat(&self.standing.own(served)).await?);
        Ok(!lives())
    }

    /// Puts on the record whatever raised the epoch up to that one and is not there.
    ///
    /// # Errors
    /// When the record cannot be written, or the store not be read; it is tried again with the next change.
    pub(crate) async fn tell(&self, epoch: RevocationEpoch) -> Result<(), Failure> {
        let mut told = self.standing.told.lock().await;
        self.tell_up_to(&mut told, epoch).await
    }

    /// The same for what is in force, where whoever changed it has to know no more than that it is in force.
    pub(super) async fn tell_in_force(&self) {
        if self.standing.believed().is_ok()
            && let Err(failure) = self.tell(self.revocation_epoch()).await
        {
            tracing::error!(%failure, "what is in force is not on the record; it is tried again with the next change");
        }
    }

    /// Puts on the record what raised the epoch, and drops the credentials that others took back.
    async fn tell_up_to(&self, told: &mut RevocationEpoch, epoch: RevocationEpoch) -> Result<(), Failure> {
        while *told < epoch {
            let changes = self.store.changed_since(*told).await?;
            if changes.is_empty() {
                // Nobody remembers what that was.
                *told = epoch;
            }
            for change in changes {
                if let What::Revoked(revocation) = &change.what
                    && change.replica != self.standing.own.replica
                {
                    self.delegate.drop_for(&revocation.target).await;
                }
                record_one(&self.journal, self.standing.own.replica, &change).await?;
                *told = change.epoch;
            }
        }
        Ok(())
    }

    /// Whether the store is known to have more than what is in force here.
    fn is_behind(&self, store: RevocationEpoch) -> bool {
        let in_force = self.revocation_epoch();
        store > in_force || self.lifecycle.load().epoch() < in_force || self.sealer.voided_to() < in_force
    }
}

/// Looks now and then whether what is stored is in force, where nobody else has the store: reading it back may have
/// failed after something was changed.
async fn follow_alone(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    while stopping.run_until_cancelled(tokio::time::sleep(limit::STORE_ALONE_INTERVAL)).await.is_some() {
        let taken = match gateway.store.revocation_epoch().await {
            Ok(epoch) if gateway.is_behind(epoch) => gateway.take_revocations().await,
            Ok(_) => Ok(()),
            Err(failure) => Err(failure),
        };
        match taken {
            Ok(()) => gateway.standing.well(),
            Err(failure) if gateway.standing.missed(failure.detail.clone()) => {
                tracing::error!(%failure, "what is stored may not be in force; it is tried again");
            }
            Err(_) => {}
        }
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

/// Serves the policy without the grants that have ended, however often that takes, until the gateway stops.
async fn take_ended(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    let taken = async {
        while let Err(failure) = gateway.take_ended().await {
            tracing::error!(%failure, "grants that have ended may still be in force; it is tried again");
            tokio::time::sleep(limit::HEARTBEAT_INTERVAL).await;
        }
    };
    stopping.run_until_cancelled(taken).await;
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

/// Puts on the record what raised the epoch and is not told there: while this replica was away, or when it ended
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
    let ordered_at = Some(change.replica).filter(|replica| *replica != own);
    let (epoch, nonce) = (change.epoch, change.nonce);
    match &change.what {
        What::Revoked(revocation) | What::Lifted(revocation) => {
            let lifted = matches!(change.what, What::Lifted(_));
            journal.revoked(&RevocationNote { lifted, ordered_at, nonce, ..revocation.noted(epoch) }).await
        }
        What::Rows(rows) => {
            let rows: Vec<RowNote<'_>> =
                rows.iter().map(|row| RowNote::new(&row.section, &row.key, row.gone, row.says.as_deref())).collect();
            journal.changed(&ChangeNote { epoch, nonce, rows: &rows, ordered_at }).await
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Semaphore;

    use super::*;

    #[tokio::test]
    async fn what_is_wanted_again_and_again_is_done_by_one_and_once_more_afterwards() {
        let (begun, may_end) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
        let mut once = Once::default();
        let go_on = |once: &mut Once| {
            once.go_on(|| {
                let (begun, may_end) = (Arc::clone(&begun), Arc::clone(&may_end));
                async move {
                    begun.fetch_add(1, Ordering::SeqCst);
                    may_end.acquire().await.unwrap().forget();
                }
            });
        };
        go_on(&mut once);
        assert!(once.doing.is_none(), "nobody wants it");
        for _ in 0..100 {
            once.wanted = true;
            go_on(&mut once);
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.load(Ordering::SeqCst), 1);
        for expected in [2, 2] {
            may_end.add_permits(1);
            while !once.doing.as_ref().unwrap().is_finished() {
                tokio::task::yield_now().await;
            }
            go_on(&mut once);
            tokio::task::yield_now().await;
            assert_eq!(begun.load(Ordering::SeqCst), expected, "what came meanwhile is done once");
        }
    }
}
