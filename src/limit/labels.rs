//! Bounds of labels: what callers have seen.

use std::time::Duration;

/// Entries of `labels.toml`.
pub const LABEL_ENTRIES_MAX: usize = 1_000;
/// How long what was seen outside of a mandate is remembered, where the file does not say.
pub const LABEL_MEMORY_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// The shortest time that may be written for it.
pub const LABEL_MEMORY_MIN: Duration = Duration::from_secs(60);
