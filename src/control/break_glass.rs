//! The API's paths about emergency access.
//!
//! Decides what makes a sensible order: one that asks says why, one that agrees names what was shown. Refuses to know who
//! may.

use axum::Json;
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;

use super::approvals::named;
use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, json};
use super::operations::ApproveOrder;
use super::standing::TakeBackOrder;
pub use crate::gateway::emergency::{BreakGlassOrder, BreakGlassView};
use crate::identity::Caller;
use crate::ids::Digest;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::Weight;
use crate::record::{Who, redact};

/// What the gateway does in emergencies; part of what it does for its operators.
pub trait Emergencies: Send + Sync {
    /// All of them.
    fn all(&self) -> BoxFuture<'_, Result<Vec<BreakGlassView>, Stop>>;
    /// Asks for one.
    fn ask<'a>(&'a self, order: &'a BreakGlassOrder, by: &'a Caller) -> BoxFuture<'a, Result<BreakGlassView, Stop>>;
    /// Agrees to one.
    fn agree<'a>(&'a self, id: &'a str, shown: Digest, by: &'a Caller) -> BoxFuture<'a, Result<BreakGlassView, Stop>>;
    /// Ends one.
    fn end<'a>(
        &'a self,
        id: &'a str,
        by: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<BreakGlassView, Stop>>;
    /// Has looked at what was done with one.
    fn review<'a>(&'a self, id: &'a str, by: &'a Caller, note: &'a str) -> BoxFuture<'a, Result<BreakGlassView, Stop>>;
}

/// Where there are none.
pub(super) fn nowhere<'a>() -> Result<&'a dyn Emergencies, Stop> {
    Err(Failure::before(Reason::Internal, "nobody does that here").into())
}

/// `GET /break-glass`.
pub(super) fn list(order: Order) -> Taken {
    let act = async move { Ok(Done::with(Json(order.operations.emergencies()?.all().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `POST /break-glass`.
pub(super) fn ask(order: Order) -> Taken {
    let asked: BreakGlassOrder = json(&order)?;
    let asked = BreakGlassOrder { reason: redact::secrets(&asked.reason).into_owned(), ..asked };
    let about = asked.name.chars().take(crate::limit::GATE_NAME_BYTES_MAX).collect();
    let act = async move {
        let by = order.actor.of_token().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
        let view = order.operations.emergencies()?.ask(&asked, by).await?;
        Ok(Done { detail: told(&view), ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /break-glass/{id}/approve`.
pub(super) fn agree(order: Order) -> Taken {
    let (id, about) = which(&order)?;
    let ApproveOrder { shown } = json(&order)?;
    let act = async move {
        let by = order.actor.approver(order.operations.as_ref())?;
        let view = order.operations.emergencies()?.agree(&id, shown, &by).await?;
        Ok(Done { detail: told(&view), ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /break-glass/{id}/end`.
pub(super) fn end(order: Order) -> Taken {
    let (id, about) = which(&order)?;
    let TakeBackOrder { note } = if order.body.is_empty() { TakeBackOrder::default() } else { json(&order)? };
    let act = async move {
        let note = redact::secrets(&note).into_owned();
        let view = order.operations.emergencies()?.end(&id, &order.actor.name(), &note, order.actor.who()).await?;
        Ok(Done::with(Json(view).into_response()))
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

/// `POST /break-glass/{id}/review`.
pub(super) fn review(order: Order) -> Taken {
    let (id, about) = which(&order)?;
    let TakeBackOrder { note } = json(&order)?;
    let act = async move {
        let by = order.actor.of_token().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
        let note = redact::secrets(&note).into_owned();
        let view = order.operations.emergencies()?.review(&id, by, &note).await?;
        Ok(Done { detail: told(&view), ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

fn which(order: &Order) -> Result<(String, String), Refusal> {
    let (id, _) = named(order)?;
    let about = format!("emergency access {id}");
    Ok((id, about))
}

fn told(view: &BreakGlassView) -> String {
    format!("{}: {} for {}: {}", view.id, view.role, view.user, view.state)
}
