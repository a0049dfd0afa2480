//! Decides what a segment file proves: which of its lines form a chain, where it breaks, and whether
//! its end was torn by a crash.
//!
//! Refuses to change anything. Invariant: what follows the last readable line is torn; anything wrong
//! before a readable line is a break, because a crash cannot make it.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::ids::{Digest, RevocationEpoch};
use crate::limit;

/// What a walk through one segment found.
#[derive(Debug, Clone)]
pub(super) struct Scan {
    /// Readable lines.
    pub(super) lines: u64,
    /// The number that the next line must have.
    pub(super) next: u64,
    /// The digest that the next line must carry; unknown where there was no line and nothing was expected.
    pub(super) digest: Option<Digest>,
    /// Bytes up to the end of the last readable line.
    pub(super) good_bytes: usize,
    /// Where the chain first breaks.
    pub(super) broken: Option<Break>,
}

/// The first record that is not what it was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Break {
    pub(super) sequence: u64,
    /// Its line in the file, from 1; 0 where it would be the last one of the file before.
    pub(super) line: u64,
    pub(super) problem: &'static str,
}

/// The fields of a line that order, chain and recovery need.
#[derive(Debug, Deserialize)]
pub(super) struct Scanned<'a> {
    v: u64,
    pub(super) seq: u64,
    prev: &'a str,
    #[serde(rename = "type")]
    pub(super) kind: &'a str,
    pub(super) call: Option<&'a str>,
    pub(super) leg: Option<&'a str>,
    start: Option<Epoch>,
    revocation: Option<Epoch>,
    pin: Option<PinEpoch>,
    change: Option<Epoch>,
    #[serde(borrow)]
    pub(super) rotation: Option<Rotation<'a>>,
    pub(super) retention: Option<Removed>,
}

/// What a record of type `retention` says was removed, up to which record.
#[derive(Debug, Deserialize)]
pub(super) struct Removed {
    pub(super) last: u64,
}

#[derive(Debug, Deserialize)]
struct Epoch {
    epoch: RevocationEpoch,
    #[serde(default)]
    nonce: Option<u32>,
}

/// A pin that an administrator decided has one.
#[derive(Debug, Deserialize)]
struct PinEpoch {
    epoch: Option<RevocationEpoch>,
}

#[derive(Debug, Deserialize)]
pub(super) struct Rotation<'a> {
    epoch: RevocationEpoch,
    #[serde(default)]
    history: Option<Epoch>,
    #[serde(default)]
    pub(super) part: u64,
    #[serde(borrow)]
    pub(super) open: Vec<OpenNames<'a>>,
}

#[derive(Debug, Deserialize)]
pub(super) struct OpenNames<'a> {
    pub(super) call: &'a str,
    pub(super) leg: &'a str,
}

impl Scanned<'_> {
    /// The store's epoch, where the line tells it.
    pub(super) fn epoch(&self) -> Option<RevocationEpoch> {
        let told = self.start.as_ref().or(self.changed()).map(|told| told.epoch);
        let told = told.or_else(|| self.pin.as_ref().and_then(|pin| pin.epoch));
        told.or_else(|| self.rotation.as_ref().map(|rotation| rotation.epoch))
    }

    /// An epoch with what tells it from the same one of another history, where the line tells both.
    pub(super) fn history(&self) -> Option<(RevocationEpoch, u32)> {
        let carried = || self.rotation.as_ref().and_then(|rotation| rotation.history.as_ref());
        let told = self.changed().or_else(carried)?;
        Some((told.epoch, told.nonce?))
    }

    fn changed(&self) -> Option<&Epoch> {
        self.revocation.as_ref().or(self.change.as_ref())
    }
}

/// Walks through a segment's bytes; `numbers` are those that its lines may have, `previous` the digest that the first
/// one must carry, where that is known. What stands there with a number beyond is left of a write that failed.
pub(super) fn scan(
    bytes: &[u8],
    numbers: Range<u64>,
    previous: Option<Digest>,
    mut each: impl FnMut(&Scanned<'_>, &[u8]),
) -> Scan {
    let mut scan = Scan { lines: 0, next: numbers.start, digest: previous, good_bytes: 0, broken: None };
    let mut unreadable = None;
    let (mut position, mut number) = (0, 0);
    for line in lines(bytes) {
        position += line.len() + 1;
        number += 1;
        let Some(scanned) = read(line).filter(|scanned| scanned.seq < numbers.end) else {
            unreadable.get_or_insert(number);
            continue;
        };
        let problem = if let Some(line) = unreadable.take() {
            Some((scan.next, line, "is unreadable"))
        } else if scanned.seq != scan.next {
            Some((scan.next, number, "is missing"))
        } else if scan.digest.is_some_and(|digest| Digest::from_hex(scanned.prev) != Some(digest)) {
            // The digest of the line before is what differs, so that line is the one that was changed.
            Some((scan.next.saturating_sub(1), number - 1, "was changed"))
        } else {
            None
        };
        if let Some((sequence, line, problem)) = problem
            && scan.broken.is_none()
        {
            scan.broken = Some(Break { sequence, line, problem });
        }
        scan.lines += 1;
        scan.next = scanned.seq.saturating_add(1);
        scan.digest = Some(Digest::sha256(line));
        scan.good_bytes = position;
        each(&scanned, line);
    }
    scan
}

fn read(line: &[u8]) -> Option<Scanned<'_>> {
    serde_json::from_slice::<Scanned<'_>>(line).ok().filter(|scanned| scanned.v == 1)
}

