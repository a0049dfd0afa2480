//! Who may do what: rules, conditions, denials, and what a refusal gives away.

use serde_json::json;

use crate::support::gateway::{DEVELOPERS_MAY, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::talkative::Talkative;

const RULES: &str = "\
g, group:test/developers, role:developer, *
p, role:developer, *, tools/read_*, call, -, allow
p, role:developer, *, tools/deploy, call, few, allow
p, role:developer, *, tools/drop, call, -, allow
p, anyone, *, tools/drop, call, -, deny
p, agent:assistant, *, tools/*, call, -, allow
";

const CONDITIONS: &str = "[few]\nargument = \"replicas\"\nat_most = 5\nonly = [\"replicas\"]\n";

async fn start(issuer: &Issuer) -> (Scripted, crate::support::gateway::Gateway) {
    let tools = json!([tool("read_note"), tool("deploy"), tool("drop"), tool("secret")]);
    let upstream = Scripted::start(tools, |call| result(call, text("done"))).await;
    let gateway = Setup::new(issuer)
        .http_server("tools", &upstream.url, "")
        .policy(RULES)
        .policy_file("conditions.toml", CONDITIONS)
        .start()
        .await;
    (upstream, gateway)
}

#[tokio::test]
async fn two_users_see_different_tools() {
    let issuer = Issuer::start().await;
    let (_upstream, gateway) = start(&issuer).await;
    let developer = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let nobody = gateway.client(&issuer.token("mallory", &[], &gateway.resource()));
    assert_eq!(developer.tool_names().await, ["tools__read_note", "tools__deploy"]);
    assert!(nobody.tool_names().await.is_empty());
}

#[tokio::test]
async fn arguments_are_part_of_the_decision() {
    let issuer = Issuer::start().await;
    let (upstream, gateway) = start(&issuer).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for (arguments, allowed) in [
        (json!({ "replicas": 5 }), true),
        (json!({ "replicas": 6 }), false),
        (json!({ "replicas": "5" }), false),
        (json!({ "replicas": 5.5 }), false),
        (json!({}), false),
        (json!({ "replicas": 5, "force": true }), false),
    ] {
        let before = upstream.calls().len();
        let answer = client.call_tool("tools__deploy", arguments.clone()).await;
        assert_eq!(answer.status, 200);
        assert_eq!(answer.result()["isError"].as_bool().unwrap_or(false), !allowed, "{arguments}: {}", answer.text);
        assert_eq!(upstream.calls().len() - before, usize::from(allowed), "{arguments}");
        if !allowed {
            assert!(answer.tool_text().starts_with("condition_unmet:"), "{}", answer.text);
        }
    }
}

#[tokio::test]
async fn a_hidden_tool_and_one_that_does_not_exist_are_the_same_bytes() {
    let issuer = Issuer::start().await;
    let (upstream, gateway) = start(&issuer).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let absent = client.call_tool("tools__absent", json!({})).await;
    for hidden in ["tools__secret", "tools__drop", "nobody__read_note", "read_note", "tools/read_note"] {
        let answer = client.call_tool(hidden, json!({})).await;
        assert_eq!((answer.status, &answer.text), (absent.status, &absent.text), "{hidden}");
        assert_eq!(answer.headers.get("content-type"), absent.headers.get("content-type"));
    }
    assert_eq!(absent.error_code(), -32602);
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn a_hidden_server_is_like_one_that_does_not_exist() {
    let issuer = Issuer::start().await;
    let (_upstream, gateway) = start(&issuer).await;
    let token = issuer.token("mallory", &[], &gateway.resource());
    for method in ["server/discover", "tools/list", "prompts/list", "resources/list"] {
        let hidden = gateway.server_client("tools", &token).modern(method, json!({})).await;
        let absent = gateway.server_client("absent", &token).modern(method, json!({})).await;
        assert_eq!((hidden.status, hidden.text), (absent.status, absent.text), "{method}");
    }
    let hidden = gateway.server_client("tools", &token).call_tool("deploy", json!({})).await;
    let absent = gateway.server_client("absent", &token).call_tool("deploy", json!({})).await;
    assert_eq!((hidden.status, hidden.text), (absent.status, absent.text));
}

#[tokio::test]
async fn the_agent_is_a_ceiling_for_its_user() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("read"), tool("write")]), |call| result(call, text("done"))).await;
    let rules = DEVELOPERS_MAY
        .replace("p, agent:assistant, *, */*, call, -, allow", "p, agent:assistant, *, tools/read, call, -, allow");
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rules).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__read"]);
    assert_eq!(client.call_tool("tools__write", json!({})).await.error_code(), -32602);
}

