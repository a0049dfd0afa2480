//! The ledger of issued credentials: which there are, for whom, and how each can be taken back.
//!
//! Decides what is kept of one: everything but the credential. Refuses to know how it is taken back. Invariants: a
//! credential that is not in the ledger is not used; a row is written once when a credential is issued, once more when
//! it is taken back, and for no call.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::issued::Issued;
use super::takeback::{Taken, TakenBack, grouped};
use super::vault::Vault;
use super::wanted::is_within;
use crate::identity::now_s;
use crate::identity::revoked::RevocationTarget;
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::shelf::{Action, Change, Changed, Expect, Section, Shelf, Tell};
use crate::wire::handle::Sealer;

const SECTION: Section = Section { name: "issued_credential", rows_max: limit::CREDENTIALS_LEDGER_MAX };

/// The ledger.
#[derive(Debug)]
pub(super) struct Ledger {
    pub(super) shelf: Arc<dyn Shelf>,
    /// What seals tokens that are still to be given back; without it none outlives this process.
    vault: Option<Arc<Vault>>,
}

/// What is kept of one credential.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct IssuedCredential {
    /// Its name in the ledger, by which it is revoked.
    pub id: String,
    /// What it is: `exchange`, `client_credentials`, `id_jag`.
    pub kind: String,
    /// Which server it is for.
    pub server: String,
    /// For whom: the issuer's alias and the subject; nobody, where it is the gateway's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issuer: Option<String>,
    /// See `issuer`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// The client that asked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client: Option<String>,
    /// The agents that act, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub agents: Vec<String>,
    /// The `jti` of the caller's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<String>,
    /// The SHA-256 of the caller's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token_digest: Option<String>,
    /// The login session of the caller's token.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<String>,
    /// The governed task that it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// Its `jti`, where it can be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jti: Option<String>,
    /// Its SHA-256.
    pub digest: String,
    /// Who issued it.
    pub authorization_server: String,
    /// When, seconds since 1970.
    pub issued_at: i64,
    /// When it expires by itself; nobody knows where this is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<i64>,
    /// Until when it is used.
    pub used_until: i64,
    /// What became of it: `in_use`, `use_ended`, or how it was taken back.
    pub state: String,
}

impl Ledger {
    pub fn new(shelf: Arc<dyn Shelf>) -> Self {
        Self { shelf, vault: None }
    }

    /// The same, sealing what is owed as linked accounts are.
    pub fn sealing(&self, vault: &Arc<Vault>) -> Self {
        Self { shelf: Arc::clone(&self.shelf), vault: Some(Arc::clone(vault)) }
    }

    pub(super) fn sealer(&self) -> Option<&Sealer> {
        self.vault.as_ref().map(|vault| vault.sealer())
    }

    /// Writes down a credential; it may be used when this returns.
    pub async fn enter(&self, issued: &Issued) -> Result<(), Failure> {
        let entry = IssuedCredential::of(issued);
        match self.put(&entry, Expect::Absent).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Conflict(_) | Changed::Full(_) => {
                let detail = "the ledger of issued credentials is full: credentials that expire sooner leave it sooner";
                Err(Failure::before(Reason::CredentialUnavailable, detail))
            }
        }
    }

    /// Writes down what became of one that was taken back; a row that has gone stays so.
    pub async fn taken(&self, id: &str, taken: Taken) -> Result<(), Failure> {
        let Some(row) = self.shelf.row(SECTION, id).await? else { return Ok(()) };
        let Ok(mut entry) = serde_json::from_str::<IssuedCredential>(&row.body) else { return Ok(()) };
        taken.as_str().clone_into(&mut entry.state);
        if taken == Taken::Revoked {
            // It works nowhere any more, and its place is another's soon.
            let shown = now_s().saturating_add(super::seconds(limit::CREDENTIAL_REVOKED_SHOWN));
            return self.put_until(&entry, Expect::Version(row.version), entry.ends_at().min(shown)).await.map(drop);
        }
        // Somebody else who wrote in between knows as much.
        self.put(&entry, Expect::Version(row.version)).await.map(drop)
    }

    /// The youngest of all, the youngest first; at most so many.
    pub async fn youngest(&self, most: usize) -> Result<Vec<IssuedCredential>, Failure> {
        let (mut found, mut after) = (VecDeque::new(), None::<String>);
        loop {
            // Names are in the order of issue, and rows are read in the order of names.
            let rows = self.shelf.rows(SECTION, None, after.as_deref()).await?;
            let Some(last) = rows.last() else { return Ok(found.into()) };
            after = Some(last.key.clone());
            for entry in rows.iter().filter_map(|row| serde_json::from_str::<IssuedCredential>(&row.body).ok()) {
                found.push_front(entry);
                found.truncate(most);
            }
            if rows.len() < limit::SHELF_ROWS_READ_MAX {
                return Ok(found.into());
            }
        }
    }

    /// Those that fit, by their names, which are in the order of their issue; at most so many.
    pub async fn list(
        &self,
        fits: impl Fn(&IssuedCredential) -> bool + Send,
        most: usize,
    ) -> Result<Vec<IssuedCredential>, Failure> {
        let mut found = Vec::new();
        let mut after: Option<String> = None;
        loop {
            let rows = self.shelf.rows(SECTION, None, after.as_deref()).await?;
            let Some(last) = rows.last() else { return Ok(found) };
            after = Some(last.key.clone());
            let entries = rows.iter().filter_map(|row| serde_json::from_str::<IssuedCredential>(&row.body).ok());
            for entry in entries.filter(&fits) {
                if found.len() >= most {
                    return Ok(found);
                }
                found.push(entry);
            }
            if rows.len() < limit::SHELF_ROWS_READ_MAX {
                return Ok(found);
            }
        }
    }

    /// Those that a revocation names and that are not among the ones held here, for each upstream.
    pub async fn left_behind(
        &self,
        target: &RevocationTarget,
        held: &[String],
        owns: impl Fn(&str, &[String], &str) -> bool + Send + Sync,
    ) -> Result<Vec<TakenBack>, Failure> {
        let now = now_s();
        let elsewhere = |entry: &IssuedCredential| {
            let lives = entry.state != Taken::Revoked.as_str() && entry.ends_at() > now;
            lives && !held.contains(&entry.id) && entry.is_named(target, &owns)
        };
        let found = self.list(elsewhere, limit::CREDENTIALS_LEDGER_MAX as usize).await?;
        let detail = "it is not held here: a replica that holds it takes it back, otherwise it ends by itself";
        let line = |entry: IssuedCredential| (entry.server, Taken::ExpiresAt, entry.expires_at, detail.to_owned());
        Ok(grouped(found.into_iter().map(line).collect()))
    }

    async fn put(&self, entry: &IssuedCredential, expect: Expect) -> Result<Changed, Failure> {
        self.put_until(entry, expect, entry.ends_at()).await
    }

    async fn put_until(&self, entry: &IssuedCredential, expect: Expect, ends_at: i64) -> Result<Changed, Failure> {
        let body = serde_json::to_string(entry)
            .map_err(|error| Failure::before(Reason::Internal, format!("a ledger entry cannot be written: {error}")))?;
        let expires_at_us = Some(ends_at.saturating_mul(1_000_000));
        let action = Action::Put { owner: entry.server.clone(), body, expires_at_us };
        self.shelf.change(vec![Change::new(SECTION, entry.id.clone(), expect, action)], Tell::Nobody).await
    }
}

