//! Accounts as they come and go: linked, listed, taken back.
//!
//! Decides what is told of an account, none of it secret. Invariant: whoever links or takes back an account tells
//! everybody, so that no replica uses what it remembers of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::super::{Taken, TakenBack};
use super::entry::Kept;
use super::owed::{self, Back};
use super::renew::put;
use super::{ACCOUNTS, AccountTie, Entry, Owner, Vault};
use crate::config::{Config, CredentialConfig, OauthConfig, ServerConfig};
use crate::identity::revoked::{Held, RevocationMode, RevocationTarget};
use crate::ids::{IssuerAlias, RevocationEpoch, ServerId, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

/// Up to which epoch accounts of what is blocked were taken back.
pub const SWEPT: Section = Section { name: "account sweep", rows_max: 1 };
const SWEPT_KEY: &str = "blocks";

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
    /// `revoked`, `not_renewed` (the access token works until it ends), `unsupported` or `unknown` at the
    /// authorization server; what is unknown is tried again.
    pub upstream: String,
    /// Until when the access token may work for whoever has it, seconds since 1970, where it was not revoked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
}

impl Removed {
    pub(super) fn of(kept: &Kept, back: Back, ends: Option<i64>) -> Self {
        Self {
            owner: kept.owner.spelled(),
            server: kept.server.to_string(),
            upstream: back.as_str().to_owned(),
            expires_at: ends.filter(|_| back != Back::Revoked),
        }
    }

    /// The same as a revocation tells of it.
    #[must_use]
    pub fn taken_back(&self) -> TakenBack {
        let (state, detail) = match self.upstream.as_str() {
            "revoked" => (Taken::Revoked, ""),
            "unsupported" => (Taken::Unsupported, "a linked account, whose authorization server takes nothing back"),
            "not_renewed" => {
                (Taken::ExpiresAt, "a linked account, whose access token works until it ends and is not renewed")
            }
            _ => (Taken::Pending, "a linked account, whose authorization server did not say yet that it took it back"),
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
        let place = owner.place(server);
        for _ in 0..limit::SHELF_TRIES_MAX {
            let before = self.shelf.row(ACCOUNTS, &place.to_string()).await?;
            let expect = before.as_ref().map_or(Expect::Absent, |row| Expect::Version(row.version));
            let mut changes = vec![Change::new(ACCOUNTS, place.to_string(), expect, action.clone())];
            if let Some(before) = before.and_then(|row| self.superseded(&row, owner, server, entry)) {
                changes.push(owed::owed(&before, self.shelf.clock_us().await?)?);
            }
            match self.shelf.change(changes, Tell::Everybody).await? {
                Changed::Done { .. } => {
                    self.held.invalidate(&place);
                    self.failed.invalidate(&place);
                    self.wider.invalidate(&place);
                    return Ok(());
                }
                Changed::Full(_) => return Err(Failure::before(Reason::StoreUnavailable, "the vault is full")),
                // It was renewed meanwhile.
                Changed::Conflict(_) => {}
            }
        }
        Err(Failure::before(Reason::StoreUnavailable, "the vault changed meanwhile"))
    }

    /// The account that was there, if its tokens can be given back without harm: services that take back all that
    /// somebody granted us would take the new ones along with the old.
    fn superseded(&self, row: &Row, owner: &Owner, server: &ServerId, entry: &Entry) -> Option<Kept> {
        let kept = serde_json::from_str::<Kept>(&row.body).ok().filter(|kept| !kept.dead)?;
        let before = kept.open(&self.sealer, owner, server)?;
        let others = before.account.is_some() && entry.account.is_some() && before.account != entry.account;
        let elsewhere = before.authority != entry.authority || before.client.id != entry.client.id;
        (others || elsewhere).then_some(kept)
    }

    /// Whether the account that something was begun with is still linked, and nobody took it back: that is in force before
    /// its row is gone.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn stands(&self, tie: AccountTie) -> Result<bool, Failure> {
        let row = self.shelf.row(ACCOUNTS, &tie.place.to_string()).await?;
        let kept = row.and_then(|row| serde_json::from_str::<Kept>(&row.body).ok());
        let taken =
            |kept: &Kept| self.identity.is_account_revoked(&kept.owner.issuer, &kept.owner.subject, &kept.server);
        Ok(kept.is_some_and(|kept| kept.linked_at == tie.linked_at && !taken(&kept)))
    }

