//! Decides what becomes of closed segments: compressed, and removed when they are old or too much.
//!
//! Refuses to touch the segment that is written to, and anything that no checkpoint covers. Invariant: whatever is
//! removed was signed, and the record says so before it goes; what the tree needs to go on from there stays.

use std::collections::BTreeMap;
use std::fs::{File, FileTimes};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime};

use super::checkpoint::{Standing, VerifierKey};
use super::fields::RetentionFacts;
use super::ledger::{KEPT, read_checkpoint};
use super::position::Position;
use super::read::Record;
use super::{segment, tiles};
use crate::config::RecordConfig;

/// The level of compression: more of it costs processor time that calls need, and saves little. Records are mostly
/// repetition, which the first level finds as well.
const LEVEL: i32 = 1;

/// How far everybody is who reads the record for somebody else: what they have not read is not removed.
#[derive(Debug, Default)]
pub struct Holds(Mutex<BTreeMap<String, u64>>);

impl Holds {
    /// Notes the last record that a reader has done with.
    pub fn read_up_to(&self, reader: &str, last: u64) {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.insert(reader.to_owned(), last);
    }

    /// The last record that all have done with; nothing where nobody reads.
    fn last(&self) -> Option<u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).values().min().copied()
    }
}

/// What happens to segments once they are closed.
#[derive(Debug)]
pub(super) struct Keeper {
    holds: Arc<Holds>,
    directory: PathBuf,
    compress: bool,
    segment_age: Duration,
    keep_age: Option<Duration>,
    keep_bytes: Option<u64>,
}

impl Keeper {
    pub(super) fn new(directory: &Path, config: &RecordConfig, holds: Arc<Holds>) -> Self {
        Self {
            holds,
            directory: directory.to_owned(),
            compress: config.compress,
            segment_age: config.segment_age,
            keep_age: config.keep_age,
            keep_bytes: config.keep_bytes,
        }
    }

    /// Ends the segment that is written to when its first record is old enough.
    pub(super) fn end_aged(&self, position: &Position) -> io::Result<()> {
        let Some((_, path)) = segment::segments(&self.directory)?.pop() else { return Ok(()) };
        let begun = segment::first_line(&path)?.and_then(|line| Record::read(&line)).map(|record| record.at);
        let age = begun.map(|begun| jiff::Timestamp::now().duration_since(begun).unsigned_abs());
        if age.is_some_and(|age| age >= self.segment_age) {
            position.end_segment();
        }
        Ok(())
    }

    /// Compresses what is closed and signed up to that record.
    pub(super) fn compress(&self, signed: u64) -> io::Result<()> {
        let all = segment::segments(&self.directory)?;
        for ((_, path), (next, _)) in all.iter().zip(all.iter().skip(1)) {
            if self.compress && *next <= signed + 1 && !segment::is_compressed(path) {
                compress(path)?;
                File::open(&self.directory)?.sync_all()?;
                std::fs::remove_file(path)?;
            }
        }
        Ok(())
    }

    /// All bytes of all segments.
    pub(super) fn bytes(&self) -> io::Result<u64> {
        let all = segment::segments(&self.directory)?;
        Ok(all.iter().filter_map(|(_, path)| path.metadata().ok()).map(|metadata| metadata.len()).sum())
    }

    /// The oldest segments that should go, if there are any that may. What somebody has yet to read stays, unless the
    /// room for the last words is `at_stake`.
    pub(super) fn due(
        &self,
        signed: u64,
        keys: &[VerifierKey],
        at_stake: bool,
    ) -> io::Result<Option<RetentionFacts<'static>>> {
        let held = self.holds.last();
        if self.keep_age.is_none() && self.keep_bytes.is_none() {
            return Ok(None);
        }
        let all = segment::segments(&self.directory)?;
        let mut left = self.bytes()?;
        let Some((first, _)) = all.first() else { return Ok(None) };
        let (mut due, mut segments, mut bytes) = (None, 0, 0);
        for ((_, path), (next, _)) in all.iter().zip(all.iter().skip(1)) {
            let metadata = path.metadata()?;
            let age = SystemTime::now().duration_since(metadata.modified()?).unwrap_or_default();
            let old = self.keep_age.is_some_and(|keep| age > keep);
            let much = self.keep_bytes.is_some_and(|keep| left > keep);
            let last = next - 1;
            let unread = held.map_or(0, |held| last.saturating_sub(held));
            if last > signed || !(old || much) || (unread > 0 && !at_stake) {
                break;
            }
            segments += 1;
            bytes += metadata.len();
            left = left.saturating_sub(metadata.len());
            // Without the checkpoint of its end nothing would explain why it is gone.
            let kept = read_checkpoint(&self.directory.join(KEPT).join(format!("{last:020}")))?.flatten();
            if let Some(kept) = kept.filter(|kept| kept.standing(keys) == Standing::Signed) {
                let root = kept.checkpoint.root;
                let because = if old { "age" } else { "bytes" };
                due = Some(RetentionFacts { first: *first, last, segments, bytes, root, because, unread });
            }
        }
        Ok(due)
    }

    /// Removes what is on the record as removed. What a crash leaves is removed the next time.
    pub(super) fn remove(&self, last: u64) -> io::Result<()> {
        for (first, path) in segment::segments(&self.directory)? {
            if first > last {
                break;
            }
            let forms = [
                segment::path(&self.directory, first),
                segment::compressed(&segment::path(&self.directory, first)),
                path,
            ];
            for form in forms {
                gone(std::fs::remove_file(form))?;
            }
        }
        // One hash above stands for a full tile that is wholly before the boundary.
        for index in (0..last / 256).rev() {
            match std::fs::remove_file(self.directory.join(tiles::path(0, index))) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => break,
                removed => removed?,
            }
        }
        for entry in std::fs::read_dir(self.directory.join(KEPT))? {
            let path = entry?.path();
            let size = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse::<u64>().ok());
            if size.is_some_and(|size| size < last) {
                gone(std::fs::remove_file(path))?;
            }
        }
        Ok(())
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    removed.or_else(|error| if error.kind() == io::ErrorKind::NotFound { Ok(()) } else { Err(error) })
}

