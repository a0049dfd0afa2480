//! One peer that messages go to and come from in two streams, and the requests that it works on: a child
//! process, or a session of HTTP+SSE.
//!
//! Decides which message belongs to which request. Knows nothing of what carries them. Invariant: when the
//! peer is gone, every request that waits gets its end.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::future::BoxFuture;
use tokio::sync::{broadcast, mpsc};
use tokio_util::sync::CancellationToken;

use super::Access;
use super::answer::{self, Heard, Waiting, ambiguous, reply_to_server};
use super::attribution::{Traits, Unanswered, Whose, whose};
use super::drive::Answers;
use super::exchange::{Event, Signal};
use super::gate::Permit;
use super::link::Link;
use super::parked::{Question, Replies};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, meta};
use crate::wire::{Askable, InputKind, Kind, Message, Source, Value, cancelled};

/// One peer.
#[derive(Debug)]
pub(super) struct Duplex {
    pub(super) link: Arc<Link>,
    requests: Mutex<Requests>,
    outlet: Box<dyn Outlet>,
    /// It shall end.
    pub(super) stop: CancellationToken,
    /// It was we who wanted that, not something that it did.
    dismissed: AtomicBool,
    /// It has ended, and so has everything that belonged to it.
    pub(super) over: CancellationToken,
    /// Updates of resources and tasks, which name no request.
    pub(super) updates: broadcast::Sender<Message>,
}

#[derive(Debug, Default)]
struct Requests {
    open: HashMap<i64, Open>,
    /// Why there can be no more.
    closed: Option<Failure>,
    noise_lines: usize,
}

impl Requests {
    fn calls(&self) -> impl Iterator<Item = (i64, &Traits)> {
        self.open.iter().filter(|(_, open)| open.askable.is_some()).map(|(id, open)| (*id, &open.traits))
    }

    /// The call whose token is named, of those whose tokens outlive them.
    fn reported(&self, message: &Message) -> Option<i64> {
        let token = message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN))?;
        self.open.iter().find(|(_, open)| open.waiting.is_its_token(token)).map(|(id, _)| *id)
    }

    /// The call that waits for the result of the task whose state is told.
    fn waits_for_task(&self, message: &Message) -> Option<i64> {
        self.open.iter().find(|(_, open)| open.waiting.is_about_its_task(message)).map(|(id, _)| *id)
    }
}

#[derive(Debug)]
struct Open {
    waiting: Waiting,
    events: mpsc::Sender<Signal>,
    /// What may be asked within it; `None` for what is no call.
    askable: Option<Askable>,
    traits: Traits,
    asked: usize,
}

/// The way to the peer.
pub(super) trait Outlet: std::fmt::Debug + Send + Sync {
    /// Says it as soon as possible and does not wait for that; refuses when too much waits to be said already.
    fn say(&self, message: &Message) -> Result<(), ()>;
}

/// The answers to one request. Dropping it tells the peer that nobody waits.
pub(super) struct DuplexAnswers<P: Holder> {
    duplex: P,
    events: mpsc::Receiver<Signal>,
    id: i64,
    done: bool,
    _permit: Option<Permit>,
}

/// Whatever keeps a peer while a request is open.
pub(super) trait Holder: Send + 'static {
    fn duplex(&self) -> &Duplex;
}

impl Holder for Arc<Duplex> {
    fn duplex(&self) -> &Duplex {
        self
    }
}

impl Duplex {
    /// Takes a peer over; whoever reads what it says passes that on with [`Self::hear_line`].
    pub(super) fn new(link: Arc<Link>, outlet: Box<dyn Outlet>) -> Arc<Self> {
        Arc::new(Self {
            link,
            requests: Mutex::default(),
            outlet,
            stop: CancellationToken::new(),
            dismissed: AtomicBool::new(false),
            over: CancellationToken::new(),
            updates: broadcast::Sender::new(limit::EXCHANGE_EVENTS_MAX),
        })
    }

    /// Sends a request; its answers come to whoever holds what is returned.
    pub(super) fn ask<P: Holder>(
        holder: P,
        waiting: Waiting,
        message: &Message,
        permit: Option<Permit>,
        call: Option<(Askable, Unanswered)>,
    ) -> Result<DuplexAnswers<P>, Failure> {
        let answers = Self::enter(holder, waiting, permit, call)?;
        if answers.peer().say(message).is_err() {
            answers.withdraw();
            return Err(Failure::before(Reason::UpstreamBusy, "it does not read what is sent to it"));
        }
        Ok(answers)
    }

