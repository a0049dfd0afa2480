//! Decides what a permitted call may use right now: a slot among the caller's calls in flight.
//! Refuses to know rules and tokens.
//!
//! Mandates, budgets, labels and approvals reserve here too, one after the other; what is reserved is consumed in
//! `record.open`, all of it in one operation of the store, between the durable intent and the first byte that goes out.
//! Invariant: a [`Cleared`] holds everything that was reserved for it, and gives it back when it is dropped.

pub mod approval;
pub mod breaker;
mod budget;
mod consume;
mod flow;
pub mod label;
pub mod mandate;
mod party;
pub mod quota;

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;

pub use budget::{Left, UsedUp, replayed as used_up_again};

use crate::config::{AgentConfig, Config};
use crate::ids::{CallId, LegId, RevocationEpoch, ServerId, TemplateName};
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{Permit, Policy};
use crate::record::Journal;
use crate::record::event::ChargeNote;
use crate::shelf::Shelf;
use crate::wire::Json;
pub use approval::{Approvals, Gated, Said, Used};
pub use consume::Reservations;
use label::{LabelUse, Labels};
pub use party::Party;
pub use quota::{Quotas, Slot};

/// The room: what callers use, and what is kept of it.
#[derive(Debug)]
pub struct Guard {
    quotas: Quotas,
    labels: Labels,
    shelf: Arc<dyn Shelf>,
    mandates: mandate::Mandates,
    breaker: breaker::Breaker,
    approvals: Approvals,
}

/// What a permitted call is about, beside what the permit says.
#[derive(Clone, Copy)]
pub struct Wanted<'a> {
    /// The call; its legs have it in common.
    pub call: CallId,
    /// Its arguments.
    pub arguments: Option<&'a Json>,
    /// Whether answers to what a server asked go with it, of which the arguments say nothing.
    pub answers: bool,
    /// The mandate that it names.
    pub mandate: Option<&'a mandate::Held>,
    /// What the gates need that it meets; a call that meets some and brings nothing is refused.
    pub gated: Option<Gated<'a>>,
    /// What the files say of agents and templates.
    pub config: &'a Config,
    /// What objects and conditions mean.
    pub policy: &'a Policy,
    /// Whether it is counted.
    pub charge: Charge,
    /// The moment by the store's clock.
    pub now_us: i64,
}

/// Whether a request is counted against budgets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It begins a call.
    Now,
    /// The call that it goes on with was counted when it began.
    Before,
    /// The same, with answers to what a server asked in that round, which can be given until then (since 1970). Nothing
    /// waits for them that could be answered only once, so that is seen to where something is counted.
    Answer {
        /// Which round of questions.
        round: u32,
        /// Until when.
        until: Duration,
    },
}

/// The proof of the fourth stage: permitted, and what it needs is reserved. Handed on in a box: it is large, and what is
/// moved through the stages is copied each time.
#[derive(Debug)]
pub struct Cleared {
    permit: Permit,
    call: CallId,
    /// Answers to what a server asked go with it.
    answers: bool,
    /// It only stops a task.
    stops: bool,
    slot: Slot,
    labels: Option<Box<LabelUse>>,
    reservations: Reservations,
    mandate: Option<mandate::Held>,
    /// Who answers for the agent that calls.
    agent: Option<Arc<AgentConfig>>,
    approval: Option<Box<Used>>,
    charge: Charge,
    /// What it has used up of budgets, once that is done.
    charged: OnceLock<Vec<ChargeNote>>,
}

impl Guard {
    /// Nobody uses anything yet.
    #[must_use]
    pub fn new(quotas: Quotas, shelf: Arc<dyn Shelf>, approvals: Approvals) -> Self {
        let labels = Labels::new(Arc::clone(&shelf));
        let mandates = mandate::Mandates::new(Arc::clone(&shelf));
        let breaker = breaker::Breaker::new(Arc::clone(&shelf));
        Self { quotas, labels, shelf, mandates, breaker, approvals }
    }

    /// What waits for a person, and what was approved.
    #[must_use]
    pub const fn approvals(&self) -> &Approvals {
        &self.approvals
    }

    /// What principals use.
    #[must_use]
    pub const fn quotas(&self) -> &Quotas {
        &self.quotas
    }

