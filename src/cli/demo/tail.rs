//! The journal as it grows, one short line for each call.
//!
//! Reads the files and asks no gateway, as `logs` does. Invariant: what came from outside is shown as text only.

use std::collections::HashMap;
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::cli::output::{BAD, GOOD, QUIET, WARNING, print};
use crate::limit;

/// The widest line, with the time before it and what `show` writes before that.
const COLUMNS: usize = 100;

/// A place in the journal.
pub(super) struct Tail {
    directory: PathBuf,
    /// How much of each segment was read.
    read: HashMap<PathBuf, u64>,
    /// Intents whose result is still to come, by leg.
    open: HashMap<String, Value>,
}

impl Tail {
    /// Everything from now on.
    pub(super) fn new(directory: PathBuf) -> Self {
        let mut tail = Self { directory, read: HashMap::new(), open: HashMap::new() };
        let _before = tail.records();
        tail.open.clear();
        tail
    }

    /// The next line of a call, if it comes soon.
    pub(super) async fn next_call(&mut self) -> Option<String> {
        let deadline = Instant::now() + limit::DEMO_LINE_TIMEOUT;
        loop {
            let lines: Vec<String> = self
                .records()
                .iter()
                .filter(|record| record["type"] != "list")
                .filter_map(|record| self.line(record))
                .collect();
            if let Some(line) = lines.into_iter().last() {
                return Some(line);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(limit::DEMO_LINE_POLL).await;
        }
    }

    /// Forgets what happened since the last look.
    pub(super) fn skip(&mut self) {
        let _seen = self.records();
    }

    /// Prints lines as they come; never ends.
    pub(super) async fn follow(&mut self) {
        loop {
            tokio::time::sleep(limit::DEMO_LINE_POLL * 4).await;
            for record in self.records() {
                if let Some(line) = self.line(&record) {
                    print(line);
                }
            }
        }
    }

    /// Whole lines that were not read before.
    fn records(&mut self) -> Vec<Value> {
        let mut segments: Vec<PathBuf> = std::fs::read_dir(&self.directory)
            .into_iter()
            .flatten()
            .flatten()
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
            .collect();
        segments.sort();
        let mut records = Vec::new();
        for segment in segments {
            let read = self.read.entry(segment.clone()).or_default();
            let Ok(mut file) = std::fs::File::open(&segment) else { continue };
            let mut text = Vec::new();
            if file.seek(SeekFrom::Start(*read)).and_then(|_| file.read_to_end(&mut text)).is_err() {
                continue;
            }
            // The last line may be in the middle of being written.
            let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
            *read += whole as u64;
            let lines = text.get(..whole).unwrap_or_default().split(|byte| *byte == b'\n');
            records.extend(lines.filter_map(|line| serde_json::from_slice::<Value>(line).ok()));
        }
        records
    }

    /// The line of a record, where it has one: an intent is shown with its result.
    fn line(&mut self, record: &Value) -> Option<String> {
        let text = |record: &Value, path: &str| record.pointer(path).and_then(Value::as_str).map(str::to_owned);
        let leg = text(record, "/leg").unwrap_or_default();
        let intent = match record["type"].as_str()? {
            "intent" => {
                if self.open.len() < limit::DEMO_OPEN_CALLS_MAX {
                    self.open.insert(leg, record.clone());
                }
                return None;
            }
            "result" | "refusal" | "failure" => self.open.remove(&leg),
            "list" => None,
            kind @ ("reload" | "revocation" | "start" | "stop") => {
                return Some(format!("{QUIET}{}{QUIET:#} {kind}\n", time(record)));
            }
            _ => return None,
        };
        let told = intent.as_ref().unwrap_or(record);
        let fact = |path: &str| text(record, path).or_else(|| text(told, path));
        let subject =
            fact("/subject/user").or_else(|| fact("/subject/id")).or_else(|| fact("/agent/id")).unwrap_or_default();
        let object = match (fact("/mcp/server"), fact("/mcp/name")) {
            (Some(server), Some(name)) => format!("{server}/{name}"),
            (_, name) => name.or_else(|| fact("/mcp/method")).unwrap_or_default(),
        };
        let (style, effect) = match record["type"].as_str()? {
            "refusal" => (BAD, "deny"),
            "failure" => (WARNING, "fail"),
            "list" => (QUIET, "list"),
            _ => (GOOD, "allow"),
        };
        let reason = fact("/reason").or_else(|| fact("/decision/reason"));
        let latency = record.pointer("/result/latency_us").and_then(Value::as_u64);
        let outcome =
            reason.or_else(|| latency.map(|latency_us| format!("{} ms", latency_us / 1000))).unwrap_or_default();
        let rule = fact("/rule").or_else(|| fact("/decision/rule")).unwrap_or_default();
        let subject = subject.trim_start_matches("user:").to_owned();
        let line = format!("{effect:<6}{subject:<11} {object:<18} {outcome:<15} {rule}");
        let line: String = safe(line.trim_end()).chars().take(COLUMNS - 19).collect();
        let (effect, rest) = line.split_at_checked(6).unwrap_or((&line, ""));
        Some(format!("{QUIET}{}{QUIET:#} {style}{effect}{style:#}{rest}\n", time(record)))
    }
}

fn safe(text: &str) -> String {
    text.chars().map(|character| if character.is_control() { '\u{fffd}' } else { character }).collect()
}

fn time(record: &Value) -> String {
    let at = record["at"].as_str().and_then(|at| at.parse::<jiff::Timestamp>().ok());
    at.map(|at| jiff::tz::TimeZone::system().to_datetime(at).strftime("%H:%M:%S").to_string()).unwrap_or_default()
}
