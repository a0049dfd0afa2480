//! Tasks: calls that go on after their answer, in both ways that servers have them, for clients of both eras.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::{Answer, Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::peer::{self, Peer, Reached};
use crate::support::scripted::{Scripted, tool};

pub const EXTENSION: &str = "io.modelcontextprotocol/tasks";
pub const INNER: &str = "inner-7f3a";

/// What a scripted task does when it is asked for.
pub type Task = Arc<Mutex<Value>>;

pub fn working() -> Value {
    json!({ "status": "working" })
}

/// A server of 2026-07-28 whose tool `job` becomes a task in the state that the test sets; `plain` answers at once.
pub async fn modern(state: &Task) -> Peer {
    let state = Arc::clone(state);
    let tools = json!([tool("job"), tool("plain")]);
    Peer::modern(json!({ "extensions": { EXTENSION: {} } }), tools, move |request| extension(request, &state)).await
}

pub fn extension(request: &Reached, state: &Task) -> peer::Answer {
    let mut task = json!({ "taskId": INNER, "createdAt": "2026-11-24T10:00:00Z",
        "lastUpdatedAt": "2026-11-24T10:00:00Z", "ttlMs": null, "pollIntervalMs": 1, "com.example/odd": 1.5 });
    let known = request.params["taskId"] == INNER && request.name == INNER;
    match request.method.as_str() {
        "tools/call" if request.params["name"] == "job" => {
            task["resultType"] = json!("task");
            task["status"] = json!("working");
            Ok(task)
        }
        "tools/call" => Ok(json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] })),
        "tasks/get" if known => {
            task["resultType"] = json!("complete");
            for (key, value) in state.lock().unwrap().as_object().unwrap() {
                task[key] = value.clone();
            }
            Ok(task)
        }
        "tasks/update" | "tasks/cancel" if known => Ok(json!({ "resultType": "complete" })),
        _ => peer::error(-32602, "Task not found"),
    }
}