    /// Waits for the answers to a request that the caller sends.
    pub(super) fn enter<P: Holder>(
        holder: P,
        waiting: Waiting,
        permit: Option<Permit>,
        call: Option<(Askable, Unanswered)>,
    ) -> Result<DuplexAnswers<P>, Failure> {
        // One place more than notifications may take, so that the end always has one.
        let (sender, events) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX + 1);
        let id = waiting.id;
        let mut requests = holder.duplex().lock();
        if let Some(failure) = &requests.closed {
            return Err(Failure { may_have_acted: false, ..failure.clone() });
        }
        let (askable, unanswered) = call.map_or_else(Default::default, |(askable, own)| (Some(askable), own));
        let traits = Traits::of(&waiting.asked, unanswered);
        requests.open.insert(id, Open { waiting, events: sender, askable, traits, asked: 0 });
        drop(requests);
        Ok(DuplexAnswers { duplex: holder, events, id, done: false, _permit: permit })
    }

    /// Says something that has no answer, or answers.
    pub(super) fn say(&self, message: &Message) -> Result<(), ()> {
        self.outlet.say(message)
    }

    /// Why it can take no more requests.
    pub(super) fn closed(&self) -> Option<Failure> {
        self.lock().closed.clone()
    }

    /// Ends it, and waits until it is gone.
    pub(super) async fn end(&self) {
        self.dismissed.store(true, Ordering::Release);
        self.close(&Failure::after(Reason::UpstreamClosed, "it is being stopped"));
        self.stop.cancel();
        self.over.cancelled().await;
    }

    /// Whether we ended it.
    pub(super) fn was_dismissed(&self) -> bool {
        self.dismissed.load(Ordering::Acquire)
    }

    /// Begins to end it, because of what it did; answers how many calls that ended.
    pub(super) fn give_up(&self, failure: &Failure) -> usize {
        let calls = self.close(failure);
        self.stop.cancel();
        calls
    }

    /// Ends every request that waits, and takes no more; answers how many calls that were.
    pub(super) fn close(&self, failure: &Failure) -> usize {
        let mut requests = self.lock();
        requests.closed.get_or_insert_with(|| failure.clone());
        let mut calls = 0;
        for (_, open) in requests.open.drain() {
            calls += usize::from(open.askable.is_some());
            let _ = open.events.try_send(failed(failure.clone()));
        }
        calls
    }

    /// Hears one message.
    pub(super) fn hear_line(&self, line: Vec<u8>) {
        let shown = line.trim_ascii();
        if shown.is_empty() {
            return;
        }
        if !shown.starts_with(b"{") {
            return self.hear_noise();
        }
        let id = salvaged_id(shown);
        match Message::parse(line, Source::Upstream) {
            Ok(message) => self.hear(message),
            Err(error) => {
                self.link.hub.noise();
                let failure = Failure::after(Reason::UpstreamGarbage, format!("what it says is no message: {error}"));
                self.fail(id, &failure);
            }
        }
    }

    /// A banner or a stray print; common, and no reason to lose a call.
    fn hear_noise(&self) {
        self.link.hub.noise();
        let mut requests = self.lock();
        requests.noise_lines += 1;
        if requests.noise_lines == limit::PROCESS_NOISE_LINES_MAX {
            drop(requests);
            let detail = "too much of what it says is no message";
            self.give_up(&Failure::after(Reason::UpstreamGarbage, detail));
        }
    }

    /// Ends the request that an unreadable line answers, or all if that cannot be told.
    fn fail(&self, id: Option<i64>, failure: &Failure) {
        let mut requests = self.lock();
        let failing: Vec<i64> = match id {
            Some(id) => vec![id],
            None => requests.open.keys().copied().collect(),
        };
        for open in failing.iter().filter_map(|id| requests.open.remove(id)) {
            let _ = open.events.try_send(failed(failure.clone()));
        }
    }

    fn hear(&self, message: Message) {
        let mut requests = self.lock();
        let id = match message.kind() {
            Kind::Result | Kind::Error => message.id_value().and_then(Value::as_i64),
            Kind::Request => {
                drop(requests);
                return self.answer(&message);
            }
            Kind::Notification => match addressee(&message) {
                Addressee::Request(id) => Some(id),
                Addressee::Everyone => {
                    drop(requests);
                    self.link.hub.list_changed(&message.method());
                    return;
                }
                Addressee::Subscribers => {
                    match requests.reported(&message).or_else(|| requests.waits_for_task(&message)) {
                        Some(id) => Some(id),
                        None => {
                            drop(requests);
                            // An error only says that nobody has subscribed.
                            let _ = self.updates.send(message);
                            return;
                        }
                    }
                }
                // It names no request, so it belongs to the only call, and is never guessed.
                Addressee::Unnamed => match whose(&message, requests.calls()) {
                    Whose::Of(id) => Some(id),
                    Whose::Unclear | Whose::Nobodys => return self.link.hub.notification_dropped(),
                },
            },
        };
        let Some((id, open)) = id.and_then(|id| requests.open.get(&id).map(|open| (id, open))) else {
            return self.link.hub.stray();
        };
        match open.waiting.hear(message) {
            Heard::Done(outcome) => {
                if let Some(open) = requests.open.remove(&id) {
                    let _ = open.events.try_send(Signal::Event(Event::Done(outcome)));
                }
            }
            Heard::Notification(message) => {
                if open.events.capacity() < 2
                    || open.events.try_send(Signal::Event(Event::Notification(message))).is_err()
                {
                    self.link.hub.notification_dropped();
                }
            }
            Heard::Asked(_) | Heard::Nothing => {}
        }
    }

    /// Does what a request of the peer's own wants.
    fn answer(&self, request: &Message) {
        if self.link.era() == Some(Era::Modern) {
            return self.link.hub.stray();
        }
        let reply = match InputKind::of(&request.method(), request.params()) {
            Some(_) => self.pass_on(request),
            None => reply_to_server(request),
        };
        if let Some(reply) = reply
            && self.say(&reply).is_err()
        {
            self.link.hub.notification_dropped();
        }
    }

    /// Passes a question on to the call whose it is; what is answered where that cannot be.
    fn pass_on(&self, request: &Message) -> Option<Message> {
        let mut requests = self.lock();
        let id = match whose(request, requests.calls()) {
            Whose::Of(id) => id,
            Whose::Unclear => return ambiguous(request),
            Whose::Nobodys => return reply_to_server(request),
        };
        let open = requests.open.get_mut(&id)?;
        let Some(question) = Question::of(request, open.askable?) else { return reply_to_server(request) };
        open.asked += 1;
        let room = open.events.capacity() >= 2 && open.asked <= limit::SERVER_REQUESTS_PER_CALL_MAX;
        if room && open.events.try_send(Signal::Asked(question)).is_ok() {
            open.traits.unanswered.asked();
            return None;
        }
        reply_to_server(request)
    }

    fn lock(&self) -> MutexGuard<'_, Requests> {
        self.requests.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whom a notification concerns.
