//! The policy in force: its revision and seal, what the last reload changed, and what the next policies would change.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::PolicyStatus;
use super::layout::{beyond, inside, pill};
use super::text::{moment, shown};
use super::visit::Visit;
use crate::gateway::{Change, ShadowReport};
use crate::limit;

/// `GET /policy`.
pub(super) async fn page(visit: Visit) -> Response {
    let status = match visit.look::<PolicyStatus>("/policy", "").await {
        Ok(status) => status,
        Err(refused) => {
            let body = visit.refusal("bailiwick/policy", &refused);
            return inside(&visit, refused.status, "Policy", "/policy", &body);
        }
    };
    let shadow = visit.look::<ShadowReport>("/shadow", "").await;
    let revision = status.revision.map(|revision| revision.0.to_string()).unwrap_or_default();
    let body = html! {
        dl.facts {
            div.wide { dt { "Revision" } dd { code.long { (revision) } } }
            div { dt { "Rules" } dd { (status.rules) } }
            div.broad { dt { "Seal" } dd { (seal(&status.seal)) } }
        }
        section aria-labelledby="reload" {
            h2 #reload { "Last reload" }
            (reload(&status))
        }
        section aria-labelledby="shadow" {
            h2 #shadow { "What the next policies would change" }
            @match &shadow {
                Ok(shadow) => (differences(shadow)),
                Err(refused) => (visit.refusal("bailiwick/shadow", refused)),
            }
        }
    };
    inside(&visit, StatusCode::OK, "Policy", "/policy", &body)
}

fn seal(word: &str) -> Markup {
    match word {
        "fits" => html! { (pill("good", "fits")) " These are the files that were reviewed." },
        "broken" => {
            html! { (pill("bad", "broken")) " These are not the files that were sealed: the next start is refused." }
        }
        _ => html! { (pill("quiet", "none")) " A wider set needs somebody to say so." },
    }
}

fn reload(status: &PolicyStatus) -> Markup {
    let Some(last) = &status.reload else {
        return html! { p.quiet { "None since the start: in force is what the files said then." } };
    };
    let report = &last.report;
    html! {
        p {
            @if report.to.is_some() { (pill("good", "loaded")) } @else { (pill("bad", "refused")) }
            " " (moment(last.at)) " by " b { (shown(&last.actor)) }
            @if let (Some(from), Some(to)) = (report.from, report.to) {
                ", from " code { (from.0.short()) } " to " code { (to.0.short()) }
            }
        }
        @if !report.problems.is_empty() { (list("problem", &report.problems)) }
        @if !report.warnings.is_empty() { (list("notice", &report.warnings)) }
        @if report.added.is_empty() && report.removed.is_empty() { p.quiet { "It changed no row." } }
        @else {
            table.diff {
                thead { tr { th scope="col" { "Change" } th scope="col" { "Row" } } }
                tbody {
                    @for row in report.removed.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr.removed { td data-label="Change" { (pill("bad", "− removed")) } td data-label="Row" { code { (shown(row)) } } }
                    }
                    @for row in report.added.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr.added { td data-label="Change" { (pill("good", "+ added")) } td data-label="Row" { code { (shown(row)) } } }
                    }
                }
            }
            (beyond(report.added.len().max(report.removed.len()), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    }
}

fn list(class: &str, lines: &[String]) -> Markup {
    html! { ul class=(class) { @for line in lines.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { li { (shown(line)) } } } }
}

fn differences(shadow: &ShadowReport) -> Markup {
    if let Some(problem) = &shadow.problem {
        return html! { p.problem { (shown(problem)) } };
    }
    let Some(next) = shadow.next else {
        return html! { p.quiet { "There is no directory policies.next beside the policies." } };
    };
    html! {
        p {
            "Under " code { (next.0.short()) } ", " (shadow.evaluated) " decisions were made a second time"
            @if shadow.not_evaluated > 0 { "; " (shadow.not_evaluated) " found no place in the queue" }
            "."
        }
        @if shadow.differences.is_empty() { p { (pill("good", "no difference")) } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Would be" } th scope="col" { "What" } th scope="col" { "Why" }
                    th scope="col" { "Who" } th.number scope="col" { "Times" }
                } }
                tbody {
                    @for row in shadow.differences.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                        tr {
                            td data-label="Would be" {
                                @match row.change {
                                    Change::NewlyAllowed => (pill("warn", "newly allowed")),
                                    Change::NewlyRefused => (pill("bad", "newly refused")),
                                }
                            }
                            td data-label="What" { (shown(&row.action)) " " code { (shown(&row.object)) } }
                            td data-label="Why" {
                                code { (shown(&row.reason)) }
                                @if let Some(rule) = &row.rule { span.detail { (shown(rule)) } }
                            }
                            td data-label="Who" {
                                @for who in row.who.keys().take(5) { span.detail { (shown(who)) } }
                                @if row.who.len() > 5 || row.others > 0 { span.detail { "and others" } }
                            }
                            td.number data-label="Times" { (row.count) }
                        }
                    }
                }
            }
            (beyond(shadow.differences.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
        @if shadow.not_kept > 0 { p.quiet { (shadow.not_kept) " more decisions differ, for which no row is kept." } }
    }
}
