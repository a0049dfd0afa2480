//! Signed checkpoints: how large the tree was, what its root was, and who says so.
//!
//! The text is a C2SP tlog-checkpoint in a C2SP signed note, so that tools for transparency logs read it. Decides
//! what a note says and whether a key vouches for it. Refuses to know whether that is true of any journal.
//! Invariant: what cannot be read exactly as the format says is no checkpoint.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use aws_lc_rs::hkdf;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use secrecy::{ExposeSecret as _, SecretString};

use crate::config::keyfile;
use crate::ids::{Digest, ReplicaId};

/// What the derived key is for; another purpose is another key.
const PURPOSE: &[u8] = b"bailiwick/checkpoint/ed25519/v1";
/// The type of a signature in key ids and keys: Ed25519.
const ED25519_TYPE: u8 = 1;

/// The file beside the segments that holds the public keys, one a line.
pub(super) const PUBLISHED: &str = "checkpoint.pub";

/// What a tree was at some moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checkpoint {
    /// Whose journal it is.
    pub origin: String,
    /// Records in it.
    pub size: u64,
    /// The root of the tree over them.
    pub root: Digest,
}

/// A checkpoint as it was signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedCheckpoint {
    /// What was signed.
    pub checkpoint: Checkpoint,
    note: String,
    text_bytes: usize,
}

/// Whether a key vouches for a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// One of the keys signed it.
    Signed,
    /// It names one of the keys, which did not sign it.
    Forged,
    /// It names none of the keys.
    Unknown,
}

/// A public key with the name that it signs under, spelled as a verifier key of signed notes:
/// `NAME+ID+KEY`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifierKey {
    name: String,
    id: [u8; 4],
    public: [u8; 32],
}

/// The keys of the gateway's checkpoints: one signs, older ones are still believed.
#[derive(Debug)]
pub struct CheckpointKeys {
    pair: Ed25519KeyPair,
    verifiers: Vec<VerifierKey>,
    fresh: bool,
}

/// Why the keys could not be had; never contains any of them.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the checkpoint key in {place}: {problem}")]
pub struct CheckpointKeyError {
    place: String,
    problem: String,
}

/// The public keys that a gateway has published beside its segments, held against its own where it made them.
///
/// # Errors
/// When there are none, or they are not its own.
pub fn published(state: &Path) -> Result<Vec<VerifierKey>, CheckpointKeyError> {
    let place = super::journal::directory(state).join(PUBLISHED);
    let error = |problem: String| CheckpointKeyError { place: place.display().to_string(), problem };
    let text = super::read_text(&place, crate::limit::AUDITOR_FILE_BYTES_MAX)
        .map_err(|problem| error(format!("{problem}; has a gateway run there?")))?;
    let keys: Vec<VerifierKey> = text.lines().map(str::parse).collect::<Result<_, _>>().map_err(error)?;
    let first = keys.first().ok_or_else(|| error("it is empty".to_owned()))?;
    if !state.join("keys/checkpoint").exists() {
        return Ok(keys);
    }
    let secrets = keyfile::read_or_make(state, "checkpoint").map_err(|problem| error(problem.to_string()))?;
    let Some(own) = CheckpointKeys::of(&secrets, &first.name, false) else {
        return Err(error("the gateway's own key is none".to_owned()));
    };
    if own.verifiers.contains(first) {
        return Ok(own.verifiers);
    }
    // Where another key was named since, its own is still believed and published behind it.
    if own.verifiers.iter().any(|own| keys.contains(own)) {
        return Ok(keys);
    }
    Err(error("it is not the gateway's own key, or that was changed since the last start".to_owned()))
}

/// The origin of a gateway's checkpoints, which is also the name of its key.
#[must_use]
pub fn origin(replica: &ReplicaId) -> String {
    format!("bailiwick/{replica}")
}

impl CheckpointKeys {
    /// Takes the keys from `<state>/keys/checkpoint`, and makes one there if there is none. Blocking: start only.
    ///
    /// # Errors
    /// When the file cannot be read or made, or is no file of keys.
    pub fn open(state: &Path, replica: &ReplicaId) -> Result<Self, CheckpointKeyError> {
        let place = state.join("keys/checkpoint");
        let error = |problem: String| CheckpointKeyError { place: place.display().to_string(), problem };
        let fresh = !place.exists();
        let secrets = keyfile::read_or_make(state, "checkpoint").map_err(|problem| error(problem.to_string()))?;
        Self::of(&secrets, &origin(replica), fresh).ok_or_else(|| error("it is no file of keys".to_owned()))
    }

