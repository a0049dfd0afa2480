//! Reading one list: each item becomes a [`Definition`] or is dropped with a reason, and hurts no other.
//!
//! Decides which definitions can be offered. Invariant: a definition is one JSON object without duplicate
//! keys at any depth, so what we route by, what the policy reads and what a client parses are the same.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use super::header::header_parameters;
use super::pins::{digest, pin_kind};
use super::secrets;
use super::target::{Definition, Hints, TaskSupport};
use super::uri::is_confusing;
use crate::ids::{PinKind, ServerId};
use crate::limit;
use crate::wire::mcp::Kind;
use crate::wire::{Json, Object, Source, Value};

/// An item that a listing does not offer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dropped {
    /// Of what kind it would have been.
    pub kind: Kind,
    /// Its name or URI, cut short, where it has one; hostile text, escape it before showing it.
    pub name: String,
    /// Why.
    pub reason: DropReason,
}

/// Why an item is not offered.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DropReason {
    /// It is not one JSON object that every parser reads alike.
    Malformed,
    /// Its name or URI is missing, empty or too long.
    NameMissing,
    /// Its URI could confuse a matcher and would be refused when read.
    UriConfusing,
    /// A tool without an input schema of type object.
    SchemaMissing,
    /// An `x-mcp-header` annotation breaks the rules; the text says which.
    HeaderParameter(&'static str),
    /// Larger than [`limit::DEFINITION_BYTES_MAX`].
    TooLarge,
    /// An earlier item of this server has the same name or URI.
    Duplicate,
    /// Past [`limit::LISTED_ITEMS_MAX`] or [`limit::LISTED_BYTES_MAX`].
    TooMany,
}

impl fmt::Display for DropReason {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Malformed => "it is not one JSON object without duplicate keys",
            Self::NameMissing => "its name is missing, empty or too long",
            Self::UriConfusing => "its URI has dot segments, encoded separators, userinfo or control characters",
            Self::SchemaMissing => "its inputSchema is not an object schema",
            Self::HeaderParameter(rule) => rule,
            Self::TooLarge => "its definition is too large",
            Self::Duplicate => "an earlier one has the same name",
            Self::TooMany => "the server lists too many or too much",
        })
    }
}

/// One list as it can be offered.
#[derive(Debug, Default)]
pub(super) struct Definitions {
    pub(super) items: Vec<Arc<Definition>>,
    /// The first [`limit::DROPPED_REPORTED_MAX`] of what was dropped.
    pub(super) dropped: Vec<Dropped>,
    /// All of it.
    pub(super) dropped_count: usize,
}

impl Definitions {
    /// Reads a list in its order.
    pub(super) fn read(server: &ServerId, kind: Kind, items: &[Json]) -> Self {
        let mut read = Self::default();
        let mut names: HashSet<Arc<str>> = HashSet::with_capacity(items.len());
        let mut bytes = 0_usize;
        for item in items {
            if read.items.len() >= limit::LISTED_ITEMS_MAX || bytes >= limit::LISTED_BYTES_MAX {
                read.drop_item(kind, item, DropReason::TooMany);
                continue;
            }
            match definition(server, kind, item) {
                Ok(definition) if !names.insert(Arc::clone(&definition.name)) => {
                    read.drop_item(kind, item, DropReason::Duplicate);
                }
                Ok(definition) => {
                    bytes = bytes.saturating_add(definition.raw.as_bytes().len());
                    read.items.push(Arc::new(definition));
                }
                Err(reason) => read.drop_item(kind, item, reason),
            }
        }
        read
    }

    fn drop_item(&mut self, kind: Kind, item: &Json, reason: DropReason) {
        self.dropped_count += 1;
        if self.dropped.len() < limit::DROPPED_REPORTED_MAX {
            let name = item.value().as_object().and_then(|object| object.get(kind.key_member()));
            let name = name.and_then(Value::as_str).unwrap_or_default().chars().take(80).collect();
            self.dropped.push(Dropped { kind, name, reason });
        }
    }
}

