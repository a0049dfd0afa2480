//! How definitions stand, for administrators: what waits, what is accepted, what changed and how.
//!
//! Decides nothing. Invariant: what a server lists now and nobody has accepted is told, whether it was remembered or not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rows::{Kept, PinState, Shelved, Stored};
use crate::catalog::Slice;
use crate::catalog::pins::{Accepted, Flag, HeldPin, Pinned, diff};
use crate::config::pins::LockedPin;
use crate::config::{ListAs, PinLock, PinMode};
use crate::gateway::Gateway;
use crate::ids::{DefinitionDigest, PinKind, ServerId};
use crate::outcome::Failure;
use crate::wire::Json;

/// The answer to `GET /pins`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsReport {
    /// Every server of the files.
    pub servers: Vec<PinnedServer>,
    /// Every definition, by server, kind and name.
    pub pins: Vec<PinStatus>,
}

/// How a server's definitions are pinned.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinnedServer {
    /// Its id.
    pub server: String,
    /// `strict`, `first_use` or `off`.
    pub pins: String,
    /// Whether its first complete list was taken.
    pub first_use_taken: bool,
}

/// One definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinStatus {
    /// The server.
    pub server: String,
    /// `tool`, `prompt`, `template` or `instructions`.
    pub kind: PinKind,
    /// Its name; empty for instructions.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its digest.
    pub digest: DefinitionDigest,
    /// `new`, `changed`, `accepted`, `removed` or `rejected`.
    pub state: String,
    /// What is odd about it.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub flags: BTreeSet<Flag>,
    /// The name that nearly the same had before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub renamed_from: Option<String>,
    /// Whether its server lists it now, as far as the gateway itself sees.
    pub listed: bool,
    /// Who accepted or rejected it: a person, `first_use`, or `pins.lock`.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub by: String,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
    /// Since when, seconds since 1970; 0 where nobody noted it.
    #[serde(default)]
    pub at: i64,
}

/// The answer to `GET /pins/diff`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinDiffs {
    /// One for each definition of that name that waits; where none does, for each that is accepted.
    pub diffs: Vec<PinDiff>,
}

/// What changes with a definition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinDiff {
    /// How it stands.
    pub pin: PinStatus,
    /// What it is compared with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub against: Option<DefinitionDigest>,
    /// The difference, in lines; whatever cannot be seen is spelled out.
    pub text: String,
}

/// Which name is asked about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamedPin {
    /// The server.
    pub server: String,
    /// The name.
    pub name: String,
    /// Of what kind, where it is said.
    pub kind: Option<PinKind>,
}

/// `POST /pins/accept` and `POST /pins/reject`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PinOrder {
    /// The server.
    pub server: String,
    /// The digests.
    pub pins: Vec<DefinitionDigest>,
    /// Why.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub note: String,
}

/// The answer to both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinsChanged {
    /// How many definitions.
    pub changed: usize,
}

/// The answer to `GET /pins/export`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PinLockText {
    /// A `pins.lock` that accepts what is accepted now.
    pub lock: String,
}

impl Kept {
    /// What a server lists and the store does not remember.
    pub(super) fn unseen(server: &ServerId, pinned: &Pinned) -> Self {
        Self { text: Some(pinned.text.clone()), ..Self::bare(server, pinned.kind, &pinned.name, pinned.digest) }
    }

    /// What the files alone accept.
    pub(super) fn locked(held: &HeldPin) -> Self {
        let bare = Self::bare(&held.server, held.kind, &held.name, held.digest);
        let says = Stored { state: PinState::Accepted, by: crate::config::pins::FILE.to_owned(), ..bare.says };
        Self { says, text: held.copy.clone(), ..bare }
    }

    pub(super) fn bare(server: &ServerId, kind: PinKind, name: &str, digest: DefinitionDigest) -> Self {
        let says = Stored {
            server: server.clone(),
            kind,
            name: name.to_owned(),
            state: PinState::Quarantined,
            flags: BTreeSet::new(),
            renamed_from: None,
            by: String::new(),
            note: String::new(),
            at: 0,
        };
        Self { digest, says, text: None }
    }

    pub(super) fn pinned(&self) -> Pinned {
        Pinned {
            kind: self.says.kind,
            name: Arc::from(self.says.name.as_str()),
            digest: self.digest,
            text: self.text.clone().unwrap_or_else(|| Json::of(&())),
        }
    }
}

/// Everything that is known of definitions at one moment.
struct Known {
    pins: Vec<Kept>,
    accepted: Arc<Accepted>,
    /// What is listed now, and by servers whose list the gateway has.
    listed: HashSet<DefinitionDigest>,
    names: HashSet<(ServerId, PinKind, Arc<str>)>,
    seen: HashSet<ServerId>,
}

