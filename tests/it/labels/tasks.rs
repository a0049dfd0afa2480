//! Calls that become tasks: what is answered in the middle goes out, and what comes back counts when it comes.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::input::{may_ask, reason};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::peer::Peer;
use crate::support::scripted::tool;
use crate::tasks::{EXTENSION, INNER, Task, ask_askable, experiment, extension, listen_to, working};

/// `job` becomes a task; what it is, the test says. The other tools are another server's.
const LABELS: &str = r#"
[[label]]
objects = ["other/read_customer"]
reads = "private"

[[label]]
objects = ["other/fetch"]
content = "untrusted"

[[label]]
objects = ["other/send"]
sends = "external"

[[label]]
objects = ["other/save"]
effect = "write"
store = "memory"

[[label]]
objects = ["tools/job"]
"#;

async fn modern(state: &Task) -> Peer {
    let state = Arc::clone(state);
    let capabilities = json!({ "extensions": { EXTENSION: {} } });
    Peer::modern(capabilities, json!([tool("job")]), move |request| extension(request, &state)).await
}

async fn start(issuer: &Issuer, upstream: &Peer, job: &str) -> Gateway {
    let tools = ["read_customer", "fetch", "send", "save"].map(tool);
    let other = Peer::modern(json!({}), json!(tools), |_| {
        Ok(json!({ "resultType": "complete", "content": [{ "type": "text", "text": "done" }] }))
    })
    .await;
    Setup::new(issuer)
        .http_server("tools", &upstream.url, "")
        .http_server("other", &other.url, "")
        .policy(&may_ask(&["elicit"]))
        .policy_file("labels.toml", &format!("{LABELS}{job}"))
        .start()
        .await
}

fn client(issuer: &Issuer, gateway: &Gateway, user: &str) -> Client {
    gateway.client(&issuer.token(user, &["developers"], &gateway.resource()))
}

/// The reason that a call of a plain tool was refused for, or that of nobody.
async fn call(client: &Client, name: &str) -> Option<String> {
    let answer = client.call_tool(&format!("other__{name}"), json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let refused = answer.result()["isError"].as_bool().unwrap_or(false);
    refused.then(|| answer.tool_text().split(':').next().unwrap().to_owned())
}

async fn begin(client: &Client) -> String {
    let params = json!({ "name": "tools__job", "arguments": {} });
    let answer = ask_askable(client, "tools/call", params).await;
    answer.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

fn question() -> Value {
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "What?",
        "requestedSchema": { "type": "object", "properties": {} } } })
}

const SENDS: &str = "sends = \"external\"\n";
const READS: &str = "store = \"memory\"\n";

#[tokio::test]
async fn what_a_task_is_answered_goes_where_its_call_went() {
    let issuer = Issuer::start().await;
    let upstream =
        modern(&Task::new(Mutex::new(json!({ "status": "input_required", "inputRequests": { "what": question() } }))))
            .await;
    let gateway = start(&issuer, &upstream, SENDS).await;
    let alice = client(&issuer, &gateway, "alice");
    let id = begin(&alice).await;
    let answer = json!({ "what": { "action": "accept", "content": {} } });
    let update = || json!({ "taskId": id, "inputResponses": answer });
    let taken = ask_askable(&alice, "tasks/update", update()).await;
    assert_eq!(taken.result(), &json!({ "resultType": "complete" }), "nothing was seen yet: {}", taken.text);
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&alice, name).await, None);
    }
    let refused = ask_askable(&alice, "tasks/update", update()).await;
    assert_eq!(reason(&refused), "flow_refused", "{}", refused.text);
    // However it is brought along.
    let smuggled = ask_askable(&alice, "tasks/get", update()).await;
    assert_eq!(reason(&smuggled), "flow_refused", "{}", smuggled.text);
    assert_eq!((upstream.reached("tasks/update").len(), upstream.reached("tasks/get").len()), (1, 0));
    // To ask how it is sends nothing, and neither does to end it.
    let state = ask_askable(&alice, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(state.result()["status"], "input_required", "{}", state.text);
    let mut cancel = update();
    cancel["_meta"] = json!({ "example.test/note": "what was read" });
    let cancelled = ask_askable(&alice, "tasks/cancel", cancel).await;
    assert_eq!(cancelled.result()["resultType"], "complete", "{}", cancelled.text);
    let reached = upstream.reached("tasks/cancel");
    assert_eq!(reached.len(), 1);
    let sent = reached[0].params.to_string();
    assert!(!sent.contains("inputResponses") && !sent.contains("what was read"), "it takes nothing along: {sent}");
    let refused: Vec<_> = gateway.records("refusal");
    assert!(refused.iter().any(|line| line["mcp"]["method"] == "tasks/update"), "{refused:?}");
}