/// A server of 2025-11-25 with tasks of that version; `job` insists on them, `either` takes them.
pub async fn experiment(state: &Task) -> Peer {
    let state = Arc::clone(state);
    let with = |name: &str, support: &str| {
        let mut tool = tool(name);
        tool["execution"] = json!({ "taskSupport": support });
        tool
    };
    let tools = json!([with("job", "required"), with("either", "optional"), tool("plain")]);
    let capabilities = json!({ "tasks": { "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } } });
    Peer::legacy(capabilities, tools, move |request| experimental(request, &state)).await
}

fn experimental(request: &Reached, state: &Task) -> peer::Answer {
    let mut task = json!({ "taskId": INNER, "status": "working", "createdAt": "2026-11-24T10:00:00Z",
        "lastUpdatedAt": "2026-11-24T10:00:00Z", "ttl": 60000, "pollInterval": 1, "com.example/odd": 1.5 });
    let state = state.lock().unwrap().clone();
    let known = request.params["taskId"] == INNER;
    match request.method.as_str() {
        "tools/call" if request.params.get("task").is_some() => Ok(json!({ "task": task })),
        "tools/call" if request.params["name"] == "job" => peer::error(-32601, "a task is required"),
        "tools/call" => Ok(json!({ "content": [{ "type": "text", "text": "done" }] })),
        "tasks/get" if state.get("broken").is_some() => peer::error(-32603, "it is broken"),
        "tasks/get" if known => {
            task["status"] = state["status"].clone();
            if let Some(said) = state.get("statusMessage") {
                task["statusMessage"] = said.clone();
            }
            Ok(task)
        }
        "tasks/cancel" if known && state["status"] != "working" => peer::error(-32602, "it is over"),
        "tasks/cancel" if known => {
            task["status"] = json!("cancelled");
            Ok(task)
        }
        "tasks/result" if known && state.get("error").is_some() => Err(state["error"].clone()),
        "tasks/result" if known => {
            let mut result = state["result"].clone();
            result["_meta"]["io.modelcontextprotocol/related-task"]["taskId"] = json!(INNER);
            Ok(result)
        }
        _ => peer::error(-32602, "Task not found"),
    }
}

pub async fn start(issuer: &Issuer, upstream: &Peer) -> (Gateway, Client) {
    let gateway = Setup::new(issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (gateway, client)
}

/// A server that has tasks in this way, in this state, and a gateway and a client in front of it.
pub async fn started(server: impl AsyncFnOnce(&Task) -> Peer, state: Value) -> (Issuer, Task, Peer, Gateway, Client) {
    let (issuer, state) = (Issuer::start().await, Task::new(Mutex::new(state)));
    let upstream = server(&state).await;
    let (gateway, client) = start(&issuer, &upstream).await;
    (issuer, state, upstream, gateway, client)
}

/// The same with a process that runs this script, which lies in a directory of its own.
pub async fn started_process(
    script: &str,
    more: impl FnOnce(Setup) -> Setup,
) -> (Issuer, tempfile::TempDir, Gateway, Client) {
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let path = directory.path().join("server.py");
    std::fs::write(&path, script).unwrap();
    let (python, path) = (crate::support::python(), path.display().to_string());
    let gateway = more(Setup::new(&issuer).stdio_server("tools", &[&python, &path], "")).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    // On a busy machine a process takes longer to start than a first call waits for its tools.
    eventually("the tools of the process", async || {
        let listed = client.modern("tools/list", json!({})).await;
        listed.response()["result"]["tools"].as_array().is_some_and(|tools| !tools.is_empty())
    })
    .await;
    (issuer, directory, gateway, client)
}

/// A modern request of a client that declared the extension.
pub async fn ask(client: &Client, method: &str, params: Value) -> Answer {
    let (mut headers, mut body) = modern_request(method, params);
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "extensions": { EXTENSION: {} } });
    if let Some(id) = body["params"]["taskId"].as_str() {
        headers.push(("mcp-name", id.to_owned()));
    }
    client.post(&headers, body.to_string()).await
}

/// The same of a client whose user can be asked as well.
pub async fn ask_askable(client: &Client, method: &str, params: Value) -> Answer {
    let (mut headers, mut body) = modern_request(method, params);
    let capabilities = json!({ "elicitation": { "form": {} }, "extensions": { EXTENSION: {} } });
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities;
    if let Some(id) = body["params"]["taskId"].as_str() {
        headers.push(("mcp-name", id.to_owned()));
    }
    client.post(&headers, body.to_string()).await
}

async fn call(client: &Client, tool: &str) -> Answer {
    ask(client, "tools/call", json!({ "name": tool, "arguments": {} })).await
}

/// The id of a task that a call of `job` became.
pub async fn begin(client: &Client) -> String {
    let answer = call(client, "tools__job").await;
    assert_eq!(answer.result()["resultType"], "task", "{}", answer.text);
    answer.result()["taskId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_task_is_followed_under_a_sealed_id_in_body_and_header() {
    let (_issuer, state, upstream, _gateway, client) = started(modern, working()).await;
    let answer = call(&client, "tools__job").await;
    assert!(!answer.text.contains(INNER), "{}", answer.text);
    let id = answer.result()["taskId"].as_str().unwrap().to_owned();
    let declared = &upstream.reached("tools/call")[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(declared["extensions"][EXTENSION], json!({}));

    let working = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!((working.result()["taskId"].as_str(), &working.result()["status"]), (Some(&*id), &json!("working")));
    assert!(working.text.contains("\"com.example/odd\":1.5") && !working.text.contains(INNER), "{}", working.text);
    let update = json!({ "taskId": id, "inputResponses": { "unknown": {} } });
    assert_eq!(ask(&client, "tasks/update", update).await.result(), &json!({ "resultType": "complete" }));
    *state.lock().unwrap() = json!({ "status": "completed", "result": { "content": [], "x": 1 } });
    let done = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(done.result()["result"], json!({ "content": [], "x": 1 }), "{}", done.text);
    assert_eq!(ask(&client, "tasks/cancel", json!({ "taskId": id })).await.result()["resultType"], "complete");
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let reached = upstream.reached(method);
        assert!(!reached.is_empty() && reached.iter().all(|one| one.name == INNER && one.params["taskId"] == INNER));
    }
    assert_eq!(upstream.reached("tasks/update")[0].params["inputResponses"], json!({ "unknown": {} }));
}

#[tokio::test]
async fn a_client_that_did_not_declare_tasks_gets_none_and_is_told_what_to_declare() {
    let (_issuer, _state, upstream, _gateway, client) = started(modern, working()).await;
    let answer = client.call_tool("tools__job", json!({})).await;
    assert!(answer.tool_text().contains("upstream_garbage") && !answer.text.contains(INNER), "{}", answer.text);
    let declared = &upstream.reached("tools/call")[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(declared, &json!({}));
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let (mut headers, body) = modern_request(method, json!({ "taskId": "any", "inputResponses": {} }));
        headers.push(("mcp-name", "any".to_owned()));
        let answer = client.post(&headers, body.to_string()).await;
        assert_eq!((answer.status, answer.error_code()), (400, -32021), "{}", answer.text);
        let needed = &answer.response()["error"]["data"]["requiredCapabilities"];
        assert_eq!(needed, &json!({ "extensions": { EXTENSION: {} } }));
    }
}

#[tokio::test]
async fn foreign_tampered_and_unknown_task_ids_are_the_same_bytes_and_reach_nobody() {
    let (issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    let other = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let mut tampered = id.clone().into_bytes();
    tampered[40] = if tampered[40] == b'A' { b'B' } else { b'A' };
    let tampered = String::from_utf8(tampered).unwrap();
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = |id: &str| json!({ "taskId": id, "inputResponses": {} });
        let unknown = ask(&client, method, params("no-such-task")).await;
        assert_eq!((unknown.status, unknown.error_code()), (200, -32602), "{}", unknown.text);
        for (client, id) in [(&other, &*id), (&client, &*tampered), (&client, INNER), (&client, "")] {
            assert_eq!(ask(client, method, params(id)).await.text, unknown.text, "{id}");
        }
        assert!(upstream.reached(method).is_empty());
    }
}

#[tokio::test]
async fn a_header_that_names_another_task_is_refused() {
    let (_issuer, _state, _upstream, _gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    let (mut headers, mut body) = modern_request("tasks/get", json!({ "taskId": id }));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "extensions": { EXTENSION: {} } });
    headers.push(("mcp-name", "another".to_owned()));
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32020), "{}", answer.text);
}