impl Known {
    fn of(shelved: Shelved, accepted: Arc<Accepted>, live: &[Arc<Slice>]) -> Self {
        let mut pins: BTreeMap<_, Kept> = BTreeMap::new();
        let key = |kept: &Kept| {
            (kept.says.server.clone(), kept.says.kind, kept.says.name.clone(), kept.says.at, kept.digest.0)
        };
        let mut known = HashSet::new();
        let (mut listed, mut names, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
        for kept in shelved.pins {
            known.insert(kept.digest);
            pins.insert(key(&kept), kept);
        }
        for slice in live {
            seen.insert(slice.server().clone());
            for pinned in slice.pinned() {
                listed.insert(pinned.digest);
                names.insert((slice.server().clone(), pinned.kind, Arc::clone(&pinned.name)));
                if known.contains(&pinned.digest) || accepted.pin(pinned.digest).is_some() {
                    continue;
                }
                known.insert(pinned.digest);
                let kept = Kept::unseen(slice.server(), &pinned);
                pins.insert(key(&kept), kept);
            }
        }
        for pin in accepted.pins().filter(|pin| pin.locked) {
            if known.insert(pin.held.digest) {
                let kept = Kept::locked(&pin.held);
                pins.insert(key(&kept), kept);
            }
        }
        Self { pins: pins.into_values().collect(), accepted, listed, names, seen }
    }

    fn status(&self, kept: &Kept) -> PinStatus {
        let says = &kept.says;
        let name: Arc<str> = Arc::from(says.name.as_str());
        let pin = self.accepted.pin(kept.digest);
        let gone = self.seen.contains(&says.server)
            && !self.names.contains(&(says.server.clone(), says.kind, Arc::clone(&name)));
        let state = match says.state {
            PinState::Rejected => "rejected",
            _ if pin.is_some() && gone => "removed",
            _ if pin.is_some() => "accepted",
            _ if self.accepted.of_name(&says.server, says.kind, &name).is_empty() => "new",
            _ => "changed",
        };
        let by = match pin {
            // The files accept what still waits for somebody in the store.
            Some(pin) if pin.locked && says.by.is_empty() => crate::config::pins::FILE.to_owned(),
            _ => says.by.clone(),
        };
        PinStatus {
            server: says.server.to_string(),
            kind: says.kind,
            name: says.name.clone(),
            digest: kept.digest,
            state: state.to_owned(),
            flags: says.flags.clone(),
            renamed_from: says.renamed_from.clone(),
            listed: self.listed.contains(&kept.digest),
            by,
            note: says.note.clone(),
            at: says.at,
        }
    }

    /// What a definition is compared with: what was accepted under its name last, or under the one that it had.
    fn against(&self, kept: &Kept) -> Option<(DefinitionDigest, Option<&Json>)> {
        let says = &kept.says;
        let names = [Some(&says.name), says.renamed_from.as_ref()];
        let before = names.into_iter().flatten().find_map(|name| {
            let digests = self.accepted.of_name(&says.server, says.kind, name);
            digests.iter().rev().find(|digest| **digest != kept.digest)
        })?;
        let copy = self.pins.iter().find(|other| other.digest == *before).and_then(|other| other.text.as_ref());
        Some((*before, copy))
    }
}

impl Gateway {
    async fn known_pins(&self) -> Result<Known, Failure> {
        let shelved = Shelved::read(&self.keeper.store).await?;
        let config = self.config();
        let mut live = self.catalog.live();
        // Of a server without pins nothing waits, and lists of callers' own are nobody else's.
        live.retain(|slice| {
            let server = config.server(slice.server());
            server.is_some_and(|server| server.pins != PinMode::Off && server.list_as == ListAs::Gateway)
        });
        Ok(Known::of(shelved, self.keeper.pins.now(), &live))
    }

    /// How all definitions stand.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn pins_report(&self) -> Result<PinsReport, Failure> {
        let known = self.known_pins().await?;
        let servers = self
            .config()
            .servers
            .iter()
            .map(|server| PinnedServer {
                server: server.id.to_string(),
                pins: server.pins.as_str().to_owned(),
                first_use_taken: known.accepted.is_used(&server.id),
            })
            .collect();
        Ok(PinsReport { servers, pins: known.pins.iter().map(|kept| known.status(kept)).collect() })
    }

    /// What changes with the definitions of a name.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn pin_diffs(&self, named: &NamedPin) -> Result<PinDiffs, Failure> {
        let known = self.known_pins().await?;
        let meant: Vec<(&Kept, PinStatus)> = known
            .pins
            .iter()
            .filter(|kept| {
                let says = &kept.says;
                let kind = named.kind.is_none_or(|kind| kind == says.kind);
                let instructions = says.kind == PinKind::Instructions && named.name == PinKind::Instructions.as_str();
                kind && says.server.as_str() == named.server && (says.name == named.name || instructions)
            })
            .map(|kept| (kept, known.status(kept)))
            .collect();
        let waits = |status: &PinStatus| matches!(status.state.as_str(), "new" | "changed");
        let some_wait = meant.iter().any(|(_, status)| waits(status));
        let shown = meant.into_iter().filter(|(_, status)| !some_wait || waits(status));
        // A definition that only the files accept is shown as its server lists it.
        let live: HashMap<_, _> = self
            .catalog
            .live()
            .iter()
            .flat_map(|slice| slice.pinned())
            .map(|pinned| (pinned.digest, pinned.text))
            .collect();
        let diffs = shown.map(|(kept, pin)| {
            let against = if some_wait { known.against(kept) } else { None };
            let text = kept.text.as_ref().or_else(|| live.get(&kept.digest));
            let before = against.and_then(|(digest, copy)| copy.or_else(|| live.get(&digest)));
            let text = text.map_or_else(String::new, |text| diff(before, text));
            PinDiff { pin, against: against.map(|(digest, _)| digest), text }
        });
        Ok(PinDiffs { diffs: diffs.collect() })
    }

    /// A `pins.lock` that accepts what is accepted now.
    #[must_use]
    pub fn pin_lock(&self) -> PinLockText {
        let accepted = self.keeper.pins.now();
        let pins = accepted.pins().map(|pin| {
            let locked =
                LockedPin { server: pin.held.server.clone(), kind: pin.held.kind, name: pin.held.name.to_string() };
            (pin.held.digest.0, locked)
        });
        PinLockText { lock: PinLock { pins: pins.collect() }.write() }
    }
}
