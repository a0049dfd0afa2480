//! Bounds of mandates: how many there are, how deep they nest, what is counted of them.

use std::time::Duration;

/// Templates in `policies/mandates.toml`.
pub const TEMPLATES_MAX: usize = 500;
/// Objects that one template, or whoever narrows it, may name.
pub const MANDATE_PATTERNS_MAX: usize = 256;
/// Mandates that are kept at once, those that ended a while ago included.
pub const MANDATES_MAX: u32 = 100_000;
/// Mandates that one caller opens in a day of the clock: nobody fills the store for everybody else.
pub const MANDATES_OPENED_PER_DAY_MAX: u32 = 2_000;
/// All that one mandate says, as it is kept: lists of it are read into memory.
pub const MANDATE_BYTES_MAX: usize = 16 * 1024;
/// Mandates that have ended are looked for this often.
pub const MANDATES_LOOK_INTERVAL: Duration = Duration::from_secs(10);
/// That mandates are used, which could not be told, is told again after so long.
pub const MANDATE_USE_RETRY: Duration = Duration::from_secs(1);
/// Ends of mandates that are put on the record at once: they wait for the same disk.
pub const MANDATES_TOLD_AT_ONCE_MAX: usize = 16;
/// Whoever ends a mandate tells of it within this time, or somebody else does.
pub const MANDATE_TOLD_WITHIN: Duration = Duration::from_secs(60);
/// Mandates that stand above one another, the last one included.
pub const MANDATE_DEPTH_MAX: usize = 4;
/// A mandate that no template bounds lasts no longer.
pub const MANDATE_FREE_LIFE_MAX: Duration = Duration::from_secs(86_400);
/// What an opener says that it is for.
pub const MANDATE_PURPOSE_BYTES_MAX: usize = 1_000;
/// One text of what a client declares that a call is for.
pub const INTENT_TEXT_BYTES_MAX: usize = 1_000;
/// Mandates that are remembered without asking the store.
pub const MANDATES_REMEMBERED_MAX: u64 = 10_000;
/// A mandate that is over is told of for so long.
pub const MANDATE_KEPT: Duration = Duration::from_secs(7 * 86_400);
/// Counts of mandates and agents that are kept at once.
pub const COUNTS_MAX: u32 = 1_000_000;
/// A count of a minute or a day is kept so much longer than that lasts: clocks of replicas differ.
pub const COUNT_KEPT: Duration = Duration::from_secs(120);
/// Mandates that one answer lists.
pub const MANDATES_LISTED_MAX: usize = 1_000;
/// A handle of a mandate, as a header or `_meta` carries it.
pub const MANDATE_HANDLE_BYTES_MAX: usize = 256;
/// The name of a tool with a budget of its own: it is part of the name of a count.
pub const TOOL_BUDGET_NAME_BYTES_MAX: usize = 256;
