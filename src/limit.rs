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

// === policy ===

/// One policy file; a rule takes about 80 bytes.
pub const POLICY_FILE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Files of per-server rules in one set.
pub const POLICY_FILES_MAX: usize = 1_000;
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
