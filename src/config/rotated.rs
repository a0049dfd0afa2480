//! That keys were exchanged while a gateway ran: notes in the state directory, which that gateway puts on its record.
//!
//! Decides where they wait. Refuses to know keys and records. Invariant: a note is there until whoever took it says that it is on
//! the record; whoever leaves, takes or forgets some does it while nobody else does, and what was not read is not forgotten.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};
use serde::{Deserialize, Serialize};

use super::replace::replace;
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

/// Notes that were taken, and are there until they are forgotten.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Taken {
    /// What they say, the oldest first.
    pub notes: Vec<Rotation>,
    /// How much of what waits that is.
    bytes: usize,
}

impl Taken {
    /// Whether nothing waits.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.bytes == 0
    }
}

/// Leaves a note for the gateway that runs. Blocking.
///
/// # Errors
/// When it cannot be written.
pub fn leave(state: &Path, note: &Rotation) -> io::Result<()> {
    let line = format!("{}\n", serde_json::to_string(note)?);
    let _locked = locked(state)?;
    let mut options = OpenOptions::new();
    options.create(true).append(true).mode(0o600).custom_flags(no_follow());
    let mut file = options.open(waiting(state))?;
    let before = file.metadata()?.len();
    let written = file.write_all(line.as_bytes()).and_then(|()| file.sync_all());
    // Half a line would spoil the next one as well.
    written.inspect_err(|_| drop(file.set_len(before)))
}

/// Takes the notes that wait, as many as are read at once; they are there until [`forget`]. Blocking.
///
/// # Errors
/// When they cannot be read.
pub fn take(state: &Path) -> io::Result<Taken> {
    // Seldom there, and looked for often.
    if !waiting(state).exists() {
        return Ok(Taken::default());
    }
    let _locked = locked(state)?;
    let file = match OpenOptions::new().read(true).custom_flags(no_follow()).open(waiting(state)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Taken::default()),
        opened => opened?,
    };
    let mut text = Vec::new();
    file.take(limit::SECRET_BYTES_MAX).read_to_end(&mut text)?;
    // The last one may go on.
    let whole = text.iter().rposition(|byte| *byte == b'\n').map_or(text.len(), |last| last.saturating_add(1));
    text.truncate(whole);
    let notes = text.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok());
    Ok(Taken { notes: notes.collect(), bytes: text.len() })
}

/// What was taken is on the record. Blocking.
///
/// # Errors
/// When it cannot be removed: then it is taken once more.
pub fn forget(state: &Path, taken: &Taken) -> io::Result<()> {
    let _locked = locked(state)?;
    let mut text = Vec::new();
    OpenOptions::new().read(true).custom_flags(no_follow()).open(waiting(state))?.read_to_end(&mut text)?;
    match text.get(taken.bytes..).filter(|rest| !rest.is_empty()) {
        Some(rest) => replace(&waiting(state), rest, 0o600),
        None => std::fs::remove_file(waiting(state)),
    }
}

/// Held while notes are looked at; the file itself comes and goes.
fn locked(state: &Path) -> io::Result<File> {
    let directory = File::open(state.join("keys"))?;
    flock(&directory, FlockOperation::LockExclusive)?;
    Ok(directory)
}

fn waiting(state: &Path) -> PathBuf {
    state.join("keys/rotated")
}

fn no_follow() -> i32 {
    OFlags::NOFOLLOW.bits().cast_signed()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn note(purpose: &str) -> Rotation {
        Rotation { actor: "host:0".to_owned(), purpose: purpose.to_owned(), detail: "one more".to_owned() }
    }

    fn state() -> tempfile::TempDir {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        state
    }

    #[test]
    fn a_note_is_there_until_it_is_on_the_record() {
        let state = state();
        let state = state.path();
        assert_eq!(take(state).unwrap().notes, []);
        leave(state, &note("vault")).unwrap();
        leave(state, &note("seal")).unwrap();
        assert_eq!(take(state).unwrap().notes, [note("vault"), note("seal")]);
        // They could not be told. And another one comes while they are.
        let taken = take(state).unwrap();
        assert_eq!(taken.notes, [note("vault"), note("seal")]);
        leave(state, &note("journal")).unwrap();
        forget(state, &taken).unwrap();
        let taken = take(state).unwrap();
        assert_eq!(taken.notes, [note("journal")]);
        forget(state, &taken).unwrap();
        assert_eq!(take(state).unwrap().notes, []);
    }

    #[test]
    fn more_notes_than_are_read_at_once_are_told_all_the_same() {
        let state = state();
        let all: Vec<Rotation> = (0..2_000).map(|number| note(&format!("a purpose with number {number}"))).collect();
        let text: String = all.iter().map(|note| format!("{}\n", serde_json::to_string(note).unwrap())).collect();
        assert!(text.len() as u64 > 2 * limit::SECRET_BYTES_MAX);
        std::fs::write(waiting(state.path()), text).unwrap();
        let mut told = Vec::new();
        loop {
            let taken = take(state.path()).unwrap();
            if taken.is_empty() {
                break;
            }
            forget(state.path(), &taken).unwrap();
            told.extend(taken.notes);
        }
        assert_eq!(told, all);
    }

    #[test]
    fn whoever_leaves_a_note_waits_for_whoever_takes_some() {
        let state = state();
        let (place, held) = (state.path().to_owned(), locked(state.path()).unwrap());
        let leaving = std::thread::spawn(move || leave(&place, &note("late")).unwrap());
        std::thread::sleep(std::time::Duration::from_millis(50));
        assert!(!leaving.is_finished());
        drop(held);
        leaving.join().unwrap();
        assert_eq!(take(state.path()).unwrap().notes, [note("late")]);
    }
}
