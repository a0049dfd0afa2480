//! Which servers there will be, under which names, and which variables hold their secrets.
//!
//! Decides that what two assistants say alike is one server. Invariant: two different values never share a variable.

use std::collections::BTreeMap;
use std::path::PathBuf;

use secrecy::{ExposeSecret as _, SecretString};
use serde::Serialize;

use super::clients::{ClientFile, Places};
use super::entry::{Secret, Server, Transport, Variable, understand, variable_name};
use crate::ids::ServerId;

/// The longest name that a server of ours has.
const ID_LENGTH_MAX: usize = 16;

/// What will be.
#[derive(Debug, Default)]
pub struct Plan {
    /// The servers, in the order in which they were found.
    pub servers: Vec<Planned>,
    /// What is not taken over.
    pub skipped: Vec<Skipped>,
    /// Every secret by the variable that is to hold it.
    pub secrets: BTreeMap<String, Option<SecretString>>,
}

/// One server of ours.
#[derive(Debug)]
pub struct Planned {
    /// Its name here.
    pub id: String,
    /// Its name there.
    pub name: String,
    /// The files that name it: which, under which members, under which name.
    pub from: Vec<(usize, Vec<String>, String)>,
    /// What it is.
    pub server: Server,
}

/// Something that is not taken over.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Skipped {
    /// The file.
    pub file: PathBuf,
    /// The server, where it is about one.
    pub name: Option<String>,
    /// Why.
    pub reason: String,
}

/// Plans.
pub fn plan(files: &[ClientFile], places: &Places) -> Plan {
    let mut plan = Plan::default();
    for (number, file) in files.iter().enumerate() {
        for found in &file.found {
            match understand(&found.entry, places) {
                Ok(server) => plan.add(server, (number, found.place.clone(), found.name.clone())),
                Err(reason) => {
                    plan.skipped.push(Skipped { file: file.path.clone(), name: Some(found.name.clone()), reason });
                }
            }
        }
    }
    for server in &mut plan.servers {
        for secret in secrets(&mut server.server) {
            settle(&mut plan.secrets, secret, &server.id);
        }
    }
    plan
}

impl Plan {
    fn add(&mut self, server: Server, from: (usize, Vec<String>, String)) {
        if let Some(same) = self.servers.iter_mut().find(|own| is_same(&own.server, &server)) {
            same.from.push(from);
            return;
        }
        let name = from.2.clone();
        let id = self.free_id(&name);
        self.servers.push(Planned { id, name, from: vec![from], server });
    }

    /// A name of ours that is like theirs and that nobody has yet.
    fn free_id(&self, name: &str) -> String {
        let plain = |c: char| if c.is_ascii_alphanumeric() { c.to_ascii_lowercase() } else { '-' };
        let words: String = name.chars().map(plain).collect();
        let words: Vec<&str> = words.split('-').filter(|word| !word.is_empty()).collect();
        let slug: String = words.join("-").chars().take(ID_LENGTH_MAX).collect();
        let slug = slug.trim_matches('-').to_owned();
        // One name is the gateway's own.
        let base = if slug.is_empty() || slug == "bailiwick" { "server".to_owned() } else { slug };
        let taken = |id: &str| self.servers.iter().any(|server| server.id == id) || ServerId::new(id).is_err();
        let numbered = (2..10_000).map(|number| {
            let end = format!("-{number}");
            let start: String = base.chars().take(ID_LENGTH_MAX - end.len()).collect();
            format!("{}{end}", start.trim_end_matches('-'))
        });
        std::iter::once(base.clone()).chain(numbered).find(|id| !taken(id)).unwrap_or_default()
    }
}

fn secrets(server: &mut Server) -> Vec<&mut Secret> {
    match &mut server.transport {
        Transport::Http { header, .. } => header.iter_mut().map(|(_, _, secret)| secret).collect(),
        Transport::Stdio { variables, .. } => variables
            .iter_mut()
            .filter_map(|(_, variable)| match variable {
                Variable::Secret(secret) => Some(secret),
                Variable::Plain(_) => None,
            })
            .collect(),
    }
}

