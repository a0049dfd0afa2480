//! Who asks, in words: what an explanation says of whoever a token belongs to.
//!
//! Decides nothing. Invariant: it is what the rules looked at, and nothing of the token but what it says.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::identity::{Bearer, Groups};
use crate::ids::Subject;

/// Who asks, as the rules see them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Asker {
    /// Who vouches for them: an issuer's alias.
    pub issuer: String,
    /// The person, or the software's own name.
    pub user: Option<String>,
    /// Whether a person stands behind it: `person`, `nobody` or `unknown`.
    pub behind: String,
    /// The agent that calls.
    pub agent: Option<String>,
    /// Further agents of the chain of delegation (`act`), the nearest first.
    pub chain: Vec<String>,
    /// The client.
    pub client: Option<String>,
    /// How that has proven itself.
    pub client_proof: String,
    /// The token's scopes.
    pub scopes: Vec<String>,
    /// The groups; nothing where they are not known.
    pub groups: Option<Vec<String>>,
    /// Until when the token is good.
    pub expires_at: Option<Timestamp>,
    /// What it has to come with: `proof` (DPoP), `certificate`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub comes_with: Vec<String>,
}

impl Asker {
    /// Whoever that token belongs to.
    #[must_use]
    pub fn of(bearer: &Bearer) -> Self {
        let persona = &bearer.persona;
        let needs = [(bearer.needs_proof, "proof"), (bearer.needs_certificate, "certificate")];
        let named = |subjects: &[Subject]| subjects.iter().map(ToString::to_string).collect();
        Self {
            issuer: persona.issuer.to_string(),
            user: persona.user.as_ref().map(ToString::to_string),
            behind: persona.behind.as_str().to_owned(),
            agent: persona.agent.as_ref().map(|agent| agent.id.to_string()),
            chain: persona.chain.iter().map(|agent| agent.id.to_string()).collect(),
            client: persona.client.clone(),
            client_proof: persona.client_proof.as_str().to_owned(),
            scopes: persona.scopes.clone(),
            groups: match &persona.groups {
                Groups::Known(groups) => Some(named(groups)),
                Groups::Unknown(_) => None,
            },
            // Some issuers say of no opaque token when it ends.
            expires_at: Timestamp::from_second(bearer.expires_at).ok(),
            comes_with: needs.iter().filter(|(needed, _)| *needed).map(|(_, what)| (*what).to_owned()).collect(),
        }
    }

    /// Who it is, in a few words.
    #[must_use]
    pub fn named(&self) -> String {
        let user = self.user.as_deref().unwrap_or("nobody");
        let agents = self.agent.iter().chain(&self.chain).map(|agent| format!(" through agent:{agent}"));
        std::iter::once(user.to_owned()).chain(agents).collect()
    }
}
