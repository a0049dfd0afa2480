//! What one stream of a legacy session has said lately, so that it can be taken up where it broke off.
//!
//! Decides what is kept and for how long. Knows nothing of who says it. Invariant: an event has one id and goes out
//! on one stream; what is kept is bounded for each stream, for each principal and for all of them together, and whoever
//! keeps most gives way first.

use std::cmp::Reverse;
use std::collections::VecDeque;
use std::fmt::Write as _;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use moka::sync::Cache;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::count::Count;
use super::owned::{Own, Owners, Part};
use super::session::SessionKey;
use crate::ids::{Digest, PrincipalKey, ReplicaId};
use crate::limit;
use crate::wire::{Message, sse};

/// The name of every session's own stream.
pub(super) const OWN_STREAM: u64 = 0;

/// One stream's recent events.
#[derive(Debug)]
pub(super) struct Track {
    /// As its events name it: nothing that tells of other sessions.
    name: u64,
    /// This replica, where the session is another one's, which has to find the way back by the ids of the events.
    at: Option<ReplicaId>,
    /// Which of all came first.
    order: u64,
    kept: Mutex<Kept>,
    /// Something was said, or the stream is over.
    grown: Notify,
    /// What its principal keeps.
    part: Part,
    /// What all tracks keep together.
    bytes: Arc<AtomicUsize>,
}

#[derive(Debug, Default)]
struct Kept {
    /// The number of the last event.
    last: u64,
    /// The number of the last event that went out.
    sent: u64,
    events: VecDeque<(u64, Bytes)>,
    bytes: usize,
    over: bool,
    /// Ends the reader that is there, when another one comes.
    reader: CancellationToken,
}

/// The tracks of calls that may still be taken up again, and what all tracks keep. Cheap to clone.
#[derive(Debug, Clone)]
pub(super) struct Tracks {
    calls: Cache<(SessionKey, u64), Arc<Track>>,
    owners: Owners,
    orders: Arc<Count>,
    bytes: Arc<AtomicUsize>,
}

/// Reads one track from some event on.
#[derive(Debug)]
pub(super) struct Reader {
    track: Arc<Track>,
    at: u64,
    /// Fires when another reader has come.
    replaced: CancellationToken,
}

impl Tracks {
    pub(super) fn new() -> Self {
        Self {
            calls: Cache::builder()
                .max_capacity(limit::TRACKS_MAX)
                // Whoever comes last finds a place, whatever others have filled.
                .eviction_policy(moka::policy::EvictionPolicy::lru())
                // Quiet calls are kept by whoever runs them; what nobody reads or says is forgotten.
                .time_to_idle(limit::TRACK_IDLE_MAX)
                .build(),
            owners: Owners::new(limit::SESSION_AGE_MAX),
            orders: Arc::default(),
            bytes: Arc::default(),
        }
    }

    /// The track of a session's own stream.
    pub(super) fn of_session(&self, principal: PrincipalKey) -> Arc<Track> {
        let part = self.owners.of(principal).part(0);
        Arc::new(Track::new((OWN_STREAM, None), self.orders.next(), part, Arc::clone(&self.bytes)))
    }

    /// A track for a call, to be found again by the ids of its events; those name this replica where it is given, because
    /// the session is another one's.
    pub(super) fn of_call(&self, principal: PrincipalKey, session: SessionKey, at: Option<ReplicaId>) -> Arc<Track> {
        let own = self.owners.of(principal);
        self.make_room(&own);
        let order = self.orders.next();
        let name = name_of(session, order);
        let track = Arc::new(Track::new((name, at), order, own.part(0), Arc::clone(&self.bytes)));
        self.calls.insert((session, name), Arc::clone(&track));
        track
    }

    /// Whoever comes back finds this one for a while yet.
    pub(super) fn keep(&self, session: SessionKey, track: &Arc<Track>) {
        self.calls.insert((session, track.name), Arc::clone(track));
    }

