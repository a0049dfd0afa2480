//! How often rows are read and changed, by what they are: a call that needs none of them shows in none of these numbers.
//!
//! Decides what counts as one: whatever the database is asked at once, however many rows it touches. Refuses to know what
//! rows mean. Invariant: counted when it is asked, whatever comes of it.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::Store;
use crate::shelf::Section;

/// Operations by the section of the first row that they name, and by what they do.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<BTreeMap<(&'static str, &'static str), u64>>);

impl Counted {
    /// Rows are read.
    pub(super) fn read(&self, section: Section) {
        self.add(section.name, "read");
    }

    /// Rows are changed, all of them or none.
    pub(super) fn changed(&self, section: Section) {
        self.add(section.name, "change");
    }

    fn add(&self, section: &'static str, operation: &'static str) {
        let mut counted = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counted.entry((section, operation)).or_default() += 1;
    }
}

impl Store {
    /// How often rows were read and changed since the start: of which section, whether `read` or `change`, and how often.
    #[must_use]
    pub fn operations(&self) -> Vec<(&'static str, &'static str, u64)> {
        let counted = self.1.0.lock().unwrap_or_else(PoisonError::into_inner);
        counted.iter().map(|((section, operation), count)| (*section, *operation, *count)).collect()
    }
}
