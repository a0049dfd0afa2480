//! Streams: who hears of a change, and who does not.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Stream, modern_request};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, tool};
use crate::support::talkative::UPSTREAMS;
use crate::support::verbatim::{Heard, Said, Verbatim};
use crate::support::{eventually, eventually_within};

const TESTERS_MAY: &str = "g, group:test/testers, role:tester, *\np, role:tester, *, tools/extra, call, -, allow\n";

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("echo"), tool("extra")]), |call| {
        crate::support::scripted::result(call, crate::support::scripted::text("done"))
    })
    .await;
    let rules = format!("{DEVELOPERS_MAY}{TESTERS_MAY}");
    let gateway =
        Setup::new(&issuer).http_server("tools", &upstream.url, "pins = \"off\"").policy(&rules).start().await;
    (issuer, upstream, gateway)
}

async fn listen(gateway: &Gateway, token: &str) -> Stream {
    let notifications = json!({ "toolsListChanged": true });
    let (headers, body) = modern_request("subscriptions/listen", json!({ "notifications": notifications }));
    gateway.client(token).stream(&headers, Some(body.to_string())).await
}

async fn legacy_stream(gateway: &Gateway, token: &str) -> Stream {
    let client = gateway.client(token);
    let (_, session) = client.initialize("2025-11-25").await;
    let headers = [("mcp-session-id", session), ("accept", "text/event-stream".to_owned())];
    client.stream(&headers, None).await
}

