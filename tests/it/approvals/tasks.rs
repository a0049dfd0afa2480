//! A client that follows tasks waits for an approval as for every other task.

use super::*;
use crate::input::call;
use crate::support::client::modern_request;
use crate::support::eventually;
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
    eventually("the record", async || running.events(&id).contains(&"consumed".to_owned())).await;
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
    let again = about(&alice, "tasks/get", &task).await;
    assert_eq!(again.result()["status"], "working", "it waits again: {}", again.text);
    assert_eq!(running.calls(), 0);
    assert_eq!(running.approve(&id, &running.person("carol", &["approvers"])).await.status, 200);
    let done = about(&alice, "tasks/get", &task).await;
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#, "{}", done.text);
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_call_that_takes_long_goes_on_and_its_end_is_kept_however_long_it_is() {
    let long = "y".repeat(2 * bailiwick::limit::APPROVAL_TASK_PIECE_BYTES);
    let answer = long.clone();
    let upstream = Scripted::start(json!([tool("echo")]), move |call| result(call, text(&answer))).await;
    let issuer = Issuer::start().await;
    let gateway = setup(&issuer, &upstream, GATES).start().await;
    let running = Running { issuer, upstream, gateway };
    running.upstream.mute("echo");
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let alice = running.caller("alice");
    let asked = std::time::Instant::now();
    let working = about(&alice, "tasks/get", &task).await;
    assert_eq!(working.result()["status"], "working", "{}", working.text);
    assert!(asked.elapsed() >= bailiwick::limit::APPROVAL_TASK_WAIT);
    running.upstream.mute("");
    let mut done = working;
    for _ in 0..200 {
        done = about(&alice, "tasks/get", &task).await;
        if done.result()["status"] == "completed" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(done.result()["result"]["content"][0]["text"], json!(long), "{:.300}", done.text);
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn so_many_calls_of_one_caller_wait_as_tasks_and_others_are_told_otherwise() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let params = || json!({ "name": "tools__echo", "arguments": { "n": 1 } });
    for _ in 0..bailiwick::limit::APPROVAL_TASKS_PER_PRINCIPAL_MAX {
        assert_eq!(call(&alice, &tasks(), params()).await.result()["resultType"], "task");
    }
    waits(&call(&alice, &tasks(), params()).await);
}

#[tokio::test]
async fn a_task_whose_call_was_cut_off_says_so_and_is_never_called_again() {
    let mut running = start(GATES).await;
    running.upstream.mute("echo");
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let alice = running.caller("alice");
    let working = about(&alice, "tasks/get", &task).await;
    assert_eq!((&working.result()["status"], running.calls()), (&json!("working"), 1), "{}", working.text);
    running.gateway.signal("KILL");
    running.gateway.wait().await;
    running.upstream.mute("");
    running.gateway.launch().await;
    let lost = about(&running.caller("alice"), "tasks/get", &task).await;
    assert_eq!(lost.result()["status"], "completed", "nobody waits for ever: {}", lost.text);
    assert!(lost.result()["result"]["isError"] == true && lost.text.contains("replica_lost"), "{}", lost.text);
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn whoever_cancels_one_of_two_tasks_of_a_call_keeps_the_other_and_nobody_is_said_to_have_denied_it() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let (one, id) = began(&running, "alice", json!({ "n": 1 })).await;
    let (other, same) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(id, same);
    about(&alice, "tasks/cancel", &one).await;
    assert_eq!(about(&alice, "tasks/get", &one).await.result()["status"], "cancelled");
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let done = about(&alice, "tasks/get", &other).await;
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#, "{}", done.text);
    let (task, id) = began(&running, "alice", json!({ "n": 2 })).await;
    about(&alice, "tasks/cancel", &task).await;
    assert_eq!(running.view(&id, &running.bob()).await["state"], "withdrawn");
    assert_ne!(running.asks("alice", json!({ "n": 2 })).await, id, "it can be asked for again at once");
    assert!(running.events(&id).contains(&"withdrawn".to_owned()), "{:?}", running.events(&id));
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_task_is_asked_about_where_its_call_was_made() {
    let running = start(GATES).await;
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let token = running.issuer.token("alice", &["developers"], &running.gateway.resource());
    let elsewhere = about(&running.gateway.server_client("tools", &token), "tasks/get", &task).await;
    assert_eq!((elsewhere.error_code(), running.calls()), (-32602, 0), "{}", elsewhere.text);
    let done = about(&running.caller("alice"), "tasks/get", &task).await;
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#, "{}", done.text);
}

#[tokio::test]
async fn the_ends_of_one_callers_tasks_leave_room_for_those_of_others() {
    // The bodies do not shrink, and so many of them are more than one caller has room for.
    let of_one = bailiwick::limit::APPROVAL_TASK_PIECES_MAX - 2;
    let long = "y".repeat(of_one * bailiwick::limit::APPROVAL_TASK_PIECE_BYTES * 3 / 4 - 100_000);
    let fits = bailiwick::limit::APPROVAL_TASK_PIECES_PER_PRINCIPAL_MAX / bailiwick::limit::APPROVAL_TASK_PIECES_MAX;
    let answer = long.clone();
    let upstream = Scripted::start(json!([tool("echo")]), move |call| result(call, text(&answer))).await;
    let issuer = Issuer::start().await;
    let gateway = setup(&issuer, &upstream, GATES).start().await;
    let running = Running { issuer, upstream, gateway };
    let mut ends = Vec::new();
    for number in 0..fits + 2 {
        let (task, id) = began(&running, "alice", json!({ "n": number })).await;
        assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
        let alice = running.caller("alice");
        about(&alice, "tasks/get", &task).await;
        let kept = about(&alice, "tasks/get", &task).await;
        assert_eq!(kept.result()["status"], "completed", "{:.300}", kept.text);
        ends.push(kept.text.contains("too large to keep") || kept.result()["result"]["isError"] == true);
    }
    assert!(!ends[0] && *ends.last().unwrap(), "{ends:?}");
}

#[tokio::test]
async fn the_end_of_a_task_goes_to_whoever_may_still_call_its_tool_there_and_is_on_the_record() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let (task, id) = began(&running, "alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    about(&alice, "tasks/get", &task).await;
    let done = about(&alice, "tasks/get", &task).await;
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#, "{}", done.text);
    let given = |kind: &str| {
        let mut all = running.gateway.records(kind);
        all.retain(|record| record["mcp"]["method"] == "tasks/get" && record["mcp"]["name"] == "echo");
        all
    };
    let intent = given("intent").pop().expect("that it was given out is on the record");
    assert_eq!((&intent["mcp"]["server"], &intent["subject"]["id"]), (&json!("tools"), &json!("user:test/alice")));
    eventually("its end", async || running.gateway.records("result").iter().any(|end| end["leg"] == intent["leg"]))
        .await;

    let token = running.issuer.token("alice", &["developers"], &running.gateway.resource());
    let elsewhere = about(&running.gateway.server_client("tools", &token), "tasks/get", &task).await;
    assert_eq!(elsewhere.error_code(), -32602, "{}", elsewhere.text);
    assert!(!elsewhere.text.contains(r#"n\":1"#), "{}", elsewhere.text);

    running.gateway.write_policy(&format!("{DEVELOPERS_MAY}{RULES}p, user:test/alice, *, tools/echo, call, -, deny\n"));
    assert!(running.gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    let denied = about(&alice, "tasks/get", &task).await;
    let unknown = about(&alice, "tasks/get", "AAAAAAAA").await;
    assert_eq!((denied.status, &denied.text), (unknown.status, &unknown.text), "like a task that does not exist");
    eventually("the refusal", async || {
        given("refusal").iter().any(|line| line["decision"]["reason"] == "denied_by_rule")
    })
    .await;
    assert_eq!(running.calls(), 1);
}
