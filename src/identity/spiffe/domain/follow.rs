//! What the Workload API says of a trust domain, for as long as it says something: its keys on one stream, its roots on
//! another.
//!
//! Decides when a stream is opened anew. Refuses to know what a bundle is. Invariants: trouble with one stream changes nothing
//! of the other; trouble withdraws nothing before it is too old, and what is left out of a message is withdrawn at once, as is
//! everything once it knows us no more, on whichever stream it says so.

use std::path::Path;
use std::sync::Arc;

use super::super::bundle::Bundle;
use super::super::roots::Roots;
use super::Domain;
use crate::config::spiffe::BundlePlace;
use crate::egress::workload::{Asked, Bundles, Told};
use crate::identity::issuer::pause_after;
use crate::limit;

impl Domain {
    /// Hears both for as long as it is polled.
    pub(super) async fn follow(&self, socket: &Path) {
        tokio::join!(self.follow_one(socket, Asked::Keys), self.follow_one(socket, Asked::Roots));
    }

    /// Asks anew where it has been silent, because a stream may be dead without anyone having noticed.
    async fn follow_one(&self, socket: &Path, asked: Asked) {
        let mut failures = 0_u32;
        loop {
            let problem = match Bundles::open(socket, asked, self.has_some(asked)).await {
                Ok(mut bundles) => self.hear(&mut bundles, asked, &mut failures).await,
                Err(problem) => Some(problem),
            };
            let Some(problem) = problem else { continue };
            failures = failures.saturating_add(1);
            match asked {
                Asked::Keys => self.finished(Err(problem)),
                Asked::Roots => self.rooted(Err(problem)),
            }
            tokio::time::sleep(pause_after(failures)).await;
        }
    }

    /// Whether anything counts that it has said.
    fn has_some(&self, asked: Asked) -> bool {
        match asked {
            Asked::Keys => self.known().is_some_and(|known| known.len() > 0),
            Asked::Roots => self.has_roots(),
        }
    }

    /// Whether there are roots that came apart from the keys.
    pub(super) fn has_roots(&self) -> bool {
        self.apart().is_some_and(|roots| roots.verifier.is_some())
    }

    /// What is wrong with a stream; nothing, where it has only been silent.
    async fn hear(&self, bundles: &mut Bundles, asked: Asked, failures: &mut u32) -> Option<String> {
        let mut first = true;
        loop {
            let patience = if first { limit::WORKLOAD_API_TIMEOUT } else { self.often(limit::BUNDLE_REFRESH_USUAL) };
            let said = tokio::time::timeout(patience, bundles.next(self.config.trust_domain.as_str())).await;
            match said {
                Ok(Ok(told)) => {
                    if let Err(problem) = self.told(asked, told.as_ref()) {
                        return Some(problem);
                    }
                }
                Ok(Err(problem)) => return Some(problem),
                Err(_) if first => return Some("it says nothing".to_owned()),
                Err(_) => return None,
            }
            *failures = 0;
            first = false;
        }
    }

    fn told(&self, asked: Asked, told: Option<&Told>) -> Result<(), String> {
        match (asked, told) {
            (Asked::Keys, Some(told)) => self.finished(Ok(Bundle::of_workload_api(&told.bundle)?)),
            // Not trouble, after which what we have would hold: it is not to be used any more.
            (Asked::Keys, None) => self.withdrawn(Bundle::of_nothing()?),
            (Asked::Roots, Some(told)) => self.rooted(Ok(Roots::read(told)?)),
            (Asked::Roots, None) => {
                tracing::warn!(issuer = %self.alias, trust_domain = %self.config.trust_domain, "its workload API has no roots of it for this process: no certificate of a trust domain counts any more");
                self.rooted(Ok(Roots::none()));
            }
        }
        Ok(())
    }

    pub(super) fn rooted(&self, outcome: Result<Roots, String>) {
        let problem = match outcome {
            Ok(roots) => {
                let digest = roots.digest;
                let before = self.apart.swap(Some(Arc::new(roots)));
                if before.is_none_or(|before| before.digest != digest) {
                    self.moved();
                    tracing::info!(issuer = %self.alias, trust_domain = %self.config.trust_domain, "the roots changed");
                }
                None
            }
            Err(problem) => {
                tracing::warn!(issuer = %self.alias, bundle = %self.config.bundle, problem, "the roots of a trust domain were not read");
                if self.apart.load().is_some() && self.apart().is_none() {
                    self.apart.store(None);
                    self.moved();
                }
                Some(problem)
            }
        };
        self.attempts.send_modify(|attempt| {
            attempt.roots_count += 1;
            attempt.roots_problem = problem;
        });
    }

    /// What came apart from the keys, unless it is too old.
    pub(super) fn apart(&self) -> Option<Arc<Roots>> {
        self.apart.load_full().filter(|roots| roots.fetched_at.elapsed() <= self.stale_max)
    }

    /// Whether its roots come apart from its keys.
    pub(super) const fn comes_apart(&self) -> bool {
        matches!(self.config.bundle, BundlePlace::Workload(_))
    }

    /// What it says of its roots at this moment.
    pub(super) async fn read_roots(&self, socket: &Path) -> Result<Roots, String> {
        let mut bundles = Bundles::open(socket, Asked::Roots, false).await?;
        let said = tokio::time::timeout(limit::WORKLOAD_API_TIMEOUT, bundles.next(self.config.trust_domain.as_str()));
        let said = said.await.map_err(|_| "it says nothing".to_owned())??;
        said.map_or_else(|| Ok(Roots::none()), |told| Roots::read(&told))
    }
}
