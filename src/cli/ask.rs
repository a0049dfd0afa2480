//! `explain`, `who-can`, `what-can`, `tools`: what can be typed to ask the policy without calling anything.
//!
//! Decides nothing: the policy answers, `ask/answer.rs` words it.

use clap::Args;
use http::Method;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::Ending;
use super::door::Elsewhere;
use super::files::{Files, Understood};
use super::output::{Output, trouble};
use super::typed_token;
use super::who::Who;
use crate::gateway::ask::{self, Question, WhatCanAnswer, WhoCanAnswer, subject};
use crate::gateway::bearer::TokenText;
use crate::ids::{Action, Subject};
use crate::policy::Explanation;

mod answer;
mod bearer;

/// Whom to ask about the policy.
#[derive(Debug, Clone, Args)]
pub struct Place {
    #[command(flatten)]
    elsewhere: Elsewhere,
    /// The files to ask
    #[command(flatten)]
    files: Files,
}

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  bailiwick explain notes/add_note --as user:corp/anna --group group:corp/platform
  bailiwick explain deploy/rollout --as user:corp/anna --arguments '{\"replicas\": 50}'
  bailiwick explain notes/note://team/3 --action read --as user:corp/anna
  bailiwick explain deploy/rollout --agent release-bot --at 2026-12-24T23:00:00Z
  printf %s \"$TOKEN\" | bailiwick explain notes/add_note --token -
                                       whoever has this token, with the agents of its chain (act)

Ends with 0 when it would be allowed, with 1 when it would be refused.";

/// Say whether a call would be allowed, by which rule, and what is missing
///
/// Asks the files, or with --admin the policy that a gateway runs; nothing is called. A person and their assistant
/// must both be allowed, so the answer has a part for each.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct ExplainArguments {
    /// What would be called: SERVER/TOOL, in the upstream's own spelling
    #[arg(value_name = "SERVER/TOOL", value_parser = object)]
    pub object: Object,
    /// What would be done to it
    #[arg(long, default_value = "call", value_parser = ask::action)]
    pub action: Action,
    /// Who would do it
    #[command(flatten)]
    pub who: Who,
    /// Whoever has this token would do it; only `-`, which reads it from standard input. It is verified and never shown
    #[arg(long, value_name = "-", conflicts_with_all = ["subject", "groups", "agent", "scopes", "client_proof", "actors"])]
    pub token: Option<String>,
    /// The arguments of the call, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub arguments: Option<String>,
    /// The template of the mandate that the call is part of; '' for a call without one
    #[arg(long, value_name = "TEMPLATE")]
    pub mandate: Option<String>,
    /// What the caller has seen, as labels; '' for nothing
    #[arg(long, value_name = "LABELS", value_delimiter = ',')]
    pub seen: Option<Vec<String>>,
    /// The moment of the call, instead of now
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub at: Option<jiff::Timestamp>,
    /// Whom to ask
    #[command(flatten)]
    pub place: Place,
}

const WHO_CAN_EXAMPLES: &str = "\
Examples:
  bailiwick who-can deploy/rollout
  bailiwick who-can notes/note://team/3 --action read";

/// Say who may do something
///
/// Lists the people, groups, roles and agents that some rule allows it, with the rule and its condition.
#[derive(Debug, Args)]
#[command(after_help = WHO_CAN_EXAMPLES)]
pub struct WhoCanArguments {
    /// What would be done: SERVER/TOOL, in the upstream's own spelling
    #[arg(value_name = "SERVER/TOOL", value_parser = object)]
    pub object: Object,
    /// What would be done to it
    #[arg(long, default_value = "call", value_parser = ask::action)]
    pub action: Action,
    /// Whom to ask
    #[command(flatten)]
    pub place: Place,
}

const WHAT_CAN_EXAMPLES: &str = "\
Examples:
  bailiwick what-can group:corp/platform
  bailiwick what-can agent:release-bot
  bailiwick what-can anyone";

/// Say what somebody may do
///
/// Lists the rules that speak about a person, a group, an agent or everyone, through all of their roles.
#[derive(Debug, Args)]
#[command(after_help = WHAT_CAN_EXAMPLES)]
pub struct WhatCanArguments {
    /// Who: user:ISSUER/SUB, group:ISSUER/NAME, agent:ID or anyone
    #[arg(value_name = "SUBJECT", value_parser = subject)]
    pub subject: Subject,
    /// Whom to ask
    #[command(flatten)]
    pub place: Place,
}

const TOOLS_EXAMPLES: &str = "\
Examples:
  bailiwick tools --as user:corp/anna --group group:corp/platform
  bailiwick tools --agent release-bot --server deploy";

/// List the tools that somebody would see
///
/// Connects to the servers, lists their tools with the gateway's own credentials, and shows what is left
/// after the policy. It evaluates and never calls.
#[derive(Debug, Args)]
#[command(after_help = TOOLS_EXAMPLES)]
pub struct ToolsArguments {
    /// Who would list them
    #[command(flatten)]
    pub who: Who,
    /// Only the tools of this server
    #[arg(long, value_name = "ID")]
    pub server: Option<String>,
    /// The files to ask
    #[command(flatten)]
    pub files: Files,
}

