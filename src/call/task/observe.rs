//! A task of 2025-11-25 that a stream hears of. Its server takes no listens and tells of tasks as it likes, and what the
//! task asks it says to whoever waits for the result: so the task is looked at, as its client would look.
//!
//! Decides how often, and what is news. Refuses to know streams toward clients. Invariant: each look goes through the
//! whole pipeline, and what the client is told is what it would be shown if it asked.

use tokio::sync::{mpsc, oneshot};

use super::leg::Bearer;
use super::shape::{self, Status};
use super::translate::{translated, working};
use super::{After, unoffered};
use crate::delegate::Grant;
use crate::limit;
use crate::outcome::{Outcome, Reason};
use crate::upstream::{Event, Exchange};
use crate::wire::mcp::Method;
use crate::wire::{Edit, Json, Message};

/// Tells of the task for as long as this is polled and the task goes on.
pub(super) async fn observe(bearer: Bearer, id: String, tell: mpsc::Sender<Message>, agreed: oneshot::Sender<bool>) {
    let mut decisions = bearer.gateway.decisions();
    let mut agreed = Some(agreed);
    let mut told = None;
    let mut pause = limit::TASK_POLL_DEFAULT;
    loop {
        let seen = look(&bearer, &id).await;
        let is_task = matches!(seen.outcome, Outcome::Complete(_));
        let is_first = agreed.take().map(|agreed| agreed.send(is_task)).is_some();
        let outcome = match seen.goes_on {
            Some(exchange) => end_of(exchange).await,
            None => seen.outcome,
        };
        match outcome {
            Outcome::Complete(task) => {
                let Some(task) = task.value().as_object() else { return };
                pause = shape::pause(task).max(limit::TASK_POLL_DEFAULT);
                let status = Status::of(task);
                let news = crate::wire::without_own_keys(task.edited(&[Edit::Remove("resultType")]));
                let is_news = told.as_ref() != Some(&news) && !(is_first && status == Some(Status::Working));
                if is_news && tell.send(Message::notification("notifications/tasks", Some(&news))).await.is_err() {
                    return;
                }
                told = Some(news);
                if matches!(status, Some(Status::Completed | Status::Failed | Status::Cancelled)) {
                    return;
                }
            }
            // Its server may be there again later; what cannot be shown is not told, and whoever asks hears why.
            Outcome::Failed(failure) if (is_task || !is_first) && failure.reason != Reason::UpstreamGarbage => {
                pause = (pause * 2).min(limit::TASK_POLL_MAX);
            }
            _ => return,
        }
        tokio::select! {
            () = tokio::time::sleep(pause) => {}
            // Whether it may still be looked at is decided by looking.
            changed = decisions.changed() => if changed.is_err() { return },
        }
    }
}

/// What one look shows.
struct Seen {
    outcome: Outcome,
    /// What the task asks, or how it ended, is asked for by itself.
    goes_on: Option<Exchange>,
}

async fn look(bearer: &Bearer, id: &str) -> Seen {
    let mut goes_on = None;
    let asks = |task: &Json| task.value().as_object().and_then(Status::of) == Some(Status::InputRequired);
    let shown = |grant: &Grant, outcome: Outcome| match outcome {
        // Whoever only listens is not who would be asked: that ends no task.
        Outcome::Complete(task) if !bearer.declared().is_any() && asks(&task) => working(&task, id),
        Outcome::Complete(task) => match translated(id.to_owned(), bearer.clone(), grant, Method::TaskGet, task) {
            After::Deliver(outcome) => outcome,
            After::GoOn(recorded, exchange) => {
                goes_on = Some(*exchange);
                recorded
            }
        },
        Outcome::Task(_) | Outcome::InputRequired { .. } => unoffered(),
        other => other,
    };
    let outcome = bearer.ask_and("tasks/get", shown).await;
    Seen { outcome, goes_on }
}

async fn end_of(mut exchange: Exchange) -> Outcome {
    loop {
        if let Event::Done(outcome) = exchange.next().await {
            return outcome;
        }
    }
}
