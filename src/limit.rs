//! Every bound of the gateway: nothing that comes from outside is unlimited.
//!
//! The unit stands last in each name; the comment says why the number is what it is. Knows nothing else
//! of ours. `tests/limits.rs` sees to it that each is used and named in a test, and lists those that no test
//! reaches, with the reason.

use std::time::Duration;

mod account;
mod admin;
mod approvals;
mod bridge;
mod caller;
mod console;
mod credential;
mod demo;
mod doctor;
mod egress;
mod evidence;
mod export;
mod facade;
mod feed;
mod front;
mod input;
mod labels;
mod lifecycle;
mod mandates;
mod pins;
mod processes;
mod proof;
mod record;
mod replicas;
mod shelf;
mod state;
mod streams;
mod tasks;
mod webhooks;

pub use account::*;
pub use admin::*;
pub use approvals::*;
pub use bridge::*;
pub use caller::*;
pub use console::*;
pub use credential::*;
pub use demo::*;
pub use doctor::*;
pub use egress::*;
pub use evidence::*;
pub use export::*;
pub use facade::*;
pub use feed::*;
pub use front::*;
pub use input::*;
pub use labels::*;
pub use lifecycle::*;
pub use mandates::*;
pub use pins::*;
pub use processes::*;
pub use proof::*;
pub use record::*;
pub use replicas::*;
pub use shelf::*;
pub use state::*;
pub use streams::*;
pub use tasks::*;
pub use webhooks::*;

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
/// Members of the objects in a message whose places are kept when it is read, so that they need not be looked for again.
pub const JSON_MEMBERS_KEPT_MAX: usize = 32;

// === threads ===

/// Threads that serve connections; one for each core, and no machine that this is run on has more to give it.
pub const LANES_MAX: usize = 64;

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

// === policy ===

/// Rows of all policy files together.
pub const POLICY_ROWS_MAX: usize = 200_000;
/// One cell of a row; resource URIs fit.
pub const POLICY_CELL_BYTES_MAX: usize = 2_048;
/// Mistakes that one check reports; the rest is noise that the first ones caused.
pub const POLICY_MISTAKES_MAX: usize = 100;
/// Environments; they are bits of one word, and one is the gateway's own.
pub const ENVIRONMENTS_MAX: usize = 63;
/// Steps from a subject to a role; Casbin follows ten links and then stops silently, so we stop loudly before.
pub const ROLE_DEPTH_MAX: usize = 8;
/// Nesting of a condition, named conditions included.
pub const CONDITION_DEPTH_MAX: usize = 16;
/// Parts of one condition, named conditions included.
pub const CONDITION_PARTS_MAX: usize = 1_000;
/// Characters of an argument's value that the record keeps for each condition that read it.
pub const CONDITION_VALUE_CHARACTERS_MAX: usize = 200;
/// Values that the record keeps for one condition.
pub const CONDITION_VALUES_MAX: usize = 20;
/// Identity classes remembered; beyond it the least used are computed again.
pub const CLASSES_MAX: u64 = 4_096;
/// Personas and tokens whose class is remembered.
pub const CLASS_LOOKUPS_MAX: u64 = 65_536;
/// Listed items whose verdict one class remembers; beyond it the table starts again.
pub const TABLE_ITEMS_MAX: usize = 50_000;
/// Combinations of condition values whose answer is remembered, for one shape of rules.
pub const CONDITION_ANSWERS_MAX: usize = 64;
/// Enforcers kept for the next question; each takes about 20 KiB.
pub const ENFORCERS_IDLE_MAX: usize = 16;
/// Rules that an explanation names as near misses.
pub const NEAR_MISSES_MAX: usize = 10;

// === catalog ===

