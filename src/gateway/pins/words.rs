//! What definitions say, in rows of the store: kept for whoever compares, and served where it was accepted.
//!
//! Decides which words are believed: those that have the digest under which they stand, so that whoever can write the
//! store does not write what a model reads. Invariant: words alone accept nothing, and where there is no room for them,
//! whatever is decided is decided all the same.

use std::collections::HashMap;

use super::rows::{Kept, batches, part_key, spread};
use crate::catalog::pins::digest;
use crate::ids::{DefinitionDigest, Digest, PinKind, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf, Tell};
use crate::wire::{Json, Source};

/// Of what administrators decided on, and of first lists.
pub(super) const WORDS: Section = Section { name: "pin-words", rows_max: limit::PIN_ROWS_MAX };
/// Of what waits.
pub(super) const WAITING_WORDS: Section = Section { name: "pin-waiting-words", rows_max: limit::PIN_ROWS_MAX };

/// So many are looked up one by one; for more, all are read.
const LOOKED_UP_MAX: usize = 32;

/// Whose words.
#[derive(Debug, Clone)]
pub(super) struct Of {
    pub(super) digest: DefinitionDigest,
    pub(super) server: ServerId,
    pub(super) kind: PinKind,
}

impl From<&Kept> for Of {
    fn from(kept: &Kept) -> Self {
        Self { digest: kept.digest, server: kept.says.server.clone(), kind: kept.says.kind }
    }
}

impl Of {
    /// The words, if they are these.
    fn read(&self, text: &str) -> Option<Json> {
        let text = Json::parse(text, Source::Client).ok()?;
        (digest(&self.server, self.kind.as_str(), &text) == self.digest).then_some(text)
    }

    /// The rows that say them. The first tells how many there are: rows of longer ones may have been there before.
    pub(super) fn changes(&self, section: Section, text: &Json, expires_at_us: Option<i64>) -> Vec<Change> {
        let key = self.digest.to_string();
        let count = text.as_str().len() / limit::PIN_ROW_TEXT_BYTES_MAX + 1;
        // With what tells it, or where a character does not fit at the end of a row, there may be one more.
        for count in [count, count + 1] {
            let body = format!("{count}\n{}", text.as_str());
            let changes = spread(section, &key, self.server.as_str(), &body, expires_at_us);
            if changes.len() == count {
                return changes;
            }
        }
        Vec::new()
    }

    /// What removes them.
    pub(super) fn removal(&self, section: Section, bytes: usize) -> Vec<Change> {
        let key = self.digest.to_string();
        let rows = bytes / limit::PIN_ROW_TEXT_BYTES_MAX + 2;
        let gone = |number| Change::new(section, part_key(&key, number), Expect::Anything, Action::Remove);
        (0..rows).map(gone).collect()
    }
}

/// Keeps words: as many as there is room for.
pub(super) async fn keep(
    shelf: &dyn Shelf,
    section: Section,
    words: Vec<(Of, Json)>,
    expires_at_us: Option<i64>,
) -> Result<(), Failure> {
    for batch in batches(words.iter().map(|(of, text)| of.changes(section, text, expires_at_us))) {
        if let Changed::Full(_) = shelf.change(batch, Tell::Nobody).await? {
            let told = format!("there is room for {} rows of what definitions say", section.rows_max);
            return Err(Failure::before(Reason::StoreUnavailable, told));
        }
    }
    Ok(())
}

/// The words of these, as far as they are kept.
pub(super) async fn find(
    shelf: &dyn Shelf,
    section: Section,
    wanted: Vec<Of>,
) -> Result<HashMap<DefinitionDigest, Json>, Failure> {
    let mut found: Vec<(Of, String)> = Vec::new();
    if wanted.len() <= LOOKED_UP_MAX {
        for of in wanted {
            found.extend(look_up(shelf, section, of.digest).await?.map(|text| (of, text)));
        }
    } else {
        let mut wanted: HashMap<DefinitionDigest, Of> = wanted.into_iter().map(|of| (of.digest, of)).collect();
        let mut after: Option<String> = None;
        loop {
            let page = shelf.rows(section, None, after.as_deref()).await?;
            let is_last = page.len() < limit::SHELF_ROWS_READ_MAX;
            after = page.last().map(|row| row.key.clone());
            // What begins on this page may go on on the next one: its rows are looked up, each by its name.
            for row in page {
                let Some(of) =
                    Digest::from_hex(&row.key).map(DefinitionDigest).and_then(|digest| wanted.remove(&digest))
                else {
                    continue;
                };
                let text = rest(shelf, section, &row.key, &row.body).await?;
                found.extend(text.map(|text| (of, text)));
            }
            if is_last {
                break;
            }
        }
    }
    // Megabytes of schemas take milliseconds.
    let read = move || found.into_iter().filter_map(|(of, text)| Some((of.digest, of.read(&text)?))).collect();
    tokio::task::spawn_blocking(read).await.map_err(|_| Failure::before(Reason::Internal, "reading pins failed"))
}

async fn look_up(shelf: &dyn Shelf, section: Section, digest: DefinitionDigest) -> Result<Option<String>, Failure> {
    let key = digest.to_string();
    let Some(row) = shelf.row(section, &key).await? else { return Ok(None) };
    rest(shelf, section, &key, &row.body).await
}

/// A text of which that is the first row.
async fn rest(shelf: &dyn Shelf, section: Section, key: &str, first: &str) -> Result<Option<String>, Failure> {
    let Some((count, begun)) = first.split_once('\n') else { return Ok(None) };
    let count = count.parse::<usize>().unwrap_or_default().min(limit::SHELF_CHANGES_MAX);
    let mut text = begun.to_owned();
    for number in 1..count {
        let Some(row) = shelf.row(section, &part_key(key, number)).await? else { return Ok(None) };
        text.push_str(&row.body);
    }
    Ok(Some(text))
}
