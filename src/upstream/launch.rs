//! Starts the process of a stdio server: its place, its environment, its supervisor, what it is held by.
//!
//! Decides that a process is confined as its server says or not started. Knows nothing of messages. Invariant: a
//! process has a private directory, of mode 0700, that is removed when the process is over, and sees no variable
//! but those that an administrator wrote and the two that name this directory.

use std::collections::BTreeMap;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::Stdio as Pipe;
use std::sync::Arc;

use arc_swap::ArcSwap;
use secrecy::{ExposeSecret, SecretString};
use tokio::process::{Child, Command};
use tokio::sync::{OnceCell, mpsc};

use super::executables::{Executable, Executables};
use super::handover;
use super::sandbox::host::Host;
use super::sandbox::reach::{self, Places};
use super::sandbox::{PROFILE_VARIABLE, STAGE_VARIABLE, Stage};
use super::supervisor::{PARENT_VARIABLE, own_executable};
use crate::config::kept::file as file_of_secret;
use crate::config::process::{Handover, Sandbox};
use crate::config::{Config, SecretReference, ServerConfig, TransportConfig};
use crate::delegate::Handed;
use crate::ids::LegId;
use crate::outcome::{Failure, Reason};

/// Programs that keep something for themselves do so here, unless somebody wrote where.
const PRIVATE_PLACES: [&str; 2] = ["HOME", "TMPDIR"];

/// What a credential is called that is handed over as a file, in the private directory.
const CREDENTIAL_FILE: &str = "credential";

/// How children are started: the supervisor, where they may work, and what they may never reach.
#[derive(Debug, Clone)]
pub struct Launcher {
    /// The supervisor's executable.
    pub program: PathBuf,
    /// Its arguments, before those of the command.
    pub arguments: Vec<String>,
    /// Under which private working directories are made.
    pub directory: PathBuf,
    /// What is the gateway's own, as the files have it now.
    pub kept: Arc<ArcSwap<Vec<PathBuf>>>,
    host: Arc<OnceCell<Host>>,
    executables: Arc<Executables>,
}

/// A process that was started, and the directory that goes with it.
pub(super) struct Launched {
    pub child: Child,
    pub private: PrivateDirectory,
    /// Where it reads its credential, if that is a file.
    pub file: Option<PathBuf>,
    /// The secrets among its variables.
    pub secrets: Vec<SecretString>,
}

impl Launcher {
    /// This executable with the hidden subcommand `supervise`.
    ///
    /// # Errors
    /// When it is not known where this executable is.
    pub fn of_this_executable(config: &Config) -> Result<Self, String> {
        Ok(Self {
            program: own_executable()?,
            arguments: vec!["supervise".to_owned(), "--".to_owned()],
            directory: config.gateway.state.join("children"),
            kept: Arc::new(ArcSwap::from_pointee(config.kept())),
            host: Arc::default(),
            executables: Arc::new(Executables::new()),
        })
    }

    /// Removes the working directories that a gateway left behind that was killed.
    pub(super) fn clear(&self) {
        remove(&self.directory);
    }

    /// What is run, told once to whoever asks first.
    pub(super) fn executables(&self) -> Option<mpsc::Receiver<Executable>> {
        self.executables.listen()
    }

