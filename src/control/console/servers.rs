//! The servers: how each is, why one is down, who answers for it.

use axum::response::Response;
use http::StatusCode;
use maud::{Markup, html};

use super::super::operations::ServerStatus;
use super::layout::{beyond, inside, pill};
use super::login::encoded;
use super::text::{moment, shown};
use super::visit::Visit;
use crate::limit;
use crate::policy::AdminOperation;

/// `GET /servers`.
pub(super) async fn page(visit: Visit) -> Response {
    let mut servers = match visit.look::<Vec<ServerStatus>>("/servers", "").await {
        Ok(servers) => servers,
        Err(refused) => {
            let body = visit.refusal("bailiwick/servers", &refused);
            return inside(&visit, refused.status, "Servers", "/servers", &body);
        }
    };
    // What is down comes first; else the order of the file.
    servers.sort_by_key(|server| server.health != "down");
    let revokes = visit.may(AdminOperation::Revoke);
    let body = html! {
        @if servers.is_empty() { p.quiet { "servers.toml has none." } }
        @else {
            table {
                thead { tr {
                    th scope="col" { "Server" } th scope="col" { "Health" } th scope="col" { "Owner" }
                    th scope="col" { "Environment" } th scope="col" { "Reached" }
                    @if revokes { th scope="col" { span.unseen { "Brake" } } }
                } }
                tbody {
                    @for server in servers.iter().take(limit::CONSOLE_ROWS_SHOWN_MAX) { (row(&visit, server, revokes)) }
                }
            }
            (beyond(servers.len(), limit::CONSOLE_ROWS_SHOWN_MAX))
        }
    };
    inside(&visit, StatusCode::OK, "Servers", "/servers", &body)
}

fn row(visit: &Visit, server: &ServerStatus, revokes: bool) -> Markup {
    let kind = match server.health.as_str() {
        "up" => "good",
        "down" => "bad",
        "revoked" => "warn",
        _ => "quiet",
    };
    html! {
        tr {
            th scope="row" data-label="Server" {
                code { (server.server) }
                @if !server.title.is_empty() { span.detail { (shown(&server.title)) } }
            }
            td data-label="Health" {
                (pill(kind, &server.health))
                @if !server.reason.is_empty() { span.detail { (shown(&server.reason)) } }
                @if let Some(since) = server.since { span.detail { "since " (moment(since)) } }
            }
            td data-label="Owner" { (shown(&server.owner)) }
            td data-label="Environment" { (shown(&server.environment)) }
            td data-label="Reached" {
                @if server.transport == "stdio" { "as a child" } @else { "over HTTP" }
                @if !server.era.is_empty() { ", " (server.era) " MCP" }
                @if server.sandbox == "none" { " " (pill("warn", "no sandbox")) }
                @else if server.sandbox == "required" { ", in a sandbox" }
            }
            @if revokes {
                td.act data-label="" {
                    @if server.health != "revoked" {
                        a href=(visit.settings.path(&format!("/revocations?target=server&value={}#revoke", encoded(&server.server)))) {
                            "Revoke" span.unseen { " the server " (server.server) } "…"
                        }
                    }
                }
            }
        }
    }
}
