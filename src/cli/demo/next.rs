//! What can be typed and clicked while a demo runs.
//!
//! Decides what is worth trying first. Invariant: every command is complete for this demo, wherever its files, its state
//! and its addresses are.

use std::fmt::Write as _;

use super::stage::Stage;
use crate::cli::connect::{self, Client as Assistant, Step};
use crate::cli::output::{GOOD, STRONG};
use crate::cli::use_it::DemoArguments;

/// All of it.
pub(super) fn steps(stage: &Stage, arguments: &DemoArguments) -> String {
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
    block("Connect your assistant; it opens a page where you choose who you are: alice or bob", &clients);
    let call = |tool: &str, arguments: &str| {
        let token = format!("BAILIWICK_TOKEN=$({us} token alice{state}{files})");
        format!("{token} \\\n    {us} call {tool} '{arguments}'{endpoint}{files}")
    };
    block("Or be the assistant yourself", &[call("deploy__status", r#"{"service":"search"}"#)]);
    if let Some(console) = stage.console() {
        block(
            "Be the second person: make this call, approve it in the browser as carol, make it again",
            &[call("deploy__rollback", r#"{"service":"website"}"#), format!("{console}/approvals")],
        );
    }
    block(
        "Read the record, ask the policy, see what waits, take access back",
        &[
            format!("{us} logs -f{state}{files}"),
            format!("{us} explain deploy/rollout --as user:demo/bob --group group:demo/auditors{files}"),
            format!("{us} pins diff deploy/list_services{state}{files}"),
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
