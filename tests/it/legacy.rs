//! The legacy era: `initialize`, sealed sessions bound to their principal, GET and DELETE.

use serde_json::json;

use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway, Client) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, upstream, gateway, client)
}

#[tokio::test]
async fn each_legacy_version_is_negotiated_and_works() {
    let (_issuer, upstream, _gateway, client) = start().await;
    for (asked, answered) in [
        ("2025-03-26", "2025-03-26"),
        ("2025-06-18", "2025-06-18"),
        ("2025-11-25", "2025-11-25"),
        ("2026-07-28", "2025-11-25"),
        ("1999-01-01", "2025-11-25"),
    ] {
        let (answer, session) = client.initialize(asked).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        assert_eq!(answer.result()["protocolVersion"], answered);
        assert!(!session.is_empty() && session.bytes().all(|byte| byte.is_ascii_graphic()));
        // Gemini CLI sends no version header after `initialize`.
        let body = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/call", "params": { "name": "tools__echo", "arguments": {} } });
        let answer = client.post(&[("mcp-session-id", session)], body.to_string()).await;
        assert_eq!(answer.tool_text(), "{}", "{asked}");
        assert!(answer.result().get("resultType").is_none(), "{}", answer.text);
    }
    assert_eq!(upstream.calls().len(), 5);
}

#[tokio::test]
async fn a_list_in_a_legacy_session_has_the_legacy_shape() {
    let (_issuer, _upstream, _gateway, client) = start().await;
    let (_, session) = client.initialize("2025-11-25").await;
    let answer = client.legacy(&session, "tools/list", json!({})).await;
    assert_eq!(answer.result()["tools"][0]["name"], "tools__echo", "{}", answer.text);
    for modern in ["resultType", "ttlMs", "cacheScope"] {
        assert!(answer.result().get(modern).is_none(), "{}", answer.text);
    }
    assert_eq!(client.legacy(&session, "ping", json!({})).await.result(), &json!({}));
}

#[tokio::test]
async fn a_session_belongs_to_its_principal() {
    let (issuer, upstream, gateway, client) = start().await;
    let (_, session) = client.initialize("2025-11-25").await;
    let other = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let answer = other.legacy(&session, "tools/call", json!({ "name": "tools__echo", "arguments": {} })).await;
    assert_eq!(answer.status, 404, "{}", answer.text);
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn a_session_that_is_gone_or_forged_is_not_found() {
    let (_issuer, _upstream, _gateway, client) = start().await;
    let (_, session) = client.initialize("2025-11-25").await;
    let ended = client.bare(reqwest::Method::DELETE, &[("mcp-session-id", session.clone())]).await;
    assert!(ended.status == 200 || ended.status == 204, "{}", ended.status);
    assert_eq!(client.legacy(&session, "tools/list", json!({})).await.status, 404);
    let (_, session) = client.initialize("2025-11-25").await;
    let mut forged = session.into_bytes();
    let last = forged.len() - 5;
    forged[last] = if forged[last] == b'A' { b'B' } else { b'A' };
    let forged = String::from_utf8(forged).unwrap();
    assert_eq!(client.legacy(&forged, "tools/list", json!({})).await.status, 404);
}

#[tokio::test]
async fn a_session_that_has_ended_stays_so_over_a_restart_and_one_that_wants_less_told_still_does() {
    let (_issuer, upstream, mut gateway, client) = start().await;
    let (_, over) = client.initialize("2025-11-25").await;
    let (_, quiet) = client.initialize("2025-11-25").await;
    client.bare(reqwest::Method::DELETE, &[("mcp-session-id", over.clone())]).await;
    assert_eq!(client.legacy(&quiet, "logging/setLevel", json!({ "level": "error" })).await.status, 200);
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert_eq!(client.legacy(&over, "ping", json!({})).await.status, 404);
    let echo = json!({ "name": "tools__echo", "arguments": {} });
    crate::support::eventually("the call", async || {
        let answer = client.legacy(&quiet, "tools/call", echo.clone()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.result().get("isError").is_none()
    })
    .await;
    let sent = upstream.calls().pop().unwrap().message;
    assert_eq!(sent["params"]["_meta"]["io.modelcontextprotocol/logLevel"], "error", "{sent}");
}

#[tokio::test]
async fn a_request_without_its_session_is_a_bad_request() {
    let (_issuer, _upstream, _gateway, client) = start().await;
    let body = json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list", "params": {} });
    let answer = client.post(&[("mcp-protocol-version", "2025-11-25".to_owned())], body.to_string()).await;
    assert_eq!(answer.status, 400, "{}", answer.text);
}

#[tokio::test]
async fn notifications_are_accepted_without_a_body() {
    let (_issuer, _upstream, _gateway, client) = start().await;
    let (_, session) = client.initialize("2025-11-25").await;
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
    let answer = client.post(&[("mcp-session-id", session)], body.to_string()).await;
    assert_eq!((answer.status, answer.text.as_str()), (202, ""));
}
