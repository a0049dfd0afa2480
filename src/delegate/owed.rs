//! Issued tokens that were taken back here and that their authorization server has not taken yet.
//!
//! Decides what of one outlives this process: only these, and sealed; a token that is in use is in memory alone. Refuses
//! to know who took it back. Invariants: what stands here is used by nobody; a row that somebody moved or changed does not
//! open; our secret at one authorization server is never shown to another.

use std::collections::BTreeSet;
use std::sync::Arc;

use secrecy::{ExposeSecret as _, SecretString};
use serde::{Deserialize, Serialize};
use url::Url;

use super::Delegate;
use super::apart::Round;
use super::endpoint::AuthorizationServer;
use super::issued::Issued;
use super::ledger::Ledger;
use super::takeback::{Note, Owing, Taken, attempt, noted};
use crate::config::{Config, TokenRequest};
use crate::ids::{Digest, PrincipalKey};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Section, Tell};
use crate::wire::handle::Sealer;

const SECTION: Section = Section { name: "credential to give back", rows_max: limit::CREDENTIALS_OWED_MAX };
/// What tokens are sealed for.
const PURPOSE: &str = "credential to give back";

/// One token, as it is kept.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Owed {
    server: String,
    /// Who issued it: its exact issuer, where it is known, and where it was asked for.
    issuer: Option<String>,
    token_endpoint: Url,
    /// As whom it was asked for.
    client: String,
    sealed: String,
}

impl Owed {
    fn seal(sealer: &Sealer, issued: &Issued) -> Result<Self, Failure> {
        let owed = Self {
            server: issued.server.to_string(),
            issuer: issued.from.issuer.clone(),
            token_endpoint: issued.from.token_endpoint.clone(),
            client: issued.asks.client_id.clone(),
            sealed: String::new(),
        };
        let token = issued.secret().expose_secret().as_bytes();
        let sealed = sealer.seal(PURPOSE, owed.bound(&issued.id), token);
        let sealed = sealed.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
        Ok(Self { sealed, ..owed })
    }

    /// Everything of it, so that nothing can be changed.
    fn bound(&self, id: &str) -> PrincipalKey {
        let issuer = self.issuer.as_deref().unwrap_or_default();
        let parts = [id, &self.server, issuer, self.token_endpoint.as_str(), &self.client].map(str::as_bytes);
        PrincipalKey(Digest::of("bailiwick/owed-credential/v1", &parts))
    }

    /// Who has to take it back.
    fn authority(&self) -> String {
        self.issuer.clone().unwrap_or_else(|| self.token_endpoint.to_string())
    }

    fn open(&self, sealer: &Sealer, id: &str) -> Option<SecretString> {
        let token = sealer.open_within(PURPOSE, self.bound(id), &self.sealed, limit::CREDENTIAL_OWED_BYTES_MAX)?;
        String::from_utf8(token).ok().map(SecretString::from)
    }

    /// What the files say of who we are there; nothing, where they say it of another place by now.
    fn asks<'c>(&self, config: &'c Config) -> Option<&'c TokenRequest> {
        let server = config.servers.iter().find(|server| server.id.as_str() == self.server)?;
        let credentials = std::iter::once(&server.credential).chain(server.tool_credentials.values());
        credentials.flat_map(crate::config::CredentialConfig::asks).find(|asks| {
            let callers = || config.issuers.iter().any(|known| Some(&known.issuer) == self.issuer.as_ref());
            asks.client_id == self.client
                && match (&asks.issuer, &asks.token_endpoint) {
                    (_, Some(endpoint)) => *endpoint == self.token_endpoint,
                    (Some(issuer), None) => Some(issuer) == self.issuer.as_ref(),
                    (None, None) => callers(),
                }
        })
    }
}

impl Ledger {
    /// Notes that tokens are still to be given back, so that whoever comes after this process does; many in one change,
    /// because nobody else writes meanwhile. Those that are given back before it is their turn are not.
    pub(super) async fn owe_all(&self, all: &[(Arc<Issued>, Arc<Note>)]) {
        for some in all.chunks(limit::SHELF_CHANGES_MAX) {
            let (mut held, mut owed) = (Vec::with_capacity(some.len()), Vec::with_capacity(some.len()));
            for (issued, note) in some {
                let note = note.lock().await;
                if *note == Owing::No {
                    held.push(note);
                    owed.push(&**issued);
                }
            }
            self.owe(&owed).await;
            held.into_iter().for_each(|mut note| *note = Owing::Yes);
        }
    }

    /// Notes one that is not noted yet.
    pub(super) async fn owe_once(&self, issued: &Issued, note: &Note) {
        let mut note = note.lock().await;
        if *note == Owing::No {
            self.owe(&[issued]).await;
            *note = Owing::Yes;
        }
    }

