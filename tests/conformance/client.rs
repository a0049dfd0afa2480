//! The gateway as a client, of the suite's own servers.
//!
//! The suite starts a command with the URL of its server; the command hands the URL over to the test, which
//! puts a gateway in front of it and asks what the scenario wants asked. Decides what is asked; the suite
//! judges what arrived. Invariant: the suite waits until everything was asked.

use std::future::Future;
use std::time::Duration;

use serde_json::{Value, json};

use crate::expected::compare;
use crate::parts::Parts;
use crate::suite::{self, Report};
use crate::support::client::{Answer, Client, modern_request};
use crate::upstream::gateway;

/// Waits for the test, which finds in files what the suite said.
const HAND_OVER: &str = "#!/bin/sh\nset -e\ncd \"$(dirname \"$0\")\"\nprintf %s \"$MCP_CONFORMANCE_CONTEXT\" > context\n\
                         printf %s \"$1\" > url.part\nmv url.part url\nwhile [ ! -e done ]; do sleep 0.05; done\n";

/// Runs one scenario; `ask` is what a client of the gateway does in it, with what the suite told it.
async fn scenario<Asking>(name: &str, version: &str, ask: impl FnOnce(Client, Value) -> Asking)
where
    Asking: Future<Output = ()> + Send + 'static,
{
    handed_over(name, version, async |url: String, context: Value| {
        let gateway = gateway(|setup| setup.http_server("fixture", &url, "prefix = \"none\"")).await;
        let client = Client::new(&gateway.resource(), None);
        // A client that gives up is no reason not to hear what the suite says.
        let _ = tokio::spawn(ask(client, context)).await;
    })
    .await;
}

/// Runs one scenario, whose server's URL and whatever else the suite tells are handed to `drive`.
pub async fn handed_over(name: &str, version: &str, drive: impl AsyncFnOnce(String, Value)) {
    let Some(parts) = Parts::installed() else { return };
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("hand-over");
    std::fs::write(&script, HAND_OVER).unwrap();
    let command = format!("sh {}", script.display());
    let asking = async {
        let url = loop {
            match std::fs::read_to_string(directory.path().join("url")) {
                Ok(url) => break url,
                Err(_) => tokio::time::sleep(Duration::from_millis(20)).await,
            }
        };
        let context = std::fs::read_to_string(directory.path().join("context")).unwrap();
        drive(url, serde_json::from_str(&context).unwrap_or_default()).await;
        std::fs::write(directory.path().join("done"), "").unwrap();
    };
    let (report, ()) = tokio::join!(suite::client(&parts, &command, name, version), asking);
    let failing = report.short_of(&Report::default());
    let line = format!("conformance: client {name} {version}: {} passed, {} failed\n", report.passed(), failing.len());
    let _ = std::io::Write::write_all(&mut std::io::stderr(), line.as_bytes());
    compare("client", false, &report.scenarios(), failing);
}

#[tokio::test]
async fn a_tool_of_a_legacy_server_is_called() {
    scenario("tools_call", "2025-11-25", |client, _| async move { call_everything(&client).await }).await;
}

#[tokio::test]
async fn a_tool_of_a_modern_server_is_called() {
    scenario("tools_call", "2026-07-28", |client, _| async move { call_everything(&client).await }).await;
}

#[tokio::test]
async fn every_request_says_of_itself_what_it_has_to() {
    scenario("request-metadata", "2026-07-28", |client, _| async move {
        client.modern("tools/list", json!({})).await;
    })
    .await;
}

#[tokio::test]
async fn the_standard_headers_go_with_every_request() {
    scenario("http-standard-headers", "2026-07-28", |client, _| async move {
        call_everything(&client).await;
        for (list, member, method, key) in [
            ("resources/list", "resources", "resources/read", "uri"),
            ("prompts/list", "prompts", "prompts/get", "name"),
        ] {
            let listed = client.modern(list, json!({})).await;
            for item in items(&listed, member) {
                client.modern(method, json!({ key: item[key] })).await;
            }
        }
    })
    .await;
}

