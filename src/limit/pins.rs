//! Bounds of pinned definitions: what is remembered of them, and how long an upstream may keep us comparing.

use std::time::Duration;

/// Definitions that administrators have decided on; as many that wait, and as many rows for what either say; and digests in
/// `pins.lock`.
pub const PIN_ROWS_MAX: u32 = 20_000;
/// Definitions of one server that wait for somebody; more are hidden all the same and not remembered.
pub const PINS_WAITING_MAX: usize = 2_000;
/// So much of what they say is kept for each server; of more, digest and flags are.
pub const PINS_WAITING_BYTES_MAX: usize = 4 * 1024 * 1024;
/// One that its server listed again after it was gone is told again after so long: a server that lists this and that in
/// turns does not fill the record.
pub const PIN_TOLD_AGAIN_AFTER: Duration = Duration::from_secs(600);
/// So many bytes are looked at where a request is served; more are looked at elsewhere.
pub const PINS_LOOKED_AT_BYTES_MAX: usize = 64 * 1024;
/// How long one that waits is remembered in the store after it was listed last.
pub const PIN_WAITING_LIFE: Duration = Duration::from_secs(30 * 24 * 3_600);
/// A pinned list is looked at again at least so often, whatever its server says of how long it is good.
pub const PIN_LOOK_INTERVAL: Duration = Duration::from_secs(300);
/// Where nobody has asked for so much longer than that, whoever does waits for the next look.
pub const PIN_LOOK_DELAY_MAX: Duration = Duration::from_secs(60);
/// Comparisons of a new definition with removed ones, for each list.
pub const PIN_COMPARISONS_MAX: usize = 512;
/// So much of two definitions is compared.
pub const PIN_COMPARED_BYTES_MAX: usize = 8 * 1024;
/// So much of one row's text; the rest stands in further rows.
pub const PIN_ROW_TEXT_BYTES_MAX: usize = 48 * 1024;
/// Lines of a definition that are compared for a diff; beyond them both are shown as they are.
pub const PIN_DIFF_LINES_MAX: usize = 4_000;
/// Definitions that one order names; its digests fit into a body for administrators.
pub const PINS_ORDERED_MAX: usize = 900;
/// Definitions that a webhook names when they are kept back; the others are counted.
pub const PINS_TOLD_MAX: usize = 20;
