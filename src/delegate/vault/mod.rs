//! The vault: accounts at upstreams that callers have linked, each at one server, each its owner's alone.
//!
//! Decides which of them can be used and when one is renewed. Refuses to know how one is linked. Invariants: tokens are
//! sealed wherever they rest; one replica at a time renews an account; what is remembered counts for one epoch, so that
//! an account that was taken back is not used again; an account that cannot be renewed is dead, and asked for anew; a
//! token that says of itself that it is good at this gateway goes to no upstream.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use moka::Expiry;
use secrecy::{ExposeSecret as _, SecretString};
use tokio::sync::Mutex;

mod authority;
mod entry;
mod owed;
mod renew;
mod rows;
#[cfg(test)]
mod tests;
mod wider;

pub use authority::{Authorities, Authority, Ourselves, account_of};
pub use entry::{Entry, Owner};
pub use owed::{OWED, take_offline};
pub use rows::{Linked, Removed, SWEPT, oauth};

use super::{CredentialFacts, CredentialKind, Ends, seconds};
use crate::config::{OauthConfig, ServerConfig};
use crate::identity::{Caller, Identity, now_s};
use crate::ids::{Digest, RevocationEpoch};
use crate::limit;
use crate::oauth::dpop::Prover;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::shelf::{Section, Shelf, Version};
use crate::wire::handle::Sealer;

/// Where linked accounts are.
/// Linked accounts, by whose they are and where.
pub const ACCOUNTS: Section = Section { name: "account", rows_max: limit::VAULT_ENTRIES_MAX };

/// The vault.
#[derive(Debug)]
pub struct Vault {
    shelf: Arc<dyn Shelf>,
    sealer: Sealer,
    identity: Arc<Identity>,
    held: moka::sync::Cache<Digest, Arc<Held>>,
    /// One request at a time looks after an account.
    turns: moka::sync::Cache<Digest, Arc<Mutex<()>>>,
    authorities: Authorities,
    /// Accounts that were renewed because their token was refused, a moment ago.
    refused: moka::sync::Cache<Digest, ()>,
    /// Accounts whose authorization server could not be asked, a moment ago.
    failed: moka::sync::Cache<Digest, Arc<str>>,
    /// Scopes that accounts have to be linked for, because their servers said so a moment ago.
    wider: moka::sync::Cache<Digest, Arc<str>>,
    /// The epoch up to which accounts of what is blocked were taken back.
    swept: std::sync::atomic::AtomicU64,
}

/// What a use of an account hangs on: the account that was linked then, and is still there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AccountTie {
    place: Digest,
    linked_at: i64,
}

/// An account that can be used.
#[derive(Debug)]
pub(super) struct Held {
    pub secret: SecretString,
    pub facts: Arc<CredentialFacts>,
    /// When it ends, whoever uses it.
    pub ends: Ends,
    /// Not without another look from this second since 1970 on.
    used_until: i64,
    /// Of which epoch that is known.
    epoch: RevocationEpoch,
    resource: String,
    authority: String,
    /// The client there, where an administrator wrote it.
    client: Option<String>,
    /// What it was linked for.
    scopes: BTreeSet<String>,
    /// Makes the proofs that go with it, where it is bound to a key.
    pub prover: Option<Arc<Prover>>,
    tie: AccountTie,
}

/// A row that was read, and what it held.
struct Found {
    version: Version,
    expires_at_us: Option<i64>,
    kept: entry::Kept,
    entry: Option<Entry>,
}

/// For whom an account is wanted, and what the files say of it.
#[derive(Debug, Clone)]
struct Sought {
    owner: Owner,
    server: Arc<ServerConfig>,
    account: Arc<OauthConfig>,
    epoch: RevocationEpoch,
    /// An access token that the upstream does not take, whatever is said of its life.
    refused: Option<SecretString>,
    /// So many seconds before the end of a use nothing is begun with it any more.
    lead: i64,
}

/// A linked account, renewed.
#[derive(Debug, Clone)]
pub struct AccountSpare {
    vault: Arc<Vault>,
    sought: Sought,
    presented: Arc<Held>,
}

impl Vault {
    /// A vault of these rows, whose first key seals and whose every key opens.
    #[must_use]
    pub fn new(shelf: Arc<dyn Shelf>, sealer: Sealer, ourselves: Ourselves, identity: Arc<Identity>) -> Arc<Self> {
        Arc::new(Self {
            shelf: Arc::clone(&shelf),
            sealer,
            identity,
            held: moka::sync::Cache::builder().max_capacity(limit::VAULT_HELD_MAX).expire_after(UntilUse).build(),
            turns: moka::sync::Cache::new(limit::VAULT_HELD_MAX),
            authorities: Authorities::new(shelf, ourselves),
            refused: moka::sync::Cache::builder()
                .max_capacity(limit::VAULT_HELD_MAX)
                .time_to_live(limit::VAULT_REFUSED_PAUSE)
                .build(),
            failed: moka::sync::Cache::builder()
                .max_capacity(limit::VAULT_HELD_MAX)
                .time_to_live(limit::VAULT_FAILED_PAUSE)
                .build(),
            wider: moka::sync::Cache::builder()
                .max_capacity(limit::VAULT_HELD_MAX)
                .time_to_live(limit::LINK_AGE_MAX)
                .build(),
            swept: std::sync::atomic::AtomicU64::new(0),
        })
    }

