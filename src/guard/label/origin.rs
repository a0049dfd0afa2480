//! Where a label came from: one line in its row for each call that brought one that was not there.
//!
//! Decides how that is kept. Refuses to know who asks for it. Invariant: the line is written by the change that sets the
//! bit, so that no label is there of which nobody knows since when and from whom; a party that does not fit into a line is
//! left out whole, and nobody takes off what an unknown party brought.

use serde::{Deserialize, Serialize};

use crate::guard::Party;
use crate::identity::Caller;
use crate::ids::CallId;
use crate::limit;
use crate::policy::label::Seen;

/// Who brought labels, when, by which call.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Origin {
    #[serde(default)]
    bits: i64,
    /// When, microseconds since 1970.
    pub at_us: i64,
    /// The call; nothing where a mandate began with them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub call: Option<String>,
    /// Who; nothing where that was too long to be kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<Party>,
}

impl Origin {
    /// What a caller brings at that moment, by the store's clock.
    #[must_use]
    pub fn of(caller: &Caller, call: Option<CallId>, at_us: i64) -> Self {
        Self { bits: 0, at_us, call: call.map(|call| call.to_string()), by: Some(Party::of(caller)) }
    }

    /// What a call brought that nobody knows any more but the record.
    pub(super) const fn told(call: Option<String>, at_us: i64) -> Self {
        Self { bits: 0, at_us, call, by: None }
    }

    /// As one line of a row.
    pub(super) fn line(&self, seen: Seen) -> String {
        let line = |origin: &Self| format!("{}\n", serde_json::to_string(origin).unwrap_or_default());
        let whole = Self { bits: seen.bits(), ..self.clone() };
        let text = line(&whole);
        if text.len() <= limit::SHELF_NOTE_BYTES_MAX { text } else { line(&Self { by: None, ..whole }) }
    }

    /// The labels that it says it brought; some of them may have been there.
    #[must_use]
    pub const fn brought(&self) -> Seen {
        Seen::of_bits(self.bits)
    }

    /// All lines of a row, the oldest first. What cannot be read tells of nobody.
    pub(super) fn all(body: &str) -> Vec<Self> {
        body.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Who was the first to bring each of these labels.
    pub(super) fn first_of(origins: &[Self], label: Seen) -> Option<&Self> {
        origins.iter().find(|origin| label.beyond(origin.brought()) == Seen::NOTHING)
    }

    /// The lines that are left to say where these labels came from.
    pub(super) fn left(origins: &[Self], seen: Seen) -> String {
        let left = |origin: &&Self| seen.bits() & origin.bits != 0;
        let cut = |origin: &Self| origin.line(Seen::of_bits(origin.bits & seen.bits()));
        origins.iter().filter(left).map(cut).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn origin(call: &str) -> Origin {
        Origin { bits: 0, at_us: 7, call: Some(call.to_owned()), by: Some(Party::called("user:corp/alice")) }
    }

    #[test]
    fn each_label_is_of_the_first_call_that_brought_it() {
        let both = Seen::PRIVATE.with(Seen::UNTRUSTED);
        let body = format!("{}{}not json\n", origin("one").line(Seen::PRIVATE), origin("two").line(both));
        let origins = Origin::all(&body);
        assert_eq!(origins.len(), 2);
        let of = |label| Origin::first_of(&origins, label).and_then(|origin| origin.call.as_deref());
        assert_eq!((of(Seen::PRIVATE), of(Seen::UNTRUSTED)), (Some("one"), Some("two")));
        assert_eq!(of(Seen::REGULATED), None);
        let left = Origin::all(&Origin::left(&origins, Seen::UNTRUSTED));
        assert_eq!(left.len(), 1);
        assert_eq!(left[0].brought(), Seen::UNTRUSTED);
    }

    #[test]
    fn a_party_that_does_not_fit_is_left_out_whole() {
        let mut long = origin("one");
        long.by = Some(Party::called(&"x".repeat(limit::SHELF_NOTE_BYTES_MAX)));
        let line = long.line(Seen::PRIVATE);
        assert!(line.len() <= limit::SHELF_NOTE_BYTES_MAX, "{}", line.len());
        assert_eq!(Origin::all(&line)[0].by, None);
    }
}
