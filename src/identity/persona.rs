//! Who somebody is, as far as decisions may know it: facts without tokens.
//!
//! A [`Persona`] is a description and proves nothing: `explain` makes one from a command line. What a
//! call needs is a [`super::Caller`], which only authentication makes.

use crate::config::DeclaredProof;
use crate::ids::{AgentId, Digest, Environment, IssuerAlias, PrincipalKey, Subject};

/// Who somebody is, as far as decisions may know it.
#[derive(Debug, Clone)]
pub struct Persona {
    /// The issuer that vouches.
    pub issuer: IssuerAlias,
    /// The human or service subject; for an autonomous agent's own token this is its `sub` as well.
    pub user: Option<Subject>,
    /// The user's groups.
    pub groups: Groups,
    /// The agent that calls.
    pub agent: Option<AgentFacts>,
    /// Further actors, outermost first; each must be allowed too.
    pub chain: Vec<AgentFacts>,
    /// Roles that the issuer gives everyone.
    pub default_roles: Vec<String>,
    /// The token's scopes, sorted.
    pub scopes: Vec<String>,
    /// The client id as the token has it.
    pub client: Option<String>,
    /// How the client proved itself.
    pub client_proof: ClientProof,
    /// When the human authenticated, seconds since 1970.
    pub authenticated_at: Option<i64>,
    /// Authentication context class.
    pub acr: Option<String>,
    /// Whether a person stands behind it.
    pub behind: Behind,
}

/// Whether a person stands behind a caller.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Behind {
    /// Somebody for whom software calls.
    Person,
    /// Nobody: software has the credential for itself.
    Nobody,
    /// Nothing says it: whoever acts on its own with another's name may or may not act for somebody.
    Unknown,
}

impl Behind {
    /// Behind a caller with that subject that calls through that agent, as far as the two tell.
    #[must_use]
    pub fn told_by(user: Option<&Subject>, agent: Option<&AgentFacts>) -> Self {
        match (user, agent) {
            (None, _) => Self::Nobody,
            (Some(_), Some(agent)) if agent.autonomous => Self::Unknown,
            (Some(_), _) => Self::Person,
        }
    }

    /// The spelling in digests.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Nobody => "nobody",
            Self::Unknown => "unknown",
        }
    }
}

/// An agent as a decision sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AgentFacts {
    /// Its name.
    pub id: AgentId,
    /// Where it may act.
    pub environments: Vec<Environment>,
    /// Whether it acts on its own.
    pub autonomous: bool,
}

impl AgentFacts {
    /// Whether it is that agent, and may act where that one may, or in fewer places.
    #[must_use]
    pub fn may_no_more_than(&self, other: &Self) -> bool {
        let Self { id, environments, autonomous } = self;
        (id, autonomous) == (&other.id, &other.autonomous)
            && environments.iter().all(|one| other.environments.contains(one))
    }
}

/// The groups of a user: *unknown* is not *empty*, because empty would turn denies off.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Groups {
    /// All of them, sorted.
    Known(Vec<Subject>),
    /// Configured but absent, truncated or too old; the text says which, for the record.
    Unknown(String),
}

/// How a client proved itself, weakest first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ClientProof {
    /// Not at all.
    None,
    /// A public client id, which proves nothing.
    Public,
    /// A client secret.
    Secret,
    /// A signed client assertion.
    PrivateKey,
    /// Mutual TLS.
    Mtls,
    /// A SPIFFE identity.
    Svid,
}

impl From<DeclaredProof> for ClientProof {
    fn from(declared: DeclaredProof) -> Self {
        match declared {
            DeclaredProof::Public => Self::Public,
            DeclaredProof::Secret => Self::Secret,
            DeclaredProof::PrivateKey => Self::PrivateKey,
            DeclaredProof::Mtls => Self::Mtls,
        }
    }
}

impl ClientProof {
    /// The spelling in files and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Public => "public",
            Self::Secret => "secret",
            Self::PrivateKey => "private_key",
            Self::Mtls => "mtls",
            Self::Svid => "svid",
        }
    }
}

impl Persona {
    /// Whether an agent acts on its own, called or in the chain, and the client has shown no more than its public
    /// id, which anybody can write. A person's assistant may be public: the person's login is the proof.
    #[must_use]
    pub fn lacks_proof(&self) -> bool {
        self.client_proof <= ClientProof::Public && self.agent.iter().chain(&self.chain).any(|agent| agent.autonomous)
    }

    /// Issuer, subject, client, agent and chain: who sessions, handles and quotas belong to.
    #[must_use]
    pub fn principal(&self) -> PrincipalKey {
        let mut parts: Vec<&[u8]> = vec![
            self.issuer.as_str().as_bytes(),
            self.user.as_ref().map_or("", Subject::as_str).as_bytes(),
            self.client.as_deref().unwrap_or("").as_bytes(),
            self.agent.as_ref().map_or("", |agent| agent.id.as_str()).as_bytes(),
        ];
        parts.extend(self.chain.iter().map(|agent| agent.id.as_str().as_bytes()));
        PrincipalKey(Digest::of("bailiwick/principal/v1", &parts))
    }
}
