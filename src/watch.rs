//! Subscriptions: authorized at the start, every notification filtered, decided again on every change.
//!
//! Decides when a caller's own lists have changed, and when a stream is over. Invariant: nobody hears of a
//! change that they cannot see, and a stream ends within a second of its caller's revocation or expiry.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::sync::{Semaphore, mpsc, oneshot, watch};
use tokio::task::{AbortHandle, JoinSet};

mod lists;
mod tasks;
mod topic;

use topic::Topic;

use crate::call::{ClientFacts, Endpoint, own_tools};
use crate::gateway::Gateway;
use crate::guard::Slot;
use crate::identity::Caller;
use crate::ids::Digest;
use crate::inversion::{self, Control};
use crate::limit;
use crate::list::{class_of, shown_digest};
use crate::outcome::{Failure, Outcome, Reason, Refusal, Stop};
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
    /// `notifications/resources/updated` of these.
    pub updates: Vec<String>,
    /// `notifications/tasks` of these.
    pub tasks: Vec<String>,
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
    client: ClientFacts,
    /// What the topics have to tell.
    told: mpsc::Receiver<Message>,
    tell: mpsc::Sender<Message>,
    topics: HashMap<String, AbortHandle>,
    /// The tasks that a legacy client follows itself.
    tasks: Vec<(String, AbortHandle)>,
    /// Why an issuer that has to be asked about the token does not vouch for it any more.
    disowned: Option<oneshot::Receiver<Reason>>,
    listening: lists::Listening,
    /// How many of them may be asked for at once.
    opening: Arc<Semaphore>,
    /// Ends what it follows when it is dropped.
    following: JoinSet<()>,
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

/// Opens a watch. It hears of those resources only that could be subscribed to; see [`Watch::honoured`].
///
/// # Errors
/// Too many streams, or too many resources for one of them.
pub async fn watch(
    gateway: &Arc<Gateway>,
    caller: &Caller,
    endpoint: &Endpoint,
    client: &ClientFacts,
    mut interest: Interest,
) -> Result<Watch, Stop> {
    if interest.updates.len() > limit::SUBSCRIPTIONS_PER_STREAM_MAX {
        return Err(too_many().into());
    }
    let tasks = tasks::wanted(client, &mut interest)?;
    gateway.quotas().request(caller.principal())?;
    let slot = gateway.quotas().stream(caller.principal())?;
    // Subscribed first, looked at afterwards: a change in between is seen twice rather than never.
    let (catalog, decisions) = (gateway.catalog().revisions(), gateway.decisions());
    // A server that does not exist here is watched like one that shows nothing.
    let _ = gateway.view(caller, endpoint).await;
    let (tell, told) = mpsc::channel(limit::WATCH_TOLD_MAX);
    let updates = std::mem::take(&mut interest.updates);
    let mut watch = Watch {
        gateway: Arc::clone(gateway),
        caller: caller.clone(),
        endpoint: endpoint.clone(),
        interest,
        shown: [None; 3],
        catalog,
        decisions,
        client: client.clone(),
        told,
        tell,
        topics: HashMap::new(),
        tasks: Vec::new(),
        disowned: None,
        listening: HashMap::new(),
        opening: Arc::new(Semaphore::new(limit::SUBSCRIPTIONS_OPENING_MAX)),
        following: JoinSet::new(),
        pending: VecDeque::new(),
        unsettled: false,
        _slot: slot,
    };
    watch.shown = watch.look();
    watch.ask_on();
    watch.listen_for_lists();
    let asked: Vec<_> = updates.into_iter().map(|uri| (watch.add(uri.clone()), uri)).collect();
    let refused = join_all(asked.into_iter().map(|(asking, uri)| async move {
        match tokio::time::timeout(limit::LISTEN_ACKNOWLEDGE_WAIT, asking).await {
            Ok(Outcome::Complete(_)) | Err(_) => None,
            Ok(_) => Some(uri),
        }
    }));
    for uri in refused.await.into_iter().flatten() {
        watch.unsubscribe(&uri);
    }
    watch.hear_of(tasks).await;
    Ok(watch)
}

fn too_many() -> Refusal {
    let hint = format!("name at most {} resources in one stream", limit::SUBSCRIPTIONS_PER_STREAM_MAX);
    Refusal::new(Reason::ParametersInvalid).hint(hint)
}

impl Watch {
    /// What it will tell of: what was asked for, but for resources that do not exist for this caller, are not to be
    /// subscribed to by them, or whose server has no subscriptions.
    #[must_use]
    pub fn honoured(&self) -> Interest {
        let mut updates: Vec<String> = self.topics.keys().cloned().collect();
        updates.sort_unstable();
        Interest { updates, ..self.interest.clone() }
    }

