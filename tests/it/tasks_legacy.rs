//! Tasks as the extension has them, at a server that speaks it after `initialize`.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Client, Stream};
use crate::support::eventually;
use crate::support::peer::{Peer, Reached};
use crate::support::scripted::tool;
use crate::tasks::{
    EXTENSION, INNER, Task, ask, begin, experiment, extension, listen_to, started, started_process, working,
};

/// A server of 2025-11-25 that announces the extension.
pub async fn extended(state: &Task) -> Peer {
    let state = Arc::clone(state);
    let tools = json!([tool("job"), tool("plain")]);
    Peer::legacy(json!({ "extensions": { EXTENSION: {} } }), tools, move |request| {
        // It knows no `Mcp-Name`.
        let named = request.params["taskId"].as_str().unwrap_or_default().to_owned();
        assert_eq!(request.name, "");
        extension(&Reached { name: named, ..request.clone() }, &state)
    })
    .await
}

/// What the sessions of a server declared.
fn declared(upstream: &Peer) -> Vec<Value> {
    upstream.reached("initialize").into_iter().map(|one| one.params["capabilities"].clone()).collect()
}

#[tokio::test]
async fn a_server_that_speaks_the_extension_after_initialize_has_tasks_for_modern_clients() {
    let (_issuer, state, upstream, _gateway, client) = started(extended, working()).await;
    let id = begin(&client).await;
    assert!(declared(&upstream).contains(&json!({ "extensions": { EXTENSION: {} } })), "{:?}", declared(&upstream));
    let seen = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!((seen.result()["taskId"].as_str(), &seen.result()["status"]), (Some(&*id), &json!("working")));
    assert!(!seen.text.contains(INNER), "{}", seen.text);
    let update = json!({ "taskId": id, "inputResponses": { "unknown": { "x": 1 } } });
    assert_eq!(ask(&client, "tasks/update", update).await.result()["resultType"], "complete");
    assert_eq!(upstream.reached("tasks/update")[0].params["inputResponses"], json!({ "unknown": { "x": 1 } }));
    assert_eq!(ask(&client, "tasks/cancel", json!({ "taskId": id })).await.result()["resultType"], "complete");
    *state.lock().unwrap() = json!({ "status": "completed", "result": { "content": [], "x": 1 } });
    let done = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(done.result()["result"], json!({ "content": [], "x": 1 }), "{}", done.text);
}

#[tokio::test]
async fn a_session_whose_client_did_not_declare_tasks_is_answered_with_none() {
    let (_issuer, _state, upstream, _gateway, client) = started(extended, working()).await;
    // It answers with a task all the same.
    let answer = client.call_tool("tools__job", json!({})).await;
    assert_eq!(answer.result()["resultType"], "complete", "{}", answer.text);
    assert_eq!(declared(&upstream), [json!({}), json!({})], "the gateway's session and the caller's");
}

#[tokio::test]
async fn a_legacy_client_has_one_session_and_its_task_is_awaited() {
    let (_issuer, state, upstream, _gateway, client) = started(extended, working()).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "tools__job", "arguments": {} });
    let (calling, calling_in) = (client.clone(), session.clone());
    let calling = tokio::spawn(async move { calling.legacy(&calling_in, "tools/call", params).await });
    eventually("the task to be asked for", async || upstream.reached("tasks/get").len() > 1).await;
    *state.lock().unwrap() =
        json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "at last" }] } });
    assert_eq!(calling.await.unwrap().tool_text(), "at last");
    client.legacy(&session, "tools/call", json!({ "name": "tools__plain", "arguments": {} })).await;
    assert_eq!(declared(&upstream), [json!({}), json!({ "extensions": { EXTENSION: {} } })]);
}

#[tokio::test]
async fn a_listen_hears_what_such_a_server_tells_its_session_of_the_task() {
    let (_issuer, _state, upstream, _gateway, client) = started(extended, working()).await;
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    assert!(upstream.reached("subscriptions/listen").is_empty(), "it does not know that");
    upstream.tell(json!({ "taskId": "another", "status": "working", "ttlMs": null }));
    upstream.tell(json!({ "taskId": INNER, "status": "completed", "ttlMs": null, "result": { "content": [] } }));
    let done = stream.next().await;
    assert_eq!((&done["params"]["taskId"], &done["params"]["status"]), (&json!(id), &json!("completed")), "{done}");
}

/// A process of 2025-11-25 with the extension, which tells of its task when the task is cancelled.
const PROCESS: &str = r#"
import json, sys

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

