//! Tasks as the extension has them, at a server that speaks it after `initialize`.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::peer::{Peer, Reached};
use crate::support::scripted::tool;
use crate::tasks::{EXTENSION, INNER, Task, ask, begin, extension, listen_to, start, working};

/// A server of 2025-11-25 that announces the extension.
async fn extended(state: &Task) -> Peer {
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
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(working()));
    let upstream = extended(&state).await;
    let (_gateway, client) = start(&issuer, &upstream).await;
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
    let issuer = Issuer::start().await;
    let upstream = extended(&Task::new(Mutex::new(working()))).await;
    let (_gateway, client) = start(&issuer, &upstream).await;
    // It answers with a task all the same.
    let answer = client.call_tool("tools__job", json!({})).await;
    assert_eq!(answer.result()["resultType"], "complete", "{}", answer.text);
    assert_eq!(declared(&upstream), [json!({}), json!({})], "the gateway's session and the caller's");
}

#[tokio::test]
async fn a_legacy_client_has_one_session_and_its_task_is_awaited() {
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(working()));
    let upstream = extended(&state).await;
    let (_gateway, client) = start(&issuer, &upstream).await;
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
    let issuer = Issuer::start().await;
    let upstream = extended(&Task::new(Mutex::new(working()))).await;
    let (_gateway, client) = start(&issuer, &upstream).await;
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
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.py");
    std::fs::write(&path, PROCESS).unwrap();
    let issuer = Issuer::start().await;
    let command = [&crate::support::python(), &*path.display().to_string()].map(str::to_owned);
    let gateway = Setup::new(&issuer).stdio_server("tools", &command.each_ref().map(String::as_str), "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    assert_eq!(ask(&client, "tasks/cancel", json!({ "taskId": id })).await.result()["resultType"], "complete");
    let told = stream.next().await;
    assert_eq!((&told["params"]["taskId"], &told["params"]["status"]), (&json!(id), &json!("cancelled")), "{told}");
}