/// Items of one kind that one server may list; the largest real server has a few hundred tools.
pub const LISTED_ITEMS_MAX: usize = 5_000;
/// One definition: descriptions and schemas; what is larger is not for a model to read.
pub const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// All definitions of one kind of one server together.
pub const LISTED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A name in an upstream's spelling; the specification recommends 128.
pub const LISTED_NAME_BYTES_MAX: usize = 1_024;
/// The name of a method that no specification here knows; the longest of those has 34.
pub const METHOD_NAME_BYTES_MAX: usize = 128;
/// What is remembered and reported about items that one listing dropped.
pub const DROPPED_REPORTED_MAX: usize = 32;
/// Annotated parameters of one tool; each becomes a header.
pub const HEADER_PARAMETERS_MAX: usize = 32;
/// A public tool name on `/mcp`: clients add a prefix of their own, model APIs cap at 64.
pub const PUBLIC_NAME_BYTES_MAX: usize = 48;
/// A resource URI that is routed, and where a server of HTTP+SSE wants its messages.
pub const URI_BYTES_MAX: usize = 4 * 1024;
/// Templates of one server that route on `/mcp`; each is tried in turn.
pub const TEMPLATES_ROUTED_MAX: usize = 256;
/// Parts (literals and expressions) of one URI template.
pub const TEMPLATE_PARTS_MAX: usize = 32;
/// One server's instructions.
pub const INSTRUCTIONS_SERVER_BYTES_MAX: usize = 4 * 1024;
/// The merged instructions: they are put in front of a model on every start.
pub const INSTRUCTIONS_BYTES_MAX: usize = 16 * 1024;
/// Capability keys that nobody here has heard of, of one server: beside the known ones, in them, and experiments.
pub const CAPABILITY_KEYS_MAX: usize = 16;
/// Those keys with what they hold; they go out with every `initialize` and `server/discover`.
pub const CAPABILITY_KEYS_BYTES_MAX: usize = 8 * 1024;
/// How long a view waits for a server that was never listed, counted from when that began.
pub const CATALOG_FIRST_WAIT: Duration = Duration::from_secs(2);
/// How long whoever is shown a list waits for a newer one of one server that is late, counted from when fetching it began:
/// a server nearby has answered by then, and one that has not keeps nobody from the others' lists.
pub const CATALOG_RENEWED_WAIT: Duration = Duration::from_millis(300);
/// One refresh of one server, all lists together, whatever the source's own time-outs say.
pub const CATALOG_REFRESH_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two refreshes that notifications ask for: a flapping server is not chased.
pub const CATALOG_CHANGED_PAUSE: Duration = Duration::from_millis(500);
/// Before the first retry of a server that is down; doubles up to the next.
pub const CATALOG_RETRY_MIN: Duration = Duration::from_secs(1);
/// Between two retries of a server that stays down.
pub const CATALOG_RETRY_MAX: Duration = Duration::from_secs(60);
/// Between two refreshes that errors of the upstream ask for, once several have found nothing new: a caller who
/// sends wrong arguments for ever causes as little work.
pub const CATALOG_DOUBT_MAX: Duration = Duration::from_secs(300);
/// The longest `ttlMs` that is believed.
pub const LIST_TTL_MAX: Duration = Duration::from_secs(3_600);
/// Slices that were listed with a caller's own credential, all together.
pub const PRINCIPAL_SLICES_BYTES_MAX: u64 = 512 * 1024 * 1024;
/// A caller's slice that nobody asked for is forgotten after this.
pub const PRINCIPAL_SLICE_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// Composed views remembered, by the sum of their items.
pub const VIEW_ITEMS_CACHED_MAX: u64 = 1_000_000;
/// Answers to "which view is this caller's now" remembered.
pub const VIEW_MEMOS_MAX: u64 = 20_000;
/// Conflicts that one view reports.
pub const CONFLICTS_REPORTED_MAX: usize = 1_000;
/// Conflicts that are not logged again.
pub const CONFLICTS_REMEMBERED_MAX: u64 = 10_000;

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
/// How long a journal that was moved to another name is written on before that is noticed.
pub const JOURNAL_PATH_INTERVAL: Duration = Duration::from_millis(50);
/// Free text of a record (names that clients choose, details, notes); longer is cut.
pub const RECORD_TEXT_BYTES_MAX: usize = 512;
/// Values that conditions read, kept with one call.
pub const RECORD_VALUES_MAX: usize = 32;
/// Rows of a reload that one line of its record lists; more need more lines.
pub const RECORD_ROWS_MAX: usize = 200;
/// So many lines of a reload are on their way into the record at once; lines.
pub const RECORD_RELOAD_LINES_AT_ONCE: usize = 16;
/// Calls in flight that one line at the beginning of a segment names; there are as many lines as that takes.
pub const JOURNAL_OPEN_LEGS_MAX: usize = 2_000;
/// Refusals that are no call's are counted for this long before they become one line.
pub const NOISE_INTERVAL: Duration = Duration::from_secs(10);
/// Pairs of reason and source, and of reason and principal, counted apart; the rest is counted together.
pub const NOISE_SOURCES_MAX: usize = 1_024;
/// First refusals of a source, and of a principal, that are written at once, per interval: a person who tries things
/// sees them.
pub const NOISE_IMMEDIATE_MAX: usize = 10;

