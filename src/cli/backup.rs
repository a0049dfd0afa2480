//! `state`: copies everything that a gateway must not lose, also while it serves, and puts a copy in its place.
//!
//! Decides the order: what says how long the record is before the record, the record before the store, so that a copy
//! never has a store that forgot what its record tells. Invariant: a copy is readable by us alone, and counts only
//! with the note that is written last.

use std::fs::{DirBuilder, File};
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use jiff::Timestamp;
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};

use super::Ending;
use super::offline::{self, Work};
use super::output::{GOOD, Output, WARNING, trouble};
use super::state::State;
use crate::config::replace::replace;
use crate::limit;
use crate::store::state::is_elsewhere;
use crate::store::{StateDirectory, look};

const EXAMPLES: &str = "\
Examples:
  bailiwick state backup /backup/bailiwick-monday    also while the gateway serves
  bailiwick state restore /backup/bailiwick-monday   where no gateway runs and nothing is yet
  bailiwick state restore /backup/bailiwick-monday --force   moves what is there aside

A backup has the keys: keep it as safe as the state directory itself.";

/// The note that makes a copy a backup; written last.
const NOTE: &str = "backup.json";
/// What belongs to the running process, and what is copied by itself.
const NOT_COPIED: [&str; 7] =
    ["lock", "control.sock", "store.sqlite", "store.sqlite-wal", "store.sqlite-shm", "store.sqlite-journal", NOTE];

/// Back up and restore the state directory: record, revocations and keys
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StateArguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Copy the state directory into a new one, also while the gateway serves
    Backup {
        /// The directory to make
        directory: PathBuf,
    },
    /// Put a backup in the place of the state directory
    Restore {
        /// The directory that `backup` made
        directory: PathBuf,
        /// Where there is something already, move it aside
        #[arg(long)]
        force: bool,
    },
}

/// What a backup says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Note {
    /// The program that made it.
    version: String,
    /// When it was complete.
    at: Timestamp,
    /// The store's epoch.
    epoch: u64,
    /// Files, the store among them.
    files: usize,
}

#[derive(Serialize)]
struct Restored {
    state: PathBuf,
    #[serde(flatten)]
    note: Note,
    #[serde(skip_serializing_if = "Option::is_none")]
    aside: Option<PathBuf>,
    /// The epoch of what was moved aside, where that is later: revocations that the backup does not know.
    #[serde(skip_serializing_if = "Option::is_none")]
    later_epoch: Option<u64>,
}

