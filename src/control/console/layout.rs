//! What every page has around it: head, navigation, who is signed in.
//!
//! Decides which pages somebody is offered: those whose operation the rules let them do now. Invariant: nothing here is
//! script or style; both are files.

use axum::response::{IntoResponse as _, Response};
use http::StatusCode;
use maud::{DOCTYPE, Markup, html};

use super::assets;
use super::text::shown;
use super::visit::{Settings, Visit};
use crate::policy::AdminOperation;

/// What htmx may not do, which is all that the content policy forbids anyway.
const HTMX: &str = r#"{"allowEval":false,"includeIndicatorStyles":false,"selfRequestsOnly":true,"allowScriptTags":false,"historyCacheSize":0,"scrollIntoViewOnBoost":false}"#;

/// The pages: where, what they are called, and which operation they need.
const PAGES: &[(&str, &str, Option<AdminOperation>)] = &[
    ("/", "Overview", Some(AdminOperation::Status)),
    ("/log", "Live log", Some(AdminOperation::Logs)),
    ("/servers", "Servers", Some(AdminOperation::Servers)),
    ("/agents", "Agents", Some(AdminOperation::Agents)),
    ("/mandates", "Mandates", Some(AdminOperation::Mandates)),
    ("/ask", "Who can what", Some(AdminOperation::Explain)),
    ("/approvals", "Approvals", Some(AdminOperation::Approvals)),
    ("/standing", "Beforehand", Some(AdminOperation::Approvals)),
    ("/break-glass", "Emergency", Some(AdminOperation::Approvals)),
    ("/labels", "Labels", Some(AdminOperation::Labels)),
    ("/revocations", "Revocations", Some(AdminOperation::Revocations)),
    ("/reviews", "Reviews", Some(AdminOperation::Reviews)),
    ("/policy", "Policy", Some(AdminOperation::Policy)),
    ("/definitions", "Definitions", Some(AdminOperation::Pins)),
    ("/access", "My access", None),
];

/// A page for somebody who is signed in.
pub(super) fn inside(visit: &Visit, status: StatusCode, title: &str, current: &str, body: &Markup) -> Response {
    let settings = &visit.settings;
    let offered = PAGES.iter().filter(|(_, _, operation)| operation.is_none_or(|operation| visit.may(operation)));
    let frame = html! {
        header {
            div.brand { a href=(settings.path("/")) { "Bailiwick" } span.place { (settings.name()) } }
            nav aria-label="Pages" {
                ul {
                    @for (path, name, _) in offered {
                        li { a href=(settings.path(path)) aria-current=[(*path == current).then_some("page")] { (name) } }
                    }
                }
            }
            form.person method="post" action=(settings.path("/logout")) {
                (csrf(visit))
                span { (shown(&visit.session.person)) }
                button.plain type="submit" { "Sign out" }
            }
        }
        main #content tabindex="-1" {
            h1 { (title) }
            (body)
        }
    };
    document(settings, status, title, "inside", &frame)
}

/// A page for whoever comes.
pub(super) fn outside(settings: &Settings, status: StatusCode, title: &str, body: &Markup) -> Response {
    let frame = html! {
        main #content.alone tabindex="-1" {
            p.brand { "Bailiwick" }
            h1 { (title) }
            (body)
        }
    };
    document(settings, status, title, "outside", &frame)
}

fn document(settings: &Settings, status: StatusCode, title: &str, class: &str, frame: &Markup) -> Response {
    let page = html! {
        (DOCTYPE)
        html lang="en" {
            head {
                meta charset="utf-8";
                meta name="viewport" content="width=device-width, initial-scale=1";
                meta name="color-scheme" content="light dark";
                meta name="htmx-config" content=(HTMX);
                title { (title) " – Bailiwick" }
                // No request for an icon that is not there.
                link rel="icon" href="data:,";
                link rel="stylesheet" href=(assets::path(settings, assets::STYLE));
                script src=(assets::path(settings, assets::HTMX)) defer {}
                script src=(assets::path(settings, assets::SCRIPT)) defer {}
            }
            body class=(class) {
                a.skip href="#content" { "Skip to the content" }
                (frame)
            }
        }
    };
    (status, page_response(page)).into_response()
}

fn page_response(page: Markup) -> Response {
    ([(http::header::CONTENT_TYPE, "text/html; charset=utf-8")], page.into_string()).into_response()
}

/// What every form carries.
pub(super) fn csrf(visit: &Visit) -> Markup {
    html! { input type="hidden" name="csrf" value=(visit.session.csrf); }
}

/// A word with a colour: good, bad, warn or quiet. The colour says nothing that the word does not.
pub(super) fn pill(kind: &str, word: &str) -> Markup {
    html! { span class=(format!("pill {kind}")) { (word) } }
}

/// How many rows there are beyond those that are shown.
pub(super) fn beyond(all: usize, shown: usize) -> Markup {
    html! { @if all > shown { p.quiet { (all - shown) " more are not shown: ask the API or the command line for all." } } }
}