/// The number of a line, as the writer puts it; `None` for what it cannot have written.
pub(super) fn sequence(line: &[u8]) -> Option<u64> {
    let digits = line.strip_prefix(br#"{"v":1,"seq":"#)?;
    let end = memchr::memchr(b',', digits)?;
    std::str::from_utf8(digits.get(..end)?).ok()?.parse().ok()
}

/// The complete lines of some bytes, without their breaks.
pub(super) fn lines(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut start = 0;
    memchr::memchr_iter(b'\n', bytes).filter_map(move |end| {
        let line = bytes.get(start..end);
        start = end + 1;
        line
    })
}

/// The segments of a directory, oldest first, with the number of each one's first line.
pub(super) fn segments(directory: &Path) -> io::Result<Vec<(u64, PathBuf)>> {
    let mut segments = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let path = entry?.path();
        let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
        let stem = name.strip_suffix(".zst").unwrap_or(name).strip_suffix(".jsonl");
        let first = stem.filter(|stem| stem.len() == 20).and_then(|stem| stem.parse().ok());
        segments.extend(first.map(|first| (first, path)));
    }
    segments.sort_unstable();
    // Where both are there, a crash came between compressing and removing: the one that was written counts.
    segments.dedup_by_key(|(first, _)| *first);
    Ok(segments)
}

/// Whether a segment is compressed, so that nothing is ever added to it.
pub(super) fn is_compressed(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "zst")
}

/// The path of a segment once it is compressed.
pub(super) fn compressed(path: &Path) -> PathBuf {
    path.with_extension("jsonl.zst")
}

/// The file that begins with that line.
pub(super) fn path(directory: &Path, first: u64) -> PathBuf {
    directory.join(format!("{first:020}.jsonl"))
}

/// All of a segment, never through a link.
pub(super) fn read_whole(path: &Path) -> io::Result<Vec<u8>> {
    read_from(path, 0)
}

/// All of a segment from some position on, never through a link.
pub(super) fn read_from(path: &Path, position: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    let mut file = match File::options().read(true).custom_flags(no_follow()).open(path) {
        // It was compressed after somebody listed it.
        Err(error) if error.kind() == io::ErrorKind::NotFound && !is_compressed(path) => {
            return read_from(&compressed(path), position);
        }
        file => file?,
    };
    // A segment ends after the batch that crosses its limit.
    let bytes_max = limit::JOURNAL_SEGMENT_BYTES_MAX + 2 * limit::JOURNAL_QUEUE_BYTES_MAX as u64;
    if is_compressed(path) {
        let spoilt = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let decoder = zstd::stream::read::Decoder::new(file).map_err(spoilt)?;
        decoder.take(bytes_max + 1).read_to_end(&mut bytes).map_err(spoilt)?;
        bytes.drain(..usize::try_from(position).unwrap_or(usize::MAX).min(bytes.len()));
    } else {
        // As much as is there: a buffer that grows by itself copies a segment twice over.
        let there = file.metadata()?.len().saturating_sub(position).min(bytes_max);
        bytes.reserve(usize::try_from(there).unwrap_or(0) + 1);
        file.seek(SeekFrom::Start(position))?;
        file.take(bytes_max + 1).read_to_end(&mut bytes)?;
    }
    if bytes.len() as u64 > bytes_max {
        return Err(io::Error::other(format!("{} is larger than a segment can be", path.display())));
    }
    Ok(bytes)
}

/// The first line of a segment, if it is there whole.
pub(super) fn first_line(path: &Path) -> io::Result<Option<String>> {
    let mut bytes = Vec::new();
    let file = File::options().read(true).custom_flags(no_follow()).open(path)?;
    file.take(limit::JOURNAL_LINE_BYTES_MAX as u64 + 256).read_to_end(&mut bytes)?;
    Ok(lines(&bytes).next().map(|line| String::from_utf8_lossy(line).into_owned()))
}

/// A small text file, never through a link.
///
/// # Errors
/// When it cannot be read, is not UTF-8 or larger than that.
pub fn read_text(path: &Path, bytes_max: u64) -> io::Result<String> {
    let mut text = String::new();
    let file = File::options().read(true).custom_flags(no_follow()).open(path)?;
    file.take(bytes_max + 1).read_to_string(&mut text)?;
    if text.len() as u64 > bytes_max {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{} is too large", path.display())));
    }
    Ok(text)
}

/// The flag that refuses symbolic links.
pub(super) fn no_follow() -> i32 {
    rustix::fs::OFlags::NOFOLLOW.bits().cast_signed()
}
