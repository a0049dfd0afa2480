//! What is presented instead when an upstream answers 401: the other place of a secret, or a linked account renewed.
//!
//! Decides nothing: whoever made the credential knows what else there is. Invariant: it is tried once, and only where
//! nothing was done yet.

use secrecy::SecretString;

use super::fixed::SecretSpare;
use super::vault::AccountSpare;

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
    pub async fn other(&self) -> Option<SecretString> {
        match self {
            Self::Secret(spare) => spare.other().await,
            Self::Account(spare) => spare.other().await,
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
