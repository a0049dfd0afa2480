//! Where the state directory is, for commands that work on it without the whole configuration.
//!
//! Invariant: a mistake somewhere else in the files never keeps an administrator from the brake or the
//! record: only `[gateway] state` and `store` are read here.

use std::path::{Path, PathBuf};

use clap::Args;

use super::files::Files;
use crate::config::{SecretReference, StoreConfig};
use crate::store::state;

/// Which state directory is meant.
#[derive(Debug, Args)]
pub struct State {
    #[command(flatten)]
    files: Files,
    /// The state directory, where it is not the one that the configuration names
    #[arg(long, global = true, value_name = "DIRECTORY", env = "BAILIWICK_STATE")]
    state: Option<PathBuf>,
}

impl State {
    /// The configuration that names it.
    #[must_use]
    pub const fn files(&self) -> &Files {
        &self.files
    }

    /// The state directory.
    ///
    /// # Errors
    /// A lower-case sentence when the configuration cannot be read and no directory was named.
    pub fn directory(&self) -> Result<PathBuf, String> {
        if let Some(state) = &self.state {
            return Ok(state.clone());
        }
        let file = &self.files.config;
        let problem = |problem: String| format!("{}: {problem}; name the directory with --state", file.display());
        let text = std::fs::read_to_string(file).map_err(|error| problem(error.to_string()))?;
        let table = toml::de::DeTable::parse_recoverable(&text).0;
        let written = table.get_ref().get("gateway").and_then(|gateway| gateway.get_ref().get("state"));
        let state = match written {
            None => "state",
            Some(state) => state.get_ref().as_str().ok_or_else(|| problem("`state` is not a path".to_owned()))?,
        };
        Ok(file.parent().map_or_else(|| PathBuf::from(state), |base| base.join(state)))
    }

    /// Where the rows are that belong to this state directory.
    ///
    /// # Errors
    /// A lower-case sentence when the configuration says it in a way that is not understood, or when only it could
    /// say so and none was named.
    pub fn store(&self) -> Result<StoreConfig, String> {
        let file = &self.files.config;
        let problem = |problem: String| format!("{}: {problem}", file.display());
        let text = std::fs::read_to_string(file).unwrap_or_default();
        let table = toml::de::DeTable::parse_recoverable(&text).0;
        let gateway = table.get_ref().get("gateway");
        let written = |key: &str| {
            let value = gateway.and_then(|gateway| gateway.get_ref().get(key));
            value.map(|value| value.get_ref().as_str().unwrap_or_default())
        };
        let Some(store) = written("store") else {
            // A brake that is pulled in a store that nobody reads is none.
            return match state::is_elsewhere(&self.directory()?) {
                true => Err(problem(
                    "it does not say where the store is, which is not in this state directory: name the \
                                     right configuration with --config"
                        .to_owned(),
                )),
                false => Ok(StoreConfig::Sqlite),
            };
        };
        let base = file.parent().unwrap_or(Path::new(""));
        let password = written("store_password").map(SecretReference::parse).transpose().map_err(problem)?;
        let password = password.map(|reference| match reference {
            SecretReference::File(path) => SecretReference::File(base.join(path)),
            other => other,
        });
        StoreConfig::parse(store, password, base).map_err(problem)
    }

    /// Whether the files name keys of this purpose, so that the state directory's are not used.
    #[must_use]
    pub fn names_keys(&self, purpose: &str) -> bool {
        let text = std::fs::read_to_string(&self.files.config).unwrap_or_default();
        let table = toml::de::DeTable::parse_recoverable(&text).0;
        let keys = table.get_ref().get("keys").and_then(|keys| keys.get_ref().get(purpose));
        keys.and_then(|keys| keys.get_ref().as_array()).is_some_and(|keys| !keys.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(config: PathBuf, state: Option<&str>) -> State {
        State { files: Files { config }, state: state.map(PathBuf::from) }
    }

    #[test]
    fn the_state_is_found_in_files_that_could_not_be_served() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("servers.toml");
        std::fs::write(&file, "[gateway]\nstate = \"here\"\nunknown = 1\n[servers.x]\n").unwrap();
        assert_eq!(state(file.clone(), None).directory().unwrap(), place.path().join("here"));
        std::fs::write(&file, "[servers.x]\n").unwrap();
        assert_eq!(state(file.clone(), None).directory().unwrap(), place.path().join("state"));
        std::fs::write(&file, "[gateway]\nstate = \"here\"\n[servers\n").unwrap();
        assert_eq!(state(file.clone(), None).directory().unwrap(), place.path().join("here"));
        std::fs::write(&file, "[gateway]\nstate = 7\n").unwrap();
        assert!(state(file.clone(), None).directory().unwrap_err().contains("--state"));
        assert_eq!(state(file, Some("/x")).directory().unwrap(), PathBuf::from("/x"));
    }

    #[test]
    fn a_store_elsewhere_is_never_looked_for_in_the_state_directory() {
        let place = tempfile::tempdir().unwrap();
        let file = place.path().join("servers.toml");
        std::fs::write(&file, "[gateway]\nstate = \"here\"\nstore = \"env:STORE\"\n[servers\n").unwrap();
        assert!(state(file.clone(), None).store().unwrap().is_shared());
        std::fs::write(&file, "[gateway]\nstate = \"here\"\n").unwrap();
        assert_eq!(state(file.clone(), None).store().unwrap(), StoreConfig::Sqlite);
        std::fs::create_dir(place.path().join("here")).unwrap();
        std::fs::write(place.path().join("here/replica"), "x").unwrap();
        assert!(state(file, None).store().unwrap_err().contains("--config"));
    }
}
