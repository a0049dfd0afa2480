//! What somebody can do through the gateway, why not, and whom to ask: told to themselves.
//!
//! Decides what of a server they may know of. Invariants: what is shown is what their lists would show; a server of
//! which they see nothing is told of only where a rule about themselves names it or its entry says `discoverable`, and
//! everything else is answered as if it did not exist; no rule about somebody else is told, nor one of an agent: whoever looks chooses which.

use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::lifecycle::{self, Halted};
use super::{Gateway, Snapshot, ask};
use crate::catalog::Slice;
use crate::config::{AgentConfig, AgentKind, AgentState, Config, ListAs, ServerConfig};
use crate::identity::{AgentFacts, Caller, Groups, Persona};
use crate::ids::{Action, AgentId, IssuerAlias, Subject};
use crate::limit;
use crate::link;
use crate::outcome::Reason;
use crate::policy::{Arguments, Ask, Class, Explanation};
use crate::wire::mcp::Kind;

/// What somebody can do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessReport {
    /// The agent that was looked at along with the person; both must be allowed.
    pub agent: Option<String>,
    /// The assistants that could be looked at.
    pub agents: Vec<String>,
    /// The servers that they may know of.
    pub servers: Vec<AccessServer>,
    /// Agents that they answer for and that were stopped since.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub stopped: Vec<AccessStopped>,
}

/// An agent that somebody answers for, and that was stopped.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessStopped {
    /// Which.
    pub agent: String,
    /// For whom, where it is not stopped for everybody.
    pub subject: Option<String>,
    /// For good.
    pub retired: bool,
    /// By whom: a person, `host:UID`, `breaker` or `clock`.
    pub by: String,
    /// Why.
    pub note: String,
    /// When, seconds since 1970.
    pub at: i64,
}

/// One server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessServer {
    /// Its id.
    pub server: String,
    /// What people call it.
    pub title: String,
    /// Who answers for it.
    pub owner: String,
    /// Where its effects land.
    pub environment: String,
    /// Whether they have something there; otherwise they may only know that it exists.
    pub usable: bool,
    /// Whether its list is made for each caller and is not known here.
    pub listed_for_each: bool,
    /// What they see of it.
    pub items: Vec<AccessItem>,
    /// How much more there is.
    pub more: usize,
}

/// One tool, prompt or resource.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AccessItem {
    /// `tool`, `prompt`, `resource` or `template`.
    pub kind: String,
    /// Its name or URI, in the server's spelling.
    pub name: String,
    /// What the server says of it.
    pub description: String,
    /// Why not, where it is not allowed as it stands.
    pub reason: Option<Reason>,
    /// What to do about that.
    pub hint: String,
}

/// Why somebody may or may not do something.
#[derive(Debug, Serialize, Deserialize)]
pub struct AccessAnswer {
    /// Whom to ask.
    pub owner: String,
    /// What is decided for them with their assistant, and what their own rules say of it.
    pub explanation: Explanation,
}

/// Somebody as they would call: with an assistant.
struct Seen<'a> {
    now: &'a Snapshot,
    persona: Persona,
    class: Arc<Class>,
    /// Themselves, without an assistant.
    alone: Arc<Class>,
}

impl Gateway {
    /// What somebody can do, with this agent or the usual one.
    #[must_use]
    pub fn access(&self, caller: &Caller, agent: Option<&AgentId>) -> AccessReport {
        let now = self.snapshot();
        let seen = Seen::new(&now, caller, agent);
        let slices = self.catalog.status();
        let slice = |server: &ServerConfig| {
            let found = slices.iter().find(|(id, ..)| *id == server.id);
            found.and_then(|(_, _, slice)| slice.as_deref())
        };
        let mut left = limit::CONSOLE_ITEMS_SHOWN_MAX;
        let servers = now.config.servers.iter().filter_map(|server| {
            let told = seen.server(server, slice(server), left)?;
            left = left.saturating_sub(told.items.len());
            Some(told)
        });
        let servers = servers.collect();
        let agent = seen.persona.agent.as_ref().map(|agent| agent.id.to_string());
        let stopped = self.stopped_of(&now, &seen.persona);
        AccessReport { agent, agents: assistants(&now.config, &seen.persona.issuer), servers, stopped }
    }

