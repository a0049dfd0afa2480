//! Where mandates are kept: rows on the shelf, and copies in memory that are good for one epoch.
//!
//! Decides when the store is asked. Refuses to know what a mandate allows. Invariant: a mandate that was completed
//! anywhere is read again before the next call that names it, because completing it raises the epoch.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use super::idle::{self, Turn, Use, Uses};
use super::{Ended, Held, Mandate};
use crate::ids::{Digest, MandateId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell, Version};

/// The rows of mandates; looked up by whoever holds them, too.
pub const MANDATES: Section = Section { name: "mandate", rows_max: limit::MANDATES_MAX };

/// Mandates, as they are kept.
#[derive(Debug)]
pub struct Mandates {
    shelf: Arc<dyn Shelf>,
    known: moka::sync::Cache<MandateId, Known>,
    uses: Uses,
    /// Those that this replica is ending: it tells itself what becomes of what they hold.
    ending: Mutex<HashSet<MandateId>>,
}

#[derive(Debug, Clone)]
struct Known {
    epoch: RevocationEpoch,
    mandate: Arc<Mandate>,
    version: Version,
}

/// What became of completing one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Completion {
    /// It is over now; so is everything below it, from this epoch on.
    Done(RevocationEpoch),
    /// It was ended before, and whoever did that was stopped before it was told of.
    Untold,
    /// It was over.
    Over,
    /// There is none of that name.
    Unknown,
}

impl Mandates {
    pub(in crate::guard) fn new(shelf: Arc<dyn Shelf>) -> Self {
        let known = moka::sync::Cache::new(limit::MANDATES_REMEMBERED_MAX);
        Self { shelf, known, uses: Uses::new(), ending: Mutex::default() }
    }

