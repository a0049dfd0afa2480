//! Which grants replicas use: what one replica's record does not tell another.
//!
//! Decides what is told, and whether enough is known of a window of time. Refuses to know what becomes of a grant.
//! Invariants: a call pays one look at a place in memory; a grant that was used at any replica which tells is told within
//! seconds for the first time, and once in an hour after that for as long as it is used; who does not tell is named, and so is
//! since when all do that did anything in the time that is looked at.
//!
//! Only replicas that have a store in common tell each other anything: alone, the record says it all.

use std::collections::HashMap;
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
    /// Grants whose last use is not told, and when that was seen, microseconds since 1970 by the store's clock.
    untold: HashMap<GrantId, i64>,
    /// When each was told.
    told: HashMap<GrantId, i64>,
    /// The same of this replica.
    until_us: i64,
    /// Since when it tells, once that was looked at.
    since_us: Option<i64>,
}

/// What is known of one replica.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Tells {
    since_us: i64,
    until_us: i64,
}

/// What replicas have told of a window of time.
#[derive(Debug, Default)]
pub(super) struct Told {
    last: HashMap<GrantId, Timestamp>,
    /// Since when all of them do that did anything in that window, beside the own one, whose record says it all.
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

    /// Takes in what was used since the last look. From now on it is seen anew.
    fn look(&self, now_us: i64) {
        let mut names: HashMap<usize, HashMap<String, GrantId>> = HashMap::new();
        let rules = self.take();
        let named = rules.iter().filter_map(|(rule, policy)| {
            let of = names
                .entry(Arc::as_ptr(policy).addr())
                .or_insert_with(|| policy.grants().into_iter().map(|grant| (grant.place, grant.id)).collect());
            // A rule about the gateway itself is no grant.
            of.get(&**rule).cloned()
        });
        let grants: Vec<GrantId> = named.collect();
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        grants.into_iter().for_each(|grant| seen.was_used(grant, now_us));
    }

    fn take(&self) -> Vec<(Arc<str>, Arc<Policy>)> {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        for place in &self.lately {
            place.store(0, Ordering::Relaxed);
        }
        std::mem::take(&mut seen.rules).into_values().collect()
    }

    /// Which grants have to be told now, and of when; nothing where it is enough to tell later.
    fn due(&self, now_us: i64, is_over: bool) -> Option<Vec<(GrantId, i64)>> {
        let every_us = us(limit::GRANT_USE_TOLD_EVERY);
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let is_due = |grant: &GrantId| is_over || seen.told.get(grant).is_none_or(|told| now_us - told >= every_us);
        let due = seen.untold.iter().filter(|(grant, _)| is_due(grant)).map(|(grant, at)| (grant.clone(), *at));
        let due: Vec<_> = due.collect();
        (is_over || now_us - seen.until_us >= every_us || !due.is_empty()).then_some(due)
    }

    fn told(&self, grants: &[(GrantId, i64)], now_us: i64) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        // Grants come and go with the files.
        if seen.told.len() > many() {
            seen.told.clear();
        }
        for (grant, at) in grants {
            seen.told.insert(grant.clone(), now_us);
            // Used again meanwhile, it is told again.
            if seen.untold.get(grant).is_some_and(|last| last <= at) {
                seen.untold.remove(grant);
            }
        }
        seen.until_us = now_us;
    }

    /// Since when this replica tells, if that was looked at since it was started.
    fn since_us(&self) -> Option<i64> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).since_us
    }

    fn tells_since(&self, since_us: i64) {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).since_us = Some(since_us);
    }
}

impl Seen {
    fn was_used(&mut self, grant: GrantId, at: i64) {
        if self.untold.len() < many() || self.untold.contains_key(&grant) {
            let last = self.untold.entry(grant).or_insert(at);
            *last = at.max(*last);
        }
    }
}