#[tokio::test]
async fn methods_of_the_older_tasks_do_not_exist_for_a_modern_client() {
    let (_issuer, _state, _upstream, _gateway, client) = started(modern, working()).await;
    for method in ["tasks/result", "tasks/list"] {
        let answer = client.modern(method, json!({ "taskId": "any" })).await;
        assert_eq!((answer.status, answer.error_code()), (404, -32601), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_task_of_a_tool_that_was_taken_away_is_unknown() {
    let (_issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/job, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    let gone = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    let unknown = ask(&client, "tasks/get", json!({ "taskId": "no-such-task" })).await;
    assert_eq!(gone.text, unknown.text);
    assert!(upstream.reached("tasks/get").is_empty());
}

#[tokio::test]
async fn a_condition_on_arguments_neither_stops_following_nor_lets_call() {
    let issuer = Issuer::start().await;
    let upstream = modern(&Task::new(Mutex::new(working()))).await;
    let only = "g, group:test/developers, role:developer, *\n\
                p, role:developer, *, tools/job, call, small, allow\np, agent:assistant, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(only)
        .policy_file("conditions.toml", "[small]\nargument = \"size\"\nat_most = 3\n")
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let with = |size: u32| ask(&client, "tools/call", json!({ "name": "tools__job", "arguments": { "size": size } }));
    assert!(with(4).await.tool_text().contains("condition_unmet"));
    let id = with(3).await.result()["taskId"].as_str().unwrap().to_owned();
    assert_eq!(ask(&client, "tasks/get", json!({ "taskId": id })).await.result()["status"], "working");
}

#[tokio::test]
async fn what_a_task_asks_is_decided_like_a_question_in_the_middle_of_a_call() {
    let issuer = Issuer::start().await;
    let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Sure?",
        "requestedSchema": { "type": "object", "properties": {} } } });
    let asks = json!({ "status": "input_required", "inputRequests": { "sure": question } });
    let upstream = modern(&Task::new(Mutex::new(asks))).await;
    let may = format!(
        "{DEVELOPERS_MAY}p, role:developer, *, */*, elicit, -, allow\np, agent:assistant, *, */*, elicit, -, allow\n"
    );
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&may).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let id = begin(&client).await;
    let asked = ask_askable(&client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(asked.result()["status"], "input_required", "{}", asked.text);
    let shown = &asked.result()["inputRequests"]["sure"];
    assert_eq!(shown["params"]["message"], "[tools] Sure?", "the server that asks is named: {}", asked.text);
    assert!(asked.result().get("requestState").is_none(), "{}", asked.text);
    let answers = json!({ "sure": { "action": "accept", "content": {} } });
    let update = json!({ "taskId": id, "inputResponses": answers });
    assert_eq!(ask_askable(&client, "tasks/update", update).await.result(), &json!({ "resultType": "complete" }));
    assert_eq!(upstream.reached("tasks/update")[0].params["inputResponses"], answers);
    // A client that did not say that it can be asked is not.
    let refused = ask(&client, "tasks/get", json!({ "taskId": id })).await;
    assert!(refused.text.contains("upstream_garbage") && !refused.text.contains("Sure?"), "{}", refused.text);
    gateway.write_policy(DEVELOPERS_MAY);
    assert!(gateway.command(&["reload"]).status.success());
    let refused = ask_askable(&client, "tasks/get", json!({ "taskId": id })).await;
    assert!(refused.text.contains("input_refused") && !refused.text.contains("Sure?"), "{}", refused.text);
}

#[tokio::test]
async fn after_a_revocation_nothing_is_told_of_a_task() {
    let (_issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    assert!(gateway.command(&["revoke", "subject", "user:test/alice"]).status.success());
    assert_eq!(ask(&client, "tasks/get", json!({ "taskId": id })).await.status, 401);
    assert!(upstream.reached("tasks/get").is_empty());
}

#[tokio::test]
async fn requests_about_a_task_are_recorded_as_legs_of_its_call() {
    let (_issuer, _state, _upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    ask(&client, "tasks/get", json!({ "taskId": id })).await;
    ask(&client, "tasks/cancel", json!({ "taskId": id })).await;
    let of = |method: &str| {
        let records = gateway.journal();
        let found = records.into_iter().find(|record| record["type"] == "intent" && record["mcp"]["method"] == method);
        found.unwrap_or_else(|| panic!("no intent of {method}"))
    };
    eventually("the last line", async || gateway.journal().iter().any(|one| one["mcp"]["method"] == "tasks/cancel"))
        .await;
    let first = of("tools/call");
    for method in ["tasks/get", "tasks/cancel"] {
        let leg = of(method);
        assert_eq!(leg["call"], first["call"], "{leg}");
        assert_ne!(leg["leg"], first["leg"]);
        assert_eq!(leg["mcp"]["name"], "job");
    }
}

#[tokio::test]
async fn the_extension_is_announced_where_a_visible_server_has_it() {
    let issuer = Issuer::start().await;
    let (tasks, plain) =
        (modern(&Task::new(Mutex::new(working()))).await, crate::support::scripted::Scripted::echo().await);
    let rules =
        format!("{DEVELOPERS_MAY}g, group:test/testers, role:tester, *\np, role:tester, *, plain/*, call, -, allow\n");
    let gateway = Setup::new(&issuer)
        .http_server("tools", &tasks.url, "")
        .http_server("plain", &plain.url, "")
        .policy(&rules)
        .start()
        .await;
    let announced = async |group: &str| {
        let client = gateway.client(&issuer.token("alice", &[group], &gateway.resource()));
        client.modern("server/discover", json!({})).await.result()["capabilities"].clone()
    };
    let capabilities = announced("developers").await;
    assert_eq!(capabilities["extensions"][EXTENSION], json!({}), "{capabilities}");
    assert!(capabilities.get("tasks").is_none());
    assert!(announced("testers").await.get("extensions").is_none());
}

#[tokio::test]
async fn a_legacy_client_gets_the_awaited_result_and_hears_of_progress() {
    let (_issuer, state, upstream, _gateway, client) =
        started(modern, json!({ "status": "working", "statusMessage": "half way" })).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "tools__job", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let calling = client.clone();
    let calling = tokio::spawn(async move { calling.legacy(&session, "tools/call", params).await });
    eventually("the task to be asked for", async || upstream.reached("tasks/get").len() > 1).await;
    *state.lock().unwrap() =
        json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "at last" }] } });
    let answer = calling.await.unwrap();
    assert_eq!(answer.tool_text(), "at last", "{}", answer.text);
    assert!(!answer.text.contains(INNER) && !answer.text.contains("resultType"), "{}", answer.text);
    let progress = &answer.messages[0];
    assert_eq!(progress["method"], "notifications/progress");
    assert_eq!(
        (&progress["params"]["progressToken"], &progress["params"]["message"]),
        (&json!("mine"), &json!("half way"))
    );
    let steps: Vec<_> = answer.messages.iter().filter_map(|one| one["params"]["progress"].as_i64()).collect();
    assert!(steps.is_sorted_by(|one, next| one < next), "{steps:?}");
    let declared = &upstream.reached("tools/call")[0].params["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    assert_eq!(declared["extensions"][EXTENSION], json!({}));
}

