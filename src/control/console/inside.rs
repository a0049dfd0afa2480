//! How a page asks what the API is asked: by the same table, the same desk and the same record.
//!
//! Decides nothing. Invariant: what a page shows or changes was allowed and recorded as an operation of the person who
//! looks at it.

use axum::body::Body;
use axum::response::Response;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use maud::{Markup, html};
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::super::actor::Actor;
use super::super::operations::Problem;
use super::super::routes::{self, Verb};
use super::text::shown;
use super::visit::Visit;
use crate::limit;
use crate::outcome::Reason;

/// Why something was not shown or done.
pub(super) struct Refused {
    pub(super) status: StatusCode,
    pub(super) problem: Problem,
}

impl Refused {
    /// An answer that is none.
    pub(super) fn unreadable(detail: impl Into<String>) -> Self {
        let status = StatusCode::INTERNAL_SERVER_ERROR;
        let problem = Problem {
            kind: String::new(),
            title: String::new(),
            status: status.as_u16(),
            reason: Reason::Internal.code().to_owned(),
            detail: detail.into(),
        };
        Self { status, problem }
    }

    /// An answer that ended before it was told: the gateway stops, or whoever looks may not any more.
    pub(super) fn ended(data: &str) -> Self {
        let why = serde_json::from_str::<serde_json::Value>(data).ok();
        let why = why.as_ref().and_then(|why| why.get("reason")).and_then(serde_json::Value::as_str);
        let mut refused = Self::unreadable("the record cannot be shown now: load the page again");
        refused.status = StatusCode::SERVICE_UNAVAILABLE;
        refused.problem.status = refused.status.as_u16();
        refused.problem.reason = why.unwrap_or_else(|| Reason::RecordUnavailable.code()).to_owned();
        refused
    }

    /// What an answer says that is no success.
    pub(super) async fn of(response: Response) -> Self {
        match answered::<serde_json::Value>(response).await {
            Err(refused) => refused,
            Ok(_) => Self::unreadable("the answer cannot be read"),
        }
    }
}

impl Visit {
    /// Who looks, for the desk.
    pub(super) fn actor(&self) -> Actor {
        Actor::caller(self.caller.clone())
    }

    /// Asks a path of the API; the answer as it comes.
    pub(super) async fn order(
        &self,
        route: (Verb, &'static str),
        name: Option<String>,
        query: &str,
        body: Body,
    ) -> Response {
        let mut request = Request::new(body);
        let uri = format!("/?{query}").parse();
        *request.uri_mut() = uri.unwrap_or_default();
        routes::order(&self.console.operations, route, self.actor(), name, request).await
    }

    /// Looks at something.
    pub(super) async fn look<T: DeserializeOwned>(&self, path: &'static str, query: &str) -> Result<T, Refused> {
        answered(self.order((Verb::Get, path), None, query, Body::empty()).await).await
    }

    /// Sends an order.
    pub(super) async fn send<T: DeserializeOwned>(
        &self,
        route: (Verb, &'static str),
        name: Option<String>,
        order: &impl Serialize,
    ) -> Result<T, Refused> {
        let body = serde_json::to_vec(order).map(Body::from).unwrap_or_default();
        answered(self.order(route, name, "", body).await).await
    }

    /// How a refusal is shown: the reason, and for a missing rule which one would do.
    pub(super) fn refusal(&self, object: &str, refused: &Refused) -> Markup {
        let Problem { reason, detail, .. } = &refused.problem;
        let missing = [Reason::NotAllowed.code(), Reason::InsufficientScope.code()].contains(&reason.as_str());
        html! {
            div.problem role="alert" {
                @if missing {
                    p { b { "No rule lets you do " code { (object) } "." } " " code { (shown(reason)) } }
                    p { "Whoever owns the policy can add one, such as:" }
                    pre { "p, " (shown(&self.session.person)) ", *, " (object) ", admin, -, allow" }
                } @else {
                    p { b { (shown(detail)) } " " code { (shown(reason)) } }
                }
            }
        }
    }
}

/// The answer as what it should be. A status that is no success is a refusal, readiness aside, which says so itself.
pub(super) async fn answered<T: DeserializeOwned>(response: Response) -> Result<T, Refused> {
    let status = response.status();
    let body = Limited::new(response.into_body(), limit::CONTROL_ANSWER_BYTES_MAX).collect().await;
    let body = body.map_err(|error| Refused::unreadable(error.to_string()))?.to_bytes();
    if !status.is_success()
        && let Ok(problem) = serde_json::from_slice::<Problem>(&body)
    {
        return Err(Refused { status, problem });
    }
    serde_json::from_slice(&body).map_err(|error| Refused::unreadable(error.to_string()))
}
