//! The end of the record, and what comes after it, for a reader elsewhere.
//!
//! Decides where to begin so that enough is shown, and which lines a reader needs: an end comes with the intent that it
//! belongs to. Blocks, and is called where that is no harm. Invariant: what is held at once is bounded.

use std::collections::VecDeque;
use std::io;
use std::path::Path;

use super::filter::Filter;
use super::join::{Joiner, Seen};
use super::read::{Reader, segments};

/// Follows the record.
#[derive(Debug)]
pub struct Tail {
    reader: Reader,
    joiner: Joiner,
    filter: Filter,
}

impl Tail {
    /// Begins so that the last `count` selected events are told, and answers them; `open_max` intents are remembered.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn begin(
        directory: &Path,
        filter: Filter,
        count: usize,
        open_max: usize,
    ) -> io::Result<(Self, VecDeque<String>)> {
        let reader = Reader::new(directory, start(directory, &filter, count, open_max)?);
        let mut tail = Self { reader, joiner: Joiner::new(open_max), filter };
        let mut last: VecDeque<Vec<String>> = VecDeque::new();
        while let Some(told) = tail.next()? {
            last.extend(told);
            let excess = last.len().saturating_sub(count);
            last.drain(..excess);
        }
        Ok((tail, last.into_iter().flatten().collect()))
    }

    /// The selected lines that have come since the last time.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<String>> {
        Ok(self.next()?.into_iter().flatten().flatten().collect())
    }

    /// What is told now: each selected line, after the intent that it belongs to where that was not selected.
    fn next(&mut self) -> io::Result<Option<Vec<Vec<String>>>> {
        let read = self.reader.more()?;
        if read.is_empty() {
            return Ok(None);
        }
        let mut told = Vec::new();
        for line in read.lines() {
            let Some(seen) = self.joiner.see(line).filter(|seen| self.filter.matches(seen)) else { continue };
            let mut lines = Vec::with_capacity(2);
            if let Some(intent) = &seen.intent {
                let own = Seen { raw: &intent.raw, record: std::sync::Arc::clone(&intent.record), intent: None };
                // Otherwise it was told when it came.
                if !self.filter.matches(&own) {
                    lines.push(intent.raw.clone());
                }
            }
            lines.push(line.to_owned());
            told.push(lines);
        }
        Ok(Some(told))
    }
}

/// The segment to begin with: backwards until there is enough, and one more for the intents of the first results.
///
/// # Errors
/// When a file cannot be read.
pub fn start(directory: &Path, filter: &Filter, count: usize, open_max: usize) -> io::Result<u64> {
    let all = segments(directory)?;
    let mut found = 0;
    let mut start = all.len();
    while start > 0 && found < count {
        start -= 1;
        let Some(&first) = all.get(start) else { break };
        let lines = Reader::new(directory, first).segment()?;
        let mut joiner = Joiner::new(open_max);
        let mut seen = lines.lines().filter_map(|line| joiner.see(line)).peekable();
        let old = filter.since.is_some_and(|since| seen.peek().is_some_and(|seen| seen.record.at < since));
        found += seen.filter(|seen| seen.ends_something() && filter.matches(seen)).count();
        if old {
            break;
        }
    }
    Ok(all.get(start.saturating_sub(1)).copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_events_are_told_with_their_intents_and_then_what_comes() {
        let place = tempfile::tempdir().unwrap();
        let line = |seq: usize, kind: &str, leg: usize, more: &str| {
            format!(
                "{{\"seq\":{seq},\"at\":\"2026-11-23T10:00:00Z\",\"type\":\"{kind}\",\"call\":\"c\",\"leg\":\"{leg}\"{more}}}\n"
            )
        };
        let (failed, done) = (r#","result":{"outcome":"failed"}"#, r#","result":{"outcome":"complete"}"#);
        let mut text = String::new();
        for (leg, ended) in [(1, failed), (2, done), (3, failed)] {
            text.push_str(&line(leg * 2 - 1, "intent", leg, ""));
            text.push_str(&line(leg * 2, "result", leg, ended));
        }
        let path = place.path().join("00000000000000000001.jsonl");
        std::fs::write(&path, &text).unwrap();
        assert_eq!(segments(place.path()).unwrap(), [1], "it is called like a segment");
        let seqs = |lines: &[String]| -> Vec<u64> {
            lines.iter().map(|line| super::super::read::Record::read(line).unwrap().seq).collect()
        };
        let filter = Filter { decision: Some("fail".to_owned()), ..Filter::default() };
        let (mut tail, last) = Tail::begin(place.path(), filter.clone(), 1, 10).unwrap();
        assert_eq!(seqs(&Vec::from(last)), [5, 6]);
        assert!(tail.more().unwrap().is_empty());
        text.push_str(&line(7, "intent", 4, ""));
        std::fs::write(&path, &text).unwrap();
        assert!(tail.more().unwrap().is_empty(), "nobody knows yet how it ends");
        text.push_str(&line(8, "result", 4, failed));
        std::fs::write(&path, &text).unwrap();
        assert_eq!(seqs(&tail.more().unwrap()), [7, 8]);
        let (_, last) = Tail::begin(place.path(), Filter::default(), 3, 10).unwrap();
        assert_eq!(seqs(&Vec::from(last)), [6, 7, 8]);
        let (_, last) = Tail::begin(place.path(), filter, 0, 10).unwrap();
        assert!(last.is_empty());
    }
}
