//! Sealed handles: whatever leaves the gateway to come back is encrypted, authenticated and bound.
//!
//! Decides nothing about what a handle holds. Invariant: a handle opens only for the purpose and the
//! principal that it was sealed for, and never again once something that it rests on was taken back; every failure looks
//! the same. What is handed out and what is kept are sealed with keys of their own, also where both are derived from the
//! same secret.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use arc_swap::ArcSwap;
use aws_lc_rs::aead::{AES_256_GCM, Aad, Nonce, RandomizedNonceKey};
use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use data_encoding::HEXLOWER;

use super::voids::{Holder, Mark, Voids};
use crate::ids::{PrincipalKey, RevocationEpoch};
use crate::limit;

/// The layout of what follows; another layout gets another number.
const LAYOUT: u8 = 1;
/// The same, and the content begins with what the handle rests on.
const RESTING: u8 = 2;
const KEY_ID_LENGTH: usize = 4;
const NONCE_LENGTH: usize = 12;
/// Layout, key id and nonce.
const PREFIX_LENGTH: usize = 1 + KEY_ID_LENGTH + NONCE_LENGTH;
/// A shorter secret could be guessed.
const SECRET_LENGTH_MIN: usize = 32;
/// The salts of the two derivations: another one gives other keys and other names of them.
const HANDED_OUT: &[u8] = b"bailiwick/handle/v1";
const KEPT: &[u8] = b"bailiwick/vault/v1";

/// Seals and opens handles (AES-256-GCM, keys derived with HKDF-SHA256).
pub struct Sealer {
    /// The first seals; all open. Exchanged whole, so that a rotation needs no restart.
    keys: ArcSwap<Vec<Key>>,
    keeps: bool,
    /// What was taken back since handles were sealed.
    voids: ArcSwap<Voids>,
    /// Up to which epoch that was taken in.
    voided_to: AtomicU64,
}

struct Key {
    id: [u8; KEY_ID_LENGTH],
    key: RandomizedNonceKey,
}

/// Why there is no sealer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SealerError {
    /// The list is empty.
    #[error("there is no key to seal handles with: configure at least one")]
    NoKey,
    /// A secret is too short.
    #[error("a key to seal handles with is shorter than {SECRET_LENGTH_MIN} bytes: use 32 random bytes")]
    TooShort,
    /// The cryptographic library refused.
    #[error("a key to seal handles with cannot be derived")]
    Underivable,
}

impl Sealer {
    /// A sealer whose first secret seals and whose every secret opens, so that keys can be rotated.
    ///
    /// # Errors
    /// [`SealerError`]: no secret, or one shorter than 32 bytes.
    pub fn new<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, SealerError> {
        Ok(Self { keys: ArcSwap::from_pointee(derive(HANDED_OUT, secrets)?), keeps: false, ..Self::empty() })
    }

    /// A sealer of what we keep ourselves: its keys are other ones than those of a sealer of handles with the same
    /// secrets. It opens as well what was sealed before the two were told apart.
    ///
    /// # Errors
    /// As [`Sealer::new`].
    pub fn of_what_is_kept<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Self, SealerError> {
        Ok(Self { keys: ArcSwap::from_pointee(derive_kept(secrets)?), keeps: true, ..Self::empty() })
    }

