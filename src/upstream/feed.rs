//! Keeps one feed of resource updates going: a shared listen, or a legacy session or process.
//!
//! Decides what is asked of the upstream when the set of topics changes. Knows nothing of who is told.
//! Invariant: when the source is lost every topic is over; whoever still wants it asks again, and is
//! decided about again.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures_util::{FutureExt, StreamExt};
use tokio::sync::broadcast;
use tokio_util::sync::{CancellationToken, DropGuard};

use super::Access;
use super::answer::{Waiting, member};
use super::drive::Answers;
use super::duplex::Duplex;
use super::errand::{Errand, ServerFacts};
use super::events::Events;
use super::exchange::{Event, Exchange, Signal};
use super::http::Http;
use super::legacy::{Conversation, Session};
use super::oldest::Talk;
use super::pool::Lease;
use super::server::{Server, Wire};
use super::subscription::Feed;
use crate::config::Isolation;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::{Era, code};
use crate::wire::{Askable, Json, Message, Value};

/// Serves a feed for as long as anybody sits in it.
pub(super) async fn keep(server: Arc<Server>, feed: Arc<Feed>) {
    let closing = server.link.closing.clone();
    loop {
        let over = tokio::select! {
            () = closing.cancelled() => Err(lost("the server was taken out of the configuration")),
            over = round(&server, &feed) => over,
        };
        if let Err(failure) = over {
            tracing::debug!(server = %server.link.config.id, reason = failure.detail, "lost a feed of updates");
            feed.all_over(&failure);
        }
        if server.feeds.retire(&feed) {
            return;
        }
    }
}

/// Ends without an error when nobody sits in the feed any more.
async fn round(server: &Arc<Server>, feed: &Arc<Feed>) -> Result<(), Failure> {
    server.link.circuit.check()?;
    let access = feed.access.in_use()?;
    let parcel = Errand::subscribe("", &feed.declared).parcel(&access);
    let line = match &server.wire {
        Wire::Http(http) if server.era(http, &access).await? == Era::Legacy => {
            // It was taken for a server that cannot tell callers apart, and is none.
            if feed.stateless && server.link.config.isolation == Isolation::Principal {
                return Err(lost("it speaks another era than before"));
            }
            let talk = http.talk(&access, parcel.askable(&server.link)).await?;
            if !has_updates(talk.facts()) {
                feed.refuse_all();
                return Ok(());
            }
            match talk {
                Talk::Session(session) => Line::of_session(http, feed, session).await,
                Talk::Stream(stream) => Line::of_duplex(Arc::clone(&stream.duplex), Box::new(stream)),
            }
        }
        Wire::Stdio(stdio) => {
            let running = stdio.process_for(&access, stdio.askable(&parcel).await?).await?;
            if !has_updates(&running.facts) {
                feed.refuse_all();
                return Ok(());
            }
            if running.facts.era() == Era::Modern {
                return modern(server, feed).await;
            }
            Line::of_duplex(Arc::clone(&running.process), Box::new(running))
        }
        Wire::Http(_) => {
            if !has_updates(&server.facts_quietly(&access).await?) {
                feed.refuse_all();
                return Ok(());
            }
            return modern(server, feed).await;
        }
        Wire::Unusable(reason) => return Err(lost(reason.clone())),
    };
    legacy(server, feed, line).await
}

fn has_updates(facts: &ServerFacts) -> bool {
    facts.announces("resources", Some("subscribe"))
}

/// One listen at a time; the next one stands before the last one goes.
async fn modern(server: &Arc<Server>, feed: &Feed) -> Result<(), Failure> {
    let mut held: BTreeSet<Arc<str>> = BTreeSet::new();
    let mut listen: Option<Exchange> = None;
    let mut due = false;
    loop {
        let wanted = feed.uris();
        if wanted.is_empty() {
            return Ok(());
        }
        if due || !wanted.iter().eq(held.iter()) {
            // Members get another one in time; whoever has not is decided about anew, and then comes with one.
            let access = feed.access.in_use()?;
            match opened(server, &access, &wanted).await {
                Ok((fresh, honoured)) => {
                    // What the last one has heard already is still news.
                    while let Some(Some(Event::Notification(message))) =
                        listen.as_mut().map(|listen| listen.next().now_or_never())
                    {
                        feed.tell(&message);
                    }
                    listen = Some(fresh);
                    settle(feed, &wanted, &honoured);
                    held = wanted.into_iter().filter(|uri| honoured.contains(uri.as_ref())).collect();
                }
                // Somebody's new wish must not cost the others theirs.
                Err(outcome) if listen.is_some() && !due => {
                    wanted.iter().filter(|uri| !held.contains(*uri)).for_each(|uri| feed.over(uri, &outcome));
                }
                Err(outcome) => {
                    wanted.iter().for_each(|uri| feed.over(uri, &outcome));
                    return Ok(());
                }
            }
            due = false;
            continue;
        }
        let Some(open) = listen.as_mut() else { return Ok(()) };
        // Somebody may have come right after the last one went.
        held.iter().for_each(|uri| feed.agreed(uri));
        tokio::select! {
            event = open.next() => match event {
                Event::Notification(message) => feed.tell(&message),
                Event::StreamClosed => {}
                Event::Done(_) => return Err(lost("its listen ended")),
            },
            () = feed.changed.notified() => tokio::time::sleep(limit::SUBSCRIPTION_CHANGE_PAUSE).await,
            // A listen that was silent for long may be dead without anyone having noticed.
            () = tokio::time::sleep(limit::CHANGE_STREAM_IDLE / 2) => due = true,
        }
    }
}

