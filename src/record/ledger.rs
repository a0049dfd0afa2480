//! Follows the record and signs what it has become: the thread behind the writer that keeps the tree.
//!
//! Decides when a checkpoint is due: at every interval in which something was written, for every closed segment, and
//! at the end. Refuses to hold anybody up: it reads files that were written, and callers never wait for it.
//! Invariant: no checkpoint contradicts one that was signed before, and none covers what a crash could take back;
//! where that cannot be kept, nothing is signed, and everybody is told.

use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde::Serialize;

use super::appender::Mark;
use super::batch::{Settled, lock};
use super::checkpoint::{self, Checkpoint, CheckpointKeys, SignedCheckpoint, Standing};
use super::fields::{RepairFacts, RepairFields, RetentionFields};
use super::keep::Keeper;
use super::line::{self, Header};
use super::position::Position;
use super::room::Room;
use super::segment;
use super::sink::Sinks;
use super::tiles;
use super::tree::{Tree, leaf};
use super::writer::Shared;
use crate::ids::ReplicaId;
use crate::limit;

#[cfg(test)]
mod tests;

/// The file of the latest checkpoint, within the journal's directory.
pub(super) const LATEST: &str = "checkpoint";
/// The directory of the checkpoints of closed segments, each named after its size.
pub(super) const KEPT: &str = "checkpoints";

/// The follower, before and while it runs.
pub(super) struct Ledger {
    pub(super) directory: PathBuf,
    pub(super) replica: ReplicaId,
    pub(super) keys: CheckpointKeys,
    pub(super) interval: Duration,
    pub(super) shared: Arc<Shared>,
    pub(super) position: Arc<Position>,
    /// Records that were there before this process wrote any.
    pub(super) found: u64,
    pub(super) follows: Follows,
    pub(super) sinks: Sinks,
    pub(super) keeper: Keeper,
    pub(super) room: Room,
}

/// What is followed.
pub(super) enum Follows {
    /// Nothing yet.
    Nothing,
    /// The tree, as far as it was read.
    Tree(Box<Reading>),
    /// The record contradicts what was signed; said once, and nothing more is signed.
    Contradiction,
}

/// A tree, and where the next record for it stands.
pub(super) struct Reading {
    tree: Tree,
    segment: u64,
    position: u64,
    /// The size of the last checkpoint.
    signed: u64,
}

/// Why nothing was signed.
enum Trouble {
    /// It may work the next time.
    Io(io::Error),
    /// It never will.
    Contradiction(String),
}

impl From<io::Error> for Trouble {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// Tells the follower to end.
#[derive(Debug, Default)]
pub(super) struct Signal {
    stop: Mutex<bool>,
    wake: Condvar,
    /// Keys that it has not taken yet.
    keys: Mutex<Option<CheckpointKeys>>,
}

impl Signal {
    pub(super) fn stop(&self) {
        *lock(&self.stop) = true;
        self.wake.notify_all();
    }

    /// Gives it other keys: the first signs the next checkpoint, and all are published with it.
    pub(super) fn exchange(&self, keys: CheckpointKeys) {
        *lock(&self.keys) = Some(keys);
    }

    /// Waits; whether it is time to end.
    fn wait(&self, timeout: Duration) -> bool {
        let stop = lock(&self.stop);
        *self.wake.wait_timeout_while(stop, timeout, |stop| !*stop).unwrap_or_else(PoisonError::into_inner).0
    }
}

impl Ledger {
    /// Runs until it is told to end; what was written by then is signed.
    pub(super) fn run(mut self, signal: &Signal) {
        let (mut last, mut segment) = (None::<Instant>, 0);
        loop {
            let stop = signal.wait(limit::LEDGER_LOOK_INTERVAL);
            if let Some(repair) = self.room.look(&self.shared) {
                self.put("repair", &RepairFields { repair });
            }
            let current = self.position.segment();
            let due = last.is_none_or(|last| last.elapsed() >= self.interval);
            if stop || due || current != segment {
                if let Some(keys) = lock(&signal.keys).take() {
                    self.keys = keys;
                }
                (last, segment) = (Some(Instant::now()), current);
                self.look();
                if !stop && let Err(error) = self.tidy() {
                    tracing::warn!(%error, "closed segments could not be seen to; it is tried again");
                }
            }
            if stop {
                return;
            }
        }
    }

