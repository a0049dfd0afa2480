//! The state directory: whether it is ours alone, who holds it, whether its record is whole and has room.
//!
//! Opens nothing for writing and takes no lock for longer than a look. Invariant: a gateway that runs, or is about to
//! start, notices nothing of it.

use std::fs::File;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, OFlags, flock};

use super::finding::Finding;
use super::running::Standing;
use crate::cli::check::counted;
use crate::control;
use crate::limit;
use crate::record::{Verdict, journal, verify_end};

/// A socket's path has no room for more.
const SOCKET_PATH_BYTES_MAX: usize = 107;
/// The journal's own alert.
const DISK_FULL_PERCENT: u64 = 80;

/// Looks; `reserve_bytes` is the room that the record holds back. Blocking.
pub fn findings(state: &Path, reserve_bytes: u64, standing: &Standing) -> Vec<Finding> {
    let metadata = match std::fs::symlink_metadata(state) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return vec![Finding::ok("directory", format!("{} is made by the first start", state.display()))];
        }
        Err(error) => {
            let fix = "run this as the gateway's user, or as root";
            return vec![Finding::bad("directory", format!("{}: {error}", state.display()), fix)];
        }
    };
    let mut findings = vec![directory(state, &metadata)];
    findings.extend(open_files(state));
    findings.push(lock(state, standing));
    let socket = control::socket(state);
    if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
        let found = format!("the path of {} is longer than {SOCKET_PATH_BYTES_MAX} bytes", socket.display());
        findings.push(Finding::bad("socket", found, "write a shorter `state` into [gateway]"));
    }
    findings.push(record(state, standing));
    findings.push(room(state, reserve_bytes));
    findings
}

fn directory(state: &Path, metadata: &std::fs::Metadata) -> Finding {
    let (name, shown) = ("directory", state.display());
    let ours = rustix::process::geteuid().as_raw();
    if !metadata.is_dir() {
        return Finding::bad(name, format!("{shown} is a link or a file"), "name the real directory in `state`");
    }
    if metadata.uid() != ours && ours != 0 {
        let found = format!("{shown} belongs to user {}, this is user {ours}", metadata.uid());
        return Finding::bad(name, found, "run this as the gateway's user");
    }
    if metadata.mode() & 0o077 != 0 {
        return Finding::bad(name, format!("others may enter {shown}"), format!("chmod 700 {shown}"));
    }
    Finding::ok(name, format!("{shown} is ours alone"))
}

/// Keys that others could read, and files that others could write, if they came so far.
fn open_files(state: &Path) -> Option<Finding> {
    let mut open: Vec<PathBuf> = Vec::new();
    let mut waiting = vec![state.to_owned()];
    let mut seen = 0;
    while let Some(directory) = waiting.pop() {
        let Ok(entries) = std::fs::read_dir(&directory) else { continue };
        for entry in entries.flatten().take(limit::DOCTOR_FILES_MAX) {
            seen += 1;
            let Ok(metadata) = entry.metadata() else { continue };
            // The directories of children are theirs.
            if metadata.is_dir() && entry.file_name() != "children" && seen < limit::DOCTOR_FILES_MAX {
                waiting.push(entry.path());
            } else if metadata.is_file() {
                let is_key = directory.ends_with("keys");
                if metadata.mode() & (if is_key { 0o077 } else { 0o022 }) != 0 {
                    open.push(entry.path());
                }
            }
        }
    }
    open.sort();
    let first = open.first()?;
    let files = counted(open.len(), "file");
    let found = format!("{files} could be read or written by others, such as {}", first.display());
    Some(Finding::warn("files", found, format!("chmod -R go= {}", state.display())))
}

fn lock(state: &Path, standing: &Standing) -> Finding {
    let name = "lock";
    let flags = OFlags::NOFOLLOW.bits().cast_signed();
    let Ok(file) = File::options().read(true).custom_flags(flags).open(state.join("lock")) else {
        return Finding::ok(name, "no gateway has been here yet");
    };
    // Shared, so that looking at the same moment from two places is no conflict, and given back at once.
    let held = matches!(flock(&file, FlockOperation::NonBlockingLockShared), Err(rustix::io::Errno::WOULDBLOCK));
    if !held {
        let _unlocked = flock(&file, FlockOperation::Unlock);
    }
    let process = std::io::read_to_string(std::io::Read::take(file, 20)).unwrap_or_default();
    let process = process.trim();
    match (held, standing) {
        (true, Standing::Runs(_)) => Finding::ok(name, format!("held by the gateway, process {process}")),
        (true, _) => Finding::bad(
            name,
            format!("process {process} holds it and does not answer on the control socket"),
            format!("look at it: ps -fp {process}; where it hangs: kill {process}"),
        ),
        (false, Standing::Runs(_)) => Finding::bad(
            name,
            "a gateway runs and does not hold it: the file was replaced",
            "restart the gateway, and keep other programs out of the state directory",
        ),
        (false, _) => Finding::ok(name, "free"),
    }
}

