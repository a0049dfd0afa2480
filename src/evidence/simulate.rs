//! Which recorded calls another policy would decide otherwise.
//!
//! Decides nothing: it asks the policy about what the record tells, and counts. Invariants: what the record does not tell
//! is counted with its reason and is no difference; bounded in memory, whatever the journal holds, and what did not fit is
//! counted.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::path::Path;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::suggest::earlier;
use crate::ids::PolicyRevision;
use crate::limit;
use crate::outcome::Reason;
use crate::policy::{GATEWAY_SERVER, Policy, Replayed, Told};
use crate::record::read::{Reader, segments};

/// What a simulation found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Simulation {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The oldest record that was read.
    pub oldest_record: Option<Timestamp>,
    /// The policy that was asked.
    pub revision: PolicyRevision,
    /// Decisions that were asked about.
    pub decisions: u64,
    /// How many of them would be the same.
    pub unchanged: u64,
    /// What would be decided otherwise, the most frequent first.
    pub changes: Vec<Flip>,
    /// What nobody can tell, by reason, the most frequent first.
    pub cannot_tell: Vec<Untold>,
    /// Refusals that had another reason than the rules: budgets, approvals, what was seen.
    pub not_by_rules: u64,
    /// Rows that did not fit.
    pub not_kept: u64,
}

/// Which way a decision would turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Way {
    /// It was refused and would be allowed.
    NewlyAllowed,
    /// It was allowed and would be refused.
    NewlyRefused,
}

/// What would be decided otherwise.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Flip {
    /// Which way.
    pub change: Way,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// By whom.
    pub subject: String,
    /// With which agent.
    pub agent: String,
    /// The rules that allowed, or the reason of the refusal.
    pub was: String,
    /// The same under the other policy.
    pub would_be: String,
    /// How often.
    pub count: u64,
    /// For the last time.
    pub last: Timestamp,
}

/// What nobody can tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Untold {
    /// Why.
    pub why: String,
    /// How often.
    pub count: u64,
    /// One of them.
    pub example: String,
}

/// A line of the record, as far as a decision is told by it.
#[derive(Debug, Deserialize)]
struct Line {
    at: Timestamp,
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    call: Option<String>,
    #[serde(default)]
    subject: Option<SubjectLine>,
    #[serde(default)]
    agent: Option<AgentLine>,
    #[serde(default)]
    chain: Vec<String>,
    #[serde(default)]
    token: Option<TokenLine>,
    #[serde(default)]
    mcp: Option<OperationLine>,
    #[serde(default)]
    decision: Option<DecisionLine>,
    #[serde(default)]
    arguments: Option<ArgumentsLine>,
    #[serde(default)]
    mandate: Option<MandateLine>,
    #[serde(default)]
    labels: Option<LabelsLine>,
}

