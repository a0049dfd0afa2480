//! `approvals`: what waits for a person, and denying it; approving opens the console's page.
//!
//! Asks a running gateway, which decides. Invariant: no token that this machine keeps approves anything: that takes a
//! person in front of the console, who has just logged in.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::login::open_page;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, trouble};
use crate::control::operations::{ApprovalView, DenyOrder};
use crate::guard::approval::escaped as safe;

const EXAMPLES: &str = "\
Examples:
  bailiwick approvals list
  bailiwick approvals show 0123456789abcdef0123456789abcdef
  bailiwick approvals deny 0123456789abcdef0123456789abcdef --note 'not on a Friday'
  bailiwick approvals approve 0123456789abcdef0123456789abcdef

`approve` opens the console's page: a person has to log in there. Ends with 1 where the gateway refuses.";

/// Look at calls that wait for a person; deny them, or open the page where they are approved
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ApprovalsArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List those that wait
    List(ListArguments),
    /// Show one with its arguments
    Show(NamedArguments),
    /// Open the page of the console where one is approved
    Approve(NamedArguments),
    /// Deny one: the same call is refused for as long as it would have waited
    Deny(DenyArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    /// Also those that are over
    #[arg(long)]
    all: bool,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct NamedArguments {
    /// Which: its name in `bailiwick approvals list`
    #[arg(value_name = "REQUEST")]
    id: String,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct DenyArguments {
    /// Which: its name in `bailiwick approvals list`
    #[arg(value_name = "REQUEST")]
    id: String,
    /// Why: the caller reads it
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    door: Door,
}

/// Asks and prints.
pub async fn run(arguments: &ApprovalsArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List(list) => {
            let path = if list.all { "/approvals?state=all" } else { "/approvals" };
            let answer = list.door.ask(Method::GET, path, None::<&()>).await;
            match answer.and_then(|answer| answer.read::<Vec<ApprovalView>>()) {
                Ok(found) => {
                    output.result(&found, lines(&found));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
        What::Show(named) => match shown(named).await {
            Ok(view) => {
                output.result(&view, told(&view));
                Ending::Done
            }
            Err(ending) => ending,
        },
        What::Approve(named) => match shown(named).await {
            Ok(view) => approve(&view, output),
            Err(ending) => ending,
        },
        What::Deny(deny) => {
            let order = DenyOrder { note: deny.note.clone() };
            let path = format!("/approvals/{}/deny", deny.id);
            let answer = deny.door.ask(Method::POST, &path, Some(&order)).await;
            match answer.and_then(|answer| answer.read::<ApprovalView>()) {
                Ok(view) => {
                    output.result(&view, format!("{GOOD}denied{GOOD:#}, on the record\n"));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
    }
}

async fn shown(named: &NamedArguments) -> Result<ApprovalView, Ending> {
    // What is typed goes into a path.
    let plain = !named.id.is_empty() && named.id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !plain {
        trouble("a request is named by 32 digits of 0-9 and a-f: `bailiwick approvals list` has them");
        return Err(Ending::Trouble);
    }
    let answer = named.door.ask(Method::GET, &format!("/approvals/{}", named.id), None::<&()>).await;
    answer.and_then(|answer| answer.read::<ApprovalView>()).map_err(|error| refused(&error))
}

fn approve(view: &ApprovalView, output: Output) -> Ending {
    let Some(url) = view.url.as_ref().and_then(|url| url::Url::parse(url).ok()) else {
        trouble("there is no console where it could be approved: write [admin.console] in servers.toml");
        return Ending::Refused;
    };
    open_page(&url);
    output.result(view, format!("approve it at {STRONG}{}{STRONG:#}\n", safe(url.as_str())));
    Ending::Done
}

fn lines(found: &[ApprovalView]) -> String {
    let mut text = String::new();
    if found.is_empty() {
        text.push_str("nothing waits\n");
    }
    for view in found {
        let call = format!("{}/{} in {} for {}", view.server, view.name, view.environment, view.requester);
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {}  {} {QUIET}gates {}, until {}{QUIET:#}",
            safe(&view.id),
            safe(&view.state),
            safe(&call),
            safe(&view.gates.join(" ")),
            view.until
        );
    }
    text
}

fn told(view: &ApprovalView) -> String {
    let mut text = lines(std::slice::from_ref(view));
    let arguments = serde_json::to_string_pretty(&view.arguments).unwrap_or_default();
    for line in arguments.lines() {
        let _infallible = writeln!(text, "  {}", safe(line));
    }
    for missing in &view.missing {
        let _infallible = writeln!(text, "{BAD}missing{BAD:#}  {}", safe(missing));
    }
    for approver in &view.approvers {
        let _infallible = writeln!(text, "{GOOD}approved{GOOD:#} by {}", safe(approver));
    }
    text
}
