//! The gateway's own tasks: a call that waits for an approval, for a client that follows tasks.
//!
//! Decides what such a task is when it is asked about. The call itself is made when its client asks for the first time
//! after the approval, with the identity that asks then, and decided in full like every other; its end is kept until the
//! task is over and given out where its tool may still be called. Invariants: a task belongs to the principal whose call it is; of two who ask at once one makes the
//! call; what is kept of it is sealed.

mod end;
mod given;
mod run;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::{Halt, Request, Trail, breaker, task};
use crate::delegate::{Leg, attempt, server_revision};
use crate::gateway::Gateway;
use crate::guard::approval::{Kept, State};
use crate::guard::mandate::Held;
use crate::identity::Caller;
use crate::ids::{Digest, Endpoint, MandateId, PrincipalKey, ServerId};
use crate::limit;
use crate::outcome::{Failure, Outcome, Pending, Reason, Refusal, Stop, reply};
use crate::shelf::{Action, Change, Expect, Section, Shelf as _, Tell, Version};
use crate::telemetry::Trace;
use crate::wire::mcp::{Era, Method};
use crate::wire::{Edit, Json, Kind, Value};
use run::{Called, Making, Run};

/// Tasks, and the calls that they are.
const TASKS: Section = Section { name: "approval-task", rows_max: limit::APPROVALS_KEPT_MAX };

const ID: &str = "own-task";
const CONTENT: &str = "own-task-content";

/// One task, as it is kept.
#[derive(Clone, Serialize, Deserialize)]
struct Own {
    approval: String,
    created_at: jiff::Timestamp,
    /// When it is over, microseconds since 1970 by the store's clock.
    until_us: i64,
    /// What is called, sealed; nothing once that was done.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    call: String,
    place: Place,
    stage: Stage,
}

/// What a task calls, and from where: its end is given out where that may still be called.
#[derive(Clone, Serialize, Deserialize)]
struct Place {
    /// The server at whose endpoint it was asked; nothing at the one that has all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    endpoint: Option<ServerId>,
    server: ServerId,
    /// Where that server is and with whose credential it is called, as it was then.
    revision: Digest,
    tool: String,
    /// The mandate that it is part of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    mandate: Option<MandateId>,
}

#[derive(Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Stage {
    /// For the approval.
    Waits,
    /// The call is made.
    Called(Making),
    /// It has ended, and that is in so many pieces.
    Ended(usize),
    /// Its client wants it no more.
    Cancelled,
}

/// What a task calls.
#[derive(Serialize, Deserialize)]
struct Wanted {
    params: String,
    parameters: Vec<(String, String)>,
}

/// A task in the place of a call that waits for an approval; nothing where this client follows none.
pub async fn created(
    gateway: &Gateway,
    caller: &Caller,
    request: &Request,
    trail: &Trail,
    pending: &Pending,
) -> Option<Outcome> {
    if request.method != Method::CallTool || !task::is_declared(&request.client) {
        return None;
    }
    // A state is good for one round, and this is none.
    let gone = [Edit::Remove("requestState"), Edit::Remove("inputResponses")];
    let params = request.message.params()?.edited(&gone).as_str().to_owned();
    let endpoint = match &request.endpoint {
        Endpoint::Merged => None,
        Endpoint::Server(server) => Some(server.clone()),
    };
    let target = trail.target.as_ref()?;
    let place = Place {
        endpoint,
        server: target.server_id().clone(),
        revision: server_revision(target.server()),
        tool: target.name().to_owned(),
        mandate: trail.mandate.as_ref().map(|held| held.mandate().id.clone()),
    };
    let wanted = Wanted { params, parameters: request.header_parameters.clone() };
    let principal = caller.principal();
    let call = gateway.sealer().seal(CONTENT, principal, &serde_json::to_vec(&wanted).ok()?).ok()?;
    let store = gateway.store();
    let now_us = store.clock_us().await.ok()?;
    let until_us = pending.expires_at.as_microsecond().saturating_add(limit::APPROVAL_TASK_KEPT_FOR_US);
    let created_at = jiff::Timestamp::from_microsecond(now_us).ok()?;
    let own = Own { approval: pending.approval.clone(), created_at, until_us, call, place, stage: Stage::Waits };
    let owner = principal.0.to_string();
    let body = serde_json::to_string(&own).ok().filter(|body| body.len() <= limit::SHELF_BODY_BYTES_MAX)?;
    // Whoever asks again and again without following is told otherwise.
    let others = store.rows(TASKS, Some(&owner), None).await.ok()?;
    if others.len() >= limit::APPROVAL_TASKS_PER_PRINCIPAL_MAX {
        return None;
    }
    let key = ulid::Ulid::generate().to_string();
    let put = Action::Put { owner, body, expires_at_us: Some(until_us) };
    let change = Change::new(TASKS, key.clone(), Expect::Absent, put);
    if !store.change(vec![change], Tell::Nobody).await.ok()?.is_done() {
        return None;
    }
    let holder = caller.holder_at(&gateway.config(), target.server());
    let id = gateway.sealer().seal_for(ID, &holder, key.as_bytes()).ok()?;
    let mut shown = told(&own, &id, "working", Some("waits for somebody's approval"));
    shown.insert("resultType".to_owned(), json!("task"));
    Some(Outcome::Task(Json::of(&shown)))
}

