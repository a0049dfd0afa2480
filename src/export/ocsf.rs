//! The record in the words of OCSF: which class each kind of line becomes, and which of its fields.
//!
//! Decides what leaves: fields are named one by one, so that what is added to the record later does not leave by itself.
//! Arguments, values that conditions read, digests of content and free text never do. `docs/export.md` has the table.
//! Invariant: one record is at most one event, and its `metadata.uid` is the same whenever it is sent.

use std::collections::{HashMap, VecDeque};

use serde_json::{Map, Value, json};

use crate::limit;

/// The version whose fields are used.
const VERSION: &str = "1.5.0";

/// API Activity: a call, what was decided about it, and how it ended; an administrator's operation.
const API_ACTIVITY: u32 = 6003;
/// Authentication: somebody who was not let in, and a sign-out.
const AUTHENTICATION: u32 = 3002;
/// Account Change: a subject or client that is blocked, or is so no more.
const ACCOUNT_CHANGE: u32 = 3001;
/// Entity Management: a policy that was loaded, or not; a server, token or session that is barred, or is so no more.
const ENTITY_MANAGEMENT: u32 = 3004;
/// Application Lifecycle: starts, stops, and what happens to the record itself.
const APPLICATION_LIFECYCLE: u32 = 6002;

const INFORMATIONAL: u32 = 1;
const LOW: u32 = 2;
const MEDIUM: u32 = 3;

const OTHER: u32 = 99;

/// What is known of calls that have not ended, for the records of their ends.
#[derive(Debug, Default)]
pub struct Open {
    legs: HashMap<String, Map<String, Value>>,
    order: VecDeque<String>,
}

impl Open {
    fn begin(&mut self, leg: &str, facts: Map<String, Value>) {
        if self.order.len() >= limit::EXPORT_OPEN_LEGS_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.legs.remove(&oldest);
        }
        if self.legs.insert(leg.to_owned(), facts).is_none() {
            self.order.push_back(leg.to_owned());
        }
    }

    fn end(&mut self, leg: &str) -> Option<Map<String, Value>> {
        let facts = self.legs.remove(leg)?;
        self.order.retain(|own| own != leg);
        Some(facts)
    }
}

/// What one record becomes; `None` for what nobody elsewhere needs.
pub fn event(line: &Value, open: &mut Open) -> Option<Value> {
    let kind = text(line, "type")?;
    let mut event = match kind {
        "intent" => {
            let facts = call(line);
            if let Some(leg) = text(line, "leg") {
                open.begin(leg, facts.clone());
            }
            decided(facts, line, INFORMATIONAL)
        }
        "refusal" | "failure" => decided(call(line), line, LOW),
        "list" => decided(call(line), line, INFORMATIONAL),
        "result" => ended(line, open),
        "noise" => noise(line),
        "revocation" => revocation(line),
        "admin" => administered(line),
        "approval" => approval(line),
        "reload" => reload(line),
        "pin" => pin(line),
        "start" | "stop" | "repair" | "retention" | "executable" | "mandate" | "lifecycle" | "change" => {
            lifecycle(line, kind)
        }
        _ => return None,
    };
    complete(&mut event, line, kind);
    Some(Value::Object(event))
}

fn text<'a>(value: &'a Value, path: &str) -> Option<&'a str> {
    path.split('/').try_fold(value, |value, member| value.get(member)).and_then(Value::as_str)
}

fn number(value: &Value, path: &str) -> Option<u64> {
    path.split('/').try_fold(value, |value, member| value.get(member)).and_then(Value::as_u64)
}

fn object(members: Value) -> Map<String, Value> {
    match members {
        Value::Object(mut members) => {
            members.retain(|_, value| !value.is_null());
            members
        }
        _ => Map::new(),
    }
}

