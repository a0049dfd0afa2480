//! `keys api new`: makes an API key, shows it once, and the row that makes it one.
//!
//! Decides nothing: whoever may change `policies/agents.toml` decides whether the key is one. Invariant: the key is
//! written nowhere, and neither the store nor the record nor a file of the gateway ever has more of it than its SHA-256.

use clap::{Args, Subcommand};
use jiff::tz::TimeZone;
use jiff::{Span, Timestamp};
use secrecy::ExposeSecret as _;
use serde::Serialize;

use super::output::{Output, QUIET, complain};
use crate::identity::api_key;
use crate::ids::{AgentId, Digest, Subject};
use crate::limit;

const EXAMPLES: &str = "\
Examples:
  bailiwick keys api new --agent nightly --owner user:corp/anna
  bailiwick keys api new --agent nightly --owner user:corp/anna --days 30 --id nightly-ci

The first line is the key: give it to whoever runs the agent, it is shown this once. The rest is its row for
policies/agents.toml, which holds its SHA-256 alone; it is one after a reload. Where an issuer can know the
agent, let it: a key lives long, and whoever has it is the agent.";

/// API keys of agents that no issuer knows
#[derive(Debug, Subcommand)]
pub enum ApiKeys {
    /// Make one: print it once, and its row for policies/agents.toml
    New(NewKey),
}

/// What a new key is like.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct NewKey {
    /// The agent that it is for
    #[arg(long, value_name = "ID", value_parser = agent)]
    agent: AgentId,
    /// The person who answers for it: user:ISSUER/SUB
    #[arg(long, value_name = "SUBJECT", value_parser = owner)]
    owner: String,
    /// For how many days it is good
    #[arg(long, value_name = "DAYS", default_value_t = 90, value_parser = clap::value_parser!(i64).range(1..=limit::API_KEY_DAYS_MAX))]
    days: i64,
    /// Its name in the record; without it, the agent and the day
    #[arg(long, value_name = "ID", value_parser = agent)]
    id: Option<AgentId>,
}

#[derive(Serialize)]
struct Made {
    key: String,
    id: String,
    row: String,
}

/// Makes a key and prints it.
///
/// # Errors
/// A lower-case sentence.
pub fn run(what: &ApiKeys, output: Output) -> Result<(), String> {
    let ApiKeys::New(asked) = what;
    let made = make(asked, Timestamp::now())?;
    let text = format!("{}\n\n{}", made.key, made.row);
    complain(format_args!(
        "{QUIET}the key is shown this once; the row below it goes into policies/agents.toml{QUIET:#}\n"
    ));
    output.result(&made, text);
    Ok(())
}

fn make(asked: &NewKey, now: Timestamp) -> Result<Made, String> {
    let created = Timestamp::from_second(now.as_second()).map_err(|error| error.to_string())?;
    let today = TimeZone::UTC.to_datetime(created).date();
    let life = Span::new().try_days(asked.days).map_err(|error| error.to_string())?;
    let expires = today.checked_add(life).map_err(|error| error.to_string())?;
    let id = asked.id.as_ref().map_or_else(
        || {
            let agent: String = asked.agent.as_str().chars().take(48).collect();
            format!("{agent}-{:04}{:02}{:02}", today.year(), today.month(), today.day())
        },
        ToString::to_string,
    );
    let key = api_key::fresh()?;
    let digest = Digest::sha256(key.expose_secret().as_bytes());
    let row = format!(
        "[[agents.{}.keys]]\nid = \"{id}\"\nsha256 = \"{digest}\"\nowner = {}\ncreated = \"{created}\"\nexpires = {expires}\n",
        asked.agent,
        toml::Value::String(asked.owner.clone()),
    );
    Ok(Made { key: key.expose_secret().to_owned(), id, row })
}

fn agent(text: &str) -> Result<AgentId, String> {
    AgentId::new(text).map_err(|error| error.to_string())
}

fn owner(text: &str) -> Result<String, String> {
    let subject = Subject::parse(text).map_err(|error| error.to_string())?;
    if subject.as_str().starts_with("user:") {
        Ok(text.to_owned())
    } else {
        Err("a person answers for a key: write user:ISSUER/SUB".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked(days: i64) -> NewKey {
        NewKey { agent: AgentId::new("nightly").unwrap(), owner: "user:corp/anna".to_owned(), days, id: None }
    }

    #[test]
    fn a_row_has_the_digest_of_the_key_and_nothing_else_of_it() {
        let now = "2026-11-27T23:59:59.9Z".parse().unwrap();
        let (one, other) = (make(&asked(90), now).unwrap(), make(&asked(90), now).unwrap());
        assert_ne!(one.key, other.key);
        assert!(one.row.contains(&format!("sha256 = \"{}\"", Digest::sha256(one.key.as_bytes()))));
        assert!(!one.row.contains(&one.key[4..]));
        for line in ["[[agents.nightly.keys]]", "id = \"nightly-20261127\"", "expires = 2027-02-25"] {
            assert!(one.row.contains(line), "{line}: {}", one.row);
        }
        assert!(one.row.contains("created = \"2026-11-27T23:59:59Z\""), "{}", one.row);
    }

    #[test]
    fn a_row_for_the_longest_life_is_accepted_as_it_is_printed() {
        use crate::config::Overrides;
        use crate::config::file::{Text, parse};
        let servers = "[gateway]\npublic_url = \"https://mcp.example.com\"\n[issuers.corp]\nissuer = \"https://i.example\"\n\
                       [servers.notes]\nowner = \"user:corp/anna\"\nenvironment = \"production\"\nurl = \"https://n.example/mcp\"\n";
        let agent = "[agents.nightly]\nowner = \"user:corp/anna\"\npurpose = \"p\"\nkind = \"autonomous\"\nenvironments = [\"production\"]\n";
        let made = make(&asked(limit::API_KEY_DAYS_MAX), Timestamp::now()).unwrap();
        let text = format!("{agent}{}", made.row);
        let agents = Text { file: "agents.toml", text: &text };
        let servers = Text { file: "servers.toml", text: servers };
        let read = parse(servers, Some(agents), std::path::Path::new("."), &Overrides::default());
        let (config, _) = read.unwrap();
        assert_eq!(config.agents[&AgentId::new("nightly").unwrap()].keys[0].id, made.id);
    }

    #[test]
    fn a_group_answers_for_no_key() {
        assert!(owner("user:corp/anna").is_ok());
        assert!(owner("group:corp/ops").is_err() && owner("anna").is_err());
    }
}
