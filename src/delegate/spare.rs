//! What is presented instead when an upstream answers 401: the other place of a secret, or a linked account renewed; and
//! what a 403 says of an account.
//!
//! Decides nothing: whoever made the credential knows what else there is. Invariant: it is tried once, and only where
//! nothing was done yet.

use http::HeaderMap;
use secrecy::SecretString;

use super::fixed::SecretSpare;
use super::vault::AccountSpare;
use crate::oauth::Challenge;
use crate::outcome::Failure;

/// Another value for a header whose value was refused.
#[derive(Debug, Clone)]
pub enum Spare {
    /// Of a secret.
    Secret(SecretSpare),
    /// Of a linked account.
    Account(AccountSpare),
}

impl Spare {
    /// Another value for the header; nothing, where there is none.
    ///
    /// # Errors
    /// `account_link_required` where it is an account that is worth nothing any more.
    pub async fn other(&self) -> Result<Option<SecretString>, Failure> {
        match self {
            Self::Secret(spare) => Ok(spare.other().await),
            Self::Account(spare) => spare.other().await,
        }
    }

    /// What there is to do about a 403, where it is an account's that has too few scopes.
    #[must_use]
    pub fn short_of(&self, answer: &HeaderMap) -> Option<Failure> {
        match self {
            Self::Secret(_) => None,
            Self::Account(spare) => spare.short_of(&Challenge::read(answer)),
        }
    }

    /// The other value was accepted.
    pub fn accepted(&self) {
        match self {
            Self::Secret(spare) => spare.accepted(),
            // What was renewed is what is presented from now on.
            Self::Account(_) => {}
        }
    }
}
