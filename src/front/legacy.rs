//! The legacy era (2025-03-26, 2025-06-18, 2025-11-25): `initialize`, sessions, a stream of their own.
//!
//! Decides nothing about rights: the session says what the client said of itself, every request brings its
//! own token. Invariant: a call goes on when its client disconnects, and stops on `notifications/cancelled`.

use std::sync::Arc;

use axum::body::Body;
use http::header::{ACCEPT, HeaderMap, HeaderValue};
use http::{Response, StatusCode};

use super::answer::{self, About};
use super::ongoing::Ongoing;
use super::pipeline::Pipeline;
use super::questions::Interview;
use super::resume::Start;
use super::session::Session;
use super::track::{EventId, OWN_STREAM};
use super::{Front, Inbound, Outside, headers, is_request, relay, resume};
use crate::call::{ClientFacts, Endpoint, Request};
use crate::gateway::sessions::Since;
use crate::ids::{PrincipalKey, ReplicaId};
use crate::limit;
use crate::outcome::{Outcome, Reason, Refusal, Stop, reply};
use crate::upstream::Event;
use crate::wire::mcp::{Era, LogLevel, Method, Version, header, meta};
use crate::wire::{Json, Kind, Message, Value};

/// Answers one legacy message.
pub(super) async fn post<P: Pipeline>(
    front: &Front<P>,
    outside: &Outside,
    inbound: Box<Inbound<P>>,
    version_header: Option<&str>,
) -> Response<Body> {
    let name = inbound.message.method();
    let known = Method::parse(&name, Era::Legacy).filter(|method| is_served(*method));
    let method = known.or_else(|| Method::extension(&name));
    drop(name);
    let endpoint = inbound.endpoint.clone();
    let id = inbound.id.clone();
    let about = About { names: &outside.names, endpoint: &endpoint, id: id.as_ref(), method, era: Era::Legacy };
    if method == Some(Method::Initialize)
        && let Some(id) = &id
    {
        return match Box::pin(initialize(front, outside, inbound, id)).await {
            Ok(response) => response,
            Err(stop) => about.stopped(stop),
        };
    }
    let stated = (&inbound.headers, inbound.via);
    let session = match session(front, &inbound.caller, &endpoint, stated, version_header).await {
        Ok(session) => session,
        Err(stop) => return about.stopped(stop),
    };
    if !is_request(&inbound.message) {
        match inbound.message.kind() {
            Kind::Result | Kind::Error => {
                front.questions.answered(session.key, inbound.message, inbound.caller);
            }
            _ => told(front, &session, inbound).await,
        }
        return answer::empty(StatusCode::ACCEPTED);
    }
    let (Some(method), Some(id)) = (method, id.clone()) else {
        return about.stopped(Refusal::new(Reason::MethodUnknown));
    };
    if method == Method::Ping {
        return answer::result(&id, &Json::of(&serde_json::json!({})));
    }
    if method == Method::SetLogLevel {
        let Some(level) = log_level(&inbound.message) else {
            return about.stopped(Refusal::new(Reason::ParametersInvalid).hint("send one of the eight log levels"));
        };
        let since = Since { level: Some(level.as_str().to_owned()), ..Since::default() };
        if let Err(stop) = front.keep(&inbound.caller, &session, &since).await {
            return about.stopped(stop);
        }
        front.sessions.set_log_level(session.key, level);
        return answer::result(&id, &Json::of(&serde_json::json!({})));
    }
    if matches!(method, Method::Subscribe | Method::Unsubscribe) {
        return match Box::pin(subscription(front, &inbound, &session, method)).await {
            Ok(outcome) => answer::reply(&reply::reply(&outcome, &id, method, Era::Legacy), &outside.names, &endpoint),
            Err(stop) => about.stopped(stop),
        };
    }
    let mandate = match headers::mandate(&inbound.headers, &inbound.message) {
        Ok(mandate) => mandate,
        Err(refusal) => return about.stopped(refusal),
    };
    let client = client(front, &session, &inbound);
    let mut request = Request {
        message: inbound.message,
        method,
        endpoint: inbound.endpoint,
        client,
        header_parameters: Vec::new(),
        headers: outside.forwarded(&inbound.headers),
        peer: inbound.peer,
        mandate,
        via: inbound.via,
        last_words: None,
    };
    if let Method::List(kind) = method {
        return match front.pipeline.list(&inbound.caller, &request, kind).await {
            Ok(result) => answer::listed(about, &id, &result, &inbound.held),
            Err(stop) => about.told(stop),
        };
    }
    let registration = match front.sessions.register(session.key, &id) {
        Ok(registration) => registration,
        Err(refusal) => return about.stopped(refusal),
    };
    request.last_words = Some(registration.last_words.clone());
    // Of a session of another replica: what its client comes back to later says where it is.
    let at = (!session.is_own).then_some(front.replica);
    let place = (&front.tracks, P::principal(&inbound.caller), session.key, at);
    let interview = Interview {
        pipeline: Arc::clone(&front.pipeline),
        caller: inbound.caller,
        request,
        questions: Arc::clone(&front.questions),
        mailboxes: Arc::clone(&front.mailboxes),
        session: (session.key, session.is_own),
    };
    let mut ongoing = Ongoing::legacy(interview, registration);
    let was_decided = ongoing.decided().await;
    let first = match session.version {
        // Only these know how to come back to a stream that said nothing yet (SEP-1699).
        Version::V2025_11_25 => tokio::time::timeout(limit::CALL_STREAM_AFTER, ongoing.next()).await.ok(),
        _ => Some(ongoing.next().await),
    };
    match first {
        Some(Some(Event::Done(outcome))) => {
            answer::reply(&reply::reply(&outcome, &id, method, Era::Legacy), &outside.names, &endpoint)
        }
        Some(Some(Event::Notification(first))) => {
            answer::events(resume::of_call(Start::Said(&first), ongoing, id, method, place, session.version))
        }
        Some(Some(Event::StreamClosed)) => {
            answer::events(resume::of_call(Start::Closed, ongoing, id, method, place, session.version))
        }
        Some(None) if was_decided => about.told(Refusal::new(Reason::Cancelled)),
        // Nothing behind the front knows of it.
        Some(None) => about.stopped(Refusal::new(Reason::Cancelled)),
        None => answer::events(resume::of_call(Start::Silent, ongoing, id, method, place, session.version)),
    }
}

