//! Brings an intent and its result together.
//!
//! Decides what is known of a record beyond its own line. Invariant: what is remembered is bounded; an end whose intent
//! was forgotten is shown without it.

use std::collections::HashMap;
use std::collections::VecDeque;
use std::sync::Arc;

use super::read::Record;

/// A record, and the intent that it belongs to.
#[derive(Debug, Clone)]
pub struct Seen<'a> {
    /// The line as it is in the journal.
    pub raw: &'a str,
    /// What it says.
    pub record: Arc<Record>,
    /// For what ends a call: its intent, where it was seen.
    pub intent: Option<Arc<Intent>>,
}

/// An intent that was seen.
#[derive(Debug)]
pub struct Intent {
    /// The line as it is in the journal.
    pub raw: String,
    /// What it says.
    pub record: Arc<Record>,
}

/// Remembers intents until their results come.
#[derive(Debug)]
pub struct Joiner {
    open_max: usize,
    open: HashMap<String, Arc<Intent>>,
    order: VecDeque<String>,
}

impl Joiner {
    /// Remembers at most so many.
    #[must_use]
    pub fn new(open_max: usize) -> Self {
        Self { open_max, open: HashMap::new(), order: VecDeque::new() }
    }

    /// Reads a line. `None` for what is not a record.
    pub fn see<'a>(&mut self, line: &'a str) -> Option<Seen<'a>> {
        let record = Arc::new(Record::read(line)?);
        let leg = record.leg.clone().unwrap_or_default();
        let intent = match record.kind.as_str() {
            "intent" => {
                self.remember(leg, Arc::new(Intent { raw: line.to_owned(), record: Arc::clone(&record) }));
                None
            }
            "result" | "refusal" | "failure" => self.open.remove(&leg),
            _ => None,
        };
        Some(Seen { raw: line, record, intent })
    }

    /// The intents whose end has not been seen, oldest first.
    pub fn open(&self) -> impl Iterator<Item = Seen<'_>> {
        let open = self.order.iter().filter_map(|leg| self.open.get(leg));
        open.map(|intent| Seen { raw: &intent.raw, record: Arc::clone(&intent.record), intent: None })
    }

    fn remember(&mut self, leg: String, intent: Arc<Intent>) {
        if self.order.len() >= self.open_max {
            // Most of the oldest have ended long ago; an end that comes later is shown without its intent.
            self.order.retain(|leg| self.open.contains_key(leg));
            let excess = (self.order.len() + 1).saturating_sub(self.open_max);
            for leg in self.order.drain(..excess) {
                self.open.remove(&leg);
            }
        }
        self.order.push_back(leg.clone());
        self.open.insert(leg, intent);
    }
}

impl Seen<'_> {
    /// A fact of the call: the record's own, or its intent's.
    pub fn fact<'a, T>(&'a self, of: impl Fn(&'a Record) -> Option<T>) -> Option<T> {
        of(&self.record).or_else(|| self.intent.as_ref().and_then(|intent| of(&intent.record)))
    }

    /// Who.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.fact(|record| record.subject.as_ref()).map(|subject| subject.id.as_str())
    }

    /// With which agent or client.
    #[must_use]
    pub fn agent(&self) -> Option<&str> {
        self.fact(|record| record.agent.as_ref()).and_then(|agent| agent.id.as_deref().or(agent.client.as_deref()))
    }

    /// On which server.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.fact(|record| record.mcp.as_ref()).and_then(|mcp| mcp.server.as_deref())
    }

    /// Which tool, resource or prompt.
    #[must_use]
    pub fn name(&self) -> Option<&str> {
        self.fact(|record| record.mcp.as_ref()).and_then(|mcp| mcp.name.as_deref())
    }

    /// `allow`, `deny` or `fail`; other kinds have none.
    #[must_use]
    pub fn effect(&self) -> Option<&'static str> {
        let record = &self.record;
        match record.kind.as_str() {
            "refusal" | "noise" => Some("deny"),
            "failure" => Some("fail"),
            "intent" | "list" => Some("allow"),
            "admin" => Some(match record.admin.as_ref().map_or("", |admin| admin.outcome.as_str()) {
                "refused" => "deny",
                "failed" => "fail",
                _ => "allow",
            }),
            "result" => Some(match record.result.as_ref().map_or("", |result| result.outcome.as_str()) {
                "refused" => "deny",
                "failed" | "unknown" => "fail",
                _ => "allow",
            }),
            _ => None,
        }
    }

    /// The reason code, where there is one.
    #[must_use]
    pub fn reason(&self) -> Option<&str> {
        let record = &self.record;
        let decided = record.decision.as_ref().and_then(|decision| decision.reason.as_deref());
        let ended = record.result.as_ref().and_then(|result| result.reason.as_deref());
        let administered = record.admin.as_ref().and_then(|admin| admin.reason.as_deref());
        decided.or(ended).or(administered).or_else(|| record.noise.as_ref().map(|noise| noise.reason.as_str()))
    }

    /// Whether it makes a line of its own.
    #[must_use]
    pub fn ends_something(&self) -> bool {
        self.record.kind != "intent"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit;

    #[test]
    fn so_many_intents_are_remembered_and_the_oldest_goes_first() {
        let line = |kind: &str, leg: usize| {
            format!(r#"{{"seq":{leg},"at":"2026-11-23T10:00:00Z","type":"{kind}","call":"c","leg":"{leg}"}}"#)
        };
        let mut joiner = Joiner::new(limit::ADMIN_LOG_OPEN_CALLS_MAX);
        for leg in 0..=limit::ADMIN_LOG_OPEN_CALLS_MAX {
            assert!(joiner.see(&line("intent", leg)).is_some());
        }
        assert!(joiner.see(&line("result", 0)).unwrap().intent.is_none());
        assert!(joiner.see(&line("result", 1)).unwrap().intent.is_some());
        assert!(joiner.see(&line("result", 1)).unwrap().intent.is_none(), "it ended");
        assert!(joiner.see("no record").is_none());
    }
}
