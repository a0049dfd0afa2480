//! Bounds of tasks: what a server may call one, and how long and how often the gateway follows it itself.

use std::time::Duration;

/// A task id as an upstream spells it; most are UUIDs. Sealed into ours, which travels in a header.
pub const TASK_ID_BYTES_MAX: usize = 1_024;
/// The token that a client gives for the progress of a task, as it spells it; it travels in that id. One that is longer hears
/// of progress as long as its call goes on, and not of the task's.
pub const TASK_TOKEN_BYTES_MAX: usize = 128;
/// The gateway asks for a task that it follows no more often than this, whatever the upstream suggests.
pub const TASK_POLL_MIN: Duration = Duration::from_millis(250);
/// And no less often, so that a client that waits hears of the end.
pub const TASK_POLL_MAX: Duration = Duration::from_secs(10);
/// Where the upstream suggests nothing.
pub const TASK_POLL_DEFAULT: Duration = Duration::from_secs(1);
/// Tasks of one principal that the gateway follows at once; each asks again and again.
pub const TASKS_FOLLOWED_MAX: usize = 16;
/// How long a task of 2025-11-25 that says it asks something is waited for to say what, and how long what waits for its
/// result goes on after the answer.
pub const TASK_QUESTION_WAIT: Duration = Duration::from_secs(5);
/// How long an upstream of 2025-11-25 is asked to keep a task that its tool insists on.
pub const TASK_LIFE_ASKED: Duration = Duration::from_secs(3_600);
/// Tasks that one listen hears of; each is a stream to its server, and counts like a resource that is heard of.
pub const TASKS_PER_STREAM_MAX: usize = 32;
/// Tasks of one principal that are cancelled with their mandates, while their clients follow them.
pub const TASKS_MANDATED_MAX: usize = 100;
/// How often that is tried while its principal has as many calls under way as it may; a second apart.
pub const TASK_CANCEL_TRIES_MAX: usize = 60;
/// A task that keeps a mandate from ending for want of use is asked about within this time, or within a quarter of how long
/// nobody has to use that.
pub const TASK_LOOKED_AT_WITHIN: Duration = Duration::from_secs(300);
/// Tasks of one principal that `tasks/list` remembers; the oldest makes room.
pub const TASKS_GIVEN_MAX: usize = 64;
/// Of all principals; whoever asked last is among them. Of most tasks some 700 bytes.
pub const TASKS_GIVEN_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// What is kept of how one of them stands.
pub const TASK_STATE_BYTES_MAX: usize = 256;
/// How long, once nobody asks for them.
pub const TASKS_GIVEN_IDLE_MAX: Duration = Duration::from_secs(24 * 3_600);
/// Tasks of one page of `tasks/list`; each is asked for by itself.
pub const TASKS_LISTED_MAX: usize = 16;
/// And so many of them at once.
pub const TASKS_LISTED_AT_ONCE_MAX: usize = 4;
