//! The seal of a set: `policies/REVISION` holds the digest of the files that were reviewed.
//!
//! Decides whether it fits the files beside it. Refuses to know what fits for: that is for a reload and a start
//! to say. Invariant: a seal that is there and cannot be understood fits nothing; it never counts as absent.

use std::path::{Path, PathBuf};

use super::Mistake;
use super::replace::replace;
use super::set::FileSet;
use crate::ids::Digest;

/// The name of the file, beside the policies that it seals.
pub const SEAL_FILE: &str = "REVISION";

/// What a seal says of the files beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Seal {
    /// There is none: who may do more needs to be told so.
    Absent,
    /// It holds the digest of exactly these files.
    Fits,
    /// It is there and does not: the files are not those that were sealed.
    Broken,
}

/// What was read in the place of the seal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Written {
    Nothing,
    Digest(Digest),
    /// Unreadable, writable by others, or no digest: why.
    Garbage(String),
}

impl Written {
    /// Reads the seal with the set's own rules for files.
    pub(super) fn read(policies: &Path, read: impl FnOnce(&Path) -> Result<Vec<u8>, String>) -> Self {
        let path = policies.join(SEAL_FILE);
        // A link to nowhere is a seal that cannot be read, and not none.
        match std::fs::symlink_metadata(&path) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Self::Nothing,
            _ => {}
        }
        match read(&path) {
            Err(problem) => Self::Garbage(problem),
            Ok(bytes) => std::str::from_utf8(&bytes)
                .ok()
                .and_then(|text| Digest::from_hex(text.trim()))
                .map_or_else(|| Self::Garbage("is not a digest of 64 hexadecimal digits".to_owned()), Self::Digest),
        }
    }
}

impl FileSet {
    /// Whether the files are those that were sealed.
    #[must_use]
    pub fn seal(&self) -> Seal {
        match &self.written_seal {
            Written::Nothing => Seal::Absent,
            Written::Digest(digest) if *digest == self.digest() => Seal::Fits,
            Written::Digest(_) | Written::Garbage(_) => Seal::Broken,
        }
    }

    /// What is wrong with the seal, where something is.
    #[must_use]
    pub fn seal_mistake(&self) -> Option<Mistake> {
        let what = match &self.written_seal {
            Written::Nothing => return None,
            Written::Digest(digest) if *digest == self.digest() => return None,
            Written::Digest(digest) => {
                format!("seals {}, and these files are {}", digest.short(), self.digest().short())
            }
            Written::Garbage(problem) => problem.clone(),
        };
        let message =
            format!("{what}: somebody changed them after the review; run `bailiwick check --seal`, or remove the file");
        Some(Mistake::whole(self.seal_path().display().to_string(), message))
    }

    /// Where the seal is.
    #[must_use]
    pub fn seal_path(&self) -> PathBuf {
        self.policies().join(SEAL_FILE)
    }

    /// Seals these files: whoever reads the set afterwards finds the whole seal or the old one.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write_seal(&self) -> std::io::Result<PathBuf> {
        let path = self.seal_path();
        // Reviewers and CI read it; the set's own rules refuse one that others can write.
        replace(&path, format!("{}\n", self.digest()).as_bytes(), 0o644)?;
        Ok(path)
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, write};

    use super::*;

    fn set(directory: &Path) -> FileSet {
        FileSet::read(&directory.join("servers.toml")).unwrap()
    }

    #[test]
    fn a_seal_fits_the_files_that_it_was_made_of_and_no_others() {
        let place = tempfile::tempdir().unwrap();
        let policies = place.path().join("policies");
        create_dir(&policies).unwrap();
        write(place.path().join("servers.toml"), "").unwrap();
        write(policies.join("policy.csv"), "p\n").unwrap();
        let unsealed = set(place.path());
        assert_eq!((unsealed.seal(), unsealed.seal_mistake()), (Seal::Absent, None));
        unsealed.write_seal().unwrap();
        let sealed = set(place.path());
        assert_eq!((sealed.seal(), sealed.digest()), (Seal::Fits, unsealed.digest()), "it is no part of the set");
        write(policies.join("policy.csv"), "p2\n").unwrap();
        assert_eq!(set(place.path()).seal(), Seal::Broken);
        assert!(set(place.path()).seal_mistake().unwrap().to_string().contains("check --seal"));
    }

    #[test]
    fn a_seal_that_cannot_be_understood_is_not_none() {
        let place = tempfile::tempdir().unwrap();
        let policies = place.path().join("policies");
        create_dir(&policies).unwrap();
        write(place.path().join("servers.toml"), "").unwrap();
        for garbage in ["", "main", "../secret"] {
            write(policies.join(SEAL_FILE), garbage).unwrap();
            assert_eq!(set(place.path()).seal(), Seal::Broken, "{garbage}");
        }
        std::fs::remove_file(policies.join(SEAL_FILE)).unwrap();
        std::os::unix::fs::symlink("nowhere", policies.join(SEAL_FILE)).unwrap();
        assert_eq!(set(place.path()).seal(), Seal::Broken);
    }
}
