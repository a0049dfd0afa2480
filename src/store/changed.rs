//! What raised the epoch, as the store remembers it for the records of all replicas.
//!
//! Decides what is remembered of rows: which they are, and what they say where that is short and nobody's secret.
//! Refuses to know what they mean. Invariant: each epoch is told with a number that no other history of the same epoch
//! has, so that a store that went back and came to the same epoch again is seen to be another one.

use serde::{Deserialize, Serialize};

use super::row::Row;
use super::unavailable;
use crate::identity::described::Described;
use crate::identity::revoked::Revocation;
use crate::ids::{ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::Failure;
use crate::shelf::{Action, Change};

/// Sections whose rows are told with what they say: reconciling needs it, and none of it is secret.
const TOLD_WHOLE: [&str; 4] = ["attested", "ended_grant", "review", "stopped"];
/// The kind of a change that is none of a revocation.
const ROWS: &str = "rows";

/// What became of an epoch at some replica.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Changed {
    /// The epoch that includes it.
    pub epoch: RevocationEpoch,
    /// What tells it from the same epoch of another history; what earlier versions wrote has none.
    pub nonce: Option<u32>,
    /// Where it was ordered.
    pub replica: ReplicaId,
    /// What was changed.
    pub what: What,
}

/// What was changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum What {
    /// Something was taken back.
    Revoked(Revocation),
    /// It was lifted: what it says, by whom and why that was.
    Lifted(Revocation),
    /// Rows of rooms that others may have remembered.
    Rows(Vec<RowTold>),
}

/// A row that was changed, as it is told.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowTold {
    /// The section.
    pub section: String,
    /// Its name there.
    pub key: String,
    /// Whether it is gone.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub gone: bool,
    /// What it says, where that is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub says: Option<String>,
}

/// The columns of a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Noted {
    pub(super) nonce: i64,
    pub(super) lifted: bool,
    pub(super) kind: String,
    pub(super) issuer: String,
    pub(super) value: String,
    pub(super) mode: &'static str,
    pub(super) issued_before: Option<i64>,
    pub(super) actor: String,
    pub(super) note: String,
    pub(super) at: i64,
}

impl Noted {
    pub(super) fn revocation(revocation: &Revocation, lifted: bool) -> Result<Self, Failure> {
        let words = Described::from(&revocation.target);
        Ok(Self {
            nonce: i64::from(nonce()?),
            lifted,
            kind: words.kind.to_owned(),
            issuer: words.issuer.to_owned(),
            value: words.value.to_owned(),
            mode: revocation.mode.as_str(),
            issued_before: revocation.mode.issued_before(),
            actor: revocation.actor.clone(),
            note: revocation.note.clone(),
            at: revocation.at,
        })
    }

    pub(super) fn rows(changes: &[Change], at: i64) -> Result<Self, Failure> {
        let told: Vec<RowTold> = changes.iter().filter_map(RowTold::of).collect();
        Self::told(&told, at)
    }

    pub(super) fn told(rows: &[RowTold], at: i64) -> Result<Self, Failure> {
        Ok(Self {
            nonce: i64::from(nonce()?),
            lifted: false,
            kind: ROWS.to_owned(),
            issuer: String::new(),
            value: String::new(),
            mode: "",
            issued_before: None,
            actor: String::new(),
            note: serde_json::to_string(rows).map_err(unavailable)?,
            at,
        })
    }

    /// The same under a number that is known already.
    pub(super) fn under(self, nonce: Option<u32>) -> Self {
        Self { nonce: nonce.map_or(self.nonce, i64::from), ..self }
    }
}

impl RowTold {
    fn of(change: &Change) -> Option<Self> {
        let section = change.section.name;
        let (gone, says) = match &change.action {
            Action::Remove => (true, None),
            Action::Put { body, .. } => (false, TOLD_WHOLE.contains(&section).then(|| short(body)).flatten()),
            // Bits are nobody's secret: they are what is left where some were taken off.
            Action::Raise { bits, .. } => (false, Some(bits.to_string())),
            Action::Count { .. } | Action::Check => return None,
        };
        Some(Self { section: section.to_owned(), key: change.key.clone(), gone, says })
    }
}

