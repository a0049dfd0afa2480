//! Decides with which credential an upstream is called: none, a secret of the gateway's, or one that was
//! exchanged for this caller. Refuses to know what is called with it.
//!
//! Invariants: the inbound token is a question to its own authorization server and is never an answer;
//! two callers share a credential only where everything that it depends on is equal; no credential is
//! used past its own end, its caller's, or the configured time.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::AUTHORIZATION;
use secrecy::{ExposeSecret, SecretString};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

mod account;
mod answer;
mod apart;
mod assertion;
mod cache;
mod client_credentials;
mod endpoint;
mod exchange;
mod fixed;
mod grant;
mod handed;
mod held;
mod id_jag;
mod issued;
mod key;
mod ledger;
mod metadata;
mod owed;
mod owners;
mod secrets;
mod spare;
mod takeback;
#[cfg(test)]
mod tests;
mod tie;
pub mod vault;
mod wanted;

pub use fixed::{CredentialHeader, SecretStatus};
pub use grant::{Grant, Leg, Recheck, attempt};
pub use handed::Handed;
pub use issued::Ends;
pub use key::server_revision;
pub use ledger::{IssuedCredential, left_behind};
pub use spare::Spare;
pub use takeback::{Taken, TakenBack};
pub use tie::Tie;
pub use wanted::Bound;

use cache::Cache;
use endpoint::Endpoints;
use fixed::Fixed;
use held::{Held, NoPlace};
use issued::Issued;
use ledger::Ledger;
use owners::Owners;
use secrets::Secrets;
use takeback::{Taking, TakingBack};
use vault::Vault;
use wanted::Wanted;

