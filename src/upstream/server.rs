//! One upstream server: who may enter, in which era it is spoken to, and what keeps it known.
//!
//! Decides whether a request may be sent at all, and sends it again only where nothing was executed.
//! Knows nothing of who calls. Invariant: a request that may have been executed is never sent twice.

use std::sync::Arc;

use tokio::sync::broadcast;

use super::attribution::Unanswered;
use super::drive::{Patience, Pause, timed_out};
use super::errand::{self, Errand, Listing, Pages, ServerFacts};
use super::exchange::{Event, Exchange, Opened};
use super::gate::{Gate, Permit};
use super::handover::{self, End};
use super::health::{Backoff, Health};
use super::http::{Http, Reply, refused, single};
use super::hub::Change;
use super::launch::Launcher;
use super::legacy::Session;
use super::link::Link;
use super::oldest::Stream;
use super::parked::{Asker, Lot, Replies};
use super::stdio::{Running, Stdio};
use super::{Access, answer, drive, events, parked, subscription::Feeds};
use crate::config::{Isolation, ServerConfig, TransportConfig};
use crate::egress::{EgressPolicy, upstream_client};
use crate::ids::{LegId, ParkId};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, Kind, code};
use crate::wire::{Askable, Json, Outgoing, Value};

/// What is sent, and for whom.
#[derive(Debug)]
pub(super) struct Parcel {
    pub(super) access: Access,
    pub(super) outgoing: Outgoing,
    /// As which request the record knows it, and whether it is the gateway's own housekeeping, which has none.
    pub(super) leg: Option<LegId>,
    pub(super) errand: bool,
    /// It stays open: `subscriptions/listen`.
    pub(super) listening: bool,
}

impl Parcel {
    /// What the server may ask within this request, where it has sessions that are one principal's.
    pub(super) fn askable(&self, link: &Link) -> Askable {
        // The gateway's own errands declare nothing, but for those that are asked for somebody.
        if link.config.isolation == Isolation::Shared {
            return Askable::NOTHING;
        }
        link.declarable(Askable::of_params(&self.outgoing.params))
    }

    /// Whether something may be asked within it. A task asks whoever waits for its result; who looks at it or stops it
    /// is not asked, however often that happens to be under way when the question comes.
    pub(super) fn is_asked_within(&self) -> bool {
        let looks = matches!(self.outgoing.method.as_str(), "tasks/get" | "tasks/update" | "tasks/cancel");
        !self.errand && !self.listening && !looks
    }

    /// It asks what somebody is shown, and not for a call of theirs.
    pub(super) fn is_for_the_catalog(&self) -> bool {
        self.errand && Kind::ALL.iter().any(|kind| kind.list_method() == self.outgoing.method)
    }

    /// It stays open for what is said of lists, and for no subscription of anybody's.
    pub(super) fn is_for_lists(&self) -> bool {
        let params = self.outgoing.params.value().as_object();
        let subscribes = || answer::member(params, "notifications", "resourceSubscriptions").is_some();
        self.errand && self.listening && !subscribes()
    }

    /// Through whom it asks; takes the place among the calls in flight along, which is free while it waits.
    pub(super) fn asker(
        &self,
        link: &Arc<Link>,
        askable: Askable,
        replies: impl Replies,
        permit: &mut Option<Permit>,
        unanswered: Unanswered,
    ) -> Option<Arc<Asker>> {
        let principal = self.access.principal.filter(|_| askable.is_any() && self.is_asked_within())?;
        let task = self.outgoing.params.value().as_object().and_then(|params| params.get("taskId"));
        let task = task.and_then(Value::as_str).map(|task| (task.into_owned(), self.outgoing.process));
        Some(Asker::new(askable, principal, link, replies, Pause::new(permit.take(), unanswered), task))
    }
}

/// Why a request came to nothing.
#[derive(Debug)]
pub(super) enum Trouble {
    /// The upstream speaks another era than it was spoken to in; nothing was executed.
    WrongEra(Failure),
    /// The session is gone.
    SessionLost(Lost),
    /// Anything else.
    Failed(Failure),
}

