//! `store`: what the store is, and bringing one that is older than the journal up to it.
//!
//! Decides what may be missing: nothing, unless somebody who saw the list says so. Invariant: after `reconcile` the
//! store holds every revocation that the journal tells and that was not lifted, or is unchanged.

use std::collections::BTreeMap;
use std::path::Path;

use clap::{Args, Subcommand};
use serde::{Deserialize, Serialize};

use super::Ending;
use super::output::{BAD, GOOD, Output, WARNING, complain, trouble};
use super::state::State;
use crate::config::StoreConfig;
use crate::gateway::pins::replay::{PinOrders, ToldPin};
use crate::identity::described::Described;
use crate::identity::revoked::{Revocation, RevocationMode, RevocationStore as _};
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::record::journal;
use crate::record::read::{Reader, segments};
use crate::store::{StateDirectory, Store, ToldChange, look};

const EXAMPLES: &str = "\
Examples:
  bailiwick store status       the version of the store, its epoch, how many revocations it holds
  bailiwick store reconcile    after an older store was restored beside a newer journal

A store that is older than the journal does not start: it would let in again whom the journal says was revoked.";

/// Look at the store, and bring an older one up to the journal
#[derive(Debug, Args)]
#[command(after_help = EXAMPLES)]
pub struct StoreArguments {
    #[command(subcommand)]
    what: What,
    #[command(flatten)]
    state: State,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Tell the store's version and what it holds
    Status,
    /// Take over the revocations that the journal tells and the store has forgotten
    Reconcile {
        /// Accept that what the journal cannot tell any more is not in force
        #[arg(long)]
        accept_gaps: bool,
    },
}

#[derive(Serialize)]
struct Status {
    version: i64,
    version_known: i64,
    epoch: u64,
    revocations: i64,
    replica: String,
}

#[derive(Serialize)]
struct Reconciled {
    from: u64,
    to: u64,
    taken: usize,
    gaps: Vec<String>,
}

/// One line of the journal, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    seq: u64,
    at: jiff::Timestamp,
    revocation: Option<Told>,
    start: Option<AtEpoch>,
    rotation: Option<AtEpoch>,
    pin: Option<ToldPin>,
}

/// A record that tells how far the store was.
#[derive(Deserialize)]
struct AtEpoch {
    #[serde(default)]
    epoch: u64,
}

#[derive(Deserialize)]
struct Told {
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
}

/// What the journal tells beyond an epoch.
#[derive(Default)]
struct Journal {
    told: BTreeMap<u64, ToldChange>,
    pins: PinOrders,
    last: u64,
    /// Why an epoch is not among them, where that is known.
    unreadable: BTreeMap<u64, String>,
}

/// Looks at the store or reconciles it.
pub async fn run(arguments: &StoreArguments, output: Output) -> Ending {
    let done = async {
        let state = arguments.state.directory()?;
        match arguments.what {
            What::Status => {
                let looked = Store::look(&arguments.state.store()?, &state).await.map_err(|error| error.to_string())?;
                let look::Looked { version, version_known, epoch, revocations, replica } = looked;
                let note = match version.cmp(&version_known) {
                    std::cmp::Ordering::Less => "; the next start upgrades it and keeps a copy",
                    std::cmp::Ordering::Equal => "",
                    std::cmp::Ordering::Greater => "; this program is older and does not start with it",
                };
                let text = format!(
                    "version {version} of {version_known}{note}\nepoch {}, {revocations} revocations\nreplica {replica}\n",
                    epoch.0
                );
                output.result(&Status { version, version_known, epoch: epoch.0, revocations, replica }, text);
                Ok(Ending::Done)
            }
            What::Reconcile { accept_gaps } => reconcile(&state, &arguments.state.store()?, accept_gaps, output).await,
        }
    };
    done.await.unwrap_or_else(|problem: String| {
        trouble(problem);
        Ending::Trouble
    })
}

