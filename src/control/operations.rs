//! What can be asked of a running gateway, and what is answered: the words of its JSON.
//!
//! Decides which orders make sense. Refuses to know who carries them out. Invariant: an order becomes a
//! revocation only with an actor and a moment that its sender did not choose, and a token that was pasted into one goes
//! no further than its digest.

use std::borrow::Cow;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;

use futures_util::future::BoxFuture;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

pub use super::readiness::{Problem, Readiness, ReadinessCheck};
pub use crate::gateway::access::{AccessAnswer, AccessReport};
pub use crate::gateway::approvals::{ApprovalView, ApproveOrder, DenyOrder};
pub use crate::gateway::credentials::{IssuedCredential, SecretStatus, TakenBack};
pub use crate::gateway::glance::{AgentStatus, PolicyStatus, Reach};
pub use crate::gateway::pins::{
    NamedPin, PinDiff, PinDiffs, PinLockText, PinOrder, PinStatus, PinsChanged, PinsReport,
};

use super::break_glass::Emergencies;
use super::governs::Governs;
use super::labels::Labelling;
use super::reviews::Reviews;
use super::standing::Stands;
use crate::config::Config;
use crate::gateway::accounts::{Linked, Removed};
use crate::gateway::ask::{WhatCanAnswer, WhoCanAnswer};
use crate::gateway::{ReloadOrder, ReloadReport, ShadowReport};
use crate::identity::Caller;
use crate::identity::described::Described;
use crate::identity::proposed::Proposed;
use crate::identity::revoked::{Held, Revocation, RevocationMode, RevocationTarget};
use crate::ids::{AgentId, Digest, RevocationEpoch, ServerId, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::AdminOperation;
use crate::record::event::AdminNote;
use crate::record::{Who, redact};

/// What the gateway does for its operators; `gateway.rs` implements it.
pub trait Operations: Governs {
    /// The store's clock, by which revocations are dated: seconds since 1970.
    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>>;
    /// Takes access back: durable in the store, in force, on the record, in that order; answers the epoch
    /// that includes it, also where the last of these failed.
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<Revoked, Failure>>;
    /// Lifts a revocation: on the record, then in force; answers the epoch without it, or nothing where none holds
    /// since then. Loosening: nobody is asked here who may.
    fn lift(&self, lifting: Lifting) -> BoxFuture<'_, Result<Option<RevocationEpoch>, Failure>>;
    /// All revocations that hold, and the epoch they belong to.
    fn revocations(&self) -> BoxFuture<'_, Result<(RevocationEpoch, Vec<Held>), Failure>>;
    /// Reads all files again; a set with problems changes nothing and is reported with them.
    fn reload(&self, actor: String, order: ReloadOrder) -> BoxFuture<'_, Result<ReloadReport, Failure>>;
    /// What an operator wants to see at a glance.
    fn status(&self) -> BoxFuture<'_, serde_json::Value>;
    /// Whether it can serve, and what is in the way.
    fn ready(&self) -> BoxFuture<'_, Readiness>;
    /// What the next policies would decide otherwise; nothing where there are none.
    fn shadow(&self) -> ShadowReport {
        ShadowReport::default()
    }
    /// How definitions stand.
    fn pins(&self) -> BoxFuture<'_, Result<PinsReport, Failure>> {
        Box::pin(std::future::ready(Ok(PinsReport::default())))
    }
    /// What changes with the definitions of a name.
    fn pin_diffs(&self, named: NamedPin) -> BoxFuture<'_, Result<PinDiffs, Failure>> {
        let _nothing = named;
        Box::pin(std::future::ready(Ok(PinDiffs::default())))
    }
    /// The file that accepts what is accepted now.
    fn pin_lock(&self) -> PinLockText {
        PinLockText { lock: String::new() }
    }
    /// Accepts or rejects definitions: durable, in force, on the record, in that order. Accepting is loosening: nobody
    /// is asked here who may.
    fn pin(&self, order: PinOrder, accept: bool, actor: String) -> BoxFuture<'_, Result<PinsChanged, Stop>> {
        let _nothing = (order, accept, actor);
        Box::pin(std::future::ready(Ok(PinsChanged { changed: 0 })))
    }
    /// The metrics as text.
    fn metrics(&self) -> String;
    /// Every server, how it is, and why it is down.
    fn servers(&self) -> Vec<ServerStatus> {
        Vec::new()
    }
    /// Every agent of the files.
    fn agents(&self) -> Vec<AgentStatus> {
        Vec::new()
    }
    /// Software that nobody registered: denied, or let in as its issuer's default agent.
    fn proposed_agents(&self) -> BoxFuture<'_, Result<Vec<Proposed>, Failure>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// The policy in force, and how it came.
    fn policy(&self) -> PolicyStatus {
        PolicyStatus::default()
    }
    /// Accounts that people have linked, of one person where one is named.
    fn accounts<'a>(&'a self, owner: Option<&'a str>) -> BoxFuture<'a, Result<Vec<Linked>, Failure>> {
        let _nobodys = owner;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// Takes a linked account back; nothing, where there is none.
    fn unlink<'a>(&'a self, owner: &'a str, server: &'a ServerId) -> BoxFuture<'a, Result<Option<Removed>, Failure>> {
        let _nobodys = (owner, server);
        Box::pin(std::future::ready(Ok(None)))
    }
    /// Where somebody links an account at a server which they may know of and which is called with one.
    fn link(&self, caller: &Caller, server: &ServerId) -> Option<String> {
        let _nobody = (caller, server);
        None
    }
    /// What a revocation would stop.
    fn reach(&self, target: &RevocationTarget) -> Reach {
        let _everything = target;
        Reach::default()
    }
    /// What somebody may do through the gateway, with this agent or the usual one.
    fn access(&self, caller: &Caller, agent: Option<&AgentId>) -> AccessReport {
        let _nobody = (caller, agent);
        AccessReport::default()
    }
    /// Why somebody may or may not do something; nothing where they may not know whether it exists.
    fn access_to(&self, caller: &Caller, agent: Option<&AgentId>, object: &str, action: &str) -> Option<AccessAnswer> {
        let _nobody = (caller, agent, object, action);
        None
    }
    /// The configuration in force.
    fn config(&self) -> Option<Arc<Config>> {
        None
    }
    /// What is in the ledger of issued credentials, oldest first.
    ///
    /// # Errors
    /// When the store cannot be read.
    fn credentials(&self) -> BoxFuture<'_, Result<Vec<IssuedCredential>, Failure>> {
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// The secrets that are presented to upstreams, and how old they are.
    fn secrets(&self) -> BoxFuture<'_, Vec<SecretStatus>> {
        Box::pin(std::future::ready(Vec::new()))
    }
    /// Whether what comes from there with this bearer token is looked at at all.
    ///
    /// # Errors
    /// Too much of what came from there was refused; counted by whoever says so.
    fn admits(&self, bearer: Option<&str>, peer: IpAddr) -> Result<(), Refusal> {
        let _anybody = (bearer, peer);
        Ok(())
    }
    /// Who presents this bearer token at the administrators' listener. Nobody, where there is none.
    fn authenticate<'a>(&'a self, bearer: Option<&'a str>) -> BoxFuture<'a, Result<Caller, Stop>> {
        let _nobody = bearer;
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TokenMissing).into())))
    }
    /// Whether somebody who was authenticated earlier still may act: nothing was taken back from them since.
    ///
    /// # Errors
    /// Why not.
    fn still_trusted(&self, caller: &Caller) -> Result<(), Refusal> {
        let _nobody = caller;
        Err(Refusal::new(Reason::NotAllowed))
    }
    /// Counts a refusal of somebody who was not authenticated.
    fn knocked(&self, reason: Reason, peer: IpAddr) {
        let _uncounted = (reason, peer);
    }
    /// Whom the running policy lets do this to that.
    ///
    /// # Errors
    /// A lower-case sentence: what cannot be asked like this.
    fn who_can(&self, object: &str, action: &str) -> Result<WhoCanAnswer, String> {
        Err(format!("{action} {object} cannot be asked here"))
    }
    /// What the running policy says of somebody.
    fn what_can(&self, subject: &Subject) -> WhatCanAnswer {
        WhatCanAnswer { subject: subject.to_string(), rules: Vec::new() }
    }
    /// Calls that wait for a person, or all that are kept.
    fn approvals(&self, all: bool) -> BoxFuture<'_, Result<Vec<ApprovalView>, Stop>> {
        let _none = all;
        Box::pin(std::future::ready(Ok(Vec::new())))
    }
    /// One of them, looked at by somebody of that name.
    fn approval<'a>(
        &'a self,
        id: &'a str,
        name: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        let _none = (id, name, who);
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TargetUnknown).into())))
    }
    /// One of somebody's own.
    fn own_approval<'a>(&'a self, caller: &'a Caller, id: &'a str) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        let _none = (caller, id);
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TargetUnknown).into())))
    }
    /// Approves what was shown; the gates say who may.
    fn approve<'a>(
        &'a self,
        id: &'a str,
        approver: &'a Caller,
        shown: Digest,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        let _none = (id, approver, shown);
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TargetUnknown).into())))
    }
    /// Denies it.
    fn deny<'a>(
        &'a self,
        id: &'a str,
        name: &'a str,
        note: &'a str,
        who: Option<&'a Who>,
    ) -> BoxFuture<'a, Result<ApprovalView, Stop>> {
        let _none = (id, name, note, who);
        Box::pin(std::future::ready(Err(Refusal::new(Reason::TargetUnknown).into())))
    }
    /// Where the record is.
    fn journal(&self) -> Option<PathBuf> {
        None
    }
    /// Fires when the gateway begins to stop.
    fn stopping(&self) -> CancellationToken {
        CancellationToken::new()
    }
    /// Whether the rules let somebody who was authenticated do this; answers those that do.
    ///
    /// # Errors
    /// Why not.
    fn authorize(&self, caller: &Caller, operation: AdminOperation) -> Result<Arc<[Arc<str>]>, Refusal> {
        let _nobody = (caller, operation);
        Err(Refusal::new(Reason::NotAllowed))
    }
    /// What it does with reviews.
    ///
    /// # Errors
    /// Where there are none.
    fn reviews(&self) -> Result<&dyn Reviews, Stop> {
        Err(Refusal::new(Reason::NotAllowed).into())
    }
    /// What it does in emergencies.
    ///
    /// # Errors
    /// Where there are none.
    fn emergencies(&self) -> Result<&dyn Emergencies, Stop> {
        super::break_glass::nowhere()
    }
    /// What it does with standing approvals.
    ///
    /// # Errors
    /// Where there are none.
    fn stands(&self) -> Result<&dyn Stands, Stop> {
        super::standing::nowhere()
    }
    /// What it does with labels.
    ///
    /// # Errors
    /// Where there are none.
    fn labelling(&self) -> Result<&dyn Labelling, Stop> {
        Err(Refusal::new(Reason::NotAllowed).into())
    }
    /// Records and counts what was done, or was not.
    fn administered<'a>(&'a self, note: &'a AdminNote<'a>, who: Option<&'a Who>) -> BoxFuture<'a, Result<(), Failure>>;
}

