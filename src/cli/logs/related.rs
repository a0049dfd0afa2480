//! Which records belong to what was asked for: those of a call, and of the mandates, approvals and credentials that it
//! used; or those of a mandate or an approval, and of the calls that used it.
//!
//! Decides what belongs together. Refuses to know how it is shown. Invariant: what another call did under the same mandate
//! does not belong to a call, however much of it there is.

use std::collections::BTreeSet;
use std::io;
use std::path::Path;

use aho_corasick::AhoCorasick;
use serde_json::Value;

use crate::limit;
use crate::record::read::{Reader, segments};

/// What a tree begins with.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Root {
    Call(String),
    Mandate(String),
    Approval(String),
}

impl Root {
    pub(super) fn id(&self) -> &str {
        match self {
            Self::Call(id) | Self::Mandate(id) | Self::Approval(id) => id,
        }
    }

    pub(super) const fn kind(&self) -> &'static str {
        match self {
            Self::Call(_) => "call",
            Self::Mandate(_) => "mandate",
            Self::Approval(_) => "approval",
        }
    }
}

/// What has that id, or one that begins or ends like it; the first few of it.
pub(super) fn find(directory: &Path, id: &str) -> io::Result<BTreeSet<Root>> {
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

/// The records that belong to it, each as it is written and as it is read, in the order in which they were written.
pub(super) fn records(directory: &Path, root: &Root) -> io::Result<Vec<(String, Value)>> {
    let mut related = Related::of(root);
    // What one look finds names what the next one looks for, up to the mandate above all others.
    loop {
        let known = related.names.len();
        let names = AhoCorasick::new(&related.names).map_err(io::Error::other)?;
        let mut kept = Vec::new();
        each(directory, &names, |line, record| {
            if related.takes(&record) {
                kept.push((line.to_owned(), record));
            }
            true
        })?;
        if related.names.len() == known || known >= limit::LOGS_RELATED_MAX {
            return Ok(kept);
        }
    }
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

/// What is known to belong to it.
struct Related {
    calls: BTreeSet<String>,
    mandates: BTreeSet<String>,
    approvals: BTreeSet<String>,
    /// All of them, and the credentials.
    names: BTreeSet<String>,
    /// Whether what used a mandate or an approval belongs to it, and not only what a call used.
    from_above: bool,
}

impl Related {
    fn of(root: &Root) -> Self {
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
            "admin" => {
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
