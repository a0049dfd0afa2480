//! `policies/agents.toml`: which agents there are, who answers for each, and how it is recognised.
//!
//! Decides nothing. Invariant: every agent has an owner and a purpose.

use super::mandate::{AgentBudget, MandateNeed};
use crate::ids::{AgentId, Digest, Environment, IssuerAlias};

/// What an API key of ours begins with.
pub const API_KEY_PREFIX: &str = "bwk_";

/// `policies/agents.toml`: software that calls on its own or for a person.
#[derive(Debug, Clone)]
pub struct AgentConfig {
    /// Its name in rules: `agent:ID`.
    pub id: AgentId,
    /// The person who answers for it, as a subject.
    pub owner: String,
    /// Which human that is, as the `person` claim of their issuer says it.
    pub owner_person: Option<String>,
    /// The group that answers when the owner is gone.
    pub sponsor_group: Option<String>,
    /// What it is for.
    pub purpose: String,
    /// Used by a person, or on its own.
    pub kind: AgentKind,
    /// Where it may act.
    pub environments: Vec<Environment>,
    /// How it is recognised.
    pub clients: Vec<AgentClient>,
    /// Its API keys, where no issuer knows it.
    pub keys: Vec<ApiKeyConfig>,
    /// Whether it may act at all.
    pub state: AgentState,
    /// After this day it may not act.
    pub expires: Option<jiff::civil::Date>,
    /// When its rights are looked at again.
    pub review: Option<jiff::civil::Date>,
    /// Whether it needs a mandate, where that is not what its kind says.
    pub mandates: Option<MandateNeed>,
    /// What it may use up over all its mandates.
    pub budget: AgentBudget,
}

impl AgentConfig {
    /// Whether its calls need a mandate: those of an agent that acts on its own do, unless its entry says otherwise.
    #[must_use]
    pub fn mandate_need(&self) -> MandateNeed {
        self.mandates.unwrap_or(match self.kind {
            AgentKind::Interactive => MandateNeed::Optional,
            AgentKind::Autonomous => MandateNeed::Required,
        })
    }

    /// Who answers for what is done through it with that key, or without one: its owner, and the key's.
    pub fn answered_for_by<'a>(&'a self, key: Option<&'a str>) -> impl Iterator<Item = &'a str> {
        let of_key = self.keys.iter().filter(move |own| Some(own.id.as_str()) == key);
        std::iter::once(self.owner.as_str()).chain(of_key.map(|own| own.owner.as_str()))
    }
}

/// Used by a person, or on its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentKind {
    /// An assistant used by a person.
    Interactive,
    /// Acts on its own; needs more proof than a public client id.
    Autonomous,
}

/// An API key of an agent: never the key, which nobody has but whoever it was made for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiKeyConfig {
    /// Its name in the record and in revocations.
    pub id: String,
    /// The SHA-256 of the key.
    pub digest: Digest,
    /// The person who answers for it.
    pub owner: String,
    /// Which human that is, as the `person` claim of their issuer says it.
    pub owner_person: Option<String>,
    /// When it was made.
    pub created: jiff::Timestamp,
    /// The last day on which it is good.
    pub expires: jiff::civil::Date,
}

/// How an agent is recognised: an issuer may name only agents that list it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentClient {
    /// The issuer.
    pub issuer: IssuerAlias,
    /// What the name is there.
    pub known_by: KnownBy,
    /// The client id, CIMD URL or SPIFFE id there, or the subject of software whose tokens name no client.
    pub client_id: String,
    /// What the issuer demands of this client before it gives it a token, as the administrator knows.
    pub proof: DeclaredProof,
}

/// Which claim names an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum KnownBy {
    /// The client.
    Client,
    /// The subject: software that has tokens of its own without being anybody's client, such as a workload of
    /// Kubernetes.
    Subject,
}

/// How a client proves itself to its issuer, weakest first; written by an administrator, because no token says it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum DeclaredProof {
    /// By its id alone, which proves nothing.
    #[default]
    Public,
    /// By a secret.
    Secret,
    /// By a signed assertion.
    PrivateKey,
    /// By a certificate.
    Mtls,
}

/// Whether an agent may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AgentState {
    /// Seen, not yet accepted.
    Proposed,
    /// May act.
    Active,
    /// Stopped for now.
    Suspended,
    /// Stopped for good.
    Retired,
    /// Taken back, it or whoever answers for it; never in a file.
    Revoked,
}