/// How sure it is that a session is gone, and that nothing was executed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lost {
    /// The specification has servers say it so (404).
    Surely,
    /// Many servers say it so (400 with a code of their own), and some say the same of a call that went wrong.
    Perhaps,
}

impl From<Failure> for Trouble {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<Trouble> for Failure {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::WrongEra(failure) | Trouble::Failed(failure) => failure,
            Trouble::SessionLost(_) => {
                Self::after(Reason::UpstreamSessionLost, "the upstream does not know its session")
            }
        }
    }
}

/// One upstream server.
#[derive(Debug)]
pub(super) struct Server {
    pub(super) link: Arc<Link>,
    pub(super) wire: Wire,
    pub(super) feeds: Feeds,
    gate: Gate,
    probing: tokio::sync::Mutex<()>,
}

/// How it is reached.
#[derive(Debug)]
pub(super) enum Wire {
    /// Streamable HTTP.
    Http(Arc<Http>),
    /// A child process.
    Stdio(Arc<Stdio>),
    /// Not at all, and why.
    Unusable(String),
}

impl Server {
    /// Takes a server into service; it is tried in the background at once.
    pub(super) fn start(
        config: &Arc<ServerConfig>,
        changes: broadcast::Sender<Change>,
        launcher: Result<Launcher, String>,
        lot: Arc<Lot>,
    ) -> Arc<Self> {
        let link = Arc::new(Link::new(Arc::clone(config), changes, lot));
        let wire = match &config.transport {
            TransportConfig::Http { url, allow_private } => {
                let uri = url.as_str().parse::<http::Uri>().map_err(|error| error.to_string());
                let policy = EgressPolicy::server(*allow_private);
                let client = upstream_client(policy, config.health.connect_timeout).map_err(|error| error.to_string());
                match client.and_then(|client| Ok((client, uri?))) {
                    Ok((client, uri)) => Wire::Http(Arc::new(Http::new(Arc::clone(&link), client, uri))),
                    Err(error) => Wire::Unusable(error),
                }
            }
            TransportConfig::Stdio { .. } => match launcher {
                Ok(launcher) => Wire::Stdio(Arc::new(Stdio::new(Arc::clone(&link), launcher))),
                Err(error) => Wire::Unusable(error),
            },
        };
        let gate = Gate::new(&config.health);
        let server = Arc::new(Self { link, wire, feeds: Feeds::default(), gate, probing: tokio::sync::Mutex::new(()) });
        tokio::spawn(Arc::clone(&server).keep_probing());
        tokio::spawn(Arc::clone(&server).keep_listening());
        server
    }

    /// Sends a request.
    pub(super) fn exchange(self: &Arc<Self>, parcel: Parcel) -> Exchange {
        if let Err(failure) = self.link.circuit.check() {
            return Exchange::finished(Outcome::Failed(failure));
        }
        let server = Arc::clone(self);
        Exchange::opening(Box::pin(async move { server.open(parcel).await }))
    }

    /// Goes on with a call that waits for these answers.
    pub(super) fn resume(
        self: &Arc<Self>,
        parked: ParkId,
        access: Access,
        answers: Json,
        progress_token: Option<Json>,
    ) -> Exchange {
        let server = Arc::clone(self);
        Exchange::opening(Box::pin(
            async move { parked::resume(&server, parked, &access, &answers, progress_token).await },
        ))
    }

    /// Answers what a task asks, and does not wait for its end.
    pub(super) fn answer(self: &Arc<Self>, parked: ParkId, access: Access, answers: Json) -> Exchange {
        let server = Arc::clone(self);
        Exchange::opening(Box::pin(async move { parked::answer(&server, parked, &access, &answers).await }))
    }

    /// A place among the calls in flight.
    pub(super) async fn place(&self) -> Result<Permit, Failure> {
        self.gate.enter(false, Patience::call(&self.link.config.health).first_byte).await
    }