    /// What seals here.
    pub(super) const fn sealer(&self) -> &Sealer {
        &self.sealer
    }

    /// Who we are toward authorization servers, and what they say of themselves.
    #[must_use]
    pub const fn authorities(&self) -> &Authorities {
        &self.authorities
    }

    /// Whether a token says of itself that it is good at this gateway: whoever gets it there could come back with it.
    #[must_use]
    pub fn is_good_here(&self, access: &SecretString) -> bool {
        let said = super::answer::claims::<super::answer::SaidOfItself>(access.expose_secret()).unwrap_or_default();
        self.identity.reaches(said.iss.as_deref(), said.audiences())
    }

    /// The authorization server of an upstream.
    ///
    /// # Errors
    /// A lower-case sentence: why nobody can link an account there.
    pub async fn authority(&self, server: &ServerConfig, account: &OauthConfig) -> Result<Arc<Authority>, String> {
        self.authorities.of(server, account, &self.sealer).await
    }

    /// Forgets a registration of ours that its authorization server does not know any more.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn forget_client(&self, issuer: &str, client: &crate::oauth::Registered) -> Result<(), Failure> {
        self.authorities.forget(issuer, client, &self.sealer).await
    }

    /// The caller's account at the server.
    pub(super) async fn account(
        self: &Arc<Self>,
        caller: &Caller,
        server: &Arc<ServerConfig>,
        account: &Arc<OauthConfig>,
    ) -> Result<(Arc<Held>, AccountSpare), Stop> {
        let owner = Owner::of(caller).ok_or_else(|| {
            let hint = "this server is called with a person's account there, and nobody stands behind this call";
            Refusal::new(Reason::AccountLinkRequired).hint(hint)
        })?;
        if self.identity.is_account_revoked(&owner.issuer, &owner.subject, &server.id) {
            let hint = "your account at this server was taken back; ask an administrator to lift that";
            return Err(Refusal::new(Reason::Revoked).hint(hint).into());
        }
        let sought = Sought {
            owner,
            server: Arc::clone(server),
            account: Arc::clone(account),
            epoch: caller.epoch(),
            refused: None,
            lead: super::handed::handover(server).map_or(0, |_| super::handed::lead(seconds(account.use_max))),
        };
        let held = self.seek(sought.clone()).await?;
        let spare = AccountSpare { vault: Arc::clone(self), sought, presented: Arc::clone(&held) };
        Ok((held, spare))
    }

    /// The account: as it is remembered, or else as its row has it.
    async fn seek(self: &Arc<Self>, sought: Sought) -> Result<Arc<Held>, Stop> {
        let place = sought.owner.place(&sought.server.id);
        if let Some(held) = self.usable(&place, &sought) {
            return Ok(held);
        }
        let turn = self.turns.get_with(place, Arc::default);
        let turn = turn.lock_owned().await;
        if let Some(held) = self.usable(&place, &sought) {
            return Ok(held);
        }
        // An authorization server gives each refresh token once: whoever wanted the call may be gone when it answers.
        let vault = Arc::clone(self);
        let looked = tokio::spawn(Box::pin(async move {
            let looked = vault.look(&sought).await;
            match &looked {
                Ok(held) => vault.held.insert(place, Arc::clone(held)),
                Err(_) => vault.held.invalidate(&place),
            }
            drop(turn);
            looked
        }));
        looked.await.unwrap_or_else(|error| Err(Failure::before(Reason::Internal, error.to_string()).into()))
    }

    fn usable(&self, place: &Digest, sought: &Sought) -> Option<Arc<Held>> {
        let held = self.held.get(place)?;
        let own = held.epoch == sought.epoch
            && is_named(&sought.server, &sought.account, (&held.resource, &held.authority, held.client.as_deref()));
        let good = own && now_s() < held.used_until.saturating_sub(sought.lead) && !sought.refuses(&held.secret);
        good.then_some(held)
    }

    /// What may be used of an entry for a while.
    fn hold(&self, sought: &Sought, entry: &Entry) -> Arc<Held> {
        let now = now_s();
        let used_until = now.saturating_add(seconds(sought.account.use_max)).min(used_up_at(entry, now));
        let facts = CredentialFacts {
            kind: CredentialKind::Oauth,
            issue: None,
            id: None,
            audience: Some(entry.resource.clone()),
        };
        Arc::new(Held {
            secret: entry.access.clone(),
            facts: Arc::new(facts),
            ends: Ends { expires_at: entry.expires_at, used_until: Some(used_until) },
            used_until,
            epoch: sought.epoch,
            resource: entry.resource.clone(),
            authority: entry.authority.clone(),
            client: entry.written_client().map(str::to_owned),
            scopes: wider::scopes(entry),
            prover: entry.key.clone().map(Prover::new),
            tie: AccountTie { place: sought.owner.place(&sought.server.id), linked_at: entry.linked_at },
        })
    }
}

