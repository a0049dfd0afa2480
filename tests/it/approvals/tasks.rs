//! A client that follows tasks waits for an approval as for every other task.

use super::*;
use crate::input::call;
use crate::support::client::modern_request;
use crate::tasks::EXTENSION;

fn tasks() -> Value {
    json!({ "extensions": { EXTENSION: {} } })
}

async fn about(client: &Client, method: &str, id: &str) -> Answer {
    let (mut headers, mut body) = modern_request(method, json!({ "taskId": id }));
    headers.push(("mcp-name", id.to_owned()));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = tasks();
    client.post(&headers, body.to_string()).await
}

async fn began(running: &Running, user: &str, arguments: Value) -> (String, String) {
    let params = json!({ "name": "tools__echo", "arguments": arguments });
    let answer = call(&running.caller(user), &tasks(), params).await;
    let task = answer.result();
    assert_eq!((&task["resultType"], &task["status"]), (&json!("task"), &json!("working")), "{}", answer.text);
    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    (task["taskId"].as_str().unwrap().to_owned(), waiting.response()[0]["id"].as_str().unwrap().to_owned())
}

#[tokio::test]
async fn the_call_is_made_when_its_client_asks_after_the_approval_and_once() {
    let running = start(GATES).await;
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    let alice = running.caller("alice");
    let waits = about(&alice, "tasks/get", &task).await;
    assert_eq!((&waits.result()["status"], running.calls()), (&json!("working"), 0), "{}", waits.text);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_eq!(running.calls(), 0, "an approval alone runs nothing");
    let theirs = about(&running.caller("mallory"), "tasks/get", &task).await;
    assert_eq!((theirs.error_code(), running.calls()), (-32602, 0), "it is alice's");
    let all = (0..4).map(|_| {
        let (alice, task) = (alice.clone(), task.clone());
        tokio::spawn(async move { about(&alice, "tasks/get", &task).await })
    });
    let all: Vec<_> = all.collect();
    for answer in all {
        let answer = answer.await.unwrap();
        assert!(["working", "completed"].contains(&answer.result()["status"].as_str().unwrap()), "{}", answer.text);
    }
    let done = about(&alice, "tasks/get", &task).await;
    assert_eq!(done.result()["status"], "completed", "{}", done.text);
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#);
    assert_eq!(about(&alice, "tasks/get", &task).await.result()["result"], done.result()["result"], "it is kept");
    assert_eq!(running.calls(), 1);
    let consumed = running.gateway.records("approval").into_iter().find(|record| record["approval"]["event"] == "consumed");
    assert_eq!(consumed.unwrap()["approval"]["id"], json!(id));
}

#[tokio::test]
async fn a_task_that_is_denied_or_cancelled_makes_no_call() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.deny(&id, &running.bob()).await.status, 200);
    let denied = about(&alice, "tasks/get", &task).await;
    assert_eq!(denied.result()["status"], "completed", "a refusal is a result: {}", denied.text);
    assert!(denied.result()["result"]["isError"] == true && denied.text.contains("approval_denied"), "{}", denied.text);
    let (task, id) = began(&running, "alice", json!({ "n": 2 })).await;
    assert_eq!(about(&alice, "tasks/cancel", &task).await.result()["resultType"], "complete");
    assert_eq!(about(&alice, "tasks/get", &task).await.result()["status"], "cancelled");
    assert_eq!(running.approve(&id, &running.bob()).await.status, 409, "there is nothing left to approve");
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn a_task_is_decided_anew_when_its_call_is_made() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/bob", "--config", "servers.toml"]);
    assert!(revoked.status.success());
    let done = about(&alice, "tasks/get", &task).await;
    assert!(done.result()["result"]["isError"] == true && done.text.contains("approval_required"), "{}", done.text);
    assert_eq!(running.calls(), 0);
}