/// One server, as `GET /servers` tells of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ServerStatus {
    /// Its id.
    pub server: String,
    /// What people call it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub title: String,
    /// Who answers for it.
    pub owner: String,
    /// Where its effects land.
    pub environment: String,
    /// `up`, `connecting`, `down` or `revoked`.
    pub health: String,
    /// Why it is down.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Since when it is down.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<jiff::Timestamp>,
    /// `http` or `stdio`.
    pub transport: String,
    /// For a child: `required` or `none`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub sandbox: String,
    /// Which era of MCP it speaks: `modern` or `legacy`; absent until it was listed.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub era: String,
}

/// Taking a revocation back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifting {
    /// Which: the epoch since which it holds.
    pub since: RevocationEpoch,
    /// Who.
    pub actor: String,
    /// Why.
    pub note: String,
}

/// `POST /revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RevocationOrder {
    /// `token`, `session`, `key`, `subject`, `client`, `agent`, `owner`, `server`, `credential`, `mandate`, `account` or
    /// `everything`.
    pub target: String,
    /// The issuer's alias, for subjects, clients and accounts.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// What is named: a `jti` or SHA-256, a `sid`, a `sub`, a client id, an agent, an owner as files spell it, a
    /// server, an account as `SERVER/SUB`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// Only what was issued before now; otherwise a block until it is lifted.
    #[serde(default)]
    pub sign_out: bool,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

