//! What a store has forgotten, as the record tells it: rows that raised the epoch, and approvals that were used.
//!
//! Decides what is done to the rows that are there. Refuses to know how the record is read. Invariant: what is replayed
//! never lets anybody do more than the store that was lost; a row whose meaning is not known here is a gap, and not
//! passed over.

mod lines;
pub mod seen;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::path::Path;

use serde::Deserialize;

use self::lines::{Segment, of_record};
use super::lifecycle::{self, Halted};
use super::pins;
use super::review;
use crate::delegate::vault;
use crate::guard::{approval, label, mandate};
use crate::ids::ReplicaId;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::record::read::segments;
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf, Tell};
use crate::store::{RowTold, Store};

/// Sections whose rows are not put back.
const TOLD_ELSEWHERE: [&str; 5] =
    [approval::BREAK_GLASS.name, crate::outbox::OUTBOX.name, vault::OWED.name, vault::SWEPT.name, review::GRANTS.name];

/// A row as the record tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct RowRead {
    section: String,
    key: String,
    /// Its name is not told whole.
    #[serde(default)]
    cut: bool,
    #[serde(default)]
    gone: bool,
    says: Option<String>,
}

impl RowRead {
    /// Whether it says what somebody decided of a definition.
    #[must_use]
    pub fn is_of_a_definition(&self) -> bool {
        self.section == pins::DECIDED.name
    }

    /// What it says, where that was told.
    pub(super) fn says(&self) -> Option<&str> {
        self.says.as_deref()
    }

    /// Whether it is not there any more.
    pub(super) const fn is_gone(&self) -> bool {
        self.gone
    }

    /// The same as stores tell each other.
    #[must_use]
    pub fn told(&self) -> RowTold {
        let Self { section, key, gone, says, .. } = self.clone();
        RowTold { section, key, gone, says }
    }
}

/// What is done to a store that has forgotten these rows of one epoch. `at` is when it was recorded, in seconds since
/// 1970.
///
/// # Errors
/// Why it cannot be told.
pub async fn rows(store: &Store, told: &[RowRead], at: i64) -> Result<Vec<Change>, String> {
    let mut changes = Vec::new();
    for row in told {
        if row.cut {
            return Err(format!("names a row of `{}` whose name was cut or redacted", row.section));
        }
        let replayed = match row.section.as_str() {
            section if section == lifecycle::STOPPED.name => vec![stopped(row, at)?],
            section if section == lifecycle::ATTESTED.name => attested(row).into_iter().collect(),
            section if section == review::ENDED.name => vec![ended(row, at)?],
            // One that was linked since has to be linked again.
            section if section == vault::ACCOUNTS.name => removed(row, vault::ACCOUNTS).into_iter().collect(),
            // Whatever was told of it, it was that it is taken back: people give it again.
            section if section == approval::STANDING.name => {
                vec![Change::new(approval::STANDING, row.key.as_str(), Expect::Anything, Action::Remove)]
            }
            // An emergency that a store has forgotten, or has forgotten the end of, is over.
            section if section == approval::OPEN.name => {
                vec![Change::new(approval::OPEN, row.key.as_str(), Expect::Anything, Action::Remove)]
            }
            section if section == mandate::MANDATES.name => {
                let told = mandate::ended(store, &row.key, at).await;
                told.map_err(|failure| failure.detail)?.into_iter().collect()
            }
            // Labels that were taken off: whoever has them again has more than they had.
            section if label::SECTIONS.iter().any(|own| own.name == section) => Vec::new(),
            // Messages; tokens that nobody has any more; definitions and what was said of grants, of which the record has
            // lines of their own.
            section if section == review::REVIEWS.name => review::told_again(row)?.into_iter().collect(),
            section if TOLD_ELSEWHERE.contains(&section) || pins::SECTIONS.contains(&section) => Vec::new(),
            section => return Err(format!("tells of rows of `{section}`, which are not known here")),
        };
        changes.extend(replayed);
    }
    Ok(changes)
}

