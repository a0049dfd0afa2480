//! Reading the record back, also while it is being written.
//!
//! Decides what a reader sees of a line and where it goes on. Refuses to judge the chain (that is
//! [`super::verify`]). Invariant: only complete lines are handed out, each exactly once, in order, across
//! rotation and whatever a crash left at the end of a file.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use super::position::Written;
use super::segment;
use crate::limit;

/// One record, as far as people are shown it; fields of later versions are passed over.
#[derive(Debug, Clone, Deserialize)]
pub struct Record {
    /// Its number.
    pub seq: u64,
    /// When.
    pub at: jiff::Timestamp,
    /// Its type.
    #[serde(rename = "type")]
    pub kind: String,
    /// The call, where it belongs to one.
    pub call: Option<String>,
    /// The request of that call.
    pub leg: Option<String>,
    /// The replica that handed it on.
    pub via: Option<String>,
    /// Who.
    pub subject: Option<SubjectRead>,
    /// With which software.
    pub agent: Option<AgentRead>,
    /// What was asked.
    pub mcp: Option<OperationRead>,
    /// What was decided.
    pub decision: Option<DecisionRead>,
    /// How it ended.
    pub result: Option<ResultRead>,
    /// What a list showed.
    pub list: Option<ListRead>,
    /// What was counted.
    pub noise: Option<NoiseRead>,
    /// What was taken back.
    pub revocation: Option<RevocationRead>,
    /// What an administrator did.
    pub admin: Option<AdminRead>,
    /// What happened to a request for approval.
    pub approval: Option<ApprovalRead>,
    /// What was loaded.
    pub reload: Option<ReloadRead>,
    /// What a server runs.
    pub executable: Option<ExecutableRead>,
    /// What became of a definition.
    pub pin: Option<PinRead>,
    /// The mandate of a call, or what became of one.
    pub mandate: Option<MandateRead>,
    /// What became of an agent.
    pub lifecycle: Option<LifecycleRead>,
    /// What started.
    pub start: Option<StartRead>,
    /// Why it stopped.
    pub stop: Option<StopRead>,
    /// What was put right.
    pub repair: Option<RepairRead>,
    /// What was removed because it was old, or too much.
    pub retention: Option<RetentionRead>,
}

macro_rules! read {
    ($(#[$doc:meta] $name:ident { $($field:ident: $type:ty,)* })*) => {$(
        #[$doc]
        #[derive(Debug, Clone, Default, Deserialize)]
        #[serde(default)]
        #[expect(missing_docs, reason = "the format is documented where it is written, in `event`")]
        pub struct $name { $(pub $field: $type,)* }
    )*};
}

read! {
    /// The subject.
    SubjectRead { id: String, }
    /// What happened to a request for approval.
    ApprovalRead { event: String, id: String, gates: Vec<String>, server: String, name: String, requester: String, approvers: Vec<SubjectRead>, detail: String, }
    /// The agent and its client.
    AgentRead { id: Option<String>, client: Option<String>, }
    /// The operation.
    OperationRead { method: String, server: Option<String>, name: Option<String>, environment: Option<String>, }
    /// The decision.
    DecisionRead {
        effect: String,
        reason: Option<String>,
        rule: Option<String>,
        detail: Option<String>,
        revision: Option<String>,
    }
    /// The result.
    ResultRead {
        outcome: String,
        is_error: bool,
        code: Option<i64>,
        reason: Option<String>,
        detail: Option<String>,
        bytes: Option<u64>,
        latency_us: Option<u64>,
    }
    /// The list.
    ListRead { shown: u64, }
    /// The noise.
    NoiseRead { reason: String, source: String, count: u64, }
    /// The revocation.
    RevocationRead {
        actor: String,
        target: String,
        issuer: Option<String>,
        value: Option<String>,
        mode: String,
        note: String,
        epoch: u64,
    }
    /// An administrator's operation.
    AdminRead {
        operation: String,
        actor: String,
        client: Option<String>,
        outcome: String,
        reason: Option<String>,
        about: String,
        detail: String,
    }
    /// The reload.
    ReloadRead {
        actor: String,
        outcome: String,
        to: Option<String>,
        added: u64,
        removed: u64,
        part: Option<u64>,
        problem: Option<String>,
    }
    /// The start.
    StartRead { version: String, revision: Option<String>, epoch: u64, }
    /// What a server runs.
    ExecutableRead { server: String, path: String, digest: String, before: Option<String>, }
    /// What became of a definition.
    PinRead {
        server: String,
        kind: String,
        name: String,
        digest: String,
        state: String,
        before: Option<String>,
        renamed_from: Option<String>,
        flags: Vec<String>,
        actor: Option<String>,
        note: String,
    }
    /// The mandate, and what became of it.
    MandateRead { event: String, id: String, template: Option<String>, actor: String, agent: Option<String>, purpose_declared: String, note: String, }
    /// What became of an agent or a server.
    LifecycleRead { event: String, kind: String, id: String, owner: String, actor: String, subject: Option<String>, note: String, }
    /// The stop.
    StopRead { cause: String, }
    /// The retention.
    RetentionRead { first: u64, last: u64, segments: u64, bytes: u64, because: String, }
    /// The repair.
    RepairRead { problem: String, detail: String, bytes: u64, refused: u64, dropped: u64, }
}

impl Record {
    /// Reads one line; `None` for one that is not a record, which only `verify` has an opinion on.
    #[must_use]
    pub fn read(line: &str) -> Option<Self> {
        serde_json::from_str(line).ok()
    }
}

/// Reads a journal from some segment on, and goes on as it grows.
#[derive(Debug)]
pub struct Reader {
    directory: PathBuf,
    segment: u64,
    position: u64,
    /// Where it reads in the process that writes.
    written: Option<Written>,
}

