//! Mandates in the running gateway: which one a request names, who may open one, how one ends.
//!
//! Decides whom a handle fits. Refuses to know how requests are spelled. Invariants: a handle opens for the one caller
//! whom it was made for and is unknown to everybody else; what is opened, and what is over, is on the record.

mod over;

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Gateway;
use super::ask::Meant;
use crate::delegate::TakenBack;
use crate::guard::approval::Token;
use crate::guard::mandate::{Completion, Held, Opening};
pub use crate::guard::mandate::{Mandate, Wish};
use crate::guard::{Left, Party};
use crate::identity::revoked::RevocationTarget;
use crate::identity::{Caller, KEYS};
use crate::ids::{MandateId, PrincipalKey, Subject};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::mandated::MandateNote;
pub use over::follow_mandates;

/// What handles of mandates are sealed for.
const PURPOSE: &str = "mandate";

/// A mandate that was opened just now.
#[derive(Debug, Clone)]
pub struct Opened {
    /// What it says.
    pub mandate: Mandate,
    /// What its holder sends with each call.
    pub handle: String,
}

/// A mandate as it is told of.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MandateStatus {
    /// What it says.
    pub mandate: Mandate,
    /// `active`, `completed`, `expired` or `revoked`.
    pub state: String,
    /// What is left of its budget.
    #[serde(default)]
    pub left: Left,
    /// Calls that ended under it and those below it, by server.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub calls: Vec<(String, i64)>,
    /// What became of the credentials that were issued for it, where it has just ended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<TakenBack>,
}

/// Who opens a mandate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Opener {
    /// A caller, who can only take a template as it is or narrower.
    Caller,
    /// A person at the administrators' listener, who has just logged in.
    Person,
}

impl Gateway {
    /// The mandate of a request: the one whose handle it brings, or the one that what it goes on with is part of.
    ///
    /// # Errors
    /// `mandate_unknown`, `mandate_ended`, `store_unavailable`.
    pub async fn mandate(
        &self,
        caller: &Caller,
        handle: Option<&str>,
        bound: Option<&MandateId>,
    ) -> Result<Option<Held>, Stop> {
        let named = handle.map(|handle| self.named(caller.principal(), handle)).transpose()?;
        let id = match (&named, bound) {
            (Some(named), Some(bound)) if named != bound => {
                let hint = "what this goes on with is part of another mandate: send its handle, or none";
                return Err(Refusal::new(Reason::MandateUnknown).hint(hint).into());
            }
            (named, bound) => bound.or(named.as_ref()),
        };
        let Some(id) = id else { return Ok(None) };
        let held = self.guard.mandates().find(id, self.revocation_epoch()).await?;
        let held = held.filter(|held| held.mandate().holder == caller.principal().0);
        let held = held.ok_or_else(|| Refusal::new(Reason::MandateUnknown))?;
        self.live.not_revoked(&held)?;
        // Boxed, so that a call without a mandate does not carry its room around.
        if !Box::pin(self.ended_idle(&held)).await? {
            return Ok(Some(held));
        }
        // As it is now: whoever may do something with what is over still may.
        let held = self.guard.mandates().find(id, self.revocation_epoch()).await?;
        held.map(Some).ok_or_else(|| Refusal::new(Reason::MandateUnknown).into())
    }

    /// What the holder of a mandate sends with each call.
    ///
    /// # Errors
    /// When the cipher fails.
    pub fn mandate_handle(&self, holder: PrincipalKey, id: &MandateId) -> Result<String, Failure> {
        let handle = self.sealer.seal(PURPOSE, holder, id.as_str().as_bytes());
        handle.map_err(|error| Failure::before(Reason::Internal, error.to_string()))
    }

    fn named(&self, principal: PrincipalKey, handle: &str) -> Result<MandateId, Refusal> {
        let unknown = || Refusal::new(Reason::MandateUnknown);
        let content = self.sealer.open_within(PURPOSE, principal, handle, limit::MANDATE_HANDLE_BYTES_MAX);
        let id = String::from_utf8(content.ok_or_else(unknown)?).map_err(|_| unknown())?;
        MandateId::new(&id).map_err(|_| unknown())
    }

    /// Whether a mandate under which something is under way still stands.
    ///
    /// # Errors
    /// `mandate_ended`, `store_unavailable`.
    pub async fn still_mandated(&self, held: &Held) -> Result<(), Stop> {
        self.live.not_revoked(held)?;
        let now_us = self.standing.now_us();
        let again = self.guard.mandates().find(&held.mandate().id, self.revocation_epoch()).await?;
        let over = again.as_ref().is_none_or(|held| held.all().any(|mandate| mandate.is_over(now_us)));
        if over { Err(Refusal::new(Reason::MandateEnded).into()) } else { Ok(()) }
    }