impl IssuedCredential {
    fn of(issued: &Issued) -> Self {
        let inbound = issued.inbound.as_ref();
        let facts = issued.facts();
        let cut = |text: &String| text.chars().take(limit::ERROR_SHOWN_CHARACTERS_MAX).collect::<String>();
        Self {
            id: issued.id.clone(),
            kind: facts.kind.as_str().to_owned(),
            server: issued.server.to_string(),
            issuer: inbound.map(|token| token.issuer.to_string()),
            subject: inbound.and_then(|token| token.subject.as_ref()).map(cut),
            client: inbound.and_then(|token| token.client.as_ref()).map(cut),
            agents: issued.agents.iter().map(ToString::to_string).collect(),
            token: inbound.and_then(|token| token.id.as_ref()).map(cut),
            token_digest: inbound.map(|token| token.digest.to_string()),
            session: inbound.and_then(|token| token.session.as_ref()).map(cut),
            mandate: issued.mandate.clone(),
            jti: facts.id.clone(),
            digest: issued.digest().to_string(),
            authorization_server: issued.from.name(),
            issued_at: issued.issued_at,
            expires_at: issued.ends().expires_at,
            used_until: issued.used_until(),
            state: "in_use".to_owned(),
        }
    }

    /// Until when it may work somewhere, seconds since 1970.
    fn ends_at(&self) -> i64 {
        let unknown = super::seconds(limit::CREDENTIAL_UNKNOWN_LIFE_KEPT);
        self.expires_at.unwrap_or_else(|| self.issued_at.saturating_add(unknown)).max(self.used_until)
    }

    /// Whether a revocation names it, as far as it is written down; owners are names of the configuration.
    pub(super) fn is_named(&self, target: &RevocationTarget, owned: impl Fn(&str, &[String], &str) -> bool) -> bool {
        let of = |own: &Option<String>, value: &str| own.as_deref() == Some(value);
        match target {
            RevocationTarget::Token(id) => of(&self.token, id) || of(&self.token_digest, id),
            RevocationTarget::Session(session) => of(&self.session, session),
            RevocationTarget::SessionOf(issuer, session) => {
                of(&self.issuer, issuer.as_str()) && of(&self.session, session)
            }
            RevocationTarget::Key(key) => of(&self.issuer, crate::identity::KEYS) && of(&self.client, key),
            RevocationTarget::Subject(issuer, subject) => {
                of(&self.issuer, issuer.as_str()) && of(&self.subject, subject)
            }
            RevocationTarget::Client(issuer, client) => of(&self.issuer, issuer.as_str()) && of(&self.client, client),
            RevocationTarget::Agent(agent) => self.agents.iter().any(|own| own == agent.as_str()),
            RevocationTarget::Owner(owner) => owned(owner, &self.agents, &self.server),
            RevocationTarget::Server(server) => self.server == server.as_str(),
            RevocationTarget::Credential(id) => self.id == *id,
            RevocationTarget::Mandate(mandate) => is_within(self.mandate.as_deref(), mandate.as_str()),
            RevocationTarget::Account(..) => false,
            RevocationTarget::Everything => true,
        }
    }
}

/// What a revocation names in a ledger whose gateway does not run: all of it ends by itself. Owners are names of the
/// configuration, and nothing is known of them here.
///
/// # Errors
/// When the ledger cannot be read.
pub async fn left_behind(shelf: Arc<dyn Shelf>, target: &RevocationTarget) -> Result<Vec<TakenBack>, Failure> {
    Ledger::new(shelf).left_behind(target, &[], |_, _, _| false).await
}
