//! Tasks that nobody goes on with: they end, and what they hold is taken back.
//!
//! Decides that whoever comes back finds them over. Refuses to know when one is idle. Invariant: an end is in force
//! before it is on the record, and is told once.

use super::Gateway;
use super::mandates::noted;
use crate::guard::mandate::{CLOCK, Held, Mandate};
use crate::ids::MandateId;
use crate::outcome::Failure;
use crate::record::mandated::MandateNote;

/// Why such a task is over, as the record has it.
pub(super) const UNUSED: &str = "nobody used it";

impl Gateway {
    /// Ends a mandate, or one above it, that was not used lately; whether it did.
    pub(super) async fn ended_idle(&self, held: &Held) -> Result<bool, Failure> {
        if held.all().all(|mandate| mandate.idle_seconds.is_none()) {
            return Ok(false);
        }
        let now_us = self.standing.now_us();
        for mandate in held.all() {
            if !mandate.is_over(now_us)
                && self.guard.mandates().is_idle(mandate, now_us).await?
                && self.end_idle(&mandate.id).await?
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Ends those of them that nobody used for too long.
    pub(super) async fn end_what_is_idle(&self, mandates: Vec<Mandate>) -> Result<(), Failure> {
        let now_us = self.standing.now_us();
        for mandate in mandates {
            if self.guard.mandates().is_idle(&mandate, now_us).await? {
                self.end_idle(&mandate.id).await?;
            }
        }
        Ok(())
    }

    /// Ends one that nobody uses; whether it did.
    async fn end_idle(&self, id: &MandateId) -> Result<bool, Failure> {
        // What a store acknowledges that went back is not kept.
        self.standing.believed()?;
        let Some((mandate, epoch)) = self.guard.mandates().end_idle(id).await? else { return Ok(false) };
        self.take_revocations().await?;
        let calls = self.guard.by_server(&mandate).await?;
        let told = noted("expired", &mandate, &calls);
        let note = MandateNote { actor: CLOCK, note: UNUSED, epoch: Some(epoch), ..told };
        self.journal.mandated(&note).await?;
        self.guard.approvals().withdraw_ended(&self.snapshot().written).await?;
        self.guard.mandates().tell(std::slice::from_ref(id)).await?;
        Ok(true)
    }
}
