//! Housekeeping: what the gateway itself asks an upstream, without a call of anybody.
//!
//! Decides which methods need no intent record: those listed here and no others. Knows nothing of
//! policy. Invariant: an errand has no effect at the upstream beyond its own session, and one item that
//! is not what it should be hides itself only.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use serde_json::json;

use super::server::{Parcel, Trouble};
use super::{Access, answer};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Kind, LogLevel, TASKS_EXTENSION, Version, code};
use crate::wire::{Askable, Json, Message, Outgoing, Source, Value};

/// One request of the gateway's own. Its constructors are the list of what may be asked.
#[derive(Debug)]
pub(super) struct Errand {
    method: &'static str,
    params: Json,
}

impl Errand {
    fn new(method: &'static str, params: &serde_json::Value) -> Self {
        Self { method, params: Json::of(params) }
    }

    /// `server/discover` (2026-07-28).
    pub(super) fn discover() -> Self {
        Self::new("server/discover", &with_client(json!({})))
    }

    /// `initialize` with the highest legacy version, declaring what can be asked.
    pub(super) fn initialize(askable: Askable) -> Self {
        let parameters = json!({
            "protocolVersion": Version::V2025_11_25.as_str(),
            "capabilities": askable.capabilities(),
            "clientInfo": client(),
        });
        Self::new("initialize", &parameters)
    }

    /// `notifications/initialized`.
    pub(super) fn initialized() -> Self {
        Self::new("notifications/initialized", &json!({}))
    }

    /// `notifications/roots/list_changed`.
    pub(super) fn roots_changed() -> Self {
        Self::new("notifications/roots/list_changed", &json!({}))
    }

    /// One page of a list.
    pub(super) fn list(kind: Kind, cursor: Option<&Json>) -> Self {
        let mut parameters = with_client(json!({}));
        if let Some(cursor) = cursor.and_then(|cursor| cursor.value().as_str())
            && let Some(object) = parameters.as_object_mut()
        {
            object.insert("cursor".to_owned(), json!(cursor));
        }
        Self::new(kind.list_method(), &parameters)
    }

