//! What callers have seen and used up, as the record tells it since the store was last known to have all of it.
//!
//! Decides which lines are read at a start. Refuses to know how labels and counts are kept. Invariant: a store that was
//! restored knows at least what the record says; one that lost nothing is changed by what was stopped just after its intent, and
//! by nothing else.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

use serde::Deserialize;

use super::super::Gateway;
use super::lines::{Segment, of_record};
use crate::guard::label::{self, Replayed, Said};
use crate::guard::{UsedUp, used_up_again};
use crate::ids::{ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::label::Seen;
use crate::record::read::segments;
use crate::shelf::{Action, Change, Expect, Section, Shelf as _, Tell};
use crate::store::Store;

/// Up to which line of its record a replica has told the store everything.
const MARKS: Section = Section { name: "mark", rows_max: limit::RECORD_MARKS_MAX };

/// Words without which a line says nothing of either.
const MATTERS: [&str; 3] = ["\"labels\":", "\"budget\":", "\"section\":\"label"];

const DAY_US: i64 = 86_400_000_000;

#[derive(Deserialize)]
struct Line {
    #[serde(default)]
    seq: u64,
    at: jiff::Timestamp,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    call: String,
    #[serde(default)]
    subject: Named,
    #[serde(default)]
    agent: Named,
    mandate: Option<Under>,
    decision: Option<Decided>,
    labels: Option<Labels>,
    result: Option<Ended>,
    change: Option<Rows>,
}

#[derive(Default, Deserialize)]
struct Named {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    client: Option<String>,
}

#[derive(Deserialize)]
struct Under {
    id: String,
    parent: Option<String>,
}

#[derive(Deserialize)]
struct Decided {
    #[serde(default)]
    epoch: RevocationEpoch,
}

#[derive(Deserialize)]
struct Labels {
    after: Vec<String>,
    #[serde(default)]
    stores: Vec<String>,
}

#[derive(Deserialize)]
struct Ended {
    #[serde(default)]
    budget: Vec<Charged>,
}

#[derive(Deserialize)]
struct Charged {
    of: String,
    id: String,
    what: String,
    #[serde(default)]
    used: i64,
    /// Of which minute or day; earlier versions did not say so.
    turn: Option<i64>,
}

#[derive(Deserialize)]
struct Rows {
    #[serde(default)]
    epoch: RevocationEpoch,
    rows: Vec<Row>,
}

#[derive(Deserialize)]
struct Row {
    section: String,
    key: String,
    #[serde(default)]
    gone: bool,
    says: Option<String>,
}

impl Rows {
    /// The carriers of which labels were taken off, and what was left; nothing for one of which that is not told: then it
    /// keeps what it had.
    fn taken_off(&self) -> impl Iterator<Item = (&str, &str, Seen)> {
        let is_label = |row: &&Row| label::SECTIONS.iter().any(|section| section.name == row.section);
        let mut left: BTreeMap<(&str, &str), Option<Seen>> = BTreeMap::new();
        for row in self.rows.iter().filter(is_label) {
            let told = row.says.as_deref().and_then(|bits| bits.parse().ok()).map(Seen::of_bits);
            left.insert((row.section.as_str(), row.key.as_str()), if row.gone { Some(Seen::NOTHING) } else { told });
        }
        left.into_iter().filter_map(|((section, key), left)| Some((section, key, left?)))
    }
}

/// What a part of a record says.
#[derive(Default)]
struct Read {
    labels: Replayed,
    /// Since when what was seen is remembered, microseconds since 1970.
    remembered_us: i64,
    /// The most that was used up of each budget, and when.
    used: BTreeMap<(String, String, String), (i64, i64)>,
}

impl Read {
    fn line(&mut self, line: &Line) {
        let is_remembered = line.at.as_microsecond() >= self.remembered_us;
        for change in line.change.iter().filter(|_| is_remembered) {
            for (section, key, left) in change.taken_off() {
                self.labels.taken_off(section, key, (change.epoch, left));
            }
        }
        for charged in line.result.iter().flat_map(|result| &result.budget) {
            let key = (charged.of.clone(), charged.id.clone(), charged.what.clone());
            let (used, at_us) = self.used.entry(key).or_default();
            // A result that comes after midnight was counted before it.
            let day = charged.turn.filter(|_| charged.what == "day");
            let now_us = day.map_or_else(|| line.at.as_microsecond(), |day| day.saturating_mul(DAY_US));
            // The count of a new day begins anew.
            let days = (now_us.div_euclid(DAY_US), at_us.div_euclid(DAY_US));
            match days.0.cmp(&days.1) {
                _ if charged.what != "day" => *used = charged.used.max(*used),
                Ordering::Less => continue,
                Ordering::Equal => *used = charged.used.max(*used),
                Ordering::Greater => *used = charged.used,
            }
            *at_us = now_us;
        }
        let Some(labels) = line.labels.as_ref().filter(|_| line.kind == "intent" && is_remembered) else { return };
        let names = labels.after.iter().filter_map(|name| Seen::named(name));
        self.labels.saw(&Said {
            call: &line.call,
            user: line.subject.id.as_deref().unwrap_or("anyone"),
            agent: line.agent.id.as_deref().or(line.agent.client.as_deref()).unwrap_or("-"),
            mandate: line.mandate.as_ref().map(|under| (under.id.as_str(), under.parent.as_deref())),
            stores: &labels.stores,
            seen: names.fold(Seen::NOTHING, Seen::with),
            epoch: line.decision.as_ref().map(|decided| decided.epoch).unwrap_or_default(),
        });
    }
}

/// Tells the store what callers have seen and used up since it was last told that it knows everything. `memory` is how
/// long labels are remembered. Answers how many rows said less than the record.
///
/// # Errors
/// When the store or the record cannot be read.
pub async fn seen_and_used(
    store: &Store,
    state: &Path,
    replica: ReplicaId,
    memory: Duration,
) -> Result<usize, Failure> {
    let mark = store.row(MARKS, &replica.to_string()).await?.and_then(|row| row.body.parse::<u64>().ok());
    let now_us = store.clock_us().await?;
    let ago = |span: Duration| {
        let span = span.saturating_add(limit::CLOCK_DIFFERENCE_MAX);
        now_us.saturating_sub(i64::try_from(span.as_micros()).unwrap_or(i64::MAX))
    };
    let (remembered_us, oldest_us) = (ago(memory), ago(memory.max(Duration::from_hours(24))));
    let read = of_record(state, move |directory| since(directory, mark, (remembered_us, oldest_us)));
    let Read { labels, used, .. } = read.await?;
    let mut changes = if memory.is_zero() { Vec::new() } else { labels.changes(store, memory, now_us).await? };
    for ((of, id, what), (used, at_us)) in &used {
        let told = UsedUp { of, id, what, used: *used, at_us: *at_us };
        changes.extend(used_up_again(store, &told, now_us).await?);
    }
    if !changes.is_empty() {
        tracing::warn!(rows = changes.len(), "the record tells of labels and budgets that the store has forgotten");
    }
    for batch in changes.chunks(limit::SHELF_CHANGES_MAX) {
        if !store.change(batch.to_vec(), Tell::Nobody).await?.is_done() {
            let detail = "what callers have seen and used up could not be put back";
            return Err(Failure::before(Reason::StoreUnavailable, detail));
        }
    }
    Ok(changes.len())
}

/// What the lines after that one say; of a record of which nothing was told yet, those that can still matter.
fn since(directory: &Path, mark: Option<u64>, (remembered_us, oldest_us): (i64, i64)) -> std::io::Result<Read> {
    let all = segments(directory)?;
    let first = match mark {
        // The segment that has it, and those after it.
        Some(mark) => all.iter().rposition(|first| *first <= mark).unwrap_or(0),
        None => all.iter().rposition(|first| begins_before(directory, *first, oldest_us)).unwrap_or(0),
    };
    let mut read = Read { remembered_us, ..Read::default() };
    for segment in all.into_iter().skip(first) {
        for line in Segment::read(directory, segment)?.lines::<Line>(&MATTERS) {
            if mark.is_none_or(|mark| line.seq > mark) && line.at.as_microsecond() >= oldest_us {
                read.line(&line);
            }
        }
    }
    Ok(read)
}

fn begins_before(directory: &Path, segment: u64, moment_us: i64) -> bool {
    let begins_us = Segment::read(directory, segment).ok().and_then(|segment| segment.begins_us());
    begins_us.is_some_and(|begins_us| begins_us < moment_us)
}

/// Says in the store that it knows what the record says up to that line.
///
/// # Errors
/// `store_unavailable`.
pub async fn mark(store: &Store, replica: ReplicaId, line: u64) -> Result<(), Failure> {
    let kept_us = i64::try_from(limit::MEMBER_FORGOTTEN_AFTER.as_micros()).unwrap_or(i64::MAX);
    let expires_at_us = Some(store.clock_us().await?.saturating_add(kept_us));
    let put = Action::Put { owner: String::new(), body: line.to_string(), expires_at_us };
    let change = Change::new(MARKS, replica.to_string(), Expect::Anything, put);
    if store.change(vec![change], Tell::Nobody).await?.is_done() {
        return Ok(());
    }
    Err(Failure::before(Reason::StoreUnavailable, "no more replicas fit whose record is known"))
}

impl Gateway {
    /// Says in the store, now and then, how much of the record it knows: what was on it when this was asked last. What was
    /// written since may be of calls whose changes are still on their way.
    pub async fn mark_record(&self, last: &mut u64) {
        let line = std::mem::replace(last, self.journal.written().records());
        if let Err(failure) = mark(&self.store, self.journal.replica(), line).await {
            tracing::debug!(%failure, "how much of the record the store knows is written down later");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StateDirectory;

    #[tokio::test]
    async fn so_many_replicas_say_how_much_of_their_record_the_store_knows() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(place.path()).unwrap();
        let store = Store::open(&state, &crate::config::StoreConfig::Sqlite).await.unwrap();
        let own = store.replica().await.unwrap();
        mark(&store, own, 7).await.unwrap();
        mark(&store, own, 9).await.unwrap();
        assert_eq!(store.row(MARKS, &own.to_string()).await.unwrap().unwrap().body, "9");
        store
            .change(vec![Change::new(MARKS, own.to_string(), Expect::Anything, Action::Remove)], Tell::Nobody)
            .await
            .unwrap();
        let put = |number: u32| {
            let put = Action::Put { owner: String::new(), body: "1".to_owned(), expires_at_us: None };
            Change::new(MARKS, number.to_string(), Expect::Absent, put)
        };
        let others: Vec<Change> = (0..limit::RECORD_MARKS_MAX).map(put).collect();
        for batch in others.chunks(limit::SHELF_CHANGES_MAX) {
            assert!(store.change(batch.to_vec(), Tell::Nobody).await.unwrap().is_done());
        }
        assert_eq!(mark(&store, own, 9).await.unwrap_err().reason, Reason::StoreUnavailable);
    }

    #[test]
    fn the_count_of_a_day_is_the_last_days_and_every_other_the_most() {
        let mut read = Read::default();
        let line = |at: &str, what: &str, used: i64| {
            let charge = serde_json::json!({ "of": "agent", "id": "bot", "what": what, "used": used });
            let line = serde_json::json!({ "seq": 1, "at": at, "type": "result", "result": { "budget": [charge] } });
            serde_json::from_value::<Line>(line).unwrap()
        };
        for (at, used) in [("2026-03-01T10:00:00Z", 9), ("2026-03-02T10:00:00Z", 3), ("2026-03-02T10:00:01Z", 2)] {
            read.line(&line(at, "day", used));
            read.line(&line(at, "calls", used));
        }
        let used = |read: &Read| read.used.values().map(|(used, _)| *used).collect::<Vec<i64>>();
        assert_eq!(used(&read), [9, 3], "calls, day");
        // What was counted before midnight and came after it is yesterday's.
        let noon: jiff::Timestamp = "2026-03-01T12:00:00Z".parse().unwrap();
        let mut late = line("2026-03-02T10:00:02Z", "day", 9);
        late.result.as_mut().unwrap().budget[0].turn = Some(noon.as_microsecond() / DAY_US);
        read.line(&late);
        assert_eq!(used(&read), [9, 3]);
        let mut read = Read::default();
        read.line(&late);
        assert!(read.used.values().all(|(_, at_us)| at_us.div_euclid(DAY_US) == noon.as_microsecond() / DAY_US));
    }

    #[test]
    fn what_is_not_told_to_be_left_of_the_labels_of_a_carrier_is_kept() {
        let taken = |rows: serde_json::Value| {
            let rows: Rows = serde_json::from_value(serde_json::json!({ "epoch": 4, "rows": rows })).unwrap();
            rows.taken_off().map(|(_, key, left)| (key.to_owned(), left.bits())).collect::<Vec<_>>()
        };
        let row = |gone: bool, says: Option<&str>| serde_json::json!({ "section": "label", "key": "k", "gone": gone, "says": says });
        assert_eq!(taken(serde_json::json!([row(true, None)])), [("k".to_owned(), 0)]);
        assert_eq!(
            taken(serde_json::json!([row(true, None), row(false, None), row(false, Some("1"))])),
            [("k".to_owned(), 1)]
        );
        assert_eq!(taken(serde_json::json!([row(true, None), row(false, None), row(false, None)])), []);
    }

    #[tokio::test]
    async fn a_mandate_brings_nothing_back_to_its_holder_that_was_taken_off_since() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(place.path()).unwrap();
        let store = Store::open(&state, &crate::config::StoreConfig::Sqlite).await.unwrap();
        let id = crate::ids::MandateId::fresh().to_string();
        let mandate = serde_json::json!({
            "id": id, "holder": crate::ids::Digest::sha256(b"anna"), "agent": "bot", "subject": "user:corp/anna",
            "opener": "user:corp/anna", "opened_us": 0, "ends_us": i64::MAX / 2,
        });
        let put = Action::Put { owner: String::new(), body: mandate.to_string(), expires_at_us: None };
        let row = Change::new(crate::guard::mandate::MANDATES, id.as_str(), Expect::Absent, put);
        assert!(store.change(vec![row], Tell::Nobody).await.unwrap().is_done());
        let line = |line: serde_json::Value| serde_json::from_value::<Line>(line).unwrap();
        let at = "2026-03-01T10:00:00Z";
        let seen = |epoch: u64| {
            line(serde_json::json!({
                "seq": 1, "at": at, "type": "intent", "call": "c", "subject": { "id": "user:corp/anna" },
                "agent": { "id": "bot" }, "mandate": { "id": id }, "decision": { "epoch": epoch },
                "labels": { "after": ["private"] },
            }))
        };
        let own = "user:corp/anna bot -";
        let gone = line(serde_json::json!({
            "seq": 2, "at": at, "type": "change",
            "change": { "epoch": 4, "rows": [{ "section": label::CALLERS.name, "key": own, "gone": true }] },
        }));
        for (later, comes) in [(3, false), (4, true)] {
            let mut read = Read::default();
            read.line(&seen(3));
            read.line(&gone);
            if later > 3 {
                read.line(&seen(later));
            }
            let changes = read.labels.changes(&store, Duration::from_secs(60), 0).await.unwrap();
            let is_own = |change: &Change| change.section == label::CALLERS && change.key == own;
            assert_eq!(
                (changes.iter().any(is_own), changes.len()),
                (comes, 1 + usize::from(comes)),
                "the mandate has it still"
            );
        }
    }
}
