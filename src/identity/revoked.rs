//! Decides whether access was taken back. A block holds until it is lifted; a sign-out refuses only
//! what was issued before it.
//!
//! The check runs on every call, after every cache hit: a snapshot behind one atomic load, no store.
//! Invariant: [`Revocations::epoch`] rises whenever any answer may have changed.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use arc_swap::ArcSwap;
use futures_util::future::BoxFuture;

use super::Identity;
use super::caller::{Person, TokenFacts};
use super::described::AccountName;
use crate::config::{AgentState, Config};
use crate::ids::{AgentId, Digest, IssuerAlias, MandateId, RevocationEpoch, ServerId};
use crate::inversion::{self, Control};
use crate::outcome::{Failure, Reason, Refusal};
use crate::wire::voids::Mark;

/// What a revocation is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum RevocationTarget {
    /// One token, by `jti` or by the SHA-256 of the token in hexadecimal.
    Token(String),
    /// One login session, by `sid`.
    Session(String),
    /// One login session of one issuer, by `sid`.
    SessionOf(IssuerAlias, String),
    /// One subject of an issuer, by `sub`.
    Subject(IssuerAlias, String),
    /// One client of an issuer.
    Client(IssuerAlias, String),
    /// One API key, by its name.
    Key(String),
    /// A registered agent, by whichever client it calls and wherever it stands in a chain.
    Agent(AgentId),
    /// Every agent and every server that this subject answers for, as files spell it: `user:corp/anna`.
    Owner(String),
    /// One server behind the gateway.
    Server(ServerId),
    /// One credential that was issued to the gateway, by its name in the ledger.
    Credential(String),
    /// One mandate, and those below it.
    Mandate(MandateId),
    /// The account that one subject of an issuer has linked at a server.
    Account(IssuerAlias, AccountName),
    /// Everything and everyone.
    Everything,
}

impl RevocationTarget {
    /// Whether it names the bearer of that token. Agents, owners and servers are names of the configuration, which
    /// this room does not ask: [`Barred`] is what is left of it.
    #[must_use]
    pub fn names(&self, token: &TokenFacts) -> bool {
        match self {
            Self::Token(id) => token.id.as_ref() == Some(id) || Digest::from_hex(id) == Some(token.digest),
            Self::Session(session) => token.session.as_ref() == Some(session),
            Self::SessionOf(issuer, session) => token.issuer == *issuer && token.session.as_ref() == Some(session),
            Self::Subject(issuer, subject) => {
                (token.issuer == *issuer && token.subject.as_ref() == Some(subject)) || token.acts(issuer, subject)
            }
            Self::Client(issuer, client) => {
                (token.issuer == *issuer && token.client.as_ref() == Some(client)) || token.acts(issuer, client)
            }
            Self::Key(key) => token.is_key() && token.client.as_ref() == Some(key),
            Self::Agent(_) | Self::Owner(_) | Self::Server(_) => false,
            Self::Credential(_) | Self::Mandate(_) | Self::Account(..) => false,
            Self::Everything => true,
        }
    }

    /// Whether only what was issued before a moment can be meant: of a server nothing is issued here, and an agent or
    /// an owner is stopped as such.
    #[must_use]
    pub const fn can_sign_out(&self) -> bool {
        let known_as_such = matches!(self, Self::Key(_) | Self::Agent(_) | Self::Owner(_) | Self::Server(_));
        !known_as_such && !matches!(self, Self::Credential(_) | Self::Mandate(_) | Self::Account(..))
    }
}

/// What of a configuration was taken back: names that only the configuration gives a meaning.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Barred {
    /// Agents that may not act.
    pub agents: BTreeSet<AgentId>,
    /// Subjects whose agents and servers are stopped.
    pub owners: BTreeSet<String>,
    /// Servers that nobody reaches.
    pub servers: BTreeSet<ServerId>,
    /// What was stopped while the gateway runs.
    pub stopped: Stopped,
}

/// What was stopped while the gateway runs, and is not taken back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Stopped {
    /// Agents that were suspended or retired.
    pub agents: BTreeMap<AgentId, AgentState>,
    /// Servers of which nobody has said in time that they are still needed.
    pub servers: BTreeSet<ServerId>,
}

impl Barred {
    /// What these revocations take back of any configuration.
    #[must_use]
    pub fn of(held: &[Held]) -> Self {
        let mut barred = Self::default();
        held.iter().for_each(|held| barred.add(&held.revocation.target));
        barred
    }

