//! `GET /logs`: the record as it is written, as server-sent events.
//!
//! Decides which records are told and for how long. Invariants: nothing is read ahead of a reader who does not read;
//! the stream ends when its reader may not look any more, when their token does, and when the gateway stops.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::response::Response;
use futures_util::stream;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue};
use tokio::sync::{Semaphore, SemaphorePermit};
use tokio::time::Instant;

use super::actor::Actor;
use super::desk::{Done, Order, Understood};
use super::operations::Operations;
use crate::front::leash;
use crate::identity::{Caller, now_s};
use crate::limit;
use crate::outcome::{Failure, Reason, Refusal, Stop};
use crate::policy::{AdminOperation, Weight};
use crate::record::filter::Filter;
use crate::record::tail::Tail;

/// The comment between what was there and what comes.
pub const LIVE: &str = ": live";

/// Tails that may be open at once in this process.
static PLACES: Semaphore = Semaphore::const_new(limit::ADMIN_LOG_STREAMS_MAX);

/// What is asked for.
#[derive(Debug, Default, PartialEq, Eq)]
struct Asked {
    filter: Filter,
    lines: usize,
    follow: bool,
}

/// A tail that is being read.
struct Open {
    tail: Option<Tail>,
    lines: VecDeque<String>,
    follow: bool,
    /// What it begins with has been told.
    live: bool,
    quiet_since: Instant,
    reader: Reader,
    _place: SemaphorePermit<'static>,
}

/// Whether somebody may still read.
#[derive(Clone)]
struct Reader {
    operations: Arc<dyn Operations>,
    actor: Actor,
}

/// Understands the order.
pub(super) fn logs(order: Order) -> Result<Understood, Refusal> {
    let asked = Asked::read(&order.query)?;
    let about = order.query.clone();
    let Some(directory) = order.operations.journal() else {
        return Err(Refusal::new(Reason::TargetUnknown).hint("there is no journal here"));
    };
    let reader = Reader { operations: order.operations, actor: order.actor };
    let act = async move {
        let place = PLACES.try_acquire().map_err(|_| Refusal::new(Reason::StreamsLimited))?;
        let (tail, lines) = begin(directory, asked.filter, asked.lines).await?;
        let open = Open {
            tail: Some(tail),
            lines,
            follow: asked.follow,
            live: false,
            quiet_since: Instant::now(),
            reader: reader.clone(),
            _place: place,
        };
        let events = stream::unfold(Some(open), |open| async move { open?.next().await });
        let mut response = Response::new(Body::from_stream(events));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
        // Whoever stops reading is cut all the same once they may not.
        Ok(Done::with(leash(response, || reader.fallen())))
    };
    Ok(Understood { weight: Weight::Look, about, act: Box::pin(act) })
}

async fn begin(directory: PathBuf, filter: Filter, lines: usize) -> Result<(Tail, VecDeque<String>), Stop> {
    let begun = tokio::task::spawn_blocking(move || {
        Tail::begin(&directory, filter, lines, limit::ADMIN_LOG_OPEN_CALLS_MAX).map_err(|error| error.to_string())
    });
    let begun = begun.await.unwrap_or_else(|error| Err(error.to_string()));
    begun.map_err(|problem| Failure::before(Reason::RecordUnavailable, problem).into())
}

impl Open {
    /// The next bytes, and what comes after them.
    async fn next(mut self) -> Option<(Result<String, Infallible>, Option<Self>)> {
        loop {
            if let Err(reason) = self.reader.may() {
                return Some((Ok(format!("event: end\ndata: {{\"reason\":\"{reason}\"}}\n\n")), None));
            }
            if !self.lines.is_empty() {
                let events = self.lines.drain(..).map(|line| format!("data: {line}\n\n")).collect();
                self.quiet_since = Instant::now();
                return Some((Ok(events), Some(self)));
            }
            if !self.follow {
                return None;
            }
            if !self.live {
                self.live = true;
                return Some((Ok(format!("{LIVE}\n\n")), Some(self)));
            }
            if self.quiet_since.elapsed() >= limit::ADMIN_LOG_KEEPALIVE {
                self.quiet_since = Instant::now();
                return Some((Ok(": nothing new\n\n".to_owned()), Some(self)));
            }
            tokio::time::sleep(limit::LOGS_POLL_INTERVAL).await;
            let mut tail = self.tail.take()?;
            let read = tokio::task::spawn_blocking(move || tail.more().map(|lines| (tail, lines))).await;
            let Ok(Ok((tail, lines))) = read else {
                tracing::warn!("a tail of the record ends because its files cannot be read");
                return None;
            };
            self.tail = Some(tail);
            self.lines.extend(lines);
        }
    }
}

