//! Decides what a permitted call may use right now: a slot among the caller's calls in flight.
//! Refuses to know rules and tokens.
//!
//! Mandates, budgets, labels and approvals reserve here too, one after the other; what is reserved is consumed in
//! `record.open`, all of it in one operation of the store, between the durable intent and the first byte that goes out.
//! Invariant: a [`Cleared`] holds everything that was reserved for it, and gives it back when it is dropped.

pub mod approval;
mod consume;
pub mod quota;

use std::sync::Arc;

use crate::ids::CallId;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::Permit;
use crate::shelf::Shelf;
use crate::wire::Json;
pub use approval::{Approvals, Gated, Said, Used};
pub use consume::Reservations;
pub use quota::{Quotas, Slot};

/// The room: what callers use, and what is kept of it.
#[derive(Debug)]
pub struct Guard {
    quotas: Quotas,
    shelf: Arc<dyn Shelf>,
    approvals: Approvals,
}

/// What a permitted call is about, beside what the permit says.
#[derive(Debug, Clone, Copy)]
pub struct Wanted<'a> {
    /// The call; its legs have it in common.
    pub call: CallId,
    /// Its arguments.
    pub arguments: Option<&'a Json>,
    /// What the gates need that it meets; a call that meets some and brings nothing is refused.
    pub gated: Option<Gated<'a>>,
}

/// The proof of the fourth stage: permitted, and what it needs is reserved.
#[derive(Debug)]
pub struct Cleared {
    permit: Permit,
    slot: Slot,
    reservations: Reservations,
    approval: Option<Box<Used>>,
}

impl Guard {
    /// Nobody uses anything yet.
    #[must_use]
    pub fn new(quotas: Quotas, shelf: Arc<dyn Shelf>, approvals: Approvals) -> Self {
        Self { quotas, shelf, approvals }
    }

    /// What waits for a person, and what was approved.
    #[must_use]
    pub const fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// What principals use.
    #[must_use]
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Reserves what a permitted call needs. Only a call that needs what is kept in the store waits for it.
    ///
    /// # Errors
    /// `concurrency_limited`; what [`Approvals::clear`] says of a call that meets gates.
    pub async fn clear(&self, permit: Permit, wanted: Wanted<'_>) -> Result<Cleared, Stop> {
        let slot = self.quotas.call(permit.caller().principal())?;
        let mut reservations = Reservations::none(Arc::clone(&self.shelf));
        let approval = match (permit.gates(), wanted.gated) {
            ([], _) => None,
            (_, Some(gated)) => Some(Box::new(self.approvals.clear(&permit, gated, &mut reservations).await?)),
            (_, None) => return Err(Refusal::new(Reason::ApprovalRequired).into()),
        };
        Ok(Cleared { permit, slot, reservations, approval })
    }

    /// Reserves what following a task needs, which is no call of its own: a slot.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn clear_following(&self, permit: Permit) -> Result<Cleared, Stop> {
        let slot = self.quotas.call(permit.caller().principal())?;
        let reservations = Reservations::none(Arc::clone(&self.shelf));
        Ok(Cleared { permit, slot, reservations, approval: None })
    }
}

impl Cleared {
    /// The decision that this rests on.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The slot among the caller's calls; it is free again when this is dropped.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// What it uses of what persons said.
    #[must_use]
    pub fn approval(&self) -> Option<&Used> {
        self.approval.as_deref()
    }

    /// What is consumed when it is sent.
    #[must_use]
    pub const fn reservations(&self) -> &Reservations {
        &self.reservations
    }
}