    /// The mandate of that name with those above it, as they are in that epoch; nothing where one is gone.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn find(&self, id: &MandateId, epoch: RevocationEpoch) -> Result<Option<Held>, Failure> {
        let Some(own) = self.one(id, epoch).await? else { return Ok(None) };
        let mut chain = Vec::with_capacity(own.mandate.above.len() + 1);
        for above in &own.mandate.above {
            let Some(known) = self.one(above, epoch).await? else { return Ok(None) };
            chain.push((known.mandate, known.version));
        }
        chain.push((own.mandate, own.version));
        Ok(Held::new(chain, epoch))
    }

    async fn one(&self, id: &MandateId, epoch: RevocationEpoch) -> Result<Option<Known>, Failure> {
        if let Some(known) = self.known.get(id).filter(|known| known.epoch == epoch) {
            return Ok(Some(known));
        }
        let Some(row) = self.shelf.row(MANDATES, id.as_str()).await? else { return Ok(None) };
        let known = Known { epoch, version: row.version, mandate: Arc::new(read(&row)?) };
        self.known.insert(id.clone(), known.clone());
        Ok(Some(known))
    }

    /// Keeps a new one and the labels that it begins with, durable when it is done. Those above it must still be as they
    /// were read.
    ///
    /// # Errors
    /// `store_unavailable`, also where no more fit; `mandate_ended` where one above has changed meanwhile;
    /// `mandate_refused` where its opener has opened so many today.
    pub async fn keep(
        &self,
        mandate: &Mandate,
        above: Option<&Held>,
        labels: Option<Change>,
        opener: Digest,
    ) -> Result<(), Stop> {
        let mut changes: Vec<Change> = above.into_iter().flat_map(unchanged).chain(labels).collect();
        let put = Action::Put {
            owner: mandate.holder.to_string(),
            body: body(mandate)?,
            expires_at_us: Some(gone_us(mandate)),
        };
        changes.push(Change::new(MANDATES, mandate.id.as_str(), Expect::Absent, put));
        let last = changes.len();
        changes.push(crate::guard::budget::opening(opener, mandate.opened_us));
        match self.shelf.change(changes, Tell::Nobody).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Conflict(index) if index == last => Err(Refusal::new(Reason::MandateRefused)
                .hint(format!(
                    "{} mandates were opened today: go on with one of them",
                    limit::MANDATES_OPENED_PER_DAY_MAX
                ))
                .into()),
            Changed::Conflict(_) => Err(Refusal::new(Reason::MandateEnded).into()),
            Changed::Full(_) => Err(full("mandates").into()),
        }
    }

    /// Something begins under a mandate; nothing where none of those that count ends when nobody uses it.
    #[must_use]
    pub fn begin_use(&self, held: &Held) -> Option<Use> {
        self.uses.begin(held)
    }

    /// The turn to tell other replicas what is used here; nothing while somebody has it.
    #[must_use]
    pub fn turn_to_tell(&self) -> Option<Turn> {
        self.uses.turn()
    }

    /// Tells other replicas what is used here.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn tell_uses(&self, turn: &mut Turn) -> Result<(), Failure> {
        self.uses.tell(self.shelf.as_ref(), turn).await
    }

    /// Whether nobody has used a mandate for too long.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn is_idle(&self, mandate: &Mandate, now_us: i64) -> Result<bool, Failure> {
        Ok(self.uses.is_idle(self.shelf.as_ref(), mandate, now_us).await?.is_some())
    }

    /// Ends one that nobody uses, unless somebody does meanwhile; what it says now, and the epoch that includes it.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn end_idle(&self, id: &MandateId) -> Result<Option<(Mandate, RevocationEpoch)>, Failure> {
        idle::end(&self.uses, self.shelf.as_ref(), id).await
    }

    /// This replica ends one, and tells itself what becomes of what it holds, until what this answers is dropped.
    pub fn ending(&self, id: &MandateId) -> Ending<'_> {
        self.ending.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone());
        Ending { mandates: self, id: id.clone() }
    }

    /// Whether this replica is ending one.
    #[must_use]
    pub fn is_being_ended(&self, id: &str) -> bool {
        let ending = self.ending.lock().unwrap_or_else(PoisonError::into_inner);
        ending.iter().any(|ending| ending.as_str() == id)
    }

    /// Ends one before its time.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn complete(&self, id: &MandateId, by: &str) -> Result<Completion, Failure> {
        for _ in 0..limit::SHELF_TRIES_MAX {
            let Some(row) = self.shelf.row(MANDATES, id.as_str()).await? else { return Ok(Completion::Unknown) };
            let mut mandate = read(&row)?;
            let now_us = self.shelf.clock_us().await?;
            if mandate.is_over(now_us) {
                // What the clock ended is told by whoever noticed.
                let untold = mandate.ended.as_ref().is_some_and(|ended| !ended.is_by_the_clock()) && !mandate.told;
                return Ok(if untold { Completion::Untold } else { Completion::Over });
            }
            mandate.ended = Some(Ended { at_us: now_us, by: by.to_owned() });
            let change = changed(&mandate, &row)?;
            if let Changed::Done { epoch: Some(epoch), .. } = self.shelf.change(vec![change], Tell::Everybody).await? {
                return Ok(Completion::Done(epoch));
            }
        }
        Err(Failure::before(Reason::StoreUnavailable, "the mandate changes all the time"))
    }

    /// So many mandates after that name, by name, which is by age.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(&self, holder: Option<&str>) -> Result<Vec<Mandate>, Failure> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let rows = self.shelf.rows(MANDATES, holder, after.as_deref()).await?;
            let last = rows.last().map(|row| row.key.clone());
            let full = rows.len() >= limit::SHELF_ROWS_READ_MAX;
            for row in rows {
                found.push(Mandate { told: false, ..read(&row)? });
            }
            // The youngest are what is looked for; the others are not held in memory until the end.
            let skipped = found.len().saturating_sub(limit::MANDATES_LISTED_MAX);
            found.drain(..skipped);
            if !full || last.is_none() {
                return Ok(found);
            }
            after = last;
        }
    }

    /// Those among the next mandates after that name that are not over and are meant; and after which name to go on, where
    /// there are more.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn open_ones(
        &self,
        after: Option<&str>,
        meant: impl Fn(&Mandate) -> bool,
    ) -> Result<(Vec<(Mandate, Row)>, Option<String>), Failure> {
        let rows = self.shelf.rows(MANDATES, None, after).await?;
        let last = rows.last().map(|row| row.key.clone()).filter(|_| rows.len() >= limit::SHELF_ROWS_READ_MAX);
        let now_us = self.shelf.clock_us().await?;
        let is_meant = |found: &Mandate| !found.is_over(now_us) && meant(found);
        let found = rows.into_iter().filter(|row| !is_told(row));
        let found = found.filter_map(|row| Some((read(&row).ok().filter(is_meant)?, row)));
        Ok((found.collect(), last))
    }

    /// Ends these, with one epoch for as many of them as fit into a change; answers which of them nobody else has ended,
    /// each with the epoch that includes it. Also what is over by the clock is ended: it stays over, whatever that says
    /// afterwards, and whoever remembers it as it was has to forget that.
    ///
    /// # Errors
    /// `store_unavailable`. Those that were ended all the same are found by [`Self::untold`] again.
    pub async fn end_all(
        &self,
        these: Vec<(Mandate, Row)>,
        by: &str,
    ) -> Result<Vec<(Mandate, RevocationEpoch)>, Failure> {
        let at_us = self.shelf.clock_us().await?;
        let mut all = Vec::new();
        for some in these.chunks(limit::SHELF_CHANGES_MAX) {
            let mut some = some.to_vec();
            for _ in 0..limit::SHELF_TRIES_MAX {
                some.retain(|(mandate, _)| mandate.ended.is_none());
                if some.is_empty() {
                    break;
                }
                let ended = some.iter().map(|(mandate, row)| {
                    let mandate = Mandate { ended: Some(Ended { at_us, by: by.to_owned() }), ..mandate.clone() };
                    Ok::<_, Failure>((changed(&mandate, row)?, mandate))
                });
                let (changes, ended): (Vec<_>, Vec<_>) =
                    ended.collect::<Result<Vec<_>, Failure>>()?.into_iter().unzip();
                if let Changed::Done { epoch: Some(epoch), .. } = self.shelf.change(changes, Tell::Everybody).await? {
                    all.extend(ended.into_iter().map(|mandate| (mandate, epoch)));
                    break;
                }
                // Another replica was faster with some of them.
                some = self.again(some).await?;
            }
        }
        Ok(all)
    }

    /// The same as they are now.
    async fn again(&self, some: Vec<(Mandate, Row)>) -> Result<Vec<(Mandate, Row)>, Failure> {
        let mut found = Vec::with_capacity(some.len());
        for (mandate, _) in some {
            let Some(row) = self.shelf.row(MANDATES, mandate.id.as_str()).await? else { continue };
            found.push((read(&row)?, row));
        }
        Ok(found)
    }

    /// Keeps that the ends of these are on the record.
    ///
    /// # Errors
    /// `store_unavailable`; then they are told once more.
    pub async fn tell(&self, ids: &[MandateId]) -> Result<(), Failure> {
        for some in ids.chunks(limit::SHELF_CHANGES_MAX) {
            let mut changes = Vec::with_capacity(some.len());
            for id in some {
                let Some(row) = self.shelf.row(MANDATES, id.as_str()).await? else { continue };
                let mandate = read(&row)?;
                if !mandate.told && mandate.ended.is_some() {
                    changes.push(changed(&Mandate { told: true, ..mandate }, &row)?);
                }
            }
            if !changes.is_empty() && !self.shelf.change(changes.clone(), Tell::Nobody).await?.is_done() {
                // Another replica keeps it of one of them: that is no reason to tell of the others once more.
                for change in changes {
                    self.shelf.change(vec![change], Tell::Nobody).await?;
                }
            }
        }
        Ok(())
    }

    /// Those among the next mandates after that name that are over and not told of (expired ones, and those whose end
    /// was cut off before it was told), and those that may be over because nobody uses them.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn untold(&self, after: Option<&str>) -> Result<Looked, Failure> {
        let rows = self.shelf.rows(MANDATES, None, after).await?;
        let next = rows.last().map(|row| row.key.clone()).filter(|_| rows.len() >= limit::SHELF_ROWS_READ_MAX);
        let now_us = self.shelf.clock_us().await?;
        // Whoever ends one may be about to tell.
        let within_us = i64::try_from(limit::MANDATE_TOLD_WITHIN.as_micros()).unwrap_or(i64::MAX);
        let is_late = |ended: &Ended| ended.at_us.saturating_add(within_us) < now_us;
        let (mut untold, mut may_be_idle) = (Vec::new(), Vec::new());
        for row in rows {
            let Some(mandate) = (!is_told(&row)).then(|| read(&row).ok()).flatten() else { continue };
            if !mandate.is_over(now_us) {
                may_be_idle.extend(mandate.idle().is_some().then_some(mandate));
            } else if !mandate.told && mandate.ended.as_ref().is_none_or(is_late) {
                untold.push((mandate, row));
            }
        }
        Ok(Looked { untold, may_be_idle, next })
    }

    /// The store's clock, microseconds since 1970.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn clock_us(&self) -> Result<i64, Failure> {
        self.shelf.clock_us().await
    }
}

