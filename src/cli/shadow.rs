//! `shadow`: what the next policies would change for those who call now.
//!
//! Decides nothing: the running gateway has counted. Invariant: what was not evaluated is told as well.

use std::fmt::Write as _;

use clap::Args;
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, Output, QUIET, STRONG, WARNING};
use crate::gateway::{Change, ShadowDifference, ShadowReport};

const EXAMPLES: &str = "\
Examples:
  cp -r policies policies.next   then edit the copy, and
  bailiwick reload               every decision is made under both, and answered under policies
  bailiwick shadow               what would have changed so far, by whom and how often
  bailiwick shadow --json

Lists are not evaluated. The counts begin anew when one of the two changes.";

/// Show what policies.next would change, counted by the running gateway
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct ShadowArguments {
    #[command(flatten)]
    door: Door,
}

/// Asks and prints; refused where there is nothing to compare with.
pub async fn run(arguments: &ShadowArguments, output: Output) -> Ending {
    let answer = arguments.door.ask(Method::GET, "/shadow", None::<&()>).await;
    match answer.and_then(|answer| answer.read::<ShadowReport>()) {
        Ok(report) => {
            output.result(&report, told(&report));
            if report.next.is_some() { Ending::Done } else { Ending::Refused }
        }
        Err(error) => refused(&error),
    }
}

fn told(report: &ShadowReport) -> String {
    let (Some(live), Some(next)) = (report.live, report.next) else {
        return match &report.problem {
            Some(problem) => format!("{BAD}{problem}{BAD:#}\n"),
            None => {
                "there are no next policies: write policies.next beside policies, then `bailiwick reload`\n".to_owned()
            }
        };
    };
    let mut text = format!(
        "{STRONG}{} -> {}{STRONG:#}: {} decisions made under both, {} not\n",
        live.0.short(),
        next.0.short(),
        report.evaluated,
        report.not_evaluated
    );
    for difference in &report.differences {
        let ShadowDifference { change, action, object, reason, rule, count, who, others } = difference;
        let (style, words) = match change {
            Change::NewlyAllowed => (WARNING, "newly allowed"),
            Change::NewlyRefused => (BAD, "newly refused"),
        };
        let mut names: Vec<String> = who.iter().map(|(who, count)| format!("{who} ({count})")).collect();
        if *others > 0 {
            names.push(format!("others ({others})"));
        }
        let rule = rule.as_deref().map(|rule| format!(" {rule}")).unwrap_or_default();
        // Writing to a string cannot fail.
        let _infallible = writeln!(
            text,
            "{style}{words}{style:#}  {count:>6}  {action} {object}  {QUIET}{reason}{rule}{QUIET:#}  {}",
            names.join(", ")
        );
    }
    if report.not_kept > 0 {
        let _infallible = writeln!(text, "and {} decisions more, of which no row is kept", report.not_kept);
    }
    text
}