    async fn open(&self, parcel: Parcel) -> Opened {
        let health = &self.link.config.health;
        let patience = if parcel.listening { Patience::listening(health) } else { Patience::call(health) };
        match tokio::time::timeout_at(patience.deadline, self.admitted(&parcel, patience)).await {
            Ok(Ok(opened)) => opened,
            Ok(Err(failure)) => Opened::Done(Outcome::Failed(failure)),
            Err(_) => Opened::Done(timed_out("the whole call took too long")),
        }
    }

    async fn admitted(&self, parcel: &Parcel, patience: Patience) -> Result<Opened, Failure> {
        if self.link.closing.is_cancelled() {
            return Err(Failure::before(Reason::UpstreamUnreachable, "the server was taken out of the configuration"));
        }
        // A stream that stays open is no work; how many one principal may have is counted elsewhere.
        let mut permit = match parcel.listening {
            true => None,
            false => Some(self.gate.enter(parcel.errand, patience.first_byte).await?),
        };
        match &self.wire {
            Wire::Http(http) => self.over_http(http, parcel, patience, &mut permit).await,
            Wire::Stdio(stdio) => Box::pin(stdio.open(parcel, patience, &mut permit)).await,
            Wire::Unusable(reason) => Err(self.link.unreachable(reason.clone())),
        }
    }

    async fn over_http(
        &self,
        http: &Arc<Http>,
        parcel: &Parcel,
        patience: Patience,
        permit: &mut Option<Permit>,
    ) -> Result<Opened, Failure> {
        let mut asked_again = false;
        loop {
            let sent = match self.era(http, &parcel.access).await? {
                Era::Modern => http.modern(parcel, patience, permit).await,
                // Boxed, so that the modern way does not carry its room around.
                Era::Legacy => Box::pin(http.before_modern(parcel, patience, permit)).await,
            };
            match sent {
                Ok(opened) => return Ok(opened),
                Err(Trouble::WrongEra(_)) if !asked_again => {
                    asked_again = true;
                    self.link.forget_era();
                }
                Err(trouble) => return Err(trouble.into()),
            }
        }
    }

    /// The era that it speaks; found out by asking, one at a time.
    pub(super) async fn era(&self, http: &Arc<Http>, access: &Access) -> Result<Era, Failure> {
        match self.link.era() {
            Some(era) => Ok(era),
            None => Box::pin(self.find_era(http, access)).await,
        }
    }

    async fn find_era(&self, http: &Arc<Http>, access: &Access) -> Result<Era, Failure> {
        let patience = Patience::call(&self.link.config.health);
        let asking = async {
            let _one_at_a_time = self.probing.lock().await;
            if let Some(era) = self.link.era() {
                return Ok(era);
            }
            let era = probe(http, access, patience).await?;
            self.link.learn_era(era);
            Ok(era)
        };
        match tokio::time::timeout_at(patience.first_byte, asking).await {
            Ok(era) => era,
            Err(_) => Err(Failure::before(Reason::UpstreamTimeout, "it did not say in time which version it speaks")),
        }
    }

    /// Its processes, where it is one of these.
    pub(super) const fn stdio(&self) -> Option<&Arc<Stdio>> {
        match &self.wire {
            Wire::Stdio(stdio) => Some(stdio),
            Wire::Http(_) | Wire::Unusable(_) => None,
        }
    }

    /// Sends an errand and waits for its end.
    pub(super) async fn ask(self: &Arc<Self>, errand: Errand, access: &Access) -> Outcome {
        end_of(self.exchange(errand.parcel(access))).await
    }

    /// What it says of itself; what the gateway itself presents is remembered for the background.
    pub(super) async fn facts(self: &Arc<Self>, access: &Access) -> Result<ServerFacts, Failure> {
        let facts = self.facts_quietly(access).await?;
        self.link.saw(access);
        Ok(facts)
    }

    /// The same without remembering who asked.
    pub(super) async fn facts_quietly(&self, access: &Access) -> Result<ServerFacts, Failure> {
        self.link.circuit.check()?;
        self.facts_unchecked(access).await
    }

