//! A listen for tasks at a server that has sessions and no listens: what it tells, it tells its whole session.
//!
//! Decides when such a listen is agreed to and when it is over. Knows nothing of who listens. Invariant: a listen
//! hears of the tasks that it named and no others, and ends when something may have been missed.

use std::sync::Arc;

use tokio::sync::{broadcast, watch};
use tokio_util::sync::CancellationToken;

use super::answer::member;
use super::drive::{self, Answers, Patience};
use super::duplex::Holder;
use super::exchange::{Event, Opened, Signal};
use super::http::Http;
use super::legacy::Session;
use super::pool::Lease;
use super::server::Parcel;
use super::{TASKS_OF_2025 as OF_2025, elsewhere};
use crate::config::Isolation;
use crate::outcome::{Failure, Outcome, Reason};
use crate::wire::mcp::meta;
use crate::wire::{Askable, Json, Message, Value};

/// Where a listen of ours names the tokens of progress of tasks of 2025-11-25: like them it never leaves the gateway.
pub const PROGRESS_OF_2025: &str = "dev.bailiwick/progress";

/// What a listen names.
pub(super) struct Named {
    tasks: Vec<String>,
    /// Our tokens of their progress.
    tokens: Vec<String>,
}

/// The tasks that a request wants to hear of, where its server tells of tasks without being asked: of the extension, if
/// that was declared, and of 2025-11-25.
pub(super) fn wanted(parcel: &Parcel, declared: Askable) -> Option<Named> {
    let params = parcel.outgoing.params.value().as_object().filter(|_| parcel.listening && !parcel.errand);
    let named = |key| member(params, "notifications", key);
    let ids = named("taskIds").filter(|_| declared.has_tasks()).or_else(|| named(OF_2025))?;
    let texts = |all: Value<'_>| -> Option<Vec<String>> {
        Some(all.as_array()?.filter_map(|one| one.as_str().map(Into::into)).collect())
    };
    Some(Named { tasks: texts(ids)?, tokens: named(PROGRESS_OF_2025).and_then(texts).unwrap_or_default() })
}

/// Tasks of 2025-11-25 are named in words of ours, which no server is to read.
///
/// # Errors
/// [`Reason::UpstreamGarbage`] where that is about to happen: the server became a modern one since the task began.
pub(super) fn none_of_2025(parcel: &Parcel) -> Result<(), Failure> {
    if parcel.listening && !parcel.errand {
        let params = parcel.outgoing.params.value().as_object();
        if member(params, "notifications", OF_2025).is_some() {
            return Err(Failure::before(Reason::UpstreamGarbage, "it has no tasks of 2025-11-25 any more"));
        }
    }
    Ok(())
}

/// Listens in a session, which has to have a stream of its own.
pub(super) async fn in_session(
    http: &Arc<Http>,
    session: Lease<Session>,
    askable: Askable,
    named: Named,
    patience: Patience,
) -> Opened {
    let mut stream = session.own_stream.subscribe();
    // Where nothing can be asked nobody has opened it yet. In a shared session it could be anybody's.
    if !*stream.borrow() && http.link.config.isolation == Isolation::Principal {
        elsewhere::listen(http, session.shared(), askable).await;
    }
    if !*stream.borrow_and_update() {
        let failure = Failure::before(Reason::UpstreamClosed, "its session has no stream to be told anything on");
        return Opened::Done(Outcome::Failed(failure));
    }
    let updates = session.updates.subscribe();
    listen(Told { updates, lost: Lost::Stream(stream), named, begun: false, _held: session }, patience).await
}

/// Listens to a process, or to the one stream that a session of 2024-11-05 is.
pub(super) async fn by_peer(peer: impl Holder, named: Named, patience: Patience) -> Opened {
    let (updates, over) = (peer.duplex().updates.subscribe(), peer.duplex().over.clone());
    listen(Told { updates, lost: Lost::Peer(over), named, begun: false, _held: peer }, patience).await
}

async fn listen<L: Send + 'static>(told: Told<L>, patience: Patience) -> Opened {
    drive::drive(told, patience, patience.first_byte, None).await
}

struct Told<L> {
    updates: broadcast::Receiver<Message>,
    lost: Lost,
    named: Named,
    begun: bool,
    /// The session or peer stays for as long as somebody listens.
    _held: L,
}

/// How it shows that nothing more is heard.
enum Lost {
    Stream(watch::Receiver<bool>),
    Peer(CancellationToken),
}

impl Lost {
    async fn lost(&mut self) {
        match self {
            // Another one may be open by now: something was missed in between all the same.
            Self::Stream(stream) => drop(stream.changed().await),
            Self::Peer(over) => over.cancelled().await,
        }
    }
}

impl<L: Send + 'static> Answers for Told<L> {
    async fn draw(&mut self) -> Signal {
        if !self.begun {
            self.begun = true;
            let agreed = serde_json::json!({ "notifications": { "taskIds": self.named.tasks } });
            let agreed = Message::notification("notifications/subscriptions/acknowledged", Some(&Json::of(&agreed)));
            return Signal::Event(Event::Notification(agreed));
        }
        loop {
            let heard = tokio::select! {
                biased;
                heard = self.updates.recv() => heard.ok(),
                () = self.lost.lost() => None,
            };
            let Some(message) = heard else {
                let failure = Failure::after(Reason::UpstreamClosed, "something that it told may have been missed");
                return Signal::Event(Event::Done(Outcome::Failed(failure)));
            };
            let (key, wanted) = match &*message.method() {
                "notifications/tasks" | meta::TASK_STATUS => ("taskId", &self.named.tasks),
                "notifications/progress" => (meta::PROGRESS_TOKEN, &self.named.tokens),
                _ => continue,
            };
            let named = message.params().and_then(|params| params.get(key)).and_then(Value::as_str);
            if named.is_some_and(|named| wanted.iter().any(|one| *one == *named)) {
                return Signal::Event(Event::Notification(message));
            }
        }
    }
}
