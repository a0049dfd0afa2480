//! The proof that somebody was authenticated, and the facts of the token that did it.

use std::sync::Arc;

use secrecy::SecretString;
use serde::{Deserialize, Serialize};

use super::ground::Ground;
use super::groups::good_until;
use super::persona::{Groups, Persona};
use super::standing::Rests;
use crate::config::{DeclaredProof, IssuerConfig};
use crate::ids::{Digest, IssuerAlias, PolicyRevision, PrincipalKey, RevocationEpoch, Subject};
use crate::limit;
use crate::record::Who;
use crate::record::event::{ActorFacts, SubjectFacts, TokenNote};

/// The proof of the first stage: this credential was verified, and this is who presented it.
///
/// Made only by `identity::Identity::authenticate`. Cheap to clone; the token inside is reachable by
/// `delegate` alone, as the subject token of an exchange.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) verified: Arc<Verified>,
    /// Whom the certificate of the connection names, where it came along with a token.
    pub(super) by: Option<Arc<Verified>>,
    /// The epoch at which revocations were looked at.
    pub(super) epoch: RevocationEpoch,
    /// Emergency access that they have for the moment.
    pub(super) elevation: Option<Arc<Elevation>>,
}

/// Emergency access that somebody has for the moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Elevation {
    /// Its name.
    pub id: String,
    /// The version of the row that says so.
    pub version: i64,
    /// Until when, microseconds since 1970 by the store's clock.
    pub until_us: i64,
    /// Which kind: `[break_glass.NAME]`.
    pub kind: String,
    /// Why it is needed.
    pub reason: String,
    /// The policy as which it was asked for.
    pub revision: PolicyRevision,
    /// The digest of what was agreed to.
    pub shown: Digest,
    /// Who has agreed: as rules spell them, when they had logged in, and how.
    pub agreed: Vec<(String, i64, Option<String>)>,
}

/// What is remembered of one verified token.
#[derive(Debug)]
pub struct Verified {
    /// Who it is.
    pub persona: Persona,
    /// Issuer, subject, client, agent and chain.
    pub principal: PrincipalKey,
    /// The facts of the token.
    pub token: TokenFacts,
    /// What the files said of the client's proof.
    pub(super) declared_proof: DeclaredProof,
    /// Under which settings of this room it was verified.
    pub(super) settings_revision: u64,
    /// The token itself, for exchange only.
    pub(super) raw: Option<SecretString>,
    /// The issuer's entry as it was then; none for what is ours.
    pub(super) issuer: Option<Arc<IssuerConfig>>,
    /// What the files have to go on saying.
    pub(super) rests: Rests,
    /// What the credential rests on.
    pub(super) ground: Arc<Ground>,
    /// All of this as the record writes it.
    who: Who,
}

impl Verified {
    /// Remembers what was verified. `raw` is kept only where a credential is made from it.
    pub(super) fn new(
        persona: Persona,
        token: TokenFacts,
        declared_proof: DeclaredProof,
        settings_revision: u64,
        raw: Option<SecretString>,
    ) -> Self {
        let who = who(&persona, &token);
        let (issuer, rests, ground) = (None, Rests::default(), Arc::default());
        let principal = persona.principal();
        Self { principal, persona, token, declared_proof, settings_revision, raw, issuer, rests, ground, who }
    }

    /// The same for as long as the files and the issuer stand by it.
    pub(super) fn resting_on(self, issuer: &Arc<IssuerConfig>, rests: Rests, ground: Ground) -> Self {
        Self { issuer: Some(Arc::clone(issuer)), rests, ground: Arc::new(ground), ..self }
    }

    /// The same token of somebody who has proven more.
    pub(super) fn proven(&self, persona: Persona) -> Self {
        let fresh =
            Self::new(persona, self.token.clone(), self.declared_proof, self.settings_revision, self.raw.clone());
        let (issuer, rests, ground) = (self.issuer.clone(), self.rests.clone(), Arc::clone(&self.ground));
        Self { issuer, rests, ground, ..fresh }
    }
}

impl Verified {
    /// From which second since 1970 on it says nothing any more: it has expired, or its groups are too old.
    fn good_until(&self) -> i64 {
        let issuer = self.issuer.as_ref().filter(|_| !matches!(*self.ground, Ground::Word { .. }));
        let groups = issuer.map(|issuer| good_until(issuer, &self.persona.groups, self.token.issued_at));
        groups.unwrap_or(i64::MAX).min(self.token.expires_at)
    }
}

/// Who it is and by which token, as the record tells it.
fn who(persona: &Persona, token: &TokenFacts) -> Who {
    let groups: Option<Vec<&str>> = match &persona.groups {
        Groups::Known(groups) if groups.len() <= limit::RECORD_GROUPS_MAX => {
            Some(groups.iter().map(Subject::as_str).collect())
        }
        Groups::Known(_) | Groups::Unknown(_) => None,
    };
    let scopes = Some(persona.scopes.as_slice()).filter(|scopes| scopes.len() <= limit::RECORD_GROUPS_MAX);
    let chain: Vec<&str> = persona.chain.iter().map(|agent| agent.id.as_str()).collect();
    Who::of(
        Some(SubjectFacts {
            id: persona.user.as_ref().map_or("anyone", Subject::as_str),
            acr: persona.acr.as_deref(),
            authenticated_at: persona.authenticated_at,
            groups: groups.as_deref(),
        }),
        Some(ActorFacts {
            id: persona.agent.as_ref().map(|agent| agent.id.as_str()),
            client: persona.client.as_deref(),
            proof: persona.client_proof.as_str(),
        }),
        &chain,
        Some(TokenNote {
            issuer: token.issuer.as_str(),
            id: token.id.as_deref(),
            digest: &token.digest,
            expires_at: token.expires_at,
            scopes,
        }),
    )
}

