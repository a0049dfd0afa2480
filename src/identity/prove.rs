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
use crate::wire::handle::Sealer;

/// What nonces are sealed for.
const PURPOSE: &str = "dpop-nonce";

impl Identity {
    /// A nonce for the next proofs, where the configuration wants them to have one.
    #[must_use]
    pub fn proof_nonce(&self) -> Option<String> {
        if !self.settings.load().needs_nonce {
            return None;
        }
        fresh(self.sealer.as_ref()?, now_s())
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
        let sealed = proof.nonce.zip(self.sealer.as_ref());
        if needs_nonce && !sealed.is_some_and(|(nonce, sealer)| is_fresh(sealer, &nonce, now)) {
            return Err(Refusal::new(Reason::DpopNonceRequired));
        }
        self.replays.take(entry.verified.token.bearer(), proof.id, now)
    }
}

/// Whether a nonce is one of ours, of these minutes; replicas' clocks may differ by a little.
fn is_fresh(sealer: &Sealer, nonce: &str, now: i64) -> bool {
    let opened = sealer.open_within(PURPOSE, anybody(), nonce, limit::DPOP_NONCE_BYTES_MAX);
    let made = opened.and_then(|bytes| Some(i64::from_be_bytes(bytes.try_into().ok()?)));
    made.is_some_and(|made| made.abs_diff(now) <= limit::DPOP_NONCE_LIFE.as_secs())
}

fn fresh(sealer: &Sealer, now: i64) -> Option<String> {
    sealer.seal(PURPOSE, anybody(), &now.to_be_bytes()).ok()
}

/// A nonce is good for whoever has it: that it is recent is all that it says.
const fn anybody() -> PrincipalKey {
    PrincipalKey(Digest::from_bytes([0; 32]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_for_some_minutes_and_only_where_it_was_made() {
        let sealer = |key: u8| Sealer::new([&[key; 32][..]]).unwrap();
        let (own, now) = (sealer(1), 1_800_000_000);
        let nonce = fresh(&own, now).unwrap();
        let life = i64::try_from(limit::DPOP_NONCE_LIFE.as_secs()).unwrap();
        for (after, good) in [(0, true), (life, true), (-life, true), (life + 1, false), (-life - 1, false)] {
            assert_eq!(is_fresh(&own, &nonce, now + after), good, "{after} s");
        }
        assert!(!is_fresh(&sealer(2), &nonce, now));
        let other = own.seal("something-else", anybody(), &now.to_be_bytes()).unwrap();
        assert!(!is_fresh(&own, &other, now), "sealed for something else");
        let long = own.seal(PURPOSE, anybody(), &[0; limit::DPOP_NONCE_BYTES_MAX]).unwrap();
        assert!(!is_fresh(&own, &long, 0));
        assert!(nonce.len() <= limit::DPOP_NONCE_BYTES_MAX);
    }
}
