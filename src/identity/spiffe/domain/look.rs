//! The bundle of a trust domain, read once for whoever wants to know whether it can be had.
//!
//! Decides which other bundles have to be read for that: those of whoever vouches for its endpoint. Refuses to keep any.
//! Invariant: what it finds out is what a gateway with the same files would.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::super::bundle::Bundle;
use super::super::endpoint::Neighbours;
use super::Domain;
use crate::config::IssuerConfig;
use crate::config::spiffe::{BundlePlace, IssuerKind, SpiffeConfig};
use crate::limit;

/// What a bundle holds, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BundleFacts {
    /// Keys that verify JWT-SVIDs.
    pub jwt_keys: usize,
    /// Whether it has roots, which verify X.509-SVIDs.
    pub roots: bool,
    /// How often it wants to be read.
    pub refresh: Duration,
    /// Why its keys, or its roots, cannot be had, where they come apart.
    pub without: Option<String>,
}

/// Reads the bundle of a trust domain once, as a gateway with this listener and these issuers would.
///
/// # Errors
/// Why it cannot be had, in words.
pub async fn look_at_bundle(
    issuer: &IssuerConfig,
    config: &SpiffeConfig,
    (issuers, listens_on_loopback): (&[Arc<IssuerConfig>], bool),
) -> Result<BundleFacts, String> {
    let neighbours: Arc<Neighbours> = Arc::default();
    let domain = |issuer: &IssuerConfig, config: &SpiffeConfig| {
        Domain::new(issuer, config, listens_on_loopback, CancellationToken::new()).among(&neighbours)
    };
    // Whoever vouches for somebody is read before them.
    let mut known = Vec::new();
    for (issuer, config) in vouching(config, issuers).into_iter().rev() {
        let voucher = Arc::new(domain(issuer, config));
        let problem = |problem| format!("its endpoint is known by the bundle of {}: {problem}", config.trust_domain);
        voucher.look().await.map_err(problem)?;
        known.push((config.trust_domain.clone(), voucher));
        neighbours.replace(known.iter().map(|(name, domain)| (name, domain)));
    }
    domain(issuer, config).look().await
}

/// Whoever vouches for the endpoint of a trust domain, for theirs, and so on.
fn vouching<'a>(config: &SpiffeConfig, issuers: &'a [Arc<IssuerConfig>]) -> Vec<(&'a IssuerConfig, &'a SpiffeConfig)> {
    let find = |config: &SpiffeConfig| {
        let name = config.voucher()?;
        issuers.iter().find_map(|issuer| match &issuer.kind {
            IssuerKind::Spiffe(spiffe) if spiffe.trust_domain == *name => Some((&**issuer, spiffe)),
            IssuerKind::Spiffe(_) | IssuerKind::Oidc => None,
        })
    };
    // The files have no circle.
    std::iter::successors(find(config), |(_, config)| find(config)).take(issuers.len()).collect()
}

impl Domain {
    /// Reads what it can at this moment, and knows it from then on.
    async fn look(&self) -> Result<BundleFacts, String> {
        let bundle = self.read(self.client().await?.as_ref()).await;
        let BundlePlace::Workload(socket) = &self.config.bundle else {
            let bundle = bundle?;
            let (jwt_keys, roots, refresh) = (bundle.len(), bundle.roots.is_some(), bundle.refresh);
            self.finished(Ok(bundle));
            return Ok(BundleFacts { jwt_keys, roots, refresh, without: None });
        };
        // Each of the two lets somebody in by itself.
        let jwt_keys = bundle.as_ref().map_or(0, Bundle::len);
        let roots = self.read_roots(socket).await;
        let has_roots = roots.as_ref().is_ok_and(|roots| roots.verifier.is_some());
        let no_keys = bundle.as_ref().err().map(|problem| format!("no keys for JWT-SVIDs: {problem}"));
        let no_roots = roots.as_ref().err().map(|problem| format!("no roots for X.509-SVIDs: {problem}"));
        self.rooted(roots);
        self.finished(bundle);
        let problems: Vec<String> = no_keys.into_iter().chain(no_roots).collect();
        let without = (!problems.is_empty()).then(|| problems.join("; "));
        match without {
            Some(problem) if jwt_keys == 0 && !has_roots => Err(problem),
            without => Ok(BundleFacts { jwt_keys, roots: has_roots, refresh: limit::BUNDLE_REFRESH_USUAL, without }),
        }
    }
}
