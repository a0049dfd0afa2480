//! Who accepts definitions, and where that is kept: the first complete list of a server, and administrators.
//!
//! Decides when a first list is taken, and tells the record of every definition that is accepted, rejected or kept back.
//! Refuses to know what may be offered: `catalog::pins` does, from what is handed to it here. Invariant: what was
//! accepted is durable before it is offered.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::{StreamExt as _, stream};

mod replay;
mod rows;
mod status;
#[cfg(test)]
mod tests;

pub use replay::{Decided, decided};
pub(in crate::gateway) use rows::{PINS, SERVERS};
pub use status::{
    NamedPin, PinDiff, PinDiffs, PinLockText, PinOrder, PinStatus, PinnedServer, PinsChanged, PinsReport,
};

use super::Gateway;
use crate::catalog::Listed;
use crate::catalog::pins::{Accepted, Flag, Neighbours, Pinned, Pins, flags, similar};
use crate::config::{PinMode, WebhookConfig};
use crate::ids::{DefinitionDigest, ServerId};
use crate::limit;
use crate::outbox;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::Journal;
use crate::record::event::PinNote;
use crate::shelf::{Action, Change, Changed, Expect, Shelf as _, Tell, Version};
use crate::store::Store;
use rows::{CHANGES, FIRST_USE, Kept, PinState, Shelved, Stored, Used, UsedPin, batches, is_rest_of};

/// How many lines of the record are waited for at once.
const TOLD_TOGETHER: usize = 32;

