//! Every path of the API: what it does, and how the order is understood. One table, from which both doors are made,
//! and which `openapi.json` is held against.

use std::sync::Arc;

use axum::extract::{RawPathParams, Request};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{MethodFilter, on};
use axum::{Extension, Router};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};

use super::actor::Actor;
use super::desk::{self, Understand};
use super::operations::Operations;
use super::{
    approvals, break_glass, handlers, labels, pins, problem, records, reviews, standing, stewards, tail, vault,
};
use crate::policy::AdminOperation;

/// What stands before every path at the administrators' listener.
pub const API: &str = "/api/v1";

/// Where the API describes itself, below [`API`]; the same for everybody, and no operation.
pub const DOCUMENT_PATH: &str = "/openapi.json";

/// The description of the API, OpenAPI 3.1.
pub const DOCUMENT: &str = include_str!("openapi.json");

/// What an HTTP request does to a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `GET`.
    Get,
    /// `POST`.
    Post,
    /// `DELETE`.
    Delete,
}

/// One path.
#[derive(Debug, Clone, Copy)]
pub struct Route {
    /// What is done to it.
    pub verb: Verb,
    /// The path below [`API`].
    pub path: &'static str,
    /// Which operation that is.
    pub operation: AdminOperation,
    understand: Understand,
}

const fn get(path: &'static str, operation: AdminOperation, understand: Understand) -> Route {
    Route { verb: Verb::Get, path, operation, understand }
}

const fn post(path: &'static str, operation: AdminOperation, understand: Understand) -> Route {
    Route { verb: Verb::Post, path, operation, understand }
}

const fn delete(path: &'static str, operation: AdminOperation, understand: Understand) -> Route {
    Route { verb: Verb::Delete, path, operation, understand }
}

/// Every path, in the order of the documentation.
pub const ROUTES: &[Route] = &[
    get("/status", AdminOperation::Status, handlers::status),
    get("/readyz", AdminOperation::Status, handlers::ready),
    get("/servers", AdminOperation::Servers, handlers::servers),
    get("/agents", AdminOperation::Agents, handlers::agents),
    get("/agents/proposed", AdminOperation::Agents, handlers::proposed_agents),
    post("/agents/{agent}", AdminOperation::Agent, stewards::agent),
    post("/agents/{agent}/attest", AdminOperation::Agent, stewards::attest_agent),
    post("/servers/{server}", AdminOperation::Server, stewards::server),
    post("/servers/{server}/attest", AdminOperation::Agent, stewards::attest_server),
    get("/mandates", AdminOperation::Mandates, stewards::mandates),
    post("/mandates", AdminOperation::Mandate, stewards::open),
    get("/mandates/{id}", AdminOperation::Mandates, stewards::mandate),
    post("/mandates/{id}/complete", AdminOperation::Mandate, stewards::complete),
    get("/policy", AdminOperation::Policy, handlers::policy),
    get("/policy/suggest", AdminOperation::Logs, records::suggest),
    get("/policy/simulate", AdminOperation::Logs, records::simulate),
    get("/metrics", AdminOperation::Metrics, handlers::metrics),
    get("/shadow", AdminOperation::Shadow, handlers::shadow),
    get("/logs", AdminOperation::Logs, tail::logs),
    get("/logs/{id}", AdminOperation::Logs, records::show),
    post("/explain", AdminOperation::Explain, handlers::explain),
    get("/who-can", AdminOperation::Explain, handlers::who_can),
    get("/what-can", AdminOperation::Explain, handlers::what_can),
    get("/credentials", AdminOperation::Credentials, handlers::credentials),
    get("/secrets", AdminOperation::Secrets, handlers::secrets),
    get("/revocations", AdminOperation::Revocations, handlers::revocations),
    post("/revocations/reach", AdminOperation::Revocations, handlers::reach),
    delete("/revocations/{since}", AdminOperation::Lift, handlers::lift),
    post("/revoke", AdminOperation::Revoke, handlers::revoke),
    get("/vault", AdminOperation::Vault, vault::list),
    post("/vault/revoke", AdminOperation::Unlink, vault::revoke),
    get("/approvals", AdminOperation::Approvals, approvals::list),
    get("/approvals/{id}", AdminOperation::Approvals, approvals::show),
    post("/approvals/{id}/approve", AdminOperation::Approve, approvals::approve),
    post("/approvals/{id}/deny", AdminOperation::Deny, approvals::deny),
    get("/standing", AdminOperation::Approvals, standing::list),
    post("/standing", AdminOperation::Standing, standing::propose),
    get("/standing/{id}", AdminOperation::Approvals, standing::show),
    post("/standing/{id}/approve", AdminOperation::Standing, standing::approve),
    post("/standing/{id}/revoke", AdminOperation::StandingRevoke, standing::revoke),
    get("/break-glass", AdminOperation::Approvals, break_glass::list),
    post("/break-glass", AdminOperation::BreakGlass, break_glass::ask),
    post("/break-glass/{id}/approve", AdminOperation::BreakGlassApprove, break_glass::agree),
    post("/break-glass/{id}/end", AdminOperation::BreakGlassEnd, break_glass::end),
    post("/break-glass/{id}/review", AdminOperation::BreakGlassReview, break_glass::review),
    get("/labels", AdminOperation::Labels, labels::list),
    post("/labels/declassify", AdminOperation::Declassify, labels::ask),
    post("/labels/declassify/{id}/confirm", AdminOperation::Declassify, labels::confirm),
    post("/labels/declassify/{id}/withdraw", AdminOperation::Declassify, labels::withdraw),
    post("/reload", AdminOperation::Reload, handlers::reload),
    get("/pins", AdminOperation::Pins, pins::pins),
    get("/pins/diff", AdminOperation::Pins, pins::diff),
    get("/pins/export", AdminOperation::Pins, pins::export),
    post("/pins/accept", AdminOperation::PinsAccept, pins::accept),
    post("/pins/reject", AdminOperation::PinsReject, pins::reject),
    get("/reviews", AdminOperation::Reviews, reviews::list),
    post("/reviews", AdminOperation::Review, reviews::open),
    get("/reviews/{id}", AdminOperation::Reviews, reviews::show),
    post("/reviews/{id}/attest", AdminOperation::Attest, reviews::attest),
    post("/reviews/{id}/end", AdminOperation::Review, reviews::end),
    post("/reviews/{id}/close", AdminOperation::Review, reviews::close),
    post("/grants/{id}/restore", AdminOperation::Attest, reviews::restore),
];

