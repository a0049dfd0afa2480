//! What callers have seen, as a record tells it and a store has forgotten.
//!
//! Decides which rows say less than the record. Refuses to know how the record is read. Invariant: what is replayed only
//! ever adds labels; of what was taken off since nothing comes back, and what was left then is there.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rows::{holder, key, raise, raise_mandate};
use super::{CALLERS, MANDATED, Origin, STORES, micros};
use crate::guard::mandate::{MANDATES, Mandate};
use crate::ids::{MandateId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;
use crate::policy::label::Seen;
use crate::shelf::{Change, Section, Shelf};

/// What the intent of one call says of labels.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The call.
    pub call: &'a str,
    /// For whom, as the record names them.
    pub user: &'a str,
    /// With which agent, or with which client where that is none.
    pub agent: &'a str,
    /// The mandate, and the one above it.
    pub mandate: Option<(&'a str, Option<&'a str>)>,
    /// The stores that it wrote into.
    pub stores: &'a [String],
    /// What the caller has seen once it came back.
    pub seen: Seen,
    /// The epoch that it was decided in.
    pub epoch: RevocationEpoch,
}

/// What the intents that were read say together.
#[derive(Debug, Default)]
pub struct Replayed {
    rows: BTreeMap<(Kind, String), Vec<Told>>,
    parents: BTreeMap<String, String>,
    /// After how many times that labels were taken off of anything, and in which epoch, that was done to a row.
    taken: BTreeMap<(Kind, String), (u64, RevocationEpoch)>,
    times: u64,
}

/// What one call brought.
#[derive(Debug, Clone)]
struct Told {
    seen: Seen,
    call: String,
    epoch: RevocationEpoch,
    /// After how many times that labels were taken off of anything.
    times: u64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Caller,
    Mandate,
    Store,
}

impl Kind {
    const ALL: [Self; 3] = [Self::Caller, Self::Mandate, Self::Store];

    const fn section(self) -> Section {
        match self {
            Self::Caller => CALLERS,
            Self::Mandate => MANDATED,
            Self::Store => STORES,
        }
    }
}

impl Replayed {
    /// One call more, in the order of the record.
    pub fn saw(&mut self, said: &Said<'_>) {
        if !said.seen.is_any() {
            return;
        }
        self.raise(Kind::Caller, key(said.user, said.agent), said);
        for store in said.stores {
            self.raise(Kind::Store, store.clone(), said);
        }
        let Some((own, parent)) = said.mandate else { return };
        if let Some(parent) = parent {
            self.parents.insert(own.to_owned(), parent.to_owned());
        }
        let mut next = Some(own.to_owned());
        for _ in 0..=limit::MANDATE_DEPTH_MAX {
            let Some(id) = next else { break };
            self.raise(Kind::Mandate, id.clone(), said);
            next = self.parents.get(&id).cloned();
        }
    }

    /// A row of which labels were taken off, with the change of that epoch, and what was left: what was said of it before
    /// counts no more, but for what was decided later and stands earlier on the record.
    pub fn taken_off(&mut self, section: &str, key: &str, (epoch, left): (RevocationEpoch, Seen)) {
        self.times += 1;
        for kind in Kind::ALL.into_iter().filter(|kind| kind.section().name == section) {
            let row = (kind, key.to_owned());
            let told = self.rows.entry(row.clone()).or_default();
            for told in told.iter_mut().filter(|told| told.epoch < epoch) {
                // Whoever brought what was left has brought it.
                told.seen = told.seen.beyond(told.seen.beyond(left));
            }
            told.retain(|told| told.seen.is_any());
            let missing = left.beyond(together(told));
            if missing.is_any() {
                told.push(Told { seen: missing, call: String::new(), epoch, times: self.times });
            }
            self.taken.insert(row, (self.times, epoch));
        }
    }

    fn raise(&mut self, kind: Kind, key: String, said: &Said<'_>) {
        let (times, epoch, seen) = (self.times, said.epoch, said.seen);
        self.tell(kind, key, &Told { seen, call: said.call.to_owned(), epoch, times });
    }

    fn tell(&mut self, kind: Kind, key: String, new: &Told) {
        let row = (kind, key);
        // What was seen before the labels were taken off is not brought back by somebody else who has it still.
        let is_over = |(times, epoch): &(u64, RevocationEpoch)| new.times < *times && new.epoch < *epoch;
        if self.taken.get(&row).is_some_and(is_over) {
            return;
        }
        let told = self.rows.entry(row).or_default();
        let as_late = |told: &&Told| told.times >= new.times && told.epoch >= new.epoch;
        if new.seen.beyond(told.iter().filter(as_late).fold(Seen::NOTHING, |all, told| all.with(told.seen))).is_any() {
            // What says no more, and counts no longer, is not needed beside it: a record has any number of epochs.
            told.retain(|old| old.times > new.times || old.epoch > new.epoch || old.seen.beyond(new.seen).is_any());
            told.push(new.clone());
        }
    }

