//! How a child is held: the words between the gateway, which decides what a child gets, and the process that
//! becomes the child, which gives everything else up before it does.
//!
//! The gateway writes a [`Profile`]; the supervisor starts itself once more, and that process confines itself and
//! turns into the command. The supervisor stays outside, so that the command can neither signal it nor look into it.
//! Decides nothing about who is called. Invariant: a command that was to be confined is confined, or not started.

use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::supervisor::PARENT_VARIABLE;

#[cfg(target_os = "linux")]
mod confine;
#[cfg(target_os = "linux")]
mod filter;
pub(super) mod host;
pub(super) mod reach;

/// Tells the supervisor how its command is held.
pub(super) const PROFILE_VARIABLE: &str = "BAILIWICK_SUPERVISOR_PROFILE";
/// Tells a process that it is the one that confines itself.
pub(super) const STAGE_VARIABLE: &str = "BAILIWICK_SUPERVISOR_STAGE";

/// The command was found and could not be started as it should, as shells say it.
const NOT_CONFINED: u8 = 126;

/// What the process is for that confines itself.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum Stage {
    /// Become the command, held like this.
    Start(Profile),
    /// Say what this host can do, and end.
    Probe,
}

/// How one child is held.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Profile {
    pub limits: Limits,
    /// What is left to it; everything, where there is none.
    pub confinement: Option<Confinement>,
}

/// Bounds of one child, in what the kernel counts.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Limits {
    pub memory_bytes_max: u64,
    pub file_bytes_max: u64,
    pub open_files_max: u64,
    pub processes_max: u64,
}

/// What is left to a confined child.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Confinement {
    /// What it may read and run.
    pub read: Vec<PathBuf>,
    /// What it may change, too.
    pub write: Vec<PathBuf>,
    pub network: bool,
    /// Whether this host can give it namespaces of its own.
    pub namespaces: bool,
}

/// Whether this process was started to confine itself; if so, it has done so, or failed, when this returns.
pub(super) fn stage(command: &[String]) -> Option<ExitCode> {
    let text = std::env::var(STAGE_VARIABLE).ok()?;
    let problem = match serde_json::from_str(&text) {
        Ok(Stage::Start(profile)) => become_command(&profile, command),
        Ok(Stage::Probe) => return Some(host::tell()),
        Err(error) => error.to_string(),
    };
    use std::io::Write as _;
    let _ = writeln!(std::io::stderr(), "cannot start the command: {problem}");
    Some(ExitCode::from(NOT_CONFINED))
}

/// Turns this process into the command; returns only with what went wrong.
#[cfg(target_os = "linux")]
fn become_command(profile: &Profile, command: &[String]) -> String {
    let held = confine::limit(&profile.limits).and_then(|()| match &profile.confinement {
        Some(confinement) => confine::confine(confinement, &profile.limits),
        None => Ok(()),
    });
    let held = held.and_then(|()| confine::keep_standard_streams_only());
    match held.and_then(|()| confine::die_with_parent()) {
        Ok(()) => exec(command),
        Err(problem) => problem,
    }
}

#[cfg(not(target_os = "linux"))]
fn become_command(profile: &Profile, command: &[String]) -> String {
    match profile.confinement {
        Some(_) => host::NOT_LINUX.to_owned(),
        None => exec(command),
    }
}

fn exec(command: &[String]) -> String {
    use std::os::unix::process::CommandExt as _;
    let Some((program, arguments)) = command.split_first() else { return "no command is named".to_owned() };
    let error = std::process::Command::new(program)
        .args(arguments)
        .env_remove(STAGE_VARIABLE)
        .env_remove(PARENT_VARIABLE)
        .exec();
    format!("`{program}`: {error}")
}