/// A listen that was acknowledged, and what for.
async fn opened(
    server: &Arc<Server>,
    access: &Access,
    wanted: &[Arc<str>],
) -> Result<(Exchange, BTreeSet<String>), Outcome> {
    let mut listen = server.exchange(Errand::listen_to(wanted).parcel(access));
    match listen.next().await {
        Event::Notification(message) if message.method() == "notifications/subscriptions/acknowledged" => {
            let named = member(message.params(), "notifications", "resourceSubscriptions").and_then(Value::as_array);
            let honoured = named.into_iter().flatten().filter_map(|uri| uri.as_str().map(Into::into)).collect();
            Ok((listen, honoured))
        }
        Event::Done(Outcome::Complete(_)) => Err(Outcome::Failed(lost("its listen ended at once"))),
        Event::Done(outcome) => Err(outcome),
        Event::Notification(_) | Event::StreamClosed => {
            let detail = "a listen did not begin with its acknowledgement";
            Err(Outcome::Failed(Failure::after(Reason::UpstreamGarbage, detail)))
        }
    }
}

fn settle(feed: &Feed, wanted: &[Arc<str>], honoured: &BTreeSet<String>) {
    let error = serde_json::json!({ "code": code::INVALID_PARAMS, "message": "Not subscribed" });
    let refused = Outcome::Error(Json::of(&error));
    for uri in wanted {
        if honoured.contains(uri.as_ref()) {
            feed.agreed(uri);
        } else {
            feed.over(uri, &refused);
        }
    }
}

/// What a legacy server says is heard here, for as long as this is held.
struct Line {
    updates: broadcast::Receiver<Message>,
    /// Nothing more will be heard.
    over: CancellationToken,
    held: Held,
}

enum Held {
    Session { http: Arc<Http>, session: Arc<Session>, _reading: DropGuard },
    Duplex { duplex: Arc<Duplex>, _lease: Box<dyn Send + Sync> },
}

impl Line {
    /// Hears a process or stream, which the lease keeps.
    fn of_duplex(duplex: Arc<Duplex>, lease: Box<dyn Send + Sync>) -> Self {
        let (updates, over) = (duplex.updates.subscribe(), duplex.over.clone());
        Self { updates, over, held: Held::Duplex { duplex, _lease: lease } }
    }

    /// Reads the session's GET stream, if nobody else does.
    async fn of_session(http: &Arc<Http>, feed: &Feed, lease: Lease<Session>) -> Self {
        let session = Arc::clone(lease.shared());
        let (updates, over, stop) = (session.updates.subscribe(), CancellationToken::new(), CancellationToken::new());
        let (ready, is_ready) = tokio::sync::oneshot::channel();
        let conversation = Conversation::new(http, lease, feed.access.clone());
        let reading = read(Arc::clone(http), Arc::clone(&session), conversation, ready);
        let (stopped, ended) = (stop.clone(), over.clone().drop_guard());
        tokio::spawn(async move {
            let _ended = ended;
            stopped.run_until_cancelled(reading).await;
        });
        // Heard first, asked afterwards: nothing falls in between.
        let _ = is_ready.await;
        let held = Held::Session { http: Arc::clone(http), session, _reading: stop.drop_guard() };
        Self { updates, over, held }
    }

    /// Whether what is asked with this access is asked where this line listens.
    async fn is_current(&self, feed: &Feed, asks: Askable) -> bool {
        match &self.held {
            Held::Session { http, session, .. } => {
                let Ok(access) = feed.access.in_use() else { return false };
                http.session_for(&access, asks).await.is_ok_and(|now| Arc::ptr_eq(now.shared(), session))
            }
            Held::Duplex { duplex, .. } => duplex.closed().is_none(),
        }
    }
}

