//! Revocations in words: what the record, the control socket and the store write, and read back.
//!
//! Decides the spelling and nothing else. Invariant: every target has exactly one description, and a
//! description that is not understood is refused, never guessed.

use super::revoked::{Revocation, RevocationMode, RevocationTarget};
use crate::ids::{AgentId, IssuerAlias, MandateId, RevocationEpoch, ServerId, Subject};
use crate::record::event::RevocationNote;

/// What a revocation is about, in words: kind, issuer and value, empty where they do not apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Described<'a> {
    /// `token`, `session`, `key`, `subject`, `client`, `agent`, `owner`, `server`, `credential`, `mandate`, `account`
    /// or `everything`.
    pub kind: &'a str,
    /// The issuer's alias.
    pub issuer: &'a str,
    /// What is named; of an account `SERVER/SUB`.
    pub value: &'a str,
}

/// An account that somebody has linked, as `SERVER/SUB`: no server's name has a slash in it, and any subject's may.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct AccountName(String);

impl AccountName {
    /// The one of that subject at that server.
    #[must_use]
    pub fn new(server: &ServerId, subject: &str) -> Self {
        Self(format!("{server}/{subject}"))
    }

    /// Reads it; nothing, where it names no server or nobody.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (server, subject) = text.split_once('/')?;
        let whole = ServerId::new(server).is_ok() && !subject.is_empty() && !subject.contains('\0');
        whole.then(|| Self(text.to_owned()))
    }

    /// The name of the server, and the `sub`.
    #[must_use]
    pub fn parts(&self) -> (&str, &str) {
        self.0.split_once('/').unwrap_or((&self.0, ""))
    }
}

/// Why words do not describe a target.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` cannot be revoked: write token, session, key, subject, client, agent, owner, server, credential, mandate, \
     account or everything, with an issuer for subjects, clients and accounts, an owner as files spell it \
     (user:ISSUER/SUB or group:ISSUER/NAME), and an account as SERVER/SUB"
)]
pub struct DescriptionError(String);

impl<'a> From<&'a RevocationTarget> for Described<'a> {
    fn from(target: &'a RevocationTarget) -> Self {
        let (kind, issuer, value) = match target {
            RevocationTarget::Token(token) => ("token", "", token.as_str()),
            RevocationTarget::Session(session) => ("session", "", session.as_str()),
            RevocationTarget::Key(key) => ("key", "", key.as_str()),
            RevocationTarget::SessionOf(issuer, session) => ("session", issuer.as_str(), session.as_str()),
            RevocationTarget::Subject(issuer, subject) => ("subject", issuer.as_str(), subject.as_str()),
            RevocationTarget::Client(issuer, client) => ("client", issuer.as_str(), client.as_str()),
            RevocationTarget::Agent(agent) => ("agent", "", agent.as_str()),
            RevocationTarget::Owner(owner) => ("owner", "", owner.as_str()),
            RevocationTarget::Server(server) => ("server", "", server.as_str()),
            RevocationTarget::Credential(id) => ("credential", "", id.as_str()),
            RevocationTarget::Mandate(mandate) => ("mandate", "", mandate.as_str()),
            RevocationTarget::Account(issuer, account) => ("account", issuer.as_str(), account.0.as_str()),
            RevocationTarget::Everything => ("everything", "", ""),
        };
        Self { kind, issuer, value }
    }
}

impl TryFrom<Described<'_>> for RevocationTarget {
    type Error = DescriptionError;

    fn try_from(words: Described<'_>) -> Result<Self, DescriptionError> {
        let refuse = || DescriptionError(words.kind.chars().take(40).collect());
        let issuer = || IssuerAlias::new(words.issuer).map_err(|_| refuse());
        // No token has such a name, and not every store could keep it.
        let none = words.value.is_empty() || words.value.contains('\0');
        let value = || if none { Err(refuse()) } else { Ok(words.value.to_owned()) };
        Ok(match words.kind {
            "token" => Self::Token(value()?),
            "session" if words.issuer.is_empty() => Self::Session(value()?),
            "session" => Self::SessionOf(issuer()?, value()?),
            "key" => Self::Key(value()?),
            "subject" => Self::Subject(issuer()?, value()?),
            "client" => Self::Client(issuer()?, value()?),
            "agent" => Self::Agent(AgentId::new(words.value).map_err(|_| refuse())?),
            "owner" => {
                // However it was typed: a brake must not miss whom it means.
                let owner = Subject::canonical(words.value).map_err(|_| refuse())?;
                let answers = owner.as_str().starts_with("user:") || owner.as_str().starts_with("group:");
                if answers { Self::Owner(owner.to_string()) } else { return Err(refuse()) }
            }
            "server" => Self::Server(ServerId::new(words.value).map_err(|_| refuse())?),
            "credential" => Self::Credential(value()?),
            "mandate" => Self::Mandate(MandateId::new(words.value).map_err(|_| refuse())?),
            "account" => Self::Account(issuer()?, AccountName::parse(words.value).ok_or_else(refuse)?),
            "everything" => Self::Everything,
            _ => return Err(refuse()),
        })
    }
}

