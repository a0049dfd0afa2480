//! `logs`: the record for people. One line for each call: its intent and its result joined.
//!
//! Reads the segment files and asks no gateway, so that it also works when none runs. Decides what is
//! shown; changes nothing. Invariant: nothing from the record reaches a terminal as anything but text.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::path::Path;

use clap::Args;

use super::Ending;
use super::door::Elsewhere;
use super::output::{Output, trouble};
use super::state::State;
use crate::limit;
use crate::record::filter::Filter;
use crate::record::join::Joiner;
use crate::record::journal;
use crate::record::read::Reader;
use crate::record::tail;

mod elsewhere;
mod line;
mod node;
mod select;
mod show;
#[cfg(test)]
mod tests;
mod tree;
mod words;

use line::Look;
use select::Select;

const EXAMPLES: &str = "\
Examples:
  bailiwick logs                            the last 20 events
  bailiwick logs -f --decision deny         refusals as they happen
  bailiwick logs --since 10m --server git   what happened to one server in the last ten minutes
  bailiwick logs -n 100 --json              the last 100 records as they are in the journal
  bailiwick logs show 9K2M4XQZ              what led to what in one call, by the id at the end of its line
  bailiwick logs -f --admin https://mcp.example.com/admin    of a gateway elsewhere

Bytes, digests and rules are in `logs show`; the files are in the state directory, under journal/.";

/// Show what was called, by whom, and what was decided
///
/// Prints one line for each event: when, what was decided, for whom, with which agent, on which tool, why,
/// how long it took, and the end of the call's id.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES, args_conflicts_with_subcommands = true)]
pub struct LogsArguments {
    #[command(subcommand)]
    command: Option<LogsCommand>,
    /// Keep running and print events as they come
    #[arg(short, long)]
    follow: bool,
    /// How many of the latest events to print first: 20, or 10 with -f, or all with --since
    #[arg(short = 'n', long, value_name = "COUNT")]
    lines: Option<usize>,
    /// Print longer lines: date, whole ids, rule, environment and detail
    #[arg(long)]
    wide: bool,
    #[command(flatten)]
    select: Select,
    /// Print no colours, even on a terminal
    #[arg(long)]
    no_color: bool,
    #[command(flatten)]
    elsewhere: Elsewhere,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, clap::Subcommand)]
enum LogsCommand {
    Show(show::ShowArguments),
}

/// Prints, and goes on printing with `-f`. The writer is expected to remove colours where there is no
/// terminal (`anstream::stdout()`).
pub async fn run(arguments: &LogsArguments, output: Output, out: &mut impl Write) -> Ending {
    let printed = match &arguments.command {
        Some(LogsCommand::Show(show)) => show::run(show, &arguments.elsewhere, output, out).await,
        None => match arguments.elsewhere.remote() {
            Ok(None) => follow(arguments, output, out).await,
            Ok(Some(remote)) => elsewhere::run(&remote, arguments, output, out).await,
            Err(error) => Err(io::Error::other(error)),
        },
    };
    match printed {
        Ok(ending) => ending,
        // Nobody reads any more: there is nobody to tell.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ending::Done,
        Err(error) => {
            trouble(error);
            Ending::Trouble
        }
    }
}

async fn follow(arguments: &LogsArguments, output: Output, out: &mut impl Write) -> io::Result<Ending> {
    let state = arguments.state.directory().map_err(io::Error::other)?;
    let directory = journal::directory(&state);
    let look = arguments.look(output);
    let select = arguments.select.at(jiff::Timestamp::now());
    let (start, count) = begin(&directory, &select, arguments)?;
    if start == 0 && !arguments.follow {
        trouble(format_args!("there is no journal in {} yet; has a gateway run there?", directory.display()));
        return Ok(Ending::Trouble);
    }
    let mut joiner = Joiner::new(limit::LOGS_OPEN_CALLS_MAX);
    let mut reader = Reader::new(&directory, start);
    let mut last = VecDeque::new();
    collect(&mut reader, &mut joiner, &select, &look, count, &mut last)?;
    if !arguments.follow {
        last.extend(joiner.open().filter(|seen| select.matches(seen)).filter_map(|seen| look.open(&seen)));
    }
    let excess = last.len().saturating_sub(count);
    for line in last.into_iter().skip(excess) {
        writeln!(out, "{line}")?;
    }
    out.flush()?;
    if !arguments.follow {
        return Ok(Ending::Done);
    }
    loop {
        tokio::time::sleep(limit::LOGS_POLL_INTERVAL).await;
        let lines = reader.more()?;
        for line in lines.lines() {
            if let Some(shown) = joiner.see(line).filter(|seen| select.matches(seen)).and_then(|seen| look.line(&seen))
            {
                writeln!(out, "{shown}")?;
            }
        }
        if !lines.is_empty() {
            out.flush()?;
        }
    }
}

impl LogsArguments {
    fn look(&self, output: Output) -> Look {
        Look { json: output.json, wide: self.wide, color: !self.no_color, zone: jiff::tz::TimeZone::system() }
    }
}

/// Everything that is there now, as far as it is selected; keeps the last `count`.
fn collect(
    reader: &mut Reader,
    joiner: &mut Joiner,
    select: &Filter,
    look: &Look,
    count: usize,
    last: &mut VecDeque<String>,
) -> io::Result<()> {
    loop {
        let lines = reader.more()?;
        if lines.is_empty() {
            return Ok(());
        }
        for line in lines.lines() {
            let Some(seen) = joiner.see(line).filter(|seen| select.matches(seen)) else { continue };
            if let Some(shown) = look.line(&seen) {
                if last.len() >= count {
                    last.pop_front();
                }
                last.push_back(shown);
            }
        }
    }
}

/// The segment to begin with, and how many events to print first.
fn begin(directory: &Path, select: &Filter, arguments: &LogsArguments) -> io::Result<(u64, usize)> {
    let count = first_lines(select, arguments);
    Ok((tail::start(directory, select, count, limit::LOGS_OPEN_CALLS_MAX)?, count))
}

/// How many events to print first.
fn first_lines(select: &Filter, arguments: &LogsArguments) -> usize {
    match (arguments.lines, select.since) {
        (Some(count), _) => count,
        (None, Some(_)) => usize::MAX,
        (None, None) if arguments.follow => 10,
        (None, None) => 20,
    }
}
