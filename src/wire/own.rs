//! Taking our own `_meta` keys out of what others say: only the gateway itself may write them; and what it says of itself.
//!
//! Decides where MCP has `_meta`: in a result or parameters, and in the content blocks, embedded resources and
//! messages inside. What else is called `_meta`, as in `structuredContent` or arguments, is data and stays as it
//! is. Invariant: what has none of our keys keeps its bytes, and is not walked where it cannot have one.

use std::sync::LazyLock;

use super::edit::Edit;
use super::mcp::meta::OWN_PREFIX;
use super::message::Message;
use super::value::{Json, Object, Value};

/// The members that hold objects with a `_meta` of their own, as an object or a list of them.
const HOLDERS: [&str; 4] = ["content", "contents", "messages", "resource"];

static SERVER_INFO: LazyLock<Json> = LazyLock::new(|| {
    Json::of(&serde_json::json!({ "name": "bailiwick", "title": "Bailiwick", "version": env!("CARGO_PKG_VERSION") }))
});

/// Who answers, where the gateway itself does.
#[must_use]
pub fn server_info() -> &'static Json {
    &SERVER_INFO
}

/// The same result or parameters without our keys in any `_meta`.
#[must_use]
pub fn without_own_keys(json: Json) -> Json {
    if !may_have_own_keys(json.as_bytes()) {
        return json;
    }
    cleaned(json.value()).unwrap_or(json)
}

/// The same notification without our keys in any `_meta` of its parameters.
#[must_use]
pub fn notification_without_own_keys(message: Message) -> Message {
    if !may_have_own_keys(message.as_bytes()) {
        return message;
    }
    let changed = message.body().and_then(|params| cleaned(params.value()));
    changed.map_or_else(|| message.clone(), |params| Message::notification(&message.method(), Some(&params)))
}

/// Nearly nothing has them, and finding that out costs less than walking it. A key may be spelled with escapes:
/// `\/`, or `\u` and four digits; no other escape stands for a letter of it.
fn may_have_own_keys(bytes: &[u8]) -> bool {
    let has = |text: &[u8]| memchr::memmem::find(bytes, text).is_some();
    has(OWN_PREFIX.as_bytes()) || (memchr::memchr(b'\\', bytes).is_some() && (has(b"\\u") || has(b"\\/")))
}

/// The value without our keys; `None` where it has none.
fn cleaned(value: Value<'_>) -> Option<Json> {
    if let Some(object) = value.as_object() {
        return cleaned_object(object);
    }
    let items: Vec<Value<'_>> = value.as_array()?.collect();
    let changed: Vec<Option<Json>> = items.iter().map(|item| cleaned(*item)).collect();
    if changed.iter().all(Option::is_none) {
        return None;
    }
    let texts = items.iter().zip(&changed).map(|(item, new)| new.as_ref().map_or_else(|| item.raw(), Json::as_str));
    Some(Json::joined(format!("[{}]", texts.collect::<Vec<_>>().join(","))))
}

