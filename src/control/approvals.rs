//! The API's paths about approvals.
//!
//! Decides what makes a sensible order: an approval names what was shown. Refuses to know who may decide.

use axum::Json;
use axum::response::IntoResponse as _;

use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, json, query};
use super::operations::{ApproveOrder, DenyOrder};
use crate::outcome::{Reason, Refusal};
use crate::policy::Weight;
use crate::record::redact;

/// `GET /approvals`.
pub(super) fn list(order: Order) -> Taken {
    let [state] = query(&order, ["state"])?;
    let all = match state.as_deref() {
        None | Some("pending") => false,
        Some("all") => true,
        Some(_) => return Err(Refusal::new(Reason::ParametersInvalid).hint("write ?state=pending or ?state=all")),
    };
    let act = async move { Ok(Done::with(Json(order.operations.approvals(all).await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /approvals/{id}`.
pub(super) fn show(order: Order) -> Taken {
    let (id, about) = named(&order)?;
    let act = async move {
        let shown = order.operations.approval(&id, &order.actor.name(), order.actor.who()).await?;
        Ok(Done::with(Json(shown).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `POST /approvals/{id}/approve`.
pub(super) fn approve(order: Order) -> Taken {
    let (id, about) = named(&order)?;
    let ApproveOrder { shown } = json(&order)?;
    let act = async move {
        let approver = order.actor.approver(order.operations.as_ref())?;
        let view = order.operations.approve(&id, &approver, shown).await?;
        let detail = format!("{}/{} is {}", view.server, view.name, view.state);
        Ok(Done { detail, ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /approvals/{id}/deny`.
pub(super) fn deny(order: Order) -> Taken {
    let (id, about) = named(&order)?;
    let DenyOrder { note } = if order.body.is_empty() { DenyOrder::default() } else { json(&order)? };
    let act = async move {
        let note = redact::secrets(&note).into_owned();
        let view = order.operations.deny(&id, &order.actor.name(), &note, order.actor.who()).await?;
        Ok(Done::with(Json(view).into_response()))
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// The request that the path names, and how the record names it.
pub(super) fn named(order: &Order) -> Result<(String, String), Refusal> {
    let id = order.name.clone().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let id = id.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("there is no such request"))?;
    let about = format!("request {id}");
    Ok((id, about))
}
