//! `credentials list` and `secrets list`: what the gateway presents to upstreams, without any of it.
//!
//! Asks a running gateway, which decides. Invariant: what is printed was never secret.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG};
use crate::cli::call::safe;
use crate::control::operations::{IssuedCredential, SecretStatus};

const CREDENTIALS_EXAMPLES: &str = "\
Examples:
  bailiwick credentials list            what was issued for callers, and has not ended by itself
  bailiwick credentials list --json
  bailiwick credentials list --admin https://mcp.example.com/admin    of a gateway elsewhere

Each begins with the name that `bailiwick revoke credential` takes.";

const SECRETS_EXAMPLES: &str = "\
Examples:
  bailiwick secrets list                where they are, how old, and when each was presented last
  bailiwick secrets list --stale        only those that are older than their max_age; ends with 1 where there are any
  bailiwick secrets list --json";

/// List the credentials that were issued to the gateway for callers
#[derive(Debug, Args)]
#[command(after_help = CREDENTIALS_EXAMPLES)]
pub struct CredentialsArguments {
    #[command(subcommand)]
    command: CredentialsCommand,
}

#[derive(Debug, Subcommand)]
enum CredentialsCommand {
    /// List those that have not ended by themselves
    List(CredentialsListArguments),
}

#[derive(Debug, Args)]
#[command(after_help = CREDENTIALS_EXAMPLES)]
struct CredentialsListArguments {
    #[command(flatten)]
    door: Door,
}

/// List the gateway's own secrets for upstreams
#[derive(Debug, Args)]
#[command(after_help = SECRETS_EXAMPLES)]
pub struct SecretsArguments {
    #[command(subcommand)]
    command: SecretsCommand,
}

#[derive(Debug, Subcommand)]
enum SecretsCommand {
    /// List where they are and how old they are
    List(SecretsListArguments),
}

#[derive(Debug, Args)]
#[command(after_help = SECRETS_EXAMPLES)]
struct SecretsListArguments {
    /// Only those that are older than their max_age
    #[arg(long)]
    stale: bool,
    #[command(flatten)]
    door: Door,
}

/// Asks and prints.
pub async fn credentials(arguments: &CredentialsArguments, output: Output) -> Ending {
    let CredentialsCommand::List(CredentialsListArguments { door }) = &arguments.command;
    let answer = door.ask(Method::GET, "/credentials", None::<&()>).await;
    match answer.and_then(|answer| answer.read::<Vec<IssuedCredential>>()) {
        Ok(issued) => {
            output.result(&issued, told_issued(&issued));
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

/// Asks and prints.
pub async fn secrets(arguments: &SecretsArguments, output: Output) -> Ending {
    let SecretsCommand::List(SecretsListArguments { stale, door }) = &arguments.command;
    let answer = door.ask(Method::GET, "/secrets", None::<&()>).await;
    match answer.and_then(|answer| answer.read::<Vec<SecretStatus>>()) {
        Ok(mut secrets) => {
            secrets.retain(|secret| !stale || secret.stale);
            output.result(&secrets, told_secrets(&secrets, *stale));
            if *stale && !secrets.is_empty() { Ending::Refused } else { Ending::Done }
        }
        Err(error) => refused(&error),
    }
}

fn told_issued(issued: &[IssuedCredential]) -> String {
    let mut text = String::new();
    if issued.is_empty() {
        text.push_str("nothing is issued that has not ended\n");
    }
    for one in issued {
        let whom = match (&one.issuer, &one.subject) {
            (Some(issuer), Some(subject)) => format!("{issuer}/{subject}"),
            (Some(issuer), None) => format!("{issuer}/{}", one.client.as_deref().unwrap_or("?")),
            (None, _) => "the gateway".to_owned(),
        };
        let agents = if one.agents.is_empty() { String::new() } else { format!(" by {}", one.agents.join(" by ")) };
        let ends = one.expires_at.map_or_else(|| "at an unknown time".to_owned(), |at| format!("at {}", moment(at)));
        let used = moment(one.used_until);
        let line = format!("{} for {whom}{agents}, {}, used until {used}, ends {ends}", one.server, one.kind);
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {}  {QUIET}{}{QUIET:#}",
            safe(&one.id),
            safe(&line),
            safe(&one.state)
        );
    }
    text
}

fn told_secrets(secrets: &[SecretStatus], stale: bool) -> String {
    let mut text = String::new();
    if secrets.is_empty() {
        text.push_str(if stale {
            "no secret is older than it may be\n"
        } else {
            "no server has a secret of the gateway's\n"
        });
    }
    for secret in secrets {
        let tool = secret.tool.as_ref().map_or_else(String::new, |tool| format!("/{tool}"));
        let since = secret.rotated_at.map_or_else(|| "of unknown age".to_owned(), |at| format!("of {}", moment(at)));
        let used =
            secret.used_at.map_or_else(|| "not presented yet".to_owned(), |at| format!("presented {}", moment(at)));
        let slot = if secret.presented { "in use" } else { "in reserve" };
        let line = format!("{}{tool}  {}, {slot}, {since}, {used}", secret.server, secret.place);
        let state = match (secret.problem.is_empty(), secret.stale) {
            (false, _) => format!("{BAD}{}{BAD:#}", safe(&secret.problem)),
            (true, true) => format!("{BAD}stale{BAD:#}"),
            (true, false) => format!("{GOOD}well{GOOD:#}"),
        };
        let _infallible = writeln!(text, "{}  {state}", safe(&line));
    }
    text
}

fn moment(at: i64) -> String {
    jiff::Timestamp::from_second(at).unwrap_or_default().to_string()
}
