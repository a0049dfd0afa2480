//! What the record tells of rows that raised the epoch: enough to bring a store that has forgotten them up to it.
//!
//! Decides the spelling. Refuses to know what rows mean. Invariant: what was cut or redacted says so, because half a
//! name would be somebody else's row.

use serde::Serialize;

use super::redact;
use crate::ids::{ReplicaId, RevocationEpoch};

/// Rows that raised the epoch.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct ChangeNote<'a> {
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
    /// What tells it from the same epoch of another history.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nonce: Option<u32>,
    /// Which rows.
    pub rows: &'a [RowNote<'a>],
    /// The replica where it was ordered, where that is another one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ordered_at: Option<ReplicaId>,
}

/// One of them.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct RowNote<'a> {
    section: &'a str,
    #[serde(serialize_with = "redact::serialize")]
    key: &'a str,
    /// The name is not told whole.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    cut: bool,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    gone: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    says: Option<&'a str>,
}

impl<'a> RowNote<'a> {
    /// A row by its section and name; what it says is told where nothing of it has to be kept back.
    #[must_use]
    pub fn new(section: &'a str, key: &'a str, gone: bool, says: Option<&'a str>) -> Self {
        let says = says.filter(|says| redact::text(says) == *says);
        Self { section, key, cut: redact::text(key) != key, gone, says }
    }
}

/// The fields of a line about rows.
#[derive(Serialize)]
pub(super) struct ChangeFields<'a> {
    pub(super) change: &'a ChangeNote<'a>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit;

    #[test]
    fn what_is_not_told_whole_is_not_told_as_if_it_were() {
        let long = "x".repeat(limit::RECORD_TEXT_BYTES_MAX + 1);
        let told =
            |key: &str, says: &str| serde_json::to_value(RowNote::new("stopped", key, false, Some(says))).unwrap();
        let whole = serde_json::json!({ "section": "stopped", "key": "bot", "says": "{}" });
        assert_eq!(told("bot", "{}"), whole);
        let cut = told(&long, &long);
        assert_eq!((cut.get("cut"), cut.get("says")), (Some(&true.into()), None));
    }
}
