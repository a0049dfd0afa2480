//! What a caller sees: the same decisions as for calls, used as a filter.
//!
//! Decides which items make a page and in which shape of which era. Invariant: what identity filtered is
//! `private`, and bytes are shared only by callers of one class looking at one view.

use std::collections::HashSet;
use std::fmt::Write as _;
use std::sync::Arc;

use tokio::time::Instant;

use crate::call::{Endpoint, Request, is_routed, own_tools};
use crate::catalog::{Item, Slice, TaskDialect, View, is_known_capability};
use crate::config::ServerConfig;
use crate::delegate::{Leg, attempt};
use crate::gateway::{Gateway, Snapshot};
use crate::identity::Caller;
use crate::ids::{Action, ClassKey, Digest, PrincipalKey, ServerId, ViewRevision};
use crate::limit;
use crate::link;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{Ask, Class};
use crate::record::event::Listing;
use crate::wire::mcp::{Era, Kind, Version, meta};
use crate::wire::{Json, Value, server_info};

/// Pages that were made, by what they were made of.
pub type Pages = moka::sync::Cache<PageKey, Arc<Page>>;

/// What a page depends on. The view's revision covers endpoint, items and order.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct PageKey {
    class: ClassKey,
    view: ViewRevision,
    kind: Kind,
    era: Era,
    offset: usize,
}

/// One page, as all callers of a class get it.
#[derive(Debug)]
pub struct Page {
    /// The result object, without the cursor, which is sealed for one principal, and without the hints for caches, of
    /// which less is left each time.
    result: String,
    shown: usize,
    /// Where the next page begins.
    next: Option<usize>,
}

/// An empty memory of pages, bounded by bytes.
#[must_use]
pub fn pages() -> Pages {
    moka::sync::Cache::builder()
        .max_capacity(limit::LIST_BYTES_CACHED_MAX)
        .weigher(|_, page: &Arc<Page>| u32::try_from(page.result.len()).unwrap_or(u32::MAX))
        .time_to_idle(limit::LIST_CACHED_IDLE)
        .build()
}

/// The result of one of the four list methods, in the shape of the client's era; that it was refused is recorded here.
///
/// # Errors
/// A bad cursor, a limit, or no upstream that answers.
pub async fn list(gateway: &Arc<Gateway>, caller: &Caller, request: &Request, kind: Kind) -> Result<Json, Stop> {
    let quota = gateway.quotas().request(caller.principal());
    // Counted in bulk: a list costs its caller nothing, and a line for each would be a way to fill the record.
    quota.inspect_err(|refusal| gateway.declined(caller, refusal.reason))?;
    let leg = Leg::new(kind.list_method(), request.client.version).through(request.via);
    let listed = page_of(gateway, caller, request, kind).await;
    let attempt = attempt(caller, &leg, None, None);
    match listed {
        Ok((result, listing)) => {
            gateway.journal().listed(&attempt, &listing);
            Ok(result)
        }
        Err(stop) => {
            gateway.journal().stopped(&attempt, &stop);
            Err(stop)
        }
    }
}

async fn page_of(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    kind: Kind,
) -> Result<(Json, Listing), Stop> {
    let now = gateway.snapshot();
    let class = class_of(&now, caller)?;
    let view = gateway.view_of(kind, caller, &request.endpoint).await?;
    let cursor = Cursor { kind, list: view.digest(kind), class: class.key() };
    // Some clients say `null` where they mean the first page.
    let offset =
        match request.message.params().and_then(|params| params.get("cursor")).filter(|cursor| !cursor.is_null()) {
            Some(text) => cursor.open(gateway, caller.principal(), text)?,
            None => 0,
        };
    let key = PageKey { class: class.key(), view: view.revision(), kind, era: request.client.version.era(), offset };
    // Single flight: a thousand callers of one class ask at once after a reload.
    let own = || match kind {
        Kind::Tool => own_tools(&now, &class, caller, &request.endpoint),
        _ => Vec::new(),
    };
    let page = gateway.pages().get_with_by_ref(&key, || Arc::new(Page::make(&now, &class, &view, &key, own())));
    if page.shown == 0 && is_hidden(&now, &class, &view) {
        return Err(Refusal::new(Reason::TargetUnknown).into());
    }
    let body = page.result.strip_suffix('}').unwrap_or(&page.result);
    let mut more = String::new();
    if key.era == Era::Modern {
        let ttl_ms = view.ttl_left(kind, Instant::now()).as_millis();
        let _ = write!(more, ",\"ttlMs\":{ttl_ms},\"cacheScope\":\"private\"");
    }
    if let Some(next) = page.next {
        let sealed = Json::of(&cursor.seal(gateway, caller, next)?);
        let _ = write!(more, ",\"nextCursor\":{}", sealed.as_str());
    }
    let result = format!("{body}{more}}}");
    Ok((Json::joined(result), Listing { shown: page.shown, view: Some(view.revision()) }))
}

