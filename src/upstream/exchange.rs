//! One request under way: notifications while it runs, and exactly one end.

use std::collections::VecDeque;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::DropGuard;

use super::parked::{Asker, Question};
use crate::ids::ProcessId;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::meta;
use crate::wire::{Edit, Json, Message};

/// What comes back while a request is under way.
#[derive(Debug)]
pub enum Event {
    /// A notification that belongs to this request; its progress token is the client's again.
    Notification(Message),
    /// The server closed the stream of the call and goes on with it: whoever can come back may come back later.
    StreamClosed,
    /// The end; exactly once, and nothing after it.
    Done(Outcome),
}

/// One request under way. Dropping it cancels the request.
///
/// A plain request over HTTP is polled by whoever waits for it, without a task or a channel of its own;
/// a stream or a process feeds a channel.
pub struct Exchange {
    state: State,
    /// The process that works on it, once it has begun to answer.
    process: Option<ProcessId>,
}

enum State {
    /// Polled in place until it turns out to be a stream or an end.
    Opening(BoxFuture<'static, Opened>),
    /// Fed by a task.
    Streaming(Stream),
    /// Fed by somebody else's task; dropping the receiver and the guard ends it.
    Fed { events: mpsc::Receiver<Event>, _cancel: DropGuard },
    /// The end was given.
    Finished,
}

/// What comes out of a transport: an event, or something that a legacy server asks.
#[derive(Debug)]
pub(super) enum Signal {
    Event(Event),
    Asked(Question),
}

/// Signals that a task feeds; dropping it ends the task, which cancels the request.
pub struct Stream {
    signals: mpsc::Receiver<Signal>,
    _cancel: DropGuard,
    asker: Option<Arc<Asker>>,
    /// The progress token of the leg that goes on, where it is not the first.
    reported_as: Option<Option<Json>>,
    /// What was asked in this leg, and until when more is waited for.
    asked: Vec<Question>,
    gathering: Option<Instant>,
    /// What came while more questions were waited for.
    later: VecDeque<Signal>,
    process: Option<ProcessId>,
}

/// What comes next out of a stream.
enum Next {
    Event(Event),
    /// Everything that was asked at once.
    Asked(Vec<Question>),
    /// It ended without a word.
    Lost,
}

impl Stream {
    pub(super) const fn new(signals: mpsc::Receiver<Signal>, cancel: DropGuard, asker: Option<Arc<Asker>>) -> Self {
        Self {
            signals,
            _cancel: cancel,
            asker,
            reported_as: None,
            asked: Vec::new(),
            gathering: None,
            later: VecDeque::new(),
            process: None,
        }
    }

    /// What comes next. Questions that a server asks one right after the other come together, as a modern server would
    /// ask them; it never says that there will be more, so nothing else than a moment is waited for. Cancel-safe.
    async fn next(&mut self) -> Next {
        loop {
            let signal = match self.gathering {
                None => match self.later.pop_front() {
                    Some(signal) => Some(signal),
                    None => self.signals.recv().await,
                },
                Some(_) if self.asked.len() >= limit::INPUT_REQUESTS_MAX => return self.everything_asked(),
                Some(until) => match tokio::time::timeout_at(until, self.signals.recv()).await {
                    Ok(Some(signal)) => Some(signal),
                    Ok(None) | Err(_) => return self.everything_asked(),
                },
            };
            match signal {
                Some(Signal::Asked(question)) => {
                    self.asked.push(question);
                    self.gathering = Some(Instant::now() + limit::INPUT_GATHERED_WITHIN);
                }
                Some(signal) if self.gathering.is_some() => {
                    self.later.push_back(signal);
                    return self.everything_asked();
                }
                Some(Signal::Event(event)) => return Next::Event(event),
                None => return Next::Lost,
            }
        }
    }

    fn everything_asked(&mut self) -> Next {
        self.gathering = None;
        Next::Asked(std::mem::take(&mut self.asked))
    }

    /// The same for another leg, which has a progress token of its own or none.
    pub(super) fn reporting_as(self, token: Option<Json>) -> Self {
        Self { reported_as: Some(token), ..self }
    }

