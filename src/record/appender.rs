//! Decides how lines reach the disk: one file, one writer, numbered and chained, all of a batch or none.
//!
//! Refuses to know what a line says, beyond which calls it opens and closes. Invariant: sequence and
//! chain advance only when the bytes were taken by the file; what a failed write left behind is cut off
//! or left in a segment that nothing is appended to.

use std::collections::HashMap;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::fields::{HistoryFacts, OpenLeg, RepairFacts, RotationFacts, RotationFields};
use super::line::{self, GENESIS, Header};
use super::position::Position;
use super::segment::{self, Scanned};
use crate::ids::{Digest, LegId, ReplicaId, RevocationEpoch};
use crate::limit;

/// Lines that wait to be numbered and written, without their beginning.
#[derive(Debug, Default)]
pub(super) struct Lines {
    pub(super) bytes: Vec<u8>,
    pub(super) marks: Vec<(usize, Mark)>,
}

/// What a line means to the writer.
#[derive(Debug, Clone, Copy)]
pub(super) enum Mark {
    /// An intent.
    Opens(OpenLeg),
    /// A result, refusal or failure.
    Closes(LegId),
    /// It tells the store's epoch, and perhaps what tells that from the same epoch of another history.
    Epoch(RevocationEpoch, Option<u32>),
    /// Nothing.
    Plain,
}

impl Lines {
    pub(super) fn push(&mut self, body: &[u8], mark: Mark) {
        self.bytes.extend_from_slice(body);
        self.marks.push((body.len(), mark));
    }

    pub(super) fn clear(&mut self) {
        self.bytes.clear();
        self.marks.clear();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Mark)> {
        let mut start = 0;
        self.marks.iter().map(move |(length, mark)| {
            let body = self.bytes.get(start..start + length).unwrap_or_default();
            start += length;
            (body, *mark)
        })
    }
}

/// What was found at start.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) repairs: Vec<RepairFacts>,
    pub(super) open: Vec<OpenLeg>,
    pub(super) epoch: Option<RevocationEpoch>,
    pub(super) history: Option<(RevocationEpoch, u32)>,
}

/// The one owner of the journal's files.
#[derive(Debug)]
pub(super) struct Appender {
    directory: PathBuf,
    replica: ReplicaId,
    segment: Option<Segment>,
    /// A segment of the next number that holds nothing but the remains of a failed write.
    orphan: Option<PathBuf>,
    next: u64,
    digest: Digest,
    open: HashMap<LegId, OpenLeg>,
    epoch: RevocationEpoch,
    history: Option<(RevocationEpoch, u32)>,
    buffer: Vec<u8>,
    unsynced: bool,
    /// The number of the last record that surely is on the disk.
    synced: u64,
    segment_bytes_max: u64,
    position: Arc<Position>,
}

#[derive(Debug)]
struct Segment {
    file: File,
    path: PathBuf,
    identity: (u64, u64),
    length: u64,
    /// When the path was last found to lead to it.
    looked_at: Option<Instant>,
}

impl Appender {
    /// Takes over a journal directory: makes it if it is not there, cuts a torn tail, continues the chain.
    pub(super) fn open(directory: &Path, replica: ReplicaId) -> io::Result<(Self, Found)> {
        make_directory(directory)?;
        let mut found = Found::default();
        let mut appender = Self {
            directory: directory.to_owned(),
            replica,
            segment: None,
            orphan: None,
            next: 1,
            digest: GENESIS,
            open: HashMap::new(),
            epoch: RevocationEpoch::default(),
            history: None,
            buffer: Vec::new(),
            unsynced: false,
            synced: 0,
            segment_bytes_max: limit::JOURNAL_SEGMENT_BYTES_MAX,
            position: Arc::default(),
        };
        for (first, path) in segment::segments(directory)?.into_iter().rev() {
            if appender.resume(first, path, &mut found)? {
                break;
            }
        }
        found.open = appender.open.values().copied().collect();
        found.open.sort_unstable_by_key(|open| open.leg);
        appender.synced = appender.next - 1;
        appender.position.records.store(appender.next - 1, Ordering::Release);
        Ok((appender, found))
    }

