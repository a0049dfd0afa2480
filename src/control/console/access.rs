//! *My access*: what somebody can call, why not, who answers for it and whom to ask. For everybody who signs in.
//!
//! Decides nothing: what may be known of a server is [`crate::gateway::access`]'s. Invariant: an object that somebody may
//! not know of is answered as one that does not exist.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::{AccessAnswer, AccessReport};
use super::accounts;
use super::layout::{csrf, inside, pill};
use super::questions;
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::control::governs::AccessWish;
use crate::gateway::access::{AccessItem, AccessServer, AccessStopped};
use crate::ids::AgentId;
use crate::limit;
use crate::outcome::{Failure, Reason, Stop};
use crate::record::redact;

/// `GET /access`.
pub(super) async fn page(visit: Visit) -> Response {
    let agent = visit.asked("agent").and_then(|agent| AgentId::new(&agent).ok());
    let operations = &visit.console.operations;
    let report = operations.access(&visit.caller, agent.as_ref());
    let asked = visit.asked("object");
    let answer = asked.as_deref().map(|object| {
        let action = visit.asked("action").unwrap_or_else(|| "call".to_owned());
        operations.access_to(&visit.caller, agent.as_ref(), object, &action)
    });
    let (usable, discoverable): (Vec<_>, Vec<_>) = report.servers.iter().partition(|server| server.usable);
    let own_accounts = accounts::section(&visit, &report).await;
    let body = html! {
        (with(&visit, &report))
        (stopped(&report.stopped))
        (own_accounts)
        section aria-labelledby="can" {
            h2 #can { "What you can use" }
            @if usable.is_empty() { p.quiet { "Nothing yet. Ask whoever runs this gateway, or the owner of a server below." } }
            @for server in &usable { (usable_server(server)) }
        }
        section aria-labelledby="why" {
            h2 #why { "Why can I not…?" }
            form.ask method="get" action=(visit.settings.path("/access")) hx-get=(visit.settings.path("/access"))
                hx-target="#answer" hx-select="#answer" hx-swap="outerHTML" {
                @if let Some(agent) = &report.agent { input type="hidden" name="agent" value=(agent); }
                label { span { "Tool, prompt or resource" }
                    input name="object" required placeholder="server/tool" value=(asked.as_deref().unwrap_or_default()); }
                (questions::actions(visit.asked("action").as_deref()))
                button type="submit" { "Ask" }
            }
            div #answer aria-live="polite" {
                @if visit.asked("done").is_some() { p.notice role="status" { "It is on the record, and whoever wants to hear of it is told." } }
                @if let (Some(object), Some(answer)) = (&asked, &answer) {
                    (told(object, answer.as_ref()))
                    @if let Some(answer) = answer.as_ref().filter(|answer| !answer.explanation.allowed) {
                        (ask_for_it(&visit, object, &answer.owner, report.agent.as_deref()))
                    }
                }
            }
        }
        @if !discoverable.is_empty() {
            section aria-labelledby="others" {
                h2 #others { "What else there is" }
                p.quiet { "You can use nothing of these. Their owners decide: ask about one of their tools, then for it." }
                table {
                    thead { tr { th scope="col" { "Server" } th scope="col" { "Environment" } th scope="col" { "Ask" } } }
                    tbody {
                        @for server in &discoverable {
                            tr {
                                th scope="row" data-label="Server" { code { (server.server) } span.detail { (shown(&server.title)) } }
                                td data-label="Environment" { (shown(&server.environment)) }
                                td data-label="Ask" { (shown(&server.owner)) }
                            }
                        }
                    }
                }
            }
        }
    };
    inside(&visit, StatusCode::OK, "My access", "/access", &body)
}

/// With which assistant.
fn with(visit: &Visit, report: &AccessReport) -> Markup {
    html! {
        p {
            "You are " b { (shown(&visit.session.person)) } "."
            @match &report.agent {
                Some(agent) => { " This is what you can do with the assistant " b { (shown(agent)) } ": you and it must both be allowed." }
                None => { " This is what you can do yourself; the assistant that you use must be allowed as well." }
            }
        }
        @if report.agents.len() > 1 {
            form.ask method="get" action=(visit.settings.path("/access")) {
                label { span { "Assistant" }
                    select name="agent" {
                        @for agent in &report.agents {
                            option value=(agent) selected[report.agent.as_ref() == Some(agent)] { (agent) }
                        }
                    }
                }
                button type="submit" { "Look" }
            }
        }
    }
}

/// The agents that whoever looks answers for, and that were stopped.
fn stopped(stopped: &[AccessStopped]) -> Markup {
    html! {
        @if !stopped.is_empty() {
            section aria-labelledby="stopped" {
                h2 #stopped { "Agents of yours that were stopped" }
                table {
                    thead { tr { th scope="col" { "Agent" } th scope="col" { "By" } th scope="col" { "Why" } } }
                    tbody {
                        @for one in stopped {
                            tr {
                                th scope="row" data-label="Agent" {
                                    code { (one.agent) }
                                    @if let Some(subject) = &one.subject { span.detail { "for " (shown(subject)) } }
                                }
                                td data-label="By" {
                                    (pill("bad", if one.retired { "retired" } else { "suspended" }))
                                    span.detail { (shown(&one.by)) " " (moment_of(one.at)) }
                                }
                                td data-label="Why" { (shown(&one.note)) }
                            }
                        }
                    }
                }
            }
        }
    }
}