/// The result of `server/discover`.
///
/// # Errors
/// A limit, or no upstream that answers.
pub async fn discover(gateway: &Arc<Gateway>, caller: &Caller, request: &Request) -> Result<Json, Stop> {
    gateway.quotas().request(caller.principal())?;
    let own = introduction(gateway, caller, &request.endpoint, Version::V2026_07_28).await?;
    let instructions = own.instructions.as_ref().map_or_else(String::new, member("instructions"));
    Ok(Json::joined(format!(
        "{{\"resultType\":\"complete\",\"supportedVersions\":{},\"capabilities\":{}{instructions},\"ttlMs\":{},\
         \"cacheScope\":\"private\",\"_meta\":{{\"io.modelcontextprotocol/serverInfo\":{}}}}}",
        Json::of(&Version::ALL.map(Version::as_str)).as_str(),
        own.capabilities.as_str(),
        limit::DISCOVER_TTL_MS,
        server_info().as_str(),
    )))
}

/// The result of `initialize` for a negotiated legacy version.
///
/// # Errors
/// A limit, or no upstream that answers.
pub async fn initialize(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    request: &Request,
    version: Version,
) -> Result<Json, Stop> {
    gateway.quotas().request(caller.principal())?;
    let own = introduction(gateway, caller, &request.endpoint, version).await?;
    let instructions = own.instructions.as_ref().map_or_else(String::new, member("instructions"));
    Ok(Json::joined(format!(
        "{{\"protocolVersion\":\"{version}\",\"capabilities\":{},\"serverInfo\":{}{instructions}}}",
        own.capabilities.as_str(),
        server_info().as_str(),
    )))
}

/// The digest of what a caller is shown of one kind: it moves when their list changes, and only then.
pub fn shown_digest(now: &Snapshot, class: &Class, view: &View, kind: Kind) -> Digest {
    let digests: Vec<&[u8]> = shown(now, class, view, kind)
        .flat_map(|item| {
            let definition = item.target().definition().map_or(&[][..], |definition| definition.digest.0.as_bytes());
            [item.public_name().as_bytes(), definition]
        })
        .collect();
    Digest::of("bailiwick/shown/v1", &digests)
}

/// The class of a caller.
///
/// # Errors
/// Why nothing can be decided for them at all.
pub fn class_of(now: &Snapshot, caller: &Caller) -> Result<Arc<Class>, Refusal> {
    let class = now.policy.class_of(caller);
    class.blocked().map_or_else(|| Ok(Arc::clone(&class)), |refusal| Err(refusal.clone()))
}

fn shown<'a>(now: &Snapshot, class: &Class, view: &'a View, kind: Kind) -> impl Iterator<Item = &'a Item> {
    let items = view.items(kind);
    let asks: Vec<Ask<'_>> = items.iter().map(ask).collect();
    let visible = now.policy.list(class, &asks);
    let links = |item: &Item| link::tool::is(item.target()) && may_link(now, class, item.target().server_id());
    items.iter().zip(visible).filter_map(move |(item, visible)| (visible || links(item)).then_some(item))
}

/// Whether somebody is told that they can link an account at a server although no rule lets them call the tool for it:
/// a rule names the server to them, so that what they may use there is behind it.
pub fn may_link(now: &Snapshot, class: &Class, server: &ServerId) -> bool {
    now.policy.names(class, server)
}

fn ask(item: &Item) -> Ask<'_> {
    let target = item.target();
    Ask { environment: target.environment(), server: target.server_id(), name: target.name(), action: target.action() }
}

