//! Pins as rows of the store: what each says, and how much is spread over several.
//!
//! Decides which rows count. Invariants: what an administrator decided stands in a section of its own, which no server
//! can fill, and says nothing that a server wrote but a name; where it cannot be understood, that was no; what was accepted on first use is named by its server's own
//! row, which is made once, so that a first list is taken whole, by one replica, or not at all.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::catalog::pins::{Flag, Held, HeldPin};
use crate::ids::{DefinitionDigest, Digest, PinKind, ServerId};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change, Expect, Row, Section, Shelf};
use crate::wire::Json;

/// What administrators accepted or rejected, by digest.
pub(in crate::gateway) const DECIDED: Section = Section { name: "pin-decided", rows_max: limit::PIN_ROWS_MAX };
/// What waits for somebody, by digest.
pub(super) const WAITING: Section = Section { name: "pin-waiting", rows_max: limit::PIN_ROWS_MAX };
/// Servers whose first complete list was taken, and [`CHANGES`].
pub(in crate::gateway) const SERVERS: Section = Section { name: "pin-server", rows_max: limit::PIN_ROWS_MAX };
/// Who accepts a first list.
pub(super) const FIRST_USE: &str = "first_use";
/// Counts whatever others have to read again; no server is called that.
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
    /// How much of its words is kept while it waits.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(super) bytes: usize,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde hands over a reference")]
const fn is_zero(bytes: &usize) -> bool {
    *bytes == 0
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
    /// What it says, where whoever asks has it.
    pub(super) text: Option<Json>,
}

/// Everything that was decided.
#[derive(Debug, Default)]
pub(super) struct Shelved {
    /// By administrators, or on first use.
    pub(super) pins: Vec<Kept>,
    pub(super) used: BTreeMap<ServerId, Used>,
    /// What an administrator decided of these is not understood; the server of each, where the row says it.
    pub(super) unread: Vec<(DefinitionDigest, Option<ServerId>)>,
}

impl Shelved {
    /// Reads all of it.
    pub(super) async fn read(shelf: &dyn Shelf) -> Result<Self, Failure> {
        let mut used: BTreeMap<ServerId, Used> = BTreeMap::new();
        for (key, body) in whole(all(shelf, SERVERS).await?) {
            if key == CHANGES {
                continue;
            }
            match (ServerId::new(&key), serde_json::from_str(&body)) {
                (Ok(server), Ok(says)) => drop(used.insert(server, says)),
                _ => tracing::error!(
                    server = key,
                    "what its first list was cannot be read from the store: nothing of it counts"
                ),
            }
        }
        let rows = all(shelf, DECIDED).await?;
        let mut pins = read_kept(&rows);
        // What a first list names is accepted unless somebody decided otherwise.
        let mut decided: HashSet<_> = pins.iter().map(|kept| kept.digest).collect();
        // It may have been rejected, perhaps by a later version of this program.
        let unread = rows.iter().filter_map(|row| {
            let digest = Digest::from_hex(&row.key).map(DefinitionDigest).filter(|digest| !decided.contains(digest))?;
            Some((digest, ServerId::new(&row.owner).ok()))
        });
        let unread: Vec<_> = unread.collect();
        decided.extend(unread.iter().map(|(digest, _)| digest));
        for (server, Used { pins: named, at }) in &used {
            for UsedPin { digest, kind, name } in named.iter().filter(|named| !decided.contains(&named.digest)) {
                let mut kept = Kept::bare(server, *kind, name, *digest);
                kept.says.state = PinState::Accepted;
                FIRST_USE.clone_into(&mut kept.says.by);
                kept.says.at = *at;
                pins.push(kept);
            }
        }
        Ok(Self { pins, used, unread })
    }

    /// What of it decides, with the words that are known.
    pub(super) fn held(&self, words: &HashMap<DefinitionDigest, Json>) -> Held {
        let mut accepted: Vec<&Kept> = self.accepted().collect();
        accepted.sort_by_key(|kept| (kept.says.at, kept.digest.0));
        let rejected = self.pins.iter().filter(|kept| kept.says.state == PinState::Rejected);
        Held {
            accepted: accepted.into_iter().map(|kept| kept.held(words.get(&kept.digest).cloned())).collect(),
            rejected: rejected.map(|kept| kept.digest).chain(self.unread.iter().map(|(digest, _)| *digest)).collect(),
            used: self.used.keys().cloned().collect(),
            decided: {
                let unread = self.unread.iter().filter_map(|(_, server)| server.clone());
                self.pins.iter().map(|kept| kept.says.server.clone()).chain(unread).collect()
            },
        }
    }

