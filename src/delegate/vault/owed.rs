//! Tokens that are still to be given back to a service, after the account was taken back here.
//!
//! Decides what is tried, for how long, and what is said of it. Invariants: what stands here is used by nobody; it is
//! written in the same change that takes the account away, so that neither a crash nor a service that is away forgets
//! it; our secret at one authorization server is never shown to another; nothing is called given back of which a part
//! may still work.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::super::apart::Round;
use super::entry::Kept;
use super::rows::{Removed, named, oauth};
use super::{ACCOUNTS, Authorities, Entry, Vault, agrees};
use crate::config::Config;
use crate::identity::revoked::RevocationTarget;
use crate::limit;
use crate::oauth::tokens::{GivenBack, Party};
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

/// Where they are.
pub const OWED: Section = Section { name: "account to give back", rows_max: limit::VAULT_OWED_MAX };

/// What was an account.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owed {
    kept: Kept,
    /// How often it was tried.
    tries: u32,
    /// Not before then, microseconds since 1970 by the store's clock.
    not_before_us: i64,
}

/// What became of the tokens of one account at its service.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Back {
    /// All of them are worth nothing any more.
    Revoked,
    /// It cannot be renewed any more; its access token works until it ends.
    NotRenewed,
    /// The service takes nothing back.
    Unsupported,
    /// Nobody knows, or not all of it was taken.
    Unknown,
}

impl Back {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::NotRenewed => "not_renewed",
            Self::Unsupported => "unsupported",
            Self::Unknown => "unknown",
        }
    }
}

/// What is written for an account that goes: its name and its row.
pub(super) fn owed(kept: &Kept, now_us: i64) -> Result<Change, Failure> {
    let first = Owed { kept: kept.clone(), tries: 0, not_before_us: now_us.saturating_add(pause_us(0)) };
    let key = ulid::Ulid::generate().to_string();
    put(key, Expect::Absent, &first, now_us.saturating_add(micros(limit::VAULT_OWED_AGE_MAX)))
}

/// Takes accounts out of use, and has their tokens given back from now on: in one change, so that both happen. Answers
/// what went, with the name of what is owed for it; an account that somebody else took out meanwhile is theirs.
pub(super) async fn unhook(shelf: &dyn Shelf, rows: Vec<(Row, Kept)>) -> Result<Vec<(Kept, Option<String>)>, Failure> {
    let now_us = shelf.clock_us().await?;
    let (mut gone, mut again) = (Vec::with_capacity(rows.len()), Vec::new());
    // Two changes for each account.
    for some in rows.chunks(limit::SHELF_CHANGES_MAX / 2) {
        let (changes, named) = changes(some, now_us)?;
        match shelf.change(changes, Tell::Everybody).await? {
            Changed::Done { .. } => gone.extend(named),
            // One of them was renewed meanwhile, or there is no place for so many.
            Changed::Conflict(_) | Changed::Full(_) => again.extend_from_slice(some),
        }
    }
    for (mut row, mut kept) in again {
        for tried in 0..=limit::SHELF_TRIES_MAX {
            let (mut changes, mut named) = changes(&[(row.clone(), kept.clone())], now_us)?;
            if tried == limit::SHELF_TRIES_MAX
                && let Some(first) = changes.first_mut()
            {
                // Whoever changes it all the time does not keep it.
                first.expect = Expect::Anything;
            }
            let mut changed = shelf.change(changes.clone(), Tell::Everybody).await?;
            if matches!(changed, Changed::Full(_)) {
                // That it is used no more comes first.
                changes.truncate(1);
                named.iter_mut().for_each(|(_, owed)| *owed = None);
                tracing::error!(owner = %kept.owner.spelled(), "there is no place to note that tokens are to be given back");
                changed = shelf.change(changes, Tell::Everybody).await?;
            }
            if changed.is_done() {
                gone.extend(named);
                break;
            }
            let Some(now) = shelf.row(ACCOUNTS, &row.key).await? else { break };
            let Ok(read) = serde_json::from_str::<Kept>(&now.body) else { break };
            (row, kept) = (now, read);
        }
    }
    Ok(gone)
}

type Gone = (Kept, Option<String>);

fn changes(rows: &[(Row, Kept)], now_us: i64) -> Result<(Vec<Change>, Vec<Gone>), Failure> {
    let (mut changes, mut named) = (Vec::with_capacity(rows.len() * 2), Vec::with_capacity(rows.len()));
    for (row, kept) in rows {
        changes.push(Change::new(ACCOUNTS, row.key.clone(), Expect::Version(row.version), Action::Remove));
        // Nothing is left of one that is buried.
        let owed = if kept.dead { None } else { Some(owed(kept, now_us)?) };
        named.push((kept.clone(), owed.as_ref().map(|change| change.key.clone())));
        changes.extend(owed);
    }
    Ok((changes, named))
}

/// Takes out of use what a revocation names, where no gateway runs: the next one gives the tokens back.
///
/// # Errors
/// `store_unavailable`; some of them may be left, which the next start takes out.
pub async fn take_offline(shelf: Arc<dyn Shelf>, target: &RevocationTarget) -> Result<Vec<Removed>, Failure> {
    let rows = named(shelf.as_ref(), target).await?;
    let gone = unhook(shelf.as_ref(), rows).await?;
    Ok(gone.iter().map(|(kept, _)| Removed::of(kept, Back::Unknown, None)).collect())
}

