//! `break-glass`: who has emergency access, ending it; asking, agreeing and reviewing open the console's page.
//!
//! Asks a running gateway, which decides. Invariant: as for `approvals`, no token that this machine keeps gives anything.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, trouble};
use crate::control::break_glass::BreakGlassView;
use crate::control::standing::TakeBackOrder;
use crate::guard::approval::escaped as safe;

const EXAMPLES: &str = "\
Examples:
  bailiwick break-glass list
  bailiwick break-glass end 0123456789abcdef0123456789abcdef --note 'the incident is over'

It is asked for, agreed to and reviewed on the console's page `Emergency`. Ends with 1 where the gateway refuses.";

/// See who has emergency access, and end it
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct BreakGlassArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List it, with what waits to be reviewed
    List(ListArguments),
    /// End one before its time
    End(EndArguments),
}

#[derive(Debug, Args)]
struct ListArguments {
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct EndArguments {
    /// Which: its name in `bailiwick break-glass list`
    #[arg(value_name = "ACCESS")]
    id: String,
    /// Why: it stands on the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    door: Door,
}

/// Asks and prints.
pub async fn run(arguments: &BreakGlassArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List(list) => {
            let answer = list.door.ask(Method::GET, "/break-glass", None::<&()>).await;
            match answer.and_then(|answer| answer.read::<Vec<BreakGlassView>>()) {
                Ok(found) => {
                    output.result(&found, lines(&found));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
        What::End(end) => {
            // What is typed goes into a path.
            if end.id.is_empty() || !end.id.bytes().all(|byte| byte.is_ascii_hexdigit()) {
                trouble("it is named by 32 digits of 0-9 and a-f: `bailiwick break-glass list` has them");
                return Ending::Trouble;
            }
            let order = TakeBackOrder { note: end.note.clone() };
            let answer = end.door.ask(Method::POST, &format!("/break-glass/{}/end", end.id), Some(&order)).await;
            match answer.and_then(|answer| answer.read::<BreakGlassView>()) {
                Ok(view) => {
                    output.result(&view, format!("{GOOD}ended{GOOD:#}, on the record; it waits to be reviewed\n"));
                    Ending::Done
                }
                Err(error) => refused(&error),
            }
        }
    }
}

fn lines(found: &[BreakGlassView]) -> String {
    let mut text = String::new();
    if found.is_empty() {
        text.push_str("nobody has asked for emergency access\n");
    }
    for view in found {
        let style = if ["open", "to_review"].contains(&view.state.as_str()) { BAD } else { QUIET };
        let what = format!("{} for {}: {}", view.role, view.user, view.reason);
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {style}{}{style:#}  {} {QUIET}agreed by {}, until {}{QUIET:#}",
            safe(&view.id),
            safe(&view.state),
            safe(&what),
            safe(&view.approvers.join(" ")),
            view.until
        );
    }
    text
}
