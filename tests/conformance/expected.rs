//! What is known not to pass, and why: `expected.toml` for ever, `not-yet.toml` until it is built.
//!
//! Decides whether a run is as expected. Invariant: an entry that passes fails the run, like a check that fails
//! without an entry.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;

use crate::suite::Check;

/// At most so many checks may be excused in a run.
const EXCUSED_MAX: usize = 15;
/// Where sentences of the specification stand: in a version of it, at a section.
const SPECIFICATION: &str = "https://modelcontextprotocol.io/specification/20";

/// A check that cannot pass.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Expected {
    pub scenario: String,
    pub check: String,
    behind: Behind,
    /// Runs in which it passes all the same.
    #[serde(default)]
    except: Vec<String>,
    /// The sentence of the specification.
    because: String,
    /// Where it stands.
    source: String,
}

/// Behind which upstreams it cannot.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Behind {
    /// A legacy server has no way to say it.
    Legacy,
    /// The suite has nothing to judge, and says so itself: this excuses no complaint.
    Any,
}

/// What the gateway does not do yet.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Missing {
    /// A scenario; everything in it may fail.
    scenario: String,
    /// In which runs.
    runs: Vec<String>,
    /// What has to be built for it.
    #[serde(rename = "feature")]
    _feature: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File<T> {
    #[serde(default = "Vec::new")]
    check: Vec<T>,
}

/// The checks that a legacy server cannot express.
pub fn inexpressible() -> Vec<Expected> {
    expected().into_iter().filter(|entry| entry.behind == Behind::Legacy).collect()
}

fn expected() -> Vec<Expected> {
    let file: File<Expected> = toml::from_str(include_str!("expected.toml")).unwrap();
    let mut seen = BTreeSet::new();
    for Expected { scenario, check, because, source, .. } in &file.check {
        let sentence = because.split(' ').count() > 4 && because.ends_with('.') && !because.contains('*');
        let section = source.starts_with(SPECIFICATION) && source.split_once('#').is_some_and(|(_, at)| !at.is_empty());
        assert!(
            sentence && section,
            "{scenario} {check} has no sentence of the specification, or it does not say where"
        );
        assert!(seen.insert((scenario, check)), "{scenario} {check} is listed twice");
    }
    assert!(file.check.len() <= EXCUSED_MAX, "{} checks are listed, {EXCUSED_MAX} may be", file.check.len());
    file.check
}

/// Compares what fails in a run of some scenarios with what is written down for it.
///
/// # Panics
/// Where they differ.
pub fn compare(run: &str, legacy_upstream: bool, ran: &BTreeSet<String>, mut failing: BTreeMap<Check, String>) {
    let mut stale = Vec::new();
    for (check, why) in &failing {
        // Not `eprintln`, which the test runner keeps to itself when a test passes.
        let line = format!("conformance: {run}: lost: {check}: {why:.300}\n");
        let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    }
    let concerns = |entry: &&Expected| !entry.except.iter().any(|passes| passes == run);
    let applies = |entry: &&Expected| legacy_upstream || entry.behind == Behind::Any;
    for entry in expected().iter().filter(applies).filter(concerns) {
        let excused = |check: &Check, why: &String| {
            let silent = !why.starts_with("FAILURE") && !why.starts_with("WARNING");
            check.scenario == entry.scenario && check.id == entry.check && (entry.behind == Behind::Legacy || silent)
        };
        let before = failing.len();
        failing.retain(|check, why| !excused(check, why));
        if failing.len() == before && ran.contains(&entry.scenario) {
            stale.push(format!("expected.toml: {} {}", entry.scenario, entry.check));
        }
    }
    let file: File<Missing> = toml::from_str(include_str!("not-yet.toml")).unwrap();
    for entry in file.check.iter().filter(|entry| entry.runs.iter().any(|name| name == run)) {
        let before = failing.len();
        failing.retain(|check, _| check.scenario != entry.scenario);
        if failing.len() == before && ran.contains(&entry.scenario) {
            stale.push(format!("not-yet.toml: {} in {run}", entry.scenario));
        }
    }
    let lines: Vec<_> = failing.iter().map(|(check, why)| format!("{check}: {why}")).collect();
    assert!(
        lines.is_empty() && stale.is_empty(),
        "{run}: {} checks fail:\n{}\n{} entries pass and have to go:\n{}",
        lines.len(),
        lines.join("\n"),
        stale.len(),
        stale.join("\n")
    );
}
