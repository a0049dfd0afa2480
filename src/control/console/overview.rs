//! The overview: what is in force, what is in the way, what was refused lately.
//!
//! Decides nothing. Whoever may not look at it has a page of their own: *my access*.

use std::collections::BTreeMap;

use axum::body::Body;
use axum::response::{IntoResponse as _, Redirect, Response};
use http::StatusCode;
use http_body_util::{BodyExt as _, Limited};
use maud::{Markup, html};
use serde::Deserialize;

use super::super::operations::Readiness;
use super::super::routes::Verb;
use super::inside::{Refused, answered};
use super::layout::{inside, pill};
use super::text::shown;
use super::visit::Visit;
use crate::limit;
use crate::policy::AdminOperation;
use crate::record::join::Joiner;

#[derive(Deserialize)]
struct Status {
    version: String,
    public_url: String,
    revision: String,
    epoch: u64,
    servers: Vec<Server>,
}

#[derive(Deserialize)]
struct Server {
    health: String,
}

/// Refusals of the last minutes, by reason.
struct Refusals {
    by_reason: Vec<(String, u64)>,
    /// Whether there were more than are looked at.
    more: bool,
}

/// `GET /`.
pub(super) async fn page(visit: Visit) -> Response {
    if !visit.may(AdminOperation::Status) {
        return Redirect::to(&visit.settings.path("/access")).into_response();
    }
    let status = visit.look::<Status>("/status", "").await;
    let status = match status {
        Ok(status) => status,
        Err(refused) => {
            let body = visit.refusal("bailiwick/status", &refused);
            return inside(&visit, refused.status, "Overview", "/", &body);
        }
    };
    let ready: Result<Readiness, Refused> =
        answered(visit.order((Verb::Get, "/readyz"), None, "", Body::empty()).await).await;
    let refusals = refusals(&visit).await;
    let up = status.servers.iter().filter(|server| server.health == "up").count();
    let body = html! {
        dl.facts {
            div { dt { "Servers up" } dd { a href=(visit.settings.path("/servers")) { (up) " of " (status.servers.len()) } } }
            div { dt { "Policy" } dd { a href=(visit.settings.path("/policy")) { code { (short(&status.revision)) } } } }
            div { dt { "Revocation epoch" } dd { (status.epoch) } }
            div { dt { "Version" } dd { (status.version) } }
            div.wide { dt { "Serves MCP at" } dd { code { (status.public_url.trim_end_matches('/')) "/mcp" } } }
        }
        div.columns {
            section aria-labelledby="ready" {
                h2 #ready { "Readiness" }
                @match &ready {
                    Ok(ready) => (checks(ready)),
                    Err(refused) => (visit.refusal("bailiwick/status", refused)),
                }
            }
            section aria-labelledby="refused" {
                h2 #refused { "Refused in the last " (limit::CONSOLE_REFUSALS_WINDOW.as_secs() / 60) " minutes" }
                @match &refusals {
                    Ok(refusals) => (counted(&visit, refusals)),
                    Err(refused) => (visit.refusal("bailiwick/logs", refused)),
                }
            }
        }
    };
    inside(&visit, StatusCode::OK, "Overview", "/", &body)
}

fn short(revision: &str) -> &str {
    revision.get(..12).unwrap_or(revision)
}

fn checks(ready: &Readiness) -> Markup {
    let mut all: Vec<_> = ready.checks.iter().collect();
    // What is wrong comes first.
    all.sort_by_key(|check| (check.well, check.optional));
    html! {
        p { @if ready.is_ready() { (pill("good", "ready")) " It serves." } @else { (pill("bad", "not ready")) " Something that is needed is not well." } }
        ul.checks {
            @for check in all.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                li {
                    @if check.well { (pill("good", "well")) }
                    @else if check.optional { (pill("warn", "warning")) }
                    @else { (pill("bad", "failing")) }
                    " " code { (shown(&check.name)) }
                    @if !check.detail.is_empty() { span.detail { (shown(&check.detail)) } }
                }
            }
        }
    }
}

fn counted(visit: &Visit, refusals: &Refusals) -> Markup {
    if refusals.by_reason.is_empty() {
        return html! { p.quiet { "Nothing was refused." } };
    }
    html! {
        table {
            thead { tr { th scope="col" { "Reason" } th.number scope="col" { "Times" } } }
            tbody {
                @for (reason, times) in &refusals.by_reason {
                    tr {
                        td data-label="Reason" {
                            a href=(visit.settings.path(&format!("/log?decision=deny&reason={reason}"))) { code { (reason) } }
                        }
                        td.number data-label="Times" { (times) }
                    }
                }
            }
        }
        @if refusals.more { p.quiet { "Counted are the last " (limit::ADMIN_LOG_LINES_MAX) " records; there were more." } }
    }
}

/// Asks the record, as `logs --decision deny --since 15m` does.
async fn refusals(visit: &Visit) -> Result<Refusals, Refused> {
    let window = jiff::SignedDuration::try_from(limit::CONSOLE_REFUSALS_WINDOW).unwrap_or_default();
    let since = jiff::Timestamp::now().checked_sub(window).unwrap_or(jiff::Timestamp::UNIX_EPOCH);
    let most = limit::ADMIN_LOG_LINES_MAX;
    let query = format!("decision=deny&follow=false&lines={most}&since={since:.0}");
    let response = visit.order((Verb::Get, "/logs"), None, &query, Body::empty()).await;
    if !response.status().is_success() {
        return Err(Refused::of(response).await);
    }
    let body = Limited::new(response.into_body(), limit::CONTROL_ANSWER_BYTES_MAX).collect().await;
    let body = body.map(|body| body.to_bytes()).unwrap_or_default();
    let text = String::from_utf8_lossy(&body);
    counted_of(&text, most)
}

/// The refusals of the API's events.
fn counted_of(text: &str, most: usize) -> Result<Refusals, Refused> {
    // Not all of it was told, perhaps nothing: that is not nothing that was refused.
    if let Some(end) = text.split("\n\n").find_map(|block| block.strip_prefix("event: end\ndata: ")) {
        return Err(Refused::ended(end));
    }
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    let mut joiner = Joiner::new(limit::ADMIN_LOG_OPEN_CALLS_MAX);
    let (mut counted, mut seen_lines) = (BTreeMap::<String, u64>::new(), 0);
    for line in lines {
        let Some(seen) = joiner.see(line).filter(|seen| seen.effect() == Some("deny")) else { continue };
        seen_lines += 1;
        let times = seen.record.noise.as_ref().map_or(1, |noise| noise.count);
        *counted.entry(seen.reason().unwrap_or("unknown").to_owned()).or_default() += times;
    }
    let mut by_reason: Vec<_> = counted.into_iter().collect();
    by_reason.sort_by_key(|(_, times)| std::cmp::Reverse(*times));
    by_reason.truncate(limit::CONSOLE_ROWS_SHOWN_MAX);
    Ok(Refusals { by_reason, more: seen_lines >= most })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_record_that_was_not_told_to_its_end_is_not_one_without_refusals() {
        assert!(counted_of(": live\n\n", 1).is_ok_and(|refusals| refusals.by_reason.is_empty()));
        let ended = counted_of("event: end\ndata: {\"reason\":\"token_expired\"}\n\n", 1).err().unwrap();
        assert_eq!((ended.status, ended.problem.reason.as_str()), (StatusCode::SERVICE_UNAVAILABLE, "token_expired"));
    }
}
