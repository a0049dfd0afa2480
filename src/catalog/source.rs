//! What the catalog needs of the upstream room: lists and facts, fetched with a stated credential.
//!
//! The gateway's wiring implements [`Source`]; the catalog never sees a connection, a token or a caller.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use super::slice::Slice;
use crate::config::{ListAs, ServerConfig};
use crate::ids::{AuthorizationContext, PrincipalKey, ServerId};
use crate::outcome::Failure;
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// With whose credential a server is listed.
///
/// `C` is whatever the [`Source`] needs to act for a caller; the catalog only carries it.
#[derive(Clone)]
pub enum Access<C> {
    /// The gateway's own credential, or none: the slice is everyone's.
    Gateway,
    /// A caller's: the slice is never shown to another.
    Caller(PrincipalKey, C),
}

impl<C> Access<C> {
    /// Whose slice it is.
    #[must_use]
    pub const fn context(&self) -> AuthorizationContext {
        match self {
            Self::Gateway => AuthorizationContext::Gateway,
            Self::Caller(principal, _) => AuthorizationContext::Principal(*principal),
        }
    }
}

impl<C> fmt::Debug for Access<C> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.context().fmt(formatter)
    }
}

/// Who looks at the catalog: whose own slices are theirs, and what it takes to list for them.
#[derive(Debug)]
pub struct Viewer<'a, C> {
    /// Whose slices.
    pub principal: PrincipalKey,
    /// What the [`Source`] needs.
    pub caller: &'a C,
}

impl<C> Clone for Viewer<'_, C> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<C> Copy for Viewer<'_, C> {}

impl<C: Clone> Viewer<'_, C> {
    /// With whose credential a server is listed for this viewer, as its `list_as` says.
    pub(super) fn access(&self, server: &ServerConfig) -> Access<C> {
        match server.list_as {
            ListAs::Gateway => Access::Gateway,
            ListAs::Caller => Access::Caller(self.principal, self.caller.clone()),
        }
    }
}

impl<C> Viewer<'_, C> {
    /// Whose slice of a server this viewer sees.
    pub(super) const fn context(&self, server: &ServerConfig) -> AuthorizationContext {
        match server.list_as {
            ListAs::Gateway => AuthorizationContext::Gateway,
            ListAs::Caller => AuthorizationContext::Principal(self.principal),
        }
    }
}

/// One complete list, all pages together.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The items as the upstream sent them, in its order.
    pub items: Vec<Json>,
    /// `ttlMs`; the smallest of all pages. `None` and zero mean: good until something says otherwise.
    pub ttl: Option<Duration>,
    /// Whether `cacheScope` was `public` on every page.
    pub public: bool,
    /// Whether it is the gateway that says it and not the upstream: then nobody has to accept it.
    pub own: bool,
}

/// What a server says of itself (`server/discover` or `initialize`).
#[derive(Debug, Clone)]
pub struct Facts {
    /// Its capabilities object.
    pub capabilities: Json,
    /// Its instructions for the model.
    pub instructions: Option<String>,
    /// Its name and version; display only.
    pub info: Option<Json>,
}

/// Where lists come from. Each method connects where needed and is bounded by the upstream's time-outs.
pub trait Source: Send + Sync + 'static {
    /// What it takes to act for a caller.
    type Caller: Clone + Send + Sync + 'static;

    /// What the server says of itself.
    fn facts<'a>(
        &'a self,
        server: &'a ServerId,
        access: &'a Access<Self::Caller>,
    ) -> BoxFuture<'a, Result<Facts, Failure>>;

    /// All items of one kind.
    fn list<'a>(
        &'a self,
        server: &'a ServerId,
        access: &'a Access<Self::Caller>,
        kind: Kind,
    ) -> BoxFuture<'a, Result<Listing, Failure>>;

    /// A server was listed; what is answered is waited for before anything of it is offered.
    fn listed<'a>(&'a self, listed: Listed<'a>) -> BoxFuture<'a, ()> {
        let _nothing_to_do = listed;
        Box::pin(std::future::ready(()))
    }
}

/// What came of listing a server.
#[derive(Debug, Clone, Copy)]
pub struct Listed<'a> {
    /// The server.
    pub server: &'a Arc<ServerConfig>,
    /// What it lists.
    pub slice: &'a Slice,
    /// Whether that is everything: all kinds, all pages, without a failure.
    pub complete: bool,
}
