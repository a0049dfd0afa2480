//! The stream of a legacy session that belongs to no call: what is heard for it, whether it is being read or not.
//!
//! Decides how long a session is heard for that nobody reads. Knows nothing of what is heard. Invariant: one session
//! has one mailbox, and it hears with the rights of whoever opened it last.

use std::collections::{BTreeSet, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, mpsc, oneshot};
use tokio_util::sync::CancellationToken;

use super::pipeline::Pipeline;
use super::session::{Session, SessionKey};
use super::track::{Track, Tracks};
use crate::call::{ClientFacts, Endpoint};
use crate::ids::Digest;
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, Stop};
use crate::watch::{Interest, Watched};

/// Every mailbox of this process.
pub(super) struct Mailboxes<P: Pipeline> {
    open: Mutex<HashMap<SessionKey, Arc<Mailbox<P>>>>,
}

impl<P: Pipeline> Default for Mailboxes<P> {
    fn default() -> Self {
        Self { open: Mutex::default() }
    }
}

/// What is heard for one session.
pub(super) struct Mailbox<P: Pipeline> {
    pub(super) track: Arc<Track>,
    commands: mpsc::Sender<Command<P>>,
    /// What its opener came with.
    credential: Mutex<Digest>,
    readers: AtomicUsize,
    /// A reader has come or gone.
    moved: Notify,
    ended: CancellationToken,
    /// The resources that the session has subscribed to.
    uris: Mutex<BTreeSet<String>>,
}

enum Command<P: Pipeline> {
    /// Hear with these rights from now on.
    Renew(P::Caller),
    Subscribe(String, oneshot::Sender<Outcome>),
    Unsubscribe(String),
    FollowTask(String),
}

/// Somebody reads; dropping it says that they went.
pub(super) struct Attendance<P: Pipeline>(Arc<Mailbox<P>>);

impl<P: Pipeline> Mailboxes<P> {
    /// The mailbox of a session; one that hears no more is followed by another one, which hears of the same.
    pub(super) async fn open(
        self: &Arc<Self>,
        pipeline: &Arc<P>,
        tracks: &Tracks,
        caller: &P::Caller,
        endpoint: &Endpoint,
        session: (&Session, &ClientFacts),
    ) -> Result<Arc<Mailbox<P>>, Stop> {
        let (session, client) = session;
        let older = self.lock().get(&session.key).cloned();
        if let Some(mailbox) = older.as_ref().filter(|mailbox| !mailbox.ended.is_cancelled()) {
            mailbox.renew(caller).await;
            return Ok(Arc::clone(mailbox));
        }
        let uris = older.as_ref().map(|mailbox| mailbox.uris().clone()).unwrap_or_default();
        let updates = uris.iter().cloned().collect();
        let interest = Interest { tools: true, prompts: true, resources: true, updates, tasks: Vec::new() };
        let watch = pipeline.watch(caller, endpoint, client, interest).await?;
        let (commands, orders) = mpsc::channel(limit::SESSION_CALLS_MAX);
        let mailbox = Arc::new(Mailbox {
            track: older.map_or_else(|| tracks.of_session(P::principal(caller)), |older| Arc::clone(&older.track)),
            commands,
            credential: Mutex::new(P::credential(caller)),
            readers: AtomicUsize::new(0),
            moved: Notify::new(),
            ended: CancellationToken::new(),
            uris: Mutex::new(uris),
        });
        mailbox.track.begin();
        if let Some(other) = self.put(session.key, &mailbox) {
            other.renew(caller).await;
            return Ok(other);
        }
        let (mailboxes, key) = (Arc::clone(self), session.key);
        let hearing = Arc::clone(&mailbox);
        tokio::spawn(async move {
            hear::<P>(&hearing, watch, orders).await;
            mailboxes.closed(key, &hearing);
        });
        Ok(mailbox)
    }

    /// Makes this the mailbox of a session, unless somebody else was as quick: then theirs is.
    fn put(&self, key: SessionKey, mailbox: &Arc<Mailbox<P>>) -> Option<Arc<Mailbox<P>>> {
        let mut open = self.lock();
        let other = open.get(&key).filter(|other| !other.ended.is_cancelled()).cloned();
        if other.is_none() {
            open.insert(key, Arc::clone(mailbox));
        }
        other
    }

