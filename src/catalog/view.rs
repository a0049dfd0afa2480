//! What one caller's slices add up to on one endpoint, before policy: items in order, and whose each is.
//!
//! Decides which names and URIs are routable there and reports those that are not. Refuses to know who
//! may use what. Invariant: every item that is offered resolves to itself; order is that of the file, then
//! the upstream's.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use super::naming::{self, Naming};
use super::slice::{Published, Slice, of_kind};
use super::slot::SliceState;
use super::target::{Definition, Target};
use super::template::Template;
use super::uri;
use crate::call::Endpoint;
use crate::config::{Config, ServerConfig};
use crate::ids::{Action, Digest, ServerId, ViewRevision};
use crate::limit;
use crate::wire::Json;
use crate::wire::mcp::Kind;

/// What one caller's slices add up to on one endpoint.
#[derive(Debug)]
pub struct View {
    pub(super) config: Arc<Config>,
    pub(super) endpoint: Endpoint,
    pub(super) members: Vec<Member>,
    revision: ViewRevision,
    digests: [Digest; 4],
    items: [Vec<Item>; 4],
    /// Public name or URI to its place among the items; `None` where several claim it.
    places: [HashMap<Arc<str>, Option<usize>>; 4],
    /// `ui://` resources that tools name: the member, `None` where several do.
    pub(super) ui: HashMap<Arc<str>, Option<usize>>,
    /// Templates that say whose a URI is.
    pub(super) templates: Vec<Routed>,
    conflicts: Vec<Conflict>,
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
    published: Arc<Published>,
    target: Target,
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

    /// The smallest `ttlMs` of one kind; zero where some server gives none.
    #[must_use]
    pub fn ttl(&self, kind: Kind) -> Duration {
        let lists = self.listed().map(|(_, slice)| slice.list(kind)).filter(|list| !list.items.is_empty());
        lists.map(|list| list.ttl.unwrap_or_default()).min().unwrap_or_default()
    }

    /// Whether every server calls its list of one kind `public`. What is filtered never is.
    #[must_use]
    pub fn is_public(&self, kind: Kind) -> bool {
        self.listed()
            .all(|(_, slice)| slice.context() == crate::ids::AuthorizationContext::Gateway && slice.list(kind).public)
    }

