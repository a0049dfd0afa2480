//! Reads `policies/agents.toml`: which software may act, who answers for it, how it is recognised.

use std::collections::HashMap;

use serde::Deserialize;
use toml::Spanned;

use super::api_key;
use crate::config::keys;
use crate::config::leaf::Day;
use crate::config::mistake::Name;
use crate::config::reader::Table;
use crate::config::{AgentClient, AgentConfig, AgentKind, AgentState, DeclaredProof, KnownBy};
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

/// What is one agent's already.
#[derive(Default)]
struct Taken {
    clients: HashMap<(IssuerAlias, KnownBy, String), AgentId>,
    keys: api_key::Taken,
}

/// Reads every agent; a `None` was reported.
pub fn read_all(mut top: Table<'_, '_>, today: jiff::civil::Date) -> Vec<(AgentId, Option<AgentConfig>)> {
    let place = top.place("agents");
    let tables = top.named_tables("agents", &keys::AGENT, |text| AgentId::new(text).map_err(|error| error.to_string()));
    if tables.len() > limit::AGENTS_MAX {
        top.mistake(&place, format!("{} agents are too many: at most {}", tables.len(), limit::AGENTS_MAX));
    }
    let mut taken = Taken::default();
    tables.into_iter().map(|(id, table)| (id.clone(), read(table, id, today, &mut taken))).collect()
}

fn read(mut table: Table<'_, '_>, id: AgentId, today: jiff::civil::Date, taken: &mut Taken) -> Option<AgentConfig> {
    let owner = subject(&mut table, "owner", &["user:"]);
    let sponsor_group = subject(&mut table, "sponsor_group", &["group:"]);
    let purpose = table.at::<String>("purpose");
    let kind = table.get::<Kind>("kind");
    let environments = table.at::<Vec<Spanned<Environment>>>("environments");
    let clients = read_clients(&mut table, &id, kind.as_ref(), taken);
    let keys = api_key::read_all(&mut table, &id, today, &mut taken.keys);
    let state = table.get::<State>("state");
    let expires = table.at::<Day>("expires");
    let review = table.at::<Day>("review");
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
        id,
    })
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
    let spelled = Subject::parse(text.get_ref()).is_ok() && kinds.iter().any(|kind| text.get_ref().starts_with(kind));
    if !spelled {
        let examples: Vec<String> = kinds.iter().map(|kind| format!("{kind}ISSUER/NAME")).collect();
        table.mistake(&text.span(), format!("`{text}` answers for nothing: write {}", examples.join(" or ")));
        return None;
    }
    let alias = text.get_ref().split_once(':').and_then(|(_, rest)| rest.split_once('/')).map(|(alias, _)| alias);
    if let Some(alias) = alias.and_then(|alias| IssuerAlias::new(alias).ok()) {
        table.source.refers(text.span(), Name::Issuer(alias));
    }
    Some(text.into_inner())
}
