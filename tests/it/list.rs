//! What a caller sees: order, isolation of one bad tool or server, and errors that are not empty lists.

use serde_json::json;

use crate::support::eventually;
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
    let (_, session) = client.initialize("2025-11-25").await;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let answer = client.legacy(&session, method, json!({})).await;
        assert_eq!(answer.error_code(), -32603, "{method}: {}", answer.text);
        assert_eq!(answer.response()["error"]["data"]["reason"], "catalog_unavailable", "{method}");
        assert!(answer.response().get("result").is_none(), "{method}: {}", answer.text);
    }
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
        if cursor.is_some() {
            assert_eq!(names.len() % bailiwick::limit::LIST_PAGE_ITEMS_MAX, 0, "a full page has exactly so many");
        }
        if cursor.is_none() {
            break;
        }
    }
    assert_eq!(names, (0..2_500).map(|number| format!("tools__t{number}")).collect::<Vec<_>>());
    let answer = client.modern("tools/list", json!({ "cursor": "made-up" })).await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
}

#[tokio::test]
async fn a_server_of_which_nothing_is_shown_is_answered_like_one_that_does_not_exist() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rules = "p, group:test/developers, *, */special, call, -, allow\np, agent:assistant, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(rules).start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let (hidden, absent) = (gateway.server_client("tools", &token), gateway.server_client("absent", &token));
    for method in ["tools/list", "prompts/list", "resources/templates/list", "server/discover"] {
        let (hidden, absent) = (hidden.modern(method, json!({})).await, absent.modern(method, json!({})).await);
        assert_eq!((hidden.status, &hidden.text), (absent.status, &absent.text), "{method}");
        assert_eq!(absent.error_code(), -32602, "{method}");
    }
    for uri in ["file:///a/../b", "file:///a%2fb", "file:///a"] {
        let params =
            json!({ "ref": { "type": "ref/resource", "uri": uri }, "argument": { "name": "x", "value": "y" } });
        let (hidden, absent) = (
            hidden.modern("completion/complete", params.clone()).await,
            absent.modern("completion/complete", params).await,
        );
        assert_eq!((hidden.status, &hidden.text), (absent.status, &absent.text), "{uri}");
    }
    let (hidden, absent) = (hidden.initialize("2025-11-25").await.0, absent.initialize("2025-11-25").await.0);
    assert_eq!((hidden.status, &hidden.text), (absent.status, &absent.text));
}

#[tokio::test]
async fn a_server_that_is_down_is_told_of_only_to_those_whom_a_rule_names_it_to() {
    let issuer = Issuer::start().await;
    let rules = "p, group:test/developers, *, */*, call, -, allow\np, group:test/owners, *, gone/*, call, -, allow\n\
                 p, agent:assistant, *, */*, call, -, allow\n";
    let gateway = Setup::new(&issuer).http_server("gone", "http://127.0.0.1:9/mcp", "").policy(rules).start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let (down, absent) = (gateway.server_client("gone", &token), gateway.server_client("absent", &token));
    for (method, params) in [
        ("tools/list", json!({})),
        ("resources/list", json!({})),
        ("server/discover", json!({})),
        ("tools/call", json!({ "name": "x", "arguments": {} })),
    ] {
        let (down, absent) = (down.modern(method, params.clone()).await, absent.modern(method, params).await);
        assert_eq!((down.status, &down.text), (absent.status, &absent.text), "{method}");
        assert_eq!(absent.error_code(), -32602, "{method}");
    }
    let (down, absent) = (down.initialize("2025-11-25").await.0, absent.initialize("2025-11-25").await.0);
    assert_eq!((down.status, &down.text), (absent.status, &absent.text));
    let owner = gateway.server_client("gone", &issuer.token("olga", &["owners"], &gateway.resource()));
    let answer = owner.modern("tools/list", json!({})).await;
    assert_eq!(answer.response()["error"]["data"]["reason"], "catalog_unavailable", "{}", answer.text);
}

#[tokio::test]
async fn who_had_something_on_a_server_is_told_that_it_is_down_and_who_had_nothing_is_not() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rules = "p, group:test/developers, *, */echo, call, -, allow\np, group:test/others, *, */other, call, -, allow\n\
                 p, agent:assistant, *, */*, call, -, allow\n";
    let more = "on_down = \"100ms\"\nlist_refresh_min = \"100ms\"\n\
                [servers.tools.health]\nfirst_byte_timeout = \"300ms\"\nconnect_timeout = \"300ms\"\n";
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, more).policy(rules).start().await;
    let client = |user: &str, group: &str, server: &str| {
        gateway.server_client(server, &issuer.token(user, &[group], &gateway.resource()))
    };
    let had = client("alice", "developers", "tools");
    assert_eq!(had.tool_names().await, ["echo"]);
    upstream.mute("*");
    let told = async || had.modern("tools/list", json!({})).await.response()["error"]["data"]["reason"].clone();
    eventually("the server is down", async || told().await == json!("catalog_unavailable")).await;
    let hidden = client("bob", "others", "tools").modern("tools/list", json!({})).await;
    let absent = client("bob", "others", "absent").modern("tools/list", json!({})).await;
    assert_eq!((hidden.status, &hidden.text), (absent.status, &absent.text));
    assert_eq!(absent.error_code(), -32602);
}

#[tokio::test]
async fn a_refused_token_exchange_is_told_by_its_own_reason_and_hides_no_other_server() {
    let issuer = Issuer::start().await;
    let (upstream, other) = (Scripted::echo().await, Scripted::echo().await);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let endpoint = format!("http://{}/token", listener.local_addr().unwrap());
    let refuse = || async {
        (
            axum::http::StatusCode::BAD_REQUEST,
            axum::Json(json!({ "error": "invalid_target", "error_description": "no" })),
        )
    };
    let router = axum::Router::new().route("/token", axum::routing::post(refuse));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let credential = format!(
        "credential = {{ kind = \"exchange\", token_endpoint = \"{endpoint}\", client_id = \"gateway\", audience = \"a\" }}"
    );
    let rules = "p, anyone, *, own/*, call, -, allow\np, anyone, *, other/*, call, -, allow\n";
    let gateway = Setup::new(&issuer)
        .http_server("own", &upstream.url, &credential)
        .http_server("other", &other.url, "")
        .policy(rules)
        .start()
        .await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let merged = gateway.client(&token);
    assert_eq!(merged.tool_names().await, ["other__echo"]);
    assert_eq!(merged.call_tool("other__echo", json!({})).await.tool_text(), "{}");
    let own = gateway.server_client("own", &token);
    let list = own.modern("tools/list", json!({})).await;
    assert_eq!(list.response()["error"]["data"]["reason"], "exchange_refused", "{}", list.text);
    let call = own.call_tool("echo", json!({})).await;
    assert_eq!(call.result()["_meta"]["dev.bailiwick/reason"], "exchange_refused", "{}", call.text);
    assert!(upstream.calls().is_empty());
}
