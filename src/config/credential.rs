//! What is presented to an upstream, as configured: one strategy per server, and per tool where it differs.
//!
//! Decides which strategies exist and what each needs to know. Refuses to know how a credential is made.
//! Invariant: a secret is here as a reference and never as itself.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use url::Url;

use super::{OauthConfig, SecretReference};

/// What is presented to an upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CredentialConfig {
    /// Nothing.
    None,
    /// A secret of the gateway's.
    Static(Arc<StaticConfig>),
    /// RFC 8693: the caller's token is exchanged for one that is good at this upstream only.
    Exchange(Arc<ExchangeConfig>),
    /// RFC 6749, section 4.4: a token of the gateway's own.
    ClientCredentials(Arc<TokenRequest>),
    /// Enterprise-managed authorization: the identity provider vouches for the caller (ID-JAG), the upstream's own
    /// authorization server gives a token for that.
    IdJag(Arc<IdJagConfig>),
    /// The caller's own account at the upstream, which they have linked.
    Oauth(Arc<OauthConfig>),
}

/// A secret that is presented as it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StaticConfig {
    /// Which header carries it, lower case.
    pub header: String,
    /// Written before the secret, such as `Bearer `.
    pub prefix: String,
    /// Where the secret is; where there are two, the second is tried when the first is refused.
    pub slots: Vec<SecretReference>,
    /// How old it may become.
    pub max_age: Option<Duration>,
    /// When it was made, seconds since 1970; a file says it by itself.
    pub rotated_at: Option<i64>,
    /// What becomes of one that is older.
    pub on_stale: OnStale,
}

/// What becomes of a secret that is older than it may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnStale {
    /// It is used, and readiness and the log say so.
    Warn,
    /// It is not used.
    Refuse,
}

/// What is asked of an authorization server, and as whom.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenRequest {
    /// Its exact issuer; its metadata (RFC 8414) says where its endpoints are.
    pub issuer: Option<String>,
    /// The token endpoint, where it is not asked for.
    pub token_endpoint: Option<Url>,
    /// Where tokens are taken back (RFC 7009), where it is not asked for.
    pub revocation_endpoint: Option<Url>,
    /// Our client id there.
    pub client_id: String,
    /// How we prove it.
    pub client: ClientAuthentication,
    /// A JWT that vouches for us and is the grant (RFC 7523, section 2.1), where there is one.
    pub assertion: Option<SecretReference>,
    /// `audience` of the request.
    pub audience: Option<String>,
    /// `resource` of the request (RFC 8707).
    pub resource: Option<String>,
    /// `scope` of the request.
    pub scope: Option<String>,
    /// Further parameters of the request, as that server wants them.
    pub extra: BTreeMap<String, String>,
    /// The token is used for no longer than this.
    pub use_max: Duration,
    /// A token that lives longer is refused.
    pub token_life_max: Option<Duration>,
}

/// How we prove our client id to an authorization server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// Not at all: a public client.
    None,
    /// `client_secret_basic`.
    Basic(SecretReference),
    /// `client_secret_post`.
    Post(SecretReference),
    /// `private_key_jwt` (RFC 7523): a signed assertion.
    PrivateKey(PrivateKey),
}

/// A key that signs what we say of ourselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrivateKey {
    /// Where the key is, in PEM.
    pub key: SecretReference,
    /// What it signs with.
    pub algorithm: SigningAlgorithm,
    /// The `kid` by which the authorization server finds its public half.
    pub id: Option<String>,
}

/// What an assertion is signed with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SigningAlgorithm {
    /// ECDSA on P-256.
    Es256,
    /// ECDSA on P-384.
    Es384,
    /// RSA PKCS#1.
    Rs256,
    /// RSA-PSS.
    Ps256,
    /// Ed25519.
    EdDsa,
}

/// RFC 8693 token exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExchangeConfig {
    /// What is asked of whom; without an issuer or an endpoint, of the caller's issuer.
    pub asks: TokenRequest,
    /// Who acts, as the authorization server is told; nobody, where it is not told.
    pub actor: Option<ActorToken>,
}

