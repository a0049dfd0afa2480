//! `check`: whether the files could be served, with every mistake at once.

use std::fmt::Write as _;

use clap::Args;
use serde::Serialize;

use super::Ending;
use super::files::{Files, Understood};
use super::output::{BAD, GOOD, Output, QUIET, STRONG, WARNING, complain, list, trouble};
use crate::config::{Config, Mistake, TransportConfig};
use crate::policy::TestReport;

const EXAMPLES: &str = "\
Examples:
  bailiwick check                      the files that `serve` would load here
  bailiwick check -c /etc/bailiwick/servers.toml
  bailiwick check --demo               the files as `bailiwick demo` would load them
  bailiwick check --standalone         the files as `bailiwick stdio --standalone` would load them
  bailiwick check --coverage           also: which rules no test of policies/tests.toml decides
  bailiwick check --strict --json      for CI: warnings count, and the answer is JSON
  bailiwick check --seal               for CI, after the review: writes policies/REVISION

Mistakes are printed as FILE:LINE:COLUMN: WHAT, all of them at once.";

/// Find mistakes in servers.toml and the policies without starting anything
///
/// Reads exactly what `serve` would read, and nothing else: it opens no connection, starts no process and
/// asks no issuer. Then it runs the expected decisions of policies/tests.toml.
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct CheckArguments {
    #[command(flatten)]
    files: Files,
    /// Check as `demo` loads the files: its issuer `demo` is declared, unknown issuers have no effect
    #[arg(long)]
    demo: bool,
    /// Check as `stdio --standalone` loads the files: the one user is user:local/NAME, and nothing is production
    #[arg(long, conflicts_with = "demo")]
    standalone: bool,
    /// Rules that no test decides, and servers without a test that allows and one that denies, are mistakes
    #[arg(long)]
    coverage: bool,
    /// Count warnings as mistakes
    #[arg(long)]
    strict: bool,
    /// Write policies/REVISION if there are no mistakes: a reload loads a sealed set although it allows more
    #[arg(long, conflicts_with_all = ["demo", "standalone"])]
    seal: bool,
}

#[derive(Serialize)]
struct Answer<'a> {
    ok: bool,
    mistakes: &'a [Mistake],
    warnings: &'a [Mistake],
    #[serde(skip_serializing_if = "Option::is_none")]
    tests: Option<&'a TestReport>,
    #[serde(skip_serializing_if = "Option::is_none")]
    revision: Option<String>,
    /// The file that seals the revision now, where one was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    sealed: Option<String>,
}

/// Checks, prints, and says how it ended.
#[must_use]
pub fn run(arguments: &CheckArguments, output: Output) -> Ending {
    let files = &arguments.files;
    let understood = match (arguments.demo, arguments.standalone) {
        (true, _) => files.as_demo(),
        (_, true) => files.as_standalone(),
        _ => files.as_served(),
    };
    // A start refuses them; a new seal replaces the one that does not fit.
    let understood = match understood {
        Ok(understood) if !arguments.seal => match understood.loaded.files.seal_mistake() {
            Some(mistake) => Err(vec![mistake]),
            None => Ok(understood),
        },
        other => other,
    };
    let report = understood.as_ref().ok().map(|understood| understood.policy.run_tests());
    let (mistakes, warnings, understood) = match &understood {
        Ok(understood) => (&[] as &[Mistake], understood.warnings.as_slice(), Some(understood)),
        Err(mistakes) => (mistakes.as_slice(), &[] as &[Mistake], None),
    };
    let tested =
        report.as_ref().is_none_or(|report| report.is_passed() && (report.is_covered() || !arguments.coverage));
    let ok = mistakes.is_empty() && (warnings.is_empty() || !arguments.strict) && tested;
    let revision = understood.map(|understood| understood.loaded.files.revision().to_string());
    let sealed =
        match understood.filter(|_| ok && arguments.seal).map(|understood| understood.loaded.files.write_seal()) {
            Some(Ok(path)) => Some(path.display().to_string()),
            Some(Err(error)) => {
                trouble(format_args!("policies/REVISION cannot be written: {error}"));
                return Ending::Trouble;
            }
            None => None,
        };
    if output.json {
        output.result(&Answer { ok, mistakes, warnings, tests: report.as_ref(), revision, sealed }, "");
    } else {
        complain(list(mistakes, "", BAD));
        complain(list(warnings, "warning: ", WARNING));
        match (understood, &report) {
            (Some(understood), Some(report)) => {
                complain(failures(report, arguments.coverage, understood));
                let sealed = sealed.map(|path| format!("{GOOD}sealed{GOOD:#}  {path}\n")).unwrap_or_default();
                output.result(&(), summary(understood, report) + sealed.as_str());
            }
            _ => complain(count(mistakes.len(), !arguments.demo && !arguments.standalone && files.as_demo().is_ok())),
        }
    }
    if ok { Ending::Done } else { Ending::Refused }
}

fn failures(report: &TestReport, coverage: bool, understood: &Understood) -> String {
    let policies = understood.loaded.files.shown("");
    let mut text: String = report.failed.iter().map(|line| format!("{policies}{BAD}{line}{BAD:#}\n")).collect();
    if coverage {
        for line in &report.uncovered_rules {
            let _infallible = writeln!(text, "{policies}{line}: {BAD}no test decides by it{BAD:#}");
        }
        for line in &report.untested_servers {
            let _infallible = writeln!(text, "{policies}tests.toml: {BAD}{line}{BAD:#}");
        }
    }
    text
}

fn count(mistakes: usize, is_demo: bool) -> String {
    let mistakes = counted(mistakes, "mistake");
    let hint = if is_demo { "; these are a demo's files: `bailiwick check --demo`, `bailiwick demo`" } else { "" };
    format!("{BAD}{mistakes}{BAD:#}{QUIET}: this would not start{hint}{QUIET:#}\n")
}

/// `1 rule`, `2 rules`.
pub(super) fn counted(count: usize, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

fn summary(understood: &Understood, report: &TestReport) -> String {
    let config = understood.config();
    let mut text = String::new();
    // Writing to a string cannot fail.
    let _infallible = writeln!(
        text,
        "{GOOD}no mistakes{GOOD:#}  {}, {}, {}, {}, {} passed, revision {}",
        counted(config.servers.len(), "server"),
        counted(config.issuers.len(), "issuer"),
        counted(config.agents.len(), "agent"),
        counted(understood.policy.rules().len(), "rule"),
        counted(report.passed, "test"),
        understood.loaded.files.digest().short()
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