#[tokio::test]
async fn groups_that_are_missing_refuse_and_are_not_taken_for_empty() {
    let issuer = Issuer::start().await;
    let (upstream, gateway) = start(&issuer).await;
    let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
    claims.as_object_mut().unwrap().remove("groups");
    let answer = gateway.client(&issuer.sign(&claims)).call_tool("tools__read_note", json!({})).await;
    assert!(answer.text.contains("groups_unavailable"), "{} {}", answer.status, answer.text);
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn scopes_narrow_and_the_challenge_names_all_of_them() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("read"), tool("write")]), |call| result(call, text("done"))).await;
    let mut setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    setup = setup.issuer_lines(
        "scopes = \"required\"\n[[issuers.test.scope_rules]]\nscope = \"tools:write\"\nobject = \"tools/write\"\nactions = [\"call\"]\n\
         [[issuers.test.scope_rules]]\nscope = \"mcp\"\nobject = \"tools/*\"\nactions = [\"call\"]\n",
    );
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__read", "tools__write"], "lists ignore scopes");
    assert_eq!(client.call_tool("tools__read", json!({})).await.status, 200);
    let answer = client.call_tool("tools__write", json!({})).await;
    assert_eq!(answer.status, 403, "{}", answer.text);
    let challenge = answer.header("www-authenticate");
    assert!(challenge.contains("error=\"insufficient_scope\"") && challenge.contains("tools:write"), "{challenge}");
    let stranger = gateway.client(&issuer.token("mallory", &[], &gateway.resource()));
    assert_eq!(
        stranger.call_tool("tools__write", json!({})).await.status,
        200,
        "no step-up where policy refuses anyway"
    );
}

/// Whatever is asked for, and on whichever way: one challenge with every scope that it needs.
#[tokio::test]
async fn the_scopes_that_are_missing_are_named_for_every_action_in_every_era_at_both_endpoints() {
    let rule = |scope: &str, actions: &[&str]| {
        let one = |action: &&str| {
            let object = if ["read", "subscribe"].contains(action) { "up/**" } else { "up/*" };
            format!(
                "[[issuers.test.scope_rules]]\nscope = \"{scope}\"\nobject = \"{object}\"\nactions = [\"{action}\"]\n"
            )
        };
        actions.iter().map(one).collect::<String>()
    };
    let actions = ["call", "get", "read", "subscribe"];
    let own: String = actions.map(|action| rule(&format!("up:{action}"), &[action])).concat();
    let lines = format!("scopes = \"required\"\n{}{own}", rule("all", &actions));
    let up = Talkative::of(("modern", "http"), &[], "", |setup| setup.issuer_lines(&lines)).await;
    let scoped = |scope: &str| {
        let mut claims = up.issuer.claims("alice", &["developers"], &up.gateway.resource());
        claims["scope"] = json!(scope);
        up.issuer.sign(&claims)
    };
    let enough = scoped("all up:call up:get up:read up:subscribe");
    for action in actions {
        // All that this one needs but one of the two.
        let others: Vec<String> =
            actions.iter().filter(|other| **other != action).map(|other| format!("up:{other}")).collect();
        let less = scoped(&format!("all {}", others.join(" ")));
        for (server, prefix) in [(None, "up__"), (Some("up"), "")] {
            let client = |token: &str| match server {
                None => up.gateway.client(token),
                Some(server) => up.gateway.server_client(server, token),
            };
            let (method, params) = match action {
                "call" => ("tools/call", json!({ "name": format!("{prefix}seen"), "arguments": {} })),
                "get" => ("prompts/get", json!({ "name": format!("{prefix}first") })),
                "read" => ("resources/read", json!({ "uri": "test://a" })),
                _ => ("resources/subscribe", json!({ "uri": "test://a" })),
            };
            for era in ["modern", "legacy"] {
                if era == "modern" && action == "subscribe" {
                    continue;
                }
                let ask = async |token: &str| {
                    let client = client(token);
                    if era == "modern" {
                        return client.modern(method, params.clone()).await;
                    }
                    let (_, session) = client.initialize("2025-11-25").await;
                    client.legacy(&session, method, params.clone()).await
                };
                let answer = ask(&less).await;
                let challenge = answer.header("www-authenticate");
                assert_eq!(answer.status, 403, "{era} {server:?} {method}: {}", answer.text);
                assert!(
                    challenge.contains(&format!("scope=\"all up:{action}\"")),
                    "{era} {server:?} {method}: {challenge}"
                );
                assert_eq!(challenge.matches("scope=").count(), 1, "{challenge}");
                let answer = ask(&enough).await;
                // The upstream knows no `prompts/get`, and was asked.
                let well = answer.response().get("error").is_none() || answer.error_code() == -32601;
                assert!(well && answer.status != 403, "{era} {server:?} {method}: {} {}", answer.status, answer.text);
            }
        }
    }
}
