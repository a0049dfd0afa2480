//! Calls that go on as tasks: how a task reaches its client, and how requests about it find their way back.
//!
//! Decides who follows a task: the client that declared the extension or asked for the task itself, else the
//! gateway, within the time of the call. Refuses to know transports. Invariant: no client sees an upstream's
//! own task id, and nobody but the caller whose call became it can use ours.

mod follow;
mod handle;
mod leg;
mod list;
mod listen;
mod mandated;
mod observe;
mod offer;
mod shape;
mod translate;

pub use list::Given;
use list::list;
pub use listen::TaskTopic;
pub use offer::{Augmented, check, is_declared, offered};

use std::sync::Arc;

use super::approval;
use super::bound;
use super::input::{self, Asking};
use super::retry::{self, Retry};
use super::{Halt, Request, Then, Trail, waiting};
use crate::catalog::TaskDialect;
use crate::delegate::{Grant, Leg};
use crate::gateway::Gateway;
use crate::identity::Caller;
use crate::outcome::{Failure, Outcome, Reason, Refusal, Resume};
use crate::record::Entry;
use crate::upstream::Exchange;
use crate::wire::mcp::{Era, Method, code, meta};
use crate::wire::voids::Holder;
use crate::wire::{Edit, Json, Message, Object, Value};
use follow::Followed;
pub use handle::Handle;
use leg::{Answered, Bearer, Question, Told};
use shape::Status;
use translate::translated;

/// What is done with the end of a leg.
pub enum After {
    /// It is the client's.
    Deliver(Outcome),
    /// It is recorded, and something else is asked before the client gets its end.
    GoOn(Outcome, Box<Exchange>),
}

/// The answer to a request about tasks that no server is asked by itself: a list of them, and what the gateway has as one.
pub async fn at_once(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, leg: &Leg) -> Option<Outcome> {
    if request.method == Method::TaskList {
        return Some(Box::pin(list(gateway, caller, request, leg)).await);
    }
    if !request.method.is_about_task() {
        return None;
    }
    waiting::about(gateway, caller, request).await
}

/// Opens a client's own request about a task.
pub async fn open(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    trail: &mut Trail,
) -> Result<(Entry<Grant>, Then, Exchange), Halt> {
    offer::check(&request.client)?;
    let (_, bearer) = read(gateway, caller, request)?;
    trail.leg.call = bearer.handle.call();
    trail.name = Some(bearer.handle.tool().to_owned());
    let own = request.message.params();
    // Servers of 2025-11-25 ask over the stream of the result, and take no answers by themselves.
    let by_result = request.method == Method::TaskUpdate && bearer.handle.dialect() == TaskDialect::Experiment;
    let told = match own.filter(|_| by_result) {
        Some(own) => {
            let told = bearer.asked().zip(retry::unasked(own)?);
            told.map(|((parked, asked), answers)| Told { parked, asked, answers })
        }
        None => None,
    };
    let method = if by_result && told.is_none() { "tasks/get".into() } else { request.message.method() };
    // Only a result is asked in the middle, on its way to a legacy client.
    let retry = match own.filter(|_| request.method == Method::TaskResult) {
        Some(own) => Retry::read(own, gateway.sealer(), caller.principal())?,
        None => None,
    };
    let answered = match (&retry, own) {
        (Some(retry), Some(own)) => Some(Answered { begun_with: "tasks/result", retry, answers: retry.answers(own)? }),
        _ => None,
    };
    let round = retry.as_ref().map_or(0, Retry::round);
    let (entry, exchange) = bearer.open(&Question { method: &method, own, answered, told }, trail).await?;
    approval::alarm(gateway, caller, entry.proof().target(), entry.call_id()).await;
    let asking = Asking { round, own_task: true, ..Asking::of(&bearer.client, &bearer.endpoint, bearer.declared()) };
    Ok((entry, Then { asking, ..Then::default() }, exchange))
}

