//! What a caller sees: order, isolation of one bad tool or server, and errors that are not empty lists.

use serde_json::json;

use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

#[tokio::test]
async fn the_order_is_the_files_and_then_the_upstreams() {
    let issuer = Issuer::start().await;
    let first = Scripted::start(json!([tool("zebra"), tool("ant")]), |call| result(call, text(""))).await;
    let second = Scripted::start(json!([tool("bee")]), |call| result(call, text(""))).await;
    let gateway =
        Setup::new(&issuer).http_server("zz", &first.url, "").http_server("aa", &second.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let expected = ["zz__zebra", "zz__ant", "aa__bee"];
    for _ in 0..3 {
        assert_eq!(client.tool_names().await, expected);
    }
}

#[tokio::test]
async fn the_hundred_and_first_tool_with_a_broken_schema_hides_itself_only() {
    let issuer = Issuer::start().await;
    let mut tools: Vec<_> = (0..100).map(|number| tool(&format!("t{number}"))).collect();
    tools.push(json!({ "name": "broken", "description": "no schema" }));
    tools.push(json!({ "name": "worse", "inputSchema": "a string" }));
    tools.push(json!(17));
    tools.push(tool("last"));
    let upstream = Scripted::start(json!(tools), |call| result(call, text(""))).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let names = client.tool_names().await;
    assert_eq!(names.len(), 101, "{names:?}");
    assert_eq!(names.last().unwrap(), "tools__last");
}

#[tokio::test]
async fn if_every_upstream_fails_the_list_is_an_error() {
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("gone", "http://127.0.0.1:9/mcp", "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let answer = client.modern("tools/list", json!({})).await;
    assert_eq!(answer.error_code(), -32603, "{}", answer.text);
    assert_eq!(answer.response()["error"]["data"]["reason"], "catalog_unavailable");
}

#[tokio::test]
async fn one_dead_upstream_hides_only_itself() {
    let issuer = Issuer::start().await;
    let alive = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .http_server("gone", "http://127.0.0.1:9/mcp", "")
        .http_server("tools", &alive.url, "")
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__echo"]);
}

#[tokio::test]
async fn a_definition_keeps_its_bytes_but_for_its_name() {
    let issuer = Issuer::start().await;
    let odd = json!({ "name": "odd", "zeta": 1, "inputSchema": { "type": "object", "$defs": { "b": {}, "a": {} }, "properties": { "z": {}, "a": {} } },
        "execution": { "taskSupport": "optional" }, "_meta": { "ui": { "resourceUri": "ui://x" } } });
    let upstream = Scripted::start(json!([odd]), |call| result(call, text(""))).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let answer = client.modern("tools/list", json!({})).await;
    let expected = odd.to_string().replace("\"odd\"", "\"tools__odd\"");
    assert!(answer.text.contains(&expected), "{}\n{expected}", answer.text);
    assert_eq!(answer.result()["cacheScope"], "private", "what identity filtered is never public");
}

#[tokio::test]
async fn names_are_verbatim_on_the_servers_own_endpoint() {
    let issuer = Issuer::start().await;
    let long = format!("a.very.long.name.{}", "x".repeat(60));
    let upstream = Scripted::start(json!([tool(&long), tool("short")]), |call| result(call, text("called"))).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let own = gateway.server_client("tools", &token);
    assert_eq!(own.tool_names().await, [long.as_str(), "short"]);
    assert_eq!(own.call_tool(&long, json!({})).await.tool_text(), "called");
    let merged = gateway.client(&token);
    let names = merged.tool_names().await;
    let safe = |name: &String| {
        name.len() <= 48 && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
    };
    assert!(names.iter().all(safe), "{names:?}");
    assert_eq!(merged.call_tool(&names[0], json!({})).await.tool_text(), "called");
    assert_eq!(upstream.calls()[1].message["params"]["name"], long);
}

#[tokio::test]
async fn a_long_list_comes_in_pages_that_miss_and_repeat_nothing() {
    let issuer = Issuer::start().await;
    let tools: Vec<_> = (0..2_500).map(|number| tool(&format!("t{number}"))).collect();
    let upstream = Scripted::start(json!(tools), |call| result(call, text(""))).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let (mut names, mut cursor) = (Vec::new(), None);
    loop {
        let params = cursor.as_ref().map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        let answer = client.modern("tools/list", params).await;
        names.extend(
            answer.result()["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap().to_owned()),
        );
        cursor = answer.result().get("nextCursor").cloned();
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..2_500).map(|number| format!("tools__t{number}")).collect::<Vec<_>>());
    let answer = client.modern("tools/list", json!({ "cursor": "made-up" })).await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
}
