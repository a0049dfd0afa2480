//! Callers without a credential: somebody anonymous, and the one user of a gateway in the assistant's own process.
//!
//! Decides when there is such a caller at all. Refuses to know requests. Invariant: both are made from the configuration
//! alone, and neither gets in at the administrators' listener.

use std::sync::Arc;

use super::caller::{TokenFacts, Verified};
use super::persona::{AgentFacts, Behind, ClientProof, Groups, Persona};
use super::{ANONYMOUS, LOCAL, agent};
use crate::config::{AgentConfig, Config, DeclaredProof};
use crate::ids::{Digest, IssuerAlias, Subject};

/// Somebody without a credential, where the configuration allows that: on a gateway for this machine only.
pub(super) fn anonymous(config: &Config, settings_revision: u64) -> Option<Verified> {
    let alias = IssuerAlias::new(ANONYMOUS).ok()?;
    let named_alike = config.issuers.iter().any(|issuer| issuer.alias == alias);
    if !config.anonymous || named_alike || !config.gateway.is_for_this_machine() {
        return None;
    }
    Some(without_token(alias, ANONYMOUS, None, Digest::of("bailiwick/anonymous/v1", &[]), settings_revision))
}

/// The user of a gateway in the assistant's own process: what the operating system says, through the agent that the
/// files name. No client has proven anything, and nobody has authenticated.
pub(super) fn local(config: &Config, settings_revision: u64) -> Option<(Verified, Arc<AgentConfig>)> {
    let user = config.local.as_ref()?;
    let alias = IssuerAlias::new(LOCAL).ok()?;
    let agent = Arc::clone(config.agents.get(&user.agent)?);
    let digest = Digest::of("bailiwick/local/v1", &[user.name.as_bytes()]);
    Some((without_token(alias, &user.name, Some(agent::facts(&agent)), digest, settings_revision), agent))
}

pub(super) fn without_token(
    alias: IssuerAlias,
    name: &str,
    agent: Option<AgentFacts>,
    digest: Digest,
    settings_revision: u64,
) -> Verified {
    // The operating system knows the one user; whoever sends no credential may be anything.
    let behind = if agent.is_some() { Behind::Person } else { Behind::Unknown };
    let persona = Persona {
        issuer: alias.clone(),
        user: Some(Subject::user(&alias, name)),
        groups: Groups::Known(Vec::new()),
        agent,
        chain: Vec::new(),
        default_roles: Vec::new(),
        scopes: Vec::new(),
        client: None,
        client_proof: ClientProof::None,
        authenticated_at: None,
        acr: None,
        behind,
    };
    let token = TokenFacts {
        digest,
        issuer: alias,
        subject: Some(name.to_owned()),
        client: None,
        id: None,
        session: None,
        issued_at: None,
        expires_at: i64::MAX,
        for_administrators: false,
        person: crate::identity::Person::Unknown,
        hops: Vec::new(),
    };
    Verified::new(persona, token, DeclaredProof::Public, settings_revision, None)
}
