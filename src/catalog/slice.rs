//! What one upstream listed under one authorization context: immutable, with a digest.
//!
//! Knows one server and nothing of the others, of configuration or of callers. Invariant: equal digests
//! mean equal items in equal order, and equal facts.

use std::collections::HashMap;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::time::Instant;

use super::definition::{Definitions, Dropped};
use super::naming::{self, Naming};
use super::pins::Withheld;
use super::source::{Facts, Listing};
use super::target::Definition;
use crate::ids::{AuthorizationContext, Digest, ServerId};
use crate::limit;
use crate::outcome::Reason;
use crate::wire::mcp::{Kind, meta};
use crate::wire::{Edit, Json, Object, Value};

/// What one upstream listed under one authorization context.
#[derive(Debug)]
pub struct Slice {
    server: ServerId,
    context: AuthorizationContext,
    facts: Arc<Facts>,
    lists: [Arc<List>; 4],
    digest: Digest,
    parts: [OnceLock<Part>; 2],
    /// Another one wherever a definition was accepted anew, although it says the same; zero where nothing is pinned.
    serial: u64,
    /// What the server lists and is not offered here.
    withheld: Vec<Withheld>,
    /// By kind and public name, for each naming.
    withheld_names: [OnceLock<HashMap<(Kind, String), usize>>; 2],
}

/// One kind of a slice.
#[derive(Debug)]
pub struct List {
    /// The definitions in the upstream's order.
    pub items: Vec<Arc<Definition>>,
    /// The digest of the definitions' digests.
    pub digest: Digest,
    /// When it was fetched.
    pub fetched_at: Instant,
    /// How long the upstream called it fresh.
    pub ttl: Option<Duration>,
    /// Whether the upstream said `public`.
    pub public: bool,
    /// Whether it is the gateway that said it.
    pub own: bool,
    /// What was left out, the first few.
    pub dropped: Vec<Dropped>,
    /// How much was left out.
    pub dropped_count: usize,
    /// Why the last attempt to fetch it failed; the items are from before.
    pub failure: Option<Reason>,
}

/// One item as it is offered under one naming; shared by all views that use the slice.
#[derive(Debug)]
pub(super) struct Published {
    pub(super) kind: Kind,
    pub(super) public_name: Arc<str>,
    pub(super) definition: Arc<Definition>,
    /// Public name, our `_meta` keys removed, all else byte for byte.
    pub(super) raw: Json,
    /// The `ui://` resource that a tool shows itself with (MCP Apps).
    pub(super) ui: Option<Arc<str>>,
}

/// All items of a slice under one naming, by kind.
#[derive(Debug)]
pub(super) struct Part {
    pub(super) items: [Vec<Arc<Published>>; 4],
}

/// The element of an array in the order of [`Kind::ALL`] that belongs to a kind.
pub(super) fn of_kind<T>(array: &[T; 4], kind: Kind) -> &T {
    let [tool, prompt, resource, template] = array;
    match kind {
        Kind::Tool => tool,
        Kind::Prompt => prompt,
        Kind::Resource => resource,
        Kind::ResourceTemplate => template,
    }
}

impl List {
    /// Reads a listing of a server.
    pub(super) fn read(server: &ServerId, kind: Kind, listing: &Listing) -> Self {
        let Definitions { items, dropped, dropped_count } = Definitions::read(server, kind, &listing.items);
        Self {
            digest: digest(&items),
            fetched_at: Instant::now(),
            ttl: listing.ttl.filter(|ttl| !ttl.is_zero()).map(|ttl| ttl.min(limit::LIST_TTL_MAX)),
            public: listing.public,
            own: listing.own,
            failure: None,
            items,
            dropped,
            dropped_count,
        }
    }

    /// The list of a server that does not have this kind.
    pub(super) fn empty() -> Self {
        Self {
            items: Vec::new(),
            digest: digest(&[]),
            fetched_at: Instant::now(),
            ttl: None,
            public: true,
            own: false,
            dropped: Vec::new(),
            dropped_count: 0,
            failure: None,
        }
    }

    /// The same list with these items.
    pub(super) fn with(&self, items: Vec<Arc<Definition>>) -> Self {
        Self {
            digest: digest(&items),
            fetched_at: self.fetched_at,
            ttl: self.ttl,
            public: self.public,
            own: self.own,
            dropped: self.dropped.clone(),
            dropped_count: self.dropped_count,
            failure: self.failure,
            items,
        }
    }

    /// The same items, after an attempt to fetch them again failed.
    pub(super) fn failed(&self, reason: Reason) -> Self {
        Self {
            items: self.items.clone(),
            digest: self.digest,
            fetched_at: Instant::now(),
            ttl: None,
            public: self.public,
            own: self.own,
            dropped: self.dropped.clone(),
            dropped_count: self.dropped_count,
            failure: Some(reason),
        }
    }
}

