//! What the journal tells of each epoch: what was taken back, lifted, suspended, ended and used.
//!
//! Decides which lines matter. Refuses to judge the chain, which `audit verify` does. Invariant: an epoch that is not
//! told whole is a gap with its reason, never nothing.

use std::collections::BTreeMap;
use std::path::Path;

use serde::Deserialize;

use crate::gateway::pins::replay::{PinOrders, ToldPin};
use crate::gateway::replay::{self, RowRead};
use crate::identity::described::Described;
use crate::identity::revoked::{Revocation, RevocationMode};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::record::read::{Reader, segments};
use crate::store::{Store, Told, ToldChange};

/// One line of the journal, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    at: jiff::Timestamp,
    revocation: Option<Revoked>,
    change: Option<Rows>,
    pin: Option<ToldPin>,
    start: Option<AtEpoch>,
    rotation: Option<AtEpoch>,
}

/// A record that tells how far the store was.
#[derive(Deserialize)]
struct AtEpoch {
    #[serde(default)]
    epoch: u64,
}

/// Rows that raised the epoch.
#[derive(Deserialize)]
struct Rows {
    epoch: u64,
    nonce: Option<u32>,
    rows: Vec<RowRead>,
}

#[derive(Deserialize)]
struct Revoked {
    actor: String,
    target: String,
    #[serde(default)]
    issuer: String,
    #[serde(default)]
    value: String,
    mode: String,
    issued_before: Option<i64>,
    /// It was taken back from the revocations.
    #[serde(default)]
    lifted: bool,
    #[serde(default)]
    note: String,
    epoch: u64,
    nonce: Option<u32>,
}

/// What is told of one epoch.
struct One {
    nonce: Option<u32>,
    what: What,
}

enum What {
    Revocation(ToldChange),
    Rows(Vec<RowRead>, i64),
    /// Why it is not known.
    Unreadable(String),
}

/// What the journal tells.
#[derive(Default)]
pub(super) struct Journal {
    told: BTreeMap<u64, One>,
    /// What was decided of definitions, and first lists.
    pub(super) pins: PinOrders,
    pub(super) last: u64,
}

impl Journal {
    /// Reads the whole journal; what is not a record is for `verify` to judge.
    pub(super) fn read(directory: &Path) -> Result<Self, String> {
        let problem = |error: std::io::Error| format!("{}: {error}", directory.display());
        let mut found = Self::default();
        for first in segments(directory).map_err(problem)? {
            let lines = Reader::new(directory, first).segment().map_err(problem)?;
            let matters = |line: &&str| line.contains("\"epoch\"") || line.contains("\"type\":\"pin\"");
            for line in lines.lines().filter(matters) {
                if let Ok(line) = serde_json::from_str::<Line>(line) {
                    found.take(line);
                }
            }
        }
        Ok(found)
    }

    fn take(&mut self, line: Line) {
        let at = line.at.as_second();
        if let Some(pin) = line.pin {
            self.last = self.last.max(pin.epoch().unwrap_or_default());
            self.pins.take(pin, at);
            return;
        }
        let told = match (line.revocation, line.change) {
            (Some(told), _) => {
                let (epoch, nonce) = (told.epoch, told.nonce);
                let unreadable = |why| What::Unreadable(format!("record {} {why}", line.seq));
                Some((epoch, One { nonce, what: told.into_change(at).map_or_else(unreadable, What::Revocation) }))
            }
            (None, Some(Rows { epoch, nonce, rows })) => Some((epoch, One { nonce, what: What::Rows(rows, at) })),
            (None, None) => None,
        };
        let elsewhere = line.start.or(line.rotation).map(|at| at.epoch);
        let Some(epoch) = told.as_ref().map(|(epoch, _)| *epoch).or(elsewhere) else { return };
        self.last = self.last.max(epoch);
        if let Some((epoch, one)) = told {
            self.told.insert(epoch, one);
        }
    }

    /// The first epoch of which the store tells something else: it went back, and came to it again.
    pub(super) async fn parted_from(&self, store: &Store, from: u64) -> Result<Option<u64>, Failure> {
        let mut known = RevocationEpoch(0);
        loop {
            let changes = store.changed_since(known).await?;
            let Some(last) = changes.last().map(|change| change.epoch) else { return Ok(None) };
            for change in changes.iter().take_while(|change| change.epoch.0 <= from) {
                let own = self.told.get(&change.epoch.0).and_then(|one| one.nonce);
                if own.zip(change.nonce).is_some_and(|(own, other)| own != other) {
                    return Ok(Some(change.epoch.0));
                }
            }
            known = last;
        }
    }

    /// What is done to a store that has forgotten that epoch.
    pub(super) async fn change(&self, store: &Store, epoch: u64) -> Result<Told, String> {
        let one = self.told.get(&epoch).ok_or_else(|| "the journal does not tell it".to_owned())?;
        let change = match &one.what {
            What::Revocation(change) => change.clone(),
            What::Rows(rows, at) => {
                if rows.iter().any(RowRead::is_of_a_definition) && !self.pins.tells(epoch) {
                    return Err("the journal does not tell what was decided of each definition".to_owned());
                }
                let changes = replay::rows(store, rows, *at).await?;
                ToldChange::Rows(rows.iter().map(RowRead::told).collect(), changes)
            }
            What::Unreadable(why) => return Err(why.clone()),
        };
        Ok(Told { change, nonce: one.nonce })
    }
}

impl Revoked {
    fn into_change(self, at: i64) -> Result<ToldChange, String> {
        // The record is cut and redacted; half a name would revoke somebody else.
        let whole = self.value.len() + 4 <= limit::RECORD_TEXT_BYTES_MAX && !self.value.contains("[redacted]");
        if !whole {
            return Err("names somebody whose name was cut or redacted".to_owned());
        }
        let words = Described { kind: &self.target, issuer: &self.issuer, value: &self.value };
        let target = words.try_into().map_err(|error| format!("is not understood: {error}"))?;
        let mode = match (self.mode.as_str(), self.issued_before) {
            ("block", None) => RevocationMode::Block,
            ("sign_out", Some(issued_before)) => RevocationMode::SignOut { issued_before },
            _ => return Err(format!("is not understood: its mode is `{}`", self.mode)),
        };
        let revocation = Revocation { target, mode, actor: self.actor, note: self.note, at };
        Ok(if self.lifted { ToldChange::Lifted(revocation) } else { ToldChange::Revoked(revocation) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_only_a_rotation_tells_is_known_to_be_missing() {
        let mut journal = Journal::default();
        // Segments that told of the third are gone.
        let rotation = r#"{"seq":9,"at":"2026-11-27T09:00:00Z","rotation":{"epoch":3,"open":[]}}"#;
        journal.take(serde_json::from_str(rotation).unwrap());
        assert_eq!((journal.last, journal.told.len()), (3, 0));
    }

    #[test]
    fn rows_that_raised_the_epoch_are_told_like_revocations() {
        let mut journal = Journal::default();
        let line = r#"{"seq":9,"at":"2026-11-27T09:00:00Z","change":{"epoch":4,"nonce":7,
            "rows":[{"section":"stopped","key":"bot","says":"{}"}]}}"#;
        journal.take(serde_json::from_str(line).unwrap());
        assert!(matches!(journal.told[&4], One { nonce: Some(7), what: What::Rows(ref rows, _) } if rows.len() == 1));
    }
}
