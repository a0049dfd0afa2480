//! Batches of 2025-03-26: each message as if it had come alone.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::talkative::Talkative;

async fn session(client: &Client, version: &str) -> [(&'static str, String); 1] {
    [("mcp-session-id", client.initialize(version).await.1)]
}

fn call(id: &Value, name: &str) -> Value {
    let params = json!({ "name": name, "arguments": {}, "_meta": { "progressToken": id } });
    json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params })
}

#[tokio::test]
async fn a_batch_is_answered_by_an_array_and_each_message_is_decided_by_itself() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let headers = session(&client, "2025-03-26").await;
    let secret =
        json!({ "jsonrpc": "2.0", "id": "b", "method": "resources/read", "params": { "uri": "test://secret" } });
    let batch = json!([
        { "jsonrpc": "2.0", "id": 1, "method": "ping" },
        { "jsonrpc": "2.0", "method": "notifications/initialized" },
        secret,
        call(&json!(3), "up__seen"),
        call(&json!(4), "up__nothing"),
        17,
    ]);
    let answer = client.post(&headers, batch.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let answers: Vec<Value> = serde_json::from_str(&answer.text).unwrap();
    assert_eq!(answers.len(), 5, "{}", answer.text);
    assert_eq!(answers[0], json!({ "jsonrpc": "2.0", "id": 1, "result": {} }));
    assert_eq!((&answers[1]["id"], &answers[1]["error"]["code"]), (&json!("b"), &json!(-32002)));
    assert!(answers[2]["result"]["content"][0]["text"].as_str().unwrap().contains("messages"));
    assert_eq!(answers[3]["error"]["code"], -32602);
    assert_eq!(answers[4]["error"]["code"], -32600);
    let called = test.gateway.records("intent");
    assert_eq!(called.len(), 1, "each allowed call has an intent of its own: {called:?}");
}

#[tokio::test]
async fn a_batch_with_a_call_that_streams_is_answered_by_a_stream() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let headers = session(&client, "2025-03-26").await;
    let batch = json!([call(&json!(1), "up__talk"), { "jsonrpc": "2.0", "id": 2, "method": "ping" }, call(&json!(3), "up__talk")]);
    let answer = client.post(&headers, batch.to_string()).await;
    assert_eq!(answer.header("content-type"), "text/event-stream");
    let mut ids: Vec<i64> = answer.messages.iter().filter_map(|message| message["id"].as_i64()).collect();
    ids.sort_unstable();
    assert_eq!(ids, [1, 2, 3], "{}", answer.text);
    let progress = answer.messages.iter().filter(|message| message["method"] == "notifications/progress");
    assert_eq!(progress.count(), 2, "{}", answer.text);
}

#[tokio::test]
async fn notifications_alone_are_accepted_without_a_body() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let headers = session(&client, "2025-03-26").await;
    let batch = json!([{ "jsonrpc": "2.0", "method": "notifications/initialized" }]);
    let answer = client.post(&headers, batch.to_string()).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}

#[tokio::test]
async fn other_versions_initialize_and_too_many_messages_are_refused() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    let client = test.client();
    let ping = json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" });
    for version in ["2025-06-18", "2025-11-25"] {
        let headers = session(&client, version).await;
        let answer = client.post(&headers, json!([ping]).to_string()).await;
        assert_eq!(answer.status, 400, "{version}: {}", answer.text);
    }
    assert_eq!(client.post(&[], json!([ping]).to_string()).await.status, 400);
    let headers = session(&client, "2025-03-26").await;
    let initialize = json!({ "jsonrpc": "2.0", "id": 2, "method": "initialize", "params": {} });
    assert_eq!(client.post(&headers, json!([ping, initialize]).to_string()).await.status, 400);
    assert_eq!(client.post(&headers, json!(vec![ping; 33]).to_string()).await.status, 400);
    assert_eq!(client.post(&headers, "[]".to_owned()).await.status, 400);
}
