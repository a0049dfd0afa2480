//! HTTP+SSE of 2024-11-05: one stream down, a POST for each message up. The stream is the session.
//!
//! Decides where messages may be posted, and what the end of a stream costs. Knows nothing of who calls beyond
//! the key of a principal. Invariant: nothing is posted to another origin than the configured one, and a
//! session that carried a tool call is never replaced before somebody was told.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderValue, Method, StatusCode, Uri, header};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;
use tokio_util::sync::DropGuard;

use super::attribution::Unanswered;
use super::drive::{self, Answers, Patience};
use super::duplex::{Duplex, DuplexAnswers, Holder, Outlet, failed};
use super::errand::{Errand, ServerFacts};
use super::exchange::{Opened, Signal};
use super::gate::Permit;
use super::http::{Http, Outfit, Reply, read, refused};
use super::legacy::{Session, lost_before_it};
use super::logging::{self, SessionLevel};
use super::parked::Replies;
use super::pool::{Key, Lease, PoolFull};
use super::presented::Presented;
use super::server::{Parcel, Trouble};
use super::source::Source;
use super::{Access, source, told};
use crate::config::{Isolation, TransportConfig};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::Era;
use crate::wire::{Askable, Message};

/// One session.
#[derive(Debug)]
pub(super) struct Stream {
    pub(super) duplex: Arc<Duplex>,
    pub(super) facts: ServerFacts,
    poster: Arc<Poster>,
    /// From which level on it was asked for log messages.
    level: SessionLevel,
    /// Whoever forgets the session closes its stream.
    _open: DropGuard,
}

/// The way up.
#[derive(Debug)]
struct Poster {
    http: Weak<Http>,
    /// What the stream said where messages go.
    endpoint: Uri,
    /// What was presented last; for what is said beside a call.
    access: Presented,
    /// A tool call was carried, so there may be state that a new session would not have, and nobody was told yet
    /// that it is gone.
    carried: AtomicBool,
    /// For what is said beside a call.
    places: Arc<Semaphore>,
}

impl Holder for Lease<Stream> {
    fn duplex(&self) -> &Duplex {
        &self.duplex
    }
}

/// A legacy session over HTTP in use, in whichever transport.
pub(super) enum Talk {
    Session(Lease<Session>),
    Stream(Lease<Stream>),
}

impl Talk {
    pub(super) fn facts(&self) -> &ServerFacts {
        match self {
            Self::Session(session) => &session.facts,
            Self::Stream(stream) => &stream.facts,
        }
    }
}

