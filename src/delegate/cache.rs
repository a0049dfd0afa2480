//! Tokens that were issued, kept until their use ends.
//!
//! Decides that one question at a time is asked for one key, however many wait for its answer. Refuses to know what
//! the answer depends on: that is the key ([`super::key::Inputs`]). Invariant: nothing is found past its use.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
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

    /// The token of that key, if it is still good; one that is not is forgotten.
    pub async fn find(&self, key: &Digest, good: impl Fn(&Issued) -> bool) -> Option<Arc<Issued>> {
        let token = self.tokens.get(key).await?;
        if now_s() < token.used_until() && good(&token) {
            return Some(token);
        }
        self.tokens.invalidate(key).await;
        None
    }

    /// The token of that key that somebody else has issued meanwhile, or the one that is issued now.
    pub async fn get_or(
        &self,
        key: Digest,
        issue: BoxFuture<'_, Result<Arc<Issued>, Stop>>,
    ) -> Result<Arc<Issued>, Stop> {
        Box::pin(self.tokens.try_get_with(key, issue)).await.map_err(|stop| Stop::clone(&stop))
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