/// What is remembered of an account is gone with its use, whatever a clock is set to.
struct UntilUse;

impl Expiry<Digest, Arc<Held>> for UntilUse {
    fn expire_after_create(&self, _: &Digest, held: &Arc<Held>, _: Instant) -> Option<Duration> {
        Some(Duration::from_secs(u64::try_from(held.used_until.saturating_sub(now_s())).unwrap_or(0)))
    }

    fn expire_after_update(
        &self,
        key: &Digest,
        held: &Arc<Held>,
        at: Instant,
        _: Option<Duration>,
    ) -> Option<Duration> {
        self.expire_after_create(key, held, at)
    }
}

impl Held {
    /// How it stands in a header.
    pub fn spelled(&self) -> SecretString {
        super::prefixed(if self.prover.is_some() { "DPoP " } else { "Bearer " }, &self.secret)
    }

    /// What a use of it hangs on.
    pub const fn tie(&self) -> AccountTie {
        self.tie
    }
}

/// Whether tokens of that resource, authorization server and written client are those that the files name now.
fn is_named(server: &ServerConfig, account: &OauthConfig, of: (&String, &str, Option<&str>)) -> bool {
    let (own, authority, client) = of;
    is_own_name(server, account, own) && agrees(account, authority, client)
}

/// Whether the files still name that authorization server, and us there as they did.
fn agrees(account: &OauthConfig, authority: &str, client: Option<&str>) -> bool {
    let issuer = account.issuer.as_deref();
    // Who we are somewhere is written beside where that is, so a client without an issuer is nobody's.
    let own = |client: &str| account.client_id.as_deref() == Some(client) && issuer == Some(authority);
    issuer.is_none_or(|issuer| issuer == authority) && client.is_none_or(own)
}

/// When an access token is renewed, or would have to be.
fn renewed_at(entry: &Entry) -> i64 {
    let Some(ends) = entry.expires_at else { return i64::MAX };
    let life = ends.saturating_sub(entry.given_at).max(0);
    ends.saturating_sub(seconds(limit::EXCHANGED_MARGIN).min(life / 2))
}

/// Until when it may be used: what cannot be renewed is used to its end.
fn used_up_at(entry: &Entry, now: i64) -> i64 {
    let at = renewed_at(entry);
    if at > now { at } else { entry.expires_at.unwrap_or(i64::MAX) }
}

impl AccountTie {
    /// Which account it is, and since when it is linked.
    pub(super) fn digest(&self) -> Digest {
        Digest::of("bailiwick/account-tie/v1", &[self.place.as_bytes(), &self.linked_at.to_be_bytes()])
    }
}

impl Sought {
    fn refuses(&self, secret: &SecretString) -> bool {
        self.refused.as_ref().is_some_and(|refused| refused.expose_secret() == secret.expose_secret())
    }
}

/// Whether a server may call itself so: as the files have it, or by its origin alone, where nobody wrote a name and that
/// is what it publishes there (RFC 9728, section 3.3).
fn is_own_name(server: &ServerConfig, account: &OauthConfig, named: &str) -> bool {
    let origin = || match &server.transport {
        crate::config::TransportConfig::Http { url, .. } if account.resource.is_none() => is_origin(url, named),
        _ => false,
    };
    resource(server, account).as_deref() == Some(named) || origin()
}

/// Whether that is the origin of a URL, with a slash at its end or without.
fn is_origin(url: &url::Url, named: &str) -> bool {
    named.strip_suffix('/').unwrap_or(named) == url.origin().ascii_serialization()
}

/// What a server calls itself, as far as the files say.
#[must_use]
pub fn resource(server: &ServerConfig, account: &OauthConfig) -> Option<String> {
    let written = account.resource.clone();
    written.or_else(|| match &server.transport {
        crate::config::TransportConfig::Http { url, .. } => Some(url.to_string()),
        crate::config::TransportConfig::Stdio { .. } => None,
    })
}

fn unavailable(sought: &Sought, problem: &str) -> Stop {
    super::unavailable(&sought.server.id, problem)
}

/// Nothing of theirs can be used there.
fn link_required() -> Stop {
    Refusal::new(Reason::AccountLinkRequired).into()
}
