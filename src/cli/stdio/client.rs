//! One request to a gateway and its answer, for commands that are a client themselves.
//!
//! Speaks 2026-07-28 only. Invariant: what the gateway refuses is an answer, what it does not answer is an error.

use secrecy::SecretString;
use serde_json::{Value, json};
use tokio::sync::mpsc;
use url::Url;

use super::exchange::Remote;
use super::way::Way;
use crate::cli::login::{Asking, Login, LoginOptions};
use crate::limit;
use crate::wire::mcp::meta;
use crate::wire::{Kind, Message, Source};

/// A client of one endpoint, with one token.
pub struct Client {
    remote: Remote,
}

impl Client {
    /// A client of the endpoint at `url`.
    ///
    /// # Errors
    /// When the URL is not `https:` and not on this machine, or TLS cannot be set up.
    pub fn new(url: &Url, token: Option<&SecretString>) -> Result<Self, String> {
        Ok(Self { remote: Remote::new(url, Way::with_token(url, token)?)? })
    }

    /// A client of the endpoint at `url` with the login that is kept for it; asks nobody to log in.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn logged_in(url: &Url) -> Result<Self, String> {
        let login = Login::new(url, LoginOptions::default(), Asking::Never)?;
        Ok(Self { remote: Remote::new(url, Way::with_login(url, login)?)? })
    }

    /// Asks for `method`, and answers the response message: with `result` or with `error`. What `params` has in its
    /// `_meta` goes along.
    ///
    /// # Errors
    /// A lower-case sentence when there was no answer: no connection, no valid token.
    pub async fn request(&self, method: &str, mut params: Value) -> Result<Value, String> {
        if let Some(params) = params.as_object_mut() {
            let mut facts = json!({
                meta::PROTOCOL_VERSION: "2026-07-28",
                meta::CLIENT_CAPABILITIES: {},
                meta::CLIENT_INFO: { "name": "bailiwick", "version": env!("CARGO_PKG_VERSION") },
            });
            if let (Some(Value::Object(own)), Some(facts)) = (params.remove("_meta"), facts.as_object_mut()) {
                facts.extend(own);
            }
            params.insert("_meta".to_owned(), facts);
        }
        let text = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let message = Message::parse(text, Source::Client).map_err(|error| error.to_string())?;
        let (lines, mut received) = mpsc::channel(limit::BRIDGE_LINES_MAX);
        let asked = async move { self.remote.ask(&message, &lines).await };
        let answered = async {
            let mut answer: Option<Message> = None;
            while let Some(message) = received.recv().await {
                // Progress and log messages are for clients that asked for them.
                if matches!(message.kind(), Kind::Result | Kind::Error) {
                    answer = Some(message);
                }
            }
            answer
        };
        let (asked, answer) = tokio::join!(asked, answered);
        asked?;
        let answer = answer.ok_or("the gateway closed the connection before it answered")?;
        serde_json::from_slice(answer.as_bytes()).map_err(|error| format!("the answer cannot be read: {error}"))
    }

    /// Calls a tool.
    ///
    /// # Errors
    /// As [`Self::request`].
    pub async fn call(&self, tool: &str, arguments: &Value) -> Result<Value, String> {
        self.request("tools/call", json!({ "name": tool, "arguments": arguments })).await
    }

    /// The names of the tools that this caller is shown, in the gateway's order.
    ///
    /// # Errors
    /// As [`Self::request`], and when the gateway refuses.
    pub async fn tools(&self) -> Result<Vec<String>, String> {
        let mut names = Vec::new();
        let mut cursor = Value::Null;
        loop {
            let params = if cursor.is_null() { json!({}) } else { json!({ "cursor": cursor }) };
            let answer = self.request("tools/list", params).await?;
            if let Some(problem) = refusal(&answer) {
                return Err(problem);
            }
            let listed = answer.pointer("/result/tools").and_then(Value::as_array);
            names.extend(listed.into_iter().flatten().filter_map(|tool| tool.get("name")?.as_str()).map(str::to_owned));
            cursor = answer.pointer("/result/nextCursor").cloned().unwrap_or_default();
            if cursor.is_null() || names.len() >= limit::CLIENT_TOOLS_SHOWN_MAX {
                return Ok(names);
            }
        }
    }
}

/// What the gateway or the tool said against it, if the answer is one that says no.
#[must_use]
pub fn refusal(answer: &Value) -> Option<String> {
    if let Some(error) = answer.get("error") {
        return Some(error.get("message").and_then(Value::as_str).unwrap_or("an error without a message").to_owned());
    }
    (answer.pointer("/result/isError") == Some(&Value::Bool(true))).then(|| text(answer))
}

/// The text of a tool's answer; its structured content where there is no text.
#[must_use]
pub fn text(answer: &Value) -> String {
    let content = answer.pointer("/result/content").and_then(Value::as_array);
    let texts: Vec<&str> = content.into_iter().flatten().filter_map(|part| part.get("text")?.as_str()).collect();
    if texts.is_empty() {
        return answer.pointer("/result/structuredContent").map(ToString::to_string).unwrap_or_default();
    }
    texts.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_is_told_from_an_answer() {
        let said_no =
            json!({ "result": { "isError": true, "content": [{ "type": "text", "text": "not_allowed: no" }] } });
        assert_eq!(refusal(&said_no).as_deref(), Some("not_allowed: no"));
        assert_eq!(refusal(&json!({ "error": { "code": 1, "message": "gone" } })).as_deref(), Some("gone"));
        let answered = json!({ "result": { "content": [{ "type": "text", "text": "a" }, { "type": "image" }] } });
        assert_eq!((refusal(&answered), text(&answered).as_str()), (None, "a"));
        assert_eq!(text(&json!({ "result": { "content": [], "structuredContent": { "a": 1 } } })), r#"{"a":1}"#);
    }
}
