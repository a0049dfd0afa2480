//! The events of one HTTP request that is answered by a stream.
//!
//! Decides what happens when a stream breaks off: a legacy one is taken up again where it ended.
//! Knows nothing of what the messages say. Invariant: dropping it cancels the request.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use http_body_util::BodyExt;
use hyper::body::Incoming;

use super::answer::{Heard, Waiting, garbage, reply_to_server};
use super::drive::Answers;
use super::exchange::{Event, Signal};
use super::gate::Permit;
use super::http::causes;
use super::legacy::{CancelNotice, Conversation};
use super::parked::{Asker, Question};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::{Message, Source, sse};

/// The events of one request.
pub(super) struct Events {
    body: Incoming,
    reader: sse::Reader,
    ready: VecDeque<sse::Event>,
    waiting: Waiting,
    legacy: Option<Legacy>,
    /// The stream was closed and is taken up again next.
    closed: bool,
    /// The place among the calls in flight.
    _permit: Option<Permit>,
}

/// What only a legacy stream has.
struct Legacy {
    conversation: Conversation,
    cancel: Option<CancelNotice>,
    last_event_id: Option<String>,
    pause: Duration,
    resumes: usize,
    asked: usize,
    /// Through whom the server can ask the caller, where it can.
    asker: Option<Arc<Asker>>,
}

impl Events {
    /// The events of a modern request; dropping the body cancels it.
    pub(super) fn modern(body: Incoming, waiting: Waiting, permit: Option<Permit>) -> Self {
        let reader = sse::Reader::new(limit::RESPONSE_BYTES_MAX);
        Self { body, reader, ready: VecDeque::new(), waiting, legacy: None, closed: false, _permit: permit }
    }

    /// The events of a legacy request; cancelled by a notification.
    pub(super) fn legacy(
        body: Incoming,
        waiting: Waiting,
        permit: Option<Permit>,
        conversation: Conversation,
        cancel: Option<CancelNotice>,
    ) -> Self {
        let legacy = Legacy {
            conversation,
            cancel,
            last_event_id: None,
            pause: Duration::from_secs(1),
            resumes: 0,
            asked: 0,
            asker: None,
        };
        Self { legacy: Some(legacy), ..Self::modern(body, waiting, permit) }
    }

    /// The same where the server can ask the caller.
    pub(super) fn asking(mut self, asker: Option<Arc<Asker>>) -> Self {
        if let Some(legacy) = &mut self.legacy {
            legacy.asker = asker;
        }
        self
    }

    fn end(&mut self, outcome: Outcome) -> Signal {
        if let Some(cancel) = self.legacy.as_mut().and_then(|legacy| legacy.cancel.take()) {
            cancel.not_needed();
        }
        Signal::Event(Event::Done(outcome))
    }

    /// What one event of the stream is to the request.
    async fn hear(&mut self, event: sse::Event) -> Option<Signal> {
        if let Some(legacy) = &mut self.legacy {
            if event.id.is_some() {
                legacy.last_event_id.clone_from(&event.id);
            }
            if let Some(pause_ms) = event.retry_ms {
                legacy.pause = Duration::from_millis(pause_ms).min(limit::RESUME_PAUSE_MAX);
            }
        }
        if event.data.is_empty() || !matches!(event.name.as_str(), "" | "message") {
            return None;
        }
        let message = match Message::parse(event.data, Source::Upstream) {
            Ok(message) => message,
            Err(error) => return Some(self.end(garbage(format!("an event is no message: {error}")))),
        };
        match self.waiting.hear(message) {
            Heard::Done(outcome) => Some(self.end(outcome)),
            Heard::Notification(message) => Some(Signal::Event(Event::Notification(message))),
            Heard::Nothing => None,
            Heard::Asked(request) => {
                let legacy = self.legacy.as_mut()?;
                legacy.asked += 1;
                if legacy.asked > limit::SERVER_REQUESTS_PER_CALL_MAX {
                    return Some(self.end(garbage("it asked too much within one call")));
                }
                if let Some(asker) = &legacy.asker
                    && let Some(question) = Question::of(&request, asker.askable)
                {
                    asker.pause.asked();
                    return Some(Signal::Asked(question));
                }
                if let Some(reply) = reply_to_server(&request) {
                    // Not in place: whoever draws may turn to something else meanwhile.
                    let conversation = legacy.conversation.clone();
                    tokio::spawn(async move { conversation.say(&reply).await });
                }
                None
            }
        }
    }

    /// Whether a server that ended its stream in order meant that its call goes on (2025-11-25, SEP-1699).
    fn goes_on(&self) -> bool {
        let legacy = self.legacy.as_ref().filter(|legacy| legacy.resumes < limit::RESUMES_PER_CALL_MAX);
        legacy.is_some_and(|legacy| legacy.cancel.is_some() && legacy.last_event_id.is_some())
    }

    /// Takes a legacy stream up again that broke off; answers whether there is more to read.
    async fn resume(&mut self) -> bool {
        let Some(legacy) = &mut self.legacy else { return false };
        let Some(last_event_id) = legacy.last_event_id.as_deref() else { return false };
        if legacy.resumes >= limit::RESUMES_PER_CALL_MAX {
            return false;
        }
        legacy.resumes += 1;
        tokio::time::sleep(legacy.pause).await;
        let Some(body) = legacy.conversation.stream(Some(last_event_id)).await.ok().flatten() else { return false };
        self.body = body;
        self.reader = sse::Reader::new(limit::RESPONSE_BYTES_MAX);
        self.closed = false;
        true
    }
}

impl Answers for Events {
    async fn draw(&mut self) -> Signal {
        loop {
            while let Some(event) = self.ready.pop_front() {
                if let Some(event) = self.hear(event).await {
                    return event;
                }
            }
            match self.body.frame().await {
                None if !self.closed && self.goes_on() => {
                    self.closed = true;
                    return Signal::Event(Event::StreamClosed);
                }
                Some(Ok(frame)) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let ready = &mut self.ready;
                    if let Err(error) = self.reader.push(&data, &mut |event| ready.push_back(event)) {
                        return self.end(garbage(error.to_string()));
                    }
                }
                broken => {
                    if self.resume().await {
                        continue;
                    }
                    let detail = match &broken {
                        Some(Err(error)) => causes(error),
                        _ => "the stream ended without an answer".to_owned(),
                    };
                    return self.end(Outcome::Failed(Failure::after(Reason::UpstreamClosed, detail)));
                }
            }
        }
    }
}