/// The change that makes a row say this.
fn changed(mandate: &Mandate, row: &Row) -> Result<Change, Failure> {
    let put = Action::Put { owner: row.owner.clone(), body: body(mandate)?, expires_at_us: Some(gone_us(mandate)) };
    Ok(Change::new(MANDATES, row.key.as_str(), Expect::Version(row.version), put))
}

/// What a look at some mandates has found.
#[derive(Debug)]
pub struct Looked {
    /// Those that are over and not told of.
    pub untold: Vec<(Mandate, Row)>,
    /// Those that end when nobody uses them.
    pub may_be_idle: Vec<Mandate>,
    /// After which name to go on, where there are more.
    pub next: Option<String>,
}

/// That this replica is ending a mandate.
#[derive(Debug)]
pub struct Ending<'a> {
    mandates: &'a Mandates,
    id: MandateId,
}

impl Drop for Ending<'_> {
    fn drop(&mut self) {
        self.mandates.ending.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.id);
    }
}

/// The change that ends a mandate of which the record tells that it was over then; nothing where there is none, or it
/// is over.
///
/// # Errors
/// `store_unavailable`.
pub async fn ended(shelf: &dyn Shelf, id: &str, at_s: i64) -> Result<Option<Change>, Failure> {
    let Some(row) = shelf.row(MANDATES, id).await? else { return Ok(None) };
    let mut mandate = read(&row)?;
    if mandate.ended.is_some() {
        return Ok(None);
    }
    mandate.ended = Some(Ended { at_us: at_s.saturating_mul(1_000_000), by: "reconcile".to_owned() });
    let put = Action::Put { owner: row.owner, body: body(&mandate)?, expires_at_us: Some(gone_us(&mandate)) };
    Ok(Some(Change::new(MANDATES, id, Expect::Anything, put)))
}