EXTENSION = "io.modelcontextprotocol/tasks"
TASK = {"taskId": "inner-7f3a", "createdAt": "2026-11-24T10:00:00Z", "lastUpdatedAt": "2026-11-24T10:00:00Z",
        "ttlMs": None}
declared = False
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "initialize":
        declared = EXTENSION in params["capabilities"].get("extensions", {})
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "child", "version": "1"},
                                  "capabilities": {"tools": {}, "extensions": {EXTENSION: {}}}}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": "job", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call" and declared:
        say({"id": id, "result": {**TASK, "resultType": "task", "status": "working"}})
    elif method == "tasks/cancel":
        say({"method": "notifications/tasks", "params": {**TASK, "status": "cancelled"}})
        say({"id": id, "result": {"resultType": "complete"}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

#[tokio::test]
async fn a_listen_hears_what_such_a_process_tells_of_the_task() {
    crate::needs_python!();
    let (_issuer, _directory, _gateway, client) = started_process(PROCESS, |setup| setup).await;
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    assert_eq!(ask(&client, "tasks/cancel", json!({ "taskId": id })).await.result()["resultType"], "complete");
    let told = stream.next().await;
    assert_eq!((&told["params"]["taskId"], &told["params"]["status"]), (&json!(id), &json!("cancelled")), "{told}");
}

/// The own stream of a legacy session.
async fn own_stream(client: &Client, session: &str) -> Stream {
    let headers = [("mcp-session-id", session.to_owned()), ("accept", "text/event-stream".to_owned())];
    client.stream(&headers, None).await
}

/// A task of 2025-11-25 that the client asked for and follows itself.
async fn follow(client: &Client, session: &str) -> String {
    let params = json!({ "name": "tools__either", "arguments": {}, "task": { "ttl": 60_000 } });
    let created = client.legacy(session, "tools/call", params).await;
    created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned()
}

/// The first state of a task that is heard of: it is listened for by and by.
async fn heard(stream: &mut Stream, tell: impl AsyncFn()) -> Value {
    for _ in 0..100 {
        tell().await;
        while let Some(told) = stream.next_within(Duration::from_millis(100)).await {
            if told["method"] == "notifications/tasks/status" {
                return told;
            }
        }
    }
    panic!("nothing was told of the task")
}

/// The same until a state is told that is the right one.
async fn heard_that(stream: &mut Stream, tell: impl AsyncFn(), is_it: impl Fn(&Value) -> bool) {
    for _ in 0..100 {
        if is_it(&heard(stream, &tell).await["params"]) {
            return;
        }
    }
    panic!("nothing like that was told of the task")
}

#[tokio::test]
async fn a_legacy_client_hears_of_the_state_of_its_task_on_the_stream_of_its_session() {
    let (issuer, _state, upstream, gateway, client) = started(experiment, working()).await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let sessions = [client.initialize("2025-11-25").await.1, bob.initialize("2025-11-25").await.1];
    let mut stream = own_stream(&client, &sessions[0]).await;
    let mut others = own_stream(&bob, &sessions[1]).await;
    let id = follow(&client, &sessions[0]).await;
    let tell = async || {
        upstream.tell_status(json!({ "taskId": "another", "status": "working" }));
        upstream.tell_status(json!({ "taskId": INNER, "status": "working", "statusMessage": "half way", "odd": 1.5,
            "_meta": { "x": 1, "io.modelcontextprotocol/related-task": { "taskId": INNER } } }));
    };
    let told = heard(&mut stream, tell).await;
    let expected =
        json!({ "taskId": id, "status": "working", "statusMessage": "half way", "odd": 1.5, "_meta": { "x": 1 } });
    assert_eq!(told["params"], expected, "{told}");
    assert!(upstream.reached("subscriptions/listen").is_empty(), "it does not know that");
    let listens = || {
        let intents = gateway.records("intent");
        intents.into_iter().filter(|intent| intent["mcp"]["method"] == "subscriptions/listen").count()
    };
    eventually("what is heard to be on the record", async || listens() == 1).await;
    while let Some(told) = others.next_within(Duration::from_millis(200)).await {
        assert_ne!(told["method"], "notifications/tasks/status", "another's: {told}");
    }
}

/// A process of 2025-11-25 with tasks of that version, which tells of its task when it is nudged, and before its result.
const EXPERIMENT: &str = r#"
import json, sys

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

TASK = {"taskId": "inner-7f3a", "status": "working", "createdAt": "2026-11-24T10:00:00Z",
        "lastUpdatedAt": "2026-11-24T10:00:00Z", "ttl": None}
token = None
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "child", "version": "1"},
             "capabilities": {"tools": {}, "tasks": {"requests": {"tools": {"call": {}}}}}}})
    elif method == "tools/list":
        tools = [{"name": "either", "execution": {"taskSupport": "optional"}}, {"name": "nudge"}, {"name": "end"}]
        say({"id": id, "result": {"tools": [{**tool, "inputSchema": {"type": "object"}} for tool in tools]}})
    elif method == "tools/call" and "task" in params:
        token = params.get("_meta", {}).get("progressToken")
        if token is not None:
            say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 0.25}})
        say({"id": id, "result": {"task": TASK}})
    elif method == "tools/call":
        status = "completed" if params["name"] == "end" else "working"
        say({"method": "notifications/tasks/status", "params": {**TASK, "status": status, "statusMessage": "nudged"}})
        if token is not None:
            say({"method": "notifications/progress", "params": {"progressToken": token, "progress": 0.50, "odd": 1.5}})
        say({"id": id, "result": {"content": []}})
    elif method == "tasks/get":
        say({"id": id, "result": {**TASK, "odd": 1.5}})
    elif method == "tasks/cancel":
        say({"id": id, "result": {**TASK, "status": "cancelled"}})
    elif method == "tasks/result":
        say({"method": "notifications/tasks/status", "params": {**TASK, "status": "completed"}})
        say({"id": id, "result": {"content": []}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

#[tokio::test]
async fn what_a_process_tells_of_a_task_reaches_the_legacy_client_that_follows_or_awaits_it() {
    let (issuer, _directory, gateway, client) = started_process(EXPERIMENT, |setup| setup).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let mut stream = own_stream(&client, &session).await;
    let id = follow(&client, &session).await;
    let nudge = async || {
        let params = json!({ "name": "tools__nudge", "arguments": {} });
        assert!(client.legacy(&session, "tools/call", params).await.result()["content"].is_array());
    };
    let told = heard(&mut stream, nudge).await;
    assert_eq!((&told["params"]["taskId"], &told["params"]["statusMessage"]), (&json!(id), &json!("nudged")), "{told}");
    for (method, status) in [("tasks/get", "working"), ("tasks/cancel", "cancelled")] {
        let seen = client.legacy(&session, method, json!({ "taskId": id })).await;
        let task = (seen.result()["taskId"].as_str(), seen.result()["status"].as_str());
        assert_eq!(task, (Some(&*id), Some(status)), "{method}: {}", seen.text);
        assert!(!seen.text.contains(INNER), "{}", seen.text);
    }
    // A token that came later hears of it too, and is told what it may have missed.
    drop(stream);
    let again = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let mut stream = own_stream(&again, &session).await;
    heard_that(&mut stream, async || (), |task| task["taskId"] == id && task["odd"] == 1.5).await;
    let listens = || {
        let intents = gateway.records("intent");
        intents.into_iter().filter(|intent| intent["mcp"]["method"] == "subscriptions/listen").count()
    };
    eventually("both listens on the record", async || listens() == 2).await;
    // Once it is over no token listens to it again: its server says nothing more of it.
    let params = json!({ "name": "tools__end", "arguments": {} });
    let end = async || drop(client.legacy(&session, "tools/call", params.clone()).await);
    heard_that(&mut stream, end, |task| task["status"] == "completed").await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    drop(stream);
    let third = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let mut stream = own_stream(&third, &session).await;
    let second = follow(&third, &session).await;
    heard_that(&mut stream, nudge, |task| task["taskId"] == second).await;
    eventually("what is followed since on the record", async || listens() >= 3).await;
    assert_eq!(listens(), 3);
    // Whoever waits for the result is told there.
    let result = client.legacy(&session, "tasks/result", json!({ "taskId": id })).await;
    assert!(result.result()["content"].is_array(), "{}", result.text);
    let told = &result.messages[0];
    assert_eq!(
        (&told["method"], &told["params"]["taskId"], &told["params"]["status"]),
        (&json!("notifications/tasks/status"), &json!(id), &json!("completed")),
        "{}",
        result.text
    );
}

/// The first progress that is heard of, which is said again and again: it is listened for by and by.
async fn progress(stream: &mut Stream, tell: impl AsyncFn()) -> Value {
    for _ in 0..100 {
        tell().await;
        while let Some(told) = stream.next_within(Duration::from_millis(100)).await {
            if told["method"] == "notifications/progress" {
                return told["params"].clone();
            }
        }
    }
    panic!("nothing was told of its progress")
}

/// A task of 2025-11-25 that the client asked for, and wants to hear the progress of.
async fn report(client: &Client, session: &str) -> Answer {
    let params = json!({ "name": "tools__either", "arguments": {}, "task": {}, "_meta": { "progressToken": "mine" } });
    client.legacy(session, "tools/call", params).await
}

#[tokio::test]
async fn how_far_a_task_is_reaches_the_legacy_client_that_follows_it_for_as_long_as_it_goes_on() {
    let (issuer, _state, upstream, gateway, client) = started(experiment, working()).await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let sessions = [client.initialize("2025-11-25").await.1, bob.initialize("2025-11-25").await.1];
    let mut stream = own_stream(&client, &sessions[0]).await;
    let mut others = own_stream(&bob, &sessions[1]).await;
    report(&client, &sessions[0]).await;
    report(&bob, &sessions[1]).await;
    let tokens = upstream.reached("tools/call");
    let [token, other] = [0, 1].map(|at| tokens[at].params["_meta"]["progressToken"].clone());
    assert!(token.is_string() && token != other && token != "mine", "{token} {other}");
    let tell = async || {
        upstream.tell_progress(json!({ "progressToken": "mine", "progress": 1 }));
        upstream.tell_progress(json!({ "progressToken": token, "progress": 0.5, "odd": 1.5,
            "_meta": { "x": 1, "io.modelcontextprotocol/related-task": { "taskId": INNER } } }));
    };
    let told = progress(&mut stream, tell).await;
    assert_eq!(told, json!({ "progressToken": "mine", "progress": 0.5, "odd": 1.5, "_meta": { "x": 1 } }));
    while let Some(told) = others.next_within(Duration::from_millis(200)).await {
        assert_ne!(told["method"], "notifications/progress", "another's: {told}");
    }
}

#[tokio::test]
async fn a_process_tells_how_far_a_task_is_within_its_call_and_after_it() {
    crate::needs_python!();
    let (_issuer, _directory, _gateway, client) = started_process(EXPERIMENT, |setup| setup).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let mut stream = own_stream(&client, &session).await;
    let created = report(&client, &session).await;
    assert!(created.result()["task"]["taskId"].is_string(), "{}", created.text);
    assert_eq!(created.messages[0]["params"], json!({ "progressToken": "mine", "progress": 0.25 }), "{}", created.text);
    let nudge = async || {
        let params = json!({ "name": "tools__nudge", "arguments": {} });
        let nudged = client.legacy(&session, "tools/call", params).await;
        assert!(!nudged.text.contains("notifications/progress"), "not that call's: {}", nudged.text);
    };
    let told = progress(&mut stream, nudge).await;
    assert_eq!(told, json!({ "progressToken": "mine", "progress": 0.5, "odd": 1.5 }));
}

/// A process of 2026-07-28 with the extension, which tells those who listen when its task is cancelled.
pub const MODERN: &str = r#"
import json, sys

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

KEPT = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
TASK = {"taskId": "inner-7f3a", "createdAt": "2026-11-24T10:00:00Z", "lastUpdatedAt": "2026-11-24T10:00:00Z",
        "ttlMs": None}
listens = []
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "server/discover":
        say({"id": id, "result": {**KEPT, "supportedVersions": ["2026-07-28"], "capabilities":
             {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}}})
    elif method == "tools/list":
        say({"id": id, "result": {**KEPT, "tools": [{"name": "job", "inputSchema": {"type": "object"}}]}})
    elif method == "tools/call":
        say({"id": id, "result": {**TASK, "resultType": "task", "status": "working"}})
    elif method == "subscriptions/listen":
        tag = {"io.modelcontextprotocol/subscriptionId": id}
        if "taskIds" in params["notifications"]:
            listens.append(tag)
        say({"method": "notifications/subscriptions/acknowledged",
             "params": {"notifications": params["notifications"], "_meta": tag}})
    elif method == "tasks/cancel":
        for tag in listens:
            say({"method": "notifications/tasks", "params": {**TASK, "status": "cancelled", "odd": 1.5, "_meta": tag}})
        say({"id": id, "result": {"resultType": "complete"}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

#[tokio::test]
async fn a_listen_hears_what_a_modern_process_tells_of_the_task() {
    let (_issuer, _directory, _gateway, client) = started_process(MODERN, |setup| setup).await;
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    assert_eq!(ask(&client, "tasks/cancel", json!({ "taskId": id })).await.result()["resultType"], "complete");
    let told = stream.next().await;
    assert_eq!((&told["method"], &told["params"]["taskId"]), (&json!("notifications/tasks"), &json!(id)), "{told}");
    assert_eq!((&told["params"]["status"], &told["params"]["odd"]), (&json!("cancelled"), &json!(1.5)), "{told}");
    assert!(!told.to_string().contains(INNER), "{told}");
}