/// What the client said of itself; of a session of another replica that one has said from which level on it wants log messages.
fn client<P: Pipeline>(front: &Front<P>, session: &Session, inbound: &Inbound<P>) -> ClientFacts {
    let client = front.sessions.client(session);
    let handed = inbound.via.and_then(|_| relay::handed_level(&inbound.headers));
    match handed {
        Some(level) => ClientFacts { log_level: Some(Json::of(level.as_str())), ..client },
        None => client,
    }
}

/// GET: the session's stream of notifications that belong to no call, or the stream of a call that is read on. A replica
/// that hands a request on for a session of its own may come back to the stream of that request, and to no other.
pub(super) async fn open_stream<P: Pipeline>(
    front: &Front<P>,
    outside: &Outside,
    caller: &P::Caller,
    endpoint: &Endpoint,
    (request_headers, via): (&HeaderMap, Option<ReplicaId>),
) -> Response<Body> {
    let about = About { names: &outside.names, endpoint, id: None, method: None, era: Era::Legacy };
    let accepts = request_headers.get_all(ACCEPT).iter().filter_map(|value| value.to_str().ok());
    if !accepts.into_iter().any(|value| value.contains("text/event-stream") || value.contains("*/*")) {
        return answer::untold(answer::empty(StatusCode::NOT_ACCEPTABLE), Reason::RequestInvalid);
    }
    let version = headers::single(request_headers, header::PROTOCOL_VERSION).ok().flatten();
    let last = headers::single(request_headers, header::LAST_EVENT_ID).ok().flatten().and_then(EventId::parse);
    let of_call = last.filter(|last| last.track != OWN_STREAM);
    let stated = (request_headers, via.filter(|_| of_call.is_some()));
    let session = match session(front, caller, endpoint, stated, version).await {
        Ok(session) => session,
        Err(stop) => return about.stopped(stop),
    };
    if let Some(last) = of_call {
        // Another replica's numbers say nothing here.
        let is_here = last.at.is_none_or(|at| at == front.replica);
        return match front.tracks.find(session.key, last.track).filter(|_| is_here) {
            Some(track) => answer::events(resume::of_rest(track.read(Some(last.number)), session.version)),
            None => about.stopped(Refusal::new(Reason::RequestInvalid).hint("this stream is not kept any more")),
        };
    }
    let client = front.sessions.client(&session);
    match front.mailboxes.open(&front.pipeline, &front.tracks, caller, endpoint, (&session, &client)).await {
        Ok(mailbox) => {
            let lease = front.sessions.take_stream(session.key);
            let reader = mailbox.track.read(last.map(|last| last.number));
            answer::events(resume::of_session(reader, mailbox.attend(), lease, session.version))
        }
        Err(stop) => about.stopped(stop),
    }
}

