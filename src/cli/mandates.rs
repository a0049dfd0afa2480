//! `mandates`: the tasks that were given to callers, and giving, ending and looking at one.
//!
//! Asks a running gateway, which decides. Invariant: a handle is printed once, to whoever opened it.

use std::fmt::Write as _;

use clap::{Args, Subcommand};
use http::Method;

use super::Ending;
use super::door::Door;
use super::lift::refused;
use super::output::{BAD, GOOD, Output, QUIET, STRONG};
use super::revoke::RevokeArguments;
use crate::cli::call::safe;
use crate::config::Budget;
use crate::control::governs::{MandateStatus, OpenedMandate, Wish};
use crate::ids::{AgentId, Environment, MandateId, TemplateName};

const EXAMPLES: &str = "\
Examples:
  bailiwick mandates list                                      what was opened, the youngest last
  bailiwick mandates show 01KNXS5V5R8W0E9Q0V4VJ2T3AB           what one says, and what is left of it
  bailiwick mandates report 01KNXS5V5R8W0E9Q0V4VJ2T3AB         how often which server was called under it
  bailiwick mandates complete 01KNXS5V5R8W0E9Q0V4VJ2T3AB       what is under way under it is cut off
  bailiwick mandates revoke 01KNXS5V5R8W0E9Q0V4VJ2T3AB         the same, where no gateway runs, too
  bailiwick mandates open nightly --agent report-bot --admin https://mcp.example.com/admin
  bailiwick mandates open --agent report-bot --tool 'notes/*' --environment production --seconds 600

Opening needs a person with an administrators' client and a login of a moment ago.";

/// List, open, complete and take back mandates: tasks that were given to callers
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct MandatesArguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// List those that are kept
    List {
        /// Only those that are active
        #[arg(long)]
        active: bool,
        #[command(flatten)]
        door: Door,
    },
    /// Tell what one says and what is left of it
    Show(One),
    /// Tell how often which server was called under one
    Report(One),
    /// End one before its time
    Complete(One),
    /// Take one back, whoever opened it
    Revoke(Back),
    /// Open one for an agent
    Open(Box<Open>),
}

#[derive(Debug, Args)]
struct One {
    /// Its id
    #[arg(value_name = "ID")]
    id: MandateId,
    #[command(flatten)]
    door: Door,
}

#[derive(Debug, Args)]
struct Back {
    #[command(flatten)]
    one: One,
    /// Why, for the record
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    note: String,
}

#[derive(Debug, Args)]
struct Open {
    /// From this template; without one, name tools and environments
    #[arg(value_name = "TEMPLATE")]
    template: Option<TemplateName>,
    /// For this agent
    #[arg(long, value_name = "ID")]
    agent: AgentId,
    /// For this client of the agent, where it has several
    #[arg(long, value_name = "ID")]
    client: Option<String>,
    /// For whom the agent acts, user:ISSUER/SUB
    #[arg(long = "as", value_name = "SUBJECT")]
    subject: Option<String>,
    /// Only these tools, SERVER/NAME
    #[arg(long = "tool", value_name = "OBJECT")]
    tools: Vec<String>,
    /// Only these environments
    #[arg(long = "environment", value_name = "NAME")]
    environments: Vec<Environment>,
    /// Only where these conditions hold
    #[arg(long = "condition", value_name = "NAME")]
    conditions: Vec<String>,
    /// For so many seconds
    #[arg(long, value_name = "N")]
    seconds: Option<u64>,
    /// For so many calls
    #[arg(long, value_name = "N")]
    calls: Option<u32>,
    /// For so many calls a minute
    #[arg(long, value_name = "N")]
    calls_per_minute: Option<u32>,
    /// For so many bytes of arguments and results
    #[arg(long, value_name = "N")]
    bytes: Option<u64>,
    /// What it is for; on the record as declared
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    purpose: String,
    /// Without the labels of what went before
    #[arg(long)]
    isolate: bool,
    #[command(flatten)]
    door: Door,
}

/// Does one of them.
pub async fn run(arguments: MandatesArguments, output: Output) -> Ending {
    match arguments.what {
        What::List { active, door } => list(&door, active, output).await,
        What::Show(one) => show(&one, false, output).await,
        What::Report(one) => show(&one, true, output).await,
        What::Complete(one) => {
            let path = format!("/mandates/{}/complete", one.id);
            let answer = one.door.ask(Method::POST, &path, None::<&()>).await;
            shown(answer.and_then(|answer| answer.read::<MandateStatus>()), output, true)
        }
        What::Revoke(Back { one, note }) => {
            let arguments = RevokeArguments::of_mandate(one.id.to_string(), note, one.door);
            super::revoke::run(&arguments, output, &mut anstream::stdout()).await
        }
        What::Open(open) => opened(&open, output).await,
    }
}