/// Says that the session's own stream is read, for as long as it is held.
struct Reading<'a>(&'a Session);

impl<'a> Reading<'a> {
    fn of(session: &'a Session) -> Self {
        session.says_read(true);
        Self(session)
    }
}

impl Drop for Reading<'_> {
    fn drop(&mut self) {
        self.0.says_read(false);
    }
}

/// Reads the GET stream of a session to its end. One reader at a time: servers have one stream for each session.
async fn read(
    http: Arc<Http>,
    session: Arc<Session>,
    conversation: Conversation,
    ready: tokio::sync::oneshot::Sender<()>,
) {
    let Ok(turn) = session.stream_turn.try_lock() else {
        // Whoever reads it hears for us too.
        let _ = ready.send(());
        drop(session.stream_turn.lock().await);
        return;
    };
    let opened = conversation.stream(None).await;
    let _ = ready.send(());
    match opened {
        Ok(Some(body)) => {
            let mut waiting = Waiting::for_nothing(&http.link.hub);
            waiting.updates = Some(session.updates.clone());
            if http.link.config.isolation == Isolation::Principal {
                waiting.beside = Some(Arc::clone(&session.calls));
            }
            let mut events = Events::legacy(body, waiting, None, conversation, None);
            let _said = Reading::of(&session);
            while let Signal::Event(Event::Notification(_)) = events.draw().await {}
        }
        // Without a stream updates can still come along with answers.
        Ok(None) => std::future::pending().await,
        Err(failure) => tracing::debug!(reason = failure.detail, "a session has no stream"),
    }
    drop(turn);
}

/// Asks for each topic by itself, in the session or process that the line hears.
async fn legacy(server: &Arc<Server>, feed: &Feed, mut line: Line) -> Result<(), Failure> {
    let asks = Errand::subscribe("", &feed.declared).parcel(&feed.access.now()).askable(&server.link);
    let mut held: BTreeSet<Arc<str>> = BTreeSet::new();
    loop {
        let wanted: BTreeSet<Arc<str>> = feed.uris().into_iter().collect();
        let gone: Vec<_> = held.difference(&wanted).cloned().collect();
        let fresh: Vec<_> = wanted.difference(&held).cloned().collect();
        if !gone.is_empty() || !fresh.is_empty() {
            let access = feed.access.in_use()?;
            let given_up = gone.iter().map(|uri| (uri, false));
            let asking = given_up.chain(fresh.iter().map(|uri| (uri, true))).map(|(uri, wanted)| {
                let declared = &feed.declared;
                let errand = if wanted { Errand::subscribe(uri, declared) } else { Errand::unsubscribe(uri, declared) };
                let asking = server.ask(errand, &access);
                async move { (uri, wanted, asking.await) }
            });
            let mut answers = futures_util::stream::iter(asking).buffer_unordered(limit::ERRANDS_IN_FLIGHT_MAX).boxed();
            let (mut agreed, mut refused) = (Vec::new(), BTreeSet::new());
            while let Some((uri, wanted, outcome)) = answers.next().await {
                match outcome {
                    Outcome::Complete(_) if wanted => agreed.push(uri),
                    _ if !wanted => {}
                    Outcome::Failed(failure) if failure.reason == Reason::UpstreamUnreachable => return Err(failure),
                    outcome => {
                        refused.insert(Arc::clone(uri));
                        feed.over(uri, &outcome);
                    }
                }
            }
            drop(answers);
            if !wanted.is_empty() && !line.is_current(feed, asks).await {
                return Err(lost("its session was replaced"));
            }
            agreed.into_iter().for_each(|uri| feed.agreed(uri));
            held = wanted.difference(&refused).cloned().collect();
            continue;
        }
        if wanted.is_empty() {
            return Ok(());
        }
        held.iter().for_each(|uri| feed.agreed(uri));
        tokio::select! {
            update = line.updates.recv() => match update {
                Ok(message) => feed.tell(&message),
                Err(broadcast::error::RecvError::Lagged(_)) => feed.tell_all(),
                Err(broadcast::error::RecvError::Closed) => return Err(lost("its session is gone")),
            },
            () = line.over.cancelled() => return Err(lost("its stream ended")),
            () = feed.changed.notified() => tokio::time::sleep(limit::SUBSCRIPTION_CHANGE_PAUSE).await,
        }
    }
}

fn lost(detail: impl Into<String>) -> Failure {
    Failure::after(Reason::UpstreamClosed, detail)
}
