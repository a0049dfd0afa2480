//! Decides what news of an identity provider take back: logouts, security events, people who left.
//!
//! Refuses to know how a revocation is carried out: that is [`Brake`]'s. Invariants: nothing is taken back for a message
//! whose sender has not proven that it may send it; a feed only brakes, and only people of its own issuer; a message
//! is acknowledged after what it takes back is durable, and the same message takes nothing back twice.

use std::net::IpAddr;
use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::BodyExt as _;

mod answer;
mod event;
mod logout;
mod order;
mod poll;
mod push;
mod rate;
mod scim;
mod secret;
mod spent;
mod subject;
mod taken;

use crate::config::fresh::FreshSecrets;
use crate::config::{Config, FeedConfig};
use crate::egress::EgressPolicy;
use crate::identity::revoked::{Held, Revocation, RevocationTarget};
use crate::identity::statement::{Statement, StatementKind};
use crate::ids::{Digest, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::record::event::AdminNote;

/// What the gateway does for feeds.
pub trait Brake: Send + Sync + 'static {
    /// The configuration in force.
    fn config(&self) -> Arc<Config>;
    /// The store's clock: seconds since 1970.
    fn now_s(&self) -> BoxFuture<'_, Result<i64, Failure>>;
    /// Takes access back: durable and in force when it returns, and on the record where that can be written.
    fn revoke(&self, revocation: Revocation) -> BoxFuture<'_, Result<RevocationEpoch, Failure>>;
    /// Takes back what somebody who has left keeps here, whatever was revoked of them: accounts that they linked.
    fn left<'a>(&'a self, target: &'a RevocationTarget, actor: &'a str) -> BoxFuture<'a, Result<(), Failure>>;
    /// That this owner is still there: what they answer for is attested by it, where that is not too late.
    fn confirmed<'a>(&'a self, owner: &'a str, actor: &'a str) -> BoxFuture<'a, Result<(), Stop>>;
    /// Whether what this owner answers for is stopped.
    fn is_stopped(&self, owner: &str) -> bool;
    /// All revocations that hold.
    fn revocations(&self) -> BoxFuture<'_, Result<Vec<Held>, Failure>>;
    /// Lifts those that refuse nothing any more.
    fn lift_spent<'a>(&'a self, spent: &'a [Held]) -> BoxFuture<'a, Result<(), Failure>>;
    /// What a token of that feed says, where it may be believed; nobody is asked for keys where that may not be.
    fn statement<'a>(
        &'a self,
        feed: &'a FeedConfig,
        kind: StatementKind,
        text: &'a str,
        may_fetch: bool,
    ) -> BoxFuture<'a, Result<Statement, Stop>>;
    /// The exact `iss` of the feed's issuer.
    fn issuer_of(&self, feed: &FeedConfig) -> Option<String>;
    /// Where events may be fetched.
    fn reachable(&self, feed: &FeedConfig) -> EgressPolicy;
    /// Counts a message of somebody who has not proven that they may send it.
    fn knocked(&self, reason: Reason, peer: IpAddr);
    /// Records and counts what a feed said that took nothing back.
    fn noted<'a>(&'a self, note: &'a AdminNote<'a>) -> BoxFuture<'a, Result<(), Failure>>;
}

/// The room.
pub struct Feeds {
    brake: Arc<dyn Brake>,
    secrets: FreshSecrets,
    rates: rate::Rates,
    logouts: taken::Taken,
    events: taken::Taken,
    /// Fetched messages that were refused and are on the record.
    refused: moka::sync::Cache<Digest, ()>,
}

/// One request that came over a feed.
struct Message<'a> {
    feed: &'a FeedConfig,
    method: Method,
    /// What follows the feed's name and the kind, without a slash at its ends.
    rest: &'a str,
    query: &'a str,
    headers: &'a HeaderMap,
    body: Bytes,
    peer: IpAddr,
}

impl Feeds {
    /// The room, with the gateway behind it.
    #[must_use]
    pub fn new(brake: Arc<dyn Brake>) -> Arc<Self> {
        Arc::new(Self {
            brake,
            secrets: FreshSecrets::default(),
            rates: rate::Rates::default(),
            logouts: taken::Taken::new(limit::LOGOUT_AGE_MAX),
            events: taken::Taken::new(limit::EVENT_AGE_MAX),
            refused: moka::sync::Cache::new(limit::FEED_IDS_MAX as u64),
        })
    }

