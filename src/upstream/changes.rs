//! Listening, with the gateway's own credential or that of whoever is listed for, for what an upstream says to nobody in particular.
//!
//! Decides which stream an upstream's changes come from. Knows nothing of who is interested.
//! Invariant: after a gap in listening every list counts as changed; nobody listens longer than the use of what was
//! presented for it.

use std::sync::Arc;
use std::time::Duration;

use super::Access;
use super::answer::Waiting;
use super::drive::Answers;
use super::errand::Errand;
use super::events::Events;
use super::exchange::Event;
use super::handover;
use super::health::Backoff;
use super::http::Http;
use super::legacy::{Conversation, Session};
use super::oldest::Talk;
use super::pool::Lease;
use super::presented::Presented;
use super::server::{Server, Wire};
use crate::limit;
use crate::outcome::Failure;
use crate::wire::mcp::Era;

/// How one round of listening ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Heard {
    /// There is nothing to listen to, as far as is known.
    Nothing,
    /// It listened, and the stream is over.
    UntilItsEnd,
}

impl Server {
    /// Listens for as long as the server is in service.
    pub(super) async fn keep_listening(self: Arc<Self>) {
        let closing = self.link.closing.clone();
        let listening = async {
            let mut backoff = Backoff::new();
            loop {
                let began = tokio::time::Instant::now();
                // Before anybody asked there is nothing that could change.
                let heard = match self.link.presentable() {
                    Some(access) => self.listen_while_usable(&access).await,
                    None => Ok(Heard::Nothing),
                };
                match heard {
                    Ok(Heard::Nothing) | Err(_) => {
                        // Something new is known when it answers again, or is asked with a new credential.
                        let _ = tokio::time::timeout(limit::CHANGE_STREAM_IDLE, self.link.found.notified()).await;
                    }
                    Ok(Heard::UntilItsEnd) => self.link.hub.all_lists_changed(),
                }
                if began.elapsed() > limit::RETRY_PAUSE_MAX {
                    backoff.reset();
                }
                tokio::time::sleep(backoff.pause().max(Duration::from_millis(100))).await;
            }
        };
        tokio::select! { () = closing.cancelled() => {}, () = listening => {} }
    }

    /// Listens once, and no longer than what is presented may be used.
    async fn listen_while_usable(self: &Arc<Self>, access: &Access) -> Result<Heard, Failure> {
        let Some(credential) = &access.credential else { return self.listen(access).await };
        tokio::select! {
            heard = self.listen(access) => heard,
            () = credential.used_up() => {
                if let Wire::Http(http) = &self.wire {
                    end_opened(http, access);
                }
                Ok(Heard::UntilItsEnd)
            }
        }
    }

    /// Listens once, with what is presented here.
    pub(super) async fn listen(self: &Arc<Self>, access: &Access) -> Result<Heard, Failure> {
        // Nobody's process is started only to be listened to.
        if let Wire::Stdio(stdio) = &self.wire
            && handover::way(&self.link.config).is_some()
            && !stdio.lives(access)
        {
            return Ok(Heard::Nothing);
        }
        let facts = self.facts_quietly(access).await?;
        let announced = ["tools", "prompts", "resources"].iter().any(|kind| facts.announces(kind, Some("listChanged")));
        if !announced {
            return Ok(Heard::Nothing);
        }
        match (&self.wire, facts.era()) {
            (Wire::Http(http), Era::Legacy) => match http.talk(access, http.home(access)).await? {
                Talk::Session(session) => legacy_stream(http, session, access).await,
                Talk::Stream(stream) => {
                    // As with a process: the lease keeps the stream open.
                    stream.duplex.over.cancelled().await;
                    Ok(Heard::UntilItsEnd)
                }
            },
            (Wire::Stdio(stdio), Era::Legacy) => {
                // What it says is told when it is read; the lease keeps the process alive to say it.
                let running = stdio.process(access).await?;
                let running = if running.hand.is_some() { running.standing_by() } else { running };
                running.process.over.cancelled().await;
                Ok(Heard::UntilItsEnd)
            }
            (Wire::Unusable(_), _) => Ok(Heard::Nothing),
            (_, Era::Modern) => {
                let mut exchange = self.exchange(Errand::listen().parcel(access));
                let mut heard = false;
                // Changes were told to everyone when they were heard; here only the end matters.
                while let Event::Notification(_) = exchange.next().await {
                    heard = true;
                }
                Ok(if heard { Heard::UntilItsEnd } else { Heard::Nothing })
            }
        }
    }
}

/// Ends what was opened with that credential: where nothing is under way in it any more. The next one has its own.
fn end_opened(http: &Arc<Http>, access: &Access) {
    let key = http.key(access, http.home(access));
    if let Some(stream) = http.streams.held(&key)
        && let Some(place) = http.streams.remove(&key, &stream)
    {
        tokio::spawn(async move {
            place.idle().await;
            stream.end().await;
        });
    }
    if let Some(session) = http.sessions.held(&key)
        && let Some(place) = http.sessions.remove(&key, &session)
    {
        let http = Arc::clone(http);
        tokio::spawn(async move {
            place.idle().await;
            http.end(&session).await;
        });
    }
}

/// The GET stream of the gateway's own session.
async fn legacy_stream(http: &Arc<Http>, session: Lease<Session>, access: &Access) -> Result<Heard, Failure> {
    let shared = Arc::clone(session.shared());
    // Whoever reads it meanwhile tells everyone of changes; that it is still the session in use is looked at again.
    let Ok(_turn) = tokio::time::timeout(limit::CHANGE_STREAM_IDLE, shared.stream_turn.lock()).await else {
        return Ok(Heard::UntilItsEnd);
    };
    let conversation = Conversation::new(http, session, Presented::new(access.clone()));
    let Some(body) = conversation.stream(None).await? else { return Ok(Heard::Nothing) };
    let waiting = Waiting { updates: Some(shared.updates.clone()), ..Waiting::for_nothing(&http.link.hub) };
    let mut events = Events::legacy(body, waiting, None, conversation, None);
    while let Ok(Event::Notification(_)) = tokio::time::timeout(limit::CHANGE_STREAM_IDLE, events.next()).await {}
    Ok(Heard::UntilItsEnd)
}