    /// What nobody speaks on or reads any more gives way: of a principal that keeps too much, its oldest; once all keep too
    /// much together, the oldest of whoever keeps most.
    fn make_room(&self, own: &Arc<Own>) {
        let all = || self.bytes.load(Ordering::Acquire);
        let (bytes, parts) = own.held();
        let is_greedy = bytes > limit::TRACKS_PER_PRINCIPAL_BYTES_MAX || parts >= limit::TRACKS_PER_PRINCIPAL_MAX;
        if !is_greedy && all() <= limit::TRACKS_BYTES_MAX {
            return;
        }
        // One reference is the cache's and one is ours: whoever speaks or reads has another.
        let mut idle: Vec<_> = self.calls.iter().filter(|(_, track)| Arc::strong_count(track) <= 2).collect();
        if is_greedy {
            idle.retain(|(_, track)| Arc::ptr_eq(track.part.own(), own));
        }
        idle.sort_by_cached_key(|(_, track)| (Reverse(track.part.own().held().0), track.order));
        let is_enough = || {
            let (bytes, parts) = own.held();
            if is_greedy {
                bytes <= limit::TRACKS_PER_PRINCIPAL_BYTES_MAX / 2 && parts <= limit::TRACKS_PER_PRINCIPAL_MAX / 2
            } else {
                all() <= limit::TRACKS_BYTES_MAX / 2
            }
        };
        for (key, track) in idle {
            if is_enough() {
                break;
            }
            track.forget();
            track.part.release();
            self.calls.invalidate(&*key);
        }
    }

    /// The track of a call in that session.
    pub(super) fn find(&self, session: SessionKey, name: u64) -> Option<Arc<Track>> {
        self.calls.get(&(session, name))
    }
}

/// The name of a call's track: its place among all, which the session alone could tell.
fn name_of(session: SessionKey, order: u64) -> u64 {
    let digest = Digest::of("bailiwick/track/v1", &[session.name().as_bytes(), &order.to_be_bytes()]);
    let mut name = [0; 8];
    for (byte, digest) in name.iter_mut().zip(digest.as_bytes()) {
        *byte = *digest;
    }
    u64::from_be_bytes(name).max(OWN_STREAM + 1)
}

/// What the id of an event says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct EventId {
    /// The name of its track.
    pub(super) track: u64,
    /// Its place there.
    pub(super) number: u64,
    /// The replica that has the track, where that is not the session's.
    pub(super) at: Option<ReplicaId>,
}

impl EventId {
    /// Reads an id that some replica gave.
    pub(super) fn parse(id: &str) -> Option<Self> {
        let (track, rest) = id.split_once('-')?;
        let (number, at) = match rest.split_once('-') {
            Some((number, at)) => (number, Some(at.parse().ok()?)),
            None => (rest, None),
        };
        Some(Self { track: track.parse().ok()?, number: number.parse().ok()?, at })
    }
}

impl Track {
    fn new((name, at): (u64, Option<ReplicaId>), order: u64, part: Part, bytes: Arc<AtomicUsize>) -> Self {
        Self { name, at, order, kept: Mutex::default(), grown: Notify::new(), part, bytes }
    }

    /// Keeps a message as the next event.
    pub(super) fn say(&self, message: &Message) {
        let mut kept = self.lock();
        kept.last += 1;
        let event = sse::event(message, Some(&self.id(kept.last)));
        kept.bytes += event.len();
        self.part.grow(event.len());
        self.bytes.fetch_add(event.len(), Ordering::AcqRel);
        let number = kept.last;
        kept.events.push_back((number, event));
        // The newest one stays whatever it takes: it may be the response.
        while kept.events.len() > 1
            && (kept.events.len() > limit::TRACK_EVENTS_MAX
                || kept.bytes > limit::TRACK_BYTES_MAX
                || self.part.own().held().0 > limit::TRACKS_PER_PRINCIPAL_BYTES_MAX
                || self.bytes.load(Ordering::Acquire) > limit::TRACKS_BYTES_MAX)
        {
            if let Some((_, oldest)) = kept.events.pop_front() {
                kept.bytes -= oldest.len();
                self.part.shrink(oldest.len());
                self.bytes.fetch_sub(oldest.len(), Ordering::AcqRel);
            }
        }
        drop(kept);
        self.grown.notify_waiters();
    }

    /// Keeps nothing of what was said.
    fn forget(&self) {
        let mut kept = self.lock();
        let bytes = std::mem::take(&mut kept.bytes);
        self.part.shrink(bytes);
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
        kept.events.clear();
    }

    /// More will be said, whatever was before.
    pub(super) fn begin(&self) {
        self.lock().over = false;
    }

    /// Nothing more will be said.
    pub(super) fn finish(&self) {
        self.lock().over = true;
        self.grown.notify_waiters();
    }

    /// Reads on after the event of that number, or after what has gone out already. Whoever reads now reads no more.
    pub(super) fn read(self: &Arc<Self>, after: Option<u64>) -> Reader {
        let mut kept = self.lock();
        let replaced = CancellationToken::new();
        std::mem::replace(&mut kept.reader, replaced.clone()).cancel();
        let at = after.unwrap_or(kept.sent).min(kept.last);
        Reader { track: Arc::clone(self), at, replaced }
    }

