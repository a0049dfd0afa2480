//! A checker for the part of JSON Schema 2020-12 that the API's document uses. A keyword that it does not know fails
//! the test, so that nothing is held to be checked that is not.

use serde_json::Value;

/// What of a value is not as the schema says; references lead into `document`.
pub fn problems(document: &Value, schema: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    let rules = schema.as_object().unwrap_or_else(|| panic!("no schema at {place}: {schema}"));
    for (keyword, rule) in rules {
        let well = match keyword.as_str() {
            "description" | "default" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                let target = document.pointer(pointer).unwrap_or_else(|| panic!("{rule} leads nowhere"));
                found.extend(problems(document, target, value, place));
                true
            }
            "type" => is_of_type(rule, value),
            "enum" => rule.as_array().unwrap().contains(value),
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= rule.as_u64().unwrap()),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= rule.as_u64().unwrap()),
            "pattern" => {
                assert_eq!(rule, "^[0-9a-f]{64}$", "another pattern needs a matcher");
                let hex = |text: &str| text.len() == 64 && text.bytes().all(|b| b"0123456789abcdef".contains(&b));
                value.as_str().is_none_or(hex)
            }
            "format" => {
                assert_eq!(rule, "date-time", "another format needs a checker");
                value.as_str().is_none_or(|text| text.parse::<jiff::Timestamp>().is_ok())
            }
            "oneOf" => {
                let fits = |one: &&Value| problems(document, one, value, place).is_empty();
                rule.as_array().unwrap().iter().filter(fits).count() == 1
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(problems(document, rule, item, &format!("{place}/{index}")));
                }
                true
            }
            "required" => value.as_object().is_none_or(|members| {
                rule.as_array().unwrap().iter().all(|name| members.contains_key(name.as_str().unwrap()))
            }),
            "properties" => {
                for (name, rule) in rule.as_object().unwrap() {
                    if let Some(member) = value.get(name) {
                        found.extend(problems(document, rule, member, &format!("{place}/{name}")));
                    }
                }
                true
            }
            "additionalProperties" => {
                let known = rules.get("properties").and_then(Value::as_object);
                for (name, member) in value.as_object().into_iter().flatten() {
                    if known.is_some_and(|known| known.contains_key(name)) {
                        continue;
                    }
                    match rule {
                        Value::Bool(true) => {}
                        Value::Bool(false) => found.push(format!("{place}/{name} is not described")),
                        rule => found.extend(problems(document, rule, member, &format!("{place}/{name}"))),
                    }
                }
                true
            }
            unknown => panic!("the checker does not know `{unknown}` at {place}"),
        };
        if !well {
            found.push(format!("{place} is not as {keyword} {rule} says: {value}"));
        }
    }
    found
}

fn is_of_type(rule: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().unwrap() {
        "null" => value.is_null(),
        "boolean" => value.is_boolean(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        unknown => panic!("the checker does not know the type {unknown}"),
    };
    rule.as_array().map_or_else(|| is(rule), |names| names.iter().any(is))
}

#[test]
fn the_checker_finds_what_it_should() {
    use serde_json::json;
    let document = json!({ "named": { "type": "string", "enum": ["a"] } });
    let schema = json!({
        "type": "object", "required": ["x"], "additionalProperties": false,
        "properties": { "x": { "type": ["array", "null"], "minItems": 1, "items": { "$ref": "#/named" } } },
    });
    let check = |value: serde_json::Value| problems(&document, &schema, &value, "").len();
    assert_eq!((check(json!({ "x": ["a"] })), check(json!({ "x": null }))), (0, 0));
    for wrong in [json!({}), json!({ "x": [] }), json!({ "x": ["b"] }), json!({ "x": ["a"], "y": 1 }), json!([])] {
        assert!(check(wrong.clone()) > 0, "{wrong}");
    }
}