fn moment_of(at: i64) -> Markup {
    html! { @match jiff::Timestamp::from_second(at) { Ok(at) => (moment(at)), Err(_) => "?" } }
}

fn usable_server(server: &AccessServer) -> Markup {
    html! {
        details.server open {
            summary {
                code { (server.server) } " " (shown(&server.title))
                span.quiet { " in " (shown(&server.environment)) ", owned by " (shown(&server.owner)) }
            }
            @if server.listed_for_each { p.quiet { "Its list is made for each caller: your assistant shows it." } }
            @else if server.items.is_empty() { p.quiet { "It offers you nothing just now." } }
            @else {
                table {
                    thead { tr { th scope="col" { "Name" } th scope="col" { "Now" } th scope="col" { "Description" } } }
                    tbody { @for item in &server.items { (item_row(item)) } }
                }
            }
            @if server.more > 0 { p.quiet { (server.more) " more are not shown." } }
        }
    }
}

fn item_row(item: &AccessItem) -> Markup {
    html! {
        tr {
            th scope="row" data-label="Name" { code { (shown(&item.name)) } span.detail { (item.kind) } }
            td data-label="Now" {
                @match item.reason {
                    None => (pill("good", "allowed")),
                    Some(Reason::ConditionUnmet) => { (pill("warn", "depends")) span.detail { "on how it is called" } }
                    Some(reason) => { (pill("bad", "refused")) span.detail { code { (reason.code()) } " " (shown(&item.hint)) } }
                }
            }
            td data-label="Description" { (shown(&item.description)) }
        }
    }
}

fn told(object: &str, answer: Option<&AccessAnswer>) -> Markup {
    match answer {
        None => html! {
            p.notice { "There is no " code { (shown(object)) } " that you may know of. Write SERVER/TOOL; if you are sure "
                "of the name, ask whoever runs this gateway." }
        },
        Some(AccessAnswer { owner, explanation }) => html! {
            (questions::explained(explanation))
            @if explanation.reason == Some(Reason::NotAllowed) && explanation.subjects.iter().any(|own| own.allowed) {
                p { "Your own rules allow it; those of the assistant do not." }
            }
            @if !explanation.allowed { p { "To be allowed, ask the server's owner: " b { (shown(owner)) } "." } }
        },
    }
}

fn ask_for_it(visit: &Visit, object: &str, owner: &str, agent: Option<&str>) -> Markup {
    let action = visit.asked("action").unwrap_or_else(|| "call".to_owned());
    html! {
        form.ask method="post" action=(visit.settings.path("/access")) {
            (csrf(visit))
            input type="hidden" name="object" value=(object);
            input type="hidden" name="action" value=(action);
            @if let Some(agent) = agent { input type="hidden" name="agent" value=(agent); }
            label { span { "What you need it for" } input name="note" maxlength=(limit::CONSOLE_TEXT_CHARACTERS_MAX); }
            button type="submit" { "Ask for it" span.unseen { " (of " (owner) ")" } }
        }
    }
}

/// `POST /access`: asks for what one may not use.
pub(super) async fn wish(posted: Posted) -> Response {
    let [object, action, note] = ["object", "action", "note"].map(|name| posted.field(name));
    let agent = AgentId::new(&posted.field("agent")).ok();
    let note: String = redact::secrets(&note).chars().take(limit::CONSOLE_TEXT_CHARACTERS_MAX).collect();
    let (operations, caller) = (Arc::clone(&posted.visit.console.operations), posted.visit.caller.clone());
    let (asked, with) = ((object.clone(), action.clone()), agent.clone());
    let asking = async move {
        let wish = AccessWish { object: &asked.0, action: &asked.1, agent: with.as_ref(), note: &note };
        operations.wish(&caller, wish).await
    };
    // Whoever hangs up leaves a record all the same.
    let told = tokio::spawn(asking).await;
    match told.unwrap_or_else(|error| Err(Failure::after(Reason::Internal, error.to_string()).into())) {
        Ok(_) => {
            let mut query = url::form_urlencoded::Serializer::new(String::new());
            query.append_pair("object", &object).append_pair("action", &action).append_pair("done", "asked");
            if let Some(agent) = &agent {
                query.append_pair("agent", agent.as_str());
            }
            Redirect::to(&posted.visit.settings.path(&format!("/access?{}", query.finish()))).into_response()
        }
        Err(Stop::Refused(refusal)) => posted.visit.problem(StatusCode::CONFLICT, &refusal.hint),
        Err(Stop::Failed(failure)) => posted.visit.problem(StatusCode::SERVICE_UNAVAILABLE, &failure.detail),
    }
}
