//! What an approver sees of the arguments: all of them, but for what the tool's schema calls a secret.
//!
//! Decides what is hidden, and says how much. Invariant: nothing is left out without a word, and no model has written
//! any of it.

use serde_json::Value;

use crate::catalog::{Target, secrets};
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
    let schema = target.definition().and_then(|definition| secrets::schema(definition)).unwrap_or_default();
    let mut left = limit::APPROVAL_VALUES_MAX;
    if !is_within(&shown, &mut left) {
        return Err(unfit("the arguments are more than a person can look at: split the call"));
    }
    let text = secrets::without(shown, &schema, &cut).to_string();
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
        secrets::without(arguments, schema, &cut)
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
