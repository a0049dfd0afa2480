//! Bounds of outgoing webhooks.

use std::time::Duration;

/// Places that are told.
pub const WEBHOOKS_MAX: usize = 16;
/// Messages that wait; where nobody takes them for days, later ones are not made.
pub const WEBHOOK_MESSAGES_MAX: u32 = 10_000;
/// Of them, those that wait for one place; beyond, the oldest are given up.
pub const WEBHOOK_WAITING_MAX: usize = 500;
/// How long a message is tried: a day, in microseconds.
pub const WEBHOOK_KEPT_FOR_US: i64 = 24 * 60 * 60 * 1_000_000;
/// How often somebody looks whether one waits.
pub const WEBHOOK_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Messages that are on their way at once.
pub const WEBHOOK_SENT_AT_ONCE_MAX: usize = 16;
/// The first pause after one that was not taken, in microseconds; each further one is twice as long.
pub const WEBHOOK_RETRY_MIN_US: i64 = 1_000_000;
/// And no longer than this.
pub const WEBHOOK_RETRY_MAX_US: i64 = 10 * 60 * 1_000_000;