    fn add(&mut self, target: &RevocationTarget) {
        match target {
            RevocationTarget::Agent(agent) => drop(self.agents.insert(agent.clone())),
            RevocationTarget::Owner(owner) => drop(self.owners.insert(owner.clone())),
            RevocationTarget::Server(server) => drop(self.servers.insert(server.clone())),
            _ => {}
        }
    }

    /// Whether an agent is among it, or whoever answers for that agent or for its key, as the files are written: what was
    /// taken back is not in what is in force.
    #[must_use]
    pub fn bars(&self, agent: &str, key: Option<&str>, written: &Config) -> bool {
        let known = || written.agents.get(agent);
        let is_gone = |owner: &str| self.owners.contains(owner);
        let is_barred = self.agents.contains(agent)
            || (!self.owners.is_empty() && known().is_some_and(|known| known.answered_for_by(key).any(is_gone)));
        is_barred && !inversion::is_off(Control::Owner)
    }
}

/// How long it holds, and for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RevocationMode {
    /// Until an administrator lifts it.
    Block,
    /// For what was issued before this moment (seconds since 1970, skew already added).
    SignOut {
        /// The moment.
        issued_before: i64,
    },
}

/// One revocation as the store keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Revocation {
    /// What it is about.
    pub target: RevocationTarget,
    /// How long it holds.
    pub mode: RevocationMode,
    /// Who did it: `user:...` or `host:UID`.
    pub actor: String,
    /// Why, as the administrator wrote it.
    pub note: String,
    /// When, seconds since 1970 by the store's clock.
    pub at: i64,
}

/// A revocation that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// The epoch that added it, or renewed it last: what it is lifted by.
    pub since: RevocationEpoch,
    /// What it says.
    pub revocation: Revocation,
}

/// What this room needs of the store.
pub trait RevocationStore: Send + Sync {
    /// Adds one; durable when it returns. Answers the epoch that includes it.
    fn revoke<'a>(&'a self, revocation: &'a Revocation) -> BoxFuture<'a, Result<RevocationEpoch, Failure>>;
    /// Takes back the one that holds since then; durable when it returns. Answers the epoch without it and what it
    /// said, or nothing where none holds since then: it was lifted already, or renewed meanwhile. Where replicas have
    /// the store in common, their records tell who lifted it and why. Handles from before stay void that rest on what it
    /// names, or on one of `also`.
    fn lift<'a>(
        &'a self,
        since: RevocationEpoch,
        also: &'a [Mark],
        actor: &'a str,
        note: &'a str,
    ) -> BoxFuture<'a, Result<Option<(RevocationEpoch, Revocation)>, Failure>>;
    /// All that hold, oldest first, and the epoch that they belong to.
    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>>;
    /// The epoch alone, for polling.
    fn revocation_epoch(&self) -> BoxFuture<'_, Result<RevocationEpoch, Failure>>;
}

/// The revocations that hold, as one immutable snapshot.
#[derive(Debug, Default)]
pub struct Revocations {
    snapshot: ArcSwap<Snapshot>,
}

/// Indexed by what a token can be looked up by, so that ten thousand revocations cost a call no more than one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Snapshot {
    epoch: RevocationEpoch,
    barred: Arc<Barred>,
    everything: Option<RevocationMode>,
    /// What of that holds for administrators as well: whoever lifts the block on everything must get in.
    signed_out: Option<RevocationMode>,
    tokens: HashMap<String, RevocationMode>,
    digests: HashMap<Digest, RevocationMode>,
    sessions: HashMap<String, RevocationMode>,
    keys: HashMap<String, RevocationMode>,
    sessions_of: HashMap<IssuerAlias, HashMap<String, RevocationMode>>,
    subjects: HashMap<IssuerAlias, HashMap<String, RevocationMode>>,
    clients: HashMap<IssuerAlias, HashMap<String, RevocationMode>>,
    credentials: HashSet<String>,
    mandates: BTreeSet<MandateId>,
    accounts: HashMap<IssuerAlias, HashSet<AccountName>>,
}

impl Revocations {
    /// These alone, whatever else holds: what names somebody because of them is asked as what holds is.
    #[must_use]
    pub fn of(held: Vec<Held>) -> Self {
        let only = Self::default();
        only.replace(RevocationEpoch::default(), held);
        only
    }

