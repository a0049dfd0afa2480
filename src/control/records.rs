//! What the record says, in the API: rules that would have been enough, what the next ones would change, and what led to what.
//!
//! Decides what makes a sensible question. Refuses to know how records are read, and whose there are. Invariant: whoever is
//! told is told whose records it is from.

use axum::Json;
use axum::response::IntoResponse as _;
use futures_util::future::BoxFuture;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use super::actor::Actor;
use super::desk::{Done, Order, Understood};
use super::handlers::{Taken, query};
pub use crate::gateway::whole::{Asker, Heard, Root, Shown, Simulation, Suggested, Whole};
use crate::ids::{AgentId, PolicyRevision};
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::Weight;

/// What the gateway does with records for its operators; part of what it does for them.
pub trait Records: Send + Sync {
    /// Rows that would have been enough, for one agent or for everybody.
    fn suggest(
        &self,
        by: Asker,
        window: (Timestamp, Timestamp),
        agent: Option<String>,
    ) -> BoxFuture<'_, Result<Whole<Suggested>, Stop>>;
    /// What the next policies would decide otherwise, where they are those.
    fn simulate(
        &self,
        by: Asker,
        window: (Timestamp, Timestamp),
        revision: Option<PolicyRevision>,
    ) -> BoxFuture<'_, Result<Whole<Simulation>, Stop>>;
    /// What has that id, and every line that belongs to it.
    fn show(&self, by: Asker, id: String) -> BoxFuture<'_, Result<Whole<Shown>, Stop>>;
}

/// Where there are none.
pub(super) fn nowhere<'a>() -> Result<&'a dyn Records, Stop> {
    Err(Failure::before(Reason::Internal, "nobody does that here").into())
}

/// `GET /policy/suggest`.
pub(super) fn suggest(order: Order) -> Taken {
    let [since, agent] = query(&order, ["since", "agent"])?;
    let window = window(since)?;
    let agent = agent.map(|agent| AgentId::new(&agent).map(|id| id.to_string())).transpose();
    let agent = agent.map_err(|error| invalid(error.to_string()))?;
    let about = format!("suggest since {}", window.0);
    let by = asker(&order.actor);
    Ok(look(about, async move {
        let told = order.operations.records()?.suggest(by, window, agent).await?;
        Ok(Done::with(Json(told).into_response()))
    }))
}

/// `GET /policy/simulate`.
pub(super) fn simulate(order: Order) -> Taken {
    let [since, revision] = query(&order, ["since", "revision"])?;
    let window = window(since)?;
    let revision = revision.map(|revision| text(&revision)).transpose()?;
    let about = format!("simulate since {}", window.0);
    let by = asker(&order.actor);
    Ok(look(about, async move {
        let told = order.operations.records()?.simulate(by, window, revision).await?;
        Ok(Done::with(Json(told).into_response()))
    }))
}

/// `GET /logs/{id}`.
pub(super) fn show(order: Order) -> Taken {
    let id = order.name.clone().unwrap_or_default();
    if !is_id(&id) {
        return Err(invalid("write 4 to 32 letters and digits of the id that the record shows".to_owned()));
    }
    let by = asker(&order.actor);
    Ok(look(format!("show {id}"), async move {
        let told = order.operations.records()?.show(by, id).await?;
        Ok(Done::with(Json(told).into_response()))
    }))
}

/// Whether that is so much of an id that it means something.
#[must_use]
pub fn is_id(text: &str) -> bool {
    (4..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

/// From then until now.
fn window(since: Option<String>) -> Result<(Timestamp, Timestamp), Refusal> {
    let since = since.ok_or_else(|| invalid("say since when: since=2026-10-24T00:00:00Z".to_owned()))?;
    let since = since.parse().map_err(|_| invalid("since is a moment: 2026-10-24T00:00:00Z".to_owned()))?;
    Ok((since, Timestamp::now()))
}

fn text<T: DeserializeOwned>(text: &str) -> Result<T, Refusal> {
    serde_json::from_value(text.into()).map_err(|error| invalid(error.to_string()))
}

fn asker(actor: &Actor) -> Asker {
    Asker { name: actor.name(), kind: actor.kind().to_owned() }
}

fn invalid(hint: String) -> Refusal {
    Refusal::new(Reason::ParametersInvalid).hint(hint)
}

fn look(about: String, act: impl Future<Output = Result<Done, Stop>> + Send + 'static) -> Understood {
    Understood { weight: Weight::Look, about, act: Box::pin(act) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_begins_at_a_moment_and_an_id_is_one() {
        assert_eq!(window(Some("2026-10-24T00:00:00Z".to_owned())).unwrap().0.as_second(), 1_792_800_000);
        for wrong in [None, Some("yesterday".to_owned())] {
            assert_eq!(window(wrong).unwrap_err().reason, Reason::ParametersInvalid);
        }
        assert!(is_id("9K2M4XQZ") && !is_id("9K2") && !is_id("9K2M/../x") && !is_id(&"9".repeat(33)));
        assert!(text::<PolicyRevision>("not a digest").is_err());
    }
}
