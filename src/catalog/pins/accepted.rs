//! What has been accepted, in memory: one immutable set, replaced whole.
//!
//! Decides how what the files accept and what administrators accept or reject come together: a rejection wins over both.
//! Invariant: whoever was offered something that is accepted no more learns of it from the bit that they hold, at once.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

use crate::config::PinLock;
use crate::ids::{DefinitionDigest, PinKind, ServerId};
use crate::wire::Json;

/// Everything that is accepted, for all who offer definitions. Cheap to read.
#[derive(Debug, Default)]
pub struct Pins {
    now: ArcSwap<Accepted>,
    sources: Mutex<Sources>,
}

#[derive(Debug, Default)]
struct Sources {
    held: Held,
    lock: Arc<PinLock>,
}

/// What the store holds.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Accepted by somebody, or on first use.
    pub accepted: Vec<HeldPin>,
    /// Rejected by somebody.
    pub rejected: HashSet<DefinitionDigest>,
    /// Servers whose first complete list was taken.
    pub used: HashSet<ServerId>,
    /// Servers of which something was accepted or rejected.
    pub decided: HashSet<ServerId>,
}

/// An accepted definition, as the store holds it.
#[derive(Debug, Clone)]
pub struct HeldPin {
    /// Its digest.
    pub digest: DefinitionDigest,
    /// The server.
    pub server: ServerId,
    /// Of what kind.
    pub kind: PinKind,
    /// Its name; empty for instructions.
    pub name: Arc<str>,
    /// The words that were accepted.
    pub copy: Option<Json>,
}

/// One immutable set of what is accepted.
#[derive(Debug, Default)]
pub struct Accepted {
    /// Another one with each change.
    pub(in crate::catalog) version: u64,
    pins: HashMap<DefinitionDigest, Arc<Pin>>,
    names: HashMap<(ServerId, PinKind, Arc<str>), Vec<DefinitionDigest>>,
    rejected: HashSet<DefinitionDigest>,
    used: HashSet<ServerId>,
    decided: HashSet<ServerId>,
}

/// One accepted definition.
#[derive(Debug)]
pub struct Pin {
    /// What it is.
    pub held: HeldPin,
    /// Whether the files accept it, too.
    pub locked: bool,
    withdrawn: Arc<AtomicBool>,
}

/// What an offered definition holds of its acceptance.
#[derive(Debug)]
pub(in crate::catalog) struct Seal {
    pub(super) digest: DefinitionDigest,
    /// It is accepted no more; shared by all who were offered it.
    withdrawn: Arc<AtomicBool>,
    /// Whoever listed it lists something else now.
    replaced: AtomicBool,
}

impl Seal {
    pub(super) fn of(pin: &Pin) -> Self {
        Self { digest: pin.held.digest, withdrawn: Arc::clone(&pin.withdrawn), replaced: AtomicBool::new(false) }
    }

    /// Whether it is a seal of this acceptance.
    pub(super) fn is_of(&self, pin: &Pin) -> bool {
        self.digest == pin.held.digest && Arc::ptr_eq(&self.withdrawn, &pin.withdrawn)
    }

    pub(super) fn replace(&self) {
        self.replaced.store(true, Ordering::Release);
    }

    pub(super) fn stands(&self) -> bool {
        !self.withdrawn.load(Ordering::Acquire) && !self.replaced.load(Ordering::Acquire)
    }
}

impl Pins {
    /// What is accepted now.
    #[must_use]
    pub fn now(&self) -> Arc<Accepted> {
        self.now.load_full()
    }

    /// Takes what the store holds.
    pub fn hold(&self, held: Held) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        sources.held = held;
        self.put(&sources);
    }

    /// Takes what the files accept.
    pub fn lock(&self, lock: &Arc<PinLock>) {
        let mut sources = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if Arc::ptr_eq(&sources.lock, lock) {
            return;
        }
        sources.lock = Arc::clone(lock);
        self.put(&sources);
    }

    fn put(&self, Sources { held, lock }: &Sources) {
        let before = self.now.load_full();
        let mut next = Accepted {
            version: before.version + 1,
            rejected: held.rejected.clone(),
            used: held.used.clone(),
            decided: held.decided.clone(),
            ..Accepted::default()
        };
        for pin in &held.accepted {
            let locked = lock.pins.get(&pin.digest.0);
            let locked = locked.is_some_and(|locked| pin.is_of(&locked.server, locked.kind, &locked.name));
            next.accept(&before, pin.clone(), locked);
        }
        for (digest, locked) in &lock.pins {
            let pin = HeldPin {
                digest: DefinitionDigest(*digest),
                server: locked.server.clone(),
                kind: locked.kind,
                name: Arc::from(locked.name.as_str()),
                copy: None,
            };
            next.decided.insert(locked.server.clone());
            next.accept(&before, pin, true);
        }
        let next = Arc::new(next);
        // In force before anybody is told that something else is not.
        self.now.store(Arc::clone(&next));
        for (digest, pin) in &before.pins {
            if !next.pins.contains_key(digest) {
                pin.withdrawn.store(true, Ordering::Release);
            }
        }
    }
}

impl HeldPin {
    fn is_of(&self, server: &ServerId, kind: PinKind, name: &str) -> bool {
        self.server == *server && self.kind == kind && &*self.name == name
    }
}

impl Accepted {
    fn accept(&mut self, before: &Self, held: HeldPin, locked: bool) {
        let digest = held.digest;
        if self.rejected.contains(&digest) || self.pins.contains_key(&digest) {
            return;
        }
        let name = (held.server.clone(), held.kind, Arc::clone(&held.name));
        self.names.entry(name).or_default().push(digest);
        let withdrawn = before.pins.get(&digest).map(|pin| Arc::clone(&pin.withdrawn)).unwrap_or_default();
        self.pins.insert(digest, Arc::new(Pin { held, locked, withdrawn }));
    }

    /// The acceptance of a definition. A digest alone is not enough: whoever reviews `pins.lock` reviews the heading, too.
    #[must_use]
    pub fn pin_of(&self, server: &ServerId, kind: PinKind, name: &str, digest: DefinitionDigest) -> Option<&Arc<Pin>> {
        self.pin(digest).filter(|pin| pin.held.is_of(server, kind, name))
    }

    /// The acceptance of a digest, whatever it is said to be of.
    #[must_use]
    pub fn pin(&self, digest: DefinitionDigest) -> Option<&Arc<Pin>> {
        self.pins.get(&digest)
    }

    /// Whether somebody has rejected it.
    #[must_use]
    pub fn is_rejected(&self, digest: DefinitionDigest) -> bool {
        self.rejected.contains(&digest)
    }

    /// Whether the first complete list of a server was taken.
    #[must_use]
    pub fn is_used(&self, server: &ServerId) -> bool {
        self.used.contains(server)
    }

    /// Whether anything of a server was accepted or rejected by somebody, in the store or in the files.
    #[must_use]
    pub fn is_decided(&self, server: &ServerId) -> bool {
        self.decided.contains(server)
    }

    /// What is accepted under a name, oldest first.
    #[must_use]
    pub fn of_name(&self, server: &ServerId, kind: PinKind, name: &str) -> &[DefinitionDigest] {
        self.names.get(&(server.clone(), kind, Arc::from(name))).map_or(&[], Vec::as_slice)
    }

    /// All that is accepted, in no order.
    pub fn pins(&self) -> impl Iterator<Item = &Arc<Pin>> {
        self.pins.values()
    }
}
