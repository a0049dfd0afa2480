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
use crate::config::{Config, ServerConfig};
use crate::ids::{Action, Digest, Endpoint, GATEWAY_SERVER, ViewRevision};
use crate::limit;
use crate::wire::mcp::Kind;

impl View {
    /// Puts slices together. Linear in the number of items.
    pub(super) fn compose(config: &Arc<Config>, endpoint: &Endpoint, members: Vec<Member>) -> Self {
        let revision = revision(config, endpoint, &members);
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
pub(super) fn revision(config: &Config, endpoint: &Endpoint, members: &[Member]) -> ViewRevision {
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
    }
    for server in &config.servers {
        parts.push(format!("{} {:?} {:?}", server.id, server.prefix, server.uris).into_bytes());
    }
    let parts: Vec<&[u8]> = parts.iter().map(Vec::as_slice).collect();
    ViewRevision(Digest::of("bailiwick view", &parts))
}

/// What the administrator's `uris` say about a URI.
pub(super) struct Claim {
    /// The length of the longest prefix that covers it.
    length: usize,
    /// How many servers have a prefix of that length.
    owners: usize,
    /// The first of them; `None` where it is not part of this view.
    member: Option<usize>,
}

impl Claim {
    /// The claim on a URI, over all configured servers: one that a caller does not see keeps what is its own.
    pub(super) fn on(config: &Config, members: &[Member], uri: &str) -> Option<Self> {
        let mut best: Option<Self> = None;
        for server in &config.servers {
            let Some(length) = longest(server, uri) else { continue };
            match &mut best {
                Some(best) if best.length > length => {}
                Some(best) if best.length == length => best.owners += 1,
                _ => {
                    let member = members.iter().position(|member| member.server.id == server.id);
                    best = Some(Self { length, owners: 1, member });
                }
            }
        }
        best
    }

    /// The one member that it gives the URI to.
    pub(super) fn member(&self) -> Option<usize> {
        self.member.filter(|_| self.owners == 1)
    }

    /// Whether a server has part in it.
    fn is_by(&self, server: &ServerConfig, uri: &str) -> bool {
        longest(server, uri) == Some(self.length)
    }
}

fn longest(server: &ServerConfig, uri: &str) -> Option<usize> {
    server.uris.iter().filter(|prefix| uri::covers(prefix, uri)).map(String::len).max()
}

/// One kind, composed.
struct Composed {
    items: Vec<Item>,
    places: HashMap<Arc<str>, Option<usize>>,
    digest: Digest,
}

struct Composer<'a> {
    config: &'a Config,
    endpoint: &'a Endpoint,
    members: &'a [Member],
    /// Ids whose prefix nobody else's verbatim name may imitate, whether they are up or not, and the gateway's own.
    prefixed: HashSet<&'a str>,
    ui: HashMap<Arc<str>, Option<usize>>,
    templates: Vec<Routed>,
    conflicts: Vec<Conflict>,
}

impl<'a> Composer<'a> {
    fn new(config: &'a Config, endpoint: &'a Endpoint, members: &'a [Member]) -> Self {
        let prefixed = |server: &&Arc<ServerConfig>| naming_on(endpoint, server) == Naming::Prefixed;
        let prefixed = config.servers.iter().filter(prefixed).map(|server| server.id.as_str());
        Self {
            config,
            endpoint,
            members,
            prefixed: prefixed.chain([GATEWAY_SERVER]).collect(),
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
                if let Some(reason) = self.refuse(kind, member, published) {
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
    fn refuse(&self, kind: Kind, member: &Member, item: &Published) -> Option<ConflictReason> {
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
                let claim = Claim::on(self.config, self.members, name);
                claim.filter(|claim| !claim.is_by(&member.server, name)).map(|_| ConflictReason::Claimed)
            }
            Kind::ResourceTemplate => {
                let literal = name.split('{').next().unwrap_or_default();
                match Claim::on(self.config, self.members, literal) {
                    Some(claim) if claim.is_by(&member.server, literal) => None,
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