enum Addressee {
    Request(i64),
    Everyone,
    /// Whoever subscribed to a resource of this peer, or listens to a task; but for what belongs to a call under way.
    Subscribers,
    Unnamed,
}

fn addressee(message: &Message) -> Addressee {
    if answer::outlives(message) {
        return Addressee::Subscribers;
    }
    let named = if message.method() == "notifications/progress" {
        message.params().and_then(|params| params.get(meta::PROGRESS_TOKEN))
    } else {
        answer::member(message.params(), "_meta", meta::SUBSCRIPTION_ID)
    };
    match named {
        // A token that is no number of ours is nobody's.
        Some(named) => Addressee::Request(named.as_i64().unwrap_or(-1)),
        None if message.method().ends_with("/list_changed") => Addressee::Everyone,
        None if answer::names_no_request(&message.method()) => Addressee::Subscribers,
        None => Addressee::Unnamed,
    }
}

/// The id of a line that is JSON and yet no message for us.
fn salvaged_id(line: &[u8]) -> Option<i64> {
    #[derive(serde::Deserialize)]
    struct Envelope {
        id: Option<i64>,
    }
    // Only looked at when the line is refused, and then only to find out whom to tell.
    serde_json::from_slice::<Envelope>(line).ok()?.id
}

impl<P: Holder> DuplexAnswers<P> {
    /// The peer that it is asked of.
    pub(super) fn peer(&self) -> &Duplex {
        self.duplex.duplex()
    }

    /// The request was not sent, or is over: there is nothing to cancel.
    pub(super) fn withdraw(mut self) {
        self.done = true;
    }
}

impl<P: Holder> Answers for DuplexAnswers<P> {
    async fn draw(&mut self) -> Signal {
        let gone = || failed(Failure::after(Reason::UpstreamClosed, "it is gone"));
        let signal = self.events.recv().await.unwrap_or_else(gone);
        self.done = matches!(signal, Signal::Event(Event::Done(_)));
        signal
    }
}

impl Replies for Arc<Duplex> {
    fn reply<'a>(&'a self, message: &'a Message, _: &'a Access) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(self.say(message).is_ok()))
    }

    fn tell<'a>(&'a self, message: &'a Message) -> BoxFuture<'a, bool> {
        Box::pin(std::future::ready(self.say(message).is_ok()))
    }
}

/// The end of a request that came to nothing.
pub(super) const fn failed(failure: Failure) -> Signal {
    Signal::Event(Event::Done(Outcome::Failed(failure)))
}

impl<P: Holder> Drop for DuplexAnswers<P> {
    fn drop(&mut self) {
        let duplex = self.duplex.duplex();
        let open = duplex.lock().open.remove(&self.id).filter(|_| !self.done);
        if let Some(open) = open {
            // One that does not read what is said to it will not read this either.
            let _ = duplex.say(&cancelled(self.id, open.waiting.last_words.as_ref()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_a_bad_line_is_found_where_it_can_be() {
        assert_eq!(salvaged_id(br#"{"jsonrpc":"2.0","id":7,"result":[]}"#), Some(7));
        assert_eq!(salvaged_id(br#"{"id":7,"id":8}"#), None);
        assert_eq!(salvaged_id(br#"{"id":7,"result":"#), None);
    }
}
