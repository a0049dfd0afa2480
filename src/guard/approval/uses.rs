//! Which calls a standing approval lets through, and that each of them is counted.
//!
//! Decides that for a call that waits otherwise. Refuses to know who gave it. Invariants: its condition surely holds for
//! the arguments that go out; of calls at the same moment no more go out than are left, because each is counted by the
//! change that the reservation holds; of a call that was let through, each further round goes out once.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::kept::{Kept, Requester};
use super::standing::{STANDING, Standing, condition, scope, understood};
use super::{Approvals, Gated, Used, is_trusted};
use crate::config::GateKind;
use crate::guard::consume::Reservations;
use crate::guard::{Party, Wanted};
use crate::ids::{Digest, ReplicaId};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::label::Impact;
use crate::policy::{Arguments, Ask, Permit, Policy, Truth};
use crate::shelf::{Action, Change, Expect, Section, Shelf, Tell, Version};
use crate::wire::Json;

/// How often each was used: by its name, and by its name and a replica's, whose record can tell whether a store has
/// forgotten some.
const COUNTS: Section = Section { name: "standing_count", rows_max: limit::STANDING_COUNTS_MAX };
/// Calls that were let through, by their ids: their servers may ask something before they answer.
const CALLS: Section = Section { name: "standing_call", rows_max: limit::STANDING_CALLS_MAX };

/// A call that was let through.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct LetThrough {
    /// By which standing approval.
    by: String,
    /// Which call exactly.
    binding: Digest,
    /// The last of its rounds that went out.
    round: u32,
}

/// Whether what a call does cannot be undone, or nobody says whether it can, where labels are kept.
pub fn is_irreversible(permit: &Permit, wanted: &Wanted<'_>) -> bool {
    if permit.gates().iter().any(|gate| gate.irreversible) {
        return true;
    }
    let target = permit.target();
    let ask = Ask {
        environment: target.environment(),
        server: target.server_id(),
        name: target.name(),
        action: target.action(),
    };
    let hints = target.definition().map(|definition| definition.hints).unwrap_or_default();
    let arguments = Arguments::of(target.action(), wanted.arguments.map(Json::as_str));
    let persona = permit.caller().persona();
    let labelled = wanted.policy.labelled(persona, &ask, hints, arguments, Timestamp::now());
    labelled.is_some_and(|labelled| labelled.unsaid || labelled.impact >= Impact::Irreversible)
}

