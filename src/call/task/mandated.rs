//! Tasks that their clients follow and that are part of a mandate: its end is theirs.
//!
//! Decides when such a task is cancelled without its client. Refuses to know what a mandate allows. Invariant: it waits
//! for the end of the mandate alone, and so many of them wait for one principal.

use std::time::Duration;

use super::super::mandate::{self, Mandated};
use super::is_wrong;
use super::leg::Bearer;
use crate::delegate::Grant;
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal, Stop};

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
        cancelled(&bearer).await;
    });
}

/// Cancels a task at its server, as soon as its principal has a place for that; who reads the log is told where it was not.
pub async fn cancelled(bearer: &Bearer) {
    let mut outcome = Outcome::Refused(Refusal::new(Reason::ConcurrencyLimited));
    for _ in 0..limit::TASK_CANCEL_TRIES_MAX {
        outcome = bearer.ask("tasks/cancel").await;
        match &outcome {
            Outcome::Refused(refusal) if refusal.reason == Reason::ConcurrencyLimited => {
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
            _ => break,
        }
    }
    let reason = match &outcome {
        Outcome::Complete(_) => return,
        // It was over already, or is not known any more.
        Outcome::Error(error) if is_wrong(error) => return,
        Outcome::Refused(refusal) => refusal.reason.code(),
        Outcome::Failed(failure) => failure.reason.code(),
        _ => "its server's own error",
    };
    tracing::warn!(server = %bearer.handle.server(), reason, "a task that nobody wants any more was not cancelled");
}
