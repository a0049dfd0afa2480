//! A definition that nobody has accepted, looked at: what is odd about it, what it was before, how the record tells it.
//!
//! Decides nothing. Invariants: what is looked at, and for how long, is bounded whatever a server lists, and more than a
//! little of it is looked at where no request waits for it.

use std::collections::{BTreeSet, HashSet};
use std::sync::Arc;

use super::rows::{Kept, PinState, Stored};
use crate::catalog::pins::{Accepted, Flag, Neighbours, Pinned, Sketch, flags};
use crate::ids::{DefinitionDigest, RevocationEpoch, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason};
use crate::record::Journal;
use crate::record::event::PinNote;

/// A definition that nobody has accepted, looked at.
#[derive(Debug, Clone)]
pub(super) struct Seen {
    pub(super) pinned: Pinned,
    pub(super) flags: BTreeSet<Flag>,
    pub(super) before: Option<DefinitionDigest>,
    pub(super) renamed_from: Option<Arc<str>>,
}

/// The same, to be told.
#[derive(Debug)]
pub(super) struct Told {
    pub(super) pinned: Pinned,
    pub(super) state: &'static str,
    pub(super) flags: Vec<&'static str>,
    pub(super) before: Option<DefinitionDigest>,
    pub(super) renamed_from: Option<Arc<str>>,
}

/// Who decided it, and with which change of the store.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Decided<'a> {
    pub(super) actor: Option<&'a str>,
    pub(super) note: &'a str,
    /// The epoch that includes it, and of how many definitions.
    pub(super) epoch: Option<(RevocationEpoch, usize)>,
}

/// Looks at these of a list, and nowhere where somebody waits for something else.
pub(super) async fn look(
    server: &ServerId,
    accepted: &Arc<Accepted>,
    all: &Arc<[Pinned]>,
    fresh: Vec<Pinned>,
) -> Result<Vec<Seen>, Failure> {
    let bytes: usize = fresh.iter().map(|pinned| pinned.text.as_bytes().len()).sum();
    if bytes <= limit::PINS_LOOKED_AT_BYTES_MAX {
        return Ok(Seen::of(server, accepted, all, fresh));
    }
    let (server, accepted, all) = (server.clone(), Arc::clone(accepted), Arc::clone(all));
    let looking = tokio::task::spawn_blocking(move || Seen::of(&server, &accepted, &all, fresh));
    looking.await.map_err(|_| Failure::before(Reason::Internal, "looking at definitions failed"))
}

impl Seen {
    /// Looks at these of a list.
    pub(super) fn of(server: &ServerId, accepted: &Accepted, all: &[Pinned], fresh: Vec<Pinned>) -> Vec<Self> {
        if fresh.is_empty() {
            return Vec::new();
        }
        // Its own that are not listed now count as well: a new one beside them is taken for the old one.
        let known = accepted.pins().map(|pin| &*pin.held.name);
        let neighbours = Neighbours::of(all.iter().map(|pinned| &*pinned.name).chain(known));
        let mut removed = Removed::of(server, accepted, all);
        fresh
            .into_iter()
            .map(|pinned| {
                let before = accepted.of_name(server, pinned.kind, &pinned.name).last().copied();
                let renamed_from = if before.is_none() { removed.like(&pinned) } else { None };
                Self { flags: flags(&pinned.name, &pinned.text, &neighbours), pinned, before, renamed_from }
            })
            .collect()
    }

    /// As it waits, with so much of its words kept.
    pub(super) fn kept(&self, server: &ServerId, at: i64, bytes: usize) -> Kept {
        let says = Stored {
            server: server.clone(),
            kind: self.pinned.kind,
            name: self.pinned.name.to_string(),
            state: PinState::Quarantined,
            flags: self.flags.clone(),
            renamed_from: self.renamed_from.as_deref().map(str::to_owned),
            by: String::new(),
            note: String::new(),
            at,
            bytes,
        };
        Kept { digest: self.pinned.digest, says, text: Some(self.pinned.text.clone()) }
    }

    pub(super) fn told(&self, state: &'static str) -> Told {
        Told {
            pinned: self.pinned.clone(),
            state,
            flags: self.flags.iter().map(|flag| flag.as_str()).collect(),
            before: self.before,
            renamed_from: self.renamed_from.clone(),
        }
    }
}

/// What was accepted of a server and is not listed any more, to be compared with.
struct Removed<'a> {
    pins: Vec<(&'a crate::catalog::pins::HeldPin, Option<Sketch>)>,
    comparisons: usize,
}

impl<'a> Removed<'a> {
    fn of(server: &ServerId, accepted: &'a Accepted, all: &[Pinned]) -> Self {
        let listed: HashSet<_> = all.iter().map(|pinned| (pinned.kind, &*pinned.name)).collect();
        let mut pins: Vec<_> = accepted
            .pins()
            .map(|pin| &pin.held)
            .filter(|held| held.server == *server && held.copy.is_some())
            .filter(|held| !listed.contains(&(held.kind, &*held.name)))
            .collect();
        // Which one is found does not depend on chance.
        pins.sort_by_key(|held| (Arc::clone(&held.name), held.digest.0));
        Self { pins: pins.into_iter().map(|held| (held, None)).collect(), comparisons: 0 }
    }

    /// The name of the first one that says nearly the same. Each is read once, however many it is compared with.
    fn like(&mut self, pinned: &Pinned) -> Option<Arc<str>> {
        let mut own: Option<Sketch> = None;
        for (held, sketch) in self.pins.iter_mut().filter(|(held, _)| held.kind == pinned.kind) {
            self.comparisons += 1;
            if self.comparisons > limit::PIN_COMPARISONS_MAX {
                return None;
            }
            let own = own.get_or_insert_with(|| Sketch::of(&pinned.text));
            let Some(copy) = &held.copy else { continue };
            if sketch.get_or_insert_with(|| Sketch::of(copy)).is_like(own) {
                return Some(Arc::clone(&held.name));
            }
        }
        None
    }
}

impl Told {
    /// Puts it on the record.
    pub(super) async fn tell(&self, journal: &Journal, server: &ServerId, decided: Decided<'_>) -> Result<(), Failure> {
        let note = PinNote {
            server: server.as_str(),
            kind: self.pinned.kind,
            name: &self.pinned.name,
            digest: self.pinned.digest,
            state: self.state,
            before: self.before,
            renamed_from: self.renamed_from.as_deref(),
            flags: &self.flags,
            actor: decided.actor,
            note: decided.note,
            epoch: decided.epoch.map(|(epoch, _)| epoch),
            together: decided.epoch.map(|(_, together)| together),
        };
        journal.pinned(&note).await.inspect_err(|failure| {
            tracing::error!(%server, %failure, "what became of a definition is not on the record");
        })
    }
}
