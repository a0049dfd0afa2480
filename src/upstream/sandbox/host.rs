//! What this host can hold a child with, found out by doing it in a process that is thrown away.
//!
//! Decides what has to be there so that a child counts as confined. Knows nothing of any server. Invariant: nothing
//! is assumed from versions: what was not tried successfully is not there.

use std::process::{ExitCode, Stdio};

use serde::{Deserialize, Serialize};

use super::{STAGE_VARIABLE, Stage};
use crate::limit;
use crate::upstream::Launcher;

/// Why no child can be confined elsewhere.
pub(super) const NOT_LINUX: &str = "only Linux can confine a process";

/// What was tried, and what came of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(in crate::upstream) struct Host {
    /// The version of Landlock's interface; 0 where there is none.
    pub landlock: u32,
    /// Whether system calls can be refused.
    pub filter: bool,
    /// Whether a process gets namespaces of its own: network, IPC, and users where the gateway is not root.
    pub namespaces: bool,
}

/// What this host can hold a child with, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HostFacts {
    /// The version of Landlock's interface; 0 where there is none.
    pub landlock: u32,
    /// Whether system calls can be refused.
    pub filter: bool,
    /// Whether a process gets namespaces of its own.
    pub namespaces: bool,
    /// Whether a process is kept from signalling those outside.
    pub signals: bool,
    /// Why no child can be confined here, and what to do about it.
    pub lacks: Option<String>,
}

/// Tries what this host can hold a child with.
///
/// # Errors
/// Where nothing could be found out.
pub async fn host_facts(config: &crate::config::Config) -> Result<HostFacts, String> {
    let host = Host::probe(&Launcher::of_this_executable(config)?).await?;
    let Host { landlock, filter, namespaces } = host;
    Ok(HostFacts { landlock, filter, namespaces, signals: landlock >= LANDLOCK_SCOPES, lacks: host.lacks() })
}

/// Since this version truncating a file needs the right to write it: before, a child could empty the journal.
const LANDLOCK_NEEDED: u32 = 3;
/// Since this version a process can be kept from signalling those outside.
const LANDLOCK_SCOPES: u32 = 6;

impl Host {
    /// Why no child can be confined here, and what to do about it; `None` where it can.
    pub(in crate::upstream) fn lacks(&self) -> Option<String> {
        let what = match self {
            Self { landlock: 0, .. } if !cfg!(target_os = "linux") => NOT_LINUX.to_owned(),
            Self { landlock: 0, .. } => "Landlock is not there: it needs Linux 6.2 or newer with `landlock` among the \
                                         kernel's security modules (lsm=), and a container that allows its system calls"
                .to_owned(),
            Self { landlock, .. } if *landlock < LANDLOCK_NEEDED => {
                format!("Landlock is too old (version {landlock}, {LANDLOCK_NEEDED} is needed): use Linux 6.2 or newer")
            }
            Self { filter: false, .. } => "system calls cannot be filtered: allow seccomp to the gateway".to_owned(),
            _ => return None,
        };
        Some(format!(
            "this host cannot confine its process: {what}; or write sandbox = \"none\" for this server, which lets it do \
             whatever the gateway's user can"
        ))
    }

    /// Finds out, with another start of the supervisor.
    ///
    /// # Errors
    /// Where nothing was found out, so that it is tried again.
    pub(in crate::upstream) async fn probe(launcher: &Launcher) -> Result<Self, String> {
        let failed =
            |problem: String| format!("what this host can confine a process with was not found out: {problem}");
        let stage = serde_json::to_string(&Stage::Probe).map_err(|error| failed(error.to_string()))?;
        let started = tokio::process::Command::new(&launcher.program)
            .args(&launcher.arguments)
            .arg("probe")
            .env_clear()
            .env(STAGE_VARIABLE, stage)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = match tokio::time::timeout(limit::SANDBOX_PROBE_TIMEOUT, started).await {
            Ok(ended) => ended.map_err(|error| failed(error.to_string()))?,
            Err(_) => return Err(failed(format!("no answer within {} s", limit::SANDBOX_PROBE_TIMEOUT.as_secs()))),
        };
        let text = String::from_utf8_lossy(&output.stdout);
        let host: Self = text
            .lines()
            .find_map(|line| serde_json::from_str(line).ok())
            .ok_or_else(|| failed(format!("the probe ended with {}", output.status)))?;
        host.say();
        Ok(host)
    }

    fn say(&self) {
        let Self { landlock, filter, namespaces } = self;
        let signals = *landlock >= LANDLOCK_SCOPES;
        tracing::info!(landlock, filter, namespaces, signals, "what children can be confined with");
        if self.lacks().is_none() && !signals {
            tracing::warn!(
                "children can signal the gateway's other processes: that needs Landlock version {LANDLOCK_SCOPES} (Linux 6.12)"
            );
        }
    }
}

/// Tries everything on this process, and says on standard output what worked.
#[cfg(target_os = "linux")]
pub(super) fn tell() -> ExitCode {
    use std::io::Write as _;
    // Namespaces first: Landlock would forbid what they need.
    let namespaces = super::confine::separate(false).is_ok();
    let landlock = super::confine::landlock_version();
    let filter = super::filter::apply(false).is_ok();
    let text = serde_json::to_string(&Host { landlock, filter, namespaces }).unwrap_or_default();
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(not(target_os = "linux"))]
pub(super) fn tell() -> ExitCode {
    use std::io::Write as _;
    let nothing = Host { landlock: 0, filter: false, namespaces: false };
    let text = serde_json::to_string(&nothing).unwrap_or_default();
    match writeln!(std::io::stdout(), "{text}") {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::FAILURE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_lacks_something_says_what_to_do() {
        let whole = Host { landlock: 6, filter: true, namespaces: false };
        assert_eq!(whole.lacks(), None, "namespaces are one more wall, not the only one");
        for (host, hint) in [
            (Host { landlock: 0, ..whole.clone() }, "lsm="),
            (Host { landlock: 2, ..whole.clone() }, "Linux 6.2"),
            (Host { filter: false, ..whole }, "seccomp"),
        ] {
            let said = host.lacks().unwrap();
            assert!(said.contains("sandbox = \"none\""), "{said}");
            assert!(said.contains(hint) || !cfg!(target_os = "linux"), "{said}");
        }
    }
}
