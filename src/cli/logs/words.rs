//! Records in words: who, what was asked, what was decided, how it ended.
//!
//! Decides how a line of the tree reads. Refuses to know what stands under what. Invariant: what is not on the record is not
//! said.

use anstyle::Style;
use serde_json::Value;

use super::super::output::{BAD, GOOD, QUIET, STRONG, WARNING};
use super::line::duration;
use super::node::Node;

/// The digits of a digest that tell it from others of one day.
const DIGEST_SHOWN: usize = 12;

pub(super) fn is_about_mandate(record: &Value, id: &str) -> bool {
    text(record, "/type") == "mandate" && text(record, "/mandate/id") == id
}

pub(super) fn text<'a>(record: &'a Value, pointer: &str) -> &'a str {
    record.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn ids<'a>(values: impl Iterator<Item = &'a Value>) -> Vec<&'a str> {
    let mut ids: Vec<&str> = Vec::new();
    for id in values.filter_map(Value::as_str) {
        if !ids.contains(&id) {
            ids.push(id);
        }
    }
    ids
}

pub(super) fn asked(record: &Value) -> String {
    let (server, name) = (text(record, "/mcp/server"), text(record, "/mcp/name"));
    let object = match (server.is_empty(), name.is_empty()) {
        (false, false) => format!(" {server}/{name}"),
        (false, true) => format!(" {server}"),
        (true, false) => format!(" {name}"),
        (true, true) => String::new(),
    };
    let environment = text(record, "/mcp/environment");
    let environment = if environment.is_empty() { String::new() } else { format!(" ({environment})") };
    format!("{}{object}{environment}", text(record, "/mcp/method"))
}

pub(super) fn who(record: &Value) -> String {
    let mut said = vec![text(record, "/subject/id").to_owned()];
    let (agent, client) = (text(record, "/agent/id"), text(record, "/agent/client"));
    if !agent.is_empty() || !client.is_empty() {
        said.push(format!("with {agent} (client {client}, proof {})", text(record, "/agent/proof")));
    }
    let chain = joined(record.get("chain"), "");
    if !chain.is_empty() {
        said.push(format!("on behalf through {chain}"));
    }
    let token = text(record, "/token/digest");
    if !token.is_empty() {
        said.push(format!("token {token} of {}", text(record, "/token/issuer")));
    }
    said.retain(|part| !part.is_empty());
    if said.is_empty() { "nobody".to_owned() } else { said.join(", ") }
}

pub(super) fn owners(record: &Value) -> Option<String> {
    let of = |what: &str| {
        let owner = text(record, &format!("/owners/{what}"));
        (!owner.is_empty()).then(|| format!("{owner} for the {what}"))
    };
    let owners: Vec<String> = [of("agent"), of("server")].into_iter().flatten().collect();
    (!owners.is_empty()).then(|| owners.join(", "))
}

pub(super) fn purpose(record: &Value) -> String {
    let template = text(record, "/mandate/template");
    let declared = text(record, "/mandate/purpose_declared");
    let declared = if declared.is_empty() { String::new() } else { format!(", declared: {declared}") };
    format!("{}{declared}", if template.is_empty() { "without a template" } else { template })
}

pub(super) fn decision(record: &Value) -> Node {
    let effect = text(record, "/decision/effect");
    let style = match effect {
        "deny" => BAD,
        "fail" => WARNING,
        _ => GOOD,
    };
    let mut said = effect.to_owned();
    for (name, what) in [("/decision/reason", ""), ("/decision/rule", "by "), ("/decision/revision", "policy ")] {
        let value = text(record, name);
        if !value.is_empty() {
            let value = if name.ends_with("revision") { short(value) } else { value };
            said.push_str(&format!(", {what}{value}"));
        }
    }
    if let Some(epoch) = record.pointer("/decision/epoch") {
        said.push_str(&format!(", epoch {}", plain(epoch)));
    }
    if let Some(shown) = record.pointer("/list/shown") {
        said.push_str(&format!(", {} shown", plain(shown)));
    }
    let detail = text(record, "/decision/detail");
    if !detail.is_empty() {
        said.push_str(&format!(": {detail}"));
    }
    Node::new("decision", style, said)
}

/// How a record says that something ended.
pub(super) fn outcome(record: &Value) -> (Style, String) {
    let Some(result) = record.get("result") else {
        return match text(record, "/type") {
            "intent" => (WARNING, "under way, or its end is not on this record".to_owned()),
            "refusal" | "failure" => (BAD, text(record, "/decision/reason").to_owned()),
            kind => (QUIET, kind.to_owned()),
        };
    };
    let is = |name: &str| result.get(name).and_then(Value::as_bool).unwrap_or_default();
    let mut said = text(result, "/outcome").to_owned();
    let style = match said.as_str() {
        "complete" if !is("is_error") => GOOD,
        "input_required" | "task" => STRONG,
        "unknown" => WARNING,
        _ => BAD,
    };
    if is("is_error") {
        said.push_str(", the tool says that it failed");
    }
    let asked = joined(result.get("asked"), "");
    if !asked.is_empty() {
        said.push_str(&format!(", {} asks for {asked}", text(result, "/origin")));
    }
    if let Some(code) = result.get("code") {
        said.push_str(&format!(", code {}", plain(code)));
    }
    let reason = text(result, "/reason");
    if !reason.is_empty() {
        said.push_str(&format!(", {reason}"));
    }
    if let Some(bytes) = result.get("bytes") {
        said.push_str(&format!(", {} bytes, keyed digest {}", plain(bytes), short(text(result, "/hmac"))));
    }
    if let Some(took) = result.get("latency_us").and_then(Value::as_u64) {
        said.push_str(&format!(", after {}", duration(took)));
    }
    if is("may_have_acted") {
        said.push_str("; it may have acted");
    }
    let detail = text(result, "/detail");
    if !detail.is_empty() {
        said.push_str(&format!(": {detail}"));
    }
    let cancelled_with = text(result, "/cancelled_with");
    if !cancelled_with.is_empty() {
        said.push_str(&format!("; its client said: {cancelled_with}"));
    }
    (style, said)
}

pub(super) fn approver(approver: &Value) -> String {
    let mut said = text(approver, "/id").to_owned();
    let acr = text(approver, "/acr");
    if !acr.is_empty() {
        said.push_str(&format!(" ({acr})"));
    }
    said
}

pub(super) fn short(digest: &str) -> &str {
    digest.get(..DIGEST_SHOWN).unwrap_or(digest)
}

/// What a call has used up of budgets.
pub(super) fn budget(charges: &Value) -> Option<Node> {
    let told = |charge: &Value| {
        let count = |name: &str| charge.get(name).map(plain).unwrap_or_default();
        let (of, id, what) = (text(charge, "/of"), text(charge, "/id"), text(charge, "/what"));
        format!("{} of the {what} of {of} {id}, {} left", count("charged"), count("left"))
    };
    let told: Vec<String> = charges.as_array()?.iter().map(told).collect();
    Some(Node::plain("budget", told.join("; ")))
}

pub(super) fn joined(list: Option<&Value>, none: &str) -> String {
    match list {
        Some(Value::Array(values)) if !values.is_empty() => values.iter().map(plain).collect::<Vec<_>>().join(", "),
        _ => none.to_owned(),
    }
}

pub(super) fn fields(value: Option<&Value>) -> String {
    match value {
        Some(Value::Object(fields)) => {
            fields.iter().map(|(name, value)| format!("{name} {}", plain(value))).collect::<Vec<_>>().join(", ")
        }
        Some(value) => plain(value),
        None => String::new(),
    }
}

pub(super) fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
