//! Asking for an approval: what is kept of a call until persons have decided about it.
//!
//! Decides how many requests one caller has, and who is told of one. Refuses to know what is said to them. Invariants: no
//! caller keeps others from asking, because their own requests that are over make room for their next ones; approvers hear
//! of what waits for them, and of nothing else.

use super::binding::of_shown;
use super::kept::{Requester, State};
use super::{Approvals, Gated, Kept, LIVE, NAMED, asks_somebody, changes, kept_for_us, micros, page, pending_us, read};
use crate::guard::Party;
use crate::ids::{Action as Done, Digest};
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::Permit;
use crate::record::redact;
use crate::shelf::{Action, Change, Changed, Expect, Tell, Version};

impl Approvals {
    /// Asks for an approval, in the place of what is there.
    ///
    /// # Errors
    /// `approval_changed` where somebody has just done so for the same call; `person_unknown`, `arguments_unfit`,
    /// `approvals_limited`, `store_unavailable`.
    pub(super) async fn request(
        &self,
        permit: &Permit,
        gated: Gated<'_>,
        binding: Digest,
        openers: &[Party],
        expect: Expect,
    ) -> Result<(Kept, Version), Stop> {
        let preview = super::shown(permit.target(), gated.arguments)?;
        let requester = Requester::of(permit, openers.to_vec());
        let asks = asks_somebody(permit);
        if asks && requester.party.is_unknown_human() {
            return Err(Refusal::new(Reason::PersonUnknown).into());
        }
        let target = permit.target();
        if target.name().len() > limit::APPROVAL_PREVIEW_BYTES_MAX {
            let hint = "its name or address is more than a person can look at";
            return Err(Refusal::new(Reason::ArgumentsUnfit).hint(hint).into());
        }
        let now_us = self.shelf.clock_us().await?;
        let room = self.room(&requester.principal, binding, now_us).await?;
        let action = target.action().to_string();
        let approved_for = permit.gates().iter().map(|gate| gate.approved_for).min().unwrap_or_default();
        let kept = Kept {
            id: random()?,
            binding,
            gates: permit.gates().iter().map(|gate| gate.name.clone()).collect(),
            requester,
            mandate: gated.mandate.map(str::to_owned),
            template: gated.template.map(str::to_owned),
            irreversible: gated.irreversible,
            shown: of_shown(target, &action, &preview),
            server: target.server_id().to_string(),
            action,
            name: target.name().to_owned(),
            definition: target.definition().map(|definition| definition.digest.to_string()),
            environment: target.environment().to_string(),
            preview,
            revision: permit.revision(),
            call: gated.call.to_string(),
            requested_at_us: now_us,
            pending_until_us: now_us.saturating_add(pending_us(permit)),
            approved_for_us: micros(approved_for),
            asks,
            confirmed: false,
            decisions: Vec::new(),
            approved_until_us: None,
            denied: None,
            consumed: None,
            withdrawn: false,
            after: after(permit),
            expiry_told: false,
        };
        let until_us = kept.pending_until_us;
        let own = changes(&kept, expect, until_us, until_us.saturating_add(kept_for_us(&kept)))?;
        has_room_for_decisions(&own, permit)?;
        let own = [room, own].concat();
        let told = if asks { self.told(permit, &kept, gated, now_us) } else { Vec::new() };
        let count = own.len();
        let mut changed = self.shelf.change([own.clone(), told].concat(), Tell::Nobody).await?;
        if matches!(changed, Changed::Full(index) if index >= count) {
            // Where messages have not been taken for days, people find the request all the same.
            changed = self.shelf.change(own, Tell::Nobody).await?;
        }
        match changed {
            Changed::Done { version, .. } => {
                self.tell(&kept, "requested", Some(gated.of()), Some(permit.caller().who()), "");
                Ok((kept, version))
            }
            // The same call, at the same moment: one of them has asked.
            Changed::Conflict(_) => Err(Refusal::new(Reason::ApprovalChanged).into()),
            Changed::Full(_) => Err(Refusal::new(Reason::ApprovalsLimited).into()),
        }
    }

