//! Decides what the arguments in the record are digested with.
//!
//! Refuses to know where keys are kept. A plain digest of `{"amount":100}` can be guessed; one under a key cannot, and destroying the key
//! makes every digest of it meaningless. Invariant: a key never leaves this file except as digests.

use std::sync::Arc;

use arc_swap::{ArcSwap, Guard};
use aws_lc_rs::{hkdf, hmac};
use secrecy::{ExposeSecret as _, SecretString};

use crate::ids::Digest;

/// What the derived key is for; another purpose is another key.
const PURPOSE: &[u8] = b"bailiwick/journal/arguments/v1";

/// A key for digests of arguments and results.
#[derive(Debug)]
pub struct JournalKey {
    id: String,
    key: hmac::Key,
}

/// A keyed digest as the record shows it: hexadecimal HMAC-SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyedDigest(Digest);

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("no key for the digests of the record: {0}")]
pub struct KeyError(&'static str);

/// The key that digests now, exchanged while calls are under way.
#[derive(Debug)]
pub(super) struct Current(ArcSwap<JournalKey>);

impl Current {
    pub(super) fn new(key: JournalKey) -> Self {
        Self(ArcSwap::from_pointee(key))
    }

    /// The key of this moment: a line names the one that its digests are of.
    pub(super) fn now(&self) -> Guard<Arc<JournalKey>> {
        self.0.load()
    }

    pub(super) fn exchange(&self, key: JournalKey) {
        self.0.store(Arc::new(key));
    }
}

impl JournalKey {
    /// A key that nobody keeps, for whoever writes lines without a digest while no gateway runs: a brake needs no key that
    /// somebody may have to be asked for, and makes none.
    ///
    /// # Errors
    /// When the system has no randomness.
    pub fn unkept() -> Result<Self, KeyError> {
        let mut secret = [0_u8; 32];
        aws_lc_rs::rand::fill(&mut secret).map_err(|_| KeyError("the system has no randomness"))?;
        let secret = SecretString::from(data_encoding::HEXLOWER.encode(&secret));
        Self::from_hex(&secret).ok_or(KeyError("it cannot be derived"))
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

impl std::fmt::Display for KeyedDigest {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(formatter)
    }
}

impl serde::Serialize for KeyedDigest {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.serialize(serializer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(digits: &str) -> JournalKey {
        JournalKey::from_hex(&SecretString::from(digits.repeat(32))).unwrap()
    }

    #[test]
    fn another_key_gives_another_digest() {
        let (one, two) = (of("11"), of("22"));
        assert_ne!(one.digest(b"{}"), two.digest(b"{}"));
        assert_ne!(one.id(), two.id());
        assert_eq!(one.digest(b"{}"), of("11").digest(b"{}"));
        assert!(!format!("{one:?}").contains("1111"), "{one:?}");
        assert!(JournalKey::from_hex(&SecretString::from("short")).is_none());
    }

    #[test]
    fn a_key_that_nobody_keeps_is_another_one_every_time() {
        assert_ne!(JournalKey::unkept().unwrap().id(), JournalKey::unkept().unwrap().id());
    }

    #[test]
    fn a_line_names_the_key_that_its_digests_are_of() {
        let current = Current::new(of("11"));
        let held = current.now();
        current.exchange(of("22"));
        assert_eq!((held.id(), current.now().id()), (of("11").id(), of("22").id()));
    }
}
