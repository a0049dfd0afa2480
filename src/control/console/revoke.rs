//! Taking access back: what is named, what that would stop, and the order.
//!
//! Decides nothing but the order of the steps: whoever revokes sees first what it hits. Invariant: nothing is revoked
//! without a reason and without the page that shows its reach.

use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{Reach, RevocationOrder, Revoked, named};
use super::super::routes::Verb;
use super::layout::{csrf, inside, pill};
use super::text::shown;
use super::visit::{Posted, Visit};
use crate::limit;
use crate::policy::AdminOperation;

const TARGETS: &[(&str, &str)] = &[
    ("agent", "an agent"),
    ("server", "a server"),
    ("mandate", "a mandate (id)"),
    ("account", "a linked account (SERVER/SUB)"),
    ("subject", "a person"),
    ("client", "a client"),
    ("owner", "all that an owner answers for"),
    ("session", "a session (sid)"),
    ("token", "a token (jti or SHA-256)"),
    ("everything", "everything"),
];

/// The form that begins it.
pub(super) fn form(visit: &Visit) -> Markup {
    if !visit.may(AdminOperation::Revoke) {
        return html! {};
    }
    let chosen = visit.asked("target").unwrap_or_default();
    let order = RevocationOrder {
        target: chosen,
        issuer: visit.asked("issuer").unwrap_or_default(),
        value: named(&visit.asked("value").unwrap_or_default()).into_owned(),
        sign_out: false,
        note: String::new(),
    };
    html! { section aria-labelledby="revoke" { h2 #revoke { "Take access back" } (fields(visit, &order)) } }
}

fn fields(visit: &Visit, order: &RevocationOrder) -> Markup {
    let config = visit.console.operations.config();
    let issuers = config.iter().flat_map(|config| &config.issuers).map(|issuer| issuer.alias.to_string());
    html! {
        form.ask method="post" action=(visit.settings.path("/revocations/new")) {
            (csrf(visit))
            label { span { "What" }
                select name="target" {
                    @for (target, name) in TARGETS { option value=(target) selected[order.target == *target] { (name) } }
                }
            }
            label { span { "Issuer, for people and clients" }
                select name="issuer" {
                    option value="" { "–" }
                    @for issuer in issuers { option value=(issuer) selected[order.issuer == issuer] { (issuer) } }
                }
            }
            label.grow { span { "Name" } input name="value" value=(order.value) autocomplete="off" spellcheck="false"
                placeholder="coder, git, anna, user:corp/anna"; }
            label.whole { span { "Why" } textarea name="note" rows="2" required maxlength="500" { (order.note) } }
            label.check { input type="checkbox" name="sign_out" value="1" checked[order.sign_out]; span { "Only sign out: refuse what was issued before now" } }
            button type="submit" { "See what it stops" }
        }
    }
}

fn order(posted: &Posted) -> RevocationOrder {
    let target = posted.field("target");
    // What is left in a field that means nothing for this target is nobody's intention.
    let issuer = if matches!(target.as_str(), "subject" | "client") { posted.field("issuer") } else { String::new() };
    let value = if target == "everything" { String::new() } else { posted.field("value") };
    // A token that was pasted is on no page, and becomes the digest before anything else is known of it.
    let value = if target == "token" { named(&value).into_owned() } else { value };
    RevocationOrder { issuer, value, sign_out: posted.field("sign_out") == "1", note: posted.field("note"), target }
}

/// `POST /revocations/new`: what it would stop.
pub(super) async fn confirm(posted: Posted) -> Response {
    let visit = &posted.visit;
    let order = order(&posted);
    if order.note.is_empty() {
        return again(
            visit,
            &order,
            &html! { p.problem role="alert" { "Say why: whoever reads the record will ask." } },
        );
    }
    let reach = visit.send::<Reach>((Verb::Post, "/revocations/reach"), None, &order).await;
    let reach = match reach {
        Ok(reach) => reached(&order, &reach),
        // Who may brake and not look brakes without looking.
        Err(refused) if refused.status == StatusCode::FORBIDDEN => html! {
            p.notice { "What it stops is not shown to you." }
        },
        Err(refused) => return again(visit, &order, &visit.refusal("bailiwick/revocations", &refused)),
    };
    let body = html! {
        section {
        p { "You are about to take back: " b { (shown(&order.about())) } "." }
        (reach)
        p.quiet { "Why: " (shown(&order.note)) }
        form.confirm method="post" action=(visit.settings.path("/revocations")) {
            (csrf(visit))
            input type="hidden" name="target" value=(order.target);
            input type="hidden" name="issuer" value=(order.issuer);
            input type="hidden" name="value" value=(order.value);
            input type="hidden" name="note" value=(order.note);
            @if order.sign_out { input type="hidden" name="sign_out" value="1"; }
            p.buttons {
                button.danger type="submit" { "Revoke" }
                a href=(visit.settings.path("/revocations")) { "Leave it" }
            }
        }
        }
    };
    inside(visit, StatusCode::OK, "Take access back?", "/revocations", &body)
}

/// `POST /revocations`: the order.
pub(super) async fn revoke(posted: Posted) -> Response {
    let visit = &posted.visit;
    let order = order(&posted);
    if order.note.is_empty() {
        return again(
            visit,
            &order,
            &html! { p.problem role="alert" { "Say why: whoever reads the record will ask." } },
        );
    }
    match visit.send::<Revoked>((Verb::Post, "/revoke"), None, &order).await {
        Ok(revoked) => {
            let done = if revoked.warning.is_empty() { "revoked" } else { "revoked-unrecorded" };
            let page = format!("/revocations?done={done}&epoch={}", revoked.epoch.0);
            Redirect::to(&visit.settings.path(&page)).into_response()
        }
        Err(refused) => again(visit, &order, &visit.refusal("bailiwick/revoke", &refused)),
    }
}

fn again(visit: &Visit, order: &RevocationOrder, told: &Markup) -> Response {
    let body = html! { (told) section { (fields(visit, order)) } };
    inside(visit, StatusCode::BAD_REQUEST, "Take access back", "/revocations", &body)
}

fn reached(order: &RevocationOrder, reach: &Reach) -> Markup {
    let people = matches!(order.target.as_str(), "subject" | "session" | "token");
    html! {
        @if !reach.known { p.notice { (pill("warn", "unknown")) " The files know nothing of that name. Is it spelled right?" } }
        @if people && reach.known {
            p { "It stops everything of this " (if order.target == "subject" { "person" } else { &order.target })
                ", whichever assistant they use; calls under way are cut. No agent and no server as such is stopped." }
        } @else {
            (names("agent", "agents", "cannot act any more", &reach.agents))
            (names("server", "servers", "cannot be reached any more", &reach.servers))
        }
        @if order.target == "everything" { p.problem { "Nobody gets anything through this gateway until it is lifted." } }
    }
}

/// How many there are, and which.
fn names(one: &str, many: &str, effect: &str, names: &[String]) -> Markup {
    html! {
        p {
            b { (names.len()) " " (if names.len() == 1 { one } else { many }) } " " (effect)
            @if !names.is_empty() {
                ": "
                @for (place, name) in names.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX).enumerate() {
                    @if place > 0 { ", " }
                    code { (shown(name)) }
                }
                @if names.len() > limit::CONSOLE_ROWS_SHOWN_MAX { " and more" }
            }
            "."
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_names_are_shown_and_the_number_of_all() {
        let all: Vec<String> = (0..=limit::CONSOLE_ROWS_SHOWN_MAX).map(|number| format!("agent-{number}")).collect();
        let html = names("agent", "agents", "cannot act any more", &all).into_string();
        assert!(html.contains(&format!("<b>{} agents</b>", all.len())) && html.contains("and more"), "{html}");
        assert!(!html.contains(&all[limit::CONSOLE_ROWS_SHOWN_MAX]), "{html}");
        let some = names("agent", "agents", "cannot act any more", &all[1..]).into_string();
        assert!(!some.contains("and more") && some.contains(&all[limit::CONSOLE_ROWS_SHOWN_MAX]), "{some}");
    }
}
