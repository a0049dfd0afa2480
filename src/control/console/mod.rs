//! The console: pages for people, below `/` of the administrators' listener and never on the socket.
//!
//! Decides who looks (a session of a person who signed in) and which page they asked for. Refuses to know what an
//! operation does: every page asks the API's own table (`routes::order`) with the person's own token, so that the
//! same desk decides and records it. Invariants: no page is shown without a session except those of signing in; nothing
//! is changed without the session's CSRF token from one of our own pages; every response carries the headers that keep
//! a browser from running, framing or keeping anything else.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::middleware;
use axum::response::Response;
use axum::routing::{get, post};
use http::StatusCode;

use super::operations::Operations;
use super::problem;
use crate::ids::Digest;
use crate::oauth::person::Provider;
use crate::wire::handle::Sealer;

mod access;
mod accounts;
mod agents;
mod approvals;
mod assets;
mod break_glass;
mod callback;
mod cookie;
mod definitions;
mod headers;
mod inside;
mod labels;
mod layout;
mod live;
mod login;
mod mandates;
mod overview;
mod policy;
mod questions;
mod reviews;
mod revocations;
mod revoke;
mod row;
mod servers;
mod session;
mod standing;
mod text;
mod visit;

/// Where the live log's rows come from; its page goes on asking without a click.
const STREAM: &str = "/log/stream";

/// What all pages have.
pub(super) struct Console {
    operations: Arc<dyn Operations>,
    sessions: session::Sessions,
    provider: Provider,
    /// Seals what a browser keeps for us between the first step of a login and the last. Good for this process only.
    sealer: Sealer,
}

/// The pages, for [`super::Administrators::with_pages`].
///
/// # Errors
/// When the cryptographic library makes no key.
pub fn pages(operations: Arc<dyn Operations>) -> Result<Router, String> {
    let secret = Digest::sha256(session::random().as_bytes());
    let sealer = Sealer::new([secret.as_bytes().as_slice()]).map_err(|error| error.to_string())?;
    let console =
        Arc::new(Console { operations, sessions: session::Sessions::default(), provider: Provider::default(), sealer });
    let router = Router::new()
        .route("/", get(overview::page))
        .route("/log", get(live::page))
        .route(STREAM, get(live::stream))
        .route("/servers", get(servers::page))
        .route("/agents", get(agents::page))
        .route("/ask", get(questions::page))
        .route("/ask/explain", post(questions::explain))
        .route("/revocations", get(revocations::page).post(revoke::revoke))
        .route("/revocations/new", post(revoke::confirm))
        .route("/revocations/{since}/lift", get(revocations::confirm_lift).post(revocations::lift))
        .route("/approvals", get(approvals::page))
        .route("/approvals/{id}", get(approvals::one))
        .route("/approvals/{id}/approve", post(approvals::approve))
        .route("/approvals/{id}/deny", post(approvals::deny))
        .route("/standing", get(standing::page).post(standing::propose))
        .route("/standing/{id}", get(standing::one))
        .route("/standing/{id}/approve", post(standing::approve))
        .route("/standing/{id}/revoke", post(standing::revoke))
        .route("/break-glass", get(break_glass::page).post(break_glass::ask))
        .route("/break-glass/{id}/approve", post(break_glass::agree))
        .route("/break-glass/{id}/end", post(break_glass::end))
        .route("/break-glass/{id}/review", post(break_glass::review))
        .route("/mandates", get(mandates::page))
        .route("/mandates/{id}", get(mandates::one))
        .route("/mandates/{id}/complete", post(mandates::complete))
        .route("/reviews", get(reviews::page).post(reviews::open))
        .route("/reviews/{id}", get(reviews::one))
        .route("/reviews/{id}/answer", post(reviews::answer))
        .route("/reviews/{id}/close", post(reviews::close))
        .route("/labels", get(labels::page))
        .route("/labels/ask", get(labels::one).post(labels::ask))
        .route("/labels/{id}/confirm", post(labels::confirm))
        .route("/labels/{id}/withdraw", post(labels::withdraw))
        .route("/policy", get(policy::page))
        .route("/definitions", get(definitions::page))
        .route("/definitions/{digest}", get(definitions::one))
        .route("/definitions/{digest}/accept", post(definitions::accept))
        .route("/definitions/{digest}/reject", post(definitions::reject))
        .route("/access", get(access::page).post(access::wish))
        .route("/access/unlink", post(accounts::unlink))
        .route("/login", get(login::page))
        .route("/login/start", get(login::start))
        .route("/login/callback", get(callback::page))
        .route("/logout", post(login::logout))
        .route("/assets/{digest}/{name}", get(assets::file))
        .fallback(no_such_page)
        .method_not_allowed_fallback(no_such_page);
    let layer = middleware::from_fn_with_state(Arc::clone(&console), headers::add);
    Ok(router.layer(layer).with_state(console))
}

/// The same answer whether somebody is signed in or not.
async fn no_such_page(State(console): State<Arc<Console>>) -> Response {
    match console.settings() {
        Some(settings) => layout::outside(
            &settings,
            StatusCode::NOT_FOUND,
            "There is no such page",
            &maud::html! { p { a href=(settings.path("/")) { "To the overview" } } },
        ),
        None => not_here(),
    }
}

/// What is answered where the files have no console.
fn not_here() -> Response {
    let detail = "the API is below /api/v1; [admin.console] turns the pages on";
    problem::problem(StatusCode::NOT_FOUND, "target_unknown", detail)
}
