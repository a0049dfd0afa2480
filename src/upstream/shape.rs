//! What differs between the eras in one request and one result: pure functions over bytes.
//!
//! Decides how the modern shape inside becomes what an upstream of either era expects, and which ending
//! a result is. Knows no sockets. Invariant: our own `_meta` keys never leave, and never come in.

use std::borrow::Cow;
use std::sync::LazyLock;

use base64::Engine as _;
use http::HeaderValue;

use crate::outcome::{Origin, Outcome, Resume};
use crate::wire::mcp::{Era, Version, meta};
use crate::wire::{Askable, Edit, Json, Object, Outgoing, Value, without_own_keys};

static MODERN: LazyLock<Json> = LazyLock::new(|| Json::of(Version::V2026_07_28.as_str()));
static EMPTY: LazyLock<Json> = LazyLock::new(|| Json::of(&serde_json::Map::new()));

/// The parameters as an upstream of that era expects them, with our progress token if progress is wanted.
pub(super) fn parameters(outgoing: &Outgoing, era: Era, token: Option<&Json>) -> Json {
    let Some(empty) = EMPTY.value().as_object() else { return EMPTY.clone() };
    let object = outgoing.params.value().as_object().unwrap_or(empty);
    let old = object.get("_meta").and_then(Value::as_object).unwrap_or(empty);
    // Most calls go from a modern client to a modern server without progress: then nothing is left to change.
    if era == Era::Modern && token.is_none() && is_modern(old) {
        return outgoing.params.clone();
    }
    let progress =
        token.map_or(Edit::Remove(meta::PROGRESS_TOKEN), |token| Edit::Set(meta::PROGRESS_TOKEN, token.clone()));
    let new = match era {
        Era::Modern => old.edited(&[
            Edit::Set(meta::PROTOCOL_VERSION, MODERN.clone()),
            Edit::Default(meta::CLIENT_CAPABILITIES, EMPTY.clone()),
            Edit::RemovePrefix(meta::OWN_PREFIX),
            progress,
        ]),
        Era::Legacy => old.edited(&[
            Edit::Remove(meta::PROTOCOL_VERSION),
            Edit::Remove(meta::CLIENT_CAPABILITIES),
            Edit::Remove(meta::CLIENT_INFO),
            Edit::Remove(meta::LOG_LEVEL),
            Edit::RemovePrefix(meta::OWN_PREFIX),
            progress,
        ]),
    };
    let meta = if new == *EMPTY { Edit::Remove("_meta") } else { Edit::Set("_meta", new) };
    match era {
        Era::Modern => object.edited(&[meta]),
        // The retry of a call that began when the server spoke the modern era: to this one it is a new call.
        Era::Legacy if !outgoing.method.starts_with("tasks/") => {
            object.edited(&[meta, Edit::Remove("inputResponses"), Edit::Remove("requestState")])
        }
        Era::Legacy => object.edited(&[meta]),
    }
}

/// Whether a `_meta` is what a modern server expects, and holds nothing that it must not see.
fn is_modern(members: Object<'_>) -> bool {
    let (mut version, mut capabilities) = (false, false);
    for (key, value) in members.members() {
        match key.as_ref() {
            meta::PROTOCOL_VERSION if value.raw() == MODERN.as_str() => version = true,
            meta::CLIENT_CAPABILITIES => capabilities = true,
            meta::PROTOCOL_VERSION | meta::PROGRESS_TOKEN => return false,
            key if key.starts_with(meta::OWN_PREFIX) => return false,
            _ => {}
        }
    }
    version && capabilities
}

/// Which endings a server may say that a result is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Believed {
    /// None: a legacy server has no `resultType`.
    Nothing,
    /// A task: a legacy server that has the tasks extension, and was told that its client has it.
    Tasks,
    /// All of 2026-07-28.
    Everything,
}

impl Believed {
    /// Of a server of that era that was told this.
    pub(super) fn of(era: Era, declared: impl FnOnce() -> Askable) -> Self {
        match era {
            Era::Modern => Self::Everything,
            Era::Legacy if declared().has_tasks() => Self::Tasks,
            Era::Legacy => Self::Nothing,
        }
    }
}