#[tokio::test]
async fn parameters_are_mirrored_for_a_client_that_mirrors_none() {
    scenario("http-custom-headers", "2026-07-28", |client, context| async move {
        let (_, session) = client.initialize("2025-11-25").await;
        client.legacy(&session, "tools/list", json!({})).await;
        let calls = context["toolCalls"].as_array().unwrap_or_else(|| panic!("no calls in {context}"));
        for call in calls {
            client.legacy(&session, "tools/call", call.clone()).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_tool_with_an_invalid_annotation_is_left_out_and_no_other() {
    scenario("http-invalid-tool-headers", "2026-07-28", |client, _| async move {
        let (_, session) = client.initialize("2025-11-25").await;
        let listed = client.legacy(&session, "tools/list", json!({})).await;
        for tool in items(&listed, "tools") {
            let call = json!({ "name": tool["name"], "arguments": arguments(&tool) });
            client.legacy(&session, "tools/call", call).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_reference_in_a_schema_is_not_followed() {
    scenario("json-schema-ref-no-deref", "2026-07-28", |client, _| async move { call_everything(&client).await }).await;
}

async fn send_the_schema_back(client: Client) {
    let listed = client.modern("tools/list", json!({})).await;
    let tools = items(&listed, "tools");
    let focal = tools.iter().find(|tool| tool["name"] == "json_schema_2020_12_tool").unwrap();
    client.call_tool("json_schema_echo", json!({ "schema": focal["inputSchema"] })).await;
}

#[tokio::test]
async fn a_schema_of_a_legacy_server_comes_back_whole() {
    let ask = |client, _| send_the_schema_back(client);
    scenario("json-schema-2020-12-preservation", "2025-11-25", ask).await;
}

#[tokio::test]
async fn a_schema_of_a_modern_server_comes_back_whole() {
    let ask = |client, _| send_the_schema_back(client);
    scenario("json-schema-2020-12-preservation", "2026-07-28", ask).await;
}

#[tokio::test]
async fn a_state_goes_back_to_the_server_that_gave_it() {
    scenario("sep-2322-client-request-state", "2026-07-28", |client, _| async move {
        let listed = client.modern("tools/list", json!({})).await;
        for tool in items(&listed, "tools") {
            answered(&client, &tool["name"], &json!({ "confirmed": true })).await;
        }
    })
    .await;
}

#[tokio::test]
async fn a_stream_that_was_closed_is_taken_up_again_when_its_server_said() {
    scenario("sse-retry", "2025-11-25", |client, _| async move { call_everything(&client).await }).await;
}

#[tokio::test]
async fn the_defaults_of_a_question_reach_the_user_and_come_back() {
    scenario("elicitation-sep1034-client-defaults", "2025-11-25", |client, _| async move {
        // What a client that fills in defaults sends when its user changes nothing.
        let defaults = json!({ "name": "John Doe", "age": 30, "score": 95.5, "status": "active", "verified": true });
        answered(&client, &json!("test_client_elicitation_defaults"), &defaults).await;
    })
    .await;
}

/// Calls a tool and accepts every form that it asks to be filled in.
async fn answered(client: &Client, tool: &Value, content: &Value) {
    let mut params = json!({ "name": tool, "arguments": {} });
    for _ in 0..4 {
        let (headers, mut body) = modern_request("tools/call", params.clone());
        body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = json!({ "elicitation": {} });
        let answer = client.post(&headers, body.to_string()).await;
        let result = answer.result();
        if result["resultType"] != "input_required" {
            return;
        }
        let asked = result["inputRequests"].as_object().cloned().unwrap_or_default();
        let accepted = json!({ "action": "accept", "content": content });
        params["inputResponses"] = asked.keys().map(|key| (key.clone(), accepted.clone())).collect();
        match result.get("requestState") {
            Some(state) => params["requestState"] = state.clone(),
            None => drop(params.as_object_mut().unwrap().remove("requestState")),
        }
    }
}

/// Lists the tools and calls each of them.
async fn call_everything(client: &Client) {
    let listed = client.modern("tools/list", json!({})).await;
    for tool in items(&listed, "tools") {
        client.modern("tools/call", json!({ "name": tool["name"], "arguments": arguments(&tool) })).await;
    }
}

fn items(listed: &Answer, member: &str) -> Vec<Value> {
    listed.result()[member].as_array().unwrap_or_else(|| panic!("no list in {}", listed.text)).clone()
}

/// One argument of the right type for each property.
fn arguments(tool: &Value) -> Value {
    let example = |schema: &Value| match schema["type"].as_str() {
        Some("number" | "integer") => json!(7),
        Some("boolean") => json!(true),
        _ => json!("text"),
    };
    let properties = tool["inputSchema"]["properties"].as_object().cloned().unwrap_or_default();
    properties.iter().map(|(name, schema)| (name.clone(), example(schema))).collect()
}
