//! The small parent of one child process: whatever the child leaves behind ends with it, and with us.
//!
//! The gateway starts its own executable again as `bailiwick supervise -- command`, and that starts the
//! command. Decides when a command and everything that it started must end: when the command ends, when
//! SIGTERM comes, when the gateway is gone. Knows nothing of MCP: the command inherits the standard
//! streams and this process never touches them. Invariant: two seconds after the gateway is gone, however
//! it went, nothing that descends from the command is alive.
//!
//! On Linux orphans come to this process (it is a child subreaper), so a grandchild that made itself a
//! daemon is found as well, and no command may gain privileges (`no_new_privs`). Elsewhere only the
//! command's own process group is ended: a grandchild that left it survives. Where the gateway says how the
//! command is held, this executable is started once more for it; see `sandbox.rs`.

use std::os::fd::OwnedFd;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, WaitStatus};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;
use tokio::signal::unix::{SignalKind, signal};

use super::sandbox;
use crate::limit;

/// Names the gateway's process id, because who our parent is changes when it dies.
pub(super) const PARENT_VARIABLE: &str = "BAILIWICK_SUPERVISOR_PARENT";

/// The command could not be started, as shells say it.
const NOT_STARTED: u8 = 127;

/// How often the parent is looked at where the kernel cannot tell.
const PARENT_POLL: Duration = Duration::from_millis(100);

/// Starts a command, waits for its end, and ends everything that it started.
///
/// Answers the command's own exit code, 128 and the signal's number if one ended it, 127 if it could not
/// be started. What went wrong is said on standard error, which the gateway logs.
#[must_use]
pub fn supervise(command: &[String]) -> ExitCode {
    if let Some(code) = sandbox::stage(command) {
        return code;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    match runtime.map_err(|error| error.to_string()).and_then(|runtime| runtime.block_on(run(command))) {
        Ok(code) => ExitCode::from(code),
        Err(problem) => {
            use std::io::Write as _;
            let _ = writeln!(std::io::stderr(), "cannot start the command: {problem}");
            ExitCode::from(NOT_STARTED)
        }
    }
}

async fn run(command: &[String]) -> Result<u8, String> {
    let parent = Parent::find()?;
    prepare()?;
    let text = |error: std::io::Error| error.to_string();
    // Before the command starts, so that its end cannot be missed.
    let mut children = signal(SignalKind::child()).map_err(text)?;
    let mut terminate = signal(SignalKind::terminate()).map_err(text)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(text)?;
    let mut hangup = signal(SignalKind::hangup()).map_err(text)?;
    let child = start(command)?;
    let child = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or("its process id is odd")?;
    let ended = async {
        loop {
            if let Some(status) = reap(child).status {
                return status;
            }
            children.recv().await;
        }
    };
    tokio::pin!(ended);
    let status = tokio::select! {
        status = &mut ended => Some(status),
        () = parent.gone() => None,
        _ = terminate.recv() => None,
        _ = interrupt.recv() => None,
        _ = hangup.recv() => None,
    };
    let status = match status {
        Some(status) => Some(status),
        None => {
            let _ = rustix::process::kill_process_group(child, Signal::TERM);
            tokio::time::timeout(limit::PROCESS_TERM_GRACE, &mut ended).await.ok()
        }
    };
    Ok(clear(child, status).await)
}

/// Starts the command: where the gateway says how it is held, in a process that confines itself first.
fn start(command: &[String]) -> Result<std::process::Child, String> {
    let (program, arguments) = command.split_first().ok_or("no command is named")?;
    let mut starting = match std::env::var(sandbox::PROFILE_VARIABLE) {
        Ok(stage) => {
            let mut own = std::env::args_os().skip(1);
            let mut starting = std::process::Command::new(own_executable()?);
            starting.args(&mut own).env(sandbox::STAGE_VARIABLE, stage);
            starting.env(PARENT_VARIABLE, std::process::id().to_string());
            starting
        }
        Err(_) => {
            let mut starting = std::process::Command::new(program);
            starting.args(arguments).env_remove(PARENT_VARIABLE);
            starting
        }
    };
    starting
        .env_remove(sandbox::PROFILE_VARIABLE)
        .process_group(0)
        .spawn()
        .map_err(|error| format!("`{program}`: {error}"))
}

/// This executable, also when its file was replaced meanwhile.
pub(super) fn own_executable() -> Result<PathBuf, String> {
    if cfg!(target_os = "linux") {
        return Ok(PathBuf::from("/proc/self/exe"));
    }
    std::env::current_exe().map_err(|error| error.to_string())
}

/// Ends everything that is left, and answers the exit code.
///
/// Each child is killed in the moment in which it is seen, and what it had started comes to us in the next round: a
/// picture of the whole tree would be old when it is complete, and show of a process that forks and ends without
/// pause always the one that has just gone. Only we bury our children, so that none of their ids is another's.
async fn clear(child: Pid, mut status: Option<WaitStatus>) -> u8 {
    let deadline = Instant::now() + limit::PROCESS_KILL_WAIT;
    loop {
        if status.is_none() {
            // The group is named by the child, whose id is its own until it is buried.
            let _ = rustix::process::kill_process_group(child, Signal::KILL);
        }
        for process in children() {
            let _ = rustix::process::kill_process(process, Signal::KILL);
        }
        let reaped = reap(child);
        status = reaped.status.or(status);
        if !reaped.any_left || Instant::now() >= deadline {
            return status.map_or(128 + 9, code);
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn code(status: WaitStatus) -> u8 {
    let status = std::process::ExitStatus::from_raw(status.as_raw());
    let number = status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0));
    u8::try_from(number).unwrap_or(u8::MAX)
}

/// What was found while burying.
struct Reaped {
    /// How the command ended, if it is among them.
    status: Option<WaitStatus>,
    /// Whether there is any child, orphans too; on Linux that is so as long as anything descends from us.
    any_left: bool,
}

/// Buries every child that ended, orphans too.
fn reap(child: Pid) -> Reaped {
    let mut status = None;
    loop {
        match rustix::process::wait(WaitOptions::NOHANG) {
            Ok(Some((process, ended))) if process == child && (ended.exited() || ended.signaled()) => {
                status = Some(ended);
            }
            Ok(Some(_)) => {}
            Ok(None) => return Reaped { status, any_left: true },
            Err(_) => return Reaped { status, any_left: false },
        }
    }
}

#[cfg(target_os = "linux")]
fn prepare() -> Result<(), String> {
    use rustix::process::{DumpableBehavior, set_child_subreaper, set_dumpable_behavior};
    // What we ask of the system for ourselves is not the command's.
    let _ = rustix::thread::disable_transparent_huge_pages(false);
    // Its environment is the command's, which no other child may read.
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .and_then(|()| set_child_subreaper(Some(rustix::process::getpid())))
        .and_then(|()| rustix::thread::set_no_new_privs(true))
        .map_err(|error| error.to_string())
}

#[cfg(not(target_os = "linux"))]
fn prepare() -> Result<(), String> {
    Ok(())
}

/// The children of this process, orphans too.
#[cfg(target_os = "linux")]
fn children() -> Vec<Pid> {
    let tasks = std::fs::read_dir("/proc/self/task").into_iter().flatten().flatten();
    let lists: Vec<String> =
        tasks.filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok()).collect();
    if lists.is_empty() {
        return children_in_table();
    }
    let ids = lists.iter().flat_map(|list| list.split_ascii_whitespace());
    ids.filter_map(|id| Pid::from_raw(id.parse().ok()?)).collect()
}

/// The same where the kernel keeps no list of them, which takes longer.
#[cfg(target_os = "linux")]
fn children_in_table() -> Vec<Pid> {
    let own = rustix::process::getpid();
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(process) = entry.file_name().to_str().and_then(|name| Pid::from_raw(name.parse().ok()?)) else {
            continue;
        };
        let Ok(stat) = std::fs::read_to_string(entry.path().join("stat")) else { continue };
        // The name stands in parentheses and may contain anything, so read from its end.
        let parent = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(1));
        if parent.and_then(|parent| Pid::from_raw(parent.parse().ok()?)) == Some(own) {
            found.push(process);
        }
    }
    found
}

