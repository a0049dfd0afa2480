//! Shared Signals, fetched: acknowledged once it is durable, refused where it cannot be believed.

use std::sync::{Arc, Mutex};

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;

use super::events::{claims, signed};
use super::*;

const REVOKED: &str = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";

/// A transmitter with an outbox, and with keys of its own.
pub(super) struct Transmitter {
    pub(super) issuer: Issuer,
    pub(super) endpoint: String,
    outbox: Arc<Mutex<Outbox>>,
}

#[derive(Default)]
struct Outbox {
    waiting: serde_json::Map<String, Value>,
    questions: Vec<Value>,
    is_away: bool,
    /// It takes no word of what was taken or refused.
    is_deaf: bool,
}

impl Transmitter {
    pub(super) async fn start() -> Self {
        let outbox = Arc::new(Mutex::new(Outbox::default()));
        let router = axum::Router::new().route("/poll", post(answer)).with_state(Arc::clone(&outbox));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}/poll", listener.local_addr().unwrap());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { issuer: Issuer::start().await, endpoint, outbox }
    }

    fn send(&self, id: &str, token: &str) {
        self.outbox.lock().unwrap().waiting.insert(id.to_owned(), json!(token));
    }

    fn is_empty(&self) -> bool {
        self.outbox.lock().unwrap().waiting.is_empty()
    }

    fn told(&self, what: &str) -> bool {
        self.outbox.lock().unwrap().questions.iter().any(|question| question.to_string().contains(what))
    }
}

/// RFC 8936: what was acknowledged or refused does not come again.
async fn answer(State(outbox): State<Arc<Mutex<Outbox>>>, headers: HeaderMap, Json(question): Json<Value>) -> Response {
    let mut outbox = outbox.lock().unwrap();
    if headers["authorization"] != format!("Bearer {SECRET}") {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    let told: Vec<String> = question["ack"]
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .chain(question["setErrs"].as_object().unwrap().keys().cloned())
        .collect();
    outbox.questions.push(question.clone());
    if outbox.is_away {
        return StatusCode::SERVICE_UNAVAILABLE.into_response();
    }
    for id in told.into_iter().filter(|_| !outbox.is_deaf).collect::<Vec<_>>() {
        outbox.waiting.remove(&id);
    }
    let max = usize::try_from(question["maxEvents"].as_u64().unwrap()).unwrap();
    let sets: serde_json::Map<_, _> = outbox.waiting.clone().into_iter().take(max).collect();
    Json(json!({ "moreAvailable": outbox.waiting.len() > sets.len(), "sets": sets })).into_response()
}

fn lines(transmitter: &Transmitter) -> String {
    format!(
        "[feeds.corp]\nissuer = \"test\"\n[feeds.corp.events]\naudiences = [\"https://gateway.example\"]\n\
         [feeds.corp.events.poll]\nendpoint = \"{}\"\ntoken = \"file:feed-secret\"\ninterval = \"1s\"\n",
        transmitter.endpoint
    )
}

#[tokio::test]
async fn an_event_is_fetched_carried_out_and_then_acknowledged() {
    let transmitter = Transmitter::start().await;
    let fed = Fed::start(&lines(&transmitter)).await;
    let (alice, bob) = (fed.person("alice"), fed.person("bob"));
    assert!(works(&alice).await);
    let event = claims(&fed, REVOKED, "alice");
    let id = event["jti"].as_str().unwrap().to_owned();
    transmitter.send(&id, &signed(&fed.issuer, &event));
    crate::support::eventually("the event to be acknowledged", async || transmitter.is_empty()).await;
    assert!(!works(&alice).await && works(&bob).await);
    assert!(transmitter.told(&id));
    assert_eq!(fed.ordered().len(), 1);
    // Nothing can be pushed there.
    assert_eq!(fed.post("/feeds/corp/events", &[bearer()], "x").await.status, 404);
}

#[tokio::test]
async fn what_cannot_be_believed_is_refused_in_its_words_and_the_rest_is_carried_out() {
    let transmitter = Transmitter::start().await;
    let fed = Fed::start(&lines(&transmitter)).await;
    let (alice, bob) = (fed.person("alice"), fed.person("bob"));
    let mut foreign = claims(&fed, REVOKED, "alice");
    foreign["sub_id"]["iss"] = json!("https://other.example");
    transmitter.send(foreign["jti"].as_str().unwrap(), &signed(&fed.issuer, &foreign));
    transmitter.send("not a token", "x.y.z");
    transmitter.send("forged", &signed(&transmitter.issuer, &claims(&fed, REVOKED, "alice")));
    let misnamed = claims(&fed, "https://vendor.example/event", "alice");
    transmitter.send("another name", &signed(&fed.issuer, &misnamed));
    let good = claims(&fed, REVOKED, "bob");
    transmitter.send(good["jti"].as_str().unwrap(), &signed(&fed.issuer, &good));
    crate::support::eventually("everything to be told", async || transmitter.is_empty()).await;
    for told in ["access_denied", "invalid_request", "invalid_key", "another `jti`"] {
        assert!(transmitter.told(told), "{told}");
    }
    assert!(works(&alice).await && !works(&bob).await);
    assert_eq!(fed.ordered().len(), 1);
}

#[tokio::test]
async fn more_than_fits_is_fetched_at_once_and_a_transmitter_that_is_away_is_asked_again() {
    let transmitter = Transmitter::start().await;
    transmitter.outbox.lock().unwrap().is_away = true;
    let fed = Fed::start(&lines(&transmitter)).await;
    crate::support::eventually("the first question", async || !transmitter.outbox.lock().unwrap().questions.is_empty())
        .await;
    let count = bailiwick::limit::FEED_POLL_EVENTS_MAX * 2 + 1;
    for number in 0..count {
        let event = claims(&fed, REVOKED, &format!("person-{number}"));
        transmitter.send(event["jti"].as_str().unwrap(), &signed(&fed.issuer, &event));
    }
    transmitter.outbox.lock().unwrap().is_away = false;
    crate::support::eventually("all to be taken", async || transmitter.is_empty()).await;
    assert_eq!(fed.ordered().len(), count);
}

#[tokio::test]
async fn a_transmitter_that_takes_no_word_of_it_is_asked_as_often_as_written_and_told_of_once() {
    let transmitter = Transmitter::start().await;
    transmitter.outbox.lock().unwrap().is_deaf = true;
    transmitter.send("forged", &signed(&transmitter.issuer, &json!({ "iss": "https://nobody.example" })));
    let fed = Fed::start(&lines(&transmitter)).await;
    let good = claims(&fed, REVOKED, "alice");
    transmitter.send(good["jti"].as_str().unwrap(), &signed(&fed.issuer, &good));
    crate::support::eventually("both to be told", async || transmitter.told("forged")).await;
    let before = transmitter.outbox.lock().unwrap().questions.len();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let asked = transmitter.outbox.lock().unwrap().questions.len() - before;
    assert!((1..=6).contains(&asked), "{asked}");
    let refused: Vec<Value> =
        fed.gateway.records("admin").into_iter().filter(|record| record["admin"]["outcome"] == "refused").collect();
    assert_eq!(refused.len(), 1, "{refused:?}");
    assert_eq!(fed.ordered().len(), 1);
}
