//! Legacy sessions over streamable HTTP (2025-03-26 to 2025-11-25): `initialize`, session id, DELETE.
//!
//! Decides when a lost session may be replaced in silence. Knows nothing of who calls beyond the key of
//! a principal. Invariant: a session belongs to one key of the pool; one that carried a tool call and is lost
//! at the upstream is replaced behind nobody's back, and no call is sent again that may have been executed.
//! One that nobody used for a long time, or that has to make room, is ended by the gateway itself, and nobody is told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, HeaderValue, StatusCode};
use hyper::body::Incoming;
use tokio::sync::{broadcast, watch};

use super::Access;
use super::answer::{error_code, garbage};
use super::drive::{self, Patience};
use super::elsewhere::{self, Both, InFlight, Parts, Posted};
use super::errand::{Errand, ServerFacts};
use super::events::Events;
use super::exchange::Opened;
use super::gate::Permit;
use super::http::{Http, Outfit, Reply, refusal, refused, single};
use super::logging::{self, SessionLevel};
use super::parked::Replies;
use super::pool::{Key, Lease, PoolFull};
use super::presented::Presented;
use super::server::{Lost, Parcel, Trouble};
use super::told;
use crate::config::Isolation;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{self, Era, LogLevel, code};
use crate::wire::{Askable, LastWords, Message, cancelled};

/// One session at an upstream.
#[derive(Debug)]
pub(super) struct Session {
    id: Option<HeaderValue>,
    pub(super) facts: ServerFacts,
    /// What was presented in it last.
    access: Mutex<Presented>,
    /// A tool call was carried, so there may be state that a new session would not have.
    executed: AtomicBool,
    /// The calls in flight in it.
    pub(super) calls: Arc<InFlight>,
    /// From which level on it was asked for log messages.
    level: SessionLevel,
    /// Updates of resources and tasks that it hears of, on whichever stream.
    pub(super) updates: broadcast::Sender<Message>,
    /// Whoever reads its GET stream; servers have one for each session.
    pub(super) stream_turn: Arc<tokio::sync::Mutex<()>>,
    /// Whether a stream of its own is being read.
    pub(super) own_stream: watch::Sender<bool>,
}

/// A session in use, for what has to be said in it later.
#[derive(Clone)]
pub(super) struct Conversation {
    http: Arc<Http>,
    session: Arc<Lease<Session>>,
    access: Presented,
    /// It goes on by itself, and for no call.
    by_itself: bool,
}

/// Tells the upstream that nobody waits any more, when it is dropped.
pub(super) struct CancelNotice {
    conversation: Option<Conversation>,
    id: i64,
    last_words: Option<LastWords>,
}

