//! `policy simulate`: which recorded calls the next policies would decide otherwise.
//!
//! Decides nothing and changes nothing. Invariant: what the record does not tell is shown as such, with how often and why.

use std::fmt::Write as _;

use jiff::Timestamp;

use crate::cli::Ending;
use crate::cli::call::safe;
use crate::cli::door::Elsewhere;
use crate::cli::everywhere::{self, Read};
use crate::cli::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, complain, list, trouble};
use crate::cli::state::State;
use crate::evidence::{Simulation, Way, simulate};
use crate::record::journal;

/// Reads the record, asks the next policies, prints.
pub(super) async fn run(
    (state, elsewhere): (&State, &Elsewhere),
    (since, until): (Timestamp, Timestamp),
    output: Output,
) -> Ending {
    // A gateway elsewhere has next policies of its own.
    let next = match elsewhere.admin {
        Some(_) => None,
        None => match state.files().next() {
            Ok(Some(next)) => Some(next),
            Ok(None) => {
                trouble("there are no next policies: write policies.next beside policies");
                return Ending::Trouble;
            }
            Err(mistakes) => {
                complain(list(&mistakes, "", BAD));
                trouble("the next policies would not be served");
                return Ending::Trouble;
            }
        },
    };
    let moment = since.to_string();
    let revision = next.as_ref().map(|next| next.policy.revision().to_string());
    let asked = [Some(("since", moment.as_str())), revision.as_deref().map(|revision| ("revision", revision))];
    let own = || {
        let next = next.as_ref().ok_or("there are no next policies here")?;
        let directory = journal::directory(&state.directory()?);
        simulate(&directory, &next.policy, since, until).map_err(|error| error.to_string())
    };
    match everywhere::read(state, elsewhere, &everywhere::path("/policy/simulate", asked), own).await {
        Ok(read) => {
            output.result(&read, told(&read));
            if read.told.changes.is_empty() { Ending::Done } else { Ending::Refused }
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

fn told(Read { told: found, of }: &Read<Simulation>) -> String {
    let since = found.since.strftime("%F");
    let mut text = match found.oldest_record {
        None => format!("no record since {since}\n"),
        Some(oldest) => format!("since {since}; the record goes back to {}\n", oldest.strftime("%F %T")),
    };
    text.push_str(&of.text());
    let _infallible = writeln!(
        text,
        "{} decisions: {GOOD}{} stay{GOOD:#}, {} would change, {WARNING}{} nobody can tell{WARNING:#}",
        found.decisions,
        found.unchanged,
        found.changes.iter().map(|flip| flip.count).sum::<u64>(),
        found.cannot_tell.iter().map(|untold| untold.count).sum::<u64>()
    );
    for flip in &found.changes {
        let (style, word) = match flip.change {
            Way::NewlyAllowed => (WARNING, "allowed"),
            Way::NewlyRefused => (BAD, "refused"),
        };
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
