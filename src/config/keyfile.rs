//! Keys that the gateway makes for itself, files in the state directory, and those that it is given by reference.
//!
//! Decides where they are, who may read them, and for how long an old one is read. Refuses to know what a key is
//! for: whoever uses one derives its own from it. Invariant: a key file is made once, readable by us alone, and safe
//! before it is used; rotating it never takes away a key that somebody may still come back with.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use rustix::fs::{FlockOperation, OFlags, flock};
use secrecy::{ExposeSecret as _, SecretString};

use super::known;
use super::replace::replace;
use super::secret::SecretReference;
use crate::limit;

/// Why a key could not be had; never contains any of it.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the key {place}: {problem}")]
pub struct KeyFileError {
    place: String,
    problem: String,
}

/// What a rotation did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rotated {
    /// Older keys that are still read.
    pub kept: usize,
    /// Keys that nobody can come back with any more, and that are gone.
    pub dropped: usize,
}

/// What is done about a key file that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// It is made, with a fresh key: whoever starts has none yet.
    Make,
    /// It is a problem: whoever runs has a key that would be forgotten.
    Refuse,
}

/// One line of a key file: the key, and since when it writes where that was noted.
struct Line {
    key: SecretString,
    since: Option<Timestamp>,
}

/// The keys that the references name, or else those of the state directory: the first writes, the others are read. All
/// references are asked at once: the slowest of them is waited for.
///
/// # Errors
/// When one of them cannot be read, or is not 64 hexadecimal digits.
pub async fn load(
    references: &[SecretReference],
    state: &Path,
    name: &str,
    missing: Missing,
) -> Result<Vec<SecretString>, KeyFileError> {
    if references.is_empty() {
        let (state, named) = (state.to_owned(), name.to_owned());
        let read = move || match missing {
            Missing::Make => read_or_make(&state, &named),
            Missing::Refuse => read_there(&state, &named),
        };
        let read = tokio::task::spawn_blocking(read).await;
        return read.unwrap_or_else(|error| {
            Err(KeyFileError { place: name.to_owned(), problem: format!("reading it failed: {error}") })
        });
    }
    let read = references.iter().map(|reference| async move {
        let error = |problem: String| KeyFileError { place: reference.to_string(), problem };
        let secret = reference.read().await.map_err(|problem| error(problem.to_string()))?;
        let text = secret.expose_secret().trim();
        if !is_key(text) {
            return Err(error("write 64 hexadecimal digits, such as `openssl rand -hex 32` prints".to_owned()));
        }
        known::remember_key(&secret);
        Ok(SecretString::from(text.to_ascii_lowercase()))
    });
    futures_util::future::join_all(read).await.into_iter().collect()
}

/// The keys of `<state>/keys/NAME` in hexadecimal: the first writes, older ones below it are still read. Makes
/// the file with one fresh key of 32 bytes if there is none. Blocking.
///
/// # Errors
/// When the file cannot be read or made, or a line is not 64 hexadecimal digits.
pub fn read_or_make(state: &Path, name: &str) -> Result<Vec<SecretString>, KeyFileError> {
    let path = path(state, name);
    let io = |problem: std::io::Error| error(&path, problem.to_string());
    std::fs::DirBuilder::new().mode(0o700).recursive(true).create(state.join("keys")).map_err(io)?;
    if let Some(lines) = read(&path)? {
        return Ok(remembered(lines));
    }
    let fresh = fresh(&path)?;
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path).map_err(io)?;
    file.write_all(format!("{}\n", fresh.expose_secret()).as_bytes()).map_err(io)?;
    file.sync_all().map_err(io)?;
    known::remember_key(&fresh);
    Ok(vec![fresh])
}

/// The same of a file that is there. Blocking.
///
/// # Errors
/// As [`read_or_make`]; and when there is none.
pub fn read_there(state: &Path, name: &str) -> Result<Vec<SecretString>, KeyFileError> {
    let path = path(state, name);
    let gone = || error(&path, "it is not there: put it back; only a start makes a new one".to_owned());
    read(&path)?.map(remembered).ok_or_else(gone)
}

fn remembered(lines: Vec<Line>) -> Vec<SecretString> {
    lines.into_iter().map(|line| line.key).inspect(known::remember_key).collect()
}

