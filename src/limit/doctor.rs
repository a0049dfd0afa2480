//! Bounds of `doctor` and `init`.

use std::time::Duration;

/// One look of `doctor`: a package runner on a cold cache takes ten seconds to start a server, and its list a few.
pub const DOCTOR_CHECK_TIMEOUT: Duration = Duration::from_secs(30);
/// After so long somebody who waits wants to know for what.
pub const DOCTOR_PROGRESS_AFTER: Duration = Duration::from_secs(1);
/// How long after its directory was removed it is looked for once more,
pub const DOCTOR_CLEAR_PAUSE: Duration = Duration::from_millis(30);
/// and how often.
pub const DOCTOR_CLEAR_TRIES: usize = 10;
/// Files of the state directory that are looked at one by one.
pub const DOCTOR_FILES_MAX: usize = 10_000;
/// A configuration of an assistant; Claude Code keeps a history in its own, of some megabytes.
pub const INIT_FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Servers taken from one of them.
pub const INIT_SERVERS_MAX: usize = 200;
