//! What waits for a person: the list, one request with its arguments, and the word of whoever decides.
//!
//! Decides nothing. Invariant: what is shown is made of the call itself, with what cannot be seen made visible; the
//! digest of exactly that goes back with an approval.

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{ApprovalView, ApproveOrder, DenyOrder};
use super::super::routes::Verb;
use super::inside::{Refused, answered};
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::standing;
use super::text::{cut, moment, shown, whole};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const SHOW: (Verb, &str) = (Verb::Get, "/approvals/{id}");
const APPROVE: (Verb, &str) = (Verb::Post, "/approvals/{id}/approve");
const DENY: (Verb, &str) = (Verb::Post, "/approvals/{id}/deny");

/// `GET /approvals`.
pub(super) async fn page(visit: Visit) -> Response {
    let all = visit.asked("state").as_deref() == Some("all");
    let query = if all { "state=all" } else { "" };
    let found = match visit.look::<Vec<ApprovalView>>("/approvals", query).await {
        Ok(found) => found,
        Err(refused) => {
            let body = visit.refusal("bailiwick/approvals", &refused);
            return inside(&visit, refused.status, "Approvals", "/approvals", &body);
        }
    };
    let body = html! {
        section aria-labelledby="waiting" {
            h2 #waiting { @if all { "All that are kept" } @else { "Waiting for a person" } }
            @if found.is_empty() { p.quiet { "Nothing waits." } }
            @else {
                table {
                    thead { tr {
                        th scope="col" { "Call" } th scope="col" { "For whom" } th scope="col" { "Gates" }
                        th scope="col" { "State" } th scope="col" { "Until" }
                    } }
                    tbody {
                        @for view in found.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                            tr {
                                th scope="row" data-label="Call" {
                                    a href=(visit.settings.path(&format!("/approvals/{}", view.id))) {
                                        code { (shown(&view.server)) "/" (shown(&view.name)) }
                                    }
                                    span.detail { (shown(&view.environment)) }
                                }
                                td data-label="For whom" { (shown(&view.requester)) }
                                td data-label="Gates" { (shown(&view.gates.join(", "))) }
                                td data-label="State" { (state(&view.state)) }
                                td data-label="Until" { (moment(view.until)) }
                            }
                        }
                    }
                }
                (beyond(found.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
            }
            p.quiet {
                @if all { a href=(visit.settings.path("/approvals")) { "Only those that wait" } }
                @else { a href=(visit.settings.path("/approvals?state=all")) { "Also those that are over" } }
            }
        }
    };
    inside(&visit, StatusCode::OK, "Approvals", "/approvals", &body)
}

/// `GET /approvals/{id}`.
pub(super) async fn one(visit: Visit, Path(id): Path<String>) -> Response {
    show(&visit, id, StatusCode::OK, None).await
}

/// `POST /approvals/{id}/approve`. The path is read first: what was posted consumes the request.
pub(super) async fn approve(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let Some(digest) = Digest::from_hex(&posted.field("shown")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "the form does not say what was shown: open the page again");
    };
    let sent = visit.send::<ApprovalView>(APPROVE, Some(id.clone()), &ApproveOrder { shown: digest }).await;
    decided(visit, id, "bailiwick/approve", sent).await
}

/// `POST /approvals/{id}/deny`.
pub(super) async fn deny(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let order = DenyOrder { note: posted.field("note") };
    let sent = visit.send::<ApprovalView>(DENY, Some(id.clone()), &order).await;
    decided(visit, id, "bailiwick/deny", sent).await
}

async fn decided(visit: &Visit, id: String, object: &str, sent: Result<ApprovalView, Refused>) -> Response {
    match sent {
        Ok(view) => Redirect::to(&visit.settings.path(&format!("/approvals/{}", view.id))).into_response(),
        Err(refused) => {
            let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
            let told = html! {
                (visit.refusal(object, &refused))
                @if again { (log_in_again(visit, &format!("/approvals/{id}"))) }
            };
            show(visit, id, refused.status, Some(told)).await
        }
    }
}

