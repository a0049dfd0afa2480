//! The accounts that whoever is signed in has linked, on their page *my access*: seen, linked, taken back.
//!
//! Decides nothing: what is theirs is found by their own name. Invariant: nobody sees or takes back another's here.

use std::sync::Arc;

use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use maud::{Markup, html};

use super::super::actor::Actor;
use super::super::operations::{AccessReport, Operations};
use super::layout::{csrf, pill};
use super::text::{moment, shown};
use super::visit::{Posted, Visit};
use crate::gateway::accounts::Linked;
use crate::ids::ServerId;
use crate::outcome::Failure;
use crate::policy::Weight;
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
    let taking = taken_back(Arc::clone(&visit.console.operations), visit.actor(), visit.session.person.clone(), server);
    // Whoever hangs up leaves a record all the same.
    match tokio::spawn(taking).await {
        Ok(Ok(true)) => Redirect::to(&visit.settings.path("/access")).into_response(),
        Ok(Ok(false)) => visit.problem(StatusCode::NOT_FOUND, "you have no account linked there"),
        Ok(Err(failure)) => visit.problem(StatusCode::SERVICE_UNAVAILABLE, &failure.to_string()),
        Err(error) => visit.problem(StatusCode::INTERNAL_SERVER_ERROR, &error.to_string()),
    }
}

/// Takes it back, and puts that on the record; answers whether there was one.
async fn taken_back(
    operations: Arc<dyn Operations>,
    actor: Actor,
    person: String,
    server: ServerId,
) -> Result<bool, Failure> {
    operations.may_change(Weight::Brake)?;
    let Some(removed) = operations.unlink(&person, &server).await? else { return Ok(false) };
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
    operations.administered(&note, actor.who()).await.map_err(|failure| {
        tracing::error!(%failure, %server, "that an account was taken back is not on the record");
        Failure { detail: format!("it is taken back, and not on the record: {}", failure.detail), ..failure }
    })?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::Recorder;

    async fn take(recorder: &Arc<Recorder>) -> Result<bool, Failure> {
        let operations = Arc::<Recorder>::clone(recorder);
        taken_back(operations, Actor::host(0), "user:corp/ann".to_owned(), ServerId::new("notes").unwrap()).await
    }

    #[tokio::test]
    async fn what_is_taken_back_is_on_the_record_and_where_it_is_not_whoever_did_it_is_told() {
        let recorder = |disk_full| Arc::new(Recorder { has_accounts: true, disk_full, ..Recorder::default() });
        let (good, full) = (recorder(false), recorder(true));
        assert!(take(&good).await.unwrap());
        assert_eq!(
            *good.administered.lock().unwrap(),
            ["unlink done by host:0: the account of user:corp/ann at notes"]
        );
        let failure = take(&full).await.unwrap_err();
        assert!(failure.detail.contains("it is taken back, and not on the record"), "{}", failure.detail);
        assert!(!take(&Arc::default()).await.unwrap(), "there is none");
    }

    #[tokio::test]
    async fn nothing_is_taken_back_in_a_store_that_would_not_keep_it() {
        let recorder = Arc::new(Recorder { has_accounts: true, went_back: true, ..Recorder::default() });
        assert_eq!(take(&recorder).await.unwrap_err().detail, "it went back");
        assert!(recorder.administered.lock().unwrap().is_empty());
    }
}