/// DELETE: the client ends its session, for good before it is told so.
pub(super) async fn end_session<P: Pipeline>(
    front: &Front<P>,
    outside: &Outside,
    caller: &P::Caller,
    endpoint: &Endpoint,
    request_headers: &HeaderMap,
) -> Response<Body> {
    let version = headers::single(request_headers, header::PROTOCOL_VERSION).ok().flatten();
    let about = About { names: &outside.names, endpoint, id: None, method: None, era: Era::Legacy };
    let session = match session(front, caller, endpoint, (request_headers, None), version).await {
        Ok(session) => session,
        Err(stop) => return about.stopped(stop),
    };
    if let Err(stop) = front.keep(caller, &session, &Since { ended: true, ..Since::default() }).await {
        return about.stopped(stop);
    }
    front.sessions.end(session.key);
    front.mailboxes.end(session.key);
    answer::empty(StatusCode::NO_CONTENT)
}

async fn initialize<P: Pipeline>(
    front: &Front<P>,
    outside: &Outside,
    inbound: Box<Inbound<P>>,
    id: &Json,
) -> Result<Response<Body>, Stop> {
    let wrong = |hint: &'static str| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
    let message = &inbound.message;
    let params = message.params().ok_or_else(|| wrong("send params"))?;
    let requested = params.get("protocolVersion").and_then(Value::as_str);
    let requested = requested.ok_or_else(|| wrong("send protocolVersion, as a string"))?;
    let capabilities = params.get("capabilities").filter(|value| value.as_object().is_some());
    let capabilities = capabilities.ok_or_else(|| wrong("send capabilities, as an object"))?;
    let info = params.get("clientInfo").filter(|value| value.as_object().is_some());
    let version = negotiated(&requested);
    let client = ClientFacts {
        version,
        capabilities: message.cut(capabilities),
        info: info.map(|info| message.cut(info)),
        log_level: None,
    };
    let request = Request {
        message: message.clone(),
        method: Method::Initialize,
        endpoint: inbound.endpoint,
        client,
        header_parameters: Vec::new(),
        headers: outside.forwarded(&inbound.headers),
        peer: inbound.peer,
        mandate: None,
        via: inbound.via,
        last_words: None,
    };
    let result = front.pipeline.initialize(&inbound.caller, &request, version).await?;
    let holder = front.pipeline.holder(&inbound.caller);
    let session = front.sessions.begin(&holder, &request.endpoint, &request.client)?;
    let mut response = answer::result(id, &result);
    if let Ok(session) = HeaderValue::from_str(&session) {
        response.headers_mut().insert(header::SESSION_ID, session);
    }
    Ok(response)
}

/// The version asked for if it has `initialize`, the newest that has it otherwise.
fn negotiated(requested: &str) -> Version {
    let [newest, ..] = Version::LEGACY;
    Version::parse(requested).filter(|version| version.era() == Era::Legacy).unwrap_or(newest)
}

/// The session that a request names, and whose version its header must name, if it has one (Gemini CLI
/// sends none). Of another replica's it is that replica which handed it on.
pub(super) async fn session<P: Pipeline>(
    front: &Front<P>,
    caller: &P::Caller,
    endpoint: &Endpoint,
    (request_headers, via): (&HeaderMap, Option<ReplicaId>),
    version_header: Option<&str>,
) -> Result<Session, Stop> {
    let Ok(Some(id)) = headers::single(request_headers, header::SESSION_ID) else {
        let hint = "send the Mcp-Session-Id of initialize, or the _meta of 2026-07-28";
        return Err(Refusal::new(Reason::RequestInvalid).hint(hint).into());
    };
    let session = front.alive(P::principal(caller), endpoint, id, via).await?;
    let session = session.ok_or_else(|| Refusal::new(Reason::SessionUnknown))?;
    match version_header {
        Some(version) if version != session.version.as_str() => {
            let hint = "the MCP-Protocol-Version header differs from what initialize settled";
            Err(Refusal::new(Reason::RequestInvalid).hint(hint).into())
        }
        _ => Ok(session),
    }
}

