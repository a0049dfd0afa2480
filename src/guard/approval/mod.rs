//! Approvals: a call that meets gates waits for persons, and uses what they said once.
//!
//! Decides, for a call that the rules allow, whether everybody has said yes whom its gates ask for. Refuses to know how a
//! client is told, and what pages show. Invariants: what is used was approved for this very call ([`binding`]), by
//! persons who could approve it now ([`approver`]); it is used up by the change that the reservation holds, and by no
//! other; whatever is not approved is refused.

mod alarm;
mod approver;
mod binding;
mod break_glass;
mod canonical;
mod decide;
mod emergencies;
mod kept;
mod lost;
mod pages;
mod preview;
mod request;
mod standing;
#[cfg(test)]
mod tests;
mod under;
mod uses;

use std::sync::Arc;
use std::time::Duration;

pub use alarm::{Place, reserve_emergency, tell_emergency};
pub use approver::{Rules, folded, is_trusted, stands_beside};
pub use break_glass::{BREAK_GLASS, BreakGlass, OPEN};
pub use decide::{Denier, Filter};
pub use kept::{Decision, Kept, Requester, State, Token, server};
pub use lost::{unused, used_up};
pub use preview::{escaped, preview as shown};
pub use standing::{STANDING, Standing, Wish};
pub use uses::{counted as standing_counts, forgotten as standing_forgotten, is_irreversible, since as standing_since};

use kept::{Consumption, Denial};

use super::Party;
use super::consume::Reservations;
use crate::config::{Config, GateConfig, GateKind};
use crate::identity::Revocations;
use crate::ids::{CallId, Digest, LegId};
use crate::limit;
use crate::outcome::{Failure, Pending, PendingKind, Reason, Refusal, Stop};
use crate::policy::{AdminOperation, Permit, Policy};
use crate::record::Journal;
use crate::record::event::{ApprovalNote, ApproverNote};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell, Version};
use crate::wire::Json;

/// Requests by what they are good for; a row is there for as long as its state holds.
const LIVE: Section = Section { name: "approval", rows_max: limit::APPROVALS_KEPT_MAX };
/// The same by their names, for people, and for some time after they are over.
const NAMED: Section = Section { name: "approval-named", rows_max: limit::APPROVALS_KEPT_MAX };

/// What waits for a person, and what was approved.
#[derive(Debug)]
pub struct Approvals {
    shelf: Arc<dyn Shelf>,
    journal: Journal,
    revocations: Arc<Revocations>,
}

/// What the stage needs of a call that meets gates.
#[derive(Debug, Clone, Copy)]
pub struct Gated<'a> {
    /// The configuration of the decision.
    pub config: &'a Config,
    /// The call; its legs have it in common.
    pub call: CallId,
    /// This request of it.
    pub leg: LegId,
    /// Its arguments.
    pub arguments: Option<&'a Json>,
    /// The mandate that it belongs to.
    pub mandate: Option<&'a str>,
    /// The template of that mandate.
    pub template: Option<&'a str>,
    /// What it does cannot be undone, or nobody says whether it can.
    pub irreversible: bool,
    /// Which round of questions it answers; zero where it is the first request.
    pub round: u32,
    /// The request that the call has used already, where its server has asked since and this is the answer.
    pub goes_on: Option<&'a str>,
    /// The request that this answers a question about.
    pub answers: Option<&'a str>,
    /// What whoever called said to it.
    pub said: Said,
    /// The moment by the store's clock.
    pub now_us: i64,
    /// Whether something goes with it that nobody would be shown: then it only goes on with what was let through.
    pub unseen: bool,
}

/// What whoever called said to the question whether they mean it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Said {
    /// They were not asked, or did not answer.
    #[default]
    Nothing,
    /// Yes, to the request of that name.
    Yes,
    /// No.
    No,
}

/// What a cleared call is going to use.
#[derive(Debug)]
pub struct Used {
    /// The request, as it was found; of a standing approval what it says for this call.
    pub kept: Kept,
    /// Whether it is a standing approval.
    pub standing: bool,
}

impl Used {
    /// Whether everybody who approved could still do so.
    ///
    /// # Errors
    /// `approval_void`.
    pub fn stands(&self, config: &Config, policy: &Policy, revocations: &Revocations) -> Result<(), Refusal> {
        let operation = if self.standing { AdminOperation::Standing } else { AdminOperation::Approve };
        let rules = Rules { config, policy, operation };
        let stands = |decision: &Decision| {
            approver::stands(decision, &self.kept, rules).is_ok() && is_trusted(decision, revocations)
        };
        if self.kept.decisions.iter().all(stands) { Ok(()) } else { Err(Refusal::new(Reason::ApprovalVoid)) }
    }

