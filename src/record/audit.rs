//! Decides whether a record is what was signed: chain, numbers, tree, checkpoints and segments, offline and on a copy.
//!
//! Refuses to repair, and to believe anything that no given key vouches for. Invariant: whatever differs from what
//! was signed is found, and the first bad record is named; where nothing that was signed can be held against the
//! record, it is not called good.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use serde::Serialize;

use super::checkpoint::{SignedCheckpoint, Standing, VerifierKey};
use super::ledger::{KEPT, LATEST, read_checkpoint};
use super::line::GENESIS;
use super::segment::{self, Break};
use super::tiles;
use super::tree::Tree;
use crate::ids::Digest;

/// What is held against the record.
#[derive(Debug, Clone, Copy)]
pub struct Against<'a> {
    /// Keys that the auditor trusts.
    pub keys: &'a [VerifierKey],
    /// Checkpoints that were kept elsewhere.
    pub kept: &'a [SignedCheckpoint],
}

/// What was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Audit {
    /// The judgement.
    #[serde(flatten)]
    pub judgement: Judgement,
    /// Segment files.
    pub segments: u64,
    /// Records in them.
    pub records: u64,
    /// The number of the first record that is still there.
    pub first: u64,
    /// The number of the last record.
    pub last: u64,
    /// The last record that a checkpoint covers.
    pub signed: u64,
    /// Checkpoints that a given key vouches for and that agree.
    pub checkpoints: u64,
    /// What an auditor should know besides.
    pub notes: Vec<String>,
}

/// How it was judged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "verdict", rename_all = "lowercase")]
pub enum Judgement {
    /// It is what was signed.
    Good,
    /// It is not.
    Tampered(Finding),
    /// Nobody can say.
    Undecided {
        /// What is missing for a judgement.
        problem: String,
    },
}

/// The first thing that is wrong.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The segment's file, or the checkpoint's.
    pub file: String,
    /// The line in it, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub line: Option<u64>,
    /// The record, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub seq: Option<u64>,
    /// What is wrong.
    pub problem: String,
}

/// A file's place and what it says.
struct Held<'a> {
    file: &'a str,
    signed: &'a SignedCheckpoint,
}