    /// Seals with the first of these secrets from now on, and opens with all of them and no others.
    ///
    /// # Errors
    /// As [`Sealer::new`]; nothing is changed then.
    pub fn replace<'a>(&self, secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<(), SealerError> {
        let keys = if self.keeps { derive_kept(secrets)? } else { derive(HANDED_OUT, secrets)? };
        self.keys.store(Arc::new(keys));
        Ok(())
    }

    /// The names of the keys as handles carry them, the one that seals first; of each secret one.
    #[must_use]
    pub fn key_ids(&self) -> Vec<String> {
        let keys = self.keys.load();
        let secrets = if self.keeps { keys.len() / 2 } else { keys.len() };
        keys.iter().take(secrets).map(|key| HEXLOWER.encode(&key.id)).collect()
    }

    /// Seals some content; the handle is URL-safe ASCII and different every time.
    ///
    /// # Errors
    /// When the random generator or the cipher fails: there is no handle then.
    pub fn seal(&self, purpose: &str, principal: PrincipalKey, content: &[u8]) -> Result<String, SealerError> {
        self.sealed(LAYOUT, (purpose, principal), content.to_vec())
    }

    /// The same for a handle that is void once something that it rests on is taken back, also when that is lifted again.
    ///
    /// # Errors
    /// As [`Sealer::seal`].
    pub fn seal_for(&self, purpose: &str, holder: &Holder, content: &[u8]) -> Result<String, SealerError> {
        let mut resting = Vec::with_capacity(128 + content.len());
        holder.write(&mut resting);
        resting.extend_from_slice(content);
        self.sealed(RESTING, (purpose, holder.principal), resting)
    }

    /// Takes in what was taken back, since which epoch, and before which epoch that is not known any more. Whoever says
    /// so again, or late, changes nothing.
    pub fn void(&self, taken_back: &[(Mark, RevocationEpoch)], forgotten: RevocationEpoch) {
        self.voids.rcu(|own| own.with(taken_back, forgotten).map_or_else(|| Arc::clone(own), Arc::new));
    }

    /// Says that all of it was taken in up to that epoch.
    pub fn voided_up_to(&self, epoch: RevocationEpoch) {
        self.voided_to.fetch_max(epoch.0, Ordering::AcqRel);
    }

    /// Up to which epoch all of it was taken in.
    #[must_use]
    pub fn voided_to(&self) -> RevocationEpoch {
        RevocationEpoch(self.voided_to.load(Ordering::Acquire))
    }

    fn empty() -> Self {
        Self { keys: ArcSwap::default(), keeps: false, voids: ArcSwap::default(), voided_to: AtomicU64::new(0) }
    }

    fn sealed(&self, layout: u8, bound: (&str, PrincipalKey), mut sealed: Vec<u8>) -> Result<String, SealerError> {
        let keys = self.keys.load();
        let key = keys.first().ok_or(SealerError::NoKey)?;
        let nonce = key
            .key
            .seal_in_place_append_tag(Aad::from(associated(layout, bound)), &mut sealed)
            .map_err(|_| SealerError::Underivable)?;
        let mut whole = Vec::with_capacity(PREFIX_LENGTH + sealed.len());
        whole.push(layout);
        whole.extend_from_slice(&key.id);
        whole.extend_from_slice(nonce.as_ref());
        whole.extend_from_slice(&sealed);
        Ok(URL_SAFE_NO_PAD.encode(whole))
    }

    /// The content of a handle, if it was sealed for this purpose and this principal by one of our keys.
    #[must_use]
    pub fn open(&self, purpose: &str, principal: PrincipalKey, handle: &str) -> Option<Vec<u8>> {
        self.open_within(purpose, principal, handle, limit::HANDLE_BYTES_MAX)
    }

    /// The same for handles that hold what an upstream wants to have back, which may be longer.
    #[must_use]
    pub fn open_within(
        &self,
        purpose: &str,
        principal: PrincipalKey,
        handle: &str,
        bytes_max: usize,
    ) -> Option<Vec<u8>> {
        let (layout, mut opened) = self.opened((purpose, principal), handle, bytes_max)?;
        if layout == RESTING {
            let said = self.voids.load().checked(&opened)?.len();
            opened.drain(..opened.len().saturating_sub(said));
        }
        Some(opened)
    }

    /// The same with what it rests on, for whoever hands out another one in its place. What was sealed without that
    /// rests on nothing, and on nobody since the beginning.
    #[must_use]
    pub fn open_resting(
        &self,
        purpose: &str,
        principal: PrincipalKey,
        handle: &str,
        bytes_max: usize,
    ) -> Option<(Holder, Vec<u8>)> {
        let (layout, opened) = self.opened((purpose, principal), handle, bytes_max)?;
        let (holder, said) = match layout {
            RESTING => Holder::read(principal, &opened)?,
            _ => (Holder::new(principal, RevocationEpoch(0), Vec::new()), opened.as_slice()),
        };
        self.holds(&holder).then(|| (holder, said.to_vec()))
    }

    /// Whether nothing of what somebody rests on was taken back since they were looked at.
    #[must_use]
    pub fn holds(&self, holder: &Holder) -> bool {
        self.voids.load().hold(holder)
    }

    /// The same of those whom a block of everything leaves in: whether nothing of theirs was taken back by its name.
    #[must_use]
    pub fn holds_by_name(&self, holder: &Holder) -> bool {
        self.voids.load().hold_by_name(holder)
    }

    fn opened(&self, bound: (&str, PrincipalKey), handle: &str, bytes_max: usize) -> Option<(u8, Vec<u8>)> {
        if handle.len() > bytes_max {
            return None;
        }
        let mut whole = URL_SAFE_NO_PAD.decode(handle).ok()?;
        let (prefix, sealed) = whole.split_at_mut_checked(PREFIX_LENGTH)?;
        let (layout, prefix) = prefix.split_first()?;
        let (id, nonce) = prefix.split_at_checked(KEY_ID_LENGTH)?;
        let layout = *layout;
        if !matches!(layout, LAYOUT | RESTING) {
            return None;
        }
        let keys = self.keys.load();
        let key = keys.iter().find(|key| key.id == *id)?;
        let nonce = Nonce::try_assume_unique_for_key(nonce).ok()?;
        let opened = key.key.open_in_place(nonce, Aad::from(associated(layout, bound)), sealed).ok()?;
        Some((layout, opened.to_vec()))
    }
}

