//! Accounts that callers link: what the files say of them.
//!
//! Decides nothing; refuses to know how an account is linked. Invariant: a secret is here as a reference.

use std::time::Duration;

use super::SecretReference;

/// `kind = "oauth"`: the caller's own account at the upstream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OauthConfig {
    /// The authorization server, where the upstream names several, or must name this one.
    pub issuer: Option<String>,
    /// Our client id there, where an administrator registered us.
    pub client_id: Option<String>,
    /// Its secret.
    pub client_secret: Option<SecretReference>,
    /// What the upstream calls itself (RFC 9728), where that is not its URL.
    pub resource: Option<String>,
    /// Scopes to ask for, separated by blanks; the upstream says which, where none are written.
    pub scope: Option<String>,
    /// A token is used for no longer than this before the vault is looked at again.
    pub use_max: Duration,
}

/// Our client at an issuer for people who link an account.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LinkClient {
    /// Its id.
    pub client_id: String,
    /// Its secret, where it has one.
    pub client_secret: Option<SecretReference>,
}
