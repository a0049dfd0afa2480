//! What each path of the API asks of the gateway, and how the answer is put.
//!
//! Decides what makes a sensible order. Refuses to know who gives it: by the time one of these runs, the rules have
//! allowed its operation.

use axum::Json;
use axum::response::IntoResponse as _;
use http::{StatusCode, header};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::desk::{Done, Order, REFUSED, Understood};
use super::operations::{HeldRevocations, LiftOrder, Lifted, Lifting, RevocationOrder, Revoked, noted};
use super::standing;
use crate::gateway::ReloadOrder;
use crate::gateway::ask::{self, Question};
use crate::ids::RevocationEpoch;
use crate::outcome::{Failure, Reason, Refusal};
use crate::policy::{Asker, Weight};
use crate::record::metrics;

pub(super) type Taken = Result<Understood, Refusal>;

/// `GET /status`.
pub(super) fn status(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.status().await).into_response()) })
}

/// `GET /readyz`.
pub(super) fn ready(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("readiness", async move {
        let readiness = operations.ready().await;
        let status = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        Done::with((status, Json(readiness)).into_response())
    })
}

/// `GET /servers`.
pub(super) fn servers(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.servers()).into_response()) })
}

/// `GET /agents`.
pub(super) fn agents(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.agents()).into_response()) })
}

