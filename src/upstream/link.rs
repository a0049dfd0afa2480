//! What is known of one upstream, whatever carries it: its era, its health, its numbers.
//!
//! Decides when what was learnt is forgotten. Knows no transport. Invariant: a failure to reach it
//! forgets the era, because what answers next may be another version.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};

use arc_swap::ArcSwapOption;
use secrecy::ExposeSecret;
use tokio::sync::{Notify, broadcast};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Access;
use super::errand::ServerFacts;
use super::health::Circuit;
use super::hub::{Change, Hub};
use super::parked::Lot;
use crate::config::ServerConfig;
use crate::delegate::CredentialHeader;
use crate::ids::AuthorizationContext;
use crate::outcome::{Failure, Reason};
use crate::wire::Askable;
use crate::wire::mcp::Era;

/// What is known of one upstream.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) config: Arc<ServerConfig>,
    pub(super) hub: Arc<Hub>,
    pub(super) circuit: Circuit,
    /// The server is given up: nothing new begins.
    pub(super) closing: CancellationToken,
    /// Wakes the prober.
    pub(super) lost: Notify,
    /// Wakes the listener for changes.
    pub(super) found: Notify,
    /// What the gateway itself presents, as last seen; for what happens in the background.
    pub(super) gateway_access: ArcSwapOption<Access>,
    /// Calls that wait for what their server asked.
    pub(super) lot: Arc<Lot>,
    era: AtomicU8,
    /// It announced the tasks extension in its last answer to `initialize`.
    tasks: AtomicBool,
    ids: AtomicI64,
}

const UNKNOWN: u8 = 0;
const MODERN: u8 = 1;
const LEGACY: u8 = 2;
/// Legacy, over HTTP+SSE of 2024-11-05.
const OLDEST: u8 = 3;

/// A request that has no answer yet. Dropped after its time is over, by whichever clock noticed, it counts as
/// unanswered.
pub(super) struct Asking<'a> {
    link: &'a Link,
    until: Option<Instant>,
}

impl Asking<'_> {
    /// The answer begins.
    pub(super) fn answered(mut self) {
        self.until = None;
        self.link.answered();
    }
}

impl Drop for Asking<'_> {
    fn drop(&mut self) {
        if self.until.is_some_and(|until| Instant::now() >= until) && self.link.circuit.unanswered() {
            self.link.lost.notify_one();
        }
    }
}

impl Link {
    pub(super) fn new(config: Arc<ServerConfig>, changes: broadcast::Sender<Change>, lot: Arc<Lot>) -> Self {
        Self {
            hub: Arc::new(Hub::new(config.id.clone(), changes)),
            config,
            circuit: Circuit::new(),
            closing: CancellationToken::new(),
            lost: Notify::new(),
            found: Notify::new(),
            gateway_access: ArcSwapOption::empty(),
            lot,
            era: AtomicU8::new(UNKNOWN),
            tasks: AtomicBool::new(false),
            ids: AtomicI64::new(1),
        }
    }

    /// A request id that was never used toward this upstream.
    pub(super) fn next_id(&self) -> i64 {
        self.ids.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn era(&self) -> Option<Era> {
        match self.era.load(Ordering::Acquire) {
            MODERN => Some(Era::Modern),
            LEGACY | OLDEST => Some(Era::Legacy),
            _ => None,
        }
    }

    pub(super) fn learn_era(&self, era: Era) {
        let era = if era == Era::Modern { MODERN } else { LEGACY };
        if self.era.swap(era, Ordering::AcqRel) != era {
            tracing::debug!(server = %self.config.id, modern = (era == MODERN), "found out which era it speaks");
        }
    }

    /// It speaks HTTP+SSE of 2024-11-05, and no other transport over HTTP.
    pub(super) fn learn_oldest(&self) {
        if self.era.swap(OLDEST, Ordering::AcqRel) != OLDEST {
            tracing::debug!(server = %self.config.id, "found out that it speaks HTTP+SSE of 2024-11-05");
        }
    }

    pub(super) fn is_oldest(&self) -> bool {
        self.era.load(Ordering::Acquire) == OLDEST
    }

    /// What a legacy server said of itself: who is told of tasks that it does not have gets a session for nothing.
    pub(super) fn learn_tasks(&self, facts: &ServerFacts) {
        self.tasks.store(facts.has_tasks_extension(), Ordering::Release);
    }

    /// What of this is worth declaring to it at the beginning of a session.
    pub(super) fn declarable(&self, askable: Askable) -> Askable {
        if self.tasks.load(Ordering::Acquire) { askable } else { askable.without_tasks() }
    }

    pub(super) fn forget_era(&self) {
        self.era.store(UNKNOWN, Ordering::Release);
    }

    /// It answered, whatever it said.
    pub(super) fn answered(&self) {
        if self.circuit.answered() {
            tracing::info!(server = %self.config.id, "upstream is up");
            self.hub.tell(Change::Up(self.config.id.clone()));
            self.found.notify_one();
        }
    }

    /// Watches over a request until its answer begins.
    pub(super) const fn asking(&self, until: Instant) -> Asking<'_> {
        Asking { link: self, until: Some(until) }
    }

    /// It could not be reached; the failure to give to the caller.
    pub(super) fn unreachable(&self, detail: String) -> Failure {
        self.forget_era();
        if self.circuit.failed(&detail) {
            tracing::warn!(server = %self.config.id, reason = detail, "upstream is down");
            self.hub.tell(Change::Down(self.config.id.clone()));
        }
        self.lost.notify_one();
        Failure::before(Reason::UpstreamUnreachable, detail)
    }

    /// Remembers what the gateway itself presents.
    pub(super) fn saw(&self, access: &Access) {
        if access.context != AuthorizationContext::Gateway || access.principal.is_some() {
            return;
        }
        let shown = |access: &Access| {
            let header = access.credential.as_ref();
            header.map(|header| (header.name.clone(), header.value.expose_secret().to_owned()))
        };
        let known = self.gateway_access.load();
        if known.as_ref().is_none_or(|known| shown(known) != shown(access)) {
            self.gateway_access.store(Some(Arc::new(Access { principal: None, ..access.clone() })));
            self.found.notify_one();
        }
    }

    /// What to present in the background: the gateway's own, or nothing.
    pub(super) fn own_access(&self) -> Access {
        self.presentable().map_or_else(Access::bare, |access| (*access).clone())
    }

    /// What the gateway itself presented last, if it may still be used; forgotten otherwise.
    pub(super) fn presentable(&self) -> Option<Arc<Access>> {
        let known = self.gateway_access.load_full()?;
        if known.credential.as_ref().is_some_and(CredentialHeader::is_used_up) {
            self.gateway_access.compare_and_swap(&known, None);
            return None;
        }
        Some(known)
    }
}