/// Puts a fresh key first. Keys that stopped writing longer than `life` ago are dropped; without one, none is.
/// Blocking.
///
/// # Errors
/// When there is no such file, it is somebody else's, it cannot be written, or too many keys are still read.
pub fn rotate(state: &Path, name: &str, life: Option<Duration>, now: Timestamp) -> Result<Rotated, KeyFileError> {
    let path = path(state, name);
    let io = |problem: std::io::Error| error(&path, problem.to_string());
    // Two rotations at once would each drop the other's key.
    let directory = File::open(state.join("keys")).map_err(io)?;
    flock(&directory, FlockOperation::LockExclusive).map_err(|problem| io(problem.into()))?;
    let lines = read(&path)?.ok_or_else(|| error(&path, "there is none; has a gateway run here?".to_owned()))?;
    let owner = std::fs::metadata(&path).map_err(io)?.uid();
    if owner != rustix::process::geteuid().as_raw() {
        return Err(error(&path, format!("it is the user {owner}'s: run this as that user")));
    }
    let fresh = Line { key: fresh(&path)?, since: Some(now) };
    // A key stopped writing when the one above it began; of what was not noted, nothing is known.
    let began = std::iter::once(None).chain(lines.iter().map(|line| line.since));
    let over = |began: Option<Timestamp>| match (began, life) {
        (Some(began), Some(life)) => now.duration_since(began).unsigned_abs() > life && now > began,
        _ => false,
    };
    let stopped: Vec<bool> = began.take(lines.len()).map(over).collect();
    let (all, mut kept) = (lines.len(), vec![fresh]);
    kept.extend(lines.into_iter().zip(stopped).filter(|(_, over)| !over).map(|(line, _)| line));
    if kept.len() > limit::KEYS_MAX {
        return Err(error(&path, format!("{} older keys are still read: rotate again later", kept.len() - 1)));
    }
    let text: String = kept.iter().map(Line::written).collect();
    replace(&path, text.as_bytes(), 0o600).map_err(io)?;
    Ok(Rotated { kept: kept.len() - 1, dropped: all + 1 - kept.len() })
}

impl Line {
    fn parse(text: &str) -> Option<Self> {
        let mut words = text.split_whitespace();
        let key = words.next().filter(|key| is_key(key))?;
        let since = words.next().map(str::parse).transpose().ok()?;
        words.next().is_none().then(|| Self { key: SecretString::from(key.to_ascii_lowercase()), since })
    }

    fn written(&self) -> String {
        let key = self.key.expose_secret();
        self.since.map_or_else(|| format!("{key}\n"), |since| format!("{key} {since}\n"))
    }
}

fn is_key(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn path(state: &Path, name: &str) -> PathBuf {
    state.join("keys").join(name)
}

fn error(path: &Path, problem: String) -> KeyFileError {
    KeyFileError { place: format!("file {}", path.display()), problem }
}

fn fresh(path: &Path) -> Result<SecretString, KeyFileError> {
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| error(path, "the system has no randomness".to_owned()))?;
    Ok(SecretString::from(data_encoding::HEXLOWER.encode(&bytes)))
}

