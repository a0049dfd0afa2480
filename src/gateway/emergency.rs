//! Emergency access as administrators see it, and who has it for the moment.
//!
//! Decides nothing: it puts what the guard keeps into words, and remembers for one epoch what is open. Invariant: where
//! the store cannot be read nobody has any.

use serde::{Deserialize, Serialize};

use super::{Gateway, Live};
use crate::guard::approval::BreakGlass;
use crate::identity::{Caller, now_s};
use crate::ids::{Digest, RevocationEpoch};
use crate::outcome::{Reason, Refusal, Stop};
use crate::record::Who;
use crate::shelf::Version;

/// What was open at an epoch.
#[derive(Debug, Default)]
pub(super) struct Emergencies {
    epoch: Option<RevocationEpoch>,
    open: Vec<(BreakGlass, Version)>,
}

/// One emergency access.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct BreakGlassView {
    /// Its name.
    pub id: String,
    /// `asked`, `expired`, `open`, `to_review` or `reviewed`.
    pub state: String,
    /// Which kind.
    pub name: String,
    /// The role that it gives.
    pub role: String,
    /// Who asked for it.
    pub user: String,
    /// Why.
    pub reason: String,
    /// When.
    pub asked_at: jiff::Timestamp,
    /// How long it lasts: seconds.
    pub seconds: u32,
    /// Who has agreed.
    pub approvers: Vec<String>,
    /// When it is over, or until when it waits for others.
    pub until: jiff::Timestamp,
    /// Who ended it before that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Who has looked at what was done with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reviewed_by: Option<String>,
    /// What they found.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The digest of what is agreed to.
    pub shown: Digest,
    /// The page of the console where it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `POST /break-glass`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BreakGlassOrder {
    /// Which kind: `[break_glass.NAME]`.
    pub name: String,
    /// Why.
    pub reason: String,
}

impl Live {
    /// Whether somebody who began with emergency access still has it: as whoever begins now.
    ///
    /// # Errors
    /// `break_glass_over`.
    pub(super) fn still_in_emergency(&self, caller: &Caller) -> Result<(), Refusal> {
        let Some(elevation) = caller.elevation() else { return Ok(()) };
        let (known, now, now_us) = (self.emergencies.load(), self.snapshot.load(), self.standing.now_us());
        let files = (&*now.config, &*now.policy);
        let still = known.open.iter().any(|(one, version)| {
            one.of.id == elevation.id
                && version.0 == elevation.version
                && one.is_usable(caller, files, &self.revocations, now_us)
        });
        if still { Ok(()) } else { Err(Refusal::new(Reason::BreakGlassOver)) }
    }
}

impl Gateway {
    /// All of them, newest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn emergencies(&self) -> Result<Vec<BreakGlassView>, Stop> {
        let (found, now_us) = self.guard().approvals().emergencies().await?;
        Ok(found.iter().map(|one| self.told_emergency(one, now_us)).collect())
    }

    /// Asks for one for oneself.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::ask`].
    pub async fn ask_emergency(&self, order: &BreakGlassOrder, by: &Caller) -> Result<BreakGlassView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let revision = now.policy.revision();
        let asked = self.guard().approvals().ask(&order.name, &order.reason, by, &now.config, revision).await?;
        Ok(self.told_emergency(&asked.0, asked.1))
    }

    /// Agrees to one.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::agree`].
    pub async fn agree_emergency(&self, id: &str, shown: Digest, by: &Caller) -> Result<BreakGlassView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let files = (&*now.config, &*now.policy);
        let (one, now_us) = self.guard().approvals().agree(id, shown, (by, now_s()), files).await?;
        self.take_revocations().await?;
        Ok(self.told_emergency(&one, now_us))
    }

    /// Ends one.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::end`].
    pub async fn end_emergency(
        &self,
        id: &str,
        by: &str,
        note: &str,
        who: Option<&Who>,
    ) -> Result<BreakGlassView, Stop> {
        let (one, now_us) = self.guard().approvals().end(id, by, note, who).await?;
        self.take_revocations().await?;
        Ok(self.told_emergency(&one, now_us))
    }

    /// Says that somebody has looked at what was done with one.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::reviewed`].
    pub async fn review_emergency(&self, id: &str, by: &Caller, note: &str) -> Result<BreakGlassView, Stop> {
        let (one, now_us) = self.guard().approvals().reviewed(id, by, note).await?;
        Ok(self.told_emergency(&one, now_us))
    }

    /// The same caller with what an emergency gives them for the moment.
    pub(super) async fn in_emergency(&self, caller: Caller) -> Caller {
        let now = self.snapshot();
        if now.config.break_glass.is_empty() {
            return caller;
        }
        let epoch = self.revocation_epoch();
        let mut known = self.live.emergencies.load_full();
        if known.epoch != Some(epoch) {
            self.follow_emergencies().await;
            known = self.live.emergencies.load_full();
        }
        let (files, now_us) = ((&*now.config, &*now.policy), self.standing().now_us());
        self.guard().approvals().with_emergency(&known.open, &caller, files, now_us).unwrap_or(caller)
    }

    /// Reads which are open, for the epoch that is in force.
    pub(super) async fn follow_emergencies(&self) {
        if self.config().break_glass.is_empty() {
            return;
        }
        // The epoch first: what is read afterwards is no older.
        let epoch = self.revocation_epoch();
        let read = match self.guard().approvals().open_ones().await {
            Ok(open) => Emergencies { epoch: Some(epoch), open },
            Err(failure) => {
                tracing::warn!(%failure, "nobody has emergency access for now");
                Emergencies::default()
            }
        };
        self.live.emergencies.store(std::sync::Arc::new(read));
    }

    /// Has calls looked at again that were begun with emergency access which is over by now.
    pub async fn look_after_emergencies(&self) {
        let now_us = self.standing().now_us();
        let is_over = |(one, _): &(BreakGlass, Version)| one.until_us.is_none_or(|until_us| until_us <= now_us);
        if self.live.emergencies.load().open.iter().any(is_over) {
            self.follow_emergencies().await;
            self.decided_anew();
        }
    }

    fn told_emergency(&self, one: &BreakGlass, now_us: i64) -> BreakGlassView {
        let config = self.config();
        let moment = |at_us: i64| jiff::Timestamp::from_microsecond(at_us).unwrap_or_default();
        let admin = config.admin.as_ref().filter(|admin| admin.console.is_some());
        let remark = one.reviewed.as_ref().or(one.ended.as_ref());
        BreakGlassView {
            id: one.of.id.clone(),
            state: one.state(now_us).to_owned(),
            name: one.name.clone(),
            role: one.role.clone(),
            user: one.of.requester.party.user.clone(),
            reason: one.reason.clone(),
            asked_at: moment(one.of.requested_at_us),
            seconds: u32::try_from(one.for_us / 1_000_000).unwrap_or(u32::MAX),
            approvers: one.of.decisions.iter().map(|decision| decision.user.clone()).collect(),
            until: moment(one.until_us.unwrap_or(one.of.pending_until_us)),
            ended_by: one.ended.as_ref().map(|remark| remark.by.clone()),
            reviewed_by: one.reviewed.as_ref().map(|remark| remark.by.clone()),
            note: remark.map(|remark| remark.note.clone()).unwrap_or_default(),
            shown: one.of.shown,
            url: admin.map(|admin| format!("{}/break-glass", admin.resource())),
        }
    }
}