    /// Continues after a segment; `false` where it holds no line, so that the one before it counts.
    fn resume(&mut self, first: u64, path: PathBuf, found: &mut Found) -> io::Result<bool> {
        let bytes = segment::read_whole(&path)?;
        let open = &mut self.open;
        let scan = segment::scan(&bytes, first..u64::MAX, (first == 1).then_some(GENESIS), |line, _| {
            found.epoch = found.epoch.max(line.epoch());
            found.history = found.history.max(line.history());
            follow(open, line);
        });
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        let closed = segment::is_compressed(&path);
        let torn = bytes.get(scan.good_bytes..).filter(|_| !closed).unwrap_or_default();
        if !torn.is_empty() {
            found.repairs.push(RepairFacts {
                problem: "torn_tail".to_owned(),
                segment: name.clone(),
                bytes: torn.len() as u64,
                digest: Some(Digest::sha256(torn)),
                ..RepairFacts::default()
            });
        }
        if scan.lines == 0 {
            if closed {
                return Ok(false);
            }
            // Nothing in it can be continued; what there is stays for people to look at.
            if bytes.is_empty() {
                std::fs::remove_file(&path)?;
            } else {
                std::fs::rename(&path, path.with_extension("torn"))?;
            }
            return Ok(false);
        }
        self.next = scan.next;
        self.digest = scan.digest.unwrap_or(GENESIS);
        self.epoch = found.epoch.unwrap_or_default();
        self.history = found.history;
        if closed {
            // It cannot be added to; the record goes on in a file of its own.
            return Ok(true);
        }
        let file = File::options().append(true).custom_flags(segment::no_follow()).open(&path)?;
        if !torn.is_empty() {
            file.set_len(scan.good_bytes as u64)?;
            file.sync_all()?;
        }
        if let Some(broken) = scan.broken {
            // The evidence stays as it is; the record goes on in a file of its own.
            found.repairs.push(RepairFacts {
                problem: "chain_broken".to_owned(),
                detail: format!("record {} {}", broken.sequence, broken.problem),
                segment: name,
                ..RepairFacts::default()
            });
        } else {
            let metadata = file.metadata()?;
            let identity = (metadata.dev(), metadata.ino());
            self.segment = Some(Segment { file, path, identity, length: scan.good_bytes as u64, looked_at: None });
        }
        Ok(true)
    }

    /// Numbers, chains and writes all lines with one write, or none of them.
    pub(super) fn append(&mut self, lines: &Lines) -> io::Result<()> {
        self.write_again()?;
        let aged = self.position.is_aged.load(Ordering::Relaxed);
        if self.segment.as_ref().is_some_and(|segment| aged || segment.length >= self.segment_bytes_max) {
            self.sync()?;
            self.segment = None;
        }
        let (mut next, mut digest) = (self.next, self.digest);
        self.buffer.clear();
        let fresh = self.segment.is_none();
        if fresh && next > 1 {
            for body in self.rotation()? {
                digest = line::chain(&mut self.buffer, next, &digest, &body);
                next += 1;
            }
        }
        for (body, _) in lines.iter() {
            digest = line::chain(&mut self.buffer, next, &digest, body);
            next += 1;
        }
        self.write(fresh)?;
        self.unsynced = true;
        (self.next, self.digest) = (next, digest);
        self.position.records.store(next - 1, Ordering::Release);
        for (_, mark) in lines.iter() {
            match mark {
                Mark::Opens(open) => drop(self.open.insert(open.leg, open)),
                Mark::Closes(leg) => drop(self.open.remove(&leg)),
                Mark::Epoch(epoch, nonce) => {
                    self.epoch = self.epoch.max(epoch);
                    self.history = self.history.max(nonce.map(|nonce| (epoch, nonce)));
                }
                Mark::Plain => {}
            }
        }
        Ok(())
    }

    /// Makes everything that was written survive the machine's death.
    pub(super) fn sync(&mut self) -> io::Result<()> {
        let Some(segment) = &self.segment else { return Ok(()) };
        if self.unsynced
            && let Err(error) = segment.file.sync_data()
        {
            // The kernel forgets which pages it could not write: this file cannot be trusted with more.
            self.position.doubt(self.synced + 1, segment.path.clone());
            self.segment = None;
            return Err(error);
        }
        self.unsynced = false;
        self.synced = self.next - 1;
        Ok(())
    }

    /// Writes again what the disk may not have, before anything is written after it.
    fn write_again(&mut self) -> io::Result<()> {
        for path in self.position.doubted() {
            if self.segment.as_ref().is_some_and(|segment| segment.path == path) {
                self.segment = None;
            }
            self.position.write_again(&path)?;
        }
        Ok(())
    }

    #[cfg(test)]
    pub(super) fn replace_file(&mut self, file: File) {
        if let Some(segment) = &mut self.segment {
            segment.file = file;
        }
    }

    /// Closes segments that have become larger than this.
    pub(super) const fn limit_segments(&mut self, bytes_max: u64) {
        self.segment_bytes_max = bytes_max;
    }

    /// How far the record has come, also later.
    pub(super) fn position(&self) -> Arc<Position> {
        Arc::clone(&self.position)
    }

