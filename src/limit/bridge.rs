//! Bounds of `bailiwick stdio`, of the user of a gateway in its process, and of the logins of the command line.
//!
//! Part of [`crate::limit`], under whose name everything here is used.

use std::time::Duration;

/// Requests that the bridge has open at once.
pub const BRIDGE_REQUESTS_MAX: usize = 256;
/// Lines waiting to be written.
pub const BRIDGE_LINES_MAX: usize = 256;
/// To connect, handshake included.
pub const BRIDGE_CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to open a legacy session's stream.
pub const BRIDGE_STREAM_RETRY: Duration = Duration::from_secs(3);
/// For open requests to be answered when the input has ended.
pub const BRIDGE_DRAIN_TIMEOUT: Duration = Duration::from_secs(30);
/// For the session to be ended when the input has ended.
pub const BRIDGE_GOODBYE_TIMEOUT: Duration = Duration::from_secs(2);
/// For a person to log in; assistants give up on a server that starts sooner.
pub const LOGIN_TIMEOUT: Duration = Duration::from_secs(300);
/// After a login that failed, before a request may open the browser again.
pub const LOGIN_PAUSE: Duration = Duration::from_secs(60);
/// A token is renewed when it ends within this.
pub const LOGIN_RENEW_MARGIN: Duration = Duration::from_secs(30);
/// Between two looks at whether another process has finished its login.
pub const LOGIN_TURN_POLL: Duration = Duration::from_millis(100);
/// A kept login: two tokens and some URLs.
pub const LOGIN_FILE_BYTES_MAX: u64 = 128 * 1024;
/// Connections of browsers to the place where the code arrives; they open some ahead.
pub const LOGIN_CONNECTIONS_MAX: usize = 16;
/// Authorization servers of one gateway that are asked.
pub const LOGIN_ISSUERS_MAX: usize = 8;
/// Pages of a list that the bridge asks for itself, to learn which arguments are repeated in headers.
pub const BRIDGE_LIST_PAGES_MAX: usize = 100;
/// The name of a user of this machine; systems stop at 32 to 256.
pub const USER_NAME_BYTES_MAX: usize = 256;
/// For the system's own command to say it; directory services take their time.
pub const USER_NAME_TIMEOUT: Duration = Duration::from_secs(5);
