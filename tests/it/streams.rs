//! Streams of legacy sessions: ids, taking up again, one stream for each message.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::talkative::Talkative;

const QUIET: Duration = Duration::from_millis(700);

/// The headers of a session's GET, with the event that was seen last.
fn after(session: &str, last: &str) -> [(&'static str, String); 3] {
    [
        ("mcp-session-id", session.to_owned()),
        ("accept", "text/event-stream".to_owned()),
        ("last-event-id", last.to_owned()),
    ]
}

async fn subscribed() -> (Talkative, String, crate::support::client::Stream) {
    let test = Talkative::start(("modern", "http")).await;
    let (session, stream) = test.session(&test.token).await;
    test.client().legacy(&session, "resources/subscribe", json!({ "uri": "test://a" })).await;
    (test, session, stream)
}

#[tokio::test]
async fn a_stream_of_2025_11_25_begins_with_an_id_without_data_and_when_to_come_back() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    for (version, greeted) in [("2025-11-25", true), ("2025-06-18", false)] {
        let (_, session) = test.client().initialize(version).await;
        let headers = [("mcp-session-id", session), ("accept", "text/event-stream".to_owned())];
        let mut stream = test.client().stream(&headers, None).await;
        let first = stream.block().await;
        assert_eq!(
            first.starts_with("id: ") && first.contains("retry: ") && first.ends_with("\ndata:"),
            greeted,
            "{first}"
        );
    }
}

#[tokio::test]
async fn what_was_missed_while_no_stream_was_open_is_told_on_the_next_one() {
    crate::needs_python!();
    let (test, session, stream) = subscribed().await;
    drop(stream);
    test.tool("touch", json!({ "uri": "test://a" })).await;
    tokio::time::sleep(QUIET).await;
    let headers = [("mcp-session-id", session), ("accept", "text/event-stream".to_owned())];
    let mut again = test.client().stream(&headers, None).await;
    assert_eq!(again.next().await["params"]["uri"], "test://a");
    assert_eq!(again.next_within(QUIET).await, None::<Value>);
}

#[tokio::test]
async fn a_stream_is_taken_up_after_the_event_that_the_client_saw_last() {
    crate::needs_python!();
    let (test, session, mut stream) = subscribed().await;
    let greeting = stream.block().await;
    let start = greeting.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    for _ in 0..2 {
        test.tool("touch", json!({ "uri": "test://a" })).await;
    }
    let first = stream.block().await;
    stream.next().await;
    let seen = first.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let mut again = test.client().stream(&after(&session, &seen), None).await;
    assert_eq!(again.next().await["params"]["uri"], "test://a");
    assert_eq!(again.next_within(QUIET).await, None::<Value>, "the first one was seen");
    let mut all = test.client().stream(&after(&session, &start), None).await;
    all.next().await;
    all.next().await;
    assert_eq!(all.next_within(QUIET).await, None::<Value>);
}

#[tokio::test]
async fn a_newer_stream_takes_over_and_no_message_is_told_twice() {
    crate::needs_python!();
    let (test, session, mut older) = subscribed().await;
    let headers = [("mcp-session-id", session), ("accept", "text/event-stream".to_owned())];
    let mut newer = test.client().stream(&headers, None).await;
    tokio::time::timeout(Duration::from_secs(5), older.end()).await.expect("the older one ends");
    test.tool("touch", json!({ "uri": "test://a" })).await;
    assert_eq!(newer.next().await["params"]["uri"], "test://a");
    assert_eq!(older.next_within(QUIET).await, None::<Value>);
}

#[tokio::test]
async fn a_call_whose_connection_broke_is_read_on_with_the_id_of_its_last_event() {
    crate::needs_python!();
    for upstream in crate::support::talkative::UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let (_, session) = test.client().initialize("2025-11-25").await;
        let params = json!({ "name": "up__slow", "arguments": {}, "_meta": { "progressToken": "p" } });
        let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params });
        let headers = [("mcp-session-id", session.clone())];
        let mut call = test.client().stream(&headers, Some(body.to_string())).await;
        let greeting = call.block().await;
        assert!(greeting.ends_with("\ndata:"), "{greeting}");
        let progress = call.block().await;
        assert!(progress.contains("notifications/progress"), "{upstream:?}: {progress}");
        let seen = progress.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
        drop(call);
        let mut rest = test.client().stream(&after(&session, &seen), None).await;
        let response = rest.next().await;
        assert_eq!(response["result"]["content"][0]["text"], "done", "{upstream:?}: {response}");
        assert_eq!(response["id"], 5);
        tokio::time::timeout(Duration::from_secs(5), rest.end()).await.expect("the stream ends with the response");
    }
}

