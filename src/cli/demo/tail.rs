//! The journal as it grows, one short line for each call.
//!
//! Reads the files and asks no gateway, as `logs` does. Invariant: a record is shown once, and what nobody asked for is
//! forgotten.

use std::collections::{HashMap, VecDeque};
use std::io::{Read as _, Seek as _, SeekFrom};
use std::path::PathBuf;
use std::time::Instant;

use serde_json::Value;

use crate::cli::output::print;
use crate::limit;

mod line;

/// A record, with the intent of the call that ends with it.
pub(super) struct Told {
    pub(super) record: Value,
    intent: Option<Value>,
}

impl Told {
    /// Whether a call of a tool of one of these names ends with it.
    pub(super) fn ends(&self, names: &[&str]) -> bool {
        let of = |record: &Value| names.iter().any(|name| says(record, "/mcp/name", name));
        is_end(&self.record) && (of(&self.record) || self.intent.as_ref().is_some_and(of))
    }
}

/// Whether that stands there in a record.
pub(super) fn says(record: &Value, path: &str, wanted: &str) -> bool {
    record.pointer(path).and_then(Value::as_str) == Some(wanted)
}

fn is_end(record: &Value) -> bool {
    matches!(record["type"].as_str(), Some("result" | "refusal" | "failure"))
}

/// A place in the journal.
pub(super) struct Tail {
    directory: PathBuf,
    /// How much of each segment was read.
    read: HashMap<PathBuf, u64>,
    /// Intents whose result is still to come, by leg.
    open: HashMap<String, Value>,
    /// What was read, and that nobody has asked for yet.
    waiting: VecDeque<Told>,
}

impl Tail {
    /// Everything from now on.
    pub(super) fn new(directory: PathBuf) -> Self {
        let mut tail = Self { directory, read: HashMap::new(), open: HashMap::new(), waiting: VecDeque::new() };
        tail.skip();
        tail.open.clear();
        tail
    }

    /// The next record that is wanted, if it comes soon.
    pub(super) async fn find(&mut self, wanted: impl Fn(&Told) -> bool) -> Option<Told> {
        let deadline = Instant::now() + limit::DEMO_LINE_TIMEOUT;
        loop {
            self.take_in();
            if let Some(at) = self.waiting.iter().position(&wanted) {
                return self.waiting.remove(at);
            }
            if Instant::now() > deadline {
                return None;
            }
            tokio::time::sleep(limit::DEMO_LINE_POLL).await;
        }
    }

    /// The line of the next record that is wanted, if it comes soon.
    pub(super) async fn line(&mut self, wanted: impl Fn(&Told) -> bool) -> Option<String> {
        let told = self.find(wanted).await?;
        line::line(&told.record, told.intent.as_ref())
    }

    /// Forgets what happened since the last look.
    pub(super) fn skip(&mut self) {
        self.take_in();
        self.waiting.clear();
    }

    /// Prints lines as they come; never ends.
    pub(super) async fn follow(&mut self) {
        loop {
            tokio::time::sleep(limit::DEMO_LINE_POLL * 4).await;
            self.take_in();
            while let Some(told) = self.waiting.pop_front() {
                if let Some(line) = line::line(&told.record, told.intent.as_ref()) {
                    print(line);
                }
            }
        }
    }

    /// Reads on.
    fn take_in(&mut self) {
        for record in self.records() {
            let leg = record.get("leg").and_then(Value::as_str).unwrap_or_default();
            let intent = if is_end(&record) { self.open.remove(leg) } else { None };
            if says(&record, "/type", "intent") && self.open.len() < limit::DEMO_OPEN_CALLS_MAX {
                self.open.insert(leg.to_owned(), record.clone());
            }
            if self.waiting.len() >= limit::DEMO_OPEN_CALLS_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(Told { record, intent });
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
}
