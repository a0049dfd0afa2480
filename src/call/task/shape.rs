//! What differs between the tasks of 2026-07-28 and those of 2025-11-25: pure functions over bytes.
//!
//! Decides how a task of one way looks in the other. Refuses to know whose task it is. Invariant: members
//! that nobody here has heard of keep their bytes and their order, and the server's own id never stays.

use std::time::Duration;

use crate::limit;
use crate::wire::mcp::meta;
use crate::wire::{Edit, Json, Object, Value};

/// In which state a task is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Working,
    InputRequired,
    Completed,
    Failed,
    Cancelled,
}

impl Status {
    /// The state that a task says it is in.
    pub fn of(task: Object<'_>) -> Option<Self> {
        Some(match task.get("status")?.as_str()?.as_ref() {
            "working" => Self::Working,
            "input_required" => Self::InputRequired,
            "completed" => Self::Completed,
            "failed" => Self::Failed,
            "cancelled" => Self::Cancelled,
            _ => return None,
        })
    }
}

/// The server's own id of a task.
pub fn id(task: Object<'_>) -> Option<String> {
    Some(task.get("taskId")?.as_str()?.into_owned())
}

/// How long to wait before asking again, as the server suggests it within our bounds.
pub fn pause(task: Object<'_>) -> Duration {
    let suggested = task.get("pollIntervalMs").or_else(|| task.get("pollInterval")).and_then(Value::as_i64);
    let suggested = suggested.and_then(|pause_ms| u64::try_from(pause_ms).ok()).map(Duration::from_millis);
    suggested.unwrap_or(limit::TASK_POLL_DEFAULT).clamp(limit::TASK_POLL_MIN, limit::TASK_POLL_MAX)
}

/// The same object under another task id.
pub fn under(object: Object<'_>, id: &str) -> Json {
    object.edited(&[Edit::Set("taskId", Json::of(id))])
}

