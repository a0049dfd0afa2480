//! Subscriptions: authorized at the start, every notification filtered, decided again on every change.
//!
//! Decides when a caller's own lists have changed, and when a stream is over. Invariant: nobody hears of a
//! change that they cannot see, and a stream ends within a second of its caller's revocation or expiry.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::call::Endpoint;
use crate::gateway::Gateway;
use crate::guard::Slot;
use crate::identity::Caller;
use crate::ids::Digest;
use crate::limit;
use crate::list::{class_of, shown_digest};
use crate::outcome::{Reason, Stop};
use crate::wire::Message;
use crate::wire::mcp::Kind;

/// What a client wants to hear of.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Interest {
    /// `notifications/tools/list_changed`.
    pub tools: bool,
    /// `notifications/prompts/list_changed`.
    pub prompts: bool,
    /// `notifications/resources/list_changed`.
    pub resources: bool,
}

/// One open watch; dropping it ends it.
pub struct Watch {
    gateway: Arc<Gateway>,
    caller: Caller,
    endpoint: Endpoint,
    interest: Interest,
    /// What was shown when the client was last told.
    shown: Shown,
    catalog: watch::Receiver<u64>,
    decisions: watch::Receiver<u64>,
    pending: VecDeque<Message>,
    /// Something changed that was not looked at yet.
    unsettled: bool,
    _slot: Slot,
}

/// What a watch yields.
#[derive(Debug)]
pub enum Watched {
    /// A notification without a subscription id; the front adds that.
    Notification(Message),
    /// The watch is over: revoked, expired, or the gateway stops.
    Ended(Reason),
}

/// The digests of the three lists that a caller is shown; `None` where that cannot be said now.
type Shown = [Option<Digest>; 3];

/// Opens a watch.
///
/// # Errors
/// Too many streams.
pub async fn watch(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    endpoint: &Endpoint,
    interest: Interest,
) -> Result<Watch, Stop> {
    gateway.quotas().request(caller.principal())?;
    let slot = gateway.quotas().stream(caller.principal())?;
    // Subscribed first, looked at afterwards: a change in between is seen twice rather than never.
    let (catalog, decisions) = (gateway.catalog().revisions(), gateway.decisions());
    // A server that does not exist here is watched like one that shows nothing.
    let _ = gateway.view(caller, endpoint).await;
    let mut watch = Watch {
        gateway: Arc::clone(gateway),
        caller: caller.clone(),
        endpoint: endpoint.clone(),
        interest,
        shown: [None; 3],
        catalog,
        decisions,
        pending: VecDeque::new(),
        unsettled: false,
        _slot: slot,
    };
    watch.shown = watch.look();
    Ok(watch)
}

impl Watch {
    /// The next notification, or the end. Cancel-safe: what was noticed is remembered.
    pub async fn next(&mut self) -> Watched {
        let stopping = self.gateway.stopping();
        loop {
            if let Some(message) = self.pending.pop_front() {
                return Watched::Notification(message);
            }
            if let Some(reason) = self.over() {
                return Watched::Ended(reason);
            }
            if self.unsettled {
                // Changes come in flurries: a reload touches everything at once.
                tokio::time::sleep(limit::WATCH_DEBOUNCE).await;
                self.unsettled = false;
                self.compare();
                continue;
            }
            let changed = tokio::select! {
                () = stopping.cancelled() => return Watched::Ended(Reason::ShuttingDown),
                changed = self.catalog.changed() => changed,
                changed = self.decisions.changed() => changed,
                // Nobody announces that a token has run out.
                () = tokio::time::sleep(limit::WATCH_RECHECK) => continue,
            };
            if changed.is_err() {
                return Watched::Ended(Reason::ShuttingDown);
            }
            self.unsettled = true;
        }
    }

    fn compare(&mut self) {
        let now = self.look();
        let names = ["tools", "prompts", "resources"];
        for ((name, new), old) in names.iter().zip(now).zip(&mut self.shown) {
            if new.is_some() && *old != new {
                *old = new;
                let method = format!("notifications/{name}/list_changed");
                self.pending.push_back(Message::notification(&method, None));
            }
        }
    }

    fn look(&self) -> Shown {
        let now = self.gateway.snapshot();
        let Ok(class) = class_of(&now, &self.caller) else { return [None; 3] };
        let Ok(view) = self.gateway.view_now(&self.caller, &self.endpoint) else { return [None; 3] };
        let digest = |wanted: bool, kinds: &[Kind]| {
            let digests = kinds.iter().map(|kind| shown_digest(&now, &class, &view, *kind));
            wanted.then(|| {
                digests.fold(Digest::sha256(b""), |all, one| Digest::of("both", &[all.as_bytes(), one.as_bytes()]))
            })
        };
        [
            digest(self.interest.tools, &[Kind::Tool]),
            digest(self.interest.prompts, &[Kind::Prompt]),
            digest(self.interest.resources, &[Kind::Resource, Kind::ResourceTemplate]),
        ]
    }

    fn over(&self) -> Option<Reason> {
        if let Err(refusal) = self.gateway.still_trusted(&self.caller) {
            return Some(refusal.reason);
        }
        let left = Duration::from_secs(u64::try_from(self.caller.token().expires_at).unwrap_or(0));
        (crate::gateway::since_epoch() > left).then_some(Reason::TokenExpired)
    }
}
