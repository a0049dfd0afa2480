//! The policy files as one set of bytes, and how a mistake in them is told.
//!
//! Decides nothing about their meaning. Invariant: [`Sources::revision`] is the digest of exactly the
//! bytes that the policy was built from, read twice with the same result.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use crate::ids::{Digest, PolicyRevision};
use crate::limit::{POLICY_FILE_BYTES_MAX, POLICY_FILES_MAX};

/// The files of the set that stand directly in the directory; those of other rooms count for the revision.
const FILES: &[&str] =
    &["model.conf", "policy.csv", "conditions.toml", "tests.toml", "agents.toml", "mandates.toml", "gates.toml"];

/// Files that must exist.
const REQUIRED: &[&str] = &["model.conf", "policy.csv"];

/// The policy files: name relative to the policy directory, and bytes.
#[derive(Debug, Clone)]
pub struct Sources {
    files: BTreeMap<String, Vec<u8>>,
    revision: PolicyRevision,
}

impl Sources {
    /// A set that is already in memory.
    #[must_use]
    pub fn from_files(files: BTreeMap<String, Vec<u8>>) -> Self {
        let parts: Vec<&[u8]> = files.iter().flat_map(|(name, bytes)| [name.as_bytes(), bytes.as_slice()]).collect();
        let revision = PolicyRevision(Digest::of("bailiwick/policy/v1", &parts));
        Self { files, revision }
    }

    /// The same files as part of a larger set, under whose revision decisions are recorded.
    #[must_use]
    pub const fn of_set(mut self, revision: PolicyRevision) -> Self {
        self.revision = revision;
        self
    }

    /// Reads the set from a directory, twice: a half-written file that is cut at a line end would be valid,
    /// without its last denies.
    ///
    /// # Errors
    /// A file that is missing, unreadable, too large or writable by everybody, a directory that is, or files
    /// that changed while they were read.
    pub fn read(directory: &Path) -> Result<Self, Vec<Mistake>> {
        let first = Self::from_files(read_files(directory)?);
        let second = Self::from_files(read_files(directory)?);
        if first.revision == second.revision {
            Ok(second)
        } else {
            Err(vec![Mistake::file("policy.csv", "the files changed while they were read; try again")])
        }
    }

    /// The digest of the whole set.
    #[must_use]
    pub const fn revision(&self) -> PolicyRevision {
        self.revision
    }

    /// Every file: name and bytes.
    pub fn files(&self) -> impl Iterator<Item = (&str, &[u8])> {
        self.files.iter().map(|(name, bytes)| (name.as_str(), bytes.as_slice()))
    }

    /// The text of one file; `None` where there is none.
    ///
    /// # Errors
    /// Bytes that are not UTF-8, with the place.
    pub fn text(&self, name: &str) -> Result<Option<&str>, Mistake> {
        let Some(bytes) = self.files.get(name) else { return Ok(None) };
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Some(text.strip_prefix('\u{feff}').unwrap_or(text))),
            Err(error) => {
                let readable = bytes.get(..error.valid_up_to()).unwrap_or_default();
                let (line, column) = position(&String::from_utf8_lossy(readable), readable.len());
                Err(Mistake::at(name, line, column, "these bytes are not UTF-8; save the file as UTF-8"))
            }
        }
    }

    /// The per-server rule files: name and the server that each speaks for.
    pub(super) fn server_files(&self) -> impl Iterator<Item = (&str, &str)> {
        self.files.keys().filter_map(|name| {
            let server = name.strip_prefix("servers/")?.strip_suffix(".csv")?;
            Some((name.as_str(), server))
        })
    }
}

