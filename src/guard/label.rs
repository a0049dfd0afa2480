//! What callers have seen: labels that are only ever added, from the first byte that goes out.
//!
//! Decides whether what a caller has seen keeps a call back, and what the caller has seen once it comes back. Refuses
//! to know which tools do what: `policy` says that. Invariant: what a call brings is added before the call goes out, in
//! the same operation of the store that consumes everything else, so that nothing can be sent on before it counts; what
//! others have put into a store counts for whoever reads it, also what they put there meanwhile.
//!
//! One row for each user, agent and mandate. Most calls add nothing new: then nobody asks the store.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

use super::Wanted;
use super::consume::Reservations;
use crate::ids::{Digest, RevocationEpoch};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::label::{Judged, Labelled, Seen};
use crate::policy::{Arguments, Ask, Permit};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf, Tell};

/// What callers have seen.
pub const CALLERS: Section = Section { name: "label", rows_max: limit::LABELS_MAX };
/// What was put into stores.
pub const STORES: Section = Section { name: "label_store", rows_max: limit::LABEL_STORES_MAX };

/// What is remembered of rows: never more than they say.
#[derive(Clone)]
pub struct Labels {
    shelf: Arc<dyn Shelf>,
    remembered: moka::sync::Cache<Arc<str>, Remembered>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    seen: Seen,
    /// Until when the row need not be renewed.
    fresh_until: Instant,
    epoch: RevocationEpoch,
}

/// What one call does to the labels of its caller.
#[derive(Debug)]
pub struct LabelUse {
    labels: Labels,
    labelled: Labelled,
    key: Arc<str>,
    before: Seen,
    after: Seen,
    observed: Option<Arc<str>>,
    memory: Duration,
    epoch: RevocationEpoch,
}

impl Labels {
    pub(super) fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf, remembered: moka::sync::Cache::new(limit::LABELS_REMEMBERED_MAX) }
    }

    /// What a call does to its caller's labels, and whether they keep it back. Reserves what it adds.
    ///
    /// # Errors
    /// `flow_refused`; `store_unavailable`.
    pub(super) async fn clear(
        &self,
        permit: &Permit,
        wanted: &Wanted<'_>,
        reservations: &mut Reservations,
    ) -> Result<Option<LabelUse>, Stop> {
        let policy = wanted.policy;
        if !policy.has_labels() {
            return Ok(None);
        }
        let (caller, target, now) = (permit.caller(), permit.target(), Timestamp::now());
        let ask = Ask {
            environment: target.environment(),
            server: target.server_id(),
            name: target.name(),
            action: target.action(),
        };
        let arguments = wanted.arguments.map_or(Arguments::None, |arguments| Arguments::Json(arguments.as_str()));
        let hints = target.definition().map(|definition| definition.hints).unwrap_or_default();
        let Some(labelled) = policy.labelled(caller.persona(), &ask, hints, arguments, now) else { return Ok(None) };
        let mandate = wanted.mandate.map(|held| held.mandate().id.as_str());
        let (key, memory, epoch) = (key(permit, mandate), policy.label_memory(), caller.epoch());
        let known = self.remembered.get(&key).filter(|known| known.epoch >= epoch);
        let is_judged = policy.is_judged(&labelled);
        // What is remembered may be less than what holds: whoever is judged is judged by the rows.
        let asked = is_judged || known.is_none() || !labelled.stores.is_empty();
        let before = if asked {
            self.seen(&key, wanted.mandate.filter(|held| !held.is_isolated()).map(|_| permit)).await?
        } else {
            known.map_or(Seen::NOTHING, |known| known.seen)
        };
        let mut observed = None;
        if is_judged {
            match policy.judge_flow(&labelled, before, caller.persona(), arguments, now) {
                Judged::Free => {}
                Judged::Against { .. } if inversion::is_off(Control::Flow) => {}
                Judged::Against { rule, observed: true, .. } => observed = Some(rule),
                Judged::Against { rule, from, .. } => return Err(refused(&rule, from)),
            }
        }
        let mut shown = labelled.shows();
        if labelled.reads_stores() {
            shown = shown.with(self.stored(&labelled).await?);
        }
        let after = before.with(shown);
        let fresh = known.is_some_and(|known| known.fresh_until > Instant::now());
        let adds = after.beyond(known.map_or(Seen::NOTHING, |known| known.seen)).is_any();
        if after.is_any() && (adds || !fresh) {
            // What is seen in a mandate is seen outside as well: nobody opens one to forget.
            if mandate.is_some() {
                let outside = self::key(permit, None);
                reservations.reserve(raise(CALLERS, &outside, after, Some(memory)), Reason::StoreUnavailable);
            }
            let kept = if mandate.is_some() { limit::LABELS_OF_MANDATE_KEPT } else { memory };
            reservations.reserve(raise(CALLERS, &key, after, Some(kept)), Reason::StoreUnavailable);
        }
        if labelled.writes_stores() {
            for store in &labelled.stores {
                reservations
                    .reserve(raise(STORES, store, before.with(labelled.reads()), None), Reason::StoreUnavailable);
            }
        }
        Ok(Some(LabelUse { labels: self.clone(), labelled, key, before, after, observed, memory, epoch }))
    }

    /// What a caller has seen; in a mandate at least what they had seen before it.
    async fn seen(&self, key: &str, outside: Option<&Permit>) -> Result<Seen, Failure> {
        if let Some(row) = self.shelf.row(CALLERS, key).await? {
            return Ok(Seen::of_bits(row.number));
        }
        let Some(permit) = outside else { return Ok(Seen::NOTHING) };
        let row = self.shelf.row(CALLERS, &self::key(permit, None)).await?;
        Ok(row.map_or(Seen::NOTHING, |row| Seen::of_bits(row.number)))
    }

    /// What was put into the stores that a call reads.
    async fn stored(&self, labelled: &Labelled) -> Result<Seen, Failure> {
        let mut seen = Seen::NOTHING;
        if inversion::is_off(Control::Stores) {
            return Ok(seen);
        }
        for store in &labelled.stores {
            let row = self.shelf.row(STORES, store).await?;
            seen = seen.with(row.map_or(Seen::NOTHING, |row| Seen::of_bits(row.number)));
        }
        Ok(seen)
    }
}