/// Backs up or restores.
pub async fn run(arguments: &StateArguments, output: Output) -> Ending {
    let done = async {
        let state = arguments.state.directory()?;
        match &arguments.what {
            What::Backup { directory } => {
                let note = backup(&state, directory).await?;
                let mut text = format!(
                    "{GOOD}backed up{GOOD:#} {} files into {}, at epoch {}\n",
                    note.files,
                    directory.display(),
                    note.epoch
                );
                if is_elsewhere(directory) {
                    text = format!(
                        "{GOOD}backed up{GOOD:#} {} files into {}; {WARNING}the store is on PostgreSQL and not among \
                         them{WARNING:#}\n",
                        note.files,
                        directory.display()
                    );
                }
                output.result(&note, text);
            }
            What::Restore { directory, force } => {
                let restored = restore(&state, directory, *force).await?;
                output.result(&restored, told(&restored));
            }
        }
        Ok::<_, String>(())
    };
    match done.await {
        Ok(()) => Ending::Done,
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

fn told(restored: &Restored) -> String {
    let Note { at, epoch, files, .. } = &restored.note;
    let mut text =
        format!("{GOOD}restored{GOOD:#} {files} files of {at} into {}, at epoch {epoch}\n", restored.state.display());
    if let Some(aside) = &restored.aside {
        text.push_str(&format!("what was there is in {}\n", aside.display()));
        if let Some(later) = restored.later_epoch {
            text.push_str(&format!(
                "{WARNING}it was at epoch {later}: revoke again what was revoked since, before a gateway starts; \
                 `bailiwick logs --state {}` shows it{WARNING:#}\n",
                aside.display()
            ));
        }
    }
    text
}

async fn backup(state: &Path, to: &Path) -> Result<Note, String> {
    let found = ours(state)?;
    match std::fs::read_dir(to).map(|mut entries| entries.next().is_some()) {
        Ok(true) => return Err(format!("{} is not empty: name a directory that is not there yet", to.display())),
        _ => make(to)?,
    }
    ours(to)?;
    if std::fs::metadata(to).is_ok_and(|to| to.ino() == found) {
        return Err("a backup into the state directory itself is none".to_owned());
    }
    let mut files = 0;
    // What says how long the record is (checkpoints, cursors) before the record: it only grows meanwhile.
    for segments in [false, true] {
        let mut wanted = |path: &Path| is_segment(path) == segments && !is_unfinished(path);
        copy_tree(state, to, limit::BACKUP_DEPTH_MAX, &mut wanted, &mut files)?;
    }
    let problem = |error: crate::store::StoreError| error.to_string();
    // A store that replicas have in common is not this directory's to copy; whoever backs it up is told.
    let elsewhere = is_elsewhere(state);
    let epoch = if elsewhere {
        0
    } else {
        look::copy(state, &to.join("store.sqlite")).await.map_err(problem)?;
        look::look(to).await.map_err(problem)?.epoch.0
    };
    let note = Note {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        at: Timestamp::now(),
        epoch,
        files: files + usize::from(!elsewhere),
    };
    let text = serde_json::to_string(&note).map_err(|error| error.to_string())?;
    replace(&to.join(NOTE), text.as_bytes(), 0o600).map_err(|error| format!("{}: {error}", to.display()))?;
    Ok(note)
}

async fn restore(state: &Path, from: &Path, force: bool) -> Result<Restored, String> {
    ours(from)?;
    let text = std::fs::read_to_string(from.join(NOTE))
        .map_err(|error| format!("{} is no complete backup: {NOTE}: {error}", from.display()))?;
    let note: Note = serde_json::from_str(&text).map_err(|error| format!("{NOTE}: {error}"))?;
    let held = StateDirectory::open(state).map_err(|error| error.to_string())?;
    let used = std::fs::read_dir(state)
        .map_err(|error| format!("{}: {error}", state.display()))?
        .flatten()
        .any(|entry| entry.file_name() != "lock");
    if used && !force {
        return Err(format!("{} has a state already: --force moves it aside", state.display()));
    }
    let later = look::look(state).await.ok().map(|looked| looked.epoch.0).filter(|epoch| used && *epoch > note.epoch);
    // Beside it and then into its place: a restore that breaks off leaves what was there.
    let fresh = beside(state, "restoring")?;
    make(&fresh)?;
    let mut files = 0;
    copy_tree(from, &fresh, limit::BACKUP_DEPTH_MAX, &mut |_| true, &mut files)?;
    if !is_elsewhere(from) {
        look::copy(from, &fresh.join("store.sqlite")).await.map_err(|error| error.to_string())?;
        files += 1;
    }
    if files != note.files {
        let _ = std::fs::remove_dir_all(&fresh);
        return Err(format!("{} has {} files, and {NOTE} says {}", from.display(), files, note.files));
    }
    // In what comes into its place, before it does.
    let about = format!("{}: a backup of {}, at epoch {}", from.display(), note.at, note.epoch);
    let work = Work { operation: "state-restore", object: "bailiwick/state", about: &about };
    let (journal, _) = offline::journal(&fresh, offline::replica(&fresh).await?)?;
    work.tell(&journal, "done", if used { "what was there is moved aside" } else { "" }).await?;
    drop(journal);
    let moved = |error: io::Error| format!("{}: {error}", state.display());
    let aside = beside(state, "before-restore")?;
    std::fs::rename(state, &aside).map_err(moved)?;
    std::fs::rename(&fresh, state).map_err(moved)?;
    // Until here no gateway could start in the old one.
    drop(held);
    if !used {
        std::fs::remove_dir_all(&aside).map_err(moved)?;
    }
    Ok(Restored { state: state.to_owned(), note, aside: used.then_some(aside), later_epoch: later })
}

fn beside(state: &Path, what: &str) -> Result<PathBuf, String> {
    let absolute = std::path::absolute(state).map_err(|error| error.to_string())?;
    let name = absolute.file_name().ok_or("the state directory has no name")?.to_string_lossy();
    let at = Timestamp::now().strftime("%Y%m%dT%H%M%S");
    Ok(absolute.with_file_name(format!("{name}.{what}.{at}.{}", std::process::id())))
}

/// Its number, if it is a directory of our own user that nobody else can enter.
fn ours(directory: &Path) -> Result<u64, String> {
    let shown = directory.display();
    let metadata = std::fs::symlink_metadata(directory).map_err(|error| format!("{shown}: {error}"))?;
    let me = rustix::process::geteuid().as_raw();
    match (metadata.is_dir(), metadata.uid() == me, metadata.mode() & 0o077) {
        (true, true, 0) => Ok(metadata.ino()),
        (false, ..) => Err(format!("{shown} is not a directory")),
        // SQLite would leave files there that the gateway cannot open.
        (_, false, _) => Err(format!("{shown} is the user {}'s: run this as that user", metadata.uid())),
        _ => Err(format!("others may enter {shown}: run chmod 700 {shown}")),
    }
}

fn make(directory: &Path) -> Result<(), String> {
    let made = DirBuilder::new().mode(0o700).create(directory);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(format!("{}: {error}", directory.display())),
        _ => Ok(()),
    }
}

/// In either form: it may be compressed at any moment.
fn is_segment(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name.ends_with(".jsonl") || name.ends_with(".jsonl.zst")
}

/// A compressed form that is being made; the segment is still there.
fn is_unfinished(path: &Path) -> bool {
    path.file_name().unwrap_or_default().to_string_lossy().ends_with(".jsonl.new")
}

/// Copies the plain files of a directory that are wanted, each as long as it is now. Links, sockets and hidden
/// files are not state.
fn copy_tree(
    from: &Path,
    to: &Path,
    depth: usize,
    wanted: &mut dyn FnMut(&Path) -> bool,
    files: &mut usize,
) -> Result<(), String> {
    let problem = |path: &Path| {
        let shown = path.display().to_string();
        move |error: io::Error| format!("{shown}: {error}")
    };
    if depth == 0 {
        return Err(format!("{} is deeper than a state directory ever is", from.display()));
    }
    let mut entries: Vec<_> =
        std::fs::read_dir(from).and_then(Iterator::collect::<io::Result<_>>).map_err(problem(from))?;
    entries.sort_by_key(std::fs::DirEntry::file_name);
    let names: Vec<_> = entries.iter().map(std::fs::DirEntry::file_name).collect();
    for entry in entries {
        let (path, name) = (entry.path(), entry.file_name());
        let hidden = name.to_string_lossy().starts_with('.');
        if hidden || NOT_COPIED.iter().any(|own| name == *own) {
            continue;
        }
        let kind = entry.file_type().map_err(problem(&path))?;
        if kind.is_dir() {
            make(&to.join(&name))?;
            copy_tree(&path, &to.join(&name), depth - 1, wanted, files)?;
        } else if kind.is_file() && wanted(&path) {
            match copy_file(&path, &to.join(&name)) {
                Err(error)
                    if error.kind() == io::ErrorKind::NotFound
                        && path.extension().is_some_and(|end| end == "jsonl") =>
                {
                    // It was compressed meanwhile.
                    let (path, mut name) = (path.with_extension("jsonl.zst"), name);
                    name.push(".zst");
                    if names.contains(&name) {
                        continue;
                    }
                    copy_file(&path, &to.join(&name)).map_err(problem(&path))?;
                }
                copied => copied.map_err(problem(&path))?,
            }
            *files += 1;
        }
    }
    File::open(to).and_then(|directory| directory.sync_all()).map_err(problem(to))
}

fn copy_file(from: &Path, to: &Path) -> io::Result<()> {
    let source = File::options().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(from)?;
    let length = source.metadata()?.len();
    let mut copy = File::options().write(true).create_new(true).mode(0o600).open(to)?;
    io::copy(&mut source.take(length), &mut copy)?;
    copy.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SEGMENT: &str = "00000000000000000001.jsonl";

    /// What of a state with one segment is copied when that is compressed as soon as a pass looks at a file.
    fn copied(pass: bool, name: &str) -> Vec<String> {
        let place = tempfile::tempdir().unwrap();
        let (from, to) = (place.path().join("from"), place.path().join("to"));
        make(&from).unwrap();
        make(&to).unwrap();
        for name in ["000.checkpoint", SEGMENT, "00000000000000000001.jsonl.new"] {
            std::fs::write(from.join(name), "x").unwrap();
        }
        let mut files = 0;
        for segments in [false, true] {
            let mut wanted = |path: &Path| {
                if segments == pass && path.ends_with(name) {
                    let _made = std::fs::rename(from.join(SEGMENT), from.join(format!("{SEGMENT}.zst")));
                    let _made = std::fs::remove_file(from.join(format!("{SEGMENT}.new")));
                }
                is_segment(path) == segments && !is_unfinished(path)
            };
            copy_tree(&from, &to, 1, &mut wanted, &mut files).unwrap();
        }
        let mut all: Vec<String> =
            std::fs::read_dir(&to).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        all.sort();
        assert_eq!(files, all.len());
        all
    }

    #[test]
    fn a_segment_that_is_compressed_meanwhile_is_copied_in_one_form_or_the_other() {
        let compressed = format!("{SEGMENT}.zst");
        assert_eq!(copied(false, SEGMENT), ["000.checkpoint", &compressed], "between the passes");
        assert_eq!(copied(true, SEGMENT), ["000.checkpoint", &compressed], "while it is copied");
        assert_eq!(copied(true, "none"), ["000.checkpoint", SEGMENT]);
    }
}
