//! Follows the record for one place: reads what has come, says it in their words, sends it, and remembers.
//!
//! Decides where to go on after a restart, and how long to wait for a place that is down. Invariant: the cursor moves
//! after the acknowledgement, never before.

use std::collections::VecDeque;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde_json::Value;

use super::Status;
use super::cursor::Cursor;
use super::ocsf::{Open, event};
use super::place::Place;
use crate::config::ExportConfig;
use crate::ids::Digest;
use crate::limit;
use crate::record::read::{Reader, segments};
use crate::record::{Holds, Metrics, Written};

/// What one follower needs.
pub(super) struct Follower {
    pub config: ExportConfig,
    /// The directory of the segments.
    pub journal: PathBuf,
    /// The file that its place in them is kept in.
    pub cursor: PathBuf,
    pub status: Arc<Status>,
    pub holds: Arc<Holds>,
    pub metrics: Arc<Metrics>,
    /// How far the record has come; what stands beyond may still be taken back.
    pub written: Written,
}

/// A record that waits: its number, its digest, and what is said about it.
struct Waiting {
    sequence: u64,
    digest: Digest,
    event: String,
}

/// Where it reads, and what it has read and not sent.
struct Reading {
    reader: Reader,
    cursor: Cursor,
    open: Open,
    waiting: VecDeque<Waiting>,
}