impl Approvals {
    /// Reserves a use of a standing approval that lets this call through; nothing where there is none.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub(super) async fn stands_for(
        &self,
        permit: &Permit,
        gated: Gated<'_>,
        (binding, policy): (Digest, &Policy),
        openers: &[Party],
        reservations: &mut Reservations,
    ) -> Result<Option<Used>, Stop> {
        // Whoever gave one has not seen what this caller has seen since: where that asks, somebody looks at the call.
        if gated.unseen || permit.flows_from().is_any() || !permit.flow_gates().is_empty() {
            return Ok(None);
        }
        if gated.irreversible || !permit.gates().iter().all(|gate| gate.kind == GateKind::Approve) {
            return Ok(None);
        }
        let own = template(permit, gated, binding, openers);
        let rows = self.shelf.rows(STANDING, Some(&scope(&own).to_string()), None).await?;
        for row in rows {
            // One that nobody understands lets nothing through.
            let Ok(standing) = understood(&row) else { continue };
            if standing.is_proposed() || !surely_holds(policy, &standing, permit, gated.arguments) {
                continue;
            }
            let used = said_for(&standing, own.clone());
            let trusted = standing.of.decisions.iter().all(|decision| is_trusted(decision, &self.revocations));
            let lost = || Refusal::new(Reason::ApprovalVoid).hint("access was taken from somebody who gave it");
            let stands = standing.stands(gated.config, policy);
            if let Err(why) = stands.and_then(|()| if trusted { Ok(()) } else { Err(lost()) }) {
                self.void(&standing, row.version, &why).await?;
                continue;
            }
            // Whoever opened the mandate of this very call may be one of those who gave it.
            if used.stands(gated.config, policy, &self.revocations).is_err() {
                continue;
            }
            let count = self.shelf.row(COUNTS, &standing.of.id).await?.map_or(0, |row| row.number);
            if count >= i64::from(standing.uses) && !inversion::is_off(Control::Standing) {
                continue;
            }
            self.reserve_use(&standing, row.version, binding, gated, reservations);
            return Ok(Some(used));
        }
        Ok(None)
    }

    /// Reserves a further round of a call that a standing approval has let through, which is no further use; nothing
    /// where the call was let through otherwise.
    ///
    /// # Errors
    /// `approval_consumed`, `approval_void`, `store_unavailable`.
    pub(super) async fn goes_on(
        &self,
        permit: &Permit,
        gated: Gated<'_>,
        (binding, policy): (Digest, &Policy),
        openers: &[Party],
        reservations: &mut Reservations,
    ) -> Result<Option<Used>, Stop> {
        let Some(by) = gated.goes_on else { return Ok(None) };
        let call = gated.call.to_string();
        let Some(row) = self.shelf.row(CALLS, &call).await? else { return Ok(None) };
        let known: LetThrough = serde_json::from_str(&row.body).map_err(|error| {
            Failure::before(Reason::StoreUnavailable, format!("a call that was let through: {error}"))
        })?;
        if known.by != by || known.binding != binding || gated.round <= known.round {
            return Err(Refusal::new(Reason::ApprovalConsumed).into());
        }
        let standing = self.shelf.row(STANDING, by).await?;
        let standing = standing.as_ref().map(|row| Ok::<_, Failure>((understood(row)?, row.version))).transpose()?;
        let Some((standing, version)) = standing else {
            return Err(Refusal::new(Reason::ApprovalVoid).hint("the standing approval of this call is over").into());
        };
        let used = said_for(&standing, template(permit, gated, binding, openers));
        used.stands(gated.config, policy, &self.revocations)?;
        let check = Change::new(STANDING, by, Expect::Version(version), Action::Check);
        reservations.reserve(check, Reason::ApprovalVoid);
        let again = LetThrough { round: gated.round, ..known };
        let (owner, expires_at_us) = (row.owner, row.expires_at_us);
        let put = Action::Put { owner, body: serde_json::to_string(&again).unwrap_or_default(), expires_at_us };
        reservations.reserve(Change::new(CALLS, call, Expect::Version(row.version), put), Reason::ApprovalConsumed);
        Ok(Some(used))
    }

    /// Adds the changes that count one use.
    fn reserve_use(
        &self,
        standing: &Standing,
        version: Version,
        binding: Digest,
        gated: Gated<'_>,
        reservations: &mut Reservations,
    ) {
        let id = standing.of.id.as_str();
        let check = Change::new(STANDING, id, Expect::Version(version), Action::Check);
        reservations.reserve(check, Reason::ApprovalVoid);
        let until_us = standing.ends_us().saturating_add(limit::STANDING_COUNT_KEPT_FOR_US);
        let count = |at_most: i64| Action::Count { by: 1, at_most, expires_at_us: Some(until_us) };
        let most = if inversion::is_off(Control::Standing) { i64::MAX } else { i64::from(standing.uses) };
        reservations.reserve(Change::new(COUNTS, id, Expect::Anything, count(most)), Reason::ApprovalConsumed);
        let own = counted_at(id, self.journal.replica());
        reservations.reserve(Change::new(COUNTS, own, Expect::Anything, count(i64::MAX)), Reason::ApprovalConsumed);
        let known = LetThrough { by: id.to_owned(), binding, round: gated.round };
        let put = Action::Put {
            owner: id.to_owned(),
            body: serde_json::to_string(&known).unwrap_or_default(),
            expires_at_us: Some(gated.now_us.saturating_add(limit::STANDING_CALL_KEPT_FOR_US)),
        };
        // A call is let through once, however often it is sent with the same state.
        let call = gated.call.to_string();
        reservations.reserve(Change::new(CALLS, call, Expect::Absent, put), Reason::ApprovalConsumed);
    }

    /// Ends one whose givers could not give it any more, in the version that was read.
    async fn void(&self, standing: &Standing, version: Version, why: &Refusal) -> Result<(), Stop> {
        let gone = Change::new(STANDING, standing.of.id.as_str(), Expect::Version(version), Action::Remove);
        if self.shelf.change(vec![gone], Tell::Nobody).await?.is_done() {
            self.tell(&standing.of, "standing_void", None, None, &why.hint);
        }
        Ok(())
    }
}