async fn show(one: &One, full: bool, output: Output) -> Ending {
    let answer = one.door.ask(Method::GET, &format!("/mandates/{}", one.id), None::<&()>).await;
    shown(answer.and_then(|answer| answer.read::<MandateStatus>()), output, full)
}

async fn list(door: &Door, active: bool, output: Output) -> Ending {
    let answer = door.ask(Method::GET, "/mandates", None::<&()>).await;
    match answer.and_then(|answer| answer.read::<Vec<MandateStatus>>()) {
        Ok(mut all) => {
            all.retain(|status| !active || status.state == "active");
            let mut text = String::new();
            for status in &all {
                // Writing to a string cannot fail.
                let _infallible = writeln!(text, "{}", line(status));
            }
            if all.is_empty() {
                text.push_str("no mandate is kept\n");
            }
            output.result(&all, text);
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

async fn opened(open: &Open, output: Output) -> Ending {
    let some = |list: &[String]| (!list.is_empty()).then(|| list.to_vec());
    let wish = Wish {
        template: open.template.clone(),
        agent: Some(open.agent.clone()),
        client: open.client.clone(),
        subject: open.subject.clone(),
        tools: some(&open.tools),
        conditions: open.conditions.clone(),
        environments: (!open.environments.is_empty()).then(|| open.environments.clone()),
        seconds: open.seconds,
        budget: Budget { calls: open.calls, calls_per_minute: open.calls_per_minute, bytes: open.bytes },
        purpose: open.purpose.clone(),
        isolate: open.isolate,
    };
    let answer = open.door.ask(Method::POST, "/mandates", Some(&wish)).await;
    match answer.and_then(|answer| answer.read::<OpenedMandate>()) {
        Ok(opened) => {
            let ends = moment(opened.mandate.ends_us);
            let text = format!(
                "{GOOD}opened{GOOD:#} {} until {ends}\n{}\n{QUIET}send it as the header Bailiwick-Mandate with each \
                 call{QUIET:#}\n",
                opened.mandate.id,
                safe(&opened.handle)
            );
            output.result(&opened, text);
            Ending::Done
        }
        Err(error) => refused(&error),
    }
}

fn shown(answer: Result<MandateStatus, crate::control::client::ClientError>, output: Output, full: bool) -> Ending {
    let status = match answer {
        Ok(status) => status,
        Err(error) => return refused(&error),
    };
    let mut text = format!("{}\n", line(&status));
    let mandate = &status.mandate;
    let mut row = |name: &str, value: &str| {
        if !value.is_empty() {
            let _infallible = writeln!(text, "  {QUIET}{name:<13}{QUIET:#} {}", safe(value));
        }
    };
    row("opened by", &mandate.opener);
    row("purpose", &mandate.purpose);
    row("tools", &mandate.tools.as_ref().map(|tools| tools.join(", ")).unwrap_or_default());
    row("conditions", &mandate.conditions.join(", "));
    let left = |left: Option<i64>, of: Option<u64>| match (left, of) {
        (Some(left), Some(of)) => format!("{left} of {of} left"),
        _ => String::new(),
    };
    row("calls", &left(status.left.calls, mandate.budget.calls.map(u64::from)));
    row("bytes", &left(status.left.bytes, mandate.budget.bytes));
    row("part of", &mandate.above.iter().map(ToString::to_string).collect::<Vec<_>>().join(" > "));
    if full {
        if status.calls.is_empty() {
            row("called", "nothing");
        }
        for (server, calls) in &status.calls {
            row(server, &format!("{calls} calls"));
        }
    }
    output.result(&status, text);
    Ending::Done
}

fn line(status: &MandateStatus) -> String {
    let mandate = &status.mandate;
    let style = if status.state == "active" { GOOD } else { BAD };
    let template = mandate.template.as_ref().map_or("(no template)", TemplateName::as_str);
    let agent = mandate.agent.as_ref().map_or("nobody", AgentId::as_str);
    let id = &mandate.id;
    let ends = moment(mandate.ends_us);
    format!("{STRONG}{id}{STRONG:#}  {style}{:<9}{style:#} {template} for {agent}, until {ends}", status.state)
}

fn moment(us: i64) -> String {
    jiff::Timestamp::from_microsecond(us).map_or_else(|_| "?".to_owned(), |at| format!("{at:.0}"))
}
