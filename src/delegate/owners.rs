//! Whom a revocation names among issued credentials, where that depends on the files.
//!
//! Decides which agents and servers an owner answers for, and which secrets nobody can take back. Refuses to know how
//! anything is taken back.

use std::collections::HashMap;

use super::issued::Issued;
use super::takeback::{Taken, TakenBack};
use super::wanted::is_within;
use crate::config::{Config, CredentialConfig};
use crate::identity::revoked::RevocationTarget;

/// Owners, as the files name them.
#[derive(Debug, Default)]
pub(super) struct Owners {
    agents: HashMap<String, String>,
    servers: HashMap<String, String>,
    /// Servers that a secret of the gateway's is presented to.
    fixed: Vec<String>,
}

impl Owners {
    pub fn of(config: &Config) -> Self {
        let fixed = config.servers.iter().filter(|server| {
            let all = std::iter::once(&server.credential).chain(server.tool_credentials.values());
            all.into_iter().any(|credential| matches!(credential, CredentialConfig::Static(_)))
        });
        Self {
            agents: config.agents.values().map(|agent| (agent.id.to_string(), agent.owner.clone())).collect(),
            servers: config.servers.iter().map(|server| (server.id.to_string(), server.owner.clone())).collect(),
            fixed: fixed.map(|server| server.id.to_string()).collect(),
        }
    }

    /// Whether that owner answers for one of the agents, or for the server.
    pub fn owns(&self, owner: &str, agents: &[String], server: &str) -> bool {
        let is_owner = |of: Option<&String>| of.is_some_and(|of| of == owner);
        is_owner(self.servers.get(server)) || agents.iter().any(|agent| is_owner(self.agents.get(agent)))
    }

    /// Whether a revocation names an issued credential.
    pub fn names(&self, target: &RevocationTarget, issued: &Issued) -> bool {
        match target {
            RevocationTarget::Agent(agent) => issued.agents.contains(agent),
            RevocationTarget::Owner(owner) => {
                let agents: Vec<String> = issued.agents.iter().map(ToString::to_string).collect();
                self.owns(owner, &agents, issued.server.as_str())
            }
            RevocationTarget::Server(server) => issued.server == *server,
            RevocationTarget::Credential(id) => issued.id == *id,
            RevocationTarget::Mandate(mandate) => is_within(issued.mandate.as_deref(), mandate.as_str()),
            RevocationTarget::Everything => true,
            // What is linked is in the vault.
            RevocationTarget::Account(..) => false,
            RevocationTarget::Token(_)
            | RevocationTarget::Session(_)
            | RevocationTarget::SessionOf(..)
            | RevocationTarget::Key(_)
            | RevocationTarget::Subject(..)
            | RevocationTarget::Client(..) => issued.inbound.as_ref().is_some_and(|inbound| target.names(inbound)),
        }
    }

    /// What is to be said of secrets that a revocation makes unused: they stay good wherever else they are.
    pub fn fixed(&self, target: &RevocationTarget) -> Vec<TakenBack> {
        let named = self.fixed.iter().filter(|server| match target {
            RevocationTarget::Server(named) => named.as_str() == server.as_str(),
            RevocationTarget::Owner(owner) => self.servers.get(*server).is_some_and(|of| of == owner),
            RevocationTarget::Everything => true,
            _ => false,
        });
        let line = |server: &String| TakenBack {
            server: server.clone(),
            state: Taken::Unsupported,
            credentials: 1,
            expires_at: None,
            detail: "a secret of the gateway's own, which nobody issued: change it at the server".to_owned(),
        };
        named.map(line).collect()
    }
}