/// What is known of a call, as a request that nobody has made.
fn template(permit: &Permit, gated: Gated<'_>, binding: Digest, openers: &[Party]) -> Kept {
    let target = permit.target();
    Kept {
        id: String::new(),
        binding,
        gates: permit.gates().iter().map(|gate| gate.name.clone()).collect(),
        requester: Requester::of(permit, openers.to_vec()),
        mandate: gated.mandate.map(str::to_owned),
        template: gated.template.map(str::to_owned),
        irreversible: gated.irreversible,
        server: target.server_id().to_string(),
        action: target.action().to_string(),
        name: target.name().to_owned(),
        definition: target.definition().map(|definition| definition.digest.to_string()),
        environment: target.environment().to_string(),
        preview: String::new(),
        shown: binding,
        revision: permit.revision(),
        call: gated.call.to_string(),
        requested_at_us: gated.now_us,
        pending_until_us: gated.now_us,
        approved_for_us: 0,
        asks: true,
        confirmed: false,
        decisions: Vec::new(),
        approved_until_us: None,
        denied: None,
        consumed: None,
        withdrawn: false,
        after: String::new(),
        expiry_told: true,
    }
}

/// What a standing approval says for one call: its persons, under its name, for this caller and these openers.
fn said_for(standing: &Standing, call: Kept) -> Used {
    let kept = Kept {
        id: standing.of.id.clone(),
        shown: standing.of.shown,
        decisions: standing.of.decisions.clone(),
        approved_until_us: standing.until_us,
        ..call
    };
    Used { kept, standing: true }
}

/// Whether the condition of a standing approval surely holds, as it does for a rule that allows.
fn surely_holds(policy: &Policy, standing: &Standing, permit: &Permit, arguments: Option<&Json>) -> bool {
    let given = Arguments::of(permit.target().action(), arguments.map(Json::as_str));
    let condition = condition(policy, &standing.condition);
    condition.is_some_and(|condition| {
        let (as_allow, _) = condition.values(permit.caller().persona(), given, Timestamp::now());
        as_allow == Truth::True
    })
}

fn counted_at(id: &str, replica: ReplicaId) -> String {
    format!("{id}/{replica}")
}

/// How often each was used, by its name.
///
/// # Errors
/// `store_unavailable`.
pub async fn counted(shelf: &dyn Shelf) -> Result<BTreeMap<String, i64>, Failure> {
    let (mut found, mut after) = (BTreeMap::new(), None::<String>);
    loop {
        let rows = shelf.rows(COUNTS, None, after.as_deref()).await?;
        let last = rows.last().map(|row| row.key.clone());
        let is_last = rows.len() < limit::SHELF_ROWS_READ_MAX;
        found.extend(rows.into_iter().filter(|row| !row.key.contains('/')).map(|row| (row.key, row.number)));
        if is_last {
            return Ok(found);
        }
        after = last;
    }
}

/// Since when there are some, microseconds since 1970; nothing where there is none.
///
/// # Errors
/// `store_unavailable`.
pub async fn since(shelf: &dyn Shelf) -> Result<Option<i64>, Failure> {
    let (mut oldest, mut after) = (None::<i64>, None::<String>);
    loop {
        let rows = shelf.rows(STANDING, None, after.as_deref()).await?;
        let all = rows.iter().filter_map(|row| understood(row).ok()).map(|standing| standing.of.requested_at_us);
        oldest = all.chain(oldest).min();
        match rows.last() {
            Some(last) if rows.len() >= limit::SHELF_ROWS_READ_MAX => after = Some(last.key.clone()),
            _ => return Ok(oldest),
        }
    }
}

/// Standing approvals of which a replica's record tells more uses than the store does, and the changes that end them:
/// nobody knows how many are left. `used` has the calls of that record that went out, by the name that their intents
/// have.
///
/// # Errors
/// `store_unavailable`.
pub async fn forgotten(
    shelf: &dyn Shelf,
    replica: ReplicaId,
    used: &BTreeMap<String, BTreeSet<String>>,
) -> Result<Vec<Change>, Failure> {
    let mut changes = Vec::new();
    for (id, calls) in used {
        let Some(row) = shelf.row(STANDING, id).await? else { continue };
        let known = shelf.row(COUNTS, &counted_at(id, replica)).await?.map_or(0, |row| row.number);
        if i64::try_from(calls.len()).unwrap_or(i64::MAX) > known {
            changes.push(Change::new(STANDING, row.key, Expect::Anything, Action::Remove));
        }
    }
    Ok(changes)
}