impl std::fmt::Debug for Sealer {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Sealer({} keys)", self.keys.load().len())
    }
}

fn derive<'a>(salt: &[u8], secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Key>, SealerError> {
    let keys = secrets.into_iter().map(|secret| Key::derive(salt, secret)).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() { Err(SealerError::NoKey) } else { Ok(keys) }
}

fn derive_kept<'a>(secrets: impl IntoIterator<Item = &'a [u8]>) -> Result<Vec<Key>, SealerError> {
    let secrets: Vec<&[u8]> = secrets.into_iter().collect();
    let mut keys = derive(KEPT, secrets.iter().copied())?;
    keys.extend(derive(HANDED_OUT, secrets)?);
    Ok(keys)
}

impl Key {
    fn derive(salt: &[u8], secret: &[u8]) -> Result<Self, SealerError> {
        struct Length(usize);
        impl KeyType for Length {
            fn len(&self) -> usize {
                self.0
            }
        }
        if secret.len() < SECRET_LENGTH_MIN {
            return Err(SealerError::TooShort);
        }
        let source = Salt::new(HKDF_SHA256, salt).extract(secret);
        let fill = |information: &[u8], out: &mut [u8]| {
            source
                .expand(&[information], Length(out.len()))
                .and_then(|material| material.fill(out))
                .map_err(|_| SealerError::Underivable)
        };
        let (mut id, mut bytes) = ([0_u8; KEY_ID_LENGTH], [0_u8; 32]);
        fill(b"key id", &mut id)?;
        fill(b"aes-256-gcm", &mut bytes)?;
        let key = RandomizedNonceKey::new(&AES_256_GCM, &bytes).map_err(|_| SealerError::Underivable)?;
        Ok(Self { id, key })
    }
}

