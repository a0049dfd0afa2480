//! Personas that an administrator describes: for `explain`, `--as` and `tests.toml`.
//!
//! Fills in what the configuration knows (default roles, the agent's environments). A persona proves
//! nothing; only authentication makes a caller.

use super::Policy;
use super::world::Strictness;
use crate::identity::{Behind, ClientProof, Groups, Persona};
use crate::ids::{AgentId, IssuerAlias, Subject};

/// Somebody as a command line or a test describes them.
#[derive(Debug, Clone)]
pub struct Described {
    /// `user:ISSUER/SUB`; none for an agent on its own.
    pub user: Option<Subject>,
    /// `group:ISSUER/NAME`.
    pub groups: Vec<Subject>,
    /// The agent that calls.
    pub agent: Option<AgentId>,
    /// Further actors, outermost first.
    pub chain: Vec<AgentId>,
    /// The token's scopes.
    pub scopes: Vec<String>,
    /// How the client proves itself.
    pub client_proof: ClientProof,
    /// When the human authenticated, seconds since 1970.
    pub authenticated_at: Option<i64>,
    /// Authentication context class.
    pub acr: Option<String>,
}

impl Default for Described {
    fn default() -> Self {
        Self {
            user: None,
            groups: Vec::new(),
            agent: None,
            chain: Vec::new(),
            scopes: Vec::new(),
            client_proof: ClientProof::Public,
            authenticated_at: None,
            acr: None,
        }
    }
}

impl Policy {
    /// The persona that a description means.
    ///
    /// # Errors
    /// A lower-case fragment: nobody is described, or an issuer or agent is not declared.
    pub fn persona(&self, described: &Described) -> Result<Persona, String> {
        let named = described.user.iter().chain(&described.groups).find_map(issuer_of);
        let first = self.world.issuers.first().map(|issuer| issuer.alias.clone());
        let issuer = named.or(first).ok_or_else(|| "no issuer is declared in servers.toml".to_owned())?;
        let known = self.world.issuers.iter().find(|known| known.alias == issuer);
        if known.is_none() && self.world.strictness == Strictness::Serve {
            return Err(format!("there is no issuer `{issuer}` in servers.toml"));
        }
        let known_agent = |id: &AgentId| {
            let found = self.world.agents.iter().find(|agent| agent.id == *id);
            found.cloned().ok_or_else(|| format!("there is no agent `{id}` in agents.toml"))
        };
        if described.user.is_none() && described.agent.is_none() {
            return Err("nobody is described; name a user, an agent, or both".to_owned());
        }
        let mut groups = described.groups.clone();
        groups.sort();
        let mut scopes = described.scopes.clone();
        scopes.sort();
        let agent = described.agent.as_ref().map(known_agent).transpose()?;
        Ok(Persona {
            behind: Behind::told_by(described.user.as_ref(), agent.as_ref()),
            default_roles: known.map(|issuer| issuer.default_roles.clone()).unwrap_or_default(),
            issuer,
            user: described.user.clone(),
            groups: Groups::Known(groups),
            agent,
            chain: described.chain.iter().map(known_agent).collect::<Result<_, _>>()?,
            scopes,
            client: None,
            client_proof: described.client_proof,
            authenticated_at: described.authenticated_at,
            acr: described.acr.clone(),
        })
    }
}

fn issuer_of(subject: &Subject) -> Option<IssuerAlias> {
    let (_, rest) = subject.as_str().split_once(':')?;
    IssuerAlias::new(rest.split_once('/')?.0).ok()
}
