//! Where a demo keeps its journal: where the files say, so that every other command finds it.
//!
//! Invariant: only a directory that a demo made is ever removed, and never while a gateway holds it.

use std::path::{Path, PathBuf};

use crate::store::StateDirectory;

/// Says that a demo made the directory.
const MARKER: &str = "made-by-bailiwick-demo";

/// The state directory of a demo.
pub(super) struct DemoState {
    path: PathBuf,
    /// Removed at the end.
    temporary: bool,
}

impl DemoState {
    /// Makes the directory of the files, or takes the one that was asked for.
    ///
    /// # Errors
    /// When it belongs to a gateway that is or was served, or cannot be made.
    pub(super) fn prepare(configured: &Path, asked: Option<&Path>) -> Result<Self, String> {
        if let Some(asked) = asked {
            // What was asked for is kept, and may have been used before.
            StateDirectory::open(asked).map_err(|error| error.to_string())?;
            return Ok(Self { path: asked.to_owned(), temporary: false });
        }
        if configured.exists() {
            if !configured.join(MARKER).is_file() {
                return Err(format!(
                    "{} is not a demo's: it may hold the record of a gateway that was served; name another directory \
                     with --state",
                    configured.display()
                ));
            }
            // A demo that was killed left it behind. One that runs still holds the lock.
            let lock = StateDirectory::open(configured)
                .map_err(|error| format!("{error}; --listen and --state let two demos run"))?;
            remove(configured)?;
            drop(lock);
        }
        drop(StateDirectory::open(configured).map_err(|error| error.to_string())?);
        std::fs::write(configured.join(MARKER), "This directory is removed when the demo ends.\n")
            .map_err(|error| format!("cannot write to {}: {error}", configured.display()))?;
        Ok(Self { path: configured.to_owned(), temporary: true })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) const fn is_temporary(&self) -> bool {
        self.temporary
    }
}

impl Drop for DemoState {
    fn drop(&mut self) {
        if self.temporary {
            // Where it stays, the next demo finds the marker and removes it.
            let _stays = remove(&self.path);
        }
    }
}

fn remove(path: &Path) -> Result<(), String> {
    std::fs::remove_dir_all(path).map_err(|error| format!("cannot remove {}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_demo_removes_what_a_demo_made_and_nothing_else() {
        let place = tempfile::tempdir().unwrap();
        let configured = place.path().join("state");
        let state = DemoState::prepare(&configured, None).unwrap();
        assert!(configured.join(MARKER).exists() && state.is_temporary());
        std::mem::forget(state);
        std::fs::write(configured.join("left"), "").unwrap();
        drop(DemoState::prepare(&configured, None).unwrap());
        assert!(!configured.exists(), "what a killed demo left is used again and removed");

        std::fs::create_dir(&configured).unwrap();
        let refused = DemoState::prepare(&configured, None).err().unwrap();
        assert!(refused.contains("--state") && configured.exists(), "{refused}");

        let asked = place.path().join("kept");
        drop(DemoState::prepare(&configured, Some(&asked)).unwrap());
        assert!(asked.exists(), "what was asked for is kept");
    }
}
