//! What one caller's slices add up to on one endpoint, before policy: items in order, and whose each is.
//!
//! Decides which names and URIs are routable there and reports those that are not. Refuses to know who
//! may use what. Invariant: every item that is offered resolves to itself; order is that of the file, then
//! the upstream's.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::compose::naming_on;
use super::naming;
use super::slice::{List, Published, Slice, of_kind};
use super::slot::SliceState;
use super::target::{Definition, Target};
use super::template::Template;
use crate::config::{Config, ListAs, ServerConfig};
use crate::ids::{AuthorizationContext, Digest, Endpoint, ServerId, ViewRevision};
use crate::outcome::Reason;
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// What one caller's slices add up to on one endpoint.
#[derive(Debug)]
pub struct View {
    pub(super) config: Arc<Config>,
    pub(super) endpoint: Endpoint,
    pub(super) members: Vec<Member>,
    pub(super) revision: ViewRevision,
    pub(super) digests: [Digest; 4],
    pub(super) items: [Vec<Item>; 4],
    /// Public name or URI to its place among the items; `None` where several claim it.
    pub(super) places: [HashMap<Arc<str>, Option<usize>>; 4],
    /// `ui://` resources that tools name: the member, `None` where several do.
    pub(super) ui: HashMap<Arc<str>, Option<usize>>,
    /// Templates that say whose a URI is.
    pub(super) templates: Vec<Routed>,
    pub(super) conflicts: Vec<Conflict>,
}

/// One server of a view.
#[derive(Debug, Clone)]
pub struct Member {
    /// Its configuration.
    pub server: Arc<ServerConfig>,
    /// What it listed, or listed last; the items are offered only if [`Member::listed`].
    pub slice: Option<Arc<Slice>>,
    /// How current that is.
    pub state: SliceState,
    /// Whether its items are offered: it was listed, and is not down for longer than `on_down`.
    pub listed: bool,
}

/// One item that is offered.
#[derive(Debug, Clone)]
pub struct Item {
    pub(super) published: Arc<Published>,
    pub(super) target: Target,
}

/// A name or URI that is not routable here, although somebody listed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Conflict {
    /// Of what kind.
    pub kind: Kind,
    /// The public name or URI; hostile text, escape it before showing it.
    pub public_name: Arc<str>,
    /// Whose it is not.
    pub server: ServerId,
    /// Why.
    pub reason: ConflictReason,
}

/// Why an item is not routable.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ConflictReason {
    /// Several servers have it.
    Shared,
    /// It is spelled like another server's prefixed name, or lies under another server's `uris`.
    Claimed,
    /// The template could expand to any server's URIs.
    Unanchored,
}

impl fmt::Display for ConflictReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Shared => "several servers have it; give one a prefix, or claim the URI with `uris`",
            Self::Claimed => "it is spelled like another server's",
            Self::Unanchored => "the template has no literal scheme and authority; claim its URIs with `uris`",
        })
    }
}

/// A template that routes.
#[derive(Debug)]
pub(super) struct Routed {
    pub(super) template: Template,
    pub(super) member: usize,
    pub(super) definition: Arc<Definition>,
}

impl Item {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.published.kind
    }

    /// Its name or URI as clients spell it on this endpoint.
    #[must_use]
    pub fn public_name(&self) -> &str {
        &self.published.public_name
    }

    /// Its definition as clients see it: one object, only the name changed and our `_meta` keys removed.
    #[must_use]
    pub fn raw(&self) -> &Json {
        &self.published.raw
    }

    /// What it resolves to: `call` for tools, `get` for prompts, `read` for resources and templates.
    #[must_use]
    pub const fn target(&self) -> &Target {
        &self.target
    }
}

impl View {
    /// The digest of everything that the view shows: equal revisions mean equal bytes.
    #[must_use]
    pub const fn revision(&self) -> ViewRevision {
        self.revision
    }

    /// The digest of the items of one kind, to tell which list changed.
    #[must_use]
    pub fn digest(&self, kind: Kind) -> Digest {
        *of_kind(&self.digests, kind)
    }

