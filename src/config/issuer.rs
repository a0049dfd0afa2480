//! `[issuers.ALIAS]`: whose tokens are believed, and how their claims are read.
//!
//! Decides nothing. Invariant: no issuer goes without an audience.

use std::sync::Arc;
use std::time::Duration;

use super::introspection::IntrospectionConfig;
use super::spiffe::IssuerKind;
use super::{LinkClient, SecretReference, SenderConstraint};
use crate::ids::{AgentId, IssuerAlias};

/// `[issuers.ALIAS]`: an OIDC issuer whose access tokens are accepted.
#[derive(Debug, Clone)]
pub struct IssuerConfig {
    /// The name that subjects are spelled with.
    pub alias: IssuerAlias,
    /// What stands behind it.
    pub kind: IssuerKind,
    /// The exact `iss`, compared as a string; `spiffe://` and its name for a trust domain.
    pub issuer: String,
    /// Further values of `aud` that this provider writes for us; the resource itself is always accepted.
    pub audiences: Vec<String>,
    /// Values of `aud` that this provider writes for the administrators' listener, beside its resource.
    pub admin_audiences: Vec<String>,
    /// Signature algorithms accepted; never taken from the token.
    pub algorithms: Vec<Algorithm>,
    /// Values of the header's `typ` accepted, lower case; RFC 9068 says `at+jwt`.
    pub token_types: Vec<String>,
    /// A token that is valid for longer than this is refused.
    pub token_life_max: Duration,
    /// Clock difference tolerated.
    pub leeway: Duration,
    /// Which claims say what.
    pub claims: ClaimNames,
    /// Claims of RFC 9068 that this provider is known to leave out; never `aud`, `iss`, `exp` or `sub`.
    pub optional_claims: Vec<String>,
    /// By which signs of its own it shows that software got a token for itself.
    pub own_tokens: Vec<OwnSign>,
    /// Roles that everyone from here has.
    pub default_roles: Vec<String>,
    /// Whether calls need token scopes; scopes narrow and never widen.
    pub scopes: ScopeMode,
    /// Which agent an unregistered client with a human subject becomes.
    pub interactive_default: Option<AgentId>,
    /// How long keys may be used while the issuer is away.
    pub jwks_stale_max: Duration,
    /// What its tokens must be bound to.
    pub sender_constraint: SenderConstraint,
    /// How it is asked about opaque tokens; without it, it has none.
    pub introspection: Option<Arc<IntrospectionConfig>>,
    /// The client that is handed out where the provider registers none by itself.
    pub registration: Option<RegistrationConfig>,
    /// Our client there for people who link an account.
    pub link: Option<LinkClient>,
}

impl IssuerConfig {
    /// How long a certificate of this trust domain may live; nothing for an issuer of tokens alone.
    #[must_use]
    pub const fn svid_life_max(&self) -> Option<Duration> {
        match &self.kind {
            IssuerKind::Oidc => None,
            IssuerKind::Spiffe(spiffe) => Some(spiffe.svid_life_max),
        }
    }

    /// Whether a token that one entry accepts means the same to the other: what differs is about logins of ours, or
    /// about how keys are fetched, or is asked of the agents' entries.
    #[must_use]
    pub fn verifies_like(&self, other: &Self) -> bool {
        let Self {
            alias,
            kind,
            issuer,
            audiences,
            admin_audiences,
            algorithms,
            token_types,
            token_life_max,
            leeway,
            claims,
            optional_claims,
            own_tokens,
            default_roles,
            scopes,
            interactive_default: _,
            jwks_stale_max: _,
            sender_constraint,
            introspection,
            registration: _,
            link: _,
        } = self;
        (alias, kind, issuer) == (&other.alias, &other.kind, &other.issuer)
            && (audiences, admin_audiences) == (&other.audiences, &other.admin_audiences)
            && (algorithms, token_types) == (&other.algorithms, &other.token_types)
            && (token_life_max, leeway) == (&other.token_life_max, &other.leeway)
            && (claims, optional_claims) == (&other.claims, &other.optional_claims)
            && (own_tokens, default_roles) == (&other.own_tokens, &other.default_roles)
            && (scopes, sender_constraint) == (&other.scopes, &other.sender_constraint)
            && *introspection == other.introspection
    }
}

/// `[issuers.ALIAS.registration]`: assistants are registered here, and log in with a client of the administrator's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RegistrationConfig {
    /// The client that the provider knows.
    pub client_id: String,
    /// Its secret, where it has one.
    pub client_secret: Option<SecretReference>,
    /// Scopes that are asked for besides those of the assistant.
    pub scopes: Vec<String>,
    /// Whether the provider is told for which resource (RFC 8707).
    pub sends_resource: bool,
    /// Schemes of redirect URIs besides `https:` and `http:` on loopback.
    pub schemes: Vec<String>,
}

/// Signature algorithms that may be allowed: asymmetric ones only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    /// RSA PKCS #1 v1.5 with SHA-256.
    Rs256,
    /// RSA PSS with SHA-256.
    Ps256,
    /// ECDSA on P-256 with SHA-256.
    Es256,
    /// ECDSA on P-384 with SHA-384.
    Es384,
    /// Ed25519.
    EdDsa,
}

/// By which sign an issuer shows that software got a token for itself (client credentials).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OwnSign {
    /// `sub` is the client (RFC 9068, section 2.2).
    Subject,
    /// `sub` is the client and `@clients`, or `gty` says so: Auth0.
    Auth0,
    /// `idtyp` is `app`: Entra.
    Entra,
    /// The user name of a client's service account, with `clientHost` or `clientAddress`: Keycloak.
    Keycloak,
    /// `kubernetes.io` is there.
    Kubernetes,
}

impl OwnSign {
    /// All of them.
    pub const ALL: &'static [Self] = &[Self::Subject, Self::Auth0, Self::Entra, Self::Keycloak, Self::Kubernetes];
    /// Those that are believed where nothing is written.
    pub const USUAL: &'static [Self] = &[Self::Subject, Self::Entra, Self::Kubernetes];

    /// The spelling in files.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "sub",
            Self::Auth0 => "auth0",
            Self::Entra => "entra",
            Self::Keycloak => "keycloak",
            Self::Kubernetes => "kubernetes",
        }
    }
}

/// Which claims say what, where a provider does not follow RFC 9068.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimNames {
    /// Client: `client_id`, `azp`, `appid`, tried in order.
    pub client: Vec<String>,
    /// Groups; `None` where this issuer has none. Configured but absent is *unknown*, not empty.
    pub groups: Option<String>,
    /// Groups of a token that was issued longer ago are unknown as well.
    pub groups_age_max: Option<Duration>,
    /// Scopes: `scope` (string) or `scp` (string or array).
    pub scope: Vec<String>,
    /// Who the human is across issuers; an issuer without one cannot approve.
    pub person: Option<String>,
}

impl ClaimNames {
    /// No claim says anything.
    #[must_use]
    pub const fn none() -> Self {
        Self { client: Vec::new(), groups: None, groups_age_max: None, scope: Vec::new(), person: None }
    }
}

/// Whether calls need token scopes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ScopeMode {
    /// Scopes are not looked at.
    Ignored,
    /// A call needs every scope that a matching entry names.
    Required(Vec<ScopeRule>),
}

/// One entry of `scopes`: objects and actions that need a scope.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScopeRule {
    /// The scope.
    pub scope: String,
    /// Object pattern, as in rules: `server/name`, `*` within a segment.
    pub object: String,
    /// Actions, as in rules.
    pub actions: Vec<String>,
}