/// Goes on with a task that the gateway follows, with what its user answered; nothing where the retry is of a
/// call that is no task.
pub async fn resume(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    answered: Option<(&Retry, &Json)>,
    trail: &mut Trail,
) -> Result<Option<(Entry<Grant>, Exchange)>, Halt> {
    let Some((retry, answers)) = answered else { return Ok(None) };
    let Some(bearer) = followed(gateway, caller, request, retry) else { return Ok(None) };
    "tasks/update".clone_into(&mut trail.leg.method);
    let answered = Some(Answered { begun_with: input::TASKS_BEGIN_WITH, retry, answers: answers.clone() });
    let question = Question { answered, ..Question::plain("tasks/update") };
    let (entry, exchange) = bearer.open(&question, trail).await?;
    approval::alarm(gateway, caller, entry.proof().target(), entry.call_id()).await;
    Ok(Some((entry, exchange)))
}

/// Stops the task that the gateway followed when its user was asked, who answers no more; nothing where the request is
/// of a call that is no task.
pub async fn give_up(gateway: &Arc<Gateway>, caller: &Caller, request: &Request) {
    let retry = request.message.params().map(|own| Retry::read_late(own, gateway.sealer(), caller.principal()));
    if let Some(Ok(Some(retry))) = retry
        && let Some(bearer) = followed(gateway, caller, request, &retry)
    {
        mandated::cancelled(&bearer).await;
    }
}

/// The task that the gateway followed when its user was asked.
fn followed(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, retry: &Retry) -> Option<Bearer> {
    let handle = Handle::open(gateway.sealer(), caller.principal(), retry.inner()?)?;
    let arguments = request.message.params().and_then(|params| params.get("arguments"));
    let arguments = arguments.filter(|arguments| !arguments.is_null()).map(|value| request.message.cut(value));
    let used = retry.used().map(str::to_owned);
    Some(Bearer { arguments, used, ..Bearer::new(gateway, caller, request, handle) })
}

/// What is done when a task that the gateway follows was given its answers.
fn updated(gateway: &Arc<Gateway>, grant: &Grant, request: &Request, then: Then, outcome: Outcome) -> After {
    let Outcome::Complete(_) = &outcome else { return After::Deliver(outcome) };
    let params = request.message.params();
    let retry = params.and_then(|own| Retry::read(own, gateway.sealer(), grant.principal()).ok().flatten());
    match retry.and_then(|retry| followed(gateway, grant.caller(), request, &retry)) {
        Some(bearer) => {
            let followed = Followed::new(bearer, grant.target(), request, then.asking.round, None);
            After::GoOn(outcome, Box::new(follow::follow(followed)))
        }
        None => After::Deliver(Refusal::new(Reason::InputExpired).into()),
    }
}

/// The task that a request is about, and the id as the client spells it.
fn read(gateway: &Arc<Gateway>, caller: &Caller, request: &Request) -> Result<(String, Bearer), Refusal> {
    let wrong = |hint: &'static str| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let params = request.message.params().ok_or_else(|| wrong("send params"))?;
    let id = params.get("taskId").and_then(Value::as_str).ok_or_else(|| wrong("send taskId, as a string"))?;
    let answers = params.get("inputResponses");
    if request.method == Method::TaskUpdate && answers.is_none_or(|answers| answers.as_object().is_none()) {
        return Err(wrong("send inputResponses, as an object"));
    }
    let handle = Handle::open(gateway.sealer(), caller.principal(), &id);
    // A legacy client speaks only of the tasks that it asked for itself.
    let legacy = request.client.version.era() == Era::Legacy;
    let handle = handle.filter(|handle| !legacy || handle.dialect() == TaskDialect::Experiment);
    let handle = handle.ok_or_else(|| Refusal::new(Reason::TargetUnknown))?;
    Ok((id.into_owned(), Bearer::new(gateway, caller, request, handle)))
}

