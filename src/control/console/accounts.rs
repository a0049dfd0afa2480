//! The accounts that whoever is signed in has linked, on their page *my access*: seen, linked, taken back.
//!
//! Decides nothing: what is theirs is found by their own name. Invariant: nobody sees or takes back another's here.

use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::AccessReport;
use super::layout::{csrf, pill};
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::gateway::accounts::Linked;
use crate::ids::ServerId;
use crate::record::event::AdminNote;

/// The section; nothing where no server that they may use is called with accounts, and they have none.
pub(super) async fn section(visit: &Visit, report: &AccessReport) -> Markup {
    let own = visit.console.operations.accounts(Some(&visit.session.person)).await;
    let own = match own {
        Ok(own) => own,
        Err(failure) => {
            return html! { p.problem role="alert" { "Your accounts cannot be shown now: " (shown(&failure.to_string())) } };
        }
    };
    let usable = report.servers.iter().filter(|server| server.usable);
    let unlinked: Vec<(&str, String)> = usable
        .filter(|server| !own.iter().any(|account| account.usable && account.server == server.server))
        .filter_map(|server| {
            let id = ServerId::new(&server.server).ok()?;
            Some((server.server.as_str(), visit.console.operations.link(&visit.caller, &id)?))
        })
        .collect();
    if own.is_empty() && unlinked.is_empty() {
        return html! {};
    }
    html! {
        section aria-labelledby="accounts" {
            h2 #accounts { "Your accounts at services" }
            p.quiet { "Your assistants use them through this gateway, as far as its rules let them." }
            table {
                thead { tr { th scope="col" { "Server" } th scope="col" { "Account" } th scope="col" { "Since" } th scope="col" { } } }
                tbody {
                    @for account in &own { (row(visit, account)) }
                    @for (server, link) in &unlinked {
                        tr {
                            th scope="row" data-label="Server" { code { (server) } }
                            td data-label="Account" { (pill("quiet", "none")) }
                            td data-label="Since" { }
                            td { a.button href=(link) { "Link an account" } }
                        }
                    }
                }
            }
        }
    }
}

fn row(visit: &Visit, account: &Linked) -> Markup {
    let since = jiff::Timestamp::from_second(account.linked_at).unwrap_or_default();
    html! {
        tr {
            th scope="row" data-label="Server" { code { (shown(&account.server)) } }
            td data-label="Account" {
                @if account.usable { (pill("good", "linked")) } @else { (pill("warn", "link it again")) }
                span.detail { (shown(&account.account)) " " (shown(&account.authority)) " " (shown(&account.scope)) }
            }
            td data-label="Since" { (moment(since)) }
            td {
                form method="post" action=(visit.settings.path("/access/unlink")) {
                    (csrf(visit))
                    input type="hidden" name="server" value=(account.server);
                    button.plain type="submit" { "Take back" }
                }
            }
        }
    }
}

/// `POST /access/unlink`: takes one of their own back.
pub(super) async fn unlink(posted: Posted) -> Response {
    let visit = &posted.visit;
    let Ok(server) = ServerId::new(&posted.field("server")) else {
        return visit.problem(StatusCode::BAD_REQUEST, "that is no server");
    };
    let operations = &visit.console.operations;
    let removed = match operations.unlink(&visit.session.person, &server).await {
        Ok(Some(removed)) => removed,
        Ok(None) => return visit.problem(StatusCode::NOT_FOUND, "you have no account linked there"),
        Err(failure) => return visit.problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
    };
    let actor = visit.actor();
    let about = format!("the account of {} at {server}", removed.owner);
    let detail = format!("at its authorization server: {}", removed.upstream);
    let note = AdminNote {
        operation: "unlink",
        object: "bailiwick/unlink",
        actor: &actor.name(),
        actor_kind: actor.kind(),
        brakes: true,
        client: actor.client(),
        outcome: "done",
        reason: None,
        rule: None,
        about: &about,
        detail: &detail,
    };
    if let Err(failure) = operations.administered(&note, actor.who()).await {
        tracing::error!(%failure, %server, "that an account was taken back is not on the record");
    }
    Redirect::to(&visit.settings.path("/access")).into_response()
}
