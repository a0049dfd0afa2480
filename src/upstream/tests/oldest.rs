//! Upstreams that speak HTTP+SSE of 2024-11-05 and nothing newer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::mpsc;

use super::*;
use crate::wire::mcp::{Kind, Version};

/// The way down to one session; a test says what goes there.
#[derive(Clone)]
struct Down {
    session: usize,
    events: mpsc::UnboundedSender<Option<String>>,
}

impl Down {
    fn say(&self, message: Value) {
        let _ = self.events.send(Some(format!("event: message\ndata: {message}\n\n")));
    }

    fn answer(&self, seen: &Seen, result: Value) {
        self.say(json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": result }));
    }

    /// Breaks the stream.
    fn hang_up(&self) {
        let _ = self.events.send(None);
    }
}

/// A server whose stream names this endpoint, where `{}` is the session, and which does this once it is greeted.
/// Messages are answered with the status that a test says, and not at all where that is 0.
async fn naming<F>(endpoint: &'static str, greeted: fn(&Down), answer: F) -> Fake
where
    F: Fn(Seen, Down) -> u16 + Clone + Send + Sync + 'static,
{
    let opened = Arc::new(AtomicUsize::new(0));
    let downs = Arc::new(Mutex::new(HashMap::<String, Down>::new()));
    Fake::start(move |seen: Seen| {
        let (answer, opened, downs) = (answer.clone(), Arc::clone(&opened), Arc::clone(&downs));
        async move {
            if seen.verb == Method::GET && seen.target == "/mcp" {
                assert_eq!(seen.header("accept"), Some("text/event-stream"));
                let session = opened.fetch_add(1, Ordering::SeqCst) + 1;
                let (events, received) = mpsc::unbounded_channel();
                let endpoint = endpoint.replace("{}", &session.to_string());
                events.send(Some(format!(": hello\n\nevent: endpoint\ndata: {endpoint}\n\n"))).unwrap();
                downs.lock().unwrap().insert(format!("/messages?session={session}"), Down { session, events });
                return falling(received);
            }
            let down = downs.lock().unwrap().get(&seen.target).cloned();
            let Some(down) = down.filter(|down| !down.events.is_closed()) else { return empty(404) };
            match seen.method() {
                "initialize" => {
                    down.answer(
                        &seen,
                        json!({ "protocolVersion": "2024-11-05", "instructions": "oldest",
                            "capabilities": { "tools": { "listChanged": true } },
                            "serverInfo": { "name": "oldest", "version": "0" } }),
                    );
                    empty(202)
                }
                "notifications/initialized" => {
                    greeted(&down);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                    empty(202)
                }
                "notifications/cancelled" => empty(202),
                "tools/list" => {
                    down.answer(&seen, json!({ "tools": [{ "name": "t", "inputSchema": { "type": "object" } }] }));
                    empty(202)
                }
                _ => match answer(seen, down) {
                    0 => std::future::pending().await,
                    status => empty(status),
                },
            }
        }
    })
    .await
}

async fn oldest<F>(answer: F) -> Fake
where
    F: Fn(Seen, Down) -> u16 + Clone + Send + Sync + 'static,
{
    naming("/messages?session={}", |_| {}, answer).await
}

fn falling(received: mpsc::UnboundedReceiver<Option<String>>) -> Response {
    let body = futures_util::stream::unfold(received, |mut received| async move {
        let chunk = received.recv().await??;
        Some((Ok::<_, std::convert::Infallible>(Bytes::from(chunk)), received))
    });
    Response::builder().status(200).header("content-type", "text/event-stream").body(Body::from_stream(body)).unwrap()
}

async fn plain() -> Fake {
    oldest(|seen, down| {
        down.answer(&seen, json!({ "session": down.session }));
        202
    })
    .await
}

/// Whether a request opens the session of this transport; the GET stream of a newer session names its version.
fn is_opening(seen: &Seen) -> bool {
    seen.verb == Method::GET && seen.header("mcp-protocol-version").is_none()
}

fn streams_opened(fake: &Fake) -> usize {
    fake.seen.lock().unwrap().iter().filter(|seen| is_opening(seen)).count()
}

#[tokio::test]
async fn lists_and_calls_go_up_by_post_and_come_down_the_stream() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    let listing = upstreams.list(&id(), &Access::bare(), Kind::Tool).await.unwrap();
    assert_eq!(listing.items.len(), 1);
    let facts = upstreams.facts(&id(), &Access::bare()).await.unwrap();
    assert_eq!((facts.version, facts.instructions.as_deref()), (Version::V2025_03_26, Some("oldest")));
    assert!(completed(call(&upstreams, 1).await)["session"].as_u64().is_some());
    let seen = fake.seen("tools/call").remove(0);
    assert_eq!(seen.header("mcp-session-id"), None);
    assert!(seen.body["params"].get("_meta").is_none(), "modern keys are not for legacy servers");
}

#[tokio::test]
async fn what_was_found_out_is_remembered() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    call(&upstreams, 1).await;
    let asked = |fake: &Fake| {
        fake.seen.lock().unwrap().iter().filter(|seen| seen.verb == Method::POST && seen.target == "/mcp").count()
    };
    let before = asked(&fake);
    let first = completed(call(&upstreams, 1).await);
    assert_eq!(first, completed(call(&upstreams, 1).await));
    assert_ne!(first, completed(call(&upstreams, 2).await), "each principal has a stream of its own");
    assert_eq!(asked(&fake), before, "the newer transports are not tried again");
}

