//! What callers have seen: labels that are only ever added, from the first byte that goes out.
//!
//! Decides whether what a caller has seen keeps a call back, and what the caller has seen once it comes back. Refuses
//! to know which tools do what: `policy` says that. Invariant: what a call brings is added before the call goes out, in
//! the same operation of the store that consumes everything else, so that nothing can be sent on before it counts; what
//! others have put into a store counts for whoever reads it, also what they put there meanwhile.
//!
//! One row for each user and agent, and one for each mandate. What is seen under a mandate is seen under those above it
//! and by whoever holds them, and what was seen there is seen below: whoever gives a task hands on what it knows, and
//! gets back what comes of it. Most calls add nothing new: then nobody asks the store.

mod again;
mod carried;
mod declassify;
mod origin;
mod replayed;
mod rows;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;

pub(super) use again::stands;
pub use carried::{Carrier, CarrierKind};
pub use declassify::{Declassification, Declassified, Wish};
pub use origin::Origin;
pub use replayed::{Replayed, Said};
use rows::{Rows, raise_mandate};

use super::Wanted;
use super::consume::Reservations;
use super::mandate::{Held, Mandate};
use crate::identity::{Caller, Persona};
use crate::ids::{CallId, RevocationEpoch};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::label::{Asked, Judged, Labelled, Seen};
use crate::policy::{Permit, Policy};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell, Version};

/// What callers have seen.
pub const CALLERS: Section = Section { name: "label", rows_max: limit::LABELS_MAX };
/// What was seen under mandates. There are never more of these than of mandates.
pub const MANDATED: Section = Section { name: "label_mandate", rows_max: limit::MANDATES_MAX };
/// What was put into stores.
pub const STORES: Section = Section { name: "label_store", rows_max: limit::LABEL_STORES_MAX };

/// Everything that a change may speak of which takes labels off.
pub const SECTIONS: [Section; 4] = [CALLERS, MANDATED, STORES, declassify::ASKED];

/// What is remembered of rows: never more than they say.
#[derive(Clone)]
pub struct Labels {
    shelf: Arc<dyn Shelf>,
    remembered: moka::sync::Cache<Arc<str>, Remembered>,
}

#[derive(Debug, Clone, Copy)]
struct Remembered {
    seen: Seen,
    /// Until when the rows need not be renewed.
    fresh_until: Instant,
    /// From when on a row may be gone: then it is read again, so that nothing comes back that has expired.
    until_us: i64,
    epoch: RevocationEpoch,
}

/// A store that a call reads or writes, as it is now.
#[derive(Debug)]
struct Touched {
    name: Arc<str>,
    read: bool,
    seen: Seen,
    version: Option<Version>,
}

/// What one call does to the labels of its caller.
#[derive(Debug)]
pub struct LabelUse {
    labels: Labels,
    labelled: Labelled,
    rows: Rows,
    before: Seen,
    after: Seen,
    /// By what it was judged, where it was.
    judged: Option<Seen>,
    observed: Option<Arc<str>>,
    /// What persons have to be asked before it goes where it goes.
    asked: Option<Asked>,
    /// Who brings what it brings, by which call.
    caller: Caller,
    call: CallId,
    memory: Duration,
    /// When it was cleared, by the store's clock, and how long that is ago.
    began: (i64, Instant),
    epoch: RevocationEpoch,
    /// Whether the rows are raised by it.
    raises: bool,
}

