//! Tokens that were issued, kept until their use ends.
//!
//! Decides that one question at a time is asked for one key, however many wait for its answer. Refuses to know what
//! the answer depends on: that is the key ([`super::key::Inputs`]). Invariant: nothing is found past its use.

use std::future::Future;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;

use super::issued::Issued;
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;
use crate::outcome::Stop;

/// Tokens that were issued.
#[derive(Debug)]
pub(super) struct Cache {
    tokens: moka::future::Cache<Digest, Arc<Issued>>,
}

impl Cache {
    pub fn new() -> Self {
        let tokens = moka::future::Cache::builder()
            .max_capacity(limit::EXCHANGED_BYTES_MAX)
            .weigher(|_, token: &Arc<Issued>| token.weight())
            .expire_after(UntilUse)
            .build();
        Self { tokens }
    }

    /// The token of that key that is still good, or the one that is issued now.
    pub async fn get_or<F>(&self, key: Digest, good: impl Fn(&Issued) -> bool, issue: F) -> Result<Arc<Issued>, Stop>
    where
        F: Future<Output = Result<Arc<Issued>, Stop>>,
    {
        if let Some(token) = self.tokens.get(&key).await {
            if now_s() < token.used_until() && good(&token) {
                return Ok(token);
            }
            self.tokens.invalidate(&key).await;
        }
        // Boxed, because most calls find theirs.
        self.tokens.try_get_with(key, Box::pin(issue)).await.map_err(|stop| Stop::clone(&stop))
    }

    /// Forgets the token of that key.
    pub async fn forget(&self, key: &Digest) {
        self.tokens.invalidate(key).await;
    }
}

/// Until its use ends.
struct UntilUse;

impl Expiry<Digest, Arc<Issued>> for UntilUse {
    fn expire_after_create(&self, _: &Digest, token: &Arc<Issued>, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(u64::try_from(token.used_until().saturating_sub(now_s())).unwrap_or(0)))
    }

    fn expire_after_update(
        &self,
        key: &Digest,
        token: &Arc<Issued>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, token, at)
    }
}
