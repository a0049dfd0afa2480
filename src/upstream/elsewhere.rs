//! What a legacy server says on its session's own stream, where nothing says which call it is about: questions, and
//! log messages.
//!
//! Decides which calls of the session they may be of. Knows nothing of what is asked or said. Invariant: where it is
//! not clear whose a question is nobody is asked, and the server is told why; such a log message is nobody's.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use futures_util::future::BoxFuture;
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::sync::mpsc;

use super::answer::{Waiting, ambiguous, garbage, names_no_request, outlives, reply_to_server};
use super::attribution::{Traits, Unanswered, Whose, whose};
use super::drive::Answers;
use super::events::Events;
use super::exchange::{Event, Signal};
use super::gate::Permit;
use super::health::Backoff;
use super::http::{Http, Reply, refusal, single};
use super::hub::Hub;
use super::legacy::{CancelNotice, Conversation, Session};
use super::logging;
use super::parked::{Asker, Question};
use crate::limit;
use crate::outcome::{Failure, Outcome};
use crate::wire::{Askable, Json, Kind, Message, Source, notification_without_own_keys, sse};

/// The calls in flight in one session, which is one principal's.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    calls: Mutex<HashMap<i64, Entered>>,
}

#[derive(Debug)]
struct Entered {
    signals: mpsc::Sender<Signal>,
    traits: Traits,
    /// The parameters of the request: what it wants to hear of.
    wants: Json,
}

/// One of them; it takes itself off the list.
pub(super) struct Call {
    calls: Arc<InFlight>,
    id: i64,
    pub(super) signals: mpsc::Receiver<Signal>,
    pub(super) unanswered: Unanswered,
}

impl Drop for Call {
    fn drop(&mut self) {
        self.calls.lock().remove(&self.id);
    }
}