/// Explains, and says how it ended.
pub async fn explain(arguments: &ExplainArguments, output: Output) -> Ending {
    let question = match arguments.question() {
        Ok(question) => question,
        Err(message) => {
            trouble(message);
            return Ending::Trouble;
        }
    };
    let files = async |understood: &Understood| match question.token {
        Some(_) => bearer::explain(&question, understood).await,
        None => question.answer((understood.config(), &understood.policy), None, jiff::Timestamp::now()),
    };
    let Place { elsewhere, files: place } = &arguments.place;
    let asked = asked(elsewhere, place, Method::POST, "/explain", Some(&question), files).await;
    let Some::<Explanation>(explanation) = asked else { return Ending::Trouble };
    output.result(&explanation, answer::explanation(&explanation));
    if explanation.allowed { Ending::Done } else { Ending::Refused }
}

/// Says who may do something.
pub async fn who_can(arguments: &WhoCanArguments, output: Output) -> Ending {
    let Object { server, name } = &arguments.object;
    let (object, action) = (format!("{server}/{name}"), arguments.action.to_string());
    let path = with_query("/who-can", &[("object", &object), ("action", &action)]);
    let files = async |understood: &Understood| ask::who_can(&understood.policy, &object, &action);
    let Place { elsewhere, files: place } = &arguments.place;
    let asked = asked(elsewhere, place, Method::GET, &path, None::<&()>, files).await;
    let Some::<WhoCanAnswer>(found) = asked else { return Ending::Trouble };
    output.result(&found.who, answer::who_can(&found));
    Ending::Done
}

/// Says what somebody may do.
pub async fn what_can(arguments: &WhatCanArguments, output: Output) -> Ending {
    let path = with_query("/what-can", &[("subject", arguments.subject.as_str())]);
    let files = async |understood: &Understood| Ok(ask::what_can(&understood.policy, &arguments.subject));
    let Place { elsewhere, files: place } = &arguments.place;
    let asked = asked(elsewhere, place, Method::GET, &path, None::<&()>, files).await;
    let Some::<WhatCanAnswer>(found) = asked else { return Ending::Trouble };
    output.result(&found.rules, answer::what_can(&found));
    Ending::Done
}

/// Asks the gateway elsewhere, where one is named, or else the files; what is in the way is printed.
async fn asked<B: Serialize, T: DeserializeOwned>(
    elsewhere: &Elsewhere,
    place: &Files,
    method: Method,
    path: &str,
    body: Option<&B>,
    files: impl AsyncFnOnce(&Understood) -> Result<T, String>,
) -> Option<T> {
    let answered = match elsewhere.remote() {
        Ok(None) => files(&place.or_complain()?).await,
        Ok(Some(remote)) => {
            let answer = remote.ask(method, path, body).await.and_then(|answer| answer.read());
            answer.map_err(|error| error.to_string())
        }
        Err(error) => Err(error.to_string()),
    };
    answered.map_err(trouble).ok()
}

/// The path with these parameters.
fn with_query(path: &str, parameters: &[(&str, &str)]) -> String {
    let query = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(parameters).finish();
    format!("{path}?{query}")
}

impl ExplainArguments {
    fn question(&self) -> Result<Question, String> {
        let Object { server, name } = &self.object;
        let given = self.arguments.clone().map(RawValue::from_string).transpose();
        let meant = self.who.meant();
        let token = self.token.as_deref().map(|given| typed_token::read(given, "explain SERVER/TOOL")).transpose()?;
        let seen = self.seen.as_ref().map(|labels| labels.iter().cloned());
        Ok(Question {
            object: format!("{server}/{name}"),
            action: self.action.to_string(),
            arguments: given.map_err(|error| format!("the arguments are no JSON: {error}"))?,
            at: self.at,
            subject: meant.subject.map(|subject| subject.to_string()),
            groups: meant.groups.iter().map(ToString::to_string).collect(),
            agent: meant.agent,
            scopes: meant.scopes,
            client_proof: meant.client_proof.map(|proof| proof.as_str().to_owned()),
            actors: meant.actors,
            mandate: self.mandate.clone(),
            seen: seen.map(|labels| labels.filter(|label| !label.is_empty()).collect()),
            token: token.map(TokenText::from),
        })
    }
}

/// An object as rules write it, split once: what follows the first slash is the name, slashes and all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// The server's id.
    pub server: String,
    /// The tool's name or the resource's URI, in the upstream's own spelling.
    pub name: String,
}

fn object(text: &str) -> Result<Object, String> {
    let (server, name) = ask::object(text)?;
    Ok(Object { server: server.to_owned(), name: name.to_owned() })
}

fn json_object(text: &str) -> Result<String, String> {
    let object: Result<serde_json::Map<String, serde_json::Value>, _> = serde_json::from_str(text);
    object.map(|_| text.to_owned()).map_err(|error| format!("write a JSON object: {error}"))
}

fn timestamp(text: &str) -> Result<jiff::Timestamp, String> {
    text.parse().map_err(|_| "write a moment such as 2026-12-24T23:00:00Z".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_name_of_an_object_may_be_a_uri() {
        let found = object("notes/note://team/3").unwrap();
        assert_eq!((found.server.as_str(), found.name.as_str()), ("notes", "note://team/3"));
        for wrong in ["notes", "/x", "notes/", ""] {
            assert!(object(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn arguments_are_an_object_and_keep_their_spelling() {
        assert_eq!(json_object(r#"{"amount": 1e2}"#).unwrap(), r#"{"amount": 1e2}"#);
        assert!(json_object("[1]").is_err());
        assert!(json_object("{").is_err());
    }
}