impl RevocationOrder {
    /// What is named, for people and the record.
    #[must_use]
    pub fn about(&self) -> String {
        let mode = if self.sign_out { ", sign-out" } else { "" };
        let value = named(&self.value);
        match (self.issuer.is_empty(), value.is_empty()) {
            (true, true) => format!("{}{mode}", self.target),
            (true, false) => format!("{} {value}{mode}", self.target),
            (false, _) => format!("{} {}/{value}{mode}", self.target, self.issuer),
        }
    }

    /// The revocation that the actor orders at this moment (seconds since 1970).
    ///
    /// # Errors
    /// A lower-case sentence that says what is wrong with the order.
    pub fn at(&self, actor: &str, now: i64) -> Result<Revocation, String> {
        let value = named(&self.value);
        if self.target != "token" && matches!(value, Cow::Owned(_)) {
            return Err(format!("that is a whole token, and no {}: revoke it as a token", self.target));
        }
        if value.len() > limit::REVOCATION_VALUE_BYTES_MAX {
            return Err(format!("what is named is longer than {} bytes", limit::REVOCATION_VALUE_BYTES_MAX));
        }
        let words = Described { kind: &self.target, issuer: &self.issuer, value: &value };
        let target = RevocationTarget::try_from(words).map_err(|error| format!("{error}"))?;
        if self.sign_out && !target.can_sign_out() {
            return Err(format!("nothing is issued to the {} as such: revoke it without signing out", self.target));
        }
        let skew = i64::try_from(limit::SIGN_OUT_SKEW.as_secs()).unwrap_or_default();
        let mode = if self.sign_out {
            RevocationMode::SignOut { issued_before: now.saturating_add(skew) }
        } else {
            RevocationMode::Block
        };
        Ok(Revocation { target, mode, actor: actor.to_owned(), note: noted(&self.note), at: now })
    }
}