/// The `actor_token` of an exchange.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ActorToken {
    /// A statement of ours, signed with the client's key, that this agent acts.
    Agent,
    /// The same about ourselves.
    Gateway,
    /// A token that is kept somewhere.
    Kept {
        /// Where.
        token: SecretReference,
        /// What it is (`actor_token_type`).
        kind: String,
    },
}

/// ID-JAG, both legs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IdJagConfig {
    /// The first: the identity provider is asked for an assertion about the caller; without an issuer or an endpoint,
    /// the caller's issuer.
    pub provider: TokenRequest,
    /// What the caller's token is to the identity provider (`subject_token_type`).
    pub subject_token_type: String,
    /// The second: the upstream's authorization server takes it. Its issuer is named always.
    pub asks: TokenRequest,
}

impl CredentialConfig {
    /// The spelling in files and records.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static(_) => "static",
            Self::Exchange(_) => "exchange",
            Self::ClientCredentials(_) => "client_credentials",
            Self::IdJag(_) => "id_jag",
            Self::Oauth(_) => "oauth",
        }
    }

    /// What is written of the caller's own account, where it is one.
    #[must_use]
    pub const fn account(&self) -> Option<&Arc<OauthConfig>> {
        match self {
            Self::Oauth(account) => Some(account),
            _ => None,
        }
    }

    /// Whether it is made for one caller, and nothing can be done with it on the gateway's own account.
    #[must_use]
    pub const fn is_per_caller(&self) -> bool {
        match self {
            Self::None | Self::Static(_) | Self::ClientCredentials(_) => false,
            Self::Exchange(_) | Self::IdJag(_) | Self::Oauth(_) => true,
        }
    }

    /// Whether it is made from the caller's token, which has to be at hand then.
    #[must_use]
    pub const fn needs_inbound_token(&self) -> bool {
        matches!(self, Self::Exchange(_) | Self::IdJag(_))
    }

    /// Where its secrets are.
    #[must_use]
    pub fn secrets(&self) -> Vec<&SecretReference> {
        match self {
            Self::None => Vec::new(),
            Self::Static(fixed) => fixed.slots.iter().collect(),
            Self::Exchange(exchange) => {
                let kept = match &exchange.actor {
                    Some(ActorToken::Kept { token, .. }) => Some(token),
                    _ => None,
                };
                exchange.asks.client.secret().into_iter().chain(kept).collect()
            }
            Self::ClientCredentials(asks) => asks.client.secret().into_iter().chain(&asks.assertion).collect(),
            Self::Oauth(account) => account.client_secret.iter().collect(),
            Self::IdJag(both) => both.provider.client.secret().into_iter().chain(both.asks.client.secret()).collect(),
        }
    }

    /// What is asked of which authorization server for it, first the one that issues it.
    #[must_use]
    pub fn asks(&self) -> Vec<&TokenRequest> {
        match self {
            Self::None | Self::Static(_) | Self::Oauth(_) => Vec::new(),
            Self::Exchange(exchange) => vec![&exchange.asks],
            Self::ClientCredentials(asks) => vec![asks],
            Self::IdJag(both) => vec![&both.asks, &both.provider],
        }
    }

    /// Whether connections that were made with one may go on with the other: what is made for callers is presented
    /// anew with each request.
    #[must_use]
    pub fn presents_alike(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Exchange(_), Self::Exchange(_))
            | (Self::IdJag(_), Self::IdJag(_))
            | (Self::Oauth(_), Self::Oauth(_)) => true,
            _ => self == other,
        }
    }
}

impl ClientAuthentication {
    /// Where its secret is.
    #[must_use]
    pub const fn secret(&self) -> Option<&SecretReference> {
        match self {
            Self::None => None,
            Self::Basic(secret) | Self::Post(secret) => Some(secret),
            Self::PrivateKey(key) => Some(&key.key),
        }
    }
}

impl SigningAlgorithm {
    /// The spelling of RFC 7518.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Es256 => "ES256",
            Self::Es384 => "ES384",
            Self::Rs256 => "RS256",
            Self::Ps256 => "PS256",
            Self::EdDsa => "EdDSA",
        }
    }
}