    /// What has to be done so that the rows say it, too; `memory` is how long callers remember, and `now_us` the store's
    /// clock.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn changes(mut self, shelf: &dyn Shelf, memory: Duration, now_us: i64) -> Result<Vec<Change>, Failure> {
        let mandates = self.mandates(shelf).await?;
        let seen_under: Vec<_> = self.rows.iter().filter(|((kind, _), _)| *kind == Kind::Mandate).collect();
        let seen_under: Vec<_> = seen_under.into_iter().map(|((_, id), said)| (id.clone(), said.clone())).collect();
        for (id, told) in seen_under {
            // What is seen below a mandate is seen above it, and by whoever holds either.
            let above = mandates.get(&id).map(|mandate| mandate.above.as_slice()).unwrap_or_default();
            for id in above.iter().map(MandateId::as_str).chain([id.as_str()]) {
                for told in &told {
                    self.tell(Kind::Mandate, id.to_owned(), told);
                    if let Some(mandate) = mandates.get(id) {
                        self.tell(Kind::Caller, holder(mandate), told);
                    }
                }
            }
        }
        let mut changes = Vec::new();
        for ((kind, key), told) in self.rows {
            let seen = together(&told);
            let row = shelf.row(kind.section(), &key).await?;
            let known = row.map_or(Seen::NOTHING, |row| Seen::of_bits(row.number));
            if !seen.beyond(known).is_any() {
                continue;
            }
            let call = told.into_iter().rev().map(|told| told.call).find(|call| !call.is_empty());
            let origin = Origin::told(call, now_us);
            changes.push(match (kind, mandates.get(&key)) {
                (Kind::Mandate, Some(mandate)) => raise_mandate(mandate, seen, memory, &origin),
                (Kind::Store, _) => raise(STORES, key, seen, None, &origin),
                (kind, _) => raise(kind.section(), key, seen, Some(now_us.saturating_add(micros(memory))), &origin),
            });
        }
        Ok(changes)
    }

    /// Those of the mandates, and of those above them, that the store has.
    async fn mandates(&self, shelf: &dyn Shelf) -> Result<BTreeMap<String, Mandate>, Failure> {
        let mut found: BTreeMap<String, Mandate> = BTreeMap::new();
        let named = self.rows.keys().filter(|(kind, _)| *kind == Kind::Mandate);
        let mut named: Vec<String> = named.map(|(_, id)| id.clone()).collect();
        while let Some(id) = named.pop() {
            let row = if found.contains_key(&id) { None } else { shelf.row(MANDATES, &id).await? };
            if let Some(mandate) = row.and_then(|row| serde_json::from_str::<Mandate>(&row.body).ok()) {
                named.extend(mandate.above.iter().map(ToString::to_string));
                found.insert(id, mandate);
            }
        }
        Ok(found)
    }
}

fn together(told: &[Told]) -> Seen {
    told.iter().fold(Seen::NOTHING, |all, told| all.with(told.seen))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(seen: Seen, epoch: u64) -> Said<'static> {
        let epoch = RevocationEpoch(epoch);
        Said { call: "c", user: "user:corp/anna", agent: "bot", mandate: None, stores: &[], seen, epoch }
    }

    fn seen(read: &Replayed, kind: Kind, key: &str) -> Seen {
        read.rows.get(&(kind, key.to_owned())).map_or(Seen::NOTHING, |told| together(told))
    }

    #[test]
    fn however_many_epochs_a_record_has_each_row_keeps_what_counts_longest() {
        let own = key("user:corp/anna", "bot");
        let row = (Kind::Caller, own.clone());
        let mut read = Replayed::default();
        for epoch in 0..20_000 {
            read.saw(&said(if epoch % 2 == 0 { Seen::PRIVATE } else { Seen::UNTRUSTED }, epoch));
        }
        assert_eq!(read.rows[&row].len(), 2, "the latest of each");
        // What came before is no reason to keep what is taken off now, and the latest stays.
        read.taken_off(CALLERS.name, &own, (RevocationEpoch(19_999), Seen::NOTHING));
        assert_eq!(seen(&read, Kind::Caller, &own), Seen::UNTRUSTED);
        read.saw(&said(Seen::PRIVATE.with(Seen::UNTRUSTED), 20_000));
        assert_eq!(read.rows[&row].len(), 1);
        // One of an earlier epoch that says more stays beside it.
        read.saw(&said(Seen::REGULATED, 19_999));
        read.saw(&said(Seen::PRIVATE, 20_001));
        assert_eq!(read.rows[&row].len(), 3);
        let all = Seen::PRIVATE.with(Seen::UNTRUSTED).with(Seen::REGULATED);
        assert_eq!(seen(&read, Kind::Caller, &own), all);
    }

    #[test]
    fn what_was_left_when_a_label_was_taken_off_is_there() {
        let own = key("user:corp/anna", "bot");
        let both = Seen::PRIVATE.with(Seen::UNTRUSTED);
        let mut read = Replayed::default();
        read.saw(&said(both, 3));
        read.taken_off(CALLERS.name, &own, (RevocationEpoch(4), Seen::UNTRUSTED));
        assert_eq!(seen(&read, Kind::Caller, &own), Seen::UNTRUSTED);
        // Also where whatever brought it was not read.
        let mut read = Replayed::default();
        read.taken_off(CALLERS.name, &own, (RevocationEpoch(4), Seen::UNTRUSTED));
        assert_eq!(seen(&read, Kind::Caller, &own), Seen::UNTRUSTED);
        // What was decided afterwards counts, in whichever order the two lines came.
        read.saw(&said(Seen::REGULATED, 5));
        read.taken_off(CALLERS.name, &own, (RevocationEpoch(5), Seen::NOTHING));
        assert_eq!(seen(&read, Kind::Caller, &own), Seen::REGULATED);
    }
}