#[tokio::test]
async fn how_a_task_ends_is_how_the_call_of_a_legacy_client_ends() {
    let (_issuer, state, _upstream, _gateway, client) = started(modern, json!({})).await;
    let (_, session) = client.initialize("2025-11-25").await;
    for (end, text) in [
        (json!({ "status": "failed", "error": { "code": -32603, "message": "it broke" } }), "it broke"),
        (json!({ "status": "failed" }), "upstream_garbage"),
        (json!({ "status": "cancelled" }), "cancelled"),
        (json!({ "status": "completed" }), "upstream_garbage"),
        (json!({ "status": "odd" }), "upstream_garbage"),
        (json!({ "status": "completed", "result": { "content": [], "isError": true, "x": "own" } }), "\"own\""),
    ] {
        *state.lock().unwrap() = end;
        let params = json!({ "name": "tools__job", "arguments": {} });
        let answer = client.legacy(&session, "tools/call", params).await;
        assert!(answer.text.contains(text) && !answer.text.contains(INNER), "{text}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_legacy_client_is_asked_what_its_task_asks_and_the_task_goes_on() {
    let issuer = Issuer::start().await;
    let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Sure?",
        "requestedSchema": { "type": "object", "properties": {} } } });
    let state = Task::new(Mutex::new(json!({ "status": "input_required", "inputRequests": { "sure": question } })));
    let upstream = modern(&state).await;
    let rows = crate::input::may_ask(&["elicit"]);
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rows).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let session = begin_askable(&client).await;
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call",
        "params": { "name": "tools__job", "arguments": { "b": 1 } } });
    let headers = [("mcp-session-id", session.clone())];
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    let asked = stream.next().await;
    assert_eq!(
        (&asked["method"], &asked["params"]["message"]),
        (&json!("elicitation/create"), &json!("[tools] Sure?"))
    );
    let result = json!({ "action": "accept", "content": {} });
    *state.lock().unwrap() =
        json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "sure" }] } });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": result });
    assert_eq!(client.post(&headers, answer.to_string()).await.status, 202);
    let done = stream.next().await;
    assert_eq!(done["result"]["content"][0]["text"], "sure", "{done}");
    assert_eq!(upstream.reached("tasks/update")[0].params["inputResponses"], json!({ "sure": result }));
    assert_eq!(upstream.reached("tools/call").len(), 1, "the tool was called once");
    assert!(!done.to_string().contains(INNER), "{done}");
}