/// What a handle is bound to; the principal has a fixed length, so no two bindings are alike.
fn associated(layout: u8, (purpose, principal): (&str, PrincipalKey)) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(1 + 32 + purpose.len());
    bytes.push(layout);
    bytes.extend_from_slice(principal.0.as_bytes());
    bytes.extend_from_slice(purpose.as_bytes());
    bytes
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::ids::Digest;

    fn principal(name: &str) -> PrincipalKey {
        PrincipalKey(Digest::of("test", &[name.as_bytes()]))
    }

    fn sealer(keys: &[u8]) -> Sealer {
        let keys: Vec<[u8; 32]> = keys.iter().map(|byte| [*byte; 32]).collect();
        Sealer::new(keys.iter().map(<[u8; 32]>::as_slice)).unwrap()
    }

    #[test]
    fn a_rotated_key_still_opens_and_no_longer_seals() {
        let old = sealer(&[1]).seal("cursor", principal("a"), b"x").unwrap();
        let rotated = sealer(&[2, 1]);
        assert_eq!(rotated.open("cursor", principal("a"), &old).unwrap(), b"x");
        let new = rotated.seal("cursor", principal("a"), b"x").unwrap();
        assert!(sealer(&[1]).open("cursor", principal("a"), &new).is_none());
        assert!(sealer(&[2]).open("cursor", principal("a"), &new).is_some());
    }

    #[test]
    fn keys_are_replaced_while_handles_are_out() {
        let sealer = sealer(&[1]);
        let (old, ids) = (sealer.seal("cursor", principal("a"), b"x").unwrap(), sealer.key_ids());
        sealer.replace([&[2_u8; 32][..], &[1_u8; 32]]).unwrap();
        assert_eq!((sealer.key_ids().len(), &sealer.key_ids()[1..]), (2, &ids[..]));
        assert_eq!(sealer.open("cursor", principal("a"), &old).unwrap(), b"x");
        assert!(sealer.replace([&[3_u8; 5][..]]).is_err());
        assert_eq!(sealer.open("cursor", principal("a"), &old).unwrap(), b"x", "a bad list changes nothing");
        sealer.replace([&[2_u8; 32][..]]).unwrap();
        assert!(sealer.open("cursor", principal("a"), &old).is_none());
    }

    #[test]
    fn one_secret_gives_what_is_kept_other_keys_than_handles_have_and_what_was_kept_before_opens() {
        let secret = || [&[1_u8; 32][..]];
        let (handles, kept) = (Sealer::new(secret()).unwrap(), Sealer::of_what_is_kept(secret()).unwrap());
        assert_ne!(kept.key_ids().first(), handles.key_ids().first());
        let new = kept.seal("account", principal("a"), b"x").unwrap();
        assert!(handles.open("account", principal("a"), &new).is_none(), "it is not the same key");
        assert_eq!(kept.open("account", principal("a"), &new).unwrap(), b"x");
        let before = handles.seal("account", principal("a"), b"x").unwrap();
        assert_eq!(kept.open("account", principal("a"), &before).unwrap(), b"x");
        kept.replace([&[2_u8; 32][..], &[1_u8; 32]]).unwrap();
        let newest = kept.seal("account", principal("a"), b"x").unwrap();
        for sealed in [&new, &before, &newest] {
            assert_eq!(kept.open("account", principal("a"), sealed).unwrap(), b"x");
        }
        kept.replace([&[2_u8; 32][..]]).unwrap();
        assert!(kept.open("account", principal("a"), &new).is_none());
        assert!(kept.open("account", principal("a"), &newest).is_some());
    }

    #[test]
    fn a_handle_that_rests_on_what_was_taken_back_never_opens_again_and_a_new_one_does() {
        let (sealer, ann) = (sealer(&[2, 1]), Mark::of("subject", "corp", "ann"));
        let holder = |epoch| Holder::new(principal("a"), RevocationEpoch(epoch), vec![ann]);
        let old = sealer.seal_for("session", &holder(3), b"x").unwrap();
        let unbound = sealer.seal("session", principal("a"), b"y").unwrap();
        assert_eq!(sealer.open("session", principal("a"), &old).unwrap(), b"x");
        assert!(sealer.open("cursor", principal("a"), &old).is_none());
        assert!(sealer.open("session", principal("b"), &old).is_none());
        sealer.void(&[(ann, RevocationEpoch(4))], RevocationEpoch(0));
        // Whoever read the store before comes late.
        sealer.void(&[], RevocationEpoch(0));
        assert!(sealer.open("session", principal("a"), &old).is_none());
        assert_eq!(sealer.open("session", principal("a"), &unbound).unwrap(), b"y", "it rests on nothing");
        let new = sealer.seal_for("session", &holder(4), b"x").unwrap();
        assert_eq!(sealer.open("session", principal("a"), &new).unwrap(), b"x");
        sealer.replace([&[2_u8; 32][..]]).unwrap();
        assert!(sealer.open("session", principal("a"), &old).is_none(), "keys that are replaced let nothing back in");
    }

    #[test]
    fn whoever_hands_out_the_next_one_learns_what_the_last_one_rests_on() {
        let (sealer, ann) = (sealer(&[1]), Mark::of("subject", "corp", "ann"));
        let open = |handle: &str| sealer.open_resting("refresh", principal("a"), handle, limit::HANDLE_BYTES_MAX);
        let holder = Holder::new(principal("a"), RevocationEpoch(3), vec![ann]);
        let resting = sealer.seal_for("refresh", &holder, b"x").unwrap();
        let unbound = sealer.seal("refresh", principal("a"), b"y").unwrap();
        assert_eq!(open(&resting), Some((holder.clone(), b"x".to_vec())));
        let nobody = Holder::new(principal("a"), RevocationEpoch(0), Vec::new());
        assert_eq!(open(&unbound), Some((nobody.clone(), b"y".to_vec())));
        sealer.void(&[(ann, RevocationEpoch(4))], RevocationEpoch(0));
        assert!(open(&resting).is_none() && open(&unbound).is_some());
        assert!(!sealer.holds(&nobody.and([ann])) && sealer.holds(&holder.since(RevocationEpoch(4))));
        sealer.void(&[(Mark::EVERYTHING, RevocationEpoch(5))], RevocationEpoch(0));
        assert!(open(&unbound).is_none(), "everything was taken back");
    }

    #[test]
    fn a_weak_or_missing_key_is_refused() {
        assert_eq!(Sealer::new([]).unwrap_err(), SealerError::NoKey);
        assert_eq!(Sealer::new([&[7_u8; 31][..]]).unwrap_err(), SealerError::TooShort);
    }

    #[test]
    fn what_is_no_handle_does_not_open() {
        let sealer = sealer(&[1]);
        for text in ["", "a", "====", "AQ", "é", &"A".repeat(limit::HANDLE_BYTES_MAX + 1), &"A".repeat(100)] {
            assert!(sealer.open("p", principal("a"), text).is_none(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_handle_opens_only_where_it_belongs(
            content in proptest::collection::vec(any::<u8>(), 0..200),
            purpose in "[a-z/]{1,12}", other in "[a-z/]{1,12}", bit in any::<prop::sample::Index>(),
        ) {
            let sealer = sealer(&[1]);
            let handle = sealer.seal(&purpose, principal("a"), &content).unwrap();
            let opened = sealer.open(&purpose, principal("a"), &handle);
            prop_assert_eq!(opened.as_deref(), Some(content.as_slice()));
            prop_assert!(sealer.open(&purpose, principal("b"), &handle).is_none());
            prop_assert!(other == purpose || sealer.open(&other, principal("a"), &handle).is_none());
            prop_assert!(super::tests::sealer(&[2]).open(&purpose, principal("a"), &handle).is_none());
            let mut bytes = URL_SAFE_NO_PAD.decode(&handle).unwrap();
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(sealer.open(&purpose, principal("a"), &URL_SAFE_NO_PAD.encode(&bytes)).is_none());
        }
    }
}
