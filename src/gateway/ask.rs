//! Questions about the policy, as people ask them: may this person do that, who may, what may they.
//!
//! Makes a [`Persona`] of what somebody writes, which proves nothing: it can be asked about, and no call can be made
//! with it. Invariant: the answers are the policy's own; nothing is sent anywhere.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::bearer::{Looked, TokenText};
use crate::config::{AgentConfig, AgentKind, AgentState, Config, IssuerConfig};
use crate::identity::{AgentFacts, Behind, ClientProof, Groups, KEYS, Persona};
use crate::ids::{Action, AgentId, IssuerAlias, Subject};
use crate::limit;
use crate::policy::label::Seen;
use crate::policy::{Arguments, Asker, Explanation, GATEWAY_SERVER, Policy, Situation, WhoCan};

/// Who is meant.
#[derive(Debug, Clone, Default)]
pub struct Meant {
    /// The person.
    pub subject: Option<Subject>,
    /// Groups that the token would name.
    pub groups: Vec<Subject>,
    /// The agent that calls; without it, the issuer's `interactive_default`.
    pub agent: Option<String>,
    /// Scopes that the token would have.
    pub scopes: Vec<String>,
    /// How the client would prove itself, where that is not what its entry says.
    pub client_proof: Option<ClientProof>,
    /// Further agents that act, outermost first.
    pub actors: Vec<String>,
}

/// Whether somebody may do something, and why: `POST /explain`.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// What would be done it to: `SERVER/NAME`, in the upstream's own spelling.
    pub object: String,
    /// What would be done.
    #[serde(default = "call")]
    pub action: String,
    /// With which arguments: a JSON object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub arguments: Option<Box<RawValue>>,
    /// When, if not now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub at: Option<Timestamp>,
    /// The person: `user:ISSUER/SUB`.
    #[serde(rename = "as", default, skip_serializing_if = "Option::is_none")]
    pub subject: Option<String>,
    /// Groups: `group:ISSUER/NAME`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<String>,
    /// The agent's id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<String>,
    /// Scopes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scopes: Vec<String>,
    /// How the client would prove itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_proof: Option<String>,
    /// Further agents that act, outermost first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub actors: Vec<String>,
    /// The template of the mandate that it would be part of; an empty one for none. Left out, it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mandate: Option<String>,
    /// The labels that its caller would have seen; empty for none. Left out, it is not known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<Vec<String>>,
    /// The token of whoever would call, instead of who that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub token: Option<TokenText>,
}

/// Who may do something: the answer to `GET /who-can`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhoCanAnswer {
    /// What was asked, as a sentence.
    pub question: String,
    /// Everyone whom the rules name and let do it.
    pub who: Vec<WhoCan>,
}

/// What somebody may do: the answer to `GET /what-can`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WhatCanAnswer {
    /// Who was asked about.
    pub subject: String,
    /// Every rule that speaks about them.
    pub rules: Vec<ToldRule>,
}

/// A rule as programs read it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ToldRule {
    /// `file:line`.
    pub place: String,
    /// `allow` or `deny`.
    pub effect: String,
    /// What it says.
    pub sentence: String,
}

fn call() -> String {
    "call".to_owned()
}

impl Question {
    /// What it is about, for the record: the arguments aside.
    #[must_use]
    pub fn about(&self) -> String {
        let bearer = self.token.as_ref().map(|_| "whoever has that token");
        let who = bearer.or(self.subject.as_deref()).or(self.agent.as_deref()).unwrap_or("nobody");
        format!("{} {} as {who}", self.action, self.object)
    }

    /// The answer under this configuration and policy; `bearer` is what [`Self::bearer`] said.
    ///
    /// # Errors
    /// A lower-case sentence: what cannot be asked like this.
    pub fn answer(
        &self,
        (config, policy): (&Config, &Policy),
        bearer: Option<&Looked>,
        now: Timestamp,
    ) -> Result<Explanation, String> {
        let (server, name) = object(&self.object)?;
        let action = action(&self.action)?;
        let proof = self.client_proof.as_deref().map(client_proof).transpose()?;
        let meant = Meant {
            subject: self.subject.as_deref().map(subject).transpose()?,
            groups: self.groups.iter().map(|group| subject(group)).collect::<Result<_, _>>()?,
            agent: self.agent.clone(),
            scopes: self.scopes.clone(),
            client_proof: proof,
            actors: self.actors.clone(),
        };
        let ask = policy.ask_about(server, name, &action)?;
        let (persona, caller) = match (bearer, &self.token) {
            (Some(Err(refusal)), _) => return Ok(Explanation::of_nobody(&ask, refusal)),
            (Some(Ok(bearer)), _) => (bearer.persona.clone(), Some(Asker::of(bearer))),
            (None, Some(_)) => return Err("nobody has verified the token".to_owned()),
            (None, None) => (meant.persona(config)?, None),
        };
        // The policy knows it by the files, and nobody reaches it.
        if server != GATEWAY_SERVER && !config.servers.iter().any(|known| known.id.as_str() == server) {
            return Ok(Explanation { caller, ..Explanation::of_gone(&ask) });
        }
        let given = match &self.arguments {
            Some(json) if !json.get().trim_start().starts_with('{') => {
                return Err("write arguments as a JSON object".to_owned());
            }
            Some(json) => Arguments::Json(json.get()),
            None => Arguments::of(&action, None),
        };
        let situation = situation(self.mandate.as_deref(), self.seen.as_deref())?;
        let explained = policy.explain_within(&persona, &ask, (given, self.at.unwrap_or(now)), &situation);
        Ok(Explanation { caller, ..explained })
    }
}

