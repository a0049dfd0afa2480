//! Other people's clients in front of the gateway, in every era that they speak.

use rmcp::model::{CallToolRequestParams, ProtocolVersion};
use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
use rmcp::transport::StreamableHttpClientTransport;
use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;
use serde_json::{Value, json};

use crate::parts::Parts;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

/// A gateway with an echo behind it, and a developer's token.
async fn start() -> (Scripted, Gateway, String) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    (upstream, gateway, token)
}

/// The protocol version of each call, as the record has it.
fn spoken(gateway: &Gateway) -> Vec<String> {
    let calls = gateway.records("intent");
    calls.iter().map(|record| record["mcp"]["protocol"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn the_inspector_lists_and_calls_in_every_era() {
    let Some(parts) = Parts::installed() else { return };
    let (upstream, gateway, token) = start().await;
    let inspect = async |era: &str, more: &[&str]| -> Value {
        let (inspector, url, header) =
            (parts.node_command("mcp-inspector"), gateway.resource(), format!("Authorization: Bearer {token}"));
        let fixed = [&inspector, "--cli", &url, "--transport", "http", "--header", &header, "--protocol-era", era];
        parts.run(&parts.node(), &[&fixed, more].concat()).await
    };
    for era in ["legacy", "auto", "modern"] {
        let list = inspect(era, &["--method", "tools/list"]).await;
        assert_eq!(list["tools"][0]["name"], "tools__echo", "{era}: {list}");
        let call =
            inspect(era, &["--method", "tools/call", "--tool-name", "tools__echo", "--tool-arg", "word=hello"]).await;
        assert_eq!(call["content"][0]["text"], r#"{"word":"hello"}"#, "{era}: {call}");
    }
    assert_eq!(upstream.calls().len(), 3);
    assert_eq!(spoken(&gateway), ["2025-11-25", "2026-07-28", "2026-07-28"]);
}

/// Lists and calls with a Python library, which must agree upon this version.
async fn python(library: &str, mode: &str, version: &str) {
    let Some(parts) = Parts::installed() else { return };
    let (upstream, gateway, token) = start().await;
    let (program, script) = (parts.python_command("python"), Parts::script("client.py"));
    let arguments = r#"{"word":"hello"}"#;
    let said =
        parts.run(&program, &[&script, library, mode, &gateway.resource(), &token, "tools__echo", arguments]).await;
    assert_eq!(said["tools"], json!(["tools__echo"]), "{library} {mode}");
    assert_eq!(said["text"], arguments, "{library} {mode}");
    assert_eq!(upstream.calls().len(), 1);
    assert_eq!(said["version"], version, "{library} {mode}");
}

#[tokio::test]
async fn the_python_client_lists_and_calls_in_both_eras() {
    for (mode, version) in [("auto", "2026-07-28"), ("legacy", "2025-11-25")] {
        python("mcp", mode, version).await;
    }
}

#[tokio::test]
async fn fastmcp_lists_and_calls_in_both_eras() {
    for (mode, version) in [("auto", "2026-07-28"), ("legacy", "2025-11-25")] {
        python("fastmcp", mode, version).await;
    }
}

#[tokio::test]
async fn the_fastmcp_command_lists_and_calls() {
    let Some(parts) = Parts::installed() else { return };
    let (upstream, gateway, token) = start().await;
    let (program, url) = (parts.python_command("fastmcp"), gateway.resource());
    let list = parts.run(&program, &["list", &url, "--auth", &token, "--json"]).await;
    assert!(list.to_string().contains("\"tools__echo\""), "{list}");
    let call = parts.run(&program, &["call", &url, "tools__echo", "word=hello", "--auth", &token, "--json"]).await;
    assert!(call.to_string().contains("hello"), "{call}");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn the_rust_client_lists_and_calls_in_every_lifecycle() {
    let (upstream, gateway, token) = start().await;
    let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
    let lifecycles = [
        ClientLifecycleMode::Initialize,
        ClientLifecycleMode::Discover { preferred_versions: preferred_versions.clone() },
        ClientLifecycleMode::Auto { preferred_versions, legacy_version: None },
    ];
    for lifecycle in lifecycles {
        #[expect(clippy::disallowed_methods, reason = "a test's client needs no SSRF guard")]
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        let config = StreamableHttpClientTransportConfig::with_uri(gateway.resource()).auth_header(token.clone());
        let transport = StreamableHttpClientTransport::with_client(http, config);
        let client = ().serve_with_lifecycle(transport, lifecycle.clone()).await.unwrap();
        let tools = client.list_all_tools().await.unwrap();
        assert_eq!(tools.len(), 1, "{lifecycle:?}: {tools:?}");
        let arguments = json!({ "word": "hello" }).as_object().cloned().unwrap();
        let call = CallToolRequestParams::new("tools__echo").with_arguments(arguments);
        let answer = client.call_tool(call).await.unwrap();
        let answer = serde_json::to_value(&answer).unwrap();
        assert_eq!(answer["content"][0]["text"], r#"{"word":"hello"}"#, "{lifecycle:?}");
        client.cancel().await.unwrap();
    }
    assert_eq!(upstream.calls().len(), 3);
    assert_eq!(spoken(&gateway), ["2025-11-25", "2026-07-28", "2026-07-28"]);
}
