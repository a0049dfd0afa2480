//! `[issuers.ALIAS.introspection]`: how the issuer is asked what an opaque token is (RFC 7662).
//!
//! Decides nothing. Invariant: of all issuers of a configuration at most one has no prefix, so that every opaque token
//! is one issuer's.

use url::Url;

use super::SecretReference;

/// How an issuer is asked about its opaque tokens, and which of them are its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IntrospectionConfig {
    /// Where; the issuer's metadata says it otherwise.
    pub endpoint: Option<Url>,
    /// Our client id there.
    pub client_id: String,
    /// How we prove that we are that client.
    pub proof: IntrospectionProof,
    /// What its opaque tokens begin with; without it all that are no other issuer's.
    pub prefix: Option<String>,
    /// Whom an answer without `sub` is about.
    pub nameless: Nameless,
}

/// How we prove to an issuer that we are our client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IntrospectionProof {
    /// By a secret.
    Secret(SecretReference),
    /// By an assertion that is signed with this key, of that id (`private_key_jwt`).
    PrivateKey {
        /// The key, PEM.
        key: SecretReference,
        /// Its `kid`.
        id: Option<String>,
    },
}

/// Whom an answer without `sub` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Nameless {
    /// Nobody can tell, so the token is refused.
    Refused,
    /// The client itself: this issuer leaves `sub` out of tokens that software got for itself, and out of no others.
    Client,
}
