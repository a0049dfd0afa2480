//! `vault`: the accounts that people have linked, and taking one back.
//!
//! Asks a running gateway, which decides. Invariant: nothing of an account is shown that could be used.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{GOOD, Output, QUIET, STRONG};
use crate::cli::call::safe;
use crate::control::{LinkedAccounts, UnlinkOrder};
use crate::delegate::vault::Removed;

const EXAMPLES: &str = "\
Examples:
  bailiwick vault list                             of the gateway on this machine
  bailiwick vault list --json
  bailiwick vault revoke user:corp/anna notes      her account at the server notes

Whoever linked an account can take it back themselves, on the page *my access* of the console.";

/// List and take back the accounts that people have linked
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct VaultArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them: whose, at which server, since when
    List {
        #[command(flatten)]
        door: Door,
    },
    /// Take one back: it is used no more, and its tokens are given back to the service where that is possible
    Revoke {
        /// Whose, as the list shows it: user:ISSUER/SUB
        owner: String,
        /// At which server
        server: String,
        #[command(flatten)]
        door: Door,
    },
}

/// Asks and prints.
pub async fn run(arguments: &VaultArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List { door } => {
            let answer = door.ask(Method::GET, "/vault", None::<&()>).await;
            match answer.and_then(|answer| answer.read::<LinkedAccounts>()) {
                Ok(linked) => {
                    output.result(&linked, told(&linked));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
        What::Revoke { owner, server, door } => {
            let order = UnlinkOrder { owner: owner.clone(), server: server.clone() };
            let answer = door.ask(Method::POST, "/vault/revoke", Some(&order)).await;
            match answer.and_then(|answer| answer.read::<Removed>()) {
                Ok(removed) => {
                    output.result(&removed, taken_back(&removed));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
    }
}

fn taken_back(removed: &Removed) -> String {
    let there = match (removed.upstream.as_str(), removed.expires_at) {
        ("revoked", _) => "its tokens were given back".to_owned(),
        (_, Some(at)) => format!("its last token may work there until {}", moment(at)),
        _ => "nobody knows when its last token ends there".to_owned(),
    };
    format!("{GOOD}taken back{GOOD:#}: nobody uses it from here any more; {there}\n")
}

fn told(linked: &LinkedAccounts) -> String {
    let mut text = String::new();
    if linked.accounts.is_empty() {
        text.push_str("nobody has linked an account\n");
    }
    for account in &linked.accounts {
        let state = if account.usable { "" } else { ", has to be linked again" };
        let named = if account.account.is_empty() { String::new() } else { format!(" as {}", account.account) };
        let line = format!("{}{named}, linked {}{state}", account.server, moment(account.linked_at));
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "{STRONG}{}{STRONG:#}  {}", safe(&account.owner), safe(&line));
        if !account.authority.is_empty() {
            let _infallible = writeln!(text, "  {QUIET}{} {}{QUIET:#}", safe(&account.authority), safe(&account.scope));
        }
    }
    text
}

fn moment(at: i64) -> String {
    jiff::Timestamp::from_second(at).unwrap_or_default().to_string()
}
