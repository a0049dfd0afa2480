//! Pins as rows of the store: what each says, and how a long definition is spread over several.
//!
//! Decides which rows count. Invariant: what was accepted on first use is named by its server's own row, which is made
//! once, so that a first list is taken whole, by one replica, or not at all; a text that does not have the digest that it
//! stands under is no text.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::pins::{Flag, Held, HeldPin, digest};
use crate::ids::{DefinitionDigest, Digest, PinKind, ServerId};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Expect, Row, Section, Shelf};
use crate::wire::{Json, Source};

/// Definitions, by their digest.
pub(in crate::gateway) const PINS: Section = Section { name: "pin", rows_max: limit::PIN_ROWS_MAX };
/// Servers whose first complete list was taken, and [`CHANGES`].
pub(in crate::gateway) const SERVERS: Section = Section { name: "pin-server", rows_max: limit::PIN_ROWS_MAX };
/// Who accepts a first list.
pub(super) const FIRST_USE: &str = "first_use";
/// Counts what administrators accept and reject; no server is called that.
pub(super) const CHANGES: &str = "~changes";

/// What became of a definition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum PinState {
    /// It waits for somebody.
    Quarantined,
    /// Somebody accepted it, or it was there first.
    Accepted,
    /// Somebody rejected it.
    Rejected,
}

/// What a row says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Stored {
    pub(super) server: ServerId,
    pub(super) kind: PinKind,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) name: String,
    pub(super) state: PinState,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub(super) flags: BTreeSet<Flag>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) renamed_from: Option<String>,
    /// Who accepted or rejected it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) by: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub(super) note: String,
    /// Since when, seconds since 1970.
    pub(super) at: i64,
}

/// What a server's row says: its first complete list.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Used {
    pub(super) pins: Vec<UsedPin>,
    pub(super) at: i64,
}

/// One definition of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct UsedPin {
    #[serde(rename = "d")]
    pub(super) digest: DefinitionDigest,
    #[serde(rename = "k")]
    pub(super) kind: PinKind,
    #[serde(rename = "n", default, skip_serializing_if = "str::is_empty")]
    pub(super) name: Arc<str>,
}

/// One pin as it is stored.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) digest: DefinitionDigest,
    pub(super) says: Stored,
    pub(super) text: Option<Json>,
}

/// Everything that is stored.
#[derive(Debug, Default)]
pub(super) struct Shelved {
    pub(super) pins: Vec<Kept>,
    pub(super) used: BTreeMap<ServerId, Used>,
}

impl Shelved {
    /// Reads all of it.
    pub(super) async fn read(shelf: &dyn Shelf) -> Result<Self, Failure> {
        let mut used: BTreeMap<ServerId, Used> = BTreeMap::new();
        for (key, body) in whole(all(shelf, SERVERS).await?) {
            if let (Ok(server), Ok(says)) = (ServerId::new(&key), serde_json::from_str(&body)) {
                used.insert(server, says);
            }
        }
        let mut pins = Vec::new();
        for (key, body) in whole(all(shelf, PINS).await?) {
            let Some(digest) = Digest::from_hex(&key).map(DefinitionDigest) else { continue };
            let Some(kept) = Kept::read(digest, &body) else {
                tracing::warn!(%digest, "a pin in the store cannot be read: it counts for nothing");
                continue;
            };
            pins.push(kept);
        }
        // What a first list names is accepted, whether its words are there yet or not, unless somebody decided otherwise.
        let places: HashMap<_, _> = pins.iter().enumerate().map(|(place, kept)| (kept.digest, place)).collect();
        for (server, Used { pins: named, at }) in &used {
            for UsedPin { digest, kind, name } in named {
                let mut bare = Kept::bare(server, *kind, name, *digest);
                let place = places.get(digest).copied().and_then(|place| pins.get_mut(place));
                let is_there = place.is_some();
                let kept = place.unwrap_or(&mut bare);
                if kept.says.state == PinState::Quarantined {
                    kept.says.state = PinState::Accepted;
                    FIRST_USE.clone_into(&mut kept.says.by);
                    kept.says.at = *at;
                }
                if !is_there {
                    pins.push(bare);
                }
            }
        }
        Ok(Self { pins, used })
    }