/// Judges a journal's directory. Blocking.
///
/// # Errors
/// When a file cannot be read.
pub fn audit(directory: &Path, against: Against<'_>) -> io::Result<Audit> {
    // Checkpoints first: where a gateway goes on writing, the records are then never behind them.
    let own = own_checkpoints(directory)?;
    let mut found = Findings::default();
    let mut notes = Vec::new();
    let kept = against.kept.iter().map(|signed| Held { file: "a checkpoint kept elsewhere", signed });
    let own_read = own.iter().filter_map(|(file, signed)| Some(Held { file, signed: signed.as_ref()? }));
    let mut signed: BTreeMap<u64, Held<'_>> = BTreeMap::new();
    let mut strangers = Vec::new();
    for (file, _) in own.iter().filter(|(_, signed)| signed.is_none()) {
        found.file(file, "is no checkpoint");
    }
    for held in own_read.chain(kept) {
        let checkpoint = &held.signed.checkpoint;
        match held.signed.standing(against.keys) {
            Standing::Forged => found.file(held.file, "was forged: the key that it names did not sign it"),
            Standing::Unknown => strangers.push(held),
            Standing::Signed => match signed.get(&checkpoint.size) {
                Some(other) if other.signed.checkpoint.root != checkpoint.root => {
                    let problem = format!("contradicts {}: both say {} records", other.file, checkpoint.size);
                    found.file(held.file, &problem);
                }
                Some(_) => {}
                None => drop(signed.insert(checkpoint.size, held)),
            },
        }
    }
    let expected = |size: u64| signed.get(&size).map(|held| held.signed.checkpoint.root);
    let walk = Walk::through(directory, &expected, &mut found)?;
    for (size, held) in &signed {
        if *size > walk.last {
            let problem = format!("is missing: {} says that there are {size} records", held.file);
            found.record(&walk.segment, Some(walk.lines + 1), walk.last + 1, &problem);
        } else if *size < walk.first.saturating_sub(1) {
            notes.push(format!("{} is older than the first record that is still there", held.file));
        }
    }
    walk.judge_tree(&mut found);
    walk.judge_beginning(signed.keys().next_back().copied().unwrap_or(0), &mut found);
    let mut judgement = None;
    let covered = signed.keys().next_back().copied();
    if covered.is_some() {
        for held in strangers.iter().filter(|held| held.file.contains('/') || held.file == LATEST) {
            let problem = format!("is signed by {}, which is none of the keys", held.signed.signers().join(", "));
            found.file(held.file, &problem);
        }
        let elsewhere = signed.values().any(|held| held.file.contains("elsewhere"));
        if !against.kept.is_empty()
            && !elsewhere
            && !against.kept.iter().any(|kept| expected(kept.checkpoint.size).is_some())
        {
            judgement = Some("none of the checkpoints kept elsewhere is signed by one of the keys".to_owned());
        }
    } else {
        let names: Vec<String> = strangers.iter().flat_map(|held| held.signed.signers()).collect();
        judgement = Some(match (against.keys.is_empty(), names.first()) {
            (true, _) => "no key to verify checkpoints with: name it with --key".to_owned(),
            (false, None) => "there is no checkpoint: nothing says that the end is the end".to_owned(),
            (false, Some(name)) => format!("no checkpoint is signed by one of the keys; they name {name}"),
        });
    }
    notes.extend(walk.notes);
    let judgement = match (found.first(), judgement) {
        (Some(finding), _) => Judgement::Tampered(finding),
        (None, Some(problem)) => Judgement::Undecided { problem },
        (None, None) => Judgement::Good,
    };
    Ok(Audit {
        judgement,
        segments: walk.segments,
        records: walk.records,
        first: walk.first,
        last: walk.last,
        signed: covered.unwrap_or(0),
        checkpoints: signed.len() as u64,
        notes,
    })
}

/// The checkpoints beside the segments, each with its file; `None` for a file that is none.
fn own_checkpoints(directory: &Path) -> io::Result<Vec<(String, Option<SignedCheckpoint>)>> {
    let mut files = vec![LATEST.to_owned()];
    match std::fs::read_dir(directory.join(KEPT)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        entries => {
            for entry in entries? {
                let name = entry?.file_name().to_string_lossy().into_owned();
                // What a crash left of a file that was being written is under another name.
                if std::path::Path::new(&name).extension().is_none_or(|extension| extension != "new") {
                    files.push(format!("{KEPT}/{name}"));
                }
            }
        }
    }
    files.sort();
    let read = |file: String| Ok(read_checkpoint(&directory.join(&file))?.map(|signed| (file, signed)));
    files.into_iter().map(read).filter_map(io::Result::transpose).collect()
}

/// Everything that is wrong.
#[derive(Default)]
struct Findings(Vec<Finding>);

impl Findings {
    fn file(&mut self, file: &str, problem: &str) {
        self.0.push(Finding { file: file.to_owned(), line: None, seq: None, problem: problem.to_owned() });
    }

    fn record(&mut self, file: &str, line: Option<u64>, seq: u64, problem: &str) {
        self.0.push(Finding { file: file.to_owned(), line, seq: Some(seq), problem: problem.to_owned() });
    }

    /// The first bad record; where no record is bad, the first file that is.
    fn first(self) -> Option<Finding> {
        self.0.into_iter().min_by_key(|finding| finding.seq.unwrap_or(u64::MAX))
    }
}