fn cleaned_object(object: Object<'_>) -> Option<Json> {
    let mut edits: Vec<Edit<'_>> = Vec::new();
    // One edit for each name, however often an upstream repeats it: each is looked at for every member.
    let mut set = |name: &'static str, new: Json| {
        edits.retain(|edit| !matches!(edit, Edit::Set(known, _) if *known == name));
        edits.push(Edit::Set(name, new));
    };
    for (key, value) in object.members() {
        if key == "_meta" {
            let own = value.as_object().filter(|meta| meta.members().any(|(key, _)| key.starts_with(OWN_PREFIX)));
            if let Some(meta) = own {
                set("_meta", meta.edited(&[Edit::RemovePrefix(OWN_PREFIX)]));
            }
        } else if let Some(name) = HOLDERS.into_iter().find(|name| *name == key)
            && let Some(new) = cleaned(value)
        {
            set(name, new);
        }
    }
    // A member that is there twice is replaced twice, by something clean.
    (!edits.is_empty()).then(|| object.edited(&edits))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, json};

    use super::*;
    use crate::wire::Source;

    fn parsed(text: &str) -> Json {
        Json::parse(text, Source::Upstream).unwrap()
    }

    #[test]
    fn a_member_that_is_repeated_without_end_costs_no_more_than_its_length() {
        let repeated = vec![r#""_meta":{"dev.bailiwick/":1}"#; 20_000].join(",");
        let result = parsed(&format!(r#"{{"content":[{{{repeated}}}]}}"#));
        let started = std::time::Instant::now();
        let text = without_own_keys(result).as_str().to_owned();
        assert!(!text.contains("dev.bailiwick"));
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn our_keys_go_wherever_mcp_has_meta_and_stay_where_they_are_data() {
        let cases = [
            (r#"{"_meta":{"dev.bailiwick/a":1,"b":2}}"#, r#"{"_meta":{"b":2}}"#),
            (
                r#"{"content":[{"type":"text","_meta":{"dev.bailiwick/a":1}}]}"#,
                r#"{"content":[{"type":"text","_meta":{}}]}"#,
            ),
            (
                r#"{"content":[1,{"resource":{"uri":"u","_meta":{"dev.bailiwick/a":1}}}]}"#,
                r#"{"content":[1,{"resource":{"uri":"u","_meta":{}}}]}"#,
            ),
            (r#"{"contents":[{"_meta":{"\u0064ev.bailiwick\/a":1}}]}"#, r#"{"contents":[{"_meta":{}}]}"#),
            (
                r#"{"messages":[{"content":{"_meta":{"dev.bailiwick/a":1}}},{"content":[{"_meta":{"dev.bailiwick/a":1}}]}]}"#,
                r#"{"messages":[{"content":{"_meta":{}}},{"content":[{"_meta":{}}]}]}"#,
            ),
            (r#"{"\u005fmeta":{"dev.bailiwick/a":1}}"#, r#"{"\u005fmeta":{}}"#),
        ];
        for (text, expected) in cases {
            assert_eq!(without_own_keys(parsed(text)).as_str(), expected);
        }
        for kept in [
            r#"{"structuredContent":{"_meta":{"dev.bailiwick/a":1}}}"#,
            r#"{"dev.bailiwick/a":1,"_meta":"dev.bailiwick/a"}"#,
            r#"{"content":[{"text":"dev.bailiwick/a \u0041"}], "x" : 1.0}"#,
        ] {
            assert_eq!(without_own_keys(parsed(kept)).as_str(), kept);
        }
    }

    #[test]
    fn a_notification_loses_our_keys_and_one_without_them_keeps_its_bytes() {
        let message = |text: &str| Message::parse(text, Source::Upstream).unwrap();
        let forged =
            message(r#"{"jsonrpc":"2.0","method":"m","params":{"a":1,"_meta":{"dev.bailiwick/reason":"x","b":1}}}"#);
        let expected = r#"{"jsonrpc":"2.0","method":"m","params":{"a":1,"_meta":{"b":1}}}"#;
        assert_eq!(notification_without_own_keys(forged).as_bytes(), expected);
        let plain = r#"{"method":"m", "jsonrpc":"2.0","params":{"a":1}}"#;
        assert_eq!(notification_without_own_keys(message(plain)).as_bytes(), plain);
    }

    /// A key: ours, nearly ours, plain.
    fn key() -> impl Strategy<Value = &'static str> {
        prop_oneof![
            Just("dev.bailiwick/reason"),
            Just("dev.bailiwick/"),
            Just("dev.bailiwick"),
            Just("io.example/x"),
            Just("\u{e9}"),
        ]
    }

    fn value() -> impl Strategy<Value = serde_json::Value> {
        let leaf = prop_oneof![Just(json!(1)), Just(json!("dev.bailiwick/x\n")), Just(json!(null))];
        let meta = proptest::collection::btree_map(key(), Just(json!({ "dev.bailiwick/deep": 1 })), 0..4);
        let meta = meta.prop_map(|members| json!(members));
        let names = prop_oneof![
            Just("_meta"),
            Just("content"),
            Just("contents"),
            Just("messages"),
            Just("resource"),
            Just("structuredContent"),
            Just("text"),
        ];
        prop_oneof![leaf, meta].prop_recursive(5, 40, 5, move |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(|items| json!(items)),
                proptest::collection::btree_map(names.clone(), inner, 0..5).prop_map(|members| json!(members)),
            ]
        })
    }

    /// The same over a tree, as the documentation says it.
    fn oracle(value: &serde_json::Value) -> serde_json::Value {
        match value {
            serde_json::Value::Array(items) => items.iter().map(oracle).collect(),
            serde_json::Value::Object(members) => {
                let member = |(key, value): (&String, &serde_json::Value)| {
                    let new = match (key.as_str(), value) {
                        ("_meta", serde_json::Value::Object(meta)) => {
                            let kept = meta.iter().filter(|(key, _)| !key.starts_with("dev.bailiwick/"));
                            json!(kept.map(|(key, value)| (key.clone(), value.clone())).collect::<Map<_, _>>())
                        }
                        ("content" | "contents" | "messages" | "resource", value) => oracle(value),
                        (_, value) => value.clone(),
                    };
                    (key.clone(), new)
                };
                json!(members.iter().map(member).collect::<Map<_, _>>())
            }
            other => other.clone(),
        }
    }

    /// Spells one letter of every key of ours with an escape.
    fn escaped(text: &str) -> String {
        text.replace("\"dev.bailiwick/", "\"dev.b\\u0061iliwick\\/")
    }

    proptest! {
        #[test]
        fn no_key_of_ours_survives_anywhere_and_nothing_else_is_lost(members in value(), escape: bool) {
            let tree = json!({ "content": members });
            let text = if escape { escaped(&tree.to_string()) } else { tree.to_string() };
            let out = without_own_keys(parsed(&text));
            let back: serde_json::Value = serde_json::from_str(out.as_str()).unwrap();
            let expected = oracle(&tree);
            prop_assert_eq!(&back, &expected);
            if expected == tree {
                prop_assert_eq!(out.as_str(), text);
            }
            let again = without_own_keys(out.clone());
            prop_assert_eq!(again.as_str(), out.as_str());
        }
    }
}
