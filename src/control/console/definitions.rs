//! Definitions that servers list: which wait for somebody, what changes with each, accepting and rejecting them.
//!
//! Decides nothing. Invariant: what is accepted is named by the digest of what the page showed, so that a definition that
//! changes while somebody reads is not the one that they accept.

use axum::extract::Path;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{PinDiff, PinDiffs, PinOrder, PinStatus, PinsChanged, PinsReport};
use super::super::routes::Verb;
use super::inside::Refused;
use super::layout::{beyond, csrf, inside, pill};
use super::login::encoded;
use super::text::{cut, moment, shown};
use super::visit::{Posted, Visit};
use crate::identity::now_s;
use crate::ids::{DefinitionDigest, Digest, PinKind};
use crate::limit;
use crate::outcome::Reason;
use crate::policy::AdminOperation;

const PAGE: &str = "/definitions";
const TITLE: &str = "Definitions";

/// `GET /definitions`.
pub(super) async fn page(visit: Visit) -> Response {
    let report = match visit.look::<PinsReport>("/pins", "").await {
        Ok(report) => report,
        Err(refused) => {
            let body = visit.refusal("bailiwick/pins", &refused);
            return inside(&visit, refused.status, TITLE, PAGE, &body);
        }
    };
    let (waiting, decided): (Vec<_>, Vec<_>) = report.pins.iter().partition(|pin| waits(pin));
    let body = html! {
        @match visit.asked("done").as_deref() {
            Some("accepted") => p.notice.good role="status" { "It is accepted, and shown from now on." },
            Some("rejected") => p.notice.good role="status" { "It is rejected, and shown to nobody." },
            _ => {}
        }
        section aria-labelledby="waiting" {
            h2 #waiting { "Waiting for somebody" }
            @if waiting.is_empty() { p.quiet { "Nothing waits: whatever is listed was accepted." } }
            @else {
                p.quiet { "Nobody is shown these, and nobody can call them, until they are accepted." }
                (table(&visit, &waiting))
            }
        }
        section aria-labelledby="decided" {
            h2 #decided { "Decided" }
            @if decided.is_empty() { p.quiet { "Nothing is accepted yet." } } @else { (table(&visit, &decided)) }
        }
        section aria-labelledby="servers" {
            h2 #servers { "Servers" }
            ul {
                @for of in report.servers.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                    li {
                        code { (of.server) } " has pins = " code { (of.pins) }
                        @if of.pins == "first_use" && !of.first_use_taken { ": its first complete list is still to come" }
                    }
                }
            }
            (beyond(report.servers.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    };
    inside(&visit, StatusCode::OK, TITLE, PAGE, &body)
}

fn waits(pin: &PinStatus) -> bool {
    matches!(pin.state.as_str(), "new" | "changed")
}

fn table(visit: &Visit, pins: &[&PinStatus]) -> Markup {
    html! {
        table {
            thead { tr {
                th scope="col" { "Definition" } th scope="col" { "State" } th scope="col" { "By whom" }
                th scope="col" { "Digest" }
            } }
            tbody {
                @for pin in pins.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                    tr {
                        th scope="row" data-label="Definition" {
                            a href=(visit.settings.path(&format!("{PAGE}/{}", pin.digest))) { (name(pin)) }
                            span.detail { (pin.kind) @if let Some(before) = &pin.renamed_from { ", was called " (shown(before)) } }
                        }
                        td data-label="State" { (state(pin)) }
                        td data-label="By whom" { @if pin.by.is_empty() { span.quiet { "nobody" } } @else { (shown(&pin.by)) } }
                        td data-label="Digest" { code { (pin.digest.0.short()) } }
                    }
                }
            }
        }
        (beyond(pins.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
    }
}

fn name(pin: &PinStatus) -> Markup {
    let own = if pin.name.is_empty() { pin.kind.as_str() } else { &pin.name };
    html! { code { (pin.server) "/" (shown(own)) } }
}

fn state(pin: &PinStatus) -> Markup {
    let kind = match pin.state.as_str() {
        "accepted" => "good",
        "new" => "warn",
        "removed" => "quiet",
        _ => "bad",
    };
    html! {
        (pill(kind, &pin.state))
        @for flag in &pin.flags { " " (pill("bad", flag.as_str())) }
    }
}

/// `GET /definitions/{digest}`.
pub(super) async fn one(visit: Visit, Path(digest): Path<String>) -> Response {
    one_page(&visit, &digest, StatusCode::OK, None).await
}

/// `POST /definitions/{digest}/accept`. The path is read first: what was posted consumes the request.
pub(super) async fn accept(Path(digest): Path<String>, posted: Posted) -> Response {
    order(&posted, &digest, "/pins/accept", "accepted", "bailiwick/pins-accept").await
}

/// `POST /definitions/{digest}/reject`.
pub(super) async fn reject(Path(digest): Path<String>, posted: Posted) -> Response {
    order(&posted, &digest, "/pins/reject", "rejected", "bailiwick/pins-reject").await
}

async fn order(
    posted: &Posted,
    digest: &str,
    path: &'static str,
    done: &'static str,
    object: &'static str,
) -> Response {
    let visit = &posted.visit;
    let note = posted.field("note");
    if note.is_empty() {
        let why = html! { p.problem role="alert" { "Say why: whoever reads the record will ask." } };
        return one_page(visit, digest, StatusCode::BAD_REQUEST, Some(why)).await;
    }
    let pins = Digest::from_hex(digest).map(DefinitionDigest).into_iter().collect();
    let order = PinOrder { server: posted.field("server"), pins, note };
    match visit.send::<PinsChanged>((Verb::Post, path), None, &order).await {
        Ok(_) => Redirect::to(&visit.settings.path(&format!("{PAGE}?done={done}"))).into_response(),
        Err(refused) => {
            let again = refused.problem.reason == Reason::InsufficientUserAuthentication.code();
            let told = html! {
                (visit.refusal(object, &refused))
                @if again { (log_in_again(visit, digest)) }
            };
            one_page(visit, digest, refused.status, Some(told)).await
        }
    }
}

/// The definition of that digest, and what changes with it.
async fn found(visit: &Visit, digest: &str) -> Result<Option<PinDiff>, Refused> {
    let report = visit.look::<PinsReport>("/pins", "").await?;
    let Some(pin) = report.pins.into_iter().find(|pin| pin.digest.to_string() == digest) else { return Ok(None) };
    let name = if pin.kind == PinKind::Instructions { pin.kind.as_str() } else { &pin.name };
    let (server, name) = (encoded(&pin.server), encoded(name));
    let query = format!("server={server}&name={name}&kind={}&digest={}", pin.kind, pin.digest);
    let diffs = visit.look::<PinDiffs>("/pins/diff", &query).await?;
    // It may be gone since.
    Ok(Some(diffs.diffs.into_iter().next().unwrap_or(PinDiff { pin, against: None, text: String::new() })))
}

async fn one_page(visit: &Visit, digest: &str, status: StatusCode, told: Option<Markup>) -> Response {
    let title = "A definition";
    let diff = match found(visit, digest).await {
        Ok(Some(diff)) => diff,
        Ok(None) => {
            let body = html! {
                p.problem role="alert" { "Nobody lists that any more: it changed again, or it was decided elsewhere." }
                p { a href=(visit.settings.path(PAGE)) { "To the definitions" } }
            };
            return inside(visit, StatusCode::NOT_FOUND, title, PAGE, &body);
        }
        Err(refused) => {
            let body = visit.refusal("bailiwick/pins", &refused);
            return inside(visit, refused.status, title, PAGE, &body);
        }
    };
    let pin = &diff.pin;
    let body = html! {
        @if let Some(told) = &told { (told) }
        dl.facts {
            div { dt { "Definition" } dd { (name(pin)) } }
            div { dt { "Kind" } dd { (pin.kind) } }
            div { dt { "State" } dd { (state(pin)) } }
            div { dt { "By whom" } dd { @if pin.by.is_empty() { span.quiet { "nobody" } } @else { (shown(&pin.by)) } } }
            @if pin.at > 0 && let Ok(at) = jiff::Timestamp::from_second(pin.at) { div { dt { "Since" } dd { (moment(at)) } } }
            @if let Some(before) = &pin.renamed_from { div { dt { "Was called" } dd { code { (shown(before)) } } } }
            @if !pin.note.is_empty() { div.wide { dt { "Why" } dd { (shown(&pin.note)) } } }
            div.wide { dt { "Digest" } dd { code.long { (pin.digest) } } }
        }
        section aria-labelledby="text" {
            h2 #text { @if diff.against.is_some() { "What changes" } @else { "What it says" } }
            @if diff.text.is_empty() {
                p.quiet { "Nobody knows what it says: it is not listed now, and its words were not kept." }
            }
            @else { pre.difference { (lines(&diff.text)) } }
        }
        (forms(visit, &diff, digest))
    };
    inside(visit, status, title, PAGE, &body)
}

/// Line by line, cut to what a page holds.
fn lines(text: &str) -> Markup {
    let count = text.lines().count();
    html! {
        @for line in text.lines().take(limit::CONSOLE_DIFF_LINES_SHOWN_MAX) {
            @let class = match line.chars().next() { Some('+') => "plus", Some('-') => "minus", _ => "same" };
            span class=(class) { (cut(line, usize::MAX)) } "\n"
        }
        @if count > limit::CONSOLE_DIFF_LINES_SHOWN_MAX {
            span.quiet { (count - limit::CONSOLE_DIFF_LINES_SHOWN_MAX) " more lines: bailiwick pins diff shows all" }
        }
    }
}

fn forms(visit: &Visit, PinDiff { pin, text, .. }: &PinDiff, digest: &str) -> Markup {
    // Nobody accepts what they were not shown.
    let may_accept = !text.is_empty() && !matches!(pin.state.as_str(), "accepted" | "removed");
    let recent = visit.actor().may_loosen(Some(&visit.settings.admin), AdminOperation::PinsAccept, now_s());
    let form = |what: &str, word: &str, class: &str| {
        html! {
            form.confirm method="post" action=(visit.settings.path(&format!("{PAGE}/{digest}/{what}"))) {
                (csrf(visit))
                input type="hidden" name="server" value=(pin.server);
                label.whole { span { "Why?" } textarea name="note" rows="2" required maxlength="500" {} }
                p.buttons { button class=(class) type="submit" { (word) } }
            }
        }
    };
    html! {
        @if visit.may(AdminOperation::PinsAccept) && may_accept {
            section aria-labelledby="accept" {
                h2 #accept { "Accept it" }
                p { "Whoever the rules allow is shown it as it stands here, and can call it." }
                @match &recent {
                    Ok(()) => (form("accept", "Accept it", "danger")),
                    Err(why) if why.reason == Reason::InsufficientUserAuthentication => (log_in_again(visit, digest)),
                    Err(why) => p.problem role="alert" { (shown(&why.hint)) " " code { (why.reason.code()) } },
                }
            }
        }
        @if visit.may(AdminOperation::PinsReject) && pin.state != "rejected" {
            section aria-labelledby="reject" {
                h2 #reject { "Reject it" }
                p { "Nobody is shown it, whatever else accepts it, until somebody accepts it here." }
                (form("reject", "Reject it", "plain"))
            }
        }
    }
}

fn log_in_again(visit: &Visit, digest: &str) -> Markup {
    let to = encoded(&format!("{PAGE}/{digest}"));
    html! {
        p.notice { "Accepting needs a login of a moment ago. You come back to this page." }
        p { a.button href=(visit.settings.path(&format!("/login/start?fresh=1&to={to}"))) { "Log in again" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn so_many_lines_of_a_difference_are_shown_and_nothing_in_them_is_markup() {
        let text = "+<script>\n".repeat(limit::CONSOLE_DIFF_LINES_SHOWN_MAX + 3);
        let html = lines(&text).into_string();
        assert_eq!(html.matches("class=\"plus\"").count(), limit::CONSOLE_DIFF_LINES_SHOWN_MAX);
        assert!(html.contains("3 more lines") && !html.contains("<script"));
    }
}
