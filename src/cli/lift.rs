//! `revocations` and `lift`: what has been taken back, and giving it back.
//!
//! Asks a running gateway, which decides. Invariant: nothing is given back by a socket or a store, but by a person at
//! the administrators' listener.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::Ending;
use super::door::Door;
use super::output::{GOOD, Output, QUIET, STRONG, trouble};
use crate::cli::call::safe;
use crate::control::HeldRevocations;
use crate::control::client::ClientError;
use crate::control::operations::{LiftOrder, Lifted};
use crate::ids::RevocationEpoch;

const REVOCATIONS_EXAMPLES: &str = "\
Examples:
  bailiwick revocations                                        of the gateway on this machine
  bailiwick revocations --admin https://mcp.example.com/admin  of one elsewhere
  bailiwick revocations --json

Each begins with the number that `bailiwick lift` takes.";

const LIFT_EXAMPLES: &str = "\
Examples:
  bailiwick lift 17 --admin https://mcp.example.com/admin --note 'she is back'

Needs [admin] in servers.toml, a person with an administrators' client, and a login of a moment ago: where that is
missing, the login page opens. Ends with 1 where the gateway refuses.";

/// List what has been taken back and not been lifted
#[derive(Debug, Args)]
#[command(after_help = REVOCATIONS_EXAMPLES)]
pub struct RevocationsArguments {
    #[command(flatten)]
    door: Door,
}

/// Lift a revocation: give access back that was taken
#[derive(Debug, Args)]
#[command(after_help = LIFT_EXAMPLES)]
pub struct LiftArguments {
    /// Which: the number at the beginning of its line in `bailiwick revocations`
    #[arg(value_name = "SINCE")]
    since: u64,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    door: Door,
}

/// Asks and prints.
pub async fn revocations(arguments: &RevocationsArguments, output: Output) -> Ending {
    let answer = arguments.door.ask(Method::GET, "/revocations", None::<&()>).await;
    match answer.and_then(|answer| answer.read::<HeldRevocations>()) {
        Ok(held) => {
            output.result(&held, told(&held));
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

/// Lifts one.
pub async fn lift(arguments: &LiftArguments, output: Output) -> Ending {
    let order = LiftOrder { note: arguments.note.clone() };
    let path = format!("/revocations/{}", arguments.since);
    let answer = arguments.door.ask(Method::DELETE, &path, Some(&order)).await;
    match answer.and_then(|answer| answer.read::<Lifted>()) {
        Ok(lifted) => {
            let RevocationEpoch(epoch) = lifted.epoch;
            output.result(&lifted, format!("{GOOD}lifted{GOOD:#}, in force, on the record (epoch {epoch})\n"));
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

/// What a command that was refused ends with.
pub(super) fn refused(error: &ClientError) -> Ending {
    trouble(safe(&error.to_string()));
    match error {
        ClientError::Refused { .. } => Ending::Refused,
        ClientError::NotRunning(_) | ClientError::Unreachable { .. } => Ending::Trouble,
    }
}

fn told(held: &HeldRevocations) -> String {
    let mut text = String::new();
    if held.revocations.is_empty() {
        text.push_str("nothing is taken back\n");
    }
    for revocation in &held.revocations {
        let name = [&revocation.issuer, &revocation.value].map(String::as_str);
        let name = name.into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
        let at = jiff::Timestamp::from_second(revocation.at).unwrap_or_default();
        let note = if revocation.note.is_empty() { String::new() } else { format!(": {}", revocation.note) };
        let line = format!("{} {name}, {} by {} at {at}{note}", revocation.target, revocation.mode, revocation.actor);
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{STRONG}{:>6}{STRONG:#}  {}", revocation.since.0, safe(&line));
    }
    let _infallible = writeln!(text, "{QUIET}epoch {}{QUIET:#}", held.epoch.0);
    text
}