#[cfg(not(target_os = "linux"))]
fn children() -> Vec<Pid> {
    Vec::new()
}

/// The gateway, as this process sees it.
struct Parent {
    process: Pid,
    /// Tells of the end of the process, unlike a parent-death signal, which tells of the end of a thread.
    watch: Option<AsyncFd<OwnedFd>>,
}

impl Parent {
    fn find() -> Result<Self, String> {
        let now = rustix::process::getppid();
        let named = std::env::var(PARENT_VARIABLE).ok().and_then(|text| text.parse().ok()).and_then(Pid::from_raw);
        let process = named.or(now).ok_or("it has no parent")?;
        let watch = watch(process);
        // Looked at after the watch began: a parent that died before has been replaced by now.
        if rustix::process::getppid() != Some(process) {
            return Err("the gateway is gone already".to_owned());
        }
        Ok(Self { process, watch })
    }

    async fn gone(&self) {
        if let Some(watch) = &self.watch
            && watch.ready(Interest::READABLE).await.is_ok()
        {
            return;
        }
        while rustix::process::getppid() == Some(self.process) {
            tokio::time::sleep(PARENT_POLL).await;
        }
    }
}

#[cfg(target_os = "linux")]
#[expect(deprecated, reason = "what replaces it is unsafe, and an owned descriptor is what it needs to be sound")]
fn watch(process: Pid) -> Option<AsyncFd<OwnedFd>> {
    let descriptor = rustix::process::pidfd_open(process, rustix::process::PidfdFlags::empty()).ok()?;
    AsyncFd::with_interest(descriptor, Interest::READABLE).ok()
}

#[cfg(not(target_os = "linux"))]
fn watch(_process: Pid) -> Option<AsyncFd<OwnedFd>> {
    None
}
