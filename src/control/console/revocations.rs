//! What was taken back: the list, and giving it back, which needs a person who has just logged in.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{HeldRevocation, HeldRevocations, LiftOrder, Lifted};
use super::super::routes::Verb;
use super::inside::Refused;
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::revoke;
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const LIFT: (Verb, &str) = (Verb::Delete, "/revocations/{since}");

/// `GET /revocations`.
pub(super) async fn page(visit: Visit) -> Response {
    let form = revoke::form(&visit);
    let held = match visit.look::<HeldRevocations>("/revocations", "").await {
        Ok(held) => held,
        Err(refused) => {
            // Who may brake and not look must still find the brake.
            let body = html! { (visit.refusal("bailiwick/revocations", &refused)) (form) };
            return inside(&visit, refused.status, "Revocations", "/revocations", &body);
        }
    };
    let lifts = visit.may(AdminOperation::Lift);
    let body = html! {
        (done(&visit))
        section aria-labelledby="held" {
            h2 #held { "In force" }
            @if held.revocations.is_empty() { p.quiet { "Nothing is taken back." } }
            @else {
                table {
                    thead { tr {
                        th scope="col" { "What" } th scope="col" { "How" } th scope="col" { "By whom" }
                        th scope="col" { "Why" } th.number scope="col" { "Since" }
                        @if lifts { th scope="col" { span.unseen { "Give back" } } }
                    } }
                    tbody {
                        @for row in held.revocations.iter().rev().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                            tr {
                                th scope="row" data-label="What" { (what(row)) }
                                td data-label="How" { (mode(row)) }
                                td data-label="By whom" { (shown(&row.actor)) span.detail { (at(row.at)) } }
                                td data-label="Why" { @if row.note.is_empty() { span.quiet { "no reason given" } } @else { (shown(&row.note)) } }
                                td.number data-label="Since" { (row.since.0) }
                                @if lifts {
                                    td.act data-label="" {
                                        a href=(visit.settings.path(&format!("/revocations/{}/lift", row.since.0))) {
                                            "Lift" span.unseen { " the one since epoch " (row.since.0) } "…"
                                        }
                                    }
                                }
                            }
                        }
                    }
                }
                (beyond(held.revocations.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
            }
            p.quiet { "Revocation epoch " (held.epoch.0) "." }
        }
        (form)
    };
    inside(&visit, StatusCode::OK, "Revocations", "/revocations", &body)
}

/// What was done a moment ago. The query says it, so it says no more than that.
fn done(visit: &Visit) -> Markup {
    let epoch = visit.asked("epoch").and_then(|epoch| epoch.parse::<u64>().ok());
    match (visit.asked("done").as_deref(), epoch) {
        (Some("revoked"), Some(epoch)) => {
            html! { p.notice.good role="status" { "It holds from epoch " (epoch) " on." } }
        }
        (Some("revoked-unrecorded"), Some(epoch)) => html! {
            p.notice role="status" { "It holds from epoch " (epoch) " on, but the record does not say so: look at the journal." }
        },
        (Some("lifted"), Some(epoch)) => {
            html! { p.notice.good role="status" { "It was lifted with epoch " (epoch) "." } }
        }
        _ => html! {},
    }
}

/// `GET /revocations/{since}/lift`.
pub(super) async fn confirm_lift(visit: Visit, Path(since): Path<u64>) -> Response {
    lift_page(&visit, since, StatusCode::OK, None).await
}

/// `POST /revocations/{since}/lift`. The path is read first: what was posted consumes the request.
pub(super) async fn lift(Path(since): Path<u64>, posted: Posted) -> Response {
    let visit = &posted.visit;
    let order = LiftOrder { note: posted.field("note") };
    if order.note.is_empty() {
        let why = Some(html! { p.problem role="alert" { "Say why: whoever reads the record will ask." } });
        return lift_page(visit, since, StatusCode::BAD_REQUEST, why).await;
    }
    match visit.send::<Lifted>(LIFT, Some(since.to_string()), &order).await {
        Ok(lifted) => {
            let page = format!("/revocations?done=lifted&epoch={}", lifted.epoch.0);
            Redirect::to(&visit.settings.path(&page)).into_response()
        }
        Err(refused) => {
            let told = refusal(visit, since, &refused);
            lift_page(visit, since, refused.status, Some(told)).await
        }
    }
}

async fn lift_page(visit: &Visit, since: u64, status: StatusCode, told: Option<Markup>) -> Response {
    let title = "Lift a revocation";
    let held = match visit.look::<HeldRevocations>("/revocations", "").await {
        Ok(held) => held,
        Err(refused) => {
            let body = visit.refusal("bailiwick/revocations", &refused);
            return inside(visit, refused.status, title, "/revocations", &body);
        }
    };
    let Some(row) = held.revocations.iter().find(|row| row.since == RevocationEpoch(since)) else {
        let body = html! {
            p.problem role="alert" { "None holds since epoch " (since) ": it was lifted already, or ordered anew." }
            p { a href=(visit.settings.path("/revocations")) { "To the revocations" } }
        };
        return inside(visit, StatusCode::NOT_FOUND, title, "/revocations", &body);
    };
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::Lift, now_s());
    let body = html! {
        @if let Some(told) = &told { (told) }
        dl.facts {
            div.wide { dt { "What" } dd { (what(row)) } }
            div { dt { "How" } dd { (mode(row)) } }
            div { dt { "By whom" } dd { (shown(&row.actor)) } }
            div { dt { "When" } dd { (at(row.at)) } }
            div.wide { dt { "Why" } dd { @if row.note.is_empty() { span.quiet { "no reason given" } } @else { (shown(&row.note)) } } }
        }
        section {
        p { "Once it is lifted, whatever it stopped goes on at once." }
        @match &recent {
            Ok(()) => {
                form.confirm method="post" action=(visit.settings.path(&format!("/revocations/{since}/lift"))) {
                    (csrf(visit))
                    label.whole { span { "Why is it given back?" } textarea name="note" rows="2" required maxlength="500" {} }
                    p.buttons {
                        button.danger type="submit" { "Lift it" }
                        a href=(visit.settings.path("/revocations")) { "Leave it" }
                    }
                }
            }
            Err(why) if why.reason == Reason::InsufficientUserAuthentication => (log_in_again(visit, since)),
            Err(why) => p.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } },
        }
        }
    };
    inside(visit, status, title, "/revocations", &body)
}

