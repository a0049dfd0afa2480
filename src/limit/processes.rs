//! Processes that are started with a credential: how many, and how long one may go on when it is to end.

use std::time::Duration;

/// What `instances_max` of a server may say.
pub const PROCESSES_PER_SERVER_CEILING: usize = 1_024;
/// Processes of one server that are started with credentials of one person, whatever clients and agents they call with.
pub const PROCESSES_PER_HOLDER_MAX: usize = 8;
/// Before the use of its credential ends, a process takes nothing new for so long and finishes what it has begun; a
/// quarter of that use, where that is less.
pub const PROCESS_DRAIN_MAX: Duration = Duration::from_secs(30);
/// Whether what processes were started with still stands is looked at so often, beside every revocation.
pub const PROCESSES_LOOK_INTERVAL: Duration = Duration::from_secs(5);
/// People whose processes end right after their start, and are remembered for it; of one server.
pub const PROCESS_RESTS_MAX: usize = 1_024;