#[tokio::test]
async fn a_listen_is_acknowledged_first_and_every_message_carries_its_id() {
    let (issuer, _upstream, gateway) = start().await;
    let mut stream = listen(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    let first = stream.next().await;
    assert_eq!(first["method"], "notifications/subscriptions/acknowledged", "{first}");
    assert_eq!(first["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1, "{first}");
}

#[tokio::test]
async fn a_policy_change_is_heard_by_those_whose_view_changed_and_by_no_one_else() {
    let (issuer, _upstream, gateway) = start().await;
    let developer = issuer.token("alice", &["developers"], &gateway.resource());
    let tester = issuer.token("tina", &["testers"], &gateway.resource());
    let mut heard = legacy_stream(&gateway, &developer).await;
    let mut modern = listen(&gateway, &developer).await;
    modern.next().await;
    let mut unmoved = listen(&gateway, &tester).await;
    unmoved.next().await;
    let mut unmoved_legacy = legacy_stream(&gateway, &tester).await;
    // Both have looked at their lists, so both have something to compare with.
    for token in [&developer, &tester] {
        gateway.client(token).tool_names().await;
    }
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{TESTERS_MAY}p, anyone, *, tools/echo, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    assert_eq!(heard.next().await["method"], "notifications/tools/list_changed");
    let message = modern.next().await;
    assert_eq!(message["method"], "notifications/tools/list_changed");
    assert_eq!(message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    assert_eq!(unmoved.next_within(Duration::from_secs(1)).await, None::<Value>);
    assert_eq!(unmoved_legacy.next_within(Duration::from_millis(100)).await, None::<Value>);
}

#[tokio::test]
async fn a_revoked_callers_stream_ends_within_a_second() {
    let (issuer, _upstream, gateway) = start().await;
    let mut stream = listen(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    stream.next().await;
    let output = gateway.command(&["revoke", "subject", "user:test/alice"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    tokio::time::timeout(Duration::from_secs(1), stream.end()).await.expect("the stream is cut");
}

#[tokio::test]
async fn a_stream_ends_with_the_key_that_let_it_in_and_with_the_entry_of_its_client() {
    let (issuer, _upstream, gateway) = start().await;
    let mut old = listen(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    old.next().await;
    issuer.rotate("key-2");
    let fresh = issuer.token("bob", &["developers"], &gateway.resource());
    // A key that nobody knows makes the gateway ask for the keys, and the first one is withdrawn.
    gateway.client(&fresh).tool_names().await;
    tokio::time::timeout(Duration::from_secs(2), old.end()).await.expect("a stream ends with its key");
    let mut stream = listen(&gateway, &fresh).await;
    stream.next().await;
    // The client that was the issuer's default agent is nobody's any more.
    let servers = gateway.directory().join("servers.toml");
    let text = std::fs::read_to_string(&servers).unwrap();
    std::fs::write(&servers, text.replace("interactive_default = \"assistant\"\n", "")).unwrap();
    let reloaded = gateway.command(&["reload", "--allow-widening"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    tokio::time::timeout(Duration::from_secs(2), stream.end()).await.expect("a stream ends with the entry");
}

#[tokio::test]
async fn a_stopping_gateway_ends_streams_and_lets_calls_finish() {
    let issuer = Issuer::start().await;
    let slow = Scripted::start(json!([tool("slow")]), |call| {
        let answer = json!({ "jsonrpc": "2.0", "id": call["id"], "result": crate::support::scripted::text("late") });
        let body = futures_util::stream::once(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            Ok::<_, std::io::Error>(format!("data: {answer}\n\n"))
        });
        crate::support::scripted::raw("text/event-stream", axum::body::Body::from_stream(body))
    })
    .await;
    let mut gateway = Setup::new(&issuer).http_server("tools", &slow.url, "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let mut stream = listen(&gateway, &token).await;
    stream.next().await;
    let client = gateway.client(&token);
    let call = tokio::spawn(async move { client.call_tool("tools__slow", json!({})).await });
    eventually("the call to arrive", async || slow.calls().len() == 1).await;
    assert!(gateway.stop().await.success());
    assert_eq!(call.await.unwrap().tool_text(), "late");
    tokio::time::timeout(Duration::from_secs(1), stream.end()).await.expect("the stream ended");
    let kinds: Vec<_> = gateway.journal().iter().map(|record| record["type"].clone()).collect();
    assert_eq!(kinds.last().unwrap(), "stop", "{kinds:?}");
}

#[tokio::test]
async fn a_stopping_gateway_ends_the_streams_of_both_eras_and_lets_calls_of_every_pairing_finish() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let (release, released) = tokio::sync::watch::channel(false);
    let mut setup = Setup::new(&issuer);
    let mut upstreams = Vec::new();
    for (era, transport) in UPSTREAMS {
        let until = released.clone();
        let script = move |heard: &Heard| match heard.method.as_str() {
            "tools/list" => Said::result(r#"{"tools":[{"name":"slow","inputSchema":{"type":"object"}}]}"#),
            "tools/call" => {
                let late = Said::result(r#"{"content":[{"type":"text","text":"late"}],"resultType":"complete"}"#)?;
                Some(Said { until: Some(until.clone()), ..late })
            }
            _ => None,
        };
        let (upstream, id) = (Verbatim::start(era, script).await, format!("{era}-{transport}"));
        setup = upstream.served_as(setup, &id, transport, "");
        upstreams.push((id, upstream));
    }
    let mut gateway = setup.start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    let listed = async || client.tool_names().await.len() == upstreams.len();
    eventually_within(Duration::from_secs(30), "every server's list", listed).await;
    let mut streams = [listen(&gateway, &token).await, legacy_stream(&gateway, &token).await];
    streams[0].next().await;
    let mut calls = Vec::new();
    for (id, upstream) in &upstreams {
        let name = format!("{id}__slow");
        // One session cannot have two requests of one id under way.
        let (_, session) = client.initialize("2025-11-25").await;
        let (modern, legacy, own) = (client.clone(), client.clone(), name.clone());
        calls.push(tokio::spawn(async move { modern.call_tool(&own, json!({})).await }));
        calls.push(tokio::spawn(async move {
            legacy.legacy(&session, "tools/call", json!({ "name": name, "arguments": {} })).await
        }));
        eventually("both calls to arrive", async || upstream.heard("tools/call").len() == 2).await;
    }
    gateway.signal("TERM");
    for stream in &mut streams {
        tokio::time::timeout(Duration::from_secs(10), stream.end()).await.expect("the stream ended");
    }
    assert!(calls.iter().all(|call| !call.is_finished()));
    release.send(true).unwrap();
    for call in calls {
        let answer = call.await.unwrap();
        assert_eq!(answer.tool_text(), "late", "{}", answer.text);
    }
    assert!(gateway.wait().await.success());
    let records = gateway.journal();
    assert_eq!(records.last().unwrap()["type"], "stop");
    let ended = records.iter().filter(|line| line["result"]["outcome"] == "complete").count();
    assert_eq!(ended, 2 * upstreams.len(), "each has its end on the record");
}

#[tokio::test]
async fn a_tool_that_an_upstream_adds_appears_when_it_says_so() {
    let (issuer, upstream, gateway) = start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__echo", "tools__extra"]);
    upstream.set_tools(json!([tool("echo"), tool("fresh")]));
    // The upstream has no stream; a call of something that it no longer knows makes the list be fetched again.
    upstream.forget("extra");
    client.call_tool("tools__extra", json!({})).await;
    eventually("the new tool", async || client.tool_names().await == ["tools__echo", "tools__fresh"]).await;
}
