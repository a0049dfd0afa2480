//! What is known of the moment of a call before it is decided: its mandate, and what its caller has seen.
//!
//! Decides when the store is asked. Refuses to know what conditions make of it. Invariant: what was seen is asked for only
//! where a condition that reads it may decide this very call; every other call pays nothing.

use super::Gateway;
use crate::catalog::Target;
use crate::guard::mandate::Held;
use crate::identity::Caller;
use crate::ids::TemplateName;
use crate::outcome::Failure;
use crate::policy::{Ask, Situation};

impl Gateway {
    /// What is known of the moment of a call.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn situation(
        &self,
        caller: &Caller,
        target: &Target,
        mandate: Option<&Held>,
    ) -> Result<Situation, Failure> {
        let situation = match mandate {
            None => Situation::without_mandate(),
            Some(held) => Situation::under(held.mandate().template.as_ref().map(TemplateName::as_str)),
        };
        let policy = &self.snapshot().policy;
        let ask = Ask {
            environment: target.environment(),
            server: target.server_id(),
            name: target.name(),
            action: target.action(),
        };
        if !policy.asks_what_was_seen(caller, &ask) {
            return Ok(situation);
        }
        let seen = self.guard().labels().seen_by(caller.persona(), mandate).await?;
        Ok(situation.having_seen(seen))
    }
}