    /// Opens a mandate; durable and on the record when it returns.
    ///
    /// # Errors
    /// What the rules say, `mandate_refused`, `mandate_ended`, `store_unavailable`, `record_unavailable`.
    pub async fn open_mandate(
        &self,
        by: &Caller,
        opener: Opener,
        wish: &Wish,
        above: Option<&Held>,
    ) -> Result<Opened, Stop> {
        let now = self.snapshot();
        let refused = |hint: &str| Refusal::new(Reason::MandateRefused).hint(hint.to_owned());
        let template = match &wish.template {
            Some(name) => {
                let known = now.config.templates.get(name);
                // Whoever may not open it does not learn whether it exists.
                now.policy.authorize_mandate(by, name, jiff::Timestamp::now())?;
                Some(known.ok_or_else(|| refused("there is no template of that name"))?)
            }
            None if opener == Opener::Person => None,
            None => return Err(refused("name a template: only a person opens a mandate without one").into()),
        };
        let persona = by.persona();
        let own = persona.agent.as_ref().map(|agent| &agent.id);
        let for_itself = wish.agent.as_ref().is_none_or(|agent| Some(agent) == own);
        let now_us = self.guard.mandates().clock_us().await?;
        let (holder, agent, subject, bearer) = if opener == Opener::Caller && for_itself {
            (by.principal(), own.cloned(), persona.user.as_ref().map(Subject::to_string), Token::of(by))
        } else {
            let meant = Meant {
                subject: wish.subject.as_deref().map(super::ask::subject).transpose().map_err(|hint| refused(&hint))?,
                agent: wish.agent.as_ref().map(ToString::to_string),
                ..Meant::default()
            };
            let agent = wish.agent.as_ref().and_then(|agent| now.config.agents.get(agent));
            let key = agent.filter(|_| wish.subject.is_none()).and_then(|agent| {
                let key = agent.keys.iter().find(|key| wish.client.as_ref() == Some(&key.id))?;
                Some(meant.with_key(&now.config, agent, &key.id))
            });
            let with_key = key.is_some();
            let holder = key.unwrap_or_else(|| meant.persona(&now.config));
            let mut holder = holder.map_err(|hint| refused(&hint))?;
            if let Some(client) = wish.client.as_ref().filter(|_| !with_key) {
                let known = agent.is_some_and(|agent| {
                    agent.clients.iter().any(|known| known.issuer == holder.issuer && known.client_id == *client)
                });
                holder.client = Some(client.clone()).filter(|_| known);
                if !known {
                    return Err(refused("the agent has no such client").into());
                }
            }
            // Software that calls for nobody is its own subject, and most issuers name that like the client (RFC 9068).
            // An API key names nobody but its agent.
            if holder.user.is_none() && holder.issuer.as_str() != KEYS {
                let own = |client: &String| Subject::user(&holder.issuer, client);
                holder.user = holder.client.as_ref().map(own);
            }
            let subject = holder.user.as_ref().map(Subject::to_string);
            let named = holder.user.as_ref().and_then(Subject::claims).map(|(_, claim)| claim);
            let bearer = Token::named(&holder.issuer, named, holder.client.clone(), now_us.div_euclid(1_000_000));
            (holder.principal(), holder.agent.map(|agent| agent.id), subject, bearer)
        };
        let mandate = Opening {
            wish,
            template: template.map(Arc::as_ref),
            above,
            holder: holder.0,
            agent,
            subject,
            opener: actor(by),
            opener_key: (opener == Opener::Caller).then(|| by.principal().0),
            opened_by: Party::of(by),
            bearer,
            opening_agent: own.filter(|_| opener == Opener::Caller).cloned(),
            policy: &now.policy,
            now_us,
        }
        .mandate()?;
        if let Some(above) = above {
            self.live.not_revoked(above)?;
        }
        let handle = self.mandate_handle(holder, &mandate.id)?;
        // A person who opens one has seen nothing here that the agent could be told.
        let labels = match opener {
            Opener::Caller => self.guard.labels().handed_on(&now.policy, by, above, &mandate).await?,
            Opener::Person => None,
        };
        self.guard.mandates().keep(&mandate, above, labels, by.principal().0).await?;
        let note = MandateNote { actor: &mandate.opener, ..noted("opened", &mandate, &[]) };
        self.journal.mandated(&note).await?;
        Ok(Opened { mandate: mandate.as_told(), handle })
    }

    /// Completes a mandate: its calls are cut off, and nothing more is called under it.
    ///
    /// # Errors
    /// `mandate_unknown`, `mandate_ended` where it was over, `store_unavailable`, `record_unavailable`.
    pub async fn complete_mandate(&self, id: &MandateId, by: &str) -> Result<MandateStatus, Stop> {
        self.end_mandate(id, by, "").await
    }

