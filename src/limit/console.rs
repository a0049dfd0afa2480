//! Bounds of the console.

use std::time::Duration;

/// People signed in at once; whoever was idle longest makes room for the next.
pub const CONSOLE_SESSIONS_MAX: usize = 1_000;
/// Sessions of one person: a few browsers on a few machines, so that nobody who signs in without end ends others'.
pub const CONSOLE_SESSIONS_OF_ONE_MAX: usize = 10;
/// A session that nobody used for so long is over: a browser left open over lunch.
pub const CONSOLE_SESSION_IDLE_MAX: Duration = Duration::from_secs(30 * 60);
/// A session that is this old is over however busy it was: a working day.
pub const CONSOLE_SESSION_AGE_MAX: Duration = Duration::from_secs(12 * 3_600);
/// Between the first step of a login and the last: long enough to find a second factor.
pub const CONSOLE_LOGIN_AGE_MAX: Duration = Duration::from_secs(10 * 60);
/// What the issuer says of itself is believed for so long.
pub const CONSOLE_METADATA_AGE_MAX: Duration = Duration::from_secs(5 * 60);
/// Whoever is not signed in makes us ask the issuer again at most this often while it does not answer.
pub const CONSOLE_METADATA_RETRY: Duration = Duration::from_secs(5);
/// Logins that wait for the issuer at once; further ones are asked to try again.
pub const CONSOLE_LOGINS_MAX: usize = 32;
/// An access token that ends this soon is renewed before it is used.
pub const CONSOLE_RENEW_BEFORE: Duration = Duration::from_secs(20);
/// A form; the longest field is a reason of a few sentences.
pub const CONSOLE_FORM_BYTES_MAX: usize = 16 * 1_024;
/// Rows of one table; what is beyond is counted.
pub const CONSOLE_ROWS_SHOWN_MAX: usize = 200;
/// Lines of what changes with a definition.
pub const CONSOLE_DIFF_LINES_SHOWN_MAX: usize = 2_000;
/// Rows that a live log keeps in the page.
pub const CONSOLE_LOG_ROWS_MAX: usize = 100;
/// Tools, prompts and resources on one page of *my access*.
pub const CONSOLE_ITEMS_SHOWN_MAX: usize = 500;
/// A text that somebody else wrote, before it is cut.
pub const CONSOLE_TEXT_CHARACTERS_MAX: usize = 300;
/// The refusals that the overview counts are at most this old.
pub const CONSOLE_REFUSALS_WINDOW: Duration = Duration::from_secs(15 * 60);
/// One record of the live log as HTML; a longer one is left out of the page.
pub const CONSOLE_EVENT_BYTES_MAX: usize = 1 << 20;
