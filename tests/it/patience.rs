//! How long and how much the gateway listens to upstreams and clients that want to be heard without end.

use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use axum::routing::any;
use bailiwick::limit;
use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason};
use crate::stdio::marked;
use crate::support::client::modern_request;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::python;
use crate::support::scripted::{Scripted, raw, result, text, tool};
use crate::support::talkative::RULES;
use crate::support::verbatim::{Said, Verbatim};

#[tokio::test]
async fn a_server_s_own_state_has_a_length() {
    for (more, fits) in [(0, true), (1, false)] {
        let upstream = Scripted::start(json!([tool("ask")]), move |request| {
            let state = "s".repeat(limit::INPUT_STATE_BYTES_MAX + more);
            if request["params"]["requestState"] == state {
                return result(request, text("the same"));
            }
            result(request, json!({ "resultType": "input_required", "requestState": state }))
        })
        .await;
        let issuer = Issuer::start().await;
        let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"]));
        let gateway = setup.http_server("tools", &upstream.url, "").start().await;
        let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        let ask = async |params: Value| call(&client, &all_capabilities(), params).await;
        let asked = ask(json!({ "name": "tools__ask", "arguments": {} })).await;
        if fits {
            let state = &asked.result()["requestState"];
            let done = ask(json!({ "name": "tools__ask", "arguments": {}, "requestState": state })).await;
            assert_eq!(done.tool_text(), "the same");
        } else {
            assert_eq!(reason(&asked), "upstream_garbage", "{}", asked.text);
        }
    }
}

#[tokio::test]
async fn so_many_messages_of_a_batch_are_worked_on_at_once() {
    let upstream = Scripted::start(json!([tool("hang")]), |_| {
        let never = futures_util::stream::pending::<Result<String, std::io::Error>>();
        raw("text/event-stream", Body::from_stream(never))
    })
    .await;
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("the tools", async || client.tool_names().await == ["tools__hang"]).await;
    let (_, session) = client.initialize("2025-03-26").await;
    let one = |id: usize| {
        let params = json!({ "name": "tools__hang", "arguments": {} });
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
    };
    let batch: Vec<_> = (1..=3 * limit::BATCH_AT_ONCE_MAX).map(one).collect();
    let batch = tokio::spawn(async move {
        client.post(&[("mcp-session-id", session)], json!(batch).to_string()).await;
    });
    eventually("as many as may be", async || upstream.calls().len() == limit::BATCH_AT_ONCE_MAX).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(upstream.calls().len(), limit::BATCH_AT_ONCE_MAX);
    batch.abort();
}

