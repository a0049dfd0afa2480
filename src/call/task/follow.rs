//! Follows a task for a client that cannot: asks until it is over, tells of its state, delivers its end.
//!
//! Decides when to ask again and when waiting is over. Refuses to know transports. Invariant: it asks within
//! the time of the call and only while somebody waits; a task that nobody waits for any more is cancelled.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::super::Request;
use super::super::input::{self, Asking};
use super::leg::Bearer;
use super::shape::{self, Status};
use crate::catalog::{Target, TaskDialect};
use crate::delegate::Grant;
use crate::guard::Slot;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, Resume};
use crate::upstream::{Event, Exchange};
use crate::wire::{Json, Message, Object, Value};

/// A task that the gateway follows.
pub struct Followed {
    bearer: Bearer,
    target: Target,
    /// The client's own, if it wants to hear of progress.
    progress_token: Option<Json>,
    deadline: Instant,
    pause: Duration,
    /// How often it was asked, which is all the progress that there is.
    asked: u64,
    /// How many rounds of questions the call had before.
    round: u32,
}

/// What is known after a look at the task.
enum Seen {
    /// It goes on; what it says of itself.
    GoesOn(Option<String>),
    Over(Outcome),
    /// The process that had it is gone.
    Lost,
}

impl Followed {
    /// The task that a call just became, or goes on as.
    pub fn new(bearer: Bearer, target: &Target, request: &Request, round: u32, task: Option<Object<'_>>) -> Self {
        Self {
            bearer,
            target: target.clone(),
            progress_token: super::progress_token(request),
            deadline: Instant::now() + target.server().health.call_timeout,
            pause: task.map_or(limit::TASK_POLL_MIN, shape::pause),
            asked: 0,
            round,
        }
    }

    async fn run(mut self, sender: mpsc::Sender<Event>, cancelled: CancellationToken) {
        let slot = match self.bearer.gateway.quotas().task(self.bearer.caller.principal()) {
            Ok(slot) => slot,
            Err(refusal) => {
                self.bearer.ask("tasks/cancel").await;
                let _ = sender.send(Event::Done(refusal.into())).await;
                return;
            }
        };
        tokio::select! {
            biased;
            () = cancelled.cancelled() => {}
            outcome = self.until_over(&sender) => {
                let _ = sender.send(Event::Done(outcome)).await;
                return;
            }
        }
        self.give_up(slot).await;
    }

    /// Nobody waits for it any more.
    async fn give_up(self, _slot: Slot) {
        self.bearer.ask("tasks/cancel").await;
    }

    async fn until_over(&mut self, sender: &mpsc::Sender<Event>) -> Outcome {
        let mut decisions = self.bearer.gateway.decisions();
        let mut next = Instant::now() + self.pause;
        loop {
            if next >= self.deadline {
                self.bearer.ask("tasks/cancel").await;
                return Outcome::Failed(Failure::after(
                    Reason::UpstreamTimeout,
                    "its task took longer than a call may",
                ));
            }
            tokio::select! {
                () = tokio::time::sleep_until(next) => {}
                // What was taken back ends it now, and not when it is asked next; decisions of others do not put that off.
                Ok(()) = decisions.changed() => {
                    if let Some(reason) = self.taken_back() {
                        let detail = "access was taken back while its task was followed";
                        return Outcome::Failed(Failure::after(reason, detail));
                    }
                    continue;
                }
            }
            match self.look().await {
                Seen::Over(outcome) => {
                    // What may not be asked, and what cannot be read, leaves a task that nobody goes on with.
                    if matches!(outcome, Outcome::Failed(_) | Outcome::Refused(_)) {
                        self.bearer.ask("tasks/cancel").await;
                    }
                    return outcome;
                }
                // There is nothing to cancel.
                Seen::Lost => {
                    let detail = "the process that had its task is gone";
                    return Outcome::Failed(Failure::after(Reason::UpstreamClosed, detail));
                }
                Seen::GoesOn(state) => {
                    if let Some(message) = self.progress(state)
                        && sender.send(Event::Notification(message)).await.is_err()
                    {
                        // Nobody is there; whoever dropped the other end has us cancelled.
                        std::future::pending::<()>().await;
                    }
                }
            }
            next = Instant::now() + self.pause;
        }
    }

    /// Why its caller may not wait for it any more, or nobody may.
    fn taken_back(&self) -> Option<Reason> {
        let Bearer { gateway, caller, .. } = &self.bearer;
        if let Err(refusal) = gateway.still_trusted(caller) {
            return Some(refusal.reason);
        }
        if gateway.is_barred(self.target.server_id()) {
            return Some(Reason::ServerRevoked);
        }
        gateway.authorize_following(caller, self.target.clone()).err().map(|denied| denied.refusal.reason)
    }

    async fn look(&mut self) -> Seen {
        self.asked += 1;
        let (bearer, asking) = (&self.bearer, self.asking());
        match bearer.ask_and("tasks/get", |grant, outcome| asked(bearer, grant, asking, outcome)).await {
            Outcome::Complete(result) => self.read(&result).await,
            Outcome::Failed(failure) if is_passing(failure.reason) => self.try_later(),
            Outcome::Refused(refusal) if is_passing(refusal.reason) => self.try_later(),
            Outcome::Task(_) => Seen::Over(super::unoffered()),
            Outcome::Refused(refusal) if refusal.reason == Reason::TargetUnknown && self.bearer.is_lost() => Seen::Lost,
            outcome => Seen::Over(outcome),
        }
    }

