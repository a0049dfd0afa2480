//! Which registered agent a client is, and which agents stand in a delegation chain (RFC 8693 `act`).
//!
//! Decides who acts. Refuses to know what an agent may do. Invariant: every agent that is answered is
//! registered, listed for the issuer that named it, active and not expired.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::caller::Hop;
use super::persona::AgentFacts;
use super::proposed::Sightings;
use super::standing::{KnownAs, Rests};
use crate::config::{AdminClient, AgentConfig, AgentKind, AgentState, Config, DeclaredProof, IssuerConfig, KnownBy};
use crate::ids::{AgentId, IssuerAlias};
use crate::inversion::{self, Control};
use crate::limit;
use crate::outcome::{Reason, Refusal};

/// The agents of `agents.toml`, by how they are recognised.
#[derive(Debug, Clone, Default)]
pub(super) struct AgentIndex {
    known: Arc<Known>,
    /// Who hears of those that nobody registered; nobody, where a token is only asked about.
    sightings: Option<Arc<Sightings>>,
}

#[derive(Debug, Default)]
struct Known {
    by_name: HashMap<IssuerAlias, HashMap<(KnownBy, String), Arc<AgentConfig>>>,
    by_id: HashMap<AgentId, Arc<AgentConfig>>,
    /// Alias by the exact `iss`.
    issuers: HashMap<String, IssuerAlias>,
    /// With which clients people administer the gateway.
    administrators: Vec<AdminClient>,
}

/// Who acts: the agent that calls, further actors outermost first, and until when all of them may.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Actors {
    /// None for a person with an administrators' client.
    pub agent: Option<AgentFacts>,
    pub chain: Vec<AgentFacts>,
    /// The same as the token names them, the outermost among them.
    pub hops: Vec<Hop>,
    /// What the files say of the client's proof.
    pub declared_proof: DeclaredProof,
    /// What the files have to go on saying.
    pub rests: Rests,
    /// The first moment (seconds since 1970) at which one of them will have expired.
    pub until: i64,
}

/// One level of `act`; the next one stays text, so that depth costs no stack.
#[derive(Deserialize)]
struct Act<'a> {
    sub: Option<String>,
    iss: Option<String>,
    #[serde(borrow)]
    act: Option<&'a RawValue>,
}

impl Actors {
    /// Nobody but the person.
    pub const fn nobody() -> Self {
        Self {
            agent: None,
            chain: Vec::new(),
            hops: Vec::new(),
            declared_proof: DeclaredProof::Public,
            rests: Rests::none(),
            until: i64::MAX,
        }
    }
}

impl AgentIndex {
    /// Indexes the agents of a configuration.
    pub fn new(config: &Config, sightings: Arc<Sightings>) -> Self {
        let mut index = Known::default();
        for (id, agent) in &config.agents {
            index.by_id.insert(id.clone(), Arc::clone(agent));
            for client in &agent.clients {
                let own = index.by_name.entry(client.issuer.clone()).or_default();
                own.insert((client.known_by, client.client_id.clone()), Arc::clone(agent));
            }
        }
        for issuer in &config.issuers {
            index.issuers.insert(issuer.issuer.clone(), issuer.alias.clone());
        }
        index.administrators = config.admin.as_ref().map(|admin| admin.clients.clone()).unwrap_or_default();
        Self { known: Arc::new(index), sightings: Some(sightings) }
    }

    /// The same, and nobody hears of those that nobody registered.
    pub fn quiet(&self) -> Self {
        Self { sightings: None, ..self.clone() }
    }

    fn named(&self, issuer: &IssuerAlias, known_by: KnownBy, name: &str) -> Option<&Arc<AgentConfig>> {
        self.known.by_name.get(issuer)?.get(&(known_by, name.to_owned()))
    }

    /// Whether the subject of a token is software that an entry names, rather than somebody whom software serves.
    ///
    /// # Errors
    /// Where the token's client is another agent: nobody can tell which of the two calls.
    pub fn knows_subject(&self, issuer: &IssuerConfig, client: Option<&str>, subject: &str) -> Result<bool, Refusal> {
        let Some(meant) = self.named(&issuer.alias, KnownBy::Subject, subject) else { return Ok(false) };
        match client.and_then(|client| self.named(&issuer.alias, KnownBy::Client, client)) {
            Some(other) if other.id != meant.id => Err(Refusal::new(Reason::AgentUnknown).hint(format!(
                "the client is the agent `{}` and the subject is the agent `{}`; ask an administrator which one it is",
                other.id, meant.id
            ))),
            _ => Ok(true),
        }
    }