impl Page {
    fn make(now: &Snapshot, class: &Class, view: &View, key: &PageKey, own: Vec<&Json>) -> Self {
        let mut result = String::new();
        if key.era == Era::Modern {
            result.push_str("{\"resultType\":\"complete\",");
        } else {
            result.push('{');
        }
        let _ = write!(result, "\"{}\":[", key.kind.list_member());
        let raws = shown(now, class, view, key.kind).map(|item| item.raw().as_str());
        let mut shown_items = raws.chain(own.into_iter().map(Json::as_str)).skip(key.offset);
        let mut count = 0;
        let mut next = None;
        for item in shown_items.by_ref() {
            let full = count == limit::LIST_PAGE_ITEMS_MAX || result.len() > limit::LIST_PAGE_BYTES_MAX;
            if full && count > 0 {
                next = Some(key.offset + count);
                break;
            }
            if count > 0 {
                result.push(',');
            }
            result.push_str(item);
            count += 1;
        }
        result.push(']');
        if key.era == Era::Modern {
            let _ = write!(result, ",\"_meta\":{{\"{}\":{}}}", meta::SERVER_INFO, server_info().as_str());
        }
        result.push('}');
        Self { result, shown: count, next }
    }
}

/// What a cursor holds besides its offset: a list that changed in between begins again.
struct Cursor {
    kind: Kind,
    list: Digest,
    class: ClassKey,
}

impl Cursor {
    fn check(&self) -> String {
        format!("{}.{}.{}", self.kind.list_method(), self.list.short(), self.class.0.short())
    }

    fn seal(&self, gateway: &Gateway, caller: &Caller, offset: usize) -> Result<String, Failure> {
        let holder = caller.holder(&gateway.config());
        let sealed = gateway.sealer().seal_for("cursor", &holder, format!("{} {offset}", self.check()).as_bytes());
        sealed.map_err(|error| Failure::before(Reason::Internal, error.to_string()))
    }

    fn open(&self, gateway: &Gateway, principal: PrincipalKey, cursor: Value<'_>) -> Result<usize, Refusal> {
        let refuse =
            || Refusal::new(Reason::ParametersInvalid).hint("the cursor is not valid any more: list from the start");
        let text = cursor.as_str().ok_or_else(refuse)?;
        let opened = gateway.sealer().open("cursor", principal, &text).ok_or_else(refuse)?;
        let content = String::from_utf8(opened).map_err(|_| refuse())?;
        let (check, offset) = content.split_once(' ').ok_or_else(refuse)?;
        if check != self.check() {
            return Err(refuse());
        }
        offset.parse().map_err(|_| refuse())
    }
}

/// Whether the one server of an endpoint is answered like one that does not exist: nothing of it is shown, and
/// no rule names it to them. A rule about every server could otherwise tell which ones there are.
fn is_hidden(now: &Snapshot, class: &Class, view: &View) -> bool {
    let Endpoint::Server(server) = view.endpoint() else { return false };
    !now.policy.names(class, server) && Kind::ALL.into_iter().all(|kind| shown(now, class, view, kind).next().is_none())
}

/// Whether a view failed because there is nothing that could be shown now.
pub const fn is_nothing_to_show(reason: Reason) -> bool {
    matches!(reason, Reason::CatalogUnavailable | Reason::ExchangeRefused | Reason::CredentialUnavailable)
}

/// Whether a caller is shown anything of what a server listed, whenever that was.
pub fn shows_anything(now: &Snapshot, class: &Class, server: &ServerConfig, slice: &Slice) -> bool {
    Kind::ALL.into_iter().any(|kind| {
        let action = match kind {
            Kind::Tool => Action::Call,
            Kind::Prompt => Action::Get,
            Kind::Resource | Kind::ResourceTemplate => Action::Read,
        };
        slice.list(kind).items.iter().any(|item| {
            let (environment, name) = (&server.environment, &*item.name);
            now.policy.visible(class, &Ask { environment, server: &server.id, name, action: &action })
        })
    })
}

/// What the gateway says of itself to one caller.
struct Introduction {
    capabilities: Json,
    instructions: Option<String>,
}

