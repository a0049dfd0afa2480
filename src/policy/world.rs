//! What rules may speak about: the environments, servers, issuers and agents that are configured.
//!
//! Decides nothing. Invariant: a rule that names something outside of the world is a mistake, never a rule
//! that silently does nothing.

use std::sync::Arc;

use crate::config::{AgentKind, Config, GateConfig, ScopeMode};
use crate::identity::{AgentFacts, LOCAL};
use crate::ids::{Environment, IssuerAlias, ServerId, TemplateName};

/// The environment of the gateway's own operations, `bailiwick/...`; it always exists.
pub const GATEWAY_ENVIRONMENT: &str = "gateway";
/// The server name of the gateway's own operations.
pub use crate::ids::GATEWAY_SERVER;

/// What rules may speak about.
#[derive(Debug, Clone)]
pub struct World {
    /// The declared environments.
    pub environments: Vec<Environment>,
    /// The upstream servers and where their effects land.
    pub servers: Vec<(ServerId, Environment)>,
    /// The issuers.
    pub issuers: Vec<Issuer>,
    /// The registered agents.
    pub agents: Vec<AgentFacts>,
    /// The templates of mandates: each is an operation of the gateway's own.
    pub templates: Vec<TemplateName>,
    /// What a row that names an undeclared issuer is.
    pub strictness: Strictness,
    /// Roles that somebody gets in an emergency.
    pub emergency_roles: Vec<String>,
    /// Which calls need a person.
    pub gates: Vec<Arc<GateConfig>>,
}

/// An issuer as the policy sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// Its name in subjects.
    pub alias: IssuerAlias,
    /// Roles that everyone from there has.
    pub default_roles: Vec<String>,
    /// Whether calls need token scopes.
    pub scopes: ScopeMode,
}

/// What a row that names an undeclared issuer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Strictness {
    /// A mistake.
    Serve,
    /// Inert: the repository's files name issuers that a demo does not have.
    Demo,
}

impl World {
    /// The world of a configuration.
    #[must_use]
    pub fn of(config: &Config, strictness: Strictness) -> Self {
        let local = IssuerAlias::new(LOCAL).ok().filter(|_| config.local.is_some());
        let local = local.map(|alias| Issuer { alias, default_roles: Vec::new(), scopes: ScopeMode::Ignored });
        Self {
            environments: config.environments.clone(),
            servers: config.servers.iter().map(|server| (server.id.clone(), server.environment.clone())).collect(),
            issuers: config
                .issuers
                .iter()
                .map(|issuer| Issuer {
                    alias: issuer.alias.clone(),
                    default_roles: issuer.default_roles.clone(),
                    scopes: issuer.scopes.clone(),
                })
                .chain(local)
                .collect(),
            agents: config
                .agents
                .values()
                .map(|agent| AgentFacts {
                    id: agent.id.clone(),
                    environments: agent.environments.clone(),
                    autonomous: agent.kind == AgentKind::Autonomous,
                })
                .collect(),
            templates: config.templates.keys().cloned().collect(),
            strictness,
            emergency_roles: config.break_glass.iter().map(|one| one.role.clone()).collect(),
            gates: config.gates.clone(),
        }
    }

    pub(super) fn has_issuer(&self, alias: &str) -> bool {
        self.issuers.iter().any(|issuer| issuer.alias.as_str() == alias)
    }
}

/// A role as rules spell it: `default_roles` may leave the `role:` out.
pub(super) fn role_name(text: &str) -> String {
    if text.starts_with("role:") { text.to_owned() } else { format!("role:{text}") }
}