    /// Has the issuer asked about the token for as long as the stream is open, where requests would.
    fn ask_on(&mut self) {
        let Some(asking) = self.caller.disowned() else { return };
        let (tell, told) = oneshot::channel();
        self.disowned = Some(told);
        self.following.spawn(async move {
            // Nobody hears it where the stream is over.
            let _ = tell.send(asking.await);
        });
    }

    /// Hears with the rights of somebody who came later, of the same principal; of tasks that a listen named it hears no
    /// more. Everything that is heard of is asked for anew, and what may have been missed meanwhile is told.
    pub async fn renew(&mut self, caller: Caller) {
        let mut tasks = std::mem::take(&mut self.tasks);
        // Of one that is over its server says nothing more. Before all of them are.
        tasks.retain(|(_, following)| !following.is_finished());
        self.following.shutdown().await;
        self.listening.clear();
        self.disowned = None;
        self.caller = caller;
        self.ask_on();
        let uris: Vec<String> = self.topics.drain().map(|(uri, _)| uri).collect();
        for uri in uris {
            // Nobody waits for the answer.
            drop(self.add(uri));
        }
        for (id, _) in tasks {
            self.follow_again(id);
        }
        self.unsettled = true;
        self.listen_for_lists();
    }

    /// Hears of a resource from now on; the answer is how its upstream took it. Asking twice is asking once.
    pub fn subscribe(&mut self, uri: String) -> BoxFuture<'static, Outcome> {
        match self.gateway.quotas().request(self.caller.principal()) {
            Ok(()) => self.add(uri),
            Err(refusal) => self.refused(refusal),
        }
    }

    /// Not to be heard of, which is counted and recorded: it did not become a call.
    fn refused(&self, refusal: Refusal) -> BoxFuture<'static, Outcome> {
        self.gateway.declined(&self.caller, refusal.reason);
        Box::pin(std::future::ready(Outcome::Refused(refusal)))
    }

    fn add(&mut self, uri: String) -> BoxFuture<'static, Outcome> {
        if self.topics.get(&uri).is_some_and(|topic| !topic.is_finished()) {
            return Box::pin(std::future::ready(Outcome::Complete(crate::wire::Json::of(&serde_json::Map::new()))));
        }
        self.topics.retain(|_, topic| !topic.is_finished());
        if self.topics.len() >= limit::SUBSCRIPTIONS_PER_STREAM_MAX {
            return self.refused(too_many());
        }
        let slot = match self.gateway.quotas().subscription(self.caller.principal()) {
            Ok(slot) => slot,
            Err(refusal) => return self.refused(refusal),
        };
        while self.following.try_join_next().is_some() {}
        let (first, answer) = oneshot::channel();
        let topic = Topic {
            gateway: Arc::clone(&self.gateway),
            caller: self.caller.clone(),
            endpoint: self.endpoint.clone(),
            uri: uri.clone(),
            client: self.client.clone(),
            tell: self.tell.clone(),
            opening: Arc::clone(&self.opening),
            _slot: slot,
        };
        self.topics.insert(uri, self.following.spawn(topic.follow(first)));
        Box::pin(async move {
            answer.await.unwrap_or_else(|_| Outcome::Failed(Failure::before(Reason::Cancelled, "unsubscribed")))
        })
    }

    /// Hears of a resource no more.
    pub fn unsubscribe(&mut self, uri: &str) {
        if let Some(topic) = self.topics.remove(uri) {
            topic.abort();
        }
    }

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
                self.listen_for_lists();
                self.compare();
                continue;
            }
            let changed = tokio::select! {
                () = stopping.cancelled() => return Watched::Ended(Reason::ShuttingDown),
                changed = self.catalog.changed() => changed,
                changed = self.decisions.changed() => changed,
                Some(message) = self.told.recv() => return Watched::Notification(message),
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
        // What the gateway has of its own is decided for each caller, too, and is in no view.
        let own = |listed: Digest| {
            let own = own_tools(&now, &class, &self.caller, &self.endpoint);
            own.into_iter().fold(listed, |all, tool| Digest::of("own", &[all.as_bytes(), tool.as_bytes()]))
        };
        [
            digest(self.interest.tools, &[Kind::Tool]).map(own),
            digest(self.interest.prompts, &[Kind::Prompt]),
            digest(self.interest.resources, &[Kind::Resource, Kind::ResourceTemplate]),
        ]
    }

    fn over(&mut self) -> Option<Reason> {
        if let Some(Ok(reason)) = self.disowned.as_mut().map(oneshot::Receiver::try_recv) {
            return Some(reason);
        }
        if let Err(stop) = self.gateway.still_heard(&self.caller)
            && !inversion::is_off(Control::Continuous)
        {
            return Some(stop.reason());
        }
        let left = Duration::from_secs(u64::try_from(self.caller.expires_at()).unwrap_or(0));
        (crate::gateway::since_epoch() > left).then_some(Reason::TokenExpired)
    }
}
