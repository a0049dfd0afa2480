//! `logs show`: everything that the record has about one call.

use std::collections::BTreeSet;
use std::io::{self, Write};

use clap::Args;
use serde_json::Value;

use super::super::output::{Output, QUIET, STRONG, trouble};
use super::super::state::State;
use super::Ending;
use super::line::safe;
use crate::limit;
use crate::record::journal;
use crate::record::read::{Reader, segments};

const EXAMPLES: &str = "\
Examples:
  bailiwick logs show 9K2M4XQZ                     the id as `logs` shows it
  bailiwick logs show 01KAXP --json                or the beginning of the whole id; as records";

/// Show every record of one call
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct ShowArguments {
    /// The call's id, or so much of its beginning or end that no other call has
    #[arg(value_name = "ID", value_parser = id)]
    id: String,
    #[command(flatten)]
    state: State,
}

pub(super) fn run(arguments: &ShowArguments, output: Output, out: &mut impl Write) -> io::Result<Ending> {
    let state = arguments.state.directory().map_err(io::Error::other)?;
    let directory = journal::directory(&state);
    let mut calls = BTreeSet::new();
    let mut records = Vec::new();
    for first in segments(&directory)? {
        let lines = Reader::new(&directory, first).segment()?;
        // Most lines do not have it anywhere: those are not parsed.
        for line in lines.lines().filter(|line| line.contains(&arguments.id)) {
            let Ok(record) = serde_json::from_str::<Value>(line) else { continue };
            let Some(call) = record.get("call").and_then(Value::as_str) else { continue };
            if call.starts_with(&arguments.id) || call.ends_with(&arguments.id) {
                calls.insert(call.to_owned());
                if calls.len() == 1 {
                    records.push((line.to_owned(), record));
                }
            }
        }
    }
    if calls.is_empty() {
        trouble(format_args!("no call has the id {}; `bailiwick logs` shows what there is", arguments.id));
        return Ok(Ending::Refused);
    }
    if calls.len() > 1 {
        let shown: Vec<&str> = calls.iter().take(limit::LOGS_CANDIDATES_MAX).map(String::as_str).collect();
        trouble(format_args!("{} calls match {}: {}", calls.len(), arguments.id, shown.join(", ")));
        return Ok(Ending::Refused);
    }
    for (line, record) in records {
        if output.json {
            writeln!(out, "{line}")?;
        } else {
            write_record(&record, out)?;
        }
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

/// Upper case, as ids are; long enough to mean something.
fn id(text: &str) -> Result<String, String> {
    let id = text.to_ascii_uppercase();
    if (4..=26).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        Ok(id)
    } else {
        Err("write 4 to 26 letters and digits of the id that `bailiwick logs` shows".to_owned())
    }
}