async fn show(visit: &Visit, id: String, status: StatusCode, told: Option<Markup>) -> Response {
    let title = "A call that needs a person";
    // Whoever may not look at everybody's sees their own.
    let looked = if visit.may(AdminOperation::Approvals) {
        answered::<ApprovalView>(visit.order(SHOW, Some(id.clone()), "", Body::empty()).await).await
    } else {
        let own = visit.console.operations.own_approval(&visit.caller, &id).await;
        match own {
            Ok(view) => Ok(view),
            Err(stop) => Err(Refused::of(super::super::problem::stopped(&stop)).await),
        }
    };
    let view = match looked {
        Ok(view) => view,
        Err(refused) => {
            let body = html! { @if let Some(told) = &told { (told) } (visit.refusal("bailiwick/approvals", &refused)) };
            return inside(visit, refused.status, title, "/approvals", &body);
        }
    };
    let body = html! {
        @if let Some(told) = &told { (told) }
        (facts(&view))
        section aria-labelledby="arguments" {
            h2 #arguments { "With these arguments" }
            pre.arguments { (whole(&serde_json::to_string_pretty(&view.arguments).unwrap_or_default())) }
            p.quiet { "Digest " code { (view.shown.to_string()) } }
        }
        (decide(visit, &view))
        (standing::proposal(visit, &view))
    };
    inside(visit, status, title, "/approvals", &body)
}

fn facts(view: &ApprovalView) -> Markup {
    html! {
        dl.facts {
            // Of what is approved nothing is left out: a resource's address is all that is asked for.
            div.wide { dt { "Call" } dd { code { (shown(&view.server)) "/" (cut(&view.name, usize::MAX)) } " (" (shown(&view.action)) ")" } }
            div { dt { "Effects land in" } dd { (shown(&view.environment)) } }
            div { dt { "For whom" } dd { (shown(&view.requester)) } }
            div { dt { "Through" } dd { @if view.agents.is_empty() { "nobody" } @else { (shown(&view.agents.join(", "))) } } }
            @if let Some(mandate) = &view.mandate { div { dt { "Mandate" } dd { (shown(mandate)) } } }
            div { dt { "State" } dd { (state(&view.state)) } }
            div { dt { "Asked" } dd { (moment(view.requested_at)) } }
            div { dt { "Until" } dd { (moment(view.until)) } }
            div.wide { dt { "Gates" } dd { (shown(&view.gates.join(", "))) } }
            @if !view.after.is_empty() { div.wide { dt { "After what was seen" } dd { (shown(&view.after)) } } }
            div.wide { dt { "Missing" } dd {
                @if view.missing.is_empty() { "nothing" }
                @for missing in &view.missing { span.detail { (shown(missing)) } }
            } }
            div.wide { dt { "Approved by" } dd { @if view.approvers.is_empty() { "nobody" } @else { (shown(&view.approvers.join(", "))) } } }
            @if let Some(by) = &view.denied_by {
                div.wide { dt { "Denied by" } dd { (shown(by)) @if !view.note.is_empty() { ": " (shown(&view.note)) } } }
            }
            @if let Some(definition) = &view.definition { div.wide { dt { "Definition" } dd { code { (shown(definition)) } } } }
        }
    }
}

fn decide(visit: &Visit, view: &ApprovalView) -> Markup {
    let open = matches!(view.state.as_str(), "pending" | "approved");
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::Approve, now_s());
    let path = |what: &str| visit.settings.path(&format!("/approvals/{}/{what}", view.id));
    html! {
        @if open && visit.may(AdminOperation::Approve) && view.state == "pending" && !view.only_confirmed {
            section aria-labelledby="approve" {
                h2 #approve { "Approve" }
                p { "It is good for exactly this call, once." }
                @match &recent {
                    Ok(()) => {
                        form.confirm method="post" action=(path("approve")) {
                            (csrf(visit))
                            input type="hidden" name="shown" value=(view.shown.to_string());
                            p.buttons { button type="submit" { "Approve this call" } }
                        }
                    }
                    Err(why) if why.reason == Reason::InsufficientUserAuthentication => (log_in_again(visit, &format!("/approvals/{}", view.id))),
                    Err(why) => p.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } },
                }
            }
        }
        @if open && visit.may(AdminOperation::Deny) {
            section aria-labelledby="deny" {
                h2 #deny { "Deny" }
                form.confirm method="post" action=(path("deny")) {
                    (csrf(visit))
                    label.whole { span { "Why? The caller reads it." } textarea name="note" rows="2" maxlength="500" {} }
                    p.buttons { button.danger type="submit" { "Deny this call" } }
                }
            }
        }
    }
}

/// What takes somebody to a new login, and back to the page.
pub(super) fn log_in_again(visit: &Visit, page: &str) -> Markup {
    let to = encoded(page);
    html! {
        p.notice { "Approving needs a login of a moment ago. You come back to this page." }
        p { a.button href=(visit.settings.path(&format!("/login/start?fresh=1&to={to}"))) { "Log in again" } }
    }
}

fn state(word: &str) -> Markup {
    let kind = match word {
        "approved" | "consumed" => "good",
        "denied" => "bad",
        "pending" => "warn",
        _ => "quiet",
    };
    pill(kind, word)
}