    /// Whether people administer the gateway with this client.
    pub fn is_administrators(&self, issuer: &IssuerConfig, client: Option<&str>) -> bool {
        self.known.administrators.iter().any(|known| known.is(&issuer.alias, client))
    }

    /// Who acts with a token of that issuer; `now` in seconds since 1970.
    pub fn actors(
        &self,
        issuer: &IssuerConfig,
        client: Option<&str>,
        human: Option<&str>,
        subject: &str,
        act: Option<&str>,
        now: i64,
    ) -> Result<Actors, Refusal> {
        let by_client = client.and_then(|client| Some((self.named(&issuer.alias, KnownBy::Client, client)?, client)));
        let by_subject = || self.named(&issuer.alias, KnownBy::Subject, subject).filter(|_| human.is_none());
        let mut rests = Rests::default();
        let registered = match by_client {
            Some((agent, client)) => {
                rests.named.push(KnownAs::new(agent, &issuer.alias, KnownBy::Client, client));
                Some(agent)
            }
            None => {
                rests.unregistered = client.map(str::to_owned);
                let agent = by_subject();
                rests.named.extend(agent.map(|agent| KnownAs::new(agent, &issuer.alias, KnownBy::Subject, subject)));
                rests.by_default = agent.is_none();
                agent
            }
        };
        let agent = match (registered, human, &issuer.interactive_default) {
            (Some(agent), _, _) => agent,
            // A person's unregistered assistant gets the ceiling that the issuer's entry names.
            (None, Some(_), Some(default)) => {
                if let (Some(client), Some(sightings)) = (client, &self.sightings) {
                    sightings.note_let_in(&issuer.alias, client);
                }
                self.known.by_id.get(default).ok_or_else(|| Refusal::new(Reason::AgentUnknown))?
            }
            (None, _, Some(default)) if inversion::is_off(Control::RegisteredAgent) => {
                self.known.by_id.get(default).ok_or_else(|| Refusal::new(Reason::AgentUnknown))?
            }
            (None, _, _) => {
                if let Some(sightings) = &self.sightings {
                    sightings.note(&issuer.alias, client, subject, human.is_some());
                }
                let (what, name) = client.map_or(("subject", subject), |client| ("client", client));
                let name: String = name.chars().take(limit::HOST_SHOWN_CHARACTERS_MAX).collect();
                return Err(Refusal::new(Reason::AgentUnknown).hint(format!(
                    "the {what} `{name}` is not registered; ask an administrator to add it to policies/agents.toml"
                )));
            }
        };
        let mut until = active(agent, now)?;
        let (mut chain, mut hops) = (Vec::new(), Vec::new());
        for (position, (actor, known_as, hop)) in self.chain(issuer, subject, act)?.into_iter().enumerate() {
            rests.named.push(known_as);
            hops.push(hop);
            until = until.min(active(actor, now)?);
            // The outermost actor is usually the client itself: one hop, not two.
            if position > 0 || actor.id != agent.id {
                chain.push(facts(actor));
            }
        }
        let declared_proof = declared(agent, &issuer.alias, client, Some(subject));
        Ok(Actors { agent: Some(facts(agent)), chain, hops, declared_proof, rests, until })
    }

    fn chain(&self, issuer: &IssuerConfig, subject: &str, act: Option<&str>) -> Result<Vec<Actor<'_>>, Refusal> {
        let mut seen = vec![Hop { issuer: issuer.alias.clone(), name: subject.to_owned() }];
        let mut actors = Vec::new();
        let mut next = act;
        while let Some(text) = next {
            let level: Act<'_> = serde_json::from_str(text).map_err(|_| refused("an `act` claim is not an actor"))?;
            if actors.len() >= limit::ACTOR_DEPTH_MAX {
                return Err(refused("the delegation chain is too deep"));
            }
            let name = level.sub.filter(|name| !name.is_empty()).ok_or_else(|| refused("an actor has no `sub`"))?;
            let vouched = match level.iss {
                None => issuer.alias.clone(),
                Some(iss) => {
                    let known = self.known.issuers.get(&iss);
                    known.cloned().ok_or_else(|| refused("an actor's `iss` is not a configured issuer"))?
                }
            };
            let hop = Hop { issuer: vouched, name };
            if seen.contains(&hop) {
                return Err(refused("the delegation chain loops"));
            }
            let (actor, known_by) = [KnownBy::Client, KnownBy::Subject]
                .into_iter()
                .find_map(|known_by| Some((self.named(&hop.issuer, known_by, &hop.name)?, known_by)))
                .ok_or_else(|| refused("an actor is not a registered agent"))?;
            // An issuer can name only agents that list it, whoever the agent's own issuer is.
            if !actor.clients.iter().any(|client| client.issuer == issuer.alias) {
                return Err(refused("an actor's entry does not list the issuer that names it"));
            }
            actors.push((actor, KnownAs::new(actor, &hop.issuer, known_by, &hop.name), hop.clone()));
            seen.push(hop);
            next = level.act.map(RawValue::get);
        }
        Ok(actors)
    }
}

