//! Accounts as they come and go: linked, listed, taken back.
//!
//! Decides what is told of an account, none of it secret. Invariant: whoever links or takes back an account tells
//! everybody, so that no replica uses what it remembers of it.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::super::{Taken, TakenBack};
use super::entry::Kept;
use super::renew::put;
use super::{ACCOUNTS, Entry, Owner, Vault};
use crate::config::{Config, CredentialConfig, OauthConfig, ServerConfig};
use crate::identity::revoked::RevocationTarget;
use crate::ids::ServerId;
use crate::limit;
use crate::oauth::tokens::Party;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Row, Tell};

/// A linked account, as people may know of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Linked {
    /// Whose, as rules spell it.
    pub owner: String,
    /// At which server.
    pub server: String,
    /// When it was linked, seconds since 1970.
    pub linked_at: i64,
    /// Whether it can be used; otherwise it has to be linked again.
    pub usable: bool,
    /// The authorization server.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub authority: String,
    /// What the account is called there.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub account: String,
    /// What was granted.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub scope: String,
    /// When the access token of this moment ends, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

/// What became of the tokens of an account that was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Removed {
    /// Whose it was.
    pub owner: String,
    /// At which server.
    pub server: String,
    /// `revoked`, `unsupported` or `unknown` at the authorization server.
    pub upstream: String,
    /// Until when the access token may work for whoever has it, seconds since 1970, where it was not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

impl Removed {
    /// The same as a revocation tells of it.
    #[must_use]
    pub fn taken_back(&self) -> TakenBack {
        let (state, detail) = match self.upstream.as_str() {
            "revoked" => (Taken::Revoked, ""),
            "unsupported" => (Taken::Unsupported, "a linked account, whose authorization server takes nothing back"),
            _ => (Taken::ExpiresAt, "a linked account, whose authorization server did not say that it took it back"),
        };
        let (server, detail) = (self.server.clone(), detail.to_owned());
        TakenBack { server, state, credentials: 1, expires_at: self.expires_at, detail }
    }
}

impl Vault {
    /// Keeps an account that was linked, instead of the one that was there.
    ///
    /// # Errors
    /// `store_unavailable`; nothing is kept then. Where it is kept, everybody was told: the epoch has risen.
    pub async fn keep(&self, owner: &Owner, server: &ServerId, entry: &Entry) -> Result<(), Failure> {
        let kept = Kept::seal(&self.sealer, owner, server, entry)
            .map_err(|problem| Failure::before(Reason::Internal, problem))?;
        let action = put(&owner.spelled(), &kept, Some(self.idle_until_us().await?))?;
        let change = Change::new(ACCOUNTS, owner.place(server).to_string(), Expect::Anything, action);
        match self.shelf.change(vec![change], Tell::Everybody).await? {
            Changed::Done { .. } => {
                self.held.invalidate(&owner.place(server));
                Ok(())
            }
            Changed::Full(_) => Err(Failure::before(Reason::StoreUnavailable, "the vault is full")),
            Changed::Conflict(_) => Err(Failure::before(Reason::StoreUnavailable, "the vault changed meanwhile")),
        }
    }

