//! Whether somebody who was let in still is who they were taken for: open streams and calls under way outlive reloads.
//!
//! Decides by the configuration in force. Refuses to know revocations and keys. Invariant: whom the files would not let in
//! any more as the same agent, of the same issuer, with the same proof, acts no further.

use std::sync::Arc;

use super::agent::{active, declared, facts};
use super::api_key;
use super::caller::{Caller, Verified};
use super::persona::AgentFacts;
use crate::config::{AgentClient, AgentConfig, Config, IssuerConfig, KnownBy};
use crate::ids::{AgentId, IssuerAlias};
use crate::outcome::{Reason, Refusal};

/// Whether the configuration in force still knows whom an earlier one let in: open streams and calls under way
/// outlive reloads.
///
/// # Errors
/// `issuer_unknown`, or `agent_inactive` where an agent is gone, may not act any more, has become another, or is not
/// the one any more that the client or the workload is.
pub fn still_stands(config: &Config, caller: &Caller) -> Result<(), Refusal> {
    caller.all_verified().try_for_each(|verified| stands(config, verified))
}

fn stands(config: &Config, verified: &Verified) -> Result<(), Refusal> {
    let (persona, token) = (&verified.persona, &verified.token);
    let issuer = config.issuers.iter().find(|issuer| issuer.alias == persona.issuer);
    let vouched = match persona.issuer.as_str() {
        super::ANONYMOUS => config.anonymous,
        super::LOCAL => config.local.is_some(),
        super::KEYS => {
            let own = persona.agent.as_ref();
            let still = own.is_some_and(|agent| api_key::still_there(config, token, &agent.id));
            if !still {
                return Err(Refusal::new(Reason::KeyUnknown).hint("the key is not in the agent's entry any more"));
            }
            true
        }
        _ => issuer.is_some(),
    };
    if !vouched {
        return Err(Refusal::new(Reason::IssuerUnknown));
    }
    if let (Some(then), Some(now)) = (&verified.issuer, issuer)
        && !Arc::ptr_eq(then, now)
        && !then.verifies_like(now)
    {
        return Err(Refusal::new(Reason::IssuerUnknown).hint("the issuer's entry has changed; connect again"));
    }
    if let (Some(known), Some(client)) = (&persona.agent, &persona.client)
        && persona.issuer.as_str() != super::KEYS
    {
        let subject = token.subject.as_deref();
        let declared_now =
            config.agents.get(&known.id).map(|agent| declared(agent, &persona.issuer, Some(client), subject));
        let declared_now = declared_now.unwrap_or_default();
        if declared_now < verified.declared_proof {
            return Err(Refusal::new(Reason::ClientProofInsufficient));
        }
    }
    if persona.agent.is_none() && ![super::ANONYMOUS, super::LOCAL].contains(&persona.issuer.as_str()) {
        let admin = config.admin.as_ref();
        if !admin.is_some_and(|admin| admin.has_client(&persona.issuer, persona.client.as_deref())) {
            return Err(Refusal::new(Reason::AgentUnknown).hint("the client is not an administrators' client any more"));
        }
    }
    for known in persona.agent.iter().chain(&persona.chain) {
        let agent = config.agents.get(&known.id).ok_or_else(|| Refusal::new(Reason::AgentInactive))?;
        active(agent, super::now_s())?;
        if facts(agent) != *known {
            return Err(Refusal::new(Reason::AgentInactive).hint("the agent's entry has changed; connect again"));
        }
    }
    verified.rests.still_said(config, persona.agent.as_ref(), issuer)
}

/// What the files have to go on saying for a caller to be who they were taken for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Rests {
    /// By which names their agents are known: first the one that calls, unless it is the issuer's default.
    pub named: Vec<KnownAs>,
    /// The client that is nobody's of its own.
    pub unregistered: Option<String>,
    /// The agent that calls is the issuer's default.
    pub by_default: bool,
}

/// By which name an agent is known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct KnownAs {
    agent: AgentId,
    issuer: IssuerAlias,
    known_by: KnownBy,
    name: String,
}

impl KnownAs {
    /// As the files name it.
    pub fn new(agent: &AgentConfig, issuer: &IssuerAlias, known_by: KnownBy, name: &str) -> Self {
        Self { agent: agent.id.clone(), issuer: issuer.clone(), known_by, name: name.to_owned() }
    }

    fn is_of(&self, agent: &AgentConfig) -> bool {
        agent
            .clients
            .iter()
            .any(|known| known.known_by == self.known_by && known.issuer == self.issuer && known.client_id == self.name)
    }
}

impl Rests {
    /// Of somebody without an agent.
    pub const fn none() -> Self {
        Self { named: Vec::new(), unregistered: None, by_default: false }
    }

    /// Whether the files still say it.
    fn still_said(
        &self,
        config: &Config,
        agent: Option<&AgentFacts>,
        issuer: Option<&Arc<IssuerConfig>>,
    ) -> Result<(), Refusal> {
        let gone = |hint: &'static str| Err(Refusal::new(Reason::AgentInactive).hint(hint));
        if !self.named.iter().all(|known| config.agents.get(&known.agent).is_some_and(|agent| known.is_of(agent))) {
            return gone("the agent's entry does not list this client or workload any more; connect again");
        }
        let (Some(agent), Some(issuer)) = (agent, issuer) else { return Ok(()) };
        if self.by_default && issuer.interactive_default.as_ref() != Some(&agent.id) {
            return gone("clients without an entry are another agent now; connect again");
        }
        let Some(client) = &self.unregistered else { return Ok(()) };
        let is_it = |known: &AgentClient| {
            known.known_by == KnownBy::Client && known.client_id == *client && known.issuer == issuer.alias
        };
        if config.agents.values().any(|other| other.id != agent.id && other.clients.iter().any(is_it)) {
            return gone("the client is an agent of its own now; connect again");
        }
        Ok(())
    }
}
