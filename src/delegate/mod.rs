//! Decides with which credential an upstream is called: none, a secret of the gateway's, or one that was
//! exchanged for this caller. Refuses to know what is called with it.
//!
//! Invariants: the inbound token is a question to its own authorization server and is never an answer;
//! two callers share a credential only where everything that it depends on is equal; no credential is
//! used past its own end, its caller's, or the configured time.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use http::HeaderName;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod answer;
mod assertion;
mod cache;
mod client_credentials;
mod endpoint;
mod exchange;
mod grant;
mod id_jag;
mod issued;
mod key;
mod metadata;
mod secrets;
#[cfg(test)]
mod tests;
pub mod vault;
mod wanted;

pub use grant::{Grant, Leg, Recheck, attempt};
pub use key::server_revision;
pub use wanted::Bound;

use cache::Cache;
use endpoint::Endpoints;
use issued::Issued;
use key::Inputs;
use secrets::Secrets;
use vault::Vault;
use wanted::Wanted;

use crate::config::{Config, CredentialConfig, OauthConfig, SecretReference, ServerConfig, StaticConfig};
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
    /// A token of the gateway's own.
    ClientCredentials,
    /// A token for a caller whom an identity provider vouched for.
    IdJag,
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
            Self::ClientCredentials => "client_credentials",
            Self::IdJag => "id_jag",
            Self::Oauth => "oauth",
        }
    }
}

/// The room: secrets that were read, tokens that were issued.
#[derive(Debug)]
pub struct Delegate {
    secrets: Arc<Secrets>,
    endpoints: Endpoints,
    issued: Cache,
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
            endpoints: Endpoints::new(identity, Arc::clone(&secrets)),
            secrets,
            issued: Cache::new(),
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
    /// [`Reason::ExchangeRefused`] when the authorization server refuses; [`Reason::MayActRefused`] when the caller's
    /// token does; [`Reason::CredentialLifeExceeded`] when it would live too long; [`Reason::CredentialUnavailable`]
    /// when a secret cannot be read or the authorization server does not answer as it should.
    pub async fn credential_for(
        &self,
        caller: &Caller,
        server: &Arc<ServerConfig>,
        tool: Option<&str>,
        bound: Bound<'_>,
    ) -> Result<Credential, Stop> {
        let wanted = Wanted { caller: Some(caller), server, revision: self.revision(server), bound };
        self.credential(configured(server, tool), wanted).await
    }

    /// The caller's own account.
    async fn account(&self, account: &Arc<OauthConfig>, wanted: &Wanted<'_>) -> Result<Credential, Stop> {
        let missing = |what: &str| unavailable(wanted.id(), what);
        let caller = wanted.caller.ok_or_else(|| missing("it is a caller's, and there is none"))?;
        let vault = self.vault.as_ref().ok_or_else(|| missing("there is no vault here"))?;
        let held = vault.account(caller, wanted.server, account).await?;
        let ends = wanted.bound.ends_at.unwrap_or(i64::MAX).min(caller.token().expires_at);
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
        let credential = configured(server, tool);
        if credential.is_per_caller() {
            return Err(unavailable(
                &server.id,
                "it is made for a caller, and there is none; set list_as = \"caller\"",
            ));
        }
        let wanted = Wanted { caller: None, server, revision: self.revision(server), bound: Bound::default() };
        self.credential(credential, wanted).await
    }

    async fn credential(&self, config: &CredentialConfig, wanted: Wanted<'_>) -> Result<Credential, Stop> {
        let issued = match config {
            CredentialConfig::None => {
                let (context, facts) = (AuthorizationContext::Gateway, Arc::clone(&self.none));
                return Ok(Credential { header: None, context, facts });
            }
            CredentialConfig::Static(fixed) => return self.fixed(fixed, &wanted).await,
            CredentialConfig::Oauth(account) => return self.account(account, &wanted).await,
            CredentialConfig::Exchange(exchange) => {
                let key = Inputs::new(&wanted, config, &exchange.asks).key();
                self.issued.get_or(key, shared(exchange::issue(&self.endpoints, exchange, &wanted))).await?
            }
            CredentialConfig::ClientCredentials(asks) => {
                let key = Inputs::new(&wanted, config, asks).key();
                self.issued.get_or(key, shared(client_credentials::issue(&self.endpoints, asks, &wanted))).await?
            }
            CredentialConfig::IdJag(both) => {
                let key = Inputs::new(&wanted, config, &both.asks).key();
                self.issued.get_or(key, shared(id_jag::issue(&self.endpoints, both, &wanted))).await?
            }
        };
        Ok(Credential {
            header: Some((AUTHORIZATION, prefixed("Bearer ", issued.secret()))),
            context: match wanted.caller.filter(|_| config.is_per_caller()) {
                Some(caller) => AuthorizationContext::Principal(caller.principal()),
                None => AuthorizationContext::Gateway,
            },
            facts: issued.facts(wanted.bound.ends_at),
        })
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
        self.credential_for(caller, server, tool, Bound::default()).await.map(|_| ())
    }

    async fn fixed(&self, fixed: &StaticConfig, wanted: &Wanted<'_>) -> Result<Credential, Stop> {
        let server = wanted.id();
        let name = HeaderName::try_from(fixed.header.as_str())
            .map_err(|_| unavailable(server, &format!("`{:.80}` is not a header name", fixed.header)))?;
        let slot = fixed.slots.first().ok_or_else(|| unavailable(server, "no secret is configured"))?;
        let value = self.secrets.get(slot).await.map_err(|problem| unavailable(server, &problem))?;
        Ok(Credential {
            header: Some((name, prefixed(&fixed.prefix, &value))),
            context: AuthorizationContext::Gateway,
            facts: Arc::clone(&self.fixed),
        })
    }

    /// Whose credential calls of that caller's to the server are made with; needs no credential.
    #[must_use]
    pub fn context(caller: &Caller, server: &ServerConfig, tool: Option<&str>) -> AuthorizationContext {
        match configured(server, tool).is_per_caller() {
            false => AuthorizationContext::Gateway,
            true => AuthorizationContext::Principal(caller.principal()),
        }
    }

    /// Forgets the credentials that were issued for everyone whom a revocation names. They could not be used any
    /// more (their callers are refused); this frees them at once. Answers how many there were.
    pub async fn drop_for(&self, target: &RevocationTarget) -> usize {
        let of_configuration = matches!(target, RevocationTarget::Agent(_) | RevocationTarget::Owner(_));
        let named = |token: &Issued| match target {
            RevocationTarget::Server(server) => token.server == *server,
            _ => of_configuration || token.inbound.as_ref().is_none_or(|inbound| target.names(inbound)),
        };
        self.issued.take(named).await.len()
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
    credentials.flat_map(CredentialConfig::secrets).cloned().collect()
}

/// What is issued may be waited for by many.
async fn shared(issue: impl Future<Output = Result<Issued, Stop>>) -> Result<Arc<Issued>, Stop> {
    issue.await.map(Arc::new)
}

fn seconds(duration: Duration) -> i64 {
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
