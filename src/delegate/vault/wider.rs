//! An account whose token an upstream does not take: because it is worth nothing, or because it may too little.
//!
//! Decides whether its owner is asked to link it again, and for which scopes. Invariants: nobody is asked for what they
//! were asked before, so that no server can ask for ever; what an administrator wrote as `scope` is not exceeded.

use std::collections::BTreeSet;

use secrecy::SecretString;

use super::{Entry, Sought, Vault};
use crate::config::ServerConfig;
use crate::delegate::vault::Owner;
use crate::limit;
use crate::oauth::Challenge;
use crate::outcome::{Failure, Reason};

impl super::AccountSpare {
    /// The account's token after this one was refused: one that came meanwhile, or a new one; nothing, where there is
    /// none for the moment.
    ///
    /// # Errors
    /// [`Reason::AccountLinkRequired`] where the account is worth nothing any more.
    pub(in crate::delegate) async fn other(&self) -> Result<Option<SecretString>, Failure> {
        let place = self.sought.owner.place(&self.sought.server.id);
        // A server that takes nothing is no reason to ask for a token with every call.
        let first = self.vault.refused.entry(place).or_insert(()).is_fresh();
        let sought = Sought { refused: Some(self.presented.secret.clone()), ..self.sought.clone() };
        let found = if first {
            match self.vault.seek(sought).await {
                Ok(held) => Some(held),
                Err(stop) if stop.reason() == Reason::AccountLinkRequired => {
                    // It may have moved to another authorization server: that one does not know its tokens.
                    self.vault.authorities.doubt();
                    return Err(Failure::before(
                        stop.reason(),
                        "the server does not take the caller's account any more",
                    ));
                }
                Err(_) => None,
            }
        } else {
            self.vault.usable(&place, &sought)
        };
        Ok(found.map(|found| found.spelled()))
    }

    /// After a 403: that the account has to be linked for more, where the server says for what, and that helps.
    pub(in crate::delegate) fn short_of(&self, challenge: &Challenge) -> Option<Failure> {
        let wanted = challenge.lacking()?;
        let had = &self.presented.scopes;
        // Whoever wrote which scopes are asked for has looked at what they let through.
        if self.sought.account.scope.is_some() || wanted.split_whitespace().all(|scope| had.contains(scope)) {
            return None;
        }
        let all: BTreeSet<&str> = had.iter().map(String::as_str).chain(wanted.split_whitespace()).collect();
        let all = all.into_iter().collect::<Vec<_>>().join(" ");
        if all.len() > limit::VAULT_WIDER_BYTES_MAX {
            return None;
        }
        let detail = "the server wants more scopes than the caller's account was linked for";
        self.vault.wider.insert(self.sought.owner.place(&self.sought.server.id), all.into());
        Some(Failure::before(Reason::AccountLinkRequired, detail))
    }
}

impl Vault {
    /// The scopes that an account has to be linked for, where a server said a moment ago that it has too few.
    #[must_use]
    pub fn wider(&self, owner: &Owner, server: &ServerConfig) -> Option<String> {
        self.wider.get(&owner.place(&server.id)).map(|scopes| scopes.as_ref().to_owned())
    }
}

/// The scopes that an account was linked for: what was granted, and what was asked for and not granted.
pub(super) fn scopes(entry: &Entry) -> BTreeSet<String> {
    let all = [&entry.scope, &entry.asked].into_iter().flatten();
    all.flat_map(|scopes| scopes.split_whitespace()).map(str::to_owned).collect()
}
