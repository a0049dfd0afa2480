//! The table: how each ending reaches a client of either era.
//!
//! Hidden and unknown are one row, so they cannot differ. A refused or failed `tools/call` is a result
//! with `isError`, because a model can react to that; everything else is a JSON-RPC error.

use serde_json::json;

use super::reason::Channel;
use super::{Failure, Outcome, Pending, Reason, Refusal, Stop};
use crate::wire::mcp::{Era, Method, code, meta};
use crate::wire::{Edit, Json, Message, Value, server_info};

/// A response, ready for a transport.
#[derive(Debug, Clone)]
pub struct Reply {
    /// The HTTP status.
    pub status: u16,
    /// The message.
    pub message: Message,
    /// What a 401 or 403 must challenge with.
    pub challenge: Option<Challenge>,
    /// Seconds for `Retry-After`.
    pub retry_after_seconds: Option<u64>,
}

/// What a `WWW-Authenticate` header has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// A token is needed, or this one is no good (RFC 6750 `invalid_token`).
    Token {
        /// Whether a token came at all; without one RFC 6750 wants no error code.
        presented: bool,
    },
    /// All of these scopes are needed (RFC 6750 `insufficient_scope`).
    Scope(Vec<String>),
}

/// How an outcome reaches the client.
#[must_use]
pub fn reply(outcome: &Outcome, id: &Json, method: Method, era: Era) -> Reply {
    match outcome {
        Outcome::Complete(result) => plain(200, Message::result(id, &shaped(&hinted(result, method, era), era))),
        Outcome::InputRequired { result, .. } | Outcome::Task(result) => {
            plain(200, Message::result(id, &shaped(result, era)))
        }
        Outcome::Error(error) => {
            let error = in_era(error, method, era);
            let status = if era == Era::Modern { modern_status(&error) } else { 200 };
            plain(status, Message::error(Some(id), &error))
        }
        Outcome::Refused(refusal) => refused(refusal, Some(id), Some(method), era),
        Outcome::Failed(failure) => failed(failure, Some(id), Some(method), era),
    }
}

/// How a stop reaches a client whose request may not even have been read.
#[must_use]
pub fn stopped(stop: &Stop, id: Option<&Json>, method: Option<Method>, era: Era) -> Reply {
    match stop {
        Stop::Refused(refusal) => refused(refusal, id, method, era),
        Stop::Failed(failure) => failed(failure, id, method, era),
    }
}

fn refused(refusal: &Refusal, id: Option<&Json>, method: Option<Method>, era: Era) -> Reply {
    let reason = refusal.reason;
    // What nobody has accepted is not there.
    if matches!(reason, Reason::TargetUnknown | Reason::DefinitionQuarantined) {
        return plain(200, Message::error(id, &unknown_target(method, era)));
    }
    if let Some(needed) = &refusal.capabilities {
        return plain(400, Message::error(id, &capability_missing(&refusal.hint, needed)));
    }
    if let (Some(pending), Some(Method::CallTool), Some(id)) = (&refusal.pending, method, id) {
        let waits = waiting(reason, &refusal.hint, pending);
        return plain(200, Message::result(id, &own(&waits, era)));
    }
    let mut reply = render(reason, &refusal.hint, id, method, era);
    if reason.channel() == Channel::InsufficientScope {
        reply.challenge = Some(Challenge::Scope(refusal.scopes.clone()));
    }
    reply
}

fn failed(failure: &Failure, id: Option<&Json>, method: Option<Method>, era: Era) -> Reply {
    // The detail names hosts and paths; clients get the reason and its hint.
    render(failure.reason, failure.reason.hint(), id, method, era)
}

fn render(reason: Reason, hint: &str, id: Option<&Json>, method: Option<Method>, era: Era) -> Reply {
    let error = |code: i32| Message::error(id, &rpc_error(code, reason, hint));
    let modern = era == Era::Modern;
    match reason.channel() {
        Channel::Unauthorized => Reply {
            challenge: Some(Challenge::Token { presented: reason != Reason::TokenMissing }),
            ..plain(401, error(code::INVALID_REQUEST))
        },
        Channel::InsufficientScope | Channel::Forbidden => plain(403, error(code::INVALID_REQUEST)),
        Channel::BadRequest(code) => plain(400, error(code)),
        Channel::NotFound(code) => {
            let gone = reason == Reason::SessionUnknown;
            plain(if modern || gone { 404 } else { 200 }, error(code))
        }
        Channel::TooLarge => plain(413, error(code::INVALID_REQUEST)),
        Channel::TooManyRequests => Reply { retry_after_seconds: Some(1), ..plain(429, error(code::INTERNAL_ERROR)) },
        Channel::Unavailable => Reply { retry_after_seconds: Some(2), ..plain(503, error(code::INTERNAL_ERROR)) },
        Channel::RpcError(code) => plain(200, error(code)),
        Channel::ToolResult(code) => match (method, id) {
            (Some(Method::CallTool), Some(id)) => plain(200, Message::result(id, &own(&tool_error(reason, hint), era))),
            _ => plain(200, error(code)),
        },
    }
}