fn definition(server: &ServerId, kind: Kind, item: &Json) -> Result<Definition, DropReason> {
    if item.as_bytes().len() > limit::DEFINITION_BYTES_MAX {
        return Err(DropReason::TooLarge);
    }
    // What an upstream sends may have duplicate keys far down; in a definition they would let the schema
    // that we read differ from the one that a client reads.
    let raw = Json::parse(item.value().raw(), Source::Client).map_err(|_| DropReason::Malformed)?;
    let object = raw.value().as_object().ok_or(DropReason::Malformed)?;
    let name = object.get(kind.key_member()).and_then(Value::as_str).ok_or(DropReason::NameMissing)?;
    if name.is_empty() || name.len() > limit::LISTED_NAME_BYTES_MAX {
        return Err(DropReason::NameMissing);
    }
    if matches!(kind, Kind::Resource | Kind::ResourceTemplate) && is_confusing(&name) {
        return Err(DropReason::UriConfusing);
    }
    let header_parameters = match kind {
        Kind::Tool => header_parameters(input_schema(object)?).map_err(DropReason::HeaderParameter)?,
        _ => Vec::new(),
    };
    let task_support = if kind == Kind::Tool { task_support(object) } else { TaskSupport::Forbidden };
    let name = Arc::from(name.as_ref());
    let spelled = pin_kind(kind).map_or("resource", PinKind::as_str);
    let digest = digest(server, spelled, &raw);
    let hints = if kind == Kind::Tool { hints(object) } else { Hints::default() };
    let secrecy = secrets::secrecy(raw.as_str());
    Ok(Definition { name, digest, raw, header_parameters, task_support, hints, secrecy, seal: None })
}

fn hints(tool: Object<'_>) -> Hints {
    let annotations = tool.get("annotations").and_then(Value::as_object);
    let hint = |name| annotations.and_then(|annotations| annotations.get(name)).and_then(Value::as_bool) == Some(true);
    Hints { destructive: hint("destructiveHint"), open_world: hint("openWorldHint") }
}

fn task_support(tool: Object<'_>) -> TaskSupport {
    let execution = tool.get("execution").and_then(Value::as_object);
    match execution.and_then(|execution| execution.get("taskSupport")).and_then(Value::as_str).as_deref() {
        Some("required") => TaskSupport::Required,
        Some("optional") => TaskSupport::Optional,
        _ => TaskSupport::Forbidden,
    }
}

