//! The API's paths about labels: who carries which, and taking one off.
//!
//! Decides what makes a sensible order: it says which labels and why. Refuses to know who may. Invariant: whoever takes a
//! label off is somebody with a token, and so is whoever has asked.

use axum::Json;
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;

use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, json, query};
pub use crate::gateway::labels::{
    CarrierKind, CarrierView, DeclassificationView, DeclassifiedView, DeclassifyOrder, LabelView, LabelsReport, Wish,
};
use crate::identity::Caller;
use crate::outcome::{Reason, Refusal, Stop};
use crate::policy::Weight;
use crate::record::redact;

/// What the gateway does with labels; part of what it does for its operators.
pub trait Labelling: Send + Sync {
    /// Who carries which, only those that a text names where there is one, and what waits for a second person.
    fn list<'a>(&'a self, of: Option<&'a str>) -> BoxFuture<'a, Result<LabelsReport, Stop>>;
    /// Asks for labels to be taken off.
    fn ask<'a>(&'a self, wish: &'a Wish, by: &'a Caller) -> BoxFuture<'a, Result<DeclassificationView, Stop>>;
    /// Takes off what somebody else asked for.
    fn confirm<'a>(&'a self, id: &'a str, by: &'a Caller) -> BoxFuture<'a, Result<DeclassifiedView, Stop>>;
    /// Wants it no more.
    fn withdraw<'a>(&'a self, id: &'a str) -> BoxFuture<'a, Result<DeclassificationView, Stop>>;
}

/// `GET /labels`.
pub(super) fn list(order: Order) -> Taken {
    let [of] = query(&order, ["of"])?;
    let act = async move {
        let report = order.operations.labelling()?.list(of.as_deref()).await?;
        Ok(Done::with(Json(report).into_response()))
    };
    Ok(Understood { weight: Weight::Look, about: String::new(), act: Box::pin(act) })
}

/// `POST /labels/declassify`.
pub(super) fn ask(order: Order) -> Taken {
    let asked: DeclassifyOrder = json(&order)?;
    let asked = DeclassifyOrder { reason: redact::text(&asked.reason).into_owned(), ..asked };
    let wish = asked.wish().map_err(|hint| Refusal::new(Reason::ParametersInvalid).hint(hint))?;
    let about = format!("take {} off {} {:.200}", wish.labels, wish.kind.as_str(), wish.name);
    let act = async move {
        let by = order.actor.of_token().ok_or_else(|| Refusal::new(Reason::AdministratorRequired))?;
        let view = order.operations.labelling()?.ask(&wish, by).await?;
        let detail = format!("{} waits for a second person: {}", view.id, view.reason);
        Ok(Done { detail, ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /labels/declassify/{id}/confirm`.
pub(super) fn confirm(order: Order) -> Taken {
    let (id, about) = named(&order, "confirm")?;
    let act = async move {
        let by = order.actor.approver(order.operations.as_ref())?;
        let view = order.operations.labelling()?.confirm(&id, &by).await?;
        let (kind, name) = (view.kind.as_str(), &view.name);
        let (before, after) = (listed(&view.before), listed(&view.after));
        let detail =
            format!("{kind} {name}: before {before}; after {after}; {} asked, because {}", view.asked_by, view.reason);
        Ok(Done { detail, ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Loosen, about, act: Box::pin(act) })
}

/// `POST /labels/declassify/{id}/withdraw`.
pub(super) fn withdraw(order: Order) -> Taken {
    let (id, about) = named(&order, "withdraw")?;
    let act = async move {
        let view = order.operations.labelling()?.withdraw(&id).await?;
        let detail = format!("{} {} keeps {}", view.kind.as_str(), view.name, listed(&view.labels));
        Ok(Done { detail, ..Done::with(Json(view).into_response()) })
    };
    Ok(Understood { weight: Weight::Brake, about, act: Box::pin(act) })
}

fn listed(labels: &[String]) -> String {
    if labels.is_empty() { "nothing".to_owned() } else { labels.join(", ") }
}

/// What the path names, and how the record names it.
fn named(order: &Order, verb: &str) -> Result<(String, String), Refusal> {
    let id = order.name.clone().filter(|id| id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit()));
    let id = id.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("nobody asks for that, or it has expired"))?;
    let about = format!("{verb} declassification {id}");
    Ok((id, about))
}
