//! Decides what a permitted call may use right now: a slot among the caller's calls in flight.
//! Refuses to know rules and tokens.
//!
//! Mandates, budgets, labels and approvals reserve here too; what is reserved is consumed in
//! `record.open`. Invariant: a [`Cleared`] holds everything that was reserved for it, and gives it back
//! when it is dropped.

pub mod quota;

use crate::outcome::Refusal;
use crate::policy::Permit;
pub use quota::{Quotas, Slot};

/// The proof of the fourth stage: permitted, and what it needs is reserved.
#[derive(Debug)]
pub struct Cleared {
    permit: Permit,
    slot: Slot,
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
}

/// Reserves what a permitted call needs.
///
/// # Errors
/// `concurrency_limited`.
pub fn guard(quotas: &Quotas, permit: Permit) -> Result<Cleared, Refusal> {
    let slot = quotas.call(permit.caller().principal())?;
    Ok(Cleared { permit, slot })
}
