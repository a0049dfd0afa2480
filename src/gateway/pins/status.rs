//! How definitions stand, for administrators: what waits, what is accepted, what changed and how.
//!
//! Decides nothing. Invariant: what a server lists now and nobody has accepted is told with its flags, whether it was
//! remembered or not.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::rows::{Kept, PinState, Stored, waiting};
use super::seen::look;
use super::words::{self, Of, WAITING_WORDS, WORDS};
use super::{Shelved, is_unknown};
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
    /// The one that was asked for by its digest; else one for each definition of that name that waits, and where none
    /// does, for each that was decided.
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
    /// Which one of that name, where it is said.
    pub digest: Option<DefinitionDigest>,
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
            bytes: 0,
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
pub(super) struct Known {
    pub(super) pins: Vec<Kept>,
    accepted: Arc<Accepted>,
    /// What is listed now, and by servers whose list the gateway has.
    listed: HashSet<DefinitionDigest>,
    names: HashSet<(ServerId, PinKind, Arc<str>)>,
    seen: HashSet<ServerId>,
}

impl Known {
    pub(super) async fn of(
        shelved: &Shelved,
        waiting: Vec<Kept>,
        accepted: Arc<Accepted>,
        live: &[Arc<Slice>],
    ) -> Result<Self, Failure> {
        let mut pins: BTreeMap<_, Kept> = BTreeMap::new();
        let key = |kept: &Kept| {
            (kept.says.server.clone(), kept.says.kind, kept.says.name.clone(), kept.says.at, kept.digest.0)
        };
        let mut known = HashSet::new();
        let (mut listed, mut names, mut seen) = (HashSet::new(), HashSet::new(), HashSet::new());
        // What was decided comes before what waited.
        for kept in shelved.pins.iter().cloned().chain(waiting) {
            if known.insert(kept.digest) {
                pins.insert(key(&kept), kept);
            }
        }
        for slice in live {
            let server = slice.server();
            seen.insert(server.clone());
            let all: Arc<[Pinned]> = slice.pinned().into();
            for pinned in all.iter() {
                listed.insert(pinned.digest);
                names.insert((server.clone(), pinned.kind, Arc::clone(&pinned.name)));
            }
            let unknown = all.iter().filter(|pinned| is_unknown(&accepted, server, pinned));
            let fresh = unknown.filter(|pinned| known.insert(pinned.digest)).cloned().collect();
            for seen in look(server, &accepted, &all, fresh).await? {
                let kept = seen.kept(server, 0, 0);
                pins.insert(key(&kept), kept);
            }
        }
        let names_of: HashSet<_> = pins.values().map(|kept| (kept.digest, kept.says.server.clone())).collect();
        for pin in accepted.pins().filter(|pin| pin.locked) {
            // Under a heading that is not its own it is told as well, beside what it is of.
            if !names_of.contains(&(pin.held.digest, pin.held.server.clone())) {
                let kept = Kept::locked(&pin.held);
                pins.insert(key(&kept), kept);
            }
        }
        Ok(Self { pins: pins.into_values().collect(), accepted, listed, names, seen })
    }

    fn status(&self, kept: &Kept) -> PinStatus {
        let says = &kept.says;
        let name: Arc<str> = Arc::from(says.name.as_str());
        let pin = self.accepted.pin_of(&says.server, says.kind, &name, kept.digest);
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
    fn against(&self, kept: &Kept) -> Option<&Kept> {
        let says = &kept.says;
        let names = [Some(&says.name), says.renamed_from.as_ref()];
        let before = names.into_iter().flatten().find_map(|name| {
            let digests = self.accepted.of_name(&says.server, says.kind, name);
            digests.iter().rev().find(|digest| **digest != kept.digest)
        })?;
        self.pins.iter().find(|other| other.digest == *before)
    }
}

impl Gateway {
    async fn known_pins(&self) -> Result<Known, Failure> {
        let waiting = waiting(&self.keeper.store).await?;
        let config = self.config();
        let mut live = self.catalog.live();
        // Of a server without pins nothing waits, and lists of callers' own are nobody else's.
        live.retain(|slice| {
            let server = config.server(slice.server());
            server.is_some_and(|server| server.pins != PinMode::Off && server.list_as == ListAs::Gateway)
        });
        Known::of(&self.keeper.shelved(), waiting, self.keeper.pins.now(), &live).await
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
                let digest = named.digest.is_none_or(|digest| digest == kept.digest);
                digest && kind && says.server.as_str() == named.server && (says.name == named.name || instructions)
            })
            .map(|kept| (kept, known.status(kept)))
            .collect();
        let waits = |status: &PinStatus| matches!(status.state.as_str(), "new" | "changed");
        let some_wait = meant.iter().any(|(_, status)| waits(status));
        let shown: Vec<_> =
            meant.into_iter().filter(|(_, status)| named.digest.is_some() || !some_wait || waits(status)).collect();
        // What was decided is shown as it is, and whatever waits beside what it changes.
        let against =
            |kept: &Kept, pin: &PinStatus| (waits(pin) || pin.state == "rejected").then(|| known.against(kept))?;
        let mut wanted: HashMap<DefinitionDigest, Of> = HashMap::new();
        for kept in shown.iter().flat_map(|(kept, pin)| std::iter::once(*kept).chain(against(kept, pin))) {
            wanted.insert(kept.digest, Of::from(kept));
        }
        let texts = self.texts(&wanted).await?;
        let diffs = shown.iter().map(|(kept, pin)| {
            let before = against(kept, pin);
            let text = texts
                .get(&kept.digest)
                .map_or_else(String::new, |text| diff(before.and_then(|before| texts.get(&before.digest)), text));
            PinDiff { pin: pin.clone(), against: before.map(|before| before.digest), text }
        });
        Ok(PinDiffs { diffs: diffs.collect() })
    }

    /// What definitions say: as they are listed now, as they were accepted, or as they are remembered.
    async fn texts(&self, wanted: &HashMap<DefinitionDigest, Of>) -> Result<HashMap<DefinitionDigest, Json>, Failure> {
        let mut texts = self.texts_at_hand(wanted);
        for section in [WORDS, WAITING_WORDS] {
            let missing: Vec<Of> = wanted.values().filter(|of| !texts.contains_key(&of.digest)).cloned().collect();
            if !missing.is_empty() {
                texts.extend(words::find(&self.keeper.store, section, missing).await?);
            }
        }
        Ok(texts)
    }

    fn texts_at_hand(&self, wanted: &HashMap<DefinitionDigest, Of>) -> HashMap<DefinitionDigest, Json> {
        let accepted = self.keeper.pins.now();
        let copy = |digest: &DefinitionDigest| Some((*digest, accepted.pin(*digest)?.held.copy.clone()?));
        let mut texts: HashMap<_, _> = wanted.keys().filter_map(copy).collect();
        for slice in self.catalog.live() {
            let listed = slice.pinned().into_iter().filter(|pinned| wanted.contains_key(&pinned.digest));
            texts.extend(listed.map(|pinned| (pinned.digest, pinned.text)));
        }
        texts
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