    /// The same, and none is made: for whoever has one already. Blocking.
    ///
    /// # Errors
    /// As [`Self::open`]; and when there is no such file.
    pub fn there(state: &Path, replica: &ReplicaId) -> Result<Self, CheckpointKeyError> {
        let place = state.join("keys/checkpoint").display().to_string();
        let error = |problem: String| CheckpointKeyError { place: place.clone(), problem };
        let secrets = keyfile::read_there(state, "checkpoint").map_err(|problem| error(problem.to_string()))?;
        Self::of(&secrets, &origin(replica), false).ok_or_else(|| error("it is no file of keys".to_owned()))
    }

    /// The same with keys that were named by reference, which stay where they are.
    ///
    /// # Errors
    /// When one of them is not 64 hexadecimal digits.
    pub fn named(state: &Path, replica: &ReplicaId, secrets: &[SecretString]) -> Result<Self, CheckpointKeyError> {
        // Whoever used it before has published its public part.
        let fresh = !super::journal::directory(state).join(PUBLISHED).exists();
        Self::of(secrets, &origin(replica), fresh).ok_or_else(|| CheckpointKeyError {
            place: "[keys] checkpoint".to_owned(),
            problem: "write 64 hexadecimal digits there (openssl rand -hex 32)".to_owned(),
        })
    }

    fn of(secrets: &[SecretString], name: &str, fresh: bool) -> Option<Self> {
        let pairs: Vec<_> = secrets.iter().map(derive).collect::<Option<_>>()?;
        let verifiers = pairs.iter().filter_map(|pair| VerifierKey::new(name, pair.public_key().as_ref())).collect();
        Some(Self { pair: pairs.into_iter().next()?, verifiers, fresh })
    }

    /// The public keys, the one that signs first.
    #[must_use]
    pub fn verifiers(&self) -> &[VerifierKey] {
        &self.verifiers
    }

    /// Whether the key was made just now, so that it cannot have signed anything before.
    pub(super) const fn is_fresh(&self) -> bool {
        self.fresh
    }

    /// Signs what a tree is.
    pub(super) fn sign(&self, checkpoint: &Checkpoint) -> Option<SignedCheckpoint> {
        let text = checkpoint.text();
        let verifier = self.verifiers.first()?;
        let mut signature = verifier.id.to_vec();
        signature.extend_from_slice(self.pair.sign(text.as_bytes()).as_ref());
        let note = format!("{text}\n\u{2014} {} {}\n", verifier.name, STANDARD.encode(signature));
        Some(SignedCheckpoint { checkpoint: checkpoint.clone(), note, text_bytes: text.len() })
    }
}

/// The Ed25519 key of that purpose.
fn derive(secret: &SecretString) -> Option<Ed25519KeyPair> {
    let master = Digest::from_hex(&secret.expose_secret().to_ascii_lowercase())?;
    let derived = hkdf::Salt::new(hkdf::HKDF_SHA256, b"bailiwick").extract(master.as_bytes());
    let mut seed = [0_u8; 32];
    derived.expand(&[PURPOSE], hkdf::HKDF_SHA256).ok()?.fill(&mut seed).ok()?;
    Ed25519KeyPair::from_seed_unchecked(&seed).ok()
}

impl Checkpoint {
    fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root.as_bytes()))
    }

    fn parse(text: &str) -> Option<Self> {
        let mut lines = text.strip_suffix('\n')?.split('\n');
        let origin = lines.next().filter(|origin| !origin.is_empty())?.to_owned();
        let size = lines.next().filter(|size| *size == "0" || !size.starts_with('0'))?;
        let size = size.bytes().all(|byte| byte.is_ascii_digit()).then(|| size.parse().ok())??;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        // Lines of extensions mean nothing to us, but none of them is empty.
        lines.all(|line| !line.is_empty()).then_some(Self { origin, size, root: Digest::from_bytes(root) })
    }
}

impl SignedCheckpoint {
    /// Reads a note.
    #[must_use]
    pub fn parse(note: &str) -> Option<Self> {
        if note.bytes().any(|byte| byte < b' ' && byte != b'\n') {
            return None;
        }
        let text_bytes = note.rfind("\n\n")? + 1;
        let (text, signatures) = note.split_at_checked(text_bytes)?;
        let signatures = signatures.strip_prefix('\n')?.strip_suffix('\n')?;
        let checkpoint = Checkpoint::parse(text)?;
        let read = Self { checkpoint, note: note.to_owned(), text_bytes };
        signatures.split('\n').all(|line| signature(line).is_some()).then_some(read)
    }

    /// The note as it was signed, with its signatures.
    #[must_use]
    pub fn note(&self) -> &str {
        &self.note
    }

