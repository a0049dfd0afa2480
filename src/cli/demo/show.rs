//! Two people, one endpoint: their lists, a call that is allowed, and two that are not.
//!
//! Words what happened and never makes it up: every answer came over HTTP, every line is from the journal.

use std::fmt::Write as _;

use anstyle::Style;
use serde_json::Value;

use super::stage::{PEOPLE, Stage};
use super::tail::Tail;
use crate::cli::call::safe;
use crate::cli::connect::{self, Client as Assistant, Step};
use crate::cli::output::{BAD, GOOD, QUIET, STRONG, print};
use crate::cli::stdio::client::{refusal, text};
use crate::cli::use_it::DemoArguments;
use crate::demo::upstreams::Sample;

/// The widest answer that is shown.
const ANSWER_COLUMNS: usize = 88;

/// One call of the show.
struct Act {
    /// What is to be seen.
    title: &'static str,
    arguments: &'static str,
    /// The reason of the refusal that the repository's own rules give; none where they allow.
    reason: Option<&'static str>,
    /// Why they do, in words: said only where the answer was that one.
    because: &'static str,
}

/// Alice's assistant rolls out.
const ACTS: [Act; 3] = [
    Act {
        title: "a rollout: three replicas of search",
        arguments: r#"{"service":"search","replicas":3,"region":"eu-west"}"#,
        reason: None,
        because: "a developer may, her assistant may, and at most 5 replicas is what both rules say",
    },
    Act {
        title: "another service: the same for checkout",
        arguments: r#"{"service":"checkout","replicas":3,"region":"eu-west"}"#,
        reason: Some("denied_by_rule"),
        because: "the team that owns deploy froze payments, and a deny wins over every allow",
    },
    Act {
        title: "another argument: fifty replicas of search",
        arguments: r#"{"service":"search","replicas":50,"region":"eu-west"}"#,
        reason: Some("condition_unmet"),
        because: "the allow holds up to 5 replicas; the upstream never heard of this call",
    },
];

/// Shows everything.
///
/// # Errors
/// When the gateway did not answer.
pub(super) async fn run(stage: &Stage, tail: &mut Tail) -> Result<(), String> {
    heading("one endpoint, two people: what their assistants are shown");
    let mut lists = Vec::new();
    for (name, _, group) in PEOPLE {
        lists.push((name, group, stage.assistant(name)?.tools().await?));
    }
    print(side_by_side(&lists));
    if !stage.has(Sample::Deploy) {
        print(format_args!(
            "\n{QUIET}The calls of the show need the sample server `deploy` in servers.toml.{QUIET:#}\n"
        ));
        return Ok(());
    }
    let alice = stage.assistant("alice")?;
    for act in ACTS {
        heading(act.title);
        tail.skip();
        print(format_args!("  alice   deploy__rollout {}\n", act.arguments));
        let arguments: Value = serde_json::from_str(act.arguments).map_err(|error| error.to_string())?;
        let answer = alice.call("deploy__rollout", &arguments).await?;
        let refusal = refusal(&answer);
        let expected = refusal.as_deref().and_then(|text| text.split(':').next()) == act.reason;
        let (style, told) = match refusal {
            Some(refusal) => (BAD, refusal),
            None => (GOOD, text(&answer)),
        };
        row("answer", style, &told);
        let because = if expected { act.because } else { "these files decide otherwise than the repository's" };
        row("because", QUIET, because);
        if let Some(line) = tail.next_call().await {
            print(format_args!("  journal {line}"));
        }
    }
    Ok(())
}

