//! A call on its way to a client, and what happens to it when that client goes away: a modern call is
//! cancelled, a legacy call goes on (2025-11-25, transports: a disconnect is not a cancellation).
//!
//! Invariant: a call under way is polled to its end, or dropped because somebody cancelled it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::pipeline::Pipeline;
use super::session::Registration;
use crate::call::Request;
use crate::outcome::{Failure, Outcome, Reason};
use crate::upstream::Event;

/// A call on its way to a client.
pub(super) struct Ongoing<P: Pipeline> {
    state: State<P>,
    /// Of a legacy call.
    registration: Option<Registration>,
}

enum State<P: Pipeline> {
    /// Not decided yet.
    Starting(BoxFuture<'static, P::Running>),
    Running(P::Running),
    Over,
}

impl<P: Pipeline> Ongoing<P> {
    /// A call that is cancelled when this is dropped.
    pub(super) async fn modern(pipeline: Arc<P>, caller: P::Caller, request: Request) -> Self {
        Self { state: State::Running(pipeline.call(caller, request).await), registration: None }
    }

    /// A call that goes on when this is dropped, until its registration says that it is cancelled.
    pub(super) fn legacy(pipeline: Arc<P>, caller: P::Caller, request: Request, registration: Registration) -> Self {
        Self { state: State::Starting(Box::pin(pipeline.call(caller, request))), registration: Some(registration) }
    }

    /// The next event; `None` when the client cancelled the call.
    pub(super) async fn next(&mut self) -> Option<Event> {
        next(&mut self.state, self.registration.as_ref()).await
    }
}

impl<P: Pipeline> Drop for Ongoing<P> {
    fn drop(&mut self) {
        let Some(registration) = self.registration.take() else { return };
        let mut state = std::mem::replace(&mut self.state, State::Over);
        if matches!(state, State::Over) {
            return;
        }
        // Outside of a runtime everything ends anyway. The task ends with the call, which has its own time-outs.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while let Some(Event::Notification(_)) = next::<P>(&mut state, Some(&registration)).await {}
            });
        }
    }
}

async fn next<P: Pipeline>(state: &mut State<P>, registration: Option<&Registration>) -> Option<Event> {
    let Some(registration) = registration else { return Some(advance(state).await) };
    tokio::select! {
        biased;
        () = registration.token().cancelled() => {
            *state = State::Over;
            None
        }
        event = advance(state) => Some(event),
    }
}

async fn advance<P: Pipeline>(state: &mut State<P>) -> Event {
    loop {
        match state {
            State::Starting(starting) => {
                let running = starting.await;
                *state = State::Running(running);
            }
            State::Running(running) => {
                let event = P::next_event(running).await;
                if matches!(event, Event::Done(_)) {
                    *state = State::Over;
                }
                return event;
            }
            State::Over => {
                return Event::Done(Outcome::Failed(Failure::after(Reason::Internal, "the call is over already")));
            }
        }
    }
}
