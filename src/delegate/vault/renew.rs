//! Renewing an account: by one replica at a time, and so that a crash leaves nothing in doubt for long.
//!
//! Decides who renews, and what an answer means. Invariants: before an authorization server is asked, the row says who
//! asks and until when; an answer is kept before it is used; a refresh token that the server does not take is never
//! presented again. Dying between the answer and the row loses the answer: the next one asks with the token from before
//! once the lease is over, and where the server does not take it, the account is asked for anew.

use std::sync::Arc;
use std::time::Duration;

use secrecy::{ExposeSecret as _, SecretString};

use super::authority::ends;
use super::entry::Kept;
use super::{ACCOUNTS, Entry, Found, Held, Sought, Vault, link_required, renewed_at, resource, unavailable};
use crate::identity::now_s;
use crate::limit;
use crate::oauth::Registered;
use crate::oauth::tokens::{Party, TokenError, Tokens};
use crate::outcome::{Failure, Reason, Stop};
use crate::shelf::{Action, Change, Changed, Expect, Tell, Version};

/// What became of an attempt to change a row.
enum Put {
    Done(Version),
    /// Somebody else has changed it.
    Lost,
}

impl Vault {
    /// What the row says, renewed where it has to be.
    pub(super) async fn look(&self, sought: &Sought) -> Result<Arc<Held>, Stop> {
        let deadline = tokio::time::Instant::now() + limit::VAULT_LEASE + limit::OAUTH_TIMEOUT;
        while tokio::time::Instant::now() < deadline {
            let Some(found) = self.find(sought).await? else { return Err(link_required()) };
            // Of another place than the files name now, or sealed by a key that is gone: it has to be linked again.
            let wanted = resource(&sought.server, &sought.account);
            let entry = found.entry.as_ref().filter(|entry| Some(&entry.resource) == wanted.as_ref());
            let Some(entry) = entry.filter(|_| !found.kept.dead) else { return Err(link_required()) };
            let refused = sought.refuses(&entry.access);
            let good = !refused && entry.expires_at.is_none_or(|ends| now_s() < ends);
            if !refused && now_s() < renewed_at(entry) {
                return Ok(self.hold(sought, entry));
            }
            let Some(refresh) = &entry.refresh else {
                if good {
                    return Ok(self.hold(sought, entry));
                }
                self.put(sought, found.version, &found.kept.buried()).await?;
                return Err(link_required());
            };
            let now_us = self.shelf.clock_us().await?;
            if found.kept.renewed_until_us.is_some_and(|until| now_us < until) {
                tokio::time::sleep(limit::VAULT_LEASE_POLL).await;
                continue;
            }
            let until_us = now_us.saturating_add(micros(limit::VAULT_LEASE));
            let leased = Kept { renewed_until_us: Some(until_us), ..found.kept.clone() };
            let Put::Done(version) = self.put(sought, found.version, &leased).await? else { continue };
            match self.ask(sought, entry, refresh).await {
                Ok(tokens) => return self.keep_renewed(sought, version, &found, entry, tokens).await,
                Err(TokenError::Over(why)) => {
                    tracing::warn!(
                        server = %sought.server.id, owner = %sought.owner.spelled(), why,
                        "a linked account is worth nothing any more"
                    );
                    self.put(sought, version, &found.kept.buried()).await?;
                    return Err(link_required());
                }
                Err(TokenError::Unknown(problem)) => {
                    self.put(sought, version, &Kept { renewed_until_us: None, ..found.kept.clone() }).await?;
                    // It may be good for some seconds more.
                    return if good {
                        tracing::warn!(server = %sought.server.id, problem, "a linked account was not renewed");
                        Ok(self.hold(sought, entry))
                    } else {
                        Err(unavailable(sought, &problem))
                    };
                }
            }
        }
        Err(unavailable(sought, "another replica renews the account and does not come to an end"))
    }

    async fn find(&self, sought: &Sought) -> Result<Option<Found>, Failure> {
        let place = sought.owner.place(&sought.server.id).to_string();
        let Some(row) = self.shelf.row(ACCOUNTS, &place).await? else { return Ok(None) };
        let Ok(kept) = serde_json::from_str::<Kept>(&row.body) else { return Ok(None) };
        let entry = kept.open(&self.sealer, &sought.owner, &sought.server.id);
        if entry.is_none() && !kept.dead {
            tracing::error!(
                server = %sought.server.id, owner = %sought.owner.spelled(),
                "a linked account cannot be opened: is a key missing under [keys] vault?"
            );
        }
        Ok(Some(Found { version: row.version, kept, entry }))
    }

