//! Accounts that callers link: kept, taken back, and told of, with the record.
//!
//! Decides in which order that happens: in force first, then on the record. Refuses to know how an account is linked.

use std::sync::Arc;

use super::Gateway;
use crate::config::OauthConfig;
use crate::delegate::vault::{Entry, Owner, Vault, oauth};
pub use crate::delegate::vault::{Linked, Removed};
use crate::identity::revoked::{RevocationStore as _, RevocationTarget};
use crate::ids::{Digest, IssuerAlias, ServerId, Subject};
use crate::limit;
use crate::link::Linking;
use crate::oauth::person::SignIn;
use crate::oauth::shown;
use crate::outcome::{Failure, Reason, Refusal};
use crate::record::event::AdminNote;
use crate::shelf::{Action, Change, Expect, Section, Shelf as _, Tell};

/// Links that somebody else opened.
const FOREIGN: Section = Section { name: "link opened by another", rows_max: limit::LINK_FOREIGN_MAX };

impl Gateway {
    /// What is remembered for the pages on which accounts are linked.
    #[must_use]
    pub const fn linking(&self) -> &Linking {
        &self.linking
    }

    /// How people of an issuer sign in on those pages: with the client that is written for it, or the console's.
    #[must_use]
    pub fn sign_in(&self, issuer: &IssuerAlias) -> Option<SignIn> {
        let config = self.config();
        let issuer = config.issuers.iter().find(|known| known.alias == *issuer)?;
        let console = config.admin.as_ref().and_then(|admin| admin.console.as_ref());
        let console = console.filter(|console| console.issuer == issuer.alias);
        let (client_id, client_secret) = match (&issuer.link, console) {
            (Some(link), _) => (link.client_id.clone(), link.client_secret.clone()),
            (None, Some(console)) => (console.client_id.clone(), console.client_secret.clone()),
            (None, None) => return None,
        };
        let base = config.gateway.public_url.as_str().trim_end_matches('/');
        Some(SignIn {
            issuer: Arc::clone(issuer),
            client_id,
            client_secret,
            redirect: format!("{base}/link/signed-in"),
            scopes: Vec::new(),
            resource: None,
            acr: Vec::new(),
            allow_loopback: config.gateway.listen.ip().is_loopback(),
        })
    }

    /// Whether somebody may still link an account at a server, with a link that was made then.
    ///
    /// # Errors
    /// `revoked`, `issuer_unknown`, `store_unavailable`.
    pub fn may_link(&self, owner: &Owner, server: &ServerId, made_at: i64) -> Result<(), Refusal> {
        let standing = self.standing.current();
        standing.map_err(|failure| Refusal::new(failure.reason).hint(failure.detail))?;
        if !self.config().issuers.iter().any(|issuer| issuer.alias == owner.issuer) {
            return Err(Refusal::new(Reason::IssuerUnknown));
        }
        if self.live.revocations.names_account(&owner.issuer, &owner.subject, server) {
            return Err(Refusal::new(Reason::Revoked).hint("your account at this server was taken back"));
        }
        self.live.revocations.check_subject(&owner.issuer, &owner.subject, made_at)
    }

    /// Keeps an account that was linked: in force, then on the record.
    ///
    /// # Errors
    /// `store_unavailable`, `record_unavailable`; without a record nothing is kept.
    pub async fn keep_account(&self, owner: &Owner, server: &ServerId, entry: &Entry) -> Result<(), Failure> {
        let Some(vault) = self.delegate.vault() else {
            return Err(Failure::before(Reason::Internal, "there is no vault"));
        };
        let account = entry.account.as_deref().unwrap_or("an account that has no name");
        let about = format!("server {server}, {account} at {}", shown(&entry.authority));
        let detail = format!("scopes: {}", entry.scope.as_deref().unwrap_or_default());
        let actor = owner.spelled();
        // That it is going to be there, and whose, is on the record before it can be used.
        self.journal.administered(&note("link_account", &actor, "begun", &about, &detail), None).await?;
        vault.keep(owner, server, entry).await?;
        self.take_revocations().await?;
        if let Err(failure) =
            self.journal.administered(&note("link_account", &actor, "done", &about, &detail), None).await
        {
            tracing::error!(%failure, owner = actor, %server, "that an account is linked is on the record as begun only");
        }
        if let Some(server) = self.config().server(server) {
            self.catalog.changed(&server.id, None);
        }
        Ok(())
    }

