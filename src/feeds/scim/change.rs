//! What a SCIM body says of `active`, and nothing else of it.
//!
//! Invariant: whatever could mean that somebody is not active any more does mean that; a value that is no truth value
//! is refused.

use serde_json::{Map, Value};

use super::member;
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// What is said of `active`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Activity {
    /// Nothing.
    Unsaid,
    /// The user is active.
    Holds,
    /// The user is not active any more.
    Ends,
}

/// The body as an object.
pub(super) fn object(body: &[u8]) -> Result<Map<String, Value>, Refusal> {
    serde_json::from_slice(body).map_err(|_| invalid("the body is not a JSON object"))
}

/// A whole user.
pub(super) fn of_user(user: &Map<String, Value>) -> Result<Activity, Refusal> {
    let said = user.iter().filter(|(name, _)| name.eq_ignore_ascii_case("active"));
    said.map(|(_, value)| of_value(value)).try_fold(Activity::Unsaid, |all, one| Ok(all.and(one?)))
}

/// The operations of a PATCH.
pub(super) fn of_patch(patch: &Map<String, Value>) -> Result<Activity, Refusal> {
    let operations = member(patch, "Operations").and_then(Value::as_array);
    let operations = operations.ok_or_else(|| invalid("a PATCH has Operations"))?;
    if operations.len() > limit::SCIM_CHANGES_MAX {
        return Err(invalid("it has too many Operations"));
    }
    operations.iter().map(of_operation).try_fold(Activity::Unsaid, |all, one| Ok(all.and(one?)))
}

fn of_operation(operation: &Value) -> Result<Activity, Refusal> {
    let operation = operation.as_object().ok_or_else(|| invalid("an operation is an object"))?;
    let kind = member(operation, "op").and_then(Value::as_str).unwrap_or_default().to_ascii_lowercase();
    let path = match member(operation, "path") {
        None | Some(Value::Null) => None,
        Some(Value::String(path)) => Some(path.as_str()),
        Some(_) => return Err(invalid("the path of an operation is not a text")),
    };
    let about = path.map(|path| {
        let path = path.get(super::USER.len()..).filter(|_| is_prefixed(path)).unwrap_or(path);
        path.trim_start_matches(':').eq_ignore_ascii_case("active")
    });
    let value = member(operation, "value");
    match (kind.as_str(), about) {
        ("add" | "replace" | "remove", Some(false)) => Ok(Activity::Unsaid),
        ("remove", Some(true)) => Ok(Activity::Ends),
        ("add" | "replace", Some(true)) => of_value(value.unwrap_or(&Value::Null)),
        ("add" | "replace", None) => {
            let user = value.and_then(Value::as_object);
            of_user(user.ok_or_else(|| invalid("an operation without a path has an object as its value"))?)
        }
        _ => Err(invalid("an operation is add, replace, or remove with a path")),
    }
}

fn is_prefixed(path: &str) -> bool {
    path.get(..super::USER.len()).is_some_and(|start| start.eq_ignore_ascii_case(super::USER))
}

/// Entra sends `"False"`.
fn of_value(value: &Value) -> Result<Activity, Refusal> {
    let says = |word: &str| value.as_str().is_some_and(|text| text.eq_ignore_ascii_case(word));
    match value {
        Value::Bool(true) => Ok(Activity::Holds),
        Value::Bool(false) => Ok(Activity::Ends),
        _ if says("true") => Ok(Activity::Holds),
        _ if says("false") => Ok(Activity::Ends),
        _ => Err(invalid("active is neither true nor false")),
    }
}

impl Activity {
    /// Of several, the one that takes the most back.
    fn and(self, other: Self) -> Self {
        match (self, other) {
            (Self::Ends, _) | (_, Self::Ends) => Self::Ends,
            (Self::Holds, _) | (_, Self::Holds) => Self::Holds,
            _ => Self::Unsaid,
        }
    }
}

fn invalid(hint: &'static str) -> Refusal {
    Refusal::new(Reason::FeedMessageInvalid).hint(hint)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patch(operations: &Value) -> Result<Activity, Refusal> {
        of_patch(json!({"Operations": operations}).as_object().unwrap())
    }

    #[test]
    fn every_spelling_of_inactive_that_providers_use_ends_it() {
        for operations in [
            json!([{"op": "replace", "path": "active", "value": false}]),
            json!([{"op": "Replace", "path": "active", "value": "False"}]),
            json!([{"op": "Replace", "value": {"active": false}}]),
            json!([{"op": "add", "value": {"Active": "false", "displayName": "x"}}]),
            json!([{"op": "remove", "path": "active"}]),
            json!([{"op": "replace", "path": "urn:ietf:params:scim:schemas:core:2.0:User:active", "value": false}]),
            json!([{"op": "replace", "path": "displayName", "value": "x"}, {"op": "replace", "path": "active", "value": false}]),
            json!([{"op": "replace", "path": "active", "value": false}, {"op": "replace", "path": "active", "value": true}]),
        ] {
            assert_eq!(patch(&operations).unwrap(), Activity::Ends, "{operations}");
        }
        assert_eq!(patch(&json!([{"op": "replace", "path": "active", "value": true}])).unwrap(), Activity::Holds);
        assert_eq!(patch(&json!([{"op": "replace", "path": "emails", "value": []}])).unwrap(), Activity::Unsaid);
    }

    #[test]
    fn what_is_no_change_is_refused_and_the_number_of_changes_is_bounded() {
        for operations in [
            json!(null),
            json!([7]),
            json!([{"op": "destroy", "path": "active"}]),
            json!([{"op": "replace", "path": "active"}]),
            json!([{"op": "replace", "path": "active", "value": "no"}]),
            json!([{"op": "replace", "path": "active", "value": 0}]),
            json!([{"op": "replace", "path": 7, "value": false}]),
            json!([{"op": "replace", "value": false}]),
            json!([{"op": "remove"}]),
        ] {
            assert!(patch(&operations).is_err(), "{operations}");
        }
        let many = |count| json!(vec![json!({"op": "replace", "path": "active", "value": false}); count]);
        assert!(patch(&many(limit::SCIM_CHANGES_MAX)).is_ok());
        assert!(patch(&many(limit::SCIM_CHANGES_MAX + 1)).is_err());
        assert!(object(b"[]").is_err() && object(b"").is_err());
        assert_eq!(of_user(json!({"active": true}).as_object().unwrap()).unwrap(), Activity::Holds);
        assert_eq!(of_user(json!({}).as_object().unwrap()).unwrap(), Activity::Unsaid);
    }
}
