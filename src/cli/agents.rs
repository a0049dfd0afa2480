//! `agents`: which software may act, who answers for it, and stopping it while the gateway runs.
//!
//! Asks a running gateway, which decides. Invariant: what is stopped here is stopped until somebody resumes it, and what
//! the files stop is not resumed here.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, trouble};
use crate::cli::call::safe;
use crate::control::governs::{AgentOrder, Step};
use crate::control::operations::AgentStatus;

const EXAMPLES: &str = "\
Examples:
  bailiwick agents list
  bailiwick agents show report-bot
  bailiwick agents suspend report-bot --note 'odd calls at night'
  bailiwick agents suspend assistant --for user:corp/anna      only her use of it
  bailiwick agents retire report-bot
  bailiwick agents suspend notes --server      the server is there for nobody
  bailiwick agents resume report-bot --admin https://mcp.example.com/admin
  bailiwick agents attest report-bot --admin https://mcp.example.com/admin
  bailiwick agents attest notes --server --admin https://mcp.example.com/admin

Resuming and attesting need a person with an administrators' client and a login of a moment ago.";

/// List, suspend, resume and retire agents and servers, and attest that they are still needed
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct AgentsArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List the agents of the files
    List {
        #[command(flatten)]
        door: Door,
    },
    /// Tell everything about one
    Show {
        /// Its id
        #[arg(value_name = "AGENT")]
        agent: String,
        #[command(flatten)]
        door: Door,
    },
    /// Stop one for now
    Suspend(Stop),
    /// Let one act again that was suspended here
    Resume(Stop),
    /// Stop one for good
    Retire(Stop),
    /// Say, as its owner, that an agent or a server is still needed
    Attest {
        /// Its id
        #[arg(value_name = "ID")]
        id: String,
        /// It is a server
        #[arg(long)]
        server: bool,
        #[command(flatten)]
        door: Door,
    },
}

#[derive(Debug, Args)]
struct Stop {
    /// Its id
    #[arg(value_name = "AGENT")]
    agent: String,
    /// It is a server
    #[arg(long, conflicts_with = "subject")]
    server: bool,
    /// Only its use by this person, user:ISSUER/SUB
    #[arg(long = "for", value_name = "SUBJECT")]
    subject: Option<String>,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
    #[command(flatten)]
    door: Door,
}

/// Does one of them.
pub async fn run(arguments: &AgentsArguments, output: Output) -> Ending {
    match &arguments.what {
        What::List { door } => match agents(door).await {
            Ok(agents) => {
                let text: String = agents.iter().map(line).collect();
                let text = if text.is_empty() { "policies/agents.toml has none\n".to_owned() } else { text };
                output.result(&agents, text);
                Ending::Done
            }
            Err(error) => refused(&error),
        },
        What::Show { agent, door } => match agents(door).await {
            Ok(agents) => match agents.iter().find(|known| known.agent == *agent) {
                Some(known) => {
                    output.result(known, told(known));
                    Ending::Done
                }
                None => {
                    trouble(format_args!("there is no agent `{}` in policies/agents.toml", safe(agent)));
                    Ending::Refused
                }
            },
            Err(error) => refused(&error),
        },
        What::Suspend(stop) => step(stop, Step::Suspend, "suspended", output).await,
        What::Resume(stop) => step(stop, Step::Resume, "resumed", output).await,
        What::Retire(stop) => step(stop, Step::Retire, "retired", output).await,
        What::Attest { id, server, door } => {
            let kind = if *server { "servers" } else { "agents" };
            let answer = door.ask(Method::POST, &format!("/{kind}/{id}/attest"), None::<&()>).await;
            done(answer.and_then(|answer| answer.read()), "attested", output)
        }
    }
}

async fn agents(door: &Door) -> Result<Vec<AgentStatus>, crate::control::client::ClientError> {
    door.ask(Method::GET, "/agents", None::<&()>).await?.read()
}

async fn step(stop: &Stop, step: Step, word: &str, output: Output) -> Ending {
    let order = AgentOrder { step, subject: stop.subject.clone(), note: stop.note.clone() };
    let kind = if stop.server { "servers" } else { "agents" };
    let answer = stop.door.ask(Method::POST, &format!("/{kind}/{}", stop.agent), Some(&order)).await;
    done(answer.and_then(|answer| answer.read()), word, output)
}

fn done(answer: Result<serde_json::Value, crate::control::client::ClientError>, word: &str, output: Output) -> Ending {
    match answer {
        Ok(answer) => {
            output.result(&answer, format!("{GOOD}{word}{GOOD:#}, in force, on the record\n"));
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

fn line(agent: &AgentStatus) -> String {
    let style = match agent.state.as_str() {
        "active" => GOOD,
        "proposed" | "suspended" => WARNING,
        _ => BAD,
    };
    let (state, owner) = (&agent.state, safe(&agent.owner));
    format!("{STRONG}{:<24}{STRONG:#} {style}{state:<10}{style:#} {:<12} {owner}\n", agent.agent, agent.kind)
}

fn told(agent: &AgentStatus) -> String {
    let mut text = line(agent);
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a string cannot fail.
            let _infallible = writeln!(text, "  {QUIET}{name:<13}{QUIET:#} {}", safe(value));
        }
    };
    row("purpose", &agent.purpose);
    row("because", &agent.because);
    row("sponsors", &agent.sponsor_group);
    row("may act in", &agent.environments.join(", "));
    row("known as", &agent.clients.join(", "));
    row("stopped for", &agent.stopped_for.join(", "));
    row("attested by", &agent.attested_by);
    row("good until", &agent.attest_until.map(|until| format!("{until:.0}")).unwrap_or_default());
    row("expires", &agent.expires.map(|day| day.to_string()).unwrap_or_default());
    row("review", &agent.review.map(|day| day.to_string()).unwrap_or_default());
    text
}
