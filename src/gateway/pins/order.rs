//! Accepting and rejecting definitions, as administrators order it.
//!
//! Decides which definition a digest names. Refuses to know who may order it. Invariants: an order is durable, in force
//! and on the record, in that order, under the epoch that includes it; what was done of an order that broke off is in
//! force and told like the rest; room that servers can fill is never in the way of a rejection.

use std::collections::HashMap;
use std::sync::Arc;

use futures_util::future::{BoxFuture, join_all};

use super::rows::{DECIDED, Kept, PinState, WAITING, batches, counted, kept};
use super::seen::{Decided, Told, look};
use super::status::{PinOrder, PinsChanged};
use super::words::{self, Of, WAITING_WORDS, WORDS};
use super::{Gateway, Keeper, full};
use crate::catalog::pins::{Accepted, Pinned};
use crate::ids::{DefinitionDigest, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::shelf::{Action, Change, Changed, Expect, Shelf as _, Tell};
use crate::wire::Json;

impl Keeper {
    /// Does what others have to hear of, together; answers the epoch that includes it.
    async fn decide(&self, decided: &[Kept]) -> Result<RevocationEpoch, Failure> {
        let mut changes: Vec<Change> = decided.iter().map(|kept| kept.change(DECIDED, None)).collect();
        changes.push(counted());
        match self.store.change(changes, Tell::Everybody).await? {
            Changed::Done { epoch, .. } => Ok(epoch.unwrap_or_default()),
            Changed::Full(_) => Err(full(DECIDED)),
            Changed::Conflict(_) => Err(Failure::before(Reason::StoreUnavailable, "a pin was changed meanwhile")),
        }
    }

    /// The definition of a server that a digest names, if anybody has seen it.
    async fn named(
        &self,
        server: &str,
        digest: DefinitionDigest,
        seen: &HashMap<DefinitionDigest, Kept>,
        accepted: &Accepted,
    ) -> Result<Option<Kept>, Failure> {
        let live = seen.get(&digest);
        let decided = kept(&self.store, DECIDED, digest).await?;
        let stored = match decided {
            Some(decided) => Some(decided),
            None => kept(&self.store, WAITING, digest).await?,
        };
        let shelved = || self.shelved().pins.iter().find(|kept| kept.digest == digest).cloned();
        let locked = || accepted.pin(digest).filter(|pin| pin.locked).map(|pin| Kept::locked(&pin.held));
        let found = stored.or_else(shelved).or_else(|| live.cloned()).or_else(locked);
        let Some(mut found) = found.filter(|kept| kept.says.server.as_str() == server) else { return Ok(None) };
        let copy = || accepted.pin(digest).and_then(|pin| pin.held.copy.clone());
        found.text = found.text.or_else(|| live.and_then(|kept| kept.text.clone())).or_else(copy);
        Ok(Some(found))
    }

    /// Forgets that they waited. Nobody depends on it: what was decided comes first.
    async fn forget_waiting(&self, chosen: &[Kept]) {
        let gone = chosen.iter().map(|kept| {
            let mut changes = Of::from(kept).removal(WAITING_WORDS, kept.says.bytes);
            changes.push(Change::new(WAITING, kept.digest.to_string(), Expect::Anything, Action::Remove));
            changes
        });
        for batch in batches(gone) {
            if let Err(failure) = self.store.change(batch, Tell::Nobody).await {
                tracing::warn!(%failure, "what was decided is still among what waits");
                return;
            }
        }
    }

    /// Keeps the words of what was decided, for whoever compares later.
    async fn keep_decided(&self, chosen: &[Kept]) {
        let mut words: HashMap<DefinitionDigest, Json> =
            chosen.iter().filter_map(|kept| Some((kept.digest, kept.text.clone()?))).collect();
        let without: Vec<Of> = chosen.iter().filter(|kept| kept.text.is_none()).map(Of::from).collect();
        let own: Vec<Of> = chosen.iter().map(Of::from).collect();
        let kept = async {
            if !without.is_empty() {
                words.extend(words::find(&self.store, WAITING_WORDS, without).await?);
            }
            let words = own.into_iter().filter_map(|of| words.remove(&of.digest).map(|text| (of, text))).collect();
            words::keep(&self.store, WORDS, words, None).await
        };
        if let Err(failure) = kept.await {
            tracing::warn!(%failure, "what decided definitions say is not in the store");
        }
    }
}

impl Gateway {
    /// Takes up what was accepted or rejected at another replica.
    pub(in crate::gateway) async fn follow_pins(&self) {
        // What a store says that went back was taken back since.
        if self.standing().believed().is_err() {
            return;
        }
        match self.keeper.follow().await {
            Ok(true) => self.catalog.repin(),
            Ok(false) => {}
            Err(failure) => tracing::warn!(%failure, "what was accepted elsewhere is not known yet"),
        }
    }

    /// Accepts or rejects definitions: durable, in force, on the record, in that order.
    ///
    /// # Errors
    /// `target_unknown` where nobody has seen one of them; `store_unavailable` and `record_unavailable`, where a part of
    /// it may be done.
    pub async fn pin(&self, order: &PinOrder, accept: bool, actor: &str) -> Result<PinsChanged, Stop> {
        let _one_at_a_time = self.keeper.changing.lock().await;
        self.standing().believed()?;
        let accepted = self.keeper.pins.now();
        let chosen = self.chosen(order, accept, actor, &accepted).await?;
        if accept {
            // Before it is accepted, which is when everybody reads them.
            self.keeper.keep_decided(&chosen).await;
        }
        let mut done: Vec<(RevocationEpoch, &[Kept])> = Vec::new();
        let mut trouble: Result<(), Failure> = Ok(());
        // One place is left for what tells others of the batch.
        for batch in chosen.chunks(limit::SHELF_CHANGES_MAX - 1) {
            match self.keeper.decide(batch).await {
                Ok(epoch) => done.push((epoch, batch)),
                Err(failure) => {
                    trouble = Err(failure);
                    break;
                }
            }
        }
        trouble = trouble.and(self.keeper.take().await);
        self.catalog.repin();
        // The others were told by the epoch; this one is taken up, and everybody who listens is decided anew.
        trouble = trouble.and(self.take_revocations().await);
        let changed = done.iter().map(|(_, batch)| batch.len()).sum();
        for (epoch, batch) in &done {
            let told = self.tell_decided(*epoch, batch, &accepted, (actor, &order.note)).await;
            trouble = trouble.and(told);
        }
        let decided = chosen.get(..changed).unwrap_or_default();
        if !accept {
            self.keeper.keep_decided(decided).await;
        }
        self.keeper.forget_waiting(decided).await;
        match trouble {
            Ok(()) => Ok(PinsChanged { changed }),
            Err(failure) => {
                let detail = format!("{changed} of {} were done: {}", chosen.len(), failure.detail);
                Err(Failure { detail, ..failure }.into())
            }
        }
    }

    /// What an order names, as it is going to stand.
    async fn chosen(
        &self,
        order: &PinOrder,
        accept: bool,
        actor: &str,
        accepted: &Arc<Accepted>,
    ) -> Result<Vec<Kept>, Stop> {
        let seen = self.listed(order, accepted).await?;
        let at = self.keeper.store.clock_us().await? / 1_000_000;
        let mut chosen: Vec<Kept> = Vec::with_capacity(order.pins.len());
        for digest in &order.pins {
            if chosen.iter().any(|kept| kept.digest == *digest) {
                continue;
            }
            let Some(mut kept) = self.keeper.named(&order.server, *digest, &seen, accepted).await? else {
                let hint = format!("{} lists nothing with the digest {digest}: look at the pins again", order.server);
                return Err(Refusal::new(Reason::TargetUnknown).hint(hint).into());
            };
            kept.says.state = if accept { PinState::Accepted } else { PinState::Rejected };
            actor.clone_into(&mut kept.says.by);
            order.note.clone_into(&mut kept.says.note);
            kept.says.at = at;
            chosen.push(kept);
        }
        Ok(chosen)
    }

    /// What an order names and its server lists now.
    async fn listed(
        &self,
        order: &PinOrder,
        accepted: &Arc<Accepted>,
    ) -> Result<HashMap<DefinitionDigest, Kept>, Failure> {
        let mut listed = HashMap::new();
        for slice in self.catalog.live() {
            let server = slice.server();
            if server.as_str() != order.server {
                continue;
            }
            let all: Arc<[Pinned]> = slice.pinned().into();
            let named = all.iter().filter(|pinned| order.pins.contains(&pinned.digest)).cloned().collect();
            for seen in look(server, accepted, &all, named).await? {
                listed.insert(seen.pinned.digest, seen.kept(server, 0, 0));
            }
        }
        Ok(listed)
    }

    /// Puts what was decided together on the record, after whatever came before it.
    async fn tell_decided(
        &self,
        epoch: RevocationEpoch,
        batch: &[Kept],
        accepted: &Accepted,
        (actor, note): (&str, &str),
    ) -> Result<(), Failure> {
        // Of a record that tells an epoch it is believed that it tells what was changed before.
        let earlier = self.tell(epoch).await;
        let decided = Decided { actor: Some(actor), note, epoch: Some((epoch, batch.len())) };
        let told: Vec<_> = batch
            .iter()
            .map(|kept| {
                let before = accepted.of_name(&kept.says.server, kept.says.kind, &kept.says.name).last().copied();
                let told = Told {
                    pinned: kept.pinned(),
                    state: if kept.says.state == PinState::Accepted { "accepted" } else { "rejected" },
                    flags: kept.says.flags.iter().map(|flag| flag.as_str()).collect(),
                    before: before.filter(|before| *before != kept.digest),
                    renamed_from: kept.says.renamed_from.as_deref().map(Arc::from),
                };
                (told, &kept.says.server)
            })
            .collect();
        let mut lines: Vec<BoxFuture<'_, Result<(), Failure>>> = Vec::new();
        for (told, server) in &told {
            lines.push(Box::pin(told.tell(&self.journal, server, decided)));
        }
        join_all(lines).await.into_iter().fold(earlier, Result::and)
    }
}