/// Keeps what is accepted.
#[derive(Debug)]
pub struct Keeper {
    pins: Arc<Pins>,
    store: Store,
    journal: Journal,
    /// Definitions that wait and were told of, by server.
    told: Mutex<HashMap<ServerId, HashSet<DefinitionDigest>>>,
    /// Which change was taken up last; nothing where the store could not be read since.
    taken: Mutex<Option<Version>>,
    /// Held while the store is read and put in force: what was read first must not be put in force last.
    taking: tokio::sync::Mutex<()>,
    /// Held while something is accepted or rejected here.
    changing: tokio::sync::Mutex<()>,
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
            told: Mutex::default(),
            taken: Mutex::default(),
            taking: tokio::sync::Mutex::default(),
            changing: tokio::sync::Mutex::default(),
        };
        keeper.take().await?;
        Ok(keeper)
    }

    /// What may be offered.
    #[must_use]
    pub const fn pins(&self) -> &Arc<Pins> {
        &self.pins
    }

    /// Puts what is stored in force.
    async fn take(&self) -> Result<Shelved, Failure> {
        let _one_at_a_time = self.taking.lock().await;
        let version = self.version().await?;
        let shelved = Shelved::read(&self.store).await?;
        self.pins.hold(shelved.held());
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        for kept in shelved.pins.iter().filter(|kept| kept.says.state == PinState::Quarantined) {
            told.entry(kept.says.server.clone()).or_default().insert(kept.digest);
        }
        drop(told);
        *self.taken.lock().unwrap_or_else(PoisonError::into_inner) = Some(version);
        Ok(shelved)
    }

    async fn version(&self) -> Result<Version, Failure> {
        Ok(self.store.row(SERVERS, CHANGES).await?.map_or(Version(0), |row| row.version))
    }

    /// Takes up what was accepted or rejected elsewhere; answers whether there was anything.
    async fn follow(&self) -> Result<bool, Failure> {
        let version = self.version().await?;
        if *self.taken.lock().unwrap_or_else(PoisonError::into_inner) == Some(version) {
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
        let accepted = self.pins.now();
        let all = listed.slice.pinned();
        let unknown: Vec<&Pinned> = all
            .iter()
            .filter(|pinned| accepted.pin(pinned.digest).is_none() && !accepted.is_rejected(pinned.digest))
            .collect();
        if unknown.is_empty() {
            return;
        }
        let first = server.pins == PinMode::FirstUse && !accepted.is_used(&server.id);
        if first && !listed.complete {
            // Nothing of it is offered, and nothing is remembered of what is going to be taken or not.
            return;
        }
        let fresh: Vec<&Pinned> = {
            let told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told.get(&server.id);
            let is_told = |pinned: &&Pinned| told.is_some_and(|told| told.contains(&pinned.digest));
            unknown.into_iter().filter(|pinned| first || !is_told(pinned)).collect()
        };
        let seen = Seen::of(&server.id, &accepted, &all, fresh.into_iter());
        let (plain, odd): (Vec<_>, Vec<_>) = seen.into_iter().partition(|seen| first && seen.flags.is_empty());
        if first {
            match self.take_first(&server.id, &plain).await {
                Ok(true) => self.tell(&server.id, &plain, "accepted", Some(FIRST_USE)),
                Ok(false) => {}
                Err(failure) => {
                    tracing::error!(server = %server.id, %failure, "its first list is not taken: nothing new of it is shown");
                    return;
                }
            }
        }
        self.keep_back(&server.id, &odd, hooks).await;
    }

    /// Accepts a first list; answers whether it was this one.
    async fn take_first(self: &Arc<Self>, server: &ServerId, seen: &[Seen<'_>]) -> Result<bool, Failure> {
        let _one_at_a_time = self.changing.lock().await;
        // Another replica, or another caller's list, may have been first.
        self.take().await?;
        if self.pins.now().is_used(server) {
            return Ok(false);
        }
        let at = self.store.clock_us().await? / 1_000_000;
        let pins = seen.iter().map(|seen| UsedPin {
            digest: seen.pinned.digest,
            kind: seen.pinned.kind,
            name: Arc::clone(&seen.pinned.name),
        });
        let changes = Used { pins: pins.collect(), at }.changes(server);
        if changes.len() > limit::SHELF_CHANGES_MAX {
            return Err(Failure::before(Reason::StoreUnavailable, "its names are too long to be remembered together"));
        }
        let taken = self.store.change(changes, Tell::Nobody).await?;
        self.take().await?;
        match taken {
            Changed::Done { .. } => {
                // The words are wanted for the next comparison, and nobody waits for them.
                self.keep(seen.iter().map(|seen| seen.kept(server, at)).collect(), None, Vec::new());
                Ok(true)
            }
            Changed::Conflict(_) => Ok(false),
            Changed::Full(_) => Err(full()),
        }
    }

    /// Remembers and tells of definitions that nobody has accepted.
    async fn keep_back(self: &Arc<Self>, server: &ServerId, seen: &[Seen<'_>], hooks: &[WebhookConfig]) {
        let fresh: Vec<&Seen<'_>> = {
            let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
            let told = told.entry(server.clone()).or_default();
            let place = |seen: &&Seen<'_>| told.len() < limit::PINS_WAITING_MAX && told.insert(seen.pinned.digest);
            seen.iter().filter(place).collect()
        };
        if fresh.len() < seen.len() {
            tracing::warn!(%server, waiting = limit::PINS_WAITING_MAX, "too many definitions wait for somebody: more are hidden and not remembered");
        }
        if fresh.is_empty() {
            return;
        }
        tracing::warn!(%server, count = fresh.len(), "definitions are kept back until somebody accepts them: bailiwick pins list");
        self.tell(server, fresh.iter().copied(), "quarantined", None);
        let now_us = match self.store.clock_us().await {
            Ok(now_us) => now_us,
            Err(failure) => {
                tracing::error!(%server, %failure, "what is kept back is not in the store");
                return;
            }
        };
        let life_us = i64::try_from(limit::PIN_WAITING_LIFE.as_micros()).unwrap_or(i64::MAX);
        let about = told_of(server, &fresh);
        let told = outbox::told(hooks, outbox::Event::PinChanged, &about, now_us);
        let kept = fresh.iter().map(|seen| seen.kept(server, now_us / 1_000_000)).collect();
        self.keep(kept, Some(now_us.saturating_add(life_us)), told);
    }

    /// Keeps what definitions say, without keeping anybody waiting. What is there already stays as it is.
    /// The messages go with what is new of it.
    fn keep(self: &Arc<Self>, kept: Vec<Kept>, expires_at_us: Option<i64>, mut messages: Vec<Change>) {
        let keeper = Arc::clone(self);
        tokio::spawn(async move {
            let stored = async {
                let changes = kept.iter().map(|kept| {
                    let mut changes = kept.changes(expires_at_us);
                    if let Some(first) = changes.first_mut() {
                        first.expect = Expect::Absent;
                    }
                    changes
                });
                for batch in batches(changes, messages.len()) {
                    if keeper.keep_batch(batch, &messages).await? {
                        messages.clear();
                    }
                }
                keeper.take().await.map(|_| ())
            };
            if let Err(failure) = stored.await {
                tracing::error!(%failure, "what definitions say is not in the store");
            }
        });
    }

    /// Keeps a batch but for what is there already; answers whether anything of it was new, and the messages went.
    async fn keep_batch(&self, mut batch: Vec<Change>, mut messages: &[Change]) -> Result<bool, Failure> {
        while !batch.is_empty() {
            match self.store.change([&batch, messages].concat(), Tell::Nobody).await? {
                Changed::Done { .. } => return Ok(true),
                // Where messages have not been taken for days, it is kept back all the same.
                Changed::Full(place) if place >= batch.len() => messages = &[],
                Changed::Full(_) => return Err(full()),
                Changed::Conflict(place) => {
                    let Some(first) = batch.get(place).map(|change| change.key.clone()) else { return Ok(false) };
                    batch.retain(|change| change.key != first && !is_rest_of(&change.key, &first));
                }
            }
        }
        Ok(false)
    }

    /// Puts it on the record, without keeping anybody waiting.
    fn tell<'a>(
        &self,
        server: &ServerId,
        seen: impl IntoIterator<Item = &'a Seen<'a>>,
        state: &'static str,
        actor: Option<&'static str>,
    ) {
        let journal = self.journal.clone();
        let server = server.clone();
        let told: Vec<Told> = seen.into_iter().map(|seen| seen.told(state)).collect();
        tokio::spawn(async move {
            stream::iter(&told)
                .for_each_concurrent(TOLD_TOGETHER, |told| told.tell(&journal, &server, actor, ""))
                .await;
        });
    }

    /// Does a batch that expects nothing.
    async fn done(&self, batch: Vec<Change>, tell: Tell) -> Result<(), Failure> {
        match self.store.change(batch, tell).await? {
            Changed::Done { .. } => Ok(()),
            Changed::Full(_) => Err(full()),
            Changed::Conflict(_) => Err(Failure::before(Reason::StoreUnavailable, "a pin was changed meanwhile")),
        }
    }
}

