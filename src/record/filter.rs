//! Which records are meant.
//!
//! Invariant: everything that is given must hold, of the record itself or of the intent that it ends.

use super::join::Seen;

/// What can be selected.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// Only subjects that contain this.
    pub subject: Option<String>,
    /// Only agents or clients that contain this.
    pub agent: Option<String>,
    /// Only this server.
    pub server: Option<String>,
    /// Only names that contain this.
    pub tool: Option<String>,
    /// Only what was decided like this: `allow`, `deny` or `fail`.
    pub decision: Option<String>,
    /// Only this reason code.
    pub reason: Option<String>,
    /// Only what happened since then.
    pub since: Option<jiff::Timestamp>,
    /// Only records that contain this text anywhere.
    pub grep: Option<String>,
}

impl Filter {
    /// Whether it is meant.
    #[must_use]
    pub fn matches(&self, seen: &Seen<'_>) -> bool {
        let contains = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| found.is_some_and(|found| found.contains(wanted.as_str())))
        };
        let equals = |wanted: &Option<String>, found: Option<&str>| {
            wanted.as_ref().is_none_or(|wanted| found == Some(wanted.as_str()))
        };
        let found = self.grep.as_ref().is_none_or(|text| {
            seen.raw.contains(text.as_str())
                || seen.intent.as_ref().is_some_and(|intent| intent.raw.contains(text.as_str()))
        });
        self.since.is_none_or(|since| seen.record.at >= since)
            && equals(&self.decision, seen.effect())
            && found
            && contains(&self.subject, seen.subject())
            && contains(&self.agent, seen.agent())
            && equals(&self.server, seen.server())
            && contains(&self.tool, seen.name())
            && equals(&self.reason, seen.reason())
    }
}