/// The answer to a request about one of the gateway's own tasks; nothing where it is about another.
pub fn about<'a>(
    gateway: &'a Arc<Gateway>,
    caller: &'a Caller,
    request: &'a Request,
) -> BoxFuture<'a, Option<Outcome>> {
    // A call may be made on the way, which is what this is part of: its size has to be known.
    Box::pin(async move {
        let id = request.message.params()?.get("taskId").and_then(Value::as_str)?.into_owned();
        let key = gateway.sealer().open(ID, caller.principal(), &id)?;
        let key = String::from_utf8(key).ok()?;
        let mut trail = Trail {
            leg: Leg::new(&request.message.method(), request.client.version).through(request.via),
            target: None,
            name: None,
            mandate: None,
            trace: Trace::off(),
            again: false,
        };
        let answered = answered(gateway, caller, request, (&id, &key), &mut trail).await;
        Some(answered.unwrap_or_else(|halt| {
            let mut attempt = attempt(caller, &trail.leg, trail.target.as_ref(), trail.name.as_deref());
            attempt.mandate = trail.mandate.as_ref().map(Held::facts);
            gateway.journal().stopped(&attempt, &halt.recorded);
            breaker::stopped(gateway, caller, trail.mandate.as_ref(), &halt.recorded);
            halt.told.into()
        }))
    })
}

async fn answered(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    (id, key): (&str, &str),
    trail: &mut Trail,
) -> Result<Outcome, Halt> {
    gateway.quotas().request(caller.principal())?;
    gateway.still_heard(caller)?;
    task::check(&request.client)?;
    let unknown = || Stop::from(Refusal::new(Reason::TargetUnknown));
    let row = gateway.store().row(TASKS, key).await?.ok_or_else(unknown)?;
    let own: Own = serde_json::from_str(&row.body)
        .map_err(|error| Failure::before(Reason::StoreUnavailable, format!("a task is unreadable: {error}")))?;
    trail.name = Some(own.place.tool.clone());
    if own.place.endpoint.clone().map_or(Endpoint::Merged, Endpoint::Server) != request.endpoint {
        return Err(unknown().into());
    }
    match request.method {
        Method::TaskGet => match own.stage {
            Stage::Ended(pieces) => given::ended(gateway, caller, request, (id, key), (&own, pieces), trail).await,
            _ => Ok(get(gateway, caller, request, Task { id, key, own, version: row.version }).await?),
        },
        Method::TaskCancel => Ok(cancel(gateway, caller, key, own, row.version).await?),
        // It asks nothing.
        Method::TaskUpdate => Ok(Outcome::Complete(Json::of(&json!({ "resultType": "complete" })))),
        _ => Err(unknown().into()),
    }
}

struct Task<'a> {
    id: &'a str,
    key: &'a str,
    own: Own,
    version: Version,
}

async fn get(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, task: Task<'_>) -> Result<Outcome, Stop> {
    let Task { id, key, mut own, version } = task;
    let refused = |own: &Own, reason: Reason| {
        let outcome = Outcome::from(Refusal::new(reason));
        shown(own, id, &end_of(&outcome))
    };
    match own.stage.clone() {
        Stage::Cancelled => Ok(complete(told(&own, id, "cancelled", None))),
        // What it came to is given out elsewhere, as what comes of a call.
        Stage::Ended(_) => Ok(complete(told(&own, id, "working", None))),
        Stage::Called(making) => {
            let here = making.replica == gateway.standing().replica().to_string();
            let goes_on =
                if here { run::goes_on(&making) } else { gateway.store().clock_us().await? < making.believed_until_us };
            // What has ended between the two looks is told when it is asked for again.
            if goes_on || !run::is_called(gateway, key).await? {
                return Ok(complete(told(&own, id, "working", None)));
            }
            // Whoever made the call is gone, and it is never made again.
            let gone = Outcome::Failed(Failure::after(Reason::ReplicaLost, "whoever made the call is gone"));
            Ok(shown(&own, id, &end_of(&gone)))
        }
        Stage::Waits => match gateway.guard().approvals().named(&own.approval, &gateway.snapshot().written).await {
            Err(stop) if stop.reason() == Reason::TargetUnknown => Ok(refused(&own, Reason::ApprovalOver)),
            Err(stop) => Err(stop),
            Ok((kept, now_us)) => match kept.state(now_us) {
                State::Pending => Ok(complete(told(&own, id, "working", Some(&waiting(&kept))))),
                State::Denied => Ok(refused(&own, Reason::ApprovalDenied)),
                State::Consumed => Ok(refused(&own, Reason::ApprovalConsumed)),
                State::Withdrawn => Ok(refused(&own, Reason::ApprovalVoid)),
                State::Expired => Ok(refused(&own, Reason::ApprovalOver)),
                State::Approved => {
                    let wanted = gateway.sealer().open_within(CONTENT, caller.principal(), &own.call, usize::MAX);
                    let wanted = wanted.and_then(|wanted| serde_json::from_slice::<Wanted>(&wanted).ok());
                    let Some(wanted) = wanted else { return Ok(refused(&own, Reason::ApprovalOver)) };
                    let Some(made) = run::made(gateway, caller, request, &own.place, wanted).await? else {
                        return Ok(refused(&own, Reason::ApprovalOver));
                    };
                    let run = Run::begin();
                    let waits = own.clone();
                    own.call.clear();
                    own.stage = Stage::Called(Making::of(gateway, &run, now_us));
                    let put = put(&own, caller.principal(), key, Expect::Version(version));
                    if !gateway.store().change(vec![put], Tell::Nobody).await?.is_done() {
                        // Somebody else has just asked the same.
                        return Ok(complete(told(&own, id, "working", None)));
                    }
                    let task = Called { key: key.to_owned(), run, waits, own };
                    Ok(run::on(gateway, caller, made, id, task).await)
                }
            },
        },
    }
}

