//! `policy`: what the record says about the rules: which were never used, and which would have been enough.
//!
//! Decides nothing and changes nothing. Invariant: what is told of a window says since when the record goes back.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;

use super::Ending;
use super::call::safe;
use super::door::Elsewhere;
use super::everywhere::{self, Read};
use super::output::{GOOD, Output, QUIET, STRONG, WARNING, trouble};
use super::state::State;
use crate::config::StoreConfig;
use crate::evidence::{Confidence, GrantUse, Suggested, Usage};
use crate::record::journal;

mod simulate;

const EXAMPLES: &str = "\
Examples:
  bailiwick policy unused                        allows that nobody has used for 90 days
  bailiwick policy unused --since 30d --all      every allow, and when it was used last
  bailiwick policy suggest --agent release-bot   rules that would have been enough for what it did
  bailiwick policy suggest --json
  bailiwick policy simulate --since 7d           recorded calls that policies.next would decide otherwise

They read the files and the record; nothing is changed. With several replicas a running gateway asks the others for theirs
(`unused` reads the record of this machine), and who did not answer is named. `simulate` ends with 1 where something would
be decided otherwise.";

/// Ask the record about the rules: which are not used, which would be enough
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct PolicyArguments {
    #[command(subcommand)]
    command: PolicyCommand,
    #[command(flatten)]
    state: State,
    #[command(flatten)]
    elsewhere: Elsewhere,
}

#[derive(Debug, Subcommand)]
enum PolicyCommand {
    /// List allows that nobody has used
    Unused {
        /// How far back: 30d, 90d
        #[arg(long, value_name = "DAYS", default_value = "90d", value_parser = days)]
        since: SignedDuration,
        /// Also those that were used, with how often and when for the last time
        #[arg(long)]
        all: bool,
    },
    /// Print the smallest rules that would have allowed what was done; they are never applied
    Suggest {
        /// Only of this agent
        #[arg(long, value_name = "ID")]
        agent: Option<String>,
        /// How far back: 30d, 90d
        #[arg(long, value_name = "DAYS", default_value = "90d", value_parser = days)]
        since: SignedDuration,
    },
    /// Print which recorded calls policies.next would decide otherwise, and of which nobody can tell
    Simulate {
        /// How far back: 30d, 90d
        #[arg(long, value_name = "DAYS", default_value = "30d", value_parser = days)]
        since: SignedDuration,
    },
}

#[derive(Serialize)]
struct Unused<'a> {
    /// Other replicas have the store in common, and what they used is not looked at.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    own_record_only: bool,
    since: Timestamp,
    until: Timestamp,
    oldest_record: Option<Timestamp>,
    grants: Vec<&'a GrantUse>,
}

/// Reads and prints.
pub async fn run(arguments: &PolicyArguments, output: Output) -> Ending {
    let PolicyArguments { command, state, elsewhere } = arguments;
    let until = Timestamp::now();
    let before = |since: &SignedDuration| until.checked_sub(*since).unwrap_or(Timestamp::MIN);
    match command {
        PolicyCommand::Simulate { since } => simulate::run((state, elsewhere), (before(since), until), output).await,
        PolicyCommand::Suggest { agent, since } => {
            suggest((state, elsewhere), (before(since), until), agent.as_deref(), output).await
        }
        PolicyCommand::Unused { .. } if elsewhere.admin.is_some() => {
            trouble("this reads the record of this machine: `bailiwick review open` asks a gateway elsewhere");
            Ending::Trouble
        }
        PolicyCommand::Unused { since, all } => {
            let usage = match usage(state, (before(since), until)) {
                Ok(usage) => usage,
                Err(problem) => {
                    trouble(problem);
                    return Ending::Trouble;
                }
            };
            let Some(understood) = state.files().or_complain() else { return Ending::Refused };
            let is_shared = matches!(understood.config().gateway.store, StoreConfig::Postgres(_));
            unused(&usage, &usage.of_grants(&understood.policy), (*all, is_shared), output);
            Ending::Done
        }
    }
}

