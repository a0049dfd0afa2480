//! Bounds of accounts that people link, and of the pages on which they do.

use std::time::Duration;

/// Linked accounts.
pub const VAULT_ENTRIES_MAX: u32 = 100_000;
/// A sealed entry: three tokens of the longest, and what is known of them.
pub const VAULT_ENTRY_BYTES_MAX: usize = 60 * 1024;
/// An account that nobody used for so long is forgotten.
pub const VAULT_IDLE_MAX: Duration = Duration::from_secs(180 * 24 * 3600);
/// Opened entries that are remembered.
pub const VAULT_HELD_MAX: u64 = 10_000;
/// So long one replica renews a token before another may: longer than an authorization server is waited for.
pub const VAULT_LEASE: Duration = Duration::from_secs(30);
/// How often somebody looks whether another replica has renewed a token.
pub const VAULT_LEASE_POLL: Duration = Duration::from_millis(200);
/// An account whose token a server does not take is renewed for that at most this often.
pub const VAULT_REFUSED_PAUSE: Duration = Duration::from_secs(60);
/// An authorization server that could not be asked for an account is left alone so long, for that account.
pub const VAULT_FAILED_PAUSE: Duration = Duration::from_secs(5);
/// Accounts that were taken back here, and whose tokens are still to be given back to their services.
pub const VAULT_OWED_MAX: u32 = 100_000;
/// It is tried for so long; by then refresh tokens that nobody uses have ended at most services.
pub const VAULT_OWED_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// It is tried again after this, then ever more seldom.
pub const VAULT_OWED_RETRY_MIN: Duration = Duration::from_secs(60);
/// But not more seldom than this.
pub const VAULT_OWED_RETRY_MAX: Duration = Duration::from_secs(6 * 3600);
/// How often it is looked whether something is to be tried again.
pub const VAULT_LOOK_INTERVAL: Duration = Duration::from_secs(20);
/// A registration of ours is made anew after so long: a service that has forgotten it does not say so to us.
pub const VAULT_CLIENT_AGE_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Registrations of ours at authorization servers.
pub const VAULT_CLIENTS_MAX: u32 = 1_000;
/// What authorization servers say of themselves is asked again after so long.
pub const VAULT_AUTHORITY_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// So many of them are remembered.
pub const VAULT_AUTHORITIES_MAX: u64 = 1_000;
/// Scopes that are asked for, all together.
pub const VAULT_SCOPE_BYTES_MAX: usize = 4 * 1024;
/// Scopes of an account that has to be linked for more, all together: they travel in the link.
pub const VAULT_WIDER_BYTES_MAX: usize = 1024;
/// A nonce that a server wants in proofs of ours.
pub const PROOF_NONCE_BYTES_MAX: usize = 1024;
/// From the question for an account to the page that stores it.
pub const LINK_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// A call that asked for an account waits for it so long after the client said that the page is open.
pub const LINK_WAIT_MAX: Duration = Duration::from_secs(2 * 60);
/// How often it looks.
pub const LINK_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// The list of somebody without an account is looked at again after so long.
pub const LINK_LIST_TTL: Duration = Duration::from_secs(5);
/// Answers of issuers that were taken, each once.
pub const LINK_STATES_MAX: u32 = 100_000;
/// Answers that are taken from one person within [`LINK_AGE_MAX`]: linking an account takes two.
pub const LINK_ANSWERS_MAX: i64 = 40;
/// Links that somebody else opened, and that their owners were not told of yet.
pub const LINK_FOREIGN_MAX: u32 = 10_000;
/// They are told within so long, or not at all.
pub const LINK_FOREIGN_AGE_MAX: Duration = Duration::from_secs(24 * 3600);
