//! Tasks of 2025-11-25 for clients that follow them as those of the extension: the end stands in the task, and so does
//! what it asks, both of which their servers say to whoever waits for the result.
//!
//! Decides when that is waited for. Refuses to know transports. Invariant: what a task asks is shown only where it may
//! be asked now, and what waits for its answer is given up when the task needs none any more.

use super::super::input;
use super::leg::Bearer;
use super::shape::{self, Status};
use super::{After, acknowledged, follow, garbage, questions};
use crate::delegate::Grant;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Method, code};
use crate::wire::{Edit, Json, Object};

/// The answer of a server of 2025-11-25 for a client that knows the extension.
pub(super) fn translated(id: String, bearer: Bearer, grant: &Grant, method: Method, result: Json) -> After {
    if method == Method::TaskCancel {
        bearer.give_up_asked();
    }
    let Some(task) = result.value().as_object().filter(|_| method == Method::TaskGet) else {
        return After::Deliver(acknowledged());
    };
    match Status::of(task) {
        None => After::Deliver(Outcome::Failed(Failure::after(
            Reason::UpstreamGarbage,
            "its task has no status that is known",
        ))),
        Some(Status::Completed | Status::Failed) => {
            let recorded = Outcome::Complete(result.clone());
            bearer.give_up_asked();
            let asking = async move {
                let end = bearer.ask("tasks/result").await;
                ended_with(&result, &id, end)
            };
            After::GoOn(recorded, Box::new(follow::one(asking)))
        }
        Some(Status::InputRequired) if bearer.declared().is_any() => match bearer.asked() {
            Some((_, asked)) => After::Deliver(asking_this(&bearer, grant, task, &id, &asked)),
            // What it asks comes over the stream of its result.
            None => {
                let recorded = Outcome::Complete(result.clone());
                After::GoOn(recorded, Box::new(follow::one(async move { found_out(&bearer, &result, &id).await })))
            }
        },
        // A client that nobody can be asked through.
        Some(Status::InputRequired) => {
            let error = serde_json::json!({
                "code": code::INTERNAL_ERROR,
                "message": "the task asks for input, and its client declared nothing that it can be asked",
            });
            let task = shape::modern(task, "complete", &id, Some(("error", Json::of(&error))));
            let asking = async move {
                bearer.ask("tasks/cancel").await;
                Outcome::Complete(task)
            };
            After::GoOn(Outcome::Complete(result.clone()), Box::new(follow::one(asking)))
        }
        Some(Status::Working | Status::Cancelled) => {
            After::Deliver(Outcome::Complete(shape::modern(task, "complete", &id, None)))
        }
    }
}

/// A task of 2025-11-25 with its end, in the shape of the extension.
fn ended_with(task: &Json, id: &str, end: Outcome) -> Outcome {
    let Some(task) = task.value().as_object() else { return end };
    match end {
        Outcome::Complete(end) => match end.value().as_object() {
            Some(end) => {
                let end = crate::wire::without_own_keys(shape::unrelated(end));
                Outcome::Complete(shape::modern(task, "complete", id, Some(("result", end))))
            }
            None => Outcome::Complete(end),
        },
        Outcome::Error(end) => Outcome::Complete(shape::modern(task, "complete", id, Some(("error", end)))),
        other => other,
    }
}

/// A task of 2025-11-25 that asks this.
fn asking(task: Object<'_>, id: &str, requests: Json) -> Outcome {
    let task = shape::modern(task, "complete", id, None);
    let asking = task.value().as_object().map(|task| task.edited(&[Edit::Set("inputRequests", requests)]));
    Outcome::Complete(asking.unwrap_or(task))
}

/// A task of 2025-11-25 whose question waits for its answer.
fn asking_this(bearer: &Bearer, grant: &Grant, task: Object<'_>, id: &str, asked: &Json) -> Outcome {
    let requests = asked.value().as_object().and_then(|asked| asked.get("inputRequests"));
    match requests.map(|requests| questions(bearer, grant, requests)) {
        Some(Ok(requests)) => asking(task, id, requests),
        Some(Err(outcome)) => outcome,
        None => garbage("its task asked for nothing"),
    }
}

/// A task that asks nothing of whoever looks at it.
pub(super) fn working(task: &Json, id: &str) -> Outcome {
    let Some(object) = task.value().as_object() else { return garbage("its task is no object") };
    let working = object.edited(&[Edit::Set("status", Json::of("working"))]);
    let working = working.value().as_object().map(|task| shape::modern(task, "complete", id, None));
    Outcome::Complete(working.unwrap_or_else(|| task.clone()))
}

/// The task once more, after something else that waits for its result has heard what it asks.
async fn seen_again(bearer: &Bearer, id: &str) -> Outcome {
    let seen = |grant: &Grant, outcome: Outcome| match &outcome {
        Outcome::Complete(task) => match (task.value().as_object(), bearer.asked()) {
            (Some(object), Some((_, asked))) => asking_this(bearer, grant, object, id, &asked),
            // Somebody was quicker; whoever asks again hears more.
            _ => working(task, id),
        },
        _ => outcome,
    };
    bearer.ask_and("tasks/get", seen).await
}

/// What a task of 2025-11-25 asks, which its server says to whoever waits for the result. It waits on for the answer.
/// An answer that was given just now may leave something behind that waits as well, and which of the two hears more is
/// up to the server.
async fn found_out(bearer: &Bearer, task: &Json, id: &str) -> Outcome {
    let relay = |grant: &Grant, outcome: Outcome| match outcome {
        Outcome::InputRequired { result, resume, .. } => {
            input::relayed(&bearer.gateway, grant, bearer.asking(), &result, resume)
        }
        other => other,
    };
    let elsewhere = async { tokio::time::timeout(limit::TASK_QUESTION_WAIT, bearer.until_asked()).await.is_ok() };
    let waited = bearer.ask_until("tasks/result", elsewhere, relay).await;
    let Some(object) = task.value().as_object() else { return garbage("its task is no object") };
    match waited {
        Ok(Outcome::InputRequired { result, .. }) => {
            match result.value().as_object().and_then(|result| result.get("inputRequests")) {
                Some(requests) => asking(object, id, requests.to_json()),
                None => garbage("its task asked for nothing"),
            }
        }
        Ok(end) => ended_with(task, id, end),
        Err(true) => seen_again(bearer, id).await,
        // Whoever asks again may hear more.
        Err(false) => working(task, id),
    }
}