/// Which ending a result is; what is not believed of its server is taken out.
pub(super) fn outcome(result: Json, believed: Believed) -> Outcome {
    let result = without_own_keys(result);
    let Some(object) = result.value().as_object() else { return Outcome::Complete(result) };
    // The last one counts, as it does for most who read JSON.
    let kind = object.members().filter(|(key, _)| key == "resultType").last().and_then(|(_, value)| value.as_str());
    let ending = match (believed, kind.as_deref()) {
        (Believed::Everything, Some("input_required")) => Ending::Input,
        (Believed::Everything | Believed::Tasks, Some("task")) => Ending::Task,
        _ => Ending::Complete,
    };
    let not_believed = believed != Believed::Everything && kind.is_some() && !matches!(ending, Ending::Task);
    let result = if not_believed { object.edited(&[Edit::Remove("resultType")]) } else { result };
    match ending {
        Ending::Complete => Outcome::Complete(result),
        Ending::Task => Outcome::Task(result),
        Ending::Input => Outcome::InputRequired { origin: Origin::Upstream, result, resume: Resume::default() },
    }
}

enum Ending {
    Complete,
    Task,
    Input,
}

/// A text as an HTTP header of 2026-07-28: as it is, or in the base64 form where it could not travel.
pub(super) fn header_value(text: &str) -> Option<HeaderValue> {
    let looks_encoded = text.starts_with("=?base64?") && text.ends_with("?=");
    let would_be_trimmed = text.is_empty() || text.starts_with(' ') || text.ends_with(' ');
    let sendable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    let plain = sendable && !looks_encoded && !would_be_trimmed;
    let text = if plain {
        Cow::Borrowed(text)
    } else {
        Cow::Owned(format!("=?base64?{}?=", base64::engine::general_purpose::STANDARD.encode(text)))
    };
    HeaderValue::from_str(&text).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn outgoing(params: &serde_json::Value) -> Outgoing {
        Outgoing {
            method: "tools/call".to_owned(),
            params: Json::of(params),
            name: None,
            header_parameters: Vec::new(),
            headers: Vec::new(),
            progress_token: None,
            last_words: None,
            process: None,
        }
    }

    #[test]
    fn a_modern_request_gets_the_meta_that_it_must_have() {
        let bare = outgoing(&json!({ "name": "a" }));
        assert_eq!(
            parameters(&bare, Era::Modern, None).as_str(),
            r#"{"name":"a","_meta":{"io.modelcontextprotocol/clientCapabilities":{},"io.modelcontextprotocol/protocolVersion":"2026-07-28"}}"#
        );
        let full = outgoing(&json!({ "_meta": {
            "io.modelcontextprotocol/clientCapabilities": { "sampling": {} },
            "dev.bailiwick/call": 1, "progressToken": "theirs", "traceparent": "00-1",
        }, "name": "a" }));
        assert_eq!(
            parameters(&full, Era::Modern, Some(&Json::of(&7))).as_str(),
            r#"{"_meta":{"io.modelcontextprotocol/clientCapabilities":{"sampling":{}},"progressToken":7,"traceparent":"00-1","io.modelcontextprotocol/protocolVersion":"2026-07-28"},"name":"a"}"#
        );
    }

    #[test]
    fn what_is_modern_already_keeps_its_bytes_and_whatever_must_go_still_goes() {
        let version = r#""io.modelcontextprotocol/protocolVersion":"2026-07-28""#;
        let capabilities = r#""io.modelcontextprotocol/clientCapabilities":{}"#;
        let shaped = |meta: &str| {
            let params = Json::parse(format!(r#"{{"_meta": {{{meta}}},"name":"a"}}"#), crate::wire::Source::Client);
            let outgoing = Outgoing { params: params.unwrap(), ..outgoing(&json!({})) };
            parameters(&outgoing, Era::Modern, None).as_str().to_owned()
        };
        let modern = format!("{version},{capabilities}");
        assert_eq!(shaped(&modern), format!(r#"{{"_meta": {{{modern}}},"name":"a"}}"#));
        let whole = format!(r#"{{"_meta":{{{modern}}},"name":"a"}}"#);
        for more in [r#""progressToken":"theirs""#, r#""dev.bailiwick/call":1"#, r#""dev.bailiwick\/call":1"#] {
            assert_eq!(shaped(&format!("{modern},{more}")), whole, "{more}");
        }
        assert_eq!(
            shaped(&format!(r#"{version},"x":1"#)),
            format!(r#"{{"_meta":{{{capabilities},{version},"x":1}},"name":"a"}}"#)
        );
        let other = version.replace("2026", "2025");
        assert_eq!(shaped(&format!("{other},{capabilities}")), whole);
    }

    #[test]
    fn a_legacy_request_loses_what_is_modern_and_keeps_the_rest() {
        let full = outgoing(&json!({ "_meta": {
            "io.modelcontextprotocol/clientCapabilities": {}, "io.modelcontextprotocol/protocolVersion": "x",
            "io.modelcontextprotocol/clientInfo": {}, "io.modelcontextprotocol/logLevel": "info",
            "io.modelcontextprotocol/related-task": { "taskId": "1" }, "progressToken": 3,
        }, "name": "a" }));
        assert_eq!(
            parameters(&full, Era::Legacy, None).as_str(),
            r#"{"_meta":{"io.modelcontextprotocol/related-task":{"taskId":"1"}},"name":"a"}"#
        );
        let mut update = outgoing(&json!({ "taskId": "1", "inputResponses": {} }));
        "tasks/update".clone_into(&mut update.method);
        assert_eq!(parameters(&update, Era::Legacy, None).as_str(), r#"{"taskId":"1","inputResponses":{}}"#);
        let bare = outgoing(&json!({ "_meta": { "io.modelcontextprotocol/clientCapabilities": {} }, "name": "a" }));
        assert_eq!(parameters(&bare, Era::Legacy, None).as_str(), r#"{"name":"a"}"#);
    }

    #[test]
    fn a_result_ends_as_its_type_says_where_its_server_is_believed() {
        let asks = Json::of(&json!({ "resultType": "input_required", "requestState": "s" }));
        let nothing = || Askable::NOTHING;
        let (modern, legacy) = (Believed::of(Era::Modern, nothing), Believed::of(Era::Legacy, nothing));
        let told = Askable::declared(&Json::of(&json!({ "extensions": { "io.modelcontextprotocol/tasks": {} } })));
        let with_tasks = Believed::of(Era::Legacy, || told);
        assert!(matches!(outcome(asks.clone(), modern), Outcome::InputRequired { origin: Origin::Upstream, .. }));
        for legacy in [legacy, with_tasks] {
            let Outcome::Complete(result) = outcome(asks.clone(), legacy) else { panic!("it cannot ask so") };
            assert_eq!(result.as_str(), r#"{"requestState":"s"}"#);
        }
        let task = Json::of(&json!({ "resultType": "task", "taskId": "1" }));
        assert!(matches!(outcome(task.clone(), modern), Outcome::Task(_)));
        assert!(matches!(outcome(task.clone(), with_tasks), Outcome::Task(_)));
        let Outcome::Complete(result) = outcome(task, legacy) else { panic!("nobody told it of tasks") };
        assert_eq!(result.as_str(), r#"{"taskId":"1"}"#);
        assert!(matches!(outcome(Json::of(&json!({ "resultType": "new" })), modern), Outcome::Complete(_)));
    }

    #[test]
    fn an_upstream_cannot_speak_in_our_name() {
        let fake = Json::parse(
            r#"{"content":[],"_meta":{"dev.bailiwick\/reason":"x","dev.bailiwick/y":1,"z":2}}"#,
            crate::wire::Source::Upstream,
        );
        let Outcome::Complete(result) = outcome(fake.unwrap(), Believed::Everything) else { panic!() };
        assert_eq!(result.as_str(), r#"{"content":[],"_meta":{"z":2}}"#);
    }

    #[test]
    fn a_name_that_cannot_be_a_header_travels_as_base64() {
        for (text, expected) in [
            ("get_weather", "get_weather"),
            ("a b", "a b"),
            ("", "=?base64??="),
            (" a", "=?base64?IGE=?="),
            ("é", "=?base64?w6k=?="),
            ("a\r\nx: y", "=?base64?YQ0KeDogeQ==?="),
            ("=?base64?YQ==?=", "=?base64?PT9iYXNlNjQ/WVE9PT89?="),
        ] {
            assert_eq!(header_value(text).unwrap(), expected, "{text:?}");
        }
    }
}