    /// Reads what has come and signs it.
    pub(super) fn look(&mut self) {
        let well = match self.follow() {
            Ok(well) => well,
            Err(Trouble::Io(error)) => {
                tracing::error!(%error, "no checkpoint could be made; it is tried again");
                self.follows = Follows::Nothing;
                false
            }
            Err(Trouble::Contradiction(problem)) => {
                tracing::error!(
                    problem,
                    "the record contradicts its checkpoint: nothing more is signed; run `bailiwick audit verify`"
                );
                self.note("checkpoint_contradicted", problem);
                self.follows = Follows::Contradiction;
                false
            }
        };
        self.shared.metrics.checkpoint_well.set(i64::from(well));
    }

    fn follow(&mut self) -> Result<bool, Trouble> {
        let mut reading = match std::mem::replace(&mut self.follows, Follows::Nothing) {
            Follows::Contradiction => {
                self.follows = Follows::Contradiction;
                return Ok(false);
            }
            Follows::Tree(reading) => reading,
            Follows::Nothing => Box::new(self.open()?),
        };
        // Once it was taken up, the record is never behind what this process signed.
        self.found = u64::MAX;
        let upto = self.position.signable();
        self.read_on(&mut reading, upto, true)?;
        if reading.tree.size() > reading.signed {
            self.sync(&reading)?;
            self.sign(&mut reading, LATEST.as_ref())?;
        }
        if reading.signed > 0 {
            self.publish()?;
        }
        self.follows = Follows::Tree(reading);
        Ok(!self.position.is_in_doubt())
    }

    /// Makes what is going to be signed survive the machine's death. The kernel says only once that it could not.
    fn sync(&self, reading: &Reading) -> io::Result<()> {
        let path = segment::path(&self.directory, reading.segment);
        let synced = sync(&path);
        if synced.is_err() {
            self.position.doubt(reading.signed + 1, path);
        }
        synced
    }

    /// Says with which keys it is signed; only once something was, so that its absence says that nothing was.
    fn publish(&self) -> io::Result<()> {
        let published: String = self.keys.verifiers().iter().map(|key| format!("{key}\n")).collect();
        let place = self.directory.join(checkpoint::PUBLISHED);
        if std::fs::read_to_string(&place).ok().as_ref() == Some(&published) {
            return Ok(());
        }
        tiles::write_whole(&place, published.as_bytes())
    }

