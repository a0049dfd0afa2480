//! An upstream of the legacy era that asks in the middle of a call, and remembers what reached it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use axum::routing::any;
use futures_util::future::BoxFuture;
use serde_json::{Value, json};
use tokio::sync::{mpsc, oneshot};

use super::scripted::{raw, tool};

/// A running legacy upstream over HTTP.
#[derive(Clone)]
pub struct Old {
    pub url: String,
    state: Arc<Shared>,
}

/// One message that reached it.
#[derive(Debug, Clone)]
pub struct Arrived {
    pub session: String,
    pub message: Value,
    /// What it was presented with.
    pub authorization: String,
}

type Handler = dyn Fn(Turn) -> BoxFuture<'static, ()> + Send + Sync;

struct Shared {
    arrived: Mutex<Vec<Arrived>>,
    waiting: Mutex<HashMap<String, oneshot::Sender<Value>>>,
    /// The GET stream of each session.
    streams: Mutex<HashMap<String, mpsc::UnboundedSender<String>>>,
    /// Calls whose streams were closed, by the id to come back with.
    closed: Mutex<HashMap<String, oneshot::Sender<mpsc::UnboundedSender<String>>>>,
    sessions: AtomicUsize,
    questions: AtomicUsize,
    tools: Vec<&'static str>,
    handler: Box<Handler>,
}

/// One tool call in progress.
pub struct Turn {
    pub call: Value,
    session: String,
    events: mpsc::UnboundedSender<String>,
    state: Arc<Shared>,
}

impl Turn {
    /// Asks the client on the stream of the call; the response message.
    pub async fn ask(&self, method: &str, params: Value) -> Value {
        self.asking(method, params, &self.events.clone()).await
    }

    /// Asks the client on the session's own stream, which does not say which call asks.
    pub async fn ask_elsewhere(&self, method: &str, params: Value) -> Value {
        let stream = self.own_stream().await;
        self.asking(method, params, &stream).await
    }

    /// Says something on the session's own stream.
    pub async fn notify_elsewhere(&self, method: &str, params: Value) {
        let stream = self.own_stream().await;
        let _ = stream.send(event(&json!({ "jsonrpc": "2.0", "method": method, "params": params })));
    }

    async fn own_stream(&self) -> mpsc::UnboundedSender<String> {
        loop {
            let stream = self.state.streams.lock().unwrap().get(&self.session).cloned();
            match stream {
                Some(stream) => return stream,
                None => tokio::time::sleep(std::time::Duration::from_millis(20)).await,
            }
        }
    }

    async fn asking(&self, method: &str, params: Value, stream: &mpsc::UnboundedSender<String>) -> Value {
        let id = format!("q-{}", self.state.questions.fetch_add(1, Ordering::SeqCst));
        let (sender, receiver) = oneshot::channel();
        self.state.waiting.lock().unwrap().insert(id.clone(), sender);
        let request = json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params });
        stream.send(event(&request)).unwrap();
        receiver.await.unwrap_or(Value::Null)
    }

    /// Says something on the stream of the call.
    #[expect(clippy::needless_pass_by_value, reason = "each test makes its message on the spot")]
    pub fn notify(&self, method: &str, params: Value) {
        let _ = self.events.send(event(&json!({ "jsonrpc": "2.0", "method": method, "params": params })));
    }

    /// Closes the stream of the call after an id to come back with, and waits until somebody did.
    pub async fn close_stream(&mut self, id: &str) {
        let (sender, back) = oneshot::channel();
        self.state.closed.lock().unwrap().insert(id.to_owned(), sender);
        let _ = self.events.send(format!("id: {id}\nretry: 10\ndata:\n\n"));
        self.events = mpsc::unbounded_channel().0;
        self.events = back.await.unwrap();
    }

    /// The answer to the call: one text.
    pub fn done(self, text: &str) {
        let result = json!({ "content": [{ "type": "text", "text": text }] });
        let _ = self.events.send(event(&json!({ "jsonrpc": "2.0", "id": self.call["id"], "result": result })));
    }
}