/// What the end of a leg means, where tasks are concerned.
pub fn after(gateway: &Arc<Gateway>, grant: &Grant, request: &Request, then: Then, outcome: Outcome) -> After {
    let augmented = then.augmented;
    if then.resumed {
        return updated(gateway, grant, request, then, outcome);
    }
    if request.method.is_about_task() {
        return about(gateway, grant, request, outcome);
    }
    match outcome {
        Outcome::Task(result) if request.method == Method::CallTool => {
            became(gateway, grant, request, then, TaskDialect::Extension, &result)
        }
        Outcome::Task(_) => After::Deliver(unoffered()),
        Outcome::Complete(result) if augmented != Augmented::No => {
            let task = result.value().as_object().and_then(shape::created);
            match (task, augmented) {
                // It answered at once, which a client that asked for a task takes as well; or it is the end of
                // a task that had asked its user something.
                (None, _) => After::Deliver(Outcome::Complete(match result.value().as_object() {
                    Some(object) => shape::unrelated(object),
                    None => result,
                })),
                (Some(task), Augmented::ByClient) => {
                    After::Deliver(ended(asked_for(gateway, grant, request, then, (&result, task))))
                }
                (Some(task), _) => {
                    let task = shape::modern(task, "task", &shape::id(task).unwrap_or_default(), None);
                    became(gateway, grant, request, then, TaskDialect::Experiment, &task)
                }
            }
        }
        outcome => After::Deliver(outcome),
    }
}

/// A call that became a task, in the shape of the extension.
fn became(
    gateway: &Arc<Gateway>,
    grant: &Grant,
    request: &Request,
    then: Then,
    dialect: TaskDialect,
    task: &Json,
) -> After {
    let declared = offer::is_declared(&request.client);
    let offered = declared || dialect == TaskDialect::Experiment || request.client.version.era() == Era::Legacy;
    let Some(object) = task.value().as_object().filter(|_| offered) else { return After::Deliver(unoffered()) };
    let id = shape::id(object).unwrap_or_default();
    let home = bound::here(gateway, grant.target().server(), dialect == TaskDialect::Experiment);
    let handle = match Handle::new(grant.target(), grant.leg().call, dialect, &id, home) {
        Ok(handle) => handle.made_by(then.process).under(grant.mandate().map(|held| &held.mandate().id)),
        Err(failure) => return After::Deliver(Outcome::Failed(failure)),
    };
    if declared {
        mandated::watch(Bearer::new(gateway, grant.caller(), request, handle.clone()), grant);
        let sealed = handle.seal(gateway.sealer(), &holder(gateway, grant));
        return After::Deliver(ended(sealed.map(|id| Outcome::Task(shape::unasked(object, &id)))));
    }
    let recorded = Outcome::Task(task.clone());
    let arguments = grant.arguments().cloned();
    let used = grant.approval().map(|used| used.kept.id.clone());
    let bearer = Bearer { arguments, used, ..Bearer::new(gateway, grant.caller(), request, handle) };
    let followed = Followed::new(bearer, grant.target(), request, then.asking.round, Some(object));
    After::GoOn(recorded, Box::new(follow::follow(followed)))
}

/// Whom a handle that leads to the server of this call is sealed for.
fn holder(gateway: &Gateway, grant: &Grant) -> Holder {
    grant.caller().holder_at(&gateway.config(), grant.target().server())
}

