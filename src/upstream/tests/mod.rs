//! Upstreams that behave as real ones do, well and badly, over real sockets.
#![expect(clippy::needless_pass_by_value, reason = "a test reads better without references to literals")]

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::response::Response;
use http::{HeaderMap, Method};
use serde_json::{Value, json};

use super::{Access, Change, Dispatch, Event, Exchange, Upstreams};
use crate::config::{
    Config, CredentialConfig, Durability, GatewayConfig, HealthConfig, Isolation, ListAs, Prefix, QuotaConfig,
    ReloadMode, ServerConfig, TransportConfig,
};
use crate::delegate::CredentialHeader;
use crate::ids::{AuthorizationContext, Digest, Environment, PrincipalKey, ServerId};
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::{Json, Message, Outgoing};

mod legacy;
mod modern;
mod oldest;
mod real;
mod stdio;

/// One request as a fake upstream saw it.
#[derive(Debug, Clone)]
struct Seen {
    verb: Method,
    /// Path and query.
    target: String,
    headers: HeaderMap,
    body: Value,
}

impl Seen {
    fn method(&self) -> &str {
        self.body["method"].as_str().unwrap_or("")
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// A JSON answer with this result.
    fn result(&self, result: Value) -> Response {
        json_answer(200, json!({ "jsonrpc": "2.0", "id": self.body["id"], "result": result }))
    }

    fn error(&self, status: u16, code: i64) -> Response {
        json_answer(
            status,
            json!({ "jsonrpc": "2.0", "id": self.body["id"], "error": { "code": code, "message": "m" } }),
        )
    }
}

fn json_answer(status: u16, body: Value) -> Response {
    let answer = Response::builder().status(status).header("content-type", "application/json");
    answer.body(Body::from(body.to_string())).unwrap()
}

fn empty(status: u16) -> Response {
    Response::builder().status(status).body(Body::empty()).unwrap()
}

/// A stream of these chunks; `None` never ends it.
fn stream(chunks: Vec<Option<String>>) -> Response {
    let body = futures_util::stream::unfold(chunks.into_iter(), |mut chunks| async move {
        match chunks.next()? {
            Some(chunk) => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), chunks))
            }
            None => std::future::pending().await,
        }
    });
    Response::builder().status(200).header("content-type", "text/event-stream").body(Body::from_stream(body)).unwrap()
}

fn event(message: &Value) -> Option<String> {
    Some(format!("data: {message}\n\n"))
}

/// An upstream that answers as a test says, and what it saw.
struct Fake {
    address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    async fn start<F, R>(answer: F) -> Self
    where
        F: Fn(Seen) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response> + Send,
    {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        Self::on(listener, answer)
    }

    fn on<F, R>(listener: tokio::net::TcpListener, answer: F) -> Self
    where
        F: Fn(Seen) -> R + Clone + Send + Sync + 'static,
        R: Future<Output = Response> + Send,
    {
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Mutex::new(Vec::new()));
        let record = Arc::clone(&seen);
        let router =
            axum::Router::new().fallback(move |verb: Method, uri: http::Uri, headers: HeaderMap, body: Bytes| {
                let (answer, record) = (answer.clone(), Arc::clone(&record));
                async move {
                    let body = serde_json::from_slice(&body).unwrap_or(Value::Null);
                    let request = Seen { verb, target: uri.to_string(), headers, body };
                    record.lock().unwrap().push(request.clone());
                    answer(request).await
                }
            });
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, seen }
    }

    fn transport(&self) -> TransportConfig {
        http_transport(self.address)
    }

    fn seen(&self, method: &str) -> Vec<Seen> {
        self.seen.lock().unwrap().iter().filter(|seen| seen.method() == method).cloned().collect()
    }

    async fn saw(&self, what: impl Fn(&Seen) -> bool) -> Seen {
        for _ in 0..400 {
            if let Some(seen) = self.seen.lock().unwrap().iter().find(|seen| what(seen)) {
                return seen.clone();
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("it was never seen; seen was {:?}", self.seen.lock().unwrap());
    }
}

fn http_transport(address: SocketAddr) -> TransportConfig {
    TransportConfig::Http { url: format!("http://{address}/mcp").parse().unwrap(), allow_private: true }
}

fn id() -> ServerId {
    ServerId::new("s").unwrap()
}

pub(super) fn patient() -> HealthConfig {
    HealthConfig {
        connect_timeout: Duration::from_secs(5),
        first_byte_timeout: Duration::from_secs(5),
        idle_timeout: Duration::from_secs(5),
        call_timeout: Duration::from_secs(10),
        input_timeout: Duration::from_secs(10),
        calls_in_flight_max: 16,
    }
}

fn entry(transport: TransportConfig) -> ServerConfig {
    ServerConfig {
        id: id(),
        title: None,
        owner: "user:demo/ada".to_owned(),
        review: None,
        expires: None,
        environment: Environment::new("development").unwrap(),
        transport,
        credential: CredentialConfig::None,
        tool_credentials: BTreeMap::new(),
        tool_budgets: BTreeMap::new(),
        prefix: Prefix::Server,
        list_as: ListAs::Gateway,
        isolation: Isolation::Principal,
        pins: crate::config::PinMode::Off,
        on_down: Duration::from_secs(600),
        list_refresh_min: Duration::from_secs(1),
        uris: Vec::new(),
        health: patient(),
        forward_headers: Vec::new(),
        discoverable: false,
        elicit_url_hosts: Vec::new(),
        redact: Vec::new(),
        idempotent: Vec::new(),
        intent_required: Vec::new(),
    }
}

fn config(servers: Vec<ServerConfig>) -> Config {
    Config {
        gateway: GatewayConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            public_url: "http://127.0.0.1:1".parse().unwrap(),
            state: std::env::temp_dir(),
            store: crate::config::StoreConfig::Sqlite,
            allowed_origins: Vec::new(),
            allowed_hosts: Vec::new(),
            trusted_proxies: Vec::new(),
            tls: None,
            client_ca: None,
            client_certificate_header: None,
            dpop: crate::config::DpopMode::Proof,
            allow_loopback_issuers: false,
            reload: ReloadMode::Signal,
            durability: Durability::Os,
            shutdown_grace: Duration::from_secs(1),
        },
        cluster: None,
        record: crate::config::RecordConfig::fixture(),
        keys: crate::config::KeysConfig::default(),
        telemetry: None,
        exports: Vec::new(),
        feeds: Vec::new(),
        quota: QuotaConfig {
            requests_per_second: 1,
            requests_burst: 1,
            calls_in_flight_max: 1,
            streams_max: 1,
            refusals_per_second: 10,
            refusals_burst: 10,
        },
        issuers: Vec::new(),
        anonymous: false,
        local: None,
        admin: None,
        servers: servers.into_iter().map(Arc::new).collect(),
        environments: Vec::new(),
        agents: BTreeMap::new(),
        pins: Arc::default(),
        attest_every: crate::limit::ATTEST_EVERY,
        breaker: crate::config::BreakerConfig::default(),
        templates: std::collections::BTreeMap::new(),
        gates: Vec::new(),
        break_glass: Vec::new(),
        webhooks: Vec::new(),
        policies: PathBuf::new(),
        file: PathBuf::from("/nonexistent/servers.toml"),
    }
}

