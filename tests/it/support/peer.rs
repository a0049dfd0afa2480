//! An upstream of either era whose every answer a test scripts, and which remembers what reached it.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Response, StatusCode};
use axum::routing::post;
use serde_json::{Value, json};

/// What a request is answered with: a result, or an error.
pub type Answer = Result<Value, Value>;

/// One request that reached it.
#[derive(Debug, Clone)]
pub struct Reached {
    pub method: String,
    /// The `Mcp-Name` header.
    pub name: String,
    pub params: Value,
}

/// A running upstream.
pub struct Peer {
    pub url: String,
    shared: Arc<Shared>,
}

struct Shared {
    legacy: bool,
    capabilities: Value,
    tools: Value,
    reached: Mutex<Vec<Reached>>,
    told: tokio::sync::broadcast::Sender<(&'static str, Value)>,
    script: Box<dyn Fn(&Reached) -> Answer + Send + Sync>,
}

impl Peer {
    /// A server of 2026-07-28 with these capabilities besides `tools`.
    pub async fn modern(
        capabilities: Value,
        tools: Value,
        script: impl Fn(&Reached) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(false, capabilities, tools, Box::new(script)).await
    }

    /// A server of 2025-11-25.
    pub async fn legacy(
        capabilities: Value,
        tools: Value,
        script: impl Fn(&Reached) -> Answer + Send + Sync + 'static,
    ) -> Self {
        Self::start(true, capabilities, tools, Box::new(script)).await
    }

    async fn start(
        legacy: bool,
        mut capabilities: Value,
        tools: Value,
        script: Box<dyn Fn(&Reached) -> Answer + Send + Sync>,
    ) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        capabilities["tools"] = json!({});
        let (told, _) = tokio::sync::broadcast::channel(16);
        let shared = Arc::new(Shared { legacy, capabilities, tools, reached: Mutex::default(), told, script });
        let router = axum::Router::new().route("/mcp", post(answer).get(own_stream)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    /// Tells those who listen, if anybody does, of a task.
    pub fn tell(&self, task: Value) {
        let _ = self.shared.told.send(("notifications/tasks", task));
    }

    /// The same as servers of 2025-11-25 tell it.
    pub fn tell_status(&self, task: Value) {
        let _ = self.shared.told.send(("notifications/tasks/status", task));
    }

    /// Tells how far a task is.
    pub fn tell_progress(&self, progress: Value) {
        let _ = self.shared.told.send(("notifications/progress", progress));
    }

    /// The requests of that method that arrived.
    pub fn reached(&self, method: &str) -> Vec<Reached> {
        let reached = self.shared.reached.lock().unwrap();
        reached.iter().filter(|request| request.method == method).cloned().collect()
    }
}

/// An error with that code.
pub fn error(code: i64, message: &str) -> Answer {
    Err(json!({ "code": code, "message": message }))
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let message: Value = serde_json::from_slice(&body).unwrap();
    let header = |name: &str| headers.get(name).map_or("", |value| value.to_str().unwrap()).to_owned();
    let request = Reached {
        method: message["method"].as_str().unwrap_or_default().to_owned(),
        name: header("mcp-name"),
        params: message["params"].clone(),
    };
    shared.reached.lock().unwrap().push(request.clone());
    if message.get("id").is_none() {
        return Response::builder().status(202).body(Body::empty()).unwrap();
    }
    if request.method == "subscriptions/listen" && !shared.legacy {
        return listened(&shared, &message);
    }
    let caching = |mut value: Value| {
        value["resultType"] = json!("complete");
        value["ttlMs"] = json!(0);
        value["cacheScope"] = json!("private");
        value
    };
    let answered = match request.method.as_str() {
        "server/discover" if !shared.legacy => {
            Ok(caching(json!({ "supportedVersions": ["2026-07-28"], "capabilities": shared.capabilities })))
        }
        "initialize" if shared.legacy => Ok(json!({ "protocolVersion": "2025-11-25",
            "capabilities": shared.capabilities, "serverInfo": { "name": "peer", "version": "1" } })),
        "tools/list" => Ok(caching(json!({ "tools": shared.tools }))),
        "server/discover" | "initialize" => error(-32601, "Method not found"),
        _ => (shared.script)(&request),
    };
    let (status, body) = match answered {
        Ok(result) => (StatusCode::OK, json!({ "jsonrpc": "2.0", "id": message["id"], "result": result })),
        Err(error) => {
            let status = if error["code"] == -32601 { StatusCode::NOT_FOUND } else { StatusCode::OK };
            (status, json!({ "jsonrpc": "2.0", "id": message["id"], "error": error }))
        }
    };
    let mut response = Response::builder().status(status).header("content-type", "application/json");
    if shared.legacy && request.method == "initialize" {
        response = response.header("mcp-session-id", "session-1");
    }
    response.body(Body::from(body.to_string())).unwrap()
}

/// The stream of a session, on which what the test tells of tasks names no request.
async fn own_stream(State(shared): State<Arc<Shared>>) -> Response<Body> {
    if !shared.legacy {
        return Response::builder().status(StatusCode::METHOD_NOT_ALLOWED).body(Body::empty()).unwrap();
    }
    let rest = futures_util::stream::unfold(shared.told.subscribe(), |mut told| async move {
        let (method, params) = told.recv().await.ok()?;
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        Some((Ok::<_, std::io::Error>(format!("data: {message}\n\n")), told))
    });
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(rest)).unwrap()
}

/// Agrees to everything, and passes on what the test tells of tasks.
fn listened(shared: &Shared, message: &Value) -> Response<Body> {
    let id = message["id"].clone();
    let event = move |method: &str, mut params: Value| {
        params["_meta"] = json!({ "io.modelcontextprotocol/subscriptionId": id });
        let message = json!({ "jsonrpc": "2.0", "method": method, "params": params });
        Ok::<_, std::io::Error>(format!("data: {message}\n\n"))
    };
    let agreed = json!({ "notifications": message["params"]["notifications"] });
    let first = event("notifications/subscriptions/acknowledged", agreed);
    let told = shared.told.subscribe();
    let rest = futures_util::stream::unfold((told, event), |(mut told, event)| async move {
        let (method, task) = told.recv().await.ok()?;
        Some((event(method, task), (told, event)))
    });
    let body = futures_util::StreamExt::chain(futures_util::stream::once(async move { first }), rest);
    Response::builder().header("content-type", "text/event-stream").body(Body::from_stream(body)).unwrap()
}
