//! The proof that somebody was authenticated, and the facts of the token that did it.

use std::sync::Arc;

use secrecy::SecretString;

use super::persona::Persona;
use crate::config::DeclaredProof;
use crate::ids::{Digest, IssuerAlias, PrincipalKey, RevocationEpoch};

/// The proof of the first stage: this credential was verified, and this is who presented it.
///
/// Made only by `identity::Identity::authenticate`. Cheap to clone; the token inside is reachable by
/// `delegate` alone, as the subject token of an exchange.
#[derive(Debug, Clone)]
pub struct Caller {
    pub(super) verified: Arc<Verified>,
    /// The epoch at which revocations were looked at.
    pub(super) epoch: RevocationEpoch,
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
    /// `iat`, seconds since 1970; a token without one counts as issued before everything.
    pub issued_at: Option<i64>,
    /// `exp`, seconds since 1970.
    pub expires_at: i64,
}

impl Caller {
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
