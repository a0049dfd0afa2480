//! What the handles of a caller rest on: the names by which they, or what stands behind them, can be taken back.
//!
//! Decides which names those are. Invariant: a revocation has the mark of each handle whose holder it names, and of no
//! other; so what is lifted again has voided what was handed out before, at every replica and after every start.

use super::caller::{Caller, TokenFacts};
use super::described::{AccountName, Described};
use super::persona::Persona;
use super::revoked::RevocationTarget;
use crate::config::{Config, ServerConfig};
use crate::ids::{AgentId, IssuerAlias};
use crate::wire::voids::{Holder, Mark};

impl RevocationTarget {
    /// The marks of handles that are void once this is taken back; none of what no handle rests on.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        match self {
            // Mandates and credentials are gone for good themselves.
            Self::Mandate(_) | Self::Credential(_) => Vec::new(),
            Self::Everything => vec![Mark::EVERYTHING],
            Self::Token(_)
            | Self::Session(_)
            | Self::SessionOf(..)
            | Self::Subject(..)
            | Self::Client(..)
            | Self::Key(_)
            | Self::Agent(_)
            | Self::Owner(_)
            | Self::Server(_)
            | Self::Account(..) => vec![mark(self)],
        }
    }
}

impl RevocationTarget {
    /// The marks of what somebody answers for by these files: whoever answered for it when a handle was sealed, it was
    /// stopped with them.
    #[must_use]
    pub fn marks_of_owned(&self, config: &Config) -> Vec<Mark> {
        let Self::Owner(owner) = self else { return Vec::new() };
        let agents = config.agents.values().filter(|agent| agent.owner == *owner);
        let keys = config.agents.values().flat_map(|agent| &agent.keys).filter(|key| key.owner == *owner);
        let servers = config.servers.iter().filter(|server| server.owner == *owner);
        let owned = agents.map(|agent| Self::Agent(agent.id.clone()));
        let owned = owned.chain(keys.map(|key| Self::Key(key.id.clone())));
        owned.chain(servers.map(|server| Self::Server(server.id.clone()))).map(|target| mark(&target)).collect()
    }
}

impl Caller {
    /// Whom a handle of theirs is sealed for, and what it rests on.
    #[must_use]
    pub fn holder(&self, config: &Config) -> Holder {
        Holder::new(self.principal(), self.epoch(), rests_on(self.credentials(), self.persona(), config))
    }

    /// The same of a handle that leads to a server.
    #[must_use]
    pub fn holder_at(&self, config: &Config, server: &ServerConfig) -> Holder {
        let accounts = self.credentials().filter_map(|token| {
            let subject = token.subject.as_deref()?;
            Some(mark(&RevocationTarget::Account(token.issuer.clone(), AccountName::new(&server.id, subject))))
        });
        let own =
            [mark(&RevocationTarget::Server(server.id.clone())), mark(&RevocationTarget::Owner(server.owner.clone()))];
        self.holder(config).and(own.into_iter().chain(accounts))
    }
}

/// What those rest on who come with these credentials, the token first.
pub(super) fn rests_on<'a>(
    credentials: impl IntoIterator<Item = &'a TokenFacts>,
    persona: &Persona,
    config: &Config,
) -> Vec<Mark> {
    let mut credentials = credentials.into_iter().peekable();
    let token = credentials.peek().copied();
    let agents = persona.agent.iter().chain(&persona.chain);
    let mut marks: Vec<Mark> = agents.filter_map(|agent| Some(of_agent(&agent.id, config, token?))).flatten().collect();
    marks.extend(credentials.flat_map(of_token));
    marks
}

fn of_agent(agent: &AgentId, config: &Config, token: &TokenFacts) -> Vec<Mark> {
    let mut marks = vec![mark(&RevocationTarget::Agent(agent.clone()))];
    if let Some(known) = config.agents.get(agent) {
        let key = known.keys.iter().find(|key| token.is_key() && token.client.as_ref() == Some(&key.id));
        let owners = [Some(&known.owner), key.map(|key| &key.owner)];
        marks.extend(owners.into_iter().flatten().map(|owner| mark(&RevocationTarget::Owner(owner.clone()))));
    }
    marks
}

/// Each revocation that could name the token, as [`RevocationTarget::names`] would have it.
fn of_token(token: &TokenFacts) -> Vec<Mark> {
    let issuer = || token.issuer.clone();
    let acts = |issuer: &IssuerAlias, name: &str| {
        [
            RevocationTarget::Subject(issuer.clone(), name.to_owned()),
            RevocationTarget::Client(issuer.clone(), name.to_owned()),
        ]
    };
    let mut named = vec![RevocationTarget::Token(token.digest.to_string())];
    named.extend(token.id.clone().map(RevocationTarget::Token));
    if let Some(session) = &token.session {
        named.push(RevocationTarget::Session(session.clone()));
        named.push(RevocationTarget::SessionOf(issuer(), session.clone()));
    }
    named.extend(token.subject.clone().map(|subject| RevocationTarget::Subject(issuer(), subject)));
    named.extend(token.client.clone().map(|client| RevocationTarget::Client(issuer(), client)));
    named.extend(token.client.clone().filter(|_| token.is_key()).map(RevocationTarget::Key));
    named.extend(token.hops.iter().flat_map(|hop| acts(&hop.issuer, &hop.name)));
    named.iter().map(mark).collect()
}

fn mark(target: &RevocationTarget) -> Mark {
    let Described { kind, issuer, value } = Described::from(target);
    Mark::of(kind, issuer, value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::revoked::tests::token;
    use crate::ids::{Digest, ServerId};

    #[test]
    fn a_revocation_voids_the_handles_of_exactly_those_whom_it_names() {
        let (corp, partner) = (IssuerAlias::new("corp").unwrap(), IssuerAlias::new("partner").unwrap());
        let handles = of_token(&token());
        let digest = Digest::sha256(b"token").to_string();
        let targets = [
            RevocationTarget::Token("j1".into()),
            RevocationTarget::Token("j2".into()),
            RevocationTarget::Token(digest),
            RevocationTarget::Session("s1".into()),
            RevocationTarget::Session("s2".into()),
            RevocationTarget::SessionOf(corp.clone(), "s1".into()),
            RevocationTarget::SessionOf(partner.clone(), "s1".into()),
            RevocationTarget::Subject(corp.clone(), "alice".into()),
            RevocationTarget::Subject(corp.clone(), "bob".into()),
            RevocationTarget::Subject(partner.clone(), "planner".into()),
            RevocationTarget::Client(partner, "planner".into()),
            RevocationTarget::Client(corp.clone(), "desk".into()),
            RevocationTarget::Client(corp, "alice".into()),
            RevocationTarget::Key("desk".into()),
        ];
        for target in targets {
            let voids = target.marks().iter().any(|mark| handles.contains(mark));
            assert_eq!(voids, target.names(&token()), "{target:?}");
        }
        assert_eq!(RevocationTarget::Everything.marks(), [Mark::EVERYTHING]);
        assert_eq!(RevocationTarget::Credential("x".into()).marks(), []);
        let server = RevocationTarget::Server(ServerId::new("notes").unwrap());
        assert_eq!(server.marks(), [mark(&server)]);
    }
}
