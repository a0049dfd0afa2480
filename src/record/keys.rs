//! Decides which keys digest the arguments in the record, and where they are kept.
//!
//! A plain digest of `{"amount":100}` can be guessed; one under a key cannot, and destroying the key
//! makes every digest of it meaningless. Invariant: a key never leaves this file except as digests.

use std::path::Path;

use aws_lc_rs::{hkdf, hmac};
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::keyfile;
use crate::ids::Digest;

/// What the derived key is for; another purpose is another key.
const PURPOSE: &[u8] = b"bailiwick/journal/arguments/v1";

/// The key under which new digests are made.
#[derive(Debug)]
pub struct JournalKey {
    id: String,
    key: hmac::Key,
}

/// A keyed digest as the record shows it: hexadecimal HMAC-SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedDigest(Digest);

/// Why the key could not be had.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the journal key `{place}`: {problem}")]
pub struct KeyError {
    place: String,
    problem: String,
}

impl JournalKey {
    /// Takes the key from `<state>/keys/journal`, and makes one there if there is none.
    ///
    /// The file holds one key per line in hexadecimal; the first line writes, older ones below it are kept
    /// so that old digests can be checked. Blocking: start only.
    ///
    /// # Errors
    /// When the file cannot be read or made, or its first line is not 64 hexadecimal digits.
    pub fn open(state: &Path) -> Result<Self, KeyError> {
        let error = |problem: String| KeyError { place: state.join("keys/journal").display().to_string(), problem };
        let secrets = keyfile::read_or_make(state, "journal").map_err(|problem| error(problem.to_string()))?;
        let derived = secrets.first().and_then(Self::from_hex);
        derived.ok_or_else(|| error("its first line is not 64 hexadecimal digits".to_owned()))
    }

    /// Derives the key from 32 bytes in hexadecimal.
    #[must_use]
    pub fn from_hex(secret: &SecretString) -> Option<Self> {
        let master = Digest::from_hex(secret.expose_secret())?;
        let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bailiwick").extract(master.as_bytes());
        let key: hmac::Key = derived.expand(&[PURPOSE], hmac::HMAC_SHA256).ok()?.into();
        // The id is itself a keyed digest, so that it says nothing about the key.
        let id = digest(&key, &[b"id"]).0.to_string().chars().take(8).collect();
        Some(Self { id, key })
    }

    /// Names the key in records.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The keyed digest of some bytes.
    #[must_use]
    pub fn digest(&self, bytes: &[u8]) -> KeyedDigest {
        digest(&self.key, &[b"value", bytes])
    }
}

fn digest(key: &hmac::Key, parts: &[&[u8]]) -> KeyedDigest {
    let mut context = hmac::Context::with_key(key);
    parts.iter().for_each(|part| context.update(part));
    let tag = context.sign();
    let mut bytes = [0_u8; 32];
    bytes.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    KeyedDigest(Digest::from_bytes(bytes))
}

impl serde::Serialize for KeyedDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn the_key_is_made_once_and_only_we_can_read_it() {
        let state = tempfile::tempdir().unwrap();
        let first = JournalKey::open(state.path()).unwrap();
        let again = JournalKey::open(state.path()).unwrap();
        assert_eq!(first.id(), again.id());
        assert_eq!(first.digest(b"{}"), again.digest(b"{}"));
        let mode = std::fs::metadata(state.path().join("keys/journal")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        assert!(
            !format!("{first:?}").contains(std::fs::read_to_string(state.path().join("keys/journal")).unwrap().trim())
        );
    }

    #[test]
    fn a_key_file_that_is_a_link_or_garbage_is_refused() {
        let state = tempfile::tempdir().unwrap();
        std::fs::create_dir(state.path().join("keys")).unwrap();
        std::os::unix::fs::symlink("/dev/zero", state.path().join("keys/journal")).unwrap();
        assert!(JournalKey::open(state.path()).is_err());
        std::fs::remove_file(state.path().join("keys/journal")).unwrap();
        std::fs::write(state.path().join("keys/journal"), "short\n").unwrap();
        assert!(JournalKey::open(state.path()).is_err());
    }

    #[test]
    fn another_key_gives_another_digest() {
        let one = JournalKey::from_hex(&SecretString::from("11".repeat(32))).unwrap();
        let two = JournalKey::from_hex(&SecretString::from("22".repeat(32))).unwrap();
        assert_ne!(one.digest(b"{}"), two.digest(b"{}"));
        assert_ne!(one.id(), two.id());
    }
}