/// One actor of a delegation chain: its entry, how it was found, and the name that it was given.
type Actor<'a> = (&'a Arc<AgentConfig>, KnownAs, Hop);

/// Whether the agent may act now; answers until when (seconds since 1970).
pub(super) fn active(agent: &AgentConfig, now: i64) -> Result<i64, Refusal> {
    if inversion::is_off(Control::Lifecycle) {
        return Ok(i64::MAX);
    }
    let inactive = |what: &str| {
        Err(Refusal::new(Reason::AgentInactive).hint(format!("the agent `{}` {what}; ask its owner", agent.id)))
    };
    match agent.state {
        AgentState::Active => {}
        AgentState::Proposed => return inactive("has not been accepted yet"),
        AgentState::Suspended => return inactive("is suspended"),
        AgentState::Retired => return inactive("is retired"),
        AgentState::Revoked => return Err(Refusal::new(Reason::Revoked)),
    }
    let Some(last_day) = agent.expires else { return Ok(i64::MAX) };
    let end = end_of(last_day);
    if now >= end { inactive("has expired") } else { Ok(end) }
}

/// The end of a day in UTC, seconds since 1970. A day whose end cannot be computed counts as past.
pub fn end_of(day: jiff::civil::Date) -> i64 {
    day.tomorrow()
        .and_then(|day| jiff::tz::TimeZone::UTC.to_timestamp(day.to_datetime(jiff::civil::Time::midnight())))
        .map_or(i64::MIN, |moment| moment.as_second())
}

/// Whether the agent may act now.
pub(super) fn may_act(agent: &AgentConfig, now: i64) -> Result<(), Refusal> {
    active(agent, now).map(|_| ())
}

/// What an agent's entry says that its issuer demands of a client before it gives it a token.
pub(super) fn declared(
    agent: &AgentConfig,
    issuer: &IssuerAlias,
    client: Option<&str>,
    subject: Option<&str>,
) -> DeclaredProof {
    let entry = agent.clients.iter().find(|known| {
        let name = match known.known_by {
            KnownBy::Client => client,
            KnownBy::Subject => subject,
        };
        known.issuer == *issuer && name == Some(known.client_id.as_str())
    });
    entry.map(|known| known.proof).unwrap_or_default()
}

pub(super) fn facts(agent: &AgentConfig) -> AgentFacts {
    AgentFacts {
        id: agent.id.clone(),
        environments: agent.environments.clone(),
        autonomous: agent.kind == AgentKind::Autonomous,
    }
}

