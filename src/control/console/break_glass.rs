//! Emergency access: asking for it, agreeing, ending it, and saying what was done with it.
//!
//! Decides nothing. Invariant: the digest of exactly what a page shows goes back with a yes.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::break_glass::{BreakGlassOrder, BreakGlassView};
use super::super::operations::ApproveOrder;
use super::super::routes::Verb;
use super::super::standing::TakeBackOrder;
use super::approvals::log_in_again;
use super::inside::Refused;
use super::layout::{beyond, csrf, inside, pill};
use super::text::{cut, moment, shown};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const PAGE: &str = "/break-glass";
const TITLE: &str = "Emergency access";
const ASK: (Verb, &str) = (Verb::Post, "/break-glass");
const AGREE: (Verb, &str) = (Verb::Post, "/break-glass/{id}/approve");
const END: (Verb, &str) = (Verb::Post, "/break-glass/{id}/end");
const REVIEW: (Verb, &str) = (Verb::Post, "/break-glass/{id}/review");

/// `GET /break-glass`.
pub(super) async fn page(visit: Visit) -> Response {
    show(&visit, StatusCode::OK, None).await
}

/// `POST /break-glass`.
pub(super) async fn ask(posted: Posted) -> Response {
    let order = BreakGlassOrder { name: posted.field("name").trim().to_owned(), reason: posted.field("reason") };
    let sent = posted.visit.send::<BreakGlassView>(ASK, None, &order).await;
    done(&posted.visit, "bailiwick/break-glass", sent).await
}

/// `POST /break-glass/{id}/approve`. The path is read first: what was posted consumes the request.
pub(super) async fn agree(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let Some(digest) = Digest::from_hex(&posted.field("shown")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "the form does not say what was shown: open the page again");
    };
    let sent = visit.send::<BreakGlassView>(AGREE, Some(id), &ApproveOrder { shown: digest }).await;
    done(visit, "bailiwick/break-glass-approve", sent).await
}

/// `POST /break-glass/{id}/end`.
pub(super) async fn end(Path(id): Path<String>, posted: Posted) -> Response {
    let order = TakeBackOrder { note: posted.field("note") };
    let sent = posted.visit.send::<BreakGlassView>(END, Some(id), &order).await;
    done(&posted.visit, "bailiwick/break-glass-end", sent).await
}

/// `POST /break-glass/{id}/review`.
pub(super) async fn review(Path(id): Path<String>, posted: Posted) -> Response {
    let order = TakeBackOrder { note: posted.field("note") };
    let sent = posted.visit.send::<BreakGlassView>(REVIEW, Some(id), &order).await;
    done(&posted.visit, "bailiwick/break-glass-review", sent).await
}

async fn done(visit: &Visit, object: &str, sent: Result<BreakGlassView, Refused>) -> Response {
    match sent {
        Ok(_) => Redirect::to(&visit.settings.path(PAGE)).into_response(),
        Err(refused) => {
            let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
            let told = html! { (visit.refusal(object, &refused)) @if again { (log_in_again(visit, PAGE)) } };
            show(visit, refused.status, Some(told)).await
        }
    }
}

async fn show(visit: &Visit, status: StatusCode, told: Option<Markup>) -> Response {
    let found = match visit.look::<Vec<BreakGlassView>>("/break-glass", "").await {
        Ok(found) => found,
        Err(refused) => {
            let body = html! { @if let Some(told) = &told { (told) } (visit.refusal("bailiwick/approvals", &refused)) };
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::BreakGlass, now_s());
    let body = html! {
        @if let Some(told) = &told { (told) }
        @if recent.is_err() { (log_in_again(visit, PAGE)) }
        @if found.is_empty() { p.quiet { "Nobody has asked for any." } }
        @for view in found.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { (one(visit, view, recent.is_ok())) }
        (beyond(found.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        @if visit.may(AdminOperation::BreakGlass) && recent.is_ok() {
            section aria-labelledby="ask" {
                h2 #ask { "Ask for it" }
                p { "Somebody else has to agree. Every call that you make with it is told to others, and somebody looks at them afterwards." }
                form.confirm method="post" action=(visit.settings.path(PAGE)) {
                    (csrf(visit))
                    label { span { "Which" } input name="name" required placeholder="outage" autocomplete="off" spellcheck="false"; }
                    label.whole { span { "Why?" } textarea name="reason" rows="2" required maxlength="500" {} }
                    p.buttons { button.danger type="submit" { "Ask for emergency access" } }
                }
            }
        }
    };
    inside(visit, status, TITLE, PAGE, &body)
}

fn one(visit: &Visit, view: &BreakGlassView, recent: bool) -> Markup {
    let path = |what: &str| visit.settings.path(&format!("{PAGE}/{}/{what}", view.id));
    let approvers = if view.approvers.is_empty() { "nobody".to_owned() } else { view.approvers.join(", ") };
    let form = |what: &str, word: &str, danger: bool, required: bool| {
        html! {
            form.confirm method="post" action=(path(what)) {
                (csrf(visit))
                label.whole { span { @if required { "What was found?" } @else { "Why?" } } textarea name="note" rows="2" required[required] maxlength="500" {} }
                p.buttons { button.danger[danger] type="submit" { (word) } }
            }
        }
    };
    html! {
        section {
            h2 { (shown(&view.name)) " for " (shown(&view.user)) " " (state(&view.state)) }
            dl.facts {
                div.wide { dt { "Why" } dd { (cut(&view.reason, usize::MAX)) } }
                div { dt { "Role" } dd { code { (shown(&view.role)) } } }
                div { dt { "Lasts" } dd { (view.seconds) " seconds" } }
                div { dt { "Asked" } dd { (moment(view.asked_at)) } }
                div { dt { "Until" } dd { (moment(view.until)) } }
                div { dt { "Agreed by" } dd { (shown(&approvers)) } }
                @if let Some(by) = &view.ended_by { div { dt { "Ended by" } dd { (shown(by)) } } }
                @if let Some(by) = &view.reviewed_by { div { dt { "Reviewed by" } dd { (shown(by)) } } }
                @if !view.note.is_empty() { div.wide { dt { "Note" } dd { (cut(&view.note, usize::MAX)) } } }
                div.wide { dt { "On the record" } dd { code { "bailiwick logs show " (shown(&view.id)) } } }
            }
            @if view.state == "asked" && recent && visit.may(AdminOperation::BreakGlassApprove) {
                form.confirm method="post" action=(path("approve")) {
                    (csrf(visit))
                    input type="hidden" name="shown" value=(view.shown.to_string());
                    p.buttons { button type="submit" { "Agree to it" } }
                }
            }
            @if ["asked", "open"].contains(&view.state.as_str()) && visit.may(AdminOperation::BreakGlassEnd) {
                (form("end", "End it", true, false))
            }
            @if view.state == "to_review" && recent && visit.may(AdminOperation::BreakGlassReview) {
                (form("review", "It is reviewed", false, true))
            }
        }
    }
}

fn state(word: &str) -> Markup {
    let kind = match word {
        "open" => "bad",
        "asked" | "to_review" => "warn",
        "reviewed" => "good",
        _ => "quiet",
    };
    pill(kind, word)
}
