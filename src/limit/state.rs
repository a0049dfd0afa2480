//! Bounds of keys, backups, and policies that are tried out.

use std::time::Duration;

/// Keys of one purpose: the one that writes, and older ones that are still read.
pub const KEYS_MAX: usize = 32;
/// Secrets that were read and are left out of whatever is said: those of a large set of files, and what came in their
/// place since.
pub const KNOWN_SECRETS_MAX: usize = 1_000;
/// So much of one is searched for; nobody else has a word that begins alike.
pub const KNOWN_SECRET_SOUGHT_BYTES_MAX: usize = 128;
/// What is shorter may be a word that has to be read, such as `true`; and nobody should take it for a secret.
pub const KNOWN_SECRET_BYTES_MIN: usize = 8;
/// Wishes for access that are remembered, so that nobody asks for one thing twice a day.
pub const ACCESS_WISHES_MAX: u32 = 10_000;
/// Of one person.
pub const ACCESS_WISHES_OF_ONE_MAX: usize = 20;
/// How long: by then somebody has decided, or was on holiday.
pub const ACCESS_WISH_KEPT_FOR_US: i64 = 24 * 3600 * 1_000_000;
/// How long a key that seals no more is read: sessions end after a day, and few servers keep a task for a week.
pub const SEAL_KEY_KEPT: Duration = Duration::from_secs(7 * 24 * 3600);
/// Directories in directories of a backup; the state directory has two.
pub const BACKUP_DEPTH_MAX: usize = 8;
/// Revocations that are shown when the journal does not tell them any more.
pub const RECONCILE_GAPS_SHOWN_MAX: usize = 100;
/// How long a store is brought up to a journal; a hundred thousand changes take a minute or two.
pub const RECONCILE_WAIT_MAX: Duration = Duration::from_secs(600);
/// Decisions that wait to be evaluated under the next policies.
pub const SHADOW_QUEUE_MAX: usize = 256;
/// Arguments of a decision that waits so.
pub const SHADOW_ARGUMENTS_BYTES_MAX: usize = 64 * 1024;
/// Differences between the policies that are remembered.
pub const SHADOW_DIFFERENCES_MAX: usize = 1_000;
/// Callers that are named for one of them.
pub const SHADOW_WHO_MAX: usize = 20;