fn upstreams(entry: ServerConfig) -> Arc<Upstreams> {
    Upstreams::new(&config(vec![entry]))
}

fn principal(number: u8) -> PrincipalKey {
    PrincipalKey(Digest::sha256(&[number]))
}

fn tool_call(name: &str, arguments: Value) -> Outgoing {
    let params = json!({ "name": name, "arguments": arguments,
        "_meta": { "io.modelcontextprotocol/clientCapabilities": { "sampling": {} },
            "io.modelcontextprotocol/logLevel": "info" } });
    Outgoing {
        method: "tools/call".to_owned(),
        params: Json::of(&params),
        name: Some(name.to_owned()),
        header_parameters: Vec::new(),
        headers: Vec::new(),
        progress_token: None,
        last_words: None,
        process: None,
    }
}

fn dispatch(caller: u8, outgoing: Outgoing) -> Dispatch {
    Dispatch {
        server: id(),
        made_for: None,
        context: AuthorizationContext::Gateway,
        principal: principal(caller),
        credential: None,
        leg: None,
        outgoing,
    }
}

/// Calls the tool `t` as a caller and waits for the end.
async fn call(upstreams: &Upstreams, caller: u8) -> Outcome {
    outcome(upstreams.send(dispatch(caller, tool_call("t", json!({}))))).await
}

async fn outcome(exchange: Exchange) -> Outcome {
    ending(exchange).await.1
}

/// The notifications and the end; hangs are failures.
async fn ending(mut exchange: Exchange) -> (Vec<Message>, Outcome) {
    let mut notifications = Vec::new();
    let all = async {
        loop {
            match exchange.next().await {
                Event::Notification(message) => notifications.push(message),
                Event::StreamClosed => {}
                Event::Done(outcome) => return outcome,
            }
        }
    };
    let outcome = tokio::time::timeout(Duration::from_secs(20), all).await.expect("it hangs");
    (notifications, outcome)
}

fn completed(outcome: Outcome) -> Value {
    match outcome {
        Outcome::Complete(result) => serde_json::from_str(result.as_str()).unwrap(),
        other => panic!("not complete: {other:?}"),
    }
}

fn failed(outcome: Outcome) -> Failure {
    match outcome {
        Outcome::Failed(failure) => failure,
        other => panic!("not failed: {other:?}"),
    }
}

async fn next_change(changes: &mut tokio::sync::broadcast::Receiver<Change>, wanted: &Change) {
    let wait = async { while changes.recv().await.unwrap() != *wanted {} };
    tokio::time::timeout(Duration::from_secs(10), wait).await.expect("the change never came");
}

fn discovered() -> Value {
    json!({ "resultType": "complete", "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} },
        "ttlMs": 0, "cacheScope": "private", "instructions": "be kind",
        "_meta": { "io.modelcontextprotocol/serverInfo": { "name": "fake", "version": "1" } } })
}

/// A modern upstream whose tool calls are answered as a test says.
async fn modern_fake<F, R>(answer: F) -> Fake
where
    F: Fn(Seen) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    Fake::start(move |seen| {
        let answer = answer.clone();
        async move {
            match seen.method() {
                "server/discover" => seen.result(discovered()),
                _ => answer(seen).await,
            }
        }
    })
    .await
}

/// A reason and whether the upstream may have acted.
fn told(outcome: Outcome) -> (Reason, bool) {
    let failure = failed(outcome);
    (failure.reason, failure.may_have_acted)
}