#[tokio::test]
async fn a_legacy_client_that_cancels_while_its_task_asks_cancels_the_task() {
    let issuer = Issuer::start().await;
    let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Sure?",
        "requestedSchema": { "type": "object", "properties": {} } } });
    let state = Task::new(Mutex::new(json!({ "status": "input_required", "inputRequests": { "sure": question } })));
    let upstream = modern(&state).await;
    let rows = crate::input::may_ask(&["elicit"]);
    let slow = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .http_server("slow", &slow.url, "")
        .limits("requests_per_second = 10000\nrequests_burst = 10000\ncalls_in_flight_max = 1\n")
        .policy(&rows)
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let session = begin_askable(&client).await;
    let mut stream = crate::input_legacy::stream(&client, &session, 5, "tools__job").await;
    assert_eq!(stream.next().await["method"], "elicitation/create");
    assert!(upstream.reached("tasks/cancel").is_empty());
    // It has as many calls under way as it may: the task is cancelled as soon as there is a place for that.
    slow.mute("tools/call");
    let waiting = client.clone();
    let waiting = tokio::spawn(async move { waiting.call_tool("slow__echo", json!({})).await });
    eventually("the other call to arrive", async || slow.calls().len() == 1).await;
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } });
    client.post(&[("mcp-session-id", session)], body.to_string()).await;
    let is_limited = |record: &Value| record.to_string().contains("concurrency_limited");
    eventually("the refusal on the record", async || gateway.journal().iter().any(is_limited)).await;
    assert!(upstream.reached("tasks/cancel").is_empty());
    slow.mute("");
    assert_eq!(waiting.await.unwrap().status, 200);
    eventually("the task to be cancelled", async || upstream.reached("tasks/cancel").len() == 1).await;
    assert_eq!(upstream.reached("tasks/cancel")[0].params["taskId"], INNER);
}

/// A legacy session of a client whose user can be asked.
async fn begin_askable(client: &Client) -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} },
        "clientInfo": { "name": "test", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    client.post(&[], body.to_string()).await.header("mcp-session-id").to_owned()
}

#[tokio::test]
async fn a_task_whose_question_may_not_be_asked_is_cancelled() {
    let issuer = Issuer::start().await;
    let question = json!({ "method": "elicitation/create", "params": { "message": "Sure?" } });
    let state = Task::new(Mutex::new(json!({ "status": "input_required", "inputRequests": { "sure": question } })));
    let upstream = modern(&state).await;
    let (_gateway, client) = start(&issuer, &upstream).await;
    let session = begin_askable(&client).await;
    let answer = client.legacy(&session, "tools/call", json!({ "name": "tools__job", "arguments": {} })).await;
    assert!(answer.text.contains("input_refused") && !answer.text.contains("Sure?"), "{}", answer.text);
    assert_eq!(upstream.reached("tasks/cancel").len(), 1);
}

