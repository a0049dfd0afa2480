//! Decides whether a directory may hold our state, and that one process at a time does.
//!
//! Invariant: a [`StateDirectory`] is a real directory of our own user that nobody else can enter, and
//! no other gateway has one for the same path while it lives.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use crate::config::replace::replace;
use crate::ids::ReplicaId;

const LOCK: &str = "lock";
/// Whose directory it is, where no store in it says so.
const REPLICA: &str = "replica";

/// The state directory, held exclusively.
#[derive(Debug)]
pub struct StateDirectory {
    path: PathBuf,
    /// The kernel releases the lock with the file, however we end.
    _lock: File,
}

/// Why a directory cannot hold our state.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// Another process holds it: the gateway runs.
    #[error(
        "the state directory {path} is in use by process {process}; stop that gateway, or give this one another `state`"
    )]
    InUse {
        /// The directory.
        path: String,
        /// What the other process wrote into the lock.
        process: String,
    },
    /// Others could read or change it, or it is not what it seems.
    #[error("the state directory {path} is refused: {problem}")]
    Refused {
        /// The directory.
        path: String,
        /// What is wrong, and what to do.
        problem: String,
    },
}

impl StateDirectory {
    /// Makes the directory if it is not there, checks it, and locks it.
    ///
    /// # Errors
    /// [`StateError`].
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let refused = |problem: String| StateError::Refused { path: path.display().to_string(), problem };
        prepare(path).map_err(refused)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .custom_flags(OFlags::NOFOLLOW.bits().cast_signed())
            .open(path.join(LOCK))
            .map_err(|problem| refused(format!("its lock cannot be opened: {problem}")))?;
        match flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(rustix::io::Errno::WOULDBLOCK) => {
                let mut process = String::new();
                let _ = lock.take(20).read_to_string(&mut process);
                let process = process.trim().to_owned();
                return Err(StateError::InUse { path: path.display().to_string(), process });
            }
            Err(problem) => return Err(refused(format!("it cannot be locked: {problem}"))),
        }
        let note = |lock: &mut File| -> io::Result<()> {
            lock.set_len(0)?;
            writeln!(lock, "{}", std::process::id())
        };
        note(&mut lock).map_err(|problem| refused(format!("its lock cannot be written: {problem}")))?;
        Ok(Self { path: path.to_owned(), _lock: lock })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// The name of a state directory whose store is elsewhere: made once, and taken over from a store that it has had here.
///
/// # Errors
/// A lower-case sentence that says why there is none.
pub(super) async fn replica_of(state: &Path) -> Result<ReplicaId, String> {
    let path = state.join(REPLICA);
    let problem = |problem: &dyn std::fmt::Display| format!("{}: {problem}", path.display());
    match std::fs::read_to_string(&path) {
        Ok(text) => return text.trim().parse().map_err(|error| problem(&error)),
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(problem(&error)),
        Err(_) => {}
    }
    // Its journal names it already.
    let replica = match super::look::look(state).await {
        Ok(looked) => looked.replica.parse().map_err(|error| problem(&error))?,
        Err(_) => ReplicaId::new(),
    };
    replace(&path, format!("{replica}\n").as_bytes(), 0o600).map_err(|error| problem(&error))?;
    Ok(replica)
}

/// Whether a state directory belongs to a gateway whose store is elsewhere.
#[must_use]
pub fn is_elsewhere(state: &Path) -> bool {
    state.join(REPLICA).exists()
}

fn prepare(path: &Path) -> Result<(), String> {
    DirBuilder::new().mode(0o700).recursive(true).create(path).map_err(|problem| problem.to_string())?;
    let metadata = std::fs::symlink_metadata(path).map_err(|problem| problem.to_string())?;
    if !metadata.is_dir() {
        return Err("it is not a directory of its own but a link or a file; name the real directory".to_owned());
    }
    let ours = rustix::process::geteuid().as_raw();
    if metadata.uid() != ours {
        return Err(format!("it belongs to user {}, the gateway runs as {ours}; chown it", metadata.uid()));
    }
    if metadata.mode() & 0o077 == 0 {
        return Ok(());
    }
    // A fresh `mkdir` is tightened; a directory in use may be somebody's home.
    let empty = std::fs::read_dir(path).map_err(|problem| problem.to_string())?.next().is_none();
    if !empty {
        return Err(format!("others may enter it; run chmod 700 {}", path.display()));
    }
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700)).map_err(|problem| problem.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_gateways_never_share_a_state_directory() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("state");
        let first = StateDirectory::open(&path).unwrap();
        let error = StateDirectory::open(&path).unwrap_err();
        let StateError::InUse { process, .. } = &error else { panic!("{error}") };
        assert_eq!(*process, std::process::id().to_string());
        drop(first);
        StateDirectory::open(&path).unwrap();
    }

    #[test]
    fn a_link_and_an_open_directory_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let real = place.path().join("real");
        std::fs::create_dir(&real).unwrap();
        let link = place.path().join("link");
        std::os::unix::fs::symlink(&real, &link).unwrap();
        assert!(matches!(StateDirectory::open(&link), Err(StateError::Refused { .. })));

        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o755)).unwrap();
        drop(StateDirectory::open(&real).unwrap());
        assert_eq!(std::fs::metadata(&real).unwrap().mode() & 0o777, 0o700, "an empty one is tightened");
        std::fs::set_permissions(&real, std::fs::Permissions::from_mode(0o750)).unwrap();
        let error = StateDirectory::open(&real).unwrap_err();
        assert!(error.to_string().contains("chmod 700"), "{error}");
    }
}
