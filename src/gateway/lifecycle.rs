//! What becomes of agents while the gateway runs: suspended, retired, resumed, attested.
//!
//! Decides which agents and servers are stopped beside those that the files stop, and when an attestation is due. Refuses
//! to know who orders it. Invariants: nothing here lets an agent act that the files stop; each step is a row with its
//! actor, on the record, and in force at every replica with the epoch that it raised; moments are the store's.

mod over;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::Gateway;
use crate::config::{AgentState, Config};
use crate::identity::Persona;
use crate::identity::revoked::{RevocationStore as _, Stopped};
use crate::ids::{AgentId, Digest, RevocationEpoch, ServerId, Subject};
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::mandated::LifecycleNote;
use crate::shelf::{Action, Change, Changed, Expect, Row, Section, Shelf, Tell};

pub(super) const STOPPED: Section = Section { name: "stopped", rows_max: limit::STOPPED_MAX };
pub(super) const ATTESTED: Section = Section { name: "attested", rows_max: limit::ATTESTATIONS_MAX };

/// Who the breaker is, as the record names it.
pub const BREAKER: &str = "breaker";

/// That an agent, or its use by one person, is stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Halted {
    /// Suspended, or retired for good.
    pub retired: bool,
    /// For whom, where its name is too long to stand in the row's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// By whom.
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// When, seconds since 1970.
    pub at: i64,
}

/// Who stops what nobody has attested in time and what has expired, as the record names it.
pub const CLOCK: &str = "clock";

/// That somebody said that something is still needed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attestation {
    /// Who; `files` for the first time that the files were read with it.
    pub by: String,
    /// When, seconds since 1970.
    pub at: i64,
    /// Nobody said it again within so many seconds, and that is on the record.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub missed_s: Option<u64>,
}

/// What became of agents and servers, as the store has it.
#[derive(Debug, Clone, Default)]
pub struct Lifecycle {
    /// No change up to this one is missing.
    epoch: RevocationEpoch,
    /// By agent, or by agent and person.
    halted: BTreeMap<String, Halted>,
    /// By kind and name.
    attested: BTreeMap<String, Attestation>,
}

/// What is due of an attestation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Due {
    /// Nothing yet.
    Later,
    /// Its owner is reminded.
    Soon,
    /// It is too late.
    Over,
}

/// What is done to an agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// It may not act for now.
    Suspend,
    /// It may not act any more.
    Retire,
    /// It may act again.
    Resume,
}

