//! A client that logs in by itself, and a provider that logs people out, with nobody in front of them.

use serde_json::{Value, json};

use crate::parts::Parts;
use crate::provider::Provider;
use crate::support::gateway::{Gateway, Setup};
use crate::support::scripted::Scripted;

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
    let registration = "[issuers.test.registration]\nclient_id = \"shared\"\nscopes = [\"openid\", \"mcp\"]\n";
    let (upstream, gateway) = start(&provider, registration).await;
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