    fn id(&self, number: u64) -> String {
        match self.at {
            Some(at) => format!("{}-{number}-{at}", self.name),
            None => format!("{}-{number}", self.name),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Track {
    fn drop(&mut self) {
        let bytes = self.kept.get_mut().unwrap_or_else(PoisonError::into_inner).bytes;
        self.bytes.fetch_sub(bytes, Ordering::AcqRel);
    }
}

impl Reader {
    /// An event without data: it has an id before anything was said, and tells when to come back (SEP-1699).
    pub(super) fn greeting(&self) -> Bytes {
        let mut greeting = String::new();
        let _ = write!(greeting, "id: {}\nretry: {}\ndata:\n\n", self.track.id(self.at), limit::STREAM_RETRY_MS);
        Bytes::from(greeting)
    }

    /// The next event; `None` when there will be none for this reader. Cancel-safe.
    pub(super) async fn next(&mut self) -> Option<Bytes> {
        loop {
            let track = Arc::clone(&self.track);
            let grown = track.grown.notified();
            tokio::pin!(grown);
            grown.as_mut().enable();
            if self.replaced.is_cancelled() {
                return None;
            }
            match self.kept() {
                Some(event) => return Some(event),
                None if track.lock().over => return None,
                None => {}
            }
            tokio::select! {
                () = self.replaced.cancelled() => return None,
                () = grown => {}
            }
        }
    }

    fn kept(&mut self) -> Option<Bytes> {
        let mut kept = self.track.lock();
        let (number, event) = kept.events.iter().find(|(number, _)| *number > self.at)?.clone();
        self.at = number;
        kept.sent = kept.sent.max(number);
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Json;

    fn ann() -> PrincipalKey {
        PrincipalKey(Digest::sha256(b"ann"))
    }

    fn message(number: usize, size: usize) -> Message {
        Message::notification(&format!("m{number}"), Some(&Json::of(&serde_json::json!({ "x": "y".repeat(size) }))))
    }

    fn text(event: &Bytes) -> String {
        String::from_utf8(event.to_vec()).unwrap()
    }

    #[tokio::test]
    async fn a_stream_is_taken_up_after_the_event_that_was_seen_last() {
        let track = Tracks::new().of_session(ann());
        (1..=3).for_each(|number| track.say(&message(number, 1)));
        let mut first = track.read(None);
        assert!(text(&first.next().await.unwrap()).starts_with("id: 0-1\n"));
        let mut again = track.read(Some(1));
        assert!(text(&again.next().await.unwrap()).contains("\"m2\""));
        assert_eq!(first.next().await, None, "a message goes to one stream");
        let mut fresh = track.read(None);
        assert!(text(&fresh.next().await.unwrap()).contains("\"m3\""), "what went out does not go out again");
        track.finish();
        assert_eq!(fresh.next().await, None);
    }

    #[tokio::test]
    async fn what_is_said_later_wakes_the_reader_and_a_greeting_says_where_it_stands() {
        let track = Tracks::new().of_session(ann());
        let mut reader = track.read(None);
        assert_eq!(text(&reader.greeting()), format!("id: 0-0\nretry: {}\ndata:\n\n", limit::STREAM_RETRY_MS));
        let saying = Arc::clone(&track);
        let said = tokio::spawn(async move {
            tokio::task::yield_now().await;
            saying.say(&message(1, 1));
        });
        assert!(text(&reader.next().await.unwrap()).contains("\"m1\""));
        said.await.unwrap();
        assert!(text(&reader.greeting()).starts_with("id: 0-1\n"));
    }

    #[tokio::test]
    async fn what_is_kept_is_bounded_in_number_and_bytes_and_the_newest_stays() {
        let tracks = Tracks::new();
        let track = tracks.of_session(ann());
        (0..limit::TRACK_EVENTS_MAX + 5).for_each(|number| track.say(&message(number, 1)));
        assert!(text(&track.read(Some(0)).next().await.unwrap()).starts_with("id: 0-6\n"));
        let large = tracks.of_session(ann());
        (0..3).for_each(|number| large.say(&message(number, limit::TRACK_BYTES_MAX)));
        assert!(text(&large.read(Some(0)).next().await.unwrap()).starts_with("id: 0-3\n"));
        drop((track, large));
        assert_eq!(tracks.bytes.load(Ordering::Acquire), 0);
    }

    #[test]
    fn all_tracks_together_are_bounded() {
        let tracks = Tracks::new();
        let all: Vec<_> = (0..80)
            .map(|number: u8| {
                // Each of another principal.
                let track = tracks.of_session(PrincipalKey(Digest::sha256(&[number])));
                (0..4).for_each(|number| track.say(&message(number, limit::TRACK_BYTES_MAX / 4 - 200)));
                track
            })
            .collect();
        let one = limit::TRACK_BYTES_MAX / 4;
        assert!(tracks.bytes.load(Ordering::Acquire) <= limit::TRACKS_BYTES_MAX + all.len() * one);
        assert_eq!(all.last().unwrap().lock().events.len(), 1, "there was room for one");
    }

    #[test]
    fn so_many_calls_can_be_read_on_and_the_newest_is_among_them() {
        let (tracks, session) = (Tracks::new(), SessionKey::of_test(1));
        for number in 0..limit::TRACKS_MAX + 2_000 {
            let owner = PrincipalKey(Digest::sha256(&(number % 100).to_be_bytes()));
            let track = tracks.of_call(owner, session, None);
            if number % 100 == 99 {
                tracks.calls.run_pending_tasks();
                assert!(tracks.find(session, track.name).is_some(), "{number}");
            }
        }
        tracks.calls.run_pending_tasks();
        assert_eq!(tracks.calls.entry_count(), limit::TRACKS_MAX);
    }

    #[test]
    fn what_one_principal_keeps_is_bounded_and_pushes_nothing_of_another_out() {
        let (tracks, session) = (Tracks::new(), SessionKey::of_test(1));
        let (ann, bob) = (ann(), PrincipalKey(Digest::sha256(b"bob")));
        let quiet = tracks.of_call(bob, session, None).name;
        tracks.find(session, quiet).unwrap().say(&message(1, 1));
        for number in 0..limit::TRACKS_PER_PRINCIPAL_MAX * 3 {
            let track = tracks.of_call(ann, session, None);
            assert!(tracks.find(session, track.name).is_some(), "{number}");
            assert!(tracks.owners.of(ann).held().1 <= limit::TRACKS_PER_PRINCIPAL_MAX + 1, "{number}");
        }
        for _ in 0..100 {
            let track = tracks.of_call(ann, session, None);
            (0..4).for_each(|number| track.say(&message(number, limit::TRACK_BYTES_MAX / 4 - 200)));
            let (bytes, _) = tracks.owners.of(ann).held();
            assert!(bytes <= limit::TRACKS_PER_PRINCIPAL_BYTES_MAX + limit::TRACK_BYTES_MAX, "{bytes}");
        }
        assert_eq!(tracks.find(session, quiet).unwrap().lock().events.len(), 1);
    }

    #[test]
    fn an_id_is_read_back_and_nonsense_is_none() {
        let id = EventId { track: 7, number: 12, at: None };
        assert_eq!(EventId::parse("7-12"), Some(id));
        for nonsense in ["", "7", "-", "a-b", "1-", "99999999999999999999-1", "7-12-", "7-12-x", "7--12"] {
            assert_eq!(EventId::parse(nonsense), None, "{nonsense}");
        }
        let here = ReplicaId::new();
        for at in [None, Some(here)] {
            let track = Tracks::new().of_call(ann(), SessionKey::of_test(1), at);
            assert_eq!(EventId::parse(&track.id(3)), Some(EventId { track: track.name, number: 3, at }));
        }
    }

    #[test]
    fn the_name_of_a_stream_says_nothing_of_how_many_there_were() {
        let tracks = Tracks::new();
        let names: Vec<_> = (0..4).map(|_| tracks.of_call(ann(), SessionKey::of_test(1), None).name).collect();
        assert!(!names.contains(&OWN_STREAM) && names.iter().all(|name| *name > 1_000), "{names:?}");
        assert!(names.windows(2).all(|two| two[1] != two[0] + 1), "{names:?}");
        assert_eq!(name_of(SessionKey::of_test(1), 7), name_of(SessionKey::of_test(1), 7));
        assert_ne!(name_of(SessionKey::of_test(1), 7), name_of(SessionKey::of_test(2), 7));
    }

    #[test]
    fn a_call_is_found_in_its_own_session_only() {
        let tracks = Tracks::new();
        let (ours, theirs) = (SessionKey::of_test(1), SessionKey::of_test(2));
        let track = tracks.of_call(ann(), ours, None);
        assert!(tracks.find(ours, track.name).is_some() && tracks.find(theirs, track.name).is_none());
    }
}
