//! One request for approval as the store keeps it, from the first call to the one that used it.
//!
//! Decides in which state it is, and who has said yes to what. Refuses to know the store. Invariant: of the arguments
//! it holds only what an approver may see.

use serde::{Deserialize, Serialize};

use super::approver;
use crate::config::{Config, GateConfig, GateKind, ServerConfig};
use crate::guard::Party;
use crate::identity::{Caller, Hop, KEYS, Person, TokenFacts};
use crate::ids::{CallId, Digest, IssuerAlias, PolicyRevision};
use crate::inversion::{self, Control};
use crate::policy::{Decided, Permit};

/// One request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Kept {
    /// Its name: 128 random bits.
    pub id: String,
    /// What it is good for.
    pub binding: Digest,
    /// The gates that stopped the call.
    pub gates: Vec<String>,
    /// Who called.
    pub requester: Requester,
    /// The mandate that it was made under.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// The template of that mandate.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// What it does cannot be undone, or nobody says whether it can: nobody approves it beforehand.
    #[serde(default = "somebody")]
    pub irreversible: bool,
    /// The server.
    pub server: String,
    /// What is done.
    pub action: String,
    /// To what, in the server's spelling.
    pub name: String,
    /// The digest of its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<String>,
    /// Where its effects land.
    pub environment: String,
    /// The arguments as an approver sees them: JSON.
    pub preview: String,
    /// The digest of that.
    pub shown: Digest,
    /// The policy of the first call; evidence, and no part of what it is good for.
    pub revision: PolicyRevision,
    /// The first call.
    pub call: String,
    /// Microseconds since 1970 by the store's clock, as all moments here.
    pub requested_at_us: i64,
    /// Until when it waits.
    pub pending_until_us: i64,
    /// How long it can be used once everybody has approved.
    pub approved_for_us: i64,
    /// Whether somebody else is asked, and not only whoever called.
    #[serde(default = "somebody")]
    pub asks: bool,
    /// Whoever called has confirmed it.
    #[serde(default)]
    pub confirmed: bool,
    /// Who has approved.
    #[serde(default)]
    pub decisions: Vec<Decision>,
    /// Until when it can be used; set when the last one has approved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_until_us: Option<i64>,
    /// Who has denied it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub denied: Option<Denial>,
    /// Which call has used it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub consumed: Option<Consumption>,
    /// Whoever called wants it no more, or may not any more.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub withdrawn: bool,
    /// What its caller had seen that flows ask about.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub after: String,
    /// That it ran out stands on the record.
    #[serde(default)]
    pub expiry_told: bool,
}

const fn somebody() -> bool {
    true
}

/// Who called, and who else has a part in the call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Requester {
    /// Whoever called.
    #[serde(flatten)]
    pub party: Party,
    /// Whose requests are counted.
    pub principal: String,
    /// With which token: it may be taken back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<Token>,
    /// Whoever opened the mandate, and those above it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub openers: Vec<Party>,
}

/// One person's yes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Decision {
    /// As rules spell them.
    pub user: String,
    /// Which human, whatever the account is called.
    pub person: String,
    /// The groups of the token that a gate of the call names, or a rule.
    pub groups: Vec<String>,
    /// When they logged in.
    pub authenticated_at: i64,
    /// How.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acr: Option<String>,
    /// How their client proved itself.
    #[serde(default)]
    pub client_proof: String,
    /// By which token: it may be taken back.
    pub token: Token,
    /// When.
    pub at_us: i64,
}

/// What is kept of a token: enough to see that it was taken back.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Token {
    digest: Digest,
    issuer: String,
    subject: Option<String>,
    client: Option<String>,
    id: Option<String>,
    session: Option<String>,
    issued_at: Option<i64>,
    expires_at: i64,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    hops: Vec<Hop>,
}

/// Somebody's no.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Denial {
    /// Who.
    pub by: String,
    /// When.
    pub at_us: i64,
    /// Until when the same call is refused.
    pub until_us: i64,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The call that used it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Consumption {
    /// Which.
    pub call: String,
    /// The last of its rounds of questions that was let through.
    pub round: u32,
}

/// In which state a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum State {
    /// It waits for somebody.
    Pending,
    /// It can be used.
    Approved,
    /// Somebody said no.
    Denied,
    /// A call has used it.
    Consumed,
    /// Whoever called wants it no more, or may not any more.
    Withdrawn,
    /// Nobody said yes in time, or nobody used it.
    Expired,
}

impl State {
    /// As records and lists spell it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Denied => "denied",
            Self::Consumed => "consumed",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

impl Kept {
    /// Its state at that moment.
    #[must_use]
    pub fn state(&self, now_us: i64) -> State {
        let now_us = if inversion::is_off(Control::ApprovalExpiry) { i64::MIN } else { now_us };
        match (&self.consumed, &self.denied, self.approved_until_us) {
            (Some(_), _, _) => State::Consumed,
            (None, _, _) if self.withdrawn => State::Withdrawn,
            (None, Some(_), _) => State::Denied,
            // What was told to be over stays over, also where the clock goes back.
            _ if self.expiry_told => State::Expired,
            (None, None, Some(until_us)) if now_us < until_us => State::Approved,
            (None, None, None) if now_us < self.pending_until_us => State::Pending,
            _ => State::Expired,
        }
    }

