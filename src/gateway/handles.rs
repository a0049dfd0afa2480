//! Handles of rooms that others than `call` ask for: who is told, who is sent the record, pages, seals.
//!
//! Decides nothing. Invariant: what is lent here was wired once, at the start.

use super::Gateway;
use crate::export::Exports;
use crate::list::Pages;
use crate::telemetry::Telemetry;
use crate::wire::handle::Sealer;

impl Gateway {
    /// Who is told how calls went.
    #[must_use]
    pub const fn telemetry(&self) -> &Telemetry {
        &self.telemetry
    }

    /// Who is sent the record.
    #[must_use]
    pub const fn exports(&self) -> &Exports {
        &self.exports
    }

    /// Pages of lists that were made.
    #[must_use]
    pub const fn pages(&self) -> &Pages {
        &self.pages
    }

    /// What handles are sealed with.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }
}
