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

// === record ===

/// Lines that wait for the writer; at 1 KiB a line this is a second of the fastest load we have seen.
pub const JOURNAL_QUEUE_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Above this only results are still taken, so that calls in flight can always be closed.
pub const JOURNAL_QUEUE_INTENT_BYTES_MAX: usize = JOURNAL_QUEUE_BYTES_MAX / 2;
/// One line; every field is bounded, so that a line beyond this is a defect and refuses.
pub const JOURNAL_LINE_BYTES_MAX: usize = 256 * 1024;
/// A segment is closed beyond this. Start reads the last one in full, which must take milliseconds.
pub const JOURNAL_SEGMENT_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// Lines that nobody waits for are written after this, at the latest.
pub const JOURNAL_FLUSH_INTERVAL: Duration = Duration::from_millis(10);
/// After this long without a line, what was written is synced and the writer sleeps until it is called.
pub const JOURNAL_IDLE_AFTER: Duration = Duration::from_secs(1);
/// A journal that could not be written is tried again this often.
pub const JOURNAL_RETRY_INTERVAL: Duration = Duration::from_millis(200);
/// Free text of a record (names that clients choose, details, notes); longer is cut.
pub const RECORD_TEXT_BYTES_MAX: usize = 512;
/// Values that conditions read, kept with one call.
pub const RECORD_VALUES_MAX: usize = 32;
/// Rows of a reload that are listed in its record; the rest is counted.
pub const RECORD_ROWS_MAX: usize = 200;
/// Calls in flight that the first line of a new segment can name.
pub const JOURNAL_OPEN_LEGS_MAX: usize = 2_000;
/// Unauthenticated refusals are counted for this long before they become one line.
pub const NOISE_INTERVAL: Duration = Duration::from_secs(10);
/// Pairs of reason and source counted apart; the rest is counted under one source.
pub const NOISE_SOURCES_MAX: usize = 1_024;
/// First refusals of a source that are written at once, per interval: a person who tries things sees them.
pub const NOISE_IMMEDIATE_MAX: usize = 10;

// === store ===

/// How long a statement waits for another connection's lock.
pub const STORE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that only read.
pub const STORE_READERS_MAX: u32 = 2;
/// Revocations that hold at once; every check looks at all of them.
pub const REVOCATIONS_MAX: i64 = 100_000;