/// The task that a legacy client asked for, under our id.
fn asked_for(
    gateway: &Arc<Gateway>,
    grant: &Grant,
    request: &Request,
    then: Then,
    (result, task): (&Json, Object<'_>),
) -> Result<Outcome, Failure> {
    let id = shape::id(task).unwrap_or_default();
    let home = bound::here(gateway, grant.target().server(), true);
    let handle = Handle::new(grant.target(), grant.leg().call, TaskDialect::Experiment, &id, home)?
        .made_by(then.process)
        .reported(grant.leg().leg, progress_token(request).filter(|_| then.asking.round == 0))
        .under(grant.mandate().map(|held| &held.mandate().id));
    let id = handle.seal(gateway.sealer(), &holder(gateway, grant))?;
    gateway.given_tasks().add(grant.principal(), &id, task);
    mandated::watch(Bearer::new(gateway, grant.caller(), request, handle), grant);
    let result = result.value().as_object().map(|all| all.edited(&[Edit::Set("task", shape::under(task, &id))]));
    result.map(Outcome::Complete).ok_or_else(|| Failure::after(Reason::UpstreamGarbage, "its result is no object"))
}

/// The answer to a request about a task.
fn about(gateway: &Arc<Gateway>, grant: &Grant, request: &Request, outcome: Outcome) -> After {
    let Ok((id, bearer)) = read(gateway, grant.caller(), request) else { return After::Deliver(outcome) };
    let experiment = bearer.handle.dialect() == TaskDialect::Experiment;
    match outcome {
        // The caller of this looks at what is asked.
        Outcome::InputRequired { .. } if request.method == Method::TaskResult => After::Deliver(outcome),
        Outcome::Task(_) | Outcome::InputRequired { .. } => After::Deliver(unoffered()),
        Outcome::Complete(result) if experiment && request.client.version.era() == Era::Modern => {
            translated(id, bearer, grant, request.method, result)
        }
        Outcome::Complete(result) => {
            let Some(object) = result.value().as_object() else { return After::Deliver(Outcome::Complete(result)) };
            After::Deliver(match request.method {
                Method::TaskResult => Outcome::Complete(shape::related_to(object, &id)),
                Method::TaskGet if !experiment => detailed(&bearer, grant, object, &id),
                _ if object.get("taskId").is_some() => Outcome::Complete(shape::unasked(object, &id)),
                _ => Outcome::Complete(object.edited(&shape::QUESTIONS)),
            })
        }
        // To cancel what is over is an error there and none here; whether it is over is asked.
        Outcome::Error(error) if experiment && request.method == Method::TaskCancel && is_wrong(&error) => {
            let recorded = Outcome::Error(error.clone());
            let asking = async move {
                match bearer.ask("tasks/get").await {
                    Outcome::Complete(_) => acknowledged(),
                    _ => Outcome::Error(error),
                }
            };
            After::GoOn(recorded, Box::new(follow::one(asking)))
        }
        outcome => After::Deliver(outcome),
    }
}

/// A task of the extension as its client may see it: what it asks is decided as in the middle of a call.
fn detailed(bearer: &Bearer, grant: &Grant, task: Object<'_>, id: &str) -> Outcome {
    match task.get("inputRequests").filter(|requests| !requests.is_null()) {
        None => shown(task, id, None),
        Some(requests) => match questions(bearer, grant, requests) {
            Ok(requests) => shown(task, id, Some(requests)),
            Err(outcome) => outcome,
        },
    }
}

/// A task of the extension under the client's id, with what it asks or without.
fn shown(task: Object<'_>, id: &str, requests: Option<Json>) -> Outcome {
    if Status::of(task).is_none() {
        return garbage("its task has no status that is known");
    }
    let requests = requests.map_or(Edit::Remove("inputRequests"), |requests| Edit::Set("inputRequests", requests));
    let mut edits = vec![Edit::Set("taskId", Json::of(id)), Edit::Remove("requestState"), requests];
    if let Some(result) = task.get("result").and_then(Value::as_object) {
        edits.push(Edit::Set("result", without_own(result)));
    }
    Outcome::Complete(task.edited(&edits))
}

/// The questions of a task as the client may see them, or why it may not.
fn questions(bearer: &Bearer, grant: &Grant, requests: Value<'_>) -> Result<Json, Outcome> {
    let asked = Json::joined(format!("{{\"inputRequests\":{}}}", requests.raw()));
    match input::relayed(&bearer.gateway, grant, bearer.asking(), &asked, Resume::default()) {
        Outcome::InputRequired { result, .. } => {
            let requests = result.value().as_object().and_then(|result| result.get("inputRequests"));
            requests.map(Value::to_json).ok_or_else(|| garbage("its task asked for nothing"))
        }
        outcome => Err(outcome),
    }
}

fn garbage(detail: &str) -> Outcome {
    Outcome::Failed(Failure::after(Reason::UpstreamGarbage, detail))
}

fn without_own(result: Object<'_>) -> Json {
    crate::wire::without_own_keys(result.edited(&[]))
}

fn acknowledged() -> Outcome {
    Outcome::Complete(Json::of(&serde_json::json!({ "resultType": "complete" })))
}

fn unoffered() -> Outcome {
    let detail = "it answered with a task that nobody offered to follow";
    Outcome::Failed(Failure::after(Reason::UpstreamGarbage, detail))
}

fn is_wrong(error: &Json) -> bool {
    let number = error.value().as_object().and_then(|error| error.get("code")).and_then(Value::as_i64);
    number == Some(i64::from(code::INVALID_PARAMS))
}

fn ended(outcome: Result<Outcome, Failure>) -> Outcome {
    outcome.unwrap_or_else(Outcome::Failed)
}

/// The client's own progress token.
fn progress_token(request: &Request) -> Option<Json> {
    let own = request.message.params()?.get("_meta")?.as_object()?;
    own.get(meta::PROGRESS_TOKEN).filter(|token| !token.is_null()).map(|token| request.message.cut(token))
}

/// The notification without the task that it belongs to, which goes by its server's own id there.
pub fn without_id(message: Message) -> Message {
    let params = message.params();
    let own = params.and_then(|params| params.get("_meta")).and_then(Value::as_object);
    let (Some(params), Some(own)) = (params, own.filter(|own| own.get(meta::RELATED_TASK).is_some())) else {
        return message;
    };
    let own = own.edited(&[Edit::Remove(meta::RELATED_TASK)]);
    Message::notification(&message.method(), Some(&params.edited(&[Edit::Set("_meta", own)])))
}

/// What a client is told of what its call's server said: nothing that names a task by its server's own id. A legacy client
/// that waits for the result of a task hears of that one; whoever else wants to hear of tasks listens, or has a stream of
/// its session.
pub fn told(gateway: &Gateway, caller: Option<&Caller>, request: &Request, message: Message) -> Option<Message> {
    if !message.method().starts_with("notifications/tasks") {
        return Some(without_id(message));
    }
    let told = message.params().filter(|_| message.method() == meta::TASK_STATUS)?;
    let id =
        request.message.params().filter(|_| request.client.version.era() == Era::Legacy)?.get("taskId")?.as_str()?;
    let handle = Handle::open(gateway.sealer(), caller?.principal(), &id)?;
    let is_it = shape::id(told).as_deref() == Some(handle.task());
    is_it.then(|| without_id(Message::notification(meta::TASK_STATUS, Some(&shape::unasked(told, &id)))))
}

#[cfg(test)]
mod tests {
    use crate::wire::{Message, Source};

    #[test]
    fn no_notification_names_a_task_by_its_servers_own_id() {
        let told = |text: &str| super::without_id(Message::parse(text, Source::Upstream).unwrap()).as_bytes().clone();
        let plain = r#"{"jsonrpc":"2.0","method":"m","params":{"x":1.50,"_meta":{"a":1}}}"#;
        assert_eq!(told(plain), plain);
        let related = plain.replace(r#""a":1"#, r#""a":1,"io.modelcontextprotocol/related-task":{"taskId":"inner"}"#);
        assert_eq!(told(&related), plain);
        let bare = r#"{"jsonrpc":"2.0","method":"m"}"#;
        assert_eq!(told(bare), bare);
    }
}
