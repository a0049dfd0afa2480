//! Bounds of labels: what callers have seen.

use std::time::Duration;

/// Entries of `labels.toml`.
pub const LABEL_ENTRIES_MAX: usize = 1_000;
/// How long what was seen outside of a mandate is remembered, where the file does not say.
pub const LABEL_MEMORY_DEFAULT: Duration = Duration::from_secs(24 * 3600);
/// The shortest time that may be written for it.
pub const LABEL_MEMORY_MIN: Duration = Duration::from_secs(60);
/// Callers whose labels are remembered in memory; the store has all of them.
pub const LABELS_REMEMBERED_MAX: u64 = 20_000;
/// Callers whose labels are kept.
pub const LABELS_MAX: u32 = 200_000;
/// Stores whose labels are kept.
pub const LABEL_STORES_MAX: u32 = 10_000;
/// Labels of a caller who goes on calling are renewed after half of their life, and after half of this.
pub const LABELS_RENEWED_AFTER_MAX: Duration = Duration::from_secs(3600);
/// Carriers of labels that one answer lists.
pub const LABELS_LISTED_MAX: usize = 1_000;
/// Labels to be taken off that wait for a second person.
pub const DECLASSIFICATIONS_WAITING_MAX: u32 = 100;
/// How long they wait.
pub const DECLASSIFICATION_WAITS_MAX: Duration = Duration::from_secs(900);
/// Why a label is to be taken off.
pub const DECLASSIFICATION_REASON_BYTES_MAX: usize = 500;
