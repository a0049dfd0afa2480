//! Decides what happens when room runs out: who is told, and who may still write.
//!
//! A file of the journal's own takes up room while there is some. When the disk is full it is given back, and what it
//! frees is for the last words only (ends of calls, revocations, the stop, and what went wrong); calls stay refused
//! until there is room again. Invariant: a disk that is full is on the record by the time that calls are taken.

use std::fs::File;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use super::fields::RepairFacts;
use super::segment::no_follow;
use super::writer::Shared;
use crate::config::RecordConfig;

/// The file that takes up room, beside the journal's directory.
const RESERVE: &str = "reserve";
/// Somebody is told when so much of a hundred is in use,
const FULL_PERCENT: u64 = 80;
/// and again only when it had been less than this in between.
const RELIEVED_PERCENT: u64 = 75;

/// The room that there is.
#[derive(Debug)]
pub(super) struct Room {
    directory: PathBuf,
    reserve_bytes: u64,
    keep_bytes: Option<u64>,
    /// The reserve was given back: there is room for the last words only.
    spent: bool,
    disk_told: bool,
    kept_told: bool,
    /// Less is free than is held back for the last words.
    at_stake: bool,
}

impl Room {
    pub(super) fn new(directory: &Path, config: &RecordConfig) -> Self {
        Self {
            directory: directory.to_owned(),
            reserve_bytes: config.reserve_bytes,
            keep_bytes: config.keep_bytes,
            spent: false,
            disk_told: false,
            kept_told: false,
            at_stake: false,
        }
    }

    /// Looks at the disk; answers what should be put on the record.
    pub(super) fn look(&mut self, shared: &Shared) -> Option<RepairFacts> {
        let (free, percent) = match self.disk() {
            Ok(found) => found,
            Err(error) => {
                tracing::debug!(%error, "the journal's disk cannot be asked for its room");
                return None;
            }
        };
        shared.metrics.journal_disk_percent.set(i64::try_from(percent).unwrap_or(100));
        self.at_stake = free < self.reserve_bytes;
        if told(&mut self.disk_told, percent) {
            tracing::warn!(
                percent,
                free_bytes = free,
                "the journal's disk fills up; calls are refused when it is full"
            );
        }
        let held = self.held();
        if shared.is_broken() && free < self.reserve_bytes && held > 0 {
            // First nobody may use it for calls, then it is there.
            shared.spare(true);
            self.spent = true;
            match std::fs::remove_file(self.path()) {
                Ok(()) => tracing::error!("the journal's disk is full: the reserve is given back, calls are refused"),
                Err(error) => {
                    tracing::error!(%error, "the journal's disk is full, and the reserve cannot be given back");
                }
            }
            return None;
        }
        if shared.is_broken() || (held == self.reserve_bytes && !self.spent) {
            return None;
        }
        // Once it was given back, twice as much has to be free. What is held goes before it is held anew.
        let enough = if self.spent { free / 2 } else { free.saturating_add(held) } > self.reserve_bytes;
        let taken = if enough { self.take() } else { Err(io::Error::from(io::ErrorKind::StorageFull)) };
        match taken {
            Ok(()) if self.spent => {
                self.spent = false;
                shared.spare(false);
                tracing::warn!("there is room for the journal again; calls are taken");
                Some(RepairFacts {
                    problem: "disk_full".to_owned(),
                    detail: "calls were refused until there was room".to_owned(),
                    dropped: shared.take_dropped(),
                    ..RepairFacts::default()
                })
            }
            Ok(()) => None,
            // What is left is for the last words, also where it was full before the last stop.
            Err(error) => {
                if !self.spent {
                    tracing::error!(%error, "no room can be held back for the journal: calls are refused until it can");
                }
                shared.spare(true);
                self.spent = true;
                None
            }
        }
    }

    /// Whether the next records may take the room that is held back for the last words.
    pub(super) const fn is_at_stake(&self) -> bool {
        self.at_stake || self.spent
    }

    /// Looks at how much is kept of what may be kept.
    pub(super) fn kept(&mut self, shared: &Shared, bytes: u64) {
        shared.metrics.journal_bytes.set(bytes);
        let Some(keep) = self.keep_bytes else { return };
        let percent = bytes.saturating_mul(100) / keep.max(1);
        shared.metrics.journal_kept_percent.set(i64::try_from(percent).unwrap_or(i64::MAX));
        if told(&mut self.kept_told, percent) {
            tracing::warn!(
                percent,
                bytes,
                keep_bytes = keep,
                "the journal nears `keep_bytes`; the oldest segments are removed then"
            );
        }
    }

