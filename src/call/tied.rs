//! A call under way hangs on the credential that it was sent with: once that is taken back, so is the call.
//!
//! Decides when that is looked at: whenever something was taken back. Refuses to know how it is found out.

use crate::delegate::{Grant, Tie};
use crate::gateway::Gateway;
use crate::outcome::Reason;

/// What a call under way hangs on.
#[derive(Debug)]
pub(super) struct Tied {
    tie: Tie,
    doubted: bool,
}

impl Tied {
    /// Of what was granted; nothing, where its credential cannot be taken back by itself.
    pub(super) fn of(grant: &Grant) -> Option<Self> {
        grant.credential().tie().map(|tie| Self { tie, doubted: false })
    }

    /// Something was taken back, and it may be this.
    pub(super) const fn doubt(&mut self) {
        self.doubted = true;
    }

    /// Why the call is over, if it is. Cancel-safe: what was not found out is looked for again.
    pub(super) async fn over(&mut self, gateway: &Gateway) -> Option<Reason> {
        if !self.doubted {
            return None;
        }
        // Boxed, because most calls never need it.
        let stands = Box::pin(gateway.delegate().still_stands(&self.tie)).await;
        self.doubted = false;
        stands.err().map(|stop| stop.reason())
    }
}
