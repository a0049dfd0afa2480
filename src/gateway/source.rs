//! Lists for the catalog, fetched through the upstream room with the credential that is due.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::Live;
use super::pins::Keeper;
use crate::catalog::{Access, Facts, Listed, Listing, Source};
use crate::config::ServerConfig;
use crate::delegate::{Bound, CredentialHeader, Delegate};
use crate::identity::Caller;
use crate::ids::{AuthorizationContext, ServerId};
use crate::limit;
use crate::link::tool;
use crate::outcome::{Failure, Reason, Stop};
use crate::upstream::{self, Upstreams};
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// Lists for the catalog.
pub struct UpstreamSource {
    pub(super) live: Arc<Live>,
    pub(super) delegate: Arc<Delegate>,
    pub(super) upstreams: Arc<Upstreams>,
    pub(super) keeper: Arc<Keeper>,
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

/// What a server is to somebody who has no account there yet.
fn unlinked() -> Facts {
    let capabilities = Json::of(&serde_json::json!({ "tools": { "listChanged": true } }));
    Facts { capabilities, instructions: None, info: None }
}

/// The tool that links one. Looked at again soon: another replica may have stored the account.
fn unlinked_list(kind: Kind) -> Listing {
    let items = if kind == Kind::Tool { vec![tool::definition()] } else { Vec::new() };
    Listing { items, ttl: Some(limit::LINK_LIST_TTL), public: false, own: true }
}

impl Source for UpstreamSource {
    type Caller = Caller;

    fn facts<'a>(&'a self, server: &'a ServerId, access: &'a Access<Caller>) -> BoxFuture<'a, Result<Facts, Failure>> {
        Box::pin(async move {
            let (server, access) = match self.access(server, access).await {
                Err(failure) if failure.reason == Reason::AccountLinkRequired => return Ok(unlinked()),
                access => access?,
            };
            let facts = match self.upstreams.facts_for(&server, &access).await {
                Err(failure) if failure.reason == Reason::AccountLinkRequired => return Ok(unlinked()),
                facts => facts?,
            };
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
            let (server, access) = match self.access(server, access).await {
                Err(failure) if failure.reason == Reason::AccountLinkRequired => return Ok(unlinked_list(kind)),
                access => access?,
            };
            let listing = match self.upstreams.list_for(&server, &access, kind).await {
                // The server takes no account of theirs any more, or one that was linked for more.
                Err(failure) if failure.reason == Reason::AccountLinkRequired => return Ok(unlinked_list(kind)),
                listing => listing?,
            };
            Ok(Listing { items: listing.items, ttl: listing.ttl, public: listing.public, own: false })
        })
    }

    fn listed<'a>(&'a self, listed: Listed<'a>) -> BoxFuture<'a, ()> {
        let config = Arc::clone(&self.live.snapshot.load().config);
        Box::pin(async move { self.keeper.listed(listed, &config.webhooks).await })
    }
}
