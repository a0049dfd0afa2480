//! Which grants replicas use: what one replica's record does not tell another.
//!
//! Decides what is told, and whether enough is known of a window of time. Refuses to know what becomes of a grant.
//! Invariants: a call pays one look at a place in memory; a grant that was used at any replica which tells is told within
//! seconds for the first time, and once in an hour after that; who does not tell is named.
//!
//! Only replicas that have a store in common tell each other anything: alone, the record says it all.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::{Gateway, Snapshot};
use crate::evidence::{Confidence, GrantUse, Used};
use crate::ids::ReplicaId;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::policy::{GrantId, Permit, Policy};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf, Tell};

/// When each grant was used for the last time, at whichever replica.
const USED: Section = Section { name: "grant_used", rows_max: limit::GRANTS_USED_MAX };
/// Since when each replica tells, and until when it has told.
const TELLS: Section = Section { name: "grants_told", rows_max: limit::REPLICAS_TELLING_MAX };

/// Places in memory for what was used lately; two that share one pay for a lock.
const LATELY: usize = 1_024;

/// What was used here and is not told yet.
pub(super) struct Uses {
    /// Where the names of rules stand that were seen since it was last told.
    lately: [AtomicUsize; LATELY],
    seen: Mutex<Seen>,
}

#[derive(Default)]
struct Seen {
    /// Rules by where their names stand; whose name is kept, nobody else's stands there.
    rules: HashMap<usize, (Arc<str>, Arc<Policy>)>,
    /// When each was told, microseconds since 1970 by the store's clock.
    told: HashMap<GrantId, i64>,
    /// The same of this replica.
    until_us: i64,
}

/// What is known of one replica.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Tells {
    since_us: i64,
    until_us: i64,
}

/// What replicas have told of a window of time.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: HashMap<GrantId, Timestamp>,
    /// Since when all that told do.
    pub(super) since: Option<Timestamp>,
    /// Replicas that live and do not tell.
    pub(super) silent: Vec<ReplicaId>,
}

impl Default for Uses {
    fn default() -> Self {
        Self { lately: std::array::from_fn(|_| AtomicUsize::new(0)), seen: Mutex::default() }
    }
}

impl Uses {
    /// Something was allowed, under that policy.
    pub(super) fn mark(&self, policy: &Arc<Policy>, permit: &Permit) {
        for rule in permit.rules() {
            let address = Arc::as_ptr(rule).cast::<u8>().addr();
            let Some(place) = self.lately.get((address >> 4) % LATELY) else { continue };
            if place.load(Ordering::Relaxed) != address {
                let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.rules.entry(address).or_insert_with(|| (Arc::clone(rule), Arc::clone(policy)));
                place.store(address, Ordering::Relaxed);
            }
        }
    }

    /// What was used since the last time. From now on it is seen anew.
    fn take(&self) -> Vec<(Arc<str>, Arc<Policy>)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for place in &self.lately {
            place.store(0, Ordering::Relaxed);
        }
        std::mem::take(&mut seen.rules).into_values().collect()
    }

    fn give_back(&self, rules: Vec<(Arc<str>, Arc<Policy>)>) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for (rule, policy) in rules {
            seen.rules.entry(Arc::as_ptr(&rule).cast::<u8>().addr()).or_insert((rule, policy));
        }
    }

    /// Which grants have to be told now, and whether that this replica tells has to be as well.
    fn due(&self, rules: &[(Arc<str>, Arc<Policy>)], now_us: i64) -> (Vec<GrantId>, bool) {
        let mut names: HashMap<usize, HashMap<String, GrantId>> = HashMap::new();
        let mut used: BTreeSet<GrantId> = BTreeSet::new();
        for (rule, policy) in rules {
            let of = names
                .entry(Arc::as_ptr(policy).addr())
                .or_insert_with(|| policy.grants().into_iter().map(|grant| (grant.place, grant.id)).collect());
            // A rule about the gateway itself is no grant.
            used.extend(of.get(&**rule).cloned());
        }
        let every_us = us(limit::GRANT_USE_TOLD_EVERY);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        used.retain(|grant| seen.told.get(grant).is_none_or(|told| now_us - told >= every_us));
        let is_due = now_us - seen.until_us >= every_us || !used.is_empty();
        (used.into_iter().collect(), is_due)
    }

    fn told(&self, grants: Vec<GrantId>, now_us: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Grants come and go with the files.
        if seen.told.len() > usize::try_from(limit::GRANTS_USED_MAX).unwrap_or(usize::MAX) {
            seen.told.clear();
        }
        seen.told.extend(grants.into_iter().map(|grant| (grant, now_us)));
        seen.until_us = now_us;
    }
}