/// That each of them is as it was read.
pub(in crate::guard) fn unchanged(held: &Held) -> impl Iterator<Item = Change> + '_ {
    held.chain
        .iter()
        .map(|(mandate, version)| Change::new(MANDATES, mandate.id.as_str(), Expect::Version(*version), Action::Check))
}

pub(super) fn gone_us(mandate: &Mandate) -> i64 {
    let kept = i64::try_from(limit::MANDATE_KEPT.as_micros()).unwrap_or(i64::MAX);
    mandate.ends_us.saturating_add(kept)
}

pub(super) fn read(row: &Row) -> Result<Mandate, Failure> {
    // A row that nobody understands allows nothing.
    serde_json::from_str(&row.body).map_err(|error| {
        Failure::before(Reason::StoreUnavailable, format!("the mandate {} cannot be read: {error}", row.key))
    })
}

/// Whether a row says that the end of its mandate is on the record, which is the last that it ever says. Most rows do, and
/// all of them are gone through again and again: they need not be understood for that.
fn is_told(row: &Row) -> bool {
    row.body.ends_with(r#","told":true}"#)
}

pub(super) fn body(mandate: &Mandate) -> Result<String, Failure> {
    serde_json::to_string(mandate).map_err(|error| Failure::before(Reason::Internal, error.to_string()))
}

fn full(what: &str) -> Failure {
    Failure::before(Reason::StoreUnavailable, format!("no more {what} fit"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::mandate::CLOCK;
    use crate::store::{StateDirectory, Store};

    #[tokio::test]
    async fn those_that_expire_together_raise_few_epochs_and_are_found_until_the_record_has_them() {
        let place = tempfile::tempdir().unwrap();
        let state = StateDirectory::open(place.path()).unwrap();
        let store = Store::open(&state, &crate::config::StoreConfig::Sqlite).await.unwrap();
        let mandates = Mandates::new(Arc::new(store.clone()));
        let mandate = |ended_us: Option<i64>| {
            let ended = ended_us.map(|at_us| serde_json::json!({ "at_us": at_us, "by": CLOCK }));
            let said = serde_json::json!({
                "id": MandateId::fresh().to_string(), "holder": Digest::sha256(b"anna"), "opener": "user:corp/anna",
                "opened_us": 0, "ends_us": ended_us.unwrap_or(1), "ended": ended,
            });
            serde_json::from_value::<Mandate>(said).unwrap()
        };
        let keep = async |mandate: &Mandate| {
            let kept = Action::Put { owner: String::new(), body: body(mandate).unwrap(), expires_at_us: None };
            let change = Change::new(MANDATES, mandate.id.as_str(), Expect::Absent, kept);
            assert!(store.change(vec![change], Tell::Nobody).await.unwrap().is_done());
        };
        let count = limit::SHELF_CHANGES_MAX + 3;
        for _ in 0..count {
            keep(&mandate(None)).await;
        }
        let Looked { untold: over, .. } = mandates.untold(None).await.unwrap();
        let expired = mandates.end_all(over.clone(), CLOCK).await.unwrap();
        let epochs: std::collections::BTreeSet<_> = expired.iter().map(|(_, epoch)| *epoch).collect();
        assert_eq!((expired.len(), epochs.len()), (count, 2), "one for each change that they fit into");
        assert!(mandates.end_all(over, CLOCK).await.unwrap().is_empty(), "another replica has seen the same");
        assert!(mandates.untold(None).await.unwrap().untold.is_empty(), "whoever ended them is about to tell");
        // One that was ended before, and whoever did that was stopped before it was on the record.
        let late = mandate(Some(jiff::Timestamp::now().as_microsecond() - 86_400_000_000));
        keep(&late).await;
        let untold = async || {
            mandates.untold(None).await.unwrap().untold.into_iter().map(|(found, _)| found.id).collect::<Vec<_>>()
        };
        assert_eq!(untold().await, std::slice::from_ref(&late.id));
        mandates.tell(std::slice::from_ref(&late.id)).await.unwrap();
        assert!(untold().await.is_empty());
        let row = store.row(MANDATES, late.id.as_str()).await.unwrap().unwrap();
        assert!(read(&row).unwrap().told && is_told(&row), "{}", row.body);
        let boasting = Mandate { purpose: r#"","told":true}"#.to_owned(), ..late };
        assert!(!is_told(&Row { body: body(&boasting).unwrap(), ..row }), "what its opener says is no end of it");
    }
}