/// What every event has.
fn complete(event: &mut Map<String, Value>, line: &Value, kind: &str) {
    let class = event.get("class_uid").and_then(Value::as_u64).unwrap_or_default();
    let activity = event.get("activity_id").and_then(Value::as_u64).unwrap_or_default();
    let at = text(line, "at").and_then(|at| at.parse::<jiff::Timestamp>().ok()).unwrap_or_default();
    event.insert("category_uid".to_owned(), (class / 1000).into());
    event.insert("type_uid".to_owned(), (class * 100 + activity).into());
    event.insert("time".to_owned(), at.as_millisecond().into());
    let (replica, sequence) = (text(line, "replica").unwrap_or_default(), number(line, "seq").unwrap_or_default());
    let metadata = object(json!({
        "version": VERSION,
        "product": { "name": "Bailiwick", "vendor_name": "Bailiwick", "version": env!("CARGO_PKG_VERSION") },
        "uid": format!("{replica}:{sequence}"),
        "sequence": sequence,
        "log_name": kind,
        "log_provider": replica,
        "correlation_uid": text(line, "call"),
        "profiles": (class == u64::from(API_ACTIVITY)).then(|| json!(["security_control"])),
    }));
    event.insert("metadata".to_owned(), Value::Object(metadata));
}

/// Who called what: common to an intent, a refusal and the end that follows.
fn call(line: &Value) -> Map<String, Value> {
    let method = text(line, "mcp/method").unwrap_or("unknown");
    // What a tool does nobody can say from its name; the others read.
    let activity = if method == "tools/call" { OTHER } else { 2 };
    let name = text(line, "mcp/name");
    let server = text(line, "mcp/server");
    object(json!({
        "class_uid": API_ACTIVITY,
        "activity_id": activity,
        "activity_name": (activity == OTHER).then_some("Call"),
        "actor": actor(line),
        "api": object(json!({
            "operation": method,
            "version": text(line, "mcp/protocol"),
            "service": server.map(|server| object(json!({ "name": server, "labels": text(line, "mcp/environment").map(|environment| vec![environment]) }))),
        })),
        "resources": name.map(|name| vec![object(json!({ "name": name, "type": resource_type(method), "uid": text(line, "mcp/definition") }))]),
        // Where the request came from is not on the record; the client is what answers for it.
        "src_endpoint": object(json!({ "name": text(line, "agent/client").or_else(|| text(line, "agent/id")).unwrap_or("unknown") })),
    }))
}

fn resource_type(method: &str) -> &'static str {
    match method {
        "tools/call" => "tool",
        "prompts/get" => "prompt",
        _ => "resource",
    }
}

fn actor(line: &Value) -> Value {
    let user =
        text(line, "subject/id").map(|id| object(json!({ "uid": id, "name": id, "type": "User", "type_id": 1 })));
    let application = text(line, "agent/id").map(|id| object(json!({ "name": id, "uid": text(line, "agent/client") })));
    let session = text(line, "token/digest").map(|digest| {
        object(json!({
            "uid": digest,
            "issuer": text(line, "token/issuer"),
            "uid_alt": text(line, "token/id"),
            "expiration_time": number(line, "token/expires_at").map(|at| at.saturating_mul(1000)),
        }))
    });
    let effect = text(line, "decision/effect");
    // What was refused before any rule was asked has no policy; one without a name is none in this schema.
    let policy = object(json!({ "name": text(line, "decision/rule"), "uid": text(line, "decision/revision") }));
    let policy = (!policy.is_empty()).then_some(policy);
    let authorizations = effect.map(|effect| vec![object(json!({ "decision": effect, "policy": policy }))]);
    // What nobody did, such as that a request has run out, the gateway did.
    let nobody = user.is_none() && session.is_none();
    Value::Object(object(json!({
        "user": user,
        "app_name": text(line, "agent/id").or_else(|| nobody.then_some("bailiwick")),
        "app_uid": application.and_then(|application| application.get("uid").cloned()),
        "session": session,
        "authorizations": authorizations,
    })))
}