/// The error for a resource that is hidden or does not exist. It repeats the URI, which is all that it knows.
#[must_use]
pub fn unknown_resource(uri: &str, era: Era) -> Json {
    let error = unknown_target(Some(Method::ReadResource), era);
    let data = Json::of(&json!({ "uri": uri }));
    error.value().as_object().map_or_else(|| error.clone(), |error| error.edited(&[Edit::Set("data", data)]))
}

/// What is said about a hidden thing and about one that does not exist: one row.
fn unknown_target(method: Option<Method>, era: Era) -> Json {
    let (code, message) = match (method, era) {
        (Some(Method::ReadResource | Method::Subscribe), Era::Legacy) => {
            (code::LEGACY_RESOURCE_NOT_FOUND, "Resource not found")
        }
        (Some(Method::ReadResource), Era::Modern) => (code::INVALID_PARAMS, "Resource not found"),
        (Some(Method::GetPrompt), _) => (code::INVALID_PARAMS, "Unknown prompt"),
        (Some(Method::CallTool), _) => (code::INVALID_PARAMS, "Unknown tool"),
        (Some(method), _) if method.is_about_task() => (code::INVALID_PARAMS, "Unknown task"),
        _ => (code::INVALID_PARAMS, "Unknown target"),
    };
    Json::of(&json!({ "code": code, "message": message }))
}

fn rpc_error(code: i32, reason: Reason, hint: &str) -> Json {
    let message = match reason.channel() {
        Channel::NotFound(_) if reason == Reason::MethodUnknown => "Method not found".to_owned(),
        _ => format!("{reason}: {hint}"),
    };
    Json::of(&json!({ "code": code, "message": message, "data": { "reason": reason.code() } }))
}

/// What the specification wants of -32021: the capabilities that the client has to declare.
fn capability_missing(hint: &str, needed: &Json) -> Json {
    let reason = Reason::CapabilityMissing;
    let message = Json::of(&format!("{reason}: {hint}"));
    Json::joined(format!(
        "{{\"code\":{},\"message\":{},\"data\":{{\"requiredCapabilities\":{},\"reason\":\"{reason}\"}}}}",
        code::MISSING_CAPABILITY,
        message.as_str(),
        needed.as_str(),
    ))
}

fn tool_error(reason: Reason, hint: &str) -> Json {
    Json::of(&json!({
        "resultType": "complete",
        "content": [{ "type": "text", "text": format!("{reason}: {hint}") }],
        "isError": true,
        "_meta": { "dev.bailiwick/reason": reason.code() },
    }))
}

/// A tool's answer that says what the call waits for.
fn waiting(reason: Reason, hint: &str, pending: &Pending) -> Json {
    let url = pending.url.as_ref().map(|url| format!(" Its state: {url}")).unwrap_or_default();
    let text = format!("{reason}: {hint} (request {}, until {}).{url}", pending.approval, pending.expires_at);
    let mut content = json!({
        "status": reason.code(),
        "approval_id": pending.approval,
        "expires_at": pending.expires_at.to_string(),
        "hint": hint,
    });
    if let (Some(content), Some(url)) = (content.as_object_mut(), &pending.url) {
        content.insert("url".to_owned(), json!(url));
    }
    Json::of(&json!({
        "resultType": "complete",
        "content": [{ "type": "text", "text": text }],
        "structuredContent": content,
        "isError": true,
        "_meta": { "dev.bailiwick/reason": reason.code() },
    }))
}

/// A result in the shape of the era: `resultType` is modern, and so are the caching hints.
fn shaped(result: &Json, era: Era) -> Json {
    let Some(object) = result.value().as_object() else { return result.clone() };
    match era {
        Era::Modern if object.get("resultType").is_some() => result.clone(),
        Era::Modern => object.edited(&[Edit::Default("resultType", Json::of("complete"))]),
        Era::Legacy => object.edited(&[Edit::Remove("resultType"), Edit::Remove("ttlMs"), Edit::Remove("cacheScope")]),
    }
}