    /// When it is over in the state that it is in.
    #[must_use]
    pub fn until_us(&self) -> i64 {
        match (&self.denied, self.approved_until_us) {
            (Some(denied), _) => denied.until_us,
            (None, Some(until_us)) => until_us,
            (None, None) => self.pending_until_us,
        }
    }

    /// Whether a standing approval may let a call through for which this request is there: nobody has said yes or no
    /// to that, and it is not the request which that very call has used.
    pub(super) fn leaves_room_for_a_standing_one(&self, call: CallId) -> bool {
        match &self.consumed {
            Some(used) => used.call != call.to_string(),
            None => self.denied.is_none() && self.approved_until_us.is_none(),
        }
    }

    /// Whether whoever called has still to confirm it.
    #[must_use]
    pub fn waits_for_confirmation(&self, gates: &[impl AsRef<GateConfig>]) -> bool {
        !self.confirmed && gates.iter().any(|gate| gate.as_ref().kind == GateKind::Confirm)
    }

    /// The first gate that waits for another person, counting only these decisions.
    #[must_use]
    pub fn waits_at<'g>(
        &self,
        config: &Config,
        gates: impl IntoIterator<Item = &'g GateConfig>,
    ) -> Option<&'g GateConfig> {
        let server = server(config, &self.server);
        gates.into_iter().find(|gate| {
            let mut persons: Vec<String> = self
                .decisions
                .iter()
                .filter(|decision| approver::counts(decision, gate, server))
                .map(|decision| approver::folded(&decision.person))
                .collect();
            persons.sort_unstable();
            persons.dedup();
            gate.kind == GateKind::Approve && persons.len() < usize::try_from(gate.approvals).unwrap_or(usize::MAX)
        })
    }
}

/// The server of that name.
pub fn server<'c>(config: &'c Config, id: &str) -> Option<&'c ServerConfig> {
    config.servers.iter().find(|server| server.id.as_str() == id).map(AsRef::as_ref)
}

impl Requester {
    /// Whoever made a permitted call, under a mandate that these opened.
    #[must_use]
    pub fn of(permit: &Permit, openers: Vec<Party>) -> Self {
        let caller = permit.caller();
        let principal = caller.principal().0.to_string();
        Self { party: Party::of(caller), principal, token: Some(Token::of(caller)), openers }
    }
}

impl Decision {
    /// As rules look at it.
    #[must_use]
    pub fn decided(&self) -> Decided<'_> {
        Decided {
            user: &self.user,
            groups: &self.groups,
            client_proof: &self.client_proof,
            authenticated_at: self.authenticated_at,
            acr: self.acr.as_deref(),
            at_us: self.at_us,
        }
    }
}

impl Token {
    /// Of somebody who calls, or approves.
    #[must_use]
    pub fn of(caller: &Caller) -> Self {
        let TokenFacts { digest, issuer, subject, client, id, session, issued_at, expires_at, hops, .. } =
            caller.token().clone();
        Self { digest, issuer: issuer.to_string(), subject, client, id, session, issued_at, expires_at, hops }
    }

    /// Of somebody who is named, and whose token nobody has seen: whatever they have was got before then, seconds since
    /// 1970.
    #[must_use]
    pub fn named(issuer: &IssuerAlias, subject: Option<String>, client: Option<String>, at: i64) -> Self {
        Self {
            digest: Digest::sha256(b""),
            issuer: issuer.to_string(),
            subject,
            client,
            id: None,
            session: None,
            issued_at: Some(at),
            expires_at: i64::MAX,
            hops: Vec::new(),
        }
    }

    /// As revocations look at it; nothing where its issuer cannot be spelled.
    #[must_use]
    pub fn facts(&self, for_administrators: bool) -> Option<TokenFacts> {
        Some(TokenFacts {
            digest: self.digest,
            issuer: IssuerAlias::new(&self.issuer).ok()?,
            subject: self.subject.clone(),
            client: self.client.clone(),
            id: self.id.clone(),
            session: self.session.clone(),
            issued_at: self.issued_at,
            expires_at: self.expires_at,
            for_administrators,
            person: Person::Unknown,
            hops: self.hops.clone(),
        })
    }

    /// The API key that it is, by its name.
    #[must_use]
    pub fn key(&self) -> Option<&str> {
        self.client.as_deref().filter(|_| self.issuer == KEYS)
    }

    /// The client that it was got with.
    #[must_use]
    pub fn client(&self) -> Option<&str> {
        self.client.as_deref()
    }
}
