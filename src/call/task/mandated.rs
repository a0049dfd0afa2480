//! Tasks that their clients follow and that are part of a mandate: its end is theirs.
//!
//! Decides when such a task is cancelled without its client. Refuses to know what a mandate allows. Invariant: it waits
//! for the end of the mandate alone, and so many of them wait for one principal.

use std::time::Duration;

use super::super::mandate::{self, Mandated};
use super::leg::Bearer;
use crate::delegate::Grant;
use crate::limit;
use crate::outcome::{Outcome, Reason, Stop};

/// Cancels a task at its server once its mandate is over; a call that is part of none has nothing to wait for.
pub fn watch(bearer: Bearer, grant: &Grant) {
    let Some(held) = grant.mandate() else { return };
    let gateway = &bearer.gateway;
    let Ok(slot) = gateway.quotas().mandated(bearer.caller.principal()) else {
        tracing::debug!(mandate = %held.mandate().id, "a task is not cancelled with its mandate: there are too many");
        return;
    };
    let mandated = Mandated::new(held, gateway.standing().now_us());
    let (mut decisions, stopping) = (gateway.decisions(), gateway.stopping());
    tokio::spawn(async move {
        let _slot = slot;
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = mandate::at(Some(mandated.ends())) => break,
                changed = decisions.changed() => if changed.is_err() { return },
            }
            // That nobody could look is no end of it.
            if let Err(Stop::Refused(_)) = bearer.gateway.still_mandated(mandated.held()).await {
                break;
            }
        }
        for _ in 0..limit::TASK_CANCEL_TRIES_MAX {
            match bearer.ask("tasks/cancel").await {
                // Its principal has that many calls under way.
                Outcome::Refused(refusal) if refusal.reason == Reason::ConcurrencyLimited => {
                    tokio::time::sleep(Duration::from_secs(1)).await;
                }
                _ => return,
            }
        }
    });
}