/// A walk through all segments.
#[derive(Default)]
struct Walk {
    segments: u64,
    records: u64,
    first: u64,
    last: u64,
    /// The last segment's file, and its lines.
    segment: String,
    lines: u64,
    notes: Vec<String>,
    tree: Tree,
    /// The largest size at which the tree is what was signed.
    agreed: u64,
    /// The smallest size at which it is not.
    differs: Option<u64>,
    /// The first record whose hash is not the one in the tiles.
    unlike: Option<u64>,
    /// The record that says that the beginning was removed.
    explained: Option<u64>,
    /// The beginning is gone and nothing leads to it, so that the tree says nothing.
    is_blind: bool,
    /// Files with the number of their first record.
    files: Vec<(u64, String)>,
}

impl Walk {
    fn through(directory: &Path, expected: &impl Fn(u64) -> Option<Digest>, found: &mut Findings) -> io::Result<Self> {
        let mut walk = Self::default();
        let all = segment::segments(directory)?;
        let first = all.first().map_or(1, |(first, _)| *first);
        walk.first = first;
        walk.last = first.saturating_sub(1);
        if first > 1 {
            walk.begin_later(directory, first, expected, found)?;
        }
        let mut chained: Option<(u64, Digest)> = (first == 1).then_some((1, GENESIS));
        for (index, (begins, path)) in all.iter().enumerate() {
            let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            let bytes = match segment::read_whole(path) {
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    found.record(&name, None, *begins, &format!("cannot be read, and nothing in this file: {error}"));
                    Vec::new()
                }
                bytes => bytes?,
            };
            let (next, digest) = chained.map_or((*begins, None), |(next, digest)| (next, Some(digest)));
            let until = all.get(index + 1).map_or(u64::MAX, |(first, _)| *first);
            let holds = segment::lines(&bytes).find_map(segment::sequence);
            if let Some(holds) = holds.filter(|holds| holds != begins) {
                let problem = format!("is missing: this file begins with record {holds} and was renamed or swapped");
                found.record(&name, Some(1), *begins, &problem);
            }
            let mut failed = None;
            let scan = segment::scan(&bytes, next..until.max(next), digest, |line, raw| {
                if line.retention.as_ref().is_some_and(|removed| removed.last + 1 == first) {
                    walk.explained.get_or_insert(line.seq);
                }
                if failed.is_none() {
                    failed = walk.take(directory, line.seq, raw, expected).err();
                }
            });
            if let Some(error) = failed {
                found.record(&name, None, scan.next, &error.to_string());
            }
            if let Some(Break { sequence, line, problem }) = scan.broken {
                walk.broken(found, &name, sequence, line, problem);
            }
            let torn = bytes.len() - scan.good_bytes;
            if torn > 0 {
                walk.notes.push(format!("{name} ends with {torn} bytes that are no record: a write was cut off"));
            }
            walk.segments += 1;
            walk.records += scan.lines;
            if scan.lines > 0 {
                (walk.last, walk.segment, walk.lines) = (scan.next - 1, name.clone(), scan.lines);
            }
            walk.files.push((*begins, name));
            chained = scan.digest.map(|digest| (scan.next, digest));
        }
        walk.compare_edge(directory)?;
        Ok(walk)
    }

    /// The beginning was removed: the tiles must still lead to what was signed there.
    fn begin_later(
        &mut self,
        directory: &Path,
        first: u64,
        expected: &impl Fn(u64) -> Option<Digest>,
        found: &mut Findings,
    ) -> io::Result<()> {
        let size = first - 1;
        let tree = tiles::load(directory, size)?;
        match (tree, expected(size)) {
            (Some(tree), Some(root)) if tree.root() == root => {
                self.notes
                    .push(format!("records 1 to {size} were removed; a checkpoint of {size} records explains them"));
                (self.agreed, self.tree) = (size, tree);
            }
            _ => {
                self.is_blind = true;
                found.record("tile", None, size, "is missing, and no checkpoint with its tiles explains the beginning");
            }
        }
        Ok(())
    }

    /// Adds a record to the tree and compares both with what was kept and signed.
    fn take(
        &mut self,
        directory: &Path,
        sequence: u64,
        line: &[u8],
        expected: &impl Fn(u64) -> Option<Digest>,
    ) -> io::Result<()> {
        let mut unlike = None;
        let before = self.tree.size();
        self.tree.add(sequence, line, |level, index, hashes| {
            let kept = tiles::full(directory, level, index)?;
            if level == 0
                && let Some(kept) = kept
                && let Some(position) = (0..hashes.len()).find(|position| hashes.get(*position) != kept.get(*position))
            {
                unlike.get_or_insert(index * hashes.len() as u64 + position as u64 + 1);
            }
            Ok(())
        })?;
        self.unlike = self.unlike.or(unlike);
        if self.tree.size() > before
            && let Some(root) = expected(self.tree.size())
        {
            if self.tree.root() == root {
                self.agreed = self.tree.size();
            } else {
                self.differs.get_or_insert(self.tree.size());
            }
        }
        Ok(())
    }

    /// The unfinished tile of records, as far as one was kept for it.
    fn compare_edge(&mut self, directory: &Path) -> io::Result<()> {
        let Some(hashes) = self.tree.levels().first() else { return Ok(()) };
        for width in (1..=hashes.len() as u64).rev() {
            let size = self.tree.size() - hashes.len() as u64 + width;
            let Some(kept) = tiles::edge(directory, size)? else { continue };
            let differs = kept.iter().zip(hashes).position(|(kept, hash)| kept != hash);
            if let Some(position) = differs
                && self.unlike.is_none()
            {
                self.unlike = Some(self.tree.size() - hashes.len() as u64 + position as u64 + 1);
            }
            return Ok(());
        }
        Ok(())
    }

    /// The chain breaks: which record is to blame?
    fn broken(&self, found: &mut Findings, name: &str, sequence: u64, line: u64, problem: &'static str) {
        if problem == "was changed" && sequence <= self.agreed {
            // The record before is what was signed, so it is this one that does not belong there.
            return found.record(name, Some(line + 1), sequence + 1, "does not follow from the record before it");
        }
        if line == 0 {
            return found.record(&self.segment, Some(self.lines), sequence, problem);
        }
        found.record(name, Some(line), sequence, problem);
    }

    /// A beginning that is missing was removed only if a record says so that is signed itself: anybody could chain
    /// one to the end.
    fn judge_beginning(&self, signed: u64, found: &mut Findings) {
        if self.first == 1 || self.records == 0 || self.explained.is_some_and(|record| record <= signed) {
            return;
        }
        let name = self.files.first().map_or("", |(_, name)| name);
        let problem = match self.explained {
            None => "is missing, with all before it, and no record says that it was removed".to_owned(),
            Some(record) => {
                format!("is missing, with all before it, and record {record}, which says so, is not signed")
            }
        };
        found.record(name, None, self.first - 1, &problem);
    }

    /// What the tree says that the chain does not.
    fn judge_tree(&self, found: &mut Findings) {
        if self.is_blind {
            return;
        }
        let name = |record: u64| {
            let file = self.files.iter().rev().find(|(first, _)| *first <= record);
            file.map_or_else(|| "tile".to_owned(), |(_, name)| name.clone())
        };
        match (self.differs, self.unlike) {
            (Some(size), Some(record)) if record <= size && record > self.agreed => {
                let first = self.files.iter().rev().map(|(first, _)| *first).find(|first| *first <= record);
                let line = first.map(|first| record - first + 1);
                found.record(&name(record), line, record, "is not the one that was signed");
            }
            (Some(size), _) => {
                let first = self.agreed + 1;
                let problem = format!("or one after it, up to {size}, is not the one that was signed");
                found.record(&name(first), None, first, &problem);
            }
            (None, Some(record)) => {
                let tile = tiles::path(0, (record - 1) / 256).display().to_string();
                found.file(&tile, &format!("is not what the records say, from record {record} on"));
            }
            (None, None) => {}
        }
    }
}
