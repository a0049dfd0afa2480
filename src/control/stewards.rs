//! The paths about mandates and agents: what each asks of the gateway, and how the answer is put.
//!
//! Decides what makes a sensible order, and how much it weighs: what opens, resumes or attests gives something, what
//! completes, suspends or retires takes something back. Refuses to know who gives it.

use axum::Json;
use axum::response::IntoResponse as _;

use super::desk::{Done, Order, Understood};
use super::governs::{AgentOrder, Attested, Step, Wish};
use super::handlers::{Taken, json};
use crate::gateway::ask;
use crate::ids::{AgentId, MandateId, ServerId};
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::policy::Weight;
use crate::record::redact;

/// `GET /mandates`.
pub(super) fn mandates(order: Order) -> Taken {
    let act = async move { Ok(Done::with(Json(order.operations.mandates().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /mandates/{id}`.
pub(super) fn mandate(order: Order) -> Taken {
    let id = id(&order)?;
    let about = id.to_string();
    let act = async move { Ok(Done::with(Json(order.operations.mandate(&id).await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `POST /mandates`.
pub(super) fn open(order: Order) -> Taken {
    let wish: Wish = json(&order)?;
    let template = wish.template.as_ref().map_or_else(|| "no template".to_owned(), ToString::to_string);
    let agent = wish.agent.as_ref().map_or_else(|| "nobody".to_owned(), ToString::to_string);
    let about = format!("a mandate of {template} for {agent}");
    let act = async move {
        let by = order.actor.of_token().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
        let opened = order.operations.open_mandate(by, &wish).await?;
        let detail = format!("mandate {}", opened.mandate.id);
        Ok(Done { detail, ..Done::with(Json(opened).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /mandates/{id}/complete`.
pub(super) fn complete(order: Order) -> Taken {
    let id = id(&order)?;
    let about = format!("mandate {id}");
    let act = async move {
        let status = order.operations.complete_mandate(&id, &order.actor.name()).await?;
        let calls: i64 = status.calls.iter().map(|(_, calls)| calls).sum();
        let detail = format!("completed after {calls} calls");
        Ok(Done { detail, ..Done::with(Json(status).into_response()) })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// `POST /agents/{agent}`.
pub(super) fn agent(order: Order) -> Taken {
    let AgentOrder { step, subject, note } = json(&order)?;
    let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let name = order.name.clone().unwrap_or_default();
    let agent = AgentId::new(&name).map_err(|error| invalid(error.to_string()))?;
    let subject = subject.as_deref().map(ask::subject).transpose().map_err(invalid)?;
    if subject.as_ref().is_some_and(|subject| !subject.as_str().starts_with("user:")) {
        return Err(invalid("name a person: user:ISSUER/SUB".to_owned()));
    }
    let note = fitting(&note)?;
    let (weight, word) = weighed(step);
    let whom = subject.as_ref().map(|subject| format!(" for {subject}")).unwrap_or_default();
    let about = format!("{word} agent {agent}{whom}");
    let act = async move {
        order.operations.step(&agent, subject.as_ref(), step, &order.actor.name(), &note).await?;
        Ok(Done::with(Json(serde_json::json!({ "agent": agent })).into_response()))
    };
    Ok(Understood { weight, about, act: Box::pin(act) })
}

/// `POST /servers/{server}`.
pub(super) fn server(order: Order) -> Taken {
    let AgentOrder { step, subject, note } = json(&order)?;
    let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let name = order.name.clone().unwrap_or_default();
    let server = ServerId::new(&name).map_err(|error| invalid(error.to_string()))?;
    if subject.is_some() {
        return Err(invalid("a server is suspended for everybody".to_owned()));
    }
    let note = fitting(&note)?;
    let (weight, word) = weighed(step);
    let about = format!("{word} server {server}");
    let act = async move {
        order.operations.step_server(&server, step, &order.actor.name(), &note).await?;
        Ok(Done::with(Json(serde_json::json!({ "server": server })).into_response()))
    };
    Ok(Understood { weight, about, act: Box::pin(act) })
}

const fn weighed(step: Step) -> (Weight, &'static str) {
    match step {
        Step::Suspend => (Weight::Brake, "suspend"),
        Step::Retire => (Weight::Brake, "retire"),
        Step::Resume => (Weight::Loosen, "resume"),
    }
}

fn fitting(note: &str) -> Result<String, Refusal> {
    if note.len() > limit::LIFECYCLE_NOTE_BYTES_MAX {
        let hint = format!("the note is longer than {} bytes", limit::LIFECYCLE_NOTE_BYTES_MAX);
        return Err(Refusal::new(Reason::ParametersInvalid).hint(hint));
    }
    Ok(redact::text(note).into_owned())
}

/// `POST /agents/{agent}/attest`.
pub(super) fn attest_agent(order: Order) -> Taken {
    attest(order, Attested::Agent, "agent")
}

/// `POST /servers/{server}/attest`.
pub(super) fn attest_server(order: Order) -> Taken {
    attest(order, Attested::Server, "server")
}

fn attest(order: Order, kind: Attested, word: &str) -> Taken {
    let name = order.name.clone().unwrap_or_default();
    let about = format!("attest {word} {name:.80}");
    let act = async move {
        let by = order.actor.of_token().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
        order.operations.attest(by, kind, &name).await?;
        Ok(Done::with(Json(serde_json::json!({ "attested": name })).into_response()))
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

fn id(order: &Order) -> Result<MandateId, Refusal> {
    let named = order.name.as_deref().unwrap_or_default();
    MandateId::new(named).map_err(|error| Refusal::new(Reason::ParametersInvalid).hint(error.to_string()))
}
