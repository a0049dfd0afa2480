//! Bounds of the administrators' listener.

use std::time::Duration;

/// A login that lies further back is not recent, whatever the files say.
pub const ADMIN_AUTH_AGE_MAX: Duration = Duration::from_secs(3_600);
/// A login that an issuer's clock puts this far ahead of ours is one of now.
pub const ADMIN_CLOCK_AHEAD_MAX: Duration = Duration::from_secs(60);
/// Connections to the administrators' listener; a browser opens six, a command one.
pub const ADMIN_CONNECTIONS_MAX: usize = 256;
/// Live tails of the record at once: each reads files ten times a second.
pub const ADMIN_LOG_STREAMS_MAX: usize = 8;
/// Records that a live tail begins with.
pub const ADMIN_LOG_LINES_MAX: usize = 1_000;
/// A live tail in which nothing happens says so this often, or proxies close it.
pub const ADMIN_LOG_KEEPALIVE: Duration = Duration::from_secs(15);
/// Intents that a live tail remembers until their results come.
pub const ADMIN_LOG_OPEN_CALLS_MAX: usize = 2_000;
