//! Who is meant on a command line: `--as`, `--group`, `--agent`.

use clap::Args;

use crate::config::Config;
use crate::gateway::ask::{Meant, client_proof, subject};
use crate::identity::{ClientProof, Persona};
use crate::ids::Subject;

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
    /// A further agent in the chain of delegation, the nearest first; repeatable
    #[arg(long = "actor", value_name = "ID")]
    pub actors: Vec<String>,
}

impl Who {
    /// The persona that a token with these facts would become.
    ///
    /// # Errors
    /// A lower-case sentence: who is missing, unknown here, or may not act.
    pub fn persona(&self, config: &Config) -> Result<Persona, String> {
        self.meant().persona(config)
    }

    /// Who that is.
    #[must_use]
    pub fn meant(&self) -> Meant {
        Meant {
            subject: self.subject.clone(),
            groups: self.groups.clone(),
            agent: self.agent.clone(),
            scopes: self.scopes.clone(),
            client_proof: self.client_proof,
            actors: self.actors.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::config::Overrides;
    use crate::config::file::{Text, parse};
    use crate::identity::Groups;

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
            actors: Vec::new(),
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