impl Reader {
    /// Whether they may still look.
    fn may(&self) -> Result<(), Reason> {
        if self.operations.stopping().is_cancelled() {
            return Err(Reason::ShuttingDown);
        }
        if self.actor.of_token().is_some_and(|caller| now_s() >= self.ends_at(caller)) {
            return Err(Reason::TokenExpired);
        }
        self.actor.may(self.operations.as_ref(), AdminOperation::Logs).map(|_| ()).map_err(|refusal| refusal.reason)
    }

    /// When their token is refused: whoever is let in until then is not cut off before.
    fn ends_at(&self, caller: &Caller) -> i64 {
        let config = self.operations.config();
        let issuers = config.iter().flat_map(|config| &config.issuers);
        let leeway = issuers.filter(|issuer| issuer.alias == caller.token().issuer).map(|issuer| issuer.leeway);
        let leeway = leeway.max().and_then(|leeway| i64::try_from(leeway.as_secs()).ok()).unwrap_or_default();
        caller.token().expires_at.saturating_add(leeway)
    }

    async fn fallen(self) {
        let stopping = self.operations.stopping();
        while self.may().is_ok() {
            tokio::select! {
                () = stopping.cancelled() => return,
                () = tokio::time::sleep(limit::STREAM_FAREWELL) => {}
            }
        }
    }
}

impl Asked {
    fn read(query: &str) -> Result<Self, Refusal> {
        let invalid = |hint: String| Refusal::new(Reason::ParametersInvalid).hint(hint);
        let mut asked = Self { lines: 20, follow: true, ..Self::default() };
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let text = Some(value.clone().into_owned());
            let Filter { subject, agent, server, tool, decision, reason, since, grep } = &mut asked.filter;
            match &*name {
                "subject" => *subject = text,
                "agent" => *agent = text,
                "server" => *server = text,
                "tool" => *tool = text,
                "grep" => *grep = text,
                "reason" if Reason::from_code(&value).is_some() => *reason = text,
                "decision" if ["allow", "deny", "fail"].contains(&&*value) => *decision = text,
                "since" => {
                    let at =
                        value.parse().map_err(|_| invalid("since is a moment: 2026-12-24T23:00:00Z".to_owned()))?;
                    *since = Some(at);
                }
                "lines" => {
                    let lines_max = limit::ADMIN_LOG_LINES_MAX;
                    let lines = value.parse().ok().filter(|lines| *lines <= lines_max);
                    asked.lines = lines.ok_or_else(|| invalid(format!("lines is a number up to {lines_max}")))?;
                }
                "follow" if ["true", "false"].contains(&&*value) => asked.follow = &*value == "true",
                "reason" | "decision" | "follow" => return Err(invalid(format!("`{value}` is no {name}"))),
                _ => return Err(invalid(format!("`{name}` is no parameter of this; openapi.json has them all"))),
            }
        }
        Ok(asked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_of_a_tail_is_spelled_and_bounded() {
        let most = limit::ADMIN_LOG_LINES_MAX;
        let query = format!("subject=user%3Acorp%2Fann&decision=deny&lines={most}&follow=false&reason=not_allowed");
        let asked = Asked::read(&query).unwrap();
        assert_eq!(asked.filter.subject.as_deref(), Some("user:corp/ann"));
        assert_eq!((asked.lines, asked.follow), (most, false));
        let wrong = format!("lines={}", most + 1);
        for wrong in [&wrong, "lines=-1", "lines=x", "decision=maybe", "reason=x", "follow=yes", "since=now", "x=1"] {
            assert_eq!(Asked::read(wrong).unwrap_err().reason, Reason::ParametersInvalid, "{wrong}");
        }
    }
}
