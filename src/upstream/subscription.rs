//! Subscriptions to resources: many clients' wishes, one feed for each key of one upstream.
//!
//! Decides who shares a feed, and how many subscriptions one upstream gets. Knows nothing of who is told.
//! Invariant: a feed grows only by an [`Entry`](crate::record), so what it presents was granted to somebody
//! who may subscribe; two principals share one only where they would share a session.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, broadcast, watch};

use super::Access;
use super::answer::member;
use super::feed;
use super::pool::Key;
use super::presented::Presented;
use super::server::{Server, Wire};
use crate::config::Isolation;
use crate::ids::AuthorizationContext;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, code, meta};
use crate::wire::{Askable, Edit, Json, Message, Value};

/// What a subscription yields.
#[derive(Debug)]
pub enum Update {
    /// `notifications/resources/updated`, as the upstream said it.
    Told(Message),
    /// There were more than could be kept: the resource did change.
    Missed,
}

/// One subscription to one resource of one upstream. Dropping it ends it, upstream too when it was the last.
#[derive(Debug)]
pub struct Subscription {
    phase: watch::Receiver<Phase>,
    updates: broadcast::Receiver<Message>,
    _seat: Option<Seat>,
}

/// How far one topic is.
#[derive(Debug, Clone)]
enum Phase {
    Opening,
    Open,
    Over(Outcome),
}

/// One resource that somebody wants to hear of.
#[derive(Debug)]
struct Topic {
    phase: watch::Sender<Phase>,
    updates: broadcast::Sender<Message>,
    members: usize,
}

/// All topics of one key.
#[derive(Debug)]
pub(super) struct Feed {
    key: Key,
    /// It serves everyone whom the upstream could not tell apart anyway.
    pub(super) stateless: bool,
    /// What clients of its session declare, and so what the server may ask in it.
    pub(super) declared: Json,
    pub(super) access: Presented,
    topics: Mutex<HashMap<Arc<str>, Topic>>,
    /// The set of topics is another one.
    pub(super) changed: Notify,
    count: Arc<AtomicUsize>,
}

/// All feeds of one upstream.
#[derive(Debug, Default)]
pub(super) struct Feeds {
    open: Mutex<HashMap<Key, Arc<Feed>>>,
    /// Topics of all of them.
    count: Arc<AtomicUsize>,
}

/// One member's place at one topic.
#[derive(Debug)]
struct Seat {
    feed: Arc<Feed>,
    uri: Arc<str>,
    topic: watch::Sender<Phase>,
}

impl Subscription {
    /// Waits for the upstream's agreement; how asking for it ended.
    pub async fn opened(&mut self) -> Outcome {
        let settled = self.phase.wait_for(|phase| !matches!(phase, Phase::Opening)).await;
        match settled.as_deref() {
            Ok(Phase::Over(outcome)) => outcome.clone(),
            Ok(_) => Outcome::Complete(Json::of(&serde_json::Map::new())),
            Err(_) => Outcome::Failed(lost()),
        }
    }

    /// The next update; `None` when the subscription is lost. Cancel-safe.
    pub async fn updated(&mut self) -> Option<Update> {
        match self.updates.recv().await {
            Ok(message) => Some(Update::Told(message)),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(Update::Missed),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }

    /// One that is over before it began.
    pub(super) fn failed(failure: Failure) -> Self {
        let (_, phase) = watch::channel(Phase::Over(Outcome::Failed(failure)));
        Self { phase, updates: broadcast::channel(1).1, _seat: None }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.feed.leave(&self.uri, &self.topic);
    }
}

impl Feeds {
    /// Takes a seat in the feed of whoever asks.
    pub(super) fn join(&self, server: &Arc<Server>, access: Access, params: &Json, uri: &str) -> Subscription {
        let isolation = server.link.config.isolation;
        let stateless = matches!(server.wire, Wire::Http(_))
            && server.link.era() == Some(Era::Modern)
            && access.context == AuthorizationContext::Gateway;
        let access = Access { principal: if stateless { None } else { access.principal }, ..access };
        let (isolation, asks) = match (stateless, isolation) {
            (false, Isolation::Principal) => (isolation, server.link.declarable(Askable::of_params(params))),
            _ => (Isolation::Shared, Askable::NOTHING),
        };
        let key = Key::of(&access, isolation, asks);
        let mut open = self.lock();
        if let Some(feed) = open.get(&key) {
            return feed.join(access, uri);
        }
        let feed = Arc::new(Feed {
            key: key.clone(),
            stateless,
            declared: declared(params),
            access: Presented::new(access.clone()),
            topics: Mutex::default(),
            changed: Notify::new(),
            count: Arc::clone(&self.count),
        });
        let subscription = feed.join(access, uri);
        if feed.uris().is_empty() {
            return subscription;
        }
        open.insert(key, Arc::clone(&feed));
        tokio::spawn(feed::keep(Arc::clone(server), feed));
        subscription
    }