    fn asking(&self) -> Asking<'_> {
        let used = self.bearer.used.as_deref();
        Asking { round: self.round, used, ..self.bearer.asking() }
    }

    fn try_later(&mut self) -> Seen {
        self.pause = (self.pause * 2).min(limit::TASK_POLL_MAX);
        Seen::GoesOn(None)
    }

    async fn read(&mut self, result: &Json) -> Seen {
        let garbage =
            |detail: &str| Seen::Over(Outcome::Failed(Failure::after(Reason::UpstreamGarbage, detail.to_owned())));
        let Some(task) = result.value().as_object() else { return garbage("its task is no object") };
        self.pause = shape::pause(task);
        let experiment = self.bearer.handle.dialect() == TaskDialect::Experiment;
        match Status::of(task) {
            None => garbage("its task has no status that is known"),
            Some(Status::Working) => {
                Seen::GoesOn(task.get("statusMessage").and_then(Value::as_str).map(std::borrow::Cow::into_owned))
            }
            // What it asks comes over the stream of its result.
            Some(Status::Completed | Status::Failed | Status::InputRequired) if experiment => {
                Seen::Over(self.result().await)
            }
            Some(Status::Completed) => match task.get("result").and_then(Value::as_object) {
                Some(result) => Seen::Over(Outcome::Complete(super::without_own(result))),
                None => garbage("its task is completed and has no result"),
            },
            Some(Status::Failed) => match task.get("error").and_then(Value::as_object) {
                Some(error) if error.get("code").and_then(Value::as_i64).is_some() => {
                    Seen::Over(Outcome::Error(error.edited(&[])))
                }
                _ => garbage("its task failed and has no error"),
            },
            Some(Status::Cancelled) => {
                Seen::Over(Outcome::Failed(Failure::after(Reason::Cancelled, "its task was cancelled")))
            }
            Some(Status::InputRequired) => garbage("its task asked for input and did not say which"),
        }
    }

    /// The result of a task of 2025-11-25, which is asked for by itself; or what it asks before.
    async fn result(&self) -> Outcome {
        let (bearer, asking) = (&self.bearer, self.asking());
        let question = |grant: &Grant, outcome| match outcome {
            Outcome::InputRequired { result, resume, .. } => {
                input::relayed(&bearer.gateway, grant, asking, &result, resume)
            }
            other => other,
        };
        match bearer.ask_and("tasks/result", question).await {
            Outcome::Complete(result) => match result.value().as_object() {
                Some(object) => Outcome::Complete(crate::wire::without_own_keys(shape::unrelated(object))),
                None => Outcome::Complete(result),
            },
            Outcome::Task(_) => super::unoffered(),
            other => other,
        }
    }

    /// What the client is told, if it wants to hear.
    fn progress(&self, state: Option<String>) -> Option<Message> {
        let token = self.progress_token.as_ref()?;
        let mut text = format!("{{\"progressToken\":{},\"progress\":{}", token.as_str(), self.asked);
        if let Some(state) = state {
            text.push_str(",\"message\":");
            text.push_str(Json::of(&state).as_str());
        }
        text.push('}');
        Some(Message::notification("notifications/progress", Some(&Json::joined(text))))
    }
}

/// What a task of the extension asks, as the client may be asked in the middle of its call: its state leads back
/// to the task.
fn asked(bearer: &Bearer, grant: &Grant, asking: Asking<'_>, outcome: Outcome) -> Outcome {
    let Outcome::Complete(result) = &outcome else { return outcome };
    let Some(task) = result.value().as_object() else { return outcome };
    let requests = task.get("inputRequests").and_then(Value::as_object);
    let (Some(Status::InputRequired), Some(requests)) = (Status::of(task), requests) else { return outcome };
    let state = match bearer.handle.seal(bearer.gateway.sealer(), &super::holder(&bearer.gateway, grant)) {
        Ok(state) => Json::of(&state),
        Err(failure) => return Outcome::Failed(failure),
    };
    let question = Json::joined(format!(
        "{{\"resultType\":\"input_required\",\"inputRequests\":{},\"requestState\":{}}}",
        requests.raw(),
        state.as_str()
    ));
    input::relayed(&bearer.gateway, grant, asking, &question, Resume::default())
}

/// Whether it may be otherwise next time.
const fn is_passing(reason: Reason) -> bool {
    matches!(
        reason,
        Reason::ConcurrencyLimited
            | Reason::UpstreamUnreachable
            | Reason::UpstreamBusy
            | Reason::UpstreamTimeout
            | Reason::UpstreamClosed
            | Reason::RecordUnavailable
    )
}

/// Follows a task; dropping what comes back gives it up.
pub fn follow(followed: Followed) -> Exchange {
    let (sender, receiver) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX);
    let cancelled = CancellationToken::new();
    let guard = cancelled.clone().drop_guard();
    tokio::spawn(followed.run(sender, cancelled));
    Exchange::streaming(receiver, guard)
}

/// An exchange that is one more question.
pub fn one(asking: impl Future<Output = Outcome> + Send + 'static) -> Exchange {
    Exchange::opening(Box::pin(async move { crate::upstream::exchange::Opened::Done(asking.await) }))
}