    /// Somebody opened another one's link: on the record, and the owner is told.
    pub async fn link_opened_by_another(&self, owner: &Owner, server: &ServerId, subject: &str) {
        let (actor, opener) = (owner.spelled(), Subject::user(&owner.issuer, &shown(subject)));
        let opener = opener.as_str();
        tracing::warn!(owner = %actor, opener, %server, "a link was opened by somebody else, and nothing was stored");
        let about = format!("server {server}, the link of {actor}");
        let mut note = note("link_account", opener, "refused", &about, "the link was made for somebody else");
        note.reason = Some(Reason::AccountLinkRequired);
        if let Err(failure) = self.journal.administered(&note, None).await {
            tracing::error!(%failure, "that a link was opened by somebody else is not on the record");
        }
        let remembered = async {
            let change = opened_by_another(owner, server, self.store.clock_us().await?);
            self.store.change(vec![change], Tell::Nobody).await
        };
        if let Err(failure) = remembered.await {
            tracing::error!(%failure, "the owner of a link that somebody else opened is not told");
        }
    }

    /// Whether somebody else has opened this one's link since they were told last.
    pub async fn was_opened_by_another(&self, owner: &Owner, server: &ServerId) -> bool {
        let key: Digest = owner.place(server);
        let key = key.to_string();
        let Ok(Some(row)) = self.store.row(FOREIGN, &key).await else { return false };
        let told = Change::new(FOREIGN, key, Expect::Version(row.version), Action::Remove);
        self.store.change(vec![told], Tell::Nobody).await.is_ok_and(|changed| changed.is_done())
    }

