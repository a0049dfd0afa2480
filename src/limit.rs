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
/// Members of a token's claims.
pub const TOKEN_CLAIMS_MAX: usize = 256;
/// Audiences of one token.
pub const TOKEN_AUDIENCES_MAX: usize = 64;
/// Scopes of one token.
pub const TOKEN_SCOPES_MAX: usize = 256;
/// Memory for verified tokens, groups and scopes included.
pub const TOKEN_CACHE_BYTES_MAX: u64 = 128 * 1024 * 1024;
/// What one of them counts for at least, which bounds their number at 100,000.
pub const TOKEN_CACHE_ENTRY_BYTES_MIN: usize = 1_342;
/// Refused tokens remembered, so that a client in a loop costs no signature checks.
pub const TOKEN_REFUSED_ENTRIES_MAX: u64 = 10_000;
/// For this long.
pub const TOKEN_REFUSED_LIFE: Duration = Duration::from_secs(10);
/// Keys of one issuer; the largest sets seen have about a hundred.
pub const JWKS_KEYS_MAX: usize = 256;
/// Keys that may carry the same `kid`; more than two are a mistake of the issuer's.
pub const JWKS_SAME_ID_MAX: usize = 4;
/// Metadata and keys are fetched this often.
pub const JWKS_REFRESH: Duration = Duration::from_secs(15 * 60);
/// Tokens with an unknown `kid` make us fetch at most this often.
pub const JWKS_UNKNOWN_KEY_INTERVAL_MIN: Duration = Duration::from_secs(30);
/// The first retry after a failure; each further one waits twice as long.
pub const JWKS_RETRY_MIN: Duration = Duration::from_secs(1);
/// The longest wait between retries.
pub const JWKS_RETRY_MAX: Duration = Duration::from_secs(30);
/// A request waits this long for its issuer's keys.
pub const JWKS_WAIT: Duration = Duration::from_secs(5);
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
// === demo upstreams ===

/// Notes in the sample server: more than anyone reads, less than anyone notices in memory.
pub const NOTES_MAX: usize = 200;
/// A note's title; its schema says the same.
pub const NOTE_TITLE_BYTES_MAX: usize = 200;
/// A note's text and tags; its schema says the same of the text.
pub const NOTE_TEXT_BYTES_MAX: usize = 10_000;
/// Replicas of one sample service; the schema of `rollout` says the same.
pub const REPLICAS_MAX: u32 = 100;

// === egress ===
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
/// An idle connection to an upstream is kept warm this long.
pub const UPSTREAM_IDLE_TIMEOUT: Duration = Duration::from_secs(90);
/// Idle connections to one upstream; more than that many calls at once are rare.
pub const UPSTREAM_IDLE_CONNECTIONS_MAX: usize = 256;
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

// === control ===

/// A request on the control socket.
pub const CONTROL_BODY_BYTES_MAX: usize = 64 * 1024;
/// An answer of the control socket: metrics of a hundred servers, or every revocation.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a command waits for the running gateway; a reload tests a large policy.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);
/// What can be named in a revocation: a CIMD client id is a URL.
pub const REVOCATION_VALUE_BYTES_MAX: usize = 2_048;
/// A sign-out reaches this far ahead of its moment: issuers' clocks differ from ours.
pub const SIGN_OUT_SKEW: Duration = Duration::from_secs(60);

// === logs ===

/// How often `logs -f` looks for new records.
pub const LOGS_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Intents whose result `logs` waits for, to show both in one line.
pub const LOGS_OPEN_CALLS_MAX: usize = 20_000;
/// Calls that `logs show` names when an id is not unique.
pub const LOGS_CANDIDATES_MAX: usize = 10;
/// How long `revoke` waits for a gateway that is just starting or stopping.
pub const REVOKE_WAIT_MAX: Duration = Duration::from_secs(5);