impl LabelUse {
    /// What the call does with data.
    #[must_use]
    pub const fn labelled(&self) -> &Labelled {
        &self.labelled
    }

    /// What its caller had seen.
    #[must_use]
    pub const fn before(&self) -> Seen {
        self.before
    }

    /// What its caller has seen once it came back.
    #[must_use]
    pub const fn after(&self) -> Seen {
        self.after
    }

    /// The flow that speaks against it, where that is only written down.
    #[must_use]
    pub fn observed(&self) -> Option<&str> {
        self.observed.as_deref()
    }

    /// Remembers that the row says so now.
    pub(super) fn consumed(&self) {
        let renewed = self.memory.min(limit::LABELS_RENEWED_AFTER_MAX) / 2;
        let remembered = Remembered { seen: self.after, fresh_until: Instant::now() + renewed, epoch: self.epoch };
        self.labels.remembered.insert(Arc::clone(&self.key), remembered);
    }

    /// Whether somebody may have put something into a store while the call read it.
    #[must_use]
    pub fn has_to_settle(&self) -> bool {
        self.labelled.reads_stores()
    }

    /// Adds what was put into the stores meanwhile; before this is done, nobody is told what the call brought.
    ///
    /// # Errors
    /// `store_unavailable`: then nobody is told.
    pub async fn settle(&self) -> Result<(), Failure> {
        let stored = self.labels.stored(&self.labelled).await?;
        if !stored.beyond(self.after).is_any() {
            return Ok(());
        }
        let change = raise(CALLERS, &self.key, stored, None);
        self.labels.remembered.invalidate(&self.key);
        match self.labels.shelf.change(vec![change], Tell::Nobody).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Conflict(_) | Changed::Full(_) => {
                Err(Failure::after(Reason::StoreUnavailable, "what was read from a store could not be labelled"))
            }
        }
    }
}

impl fmt::Debug for Labels {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Labels").finish_non_exhaustive()
    }
}

/// Whose labels: the user and the agent in front, and the mandate. Which of its clients an agent uses makes no
/// difference: it would shed its labels by calling with another one.
fn key(permit: &Permit, mandate: Option<&str>) -> Arc<str> {
    let persona = permit.caller().persona();
    let user = persona.user.as_ref().map_or("anyone", crate::ids::Subject::as_str);
    let agent = persona.agent.as_ref().map(|agent| agent.id.as_str());
    let agent = agent.or(persona.client.as_deref()).unwrap_or("-");
    let text = format!("{user} {agent} {}", mandate.unwrap_or("-"));
    if text.len() <= limit::SHELF_KEY_BYTES_MAX {
        return Arc::from(text);
    }
    let parts = [user.as_bytes(), agent.as_bytes(), mandate.unwrap_or("-").as_bytes()];
    Arc::from(format!("{:.200} {}", user, Digest::of("bailiwick/labels/v1", &parts)))
}

fn raise(section: Section, key: &str, seen: Seen, memory: Option<Duration>) -> Change {
    let expires_at_us = memory.map(|memory| {
        let memory = i64::try_from(memory.as_micros()).unwrap_or(i64::MAX);
        Timestamp::now().as_microsecond().saturating_add(memory)
    });
    Change::new(section, key, Expect::Anything, Action::Raise { bits: seen.bits(), expires_at_us })
}

fn refused(rule: &str, from: Seen) -> Stop {
    let hint = format!("what was seen before ({from}) may not go there; finish without it");
    Refusal::new(Reason::FlowRefused).rule(rule).hint(hint).into()
}