impl Lifecycle {
    /// What the store has.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn read(shelf: &dyn Shelf, epoch: RevocationEpoch) -> Result<Self, Failure> {
        Ok(Self { epoch, halted: all(shelf, STOPPED).await?, attested: all(shelf, ATTESTED).await? })
    }

    /// Up to which epoch it is known to be whole.
    #[must_use]
    pub const fn epoch(&self) -> RevocationEpoch {
        self.epoch
    }

    /// Takes the place of what is there, unless that is newer: two may read the store in one order and come here in the
    /// other.
    pub fn keep_newest(self, place: &ArcSwap<Self>) {
        let read = Arc::new(self);
        place.rcu(|there| Arc::clone(if there.epoch > read.epoch { there } else { &read }));
    }

    /// The agents that are stopped as such, and how, and the servers that nobody has attested in time; also those that the
    /// files do not know at the moment, which may come back there.
    #[must_use]
    pub fn stopped(&self, config: &Config, now: Duration) -> Stopped {
        let overdue = self.attested.keys().filter(|key| self.due(key, config.attest_every, now) == Due::Over);
        let mut stopped = Stopped::default();
        for key in overdue {
            match key.split_once('/') {
                Some(("agent", id)) => {
                    stopped.agents.extend(AgentId::new(id).map(|id| (id, AgentState::Suspended)));
                }
                // Where nobody can attest anything, the log says that it is overdue.
                Some(("server", id)) if config.admin.is_some() => stopped.servers.extend(ServerId::new(id)),
                _ => {}
            }
        }
        let now_s = i64::try_from(now.as_secs()).unwrap_or(i64::MAX);
        let expired = config.servers.iter().filter(|server| {
            let is_told = |day| self.attested.contains_key(&over::expired_key(&server_key(&server.id), day));
            server.expires.is_some_and(|day| crate::identity::end_of(day) <= now_s || is_told(day))
        });
        stopped.servers.extend(expired.map(|server| server.id.clone()));
        // An agent whose last day was told to be over does not come back with the clock.
        let back = config.agents.values().filter(|agent| {
            let is_told = |day| self.attested.contains_key(&over::expired_key(&agent_key(&agent.id), day));
            agent.expires.is_some_and(|day| crate::identity::end_of(day) > now_s && is_told(day))
        });
        stopped.agents.extend(back.map(|agent| (agent.id.clone(), AgentState::Suspended)));
        stopped.servers.extend(self.halted.keys().filter_map(|key| server::of_row(key)));
        for (key, halted) in &self.halted {
            // One that is stopped for one person has another name.
            if let Ok(id) = AgentId::new(key) {
                let state = if halted.retired { AgentState::Retired } else { AgentState::Suspended };
                stopped.agents.insert(id, state);
            }
        }
        stopped
    }

    /// Whether somebody may use the agent that they come with.
    ///
    /// # Errors
    /// `agent_inactive`.
    pub fn may_use(&self, persona: &Persona) -> Result<(), Refusal> {
        if self.halted.is_empty() {
            return Ok(());
        }
        uses_none(persona, |agent, user| self.halted.contains_key(&use_key(agent, user)))
    }

    /// How an agent is stopped, if it is.
    #[must_use]
    pub fn halted(&self, agent: &AgentId) -> Option<&Halted> {
        self.halted.get(agent.as_str())
    }

    /// For whom else an agent is stopped.
    pub fn halted_for(&self, agent: &AgentId) -> impl Iterator<Item = (&str, &Halted)> {
        let prefix = format!("{agent}/");
        self.halted.iter().filter_map(move |(key, halted)| {
            let named = key.strip_prefix(&prefix)?;
            Some((halted.subject.as_deref().unwrap_or(named), halted))
        })
    }

    /// Since when an agent is stopped because nobody has attested it, and why; nothing where the files give it more time
    /// since.
    #[must_use]
    pub fn missed(&self, agent: &AgentId, every: Duration) -> Option<(i64, &'static str)> {
        let attested = self.attested.get(&agent_key(agent))?;
        let given_s = attested.missed_s.filter(|given_s| *given_s >= every.as_secs())?;
        let given_s = i64::try_from(given_s).unwrap_or(i64::MAX);
        Some((attested.at.saturating_add(given_s), over::MISSED))
    }

    /// Who said last that something is still needed.
    #[must_use]
    pub fn attested(&self, key: &str) -> Option<&Attestation> {
        self.attested.get(key)
    }

    /// What is due of an attestation; what was never attested is new.
    #[must_use]
    pub fn due(&self, key: &str, every: Duration, now: Duration) -> Due {
        let Some(attested) = self.attested.get(key) else { return Due::Later };
        // What was told to be over stays over, whatever the clock says, unless the files give it more time.
        if attested.missed_s.is_some_and(|missed_s| missed_s >= every.as_secs()) {
            return Due::Over;
        }
        let at = Duration::from_secs(u64::try_from(attested.at).unwrap_or_default());
        let end = at.saturating_add(every);
        if now >= end {
            Due::Over
        } else if now.saturating_add(limit::ATTEST_REMINDED_BEFORE) >= end {
            Due::Soon
        } else {
            Due::Later
        }
    }
}

/// That somebody comes with no agent that is stopped for them.
///
/// # Errors
/// `agent_inactive`.
pub fn uses_none(persona: &Persona, is_stopped: impl Fn(&AgentId, &Subject) -> bool) -> Result<(), Refusal> {
    let Some(user) = &persona.user else { return Ok(()) };
    // Whoever has another agent act for them acts, too.
    let mut agents = persona.agent.iter().chain(&persona.chain);
    match agents.find(|agent| is_stopped(&agent.id, user)) {
        None => Ok(()),
        Some(agent) => Err(Refusal::new(Reason::AgentInactive)
            .hint(format!("the agent `{}` is suspended for you; ask its owner", agent.id))),
    }
}

/// The name of an agent's attestation.
#[must_use]
pub fn agent_key(agent: &AgentId) -> String {
    format!("agent/{agent}")
}

