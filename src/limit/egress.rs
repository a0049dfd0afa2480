//! The bounds of what goes out over HTTP: names, authorization servers, connections to upstreams.
//!
//! Named like all others, see [`crate::limit`].

use std::time::Duration;

/// A name server that takes longer is down.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// Addresses of one name that are looked at.
pub const RESOLVED_ADDRESSES_MAX: usize = 32;
/// To an authorization server.
pub const OAUTH_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// One question to an authorization server, with its answer.
pub const OAUTH_TIMEOUT: Duration = Duration::from_secs(10);
/// Connections to an authorization server are asked for rarely.
pub const OAUTH_IDLE_TIMEOUT: Duration = Duration::from_secs(60);
/// Idle connections to one authorization server.
pub const OAUTH_IDLE_CONNECTIONS_MAX: usize = 8;
/// Metadata, key sets and token answers; a hundred RSA keys with certificates have about 400 KiB.
pub const OAUTH_RESPONSE_BYTES_MAX: usize = 1024 * 1024;
/// A host in an error message; names have at most 253 characters.
pub const HOST_SHOWN_CHARACTERS_MAX: usize = 260;
/// The text of someone else's error in ours.
pub const ERROR_SHOWN_CHARACTERS_MAX: usize = 400;
/// Probes on an idle connection to an upstream, so that a dead one is noticed.
pub const UPSTREAM_KEEPALIVE: Duration = Duration::from_secs(30);
/// Before a call is made again whose server went away: one that is started anew takes a moment.
pub const CALL_AGAIN_PAUSE: Duration = Duration::from_millis(250);
/// An idle connection to an upstream is kept warm this long.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle connections to one upstream; more than that many calls at once are rare.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 256;
