//! What is kept of requests when the store is full, when there are more of them than are listed, and when somebody else
//! is always quicker.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use futures_util::future::{BoxFuture, ready};
use serde_json::json;

use super::*;
use crate::identity::fixture;

/// Rows in memory. Whoever changes one finds that somebody else has just done so, or that its section is full.
#[derive(Debug, Default)]
struct Crowded {
    rows: Mutex<Vec<(Section, Row)>>,
    /// How often a change was tried.
    tries: AtomicUsize,
    /// How often one row was read.
    reads: AtomicUsize,
    /// How many rows each section has, besides those here.
    others: u32,
}

impl Crowded {
    fn with(rows: impl IntoIterator<Item = (Section, Row)>, others: u32) -> Arc<Self> {
        Arc::new(Self { rows: Mutex::new(rows.into_iter().collect()), others, ..Self::default() })
    }

    fn tries(&self) -> usize {
        self.tries.swap(0, Ordering::SeqCst)
    }
}

impl Shelf for Crowded {
    fn row<'a>(&'a self, section: Section, key: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
        self.reads.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock().unwrap();
        let found = rows.iter().find(|(of, row)| *of == section && row.key == key).map(|(_, row)| row.clone());
        Box::pin(ready(Ok(found)))
    }

    fn rows<'a>(
        &'a self,
        section: Section,
        owner: Option<&'a str>,
        after: Option<&'a str>,
    ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
        let rows = self.rows.lock().unwrap();
        let mut found: Vec<Row> = rows.iter().filter(|(of, _)| *of == section).map(|(_, row)| row.clone()).collect();
        found.retain(|row| owner.is_none_or(|owner| row.owner == owner) && after.is_none_or(|after| *row.key > *after));
        found.sort_by(|one, other| one.key.cmp(&other.key));
        found.truncate(limit::SHELF_ROWS_READ_MAX);
        Box::pin(ready(Ok(found)))
    }

    fn change(&self, changes: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
        self.tries.fetch_add(1, Ordering::SeqCst);
        let rows = self.rows.lock().unwrap();
        let is_there = |change: &Change| rows.iter().any(|(of, row)| *of == change.section && row.key == change.key);
        let is_full = |change: &Change| {
            let adds = matches!(change.action, Action::Put { .. }) && !is_there(change);
            adds && self.others >= change.section.rows_max
        };
        let full = changes.iter().position(is_full);
        Box::pin(ready(Ok(full.map_or(Changed::Conflict(0), Changed::Full))))
    }

    fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
        Box::pin(ready(Ok(NOW_US)))
    }
}

const NOW_US: i64 = 1_800_000_000_000_000;

fn kept(number: usize) -> Kept {
    let digest = Digest::sha256(number.to_string().as_bytes());
    serde_json::from_value(json!({
        "id": format!("{number:05}"), "binding": digest, "gates": ["g"],
        "requester": { "user": "user:corp/alice", "human": true, "principal": "p" },
        "server": "git", "action": "call", "name": "push", "environment": "production",
        "preview": "{}", "shown": digest, "revision": digest, "call": "c",
        "requested_at_us": NOW_US - 1_000 + i64::try_from(number).unwrap(),
        "pending_until_us": NOW_US + 60_000_000, "approved_for_us": 1,
    }))
    .unwrap()
}

/// A row as the store has it, for people and for calls.
fn rows(kept: &Kept) -> [(Section, Row); 2] {
    let row = |key: String, owner: &str| Row {
        key,
        version: Version(1),
        owner: owner.to_owned(),
        body: serde_json::to_string(kept).unwrap(),
        number: 0,
        expires_at_us: None,
    };
    [(LIVE, row(kept.binding.to_string(), &kept.id)), (NAMED, row(kept.id.clone(), &kept.requester.principal))]
}

fn approvals(shelf: &Arc<Crowded>) -> (Approvals, tempfile::TempDir) {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = crate::record::fixture::start(state.path());
    (Approvals::new(Arc::clone(shelf) as Arc<dyn Shelf>, journal, Arc::default()), state)
}

fn denier() -> Denier {
    Denier { name: "user:corp/bob".to_owned(), note: String::new() }
}