    /// Linked accounts, of one person where one is named.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn accounts(&self, owner: Option<&str>) -> Result<Vec<Linked>, Failure> {
        match self.delegate.vault() {
            Some(vault) => vault.list(owner).await,
            None => Ok(Vec::new()),
        }
    }

    /// Takes an account back; nothing, where there is none.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn remove_account(&self, owner: &str, server: &ServerId) -> Result<Option<Removed>, Failure> {
        let Some(vault) = self.delegate.vault() else { return Ok(None) };
        let written = Arc::clone(&self.live.snapshot.load().written);
        let removed = vault.remove(&written, owner, server).await?;
        if removed.is_some() {
            self.take_revocations().await?;
            self.catalog.changed(server, None);
        }
        Ok(removed)
    }

    /// Takes back the accounts that a revocation names: of a subject, at a server, or all. `actor` is who ordered it.
    pub async fn remove_accounts_for(&self, target: &RevocationTarget, actor: &str) -> Vec<Removed> {
        self.take_accounts_for(target, actor).await.unwrap_or_else(|failure| {
            // Nobody they belong to can use them: the revocation itself holds, and they are looked for again.
            tracing::error!(%failure, "linked accounts of what was revoked are still in the vault");
            Vec::new()
        })
    }

    /// The same, and says so where some of them may be left.
    ///
    /// # Errors
    /// `store_unavailable`; whatever is left of a block is looked for again.
    pub async fn take_accounts_for(&self, target: &RevocationTarget, actor: &str) -> Result<Vec<Removed>, Failure> {
        let Some(vault) = self.delegate.vault() else { return Ok(Vec::new()) };
        let written = Arc::clone(&self.live.snapshot.load().written);
        let removed = vault.remove_for(&written, target).await?;
        if !removed.is_empty() {
            if let Err(failure) = self.take_revocations().await {
                tracing::error!(%failure, "linked accounts were taken back, and this replica may not have noticed");
            }
            self.config().servers.iter().filter(|server| server.has_accounts()).for_each(|server| {
                self.catalog.changed(&server.id, None);
            });
        }
        for Removed { owner, server, upstream, .. } in &removed {
            let about = format!("server {server}, the account of {owner}");
            let detail = format!("at the authorization server: {upstream}");
            let kind = match actor.split_once(':') {
                Some(("feed", _)) => "feed",
                Some(("host", _)) => "host",
                _ => "user",
            };
            let note =
                AdminNote { actor_kind: kind, brakes: true, ..note("unlink_account", actor, "done", &about, &detail) };
            if let Err(failure) = self.journal.administered(&note, None).await {
                tracing::error!(%failure, owner, %server, "that a linked account was taken back is not on the record");
            }
        }
        Ok(removed)
    }

    /// Looks after accounts that were taken back until the gateway stops: those that a block names and that are still
    /// here, and tokens that a service has not taken back yet.
    pub async fn look_after_accounts(self: Arc<Self>) {
        let stopping = self.stopping();
        let Some(vault) = self.delegate.vault().map(Arc::clone) else { return };
        // Beside each other: whatever waits for an authorization server keeps the others from nothing.
        let sweeping = again_and_again(|| self.sweep_accounts(&vault));
        let accounts = again_and_again(|| async {
            let written = Arc::clone(&self.live.snapshot.load().written);
            vault.settle(&written).await
        });
        let credentials = again_and_again(|| async {
            let written = Arc::clone(&self.live.snapshot.load().written);
            self.delegate.settle(&written).await
        });
        stopping.run_until_cancelled(async { tokio::join!(sweeping, accounts, credentials) }).await;
    }

    async fn sweep_accounts(&self, vault: &Arc<Vault>) -> Result<(), Failure> {
        let written = Arc::clone(&self.live.snapshot.load().written);
        if vault.is_behind(self.revocation_epoch()) {
            let (epoch, held) = self.store.revocations().await?;
            let found = vault.sweep(&written, &held, epoch).await?;
            if found > 0 {
                tracing::warn!(
                    accounts = found,
                    "linked accounts of what was blocked were still here, and are taken back"
                );
                self.take_revocations().await?;
            }
        }
        Ok(())
    }

    /// What the files say of accounts at a server, where it is called with any.
    #[must_use]
    pub fn account_config(&self, server: &ServerId) -> Option<Arc<OauthConfig>> {
        self.config().server(server).and_then(|server| oauth(server).cloned())
    }
}

async fn again_and_again<F: Future<Output = Result<(), Failure>>>(look: impl Fn() -> F) {
    loop {
        if let Err(failure) = look().await {
            tracing::warn!(%failure, "accounts that were taken back could not be looked after; it is tried again");
        }
        tokio::time::sleep(limit::VAULT_LOOK_INTERVAL).await;
    }
}

fn opened_by_another(owner: &Owner, server: &ServerId, now_us: i64) -> Change {
    let age_max = i64::try_from(limit::LINK_FOREIGN_AGE_MAX.as_micros()).unwrap_or(i64::MAX);
    let expires_at_us = Some(now_us.saturating_add(age_max));
    let action = Action::Put { owner: owner.spelled(), body: String::new(), expires_at_us };
    Change::new(FOREIGN, owner.place(server).to_string(), Expect::Anything, action)
}

fn note<'a>(
    operation: &'static str,
    actor: &'a str,
    outcome: &'static str,
    about: &'a str,
    detail: &'a str,
) -> AdminNote<'a> {
    AdminNote {
        operation,
        object: "bailiwick/vault",
        actor,
        actor_kind: "user",
        brakes: false,
        client: None,
        outcome,
        reason: None,
        rule: None,
        about,
        detail,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn that_somebody_else_opened_a_link_is_told_within_a_day_or_not_at_all() {
        let owner = Owner { issuer: IssuerAlias::new("corp").unwrap(), subject: "ann".to_owned() };
        let change = opened_by_another(&owner, &ServerId::new("notes").unwrap(), 5);
        assert_eq!(change.section.rows_max, limit::LINK_FOREIGN_MAX);
        let age_max = i64::try_from(limit::LINK_FOREIGN_AGE_MAX.as_micros()).unwrap();
        assert!(matches!(change.action, Action::Put { expires_at_us: Some(at), .. } if at == 5 + age_max));
    }
}