    /// The items of one kind, in order.
    #[must_use]
    pub fn items(&self, kind: Kind) -> &[Item] {
        let items: &Vec<Item> = of_kind(&self.items, kind);
        items
    }

    /// Which endpoint it is of.
    #[must_use]
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Its servers, in the order of the file.
    #[must_use]
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// Servers that do not answer, listed or not. To be named only to callers who had something there:
    /// look at what [`Member::slice`] holds.
    pub fn missing(&self) -> impl Iterator<Item = &Member> {
        let missing = |state| matches!(state, SliceState::Pending | SliceState::Down { .. });
        self.members.iter().filter(move |member| missing(member.state))
    }

    /// What was listed and is not routable here.
    #[must_use]
    pub fn conflicts(&self) -> &[Conflict] {
        &self.conflicts
    }

    /// What is left of the smallest `ttlMs` of one kind, of empty lists too; zero where some server gives none, or has not
    /// listed yet.
    #[must_use]
    pub fn ttl_left(&self, kind: Kind, now: Instant) -> Duration {
        if self.members.iter().any(|member| member.state == SliceState::Pending) {
            return Duration::ZERO;
        }
        let lists = self.listed().filter(|(_, slice)| slice.announces(kind)).map(|(_, slice)| slice.list(kind));
        let left =
            |list: &List| list.ttl.unwrap_or_default().saturating_sub(now.saturating_duration_since(list.fetched_at));
        lists.map(left).min().unwrap_or_default()
    }

    /// Whether every server calls its list of one kind `public`. What is filtered never is.
    #[must_use]
    pub fn is_public(&self, kind: Kind) -> bool {
        self.listed().all(|(_, slice)| slice.context() == AuthorizationContext::Gateway && slice.list(kind).public)
    }

    /// Whether there were servers to ask and none of them has anything to show.
    pub(super) fn is_unavailable(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|member| !member.listed)
    }

    /// Why this viewer got no credential, where that alone is why no server has anything to show.
    pub(super) fn without_credential(&self) -> Option<Reason> {
        let mut reasons =
            self.members.iter().map(|member| match member.state {
                SliceState::Down {
                    reason: reason @ (Reason::ExchangeRefused | Reason::CredentialUnavailable), ..
                } if member.server.list_as == ListAs::Caller => Some(reason),
                _ => None,
            });
        let first = reasons.next()??;
        reasons.all(|reason| reason.is_some()).then_some(first)
    }

    pub(super) fn listed(&self) -> impl Iterator<Item = (&Member, &Arc<Slice>)> {
        self.members
            .iter()
            .filter(|member| member.listed)
            .filter_map(|member| member.slice.as_ref().map(|slice| (member, slice)))
    }

    /// The item of that public name: `Some(None)` where several claim it.
    pub(super) fn place(&self, kind: Kind, public_name: &str) -> Option<Option<&Item>> {
        let place = of_kind(&self.places, kind).get(public_name)?;
        Some(place.and_then(|place| self.items(kind).get(place)))
    }

    /// How many items it has, which is what it weighs.
    pub(super) fn weight(&self) -> u32 {
        let items: usize = self.items.iter().map(Vec::len).sum();
        u32::try_from(items + self.members.len() + 1).unwrap_or(u32::MAX)
    }

    /// The item that a server listed under its own spelling, for what remembers a primitive by that.
    #[must_use]
    pub fn own_item(&self, server: &ServerId, kind: Kind, own_name: &str) -> Option<&Item> {
        let member = self.members.iter().find(|member| member.server.id == *server)?;
        let public_name = match kind {
            Kind::Tool | Kind::Prompt => {
                naming::public_name(server, naming_on(&self.endpoint, &member.server), own_name)
            }
            Kind::Resource | Kind::ResourceTemplate => own_name.to_owned(),
        };
        let item = self.place(kind, &public_name)??;
        (item.target.server_id() == server && item.target.name() == own_name).then_some(item)
    }
}
