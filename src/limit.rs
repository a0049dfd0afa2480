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
/// Requests that wait for one issuer's keys at once.
pub const JWKS_WAITING_MAX: usize = 1_000;
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

// === demo ===

/// A request to the development issuer.
pub const DEMO_BODY_BYTES_MAX: usize = 64 * 1024;
/// Requests to it at once.
pub const DEMO_REQUESTS_MAX: usize = 64;
/// One of them, from its head to its answer.
pub const DEMO_REQUEST_TIMEOUT: Duration = Duration::from_secs(10);
/// Parameters of one request.
pub const DEMO_PARAMETERS_MAX: usize = 32;
/// One of them; a subject token is the longest.
pub const DEMO_PARAMETER_BYTES_MAX: usize = 16 * 1024;
/// Clients that registered themselves.
pub const DEMO_CLIENTS_MAX: u64 = 1_000;
/// Redirect URIs of one client.
pub const DEMO_REDIRECT_URIS_MAX: usize = 10;
/// The name of a client on the page.
pub const DEMO_CLIENT_NAME_CHARACTERS_MAX: usize = 80;
/// Open sign-in pages, and codes that were not redeemed yet.
pub const DEMO_PENDING_MAX: u64 = 1_000;
/// Sessions with a refresh token.
pub const DEMO_SESSIONS_MAX: u64 = 10_000;
/// A client that registered itself is forgotten after this.
pub const DEMO_REGISTRATION_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A sign-in page waits this long for its click.
pub const DEMO_PAGE_LIFE: Duration = Duration::from_secs(600);
/// A code waits this long to be redeemed (RFC 6749 section 4.1.2 says ten minutes at most).
pub const DEMO_CODE_LIFE: Duration = Duration::from_secs(60);
/// A refresh token that is not used is forgotten after this.
pub const DEMO_SESSION_LIFE: Duration = Duration::from_secs(24 * 3600);
/// An access token of the demo.
pub const DEMO_TOKEN_LIFE_MAX: Duration = Duration::from_secs(3600);
/// An exchanged token of the demo.
pub const DEMO_EXCHANGED_LIFE: Duration = Duration::from_secs(300);
/// A base64url SHA-256 (RFC 7636 section 4.2), which is also how long a verifier is at least.
pub const PKCE_S256_CHARACTERS: usize = 43;

// === delegate ===

/// Files with secrets are looked at this often.
pub const SECRET_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// Programs that print secrets are run this often.
pub const SECRET_EXEC_INTERVAL: Duration = Duration::from_secs(300);
/// Memory for exchanged tokens.
pub const EXCHANGED_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// What one of them counts for at least, beside the token.
pub const EXCHANGED_ENTRY_BYTES_MIN: usize = 1_024;
/// An exchanged token is not used in the last seconds of its life, so that it does not expire on its way.
pub const EXCHANGED_MARGIN: Duration = Duration::from_secs(10);
/// How long a token is used whose life nobody told us.
pub const EXCHANGED_UNKNOWN_LIFE: Duration = Duration::from_secs(60);
/// Token endpoints with a client of their own.
pub const TOKEN_ENDPOINTS_MAX: u64 = 256;
