//! Labels: who carries which, since when and from which call; asking for one to be taken off, and confirming it.
//!
//! Decides nothing. Invariant: the page where somebody confirms says what goes, why, and who asked.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::labels::{
    CarrierKind, CarrierView, DeclassificationView, DeclassifiedView, DeclassifyOrder, LabelsReport,
};
use super::super::routes::Verb;
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const PAGE: &str = "/labels";
const TITLE: &str = "Labels";
const OBJECT: &str = "bailiwick/declassify";
const CONFIRM: (Verb, &str) = (Verb::Post, "/labels/declassify/{id}/confirm");
const WITHDRAW: (Verb, &str) = (Verb::Post, "/labels/declassify/{id}/withdraw");

/// `GET /labels`.
pub(super) async fn page(visit: Visit) -> Response {
    listed(&visit, StatusCode::OK, None).await
}

async fn listed(visit: &Visit, status: StatusCode, told: Option<Markup>) -> Response {
    let of = visit.asked("of");
    let query = of.as_deref().map(|of| format!("of={}", encoded(of))).unwrap_or_default();
    let report = match visit.look::<LabelsReport>("/labels", &query).await {
        Ok(report) => report,
        Err(refused) => {
            let body = visit.refusal("bailiwick/labels", &refused);
            return inside(visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let here = visit.settings.path(PAGE);
    let body = html! {
        @if let Some(told) = &told { (told) }
        @match visit.asked("done").as_deref() {
            Some("asked") => p.notice.good role="status" { "It waits for somebody else to confirm it." },
            Some("confirmed") => p.notice.good role="status" { "It is taken off, in force and on the record." },
            Some("withdrawn") => p.notice.good role="status" { "It is withdrawn: nothing was taken off." },
            _ => {}
        }
        section aria-labelledby="waiting" {
            h2 #waiting { "Waiting for a second person" }
            @if report.waiting.is_empty() { p.quiet { "Nothing waits." } }
            @for view in &report.waiting { (waiting(visit, view)) }
        }
        section aria-labelledby="carried" {
            h2 #carried { "Who carries what" }
            form.ask method="get" action=(here) {
                label.grow { span { "Only what this is part of" }
                    input name="of" placeholder="user:corp/anna, an agent, a mandate or a store" value=(of.as_deref().unwrap_or_default()); }
                button type="submit" { "Look" }
            }
            @if report.carriers.is_empty() { p.quiet { "Nobody carries a label." } } @else { (table(visit, &report)) }
            @if report.more { p.quiet { "There are more: name one above." } }
        }
    };
    inside(visit, status, TITLE, PAGE, &body)
}

fn table(visit: &Visit, report: &LabelsReport) -> Markup {
    let may = visit.may(AdminOperation::Declassify);
    html! {
        table {
            thead { tr {
                th scope="col" { "Carrier" } th scope="col" { "Labels" } th scope="col" { "Forgets by itself" }
                @if may { th scope="col" { "Take off" } }
            } }
            tbody {
                @for carrier in report.carriers.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                    tr {
                        th scope="row" data-label="Carrier" { (shown(&carrier.name)) span.detail { (carrier.kind.as_str()) } }
                        td data-label="Labels" { (labels(carrier)) }
                        td data-label="Forgets by itself" {
                            @match carrier.until { Some(until) => (moment(until)), None => span.quiet { "never" } }
                        }
                        @if may {
                            @let (kind, name) = (carrier.kind.as_str(), encoded(&carrier.name));
                            td data-label="Take off" {
                                a href=(visit.settings.path(&format!("{PAGE}/ask?kind={kind}&name={name}"))) { "Ask for it" }
                            }
                        }
                    }
                }
            }
        }
        (beyond(report.carriers.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
    }
}

fn labels(carrier: &CarrierView) -> Markup {
    html! {
        @for label in &carrier.labels {
            (pill("warn", &label.label))
            span.detail {
                @if let Some(since) = label.since { "since " (moment(since)) }
                @match &label.call {
                    Some(call) => { " from call " code { (shown(call)) } }
                    None => { @if label.since.is_some() { " handed on when it was opened" } }
                }
                @if let Some(by) = &label.by { " by " (shown(by)) }
            }
        }
    }
}

fn waiting(visit: &Visit, view: &DeclassificationView) -> Markup {
    let path = |what: &str| visit.settings.path(&format!("{PAGE}/{}/{what}", view.id));
    let may = visit.may(AdminOperation::Declassify);
    html! {
        div.subject {
            dl.facts {
                div.wide { dt { "Carrier" } dd { (shown(&view.name)) " (" (view.kind.as_str()) ")" } }
                div { dt { "It carries" } dd { (shown(&view.before.join(", "))) } }
                div { dt { "To be taken off" } dd { @for label in &view.labels { (pill("bad", label)) " " } } }
                div { dt { "Asked by" } dd { (shown(&view.asked_by)) } }
                div { dt { "Until" } dd { (moment(view.until)) } }
                div.wide { dt { "Why" } dd { (shown(&view.reason)) } }
            }
            @if may {
                @match recent(visit) {
                    Ok(()) => {
                        form.confirm method="post" action=(path("confirm")) {
                            (csrf(visit))
                            p.buttons { button.danger type="submit" { "Take it off" } }
                        }
                    }
                    Err(why) => (why),
                }
                form.confirm method="post" action=(path("withdraw")) {
                    (csrf(visit))
                    p.buttons { button.plain type="submit" { "Withdraw it" } }
                }
            }
        }
    }
}

/// `GET /labels/ask`: what is to be taken off one carrier, and why.
pub(super) async fn one(visit: Visit) -> Response {
    let (kind, name) = (visit.asked("kind").unwrap_or_default(), visit.asked("name").unwrap_or_default());
    one_page(&visit, &kind, &name, StatusCode::OK, None).await
}

async fn one_page(visit: &Visit, kind: &str, name: &str, status: StatusCode, told: Option<Markup>) -> Response {
    let title = "Take labels off";
    let report = match visit.look::<LabelsReport>("/labels", &format!("of={}", encoded(name))).await {
        Ok(report) => report,
        Err(refused) => {
            let body = visit.refusal("bailiwick/labels", &refused);
            return inside(visit, refused.status, title, PAGE, &body);
        }
    };
    let Some(carrier) = named(kind).and_then(|kind| report.carrier(kind, name)) else {
        let body = html! {
            p.problem role="alert" { "That carries no label: it is not known, or has forgotten." }
            p { a href=(visit.settings.path(PAGE)) { "To the labels" } }
        };
        return inside(visit, StatusCode::NOT_FOUND, title, PAGE, &body);
    };
    let body = html! {
        @if let Some(told) = &told { (told) }
        dl.facts {
            div.wide { dt { "Carrier" } dd { (shown(&carrier.name)) " (" (carrier.kind.as_str()) ")" } }
            div.wide { dt { "It carries" } dd { (labels(carrier)) } }
        }
        p { "Whatever it was kept from by these labels, it may do again. Somebody else has to confirm it; neither of you may "
            "have a part in what was seen." }
        @match recent(visit) {
            Ok(()) => {
                form.confirm method="post" action=(visit.settings.path(&format!("{PAGE}/ask"))) {
                    (csrf(visit))
                    input type="hidden" name="kind" value=(carrier.kind.as_str());
                    input type="hidden" name="name" value=(carrier.name);
                    fieldset {
                        legend { "Labels" }
                        @for label in &carrier.labels {
                            label { input type="checkbox" name=(format!("label-{}", label.label)) value="on"; " " (label.label) }
                        }
                    }
                    label.whole { span { "Why?" }
                        textarea name="reason" rows="2" required maxlength=(limit::DECLASSIFICATION_REASON_BYTES_MAX) {} }
                    p.buttons { button.danger type="submit" { "Ask for it" } }
                }
            }
            Err(why) => (why),
        }
    };
    inside(visit, status, title, PAGE, &body)
}

/// `POST /labels/ask`.
pub(super) async fn ask(posted: Posted) -> Response {
    let visit = &posted.visit;
    let (kind, name) = (posted.field("kind"), posted.field("name"));
    let Some(known) = named(&kind) else {
        return visit.problem(StatusCode::BAD_REQUEST, "the form does not say of what: open the page again");
    };
    let chosen = ["untrusted", "internal", "private", "regulated"];
    let chosen = chosen.iter().filter(|label| posted.field(&format!("label-{label}")) == "on");
    let order = DeclassifyOrder {
        kind: known,
        name: name.clone(),
        labels: chosen.map(ToString::to_string).collect(),
        reason: posted.field("reason"),
    };
    match visit.send::<DeclassificationView>((Verb::Post, "/labels/declassify"), None, &order).await {
        Ok(_) => Redirect::to(&visit.settings.path(&format!("{PAGE}?done=asked"))).into_response(),
        Err(refused) => {
            let told = visit.refusal(OBJECT, &refused);
            one_page(visit, &kind, &name, refused.status, Some(told)).await
        }
    }
}

/// `POST /labels/{id}/confirm`. The path is read first: what was posted consumes the request.
pub(super) async fn confirm(Path(id): Path<String>, posted: Posted) -> Response {
    let sent = posted.visit.send::<DeclassifiedView>(CONFIRM, Some(id), &()).await.map(drop);
    decided(&posted.visit, sent, "confirmed").await
}

/// `POST /labels/{id}/withdraw`.
pub(super) async fn withdraw(Path(id): Path<String>, posted: Posted) -> Response {
    let sent = posted.visit.send::<DeclassificationView>(WITHDRAW, Some(id), &()).await.map(drop);
    decided(&posted.visit, sent, "withdrawn").await
}

async fn decided(visit: &Visit, sent: Result<(), super::inside::Refused>, done: &str) -> Response {
    match sent {
        Ok(()) => Redirect::to(&visit.settings.path(&format!("{PAGE}?done={done}"))).into_response(),
        Err(refused) => {
            let told = visit.refusal(OBJECT, &refused);
            listed(visit, refused.status, Some(told)).await
        }
    }
}

/// Whether somebody has just logged in; else what they are told.
fn recent(visit: &Visit) -> Result<(), Markup> {
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::Declassify, now_s());
    recent.map_err(|why| match why.reason {
        Reason::InsufficientUserAuthentication => {
            let to = encoded(PAGE);
            html! {
                p.notice { "Taking a label off needs a login of a moment ago. You come back to the labels." }
                p { a.button href=(visit.settings.path(&format!("/login/start?fresh=1&to={to}"))) { "Log in again" } }
            }
        }
        _ => html! { p.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } } },
    })
}

fn named(kind: &str) -> Option<CarrierKind> {
    CarrierKind::ALL.into_iter().find(|known| known.as_str() == kind)
}
