//! Which file the process of a server runs, by its digest.
//!
//! Decides when a file has to be digested: when a process is started and the file is not the one that was seen last.
//! Refuses to know what was recorded before. Invariant: whoever is told of a file has not been told of the same bytes
//! for that server since this gateway started.

use std::collections::HashMap;
use std::fs::{File, Metadata};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};

use tokio::sync::mpsc;

use crate::ids::{Digest, ServerId};
use crate::limit;

/// What a server runs from now on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Executable {
    /// The server.
    pub server: ServerId,
    /// The file, without links.
    pub path: PathBuf,
    /// SHA-256 of its bytes.
    pub digest: Digest,
}

/// What tells two states of a file apart without reading it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamp {
    path: PathBuf,
    device: u64,
    inode: u64,
    bytes: u64,
    /// Of the content and of everything about it; the second cannot be set back.
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(path: &Path, metadata: &Metadata) -> Self {
        Self {
            path: path.to_owned(),
            device: metadata.dev(),
            inode: metadata.ino(),
            bytes: metadata.len(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }
}

/// What was seen of each server, and who is told of it.
#[derive(Debug)]
pub(super) struct Executables {
    seen: Mutex<HashMap<ServerId, (Stamp, Digest)>>,
    tell: mpsc::Sender<Executable>,
    told: Mutex<Option<mpsc::Receiver<Executable>>>,
}

impl Executables {
    pub(super) fn new() -> Self {
        let (tell, told) = mpsc::channel(limit::EXECUTABLES_QUEUED_MAX);
        Self { seen: Mutex::default(), tell, told: Mutex::new(Some(told)) }
    }

    /// Whoever asks first is told.
    pub(super) fn listen(&self) -> Option<mpsc::Receiver<Executable>> {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Looks at the file that is about to run for a server. A file that cannot be read runs all the same, because
    /// that is for its permissions to say; the log names it.
    pub(super) async fn look(&self, server: &ServerId, file: &Path) {
        let known = self.seen.lock().unwrap_or_else(PoisonError::into_inner).get(server).cloned();
        let file = file.to_owned();
        let looked = tokio::task::spawn_blocking(move || look(&file, known)).await;
        let (stamp, digest, is_new) = match looked {
            Ok(Ok(found)) => found,
            Ok(Err(problem)) => {
                tracing::warn!(%server, problem, "the digest of its executable is not recorded");
                return;
            }
            Err(_) => return,
        };
        let executable = Executable { server: server.clone(), path: stamp.path.clone(), digest };
        // What nobody could be told of is told at the next start.
        if !is_new || self.tell.try_send(executable).is_ok() {
            let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
            seen.insert(server.clone(), (stamp, digest));
        }
    }
}

/// The file's state, its digest, and whether somebody has to be told of it.
fn look(file: &Path, known: Option<(Stamp, Digest)>) -> Result<(Stamp, Digest, bool), String> {
    let broken = |error: std::io::Error| format!("{}: {error}", file.display());
    let path = file.canonicalize().map_err(broken)?;
    let opened = File::open(&path).map_err(broken)?;
    let metadata = opened.metadata().map_err(broken)?;
    let stamp = Stamp::of(&path, &metadata);
    if let Some((_, digest)) = known.as_ref().filter(|(seen, _)| *seen == stamp) {
        return Ok((stamp, *digest, false));
    }
    if metadata.len() > limit::EXECUTABLE_BYTES_MAX {
        return Err(format!("{} is larger than {} bytes", path.display(), limit::EXECUTABLE_BYTES_MAX));
    }
    let digest = Digest::sha256_read(opened).map_err(broken)?;
    let is_new = known.is_none_or(|(seen, before)| before != digest || seen.path != path);
    Ok((stamp, digest, is_new))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_told_of_once_and_again_when_its_bytes_are_others() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().canonicalize().unwrap().join("server");
        std::fs::write(&file, "one").unwrap();
        let executables = Executables::new();
        let mut told = executables.listen().unwrap();
        assert!(executables.listen().is_none());
        let server = ServerId::new("notes").unwrap();
        executables.look(&server, &file).await;
        executables.look(&server, &file).await;
        let first = told.try_recv().unwrap();
        assert_eq!((&first.path, first.digest), (&file, Digest::sha256(b"one")));
        assert!(told.try_recv().is_err(), "nothing has changed");
        // The same bytes in another file are the same program; others are not.
        for (bytes, is_told) in [("one", false), ("two", true)] {
            std::fs::remove_file(&file).unwrap();
            std::fs::write(&file, bytes).unwrap();
            executables.look(&server, &file).await;
            assert_eq!(told.try_recv().is_ok(), is_told, "{bytes}");
        }
    }

    #[tokio::test]
    async fn what_nobody_takes_is_told_again_later() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("server");
        std::fs::write(&file, "one").unwrap();
        let executables = Executables::new();
        let server = |number: usize| ServerId::new(&format!("notes-{number}")).unwrap();
        for number in 0..=limit::EXECUTABLES_QUEUED_MAX {
            executables.look(&server(number), &file).await;
        }
        let mut told = executables.listen().unwrap();
        while told.try_recv().is_ok() {}
        executables.look(&server(limit::EXECUTABLES_QUEUED_MAX), &file).await;
        assert!(told.try_recv().is_ok());
    }

    #[test]
    fn a_file_beyond_the_bound_is_not_read() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("huge");
        File::create(&file).unwrap().set_len(limit::EXECUTABLE_BYTES_MAX + 1).unwrap();
        assert!(look(&file, None).unwrap_err().contains("larger than"));
    }
}
