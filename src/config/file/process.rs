//! Reads how the process of a stdio server is held: `sandbox`, `read`, `write`, `network` and its limits.
//!
//! Decides what may be given to a process. Invariant: never the gateway's own files, which are its state, its
//! configuration and its policies.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml::Spanned;

use crate::config::keys;
use crate::config::leaf::Count;
use crate::config::process::{Handover, Network, ProcessConfig, ProcessLimits, Reach, Sandbox, overlap, plain};
use crate::config::reader::Table;
use crate::config::{CredentialConfig, TransportConfig};
use crate::ids::ServerId;
use crate::limit;

/// The keys that only a server with a `command` has, in the order in which they are complained about.
pub const KEYS: [&str; 7] =
    ["sandbox", "read", "write", "network", "process", "credential_variable", "credential_file"];

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
    let held = table.table_or_empty("process", &keys::PROCESS).and_then(read_limits);
    let handover = read_handover(table);
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
        let (limits, instances_max) = held?;
        Some(ProcessConfig { sandbox, limits, handover: handover?, instances_max })
    })();
    Written { config, paths, first, not_confined }
}

/// How the process gets its credential; nothing, where that was not written so that it can be.
fn read_handover(table: &mut Table<'_, '_>) -> Option<Option<Handover>> {
    let variable = table.at::<String>("credential_variable");
    let file = table.at::<String>("credential_file");
    let (written, make): (_, fn(String) -> Handover) = match (variable, file) {
        (None, None) => return Some(None),
        (Some(_), Some(file)) => {
            let message = "a process gets its credential one way: remove credential_variable or credential_file";
            table.mistake(&file.span(), message);
            return None;
        }
        (Some(variable), None) => (variable, Handover::Variable),
        (None, Some(file)) => (file, Handover::File),
    };
    let name = written.get_ref();
    let spelled = name.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic() || byte == b'_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
    let own = ["HOME", "TMPDIR", "PATH"].contains(&name.as_str()) || name.starts_with("BAILIWICK_");
    if !spelled || own {
        let message = format!("`{name}` is not a variable for a credential: write one such as SERVICE_TOKEN");
        table.mistake(&written.span(), message);
        return None;
    }
    Some(Some(make(written.into_inner())))
}

/// Whether a process gets the credential that is written for its server, and only such a one.
pub fn check_credential(
    table: &Table<'_, '_>,
    transport: &TransportConfig,
    credential: &CredentialConfig,
    differs_by_tool: bool,
) {
    let TransportConfig::Stdio { process, environment, .. } = transport else { return };
    if differs_by_tool {
        let message = "a process has one credential, whatever its tools: remove tool_credentials, or split the server";
        table.mistake(&table.place("tool_credentials"), message);
    }
    match (&process.handover, credential) {
        (None, CredentialConfig::None) => {}
        (None, _) => {
            let message = "a process has no headers: name the variable that it finds its credential in, as \
                           credential_variable = \"SERVICE_TOKEN\"; what is the same for everybody can be handed over \
                           in `variables`, as env:NAME or file:PATH";
            table.mistake(&table.span, message);
        }
        (Some(handover), CredentialConfig::None) => {
            let name = handover.variable();
            let message = format!("there is no credential to be handed over in `{name}`: write one as `credential`");
            table.mistake(&table.span, message);
        }
        (Some(handover), _) if environment.contains_key(handover.variable()) => {
            let message = format!("`{}` has a value in `variables` already: remove it there", handover.variable());
            table.mistake(&table.place("variables"), message);
        }
        (Some(_), CredentialConfig::Oauth(account)) if account.resource.is_none() || account.issuer.is_none() => {
            let message = "a process has no address to ask which accounts it takes: write `issuer` and `resource` of \
                           the service that it calls in its credential";
            table.mistake(&table.place("credential"), message);
        }
        (Some(_), _) => {}
    }
}

fn read_limits(mut table: Table<'_, '_>) -> Option<(ProcessLimits, usize)> {
    let memory = table.get::<Count>("memory_mebibytes_max");
    let file = table.get::<Count>("file_mebibytes_max");
    let files = table.get::<Count>("open_files_max");
    let processes = table.get::<Count>("processes_max");
    let instances = table.at::<Count>("instances_max")?;
    let instances_max = usize::try_from(instances.get_ref().0).unwrap_or(usize::MAX);
    if instances_max > limit::PROCESSES_PER_SERVER_CEILING {
        let message = format!("at most {} processes of one server run at once", limit::PROCESSES_PER_SERVER_CEILING);
        table.mistake(&instances.span(), message);
    }
    let limits = ProcessLimits {
        memory_mebibytes_max: memory?.0,
        file_mebibytes_max: file?.0,
        open_files_max: files?.0,
        processes_max: processes?.0,
    };
    Some((limits, instances_max))
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
