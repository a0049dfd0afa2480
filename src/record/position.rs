//! How far the record has come: told by whoever writes, for those who read what was written.
//!
//! Decides nothing. Refuses to know what a record says. Invariant: what may still be taken back, by a write that fails or by
//! a crash of the machine, is neither handed on nor signed.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use super::batch::lock;
use super::segment;

/// How far the record has come.
#[derive(Debug, Default)]
pub(super) struct Position {
    pub(super) records: AtomicU64,
    pub(super) segment: AtomicU64,
    pub(super) is_aged: AtomicBool,
    doubt: Mutex<Option<Doubt>>,
}

/// What the disk may not have, although it was written: the kernel forgets which pages it could not write, and goes on
/// reading them.
#[derive(Debug, Default)]
struct Doubt {
    /// The first such record.
    first: u64,
    /// Where they stand: still to be written again.
    segments: BTreeSet<PathBuf>,
    /// Some of it is gone for good. Nothing from there on is ever signed: people have to look at that.
    is_lost: bool,
}

impl Position {
    /// The segment that is written to is old enough: the next record begins another.
    pub(super) fn end_segment(&self) {
        self.is_aged.store(true, Ordering::Relaxed);
    }

    /// Records that were written and stay.
    pub(super) fn records(&self) -> u64 {
        self.records.load(Ordering::Acquire)
    }

    /// The number of the first record of the segment that is written to.
    pub(super) fn segment(&self) -> u64 {
        self.segment.load(Ordering::Relaxed)
    }

    /// Records of which none is in doubt: so many may be signed, once they are on the disk.
    pub(super) fn signable(&self) -> u64 {
        let records = self.records();
        lock(&self.doubt).as_ref().map_or(records, |doubt| records.min(doubt.first.saturating_sub(1)))
    }

    /// Whether the disk may not have what was written.
    pub(super) fn is_in_doubt(&self) -> bool {
        lock(&self.doubt).is_some()
    }

    /// A segment could not be made to survive the machine's death: from that record on nobody knows what the disk has.
    pub(super) fn doubt(&self, first: u64, segment: PathBuf) {
        let mut doubt = lock(&self.doubt);
        let doubt = doubt.get_or_insert_with(|| Doubt { first, ..Doubt::default() });
        doubt.first = doubt.first.min(first);
        doubt.segments.insert(segment);
    }

    /// The segments that are to be written again.
    pub(super) fn doubted(&self) -> Vec<PathBuf> {
        lock(&self.doubt).iter().flat_map(|doubt| doubt.segments.iter().cloned()).collect()
    }

    /// Writes a segment again that the disk may not have, from what is still read of it.
    ///
    /// # Errors
    /// Where it cannot be written; what was in doubt stays so.
    pub(super) fn write_again(&self, path: &Path) -> io::Result<()> {
        let is_whole = write_again(path, self.records())?;
        let mut doubt = lock(&self.doubt);
        let Some(own) = doubt.as_mut() else { return Ok(()) };
        own.segments.remove(path);
        if !is_whole {
            own.is_lost = true;
            let (segment, first) = (path.display(), own.first);
            tracing::error!(%segment, first, "a part of the record is lost: nothing from there on is signed");
        }
        if own.segments.is_empty() && !own.is_lost {
            *doubt = None;
        }
        Ok(())
    }
}

/// Whether everything was there that belongs there, and was written again; `records` is how many there are in all.
fn write_again(path: &Path, records: u64) -> io::Result<bool> {
    let directory = path.parent().unwrap_or(path);
    let bytes = match segment::read_whole(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        bytes => bytes?,
    };
    let first = path.file_stem().and_then(|stem| stem.to_str()?.parse().ok()).unwrap_or_default();
    let next = segment::segments(directory)?.into_iter().map(|(other, _)| other).find(|other| *other > first);
    let scan = segment::scan(&bytes, first..u64::MAX, None, |_, _| {});
    if scan.broken.is_some() || scan.next < next.unwrap_or(records + 1) {
        return Ok(false);
    }
    let again = path.with_extension("again");
    match std::fs::remove_file(&again) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(&again)?;
    file.write_all(&bytes)?;
    file.sync_all()?;
    std::fs::rename(&again, path)?;
    File::open(directory)?.sync_all()?;
    tracing::warn!(segment = %path.display(), "a segment was written again, because the disk may not have had it");
    Ok(true)
}

/// How far the record has come, for those who hand it on.
#[derive(Debug, Clone)]
pub struct Written(Arc<Position>);

impl Written {
    pub(super) const fn of(position: Arc<Position>) -> Self {
        Self(position)
    }

    /// So many, for a test.
    #[cfg(test)]
    pub(crate) fn records_for_test(records: u64) -> Self {
        Self(Arc::new(Position { records: AtomicU64::new(records), ..Position::default() }))
    }

    /// The number of the last record that no write which fails takes back.
    #[must_use]
    pub fn records(&self) -> u64 {
        self.0.records()
    }
}