    /// Reserves what a permitted call needs. Only a call that needs what is kept in the store waits for it.
    ///
    /// # Errors
    /// `tool_suspended`, `concurrency_limited`, `flow_refused`, `store_unavailable`; `mandate_required`, `mandate_ended`,
    /// `mandate_scope`;
    /// what [`Approvals::clear`] says of a call that meets gates.
    pub async fn clear(&self, permit: Permit, wanted: Wanted<'_>) -> Result<Box<Cleared>, Stop> {
        mandate::check(&permit, &wanted)?;
        if wanted.charge == Charge::Now {
            self.breaker.admits(permit.target())?;
        }
        let slot = self.quotas.call(permit.caller().principal())?;
        let mut reservations = Reservations::none(Arc::clone(&self.shelf));
        // Boxed, so that a call of which nothing is labelled does not carry its room around.
        let labels = match wanted.policy.has_labels() {
            true => Box::pin(self.labels.clear(&permit, &wanted, &mut reservations)).await?.map(Box::new),
            false => None,
        };
        let (permit, gated) = flow::asking(permit, labels.as_deref(), &wanted)?;
        budget::reserve(&mut reservations, &permit, &wanted);
        approval::reserve_emergency(permit.caller(), &mut reservations);
        // Last: nobody is asked about what is refused all the same.
        let approval = match (permit.gates(), gated) {
            ([], _) => None,
            (_, Some(gated)) => {
                let mandate = wanted.mandate.map(mandate::Held::mandate);
                let gated = Gated {
                    mandate: mandate.map(|mandate| mandate.id.as_str()),
                    template: mandate.and_then(|mandate| mandate.template.as_ref()).map(TemplateName::as_str),
                    irreversible: approval::is_irreversible(&permit, &wanted),
                    now_us: wanted.now_us,
                    ..gated
                };
                let openers = wanted.mandate.map(mandate::Held::openers).unwrap_or_default();
                // Boxed, so that a call that meets no gate does not carry its room around.
                let used =
                    Box::pin(self.approvals.clear(&permit, gated, openers, wanted.policy, &mut reservations)).await;
                Some(Box::new(used.map_err(|stop| flow::told(stop, labels.as_deref()))?))
            }
            (_, None) => return Err(Refusal::new(Reason::ApprovalRequired).into()),
        };
        Ok(Box::new(Cleared { labels, approval, ..Cleared::new(permit, slot, reservations, &wanted) }))
    }

    /// Reserves what following a task or a resource needs, which is no call of its own: a slot, and what comes back
    /// counts for its caller once more. Its mandate still has to stand, and answers may still not go anywhere.
    ///
    /// # Errors
    /// As [`Guard::clear`].
    pub async fn clear_following(&self, permit: Permit, wanted: &Wanted<'_>) -> Result<Box<Cleared>, Stop> {
        mandate::check(&permit, wanted)?;
        let slot = self.quotas.call(permit.caller().principal())?;
        let mut reservations = Reservations::none(Arc::clone(&self.shelf));
        let labels = Box::pin(self.labels.clear(&permit, wanted, &mut reservations)).await?.map(Box::new);
        flow::unasked(labels.as_deref())?;
        approval::reserve_emergency(permit.caller(), &mut reservations);
        Ok(Box::new(Cleared { labels, ..Cleared::new(permit, slot, reservations, wanted) }))
    }

    /// What callers have seen.
    #[must_use]
    pub const fn labels(&self) -> &Labels {
        &self.labels
    }

    /// The same for what only stops a task: it needs no mandate, because whoever ends one wants exactly that.
    ///
    /// # Errors
    /// `concurrency_limited`.
    pub fn clear_stopping(&self, permit: Permit, wanted: &Wanted<'_>) -> Result<Box<Cleared>, Stop> {
        let slot = self.quotas.call(permit.caller().principal())?;
        let reservations = Reservations::none(Arc::clone(&self.shelf));
        let wanted = Wanted { mandate: None, ..*wanted };
        Ok(Box::new(Cleared { stops: true, ..Cleared::new(permit, slot, reservations, &wanted) }))
    }

    /// What happens to agents.
    #[must_use]
    pub const fn breaker(&self) -> &breaker::Breaker {
        &self.breaker
    }

    /// Mandates, as they are kept.
    #[must_use]
    pub const fn mandates(&self) -> &mandate::Mandates {
        &self.mandates
    }

    /// Counts a call that was sent under a mandate, where it was not counted before, and the bytes of a result.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn came(
        &self,
        held: &mandate::Held,
        server: &ServerId,
        is_new: bool,
        bytes: usize,
    ) -> Result<(), Failure> {
        let bytes = i64::try_from(bytes).unwrap_or(i64::MAX);
        budget::came(self.shelf.as_ref(), held, server, (i64::from(is_new), bytes)).await
    }

    /// How many calls were made under a mandate and those below it, by server.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn by_server(&self, mandate: &mandate::Mandate) -> Result<Vec<(String, i64)>, Failure> {
        budget::by_server(self.shelf.as_ref(), mandate).await
    }

    /// What is left of a mandate's own budget.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn left(&self, mandate: &mandate::Mandate) -> Result<Left, Failure> {
        budget::left(self.shelf.as_ref(), mandate).await
    }
}

impl Cleared {
    fn new(permit: Permit, slot: Slot, reservations: Reservations, wanted: &Wanted<'_>) -> Self {
        let agent = permit.caller().persona().agent.as_ref();
        let agent = agent.and_then(|agent| wanted.config.agents.get(&agent.id)).cloned();
        let (mandate, charged) = (wanted.mandate.cloned(), OnceLock::new());
        let Wanted { call, answers, charge, .. } = *wanted;
        Self {
            permit,
            call,
            answers,
            stops: false,
            slot,
            labels: None,
            reservations,
            mandate,
            agent,
            approval: None,
            charge,
            charged,
        }
    }