fn put(section: Section, key: &str, body: String) -> Change {
    let put = Action::Put { owner: String::new(), body, expires_at_us: None };
    Change::new(section, key, Expect::Anything, put)
}

fn removed(row: &RowRead, section: Section) -> Option<Change> {
    row.gone.then(|| Change::new(section, row.key.as_str(), Expect::Anything, Action::Remove))
}

fn stopped(row: &RowRead, at: i64) -> Result<Change, String> {
    if let Some(gone) = removed(row, lifecycle::STOPPED) {
        return Ok(gone);
    }
    // Where it is not told how it was stopped, it may have been for good; for one person, whom the name has behind that of
    // the agent, nothing is.
    let retired = !row.key.contains('/');
    let halted = Halted { retired, subject: None, by: "reconcile".to_owned(), note: String::new(), at };
    let body = row.says.clone().map_or_else(|| serde_json::to_string(&halted), Ok);
    Ok(put(lifecycle::STOPPED, &row.key, body.map_err(|error| error.to_string())?))
}

fn attested(row: &RowRead) -> Option<Change> {
    // Where it is not told, somebody attests again.
    Some(put(lifecycle::ATTESTED, &row.key, row.says.clone()?))
}

fn ended(row: &RowRead, at: i64) -> Result<Change, String> {
    if let Some(gone) = removed(row, review::ENDED) {
        return Ok(gone);
    }
    let at = jiff::Timestamp::from_second(at).map_err(|error| error.to_string())?;
    let said = review::Said { by: "reconcile".to_owned(), at };
    let body = row.says.clone().map_or_else(|| serde_json::to_string(&said), Ok);
    Ok(put(review::ENDED, &row.key, body.map_err(|error| error.to_string())?))
}

/// One line of the record, as far as it tells that an approval was used.
#[derive(Deserialize)]
struct Line {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    call: String,
    #[serde(default)]
    leg: String,
    approval: Option<serde_json::Value>,
}

/// Legs, and which calls they are of.
type Legs = BTreeMap<ulid::Ulid, String>;

/// What a record tells of approvals.
#[derive(Default)]
struct Told {
    /// The legs whose intents were going to use one, with their calls, by its name.
    used: BTreeMap<String, Legs>,
    /// Legs that were stopped, some of them before they used anything.
    stopped: HashSet<ulid::Ulid>,
}

/// Uses up approvals that the store holds as unused and the record tells as used: the store was restored, or its
/// last moments were lost. Standing approvals of which it has forgotten uses are over. Answers how many.
///
/// # Errors
/// When the store or the record cannot be read.
pub async fn approvals_used(store: &Store, state: &Path, replica: ReplicaId) -> Result<usize, Failure> {
    let unused = approval::unused(store).await?;
    let standing = approval::standing_since(store).await?;
    // Most of the time there are none, and the record is not read.
    let oldest_us = unused.iter().map(|kept| kept.requested_at_us).chain(standing).min();
    let Some(oldest_us) = oldest_us else { return Ok(0) };
    let read = of_record(state, move |directory| used_since(directory, oldest_us));
    let Told { used, stopped } = read.await?;
    let mut count = 0;
    for gone in approval::standing_forgotten(store, replica, &went_out(&used, &stopped)).await? {
        tracing::warn!(
            standing = gone.key,
            "uses of a standing approval are on the record and not in the store: it is over"
        );
        store.change(vec![gone], Tell::Nobody).await?;
        count += 1;
    }
    for kept in unused.into_iter().filter(|kept| used.contains_key(&kept.id)) {
        tracing::warn!(approval = kept.id, "an approval that was used is in the store as unused: it is used up");
        match store.change(approval::used_up(kept)?, Tell::Nobody).await? {
            Changed::Done { .. } => count += 1,
            Changed::Conflict(_) | Changed::Full(_) => {
                return Err(Failure::before(Reason::StoreUnavailable, "an approval changed while it was used up"));
            }
        }
    }
    Ok(count)
}

