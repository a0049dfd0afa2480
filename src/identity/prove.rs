//! Whether a request that comes with a token bound to a key has proven that it has the key.
//!
//! Decides which nonces are ours and fresh, and takes each proof once. Invariant: a caller of a bound token exists only
//! for a proof that was checked and had not come before.

use super::cache::Entry;
use super::presented::Shown;
use super::resource::Resource;
use super::{Identity, dpop, now_s};
use crate::ids::{Digest, PrincipalKey};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// What nonces are sealed for.
const PURPOSE: &str = "dpop-nonce";

impl Identity {
    /// A nonce for the next proofs, where the configuration wants them to have one.
    #[must_use]
    pub fn proof_nonce(&self) -> Option<String> {
        if !self.settings.load().needs_nonce {
            return None;
        }
        self.sealer.as_ref()?.seal(PURPOSE, anybody(), &now_s().to_be_bytes()).ok()
    }

    /// Whether the request comes with a new proof of the key that its token is bound to.
    pub(super) fn prove(
        &self,
        entry: &Entry,
        shown: &Shown<'_>,
        (token, key): (&Digest, &Digest),
        resource: &Resource,
    ) -> Result<(), Refusal> {
        let (address, needs_nonce) = {
            let settings = self.settings.load();
            (settings.names.of(resource), settings.needs_nonce)
        };
        let now = now_s();
        let expected = dpop::Expected { method: shown.method, address: &address, token, key, now };
        let proof = dpop::check(shown.proof, &expected)?;
        if needs_nonce && !proof.nonce.is_some_and(|nonce| self.is_fresh(&nonce, now)) {
            return Err(Refusal::new(Reason::DpopNonceRequired));
        }
        self.replays.take(entry.verified.principal, proof.id)
    }

    fn is_fresh(&self, nonce: &str, now: i64) -> bool {
        let opened = self
            .sealer
            .as_ref()
            .and_then(|sealer| sealer.open_within(PURPOSE, anybody(), nonce, limit::DPOP_NONCE_BYTES_MAX));
        let made = opened.and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
        // Replicas' clocks may differ by a little.
        made.is_some_and(|made| made.abs_diff(now) <= limit::DPOP_NONCE_LIFE.as_secs())
    }
}

/// A nonce is good for whoever has it: that it is recent is all that it says.
const fn anybody() -> PrincipalKey {
    PrincipalKey(Digest::from_bytes([0; 32]))
}
