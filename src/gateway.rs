//! Wires the rooms together. Decides nothing: it holds the handles that `call`, `list` and `watch` compose.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::call::Endpoint;
use crate::config::Config;
use crate::identity::Caller;
use crate::outcome::{Reason, Refusal, Stop};

/// The running gateway: shared handles, and one snapshot of configuration and policy per decision.
pub struct Gateway {
    config: ArcSwap<Config>,
}

impl Gateway {
    /// The configuration in force.
    #[must_use]
    pub fn config(&self) -> Arc<Config> {
        self.config.load_full()
    }

    /// Who presents this bearer token at this endpoint; a refusal is counted and recorded here.
    ///
    /// # Errors
    /// A 401 refusal, or a failure where the issuer's keys cannot be had.
    pub async fn authenticate(
        &self,
        bearer: Option<&str>,
        endpoint: &Endpoint,
        peer: std::net::IpAddr,
    ) -> Result<Caller, Stop> {
        let _ = (bearer, endpoint, peer);
        Err(Refusal::new(Reason::TokenMissing).into())
    }

    /// Counts and records a refusal of somebody who was not authenticated; never waits for the disk.
    pub fn refused_unauthenticated(&self, reason: Reason, peer: std::net::IpAddr) {
        let _ = (reason, peer);
    }

    /// Fires when the gateway begins to stop: streams end, sessions are closed.
    #[must_use]
    pub fn stopping(&self) -> tokio_util::sync::CancellationToken {
        tokio_util::sync::CancellationToken::new()
    }
}
