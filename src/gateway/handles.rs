//! Handles of rooms that others than `call` ask for: who is told, who is sent the record, pages, seals.
//!
//! Decides nothing. Invariant: what is lent here was wired once, at the start.

use super::Gateway;
use super::source::UpstreamSource;
use crate::call::GivenTasks;
use crate::catalog::Catalog;
use crate::export::Exports;
use crate::guard::{Guard, Quotas};
use crate::identity::Caller;
use crate::list::Pages;
use crate::outcome::Reason;
use crate::telemetry::Telemetry;
use crate::upstream::Upstreams;
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

    /// Counts and records a refusal of somebody who was authenticated, where nothing became a call.
    pub fn declined(&self, caller: &Caller, reason: Reason) {
        self.journal.declined((caller.principal(), caller.who()), reason);
    }

    /// Which tasks were given to whom.
    #[must_use]
    pub const fn given_tasks(&self) -> &GivenTasks {
        &self.given_tasks
    }

    /// What handles are sealed with.
    #[must_use]
    pub fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// What principals use.
    #[must_use]
    pub const fn quotas(&self) -> &Quotas {
        self.guard.quotas()
    }

    /// What calls reserve and consume.
    #[must_use]
    pub const fn guard(&self) -> &Guard {
        &self.guard
    }

    /// What exists.
    #[must_use]
    pub const fn catalog(&self) -> &Catalog<UpstreamSource> {
        &self.catalog
    }

    /// How servers are reached.
    #[must_use]
    pub fn upstreams(&self) -> &Upstreams {
        &self.upstreams
    }
}
