//! Bounds of what the gateway presents to others.

use std::time::Duration;

/// What the gateway says of itself to an authorization server is good for so long: it is said once, at once.
pub const ASSERTION_LIFE: Duration = Duration::from_secs(60);
/// An authorization server whose metadata could not be fetched again is asked once more after this.
pub const METADATA_RETRY: Duration = Duration::from_secs(30);
/// A secret has its place, and another one while it is changed.
pub const SECRET_SLOTS_MAX: usize = 2;
/// Issued credentials in the ledger, which has each until it ends by itself.
pub const CREDENTIALS_LEDGER_MAX: u32 = 100_000;
/// Issued credentials of one caller that still work: a fiftieth of the ledger, so that fifty greedy ones do not fill it.
pub const CREDENTIALS_PER_CALLER_MAX: usize = 2_000;
/// Beyond so many, those of them that are used no more are taken back, the oldest first.
pub const CREDENTIALS_PER_CALLER_KEPT: usize = 250;
/// Memory for issued credentials that still work, used or not; about 100,000 of 1.5 KB.
pub const CREDENTIALS_HELD_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// One that its authorization server took back is shown in the ledger so long.
pub const CREDENTIAL_REVOKED_SHOWN: Duration = Duration::from_secs(10 * 60);
/// How long a credential is remembered that does not say when it ends.
pub const CREDENTIAL_UNKNOWN_LIFE_KEPT: Duration = Duration::from_secs(24 * 60 * 60);
/// Credentials that are taken back at once at one authorization server; others wait for their turn.
pub const CREDENTIALS_REVOKED_AT_ONCE_MAX: usize = 8;
/// An authorization server that did not take a credential back is asked again after this, then ever more seldom.
pub const CREDENTIAL_REVOKE_RETRY_MIN: Duration = Duration::from_secs(1);
/// But not more seldom than this.
pub const CREDENTIAL_REVOKE_RETRY_MAX: Duration = Duration::from_secs(60);
/// Whoever revokes waits so long for authorization servers; what has not been answered by then is `pending`.
pub const REVOKE_REPORT_WAIT: Duration = Duration::from_secs(3);
/// One authorization server may take so long of a round over what is owed; the rest of its turn comes in the next.
pub const OWED_ROUND_MAX: Duration = Duration::from_secs(20);
/// Issued credentials that are listed at once.
pub const CREDENTIALS_LISTED_MAX: usize = 1_000;
/// A file whose secret was refused is looked at again for so long.
pub const SECRET_REREAD_TIMEOUT: Duration = Duration::from_secs(2);
/// A token whose use had ended and that is not taken back in this time is noted, so that it is given back after a restart as well.
pub const CREDENTIAL_OWED_AFTER: Duration = Duration::from_secs(1);
/// Tokens that their authorization servers have not taken back yet: each revocation of many callers may leave as many.
pub const CREDENTIALS_OWED_MAX: u32 = 10_000;
/// One of them, sealed.
pub const CREDENTIAL_OWED_BYTES_MAX: usize = 128 * 1024;