    pub(super) async fn owe(&self, issued: &[&Issued]) {
        let Some(sealer) = self.sealer().filter(|_| !issued.is_empty()) else { return };
        let change = |issued: &&Issued| {
            let owed = Owed::seal(sealer, issued)?;
            let body = serde_json::to_string(&owed);
            let body = body.map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
            let unknown = super::seconds(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT);
            let ends = issued.ends().expires_at.unwrap_or_else(|| issued.issued_at.saturating_add(unknown));
            let action = Action::Put { owner: owed.server, body, expires_at_us: Some(ends.saturating_mul(1_000_000)) };
            Ok(Change::new(SECTION, issued.id.clone(), Expect::Anything, action))
        };
        let kept = async {
            let changes = issued.iter().map(change).collect::<Result<Vec<_>, Failure>>()?;
            self.shelf.change(changes, Tell::Nobody).await
        };
        let problem = match kept.await {
            Ok(Changed::Done { .. }) => return,
            Ok(Changed::Conflict(_) | Changed::Full(_)) => "there is no place for more".to_owned(),
            Err(failure) => failure.to_string(),
        };
        let first = issued.first().map(|issued| issued.id.as_str());
        tracing::error!(
            count = issued.len(),
            first,
            problem,
            "that credentials are still to be taken back is not noted: after a restart they end by themselves"
        );
    }

    /// The names of those that are to be given back.
    pub(super) async fn owed(&self) -> Result<BTreeSet<String>, Failure> {
        let mut names = BTreeSet::new();
        if self.sealer().is_none() {
            return Ok(names);
        }
        loop {
            let rows = self.shelf.rows(SECTION, None, names.last().map(String::as_str)).await?;
            let full = rows.len() >= limit::SHELF_ROWS_READ_MAX;
            names.extend(rows.into_iter().map(|row| row.key));
            if !full {
                return Ok(names);
            }
        }
    }

    /// It was given back, or nobody takes it.
    pub(super) async fn settled(&self, id: &str) -> Result<(), Failure> {
        if self.sealer().is_none() {
            return Ok(());
        }
        let change = Change::new(SECTION, id, Expect::Anything, Action::Remove);
        self.shelf.change(vec![change], Tell::Nobody).await.map(drop)
    }
}

impl Delegate {
    /// Gives back what is owed and what nobody gives back from memory: after a restart, or for a replica that is gone.
    ///
    /// # Errors
    /// `store_unavailable`; it is tried again.
    pub async fn settle(&self, config: &Config) -> Result<(), Failure> {
        let Some(ledger) = &self.ledger else { return Ok(()) };
        let Some(sealer) = ledger.sealer() else { return Ok(()) };
        let (mut after, mut round) = (None::<String>, Round::default());
        loop {
            let rows = ledger.shelf.rows(SECTION, None, after.as_deref()).await?;
            let Some(last) = rows.last() else { return Ok(()) };
            after = Some(last.key.clone());
            let due = rows.iter().filter(|row| !self.taking.is_under_way(&row.key));
            let read = due.filter_map(|row| Some((&row.key, serde_json::from_str::<Owed>(&row.body).ok()?)));
            let placed = read.map(|(id, owed)| (owed.authority(), (id, owed)));
            round.each(placed, |(id, owed)| self.settle_one(ledger, sealer, config, id, owed)).await;
        }
    }

    async fn settle_one(&self, ledger: &Arc<Ledger>, sealer: &Sealer, config: &Config, id: &str, owed: Owed) {
        let (Some(token), Some(asks)) = (owed.open(sealer, id), owed.asks(config)) else {
            tracing::debug!(credential = id, "nobody can take this back any more: it ends by itself");
            return;
        };
        let from = AuthorizationServer::known_as(owed.issuer.clone(), owed.token_endpoint.clone());
        let (taken, detail) = attempt(&self.endpoints, asks, &from, &token).await;
        if taken == Taken::Pending {
            tracing::debug!(credential = id, detail, "a credential could not be taken back yet; it is tried again");
            return;
        }
        noted(ledger, id, taken, Owing::Yes).await;
        tracing::info!(credential = id, server = owed.server, outcome = taken.as_str(), "a credential that was owed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_opened_within_bounds_and_by_its_own_name() {
        let sealer = Sealer::new([&[7_u8; 32][..]]).unwrap();
        let kept = |bytes: usize| {
            let bare = Owed {
                server: "git".to_owned(),
                issuer: None,
                token_endpoint: Url::parse("https://as.example/token").unwrap(),
                client: "gateway".to_owned(),
                sealed: String::new(),
            };
            let sealed = sealer.seal(PURPOSE, bare.bound("one"), "a".repeat(bytes).as_bytes()).unwrap();
            Owed { sealed, ..bare }
        };
        let token = kept(limit::TOKEN_BYTES_MAX).open(&sealer, "one").unwrap();
        assert_eq!(token.expose_secret().len(), limit::TOKEN_BYTES_MAX);
        assert!(kept(10).open(&sealer, "two").is_none());
        assert!(kept(limit::CREDENTIAL_OWED_BYTES_MAX).open(&sealer, "one").is_none());
    }
}
