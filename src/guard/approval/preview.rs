//! What an approver sees of the arguments: all of them, but for what the tool's schema calls a secret.
//!
//! Decides what is hidden, and says how much. Invariant: nothing is left out without a word, and no model has written
//! any of it.

use std::collections::HashSet;

use serde_json::{Map, Value};

use crate::catalog::Target;
use crate::limit;
use crate::outcome::{Reason, Refusal};
use crate::record::redact;
use crate::wire::Json;

/// The arguments as JSON, with what is hidden replaced.
///
/// # Errors
/// `arguments_unfit` where they are more than anybody can look at.
pub fn preview(target: &Target, arguments: Option<&Json>) -> Result<String, Refusal> {
    let unfit = |hint: &'static str| Refusal::new(Reason::ArgumentsUnfit).hint(hint);
    let Some(arguments) = arguments else { return Ok("null".to_owned()) };
    let shown: Value = serde_json::from_str(arguments.as_str()).map_err(|_| unfit("the arguments cannot be read"))?;
    let schema = target.definition().and_then(|definition| serde_json::from_str::<Value>(definition.raw.as_str()).ok());
    let schema = schema.as_ref().and_then(|definition| definition.get("inputSchema"));
    let root = schema.unwrap_or(&Value::Null);
    let mut left = limit::APPROVAL_VALUES_MAX;
    if !is_within(&shown, &mut left) {
        return Err(unfit("the arguments are more than a person can look at: split the call"));
    }
    let text = redacted(shown, &[root], root).to_string();
    if text.len() > limit::APPROVAL_PREVIEW_BYTES_MAX {
        return Err(unfit("the arguments are more than a person can look at: split the call"));
    }
    Ok(text)
}

/// Text of somebody else with what cannot be seen spelled out.
#[must_use]
pub fn escaped(text: &str) -> String {
    let mut visible = String::with_capacity(text.len());
    for character in text.chars() {
        if is_unseen(character) {
            visible.push_str(&format!("<U+{:04X}>", u32::from(character)));
        } else {
            visible.push(character);
        }
    }
    visible
}

/// Whether a character turns the direction of a line, has no width, or controls a terminal.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(character,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
            | '\u{2800}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}' | '\u{fff0}'..='\u{fffb}'
            | '\u{1d173}'..='\u{1d17a}' | '\u{e0000}'..='\u{e0fff}')
}

/// Whether a value has so few parts that somebody could look at them.
fn is_within(value: &Value, left: &mut usize) -> bool {
    let Some(rest) = left.checked_sub(1) else { return false };
    *left = rest;
    match value {
        Value::Array(elements) => elements.iter().all(|element| is_within(element, left)),
        Value::Object(members) => members.values().all(|member| is_within(member, left)),
        _ => true,
    }
}

/// A value under every schema that speaks about it.
fn redacted(value: Value, schemas: &[&Value], root: &Value) -> Value {
    under(value, spread(schemas, root).as_deref(), root)
}

/// The same where the schemas are spread already; nothing where they are more than anybody looks through.
fn under(value: Value, schemas: Option<&[&Value]>, root: &Value) -> Value {
    let Some(schemas) = schemas.filter(|schemas| !schemas.iter().any(|schema| is_secret(schema))) else {
        let characters = value.as_str().map_or_else(|| value.to_string().chars().count(), |text| text.chars().count());
        return Value::String(format!("[{characters} characters hidden]"));
    };
    match value {
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(elements) => {
            // Whichever element one of them means, each is looked at under all.
            let of: Vec<&Value> = schemas.iter().flat_map(|schema| of_elements(schema)).collect();
            let of = spread(&of, root);
            Value::Array(elements.into_iter().map(|element| under(element, of.as_deref(), root)).collect())
        }
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| {
                let of: Vec<&Value> = schemas.iter().flat_map(|schema| of_member(schema, &key)).collect();
                let value = redacted(value, &of, root);
                (key, value)
            });
            Value::Object(members.collect::<Map<_, _>>())
        }
        other => other,
    }
}

