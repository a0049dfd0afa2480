//! Which records belong to what was asked for: those of a call, and of the mandates, approvals and credentials that it
//! used; or those of a mandate or an approval, and of the calls that used it.
//!
//! Decides what belongs together. Refuses to know how it is shown. Invariant: what another call did under the same mandate
//! does not belong to a call, however much of it there is.
//!
//! One thing may be told on the records of several replicas: what is known to belong to it is handed from one to the other,
//! and each looks again, until none finds more.

use std::collections::{BTreeSet, HashMap};
use std::io;
use std::path::Path;

use aho_corasick::AhoCorasick;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::read::{Reader, segments};
use crate::limit;

/// What a tree begins with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(tag = "kind", content = "id", rename_all = "snake_case")]
pub enum Root {
    /// A call.
    Call(String),
    /// A mandate.
    Mandate(String),
    /// A request for approval.
    Approval(String),
}

impl Root {
    /// Its whole name.
    #[must_use]
    pub fn id(&self) -> &str {
        match self {
            Self::Call(id) | Self::Mandate(id) | Self::Approval(id) => id,
        }
    }

    /// What it is, for people.
    #[must_use]
    pub const fn kind(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Mandate(_) => "mandate",
            Self::Approval(_) => "approval",
        }
    }
}

/// What has that id, or one that begins or ends like it; the first few of it.
///
/// # Errors
/// When a file cannot be read.
pub fn find(directory: &Path, id: &str) -> io::Result<BTreeSet<Root>> {
    let mut roots = BTreeSet::new();
    let spellings = [id.to_ascii_uppercase(), id.to_ascii_lowercase()];
    let wanted = AhoCorasick::new(&spellings).map_err(io::Error::other)?;
    let fits = |found: &str| spellings.iter().any(|id| found.starts_with(id) || found.ends_with(id));
    each(directory, &wanted, |_, record| {
        let found = [
            ("/call", Root::Call as fn(String) -> Root),
            ("/mandate/id", Root::Mandate),
            ("/approval/id", Root::Approval),
            ("/approval", Root::Approval),
        ];
        for (pointer, root) in found {
            let value = record.pointer(pointer).and_then(Value::as_str);
            roots.extend(value.filter(|value| fits(value)).map(|value| root(value.to_owned())));
        }
        // What an upstream wrote into its own log is the leg; that is long, and belongs to its call.
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str);
        if let (Some(leg), Some(call)) = (text("/leg"), text("/call"))
            && leg.eq_ignore_ascii_case(id)
        {
            roots.insert(Root::Call(call.to_owned()));
        }
        roots.len() <= limit::LOGS_CANDIDATES_MAX
    })?;
    Ok(roots)
}

/// Lines that belong to something, of one record.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lines {
    /// As they are written, in the order in which they were.
    pub lines: Vec<String>,
    /// There were more of them than fitted.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub cut: bool,
}

/// The lines of one record that belong to something, so many bytes of them. What they name besides is known to belong to it
/// from then on.
///
/// # Errors
/// When a file cannot be read.
pub fn lines(directory: &Path, related: &mut Related, bytes_max: usize) -> io::Result<Lines> {
    // What one look finds names what the next one looks for, up to the mandate above all others.
    loop {
        let known = related.names.len();
        let names = AhoCorasick::new(&related.names).map_err(io::Error::other)?;
        let (mut found, mut left) = (Lines::default(), bytes_max);
        each(directory, &names, |line, record| {
            if related.takes(&record) {
                match left.checked_sub(line.len()) {
                    Some(rest) => {
                        left = rest;
                        found.lines.push(line.to_owned());
                    }
                    None => found.cut = true,
                }
            }
            true
        })?;
        if related.names.len() == known || known >= limit::LOGS_RELATED_MAX {
            return Ok(found);
        }
    }
}

/// The lines of several records as one, in the order of the moments that they tell. A revocation is told by every replica;
/// it is handed out as the one tells it where it was ordered, if that one is among them.
#[must_use]
pub fn merged(records: Vec<Vec<String>>) -> Vec<(String, Value)> {
    let several = records.len() > 1;
    let mut all: Vec<(String, Value)> = records
        .into_iter()
        .flatten()
        .filter_map(|line| serde_json::from_str(&line).ok().map(|record| (line, record)))
        .collect();
    if !several {
        return all;
    }
    let epoch = |record: &Value| record.pointer("/revocation/epoch").and_then(Value::as_u64);
    let is_elsewhere = |record: &Value| record.pointer("/revocation/ordered_at").is_some();
    let mut told: HashMap<u64, bool> = HashMap::new();
    for (_, record) in &all {
        if let Some(epoch) = epoch(record) {
            *told.entry(epoch).or_default() |= !is_elsewhere(record);
        }
    }
    all.retain(|(_, record)| {
        let Some(epoch) = epoch(record).filter(|_| is_elsewhere(record)) else { return true };
        // The first of those that only took it over stands for all of them.
        !told.insert(epoch, true).unwrap_or_default()
    });
    let at =
        |record: &Value| record.get("at").and_then(Value::as_str).and_then(|at| at.parse::<jiff::Timestamp>().ok());
    // Of one replica they keep their order where the moments are the same.
    all.sort_by_key(|(_, record)| at(record));
    all
}