fn digest(items: &[Arc<Definition>]) -> Digest {
    let digests: Vec<&[u8]> = items.iter().map(|item| item.digest.0.as_bytes().as_slice()).collect();
    Digest::of("bailiwick list", &digests)
}

impl Slice {
    pub(super) fn new(
        server: ServerId,
        context: AuthorizationContext,
        facts: Arc<Facts>,
        lists: [Arc<List>; 4],
    ) -> Self {
        let instructions = facts.instructions.as_deref().unwrap_or_default().as_bytes();
        let mut parts: Vec<&[u8]> = vec![facts.capabilities.as_bytes(), instructions];
        parts.extend(lists.iter().map(|list| list.digest.as_bytes().as_slice()));
        let digest = Digest::of("bailiwick slice", &parts);
        let parts = [OnceLock::new(), OnceLock::new()];
        let withheld_names = [OnceLock::new(), OnceLock::new()];
        Self { server, context, facts, lists, digest, parts, serial: 0, withheld: Vec::new(), withheld_names }
    }

    /// The same slice as it is offered.
    pub(super) fn offering(
        &self,
        facts: Arc<Facts>,
        lists: [Arc<List>; 4],
        serial: u64,
        withheld: Vec<Withheld>,
    ) -> Self {
        Self { serial, withheld, ..Self::new(self.server.clone(), self.context, facts, lists) }
    }

    /// Tells slices of one digest apart whose definitions were accepted at different times.
    pub(super) const fn serial(&self) -> u64 {
        self.serial
    }

    /// What the server lists under that public name and is not offered.
    pub(super) fn withheld(&self, kind: Kind, public_name: &str, naming: Naming) -> Option<&Arc<Definition>> {
        if self.withheld.is_empty() {
            return None;
        }
        let [prefixed, verbatim] = &self.withheld_names;
        let names = match naming {
            Naming::Prefixed => prefixed,
            Naming::Verbatim => verbatim,
        };
        let names = names.get_or_init(|| {
            let named = self.withheld.iter().enumerate();
            named
                .map(|(place, Withheld { kind, definition })| {
                    let name = match kind {
                        Kind::Tool | Kind::Prompt => naming::public_name(&self.server, naming, &definition.name),
                        Kind::Resource | Kind::ResourceTemplate => definition.name.to_string(),
                    };
                    ((*kind, name), place)
                })
                .collect()
        });
        let place = names.get(&(kind, public_name.to_owned()))?;
        self.withheld.get(*place).map(|withheld| &withheld.definition)
    }

    /// Whose it is.
    #[must_use]
    pub const fn server(&self) -> &ServerId {
        &self.server
    }

    /// With whose credential it was listed.
    #[must_use]
    pub const fn context(&self) -> AuthorizationContext {
        self.context
    }

    /// What the server says of itself.
    #[must_use]
    pub fn facts(&self) -> &Facts {
        &self.facts
    }

    pub(super) const fn shared_facts(&self) -> &Arc<Facts> {
        &self.facts
    }

    /// One kind of it.
    #[must_use]
    pub fn list(&self, kind: Kind) -> &List {
        let list: &Arc<List> = of_kind(&self.lists, kind);
        list
    }

    pub(super) const fn lists(&self) -> &[Arc<List>; 4] {
        &self.lists
    }

    /// The digest of facts and lists.
    #[must_use]
    pub const fn digest(&self) -> Digest {
        self.digest
    }

    /// When its oldest list was fetched.
    #[must_use]
    pub fn fetched_at(&self) -> Instant {
        self.lists.iter().map(|list| list.fetched_at).min().unwrap_or_else(Instant::now)
    }

    /// The smallest `ttlMs`, if every list has one that has something in it.
    #[must_use]
    pub fn ttl(&self) -> Option<Duration> {
        let says = |list: &&Arc<List>| !list.items.is_empty() || list.ttl.is_some();
        let ttls: Option<Vec<_>> = self.lists.iter().filter(says).map(|list| list.ttl).collect();
        ttls.and_then(|ttls| ttls.into_iter().min())
    }

    /// About how many bytes it holds; twice its text, because the public spelling is kept beside it.
    pub(super) fn weight(&self) -> u32 {
        let bytes: usize =
            self.lists.iter().flat_map(|list| &list.items).map(|item| item.raw.as_bytes().len() + 256).sum();
        u32::try_from(bytes.saturating_mul(2).saturating_add(1_024)).unwrap_or(u32::MAX)
    }

    /// Whether the server announces a kind.
    #[must_use]
    pub fn announces(&self, kind: Kind) -> bool {
        announces(&self.facts, kind)
    }

