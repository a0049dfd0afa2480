//! What an approver sees of the arguments: all of them, but for what the tool's schema calls a secret.
//!
//! Decides what is hidden, and says how much. Invariant: nothing is left out without a word, and no model has written
//! any of it.

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

/// A value under every schema that speaks about it.
fn redacted(value: Value, schemas: &[&Value], root: &Value) -> Value {
    let schemas = spread(schemas, root);
    if schemas.iter().any(|schema| is_secret(schema)) {
        let characters = value.as_str().map_or_else(|| value.to_string().chars().count(), |text| text.chars().count());
        return Value::String(format!("[{characters} characters hidden]"));
    }
    match value {
        Value::String(text) => Value::String(cut(&text)),
        Value::Array(elements) => {
            let of: Vec<&Value> = schemas.iter().filter_map(|schema| schema.get("items")).collect();
            Value::Array(elements.into_iter().map(|element| redacted(element, &of, root)).collect())
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

fn of_member<'s>(schema: &'s Value, key: &str) -> impl Iterator<Item = &'s Value> {
    let named = schema.get("properties").and_then(|properties| properties.get(key));
    let rest = if named.is_none() { schema.get("additionalProperties") } else { None };
    named.into_iter().chain(rest)
}

/// The schemas with those that they refer to and are made of.
fn spread<'s>(schemas: &[&'s Value], root: &'s Value) -> Vec<&'s Value> {
    let mut all: Vec<&Value> = schemas.to_vec();
    let mut next = 0;
    while let Some(schema) = all.get(next).copied() {
        next += 1;
        // A schema that refers to itself adds nothing, and a huge one is looked at so far.
        if all.len() >= limit::APPROVAL_SCHEMAS_MAX {
            break;
        }
        let referred = schema.get("$ref").and_then(Value::as_str).and_then(|to| root.pointer(to.strip_prefix('#')?));
        let parts = ["allOf", "anyOf", "oneOf"].iter().filter_map(|key| schema.get(*key)?.as_array()).flatten();
        for part in referred.into_iter().chain(parts) {
            if !all.iter().any(|known| std::ptr::eq(*known, part)) {
                all.push(part);
            }
        }
    }
    all
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
    fn so_many_schemas_are_looked_at_and_not_more() {
        let parts: Vec<Value> = (0..=limit::APPROVAL_SCHEMAS_MAX).map(|number| json!({ "title": number })).collect();
        let schema = json!({ "allOf": parts });
        assert!(spread(&[&schema], &schema).len() <= limit::APPROVAL_SCHEMAS_MAX + parts.len());
    }
}
