//! The catalog: every slice there is, kept current, and the views that are made of them.
//!
//! Decides which slices a view needs and how long it waits for one that was never listed. Invariant: a
//! slice that was listed with one caller's credential is part of that caller's views only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;

use super::compose::revision;
use super::memo::{Choice, Generation, Memo, MemoKey};
use super::pins::Pins;
use super::refresh;
use super::slice::Slice;
use super::slot::{Pace, Shared, SliceState, Slot, fingerprint};
use super::source::{Access, Source, Viewer};
use super::view::{Member, View};
use crate::config::{Config, ListAs, ServerConfig};
use crate::ids::{AuthorizationContext, Digest, Endpoint, PrincipalKey, ServerId};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::wire::mcp::Kind;

/// Every slice there is, and the views that are made of them. Cheap to clone.
pub struct Catalog<S: Source> {
    inner: Arc<Inner<S>>,
}

impl<S: Source> Clone for Catalog<S> {
    fn clone(&self) -> Self {
        Self { inner: Arc::clone(&self.inner) }
    }
}

struct Inner<S> {
    source: Arc<S>,
    servers: RwLock<HashMap<ServerId, Arc<Slot>>>,
    /// Every server that is configured has its slot; changed under the lock of `servers`.
    applied: AtomicBool,
    principals: moka::sync::Cache<(ServerId, PrincipalKey), Arc<Slot>>,
    /// Composed views by what they are composed of.
    views: moka::sync::Cache<Digest, Arc<View>>,
    /// Which view was a caller's, as long as nothing changes.
    memos: moka::sync::Cache<MemoKey, Arc<Memo>>,
    /// Conflicts that were logged.
    reported: moka::sync::Cache<Digest, ()>,
    generation: Arc<Generation>,
    pace: Pace,
    pins: Arc<Pins>,
}

/// A view, and what would be worth waiting for.
struct Looked {
    view: Arc<View>,
    /// Slots, how many attempts have ended there, and until when the next one is waited for.
    unsettled: Vec<(Arc<Slot>, u64, Instant)>,
}

impl<S: Source> Catalog<S> {
    /// An empty catalog.
    #[must_use]
    pub fn new(source: Arc<S>) -> Self {
        Self::with_pins(source, Arc::default())
    }

    /// An empty catalog that offers what is accepted there.
    #[must_use]
    pub fn with_pins(source: Arc<S>, pins: Arc<Pins>) -> Self {
        Self::with_pace(source, Pace::default(), pins)
    }