#[tokio::test]
async fn a_listen_is_acknowledged_whatever_its_upstream_does_and_asks_for_few_resources_at_once() {
    crate::needs_python!();
    let many = 3 * limit::SUBSCRIPTIONS_OPENING_MAX;
    let upstream = Verbatim::start("legacy", move |heard| match heard.method.as_str() {
        "resources/list" => {
            let all: Vec<_> =
                (0..many).map(|number| json!({ "uri": format!("test://{number}"), "name": "r" })).collect();
            Said::result(&json!({ "resources": all }).to_string())
        }
        // It begins to answer, and never ends.
        "resources/subscribe" => {
            let before = vec![r#"{"jsonrpc":"2.0","method":"notifications/x"}"#.to_owned()];
            Some(Said { before, waits: true, ..Said::result("{}")? })
        }
        _ => None,
    })
    .await;
    let issuer = Issuer::start().await;
    let gateway = upstream.served(Setup::new(&issuer).policy(RULES), "http").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("the resources", async || {
        let listed = client.modern("resources/list", json!({})).await;
        listed.response()["result"]["resources"].as_array().is_some_and(|all| all.len() == many)
    })
    .await;
    let uris: Vec<_> = (0..many).map(|number| format!("test://{number}")).collect();
    let wanted = json!({ "notifications": { "resourceSubscriptions": uris } });
    let (headers, body) = modern_request("subscriptions/listen", wanted);
    let began = Instant::now();
    let opening = tokio::spawn(async move { client.stream(&headers, Some(body.to_string())).await });
    // The session asks for one after the other, and each that is asked for is a call of its own.
    let asked = || gateway.records("intent").len();
    eventually("the first to be asked for", async || asked() == limit::SUBSCRIPTIONS_OPENING_MAX).await;
    tokio::time::sleep(Duration::from_millis(700)).await;
    assert_eq!(asked(), limit::SUBSCRIPTIONS_OPENING_MAX);
    assert!(!upstream.heard("resources/subscribe").is_empty());
    let first = opening.await.unwrap().text().await;
    assert!(first.contains("notifications/subscriptions/acknowledged"), "{first}");
    let (took, max) = (began.elapsed(), limit::LISTEN_ACKNOWLEDGE_WAIT);
    assert!(took >= max && took < 2 * max, "{took:?}");
}

/// A legacy server that takes the request for a session's own stream and says nothing to it. Its answer to a call
/// breaks off, and it asks to be left alone for an hour before it goes on.
async fn breaks_off(State(()): State<()>, verb: Method, headers: HeaderMap, body: String) -> Response<Body> {
    let empty = |status: u16| Response::builder().status(status).body(Body::empty()).unwrap();
    let result = |id: &Value, result: Value| json!({ "jsonrpc": "2.0", "id": id, "result": result }).to_string();
    if verb == Method::GET {
        // The event's id says which request it belongs to.
        let Some(id) = headers.get("last-event-id") else { return std::future::pending().await };
        let answer = result(&json!(id.to_str().unwrap().parse::<u64>().unwrap()), text("resumed"));
        return raw("text/event-stream", format!("data: {answer}\n\n"));
    } else if verb != Method::POST {
        return empty(405);
    }
    let message: Value = serde_json::from_str(&body).unwrap();
    let id = &message["id"];
    match message["method"].as_str() {
        Some("initialize") => raw(
            "application/json",
            result(
                id,
                json!({ "protocolVersion": "2025-11-25",
            "capabilities": { "tools": {} }, "serverInfo": { "name": "s", "version": "1" } }),
            ),
        ),
        Some("tools/list") => raw("application/json", result(id, json!({ "tools": [tool("slow")] }))),
        Some("tools/call") => raw("text/event-stream", format!("id: {id}\nretry: 3600000\ndata:\n\n")),
        Some(_) if id.is_null() => empty(202),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            raw("application/json", json!({ "jsonrpc": "2.0", "id": id, "error": error }).to_string())
        }
    }
}

async fn breaking_off() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/mcp", any(breaks_off)).with_state(());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

#[tokio::test]
async fn the_own_stream_of_a_session_is_waited_for_so_long_before_its_first_call() {
    let url = breaking_off().await;
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).policy(&may_ask(&["elicit"])).http_server("tools", &url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("the tools", async || client.tool_names().await == ["tools__slow"]).await;
    let began = Instant::now();
    let params = json!({ "name": "tools__slow", "arguments": {} });
    assert_eq!(call(&client, &all_capabilities(), params).await.tool_text(), "resumed");
    let (took, max) = (began.elapsed(), limit::OWN_STREAM_WAIT + limit::RESUME_PAUSE_MAX);
    assert!(took >= max && took < max + limit::OWN_STREAM_WAIT, "{took:?}");
}

