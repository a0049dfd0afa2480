//! The catalog: every slice there is, kept current, and the views that are made of them.
//!
//! Decides which slices a view needs and how long it waits for one that was never listed. Invariant: a
//! slice that was listed with one caller's credential is part of that caller's views only.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, PoisonError, RwLock};

use tokio::sync::watch;
use tokio::time::Instant;

use super::refresh;
use super::slice::Slice;
use super::slot::{Shared, SliceState, Slot, fingerprint};
use super::source::{Access, Source};
use super::view::{Member, View, revision};
use crate::call::Endpoint;
use crate::config::{Config, ListAs, ServerConfig};
use crate::ids::{AuthorizationContext, Digest, PrincipalKey, ServerId};
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
    principals: moka::sync::Cache<(ServerId, PrincipalKey), Arc<Slot>>,
    /// Composed views by what they are composed of.
    views: moka::sync::Cache<Digest, Arc<View>>,
    /// Which view was a caller's, as long as nothing changes.
    memos: moka::sync::Cache<MemoKey, Arc<Memo>>,
    generation: Arc<Generation>,
}

/// Counts whatever may change a view.
struct Generation {
    count: AtomicU64,
    sender: watch::Sender<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
struct MemoKey {
    endpoint: Endpoint,
    principal: Option<PrincipalKey>,
    /// Two bits for each choice, folded; the memo holds all of them, and they are compared.
    choices: u64,
}

struct Memo {
    config: Arc<Config>,
    generation: u64,
    choices: Vec<Choice>,
    until: Option<Instant>,
    view: Arc<View>,
}

/// How one server takes part in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Choice {
    LeftOut = 0,
    Gateway = 1,
    Caller = 2,
}

/// A view, and what would be worth waiting for.
struct Looked {
    view: Arc<View>,
    unsettled: Vec<(Arc<Slot>, Instant)>,
}

impl Generation {
    /// Voids every memo, and tells those who watch if there is something to see.
    fn bump(&self, news: bool) {
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if news {
            self.sender.send_modify(|sent| *sent = count.max(*sent));
        }
    }
}

impl<S: Source> Catalog<S> {
    /// An empty catalog.
    #[must_use]
    pub fn new(source: Arc<S>) -> Self {
        let inner = Inner {
            source,
            servers: RwLock::default(),
            principals: moka::sync::Cache::builder()
                .max_capacity(limit::PRINCIPAL_SLICES_MAX)
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
            generation: Arc::new(Generation { count: AtomicU64::new(0), sender: watch::Sender::new(0) }),
        };
        Self { inner: Arc::new(inner) }
    }

