//! What somebody's credential rests on for as long as they act with it: a key, a root, the word of its issuer.
//!
//! Decides whether that is still there, for streams and calls that outlive the moment in which their caller was
//! verified. Refuses to know revocations and the files. Invariant: what was withdrawn carries nobody any further; keys
//! that come or go beside the one that counts disturb nobody.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use rustls::pki_types::{CertificateDer, UnixTime};
use secrecy::{ExposeSecret as _, SecretString};

use super::caller::{Caller, Verified};
use super::chain::Fresh;
use super::introspect::Introspector;
use super::issuer::Issuer;
use super::spiffe::Domain;
use super::{now_s, verify};
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// What a credential rests on.
#[derive(Debug, Default)]
pub(super) enum Ground {
    /// On our own configuration alone.
    #[default]
    Ours,
    /// On a key that an issuer publishes.
    Key { issuer: Arc<Issuer>, key: Digest, seen: Seen },
    /// On a key in the bundle of a trust domain.
    SvidKey { domain: Arc<Domain>, key: Digest, seen: Seen },
    /// On a root in the bundle of a trust domain; leaf first.
    Root { domain: Arc<Domain>, chain: Vec<CertificateDer<'static>>, seen: Seen },
    /// On what an issuer says of a token whenever it is asked.
    Word { issuer: Arc<Issuer>, introspector: Arc<Introspector>, token: SecretString, asked_at: i64 },
}

/// Up to which change it was looked at.
#[derive(Debug)]
pub(super) struct Seen(AtomicU64);

impl Seen {
    /// As it was then.
    pub const fn at(generation: u64) -> Self {
        Self(AtomicU64::new(generation))
    }

    /// Whether something has changed since; the caller looks then.
    fn is_behind(&self, generation: u64) -> bool {
        self.0.load(Ordering::Relaxed) != generation
    }

    fn catch_up(&self, generation: u64) {
        self.0.store(generation, Ordering::Relaxed);
    }
}

impl Ground {
    /// Whether it is still there, as far as is known here; asks nobody.
    ///
    /// # Errors
    /// `signature_invalid`, `certificate_refused`, `issuer_unknown`, `issuer_unavailable`.
    pub fn stands(&self) -> Result<(), Refusal> {
        match self {
            Self::Ours => Ok(()),
            Self::Word { issuer, .. } => still_ours(issuer.is_retired()),
            Self::Key { issuer, key, seen } => {
                still_ours(issuer.is_retired())?;
                // Read before the keys: what changes in between is looked at again.
                let generation = issuer.generation();
                if seen.is_behind(generation) {
                    let known = issuer.known().ok_or_else(unavailable)?;
                    if !known.keys.has(key) {
                        return Err(withdrawn(Reason::SignatureInvalid, "the key that signed the token"));
                    }
                    seen.catch_up(generation);
                }
                Ok(())
            }
            Self::SvidKey { domain, key, seen } => {
                still_ours(domain.is_retired())?;
                let generation = domain.generation().load(Ordering::Acquire);
                if seen.is_behind(generation) {
                    if !domain.has_key(key).ok_or_else(unavailable)? {
                        return Err(withdrawn(Reason::SignatureInvalid, "the key that signed the token"));
                    }
                    seen.catch_up(generation);
                }
                Ok(())
            }
            Self::Root { domain, chain, seen } => {
                still_ours(domain.is_retired())?;
                let generation = domain.generation().load(Ordering::Acquire);
                if seen.is_behind(generation) {
                    let [leaf, further @ ..] = chain.as_slice() else { return Err(unavailable()) };
                    domain.issued(leaf, further, UnixTime::now()).map_err(|reason| match reason {
                        Reason::IssuerUnavailable => unavailable(),
                        reason => withdrawn(reason, "the root of the client certificate"),
                    })?;
                    seen.catch_up(generation);
                }
                Ok(())
            }
        }
    }

    /// How many bytes it keeps, roughly.
    pub fn weight(&self) -> usize {
        match self {
            Self::Ours | Self::Key { .. } | Self::SvidKey { .. } => 0,
            Self::Root { chain, .. } => chain.iter().map(|certificate| certificate.len()).sum(),
            Self::Word { token, .. } => token.expose_secret().len(),
        }
    }
}

/// An issuer that is read in another way since a reload is another one: nobody keeps these keys fresh any more.
fn still_ours(retired: bool) -> Result<(), Refusal> {
    if retired {
        return Err(Refusal::new(Reason::IssuerUnknown).hint("the issuer's entry has changed; connect again"));
    }
    Ok(())
}

fn unavailable() -> Refusal {
    Refusal::new(Reason::IssuerUnavailable)
}

fn withdrawn(reason: Reason, what: &str) -> Refusal {
    Refusal::new(reason).hint(format!("{what} was withdrawn; connect again with a new one"))
}

impl Caller {
    /// Whether what their credentials rest on is still there, as far as is known here.
    ///
    /// # Errors
    /// As [`Ground::stands`].
    pub fn still_verified(&self) -> Result<(), Refusal> {
        self.all_verified().try_for_each(|verified| verified.ground.stands())
    }

    /// Done once an issuer that has to be asked does not vouch for their token any more; nothing where none has to be.
    #[must_use]
    pub fn disowned(&self) -> Option<BoxFuture<'static, Reason>> {
        let verified = Arc::clone(&self.verified);
        matches!(*verified.ground, Ground::Word { .. }).then(|| Box::pin(keep_asking(verified)) as _)
    }
}

/// Asks as often as a request with the same token would.
async fn keep_asking(verified: Arc<Verified>) -> Reason {
    let Ground::Word { issuer, introspector, token, asked_at } = &*verified.ground else {
        return std::future::pending().await;
    };
    let life = verify::seconds(limit::INTROSPECTED_LIFE_MAX);
    let mut asked_at = *asked_at;
    loop {
        let left = asked_at.saturating_add(life).saturating_sub(now_s()).clamp(1, life);
        tokio::time::sleep(Duration::from_secs(left.unsigned_abs())).await;
        let shown = Fresh { text: token.expose_secret(), digest: verified.token.digest, comes: true };
        match introspector.ask(issuer, shown).await {
            Ok(reply) => asked_at = reply.asked_at,
            Err(stop) => return stop.reason(),
        }
    }
}