/// What would be known of the moment of a call.
fn situation(mandate: Option<&str>, seen: Option<&[String]>) -> Result<Situation, String> {
    let situation = match mandate {
        None => Situation::default(),
        Some("") => Situation::without_mandate(),
        Some(template) => Situation::under(Some(template)),
    };
    let Some(names) = seen else { return Ok(situation) };
    let mut labels = Seen::NOTHING;
    for name in names {
        let named = Seen::named(name);
        labels = labels.with(named.ok_or_else(|| {
            format!("`{name}` is nothing that is seen: write untrusted, internal, private or regulated")
        })?);
    }
    Ok(situation.having_seen(labels))
}

/// Who may do this to that.
///
/// # Errors
/// A lower-case sentence: what cannot be asked like this.
pub fn who_can(policy: &Policy, asked: &str, done: &str) -> Result<WhoCanAnswer, String> {
    let (server, name) = object(asked)?;
    let action = action(done)?;
    let ask = policy.ask_about(server, name, &action)?;
    let question = format!("{} {}/{} in {}", ask.action, ask.server, ask.name, ask.environment);
    Ok(WhoCanAnswer { question, who: policy.who_can(&ask) })
}

/// What somebody may do.
#[must_use]
pub fn what_can(policy: &Policy, subject: &Subject) -> WhatCanAnswer {
    let told = |rule: &&crate::policy::Rule| ToldRule {
        place: rule.place().to_owned(),
        effect: rule.effect().as_str().to_owned(),
        sentence: rule.sentence(),
    };
    WhatCanAnswer { subject: subject.to_string(), rules: policy.what_can(subject).iter().map(told).collect() }
}

/// An object as rules write it, split once: what follows the first slash is the name, slashes and all.
///
/// # Errors
/// How one is written.
pub fn object(text: &str) -> Result<(&str, &str), String> {
    let split = text.split_once('/').filter(|(server, name)| !server.is_empty() && !name.is_empty());
    split.ok_or_else(|| "write SERVER/TOOL, such as notes/add_note".to_owned())
}

/// An action as rules write it.
///
/// # Errors
/// Which there are.
pub fn action(text: &str) -> Result<Action, String> {
    let known = "call, read, get, complete, subscribe, elicit, sample, roots, admin or method:NAME";
    Action::parse(text).ok_or_else(|| format!("use {known}"))
}

/// A subject as rules write it.
///
/// # Errors
/// How one is spelled.
pub fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).map_err(|error| error.to_string())
}

/// How a client proves itself.
///
/// # Errors
/// Which ways there are.
pub fn client_proof(text: &str) -> Result<ClientProof, String> {
    let known = [
        ClientProof::None,
        ClientProof::Public,
        ClientProof::Secret,
        ClientProof::PrivateKey,
        ClientProof::Mtls,
        ClientProof::Svid,
    ];
    let names: Vec<&str> = known.iter().map(|proof| proof.as_str()).collect();
    known.into_iter().find(|proof| proof.as_str() == text).ok_or_else(|| format!("use {}", names.join(", ")))
}