impl InFlight {
    pub(super) fn enter(self: &Arc<Self>, waiting: &Waiting) -> Call {
        let (sender, signals) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX);
        let unanswered = Unanswered::default();
        let traits = Traits::of(&waiting.asked, unanswered.clone());
        self.lock().insert(waiting.id, Entered { signals: sender, traits, wants: waiting.asked.clone() });
        Call { calls: Arc::clone(self), id: waiting.id, signals, unanswered }
    }

    /// Passes a question on; what the server is told where that cannot be.
    fn pass_on(&self, request: &Message, askable: Askable) -> Option<Message> {
        let Some(question) = Question::of(request, askable) else { return reply_to_server(request) };
        let calls = self.lock();
        match whose(request, calls.values().map(|entered| (entered, &entered.traits))) {
            Whose::Of(call) if call.signals.try_send(Signal::Asked(question)).is_ok() => {
                call.traits.unanswered.asked();
                None
            }
            Whose::Unclear => ambiguous(request),
            Whose::Of(_) | Whose::Nobodys => reply_to_server(request),
        }
    }

    /// Passes a log message on to the call that it belongs to, where that wants to hear it.
    pub(super) fn log(&self, message: Message, hub: &Hub) {
        let calls = self.lock();
        let Whose::Of(call) = whose(&message, calls.values().map(|entered| (entered, &entered.traits))) else {
            return hub.notification_dropped();
        };
        // Questions always find room.
        let room = call.signals.capacity() > limit::INPUT_REQUESTS_MAX;
        if !logging::passes(&call.wants, &message) {
            return;
        }
        let said = Signal::Event(Event::Notification(notification_without_own_keys(message)));
        if !room || call.signals.try_send(said).is_err() {
            hub.notification_dropped();
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<i64, Entered>> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The answers to a call that may be asked or told something elsewhere meanwhile.
pub(super) struct Both<A: Answers> {
    pub(super) call: Call,
    pub(super) answers: A,
}

impl<A: Answers> Answers for Both<A> {
    async fn draw(&mut self) -> Signal {
        tokio::select! {
            biased;
            Some(signal) = self.call.signals.recv() => signal,
            signal = self.answers.draw() => signal,
        }
    }
}

/// A request whose answer has not begun when something is asked or said elsewhere.
pub(super) struct Posted {
    stage: Stage,
}

enum Stage {
    Waiting(BoxFuture<'static, Result<Reply, Failure>>, Option<Box<Parts>>),
    Streaming(Box<Events>),
}

/// What reading the answer takes.
pub(super) struct Parts {
    pub(super) waiting: Waiting,
    pub(super) conversation: Conversation,
    pub(super) cancel: CancelNotice,
    pub(super) asker: Option<Arc<Asker>>,
    pub(super) permit: Option<Permit>,
}

impl Posted {
    pub(super) fn new(reply: BoxFuture<'static, Result<Reply, Failure>>, parts: Parts) -> Self {
        Self { stage: Stage::Waiting(reply, Some(Box::new(parts))) }
    }
}

impl Answers for Posted {
    async fn draw(&mut self) -> Signal {
        loop {
            match &mut self.stage {
                Stage::Waiting(reply, parts) => {
                    let reply = reply.await;
                    let Some(parts) = parts.take() else {
                        return done(garbage("its answer was read already"));
                    };
                    let Parts { waiting, conversation, cancel, asker, permit } = *parts;
                    let outcome = match reply {
                        Ok(Reply::Events(body)) => {
                            let events =
                                Events::legacy(body, waiting, permit, conversation, Some(cancel)).asking(asker);
                            self.stage = Stage::Streaming(Box::new(events));
                            continue;
                        }
                        Ok(Reply::Message(message)) => single(message, &waiting),
                        Ok(Reply::Refused(status, message)) => refusal(status, message, &waiting),
                        Ok(Reply::Empty) => garbage("the answer to a request is empty"),
                        Err(failure) => Outcome::Failed(failure),
                    };
                    cancel.not_needed();
                    return done(outcome);
                }
                Stage::Streaming(events) => return events.draw().await,
            }
        }
    }
}

const fn done(outcome: Outcome) -> Signal {
    Signal::Event(Event::Done(outcome))
}

/// Opens the own stream of a session in which something can be asked or is to be logged, and listens for as long as the session is
/// in use. Waits until it is open: what a server asks before that is lost.
///
/// It is the session's one reader then, and tells those who wait for updates of resources what it hears.
pub(super) async fn listen(http: &Arc<Http>, session: &Arc<Session>, askable: Askable) {
    let Ok(turn) = Arc::clone(&session.stream_turn).try_lock_owned() else { return };
    let opened = tokio::time::timeout(limit::OWN_STREAM_WAIT, http.stream_of(session)).await;
    let body = match opened {
        Ok(Ok(Some(body))) => Some(body),
        // It has none.
        Ok(Ok(None)) => return,
        _ => None,
    };
    if body.is_some() {
        session.says_read(true);
    }
    let listening = keep_listening(Arc::clone(http), Arc::downgrade(session), body, askable);
    tokio::spawn(async move {
        listening.await;
        drop(turn);
    });
}

async fn keep_listening(http: Arc<Http>, session: Weak<Session>, mut body: Option<Incoming>, askable: Askable) {
    let mut backoff = Backoff::new();
    loop {
        if let Some(body) = body.take() {
            say(&session, true);
            read(&http, &session, body, askable).await;
            say(&session, false);
        }
        tokio::time::sleep(backoff.pause()).await;
        let Some(live) = session.upgrade().filter(|_| !http.link.closing.is_cancelled()) else { return };
        match http.stream_of(&live).await {
            Ok(None) => return,
            Ok(found) => body = found,
            Err(_) => {}
        }
    }
}

/// Tells whoever relies on the session's own stream whether it is read.
fn say(session: &Weak<Session>, is_read: bool) {
    if let Some(session) = session.upgrade() {
        session.says_read(is_read);
    }
}

/// Reads one stream to its end, or until nobody uses its session any more.
async fn read(http: &Arc<Http>, session: &Weak<Session>, mut body: Incoming, askable: Askable) {
    let mut reader = sse::Reader::new(limit::RESPONSE_BYTES_MAX);
    let mut ready = Vec::new();
    let Some(presented) = session.upgrade().map(|live| live.presented()) else { return };
    let taken_away = presented.taken_away();
    tokio::pin!(taken_away);
    loop {
        let frame = tokio::select! {
            frame = tokio::time::timeout(limit::IDLE_SWEEP, body.frame()) => frame,
            // It was opened with that. When only its use has ended, calls under way may be asked something here still;
            // it is not opened again.
            () = &mut taken_away => return,
        };
        let Some(live) = session.upgrade() else { return };
        let data = match frame {
            Err(_) => continue,
            Ok(Some(Ok(frame))) => frame.into_data(),
            Ok(_) => return,
        };
        let Ok(data) = data else { continue };
        if reader.push(&data, &mut |event| ready.push(event)).is_err() {
            return;
        }
        for event in ready.drain(..) {
            if event.data.is_empty() || !matches!(event.name.as_str(), "" | "message") {
                continue;
            }
            let Ok(message) = Message::parse(event.data, Source::Upstream) else { return };
            match message.kind() {
                Kind::Request => {
                    if let Some(reply) = live.calls.pass_on(&message, askable) {
                        http.say_in(&live, &reply).await;
                    }
                }
                Kind::Notification if names_no_request(&message.method()) || outlives(&message) => {
                    // An error only says that nobody waits for any.
                    let _ = live.updates.send(message);
                }
                Kind::Notification if message.method() == "notifications/message" => {
                    live.calls.log(message, &http.link.hub);
                }
                Kind::Notification => {
                    if !http.link.hub.list_changed(&message.method()) {
                        http.link.hub.notification_dropped();
                    }
                }
                Kind::Result | Kind::Error => http.link.hub.stray(),
            }
        }
    }
}