    /// The agents that somebody answers for, themselves or with a group, and that were stopped while the gateway ran.
    fn stopped_of(&self, now: &Snapshot, persona: &Persona) -> Vec<AccessStopped> {
        let lifecycle = self.lifecycle();
        let is_group = |named: &str| match &persona.groups {
            Groups::Known(groups) => groups.iter().any(|group| group.as_str() == named),
            Groups::Unknown(_) => false,
        };
        let answers = |agent: &&Arc<AgentConfig>| {
            persona.user.as_ref().is_some_and(|user| user.as_str() == agent.owner)
                || agent.sponsor_group.as_deref().is_some_and(is_group)
        };
        let mut stopped = Vec::new();
        for agent in now.written.agents.values().filter(answers) {
            let told = |subject: Option<&str>, halted: &Halted| AccessStopped {
                agent: agent.id.to_string(),
                subject: subject.map(str::to_owned),
                retired: halted.retired,
                by: halted.by.clone(),
                note: halted.note.clone(),
                at: halted.at,
            };
            stopped.extend(lifecycle.halted(&agent.id).map(|halted| told(None, halted)));
            stopped.extend(lifecycle.halted_for(&agent.id).map(|(subject, halted)| told(Some(subject), halted)));
            if let Some((at, note)) = lifecycle.missed(&agent.id, now.written.attest_every) {
                let (agent, by, note) = (agent.id.to_string(), lifecycle::CLOCK.to_owned(), note.to_owned());
                stopped.push(AccessStopped { agent, subject: None, retired: false, by, note, at });
            }
        }
        stopped.truncate(limit::CONSOLE_ITEMS_SHOWN_MAX);
        stopped
    }

    /// Why somebody may or may not do something; nothing where they may not know whether it exists.
    #[must_use]
    pub fn access_to(
        &self,
        caller: &Caller,
        agent: Option<&AgentId>,
        object: &str,
        action: &str,
    ) -> Option<AccessAnswer> {
        let now = self.snapshot();
        let (server, name) = ask::object(object).ok()?;
        let action = ask::action(action).ok()?;
        let server = now.config.servers.iter().find(|known| known.id.as_str() == server)?;
        let slices = self.catalog.status();
        let slice = slices.iter().find(|(id, ..)| *id == server.id).and_then(|(_, _, slice)| slice.as_deref());
        let seen = Seen::new(&now, caller, agent);
        seen.server(server, slice, 1)?;
        let ask = Ask { environment: &server.environment, server: &server.id, name, action: &action };
        let mut explanation = now.policy.explain(&seen.persona, &ask, Arguments::of(&action, None), Timestamp::now());
        explanation.near_misses.clear();
        let person = seen.persona.user.as_ref().map(Subject::as_str);
        explanation.subjects.retain(|told| Some(told.subject.as_str()) == person);
        Some(AccessAnswer { owner: server.owner.clone(), explanation })
    }
}

impl<'a> Seen<'a> {
    fn new(now: &'a Snapshot, caller: &Caller, agent: Option<&AgentId>) -> Self {
        let mut persona = caller.persona().clone();
        if persona.agent.is_none() {
            let usual = now.config.issuers.iter().find(|issuer| issuer.alias == persona.issuer);
            let usual = usual.and_then(|issuer| issuer.interactive_default.as_ref());
            // Only one that they could come with: what others may do is none of their business.
            let known = |id: &AgentId| {
                let agent = now.config.agents.get(id);
                agent.filter(|agent| is_assistant(&now.config, &persona.issuer, agent))
            };
            let meant = agent.and_then(known).or_else(|| usual.and_then(known));
            persona.agent = meant.map(|agent| AgentFacts {
                id: agent.id.clone(),
                environments: agent.environments.clone(),
                autonomous: agent.kind == AgentKind::Autonomous,
            });
        }
        let class = now.policy.class(&persona);
        let alone = now.policy.class(&Persona { agent: None, chain: Vec::new(), ..persona.clone() });
        Self { now, persona, class, alone }
    }

