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
use super::{
    ACCOUNTS, Entry, Found, Held, Sought, Vault, agrees, is_named, link_required, owed, renewed_at, unavailable,
};
use crate::identity::now_s;
use crate::limit;
use crate::oauth::Registered;
use crate::oauth::dpop::Prover;
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
            // Of another place, authorization server or client than the files name now, or sealed by a key that is
            // gone: it has to be linked again.
            let of = |entry: &Entry| {
                is_named(&sought.server, &sought.account, (&entry.resource, &entry.authority, entry.written_client()))
            };
            let entry = found.entry.as_ref().filter(|entry| of(entry));
            let Some(entry) = entry.filter(|_| !found.kept.dead) else { return Err(link_required()) };
            let refused = sought.refuses(&entry.access) || self.is_good_here(&entry.access);
            let good = !refused && entry.expires_at.is_none_or(|ends| now_s() < ends);
            let lead = entry.expires_at.map_or(0, |ends| sought.lead.min(ends.saturating_sub(entry.given_at) / 4));
            if !refused && now_s() < renewed_at(entry).saturating_sub(lead) {
                self.keep_longer(sought, &found).await?;
                return Ok(self.hold(sought, entry));
            }
            let Some(refresh) = &entry.refresh else {
                if good {
                    self.keep_longer(sought, &found).await?;
                    return Ok(self.hold(sought, entry));
                }
                self.put(sought, found.version, &found.kept.buried()).await?;
                return Err(link_required());
            };
            // A moment ago it could not be asked: nobody waits for that again so soon.
            if let Some(problem) = self.failed.get(&sought.owner.place(&sought.server.id)) {
                return if good { Ok(self.hold(sought, entry)) } else { Err(unavailable(sought, &problem)) };
            }
            let now_us = self.shelf.clock_us().await?;
            if found.kept.renewed_until_us.is_some_and(|until| now_us < until) {
                tokio::time::sleep(limit::VAULT_LEASE_POLL).await;
                continue;
            }
            let until_us = now_us.saturating_add(micros(limit::VAULT_LEASE));
            let leased = Kept { renewed_until_us: Some(until_us), ..found.kept.clone() };
            let Put::Done(version) = self.put(sought, found.version, &leased).await? else {
                tokio::time::sleep(limit::VAULT_LEASE_POLL).await;
                continue;
            };
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
                Err(TokenError::Stranger(why)) if self.authorities.is_registered(entry) => {
                    tracing::warn!(
                        server = %sought.server.id, authority = entry.authority, why,
                        "an authorization server does not know us any more; who links an account there again registers us anew"
                    );
                    self.authorities.forget(&entry.authority, &entry.client, &self.sealer).await?;
                    self.put(sought, version, &found.kept.buried()).await?;
                    return Err(link_required());
                }
                Err(TokenError::Unknown(problem) | TokenError::Stranger(problem)) => {
                    self.failed.insert(sought.owner.place(&sought.server.id), problem.as_str().into());
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
        Ok(Some(Found { version: row.version, expires_at_us: row.expires_at_us, kept, entry }))
    }

    async fn ask(&self, sought: &Sought, entry: &Entry, refresh: &SecretString) -> Result<Tokens, TokenError> {
        let client = self.client_of(sought, entry).await.map_err(TokenError::Unknown)?;
        let asker = self.authorities.asker(&sought.server, &sought.account, &entry.authority);
        let asker = asker.map_err(TokenError::Unknown)?;
        let prover = entry.key.clone().map(Prover::new);
        let party = Party {
            issuer: &entry.authority,
            token_endpoint: &entry.token_endpoint,
            client: &client,
            resource: &entry.resource,
            prover: prover.as_ref(),
        };
        let tokens = party.renew(&asker, refresh).await?;
        if self.is_good_here(&tokens.access) {
            let problem = "the token that was issued is good at this gateway itself (aud): have the authorization server \
                           issue it for the upstream alone";
            return Err(TokenError::Unknown(problem.to_owned()));
        }
        Ok(tokens)
    }

    /// Who we are at the authorization server that gave the tokens.
    async fn client_of(&self, sought: &Sought, entry: &Entry) -> Result<Registered, String> {
        let Some(client) = entry.written_client() else { return Ok(entry.client.clone()) };
        // Our secret at one authorization server is never shown to another.
        if !agrees(&sought.account, &entry.authority, Some(client)) {
            return Err("the files name another authorization server or client by now".to_owned());
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
        let (mut tries, mut in_doubt) = (0, false);
        loop {
            match self.put(sought, version, &kept).await {
                Ok(Put::Done(_)) => return Ok(self.hold(sought, &after)),
                Ok(Put::Lost) => {
                    let now = self.find(sought).await?;
                    let is_ours = |found: &Found| {
                        let there = found.entry.as_ref().map(|entry| entry.access.expose_secret());
                        there == Some(after.access.expose_secret())
                    };
                    // The store had kept it, and could not say so.
                    if in_doubt && now.as_ref().is_some_and(is_ours) {
                        return Ok(self.hold(sought, &after));
                    }
                    // It was taken back meanwhile: what was answered is nobody's. Where it was linked anew it stays:
                    // services that take back all that somebody granted us would take the new tokens along.
                    if now.is_none_or(|found| found.kept.dead) {
                        self.owe(&kept).await;
                    }
                    return Err(unavailable(sought, "the account was changed while it was renewed; try again"));
                }
                Err(failure) if tries >= limit::SHELF_TRIES_MAX => {
                    tracing::error!(%failure, server = %sought.server.id, "a renewed account could not be kept");
                    return Err(failure.into());
                }
                Err(_) => {
                    in_doubt = true;
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
            Changed::Conflict(_) => Put::Lost,
            Changed::Full(_) => return Err(Failure::before(Reason::StoreUnavailable, "the vault is full")),
        })
    }

    /// An account that is used stays, also where nothing of it has to be renewed.
    async fn keep_longer(&self, sought: &Sought, found: &Found) -> Result<(), Failure> {
        let half = micros(limit::VAULT_IDLE_MAX / 2);
        let Some(expires_at_us) = found.expires_at_us else { return Ok(()) };
        if expires_at_us.saturating_sub(self.shelf.clock_us().await?) < half {
            // Whoever was faster has done the same, or more.
            self.put(sought, found.version, &found.kept).await?;
        }
        Ok(())
    }

    pub(super) async fn idle_until_us(&self) -> Result<i64, Failure> {
        Ok(self.shelf.clock_us().await?.saturating_add(micros(limit::VAULT_IDLE_MAX)))
    }

    /// Has tokens given back that came when their account was gone.
    async fn owe(&self, kept: &Kept) {
        let noted = async {
            let change = owed::owed(kept, self.shelf.clock_us().await?)?;
            Ok::<bool, Failure>(self.shelf.change(vec![change], Tell::Nobody).await?.is_done())
        };
        if !matches!(noted.await, Ok(true)) {
            tracing::error!(server = %kept.server, owner = %kept.owner.spelled(), "tokens of an account that is gone are not given back");
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
        key: before.key.clone().filter(|_| tokens.bound),
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