impl Verb {
    /// As HTTP spells it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Post => "POST",
            Self::Delete => "DELETE",
        }
    }

    const fn filter(self) -> MethodFilter {
        match self {
            Self::Get => MethodFilter::GET,
            Self::Post => MethodFilter::POST,
            Self::Delete => MethodFilter::DELETE,
        }
    }
}

/// The paths, for requests that carry their actor as an extension.
pub(super) fn router(operations: &Arc<dyn Operations>) -> Router {
    let add = |router: Router, route: &Route| {
        let Route { operation, understand, .. } = *route;
        let operations = Arc::clone(operations);
        let handler = move |Extension(actor): Extension<Actor>, names: RawPathParams, request: Request| {
            let name = names.iter().next().map(|(_, name)| name.to_owned());
            desk::serve(Arc::clone(&operations), operation, understand, actor, name, request)
        };
        router.route(route.path, on(route.verb.filter(), handler))
    };
    let described = Router::new().route(DOCUMENT_PATH, axum::routing::get(document));
    ROUTES.iter().fold(described, add).method_not_allowed_fallback(no_such_method).fallback(no_such_path)
}

/// Carries out what a path of the table does, for somebody who came another way than through the API.
pub(super) async fn order(
    operations: &Arc<dyn Operations>,
    (verb, path): (Verb, &'static str),
    actor: Actor,
    name: Option<String>,
    request: Request,
) -> Response {
    match ROUTES.iter().find(|route| route.verb == verb && route.path == path) {
        Some(Route { operation, understand, .. }) => {
            desk::serve(Arc::clone(operations), *operation, *understand, actor, name, request).await
        }
        None => no_such_path().await,
    }
}

/// The description of the API.
pub(super) async fn document() -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], DOCUMENT).into_response()
}

async fn no_such_path() -> Response {
    problem::problem(StatusCode::NOT_FOUND, "target_unknown", "there is no such path: openapi.json names them all")
}

async fn no_such_method() -> Response {
    let detail = "nothing does that to this path: openapi.json names what does";
    problem::problem(StatusCode::METHOD_NOT_ALLOWED, "method_unknown", detail)
}
