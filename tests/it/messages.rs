//! What belongs to one call, in every pairing: log messages, progress, and its cancellation.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::talkative::{Talkative, UPSTREAMS};

/// The levels of the log messages among these.
fn levels(messages: &[Value]) -> Vec<&str> {
    let logs = messages.iter().filter(|message| message["method"] == "notifications/message");
    logs.map(|message| message["params"]["level"].as_str().unwrap()).collect()
}

fn modern_call(name: &str, meta: &Value, arguments: &Value) -> (Vec<(&'static str, String)>, String) {
    let (headers, body) = modern_request("tools/call", json!({ "name": name, "arguments": arguments, "_meta": meta }));
    (headers, body.to_string())
}

async fn session(client: &Client) -> String {
    client.initialize("2025-11-25").await.1
}

#[tokio::test]
async fn a_modern_client_gets_log_messages_only_where_it_asked_and_from_its_level_on() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        for (level, rude, heard) in [
            (Some("error"), false, &["error"][..]),
            (Some("debug"), false, &["debug", "info", "error"][..]),
            // The session of a legacy upstream has been asked for more by now.
            (Some("info"), false, &["info", "error"][..]),
            (None, false, &[][..]),
            (None, true, &[][..]),
            (Some("error"), true, &["error"][..]),
        ] {
            let meta = level.map_or_else(|| json!({}), |level| json!({ "io.modelcontextprotocol/logLevel": level }));
            let (headers, body) = modern_call("up__talk", &meta, &json!({ "rude": rude }));
            let answer = test.client().post(&headers, body).await;
            assert_eq!(answer.tool_text(), "done", "{upstream:?}");
            assert_eq!(levels(&answer.messages), heard, "{upstream:?} {level:?} {rude}: {}", answer.text);
        }
    }
}

#[tokio::test]
async fn what_a_legacy_server_logs_on_its_sessions_own_stream_belongs_to_the_only_call_in_flight() {
    let issuer = Issuer::start().await;
    let upstream = Old::start(&["chatty", "hang"], |turn: Turn| async move {
        if turn.call["params"]["name"] == "hang" {
            return std::future::pending().await;
        }
        for (level, data) in [("debug", "too low"), ("warning", "heard")] {
            turn.notify_elsewhere("notifications/message", json!({ "level": level, "data": data })).await;
        }
        // Nothing orders two streams.
        tokio::time::sleep(Duration::from_millis(200)).await;
        turn.done("done");
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("old", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let call = async |name: &str| {
        let (headers, mut body) = modern_request("tools/call", json!({ "name": name, "arguments": {} }));
        body["params"]["_meta"]["io.modelcontextprotocol/logLevel"] = json!("info");
        client.post(&headers, body.to_string()).await
    };
    let heard = call("old__chatty").await;
    assert_eq!(heard.tool_text(), "done", "{}", heard.text);
    let said: Vec<_> = heard.messages.iter().filter_map(|one| one["params"]["data"].as_str()).collect();
    assert_eq!(said, ["heard"]);
    let silent = client.call_tool("old__chatty", json!({})).await;
    assert!(silent.messages.iter().all(|one| one.get("params").is_none()), "it named no level: {}", silent.text);
    let (other, token) = (gateway.client(&issuer.token("alice", &["developers"], &gateway.resource())), "old__hang");
    let hanging = tokio::spawn(async move { other.call_tool(token, json!({})).await });
    eventually("the other call", async || upstream.saw("tools/call").len() == 3).await;
    let unclear = call("old__chatty").await;
    assert_eq!(unclear.tool_text(), "done");
    assert!(!unclear.text.contains("heard"), "it may be the other call's: {}", unclear.text);
    hanging.abort();
}

#[tokio::test]
async fn a_legacy_client_gets_log_messages_from_the_level_of_its_session_on() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let client = test.client();
        let (one, other) = (session(&client).await, session(&client).await);
        let talk = async |session: &str| {
            let params = json!({ "name": "up__talk", "arguments": { "rude": session == other } });
            client.legacy(session, "tools/call", params).await.messages
        };
        for session in [&one, &other] {
            assert!(levels(&talk(session).await).is_empty(), "{upstream:?}: a session that asked for nothing");
        }
        client.legacy(&one, "logging/setLevel", json!({ "level": "debug" })).await;
        client.legacy(&other, "logging/setLevel", json!({ "level": "error" })).await;
        assert_eq!(levels(&talk(&one).await), ["debug", "info", "error"], "{upstream:?}");
        assert_eq!(levels(&talk(&other).await), ["error"], "{upstream:?}");
    }
}

#[tokio::test]
async fn logging_is_announced_where_an_upstream_has_it() {
    crate::needs_python!();
    let test = Talkative::start(("legacy", "http")).await;
    let (answer, _) = test.client().initialize("2025-11-25").await;
    assert_eq!(answer.result()["capabilities"]["logging"], json!({}), "{}", answer.text);
    let plain = crate::support::scripted::Scripted::echo().await;
    let issuer = crate::support::issuer::Issuer::start().await;
    let gateway = crate::support::gateway::Setup::new(&issuer).http_server("tools", &plain.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let (answer, _) = client.initialize("2025-11-25").await;
    assert_eq!(answer.result()["capabilities"].get("logging"), None, "{}", answer.text);
}

#[tokio::test]
async fn a_level_that_does_not_exist_is_refused_in_both_eras() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let meta = json!({ "io.modelcontextprotocol/logLevel": "loud" });
    let (headers, body) = modern_call("up__talk", &meta, &json!({}));
    let answer = client.post(&headers, body).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32602), "{}", answer.text);
    let session = session(&client).await;
    let answer = client.legacy(&session, "logging/setLevel", json!({ "level": "loud" })).await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
}

