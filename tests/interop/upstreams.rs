//! Other people's servers behind the gateway, each for a client of either era.

use std::time::Duration;

use serde_json::{Value, json};

use crate::parts::Parts;
use crate::support::client::Client;
use crate::support::eventually_within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;

/// A client of the gateway, once its server has begun: these take their time, and longer beside others.
async fn served(gateway: &Gateway, issuer: &Issuer) -> Client {
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually_within(Duration::from_secs(30), "a list of the server's tools", async || {
        client.modern("tools/list", json!({})).await.response()["result"].is_object()
    })
    .await;
    client
}

/// Lists and calls in both eras; returns the names that were listed and the texts of the two answers.
pub async fn both_eras(client: &Client, tool: &str, arguments: Value) -> (Vec<String>, [String; 2]) {
    let names = client.tool_names().await;
    let modern = client.call_tool(tool, arguments.clone()).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let listed = client.legacy(&session, "tools/list", json!({})).await;
    let listed: Vec<_> = listed.result()["tools"].as_array().unwrap().iter().map(|tool| &tool["name"]).collect();
    assert_eq!(json!(listed), json!(names), "both eras see the same");
    let legacy = client.legacy(&session, "tools/call", json!({ "name": tool, "arguments": arguments })).await;
    (names, [modern.tool_text().to_owned(), legacy.tool_text().to_owned()])
}

#[tokio::test]
async fn everything_over_stdio_serves_clients_of_both_eras() {
    let Some(parts) = Parts::installed() else { return };
    let issuer = Issuer::start().await;
    let server = parts.node_command("mcp-server-everything");
    let gateway =
        Setup::new(&issuer).stdio_server("every", &[&parts.node(), &server, "stdio"], &parts.readable()).start().await;
    let client = served(&gateway, &issuer).await;
    let (names, texts) = both_eras(&client, "every__echo", json!({ "message": "hello" })).await;
    assert!(names.len() >= 10, "{names:?}");
    assert_eq!(texts, ["Echo: hello", "Echo: hello"]);

    let prompts = client.modern("prompts/list", json!({})).await;
    assert!(!prompts.result()["prompts"].as_array().unwrap().is_empty(), "{}", prompts.text);
    let resources = client.modern("resources/list", json!({})).await;
    let uri = resources.result()["resources"][0]["uri"].clone();
    let read = client.modern("resources/read", json!({ "uri": uri })).await;
    assert!(read.result()["contents"][0]["text"].is_string(), "{}", read.text);
    let read = client.modern("resources/read", json!({ "uri": "demo://resource/dynamic/text/7" })).await;
    assert!(read.result()["contents"][0]["text"].as_str().unwrap().contains('7'), "{}", read.text);
    let city = json!({ "city": "Utrecht", "state": "NL" });
    let prompt = client.modern("prompts/get", json!({ "name": "every__args-prompt", "arguments": city })).await;
    assert!(prompt.result()["messages"][0]["content"]["text"].as_str().unwrap().contains("Utrecht"), "{}", prompt.text);
}

#[tokio::test]
async fn progress_of_a_legacy_server_reaches_a_modern_client_under_its_own_token() {
    let Some(parts) = Parts::installed() else { return };
    let issuer = Issuer::start().await;
    let server = parts.node_command("mcp-server-everything");
    let gateway =
        Setup::new(&issuer).stdio_server("every", &[&parts.node(), &server, "stdio"], &parts.readable()).start().await;
    let client = served(&gateway, &issuer).await;
    let params = json!({ "name": "every__trigger-long-running-operation", "arguments": { "duration": 1, "steps": 4 },
        "_meta": { "progressToken": "mine" } });
    let answer = client.modern("tools/call", params).await;
    assert!(answer.header("content-type").starts_with("text/event-stream"), "{}", answer.text);
    let progress: Vec<_> =
        answer.messages.iter().filter(|message| message["method"] == "notifications/progress").collect();
    assert!(!progress.is_empty(), "{}", answer.text);
    assert!(progress.iter().all(|message| message["params"]["progressToken"] == "mine"), "{}", answer.text);
    assert!(answer.tool_text().contains("completed"), "{}", answer.text);
}

#[tokio::test]
async fn time_over_stdio_serves_clients_of_both_eras() {
    let Some(parts) = Parts::installed() else { return };
    let issuer = Issuer::start().await;
    let server = parts.python_command("mcp-server-time");
    let gateway = Setup::new(&issuer)
        .stdio_server("time", &[&server, "--local-timezone", "UTC"], &parts.readable())
        .start()
        .await;
    let client = served(&gateway, &issuer).await;
    let conversion = json!({ "source_timezone": "UTC", "time": "12:00", "target_timezone": "Asia/Tokyo" });
    let (mut names, texts) = both_eras(&client, "time__convert_time", conversion).await;
    names.sort();
    assert_eq!(names, ["time__convert_time", "time__get_current_time"]);
    for text in texts {
        assert!(text.contains("T21:00:00+09:00"), "{text}");
    }
}

#[tokio::test]
async fn the_filesystem_server_reads_only_what_a_rule_allows() {
    let Some(parts) = Parts::installed() else { return };
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("note.txt"), "from a file").unwrap();
    let root = directory.path().canonicalize().unwrap().display().to_string();
    let server = parts.node_command("mcp-server-filesystem");
    let gateway = Setup::new(&issuer)
        .stdio_server("files", &[&parts.node(), &server, &root], &format!("{}write = [{root:?}]", parts.readable()))
        .policy(
            "p, group:test/developers, *, files/read_text_file, call, -, allow\np, agent:assistant, *, files/*, call, -, allow\n",
        )
        .start()
        .await;
    let client = served(&gateway, &issuer).await;
    let path = format!("{root}/note.txt");
    let (names, texts) = both_eras(&client, "files__read_text_file", json!({ "path": path })).await;
    assert_eq!(names, ["files__read_text_file"]);
    assert_eq!(texts, ["from a file", "from a file"]);
    let refused = client.call_tool("files__write_file", json!({ "path": path, "content": "x" })).await;
    assert_eq!(refused.error_code(), -32602, "{}", refused.text);
    assert_eq!(std::fs::read_to_string(directory.path().join("note.txt")).unwrap(), "from a file");
}
