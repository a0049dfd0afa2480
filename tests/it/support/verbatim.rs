//! An upstream of either era and transport that says exactly the bytes that a test wrote, and keeps the bytes that
//! reached it: what no parser of ours or of the tests has touched.

use std::sync::{Arc, Mutex};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response, StatusCode, Uri};
use axum::routing::any;
use serde_json::value::RawValue;
use tokio::sync::{Notify, mpsc, watch};

use super::gateway::Setup;
use super::scripted::raw;

/// A running upstream over HTTP, whose session nobody checks.
pub struct Verbatim {
    pub url: String,
    shared: Arc<Shared>,
}

/// One message that reached it.
#[derive(Debug, Clone)]
pub struct Heard {
    /// Empty for a response.
    pub method: String,
    /// The parameters as they came.
    pub params: String,
    /// The progress token as it came.
    pub token: String,
    pub whole: String,
}

/// What is said to a request. `TOKEN` stands for its progress token, `ID` for its id.
#[derive(Debug, Clone, Default)]
pub struct Said {
    /// Whole messages before the answer.
    pub before: Vec<String>,
    /// The answer waits until something was answered to one of them.
    pub waits: bool,
    /// The last member of the answer, with its name.
    pub answer: String,
    /// Nothing is said before this is true.
    pub until: Option<watch::Receiver<bool>>,
}

impl Said {
    /// A result and nothing else.
    pub fn result(result: &str) -> Option<Self> {
        Some(Self { answer: format!("\"result\":{result}"), ..Self::default() })
    }
}

/// What a request is answered with; nothing for a method that it does not have.
type Script = dyn Fn(&Heard) -> Option<Said> + Send + Sync;

/// What a server says of itself where a test says nothing else.
const INTRODUCTION: &str =
    r#""capabilities":{"tools":{},"prompts":{},"resources":{"subscribe":true},"completions":{},"logging":{}}"#;

struct Shared {
    legacy: bool,
    introduction: String,
    heard: Mutex<Vec<Heard>>,
    /// Everything that has come, whatever it was: first line, headers and body as text.
    arrived: Mutex<Vec<String>>,
    answered: Notify,
    script: Box<Script>,
}

#[derive(serde::Deserialize)]
struct Envelope<'a> {
    #[serde(borrow)]
    id: Option<&'a RawValue>,
    method: Option<String>,
    #[serde(borrow)]
    params: Option<&'a RawValue>,
}

#[derive(serde::Deserialize)]
struct Parameters<'a> {
    #[serde(borrow, rename = "_meta")]
    meta: Option<Meta<'a>>,
}

#[derive(serde::Deserialize)]
struct Meta<'a> {
    #[serde(borrow, rename = "progressToken")]
    token: Option<&'a RawValue>,
}

/// Every line to the upstream over HTTP, and every message that comes back, without looking at either.
const PIPE: &str = r#"
import os, sys, threading, urllib.parse, urllib.request

def carry(line):
    headers = {"content-type": "application/json", "x-environment": urllib.parse.quote(str(dict(os.environ)))}
    request = urllib.request.Request(sys.argv[1], line, headers)
    try:
        response = urllib.request.urlopen(request)
    except urllib.error.HTTPError as error:
        response = error
    for part in response:
        part = part.strip()
        if part:
            sys.stdout.buffer.write(part.removeprefix(b"data: ") + b"\n")
            sys.stdout.buffer.flush()

for line in sys.stdin.buffer:
    threading.Thread(target=carry, args=(line,), daemon=True).start()
"#;

impl Verbatim {
    /// Starts one that answers as `script` says; a method for which that is nothing it does not have.
    pub async fn start(era: &str, script: impl Fn(&Heard) -> Option<Said> + Send + Sync + 'static) -> Self {
        Self::introducing(era, INTRODUCTION, script).await
    }

    /// The same with these members in what it says of itself: capabilities, instructions.
    pub async fn introducing(
        era: &str,
        introduction: &str,
        script: impl Fn(&Heard) -> Option<Said> + Send + Sync + 'static,
    ) -> Self {
        let introduction = introduction.to_owned();
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let legacy = era == "legacy";
        let shared = Arc::new(Shared {
            legacy,
            introduction,
            heard: Mutex::default(),
            arrived: Mutex::default(),
            answered: Notify::new(),
            script: Box::new(script),
        });
        let router = axum::Router::new().route("/mcp", any(hear)).with_state(Arc::clone(&shared));
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { url, shared }
    }

