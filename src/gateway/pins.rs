//! Who accepts definitions, and where that is kept: the first complete list of a server, and administrators.
//!
//! Decides when a first list is taken, and tells the record of every definition that is accepted, rejected or kept back.
//! Refuses to know what may be offered: `catalog::pins` does, from what is handed to it here. Invariants: what was
//! accepted is durable before it is offered; a store that went back decides nothing any more.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use futures_util::{StreamExt as _, stream};
use tokio::time::Instant;

mod order;
pub mod replay;
mod rows;
mod seen;
mod status;
#[cfg(test)]
mod tests;
mod waits;
mod words;

pub(in crate::gateway) use rows::DECIDED;
pub use status::{
    NamedPin, PinDiff, PinDiffs, PinLockText, PinOrder, PinStatus, PinnedServer, PinsChanged, PinsReport,
};

use super::Gateway;
use crate::catalog::Listed;
use crate::catalog::pins::{Accepted, Pinned, Pins};
use crate::config::{PinMode, WebhookConfig};
use crate::identity::revoked::RevocationStore as _;
use crate::ids::{AuthorizationContext, DefinitionDigest, RevocationEpoch, ServerId};
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason};
use crate::record::Journal;
use crate::shelf::{Change, Changed, Section, Shelf as _, Tell, Version};
use crate::store::Store;
use crate::wire::Json;
use rows::{CHANGES, FIRST_USE, Kept, SERVERS, Shelved, Used, UsedPin, WAITING, batches, counted};
use seen::{Decided, Seen, Told, look};
use waits::Waits;
use words::{Of, WAITING_WORDS, WORDS};

/// Every section that definitions are kept in.
pub(in crate::gateway) const SECTIONS: [&str; 5] =
    [DECIDED.name, WAITING.name, SERVERS.name, WORDS.name, WAITING_WORDS.name];
/// How many lines of the record are waited for at once.
const TOLD_TOGETHER: usize = 32;

/// Keeps what is accepted.
#[derive(Debug)]
pub struct Keeper {
    pins: Arc<Pins>,
    store: Store,
    journal: Journal,
    /// Definitions that wait and were told of, by server.
    waits: Mutex<HashMap<ServerId, Waits>>,
    taken: Mutex<Taken>,
    /// That the store went back, once that was seen.
    went_back: OnceLock<String>,
    /// Held while the store is read and put in force: what was read first must not be put in force last.
    taking: tokio::sync::Mutex<()>,
    /// Held while something is accepted or rejected here.
    changing: tokio::sync::Mutex<()>,
}

/// What was read of the store last.
#[derive(Debug, Default)]
struct Taken {
    /// With which change; nothing where it could not be read since.
    version: Option<Version>,
    /// At which epoch it was.
    epoch: RevocationEpoch,
    shelved: Arc<Shelved>,
    /// Accepted, and their words were looked for in vain.
    wordless: HashSet<DefinitionDigest>,
}