    /// That a call has used it, once its intent is durable and the change was made.
    pub fn tell(&self, journal: &Journal, of: (CallId, LegId)) {
        let event = if self.standing { "standing_used" } else { "consumed" };
        let approvers: Vec<ApproverNote<'_>> = self.kept.decisions.iter().map(noted).collect();
        journal.approval(&note(&self.kept, event, &approvers, ""), Some(of), None);
    }

    /// Why it could not be used up although it was there: what became of it meanwhile.
    pub(super) async fn lost(&self, shelf: &dyn Shelf) -> Result<Stop, Failure> {
        if self.standing {
            let hint = "the last use of a standing approval was taken at this moment: call again to ask somebody";
            return Ok(Refusal::new(Reason::ApprovalConsumed).hint(hint).into());
        }
        let row = shelf.row(LIVE, &self.kept.binding.to_string()).await?;
        let now = row.as_ref().map(read).transpose()?.map(|(kept, _)| kept);
        let refusal = match now {
            // It ran out in this moment.
            None => Refusal::new(Reason::ApprovalVoid),
            Some(now) if now.id != self.kept.id || now.consumed.is_some() => Refusal::new(Reason::ApprovalConsumed),
            Some(now) => now.denied.as_ref().map_or_else(|| Refusal::new(Reason::ApprovalVoid), denied),
        };
        Ok(refusal.into())
    }
}

impl Approvals {
    /// Where they are kept, and what is told of them.
    #[must_use]
    pub fn new(shelf: Arc<dyn Shelf>, journal: Journal, revocations: Arc<Revocations>) -> Self {
        Self { shelf, journal, revocations }
    }

