//! The bounds of the listener: connections, requests, sessions.
//!
//! Named like all others, see [`crate::limit`].

use std::time::Duration;

/// Connections at once; each costs about 20 KiB while idle.
pub const CONNECTIONS_MAX: usize = 10_000;
/// Headers of one request; clients send about 15, parameters may be mirrored into more.
pub const HEADERS_MAX: usize = 100;
/// All headers of one request: a token, a session and mirrored parameters fit.
pub const HEADER_BYTES_MAX: usize = 64 * 1024;
/// For all headers of a request to arrive, also on a kept connection: an idle one is closed after this.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(60);
/// For a body to arrive.
pub const BODY_READ_TIMEOUT: Duration = Duration::from_secs(30);
/// How much of a body that is too large is taken in and thrown away, so that its sender can read the answer.
pub const BODY_DISCARDED_BYTES_MAX: usize = 16 * 1024 * 1024;
/// How long that may take.
pub const BODY_DISCARD_TIMEOUT: Duration = Duration::from_secs(2);
/// How much is taken in of a body that nobody read, so that its connection can carry another request.
pub const BODY_LEFT_BYTES_MAX: usize = 64 * 1024;
/// How long that may take.
pub const BODY_LEFT_TIMEOUT: Duration = Duration::from_secs(1);
/// Space set aside for a body before its bytes are here.
pub const BODY_RESERVED_BYTES_MAX: usize = 64 * 1024;
/// What one principal keeps here with the bodies that it sends and the answers that it does not take: sixteen of the
/// largest bodies at once, or four of the largest answers.
pub const HELD_PER_PRINCIPAL_BYTES_MAX: usize = 64 * 1024 * 1024;
/// What each request counts for beside its bytes: its head, and what is made of it while it is answered.
pub const HELD_PER_REQUEST_BYTES: usize = 16 * 1024;
/// An answer of which its client takes nothing for this long is given up: the connection of one that carries no others,
/// the stream alone over HTTP/2, where that is noticed within twice the time.
pub const WRITE_STALL_MAX: Duration = Duration::from_secs(30);
/// So much of an answer is handed to HTTP/2 at once, which keeps what it cannot send.
pub const HTTP2_PIECE_BYTES_MAX: usize = 16 * 1024;
/// Requests of one HTTP/2 connection at once.
pub const HTTP2_STREAMS_MAX: u32 = 256;
/// For a TLS handshake.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// Certificate files are looked at this often.
pub const TLS_RELOAD_INTERVAL: Duration = Duration::from_secs(5);
/// After a failed accept (mostly: no file descriptors left).
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);
/// Hops read from forwarding headers, nearest first.
pub const FORWARDED_HOPS_MAX: usize = 32;
/// What a stream of a caller whose access was taken back has to end by itself, before it is cut; and what it then
/// has to be wound up. Both together are well under the second that is promised.
pub const STREAM_FAREWELL: Duration = Duration::from_millis(250);
/// A sealed handle as text; a legacy session with its client's capabilities is the largest.
pub const HANDLE_BYTES_MAX: usize = 4 * 1024;
/// A legacy session ends after this; clients then initialize again.
pub const SESSION_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
/// What a client says of itself, inside of the session id; more is kept here.
pub const SESSION_SEALED_BYTES_MAX: usize = 1024;
/// What a client says of itself at `initialize`.
pub const SESSION_CLIENT_BYTES_MAX: usize = 64 * 1024;
/// A client's own description; a longer one is cut down to name and version.
pub const SESSION_INFO_BYTES_MAX: usize = 512;
/// Of the clients of one principal that say more than fits into their session id; its oldest make room.
pub const SESSIONS_KEPT_PER_PRINCIPAL_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Of all clients that say more than fits into their session id, together; the oldest of whoever has most makes room.
pub const SESSIONS_KEPT_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Sessions of which it is remembered whether they have ended and what they want told; the store is asked about others.
pub const SESSIONS_SEEN_MAX: u64 = 100_000;
/// Rows about sessions in the store: those that have ended, and those that have set a log level.
pub const SESSION_ROWS_MAX: u32 = 200_000;
/// Of why a legacy client cancels: a sentence for the server's log.
pub const CANCEL_REASON_BYTES_MAX: usize = 256;
/// Calls in flight in one legacy session.
pub const SESSION_CALLS_MAX: usize = 64;
/// How long an answer that says "slow down" is held.
pub const HASTY_ANSWER_HOLD: Duration = Duration::from_millis(100);
/// Answers that are held at once; more are given at once.
pub const HASTY_ANSWERS_HELD_MAX: usize = 4_096;