impl Keeper {
    /// Reads what is stored.
    ///
    /// # Errors
    /// `store_unavailable`.
    pub async fn open(store: Store, journal: Journal) -> Result<Self, Failure> {
        let keeper = Self {
            pins: Arc::default(),
            store,
            journal,
            waits: Mutex::default(),
            taken: Mutex::default(),
            went_back: OnceLock::new(),
            taking: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        keeper.take().await?;
        let now_us = keeper.store.clock_us().await?;
        for row in rows::all(&keeper.store, WAITING).await? {
            let good_us = row.expires_at_us.unwrap_or(now_us).saturating_sub(now_us);
            let Some(Kept { digest, says, .. }) = Kept::read(&row) else { continue };
            let good_until = Instant::now() + Duration::from_micros(u64::try_from(good_us).unwrap_or_default());
            keeper.waits().entry(says.server).or_default().remember(digest, says.at, says.bytes, good_until);
        }
        Ok(keeper)
    }

    /// What may be offered.
    #[must_use]
    pub const fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    fn waits(&self) -> MutexGuard<'_, HashMap<ServerId, Waits>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn taken(&self) -> MutexGuard<'_, Taken> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was decided, as it was read last.
    fn shelved(&self) -> Arc<Shelved> {
        Arc::clone(&self.taken().shelved)
    }

    /// Puts what is stored in force.
    async fn take(&self) -> Result<(), Failure> {
        let _one_at_a_time = self.taking.lock().await;
        let version = self.version().await?;
        let shelved = Arc::new(Shelved::read(&self.store).await?);
        // After it was read: a store that went back meanwhile is at an older epoch now.
        let epoch = self.store.revocation_epoch().await?;
        let mut wordless = {
            let taken = self.taken();
            if epoch < taken.epoch {
                let told = format!("the store went back from epoch {} to {}", taken.epoch.0, epoch.0);
                let _told_already = self.went_back.set(told);
            }
            if taken.version == Some(version) { taken.wordless.clone() } else { HashSet::new() }
        };
        if let Some(told) = self.went_back.get() {
            return Err(Failure::before(Reason::StoreUnavailable, told.clone()));
        }
        let words = self.words_of(&shelved, &mut wordless).await;
        self.pins.hold(shelved.held(&words));
        *self.taken() = Taken { version: Some(version), epoch, shelved, wordless };
        Ok(())
    }

    /// The accepted words: what is in memory is not read again. Nothing waits for words that cannot be read.
    async fn words_of(
        &self,
        shelved: &Shelved,
        wordless: &mut HashSet<DefinitionDigest>,
    ) -> HashMap<DefinitionDigest, Json> {
        let now = self.pins.now();
        let (mut words, mut wanted) = (HashMap::new(), Vec::new());
        for kept in shelved.accepted() {
            match now.pin(kept.digest).and_then(|pin| pin.held.copy.clone()) {
                Some(copy) => drop(words.insert(kept.digest, copy)),
                None if wordless.contains(&kept.digest) => {}
                None => wanted.push(Of::from(kept)),
            }
        }
        if wanted.is_empty() {
            return words;
        }
        let digests: Vec<_> = wanted.iter().map(|of| of.digest).collect();
        match words::find(&self.store, WORDS, wanted).await {
            Ok(found) => {
                wordless.extend(digests.into_iter().filter(|digest| !found.contains_key(digest)));
                words.extend(found);
            }
            Err(failure) => tracing::warn!(%failure, "accepted definitions are offered in their servers' spelling"),
        }
        words
    }

    async fn version(&self) -> Result<Version, Failure> {
        Ok(self.store.row(SERVERS, CHANGES).await?.map_or(Version(0), |row| row.version))
    }

    /// Takes up what was accepted or rejected elsewhere; answers whether there was anything.
    async fn follow(&self) -> Result<bool, Failure> {
        let version = self.version().await?;
        if self.taken().version == Some(version) {
            return Ok(false);
        }
        self.take().await?;
        Ok(true)
    }

    /// What was just listed, before anything of it is offered.
    pub(super) async fn listed(self: &Arc<Self>, listed: Listed<'_>, hooks: &[WebhookConfig]) {
        let server = listed.server;
        if server.pins == PinMode::Off {
            return;
        }
        let all: Arc<[Pinned]> = listed.slice.pinned().into();
        let accepted = self.pins.now();
        if server.pins == PinMode::FirstUse && !accepted.is_used(&server.id) {
            if listed.complete && !all.is_empty() {
                if let Err(failure) = self.take_first(&server.id, &all).await {
                    tracing::error!(server = %server.id, %failure, "its first list is not taken: nothing new of it is shown");
                    return;
                }
            } else if !accepted.is_decided(&server.id) {
                // Nothing of it is offered, and nothing is remembered of what is going to be taken or not.
                return;
            }
        }
        let whole = listed.complete && listed.slice.context() == AuthorizationContext::Gateway;
        self.keep_back(&server.id, &all, whole, hooks).await;
    }

    /// Takes a first list: once, whatever of it is accepted already. Where somebody has begun to decide of a server,
    /// nothing of it is accepted by itself.
    async fn take_first(self: &Arc<Self>, server: &ServerId, all: &Arc<[Pinned]>) -> Result<(), Failure> {
        let _one_at_a_time = self.changing.lock().await;
        // Another replica, or another caller's list, may have been first; and names that others have are looked at.
        self.take().await?;
        let accepted = self.pins.now();
        if accepted.is_used(server) {
            return Ok(());
        }
        if !self.journal.is_well() {
            return Err(Failure::before(Reason::RecordUnavailable, "what is accepted would not be on the record"));
        }
        let mut seen = Vec::new();
        if !accepted.is_decided(server) {
            seen = look(server, &accepted, all, all.to_vec()).await?;
            seen.retain(|seen| seen.flags.is_empty());
        }
        let at = self.store.clock_us().await? / 1_000_000;
        let pins = seen.iter().map(|seen| UsedPin {
            digest: seen.pinned.digest,
            kind: seen.pinned.kind,
            name: Arc::clone(&seen.pinned.name),
        });
        let mut changes = Used { pins: pins.collect(), at }.changes(server);
        changes.push(counted());
        if changes.len() > limit::SHELF_CHANGES_MAX {
            return Err(Failure::before(Reason::StoreUnavailable, "its names are too long to be remembered together"));
        }
        let taken = self.store.change(changes, Tell::Nobody).await?;
        self.take().await?;
        match taken {
            Changed::Done { .. } => {
                self.tell(server, seen.iter().map(|seen| seen.told("accepted")).collect(), Some(FIRST_USE));
                self.keep_words(server, &seen);
                Ok(())
            }
            Changed::Conflict(_) => Ok(()),
            Changed::Full(_) => Err(full(SERVERS)),
        }
    }

    /// Keeps the words of a first list, which are wanted for the next comparison; nobody waits for them.
    fn keep_words(self: &Arc<Self>, server: &ServerId, seen: &[Seen]) {
        let keeper = Arc::clone(self);
        let words = seen.iter().map(|seen| {
            let Pinned { digest, kind, text, .. } = &seen.pinned;
            (Of { digest: *digest, server: server.clone(), kind: *kind }, text.clone())
        });
        let words: Vec<_> = words.collect();
        tokio::spawn(async move {
            let stored = async {
                words::keep(&keeper.store, WORDS, words, None).await?;
                // Others have looked for them already.
                keeper.store.change(vec![counted()], Tell::Nobody).await?;
                keeper.take().await
            };
            if let Err(failure) = stored.await {
                tracing::error!(%failure, "what accepted definitions say is not in the store");
            }
        });
    }

    /// Remembers and tells of definitions that nobody has accepted; `whole` is said of all that a server lists.
    async fn keep_back(self: &Arc<Self>, server: &ServerId, all: &Arc<[Pinned]>, whole: bool, hooks: &[WebhookConfig]) {
        let accepted = self.pins.now();
        let unknown: Vec<&Pinned> = all.iter().filter(|pinned| is_unknown(&accepted, server, pinned)).collect();
        let (due, without_place) = {
            let mut waits = self.waits();
            if unknown.is_empty() && !waits.contains_key(server) {
                return;
            }
            let listed: HashSet<_> = all.iter().map(|pinned| pinned.digest).collect();
            let waiting: HashSet<_> = unknown.iter().map(|pinned| pinned.digest).collect();
            let is_decided =
                |digest| !waiting.contains(&digest) && (accepted.pin(digest).is_some() || accepted.is_rejected(digest));
            let now = Instant::now();
            waits.entry(server.clone()).or_default().due(&unknown, whole.then_some(&listed), is_decided, now)
        };
        if without_place > 0 {
            tracing::warn!(%server, waiting = limit::PINS_WAITING_MAX, "too many definitions wait for somebody: more are hidden and not remembered");
        }
        if due.is_empty() {
            return;
        }
        let fresh = due.iter().map(|due| due.pinned.clone()).collect();
        let seen = match look(server, &accepted, all, fresh).await {
            Ok(seen) => seen,
            Err(failure) => {
                tracing::error!(%server, %failure, "what is kept back was not looked at");
                return;
            }
        };
        let told: Vec<Told> =
            seen.iter().zip(&due).filter(|(_, due)| due.tell).map(|(seen, _)| seen.told("quarantined")).collect();
        if !told.is_empty() {
            tracing::warn!(%server, count = told.len(), "definitions are kept back until somebody accepts them: bailiwick pins list");
            self.tell(server, told, None);
        }
        let about = seen.iter().zip(&due).filter(|(_, due)| due.tell).map(|(seen, _)| seen);
        let about: Vec<&Seen> = about.collect();
        // Where nobody wants to hear of it, the store is not asked for its clock.
        let clock = if hooks.is_empty() || about.is_empty() { None } else { self.store.clock_us().await.ok() };
        let told = clock.map(|now_us| outbox::told(hooks, outbox::Event::PinChanged, &told_of(server, &about), now_us));
        let told = told.unwrap_or_default();
        let keeper = Arc::clone(self);
        let server = server.clone();
        tokio::spawn(async move { keeper.keep_waiting(server, seen, due, told).await });
    }

    /// Keeps what waits in the store, until it was not listed for so long.
    /// The messages go with the first of it.
    async fn keep_waiting(&self, server: ServerId, seen: Vec<Seen>, due: Vec<waits::Due>, messages: Vec<Change>) {
        let mut digests = Vec::new();
        let stored = async {
            let now_us = self.store.clock_us().await?;
            let life_us = i64::try_from(limit::PIN_WAITING_LIFE.as_micros()).unwrap_or(i64::MAX);
            let expires_at_us = Some(now_us.saturating_add(life_us));
            let mut words = Vec::new();
            let mut changes = Vec::new();
            for (seen, due) in seen.iter().zip(&due) {
                let kept = seen.kept(&server, due.at.unwrap_or(now_us / 1_000_000), due.bytes);
                digests.push((kept.digest, kept.says.at));
                changes.push(vec![kept.change(WAITING, expires_at_us)]);
                if due.bytes > 0 {
                    words.push((Of::from(&kept), seen.pinned.text.clone()));
                }
            }
            let mut count = messages.len();
            for mut batch in batches(std::iter::once(messages).chain(changes)) {
                let mut changed = self.store.change(batch.clone(), Tell::Nobody).await?;
                if matches!(changed, Changed::Full(place) if place < count) {
                    // Where messages have not been taken for days, it is kept back all the same.
                    changed = self.store.change(batch.split_off(count), Tell::Nobody).await?;
                }
                count = 0;
                if let Changed::Full(_) = changed {
                    return Err(full(WAITING));
                }
            }
            if let Err(failure) = words::keep(&self.store, WAITING_WORDS, words, expires_at_us).await {
                tracing::warn!(%server, %failure, "what waiting definitions say is not in the store");
            }
            Ok::<(), Failure>(())
        };
        let done = stored.await;
        if let Err(failure) = &done {
            tracing::error!(%server, %failure, "what is kept back is not in the store");
        }
        if let Some(waits) = self.waits().get_mut(&server) {
            waits.kept(&digests, done.is_ok());
        }
    }

    /// Puts it on the record, without keeping anybody waiting.
    fn tell(&self, server: &ServerId, told: Vec<Told>, actor: Option<&'static str>) {
        let (journal, server) = (self.journal.clone(), server.clone());
        tokio::spawn(async move {
            let decided = Decided { actor, ..Decided::default() };
            stream::iter(&told)
                .for_each_concurrent(TOLD_TOGETHER, |told| async {
                    // Where that fails, it is said there.
                    let _told = told.tell(&journal, &server, decided).await;
                })
                .await;
        });
    }
}

/// What is told of definitions that are kept back.
fn told_of(server: &ServerId, fresh: &[&Seen]) -> serde_json::Value {
    let one = |seen: &&Seen| {
        serde_json::json!({
            "kind": seen.pinned.kind,
            "name": seen.pinned.name,
            "digest": seen.pinned.digest,
            "state": if seen.before.is_some() { "changed" } else { "new" },
        })
    };
    let definitions: Vec<_> = fresh.iter().take(limit::PINS_TOLD_MAX).map(one).collect();
    serde_json::json!({ "server": server, "count": fresh.len(), "definitions": definitions })
}

/// Whether nobody has accepted or rejected it.
fn is_unknown(accepted: &Accepted, server: &ServerId, pinned: &Pinned) -> bool {
    accepted.pin_of(server, pinned.kind, &pinned.name, pinned.digest).is_none() && !accepted.is_rejected(pinned.digest)
}

fn full(section: Section) -> Failure {
    let told = format!("there is room for {} rows of `{}`", section.rows_max, section.name);
    Failure::before(Reason::StoreUnavailable, told)
}
