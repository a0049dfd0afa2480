//! API keys: the last resort of software that no issuer knows.
//!
//! Decides whose a key is by its SHA-256, which is enough for 256 random bits. Refuses to know where the files keep
//! it. Invariants: whatever begins like a key is a key or refused, and shown to nobody else; a key is its agent's alone,
//! stands for no person, reaches no administrators' listener and is never exchanged for anything.

use std::sync::Arc;

use secrecy::SecretString;

use super::binding::Binding;
use super::cache::{Basis, Entry};
use super::caller::{TokenFacts, Verified};
use super::chain::{Declined, Fresh};
use super::persona::{Behind, ClientProof, Groups, Persona};
use super::resource::Reach;
use super::{KEYS, Settings, agent, now_s};
use crate::config::{AgentConfig, ApiKeyConfig, Config, DeclaredProof};
use crate::ids::{Digest, IssuerAlias};
use crate::outcome::{Reason, Refusal};

/// What a key begins with, so that it can be recognised where it should not be.
pub const PREFIX: &str = crate::config::API_KEY_PREFIX;

/// The keys of all agents, each with the agent that it is of.
#[derive(Debug, Default)]
pub(super) struct ApiKeys(Vec<(Arc<AgentConfig>, ApiKeyConfig)>);

impl ApiKeys {
    /// Those of a configuration.
    pub fn new(config: &Config) -> Self {
        let of = |agent: &Arc<AgentConfig>| {
            agent.keys.iter().map(|key| (Arc::clone(agent), key.clone())).collect::<Vec<_>>()
        };
        Self(config.agents.values().flat_map(of).collect())
    }

    /// The key with that digest. Each is compared, and each completely.
    fn find(&self, digest: &Digest) -> Option<&(Arc<AgentConfig>, ApiKeyConfig)> {
        let mut found = None;
        for known in &self.0 {
            let same = aws_lc_rs::constant_time::verify_slices_are_equal(known.1.digest.as_bytes(), digest.as_bytes());
            if same.is_ok() {
                found = Some(known);
            }
        }
        found
    }
}

/// A fresh key, to be shown once.
///
/// # Errors
/// When the system gives no random bytes.
pub fn fresh() -> Result<SecretString, String> {
    use base64::Engine as _;
    let mut bytes = [0_u8; 32];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| "the system gives no random bytes".to_owned())?;
    let text = base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    Ok(SecretString::from(format!("{PREFIX}{text}")))
}

/// What this way says of a credential.
pub(super) fn examine(settings: &Settings, shown: Fresh<'_>, basis: &Basis) -> Result<Entry, Declined> {
    if !shown.text.starts_with(PREFIX) {
        return Err(Declined::NotMine(Refusal::new(Reason::TokenMalformed)));
    }
    let unknown = || Refusal::new(Reason::KeyUnknown);
    let (agent, key) = settings.keys.find(&shown.digest).ok_or_else(unknown)?;
    let alias = IssuerAlias::new(KEYS).map_err(|_| unknown())?;
    let now = now_s();
    let ends = ends(key);
    if now >= ends {
        let hint = format!("the key `{}` has expired; have a new one made with `bailiwick keys api new`", key.id);
        return Err(Refusal::new(Reason::TokenExpired).hint(hint).into());
    }
    let until = ends.min(agent::active(agent, now)?);
    let persona = Persona {
        issuer: alias.clone(),
        user: None,
        groups: Groups::Known(Vec::new()),
        agent: Some(agent::facts(agent)),
        chain: Vec::new(),
        default_roles: Vec::new(),
        scopes: Vec::new(),
        client: Some(key.id.clone()),
        client_proof: ClientProof::Secret,
        authenticated_at: None,
        acr: None,
        behind: Behind::Nobody,
    };
    let token = TokenFacts {
        digest: shown.digest,
        issuer: alias,
        subject: None,
        client: Some(key.id.clone()),
        id: Some(key.id.clone()),
        session: None,
        issued_at: Some(key.created.as_second()),
        expires_at: ends,
        for_administrators: false,
        person: crate::identity::Person::Nobody,
        hops: Vec::new(),
    };
    let verified = Verified::new(persona, token, DeclaredProof::Secret, settings.revision, None);
    Ok(Entry {
        verified: Arc::new(verified),
        reach: Reach::gateway(),
        binding: Binding::default(),
        until,
        basis: basis.clone(),
        with_certificate: std::sync::OnceLock::new(),
    })
}

/// Whether a configuration still has the key that somebody came with.
pub(super) fn still_there(config: &Config, token: &TokenFacts, agent: &crate::ids::AgentId) -> bool {
    let own = config.agents.get(agent).map(|agent| agent.keys.as_slice()).unwrap_or_default();
    own.iter().any(|key| key.digest == token.digest && now_s() < ends(key))
}

/// The first moment at which it is good no more: it is to the end of its last day, in UTC. A day whose end cannot be
/// computed counts as past.
fn ends(key: &ApiKeyConfig) -> i64 {
    agent::end_of(key.expires)
}