impl Told {
    /// The same grants, with what other replicas have told of their use since then.
    pub(super) fn added_to(&self, grants: Vec<GrantUse>, since: Timestamp) -> Vec<GrantUse> {
        let add = |grant: GrantUse| {
            let told = self.last.get(&grant.grant.id).copied().filter(|last| *last >= since);
            match (grant.used, told) {
                (_, None) => grant,
                (Some(used), Some(last)) => {
                    GrantUse { used: Some(Used { last: used.last.max(last), ..used }), ..grant }
                }
                (None, Some(last)) => {
                    GrantUse { used: Some(Used { count: 0, last }), confidence: Confidence::Elsewhere, ..grant }
                }
            }
        };
        grants.into_iter().map(add).collect()
    }
}

impl Gateway {
    /// Something was allowed.
    pub(super) fn used(&self, now: &Snapshot, permit: &Permit) {
        if self.standing.is_shared() {
            self.uses.mark(&now.policy, permit);
        }
    }

    /// Tells which grants were used here since the last time.
    pub(super) async fn tell_of_uses(&self) -> Result<(), Failure> {
        if !self.standing.is_shared() {
            return Ok(());
        }
        let now_us = self.store.clock_us().await?;
        let rules = self.uses.take();
        let (grants, is_due) = self.uses.due(&rules, now_us);
        if !is_due {
            return Ok(());
        }
        let told = self.write_uses(&grants, now_us).await;
        match told {
            Ok(()) => self.uses.told(grants, now_us),
            Err(_) => self.uses.give_back(rules),
        }
        told
    }

    async fn write_uses(&self, grants: &[GrantId], now_us: i64) -> Result<(), Failure> {
        let own = self.store.replica().await?.to_string();
        // Before it was started anew it told as well.
        let before = self.store.row(TELLS, &own).await?.and_then(|row| serde_json::from_str::<Tells>(&row.body).ok());
        let tells = Tells { since_us: before.map_or(now_us, |before| before.since_us), until_us: now_us };
        let until_us = now_us.saturating_add(us(limit::GRANT_USE_KEPT));
        let put = |section, key: &str, body: String| {
            let put = Action::Put { owner: String::new(), body, expires_at_us: Some(until_us) };
            Change::new(section, key, Expect::Anything, put)
        };
        let mut changes: Vec<Change> =
            grants.iter().map(|grant| put(USED, grant.as_str(), now_us.to_string())).collect();
        let body =
            serde_json::to_string(&tells).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        // Last: whoever has told up to then has told all of it.
        changes.push(put(TELLS, &own, body));
        for batch in changes.chunks(limit::SHELF_CHANGES_MAX) {
            if !matches!(self.store.change(batch.to_vec(), Tell::Nobody).await?, Changed::Done { .. }) {
                return Err(Failure::before(Reason::StoreUnavailable, "no more uses of grants fit"));
            }
        }
        Ok(())
    }

