//! The bounds of streams and subscriptions: what is heard for whom, and what is kept for those who come back.
//!
//! Named like all others, see [`crate::limit`].

use std::time::Duration;

/// Resources in one listen or one legacy session; an editor with every file of a project open stays below.
pub const SUBSCRIPTIONS_PER_STREAM_MAX: usize = 128;
/// Resources that one principal hears of, over all of its streams.
pub const SUBSCRIPTIONS_PER_PRINCIPAL_MAX: usize = 512;
/// How long a listen waits for its upstreams before it is acknowledged; those that agree later are made up for.
pub const LISTEN_ACKNOWLEDGE_WAIT: Duration = Duration::from_secs(5);
/// Resources of one stream that are asked for at once; each is a call in flight of the principal's meanwhile.
pub const SUBSCRIPTIONS_OPENING_MAX: usize = 4;
/// Before the first attempt to take up a lost subscription again; doubles up to the next.
pub const SUBSCRIPTION_RETRY_MIN: Duration = Duration::from_millis(500);
/// Between two such attempts.
pub const SUBSCRIPTION_RETRY_MAX: Duration = Duration::from_secs(60);
/// Notifications of one stream that wait for their reader; updates beyond are told once.
pub const WATCH_TOLD_MAX: usize = 64;
/// Resources that one upstream is asked about, for all principals together.
pub const SUBSCRIPTIONS_PER_SERVER_MAX: usize = 4_096;
/// Updates of one resource that wait for a slow reader; beyond it the reader is told once that it changed.
pub const SUBSCRIPTION_UPDATES_MAX: usize = 16;
/// Wishes that come within this time are asked for together.
pub const SUBSCRIPTION_CHANGE_PAUSE: Duration = Duration::from_millis(20);
/// Events of one legacy stream that are kept for a client that comes back; a call says a handful.
pub const TRACK_EVENTS_MAX: usize = 256;
/// Their bytes; the newest is kept whatever its size, because it may be a response.
pub const TRACK_BYTES_MAX: usize = 1024 * 1024;
/// The bytes of all streams together; beyond it each keeps its newest event only.
pub const TRACKS_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Those of one principal: an eighth, so that what one fills is not all there is.
pub const TRACKS_PER_PRINCIPAL_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Calls of one principal that can be read on at once; the oldest that are over make room.
pub const TRACKS_PER_PRINCIPAL_MAX: usize = 1_000;
/// Calls that can be read on at once.
pub const TRACKS_MAX: u64 = 10_000;
/// What nobody has read or added to for this long is forgotten.
pub const TRACK_IDLE_MAX: Duration = Duration::from_secs(300);
/// A legacy session whose stream nobody reads is heard for this long.
pub const MAILBOX_UNREAD_MAX: Duration = Duration::from_secs(300);
/// When a client whose stream broke may come back, as it is told.
pub const STREAM_RETRY_MS: u64 = 1_000;
/// A call of a client that can come back to streams becomes one when it has no answer after this: what takes longer
/// is worth being read on when the connection breaks, what is faster costs both sides less as one document.
pub const CALL_STREAM_AFTER: Duration = Duration::from_millis(50);
/// A comment is written into a stream that was silent for this long; proxies cut at 60 s.
pub const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How often an open stream looks whether its token has run out.
pub const WATCH_RECHECK: Duration = Duration::from_secs(1);
/// Changes within this time are told once.
pub const WATCH_DEBOUNCE: Duration = Duration::from_millis(100);
/// A stream of changes without any event for this long is opened again.
pub const CHANGE_STREAM_IDLE: Duration = Duration::from_secs(15 * 60);
/// Changes that wait for a slow listener before it has to look at everything again.
pub const CHANGES_QUEUED_MAX: usize = 256;
/// Requests that a legacy server may send us within one exchange before it is called garbage.
pub const SERVER_REQUESTS_PER_CALL_MAX: usize = 100;
/// Times that a legacy stream which broke off or was closed is taken up again within one call: a server may want to be
/// asked again all the time (SEP-1699).
pub const RESUMES_PER_CALL_MAX: usize = 100;
/// Longest pause that a legacy server may ask for before its stream is taken up again.
pub const RESUME_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Messages of one batch (2025-03-26); clients that send any send a handful.
pub const BATCH_MESSAGES_MAX: usize = 32;
/// How many of them are worked on at once.
pub const BATCH_AT_ONCE_MAX: usize = 8;
