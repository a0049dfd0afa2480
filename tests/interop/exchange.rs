//! RFC 8693 at a real authorization server: the upstream gets a token of its own.

use futures_util::future::join_all;
use serde_json::json;

use crate::parts::Parts;
use crate::provider::{Provider, claims};
use crate::support::gateway::{Gateway, Setup};
use crate::support::scripted::Scripted;

/// A gateway that exchanges for one upstream.
async fn start(provider: &Provider, upstream: &Scripted, audience: &str) -> Gateway {
    let credential = format!(
        "credential = {{ kind = \"exchange\", client_id = \"gateway\", client_secret = \"file:client-secret\", audience = \"{audience}\" }}"
    );
    let setup = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, &credential);
    setup.policy_file("../client-secret", "gateway-secret-of-the-tests-0123456789").start().await
}

#[tokio::test]
async fn the_upstream_gets_a_token_for_itself_and_never_the_callers() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = start(&provider, &upstream, &upstream.url).await;
    let inbound = provider.person("alice", &gateway.resource()).await;
    let answer = gateway.client(&inbound).call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.tool_text(), "{}");

    let calls = upstream.calls();
    assert_eq!(calls.len(), 1);
    let outbound = calls[0].headers["authorization"].strip_prefix("Bearer ").unwrap();
    assert_ne!(outbound, inbound);
    let said = claims(outbound);
    assert_eq!(said["aud"], upstream.url, "{said}");
    assert_eq!((said["sub"].as_str(), said["act"]["sub"].as_str()), (Some("alice"), Some("gateway")), "{said}");
    for arrived in upstream.everything() {
        assert!(!format!("{arrived:?}").contains(&inbound), "the inbound token went upstream: {}", arrived.text);
    }
    let journal = serde_json::to_string(&gateway.journal()).unwrap();
    let logs = gateway.log();
    for secret in [inbound.as_str(), outbound, "gateway-secret-of-the-tests-0123456789"] {
        assert!(!journal.contains(secret) && !logs.contains(secret), "a secret was written down");
    }
}

#[tokio::test]
async fn the_agent_is_named_as_acting_by_a_statement_that_the_provider_verifies() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let credential = format!(
        "credential = {{ kind = \"exchange\", client_id = \"signing-gateway\", private_key = \"file:client-key\", \
         private_key_id = \"gateway-key\", audience = \"{}\" }}",
        upstream.url
    );
    let setup = Setup::with_issuer(&provider.url).http_server("tools", &upstream.url, &credential);
    let gateway = setup.policy_file("../client-key", &provider.client_key().await).start().await;
    let inbound = provider.person("alice", &gateway.resource()).await;
    let answer = gateway.client(&inbound).call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.tool_text(), "{}", "{}", answer.text);
    let said = claims(upstream.calls()[0].headers["authorization"].strip_prefix("Bearer ").unwrap());
    assert_eq!((said["sub"].as_str(), said["act"]["sub"].as_str()), (Some("alice"), Some("assistant")), "{said}");
}

#[tokio::test]
async fn a_hundred_first_calls_at_once_exchange_once() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = start(&provider, &upstream, &upstream.url).await;
    let client = gateway.server_client("tools", &provider.person("alice", &gateway.resource()).await);
    assert_eq!(provider.exchanges().await, 0);
    // More at once than one principal may have in flight: whoever is told to wait does.
    let call = async |number: usize| {
        for _ in 0..200 {
            let answer = client.call_tool("echo", json!({ "number": number })).await;
            if answer.status != 429 {
                return answer;
            }
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        panic!("call {number} was never served");
    };
    for (number, answer) in join_all((0..100).map(call)).await.iter().enumerate() {
        assert_eq!(answer.tool_text(), json!({ "number": number }).to_string());
    }
    assert_eq!(upstream.calls().len(), 100);
    assert_eq!(provider.exchanges().await, 1);
}

#[tokio::test]
async fn a_refused_exchange_refuses_the_call() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = start(&provider, &upstream, "https://unknown.example").await;
    let client = gateway.client(&provider.person("alice", &gateway.resource()).await);
    // Its list needs the credential, too: there is no tool to call.
    let answer = client.call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.result()["_meta"]["dev.bailiwick/reason"], "exchange_refused", "{}", answer.text);
    // The probe carries nobody's credential and asks for nothing but the era.
    let arrived: Vec<_> = upstream.everything().iter().map(|arrived| arrived.message["method"].clone()).collect();
    assert!(arrived.iter().all(|method| method == "server/discover"), "{arrived:?}");
    assert_eq!(provider.exchanges().await, 0);
}
