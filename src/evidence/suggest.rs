//! The smallest rules that would have allowed what was done.
//!
//! Decides nothing and applies nothing: it writes rows that a person reads. Invariant: one row for each subject or agent
//! and each thing that was done, with the name as it is; no wildcard, no condition that nobody wrote.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use super::Usage;
use crate::ids::Action;
use crate::policy::GATEWAY_SERVER;

/// Rows that would have been enough, and of which window they tell.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Suggested {
    /// Since when.
    pub since: Timestamp,
    /// Until when.
    pub until: Timestamp,
    /// The oldest record that was read.
    pub oldest_record: Option<Timestamp>,
    /// Rows of `policy.csv`.
    pub rows: BTreeSet<String>,
    /// Acts that did not fit, and of which no row tells.
    #[serde(default)]
    pub not_kept: u64,
}

impl Suggested {
    /// What a journal suggests.
    #[must_use]
    pub fn by(usage: &Usage, agent: Option<&str>) -> Self {
        let Usage { since, until, oldest, not_kept, .. } = *usage;
        Self { since, until, oldest_record: oldest, rows: suggest(usage, agent), not_kept }
    }

    /// The same with what another journal suggests.
    #[must_use]
    pub fn with(mut self, other: Self) -> Self {
        self.oldest_record = earlier(self.oldest_record, other.oldest_record);
        self.rows.extend(other.rows);
        self.not_kept = self.not_kept.saturating_add(other.not_kept);
        self
    }
}

/// The earlier of two moments, as far as there are any.
pub(super) fn earlier(one: Option<Timestamp>, other: Option<Timestamp>) -> Option<Timestamp> {
    one.into_iter().chain(other).min()
}

/// Rows of `policy.csv` for one agent, or for everybody whose acts are known.
fn suggest(usage: &Usage, agent: Option<&str>) -> BTreeSet<String> {
    let mut rows = BTreeSet::new();
    for act in usage.acts.keys().filter(|act| agent.is_none_or(|agent| act.agent == agent)) {
        // A rule that cannot be read back would be worse than none; nor are the gateway's own operations calls.
        let object = match Action::parse(&act.action) {
            // A method is about the whole server.
            Some(Action::Method(_)) => String::new(),
            Some(_) if !plain(&act.name) => continue,
            Some(_) if act.name.starts_with(['@', '\\']) => format!("\\{}", act.name),
            Some(_) => act.name.clone(),
            None => continue,
        };
        if !plain(&act.server) || act.server == GATEWAY_SERVER || act.environment.is_empty() {
            continue;
        }
        let mut row = |subject: &str| {
            rows.insert(format!(
                "p, {subject}, {}, {}/{object}, {}, -, allow",
                act.environment, act.server, act.action
            ));
        };
        if !act.agent.is_empty() {
            row(&format!("agent:{}", act.agent));
        }
        // Whoever is told of with an agent has to be allowed, too; an agent of its own is told as both.
        if agent.is_none() && act.subject != "anyone" && !act.subject.is_empty() {
            row(&act.subject);
        }
    }
    rows
}

/// Whether a name means itself in a row: no wildcard, no separator of cells.
fn plain(text: &str) -> bool {
    !text.is_empty() && !text.contains(['*', ',', '"', '\n', '\r', '#']) && text.trim() == text
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::evidence::{Act, Used};

    #[test]
    fn each_thing_that_was_done_becomes_a_row_and_what_would_mean_more_becomes_none() {
        let act = |subject: &str, agent: &str, name: &str, action: &str| Act {
            subject: subject.to_owned(),
            agent: agent.to_owned(),
            environment: "production".to_owned(),
            server: "git".to_owned(),
            name: name.to_owned(),
            action: action.to_owned(),
        };
        let used = Used { count: 1, last: jiff::Timestamp::UNIX_EPOCH };
        let acts = [
            act("user:corp/anna", "claude", "list", "call"),
            act("user:corp/bert", "claude", "list", "call"),
            act("user:corp/anna", "claude", "del*te", "call"),
            act("user:corp/anna", "claude", "a, -, allow", "call"),
            act("user:corp/anna", "claude", "@read", "call"),
            act("user:corp/ci", "ci", "file:///srv/a", "read"),
            act("user:corp/ci", "ci", "", "method:com.example/scan"),
            Act { server: GATEWAY_SERVER.to_owned(), ..act("user:corp/ci", "ci", "mandate_open", "call") },
        ];
        let usage = Usage::of(acts.into_iter().map(|act| (act, used)).collect::<BTreeMap<_, _>>());
        assert_eq!(
            suggest(&usage, Some("claude")).into_iter().collect::<Vec<_>>(),
            [
                "p, agent:claude, production, git/\\@read, call, -, allow",
                "p, agent:claude, production, git/list, call, -, allow"
            ]
        );
        assert_eq!(
            suggest(&usage, Some("ci")).into_iter().collect::<Vec<_>>(),
            [
                "p, agent:ci, production, git/, method:com.example/scan, -, allow",
                "p, agent:ci, production, git/file:///srv/a, read, -, allow"
            ]
        );
        assert_eq!(suggest(&usage, None).len(), 9);
        assert!(suggest(&usage, Some("nobody")).is_empty());
    }

    #[test]
    fn what_two_records_suggest_is_one_row_where_it_is_the_same() {
        let at = |second| Timestamp::from_second(second).ok();
        let suggested = |rows: &[&str], oldest_record, not_kept| Suggested {
            since: Timestamp::MIN,
            until: Timestamp::MAX,
            oldest_record,
            rows: rows.iter().map(|row| (*row).to_owned()).collect(),
            not_kept,
        };
        let both = suggested(&["a", "b"], at(7), 1).with(suggested(&["b", "c"], at(3), 2));
        assert_eq!(both, suggested(&["a", "b", "c"], at(3), 3));
        assert_eq!(suggested(&[], None, 0).with(suggested(&[], at(3), 0)).oldest_record, at(3));
    }
}
