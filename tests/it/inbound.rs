//! What a caller came with never goes any further: at every kind of server, whatever that is presented with.

use std::time::Duration;

use serde_json::json;

use crate::support::client::{Client, modern_request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::holder::Holder;
use crate::support::issuer::Issuer;
use crate::support::oldest::Oldest;
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

/// Software that needs a mandate for what it does.
const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works at night\"
kind = \"autonomous\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
";

/// What it may, beside what people may.
const OF_THE_BOT: &str = "\
p, agent:bot, *, */*, call, -, allow
p, user:test/bot, *, */*, call, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
";

/// Calls with a token that is bound to a key; answers the proof that came with it.
async fn call_with_proof(gateway: &Gateway, holder: &Holder, token: &str, name: &str) -> String {
    let url = gateway.resource();
    let proof = holder.proof("POST", &url, token);
    let (mut headers, body) = modern_request("tools/call", json!({ "name": name, "arguments": {} }));
    headers.extend([("authorization", format!("DPoP {token}")), ("dpop", proof.clone())]);
    let answer = Client::new(&url, None).post(&headers, body.to_string()).await;
    assert!(answer.result()["content"].is_array(), "{name}: {}", answer.text);
    proof
}

#[tokio::test]
async fn nothing_that_callers_came_with_reaches_a_server_of_any_kind_whatever_it_is_presented_with() {
    crate::needs_python!();
    let (issuer, oldest) = (Issuer::start().await, Oldest::start().await);
    let mut setup = Setup::new(&issuer).policy(&format!("{RULES}{OF_THE_BOT}")).policy_file("agents.toml", AGENTS);
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
    let secret = "credential = { kind = \"static\", secret = \"file:secret\" }\n";
    setup = setup.http_server("o-sse-own", &oldest.url, &format!("pins = \"off\"\n{secret}"));
    let tools: Vec<_> = upstreams.iter().map(|(id, ..)| format!("{id}/t")).chain(["o-sse-own/echo".into()]).collect();
    let template = "title = \"echoes at night\"\nenvironments = [\"development\"]\nagents = [\"bot\"]\n";
    let gateway = setup
        .policy_file("mandates.toml", &format!("[templates.nightly]\n{template}tools = {tools:?}\n"))
        .start()
        .await;
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
    let names: Vec<_> = tools.iter().map(|tool| tool.replace('/', "__")).collect();
    let until_listed = async |client: &Client| {
        let listed = async || {
            let shown = client.tool_names().await;
            names.iter().all(|name| shown.contains(name))
        };
        eventually_within(Duration::from_secs(30), "every server's list", listed).await;
    };
    until_listed(&modern).await;
    // A token that is bound to a key, with its proofs, and a mandate's handle.
    let holder = Holder::new();
    let mut bound = issuer.claims("alice", &["developers"], &gateway.resource());
    bound["cnf"] = holder.confirmation();
    let mut software = issuer.claims("bot", &[], &gateway.resource());
    software["client_id"] = json!("bot");
    let (bound, software) = (issuer.sign(&bound), issuer.sign(&software));
    let bot = gateway.client(&software);
    until_listed(&bot).await;
    let opened = bot.call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
    let handle = opened.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", opened.text));
    let mut brought = vec![bound.clone(), software, handle.to_owned()];
    brought.extend(tokens);
    for name in &names {
        assert!(modern.call_tool(name, json!({})).await.result()["content"].is_array(), "{name}");
        let called = legacy.legacy(&session, "tools/call", json!({ "name": name, "arguments": {} })).await;
        assert!(called.result()["content"].is_array(), "{name}: {}", called.text);
        brought.push(call_with_proof(&gateway, &holder, &bound, name).await);
        let params = json!({ "name": name, "arguments": {}, "_meta": { "dev.bailiwick/mandate": handle } });
        let done = bot.modern("tools/call", params).await;
        assert!(done.result()["content"].is_array() && done.result()["isError"] != true, "{name}: {}", done.text);
    }
    let untouched = |id: &str, arrived: &[String]| {
        assert!(arrived.len() > 4, "{id}: {arrived:?}");
        for one in &brought {
            // Nor any part of it: what it says, and what it is signed with.
            for part in one.split('.').chain([one.as_str()]) {
                assert!(arrived.iter().all(|text| !text.contains(part)), "{id} was given {part} of {one}");
            }
        }
        arrived.iter().any(|one| one.contains("a-secret-of-the-gateway"))
    };
    for (id, transport, kind, upstream) in &upstreams {
        eventually("all calls", async || upstream.heard("tools/call").len() == 4).await;
        let presented = untouched(id, &upstream.arrived());
        assert_eq!(presented, *kind == "own", "{id} ({transport}): what is meant for it comes");
    }
    eventually("all calls", async || oldest.saw("tools/call").len() == 4).await;
    assert!(untouched("o-sse-own", &oldest.everything()), "what is meant for it comes");
}
