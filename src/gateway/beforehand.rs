//! Standing approvals as administrators see them, and what they decide about them.
//!
//! Decides nothing: it puts what the guard keeps into words, and hands orders on with the files in force.

use serde::{Deserialize, Serialize};

use super::Gateway;
pub use crate::guard::approval::Wish;
use crate::guard::approval::{Standing, standing_counts};
use crate::identity::{Caller, now_s};
use crate::ids::Digest;
use crate::outcome::Stop;
use crate::record::Who;

/// One standing approval, or a proposal for one.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StandingView {
    /// Its name.
    pub id: String,
    /// `proposed`, `active`, `used_up`, or `void` where it lets nothing through under these files.
    pub state: String,
    /// Why it is void.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub why: String,
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
    /// Whose calls it lets through.
    pub requester: String,
    /// Through which agent, and further actors.
    pub agents: Vec<String>,
    /// Under mandates of which template; without one, it is for calls without a mandate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// The gates that it opens.
    pub gates: Vec<String>,
    /// The named condition on the arguments.
    pub condition: String,
    /// What that says.
    pub says: String,
    /// How many calls it lets through in all.
    pub uses: u32,
    /// How many it has.
    pub used: u32,
    /// For how long it is good from when everybody has said yes: seconds.
    pub seconds: u32,
    /// Until when it is in its state.
    pub until: jiff::Timestamp,
    /// Who has said yes.
    pub approvers: Vec<String>,
    /// How many persons are still missing.
    pub missing: u32,
    /// The digest of all this: what is said yes to.
    pub shown: Digest,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// The request that it was made of.
    pub like: String,
    /// The page of the console where it is decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
}

/// `POST /standing/{id}/revoke`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeBackOrder {
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl Gateway {
    /// All standing approvals and proposals, newest first.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn standing_approvals(&self) -> Result<Vec<StandingView>, Stop> {
        let (found, _) = self.guard().approvals().standing_ones().await?;
        let counts = standing_counts(self.store()).await?;
        let used = |standing: &Standing| counts.get(&standing.of.id).copied().unwrap_or_default();
        Ok(found.iter().map(|standing| self.told_standing(standing, used(standing))).collect())
    }

    /// One of them.
    ///
    /// # Errors
    /// `target_unknown`, `store_unavailable`.
    pub async fn standing_approval(&self, id: &str) -> Result<StandingView, Stop> {
        let (standing, _) = self.guard().approvals().standing_named(id).await?;
        let counts = standing_counts(self.store()).await?;
        Ok(self.told_standing(&standing, counts.get(id).copied().unwrap_or_default()))
    }

    /// Proposes one.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::propose`].
    pub async fn propose_standing(&self, wish: &Wish, by: &Caller) -> Result<StandingView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let files = (&*now.config, &*now.policy);
        let (standing, _) = self.guard().approvals().propose(wish, (by, now_s()), files, &now.written).await?;
        Ok(self.told_standing(&standing, 0))
    }

    /// Says yes to a proposal.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::give`].
    pub async fn give_standing(&self, id: &str, shown: Digest, by: &Caller) -> Result<StandingView, Stop> {
        self.standing().current()?;
        let now = self.snapshot();
        let given = self.guard().approvals().give(id, shown, (by, now_s()), &now.config, &now.policy).await?;
        Ok(self.told_standing(&given.0, 0))
    }

    /// Takes one back: in force with the next call.
    ///
    /// # Errors
    /// As [`crate::guard::Approvals::take_back`].
    pub async fn take_back_standing(
        &self,
        id: &str,
        by: &str,
        note: &str,
        who: Option<&Who>,
    ) -> Result<StandingView, Stop> {
        let standing = self.guard().approvals().take_back(id, by, note, who).await?;
        self.take_revocations().await?;
        let counts = standing_counts(self.store()).await?;
        Ok(self.told_standing(&standing, counts.get(id).copied().unwrap_or_default()))
    }

    fn told_standing(&self, standing: &Standing, used: i64) -> StandingView {
        let now = self.snapshot();
        let of = &standing.of;
        let stands = standing.stands(&now.config, &now.policy);
        let state = match (&stands, standing.is_proposed()) {
            (Err(_), _) => "void",
            (Ok(()), true) => "proposed",
            (Ok(()), false) if used >= i64::from(standing.uses) => "used_up",
            (Ok(()), false) => "active",
        };
        let admin = now.config.admin.as_ref().filter(|admin| admin.console.is_some());
        StandingView {
            id: of.id.clone(),
            state: state.to_owned(),
            why: stands.err().map(|refusal| refusal.hint.to_string()).unwrap_or_default(),
            server: of.server.clone(),
            action: of.action.clone(),
            name: of.name.clone(),
            definition: of.definition.clone(),
            environment: of.environment.clone(),
            requester: of.requester.party.user.clone(),
            agents: of.requester.party.agents.clone(),
            template: of.template.clone(),
            gates: of.gates.clone(),
            condition: standing.condition.clone(),
            says: standing.says.clone(),
            uses: standing.uses,
            used: u32::try_from(used).unwrap_or(u32::MAX),
            seconds: u32::try_from(standing.for_us / 1_000_000).unwrap_or(u32::MAX),
            until: jiff::Timestamp::from_microsecond(standing.ends_us()).unwrap_or_default(),
            approvers: of.decisions.iter().map(|decision| decision.user.clone()).collect(),
            missing: if standing.is_proposed() { standing.missing(&now.config) } else { 0 },
            shown: of.shown,
            note: standing.note.clone(),
            like: standing.like.clone(),
            url: admin.map(|admin| format!("{}/standing/{}", admin.resource(), of.id)),
        }
    }
}
