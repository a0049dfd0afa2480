//! Mandates that nobody uses: when one was used last, and when that is too long ago.
//!
//! Decides when a mandate is idle. Refuses to know what its end means. Invariants: what is under way is use, however long
//! it lasts; a mandate that is used at any replica is idle at none; whoever has no such time pays nothing.
//!
//! Each replica knows what it uses itself, and tells the others in a row, once in a quarter of the time: a mandate ends
//! after that time without any use, and within a quarter of it more. One at a time tells it, however slow the store is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use super::book::{body, gone_us, read};
use super::{Ended, Held, IDLE, MANDATES, Mandate};
use crate::ids::{MandateId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

/// When mandates were used last, as replicas tell each other.
const USED: Section = Section { name: "mandate_used", rows_max: limit::MANDATES_MAX };

/// What this replica knows of it.
#[derive(Debug)]
pub(super) struct Uses {
    began: Instant,
    known: Mutex<HashMap<MandateId, Arc<Used>>>,
    telling: Arc<Telling>,
}

/// Whether somebody tells others, and whether more is to be told since.
#[derive(Debug, Default)]
struct Telling {
    is_on: AtomicBool,
    again: AtomicBool,
}

/// The turn to tell others; nobody else has it until it is dropped.
#[derive(Debug)]
pub struct Turn(Arc<Telling>);

impl Turn {
    /// Whether more is to be told since.
    fn goes_on(&self) -> bool {
        self.0.again.swap(false, Ordering::AcqRel)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.is_on.store(false, Ordering::Release);
    }
}

#[derive(Debug)]
struct Used {
    began: Instant,
    idle_ms: u64,
    under_way: AtomicU32,
    /// When it was used last, milliseconds after the beginning.
    last_ms: AtomicU64,
    /// The last use that others were told of; nothing yet.
    told_ms: AtomicU64,
}

/// Something is under way under mandates that end when nobody uses them; dropping it is its end.
#[derive(Debug)]
pub struct Use {
    of: Vec<Arc<Used>>,
    turn: Option<Turn>,
}

impl Use {
    /// The turn to tell others, where they are to be told of this and nobody does: whoever takes it does.
    pub const fn turn(&mut self) -> Option<Turn> {
        self.turn.take()
    }
}

impl Drop for Use {
    fn drop(&mut self) {
        for used in &self.of {
            used.touched();
            used.under_way.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

impl Used {
    fn now_ms(&self) -> u64 {
        u64::try_from(self.began.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn touched(&self) {
        self.last_ms.fetch_max(self.now_ms(), Ordering::Relaxed);
    }

    fn is_under_way(&self) -> bool {
        self.under_way.load(Ordering::Relaxed) > 0
    }

    /// So long ago it was used last.
    fn age_ms(&self) -> u64 {
        if self.is_under_way() { 0 } else { self.now_ms().saturating_sub(self.last_ms.load(Ordering::Relaxed)) }
    }

    /// Whether others know of an older use only, and do not know enough.
    fn is_due(&self) -> bool {
        let (last_ms, told_ms) = (self.last_ms.load(Ordering::Relaxed), self.told_ms.load(Ordering::Relaxed));
        told_ms == 0 || last_ms.saturating_sub(told_ms) >= self.idle_ms / 4
    }
}

impl Uses {
    pub(super) fn new() -> Self {
        Self { began: Instant::now(), known: Mutex::default(), telling: Arc::default() }
    }

    /// Something begins under a mandate; nothing where none of those that count ends when nobody uses it.
    pub(super) fn begin(&self, held: &Held) -> Option<Use> {
        let mut counted = held.all().filter_map(|mandate| Some((mandate, mandate.idle()?))).peekable();
        counted.peek()?;
        let of: Vec<_> = {
            // Under way before anybody sees that it is known: what nobody uses is forgotten.
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            let begun = counted.map(|(mandate, idle)| {
                let used = known.entry(mandate.id.clone()).or_insert_with(|| self.unused(idle));
                used.under_way.fetch_add(1, Ordering::Relaxed);
                used.touched();
                Arc::clone(used)
            });
            begun.collect()
        };
        let is_due = of.iter().any(|used| used.is_due());
        Some(Use { of, turn: is_due.then(|| self.turn()).flatten() })
    }

    /// The turn to tell others, unless somebody has it, who tells once more then.
    pub(super) fn turn(&self) -> Option<Turn> {
        if self.telling.is_on.swap(true, Ordering::AcqRel) {
            self.telling.again.store(true, Ordering::Release);
            return None;
        }
        Some(Turn(Arc::clone(&self.telling)))
    }

    fn unused(&self, idle: Duration) -> Arc<Used> {
        let idle_ms = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX);
        let (last_ms, told_ms) = (AtomicU64::new(0), AtomicU64::new(0));
        Arc::new(Used { began: self.began, idle_ms, under_way: AtomicU32::new(0), last_ms, told_ms })
    }

    /// How long ago it was used here for the last time; nothing where it was not.
    fn age(&self, id: &MandateId) -> Option<Duration> {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(id).map(|used| Duration::from_millis(used.age_ms()))
    }

    /// Tells the others what they have to know, and forgets what was not used for so long that it is over.
    pub(super) async fn tell(&self, shelf: &dyn Shelf, turn: &mut Turn) -> Result<(), Failure> {
        loop {
            self.tell_what_is_due(shelf).await?;
            if !turn.goes_on() {
                return Ok(());
            }
        }
    }

    async fn tell_what_is_due(&self, shelf: &dyn Shelf) -> Result<(), Failure> {
        let due: Vec<_> = {
            let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
            known.retain(|_, used| used.age_ms() < used.idle_ms.saturating_mul(2).max(KEPT_MS));
            known.values().filter(|used| used.is_under_way()).for_each(|used| used.touched());
            known.iter().filter(|(_, used)| used.is_due()).map(|(id, used)| (id.clone(), Arc::clone(used))).collect()
        };
        let mut is_all = true;
        for batch in due.chunks(limit::SHELF_CHANGES_MAX) {
            let now_us = shelf.clock_us().await?;
            let mut told = Vec::with_capacity(batch.len());
            let mut changes = Vec::with_capacity(batch.len());
            for (id, used) in batch {
                let (age_ms, last_ms) = (used.age_ms(), used.last_ms.load(Ordering::Relaxed));
                let last_us = now_us.saturating_sub(us(Duration::from_millis(age_ms)));
                let until_us = now_us.saturating_add(us(Duration::from_millis(used.idle_ms.saturating_mul(2))));
                let until_us = until_us.saturating_add(us(limit::COUNT_KEPT));
                let put =
                    Action::Put { owner: String::new(), body: last_us.to_string(), expires_at_us: Some(until_us) };
                changes.push(Change::new(USED, id.as_str(), Expect::Anything, put));
                told.push((used, last_ms.max(1)));
            }
            match shelf.change(changes, Tell::Nobody).await? {
                Changed::Done { .. } => told.iter().for_each(|(used, ms)| used.told_ms.store(*ms, Ordering::Relaxed)),
                // What is there already may be told all the same.
                Changed::Conflict(_) | Changed::Full(_) => is_all = false,
            }
        }
        let full = || Failure::before(Reason::StoreUnavailable, "no more uses of mandates fit");
        is_all.then_some(()).ok_or_else(full)
    }

    /// Whether a mandate was used by nobody for too long; and the row that says so, if there is one.
    pub(super) async fn is_idle(
        &self,
        shelf: &dyn Shelf,
        mandate: &Mandate,
        now_us: i64,
    ) -> Result<Option<Unused>, Failure> {
        let Some(idle) = mandate.idle() else { return Ok(None) };
        let long_us = us(idle).saturating_add(us(idle / 4));
        if self.age(&mandate.id).is_some_and(|age| age < idle) || now_us.saturating_sub(mandate.opened_us) < long_us {
            return Ok(None);
        }
        let row = shelf.row(USED, mandate.id.as_str()).await?;
        let last_us = row.as_ref().and_then(|row| row.body.parse().ok()).unwrap_or(mandate.opened_us);
        Ok((now_us.saturating_sub(last_us) >= long_us).then_some(Unused { row }))
    }
}

/// That nobody has used a mandate.
pub(super) struct Unused {
    row: Option<Row>,
}

/// Ends a mandate that nobody uses, unless somebody does meanwhile; what it says now, and the epoch that includes it.
pub(super) async fn end(
    uses: &Uses,
    shelf: &dyn Shelf,
    id: &MandateId,
) -> Result<Option<(Mandate, RevocationEpoch)>, Failure> {
    let Some(row) = shelf.row(MANDATES, id.as_str()).await? else { return Ok(None) };
    let (mut mandate, now_us) = (read(&row)?, shelf.clock_us().await?);
    if mandate.is_over(now_us) {
        return Ok(None);
    }
    let Some(unused) = uses.is_idle(shelf, &mandate, now_us).await? else { return Ok(None) };
    mandate.ended = Some(Ended { at_us: now_us, by: IDLE.to_owned() });
    let put = Action::Put { owner: row.owner, body: body(&mandate)?, expires_at_us: Some(gone_us(&mandate)) };
    let as_read = unused.row.map_or(Expect::Absent, |row| Expect::Version(row.version));
    let changes = vec![
        Change::new(MANDATES, id.as_str(), Expect::Version(row.version), put),
        Change::new(USED, id.as_str(), as_read, Action::Check),
    ];
    match shelf.change(changes, Tell::Everybody).await? {
        Changed::Done { epoch: Some(epoch), .. } => Ok(Some((mandate, epoch))),
        // Whoever was faster has used it, or ended it.
        _ => Ok(None),
    }
}

/// What was used is remembered for at least so long.
const KEPT_MS: u64 = 60_000;

fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use futures_util::future::BoxFuture;

    use super::*;
    use crate::config::{Budget, StoreConfig};
    use crate::ids::Digest;
    use crate::shelf::Version;
    use crate::store::{StateDirectory, Store};

    const HOUR_US: i64 = 3_600_000_000;

    fn mandate(opened_us: i64) -> Mandate {
        Mandate {
            id: MandateId::fresh(),
            template: None,
            holder: Digest::sha256(b"holder"),
            agent: None,
            subject: None,
            opener: "user:corp/anna".to_owned(),
            opener_key: None,
            opened_by: None,
            bearer: None,
            purpose: String::new(),
            above: Vec::new(),
            tools: None,
            conditions: Vec::new(),
            environments: None,
            budget: Budget::default(),
            isolated: false,
            opened_us,
            ends_us: i64::MAX / 2,
            idle_seconds: Some(3_600),
            ended: None,
            told: false,
        }
    }

    #[tokio::test]
    async fn a_mandate_that_is_used_at_any_replica_is_idle_at_none_and_one_that_nobody_uses_ends_once() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(&place.path().join("state")).unwrap();
        let store = Store::open(&state, &StoreConfig::Sqlite).await.unwrap();
        let (one, other) = (Uses::new(), Uses::new());
        let now_us = store.clock_us().await.unwrap();
        let mandate = mandate(now_us - 10 * HOUR_US);
        let put = Action::Put { owner: String::new(), body: body(&mandate).unwrap(), expires_at_us: None };
        let row = Change::new(MANDATES, mandate.id.as_str(), Expect::Absent, put);
        store.change(vec![row], Tell::Nobody).await.unwrap();
        let young = Mandate { opened_us: now_us, ..mandate.clone() };
        assert!(one.is_idle(&store, &young, now_us).await.unwrap().is_none(), "it was only just opened");
        assert!(one.is_idle(&store, &mandate, now_us).await.unwrap().is_some(), "nobody ever used it");
        let held = Held::new(vec![(Arc::new(mandate.clone()), Version(1))], RevocationEpoch(0)).unwrap();
        let mut used = other.begin(&held).unwrap();
        let mut turn = used.turn().expect("nobody else knows");
        other.tell(&store, &mut turn).await.unwrap();
        drop(turn);
        assert!(one.is_idle(&store, &mandate, now_us).await.unwrap().is_none(), "the other one uses it");
        assert!(end(&one, &store, &mandate.id).await.unwrap().is_none());
        let later_us = now_us + 2 * HOUR_US;
        assert!(other.is_idle(&store, &mandate, later_us).await.unwrap().is_none(), "it is under way there");
        assert!(one.is_idle(&store, &mandate, later_us).await.unwrap().is_some(), "as far as the first one knows");
        drop(used);
        assert!(other.begin(&held).unwrap().turn().is_none(), "the others know enough");
        // Forgotten, as if it had never been used.
        store
            .change(vec![Change::new(USED, mandate.id.as_str(), Expect::Anything, Action::Remove)], Tell::Nobody)
            .await
            .unwrap();
        let (ended, _) = end(&one, &store, &mandate.id).await.unwrap().unwrap();
        assert!(ended.ended.as_ref().is_some_and(Ended::is_by_disuse) && ended.state(now_us) == "expired");
        assert!(end(&one, &store, &mandate.id).await.unwrap().is_none(), "once");
        let free = Mandate { idle_seconds: None, ..mandate };
        let held = Held::new(vec![(Arc::new(free), Version(1))], RevocationEpoch(0)).unwrap();
        assert!(one.begin(&held).is_none(), "whoever has no such time pays nothing");
    }

    /// A store that never says what became of a change, and counts them.
    #[derive(Debug, Default)]
    struct Stuck(AtomicU32);

    impl Shelf for Stuck {
        fn row<'a>(&'a self, _: Section, _: &'a str) -> BoxFuture<'a, Result<Option<Row>, Failure>> {
            Box::pin(std::future::ready(Ok(None)))
        }

        fn rows<'a>(
            &'a self,
            _: Section,
            _: Option<&'a str>,
            _: Option<&'a str>,
        ) -> BoxFuture<'a, Result<Vec<Row>, Failure>> {
            Box::pin(std::future::ready(Ok(Vec::new())))
        }

        fn change(&self, _: Vec<Change>, _: Tell) -> BoxFuture<'_, Result<Changed, Failure>> {
            self.0.fetch_add(1, Ordering::SeqCst);
            Box::pin(std::future::pending())
        }

        fn clock_us(&self) -> BoxFuture<'_, Result<i64, Failure>> {
            Box::pin(std::future::ready(Ok(0)))
        }
    }

    #[tokio::test]
    async fn one_at_a_time_tells_others_however_many_begin_while_the_store_takes_nothing() {
        let (uses, shelf) = (Arc::new(Uses::new()), Arc::new(Stuck::default()));
        let mut telling = Vec::new();
        for _ in 0..100 {
            let held = Held::new(vec![(Arc::new(mandate(0)), Version(1))], RevocationEpoch(0)).unwrap();
            if let Some(mut turn) = uses.begin(&held).unwrap().turn() {
                let (uses, shelf) = (Arc::clone(&uses), Arc::clone(&shelf));
                telling.push(tokio::spawn(async move { uses.tell(&*shelf, &mut turn).await }));
            }
            tokio::task::yield_now().await;
        }
        assert_eq!((telling.len(), shelf.0.load(Ordering::SeqCst)), (1, 1));
        // Whoever comes after it was given up tells.
        telling[0].abort();
        while uses.telling.is_on.load(Ordering::SeqCst) {
            tokio::task::yield_now().await;
        }
        let held = Held::new(vec![(Arc::new(mandate(0)), Version(1))], RevocationEpoch(0)).unwrap();
        assert!(uses.begin(&held).unwrap().turn().is_some());
    }

    #[test]
    fn what_was_begun_is_never_forgotten_by_whoever_tells_at_that_moment() {
        let uses = Uses { began: Instant::now().checked_sub(Duration::from_secs(100_000)).unwrap(), ..Uses::new() };
        let one = mandate(0);
        let held = Held::new(vec![(Arc::new(one.clone()), Version(1))], RevocationEpoch(0)).unwrap();
        let (stop, mut lost) = (AtomicBool::new(false), 0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !stop.load(Ordering::SeqCst) {
                    let mut known = uses.known.lock().unwrap();
                    known.retain(|_, used| used.age_ms() < used.idle_ms.saturating_mul(2));
                }
            });
            for _ in 0..20_000 {
                let begun = uses.begin(&held).unwrap();
                lost += usize::from(uses.age(&one.id).is_none());
                drop(begun);
                uses.known.lock().unwrap().clear();
            }
            stop.store(true, Ordering::SeqCst);
        });
        assert_eq!(lost, 0, "it was under way");
    }
}