    /// What they may know of a server; nothing where they may not know that it exists.
    fn server(&self, server: &ServerConfig, slice: Option<&Slice>, items_max: usize) -> Option<AccessServer> {
        // By their own rules: those of an agent that they chose tell them nothing.
        let is_named = self.now.policy.names(&self.alone, &server.id);
        let mut told = AccessServer {
            server: server.id.to_string(),
            title: server.title.clone().unwrap_or_default(),
            owner: server.owner.clone(),
            environment: server.environment.to_string(),
            usable: is_named && self.now.policy.may_see(&self.class, &server.id),
            listed_for_each: server.list_as == ListAs::Caller,
            items: Vec::new(),
            more: 0,
        };
        for kind in Kind::ALL {
            let action = action_of(kind);
            let items = slice.map_or(&[][..], |slice| slice.list(kind).items.as_slice());
            let asks: Vec<Ask<'_>> = items
                .iter()
                .map(|item| Ask { environment: &server.environment, server: &server.id, name: &item.name, action })
                .collect();
            let visible = self.now.policy.list(&self.class, &asks);
            for ((item, ask), _) in items.iter().zip(&asks).zip(visible).filter(|(_, visible)| *visible) {
                told.usable = true;
                if told.items.len() >= items_max {
                    told.more += 1;
                    continue;
                }
                let decision =
                    self.now.policy.decide(&self.class, &self.persona, ask, Arguments::None, Timestamp::now());
                let description = item.raw.value().as_object().and_then(|object| object.get("description"));
                let description = description.and_then(crate::wire::Value::as_str).unwrap_or_default();
                told.items.push(AccessItem {
                    kind: word(kind).to_owned(),
                    name: item.name.to_string(),
                    description: description.chars().take(limit::CONSOLE_TEXT_CHARACTERS_MAX).collect(),
                    reason: decision.refusal.as_ref().map(|refusal| refusal.reason),
                    hint: decision.refusal.map(|refusal| refusal.hint.into_owned()).unwrap_or_default(),
                });
            }
        }
        // Its list is each caller's own. Everybody who may call the tool that links their account is told of the server.
        let links = Ask {
            environment: &server.environment,
            server: &server.id,
            name: link::tool::NAME,
            action: action_of(Kind::Tool),
        };
        told.usable |= server.has_accounts() && self.now.policy.list(&self.class, &[links]).into_iter().any(|may| may);
        let may_know = told.usable || is_named || server.discoverable;
        may_know.then_some(told)
    }
}

const fn action_of(kind: Kind) -> &'static Action {
    match kind {
        Kind::Tool => &Action::Call,
        Kind::Prompt => &Action::Get,
        Kind::Resource | Kind::ResourceTemplate => &Action::Read,
    }
}

const fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Tool => "tool",
        Kind::Prompt => "prompt",
        Kind::Resource => "resource",
        Kind::ResourceTemplate => "template",
    }
}

/// The assistants that people of an issuer use.
fn assistants(config: &Config, issuer: &IssuerAlias) -> Vec<String> {
    let usable = config.agents.values().filter(|agent| is_assistant(config, issuer, agent));
    usable.map(|agent| agent.id.to_string()).take(limit::CONSOLE_ROWS_SHOWN_MAX).collect()
}

/// Whether people of an issuer come with that agent: an assistant of one of its clients, or the one that it takes
/// unregistered ones for.
fn is_assistant(config: &Config, issuer: &IssuerAlias, agent: &AgentConfig) -> bool {
    let usual = config.issuers.iter().find(|known| known.alias == *issuer);
    let is_usual = usual.is_some_and(|issuer| issuer.interactive_default.as_ref() == Some(&agent.id));
    agent.state == AgentState::Active
        && agent.kind == AgentKind::Interactive
        && (is_usual || agent.clients.iter().any(|client| client.issuer == *issuer))
}