    /// The same, and says why.
    pub(super) async fn end_mandate(&self, id: &MandateId, by: &str, note: &str) -> Result<MandateStatus, Stop> {
        // What a store acknowledges that went back is not kept.
        self.standing.believed()?;
        let known = self.revocation_epoch();
        // What it holds is taken back here, and told of, and not by whoever looks for what is over.
        let _ending = self.guard.mandates().ending(id);
        let epoch = match self.guard.mandates().complete(id, by).await? {
            Completion::Done(epoch) => Some(epoch),
            Completion::Untold => None,
            Completion::Over => {
                let hint = format!("the mandate {id} was over already");
                return Err(Refusal::new(Reason::MandateEnded).hint(hint).into());
            }
            Completion::Unknown => return Err(Refusal::new(Reason::MandateUnknown).into()),
        };
        self.standing.compare(known, epoch.unwrap_or(known))?;
        // In force before it is on the record: what is under way is cut off now.
        self.take_revocations().await?;
        let epoch = epoch.unwrap_or_else(|| self.revocation_epoch());
        let mut status = self.mandate_status(id).await?;
        // With those that other replicas hold: they take them back as soon as they hear of it.
        status.upstreams = self.delegate.take_back(&RevocationTarget::Mandate(id.clone())).await?;
        let told = noted("completed", &status.mandate, &status.calls);
        let note = MandateNote { actor: by, note, epoch: Some(epoch), ..told };
        self.journal.mandated(&note).await?;
        // Whoever could not come to here completes it again, and it goes on from there.
        if let Err(failure) = self.guard.approvals().withdraw_ended(&self.snapshot().written).await {
            tracing::warn!(%failure, mandate = %id, "what waits for approval under it is withdrawn later");
        }
        if let Err(failure) = self.guard.mandates().tell(std::slice::from_ref(id)).await {
            tracing::warn!(%failure, mandate = %id, "that its end is on the record is not remembered");
        }
        Ok(status)
    }

    /// A mandate as it is told of.
    ///
    /// # Errors
    /// `mandate_unknown`, `store_unavailable`.
    pub async fn mandate_status(&self, id: &MandateId) -> Result<MandateStatus, Stop> {
        let held = self.guard.mandates().find(id, self.revocation_epoch()).await?;
        let held = held.ok_or_else(|| Refusal::new(Reason::MandateUnknown))?;
        let mandate = held.mandate();
        let now_us = self.standing.now_us();
        let state = self.state_of(&held, now_us).to_owned();
        let left = self.guard.left(mandate).await?;
        let calls = self.guard.by_server(mandate).await?;
        Ok(MandateStatus { mandate: mandate.as_told(), state, left, calls, upstreams: Vec::new() })
    }

    fn state_of(&self, held: &Held, now_us: i64) -> &'static str {
        if self.live.not_revoked(held).is_err() {
            return "revoked";
        }
        let mut states = held.all().map(|mandate| mandate.state(now_us));
        states.find(|state| *state != "active").unwrap_or("active")
    }

    /// All mandates that are kept, of one holder where one is named; the youngest, if there are more than are listed.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn mandates(&self, holder: Option<PrincipalKey>) -> Result<Vec<MandateStatus>, Failure> {
        let holder = holder.map(|holder| holder.0.to_string());
        let now_us = self.standing.now_us();
        let mut told = Vec::new();
        for mandate in self.guard.mandates().list(holder.as_deref()).await? {
            let mut state = if self.live.is_taken_back(&mandate) { "revoked" } else { mandate.state(now_us) };
            if state == "active" && !mandate.above.is_empty() {
                // It is over with whichever is above it.
                let held = self.guard.mandates().find(&mandate.id, self.revocation_epoch()).await?;
                state = held.map_or("expired", |held| self.state_of(&held, now_us));
            }
            told.push(MandateStatus {
                state: state.to_owned(),
                left: Left::default(),
                calls: Vec::new(),
                upstreams: Vec::new(),
                mandate: mandate.as_told(),
            });
        }
        Ok(told)
    }
}

/// A caller as the record names whoever acts.
fn actor(by: &Caller) -> String {
    let persona = by.persona();
    let agent = || persona.agent.as_ref().map_or_else(|| "anyone".to_owned(), |agent| format!("agent:{}", agent.id));
    persona.user.as_ref().map_or_else(agent, ToString::to_string)
}

pub(super) fn noted<'a>(event: &'static str, mandate: &'a Mandate, calls: &'a [(String, i64)]) -> MandateNote<'a> {
    MandateNote {
        event,
        mandate: mandate.facts(),
        actor: "",
        agent: mandate.agent.as_ref().map(crate::ids::AgentId::as_str),
        subject: mandate.subject.as_deref(),
        ends_at: mandate.ends_us.div_euclid(1_000_000),
        calls,
        note: "",
        epoch: None,
    }
}
