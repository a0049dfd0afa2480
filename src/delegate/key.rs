//! What a credential that was issued depends on: everything of it is in the key.
//!
//! Decides who may share a credential. Invariant: two keys are equal only where every input is.

use super::wanted::Wanted;
use crate::config::{CredentialConfig, ServerConfig, TokenRequest};
use crate::ids::{AgentId, Digest, IssuerAlias, ServerId};

/// What a credential that was issued depends on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Inputs<'a> {
    /// SHA-256 of the inbound token, which fixes its issuer, subject, client, actors and their issuers; nothing, where
    /// the credential is the gateway's own.
    pub inbound: Option<Digest>,
    /// Everything of the server's configuration that decides where the credential goes and how it is made.
    pub revision: Digest,
    /// The strategy with its whole configuration: tools of one server may have different ones.
    pub strategy: Digest,
    pub server: &'a ServerId,
    pub issuer: Option<&'a IssuerAlias>,
    pub agent: Option<&'a AgentId>,
    pub chain: Vec<&'a AgentId>,
    /// The governed task, where there is one.
    pub mandate: Option<&'a str>,
    pub resource: Option<&'a str>,
    pub audience: Option<&'a str>,
    pub scope: Option<&'a str>,
}

impl<'a> Inputs<'a> {
    /// The inputs of one question; `asks` is what the issuing authorization server is asked.
    pub fn new(wanted: &'a Wanted<'_>, credential: &CredentialConfig, asks: &'a TokenRequest) -> Self {
        let caller = wanted.caller.filter(|_| credential.is_per_caller());
        let persona = caller.map(crate::identity::Caller::persona);
        Self {
            inbound: caller.map(|caller| caller.token().digest),
            revision: wanted.revision,
            strategy: strategy(credential),
            server: wanted.id(),
            issuer: persona.map(|persona| &persona.issuer),
            agent: persona.and_then(|persona| persona.agent.as_ref()).map(|agent| &agent.id),
            chain: persona.map(|persona| persona.chain.iter().map(|agent| &agent.id).collect()).unwrap_or_default(),
            mandate: wanted.bound.mandate,
            resource: asks.resource.as_deref(),
            audience: asks.audience.as_deref(),
            scope: asks.scope.as_deref(),
        }
    }

    /// The key. Scopes are a set: their order and repetition do not matter.
    pub fn key(&self) -> Digest {
        let mut scopes: Vec<&str> = self.scope.unwrap_or("").split_ascii_whitespace().collect();
        scopes.sort_unstable();
        scopes.dedup();
        // Each list is digested by itself, so that no element can move from one to the next.
        let list = |items: &mut dyn Iterator<Item = &str>| {
            let parts: Vec<&[u8]> = items.map(str::as_bytes).collect();
            Digest::of("bailiwick/exchange-list/v1", &parts)
        };
        let chain = list(&mut self.chain.iter().map(|agent| agent.as_str()));
        let scopes = list(&mut scopes.into_iter());
        let optional = |value: Option<&str>| list(&mut value.into_iter());
        let inbound: Vec<&[u8]> = self.inbound.iter().map(|digest| digest.as_bytes().as_slice()).collect();
        let inbound = Digest::of("bailiwick/exchange-inbound/v1", &inbound);
        let issuer = optional(self.issuer.map(IssuerAlias::as_str));
        let (agent, mandate) = (optional(self.agent.map(AgentId::as_str)), optional(self.mandate));
        let (resource, audience) = (optional(self.resource), optional(self.audience));
        Digest::of(
            "bailiwick/exchange/v1",
            &[
                inbound.as_bytes(),
                self.revision.as_bytes(),
                self.strategy.as_bytes(),
                self.server.as_str().as_bytes(),
                issuer.as_bytes(),
                agent.as_bytes(),
                chain.as_bytes(),
                mandate.as_bytes(),
                resource.as_bytes(),
                audience.as_bytes(),
                scopes.as_bytes(),
            ],
        )
    }
}

/// A digest of what of a server's configuration decides where a credential goes and how it is made.
#[must_use]
pub fn server_revision(server: &ServerConfig) -> Digest {
    let mut parts = vec![server.id.to_string(), server.environment.to_string(), format!("{:?}", server.transport)];
    let named = std::iter::once((None, &server.credential))
        .chain(server.tool_credentials.iter().map(|(tool, credential)| (Some(tool), credential)));
    for (tool, credential) in named {
        // Secrets are in it as the places where they are.
        parts.push(format!("{tool:?}"));
        parts.push(format!("{credential:?}"));
    }
    let parts: Vec<&[u8]> = parts.iter().map(String::as_bytes).collect();
    Digest::of("bailiwick/server-revision/v1", &parts)
}

