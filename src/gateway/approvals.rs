//! Requests for approval as administrators see them, and what they decide about them.
//!
//! Decides nothing: it puts what the guard keeps into words, and hands orders on with the configuration in force.

use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::config::{GateConfig, GateKind};
use crate::guard::approval::{Denier, Filter, Kept, page};
use crate::identity::{Caller, now_s};
use crate::ids::Digest;
use crate::outcome::{Reason, Refusal, Stop};
use crate::record::Who;

/// One request for approval: `GET /approvals` has those that wait, `GET /approvals/{id}` one of any state.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApprovalView {
    /// Its name.
    pub id: String,
    /// `pending`, `approved`, `denied`, `consumed`, `withdrawn` or `expired`.
    pub state: String,
    /// The gates that stopped the call.
    pub gates: Vec<String>,
    /// What its caller had seen that may not go there unless somebody says so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// What is still missing, gate by gate.
    pub missing: Vec<String>,
    /// Only whoever called can say yes to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_confirmed: bool,
    /// Who called.
    pub requester: String,
    /// With which agent, and further actors.
    pub agents: Vec<String>,
    /// The mandate that it was made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// The server.
    pub server: String,
    /// What is done.
    pub action: String,
    /// To what, in the server's spelling.
    pub name: String,
    /// The digest of its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Where its effects land.
    pub environment: String,
    /// The arguments: all of them, but for what the tool's schema calls a secret, and the rest of long texts.
    pub arguments: serde_json::Value,
    /// The digest of these, and of server, action, name and environment: what is approved.
    pub shown: Digest,
    /// When it was asked for.
    pub requested_at: jiff::Timestamp,
    /// Until when it is in its state.
    pub until: jiff::Timestamp,
    /// Who has approved.
    pub approvers: Vec<String>,
    /// Who has denied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied_by: Option<String>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The call that asked first.
    pub call: String,
    /// The page of the console where it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `POST /approvals/{id}/approve`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ApproveOrder {
    /// The digest of what was shown.
    pub shown: Digest,
}

/// `POST /approvals/{id}/deny`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DenyOrder {
    /// Why: the caller reads it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Gateway {
    /// Requests that wait, or all that are kept, newest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn approvals(&self, all: bool) -> Result<Vec<ApprovalView>, Stop> {
        let filter = if all { Filter::All } else { Filter::Pending };
        let (found, now_us) = self.guard().approvals().list(filter, &self.snapshot().written).await?;
        Ok(found.iter().map(|kept| self.told_approval(kept, now_us)).collect())
    }

    /// One request, looked at by somebody of that name.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn approval(&self, id: &str, name: &str, who: Option<&Who>) -> Result<ApprovalView, Stop> {
        let (kept, now_us) = self.guard().approvals().named(id, &self.snapshot().written).await?;
        self.guard().approvals().viewed(&kept, who, name);
        Ok(self.told_approval(&kept, now_us))
    }

    /// One of somebody's own.
    ///
    /// # Errors
    /// `target_unknown`, also for somebody else's; `store_unavailable`.
    pub async fn own_approval(&self, caller: &Caller, id: &str) -> Result<ApprovalView, Stop> {
        let (kept, now_us) = self.guard().approvals().named(id, &self.snapshot().written).await?;
        let own = caller.persona().user.as_ref().is_some_and(|user| user.as_str() == kept.requester.party.user);
        if own { Ok(self.told_approval(&kept, now_us)) } else { Err(Refusal::new(Reason::TargetUnknown).into()) }
    }

    /// Approves what was shown.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::approve`].
    pub async fn approve(&self, id: &str, approver: &Caller, shown: Digest) -> Result<ApprovalView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let files = (&*now.config, &*now.policy);
        let approvals = self.guard().approvals();
        let (kept, now_us) = approvals.approve(id, approver, shown, files, &now.written, now_s()).await?;
        Ok(self.told_approval(&kept, now_us))
    }

    /// Denies a request.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::deny`].
    pub async fn deny(&self, id: &str, name: &str, note: &str, who: Option<&Who>) -> Result<ApprovalView, Stop> {
        let denier = Denier { name: name.to_owned(), note: note.to_owned() };
        let (kept, now_us) = self.guard().approvals().deny(id, &denier, who, &self.snapshot().written).await?;
        Ok(self.told_approval(&kept, now_us))
    }

    fn told_approval(&self, kept: &Kept, now_us: i64) -> ApprovalView {
        let config = self.config();
        let moment = |at_us: i64| jiff::Timestamp::from_microsecond(at_us).unwrap_or_default();
        let gates = kept.gates.iter().map(|name| (name, config.gates.iter().find(|gate| gate.name == *name)));
        let missing = |(name, gate): (&String, Option<&std::sync::Arc<GateConfig>>)| match gate {
            None => Some(format!("{name}: this gate is gone: the call has to be made again")),
            Some(gate) if gate.kind == GateKind::Confirm => {
                (!kept.confirmed).then(|| format!("{name}: whoever called has to confirm it"))
            }
            Some(gate) => kept.waits_at(&config, std::iter::once(gate.as_ref())).map(|gate| {
                let who: Vec<String> = gate.approvers.iter().map(ToString::to_string).collect();
                format!("{name}: {} of {}", gate.approvals, who.join(", "))
            }),
        };
        ApprovalView {
            id: kept.id.clone(),
            state: kept.state(now_us).as_str().to_owned(),
            gates: kept.gates.clone(),
            after: kept.after.clone(),
            missing: gates.filter_map(missing).collect(),
            only_confirmed: !kept.asks,
            requester: kept.requester.party.user.clone(),
            agents: kept.requester.party.agents.clone(),
            mandate: kept.mandate.clone(),
            server: kept.server.clone(),
            action: kept.action.clone(),
            name: kept.name.clone(),
            definition: kept.definition.clone(),
            environment: kept.environment.clone(),
            arguments: serde_json::from_str(&kept.preview).unwrap_or_default(),
            shown: kept.shown,
            requested_at: moment(kept.requested_at_us),
            until: moment(kept.until_us()),
            approvers: kept.decisions.iter().map(|decision| decision.user.clone()).collect(),
            denied_by: kept.denied.as_ref().map(|denied| denied.by.clone()),
            note: kept.denied.as_ref().map(|denied| denied.note.clone()).unwrap_or_default(),
            call: kept.call.clone(),
            url: page(kept, &config),
        }
    }
}