impl Meant {
    /// The persona that a token with these facts would become.
    ///
    /// # Errors
    /// A lower-case sentence: who is missing, unknown here, or may not act.
    pub fn persona(&self, config: &Config) -> Result<Persona, String> {
        let agent = self.agent.as_deref().map(|id| registered(config, id)).transpose()?;
        if let Some(agent) = agent.filter(|_| self.subject.is_none() && self.groups.is_empty())
            && let (true, Some(key)) = (agent.clients.is_empty(), agent.keys.first())
        {
            return self.with_key(config, agent, &key.id);
        }
        let issuer = self.issuer(config, agent)?;
        for group in &self.groups {
            if !group.as_str().starts_with(&format!("group:{}/", issuer.alias)) {
                return Err(format!("{group} is not a group of `{}`, who vouches for the caller", issuer.alias));
            }
        }
        let agent = match (agent, &issuer.interactive_default) {
            (Some(agent), _) => Some(agent),
            (None, Some(id)) if self.subject.is_some() => Some(registered(config, id.as_str())?),
            (None, _) => None,
        };
        if let Some(agent) = agent.filter(|agent| agent.state != AgentState::Active) {
            return Err(format!("agent `{}` is not active, so it is refused before any rule is looked at", agent.id));
        }
        let mut groups = self.groups.clone();
        groups.sort();
        groups.dedup();
        let client = agent.and_then(|agent| agent.clients.iter().find(|client| client.issuer == issuer.alias));
        // As a token would say it: software gets one for itself only after it has proven itself.
        let declared = client.map_or(ClientProof::Public, |client| client.proof.into());
        let proof = if self.subject.is_none() { declared.max(ClientProof::Secret) } else { declared };
        let mut scopes = self.scopes.clone();
        scopes.sort();
        scopes.dedup();
        let agent = agent.map(facts);
        Ok(Persona {
            behind: Behind::told_by(self.subject.as_ref(), agent.as_ref()),
            issuer: issuer.alias.clone(),
            user: self.subject.clone(),
            groups: Groups::Known(groups),
            agent,
            chain: self.chain(config)?,
            default_roles: issuer.default_roles.clone(),
            scopes,
            client: client.map(|client| client.client_id.clone()),
            client_proof: self.client_proof.unwrap_or(proof),
            authenticated_at: None,
            acr: None,
        })
    }

    /// What an agent would be that comes with an API key, and that no issuer knows.
    pub(super) fn with_key(&self, config: &Config, agent: &AgentConfig, key: &str) -> Result<Persona, String> {
        if agent.state != AgentState::Active {
            return Err(format!("agent `{}` is not active, so it is refused before any rule is looked at", agent.id));
        }
        Ok(Persona {
            issuer: IssuerAlias::new(KEYS).map_err(|error| error.to_string())?,
            user: None,
            groups: Groups::Known(Vec::new()),
            agent: Some(facts(agent)),
            chain: self.chain(config)?,
            default_roles: Vec::new(),
            scopes: Vec::new(),
            client: Some(key.to_owned()),
            client_proof: self.client_proof.unwrap_or(ClientProof::Secret),
            authenticated_at: None,
            acr: None,
            behind: Behind::Nobody,
        })
    }

    fn chain(&self, config: &Config) -> Result<Vec<AgentFacts>, String> {
        if self.actors.len() > limit::ACTOR_DEPTH_MAX {
            return Err(format!("a chain has at most {} actors", limit::ACTOR_DEPTH_MAX));
        }
        self.actors.iter().map(|id| registered(config, id).map(facts)).collect()
    }

    fn issuer<'a>(&self, config: &'a Config, agent: Option<&AgentConfig>) -> Result<&'a IssuerConfig, String> {
        let alias = match (&self.subject, agent) {
            (Some(subject), _) => {
                let alias = subject.as_str().strip_prefix("user:").and_then(|rest| rest.split_once('/'));
                alias.map(|(alias, _)| alias.to_owned()).ok_or_else(|| {
                    format!("{subject} cannot call: write --as user:ISSUER/SUB, with --group and --agent beside it")
                })?
            }
            (None, Some(agent)) => {
                let client = agent.clients.first().map(|client| client.issuer.to_string());
                client.ok_or_else(|| {
                    format!("agent `{}` has no client that could call without a person: add --as", agent.id)
                })?
            }
            (None, None) => return Err("nobody is named: write --as user:ISSUER/SUB or --agent ID".to_owned()),
        };
        config.issuers.iter().find(|issuer| issuer.alias.as_str() == alias).map(AsRef::as_ref).ok_or_else(|| {
            let known: Vec<&str> = config.issuers.iter().map(|issuer| issuer.alias.as_str()).collect();
            format!("there is no issuer `{alias}` here: {}", known.join(", "))
        })
    }
}

fn registered<'a>(config: &'a Config, id: &str) -> Result<&'a AgentConfig, String> {
    let found = AgentId::new(id).ok().and_then(|id| config.agents.get(&id));
    found.map(AsRef::as_ref).ok_or_else(|| format!("there is no agent `{id}` in policies/agents.toml"))
}

fn facts(agent: &AgentConfig) -> AgentFacts {
    AgentFacts {
        id: agent.id.clone(),
        environments: agent.environments.clone(),
        autonomous: agent.kind == AgentKind::Autonomous,
    }
}
