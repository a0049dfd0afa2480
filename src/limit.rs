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

// === guard ===

/// Principals whose use is counted at once; about 200 bytes each.
pub const PRINCIPALS_REMEMBERED_MAX: u64 = 1_000_000;
/// A principal that does nothing for this long is forgotten.
pub const PRINCIPAL_IDLE: Duration = Duration::from_secs(600);

// === upstream ===

/// Events of one exchange that wait for a slow reader; the end always has room.
pub const EXCHANGE_EVENTS_MAX: usize = 64;
/// The body of an HTTP error; a JSON-RPC error fits, a proxy's error page is cut off.
pub const ERROR_BODY_BYTES_MAX: usize = 64 * 1024;
/// A legacy session id as a server spells it; longer ones are refused.
pub const SESSION_ID_BYTES_MAX: usize = 1_024;
/// Upstream sessions kept for one server; the least recently used idle one makes room.
pub const SESSIONS_PER_SERVER_MAX: usize = 1_000;
/// An upstream session that nobody uses for this long is ended.
pub const SESSION_IDLE: Duration = Duration::from_secs(15 * 60);
/// Child processes of one server; the least recently used idle one makes room.
pub const PROCESSES_PER_SERVER_MAX: usize = 32;
/// A child process that nobody uses for this long is stopped.
pub const PROCESS_IDLE: Duration = Duration::from_secs(10 * 60);
/// How often idle sessions and processes are looked for.
pub const IDLE_SWEEP: Duration = Duration::from_secs(30);
/// Housekeeping requests to one server at once; calls are counted apart.
pub const ERRANDS_IN_FLIGHT_MAX: usize = 4;
/// Pages of one list; 10,000 items at 50 a page.
pub const LIST_PAGES_MAX: usize = 200;
/// Items of one list; the largest real server has about 300 tools.
pub const LIST_ITEMS_MAX: usize = 10_000;
/// All pages of one list together.
pub const LIST_BYTES_MAX: usize = 64 * 1024 * 1024;
/// A cursor that an upstream gives us.
pub const CURSOR_BYTES_MAX: usize = 16 * 1024;
/// A pooled connection that is idle for longer is closed by us; Node and uvicorn close theirs after 5 s,
/// and a request that meets that moment is lost.
pub const POOLED_CONNECTION_IDLE: Duration = Duration::from_secs(4);
/// First pause before an upstream that is down is tried again; it doubles.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause before an upstream that is down is tried again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// A stream of changes without any event for this long is opened again.
pub const CHANGE_STREAM_IDLE: Duration = Duration::from_secs(15 * 60);
/// Changes that wait for a slow listener before it has to look at everything again.
pub const CHANGES_QUEUED_MAX: usize = 256;
/// Requests that a legacy server may send us within one exchange before it is called garbage.
pub const SERVER_REQUESTS_PER_CALL_MAX: usize = 100;
/// Times that a legacy stream which broke off is taken up again within one call.
pub const RESUMES_PER_CALL_MAX: usize = 10;
/// Longest pause that a legacy server may ask for before its stream is taken up again.
pub const RESUME_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Messages that wait to be written to a child process.
pub const PROCESS_WRITES_QUEUED_MAX: usize = 64;
/// A line of a child's standard output: one message.
pub const PROCESS_LINE_BYTES_MAX: usize = RESPONSE_BYTES_MAX;
/// A line of a child's standard error that is shown; the rest of it is left out.
pub const PROCESS_ERROR_LINE_BYTES_MAX: usize = 4 * 1024;
/// Lines per second of a child's standard error that are shown.
pub const PROCESS_ERROR_LINES_PER_SECOND_MAX: u32 = 50;
/// Lines on a child's standard output that are no messages, before the process is called garbage.
pub const PROCESS_NOISE_LINES_MAX: usize = 1_000;
/// A child may take this long to end by itself when its standard input ends.
pub const PROCESS_STOP_GRACE: Duration = Duration::from_millis(1_500);
/// A child may take this long to end after SIGTERM, before SIGKILL.
pub const PROCESS_TERM_GRACE: Duration = Duration::from_millis(800);
/// Everything that a child left behind is gone after this, at the latest.
pub const PROCESS_KILL_WAIT: Duration = Duration::from_millis(1_000);
