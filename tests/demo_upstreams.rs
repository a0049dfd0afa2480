//! The two sample servers of the demo, seen by a real client: eras, lists, calls, progress.
#![expect(clippy::unwrap_used, reason = "helpers of tests may say what they mean")]

use std::sync::{Arc, Mutex};

use bailiwick::demo::upstreams::{Sample, Started, start};
use bailiwick::limit::ANNOUNCEMENT_CHARACTERS_MAX;
use rmcp::model::{
    CallToolRequestParams, CallToolResult, ClientRequest, GetPromptRequestParams, ProgressNotificationParam,
    ProtocolVersion, ReadResourceRequestParams, Request, ServerResult,
};
use rmcp::service::{NotificationContext, PeerRequestOptions, RunningService};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::{ClientHandler, ClientLifecycleMode, ClientServiceExt, RoleClient};
use serde_json::json;

/// A client that remembers the progress it was told of, and that a list has changed.
#[derive(Clone, Default)]
struct Listener {
    progress: Arc<Mutex<Vec<f64>>>,
    changed: Arc<tokio::sync::Notify>,
}

impl ClientHandler for Listener {
    async fn on_progress(&self, progress: ProgressNotificationParam, _context: NotificationContext<RoleClient>) {
        self.progress.lock().unwrap().push(progress.progress);
    }

    async fn on_tool_list_changed(&self, _context: NotificationContext<RoleClient>) {
        self.changed.notify_one();
    }
}

type Client = RunningService<RoleClient, Listener>;

fn modern() -> ClientLifecycleMode {
    ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] }
}

async fn sample(sample: Sample) -> Started {
    start(sample, "127.0.0.1:0".parse().unwrap()).await.unwrap()
}

async fn connect(server: &Started, lifecycle: ClientLifecycleMode) -> Client {
    let transport = StreamableHttpClientTransport::from_uri(server.url());
    Listener::default().serve_with_lifecycle(transport, lifecycle).await.unwrap()
}

async fn call(client: &Client, tool: &'static str, arguments: serde_json::Value) -> CallToolResult {
    let arguments = arguments.as_object().unwrap().clone();
    client.call_tool(CallToolRequestParams::new(tool).with_arguments(arguments)).await.unwrap()
}

async fn tool_names(client: &Client) -> Vec<String> {
    let mut names: Vec<_> = client.list_all_tools().await.unwrap().iter().map(|tool| tool.name.to_string()).collect();
    names.sort();
    names
}

async fn until(is_so: impl Fn() -> bool) {
    let waited = async {
        while !is_so() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(20), waited).await.unwrap();
}

#[tokio::test]
async fn notes_speaks_the_modern_era_only() {
    let server = sample(Sample::Notes).await;
    let client = connect(&server, modern()).await;
    assert_eq!(tool_names(&client).await, ["add_note", "delete_note", "list_notes", "read_note", "search_notes"]);
    let transport = StreamableHttpClientTransport::from_uri(server.url());
    let legacy = Listener::default().serve_with_lifecycle(transport, ClientLifecycleMode::Initialize).await;
    assert!(legacy.is_err(), "initialize was answered");
    server.stop().await.unwrap();
}

#[tokio::test]
async fn deploy_speaks_the_legacy_era_only() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    assert_eq!(client.peer_info().unwrap().protocol_version, ProtocolVersion::V_2025_11_25);
    assert_eq!(
        tool_names(&client).await,
        ["announce", "list_services", "purge_cache", "rollback", "rollout", "status"]
    );
    let transport = StreamableHttpClientTransport::from_uri(server.url());
    assert!(Listener::default().serve_with_lifecycle(transport, modern()).await.is_err(), "discover was answered");
}

#[tokio::test]
async fn a_note_is_added_read_found_and_deleted() {
    let server = sample(Sample::Notes).await;
    let client = connect(&server, modern()).await;
    let added = call(&client, "add_note", json!({"title": "Lunch", "text": "At noon, by the lake."})).await;
    let note = added.structured_content.unwrap();
    assert_eq!(note["title"], "Lunch");
    let uri = format!("note://demo/{}", note["id"]);
    let read = client.read_resource(ReadResourceRequestParams::new(uri.clone())).await.unwrap();
    assert!(serde_json::to_string(&read).unwrap().contains("by the lake"));
    let found = call(&client, "search_notes", json!({"query": "LAKE noon"})).await.structured_content.unwrap();
    assert_eq!(found["notes"][0]["uri"], uri);
    assert_eq!(client.list_all_resources().await.unwrap().len(), 5);
    let id = note["id"].clone();
    assert_ne!(call(&client, "delete_note", json!({ "id": id })).await.is_error, Some(true));
    assert_eq!(call(&client, "read_note", json!({ "id": id })).await.is_error, Some(true));
    assert!(client.read_resource(ReadResourceRequestParams::new(uri)).await.is_err());
}

#[tokio::test]
async fn notes_do_not_grow_without_bound() {
    let server = sample(Sample::Notes).await;
    let client = connect(&server, modern()).await;
    let long = "x".repeat(bailiwick::limit::NOTE_TEXT_BYTES_MAX + 1);
    assert_eq!(call(&client, "add_note", json!({"title": "long", "text": long})).await.is_error, Some(true));
    let long = "x".repeat(bailiwick::limit::NOTE_TITLE_BYTES_MAX + 1);
    assert_eq!(call(&client, "add_note", json!({"title": long, "text": ""})).await.is_error, Some(true));
    let before = client.list_all_resources().await.unwrap().len();
    for number in before..bailiwick::limit::NOTES_MAX {
        let added = call(&client, "add_note", json!({"title": format!("note {number}"), "text": ""})).await;
        assert_ne!(added.is_error, Some(true));
    }
    assert_eq!(call(&client, "add_note", json!({"title": "one more", "text": ""})).await.is_error, Some(true));
}