#[derive(Debug, Deserialize)]
struct SubjectLine {
    id: String,
    #[serde(default)]
    acr: Option<String>,
    #[serde(default)]
    authenticated_at: Option<i64>,
    #[serde(default)]
    groups: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct AgentLine {
    #[serde(default)]
    id: Option<String>,
    #[serde(default)]
    proof: String,
}

#[derive(Debug, Deserialize)]
struct TokenLine {
    #[serde(default)]
    scopes: Option<Vec<String>>,
}

#[derive(Debug, Deserialize)]
struct OperationLine {
    method: String,
    #[serde(default)]
    server: Option<String>,
    #[serde(default)]
    name: Option<String>,
}

#[derive(Debug, Deserialize)]
struct DecisionLine {
    effect: String,
    #[serde(default)]
    reason: Option<String>,
    #[serde(default)]
    rule: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct ArgumentsLine {
    #[serde(default)]
    values: BTreeMap<String, Box<RawValue>>,
}

#[derive(Debug, Deserialize)]
struct MandateLine {
    #[serde(default)]
    template: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LabelsLine {
    before: Vec<String>,
}

/// Change, action, object, subject, agent, what it was and what it would be.
type FlipKey = (Way, String, String, String, String, String, String);

/// What is counted while the journal is read.
struct Counting<'p> {
    policy: &'p Policy,
    found: Simulation,
    flips: HashMap<FlipKey, (u64, Timestamp)>,
    untold: HashMap<String, (u64, String)>,
}

/// Asks a policy about every decision of a window.
///
/// # Errors
/// When a file of the journal cannot be read.
pub fn simulate(journal: &Path, policy: &Policy, since: Timestamp, until: Timestamp) -> io::Result<Simulation> {
    let found = Simulation {
        since,
        until,
        oldest_record: None,
        revision: policy.revision(),
        decisions: 0,
        unchanged: 0,
        changes: Vec::new(),
        cannot_tell: Vec::new(),
        not_by_rules: 0,
        not_kept: 0,
    };
    let mut counting = Counting { policy, found, flips: HashMap::new(), untold: HashMap::new() };
    for segment in segments(journal)? {
        let text = Reader::new(journal, segment).segment()?;
        for line in text.lines().filter_map(|line| serde_json::from_str::<Line>(line).ok()) {
            if line.at >= since && line.at <= until {
                counting.see(&line);
            }
        }
    }
    Ok(counting.told())
}

impl Counting<'_> {
    fn see(&mut self, line: &Line) {
        self.found.oldest_record.get_or_insert(line.at);
        let (Some(decision), Some(mcp)) = (&line.decision, &line.mcp) else { return };
        let (Some(server), Some(action)) = (&mcp.server, action(&mcp.method)) else { return };
        if server == GATEWAY_SERVER {
            return;
        }
        let was_allowed = match (line.kind.as_str(), decision.effect.as_str()) {
            ("intent", "allow") => true,
            ("refusal", "deny") if is_by_rules(decision.reason.as_deref()) => false,
            ("refusal", "deny") => {
                self.found.not_by_rules += 1;
                return;
            }
            _ => return,
        };
        self.found.decisions += 1;
        let told = line.told(server, action, was_allowed);
        let (would_be, change) = match (self.policy.replay(&told, line.at), was_allowed) {
            (Replayed::Untold(why), _) => return self.cannot_tell(why, line),
            (Replayed::Allowed(_), true) | (Replayed::Refused(..), false) => {
                self.found.unchanged += 1;
                return;
            }
            (Replayed::Allowed(rules), false) => (rules, Way::NewlyAllowed),
            (Replayed::Refused(reason, rule), true) => {
                let rule = rule.map(|rule| format!(" ({rule})")).unwrap_or_default();
                (format!("{reason}{rule}"), Way::NewlyRefused)
            }
        };
        let subject = line.subject.as_ref().map(|subject| subject.id.clone()).unwrap_or_default();
        let agent = line.agent.as_ref().and_then(|agent| agent.id.clone()).unwrap_or_default();
        let was = if was_allowed { &decision.rule } else { &decision.reason };
        let object = format!("{server}/{}", told.name);
        let key = (change, told.action, object, subject, agent, was.clone().unwrap_or_default(), would_be);
        if self.flips.len() < limit::EVIDENCE_ROWS_MAX || self.flips.contains_key(&key) {
            let counted = self.flips.entry(key).or_insert((0, line.at));
            *counted = (counted.0 + 1, counted.1.max(line.at));
        } else {
            self.found.not_kept += 1;
        }
    }

    fn cannot_tell(&mut self, why: String, line: &Line) {
        if self.untold.len() >= limit::EVIDENCE_ROWS_MAX && !self.untold.contains_key(&why) {
            self.found.not_kept += 1;
            return;
        }
        let example = line.call.clone().unwrap_or_default();
        self.untold.entry(why).or_insert((0, example)).0 += 1;
    }

    fn told(mut self) -> Simulation {
        let flip = |((change, action, object, subject, agent, was, would_be), (count, last))| Flip {
            change,
            action,
            object,
            subject,
            agent,
            was,
            would_be,
            count,
            last,
        };
        self.found.changes = self.flips.into_iter().map(flip).collect();
        let untold = |(why, (count, example))| Untold { why, count, example };
        self.found.cannot_tell = self.untold.into_iter().map(untold).collect();
        self.found.sort();
        self.found
    }
}

impl Simulation {
    /// The same with what was found in another journal. What does not fit beside it is counted.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.oldest_record = earlier(self.oldest_record, other.oldest_record);
        for (own, theirs) in [
            (&mut self.decisions, other.decisions),
            (&mut self.unchanged, other.unchanged),
            (&mut self.not_by_rules, other.not_by_rules),
            (&mut self.not_kept, other.not_kept),
        ] {
            *own = own.saturating_add(theirs);
        }
        let mut changes: HashMap<FlipKey, Flip> = self.changes.into_iter().map(|flip| (flip.key(), flip)).collect();
        for flip in other.changes {
            if let Some(known) = changes.get_mut(&flip.key()) {
                known.count = known.count.saturating_add(flip.count);
                known.last = known.last.max(flip.last);
            } else if changes.len() < limit::EVIDENCE_ROWS_MAX {
                changes.insert(flip.key(), flip);
            } else {
                self.not_kept = self.not_kept.saturating_add(flip.count);
            }
        }
        self.changes = changes.into_values().collect();
        let mut untold: HashMap<String, Untold> =
            self.cannot_tell.into_iter().map(|untold| (untold.why.clone(), untold)).collect();
        for theirs in other.cannot_tell {
            if let Some(known) = untold.get_mut(&theirs.why) {
                known.count = known.count.saturating_add(theirs.count);
            } else if untold.len() < limit::EVIDENCE_ROWS_MAX {
                untold.insert(theirs.why.clone(), theirs);
            } else {
                self.not_kept = self.not_kept.saturating_add(theirs.count);
            }
        }
        self.cannot_tell = untold.into_values().collect();
        self.sort();
        self
    }

