//! What is refused before it becomes a call is counted and on the record, with whoever asked; and what one principal
//! holds at once has an end that nobody else meets.

use std::collections::BTreeMap;

use axum::body::Body;
use bailiwick::control::client::request;
use http::Method;
use serde_json::{Value, json};

use crate::support::client::{Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

type Headers = Vec<(&'static str, String)>;

fn with(mut headers: Headers, name: &'static str, value: Option<&str>) -> Headers {
    headers.retain(|(known, _)| *known != name);
    headers.extend(value.map(|value| (name, value.to_owned())));
    headers
}

/// How often each reason is on the record of somebody as a count, whatever lines that took.
fn counted(gateway: &Gateway, user: &str) -> BTreeMap<String, u64> {
    let mut counted = BTreeMap::new();
    for line in gateway.records("noise") {
        if line["subject"]["id"].as_str().is_some_and(|id| id.ends_with(&format!("/{user}"))) {
            assert!(line["noise"].get("source").is_none(), "addresses of callers are not on the record: {line}");
            assert!(line["agent"]["client"].is_string() && line["token"]["digest"].is_string(), "{line}");
            let reason = line["noise"]["reason"].as_str().unwrap().to_owned();
            *counted.entry(reason).or_default() += line["noise"]["count"].as_u64().unwrap();
        }
    }
    counted
}

async fn metrics(gateway: &Gateway) -> String {
    let answer = request::<()>(&gateway.state(), Method::GET, "/metrics", None).await.unwrap();
    String::from_utf8(answer.body.to_vec()).unwrap()
}

fn refusals(metrics: &str, reason: &str) -> u64 {
    let name = format!("bailiwick_refusals_total{{reason=\"{reason}\"}} ");
    metrics.lines().find_map(|line| line.strip_prefix(&name)).map_or(0, |count| count.parse().unwrap())
}

/// What is no message, has the wrong headers or is of another era: each with the reason that it is refused for.
fn odd_requests() -> Vec<(&'static str, Headers, String)> {
    let (headers, body) = modern_request("tools/list", json!({}));
    let call = |method: &str| modern_request(method, json!({}));
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut body = body.clone();
        change(&mut body);
        body.to_string()
    };
    let legacy = |session: Option<&str>| {
        let headers = vec![("mcp-protocol-version", "2025-11-25".to_owned())];
        with(headers, "mcp-session-id", session)
    };
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list", "params": {} }).to_string();
    let unsupported = with(headers.clone(), "mcp-protocol-version", Some("2099-01-01"));
    let future = changed(&|body| {
        body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    });
    let incapable = changed(&|body| {
        body["params"]["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/clientCapabilities");
    });
    vec![
        ("message_malformed", headers.clone(), "{".to_owned()),
        (
            "message_malformed",
            headers.clone(),
            body.to_string().replace("\"params\":{", "\"params\":{\"a\":1,\"a\":2,"),
        ),
        ("message_malformed", headers.clone(), body.to_string().replace("\"tools/list\"", "\"\\ud800\"")),
        ("request_invalid", headers.clone(), "7".to_owned()),
        ("request_invalid", headers.clone(), "[]".to_owned()),
        ("request_invalid", legacy(None), list.clone()),
        ("session_unknown", legacy(Some("made-up")), list),
        ("body_too_large", headers.clone(), format!("{{\"a\":\"{}\"}}", "x".repeat(5 * 1024 * 1024))),
        ("header_mismatch", with(headers.clone(), "mcp-method", None), body.to_string()),
        ("header_mismatch", with(headers.clone(), "mcp-method", Some("tools/call")), body.to_string()),
        ("header_mismatch", with(headers.clone(), "mcp-protocol-version", None), body.to_string()),
        ("version_unsupported", unsupported, future),
        ("meta_invalid", headers, incapable),
        ("method_unknown", call("ping").0, call("ping").1.to_string()),
        ("method_unknown", call("logging/setLevel").0, call("logging/setLevel").1.to_string()),
    ]
}

/// Asks for something until that is refused as too much; how often it was.
async fn until_limited(client: &Client, headers: &Headers, body: &str) -> u64 {
    for _ in 0..100 {
        match client.try_stream(headers, Some(body.to_owned())).await {
            Ok(open) => drop(open),
            Err(answer) if answer.status == 429 => {
                assert!(answer.text.contains("rate_limited"), "{}", answer.text);
                return 1;
            }
            Err(answer) => assert_eq!(answer.status, 200, "{}", answer.text),
        }
    }
    panic!("it was never too much");
}

#[tokio::test]
async fn whatever_is_refused_to_a_caller_is_counted_and_on_the_record_with_them() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let limits = "requests_per_second = 1\nrequests_burst = 2\n";
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").limits(limits).start().await;
    let client = |user: &str| gateway.client(&issuer.token(user, &["developers"], &gateway.resource()));
    let (alice, greedy) = (client("alice"), client("greedy"));
    let mut expected = BTreeMap::<String, u64>::new();
    for (reason, headers, body) in odd_requests() {
        let answer = alice.post(&headers, body).await;
        assert!(answer.text.contains(reason), "{reason}: {} {}", answer.status, answer.text);
        *expected.entry(reason.to_owned()).or_default() += 1;
    }
    // A place that has no such method.
    let answer = alice.bare(Method::GET, &modern_request("tools/list", json!({})).0).await;
    assert_eq!(answer.status, 405, "{}", answer.text);
    *expected.entry("request_invalid".to_owned()).or_default() += 1;

    let (_, session) = greedy.initialize("2025-11-25").await;
    let legacy = vec![("mcp-session-id", session.clone()), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let mut limited = 0;
    for method in ["tools/list", "server/discover", "subscriptions/listen"] {
        let (headers, body) = modern_request(method, json!({ "notifications": { "toolsListChanged": true } }));
        limited += until_limited(&greedy, &headers, &body.to_string()).await;
    }
    let params =
        json!({ "protocolVersion": "2025-11-25", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let level = json!({ "level": "error" });
    for (headers, method, params) in [
        (&legacy, "tools/list", json!({})),
        (&Vec::new(), "initialize", params),
        (&legacy, "logging/setLevel", level),
        (&legacy, "resources/subscribe", json!({ "uri": "note://one" })),
    ] {
        let body = json!({ "jsonrpc": "2.0", "id": 2, "method": method, "params": params }).to_string();
        limited += until_limited(&greedy, headers, &body).await;
    }

    let shown = metrics(&gateway).await;
    for (reason, count) in &expected {
        assert_eq!(refusals(&shown, reason), *count, "{reason}: {shown}");
    }
    assert_eq!(refusals(&shown, "rate_limited"), limited, "{shown}");
    // One line for the first of each; the rest with the next interval, or when the gateway stops.
    assert!(gateway.stop().await.success());
    assert_eq!(counted(&gateway, "alice"), expected);
    assert_eq!(counted(&gateway, "greedy"), BTreeMap::from([("rate_limited".to_owned(), limited)]));
    let told =
        gateway.command(&["logs", "--subject", "alice", "--reason", "session_unknown", "--config", "servers.toml"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("session_unknown") && told.contains("x1"), "{told}");
}

#[tokio::test]
async fn one_principal_has_so_many_calls_and_streams_and_a_place_that_is_free_again_can_be_taken() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("hang"), tool("quick")]), |call| {
        if call["params"]["name"] == "quick" {
            return result(call, text("quick"));
        }
        raw("text/event-stream", Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>()))
    })
    .await;
    let limits = "calls_in_flight_max = 2\nstreams_max = 2\n";
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").limits(limits).start().await;
    let client = |user: &str| gateway.client(&issuer.token(user, &["developers"], &gateway.resource()));
    let (alice, bob) = (client("alice"), client("bob"));
    let hanging = |client: &Client| {
        let client = client.clone();
        tokio::spawn(async move { client.call_tool("tools__hang", json!({})).await })
    };
    let held = [hanging(&alice), hanging(&alice)];
    eventually("both calls to arrive", async || upstream.calls().len() == 2).await;
    let more = alice.call_tool("tools__quick", json!({})).await;
    assert_eq!((more.status, more.text.contains("concurrency_limited")), (429, true), "{}", more.text);
    assert_eq!(bob.call_tool("tools__quick", json!({})).await.tool_text(), "quick");
    let [first, _second] = held;
    first.abort();
    eventually("its place is free", async || alice.call_tool("tools__quick", json!({})).await.status == 200).await;

    let (_, session) = alice.initialize("2025-11-25").await;
    let (headers, body) =
        modern_request("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let own = vec![("mcp-session-id", session), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let listen = Some(body.to_string());
    // Of either era, they are the streams of one principal.
    let one = alice.try_stream(&headers, listen.clone()).await.unwrap();
    let _two = alice.try_stream(&own, None).await.unwrap();
    for (headers, body) in [(&headers, &listen), (&headers, &listen)] {
        let refused = alice.try_stream(headers, body.clone()).await.unwrap_err();
        assert_eq!((refused.status, refused.text.contains("streams_limited")), (429, true), "{}", refused.text);
    }
    let _bobs = bob.try_stream(&headers, listen.clone()).await.unwrap();
    drop(one);
    let again = std::sync::Mutex::new(None);
    eventually("its place is free", async || match alice.try_stream(&headers, listen.clone()).await {
        Ok(stream) => {
            *again.lock().unwrap() = Some(stream);
            true
        }
        Err(_) => false,
    })
    .await;
    // A session's own stream has no place of its own, either.
    let (_, other) = alice.initialize("2025-11-25").await;
    let others = vec![("mcp-session-id", other), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let refused = alice.try_stream(&others, None).await.unwrap_err();
    assert!(refused.text.contains("streams_limited"), "{}", refused.text);
    eventually("that to be on the record", async || counted(&gateway, "alice").contains_key("streams_limited")).await;
}