    /// The epoch of the snapshot.
    #[must_use]
    pub fn epoch(&self) -> RevocationEpoch {
        self.snapshot.load().epoch
    }

    /// Replaces the snapshot, unless the one there is newer: two revocations at once may read the store in one
    /// order and come here in the other.
    pub fn replace(&self, epoch: RevocationEpoch, held: Vec<Held>) {
        self.replace_with(epoch, held, Stopped::default());
    }

    /// The same with what was stopped while the gateway runs.
    pub fn replace_with(&self, epoch: RevocationEpoch, held: Vec<Held>, stopped: Stopped) {
        let barred = Arc::new(Barred { stopped, ..Barred::of(&held) });
        let mut snapshot = Snapshot { epoch, barred, ..Snapshot::default() };
        for held in held {
            snapshot.add(held.revocation);
        }
        let new = Arc::new(snapshot);
        self.snapshot.rcu(|old| if old.epoch > new.epoch { Arc::clone(old) } else { Arc::clone(&new) });
    }

    /// Adds one to what is in force, where it is all that its epoch has changed; whether it is in force.
    pub fn add(&self, epoch: RevocationEpoch, revocation: &Revocation) -> bool {
        let next = |old: &Snapshot| (old.epoch.0.checked_add(1) == Some(epoch.0)).then(|| old.with(epoch, revocation));
        let before = self.snapshot.rcu(|old| next(old).map_or_else(|| Arc::clone(old), Arc::new));
        before.epoch.0.checked_add(1) == Some(epoch.0)
    }

    /// Whether somebody may act who is known by issuer and subject alone, and signed in then.
    ///
    /// # Errors
    /// [`Reason::Revoked`].
    pub fn check_subject(&self, issuer: &IssuerAlias, subject: &str, since_s: i64) -> Result<(), Refusal> {
        let facts = TokenFacts {
            digest: Digest::sha256(b""),
            issuer: issuer.clone(),
            subject: Some(subject.to_owned()),
            client: None,
            id: None,
            session: None,
            issued_at: Some(since_s),
            expires_at: i64::MAX,
            person: Person::Unknown,
            for_administrators: false,
            hops: Vec::new(),
        };
        self.check(&facts).map(|_| ())
    }

    /// What of a configuration was taken back.
    #[must_use]
    pub fn barred(&self) -> Arc<Barred> {
        Arc::clone(&self.snapshot.load().barred)
    }

    /// Whether a credential that was issued to us was taken back by its name.
    #[must_use]
    pub fn names_credential(&self, id: &str) -> bool {
        self.snapshot.load().credentials.contains(id)
    }

    /// Whether the account of that subject at a server was taken back.
    #[must_use]
    pub fn names_account(&self, issuer: &IssuerAlias, subject: &str, server: &ServerId) -> bool {
        let snapshot = self.snapshot.load();
        let of_issuer = snapshot.accounts.get(issuer);
        of_issuer.is_some_and(|accounts| accounts.contains(&AccountName::new(server, subject)))
    }

    /// Whether a mandate was taken back.
    #[must_use]
    pub fn is_mandate_revoked(&self, mandate: &MandateId) -> bool {
        self.snapshot.load().mandates.contains(mandate)
    }

    /// Whether the token's bearer may still act; answers the epoch at which that was so.
    ///
    /// # Errors
    /// [`Reason::Revoked`].
    pub fn check(&self, token: &TokenFacts) -> Result<RevocationEpoch, Refusal> {
        let snapshot = self.snapshot.load();
        if snapshot.modes(token).any(|mode| mode.covers(token)) && !inversion::is_off(Control::Revocation) {
            return Err(Refusal::new(Reason::Revoked));
        }
        Ok(snapshot.epoch)
    }
}

impl Identity {
    /// Whether a credential that was issued to us was taken back by its name; for `delegate`.
    #[must_use]
    pub fn is_credential_revoked(&self, id: &str) -> bool {
        self.revocations.names_credential(id)
    }

    /// Whether the account of that subject at a server was taken back; for `delegate`.
    #[must_use]
    pub fn is_account_revoked(&self, issuer: &IssuerAlias, subject: &str, server: &ServerId) -> bool {
        self.revocations.names_account(issuer, subject, server)
    }
}