/// How a call ended: `result` or `error`, and that.
fn end_of(outcome: &Outcome) -> (String, String) {
    let reply = reply::reply(outcome, &Json::of(&1), Method::CallTool, Era::Modern);
    let body = reply.message.body().unwrap_or_else(|| Json::of(&serde_json::Map::new()));
    let member = if reply.message.kind() == Kind::Error { "error" } else { "result" };
    (member.to_owned(), body.as_str().to_owned())
}

async fn cancel(
    gateway: &Gateway,
    caller: &Caller,
    key: &str,
    mut own: Own,
    version: Version,
) -> Result<Outcome, Stop> {
    if matches!(own.stage, Stage::Waits) {
        own.stage = Stage::Cancelled;
        own.call.clear();
        let put = put(&own, caller.principal(), key, Expect::Version(version));
        let is_cancelled = gateway.store().change(vec![put], Tell::Nobody).await?.is_done();
        // The same call may wait as another task, which goes on.
        if is_cancelled && !waits_elsewhere(gateway, caller.principal(), &own.approval).await? {
            // What is over already needs no word more.
            let _over = gateway.guard().approvals().withdraw(&own.approval, &gateway.snapshot().written).await;
        }
    }
    Ok(Outcome::Complete(Json::of(&json!({ "resultType": "complete" }))))
}

/// Whether another task of a principal waits for the same request.
async fn waits_elsewhere(gateway: &Gateway, principal: PrincipalKey, approval: &str) -> Result<bool, Failure> {
    let tasks = gateway.store().rows(TASKS, Some(&principal.0.to_string()), None).await?;
    let mut tasks = tasks.iter().filter_map(|row| serde_json::from_str::<Own>(&row.body).ok());
    Ok(tasks.any(|own| matches!(own.stage, Stage::Waits) && own.approval == approval))
}

fn put(own: &Own, principal: PrincipalKey, key: &str, expect: Expect) -> Change {
    let body = serde_json::to_string(own).unwrap_or_default();
    let put = Action::Put { owner: principal.0.to_string(), body, expires_at_us: Some(own.until_us) };
    Change::new(TASKS, key, expect, put)
}

fn waiting(kept: &Kept) -> String {
    match kept.decisions.len() {
        0 => "waits for somebody's approval".to_owned(),
        count => format!("waits for somebody's approval; {count} approved so far"),
    }
}

/// What every state of a task says.
fn told(own: &Own, id: &str, status: &str, message: Option<&str>) -> serde_json::Map<String, serde_json::Value> {
    let created_us = own.created_at.as_microsecond();
    let mut task = serde_json::Map::new();
    task.insert("taskId".to_owned(), json!(id));
    task.insert("status".to_owned(), json!(status));
    task.insert("createdAt".to_owned(), json!(own.created_at.to_string()));
    task.insert("lastUpdatedAt".to_owned(), json!(own.created_at.to_string()));
    task.insert("ttlMs".to_owned(), json!(own.until_us.saturating_sub(created_us) / 1_000));
    task.insert("pollIntervalMs".to_owned(), json!(limit::APPROVAL_TASK_POLL_MS));
    if let Some(message) = message {
        task.insert("statusMessage".to_owned(), json!(message));
    }
    task
}

fn complete(mut task: serde_json::Map<String, serde_json::Value>) -> Outcome {
    task.insert("resultType".to_owned(), json!("complete"));
    Outcome::Complete(Json::of(&task))
}

/// A task with its end: an error of the protocol is a failure, a tool's own is a result.
fn shown(own: &Own, id: &str, (member, end): &(String, String)) -> Outcome {
    let status = if member == "error" { "failed" } else { "completed" };
    let mut task = told(own, id, status, None);
    task.insert("resultType".to_owned(), json!("complete"));
    let task = Json::of(&task);
    let end = Json::joined(end.clone());
    let with = task.value().as_object().map(|task| task.edited(&[Edit::Set(member, end)]));
    Outcome::Complete(with.unwrap_or(task))
}
