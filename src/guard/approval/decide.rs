//! What persons do with a request: look at it, approve it, deny it.
//!
//! Decides what their word changes. Refuses to know doors and pages. Invariant: an approval is of what was shown; of two
//! who decide at once the second sees what the first has done.

use std::collections::HashMap;
use std::time::Duration;

use super::kept::{Decision, Denial, Kept, State};
use super::pages::Pages;
use super::standing::is_of;
use super::{Approvals, LIVE, NAMED, Rules, approver, gates_of, kept_for_us, noted, read};
use crate::config::{Config, GateConfig, GateKind};
use crate::identity::{Caller, Revocations};
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{AdminOperation, Policy};
use crate::record::Who;
use crate::shelf::{Action, Change, Expect, Tell, Version};

/// Who denies.
#[derive(Debug, Clone)]
pub struct Denier {
    /// As the record names them.
    pub name: String,
    /// Why.
    pub note: String,
}

/// Which requests are listed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Filter {
    /// Those that wait for somebody.
    Pending,
    /// All that are kept.
    All,
}

impl Approvals {
    /// Requests, newest first, and the store's clock. What ran out is told on the record, once. The files as they are
    /// written say who answers for the agents of mandates, here and below.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(&self, filter: Filter, written: &Config) -> Result<(Vec<Kept>, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (mut found, mut known): (Vec<Kept>, _) = (Vec::new(), HashMap::new());
        let mut pages = Pages::of(&*self.shelf, NAMED);
        while let Some(page) = pages.next().await? {
            for (kept, version) in page {
                self.notice(&kept, version, now_us).await;
                // What only whoever called can answer waits for nobody who looks at lists.
                if filter == Filter::All || (kept.asks && kept.state(now_us) == State::Pending) {
                    found.push(kept);
                }
            }
            // Never more at once than are listed, and one page; and asked of mandates is only for those that are listed.
            found.sort_by_key(|kept| std::cmp::Reverse(kept.requested_at_us));
            let mut listed = Vec::with_capacity(found.len().min(limit::APPROVALS_LISTED_MAX));
            for kept in found {
                if listed.len() >= limit::APPROVALS_LISTED_MAX {
                    break;
                }
                let kept = self.shown(kept, &mut known, written, now_us).await?;
                if filter == Filter::All || kept.state(now_us) == State::Pending {
                    listed.push(kept);
                }
            }
            found = listed;
        }
        Ok((found, now_us))
    }

    /// One request, and the store's clock.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn named(&self, id: &str, written: &Config) -> Result<(Kept, i64), Stop> {
        let now_us = self.shelf.clock_us().await?;
        let (kept, version) = self.find(id).await?;
        self.notice(&kept, version, now_us).await;
        Ok((self.unless_over(kept, written, now_us).await?, now_us))
    }

    /// That somebody who could decide has looked at it.
    pub fn viewed(&self, kept: &Kept, who: Option<&Who>, name: &str) {
        self.tell(kept, "viewed", None, who, name);
    }

    /// Approves a request as it was shown; `now_s` in seconds since 1970, by which logins are dated.
    ///
    /// # Errors
    /// As [`approver::decision`]; `target_unknown`, `approval_over`, `approval_changed`, `store_unavailable`.
    pub async fn approve(
        &self,
        id: &str,
        approver: &Caller,
        shown: Digest,
        (config, policy): (&Config, &Policy),
        written: &Config,
        now_s: i64,
    ) -> Result<(Kept, i64), Stop> {
        let rules = Rules { config, policy, operation: AdminOperation::Approve };
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            let now_us = self.shelf.clock_us().await?;
            let (mut kept, version) = self.live(id, written, now_us).await?;
            if kept.shown != shown {
                let hint = "that is not what was shown: look at it again";
                return Err(Refusal::new(Reason::ApprovalChanged).hint(hint).into());
            }
            if !self.is_heard(&kept) {
                let hint = "access was taken from whoever called: the call has to be made again";
                return Err(Refusal::new(Reason::ApprovalOver).hint(hint).into());
            }
            let asks = |gates: &Vec<&GateConfig>| gates.iter().any(|gate| gate.kind == GateKind::Approve);
            let gates = gates_of(&kept, config).filter(asks);
            let Some(gates) = gates else {
                let hint = "no gate of this call asks for an approval any more: call again";
                return Err(Refusal::new(Reason::ApprovalOver).hint(hint).into());
            };
            let decision = match approver::decision(approver, &kept, &gates, rules, (now_s, now_us)) {
                Ok(decision) => decision,
                Err(refusal) => {
                    self.tell(&kept, "refused", None, Some(approver.who()), &refusal.hint);
                    return Err(refusal.into());
                }
            };
            let person = approver::folded(&decision.person);
            // What somebody said before the gates were changed, and counts at none of them, they may say again.
            let server = super::server(config, &kept.server);
            let counts = |known: &Decision| gates.iter().any(|gate| approver::counts(known, gate, server));
            let is_theirs = |known: &Decision| approver::folded(&known.person) == person;
            kept.decisions.retain(|known| !is_theirs(known) || counts(known));
            if kept.decisions.iter().any(is_theirs) {
                return Err(Refusal::new(Reason::ApproverRefused).hint("you have approved this already").into());
            }
            kept.decisions = self.standing(&kept, rules);
            let waits = |kept: &Kept| kept.waits_at(config, gates.iter().copied()).is_some();
            if kept.approved_until_us.is_some() && !waits(&kept) {
                let hint = "it is approved already: nobody else is asked";
                return Err(Refusal::new(Reason::ApprovalOver).hint(hint).into());
            }
            // What others said before is good for no longer because somebody says it once more.
            let until_us = kept.approved_until_us.filter(|_| !kept.decisions.is_empty());
            kept.decisions.push(decision);
            let complete = !waits(&kept);
            if complete {
                kept.approved_until_us = until_us.or_else(|| Some(now_us.saturating_add(kept.approved_for_us)));
            }
            match self.put(&kept, Expect::Version(version), Some(now_us)).await {
                Ok(_) => {
                    if complete {
                        self.waited(&kept, "approved", now_us);
                    }
                    let last: Vec<_> = kept.decisions.last().map(noted).into_iter().collect();
                    let detail = if complete { "" } else { "others have to approve it as well" };
                    let told = super::note(&kept, "approved", &last, detail);
                    self.journal.approval(&told, None, Some(approver.who()));
                    return Ok((kept, now_us));
                }
                Err(stop) if stop.reason() == Reason::ApprovalChanged => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// Denies a request: the same call is refused for as long as it would have waited.
    ///
    /// # Errors
    /// `target_unknown`, `approval_over`, `approval_changed`, `store_unavailable`.
    pub async fn deny(
        &self,
        id: &str,
        denier: &Denier,
        who: Option<&Who>,
        written: &Config,
    ) -> Result<(Kept, i64), Stop> {
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            let now_us = self.shelf.clock_us().await?;
            let (mut kept, version) = self.live(id, written, now_us).await?;
            let waits_us = kept.pending_until_us.saturating_sub(kept.requested_at_us);
            kept.denied = Some(Denial {
                by: denier.name.clone(),
                at_us: now_us,
                until_us: now_us.saturating_add(waits_us),
                note: denier.note.chars().take(limit::APPROVAL_NOTE_CHARACTERS_MAX).collect(),
            });
            match self.put(&kept, Expect::Version(version), Some(now_us)).await {
                Ok(_) => {
                    self.waited(&kept, "denied", now_us);
                    self.tell(&kept, "denied", None, who, &denier.name);
                    return Ok((kept, now_us));
                }
                Err(stop) if stop.reason() == Reason::ApprovalChanged => {}
                Err(stop) => return Err(stop),
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// Takes a request back whose caller wants it no more: the same call asks anew.
    ///
    /// # Errors
    /// `target_unknown`, `approval_over`, `approval_changed`, `store_unavailable`.
    pub async fn withdraw(&self, id: &str, written: &Config) -> Result<(), Stop> {
        for _ in 0..limit::APPROVAL_TRIES_MAX {
            let now_us = self.shelf.clock_us().await?;
            let (kept, version) = self.live(id, written, now_us).await?;
            match self.withdraw_row(kept, version, "whoever called wants it no more").await {
                Err(stop) if stop.reason() == Reason::ApprovalChanged => {}
                done => return done,
            }
        }
        Err(Refusal::new(Reason::ApprovalChanged).into())
    }

    /// Takes back whatever waits, or was approved, of callers whom these took access from, and at servers that they took
    /// back, when it may be called again: that stopped these calls for good. What was asked for since a sign-out goes on.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn withdraw_of(&self, lifted: &Revocations, written: &Config) -> Result<(), Failure> {
        let mut pages = Pages::of(&*self.shelf, LIVE);
        while let Some(page) = pages.next().await? {
            for (kept, version) in page {
                if kept.consumed.is_some() || kept.denied.is_some() || !is_of(&kept, lifted, written) {
                    continue;
                }
                // Of one that somebody has decided in this moment, nothing is used while its caller is refused.
                if let Err(Stop::Failed(failure)) =
                    self.withdraw_row(kept, version, "access was taken from whoever called, or to the server").await
                {
                    return Err(failure);
                }
            }
        }
        Ok(())
    }

    /// Takes a request back in the version that was read.
    pub(super) async fn withdraw_row(&self, kept: Kept, version: Version, why: &str) -> Result<(), Stop> {
        let withdrawn = Kept { withdrawn: true, ..kept };
        let body = serde_json::to_string(&withdrawn).unwrap_or_default();
        let until_us = withdrawn.until_us().saturating_add(kept_for_us(&withdrawn));
        let owner = withdrawn.requester.principal.clone();
        let named = Action::Put { owner, body, expires_at_us: Some(until_us) };
        let changes = vec![
            Change::new(LIVE, withdrawn.binding.to_string(), Expect::Version(version), Action::Remove),
            Change::new(NAMED, withdrawn.id.clone(), Expect::Anything, named),
        ];
        if !self.shelf.change(changes, Tell::Nobody).await?.is_done() {
            return Err(Refusal::new(Reason::ApprovalChanged).into());
        }
        self.tell(&withdrawn, "withdrawn", None, None, why);
        Ok(())
    }

    /// How long whoever called has waited for people.
    fn waited(&self, kept: &Kept, event: &'static str, now_us: i64) {
        let waited_us = u64::try_from(now_us.saturating_sub(kept.requested_at_us)).unwrap_or_default();
        self.journal.metrics().approval_waited(event, Duration::from_micros(waited_us));
    }

    async fn find(&self, id: &str) -> Result<(Kept, Version), Stop> {
        let row = self.shelf.row(NAMED, id).await?;
        let row = row.ok_or_else(|| Refusal::new(Reason::TargetUnknown).hint("there is no such request"))?;
        Ok(read(&row)?)
    }

    /// A request that can still be decided.
    async fn live(&self, id: &str, written: &Config, now_us: i64) -> Result<(Kept, Version), Stop> {
        let (named, _) = self.find(id).await?;
        let row = self.shelf.row(LIVE, &named.binding.to_string()).await?;
        let live = row.as_ref().map(read).transpose()?.filter(|(kept, _)| kept.id == id);
        let over = |state: State| {
            let hint = format!("it is over: {}", state.as_str());
            Stop::from(Refusal::new(Reason::ApprovalOver).hint(hint))
        };
        let (kept, version) = live.ok_or_else(|| over(named.state(i64::MAX)))?;
        let kept = self.unless_over(kept, written, now_us).await?;
        match kept.state(now_us) {
            State::Pending | State::Approved => Ok((kept, version)),
            state => Err(over(state)),
        }
    }

    /// Tells on the record that a request ran out, once.
    async fn notice(&self, kept: &Kept, version: Version, now_us: i64) {
        if kept.expiry_told || kept.state(now_us) != State::Expired {
            return;
        }
        let told = Kept { expiry_told: true, ..kept.clone() };
        let body = serde_json::to_string(&told).unwrap_or_default();
        let until_us = kept.until_us().saturating_add(kept_for_us(kept));
        let owner = kept.requester.principal.clone();
        let put = Action::Put { owner, body, expires_at_us: Some(until_us) };
        let mut changes = vec![Change::new(NAMED, kept.id.clone(), Expect::Version(version), put)];
        let binding = kept.binding.to_string();
        match self.shelf.row(LIVE, &binding).await {
            // What has run out is not there, but comes back where the clock does: it goes for good.
            Ok(None) => changes.push(Change::new(LIVE, binding, Expect::Absent, Action::Check)),
            // The same call has asked again.
            Ok(Some(row)) if read(&row).is_ok_and(|(live, _)| live.id != kept.id) => {}
            Ok(Some(_)) | Err(_) => return,
        }
        // Of several who see it at once, one tells it.
        if matches!(self.shelf.change(changes, Tell::Nobody).await, Ok(changed) if changed.is_done()) {
            self.tell(kept, "expired", None, None, "");
        }
    }
}