fn refused(hint: &'static str) -> Refusal {
    Refusal::new(Reason::ChainRefused).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::fixture::{agent, config, issuer_config};

    const NOW: i64 = 1_800_000_000;

    fn actors(client: Option<&str>, human: Option<&str>, act: Option<&str>) -> Result<Actors, Reason> {
        let index = AgentIndex::new(&config(), Arc::default());
        let subject = human.or(client).unwrap_or("nobody");
        index.actors(&issuer_config(), client, human, subject, act, NOW).map_err(|refusal| refusal.reason)
    }

    fn names(actors: &Actors) -> (String, Vec<String>) {
        (
            actors.agent.as_ref().map(|agent| agent.id.to_string()).unwrap_or_default(),
            actors.chain.iter().map(|agent| agent.id.to_string()).collect(),
        )
    }

    #[test]
    fn a_registered_client_is_its_agent_and_a_persons_other_client_is_the_default() {
        assert_eq!(names(&actors(Some("desk-client"), Some("alice"), None).unwrap()).0, "desk");
        assert_eq!(names(&actors(Some("whatever"), Some("alice"), None).unwrap()).0, "assistant");
        assert_eq!(names(&actors(None, Some("alice"), None).unwrap()).0, "assistant");
        assert_eq!(actors(Some("whatever"), None, None).unwrap_err(), Reason::AgentUnknown);
        assert_eq!(actors(None, None, None).unwrap_err(), Reason::AgentUnknown);
    }

    #[test]
    fn without_a_default_an_unregistered_client_is_unknown() {
        let mut issuer = issuer_config();
        issuer.interactive_default = None;
        let refusal =
            AgentIndex::new(&config(), Arc::default()).actors(&issuer, Some("x"), Some("alice"), "alice", None, NOW);
        assert_eq!(refusal.unwrap_err().reason, Reason::AgentUnknown);
    }

    #[test]
    fn an_agent_that_may_not_act_is_refused_in_each_state() {
        for client in ["suspended-client", "retired-client", "proposed-client", "expired-client"] {
            assert_eq!(actors(Some(client), Some("alice"), None).unwrap_err(), Reason::AgentInactive, "{client}");
        }
    }

    #[test]
    fn an_agent_acts_to_the_end_of_its_last_day() {
        let mut agent = agent("a", "a-client");
        agent.expires = Some(jiff::civil::date(2027, 1, 15));
        let midnight = 1_800_057_600; // 2027-01-16T00:00:00Z
        assert_eq!(active(&agent, midnight - 1).unwrap(), midnight);
        assert_eq!(active(&agent, midnight).unwrap_err().reason, Reason::AgentInactive);
    }

    #[test]
    fn each_hop_of_a_chain_is_a_registered_agent_outermost_first() {
        let act = r#"{"sub":"bot-client","act":{"sub":"desk-client"}}"#;
        assert_eq!(
            names(&actors(Some("bot-client"), Some("alice"), Some(act)).unwrap()),
            ("bot".into(), vec!["desk".into()])
        );
        let other = actors(Some("desk-client"), Some("alice"), Some(r#"{"sub":"bot-client"}"#)).unwrap();
        assert_eq!(names(&other), ("desk".into(), vec!["bot".into()]));
        let named = r#"{"sub":"bot-client","iss":"https://idp.example"}"#;
        assert!(actors(Some("bot-client"), Some("alice"), Some(named)).is_ok());
    }

    #[test]
    fn a_chain_that_is_deep_loops_or_names_a_stranger_is_refused() {
        let deep = r#"{"sub":"h1","act":{"sub":"h2","act":{"sub":"h3","act":{"sub":"h4","act":{"sub":"h5"}}}}}"#;
        let four = r#"{"sub":"h1","act":{"sub":"h2","act":{"sub":"h3","act":{"sub":"h4"}}}}"#;
        assert!(actors(Some("desk-client"), Some("alice"), Some(four)).is_ok());
        for bad in [
            deep,
            r#"{"sub":"bot-client","act":{"sub":"bot-client"}}"#,
            r#"{"sub":"bot-client","act":{"sub":"bot-client","iss":"https://idp.example"}}"#,
            r#"{"sub":"alice"}"#,
            r#"{"sub":"stranger"}"#,
            r#"{"sub":"bot-client","iss":"https://evil.example"}"#,
            r#"{"sub":"bot-client","iss":"https://other.example"}"#,
            r#"{"sub":""}"#,
            r#"{"client_id":"bot-client"}"#,
            r#"{"sub":"bot-client","sub":"desk-client"}"#,
            r#""bot-client""#,
            "[]",
        ] {
            assert_eq!(
                actors(Some("desk-client"), Some("alice"), Some(bad)).unwrap_err(),
                Reason::ChainRefused,
                "{bad}"
            );
        }
        let suspended = actors(Some("desk-client"), Some("alice"), Some(r#"{"sub":"suspended-client"}"#));
        assert_eq!(suspended.unwrap_err(), Reason::AgentInactive);
    }

    #[test]
    fn an_issuer_names_only_agents_that_list_it() {
        // `foreign` is known at the other issuer only; ours names it with that issuer's `iss`.
        let act = r#"{"sub":"foreign-client","iss":"https://other.example"}"#;
        assert_eq!(actors(Some("desk-client"), Some("alice"), Some(act)).unwrap_err(), Reason::ChainRefused);
    }

    #[test]
    fn a_thousand_nested_actors_cost_no_stack() {
        let nested =
            (0..1_000).fold(r#"{"sub":"x"}"#.to_owned(), |inner, n| format!("{{\"sub\":\"n{n}\",\"act\":{inner}}}"));
        assert_eq!(actors(Some("desk-client"), Some("alice"), Some(&nested)).unwrap_err(), Reason::ChainRefused);
    }

    #[test]
    fn a_chain_has_at_most_so_many_actors() {
        let chain = |depth: usize| {
            let act = (1..=depth).rev().fold(String::new(), |inner, hop| {
                let rest = if inner.is_empty() { inner } else { format!(",\"act\":{inner}") };
                format!("{{\"sub\":\"h{hop}\"{rest}}}")
            });
            actors(Some("desk-client"), Some("alice"), Some(&act))
        };
        assert_eq!(chain(limit::ACTOR_DEPTH_MAX).unwrap().chain.len(), limit::ACTOR_DEPTH_MAX);
        assert_eq!(chain(limit::ACTOR_DEPTH_MAX + 1).unwrap_err(), Reason::ChainRefused);
    }
}