    /// What of it decides.
    pub(super) fn held(&self) -> Held {
        let mut accepted: Vec<&Kept> = self.pins.iter().filter(|kept| kept.says.state == PinState::Accepted).collect();
        accepted.sort_by_key(|kept| (kept.says.at, kept.digest.0));
        let rejected = self.pins.iter().filter(|kept| kept.says.state == PinState::Rejected);
        Held {
            accepted: accepted.into_iter().map(Kept::held).collect(),
            rejected: rejected.map(|kept| kept.digest).collect(),
            used: self.used.keys().cloned().collect(),
        }
    }

    /// By digest.
    pub(super) fn by_digest(self) -> HashMap<DefinitionDigest, Kept> {
        self.pins.into_iter().map(|kept| (kept.digest, kept)).collect()
    }
}

impl Kept {
    fn read(own: DefinitionDigest, body: &str) -> Option<Self> {
        let (says, text) = body.split_once('\n').unwrap_or((body, ""));
        let says: Stored = serde_json::from_str(says).ok()?;
        // Whoever can write the store does not write what a model reads.
        let text = Json::parse(text, Source::Client).ok();
        let text = text.filter(|text| digest(&says.server, says.kind.as_str(), text) == own);
        Some(Self { digest: own, says, text })
    }

    fn held(&self) -> HeldPin {
        HeldPin {
            digest: self.digest,
            server: self.says.server.clone(),
            kind: self.says.kind,
            name: Arc::from(self.says.name.as_str()),
            copy: self.text.clone(),
        }
    }

    /// The rows that say this, in place of whatever is there.
    pub(super) fn changes(&self, expires_at_us: Option<i64>) -> Vec<Change> {
        let says = serde_json::to_string(&self.says).unwrap_or_default();
        let body = format!("{says}\n{}", self.text.as_ref().map_or("", Json::as_str));
        spread(PINS, &self.digest.to_string(), self.says.server.as_str(), &body, expires_at_us)
    }
}

impl Used {
    /// The rows that say this, where there are none.
    pub(super) fn changes(&self, server: &ServerId) -> Vec<Change> {
        let body = serde_json::to_string(self).unwrap_or_default();
        let mut changes = spread(SERVERS, server.as_str(), "", &body, None);
        changes.iter_mut().for_each(|change| change.expect = Expect::Absent);
        changes
    }
}

/// A body over as many rows as it takes.
fn spread(section: Section, key: &str, owner: &str, body: &str, expires_at_us: Option<i64>) -> Vec<Change> {
    let mut rest = body;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let mut end = limit::PIN_ROW_TEXT_BYTES_MAX.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let number = changes.len();
        let key = if number == 0 { key.to_owned() } else { format!("{key}.{number:02}") };
        let put = Action::Put { owner: owner.to_owned(), body: part.to_owned(), expires_at_us };
        changes.push(Change::new(section, key, Expect::Anything, put));
        rest = after;
    }
    changes
}

/// Rows with what they were spread over put together again, by name.
fn whole(rows: Vec<Row>) -> impl Iterator<Item = (String, String)> {
    let mut rows = rows.into_iter().peekable();
    std::iter::from_fn(move || {
        let Row { key, mut body, .. } = rows.next()?;
        while let Some(more) = rows.next_if(|next| is_rest_of(&next.key, &key)) {
            body.push_str(&more.body);
        }
        Some((key, body))
    })
}

/// All rows of a section, by name.
pub(super) async fn all(shelf: &dyn Shelf, section: Section) -> Result<Vec<Row>, Failure> {
    let mut rows: Vec<Row> = Vec::new();
    loop {
        let page = shelf.rows(section, None, rows.last().map(|row| row.key.as_str())).await?;
        let whole = page.len() < limit::SHELF_ROWS_READ_MAX;
        rows.extend(page);
        if whole {
            return Ok(rows);
        }
    }
}

/// Whether a row goes on with what another one begins.
pub(super) fn is_rest_of(key: &str, first: &str) -> bool {
    key.strip_prefix(first).is_some_and(|rest| rest.starts_with('.'))
}

/// In batches that happen together, as large as the shelf takes beside so many others.
pub(super) fn batches(pins: impl IntoIterator<Item = Vec<Change>>, beside: usize) -> Vec<Vec<Change>> {
    let mut batches: Vec<Vec<Change>> = Vec::new();
    for changes in pins {
        // One place is left for what tells of the batch.
        match batches.last_mut() {
            Some(last) if last.len() + changes.len() + beside < limit::SHELF_CHANGES_MAX => last.extend(changes),
            _ => batches.push(changes),
        }
    }
    batches
}