/// A result that the gateway itself gives: it says who answers, where the era has a place for that. What a server gives
/// says what its server said, to the byte.
fn own(result: &Json, era: Era) -> Json {
    let shaped = shaped(result, era);
    let object = shaped.value().as_object().filter(|_| era == Era::Modern);
    let said = object.and_then(|object| object.get("_meta")).and_then(Value::as_object);
    match object.zip(said) {
        Some((object, said)) => {
            let said = said.edited(&[Edit::Set(meta::SERVER_INFO, server_info().clone())]);
            object.edited(&[Edit::Set("_meta", said)])
        }
        None => shaped.clone(),
    }
}

/// What was read, with the caching hints that 2026-07-28 requires. A rule decided who may read it, so it is
/// private, whatever its server says: a cache between us and the next caller asks no rule.
///
/// The result of a method that nobody here knows keeps what its server says, but for `public`; a legacy server
/// could not say anything.
fn hinted(result: &Json, method: Method, era: Era) -> Json {
    // A call's result has no such hints, and is not walked for them.
    if era != Era::Modern || !matches!(method, Method::ReadResource | Method::Extension) {
        return result.clone();
    }
    let Some(object) = result.value().as_object() else { return result.clone() };
    let scope = object.get("cacheScope").and_then(Value::as_str);
    let is_needed = method == Method::ReadResource || scope.is_some() || object.get("resultType").is_none();
    let ttl_ms = object.get("ttlMs").and_then(Value::as_i64).filter(|ttl_ms| *ttl_ms >= 0);
    if !is_needed || (ttl_ms.is_some() && scope.as_deref() == Some("private")) {
        return result.clone();
    }
    // Without a hint nothing may be kept.
    let ttl_ms = Edit::Set("ttlMs", Json::of(&ttl_ms.unwrap_or(0)));
    object.edited(&[ttl_ms, Edit::Set("cacheScope", Json::of("private"))])
}

/// An upstream's error with the code that the client's era has for it: a resource that is not there.
fn in_era(error: &Json, method: Method, era: Era) -> Json {
    let Some(object) = error.value().as_object() else { return error.clone() };
    let number = object.get("code").and_then(Value::as_i64);
    let is = |code: i32| number == Some(i64::from(code));
    let own = match era {
        Era::Modern if is(code::LEGACY_RESOURCE_NOT_FOUND) => code::INVALID_PARAMS,
        // What it asks for is missing, or it would have become a question; no modern client knows the code.
        Era::Modern if is(code::LEGACY_URL_REQUIRED) => code::INTERNAL_ERROR,
        Era::Legacy if method == Method::ReadResource && is(code::INVALID_PARAMS) => code::LEGACY_RESOURCE_NOT_FOUND,
        _ => return error.clone(),
    };
    object.edited(&[Edit::Set("code", Json::of(&own))])
}

/// The HTTP status that 2026-07-28 gives an error by its code.
fn modern_status(error: &Json) -> u16 {
    match error.value().as_object().and_then(|error| error.get("code")).and_then(Value::as_i64) {
        Some(-32601) => 404,
        Some(-32022..=-32020 | -32700 | -32600) => 400,
        _ => 200,
    }
}

