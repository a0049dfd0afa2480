//! One message out over HTTP, and what comes back.
//!
//! Keeps the legacy session that `initialize` began. Invariant: every request is answered exactly once,
//! with what the gateway answered or with the reason why it did not.

use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderValue};
use http::{Method as Verb, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt as _, Full};
use tokio::sync::mpsc;
use url::Url;

use super::super::output::trouble;
use super::mirror::Mirrors;
use super::way::{Body, Way};
use super::{error, headers};
use crate::limit;
use crate::wire::mcp::{code, header};
use crate::wire::{Kind, Message, Source, Value, sse};

const EVENT_STREAM: &str = "text/event-stream";

/// The gateway at the other end.
pub(super) struct Remote {
    way: Way,
    url: Uri,
    session: Mutex<Option<Session>>,
    mirrors: Mirrors,
    /// Whether we have asked for the tools ourselves.
    listed: tokio::sync::Mutex<bool>,
}

/// What `initialize` settled.
#[derive(Clone)]
struct Session {
    id: HeaderValue,
    version: Option<HeaderValue>,
}

/// How a request was answered so far.
struct Answering<'a> {
    /// The request that is being answered; `None` on the session's own stream.
    request: Option<&'a Message>,
    lines: &'a mpsc::Sender<Message>,
    answered: bool,
    mirrors: &'a Mirrors,
    /// The gateway misses headers, and whether it may be asked again with those that it wants now.
    mismatch: Mismatch,
}

/// What became of the headers that repeat arguments.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mismatch {
    /// They were right so far.
    None,
    /// The gateway refused them before it did anything; the refusal was not passed on.
    Found,
    /// They were made anew: another refusal is the answer.
    Final,
}

impl Remote {
    /// A client of the endpoint at `url`.
    ///
    /// # Errors
    /// When the URL cannot be called.
    pub(super) fn new(url: &Url, way: Way) -> Result<Self, String> {
        let url = url.as_str().parse().map_err(|_| format!("{url} is not a URL that can be called"))?;
        let (session, mirrors, listed) = Default::default();
        Ok(Self { way, url, session, mirrors, listed })
    }

    /// Whether `initialize` began a session.
    pub(super) fn has_session(&self) -> bool {
        self.session().is_some()
    }

    /// Sends a message and passes on whatever comes back.
    pub(super) async fn exchange(&self, message: &Message, lines: &mpsc::Sender<Message>) {
        let mut answering = self.answering(Some(message), lines);
        answering.answered = message.kind() != Kind::Request;
        let problem = self.attempt(message, &mut answering).await.err();
        if let Some(problem) = &problem {
            trouble(problem);
        }
        if !answering.answered {
            let problem = problem.as_deref().unwrap_or("the gateway closed the connection before it answered");
            answering.pass(error(message.id().as_ref(), code::INTERNAL_ERROR, problem)).await;
        }
    }

    /// Sends a message and passes on whatever comes back, as long as something does.
    ///
    /// # Errors
    /// Why the gateway did not answer.
    pub(super) async fn ask(&self, message: &Message, lines: &mpsc::Sender<Message>) -> Result<(), String> {
        self.attempt(message, &mut self.answering(Some(message), lines)).await
    }