fn read_files(directory: &Path) -> Result<BTreeMap<String, Vec<u8>>, Vec<Mistake>> {
    let mut files = BTreeMap::new();
    let mut mistakes = Vec::new();
    for (name, path) in [(".", directory.to_path_buf()), ("servers", directory.join("servers"))] {
        if std::fs::metadata(&path).is_ok_and(|metadata| is_writable_by_all(&metadata)) {
            mistakes.push(Mistake::file(name, "everybody can write this directory; chmod o-w"));
        }
    }
    let mut take = |name: String, required: bool| match read_file(&directory.join(&name)) {
        Ok(Some(bytes)) => drop(files.insert(name, bytes)),
        Ok(None) if required => mistakes.push(Mistake::file(&name, "the file is missing; write it")),
        Ok(None) => {}
        Err(message) => mistakes.push(Mistake::file(&name, message)),
    };
    for name in FILES {
        take((*name).to_owned(), REQUIRED.contains(name));
    }
    match std::fs::read_dir(directory.join("servers")) {
        Ok(entries) => {
            for entry in entries.flatten().take(POLICY_FILES_MAX + 1) {
                let name = entry.file_name().to_string_lossy().into_owned();
                if name.ends_with(".csv") && !name.starts_with('.') {
                    take(format!("servers/{name}"), true);
                }
            }
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => mistakes.push(Mistake::file("servers", format!("the directory cannot be read: {error}"))),
    }
    if files.len() > POLICY_FILES_MAX {
        mistakes.push(Mistake::file("servers", format!("there are more than {POLICY_FILES_MAX} files; merge some")));
    }
    if mistakes.is_empty() { Ok(files) } else { Err(mistakes) }
}

fn read_file(path: &Path) -> Result<Option<Vec<u8>>, String> {
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("the file cannot be read: {error}")),
    };
    if !metadata.is_file() {
        return Err("this is not a regular file; write a file".to_owned());
    }
    if is_writable_by_all(&metadata) {
        return Err("everybody can write this file; chmod o-w".to_owned());
    }
    if metadata.len() > POLICY_FILE_BYTES_MAX {
        return Err(format!("the file is larger than {POLICY_FILE_BYTES_MAX} bytes; split it by server"));
    }
    std::fs::read(path).map(Some).map_err(|error| format!("the file cannot be read: {error}"))
}

#[cfg(unix)]
fn is_writable_by_all(metadata: &std::fs::Metadata) -> bool {
    use std::os::unix::fs::PermissionsExt as _;
    metadata.permissions().mode() & 0o002 != 0
}

#[cfg(not(unix))]
const fn is_writable_by_all(_metadata: &std::fs::Metadata) -> bool {
    false
}

/// A mistake, or a warning, in a policy file.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mistake {
    /// The file, relative to the policy directory.
    pub file: String,
    /// The line, from 1; 0 where the file as a whole is meant.
    pub line: u32,
    /// The column in characters, from 1.
    pub column: u32,
    /// What is wrong, and what to write instead.
    pub message: String,
}

impl Mistake {
    pub(super) fn at(file: &str, line: u32, column: u32, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), line, column, message: message.into() }
    }

    pub(super) fn file(file: &str, message: impl Into<String>) -> Self {
        Self::at(file, 0, 0, message)
    }
}

impl fmt::Display for Mistake {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.line == 0 {
            write!(formatter, "{}: {}", self.file, self.message)
        } else {
            write!(formatter, "{}:{}:{}: {}", self.file, self.line, self.column, self.message)
        }
    }
}

/// Line and column, both from 1, of a byte offset.
pub(super) fn position(text: &str, offset: usize) -> (u32, u32) {
    let before: String = String::from_utf8_lossy(text.as_bytes().get(..offset).unwrap_or(text.as_bytes())).into_owned();
    let line = before.matches('\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or("").chars().count() + 1;
    (u32::try_from(line).unwrap_or(u32::MAX), u32::try_from(column).unwrap_or(u32::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(name: &str, bytes: &[u8]) -> Sources {
        Sources::from_files(BTreeMap::from([(name.to_owned(), bytes.to_vec())]))
    }

    #[test]
    fn moving_a_byte_between_files_changes_the_revision() {
        assert_ne!(one("a", b"bc").revision(), one("ab", b"c").revision());
    }

    #[test]
    fn bytes_that_are_not_text_are_told_with_their_place() {
        let mistake = one("policy.csv", b"p, a\nxy\xff").text("policy.csv").unwrap_err();
        assert_eq!((mistake.line, mistake.column), (2, 3), "{mistake}");
    }

    #[test]
    fn a_file_that_everybody_can_write_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::write(directory.path().join("model.conf"), "").unwrap();
        std::fs::write(directory.path().join("policy.csv"), "").unwrap();
        assert!(Sources::read(directory.path()).is_ok());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let file = directory.path().join("policy.csv");
            std::fs::set_permissions(&file, std::fs::Permissions::from_mode(0o646)).unwrap();
            let mistakes = Sources::read(directory.path()).unwrap_err();
            assert!(mistakes[0].message.contains("chmod"), "{mistakes:?}");
        }
    }

    #[test]
    fn a_directory_without_rules_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        assert_eq!(Sources::read(directory.path()).unwrap_err().len(), 2);
    }
}