    /// What replicas have told, this one included; nothing where there is none but this one.
    pub(super) async fn uses_told(&self) -> Result<Option<Told>, Failure> {
        if !self.standing.is_shared() {
            return Ok(None);
        }
        self.tell_of_uses().await?;
        let at = |us: i64| Timestamp::from_microsecond(us).unwrap_or(Timestamp::MIN);
        let mut told = Told::default();
        for (key, body) in all(&self.store, USED).await? {
            if let (Ok(grant), Ok(last)) = (key.parse::<GrantId>(), body.parse()) {
                told.last.insert(grant, at(last));
            }
        }
        let mut tellers: HashMap<String, Tells> = HashMap::new();
        for (key, body) in all(&self.store, TELLS).await? {
            tellers.extend(serde_json::from_str(&body).ok().map(|tells| (key, tells)));
        }
        told.since = tellers.values().map(|tells| tells.since_us).min().map(at);
        let recent_us = self.store.clock_us().await?.saturating_sub(us(limit::GRANT_USE_TOLD_EVERY * 2));
        let tells =
            |replica: &ReplicaId| tellers.get(&replica.to_string()).is_some_and(|one| one.until_us >= recent_us);
        let members = self.standing.members();
        told.silent = members.iter().map(|member| member.replica).filter(|replica| !tells(replica)).collect();
        Ok(Some(told))
    }
}

/// Tells which grants are used, now and then, and once more at the end.
pub(super) async fn follow_uses(gateway: Arc<Gateway>) {
    let stopping = gateway.stopping();
    loop {
        let is_over = tokio::select! {
            () = stopping.cancelled() => true,
            () = tokio::time::sleep(limit::GRANT_USES_LOOK_INTERVAL) => false,
        };
        if let Err(failure) = gateway.tell_of_uses().await {
            tracing::debug!(%failure, "which grants are used is told later");
        }
        if is_over {
            return;
        }
    }
}

async fn all(shelf: &dyn Shelf, section: Section) -> Result<Vec<(String, String)>, Failure> {
    let mut found = Vec::new();
    let mut after: Option<String> = None;
    loop {
        let rows = shelf.rows(section, None, after.as_deref()).await?;
        let full = rows.len() >= limit::SHELF_ROWS_READ_MAX;
        after = rows.last().map(|row| row.key.clone());
        found.extend(rows.into_iter().map(|row| (row.key, row.body)));
        if !full {
            return Ok(found);
        }
    }
}

fn us(time: Duration) -> i64 {
    i64::try_from(time.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::policy::Grant;

    fn grant(id: &str, used: Option<Used>, confidence: Confidence) -> GrantUse {
        let text = || "x".to_owned();
        let grant = Grant {
            id: id.parse().unwrap(),
            place: text(),
            subject: text(),
            environment: text(),
            object: text(),
            action: text(),
            condition: None,
        };
        GrantUse { grant, used, confidence }
    }

    #[test]
    fn what_others_told_makes_used_what_the_own_record_calls_unused_and_nothing_else() {
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        let ids = ["0123456789abcdef", "1123456789abcdef", "2123456789abcdef", "3123456789abcdef"];
        let told =
            [(0, 50), (1, 50), (2, 5)].map(|(index, second): (usize, i64)| (ids[index].parse().unwrap(), at(second)));
        let told = Told { last: told.into(), ..Told::default() };
        let own = Used { count: 3, last: at(20) };
        let grants = vec![
            grant(ids[0], Some(own), Confidence::Exact),
            grant(ids[1], None, Confidence::Untold),
            grant(ids[2], None, Confidence::Exact),
            grant(ids[3], None, Confidence::Exact),
        ];
        let added = told.added_to(grants, at(10));
        assert_eq!((added[0].used, added[0].confidence), (Some(Used { count: 3, last: at(50) }), Confidence::Exact));
        assert_eq!(
            (added[1].used, added[1].confidence),
            (Some(Used { count: 0, last: at(50) }), Confidence::Elsewhere)
        );
        assert!(added[2].is_unused() && added[3].is_unused(), "before the window, and never");
    }

    /// What was told is kept for as long as a review may look back.
    #[test]
    fn a_use_is_kept_for_longer_than_any_window() {
        assert!(limit::GRANT_USE_KEPT >= limit::REVIEW_KEPT);
    }
}