    /// Whether something was written that a crash of the machine would lose.
    pub(super) const fn is_unsynced(&self) -> bool {
        self.unsynced
    }

    fn write(&mut self, fresh: bool) -> io::Result<()> {
        if fresh {
            self.segment = Some(self.create()?);
            self.position.segment.store(self.next, Ordering::Relaxed);
            self.position.is_aged.store(false, Ordering::Relaxed);
        }
        let Some(segment) = &mut self.segment else { return Err(io::Error::other("no segment is open")) };
        let written = segment.is_in_place().and_then(|()| segment.file.write_all(&self.buffer));
        if let Err(error) = written {
            let cut = segment.is_in_place().and_then(|()| segment.file.set_len(segment.length));
            if fresh || cut.is_err() {
                self.orphan = fresh.then(|| segment.path.clone());
                self.segment = None;
            }
            return Err(error);
        }
        segment.length += self.buffer.len() as u64;
        Ok(())
    }

    fn create(&mut self) -> io::Result<Segment> {
        make_directory(&self.directory)?;
        let path = segment::path(&self.directory, self.next);
        if self.orphan.take().is_some_and(|orphan| orphan == path) {
            match std::fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    self.orphan = Some(path);
                    return Err(error);
                }
                _ => {}
            }
        }
        let file = File::options().append(true).create_new(true).mode(0o600).open(&path)?;
        self.orphan = Some(path.clone());
        let metadata = file.metadata()?;
        // The name must survive as well.
        File::open(&self.directory)?.sync_all()?;
        self.orphan = None;
        Ok(Segment { file, path, identity: (metadata.dev(), metadata.ino()), length: 0, looked_at: None })
    }

    /// What a segment begins with: all calls that are open, in as many records as that takes, one at least.
    fn rotation(&self) -> io::Result<Vec<Vec<u8>>> {
        let mut open: Vec<OpenLeg> = self.open.values().copied().collect();
        open.sort_unstable_by_key(|open| open.leg);
        let mut parts: Vec<Vec<OpenLeg>> = open.chunks(limit::JOURNAL_OPEN_LEGS_MAX).map(<[_]>::to_vec).collect();
        if parts.is_empty() {
            parts.push(Vec::new());
        }
        let record = |(part, open)| {
            let history = self.history.map(|(epoch, nonce)| HistoryFacts { epoch, nonce });
            let fields = RotationFields { rotation: RotationFacts { epoch: self.epoch, history, part, open } };
            let mut body = Vec::new();
            let header = Header { replica: &self.replica, kind: "rotation", of: None, who: None };
            line::body(&mut body, header, &fields).map_err(io::Error::other)?;
            Ok(body)
        };
        (0..).zip(parts).map(record).collect()
    }
}

impl Segment {
    /// Whether what is written is not swallowed without an error: the file must still have a name, which is looked
    /// at each time, and its path must still lead to it, which costs more and is looked at now and then: under
    /// another name nothing is lost.
    fn is_in_place(&mut self) -> io::Result<()> {
        let replaced = || io::Error::other(format!("{} was removed or replaced", self.path.display()));
        if rustix::fs::fstat(&self.file)?.st_nlink == 0 {
            return Err(replaced());
        }
        if self.looked_at.is_some_and(|looked_at| looked_at.elapsed() < limit::JOURNAL_PATH_INTERVAL) {
            return Ok(());
        }
        let found = rustix::fs::lstat(&self.path)?;
        if (found.st_dev, found.st_ino) != self.identity {
            return Err(replaced());
        }
        self.looked_at = Some(Instant::now());
        Ok(())
    }
}

fn follow(open: &mut HashMap<LegId, OpenLeg>, line: &Scanned<'_>) {
    if let Some(rotation) = &line.rotation {
        if rotation.part == 0 {
            open.clear();
        }
        for names in &rotation.open {
            if let (Ok(call), Ok(leg)) = (names.call.parse(), names.leg.parse()) {
                open.insert(leg, OpenLeg { call, leg });
            }
        }
    }
    let (Some(call), Some(leg)) = (line.call, line.leg) else { return };
    let (Ok(call), Ok(leg)) = (call.parse(), leg.parse()) else { return };
    match line.kind {
        "intent" => drop(open.insert(leg, OpenLeg { call, leg })),
        "result" | "refusal" | "failure" => drop(open.remove(&leg)),
        _ => {}
    }
}

fn make_directory(directory: &Path) -> io::Result<()> {
    DirBuilder::new().mode(0o700).recursive(true).create(directory)?;
    if std::fs::symlink_metadata(directory)?.is_dir() {
        Ok(())
    } else {
        Err(io::Error::other(format!("{} is not a directory", directory.display())))
    }
}