fn record(state: &Path, standing: &Standing) -> Finding {
    let name = "journal";
    if let Some(well) = standing.running().and_then(super::running::Running::journal_is_well) {
        return if well {
            Finding::ok(name, "the gateway writes it")
        } else {
            Finding::bad(name, "it cannot be written, so calls are refused", "make room on its disk; see its log")
        };
    }
    let directory = journal::directory(state);
    match verify_end(&directory) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Finding::ok(name, "nothing is recorded yet"),
        Err(error) => Finding::bad(name, error.to_string(), format!("ls -l {}", directory.display())),
        Ok(Verdict::Broken { segment, sequence, problem, .. }) => Finding::bad(
            name,
            format!("record {sequence} in {segment} {problem}"),
            "bailiwick audit verify; no gateway starts on it before somebody has looked",
        ),
        Ok(Verdict::Whole(walk)) => {
            let torn = if walk.torn_bytes > 0 { ", its torn end is repaired at the next start" } else { "" };
            Finding::ok(
                name,
                format!("its last segment is whole up to record {}{torn}; all of it: audit verify", walk.last_sequence),
            )
        }
    }
}

fn room(state: &Path, reserve_bytes: u64) -> Finding {
    let name = "room";
    let found = match rustix::fs::statvfs(state) {
        Ok(found) => found,
        Err(error) => return Finding::warn(name, format!("the disk cannot be asked: {error}"), "df -h"),
    };
    let used = found.f_blocks.saturating_sub(found.f_bfree);
    let whole = (used + found.f_bavail).max(1);
    let percent = (used * 100).div_ceil(whole);
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let shown = format!("{percent} % of the disk in use, {} MiB free", free / (1 << 20));
    if free < reserve_bytes {
        let found = format!("{shown}: less than `reserve_bytes`, calls are refused when it is full");
        Finding::bad(name, found, format!("make room: du -xh --max-depth=1 {}", state.display()))
    } else if percent >= DISK_FULL_PERCENT {
        Finding::warn(name, shown, "make room, or set keep_days or keep_bytes in [record]")
    } else {
        Finding::ok(name, shown)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::cli::doctor::finding::Mark;
    use crate::store::StateDirectory;

    fn found<'a>(findings: &'a [Finding], name: &str) -> &'a Finding {
        findings.iter().find(|finding| finding.name == name).unwrap()
    }

    #[test]
    fn looking_takes_no_lock_and_names_who_holds_it() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        assert_eq!(findings(&state, 0, &Standing::Not).len(), 1, "nothing is made by looking");
        assert!(!state.exists());
        let held = StateDirectory::open(&state).unwrap();
        let seen = findings(&state, 0, &Standing::Not);
        let lock = found(&seen, "lock");
        assert!(lock.mark == Mark::Bad && lock.found.contains(&std::process::id().to_string()), "{lock:?}");
        drop(held);
        assert_eq!(found(&findings(&state, 0, &Standing::Not), "lock").mark, Mark::Ok);
        StateDirectory::open(&state).unwrap();
    }

    #[test]
    fn what_others_may_read_is_named_with_what_to_type() {
        let place = tempfile::tempdir().unwrap();
        let state = place.path().join("state");
        drop(StateDirectory::open(&state).unwrap());
        std::fs::create_dir(state.join("keys")).unwrap();
        for name in ["keys/seal", "note"] {
            std::fs::write(state.join(name), "x").unwrap();
        }
        let open = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        open(&state.join("note"), 0o644);
        open(&state.join("keys/seal"), 0o600);
        assert!(
            !findings(&state, 0, &Standing::Not).iter().any(|found| found.name == "files"),
            "the directory is ours"
        );
        open(&state.join("keys/seal"), 0o640);
        let seen = findings(&state, 0, &Standing::Not);
        assert!(found(&seen, "files").found.contains("keys/seal"));
        open(&state, 0o750);
        let seen = findings(&state, u64::MAX, &Standing::Not);
        assert_eq!(found(&seen, "directory").fix.as_deref(), Some(format!("chmod 700 {}", state.display()).as_str()));
        assert_eq!(found(&seen, "room").mark, Mark::Bad, "no disk has that much");
    }

    #[test]
    fn a_record_that_was_changed_is_bad() {
        let place = tempfile::tempdir().unwrap();
        let directory = journal::directory(place.path());
        std::fs::create_dir_all(&directory).unwrap();
        let line = |seq: u64, prev: &str| format!("{{\"v\":1,\"seq\":{seq},\"prev\":\"{prev}\",\"type\":\"stop\"}}\n");
        let zero = "0".repeat(64);
        std::fs::write(directory.join(format!("{:020}.jsonl", 1)), [line(1, &zero), line(2, &zero)].concat()).unwrap();
        let looked = record(place.path(), &Standing::Not);
        assert!(looked.mark == Mark::Bad && looked.found.contains("was changed"), "{looked:?}");
    }
}