    async fn ask(&self, sought: &Sought, entry: &Entry, refresh: &SecretString) -> Result<Tokens, TokenError> {
        let client = self.client_of(sought, entry).await.map_err(TokenError::Unknown)?;
        let asker = self.authorities.asker(&sought.server, &sought.account, &entry.authority);
        let asker = asker.map_err(TokenError::Unknown)?;
        let party = Party {
            issuer: &entry.authority,
            token_endpoint: &entry.token_endpoint,
            client: &client,
            resource: &entry.resource,
        };
        party.renew(&asker, refresh).await
    }

    /// Who we are at the authorization server that gave the tokens.
    async fn client_of(&self, sought: &Sought, entry: &Entry) -> Result<Registered, String> {
        if !entry.client_is_written {
            return Ok(entry.client.clone());
        }
        let secret = match &sought.account.client_secret {
            Some(reference) => Some(reference.read().await.map_err(|error| error.to_string())?),
            None => None,
        };
        Ok(Registered { secret, ..entry.client.clone() })
    }

    /// Keeps what was answered; tries again where the store does not answer, because nobody gets it twice.
    async fn keep_renewed(
        &self,
        sought: &Sought,
        version: Version,
        found: &Found,
        before: &Entry,
        tokens: Tokens,
    ) -> Result<Arc<Held>, Stop> {
        let after = renewed(before, tokens, now_s());
        let kept = Kept::seal(&self.sealer, &sought.owner, &sought.server.id, &after);
        let kept = kept.map_err(|problem| unavailable(sought, &problem))?;
        let kept = Kept { linked_at: found.kept.linked_at, ..kept };
        let mut tries = 0;
        loop {
            match self.put(sought, version, &kept).await {
                Ok(Put::Done(_)) => return Ok(self.hold(sought, &after)),
                // It was taken back, or linked anew, meanwhile: what was answered is nobody's.
                Ok(Put::Lost) => {
                    self.give_back(sought, &after).await;
                    return Err(unavailable(sought, "the account was changed while it was renewed; try again"));
                }
                Err(failure) if tries >= limit::SHELF_TRIES_MAX => {
                    tracing::error!(%failure, server = %sought.server.id, "a renewed account could not be kept");
                    return Err(failure.into());
                }
                Err(_) => {
                    tries += 1;
                    tokio::time::sleep(limit::VAULT_LEASE_POLL).await;
                }
            }
        }
    }

    async fn put(&self, sought: &Sought, version: Version, kept: &Kept) -> Result<Put, Failure> {
        let expires_at_us = self.idle_until_us().await?;
        let action = put(&sought.owner.spelled(), kept, Some(expires_at_us))?;
        let place = sought.owner.place(&sought.server.id).to_string();
        let change = Change::new(ACCOUNTS, place, Expect::Version(version), action);
        Ok(match self.shelf.change(vec![change], Tell::Nobody).await? {
            Changed::Done { version, .. } => Put::Done(version),
            Changed::Conflict(_) | Changed::Full(_) => Put::Lost,
        })
    }

    pub(super) async fn idle_until_us(&self) -> Result<i64, Failure> {
        Ok(self.shelf.clock_us().await?.saturating_add(micros(limit::VAULT_IDLE_MAX)))
    }

    /// Gives tokens back where the authorization server takes them; best effort.
    async fn give_back(&self, sought: &Sought, entry: &Entry) {
        let (Ok(client), Some(endpoint)) = (self.client_of(sought, entry).await, &entry.revocation_endpoint) else {
            return;
        };
        let Ok(asker) = self.authorities.asker(&sought.server, &sought.account, &entry.authority) else { return };
        let token = entry.refresh.as_ref().unwrap_or(&entry.access);
        let (issuer, token_endpoint) = (entry.authority.as_str(), &entry.token_endpoint);
        let party = Party { issuer, token_endpoint, client: &client, resource: &entry.resource };
        if !party.give_back(&asker, endpoint, token).await {
            tracing::warn!(server = %sought.server.id, "tokens of a linked account were not taken back");
        }
    }
}

/// An account with what was answered; what the answer leaves out stays as it was (RFC 6749 section 6).
fn renewed(before: &Entry, tokens: Tokens, now: i64) -> Entry {
    Entry {
        access: SecretString::from(tokens.access.expose_secret()),
        refresh: tokens.refresh.or_else(|| before.refresh.clone()),
        given_at: now,
        expires_at: ends(now, tokens.life),
        scope: tokens.scope.or_else(|| before.scope.clone()),
        ..before.clone()
    }
}

pub(super) fn put(owner: &str, kept: &Kept, expires_at_us: Option<i64>) -> Result<Action, Failure> {
    let body = serde_json::to_string(kept).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
    Ok(Action::Put { owner: owner.to_owned(), body, expires_at_us })
}

fn micros(duration: Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}
