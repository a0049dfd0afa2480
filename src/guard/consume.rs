//! What a call consumes when it is sent: all of it or nothing, in one operation of the store.
//!
//! Decides which refusal a conflict is. Refuses to know what is consumed. Invariant: what somebody else has consumed
//! meanwhile, or changed, stops the call before anything of it goes out.

use std::sync::Arc;

use super::approval::Used;
use super::budget;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::event::ChargeNote;
use crate::shelf::{Change, Changed, Shelf, Tell};

/// What was reserved for one call.
#[derive(Debug)]
pub struct Reservations {
    shelf: Arc<dyn Shelf>,
    changes: Vec<(Change, Reason)>,
}

impl Reservations {
    /// Nothing is consumed: the store is not asked.
    #[must_use]
    pub const fn none(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf, changes: Vec::new() }
    }

    /// One more change; where it cannot be made, the call is refused with this reason.
    pub fn reserve(&mut self, change: Change, otherwise: Reason) {
        self.changes.push((change, otherwise));
    }

    /// Whether anything is consumed.
    #[must_use]
    pub const fn is_any(&self) -> bool {
        !self.changes.is_empty()
    }

    /// Consumes it, where that also holds; answers what that was of budgets.
    ///
    /// # Errors
    /// The refusal of the change that could not be made; `store_unavailable`. Nothing was consumed then, or nobody
    /// knows.
    pub async fn consume(&self, also: Vec<(Change, Reason)>) -> Result<Vec<ChargeNote>, Stop> {
        let changes = self.changes.iter().chain(&also).map(|(change, _)| change.clone()).collect();
        match self.shelf.change(changes, Tell::Nobody).await? {
            Changed::Done { numbers, .. } => {
                let counted = self.changes.iter().zip(numbers);
                Ok(counted.filter_map(|((change, _), number)| budget::charged(change, number)).collect())
            }
            Changed::Conflict(index) => {
                let reason = self.changes.iter().chain(&also).nth(index);
                let reason = reason.map_or(Reason::StoreUnavailable, |(_, reason)| *reason);
                Err(Refusal::new(reason).into())
            }
            Changed::Full(_) => Err(Failure::before(Reason::StoreUnavailable, "no more rows of that kind fit").into()),
        }
    }

    /// Why what persons said could not be consumed: it was used, or something became of it meanwhile.
    pub(super) async fn lost(&self, used: &Used) -> Stop {
        used.lost(self.shelf.as_ref()).await.unwrap_or_else(Stop::from)
    }
}
