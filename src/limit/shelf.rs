//! Bounds of the rows that rooms keep at run time.

use std::time::Duration;

/// What one row may say.
pub const SHELF_BODY_BYTES_MAX: usize = 64 * 1024;
/// What is said of one more bit.
pub const SHELF_NOTE_BYTES_MAX: usize = 1024;
/// Its name, and what it is looked up by.
pub const SHELF_KEY_BYTES_MAX: usize = 512;
/// Changes that happen together.
pub const SHELF_CHANGES_MAX: usize = 64;
/// Rows that are read at once; whoever wants more asks again, after the last one.
pub const SHELF_ROWS_READ_MAX: usize = 1_000;
/// Rows that are removed so at once; the next sweep goes on.
pub const SHELF_SWEPT_MAX: i64 = 10_000;
/// Of the room that is left in a section, a replica takes one part in so many before it counts again.
pub const SHELF_SHARES: u32 = 16;
/// For how long it is believed how many rows a section has, as long as far more fit.
pub const SHELF_COUNT_AGE_MAX: Duration = Duration::from_secs(10);
/// How often a batch begins anew because somebody has made a row meanwhile that it was about to make.
pub const SHELF_TRIES_MAX: usize = 8;