#[tokio::test]
async fn a_legacy_client_that_cancels_cancels_the_task() {
    let (_issuer, _state, upstream, _gateway, client) = started(modern, working()).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let (calling, of) = (client.clone(), session.clone());
    let params = json!({ "name": "tools__job", "arguments": {} });
    let calling = tokio::spawn(async move { calling.legacy(&of, "tools/call", params).await });
    eventually("the task to be asked for", async || !upstream.reached("tasks/get").is_empty()).await;
    assert!(upstream.reached("tasks/cancel").is_empty());
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    client.post(&[("mcp-session-id", session)], body.to_string()).await;
    eventually("the task to be cancelled", async || upstream.reached("tasks/cancel").len() == 1).await;
    calling.abort();
}

#[tokio::test]
async fn a_task_is_followed_no_longer_than_a_call_may_take() {
    let issuer = Issuer::start().await;
    let upstream = modern(&Task::new(Mutex::new(working()))).await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "[servers.tools.health]\ncall_timeout = \"2s\"\n")
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let (_, session) = client.initialize("2025-11-25").await;
    let answer = client.legacy(&session, "tools/call", json!({ "name": "tools__job", "arguments": {} })).await;
    assert!(answer.tool_text().contains("upstream_timeout"), "{}", answer.text);
    assert_eq!(upstream.reached("tasks/cancel").len(), 1);
}

#[tokio::test]
async fn a_followed_task_ends_at_once_for_a_caller_who_is_revoked() {
    let (_issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "tools__job", "arguments": {} });
    let calling = tokio::spawn(async move { client.legacy(&session, "tools/call", params).await });
    eventually("the task to be asked for", async || !upstream.reached("tasks/get").is_empty()).await;
    assert!(gateway.command(&["revoke", "subject", "user:test/alice"]).status.success());
    let answer = tokio::time::timeout(Duration::from_secs(5), calling).await.expect("it ends").unwrap();
    assert!(answer.text.contains("revoked"), "{}", answer.text);
}

#[tokio::test]
async fn a_tool_that_insists_on_a_task_of_2025_is_a_task_of_the_extension_to_who_declared_it() {
    let (_issuer, state, upstream, _gateway, client) = started(experiment, working()).await;
    let capabilities = client.modern("server/discover", json!({})).await.result()["capabilities"].clone();
    assert_eq!(capabilities["extensions"][EXTENSION], json!({}), "{capabilities}");
    let answer = call(&client, "tools__job").await;
    let task = answer.result();
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{}", answer.text);
    assert_eq!((&task["ttlMs"], &task["pollIntervalMs"]), (&json!(60000), &json!(1)), "{}", answer.text);
    let id = task["taskId"].as_str().unwrap().to_owned();
    assert!(upstream.reached("tools/call")[0].params["task"]["ttl"].is_u64());

    let get = || ask(&client, "tasks/get", json!({ "taskId": id }));
    assert_eq!(get().await.result()["status"], "working");
    assert_eq!(
        ask(&client, "tasks/update", json!({ "taskId": id, "inputResponses": {} })).await.result()["resultType"],
        "complete"
    );
    *state.lock().unwrap() = json!({ "status": "failed", "result": { "content": [], "isError": true } });
    let done = get().await;
    assert_eq!(done.result()["status"], "completed", "an error of the tool is a result: {}", done.text);
    assert_eq!(done.result()["result"]["isError"], true);
    assert_eq!(done.result()["com.example/odd"], 1.5);
    assert!(!done.text.contains(INNER), "{}", done.text);
    *state.lock().unwrap() = json!({ "status": "failed", "error": { "code": -32603, "message": "it broke" } });
    let failed = get().await;
    assert_eq!(
        (&failed.result()["status"], &failed.result()["error"]["message"]),
        (&json!("failed"), &json!("it broke"))
    );
    // What is over cannot be cancelled in 2025-11-25, and is acknowledged in the extension.
    let cancelled = ask(&client, "tasks/cancel", json!({ "taskId": id })).await;
    assert_eq!(cancelled.result(), &json!({ "resultType": "complete" }), "{}", cancelled.text);
}