    /// Whether there were servers to ask and none of them has anything to show.
    pub(super) fn is_unavailable(&self) -> bool {
        !self.members.is_empty() && self.members.iter().all(|member| !member.listed)
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

    pub(super) fn naming(&self, server: &ServerConfig) -> Naming {
        naming_on(&self.endpoint, server)
    }

    /// How many items it has, which is what it weighs.
    pub(super) fn weight(&self) -> u32 {
        let items: usize = self.items.iter().map(Vec::len).sum();
        u32::try_from(items + self.members.len() + 1).unwrap_or(u32::MAX)
    }

    /// Puts slices together. Linear in the number of items.
    pub(super) fn compose(config: &Arc<Config>, endpoint: &Endpoint, members: Vec<Member>) -> Self {
        let revision = revision(endpoint, &members);
        let mut composer = Composer::new(config, endpoint, &members);
        let [tools, prompts, resources, templates] = Kind::ALL.map(|kind| composer.kind(kind));
        let Composer { conflicts, ui, templates: routed, .. } = composer;
        Self {
            config: Arc::clone(config),
            endpoint: endpoint.clone(),
            revision,
            digests: [tools.digest, prompts.digest, resources.digest, templates.digest],
            items: [tools.items, prompts.items, resources.items, templates.items],
            places: [tools.places, prompts.places, resources.places, templates.places],
            ui,
            templates: routed,
            conflicts,
            members,
        }
    }
}

/// How a server's names appear on an endpoint.
fn naming_on(endpoint: &Endpoint, server: &ServerConfig) -> Naming {
    match endpoint {
        Endpoint::Merged => server.prefix.into(),
        Endpoint::Server(_) => Naming::Verbatim,
    }
}

/// The digest of what a view will show.
pub(super) fn revision(endpoint: &Endpoint, members: &[Member]) -> ViewRevision {
    let mut parts: Vec<Vec<u8>> = vec![match endpoint {
        Endpoint::Merged => Vec::new(),
        Endpoint::Server(server) => server.as_str().as_bytes().to_vec(),
    }];
    for member in members {
        let listed = member.slice.as_ref().filter(|_| member.listed);
        let naming = [u8::from(naming_on(endpoint, &member.server) == Naming::Verbatim)];
        parts.push(member.server.id.as_str().as_bytes().to_vec());
        parts.push(naming.to_vec());
        parts.push(listed.map(|slice| slice.digest().as_bytes().to_vec()).unwrap_or_default());
        parts.push(member.server.uris.join("\n").into_bytes());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    ViewRevision(Digest::of("bailiwick view", &parts))
}

/// The server whose `uris` cover a URI with the longest prefix; `None` where none or two do.
pub(super) fn claimant(members: &[Member], uri: &str) -> Option<usize> {
    let mut best: Option<(usize, usize)> = None;
    let mut tied = false;
    for (index, member) in members.iter().enumerate() {
        let longest = member.server.uris.iter().filter(|prefix| uri::covers(prefix, uri)).map(String::len).max();
        let Some(length) = longest else { continue };
        match best {
            Some((_, other)) if other > length => {}
            Some((_, other)) if other == length => tied = true,
            _ => (best, tied) = (Some((index, length)), false),
        }
    }
    best.filter(|_| !tied).map(|(index, _)| index)
}

/// One kind, composed.
struct Composed {
    items: Vec<Item>,
    places: HashMap<Arc<str>, Option<usize>>,
    digest: Digest,
}

struct Composer<'a> {
    endpoint: &'a Endpoint,
    members: &'a [Member],
    /// Ids whose prefix nobody else's verbatim name may imitate, whether they are up or not.
    prefixed: HashSet<&'a str>,
    ui: HashMap<Arc<str>, Option<usize>>,
    templates: Vec<Routed>,
    conflicts: Vec<Conflict>,
}

impl<'a> Composer<'a> {
    fn new(config: &'a Config, endpoint: &'a Endpoint, members: &'a [Member]) -> Self {
        let prefixed = |server: &&Arc<ServerConfig>| naming_on(endpoint, server) == Naming::Prefixed;
        Self {
            endpoint,
            members,
            prefixed: config.servers.iter().filter(prefixed).map(|server| server.id.as_str()).collect(),
            ui: HashMap::new(),
            templates: Vec::new(),
            conflicts: Vec::new(),
        }
    }

    /// Composes a kind. Tools come before resources, because they name `ui://` resources.
    fn kind(&mut self, kind: Kind) -> Composed {
        let members = self.members;
        let mut offered: Vec<(usize, &Arc<Published>)> = Vec::new();
        let mut owners: HashMap<&Arc<str>, Option<usize>> = HashMap::new();
        for (index, member) in members.iter().enumerate().filter(|(_, member)| member.listed) {
            let Some(slice) = &member.slice else { continue };
            let mut templates = 0_usize;
            for published in of_kind(&slice.part(naming_on(self.endpoint, &member.server)).items, kind) {
                if let Some(ui) = &published.ui {
                    own(self.ui.entry(Arc::clone(ui)).or_insert(Some(index)), index);
                }
                if let Some(reason) = self.refuse(kind, index, member, published) {
                    self.conflict(member, published, reason);
                    continue;
                }
                if kind == Kind::ResourceTemplate
                    && templates < limit::TEMPLATES_ROUTED_MAX
                    && let Some(template) = Template::parse(&published.public_name)
                    && (self.endpoint != &Endpoint::Merged || template.routes())
                {
                    templates += 1;
                    let definition = Arc::clone(&published.definition);
                    self.templates.push(Routed { template, member: index, definition });
                }
                own(owners.entry(&published.public_name).or_insert(Some(index)), index);
                offered.push((index, published));
            }
        }
        self.place(kind, &offered, &owners)
    }

