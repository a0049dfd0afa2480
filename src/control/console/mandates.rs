//! Mandates: which tasks agents have, what is left of them, and ending one.
//!
//! Decides nothing. Refuses to open any: who gives a task says so where it is made. Invariant: one that is over has no
//! button.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::governs::MandateStatus;
use super::super::routes::Verb;
use super::inside::Refused;
use super::layout::{beyond, csrf, inside, pill};
use super::text::{cut, moment, shown};
use super::visit::{Posted, Visit};
use crate::limit;
use crate::policy::AdminOperation;

const PAGE: &str = "/mandates";
const TITLE: &str = "Mandates";
const SHOW: (Verb, &str) = (Verb::Get, "/mandates/{id}");
const COMPLETE: (Verb, &str) = (Verb::Post, "/mandates/{id}/complete");
/// A purpose is a sentence; more of it is in the record.
const PURPOSE_CHARACTERS_MAX: usize = 200;

/// `GET /mandates`.
pub(super) async fn page(visit: Visit) -> Response {
    listed(&visit, StatusCode::OK, None).await
}

async fn listed(visit: &Visit, status: StatusCode, told: Option<Markup>) -> Response {
    let mandates = match visit.look::<Vec<MandateStatus>>("/mandates", "").await {
        Ok(mandates) => mandates,
        Err(refused) => {
            let body = visit.refusal("bailiwick/mandates", &refused);
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let (active, over): (Vec<_>, Vec<_>) = mandates.iter().partition(|status| status.state == "active");
    let body = html! {
        @if let Some(told) = &told { (told) }
        @if visit.asked("done").is_some() {
            p.notice.good role="status" { "It is over: nothing is called under it any more, and its credentials are taken back." }
        }
        section aria-labelledby="active" {
            h2 #active { "Under way" }
            @if active.is_empty() { p.quiet { "No agent has a task." } } @else { (table(visit, &active)) }
        }
        @if !over.is_empty() {
            section aria-labelledby="over" {
                h2 #over { "Over" }
                (table(visit, &over))
            }
        }
    };
    inside(visit, status, TITLE, PAGE, &body)
}

fn table(visit: &Visit, mandates: &[&MandateStatus]) -> Markup {
    let may = visit.may(AdminOperation::Mandate) && mandates.iter().any(|status| status.state == "active");
    html! {
        table {
            thead { tr {
                th scope="col" { "Task" } th scope="col" { "Whose" } th scope="col" { "Opened by" }
                th scope="col" { "Until" }
                @if may { th scope="col" { span.unseen { "End it" } } }
            } }
            tbody {
                @for status in mandates.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { (row(visit, status, may)) }
            }
        }
        (beyond(mandates.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
    }
}

fn row(visit: &Visit, status: &MandateStatus, may: bool) -> Markup {
    let mandate = &status.mandate;
    let template = mandate.template.as_ref().map_or("no template", |template| template.as_str());
    let kind = match status.state.as_str() {
        "active" => "good",
        "revoked" => "bad",
        _ => "quiet",
    };
    html! {
        tr {
            th scope="row" data-label="Task" {
                (shown(template)) " " (pill(kind, &status.state))
                a.detail href=(visit.settings.path(&format!("{PAGE}/{}", mandate.id.as_str()))) { (mandate.id.as_str()) }
                @if !mandate.purpose.is_empty() { span.detail { (cut(&mandate.purpose, PURPOSE_CHARACTERS_MAX)) } }
            }
            td data-label="Whose" {
                @match &mandate.agent { Some(agent) => code { (agent) }, None => span.quiet { "no agent" } }
                @if let Some(subject) = &mandate.subject { span.detail { "for " (shown(subject)) } }
            }
            td data-label="Opened by" {
                (shown(&mandate.opener))
                @if let Some(above) = mandate.above.last() { span.detail { "under " code { (above.as_str()) } } }
            }
            td data-label="Until" {
                @match jiff::Timestamp::from_microsecond(mandate.ends_us) { Ok(at) => (moment(at)), Err(_) => "?" }
            }
            @if may { td.act data-label="" { @if status.state == "active" { (end(visit, mandate.id.as_str())) } } }
        }
    }
}

fn end(visit: &Visit, id: &str) -> Markup {
    html! {
        form method="post" action=(visit.settings.path(&format!("{PAGE}/{id}/complete"))) {
            (csrf(visit))
            button.danger type="submit" { "End it" span.unseen { " (" (id) ")" } }
        }
    }
}

/// `GET /mandates/{id}`: what is left of it, and what was called under it.
pub(super) async fn one(Path(id): Path<String>, visit: Visit) -> Response {
    let status = match visit.send::<MandateStatus>(SHOW, Some(id), &()).await {
        Ok(status) => status,
        Err(refused) => {
            let body = visit.refusal("bailiwick/mandates", &refused);
            return inside(&visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let (mandate, left) = (&status.mandate, status.left);
    let narrowed = |texts: &[String]| shown(&texts.join(", "));
    let body = html! {
        dl.facts {
            div.wide { dt { "Task" } dd { code { (mandate.id.as_str()) } " " (pill("quiet", &status.state)) } }
            div.wide { dt { "What for" } dd {
                @if mandate.purpose.is_empty() { span.quiet { "its opener did not say" } } @else { (shown(&mandate.purpose)) }
            } }
            div { dt { "Calls left" } dd { @match left.calls { Some(calls) => (calls), None => "as many as the time allows" } } }
            div { dt { "Bytes left" } dd { @match left.bytes { Some(bytes) => (bytes), None => "no limit" } } }
            @if let Some(tools) = &mandate.tools { div.wide { dt { "Only these tools" } dd { (narrowed(tools)) } } }
            @if !mandate.conditions.is_empty() { div.wide { dt { "Only where" } dd { (narrowed(&mandate.conditions)) } } }
            @for (server, calls) in status.calls.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                div { dt { "Called at " (shown(server)) } dd { (calls) } }
            }
        }
        @if status.state == "active" && visit.may(AdminOperation::Mandate) { (end(&visit, mandate.id.as_str())) }
        p { a href=(visit.settings.path(PAGE)) { "All mandates" } }
    };
    inside(&visit, StatusCode::OK, TITLE, PAGE, &body)
}

/// `POST /mandates/{id}/complete`. The path is read first: what was posted consumes the request.
pub(super) async fn complete(Path(id): Path<String>, posted: Posted) -> Response {
    let sent: Result<MandateStatus, Refused> = posted.visit.send(COMPLETE, Some(id), &()).await;
    match sent {
        Ok(_) => Redirect::to(&posted.visit.settings.path(&format!("{PAGE}?done=ended"))).into_response(),
        Err(refused) => {
            let told = posted.visit.refusal("bailiwick/mandate", &refused);
            listed(&posted.visit, refused.status, Some(told)).await
        }
    }
}