#[tokio::test]
async fn the_credential_goes_on_the_stream_and_on_each_message() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut dispatch = dispatch(1, tool_call("t", json!({})));
    dispatch.credential = Some(CredentialHeader::new(http::header::AUTHORIZATION, "Bearer theirs".to_owned().into()));
    let session = completed(outcome(upstreams.send(dispatch)).await)["session"].clone();
    let target = format!("/messages?session={session}");
    for seen in fake.seen.lock().unwrap().iter().filter(|seen| seen.target == target) {
        assert_eq!(seen.header("authorization"), Some("Bearer theirs"), "{seen:?}");
    }
    fake.saw(|seen| seen.verb == Method::GET && seen.header("authorization") == Some("Bearer theirs")).await;
}

#[tokio::test]
async fn progress_reaches_the_call_that_it_names() {
    let fake = oldest(|seen, down| {
        let token = &seen.body["params"]["_meta"]["progressToken"];
        for token in [json!(-5), token.clone()] {
            down.say(json!({ "jsonrpc": "2.0", "method": "notifications/progress",
                "params": { "progressToken": token, "progress": 1 } }));
        }
        down.answer(&seen, json!({ "content": [] }));
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let outgoing = Outgoing { progress_token: Some(Json::of("mine")), ..tool_call("t", json!({})) };
    let (notifications, outcome) = ending(upstreams.send(dispatch(1, outgoing))).await;
    assert_eq!(completed(outcome), json!({ "content": [] }));
    assert_eq!(notifications.len(), 1);
    assert_eq!(notifications[0].params().unwrap().get("progressToken").unwrap().raw(), "\"mine\"");
}

#[tokio::test]
async fn dropping_an_exchange_sends_a_cancellation() {
    let fake = oldest(|_, _| 202).await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut exchange = upstreams.send(dispatch(1, tool_call("t", json!({}))));
    let waiting = tokio::spawn(async move {
        let _ = exchange.next().await;
    });
    let request = fake.saw(|seen| seen.method() == "tools/call").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    waiting.abort();
    let cancelled = fake.saw(|seen| seen.method() == "notifications/cancelled").await;
    assert_eq!(cancelled.body["params"]["requestId"], request.body["id"]);
    assert_eq!(cancelled.target, request.target);
}

#[tokio::test]
async fn a_changed_list_and_a_ping_on_the_stream_are_heard() {
    let fake = oldest(|seen, down| {
        if seen.method() == "tools/call" {
            down.say(json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" }));
            down.say(json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" }));
            down.answer(&seen, json!({}));
        }
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut changes = upstreams.changes();
    completed(call(&upstreams, 1).await);
    next_change(&mut changes, &Change::Listed(id(), Kind::Tool)).await;
    assert_eq!(fake.saw(|seen| seen.body["id"] == "p").await.body["result"], json!({}));
}

#[tokio::test]
async fn a_stream_that_breaks_ends_the_calls_in_it_and_the_next_call_opens_another() {
    let fake = oldest(|seen, down| {
        match seen.body["params"]["arguments"]["break"].as_bool() {
            Some(true) => down.hang_up(),
            _ => down.answer(&seen, json!({ "session": down.session })),
        }
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let before = completed(call(&upstreams, 1).await);
    let broken = upstreams.send(dispatch(1, tool_call("t", json!({ "break": true }))));
    assert_eq!(told(outcome(broken).await), (Reason::UpstreamClosed, true));
    assert_ne!(before, completed(call(&upstreams, 1).await), "whoever lost it was told");
}

#[tokio::test]
async fn a_stream_that_ends_right_after_its_beginning_is_not_opened_over_and_over() {
    let fake = naming("/messages?session={}", Down::hang_up, |_, _| 202).await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(told(call(&upstreams, 1).await).0, Reason::UpstreamClosed);
    // Two for the call, one that found the transport, and what the gateway itself tried meanwhile.
    assert!(streams_opened(&fake) < 10, "{}", streams_opened(&fake));
}

#[tokio::test]
async fn a_server_that_asks_and_takes_no_answer_is_answered_only_within_the_bound() {
    const MORE: usize = 10;
    let fake = oldest(|seen, down| {
        if seen.method() != "tools/call" {
            return 0;
        }
        for number in 0..crate::limit::PROCESS_WRITES_QUEUED_MAX + MORE {
            down.say(json!({ "jsonrpc": "2.0", "id": number, "method": "ping" }));
        }
        down.answer(&seen, json!({}));
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    completed(call(&upstreams, 1).await);
    assert_eq!(upstreams.dropped()[0].1.notifications, MORE as u64);
}

#[tokio::test]
async fn a_session_that_carried_a_call_is_not_replaced_in_silence() {
    let downs = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&downs);
    let fake = oldest(move |seen, down| {
        down.answer(&seen, json!({ "session": down.session }));
        kept.lock().unwrap().push(down);
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let before = completed(call(&upstreams, 1).await);
    downs.lock().unwrap()[0].hang_up();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamSessionLost, false));
    assert_eq!(fake.seen("tools/call").len(), 1);
    assert_ne!(before, completed(call(&upstreams, 1).await));
}

#[tokio::test]
async fn whoever_calls_next_is_told_that_housekeeping_has_replaced_a_session_that_carried_calls() {
    let downs = Arc::new(Mutex::new(Vec::<Down>::new()));
    let kept = Arc::clone(&downs);
    let fake = oldest(move |seen, down| {
        down.answer(&seen, json!({ "session": down.session }));
        kept.lock().unwrap().push(down);
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let before = completed(call(&upstreams, 1).await);
    downs.lock().unwrap()[0].hang_up();
    let access = Access { principal: Some(principal(1)), ..Access::bare() };
    let opened = streams_opened(&fake);
    while streams_opened(&fake) == opened {
        // Until it is noticed that the stream has ended.
        let _ = upstreams.list(&id(), &access, Kind::Tool).await;
    }
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamSessionLost, false));
    assert_eq!(fake.seen("tools/call").len(), 1);
    assert_ne!(before, completed(call(&upstreams, 1).await), "once is enough");
}

#[tokio::test]
async fn a_message_that_is_refused_ends_its_call_and_a_session_that_is_unknown_all() {
    for (status, reason) in
        [(500, Reason::UpstreamStatus), (307, Reason::UpstreamStatus), (404, Reason::UpstreamSessionLost)]
    {
        let fake = oldest(move |seen, down| {
            if seen.body["params"]["arguments"]["refuse"] == true {
                return status;
            }
            down.answer(&seen, json!({ "session": down.session }));
            202
        })
        .await;
        let upstreams = upstreams(entry(fake.transport()));
        let before = completed(call(&upstreams, 1).await);
        let refused = upstreams.send(dispatch(1, tool_call("t", json!({ "refuse": true }))));
        assert_eq!(told(outcome(refused).await).0, reason);
        let after = completed(call(&upstreams, 1).await);
        assert_eq!(before == after, status != 404, "{status}");
        assert!(fake.seen("notifications/cancelled").is_empty());
    }
}

#[tokio::test]
async fn an_endpoint_at_another_origin_is_refused_and_nothing_is_sent_there() {
    let foreign = Fake::start(|_| async { empty(202) }).await;
    let named: &'static str = Box::leak(format!("http://{}/messages", foreign.address).into_boxed_str());
    let fake = naming(named, |_| {}, |_, _| 202).await;
    let upstreams = upstreams(entry(fake.transport()));
    let failure = failed(call(&upstreams, 1).await);
    assert!(failure.detail.contains("another origin"), "{}", failure.detail);
    assert!(foreign.seen.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_stream_that_does_not_begin_with_its_endpoint_is_refused() {
    let first = |text: String| async move {
        let fake = Fake::start(move |seen: Seen| {
            let text = text.clone();
            async move { if seen.verb == Method::GET { stream(vec![Some(text), None]) } else { empty(404) } }
        })
        .await;
        let health = HealthConfig { connect_timeout: Duration::from_secs(1), ..patient() };
        let upstreams = upstreams(ServerConfig { health, ..entry(fake.transport()) });
        told(call(&upstreams, 1).await).0
    };
    assert_eq!(first("data: {}\n\n".to_owned()).await, Reason::UpstreamGarbage);
    assert_eq!(first("event: endpoint\ndata:\n\n".to_owned()).await, Reason::UpstreamGarbage);
    assert_eq!(first(": nothing\n\n".to_owned()).await, Reason::UpstreamTimeout);
    let endless = "x".repeat(crate::limit::RESPONSE_BYTES_MAX + 1);
    assert_eq!(first(format!("event: endpoint\ndata: {endless}")).await, Reason::UpstreamGarbage);
}

#[tokio::test]
async fn a_url_that_is_no_endpoint_at_all_is_named_with_what_was_tried() {
    let fake = Fake::start(|_| async { empty(405) }).await;
    let upstreams = upstreams(entry(fake.transport()));
    let failure = failed(call(&upstreams, 1).await);
    assert_eq!(failure.reason, Reason::UpstreamStatus);
    assert!(failure.detail.contains("HTTP 405 to initialize, HTTP 405 to GET for HTTP+SSE"), "{}", failure.detail);
}

#[tokio::test]
async fn a_server_of_streamable_http_is_never_asked_for_this_transport() {
    let fake = Fake::start(|seen: Seen| async move {
        match seen.method() {
            "initialize" => seen.result(json!({ "protocolVersion": "2025-03-26", "capabilities": {} })),
            "notifications/initialized" => empty(202),
            "tools/call" => seen.result(json!({ "ok": true })),
            _ => empty(404),
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(completed(call(&upstreams, 1).await), json!({ "ok": true }));
    assert_eq!(streams_opened(&fake), 0);
}

#[tokio::test]
async fn a_server_that_moves_on_to_streamable_http_is_found_again() {
    let moved = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let now = Arc::clone(&moved);
    let fake = Fake::start(move |seen: Seen| {
        let moved = now.load(Ordering::SeqCst);
        async move {
            match (moved, seen.method()) {
                (true, "initialize") => seen.result(json!({ "protocolVersion": "2025-11-25", "capabilities": {} })),
                (true, "notifications/initialized") => empty(202),
                (true, "tools/call") => seen.result(json!({ "moved": true })),
                // Its stream breaks off at once.
                (false, "") if seen.verb == Method::GET => {
                    stream(vec![Some("event: endpoint\ndata: /messages\n\n".to_owned())])
                }
                (false, _) if seen.target == "/messages" => empty(202),
                _ => empty(405),
            }
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(told(call(&upstreams, 1).await).0, Reason::UpstreamClosed);
    moved.store(true, Ordering::SeqCst);
    assert_eq!(completed(call(&upstreams, 1).await), json!({ "moved": true }));
}

#[tokio::test]
async fn streams_are_closed_when_the_gateway_stops() {
    let downs = Arc::new(Mutex::new(Vec::new()));
    let kept = Arc::clone(&downs);
    let fake = oldest(move |seen, down| {
        down.answer(&seen, json!({}));
        kept.lock().unwrap().push(down);
        202
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    completed(call(&upstreams, 1).await);
    upstreams.shutdown().await;
    let down = downs.lock().unwrap()[0].clone();
    tokio::time::timeout(Duration::from_secs(10), down.events.closed()).await.expect("the stream stays open");
}

#[tokio::test]
async fn changed_roots_are_told_in_a_session_and_with_nothing_that_was_taken_back() {
    let fake = plain().await;
    let entry = entry(fake.transport());
    let upstreams = upstreams(entry.clone());
    let entry = Arc::new(entry);
    let taken_back = tokio_util::sync::CancellationToken::new();
    let mut outgoing = tool_call("t", json!({}));
    let declared = json!({ "roots": { "listChanged": true } });
    outgoing.params = Json::of(&json!({ "name": "t", "arguments": {},
        "_meta": { "io.modelcontextprotocol/clientCapabilities": declared } }));
    let header = CredentialHeader::new(http::header::AUTHORIZATION, "Bearer own".to_owned().into());
    let credential = Some(header.standing(&taken_back));
    completed(outcome(upstreams.send(Dispatch { credential, ..dispatch(1, outgoing) })).await);
    upstreams.roots_changed(&entry, principal(1)).await;
    let told = fake.saw(|seen| seen.method() == "notifications/roots/list_changed").await;
    assert_eq!(told.header("authorization"), Some("Bearer own"));
    upstreams.roots_changed(&entry, principal(2)).await;
    taken_back.cancel();
    upstreams.roots_changed(&entry, principal(1)).await;
    // What is said after that comes after that.
    let mut other = tool_call("t", json!({}));
    other.params = Json::of(&json!({ "name": "t", "arguments": {},
        "_meta": { "io.modelcontextprotocol/clientCapabilities": declared } }));
    completed(outcome(upstreams.send(dispatch(1, other))).await);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(fake.seen("notifications/roots/list_changed").len(), 1, "neither another's nor what was taken back");
}
