//! `explain`, `who-can`, `what-can`, `tools`: what can be typed to ask the policy without calling anything.
//!
//! Decides nothing: the policy answers, `ask/answer.rs` words it.

use clap::Args;
use serde::Serialize;

use super::Ending;
use super::files::Files;
use super::output::{Output, trouble};
use super::who::{Who, subject};
use crate::ids::{Action, Subject};
use crate::policy::Arguments;

mod answer;

const EXPLAIN_EXAMPLES: &str = "\
Examples:
  bailiwick explain notes/add_note --as user:corp/anna --group group:corp/platform
  bailiwick explain deploy/rollout --as user:corp/anna --arguments '{\"replicas\": 50}'
  bailiwick explain notes/note://team/3 --action read --as user:corp/anna
  bailiwick explain deploy/rollout --agent release-bot --at 2026-12-24T23:00:00Z

Ends with 0 when it would be allowed, with 1 when it would be refused.";

/// Say whether a call would be allowed, by which rule, and what is missing
///
/// Asks the files and not a running gateway; nothing is called and nothing is recorded. A person and their
/// assistant must both be allowed, so the answer has a part for each.
#[derive(Debug, Args)]
#[command(after_help = EXPLAIN_EXAMPLES)]
pub struct ExplainArguments {
    /// What would be called: SERVER/TOOL, in the upstream's own spelling
    #[arg(value_name = "SERVER/TOOL", value_parser = object)]
    pub object: Object,
    /// What would be done to it
    #[arg(long, default_value = "call", value_parser = action)]
    pub action: Action,
    /// Who would do it
    #[command(flatten)]
    pub who: Who,
    /// The arguments of the call, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json_object)]
    pub arguments: Option<String>,
    /// The moment of the call, instead of now
    #[arg(long, value_name = "TIME", value_parser = timestamp)]
    pub at: Option<jiff::Timestamp>,
    /// The files to ask
    #[command(flatten)]
    pub files: Files,
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
    #[arg(long, default_value = "call", value_parser = action)]
    pub action: Action,
    /// The files to ask
    #[command(flatten)]
    pub files: Files,
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
    /// The files to ask
    #[command(flatten)]
    pub files: Files,
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
#[must_use]
pub fn explain(arguments: &ExplainArguments, output: Output) -> Ending {
    let Some(understood) = arguments.files.or_complain() else { return Ending::Trouble };
    let Object { server, name } = &arguments.object;
    let asked = arguments.who.persona(understood.config()).and_then(|persona| {
        let ask = understood.policy.ask_about(server, name, &arguments.action)?;
        let given = arguments.arguments.as_deref().map_or(Arguments::None, Arguments::Json);
        let at = arguments.at.unwrap_or_else(jiff::Timestamp::now);
        Ok(understood.policy.explain(&persona, &ask, given, at))
    });
    match asked {
        Err(message) => {
            trouble(message);
            Ending::Trouble
        }
        Ok(explanation) => {
            output.result(&explanation, answer::explanation(&explanation));
            if explanation.allowed { Ending::Done } else { Ending::Refused }
        }
    }
}

/// Says who may do something.
#[must_use]
pub fn who_can(arguments: &WhoCanArguments, output: Output) -> Ending {
    let Some(understood) = arguments.files.or_complain() else { return Ending::Trouble };
    let Object { server, name } = &arguments.object;
    match understood.policy.ask_about(server, name, &arguments.action) {
        Err(message) => {
            trouble(message);
            Ending::Trouble
        }
        Ok(ask) => {
            let found = understood.policy.who_can(&ask);
            output.result(&found, answer::who_can(&ask, &found));
            Ending::Done
        }
    }
}

/// A rule as programs read it.
#[derive(Debug, Serialize)]
struct ToldRule<'a> {
    place: &'a str,
    effect: &'a str,
    sentence: String,
}

/// Says what somebody may do.
#[must_use]
pub fn what_can(arguments: &WhatCanArguments, output: Output) -> Ending {
    let Some(understood) = arguments.files.or_complain() else { return Ending::Trouble };
    let rules = understood.policy.what_can(&arguments.subject);
    let mut told = Vec::with_capacity(rules.len());
    for rule in &rules {
        told.push(ToldRule { place: rule.place(), effect: rule.effect().as_str(), sentence: rule.sentence() });
    }
    output.result(&told, answer::what_can(arguments.subject.as_str(), &rules));
    Ending::Done
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
    let (server, name) = text.split_once('/').ok_or("write SERVER/TOOL, such as notes/add_note")?;
    if server.is_empty() || name.is_empty() {
        return Err("write SERVER/TOOL, such as notes/add_note".to_owned());
    }
    Ok(Object { server: server.to_owned(), name: name.to_owned() })
}

fn action(text: &str) -> Result<Action, String> {
    let known = "call, read, get, complete, subscribe, elicit, sample, roots, admin or method:NAME";
    Action::parse(text).ok_or_else(|| format!("use {known}"))
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