impl<P: Pipeline> Front<P> {
    /// The session of that id, if it is alive; the store is asked of one that this process sees for the first time.
    pub(super) async fn alive(
        &self,
        principal: PrincipalKey,
        endpoint: &Endpoint,
        id: &str,
        via: Option<ReplicaId>,
    ) -> Result<Option<Session>, Stop> {
        let Some(session) = self.sessions.open(principal, endpoint, id, via) else { return Ok(None) };
        if self.sessions.is_unseen(&session) {
            let since = self.pipeline.session(&session.key.name()).await?;
            // What was subscribed to is gone with the process that heard of it: silence would be taken for no news.
            let ended = since.ended || (since.subscribed && !self.mailboxes.knows(session.key));
            let since = Since { ended, ..since };
            if !self.sessions.learn(session.key, since) {
                return Ok(None);
            }
        }
        // The same where nobody has read for so long that it was forgotten.
        if session.subscribed && !self.mailboxes.knows(session.key) {
            return Ok(None);
        }
        Ok(Some(session))
    }

    /// Keeps what has changed in a session, unless that is known of it.
    async fn keep(&self, caller: &P::Caller, session: &Session, since: &Since) -> Result<(), Stop> {
        let known = self.sessions.since(session.key);
        if known.with(since) == *known {
            return Ok(());
        }
        self.pipeline.keep_session(caller, &session.key.name(), since, session.ends_us()).await
    }
}

/// Begins or ends to hear of a resource, on the session's own stream; what its upstream is asked is a call.
async fn subscription<P: Pipeline>(
    front: &Front<P>,
    inbound: &Inbound<P>,
    session: &Session,
    method: Method,
) -> Result<Outcome, Stop> {
    let uri = inbound.message.params().and_then(|params| params.get("uri")).and_then(Value::as_str);
    let Some(uri) = uri.filter(|uri| !uri.is_empty()) else {
        return Err(Refusal::new(Reason::ParametersInvalid).hint("send uri, as a string").into());
    };
    if method == Method::Unsubscribe {
        if let Some(mailbox) = front.mailboxes.remembered(session.key) {
            mailbox.unsubscribe(uri.into_owned()).await;
            // Another request may have subscribed to something meanwhile.
            mailbox.settle(|any| {
                if !any {
                    front.sessions.has_unsubscribed(session.key);
                }
            });
        }
        return Ok(Outcome::Complete(Json::of(&serde_json::json!({}))));
    }
    let (caller, endpoint) = (&inbound.caller, &inbound.endpoint);
    let client = front.sessions.client(session);
    let place = (session, &client);
    let mailbox = front.mailboxes.open(&front.pipeline, &front.tracks, caller, endpoint, place).await?;
    let outcome = mailbox.subscribe(uri.clone().into_owned()).await;
    if matches!(outcome, Outcome::Complete(_)) {
        let subscribed = Since { subscribed: true, ..Since::default() };
        if let Err(stop) = front.keep(caller, session, &subscribed).await {
            mailbox.unsubscribe(uri.into_owned()).await;
            return Err(stop);
        }
        // Or have unsubscribed from this, before its client knew of it.
        mailbox.settle(|any| {
            if any {
                front.sessions.has_subscribed(session.key);
            }
        });
    }
    Ok(outcome)
}

/// Does what a notification of a client asks for; those that are not known here change nothing.
async fn told<P: Pipeline>(front: &Front<P>, session: &Session, inbound: Box<Inbound<P>>) {
    let message = &inbound.message;
    match &*message.method() {
        "notifications/cancelled" => {
            if let Some(params) = message.params()
                && let Some(id) = params.get("requestId")
            {
                let reason = params.get("reason").and_then(Value::as_str);
                front.sessions.cancel(session.key, id, reason.as_deref());
            }
        }
        "notifications/roots/list_changed" => {
            let client = front.sessions.client(session);
            let telling = Arc::clone(&front.pipeline).roots_changed(inbound.caller, inbound.endpoint, client);
            // Servers take their time, and nobody waits for that.
            tokio::spawn(telling);
        }
        "notifications/progress" => {
            let token = message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN));
            let asked = token.and_then(|token| front.questions.reported(session.key, token));
            if let (Some((parked, key)), Some(said)) = (asked, message.body()) {
                // Waited for, so that a client has no more of them on their way than it has requests.
                front.pipeline.report(&inbound.caller, (parked, &key), &said).await;
            }
        }
        _ => {}
    }
}

fn log_level(message: &Message) -> Option<LogLevel> {
    let level = message.params()?.get("level")?;
    LogLevel::parse(&level.as_str()?)
}

/// The methods that are answered.
const fn is_served(method: Method) -> bool {
    matches!(
        method,
        Method::Initialize
            | Method::Ping
            | Method::SetLogLevel
            | Method::List(_)
            | Method::CallTool
            | Method::GetPrompt
            | Method::ReadResource
            | Method::Complete
            | Method::Subscribe
            | Method::Unsubscribe
            | Method::TaskGet
            | Method::TaskCancel
            | Method::TaskResult
            | Method::TaskList
    )
}