    /// The same for the prober, which asks while everybody else is turned away.
    async fn facts_unchecked(&self, access: &Access) -> Result<ServerFacts, Failure> {
        match &self.wire {
            Wire::Http(http) => match self.era(http, access).await? {
                Era::Modern => {
                    let opened = self.open(Errand::discover().parcel(access)).await;
                    let exchange = Exchange::opening(Box::pin(std::future::ready(opened)));
                    Ok(ServerFacts::of_discover(end_of(exchange).await)?)
                }
                Era::Legacy => Ok(http.talk(access, http.home(access)).await?.facts().clone()),
            },
            Wire::Stdio(stdio) => Ok(stdio.process(access).await?.facts.clone()),
            Wire::Unusable(reason) => Err(self.link.unreachable(reason.clone())),
        }
    }

    /// All pages of one list.
    pub(super) async fn list(self: &Arc<Self>, access: &Access, kind: Kind) -> Result<Listing, Failure> {
        let mut pages = Pages::new(kind);
        let mut cursor = None;
        loop {
            let page = match self.ask(Errand::list(kind, cursor.as_ref()), access).await {
                // It has no such list, which is as good as an empty one.
                Outcome::Error(error) if answer::error_code(&error) == Some(i64::from(code::METHOD_NOT_FOUND)) => break,
                outcome => errand::result_of(outcome, kind.list_method())?,
            };
            cursor = pages.take(&page)?;
            if cursor.is_none() {
                break;
            }
        }
        self.link.saw(access);
        let listing = pages.finish();
        if listing.dropped > 0 {
            self.link.hub.items_dropped(listing.dropped as u64);
            tracing::warn!(
                server = %self.link.config.id, list = kind.list_method(), dropped = listing.dropped,
                "left out listed items that are not what they should be"
            );
        }
        Ok(listing)
    }

    pub(super) fn health(&self) -> Health {
        self.link.circuit.health()
    }

    /// Tries it until it answers, whenever it was lost; calls fail at once meanwhile.
    async fn keep_probing(self: Arc<Self>) {
        let closing = self.link.closing.clone();
        let probing = async {
            let mut backoff = Backoff::new();
            loop {
                let tried = self.reach().await;
                if self.health() == Health::Up && !self.link.circuit.is_suspected() {
                    backoff.reset();
                    self.link.lost.notified().await;
                } else if let Err(failure) = tried {
                    self.link.unreachable(failure.detail);
                }
                tokio::time::sleep(backoff.pause()).await;
            }
        };
        tokio::select! { () = closing.cancelled() => {}, () = probing => {} }
    }

    /// One attempt to reach it: enough to know that it answers, and in which era.
    async fn reach(&self) -> Result<(), Failure> {
        let access = self.link.own_access();
        match &self.wire {
            // Whatever it says to that, it lives; which era it speaks is known already.
            Wire::Http(http) if self.link.circuit.is_suspected() => {
                probe(http, &access, Patience::connect(&self.link.config.health)).await.map(drop)
            }
            Wire::Http(http) => match self.era(http, &access).await? {
                Era::Modern => Ok(()),
                Era::Legacy => Ok(http.talk(&access, Askable::NOTHING).await.map(drop)?),
            },
            // Each is started for somebody, and not before.
            Wire::Stdio(stdio) if handover::way(&self.link.config).is_some() => {
                let could = stdio.could_start().await;
                could.map(|()| self.link.answered()).map_err(|failure| self.link.unreachable(failure.detail))
            }
            // One that lives already answers as well as one that was just started.
            Wire::Stdio(stdio) => stdio.process(&access).await.map(|_| self.link.answered()),
            Wire::Unusable(reason) => Err(self.link.unreachable(reason.clone())),
        }
    }

