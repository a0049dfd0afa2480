//! `logs show`: everything that the record has about one call, one mandate or one approval.

use std::io::{self, Write};

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::output::{Output, QUIET, STRONG, trouble};
use super::super::state::State;
use super::Ending;
use super::line::safe;
use super::related::{self, Root};
use super::tree::Records;
use crate::limit;
use crate::record::journal;

const EXAMPLES: &str = "\
Examples:
  bailiwick logs show 9K2M4XQZ                     the id of a call as `logs` shows it
  bailiwick logs show 01KAXP --records             or the beginning of the whole id; every field of every record
  bailiwick logs show 01KN7C5W2E8Q --json          a mandate and its calls, as records

Only the record of this gateway is read: what another replica did stands in its own.";

/// Show what led to what: a call with its decision, approvals, credential and outcome, or a mandate with its calls
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArguments {
    /// The id of a call, a mandate or a request for approval, or so much of its beginning or end that no other has
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    /// Print every field of every record instead of the tree
    #[arg(long)]
    records: bool,
    #[command(flatten)]
    state: State,
}

pub(super) fn run(arguments: &ShowArguments, output: Output, out: &mut impl Write) -> io::Result<Ending> {
    let state = arguments.state.directory().map_err(io::Error::other)?;
    let directory = journal::directory(&state);
    let roots = related::find(&directory, &arguments.id)?;
    let Some(root) = roots.first() else {
        trouble(format_args!(
            "nothing on the record has the id {}; `bailiwick logs` shows what there is",
            arguments.id
        ));
        return Ok(Ending::Refused);
    };
    if roots.len() > 1 {
        let shown = roots.iter().take(limit::LOGS_CANDIDATES_MAX).map(|root| format!("{} {}", root.kind(), root.id()));
        let more = if roots.len() > limit::LOGS_CANDIDATES_MAX { " and more" } else { "" };
        let shown = shown.collect::<Vec<_>>().join(", ");
        trouble(format_args!("several things have the id {}: {shown}{more}; write more of it", arguments.id));
        return Ok(Ending::Refused);
    }
    let found = related::records(&directory, root)?;
    if output.json {
        for (line, _) in &found {
            writeln!(out, "{line}")?;
        }
    } else if arguments.records {
        for (_, record) in &found {
            write_record(record, out)?;
        }
    } else {
        let all: Vec<Value> = found.into_iter().map(|(_, record)| record).collect();
        let zone = TimeZone::system();
        let records = Records { all: &all, zone: &zone };
        let tree = match root {
            Root::Call(id) => records.call(id),
            Root::Mandate(id) => records.mandate(id, limit::LOGS_TREE_CALLS_MAX),
            Root::Approval(id) => records.approval(id),
        };
        tree.write(out)?;
    }
    out.flush()?;
    Ok(Ending::Done)
}

fn write_record(record: &Value, out: &mut impl Write) -> io::Result<()> {
    let text = |name: &str| record.get(name).map(plain).unwrap_or_default();
    writeln!(out, "{STRONG}{:<8}{STRONG:#} {} {QUIET}record {}{QUIET:#}", text("type"), text("at"), text("seq"))?;
    let Value::Object(fields) = record else { return Ok(()) };
    for (name, value) in fields {
        if !["v", "seq", "prev", "at", "type"].contains(&name.as_str()) {
            write_field(name, value, out)?;
        }
    }
    writeln!(out)
}

/// One line for each value, named by its path.
fn write_field(path: &str, value: &Value, out: &mut impl Write) -> io::Result<()> {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                write_field(&format!("{path}.{name}"), value, out)?;
            }
            Ok(())
        }
        value => writeln!(out, "  {QUIET}{:<24}{QUIET:#} {}", safe(path, usize::MAX), plain(value)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => safe(text, usize::MAX),
        other => safe(&other.to_string(), usize::MAX),
    }
}

/// Letters and digits, as ids are; long enough to mean something.
fn id(text: &str) -> Result<String, String> {
    if (4..=32).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(text.to_owned())
    } else {
        Err("write 4 to 32 letters and digits of the id that `bailiwick logs` shows".to_owned())
    }
}