    /// Accounts, of one owner where one is named.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn list(&self, owner: Option<&str>) -> Result<Vec<Linked>, Failure> {
        let rows = all(self.shelf.as_ref(), owner.map(spelled).as_deref()).await?;
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
        let mut rows = all(self.shelf.as_ref(), Some(&spelled(owner))).await?;
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
        let rows = named(self.shelf.as_ref(), target).await?;
        self.take(config, rows).await
    }

    /// Whether blocks of up to that epoch may name accounts that are still here.
    #[must_use]
    pub fn is_behind(&self, epoch: RevocationEpoch) -> bool {
        self.swept.load(Ordering::Acquire) < epoch.0
    }

    /// Takes back what blocks of up to that epoch name and is still here: they were ordered while no gateway ran, or
    /// whoever ordered them died before the accounts were gone. Answers how many there were.
    ///
    /// # Errors
    /// `store_unavailable`; it is tried again.
    pub async fn sweep(
        self: &Arc<Self>,
        config: &Arc<Config>,
        held: &[Held],
        epoch: RevocationEpoch,
    ) -> Result<usize, Failure> {
        let row = self.shelf.row(SWEPT, SWEPT_KEY).await?;
        let swept = row.and_then(|row| row.body.parse::<u64>().ok()).unwrap_or_default();
        let mut found = 0;
        for held in held.iter().filter(|held| held.since.0 > swept && held.revocation.mode == RevocationMode::Block) {
            found += self.remove_for(config, &held.revocation.target).await?.len();
        }
        if epoch.0 > swept {
            let action = Action::Put { owner: String::new(), body: epoch.0.to_string(), expires_at_us: None };
            self.shelf.change(vec![Change::new(SWEPT, SWEPT_KEY, Expect::Anything, action)], Tell::Nobody).await?;
        }
        self.swept.fetch_max(epoch.0, Ordering::AcqRel);
        Ok(found)
    }

    /// Takes these out of use, and then gives their tokens back: nobody waits for that before they are used no more.
    async fn take(self: &Arc<Self>, config: &Arc<Config>, rows: Vec<(Row, Kept)>) -> Result<Vec<Removed>, Failure> {
        let gone = owed::unhook(self.shelf.as_ref(), rows).await?;
        let at_once = Arc::new(Semaphore::new(limit::CREDENTIALS_REVOKED_AT_ONCE_MAX));
        let deadline = tokio::time::Instant::now() + limit::REVOKE_REPORT_WAIT;
        let mut asked = Vec::with_capacity(gone.len());
        for (kept, owed) in gone {
            self.held.invalidate(&kept.owner.place(&kept.server));
            let entry = kept.open(&self.sealer, &kept.owner, &kept.server);
            let ends = entry.as_ref().and_then(|entry| entry.expires_at);
            let (vault, config, of, turn) = (Arc::clone(self), Arc::clone(config), kept.clone(), Arc::clone(&at_once));
            // Goes on although nobody waits for it any more.
            let asking = tokio::spawn(async move {
                let _turn = turn.acquire().await;
                let back = vault.give_back_all(&config, &of).await;
                if let Some(owed) = owed {
                    vault.settled(&owed, &of, back).await;
                }
                back
            });
            asked.push((kept, ends, asking));
        }
        let mut removed = Vec::with_capacity(asked.len());
        for (kept, ends, asking) in asked {
            let back = match tokio::time::timeout_at(deadline, asking).await {
                Ok(Ok(back)) => back,
                Ok(Err(_)) | Err(_) => Back::Unknown,
            };
            removed.push(Removed::of(&kept, back, ends));
        }
        Ok(removed)
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
}

/// Accounts, of one owner where one is named.
pub(super) async fn all(shelf: &dyn Shelf, owner: Option<&str>) -> Result<Vec<(Row, Kept)>, Failure> {
    let (mut all, mut after) = (Vec::new(), None::<String>);
    loop {
        let rows = shelf.rows(ACCOUNTS, owner, after.as_deref()).await?;
        let Some(last) = rows.last() else { return Ok(all) };
        after = Some(last.key.clone());
        let read = |row: Row| serde_json::from_str::<Kept>(&row.body).ok().map(|kept| (row, kept));
        all.extend(rows.into_iter().filter_map(read));
    }
}

/// The accounts that a revocation names.
pub(super) async fn named(shelf: &dyn Shelf, target: &RevocationTarget) -> Result<Vec<(Row, Kept)>, Failure> {
    let owner = match target {
        RevocationTarget::Subject(issuer, subject) => Some(Subject::user(issuer, subject)),
        RevocationTarget::Account(issuer, account) => Some(Subject::user(issuer, account.parts().1)),
        RevocationTarget::Server(_) | RevocationTarget::Everything => None,
        _ => return Ok(Vec::new()),
    };
    let mut rows = all(shelf, owner.as_ref().map(Subject::as_str)).await?;
    rows.retain(|(_, kept)| match target {
        RevocationTarget::Server(server) => kept.server == *server,
        RevocationTarget::Account(_, account) => account.parts() == (kept.server.as_str(), &*kept.owner.subject),
        _ => true,
    });
    Ok(rows)
}

/// An owner as rules spell them, however they were typed.
fn spelled(owner: &str) -> String {
    if let Ok(owner) = Subject::canonical(owner) {
        return owner.to_string();
    }
    let split = owner.strip_prefix("user:").and_then(|rest| rest.split_once('/'));
    let read = split.and_then(|(issuer, subject)| Some(Subject::user(&IssuerAlias::new(issuer).ok()?, subject)));
    read.map_or_else(|| owner.to_owned(), |subject| subject.as_str().to_owned())
}

/// What the files say of accounts at a server: of the server itself, or else of the first of its tools.
#[must_use]
pub fn oauth(server: &ServerConfig) -> Option<&Arc<OauthConfig>> {
    let all = std::iter::once(&server.credential).chain(server.tool_credentials.values());
    all.into_iter().find_map(CredentialConfig::account)
}