#[tokio::test]
async fn a_list_asks_once_for_each_mandate_and_writes_nothing() {
    let ids: Vec<String> = (0..3).map(|_| crate::ids::MandateId::fresh().to_string()).collect();
    let mandate = |id: &String, ends_us: i64| {
        let holder = Digest::sha256(b"holder");
        let body =
            json!({ "id": id, "holder": holder, "opener": "user:corp/alice", "opened_us": 0, "ends_us": ends_us });
        let row = Row { key: id.clone(), body: body.to_string(), ..rows(&kept(0))[0].1.clone() };
        (crate::guard::mandate::MANDATES, row)
    };
    // The last one is gone.
    let mandates = [mandate(&ids[0], i64::MAX), mandate(&ids[1], 1)];
    let under = |number: usize| Kept { mandate: Some(ids[number % 3].clone()), ..kept(number) };
    let shelf = Crowded::with((0..300).flat_map(|number| rows(&under(number))).chain(mandates), 0);
    let (approvals, _state) = approvals(&shelf);
    for filter in [Filter::All, Filter::Pending] {
        let (listed, _) = approvals.list(filter, &fixture::config()).await.unwrap();
        let waiting = listed.iter().filter(|kept| kept.state(NOW_US) == State::Pending).count();
        assert_eq!((listed.len(), waiting), (if filter == Filter::All { 300 } else { 100 }, 100));
        assert_eq!((shelf.reads.swap(0, Ordering::SeqCst), shelf.tries()), (3, 0));
    }
}

#[tokio::test]
async fn the_newest_of_many_requests_are_listed() {
    let more = limit::SHELF_ROWS_READ_MAX + limit::APPROVALS_LISTED_MAX + 7;
    let shelf = Crowded::with((0..more).flat_map(|number| rows(&kept(number))), 0);
    let (approvals, _state) = approvals(&shelf);
    for filter in [Filter::All, Filter::Pending] {
        let (listed, now_us) = approvals.list(filter, &fixture::config()).await.unwrap();
        assert_eq!((listed.len(), now_us), (limit::APPROVALS_LISTED_MAX, NOW_US));
        let newest = (0..more).rev().take(limit::APPROVALS_LISTED_MAX).map(|number| format!("{number:05}"));
        assert!(listed.iter().map(|kept| kept.id.clone()).eq(newest));
    }
}

#[tokio::test]
async fn a_decision_that_somebody_else_is_always_quicker_than_gives_up() {
    let shelf = Crowded::with(rows(&kept(1)), 0);
    let (approvals, _state) = approvals(&shelf);
    let changed = |stop: Stop| assert_eq!(stop.reason(), Reason::ApprovalChanged);
    changed(approvals.withdraw("00001", &fixture::config()).await.unwrap_err());
    assert_eq!(shelf.tries(), limit::APPROVAL_TRIES_MAX);
    changed(approvals.deny("00001", &denier(), None, &fixture::config()).await.unwrap_err());
    assert_eq!(shelf.tries(), limit::APPROVAL_TRIES_MAX);
}

#[tokio::test]
async fn emergency_access_whose_row_always_changes_is_not_said_to_be_ended() {
    let open = BreakGlass {
        of: kept(1),
        name: "outage".to_owned(),
        role: "role:firefighter".to_owned(),
        reason: "down".to_owned(),
        for_us: 1,
        until_us: Some(NOW_US + 60_000_000),
        ended: None,
        reviewed: None,
    };
    let body = serde_json::to_string(&open).unwrap();
    let row =
        Row { key: "e".to_owned(), version: Version(1), owner: String::new(), body, number: 0, expires_at_us: None };
    let shelf = Crowded::with([(BREAK_GLASS, row)], 0);
    let (approvals, _state) = approvals(&shelf);
    let stop = approvals.end("e", "user:corp/bob", "", None).await.unwrap_err();
    assert_eq!((stop.reason(), shelf.tries()), (Reason::ApprovalChanged, limit::APPROVAL_TRIES_MAX));
}

#[tokio::test]
async fn a_store_without_room_for_a_request_says_that_and_is_asked_once() {
    let full = Crowded::with([], limit::APPROVALS_KEPT_MAX);
    let (approvals, _state) = approvals(&full);
    let stop = approvals.put(&kept(1), Expect::Absent, None).await.unwrap_err();
    assert_eq!((stop.reason(), full.tries()), (Reason::ApprovalsLimited, 1));
    // One place is enough, and what is there already needs none.
    for shelf in
        [Crowded::with([], limit::APPROVALS_KEPT_MAX - 1), Crowded::with(rows(&kept(1)), limit::APPROVALS_KEPT_MAX)]
    {
        let (approvals, _state) = super::tests::approvals(&shelf);
        let stop = approvals.put(&kept(1), Expect::Version(Version(1)), None).await.unwrap_err();
        assert_eq!(stop.reason(), Reason::ApprovalChanged, "it was looked at, and somebody was quicker");
    }
}
