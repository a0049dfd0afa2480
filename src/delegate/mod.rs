//! Decides with which credential an upstream is called: none, a secret of the gateway's, or one that was
//! exchanged for this caller. Refuses to know what is called with it.
//!
//! Invariants: the inbound token is a question to its own authorization server and is never an answer;
//! two callers share a credential only where everything that it depends on is equal; no credential is
//! used past its own end, its caller's, or the configured time.

use std::collections::HashMap;
use std::sync::Arc;

use arc_swap::ArcSwap;
use http::HeaderName;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod exchange;
mod grant;
mod key;
mod secrets;
#[cfg(test)]
mod tests;
pub mod vault;

pub use grant::{Grant, Leg, Recheck, attempt};
pub use key::server_revision;

use exchange::Exchanges;
use secrets::Secrets;
use vault::Vault;

use crate::config::{Config, CredentialConfig, OauthConfig, SecretReference, ServerConfig};
use crate::identity::revoked::RevocationTarget;
use crate::identity::{Caller, Identity};
use crate::ids::{AuthorizationContext, Digest, ServerId};
use crate::outcome::{Failure, Reason, Stop};

/// What is presented to an upstream for one call, and what the record says about it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The header that carries it; absent where nothing is presented.
    pub header: Option<(HeaderName, SecretString)>,
    /// Whose it is: sessions and lists made with it are kept apart by this.
    pub context: AuthorizationContext,
    /// What the record says about it.
    pub facts: Arc<CredentialFacts>,
}

/// What the record says about a credential; none of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFacts {
    /// What it is.
    pub kind: CredentialKind,
    /// Its `jti`, where it is a JWT that has one.
    pub id: Option<String>,
    /// Whom it is for, as it says itself or as it was asked for.
    pub audience: Option<String>,
    /// When it expires by itself, seconds since 1970.
    pub expires_at: Option<i64>,
    /// Until when it is used, seconds since 1970.
    pub used_until: Option<i64>,
}

/// What a credential is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CredentialKind {
    /// Nothing is presented.
    None,
    /// A secret of the gateway's.
    Static,
    /// A token that was exchanged for the caller's (RFC 8693).
    Exchange,
    /// A token of the caller's own account at the upstream.
    Oauth,
}

impl CredentialKind {
    /// The spelling in files and records.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Static => "static",
            Self::Exchange => "exchange",
            Self::Oauth => "oauth",
        }
    }
}

/// The room: secrets that were read, tokens that were exchanged.
#[derive(Debug)]
pub struct Delegate {
    identity: Arc<Identity>,
    secrets: Arc<Secrets>,
    exchanges: Exchanges,
    revisions: ArcSwap<HashMap<ServerId, Revision>>,
    vault: Option<Arc<Vault>>,
    none: Arc<CredentialFacts>,
    fixed: Arc<CredentialFacts>,
}

/// What of a server's configuration a credential depends on.
#[derive(Debug)]
struct Revision {
    server: Arc<ServerConfig>,
    digest: Digest,
}

impl Delegate {
    /// Reads every secret that the configuration refers to, and looks after them in a task until `stop`.
    ///
    /// A secret that cannot be read stops only the calls that need it ([`Self::problems`]).
    pub async fn new(config: &Config, identity: Arc<Identity>, tasks: &TaskTracker, stop: CancellationToken) -> Self {
        let plain =
            |kind| Arc::new(CredentialFacts { kind, id: None, audience: None, expires_at: None, used_until: None });
        let secrets = Arc::new(Secrets::default());
        let watched = Arc::clone(&secrets);
        tasks.spawn(async move { stop.run_until_cancelled(watched.keep_fresh()).await });
        let delegate = Self {
            identity,
            secrets,
            exchanges: Exchanges::new(),
            revisions: ArcSwap::default(),
            vault: None,
            none: plain(CredentialKind::None),
            fixed: plain(CredentialKind::Static),
        };
        delegate.reload(config).await;
        delegate
    }

    /// The same, with accounts that callers have linked.
    #[must_use]
    pub fn with_vault(self, vault: Arc<Vault>) -> Self {
        Self { vault: Some(vault), ..self }
    }

    /// The vault of linked accounts; a gateway that only looks has none.
    #[must_use]
    pub const fn vault(&self) -> Option<&Arc<Vault>> {
        self.vault.as_ref()
    }

    /// Takes over another configuration: every secret is read again, credentials of servers that changed
    /// are not found again.
    pub async fn reload(&self, config: &Config) {
        self.secrets.replace(references(config)).await;
        let revisions = config
            .servers
            .iter()
            .map(|server| {
                let revision = Revision { server: Arc::clone(server), digest: key::server_revision(server) };
                (server.id.clone(), revision)
            })
            .collect();
        self.revisions.store(Arc::new(revisions));
    }