    /// One line for places that keep lines: origin, size, root and the first signature.
    #[must_use]
    pub fn line(&self) -> String {
        let Checkpoint { origin, size, root } = &self.checkpoint;
        let signature = self.note.rsplit(' ').next().unwrap_or_default().trim_end();
        format!("{LINE_WORD} {origin} {size} {} {signature}", STANDARD.encode(root.as_bytes()))
    }

    /// All checkpoints in a text: notes one after the other, or lines as [`Self::line`] makes them, whatever stands
    /// before them there.
    #[must_use]
    pub fn find_all(text: &str) -> Vec<Self> {
        let mut found = Vec::new();
        let mut note = String::new();
        let mut signed = false;
        for line in text.lines() {
            if let Some(words) = line.split_once(LINE_WORD).map(|(_, words)| words.split_whitespace()) {
                found.extend(Self::of_words(&words.collect::<Vec<_>>()));
                continue;
            }
            let is_signature = line.starts_with("\u{2014} ");
            if signed && !is_signature {
                found.extend(Self::parse(&std::mem::take(&mut note)));
            }
            signed = is_signature;
            if note.len() + line.len() > crate::limit::CHECKPOINT_BYTES_MAX {
                note.clear();
            }
            // Between two notes there may be empty lines.
            if !(note.is_empty() && line.is_empty()) {
                note.push_str(line);
                note.push('\n');
            }
        }
        found.extend(Self::parse(&note));
        found
    }

    fn of_words(words: &[&str]) -> Option<Self> {
        let [origin, size, root, signature, ..] = words else { return None };
        Self::parse(&format!("{origin}\n{size}\n{root}\n\n\u{2014} {origin} {signature}\n"))
    }

    /// Whether one of the keys vouches for it.
    #[must_use]
    pub fn standing(&self, keys: &[VerifierKey]) -> Standing {
        let text = self.note.get(..self.text_bytes).unwrap_or_default();
        let signatures = self.note.get(self.text_bytes..).unwrap_or_default().lines().filter_map(signature);
        let mut standing = Standing::Unknown;
        for (name, id, bytes) in signatures {
            let known = keys.iter().filter(|key| key.name == name && key.id == id);
            for key in known {
                if UnparsedPublicKey::new(&ED25519, &key.public).verify(text.as_bytes(), &bytes).is_err() {
                    // A known key that did not sign spoils the whole note.
                    return Standing::Forged;
                }
                standing = Standing::Signed;
            }
        }
        standing
    }

    /// The names and ids of the keys that it says have signed it.
    #[must_use]
    pub fn signers(&self) -> Vec<String> {
        let signatures = self.note.get(self.text_bytes..).unwrap_or_default().lines().filter_map(signature);
        signatures.map(|(name, id, _)| format!("{name}+{}", data_encoding::HEXLOWER.encode(&id))).collect()
    }
}

/// What a checkpoint in one line begins with.
const LINE_WORD: &str = "bailiwick-checkpoint";

/// Name, key id and signature of a signature line.
fn signature(line: &str) -> Option<(&str, [u8; 4], Vec<u8>)> {
    let (name, encoded) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
    let bytes = STANDARD.decode(encoded).ok()?;
    let (id, signature) = bytes.split_first_chunk::<4>()?;
    let named = !name.is_empty() && !name.contains(|c: char| c.is_whitespace() || c == '+');
    (named && !signature.is_empty()).then(|| (name, *id, signature.to_vec()))
}

impl VerifierKey {
    fn new(name: &str, public: &[u8]) -> Option<Self> {
        let public: [u8; 32] = public.try_into().ok()?;
        Some(Self { name: name.to_owned(), id: key_id(name, &public)?, public })
    }

    /// The name and the id of the key, as notes name it.
    #[must_use]
    pub fn id(&self) -> String {
        format!("{}+{}", self.name, data_encoding::HEXLOWER.encode(&self.id))
    }
}

fn key_id(name: &str, public: &[u8; 32]) -> Option<[u8; 4]> {
    let digest = Digest::sha256_of(&[name.as_bytes(), b"\n", &[ED25519_TYPE], public]);
    digest.as_bytes().first_chunk().copied()
}

impl fmt::Display for VerifierKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut key = vec![ED25519_TYPE];
        key.extend_from_slice(&self.public);
        write!(formatter, "{}+{}", self.id(), STANDARD.encode(key))
    }
}

