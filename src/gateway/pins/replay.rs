//! Pin orders as the journal tells them, put back into a store that has forgotten them.
//!
//! Decides which of them count: rejections, where nothing that the journal tells came later, and first lists, so that none
//! is taken twice. What administrators accepted is left to them. Invariant: an epoch counts as told only where every
//! definition is told that was decided with it.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::Deserialize;

use super::rows::{DECIDED, FIRST_USE, Kept, PinState, Used, UsedPin, batches, counted};
use crate::ids::{DefinitionDigest, PinKind, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Changed, Shelf, Tell};

/// A pin as a line of the journal tells it.
#[derive(Debug, Clone, Deserialize)]
pub struct ToldPin {
    server: ServerId,
    kind: PinKind,
    #[serde(default)]
    name: String,
    digest: DefinitionDigest,
    state: String,
    #[serde(default)]
    actor: String,
    #[serde(default)]
    note: String,
    #[serde(default)]
    epoch: Option<u64>,
    #[serde(default)]
    together: usize,
}

/// What the journal tells of pin orders beyond an epoch.
#[derive(Debug, Default)]
pub struct PinOrders {
    /// How many definitions were decided with an epoch, and which are told.
    epochs: BTreeMap<u64, (usize, HashSet<DefinitionDigest>)>,
    /// What was decided last.
    last: HashMap<DefinitionDigest, (u64, Kept)>,
    /// First lists, whenever they were taken.
    first: BTreeMap<ServerId, Used>,
}

impl ToldPin {
    /// The epoch that includes it; nothing where nobody was told of it.
    #[must_use]
    pub const fn epoch(&self) -> Option<u64> {
        self.epoch
    }
}

impl PinOrders {
    /// Takes in what a line from then tells, seconds since 1970.
    pub fn take(&mut self, told: ToldPin, at: i64) {
        let Some(epoch) = told.epoch else {
            if told.actor == FIRST_USE {
                let used = self.first.entry(told.server).or_default();
                used.at = at;
                used.pins.push(UsedPin { digest: told.digest, kind: told.kind, name: told.name.into() });
            }
            return;
        };
        let state = match told.state.as_str() {
            "accepted" => PinState::Accepted,
            "rejected" => PinState::Rejected,
            _ => return,
        };
        let (together, digests) = self.epochs.entry(epoch).or_default();
        *together = told.together.max(*together);
        digests.insert(told.digest);
        let mut kept = Kept::bare(&told.server, told.kind, &told.name, told.digest);
        kept.says.state = state;
        (kept.says.by, kept.says.note, kept.says.at) = (told.actor, told.note, at);
        let last = self.last.entry(told.digest).or_insert_with(|| (epoch, kept.clone()));
        if last.0 <= epoch {
            *last = (epoch, kept);
        }
    }

    /// Whether everything is told that was decided with an epoch.
    #[must_use]
    pub fn tells(&self, epoch: u64) -> bool {
        self.epochs.get(&epoch).is_some_and(|(together, digests)| digests.len() >= *together)
    }

    /// Puts the rejections back, and first lists where there are none; answers how many rejections. It can be done again.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn apply(&self, shelf: &dyn Shelf) -> Result<usize, Failure> {
        for (server, used) in &self.first {
            let mut changes = used.changes(server);
            if changes.len() > limit::SHELF_CHANGES_MAX {
                changes = Used { pins: Vec::new(), at: used.at }.changes(server);
            }
            if let Changed::Full(_) = shelf.change(changes, Tell::Nobody).await? {
                return Err(Failure::before(Reason::StoreUnavailable, "no more first lists fit"));
            }
        }
        let rejected = self.last.values().filter(|(_, kept)| kept.says.state == PinState::Rejected);
        let changes: Vec<_> = rejected.map(|(_, kept)| vec![kept.change(DECIDED, None)]).collect();
        let count = changes.len();
        if count == 0 {
            return Ok(0);
        }
        for batch in batches(changes.into_iter().chain([vec![counted()]])) {
            if !matches!(shelf.change(batch, Tell::Nobody).await?, Changed::Done { .. }) {
                let told = format!("more than {} definitions are decided on", DECIDED.rows_max);
                return Err(Failure::before(Reason::StoreUnavailable, told));
            }
        }
        Ok(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    fn told(name: &str, state: &str, epoch: Option<u64>, together: usize) -> ToldPin {
        ToldPin {
            server: ServerId::new("git").unwrap(),
            kind: PinKind::Tool,
            name: name.to_owned(),
            digest: DefinitionDigest(Digest::sha256(name.as_bytes())),
            state: state.to_owned(),
            actor: "host:0".to_owned(),
            note: String::new(),
            epoch,
            together,
        }
    }

    #[test]
    fn an_epoch_is_told_by_all_that_was_decided_with_it_and_what_came_last_counts() {
        let mut orders = PinOrders::default();
        orders.take(told("log", "accepted", None, 0), 1);
        orders.take(ToldPin { actor: FIRST_USE.to_owned(), ..told("log", "accepted", None, 0) }, 1);
        assert!(orders.epochs.is_empty() && orders.last.is_empty(), "a first list raises no epoch");
        assert_eq!(orders.first.values().map(|used| used.pins.len()).collect::<Vec<_>>(), [1]);
        orders.take(told("log", "rejected", Some(4), 2), 1);
        assert!(!orders.tells(4), "half of it is missing");
        orders.take(told("push", "rejected", Some(4), 2), 1);
        assert!(orders.tells(4) && !orders.tells(5));
        orders.take(told("log", "accepted", Some(5), 1), 2);
        let rejected: Vec<_> = orders.last.values().filter(|(_, kept)| kept.says.state == PinState::Rejected).collect();
        assert_eq!(rejected.iter().map(|(_, kept)| kept.says.name.as_str()).collect::<Vec<_>>(), ["push"]);
    }
}