    /// Secrets that could not be read, for readiness and people: where they are and what is wrong.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        self.secrets.problems()
    }

    /// The credential for a call of that caller's to one tool of a server, or to the server itself.
    ///
    /// # Errors
    /// [`Reason::ExchangeRefused`] when the authorization server refuses; [`Reason::CredentialUnavailable`]
    /// when a secret cannot be read or the authorization server does not answer as it should.
    pub async fn credential_for(
        &self,
        caller: &Caller,
        server: &Arc<ServerConfig>,
        tool: Option<&str>,
    ) -> Result<Credential, Stop> {
        let exchange = match configured(server, tool) {
            CredentialConfig::Exchange(exchange) => exchange,
            CredentialConfig::Oauth(account) => return self.account(caller, server, account).await,
            CredentialConfig::None | CredentialConfig::Static { .. } => {
                return self.gateway_credential(server, tool).await;
            }
        };
        let secret = match &exchange.client_secret {
            Some(reference) => Some(self.secret(reference, server).await?),
            None => None,
        };
        let question =
            exchange::Question { caller, server: &server.id, revision: self.revision(server), exchange, secret };
        let token = self.exchanges.token(&self.identity, question).await?;
        Ok(Credential {
            header: Some((AUTHORIZATION, prefixed("Bearer ", token.secret()))),
            context: AuthorizationContext::Principal(caller.principal()),
            facts: Arc::clone(token.facts()),
        })
    }

    /// The caller's own account.
    async fn account(
        &self,
        caller: &Caller,
        server: &Arc<ServerConfig>,
        account: &Arc<OauthConfig>,
    ) -> Result<Credential, Stop> {
        let vault = self.vault.as_ref().ok_or_else(|| unavailable(&server.id, "there is no vault here"))?;
        let held = vault.account(caller, server, account).await?;
        let ends = caller.token().expires_at;
        let facts = match held.facts.used_until.filter(|until| *until > ends) {
            None => Arc::clone(&held.facts),
            Some(_) => Arc::new(CredentialFacts { used_until: Some(ends), ..CredentialFacts::clone(&held.facts) }),
        };
        Ok(Credential {
            header: Some((AUTHORIZATION, prefixed("Bearer ", &held.secret))),
            context: AuthorizationContext::Principal(caller.principal()),
            facts,
        })
    }

    /// The gateway's own credential for a server: for calls where it does not depend on the caller, and for
    /// the gateway's errands.
    ///
    /// # Errors
    /// [`Reason::CredentialUnavailable`], also where the server's credential is made for a caller.
    pub async fn gateway_credential(&self, server: &Arc<ServerConfig>, tool: Option<&str>) -> Result<Credential, Stop> {
        let (header, facts) = match configured(server, tool) {
            CredentialConfig::None => (None, &self.none),
            CredentialConfig::Static { header, prefix, secret } => {
                let name = HeaderName::try_from(header.as_str())
                    .map_err(|_| unavailable(&server.id, &format!("`{header:.80}` is not a header name")))?;
                let value = self.secret(secret, server).await?;
                (Some((name, prefixed(prefix, &value))), &self.fixed)
            }
            CredentialConfig::Exchange(_) | CredentialConfig::Oauth(_) => {
                return Err(unavailable(
                    &server.id,
                    "it is made for a caller, and there is none; set list_as = \"caller\"",
                ));
            }
        };
        Ok(Credential { header, context: AuthorizationContext::Gateway, facts: Arc::clone(facts) })
    }

    /// Whose credential calls of that caller's to the server are made with; needs no credential.
    #[must_use]
    pub fn context(caller: &Caller, server: &ServerConfig, tool: Option<&str>) -> AuthorizationContext {
        match configured(server, tool) {
            CredentialConfig::None | CredentialConfig::Static { .. } => AuthorizationContext::Gateway,
            CredentialConfig::Exchange(_) | CredentialConfig::Oauth(_) => {
                AuthorizationContext::Principal(caller.principal())
            }
        }
    }

    /// Forgets the exchanged credentials of everyone whom a revocation names. They could not be used any
    /// more (their callers are refused); this frees them at once. Answers how many there were.
    pub async fn drop_for(&self, target: &RevocationTarget) -> usize {
        self.exchanges.drop_for(target).await
    }

    async fn secret(&self, reference: &SecretReference, server: &ServerConfig) -> Result<Arc<SecretString>, Stop> {
        self.secrets.get(reference).await.map_err(|problem| unavailable(&server.id, &problem))
    }

    fn revision(&self, server: &Arc<ServerConfig>) -> Digest {
        let revisions = self.revisions.load();
        let known = revisions.get(&server.id).filter(|known| Arc::ptr_eq(&known.server, server));
        // A call under way across a reload brings its own configuration.
        known.map_or_else(|| key::server_revision(server), |known| known.digest)
    }
}

/// The credential of a tool, or of its server.
fn configured<'a>(server: &'a ServerConfig, tool: Option<&str>) -> &'a CredentialConfig {
    tool.and_then(|tool| server.tool_credentials.get(tool)).unwrap_or(&server.credential)
}

fn references(config: &Config) -> Vec<SecretReference> {
    let credentials = config
        .servers
        .iter()
        .flat_map(|server| std::iter::once(&server.credential).chain(server.tool_credentials.values()));
    credentials
        .filter_map(|credential| match credential {
            CredentialConfig::None => None,
            CredentialConfig::Static { secret, .. } => Some(secret.clone()),
            CredentialConfig::Exchange(exchange) => exchange.client_secret.clone(),
            CredentialConfig::Oauth(account) => account.client_secret.clone(),
        })
        .collect()
}

fn seconds(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

fn prefixed(prefix: &str, secret: &SecretString) -> SecretString {
    let secret = secret.expose_secret();
    let mut value = String::with_capacity(prefix.len() + secret.len());
    value.push_str(prefix);
    value.push_str(secret);
    SecretString::from(value)
}

fn unavailable(server: &ServerId, problem: &str) -> Stop {
    Failure::before(Reason::CredentialUnavailable, format!("no credential for server `{server}`: {problem}")).into()
}
