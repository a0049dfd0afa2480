//! Bounds of the rows that rooms keep at run time.

/// What one row may say.
pub const SHELF_BODY_BYTES_MAX: usize = 64 * 1024;
/// Its name, and what it is looked up by.
pub const SHELF_KEY_BYTES_MAX: usize = 512;
/// Changes that happen together.
pub const SHELF_CHANGES_MAX: usize = 64;
/// Rows that are read at once; whoever wants more asks again, after the last one.
pub const SHELF_ROWS_READ_MAX: usize = 1_000;
/// Rows that are removed so at once; the next sweep goes on.
pub const SHELF_SWEPT_MAX: i64 = 10_000;
/// How often a batch begins anew because somebody has made a row meanwhile that it was about to make.
pub const SHELF_TRIES_MAX: usize = 8;
