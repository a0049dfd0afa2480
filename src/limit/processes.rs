//! Child processes: how many, what each may say, and how long one may go on when it is to end.

use std::time::Duration;

use super::RESPONSE_BYTES_MAX;

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
/// Child processes of one server unless its `instances_max` says otherwise; the least recently used idle one makes room.
pub const PROCESSES_PER_SERVER_MAX: usize = 32;
/// A child process that nobody uses for this long is stopped.
pub const PROCESS_IDLE: Duration = Duration::from_secs(10 * 60);
/// Messages that wait to be written to a child process, or that are being posted into one session of HTTP+SSE
/// beside its calls.
pub const PROCESS_WRITES_QUEUED_MAX: usize = 64;
/// A line of a child's standard output: one message.
pub const PROCESS_LINE_BYTES_MAX: usize = RESPONSE_BYTES_MAX;
/// A line of a child's standard error that is shown; the rest of it is left out.
pub const PROCESS_ERROR_LINE_BYTES_MAX: usize = 4 * 1024;
/// Lines per second of a child's standard error that are shown.
pub const PROCESS_ERROR_LINES_PER_SECOND_MAX: u32 = 50;
/// Lines on a child's standard output that are no messages, before the process is called garbage.
pub const PROCESS_NOISE_LINES_MAX: usize = 1_000;
/// A child may take this long to end by itself when its standard input ends.
pub const PROCESS_STOP_GRACE: Duration = Duration::from_millis(1_500);
/// A child may take this long to end after SIGTERM, before SIGKILL.
pub const PROCESS_TERM_GRACE: Duration = Duration::from_millis(800);
/// Everything that a child left behind is gone after this, at the latest.
pub const PROCESS_KILL_WAIT: Duration = Duration::from_millis(1_000);
/// Credentials that one process was handed and that are left out of what it prints; the oldest have long ended.
pub const HANDED_REMEMBERED_MAX: usize = 32;