impl Vault {
    /// Gives back what is due of what is owed.
    ///
    /// # Errors
    /// `store_unavailable`; it is tried again.
    pub async fn settle(&self, config: &Config) -> Result<(), Failure> {
        let now_us = self.shelf.clock_us().await?;
        let (mut after, mut round) = (None::<String>, Round::default());
        loop {
            let rows = self.shelf.rows(OWED, None, after.as_deref()).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let read = |row: Row| serde_json::from_str::<Owed>(&row.body).ok().map(|owed| (row, owed));
            let due = rows.into_iter().filter_map(read).filter(|(_, owed)| owed.not_before_us <= now_us);
            // Where tokens go is sealed with them; at one server they are all of the same authorization server.
            let placed = due.map(|(row, owed)| (owed.kept.server.to_string(), (row, owed)));
            round.each(placed, |(row, owed)| self.settle_one(config, row, owed, now_us)).await;
        }
    }

    async fn settle_one(&self, config: &Config, row: Row, owed: Owed, now_us: i64) {
        // Before it is tried, so that replicas take turns.
        let tries = owed.tries.saturating_add(1);
        let next = Owed { tries, not_before_us: now_us.saturating_add(pause_us(tries)), ..owed.clone() };
        let ends_us = row.expires_at_us.unwrap_or_else(|| now_us.saturating_add(micros(limit::VAULT_OWED_AGE_MAX)));
        let turn = async {
            let change = put(row.key.clone(), Expect::Version(row.version), &next, ends_us)?;
            self.shelf.change(vec![change], Tell::Nobody).await
        };
        match turn.await {
            Ok(changed) if changed.is_done() => {
                let back = self.give_back_all(config, &owed.kept).await;
                self.settled(&row.key, &owed.kept, back).await;
            }
            Ok(_) => {}
            Err(failure) => tracing::warn!(%failure, "whose turn it is to give tokens back could not be noted"),
        }
    }

    /// What became of it; what nobody knows of is tried again.
    pub(super) async fn settled(&self, key: &str, kept: &Kept, back: Back) {
        if back == Back::Unknown {
            tracing::warn!(server = %kept.server, owner = %kept.owner.spelled(), "tokens of a linked account could not be given back yet; it is tried again");
            return;
        }
        let change = Change::new(OWED, key, Expect::Anything, Action::Remove);
        if let Err(failure) = self.shelf.change(vec![change], Tell::Nobody).await {
            // Given back once more it does no harm.
            tracing::warn!(%failure, "that tokens of a linked account were given back is not noted");
        }
    }

    /// Gives back every token of what was an account (RFC 7009).
    pub(super) async fn give_back_all(&self, config: &Config, kept: &Kept) -> Back {
        let Some(entry) = kept.open(&self.sealer, &kept.owner, &kept.server) else { return Back::Unknown };
        self.give_back(config, kept, &entry).await
    }

    async fn give_back(&self, config: &Config, kept: &Kept, entry: &Entry) -> Back {
        let Some(endpoint) = &entry.revocation_endpoint else { return Back::Unsupported };
        let written = config.server(&kept.server).and_then(|server| Some((server, oauth(server)?)));
        let asker = match written {
            Some((server, account)) => self.authorities.asker(server, account, &entry.authority),
            None => Authorities::asker_of_nobody(&entry.authority),
        };
        let Ok(asker) = asker else { return Back::Unknown };
        let mut client = entry.client.clone();
        // A secret that is written for another place than the tokens are from is shown to neither.
        if let Some((_, account)) = written
            && entry.written_client().is_some_and(|client| agrees(account, &entry.authority, Some(client)))
            && let Some(reference) = &account.client_secret
        {
            client.secret = reference.read().await.ok();
        }
        let (issuer, token_endpoint) = (entry.authority.as_str(), &entry.token_endpoint);
        let party = Party { issuer, token_endpoint, client: &client, resource: &entry.resource, prover: None };
        let refresh = match &entry.refresh {
            Some(refresh) => Some(party.give_back(&asker, endpoint, refresh, "refresh_token").await),
            None => None,
        };
        // A server need not take the access token along with the other (RFC 7009 section 2.1).
        let access = party.give_back(&asker, endpoint, &entry.access, "access_token").await;
        match (refresh, access) {
            (Some(GivenBack::Unknown), _) | (_, GivenBack::Unknown) => Back::Unknown,
            (None | Some(GivenBack::Taken), GivenBack::Taken) => Back::Revoked,
            (Some(GivenBack::Taken), GivenBack::Unsupported) => Back::NotRenewed,
            (None | Some(GivenBack::Unsupported), _) => Back::Unsupported,
        }
    }
}

fn put(key: String, expect: Expect, owed: &Owed, expires_at_us: i64) -> Result<Change, Failure> {
    let body = serde_json::to_string(owed).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
    let action = Action::Put { owner: owed.kept.owner.spelled(), body, expires_at_us: Some(expires_at_us) };
    Ok(Change::new(OWED, key, expect, action))
}

/// How long after so many tries.
fn pause_us(tries: u32) -> i64 {
    let pause = limit::VAULT_OWED_RETRY_MIN.saturating_mul(1_u32.checked_shl(tries.min(20)).unwrap_or(u32::MAX));
    micros(pause.min(limit::VAULT_OWED_RETRY_MAX))
}

fn micros(duration: std::time::Duration) -> i64 {
    i64::try_from(duration.as_micros()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_tried_ever_more_seldom_and_not_more_seldom_than_that() {
        assert_eq!(pause_us(0), micros(limit::VAULT_OWED_RETRY_MIN));
        assert_eq!(pause_us(1), 2 * pause_us(0));
        assert_eq!(pause_us(40), micros(limit::VAULT_OWED_RETRY_MAX));
        assert!(limit::VAULT_LOOK_INTERVAL < limit::VAULT_OWED_RETRY_MIN);
    }
}