fn plain(status: u16, message: Message) -> Reply {
    Reply { status, message, challenge: None, retry_after_seconds: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(era: Era) -> String {
        let id = Json::of(&1);
        let mut rows = String::new();
        for reason in Reason::ALL {
            for method in [Method::CallTool, Method::ReadResource] {
                let stop = Stop::from(Refusal::new(*reason));
                let reply = stopped(&stop, Some(&id), Some(method), era);
                rows.push_str(&format!(
                    "{reason:24} {method:12?} {} {}\n",
                    reply.status,
                    std::str::from_utf8(reply.message.as_bytes()).unwrap()
                ));
            }
        }
        // Which version it is makes no difference.
        rows.replace(env!("CARGO_PKG_VERSION"), "VERSION")
    }

    #[test]
    fn each_reason_reaches_a_modern_client_like_this() {
        insta::assert_snapshot!(table(Era::Modern));
    }

    #[test]
    fn each_reason_reaches_a_legacy_client_like_this() {
        insta::assert_snapshot!(table(Era::Legacy));
    }

    #[test]
    fn a_hidden_target_says_nothing_of_why() {
        let id = Json::of(&1);
        let hidden = Stop::from(Refusal::new(Reason::TargetUnknown).rule("policy.csv:3").hint("secret"));
        let quarantined = Stop::from(Refusal::new(Reason::DefinitionQuarantined));
        let absent = Stop::from(Refusal::new(Reason::TargetUnknown));
        for era in [Era::Modern, Era::Legacy] {
            for method in [Method::CallTool, Method::GetPrompt, Method::ReadResource, Method::Complete] {
                let absent = stopped(&absent, Some(&id), Some(method), era);
                for hidden in [&hidden, &quarantined] {
                    let hidden = stopped(hidden, Some(&id), Some(method), era);
                    assert_eq!(hidden.message.as_bytes(), absent.message.as_bytes());
                    assert_eq!(
                        (hidden.status, hidden.retry_after_seconds),
                        (absent.status, absent.retry_after_seconds)
                    );
                }
            }
        }
    }

    #[test]
    fn reason_codes_are_distinct_and_read_back() {
        for reason in Reason::ALL {
            assert_eq!(Reason::from_code(reason.code()), Some(*reason));
        }
    }

    #[test]
    fn what_was_read_is_private_and_says_how_long_it_may_be_kept() {
        for (sent, told) in [
            (r#"{"contents":[]}"#, r#"{"contents":[],"ttlMs":0,"cacheScope":"private"}"#),
            (
                r#"{"ttlMs":-1,"contents":[],"cacheScope":"private"}"#,
                r#"{"ttlMs":0,"contents":[],"cacheScope":"private"}"#,
            ),
            (r#"{"ttlMs":9,"cacheScope":"public","x":1}"#, r#"{"ttlMs":9,"cacheScope":"private","x":1}"#),
            (r#"{"cacheScope":"private","ttlMs":9}"#, r#"{"cacheScope":"private","ttlMs":9}"#),
        ] {
            let sent = Json::parse(sent, crate::wire::Source::Upstream).unwrap();
            assert_eq!(hinted(&sent, Method::ReadResource, Era::Modern).as_str(), told);
            assert_eq!(hinted(&sent, Method::ReadResource, Era::Legacy), sent);
            assert_eq!(hinted(&sent, Method::CallTool, Era::Modern), sent);
        }
        for (sent, told) in [
            (r#"{"resultType":"complete","x":1}"#, r#"{"resultType":"complete","x":1}"#),
            (r#"{"x":1}"#, r#"{"x":1,"ttlMs":0,"cacheScope":"private"}"#),
            (
                r#"{"resultType":"a","ttlMs":9,"cacheScope":"public"}"#,
                r#"{"resultType":"a","ttlMs":9,"cacheScope":"private"}"#,
            ),
        ] {
            let sent = Json::parse(sent, crate::wire::Source::Upstream).unwrap();
            assert_eq!(hinted(&sent, Method::Extension, Era::Modern).as_str(), told);
        }
    }

    #[test]
    fn a_resource_that_is_not_there_has_the_code_of_the_clients_era() {
        let error = |code: i32| Json::of(&json!({ "code": code, "message": "m", "data": { "uri": "a://b" } }));
        let told = |code: i32, method: Method, era: Era| {
            let told = in_era(&error(code), method, era);
            assert_eq!(told.value().as_object().unwrap().get("data").unwrap().raw(), r#"{"uri":"a://b"}"#);
            told.value().as_object().unwrap().get("code").and_then(Value::as_i64).unwrap()
        };
        assert_eq!(told(-32002, Method::ReadResource, Era::Modern), -32602);
        // The page that a person is to visit, where the error does not say which: only legacy clients know the code.
        assert_eq!(told(-32042, Method::CallTool, Era::Modern), -32603);
        assert_eq!(told(-32042, Method::CallTool, Era::Legacy), -32042);
        assert_eq!(told(-32602, Method::ReadResource, Era::Modern), -32602);
        assert_eq!(told(-32602, Method::ReadResource, Era::Legacy), -32002);
        assert_eq!(told(-32002, Method::ReadResource, Era::Legacy), -32002);
        assert_eq!(told(-32602, Method::CallTool, Era::Legacy), -32602);
        assert_eq!(unknown_resource("a://b", Era::Legacy), {
            Json::of(&json!({ "code": -32002, "message": "Resource not found", "data": { "uri": "a://b" } }))
        });
    }

    #[test]
    fn a_result_has_the_shape_of_its_era() {
        let result =
            Json::of(&json!({ "resultType": "complete", "content": [], "ttlMs": 0, "cacheScope": "private", "x": 1 }));
        assert_eq!(shaped(&result, Era::Legacy).as_str(), r#"{"content":[],"x":1}"#);
        assert_eq!(shaped(&result, Era::Modern), result);
        assert_eq!(shaped(&Json::of(&json!({"a": 1})), Era::Modern).as_str(), r#"{"resultType":"complete","a":1}"#);
    }
}
