//! Making the call of a task whose approval has come.
//!
//! Decides who makes it, and whether it still goes on. Refuses to know how its end is kept. Invariant: a call that was begun
//! is never made again by its task: a process that was started anew knows nothing of the runs of the one before it, and
//! says so.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

use super::end::keep;
use super::{Own, Place, Stage, TASKS, Wanted, complete, end_of, put, shown, told};
use crate::call::{Request, call};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::ids::{MandateId, PrincipalKey};
use crate::limit;
use crate::outcome::{Failure, Outcome, Pending, Reason, Refusal, Stop};
use crate::shelf::{Expect, Shelf as _, Tell};
use crate::upstream::Event;
use crate::wire::mcp::Method;
use crate::wire::{Json, Message, Source};

/// Who makes a call.
#[derive(Clone, Serialize, Deserialize)]
pub(super) struct Making {
    pub replica: String,
    /// One run of one call: a process that was started anew does not know those of the one before it.
    pub run: String,
    /// Until when others believe that it goes on, microseconds since 1970 by the store's clock.
    pub believed_until_us: i64,
}

/// The runs that this process makes.
static RUNS: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// One of them; however it ends, it is none any more when this is dropped.
pub(super) struct Run(String);

impl Run {
    pub fn begin() -> Self {
        let run = ulid::Ulid::generate().to_string();
        runs().insert(run.clone());
        Self(run)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        runs().remove(&self.0);
    }
}

impl Making {
    pub fn of(gateway: &Gateway, run: &Run, now_us: i64) -> Self {
        Self {
            replica: gateway.standing().replica().to_string(),
            run: run.0.clone(),
            believed_until_us: now_us.saturating_add(limit::APPROVAL_TASK_BELIEVED_FOR_US),
        }
    }
}

/// Whether this process makes a call.
pub(super) fn goes_on(making: &Making) -> bool {
    runs().contains(&making.run)
}

/// Whether a task still says that its call is made.
pub(super) async fn is_called(gateway: &Gateway, key: &str) -> Result<bool, Failure> {
    let row = gateway.store().row(TASKS, key).await?;
    let own = row.and_then(|row| serde_json::from_str::<Own>(&row.body).ok());
    Ok(own.is_some_and(|own| matches!(own.stage, Stage::Called(_))))
}

fn runs() -> MutexGuard<'static, HashSet<String>> {
    RUNS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task whose call is made.
pub(super) struct Called {
    pub key: String,
    pub run: Run,
    /// As it was while it waited, where it has to wait again.
    pub waits: Own,
    pub own: Own,
}

/// Makes the call, and keeps how it ended; whoever asks is told if that is soon.
pub(super) async fn on(gateway: &Arc<Gateway>, caller: &Caller, made: Request, id: &str, task: Called) -> Outcome {
    let (gateway, caller, told_of) = (Arc::clone(gateway), caller.clone(), task.own.clone());
    // Whoever asked may be gone before it ends.
    let running = tokio::spawn(async move {
        let mut running = call(&gateway, &caller, Box::new(made)).await;
        let after = limit::APPROVAL_TASK_RENEWED_AFTER;
        let mut renewing = tokio::time::interval_at(tokio::time::Instant::now() + after, after);
        let outcome = loop {
            tokio::select! {
                event = running.next() => if let Event::Done(outcome) = event {
                    break outcome;
                },
                _ = renewing.tick() => renew(&gateway, caller.principal(), &task).await,
            }
        };
        if let Outcome::Refused(refusal) = &outcome
            && let Some(pending) = refusal.pending.as_deref()
            && wait_again(&gateway, caller.principal(), &task, pending).await
        {
            return None;
        }
        let end = end_of(&outcome);
        keep(&gateway, caller.principal(), &task.key, task.own, &end).await;
        // Only now: whoever asks meanwhile sees a call that goes on, or its end.
        drop(task.run);
        Some(end)
    });
    match tokio::time::timeout(limit::APPROVAL_TASK_WAIT, running).await {
        Ok(Ok(Some(end))) => shown(&told_of, id, &end),
        Ok(Ok(None)) => complete(told(&told_of, id, "working", Some("waits for somebody's approval again"))),
        Ok(Err(error)) => Outcome::Failed(Failure::after(Reason::Internal, error.to_string())),
        Err(_) => complete(told(&told_of, id, "working", None)),
    }
}

/// Has others believe for longer that the call goes on.
async fn renew(gateway: &Gateway, principal: PrincipalKey, task: &Called) {
    let renewed = async {
        let now_us = gateway.store().clock_us().await?;
        let own = Own { stage: Stage::Called(Making::of(gateway, &task.run, now_us)), ..task.own.clone() };
        gateway.store().change(vec![put(&own, principal, &task.key, Expect::Anything)], Tell::Nobody).await
    };
    if let Err(failure) = renewed.await {
        tracing::warn!(%failure, "other replicas are not told that the call of a task goes on");
    }
}

/// Has a task wait again whose approval was not enough any more when it was used; whether it does.
async fn wait_again(gateway: &Gateway, principal: PrincipalKey, task: &Called, pending: &Pending) -> bool {
    let mut own = task.waits.clone();
    own.approval.clone_from(&pending.approval);
    let until_us = pending.expires_at.as_microsecond().saturating_add(limit::APPROVAL_TASK_KEPT_FOR_US);
    own.until_us = own.until_us.max(until_us);
    let put = put(&own, principal, &task.key, Expect::Anything);
    matches!(gateway.store().change(vec![put], Tell::Nobody).await, Ok(changed) if changed.is_done())
}

/// The call that is made: as it was asked, by whoever asks about the task. It can ask its user nothing: nobody listens.
/// Nothing where it cannot be read any more.
///
/// # Errors
/// `mandate_unknown` with another mandate.
pub(super) async fn made(
    gateway: &Gateway,
    caller: &Caller,
    request: &Request,
    place: &Place,
    wanted: Wanted,
) -> Result<Option<Request>, Stop> {
    if request.mandate.is_some() {
        let bound = place.mandate.as_ref();
        let held = gateway.mandate(caller, request.mandate.as_deref(), bound).await?;
        if held.map(|held| held.mandate().id.clone()) != place.mandate {
            return Err(Refusal::new(Reason::MandateUnknown).into());
        }
    }
    let handle = |id: &MandateId| gateway.mandate_handle(caller.principal(), id);
    let mandate = place.mandate.as_ref().map(handle).transpose()?;
    let Ok(params) = Json::parse(wanted.params, Source::Client) else { return Ok(None) };
    let message = Message::request(&Json::of(&1), "tools/call", &params);
    let mut client = request.client.clone();
    client.capabilities = Json::of(&serde_json::Map::new());
    let header_parameters = wanted.parameters;
    let request = Request { message, client, header_parameters, mandate, ..request.clone() };
    Ok(Some(Request { method: Method::CallTool, ..request }))
}
