//! Runs the suite and reads what it found.
//!
//! Decides what counts: one line for each check, by scenario, id and name. Invariant: a check that did not run
//! has not passed.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::parts::Parts;

/// What is run against a server.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Set {
    /// What a revision requires, and what it runs without scoring.
    Required(&'static str),
    /// Everything that exists for a revision.
    All(&'static str),
    /// The skills extension, which is in no set.
    Skills,
}

/// Every set that a server is measured by.
pub const SETS: [Set; 6] = [
    Set::Required("2025-11-25"),
    Set::Required("2026-07-28"),
    Set::All("2025-06-18"),
    Set::All("2025-11-25"),
    Set::All("2026-07-28"),
    Set::Skills,
];

/// One check of one scenario.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Check {
    pub scenario: String,
    pub id: String,
    pub name: String,
}

impl std::fmt::Display for Check {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "{} {} ({})", self.scenario, self.id, self.name)
    }
}

/// What a check came to; the suite may make it several times in one scenario.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    pub passed: usize,
    pub complaints: Vec<String>,
}

/// What a run found.
#[derive(Debug, Clone, Default)]
pub struct Report(pub BTreeMap<Check, Tally>);

impl Report {
    pub fn passed(&self) -> usize {
        self.0.values().map(|tally| tally.passed).sum()
    }

    /// The scenarios that ran.
    pub fn scenarios(&self) -> BTreeSet<String> {
        self.0.keys().map(|check| check.scenario.clone()).collect()
    }

    /// What failed or was warned of here, or passed more often there: each with why.
    pub fn short_of(&self, there: &Self) -> BTreeMap<Check, String> {
        let mut short = BTreeMap::new();
        for (check, tally) in &self.0 {
            let already = there.0.get(check).map_or(0, |tally| tally.complaints.len());
            if tally.complaints.len() > already {
                short.insert(check.clone(), tally.complaints.join("; "));
            }
        }
        for (check, tally) in &there.0 {
            let here = self.0.get(check).map_or(0, |tally| tally.passed);
            if here < tally.passed {
                let why = || format!("it passed {here} times and not {}", tally.passed);
                short.entry(check.clone()).or_insert_with(why);
            }
        }
        short
    }

    fn read(directory: &std::path::Path) -> Self {
        let mut report = Self::default();
        let mut places = vec![directory.to_owned()];
        while let Some(place) = places.pop() {
            // `auth/SCENARIO` lies in a directory of that name.
            places.extend(
                std::fs::read_dir(&place).unwrap().map(|entry| entry.unwrap().path()).filter(|path| path.is_dir()),
            );
            let path = place;
            let name = path.strip_prefix(directory).unwrap().to_str().unwrap().to_owned();
            // `server-SCENARIO-2026-11-24T18-44-58-095Z`, or without the first word for a client.
            let scenario = &name[..name.len().saturating_sub(25)];
            let scenario = scenario.strip_prefix("server-").unwrap_or(scenario);
            let Ok(text) = std::fs::read_to_string(path.join("checks.json")) else { continue };
            let checks: Vec<Value> = serde_json::from_str(&text).unwrap();
            for check in checks {
                let word = |key: &str| check[key].as_str().unwrap_or_default().to_owned();
                let key = Check { scenario: scenario.to_owned(), id: word("id"), name: word("name") };
                let tally = report.0.entry(key).or_default();
                match check["status"].as_str() {
                    Some("SUCCESS") => tally.passed += 1,
                    Some(status @ ("FAILURE" | "WARNING")) => {
                        let mut why = format!("{status}: {}", word("errorMessage"));
                        // A schema violation names the message only in its details.
                        if word("id") == "wire-schema-valid" {
                            why.extend(check["details"].to_string().chars().take(600));
                        }
                        tally.complaints.push(why);
                    }
                    // Something to know, or something that does not apply.
                    _ => {}
                }
            }
        }
        report
    }
}

/// Runs one set against the server at a URL.
pub async fn server(parts: &Parts, url: &str, set: Set) -> Report {
    let mut report = Report::default();
    let words: Vec<Vec<&str>> = match set {
        Set::Required(revision) => vec![vec!["--requirements", revision]],
        Set::All(version) => vec![vec!["--suite", "all", "--spec-version", version]],
        Set::Skills => ["sep-2640-skills-directory", "sep-2640-skills-enumeration", "sep-2640-skills-manifest"]
            .into_iter()
            // Extensions are on no revision's timeline.
            .map(|scenario| vec!["--scenario", scenario, "--spec-version", "2026-07-28", "--force"])
            .collect(),
    };
    for words in words {
        let mut all = vec!["server", "--url", url];
        all.extend(words);
        report.0.extend(run(parts, &all).await.0);
    }
    assert!(!report.0.is_empty(), "the suite ran nothing of {set:?}");
    report
}

/// Runs one scenario in which the command is the client.
pub async fn client(parts: &Parts, command: &str, scenario: &str, version: &str) -> Report {
    let words = ["client", "--command", command, "--scenario", scenario, "--spec-version", version, "--force"];
    let words = [&words[..], &["--timeout", "60000"]].concat();
    run(parts, &words).await
}

async fn run(parts: &Parts, words: &[&str]) -> Report {
    let results = tempfile::tempdir().unwrap();
    let mut command = tokio::process::Command::new(parts.node());
    command
        .arg(parts.node_command("conformance"))
        .args(words)
        .arg("-o")
        .arg(results.path())
        .env("NO_PROXY", "*")
        .stdin(Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(Duration::from_secs(300), command.output());
    let output = output.await.unwrap_or_else(|_| panic!("{words:?} did not end within five minutes")).unwrap();
    let report = Report::read(results.path());
    // Its exit code says whether a check failed, which the report says better.
    assert!(!report.0.is_empty(), "{words:?}: {}", String::from_utf8_lossy(&output.stderr));
    report
}
