//! Putting slices together into a view: who offers what, and which names are nobody's.
//!
//! Decides conflicts by refusing all sides, except where the administrator's word (`prefix`, `uris`) says
//! whose a name is: that outranks what an upstream lists. Invariant: linear in the number of items.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use super::naming::Naming;
use super::slice::{Published, of_kind};
use super::target::Target;
use super::template::Template;
use super::uri;
use super::view::{Conflict, ConflictReason, Item, Member, Routed, View};
use crate::call::Endpoint;
use crate::config::{Config, ServerConfig};
use crate::ids::{Action, Digest, ViewRevision};
use crate::limit;
use crate::wire::mcp::Kind;

impl View {
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
pub(super) fn naming_on(endpoint: &Endpoint, server: &ServerConfig) -> Naming {
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
            digests.extend_from_slice(Digest::sha256(name.as_bytes()).as_bytes());
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
        if self.conflicts.len() >= limit::CONFLICTS_REPORTED_MAX {
            return;
        }
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
