//! Reads a journal once and counts: what was allowed, to whom, by which rule.
//!
//! Invariant: bounded in memory, whatever the journal holds; what did not fit is counted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::ids::PolicyRevision;
use crate::limit;
use crate::policy::{Grant, Policy};
use crate::record::read::{Reader, Record, segments};

/// What somebody did, as far as grants tell acts apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Act {
    /// As rules spell them: `user:ISSUER/SUB`.
    pub subject: String,
    /// The agent that did it.
    pub agent: String,
    /// Where.
    pub environment: String,
    /// At which server.
    pub server: String,
    /// With what, in the server's own spelling.
    pub name: String,
    /// As rules spell it: `call`, `read`.
    pub action: String,
}

/// How often, and when for the last time.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Used {
    /// How often.
    pub count: u64,
    /// For the last time.
    pub last: Timestamp,
}

/// What a journal says of a window of time.
#[derive(Debug)]
pub struct Usage {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The oldest record that was read: earlier ones are gone, or were never written.
    pub oldest: Option<Timestamp>,
    /// What was done, and how often.
    pub acts: BTreeMap<Act, Used>,
    /// Acts that did not fit.
    pub not_kept: u64,
    /// By revision and place.
    rules: HashMap<(String, String), Used>,
}

/// How sure it is whether a grant was used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Confidence {
    /// The record names the rule, under the policy in force.
    Exact,
    /// The record names acts that the rule covers, under an earlier policy; another rule may have allowed them.
    ByObject,
    /// Another replica told that it was used; how often is on its record.
    Elsewhere,
    /// The record does not tell: it never says which rule let a server ask something, or not all of it fitted.
    Untold,
}

/// Whether a grant was used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct GrantUse {
    /// Which.
    pub grant: Grant,
    /// How often, if ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used: Option<Used>,
    /// How sure that is.
    pub confidence: Confidence,
}

impl Used {
    fn again(self, other: Self) -> Self {
        Self { count: self.count.saturating_add(other.count), last: self.last.max(other.last) }
    }
}

impl Usage {
    /// Reads a journal from `since` on. Reads every segment that may hold such records, one after the other.
    ///
    /// # Errors
    /// When a file cannot be read.
    pub fn read(journal: &Path, since: Timestamp, until: Timestamp) -> io::Result<Self> {
        let mut usage = Self { since, until, ..Self::of(BTreeMap::new()) };
        for segment in segments(journal)? {
            let lines = Reader::new(journal, segment).segment()?;
            for record in lines.lines().filter_map(Record::read) {
                usage.see(&record);
            }
        }
        Ok(usage)
    }

    /// What was done, without a journal.
    pub(super) fn of(acts: BTreeMap<Act, Used>) -> Self {
        let (since, until) = (Timestamp::MIN, Timestamp::MAX);
        Self { since, until, oldest: None, acts, not_kept: 0, rules: HashMap::new() }
    }

    fn see(&mut self, record: &Record) {
        if record.at < self.since || record.at > self.until {
            return;
        }
        self.oldest.get_or_insert(record.at);
        let (Some(decision), Some(mcp)) = (&record.decision, &record.mcp) else { return };
        if record.kind != "intent" || decision.effect != "allow" {
            return;
        }
        let used = Used { count: 1, last: record.at };
        for place in decision.rule.iter().flat_map(|rules| rules.split(", ")) {
            let key = (decision.revision.clone().unwrap_or_default(), place.to_owned());
            if self.rules.len() < limit::EVIDENCE_ROWS_MAX || self.rules.contains_key(&key) {
                self.rules.entry(key).and_modify(|known| *known = known.again(used)).or_insert(used);
            } else {
                self.not_kept += 1;
            }
        }
        let Some(server) = &mcp.server else { return };
        let agent = record.agent.as_ref().and_then(|agent| agent.id.clone().or_else(|| agent.client.clone()));
        let act = Act {
            subject: record.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default(),
            agent: agent.unwrap_or_default(),
            environment: mcp.environment.clone().unwrap_or_default(),
            server: server.clone(),
            name: mcp.name.clone().unwrap_or_default(),
            action: action(&mcp.method),
        };
        if self.acts.len() < limit::EVIDENCE_ROWS_MAX || self.acts.contains_key(&act) {
            self.acts.entry(act).and_modify(|known| *known = known.again(used)).or_insert(used);
        } else {
            self.not_kept += 1;
        }
    }

    /// Which grants of a policy were used.
    #[must_use]
    pub fn of_grants(&self, policy: &Policy) -> Vec<GrantUse> {
        let PolicyRevision(revision) = policy.revision();
        let (revision, short) = (revision.to_string(), revision.short().to_string());
        let is_this = |told: &str| told == revision || told == short;
        let named = |place: &str| {
            let uses = self.rules.iter().filter(|((told, at), _)| is_this(told) && at == place);
            uses.map(|(_, used)| *used).reduce(Used::again)
        };
        let only_this = self.rules.keys().all(|(told, _)| is_this(told));
        let grants = policy.grants().into_iter();
        grants
            .map(|grant| {
                let used = named(&grant.place);
                if used.is_some() || only_this {
                    return GrantUse { grant, used, confidence: Confidence::Exact };
                }
                let covered = self
                    .acts
                    .iter()
                    .filter(|(act, _)| policy.covers(&grant, &act.environment, &act.server, &act.name, &act.action));
                let used = covered.map(|(_, used)| *used).reduce(Used::again);
                GrantUse { grant, used, confidence: Confidence::ByObject }
            })
            .map(|told| match told.used {
                None if self.not_kept > 0 || ASKED_BY_SERVERS.contains(&told.grant.action.as_str()) => {
                    GrantUse { confidence: Confidence::Untold, ..told }
                }
                _ => told,
            })
            .collect()
    }
}

impl GrantUse {
    /// Whether all that is known of its use is what another replica told.
    #[must_use]
    pub fn is_elsewhere(&self) -> bool {
        self.confidence == Confidence::Elsewhere
    }

    /// Whether nobody has used it, as far as that can be known.
    #[must_use]
    pub fn is_unused(&self) -> bool {
        self.used.is_none() && self.confidence != Confidence::Untold
    }
}

/// What a server may ask of its client: no intent names the rule that let it.
const ASKED_BY_SERVERS: [&str; 3] = ["elicit", "sample", "roots"];

/// The action of a method, as rules spell it. A task is asked about with the rule of the call that became it.
fn action(method: &str) -> String {
    match method {
        "tools/call" | "tasks/get" | "tasks/update" | "tasks/cancel" | "tasks/result" => "call".to_owned(),
        "resources/read" => "read".to_owned(),
        "prompts/get" => "get".to_owned(),
        "completion/complete" => "complete".to_owned(),
        "subscriptions/listen" | "resources/subscribe" => "subscribe".to_owned(),
        other => format!("method:{other}"),
    }
}