#[tokio::test]
async fn a_tool_that_insists_on_a_task_of_2025_is_awaited_for_who_did_not_declare_tasks() {
    let (_issuer, _state, upstream, _gateway, client) = started(
        experiment,
        json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "at last" }] } }),
    )
    .await;
    let answer = client.call_tool("tools__job", json!({})).await;
    assert_eq!(answer.tool_text(), "at last", "{}", answer.text);
    assert!(!answer.text.contains(INNER), "{}", answer.text);
    let (_, session) = client.initialize("2025-06-18").await;
    let body = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": { "name": "tools__job", "arguments": {} } });
    assert_eq!(client.post(&[("mcp-session-id", session)], body.to_string()).await.tool_text(), "at last");
    // Who may choose is not made to wait for a task.
    assert_eq!(client.call_tool("tools__either", json!({})).await.tool_text(), "done");
    assert_eq!(upstream.reached("tasks/result").len(), 2);
}

#[tokio::test]
async fn a_legacy_client_follows_a_task_of_2025_itself_under_sealed_ids() {
    let (issuer, state, upstream, gateway, client) = started(experiment, working()).await;
    let (introduction, session) = client.initialize("2025-11-25").await;
    let announced = &introduction.result()["capabilities"]["tasks"];
    assert_eq!(announced, &json!({ "list": {}, "cancel": {}, "requests": { "tools": { "call": {} } } }));
    let params = json!({ "name": "tools__either", "arguments": {}, "task": { "ttl": 5000 } });
    let created = client.legacy(&session, "tools/call", params).await;
    assert_eq!(upstream.reached("tools/call")[0].params["task"], json!({ "ttl": 5000 }));
    let id = created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned();
    let about = async |method: &str| client.legacy(&session, method, json!({ "taskId": id })).await;
    let got = about("tasks/get").await;
    assert_eq!(
        (got.result()["taskId"].as_str(), &got.result()["status"]),
        (Some(&*id), &json!("working")),
        "{}",
        got.text
    );
    *state.lock().unwrap() = json!({ "status": "completed", "result": { "content": [] } });
    let result = about("tasks/result").await;
    assert_eq!(result.result()["_meta"]["io.modelcontextprotocol/related-task"]["taskId"], *id, "{}", result.text);
    *state.lock().unwrap() = working();
    let cancelled = about("tasks/cancel").await;
    assert_eq!(
        (cancelled.result()["taskId"].as_str(), &cancelled.result()["status"]),
        (Some(&*id), &json!("cancelled"))
    );
    for answer in [&created, &got, &result, &cancelled] {
        assert!(!answer.text.contains(INNER), "{}", answer.text);
    }
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let (_, others) = bob.initialize("2025-11-25").await;
    let foreign = bob.legacy(&others, "tasks/result", json!({ "taskId": id })).await;
    let unknown = bob.legacy(&others, "tasks/result", json!({ "taskId": "none" })).await;
    assert_eq!((foreign.error_code(), &foreign.text), (-32602, &unknown.text));
}

#[tokio::test]
async fn a_legacy_client_lists_its_own_tasks_of_2025_and_nobody_elses() {
    let (issuer, state, _upstream, gateway, client) = started(experiment, working()).await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let sessions = [client.initialize("2025-11-25").await.1, bob.initialize("2025-11-25").await.1];
    let params = json!({ "name": "tools__either", "arguments": {}, "task": { "ttl": 5000 } });
    let created = client.legacy(&sessions[0], "tools/call", params).await;
    let id = created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned();
    let listed = async || client.legacy(&sessions[0], "tasks/list", json!({})).await;
    let first = listed().await;
    let [task] = first.result()["tasks"].as_array().unwrap().as_slice() else { panic!("{}", first.text) };
    assert_eq!((task["taskId"].as_str(), &task["status"]), (Some(&*id), &json!("working")), "{}", first.text);
    assert!(!first.text.contains(INNER), "{}", first.text);
    // Of another session of theirs too, which a client that begins again has lost; and of nobody else.
    let (_, second) = client.initialize("2025-11-25").await;
    assert_eq!(client.legacy(&second, "tasks/list", json!({})).await.result()["tasks"][0]["taskId"], id);
    assert_eq!(bob.legacy(&sessions[1], "tasks/list", json!({})).await.result(), &json!({ "tasks": [] }));
    let odd = client.legacy(&second, "tasks/list", json!({ "cursor": "none" })).await;
    assert_eq!(odd.error_code(), -32602, "{}", odd.text);
    *state.lock().unwrap() = json!({ "status": "completed" });
    assert_eq!(listed().await.result()["tasks"][0]["status"], "completed", "as it is now");
    let records = gateway.journal();
    let asked = records.iter().filter(|one| one["type"] == "intent" && one["mcp"]["method"] == "tasks/get").count();
    assert_eq!(asked, 3, "each look is decided and recorded like one that the client names");
    // What they may not call any more is not on the list.
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/either, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    assert_eq!(listed().await.result(), &json!({ "tasks": [] }));
    // A server that cannot say makes no task go away: it is as it was when somebody could look.
    gateway.write_policy(DEVELOPERS_MAY);
    assert!(gateway.command(&["reload", "--allow-widening"]).status.success());
    assert_eq!(listed().await.result()["tasks"].as_array().map(Vec::len), Some(1));
    *state.lock().unwrap() = json!({ "broken": true });
    let known = listed().await;
    let [task] = known.result()["tasks"].as_array().unwrap().as_slice() else { panic!("{}", known.text) };
    assert_eq!((task["taskId"].as_str(), &task["status"]), (Some(&*id), &json!("completed")), "{}", known.text);
}

