//! A client that logs in by itself, and a provider that logs people out, with nobody in front of them.

use rmcp::ServiceExt as _;
use rmcp::model::CallToolRequestParams;
use rmcp::transport::TokioChildProcess;
use serde_json::{Value, json};

use crate::parts::Parts;
use crate::provider::Provider;
use crate::support::free_address;
use crate::support::gateway::{Gateway, Setup};
use crate::support::scripted::Scripted;

/// One client of the provider for everybody behind the gateway.
pub const REGISTRATION: &str = "[issuers.test.registration]\nclient_id = \"shared\"\nscopes = [\"openid\", \"mcp\"]\n";
/// A client that describes itself, where the provider finds it.
const DOCUMENT: &str = "https://clients.example/assistant.json";

async fn start(provider: &Provider, lines: &str) -> (Scripted, Gateway) {
    let upstream = Scripted::echo().await;
    let setup = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, "").sections(lines);
    (upstream, setup.start().await)
}

/// fastmcp finds out where to log in, registers, logs in, and calls.
async fn onboard(parts: &Parts, gateway: &Gateway) -> Value {
    let (program, script) = (parts.python_command("python"), Parts::script("onboard.py"));
    parts.run(&program, &[&script, &gateway.resource(), "tools__echo", r#"{"word":"hello"}"#]).await
}

#[tokio::test]
async fn fastmcp_registers_at_the_provider_and_logs_in() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let (upstream, gateway) = start(&provider, "").await;
    let said = onboard(&parts, &gateway).await;
    assert_eq!((&said["tools"], &said["text"]), (&json!(["tools__echo"]), &json!(r#"{"word":"hello"}"#)));
    assert_eq!(said["pages"], json!([]), "the gateway asks nobody where the provider registers");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn fastmcp_registers_at_the_gateway_where_the_provider_has_one_client_for_all() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let (upstream, gateway) = start(&provider, REGISTRATION).await;
    let said = onboard(&parts, &gateway).await;
    assert_eq!((&said["tools"], &said["text"]), (&json!(["tools__echo"]), &json!(r#"{"word":"hello"}"#)));
    let page = said["pages"][0].as_str().unwrap();
    assert!(page.contains("Allow access?") && page.contains("FastMCP"), "{page}");
    assert_eq!(upstream.calls().len(), 1);
    let intent = &gateway.records("intent")[0];
    assert_eq!(intent["agent"]["client"], "shared");
    let digest = intent["token"]["digest"].as_str().unwrap();
    let told = gateway.records("admin");
    let told = told.iter().find(|record| record.to_string().contains(digest)).expect("whose token it is");
    assert!(told.to_string().contains("FastMCP"), "{told}");
}

#[tokio::test]
async fn fastmcp_comes_with_a_document_of_its_own_and_registers_nowhere() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let (upstream, gateway) = start(&provider, "").await;
    let (program, script) = (parts.python_command("python"), Parts::script("onboard.py"));
    let arguments = r#"{"word":"hello"}"#;
    let said = parts.run(&program, &[&script, &gateway.resource(), "tools__echo", arguments, DOCUMENT]).await;
    assert_eq!((&said["tools"], &said["text"]), (&json!(["tools__echo"]), &json!(arguments)));
    assert_eq!(provider.clients().await, (0, 1));
    assert_eq!(gateway.records("intent")[0]["agent"]["client"], DOCUMENT);
    assert_eq!(upstream.calls().len(), 1);
}

/// A browser for a client that opens one by itself.
fn browser(parts: &Parts, directory: &std::path::Path) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let script = directory.join("browser");
    let (python, browse) = (parts.python_command("python"), Parts::script("browse.py"));
    std::fs::write(&script, format!("#!/bin/sh\nexec '{python}' '{browse}' \"$1\"\n")).unwrap();
    std::fs::set_permissions(&script, std::fs::Permissions::from_mode(0o700)).unwrap();
    script.display().to_string()
}

/// A client that logs in by itself, with a browser and a home of its own.
fn by_itself(parts: &Parts, name: &str, directory: &std::path::Path) -> tokio::process::Command {
    let mut command = tokio::process::Command::new(parts.node());
    command
        .arg(parts.node_command(name))
        .env_clear()
        .env("PATH", std::env::var_os("PATH").unwrap())
        .env("HOME", directory)
        .env("NO_PROXY", "*")
        .env("PAGES", directory.join("pages"))
        .env("BROWSER", browser(parts, directory));
    command
}

/// `mcp-remote` stands between a client that speaks over its standard streams and the gateway, and logs in.
async fn through_mcp_remote(parts: &Parts, gateway: &Gateway, directory: &std::path::Path) {
    let mut command = by_itself(parts, "mcp-remote", directory);
    command.args([&gateway.resource(), &free_address().port().to_string(), "--transport", "http-only"]);
    let transport = TokioChildProcess::new(command).unwrap();
    let client = tokio::time::timeout(std::time::Duration::from_secs(60), ().serve(transport)).await;
    let client = client.unwrap().unwrap();
    let tools = client.list_all_tools().await.unwrap();
    assert_eq!(tools.len(), 1, "{tools:?}");
    let arguments = json!({ "word": "hello" }).as_object().cloned().unwrap();
    let answer = client.call_tool(CallToolRequestParams::new("tools__echo").with_arguments(arguments)).await.unwrap();
    let answer = serde_json::to_value(&answer).unwrap();
    assert_eq!(answer["content"][0]["text"], r#"{"word":"hello"}"#);
    client.cancel().await.unwrap();
}

#[tokio::test]
async fn mcp_remote_registers_at_the_provider_and_logs_in() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let (upstream, gateway) = start(&provider, "").await;
    let directory = tempfile::tempdir().unwrap();
    through_mcp_remote(&parts, &gateway, directory.path()).await;
    assert_eq!((provider.clients().await.0, upstream.calls().len()), (1, 1));
    assert!(!directory.path().join("pages").exists(), "the gateway asks nobody where the provider registers");
    // It is known by what it was logged in as before.
    through_mcp_remote(&parts, &gateway, directory.path()).await;
    assert_eq!((provider.clients().await.0, upstream.calls().len()), (1, 2));
}

#[tokio::test]
async fn mcp_remote_registers_at_the_gateway_where_the_provider_has_one_client_for_all() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let (upstream, gateway) = start(&provider, REGISTRATION).await;
    let directory = tempfile::tempdir().unwrap();
    through_mcp_remote(&parts, &gateway, directory.path()).await;
    let pages = std::fs::read_to_string(directory.path().join("pages")).unwrap();
    assert!(pages.contains("Allow access?"), "{pages}");
    assert_eq!((provider.clients().await.0, upstream.calls().len()), (0, 1));
}

/// The Inspector's command line, which opens a browser where it may.
async fn inspector(parts: &Parts, gateway: &Gateway, more: &[&str]) -> Value {
    let directory = tempfile::tempdir().unwrap();
    let callback = format!("http://127.0.0.1:{}/oauth/callback", free_address().port());
    let mut command = by_itself(parts, "mcp-inspector", directory.path());
    command
        .args(["--cli", &gateway.resource(), "--transport", "http", "--callback-url", &callback])
        .args(["--method", "tools/call", "--tool-name", "tools__echo", "--tool-arg", "word=hello"])
        .args(more)
        .env("MCP_AUTO_OPEN_ENABLED", "true")
        .stdin(std::process::Stdio::null())
        .kill_on_drop(true);
    let output = tokio::time::timeout(std::time::Duration::from_secs(60), command.output()).await;
    let output = output.unwrap().unwrap();
    let (text, said) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("no JSON: {text}\n{said}"))
}

#[tokio::test]
async fn the_inspector_registers_or_comes_with_a_document_and_logs_in() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    // It registers with an empty `scope` where no scope is named, which the provider does not take.
    let scopes =
        "scopes = \"required\"\nscope_rules = [{ scope = \"mcp\", object = \"tools/*\", actions = [\"call\"] }]\n";
    let upstream = Scripted::echo().await;
    let setup = Setup::with_issuer(&provider.url).issuer_lines(scopes).http_server("tools", &upstream.url, "");
    let gateway = setup.start().await;
    for (more, came) in [(&[][..], (1, 0)), (&["--client-metadata-url", DOCUMENT][..], (1, 1))] {
        let said = inspector(&parts, &gateway, more).await;
        assert_eq!(said["content"][0]["text"], r#"{"word":"hello"}"#, "{said}");
        assert_eq!(provider.clients().await, came);
    }
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn the_provider_logs_a_person_out() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let feed = "[feeds.corp]\nissuer = \"test\"\n[feeds.corp.logout]\naudiences = [\"assistant\"]\n";
    let (_upstream, gateway) = start(&provider, feed).await;
    let alice = gateway.client(&provider.person("alice", &gateway.resource()).await);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    assert!(provider.logs_out("alice", &format!("{}/feeds/corp/logout", gateway.url)).await);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(gateway.records("revocation").len(), 1);
}