/// What a row says, where that is short; why somebody did it can be left out, and then who did.
fn short(body: &str) -> Option<String> {
    let fits = |body: &str| body.len() <= limit::CHANGE_TOLD_BYTES_MAX;
    if fits(body) {
        return Some(body.to_owned());
    }
    let mut says: serde_json::Value = serde_json::from_str(body).ok()?;
    says.as_object_mut()?.remove("note");
    if !fits(&says.to_string()) {
        unnamed(&mut says);
    }
    Some(says.to_string()).filter(|says| fits(says))
}

/// Takes out who did something, wherever that stands.
fn unnamed(says: &mut serde_json::Value) {
    for (key, value) in says.as_object_mut().into_iter().flatten() {
        match value {
            serde_json::Value::String(name) if key == "by" || key.ends_with("_by") => name.clear(),
            inner => unnamed(inner),
        }
    }
}

impl What {
    /// What the columns say; what cannot be understood would be a change that is lost.
    pub(super) fn read(row: Row, lifted: bool) -> Result<Self, Failure> {
        if row.kind == ROWS {
            return serde_json::from_str(&row.note).map(Self::Rows).map_err(unavailable);
        }
        let revocation = row.read()?.revocation;
        Ok(if lifted { Self::Lifted(revocation) } else { Self::Revoked(revocation) })
    }
}

fn nonce() -> Result<u32, Failure> {
    let mut bytes = [0_u8; 4];
    aws_lc_rs::rand::fill(&mut bytes).map_err(|_| unavailable("no random numbers"))?;
    Ok(u32::from_le_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shelf::{Expect, Section};

    #[test]
    fn a_secret_is_not_told_and_what_reconciling_needs_is() {
        let put = |section: &'static str, body: &str| {
            let action = Action::Put { owner: String::new(), body: body.to_owned(), expires_at_us: None };
            RowTold::of(&Change::new(Section { name: section, rows_max: 1 }, "k", Expect::Anything, action)).unwrap()
        };
        assert_eq!(put("stopped", "{}").says.as_deref(), Some("{}"));
        assert_eq!(put("account", "sealed").says, None);
        let long = "x".repeat(limit::CHANGE_TOLD_BYTES_MAX + 1);
        assert_eq!(put("stopped", &long).says, None);
        let noted = format!(r#"{{"retired":true,"by":"host:0","note":"{long}","at":7}}"#);
        let told: serde_json::Value = serde_json::from_str(&put("stopped", &noted).says.unwrap()).unwrap();
        assert_eq!(told, serde_json::json!({ "retired": true, "by": "host:0", "at": 7 }), "without its note");
        // Who did it is the record's to tell; that it was done, and when, has to be known.
        let by = format!("user:corp/{}", "x".repeat(200));
        let closed = serde_json::json!({ "id": "r", "opened_by": by, "deadline": "d", "more": by, "closed": { "by": by, "at": 7 } });
        let told: serde_json::Value = serde_json::from_str(&put("review", &closed.to_string()).says.unwrap()).unwrap();
        let wanted = serde_json::json!({ "id": "r", "opened_by": "", "deadline": "d", "more": by, "closed": { "by": "", "at": 7 } });
        assert_eq!(told, wanted, "without whoever did it");
        let gone = Change::new(Section { name: "account", rows_max: 1 }, "k", Expect::Anything, Action::Remove);
        assert!(RowTold::of(&gone).unwrap().gone);
        let raise = Action::Raise { bits: 5, expires_at_us: None, note: Some("by whom".to_owned()) };
        let left = Change::new(Section { name: "label", rows_max: 1 }, "k", Expect::Anything, raise);
        assert_eq!(RowTold::of(&left).unwrap().says.as_deref(), Some("5"), "what is left of the labels");
    }
}
