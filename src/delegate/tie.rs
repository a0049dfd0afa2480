//! What the use of a credential hangs on after it was presented: that nobody took it back.
//!
//! Decides whether what was begun with a credential may go on. Refuses to know what was begun. Invariant: where nobody
//! knows, it may not.

use std::sync::Arc;

use super::vault::AccountTie;
use super::{Credential, CredentialFacts, Delegate};
use crate::outcome::{Failure, Reason, Refusal, Stop};

/// What a use of a credential hangs on.
#[derive(Debug, Clone)]
pub struct Tie {
    facts: Arc<CredentialFacts>,
    used_until: Option<i64>,
    account: Option<AccountTie>,
}

impl Credential {
    /// What the use of it hangs on; nothing, where nobody can take it back by itself.
    #[must_use]
    pub fn tie(&self) -> Option<Tie> {
        let tied = self.account.is_some() || self.facts.issue.is_some();
        tied.then(|| Tie { facts: Arc::clone(&self.facts), used_until: self.ends.used_until, account: self.account })
    }
}

impl Tie {
    /// The credential's name in the ledger.
    #[cfg(test)]
    pub(super) fn issue(&self) -> Option<&str> {
        self.facts.issue.as_deref()
    }

    /// Until when it is used, seconds since 1970; what goes on longer needs another one.
    #[must_use]
    pub fn used_until(&self) -> Option<i64> {
        self.used_until
    }
}

impl Delegate {
    /// Whether what was begun with a credential may go on: asked when something was taken back.
    ///
    /// # Errors
    /// [`Reason::Revoked`]; `store_unavailable`, where nobody knows.
    pub async fn still_stands(&self, tie: &Tie) -> Result<(), Stop> {
        if tie.facts.issue.as_ref().is_some_and(|id| self.identity.is_credential_revoked(id)) {
            return Err(Refusal::new(Reason::Revoked).into());
        }
        let Some(account) = tie.account else { return Ok(()) };
        let Some(vault) = &self.vault else {
            return Err(Failure::after(Reason::Internal, "there is no vault here").into());
        };
        match vault.stands(account).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(Refusal::new(Reason::Revoked).into()),
            Err(failure) => Err(failure.into()),
        }
    }
}