    /// Takes a configuration in: forgets servers that are gone or became others, and begins to list those
    /// that are listed with the gateway's credential. Call it before the snapshot is swapped; needs a runtime.
    pub fn apply(&self, config: &Config) {
        let mut begun = Vec::new();
        {
            let mut servers = self.inner.servers.write().unwrap_or_else(PoisonError::into_inner);
            servers.retain(|id, slot| {
                let kept = config.server(id).is_some_and(|server| fingerprint(server) == slot.shared.fingerprint);
                if !kept {
                    slot.shared.retired.cancel();
                }
                kept
            });
            for server in &config.servers {
                let slot = servers.entry(server.id.clone()).or_insert_with(|| new_slot(server));
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

    /// The view that there is now: never waits; refreshes what is due in the background. For each server
    /// `access` answers with whose credential it is listed for this caller, `None` leaves it out.
    ///
    /// # Errors
    /// `target_unknown` for an endpoint that does not exist or is left out; `catalog_unavailable` where
    /// no server has anything to show, which is never an empty success.
    pub fn view_now(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        access: impl Fn(&ServerConfig) -> Option<Access<S::Caller>>,
    ) -> Result<Arc<View>, Stop> {
        available(self.look(config, endpoint, &access)?.view)
    }

    /// As [`Catalog::view_now`], but waits for servers that were never listed, each for at most
    /// [`limit::CATALOG_FIRST_WAIT`] from when listing it began; then goes on with what there is.
    ///
    /// # Errors
    /// As [`Catalog::view_now`].
    pub async fn view(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        access: impl Fn(&ServerConfig) -> Option<Access<S::Caller>>,
    ) -> Result<Arc<View>, Stop> {
        let looked = self.look(config, endpoint, &access)?;
        if looked.unsettled.is_empty() {
            return available(looked.view);
        }
        for (slot, until) in &looked.unsettled {
            slot.settled(*until).await;
        }
        available(self.look(config, endpoint, &access)?.view)
    }

    /// A server said that a list changed (`None`: all of them, or it came back): lists it again, at most
    /// every [`limit::CATALOG_CHANGED_PAUSE`]; callers' own slices are listed again when they are next used.
    /// Also the answer to an unknown-tool error of the upstream.
    pub fn changed(&self, server: &ServerId, kind: Option<Kind>) {
        let Some(slot) = self.slot_of(server) else { return };
        slot.shared.change(kind);
        if slot.shared.config.load().list_as == ListAs::Gateway {
            slot.wake.notify_waiters();
            self.refresh(&slot, Access::Gateway);
            return;
        }
        if !slot.shared.announcing.swap(true, Ordering::AcqRel) {
            let generation = Arc::clone(&self.inner.generation);
            tokio::spawn(async move {
                tokio::time::sleep(limit::CATALOG_CHANGED_PAUSE).await;
                slot.shared.announcing.store(false, Ordering::Release);
                generation.bump(true);
            });
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

    /// Moves whenever some view may have changed; compare [`View::revision`] or [`View::digest`] then.
    #[must_use]
    pub fn revisions(&self) -> watch::Receiver<u64> {
        self.inner.generation.sender.subscribe()
    }

    fn look(
        &self,
        config: &Arc<Config>,
        endpoint: &Endpoint,
        access: &impl Fn(&ServerConfig) -> Option<Access<S::Caller>>,
    ) -> Result<Looked, Stop> {
        // Read before anything that it counts, so that a memo is never newer than it says.
        let generation = self.inner.generation.count.load(Ordering::Acquire);
        let now = Instant::now();
        let servers = match endpoint {
            Endpoint::Merged => config.servers.as_slice(),
            Endpoint::Server(id) => {
                config.server(id).map(std::slice::from_ref).ok_or_else(|| Refusal::new(Reason::TargetUnknown))?
            }
        };
        let key = Self::memo_key(endpoint, servers, access);
        let memo = self.inner.memos.get(&key).filter(|memo| {
            memo.generation == generation
                && Arc::ptr_eq(&memo.config, config)
                && memo.until.is_none_or(|until| until > now)
                && servers.iter().map(|server| choice(access(server).as_ref())).eq(memo.choices.iter().copied())
        });
        if let Some(memo) = memo {
            return Ok(Looked { view: Arc::clone(&memo.view), unsettled: Vec::new() });
        }
        let mut until: Option<Instant> = None;
        let mut unsettled = Vec::new();
        let mut members = Vec::with_capacity(servers.len());
        let mut choices = Vec::with_capacity(servers.len());
        for server in servers {
            let access = access(server);
            choices.push(choice(access.as_ref()));
            let Some(access) = access else { continue };
            let slot = self.slot(server, access.context());
            let mut seen = slot.look(now);
            if seen.due {
                self.refresh(&slot, access);
                seen = slot.look(now);
            }
            until = [until, seen.until].into_iter().flatten().min();
            unsettled.extend(seen.wait_until.map(|until| (slot, until)));
            let server = Arc::clone(server);
            members.push(Member { server, slice: seen.slice, state: seen.state, listed: seen.listed });
        }
        if members.is_empty() && *endpoint != Endpoint::Merged {
            return Err(Refusal::new(Reason::TargetUnknown).into());
        }
        let view = self.compose(config, endpoint, key.principal, members);
        // What is still awaited is looked at again each time, until it has come or time is up.
        if unsettled.is_empty() {
            let memo = Memo { config: Arc::clone(config), generation, choices, until, view: Arc::clone(&view) };
            self.inner.memos.insert(key, Arc::new(memo));
        }
        Ok(Looked { view, unsettled })
    }

    fn memo_key(
        endpoint: &Endpoint,
        servers: &[Arc<ServerConfig>],
        access: &impl Fn(&ServerConfig) -> Option<Access<S::Caller>>,
    ) -> MemoKey {
        let mut principal = None;
        let mut choices = 0_u64;
        for server in servers {
            let access = access(server);
            if let Some(Access::Caller(key, _)) = &access {
                principal = Some(*key);
            }
            choices = choices.rotate_left(2) ^ choice(access.as_ref()) as u64;
        }
        MemoKey { endpoint: endpoint.clone(), principal, choices }
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
        let key = Digest::of(
            "bailiwick composed view",
            &[
                revision(endpoint, &members).0.as_bytes(),
                states.as_bytes(),
                principal.as_ref().map_or(&[], |principal| principal.as_bytes().as_slice()),
            ],
        );
        if let Some(view) = self.inner.views.get(&key).filter(|view| Arc::ptr_eq(&view.config, config)) {
            return view;
        }
        let view = Arc::new(View::compose(config, endpoint, members));
        self.inner.views.insert(key, Arc::clone(&view));
        view
    }

    fn slot_of(&self, server: &ServerId) -> Option<Arc<Slot>> {
        self.inner.servers.read().unwrap_or_else(PoisonError::into_inner).get(server).cloned()
    }

    fn slot(&self, server: &Arc<ServerConfig>, context: AuthorizationContext) -> Arc<Slot> {
        let own = self.slot_of(&server.id).unwrap_or_else(|| {
            let mut servers = self.inner.servers.write().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(servers.entry(server.id.clone()).or_insert_with(|| new_slot(server)))
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

    fn refresh(&self, slot: &Arc<Slot>, access: Access<S::Caller>) {
        if slot.begin() {
            let generation = Arc::clone(&self.inner.generation);
            let changed = move |news| generation.bump(news);
            tokio::spawn(refresh::run(Arc::clone(&self.inner.source), Arc::clone(slot), access, changed));
        }
    }
}

fn new_slot(server: &Arc<ServerConfig>) -> Arc<Slot> {
    Arc::new(Slot::new(Arc::new(Shared::new(Arc::clone(server))), AuthorizationContext::Gateway))
}

const fn choice<C>(access: Option<&Access<C>>) -> Choice {
    match access {
        None => Choice::LeftOut,
        Some(Access::Gateway) => Choice::Gateway,
        Some(Access::Caller(..)) => Choice::Caller,
    }
}

fn available(view: Arc<View>) -> Result<Arc<View>, Stop> {
    if view.is_unavailable() {
        return Err(Failure::before(Reason::CatalogUnavailable, "no server could be listed").into());
    }
    Ok(view)
}