impl Labels {
    /// Nothing is remembered yet.
    #[must_use]
    pub fn new(shelf: Arc<dyn Shelf>) -> Self {
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
        let (caller, now) = (permit.caller(), Timestamp::now());
        // What was answered goes out as well, and the arguments do not tell of it; to ask about a task sends nothing.
        let sends = wanted.answers || !permit.is_following();
        let arguments = again::arguments(permit, wanted);
        let Some(labelled) = again::labelled(permit, wanted, now) else { return Ok(None) };
        let rows = Rows::of(caller.persona(), wanted.mandate);
        let (memory, epoch) = (policy.label_memory(), caller.epoch());
        let is_known = |known: &Remembered| known.epoch >= epoch && known.until_us > wanted.now_us;
        let known = self.remembered.get(&rows.own).filter(is_known);
        let is_judged = sends && policy.is_judged(&labelled);
        // What is remembered may be less than what holds: whoever is judged is judged by the rows, and so is what
        // others will read.
        let is_exact = is_judged || (sends && labelled.writes_stores());
        let known_enough = known.filter(|_| !is_exact);
        let nothing = Labelled::default();
        let touches = if sends { &labelled } else { &nothing };
        let looked_for = known_enough.is_none().then_some(&rows);
        let (found, touched) = self.look(looked_for, touches, touches.writes_stores()).await?;
        let before = known_enough.map_or(found, |known| known.seen);
        let read = read_of(&touched);
        let (mut observed, mut asked, mut is_kept) = (None, None, false);
        if is_judged {
            // A tool that reads from a store and sends on in one step sends what is there.
            match policy.judge_flow(&labelled, before.with(read), caller.persona(), arguments, now) {
                Judged::Free => is_kept = policy.enforces_flows() && !inversion::is_off(Control::Flow),
                Judged::Against { .. } if inversion::is_off(Control::Flow) => {}
                Judged::Asks(_) if inversion::is_off(Control::Flow) => {}
                Judged::Against { rule, observed: true, .. } => observed = Some(rule),
                Judged::Against { rule, from, .. } => return Err(refused(&rule, from, "").into()),
                Judged::Asks(persons) => (asked, is_kept) = (Some(persons), true),
            }
        }
        let judged = is_judged.then(|| before.with(read));
        let after = before.with(labelled.shows()).with(read);
        let began = (wanted.now_us, Instant::now());
        let fresh = known.is_some_and(|known| known.fresh_until > began.1);
        let adds = after.beyond(known.map_or(Seen::NOTHING, |known| known.seen)).is_any();
        let raises = after.is_any() && (adds || !fresh);
        if known.is_none() && !after.is_any() {
            // Nothing is never more than the rows say; they are looked at again as often as others are renewed.
            let until_us = wanted.now_us.saturating_add(micros(renewed_after(memory)));
            let nothing = Remembered { seen: after, fresh_until: began.1, until_us, epoch };
            self.remembered.insert(Arc::clone(&rows.own), nothing);
        }
        if raises {
            for change in rows.raise(after, memory, &Origin::of(caller, Some(wanted.call), wanted.now_us)) {
                reservations.reserve(change, Reason::StoreUnavailable);
            }
        }
        for store in &touched {
            // What it was judged by has to be what is there when it goes out.
            let expect = match store.version {
                _ if !is_kept || !store.read => Expect::Anything,
                Some(version) => Expect::Version(version),
                None => Expect::Absent,
            };
            let writes = labelled.writes_stores() && after.beyond(store.seen).is_any();
            let note = || Origin::of(caller, Some(wanted.call), wanted.now_us).line(after);
            let action = if writes {
                Action::Raise { bits: after.bits(), expires_at_us: None, note: Some(note()) }
            } else {
                Action::Check
            };
            if writes || expect != Expect::Anything {
                let reason = if expect == Expect::Anything { Reason::StoreUnavailable } else { Reason::FlowRefused };
                reservations.reserve(Change::new(STORES, &*store.name, expect, action), reason);
            }
        }
        let (labels, caller, call) = (self.clone(), caller.clone(), wanted.call);
        Ok(Some(LabelUse {
            labels,
            labelled,
            rows,
            before,
            after,
            judged,
            observed,
            asked,
            caller,
            call,
            memory,
            began,
            epoch,
            raises,
        }))
    }

