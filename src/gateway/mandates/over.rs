//! Mandates that are over without anybody having completed them: with the access of whoever holds them, by the clock, because
//! nobody uses them, or at another replica.
//!
//! Decides when they are looked for, and that each is told of. Refuses to know whose access ends and when one is idle.
//! Invariants: an end is in force before it is on the record, and is told once; however many end together, few epochs tell
//! of it.

use std::sync::Arc;

use futures_util::{StreamExt as _, stream};
use tokio::sync::watch;
use tokio::time::Instant;

use super::super::Gateway;
use super::super::idle::UNUSED;
use super::noted;
use crate::guard::mandate::{CLOCK, Looked, Mandate};
use crate::identity::Revocations;
use crate::identity::revoked::RevocationTarget;
use crate::ids::{MandateId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;
use crate::record::mandated::MandateNote;
use crate::shelf::Row;

impl Gateway {
    /// Ends, before revocations are lifted, what they took back: that access was taken from whoever holds them ended these
    /// mandates for good. Their credentials went when it was taken.
    ///
    /// # Errors
    /// `store_unavailable`, `record_unavailable`.
    pub async fn end_mandates_of(&self, lifted: &Revocations, by: &str) -> Result<(), Failure> {
        // What a store acknowledges that went back is not kept.
        self.standing.believed()?;
        let written = Arc::clone(&self.snapshot().written);
        let meant = |mandate: &Mandate| {
            let is_below = mandate.above.iter().any(|above| lifted.is_mandate_revoked(above));
            is_below || mandate.is_taken_back(lifted, &written)
        };
        let (mut after, mut is_any) = (None::<String>, false);
        loop {
            let (named, next) = self.guard.mandates().open_ones(after.as_deref(), meant).await?;
            is_any |= self.end_together(named, by).await?;
            match next {
                Some(next) => after = Some(next),
                None => break,
            }
        }
        if is_any { self.guard.approvals().withdraw_ended(&written).await } else { Ok(()) }
    }

    /// Ends these, and tells of those that nobody else has ended; whether there were any.
    async fn end_together(&self, these: Vec<(Mandate, Row)>, by: &str) -> Result<bool, Failure> {
        let known = self.revocation_epoch();
        let ended = match self.guard.mandates().end_all(these, by).await {
            Ok(ended) => ended,
            Err(failure) => {
                // Some of them may be over, and told of later.
                let _taken = self.take_revocations().await;
                return Err(failure);
            }
        };
        let Some(epoch) = ended.iter().map(|(_, epoch)| *epoch).max() else { return Ok(false) };
        self.standing.compare(known, epoch)?;
        self.take_revocations().await?;
        self.tell_of_ends(ended.into_iter().map(|(mandate, epoch)| (mandate, Some(epoch))).collect()).await?;
        Ok(true)
    }

    /// Takes back the credentials of mandates that are over, wherever and however they ended.
    async fn drop_ended_mandates(&self) {
        for path in self.delegate.mandates_held() {
            if path.split('/').any(|id| self.guard.mandates().is_being_ended(id)) {
                continue;
            }
            let Some(id) = path.rsplit('/').next().and_then(|id| MandateId::new(id).ok()) else { continue };
            let now_us = self.standing.now_us();
            match self.guard.mandates().find(&id, self.revocation_epoch()).await {
                Ok(Some(held))
                    if self.live.not_revoked(&held).is_ok() && !held.all().any(|one| one.is_over(now_us)) => {}
                Ok(_) => {
                    let taken = self.delegate.drop_for(&RevocationTarget::Mandate(id.clone())).await;
                    tracing::info!(mandate = %id, taken, "credentials of a mandate that is over are taken back");
                }
                Err(failure) => tracing::debug!(%failure, mandate = %id, "whether it is over is looked at later"),
            }
        }
    }

    /// Looks at all mandates for those that are over and of which nobody told, and for those that nobody uses.
    async fn look_for_ends(&self, decisions: &mut watch::Receiver<u64>) {
        let (mut after, mut is_withdrawn) = (None::<String>, false);
        loop {
            let looked = match self.guard.mandates().untold(after.as_deref()).await {
                Ok(looked) => looked,
                Err(failure) => return tracing::debug!(%failure, "mandates that are over are looked for later"),
            };
            let Looked { untold, may_be_idle, next } = looked;
            if let Err(failure) = self.end_what_is_idle(may_be_idle).await {
                tracing::warn!(%failure, "mandates that nobody uses end later");
            }
            if let Err(failure) = self.tell_of_ended(untold, &mut is_withdrawn).await {
                tracing::warn!(%failure, "that mandates are over is told later");
            }
            match next.filter(|_| !self.stopping.is_cancelled()) {
                Some(next) => after = Some(next),
                None => return,
            }
            // What is taken back meanwhile does not wait until all were looked at.
            if decisions.has_changed().unwrap_or(false) {
                decisions.mark_unchanged();
                self.drop_ended_mandates().await;
            }
        }
    }

    /// Tells of mandates that are over and of which nobody told. What waits under any that is over is withdrawn once in a
    /// look.
    async fn tell_of_ended(&self, untold: Vec<(Mandate, Row)>, is_withdrawn: &mut bool) -> Result<(), Failure> {
        if untold.is_empty() {
            return Ok(());
        }
        if !*is_withdrawn {
            self.guard.approvals().withdraw_ended(&self.snapshot().written).await?;
            *is_withdrawn = true;
        }
        let (ended, over): (Vec<_>, Vec<_>) = untold.into_iter().partition(|(mandate, _)| mandate.ended.is_some());
        // One replica ends each, whoever comes first; all of a page with few epochs, which everybody looks at once.
        let expired = self.guard.mandates().end_all(over, CLOCK).await?;
        if !expired.is_empty()
            && let Err(failure) = self.take_revocations().await
        {
            tracing::warn!(%failure, "mandates have expired; that is taken at the next look at the store");
        }
        let expired = expired.into_iter().map(|(mandate, epoch)| (mandate, Some(epoch)));
        self.tell_of_ends(ended.into_iter().map(|(mandate, _)| (mandate, None)).chain(expired).collect()).await
    }

    /// Puts on the record that they are over, and keeps that it is there: should that be cut off, it is told once more.
    async fn tell_of_ends(&self, ended: Vec<(Mandate, Option<RevocationEpoch>)>) -> Result<(), Failure> {
        let telling: Vec<_> = ended.iter().map(|(mandate, epoch)| self.record_end(mandate, *epoch)).collect();
        let told: Vec<_> = stream::iter(telling).buffered(limit::MANDATES_TOLD_AT_ONCE_MAX).collect().await;
        let recorded = ended.iter().zip(&told).filter(|(_, told)| told.is_ok());
        let recorded: Vec<_> = recorded.map(|((mandate, _), _)| mandate.id.clone()).collect();
        let kept = self.guard.mandates().tell(&recorded).await;
        told.into_iter().collect::<Result<(), _>>().and(kept)
    }

    async fn record_end(&self, mandate: &Mandate, epoch: Option<RevocationEpoch>) -> Result<(), Failure> {
        let calls = self.guard.by_server(mandate).await?;
        let epoch = Some(epoch.unwrap_or_else(|| self.revocation_epoch()));
        let (event, actor, note) = match &mandate.ended {
            Some(ended) if ended.is_by_disuse() => ("expired", CLOCK, UNUSED),
            Some(ended) if !ended.is_by_the_clock() => ("completed", ended.by.as_str(), ""),
            _ => ("expired", CLOCK, ""),
        };
        self.journal.mandated(&MandateNote { actor, note, epoch, ..noted(event, mandate, &calls) }).await
    }
}

/// Looks after the ends of mandates that nobody ordered here: what expired, and what ended at another replica.
pub async fn follow_mandates(gateway: Arc<Gateway>) {
    let (stopping, mut decisions) = (gateway.stopping(), gateway.decisions());
    let mut next = Instant::now() + limit::MANDATES_LOOK_INTERVAL;
    loop {
        let is_time = tokio::select! {
            () = stopping.cancelled() => return,
            changed = decisions.changed() => {
                if changed.is_err() {
                    return;
                }
                // However often something is decided, it is looked.
                Instant::now() >= next
            }
            () = tokio::time::sleep_until(next) => true,
        };
        gateway.drop_ended_mandates().await;
        if is_time {
            if let Some(mut turn) = gateway.guard().mandates().turn_to_tell()
                && let Err(failure) = gateway.guard().mandates().tell_uses(&mut turn).await
            {
                tracing::debug!(%failure, "that mandates are used is told later");
            }
            gateway.look_for_ends(&mut decisions).await;
            next = Instant::now() + limit::MANDATES_LOOK_INTERVAL;
        }
    }
}
