//! `check`: whether the files could be served, with every mistake at once.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::Ending;
use super::output::{BAD, Files, GOOD, Output, QUIET, STRONG, WARNING, complain, list};
use crate::config::{Config, Loaded, Mistake, Overrides, TransportConfig, load_with};

const EXAMPLES: &str = "\
Examples:
  bailiwick check                      the files that `serve` would load here
  bailiwick check -c /etc/bailiwick/servers.toml
  bailiwick check --demo               the files as `bailiwick demo` would load them
  bailiwick check --strict --json      for CI: warnings count, and the answer is JSON

Mistakes are printed as FILE:LINE:COLUMN: WHAT, all of them at once.";

/// Find mistakes in servers.toml and the policies without starting anything
///
/// Reads exactly what `serve` would read, and nothing else: it opens no connection, starts no process and
/// asks no issuer.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArguments {
    #[command(flatten)]
    files: Files,
    /// Check as `demo` loads the files: its issuer `demo` is declared, unknown issuers have no effect
    #[arg(long)]
    demo: bool,
    /// Count warnings as mistakes
    #[arg(long)]
    strict: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    mistakes: &'a [Mistake],
    warnings: &'a [Mistake],
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
}

/// Checks, prints, and says how it ended.
pub fn run(arguments: &CheckArguments, output: Output) -> Ending {
    let loaded = overrides(arguments.demo).and_then(|overrides| load_with(&arguments.files.config, &overrides));
    let (mistakes, warnings, loaded) = match &loaded {
        Ok(loaded) => (&[] as &[Mistake], loaded.warnings.as_slice(), Some(loaded)),
        Err(mistakes) => (mistakes.as_slice(), &[] as &[Mistake], None),
    };
    let ok = mistakes.is_empty() && (warnings.is_empty() || !arguments.strict);
    let revision = loaded.map(|loaded| loaded.files.revision().to_string());
    if output.json {
        output.result(&Answer { ok, mistakes, warnings, revision }, "");
    } else {
        complain(list(mistakes, "", BAD));
        complain(list(warnings, "warning: ", WARNING));
        match loaded {
            Some(loaded) => output.result(&(), summary(loaded)),
            None => complain(count(mistakes.len(), !arguments.demo && a_demo_would_start(&arguments.files))),
        }
    }
    if ok { Ending::Done } else { Ending::Refused }
}

/// What is added to the files in memory: nothing, or what `demo` adds.
fn overrides(demo: bool) -> Result<Overrides, Vec<Mistake>> {
    if demo { Overrides::for_demo() } else { Ok(Overrides::default()) }
}

fn a_demo_would_start(files: &Files) -> bool {
    overrides(true).is_ok_and(|overrides| load_with(&files.config, &overrides).is_ok())
}

fn count(mistakes: usize, is_demo: bool) -> String {
    let mistakes = counted(mistakes, "mistake");
    let hint = if is_demo { "; these are a demo's files: `bailiwick check --demo`, `bailiwick demo`" } else { "" };
    format!("{BAD}{mistakes}{BAD:#}{QUIET}: this would not start{hint}{QUIET:#}\n")
}

fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn summary(loaded: &Loaded) -> String {
    let config = &loaded.config;
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = writeln!(
        text,
        "{GOOD}no mistakes{GOOD:#}  {}, {}, {}, revision {}",
        counted(config.servers.len(), "server"),
        counted(config.issuers.len(), "issuer"),
        counted(config.agents.len(), "agent"),
        loaded.files.digest().short()
    );
    for line in servers(config) {
        let _infallible = writeln!(text, "{line}");
    }
    text
}

fn servers(config: &Config) -> impl Iterator<Item = String> + '_ {
    let id_width = config.servers.iter().map(|server| server.id.as_str().len()).max().unwrap_or(0);
    let environment_width = config.servers.iter().map(|server| server.environment.as_str().len()).max().unwrap_or(0);
    config.servers.iter().map(move |server| {
        let reached = match &server.transport {
            TransportConfig::Http { url, .. } => url.to_string(),
            TransportConfig::Stdio { command, .. } => command.first().cloned().unwrap_or_default(),
        };
        format!(
            "  {STRONG}{:id_width$}{STRONG:#}  {:environment_width$}  {reached}  {QUIET}owner {}{QUIET:#}",
            server.id.as_str(),
            server.environment.as_str(),
            server.owner
        )
    })
}