impl Snapshot {
    /// The same with one more.
    fn with(&self, epoch: RevocationEpoch, revocation: &Revocation) -> Self {
        let mut barred = Barred::clone(&self.barred);
        barred.add(&revocation.target);
        let mut next = Self { epoch, barred: Arc::new(barred), ..self.clone() };
        next.add(revocation.clone());
        next
    }

    fn add(&mut self, revocation: Revocation) {
        let mode = revocation.mode;
        match revocation.target {
            RevocationTarget::Token(id) => {
                // A `jti` could look like a digest; then both are meant.
                if let Some(digest) = Digest::from_hex(&id) {
                    tighten(self.digests.entry(digest), mode);
                }
                tighten(self.tokens.entry(id), mode);
            }
            RevocationTarget::Session(session) => tighten(self.sessions.entry(session), mode),
            RevocationTarget::Key(key) => tighten(self.keys.entry(key), mode),
            RevocationTarget::SessionOf(issuer, session) => {
                tighten(self.sessions_of.entry(issuer).or_default().entry(session), mode);
            }
            RevocationTarget::Subject(issuer, name) => {
                tighten(self.subjects.entry(issuer).or_default().entry(name), mode);
            }
            RevocationTarget::Client(issuer, name) => {
                tighten(self.clients.entry(issuer).or_default().entry(name), mode);
            }
            RevocationTarget::Mandate(mandate) => drop(self.mandates.insert(mandate)),
            RevocationTarget::Account(issuer, account) => {
                self.accounts.entry(issuer).or_default().insert(account);
            }
            RevocationTarget::Agent(_) | RevocationTarget::Owner(_) | RevocationTarget::Server(_) => {}
            RevocationTarget::Credential(id) => drop(self.credentials.insert(id)),
            RevocationTarget::Everything => {
                let tightened = |own: Option<RevocationMode>| Some(own.map_or(mode, |own| own.tighter(mode)));
                self.everything = tightened(self.everything);
                if mode != RevocationMode::Block {
                    self.signed_out = tightened(self.signed_out);
                }
            }
        }
    }

    /// The modes of all revocations that name the token. Allocates nothing.
    fn modes<'a>(&'a self, token: &'a TokenFacts) -> impl Iterator<Item = RevocationMode> + 'a {
        let of_issuer = |map: &'a HashMap<IssuerAlias, HashMap<String, RevocationMode>>, name: Option<&'a String>| {
            map.get(&token.issuer).and_then(|names| names.get(name?))
        };
        // Whoever acts in between is a subject or a client of whoever vouches for them: the token does not say which.
        let acting = token.hops.iter().flat_map(|hop| {
            [&self.subjects, &self.clients].into_iter().filter_map(|map| map.get(&hop.issuer)?.get(&hop.name))
        });
        [
            if token.for_administrators { self.signed_out.as_ref() } else { self.everything.as_ref() },
            token.id.as_ref().and_then(|id| self.tokens.get(id)),
            self.digests.get(&token.digest),
            token.session.as_ref().and_then(|session| self.sessions.get(session)),
            token.client.as_ref().filter(|_| token.is_key()).and_then(|key| self.keys.get(key)),
            of_issuer(&self.sessions_of, token.session.as_ref()),
            of_issuer(&self.subjects, token.subject.as_ref()),
            of_issuer(&self.clients, token.client.as_ref()),
        ]
        .into_iter()
        .flatten()
        .chain(acting)
        .copied()
    }
}

impl Revocation {
    /// Whether it takes access from the bearer of that token.
    #[must_use]
    pub fn covers(&self, token: &TokenFacts) -> bool {
        self.target.names(token) && self.mode.covers(token)
    }
}

impl RevocationMode {
    /// The one of the two that refuses more.
    fn tighter(self, other: Self) -> Self {
        match (self, other) {
            (Self::Block, _) | (_, Self::Block) => Self::Block,
            (Self::SignOut { issued_before: one }, Self::SignOut { issued_before: two }) => {
                Self::SignOut { issued_before: one.max(two) }
            }
        }
    }

    fn covers(self, token: &TokenFacts) -> bool {
        match self {
            Self::Block => true,
            // A token that does not say when it was issued counts as issued before.
            Self::SignOut { issued_before } => token.issued_at.is_none_or(|at| at <= issued_before),
        }
    }
}

fn tighten<K>(entry: Entry<'_, K, RevocationMode>, mode: RevocationMode) {
    entry.and_modify(|own| *own = own.tighter(mode)).or_insert(mode);
}

#[cfg(test)]
pub(super) mod tests;
