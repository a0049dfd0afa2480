//! That keys were exchanged while a gateway ran: notes in the state directory, which that gateway puts on its record.
//!
//! Decides where they wait. Refuses to know keys and records. Invariant: a note is there until whoever took it says that it is on
//! the record.

use std::fs::OpenOptions;
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use crate::limit;

/// Who exchanged a key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Rotation {
    /// Who, as the record names them.
    pub actor: String,
    /// What the key is for.
    pub purpose: String,
    /// What came of it; never any of a key.
    pub detail: String,
}

/// Leaves a note for the gateway that runs. Blocking.
///
/// # Errors
/// When it cannot be written.
pub fn leave(state: &Path, note: &Rotation) -> io::Result<()> {
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(no_follow());
    let mut file = options.open(waiting(state))?;
    file.write_all(format!("{}\n", serde_json::to_string(note)?).as_bytes())?;
    file.sync_all()
}

/// Takes the notes that wait; they are there until [`forget`]. Blocking.
///
/// # Errors
/// When they cannot be read.
pub fn take(state: &Path) -> io::Result<Vec<Rotation>> {
    if !taken(state).exists() {
        match std::fs::rename(waiting(state), taken(state)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            moved => moved?,
        }
    }
    let mut text = String::new();
    let file = OpenOptions::new().read(true).custom_flags(no_follow()).open(taken(state))?;
    file.take(limit::SECRET_BYTES_MAX).read_to_string(&mut text)?;
    Ok(text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect())
}

/// What was taken is on the record. Blocking.
///
/// # Errors
/// When they cannot be removed: then they are taken once more.
pub fn forget(state: &Path) -> io::Result<()> {
    std::fs::remove_file(taken(state))
}

fn waiting(state: &Path) -> PathBuf {
    state.join("keys/rotated")
}

fn taken(state: &Path) -> PathBuf {
    state.join("keys/rotated.taken")
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_is_there_until_it_is_on_the_record() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        let note = |purpose: &str| Rotation {
            actor: "host:0".to_owned(),
            purpose: purpose.to_owned(),
            detail: "one more".to_owned(),
        };
        assert_eq!(take(state.path()).unwrap(), []);
        leave(state.path(), &note("vault")).unwrap();
        leave(state.path(), &note("seal")).unwrap();
        assert_eq!(take(state.path()).unwrap(), [note("vault"), note("seal")]);
        // Another one comes while those are being told; and they could not be.
        leave(state.path(), &note("journal")).unwrap();
        assert_eq!(take(state.path()).unwrap(), [note("vault"), note("seal")]);
        forget(state.path()).unwrap();
        assert_eq!(take(state.path()).unwrap(), [note("journal")]);
        forget(state.path()).unwrap();
        assert_eq!(take(state.path()).unwrap(), []);
    }
}
