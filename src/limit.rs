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

// === demo upstreams ===

/// Notes in the sample server: more than anyone reads, less than anyone notices in memory.
pub const NOTES_MAX: usize = 200;
/// A note's title; its schema says the same.
pub const NOTE_TITLE_BYTES_MAX: usize = 200;
/// A note's text and tags; its schema says the same of the text.
pub const NOTE_TEXT_BYTES_MAX: usize = 10_000;
/// Replicas of one sample service; the schema of `rollout` says the same.
pub const REPLICAS_MAX: u32 = 100;

// === config ===

/// Longer than a year is a mistake in a file, not a wish; and arithmetic on it cannot overflow.
pub const CONFIGURED_DURATION_MAX: Duration = Duration::from_secs(366 * 24 * 60 * 60);
/// Counts in the files; a million connections is more than one process has descriptors.
pub const CONFIGURED_COUNT_MAX: u32 = 1_000_000;
/// One configuration or policy file; 10,000 rules are about 1 MiB.
pub const CONFIG_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Policy files in one set; one for each server, and some.
pub const CONFIG_FILES_MAX: usize = 1_000;
/// How often a set that changes while it is read is read again.
pub const CONFIG_READS_MAX: u32 = 5;
/// How long a writer gets to finish before the set is read again.
pub const CONFIG_READ_PAUSE: Duration = Duration::from_millis(100);
/// How far clocks may differ; above this an expired token lives on.
pub const LEEWAY_MAX: Duration = Duration::from_secs(300);
/// Servers in one configuration; names, lists and metrics are per server.
pub const SERVERS_MAX: usize = 1_000;
/// Issuers in one configuration.
pub const ISSUERS_MAX: usize = 100;
/// Agents in one configuration.
pub const AGENTS_MAX: usize = 10_000;

// === guard ===

/// Principals whose use is counted at once; about 200 bytes each.
pub const PRINCIPALS_REMEMBERED_MAX: u64 = 1_000_000;
/// A principal that does nothing for this long is forgotten.
pub const PRINCIPAL_IDLE: Duration = Duration::from_secs(600);
