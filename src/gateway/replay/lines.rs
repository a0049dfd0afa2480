//! The lines of a record that a replay reads.
//!
//! Decides nothing of what they mean. Invariant: nobody waits for the reading but who asked for it, and a line that cannot
//! be read is passed over.

use std::path::Path;

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::outcome::{Failure, Reason};
use crate::record::journal;
use crate::record::read::Reader;

/// One segment of a record.
pub(super) struct Segment(String);

impl Segment {
    /// The segment that begins with that line.
    pub(super) fn read(directory: &Path, first: u64) -> std::io::Result<Self> {
        Reader::new(directory, first).segment().map(Self)
    }

    /// When its first line was written, microseconds since 1970.
    pub(super) fn begins_us(&self) -> Option<i64> {
        #[derive(Deserialize)]
        struct Moment {
            at: jiff::Timestamp,
        }
        let first = self.0.lines().find_map(|line| serde_json::from_str::<Moment>(line).ok());
        first.map(|first| first.at.as_microsecond())
    }

    /// Its lines with one of these words; all others say nothing of what is asked.
    pub(super) fn lines<T: DeserializeOwned>(&self, words: &[&str]) -> impl Iterator<Item = T> {
        let matter = self.0.lines().filter(move |line| words.iter().any(|word| line.contains(word)));
        matter.filter_map(|line| serde_json::from_str(line).ok())
    }
}

/// Reads the record in a state directory.
///
/// # Errors
/// `record_unavailable`.
pub(super) async fn of_record<T: Send + 'static>(
    state: &Path,
    read: impl FnOnce(&Path) -> std::io::Result<T> + Send + 'static,
) -> Result<T, Failure> {
    let directory = journal::directory(state);
    let unreadable = |problem: String| Failure::before(Reason::RecordUnavailable, problem);
    let read = tokio::task::spawn_blocking(move || read(&directory)).await;
    read.map_err(|error| unreadable(error.to_string()))?.map_err(|error| unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Deserialize)]
    struct Line {
        seq: u64,
    }

    #[test]
    fn lines_with_the_words_are_read_and_what_is_no_line_is_passed_over() {
        let text = "half a li\n{\"seq\":1,\"at\":\"1970-01-01T00:00:01Z\"}\n{\"seq\":2,\"budget\":[]}\n\
                    {\"seq\":\"x\",\"budget\":[]}\n{\"seq\":3,\"labels\":{}}\n";
        let segment = Segment(text.to_owned());
        assert_eq!(segment.begins_us(), Some(1_000_000));
        let read: Vec<u64> = segment.lines(&["\"budget\":", "\"labels\":"]).map(|line: Line| line.seq).collect();
        assert_eq!(read, [2, 3]);
        assert_eq!(Segment(String::new()).begins_us(), None);
    }

    #[tokio::test]
    async fn a_record_that_cannot_be_read_says_why() {
        let state = tempfile::tempdir().unwrap();
        let read = of_record(state.path(), |_| Err::<(), _>(std::io::Error::other("the disk is gone"))).await;
        let failure = read.unwrap_err();
        assert_eq!((failure.reason, failure.detail.as_str()), (Reason::RecordUnavailable, "the disk is gone"));
    }
}