fn input_schema(tool: Object<'_>) -> Result<Object<'_>, DropReason> {
    let schema = tool.get("inputSchema").and_then(Value::as_object).ok_or(DropReason::SchemaMissing)?;
    match schema.get("type") {
        // Some servers leave it out; calls work all the same.
        None => Ok(schema),
        Some(kind) if kind.as_str().as_deref() == Some("object") => Ok(schema),
        Some(_) => Err(DropReason::SchemaMissing),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn git() -> ServerId {
        ServerId::new("git").unwrap()
    }

    fn upstream(text: &str) -> Json {
        // As the upstream room cuts items out of a result: deep enough that duplicate keys are let through.
        let message = Json::parse(format!(r#"[[[{text}]]]"#), Source::Upstream).unwrap();
        let mut value = message.value();
        for _ in 0..3 {
            value = value.as_array().unwrap().next().unwrap();
        }
        message.share(value)
    }

    fn read(items: &[&str]) -> Definitions {
        Definitions::read(&git(), Kind::Tool, &items.iter().map(|text| upstream(text)).collect::<Vec<_>>())
    }

    #[test]
    fn one_malformed_tool_hides_one_tool() {
        let read = read(&[
            r#"{"name":"a","inputSchema":{"type":"object"},"unknown":1.0}"#,
            "7",
            r#"{"inputSchema":{}}"#,
            r#"{"name":"","inputSchema":{}}"#,
            r#"{"name":"b"}"#,
            r#"{"name":"c","inputSchema":true}"#,
            r#"{"name":"d","inputSchema":{"type":"array"}}"#,
            r#"{"name":"e","name":"f","inputSchema":{}}"#,
            r#"{"name":"g","inputSchema":{"properties":{"x":{"type":"string","type":"integer"}}}}"#,
            r#"{"name":"h","inputSchema":{"properties":{"x":{"type":"number","x-mcp-header":"X"}}}}"#,
            r#"{"name":"a","inputSchema":{"properties":{}}}"#,
            r#"{"name":"z","inputSchema":{}}"#,
        ]);
        let names: Vec<_> = read.items.iter().map(|item| item.name.as_ref()).collect();
        assert_eq!(names, ["a", "z"]);
        assert!(read.items[0].raw.as_str().contains(r#""unknown":1.0"#));
        assert!(read.items[0].raw.as_str().contains("\"type\""), "the first of two with one name is kept");
        assert_eq!(read.dropped_count, 10);
        let reasons: HashSet<_> = read.dropped.iter().map(|dropped| std::mem::discriminant(&dropped.reason)).collect();
        assert_eq!(reasons.len(), 5, "{:?}", read.dropped);
    }

    #[test]
    fn a_tool_knows_its_mirrored_parameters() {
        let read = read(&[
            r#"{"name":"a","inputSchema":{"type":"object","properties":{"r":{"type":"string","x-mcp-header":"Region"}}}}"#,
        ]);
        assert_eq!(read.items[0].header_parameters[0].header, "Region");
    }

    #[test]
    fn the_number_and_size_of_definitions_are_bounded() {
        let many: Vec<Json> = (0..=limit::LISTED_ITEMS_MAX)
            .map(|n| Json::of(&serde_json::json!({"name": format!("t{n}"), "inputSchema": {}})))
            .collect();
        let read = Definitions::read(&git(), Kind::Tool, &many);
        assert_eq!((read.items.len(), read.dropped_count), (limit::LISTED_ITEMS_MAX, 1));
        assert_eq!(read.dropped[0].reason, DropReason::TooMany);

        let large = |name: &str, bytes: usize| {
            Json::of(&serde_json::json!({"name": name, "description": "x".repeat(bytes), "inputSchema": {}}))
        };
        let read = Definitions::read(&git(), Kind::Tool, &[large("a", limit::DEFINITION_BYTES_MAX), large("b", 10)]);
        assert_eq!(read.items.len(), 1);
        assert_eq!(read.dropped[0].reason, DropReason::TooLarge);

        let almost = limit::DEFINITION_BYTES_MAX - 100;
        let heavy: Vec<_> = (0..40).map(|n| large(&format!("t{n}"), almost)).collect();
        let read = Definitions::read(&git(), Kind::Tool, &heavy);
        assert!(read.dropped_count > 0 && read.items.len() * almost <= limit::LISTED_BYTES_MAX + almost);
    }

    #[test]
    fn a_resource_that_could_not_be_read_is_not_listed() {
        let items = ["x://h/a", "x://h/../a", "x://user@h/a", "x://h/{id}"]
            .map(|uri| Json::of(&serde_json::json!({"uri": uri})));
        let read = Definitions::read(&git(), Kind::Resource, &items);
        assert_eq!(read.items.len(), 2);
        assert!(read.dropped.iter().all(|dropped| dropped.reason == DropReason::UriConfusing));
    }

    #[test]
    fn names_and_reports_are_bounded() {
        let named = |length: usize| Json::of(&serde_json::json!({"name": "n".repeat(length), "inputSchema": {}}));
        let read = Definitions::read(
            &git(),
            Kind::Tool,
            &[named(limit::LISTED_NAME_BYTES_MAX), named(limit::LISTED_NAME_BYTES_MAX + 1)],
        );
        assert_eq!((read.items.len(), read.dropped[0].reason), (1, DropReason::NameMissing));
        let bad = vec![Json::of(&7); limit::DROPPED_REPORTED_MAX + 10];
        let read = Definitions::read(&git(), Kind::Tool, &bad);
        assert_eq!((read.dropped.len(), read.dropped_count), (limit::DROPPED_REPORTED_MAX, bad.len()));
    }

    #[test]
    fn the_digest_covers_all_that_is_said_and_not_how() {
        let digest = |text: &str| read(&[text]).items[0].digest;
        let one = digest(r#"{"name":"a","description":"x","inputSchema":{"type":"object","maxProperties":1}}"#);
        let alike =
            r#"{ "inputSchema" : {"maxProperties":1.0, "type":"object"},"\u0064escription":"\u0078","name":"a"}"#;
        assert_eq!(one, digest(alike));
        for other in [
            r#"{"name":"a","description":"y","inputSchema":{"type":"object","maxProperties":1}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","maxProperties":2}}"#,
            r#"{"name":"a","description":"x","title":"","inputSchema":{"type":"object","maxProperties":1}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","maxProperties":1},"annotations":{}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","maxProperties":1},"_meta":{"x":1}}"#,
            r#"{"name":"a","description":"x","inputSchema":{"type":"object","maxProperties":1},"outputSchema":{}}"#,
        ] {
            assert_ne!(one, digest(other), "{other}");
        }
        let elsewhere = Definitions::read(&ServerId::new("hub").unwrap(), Kind::Tool, &[upstream(alike)]);
        assert_ne!(one, elsewhere.items[0].digest, "of another server");
    }
}