/// The lines of a key file, if it is there.
fn read(path: &Path) -> Result<Option<Vec<Line>>, KeyFileError> {
    let mut text = String::new();
    match OpenOptions::new().read(true).custom_flags(OFlags::NOFOLLOW.bits().cast_signed()).open(path) {
        Ok(file) => file
            .take(limit::SECRET_BYTES_MAX)
            .read_to_string(&mut text)
            .map_err(|problem| error(path, problem.to_string()))?,
        Err(problem) if problem.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(problem) => return Err(error(path, problem.to_string())),
    };
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
    let lines: Option<Vec<Line>> = lines.map(Line::parse).collect();
    match lines.filter(|lines| !lines.is_empty()) {
        Some(lines) => Ok(Some(lines)),
        None => Err(error(path, "write 64 hexadecimal digits on each line".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_key_is_made_once_and_for_us_alone() {
        let state = tempfile::tempdir().unwrap();
        let first = read_or_make(state.path(), "seal").unwrap();
        let second = read_or_make(state.path(), "seal").unwrap();
        assert_eq!(first[0].expose_secret(), second[0].expose_secret());
        let mode = std::fs::metadata(state.path().join("keys/seal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_ne!(read_or_make(state.path(), "other").unwrap()[0].expose_secret(), first[0].expose_secret());
    }

    #[tokio::test]
    async fn a_key_file_that_is_gone_is_made_again_by_a_start_alone() {
        let state = tempfile::tempdir().unwrap();
        let first = load(&[], state.path(), "vault", Missing::Make).await.unwrap();
        let again = load(&[], state.path(), "vault", Missing::Refuse).await.unwrap();
        assert_eq!(again[0].expose_secret(), first[0].expose_secret());
        std::fs::remove_file(state.path().join("keys/vault")).unwrap();
        let problem = load(&[], state.path(), "vault", Missing::Refuse).await.unwrap_err().to_string();
        assert!(problem.contains("keys/vault") && problem.contains("put it back"), "{problem}");
        assert!(!state.path().join("keys/vault").exists());
    }

    #[tokio::test]
    async fn places_that_have_keys_are_asked_at_once() {
        let state = tempfile::tempdir().unwrap();
        let (one, other) = (state.path().join("one"), state.path().join("other"));
        // Each answers once the other was asked.
        let waits = |own: &Path, other: &Path| {
            let key = "11".repeat(32);
            let script =
                format!(": > {}; while [ ! -e {} ]; do sleep 0.02; done; echo {key}", own.display(), other.display());
            SecretReference::Exec(vec!["/bin/sh".to_owned(), "-c".to_owned(), script])
        };
        let references = [waits(&one, &other), waits(&other, &one)];
        assert_eq!(load(&references, state.path(), "seal", Missing::Refuse).await.unwrap().len(), 2);
    }

    #[test]
    fn a_spoilt_key_file_is_not_replaced() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::fs::write(state.path().join("keys/seal"), "too short\n").unwrap();
        assert!(read_or_make(state.path(), "seal").is_err());
        assert_eq!(std::fs::read_to_string(state.path().join("keys/seal")).unwrap(), "too short\n");
    }

    #[test]
    fn a_symbolic_link_is_not_followed() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::fs::write(state.path().join("elsewhere"), "00".repeat(32)).unwrap();
        std::os::unix::fs::symlink(state.path().join("elsewhere"), state.path().join("keys/seal")).unwrap();
        assert!(read_or_make(state.path(), "seal").is_err());
    }

    #[test]
    fn a_rotated_key_is_read_for_as_long_as_somebody_may_come_back_with_it() {
        let state = tempfile::tempdir().unwrap();
        let first = read_or_make(state.path(), "seal").unwrap().remove(0);
        let life = Some(Duration::from_secs(24 * 3600));
        let rotated = |now: &str| rotate(state.path(), "seal", life, at(now)).unwrap();
        assert_eq!(rotated("2026-01-01T00:00:00Z"), Rotated { kept: 1, dropped: 0 });
        let keys = read_or_make(state.path(), "seal").unwrap();
        assert_eq!(keys[1].expose_secret(), first.expose_secret());
        assert_ne!(keys[0].expose_secret(), first.expose_secret());
        assert_eq!(rotated("2026-01-01T12:00:00Z"), Rotated { kept: 2, dropped: 0 });
        // The first stopped at midnight, the second at noon.
        assert_eq!(rotated("2026-01-02T06:00:00Z"), Rotated { kept: 2, dropped: 1 });
        assert!(
            read_or_make(state.path(), "seal").unwrap().iter().all(|key| key.expose_secret() != first.expose_secret())
        );
        let mode = std::fs::metadata(state.path().join("keys/seal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(rotate(state.path(), "seal", None, at("2027-01-01T00:00:00Z")).unwrap().dropped, 0);
    }

    #[test]
    fn the_number_of_keys_is_bounded_and_none_is_lost_for_it() {
        let state = tempfile::tempdir().unwrap();
        read_or_make(state.path(), "journal").unwrap();
        let now = at("2026-01-01T00:00:00Z");
        for _ in 1..limit::KEYS_MAX {
            rotate(state.path(), "journal", None, now).unwrap();
        }
        assert!(rotate(state.path(), "journal", None, now).is_err());
        assert_eq!(read_or_make(state.path(), "journal").unwrap().len(), limit::KEYS_MAX);
    }

    #[tokio::test]
    async fn keys_by_reference_are_read_in_their_order() {
        let state = tempfile::tempdir().unwrap();
        let path = |name: &str| state.path().join(name);
        std::fs::write(path("one"), "AA".repeat(32) + "\n").unwrap();
        std::fs::write(path("two"), "bb".repeat(32)).unwrap();
        std::fs::write(path("word"), "correct horse battery staple").unwrap();
        let named = |names: &[&str]| -> Vec<_> { names.iter().map(|name| SecretReference::File(path(name))).collect() };
        let keys = load(&named(&["one", "two"]), state.path(), "seal", Missing::Make).await.unwrap();
        assert_eq!(keys[0].expose_secret(), "aa".repeat(32));
        assert_eq!(keys[1].expose_secret(), "bb".repeat(32));
        assert!(!state.path().join("keys").exists(), "nothing is made beside them");
        let problem =
            load(&named(&["one", "word"]), state.path(), "seal", Missing::Make).await.unwrap_err().to_string();
        assert!(problem.contains("word") && !problem.contains("battery"), "{problem}");
        assert_eq!(load(&[], state.path(), "seal", Missing::Make).await.unwrap().len(), 1);
    }
}
