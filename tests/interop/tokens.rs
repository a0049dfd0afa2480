//! Real access tokens at the gateway's door.

use serde_json::json;

use crate::parts::Parts;
use crate::provider::Provider;
use crate::support::client::Client;
use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::scripted::Scripted;

#[tokio::test]
async fn a_persons_token_calls_what_their_group_may() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, "").start().await;

    let alice = gateway.client(&provider.person("alice", &gateway.resource()).await);
    assert_eq!(alice.tool_names().await, ["tools__echo"]);
    assert_eq!(alice.call_tool("tools__echo", json!({ "a": 1 })).await.tool_text(), r#"{"a":1}"#);

    let bob = gateway.client(&provider.person("bob", &gateway.resource()).await);
    assert!(bob.tool_names().await.is_empty());
    assert_eq!(bob.call_tool("tools__echo", json!({})).await.error_code(), -32602);
    assert_eq!(upstream.calls().len(), 1);
    let answers = gateway.records("intent");
    assert_eq!(answers.len(), 1, "{answers:?}");
}

#[tokio::test]
async fn a_machines_token_is_its_agent() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
                  [agents.nightly]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\nenvironments = [\"development\"]\n\
                  [[agents.nightly.clients]]\nissuer = \"test\"\nclient_id = \"nightly\"\n";
    let gateway = Setup::with_issuer(&provider.url)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("{DEVELOPERS_MAY}p, agent:nightly, *, tools/echo, call, -, allow\n"))
        .policy_file("agents.toml", agents)
        .start()
        .await;
    let client = gateway.client(&provider.machine(&gateway.resource()).await);
    assert_eq!(client.tool_names().await, ["tools__echo"]);
    assert_eq!(client.call_tool("tools__echo", json!({ "b": 2 })).await.tool_text(), r#"{"b":2}"#);
}

#[tokio::test]
async fn a_token_for_another_resource_is_refused() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, "").start().await;
    for token in
        [provider.person("alice", "http://127.0.0.1:9/mcp").await, provider.machine("http://127.0.0.1:9/mcp").await]
    {
        let answer = gateway.client(&token).modern("tools/list", json!({})).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
        assert!(answer.header("www-authenticate").contains("resource_metadata="), "{:?}", answer.headers);
    }
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn the_challenge_leads_a_client_to_the_provider() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, "").start().await;
    let stranger = Client::new(&gateway.resource(), None);
    let challenge = stranger.bare(reqwest::Method::GET, &[]).await;
    assert_eq!(challenge.status, 401);
    let challenge = challenge.header("www-authenticate").to_owned();
    let at = challenge.split("resource_metadata=\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap();
    let metadata = Client::new(at, None).bare(reqwest::Method::GET, &[]).await;
    let metadata = &metadata.messages[0];
    assert_eq!(metadata["resource"], gateway.resource());
    assert_eq!(metadata["authorization_servers"], json!([provider.url]));
    let discovery = format!("{}/.well-known/oauth-authorization-server", provider.url);
    let discovery = Client::new(&discovery, None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(discovery.messages[0]["issuer"], provider.url);
}
