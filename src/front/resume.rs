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
use super::session::{SessionKey, StreamLease};
use super::stream::KEEP_ALIVE;
use super::track::{Reader, Track, Tracks};
use crate::ids::{PrincipalKey, ReplicaId};
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
    tracks: Tracks,
    session: SessionKey,
    track: Arc<Track>,
    /// The server closed the stream of the call: it is to be come back to.
    closed: bool,
}

/// How a call that streams began.
#[derive(Clone, Copy)]
pub(super) enum Start<'a> {
    /// With a notification.
    Said(&'a Message),
    /// With nothing, for long enough to be worth coming back to.
    Silent,
    /// With its server closing the stream, which wants its clients to come back later.
    Closed,
}

impl<P: Pipeline> Call<P> {
    /// Waits for something to be said.
    async fn advance(&mut self) {
        let Some(ongoing) = &mut self.ongoing else { return };
        self.tracks.keep(self.session, &self.track);
        let event = ongoing.next().await;
        self.closed |= matches!(event, Some(Event::StreamClosed));
        if !goes_on(&self.track, event, &self.id, self.method) {
            self.ongoing = None;
        }
    }
}

/// Keeps what a call said; answers whether it goes on.
fn goes_on(track: &Track, event: Option<Event>, id: &Json, method: Method) -> bool {
    match event {
        Some(Event::Notification(message)) => {
            track.say(&message);
            return true;
        }
        Some(Event::StreamClosed) => return true,
        Some(Event::Done(outcome)) => track.say(&reply::reply(&outcome, id, method, Era::Legacy).message),
        // Cancelled by the client: there is no response (cancellation, behaviour requirements).
        None => {}
    }
    track.finish();
    false
}

impl<P: Pipeline> Drop for Call<P> {
    fn drop(&mut self) {
        let Some(mut ongoing) = self.ongoing.take() else { return };
        // Outside of a runtime everything ends anyway. The task ends with the call, which has its own time-outs.
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let (id, method, track) = (self.id.clone(), self.method, Arc::clone(&self.track));
        let (tracks, session) = (self.tracks.clone(), self.session);
        // It holds no `Call`: one that is dropped together with the runtime would spawn the next one, without end.
        drop(runtime.spawn(async move {
            loop {
                tracks.keep(session, &track);
                let waited = tokio::time::timeout(limit::STREAM_KEEP_ALIVE, ongoing.next()).await;
                let Ok(event) = waited else { continue };
                if !goes_on(&track, event, &id, method) {
                    return;
                }
            }
        }));
    }
}

/// A call that streams. Where its server closes its stream this one is closed too (2025-11-25, SEP-1699): the client
/// comes back with the id that it has, and whatever is said meanwhile is kept.
pub(super) fn of_call<P: Pipeline>(
    start: Start<'_>,
    ongoing: Ongoing<P>,
    id: Json,
    method: Method,
    (tracks, principal, session, at): (&Tracks, PrincipalKey, SessionKey, Option<ReplicaId>),
    version: Version,
) -> Body {
    let track = tracks.of_call(principal, session, at);
    let reader = track.read(None);
    let greeting = Some(greeting(&reader, version));
    if let Start::Said(first) = start {
        track.say(first);
    }
    let closed = matches!(start, Start::Closed);
    let comes_back = version == Version::V2025_11_25;
    let call = Call { ongoing: Some(ongoing), id, method, tracks: tracks.clone(), session, track, closed };
    Body::from_stream(stream::unfold((greeting, reader, call), move |(greeting, mut reader, mut call)| async move {
        if let Some(greeting) = greeting {
            return Some((written(greeting), (None, reader, call)));
        }
        let bytes = loop {
            if call.closed && comes_back {
                return None;
            }
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
pub(super) fn of_session<P: Pipeline>(
    reader: Reader,
    attendance: Attendance<P>,
    lease: StreamLease,
    version: Version,
) -> Body {
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