/// The calls of which a leg went out: a call whose server asks something has several, and is one use.
fn went_out(used: &BTreeMap<String, Legs>, stopped: &HashSet<ulid::Ulid>) -> BTreeMap<String, BTreeSet<String>> {
    let own = |legs: &Legs| {
        let out = legs.iter().filter(|(leg, _)| !stopped.contains(leg));
        out.map(|(_, call)| call.clone()).collect()
    };
    used.iter().map(|(id, legs)| (id.clone(), own(legs))).collect()
}

/// The approvals that intents since then were going to use, newest segments first. A leg that was stopped before it went
/// out has used none.
fn used_since(directory: &Path, since_us: i64) -> std::io::Result<Told> {
    let mut told = Told::default();
    let slack_us = i64::try_from(limit::CLOCK_DIFFERENCE_MAX.as_micros()).unwrap_or_default();
    for first in segments(directory)?.into_iter().rev() {
        let segment = Segment::read(directory, first)?;
        for line in segment.lines::<Line>(&["\"approval\"", "\"refusal\"", "\"failure\""]) {
            let Ok(leg) = ulid::Ulid::from_string(&line.leg) else { continue };
            match (line.kind.as_str(), line.approval.as_ref().and_then(serde_json::Value::as_str)) {
                ("intent", Some(id)) => {
                    told.used.entry(id.to_owned()).or_default().insert(leg, line.call);
                }
                ("refusal" | "failure", _) => {
                    told.stopped.insert(leg);
                }
                _ => {}
            }
        }
        if segment.begins_us().is_some_and(|begins_us| begins_us < since_us.saturating_sub(slack_us)) {
            break;
        }
    }
    Ok(told)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_review_of_which_it_is_not_told_what_it_says_is_a_gap() {
        let place = tempfile::tempdir().unwrap();
        let state = crate::store::StateDirectory::open(place.path()).unwrap();
        let store = Store::open(&state, &crate::config::StoreConfig::Sqlite).await.unwrap();
        let told = |says: Option<String>| {
            let section = review::REVIEWS.name.to_owned();
            RowRead { section, key: "r".to_owned(), cut: false, gone: false, says }
        };
        assert!(rows(&store, &[told(None)], 7).await.unwrap_err().contains("a review"));
        assert!(rows(&store, &[told(Some("{}".to_owned()))], 7).await.is_err(), "that is none");
        // Who opened and closed it does not matter.
        let at = "2026-03-01T10:00:00Z";
        let revision = crate::ids::PolicyRevision(crate::ids::Digest::sha256(b"rules"));
        let says = serde_json::json!({
            "id": "r", "opened_by": "", "opened_at": at, "since": at, "deadline": at, "revision": revision,
            "closed": { "by": "", "at": at },
        });
        assert_eq!(rows(&store, &[told(Some(says.to_string()))], 7).await.unwrap().len(), 1);
    }

    #[test]
    fn an_agent_of_which_it_is_not_told_how_it_was_stopped_is_resumed_by_nobody() {
        let told = |key: &str, says: Option<&str>| {
            let section = lifecycle::STOPPED.name.to_owned();
            let row = RowRead { section, key: key.to_owned(), cut: false, gone: false, says: says.map(str::to_owned) };
            let Action::Put { body, .. } = stopped(&row, 7).unwrap().action else { panic!("it is gone") };
            serde_json::from_str::<Halted>(&body).unwrap()
        };
        assert!(told("bot", None).retired);
        assert!(told("server:git", None).retired, "nor is a server");
        assert!(!told("bot/user:corp/anna", None).retired, "for one person an agent is only suspended");
        assert!(!told("bot", Some(r#"{"retired":false,"by":"host:0","at":1}"#)).retired);
    }
}
