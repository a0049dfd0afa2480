//! `policy simulate`: which recorded calls the next policies would decide otherwise.
//!
//! Decides nothing and changes nothing. Invariant: what the record does not tell is shown as such, with how often and why.

use std::fmt::Write as _;

use jiff::{SignedDuration, Timestamp};

use crate::cli::Ending;
use crate::cli::call::safe;
use crate::cli::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, complain, list, trouble};
use crate::cli::state::State;
use crate::evidence::{Simulation, simulate};
use crate::record::journal;

/// Reads the record, asks the next policies, prints.
pub(super) fn run(state: &State, since: SignedDuration, output: Output) -> Ending {
    let next = match state.files().next() {
        Ok(Some(next)) => next,
        Ok(None) => {
            trouble("there are no next policies: write policies.next beside policies");
            return Ending::Trouble;
        }
        Err(mistakes) => {
            complain(list(&mistakes, "", BAD));
            trouble("the next policies would not be served");
            return Ending::Trouble;
        }
    };
    let until = Timestamp::now();
    let since = until.checked_sub(since).unwrap_or(Timestamp::MIN);
    let found = state.directory().and_then(|directory| {
        simulate(&journal::directory(&directory), &next.policy, since, until).map_err(|error| error.to_string())
    });
    match found {
        Ok(found) => {
            output.result(&found, told(&found));
            if found.changes.is_empty() { Ending::Done } else { Ending::Refused }
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

fn told(found: &Simulation) -> String {
    let since = found.since.strftime("%F");
    let mut text = match found.oldest_record {
        None => format!("no record since {since}\n"),
        Some(oldest) => format!("since {since}; the record goes back to {}\n", oldest.strftime("%F %T")),
    };
    let _infallible = writeln!(
        text,
        "{} decisions: {GOOD}{} stay{GOOD:#}, {} would change, {WARNING}{} nobody can tell{WARNING:#}",
        found.decisions,
        found.unchanged,
        found.changes.iter().map(|flip| flip.count).sum::<u64>(),
        found.cannot_tell.iter().map(|untold| untold.count).sum::<u64>()
    );
    for flip in &found.changes {
        let (style, word) = if flip.change == "newly_allowed" { (WARNING, "allowed") } else { (BAD, "refused") };
        let agent = if flip.agent.is_empty() { String::new() } else { format!(" with agent:{}", safe(&flip.agent)) };
        let _infallible = writeln!(
            text,
            "{style}{word}{style:#}  {} {STRONG}{}{STRONG:#} by {}{agent}  {} times, last {}  {QUIET}was {}, would be {}{QUIET:#}",
            flip.action,
            safe(&flip.object),
            safe(&flip.subject),
            flip.count,
            flip.last.strftime("%F %T"),
            safe(&flip.was),
            safe(&flip.would_be)
        );
    }
    for untold in &found.cannot_tell {
        let _infallible = writeln!(
            text,
            "{WARNING}cannot tell{WARNING:#}  {} times: {}  {QUIET}such as call {}{QUIET:#}",
            untold.count,
            safe(&untold.why),
            safe(&untold.example)
        );
    }
    if found.not_by_rules > 0 {
        let _infallible =
            writeln!(text, "{QUIET}{} refusals had another reason than the rules{QUIET:#}", found.not_by_rules);
    }
    if found.not_kept > 0 {
        let _infallible = writeln!(text, "{WARNING}{} more rows did not fit{WARNING:#}", found.not_kept);
    }
    text
}