/// `GET /agents/proposed`.
pub(super) fn proposed_agents(order: Order) -> Taken {
    let Order { operations, .. } = order;
    let act = async move {
        let proposed = operations.proposed_agents().await?;
        Ok(Done::with(Json(proposed).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /policy`.
pub(super) fn policy(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.policy()).into_response()) })
}

/// `GET /metrics`.
pub(super) fn metrics(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move {
        Done::with(([(header::CONTENT_TYPE, metrics::CONTENT_TYPE)], operations.metrics()).into_response())
    })
}

/// `GET /shadow`.
pub(super) fn shadow(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.shadow()).into_response()) })
}

/// `GET /credentials`.
pub(super) fn credentials(order: Order) -> Taken {
    let Order { operations, .. } = order;
    let act = async move { Ok(Done::with(Json(operations.credentials().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /secrets`.
pub(super) fn secrets(order: Order) -> Taken {
    let Order { operations, .. } = order;
    look("", async move { Done::with(Json(operations.secrets().await).into_response()) })
}

/// `GET /revocations`.
pub(super) fn revocations(order: Order) -> Taken {
    let Order { operations, .. } = order;
    let act = async move {
        let (epoch, held) = operations.revocations().await?;
        Ok(Done::with(Json(HeldRevocations::new(epoch, &held)).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `POST /revoke`.
pub(super) fn revoke(order: Order) -> Taken {
    let asked: RevocationOrder = json(&order)?;
    let about = asked.about();
    let invalid = |mistake: String| Refusal::new(Reason::ParametersInvalid).hint(mistake);
    // Whether it can be ordered does not depend on when.
    asked.at(&order.actor.name(), 0).map_err(invalid)?;
    let act = async move {
        let now = order.operations.now_s().await?;
        let revocation = asked.at(&order.actor.name(), now).map_err(invalid)?;
        let revoked: Revoked = order.operations.revoke(revocation).await?;
        let detail = format!("epoch {}", revoked.epoch.0);
        Ok(Done { detail, ..Done::with(Json(revoked).into_response()) })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// `POST /revocations/reach`: what a revocation would stop; nothing is taken back.
pub(super) fn reach(order: Order) -> Taken {
    let asked: RevocationOrder = json(&order)?;
    // What it names does not depend on when.
    let revocation =
        asked.at(&order.actor.name(), 0).map_err(|mistake| Refusal::new(Reason::ParametersInvalid).hint(mistake))?;
    let about = format!("what would be stopped by {}", asked.about());
    look(&about, async move { Done::with(Json(order.operations.reach(&revocation.target)).into_response()) })
}

/// `DELETE /revocations/{since}`.
pub(super) fn lift(order: Order) -> Taken {
    let invalid = |hint: &'static str| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let named = order.name.as_deref().and_then(|name| name.parse().ok());
    let since = named.map(RevocationEpoch).ok_or_else(|| invalid("name it by its `since`, which is a number"))?;
    let LiftOrder { note } = if order.body.is_empty() { LiftOrder::default() } else { json(&order)? };
    let lifting = Lifting { since, actor: order.actor.name(), note: noted(&note) };
    let act = async move {
        let Some(epoch) = order.operations.lift(lifting).await? else {
            let hint = "none holds since then: it was lifted already, or ordered anew; look at the revocations again";
            return Err(Refusal::new(Reason::TargetUnknown).hint(hint).into());
        };
        let detail = format!("epoch {}", epoch.0);
        Ok(Done { detail, ..Done::with(Json(Lifted { epoch }).into_response()) })
    };
    Ok(Understood {
        weight: Weight::Loosen,
        about: format!("the revocation since epoch {}", since.0),
        act: Box::pin(act),
    })
}

/// `POST /reload`.
pub(super) fn reload(order: Order) -> Taken {
    let asked: ReloadOrder = if order.body.is_empty() { ReloadOrder::default() } else { json(&order)? };
    let (weight, about) =
        if asked.allow_widening { (Weight::Loosen, "widening is allowed") } else { (Weight::Brake, "") };
    let act = async move {
        let report = order.operations.reload(order.actor.name(), asked).await?;
        let done = match report.to {
            Some(revision) => {
                let revision = revision.0.short();
                let detail = format!("revision {revision}, rows +{} -{}", report.added.len(), report.removed.len());
                Done { detail, ..Done::with(Json(report).into_response()) }
            }
            None => {
                let detail = report.problems.first().cloned().unwrap_or_default();
                Done { response: (StatusCode::CONFLICT, Json(report)).into_response(), outcome: REFUSED, detail }
            }
        };
        Ok(done)
    };
    Ok(Understood { weight, about: about.to_owned(), act: Box::pin(act) })
}

/// `POST /explain`.
pub(super) fn explain(order: Order) -> Taken {
    let question: Question = json(&order)?;
    let Order { operations, .. } = order;
    let about = question.about();
    let act = async move {
        let mut told = operations.explain(&question).await?;
        if !told.gates.is_empty() {
            let standing = operations.stands()?.all().await?;
            let bearer = told.caller.as_ref().and_then(|caller| caller.user.as_deref());
            let who = bearer.or(question.subject.as_deref());
            let for_them = standing.iter().filter_map(|view| standing::told_to(view, &question, who));
            told.gates.extend(for_them);
        }
        // Whose token it was that somebody had.
        let detail = told.caller.as_ref().map(Asker::named).unwrap_or_default();
        Ok(Done { detail, ..Done::with(Json(told).into_response()) })
    };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `GET /who-can`.
pub(super) fn who_can(order: Order) -> Taken {
    let [object, action] = query(&order, ["object", "action"])?;
    let action = action.unwrap_or_else(|| "call".to_owned());
    let Some(object) = object else {
        return Err(Refusal::new(Reason::ParametersInvalid).hint("name the object: ?object=SERVER/TOOL"));
    };
    let Order { operations, .. } = order;
    Ok(answer(format!("who can {action} {object}"), move || operations.who_can(&object, &action)))
}

/// `GET /what-can`.
pub(super) fn what_can(order: Order) -> Taken {
    let [subject] = query(&order, ["subject"])?;
    let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
    let subject = subject.ok_or_else(|| invalid("name the subject: ?subject=user:ISSUER/SUB".to_owned()))?;
    let subject = ask::subject(&subject).map_err(invalid)?;
    let Order { operations, .. } = order;
    Ok(answer(format!("what can {subject}"), move || Ok(operations.what_can(&subject))))
}

/// An answer of the policy. Going through all of a large one takes long; nobody's request waits for it.
fn answer<T: Serialize + Send + 'static>(
    about: String,
    answered: impl FnOnce() -> Result<T, String> + Send + 'static,
) -> Understood {
    let act = async move {
        let answered = tokio::task::spawn_blocking(answered).await;
        let answered = answered.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        let told = answered.map_err(|problem| Refusal::new(Reason::ParametersInvalid).hint(problem))?;
        Ok(Done::with(Json(told).into_response()))
    };
    Understood { weight: Weight::Look, about, act: Box::pin(act) }
}

/// The parameters of the query; any other, and one that comes twice, is a mistake.
pub(super) fn query<const COUNT: usize>(
    order: &Order,
    names: [&str; COUNT],
) -> Result<[Option<String>; COUNT], Refusal> {
    let mut values = [const { None }; COUNT];
    for (name, value) in url::form_urlencoded::parse(order.query.as_bytes()) {
        let place = names.iter().position(|known| *known == name).and_then(|place| values.get_mut(place));
        match place.filter(|place| place.is_none()) {
            Some(place) => *place = Some(value.into_owned()),
            None => {
                let hint = format!("`{name}` is no parameter of this, or comes twice");
                return Err(Refusal::new(Reason::ParametersInvalid).hint(hint));
            }
        }
    }
    Ok(values)
}

/// Something that shows and cannot fail.
fn look(about: &str, shown: impl Future<Output = Done> + Send + 'static) -> Taken {
    let act = async move { Ok(shown.await) };
    Ok(Understood { weight: Weight::Look, about: about.to_owned(), act: Box::pin(act) })
}

/// The body as what it should be.
pub(super) fn json<T: DeserializeOwned>(order: &Order) -> Result<T, Refusal> {
    serde_json::from_slice(&order.body).map_err(|error| {
        Refusal::new(Reason::ParametersInvalid).hint(format!("the body is not what is asked: {error}"))
    })
}