    /// The notification as this leg's client expects it; nothing where it does not.
    fn reported(&self, message: Message) -> Option<Message> {
        let Some(token) = &self.reported_as else { return Some(message) };
        if message.method() != "notifications/progress" {
            return Some(message);
        }
        let params = message.params()?.edited(&[Edit::Set(meta::PROGRESS_TOKEN, token.clone()?)]);
        Some(Message::notification("notifications/progress", Some(&params)))
    }
}

/// What a request turned out to be.
pub enum Opened {
    /// It is over.
    Done(Outcome),
    /// The same, and a process has answered it.
    Answered(ProcessId, Outcome),
    /// It streams.
    Streaming(Stream),
}

impl Opened {
    /// The same of a request that this process works on.
    pub(super) fn at(self, process: ProcessId) -> Self {
        match self {
            Self::Done(outcome) | Self::Answered(_, outcome) => Self::Answered(process, outcome),
            Self::Streaming(stream) => Self::Streaming(Stream { process: Some(process), ..stream }),
        }
    }
}

impl Exchange {
    /// An exchange that is opened when it is first polled.
    #[must_use]
    pub fn opening(opening: BoxFuture<'static, Opened>) -> Self {
        Self { state: State::Opening(opening), process: None }
    }

    /// An exchange that a task outside of this room feeds.
    #[must_use]
    pub const fn streaming(events: mpsc::Receiver<Event>, cancel: DropGuard) -> Self {
        Self { state: State::Fed { events, _cancel: cancel }, process: None }
    }

    /// An exchange that is over before it began.
    #[must_use]
    pub fn finished(outcome: Outcome) -> Self {
        Self::opening(Box::pin(std::future::ready(Opened::Done(outcome))))
    }

    /// The process that works on it; none, where there is none or nothing has come back yet.
    #[must_use]
    pub const fn process(&self) -> Option<ProcessId> {
        self.process
    }

    /// The next event; after [`Event::Done`] it is [`Event::Done`] with a failure for ever.
    ///
    /// Cancel-safe: dropping the future loses nothing.
    pub async fn next(&mut self) -> Event {
        loop {
            match &mut self.state {
                State::Opening(opening) => match opening.await {
                    Opened::Done(outcome) => {
                        self.state = State::Finished;
                        return Event::Done(outcome);
                    }
                    Opened::Answered(process, outcome) => {
                        (self.state, self.process) = (State::Finished, Some(process));
                        return Event::Done(outcome);
                    }
                    Opened::Streaming(stream) => {
                        self.process = stream.process;
                        self.state = State::Streaming(stream);
                    }
                },
                State::Streaming(stream) => match stream.next().await {
                    Next::Event(Event::Notification(message)) => {
                        if let Some(message) = stream.reported(message) {
                            return Event::Notification(message);
                        }
                    }
                    Next::Event(Event::StreamClosed) => return Event::StreamClosed,
                    Next::Event(event) => {
                        self.state = State::Finished;
                        return event;
                    }
                    Next::Asked(questions) => return Event::Done(self.park(questions)),
                    // A feeder that ends without a word is a defect; it still must not hang the client.
                    Next::Lost => {
                        self.state = State::Finished;
                        return lost("the exchange ended without an outcome");
                    }
                },
                State::Fed { events, .. } => {
                    let event = events.recv().await;
                    if matches!(event, Some(Event::Done(_)) | None) {
                        self.state = State::Finished;
                    }
                    return event.unwrap_or_else(|| lost("the exchange ended without an outcome"));
                }
                State::Finished => return lost("the exchange is over already"),
            }
        }
    }
}

impl Exchange {
    /// Ends this leg with the questions; the exchange waits elsewhere for the next one.
    fn park(&mut self, questions: Vec<Question>) -> Outcome {
        let asked = "something was asked where nothing can be";
        let State::Streaming(stream) = std::mem::replace(&mut self.state, State::Finished) else {
            return Outcome::Failed(Failure::after(Reason::Internal, asked));
        };
        match stream.asker.clone() {
            Some(asker) => asker.park(stream, questions),
            None => Outcome::Failed(Failure::after(Reason::Internal, asked)),
        }
    }
}

fn lost(detail: &str) -> Event {
    Event::Done(Outcome::Failed(Failure::after(Reason::UpstreamClosed, detail)))
}
