//! Calls that are made with the caller's own account at the upstream.
//!
//! Decides for how long one use of an account may last. Refuses to know how an account is kept ([`super::vault`]).
//! Invariant: an account is its owner's, and a use of it ends with the token of the caller who uses it.

use std::sync::Arc;

use http::header::AUTHORIZATION;

use super::vault::Vault;
use super::wanted::Wanted;
use super::{Bound, Credential, CredentialHeader, Delegate, Spare, configured, unavailable};
use crate::config::{CredentialConfig, OauthConfig, ServerConfig};
use crate::identity::Caller;
use crate::ids::AuthorizationContext;
use crate::outcome::Stop;

impl Delegate {
    /// The same, with accounts that callers have linked.
    #[must_use]
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        let ledger = self.ledger.as_ref().map(|ledger| Arc::new(ledger.sealing(&vault)));
        Self { ledger, vault: Some(vault), ..self }
    }

    /// The vault of linked accounts; a gateway that only looks has none.
    #[must_use]
    pub const fn vault(&self) -> Option<&Arc<Vault>> {
        self.vault.as_ref()
    }

    /// The caller's own account.
    pub(super) async fn account(
        &self,
        config: &CredentialConfig,
        account: &Arc<OauthConfig>,
        wanted: &Wanted<'_>,
    ) -> Result<Credential, Stop> {
        let missing = |what: &str| unavailable(wanted.id(), what);
        let caller = wanted.caller.ok_or_else(|| missing("it is a caller's, and there is none"))?;
        let vault = self.vault.as_ref().ok_or_else(|| missing("there is no vault here"))?;
        let (held, spare) = vault.account(caller, wanted.server, account).await?;
        let ends = held.ends.by(wanted.ends_at());
        let credential = Credential {
            header: Some(CredentialHeader {
                name: AUTHORIZATION,
                value: held.spelled(),
                spare: Some(Spare::Account(spare)),
                prover: held.prover.clone(),
                used_until: ends.used_until,
                handed: None,
                taken_back: None,
            }),
            context: AuthorizationContext::Principal(caller.principal()),
            facts: Arc::clone(&held.facts),
            ends,
            account: Some(held.tie()),
        };
        Ok(credential.handed(config, wanted, &held.secret))
    }

    /// Whether calls there are made with an account of the caller's.
    #[must_use]
    pub fn is_with_account(&self, server: &ServerConfig, tool: Option<&str>) -> bool {
        matches!(configured(server, tool), CredentialConfig::Oauth(_))
    }

    /// Whether the caller has linked the account that a call there is made with.
    ///
    /// # Errors
    /// [`Reason::AccountLinkRequired`] where not; [`Reason::CredentialUnavailable`] and `store_unavailable` where nobody
    /// knows.
    pub async fn has_account(
        &self,
        caller: &Caller,
        server: &Arc<ServerConfig>,
        tool: Option<&str>,
    ) -> Result<(), Stop> {
        Box::pin(self.credential_for(caller, server, tool, Bound::default())).await.map(|_| ())
    }
}
