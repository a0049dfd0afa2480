//! One request under way: notifications while it runs, and exactly one end.

use futures_util::future::BoxFuture;
use tokio::sync::mpsc;

use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::Message;

/// What comes back while a request is under way.
#[derive(Debug)]
pub enum Event {
    /// A notification that belongs to this request; its progress token is the client's again.
    Notification(Message),
    /// The end; exactly once, and nothing after it.
    Done(Outcome),
}

/// One request under way. Dropping it cancels the request.
///
/// A plain request over HTTP is polled by whoever waits for it, without a task or a channel of its own;
/// a stream or a process feeds a channel.
pub struct Exchange {
    state: State,
}

enum State {
    /// Polled in place until it turns out to be a stream or an end.
    Opening(BoxFuture<'static, Opened>),
    /// Fed by a task; dropping the receiver and the guard ends it.
    Streaming { events: mpsc::Receiver<Event>, _cancel: tokio_util::sync::DropGuard },
    /// The end was given.
    Finished,
}

/// What a request turned out to be.
pub enum Opened {
    /// It is over.
    Done(Outcome),
    /// It streams. The guard cancels the task that feeds the channel.
    Streaming(mpsc::Receiver<Event>, tokio_util::sync::DropGuard),
}

impl Exchange {
    /// An exchange that is opened when it is first polled.
    #[must_use]
    pub fn opening(opening: BoxFuture<'static, Opened>) -> Self {
        Self { state: State::Opening(opening) }
    }

    /// An exchange that a task feeds.
    #[must_use]
    pub const fn streaming(events: mpsc::Receiver<Event>, cancel: tokio_util::sync::DropGuard) -> Self {
        Self { state: State::Streaming { events, _cancel: cancel } }
    }

    /// An exchange that is over before it began.
    #[must_use]
    pub fn finished(outcome: Outcome) -> Self {
        Self::opening(Box::pin(std::future::ready(Opened::Done(outcome))))
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
                    Opened::Streaming(events, cancel) => self.state = State::Streaming { events, _cancel: cancel },
                },
                State::Streaming { events, .. } => {
                    let event = events.recv().await;
                    if !matches!(event, Some(Event::Notification(_))) {
                        self.state = State::Finished;
                    }
                    // A feeder that ends without a word is a defect; it still must not hang the client.
                    return event.unwrap_or_else(|| lost("the exchange ended without an outcome"));
                }
                State::Finished => return lost("the exchange is over already"),
            }
        }
    }
}

fn lost(detail: &str) -> Event {
    Event::Done(Outcome::Failed(Failure::after(Reason::UpstreamClosed, detail)))
}
