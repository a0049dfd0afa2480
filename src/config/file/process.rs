//! Reads how the process of a stdio server is held: `sandbox`, `read`, `write`, `network` and its limits.
//!
//! Decides what may be given to a process. Invariant: never the gateway's own files, which are its state, its
//! configuration and its policies.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::config::keys;
use crate::config::leaf::Count;
use crate::config::process::{Network, ProcessConfig, ProcessLimits, Reach, Sandbox, overlap, plain};
use crate::config::reader::Table;
use crate::ids::ServerId;

/// The keys that only a server with a `command` has, in the order in which they are complained about.
pub const KEYS: [&str; 5] = ["sandbox", "read", "write", "network", "process"];

/// Where paths start from, and which of them are the gateway's own.
#[derive(Debug, Clone, Copy)]
pub struct Places<'a> {
    /// The directory of `servers.toml`.
    pub base: &'a Path,
    /// The gateway's own files, without dots.
    pub kept: &'a [PathBuf],
}

/// What was written; whether it may be is said by [`Written::check`].
pub struct Written {
    config: Option<ProcessConfig>,
    /// Each path that the process gets, its key, and where it stands.
    paths: Vec<(&'static str, Spanned<PathBuf>)>,
    /// The first key that was written, and where.
    first: Option<(&'static str, std::ops::Range<usize>)>,
    not_confined: Option<std::ops::Range<usize>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum SandboxText {
    Required,
    None,
}

/// Reads the keys of one server.
pub fn read(table: &mut Table<'_, '_>, places: Places<'_>) -> Written {
    let first = KEYS.into_iter().find(|key| table.has(key)).map(|key| (key, table.place(key)));
    let sandbox_written = table.has("sandbox");
    let given: Vec<_> = ["read", "write", "network"].into_iter().filter(|key| table.has(key)).collect();
    let given = given.first().map(|key| (*key, table.place(key)));
    let sandbox = table.at::<SandboxText>("sandbox");
    let mut paths = Vec::new();
    let mut list = |table: &mut Table<'_, '_>, key: &'static str| {
        let written = table.get::<Vec<Spanned<PathBuf>>>(key)?;
        let absolute =
            written.into_iter().map(|path| Spanned::new(path.span(), plain(&places.base.join(path.into_inner()))));
        let absolute: Vec<_> = absolute.collect();
        paths.extend(absolute.iter().map(|path| (key, path.clone())));
        Some(absolute.into_iter().map(Spanned::into_inner).collect::<Vec<_>>())
    };
    let (read, write) = (list(table, "read"), list(table, "write"));
    let network = table.get::<bool>("network").map(|on| if on { Network::On } else { Network::Off });
    let limits = table.table_or_empty("process", &keys::PROCESS).and_then(read_limits);
    let not_confined = sandbox.as_ref().filter(|text| matches!(text.get_ref(), SandboxText::None)).map(Spanned::span);
    if let (Some(_), Some((key, place)), true) = (&not_confined, &given, sandbox_written) {
        let message = format!("without a sandbox it reaches everything, so `{key}` says nothing: remove one of them");
        table.mistake(place, message);
    }
    let config = (|| {
        let sandbox = match sandbox?.into_inner() {
            SandboxText::Required => Sandbox::Required(Reach { read: read?, write: write?, network: network? }),
            SandboxText::None => Sandbox::None,
        };
        Some(ProcessConfig { sandbox, limits: limits? })
    })();
    Written { config, paths, first, not_confined }
}

fn read_limits(mut table: Table<'_, '_>) -> Option<ProcessLimits> {
    let memory = table.get::<Count>("memory_mebibytes_max");
    let file = table.get::<Count>("file_mebibytes_max");
    let files = table.get::<Count>("open_files_max");
    let processes = table.get::<Count>("processes_max");
    Some(ProcessLimits {
        memory_mebibytes_max: memory?.0,
        file_mebibytes_max: file?.0,
        open_files_max: files?.0,
        processes_max: processes?.0,
    })
}

impl Written {
    /// The first of the keys that was written, for a server that has no process.
    pub fn first(&self) -> Option<&std::ops::Range<usize>> {
        self.first.as_ref().map(|(_, place)| place)
    }

    /// How the process is held, where nothing of ours would be given to it.
    pub fn check(
        self,
        table: &Table<'_, '_>,
        id: &ServerId,
        directory: Option<&Spanned<PathBuf>>,
        places: Places<'_>,
    ) -> Option<ProcessConfig> {
        if let Some(place) = &self.not_confined {
            let message = format!("server `{id}` runs without a sandbox: its process can do whatever the gateway can");
            table.source.warning(place, message);
            return self.config;
        }
        let directory =
            directory.map(|path| ("directory", Spanned::new(path.span(), plain(&places.base.join(path.get_ref())))));
        let mut complete = true;
        for (key, path) in self.paths.iter().chain(&directory) {
            if let Some(kept) = overlap(path.get_ref(), places.kept) {
                let message = format!(
                    "{key}: `{}` would give the process `{}`, which is the gateway's own: name something narrower, or \
                     move what it needs elsewhere",
                    path.get_ref().display(),
                    kept.display()
                );
                table.mistake(&path.span(), message);
                complete = false;
            }
        }
        self.config.filter(|_| complete)
    }
}
