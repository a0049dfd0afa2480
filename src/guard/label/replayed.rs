//! What callers have seen, as a record tells it and a store has forgotten.
//!
//! Decides which rows say less than the record. Refuses to know how the record is read. Invariant: what is replayed only
//! ever adds labels, and of what was taken off since nothing comes back.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rows::{holder, key, raise, raise_mandate};
use super::{CALLERS, MANDATED, Origin, STORES, micros};
use crate::guard::mandate::{MANDATES, Mandate};
use crate::ids::MandateId;
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
}

/// What the intents that were read say together.
#[derive(Debug, Default)]
pub struct Replayed {
    rows: BTreeMap<(Kind, String), (Seen, String)>,
    parents: BTreeMap<String, String>,
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

    /// A row of which the labels were taken off: what was said of it before counts no more.
    pub fn taken_off(&mut self, section: &str, key: &str) {
        for kind in Kind::ALL.into_iter().filter(|kind| kind.section().name == section) {
            self.rows.remove(&(kind, key.to_owned()));
        }
    }

    fn raise(&mut self, kind: Kind, key: String, said: &Said<'_>) {
        let (seen, call) = self.rows.entry((kind, key)).or_insert_with(|| (Seen::NOTHING, String::new()));
        if said.seen.beyond(*seen).is_any() {
            *seen = seen.with(said.seen);
            said.call.clone_into(call);
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
        for (id, (seen, call)) in seen_under {
            let said = Said { call: &call, user: "", agent: "", mandate: None, stores: &[], seen };
            // What is seen below a mandate is seen above it, and by whoever holds either.
            let above = mandates.get(&id).map(|mandate| mandate.above.as_slice()).unwrap_or_default();
            for id in above.iter().map(MandateId::as_str).chain([id.as_str()]) {
                self.raise(Kind::Mandate, id.to_owned(), &said);
                if let Some(mandate) = mandates.get(id) {
                    self.raise(Kind::Caller, holder(mandate), &said);
                }
            }
        }
        let mut changes = Vec::new();
        for ((kind, key), (seen, call)) in self.rows {
            let row = shelf.row(kind.section(), &key).await?;
            let known = row.map_or(Seen::NOTHING, |row| Seen::of_bits(row.number));
            if !seen.beyond(known).is_any() {
                continue;
            }
            let origin = Origin::told(Some(call), now_us);
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