    fn answering<'a>(&'a self, request: Option<&'a Message>, lines: &'a mpsc::Sender<Message>) -> Answering<'a> {
        Answering { request, lines, answered: false, mirrors: &self.mirrors, mismatch: Mismatch::None }
    }

    async fn attempt(&self, message: &Message, answering: &mut Answering<'_>) -> Result<(), String> {
        if self.mirrors.is_unknown(message) {
            self.list_tools(message, false).await;
        }
        self.once(message, answering).await?;
        if answering.mismatch != Mismatch::Found {
            return Ok(());
        }
        // The tool has another schema than when it was listed.
        answering.mismatch = Mismatch::Final;
        self.list_tools(message, true).await;
        self.once(message, answering).await
    }

    /// Asks for the tools, as the client that makes this call, to learn which arguments are repeated in headers.
    /// Where that fails the call is sent without, and the gateway says what is missing.
    async fn list_tools(&self, call: &Message, again: bool) {
        let mut listed = self.listed.lock().await;
        if *listed && !again {
            return;
        }
        let Some(meta) = call.params().and_then(|params| params.get("_meta")) else { return };
        let mut params = format!("{{\"_meta\":{}}}", meta.raw());
        for _ in 0..limit::BRIDGE_LIST_PAGES_MAX {
            let text = format!(r#"{{"jsonrpc":"2.0","id":0,"method":"tools/list","params":{params}}}"#);
            let Ok(message) = Message::parse(text, Source::Client) else { return };
            let (lines, mut received) = mpsc::channel(limit::BRIDGE_LINES_MAX);
            let asked = async move { self.once(&message, &mut self.answering(Some(&message), &lines)).await };
            let answered = async {
                let mut answer = None;
                while let Some(message) = received.recv().await {
                    answer = Some(message).filter(|message| message.kind() == Kind::Result).or(answer);
                }
                answer
            };
            let (Ok(()), Some(answer)) = tokio::join!(asked, answered) else { return };
            *listed = true;
            let cursor = answer.body().and_then(|body| {
                let cursor = body.value().as_object()?.get("nextCursor").filter(|cursor| cursor.as_str().is_some())?;
                Some(cursor.raw().to_owned())
            });
            let Some(cursor) = cursor else { return };
            params = format!("{{\"cursor\":{cursor},\"_meta\":{}}}", meta.raw());
        }
    }

    async fn once(&self, message: &Message, answering: &mut Answering<'_>) -> Result<(), String> {
        let response = self.send(Verb::POST, Some(message)).await?;
        if message.method() == "initialize" && !headers::is_modern(message) {
            self.begin(response.headers());
        }
        self.receive(response, answering).await
    }

    /// Passes on what the gateway says in the session by itself, until it does not offer that any more.
    pub(super) async fn listen(&self, lines: &mpsc::Sender<Message>) {
        loop {
            match self.send(Verb::GET, None).await {
                Ok(response) if response.status() == StatusCode::OK => {
                    let mut passing = self.answering(None, lines);
                    let _broken_off = events(response, &mut passing).await;
                }
                // 405: not offered. Anything else will be said again to the next request.
                Ok(_) => return,
                Err(problem) => trouble(problem),
            }
            if lines.is_closed() {
                return;
            }
            tokio::time::sleep(limit::BRIDGE_STREAM_RETRY).await;
        }
    }

    /// Ends the session, if there is one.
    pub(super) async fn goodbye(&self) {
        if self.has_session() {
            let _unheard = tokio::time::timeout(limit::BRIDGE_GOODBYE_TIMEOUT, self.send(Verb::DELETE, None)).await;
        }
    }

    async fn send(&self, verb: Verb, message: Option<&Message>) -> Result<Response<Body>, String> {
        let body = message.map(|message| message.as_bytes().clone()).unwrap_or_default();
        let mut request = Request::new(Full::new(body));
        *request.uri_mut() = self.url.clone();
        let fields = request.headers_mut();
        fields.insert(
            ACCEPT,
            match verb {
                Verb::GET => HeaderValue::from_static(EVENT_STREAM),
                _ => HeaderValue::from_static("application/json, text/event-stream"),
            },
        );
        match message {
            Some(message) if headers::is_modern(message) => {
                headers::modern(message, fields);
                self.mirrors.add(message, fields);
            }
            Some(message) if message.method() == "initialize" => {}
            _ => self.name_session(fields),
        }
        if message.is_some() {
            fields.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        *request.method_mut() = verb;
        self.way.send(request).await
    }

    fn name_session(&self, fields: &mut HeaderMap) {
        let Some(session) = self.session() else { return };
        fields.insert(header::SESSION_ID, session.id);
        if let Some(version) = session.version {
            fields.insert(header::PROTOCOL_VERSION, version);
        }
    }

    async fn receive(&self, response: Response<Body>, answering: &mut Answering<'_>) -> Result<(), String> {
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(self.unauthorized(response.headers()));
        }
        let kind = response.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        if status.is_success() && kind.starts_with(EVENT_STREAM) {
            return events(response, answering).await;
        }
        let body = http_body_util::Limited::new(response.into_body(), limit::RESPONSE_BYTES_MAX).collect().await;
        let body = body.map_err(|error| format!("the gateway's answer broke off: {error}"))?.to_bytes();
        if body.is_empty() && status.is_success() {
            return Ok(());
        }
        match Message::parse(body, Source::Upstream) {
            Ok(message) => {
                self.learn(answering.request, &message);
                answering.pass(message).await;
                Ok(())
            }
            Err(_) => {
                Err(format!("the gateway answered with HTTP {status} and no message; check the URL {}", self.url))
            }
        }
    }

    /// What to do about a token that is missing or no good.
    fn unauthorized(&self, headers: &HeaderMap) -> String {
        let challenge = headers.get(http::header::WWW_AUTHENTICATE).and_then(|value| value.to_str().ok());
        let place = challenge
            .and_then(|value| value.split("resource_metadata=\"").nth(1))
            .and_then(|rest| rest.split('"').next());
        let place = place.map(|place| format!(" ({place} says where to get one)")).unwrap_or_default();
        format!("{}{place}", self.way.refused(&self.url.to_string()))
    }

    fn begin(&self, headers: &HeaderMap) {
        let session = headers.get(header::SESSION_ID).map(|id| Session { id: id.clone(), version: None });
        *self.session.lock().unwrap_or_else(PoisonError::into_inner) = session;
    }

    /// Which version `initialize` settled.
    fn learn(&self, request: Option<&Message>, answer: &Message) {
        if request.is_none_or(|request| request.method() != "initialize") || answer.kind() != Kind::Result {
            return;
        }
        let version = answer.body().and_then(|result| {
            let version = result.value().as_object()?.get("protocolVersion").and_then(Value::as_str)?;
            HeaderValue::from_str(&version).ok()
        });
        if let Some(session) = self.session.lock().unwrap_or_else(PoisonError::into_inner).as_mut() {
            session.version = version;
        }
    }

    fn session(&self) -> Option<Session> {
        self.session.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Answering<'_> {
    /// Passes a message on. An error without an id answers the request: the gateway could not read it.
    async fn pass(&mut self, message: Message) -> bool {
        let mut message = message;
        if let (Some(request), Kind::Result | Kind::Error) = (self.request, message.kind()) {
            if self.answered {
                return true;
            }
            if self.mismatch == Mismatch::None && is_mismatch(request, &message) {
                self.mismatch = Mismatch::Found;
                return true;
            }
            self.mirrors.learn(request, &message);
            self.answered = true;
            if message.id().is_none()
                && let Some(problem) = message.body()
            {
                message = Message::error(request.id().as_ref(), &problem);
            }
        }
        self.lines.send(message).await.is_ok()
    }
}

/// Whether the gateway refused a modern call because of its headers: before it did anything.
fn is_mismatch(request: &Message, answer: &Message) -> bool {
    let code = answer.body().and_then(|error| error.value().as_object()?.get("code")?.as_i64());
    answer.kind() == Kind::Error
        && code == Some(i64::from(code::HEADER_MISMATCH))
        && request.method() == "tools/call"
        && headers::is_modern(request)
}

/// Passes the messages of a stream on until it ends or nobody reads any more.
async fn events(response: Response<Body>, answering: &mut Answering<'_>) -> Result<(), String> {
    let mut body = response.into_body();
    let mut reader = sse::Reader::new(limit::RESPONSE_BYTES_MAX);
    while let Some(messages) = chunk(&mut body, &mut reader).await? {
        for message in messages {
            if !answering.pass(message).await {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// The messages that the next chunk of a stream completed; `None` at its end.
async fn chunk(body: &mut Body, reader: &mut sse::Reader) -> Result<Option<Vec<Message>>, String> {
    let Some(frame) = body.frame().await else { return Ok(None) };
    let frame = frame.map_err(|error| format!("the gateway's stream broke off: {error}"))?;
    let data: Bytes = frame.into_data().unwrap_or_default();
    let mut messages = Vec::new();
    let mut unreadable = 0_usize;
    let pushed = reader.push(&data, &mut |event| {
        // Events without data prime a reconnection.
        if event.data.is_empty() {
            return;
        }
        match Message::parse(event.data, Source::Upstream) {
            Ok(message) => messages.push(message),
            Err(_) => unreadable += 1,
        }
    });
    if unreadable > 0 {
        trouble(format_args!("{unreadable} events of the gateway were no messages and were left out"));
    }
    pushed.map_err(|error| error.to_string())?;
    Ok(Some(messages))
}