/// Gives a secret its variable: the one that it would have anyway, or else one of its server's own.
fn settle(known: &mut BTreeMap<String, Option<SecretString>>, secret: &mut Secret, id: &str) {
    // A header called `authorization` says nothing about whose it is.
    if secret.value.is_some() && secret.variable.eq_ignore_ascii_case("authorization") {
        secret.variable = format!("{}_TOKEN", variable_name(id).to_ascii_uppercase());
    }
    let other = known.get(&secret.variable).is_some_and(|held| !is_same_value(held.as_ref(), secret.value.as_ref()));
    if other {
        secret.variable = format!("{}_{}", variable_name(id).to_ascii_uppercase(), secret.variable);
    }
    known.insert(secret.variable.clone(), secret.value.clone());
}

fn is_same_value(one: Option<&SecretString>, other: Option<&SecretString>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => one.expose_secret() == other.expose_secret(),
        _ => false,
    }
}

fn is_same_secret(one: &Secret, other: &Secret) -> bool {
    one.variable == other.variable && is_same_value(one.value.as_ref(), other.value.as_ref())
}

fn is_same(one: &Server, other: &Server) -> bool {
    match (&one.transport, &other.transport) {
        (Transport::Http { url, header }, Transport::Http { url: other_url, header: other_header }) => {
            let same_header = match (header, other_header) {
                (None, None) => true,
                (Some((name, prefix, secret)), Some((other_name, other_prefix, other))) => {
                    name == other_name && prefix == other_prefix && is_same_secret(secret, other)
                }
                _ => false,
            };
            url == other_url && same_header
        }
        (
            Transport::Stdio { command, variables, directory, .. },
            Transport::Stdio { command: other, variables: others, directory: place, .. },
        ) => {
            let same_variable = |((name, value), (other_name, other)): (&(String, Variable), &(String, Variable))| {
                name == other_name
                    && match (value, other) {
                        (Variable::Plain(one), Variable::Plain(other)) => one == other,
                        (Variable::Secret(one), Variable::Secret(other)) => is_same_secret(one, other),
                        _ => false,
                    }
            };
            command == other
                && directory == place
                && variables.len() == others.len()
                && variables.iter().zip(others).all(same_variable)
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::cli::init::clients::{Assistant, Found};

    fn planned(entries: &[(&str, serde_json::Value)]) -> Plan {
        let found = |(name, entry): &(&str, serde_json::Value)| Found {
            place: vec!["mcpServers".to_owned()],
            name: (*name).to_owned(),
            entry: entry.clone(),
        };
        let file = ClientFile {
            assistant: Assistant::Cursor,
            path: "mcp.json".into(),
            text: String::new(),
            found: entries.iter().map(found).collect(),
        };
        plan(&[file], &Places { home: "/h".into(), project: "/p".into() })
    }

    #[test]
    fn names_become_ids_that_are_short_and_taken_once() {
        let entry = |n: u32| json!({"command": format!("x{n}")});
        let names = ["GitHub", "git hub!", "github", "bailiwick", "日本", "a-very-long-name-of-a-server", "-"];
        let entries: Vec<_> = names.iter().zip(0..).map(|(name, n)| (*name, entry(n))).collect();
        let ids: Vec<String> = planned(&entries).servers.into_iter().map(|server| server.id).collect();
        assert_eq!(ids, ["github", "git-hub", "github-2", "server", "server-2", "a-very-long-name", "server-3"]);
    }

    #[test]
    fn what_is_said_twice_is_one_server_and_different_values_get_different_variables() {
        let entry = |value: &str| json!({"command": "x", "env": {"TOKEN": value}});
        let plan = planned(&[("a", entry("one")), ("b", entry("one")), ("c", entry("two"))]);
        assert_eq!(plan.servers.len(), 2);
        assert_eq!(plan.servers[0].from.len(), 2);
        assert_eq!(plan.secrets.keys().collect::<Vec<_>>(), ["C_TOKEN", "PATH", "TOKEN"]);
    }
}