impl Http {
    /// One legacy request, in the session of whoever asks.
    pub(super) async fn legacy(
        self: &Arc<Self>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Trouble> {
        let askable = self.declared_by(parcel);
        let key = self.key(&parcel.access, askable);
        let mut replaced = false;
        loop {
            let lease = self.session_for(&parcel.access, askable).await?;
            let session = Arc::clone(lease.shared());
            let is_shared = self.link.config.isolation == Isolation::Shared;
            if let Some(ids) = told::wanted(parcel, askable) {
                return Ok(told::in_session(self, lease, askable, ids, patience).await);
            }
            if !parcel.errand && self.losses.tell(&key) {
                return Err(lost_before_it());
            }
            match self.in_session(lease, parcel, askable, patience, permit).await {
                Err(Trouble::SessionLost(lost)) => {
                    let carried = session.executed.load(Ordering::Acquire) && !is_shared;
                    if parcel.errand && carried {
                        self.losses.owe(&key);
                    }
                    self.sessions.remove(&key, &session);
                    let forgettable = parcel.errand || (lost == Lost::Surely && !carried);
                    if replaced || !forgettable {
                        if !parcel.errand {
                            // This says it, whoever noticed it too.
                            self.losses.tell(&key);
                        }
                        let detail = "the upstream does not know its session any more";
                        return Err(Failure::after(Reason::UpstreamSessionLost, detail).into());
                    }
                    replaced = true;
                }
                other => return other,
            }
        }
    }

    async fn in_session(
        self: &Arc<Self>,
        lease: Lease<Session>,
        parcel: &Parcel,
        askable: Askable,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Trouble> {
        if let Some(level) = logging::wanted(&parcel.outgoing.params)
            && lease.facts.announces("logging", None)
            && lease.level.lower(level)
        {
            // Boxed, because most requests do not do this.
            Box::pin(self.set_log_level(&lease, level, &parcel.access, patience)).await;
            // Many servers say there what belongs to no stream of a call. In a shared session it could be anybody's.
            if self.link.config.isolation == Isolation::Principal {
                elsewhere::listen(self, lease.shared(), askable).await;
            }
        }
        let (mut waiting, message) = self.prepare(parcel, Era::Legacy);
        waiting.updates = Some(lease.updates.clone());
        let mut headers = self.headers(parcel, Era::Legacy)?;
        lease.mark(&mut headers)?;
        let access = Presented::new(parcel.access.clone());
        if !parcel.errand {
            lease.present(access.clone());
        }
        let session = Arc::new(lease);
        let conversation =
            Conversation { http: Arc::clone(self), session: Arc::clone(&session), access, by_itself: false };
        let last_words = waiting.last_words.clone();
        let cancel = CancelNotice { conversation: Some(conversation.clone()), id: waiting.id, last_words };
        let mut call = None;
        let posted = if !parcel.is_asked_within() {
            self.posted(&message, headers, patience).await
        } else {
            let mut entered = session.calls.enter(&waiting);
            let http = Arc::clone(self);
            let mut posting: BoxFuture<'static, _> =
                Box::pin(async move { http.posted(&message, headers, patience.unhurried()).await });
            let first = tokio::select! {
                biased;
                // Something is asked or said in the session before the answer has begun.
                Some(signal) = entered.signals.recv() => Err(signal),
                posted = &mut posting => Ok(posted),
                () = tokio::time::sleep_until(patience.first_byte) => {
                    Ok(Err(Failure::after(Reason::UpstreamTimeout, "no answer came in time")))
                }
            };
            match first {
                Ok(posted) => {
                    call = Some(entered);
                    posted
                }
                Err(signal) => {
                    session.executed.store(true, Ordering::Release);
                    let unanswered = entered.unanswered.clone();
                    let asker = parcel.asker(&self.link, askable, conversation.clone(), permit, unanswered);
                    let parts = Parts { waiting, conversation, cancel, asker: asker.clone(), permit: permit.take() };
                    let answers = Both { call: entered, answers: Posted::new(posting, parts) };
                    return Ok(drive::go_on(answers, signal, patience, asker));
                }
            }
        };
        let reply = match posted {
            // What was never sent need not be cancelled.
            Err(failure) if !failure.may_have_acted => {
                cancel.not_needed();
                return Err(failure.into());
            }
            posted => posted?,
        };
        let lost = match &reply {
            Reply::Refused(status, message) if session.id.is_some() => lost(*status, message.as_ref()),
            _ => None,
        };
        if lost != Some(Lost::Surely) && parcel.outgoing.method == "tools/call" {
            session.executed.store(true, Ordering::Release);
        }
        if let Reply::Events(body) = reply {
            let unanswered = call.as_ref().map(|call| call.unanswered.clone()).unwrap_or_default();
            let asker = parcel.asker(&self.link, askable, conversation.clone(), permit, unanswered);
            let events = Events::legacy(body, waiting, permit.take(), conversation, Some(cancel)).asking(asker.clone());
            return Ok(match call {
                Some(call) => {
                    drive::drive(Both { call, answers: events }, patience, patience.next_event(), asker).await
                }
                None => drive::drive(events, patience, patience.next_event(), asker).await,
            });
        }
        cancel.not_needed();
        Ok(Opened::Done(match reply {
            Reply::Message(message) => single(message, &waiting),
            Reply::Refused(status, message) => match lost {
                Some(lost) => return Err(Trouble::SessionLost(lost)),
                None => refusal(status, message, &waiting),
            },
            Reply::Empty | Reply::Events(_) => garbage("the answer to a request is empty"),
        }))
    }

    /// Sends a message; what its answer is.
    async fn posted(&self, message: &Message, headers: Outfit, patience: Patience) -> Result<Reply, Failure> {
        let response = self.post(message, headers, patience).await?;
        self.reply(response, patience).await
    }

    pub(super) fn key(&self, access: &Access, askable: Askable) -> Key {
        Key::of(access, self.link.config.isolation, askable)
    }

    /// What the session of a request was told at its beginning.
    pub(super) fn declared_by(&self, parcel: &Parcel) -> Askable {
        if parcel.is_for_the_catalog() { self.home(&parcel.access) } else { parcel.askable(&self.link) }
    }

    /// What was declared to the session in which the calls of whoever asks are.
    pub(super) fn home(&self, access: &Access) -> Askable {
        let key = self.key(access, Askable::NOTHING);
        let latest = if self.link.is_oldest() { self.streams.latest(&key) } else { self.sessions.latest(&key) };
        latest.unwrap_or(Askable::NOTHING)
    }

    /// The session of whoever asks; initialized if there is none.
    pub(super) async fn session_for(
        self: &Arc<Self>,
        access: &Access,
        askable: Askable,
    ) -> Result<Lease<Session>, Trouble> {
        let evict = |session: Arc<Session>| {
            let http = Arc::clone(self);
            tokio::spawn(async move {
                http.end(&session).await;
            });
        };
        match self.sessions.lease(&self.key(access, askable), self.initialize(access, askable), evict).await {
            Ok(Ok(lease)) => Ok(lease),
            Ok(Err(trouble)) => {
                // What was found out about its era may be wrong, or no longer so.
                self.link.forget_era();
                Err(trouble)
            }
            Err(PoolFull) => Err(Failure::before(Reason::UpstreamBusy, "all of its sessions are in use").into()),
        }
    }

    async fn initialize(self: &Arc<Self>, access: &Access, askable: Askable) -> Result<Arc<Session>, Trouble> {
        let patience = Patience::call(&self.link.config.health);
        let parcel = Errand::initialize(askable).parcel(access);
        let (waiting, message) = self.prepare(&parcel, Era::Legacy);
        let response = self.post(&message, self.headers(&parcel, Era::Legacy)?, patience).await?;
        let id = response.headers().get(mcp::header::SESSION_ID).cloned();
        if id.as_ref().is_some_and(|id| id.len() > limit::SESSION_ID_BYTES_MAX || id.to_str().is_err()) {
            return Err(Failure::after(Reason::UpstreamGarbage, "its session id is too long or not ASCII").into());
        }
        let outcome = match self.reply(response, patience).await? {
            Reply::Message(message) => single(message, &waiting),
            Reply::Events(body) => drive::outcome(&mut Events::modern(body, waiting, None), patience).await,
            Reply::Empty => garbage("the answer to initialize is empty"),
            Reply::Refused(status, message) => match refusal(status, message, &waiting) {
                Outcome::Failed(failure) if matches!(status.as_u16(), 400 | 404 | 405 | 406) => {
                    // There is one older transport, which is tried next.
                    return Err(Trouble::WrongEra(failure));
                }
                outcome => outcome,
            },
        };
        let facts = ServerFacts::of_initialize(outcome)?;
        self.link.learn_tasks(&facts);
        let session = Arc::new(Session {
            id,
            facts,
            access: Mutex::new(Presented::new(access.clone())),
            executed: AtomicBool::new(false),
            calls: Arc::default(),
            level: SessionLevel::new(),
            updates: broadcast::Sender::new(limit::EXCHANGE_EVENTS_MAX),
            stream_turn: Arc::default(),
            own_stream: watch::Sender::new(false),
        });
        let initialized = Errand::initialized();
        let message = initialized.notification();
        let mut headers = self.headers(&initialized.parcel(access), Era::Legacy)?;
        session.mark(&mut headers)?;
        let response = self.post(&message, headers, patience).await?;
        if !response.status().is_success() {
            return Err(refused(response.status(), None).into());
        }
        if askable.is_any() || askable.has_tasks() {
            elsewhere::listen(self, &session, askable).await;
        }
        Ok(session)
    }

    /// Asks for log messages; that there will be none is no failure of the call.
    async fn set_log_level(&self, session: &Session, level: LogLevel, access: &Access, patience: Patience) {
        let parcel = Errand::set_log_level(level).parcel(access);
        let (waiting, message) = self.prepare(&parcel, Era::Legacy);
        let asking = async {
            let mut headers = self.headers(&parcel, Era::Legacy)?;
            session.mark(&mut headers)?;
            let response = self.post(&message, headers, patience).await?;
            Ok::<_, Failure>(match self.reply(response, patience).await? {
                Reply::Message(message) => single(message, &waiting),
                Reply::Events(body) => drive::outcome(&mut Events::modern(body, waiting, None), patience).await,
                Reply::Empty => garbage("the answer to logging/setLevel is empty"),
                Reply::Refused(status, message) => refusal(status, message, &waiting),
            })
        };
        let set = matches!(asking.await, Ok(Outcome::Complete(_)));
        tracing::debug!(server = %self.link.config.id, level = level.as_str(), set, "asked for log messages");
    }

    /// Ends a session: DELETE, and whatever the upstream says to it. One whose credential is used up ends by itself there.
    pub(super) async fn end(&self, session: &Session) {
        if session.id.is_none() {
            return;
        }
        let Ok(access) = session.presented().in_use() else { return };
        let Ok(mut headers) = self.bare_headers(&access) else { return };
        if session.mark(&mut headers).is_ok() {
            headers.remove(http::header::CONTENT_TYPE);
            let patience = Patience::connect(&self.link.config.health);
            let ended = self.request(http::Method::DELETE, Bytes::new(), headers, patience).await;
            tracing::debug!(server = %self.link.config.id, ended = ended.is_ok(), "ended a session");
        }
    }
}

impl Session {
    fn headers(&self, http: &Http) -> Result<Outfit, Failure> {
        let mut headers = http.bare_headers(&self.presented().in_use()?)?;
        self.mark(&mut headers)?;
        Ok(headers)
    }

    /// What is said in it by itself is said with this from now on.
    fn present(&self, presented: Presented) {
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = presented;
    }

    /// Whether its own stream is read, from now on. Saying the same again is no news: whoever relies on the stream takes
    /// every change for a loss.
    pub(super) fn says_read(&self, is_read: bool) {
        self.own_stream.send_if_modified(|was| std::mem::replace(was, is_read) != is_read);
    }

    pub(super) fn presented(&self) -> Presented {
        self.access.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Puts what names the session into the headers of a request.
    fn mark(&self, headers: &mut HeaderMap) -> Result<(), Failure> {
        if let Some(id) = &self.id {
            headers.insert(mcp::header::SESSION_ID, id.clone());
        }
        headers.insert(mcp::header::PROTOCOL_VERSION, HeaderValue::from_static(self.facts.version.as_str()));
        Ok(())
    }
}

impl Conversation {
    /// One that is for no call, and goes on by itself.
    pub(super) fn new(http: &Arc<Http>, session: Lease<Session>, access: Presented) -> Self {
        Self { http: Arc::clone(http), session: Arc::new(session), access, by_itself: true }
    }

    fn headers(&self) -> Result<Outfit, Failure> {
        // A call that is under way was granted, and may be read to its end.
        let access = if self.by_itself { self.access.in_use()? } else { self.access.now() };
        let mut headers = self.http.bare_headers(&access)?;
        self.session.mark(&mut headers)?;
        Ok(headers)
    }

    /// Says something that has no answer; answers whether it was taken, which mostly is no failure of the call.
    pub(super) async fn say(&self, message: &Message) -> bool {
        self.http.say(message, self.headers()).await
    }

    /// Opens the stream for what belongs to no request, or takes one up where it broke off.
    /// `None` where the upstream has none.
    pub(super) async fn stream(&self, last_event_id: Option<&str>) -> Result<Option<Incoming>, Failure> {
        self.http.stream(self.headers()?, last_event_id).await
    }
}

impl Http {
    /// Says something in a session that no call holds.
    pub(super) async fn say_in(&self, session: &Session, message: &Message) -> bool {
        self.say(message, session.headers(self)).await
    }

    /// Opens the own stream of a session that no call holds; `None` where the upstream has none.
    pub(super) async fn stream_of(&self, session: &Session) -> Result<Option<Incoming>, Failure> {
        self.stream(session.headers(self)?, None).await
    }

    async fn say(&self, message: &Message, headers: Result<Outfit, Failure>) -> bool {
        let Ok(headers) = headers else { return false };
        let said = self.post(message, headers, Patience::connect(&self.link.config.health)).await;
        let taken = said.is_ok_and(|response| response.status().is_success());
        tracing::trace!(server = %self.link.config.id, taken, "said something in a session");
        taken
    }

    async fn stream(&self, mut headers: Outfit, last_event_id: Option<&str>) -> Result<Option<Incoming>, Failure> {
        headers.remove(http::header::CONTENT_TYPE);
        headers.insert(http::header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        if let Some(value) = last_event_id.and_then(|id| HeaderValue::from_str(id).ok()) {
            headers.insert(mcp::header::LAST_EVENT_ID, value);
        }
        let patience = Patience::call(&self.link.config.health);
        let response = self.request(http::Method::GET, Bytes::new(), headers, patience).await?;
        if matches!(response.status(), StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED) {
            return Ok(None);
        }
        match self.reply(response, patience).await? {
            Reply::Events(body) => Ok(Some(body)),
            Reply::Refused(status, _) => Err(refused(status, None)),
            Reply::Message(_) | Reply::Empty => Ok(None),
        }
    }
}

impl Replies for Conversation {
    fn reply<'a>(&'a self, message: &'a Message, access: &'a Access) -> BoxFuture<'a, bool> {
        self.access.replace(access.clone());
        Box::pin(self.say(message))
    }

    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, bool> {
        Box::pin(self.say(message))
    }
}

impl CancelNotice {
    /// The request is over, so there is nothing to cancel.
    pub(super) fn not_needed(mut self) {
        self.conversation = None;
    }
}

impl Drop for CancelNotice {
    fn drop(&mut self) {
        let Some(conversation) = self.conversation.take() else { return };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let message = cancelled(self.id, self.last_words.as_ref());
        runtime.spawn(async move { conversation.say(&message).await });
    }
}

/// Whether an HTTP error says that the session is gone: 404 by the specification; many servers say 400
/// with one of the codes that SDKs use for their own trouble.
fn lost(status: StatusCode, message: Option<&Message>) -> Option<Lost> {
    let number = message.and_then(Message::body).as_ref().and_then(error_code);
    match status {
        StatusCode::NOT_FOUND if number != Some(i64::from(code::METHOD_NOT_FOUND)) => Some(Lost::Surely),
        StatusCode::BAD_REQUEST if matches!(number, Some(-32001 | -32000)) => Some(Lost::Perhaps),
        _ => None,
    }
}

/// What the first call is told after a session was lost that had carried some.
pub(super) fn lost_before_it() -> Trouble {
    let detail = "the session that earlier calls were made in is gone at the upstream";
    Failure::before(Reason::UpstreamSessionLost, detail).into()
}
