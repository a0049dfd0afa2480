//! A legacy call that streams: its events have ids, and it can be read on after its connection broke.
//!
//! Decides nothing about the call. Invariant: the call is pulled by the connection that it is for; when that is gone
//! it goes on in the background and what it says is kept, within the bounds of its track.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use bytes::Bytes;
use futures_util::stream;

use super::mailbox::Attendance;
use super::ongoing::Ongoing;
use super::pipeline::Pipeline;
use super::session::StreamLease;
use super::stream::KEEP_ALIVE;
use super::track::{Reader, Track};
use crate::limit;
use crate::outcome::reply;
use crate::upstream::Event;
use crate::wire::mcp::{Era, Method, Version};
use crate::wire::{Json, Message};

/// A call under way, and what it has said.
struct Call<P: Pipeline> {
    /// `None` once it is over.
    ongoing: Option<Ongoing<P>>,
    id: Json,
    method: Method,
    track: Arc<Track>,
}

impl<P: Pipeline> Call<P> {
    /// Waits for something to be said.
    async fn advance(&mut self) {
        let Some(ongoing) = &mut self.ongoing else { return };
        match ongoing.next().await {
            Some(Event::Notification(message)) => return self.track.say(&message),
            Some(Event::Done(outcome)) => {
                self.track.say(&reply::reply(&outcome, &self.id, self.method, Era::Legacy).message);
            }
            // Cancelled by the client: there is no response (cancellation, behaviour requirements).
            None => {}
        }
        self.ongoing = None;
        self.track.finish();
    }
}

impl<P: Pipeline> Drop for Call<P> {
    fn drop(&mut self) {
        let Some(ongoing) = self.ongoing.take() else { return };
        let mut rest =
            Self { ongoing: Some(ongoing), id: self.id.clone(), method: self.method, track: Arc::clone(&self.track) };
        // Outside of a runtime everything ends anyway. The task ends with the call, which has its own time-outs.
        match tokio::runtime::Handle::try_current() {
            Ok(runtime) => drop(runtime.spawn(async move {
                while rest.ongoing.is_some() {
                    rest.advance().await;
                }
            })),
            Err(_) => rest.ongoing = None,
        }
    }
}

/// A call whose first event was a notification, or that said nothing for long enough to be worth coming back to.
pub(super) fn of_call<P: Pipeline>(
    first: Option<&Message>,
    ongoing: Ongoing<P>,
    id: Json,
    method: Method,
    track: Arc<Track>,
    version: Version,
) -> Body {
    let reader = track.read(None);
    let greeting = Some(greeting(&reader, version));
    if let Some(first) = first {
        track.say(first);
    }
    let call = Call { ongoing: Some(ongoing), id, method, track };
    Body::from_stream(stream::unfold((greeting, reader, call), |(greeting, mut reader, mut call)| async move {
        if let Some(greeting) = greeting {
            return Some((written(greeting), (None, reader, call)));
        }
        let bytes = loop {
            // Only what is there already ends this at once; whoever comes with an id takes the rest.
            let mut replaced = false;
            let waited = tokio::select! {
                biased;
                event = reader.next() => match event {
                    Some(event) => break event,
                    None => { replaced = true; Ok(()) }
                },
                waited = tokio::time::timeout(limit::STREAM_KEEP_ALIVE, call.advance()) => waited,
            };
            if replaced {
                return None;
            }
            if waited.is_err() {
                break KEEP_ALIVE;
            }
        };
        Some((written(bytes), (None, reader, call)))
    }))
}

/// A call that is read on by another connection than the one that it came by.
pub(super) fn of_rest(reader: Reader, version: Version) -> Body {
    let greeting = Some(greeting(&reader, version));
    Body::from_stream(stream::unfold((greeting, reader), |(greeting, mut reader)| async move {
        if let Some(greeting) = greeting {
            return Some((written(greeting), (None, reader)));
        }
        match tokio::time::timeout(limit::STREAM_KEEP_ALIVE, reader.next()).await {
            Err(_) => Some((written(KEEP_ALIVE), (None, reader))),
            Ok(event) => event.map(|event| (written(event), (None, reader))),
        }
    }))
}

/// A session's own stream: what belongs to no call.
pub(super) fn of_session(reader: Reader, attendance: Attendance, lease: StreamLease, version: Version) -> Body {
    let greeting = Some(greeting(&reader, version));
    let held = (reader, attendance, lease);
    Body::from_stream(stream::unfold((greeting, held), |(greeting, mut held)| async move {
        if let Some(greeting) = greeting {
            return Some((written(greeting), (None, held)));
        }
        let (reader, _, lease) = &mut held;
        let event = tokio::select! {
            biased;
            () = lease.token().cancelled() => return None,
            event = tokio::time::timeout(limit::STREAM_KEEP_ALIVE, reader.next()) => event,
        };
        match event {
            Err(_) => Some((written(KEEP_ALIVE), (None, held))),
            Ok(event) => event.map(|event| (written(event), (None, held))),
        }
    }))
}

/// What makes the headers leave at once: an event that can be come back to, for those who know such events.
fn greeting(reader: &Reader, version: Version) -> Bytes {
    if version == Version::V2025_11_25 { reader.greeting() } else { KEEP_ALIVE }
}

fn written(bytes: Bytes) -> Result<Bytes, Infallible> {
    Ok(bytes)
}