    fn path(&self) -> PathBuf {
        self.directory.with_file_name(RESERVE)
    }

    /// Bytes that are held in reserve.
    fn held(&self) -> u64 {
        std::fs::symlink_metadata(self.path()).map_or(0, |metadata| metadata.len())
    }

    /// Bytes that are free for us, and how much of the disk is in use.
    fn disk(&self) -> io::Result<(u64, u64)> {
        let found = rustix::fs::statvfs(&self.directory)?;
        let used = found.f_blocks.saturating_sub(found.f_bfree);
        // What is set aside for root counts as used, as `df` does it.
        let whole = (used + found.f_bavail).max(1);
        Ok((found.f_bavail.saturating_mul(found.f_frsize), (used * 100).div_ceil(whole)))
    }

    fn take(&self) -> io::Result<()> {
        let taken = self.fill();
        if taken.is_err() {
            // Half of it would only take up what is left.
            let _ = std::fs::remove_file(self.path());
        }
        taken
    }

    fn fill(&self) -> io::Result<()> {
        let mut file = File::options()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .custom_flags(no_follow())
            .open(self.path())?;
        let whole = rustix::fs::fallocate(&file, rustix::fs::FallocateFlags::empty(), 0, self.reserve_bytes);
        if whole.is_err() {
            // Some file systems cannot; there it has to be written.
            let zeros = vec![0; 64 * 1024];
            let mut left = self.reserve_bytes;
            while left > 0 {
                let part = usize::try_from(left).unwrap_or(usize::MAX).min(zeros.len());
                file.write_all(zeros.get(..part).unwrap_or_default())?;
                left -= part as u64;
            }
        }
        file.sync_all()
    }
}

/// Whether somebody is to be told now; remembers that they were.
const fn told(before: &mut bool, percent: u64) -> bool {
    if percent >= FULL_PERCENT && !*before {
        *before = true;
        return true;
    }
    if percent < RELIEVED_PERCENT {
        *before = false;
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn somebody_is_told_once_until_it_was_better_in_between() {
        let mut before = false;
        let told: Vec<bool> =
            [79, 80, 99, 76, 81, 74, 80].into_iter().map(|percent| told(&mut before, percent)).collect();
        assert_eq!(told, [false, true, false, false, false, false, true]);
    }

    #[test]
    fn a_disk_that_is_full_before_anything_was_held_back_takes_no_calls_until_there_is_room() {
        let place = tempfile::tempdir().unwrap();
        let directory = place.path().join("journal");
        std::fs::create_dir(&directory).unwrap();
        let config = RecordConfig { reserve_bytes: u64::MAX / 4, ..RecordConfig::fixture() };
        let mut room = Room::new(&directory, &config);
        let shared = Shared::new(crate::record::Metrics::new(), None);
        assert!(room.look(&shared).is_none());
        assert!(!shared.is_well(), "what is left is for the last words");
        assert_eq!(room.held(), 0);
        assert!(shared.push_urgent(b"{}", crate::record::appender::Mark::Plain).is_some(), "such as a revocation");
        room.reserve_bytes = 200_000;
        assert_eq!(room.look(&shared).map(|repair| repair.problem).as_deref(), Some("disk_full"));
        assert!(shared.is_well());
        assert_eq!((room.held(), room.look(&shared).is_none()), (200_000, true));
    }

    #[test]
    fn the_reserve_takes_up_its_room_and_is_there_once() {
        let place = tempfile::tempdir().unwrap();
        let config = RecordConfig { reserve_bytes: 200_000, ..RecordConfig::fixture() };
        let directory = place.path().join("journal");
        std::fs::create_dir(&directory).unwrap();
        let mut room = Room::new(&directory, &config);
        let shared = Shared::new(crate::record::Metrics::new(), None);
        assert_eq!(room.look(&shared).map(|repair| repair.problem), None);
        assert_eq!(room.held(), 200_000);
        use std::os::unix::fs::MetadataExt as _;
        assert!(room.path().metadata().unwrap().blocks() * 512 >= 200_000, "it really takes up room");
    }
}