/// Since when the use of grants at replicas other than this one is known, of a window that begins then: when the first told
/// anything, or later where one that was there in the window did not tell from its own beginning.
fn known_since(tellers: &[(ReplicaId, Tells)], own: ReplicaId, window_us: i64) -> Option<i64> {
    let soon_us = us(limit::GRANT_USES_TOLD_FROM_THE_START);
    let began_late = |(replica, tells): &&(ReplicaId, Tells)| {
        *replica != own && tells.until_us >= window_us && tells.since_us.saturating_sub(replica.made_us()) > soon_us
    };
    let first = tellers.iter().map(|(_, tells)| tells.since_us).min()?;
    let late = tellers.iter().filter(began_late).map(|(_, tells)| tells.since_us).max();
    Some(late.map_or(first, |late| late.max(first)))
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

    /// Tells which grants were used here since the last time; all of them, where it is the last.
    pub(super) async fn tell_of_uses(&self, is_over: bool) -> Result<(), Failure> {
        if !self.standing.is_shared() {
            return Ok(());
        }
        let now_us = self.store.clock_us().await?;
        self.uses.look(now_us);
        let own = self.store.replica().await?.to_string();
        let since_us = match self.uses.since_us() {
            Some(since_us) => since_us,
            None => self.told_before(&own, now_us).await?,
        };
        self.uses.tells_since(since_us);
        let Some(grants) = self.uses.due(now_us, is_over) else { return Ok(()) };
        let told = grants.iter().map(|(grant, _)| (grant.as_str(), now_us.to_string()));
        let mut changes: Vec<Change> = told.map(|told| put(USED, told, Expect::Anything, now_us)).collect();
        let tells = serde_json::to_string(&Tells { since_us, until_us: now_us });
        let tells = tells.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        // Last: whoever has told up to then has told all of it.
        changes.push(put(TELLS, (&own, tells), Expect::Anything, now_us));
        self.write_uses(&changes).await?;
        self.uses.told(&grants, now_us);
        Ok(())
    }

    /// Since when this replica has told, at the first time since it was started. What was used and not told before it ended, or
    /// while another version of it ran, is in its record.
    async fn told_before(&self, own: &str, now_us: i64) -> Result<i64, Failure> {
        let row = self.store.row(TELLS, own).await?;
        let Some(before) = row.and_then(|row| serde_json::from_str::<Tells>(&row.body).ok()) else { return Ok(now_us) };
        let policy = Arc::clone(&self.snapshot().policy);
        let (not_kept, grants) = match self.grants_since(&policy, at(before.until_us), at(now_us)).await {
            Ok((_, not_kept, grants)) => (not_kept, grants),
            Err(failure) => {
                tracing::warn!(%failure, "what was used before the start cannot be read, and is not told");
                return Ok(now_us);
            }
        };
        let mut changes = Vec::new();
        for GrantUse { grant, used, .. } in grants {
            let Some(last_us) = used.map(|used| used.last.as_microsecond()) else { continue };
            let row = self.store.row(USED, grant.id.as_str()).await?;
            // Others may have used it since.
            if row.as_ref().is_none_or(|row| row.body.parse::<i64>().is_ok_and(|last| last < last_us)) {
                let expect = row.map_or(Expect::Absent, |row| Expect::Version(row.version));
                changes.push(put(USED, (grant.id.as_str(), last_us.to_string()), expect, now_us));
            }
        }
        self.write_uses(&changes).await?;
        Ok(if not_kept == 0 { before.since_us } else { now_us })
    }

    async fn write_uses(&self, changes: &[Change]) -> Result<(), Failure> {
        for batch in changes.chunks(limit::SHELF_CHANGES_MAX) {
            if !matches!(self.store.change(batch.to_vec(), Tell::Nobody).await?, Changed::Done { .. }) {
                let problem = "no more uses of grants fit, or others tell of the same ones";
                return Err(Failure::before(Reason::StoreUnavailable, problem));
            }
        }
        Ok(())
    }

    /// What replicas have told of the time since then, this one included; nothing where there is none but this one.
    pub(super) async fn uses_told(&self, since: Timestamp) -> Result<Option<Told>, Failure> {
        if !self.standing.is_shared() {
            return Ok(None);
        }
        self.tell_of_uses(false).await?;
        let mut told = Told::default();
        for (key, body) in all(&self.store, USED).await? {
            if let (Ok(grant), Ok(last)) = (key.parse::<GrantId>(), body.parse()) {
                told.last.insert(grant, at(last));
            }
        }
        let mut tellers: Vec<(ReplicaId, Tells)> = Vec::new();
        for (key, body) in all(&self.store, TELLS).await? {
            if let (Ok(replica), Ok(tells)) = (key.parse::<ReplicaId>(), serde_json::from_str::<Tells>(&body)) {
                tellers.push((replica, tells));
            }
        }
        let own = self.store.replica().await?;
        told.since = known_since(&tellers, own, since.as_microsecond()).map(at);
        let recent_us = self.store.clock_us().await?.saturating_sub(us(limit::GRANT_USE_TOLD_EVERY * 2));
        let tells = |replica: &ReplicaId| tellers.iter().any(|(own, one)| own == replica && one.until_us >= recent_us);
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
        if let Err(failure) = gateway.tell_of_uses(is_over).await {
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

/// A row that is kept for as long as a review may look back.
fn put(section: Section, (key, body): (&str, String), expect: Expect, now_us: i64) -> Change {
    let until_us = now_us.saturating_add(us(limit::GRANT_USE_KEPT));
    Change::new(section, key, expect, Action::Put { owner: String::new(), body, expires_at_us: Some(until_us) })
}

/// So many grants are kept in mind.
fn many() -> usize {
    usize::try_from(limit::GRANTS_USED_MAX).unwrap_or(usize::MAX)
}

fn at(us: i64) -> Timestamp {
    Timestamp::from_microsecond(us).unwrap_or(Timestamp::MIN)
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

    const HOUR_US: i64 = 3_600_000_000;

    fn used(uses: &Uses, grant: &str, at: i64) {
        uses.seen.lock().unwrap().was_used(grant.parse().unwrap(), at);
    }

    #[test]
    fn what_is_used_within_the_hour_after_it_was_told_is_told_when_the_hour_is_over_or_the_process_ends() {
        let (uses, grant) = (Uses::default(), "0123456789abcdef");
        let id: GrantId = grant.parse().unwrap();
        let nine = 9 * HOUR_US;
        used(&uses, grant, nine);
        let due = uses.due(nine, false).unwrap();
        assert_eq!(due, [(id.clone(), nine)]);
        // Used again while it is written.
        used(&uses, grant, nine + 1);
        uses.told(&due, nine);
        let last = nine + 50 * 60_000_000;
        used(&uses, grant, last);
        used(&uses, grant, nine + 2);
        assert_eq!(uses.due(last, false), None, "it was told within the hour");
        assert_eq!(uses.due(last, true).unwrap(), [(id.clone(), last)], "nobody will tell it later");
        let due = uses.due(nine + HOUR_US, false).unwrap();
        assert_eq!(due, [(id, last)]);
        uses.told(&due, nine + HOUR_US);
        assert_eq!(uses.due(nine + HOUR_US, true).unwrap(), []);
        // That it tells at all is told as well.
        assert_eq!(uses.due(nine + 2 * HOUR_US, false).unwrap(), []);
    }

    #[test]
    fn of_replicas_that_began_to_tell_at_different_times_the_last_says_since_when_all_is_known() {
        let day = |number: i64| number * 24 * HOUR_US;
        let replica = |made: i64, number: u128| {
            let ms = u128::try_from(made / 1_000).unwrap();
            ulid::Ulid((ms << 80) | number).to_string().parse::<ReplicaId>().unwrap()
        };
        let tells = |since_us, until_us| Tells { since_us, until_us };
        let soon = us(limit::GRANT_USES_TOLD_FROM_THE_START);
        let [a, b, c] = [1, 2, 3].map(|number| replica(day(1), number));
        let all = [(a, tells(day(10), day(30))), (b, tells(day(17), day(30)))];
        assert_eq!(known_since(&[], a, day(14)), None);
        assert_eq!(known_since(&all, a, day(14)), Some(day(17)), "what the other used before is not known");
        assert_eq!(known_since(&all, b, day(14)), Some(day(10)), "the own record says it all");
        assert_eq!(known_since(&all, c, day(14)), Some(day(17)));
        // One that is gone since before the window has done nothing in it.
        let gone = [(a, tells(day(10), day(30))), (b, tells(day(11), day(13)))];
        assert_eq!(known_since(&gone, a, day(14)), Some(day(10)));
        assert_eq!(known_since(&gone, a, day(12)), Some(day(11)));
        // One that joined later has told from its first day.
        let joined = [(a, tells(day(10), day(30))), (replica(day(20), 4), tells(day(20) + soon, day(30)))];
        assert_eq!(known_since(&joined, a, day(14)), Some(day(10)));
        let late = [(a, tells(day(10), day(30))), (replica(day(20), 4), tells(day(20) + soon + 1, day(30)))];
        assert_eq!(known_since(&late, a, day(14)), Some(day(20) + soon + 1), "it ran without telling");
    }

    /// What was told is kept for as long as a review may look back.
    #[test]
    fn a_use_is_kept_for_longer_than_any_window() {
        assert!(limit::GRANT_USE_KEPT >= limit::REVIEW_KEPT);
    }
}