/// The name of a server's attestation.
#[must_use]
pub fn server_key(server: &ServerId) -> String {
    format!("server/{server}")
}

fn use_key(agent: &AgentId, user: &Subject) -> String {
    let key = format!("{agent}/{user}");
    if key.len() <= limit::SHELF_KEY_BYTES_MAX {
        key
    } else {
        format!("{agent}/{}", Digest::sha256(user.as_str().as_bytes()))
    }
}

async fn all<T: serde::de::DeserializeOwned>(
    shelf: &dyn Shelf,
    section: Section,
) -> Result<BTreeMap<String, T>, Failure> {
    let mut found = BTreeMap::new();
    let mut after: Option<String> = None;
    loop {
        let rows = shelf.rows(section, None, after.as_deref()).await?;
        let full = rows.len() >= limit::SHELF_ROWS_READ_MAX;
        for Row { key, body, .. } in rows {
            let read = serde_json::from_str(&body).map_err(|error| {
                Failure::before(Reason::StoreUnavailable, format!("{} {key} cannot be read: {error}", section.name))
            })?;
            after = Some(key.clone());
            found.insert(key, read);
        }
        if !full {
            return Ok(found);
        }
    }
}

impl Gateway {
    /// What became of agents and servers.
    #[must_use]
    pub fn lifecycle(&self) -> Arc<Lifecycle> {
        self.lifecycle.load_full()
    }

    /// Does something to an agent, or to its use by one person; durable, in force and on the record when it returns.
    ///
    /// # Errors
    /// `target_unknown`, `parameters_invalid` where the agent is not in a state for it, `store_unavailable`,
    /// `record_unavailable`.
    pub async fn step(
        &self,
        agent: &AgentId,
        subject: Option<&Subject>,
        step: Step,
        by: &str,
        note: &str,
    ) -> Result<(), Stop> {
        let now = self.snapshot();
        let unknown = || Refusal::new(Reason::TargetUnknown).hint(format!("there is no agent `{agent}`"));
        let known = now.written.agents.get(agent).ok_or_else(unknown)?;
        let key = subject.map_or_else(|| agent.to_string(), |user| use_key(agent, user));
        let invalid = |hint: String| Stop::from(Refusal::new(Reason::ParametersInvalid).hint(hint));
        if step == Step::Retire && subject.is_some() {
            return Err(invalid("an agent is retired for everybody".to_owned()));
        }
        let row = self.store.row(STOPPED, &key).await?;
        let before: Option<Halted> = row.as_ref().and_then(|row| serde_json::from_str(&row.body).ok());
        let expect = row.map_or(Expect::Absent, |row| Expect::Version(row.version));
        let action = match (step, before) {
            (Step::Resume, None) => {
                return Err(invalid(format!("`{key}` is not suspended here; the files may stop it")));
            }
            (Step::Resume, Some(before)) if before.retired => {
                return Err(invalid(format!("`{agent}` is retired for good; register another one")));
            }
            (Step::Suspend, Some(_)) => return Err(invalid(format!("`{key}` is stopped already"))),
            (Step::Resume, Some(_)) => Action::Remove,
            (Step::Suspend | Step::Retire, _) => {
                let at = self.store.now_s().await?;
                let retired = step == Step::Retire;
                let long = subject.map(Subject::to_string).filter(|subject| !key.ends_with(subject.as_str()));
                put(&Halted { retired, subject: long, by: by.to_owned(), note: note.to_owned(), at })?
            }
        };
        let own = Change::new(STOPPED, key, expect, action);
        let mut changes = vec![own.clone()];
        if step != Step::Resume {
            let subject = subject.map(Subject::as_str);
            let about = serde_json::json!({
                "agent": agent.as_str(), "subject": subject, "owner": known.owner, "by": by,
                "state": if step == Step::Retire { "retired" } else { "suspended" },
            });
            let clock_us = self.store.clock_us().await?;
            changes.extend(outbox::told(&now.config.webhooks, outbox::Event::AgentSuspended, &about, clock_us));
        }
        let mut changed = self.store.change(changes, Tell::Everybody).await?;
        if matches!(changed, Changed::Full(index) if index > 0) {
            // Where messages have not been taken for days, it is stopped all the same.
            changed = self.store.change(vec![own], Tell::Everybody).await?;
        }
        let epoch = match changed {
            Changed::Done { epoch, .. } => epoch,
            Changed::Conflict(_) => return Err(invalid("somebody else changed it just now: look again".to_owned())),
            Changed::Full(_) => {
                return Err(Failure::before(Reason::StoreUnavailable, "no more stopped agents fit").into());
            }
        };
        self.take_revocations().await?;
        let event = match step {
            Step::Suspend => "suspended",
            Step::Retire => "retired",
            Step::Resume => "resumed",
        };
        let subject = subject.map(Subject::as_str);
        let owner = known.owner.as_str();
        let told = LifecycleNote { event, kind: "agent", id: agent.as_str(), owner, actor: by, subject, note, epoch };
        tracing::warn!(%agent, subject, owner, by, note, "the agent was {event}");
        self.journal.lived(&told).await?;
        Ok(())
    }

