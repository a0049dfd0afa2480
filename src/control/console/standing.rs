//! What was approved beforehand: the list, one standing approval with all that it says, the next person's yes, and taking
//! it back.
//!
//! Decides nothing. Invariant: the digest of exactly what a page shows goes back with a yes.

use axum::body::Body;
use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{ApprovalView, ApproveOrder};
use super::super::routes::Verb;
use super::super::standing::{StandingView, TakeBackOrder, Wish};
use super::approvals::log_in_again;
use super::inside::{Refused, answered};
use super::layout::{beyond, csrf, inside, pill};
use super::text::{cut, moment, shown};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const PAGE: &str = "/standing";
const TITLE: &str = "Approved beforehand";
const SHOW: (Verb, &str) = (Verb::Get, "/standing/{id}");
const PROPOSE: (Verb, &str) = (Verb::Post, "/standing");
const APPROVE: (Verb, &str) = (Verb::Post, "/standing/{id}/approve");
const REVOKE: (Verb, &str) = (Verb::Post, "/standing/{id}/revoke");

const SECONDS_OF_A_DAY: u32 = 24 * 60 * 60;

/// `GET /standing`.
pub(super) async fn page(visit: Visit) -> Response {
    let found = match visit.look::<Vec<StandingView>>("/standing", "").await {
        Ok(found) => found,
        Err(refused) => {
            let body = visit.refusal("bailiwick/approvals", &refused);
            return inside(&visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let body = html! {
        @if visit.asked("done").as_deref() == Some("revoked") {
            p.notice.good role="status" { "It is taken back: the next call like it waits for a person." }
        }
        p.quiet { "A standing approval lets so many calls of one caller through. It is proposed on the page of a request." }
        @if found.is_empty() { p.quiet { "Nothing is approved beforehand." } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Calls" } th scope="col" { "For whom" } th scope="col" { "Where" }
                    th scope="col" { "State" } th scope="col" { "Used" } th scope="col" { "Until" }
                } }
                tbody {
                    @for view in found.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr {
                            th scope="row" data-label="Calls" {
                                a href=(visit.settings.path(&format!("{PAGE}/{}", view.id))) {
                                    code { (shown(&view.server)) "/" (shown(&view.name)) }
                                }
                                span.detail { (shown(&view.environment)) }
                            }
                            td data-label="For whom" { (shown(&view.requester)) }
                            td data-label="Where" { (shown(&view.condition)) }
                            td data-label="State" { (state(&view.state)) }
                            td data-label="Used" { (view.used) " of " (view.uses) }
                            td data-label="Until" { (moment(view.until)) }
                        }
                    }
                }
            }
            (beyond(found.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    };
    inside(&visit, StatusCode::OK, TITLE, PAGE, &body)
}

/// `GET /standing/{id}`.
pub(super) async fn one(visit: Visit, Path(id): Path<String>) -> Response {
    show(&visit, id, StatusCode::OK, None).await
}

/// `POST /standing`.
pub(super) async fn propose(posted: Posted) -> Response {
    let visit = &posted.visit;
    let number = |name: &str| posted.field(name).trim().parse::<u32>().ok();
    let (Some(uses), Some(days)) = (number("uses"), number("days")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "write how many calls, and for how many days");
    };
    let wish = Wish {
        like: posted.field("like"),
        condition: posted.field("condition").trim().to_owned(),
        uses,
        seconds: days.saturating_mul(SECONDS_OF_A_DAY),
        note: posted.field("note"),
    };
    match visit.send::<StandingView>(PROPOSE, None, &wish).await {
        Ok(view) => Redirect::to(&visit.settings.path(&format!("{PAGE}/{}", view.id))).into_response(),
        Err(refused) => {
            let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
            let body = html! {
                (visit.refusal("bailiwick/standing", &refused))
                @if again { (log_in_again(visit, &format!("/approvals/{}", wish.like))) }
            };
            inside(visit, refused.status, TITLE, PAGE, &body)
        }
    }
}

/// `POST /standing/{id}/approve`. The path is read first: what was posted consumes the request.
pub(super) async fn approve(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let Some(digest) = Digest::from_hex(&posted.field("shown")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "the form does not say what was shown: open the page again");
    };
    let sent = visit.send::<StandingView>(APPROVE, Some(id.clone()), &ApproveOrder { shown: digest }).await;
    match sent {
        Ok(view) => Redirect::to(&visit.settings.path(&format!("{PAGE}/{}", view.id))).into_response(),
        Err(refused) => show(visit, id, refused.status, Some(("bailiwick/standing", refused))).await,
    }
}

/// `POST /standing/{id}/revoke`.
pub(super) async fn revoke(Path(id): Path<String>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let order = TakeBackOrder { note: posted.field("note") };
    match visit.send::<StandingView>(REVOKE, Some(id.clone()), &order).await {
        Ok(_) => Redirect::to(&visit.settings.path(&format!("{PAGE}?done=revoked"))).into_response(),
        Err(refused) => show(visit, id, refused.status, Some(("bailiwick/standing-revoke", refused))).await,
    }
}