/// What a task asks and what goes back with the answer.
pub const QUESTIONS: [Edit<'static>; 2] = [Edit::Remove("inputRequests"), Edit::Remove("requestState")];

/// The same object under another task id and without what it asks: that is decided where it is asked for.
pub fn unasked(object: Object<'_>, id: &str) -> Json {
    let [requests, state] = QUESTIONS;
    object.edited(&[Edit::Set("taskId", Json::of(id)), requests, state])
}

/// The same result, saying that it belongs to the task of that id; where it said nothing, it says nothing.
pub fn related_to(result: Object<'_>, id: &str) -> Json {
    let own = result.get("_meta").and_then(Value::as_object);
    let related = own.and_then(|own| own.get(meta::RELATED_TASK)).and_then(Value::as_object);
    match (own, related) {
        (Some(own), Some(related)) => {
            let own = own.edited(&[Edit::Set(meta::RELATED_TASK, under(related, id))]);
            result.edited(&[Edit::Set("_meta", own)])
        }
        _ => result.edited(&[]),
    }
}

/// The same result without the task that it came of.
pub fn unrelated(result: Object<'_>) -> Json {
    match result.get("_meta").and_then(Value::as_object) {
        Some(own) => result.edited(&[Edit::Set("_meta", own.edited(&[Edit::Remove(meta::RELATED_TASK)]))]),
        None => result.edited(&[]),
    }
}

/// The task of a `tools/call` result of 2025-11-25, if it is one.
pub fn created(result: Object<'_>) -> Option<Object<'_>> {
    let task = result.get("task")?.as_object()?;
    task.get("taskId").is_some().then_some(task)
}

/// A task of 2025-11-25 as one of 2026-07-28, under another id and with its end, where it has one.
pub fn modern(task: Object<'_>, kind: &str, id: &str, end: Option<(&str, Json)>) -> Json {
    let mut text = format!("{{\"resultType\":{},\"taskId\":{}", Json::of(kind).as_str(), Json::of(id).as_str());
    let mut ttl = false;
    for (key, value) in task.members() {
        let key = match key.as_ref() {
            "taskId" | "resultType" | "result" | "error" | "inputRequests" | "ttlMs" | "pollIntervalMs" => continue,
            // How it ended is said by its end: a tool's own error is a result there, and no failure.
            "status" if end.is_some() => continue,
            "ttl" => {
                ttl = true;
                "ttlMs"
            }
            "pollInterval" => "pollIntervalMs",
            other => other,
        };
        push(&mut text, key, value.raw());
    }
    if !ttl {
        push(&mut text, "ttlMs", "null");
    }
    if let Some((member, end)) = end {
        push(&mut text, "status", if member == "error" { "\"failed\"" } else { "\"completed\"" });
        push(&mut text, member, end.as_str());
    }
    text.push('}');
    Json::joined(text)
}

fn push(text: &mut String, key: &str, value: &str) {
    text.push(',');
    text.push_str(Json::of(key).as_str());
    text.push(':');
    text.push_str(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn json(text: &str) -> Json {
        Json::parse(text, Source::Upstream).unwrap()
    }

    #[test]
    fn a_task_of_2025_becomes_one_of_2026_and_keeps_what_nobody_knows() {
        let task = json(
            r#"{"taskId":"inner","status":"working","zeta":1.50,"createdAt":"c","ttl":60000,"pollInterval":5,"resultType":"x"}"#,
        );
        let task = task.value().as_object().unwrap();
        assert_eq!(
            modern(task, "task", "outer", None).as_str(),
            r#"{"resultType":"task","taskId":"outer","status":"working","zeta":1.50,"createdAt":"c","ttlMs":60000,"pollIntervalMs":5}"#
        );
        let failed = json(r#"{"taskId":"inner","status":"failed","statusMessage":"m"}"#);
        let end = json(r#"{"content":[],"isError":true}"#);
        assert_eq!(
            modern(failed.value().as_object().unwrap(), "complete", "outer", Some(("result", end))).as_str(),
            r#"{"resultType":"complete","taskId":"outer","statusMessage":"m","ttlMs":null,"status":"completed","result":{"content":[],"isError":true}}"#
        );
    }

    #[test]
    fn a_result_names_its_task_by_the_clients_id_or_not_at_all() {
        let result = json(
            r#"{"content":[],"_meta":{"a":1,"io.modelcontextprotocol/related-task":{"taskId":"inner","x":[ 1 ]}}}"#,
        );
        let result = result.value().as_object().unwrap();
        assert_eq!(
            related_to(result, "outer").as_str(),
            r#"{"content":[],"_meta":{"a":1,"io.modelcontextprotocol/related-task":{"taskId":"outer","x":[ 1 ]}}}"#
        );
        assert_eq!(unrelated(result).as_str(), r#"{"content":[],"_meta":{"a":1}}"#);
        let plain = json(r#"{"content":[]}"#);
        assert_eq!(related_to(plain.value().as_object().unwrap(), "outer").as_str(), r#"{"content":[]}"#);
        assert_eq!(unrelated(plain.value().as_object().unwrap()).as_str(), r#"{"content":[]}"#);
    }

    #[test]
    fn a_server_is_asked_again_within_our_bounds_whatever_it_suggests() {
        let pause = |text: &str| pause(json(text).value().as_object().unwrap());
        assert_eq!(pause(r#"{"pollIntervalMs":2000}"#), Duration::from_secs(2));
        assert_eq!(pause(r#"{"pollInterval":2000}"#), Duration::from_secs(2));
        assert_eq!(pause(r#"{"pollIntervalMs":0}"#), limit::TASK_POLL_MIN);
        assert_eq!(pause(r#"{"pollIntervalMs":99999999}"#), limit::TASK_POLL_MAX);
        for odd in ["{}", r#"{"pollIntervalMs":-1}"#, r#"{"pollIntervalMs":"soon"}"#] {
            assert_eq!(pause(odd), limit::TASK_POLL_DEFAULT, "{odd}");
        }
    }
}