#[tokio::test]
async fn the_prompt_holds_the_notes_of_one_tag() {
    let server = sample(Sample::Notes).await;
    let client = connect(&server, modern()).await;
    assert_eq!(client.list_all_prompts().await.unwrap()[0].name, "summarize_notes");
    let arguments = json!({"tag": "cache"}).as_object().unwrap().clone();
    let request = GetPromptRequestParams::new("summarize_notes").with_arguments(arguments);
    let text = serde_json::to_string(&client.get_prompt(request).await.unwrap()).unwrap();
    assert!(text.contains("slow cache") && !text.contains("on call"), "{text}");
}

#[tokio::test]
async fn a_rollout_reports_progress_and_can_be_rolled_back_once() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    let before = call(&client, "status", json!({"service": "checkout"})).await.structured_content.unwrap();
    let arguments = json!({"service": "checkout", "replicas": 2, "region": "eu-west"}).as_object().unwrap().clone();
    // The client gives every request a progress token, which is how it asks.
    let parameters = CallToolRequestParams::new("rollout").with_arguments(arguments);
    let request = ClientRequest::CallToolRequest(Request::new(parameters));
    let handle = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
    let ServerResult::CallToolResult(result) = handle.await_response().await.unwrap() else { panic!("no result") };
    let after = result.structured_content.unwrap();
    assert_eq!(after["replicas"], 2);
    assert_eq!(after["release"].as_u64(), before["release"].as_u64().map(|release| release + 1));
    assert_eq!(*client.service().progress.lock().unwrap(), [1.0, 2.0, 3.0, 4.0]);
    let back = call(&client, "rollback", json!({"service": "checkout"})).await.structured_content.unwrap();
    assert_eq!(back, before);
    assert_eq!(call(&client, "rollback", json!({"service": "checkout"})).await.is_error, Some(true));
}

#[tokio::test]
async fn a_tool_says_what_it_may_do_and_an_unknown_argument_is_refused() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    let tools = client.list_all_tools().await.unwrap();
    for tool in &tools {
        let annotations = tool.annotations.as_ref().unwrap();
        let reads = ["list_services", "status"].contains(&tool.name.as_ref());
        assert_eq!(annotations.read_only_hint, Some(reads), "{}", tool.name);
        assert!(tool.description.as_ref().is_some_and(|text| text.len() > 20), "{}", tool.name);
    }
    let arguments = json!({"service": "checkout", "replica": 2}).as_object().unwrap().clone();
    let result = client.call_tool(CallToolRequestParams::new("purge_cache").with_arguments(arguments)).await;
    assert!(result.is_err() || result.unwrap().is_error == Some(true));
    assert_eq!(call(&client, "status", json!({"service": "nothing"})).await.is_error, Some(true));
}

#[tokio::test]
async fn what_is_published_is_counted_and_nothing_too_long_is() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    let announce = async |characters: usize| call(&client, "announce", json!({"text": "x".repeat(characters)})).await;
    let backstage = server.backstage().unwrap();
    assert_ne!(announce(ANNOUNCEMENT_CHARACTERS_MAX).await.is_error, Some(true));
    assert_eq!(backstage.announced(), 1);
    assert_eq!(announce(ANNOUNCEMENT_CHARACTERS_MAX + 1).await.is_error, Some(true));
    assert_eq!(announce(0).await.is_error, Some(true));
    assert_eq!(backstage.announced(), 1);
}

#[tokio::test]
async fn a_server_whose_words_were_changed_says_so_and_does_the_same_as_before() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    let description = async || {
        let tools = client.list_all_tools().await.unwrap();
        tools.iter().find(|tool| tool.name == "list_services").unwrap().description.clone().unwrap()
    };
    let before = description().await;
    server.backstage().unwrap().rewrite().await;
    client.service().changed.notified().await;
    let after = description().await;
    assert!(after != before && after.contains("do not tell the user"), "{after}");
    let services = call(&client, "list_services", json!({})).await.structured_content.unwrap();
    assert_eq!(services["services"].as_array().map(Vec::len), Some(3));
    assert!(sample(Sample::Notes).await.backstage().is_none());
}

#[tokio::test]
async fn a_rollout_that_is_cancelled_is_given_up_and_changes_nothing() {
    let server = sample(Sample::Deploy).await;
    let client = connect(&server, ClientLifecycleMode::Initialize).await;
    let backstage = server.backstage().unwrap();
    backstage.take_longer(std::time::Duration::from_millis(500));
    let before = call(&client, "status", json!({"service": "search"})).await.structured_content;
    let arguments = json!({"service": "search", "replicas": 9, "region": "eu-west"}).as_object().unwrap().clone();
    let parameters = CallToolRequestParams::new("rollout").with_arguments(arguments);
    let request = ClientRequest::CallToolRequest(Request::new(parameters));
    let handle = client.send_cancellable_request(request, PeerRequestOptions::no_options()).await.unwrap();
    // A cancellation of a call that has not begun would be none.
    until(|| !client.service().progress.lock().unwrap().is_empty()).await;
    handle.cancel(None).await.unwrap();
    until(|| backstage.given_up() == 1).await;
    assert_eq!(call(&client, "status", json!({"service": "search"})).await.structured_content, before);
}