    /// The mailbox of a session that has one.
    pub(super) fn find(&self, key: SessionKey) -> Option<Arc<Mailbox<P>>> {
        self.lock().get(&key).filter(|mailbox| !mailbox.ended.is_cancelled()).cloned()
    }

    /// The same, also where it hears no more and is remembered.
    pub(super) fn remembered(&self, key: SessionKey) -> Option<Arc<Mailbox<P>>> {
        self.lock().get(&key).cloned()
    }

    /// Whether it is still known what a session wants to hear of.
    pub(super) fn knows(&self, key: SessionKey) -> bool {
        self.lock().contains_key(&key)
    }

    /// The session is over.
    pub(super) fn end(&self, key: SessionKey) {
        if let Some(mailbox) = self.lock().remove(&key) {
            mailbox.ended.cancel();
        }
    }

    /// A mailbox hears no more. What its session wants to hear of is remembered while its stream may come back.
    fn closed(self: &Arc<Self>, key: SessionKey, mailbox: &Arc<Mailbox<P>>) {
        mailbox.ended.cancel();
        mailbox.track.finish();
        let (mailboxes, mailbox) = (Arc::clone(self), Arc::downgrade(mailbox));
        tokio::spawn(async move {
            tokio::time::sleep(limit::TRACK_IDLE_MAX).await;
            let mut open = mailboxes.lock();
            if open.get(&key).is_some_and(|held| std::ptr::eq(Arc::as_ptr(held), mailbox.as_ptr())) {
                open.remove(&key);
            }
        });
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SessionKey, Arc<Mailbox<P>>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Pipeline> Mailbox<P> {
    /// Whoever opens it says with which rights it hears: a token that was presented later says more of them.
    async fn renew(&self, caller: &P::Caller) {
        let credential = P::credential(caller);
        let older = std::mem::replace(&mut *self.credential.lock().unwrap_or_else(PoisonError::into_inner), credential);
        if older != credential {
            // An error says that nothing is heard any more.
            let _ = self.commands.send(Command::Renew(caller.clone())).await;
        }
    }

    /// Says that somebody reads.
    pub(super) fn attend(self: &Arc<Self>) -> Attendance<P> {
        self.readers.fetch_add(1, Ordering::AcqRel);
        self.moved.notify_one();
        Attendance(Arc::clone(self))
    }

    /// Hears of a resource from now on.
    pub(super) async fn subscribe(&self, uri: String) -> Outcome {
        let (answer, answered) = oneshot::channel();
        let gone = || Outcome::Failed(Failure::before(Reason::Cancelled, "the session's stream ended"));
        if self.commands.send(Command::Subscribe(uri.clone(), answer)).await.is_err() {
            return gone();
        }
        let outcome = answered.await.unwrap_or_else(|_| gone());
        if matches!(outcome, Outcome::Complete(_)) {
            self.uris().insert(uri);
        }
        outcome
    }

    /// Hears of a resource no more.
    pub(super) async fn unsubscribe(&self, uri: String) {
        self.uris().remove(&uri);
        // An error says that nothing is heard any more.
        let _ = self.commands.send(Command::Unsubscribe(uri)).await;
    }

    /// Tells whether the session is subscribed to anything, at this moment: nothing changes that meanwhile.
    pub(super) fn settle(&self, told: impl FnOnce(bool)) {
        let uris = self.uris();
        told(!uris.is_empty());
    }

    /// Hears of a task that the session's client follows from now on; where that cannot be, it is not told of it.
    pub(super) fn follow_task(&self, id: String) {
        let _ = self.commands.try_send(Command::FollowTask(id));
    }

    fn uris(&self) -> MutexGuard<'_, BTreeSet<String>> {
        self.uris.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<P: Pipeline> Drop for Attendance<P> {
    fn drop(&mut self) {
        self.0.readers.fetch_sub(1, Ordering::AcqRel);
        self.0.moved.notify_one();
    }
}

/// Hears for a session until nobody has read for long, its rights are gone, or it ends.
async fn hear<P: Pipeline>(mailbox: &Mailbox<P>, mut watch: P::Watch, mut orders: mpsc::Receiver<Command<P>>) {
    // Who has subscribed to nothing must not hold one of its principal's few streams for long.
    let patience = || if mailbox.uris().is_empty() { limit::STREAM_KEEP_ALIVE } else { limit::MAILBOX_UNREAD_MAX };
    let unread = tokio::time::sleep(patience());
    tokio::pin!(unread);
    loop {
        tokio::select! {
            () = mailbox.ended.cancelled() => return,
            () = mailbox.moved.notified() => {
                unread.as_mut().reset(tokio::time::Instant::now() + patience());
            }
            () = &mut unread, if mailbox.readers.load(Ordering::Acquire) == 0 => return,
            order = orders.recv() => match order {
                Some(Command::Renew(caller)) => P::renew(&mut watch, caller).await,
                Some(Command::Subscribe(uri, answer)) => {
                    unread.as_mut().reset(tokio::time::Instant::now() + limit::MAILBOX_UNREAD_MAX);
                    let subscribing = P::subscribe(&mut watch, uri);
                    // Upstreams take their time, and others are heard meanwhile.
                    tokio::spawn(async move {
                        let _ = answer.send(subscribing.await);
                    });
                }
                Some(Command::Unsubscribe(uri)) => P::unsubscribe(&mut watch, &uri),
                Some(Command::FollowTask(id)) => P::follow_task(&mut watch, id),
                None => return,
            },
            watched = P::next_watched(&mut watch) => match watched {
                Watched::Notification(message) => mailbox.track.say(&message),
                Watched::Ended(_) => return,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::Instant;

    use super::*;
    use crate::front::fixture::Scripted;
    use crate::front::session::Sessions;
    use crate::ids::{PrincipalKey, ReplicaId};
    use crate::wire::Json;
    use crate::wire::handle::Sealer;
    use crate::wire::mcp::Version;

    /// A session's mailbox, and the other end of what it hears.
    async fn opened() -> (Arc<Mailboxes<Scripted>>, SessionKey, Arc<Mailbox<Scripted>>, mpsc::UnboundedSender<Watched>)
    {
        let sessions = Arc::new(Sessions::new(Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap()), ReplicaId::new()));
        let capabilities = Json::of(&serde_json::json!({}));
        let client = ClientFacts { version: Version::V2025_11_25, capabilities, info: None, log_level: None };
        let (endpoint, principal) = (Endpoint::Merged, PrincipalKey(Digest::of("test", &[b"ann"])));
        let id = sessions.begin(&principal.into(), &endpoint, &client).unwrap();
        let session = sessions.open(principal, &endpoint, &id, None).unwrap();
        let (say, heard) = mpsc::unbounded_channel();
        let pipeline = Arc::new(Scripted::new([]));
        *pipeline.watched.lock().unwrap() = Some(heard);
        let mailboxes = Arc::<Mailboxes<Scripted>>::default();
        let (caller, session) = ("ann".to_owned(), (&session, &client));
        let mailbox = mailboxes.open(&pipeline, &Tracks::new(), &caller, &endpoint, session).await.unwrap();
        (mailboxes, session.0.key, mailbox, say)
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_nobody_reads_is_heard_for_so_long_and_its_wishes_are_forgotten_later() {
        let (mailboxes, key, mailbox, _say) = opened().await;
        assert!(matches!(mailbox.subscribe("test://a".to_owned()).await, Outcome::Complete(_)));
        let began = Instant::now();
        mailbox.ended.cancelled().await;
        let near = |took: std::time::Duration, max| took >= max && took < max + std::time::Duration::from_secs(1);
        assert!(near(began.elapsed(), limit::MAILBOX_UNREAD_MAX), "{:?}", began.elapsed());
        assert!(mailboxes.find(key).is_none());
        let held = || mailboxes.lock().contains_key(&key);
        drop(mailbox);
        let began = Instant::now();
        tokio::task::yield_now().await;
        tokio::time::sleep(limit::TRACK_IDLE_MAX - std::time::Duration::from_millis(500)).await;
        assert!(held(), "whoever comes back still wants to hear of the same");
        while held() {
            tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        }
        assert!(near(began.elapsed(), limit::TRACK_IDLE_MAX), "{:?}", began.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn a_session_that_is_read_is_heard_for_as_long_as_it_is() {
        let (_mailboxes, _key, mailbox, _say) = opened().await;
        let reading = mailbox.attend();
        tokio::time::sleep(3 * limit::MAILBOX_UNREAD_MAX).await;
        assert!(!mailbox.ended.is_cancelled());
        let began = Instant::now();
        drop(reading);
        mailbox.ended.cancelled().await;
        // It has subscribed to nothing.
        assert!(began.elapsed() >= limit::STREAM_KEEP_ALIVE && began.elapsed() < 2 * limit::STREAM_KEEP_ALIVE);
    }
}