/// Why, as it may be kept in every store.
pub(super) fn noted(note: &str) -> String {
    redact::text(note).replace('\0', "\u{fffd}")
}

/// What a revocation names, as it may be kept and shown: of a whole token only the SHA-256, by which it is found as well.
pub(crate) fn named(value: &str) -> Cow<'_, str> {
    let token = bare(value);
    if is_token(token) { Cow::Owned(Digest::sha256(token.as_bytes()).to_string()) } else { Cow::Borrowed(value) }
}

/// What is copied from a header often brings its scheme along.
pub(crate) fn bare(token: &str) -> &str {
    let token = token.trim();
    let token = token.strip_prefix("Authorization:").map_or(token, str::trim);
    token.strip_prefix("Bearer ").map_or(token, str::trim)
}

/// Whether it has the shape of a JWT: then it is a secret and no name.
fn is_token(text: &str) -> bool {
    text.starts_with("eyJ") && text.bytes().filter(|byte| *byte == b'.').count() == 2
}

/// `DELETE /revocations/{since}`; the body may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LiftOrder {
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The answer to `DELETE /revocations/{since}`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lifted {
    /// The epoch without it.
    pub epoch: RevocationEpoch,
}

/// The answer to `POST /revoke`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Revoked {
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
    /// What is wrong although it holds: the record does not say so.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub warning: String,
    /// What became of the credentials that were issued to the gateway, for each upstream.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<TakenBack>,
}

impl Revoked {
    /// It holds and is on the record.
    #[must_use]
    pub const fn at(epoch: RevocationEpoch) -> Self {
        Self { epoch, warning: String::new(), upstreams: Vec::new() }
    }
}

/// The answer to `GET /revocations`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRevocations {
    /// The epoch they belong to.
    pub epoch: RevocationEpoch,
    /// All that hold, oldest first.
    pub revocations: Vec<HeldRevocation>,
}

/// One revocation that holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HeldRevocation {
    /// The epoch since which it holds: what it is lifted by.
    pub since: RevocationEpoch,
    /// What it takes back, as an order names it.
    pub target: String,
    /// The issuer's alias.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub issuer: String,
    /// What is named.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub value: String,
    /// `block` or `sign_out`.
    pub mode: String,
    /// For a sign-out: what was issued before this moment, seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub issued_before: Option<i64>,
    /// Who did it.
    pub actor: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When, seconds since 1970.
    pub at: i64,
}

impl HeldRevocations {
    /// Puts them into words.
    #[must_use]
    pub fn new(epoch: RevocationEpoch, held: &[Held]) -> Self {
        let words = |Held { since, revocation }: &Held| {
            let Described { kind, issuer, value } = Described::from(&revocation.target);
            HeldRevocation {
                since: *since,
                target: kind.to_owned(),
                issuer: issuer.to_owned(),
                value: value.to_owned(),
                mode: revocation.mode.as_str().to_owned(),
                issued_before: revocation.mode.issued_before(),
                actor: revocation.actor.clone(),
                note: revocation.note.clone(),
                at: revocation.at,
            }
        };
        Self { epoch, revocations: held.iter().map(words).collect() }
    }
}
