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

// === catalog ===

/// Items of one kind that one server may list; the largest real server has a few hundred tools.
pub const LISTED_ITEMS_MAX: usize = 5_000;
/// One definition: descriptions and schemas; what is larger is not for a model to read.
pub const DEFINITION_BYTES_MAX: usize = 256 * 1024;
/// All definitions of one kind of one server together.
pub const LISTED_BYTES_MAX: usize = 8 * 1024 * 1024;
/// A name in an upstream's spelling; the specification recommends 128.
pub const LISTED_NAME_BYTES_MAX: usize = 1_024;
/// What is remembered and reported about items that one listing dropped.
pub const DROPPED_REPORTED_MAX: usize = 32;
/// Annotated parameters of one tool; each becomes a header.
pub const HEADER_PARAMETERS_MAX: usize = 32;
/// A public tool name on `/mcp`: clients add a prefix of their own, model APIs cap at 64.
pub const PUBLIC_NAME_BYTES_MAX: usize = 48;
/// A resource URI that is routed.
pub const URI_BYTES_MAX: usize = 4 * 1024;
/// Templates of one server that route on `/mcp`; each is tried in turn.
pub const TEMPLATES_ROUTED_MAX: usize = 256;
/// Parts (literals and expressions) of one URI template.
pub const TEMPLATE_PARTS_MAX: usize = 32;
/// One server's instructions.
pub const INSTRUCTIONS_SERVER_BYTES_MAX: usize = 4 * 1024;
/// The merged instructions: they are put in front of a model on every start.
pub const INSTRUCTIONS_BYTES_MAX: usize = 16 * 1024;
/// How long a view waits for a server that was never listed, counted from when that began.
pub const CATALOG_FIRST_WAIT: Duration = Duration::from_secs(2);
/// One refresh of one server, all lists together, whatever the source's own time-outs say.
pub const CATALOG_REFRESH_TIMEOUT: Duration = Duration::from_secs(60);
/// Between two refreshes that notifications ask for: a flapping server is not chased.
pub const CATALOG_CHANGED_PAUSE: Duration = Duration::from_secs(1);
/// Before the first retry of a server that is down; doubles up to the next.
pub const CATALOG_RETRY_MIN: Duration = Duration::from_secs(1);
/// Between two retries of a server that stays down.
pub const CATALOG_RETRY_MAX: Duration = Duration::from_secs(60);
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