fn log_in_again(visit: &Visit, since: u64) -> Markup {
    let to = encoded(&format!("/revocations/{since}/lift"));
    html! {
        p.notice { "Giving something back needs a login of a moment ago. You come back to this page." }
        p { a.button href=(visit.settings.path(&format!("/login/start?fresh=1&to={to}"))) { "Log in again" } }
    }
}

fn refusal(visit: &Visit, since: u64, refused: &Refused) -> Markup {
    let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
    html! {
        (visit.refusal("bailiwick/lift", refused))
        @if again { (log_in_again(visit, since)) }
    }
}

fn what(row: &HeldRevocation) -> Markup {
    html! {
        (row.target) " "
        @if !row.issuer.is_empty() { code { (shown(&row.issuer)) "/" (shown(&row.value)) } }
        @else if !row.value.is_empty() { code { (shown(&row.value)) } }
    }
}

fn mode(row: &HeldRevocation) -> Markup {
    match row.issued_before {
        None => html! { (pill("bad", "blocked")) },
        Some(before) => html! { (pill("warn", "signed out")) span.detail { "what was issued before " (at(before)) } },
    }
}

fn at(seconds: i64) -> Markup {
    jiff::Timestamp::from_second(seconds).map_or_else(|_| html! { (seconds) }, moment)
}