    /// The items under a naming; made once for all views that use this slice.
    pub(super) fn part(&self, naming: Naming) -> &Part {
        let [prefixed, verbatim] = &self.parts;
        let part = match naming {
            Naming::Prefixed => prefixed,
            Naming::Verbatim => verbatim,
        };
        part.get_or_init(|| Part {
            items: Kind::ALL
                .map(|kind| self.list(kind).items.iter().map(|item| self.item(kind, item, naming)).collect()),
        })
    }

    fn item(&self, kind: Kind, definition: &Arc<Definition>, naming: Naming) -> Arc<Published> {
        let public_name: Arc<str> = match kind {
            Kind::Tool | Kind::Prompt => {
                let public = naming::public_name(&self.server, naming, &definition.name);
                if public == *definition.name { Arc::clone(&definition.name) } else { public.into() }
            }
            Kind::Resource | Kind::ResourceTemplate => Arc::clone(&definition.name),
        };
        let raw = published(kind, definition, &public_name);
        let ui = ui_resource(kind, definition);
        Arc::new(Published { kind, public_name, definition: Arc::clone(definition), raw, ui })
    }
}

/// Whether a server announces a kind.
pub(super) fn announces(facts: &Facts, kind: Kind) -> bool {
    facts.capabilities.value().as_object().is_some_and(|object| object.get(kind.capability()).is_some())
}

/// A definition as clients see it; shares the memory where nothing changes.
fn published(kind: Kind, definition: &Definition, public_name: &str) -> Json {
    let Some(object) = definition.raw.value().as_object() else { return definition.raw.clone() };
    let mut edits = Vec::new();
    if *definition.name != *public_name {
        edits.push(Edit::Set(kind.key_member(), Json::of(public_name)));
    }
    if let Some(own) = object.get("_meta").and_then(Value::as_object).filter(|meta| has_own_keys(*meta)) {
        edits.push(Edit::Set("_meta", own.edited(&[Edit::RemovePrefix(meta::OWN_PREFIX)])));
    }
    if edits.is_empty() { definition.raw.clone() } else { object.edited(&edits) }
}

/// The `ui://` resource that a tool names: `_meta.ui.resourceUri`, or the older `_meta["ui/resourceUri"]`.
fn ui_resource(kind: Kind, definition: &Definition) -> Option<Arc<str>> {
    if kind != Kind::Tool {
        return None;
    }
    let meta = definition.raw.value().as_object()?.get("_meta")?.as_object()?;
    let nested = meta.get("ui").and_then(Value::as_object).and_then(|ui| ui.get("resourceUri"));
    let uri = nested.or_else(|| meta.get("ui/resourceUri"))?.as_str()?;
    uri.starts_with("ui://").then(|| uri.into())
}

fn has_own_keys(object: Object<'_>) -> bool {
    object.members().any(|(key, _)| key.starts_with(meta::OWN_PREFIX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn slice(tools: &[&str]) -> Slice {
        let items = tools.iter().map(|text| Json::parse(*text, Source::Upstream).unwrap()).collect();
        let list = List::read(
            &ServerId::new("git").unwrap(),
            Kind::Tool,
            &Listing { items, ttl: None, public: false, own: false },
        );
        let facts = Facts { capabilities: Json::of(&serde_json::json!({"tools": {}})), instructions: None, info: None };
        let empty = Arc::new(List::empty());
        Slice::new(
            ServerId::new("git").unwrap(),
            AuthorizationContext::Gateway,
            Arc::new(facts),
            [Arc::new(list), Arc::clone(&empty), Arc::clone(&empty), empty],
        )
    }

    #[test]
    fn only_the_name_and_our_own_meta_keys_change() {
        let slice = slice(&[
            r#"{"z":1.50, "name":"log","inputSchema":{"type":"object"},"_meta":{"dev.bailiwick/x":1,"ui":{"a" : 1}}}"#,
        ]);
        let item = &of_kind(&slice.part(Naming::Prefixed).items, Kind::Tool)[0];
        assert_eq!(
            item.raw.as_str(),
            r#"{"z":1.50,"name":"git__log","inputSchema":{"type":"object"},"_meta":{"ui":{"a" : 1}}}"#
        );
        assert_eq!(&*item.definition.name, "log");
    }

    #[test]
    fn a_verbatim_item_is_the_upstreams_bytes() {
        let text = r#"{ "name" : "log" ,"inputSchema":{}}"#;
        let slice = slice(&[text]);
        assert_eq!(of_kind(&slice.part(Naming::Verbatim).items, Kind::Tool)[0].raw.as_str(), text);
    }

    #[test]
    fn the_digest_knows_items_and_their_order() {
        let (one, two) = (r#"{"name":"a","inputSchema":{}}"#, r#"{"name":"b","inputSchema":{}}"#);
        assert_eq!(slice(&[one, two]).digest(), slice(&[one, two]).digest());
        assert_ne!(slice(&[one, two]).digest(), slice(&[two, one]).digest());
        assert_ne!(slice(&[one]).digest(), slice(&[one, two]).digest());
    }
}
