//! Parameters that are mirrored into headers: `x-mcp-header` in a tool's input schema (2026-07-28, SEP-2243).
//!
//! Decides which annotations are valid. The specification asks clients to leave out a tool with an invalid
//! one, because its calls could not be mirrored faithfully.

use super::target::HeaderParameter;
use crate::limit;
use crate::wire::{Object, Value};

const ANNOTATION: &str = "x-mcp-header";

/// The annotated parameters of an input schema, in its order.
///
/// # Errors
/// A fragment that says which rule the schema breaks: an annotation is a non-empty RFC 9110 token, unique
/// whatever the case, on a property of type string, integer or boolean that is reached from the root
/// through `properties` alone.
pub fn header_parameters(schema: Object<'_>) -> Result<Vec<HeaderParameter>, &'static str> {
    // Nearly every schema has none, and the text shows it: escapes cannot spell the letters otherwise
    // unless there is a backslash.
    if !schema.raw().contains(ANNOTATION) && !schema.raw().contains('\\') {
        return Ok(Vec::new());
    }
    let mut found = Vec::new();
    if schema.get(ANNOTATION).is_some() {
        return Err("x-mcp-header stands on the root of the schema");
    }
    let mut path = Vec::new();
    walk_chain(schema, &mut path, &mut found)?;
    for (index, parameter) in found.iter().enumerate() {
        let earlier = found.get(..index).unwrap_or_default();
        if earlier.iter().any(|other| other.header.eq_ignore_ascii_case(&parameter.header)) {
            return Err("two parameters have the same x-mcp-header");
        }
    }
    Ok(found)
}

/// Walks a schema that is the root or was reached through `properties` alone.
fn walk_chain(
    schema: Object<'_>,
    path: &mut Vec<String>,
    found: &mut Vec<HeaderParameter>,
) -> Result<(), &'static str> {
    for (key, value) in schema.members() {
        match key.as_ref() {
            "properties" => {
                let Some(properties) = value.as_object() else { continue };
                for (name, property) in properties.members() {
                    let Some(property) = property.as_object() else { continue };
                    path.push(name.into_owned());
                    if let Some(annotation) = property.get(ANNOTATION) {
                        if found.len() >= limit::HEADER_PARAMETERS_MAX {
                            return Err("too many parameters have an x-mcp-header");
                        }
                        found.push(HeaderParameter { path: path.clone(), header: header(property, annotation)? });
                    }
                    walk_chain(property, path, found)?;
                    path.pop();
                }
            }
            ANNOTATION => {}
            other => refuse_below(other, value)?,
        }
    }
    Ok(())
}

fn header(property: Object<'_>, annotation: Value<'_>) -> Result<String, &'static str> {
    let name = annotation.as_str().ok_or("x-mcp-header is not a string")?;
    if name.is_empty() || !name.bytes().all(is_token) {
        return Err("x-mcp-header is not a header name");
    }
    match property.get("type").and_then(Value::as_str).as_deref() {
        Some("string" | "integer" | "boolean") => Ok(name.into_owned()),
        _ => Err("x-mcp-header stands on a parameter that is not a string, integer or boolean"),
    }
}

/// Refuses annotations anywhere below a keyword that leaves the chain.
fn refuse_below(keyword: &str, value: Value<'_>) -> Result<(), &'static str> {
    match keyword {
        // Data and names, not schemas.
        "default" | "const" | "enum" | "examples" | "dependentRequired" | "required" => Ok(()),
        // Names are free here; their values are schemas.
        "properties" | "$defs" | "definitions" | "dependencies" | "dependentSchemas" | "patternProperties" => {
            let Some(map) = value.as_object() else { return Ok(()) };
            map.members().try_for_each(|(_, schema)| refuse_in(schema))
        }
        _ => refuse_in(value),
    }
}

fn refuse_in(value: Value<'_>) -> Result<(), &'static str> {
    if let Some(schema) = value.as_object() {
        return schema.members().try_for_each(|(key, value)| {
            if key == ANNOTATION {
                return Err("x-mcp-header stands where no `properties` chain leads");
            }
            refuse_below(&key, value)
        });
    }
    value.as_array().map_or(Ok(()), |mut items| items.try_for_each(refuse_in))
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{Json, Source};

    fn read(schema: &str) -> Result<Vec<(String, String)>, &'static str> {
        let json = Json::parse(schema, Source::Client).unwrap();
        let found = header_parameters(json.value().as_object().unwrap())?;
        Ok(found.into_iter().map(|parameter| (parameter.path.join("/"), parameter.header)).collect())
    }

    #[test]
    fn annotations_are_found_along_properties_at_any_depth() {
        let found = read(
            r#"{"type":"object","properties":{"region":{"type":"string","x-mcp-header":"Region"},
            "outer":{"type":"object","properties":{"n":{"type":"integer","x-mcp-header":"N"}}},"plain":{}}}"#,
        );
        let pair = |path: &str, header: &str| (path.to_owned(), header.to_owned());
        assert_eq!(found.unwrap(), [pair("region", "Region"), pair("outer/n", "N")]);
    }

    #[test]
    fn an_annotation_that_cannot_be_mirrored_is_refused() {
        for schema in [
            r#"{"x-mcp-header":"Root"}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":""}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":7}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"bad:name"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"a b"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A\r\nX"}}}"#,
            r#"{"properties":{"a":{"type":"number","x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":{"type":["string","null"],"x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":{"x-mcp-header":"A"}}}"#,
            r#"{"properties":{"a":{"type":"string","x-mcp-header":"A"},"b":{"type":"string","x-mcp-header":"a"}}}"#,
            r#"{"properties":{"a":{"type":"array","items":{"type":"string","x-mcp-header":"A"}}}}"#,
            r#"{"oneOf":[{"properties":{"a":{"type":"string","x-mcp-header":"A"}}}]}"#,
            r#"{"$defs":{"default":{"type":"string","x-mcp-header":"A"}}}"#,
            r#"{"$defs":{"a":{"type":"string","x-mcp-heade\u0072":"A"}}}"#,
        ] {
            assert!(read(schema).is_err(), "{schema}");
        }
    }

    #[test]
    fn the_number_of_mirrored_parameters_is_bounded() {
        let schema = |count: usize| {
            let property = |n| format!(r#""p{n}":{{"type":"string","x-mcp-header":"H{n}"}}"#);
            format!(r#"{{"properties":{{{}}}}}"#, (0..count).map(property).collect::<Vec<_>>().join(","))
        };
        assert_eq!(read(&schema(limit::HEADER_PARAMETERS_MAX)).unwrap().len(), limit::HEADER_PARAMETERS_MAX);
        assert!(read(&schema(limit::HEADER_PARAMETERS_MAX + 1)).is_err());
    }

    #[test]
    fn data_and_property_names_are_no_annotations() {
        for schema in [
            r#"{"properties":{"x-mcp-header":{"type":"string"}}}"#,
            r#"{"properties":{"a":{"default":{"x-mcp-header":"A"},"enum":[{"x-mcp-header":""}]}}}"#,
            r#"{"properties":{"a":{"description":"see x-mcp-header"}}}"#,
        ] {
            assert_eq!(read(schema), Ok(Vec::new()), "{schema}");
        }
    }
}