    /// A gateway's files with this upstream, called `up`, over the transport.
    pub fn served(&self, setup: Setup, transport: &str) -> Setup {
        self.served_as(setup, "up", transport, "")
    }

    /// The same under another name, with further lines of the server's table.
    pub fn served_as(&self, setup: Setup, id: &str, transport: &str, more: &str) -> Setup {
        match transport {
            "stdio" => {
                let more = format!("network = true\npins = \"off\"\n{more}");
                setup.stdio_server(id, &[&super::python(), "-c", PIPE, &self.url], &more)
            }
            _ => setup.http_server(id, &self.url, &format!("pins = \"off\"\n{more}")),
        }
    }

    /// Everything that has come over HTTP; of a process, its environment and its lines as well.
    pub fn arrived(&self) -> Vec<String> {
        self.shared.arrived.lock().unwrap().clone()
    }

    /// The messages of that method that arrived; responses have none.
    pub fn heard(&self, method: &str) -> Vec<Heard> {
        self.shared.heard.lock().unwrap().iter().filter(|heard| heard.method == method).cloned().collect()
    }
}

async fn hear(
    State(shared): State<Arc<Shared>>,
    verb: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    let whole = String::from_utf8(body.to_vec()).unwrap();
    shared.arrived.lock().unwrap().push(format!("{verb} {uri}\n{headers:?}\n{whole}"));
    if verb != Method::POST {
        return Response::builder().status(StatusCode::METHOD_NOT_ALLOWED).body(Body::empty()).unwrap();
    }
    let envelope: Envelope<'_> = serde_json::from_str(&whole).unwrap();
    let params = envelope.params.map_or("{}", RawValue::get);
    let meta = serde_json::from_str::<Parameters<'_>>(params).unwrap().meta;
    let token = meta.and_then(|meta| meta.token).map_or("null", RawValue::get).to_owned();
    let method = envelope.method.clone().unwrap_or_default();
    let heard = Heard { method, params: params.to_owned(), token, whole: whole.clone() };
    shared.heard.lock().unwrap().push(heard.clone());
    let Some(id) = envelope.id.map(RawValue::get).filter(|_| envelope.method.is_some()) else {
        if envelope.method.is_none() {
            shared.answered.notify_one();
        }
        return Response::builder().status(202).body(Body::empty()).unwrap();
    };
    let introduction = &shared.introduction;
    let said = match heard.method.as_str() {
        "server/discover" if !shared.legacy => Said::result(&format!(
            r#"{{"resultType":"complete","supportedVersions":["2026-07-28"],{introduction},"ttlMs":0,"cacheScope":"private"}}"#
        )),
        "initialize" if shared.legacy => Said::result(&format!(
            r#"{{"protocolVersion":"2025-11-25",{introduction},"serverInfo":{{"name":"v","version":"1"}}}}"#
        )),
        "logging/setLevel" if shared.legacy => Said::result("{}"),
        "server/discover" | "initialize" => None,
        _ => (shared.script)(&heard),
    };
    let Some(said) = said else {
        let error = format!(r#"{{"jsonrpc":"2.0","id":{id},"error":{{"code":-32601,"message":"Method not found"}}}}"#);
        let mut response = raw("application/json", error);
        *response.status_mut() = StatusCode::NOT_FOUND;
        return response;
    };
    if let Some(mut until) = said.until {
        let _ = until.wait_for(|is_time| *is_time).await;
    }
    let answer = format!(r#"{{"jsonrpc":"2.0","id":{id},{}}}"#, said.answer);
    if said.before.is_empty() {
        return raw("application/json", answer);
    }
    let (sender, receiver) = mpsc::unbounded_channel();
    let before: Vec<String> =
        said.before.iter().map(|event| event.replace("TOKEN", &heard.token).replace("ID", id)).collect();
    tokio::spawn(async move {
        for event in before {
            let _ = sender.send(format!("data: {event}\n\n"));
        }
        if said.waits {
            shared.answered.notified().await;
        }
        let _ = sender.send(format!("data: {answer}\n\n"));
    });
    let chunks = futures_util::stream::unfold(receiver, |mut receiver: mpsc::UnboundedReceiver<String>| async move {
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(receiver.recv().await?)), receiver))
    });
    raw("text/event-stream", Body::from_stream(chunks))
}
