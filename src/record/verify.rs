//! Decides whether a journal is what was written: walks the chain through all segments, offline.
//!
//! Refuses to repair. Invariant: a record that was changed, removed, inserted or moved is named, as long
//! as a record after it exists. What a chain cannot show is records missing from its end; that is for
//! [`super::audit`], which holds the records against what was signed.

use std::io;
use std::path::Path;

use super::line::GENESIS;
use super::segment::{self, Break};
use crate::ids::Digest;

/// What a walk through a journal found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Every record follows from the one before.
    Whole(Walk),
    /// It does not.
    Broken {
        /// How far the walk went.
        walk: Walk,
        /// The segment's file name.
        segment: String,
        /// The first bad record.
        sequence: u64,
        /// What is wrong with it.
        problem: &'static str,
    },
}

/// How much was walked through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Walk {
    /// Segment files.
    pub segments: u64,
    /// Records.
    pub records: u64,
    /// The number of the first record that is still there.
    pub first_sequence: u64,
    /// The number of the last record.
    pub last_sequence: u64,
    /// The digest of the last record.
    pub last_digest: Option<Digest>,
    /// Bytes after a last record, torn by a crash or just being written.
    pub torn_bytes: u64,
}

/// Walks the chain of all segments in a journal directory. Blocking.
///
/// # Errors
/// When a file cannot be read.
pub fn verify(directory: &Path) -> io::Result<Verdict> {
    walk(directory, usize::MAX)
}

/// Walks the chain of the last segment alone: whether a start would find what it goes on from. Blocking.
///
/// # Errors
/// When a file cannot be read.
pub fn verify_end(directory: &Path) -> io::Result<Verdict> {
    walk(directory, 1)
}

fn walk(directory: &Path, segments_max: usize) -> io::Result<Verdict> {
    let mut walk = Walk::default();
    let mut expected: Option<(u64, Digest)> = None;
    let all = segment::segments(directory)?;
    let skipped = all.len().saturating_sub(segments_max);
    for (first, path) in all.into_iter().skip(skipped) {
        let bytes = segment::read_whole(&path)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        // Older segments may have been retired; the first that is left begins where its name says.
        let (next, digest) = match expected {
            Some((next, digest)) => (next, Some(digest)),
            None => (first, (first == 1).then_some(GENESIS)),
        };
        if walk.segments == 0 {
            walk.first_sequence = first;
        }
        let scan = segment::scan(&bytes, next..u64::MAX, digest, |_, _| {});
        walk.segments += 1;
        walk.records += scan.lines;
        walk.torn_bytes += (bytes.len() - scan.good_bytes) as u64;
        if let Some(Break { sequence, problem, .. }) = scan.broken {
            return Ok(Verdict::Broken { walk, segment: name, sequence, problem });
        }
        if scan.lines > 0 {
            walk.last_sequence = scan.next - 1;
            walk.last_digest = scan.digest;
        }
        if let Some(digest) = scan.digest {
            expected = Some((scan.next, digest));
        }
    }
    Ok(Verdict::Whole(walk))
}