/// One schema, or a list of them.
fn one_or_all(written: Option<&Value>) -> impl Iterator<Item = &Value> {
    let all = written.and_then(Value::as_array);
    written.filter(|_| all.is_none()).into_iter().chain(all.into_iter().flatten())
}

fn of_elements(schema: &Value) -> impl Iterator<Item = &Value> {
    ["items", "prefixItems", "additionalItems", "contains", "unevaluatedItems"]
        .into_iter()
        .flat_map(|key| one_or_all(schema.get(key)))
}

/// The schemas of a member: which of the patterns mean it nobody looks, so they all do.
fn of_member<'s>(schema: &'s Value, key: &str) -> impl Iterator<Item = &'s Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(key));
    let patterns = schema.get("patternProperties").and_then(Value::as_object).into_iter().flat_map(Map::values);
    let rest = ["additionalProperties", "unevaluatedProperties"].into_iter().filter_map(|key| schema.get(key));
    named.into_iter().chain(patterns).chain(rest.filter(move |_| named.is_none()))
}

/// The schemas with those that they refer to and are made of; nothing where those are too many to look through.
fn spread<'s>(schemas: &[&'s Value], root: &'s Value) -> Option<Vec<&'s Value>> {
    let mut all: Vec<&Value> = Vec::new();
    let mut known: HashSet<*const Value> = HashSet::new();
    let mut next = 0;
    let mut found: Vec<&Value> = schemas.to_vec();
    loop {
        for schema in found.drain(..) {
            // A schema that refers to itself adds nothing.
            if known.insert(std::ptr::from_ref(schema)) {
                all.push(schema);
            }
            if all.len() > limit::APPROVAL_SCHEMAS_MAX {
                return None;
            }
        }
        let Some(schema) = all.get(next).copied() else { return Some(all) };
        next += 1;
        let keys = ["$ref", "$dynamicRef", "$recursiveRef"];
        found.extend(keys.iter().filter_map(|key| referred(schema.get(*key)?.as_str()?, root)));
        let parts = ["allOf", "anyOf", "oneOf", "if", "then", "else", "not"];
        found.extend(parts.iter().flat_map(|key| one_or_all(schema.get(*key))));
        let dependent = schema.get("dependentSchemas").and_then(Value::as_object);
        found.extend(dependent.into_iter().flat_map(Map::values));
    }
}

/// What a reference within the schema means: a pointer, or the name that a definition gives itself.
fn referred<'s>(reference: &str, root: &'s Value) -> Option<&'s Value> {
    let fragment = percent_encoding::percent_decode_str(reference.strip_prefix('#')?).decode_utf8().ok()?;
    if fragment.is_empty() || fragment.starts_with('/') {
        return root.pointer(&fragment);
    }
    let definitions = ["$defs", "definitions"].into_iter().filter_map(|key| root.get(key)?.as_object());
    let is_named = |schema: &&Value| {
        ["$anchor", "$dynamicAnchor"].iter().any(|key| schema.get(*key).and_then(Value::as_str) == Some(&*fragment))
    };
    definitions.flat_map(Map::values).find(is_named)
}

fn is_secret(schema: &Value) -> bool {
    let says = |key: &str| schema.get(key).and_then(Value::as_bool) == Some(true);
    says("writeOnly") || says("x-sensitive") || schema.get("format").and_then(Value::as_str) == Some("password")
}

