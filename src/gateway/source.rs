//! Lists for the catalog, fetched through the upstream room with the credential that is due.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Live;
use crate::catalog::{Access, Facts, Listing, Source};
use crate::config::ServerConfig;
use crate::delegate::{Bound, CredentialHeader, Delegate};
use crate::identity::Caller;
use crate::ids::{AuthorizationContext, ServerId};
use crate::outcome::{Failure, Reason, Stop};
use crate::upstream::{self, Upstreams};
use crate::wire::mcp::Kind;

/// Lists for the catalog.
pub struct UpstreamSource {
    pub(super) live: Arc<Live>,
    pub(super) delegate: Arc<Delegate>,
    pub(super) upstreams: Arc<Upstreams>,
}

impl UpstreamSource {
    /// The server as it is configured now, and what is presented to it: made for it and for no other.
    async fn access(
        &self,
        server: &ServerId,
        access: &Access<Caller>,
    ) -> Result<(Arc<ServerConfig>, upstream::Access), Failure> {
        let config = Arc::clone(&self.live.snapshot.load().config);
        let Some(server) = config.server(server) else {
            return Err(Failure::before(Reason::UpstreamUnreachable, "the server is not configured any more"));
        };
        let (context, principal, caller) = match access {
            Access::Gateway => (AuthorizationContext::Gateway, None, None),
            // In the session or process of the caller's own calls, which is what their list says.
            Access::Caller(principal, caller) => {
                (Delegate::context(caller, server, None), Some(*principal), Some(caller))
            }
        };
        let credential = self.credential(server, caller).await?;
        Ok((Arc::clone(server), upstream::Access { context, principal, credential }))
    }

    async fn credential(
        &self,
        server: &Arc<ServerConfig>,
        caller: Option<&Caller>,
    ) -> Result<Option<CredentialHeader>, Failure> {
        let credential = match caller {
            Some(caller) => self.delegate.credential_for(caller, server, None, Bound::default()).await,
            None => self.delegate.gateway_credential(server, None).await,
        };
        match credential {
            Ok(credential) => Ok(credential.header),
            Err(Stop::Failed(failure)) => Err(failure),
            Err(Stop::Refused(refusal)) => Err(Failure::before(refusal.reason, refusal.hint)),
        }
    }
}

impl Source for UpstreamSource {
    type Caller = Caller;

    fn facts<'a>(&'a self, server: &'a ServerId, access: &'a Access<Caller>) -> BoxFuture<'a, Result<Facts, Failure>> {
        Box::pin(async move {
            let (server, access) = self.access(server, access).await?;
            let facts = self.upstreams.facts_for(&server, &access).await?;
            Ok(Facts { capabilities: facts.capabilities, instructions: facts.instructions, info: facts.info })
        })
    }

    fn list<'a>(
        &'a self,
        server: &'a ServerId,
        access: &'a Access<Caller>,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Listing, Failure>> {
        Box::pin(async move {
            let (server, access) = self.access(server, access).await?;
            let listing = self.upstreams.list_for(&server, &access, kind).await?;
            Ok(Listing { items: listing.items, ttl: listing.ttl, public: listing.public })
        })
    }
}
