//! Which files a command is about, and what they mean: configuration and policy together.
//!
//! Loads exactly what `serve` loads. Invariant: a policy that is asked here was built from the same bytes as
//! the configuration beside it.

use std::path::PathBuf;

use clap::Args;

use super::output::{BAD, complain, list, trouble};
use crate::config::{Config, FileSet, Loaded, Mistake, Overrides, load_set};
use crate::policy::{self, Policy, Sources, Strictness, World};

/// Which files are meant.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The configuration: servers.toml; the policies are where it says
    #[arg(short, long, value_name = "FILE", default_value = "servers.toml", env = "BAILIWICK_CONFIG")]
    pub config: PathBuf,
}

/// Files that were read, understood, and found free of mistakes.
#[derive(Debug)]
pub struct Understood {
    /// The configuration, and the files.
    pub loaded: Loaded,
    /// The policy.
    pub policy: Policy,
    /// What should be looked at, although it can be served.
    pub warnings: Vec<Mistake>,
}

impl Understood {
    /// The configuration.
    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.loaded.config
    }
}

impl Files {
    /// Reads and understands them, as `serve` does.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn as_served(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.config)?, &Overrides::default())
    }

    /// Reads and understands them, as `demo` does.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn as_demo(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.config)?, &Overrides::for_demo()?)
    }

    /// Reads and understands them for a question that changes nothing: as `serve` does, or else, where that
    /// would refuse them, as `demo` does.
    ///
    /// # Errors
    /// Every mistake that `serve` would find.
    pub fn as_either(&self) -> Result<Understood, Vec<Mistake>> {
        self.as_served().or_else(|mistakes| self.as_demo().map_err(|_| mistakes))
    }

    /// As [`Self::as_either`]; where there are mistakes, they are printed.
    #[must_use]
    pub fn or_complain(&self) -> Option<Understood> {
        self.as_either()
            .map_err(|mistakes| {
                complain(list(&mistakes, "", BAD));
                trouble("these files would not start; `bailiwick check` says the same");
            })
            .ok()
    }
}

/// Understands one set of files: the configuration, and the policy in its world.
///
/// # Errors
/// Every mistake of the configuration; without any, every mistake of the policy.
pub fn understand(files: FileSet, overrides: &Overrides) -> Result<Understood, Vec<Mistake>> {
    let loaded = load_set(files, overrides)?;
    let sources = Sources::from_files(loaded.files.policy_files());
    let strictness = if overrides.undeclared_issuers_are_inert { Strictness::Demo } else { Strictness::Serve };
    let world = World::of(&loaded.config, strictness);
    let shown = |mistakes: Vec<policy::Mistake>| {
        let place = |mistake: policy::Mistake| Mistake {
            file: loaded.files.shown(&mistake.file),
            line: usize::try_from(mistake.line).unwrap_or_default(),
            column: usize::try_from(mistake.column).unwrap_or_default(),
            message: mistake.message,
        };
        mistakes.into_iter().map(place).collect::<Vec<_>>()
    };
    let built = Policy::build(&sources, &world).map_err(&shown)?;
    let mut warnings = loaded.warnings.clone();
    warnings.extend(shown(built.warnings));
    Ok(Understood { policy: built.policy, warnings, loaded })
}