    /// Reserves what a permitted call uses that meets gates, or says what it waits for.
    ///
    /// # Errors
    /// `approval_required` with what is waited for, `approval_denied`, `approval_consumed`, `confirmation_declined`,
    /// `arguments_unfit`, `person_unknown`, `approvals_limited`, `store_unavailable`.
    pub async fn clear(
        &self,
        permit: &Permit,
        gated: Gated<'_>,
        openers: Vec<Party>,
        policy: &Policy,
        reservations: &mut Reservations,
    ) -> Result<Used, Stop> {
        let binding = binding::binding(permit, gated.mandate, gated.arguments)?;
        if let Some(used) = self.goes_on(permit, gated, (binding, policy), &openers, reservations).await? {
            return Ok(used);
        }
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            match self.cleared(permit, gated, (binding, policy), &openers, reservations).await {
                // Somebody has decided at this moment, or the same call was made: what is there now is looked at.
                Err(stop) if stop.reason() == Reason::ApprovalChanged => {}
                ended => return ended,
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// The same with what is there at this moment; `approval_changed` where that changes meanwhile.
    async fn cleared(
        &self,
        permit: &Permit,
        gated: Gated<'_>,
        (binding, policy): (Digest, &Policy),
        openers: &[Party],
        reservations: &mut Reservations,
    ) -> Result<Used, Stop> {
        let found = self.shelf.row(LIVE, &binding.to_string()).await?;
        let found = found.as_ref().map(read).transpose()?;
        let is_own = |(kept, _): &(Kept, Version)| {
            kept.consumed.as_ref().is_some_and(|used| used.call == gated.call.to_string())
        };
        if gated.unseen && !found.as_ref().is_some_and(is_own) {
            let hint = "answers go with it that nobody who approves would see: make the call without them first";
            return Err(Refusal::new(Reason::FlowRefused).hint(hint).into());
        }
        // What somebody has denied stays denied, and what was approved for this very call comes first.
        if found.as_ref().is_none_or(|(kept, _)| kept.leaves_room_for_a_standing_one(gated.call)) {
            let stands = self.stands_for(permit, gated, (binding, policy), openers, reservations).await?;
            if let Some(used) = stands {
                return Ok(used);
            }
        }
        let (mut kept, mut version) = match found {
            None => self.request(permit, gated, binding, openers, Expect::Absent).await?,
            Some((kept, version)) => match &kept.consumed {
                None => (kept, version),
                Some(used) if used.call == gated.call.to_string() => {
                    // The call goes on that was let through, where its server has asked: each of its rounds once. What
                    // the gateway asked was asked before, and one yes is one call.
                    if gated.goes_on != Some(kept.id.as_str()) || gated.round <= used.round {
                        return Err(Refusal::new(Reason::ApprovalConsumed).into());
                    }
                    return Ok(Self::reserve(kept, version, gated, reservations)?);
                }
                Some(_) => self.request(permit, gated, binding, openers, Expect::Version(version)).await?,
            },
        };
        if let Some(denial) = &kept.denied {
            return Err(denied(denial).into());
        }
        if !self.is_heard(&kept) {
            // Whoever asked has signed out since, or access was taken from them: it has to be asked for anew.
            self.withdraw_row(kept, version, "whoever called may not any more").await?;
            return Err(Refusal::new(Reason::ApprovalChanged).into());
        }
        let before = kept.decisions.len();
        let rules = Rules { config: gated.config, policy, operation: AdminOperation::Approve };
        kept.decisions = self.standing(&kept, rules);
        let voided = kept.decisions.len() < before;
        let said = if gated.answers == Some(kept.id.as_str()) { gated.said } else { Said::Nothing };
        if kept.waits_for_confirmation(permit.gates()) {
            match said {
                Said::Yes => {
                    kept.confirmed = true;
                    version = self.put(&kept, Expect::Version(version), None).await?;
                    self.tell(&kept, "confirmed", Some(gated.of()), None, "");
                }
                Said::No => return Err(Refusal::new(Reason::ConfirmationDeclined).into()),
                Said::Nothing => return Err(waits(&kept, PendingKind::Confirm, gated.config).into()),
            }
        }
        self.settle(kept, version, permit, gated, voided, reservations).await
    }

    /// Uses what is approved, or waits for whoever is missing. The row is as it was read or written by this call.
    async fn settle(
        &self,
        mut kept: Kept,
        version: Version,
        permit: &Permit,
        gated: Gated<'_>,
        mut voided: bool,
        reservations: &mut Reservations,
    ) -> Result<Used, Stop> {
        let is_complete = |kept: &Kept| kept.waits_at(gated.config, permit.gates().iter().map(AsRef::as_ref)).is_none();
        if is_complete(&kept) {
            if kept.approved_until_us.is_none() && asks_somebody(permit) {
                // Fewer persons are asked for than when they decided: what was said longer ago than an approval is good
                // for is none any more.
                let oldest_us = self.shelf.clock_us().await?.saturating_sub(kept.approved_for_us);
                let before = kept.decisions.len();
                kept.decisions.retain(|decision| decision.at_us > oldest_us);
                voided |= kept.decisions.len() < before;
            }
            if is_complete(&kept) {
                return Ok(Self::reserve(kept, version, gated, reservations)?);
            }
        }
        if !kept.asks {
            // The gate asked whoever called when they called first, and asks somebody else now.
            kept.asks = true;
            voided = true;
        }
        if voided || kept.approved_until_us.is_some() {
            // What is left of it waits again, for as long as a new one would.
            let now_us = self.shelf.clock_us().await?;
            kept.approved_until_us = None;
            kept.pending_until_us = now_us.saturating_add(pending_us(permit));
            self.put(&kept, Expect::Version(version), Some(now_us)).await?;
            self.tell(&kept, "voided", Some(gated.of()), None, "who has approved it is not enough any more");
        }
        Err(waits(&kept, PendingKind::Approve, gated.config).into())
    }

    /// Adds the change that uses it up.
    fn reserve(
        kept: Kept,
        version: Version,
        gated: Gated<'_>,
        reservations: &mut Reservations,
    ) -> Result<Used, Refusal> {
        let mut consumed = kept.clone();
        consumed.consumed = Some(Consumption { call: gated.call.to_string(), round: gated.round });
        let until_us = kept.until_us().saturating_add(kept_for_us(&kept));
        for change in changes(&consumed, Expect::Version(version), until_us, until_us)? {
            reservations.reserve(change, Reason::ApprovalConsumed);
        }
        Ok(Used { kept, standing: false })
    }

    /// Whether whoever asked for it may still call.
    fn is_heard(&self, kept: &Kept) -> bool {
        let facts = kept.requester.token.as_ref().and_then(|token| token.facts(false));
        facts.is_some_and(|facts| self.revocations.check(&facts).is_ok())
    }

    /// The decisions of those who could still make them.
    fn standing(&self, kept: &Kept, rules: Rules<'_>) -> Vec<Decision> {
        let stands = |decision: &&Decision| {
            approver::stands(decision, kept, rules).is_ok() && is_trusted(decision, &self.revocations)
        };
        kept.decisions.iter().filter(stands).cloned().collect()
    }

    /// Writes a request down in its new state, and says which version that is.
    async fn put(&self, kept: &Kept, expect: Expect, now_us: Option<i64>) -> Result<Version, Stop> {
        let until_us = kept.until_us();
        let named_until_us = now_us.unwrap_or(until_us).max(until_us).saturating_add(kept_for_us(kept));
        match self.shelf.change(changes(kept, expect, until_us, named_until_us)?, Tell::Nobody).await? {
            Changed::Done { version, .. } => Ok(version),
            Changed::Conflict(_) => Err(Refusal::new(Reason::ApprovalChanged).into()),
            Changed::Full(_) => Err(Refusal::new(Reason::ApprovalsLimited).into()),
        }
    }

    fn tell(
        &self,
        kept: &Kept,
        event: &'static str,
        of: Option<(CallId, LegId)>,
        who: Option<&crate::record::Who>,
        detail: &str,
    ) {
        let approvers: Vec<ApproverNote<'_>> = kept.decisions.iter().map(noted).collect();
        self.journal.approval(&note(kept, event, &approvers, detail), of, who);
    }
}

impl Gated<'_> {
    const fn of(&self) -> (CallId, LegId) {
        (self.call, self.leg)
    }
}

/// What the record tells of a request.
fn note<'k>(
    kept: &'k Kept,
    event: &'static str,
    approvers: &'k [ApproverNote<'k>],
    detail: &'k str,
) -> ApprovalNote<'k> {
    ApprovalNote {
        event,
        id: &kept.id,
        binding: kept.binding,
        gates: &kept.gates,
        server: &kept.server,
        name: &kept.name,
        environment: &kept.environment,
        requester: &kept.requester.party.user,
        approvers,
        revision: kept.revision,
        shown: kept.shown,
        detail,
    }
}