/// The facts of a token that the record and the revocation check need.
#[derive(Debug, Clone)]
pub struct TokenFacts {
    /// SHA-256 of the token.
    pub digest: Digest,
    /// Who issued it.
    pub issuer: IssuerAlias,
    /// `sub`.
    pub subject: Option<String>,
    /// `client_id` or what the issuer calls it.
    pub client: Option<String>,
    /// `jti`.
    pub id: Option<String>,
    /// `sid`.
    pub session: Option<String>,
    /// `iat`, seconds since 1970, less what its issuer's clock may be ahead of ours beyond what a sign-out allows for; a
    /// token without one counts as issued before everything.
    pub issued_at: Option<i64>,
    /// `exp`, seconds since 1970.
    pub expires_at: i64,
    /// It is a person's with an administrators' client, and good for the administrators' listener alone.
    pub for_administrators: bool,
    /// Which human stands behind it, whatever their account is called. No rule reads this.
    pub person: Person,
    /// Who stands in its delegation chain, as it names them.
    pub hops: Vec<Hop>,
}

/// One actor of a delegation chain (RFC 8693 `act`), as a token names it: an issuer calls its clients and its subjects
/// by the same claim.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hop {
    /// Who vouches for the name.
    pub issuer: IssuerAlias,
    /// `sub`.
    pub name: String,
}

/// Which human stands behind a token, across accounts and issuers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Person {
    /// Nobody: software got it for itself.
    Nobody,
    /// A human of whom the token does not say which.
    Unknown,
    /// What the issuer's `person` claim says.
    Known(String),
}

impl Person {
    /// What the claim says, where there is one.
    #[must_use]
    pub fn known(&self) -> Option<&str> {
        match self {
            Self::Known(person) => Some(person),
            Self::Nobody | Self::Unknown => None,
        }
    }
}

impl TokenFacts {
    /// Whose it is, with whatever client: who registers many of them remains one.
    pub(super) fn bearer(&self) -> Digest {
        let subject = self.subject.as_deref().or(self.client.as_deref()).unwrap_or_default();
        Digest::of("bailiwick/bearer/v1", &[self.issuer.as_str().as_bytes(), subject.as_bytes()])
    }

    /// Whether its delegation chain names that actor.
    #[must_use]
    pub fn acts(&self, issuer: &IssuerAlias, name: &str) -> bool {
        self.hops.iter().any(|hop| hop.issuer == *issuer && hop.name == name)
    }

    /// Whether it is an API key of ours, and no token of an issuer.
    #[must_use]
    pub fn is_key(&self) -> bool {
        self.issuer.as_str() == super::KEYS
    }
}

impl Caller {
    /// The same with one role more, for as long as the emergency lasts. Nothing else about them changes.
    #[must_use]
    pub fn elevated(&self, role: &str, elevation: Elevation) -> Self {
        let mut persona = self.verified.persona.clone();
        persona.default_roles.push(role.to_owned());
        let verified = Arc::new(self.verified.proven(persona));
        Self { verified, elevation: Some(Arc::new(elevation)), ..self.clone() }
    }

    /// The emergency access that they have.
    #[must_use]
    pub fn elevation(&self) -> Option<&Elevation> {
        self.elevation.as_deref()
    }

    /// Who it is.
    #[must_use]
    pub fn persona(&self) -> &Persona {
        &self.verified.persona
    }

    /// Issuer, subject, client, agent and chain: who sessions, handles and quotas belong to.
    #[must_use]
    pub fn principal(&self) -> PrincipalKey {
        self.verified.principal
    }

    /// The facts of the token.
    #[must_use]
    pub fn token(&self) -> &TokenFacts {
        &self.verified.token
    }

    /// The facts of everything that they came with: the token, and the certificate beside it.
    pub fn credentials(&self) -> impl Iterator<Item = &TokenFacts> {
        self.all_verified().map(|verified| &verified.token)
    }

    /// From which second since 1970 on they are nobody any more.
    #[must_use]
    pub fn expires_at(&self) -> i64 {
        self.all_verified().map(Verified::good_until).min().unwrap_or(i64::MIN)
    }

    /// Everything that was verified of them.
    pub(super) fn all_verified(&self) -> impl Iterator<Item = &Verified> {
        std::iter::once(&self.verified).chain(&self.by).map(Arc::as_ref)
    }

    /// Who it is and by which token, as the record tells it.
    #[must_use]
    pub fn who(&self) -> &Who {
        &self.verified.who
    }

    /// The epoch at which revocations were looked at.
    #[must_use]
    pub const fn epoch(&self) -> RevocationEpoch {
        self.epoch
    }

    /// Under which settings of `identity` it was verified.
    #[must_use]
    pub fn settings_revision(&self) -> u64 {
        self.verified.settings_revision
    }

    /// The inbound token, as the subject token of an exchange; never sent to an upstream.
    #[must_use]
    pub fn subject_token(&self) -> Option<&SecretString> {
        self.verified.raw.as_ref()
    }
}