use crate::config::{Config, CredentialConfig, SecretReference, ServerConfig};
use crate::identity::revoked::RevocationTarget;
use crate::identity::{Caller, Identity, now_s};
use crate::ids::{AuthorizationContext, Digest, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::shelf::Shelf;

/// What is presented to an upstream for one call, and what the record says about it.
#[derive(Debug, Clone)]
pub struct Credential {
    /// The header that carries it; absent where nothing is presented.
    pub header: Option<CredentialHeader>,
    /// Whose it is: sessions and lists made with it are kept apart by this.
    pub context: AuthorizationContext,
    /// What the record says about it.
    pub facts: Arc<CredentialFacts>,
    /// When it ends.
    pub ends: Ends,
    /// The account whose it is, where somebody has linked one.
    account: Option<vault::AccountTie>,
}

/// What the record says about a credential; none of it is secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialFacts {
    /// What it is.
    pub kind: CredentialKind,
    /// Its name in the ledger of issued credentials.
    pub issue: Option<String>,
    /// Its `jti`, where it is a JWT that has one.
    pub id: Option<String>,
    /// Whom it is for, as it says itself or as it was asked for.
    pub audience: Option<String>,
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
    identity: Arc<Identity>,
    secrets: Arc<Secrets>,
    static_secrets: Arc<Fixed>,
    endpoints: Arc<Endpoints>,
    issued: Cache,
    held: Arc<Held>,
    ledger: Option<Arc<Ledger>>,
    taking: TakingBack,
    owners: ArcSwap<Owners>,
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
        let plain = |kind| Arc::new(CredentialFacts { kind, issue: None, id: None, audience: None });
        let secrets = Arc::new(Secrets::default());
        let watched = Arc::clone(&secrets);
        let watching = stop.clone();
        tasks.spawn(async move { watching.run_until_cancelled(watched.keep_fresh()).await });
        let endpoints = Arc::new(Endpoints::new(Arc::clone(&identity), Arc::clone(&secrets)));
        let held = Arc::new(Held::new());
        let delegate = Self {
            identity,
            static_secrets: Arc::new(Fixed::new(Arc::clone(&secrets))),
            secrets,
            taking: TakingBack::new(Arc::clone(&endpoints), Arc::clone(&held), tasks.clone(), stop),
            endpoints,
            issued: Cache::new(),
            held,
            ledger: None,
            owners: ArcSwap::default(),
            revisions: ArcSwap::default(),
            vault: None,
            none: plain(CredentialKind::None),
            fixed: plain(CredentialKind::Static),
        };
        delegate.reload(config).await;
        delegate
    }

    /// Writes down what is issued from now on, where it outlives this process.
    #[must_use]
    pub fn with_ledger(mut self, shelf: Arc<dyn Shelf>) -> Self {
        self.ledger = Some(Arc::new(Ledger::new(shelf)));
        self
    }

    /// Takes over another configuration: every secret is read again, credentials of servers that changed
    /// are not found again.
    pub async fn reload(&self, config: &Config) {
        self.secrets.replace(references(config)).await;
        self.static_secrets.forget();
        let revisions = config
            .servers
            .iter()
            .map(|server| {
                let revision = Revision { server: Arc::clone(server), digest: key::server_revision(server) };
                (server.id.clone(), revision)
            })
            .collect();
        self.revisions.store(Arc::new(revisions));
        self.owners.store(Arc::new(Owners::of(config)));
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
        if bound.ends_at.is_some_and(|ends_at| ends_at <= now_s()) {
            return Err(unavailable(&server.id, "what it would be used for has ended"));
        }
        let wanted = Wanted { caller: Some(caller), server, revision: self.revision(server), bound, key: NO_KEY };
        self.credential(configured(server, tool), wanted).await
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
        let (revision, bound) = (self.revision(server), Bound::default());
        let wanted = Wanted { caller: None, server, revision, bound, key: NO_KEY };
        self.credential(credential, wanted).await
    }

    async fn credential(&self, config: &CredentialConfig, wanted: Wanted<'_>) -> Result<Credential, Stop> {
        let (issued, wanted) = match config {
            CredentialConfig::None => {
                let (context, facts) = (AuthorizationContext::Gateway, Arc::clone(&self.none));
                return Ok(Credential { header: None, context, facts, ends: Ends::default(), account: None });
            }
            CredentialConfig::Static(fixed) => {
                let (header, own) = self.static_secrets.header(fixed, wanted.id()).await?;
                let bare = header.bare();
                let (context, facts) = (AuthorizationContext::Gateway, Arc::clone(&self.fixed));
                let ends = own.by(wanted.ends_at());
                let credential = Credential { header: Some(header), context, facts, ends, account: None };
                return Ok(match bare {
                    Some(secret) => credential.handed(config, &wanted, &secret),
                    None => credential,
                });
            }
            CredentialConfig::Oauth(account) => return Box::pin(self.account(config, account, &wanted)).await,
            CredentialConfig::Exchange(exchange) => {
                let wanted = wanted.keyed(config, &exchange.asks);
                let issue = || exchange::issue(&self.endpoints, exchange, &wanted).boxed();
                (self.issued(&wanted, issue).await?, wanted)
            }
            CredentialConfig::ClientCredentials(asks) => {
                let wanted = wanted.keyed(config, asks);
                let issue = || client_credentials::issue(&self.endpoints, asks, &wanted).boxed();
                (self.issued(&wanted, issue).await?, wanted)
            }
            CredentialConfig::IdJag(both) => {
                let wanted = wanted.keyed(config, &both.asks);
                let issue = || id_jag::issue(&self.endpoints, both, &wanted).boxed();
                (self.issued(&wanted, issue).await?, wanted)
            }
        };
        let ends = issued.ends().by(wanted.bound.ends_at);
        let header = CredentialHeader::new(AUTHORIZATION, prefixed("Bearer ", issued.secret()));
        let credential = Credential {
            header: Some(header.until(ends.used_until).standing(&issued.taken_back)),
            context: match wanted.caller.filter(|_| config.is_per_caller()) {
                Some(caller) => AuthorizationContext::Principal(caller.principal()),
                None => AuthorizationContext::Gateway,
            },
            facts: Arc::clone(issued.facts()),
            // Where it is everybody's, what others began with it goes on after this caller's end.
            ends: ends.by(wanted.ends_at()),
            account: None,
        };
        Ok(credential.handed(config, &wanted, issued.secret()))
    }

    /// What was issued for that key and is still good, or is issued now: written down first, then used.
    /// Most calls find theirs, and carry no room for how it is issued.
    async fn issued<'a>(
        &self,
        wanted: &Wanted<'_>,
        issue: impl FnOnce() -> BoxFuture<'a, Result<Issued, Stop>>,
    ) -> Result<Arc<Issued>, Stop> {
        let for_process = handed::handover(wanted.server).is_some();
        let good = |issued: &Issued| {
            let lasts = !for_process || handed::is_worth_a_process(issued, now_s());
            lasts && !self.identity.is_credential_revoked(&issued.id)
        };
        if let Some(issued) = self.issued.find(&wanted.key, good).await {
            return Ok(issued);
        }
        let issue = issue();
        let kept = async {
            let issued = Arc::new(issue.await?);
            let (spare, place) = self.held.reserve(&issued, wanted.holder());
            for unused in spare {
                let _unreported = self.taking.begin(unused, self.ledger.clone());
            }
            let entered = match (place, &self.ledger) {
                (Err(no_place), _) => Err(no_room(&issued.server, no_place)),
                (Ok(()), Some(ledger)) => ledger.enter(&issued).await.map_err(Stop::from),
                (Ok(()), None) => Ok(()),
            };
            if let Err(stop) = entered {
                // Nobody would know of it, so nobody has it.
                let _unreported = self.taking.begin(issued, None);
                return Err(stop);
            }
            self.held.hold(&issued);
            // Whoever took something back while it was asked for did not find it here.
            let owners = self.owners.load();
            let agents: Vec<String> = issued.agents.iter().map(ToString::to_string).collect();
            let owns = |owner: &str| owners.owns(owner, &agents, issued.server.as_str());
            if self.identity.took_back(issued.inbound.as_ref(), &issued.agents, &issued.server, owns) {
                let _unreported = self.begin(|one| one.id == issued.id).await;
                return Err(Refusal::new(Reason::Revoked).into());
            }
            Ok(issued)
        };
        self.issued.get_or(wanted.key, kept.boxed()).await
    }

    /// Whose credential calls of that caller's to the server are made with; needs no credential.
    #[must_use]
    pub fn context(caller: &Caller, server: &ServerConfig, tool: Option<&str>) -> AuthorizationContext {
        match configured(server, tool).is_per_caller() {
            false => AuthorizationContext::Gateway,
            true => AuthorizationContext::Principal(caller.principal()),
        }
    }

    /// Forgets the credentials that were issued for everyone whom a revocation names, and begins to take them back.
    /// They could not be used any more (their callers are refused). Answers how many there were.
    pub async fn drop_for(&self, target: &RevocationTarget) -> usize {
        self.begin_to_take(target).await.len()
    }

    /// The same, and answers what became of them for each upstream, with those that the ledger has and this process
    /// does not hold.
    ///
    /// # Errors
    /// When the ledger cannot be read; the credentials that are held here are being taken back all the same.
    pub async fn take_back(&self, target: &RevocationTarget) -> Result<Vec<TakenBack>, Failure> {
        let taking = self.begin_to_take(target).await;
        let held: Vec<String> = taking.iter().map(|taking| taking.issued.id.clone()).collect();
        let owners = self.owners.load_full();
        let mut told = takeback::report(taking).await;
        if let Some(ledger) = &self.ledger {
            let owns = |owner: &str, agents: &[String], server: &str| owners.owns(owner, agents, server);
            told.extend(ledger.left_behind(target, &held, owns).await?);
        }
        told.extend(owners.fixed(target));
        Ok(told)
    }

    /// The governed tasks for which something was issued that is held here: each with those above it, the outermost
    /// first.
    #[must_use]
    pub fn mandates_held(&self) -> BTreeSet<String> {
        self.held.mandates()
    }

    /// The secrets that are presented as they are, and how old they are.
    pub async fn static_secrets(&self, config: &Config) -> Vec<SecretStatus> {
        self.static_secrets.list(config).await
    }

    /// What is in the ledger, the youngest first.
    ///
    /// # Errors
    /// When it cannot be read.
    pub async fn ledger(&self) -> Result<Vec<IssuedCredential>, Failure> {
        let Some(ledger) = &self.ledger else { return Ok(Vec::new()) };
        let now = now_s();
        let mut listed = ledger.youngest(limit::CREDENTIALS_LISTED_MAX).await?;
        let is_lost = |entry: &IssuedCredential| entry.state == "pending" && !self.taking.is_under_way(&entry.id);
        let owed = if listed.iter().any(is_lost) { ledger.owed().await? } else { BTreeSet::new() };
        for entry in &mut listed {
            // What is tried no more, because nobody holds it, ends by itself.
            let state = match entry.state.as_str() {
                "in_use" if entry.used_until > now => "in_use",
                "in_use" if self.held.holds(&entry.id) => "use_ended",
                "pending" if self.taking.is_under_way(&entry.id) || owed.contains(&entry.id) => "pending",
                "in_use" | "pending" => "expires_at",
                _ => continue,
            };
            state.clone_into(&mut entry.state);
        }
        Ok(listed)
    }

    async fn begin_to_take(&self, target: &RevocationTarget) -> Vec<Taking> {
        let owners = self.owners.load_full();
        self.begin(|issued| owners.names(target, issued)).await
    }

    async fn begin(&self, fits: impl Fn(&Issued) -> bool) -> Vec<Taking> {
        let taken = self.held.take(fits);
        for issued in &taken {
            issued.taken_back.cancel();
            self.issued.forget(&issued.key).await;
        }
        self.taking.begin_all(taken, self.ledger.as_ref())
    }

    fn revision(&self, server: &Arc<ServerConfig>) -> Digest {
        let revisions = self.revisions.load();
        let known = revisions.get(&server.id).filter(|known| Arc::ptr_eq(&known.server, server));
        // A call under way across a reload brings its own configuration.
        known.map_or_else(|| key::server_revision(server), |known| known.digest)
    }
}

/// What a question has before its key is made.
const NO_KEY: Digest = Digest::from_bytes([0; 32]);

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

fn no_room(server: &ServerId, why: NoPlace) -> Stop {
    let shorter =
        "each leaves when it ends by itself or is taken back; have the authorization server issue shorter ones";
    unavailable(
        server,
        &match why {
            NoPlace::OfThisCaller => {
                format!(
                    "{} of this caller's still work, and more are not held: {shorter}",
                    limit::CREDENTIALS_PER_CALLER_MAX
                )
            }
            NoPlace::AtAll => format!("more than fit still work: {shorter}"),
        },
    )
}

fn unavailable(server: &ServerId, problem: &str) -> Stop {
    Failure::before(Reason::CredentialUnavailable, format!("no credential for server `{server}`: {problem}")).into()
}