fn event(message: &Value) -> String {
    format!("data: {message}\n\n")
}

impl Old {
    pub async fn start<F>(tools: &[&'static str], handler: impl Fn(Turn) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let state = Arc::new(Shared {
            arrived: Mutex::default(),
            waiting: Mutex::default(),
            streams: Mutex::default(),
            closed: Mutex::default(),
            sessions: AtomicUsize::new(0),
            questions: AtomicUsize::new(0),
            tools: tools.to_vec(),
            handler: Box::new(move |turn| Box::pin(handler(turn))),
        });
        let router = axum::Router::new().route("/mcp", any(answer)).with_state(Arc::clone(&state));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, state }
    }

    /// The answers to what it asked.
    pub fn answers(&self) -> Vec<Arrived> {
        let arrived = self.state.arrived.lock().unwrap();
        arrived.iter().filter(|arrived| arrived.message.get("method").is_none()).cloned().collect()
    }

    /// The messages of one method that arrived.
    pub fn saw(&self, method: &str) -> Vec<Arrived> {
        self.state.arrived.lock().unwrap().iter().filter(|seen| seen.message["method"] == method).cloned().collect()
    }
}

async fn answer(State(state): State<Arc<Shared>>, verb: Method, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let session = headers.get("mcp-session-id").map_or("", |value| value.to_str().unwrap()).to_owned();
    if verb == Method::GET {
        let (sender, receiver) = mpsc::unbounded_channel();
        let last = headers.get("last-event-id").map(|id| id.to_str().unwrap());
        if let Some(back) = last.and_then(|id| state.closed.lock().unwrap().remove(id)) {
            let _ = back.send(sender);
            return stream(receiver);
        }
        state.streams.lock().unwrap().insert(session, sender);
        return stream(receiver);
    }
    if verb == Method::DELETE {
        return empty(200);
    }
    let message: Value = serde_json::from_slice(&body).unwrap();
    let authorization =
        headers.get("authorization").and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    state.arrived.lock().unwrap().push(Arrived { session: session.clone(), message: message.clone(), authorization });
    let reply = |result: Value| {
        raw("application/json", json!({ "jsonrpc": "2.0", "id": message["id"], "result": result }).to_string())
    };
    match message["method"].as_str() {
        Some("initialize") => {
            let number = state.sessions.fetch_add(1, Ordering::SeqCst);
            let mut response =
                reply(json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {}, "logging": {} },
                "serverInfo": { "name": "old", "version": "1" } }));
            response.headers_mut().insert("mcp-session-id", format!("session-{number}").parse().unwrap());
            response
        }
        Some("logging/setLevel") => reply(json!({})),
        Some("tools/list") => {
            let tools: Vec<_> = state.tools.iter().map(|name| tool(name)).collect();
            reply(json!({ "tools": tools }))
        }
        Some("tools/call") => {
            let (events, receiver) = mpsc::unbounded_channel();
            let turn = Turn { call: message.clone(), session, events, state: Arc::clone(&state) };
            tokio::spawn((state.handler)(turn));
            stream(receiver)
        }
        Some(method) if message.get("id").is_some() => {
            let error = json!({ "code": -32601, "message": format!("no {method}") });
            let mut response =
                raw("application/json", json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }).to_string());
            if method == "server/discover" {
                *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
            }
            response
        }
        Some(_) => empty(202),
        None => {
            let waiting = state.waiting.lock().unwrap().remove(message["id"].as_str().unwrap_or_default());
            if let Some(waiting) = waiting {
                let _ = waiting.send(message);
            }
            empty(202)
        }
    }
}

fn stream(receiver: mpsc::UnboundedReceiver<String>) -> Response<Body> {
    let chunks = futures_util::stream::unfold(receiver, |mut receiver| async move {
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(receiver.recv().await?)), receiver))
    });
    raw("text/event-stream", Body::from_stream(chunks))
}

fn empty(status: u16) -> Response<Body> {
    Response::builder().status(status).body(Body::empty()).unwrap()
}