impl Revocation {
    /// As the record tells it when it begins to hold.
    #[must_use]
    pub fn noted(&self, epoch: RevocationEpoch) -> RevocationNote<'_> {
        let words = Described::from(&self.target);
        RevocationNote {
            actor: &self.actor,
            target: words.kind,
            issuer: Some(words.issuer).filter(|issuer| !issuer.is_empty()),
            value: Some(words.value).filter(|value| !value.is_empty()),
            mode: self.mode.as_str(),
            issued_before: self.mode.issued_before(),
            lifted: false,
            note: &self.note,
            ordered_at: None,
            epoch,
            nonce: None,
        }
    }
}

impl RevocationMode {
    /// `block` or `sign_out`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Block => "block",
            Self::SignOut { .. } => "sign_out",
        }
    }

    /// For a sign-out: what was issued before this moment, seconds since 1970.
    #[must_use]
    pub const fn issued_before(self) -> Option<i64> {
        match self {
            Self::Block => None,
            Self::SignOut { issued_before } => Some(issued_before),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_description_leads_back_to_its_target() {
        let corp = IssuerAlias::new("corp").unwrap();
        for target in [
            RevocationTarget::Token("jti".to_owned()),
            RevocationTarget::Session("sid".to_owned()),
            RevocationTarget::Key("nightly-1".to_owned()),
            RevocationTarget::SessionOf(IssuerAlias::new("corp").unwrap(), "sid".to_owned()),
            RevocationTarget::Subject(corp.clone(), "a/b:c".to_owned()),
            RevocationTarget::Client(corp, "https://app.example/client".to_owned()),
            RevocationTarget::Agent(AgentId::new("build-bot").unwrap()),
            RevocationTarget::Owner("group:corp/platform".to_owned()),
            RevocationTarget::Server(ServerId::new("git").unwrap()),
            RevocationTarget::Mandate(MandateId::fresh()),
            RevocationTarget::Account(
                IssuerAlias::new("corp").unwrap(),
                AccountName::new(&ServerId::new("git").unwrap(), "a/b:c"),
            ),
            RevocationTarget::Everything,
        ] {
            assert_eq!(RevocationTarget::try_from(Described::from(&target)).unwrap(), target);
        }
    }

    #[test]
    fn an_owner_is_reached_however_the_name_is_encoded() {
        let owner = RevocationTarget::Owner("user:corp/auth0%7C1@x".to_owned());
        for value in ["user:corp/auth0%7C1@x", "user:corp/auth0%7c1@x", "user:corp/%61uth0%7C1%40x"] {
            assert_eq!(RevocationTarget::try_from(Described { kind: "owner", issuer: "", value }).unwrap(), owner);
        }
    }

    #[test]
    fn half_a_description_is_refused() {
        for (kind, issuer, value) in [
            ("token", "", ""),
            ("key", "", ""),
            ("subject", "", "ann"),
            ("subject", "corp", ""),
            ("subject", "corp", "ann\0"),
            ("owner", "", "user:corp/ann\0"),
            ("client", "NO", "x"),
            ("agent", "", "NOT AN AGENT"),
            ("owner", "", "anna"),
            ("owner", "", "agent:bot"),
            ("server", "", "not/a/server"),
            ("mandate", "", "not-a-mandate"),
            ("account", "corp", "git"),
            ("account", "corp", "git/"),
            ("account", "", "git/ann"),
            ("account", "corp", "NOT A SERVER/ann"),
            ("all", "", ""),
        ] {
            assert!(RevocationTarget::try_from(Described { kind, issuer, value }).is_err(), "{kind} {issuer} {value}");
        }
    }
}
