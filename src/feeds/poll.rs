//! Shared Signals, fetched (RFC 8936): asks, carries out, and then says what was taken.
//!
//! Decides when it asks. Invariants: an event is acknowledged after what it takes back is durable; one that could not be
//! carried out is neither acknowledged nor refused, so that it comes again. Several replicas may fetch the same event:
//! what it takes back is the same.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use http::{HeaderValue, Request, StatusCode};
use secrecy::ExposeSecret as _;
use serde::{Deserialize, Serialize};
use tokio_util::sync::CancellationToken;

use super::event::Taken;
use super::push::error;
use super::{Feeds, answer};
use crate::config::FeedConfig;
use crate::config::feed::PollConfig;
use crate::egress::{OauthClient, oauth_client};
use crate::ids::ServerId;
use crate::limit;
use crate::outcome::{Reason, Refusal, Stop};

/// What is asked.
#[derive(Debug, Serialize)]
struct Question<'a> {
    #[serde(rename = "maxEvents")]
    events_max: usize,
    #[serde(rename = "returnImmediately")]
    returns_at_once: bool,
    ack: &'a [String],
    #[serde(rename = "setErrs")]
    errors: &'a BTreeMap<String, SetError>,
}

/// Why an event was refused.
#[derive(Debug, Serialize)]
struct SetError {
    err: &'static str,
    description: String,
}

/// What is answered.
#[derive(Debug, Deserialize)]
struct Answer {
    #[serde(default)]
    sets: BTreeMap<String, String>,
}

/// What the transmitter has not been told yet.
#[derive(Debug, Default)]
struct Outcome {
    taken: Vec<String>,
    refused: BTreeMap<String, SetError>,
}

/// Whether there is a reason to ask again at once. A transmitter that forgets what it was told is asked like one that
/// has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum News {
    /// Something was taken that was not taken before.
    Taken,
    /// Something is refused that the transmitter was not told of.
    Refused,
    /// Nothing came that is new, or not all of it could be carried out.
    Nothing,
}

impl Feeds {
    /// Fetches events of every feed that says where, and lifts what is spent, until it is stopped.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        let mut running: Vec<(Arc<FeedConfig>, CancellationToken)> = Vec::new();
        let mut swept = tokio::time::Instant::now();
        loop {
            let config = self.brake.config();
            let wanted: Vec<_> = config.feeds.iter().filter(|feed| poll_of(feed).is_some()).cloned().collect();
            running.retain(|(feed, ended)| {
                let keeps = wanted.contains(feed);
                if !keeps {
                    ended.cancel();
                }
                keeps
            });
            for feed in wanted {
                if !running.iter().any(|(known, _)| *known == feed) {
                    let ended = stop.child_token();
                    running.push((Arc::clone(&feed), ended.clone()));
                    let own = Arc::clone(&self);
                    tokio::spawn(async move { ended.clone().run_until_cancelled(own.follow(feed)).await });
                }
            }
            if swept.elapsed() >= limit::FEED_SPENT_INTERVAL {
                swept = tokio::time::Instant::now();
                self.lift_spent().await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(limit::FEED_POLL_INTERVAL_MIN)).await.is_none() {
                return;
            }
        }
    }

    async fn follow(self: Arc<Self>, feed: Arc<FeedConfig>) {
        let Some(poll) = poll_of(&feed) else { return };
        let policy = self.brake.reachable(&feed);
        let client = match tokio::task::spawn_blocking(move || oauth_client(policy)).await {
            Ok(Ok(client)) => client,
            Ok(Err(error)) => return tracing::error!(%error, feed = %feed.name, "events cannot be fetched"),
            Err(error) => return tracing::error!(%error, feed = %feed.name, "events cannot be fetched"),
        };
        let (mut outcome, mut failures) = (Outcome::default(), 0_u32);
        loop {
            let pause = match self.ask(&client, &feed.name, poll, &outcome).await {
                Ok(answer) => {
                    failures = 0;
                    let (next, news) = self.take_all(&feed, answer, &outcome).await;
                    outcome = next;
                    match news {
                        News::Taken => Duration::ZERO,
                        News::Refused => limit::FEED_POLL_INTERVAL_MIN.min(poll.interval),
                        News::Nothing => poll.interval,
                    }
                }
                Err(problem) => {
                    failures = failures.saturating_add(1);
                    tracing::warn!(feed = %feed.name, problem, "events could not be fetched");
                    let doubled = poll.interval.saturating_mul(1_u32.checked_shl(failures - 1).unwrap_or(u32::MAX));
                    doubled.min(limit::FEED_POLL_RETRY_MAX).max(poll.interval)
                }
            };
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(
        &self,
        client: &OauthClient,
        feed: &ServerId,
        poll: &PollConfig,
        outcome: &Outcome,
    ) -> Result<Answer, String> {
        let token = self.secrets.get(&poll.token).await?;
        let mut bearer = HeaderValue::try_from(format!("Bearer {}", token.expose_secret()))
            .map_err(|_| "its token cannot stand in a header".to_owned())?;
        bearer.set_sensitive(true);
        let question = Question {
            events_max: limit::FEED_POLL_EVENTS_MAX,
            returns_at_once: true,
            ack: &outcome.taken,
            errors: &outcome.refused,
        };
        let body = serde_json::to_vec(&question).map_err(|error| error.to_string())?;
        let request = Request::post(poll.endpoint.as_str())
            .header(AUTHORIZATION, bearer)
            .header(CONTENT_TYPE, "application/json")
            .header(ACCEPT, "application/json")
            .body(body)
            .map_err(|error| error.to_string())?;
        let answer = client.send(request).await.map_err(|error| error.to_string())?;
        match answer.status() {
            StatusCode::OK => serde_json::from_slice(answer.body()).map_err(|error| format!("{feed}: {error}")),
            status => Err(format!("it answered {status}")),
        }
    }

    /// Takes what came; answers what is to be told, and whether there is anything new in that.
    async fn take_all(&self, feed: &FeedConfig, answer: Answer, before: &Outcome) -> (Outcome, News) {
        let (mut outcome, mut news) = (Outcome::default(), News::Nothing);
        let mut is_whole = true;
        // More than was asked for comes again, and so does what a feed may not send so fast.
        for (named, text) in answer.sets.into_iter().take(limit::FEED_POLL_EVENTS_MAX) {
            if self.rates.admit(feed).is_err() {
                is_whole = false;
                break;
            }
            let taken = self.take(feed, text.trim()).await;
            let refusal = match taken {
                Ok((taken, id)) if id == named => {
                    if taken == Taken::Now {
                        news = News::Taken;
                    }
                    outcome.taken.push(named);
                    continue;
                }
                Ok(_) => {
                    let hint = "it came under another `jti` than its own";
                    Refusal::new(Reason::FeedMessageInvalid).hint(hint).into()
                }
                Err(stop) => stop,
            };
            if matches!(&refusal, Stop::Failed(_)) || answer::status(&refusal).is_server_error() {
                is_whole = false;
                continue;
            }
            let told = SetError { err: error(refusal.reason()), description: answer::described(&refusal) };
            if news == News::Nothing && !before.refused.contains_key(&named) {
                news = News::Refused;
            }
            outcome.refused.insert(named, told);
        }
        (outcome, if is_whole { news } else { News::Nothing })
    }
}

fn poll_of(feed: &FeedConfig) -> Option<&PollConfig> {
    feed.events.as_ref()?.poll.as_ref()
}
