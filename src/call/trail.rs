//! What is known of a call while it is opened, for the record of one that stops.
//!
//! Decides nothing. Refuses to hold anything that a record has no place for.

use super::traced;
use crate::catalog::Target;
use crate::delegate::Leg;
use crate::guard::mandate::Held;
use crate::identity::Caller;
use crate::telemetry::Trace;

/// What was known of a call when it stopped.
pub(super) struct Trail {
    pub(super) leg: Leg,
    pub(super) target: Option<Target>,
    /// What the client asked for, in its own spelling.
    pub(super) name: Option<String>,
    pub(super) mandate: Option<Held>,
    pub(super) trace: Trace,
    /// Its call was sent before, and so it was counted.
    pub(super) again: bool,
}

impl Trail {
    /// Says to whoever follows the call what it is about.
    pub(super) fn about(&mut self, caller: &Caller) {
        let mut trace = std::mem::replace(&mut self.trace, Trace::off());
        trace.about(|| traced::subject(self, caller));
        self.trace = trace;
    }
}
