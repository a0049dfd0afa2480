//! Reads `[record]`: how the record is signed and kept.

use crate::config::RecordConfig;
use crate::config::leaf::{Period, Size};
use crate::config::reader::Table;
use crate::limit;

/// Reads `[record]`.
pub fn read(mut table: Table<'_, '_>) -> Option<RecordConfig> {
    let checkpoint_interval = table.get::<Period>("checkpoint_interval");
    let segment = table.at::<Size>("segment_bytes");
    if let Some(size) = &segment
        && !(limit::SEGMENT_BYTES_MIN..=limit::JOURNAL_SEGMENT_BYTES_MAX).contains(&size.get_ref().0)
    {
        table.mistake(&size.span(), "segment_bytes is out of range: write 4KiB to 8MiB");
        return None;
    }
    Some(RecordConfig { checkpoint_interval: checkpoint_interval?.0, segment_bytes: segment?.into_inner().0 })
}
