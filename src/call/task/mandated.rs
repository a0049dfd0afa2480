//! Tasks that their clients follow and that are part of a mandate: its end is theirs, and it does not end for want of use
//! while one of them goes on.
//!
//! Decides when such a task is cancelled without its client, and until when it is under way. Refuses to know what a mandate
//! allows. Invariant: it waits for the end of the mandate alone, and so many of them wait for one principal.

use std::time::Duration;

use tokio::time::Instant;

use super::super::mandate::{self, Mandated};
use super::is_wrong;
use super::leg::Bearer;
use super::shape::{self, Status};
use crate::delegate::Grant;
use crate::guard::mandate::Mandate;
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
    let pace = pace(held.all().filter_map(Mandate::idle));
    // The call was over when its client was told of the task, which is under way.
    let mandated = Mandated::used(gateway, held);
    let (mut decisions, stopping) = (gateway.decisions(), gateway.stopping());
    tokio::spawn(async move {
        let _slot = slot;
        let mut next = pace.map(|pace| Instant::now() + pace);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = mandate::at(Some(mandated.ends())) => break,
                changed = decisions.changed() => if changed.is_err() { return },
                () = mandate::at(next) => {
                    // With its process it is gone: nothing is under way, and nothing is left to cancel.
                    if bearer.is_lost() {
                        return;
                    }
                    // What is over is cancelled by nobody, and used no more. A server that does not answer keeps nobody for long
                    // from noticing the end of the mandate.
                    let looked = tokio::time::timeout(limit::TASK_POLL_MAX, bearer.look()).await;
                    let pause = looked.map_or(Some(limit::TASK_POLL_MAX), |answer| goes_on(&answer));
                    let Some(pause) = pause else { return };
                    next = pace.map(|pace| Instant::now() + pace.max(pause));
                }
            }
            // That nobody could look is no end of it.
            if let Err(Stop::Refused(_)) = bearer.gateway.still_mandated(mandated.held()).await {
                break;
            }
        }
        cancelled(&bearer).await;
    });
}

/// How often it is asked whether a task goes on, for the shortest of these times; never where there is none.
fn pace(idle: impl Iterator<Item = Duration>) -> Option<Duration> {
    Some((idle.min()? / 4).clamp(limit::TASK_POLL_DEFAULT, limit::TASK_LOOKED_AT_WITHIN))
}

/// How soon a task that goes on may be asked about again, as far as this answer tells; nothing where it is over. That its
/// server does not answer, or says what nobody understands, is no end of it.
fn goes_on(answer: &Outcome) -> Option<Duration> {
    match answer {
        Outcome::Complete(task) => {
            let task = task.value().as_object();
            let status = task.and_then(Status::of);
            let is_over = matches!(status, Some(Status::Completed | Status::Failed | Status::Cancelled));
            (!is_over).then(|| task.map_or(limit::TASK_POLL_MAX, shape::pause))
        }
        // Nobody there knows it any more.
        Outcome::Error(error) if is_wrong(error) => None,
        _ => Some(limit::TASK_POLL_MAX),
    }
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

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::Json;

    #[test]
    fn a_task_goes_on_until_its_server_says_that_it_is_over_or_knows_it_no_more() {
        let says = |answer: serde_json::Value| goes_on(&Outcome::Complete(Json::of(&answer)));
        for status in ["working", "input_required", "dancing"] {
            let answer = json!({ "status": status, "pollIntervalMs": 3000 });
            assert_eq!(says(answer), Some(Duration::from_secs(3)), "{status}");
        }
        for status in ["completed", "failed", "cancelled"] {
            assert_eq!(says(json!({ "status": status })), None, "{status}");
        }
        let error = |code: i32| goes_on(&Outcome::Error(Json::of(&json!({ "code": code, "message": "no" }))));
        assert_eq!((error(-32602), error(-32603)), (None, Some(limit::TASK_POLL_MAX)));
        let refused = Outcome::Refused(Refusal::new(Reason::ConcurrencyLimited));
        assert_eq!(goes_on(&refused), Some(limit::TASK_POLL_MAX), "nobody could look");
    }

    #[test]
    fn a_task_is_asked_about_in_time_for_the_shortest_of_its_mandates_and_for_none_never() {
        let pace = |seconds: &[u64]| pace(seconds.iter().copied().map(Duration::from_secs));
        assert_eq!(pace(&[]), None);
        assert_eq!(pace(&[600, 40]), Some(Duration::from_secs(10)));
        assert_eq!(pace(&[1]), Some(limit::TASK_POLL_DEFAULT));
        assert_eq!(pace(&[86_400]), Some(limit::TASK_LOOKED_AT_WITHIN));
    }
}