/// What can be typed now.
pub(super) fn next_steps(stage: &Stage, arguments: &DemoArguments) -> String {
    let url = stage.url();
    let mut text = String::new();
    let mut block = |title: &str, lines: &[String]| {
        // Writing to a string cannot fail.
        let _infallible = writeln!(text, "\n{STRONG}{title}{STRONG:#}");
        for line in lines {
            let _infallible = writeln!(text, "  {GOOD}{line}{GOOD:#}");
        }
    };
    let (us, files, endpoint, state) = ourselves(&url, arguments);
    let mut clients: Vec<String> = [Assistant::ClaudeCode, Assistant::Codex, Assistant::Gemini]
        .into_iter()
        .filter_map(|client| {
            connect::steps_for(client, &url).into_iter().find_map(|step| match step {
                Step::Command { command, .. } => Some(command),
                Step::File { .. } | Step::Note { .. } => None,
            })
        })
        .collect();
    clients.push(format!("{us} connect cursor{endpoint}{files}   # or: claude-desktop, vscode"));
    block("Connect your assistant; it opens a page where you choose to be alice or bob", &clients);
    let token = |name: &str| format!("BAILIWICK_TOKEN=$({us} token {name}{state}{files})");
    let status = "deploy__status '{\"service\":\"search\"}'";
    block("Or be the assistant yourself", &[format!("{} \\\n    {us} call {status}{endpoint}{files}", token("alice"))]);
    block(
        "Read the record, ask the policy, take access back",
        &[
            format!("{us} logs -f{state}{files}"),
            format!("{us} explain deploy/rollout --as user:demo/bob --group group:demo/auditors{files}"),
            format!("{us} revoke subject user:demo/alice{state}{files}"),
        ],
    );
    text
}

/// How this program is called here, and what has to be said because it is not as the files say.
fn ourselves(url: &str, arguments: &DemoArguments) -> (&'static str, String, String, String) {
    // `cargo run` says so; then nothing called `bailiwick` needs to be on the path.
    let us = if std::env::var_os("CARGO").is_some() { "cargo run -q --" } else { "bailiwick" };
    let config = &arguments.files.config;
    let files = if config.as_os_str() == "servers.toml" { String::new() } else { format!(" -c {}", config.display()) };
    let endpoint = if arguments.listen.is_some() { format!(" --url {url}") } else { String::new() };
    let state = arguments.state.as_ref().map_or_else(String::new, |state| format!(" --state {}", state.display()));
    (us, files, endpoint, state)
}

fn heading(title: &str) {
    print(format_args!("\n{STRONG}{title}{STRONG:#}\n"));
}

fn row(name: &str, style: Style, value: &str) {
    let line = value.lines().next().unwrap_or_default();
    let mut shown: String = safe(line).chars().take(ANSWER_COLUMNS).collect();
    if line.chars().count() > ANSWER_COLUMNS {
        shown.push('…');
    }
    print(format_args!("  {name:<8}{style}{shown}{style:#}\n"));
}

/// One row for every tool that somebody is shown, in the gateway's order.
fn side_by_side(lists: &[(&str, &str, Vec<String>)]) -> String {
    let mut names: Vec<&String> = Vec::new();
    for name in lists.iter().flat_map(|(_, _, tools)| tools) {
        if !names.contains(&name) {
            names.push(name);
        }
    }
    let mut text = String::from("  ");
    for (name, group, _) in lists {
        let _infallible = write!(text, "{:<36}", format!("{name} ({group})"));
    }
    text.truncate(text.trim_end().len());
    for tool in names {
        text.push_str("\n  ");
        let mut line = String::new();
        for (_, _, tools) in lists {
            let cell = if tools.contains(tool) { tool.as_str() } else { "-" };
            let _infallible = write!(line, "{cell:<36}");
        }
        text.push_str(&safe(line.trim_end()));
    }
    text.push('\n');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_stand_beside_each_other_and_fit() {
        let list = |names: &[&str]| names.iter().map(|name| (*name).to_owned()).collect();
        let lists = [("alice", "developers", list(&["a__b", "a__c"])), ("bob", "auditors", list(&["a__c"]))];
        let shown = side_by_side(&lists);
        let rows: Vec<Vec<&str>> = shown.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(rows[1], ["a__b", "-"]);
        assert_eq!(rows[2], ["a__c", "a__c"]);
        assert!(shown.lines().all(|line| line.len() <= 100));
    }
}