impl FromStr for VerifierKey {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refuse = || format!("`{text}` is not a key: write it as `bailiwick audit key` prints it, NAME+ID+KEY");
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refuse());
        };
        let key = STANDARD.decode(key).map_err(|_| refuse())?;
        let Some((&ED25519_TYPE, public)) = key.split_first() else { return Err(refuse()) };
        let key = Self::new(name, public).ok_or_else(refuse)?;
        // The id is a digest of the rest: a key that was mistyped is noticed.
        if data_encoding::HEXLOWER.encode(&key.id) == id && !name.is_empty() { Ok(key) } else { Err(refuse()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keys(state: &Path) -> CheckpointKeys {
        CheckpointKeys::open(state, &ReplicaId::new()).unwrap()
    }

    #[test]
    fn a_note_of_the_specification_is_read_and_its_key_id_is_ours() {
        // The example of signed-note and of golang.org/x/mod/sumdb/note.
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key: VerifierKey = key.parse().unwrap();
        assert_eq!(key.id(), "PeterNeumann+c74f20a3");
        let text =
            "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let note = format!("{text}\n\u{2014} PeterNeumann {signature}\n");
        let signed = SignedCheckpoint {
            checkpoint: Checkpoint { origin: String::new(), size: 0, root: Digest::sha256(b"") },
            text_bytes: text.len(),
            note,
        };
        assert_eq!(signed.standing(&[key]), Standing::Signed);
    }

    #[test]
    fn a_checkpoint_is_signed_read_and_verified_and_nothing_in_it_can_be_changed() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let (one, two) = (keys(one.path()), keys(two.path()));
        let checkpoint = Checkpoint { origin: one.verifiers[0].name.clone(), size: 12, root: Digest::sha256(b"r") };
        let signed = one.sign(&checkpoint).unwrap();
        let read = SignedCheckpoint::parse(signed.note()).unwrap();
        assert_eq!(read, signed);
        assert_eq!(read.standing(one.verifiers()), Standing::Signed);
        assert_eq!(read.standing(two.verifiers()), Standing::Unknown);
        let forged = SignedCheckpoint::parse(&signed.note().replacen("\n12\n", "\n11\n", 1)).unwrap();
        assert_eq!(forged.standing(one.verifiers()), Standing::Forged);
        let printed: VerifierKey = one.verifiers[0].to_string().parse().unwrap();
        assert_eq!(printed, one.verifiers[0]);
        let mistyped = one.verifiers[0].to_string().replacen('+', "x+", 1);
        assert!(mistyped.parse::<VerifierKey>().is_err());
    }

    #[test]
    fn checkpoints_are_found_in_files_of_notes_and_in_logs_of_lines() {
        let state = tempfile::tempdir().unwrap();
        let keys = keys(state.path());
        let signed = |size: u64| {
            let checkpoint = Checkpoint { origin: keys.verifiers[0].name.clone(), size, root: Digest::sha256(b"r") };
            keys.sign(&checkpoint).unwrap()
        };
        let (one, two) = (signed(1), signed(2));
        let text = format!("{}{}\n", one.note(), two.note());
        assert_eq!(SignedCheckpoint::find_all(&text), [one.clone(), two.clone()]);
        let log = format!("Nov 27 host bailiwick[7]: other\n<110>1 2026 host bailiwick {}\nmore\n", two.line());
        let found = SignedCheckpoint::find_all(&log);
        assert_eq!(found, [two]);
        assert_eq!(found[0].standing(keys.verifiers()), Standing::Signed);
        assert!(SignedCheckpoint::find_all("bailiwick-checkpoint a b c d").is_empty());
        let huge = format!("{}{}", "x\n".repeat(crate::limit::CHECKPOINT_BYTES_MAX), one.note());
        assert!(SignedCheckpoint::find_all(&huge).len() < 2);
    }

    #[test]
    fn what_is_not_exactly_a_checkpoint_is_none() {
        let state = tempfile::tempdir().unwrap();
        let keys = keys(state.path());
        let checkpoint = Checkpoint { origin: keys.verifiers[0].name.clone(), size: 7, root: Digest::sha256(b"r") };
        let note = keys.sign(&checkpoint).unwrap().note().to_owned();
        assert!(SignedCheckpoint::parse(&note).is_some());
        for (from, to) in
            [("\n7\n", "\n07\n"), ("\n7\n", "\n+7\n"), ("\n7\n", "\n\n"), ("\u{2014} ", "- "), ("\n\n", "\n")]
        {
            assert!(SignedCheckpoint::parse(&note.replacen(from, to, 1)).is_none(), "{from:?} {to:?}");
        }
        assert!(SignedCheckpoint::parse(&note.replacen('\n', "\r\n", 1)).is_none());
        assert!(SignedCheckpoint::parse("").is_none());
    }
}