#[tokio::test]
async fn a_call_that_takes_its_time_is_read_on_before_it_has_said_anything() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let body = |id: u64| {
        let params = json!({ "name": "up__slow", "arguments": {} });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params }).to_string()
    };
    let (_, session) = test.client().initialize("2025-11-25").await;
    let begun = std::time::Instant::now();
    let mut call = test.client().stream(&[("mcp-session-id", session.clone())], Some(body(5))).await;
    let greeting = call.block().await;
    assert!(begun.elapsed() >= bailiwick::limit::CALL_STREAM_AFTER, "it had no time to answer at once");
    assert!(greeting.ends_with("\ndata:"), "{greeting}");
    let seen = greeting.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    drop(call);
    let mut rest = test.client().stream(&after(&session, &seen), None).await;
    let response = rest.next().await;
    assert_eq!((&response["id"], &response["result"]["content"][0]["text"]), (&json!(5), &json!("done")), "{response}");
    // Who does not know such streams waits for one document.
    let (_, session) = test.client().initialize("2025-06-18").await;
    let answer = test.client().post(&[("mcp-session-id", session)], body(6)).await;
    assert_eq!(answer.tool_text(), "done", "{}", answer.text);
    assert!(answer.header("content-type").starts_with("application/json"), "{}", answer.text);
}

#[tokio::test]
async fn a_stream_that_its_server_closes_in_the_middle_of_a_call_is_closed_and_read_on() {
    let issuer = Issuer::start().await;
    let upstream = Old::start(&["polled"], |mut turn: Turn| async move {
        let token = turn.call["params"]["_meta"]["progressToken"].clone();
        turn.notify("notifications/progress", json!({ "progressToken": token, "progress": 1 }));
        turn.close_stream("one").await;
        turn.close_stream("two").await;
        turn.notify("notifications/progress", json!({ "progressToken": token, "progress": 2 }));
        turn.done("done");
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("old", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let params = json!({ "name": "old__polled", "arguments": {}, "_meta": { "progressToken": "p" } });
    let (_, session) = client.initialize("2025-11-25").await;
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call", "params": params });
    let mut call = client.stream(&[("mcp-session-id", session.clone())], Some(body.to_string())).await;
    assert!(call.block().await.contains("retry: "), "it says when to come back");
    let progress = call.block().await;
    let seen = progress.lines().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    tokio::time::timeout(Duration::from_secs(5), call.end()).await.expect("the stream ends before the response");
    let mut rest = client.stream(&after(&session, &seen), None).await;
    let more = rest.next().await;
    assert_eq!((&more["params"]["progress"], &more["params"]["progressToken"]), (&json!(2), &json!("p")), "{more}");
    assert_eq!(rest.next().await["result"]["content"][0]["text"], "done");
    // Whoever cannot come back waits for the response.
    let (_, session) = client.initialize("2025-06-18").await;
    let answer = client.post(&[("mcp-session-id", session)], body.to_string()).await;
    assert_eq!(answer.tool_text(), "done", "{}", answer.text);
    assert_eq!(client.modern("tools/call", params).await.tool_text(), "done");
}

#[tokio::test]
async fn the_stream_of_another_session_or_of_nobody_is_not_found() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let (_, one) = client.initialize("2025-11-25").await;
    let (_, other) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "up__talk", "arguments": {}, "_meta": { "progressToken": "p" } });
    let answer = client.legacy(&one, "tools/call", params).await;
    let id = answer.text.lines().rev().find_map(|line| line.strip_prefix("id: ")).unwrap().to_owned();
    let (track, _) = id.split_once('-').unwrap();
    let start = format!("{track}-0");
    let mut own = client.stream(&after(&one, &start), None).await;
    assert_eq!(own.next().await["method"], "notifications/progress");
    for (session, id) in [(&other, start.as_str()), (&one, "999999-0")] {
        let answer = client.bare(reqwest::Method::GET, &after(session, id)).await;
        assert_eq!(answer.status, 400, "{}", answer.text);
    }
}
