//! An upstream that answers what a test scripts, and remembers what reached it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

/// One request that reached the upstream.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub headers: HashMap<String, String>,
    pub message: Value,
    pub text: String,
}

/// What a tool call is answered with.
pub type Script = dyn Fn(&Value) -> Response<Body> + Send + Sync;

/// A running modern upstream over HTTP.
pub struct Scripted {
    pub url: String,
    state: Arc<Shared>,
}

struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    tools: Mutex<Value>,
    forgotten: Mutex<Vec<String>>,
    mute: Mutex<Option<String>>,
    script: Box<Script>,
}

impl Scripted {
    /// Starts with these tools; `script` answers `tools/call`.
    pub async fn start(tools: Value, script: impl Fn(&Value) -> Response<Body> + Send + Sync + 'static) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let state = Arc::new(Shared {
            arrived: Mutex::default(),
            tools: Mutex::new(tools),
            forgotten: Mutex::default(),
            mute: Mutex::default(),
            script: Box::new(script),
        });
        let router = axum::Router::new().route("/mcp", post(answer)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// An upstream with one tool `echo` that answers its arguments.
    pub async fn echo() -> Self {
        Self::start(json!([tool("echo")]), |call| result(call, text(&call["params"]["arguments"].to_string()))).await
    }

    /// The tool calls that arrived.
    pub fn calls(&self) -> Vec<Arrived> {
        let arrived = self.state.arrived.lock().unwrap();
        arrived.iter().filter(|request| request.message["method"] == "tools/call").cloned().collect()
    }

    /// Everything that arrived.
    pub fn everything(&self) -> Vec<Arrived> {
        self.state.arrived.lock().unwrap().clone()
    }

    /// Answers calls of this tool as unknown from now on.
    pub fn forget(&self, tool: &str) {
        self.state.forgotten.lock().unwrap().push(tool.to_owned());
    }

    /// Takes requests from now on and answers none of this method or tool; of nothing at all for `*`. An empty
    /// text takes it back.
    pub fn mute(&self, what: &str) {
        *self.state.mute.lock().unwrap() = (!what.is_empty()).then(|| what.to_owned());
    }

    /// Changes what is listed from now on.
    pub fn set_tools(&self, tools: Value) {
        *self.state.tools.lock().unwrap() = tools;
    }
}

/// A plain tool.
pub fn tool(name: &str) -> Value {
    json!({ "name": name, "description": format!("the tool {name}"), "inputSchema": { "type": "object" } })
}

/// A tool result with one text.
pub fn text(text: &str) -> Value {
    json!({ "resultType": "complete", "content": [{ "type": "text", "text": text }] })
}

/// A JSON answer to a request.
#[expect(clippy::needless_pass_by_value, reason = "each test makes its result on the spot")]
pub fn result(request: &Value, result: Value) -> Response<Body> {
    raw("application/json", json!({ "jsonrpc": "2.0", "id": request["id"], "result": result }).to_string())
}

/// An answer of any kind.
pub fn raw(content_type: &str, body: impl Into<Body>) -> Response<Body> {
    Response::builder().header("content-type", content_type).body(body.into()).unwrap()
}

/// An answer that breaks off: its server went away in the middle.
pub fn gone() -> Response<Body> {
    let broken = futures_util::stream::once(async { Err::<Vec<u8>, _>(std::io::Error::other("gone")) });
    raw("application/json", Body::from_stream(broken))
}

async fn answer(State(state): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let text = String::from_utf8_lossy(&body).into_owned();
    let message: Value = serde_json::from_str(&text).unwrap();
    let headers = headers
        .iter()
        .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
        .collect();
    state.arrived.lock().unwrap().push(Arrived { headers, message: message.clone(), text });
    let is_mute = || {
        let names = [&json!("*"), &message["method"], &message["params"]["name"]];
        state.mute.lock().unwrap().as_ref().is_some_and(|mute| names.contains(&&json!(mute)))
    };
    while is_mute() {
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    let cached = |mut value: Value| {
        value["resultType"] = json!("complete");
        value["ttlMs"] = json!(0);
        value["cacheScope"] = json!("private");
        result(&message, value)
    };
    match message["method"].as_str().unwrap_or_default() {
        "server/discover" => cached(json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} } })),
        "tools/list" => cached(json!({ "tools": *state.tools.lock().unwrap() })),
        "tools/call" if state.forgotten.lock().unwrap().iter().any(|tool| message["params"]["name"] == **tool) => {
            let error = json!({ "code": -32602, "message": "Unknown tool" });
            raw("application/json", json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }).to_string())
        }
        "tools/call" => (state.script)(&message),
        // A method of an extension that nobody has heard of.
        name if name.starts_with("x/") => result(
            &message,
            json!({ "resultType": "complete", "zebra": 1, "asked": message["params"]["deep"], "ant": [null] }),
        ),
        _ => {
            let error = json!({ "jsonrpc": "2.0", "id": message["id"], "error": { "code": -32601, "message": "Method not found" } });
            let mut response = raw("application/json", error.to_string());
            *response.status_mut() = StatusCode::NOT_FOUND;
            response
        }
    }
}