/// Hands out every record that names one of them, until told to stop.
fn each(directory: &Path, names: &AhoCorasick, mut see: impl FnMut(&str, Value) -> bool) -> io::Result<()> {
    for first in segments(directory)? {
        let lines = Reader::new(directory, first).segment()?;
        // Most lines do not have it anywhere: those are not parsed.
        for line in lines.lines().filter(|line| names.is_match(*line)) {
            let Ok(record) = serde_json::from_str::<Value>(line) else { continue };
            if !see(line, record) {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What is known to belong to something.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Related {
    calls: BTreeSet<String>,
    mandates: BTreeSet<String>,
    approvals: BTreeSet<String>,
    /// All of them, and the credentials.
    names: BTreeSet<String>,
    /// Whether what used a mandate or an approval belongs to it, and not only what a call used.
    from_above: bool,
}

impl Related {
    /// Nothing but what was asked for.
    #[must_use]
    pub fn of(root: &Root) -> Self {
        let mut related = Self {
            calls: BTreeSet::new(),
            mandates: BTreeSet::new(),
            approvals: BTreeSet::new(),
            names: BTreeSet::from([root.id().to_owned()]),
            from_above: !matches!(root, Root::Call(_)),
        };
        let _new = match root {
            Root::Call(id) => related.calls.insert(id.clone()),
            Root::Mandate(id) => related.mandates.insert(id.clone()),
            Root::Approval(id) => related.approvals.insert(id.clone()),
        };
        related
    }

    /// Takes in what another record has found; answers whether that is more.
    pub fn join(&mut self, other: &Self) -> bool {
        let known = self.names.len();
        let own = [
            (&mut self.calls, &other.calls),
            (&mut self.mandates, &other.mandates),
            (&mut self.approvals, &other.approvals),
        ];
        for (own, theirs) in own {
            theirs.iter().for_each(|name| Self::add(own, &mut self.names, name));
        }
        other.names.iter().for_each(|name| Self::name(&mut self.names, name));
        self.names.len() > known
    }

    /// Whether all that another one knows is known here.
    #[must_use]
    pub fn is_no_less_than(&self, other: &Self) -> bool {
        other.names.is_subset(&self.names)
    }

    /// Whether it belongs to it; what it names does then, too.
    fn takes(&mut self, record: &Value) -> bool {
        let text = |pointer: &str| record.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (call, mandate, parent) = (text("/call"), text("/mandate/id"), text("/mandate/parent"));
        let approval = if text("/approval").is_empty() { text("/approval/id") } else { text("/approval") };
        if self.from_above && !call.is_empty() && (self.mandates.contains(mandate) || self.approvals.contains(approval))
        {
            Self::add(&mut self.calls, &mut self.names, call);
        }
        if self.from_above && call.is_empty() && self.mandates.contains(parent) {
            Self::add(&mut self.mandates, &mut self.names, mandate);
        }
        if self.calls.contains(call) {
            // Those of a whole mandate's calls are left to the calls: there may be thousands.
            if !self.from_above {
                Self::add(&mut self.mandates, &mut self.names, mandate);
                Self::add(&mut self.approvals, &mut self.names, approval);
                Self::name(&mut self.names, text("/credential/issue"));
            }
            return true;
        }
        if call.is_empty() && self.mandates.contains(mandate) {
            if !self.from_above {
                Self::add(&mut self.mandates, &mut self.names, parent);
            }
            return true;
        }
        match text("/type") {
            "approval" => self.approvals.contains(approval),
            "revocation" => self.names.contains(text("/revocation/value")),
            // Who has looked is no part of what is looked at.
            "admin" if text("/admin/operation") != "logs" => {
                let about = text("/admin/about");
                self.names.iter().any(|name| about.contains(name.as_str()))
            }
            _ => false,
        }
    }

    fn add(of: &mut BTreeSet<String>, names: &mut BTreeSet<String>, name: &str) {
        if !name.is_empty() && names.len() < limit::LOGS_RELATED_MAX {
            of.insert(name.to_owned());
            names.insert(name.to_owned());
        }
    }

    fn name(names: &mut BTreeSet<String>, name: &str) {
        if !name.is_empty() && names.len() < limit::LOGS_RELATED_MAX {
            names.insert(name.to_owned());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journal(lines: &[&str]) -> tempfile::TempDir {
        let place = tempfile::tempdir().unwrap();
        std::fs::write(place.path().join("00000000000000000001.jsonl"), lines.join("\n") + "\n").unwrap();
        place
    }

    const CALL: &str = r#"{"v":1,"seq":1,"at":"2026-11-23T10:00:05Z","replica":"A","type":"intent","call":"CALL","leg":"L","mandate":{"id":"TASK"},"approval":"ASKED"}"#;
    const TASK: &str = r#"{"v":1,"seq":1,"at":"2026-11-23T10:00:00Z","replica":"B","type":"mandate","mandate":{"event":"opened","id":"TASK","parent":"ABOVE"}}"#;
    const SAID: &str = r#"{"v":1,"seq":2,"at":"2026-11-23T10:00:04Z","replica":"B","type":"approval","approval":{"event":"approved","id":"ASKED"}}"#;
    const ABOVE: &str = r#"{"v":1,"seq":9,"at":"2026-11-23T09:00:00Z","replica":"A","type":"mandate","mandate":{"event":"opened","id":"ABOVE"}}"#;
    const OTHER: &str = r#"{"v":1,"seq":3,"at":"2026-11-23T10:00:04Z","replica":"B","type":"intent","call":"OTHER","leg":"M","mandate":{"id":"TASK"}}"#;
    const LOOKED: &str = r#"{"v":1,"seq":4,"at":"2026-11-23T11:00:04Z","replica":"B","type":"admin","admin":{"operation":"logs","about":"CALL"}}"#;

    /// Asks both until neither finds more; answers what belongs to it, by its number and replica.
    fn told(root: &Root, records: [&tempfile::TempDir; 2]) -> Vec<String> {
        let mut related = Related::of(root);
        for _ in 0..5 {
            let mut found = Vec::new();
            let before = related.clone();
            for record in records {
                let mut own = before.clone();
                found.push(lines(record.path(), &mut own, usize::MAX).unwrap().lines);
                related.join(&own);
            }
            if before.is_no_less_than(&related) {
                let name = |record: &Value| format!("{}{}", record["replica"].as_str().unwrap(), record["seq"]);
                return merged(found).iter().map(|(_, record)| name(record)).collect();
            }
        }
        panic!("they never agree");
    }

    #[test]
    fn what_belongs_together_is_found_on_two_records_and_told_in_its_order() {
        let (here, there) = (journal(&[ABOVE, CALL]), journal(&[TASK, SAID, OTHER, LOOKED]));
        let call = Root::Call("CALL".to_owned());
        assert_eq!(told(&call, [&here, &there]), ["A9", "B1", "B2", "A1"], "and no other call under its mandate");
        assert_eq!(told(&Root::Mandate("TASK".to_owned()), [&there, &here]), ["B1", "B3", "A1"]);
        assert_eq!(told(&Root::Approval("ASKED".to_owned()), [&there, &here]), ["B2", "A1"]);
    }

    #[test]
    fn so_many_bytes_are_handed_out_and_that_there_were_more_is_said() {
        let here = journal(&[CALL, ABOVE]);
        let mut related = Related::of(&Root::Call("CALL".to_owned()));
        let found = lines(here.path(), &mut related, CALL.len()).unwrap();
        assert_eq!((found.lines, found.cut), (vec![CALL.to_owned()], false));
        let found = lines(here.path(), &mut related, CALL.len() - 1).unwrap();
        assert_eq!((found.lines.len(), found.cut), (0, true));
    }

    #[test]
    fn a_revocation_that_every_replica_tells_is_told_once() {
        let revoked = |replica: &str, ordered_at: &str| {
            format!(
                r#"{{"at":"2026-11-23T10:00:00Z","replica":"{replica}","type":"revocation","revocation":{{"epoch":7{ordered_at}}}}}"#
            )
        };
        let elsewhere = r#","ordered_at":"A""#;
        let replicas = |records: Vec<Vec<String>>| -> Vec<String> {
            merged(records).iter().map(|(_, record)| record["replica"].as_str().unwrap().to_owned()).collect()
        };
        let own = vec![revoked("A", "")];
        assert_eq!(replicas(vec![vec![revoked("B", elsewhere)], own.clone()]), ["A"]);
        assert_eq!(replicas(vec![own, vec![revoked("B", elsewhere)]]), ["A"]);
        assert_eq!(replicas(vec![vec![revoked("B", elsewhere)], vec![revoked("C", elsewhere)]]), ["B"]);
    }
}
