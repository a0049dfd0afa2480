//! Requests, page by page.
//!
//! Decides nothing. Invariant: each is read once, in the version that it then has; one that nobody understands is left out,
//! because nobody can use it.

use super::kept::Kept;
use super::read;
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Section, Shelf, Version};

/// What is left to be read.
pub(super) struct Pages<'a> {
    shelf: &'a dyn Shelf,
    section: Section,
    after: Option<String>,
    is_over: bool,
}

impl<'a> Pages<'a> {
    /// All of a section.
    pub(super) const fn of(shelf: &'a dyn Shelf, section: Section) -> Self {
        Self { shelf, section, after: None, is_over: false }
    }

    /// The next page; nothing after the last.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(super) async fn next(&mut self) -> Result<Option<Vec<(Kept, Version)>>, Failure> {
        if self.is_over {
            return Ok(None);
        }
        let rows = self.shelf.rows(self.section, None, self.after.as_deref()).await?;
        self.is_over = rows.len() < limit::SHELF_ROWS_READ_MAX;
        self.after = rows.last().map(|row| row.key.clone());
        Ok(Some(rows.iter().filter_map(|row| read(row).ok()).collect()))
    }
}
