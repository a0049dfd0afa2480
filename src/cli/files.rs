//! Which files a command is about, and what they mean: configuration and policy together.
//!
//! Loads exactly what `serve` loads. Invariant: a policy that is asked here was built from the same bytes as
//! the configuration beside it.

use std::path::PathBuf;

use clap::Args;

use super::output::{BAD, complain, list, trouble};
use crate::config::{FileSet, Mistake, Overrides};
pub use crate::gateway::understand::Understood;
use crate::gateway::understand::understand;

/// Which files are meant.
#[derive(Debug, Clone, Args)]
pub struct Files {
    /// The configuration: servers.toml; the policies are where it says
    #[arg(short, long, global = true, value_name = "FILE", default_value = "servers.toml", env = "BAILIWICK_CONFIG")]
    pub config: PathBuf,
}

impl Files {
    /// Reads and understands them, as `serve` does.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn as_served(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.config)?, &Overrides::default())
    }

    /// The same with the next policies in the place of the policies, as `serve` or `demo` does; nothing where there are
    /// none.
    ///
    /// # Errors
    /// Every mistake that `serve` would find.
    pub fn next(&self) -> Result<Option<Understood>, Vec<Mistake>> {
        let Some(files) = FileSet::read_next(&self.config)? else { return Ok(None) };
        let served = understand(files.clone(), &Overrides::default());
        let either = served.or_else(|mistakes| understand(files, &Overrides::for_demo()?).map_err(|_| mistakes));
        either.map(Some)
    }

    /// Reads and understands them, as `demo` does.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn as_demo(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.config)?, &Overrides::for_demo()?)
    }

    /// Reads and understands them, as `stdio --standalone` does. Who the user is changes nothing in what they mean.
    ///
    /// # Errors
    /// Every mistake that was found.
    pub fn as_standalone(&self) -> Result<Understood, Vec<Mistake>> {
        understand(FileSet::read(&self.config)?, &Overrides::for_standalone("user".to_owned(), None)?)
    }

    /// Reads and understands them for a question that changes nothing: as `serve` does, or else, where that
    /// would refuse them, as `demo` does.
    ///
    /// # Errors
    /// Every mistake that `serve` would find.
    pub fn as_either(&self) -> Result<Understood, Vec<Mistake>> {
        self.as_served().or_else(|mistakes| self.as_demo().map_err(|_| mistakes))
    }

    /// As [`Self::as_either`], or as `stdio --standalone` does; where there are mistakes, they are printed.
    #[must_use]
    pub fn or_complain(&self) -> Option<Understood> {
        self.as_served()
            .or_else(|mistakes| self.as_standalone().or_else(|_| self.as_demo()).map_err(|_| mistakes))
            .map_err(|mistakes| {
                complain(list(&mistakes, "", BAD));
                trouble("these files would not start; `bailiwick check` says the same");
            })
            .ok()
    }
}