    /// Answers what came to `/feeds/{path}`.
    pub async fn answer<B>(&self, path: &str, request: Request<B>, peer: IpAddr) -> Response<Bytes>
    where
        B: http_body::Body<Data = Bytes> + Send + Unpin,
    {
        let config = self.brake.config();
        let mut parts = path.splitn(3, '/');
        let (name, kind, rest) =
            (parts.next().unwrap_or_default(), parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let Some(feed) = config.feeds.iter().find(|feed| feed.name.as_str() == name) else { return answer::absent() };
        let is_there = match kind {
            "logout" => feed.logout.is_some() && rest.is_empty(),
            "events" => feed.events.as_ref().is_some_and(|events| events.secret.is_some()) && rest.is_empty(),
            "scim" => feed.scim.is_some(),
            _ => false,
        };
        if !is_there {
            return answer::absent();
        }
        if kind != "scim" && request.method() != Method::POST {
            return answer::post_only();
        }
        let (head, body) = request.into_parts();
        // Before a byte of the body is read, where a secret says who sends it: whoever has it guesses nothing, wherever
        // others do that from the same address.
        let admitted = match kind {
            "logout" => Ok(()),
            _ => self.admitted(feed, kind, &head.headers).await,
        };
        if let Err(stop) = admitted {
            if self.rates.is_knocking(feed, peer) {
                return answer::slow_down();
            }
            return self.unproven(feed, &stop, peer);
        }
        let body = match read(body).await {
            Ok(body) => body,
            Err(refusal) => return answer::plain(&refusal.into()),
        };
        let query = head.uri.query().unwrap_or_default();
        let rest = rest.trim_matches('/');
        let message = Message { feed, method: head.method, rest, query, headers: &head.headers, body, peer };
        match kind {
            "logout" => self.logged_out(&message).await,
            "events" => self.pushed(&message).await,
            _ => self.scim(&message).await,
        }
    }

    /// Whether the secret of the feed came with the request, and the feed is not in a hurry.
    async fn admitted(&self, feed: &FeedConfig, kind: &str, headers: &HeaderMap) -> Result<(), Stop> {
        let reference = match kind {
            "events" => feed.events.as_ref().and_then(|events| events.secret.as_ref()),
            _ => feed.scim.as_ref().map(|scim| &scim.secret),
        };
        let reference = reference.ok_or_else(|| Refusal::new(Reason::FeedRefused))?;
        self.check_secret(reference, headers).await?;
        self.rates.admit(feed)?;
        Ok(())
    }

    /// An answer to somebody who has not proven that they may send this.
    fn unproven(&self, feed: &FeedConfig, stop: &Stop, peer: IpAddr) -> Response<Bytes> {
        self.knocked(feed, stop, peer);
        answer::plain(stop)
    }

    /// Counts somebody who has not proven that they may send this.
    fn knocked(&self, feed: &FeedConfig, stop: &Stop, peer: IpAddr) {
        // Our own trouble, or that of the issuer, is nobody's guess.
        if matches!(stop, Stop::Refused(refusal) if refusal.reason != Reason::RateLimited) {
            self.rates.knocked(feed, peer);
        }
        self.brake.knocked(stop.reason(), peer);
    }

    /// Puts on the record that a message of a feed took nothing back, and why; it is told, whether that works or not.
    async fn note(&self, feed: &FeedConfig, about: &str, stop: Option<&Stop>, detail: &str) {
        let hint = match stop {
            Some(Stop::Refused(refusal)) => refusal.hint.to_string(),
            Some(Stop::Failed(failure)) => failure.detail.clone(),
            None => detail.to_owned(),
        };
        let note = AdminNote {
            operation: "feed",
            object: "bailiwick/feeds",
            actor: &order::actor(feed),
            actor_kind: "feed",
            brakes: false,
            client: None,
            outcome: match stop {
                None => "ignored",
                Some(Stop::Refused(_)) => "refused",
                Some(Stop::Failed(_)) => "failed",
            },
            reason: stop.map(Stop::reason),
            rule: None,
            about,
            detail: &hint,
        };
        if let Err(failure) = self.brake.noted(&note).await {
            tracing::error!(%failure, feed = %feed.name, "what a feed said is not on the record");
        }
    }
}

/// The whole body, bounded in bytes and time.
async fn read<B>(mut body: B) -> Result<Bytes, Refusal>
where
    B: http_body::Body<Data = Bytes> + Send + Unpin,
{
    let collect = async {
        let mut bytes = Vec::new();
        while let Some(frame) = body.frame().await {
            let Ok(frame) = frame else {
                return Err(Refusal::new(Reason::RequestInvalid).hint("the body ended too early"));
            };
            let Ok(data) = frame.into_data() else { continue };
            if bytes.len() + data.len() > limit::FEED_BODY_BYTES_MAX {
                return Err(Refusal::new(Reason::BodyTooLarge));
            }
            bytes.extend_from_slice(&data);
        }
        Ok(Bytes::from(bytes))
    };
    match tokio::time::timeout(limit::BODY_READ_TIMEOUT, collect).await {
        Ok(read) => read,
        Err(_) => Err(Refusal::new(Reason::RequestInvalid).hint("the body did not arrive in time")),
    }
}

#[cfg(test)]
mod tests;