#[tokio::test]
async fn an_upstream_that_never_announced_tasks_is_never_asked_for_one() {
    let issuer = Issuer::start().await;
    let asked = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&asked);
    let mut job = tool("job");
    job["execution"] = json!({ "taskSupport": "required" });
    let upstream = Peer::legacy(json!({}), json!([job]), move |request| {
        seen.fetch_or(request.params.get("task").is_some(), Ordering::SeqCst);
        Ok(json!({ "content": [{ "type": "text", "text": "plain" }] }))
    })
    .await;
    let (_gateway, client) = start(&issuer, &upstream).await;
    assert_eq!(call(&client, "tools__job").await.tool_text(), "plain");
    let (_, session) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "tools__job", "arguments": {}, "task": {} });
    assert_eq!(client.legacy(&session, "tools/call", params).await.tool_text(), "plain");
    assert!(!asked.load(Ordering::SeqCst));
}

/// A listen to tasks of a client that declared the extension.
pub fn listen_to(ids: &[&str]) -> (Vec<(&'static str, String)>, Value) {
    let (headers, mut body) = modern_request("subscriptions/listen", json!({ "notifications": { "taskIds": ids } }));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "extensions": { EXTENSION: {} } });
    (headers, body)
}

#[tokio::test]
async fn a_listen_hears_of_its_own_tasks_under_their_sealed_ids() {
    let (issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let foreign = begin(&bob).await;
    let (headers, body) = listen_to(&[&foreign, &id, "no-such-task"]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    let first = stream.next().await;
    assert_eq!(first["params"]["notifications"]["taskIds"], json!([id]), "its own, and no others: {first}");
    let asked = upstream.reached("subscriptions/listen");
    let asked: Vec<_> = asked.iter().filter(|one| one.params["notifications"].get("taskIds").is_some()).collect();
    assert_eq!(asked[0].params["notifications"], json!({ "taskIds": [INNER] }));
    assert_eq!((asked.len(), &*asked[0].name), (1, ""));
    // Of others' tasks nothing is passed on, whatever the server says.
    upstream.tell(json!({ "taskId": "another", "status": "working", "ttlMs": null }));
    upstream.tell(json!({ "taskId": INNER, "status": "working", "ttlMs": null, "com.example/odd": 1.5 }));
    let working = stream.next().await;
    assert_eq!(working["method"], "notifications/tasks", "{working}");
    assert_eq!(
        (working["params"]["taskId"].as_str(), &working["params"]["com.example/odd"]),
        (Some(&*id), &json!(1.5))
    );
    assert_eq!(working["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"], 1);
    upstream.tell(json!({ "taskId": INNER, "status": "completed", "ttlMs": null, "result": { "content": [] } }));
    let done = stream.next().await;
    assert_eq!(done["params"]["result"], json!({ "content": [] }), "{done}");
    assert!(!done.to_string().contains(INNER) && done["params"].get("resultType").is_none(), "{done}");
}

#[tokio::test]
async fn a_listen_to_tasks_needs_the_declared_extension() {
    let (_issuer, _state, _upstream, _gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    let (headers, body) = modern_request("subscriptions/listen", json!({ "notifications": { "taskIds": [id] } }));
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32021), "{}", answer.text);
    let many: Vec<String> = (0..33).map(|number| format!("task-{number}")).collect();
    let (headers, body) = listen_to(&many.iter().map(String::as_str).collect::<Vec<_>>());
    assert_eq!(client.post(&headers, body.to_string()).await.error_code(), -32602);
}

#[tokio::test]
async fn a_listen_hears_no_more_of_a_task_whose_tool_was_taken_away() {
    let (_issuer, _state, upstream, gateway, client) = started(modern, working()).await;
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/job, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    tokio::time::sleep(Duration::from_millis(500)).await;
    upstream.tell(json!({ "taskId": INNER, "status": "completed", "ttlMs": null, "result": { "content": [] } }));
    assert_eq!(stream.next_within(Duration::from_secs(1)).await, None);
}