async fn introduction(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    endpoint: &Endpoint,
    version: Version,
) -> Result<Introduction, Stop> {
    let now = gateway.snapshot();
    let class = class_of(&now, caller)?;
    let view = match gateway.view(caller, endpoint).await {
        Ok(view) => view,
        // A client that connects while every server is down still gets its session; its lists will say so.
        Err(stop) if is_nothing_to_show(stop.reason()) => {
            return Ok(Introduction {
                capabilities: announced(&Json::of(&serde_json::Map::new()), ""),
                instructions: None,
            });
        }
        Err(stop) => return Err(stop),
    };
    if is_hidden(&now, &class, &view) {
        return Err(Refusal::new(Reason::TargetUnknown).into());
    }
    let seen: HashSet<&ServerId> = Kind::ALL
        .into_iter()
        .flat_map(|kind| shown(&now, &class, &view, kind).map(|item| item.target().server_id()).collect::<Vec<_>>())
        .collect();
    let merged = view.capabilities(|server| seen.contains(&server.id));
    let tasks = tasks_of(&view, version, |server| seen.contains(&server.id));
    let tasks = with_extensions(tasks, &extensions(&now, &class, &view, &merged));
    Ok(Introduction {
        capabilities: announced(&merged, &tasks),
        instructions: view.instructions(|server| seen.contains(&server.id)),
    })
}

/// What the gateway itself bridges, with what stands in it, and the keys that nobody here has heard of. Tools are always
/// among it, because a client that sees none yet must hear when that changes.
fn announced(merged: &Json, tasks: &str) -> Json {
    let members = || merged.value().as_object().into_iter().flat_map(|merged| merged.members());
    let of = |key: &str| merged.value().as_object().and_then(|merged| merged.get(key)).map(|value| value.raw());
    let mut own = format!("{{\"tools\":{}", of("tools").unwrap_or("{\"listChanged\":true}"));
    for key in ["prompts", "resources", "logging", "completions"] {
        if let Some(capability) = of(key) {
            let _ = write!(own, ",\"{key}\":{capability}");
        }
    }
    own.push_str(tasks);
    for (key, value) in members() {
        if !is_known_capability(&key) {
            let _ = write!(own, ",{}:{}", Json::of(key.as_ref()).as_str(), value.raw());
        }
    }
    own.push('}');
    Json::joined(own)
}

/// The member that announces tasks. To a client that knows the extension both ways look like it; one of
/// 2025-11-25 can only follow what its own way has.
fn tasks_of(view: &View, version: Version, visible: impl Fn(&ServerConfig) -> bool) -> &'static str {
    let experiment = view.has_tasks(TaskDialect::Experiment, &visible);
    match version.era() {
        Era::Modern if experiment || view.has_tasks(TaskDialect::Extension, &visible) => {
            ",\"extensions\":{\"io.modelcontextprotocol/tasks\":{}}"
        }
        Era::Legacy if experiment && version == Version::V2025_11_25 => {
            ",\"tasks\":{\"list\":{},\"cancel\":{},\"requests\":{\"tools\":{\"call\":{}}}}"
        }
        _ => "",
    }
}

/// The members of `extensions` besides tasks: an extension of data or `_meta` passes through and is announced as its
/// server does; skills have methods, which are only there for whom a rule lets use them.
fn extensions(now: &Snapshot, class: &Class, view: &View, merged: &Json) -> String {
    let mut members = String::new();
    let declared = merged.value().as_object().and_then(|merged| merged.get("extensions")).and_then(Value::as_object);
    for (key, value) in declared.iter().flat_map(|declared| declared.members()) {
        let is_served = match key.as_ref() {
            "io.modelcontextprotocol/tasks" => false,
            "io.modelcontextprotocol/skills" => {
                ["skills/list", "skills/get"].into_iter().all(|method| is_routed(now, class, view, method))
            }
            _ => true,
        };
        if is_served {
            let comma = if members.is_empty() { "" } else { "," };
            let _ = write!(members, "{comma}{}:{}", Json::of(key.as_ref()).as_str(), value.raw());
        }
    }
    members
}

/// Adds members to the `extensions` of some capabilities, which begin with them if they have any.
fn with_extensions(capabilities: &str, members: &str) -> String {
    match (members, capabilities.strip_prefix(",\"extensions\":{")) {
        ("", _) => capabilities.to_owned(),
        (members, Some(others)) => format!(",\"extensions\":{{{members},{others}"),
        (members, None) => format!(",\"extensions\":{{{members}}}{capabilities}"),
    }
}

fn member(name: &str) -> impl Fn(&String) -> String {
    move |text| format!(",\"{name}\":{}", Json::of(text).as_str())
}