fn noted(decision: &Decision) -> ApproverNote<'_> {
    ApproverNote { id: &decision.user, authenticated_at: decision.authenticated_at, acr: decision.acr.as_deref() }
}

/// What a caller is told of a no.
fn denied(denial: &Denial) -> Refusal {
    let hint = if denial.note.is_empty() {
        "somebody who may has denied this call".to_owned()
    } else {
        format!("somebody who may has denied this call: {}", denial.note)
    };
    Refusal::new(Reason::ApprovalDenied).hint(hint)
}

/// A call that waits, and for what.
fn waits(kept: &Kept, kind: PendingKind, config: &Config) -> Refusal {
    let url = page(kept, config);
    let refusal = Refusal::new(match kind {
        PendingKind::Approve => Reason::ApprovalRequired,
        PendingKind::Confirm => Reason::ConfirmationRequired,
    });
    let expires_at = jiff::Timestamp::from_microsecond(kept.pending_until_us).unwrap_or_default();
    let binding = kept.binding;
    refusal.pending(Pending { approval: kept.id.clone(), binding, kind, expires_at, url })
}

/// The page of the console that says how it stands.
#[must_use]
pub fn page(kept: &Kept, config: &Config) -> Option<String> {
    let admin = config.admin.as_ref().filter(|admin| admin.console.is_some())?;
    Some(format!("{}/approvals/{}", admin.resource(), kept.id))
}

/// The rows of a request in its new state.
fn changes(kept: &Kept, expect: Expect, until_us: i64, named_until_us: i64) -> Result<Vec<Change>, Refusal> {
    let body = serde_json::to_string(kept).unwrap_or_default();
    if body.len() > limit::SHELF_BODY_BYTES_MAX {
        let hint = "the call is more than can be kept until somebody approves it: split it";
        return Err(Refusal::new(Reason::ArgumentsUnfit).hint(hint));
    }
    let put = |owner: &str, body: String, until_us: i64| Action::Put {
        owner: owner.to_owned(),
        body,
        expires_at_us: Some(until_us),
    };
    let live = Change::new(LIVE, kept.binding.to_string(), expect, put(&kept.id, body.clone(), until_us));
    let named = put(&kept.requester.principal, body, named_until_us);
    Ok(vec![live, Change::new(NAMED, kept.id.clone(), Expect::Anything, named)])
}

fn read(row: &Row) -> Result<(Kept, Version), Failure> {
    let kept = serde_json::from_str(&row.body);
    let kept =
        kept.map_err(|error| Failure::before(Reason::StoreUnavailable, format!("an approval is unreadable: {error}")))?;
    Ok((kept, row.version))
}

fn pending_us(permit: &Permit) -> i64 {
    micros(permit.gates().iter().map(|gate| gate.pending_for).min().unwrap_or_default())
}

/// How long one that is over is kept: a confirmation is on the record, and nobody else has to look at it.
fn kept_for_us(kept: &Kept) -> i64 {
    micros(if kept.asks { limit::APPROVAL_KEPT_FOR } else { limit::APPROVAL_CONFIRMED_KEPT_FOR })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

/// The gates of a request that this configuration has; nothing where one is gone.
fn gates_of<'c>(kept: &Kept, config: &'c Config) -> Option<Vec<&'c GateConfig>> {
    let of = |name: &String| config.gates.iter().find(|gate| gate.name == *name).map(AsRef::as_ref);
    kept.gates.iter().map(of).collect()
}

/// Whether one of the gates that a call meets asks for another person.
fn asks_somebody(permit: &Permit) -> bool {
    permit.gates().iter().any(|gate| gate.kind == GateKind::Approve)
}