    /// What a mandate begins with: what its opener has seen, wherever that was. Nothing where it begins without.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn handed_on(
        &self,
        policy: &Policy,
        opener: &Caller,
        above: Option<&Held>,
        mandate: &Mandate,
    ) -> Result<Option<Change>, Failure> {
        if !policy.has_labels() || mandate.isolated {
            return Ok(None);
        }
        let seen = self.seen(&Rows::of(opener.persona(), above)).await?;
        let origin = Origin::of(opener, None, mandate.opened_us);
        Ok(seen.is_any().then(|| raise_mandate(mandate, seen, policy.label_memory(), &origin)))
    }

    /// What a caller has seen, as the rows say it now.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn seen_by(&self, persona: &Persona, mandate: Option<&Held>) -> Result<Seen, Failure> {
        self.seen(&Rows::of(persona, mandate)).await
    }

    /// What a caller has seen: by itself and, under a mandate, wherever that hands it on.
    async fn seen(&self, rows: &Rows) -> Result<Seen, Failure> {
        Ok(self.look(Some(rows), &Labelled::default(), false).await?.0)
    }

    /// The same where it is asked for, and the stores that a call reads, and those that it writes, as they are now: one
    /// look at all of them, or none where there is nothing to look at.
    async fn look(
        &self,
        rows: Option<&Rows>,
        labelled: &Labelled,
        written: bool,
    ) -> Result<(Seen, Vec<Touched>), Failure> {
        let mut names = rows.map(Rows::read).unwrap_or_default();
        let own = names.len();
        let stores: Vec<_> = labelled.stores.iter().filter(|store| written || labelled.reads_from(store)).collect();
        names.extend(stores.iter().map(|store| (STORES, store.name.to_string())));
        let mut found = match names.as_slice() {
            [] => return Ok((Seen::NOTHING, Vec::new())),
            [(section, key)] => vec![self.shelf.row(*section, key).await?],
            names => self.shelf.named(names).await?,
        };
        let touched = found.split_off(own.min(found.len()));
        let of = |row: &Option<Row>| row.as_ref().map_or(Seen::NOTHING, |row| Seen::of_bits(row.number));
        let seen = found.iter().map(of).fold(Seen::NOTHING, Seen::with);
        let touched = stores.into_iter().zip(touched).map(|(store, row)| Touched {
            name: Arc::clone(&store.name),
            read: labelled.reads_from(store) && !inversion::is_off(Control::Stores),
            seen: of(&row),
            version: row.map(|row| row.version),
        });
        Ok((seen, touched.collect()))
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

    /// What persons have to be asked before it goes where it goes.
    #[must_use]
    pub const fn asked(&self) -> Option<&Asked> {
        self.asked.as_ref()
    }

    /// What has to be written as well where another epoch is in force than the call was judged as: what was remembered of
    /// the rows may be more than they say now, because somebody took a label off.
    pub(super) fn renewed(&self, epoch: RevocationEpoch) -> Vec<Change> {
        let brings = self.labelled.shows();
        if epoch == self.epoch || self.raises || !brings.is_any() {
            return Vec::new();
        }
        self.rows.raise(brings, self.memory, &self.origin())
    }

    fn origin(&self) -> Origin {
        let (at_us, moment) = self.began;
        Origin::of(&self.caller, Some(self.call), at_us.saturating_add(micros(moment.elapsed())))
    }

    /// Remembers that the rows say so now.
    pub(super) fn consumed(&self) {
        if !self.raises {
            return;
        }
        let remembered = Remembered {
            seen: self.after,
            fresh_until: Instant::now() + renewed_after(self.memory),
            until_us: self.began.0.saturating_add(micros(self.memory)),
            epoch: self.epoch,
        };
        self.labels.remembered.insert(Arc::clone(&self.rows.own), remembered);
    }

    /// Whether somebody may have put something into a store while the call read it, or have taken a label off that what
    /// comes back now brings once more.
    #[must_use]
    pub fn has_to_settle(&self, epoch: RevocationEpoch) -> bool {
        self.labelled.reads_stores() || (epoch != self.epoch && self.labelled.shows().is_any())
    }

    /// Whether what comes back counts for the caller at all.
    #[must_use]
    pub fn brings_something(&self) -> bool {
        self.labelled.reads_stores() || self.labelled.shows().is_any()
    }

    /// Adds what was put into the stores meanwhile, and what it brings where another epoch is in force now; before this is
    /// done, nobody is told what the call brought.
    ///
    /// # Errors
    /// `store_unavailable`: then nobody is told.
    pub async fn settle(&self, epoch: RevocationEpoch) -> Result<(), Failure> {
        let read = read_of(&self.labels.look(None, &self.labelled, false).await?.1);
        let brought = if epoch == self.epoch { read } else { read.with(self.labelled.shows()) };
        if !brought.is_any() || (epoch == self.epoch && !read.beyond(self.after).is_any()) {
            return Ok(());
        }
        self.labels.remembered.invalidate(&self.rows.own);
        let raised = self.rows.raise(brought, self.memory, &self.origin());
        match self.labels.shelf.change(raised, Tell::Nobody).await? {
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

/// What is in the stores of these that are read.
fn read_of(touched: &[Touched]) -> Seen {
    touched.iter().filter(|store| store.read).fold(Seen::NOTHING, |read, store| read.with(store.seen))
}

/// After this, whoever goes on calling has its labels written down again.
fn renewed_after(memory: Duration) -> Duration {
    memory.min(limit::LABELS_RENEWED_AFTER_MAX) / 2
}

fn micros(span: Duration) -> i64 {
    i64::try_from(span.as_micros()).unwrap_or(i64::MAX)
}

/// What whoever calls is told: what it was that may not go there, and what can be done.
pub(super) fn refused(rule: &str, from: Seen, why: &str) -> Refusal {
    let hint = format!(
        "what was seen before ({from}) may not go there{why}; finish without it, or have two administrators take the label \
         off (bailiwick labels declassify)"
    );
    Refusal::new(Reason::FlowRefused).rule(rule).hint(hint)
}
