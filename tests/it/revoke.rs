//! What was granted is taken back: at once, durably, and also while the gateway is down.

use serde_json::json;

use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

fn revoke(gateway: &Gateway, arguments: &[&str]) {
    let arguments: Vec<_> = ["revoke"].iter().chain(arguments).chain(&["--config", "servers.toml"]).copied().collect();
    let output = gateway.command(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_revoked_subject_is_refused_on_the_next_call_and_others_are_not() {
    let (issuer, upstream, gateway) = start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["subject", "user:test/alice"]);
    let answer = alice.call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert!(answer.text.contains("revoked"), "{}", answer.text);
    let fresh = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(fresh.call_tool("tools__echo", json!({})).await.status, 401, "a block outlives the token");
    assert_eq!(bob.call_tool("tools__echo", json!({})).await.status, 200);
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn one_token_can_be_revoked_by_its_id() {
    let (issuer, _upstream, gateway) = start().await;
    let claims = issuer.claims("alice", &["developers"], &gateway.resource());
    let alice = gateway.client(&issuer.sign(&claims));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["token", claims["jti"].as_str().unwrap()]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    let other = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_client_and_everything_can_be_revoked() {
    let (issuer, _upstream, gateway) = start().await;
    let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
    claims["client_id"] = json!("other-assistant");
    let other = gateway.client(&issuer.sign(&claims));
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    revoke(&gateway, &["client", "test/test-assistant"]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["everything"]);
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn revoking_works_while_the_gateway_is_down_and_survives_restarts() {
    let (issuer, _upstream, mut gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    assert!(gateway.stop().await.success());
    revoke(&gateway, &["subject", "user:test/alice"]);
    gateway.launch().await;
    assert_eq!(gateway.client(&token).call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn a_revocation_is_on_the_record_with_its_actor_and_epoch() {
    let (_issuer, _upstream, gateway) = start().await;
    revoke(&gateway, &["subject", "user:test/alice"]);
    let record = &gateway.records("revocation")[0];
    assert!(record.to_string().contains("host:"), "{record}");
    assert!(record["revocation"]["epoch"].as_u64().is_some(), "{record}");
}