    /// Offers what has one owner; what has several becomes unroutable, for all of them.
    fn place(
        &mut self,
        kind: Kind,
        offered: &[(usize, &Arc<Published>)],
        owners: &HashMap<&Arc<str>, Option<usize>>,
    ) -> Composed {
        let mut items = Vec::with_capacity(offered.len());
        let mut places: HashMap<Arc<str>, Option<usize>> = HashMap::with_capacity(offered.len());
        let mut digests: Vec<u8> = Vec::new();
        for (index, published) in offered {
            let Some(member) = self.members.get(*index) else { continue };
            let name = &published.public_name;
            let shown_by_another = kind == Kind::Resource
                && *self.endpoint == Endpoint::Merged
                && self.ui.get(name).is_some_and(|owner| *owner != Some(*index));
            if owners.get(name).copied().flatten() != Some(*index) || shown_by_another || places.contains_key(name) {
                places.insert(Arc::clone(name), None);
                self.conflict(member, published, ConflictReason::Shared);
                continue;
            }
            places.insert(Arc::clone(name), Some(items.len()));
            digests.extend_from_slice(member.server.id.as_str().as_bytes());
            digests.extend_from_slice(published.definition.digest.0.as_bytes());
            items.push(Item { published: Arc::clone(published), target: target(member, kind, published) });
        }
        let digest = Digest::of("bailiwick view list", &[kind.list_member().as_bytes(), &digests]);
        Composed { items, places, digest }
    }

    /// Why an item cannot be this server's here, whatever the others list.
    fn refuse(&self, kind: Kind, index: usize, member: &Member, item: &Published) -> Option<ConflictReason> {
        if *self.endpoint != Endpoint::Merged {
            return None;
        }
        let name = &*item.public_name;
        match kind {
            Kind::Tool | Kind::Prompt => {
                let imitates = naming_on(self.endpoint, &member.server) == Naming::Verbatim
                    && name.split_once("__").is_some_and(|(prefix, _)| self.prefixed.contains(prefix));
                imitates.then_some(ConflictReason::Claimed)
            }
            Kind::Resource => {
                let claimed = claimant(self.members, name).is_some_and(|owner| owner != index);
                claimed.then_some(ConflictReason::Claimed)
            }
            Kind::ResourceTemplate => {
                let literal = name.split('{').next().unwrap_or_default();
                match claimant(self.members, literal) {
                    Some(owner) if owner == index => None,
                    Some(_) => Some(ConflictReason::Claimed),
                    None => {
                        let routes = Template::parse(name).is_some_and(|template| template.routes());
                        (!routes).then_some(ConflictReason::Unanchored)
                    }
                }
            }
        }
    }

    fn conflict(&mut self, member: &Member, item: &Published, reason: ConflictReason) {
        self.conflicts.push(Conflict {
            kind: item.kind,
            public_name: Arc::clone(&item.public_name),
            server: member.server.id.clone(),
            reason,
        });
    }
}

fn own(owner: &mut Option<usize>, index: usize) {
    if *owner != Some(index) {
        *owner = None;
    }
}

fn target(member: &Member, kind: Kind, published: &Published) -> Target {
    let action = match kind {
        Kind::Tool => Action::Call,
        Kind::Prompt => Action::Get,
        Kind::Resource | Kind::ResourceTemplate => Action::Read,
    };
    Target {
        server: Arc::clone(&member.server),
        action,
        name: Arc::clone(&published.definition.name),
        definition: Some(Arc::clone(&published.definition)),
    }
}

impl View {
    /// The item that a server listed under its own spelling, for what remembers a primitive by that.
    #[must_use]
    pub fn own_item(&self, server: &ServerId, kind: Kind, own_name: &str) -> Option<&Item> {
        let member = self.members.iter().find(|member| member.server.id == *server)?;
        let public_name = match kind {
            Kind::Tool | Kind::Prompt => naming::public_name(server, self.naming(&member.server), own_name),
            Kind::Resource | Kind::ResourceTemplate => own_name.to_owned(),
        };
        let item = self.place(kind, &public_name)??;
        (item.target.server_id() == server && item.target.name() == own_name).then_some(item)
    }
}