    /// Starts a process of that server, with that credential where one is to be handed over.
    pub(super) async fn start(&self, server: &ServerConfig, handed: Option<&Handed>) -> Result<Launched, Failure> {
        let TransportConfig::Stdio { command, environment, directory, process } = &server.transport else {
            return Err(Failure::before(Reason::Internal, "it is not a process"));
        };
        let confined = matches!(process.sandbox, Sandbox::Required(_));
        let namespaces = if confined { self.confinable().await? } else { false };
        let values = values(environment).await?;
        let private = self.private_directory(server)?;
        let own = private.path();
        let place = directory.as_deref().unwrap_or(own);
        let path = values.iter().find(|(name, _)| *name == "PATH").map(|(_, value)| value.expose_secret());
        let program = command.first().map_or("", String::as_str);
        let executable = reach::find(program, path, place).map_err(unstartable)?;
        // What it is given in a variable is no secret to it.
        let told: Vec<&PathBuf> = environment.values().filter_map(file_of_secret).collect();
        let kept: Vec<_> = self.kept.load().iter().filter(|path| !told.contains(path)).cloned().collect();
        let places = Places { own, directory: directory.as_deref(), kept: &kept, path };
        let profile = reach::profile(process, command, &executable, places, namespaces).map_err(unstartable)?;
        self.executables.look(&server.id, &executable).await;
        let stage = serde_json::to_string(&Stage::Start(profile)).map_err(unstartable)?;
        let mut starting = Command::new(&self.program);
        // The file that was found is the one that runs, whatever appears in front of it meanwhile.
        starting.args(&self.arguments).arg(&executable).args(command.iter().skip(1)).env_clear();
        if confined {
            starting.envs(PRIVATE_PLACES.map(|name| (name, own)));
        }
        let mut file = None;
        match (&process.handover, handed) {
            (Some(Handover::Variable(name)), Some(handed)) => {
                starting.env(name, handed.secret().expose_secret());
            }
            (Some(Handover::File(name)), Some(handed)) => {
                let path = own.join(CREDENTIAL_FILE);
                handover::write(&path, handed)?;
                starting.env(name, &path);
                file = Some(path);
            }
            _ => {}
        }
        let child = starting
            .envs(values.iter().map(|(name, value)| (name, value.expose_secret())))
            .env_remove(STAGE_VARIABLE)
            .env(PROFILE_VARIABLE, stage)
            .env(PARENT_VARIABLE, std::process::id().to_string())
            .current_dir(place)
            .stdin(Pipe::piped())
            .stdout(Pipe::piped())
            .stderr(Pipe::piped())
            .process_group(0)
            .spawn()
            .map_err(|error| unstartable(format!("its process cannot be started: {error}")))?;
        let is_secret = |name: &str| !matches!(environment.get(name), Some(SecretReference::Plain(_)));
        let secrets = values.into_iter().filter(|(name, _)| is_secret(name)).map(|(_, secret)| secret).collect();
        Ok(Launched { child, private, file, secrets })
    }

    /// Whether a process of that server could be started, as far as that can be said without one.
    pub(super) async fn could_start(&self, server: &ServerConfig) -> Result<(), Failure> {
        let TransportConfig::Stdio { command, environment, directory, process } = &server.transport else {
            return Err(Failure::before(Reason::Internal, "it is not a process"));
        };
        if matches!(process.sandbox, Sandbox::Required(_)) {
            self.confinable().await?;
        }
        let values = values(environment).await?;
        let path = values.iter().find(|(name, _)| *name == "PATH").map(|(_, value)| value.expose_secret());
        let place = directory.as_deref().unwrap_or(&self.directory);
        reach::find(command.first().map_or("", String::as_str), path, place).map(drop).map_err(unstartable)
    }

    /// That this host can confine a process, and whether in namespaces of its own.
    async fn confinable(&self) -> Result<bool, Failure> {
        let host = self.host.get_or_try_init(|| Host::probe(self)).await.map_err(unstartable)?;
        host.lacks().map_or(Ok(host.namespaces), |lack| Err(unstartable(lack)))
    }

    fn private_directory(&self, server: &ServerConfig) -> Result<PrivateDirectory, Failure> {
        let path = self.directory.join(format!("{}-{}", server.id, LegId::new()));
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(&path);
        // Made before it is resolved: where the state directory is a relative path, the child is elsewhere.
        let path = made.and_then(|()| path.canonicalize());
        path.map(PrivateDirectory)
            .map_err(|error| unstartable(format!("its private directory cannot be made: {error}")))
    }
}

/// The variables that an administrator wrote.
async fn values(written: &BTreeMap<String, SecretReference>) -> Result<Vec<(&str, SecretString)>, Failure> {
    let mut values = Vec::with_capacity(written.len());
    for (name, reference) in written {
        let secret = reference.read().await;
        let secret = secret.map_err(|error| Failure::before(Reason::CredentialUnavailable, error.to_string()))?;
        values.push((name.as_str(), secret));
    }
    Ok(values)
}

fn unstartable(problem: impl std::fmt::Display) -> Failure {
    Failure::before(Reason::UpstreamUnreachable, problem.to_string())
}

/// A directory that one process has for itself; removed when nobody holds this any more.
#[derive(Debug)]
pub(super) struct PrivateDirectory(PathBuf);

impl PrivateDirectory {
    fn path(&self) -> &Path {
        &self.0
    }

    /// Removes it, when the process is over.
    pub(super) fn remove(&self) {
        remove(&self.0);
    }
}

impl Drop for PrivateDirectory {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

fn remove(directory: &Path) {
    if let Err(error) = std::fs::remove_dir_all(directory)
        && error.kind() != std::io::ErrorKind::NotFound
    {
        tracing::warn!(directory = %directory.display(), %error, "cannot remove a child's working directory");
    }
}