impl Reader {
    /// Begins with the segment of that first number.
    #[must_use]
    pub fn new(directory: &Path, segment: u64) -> Self {
        Self { directory: directory.to_owned(), segment, position: 0, written: None }
    }

    /// The same, and hands out nothing that a write which fails could take back.
    #[must_use]
    pub fn within(self, written: Option<Written>) -> Self {
        Self { written, ..self }
    }

    /// The complete lines that have come since the last time; empty when there are none.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn more(&mut self) -> io::Result<String> {
        loop {
            let (upto, newer) = self.bounds()?;
            let lines = self.read(upto, newer)?;
            match newer {
                Some(newer) if lines.is_empty() && upto >= newer - 1 => {
                    self.segment = newer;
                    self.position = 0;
                }
                _ => return Ok(lines),
            }
        }
    }

    /// The complete lines of this one segment that have not been handed out yet.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub fn segment(&mut self) -> io::Result<String> {
        let mut all = String::new();
        loop {
            let (upto, newer) = self.bounds()?;
            let lines = self.read(upto, newer)?;
            if lines.is_empty() {
                return Ok(all);
            }
            all.push_str(&lines);
        }
    }

    /// The last record that may be handed out, and the segment after this one. Looked up before reading: what is
    /// written later is read later.
    fn bounds(&self) -> io::Result<(u64, Option<u64>)> {
        let upto = self.written.as_ref().map_or(u64::MAX, Written::records);
        Ok((upto, segments(&self.directory)?.into_iter().find(|first| *first > self.segment)))
    }

    fn read(&mut self, upto: u64, newer: Option<u64>) -> io::Result<String> {
        let path = segment::path(&self.directory, self.segment);
        let mut bytes = Vec::new();
        match File::options().read(true).custom_flags(segment::no_follow()).open(&path) {
            // Closed segments are compressed; what they hold stands at the same places.
            Err(error) if error.kind() == io::ErrorKind::NotFound => match segment::read_from(&path, self.position) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
                read => bytes = read?,
            },
            file => {
                let mut file = file?;
                // What is torn is cut off at the next start, and was never handed out.
                self.position = self.position.min(file.metadata()?.len());
                file.seek(SeekFrom::Start(self.position))?;
                file.take(limit::JOURNAL_SEGMENT_BYTES_MAX).read_to_end(&mut bytes)?;
            }
        }
        // What stands here with the numbers of the next segment is left of a write that failed.
        let last = newer.map_or(upto, |newer| upto.min(newer - 1));
        let is_beyond = |line: &[u8]| segment::sequence(line).is_some_and(|sequence| sequence > last);
        let complete: usize =
            segment::lines(&bytes).take_while(|line| !is_beyond(line)).map(|line| line.len() + 1).sum();
        bytes.truncate(complete);
        self.position += complete as u64;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}

/// The numbers of the first records of all segments, oldest first; empty where there is no journal yet.
///
/// # Errors
/// When the directory cannot be read.
pub fn segments(directory: &Path) -> io::Result<Vec<u64>> {
    match segment::segments(directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        segments => Ok(segments?.into_iter().map(|(first, _)| first).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_failed_write_may_take_back_is_not_handed_out() {
        let place = tempfile::tempdir().unwrap();
        let first = segment::path(place.path(), 1);
        let lines = |numbers: std::ops::RangeInclusive<u64>, what: &str| -> String {
            numbers.map(|number| format!("{{\"v\":1,\"seq\":{number},\"type\":\"{what}\"}}\n")).collect()
        };
        let reader = |records| Reader::new(place.path(), 1).within(Some(Written::records_for_test(records)));
        std::fs::write(&first, lines(1..=5, "one")).unwrap();
        let mut early = reader(3);
        assert_eq!(early.more().unwrap(), lines(1..=3, "one"), "the others may be cut off again");
        assert_eq!(early.more().unwrap(), "");
        // The failed write could not be cut off, and what it was is told in the next segment.
        std::fs::write(segment::path(place.path(), 4), lines(4..=6, "two")).unwrap();
        assert_eq!(early.more().unwrap(), "", "its writer is not through with it");
        early = early.within(Some(Written::records_for_test(6)));
        assert_eq!(early.more().unwrap(), lines(4..=6, "two"), "once, as they count");
        let mut late = reader(6);
        assert_eq!([late.more().unwrap(), late.more().unwrap()], [lines(1..=3, "one"), lines(4..=6, "two")]);
        assert_eq!(Reader::new(place.path(), 1).segment().unwrap(), lines(1..=3, "one"), "also for whoever only looks");
    }

    #[test]
    fn a_reader_follows_rotation_and_never_hands_out_half_a_line() {
        let place = tempfile::tempdir().unwrap();
        let first = segment::path(place.path(), 1);
        let mut reader = Reader::new(place.path(), 1);
        assert_eq!(reader.more().unwrap(), "", "nothing is there yet");
        std::fs::write(&first, "one\ntwo\nthr").unwrap();
        assert_eq!(reader.more().unwrap(), "one\ntwo\n");
        assert_eq!(reader.more().unwrap(), "");
        std::fs::write(&first, "one\ntwo\nthree\n").unwrap();
        std::fs::write(segment::path(place.path(), 4), "four\n").unwrap();
        assert_eq!(reader.more().unwrap(), "three\n");
        assert_eq!(reader.more().unwrap(), "four\n");
        // A crash tore the end, the next start cut it.
        let second = segment::path(place.path(), 4);
        std::fs::write(&second, "four\nfi").unwrap();
        assert_eq!(reader.more().unwrap(), "");
        std::fs::write(&second, "four\nrepair\n").unwrap();
        assert_eq!(reader.more().unwrap(), "repair\n");
    }
}
