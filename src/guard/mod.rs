//! Decides what a permitted call may use right now: a slot among the caller's calls in flight.
//! Refuses to know rules and tokens.
//!
//! Mandates, budgets, labels and approvals reserve here too, one after the other; what is reserved is consumed in
//! `record.open`, all of it in one operation of the store, between the durable intent and the first byte that goes out.
//! Invariant: a [`Cleared`] holds everything that was reserved for it, and gives it back when it is dropped.

pub mod approval;
mod consume;
pub mod label;
pub mod quota;

use std::sync::Arc;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

use crate::ids::CallId;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::{Permit, Policy};
use crate::shelf::Shelf;
use crate::wire::Json;
pub use approval::{Approvals, Gated, Said, Used};
pub use consume::Reservations;
use label::{LabelUse, Labels};
pub use quota::{Quotas, Slot};

/// The room: what callers use, and what is kept of it.
#[derive(Debug)]
pub struct Guard {
    quotas: Quotas,
    labels: Labels,
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
    /// The policy in force, which says what tools do.
    pub policy: &'a Policy,
    /// The mandate that it belongs to.
    pub mandate: Option<&'a str>,
}

/// The proof of the fourth stage: permitted, and what it needs is reserved.
#[derive(Debug)]
pub struct Cleared {
    permit: Permit,
    slot: Slot,
    labels: Option<LabelUse>,
    reservations: Reservations,
    approval: Option<Box<Used>>,
}

impl Guard {
    /// Nobody uses anything yet.
    #[must_use]
    pub fn new(quotas: Quotas, shelf: Arc<dyn Shelf>, approvals: Approvals) -> Self {
        Self { quotas, labels: Labels::new(Arc::clone(&shelf)), shelf, approvals }
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
    /// `concurrency_limited`, `flow_refused`, `store_unavailable`; what [`Approvals::clear`] says of a call that meets
    /// gates.
    pub async fn clear(&self, permit: Permit, wanted: Wanted<'_>) -> Result<Cleared, Stop> {
        let slot = self.quotas.call(permit.caller().principal())?;
        let mut reservations = Reservations::none(Arc::clone(&self.shelf));
        let labels = self.labels.clear(&permit, &wanted, &mut reservations).await?;
        // Last: nobody is asked about what is refused all the same.
        let approval = match (permit.gates(), wanted.gated) {
            ([], _) => None,
            (_, Some(gated)) => {
                let gated = Gated { mandate: wanted.mandate, ..gated };
                Some(Box::new(self.approvals.clear(&permit, gated, &mut reservations).await?))
            }
            (_, None) => return Err(Refusal::new(Reason::ApprovalRequired).into()),
        };
        Ok(Cleared { permit, slot, labels, reservations, approval })
    }

    /// Reserves what following a task needs, which is no call of its own: a slot.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn clear_following(&self, permit: Permit) -> Result<Cleared, Stop> {
        let slot = self.quotas.call(permit.caller().principal())?;
        let reservations = Reservations::none(Arc::clone(&self.shelf));
        Ok(Cleared { permit, slot, labels: None, reservations, approval: None })
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

    /// What it does to the labels of its caller.
    #[must_use]
    pub const fn labels(&self) -> Option<&LabelUse> {
        self.labels.as_ref()
    }

    /// Consumes what was reserved; `None` where nothing was.
    pub fn consume(&self) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        if !self.reservations.is_any() {
            return None;
        }
        let consume = async {
            self.reservations.consume().await?;
            if let Some(labels) = &self.labels {
                labels.consumed();
            }
            Ok(())
        };
        Some(consume.boxed())
    }
}
