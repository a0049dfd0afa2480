//! What a tool's schema calls a secret: `writeOnly`, `x-sensitive`, `format: password`, wherever it says so.
//!
//! Decides which values of its arguments nobody is shown, neither a person nor the record. Refuses to know what they are
//! shown for. Invariant: a schema that cannot be looked through hides what it speaks about.

use std::collections::HashSet;

use serde_json::{Map, Value};

use super::target::{Definition, Secrecy};
use crate::limit;

/// The words of which a schema needs one.
const WORDS: [&str; 3] = ["writeOnly", "x-sensitive", "password"];

/// Whether a definition may call something a secret: it is looked through for that with each call whose condition reads
/// arguments, so one that has none of the words is not. An escape may hide one of them.
#[must_use]
pub fn secrecy(definition: &str) -> Secrecy {
    let may = definition.contains("\\u") || WORDS.iter().any(|word| definition.contains(word));
    if may { Secrecy::Perhaps } else { Secrecy::None }
}

/// The schema of a tool's arguments.
#[must_use]
pub fn schema(definition: &Definition) -> Option<Value> {
    let mut definition: Value = serde_json::from_str(definition.raw.as_str()).ok()?;
    Some(definition.get_mut("inputSchema")?.take())
}

/// Arguments with what their schema calls a secret replaced, and with every other text as `shown` makes it.
#[must_use]
pub fn without(arguments: Value, schema: &Value, shown: &dyn Fn(&str) -> String) -> Value {
    redacted(arguments, &[schema], schema, shown)
}

/// What becomes of a text that is no secret.
type Shown<'a> = &'a dyn Fn(&str) -> String;

/// A value under every schema that speaks about it.
fn redacted(value: Value, schemas: &[&Value], root: &Value, shown: Shown<'_>) -> Value {
    under(value, spread(schemas, root).as_deref(), root, shown)
}

/// The same where the schemas are spread already; nothing where they are more than anybody looks through.
fn under(value: Value, schemas: Option<&[&Value]>, root: &Value, shown: Shown<'_>) -> Value {
    let Some(schemas) = schemas.filter(|schemas| !schemas.iter().any(|schema| is_secret(schema))) else {
        let characters = value.as_str().map_or_else(|| value.to_string().chars().count(), |text| text.chars().count());
        return Value::String(format!("[{characters} characters hidden]"));
    };
    match value {
        Value::String(text) => Value::String(shown(&text)),
        Value::Array(elements) => {
            // Whichever element one of them means, each is looked at under all.
            let of: Vec<&Value> = schemas.iter().flat_map(|schema| of_elements(schema)).collect();
            let of = spread(&of, root);
            Value::Array(elements.into_iter().map(|element| under(element, of.as_deref(), root, shown)).collect())
        }
        Value::Object(members) => {
            let members = members.into_iter().map(|(key, value)| {
                let of: Vec<&Value> = schemas.iter().flat_map(|schema| of_member(schema, &key)).collect();
                let value = redacted(value, &of, root, shown);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_none_of_the_words_calls_nothing_a_secret() {
        let perhaps = [r#"{"writeOnly":true}"#, r#"{"x-sensitive":true}"#, r#"{"format":"password"}"#];
        for definition in perhaps.into_iter().chain([r#"{"\u0077riteOnly":true}"#]) {
            assert_eq!(secrecy(definition), Secrecy::Perhaps, "{definition}");
        }
        assert_eq!(secrecy(r#"{"inputSchema":{"properties":{"pin":{"type":"string"}}}}"#), Secrecy::None);
    }
}
