//! Draws the events of one request out of whatever carries them, within its time limits.
//!
//! Decides when waiting is over. Knows nothing of transports or eras. Invariant: there is exactly one
//! end, and an upstream that says nothing gets one too.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::exchange::{Event, Opened};
use crate::config::HealthConfig;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};

/// Where the events of one request come from. Dropping it cancels the request.
pub(super) trait Answers: Send + 'static {
    /// The next event; not asked again after [`Event::Done`].
    fn next(&mut self) -> impl Future<Output = Event> + Send;
}

/// How long one request may take.
#[derive(Debug, Clone, Copy)]
pub(super) struct Patience {
    /// Until the first byte of an answer.
    pub(super) first_byte: Instant,
    /// Between two events.
    pub(super) idle: Duration,
    /// Until the end.
    pub(super) deadline: Instant,
}

impl Patience {
    /// For a request that has an end.
    pub(super) fn call(health: &HealthConfig) -> Self {
        let now = Instant::now();
        let deadline = now + health.call_timeout;
        Self { first_byte: (now + health.first_byte_timeout).min(deadline), idle: health.idle_timeout, deadline }
    }

    /// For a stream that stays open.
    pub(super) fn listening(health: &HealthConfig) -> Self {
        let now = Instant::now();
        // A year: longer than any process or connection lives.
        let deadline = now + Duration::from_secs(365 * 24 * 3600);
        Self { first_byte: now + health.first_byte_timeout, idle: limit::CHANGE_STREAM_IDLE, deadline }
    }

    /// For the beginning of a connection or process.
    pub(super) fn connect(health: &HealthConfig) -> Self {
        let deadline = Instant::now() + health.connect_timeout;
        Self { first_byte: deadline, idle: health.connect_timeout, deadline }
    }

    /// When the next event must have come.
    pub(super) fn next_event(&self) -> Instant {
        (Instant::now() + self.idle).min(self.deadline)
    }
}

/// That time is over.
pub(super) fn timed_out(what: &str) -> Outcome {
    Outcome::Failed(Failure::after(Reason::UpstreamTimeout, what))
}

/// Waits for the first event in place, until `first`; goes on in a task only if there is more than the end.
pub(super) async fn drive(mut answers: impl Answers, patience: Patience, first: Instant) -> Opened {
    match next(&mut answers, first).await {
        Event::Done(outcome) => Opened::Done(outcome),
        first => {
            let (sender, receiver) = mpsc::channel(limit::EXCHANGE_EVENTS_MAX);
            let cancelled = CancellationToken::new();
            let guard = cancelled.clone().drop_guard();
            tokio::spawn(async move {
                // Dropping the answers tells the upstream, so that must happen however this ends.
                tokio::select! {
                    () = cancelled.cancelled() => {}
                    () = feed(answers, first, patience, sender) => {}
                }
            });
            Opened::Streaming(receiver, guard)
        }
    }
}

async fn feed(mut answers: impl Answers, first: Event, patience: Patience, sender: mpsc::Sender<Event>) {
    let mut event = first;
    loop {
        let done = matches!(event, Event::Done(_));
        if sender.send(event).await.is_err() || done {
            return;
        }
        event = next(&mut answers, patience.next_event()).await;
    }
}

async fn next(answers: &mut impl Answers, until: Instant) -> Event {
    match tokio::time::timeout_at(until, answers.next()).await {
        Ok(event) => event,
        Err(_) => Event::Done(timed_out("no event came in time")),
    }
}

/// Waits for the end and leaves the notifications out.
pub(super) async fn outcome(answers: &mut impl Answers, patience: Patience) -> Outcome {
    loop {
        if let Event::Done(outcome) = next(answers, patience.next_event()).await {
            return outcome;
        }
    }
}
