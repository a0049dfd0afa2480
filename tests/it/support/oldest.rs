//! An upstream that speaks HTTP+SSE of 2024-11-05 only, and remembers what reached it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Query, State};
use axum::http::{HeaderMap, Response, StatusCode, Uri};
use axum::routing::{get, post};
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::scripted::{raw, tool};

const EXTENSION: &str = "io.modelcontextprotocol/tasks";
/// Its own id of its only task.
pub const TASK: &str = "inner-old";

/// A running server: `echo` answers with its arguments, `form` with what it was told when it asked, `job` with a task.
pub struct Oldest {
    pub url: String,
    state: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    arrived: Mutex<Vec<Value>>,
    /// Everything that has come, whatever it was: first line, headers and body as text.
    raw: Mutex<Vec<String>>,
    streams: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    /// The calls that wait for what they asked.
    asking: Mutex<HashMap<String, Value>>,
    opened: AtomicUsize,
}

impl Oldest {
    pub async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/sse", listener.local_addr().unwrap());
        let state = Arc::<Shared>::default();
        let router =
            Router::new().route("/sse", get(open)).route("/messages", post(hear)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// Tells every session of its task.
    pub fn tell(&self, params: &Value) {
        let message = json!({ "jsonrpc": "2.0", "method": "notifications/tasks", "params": params });
        for stream in self.state.streams.lock().unwrap().values() {
            let _ = stream.send(format!("event: message\ndata: {message}\n\n"));
        }
    }

    /// Everything that has come.
    pub fn everything(&self) -> Vec<String> {
        self.state.raw.lock().unwrap().clone()
    }

    /// The messages of one method that arrived.
    pub fn saw(&self, method: &str) -> Vec<Value> {
        self.state.arrived.lock().unwrap().iter().filter(|message| message["method"] == method).cloned().collect()
    }
}

async fn open(State(state): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Response<Body> {
    state.raw.lock().unwrap().push(format!("GET {uri}\n{headers:?}"));
    let session = state.opened.fetch_add(1, Ordering::SeqCst).to_string();
    let (sender, receiver) = mpsc::unbounded_channel();
    sender.send(format!("event: endpoint\ndata: /messages?session={session}\n\n")).unwrap();
    state.streams.lock().unwrap().insert(session, sender);
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(receiver.recv().await?)), receiver))
    });
    raw("text/event-stream", Body::from_stream(chunks))
}

async fn hear(
    State(state): State<Arc<Shared>>,
    Query(query): Query<HashMap<String, String>>,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> StatusCode {
    state.raw.lock().unwrap().push(format!("POST {uri}\n{headers:?}\n{}", String::from_utf8_lossy(&body)));
    let Some(stream) = state.streams.lock().unwrap().get(&query["session"]).cloned() else {
        return StatusCode::NOT_FOUND;
    };
    let message: Value = serde_json::from_slice(&body).unwrap();
    state.arrived.lock().unwrap().push(message.clone());
    let say = |mut message: Value| {
        message["jsonrpc"] = json!("2.0");
        let _ = stream.send(format!("event: message\ndata: {message}\n\n"));
    };
    let text = |id: &Value, value: &Value| {
        say(json!({ "id": id, "result": { "content": [{ "type": "text", "text": value.to_string() }] } }));
    };
    let id = &message["id"];
    match message["method"].as_str() {
        Some("initialize") => say(json!({ "id": id, "result": { "protocolVersion": "2024-11-05",
            "capabilities": { "tools": {}, "extensions": { EXTENSION: {} } }, "serverInfo": { "name": "oldest", "version": "1" } } })),
        Some("tools/list") => {
            say(json!({ "id": id, "result": { "tools": [tool("echo"), tool("form"), tool("job")] } }));
        }
        Some("tools/call") if message["params"]["name"] == "form" => {
            let question = format!("q-{id}");
            state.asking.lock().unwrap().insert(question.clone(), id.clone());
            let form = json!({ "message": "Your name?", "requestedSchema": { "type": "object", "properties": {} } });
            say(json!({ "id": question, "method": "elicitation/create", "params": form }));
        }
        Some("tools/call") if message["params"]["name"] == "job" => {
            say(json!({ "id": id, "result": { "resultType": "task",
            "taskId": TASK, "status": "working", "createdAt": "2026-11-24T10:00:00Z",
            "lastUpdatedAt": "2026-11-24T10:00:00Z", "ttlMs": null } }));
        }
        Some("tools/call") => text(id, &message["params"]["arguments"]),
        Some(_) if id.is_null() => {}
        Some(_) => say(json!({ "id": id, "error": { "code": -32601, "message": "method not found" } })),
        None => {
            let call = state.asking.lock().unwrap().remove(id.as_str().unwrap_or_default());
            if let Some(call) = call {
                text(&call, &message["result"]);
            }
        }
    }
    StatusCode::ACCEPTED
}
