//! Who is meant on a command line: `--as`, `--group`, `--agent`.
//!
//! Makes a [`Persona`], which proves nothing: it can be asked about, and no call can be made with it.

use clap::Args;

use crate::config::{AgentConfig, AgentKind, AgentState, Config, IssuerConfig};
use crate::identity::{AgentFacts, ClientProof, Groups, Persona};
use crate::ids::{AgentId, Subject};

/// Who is meant.
#[derive(Debug, Clone, Args)]
pub struct Who {
    /// The person, as rules write it: user:ISSUER/SUB
    #[arg(long = "as", value_name = "SUBJECT", value_parser = subject)]
    pub subject: Option<Subject>,
    /// A group that the token would name: group:ISSUER/NAME; repeatable
    #[arg(long = "group", value_name = "GROUP", value_parser = subject)]
    pub groups: Vec<Subject>,
    /// The agent that calls; without it, the issuer's interactive_default
    #[arg(long, value_name = "ID")]
    pub agent: Option<String>,
    /// A scope that the token would have; repeatable
    #[arg(long = "scope", value_name = "SCOPE")]
    pub scopes: Vec<String>,
    /// How the client would prove itself: none, public, secret, private_key, mtls or svid
    #[arg(long, value_name = "PROOF", value_parser = client_proof)]
    pub client_proof: Option<ClientProof>,
}

fn client_proof(text: &str) -> Result<ClientProof, String> {
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

/// Reads a subject as rules write it.
///
/// # Errors
/// How one is spelled.
pub fn subject(text: &str) -> Result<Subject, String> {
    Subject::parse(text).map_err(|error| error.to_string())
}

impl Who {
    /// The persona that a token with these facts would become.
    ///
    /// # Errors
    /// A lower-case sentence: who is missing, unknown here, or may not act.
    pub fn persona(&self, config: &Config) -> Result<Persona, String> {
        let agent = self.agent.as_deref().map(|id| registered(config, id)).transpose()?;
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
        Ok(Persona {
            issuer: issuer.alias.clone(),
            user: self.subject.clone(),
            groups: Groups::Known(groups),
            agent: agent.map(facts),
            chain: Vec::new(),
            default_roles: issuer.default_roles.clone(),
            scopes,
            client: client.map(|client| client.client_id.clone()),
            client_proof: self.client_proof.unwrap_or(proof),
            authenticated_at: None,
            acr: None,
        })
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;
    use crate::config::file::{Text, parse};

    fn config() -> Config {
        let servers = r#"
[gateway]
public_url = "https://mcp.example.com"
[issuers.corp]
issuer = "https://login.example.com"
default_roles = ["role:everyone"]
interactive_default = "assistant"
[servers.notes]
owner = "group:corp/knowledge"
environment = "production"
url = "https://notes.example.com/mcp"
"#;
        let agents = r#"
[agents.assistant]
owner = "user:corp/anna"
purpose = "answers questions"
kind = "interactive"
environments = ["production"]
[agents.robot]
owner = "user:corp/anna"
purpose = "cleans up"
kind = "autonomous"
environments = ["production"]
clients = [{ issuer = "corp", client_id = "robot-7" }]
[agents.old]
owner = "user:corp/anna"
purpose = "is gone"
kind = "interactive"
environments = ["production"]
state = "retired"
"#;
        let agents = Text { file: "agents.toml", text: agents };
        parse(Text { file: "servers.toml", text: servers }, Some(agents), Path::new("."), &Overrides::default())
            .unwrap()
            .0
    }

    fn who(subject_text: Option<&str>, groups: &[&str], agent: Option<&str>) -> Result<Persona, String> {
        let groups = groups.iter().map(|group| subject(group).unwrap()).collect();
        let who = Who {
            subject: subject_text.map(|text| subject(text).unwrap()),
            groups,
            agent: agent.map(str::to_owned),
            scopes: Vec::new(),
            client_proof: None,
        };
        who.persona(&config())
    }

    #[test]
    fn a_person_comes_with_the_roles_and_the_agent_of_the_issuer() {
        let persona = who(Some("user:corp/anna"), &["group:corp/b", "group:corp/a", "group:corp/b"], None).unwrap();
        assert_eq!(persona.agent.unwrap().id.as_str(), "assistant");
        assert_eq!(persona.default_roles, ["role:everyone"]);
        let Groups::Known(groups) = persona.groups else { panic!("groups are known") };
        assert_eq!(groups.iter().map(Subject::as_str).collect::<Vec<_>>(), ["group:corp/a", "group:corp/b"]);
    }

    #[test]
    fn an_agent_of_its_own_comes_with_its_client() {
        let persona = who(None, &[], Some("robot")).unwrap();
        assert_eq!((persona.user, persona.client.as_deref()), (None, Some("robot-7")));
        assert!(persona.agent.unwrap().autonomous);
    }

    #[test]
    fn who_cannot_call_is_not_asked_about() {
        for (subject, groups, agent, expected) in [
            (None, &[][..], None, "nobody is named"),
            (Some("user:crop/anna"), &[], None, "no issuer `crop`"),
            (Some("group:corp/a"), &[], None, "cannot call"),
            (Some("user:corp/anna"), &["group:other/a"], None, "not a group of `corp`"),
            (Some("user:corp/anna"), &[], Some("robbot"), "no agent `robbot`"),
            (Some("user:corp/anna"), &[], Some("old"), "is not active"),
            (None, &[], Some("assistant"), "add --as"),
        ] {
            let message = who(subject, groups, agent).unwrap_err();
            assert!(message.contains(expected), "{message}");
        }
    }
}