    /// What tells others of a request: nothing of the arguments, because whoever reads it has to come and look.
    fn told(&self, permit: &Permit, kept: &Kept, gated: Gated<'_>, now_us: i64) -> Vec<Change> {
        // The address of what is read is an argument: it is the client that writes it.
        let name = (*permit.target().action() != Done::Read).then(|| redact::secrets(&kept.name));
        let about = serde_json::json!({
            "approval_id": kept.id,
            "server": kept.server,
            "name": name,
            "environment": kept.environment,
            "gates": kept.gates,
            "url": page(kept, gated.config),
        });
        outbox::told(&gated.config.webhooks, outbox::Event::ApprovalRequested, &about, now_us)
    }

    /// The changes that make room for one more request of a caller: the oldest of their own that are over go.
    async fn room(&self, principal: &str, binding: Digest, now_us: i64) -> Result<Vec<Change>, Stop> {
        let (mut waiting, mut over) = (0, Vec::new());
        let mut after: Option<String> = None;
        loop {
            let rows = self.shelf.rows(NAMED, Some(principal), after.as_deref()).await?;
            let is_last = rows.len() < limit::SHELF_ROWS_READ_MAX;
            after = rows.last().map(|row| row.key.clone());
            for row in rows {
                let Ok((kept, _)) = read(&row) else { continue };
                match kept.state(now_us) {
                    State::Pending | State::Approved => waiting += 1,
                    _ => over.push((kept.requested_at_us, kept.id, kept.binding)),
                }
            }
            if is_last {
                break;
            }
        }
        if waiting >= limit::APPROVALS_PENDING_PER_PRINCIPAL_MAX {
            return Err(Refusal::new(Reason::ApprovalsLimited).into());
        }
        over.sort_unstable();
        let excess = (over.len() + 1).saturating_sub(limit::APPROVALS_OVER_PER_PRINCIPAL_MAX);
        let mut changes = Vec::new();
        for (_, id, of) in over.into_iter().take(excess.min(limit::APPROVALS_REMOVED_AT_ONCE_MAX)) {
            // Another call of the same kind may be there meanwhile, or this very one is going to be.
            let row = if of == binding { None } else { self.shelf.row(LIVE, &of.to_string()).await? };
            if let Some(row) = row.filter(|row| row.owner == id) {
                changes.push(Change::new(LIVE, row.key, Expect::Version(row.version), Action::Remove));
            }
            changes.push(Change::new(NAMED, id, Expect::Anything, Action::Remove));
        }
        Ok(changes)
    }
}

/// What has to be added when persons approve fits as well: none of them is to be told that the call is too large.
fn has_room_for_decisions(own: &[Change], permit: &Permit) -> Result<(), Refusal> {
    let decisions: u32 = permit.gates().iter().map(|gate| gate.approvals).sum();
    let decisions = usize::try_from(decisions).unwrap_or(usize::MAX);
    let needed = decisions.saturating_mul(limit::APPROVAL_DECISION_BYTES_MAX);
    let fits = |change: &Change| match &change.action {
        Action::Put { body, .. } => body.len().saturating_add(needed) <= limit::SHELF_BODY_BYTES_MAX,
        _ => true,
    };
    if own.iter().all(fits) {
        return Ok(());
    }
    let hint = "the call is more than can be kept until everybody has approved it: split it";
    Err(Refusal::new(Reason::ArgumentsUnfit).hint(hint))
}

/// What flows ask about, for whoever approves.
fn after(permit: &Permit) -> String {
    let from = permit.flows_from();
    if from.is_any() { from.to_string() } else { String::new() }
}

/// 128 random bits.
pub(super) fn random() -> Result<String, Failure> {
    let mut bytes = [0_u8; 16];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| Failure::before(Reason::Internal, "no random numbers"))?;
    Ok(data_encoding::HEXLOWER.encode(&bytes))
}