fn decided(mut event: Map<String, Value>, line: &Value, severity: u32) -> Map<String, Value> {
    let (action, disposition, status) = match text(line, "decision/effect") {
        Some("allow") => (1, 1, 0),
        Some("deny") => (2, 2, 2),
        _ => (0, 0, 2),
    };
    event.insert("severity_id".to_owned(), severity.into());
    event.insert("action_id".to_owned(), action.into());
    event.insert("disposition_id".to_owned(), disposition.into());
    event.insert("status_id".to_owned(), status.into());
    if let Some(reason) = text(line, "decision/reason") {
        event.insert("status_code".to_owned(), reason.into());
    }
    if let Some(shown) = number(line, "list/shown") {
        event.insert("count".to_owned(), shown.into());
    }
    event
}

fn ended(line: &Value, open: &mut Open) -> Map<String, Value> {
    let known = text(line, "leg").and_then(|leg| open.end(leg));
    let mut event = known.unwrap_or_else(|| call(line));
    let is_error = line.get("result").and_then(|result| result.get("is_error")).and_then(Value::as_bool);
    let outcome = text(line, "result/outcome").unwrap_or("unknown");
    let status = match outcome {
        _ if is_error == Some(true) => 2,
        "complete" | "input_required" | "task" => 1,
        "unknown" => 0,
        _ => 2,
    };
    // It was allowed, or there would be no end.
    event.insert("action_id".to_owned(), 1.into());
    event.insert("disposition_id".to_owned(), 1.into());
    event.insert("severity_id".to_owned(), (if status == 1 { INFORMATIONAL } else { LOW }).into());
    event.insert("status_id".to_owned(), status.into());
    event.insert("status".to_owned(), outcome.into());
    let code = text(line, "result/reason").map(str::to_owned);
    let code = code.or_else(|| line.get("result")?.get("code")?.as_i64().map(|code| code.to_string()));
    if let Some(code) = code {
        event.insert("status_code".to_owned(), code.into());
    }
    if let Some(latency) = number(line, "result/latency_us") {
        event.insert("duration".to_owned(), (latency / 1000).into());
    }
    event
}

/// Refusals that are no call's, counted: of a caller, or of somebody who was not authenticated.
fn noise(line: &Value) -> Map<String, Value> {
    if line.get("subject").is_some() || line.get("agent").is_some() {
        let mut event = call(line);
        for (name, value) in [("action_id", 2), ("disposition_id", 2), ("severity_id", LOW), ("status_id", 2)] {
            event.insert(name.to_owned(), value.into());
        }
        event.extend(object(json!({
            "activity_id": OTHER,
            "activity_name": "Request",
            "status_code": text(line, "noise/reason"),
            "count": number(line, "noise/count"),
        })));
        return event;
    }
    object(json!({
        "class_uid": AUTHENTICATION,
        "activity_id": 1,
        "severity_id": LOW,
        "status_id": 2,
        "status_code": text(line, "noise/reason"),
        "count": number(line, "noise/count"),
        "service": { "name": "bailiwick" },
        "src_endpoint": object(json!({ "ip": text(line, "noise/source") })),
        "user": object(json!({ "name": "unknown", "type_id": 0 })),
        "is_remote": true,
    }))
}

/// An administrator's operation, with what was decided; what it was about and what came of it are texts of people.
fn administered(line: &Value) -> Map<String, Value> {
    let name = text(line, "admin/actor");
    let outcome = text(line, "admin/outcome");
    // Of an operation that is under way nobody knows the end.
    let (action, severity, status) = match outcome {
        Some("begun") => (1, INFORMATIONAL, 0),
        Some("done") => (1, INFORMATIONAL, 1),
        Some("refused") => (2, LOW, 2),
        _ => (0, LOW, 2),
    };
    let mut own = actor(line);
    if let Some(own) = own.as_object_mut() {
        own.insert("user".to_owned(), Value::Object(object(json!({ "uid": name, "name": name }))));
        if let Some(rule) = text(line, "admin/rule") {
            let decision = if outcome == Some("refused") { "deny" } else { "allow" };
            own.insert("authorizations".to_owned(), json!([{ "decision": decision, "policy": { "name": rule } }]));
        }
    }
    object(json!({
        "class_uid": API_ACTIVITY,
        "activity_id": OTHER,
        "activity_name": "Administer",
        "severity_id": severity,
        "action_id": action,
        "disposition_id": action,
        "status_id": status,
        "status": outcome,
        "status_code": text(line, "admin/reason"),
        "actor": own,
        "api": object(json!({ "operation": text(line, "admin/operation"), "service": { "name": "bailiwick" } })),
        "resources": text(line, "admin/object").map(|object| json!([{ "name": object, "type": "operation" }])),
        "src_endpoint": object(json!({ "name": text(line, "admin/client").or_else(|| text(line, "agent/id")).unwrap_or("unknown") })),
    }))
}

