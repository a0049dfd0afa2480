//! Every bound of the gateway: nothing that comes from outside is unlimited.
//!
//! The unit stands last in each name; the comment says why the number is what it is. Knows nothing else
//! of ours. Each has a test that reaches it.

use std::time::Duration;

// === secrets ===

/// No secret that we were shown is larger; a PEM key is under 4 KiB.
pub const SECRET_BYTES_MAX: u64 = 64 * 1024;
/// A secret manager's command line answers in well under this, even cold.
pub const SECRET_EXEC_TIMEOUT: Duration = Duration::from_secs(10);

// === wire ===

/// A request body; large file contents fit, a memory bomb does not.
pub const REQUEST_BYTES_MAX: usize = 4 * 1024 * 1024;
/// An upstream's message: results carry images and documents.
pub const RESPONSE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Nesting; real schemas stay under 30.
pub const JSON_DEPTH_MAX: usize = 128;
/// Members and elements in one message; a list of 1,000 tools with large schemas has about 100,000.
pub const JSON_NODES_MAX: usize = 1_000_000;

// === identity ===

/// A bearer token; Entra with 200 groups is about 9 KiB.
pub const TOKEN_BYTES_MAX: usize = 16 * 1024;
/// Actors in a delegation chain.
pub const ACTOR_DEPTH_MAX: usize = 4;
/// Groups taken from one token.
pub const GROUPS_MAX: usize = 1_000;
/// Verified tokens remembered.
pub const TOKEN_CACHE_ENTRIES_MAX: u64 = 100_000;
/// A verified token is looked at again after this, at the latest.
pub const TOKEN_CACHE_LIFE_MAX: Duration = Duration::from_secs(300);

// === front ===

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
/// Space set aside for a body before its bytes are here.
pub const BODY_RESERVED_BYTES_MAX: usize = 64 * 1024;
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
/// A comment is written into a stream that was silent for this long; proxies cut at 60 s.
pub const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(15);
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
/// Of all clients that say more than fits into their session id, together.
pub const SESSIONS_KEPT_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Ended sessions remembered until their age would have ended them.
pub const SESSIONS_ENDED_MAX: u64 = 100_000;
/// Sessions whose log level is remembered.
pub const SESSION_LOG_LEVELS_MAX: u64 = 100_000;
/// Calls in flight in one legacy session.
pub const SESSION_CALLS_MAX: usize = 64;

// === stdio bridge ===

/// Requests that the bridge has open at once.
pub const BRIDGE_REQUESTS_MAX: usize = 256;
/// Lines waiting to be written.
pub const BRIDGE_LINES_MAX: usize = 256;
/// To connect, handshake included.
pub const BRIDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to open a legacy session's stream.
pub const BRIDGE_STREAM_RETRY: Duration = Duration::from_secs(3);
/// For the session to be ended when the input has ended.
pub const BRIDGE_GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