/// A digest of a strategy's whole configuration.
pub(super) fn strategy(credential: &CredentialConfig) -> Digest {
    Digest::of("bailiwick/credential-strategy/v1", &[format!("{credential:?}").as_bytes()])
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[derive(Debug, Clone, PartialEq)]
    struct Owned {
        inbound: Option<String>,
        revision: String,
        strategy: String,
        server: ServerId,
        issuer: Option<IssuerAlias>,
        agent: Option<AgentId>,
        chain: Vec<AgentId>,
        mandate: Option<String>,
        resource: Option<String>,
        audience: Option<String>,
        scope: Option<String>,
    }

    impl Owned {
        fn inputs(&self) -> Inputs<'_> {
            Inputs {
                inbound: self.inbound.as_ref().map(|token| Digest::sha256(token.as_bytes())),
                revision: Digest::sha256(self.revision.as_bytes()),
                strategy: Digest::sha256(self.strategy.as_bytes()),
                server: &self.server,
                issuer: self.issuer.as_ref(),
                agent: self.agent.as_ref(),
                chain: self.chain.iter().collect(),
                mandate: self.mandate.as_deref(),
                resource: self.resource.as_deref(),
                audience: self.audience.as_deref(),
                scope: self.scope.as_deref(),
            }
        }

        /// What may be shared: the same in every input, scopes compared as a set.
        fn comparable(&self) -> Self {
            let mut scopes: Vec<&str> = self.scope.as_deref().unwrap_or("").split_ascii_whitespace().collect();
            scopes.sort_unstable();
            scopes.dedup();
            Self { scope: Some(scopes.join(" ")), ..self.clone() }
        }
    }

    /// Few values, so that collisions of everything but one input are common.
    fn owned() -> impl Strategy<Value = Owned> {
        let text = || prop::sample::select(vec!["", "a", "b", "ab"]);
        let agent = || prop::sample::select(vec!["a", "b", "ab"]).prop_map(|id| AgentId::new(id).unwrap());
        let maybe = || prop::option::of(text().prop_map(str::to_owned));
        (
            (maybe(), text().prop_map(str::to_owned), text().prop_map(str::to_owned)),
            prop::sample::select(vec!["a", "b"]).prop_map(|id| ServerId::new(id).unwrap()),
            prop::option::of(prop::sample::select(vec!["a", "b"]).prop_map(|id| IssuerAlias::new(id).unwrap())),
            prop::option::of(agent()),
            prop::collection::vec(agent(), 0..3),
            (maybe(), maybe(), maybe()),
            prop::option::of(prop::sample::select(vec!["", "a", "a b", "b a", "a a", "ab"]).prop_map(str::to_owned)),
        )
            .prop_map(
                |(
                    (inbound, revision, strategy),
                    server,
                    issuer,
                    agent,
                    chain,
                    (mandate, resource, audience),
                    scope,
                )| Owned {
                    inbound,
                    revision,
                    strategy,
                    server,
                    issuer,
                    agent,
                    chain,
                    mandate,
                    resource,
                    audience,
                    scope,
                },
            )
    }

    /// One input of the first is taken from the second.
    fn with_one_input_of(one: &Owned, other: &Owned, which: usize) -> Owned {
        let mut mixed = one.clone();
        match which {
            0 => mixed.inbound.clone_from(&other.inbound),
            1 => mixed.revision.clone_from(&other.revision),
            10 => mixed.strategy.clone_from(&other.strategy),
            2 => mixed.server = other.server.clone(),
            3 => mixed.issuer.clone_from(&other.issuer),
            4 => mixed.agent.clone_from(&other.agent),
            5 => mixed.chain.clone_from(&other.chain),
            6 => mixed.mandate.clone_from(&other.mandate),
            7 => mixed.resource.clone_from(&other.resource),
            8 => mixed.audience.clone_from(&other.audience),
            _ => mixed.scope.clone_from(&other.scope),
        }
        mixed
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(5_000))]

        #[test]
        fn two_callers_who_differ_in_one_input_never_share_an_entry(one in owned(), other in owned(), which in 0_usize..11) {
            for other in [with_one_input_of(&one, &other, which), other] {
                let equal = one.comparable() == other.comparable();
                prop_assert_eq!(one.inputs().key() == other.inputs().key(), equal, "{:?} {:?}", one, other);
            }
        }
    }
}
