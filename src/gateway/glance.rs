//! How things stand, for administrators: the agents, the policy in force and how it came, what a revocation would stop.
//!
//! Decides nothing. Invariant: what is told of the last reload is what the record says of it, kept since the start.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Gateway;
use super::reload::ReloadReport;
use crate::config::{AgentConfig, AgentKind, AgentState, Config, Seal};
use crate::identity::revoked::RevocationTarget;
use crate::ids::PolicyRevision;

/// One agent, as `GET /agents` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentStatus {
    /// Its name in rules, without `agent:`.
    pub agent: String,
    /// Who answers for it.
    pub owner: String,
    /// Who answers when the owner is gone.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sponsor_group: String,
    /// What it is for.
    pub purpose: String,
    /// `interactive` or `autonomous`.
    pub kind: String,
    /// Where it may act.
    pub environments: Vec<String>,
    /// `proposed`, `active`, `suspended`, `retired`, `revoked`, or `expired` after its last day.
    pub state: String,
    /// Its last day.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires: Option<jiff::civil::Date>,
    /// When its rights are looked at again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub review: Option<jiff::civil::Date>,
    /// How it is recognised: `ISSUER/CLIENT`.
    pub clients: Vec<String>,
    /// Why it is stopped, where that was decided while the gateway runs.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub because: String,
    /// For whom alone it is stopped.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped_for: Vec<String>,
    /// Who said last that it is still needed; `files` when it was new.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub attested_by: String,
    /// Until when that is good.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attest_until: Option<Timestamp>,
}

/// The policy in force: the answer to `GET /policy`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PolicyStatus {
    /// Its revision.
    pub revision: Option<PolicyRevision>,
    /// What the seal says of the files: `absent`, `fits` or `broken`.
    pub seal: String,
    /// How many rules it has.
    pub rules: usize,
    /// The last reload since the start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reload: Option<LastReload>,
}

/// A reload, loaded or not.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastReload {
    /// When.
    pub at: Timestamp,
    /// Who asked.
    pub actor: String,
    /// What came of it.
    pub report: ReloadReport,
}

/// What a revocation would stop: the answer to `POST /revocations/reach`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reach {
    /// Whether the files know what is named; nobody knows every person, token and session.
    pub known: bool,
    /// Agents that could not act any more.
    pub agents: Vec<String>,
    /// Servers that nobody would reach any more.
    pub servers: Vec<String>,
}

impl Gateway {
    /// Every agent of the files.
    #[must_use]
    pub fn agents(&self) -> Vec<AgentStatus> {
        let today = jiff::tz::TimeZone::UTC.to_datetime(Timestamp::now()).date();
        let (now, lifecycle) = (self.snapshot(), self.lifecycle());
        let every = i64::try_from(now.written.attest_every.as_secs()).unwrap_or(i64::MAX);
        let told = |agent: &Arc<AgentConfig>| {
            let mut told = told(agent, today);
            if let Some(halted) = lifecycle.halted(&agent.id) {
                told.because = format!("by {}", halted.by);
                if !halted.note.is_empty() {
                    told.because = format!("{}: {}", told.because, halted.note);
                }
            }
            told.stopped_for = lifecycle.halted_for(&agent.id).map(|(user, _)| user.to_owned()).collect();
            if let Some(attested) = lifecycle.attested(&super::lifecycle::agent_key(&agent.id)) {
                told.attested_by.clone_from(&attested.by);
                told.attest_until = Timestamp::from_second(attested.at.saturating_add(every)).ok();
                let written = now.written.agents.get(&agent.id);
                let by_files = written.is_none_or(|written| written.state == AgentState::Suspended);
                if told.state == "suspended" && told.because.is_empty() && !by_files {
                    "nobody attested in time that it is still needed".clone_into(&mut told.because);
                }
            }
            let is_stopped = now.barred.stopped.agents.contains_key(&agent.id);
            let by_files = now.written.agents.get(&agent.id).is_some_and(|written| written.state != AgentState::Active);
            if told.because.is_empty() && is_stopped && !by_files {
                // That was told, whatever the clock says since.
                "its last day is over".clone_into(&mut told.because);
            }
            told
        };
        now.config.agents.values().map(told).collect()
    }

    /// The policy in force, and how it came.
    #[must_use]
    pub fn policy_status(&self) -> PolicyStatus {
        let now = self.snapshot();
        let seal = match now.files.seal() {
            Seal::Absent => "absent",
            Seal::Fits => "fits",
            Seal::Broken => "broken",
        };
        PolicyStatus {
            revision: Some(now.policy.revision()),
            seal: seal.to_owned(),
            rules: now.policy.rules().len(),
            reload: self.last_reload.load_full().map(|last| LastReload::clone(&last)),
        }
    }

    /// What a revocation would stop.
    #[must_use]
    pub fn reach(&self, target: &RevocationTarget) -> Reach {
        reach(&self.snapshot().config, target)
    }

    pub(super) fn remember_reload(&self, actor: &str, report: &ReloadReport) {
        let last = LastReload { at: Timestamp::now(), actor: actor.to_owned(), report: report.clone() };
        self.last_reload.store(Some(Arc::new(last)));
    }
}

