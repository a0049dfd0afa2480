//! What is malformed gets a clear error with the right code; nothing hangs, nothing panics.

use std::time::Duration;

use axum::body::Body;
use serde_json::{Value, json};

use crate::support::client::{Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

async fn start_with(
    script: impl Fn(&Value) -> axum::http::Response<Body> + Send + Sync + 'static,
    more: &str,
) -> (Scripted, Gateway, Client) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("t")]), script).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, more).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (upstream, gateway, client)
}

#[tokio::test]
async fn a_malformed_body_is_refused_with_the_right_code() {
    let (upstream, gateway, client) = start_with(|call| result(call, text("")), "").await;
    let (headers, body) = modern_request("tools/call", json!({ "name": "tools__t", "arguments": {} }));
    let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
    let arguments = |inside: &str| body.to_string().replace("\"arguments\":{}", &format!("\"arguments\":{inside}"));
    for (what, text, codes) in [
        ("not JSON", "{".to_owned(), [-32700, -32700]),
        ("empty", String::new(), [-32700, -32700]),
        ("not an object", "7".to_owned(), [-32600, -32700]),
        ("a batch", "[]".to_owned(), [-32600, -32700]),
        ("no version", r#"{"id":1,"method":"tools/list"}"#.to_owned(), [-32600, -32700]),
        ("null id", r#"{"jsonrpc":"2.0","id":null,"method":"tools/list"}"#.to_owned(), [-32600, -32700]),
        ("a duplicate key", arguments(r#"{"a":1,"a":2}"#), [-32700, -32600]),
        ("an escaped duplicate key", arguments(r#"{"a":1,"\u0061":2}"#), [-32700, -32600]),
        ("half a surrogate", arguments(r#"{"a":"\ud800"}"#), [-32700, -32600]),
        ("deep nesting", arguments(&deep), [-32700, -32600]),
        (
            "params that are a list",
            r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":[]}"#.to_owned(),
            [-32600, -32700],
        ),
    ] {
        let answer = client.post(&headers, text).await;
        assert_eq!(answer.status, 400, "{what}: {}", answer.text);
        assert!(codes.contains(&answer.error_code()), "{what}: {}", answer.text);
    }
    let answer = client.post(&headers, arguments("7")).await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
    assert!(upstream.calls().is_empty());
    assert!(!gateway.log().contains("panicked"));
}

/// What the first line of a tool's error result says.
fn told(answer: &crate::support::client::Answer) -> &str {
    answer.result()["_meta"]["dev.bailiwick/reason"].as_str().unwrap_or_default()
}

#[tokio::test]
async fn an_upstream_that_answers_nothing_is_down_after_a_while_and_up_again_when_it_answers() {
    let health = "[servers.tools.health]\nfirst_byte_timeout = \"500ms\"\nconnect_timeout = \"500ms\"\n";
    let (upstream, _gateway, client) = start_with(|call| result(call, text("here")), health).await;
    assert_eq!(client.call_tool("tools__t", json!({})).await.tool_text(), "here");
    upstream.mute("*");
    let mut answers = Vec::new();
    // Three are left unanswered; then it is asked whether it lives.
    while answers.last() != Some(&"upstream_unreachable".to_owned()) && answers.len() < 20 {
        answers.push(told(&client.call_tool("tools__t", json!({})).await).to_owned());
    }
    assert_eq!(answers.last().unwrap(), "upstream_unreachable", "{answers:?}");
    assert!(answers.len() > 3 && answers[..3].iter().all(|reason| reason == "upstream_timeout"), "{answers:?}");
    let began = std::time::Instant::now();
    assert_eq!(told(&client.call_tool("tools__t", json!({})).await), "upstream_unreachable");
    assert!(began.elapsed() < Duration::from_millis(400), "a call to one that is down costs nothing");
    upstream.mute("");
    let up = async || client.call_tool("tools__t", json!({})).await.result()["isError"] != json!(true);
    for _ in 0..100 {
        if up().await {
            return;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    panic!("it answers again, and nobody noticed");
}

#[tokio::test]
async fn one_tool_that_never_answers_takes_no_server_out() {
    let health = "[servers.tools.health]\nfirst_byte_timeout = \"300ms\"\n";
    let (upstream, _gateway, client) = start_with(|call| result(call, text("here")), health).await;
    assert_eq!(client.call_tool("tools__t", json!({})).await.tool_text(), "here");
    upstream.mute("tools/call");
    for _ in 0..8 {
        assert_eq!(told(&client.call_tool("tools__t", json!({})).await), "upstream_timeout");
    }
    upstream.mute("");
    assert_eq!(client.call_tool("tools__t", json!({})).await.tool_text(), "here");
}

#[tokio::test]
async fn a_huge_body_is_refused_and_its_sender_told_why() {
    let (_upstream, _gateway, client) = start_with(|call| result(call, text("")), "").await;
    let (headers, _) = modern_request("tools/list", json!({}));
    let answer = client.post(&headers, format!("{{\"a\":\"{}\"}}", "x".repeat(5 * 1024 * 1024))).await;
    assert_eq!(answer.status, 413);
}

#[tokio::test]
async fn line_breaks_between_tokens_cannot_smuggle_a_second_line() {
    let (upstream, _gateway, client) = start_with(|call| result(call, text("")), "").await;
    let (headers, body) = modern_request("tools/call", json!({ "name": "tools__t", "arguments": { "a": 1 } }));
    let answer = client.post(&headers, body.to_string().replace("\"a\":1", "\"a\":\r\n\n1\n")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert!(!upstream.calls()[0].text.contains(['\r', '\n']));
}

/// What each broken answer becomes, in `tools/call`: a result that a model can react to.
async fn broken(script: impl Fn(&Value) -> axum::http::Response<Body> + Send + Sync + 'static, reason: &str) {
    let (_upstream, gateway, client) =
        start_with(script, "[servers.tools.health]\nfirst_byte_timeout = \"1s\"\nidle_timeout = \"1s\"\n").await;
    let answer = client.call_tool("tools__t", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let last = answer.response();
    assert_eq!(last["result"]["isError"], true, "{}", answer.text);
    assert!(answer.text.contains(reason), "{reason}: {}", answer.text);
    eventually("the result record", async || !gateway.records("result").is_empty()).await;
    let recorded = gateway.records("result");
    assert_eq!(recorded[0]["result"]["reason"], reason, "{recorded:?}");
    assert_eq!(gateway.records("intent").len(), 1);
}

#[tokio::test]
async fn garbage_from_an_upstream_is_named_and_recorded() {
    broken(|_| raw("application/json", "<html>"), "upstream_garbage").await;
}

#[tokio::test]
async fn an_answer_to_another_request_is_not_taken() {
    broken(|_| raw("application/json", r#"{"jsonrpc":"2.0","id":"foreign","result":{}}"#), "upstream_garbage").await;
}

#[tokio::test]
async fn an_upstream_that_never_answers_times_out() {
    broken(
        |_| {
            raw(
                "text/event-stream",
                Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>()),
            )
        },
        "upstream_timeout",
    )
    .await;
}

#[tokio::test]
async fn a_stream_that_ends_without_an_answer_is_closed() {
    broken(|_| raw("text/event-stream", ": nothing\n\n"), "upstream_closed").await;
}

#[tokio::test]
async fn an_endless_answer_is_cut_off() {
    let flood = || futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>("x".repeat(65_536)));
    broken(move |_| raw("application/json", Body::from_stream(flood())), "upstream_garbage").await;
}

#[tokio::test]
async fn an_http_error_is_not_an_answer() {
    broken(
        |_| {
            let mut response = raw("text/plain", "no");
            *response.status_mut() = axum::http::StatusCode::INTERNAL_SERVER_ERROR;
            response
        },
        "upstream_status",
    )
    .await;
}

#[tokio::test]
async fn an_event_may_be_split_anywhere_and_a_second_answer_is_ignored() {
    let (_upstream, _gateway, client) = start_with(
        |call| {
            let event = format!(
                "event: message\r\ndata: {}\r\n\r\n",
                json!({ "jsonrpc": "2.0", "id": call["id"], "result": text("first") })
            );
            let twice = format!("{event}{}", event.replace("first", "second"));
            let bytes: Vec<Result<Vec<u8>, std::io::Error>> = twice.bytes().map(|byte| Ok(vec![byte])).collect();
            raw("text/event-stream", Body::from_stream(futures_util::stream::iter(bytes)))
        },
        "",
    )
    .await;
    let answer = client.call_tool("tools__t", json!({})).await;
    assert_eq!(answer.tool_text(), "first");
    assert!(!answer.text.contains("second"));
}

#[tokio::test]
async fn a_slow_upstream_does_not_slow_the_others() {
    let issuer = Issuer::start().await;
    let slow = Scripted::start(json!([tool("t")]), |_| {
        raw("text/event-stream", Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>()))
    })
    .await;
    let fast = Scripted::echo().await;
    let gateway =
        Setup::new(&issuer).http_server("slow", &slow.url, "").http_server("fast", &fast.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    client.tool_names().await;
    let stuck = tokio::spawn({
        let client = client.clone();
        async move { client.call_tool("slow__t", json!({})).await }
    });
    tokio::time::sleep(Duration::from_millis(100)).await;
    let answer = tokio::time::timeout(Duration::from_secs(2), client.call_tool("fast__echo", json!({}))).await.unwrap();
    assert_eq!(answer.tool_text(), "{}");
    stuck.abort();
}

#[tokio::test]
async fn a_greedy_caller_is_told_to_slow_down_and_others_are_not() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .limits("requests_per_second = 1\nrequests_burst = 3\n")
        .start()
        .await;
    let greedy = gateway.client(&issuer.token("greedy", &["developers"], &gateway.resource()));
    let mut statuses = Vec::new();
    for _ in 0..6 {
        statuses.push(greedy.call_tool("tools__echo", json!({})).await);
    }
    let limited = statuses.last().unwrap();
    assert_eq!(limited.status, 429, "{}", limited.text);
    assert!(limited.header("retry-after").parse::<u64>().is_ok());
    let other = gateway.client(&issuer.token("other", &["developers"], &gateway.resource()));
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 200);
}
