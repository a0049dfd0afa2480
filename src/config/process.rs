//! What a stdio server's process may use and reach.
//!
//! Decides which confinements exist: a server is confined with exactly what was written down for it, or somebody
//! wrote that it is not. Knows nothing of how a host enforces it. Invariant: no path here is one of the gateway's
//! own, as far as names can tell; whoever opens them looks again.

use std::path::{Component, Path, PathBuf};

/// How the process of a stdio server is held.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessConfig {
    /// What it may reach.
    pub sandbox: Sandbox,
    /// What it may use.
    pub limits: ProcessLimits,
    /// How it gets the server's credential, where it has one.
    pub handover: Option<Handover>,
    /// Processes of this server at once.
    pub instances_max: usize,
}

/// How a process gets the credential that it was started with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Handover {
    /// In this variable of its environment; it is replaced by another process when the use of that ends.
    Variable(String),
    /// In a file that this variable names; what is in it is replaced while the process lives.
    File(String),
}

impl Handover {
    /// The variable.
    #[must_use]
    pub fn variable(&self) -> &str {
        match self {
            Self::Variable(name) | Self::File(name) => name,
        }
    }
}

/// Whether a process is kept away from everything that it was not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sandbox {
    /// It is, or it is not started.
    Required(Reach),
    /// It can do whatever the gateway's user can.
    None,
}

/// What a confined process reaches beside its working directory and what it needs to run.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    /// Files and directories that it may read.
    pub read: Vec<PathBuf>,
    /// Files and directories that it may change, too.
    pub write: Vec<PathBuf>,
    /// Whether it may open connections.
    pub network: Network,
}

/// Whether a process may open connections.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Network {
    /// To nobody, this machine included.
    #[default]
    Off,
    /// Over IP, to whoever can be reached from here.
    On,
}

/// `[servers.ID.process]`: what each process of a server may use.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessLimits {
    /// Memory of its own.
    pub memory_mebibytes_max: u32,
    /// The size of a file that it writes.
    pub file_mebibytes_max: u32,
    /// Open files.
    pub open_files_max: u32,
    /// Processes and threads that it starts, all together.
    pub processes_max: u32,
}

/// A path without `.` and `..`, as far as that can be said without looking; absolute, where the current directory
/// is known.
#[must_use]
pub fn plain(path: &Path) -> PathBuf {
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
    let mut plain = PathBuf::new();
    for component in absolute.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            other => plain.push(other),
        }
    }
    plain
}

/// The first of `kept` that a process would reach through `path`: because it is below it, or around it.
#[must_use]
pub fn overlap<'k>(path: &Path, kept: &'k [PathBuf]) -> Option<&'k Path> {
    kept.iter().map(PathBuf::as_path).find(|kept| kept.starts_with(path) || path.starts_with(kept))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_overlaps_what_is_below_and_around_it_and_not_what_only_begins_alike() {
        let kept = [PathBuf::from("/etc/bailiwick/state")];
        for path in ["/", "/etc", "/etc/bailiwick/state", "/etc/bailiwick/state/keys"] {
            assert!(overlap(Path::new(path), &kept).is_some(), "{path}");
        }
        for path in ["/etc/bailiwick/state2", "/etc/bailiwick/data", "/srv"] {
            assert!(overlap(Path::new(path), &kept).is_none(), "{path}");
        }
    }

    #[test]
    fn dots_lead_nowhere_else() {
        assert_eq!(plain(Path::new("/srv/../etc/./bailiwick/../passwd")), Path::new("/etc/passwd"));
        assert_eq!(plain(Path::new("/../..")), Path::new("/"));
    }
}
