//! What the demo does to a sample server behind everybody's back, to show what a gateway does about it.
//!
//! Decides nothing about answers. Invariant: whoever reaches the server over the network reaches nothing of this; it is
//! held by whoever started the server, in the same process.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rmcp::{Peer, RoleServer};

use crate::limit;

/// The ropes of one `deploy` server; clones pull the same ones.
#[derive(Debug, Clone, Default)]
pub struct Backstage(Arc<Ropes>);

#[derive(Debug, Default)]
struct Ropes {
    /// How much longer each step of a rollout takes, in milliseconds.
    longer_ms: AtomicU64,
    rewritten: AtomicBool,
    announced: AtomicUsize,
    /// Rollouts that somebody cancelled.
    given_up: AtomicUsize,
    /// Whom a changed list is told to.
    clients: Mutex<Vec<Peer<RoleServer>>>,
}

impl Backstage {
    /// From now on each step of a rollout takes so much longer.
    pub fn take_longer(&self, by: Duration) {
        self.0.longer_ms.store(u64::try_from(by.as_millis()).unwrap_or(u64::MAX), Ordering::Release);
    }

    /// From now on the server describes one of its tools in other words, and says that its list has changed.
    pub async fn rewrite(&self) {
        self.0.rewritten.store(true, Ordering::Release);
        let clients = std::mem::take(&mut *self.0.clients.lock().unwrap_or_else(PoisonError::into_inner));
        for client in &clients {
            // A client that is gone, or does not listen, does not keep the others waiting.
            let _told = tokio::time::timeout(limit::DEMO_TELL_TIMEOUT, client.notify_tool_list_changed()).await;
        }
        self.0.clients.lock().unwrap_or_else(PoisonError::into_inner).extend(clients);
    }

    /// How often something was published.
    #[must_use]
    pub fn announced(&self) -> usize {
        self.0.announced.load(Ordering::Acquire)
    }

    /// How many rollouts were given up because they were cancelled.
    #[must_use]
    pub fn given_up(&self) -> usize {
        self.0.given_up.load(Ordering::Acquire)
    }

    pub(super) fn gave_up(&self) {
        self.0.given_up.fetch_add(1, Ordering::AcqRel);
    }

    pub(super) fn longer(&self) -> Duration {
        Duration::from_millis(self.0.longer_ms.load(Ordering::Acquire))
    }

    pub(super) fn is_rewritten(&self) -> bool {
        self.0.rewritten.load(Ordering::Acquire)
    }

    /// Counts one; answers how many there are with it.
    pub(super) fn announce(&self) -> usize {
        self.0.announced.fetch_add(1, Ordering::AcqRel) + 1
    }

    /// A client that has initialized its session.
    pub(super) fn hears(&self, client: Peer<RoleServer>) {
        let mut clients = self.0.clients.lock().unwrap_or_else(PoisonError::into_inner);
        clients.retain(|client| !client.is_transport_closed());
        if clients.len() < limit::DEMO_TOLD_MAX {
            clients.push(client);
        }
    }
}
