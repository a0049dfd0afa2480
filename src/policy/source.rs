//! The policy files as one set of bytes, and how a mistake in them is told.
//!
//! Decides nothing about their meaning, and reads nothing: `config` does. Invariant: [`Sources::revision`] is the
//! digest of exactly the bytes that the policy was built from, or of the larger set that they are a part of.

use std::collections::BTreeMap;
use std::fmt;

use crate::ids::{Digest, PolicyRevision};

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
}