    fn sort(&mut self) {
        let order = |flip: &Flip| (flip.change, flip.object.clone(), flip.subject.clone(), flip.agent.clone());
        self.changes.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| order(one).cmp(&order(other))));
        self.cannot_tell.sort_by(|one, other| other.count.cmp(&one.count).then_with(|| one.why.cmp(&other.why)));
    }
}

impl Flip {
    fn key(&self) -> FlipKey {
        let Self { change, action, object, subject, agent, was, would_be, .. } = self;
        let text = String::clone;
        (*change, text(action), text(object), text(subject), text(agent), text(was), text(would_be))
    }
}

impl Line {
    fn told(&self, server: &str, action: String, was_allowed: bool) -> Told {
        let subject = self.subject.as_ref();
        let is_whole = |texts: &&Vec<String>| !texts.iter().any(|text| text.contains("[redacted]"));
        let groups = subject.and_then(|subject| subject.groups.as_ref());
        Told {
            user: subject.map(|subject| subject.id.clone()).filter(|id| id != "anyone"),
            groups: groups.filter(is_whole).cloned(),
            groups_told: Vec::new(),
            agent: self.agent.as_ref().and_then(|agent| agent.id.clone()),
            chain: self.chain.iter().map(|actor| actor.strip_prefix("agent:").unwrap_or(actor).to_owned()).collect(),
            scopes: self.token.as_ref().and_then(|token| token.scopes.as_ref()).filter(is_whole).cloned(),
            client_proof: self.agent.as_ref().map(|agent| agent.proof.clone()).unwrap_or_default(),
            authenticated_at: subject.and_then(|subject| subject.authenticated_at),
            acr: subject.and_then(|subject| subject.acr.clone()),
            server: server.to_owned(),
            name: self.mcp.as_ref().and_then(|mcp| mcp.name.clone()).unwrap_or_default(),
            action,
            // Of a refusal the record keeps no arguments.
            has_arguments: was_allowed.then_some(self.arguments.is_some()),
            values: self.arguments.as_ref().map(|arguments| arguments.values.clone()).unwrap_or_default(),
            template: self.mandate.as_ref().and_then(|mandate| mandate.template.clone()),
            mandated: self.mandate.is_some(),
            seen: self.labels.as_ref().map(|labels| labels.before.clone()),
        }
    }
}

/// The refusals that rules, scopes and environments decide; another policy may decide them otherwise.
fn is_by_rules(reason: Option<&str>) -> bool {
    let reason = reason.and_then(Reason::from_code);
    matches!(
        reason,
        Some(
            Reason::NotAllowed
                | Reason::DeniedByRule
                | Reason::ConditionUnmet
                | Reason::EnvironmentRefused
                | Reason::InsufficientScope
                | Reason::ClientProofInsufficient
        )
    )
}

/// The action of a method, as rules spell it; nothing for what follows a call, which is decided as lists are.
fn action(method: &str) -> Option<String> {
    Some(match method {
        "tools/call" => "call".to_owned(),
        "resources/read" => "read".to_owned(),
        "prompts/get" => "get".to_owned(),
        "completion/complete" => "complete".to_owned(),
        "subscriptions/listen" | "resources/subscribe" => "subscribe".to_owned(),
        tasks if tasks.starts_with("tasks/") => return None,
        other => format!("method:{other}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Digest;

    fn found(changes: &[(&str, u64, i64)], untold: &[(&str, u64)]) -> Simulation {
        let text = || "x".to_owned();
        let flip = |(object, count, last): &(&str, u64, i64)| Flip {
            change: Way::NewlyRefused,
            action: text(),
            object: (*object).to_owned(),
            subject: text(),
            agent: text(),
            was: text(),
            would_be: text(),
            count: *count,
            last: Timestamp::from_second(*last).unwrap(),
        };
        let cannot = |(why, count): &(&str, u64)| Untold { why: (*why).to_owned(), count: *count, example: text() };
        Simulation {
            since: Timestamp::MIN,
            until: Timestamp::MAX,
            oldest_record: None,
            revision: PolicyRevision(Digest::sha256(b"next")),
            decisions: 10,
            unchanged: 1,
            changes: changes.iter().map(flip).collect(),
            cannot_tell: untold.iter().map(cannot).collect(),
            not_by_rules: 2,
            not_kept: 0,
        }
    }

    #[test]
    fn what_two_records_tell_is_added_and_the_same_is_one_row() {
        let own = found(&[("a", 3, 7), ("b", 2, 7)], &[("groups", 4)]);
        let both = own.with(found(&[("b", 5, 3), ("c", 1, 9)], &[("groups", 1), ("arguments", 2)]));
        let expected = found(&[("b", 7, 7), ("a", 3, 7), ("c", 1, 9)], &[("groups", 5), ("arguments", 2)]);
        assert_eq!(both, Simulation { decisions: 20, unchanged: 2, not_by_rules: 4, ..expected });
    }
}