#[tokio::test]
async fn what_a_followed_task_is_answered_goes_where_its_call_went() {
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(json!({ "status": "input_required", "inputRequests": { "what": question() } })));
    let upstream = modern(&state).await;
    let gateway = start(&issuer, &upstream, SENDS).await;
    let alice = client(&issuer, &gateway, "alice");
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": { "elicitation": {} },
        "clientInfo": { "name": "test", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    let session = alice.post(&[], body.to_string()).await.header("mcp-session-id").to_owned();
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tools/call",
        "params": { "name": "tools__job", "arguments": {} } });
    let headers = [("mcp-session-id", session)];
    let mut stream = alice.stream(&headers, Some(body.to_string())).await;
    let asked = stream.next().await;
    assert_eq!(asked["method"], "elicitation/create", "{asked}");
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&alice, name).await, None);
    }
    *state.lock().unwrap() = json!({ "status": "completed", "result": { "content": [] } });
    let answer = json!({ "jsonrpc": "2.0", "id": asked["id"], "result": { "action": "accept", "content": {} } });
    assert_eq!(alice.post(&headers, answer.to_string()).await.status, 202);
    let done = stream.next().await;
    assert!(done.to_string().contains("flow_refused"), "{done}");
    assert!(upstream.reached("tasks/update").is_empty());
}

fn over() -> Value {
    json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "hers" }] } })
}

/// Somebody who has seen too much puts it into the store.
async fn somebody_writes(issuer: &Issuer, gateway: &Gateway) {
    let alice = client(issuer, gateway, "alice");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&alice, name).await, None);
    }
}

#[tokio::test]
async fn what_a_task_read_from_a_store_counts_before_it_is_handed_out() {
    let issuer = Issuer::start().await;
    for is_modern in [true, false] {
        let state = Task::new(Mutex::new(working()));
        let upstream = if is_modern { modern(&state).await } else { experiment(&state).await };
        let gateway = start(&issuer, &upstream, READS).await;
        let bob = client(&issuer, &gateway, "bob");
        let id = begin(&bob).await;
        somebody_writes(&issuer, &gateway).await;
        assert_eq!(call(&bob, "send").await, None, "he has heard nothing yet");
        *state.lock().unwrap() = over();
        let told = ask_askable(&bob, "tasks/get", json!({ "taskId": id })).await;
        assert!(told.text.contains("hers"), "{}", told.text);
        assert_eq!(call(&bob, "send").await.as_deref(), Some("flow_refused"), "modern: {is_modern}");
    }
}

#[tokio::test]
async fn what_a_followed_task_read_from_a_store_counts_before_it_is_handed_out() {
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(working()));
    let upstream = modern(&state).await;
    let gateway = start(&issuer, &upstream, READS).await;
    let bob = client(&issuer, &gateway, "bob");
    let (_, session) = bob.initialize("2025-11-25").await;
    let calling = tokio::spawn({
        let bob = bob.clone();
        async move { bob.legacy(&session, "tools/call", json!({ "name": "tools__job", "arguments": {} })).await }
    });
    eventually("the task to be asked for", async || !upstream.reached("tasks/get").is_empty()).await;
    somebody_writes(&issuer, &gateway).await;
    *state.lock().unwrap() = over();
    assert_eq!(calling.await.unwrap().tool_text(), "hers");
    assert_eq!(call(&bob, "send").await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn what_is_told_of_a_task_that_read_from_a_store_counts_before_it_is_told() {
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(working()));
    let upstream = modern(&state).await;
    let gateway = start(&issuer, &upstream, READS).await;
    let bob = client(&issuer, &gateway, "bob");
    let id = begin(&bob).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = bob.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]));
    somebody_writes(&issuer, &gateway).await;
    *state.lock().unwrap() = over();
    let mut told = json!({ "taskId": INNER, "ttlMs": null });
    told.as_object_mut().unwrap().extend(over().as_object().unwrap().clone());
    upstream.tell(told);
    let done = stream.next().await;
    assert!(done.to_string().contains("hers"), "{done}");
    assert_eq!(call(&bob, "send").await.as_deref(), Some("flow_refused"));
}