    /// Takes up the tree where the last checkpoint left it.
    fn open(&mut self) -> Result<Reading, Trouble> {
        let mut latest = read_checkpoint(&self.directory.join(LATEST))?;
        // Whoever puts an old one in its place may have forgotten these.
        let last_kept = last_kept(&self.directory)?;
        if last_kept.as_ref().is_some_and(|kept| latest.as_ref().is_some_and(|latest| is_later(kept, latest))) {
            latest = last_kept.map(Some);
        }
        let Some(latest) = latest else {
            // A gateway that was killed before its first checkpoint has records and none.
            let published = self.directory.join(checkpoint::PUBLISHED).exists();
            let signed = self.shared.metrics.checkpoint_records.get() > 0;
            if !signed && (self.found == 0 || self.keys.is_fresh() || !published) {
                return self.begin();
            }
            return Err(Trouble::Contradiction("the last checkpoint is gone, although the key is not new".to_owned()));
        };
        let Some(latest) = latest.filter(|latest| latest.standing(self.keys.verifiers()) == Standing::Signed) else {
            return Err(Trouble::Contradiction("the last checkpoint was not signed by our key".to_owned()));
        };
        let size = latest.checkpoint.size;
        if self.found < size {
            let problem = format!("the last checkpoint says {size} records, and the journal ended at {}", self.found);
            return Err(Trouble::Contradiction(problem));
        }
        let agrees = |tree: &Tree| tree.root() == latest.checkpoint.root;
        if let Some(tree) = tiles::load(&self.directory, size)?.filter(agrees) {
            let all = segment::segments(&self.directory)?;
            let signed_in = all.iter().rev().find(|(first, _)| *first <= size);
            // Whatever was appended since must stand after the record that was signed last.
            if let Some((_, path)) = signed_in {
                let bytes = segment::read_from(path, 0)?;
                let last = segment::lines(&bytes).find(|line| segment::sequence(line) == Some(size));
                if last.map(leaf) != tiles::leaf_of(&self.directory, size)? {
                    return Err(Trouble::Contradiction(format!("record {size} is not the one that was signed")));
                }
            }
            let segment = signed_in.or(all.first()).map_or(1, |(first, _)| *first);
            return Ok(Reading { tree, segment, position: 0, signed: size });
        }
        // The tiles are gone or damaged; all of it is in the records.
        tracing::warn!("the tiles do not match the last checkpoint; they are made again");
        let mut reading = self.begin()?;
        self.read_on(&mut reading, size, false)?;
        if reading.tree.size() == size && agrees(&reading.tree) {
            reading.signed = size;
            return Ok(reading);
        }
        Err(Trouble::Contradiction(format!("the first {size} records are not those that were signed")))
    }

    fn begin(&self) -> Result<Reading, Trouble> {
        match segment::segments(&self.directory)?.first() {
            Some((first, _)) if *first > 1 => {
                Err(Trouble::Contradiction(format!("the records before {first} are gone, and so are their tiles")))
            }
            _ => Ok(Reading { tree: Tree::default(), segment: 1, position: 0, signed: 0 }),
        }
    }

    /// Reads up to that record; at the end of each segment a checkpoint is signed and kept, if that is wanted.
    fn read_on(&mut self, reading: &mut Reading, upto: u64, keep: bool) -> Result<(), Trouble> {
        let all = segment::segments(&self.directory)?;
        while reading.tree.size() < upto {
            let after = all.iter().find(|(first, _)| *first > reading.segment);
            let next = after.map_or(u64::MAX, |(first, _)| *first);
            if let Some((_, path)) = all.iter().find(|(first, _)| *first == reading.segment) {
                let bytes = segment::read_from(path, reading.position)?;
                for line in segment::lines(&bytes) {
                    let sequence = segment::sequence(line);
                    if sequence.is_some_and(|sequence| sequence > upto) {
                        break;
                    }
                    // What stands here with the numbers of the next segment is left of a write that failed.
                    if let Some(sequence) = sequence.filter(|sequence| *sequence < next) {
                        reading.tree.add(sequence, line, |level, index, hashes| {
                            tiles::keep(&self.directory, level, index, hashes)
                        })?;
                    }
                    reading.position += line.len() as u64 + 1;
                }
            }
            if next > upto {
                return Ok(());
            }
            // It may have been signed before anybody knew that the segment ends there.
            if keep && reading.tree.size() == next - 1 && reading.tree.size() >= reading.signed {
                self.sync(reading)?;
                self.sign(reading, &Path::new(KEPT).join(format!("{:020}", next - 1)))?;
            }
            (reading.segment, reading.position) = (next, 0);
        }
        Ok(())
    }

    fn sign(&mut self, reading: &mut Reading, place: &Path) -> Result<(), Trouble> {
        let size = reading.tree.size();
        let origin = checkpoint::origin(&self.replica);
        let checkpoint = Checkpoint { origin, size, root: reading.tree.root() };
        let signed = self.keys.sign(&checkpoint).ok_or_else(|| io::Error::other("the checkpoint key is unusable"))?;
        tiles::keep_edge(&self.directory, &reading.tree)?;
        // The latest first: it is what a start takes up, and where it is, what is kept is written again.
        tiles::write_whole(&self.directory.join(LATEST), signed.note().as_bytes())?;
        if place != Path::new(LATEST) {
            tiles::write_whole(&self.directory.join(place), signed.note().as_bytes())?;
        }
        reading.signed = size;
        self.shared.metrics.checkpoint_records.set(size);
        self.sinks.tell(&signed);
        tracing::debug!(size, root = checkpoint.root.short(), "checkpoint signed");
        Ok(())
    }

