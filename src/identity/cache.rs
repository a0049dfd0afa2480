//! What was found out about tokens before, by the SHA-256 of the token.
//!
//! Decides how long a finding may be used. Invariants: a finding is used only while the configuration and
//! the issuer's keys are those that it was made with; junk cannot push out what is good, because refused
//! tokens are remembered elsewhere. Revocation is not looked at here but on every hit.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use moka::Expiry;
use moka::sync::Cache;
use secrecy::ExposeSecret;

use super::binding::Binding;
use super::caller::Verified;
use super::issuer::Issuer;
use super::resource::Reach;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Refusal;

/// What was found out about tokens before.
#[derive(Debug)]
pub(super) struct TokenCache {
    verified: Cache<Digest, Arc<Entry>>,
    refused: Cache<Digest, Arc<Refused>>,
}

/// What a finding was made with; it holds while nothing of that has changed.
#[derive(Debug, Clone)]
pub(super) struct Basis {
    pub issuer: Option<(Arc<Issuer>, u64)>,
    /// The changes of a trust domain's bundle, and how many there had been.
    pub bundle: Option<(Arc<AtomicU64>, u64)>,
    pub revision: u64,
}

/// A token that was verified.
#[derive(Debug)]
pub(super) struct Entry {
    pub verified: Arc<Verified>,
    pub reach: Reach,
    /// What it has to come with, looked at on every hit.
    pub binding: Binding,
    /// Not to be used from this second since 1970 on.
    pub until: i64,
    pub basis: Basis,
    /// The same where a certificate of its agent came along.
    pub with_certificate: OnceLock<Arc<Verified>>,
}

#[derive(Debug)]
struct Refused {
    refusal: Refusal,
    /// When, seconds since 1970.
    at: i64,
    basis: Basis,
}

impl Basis {
    fn holds(&self, revision: u64) -> bool {
        self.revision == revision
            && self.issuer.as_ref().is_none_or(|(issuer, generation)| issuer.generation() == *generation)
            && self.bundle.as_ref().is_none_or(|(changes, count)| changes.load(Ordering::Acquire) == *count)
    }
}

impl TokenCache {
    pub fn new() -> Self {
        let verified = Cache::builder()
            .max_capacity(limit::TOKEN_CACHE_BYTES_MAX)
            .weigher(|_, entry: &Arc<Entry>| entry.weight())
            .expire_after(UntilExpiry)
            .build();
        let refused = Cache::builder()
            .max_capacity(limit::TOKEN_REFUSED_ENTRIES_MAX)
            .time_to_live(limit::TOKEN_REFUSED_LIFE)
            .build();
        Self { verified, refused }
    }

    /// The verified token, if it may still be used. Allocates nothing.
    pub fn verified(&self, digest: &Digest, revision: u64, now: i64) -> Option<Arc<Entry>> {
        self.verified.get(digest).filter(|entry| now < entry.until && entry.basis.holds(revision))
    }

    /// Why it was refused moments ago. What a clock said that has been set back since says nothing.
    pub fn refused(&self, digest: &Digest, revision: u64, now: i64) -> Option<Refusal> {
        let holds = |refused: &Arc<Refused>| refused.basis.holds(revision) && refused.at <= now;
        let refused = self.refused.get(digest).filter(holds)?;
        Some(refused.refusal.clone())
    }

    pub fn keep(&self, digest: Digest, entry: Arc<Entry>, now: i64) {
        if entry.until > now {
            self.verified.insert(digest, entry);
        }
    }

    pub fn keep_refused(&self, digest: Digest, refusal: Refusal, basis: Basis, at: i64) {
        self.refused.insert(digest, Arc::new(Refused { refusal, at, basis }));
    }
}

impl Entry {
    /// Bytes, roughly; at least so many that the number of entries is bounded as well.
    fn weight(&self) -> u32 {
        let persona = &self.verified.persona;
        let groups = match &persona.groups {
            super::Groups::Known(groups) => groups.iter().map(|group| group.as_str().len() + 32).sum(),
            super::Groups::Unknown(why) => why.len(),
        };
        let scopes: usize = persona.scopes.iter().map(|scope| scope.len() + 24).sum();
        let raw = self.verified.raw.as_ref().map_or(0, |raw| raw.expose_secret().len());
        u32::try_from(groups + scopes + raw + self.verified.ground.weight() + limit::TOKEN_CACHE_ENTRY_BYTES_MIN)
            .unwrap_or(u32::MAX)
    }
}

/// Until the token expires, and no longer than [`limit::TOKEN_CACHE_LIFE_MAX`].
fn life(until: i64, now: i64) -> Duration {
    let left = u64::try_from(until.saturating_sub(now)).unwrap_or(0);
    Duration::from_secs(left).min(limit::TOKEN_CACHE_LIFE_MAX)
}

/// Lets each entry live as long as [`life`] says.
struct UntilExpiry;

impl Expiry<Digest, Arc<Entry>> for UntilExpiry {
    fn expire_after_create(&self, _: &Digest, entry: &Arc<Entry>, _: Instant) -> Option<Duration> {
        Some(life(entry.until, super::now_s()))
    }

    fn expire_after_update(
        &self,
        key: &Digest,
        entry: &Arc<Entry>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, entry, at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verified_token_is_kept_until_it_expires_and_for_five_minutes_at_most() {
        assert_eq!(limit::TOKEN_CACHE_LIFE_MAX, Duration::from_secs(5 * 60));
        let now = 1_800_000_000;
        assert_eq!(life(now + 10, now), Duration::from_secs(10));
        assert_eq!(life(now + 3_600, now), limit::TOKEN_CACHE_LIFE_MAX);
        assert_eq!(life(now + 300, now), limit::TOKEN_CACHE_LIFE_MAX);
        assert_eq!(life(i64::MAX, i64::MIN), limit::TOKEN_CACHE_LIFE_MAX);
        for past in [now, now - 1, i64::MIN] {
            assert_eq!(life(past, now), Duration::ZERO);
        }
    }
}
