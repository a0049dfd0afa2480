//! Issued credentials that still work somewhere, whether they are used any more or not.
//!
//! Decides for how long a credential is remembered so that it can be taken back: until it ends by itself. Invariant:
//! nothing of this outlives the process.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;

use super::issued::Issued;
use crate::identity::now_s;
use crate::limit;

/// What was issued and has not ended, by its name in the ledger.
#[derive(Debug)]
pub(super) struct Held {
    credentials: moka::sync::Cache<String, Arc<Issued>>,
}

impl Held {
    pub fn new() -> Self {
        let credentials = moka::sync::Cache::builder()
            .max_capacity(limit::EXCHANGED_BYTES_MAX)
            .weigher(|_, issued: &Arc<Issued>| issued.weight())
            .expire_after(UntilItEnds)
            .build();
        Self { credentials }
    }

    pub fn hold(&self, issued: &Arc<Issued>) {
        self.credentials.insert(issued.id.clone(), Arc::clone(issued));
    }

    pub fn holds(&self, id: &str) -> bool {
        self.credentials.contains_key(id)
    }

    /// For which governed tasks something is held.
    pub fn mandates(&self) -> BTreeSet<String> {
        self.credentials.iter().filter_map(|(_, issued)| issued.mandate.clone()).collect()
    }

    /// Takes out what fits.
    pub fn take(&self, fits: impl Fn(&Issued) -> bool) -> Vec<Arc<Issued>> {
        let found: Vec<Arc<Issued>> =
            self.credentials.iter().map(|(_, issued)| issued).filter(|one| fits(one)).collect();
        // Two revocations at once take each of them once.
        found.into_iter().filter_map(|issued| self.credentials.remove(&issued.id)).collect()
    }
}

/// Until it ends by itself.
struct UntilItEnds;

impl Expiry<String, Arc<Issued>> for UntilItEnds {
    fn expire_after_create(&self, _: &String, issued: &Arc<Issued>, _: Instant) -> Option<Duration> {
        let Some(ends) = issued.facts(None).expires_at else { return Some(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT) };
        Some(Duration::from_secs(u64::try_from(ends.saturating_sub(now_s())).unwrap_or(0)))
    }
}