    /// Whether it would be cleared under other files as it was: part of its mandate as its template is now, and with data
    /// that may go where it goes.
    ///
    /// # Errors
    /// `mandate_required`, `mandate_ended`, `mandate_scope`; `flow_refused`.
    pub fn stands(
        &self,
        arguments: Option<&Json>,
        (config, policy): (&Config, &Policy),
        now_us: i64,
    ) -> Result<(), Refusal> {
        // A brake works whatever became of the rest.
        if self.stops {
            return Ok(());
        }
        let wanted = Wanted {
            call: self.call,
            arguments,
            answers: self.answers,
            mandate: self.mandate.as_ref(),
            gated: None,
            config,
            policy,
            charge: self.charge,
            now_us,
        };
        mandate::check(&self.permit, &wanted)?;
        label::stands(self.labels.as_deref(), &self.permit, &wanted)
    }

    /// Who answers for the agent that calls, as files spell them.
    #[must_use]
    pub fn agent_owner(&self) -> Option<&str> {
        self.agent.as_ref().map(|agent| agent.owner.as_str())
    }

    /// The decision that this rests on.
    #[must_use]
    pub const fn permit(&self) -> &Permit {
        &self.permit
    }

    /// The slot among the caller's calls; it is free again when this is dropped.
    #[must_use]
    pub const fn slot(&self) -> &Slot {
        &self.slot
    }

    /// The mandate that it is part of.
    #[must_use]
    pub const fn mandate(&self) -> Option<&mandate::Held> {
        self.mandate.as_ref()
    }

    /// Whether something about it hung on what its caller says: a condition, a mandate, what its caller has read, or what
    /// persons were shown. Nobody has looked at what is said after that.
    #[must_use]
    pub fn hangs_on_words(&self) -> bool {
        let is_read = !self.permit.condition_values().is_empty();
        is_read || self.mandate.is_some() || self.labels().is_some() || self.approval.is_some()
    }

    /// What it uses of what persons said.
    #[must_use]
    pub fn approval(&self) -> Option<&Used> {
        self.approval.as_deref()
    }

    /// Tells of what persons said that it has used up, and of an emergency in which it is done, once that was consumed.
    pub fn tell(&self, journal: &Journal, of: (CallId, LegId)) {
        if let Some(used) = &self.approval {
            used.tell(journal, of);
        }
        let caller = self.permit.caller();
        if caller.elevation().is_some() {
            approval::tell_emergency(journal, caller, &approval::Place::of(self.permit.target()), of);
        }
    }

    /// What it has used up of budgets, once that is done.
    #[must_use]
    pub fn charged(&self) -> &[ChargeNote] {
        self.charged.get().map_or(&[], Vec::as_slice)
    }

    /// What it does to the labels of its caller.
    #[must_use]
    pub fn labels(&self) -> Option<&LabelUse> {
        self.labels.as_deref()
    }

    /// Whether it begins a call, which nothing has counted before.
    fn begins(&self) -> bool {
        self.charge == Charge::Now && !self.permit.is_following()
    }

    /// Whether the reports of its mandate have it already.
    #[must_use]
    pub fn is_reported(&self) -> bool {
        self.begins() && self.charged.get().is_some()
    }

    /// Consumes what was reserved; `None` where nothing was. Where the store is asked anyway, it is also asked whether
    /// the mandate is still what it was; and so it is once another epoch is in force than the mandate was read as.
    pub fn consume(&self, epoch: RevocationEpoch) -> Option<BoxFuture<'_, Result<(), Stop>>> {
        let moved = self.mandate.as_ref().is_some_and(|held| held.epoch() != epoch);
        let renewed = self.labels.as_ref().map(|labels| labels.renewed(epoch)).unwrap_or_default();
        if !moved && !self.reservations.is_any() && renewed.is_empty() {
            return None;
        }
        let held = self.mandate.iter().flat_map(mandate::unchanged).map(|change| (change, Reason::MandateEnded));
        let renewed = renewed.into_iter().map(|change| (change, Reason::StoreUnavailable));
        // In the same operation, rather than in one of its own when the call is over.
        let report = self.mandate.iter().filter(|_| self.begins());
        let report = report.flat_map(|held| budget::sent(held, self.permit.target().server_id()));
        let also: Vec<_> = held.chain(renewed).chain(report.map(|change| (change, Reason::StoreUnavailable))).collect();
        let consume = async {
            match self.reservations.consume(also).await {
                Ok(charged) => {
                    let _once = self.charged.set(charged);
                }
                Err(stop) => {
                    return Err(match &self.approval {
                        Some(used) if stop.reason() == Reason::ApprovalConsumed => self.reservations.lost(used).await,
                        _ => stop,
                    });
                }
            }
            if let Some(labels) = &self.labels {
                labels.consumed();
            }
            Ok(())
        };
        Some(consume.boxed())
    }
}