    /// Sees to closed segments: what is signed may be compressed, and removed when its time is over.
    pub(super) fn tidy(&mut self) -> io::Result<()> {
        self.keeper.end_aged(&self.position)?;
        let Follows::Tree(reading) = &self.follows else { return Ok(()) };
        let signed = reading.signed;
        self.keeper.compress(signed)?;
        if let Some(retention) = self.keeper.due(signed, self.keys.verifiers(), self.room.is_at_stake())? {
            let last = retention.last;
            tracing::info!(first = retention.first, last, because = retention.because, "old records are removed");
            if retention.unread > 0 {
                tracing::error!(
                    records = retention.unread,
                    "the journal's disk is nearly full: records are removed that an export has not read"
                );
            }
            // On the record first, and signed: anybody could chain such a record to the end of what they cut.
            if self.put_durably("retention", &RetentionFields { retention }) {
                self.look();
                if matches!(&self.follows, Follows::Tree(reading) if reading.signed > signed) {
                    self.keeper.remove(last)?;
                }
            }
        }
        self.room.kept(&self.shared, self.keeper.bytes()?);
        Ok(())
    }

    /// Puts something that went wrong on the record.
    fn note(&self, problem: &str, detail: String) {
        self.put(
            "repair",
            &RepairFields { repair: RepairFacts { problem: problem.to_owned(), detail, ..RepairFacts::default() } },
        );
    }

    fn put(&self, kind: &'static str, fields: &impl Serialize) {
        let mut body = Vec::new();
        match line::body(&mut body, self.header(kind), fields) {
            Ok(()) => self.shared.push(&body, Mark::Plain),
            Err(error) => tracing::error!(%error, "defect: a record is lost"),
        }
    }

    /// The same, and waits until it is on the disk; whether it is.
    fn put_durably(&self, kind: &'static str, fields: &impl Serialize) -> bool {
        let mut body = Vec::new();
        let written = line::body(&mut body, self.header(kind), fields);
        let settled = written.ok().and_then(|()| self.shared.push_urgent(&body, Mark::Plain));
        self.shared.write_at_once();
        settled.is_some_and(Settled::wait)
    }

    const fn header(&self, kind: &'static str) -> Header<'_> {
        Header { replica: &self.replica, kind, of: None, who: None }
    }
}

/// A checkpoint that was kept; the inner `None` is a file that is none.
pub(super) fn read_checkpoint(path: &Path) -> io::Result<Option<Option<SignedCheckpoint>>> {
    match super::segment::read_text(path, limit::CHECKPOINT_BYTES_MAX as u64) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(Some(None)),
        text => Ok(Some(SignedCheckpoint::parse(&text?))),
    }
}

/// The checkpoint of the last closed segment.
fn last_kept(directory: &Path) -> io::Result<Option<SignedCheckpoint>> {
    let entries = match std::fs::read_dir(directory.join(KEPT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        entries => entries?,
    };
    let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
    let last = names.filter(|name| name.bytes().all(|byte| byte.is_ascii_digit())).max();
    let read = last.map(|name| read_checkpoint(&directory.join(KEPT).join(name))).transpose()?;
    Ok(read.flatten().flatten())
}

/// Whether a checkpoint covers more than another; one that cannot be read is for others to judge.
fn is_later(one: &SignedCheckpoint, other: &Option<SignedCheckpoint>) -> bool {
    other.as_ref().is_some_and(|other| one.checkpoint.size > other.checkpoint.size)
}

/// Makes a segment survive the machine's death: what was signed must not be taken back.
fn sync(path: &Path) -> io::Result<()> {
    match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        file => file?.sync_data(),
    }
}
