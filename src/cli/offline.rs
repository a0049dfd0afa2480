//! The record of a gateway that does not run: what is done on its machine meanwhile stands there all the same.
//!
//! Decides who is named: the user whose process it is. Refuses to write beside a gateway: whoever calls this holds the
//! state directory. Invariants: a line is durable when this returns; no key is made or read for it, because nothing in it
//! is digested.

use std::path::Path;
use std::sync::Arc;

use super::output::complain;
use crate::config::Durability;
use crate::config::rotated::{self, Rotation};
use crate::ids::ReplicaId;
use crate::record::event::AdminNote;
use crate::record::{Journal, JournalKey, JournalSettings, Metrics, Recovered};
use crate::store::state::{StateError, is_elsewhere};
use crate::store::{StateDirectory, look};

/// Who works on the machine itself, as the record names them.
pub fn actor() -> String {
    format!("host:{}", rustix::process::geteuid().as_raw())
}

/// The record of a state directory that the caller holds.
///
/// # Errors
/// A lower-case sentence when it cannot be read or written.
pub fn journal(state: &Path, replica: ReplicaId) -> Result<(Journal, Recovered), String> {
    let settings = JournalSettings {
        state,
        replica,
        durability: Durability::Fsync,
        key: JournalKey::unkept().map_err(|error| error.to_string())?,
        metrics: Arc::clone(&Metrics::new()),
        keeping: None,
    };
    Journal::start(settings).map_err(|error| error.to_string())
}

/// The name of a state directory, which its records carry.
///
/// # Errors
/// A lower-case sentence where no gateway has run with it.
pub async fn replica(state: &Path) -> Result<ReplicaId, String> {
    let name = if is_elsewhere(state) {
        let file = state.join("replica");
        std::fs::read_to_string(&file).map_err(|error| format!("{}: {error}", file.display()))?
    } else {
        look::look(state).await.map_err(|error| error.to_string())?.replica
    };
    name.trim().parse().map_err(|_| format!("{} has no name", state.display()))
}

/// What was done to the state directory itself.
#[derive(Debug, Clone, Copy)]
pub struct Work<'a> {
    /// The command.
    pub operation: &'static str,
    /// What it works on, as rules would name it.
    pub object: &'static str,
    /// With what.
    pub about: &'a str,
}

impl Work<'_> {
    /// Says on the record that it is done, or warns where that is not said. A gateway that runs writes its record itself: it
    /// finds a note with who did it.
    pub async fn done(&self, state: &Path, detail: &str) {
        let _held = match StateDirectory::open(state) {
            Ok(held) => held,
            Err(StateError::InUse { .. }) => {
                let (actor, purpose, detail) = (actor(), self.about.to_owned(), detail.to_owned());
                let left = rotated::leave(state, &Rotation { actor, purpose, detail });
                return left.unwrap_or_else(|error| untold(&error.to_string()));
            }
            Err(error) => return untold(&error.to_string()),
        };
        let told = async {
            let (journal, _) = journal(state, replica(state).await?)?;
            self.tell(&journal, "done", detail).await
        };
        if let Err(problem) = told.await {
            untold(&problem);
        }
    }

    /// Says on the record that it is `begun`, `done` or has `failed`, and what came of it.
    ///
    /// # Errors
    /// A lower-case sentence when that is not durable.
    pub async fn tell(&self, journal: &Journal, outcome: &'static str, detail: &str) -> Result<(), String> {
        let actor = actor();
        let note = AdminNote {
            operation: self.operation,
            object: self.object,
            actor: &actor,
            actor_kind: "host",
            brakes: false,
            client: None,
            outcome,
            reason: None,
            rule: None,
            about: self.about,
            detail,
        };
        journal.administered(&note, None).await.map_err(|failure| failure.detail)
    }
}

/// Warns that something was done of which the record does not tell.
pub fn untold(problem: &str) {
    complain(format_args!("it is done, and the record does not say so: {problem}\n"));
}