    pub(super) fn with_pace(source: Arc<S>, pace: Pace, pins: Arc<Pins>) -> Self {
        let inner = Inner {
            source,
            servers: RwLock::default(),
            applied: AtomicBool::new(false),
            principals: moka::sync::Cache::builder()
                .max_capacity(limit::PRINCIPAL_SLICES_BYTES_MAX)
                .weigher(|_, slot: &Arc<Slot>| slot.weight())
                .time_to_idle(limit::PRINCIPAL_SLICE_IDLE_MAX)
                .build(),
            views: moka::sync::Cache::builder()
                .max_capacity(limit::VIEW_ITEMS_CACHED_MAX)
                .weigher(|_, view: &Arc<View>| view.weight())
                .time_to_idle(limit::PRINCIPAL_SLICE_IDLE_MAX)
                .build(),
            memos: moka::sync::Cache::builder()
                .max_capacity(limit::VIEW_MEMOS_MAX)
                .time_to_idle(limit::PRINCIPAL_SLICE_IDLE_MAX)
                .build(),
            reported: moka::sync::Cache::new(limit::CONFLICTS_REMEMBERED_MAX),
            pace,
            pins,
            generation: Arc::default(),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a configuration in: forgets servers that are gone or became others, and begins to list those
    /// that are listed with the gateway's credential. Call it before the snapshot is swapped; needs a runtime.
    pub fn apply(&self, config: &Config) {
        self.inner.pins.lock(&config.pins);
        let mut begun = Vec::new();
        {
            let mut servers = self.inner.servers.write().unwrap_or_else(PoisonError::into_inner);
            self.inner.applied.store(true, Ordering::Release);
            servers.retain(|id, slot| {
                let kept = config.server(id).is_some_and(|server| fingerprint(server) == slot.shared.fingerprint);
                if !kept {
                    slot.shared.retired.cancel();
                }
                kept
            });
            for server in &config.servers {
                let slot = servers.entry(server.id.clone()).or_insert_with(|| self.new_slot(server));
                slot.shared.config.store(Arc::clone(server));
                if server.list_as == ListAs::Gateway {
                    begun.push(Arc::clone(slot));
                }
            }
        }
        for slot in begun {
            if slot.ended_at().is_none() {
                self.refresh(&slot, Access::Gateway);
            }
        }
        self.inner.generation.bump(true);
    }

    /// The view that there is now: never waits; refreshes what is due in the background. Servers
    /// that are not `included` are left out as if they did not exist.
    ///
    /// # Errors
    /// `target_unknown` for an endpoint that does not exist or is left out; `catalog_unavailable` where
    /// no server has anything to show, which is never an empty success.
    pub fn view_now(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        viewer: Viewer<'_, S::Caller>,
        included: impl Fn(&ServerConfig) -> bool,
    ) -> Result<Arc<View>, Stop> {
        available(self.look(config, endpoint, viewer, &included, None)?.view)
    }

    /// As [`Catalog::view_now`], but waits for servers that were never listed, and for pinned ones at which nobody has
    /// looked for long, each for at most [`limit::CATALOG_FIRST_WAIT`] from when listing it began; then goes on with what
    /// there is.
    ///
    /// # Errors
    /// As [`Catalog::view_now`].
    pub async fn view(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        viewer: Viewer<'_, S::Caller>,
        included: impl Fn(&ServerConfig) -> bool,
    ) -> Result<Arc<View>, Stop> {
        self.awaited(config, endpoint, viewer, &included, None).await
    }

    /// As [`Catalog::view`] for whoever is shown a list: those of that kind which are older than both their servers and
    /// `list_refresh_min` allow, and are being fetched, are waited for as well, for at most
    /// [`limit::CATALOG_RENEWED_WAIT`] from when that began. What only routes a call waits for none.
    ///
    /// # Errors
    /// As [`Catalog::view`].
    pub async fn view_of(
        &self,
        kind: Kind,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        viewer: Viewer<'_, S::Caller>,
        included: impl Fn(&ServerConfig) -> bool,
    ) -> Result<Arc<View>, Stop> {
        self.awaited(config, endpoint, viewer, &included, Some(kind)).await
    }

    async fn awaited(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        viewer: Viewer<'_, S::Caller>,
        included: &impl Fn(&ServerConfig) -> bool,
        shown: Option<Kind>,
    ) -> Result<Arc<View>, Stop> {
        let looked = self.look(config, endpoint, viewer, included, shown)?;
        if looked.unsettled.is_empty() {
            return available(looked.view);
        }
        for (slot, ended, until) in &looked.unsettled {
            slot.settled(*ended, *until).await;
        }
        available(self.look(config, endpoint, viewer, included, None)?.view)
    }

    /// What a server listed last for this viewer, whatever has become of it since.
    #[must_use]
    pub fn last_slice(&self, server: &Arc<ServerConfig>, viewer: Viewer<'_, S::Caller>) -> Option<Arc<Slice>> {
        self.slot(server, viewer.context(server)).look(Instant::now()).slice
    }

    /// A server said that a list changed (`None`: all of them, or it came back): lists it again, at most
    /// every [`limit::CATALOG_CHANGED_PAUSE`]; callers' own slices are listed again when they are next used.
    pub fn changed(&self, server: &ServerId, kind: Option<Kind>) {
        let Some(slot) = self.slot_of(server) else { return };
        slot.shared.change(kind);
        if slot.shared.config.load().list_as == ListAs::Gateway {
            slot.wake.notify_waiters();
            self.refresh(&slot, Access::Gateway);
            return;
        }
        if let Some(at) = slot.shared.announce() {
            let generation = Arc::clone(&self.inner.generation);
            tokio::spawn(async move {
                tokio::time::sleep_until(at).await;
                slot.shared.announced();
                generation.bump(true);
            });
        }
    }

    /// One caller's own list is of no use any more: it is listed anew, and waited for, when it is next looked at.
    pub fn relist(&self, server: &ServerId, principal: PrincipalKey) {
        self.inner.principals.invalidate(&(server.clone(), principal));
        self.inner.generation.bump(true);
    }

    /// An upstream said that it does not know what it listed, or that its parameters are wrong, which it says alike.
    /// Lists it again, ever more rarely as long as that finds nothing new: callers choose what they send.
    pub fn doubted(&self, server: &ServerId) {
        let doubted = self.slot_of(server).is_some_and(|slot| slot.shared.doubt(Instant::now()));
        if doubted {
            self.changed(server, Some(Kind::Tool));
        }
    }

    /// The connection to a server was lost: its items stay for `on_down`, and it is tried again until it
    /// answers. Only for servers that are listed with the gateway's credential.
    pub fn unreachable(&self, server: &ServerId, reason: Reason) {
        let Some(slot) = self.slot_of(server) else { return };
        if slot.shared.config.load().list_as != ListAs::Gateway {
            return;
        }
        if slot.go_down(reason) {
            self.inner.generation.bump(true);
        }
        self.refresh(&slot, Access::Gateway);
    }

    /// Every server that is listed with the gateway's credential, as it stands; for people, in no order.
    #[must_use]
    pub fn status(&self) -> Vec<(ServerId, SliceState, Option<Arc<Slice>>)> {
        let now = Instant::now();
        let servers = self.inner.servers.read().unwrap_or_else(PoisonError::into_inner);
        let listed = servers.iter().filter(|(_, slot)| slot.shared.config.load().list_as == ListAs::Gateway);
        let status = listed.map(|(id, slot)| {
            let seen = slot.look(now);
            (id.clone(), seen.state, seen.slice)
        });
        status.collect()
    }

    /// What every server lists that is listed with the gateway's credential, offered or not; in no order.
    #[must_use]
    pub fn live(&self) -> Vec<Arc<Slice>> {
        let servers = self.inner.servers.read().unwrap_or_else(PoisonError::into_inner);
        servers.values().filter_map(|slot| slot.live()).collect()
    }

    /// Something else is accepted than before: offers that, and tells those who watch.
    pub fn repin(&self) {
        let now = Instant::now();
        let servers: Vec<_> =
            self.inner.servers.read().unwrap_or_else(PoisonError::into_inner).values().cloned().collect();
        for slot in servers {
            slot.look(now);
        }
        self.inner.generation.bump(true);
    }

    /// Moves whenever some view may have changed; compare [`View::revision`] or [`View::digest`] then.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.inner.generation.subscribe()
    }

    fn look(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        viewer: Viewer<'_, S::Caller>,
        included: &impl Fn(&ServerConfig) -> bool,
        shown: Option<Kind>,
    ) -> Result<Looked, Stop> {
        // Read before anything that it counts, so that a memo is never newer than it says.
        let generation = self.inner.generation.now();
        let now = Instant::now();
        let servers = match endpoint {
            Endpoint::Merged => config.servers.as_slice(),
            Endpoint::Server(id) => {
                config.server(id).map(std::slice::from_ref).ok_or_else(|| Refusal::new(Reason::TargetUnknown))?
            }
        };
        let key = MemoKey::of(endpoint, servers, viewer.principal, included);
        let memo = self.inner.memos.get(&key);
        let memo = memo.filter(|memo| shown.is_none() || memo.is_settled);
        if let Some(memo) = memo.filter(|memo| memo.holds(config, servers, generation, now, included)) {
            return Ok(Looked { view: Arc::clone(&memo.view), unsettled: Vec::new() });
        }
        let mut until: Option<Instant> = None;
        let mut is_settled = true;
        let mut unsettled = Vec::new();
        let mut members = Vec::with_capacity(servers.len());
        let mut choices = Vec::with_capacity(servers.len());
        for server in servers {
            let choice = Choice::of(server, included);
            choices.push(choice);
            if choice == Choice::LeftOut {
                continue;
            }
            let slot = self.slot(server, viewer.context(server));
            let mut seen = slot.look(now);
            if seen.due {
                self.refresh(&slot, viewer.access(server));
                seen = slot.look(now);
            }
            until = [until, seen.until].into_iter().flatten().min();
            is_settled &= !seen.renewing;
            let renewed = shown.and_then(|kind| slot.renewed(kind, now));
            unsettled.extend(seen.wait_until.max(renewed).map(|until| (slot, seen.attempts, until)));
            let server = Arc::clone(server);
            members.push(Member { server, slice: seen.slice, state: seen.state, listed: seen.listed });
        }
        if members.is_empty() && *endpoint != Endpoint::Merged {
            return Err(Refusal::new(Reason::TargetUnknown).into());
        }
        let view = self.compose(config, endpoint, key.principal, members);
        // What is still awaited is looked at again each time, until it has come or time is up.
        if unsettled.is_empty() {
            let config = Arc::clone(config);
            let memo = Memo { config, generation, choices, until, is_settled, view: Arc::clone(&view) };
            self.inner.memos.insert(key, Arc::new(memo));
        }
        Ok(Looked { view, unsettled })
    }

    /// The view of these members, composed only if it is not there already.
    fn compose(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        principal: Option<PrincipalKey>,
        members: Vec<Member>,
    ) -> Arc<View> {
        let states = format!("{:?}", members.iter().map(|member| member.state).collect::<Vec<_>>());
        let principal = principal.map(|principal| principal.0);
        // What was accepted again says the same, and whoever holds what was accepted before may not call it.
        let serials: Vec<u8> = members
            .iter()
            .flat_map(|member| member.slice.as_ref().map_or(0, |slice| slice.serial()).to_be_bytes())
            .collect();
        let key = Digest::of(
            "bailiwick composed view",
            &[
                revision(config, endpoint, &members).0.as_bytes(),
                states.as_bytes(),
                &serials,
                principal.as_ref().map_or(&[], |principal| principal.as_bytes().as_slice()),
            ],
        );
        if let Some(view) = self.inner.views.get(&key).filter(|view| Arc::ptr_eq(&view.config, config)) {
            return view;
        }
        let view = Arc::new(View::compose(config, endpoint, members));
        self.report(&view);
        self.inner.views.insert(key, Arc::clone(&view));
        view
    }

    /// Logs conflicts, each once until it is forgotten, whoever's view they are in.
    fn report(&self, view: &View) {
        for conflict in view.conflicts() {
            let name = conflict.public_name.escape_debug().to_string();
            let key = Digest::of("bailiwick conflict", &[conflict.server.as_str().as_bytes(), name.as_bytes()]);
            if self.inner.reported.get(&key).is_none() {
                self.inner.reported.insert(key, ());
                let (server, list) = (&conflict.server, conflict.kind.list_method());
                tracing::warn!(%server, list, name, reason = %conflict.reason, "not routable on /mcp");
            }
        }
    }

    fn slot_of(&self, server: &ServerId) -> Option<Arc<Slot>> {
        self.inner.servers.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    fn slot(&self, server: &Arc<ServerConfig>, context: AuthorizationContext) -> Arc<Slot> {
        let own = self.slot_of(&server.id).unwrap_or_else(|| {
            let mut servers = self.inner.servers.write().unwrap_or_else(PoisonError::into_inner);
            if self.inner.applied.load(Ordering::Acquire) && !servers.contains_key(&server.id) {
                // It was taken away, and this is asked for under what was configured before: nobody keeps it.
                let gone = self.new_slot(server);
                gone.shared.retired.cancel();
                return gone;
            }
            Arc::clone(servers.entry(server.id.clone()).or_insert_with(|| self.new_slot(server)))
        });
        let AuthorizationContext::Principal(principal) = context else { return own };
        let key = (server.id.clone(), principal);
        let new = || Arc::new(Slot::new(Arc::clone(&own.shared), context));
        let slot = self.inner.principals.get_with_by_ref(&key, new);
        if Arc::ptr_eq(&slot.shared, &own.shared) {
            return slot;
        }
        // The server became another one; what was listed is of no use.
        let slot = new();
        self.inner.principals.insert(key, Arc::clone(&slot));
        slot
    }

    /// What happens after each attempt: views are looked at again, and a caller's slice is weighed again.
    fn after_refresh(&self, slot: &Arc<Slot>) -> impl Fn(bool) + Send + Sync + use<S> {
        let generation = Arc::clone(&self.inner.generation);
        let principals = self.inner.principals.clone();
        let weighed = match slot.context {
            AuthorizationContext::Gateway => None,
            AuthorizationContext::Principal(principal) => {
                Some(((slot.shared.config.load().id.clone(), principal), Arc::downgrade(slot)))
            }
        };
        move |news| {
            if let Some((key, slot)) = &weighed
                && let Some(slot) = slot.upgrade()
                && principals.get(key).is_some_and(|kept| Arc::ptr_eq(&kept, &slot))
            {
                principals.insert(key.clone(), slot);
            }
            generation.bump(news);
        }
    }

    fn new_slot(&self, server: &Arc<ServerConfig>) -> Arc<Slot> {
        let shared = Arc::new(Shared::new(Arc::clone(server), self.inner.pace, Arc::clone(&self.inner.pins)));
        Arc::new(Slot::new(shared, AuthorizationContext::Gateway))
    }

    fn refresh(&self, slot: &Arc<Slot>, access: Access<S::Caller>) {
        if slot.begin() {
            let changed = self.after_refresh(slot);
            tokio::spawn(refresh::run(Arc::clone(&self.inner.source), Arc::clone(slot), access, changed));
        }
    }
}

fn available(view: Arc<View>) -> Result<Arc<View>, Stop> {
    if view.is_unavailable() {
        let reason = view.without_credential().unwrap_or(Reason::CatalogUnavailable);
        return Err(Failure::before(reason, "no server could be listed").into());
    }
    Ok(view)
}