/// What happened to a request for approval: whose it is, never what for.
fn approval(line: &Value) -> Map<String, Value> {
    let event = text(line, "approval/event");
    let (action, severity) = match event {
        Some("denied" | "refused" | "voided" | "withdrawn" | "expired" | "standing_revoked" | "standing_void") => {
            (2, LOW)
        }
        Some("break_glass_opened" | "break_glass_used") => (1, MEDIUM),
        _ => (1, INFORMATIONAL),
    };
    let approvers = line.get("approval").and_then(|own| own.get("approvers")).and_then(Value::as_array);
    let approvers = approvers.into_iter().flatten().filter_map(|approver| text(approver, "id"));
    let authorizations: Vec<Value> =
        approvers.map(|id| json!({ "decision": "approved", "policy": { "name": id } })).collect();
    let mut own = actor(line);
    if let Some(own) = own.as_object_mut()
        && !authorizations.is_empty()
    {
        own.insert("authorizations".to_owned(), authorizations.into());
    }
    object(json!({
        "class_uid": API_ACTIVITY,
        "activity_id": OTHER,
        "activity_name": "Approve",
        "severity_id": severity,
        "action_id": action,
        "disposition_id": action,
        "status_id": 1,
        "status": event,
        "actor": own,
        "api": object(json!({
            "operation": event.map(|event| format!("approval/{event}")),
            "service": { "name": "bailiwick" },
            "request": { "uid": text(line, "approval/id") },
        })),
        "resources": text(line, "approval/name").map(|name| json!([{ "name": name, "type": "tool" }])),
        "src_endpoint": { "name": text(line, "agent/id").unwrap_or("unknown") },
    }))
}

fn revocation(line: &Value) -> Map<String, Value> {
    let target = text(line, "revocation/target").unwrap_or_default();
    let value = text(line, "revocation/value");
    let lifted = line.get("revocation").and_then(|own| own.get("lifted")).and_then(Value::as_bool).unwrap_or(false);
    let signed_out = text(line, "revocation/mode") == Some("sign_out");
    let uid = match (text(line, "revocation/issuer"), value) {
        (Some(issuer), Some(value)) => Some(format!("{issuer}/{value}")),
        (_, value) => value.map(str::to_owned),
    };
    let name = uid.clone().unwrap_or_else(|| target.to_owned());
    let (class, activity, activity_name) = match (target, signed_out, lifted) {
        (_, true, false) => (AUTHENTICATION, 2, None),
        // Nobody logs on by it: what was issued before may be used again.
        (_, true, true) => (AUTHENTICATION, OTHER, Some("Lift sign-out")),
        ("subject" | "client" | "agent" | "owner", false, false) => (ACCOUNT_CHANGE, 5, None),
        ("subject" | "client" | "agent" | "owner", false, true) => (ACCOUNT_CHANGE, 2, None),
        // Nobody's account, and nobody logs off: something that can be used no more.
        (_, false, false) => (ENTITY_MANAGEMENT, 9, None),
        (_, false, true) => (ENTITY_MANAGEMENT, 8, None),
    };
    let is_entity = class == ENTITY_MANAGEMENT;
    object(json!({
        "class_uid": class,
        "activity_id": activity,
        "activity_name": activity_name,
        "severity_id": MEDIUM,
        "status_id": 1,
        "status_detail": if lifted { format!("{target} lifted") } else { target.to_owned() },
        "actor": object(json!({ "user": object(json!({ "uid": text(line, "revocation/actor"), "name": text(line, "revocation/actor") })) })),
        "service": (class == AUTHENTICATION).then(|| json!({ "name": "bailiwick" })),
        "user": (!is_entity).then(|| object(json!({ "uid": uid, "name": name, "type": target, "type_id": OTHER }))),
        "entity": is_entity.then(|| object(json!({ "name": name, "type": target, "uid": uid }))),
    }))
}