    /// Keeps that somebody said that something is still needed; durable, in force and on the record when it returns.
    ///
    /// # Errors
    /// `store_unavailable`, `record_unavailable`.
    pub async fn attest_owned(&self, key: &str, owner: &str, by: &str) -> Result<(), Stop> {
        let action = put(&Attestation { by: by.to_owned(), at: self.store.now_s().await?, missed_s: None })?;
        let change = Change::new(ATTESTED, key, Expect::Anything, action);
        let Changed::Done { epoch, .. } = self.store.change(vec![change], Tell::Everybody).await? else {
            return Err(Failure::before(Reason::StoreUnavailable, "no more attestations fit").into());
        };
        self.take_revocations().await?;
        let (kind, id) = key.split_once('/').unwrap_or(("agent", key));
        let kind = if kind == "server" { "server" } else { "agent" };
        let told = LifecycleNote { event: "attested", kind, id, owner, actor: by, subject: None, note: "", epoch };
        self.journal.lived(&told).await?;
        Ok(())
    }

    /// Notes what is new in the files, reminds owners, and stops what was not attested in time.
    pub async fn look_after_attestations(&self) {
        self.look_after_emergencies().await;
        if let Err(failure) = self.attestations().await {
            tracing::warn!(%failure, "attestations are looked at later");
        }
    }

    async fn attestations(&self) -> Result<(), Failure> {
        // What a store says is new that went back was attested at another time.
        self.standing.believed()?;
        let (now, at) = (self.snapshot(), self.store.now_s().await?);
        let moment = Duration::from_secs(u64::try_from(at).unwrap_or_default());
        let lifecycle = Lifecycle::read(&self.store, self.store.revocation_epoch().await?).await?;
        let agents = now.written.agents.values().map(|agent| (agent_key(&agent.id), agent.owner.clone()));
        let servers = now.written.servers.iter().map(|server| (server_key(&server.id), server.owner.clone()));
        let known: Vec<(String, String)> = agents.chain(servers).collect();
        for (key, owner) in known {
            match lifecycle.due(&key, now.written.attest_every, moment) {
                Due::Later if lifecycle.attested(&key).is_none() => {
                    let action = put(&Attestation { by: "files".to_owned(), at, missed_s: None })?;
                    // Another replica may have noted it just now.
                    let change = vec![Change::new(ATTESTED, key, Expect::Absent, action)];
                    let _noted_by_somebody = self.store.change(change, Tell::Nobody).await?;
                }
                Due::Later => {}
                Due::Soon => tracing::warn!(%key, owner, "its owner has to attest soon that it is still needed"),
                Due::Over => self.tell_of_missed(&key, &owner, &now.written).await?,
            }
        }
        self.tell_of_expired(&now.written, &lifecycle, at).await?;
        let fresh = Lifecycle::read(&self.store, self.store.revocation_epoch().await?).await?;
        fresh.keep_newest(&self.lifecycle);
        let stopped = self.lifecycle.load().stopped(&now.written, moment);
        if stopped != self.live.revocations.barred().stopped {
            self.take_revocations().await?;
        }
        Ok(())
    }
}

fn put<T: Serialize>(body: &T) -> Result<Action, Failure> {
    let body = serde_json::to_string(body).map_err(|error| Failure::before(Reason::Internal, error.to_string()))?;
    Ok(Action::Put { owner: String::new(), body, expires_at_us: None })
}

#[cfg(test)]
mod tests;
