//! Remembering which view is a caller's, so that a call pays one lookup for it.
//!
//! Invariant: a memo is used only under the configuration, the choices of slices and the generation that it
//! was made under, and for the one principal whose slices are in it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::watch;
use tokio::time::Instant;

use super::view::View;
use crate::config::{Config, ListAs, ServerConfig};
use crate::ids::{Endpoint, PrincipalKey};

/// Counts whatever may change a view.
#[derive(Default)]
pub(super) struct Generation {
    count: AtomicU64,
    sender: watch::Sender<u64>,
}

#[derive(Clone, PartialEq, Eq, Hash)]
pub(super) struct MemoKey {
    endpoint: Endpoint,
    pub(super) principal: Option<PrincipalKey>,
    /// Two bits for each choice, folded; the memo holds all of them, and they are compared.
    choices: u64,
}

pub(super) struct Memo {
    pub(super) config: Arc<Config>,
    pub(super) generation: u64,
    pub(super) choices: Vec<Choice>,
    pub(super) until: Option<Instant>,
    /// Nothing newer is on its way: whoever is shown a list has nothing to wait for.
    pub(super) is_settled: bool,
    pub(super) view: Arc<View>,
}

/// How one server takes part in a view.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Choice {
    LeftOut = 0,
    Gateway = 1,
    Caller = 2,
}

impl Generation {
    /// Voids every memo, and tells those who watch if there is something to see.
    pub(super) fn bump(&self, news: bool) {
        let count = self.count.fetch_add(1, Ordering::AcqRel) + 1;
        if news {
            self.sender.send_modify(|sent| *sent = count.max(*sent));
        }
    }

    /// The count, to be read before anything that it counts.
    pub(super) fn now(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Told whenever there is something to see.
    pub(super) fn subscribe(&self) -> watch::Receiver<u64> {
        self.sender.subscribe()
    }
}

impl MemoKey {
    /// The key of a viewer to whom these servers are shown.
    pub(super) fn of(
        endpoint: &Endpoint,
        servers: &[Arc<ServerConfig>],
        viewer: PrincipalKey,
        included: impl Fn(&ServerConfig) -> bool,
    ) -> Self {
        let mut principal = None;
        let mut choices = 0_u64;
        for server in servers {
            let choice = Choice::of(server, &included);
            if choice == Choice::Caller {
                principal = Some(viewer);
            }
            choices = choices.rotate_left(2) ^ choice as u64;
        }
        Self { endpoint: endpoint.clone(), principal, choices }
    }
}

impl Memo {
    /// Whether it is still the answer.
    pub(super) fn holds(
        &self,
        config: &Arc<Config>,
        servers: &[Arc<ServerConfig>],
        generation: u64,
        now: Instant,
        included: impl Fn(&ServerConfig) -> bool,
    ) -> bool {
        self.generation == generation
            && Arc::ptr_eq(&self.config, config)
            && self.until.is_none_or(|until| until > now)
            && servers.iter().map(|server| Choice::of(server, &included)).eq(self.choices.iter().copied())
    }
}

impl Choice {
    pub(super) fn of(server: &ServerConfig, included: impl Fn(&ServerConfig) -> bool) -> Self {
        match server.list_as {
            _ if !included(server) => Self::LeftOut,
            ListAs::Gateway => Self::Gateway,
            ListAs::Caller => Self::Caller,
        }
    }
}
