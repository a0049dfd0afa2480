//! The bounds of what identity providers tell: logouts, events, people who left.
//!
//! Named like all others, see [`crate::limit`].

use std::time::Duration;

/// `[feeds.NAME]` tables; several may belong to one issuer.
pub const FEEDS_MAX: usize = 64;
/// The body of one message of a feed: a token and what surrounds it.
pub const FEED_BODY_BYTES_MAX: usize = 128 * 1024;
/// A logout token that was issued longer ago says nothing new; its sender logs out once more.
pub const LOGOUT_AGE_MAX: Duration = Duration::from_secs(600);
/// An event that was issued longer ago is refused: everything from before it has expired.
pub const EVENT_AGE_MAX: Duration = Duration::from_secs(8 * 24 * 3_600);
/// Identifiers of messages that were taken, for as long as the same one could come again.
pub const FEED_IDS_MAX: usize = 100_000;
/// The longest identifier of a message.
pub const FEED_ID_BYTES_MAX: usize = 256;
/// Events in one message.
pub const FEED_EVENTS_MAX: usize = 16;
/// Messages that prove nothing and are looked at for one source in a minute.
pub const FEED_KNOCKS_PER_MINUTE_MAX: u32 = 120;
/// Of the name of an event, in the record.
pub const FEED_EVENT_SHOWN_BYTES_MAX: usize = 64;
/// Changes in one SCIM PATCH.
pub const SCIM_CHANGES_MAX: usize = 64;
/// Events that are fetched at once.
pub const FEED_POLL_EVENTS_MAX: usize = 50;
/// Between two questions for events at least.
pub const FEED_POLL_INTERVAL_MIN: Duration = Duration::from_secs(1);
/// After so many failures in a row the pause has grown to this.
pub const FEED_POLL_RETRY_MAX: Duration = Duration::from_secs(300);
/// Secrets that feeds and the registration of clients need are read again after this.
pub const FRESH_SECRET_AGE_MAX: Duration = Duration::from_secs(30);
/// How many of them are remembered.
pub const FRESH_SECRETS_MAX: usize = 192;
/// Sign-outs that feeds ordered and that refuse nothing any more are looked for this often.
pub const FEED_SPENT_INTERVAL: Duration = Duration::from_secs(600);
/// How many of them are lifted then.
pub const FEED_SPENT_LIFTED_MAX: usize = 1_000;
