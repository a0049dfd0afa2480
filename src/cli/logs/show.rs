//! `logs show`: everything that the record has about one call, one mandate or one approval.

use std::io::{self, Write};
use std::path::Path;

use clap::Args;
use jiff::tz::TimeZone;
use serde_json::Value;

use super::super::door::Elsewhere;
use super::super::everywhere::{self, Read};
use super::super::output::{Output, QUIET, STRONG, WARNING, trouble};
use super::super::state::State;
use super::Ending;
use super::line::safe;
use super::tree::Records;
use crate::control::records::{Root, Shown, is_id};
use crate::limit;
use crate::record::journal;
use crate::record::related::{self, Related};

const EXAMPLES: &str = "\
Examples:
  bailiwick logs show 9K2M4XQZ                     the id of a call as `logs` shows it
  bailiwick logs show 01KAXP --records             or the beginning of the whole id; every field of every record
  bailiwick logs show 01KN7C5W2E8Q --json          a mandate and its calls, as records

With several replicas a running gateway asks the others for what they have; who did not answer is named.";

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

pub(super) async fn run(
    arguments: &ShowArguments,
    elsewhere: &Elsewhere,
    output: Output,
    out: &mut impl Write,
) -> io::Result<Ending> {
    let own = || {
        let directory = journal::directory(&arguments.state.directory()?);
        shown(&directory, &arguments.id).map_err(|error| error.to_string())
    };
    let read = everywhere::read(&arguments.state, elsewhere, &format!("/logs/{}", arguments.id), own).await;
    let Read { told: Shown { roots, records, cut }, of } = read.map_err(io::Error::other)?;
    let missing = of.missing();
    let Some(root) = roots.first() else {
        missing.iter().for_each(trouble);
        let id = &arguments.id;
        trouble(format_args!("nothing on the record has the id {id}; `bailiwick logs` shows what there is"));
        return Ok(Ending::Refused);
    };
    if roots.len() > 1 {
        let shown = roots.iter().take(limit::LOGS_CANDIDATES_MAX).map(|root| format!("{} {}", root.kind(), root.id()));
        let more = if roots.len() > limit::LOGS_CANDIDATES_MAX { " and more" } else { "" };
        let shown = safe(&shown.collect::<Vec<_>>().join(", "), usize::MAX);
        trouble(format_args!("several things have the id {}: {shown}{more}; write more of it", arguments.id));
        return Ok(Ending::Refused);
    }
    if output.json {
        for line in &records {
            writeln!(out, "{line}")?;
        }
        // Programs read only this.
        if !missing.is_empty() || cut {
            writeln!(out, "{}", serde_json::json!({ "type": "missing", "missing": of, "cut": cut }))?;
        }
        out.flush()?;
        return Ok(Ending::Done);
    }
    let all: Vec<Value> = records.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
    if arguments.records {
        for record in &all {
            write_record(record, out)?;
        }
    } else {
        let zone = TimeZone::system();
        let records = Records { all: &all, zone: &zone };
        let tree = match root {
            Root::Call(id) => records.call(id),
            Root::Mandate(id) => records.mandate(id, limit::LOGS_TREE_CALLS_MAX),
            Root::Approval(id) => records.approval(id),
        };
        tree.write(out)?;
    }
    for line in &missing {
        writeln!(out, "{WARNING}{line}{WARNING:#}")?;
    }
    if cut {
        writeln!(out, "{WARNING}there is more of it on the records than is told at once{WARNING:#}")?;
    }
    out.flush()?;
    Ok(Ending::Done)
}

/// What the record in that directory has.
fn shown(directory: &Path, id: &str) -> io::Result<Shown> {
    let roots: Vec<Root> = related::find(directory, id)?.into_iter().collect();
    let records = match roots.as_slice() {
        [root] => related::lines(directory, &mut Related::of(root), usize::MAX)?.lines,
        _ => Vec::new(),
    };
    Ok(Shown { roots, records, cut: false })
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
    if is_id(text) {
        Ok(text.to_owned())
    } else {
        Err("write 4 to 32 letters and digits of the id that `bailiwick logs` shows".to_owned())
    }
}