fn usage(state: &State, (since, until): (Timestamp, Timestamp)) -> Result<Usage, String> {
    let state = state.directory()?;
    Usage::read(&journal::directory(&state), since, until).map_err(|error| error.to_string())
}

async fn suggest(
    (state, elsewhere): (&State, &Elsewhere),
    (since, until): (Timestamp, Timestamp),
    agent: Option<&str>,
    output: Output,
) -> Ending {
    let (moment, agent_asked) = (since.to_string(), agent.map(str::to_owned));
    let asked = [Some(("since", moment.as_str())), agent_asked.as_deref().map(|agent| ("agent", agent))];
    let path = everywhere::path("/policy/suggest", asked);
    let own = || usage(state, (since, until)).map(|usage| Suggested::by(&usage, agent));
    match everywhere::read(state, elsewhere, &path, own).await {
        Ok(read) => {
            output.result(&read, suggested(&read));
            Ending::Done
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

fn unused(usage: &Usage, grants: &[GrantUse], (all, own_record_only): (bool, bool), output: Output) {
    let grants: Vec<_> = grants.iter().filter(|grant| all || grant.is_unused()).collect();
    let mut text = window(usage.since, usage.oldest, usage.not_kept);
    if own_record_only {
        let _infallible = writeln!(
            text,
            "{WARNING}this is the record of one replica: what others used is unused here; `bailiwick review open` knows{WARNING:#}"
        );
    }
    if grants.is_empty() {
        let _infallible = writeln!(text, "{GOOD}every allow was used{GOOD:#}");
    }
    for GrantUse { grant, used, confidence } in &grants {
        let last = match used {
            None if *confidence == Confidence::Untold => format!("{QUIET}the record does not tell{QUIET:#}"),
            None => format!("{WARNING}never{WARNING:#}"),
            Some(used) => format!("{} times, last {}", used.count, used.last.strftime("%F")),
        };
        let sure = if *confidence == Confidence::ByObject { ", told from acts under earlier policies" } else { "" };
        let condition = grant.condition.as_deref().map(|name| format!(" when {name}")).unwrap_or_default();
        let _infallible = writeln!(
            text,
            "{STRONG}{}{STRONG:#}  {} may {} {} in {}{condition}  {last}  {QUIET}{}{sure}{QUIET:#}",
            grant.id, grant.subject, grant.action, grant.object, grant.environment, grant.place
        );
    }
    let told = Unused { own_record_only, since: usage.since, until: usage.until, oldest_record: usage.oldest, grants };
    output.result(&told, text);
}

fn suggested(Read { told, of }: &Read<Suggested>) -> String {
    let mut text = String::new();
    let window = window(told.since, told.oldest_record, told.not_kept);
    for line in window.lines().chain(of.text().lines()) {
        let _infallible = writeln!(text, "# {line}");
    }
    text.push_str("# what was done, name by name; conditions and roles are yours to add\n");
    text.push_str(
        "# not among them: mandates, the agents behind a chain, and what servers may ask (elicit, sample, roots)\n",
    );
    for row in &told.rows {
        let _infallible = writeln!(text, "{}", safe(row));
    }
    text
}

/// The window, and how much of it the record holds.
fn window(since: Timestamp, oldest: Option<Timestamp>, not_kept: u64) -> String {
    let since = since.strftime("%F");
    let mut text = match oldest {
        None => format!("no record since {since}\n"),
        Some(oldest) => format!("since {since}; the record goes back to {}\n", oldest.strftime("%F %T")),
    };
    if not_kept > 0 {
        let _infallible = writeln!(text, "{not_kept} more acts did not fit and are counted nowhere");
    }
    text
}

fn days(text: &str) -> Result<SignedDuration, String> {
    let days = text.strip_suffix('d').unwrap_or(text).parse::<i64>().ok().filter(|days| (1..=3_650).contains(days));
    let days = days.ok_or_else(|| format!("`{text}` is not a number of days: write 30d or 90d"))?;
    Ok(SignedDuration::from_hours(days.saturating_mul(24)))
}