fn reload(line: &Value) -> Map<String, Value> {
    let loaded = text(line, "reload/outcome") == Some("loaded");
    object(json!({
        "class_uid": ENTITY_MANAGEMENT,
        "activity_id": 3,
        "severity_id": MEDIUM,
        "status_id": if loaded { 1 } else { 2 },
        "status": text(line, "reload/outcome"),
        "actor": object(json!({ "user": object(json!({ "uid": text(line, "reload/actor"), "name": text(line, "reload/actor") })) })),
        "entity": object(json!({ "name": "policy", "type": "Policy", "uid": text(line, "reload/from").or_else(|| text(line, "reload/to")) })),
        "entity_result": text(line, "reload/to").map(|to| object(json!({ "name": "policy", "type": "Policy", "uid": to }))),
    }))
}

/// What became of a definition; its name and why are texts of others.
fn pin(line: &Value) -> Map<String, Value> {
    let state = text(line, "pin/state");
    let (activity, severity) = match state {
        Some("accepted") => (8, INFORMATIONAL),
        Some("rejected") => (9, MEDIUM),
        _ => (3, if text(line, "pin/before").is_some() { MEDIUM } else { LOW }),
    };
    object(json!({
        "class_uid": ENTITY_MANAGEMENT,
        "activity_id": activity,
        "severity_id": severity,
        "status_id": 1,
        "status_detail": state,
        "actor": object(json!({ "user": object(json!({ "uid": text(line, "pin/actor"), "name": text(line, "pin/actor").unwrap_or("bailiwick") })) })),
        "entity": object(json!({ "name": text(line, "pin/server"), "type": text(line, "pin/kind"), "uid": text(line, "pin/digest") })),
    }))
}

/// What became of something, and by whom.
fn sentence(line: &Value, of: &str, what: &str) -> Option<String> {
    let part = |name: &str| text(line, &format!("{of}/{name}"));
    Some(format!("{what} {} {} by {}", part("id")?, part("event")?, part("actor").unwrap_or("nobody")))
}

fn lifecycle(line: &Value, kind: &str) -> Map<String, Value> {
    let (activity, severity) = match kind {
        "start" => (3, INFORMATIONAL),
        "stop" => (4, INFORMATIONAL),
        "retention" => (OTHER, INFORMATIONAL),
        _ => (OTHER, MEDIUM),
    };
    let detail = match kind {
        "repair" => text(line, "repair/problem").map(str::to_owned),
        "executable" => text(line, "executable/server").map(str::to_owned),
        "mandate" => sentence(line, "mandate", "mandate"),
        "lifecycle" => sentence(line, "lifecycle", text(line, "lifecycle/kind").unwrap_or_default()),
        "change" => number(line, "change/epoch").map(|epoch| format!("rows were changed in epoch {epoch}")),
        "retention" => number(line, "retention/last").map(|last| format!("records up to {last} were removed")),
        _ => None,
    };
    object(json!({
        "class_uid": APPLICATION_LIFECYCLE,
        "activity_id": activity,
        "activity_name": (activity == OTHER).then_some(kind),
        "severity_id": severity,
        "status_id": 1,
        "status_detail": detail,
        "app": object(json!({ "name": "Bailiwick", "vendor_name": "Bailiwick", "version": text(line, "start/version").unwrap_or(env!("CARGO_PKG_VERSION")) })),
    }))
}

#[cfg(test)]
mod tests;