async fn show(visit: &Visit, id: String, status: StatusCode, refused: Option<(&str, Refused)>) -> Response {
    let told = refused.map(|(object, refused)| {
        let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
        html! {
            (visit.refusal(object, &refused))
            @if again { (log_in_again(visit, &format!("{PAGE}/{id}"))) }
        }
    });
    let looked = answered::<StandingView>(visit.order(SHOW, Some(id), "", Body::empty()).await).await;
    let view = match looked {
        Ok(view) => view,
        Err(refused) => {
            let body = html! { @if let Some(told) = &told { (told) } (visit.refusal("bailiwick/approvals", &refused)) };
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let body = html! {
        @if let Some(told) = &told { (told) }
        (facts(visit, &view))
        (decide(visit, &view))
    };
    inside(visit, status, TITLE, PAGE, &body)
}

fn facts(visit: &Visit, view: &StandingView) -> Markup {
    let or_none = |texts: &[String], none: &str| if texts.is_empty() { none.to_owned() } else { texts.join(", ") };
    html! {
        dl.facts {
            div.wide { dt { "Calls of" } dd { code { (shown(&view.server)) "/" (cut(&view.name, usize::MAX)) } " (" (shown(&view.action)) ")" } }
            div { dt { "Effects land in" } dd { (shown(&view.environment)) } }
            div { dt { "For whom" } dd { (shown(&view.requester)) } }
            div { dt { "Through" } dd { (shown(&or_none(&view.agents, "nobody"))) } }
            div { dt { "Under mandates of" } dd { (shown(view.template.as_deref().unwrap_or("no template: without a mandate"))) } }
            div { dt { "State" } dd { (state(&view.state)) @if !view.why.is_empty() { span.detail { (shown(&view.why)) } } } }
            div { dt { "Used" } dd { (view.used) " of " (view.uses) } }
            div { dt { "Good for" } dd { (view.seconds) " seconds from the last yes" } }
            div { dt { "Until" } dd { (moment(view.until)) } }
            div.wide { dt { "Where " code { (shown(&view.condition)) } } dd { (cut(&view.says, usize::MAX)) } }
            div.wide { dt { "Gates" } dd { (shown(&view.gates.join(", "))) } }
            div.wide { dt { "Approved by" } dd { (shown(&or_none(&view.approvers, "nobody"))) } }
            @if view.missing > 0 { div { dt { "Missing" } dd { (view.missing) " more" } } }
            @if !view.note.is_empty() { div.wide { dt { "Why" } dd { (shown(&view.note)) } } }
            @if let Some(definition) = &view.definition { div.wide { dt { "Definition" } dd { code { (shown(definition)) } } } }
            div.wide { dt { "Like" } dd { a href=(visit.settings.path(&format!("/approvals/{}", view.like))) { "the request that was looked at" } } }
        }
        p.quiet { "Digest " code { (view.shown.to_string()) } }
    }
}

fn decide(visit: &Visit, view: &StandingView) -> Markup {
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::Standing, now_s());
    let path = |what: &str| visit.settings.path(&format!("{PAGE}/{}/{what}", view.id));
    html! {
        @if view.state == "proposed" && visit.may(AdminOperation::Standing) {
            section aria-labelledby="approve" {
                h2 #approve { "Say yes" }
                p { "Once everybody has said yes, these calls happen without asking anybody, until they are used up." }
                @match &recent {
                    Ok(()) => {
                        form.confirm method="post" action=(path("approve")) {
                            (csrf(visit))
                            input type="hidden" name="shown" value=(view.shown.to_string());
                            p.buttons { button type="submit" { "Approve these calls" } }
                        }
                    }
                    Err(why) if why.reason == Reason::InsufficientUserAuthentication => (log_in_again(visit, &format!("{PAGE}/{}", view.id))),
                    Err(why) => p.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } },
                }
            }
        }
        @if visit.may(AdminOperation::StandingRevoke) {
            section aria-labelledby="revoke" {
                h2 #revoke { "Take it back" }
                form.confirm method="post" action=(path("revoke")) {
                    (csrf(visit))
                    label.whole { span { "Why?" } textarea name="note" rows="2" maxlength="500" {} }
                    p.buttons { button.danger type="submit" { "Take it back" } }
                }
            }
        }
    }
}

/// The form that proposes to approve calls like a request beforehand, on the page of that request.
pub(super) fn proposal(visit: &Visit, view: &ApprovalView) -> Markup {
    html! {
        @if visit.may(AdminOperation::Standing) && !view.only_confirmed {
            section aria-labelledby="beforehand" {
                h2 #beforehand { "Approve calls like it beforehand" }
                p { "Of this caller, to this tool, where a condition holds that leaves no argument open. A second person has to say yes." }
                form.confirm method="post" action=(visit.settings.path(PAGE)) {
                    (csrf(visit))
                    input type="hidden" name="like" value=(view.id);
                    label { span { "Condition" } input name="condition" required placeholder="small-rollout" autocomplete="off" spellcheck="false"; }
                    label { span { "Calls" } input name="uses" type="number" min="1" max=(limit::STANDING_USES_MAX) required; }
                    label { span { "Days" } input name="days" type="number" min="1" max="30" required; }
                    label.whole { span { "Why?" } textarea name="note" rows="2" maxlength="500" {} }
                    p.buttons { button type="submit" { "Propose it" } }
                }
            }
        }
    }
}

fn state(word: &str) -> Markup {
    let kind = match word {
        "active" => "good",
        "void" => "bad",
        "proposed" => "warn",
        _ => "quiet",
    };
    pill(kind, word)
}