    /// Forgets a feed that nobody sits in; answers whether it was.
    pub(super) fn retire(&self, feed: &Arc<Feed>) -> bool {
        let mut open = self.lock();
        let empty = feed.lock().is_empty();
        if empty && open.get(&feed.key).is_some_and(|held| Arc::ptr_eq(held, feed)) {
            open.remove(&feed.key);
        }
        empty
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Key, Arc<Feed>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Feed {
    fn join(self: &Arc<Self>, access: Access, uri: &str) -> Subscription {
        // What was decided last is presented from now on; members come again before the use of theirs has ended.
        self.access.replace(access);
        let mut topics = self.lock();
        if !topics.contains_key(uri) {
            let max = limit::SUBSCRIPTIONS_PER_SERVER_MAX;
            let room = |count: usize| (count < max).then_some(count + 1);
            if self.count.fetch_update(Ordering::AcqRel, Ordering::Acquire, room).is_err() {
                let detail = "it has as many subscriptions as one server may have";
                return Subscription::failed(Failure::before(Reason::UpstreamBusy, detail));
            }
        }
        let uri: Arc<str> = Arc::from(uri);
        let topic = topics.entry(Arc::clone(&uri)).or_insert_with(|| {
            self.changed.notify_one();
            Topic {
                phase: watch::Sender::new(Phase::Opening),
                updates: broadcast::Sender::new(limit::SUBSCRIPTION_UPDATES_MAX),
                members: 0,
            }
        });
        topic.members += 1;
        let seat = Seat { feed: Arc::clone(self), uri, topic: topic.phase.clone() };
        Subscription { phase: topic.phase.subscribe(), updates: topic.updates.subscribe(), _seat: Some(seat) }
    }

    fn leave(&self, uri: &str, phase: &watch::Sender<Phase>) {
        let mut topics = self.lock();
        // A topic that was lost may have been followed by another one of the same name.
        let Some(topic) = topics.get_mut(uri).filter(|topic| topic.phase.same_channel(phase)) else { return };
        topic.members -= 1;
        if topic.members == 0 {
            topics.remove(uri);
            self.count.fetch_sub(1, Ordering::AcqRel);
            self.changed.notify_one();
        }
    }

    /// Every resource that somebody wants to hear of, in order.
    pub(super) fn uris(&self) -> Vec<Arc<str>> {
        let mut uris: Vec<_> = self.lock().keys().cloned().collect();
        uris.sort_unstable();
        uris
    }

    /// The upstream has agreed to this one.
    pub(super) fn agreed(&self, uri: &str) {
        if let Some(topic) = self.lock().get(uri) {
            topic.phase.send_if_modified(|phase| {
                let opening = matches!(phase, Phase::Opening);
                if opening {
                    *phase = Phase::Open;
                }
                opening
            });
        }
    }

    /// This one has come to nothing, or is lost.
    pub(super) fn over(&self, uri: &str, outcome: &Outcome) {
        if let Some(topic) = self.lock().remove(uri) {
            self.count.fetch_sub(1, Ordering::AcqRel);
            topic.phase.send_replace(Phase::Over(outcome.clone()));
        }
    }

    /// The upstream has no such thing as subscriptions.
    pub(super) fn refuse_all(&self) {
        let error = serde_json::json!({ "code": code::METHOD_NOT_FOUND, "message": "Method not found" });
        let refused = Outcome::Error(Json::of(&error));
        self.uris().iter().for_each(|uri| self.over(uri, &refused));
    }

    /// All are lost.
    pub(super) fn all_over(&self, failure: &Failure) {
        for uri in self.uris() {
            self.over(&uri, &Outcome::Failed(failure.clone()));
        }
    }

    /// Tells everyone whom an update concerns: who subscribed to the resource, or to one that it is part of.
    pub(super) fn tell(&self, message: &Message) {
        // Whatever else names a resource is not what anybody subscribed to.
        if message.method() != "notifications/resources/updated" {
            return;
        }
        let Some(uri) = message.params().and_then(|params| params.get("uri")).and_then(Value::as_str) else { return };
        let message = untagged(message);
        let topics = self.lock();
        // Whoever subscribed to the whole hears of its part, whether somebody else named the part or not.
        for (_, topic) in topics.iter().filter(|(whole, _)| ***whole == *uri || is_part(&uri, whole)) {
            // An error only says that nobody listens.
            let _ = topic.updates.send(message.clone());
        }
    }

    /// Which resources changed was missed, so all may have.
    pub(super) fn tell_all(&self) {
        for (uri, topic) in self.lock().iter() {
            let _ = topic.updates.send(updated(uri));
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Arc<str>, Topic>> {
        self.topics.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `notifications/resources/updated`, where no upstream's own words can be had.
#[must_use]
pub fn updated(uri: &str) -> Message {
    Message::notification("notifications/resources/updated", Some(&Json::of(&serde_json::json!({ "uri": uri }))))
}

/// Whether a URI names a part of what another one names.
fn is_part(uri: &str, whole: &str) -> bool {
    uri.strip_prefix(whole).is_some_and(|rest| whole.ends_with('/') || rest.starts_with(['/', '?', '#']))
}

/// What the client of a request declares.
fn declared(params: &Json) -> Json {
    let declared = member(params.value().as_object(), "_meta", meta::CLIENT_CAPABILITIES);
    declared.map_or_else(|| Json::of(&serde_json::Map::new()), |declared| params.share(declared))
}

/// The notification without the id of our own subscription.
fn untagged(message: &Message) -> Message {
    let Some(params) = message.params() else { return message.clone() };
    let Some(old) = params.get("_meta").and_then(Value::as_object) else { return message.clone() };
    let new = old.edited(&[Edit::Remove(meta::SUBSCRIPTION_ID), Edit::RemovePrefix(meta::OWN_PREFIX)]);
    let edit = if new.as_str() == "{}" { Edit::Remove("_meta") } else { Edit::Set("_meta", new) };
    Message::notification(&message.method(), Some(&params.edited(&[edit])))
}

fn lost() -> Failure {
    Failure::after(Reason::UpstreamClosed, "the subscription is lost")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::Source;

    fn feed() -> Arc<Feed> {
        let access = Access::bare();
        Arc::new(Feed {
            key: Key::of(&access, Isolation::Shared, Askable::NOTHING),
            stateless: true,
            declared: declared(&Json::of(&serde_json::json!({}))),
            access: Presented::new(access),
            topics: Mutex::default(),
            changed: Notify::new(),
            count: Arc::default(),
        })
    }

    #[tokio::test]
    async fn one_upstream_is_asked_about_so_many_resources_and_again_when_some_have_gone() {
        let feed = feed();
        let join = |number: usize| feed.join(Access::bare(), &format!("x:{number}"));
        let mut held: Vec<_> = (0..limit::SUBSCRIPTIONS_PER_SERVER_MAX).map(join).collect();
        let Outcome::Failed(failure) = join(usize::MAX).opened().await else { panic!("there was room for one more") };
        assert_eq!((failure.reason, failure.may_have_acted), (Reason::UpstreamBusy, false));
        // One more who wants the same costs nothing.
        drop(join(0));
        held.pop();
        let mut fresh = join(usize::MAX);
        feed.agreed(&format!("x:{}", usize::MAX));
        assert!(matches!(fresh.opened().await, Outcome::Complete(_)));
    }

    #[tokio::test]
    async fn a_slow_reader_is_told_that_there_was_more_and_a_lost_feed_ends_it() {
        let feed = feed();
        let mut slow = feed.join(Access::bare(), "x:1");
        for _ in 0..=limit::SUBSCRIPTION_UPDATES_MAX {
            feed.tell(&updated("x:1"));
        }
        assert!(matches!(slow.updated().await, Some(Update::Missed)));
        for _ in 0..limit::SUBSCRIPTION_UPDATES_MAX {
            assert!(matches!(slow.updated().await, Some(Update::Told(_))));
        }
        feed.all_over(&lost());
        assert!(slow.updated().await.is_none());
        assert!(matches!(slow.opened().await, Outcome::Failed(_)));
    }

    #[test]
    fn an_update_of_a_part_concerns_the_whole_and_a_neighbour_does_not() {
        assert!(is_part("file:///a/b", "file:///a") && is_part("file:///a/b", "file:///a/"));
        assert!(is_part("file:///a#x", "file:///a"));
        assert!(!is_part("file:///ab", "file:///a") && !is_part("file:///a", "file:///a/b"));
    }

    #[test]
    fn an_update_loses_our_own_tag_and_keeps_the_rest() {
        let told = |text: &str| untagged(&Message::parse(text, Source::Upstream).unwrap()).as_bytes().clone();
        assert_eq!(
            told(
                r#"{"jsonrpc":"2.0","method":"m","params":{"uri":"x","new":1,"_meta":{"io.modelcontextprotocol/subscriptionId":7}}}"#
            ),
            r#"{"jsonrpc":"2.0","method":"m","params":{"uri":"x","new":1}}"#
        );
        assert_eq!(
            told(
                r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"a":1,"dev.bailiwick/x":2,"io.modelcontextprotocol/subscriptionId":"q"},"uri":"x"}}"#
            ),
            r#"{"jsonrpc":"2.0","method":"m","params":{"_meta":{"a":1},"uri":"x"}}"#
        );
    }
}
