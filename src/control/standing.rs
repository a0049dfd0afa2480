//! The API's paths about standing approvals.
//!
//! Decides what makes a sensible order: a yes names what was shown. Refuses to know who may say it.

use axum::Json;
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;

use super::approvals::named;
use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, json};
use super::operations::ApproveOrder;
use crate::gateway::ask::Question;
pub use crate::gateway::beforehand::{StandingView, TakeBackOrder, Wish};
use crate::identity::Caller;
use crate::ids::Digest;
use crate::outcome::{Failure, Reason, Stop};
use crate::policy::Weight;
use crate::record::{Who, redact};

/// What the gateway does with standing approvals; part of what it does for its operators.
pub trait Stands: Send + Sync {
    /// All of them, and proposals.
    fn all(&self) -> BoxFuture<'_, Result<Vec<StandingView>, Stop>>;
    /// One of them.
    fn one<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<StandingView, Stop>>;
    /// Proposes one; whoever does is the first who says yes.
    fn propose<'a>(&'a self, wish: &'a Wish, by: &'a Caller) -> BoxFuture<'a, Result<StandingView, Stop>>;
    /// Says yes to a proposal.
    fn give<'a>(&'a self, id: &'a str, shown: Digest, by: &'a Caller) -> BoxFuture<'a, Result<StandingView, Stop>>;
    /// Takes one back.
    fn take_back<'a>(
        &'a self,
        id: &'a str,
        by: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<StandingView, Stop>>;
}

/// Where there are none.
pub(super) fn nowhere<'a>() -> Result<&'a dyn Stands, Stop> {
    Err(Failure::before(Reason::Internal, "nobody does that here").into())
}

/// `GET /standing`.
pub(super) fn list(order: Order) -> Taken {
    let act = async move { Ok(Done::with(Json(order.operations.stands()?.all().await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `GET /standing/{id}`.
pub(super) fn show(order: Order) -> Taken {
    let (id, _) = named(&order)?;
    let about = format!("standing approval {id}");
    let act = async move { Ok(Done::with(Json(order.operations.stands()?.one(&id).await?).into_response())) };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

/// `POST /standing`.
pub(super) fn propose(order: Order) -> Taken {
    let wish: Wish = json(&order)?;
    let wish = Wish { note: redact::secrets(&wish.note).into_owned(), ..wish };
    let about = format!("calls like request {}", wish.like.chars().take(32).collect::<String>());
    let act = async move {
        // Whoever proposes is the first who says yes.
        let by = order.actor.approver(order.operations.as_ref())?;
        let view = order.operations.stands()?.propose(&wish, &by).await?;
        Ok(Done { detail: told(&view), ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /standing/{id}/approve`.
pub(super) fn approve(order: Order) -> Taken {
    let (id, _) = named(&order)?;
    let about = format!("standing approval {id}");
    let ApproveOrder { shown } = json(&order)?;
    let act = async move {
        let by = order.actor.approver(order.operations.as_ref())?;
        let view = order.operations.stands()?.give(&id, shown, &by).await?;
        Ok(Done { detail: told(&view), ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /standing/{id}/revoke`.
pub(super) fn revoke(order: Order) -> Taken {
    let (id, _) = named(&order)?;
    let about = format!("standing approval {id}");
    let TakeBackOrder { note } = if order.body.is_empty() { TakeBackOrder::default() } else { json(&order)? };
    let act = async move {
        let note = redact::secrets(&note).into_owned();
        let view = order.operations.stands()?.take_back(&id, &order.actor.name(), &note, order.actor.who()).await?;
        Ok(Done::with(Json(view).into_response()))
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

fn told(view: &StandingView) -> String {
    format!("{}: {}/{} for {}, {} calls: {}", view.id, view.server, view.name, view.requester, view.uses, view.state)
}

/// What a standing approval has to say to a question, where it is for whoever is asked about.
pub(super) fn told_to(view: &StandingView, question: &Question, who: Option<&str>) -> Option<String> {
    let object = format!("{}/{}", view.server, view.name) == question.object && view.action == question.action;
    let same = who.is_some_and(|who| who == view.requester);
    (object && same && view.state == "active").then(|| {
        let left = view.uses.saturating_sub(view.used);
        format!("{}: a standing approval lets {left} more calls through where {}", view.id, view.says)
    })
}
