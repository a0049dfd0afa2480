//! Callers that are no people with a JWT: opaque tokens, API keys, software that nobody registered.

use std::time::Duration;

/// What opaque tokens of one issuer begin with.
pub const TOKEN_PREFIX_BYTES_MAX: usize = 32;
/// What an issuer says of an opaque token is believed for so long.
pub const INTROSPECTED_LIFE_MAX: Duration = Duration::from_secs(30);
/// What an issuer says of one opaque token.
pub const INTROSPECTED_BYTES_MAX: usize = 64 * 1024;
/// Memory for what issuers said of opaque tokens a moment ago.
pub const INTROSPECTED_CACHE_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Opaque tokens that one issuer is asked about at once.
pub const INTROSPECTIONS_MAX: usize = 64;
/// For so long a token that was active is asked about before those that never were.
pub const INTROSPECTED_LATELY: Duration = Duration::from_secs(15 * 60);
/// Tokens of one issuer that are known to have been active; some 100 bytes each.
pub const INTROSPECTED_LATELY_MAX: u64 = 100_000;
/// API keys of all agents together; each unknown one is compared with all of them.
pub const API_KEYS_MAX: usize = 1_000;
/// An API key is good for so many days from the day on which it was made.
pub const API_KEY_DAYS_MAX: i64 = 365;
/// Clients that nobody registered and that are proposed: more are denied all the same.
pub const PROPOSED_AGENTS_MAX: u32 = 1_000;
/// Those that came and were not written down yet.
pub const PROPOSED_WAITING_MAX: usize = 100;
/// A proposal goes when the client has not come for so long.
pub const PROPOSED_LIFE: Duration = Duration::from_secs(30 * 24 * 3600);
/// A client that comes again and again is written down again after so long.
pub const PROPOSED_AGAIN: Duration = Duration::from_secs(3600);
/// A client's name in a proposal.
pub const PROPOSED_NAME_CHARACTERS_MAX: usize = 200;
/// Addresses, or networks of 2^64 of them, from which somebody was refused lately; some 100 bytes each.
pub const STRANGERS_REMEMBERED_MAX: u64 = 16_384;
/// Tokens and certificates that were found good, whose bearers are no strangers; some 150 bytes each.
pub const ACQUAINTANCES_MAX: u64 = 65_536;