    /// What is accepted.
    pub(super) fn accepted(&self) -> impl Iterator<Item = &Kept> {
        self.pins.iter().filter(|kept| kept.says.state == PinState::Accepted)
    }
}

/// Everything that waits for somebody.
pub(super) async fn waiting(shelf: &dyn Shelf) -> Result<Vec<Kept>, Failure> {
    Ok(read_kept(&all(shelf, WAITING).await?))
}

/// The row of that digest.
pub(super) async fn kept(
    shelf: &dyn Shelf,
    section: Section,
    digest: DefinitionDigest,
) -> Result<Option<Kept>, Failure> {
    Ok(shelf.row(section, &digest.to_string()).await?.and_then(|row| Kept::read(&row)))
}

fn read_kept(rows: &[Row]) -> Vec<Kept> {
    rows.iter().filter_map(Kept::read).collect()
}

impl Kept {
    pub(super) fn read(row: &Row) -> Option<Self> {
        let digest = Digest::from_hex(&row.key).map(DefinitionDigest)?;
        match serde_json::from_str(&row.body) {
            Ok(says) => Some(Self { digest, says, text: None }),
            Err(error) => {
                tracing::error!(%digest, %error, "a pin in the store cannot be read: it accepts nothing");
                None
            }
        }
    }

    fn held(&self, copy: Option<Json>) -> HeldPin {
        HeldPin {
            digest: self.digest,
            server: self.says.server.clone(),
            kind: self.says.kind,
            name: Arc::from(self.says.name.as_str()),
            copy,
        }
    }

    /// The row that says this, in place of whatever is there.
    pub(super) fn change(&self, section: Section, expires_at_us: Option<i64>) -> Change {
        let body = serde_json::to_string(&self.says).unwrap_or_default();
        let put = Action::Put { owner: self.says.server.to_string(), body, expires_at_us };
        Change::new(section, self.digest.to_string(), Expect::Anything, put)
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

/// Tells others to read again.
pub(super) fn counted() -> Change {
    Change::new(SERVERS, CHANGES, Expect::Anything, Action::Count { by: 1, at_most: i64::MAX, expires_at_us: None })
}

/// A body over as many rows as it takes.
pub(super) fn spread(section: Section, key: &str, owner: &str, body: &str, expires_at_us: Option<i64>) -> Vec<Change> {
    let mut rest = body;
    let mut changes = Vec::new();
    while !rest.is_empty() {
        let mut end = limit::PIN_ROW_TEXT_BYTES_MAX.min(rest.len());
        while !rest.is_char_boundary(end) {
            end -= 1;
        }
        let (part, after) = rest.split_at_checked(end).unwrap_or((rest, ""));
        let put = Action::Put { owner: owner.to_owned(), body: part.to_owned(), expires_at_us };
        changes.push(Change::new(section, part_key(key, changes.len()), Expect::Anything, put));
        rest = after;
    }
    changes
}

/// The name of the row that has that part.
pub(super) fn part_key(key: &str, number: usize) -> String {
    if number == 0 { key.to_owned() } else { format!("{key}.{number:02}") }
}

/// Rows with what they were spread over put together again. Parts are found by name: between those of one server, another
/// one may stand whose name begins alike.
pub(super) fn whole(rows: Vec<Row>) -> BTreeMap<String, String> {
    let mut bodies: BTreeMap<String, String> = BTreeMap::new();
    for Row { key, body, .. } in rows {
        let first = key.split_once('.').map_or(key.as_str(), |(first, _)| first);
        match bodies.get_mut(first) {
            Some(begun) => begun.push_str(&body),
            None => drop(bodies.insert(first.to_owned(), body)),
        }
    }
    bodies
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

/// In batches that happen together, as large as the shelf takes.
pub(super) fn batches(pins: impl IntoIterator<Item = Vec<Change>>) -> Vec<Vec<Change>> {
    let mut batches: Vec<Vec<Change>> = Vec::new();
    for changes in pins {
        match batches.last_mut() {
            Some(last) if last.len() + changes.len() <= limit::SHELF_CHANGES_MAX => last.extend(changes),
            _ => batches.push(changes),
        }
    }
    batches
}