/// What is told of definitions that are kept back.
fn told_of(server: &ServerId, fresh: &[&Seen<'_>]) -> serde_json::Value {
    let one = |seen: &&Seen<'_>| {
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

fn full() -> Failure {
    Failure::before(Reason::StoreUnavailable, format!("more than {} definitions are remembered", PINS.rows_max))
}

/// A definition that nobody has accepted, looked at.
struct Seen<'a> {
    pinned: &'a Pinned,
    flags: BTreeSet<Flag>,
    before: Option<DefinitionDigest>,
    renamed_from: Option<Arc<str>>,
}

/// The same, to be told.
struct Told {
    pinned: Pinned,
    state: &'static str,
    flags: Vec<&'static str>,
    before: Option<DefinitionDigest>,
    renamed_from: Option<Arc<str>>,
}

impl<'a> Seen<'a> {
    /// Looks at what is new of a list.
    fn of(
        server: &ServerId,
        accepted: &Accepted,
        all: &[Pinned],
        fresh: impl Iterator<Item = &'a Pinned>,
    ) -> Vec<Self> {
        let mut fresh = fresh.peekable();
        if fresh.peek().is_none() {
            return Vec::new();
        }
        let others = accepted.pins().filter(|pin| pin.held.server != *server).map(|pin| &*pin.held.name);
        let neighbours = Neighbours::of(all.iter().map(|pinned| &*pinned.name).chain(others));
        let listed: HashSet<_> = all.iter().map(|pinned| (pinned.kind, &*pinned.name)).collect();
        let mut removed: Vec<_> = accepted
            .pins()
            .filter(|pin| pin.held.server == *server && !listed.contains(&(pin.held.kind, &*pin.held.name)))
            .filter_map(|pin| Some((pin, pin.held.copy.as_ref()?)))
            .collect();
        // Which one is found does not depend on chance.
        removed.sort_by_key(|(pin, _)| (Arc::clone(&pin.held.name), pin.held.digest.0));
        let mut comparisons = 0_usize;
        fresh
            .map(|pinned| {
                let before = accepted.of_name(server, pinned.kind, &pinned.name).last().copied();
                let renamed = removed.iter().filter(|_| before.is_none()).find(|(pin, copy)| {
                    comparisons += 1;
                    pin.held.kind == pinned.kind
                        && comparisons <= limit::PIN_COMPARISONS_MAX
                        && similar(&pinned.text, copy)
                });
                Self {
                    pinned,
                    flags: flags(&pinned.name, &pinned.text, &neighbours),
                    before,
                    renamed_from: renamed.map(|(pin, _)| Arc::clone(&pin.held.name)),
                }
            })
            .collect()
    }

    fn stored(&self, server: &ServerId, state: PinState, at: i64) -> Stored {
        Stored {
            server: server.clone(),
            kind: self.pinned.kind,
            name: self.pinned.name.to_string(),
            state,
            flags: self.flags.clone(),
            renamed_from: self.renamed_from.as_deref().map(str::to_owned),
            by: String::new(),
            note: String::new(),
            at,
        }
    }

    fn kept(&self, server: &ServerId, at: i64) -> Kept {
        let says = self.stored(server, PinState::Quarantined, at);
        Kept { digest: self.pinned.digest, says, text: Some(self.pinned.text.clone()) }
    }

    fn told(&self, state: &'static str) -> Told {
        Told {
            pinned: self.pinned.clone(),
            state,
            flags: self.flags.iter().map(|flag| flag.as_str()).collect(),
            before: self.before,
            renamed_from: self.renamed_from.clone(),
        }
    }
}

impl Told {
    async fn tell(&self, journal: &Journal, server: &ServerId, actor: Option<&str>, note: &str) {
        let note = PinNote {
            server: server.as_str(),
            kind: self.pinned.kind,
            name: &self.pinned.name,
            digest: self.pinned.digest,
            state: self.state,
            before: self.before,
            renamed_from: self.renamed_from.as_deref(),
            flags: &self.flags,
            actor,
            note,
        };
        if let Err(failure) = journal.pinned(&note).await {
            tracing::error!(%server, %failure, "what became of a definition is not on the record");
        }
    }
}

impl Gateway {
    /// Takes up what was accepted or rejected at another replica.
    pub(super) async fn follow_pins(&self) {
        match self.keeper.follow().await {
            Ok(true) => self.catalog.repin(),
            Ok(false) => {}
            Err(failure) => tracing::warn!(%failure, "what was accepted elsewhere is not known yet"),
        }
    }

    /// Accepts or rejects definitions: durable, in force, on the record, in that order.
    ///
    /// # Errors
    /// `target_unknown` where nobody has seen one of them; `store_unavailable`.
    pub async fn pin(&self, order: &PinOrder, accept: bool, actor: &str) -> Result<PinsChanged, Stop> {
        let (state, word) = if accept { (PinState::Accepted, "accepted") } else { (PinState::Rejected, "rejected") };
        let _one_at_a_time = self.keeper.changing.lock().await;
        self.standing().believed()?;
        let mut known = Shelved::read(&self.keeper.store).await?.by_digest();
        let accepted = self.keeper.pins.now();
        for pinned in self.catalog.live().iter().flat_map(|slice| {
            slice.pinned().into_iter().map(|pinned| (slice.server().clone(), pinned)).collect::<Vec<_>>()
        }) {
            let (server, pinned) = pinned;
            known.entry(pinned.digest).or_insert_with(|| Kept::unseen(&server, &pinned));
        }
        for locked in accepted.pins().filter(|pin| pin.locked) {
            known.entry(locked.held.digest).or_insert_with(|| Kept::locked(&locked.held));
        }
        let at = self.keeper.store.clock_us().await? / 1_000_000;
        let mut chosen = Vec::new();
        for digest in &order.pins {
            let found = known.remove(digest).filter(|kept| kept.says.server.as_str() == order.server);
            let Some(mut kept) = found else {
                let hint = format!("{} lists nothing with the digest {digest}: look at the pins again", order.server);
                return Err(Refusal::new(Reason::TargetUnknown).hint(hint).into());
            };
            kept.says.state = state;
            actor.clone_into(&mut kept.says.by);
            order.note.clone_into(&mut kept.says.note);
            kept.says.at = at;
            chosen.push(kept);
        }
        let mut batches = batches(chosen.iter().map(|kept| kept.changes(None)), 0);
        let counted = Action::Count { by: 1, at_most: i64::MAX, expires_at_us: None };
        if let Some(last) = batches.last_mut() {
            last.push(Change::new(SERVERS, CHANGES, Expect::Anything, counted));
        }
        for batch in batches {
            // Each of them: what raised the epoch is on the record, and a store that has forgotten it can be brought up.
            self.keeper.done(batch, Tell::Everybody).await?;
        }
        self.keeper.take().await?;
        self.catalog.repin();
        // The others were told by the epoch; this one is taken up, and everybody who listens is decided anew.
        self.take_revocations().await?;
        for kept in &chosen {
            let before = accepted.of_name(&kept.says.server, kept.says.kind, &kept.says.name).last().copied();
            let told = Told {
                pinned: kept.pinned(),
                state: word,
                flags: kept.says.flags.iter().map(|flag| flag.as_str()).collect(),
                before: before.filter(|before| *before != kept.digest),
                renamed_from: kept.says.renamed_from.as_deref().map(Arc::from),
            };
            told.tell(&self.journal, &kept.says.server, Some(actor), &order.note).await;
        }
        Ok(PinsChanged { changed: chosen.len() })
    }
}