// === store ===

/// How long a statement waits for another connection's lock.
pub const STORE_BUSY_TIMEOUT: Duration = Duration::from_secs(5);
/// Connections that only read.
pub const STORE_READERS_MAX: u32 = 2;
/// Revocations that hold at once; every check looks at all of them.
pub const REVOCATIONS_MAX: i64 = 100_000;
/// Of them, those that feeds order: an administrator has room at three in the morning, whatever was synchronised.
pub const REVOCATIONS_OF_FEEDS_MAX: i64 = 50_000;
/// Of those, the blocks of people who left, which nothing lifts by itself: a logout has room in any case.
pub const REVOCATIONS_LEFT_MAX: i64 = 40_000;
/// Names of which it is remembered when they were taken back last, so that handles from before never open again; twice
/// what can hold at once. Handles that are older than what is forgotten are void, whoever's they are.
pub const VOIDED_MARKS_MAX: usize = 200_000;

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
/// Warnings about the files that the log of a start or reload shows; `check` shows all.
pub const WARNINGS_LOGGED_MAX: usize = 10;
/// How long a writer gets to finish before the set is read again.
pub const CONFIG_READ_PAUSE: Duration = Duration::from_millis(100);
/// How long a checkpoint that could not be put into a bucket waits for its next try, at least and at most.
pub const OBJECT_STORE_PAUSE_MIN: Duration = Duration::from_secs(1);
/// The same, however often it failed.
pub const OBJECT_STORE_PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often the last checkpoint of all is tried.
pub const OBJECT_STORE_LAST_TRIES: u32 = 2;
/// How long a stop waits for it.
pub const OBJECT_STORE_LAST_WAIT: Duration = Duration::from_secs(8);
/// When the start is over: what only it needed is given back then, once.
pub const START_OVER_AFTER: Duration = Duration::from_secs(2);
/// How far clocks may differ; above this an expired token lives on.
pub const LEEWAY_MAX: Duration = Duration::from_secs(60);
/// Servers in one configuration; names, lists and metrics are per server.
pub const SERVERS_MAX: usize = 1_000;
/// Issuers in one configuration.
pub const ISSUERS_MAX: usize = 100;
/// Agents in one configuration.
pub const AGENTS_MAX: usize = 10_000;

// === guard ===

/// Principals whose use is counted at once; about 200 bytes each.
pub const PRINCIPALS_REMEMBERED_MAX: u64 = 1_000_000;
/// How often a place is looked for while the principal is being forgotten, which takes a moment.
pub const SLOT_TRIES_MAX: usize = 1_000;

// === lists and watches ===