async fn reconcile(state: &Path, config: &StoreConfig, accept_gaps: bool, output: Output) -> Result<Ending, String> {
    if !state.is_dir() {
        return Err(format!("there is no state directory {}; has a gateway run there?", state.display()));
    }
    // As a gateway would hold it: none runs meanwhile.
    let held = StateDirectory::open(state).map_err(|error| error.to_string())?;
    let store = Store::open(&held, config).await.map_err(|error| error.to_string())?;
    let from = store.revocation_epoch().await.map_err(|failure| failure.detail)?.0;
    let journal = read(&journal::directory(state), from)?;
    let gap = |epoch: &u64| match journal.unreadable.get(epoch) {
        Some(why) => format!("epoch {epoch}: {why}"),
        None => format!("epoch {epoch}: the journal does not tell it"),
    };
    let missing =
        (from + 1..=journal.last).filter(|epoch| !journal.told.contains_key(epoch) && !journal.pins.tells(*epoch));
    let gaps: Vec<String> = missing.take(limit::RECONCILE_GAPS_SHOWN_MAX).map(|epoch| gap(&epoch)).collect();
    for gap in &gaps {
        complain(format_args!("{BAD}{gap}{BAD:#}\n"));
    }
    if !gaps.is_empty() && !accept_gaps {
        trouble(
            "nothing was changed: who was revoked there is not known; restore a newer backup of the store, or, once \
             they are revoked again or known not to matter, --accept-gaps",
        );
        return Ok(Ending::Refused);
    }
    // Before the store counts as brought up; it can be done again where that fails.
    let rejected = journal.pins.apply(&store).await.map_err(|failure| failure.detail)?;
    store.catch_up(&journal.told, RevocationEpoch(journal.last)).await.map_err(|failure| failure.detail)?;
    store.close().await;
    let reconciled = Reconciled { from, to: journal.last.max(from), taken: journal.told.len() + rejected, gaps };
    let text = match (reconciled.to, &reconciled.gaps[..]) {
        (to, _) if to == from => format!("the store is as new as the journal: epoch {from}\n"),
        (to, []) => {
            format!("{GOOD}reconciled{GOOD:#}: {} changes taken over, epoch {from} -> {to}\n", reconciled.taken)
        }
        (to, _) => format!(
            "{WARNING}reconciled with gaps{WARNING:#}: {} changes taken over, epoch {from} -> {to}; revoke again \
             what is missing\n",
            reconciled.taken
        ),
    };
    output.result(&reconciled, text);
    Ok(Ending::Done)
}

/// Reads the whole journal; what is not a record is for `verify` to judge.
fn read(directory: &Path, after: u64) -> Result<Journal, String> {
    let problem = |error: std::io::Error| format!("{}: {error}", directory.display());
    let mut found = Journal { last: after, ..Journal::default() };
    for first in segments(directory).map_err(problem)? {
        let lines = Reader::new(directory, first).segment().map_err(problem)?;
        // What was accepted on first use raised no epoch, and is not accepted anew.
        let counts = |line: &&str| line.contains("\"epoch\"") || line.contains("\"first_use\"");
        for line in lines.lines().filter(counts) {
            if let Ok(line) = serde_json::from_str::<Line>(line) {
                found.take(line, after);
            }
        }
    }
    Ok(found)
}

impl Journal {
    fn take(&mut self, line: Line, after: u64) {
        if let Some(told) = line.pin {
            self.last = self.last.max(told.epoch().unwrap_or_default());
            if told.epoch().is_none_or(|epoch| epoch > after) {
                self.pins.take(told, line.at.as_second());
            }
            return;
        }
        let epoch = line.revocation.as_ref().map(|told| told.epoch);
        let Some(epoch) = epoch.or(line.start.or(line.rotation).map(|at| at.epoch)) else { return };
        self.last = self.last.max(epoch);
        let Some(told) = line.revocation.filter(|told| told.epoch > after) else { return };
        match told.into_change(line.at.as_second()) {
            Ok(change) => drop(self.told.insert(epoch, change)),
            Err(why) => drop(self.unreadable.insert(epoch, format!("record {} {why}", line.seq))),
        }
    }
}

impl Told {
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
        if self.lifted {
            return Ok(ToldChange::Lifted(target, mode));
        }
        Ok(ToldChange::Revoked(Revocation { target, mode, actor: self.actor, note: self.note, at }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_epoch_that_only_a_rotation_tells_is_known_to_be_missing() {
        let mut journal = Journal { last: 2, ..Journal::default() };
        // Segments that told of the third are gone.
        let rotation = r#"{"seq":9,"at":"2026-11-27T09:00:00Z","rotation":{"epoch":3,"open":[]}}"#;
        journal.take(serde_json::from_str(rotation).unwrap(), 2);
        assert_eq!((journal.last, journal.told.len()), (3, 0));
    }
}
