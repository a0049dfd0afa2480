//! A call on its way to a client, and what happens to it when that client goes away: a modern call is
//! cancelled, a legacy call goes on (2025-11-25, transports: a disconnect is not a cancellation).
//!
//! A legacy client is asked in the middle of its call what a modern one is answered with `input_required`,
//! and the retry is made for it: a new leg through the whole pipeline. Invariant: a call under way is polled
//! to its end, or dropped because somebody cancelled it.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use super::pipeline::Pipeline;
use super::questions::{Interview, Round};
use super::session::Registration;
use crate::call::Request;
use crate::outcome::{Failure, Outcome, Reason};
use crate::upstream::Event;

/// A call on its way to a client.
pub(super) struct Ongoing<P: Pipeline> {
    state: State<P>,
    /// Of a legacy call.
    legacy: Option<Box<Legacy<P>>>,
}

/// What only a legacy call has.
struct Legacy<P: Pipeline> {
    registration: Registration,
    interview: Interview<P>,
}

enum State<P: Pipeline> {
    /// Not decided yet.
    Starting(BoxFuture<'static, P::Running>),
    Running(P::Running),
    /// The client is asked.
    Asking(Box<Round<P>>),
    Over,
}

impl<P: Pipeline> Ongoing<P> {
    /// A call that is cancelled when this is dropped.
    pub(super) async fn modern(pipeline: Arc<P>, caller: P::Caller, request: Box<Request>) -> Self {
        Self { state: State::Running(pipeline.call(caller, request).await), legacy: None }
    }

    /// A call that goes on when this is dropped, until its registration says that it is cancelled.
    pub(super) fn legacy(interview: Interview<P>, registration: Registration) -> Self {
        let state = starting(&interview, interview.request.clone());
        Self { state, legacy: Some(Box::new(Legacy { registration, interview })) }
    }

    /// Waits until the call was decided: before that its refusal may need a status of its own. Answers whether it was, and
    /// not cancelled before. Cancel-safe.
    pub(super) async fn decided(&mut self) -> bool {
        if let State::Starting(starting) = &mut self.state {
            let decided = async { Some(starting.await) };
            let running = match &self.legacy {
                Some(legacy) => legacy.registration.token().run_until_cancelled(decided).await.flatten(),
                None => decided.await,
            };
            // A cancelled call is found to be so by whoever asks for its next event.
            if let Some(running) = running {
                self.state = State::Running(running);
            }
        }
        matches!(self.state, State::Running(_))
    }

    /// The next event, a question to a legacy client among them; `None` when the client cancelled the call.
    pub(super) async fn next(&mut self) -> Option<Event> {
        next(&mut self.state, self.legacy.as_deref_mut()).await
    }
}

impl<P: Pipeline> Drop for Ongoing<P> {
    fn drop(&mut self) {
        let Some(mut legacy) = self.legacy.take() else { return };
        let mut state = std::mem::replace(&mut self.state, State::Over);
        if matches!(state, State::Over) {
            return;
        }
        // Outside of a runtime everything ends anyway. The task ends with the call, which has its own time-outs.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            runtime.spawn(async move {
                while let Some(Event::Notification(_) | Event::StreamClosed) =
                    next::<P>(&mut state, Some(&mut legacy)).await
                {}
            });
        }
    }
}

fn starting<P: Pipeline>(interview: &Interview<P>, request: Request) -> State<P> {
    State::Starting(Box::pin(Arc::clone(&interview.pipeline).call(interview.caller.clone(), Box::new(request))))
}

async fn next<P: Pipeline>(state: &mut State<P>, legacy: Option<&mut Legacy<P>>) -> Option<Event> {
    let Some(legacy) = legacy else { return Some(advance(state, None).await) };
    tokio::select! {
        biased;
        () = legacy.registration.token().cancelled() => {
            *state = State::Over;
            None
        }
        event = advance(state, Some(&mut legacy.interview)) => {
            if let Event::Done(outcome) = &event {
                legacy.interview.ended(outcome);
            }
            Some(event)
        }
    }
}

async fn advance<P: Pipeline>(state: &mut State<P>, mut interview: Option<&mut Interview<P>>) -> Event {
    loop {
        match state {
            State::Starting(starting) => {
                let running = starting.await;
                *state = State::Running(running);
            }
            State::Running(running) => match (P::next_event(running).await, interview.as_deref()) {
                (Event::Done(Outcome::InputRequired { result, resume, .. }), Some(interview)) => {
                    match interview.begin(&result, resume) {
                        Ok(round) => *state = State::Asking(Box::new(round)),
                        Err(outcome) => {
                            *state = State::Over;
                            return Event::Done(outcome);
                        }
                    }
                }
                // A modern client learns of that by its retry, and knows no such notification.
                (Event::Notification(message), None) if message.method() == "notifications/elicitation/complete" => {}
                (event, _) => {
                    if matches!(event, Event::Done(_)) {
                        *state = State::Over;
                    }
                    return event;
                }
            },
            State::Asking(round) => {
                if let Some(question) = round.next_unsent() {
                    return Event::Notification(question);
                }
                let Some(interview) = interview.as_deref_mut() else { return over() };
                match round.answered(interview).await {
                    Ok(retry) => *state = starting(interview, retry),
                    Err(outcome) => {
                        *state = State::Over;
                        return Event::Done(outcome);
                    }
                }
            }
            State::Over => return over(),
        }
    }
}

fn over() -> Event {
    Event::Done(Outcome::Failed(Failure::after(Reason::Internal, "the call is over already")))
}
