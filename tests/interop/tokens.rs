//! Real access tokens at the gateway's door.

use serde_json::json;

use crate::parts::Parts;
use crate::provider::Provider;
use crate::support::client::Client;
use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::holder::{Holder, call_as};
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

/// Its opaque tokens are asked about with the client that exchanges.
const INTROSPECTION: &str = "[issuers.test.introspection]\nclient_id = \"gateway\"\n\
                             client_secret = \"file:introspection-secret\"\nwithout_sub = \"client\"\n";

#[tokio::test]
async fn a_token_that_says_nothing_is_asked_about_and_can_be_taken_back() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"development\"]\n\
                  [agents.nightly]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"autonomous\"\nmandates = \"optional\"\nenvironments = [\"development\"]\n\
                  [[agents.nightly.clients]]\nissuer = \"test\"\nclient_id = \"opaque-nightly\"\n";
    let gateway = Setup::with_issuer(&provider.url)
        .sections(INTROSPECTION)
        .policy(&format!("{DEVELOPERS_MAY}p, agent:nightly, *, tools/echo, call, -, allow\n"))
        .policy_file("agents.toml", agents)
        .policy_file("../introspection-secret", "gateway-secret-of-the-tests-0123456789")
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let alice = provider.login("alice", "opaque-assistant", &gateway.resource(), None).await;
    let machine = provider.machine_of("opaque-nightly", &gateway.resource()).await;
    for token in [&alice, &machine] {
        assert!(!token.contains('.'), "{token}");
        assert_eq!(gateway.client(token).call_tool("tools__echo", json!({})).await.tool_text(), "{}");
    }
    let whom = |number: usize| {
        let intent = gateway.records("intent")[number].clone();
        (intent["subject"]["id"].clone(), intent["agent"]["id"].clone())
    };
    assert_eq!(whom(0), (json!("user:test/alice"), json!("assistant")));
    assert_eq!(whom(1).1, json!("nightly"));
    let elsewhere = provider.login("alice", "opaque-assistant", "http://127.0.0.1:9/mcp", None).await;
    let revoked = provider.login("alice", "opaque-assistant", &gateway.resource(), None).await;
    provider.revoke("opaque-assistant", &revoked).await;
    for (token, reason) in [(&elsewhere, "audience_mismatch"), (&revoked, "token_inactive")] {
        let answer = gateway.client(token).call_tool("tools__echo", json!({})).await;
        assert!(answer.status == 401 && answer.text.contains(reason), "{reason}: {}", answer.text);
    }
    assert_eq!(upstream.calls().len(), 2);
    assert!(upstream.everything().iter().all(|request| !request.text.contains(&alice)));
}

#[tokio::test]
async fn a_token_that_is_bound_to_a_key_is_good_with_a_proof_and_for_nobody_else() {
    let Some(parts) = Parts::installed() else { return };
    let provider = Provider::start(&parts).await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::with_issuer(&provider.url)
        .sections(INTROSPECTION)
        .policy_file("../introspection-secret", "gateway-secret-of-the-tests-0123456789")
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let (holder, thief, url) = (Holder::new(), Holder::new(), gateway.resource());
    for client in ["assistant", "opaque-assistant"] {
        let token = provider.login("alice", client, &url, Some(&holder)).await;
        let proof = holder.proof("POST", &url, &token);
        let dpop = format!("DPoP {token}");
        let good = call_as(&url, &dpop, &[("dpop", proof.clone())]).await;
        assert_eq!((good.status, good.tool_text()), (200, "{}"), "{client}: {}", good.text);
        for (authorization, further, reason) in [
            (format!("Bearer {token}"), Vec::new(), "token_bound"),
            (format!("Bearer {token}"), vec![("dpop", holder.proof("POST", &url, &token))], "token_bound"),
            (dpop.clone(), Vec::new(), "dpop_proof_invalid"),
            (dpop.clone(), vec![("dpop", proof)], "dpop_proof_replayed"),
            (dpop, vec![("dpop", thief.proof("POST", &url, &token))], "dpop_proof_invalid"),
        ] {
            let answer = call_as(&url, &authorization, &further).await;
            assert!(answer.status == 401 && answer.text.contains(reason), "{client} {reason}: {}", answer.text);
        }
    }
    assert_eq!(upstream.calls().len(), 2);
}