    /// Whether an account is there that could be used.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn is_linked(&self, owner: &Owner, server: &ServerId) -> Result<bool, Failure> {
        let row = self.shelf.row(ACCOUNTS, &owner.place(server).to_string()).await?;
        let kept = row.and_then(|row| serde_json::from_str::<Kept>(&row.body).ok());
        Ok(kept.is_some_and(|kept| !kept.dead))
    }

    /// Accounts, of one owner where one is named.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(&self, owner: Option<&str>) -> Result<Vec<Linked>, Failure> {
        let rows = self.all(owner).await?;
        Ok(rows.iter().map(|(_, kept)| self.told(kept)).collect())
    }

    /// Takes an account back: it is not used again, and its tokens are given back where that is possible. Nothing,
    /// where there is none.
    ///
    /// # Errors
    /// `store_unavailable`; nobody knows then.
    pub async fn remove(
        self: &Arc<Self>,
        config: &Arc<Config>,
        owner: &str,
        server: &ServerId,
    ) -> Result<Option<Removed>, Failure> {
        let mut rows = self.all(Some(owner)).await?;
        rows.retain(|(_, kept)| kept.server == *server);
        Ok(self.take(config, rows).await?.pop())
    }

    /// Takes back every account that a revocation names: of a subject, at a server, or all.
    ///
    /// # Errors
    /// `store_unavailable`; some of them may be left.
    pub async fn remove_for(
        self: &Arc<Self>,
        config: &Arc<Config>,
        target: &RevocationTarget,
    ) -> Result<Vec<Removed>, Failure> {
        let owner = match target {
            RevocationTarget::Subject(issuer, subject) => Some(format!("user:{issuer}/{subject}")),
            RevocationTarget::Server(_) | RevocationTarget::Everything => None,
            _ => return Ok(Vec::new()),
        };
        let mut rows = self.all(owner.as_deref()).await?;
        rows.retain(|(_, kept)| !matches!(target, RevocationTarget::Server(server) if kept.server != *server));
        self.take(config, rows).await
    }

    /// Removes these rows, and then gives their tokens back: nobody waits for that before they are used no more.
    async fn take(self: &Arc<Self>, config: &Arc<Config>, rows: Vec<(Row, Kept)>) -> Result<Vec<Removed>, Failure> {
        for some in rows.chunks(limit::SHELF_CHANGES_MAX) {
            let gone =
                |(row, _): &(Row, Kept)| Change::new(ACCOUNTS, row.key.clone(), Expect::Anything, Action::Remove);
            self.shelf.change(some.iter().map(gone).collect(), Tell::Everybody).await?;
        }
        let at_once = Arc::new(Semaphore::new(limit::CREDENTIALS_REVOKED_AT_ONCE_MAX));
        let deadline = tokio::time::Instant::now() + limit::REVOKE_REPORT_WAIT;
        let mut asked = Vec::with_capacity(rows.len());
        for (_, kept) in rows {
            self.held.invalidate(&kept.owner.place(&kept.server));
            let entry = kept.open(&self.sealer, &kept.owner, &kept.server);
            let ends = entry.as_ref().and_then(|entry| entry.expires_at);
            let (vault, config, of, turn) = (Arc::clone(self), Arc::clone(config), kept.clone(), Arc::clone(&at_once));
            // Goes on although nobody waits for it any more.
            let asking = tokio::spawn(async move {
                let _turn = turn.acquire().await;
                match &entry {
                    Some(entry) => vault.taken_back(&config, &of, entry).await,
                    None => "unknown",
                }
            });
            asked.push((kept, ends, asking));
        }
        let mut removed = Vec::with_capacity(asked.len());
        for (kept, ends, asking) in asked {
            let upstream = match tokio::time::timeout_at(deadline, asking).await {
                Ok(Ok(upstream)) => upstream,
                Ok(Err(_)) | Err(_) => "unknown",
            };
            removed.push(Removed {
                owner: kept.owner.spelled(),
                server: kept.server.to_string(),
                upstream: upstream.to_owned(),
                expires_at: ends.filter(|_| upstream != "revoked"),
            });
        }
        Ok(removed)
    }

    /// What the authorization server says when the tokens are given back (RFC 7009).
    async fn taken_back(&self, config: &Config, kept: &Kept, entry: &Entry) -> &'static str {
        let Some(endpoint) = &entry.revocation_endpoint else { return "unsupported" };
        let Some((server, account)) = config.server(&kept.server).and_then(|server| Some((server, oauth(server)?)))
        else {
            return "unknown";
        };
        let Ok(asker) = self.authorities.asker(server, account, &entry.authority) else { return "unknown" };
        let mut client = entry.client.clone();
        if entry.client_is_written
            && let Some(reference) = &account.client_secret
        {
            client.secret = reference.read().await.ok();
        }
        let token = entry.refresh.as_ref().unwrap_or(&entry.access);
        let (issuer, token_endpoint) = (entry.authority.as_str(), &entry.token_endpoint);
        let party = Party { issuer, token_endpoint, client: &client, resource: &entry.resource };
        if party.give_back(&asker, endpoint, token).await { "revoked" } else { "unknown" }
    }

    fn told(&self, kept: &Kept) -> Linked {
        let entry = kept.open(&self.sealer, &kept.owner, &kept.server);
        let shown = |text: Option<&String>| text.map(|text| crate::oauth::shown(text)).unwrap_or_default();
        Linked {
            owner: kept.owner.spelled(),
            server: kept.server.to_string(),
            linked_at: kept.linked_at,
            usable: !kept.dead && entry.is_some(),
            authority: shown(entry.as_ref().map(|entry| &entry.authority)),
            account: shown(entry.as_ref().and_then(|entry| entry.account.as_ref())),
            scope: shown(entry.as_ref().and_then(|entry| entry.scope.as_ref())),
            expires_at: entry.and_then(|entry| entry.expires_at),
        }
    }

    async fn all(&self, owner: Option<&str>) -> Result<Vec<(Row, Kept)>, Failure> {
        let (mut all, mut after) = (Vec::new(), None::<String>);
        loop {
            let rows = self.shelf.rows(ACCOUNTS, owner, after.as_deref()).await?;
            let Some(last) = rows.last() else { return Ok(all) };
            after = Some(last.key.clone());
            let read = |row: Row| serde_json::from_str::<Kept>(&row.body).ok().map(|kept| (row, kept));
            all.extend(rows.into_iter().filter_map(read));
        }
    }
}

/// What the files say of accounts at a server: of the server itself, or else of the first of its tools.
#[must_use]
pub fn oauth(server: &ServerConfig) -> Option<&Arc<OauthConfig>> {
    let all = std::iter::once(&server.credential).chain(server.tool_credentials.values());
    all.into_iter().find_map(CredentialConfig::account)
}
