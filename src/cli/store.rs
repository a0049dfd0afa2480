//! `store`: what the store is, and bringing one that is older than the journal up to it.
//!
//! Decides what may be missing: nothing, unless somebody who saw the list says so. Invariant: after `reconcile` the
//! store holds whatever the journal tells that took something back and was not lifted, and whatever it has itself taken
//! back since, or is unchanged.

mod told;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use serde::Serialize;

use super::Ending;
use super::offline::{self, Work};
use super::output::{BAD, GOOD, Output, WARNING, complain, trouble};
use super::state::State;
use crate::config::StoreConfig;
use crate::gateway::parted::Since;
use crate::gateway::record_missed;
use crate::identity::revoked::RevocationStore as _;
use crate::ids::RevocationEpoch;
use crate::limit;
use crate::outcome::Failure;
use crate::record::journal;
use crate::store::{StateDirectory, Store, Told, ToldChange, look};
use told::Journal;

const EXAMPLES: &str = "\
Examples:
  bailiwick store status       the version of the store, its epoch, how many revocations it holds
  bailiwick store upgrade      brings its tables up to this program, as a start does, without serving
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
    /// Bring the tables up to this program, and keep a copy of what they were
    Upgrade,
    /// Take over what the journal tells that was taken back, and the store has forgotten
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
struct Upgraded {
    from: i64,
    to: i64,
    /// What it was before, where it is a file.
    #[serde(skip_serializing_if = "Option::is_none")]
    kept: Option<PathBuf>,
}

#[derive(Serialize)]
struct Reconciled {
    from: u64,
    to: u64,
    taken: usize,
    gaps: Vec<String>,
    /// What would have given back what the store has taken back since.
    left_out: Vec<String>,
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
            What::Upgrade => upgrade(&state, &arguments.state.store()?, output).await,
            What::Reconcile { accept_gaps } => reconcile(&state, &arguments.state.store()?, accept_gaps, output).await,
        }
    };
    done.await.unwrap_or_else(|problem: String| {
        trouble(problem);
        Ending::Trouble
    })
}

/// Does what a start does with an older store, where none is to be served yet.
async fn upgrade(state: &Path, config: &StoreConfig, output: Output) -> Result<Ending, String> {
    if !state.is_dir() {
        return Err(format!("there is no state directory {}; has a gateway run there?", state.display()));
    }
    let held = StateDirectory::open(state).map_err(|error| error.to_string())?;
    let before = Store::look(config, state).await.map_err(|error| error.to_string())?;
    let store = Store::open(&held, config).await.map_err(|error| error.to_string())?;
    let replica = store.replica().await.map_err(|failure| failure.detail)?;
    store.close().await;
    let (from, to) = (before.version, before.version_known);
    let kept = (from < to).then(|| state.join(format!("store.version-{from}.sqlite"))).filter(|kept| kept.exists());
    if from < to {
        let about = format!("version {from} to {to}");
        let work = Work { operation: "store-upgrade", object: "bailiwick/store", about: &about };
        let told = async { work.tell(&offline::journal(held.path(), replica)?.0, "done", "").await };
        if let Err(problem) = told.await {
            offline::untold(&problem);
        }
    }
    let text = match &kept {
        _ if from == to => format!("the store is at version {to} already\n"),
        Some(kept) => {
            format!("{GOOD}upgraded{GOOD:#}: version {from} to {to}; what it was is in {}\n", kept.display())
        }
        None => format!("{GOOD}upgraded{GOOD:#}: version {from} to {to}\n"),
    };
    output.result(&Upgraded { from, to, kept }, text);
    Ok(Ending::Done)
}

async fn reconcile(state: &Path, config: &StoreConfig, accept_gaps: bool, output: Output) -> Result<Ending, String> {
    if !state.is_dir() {
        return Err(format!("there is no state directory {}; has a gateway run there?", state.display()));
    }
    let detail = |failure: Failure| failure.detail;
    // As a gateway would hold it: none runs meanwhile.
    let held = StateDirectory::open(state).map_err(|error| error.to_string())?;
    let store = Store::open(&held, config).await.map_err(|error| error.to_string())?;
    let from = store.revocation_epoch().await.map_err(detail)?.0;
    let journal = Journal::read(&journal::directory(state))?;
    let parted = journal.parted_from(&store, from).await.map_err(detail)?;
    // What the store has come to since they parted holds as well, so what it has forgotten comes after that.
    let (after, shift) = parted.map_or((from, 0), |parted| (parted - 1, from + 1 - parted));
    let since = Since::read(&store, parted).await.map_err(detail)?;
    let mut told = BTreeMap::new();
    let (mut gaps, mut left_out) = (Vec::new(), Vec::new());
    for epoch in after + 1..=journal.last {
        match journal.change(&store, epoch).await {
            Ok(Told { change, nonce }) => {
                let (change, out) = since.left_of(change);
                let room = limit::RECONCILE_GAPS_SHOWN_MAX.saturating_sub(left_out.len());
                left_out.extend(out.into_iter().take(room).map(|out| format!("epoch {epoch} {out}")));
                told.insert(epoch + shift, Told { change, nonce });
            }
            Err(why) if gaps.len() < limit::RECONCILE_GAPS_SHOWN_MAX => gaps.push(format!("epoch {epoch}: {why}")),
            Err(_) => {}
        }
    }
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
    let to = from.max(journal.last + shift);
    let replica = store.replica().await.map_err(detail)?;
    let (record, _) = offline::journal(held.path(), replica)?;
    let about = if gaps.is_empty() { String::new() } else { format!("accepting gaps: {}", gaps.join("; ")) };
    let work = Work { operation: "store-reconcile", object: "bailiwick/store", about: &about };
    work.tell(&record, "begun", "").await?;
    // Before the store counts as brought up; it can be done again where that fails.
    journal.pins.apply(&store).await.map_err(detail)?;
    store.catch_up(&told, RevocationEpoch(to)).await.map_err(detail)?;
    if parted.is_some() {
        // What the store has come to, so that the two are of one history again.
        record_missed(&store, &record, replica, Some(RevocationEpoch(after))).await.map_err(detail)?;
    }
    store.close().await;
    for left in &left_out {
        complain(format_args!("{WARNING}left out: {left}{WARNING:#}, and the store has taken it back since\n"));
    }
    let nothing = ToldChange::Rows(Vec::new(), Vec::new());
    let taken = told.values().filter(|told| told.change != nothing).count();
    let reconciled = Reconciled { from, to, taken, gaps, left_out };
    let done = format!("{taken} changes taken over, epoch {from} -> {to}");
    if let Err(problem) = work.tell(&record, "done", &done).await {
        offline::untold(&problem);
    }
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
