//! Bounds of the record beyond its lines: the tree, checkpoints, where they go, and how much is kept.

use std::time::Duration;

/// Records in a row that may be missing before one whose place in the tree is still believed.
pub const RECORDS_LOST_MAX: u64 = 65_536;
/// A checkpoint with its signatures; sixteen of them have to fit.
pub const CHECKPOINT_BYTES_MAX: usize = 64 * 1024;
/// A file of an auditor's: checkpoints that were kept elsewhere, or keys.
pub const AUDITOR_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// How often it is looked whether the record grew, and whether it can be written.
pub const LEDGER_LOOK_INTERVAL: Duration = Duration::from_millis(500);
/// How long a stop waits for the last checkpoint: a place that it is sent to may hang.
pub const LEDGER_STOP_MAX: Duration = Duration::from_secs(5);
/// The smallest segment that can be configured; below it there would be more files than lines.
pub const SEGMENT_BYTES_MIN: u64 = 4 * 1024;
/// How long a checkpoint may take to be handed to a log.
pub const SINK_TIMEOUT: Duration = Duration::from_secs(1);
/// Places that checkpoints are sent to; each is told of every one.
pub const SINKS_MAX: usize = 8;
/// Arguments that `[record] redact` names.
pub const REDACTED_PATHS_MAX: usize = 256;
/// Values of one call that words are looked through for; of more no word is recorded.
pub const REDACTED_VALUES_MAX: usize = 256;
/// So much of one of them is searched for, bytes; few words begin alike by chance.
pub const REDACTED_SOUGHT_BYTES_MAX: usize = 32;
/// Groups of a caller, and scopes of its token, that one line tells; of more it tells none.
pub const RECORD_GROUPS_MAX: usize = 32;
