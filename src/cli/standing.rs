//! `standing`: what several persons have approved beforehand, and taking it back; proposing and approving open the
//! console's pages.
//!
//! Asks a running gateway, which decides. Invariant: as for `approvals`, no token that this machine keeps says yes.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::login::open_page;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, trouble};
use crate::control::standing::{StandingView, TakeBackOrder};
use crate::guard::approval::escaped as safe;

const EXAMPLES: &str = "\
Examples:
  bailiwick standing list
  bailiwick standing show 0123456789abcdef0123456789abcdef
  bailiwick standing revoke 0123456789abcdef0123456789abcdef --note 'the migration is done'

One is proposed on the console's page of a request (`bailiwick approvals show REQUEST`); `approve` opens the page where
the next person says yes. Ends with 1 where the gateway refuses.";

/// Look at standing approvals, take one back, or open the page where one is approved
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StandingArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List them, and proposals
    List(ListArguments),
    /// Show one
    Show(NamedArguments),
    /// Open the page of the console where the next person says yes to a proposal
    Approve(NamedArguments),
    /// Take one back: the next call like it waits for a person again
    Revoke(RevokeArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct NamedArguments {
    /// Which: its name in `bailiwick standing list`
    #[arg(value_name = "STANDING")]
    id: String,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct RevokeArguments {
    #[command(flatten)]
    named: NamedArguments,
    /// Why: it stands on the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

/// Asks and prints.
pub async fn run(arguments: &StandingArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List(list) => {
            let answer = list.door.ask(Method::GET, "/standing", None::<&()>).await;
            match answer.and_then(|answer| answer.read::<Vec<StandingView>>()) {
                Ok(found) => {
                    output.result(&found, lines(&found));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
        What::Show(named) => match one(named, Method::GET, "", None::<&()>).await {
            Ok(view) => {
                output.result(&view, told(&view));
                Ending::Done
            }
            Err(ending) => ending,
        },
        What::Approve(named) => match one(named, Method::GET, "", None::<&()>).await {
            Ok(view) => {
                let Some(url) = view.url.as_ref().and_then(|url| url::Url::parse(url).ok()) else {
                    trouble("there is no console where it could be approved: write [admin.console] in servers.toml");
                    return Ending::Refused;
                };
                open_page(&url);
                output.result(&view, format!("approve it at {STRONG}{}{STRONG:#}\n", safe(url.as_str())));
                Ending::Done
            }
            Err(ending) => ending,
        },
        What::Revoke(revoke) => {
            let order = TakeBackOrder { note: revoke.note.clone() };
            match one(&revoke.named, Method::POST, "/revoke", Some(&order)).await {
                Ok(view) => {
                    output.result(&view, format!("{GOOD}taken back{GOOD:#}, on the record\n"));
                    Ending::Done
                }
                Err(ending) => ending,
            }
        }
    }
}

async fn one<T: serde::Serialize + Sync>(
    named: &NamedArguments,
    method: Method,
    what: &str,
    body: Option<&T>,
) -> Result<StandingView, Ending> {
    // What is typed goes into a path.
    if named.id.is_empty() || !named.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        trouble("a standing approval is named by 32 digits of 0-9 and a-f: `bailiwick standing list` has them");
        return Err(Ending::Trouble);
    }
    let answer = named.door.ask(method, &format!("/standing/{}{what}", named.id), body).await;
    answer.and_then(|answer| answer.read::<StandingView>()).map_err(|error| refused(&error))
}

fn lines(found: &[StandingView]) -> String {
    let mut text = String::new();
    if found.is_empty() {
        text.push_str("nothing is approved beforehand\n");
    }
    for view in found {
        let call = format!("{}/{} in {} for {}", view.server, view.name, view.environment, view.requester);
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {}  {} {QUIET}where {}, {} of {} used, until {}{QUIET:#}",
            safe(&view.id),
            safe(&view.state),
            safe(&call),
            safe(&view.condition),
            view.used,
            view.uses,
            view.until
        );
    }
    text
}

fn told(view: &StandingView) -> String {
    let mut text = lines(std::slice::from_ref(view));
    let mut line = |what: &str, says: &str| {
        if !says.is_empty() {
            let _infallible = writeln!(text, "  {QUIET}{what:<10}{QUIET:#} {}", safe(says));
        }
    };
    line("condition", &view.says);
    line("gates", &view.gates.join(" "));
    line("through", &view.agents.join(" "));
    line("template", view.template.as_deref().unwrap_or_default());
    line("why", &view.note);
    line("void", &view.why);
    for approver in &view.approvers {
        let _infallible = writeln!(text, "{GOOD}approved{GOOD:#} by {}", safe(approver));
    }
    if view.missing > 0 {
        let _infallible = writeln!(text, "{BAD}missing{BAD:#}  {} more", view.missing);
    }
    text
}