#[tokio::test]
async fn progress_comes_back_under_the_token_of_each_client_in_every_pairing() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let client = test.client();
        let session = session(&client).await;
        for token in [json!("mine"), json!(7)] {
            let (headers, body) = modern_call("up__talk", &json!({ "progressToken": token }), &json!({}));
            let modern = client.post(&headers, body).await;
            let params = json!({ "name": "up__talk", "arguments": {}, "_meta": { "progressToken": token } });
            let legacy = client.legacy(&session, "tools/call", params).await;
            for answer in [modern, legacy] {
                let progress: Vec<_> =
                    answer.messages.iter().filter(|message| message["method"] == "notifications/progress").collect();
                assert_eq!(progress.len(), 1, "{upstream:?}: {}", answer.text);
                let params = json!({ "progressToken": token, "progress": 1, "total": 2 });
                assert_eq!(progress[0]["params"], params, "{upstream:?}");
            }
        }
    }
}

#[tokio::test]
async fn a_modern_client_that_goes_away_cancels_its_call_at_every_kind_of_upstream() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let (headers, body) = modern_call("up__wait", &json!({ "progressToken": "p" }), &json!({}));
        let mut call = test.client().stream(&headers, Some(body)).await;
        assert_eq!(call.next().await["method"], "notifications/progress", "{upstream:?}");
        assert_eq!(test.cancelled().await, 0, "{upstream:?}");
        drop(call);
        eventually(&format!("the cancellation at {upstream:?}"), async || test.cancelled().await == 1).await;
    }
}

#[tokio::test]
async fn a_legacy_client_cancels_with_a_notification_and_not_by_going_away() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::start(upstream).await;
        let client = test.client();
        let session = session(&client).await;
        let params = json!({ "name": "up__wait", "arguments": {}, "_meta": { "progressToken": "p" } });
        let body = json!({ "jsonrpc": "2.0", "id": "w", "method": "tools/call", "params": params });
        let headers = [("mcp-session-id", session.clone())];
        let mut call = client.stream(&headers, Some(body.to_string())).await;
        assert_eq!(call.next().await["method"], "notifications/progress", "{upstream:?}");
        drop(call);
        tokio::time::sleep(std::time::Duration::from_millis(700)).await;
        assert_eq!(test.cancelled().await, 0, "{upstream:?}: going away is no cancellation");
        let notification =
            json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": "w" } });
        assert_eq!(client.post(&headers, notification.to_string()).await.status, 202);
        eventually(&format!("the cancellation at {upstream:?}"), async || test.cancelled().await == 1).await;
    }
}