/// Items on one page; clients that never ask for a second page still see a thousand tools.
pub const LIST_PAGE_ITEMS_MAX: usize = 1_000;
/// Bytes on one page; a thousand tools with large schemas have about a megabyte.
pub const LIST_PAGE_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Pages remembered, in bytes.
pub const LIST_BYTES_CACHED_MAX: u64 = 64 * 1024 * 1024;
/// A page that nobody asks for is forgotten.
pub const LIST_CACHED_IDLE: Duration = Duration::from_secs(600);
/// How long a client may believe what `server/discover` said.
pub const DISCOVER_TTL_MS: u64 = 60_000;

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
/// First pause before an upstream that is down is tried again; it doubles.
pub const RETRY_PAUSE_MIN: Duration = Duration::from_millis(250);
/// Longest pause before an upstream that is down is tried again.
pub const RETRY_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Requests in a row that an upstream leaves without any answer, before it is asked whether it lives; it is down
/// if it does not answer that either.
pub const UNANSWERED_IN_A_ROW_MAX: u32 = 3;
/// An executable that is digested; Node.js has a tenth of that.
pub const EXECUTABLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;
/// Executables that were seen and not yet recorded; one for each server, and what does not fit comes again.
pub const EXECUTABLES_QUEUED_MAX: usize = 64;
/// What this host can confine a child with is found out in this time.
pub const SANDBOX_PROBE_TIMEOUT: Duration = Duration::from_secs(5);

// === gateway ===

/// How often counts of principals that have recovered are forgotten.
pub const HOUSEKEEPING_INTERVAL: Duration = Duration::from_secs(60);
/// Changes of files within this time are one change.
pub const WATCH_FILES_DEBOUNCE: Duration = Duration::from_millis(200);

// === control ===

/// A request on the control socket, or on the administrators' listener.
pub const CONTROL_BODY_BYTES_MAX: usize = 64 * 1024;
/// An answer of the control socket: metrics of a hundred servers, or every revocation.
pub const CONTROL_ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;
/// How long a command waits for the running gateway; a reload tests a large policy.
pub const CONTROL_TIMEOUT: Duration = Duration::from_secs(60);
/// What can be named in a revocation: a CIMD client id is a URL.
pub const REVOCATION_VALUE_BYTES_MAX: usize = 2_048;
/// A sign-out reaches this far ahead of its moment: issuers' clocks differ from ours.
pub const SIGN_OUT_SKEW: Duration = Duration::from_secs(60);

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

// === commands that are clients ===

/// Tools that `demo` and `tools` show at most.
pub const CLIENT_TOOLS_SHOWN_MAX: usize = 10_000;
/// How long `demo` waits for the line of a call in the journal; results do not wait for the disk.
pub const DEMO_LINE_TIMEOUT: Duration = Duration::from_secs(2);
/// How often `demo` looks for new lines in the journal.
pub const DEMO_LINE_POLL: Duration = Duration::from_millis(25);
/// How long `tools` waits for a server to list its tools.
pub const TOOLS_LIST_TIMEOUT: Duration = Duration::from_secs(30);
/// Calls whose end `demo` still waits to show.
pub const DEMO_OPEN_CALLS_MAX: usize = 4_096;

// === logs ===

/// How often `logs -f` looks for new records.
pub const LOGS_POLL_INTERVAL: Duration = Duration::from_millis(100);
/// Intents whose result `logs` waits for, to show both in one line.
pub const LOGS_OPEN_CALLS_MAX: usize = 20_000;
/// Calls that `logs show` names when an id is not unique.
pub const LOGS_CANDIDATES_MAX: usize = 10;
/// Calls of one mandate that `logs show` prints; of the others it says how many there are.
pub const LOGS_TREE_CALLS_MAX: usize = 200;
/// Ids that `logs show` looks for together: beyond that it shows less, and takes no more memory.
pub const LOGS_RELATED_MAX: usize = 20_000;
/// How long `revoke` waits for a gateway that is just starting or stopping.
pub const REVOKE_WAIT_MAX: Duration = Duration::from_secs(5);