impl Follower {
    /// Runs until it is cancelled.
    pub async fn run(self) {
        let mut place = Place::new(&self.config.to);
        let mut failures = 0_u32;
        let mut reading: Option<Reading> = None;
        loop {
            let step = self.step(&mut reading, &mut place).await;
            let pause = match step {
                Ok(true) => {
                    failures = 0;
                    continue;
                }
                Ok(false) => {
                    failures = 0;
                    limit::EXPORT_LOOK_INTERVAL
                }
                Err(problem) => {
                    failures = failures.saturating_add(1);
                    self.failed(&problem);
                    let doubled = 1_u32.checked_shl(failures.min(16)).unwrap_or(u32::MAX);
                    limit::EXPORT_LOOK_INTERVAL.saturating_mul(doubled).min(limit::EXPORT_RETRY_MAX)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    fn failed(&self, problem: &str) {
        let name = self.config.name.as_str();
        if self.status.get().is_none() {
            tracing::warn!(export = name, to = %self.config.to, problem, "records cannot be sent; it is tried again");
        }
        self.status.set(Some(problem.to_owned()));
        self.metrics.export_failed(name);
    }

    /// Reads and sends one batch; whether there may be more at once.
    async fn step(&self, reading: &mut Option<Reading>, place: &mut Place) -> Result<bool, String> {
        let mut own = match reading.take() {
            Some(own) => own,
            None => self.resume().await?,
        };
        if own.waiting.is_empty() {
            let read = tokio::task::spawn_blocking(move || {
                let more = own.more();
                (own, more)
            });
            let (back, more) = read.await.map_err(|error| error.to_string())?;
            own = back;
            if let Err(error) = more {
                *reading = Some(own);
                return Err(format!("the record cannot be read: {error}"));
            }
        }
        let count = own.waiting.len().min(limit::EXPORT_BATCH_EVENTS_MAX);
        let Some(last) = count.checked_sub(1).and_then(|last| own.waiting.get(last)) else {
            *reading = Some(own);
            self.well(0, 0);
            return Ok(false);
        };
        let (cursor, number) = (Cursor::after(last.sequence, last.digest), last.sequence);
        let events: Vec<&str> = own.waiting.iter().take(count).map(|waiting| waiting.event.as_str()).collect();
        let events: Vec<&str> = events.into_iter().filter(|event| !event.is_empty()).collect();
        let sent = if events.is_empty() { Ok(()) } else { place.send(&events).await };
        let kept = match sent {
            Ok(()) => cursor.write(&self.cursor).map_err(|error| format!("its cursor cannot be kept: {error}")),
            Err(problem) => Err(problem),
        };
        if kept.is_ok() {
            own.cursor = cursor;
            own.waiting.drain(..count);
            self.holds.read_up_to(self.config.name.as_str(), number);
            self.well(count, own.waiting.len());
        }
        *reading = Some(own);
        kept.map(|()| true)
    }

    fn well(&self, sent: usize, waiting: usize) {
        if self.status.get().is_some() {
            tracing::info!(export = %self.config.name, "records can be sent again");
            self.status.set(None);
        }
        self.metrics.exported(self.config.name.as_str(), sent, waiting);
    }

    /// Finds the place of the last acknowledgement.
    async fn resume(&self) -> Result<Reading, String> {
        let (journal, path, name) = (self.journal.clone(), self.cursor.clone(), self.config.name.clone());
        let written = self.written.clone();
        let found = tokio::task::spawn_blocking(move || {
            let cursor = Cursor::read(&path)?.unwrap_or_default();
            Reading::resume(&journal, cursor, written).inspect(|reading| {
                if reading.cursor.last() > cursor.last() {
                    let records = reading.cursor.last() - cursor.last();
                    tracing::error!(export = %name, records, "records were removed before they could be sent");
                } else if reading.cursor.last() < cursor.last() {
                    tracing::warn!(export = %name, "the record is not what was sent: its last segment is sent again");
                }
            })
        });
        found.await.map_err(|error| error.to_string())?.map_err(|error| format!("the record cannot be read: {error}"))
    }
}

impl Reading {
    /// Goes on after the cursor, or as near to it as the record allows. Blocking.
    fn resume(journal: &std::path::Path, cursor: Cursor, written: Written) -> io::Result<Self> {
        let all = segments(journal)?;
        let next = cursor.last() + 1;
        let first = all.first().copied().unwrap_or(1);
        let segment = all.iter().copied().take_while(|first| *first <= next).last().unwrap_or(first);
        let cursor = if next < segment { Cursor::before(segment) } else { cursor };
        let reader = Reader::new(journal, segment).within(Some(written));
        let mut reading = Self { reader, cursor, open: Open::default(), waiting: VecDeque::new() };
        // What was sent of this segment is read again, because the ends of calls belong to intents that stand there.
        let whole = reading.reader.segment()?;
        if cursor.last() >= segment {
            let same = lines(&whole).any(|(sequence, digest, _)| sequence == cursor.last() && cursor.is_of(digest));
            if !same {
                // A crash took back what was sent, and something else stands there now.
                reading.cursor = Cursor::before(segment);
            }
        }
        reading.take(&whole);
        Ok(reading)
    }

    /// Reads what has come.
    fn more(&mut self) -> io::Result<()> {
        let text = self.reader.more()?;
        self.take(&text);
        Ok(())
    }

    fn take(&mut self, text: &str) {
        for (sequence, digest, line) in lines(text) {
            let event = event(&line, &mut self.open).map(|event| event.to_string());
            if sequence > self.cursor.last() {
                self.waiting.push_back(Waiting { sequence, digest, event: event.unwrap_or_default() });
            }
        }
    }
}

fn lines(text: &str) -> impl Iterator<Item = (u64, Digest, Value)> + '_ {
    text.lines().filter_map(|line| {
        let value: Value = serde_json::from_str(line).ok()?;
        Some((value.get("seq")?.as_u64()?, Digest::sha256(line.as_bytes()), value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(count: u64) -> (tempfile::TempDir, Vec<String>) {
        let place = tempfile::tempdir().unwrap();
        let lines: Vec<String> = (1..=count)
            .map(|seq| format!("{{\"v\":1,\"seq\":{seq},\"type\":\"stop\",\"at\":\"2026-11-27T07:00:00Z\"}}"))
            .collect();
        (place, lines)
    }

    fn write(place: &tempfile::TempDir, first: u64, lines: &[String]) {
        let text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        std::fs::write(place.path().join(format!("{first:020}.jsonl")), text).unwrap();
    }

    fn next(place: &tempfile::TempDir, cursor: Cursor) -> Vec<u64> {
        sent(place, cursor, u64::MAX)
    }

    /// The same while only so many are sure to stay.
    fn sent(place: &tempfile::TempDir, cursor: Cursor, records: u64) -> Vec<u64> {
        let mut reading = Reading::resume(place.path(), cursor, Written::records_for_test(records)).unwrap();
        reading.more().unwrap();
        reading.waiting.iter().map(|waiting| waiting.sequence).collect()
    }

    #[test]
    fn what_a_failed_write_takes_back_is_never_sent() {
        let (place, lines) = journal(5);
        write(&place, 1, &lines);
        assert_eq!(sent(&place, Cursor::default(), 3), [1, 2, 3]);
        let third = Cursor::after(3, Digest::sha256(lines[2].as_bytes()));
        assert!(sent(&place, third, 3).is_empty());
        // It was cut off, and something else stands there now.
        write(&place, 1, &[&lines[..3], &[lines[3].replace("stop", "repair")]].concat());
        assert_eq!(sent(&place, third, 4), [4]);
    }

    #[test]
    fn it_goes_on_after_the_cursor_across_segments_and_where_a_segment_begins() {
        let (place, lines) = journal(6);
        write(&place, 1, &lines[..3]);
        write(&place, 4, &lines[3..]);
        assert_eq!(next(&place, Cursor::default()), [1, 2, 3, 4, 5, 6]);
        let after =
            |last: u64| Cursor::after(last, Digest::sha256(lines[usize::try_from(last).unwrap() - 1].as_bytes()));
        assert_eq!(next(&place, after(2)), [3, 4, 5, 6]);
        assert_eq!(next(&place, after(3)), [4, 5, 6], "the next segment begins there");
        assert_eq!(next(&place, after(5)), [6]);
    }

    #[test]
    fn what_a_crash_took_back_and_wrote_anew_is_sent_again() {
        let (place, lines) = journal(3);
        write(&place, 1, &lines);
        assert_eq!(next(&place, Cursor::after(3, Digest::sha256(b"another"))), [1, 2, 3]);
        assert_eq!(next(&place, Cursor::after(9, Digest::sha256(b"beyond"))), [1, 2, 3]);
    }

    #[test]
    fn what_was_removed_is_passed_over() {
        let (place, lines) = journal(6);
        write(&place, 4, &lines[3..]);
        assert_eq!(next(&place, Cursor::default()), [4, 5, 6]);
    }

    #[tokio::test]
    async fn the_cursor_waits_for_the_acknowledgement_and_nothing_is_lost_while_a_place_is_down() {
        let (place, lines) = journal(u64::try_from(limit::EXPORT_BATCH_EVENTS_MAX).unwrap() + 5);
        write(&place, 1, &lines);
        let out = tempfile::tempdir().unwrap();
        let target = out.path().join("missing").join("events");
        let follower = Follower {
            config: ExportConfig {
                name: crate::ids::ServerId::new("siem").unwrap(),
                to: crate::config::ExportPlace::Sink(crate::config::SinkConfig::File(target.clone())),
            },
            journal: place.path().to_owned(),
            cursor: out.path().join("cursor.json"),
            status: Arc::default(),
            holds: Arc::default(),
            metrics: Metrics::new(),
            written: Written::records_for_test(u64::MAX),
        };
        let (mut reading, mut way) = (None, Place::new(&follower.config.to));
        assert!(follower.step(&mut reading, &mut way).await.is_err());
        assert_eq!(Cursor::read(&follower.cursor).unwrap(), None);
        std::fs::create_dir(target.parent().unwrap()).unwrap();
        assert_eq!(follower.step(&mut reading, &mut way).await, Ok(true));
        let first = Cursor::read(&follower.cursor).unwrap().unwrap().last();
        assert_eq!(first, u64::try_from(limit::EXPORT_BATCH_EVENTS_MAX).unwrap(), "one batch at a time");
        // A restart in the middle: what is remembered is on the disk.
        let mut reading = None;
        assert_eq!(follower.step(&mut reading, &mut way).await, Ok(true));
        assert_eq!(follower.step(&mut reading, &mut way).await, Ok(false));
        let sent = std::fs::read_to_string(target).unwrap();
        assert_eq!(sent.lines().count(), lines.len(), "each once");
    }
}
