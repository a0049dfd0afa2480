//! `reload`: has the running gateway read its files again, and shows what changed.
//!
//! Decides nothing: whether a set may be loaded is the gateway's question. Invariant: a set that was not
//! loaded is never reported as if it were.

use std::io::{self, Write};
use std::path::Path;

use http::{Method, StatusCode};

use super::Ending;
use super::output::{BAD, GOOD, Output, STRONG, complain, trouble};
use super::serve::ReloadArguments;
use super::state;
use crate::control::client::{self, ClientError};
use crate::control::{ReloadOrder, ReloadReport};

/// Asks, and prints what the gateway answers.
pub async fn run(arguments: &ReloadArguments, output: Output, out: &mut impl Write) -> Ending {
    let asked = match state::directory(&arguments.files) {
        Ok(state) => ask(&state, ReloadOrder { allow_widening: arguments.allow_widening }).await,
        Err(problem) => Err(problem),
    };
    match asked {
        Ok(report) => {
            // Nobody may read, but it is loaded all the same.
            let _unread = write_report(&report, output, out);
            if report.problems.is_empty() { Ending::Done } else { Ending::Refused }
        }
        Err(problem) => {
            trouble(problem);
            Ending::Trouble
        }
    }
}

async fn ask(state: &Path, order: ReloadOrder) -> Result<ReloadReport, String> {
    let answer = client::request(state, Method::POST, "/reload", Some(&order)).await.map_err(|error| match error {
        ClientError::NotRunning(state) => format!("no gateway is running on {state}: `bailiwick serve` starts one"),
        error => error.to_string(),
    })?;
    if answer.status == StatusCode::CONFLICT {
        return serde_json::from_slice(&answer.body).map_err(|error| format!("the answer is unreadable: {error}"));
    }
    answer.read().map_err(|error| error.to_string())
}

fn write_report(report: &ReloadReport, output: Output, out: &mut impl Write) -> io::Result<()> {
    if output.json {
        return writeln!(out, "{}", serde_json::to_string(report).map_err(io::Error::other)?);
    }
    for row in &report.removed {
        writeln!(out, "{BAD}- {row}{BAD:#}")?;
    }
    for row in &report.added {
        writeln!(out, "{GOOD}+ {row}{GOOD:#}")?;
    }
    if !report.problems.is_empty() {
        for problem in &report.problems {
            complain(format_args!("{BAD}{problem}{BAD:#}\n"));
        }
        return writeln!(out, "{STRONG}not loaded{STRONG:#}: what was served is still served");
    }
    let revision =
        |revision: &Option<String>| revision.as_deref().unwrap_or("none").chars().take(12).collect::<String>();
    let (from, to) = (revision(&report.from), revision(&report.to));
    if from == to {
        return writeln!(out, "{STRONG}loaded{STRONG:#}: policy {to}, nothing changed");
    }
    writeln!(out, "{STRONG}loaded{STRONG:#}: policy {from} -> {to}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(report: &ReloadReport) -> String {
        let mut out = Vec::new();
        write_report(report, Output { json: false }, &mut out).unwrap();
        String::from_utf8(anstream::adapter::strip_bytes(&out).into_vec()).unwrap()
    }

    #[test]
    fn what_changed_is_shown_and_what_was_not_loaded_says_so() {
        let loaded = ReloadReport {
            from: Some("a".repeat(64)),
            to: Some("b".repeat(64)),
            added: vec!["p, anyone, *, git/*, call, -, deny".to_owned()],
            removed: vec!["p, anyone, *, git/*, call, -, allow".to_owned()],
            problems: Vec::new(),
        };
        insta::assert_snapshot!("reload_loaded", shown(&loaded));
        insta::assert_snapshot!(
            "reload_unchanged",
            shown(&ReloadReport { to: loaded.from.clone(), added: vec![], removed: vec![], ..loaded.clone() })
        );
        let refused = ReloadReport { problems: vec!["policies/policy.csv:3:1: wider".to_owned()], to: None, ..loaded };
        insta::assert_snapshot!("reload_refused", shown(&refused));
    }

    #[tokio::test]
    async fn without_a_gateway_there_is_a_hint() {
        let place = tempfile::tempdir().unwrap();
        let problem = ask(place.path(), ReloadOrder::default()).await.unwrap_err();
        assert!(problem.contains("bailiwick serve"), "{problem}");
    }
}