    /// `subscriptions/listen` for changed lists (2026-07-28).
    pub(super) fn listen() -> Self {
        let wanted = json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true });
        Self::new("subscriptions/listen", &with_client(json!({ "notifications": wanted })))
    }

    /// `subscriptions/listen` for changed resources (2026-07-28).
    pub(super) fn listen_to(uris: &[Arc<str>]) -> Self {
        let uris: Vec<&str> = uris.iter().map(AsRef::as_ref).collect();
        Self::new("subscriptions/listen", &with_client(json!({ "notifications": { "resourceSubscriptions": uris } })))
    }

    /// `resources/subscribe` (legacy), in the session of clients that declare this.
    pub(super) fn subscribe(uri: &str, capabilities: &Json) -> Self {
        Self::in_session("resources/subscribe", uri, capabilities)
    }

    /// `logging/setLevel` (legacy).
    pub(super) fn set_log_level(level: LogLevel) -> Self {
        Self::new("logging/setLevel", &json!({ "level": level.as_str() }))
    }

    /// `resources/unsubscribe` (legacy), in the session of clients that declare this.
    pub(super) fn unsubscribe(uri: &str, capabilities: &Json) -> Self {
        Self::in_session("resources/unsubscribe", uri, capabilities)
    }

    /// The adapter takes what clients declare off again; it only says which session is meant.
    fn in_session(method: &'static str, uri: &str, capabilities: &Json) -> Self {
        let uri = Json::of(uri);
        let (uri, meta, declared) = (uri.as_str(), crate::wire::mcp::meta::CLIENT_CAPABILITIES, capabilities.as_str());
        Self { method, params: Json::joined(format!(r#"{{"uri":{uri},"_meta":{{"{meta}":{declared}}}}}"#)) }
    }

    /// The errand as it is said where nobody answers: a notification.
    pub(super) fn notification(&self) -> Message {
        Message::notification(self.method, None)
    }

    /// The errand as it is sent, with what is presented.
    pub(super) fn parcel(self, access: &Access) -> Parcel {
        let outgoing = Outgoing {
            method: self.method.to_owned(),
            params: self.params,
            name: None,
            header_parameters: Vec::new(),
            headers: Vec::new(),
            progress_token: None,
            last_words: None,
            process: None,
        };
        Parcel {
            access: access.clone(),
            listening: self.method == "subscriptions/listen",
            outgoing,
            leg: None,
            errand: true,
        }
    }
}

fn client() -> serde_json::Value {
    json!({ "name": env!("CARGO_PKG_NAME"), "version": env!("CARGO_PKG_VERSION") })
}

/// The `_meta` that a modern request must have; the adapter adds the version, or takes it off.
fn with_client(mut parameters: serde_json::Value) -> serde_json::Value {
    if let Some(object) = parameters.as_object_mut() {
        let meta = json!({
            crate::wire::mcp::meta::CLIENT_CAPABILITIES: {},
            crate::wire::mcp::meta::CLIENT_INFO: client(),
        });
        object.insert("_meta".to_owned(), meta);
    }
    parameters
}

/// What a server says of itself.
#[derive(Debug, Clone)]
pub struct ServerFacts {
    /// The version that is spoken with it; its era follows.
    pub version: Version,
    /// Its capabilities object.
    pub capabilities: Json,
    /// Its instructions for models.
    pub instructions: Option<String>,
    /// Its name and version; display only.
    pub info: Option<Json>,
}

impl ServerFacts {
    /// Which era it speaks.
    #[must_use]
    pub const fn era(&self) -> crate::wire::mcp::Era {
        self.version.era()
    }

    /// Whether a capability was announced, and within it a flag such as `listChanged`.
    #[must_use]
    pub fn announces(&self, capability: &str, flag: Option<&str>) -> bool {
        let found = self.capabilities.value().as_object().and_then(|all| all.get(capability));
        match flag {
            None => found.is_some_and(|value| !value.is_null()),
            Some(flag) => {
                found.and_then(Value::as_object).and_then(|one| one.get(flag)).and_then(Value::as_bool) == Some(true)
            }
        }
    }

    /// Whether the tasks extension was announced.
    pub(super) fn has_tasks_extension(&self) -> bool {
        let settings = answer::member(self.capabilities.value().as_object(), "extensions", TASKS_EXTENSION);
        settings.is_some_and(|settings| settings.as_object().is_some())
    }

    /// What the answer to `initialize` says.
    pub(super) fn of_initialize(outcome: Outcome) -> Result<Self, Trouble> {
        let result = result_of(outcome, "initialize")?;
        let version = text(&result, "protocolVersion").unwrap_or_default();
        let version = match version.as_str() {
            // The oldest version differs in its HTTP transport only, and we are past that here.
            "2024-11-05" => Version::V2025_03_26,
            other => Version::parse(other).filter(|version| Version::LEGACY.contains(version)).ok_or_else(|| {
                Failure::after(Reason::UpstreamGarbage, "its initialize names no protocol version that is known")
            })?,
        };
        Ok(Self::read(&result, version, part(&result, "serverInfo")))
    }

    /// What the answer to `server/discover` says.
    pub(super) fn of_discover(outcome: Outcome) -> Result<Self, Trouble> {
        let result = result_of(outcome, "server/discover")?;
        let info = result
            .value()
            .as_object()
            .and_then(|object| answer::member(Some(object), "_meta", crate::wire::mcp::meta::SERVER_INFO))
            .map(|info| result.share(info))
            .or_else(|| part(&result, "serverInfo"));
        Ok(Self::read(&result, Version::V2026_07_28, info))
    }

    fn read(result: &Json, version: Version, info: Option<Json>) -> Self {
        let capabilities = part(result, "capabilities").filter(|found| found.value().as_object().is_some());
        Self {
            version,
            capabilities: capabilities.unwrap_or_else(|| Json::of(&json!({}))),
            instructions: text(result, "instructions").filter(|said| {
                let fits = said.len() <= limit::DEFINITION_BYTES_MAX;
                if !fits {
                    tracing::warn!(bytes = said.len(), "a server's instructions are too long: they are left out");
                }
                fits
            }),
            info: info.filter(|info| info.value().as_object().is_some()),
        }
    }
}

/// Whether an answer to `server/discover` was given by a server of 2026-07-28.
pub(super) fn is_modern(outcome: &Outcome) -> bool {
    match outcome {
        Outcome::Complete(result) => names_modern(part(result, "supportedVersions").as_ref()),
        Outcome::Error(error) => {
            let number = answer::error_code(error);
            if number == Some(i64::from(code::UNSUPPORTED_VERSION)) {
                return names_modern(part(error, "data").and_then(|data| part(&data, "supported")).as_ref());
            }
            [code::HEADER_MISMATCH, code::MISSING_CAPABILITY].iter().any(|code| number == Some(i64::from(*code)))
        }
        _ => false,
    }
}

/// Whether a list of versions has one without `initialize`.
fn names_modern(versions: Option<&Json>) -> bool {
    let mut versions = versions.into_iter().filter_map(|versions| versions.value().as_array()).flatten();
    versions.any(|version| {
        version.as_str().and_then(|text| Version::parse(&text)).is_some_and(|v| Version::MODERN.contains(&v))
    })
}

/// All items of one list.
#[derive(Debug, Clone)]
pub struct Listing {
    /// The items as the upstream sent them, each fit for any client.
    pub items: Vec<Json>,
    /// How many were not, and are left out.
    pub dropped: usize,
    /// How long it may be kept, where every page says so.
    pub ttl: Option<Duration>,
    /// The upstream says that it is the same for everyone.
    pub public: bool,
}

/// Gathers the pages of one list.
#[derive(Debug)]
pub(super) struct Pages {
    kind: Kind,
    listing: Listing,
    ttls: Option<Duration>,
    pages: usize,
    bytes: usize,
    cursors: HashSet<String>,
}

impl Pages {
    pub(super) fn new(kind: Kind) -> Self {
        let listing = Listing { items: Vec::new(), dropped: 0, ttl: None, public: true };
        Self { kind, listing, ttls: None, pages: 0, bytes: 0, cursors: HashSet::new() }
    }

    /// Takes a page; answers the cursor of the next one.
    pub(super) fn take(&mut self, page: &Json) -> Result<Option<Json>, Failure> {
        let garbage =
            |detail: &str| Failure::after(Reason::UpstreamGarbage, format!("{}: {detail}", self.kind.list_method()));
        let object = page.value().as_object().ok_or_else(|| garbage("the result is no object"))?;
        self.pages += 1;
        self.bytes += page.as_bytes().len();
        if self.pages > limit::LIST_PAGES_MAX || self.bytes > limit::LIST_BYTES_MAX {
            return Err(garbage("the list is too long"));
        }
        let (mut items, mut cursor, mut ttl_ms, mut public) = (None, None, None, false);
        for (key, value) in object.members() {
            match key.as_ref() {
                "nextCursor" => cursor = value.as_str(),
                "ttlMs" => ttl_ms = value.as_i64(),
                "cacheScope" => public = value.as_str().is_some_and(|scope| scope == "public"),
                name if name == self.kind.list_member() => items = value.as_array(),
                _ => {}
            }
        }
        let items = items.ok_or_else(|| garbage("the result has no items"))?;
        for item in items {
            match checked(item, self.kind) {
                Some(item) => self.listing.items.push(item),
                None => self.listing.dropped += 1,
            }
            if self.listing.items.len() + self.listing.dropped > limit::LIST_ITEMS_MAX {
                return Err(garbage("the list has too many items"));
            }
        }
        self.listing.public &= public;
        let ttl = Duration::from_millis(ttl_ms.and_then(|ttl| u64::try_from(ttl).ok()).unwrap_or(0));
        self.ttls = Some(self.ttls.map_or(ttl, |other| other.min(ttl)));
        match cursor {
            None => Ok(None),
            Some(cursor) if cursor.len() > limit::CURSOR_BYTES_MAX => Err(garbage("the cursor is too long")),
            Some(cursor) => {
                if !self.cursors.insert(cursor.clone().into_owned()) {
                    return Err(garbage("the cursors go round in a circle"));
                }
                Ok(Some(Json::of(cursor.as_ref())))
            }
        }
    }

    /// The whole list.
    pub(super) fn finish(mut self) -> Listing {
        self.listing.ttl = self.ttls.filter(|ttl| !ttl.is_zero());
        self.listing
    }
}

/// The item, if every client can read it: no doubled key at any depth, and what its kind requires. One
/// item without it makes many clients refuse the whole list.
fn checked(item: Value<'_>, kind: Kind) -> Option<Json> {
    let json = Json::parse(item.raw(), Source::Client).ok()?;
    let object = json.value().as_object()?;
    let (mut key, mut name, mut fit) = (false, false, true);
    let mut schema = false;
    for (member, value) in object.members() {
        let text = value.as_str().is_some_and(|text| !text.is_empty());
        if member == kind.key_member() {
            key = text;
        }
        match (kind, member.as_ref()) {
            (_, "name") => name = text,
            (Kind::Tool, "inputSchema") => schema = value.as_object().is_some(),
            (Kind::Tool, "outputSchema") => fit &= value.as_object().is_some(),
            (Kind::Prompt, "arguments") => fit &= value.as_array().is_some(),
            _ => {}
        }
    }
    (key && name && fit && (schema || kind != Kind::Tool)).then_some(json)
}

/// The result that an errand must have.
pub(super) fn result_of(outcome: Outcome, method: &str) -> Result<Json, Trouble> {
    match outcome {
        Outcome::Complete(result) => Ok(result),
        Outcome::Error(error) => {
            let number = answer::error_code(&error).unwrap_or_default();
            let failure = Failure::after(Reason::UpstreamStatus, format!("{method}: JSON-RPC error {number}"));
            let wrong_era = [code::METHOD_NOT_FOUND, code::UNSUPPORTED_VERSION, code::INVALID_REQUEST];
            if wrong_era.iter().any(|code| i64::from(*code) == number) {
                return Err(Trouble::WrongEra(failure));
            }
            Err(failure.into())
        }
        Outcome::Failed(failure) => Err(failure.into()),
        Outcome::InputRequired { .. } | Outcome::Task(_) | Outcome::Refused(_) => {
            Err(Failure::after(Reason::UpstreamGarbage, format!("{method}: the result is not complete")).into())
        }
    }
}

fn part(result: &Json, key: &str) -> Option<Json> {
    let value = result.value().as_object()?.get(key)?;
    Some(result.share(value))
}

fn text(result: &Json, key: &str) -> Option<String> {
    Some(result.value().as_object()?.get(key)?.as_str()?.into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(value: &str) -> Json {
        Json::parse(value, Source::Upstream).unwrap()
    }

    #[test]
    fn instructions_that_are_longer_than_a_definition_are_left_out() {
        let said = |length: usize| {
            let result = json!({ "capabilities": {}, "instructions": "x".repeat(length) });
            ServerFacts::read(&Json::of(&result), Version::V2026_07_28, None).instructions.map(|said| said.len())
        };
        assert_eq!(said(limit::DEFINITION_BYTES_MAX), Some(limit::DEFINITION_BYTES_MAX));
        assert_eq!(said(limit::DEFINITION_BYTES_MAX + 1), None);
    }

    #[test]
    fn a_broken_item_hides_itself_only() {
        let good = r#"{"name":"a","inputSchema":{"type":"object"},"x":1.0}"#;
        let broken = [
            r#"{"name":"b"}"#,
            r#"{"name":"b","inputSchema":true}"#,
            r#"{"name":"b","inputSchema":{"a":{"k":1,"k":2}}}"#,
            r#"{"name":"","inputSchema":{}}"#,
            r#"{"name":5,"inputSchema":{}}"#,
            r#"{"name":"b","inputSchema":{},"outputSchema":true}"#,
            r#"{"name":"\ud800","inputSchema":{}}"#,
            "7",
        ];
        let mut pages = Pages::new(Kind::Tool);
        assert!(pages.take(&page(&format!(r#"{{"tools":[{},{good}]}}"#, broken.join(",")))).unwrap().is_none());
        let listing = pages.finish();
        assert_eq!(listing.items.iter().map(Json::as_str).collect::<Vec<_>>(), [good]);
        assert_eq!(listing.dropped, broken.len());
    }

    #[test]
    fn cursors_that_go_in_a_circle_and_endless_lists_are_refused() {
        let mut pages = Pages::new(Kind::Prompt);
        assert_eq!(pages.take(&page(r#"{"prompts":[],"nextCursor":"a"}"#)).unwrap().unwrap().as_str(), "\"a\"");
        assert!(pages.take(&page(r#"{"prompts":[],"nextCursor":"b"}"#)).unwrap().is_some());
        assert!(pages.take(&page(r#"{"prompts":[],"nextCursor":"a"}"#)).unwrap_err().detail.contains("circle"));
        let mut pages = Pages::new(Kind::Prompt);
        let endless = (0..=limit::LIST_PAGES_MAX)
            .map(|n| pages.take(&page(&format!(r#"{{"prompts":[],"nextCursor":"{n}"}}"#))))
            .find_map(Result::err);
        assert!(endless.unwrap().detail.contains("too long"));
        let items = vec![r#"{"name":"a"}"#; limit::LIST_ITEMS_MAX + 1].join(",");
        let full = Pages::new(Kind::Prompt).take(&page(&format!(r#"{{"prompts":[{items}]}}"#)));
        assert!(full.unwrap_err().detail.contains("too many items"));
        let long = "c".repeat(limit::CURSOR_BYTES_MAX + 1);
        let long = Pages::new(Kind::Prompt).take(&page(&format!(r#"{{"prompts":[],"nextCursor":"{long}"}}"#)));
        assert!(long.unwrap_err().detail.contains("cursor is too long"));
        assert!(Pages::new(Kind::Tool).take(&page("{}")).is_err());
    }

    #[test]
    fn the_shortest_hint_of_all_pages_counts_and_a_missing_one_is_none() {
        let of = |pages: &[&str]| {
            let mut all = Pages::new(Kind::Prompt);
            pages.iter().for_each(|text| {
                all.take(&page(text)).unwrap();
            });
            let listing = all.finish();
            (listing.ttl.map(|ttl| ttl.as_millis()), listing.public)
        };
        let long = r#"{"prompts":[],"nextCursor":"a","ttlMs":900,"cacheScope":"public"}"#;
        assert_eq!(of(&[long, r#"{"prompts":[],"ttlMs":500,"cacheScope":"public"}"#]), (Some(500), true));
        assert_eq!(of(&[long, r#"{"prompts":[],"ttlMs":500,"cacheScope":"private"}"#]), (Some(500), false));
        assert_eq!(of(&[long, r#"{"prompts":[]}"#]), (None, false));
        assert_eq!(of(&[r#"{"prompts":[],"ttlMs":-5}"#]), (None, false));
    }

    #[test]
    fn only_a_server_that_names_the_modern_version_is_modern() {
        let complete = |text: &str| Outcome::Complete(page(text));
        assert!(is_modern(&complete(r#"{"supportedVersions":["2026-07-28","2025-11-25"]}"#)));
        assert!(!is_modern(&complete(r#"{"supportedVersions":["2025-11-25"]}"#)));
        assert!(!is_modern(&complete(r#"{"protocolVersion":"2026-07-28"}"#)));
        let error = |number: i32| Outcome::Error(Json::of(&json!({ "code": number, "message": "m" })));
        for (number, modern) in [(-32020, true), (-32021, true), (-32601, false), (-32602, false), (-32000, false)] {
            assert_eq!(is_modern(&error(number)), modern, "{number}");
        }
        let unsupported = |data: serde_json::Value| {
            is_modern(&Outcome::Error(Json::of(&json!({ "code": -32022, "message": "m", "data": data }))))
        };
        assert!(unsupported(json!({ "supported": ["2025-11-25", "2026-07-28"] })));
        assert!(!unsupported(json!({ "supported": ["2025-11-25"] })));
        assert!(!unsupported(json!(null)));
    }

    #[test]
    fn the_bytes_of_all_pages_of_a_list_are_bounded() {
        let mut pages = Pages::new(Kind::Prompt);
        let large = "x".repeat(4 * 1024 * 1024);
        let fit = limit::LIST_BYTES_MAX / (large.len() + 64);
        let sent = |number: usize| page(&format!(r#"{{"prompts":[],"x":"{large}","nextCursor":"{number}"}}"#));
        assert!((0..fit).all(|number| pages.take(&sent(number)).is_ok()));
        assert!(pages.take(&sent(fit)).unwrap_err().detail.contains("too long"));
    }
}