#[tokio::test]
async fn a_server_that_asks_for_a_long_pause_gets_a_short_one() {
    let url = breaking_off().await;
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("tools", &url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("the tools", async || client.tool_names().await == ["tools__slow"]).await;
    let began = Instant::now();
    assert_eq!(client.call_tool("tools__slow", json!({})).await.tool_text(), "resumed");
    let (took, max) = (began.elapsed(), limit::RESUME_PAUSE_MAX);
    assert!(took >= max && took < 2 * max, "{took:?}");
}

/// A server that says much that nobody asked for, on whichever stream.
const SERVER: &str = r#"
import json, signal, sys, time

def say(text, stream=sys.stdout):
    stream.write(text)
    stream.flush()

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message.get("method"), message.get("params", {})
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "child", "version": "1"}}
    elif method == "tools/list":
        names = ("line", "noise", "error-line", "error-lines", "deaf")
        answer["result"] = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}
    elif method == "tools/call":
        name, count = params["name"], params["arguments"].get("count", 0)
        if name == "line":
            # What is within the bound is a message; what is beyond never ends.
            if count:
                say('{"x":"' + "y" * count)
                time.sleep(600)
        elif name == "noise":
            say("a banner\n" * count)
        elif name == "error-line":
            say("begin" + "y" * count + "\nnext\n", sys.stderr)
        elif name == "error-lines":
            say("".join(f"line {number}\n" for number in range(count)), sys.stderr)
        elif name == "deaf":
            for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
        answer["result"] = {"content": [{"type": "text", "text": "done"}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    say(json.dumps(answer) + "\n")
while True:
    time.sleep(1)
"#;

async fn noisy(mark: &str) -> (Issuer, Gateway, crate::support::client::Client) {
    let issuer = Issuer::start().await;
    let command = [python(), "-c".to_owned(), SERVER.to_owned(), mark.to_owned()];
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let gateway = Setup::new(&issuer).stdio_server("child", &command, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("the tools", async || client.tool_names().await.len() == 5).await;
    (issuer, gateway, client)
}

#[tokio::test]
async fn a_line_of_a_process_that_never_ends_ends_its_calls() {
    crate::needs_python!();
    let (_issuer, _gateway, client) = noisy("mark=line").await;
    let began = Instant::now();
    let answer = client.call_tool("child__line", json!({ "count": limit::PROCESS_LINE_BYTES_MAX + 1 })).await;
    assert_eq!(reason(&answer), "upstream_garbage", "{}", answer.text);
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    // Another process serves the next call.
    assert_eq!(client.call_tool("child__line", json!({})).await.tool_text(), "done");
}

#[tokio::test]
async fn so_many_lines_that_are_no_messages_are_passed_over() {
    crate::needs_python!();
    let (_issuer, _gateway, client) = noisy("mark=noise").await;
    let most = limit::PROCESS_NOISE_LINES_MAX - 1;
    assert_eq!(client.call_tool("child__noise", json!({ "count": most })).await.tool_text(), "done");
    let answer = client.call_tool("child__noise", json!({ "count": 1 })).await;
    assert_eq!(reason(&answer), "upstream_garbage", "{}", answer.text);
}

#[tokio::test]
async fn what_a_process_says_of_its_errors_is_logged_within_bounds() {
    crate::needs_python!();
    let (_issuer, gateway, client) = noisy("mark=errors").await;
    let longer = 3 * limit::PROCESS_ERROR_LINE_BYTES_MAX;
    client.call_tool("child__error-line", json!({ "count": longer })).await;
    eventually("the next line", async || gateway.log().contains("\"next\"")).await;
    let log = gateway.log();
    let line = log.lines().find(|line| line.contains("\"begin")).unwrap();
    let shown = line.split("\"begin").nth(1).unwrap().bytes().filter(|byte| *byte == b'y').count();
    assert_eq!(shown + "begin".len(), limit::PROCESS_ERROR_LINE_BYTES_MAX);
    // A second that begins meanwhile lets as many more through.
    client.call_tool("child__error-lines", json!({ "count": 5_000 })).await;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let shown = gateway.log().matches("stderr: \"line ").count();
    let most = usize::try_from(limit::PROCESS_ERROR_LINES_PER_SECOND_MAX).unwrap();
    assert!(shown >= most - 2 && shown <= 3 * most, "{shown}");
}

#[tokio::test]
async fn a_process_that_ends_neither_by_itself_nor_when_it_is_told_is_killed_after_its_graces() {
    crate::needs_python!();
    let mark = format!("mark={}", ulid::Ulid::generate());
    let (_issuer, mut gateway, client) = noisy(&mark).await;
    assert_eq!(client.call_tool("child__deaf", json!({})).await.tool_text(), "done");
    assert!(!marked(&mark).is_empty());
    let began = Instant::now();
    assert!(gateway.stop().await.success());
    let took = began.elapsed();
    let graces = limit::PROCESS_STOP_GRACE + limit::PROCESS_TERM_GRACE;
    assert!(took >= graces && took < graces + limit::PROCESS_KILL_WAIT + Duration::from_secs(2), "{took:?}");
    assert_eq!(marked(&mark), Vec::<u64>::new());
}