/// A text without known secrets, as far as it is shown.
fn cut(text: &str) -> String {
    let text = redact::secrets(text);
    let most = limit::APPROVAL_TEXT_CHARACTERS_MAX;
    match text.char_indices().nth(most) {
        None => text.into_owned(),
        Some((end, _)) => {
            let (shown, rest) = text.split_at_checked(end).unwrap_or((&text, ""));
            format!("{shown}[{} more characters hidden]", rest.chars().count())
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shown(schema: &Value, arguments: Value) -> Value {
        redacted(arguments, &[schema], schema)
    }

    #[test]
    fn what_the_schema_calls_a_secret_is_hidden_wherever_it_says_so() {
        let schema = json!({
            "properties": {
                "plain": { "type": "string" },
                "pin": { "writeOnly": true },
                "login": { "properties": { "word": { "format": "password" } } },
                "keys": { "items": { "$ref": "#/$defs/key" } },
                "either": { "anyOf": [{ "type": "null" }, { "x-sensitive": true }] },
            },
            "additionalProperties": { "x-sensitive": true },
            "$defs": { "key": { "allOf": [{ "$ref": "#/$defs/key" }, { "x-sensitive": true }] } },
        });
        let arguments = json!({
            "plain": "seen", "pin": 1234, "login": { "word": "grüße", "user": "ann" }, "keys": ["abc"],
            "either": "x", "other": "y",
        });
        let expected = json!({
            "plain": "seen", "pin": "[4 characters hidden]", "login": { "word": "[5 characters hidden]", "user": "ann" },
            "keys": ["[3 characters hidden]"], "either": "[1 characters hidden]", "other": "[1 characters hidden]",
        });
        assert_eq!(shown(&schema, arguments), expected);
    }

    #[test]
    fn a_long_text_is_cut_and_says_how_much_is_hidden() {
        let long = "ü".repeat(limit::APPROVAL_TEXT_CHARACTERS_MAX);
        assert_eq!(shown(&Value::Null, json!(long)), json!(long));
        let more = shown(&Value::Null, json!(format!("{long}xyz")));
        assert!(more.as_str().unwrap().ends_with("ü[3 more characters hidden]"), "{more}");
        assert_eq!(shown(&Value::Null, json!("ghp_0123456789abcdefABCD")), json!("[redacted]"));
    }

    #[test]
    fn a_schema_with_more_parts_than_are_looked_through_hides_what_it_speaks_about() {
        let parts = |count: usize| (0..count).map(|number| json!({ "title": number })).collect::<Vec<Value>>();
        let large = json!({ "properties": { "x": { "allOf": parts(limit::APPROVAL_SCHEMAS_MAX) } } });
        assert_eq!(shown(&large, json!({ "x": "abc" })), json!({ "x": "[3 characters hidden]" }));
        let most = json!({ "properties": { "x": { "allOf": parts(limit::APPROVAL_SCHEMAS_MAX - 1) } } });
        assert_eq!(shown(&most, json!({ "x": "abc" })), json!({ "x": "abc" }));
    }

    #[test]
    fn a_secret_is_found_in_every_way_that_a_schema_can_say_it() {
        let secret = || json!({ "writeOnly": true });
        for schema in [
            json!({ "patternProperties": { "^key": secret() } }),
            json!({ "unevaluatedProperties": secret() }),
            json!({ "if": { "properties": { "key": secret() } } }),
            json!({ "then": { "properties": { "key": secret() } } }),
            json!({ "else": { "properties": { "key": secret() } } }),
            json!({ "dependentSchemas": { "other": { "properties": { "key": secret() } } } }),
            json!({ "properties": { "key": { "$ref": "#/$defs/a%20b" } }, "$defs": { "a b": secret() } }),
            json!({ "properties": { "key": { "$dynamicRef": "#it" } }, "$defs": { "x": { "$dynamicAnchor": "it", "writeOnly": true } } }),
            json!({ "$ref": "#/$defs/all", "$defs": { "all": { "properties": { "key": secret() } } } }),
        ] {
            let seen = shown(&schema, json!({ "key": "abc" }));
            assert_eq!(seen, json!({ "key": "[3 characters hidden]" }), "{schema}");
        }
        for schema in [
            json!({ "prefixItems": [{ "title": "plain" }, secret()] }),
            json!({ "items": [secret()] }),
            json!({ "contains": secret() }),
            json!({ "unevaluatedItems": secret() }),
        ] {
            assert_eq!(shown(&schema, json!(["abc"])), json!(["[3 characters hidden]"]), "{schema}");
        }
    }

    #[test]
    fn a_million_small_values_are_refused_and_not_looked_at() {
        let mut left = limit::APPROVAL_VALUES_MAX;
        let most = vec![json!(0); limit::APPROVAL_VALUES_MAX - 1];
        assert!(is_within(&Value::Array(most.clone()), &mut left) && left == 0);
        let more = [most, vec![json!(0)]].concat();
        assert!(!is_within(&json!({ "all": more }), &mut limit::APPROVAL_VALUES_MAX.clone()));
    }
}