impl Http {
    /// One legacy request, over the transport that the upstream speaks.
    pub(super) async fn before_modern(
        self: &Arc<Self>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Trouble> {
        if !self.link.is_oldest() {
            match self.legacy(parcel, patience, permit).await {
                Err(Trouble::WrongEra(refused)) => {
                    self.find_oldest(&parcel.access, self.declared_by(parcel), refused).await?;
                }
                sent => return sent,
            }
        }
        self.oldest(parcel, patience, permit).await
    }

    /// The legacy session of whoever asks, over the transport that the upstream speaks.
    pub(super) async fn talk(self: &Arc<Self>, access: &Access, askable: Askable) -> Result<Talk, Trouble> {
        if self.link.is_oldest() {
            return Ok(Talk::Stream(self.stream_for(access, askable, true).await?));
        }
        match self.session_for(access, askable).await {
            Err(Trouble::WrongEra(refused)) => Ok(Talk::Stream(self.find_oldest(access, askable, refused).await?)),
            session => Ok(Talk::Session(session?)),
        }
    }

    /// One request, in the session of whoever asks.
    async fn oldest(
        self: &Arc<Self>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Trouble> {
        let askable = self.declared_by(parcel);
        let forgettable = parcel.errand || self.link.config.isolation == Isolation::Shared;
        let stream = self.stream_for(&parcel.access, askable, forgettable).await?;
        if let Some(ids) = told::wanted(parcel, askable) {
            return Ok(told::by_peer(stream, ids, patience).await);
        }
        if !forgettable && self.losses.tell(&self.key(&parcel.access, askable)) {
            return Err(lost_before_it());
        }
        stream.poster.access.replace(parcel.access.clone());
        if let Some(level) = logging::wanted(&parcel.outgoing.params)
            && stream.facts.announces("logging", None)
            && stream.level.lower(level)
        {
            // That there will be no messages is no failure of the call.
            let _ = self.greet(&stream.duplex, &stream.poster, Errand::set_log_level(level), &parcel.access).await;
        }
        let poster = Arc::clone(&stream.poster);
        let unanswered = Unanswered::default();
        let asker = parcel.asker(&self.link, askable, Arc::clone(&poster), permit, unanswered.clone());
        let asks = parcel.is_asked_within().then_some((askable, unanswered));
        if parcel.outgoing.method == "tools/call" {
            poster.carried.store(true, Ordering::Release);
        }
        let answers = self.asking(stream, &poster, parcel, permit.take(), asks)?;
        Ok(drive::drive(answers, patience, patience.first_byte, asker).await)
    }

    /// Posts a request; its answers come down the stream.
    fn asking<P: Holder>(
        self: &Arc<Self>,
        holder: P,
        poster: &Arc<Poster>,
        parcel: &Parcel,
        permit: Option<Permit>,
        call: Option<(Askable, Unanswered)>,
    ) -> Result<Posted<P>, Failure> {
        let (waiting, message) = self.prepare(parcel, Era::Legacy);
        let headers = self.headers(parcel, Era::Legacy)?;
        let answers = Duplex::enter(holder, waiting, permit, call)?;
        let (http, up) = (Arc::clone(self), Arc::clone(poster));
        // In a task, so that an answer which overtakes it does not cost the connection.
        let posting = tokio::spawn(async move { http.post_up(&up.endpoint, &message, headers).await });
        Ok(Posted { posting: Some(posting), answers: Some(answers), poster: Arc::clone(poster) })
    }

    /// Tries this transport after the others; what was refused before is said if this one is too.
    async fn find_oldest(
        self: &Arc<Self>,
        access: &Access,
        askable: Askable,
        before: Failure,
    ) -> Result<Lease<Stream>, Trouble> {
        match self.stream_for(access, askable, true).await {
            Ok(stream) => {
                self.link.learn_oldest();
                Ok(stream)
            }
            Err(Trouble::WrongEra(failure)) => {
                let detail = format!(
                    "{} to initialize, {} to GET for HTTP+SSE of 2024-11-05; is the URL its MCP endpoint?",
                    before.detail, failure.detail
                );
                Err(Trouble::WrongEra(Failure { detail, ..before }))
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// The session of whoever asks; opened if there is none that lives, and if the last one may be forgotten.
    async fn stream_for(
        self: &Arc<Self>,
        access: &Access,
        askable: Askable,
        forgettable: bool,
    ) -> Result<Lease<Stream>, Trouble> {
        let key = self.key(access, askable);
        let mut replaced = false;
        loop {
            let evict = |stream: Arc<Stream>| {
                tokio::spawn(async move { stream.end().await });
            };
            match self.streams.lease(&key, Box::pin(self.open_stream(access, askable)), evict).await {
                Ok(Ok(lease)) => {
                    let Some(closed) = lease.duplex.closed() else { return Ok(lease) };
                    if forgettable && self.link.config.isolation == Isolation::Principal {
                        self.note_loss(&key, &lease.poster);
                    }
                    self.streams.remove(&key, lease.shared());
                    // One that ends right after its beginning is not opened over and over.
                    if std::mem::replace(&mut replaced, true) {
                        return Err(Failure { may_have_acted: false, ..closed }.into());
                    }
                    if !forgettable && lease.poster.carried.swap(false, Ordering::AcqRel) {
                        let detail = "the stream that was its session has ended";
                        return Err(Failure::before(Reason::UpstreamSessionLost, detail).into());
                    }
                }
                Ok(Err(trouble)) => {
                    // What was found out about it may be wrong, or no longer so.
                    self.link.forget_era();
                    return Err(trouble);
                }
                Err(PoolFull) => {
                    return Err(Failure::before(Reason::UpstreamBusy, "all of its sessions are in use").into());
                }
            }
        }
    }

    /// Somebody else than a call found out that a session is lost: the next call is told, if none was meanwhile.
    fn note_loss(&self, key: &Key, poster: &Poster) {
        if poster.carried.load(Ordering::Acquire) {
            self.losses.owe(key);
            if !poster.carried.swap(false, Ordering::AcqRel) {
                self.losses.tell(key);
            }
        }
    }

    async fn open_stream(self: &Arc<Self>, access: &Access, askable: Askable) -> Result<Arc<Stream>, Trouble> {
        let patience = Patience::call(&self.link.config.health);
        let mut headers = self.bare_headers(access)?;
        headers.remove(header::CONTENT_TYPE);
        headers.insert(header::ACCEPT, HeaderValue::from_static("text/event-stream"));
        let response = self.request(Method::GET, Bytes::new(), headers, patience).await?;
        let elsewhere = |detail: &str| Trouble::WrongEra(Failure::after(Reason::UpstreamStatus, detail));
        let body = match self.reply(response, patience).await {
            Ok(Reply::Events(body)) => body,
            Ok(Reply::Refused(status, _)) if matches!(status.as_u16(), 400 | 404 | 405 | 406) => {
                return Err(Trouble::WrongEra(refused(status, None)));
            }
            Ok(Reply::Refused(status, _)) => return Err(refused(status, None).into()),
            Ok(Reply::Message(_) | Reply::Empty) => return Err(elsewhere("no stream")),
            Err(failure) if failure.reason == Reason::UpstreamGarbage => return Err(elsewhere("no stream")),
            Err(failure) => return Err(failure.into()),
        };
        let mut source = Source::new(body);
        // Whoever has nothing to say here is no server of this transport.
        let first = Patience::connect(&self.link.config.health).first_byte.min(patience.first_byte);
        let Ok(named) = tokio::time::timeout_at(first, source.endpoint()).await else {
            let detail = "its stream did not say in time where messages go";
            return Err(Failure::after(Reason::UpstreamTimeout, detail).into());
        };
        let poster = Arc::new(Poster {
            http: Arc::downgrade(self),
            endpoint: self.endpoint(&named?)?,
            access: Presented::new(access.clone()),
            carried: AtomicBool::new(false),
            places: Arc::new(Semaphore::new(limit::PROCESS_WRITES_QUEUED_MAX)),
        });
        let duplex = Duplex::new(Arc::clone(&self.link), Box::new(Arc::clone(&poster)));
        // Whatever ends this attempt closes the stream too.
        let open = duplex.stop.clone().drop_guard();
        tokio::spawn(listen(Arc::clone(&duplex), Arc::clone(&poster), source));
        let facts =
            ServerFacts::of_initialize(self.greet(&duplex, &poster, Errand::initialize(askable), access).await)?;
        self.link.learn_tasks(&facts);
        let initialized = Errand::initialized().notification();
        self.post_up(&poster.endpoint, &initialized, self.bare_headers(access)?).await?;
        Ok(Arc::new(Stream { duplex, facts, poster, level: SessionLevel::new(), _open: open }))
    }

    /// An errand in a session, also one that is not open yet.
    async fn greet(
        self: &Arc<Self>,
        duplex: &Arc<Duplex>,
        poster: &Arc<Poster>,
        errand: Errand,
        access: &Access,
    ) -> Outcome {
        match self.asking(Arc::clone(duplex), poster, &errand.parcel(access), None, None) {
            Ok(mut answers) => drive::outcome(&mut answers, Patience::call(&self.link.config.health)).await,
            Err(failure) => Outcome::Failed(failure),
        }
    }

    /// Where messages go; only the origin that an administrator wrote is accepted.
    fn endpoint(&self, named: &str) -> Result<Uri, Failure> {
        let TransportConfig::Http { url, .. } = &self.link.config.transport else {
            return Err(Failure::before(Reason::Internal, "it is not reached over HTTP"));
        };
        source::endpoint_at(url, named).map_err(|detail| Failure::after(Reason::UpstreamGarbage, detail))
    }

    /// Posts one message; what answers it comes on the stream.
    async fn post_up(&self, endpoint: &Uri, message: &Message, headers: Outfit) -> Result<(), Failure> {
        let patience = Patience::call(&self.link.config.health);
        let body = message.as_bytes().clone();
        let response = self.request_at(endpoint.clone(), Method::POST, body, headers, patience).await?;
        let status = response.status();
        // Read to its end, so that the connection can be used again.
        let _ = read(response.into_body(), limit::ERROR_BODY_BYTES_MAX, patience).await;
        match status {
            status if status.is_success() => Ok(()),
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                let detail = "the upstream does not know its session any more";
                Err(Failure::after(Reason::UpstreamSessionLost, detail))
            }
            status => Err(refused(status, None)),
        }
    }
}

impl Stream {
    /// Closes the stream, and waits for that.
    pub(super) async fn end(&self) {
        self.duplex.end().await;
    }

    /// Says something that belongs to no call, and so only with what may still be presented. One that does not take what is
    /// said to it does not hear of this either.
    pub(super) fn say(&self, message: &Message) {
        if self.poster.access.in_use().is_ok() {
            let _ = self.duplex.say(message);
        }
    }
}

impl Poster {
    async fn post(&self, message: &Message) -> bool {
        let Some(http) = self.http.upgrade() else { return false };
        let Ok(headers) = http.bare_headers(&self.access.now()) else { return false };
        http.post_up(&self.endpoint, message, headers).await.is_ok()
    }
}

impl Outlet for Arc<Poster> {
    fn say(&self, message: &Message) -> Result<(), ()> {
        let place = Arc::clone(&self.places).try_acquire_owned().map_err(drop)?;
        let runtime = tokio::runtime::Handle::try_current().map_err(drop)?;
        let (poster, message) = (Self::clone(self), message.clone());
        runtime.spawn(async move {
            let taken = poster.post(&message).await;
            tracing::trace!(taken, "said something in a session");
            drop(place);
        });
        Ok(())
    }
}

impl Replies for Arc<Poster> {
    fn reply<'a>(&'a self, message: &'a Message, access: &'a Access) -> BoxFuture<'a, bool> {
        self.access.replace(access.clone());
        Box::pin(self.post(message))
    }

    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, bool> {
        Box::pin(self.post(message))
    }
}

/// The answers to a request that is being posted.
struct Posted<P: Holder> {
    posting: Option<JoinHandle<Result<(), Failure>>>,
    answers: Option<DuplexAnswers<P>>,
    poster: Arc<Poster>,
}

impl<P: Holder> Answers for Posted<P> {
    async fn draw(&mut self) -> Signal {
        let gone = || failed(Failure::after(Reason::UpstreamClosed, "it is gone"));
        loop {
            let Some(answers) = &mut self.answers else { return gone() };
            let Some(posting) = &mut self.posting else { return answers.draw().await };
            let posted = tokio::select! {
                biased;
                signal = answers.draw() => return signal,
                posted = posting => posted,
            };
            self.posting = None;
            match posted {
                Ok(Ok(())) => {}
                // The answer comes on the stream, which has a clock of its own.
                Ok(Err(failure)) if failure.reason == Reason::UpstreamTimeout => {}
                Ok(Err(failure)) => {
                    if let Some(answers) = self.answers.take() {
                        if failure.reason == Reason::UpstreamSessionLost && answers.peer().give_up(&failure) > 0 {
                            self.poster.carried.store(false, Ordering::Release);
                        }
                        answers.withdraw();
                    }
                    return failed(failure);
                }
                Err(_) => return gone(),
            }
        }
    }
}

/// Hears what comes down until the stream ends, or shall.
async fn listen(duplex: Arc<Duplex>, poster: Arc<Poster>, mut source: Source) {
    let stopped = || Failure::after(Reason::UpstreamClosed, "its session is being ended");
    let failure = tokio::select! {
        () = duplex.stop.cancelled() => stopped(),
        () = duplex.link.closing.cancelled() => stopped(),
        failure = source.hear_all(&duplex) => failure,
    };
    if duplex.close(&failure) > 0 {
        // Whoever had a call in it is told by the end of that.
        poster.carried.store(false, Ordering::Release);
    }
    duplex.over.cancel();
}
