//! Reads `policies/agents.toml`: which software may act, who answers for it, how it is recognised.

use std::collections::HashMap;
use std::time::Duration;

use serde::Deserialize;
use toml::Spanned;

use super::api_key;
use crate::config::keys;
use crate::config::leaf::{Count, Day, Period};
use crate::config::mistake::Name;
use crate::config::reader::Table;
use crate::config::{
    AgentBudget, AgentClient, AgentConfig, AgentKind, AgentState, BreakerConfig, DeclaredProof, KnownBy, MandateNeed,
};
use crate::ids::{AgentId, Environment, IssuerAlias, Subject};
use crate::limit;

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Kind {
    Interactive,
    Autonomous,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum State {
    Proposed,
    Active,
    Suspended,
    Retired,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Proof {
    Public,
    Secret,
    PrivateKey,
    Mtls,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum Mandates {
    Required,
    Optional,
}

/// What is one agent's already.
#[derive(Default)]
struct Taken {
    clients: HashMap<(IssuerAlias, KnownBy, String), AgentId>,
    keys: api_key::Taken,
}

/// What the file says.
pub struct Agents {
    /// Every agent, where the file could be read; a `None` in it was reported.
    pub agents: Option<Vec<(AgentId, Option<AgentConfig>)>>,
    /// How often owners say that what they answer for is still needed.
    pub attest_every: Duration,
    /// When an agent is suspended without anybody asking for it.
    pub breaker: BreakerConfig,
}

impl Default for Agents {
    fn default() -> Self {
        Self { agents: Some(Vec::new()), attest_every: limit::ATTEST_EVERY, breaker: BreakerConfig::default() }
    }
}

/// Reads the whole file.
pub fn read_all(mut top: Table<'_, '_>, today: jiff::civil::Date) -> Agents {
    let attest_every = top.get::<Period>("attest_every").map_or(limit::ATTEST_EVERY, |period| period.0);
    let breaker = top.table("breaker", &keys::BREAKER).and_then(read_breaker).unwrap_or_default();
    let place = top.place("agents");
    let tables = top.named_tables("agents", &keys::AGENT, |text| AgentId::new(text).map_err(|error| error.to_string()));
    if tables.len() > limit::AGENTS_MAX {
        top.mistake(&place, format!("{} agents are too many: at most {}", tables.len(), limit::AGENTS_MAX));
    }
    let mut taken = Taken::default();
    let agents = tables.into_iter().map(|(id, table)| (id.clone(), read(table, id, today, &mut taken))).collect();
    Agents { agents: Some(agents), attest_every, breaker }
}

fn read_breaker(mut table: Table<'_, '_>) -> Option<BreakerConfig> {
    let within = table.get::<Period>("new_tools_within");
    let learning = table.get::<Period>("learning");
    let tool_pause = table.get::<Period>("tool_pause");
    let mut count = |key: &str, most: u32| {
        let written = table.at::<Count>(key)?;
        let count = written.get_ref().0;
        if count > most {
            table.mistake(&written.span(), format!("{count} is out of range: write 1 to {most}"));
        }
        Some(count)
    };
    let (events, hundred) = (limit::BREAKER_EVENTS_MAX, 100);
    let denials_per_minute = count("denials_per_minute", events);
    let new_tools = count("new_tools", events);
    let errors = (count("errors_percent", hundred), count("errors_of", events));
    let mandate_denials_per_minute = count("mandate_denials_per_minute", events);
    let mandate_errors = (count("mandate_errors_percent", hundred), count("mandate_errors_of", events));
    let tool_errors = (count("tool_errors_percent", hundred), count("tool_errors_of", events));
    Some(BreakerConfig {
        denials_per_minute: denials_per_minute?,
        new_tools: new_tools?,
        new_tools_within: within?.0,
        learning: learning?.0,
        errors_percent: errors.0?,
        errors_of: errors.1?,
        mandate_denials_per_minute: mandate_denials_per_minute?,
        mandate_errors_percent: mandate_errors.0?,
        mandate_errors_of: mandate_errors.1?,
        tool_errors_percent: tool_errors.0?,
        tool_errors_of: tool_errors.1?,
        tool_pause: tool_pause?.0,
    })
}

fn read(mut table: Table<'_, '_>, id: AgentId, today: jiff::civil::Date, taken: &mut Taken) -> Option<AgentConfig> {
    let owner = subject(&mut table, "owner", &["user:"]);
    let owner_person = person(&mut table);
    let sponsor_group = subject(&mut table, "sponsor_group", &["group:"]);
    let purpose = table.at::<String>("purpose");
    let kind = table.get::<Kind>("kind");
    let environments = table.at::<Vec<Spanned<Environment>>>("environments");
    let clients = read_clients(&mut table, &id, kind.as_ref(), taken);
    let keys = api_key::read_all(&mut table, &id, today, &mut taken.keys);
    let state = table.get::<State>("state");
    let expires = table.at::<Day>("expires");
    let review = table.at::<Day>("review");
    let mandates = table.get::<Mandates>("mandates").map(|written| match written {
        Mandates::Required => MandateNeed::Required,
        Mandates::Optional => MandateNeed::Optional,
    });
    let budget = table.table("budget", &keys::AGENT_BUDGET).map(|mut written| budget(&mut written)).unwrap_or_default();
    if let Some(purpose) = purpose.as_ref().filter(|purpose| purpose.get_ref().trim().is_empty()) {
        table.mistake(&purpose.span(), "an agent has a purpose: say in one line what it is for");
    }
    if let Some(expires) = expires.as_ref().filter(|expires| expires.get_ref().0 < today) {
        table.source.warning(&expires.span(), format!("agent `{id}` has expired and may not act"));
    }
    if let Some(review) = review.as_ref().filter(|review| review.get_ref().0 < today) {
        table.source.warning(&review.span(), format!("the review of agent `{id}` is overdue"));
    }
    let environments = environments?;
    if environments.get_ref().is_empty() {
        table.mistake(&environments.span(), "an agent without environments may do nothing: name one");
    }
    for environment in environments.get_ref() {
        table.source.refers(environment.span(), Name::Environment(environment.get_ref().clone()));
    }
    Some(AgentConfig {
        owner: owner?,
        owner_person,
        sponsor_group,
        purpose: purpose?.into_inner(),
        kind: match kind? {
            Kind::Interactive => AgentKind::Interactive,
            Kind::Autonomous => AgentKind::Autonomous,
        },
        environments: environments.into_inner().into_iter().map(Spanned::into_inner).collect(),
        clients: clients?,
        keys: keys?,
        state: match state? {
            State::Proposed => AgentState::Proposed,
            State::Active => AgentState::Active,
            State::Suspended => AgentState::Suspended,
            State::Retired => AgentState::Retired,
        },
        expires: expires.map(|day| day.into_inner().0),
        review: review.map(|day| day.into_inner().0),
        mandates,
        budget,
        id,
    })
}

/// How many calls fit into a minute and a day.
pub fn budget(written: &mut Table<'_, '_>) -> AgentBudget {
    AgentBudget {
        calls_per_minute: written.get::<Count>("calls_per_minute").map(|count| count.0),
        calls_per_day: written.get::<Count>("calls_per_day").map(|count| count.0),
    }
}

/// Which human an owner is, in the words of their issuer's `person` claim.
pub fn person(table: &mut Table<'_, '_>) -> Option<String> {
    let person = table.at::<String>("owner_person")?;
    if person.get_ref().trim().is_empty() || person.get_ref().len() > limit::PERSON_BYTES_MAX {
        let message =
            "this is nobody's name: write what the issuer's `person` claim says of the owner, or leave it out";
        table.mistake(&person.span(), message);
    }
    Some(person.into_inner())
}

fn read_clients(
    table: &mut Table<'_, '_>,
    id: &AgentId,
    kind: Option<&Kind>,
    taken: &mut Taken,
) -> Option<Vec<AgentClient>> {
    let mut clients = Vec::new();
    for mut entry in table.tables("clients", &keys::AGENT_CLIENT) {
        let issuer = entry.at::<IssuerAlias>("issuer");
        let name = read_name(&mut entry, kind);
        let proof = entry.get::<Proof>("proof");
        let (issuer, (known_by, client_id)) = (issuer?, name?);
        entry.source.refers(issuer.span(), Name::Issuer(issuer.get_ref().clone()));
        let proof = match proof? {
            Proof::Public => DeclaredProof::Public,
            Proof::Secret => DeclaredProof::Secret,
            Proof::PrivateKey => DeclaredProof::PrivateKey,
            Proof::Mtls => DeclaredProof::Mtls,
        };
        let client =
            AgentClient { issuer: issuer.into_inner(), known_by, client_id: client_id.get_ref().clone(), proof };
        if client.client_id.is_empty() {
            entry.mistake(&client_id.span(), "a client id is not empty: write the one that the issuer gave it");
        }
        let name = (client.issuer.clone(), known_by, client.client_id.clone());
        if let Some(other) = taken.clients.insert(name, id.clone()) {
            let what = match known_by {
                KnownBy::Client => "client",
                KnownBy::Subject => "subject",
            };
            let message = format!(
                "{what} `{client_id}` of `{}` is agent `{other}` already: a {what} is one agent",
                client.issuer
            );
            entry.mistake(&client_id.span(), message);
        }
        clients.push(client);
    }
    Some(clients)
}

/// By which name an entry recognises the agent: one, and not two.
fn read_name(entry: &mut Table<'_, '_>, kind: Option<&Kind>) -> Option<(KnownBy, Spanned<String>)> {
    let (client_id, subject) = (entry.at::<String>("client_id"), entry.at::<String>("subject"));
    match (client_id, subject) {
        (Some(client_id), None) => Some((KnownBy::Client, client_id)),
        (None, Some(subject)) => {
            if matches!(kind, Some(Kind::Interactive)) {
                let message =
                    "a subject that is software acts on its own: write kind = \"autonomous\", or its client_id";
                entry.mistake(&subject.span(), message);
            }
            Some((KnownBy::Subject, subject))
        }
        (Some(_), Some(subject)) => {
            entry.mistake(
                &subject.span(),
                "an agent is known by one name: keep client_id or subject, or write two entries",
            );
            None
        }
        (None, None) => {
            let message = "nothing tells by what the agent is known: write client_id = \"...\"; or subject = \"...\" where \
                           its tokens name no client, such as \"system:serviceaccount:NAMESPACE:NAME\"";
            entry.mistake(&entry.span, message);
            None
        }
    }
}

/// Reads a key that names a person or a group, as rules spell them.
pub fn subject(table: &mut Table<'_, '_>, key: &str, kinds: &[&str]) -> Option<String> {
    let text = table.at::<String>(key)?;
    let read = Subject::canonical(text.get_ref());
    let Some(read) = read.ok().filter(|read| kinds.iter().any(|kind| read.as_str().starts_with(kind))) else {
        let examples: Vec<String> = kinds.iter().map(|kind| format!("{kind}ISSUER/NAME")).collect();
        table.mistake(&text.span(), format!("`{text}` answers for nothing: write {}", examples.join(" or ")));
        return None;
    };
    // What is taken back from whoever left would not reach what another spelling of them answers for.
    if read.as_str() != text.get_ref() {
        table.mistake(&text.span(), format!("the gateway spells `{text}` differently: write {read}"));
        return None;
    }
    let alias = text.get_ref().split_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(alias, _)| alias);
    if let Some(alias) = alias.and_then(|alias| IssuerAlias::new(alias).ok()) {
        table.source.refers(text.span(), Name::Issuer(alias));
    }
    Some(text.into_inner())
}
