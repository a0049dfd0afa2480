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
        let mut last = VecDeque::new();
        while let Some(lines) = tail.next()? {
            last.extend(lines);
            let excess = last.len().saturating_sub(count);
            last.drain(..excess);
        }
        Ok((tail, last))
    }

    /// The selected lines that have come since the last time.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn more(&mut self) -> io::Result<Vec<String>> {
        Ok(self.next()?.unwrap_or_default())
    }

    fn next(&mut self) -> io::Result<Option<Vec<String>>> {
        let read = self.reader.more()?;
        if read.is_empty() {
            return Ok(None);
        }
        let mut lines = Vec::new();
        for line in read.lines() {
            let Some(seen) = self.joiner.see(line).filter(|seen| self.filter.matches(seen)) else { continue };
            if let Some(intent) = &seen.intent {
                let own = Seen { raw: &intent.raw, record: std::sync::Arc::clone(&intent.record), intent: None };
                // Otherwise it was told when it came.
                if !self.filter.matches(&own) {
                    lines.push(intent.raw.clone());
                }
            }
            lines.push(line.to_owned());
        }
        Ok(Some(lines))
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