fn told(agent: &AgentConfig, today: jiff::civil::Date) -> AgentStatus {
    let expired = agent.expires.is_some_and(|last| last < today);
    let state = match agent.state {
        AgentState::Active if expired => "expired",
        AgentState::Proposed => "proposed",
        AgentState::Active => "active",
        AgentState::Suspended => "suspended",
        AgentState::Retired => "retired",
        AgentState::Revoked => "revoked",
    };
    AgentStatus {
        agent: agent.id.to_string(),
        owner: agent.owner.clone(),
        sponsor_group: agent.sponsor_group.clone().unwrap_or_default(),
        purpose: agent.purpose.clone(),
        kind: if agent.kind == AgentKind::Interactive { "interactive" } else { "autonomous" }.to_owned(),
        environments: agent.environments.iter().map(ToString::to_string).collect(),
        state: state.to_owned(),
        expires: agent.expires,
        review: agent.review,
        clients: agent.clients.iter().map(|client| format!("{}/{}", client.issuer, client.client_id)).collect(),
        because: String::new(),
        stopped_for: Vec::new(),
        attested_by: String::new(),
        attest_until: None,
    }
}

fn reach(config: &Config, target: &RevocationTarget) -> Reach {
    let agents = |means: &dyn Fn(&AgentConfig) -> bool| {
        let meant = config.agents.values().filter(|agent| agent.state == AgentState::Active && means(agent));
        meant.map(|agent| agent.id.to_string()).collect::<Vec<_>>()
    };
    let servers = |means: &dyn Fn(&crate::config::ServerConfig) -> bool| {
        config.servers.iter().filter(|server| means(server)).map(|server| server.id.to_string()).collect::<Vec<_>>()
    };
    let (agents, servers, known) = match target {
        RevocationTarget::Token(_) | RevocationTarget::Session(_) | RevocationTarget::Credential(_) => {
            (Vec::new(), Vec::new(), true)
        }
        RevocationTarget::Subject(issuer, _) | RevocationTarget::SessionOf(issuer, _) => {
            (Vec::new(), Vec::new(), config.issuers.iter().any(|known| known.alias == *issuer))
        }
        RevocationTarget::Key(id) => {
            let of = agents(&|agent| agent.keys.iter().any(|key| key.id == *id));
            let known = config.agents.values().any(|agent| agent.keys.iter().any(|key| key.id == *id));
            (of, Vec::new(), known)
        }
        RevocationTarget::Client(issuer, id) => {
            let of =
                agents(&|agent| agent.clients.iter().any(|client| client.issuer == *issuer && client.client_id == *id));
            (of, Vec::new(), config.issuers.iter().any(|known| known.alias == *issuer))
        }
        RevocationTarget::Agent(id) => (agents(&|agent| agent.id == *id), Vec::new(), config.agents.contains_key(id)),
        RevocationTarget::Server(id) => (Vec::new(), servers(&|server| server.id == *id), config.server(id).is_some()),
        RevocationTarget::Owner(owner) => {
            let answers =
                |agent: &AgentConfig| agent.owner == *owner || agent.keys.iter().any(|key| key.owner == *owner);
            let (agents, servers) = (agents(&answers), servers(&|server| server.owner == *owner));
            let known = !agents.is_empty() || !servers.is_empty();
            (agents, servers, known)
        }
        RevocationTarget::Account(_, account) => {
            let there = servers(&|server| server.has_accounts() && account.parts().0 == server.id.as_str());
            let known = !there.is_empty();
            (Vec::new(), there, known)
        }
        // The files know templates, and not what was opened from them.
        RevocationTarget::Mandate(_) => (Vec::new(), Vec::new(), true),
        RevocationTarget::Everything => (agents(&|_| true), servers(&|_| true), true),
    };
    Reach { known, agents, servers }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::catalog::fake::server;
    use crate::identity::fixture;
    use crate::ids::{AgentId, ServerId};

    #[test]
    fn what_a_revocation_would_stop_is_told_by_name() {
        let mut config = fixture::config();
        config.servers = ["git", "notes"].map(|id| Arc::new(server(id))).to_vec();
        let owner = config.servers.first().unwrap().owner.clone();
        let active = config.agents.values().filter(|agent| agent.state == AgentState::Active).count();
        let everything = reach(&config, &RevocationTarget::Everything);
        assert_eq!((everything.agents.len(), everything.servers.len()), (active, 2));
        let one = reach(&config, &RevocationTarget::Server(ServerId::new("git").unwrap()));
        assert_eq!((one.known, one.servers), (true, vec!["git".to_owned()]));
        let owned = reach(&config, &RevocationTarget::Owner(owner));
        assert!(owned.known && !owned.servers.is_empty());
        let nobody = reach(&config, &RevocationTarget::Agent(AgentId::new("not-there").unwrap()));
        assert_eq!(nobody, Reach::default(), "a slip of the pen is seen before it is ordered");
    }

    #[test]
    fn an_agent_after_its_last_day_has_expired() {
        let config = fixture::config();
        let agent = config.agents.values().find(|agent| agent.state == AgentState::Active).unwrap();
        let agent = AgentConfig { expires: Some(jiff::civil::date(2026, 1, 31)), ..AgentConfig::clone(agent) };
        assert_eq!(told(&agent, jiff::civil::date(2026, 1, 31)).state, "active");
        assert_eq!(told(&agent, jiff::civil::date(2026, 2, 1)).state, "expired");
    }
}
