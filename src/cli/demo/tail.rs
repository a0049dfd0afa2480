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

/// Whether a call ends with that record.
pub(super) fn is_end(record: &Value) -> bool {
    matches!(record["type"].as_str(), Some("result" | "refusal" | "failure"))
}

/// A place in the journal.
pub(super) struct Tail {
    directory: PathBuf,
    /// How much of each segment was read.
    read: HashMap<PathBuf, u64>,
    /// Intents whose result is still to come, by leg.
    open: HashMap<String, Value>,
    /// Records that were read, and that nobody has asked for yet.
    waiting: VecDeque<Value>,
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
    pub(super) async fn find(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<Value> {
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
    pub(super) async fn line(&mut self, wanted: impl Fn(&Value) -> bool) -> Option<String> {
        let record = self.find(wanted).await?;
        self.told(&record)
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
            while let Some(record) = self.waiting.pop_front() {
                if let Some(line) = self.told(&record) {
                    print(line);
                }
            }
        }
    }

    fn told(&mut self, record: &Value) -> Option<String> {
        let intent = record["leg"].as_str().filter(|_| is_end(record)).and_then(|leg| self.open.remove(leg));
        line::line(record, intent.as_ref())
    }

    /// Reads on.
    fn take_in(&mut self) {
        for record in self.records() {
            if record["type"] == "intent"
                && let Some(leg) = record["leg"].as_str()
                && self.open.len() < limit::DEMO_OPEN_CALLS_MAX
            {
                self.open.insert(leg.to_owned(), record.clone());
            }
            if self.waiting.len() >= limit::DEMO_OPEN_CALLS_MAX {
                self.waiting.pop_front();
            }
            self.waiting.push_back(record);
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
