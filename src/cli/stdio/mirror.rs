//! Arguments that a modern call repeats in `Mcp-Param-*` headers (2026-07-28, SEP-2243).
//!
//! Decides which tools have such arguments, from the lists that pass through. Invariant: a header says what the
//! argument says, and is there only if the argument is; what is remembered is bounded.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use http::header::{HeaderMap, HeaderName, HeaderValue};

use super::headers::{encoded, is_modern};
use crate::catalog::{HeaderParameter, header_parameters};
use crate::limit;
use crate::wire::mcp::header;
use crate::wire::{Kind, Message, Value};

/// What the lists said, by the name that the gateway gives the tool.
#[derive(Default)]
pub(super) struct Mirrors(Mutex<HashMap<String, Arc<[HeaderParameter]>>>);

impl Mirrors {
    /// Remembers the tools of an answer to `tools/list`.
    pub(super) fn learn(&self, request: &Message, answer: &Message) {
        if answer.kind() != Kind::Result || request.method() != "tools/list" {
            return;
        }
        let Some(body) = answer.body() else { return };
        let tools = body.value().as_object().and_then(|result| result.get("tools")).and_then(Value::as_array);
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for tool in tools.into_iter().flatten().filter_map(Value::as_object) {
            let (Some(name), Some(schema)) =
                (tool.get("name").and_then(Value::as_str), tool.get("inputSchema").and_then(Value::as_object))
            else {
                continue;
            };
            // A tool whose annotations are wrong cannot be called faithfully; the gateway lists none.
            let Ok(parameters) = header_parameters(schema) else { continue };
            if known.len() >= limit::CLIENT_TOOLS_SHOWN_MAX {
                known.clear();
            }
            known.insert(name.into_owned(), parameters.into());
        }
    }

    /// Whether a call may need headers that nobody has told about yet.
    pub(super) fn is_unknown(&self, message: &Message) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        tool(message).is_some_and(|tool| !known.contains_key(&tool))
    }

    /// Adds the headers of a call.
    pub(super) fn add(&self, message: &Message, headers: &mut HeaderMap) {
        let known = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(parameters) = tool(message).and_then(|tool| known().get(&tool).cloned()) else { return };
        let arguments = message.params().and_then(|params| params.get("arguments"));
        for parameter in parameters.iter() {
            let argument = parameter
                .path
                .iter()
                .try_fold(arguments, |value, name| value?.as_object().map(|object| object.get(name)))
                .flatten()
                .filter(|value| !value.is_null());
            let Some(argument) = argument else { continue };
            let text = argument.as_str().map_or_else(|| argument.raw().to_owned(), std::borrow::Cow::into_owned);
            let name = format!("{}{}", header::PARAMETER_PREFIX, parameter.header.to_ascii_lowercase());
            if let (Ok(name), Ok(value)) =
                (HeaderName::from_bytes(name.as_bytes()), HeaderValue::from_str(&encoded(&text)))
            {
                headers.insert(name, value);
            }
        }
    }
}

/// The tool that a modern call names.
fn tool(message: &Message) -> Option<String> {
    if message.kind() != Kind::Request || message.method() != "tools/call" || !is_modern(message) {
        return None;
    }
    message.params()?.get("name").and_then(Value::as_str).map(std::borrow::Cow::into_owned)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::wire::Source;

    fn message(method: &str, mut params: serde_json::Value) -> Message {
        params["_meta"] = json!({ "io.modelcontextprotocol/protocolVersion": "2026-07-28" });
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        Message::parse(text, Source::Client).unwrap()
    }

    fn learnt() -> Mirrors {
        let mirrors = Mirrors::default();
        let schema = json!({ "type": "object", "properties": {
            "region": { "type": "string", "x-mcp-header": "Region" },
            "size": { "type": "object", "properties": { "n": { "type": "integer", "x-mcp-header": "N" } } },
        }});
        let broken = json!({ "type": "object", "properties": { "a": { "type": "number", "x-mcp-header": "A" } } });
        let tools = json!([{ "name": "deploy__rollout", "inputSchema": schema }, { "name": "bad", "inputSchema": broken },
                           { "name": "plain", "inputSchema": { "type": "object" } }, "nonsense"]);
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools } }).to_string();
        let answer = Message::parse(answer, Source::Upstream).unwrap();
        mirrors.learn(&message("tools/call", json!({})), &answer);
        assert!(mirrors.is_unknown(&message("tools/call", json!({ "name": "plain" }))), "that was no list");
        mirrors.learn(&message("tools/list", json!({})), &answer);
        mirrors
    }

    fn headers(mirrors: &Mirrors, call: &Message) -> Vec<(String, String)> {
        let mut headers = HeaderMap::new();
        mirrors.add(call, &mut headers);
        let pair = |(name, value): (&HeaderName, &HeaderValue)| (name.to_string(), value.to_str().unwrap().to_owned());
        headers.iter().map(pair).collect()
    }

    #[test]
    fn a_call_repeats_its_annotated_arguments_in_headers() {
        let mirrors = learnt();
        let call = |arguments: serde_json::Value| {
            let call = message("tools/call", json!({ "name": "deploy__rollout", "arguments": arguments }));
            assert!(!mirrors.is_unknown(&call));
            let mut found = headers(&mirrors, &call);
            found.sort();
            found
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            call(json!({ "region": "eu", "size": { "n": 3 }, "other": 1 })),
            [pair("mcp-param-n", "3"), pair("mcp-param-region", "eu")]
        );
        assert_eq!(
            call(json!({ "region": "a\r\nx-evil: 1" })),
            [pair("mcp-param-region", "=?base64?YQ0KeC1ldmlsOiAx?=")]
        );
        for without in [json!({}), json!({ "region": null }), json!({ "size": 7 }), json!([])] {
            assert!(call(without.clone()).is_empty(), "{without}");
        }
    }

    #[test]
    fn only_a_modern_call_of_a_listed_tool_has_such_headers() {
        let mirrors = learnt();
        assert!(!mirrors.is_unknown(&message("tools/call", json!({ "name": "plain" }))));
        assert!(mirrors.is_unknown(&message("tools/call", json!({ "name": "bad" }))));
        assert!(!mirrors.is_unknown(&message("prompts/get", json!({ "name": "other" }))));
        let legacy = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call",
                             "params": { "name": "deploy__rollout", "arguments": { "region": "eu" } } });
        let legacy = Message::parse(legacy.to_string(), Source::Client).unwrap();
        assert!(!mirrors.is_unknown(&legacy) && headers(&mirrors, &legacy).is_empty());
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let mirrors = Mirrors::default();
        for page in 0..3 {
            let tools: Vec<_> = (0..limit::CLIENT_TOOLS_SHOWN_MAX / 2)
                .map(|n| json!({ "name": format!("t{page}-{n}"), "inputSchema": {} }))
                .collect();
            let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": { "tools": tools } }).to_string();
            mirrors.learn(&message("tools/list", json!({})), &Message::parse(answer, Source::Upstream).unwrap());
        }
        assert!(mirrors.0.lock().unwrap().len() <= limit::CLIENT_TOOLS_SHOWN_MAX);
    }
}