/// Writes the compressed form beside a segment, and reads it back before anybody relies on it.
fn compress(path: &Path) -> io::Result<()> {
    let bytes = segment::read_whole(path)?;
    let target = segment::compressed(path);
    let fresh = target.with_extension("new");
    let file = File::options()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .custom_flags(segment::no_follow())
        .open(&fresh)?;
    let mut encoder = zstd::stream::write::Encoder::new(file, LEVEL)?;
    encoder.include_checksum(true)?;
    encoder.write_all(&bytes)?;
    let file = encoder.finish()?;
    // Its age is the age of its records.
    file.set_times(FileTimes::new().set_modified(path.metadata()?.modified()?))?;
    file.sync_data()?;
    if !reads_back(&fresh, &bytes)? {
        return Err(io::Error::other(format!("{} could not be read back", fresh.display())));
    }
    std::fs::rename(&fresh, &target)
}

/// Whether a compressed file holds exactly that; piece by piece, as a second copy of a segment is memory for nothing.
fn reads_back(compressed: &Path, mut expected: &[u8]) -> io::Result<bool> {
    let mut decoder = zstd::stream::read::Decoder::new(File::open(compressed)?)?;
    let mut piece = vec![0; 64 * 1024];
    loop {
        let length = decoder.read(&mut piece)?;
        let read = piece.get(..length).unwrap_or_default();
        match expected.strip_prefix(read) {
            Some(rest) if length > 0 => expected = rest,
            rest => return Ok(rest.is_some_and(<[u8]>::is_empty)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_segment_is_compressed_with_its_age_and_read_back_from_any_place() {
        let place = tempfile::tempdir().unwrap();
        let path = segment::path(place.path(), 1);
        std::fs::write(&path, "one\ntwo\n").unwrap();
        let then = SystemTime::now() - Duration::from_secs(5_000);
        File::options().write(true).open(&path).unwrap().set_modified(then).unwrap();
        compress(&path).unwrap();
        std::fs::remove_file(&path).unwrap();
        let compressed = segment::compressed(&path);
        assert_eq!(compressed.metadata().unwrap().modified().unwrap(), then);
        assert_eq!(segment::segments(place.path()).unwrap(), [(1, compressed)]);
        for (position, rest) in [(0, "one\ntwo\n"), (4, "two\n"), (8, ""), (99, "")] {
            assert_eq!(segment::read_from(&path, position).unwrap(), rest.as_bytes());
        }
    }

    #[test]
    fn only_what_was_written_reads_back() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("compressed");
        let bytes: Vec<u8> = (0..200_000_u32).flat_map(u32::to_le_bytes).collect();
        std::fs::write(&path, zstd::stream::encode_all(bytes.as_slice(), LEVEL).unwrap()).unwrap();
        assert!(reads_back(&path, &bytes).unwrap());
        assert!(!reads_back(&path, &bytes[..bytes.len() - 1]).unwrap(), "less");
        assert!(!reads_back(&path, &[bytes.as_slice(), b"x"].concat()).unwrap(), "more");
        let mut other = bytes.clone();
        other[700_000] ^= 1;
        assert!(!reads_back(&path, &other).unwrap(), "another");
    }

    #[test]
    fn a_compressed_file_that_would_fill_the_memory_is_refused() {
        let place = tempfile::tempdir().unwrap();
        let path = segment::compressed(&segment::path(place.path(), 1));
        let bomb = zstd::stream::encode_all(std::io::repeat(b'x').take(256 << 20), LEVEL).unwrap();
        assert!(bomb.len() < 1 << 20);
        std::fs::write(&path, bomb).unwrap();
        assert!(segment::read_whole(&path).unwrap_err().to_string().contains("larger than a segment can be"));
    }
}