    /// Ends sessions and processes that nobody uses.
    pub(super) async fn sweep(&self) {
        match &self.wire {
            Wire::Http(http) => {
                end_sessions(http, &http.sessions.take_idle(limit::SESSION_IDLE)).await;
                end_streams(&http.streams.take_idle(limit::SESSION_IDLE)).await;
            }
            Wire::Stdio(stdio) => {
                end_processes(stdio, End::Idle, &stdio.processes.take_idle(limit::PROCESS_IDLE)).await;
            }
            Wire::Unusable(_) => {}
        }
    }

    /// Gives the server up: nothing new begins, sessions and processes are ended.
    pub(super) async fn close(&self) {
        self.link.closing.cancel();
        self.link.lot.forget(&self.link);
        match &self.wire {
            Wire::Http(http) => {
                end_sessions(http, &http.sessions.take_all()).await;
                end_streams(&http.streams.take_all()).await;
            }
            Wire::Stdio(stdio) => {
                // With those that only finish what they have begun.
                let draining = stdio.started.living();
                end_processes(stdio, End::Closed, &[stdio.processes.take_all(), draining].concat()).await;
            }
            Wire::Unusable(_) => {}
        }
    }

    /// Gives the server up when nothing is in flight any more, or when its longest call must be over.
    pub(super) async fn retire(&self) {
        // Nobody can go on with them: the server is another one now.
        self.link.lot.forget(&self.link);
        let health = &self.link.config.health;
        let _ = tokio::time::timeout(health.call_timeout, self.gate.idle()).await;
        self.close().await;
    }
}

async fn end_sessions(http: &Http, sessions: &[Arc<Session>]) {
    futures_util::future::join_all(sessions.iter().map(|session| http.end(session))).await;
}

async fn end_streams(streams: &[Arc<Stream>]) {
    futures_util::future::join_all(streams.iter().map(|stream| stream.end())).await;
}

async fn end_processes(stdio: &Stdio, why: End, processes: &[Arc<Running>]) {
    futures_util::future::join_all(processes.iter().map(|process| process.end(stdio, why))).await;
}

/// Asks an HTTP server which era it speaks (2026-07-28, basic/versioning).
async fn probe(http: &Arc<Http>, access: &Access, patience: Patience) -> Result<Era, Failure> {
    let parcel = Errand::discover().parcel(access);
    let (waiting, message) = http.prepare(&parcel, Era::Modern);
    let mut headers = http.headers(&parcel, Era::Modern)?;
    headers.insert(
        crate::wire::mcp::header::PROTOCOL_VERSION,
        http::HeaderValue::from_static(crate::wire::mcp::Version::V2026_07_28.as_str()),
    );
    let response = match http.post(&message, headers, patience).await {
        Ok(response) => response,
        // Some servers hang up on what they do not know.
        Err(failure) if failure.reason == Reason::UpstreamClosed => return Ok(Era::Legacy),
        Err(failure) => return Err(failure),
    };
    let outcome = match http.reply(response, patience).await {
        Ok(Reply::Message(message)) => single(message, &waiting),
        Ok(Reply::Events(body)) => drive::outcome(&mut events::Events::modern(body, waiting, None), patience).await,
        // Whoever refuses our credential says nothing of its era.
        Ok(Reply::Refused(status, _)) if matches!(status.as_u16(), 401 | 403 | 407 | 429) => {
            return Err(refused(status, None));
        }
        Ok(Reply::Refused(_, Some(message))) => single(message, &waiting),
        Ok(Reply::Refused(_, None) | Reply::Empty) => return Ok(Era::Legacy),
        Err(failure) if failure.reason == Reason::UpstreamTimeout => return Err(failure),
        Err(_) => return Ok(Era::Legacy),
    };
    match outcome {
        Outcome::Failed(failure) if failure.reason == Reason::UpstreamTimeout => Err(failure),
        outcome if errand::is_modern(&outcome) => Ok(Era::Modern),
        _ => Ok(Era::Legacy),
    }
}

/// The end of an exchange whose notifications nobody reads.
pub(super) async fn end_of(mut exchange: Exchange) -> Outcome {
    loop {
        if let Event::Done(outcome) = exchange.next().await {
            return outcome;
        }
    }
}
