//! `status`: a running gateway at a glance.
//!
//! Decides nothing: the gateway tells. Invariant: what stands in the way of serving is shown, and ends with 1.

use std::fmt::Write as _;

use clap::Args;
use http::Method;
use serde::Serialize;
use serde_json::Value;

use super::Ending;
use super::call::safe;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING};
use crate::control::Readiness;
use crate::control::client::{Answer, ClientError};
use crate::control::operations::ServerStatus;

const EXAMPLES: &str = "\
Examples:
  bailiwick status                                        of the gateway on this machine
  bailiwick status --admin https://mcp.example.com/admin  of one elsewhere
  bailiwick status --json

Ends with 1 where something is in the way of serving.";

/// Show how a running gateway is: what is in force, what is in the way, and which servers are down
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StatusArguments {
    #[command(flatten)]
    door: Door,
}

/// Everything, for programs.
#[derive(Serialize)]
struct Everything {
    status: Value,
    readiness: Readiness,
    servers: Vec<ServerStatus>,
}

/// Asks and prints.
pub async fn run(arguments: &StatusArguments, output: Output) -> Ending {
    match asked(&arguments.door).await {
        Ok(everything) => {
            output.result(&everything, told(&everything));
            if everything.readiness.is_ready() { Ending::Done } else { Ending::Refused }
        }
        Err(error) => refused(&error),
    }
}

async fn asked(door: &Door) -> Result<Everything, ClientError> {
    let get = async |path: &str| door.ask(Method::GET, path, None::<&()>).await;
    let status = get("/status").await?.read()?;
    // 503 is an answer here: it says what is in the way.
    let Answer { status: code, body } = get("/readyz").await?;
    let code = if code == http::StatusCode::SERVICE_UNAVAILABLE { http::StatusCode::OK } else { code };
    let readiness = Answer { status: code, body }.read()?;
    let servers = get("/servers").await?.read()?;
    Ok(Everything { status, readiness, servers })
}

fn told(everything: &Everything) -> String {
    let Everything { status, readiness, servers } = everything;
    let word =
        |name: &str| status.get(name).map(|value| value.as_str().map_or_else(|| value.to_string(), str::to_owned));
    let revision = word("revision").unwrap_or_default();
    let mut text = format!(
        "{STRONG}{}{STRONG:#}  bailiwick {}, policy {}, revocation epoch {}\n",
        safe(&word("public_url").unwrap_or_default()),
        safe(&word("version").unwrap_or_default()),
        safe(revision.get(..12).unwrap_or(&revision)),
        safe(&word("epoch").unwrap_or_default()),
    );
    for check in readiness.checks.iter().filter(|check| !check.well && !check.name.starts_with("server:")) {
        let (style, label) = if check.optional { (WARNING, "look at") } else { (BAD, "in the way") };
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{style}{label}{style:#}  {}: {}", safe(&check.name), safe(&check.detail));
    }
    for server in servers {
        let style = match server.health.as_str() {
            "up" => GOOD,
            "connecting" => WARNING,
            _ => BAD,
        };
        let since = server.since.map(|since| format!(" since {since}")).unwrap_or_default();
        let _infallible = writeln!(
            text,
            "{style}{:<10}{style:#}  {:<16}  {QUIET}{}{QUIET:#}  {}{since}",
            safe(&server.health),
            safe(&server.server),
            safe(&server.environment),
            safe(&server.reason),
        );
    }
    text
}
