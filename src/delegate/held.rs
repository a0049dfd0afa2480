//! Issued credentials that still work somewhere, whether they are used any more or not.
//!
//! Decides how many there may be, of everybody and of one caller, and for how long each is remembered so that it can be
//! taken back: until it ends by itself. Refuses to know how. Invariants: what is used is held, or it is not used; one
//! caller who has many keeps no other from having one; nothing of this outlives the process.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::issued::Issued;
use super::seconds;
use crate::identity::now_s;
use crate::ids::Digest;
use crate::limit;

/// Whose place a credential takes.
pub(super) type Holder = Digest;

/// What was issued and has not ended, by its name in the ledger, which is in the order of issue.
#[derive(Debug)]
pub(super) struct Held {
    places: Mutex<Places>,
    bytes_max: u64,
}

#[derive(Debug, Default)]
struct Places {
    all: BTreeMap<String, Place>,
    by_end: BTreeSet<(i64, String)>,
    of: HashMap<Holder, BTreeSet<String>>,
    bytes: u64,
}

#[derive(Debug)]
struct Place {
    holder: Holder,
    ends_at: i64,
    bytes: u64,
    /// Nothing before it may be used, and once it is being taken back: it may work until that has come to an end.
    issued: Option<Arc<Issued>>,
}

/// So many are taken back to make room for one.
const SPARE_MAX: usize = limit::CREDENTIALS_REVOKED_AT_ONCE_MAX;

/// Why there is no place for one more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum NoPlace {
    /// This caller has as many as one may have.
    OfThisCaller,
    /// There are as many as there may be.
    AtAll,
}

impl Held {
    pub fn new() -> Self {
        Self::within(limit::CREDENTIALS_HELD_BYTES_MAX)
    }

    pub fn within(bytes_max: u64) -> Self {
        Self { places: Mutex::default(), bytes_max }
    }

    #[cfg(test)]
    pub const fn bytes_max(&self) -> u64 {
        self.bytes_max
    }

    /// A place for one that was issued. Answers those that are to be taken back to make room, whose use has ended, also
    /// where that was not enough.
    pub fn reserve(&self, issued: &Issued, holder: Holder) -> (Vec<Arc<Issued>>, Result<(), NoPlace>) {
        let now = now_s();
        let mut places = self.lock();
        places.forget_what_ended(now);
        let own = places.of.get(&holder).map_or(0, BTreeSet::len);
        let mut spare = Vec::new();
        if own >= limit::CREDENTIALS_PER_CALLER_KEPT {
            let oldest: Vec<String> = places.of.get(&holder).into_iter().flatten().cloned().collect();
            spare.extend(oldest.iter().filter_map(|id| places.take_unused(id, now)).take(SPARE_MAX));
        }
        if own >= limit::CREDENTIALS_PER_CALLER_MAX {
            return (spare, Err(NoPlace::OfThisCaller));
        }
        let bytes = u64::from(issued.weight());
        if places.bytes.saturating_add(bytes) > self.bytes_max {
            // The bytes of what is used no more are given to what is.
            let all: Vec<String> = places.all.keys().cloned().collect();
            spare.extend(all.iter().filter_map(|id| places.take_unused(id, now)).take(SPARE_MAX));
            if places.bytes.saturating_add(bytes) > self.bytes_max {
                return (spare, Err(NoPlace::AtAll));
            }
        }
        places.add(issued, holder, bytes);
        (spare, Ok(()))
    }

    /// Holds one that has a place.
    pub fn hold(&self, issued: &Arc<Issued>) {
        if let Some(place) = self.lock().all.get_mut(&issued.id) {
            place.issued = Some(Arc::clone(issued));
        }
    }

    /// One that was taken back: it works nowhere any more.
    pub fn gone(&self, id: &str) {
        self.lock().forget(id);
    }

    pub fn holds(&self, id: &str) -> bool {
        self.lock().all.get(id).is_some_and(|place| place.issued.is_some())
    }

    /// For which governed tasks something is held.
    pub fn mandates(&self) -> BTreeSet<String> {
        self.lock().all.values().filter_map(|place| place.issued.as_ref()?.mandate.clone()).collect()
    }

    /// Takes out what fits.
    pub fn take(&self, fits: impl Fn(&Issued) -> bool) -> Vec<Arc<Issued>> {
        let mut places = self.lock();
        let mut taken = Vec::new();
        let mut bytes = 0;
        for place in places.all.values_mut() {
            // Two revocations at once take each of them once.
            if let Some(issued) = place.issued.take_if(|issued| fits(issued)) {
                bytes += std::mem::take(&mut place.bytes);
                taken.push(issued);
            }
        }
        places.bytes = places.bytes.saturating_sub(bytes);
        taken
    }

    fn lock(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Place {
    fn is_unused(&self, now: i64) -> bool {
        self.issued.as_ref().is_some_and(|issued| issued.used_until() <= now)
    }
}

impl Places {
    fn add(&mut self, issued: &Issued, holder: Holder, bytes: u64) {
        let id = issued.id.clone();
        let unknown = issued.issued_at.saturating_add(seconds(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT));
        let ends_at = issued.ends().expires_at.unwrap_or(unknown).max(issued.used_until());
        self.by_end.insert((ends_at, id.clone()));
        self.of.entry(holder).or_default().insert(id.clone());
        self.bytes = self.bytes.saturating_add(bytes);
        self.all.insert(id, Place { holder, ends_at, bytes, issued: None });
    }

    fn take_unused(&mut self, id: &str, now: i64) -> Option<Arc<Issued>> {
        let place = self.all.get_mut(id).filter(|place| place.is_unused(now))?;
        self.bytes = self.bytes.saturating_sub(std::mem::take(&mut place.bytes));
        place.issued.take()
    }

    fn forget_what_ended(&mut self, now: i64) {
        while let Some((_, id)) = self.by_end.first().filter(|(ends_at, _)| *ends_at <= now).cloned() {
            self.forget(&id);
        }
    }

    fn forget(&mut self, id: &str) {
        let Some(place) = self.all.remove(id) else { return };
        self.by_end.remove(&(place.ends_at, id.to_owned()));
        self.bytes = self.bytes.saturating_sub(place.bytes);
        if let Some(own) = self.of.get_mut(&place.holder) {
            own.remove(id);
            if own.is_empty() {
                self.of.remove(&place.holder);
            }
        }
    }
}
