//! The agents of the files: who answers for each, what it is for, whether it may act.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::AgentStatus;
use super::layout::{beyond, inside, pill};
use super::login::encoded;
use super::text::shown;
use super::visit::Visit;
use crate::identity::proposed::Proposed;
use crate::limit;
use crate::policy::AdminOperation;

/// `GET /agents`.
pub(super) async fn page(visit: Visit) -> Response {
    let agents = match visit.look::<Vec<AgentStatus>>("/agents", "").await {
        Ok(agents) => agents,
        Err(refused) => {
            let body = visit.refusal("bailiwick/agents", &refused);
            return inside(&visit, refused.status, "Agents", "/agents", &body);
        }
    };
    // The agents of the files are there, whatever became of the others.
    let proposed = visit.look::<Vec<Proposed>>("/agents/proposed", "").await.unwrap_or_default();
    let revokes = visit.may(AdminOperation::Revoke);
    let body = html! {
        @if agents.is_empty() { p.quiet { "policies/agents.toml has none." } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Agent" } th scope="col" { "State" } th scope="col" { "Owner" }
                    th scope="col" { "May act in" } th scope="col" { "Ends" } th scope="col" { "Recognised by" }
                    @if revokes { th scope="col" { span.unseen { "Brake" } } }
                } }
                tbody {
                    @for agent in agents.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { (row(&visit, agent, revokes)) }
                }
            }
            (beyond(agents.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
        @let (let_in, denied): (Vec<&Proposed>, Vec<&Proposed>) = proposed.iter().partition(|one| one.let_in);
        @if !denied.is_empty() { (strangers(&denied, DENIED)) }
        @if !let_in.is_empty() { (strangers(&let_in, LET_IN)) }
    };
    inside(&visit, StatusCode::OK, "Agents", "/agents", &body)
}

const DENIED: (&str, &str) = (
    "Not registered, and denied",
    "Its issuer vouched for it. It calls once an agent in policies/agents.toml lists it.",
);
const LET_IN: (&str, &str) =
    ("Not registered, and let in", "People use it. It calls as the agent that its issuer's interactive_default names.");

/// Software that came without being registered.
fn strangers(proposed: &[&Proposed], (title, meaning): (&str, &str)) -> Markup {
    html! {
        h2 { (title) }
        p.quiet { (meaning) }
        table {
            thead { tr {
                th scope="col" { "Name" } th scope="col" { "Issuer" } th scope="col" { "For" } th scope="col" { "Last seen" }
            } }
            tbody {
                @for one in proposed.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) {
                    tr {
                        th scope="row" data-label="Name" { code { (shown(&one.name)) } span.detail { (one.known_by) } }
                        td data-label="Issuer" { (one.issuer) }
                        td data-label="For" { @if one.for_person { "a person" } @else { "itself" } }
                        td data-label="Last seen" {
                            @match jiff::Timestamp::from_second(one.last_seen) { Ok(at) => (at), Err(_) => "?" }
                        }
                    }
                }
            }
        }
        (beyond(proposed.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
    }
}

fn row(visit: &Visit, agent: &AgentStatus, revokes: bool) -> Markup {
    let kind = match agent.state.as_str() {
        "active" => "good",
        "revoked" => "bad",
        "proposed" | "suspended" => "warn",
        _ => "quiet",
    };
    html! {
        tr {
            th scope="row" data-label="Agent" { code { (agent.agent) } span.detail { (shown(&agent.purpose)) } }
            td data-label="State" { (pill(kind, &agent.state)) span.detail { (agent.kind) } }
            td data-label="Owner" {
                (shown(&agent.owner))
                @if !agent.sponsor_group.is_empty() { span.detail { "else " (shown(&agent.sponsor_group)) } }
            }
            td data-label="May act in" { (shown(&agent.environments.join(", "))) }
            td data-label="Ends" {
                @match agent.expires { Some(day) => (day), None => span.quiet { "never" } }
                @if let Some(day) = agent.review { span.detail { "review " (day) } }
            }
            td data-label="Recognised by" {
                @if agent.clients.is_empty() { span.quiet { "no client of its own" } }
                @for client in agent.clients.iter().take(5) { code.detail { (shown(client)) } }
                @if agent.clients.len() > 5 { span.detail { "and " (agent.clients.len() - 5) " more" } }
            }
            @if revokes {
                td.act data-label="" {
                    @if agent.state == "active" {
                        a href=(visit.settings.path(&format!("/revocations?target=agent&value={}#revoke", encoded(&agent.agent)))) {
                            "Revoke" span.unseen { " the agent " (agent.agent) } "…"
                        }
                    }
                }
            }
        }
    }
}
