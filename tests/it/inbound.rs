//! What a caller came with never goes any further: at every kind of server, whatever that is presented with.

use std::time::Duration;

use serde_json::json;

use crate::support::client::modern_request;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::talkative::{RULES, UPSTREAMS};
use crate::support::verbatim::{Heard, Said, Verbatim};
use crate::support::{eventually, eventually_within};

/// One tool and one resource.
fn script(heard: &Heard) -> Option<Said> {
    Said::result(match heard.method.as_str() {
        "tools/list" => r#"{"tools":[{"name":"t","inputSchema":{"type":"object"}}]}"#,
        "resources/list" => r#"{"resources":[{"uri":"note://one","name":"one"}]}"#,
        "tools/call" => r#"{"content":[{"type":"text","text":"done"}],"resultType":"complete"}"#,
        "resources/subscribe" => "{}",
        _ => return None,
    })
}

#[tokio::test]
async fn no_inbound_token_reaches_a_server_of_any_kind_whatever_it_is_presented_with() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let mut setup = Setup::new(&issuer).policy(RULES);
    let place = setup.directory().join("secret");
    std::fs::write(&place, "a-secret-of-the-gateway").unwrap();
    std::fs::set_permissions(&place, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let mut upstreams = Vec::new();
    for (era, transport) in UPSTREAMS {
        let secret = match transport {
            "http" => "credential = { kind = \"static\", secret = \"file:secret\" }\n",
            // A process is started with what it needs.
            _ => "[servers.ID.variables]\nKEY = \"file:secret\"\n",
        };
        for (kind, more) in [("none", ""), ("own", secret)] {
            let (upstream, id) = (Verbatim::start(era, script).await, format!("{era}-{transport}-{kind}"));
            let id = id.replace("modern", "m").replace("legacy", "l");
            setup = upstream.served_as(setup, &id, transport, &more.replace("ID", &id));
            upstreams.push((id, transport, kind, upstream));
        }
    }
    let gateway = setup.start().await;
    // Both eras, calls, lists, a session of its own stream, a listen: each with a token that is told apart.
    let tokens = ["alice", "bob"].map(|user| issuer.token(user, &["developers"], &gateway.resource()));
    let [modern, legacy] = tokens.each_ref().map(|token| gateway.client(token));
    let (_, session) = legacy.initialize("2025-11-25").await;
    let own = [("mcp-session-id", session.clone()), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let _stream = legacy.stream(&own, None).await;
    let (headers, listen) = modern_request(
        "subscriptions/listen",
        json!({ "notifications": { "toolsListChanged": true, "resourcesListChanged": true } }),
    );
    let mut listening = modern.stream(&headers, Some(listen.to_string())).await;
    listening.next().await;
    let listed = async || modern.tool_names().await.len() == upstreams.len();
    eventually_within(Duration::from_secs(30), "every server's list", listed).await;
    for (id, ..) in &upstreams {
        let name = format!("{id}__t");
        assert_eq!(modern.call_tool(&name, json!({})).await.tool_text(), "done", "{id}");
        let called = legacy.legacy(&session, "tools/call", json!({ "name": name, "arguments": {} })).await;
        assert_eq!(called.tool_text(), "done", "{id}");
    }
    for (id, transport, kind, upstream) in &upstreams {
        eventually("both calls", async || upstream.heard("tools/call").len() == 2).await;
        let arrived = upstream.arrived();
        assert!(arrived.len() > 3, "{id}: {arrived:?}");
        for token in &tokens {
            // Nor any part of it: what it says, and what it is signed with.
            for part in token.split('.').chain([token.as_str()]) {
                assert!(arrived.iter().all(|one| !one.contains(part)), "{id} was given {part} of {token}");
            }
        }
        let presented = arrived.iter().any(|one| one.contains("a-secret-of-the-gateway"));
        assert_eq!(presented, *kind == "own", "{id} ({transport}): what is meant for it comes");
    }
}
