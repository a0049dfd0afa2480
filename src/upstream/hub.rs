//! What one upstream says to nobody in particular, and what was dropped of what it said.
//!
//! Decides which notifications mean that something changed. Knows nothing of transports. Invariant: a
//! listener that is too slow is told so by the channel and never slows the upstream down.

use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::broadcast;

use crate::ids::ServerId;
use crate::wire::mcp::Kind;

/// Something about an upstream that others may hold copies of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Its list of this kind is no longer what it was, or may not be.
    Listed(ServerId, Kind),
    /// It answers again.
    Up(ServerId),
    /// It cannot be reached.
    Down(ServerId),
}

/// What was dropped, for metrics; each counts from the start of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Dropped {
    /// Answers to requests that nobody waits for, second answers, progress of others' tokens.
    pub strays: u64,
    /// Notifications that a slow reader had no room for, or that could not be told whose they are.
    pub notifications: u64,
    /// Listed items that are not what they should be.
    pub items: u64,
    /// Lines of a process that are no messages.
    pub noise: u64,
}

/// Where one upstream's changes and counts go.
#[derive(Debug)]
pub(super) struct Hub {
    pub(super) server: ServerId,
    changes: broadcast::Sender<Change>,
    strays: AtomicU64,
    notifications: AtomicU64,
    items: AtomicU64,
    noise: AtomicU64,
}

impl Hub {
    pub(super) fn new(server: ServerId, changes: broadcast::Sender<Change>) -> Self {
        Self {
            server,
            changes,
            strays: AtomicU64::new(0),
            notifications: AtomicU64::new(0),
            items: AtomicU64::new(0),
            noise: AtomicU64::new(0),
        }
    }

    /// Tells listeners which lists a notification of this method concerns; answers whether it was one.
    pub(super) fn list_changed(&self, method: &str) -> bool {
        let kinds: &[Kind] = match method {
            "notifications/tools/list_changed" => &[Kind::Tool],
            "notifications/prompts/list_changed" => &[Kind::Prompt],
            "notifications/resources/list_changed" => &[Kind::Resource, Kind::ResourceTemplate],
            _ => return false,
        };
        kinds.iter().for_each(|kind| self.tell(Change::Listed(self.server.clone(), *kind)));
        true
    }

    /// Every list may have changed while nobody listened.
    pub(super) fn all_lists_changed(&self) {
        Kind::ALL.iter().for_each(|kind| self.tell(Change::Listed(self.server.clone(), *kind)));
    }

    pub(super) fn tell(&self, change: Change) {
        // An error only says that nobody listens.
        let _ = self.changes.send(change);
    }

    pub(super) fn stray(&self) {
        self.strays.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn notification_dropped(&self) {
        self.notifications.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn items_dropped(&self, count: u64) {
        self.items.fetch_add(count, Ordering::Relaxed);
    }

    pub(super) fn noise(&self) {
        self.noise.fetch_add(1, Ordering::Relaxed);
    }

    pub(super) fn dropped(&self) -> Dropped {
        Dropped {
            strays: self.strays.load(Ordering::Relaxed),
            notifications: self.notifications.load(Ordering::Relaxed),
            items: self.items.load(Ordering::Relaxed),
            noise: self.noise.load(Ordering::Relaxed),
        }
    }
}
