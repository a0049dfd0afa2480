//! The modern era (2026-07-28): stateless, headers that equal the body, one answer per POST.

use serde_json::json;

use crate::support::client::{Client, modern_request};
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

async fn start() -> (Scripted, Gateway, Client) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (upstream, gateway, client)
}

#[tokio::test]
async fn discover_names_versions_and_capabilities() {
    let (_upstream, _gateway, client) = start().await;
    let answer = client.modern("server/discover", json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let result = answer.result();
    assert_eq!(result["resultType"], "complete");
    assert!(result["supportedVersions"].as_array().unwrap().contains(&json!("2026-07-28")));
    assert!(result["capabilities"]["tools"].is_object());
    assert_eq!(result["cacheScope"], "private");
    assert!(result["ttlMs"].is_u64());
}

#[tokio::test]
async fn the_gateway_says_who_it_is_where_it_answers_itself_and_nowhere_else() {
    const SERVER_INFO: &str = "io.modelcontextprotocol/serverInfo";
    let issuer = Issuer::start().await;
    let upstream =
        Scripted::start(json!([tool("echo"), tool("broken")]), |call| match call["params"]["name"].as_str() {
            Some("echo") => result(call, text("done")),
            _ => raw("application/json", "{".to_owned()),
        })
        .await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let discovered = client.modern("server/discover", json!({})).await;
    let own = &discovered.result()["_meta"][SERVER_INFO];
    assert_eq!(own["name"], "bailiwick", "{}", discovered.text);
    let listed = client.modern("tools/list", json!({})).await;
    let broken = client.call_tool("tools__broken", json!({})).await;
    assert_eq!(broken.result()["_meta"]["dev.bailiwick/reason"], "upstream_garbage", "{}", broken.text);
    for answer in [&listed, &broken] {
        assert_eq!(&answer.result()["_meta"][SERVER_INFO], own, "{}", answer.text);
    }
    // What a server answers has what that server put there, which is nothing here.
    let done = client.call_tool("tools__echo", json!({})).await;
    assert!(done.tool_text() == "done" && !done.text.contains(SERVER_INFO), "{}", done.text);
    // The older era has no such key.
    let (_, session) = client.initialize("2025-11-25").await;
    let listed = client.legacy(&session, "tools/list", json!({})).await;
    let broken = client.legacy(&session, "tools/call", json!({ "name": "tools__broken", "arguments": {} })).await;
    for answer in [&listed, &broken] {
        assert!(answer.response().get("result").is_some() && !answer.text.contains(SERVER_INFO), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_header_that_differs_from_the_body_is_refused() {
    let (upstream, _gateway, client) = start().await;
    let params = json!({ "name": "tools__echo", "arguments": {} });
    for (header, value) in [
        ("mcp-method", Some("tools/list")),
        ("mcp-name", Some("tools__other")),
        ("mcp-protocol-version", Some("2025-11-25")),
        ("mcp-method", None),
        ("mcp-name", None),
    ] {
        let (mut headers, body) = modern_request("tools/call", params.clone());
        headers.retain(|(name, _)| *name != header);
        headers.extend(value.map(|value| (header, value.to_owned())));
        let answer = client.post(&headers, body.to_string()).await;
        assert_eq!((answer.status, answer.error_code()), (400, -32020), "{header} {value:?}: {}", answer.text);
        assert_eq!(answer.response()["id"], 1);
    }
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn a_base64_name_header_is_decoded_before_it_is_compared() {
    let (upstream, _gateway, client) = start().await;
    let (mut headers, body) = modern_request("tools/call", json!({ "name": "tools__echo", "arguments": {} }));
    headers.retain(|(name, _)| *name != "mcp-name");
    headers.push(("mcp-name", "=?base64?dG9vbHNfX2VjaG8=?=".to_owned()));
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn missing_meta_is_a_bad_request() {
    let (_upstream, _gateway, client) = start().await;
    let (headers, mut body) = modern_request("tools/list", json!({}));
    body["params"]["_meta"].as_object_mut().unwrap().remove("io.modelcontextprotocol/clientCapabilities");
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32602), "{}", answer.text);
}

#[tokio::test]
async fn an_unknown_version_is_answered_with_the_supported_ones() {
    let (_upstream, _gateway, client) = start().await;
    let (mut headers, mut body) = modern_request("tools/list", json!({}));
    headers.retain(|(name, _)| *name != "mcp-protocol-version");
    headers.push(("mcp-protocol-version", "2099-01-01".to_owned()));
    body["params"]["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("2099-01-01");
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32022), "{}", answer.text);
    let data = &answer.response()["error"]["data"];
    assert_eq!(data["requested"], "2099-01-01");
    assert!(data["supported"].as_array().unwrap().contains(&json!("2026-07-28")));
}

#[tokio::test]
async fn removed_and_unknown_methods_are_not_found() {
    let (_upstream, _gateway, client) = start().await;
    for method in ["initialize", "ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "made/up"]
    {
        let answer = client.modern(method, json!({})).await;
        assert_eq!((answer.status, answer.error_code()), (404, -32601), "{method}: {}", answer.text);
    }
}

#[tokio::test]
async fn get_and_delete_do_not_exist_for_a_modern_client() {
    let (_upstream, _gateway, client) = start().await;
    for method in [reqwest::Method::GET, reqwest::Method::DELETE] {
        let answer = client.bare(method, &[("mcp-protocol-version", "2026-07-28".to_owned())]).await;
        assert_eq!(answer.status, 405);
    }
}

#[tokio::test]
async fn a_plain_answer_is_json_and_unknown_fields_survive() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([crate::support::scripted::tool("odd")]), |call| {
        let body = format!(
            r#"{{"jsonrpc":"2.0","id":{},"result":{{"resultType":"complete","zeta":1.50,"content":[{{"type":"hologram","y":1,"x":[ 1 ]}}],"alpha":{{"b":1,"a":2}}}}}}"#,
            call["id"]
        );
        raw("application/json", body)
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let answer = client.call_tool("tools__odd", json!({})).await;
    assert!(answer.header("content-type").starts_with("application/json"));
    let expected = r#"{"jsonrpc":"2.0","id":1,"result":{"resultType":"complete","zeta":1.50,"content":[{"type":"hologram","y":1,"x":[ 1 ]}],"alpha":{"b":1,"a":2}}}"#;
    assert_eq!(answer.text, expected);
}

#[tokio::test]
async fn what_goes_upstream_keeps_its_bytes_but_for_what_must_change() {
    let (upstream, _gateway, client) = start().await;
    let (headers, _) = modern_request("tools/call", json!({ "name": "tools__echo" }));
    let body = r#"{"jsonrpc":"2.0","id":"x-1","method":"tools/call","params":{"zz":0.10,"name":"tools__echo","arguments":{"b":1.0,"a":[ 1,2 ]},"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{},"com.example/x":{"k":null},"dev.bailiwick/forged":true}}}"#;
    let answer = client.post(&headers, body.to_owned()).await;
    assert_eq!(answer.response()["id"], "x-1");
    let text = &upstream.calls()[0].text;
    assert!(text.contains(r#""zz":0.10,"name":"echo","arguments":{"b":1.0,"a":[ 1,2 ]}"#), "{text}");
    assert!(text.contains(r#""com.example/x":{"k":null}"#), "{text}");
    assert!(!text.contains("dev.bailiwick/forged"), "our own prefix is ours alone: {text}");
}

#[tokio::test]
async fn progress_comes_as_a_stream_with_the_clients_own_token() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([crate::support::scripted::tool("slow")]), |call| {
        let token = &call["params"]["_meta"]["progressToken"];
        let progress = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": { "progressToken": token, "progress": 1 } });
        let done = json!({ "jsonrpc": "2.0", "id": call["id"], "result": crate::support::scripted::text("done") });
        raw("text/event-stream", format!("data: {progress}\n\ndata: {done}\n\n"))
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let params = json!({ "name": "tools__slow", "arguments": {}, "_meta": { "progressToken": "mine" } });
    let answer = client.modern("tools/call", params).await;
    assert!(answer.header("content-type").starts_with("text/event-stream"), "{}", answer.text);
    assert_eq!(answer.messages.len(), 2, "{}", answer.text);
    assert_eq!(answer.messages[0]["params"]["progressToken"], "mine");
    assert_eq!(answer.messages[1]["result"]["content"][0]["text"], "done");
    assert_ne!(upstream.calls()[0].message["params"]["_meta"]["progressToken"], "mine");
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_forbidden() {
    let (_upstream, _gateway, client) = start().await;
    for header in ["origin", "host"] {
        let (mut headers, body) = modern_request("tools/list", json!({}));
        headers.push((
            header,
            if header == "host" { "evil.example".to_owned() } else { "https://evil.example".to_owned() },
        ));
        assert_eq!(client.post(&headers, body.to_string()).await.status, 403, "{header}");
    }
    let (mut headers, body) = modern_request("tools/list", json!({}));
    headers.push(("origin", "http://localhost:3000".to_owned()));
    assert_eq!(client.post(&headers, body.to_string()).await.status, 200);
}

#[tokio::test]
async fn a_mirrored_parameter_must_equal_its_argument() {
    let issuer = Issuer::start().await;
    let tool = json!({ "name": "route", "description": "d", "inputSchema": { "type": "object",
        "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } } });
    let upstream = Scripted::start(json!([tool]), |call| {
        crate::support::scripted::result(call, crate::support::scripted::text("ok"))
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for (header, argument, status) in [
        (Some("eu"), json!({ "region": "eu" }), 200),
        (Some("us"), json!({ "region": "eu" }), 400),
        (None, json!({ "region": "eu" }), 400),
        (Some("eu"), json!({}), 400),
        (None, json!({}), 200),
    ] {
        let (mut headers, body) =
            modern_request("tools/call", json!({ "name": "tools__route", "arguments": argument }));
        headers.extend(header.map(|value| ("mcp-param-region", value.to_owned())));
        let answer = client.post(&headers, body.to_string()).await;
        assert_eq!(answer.status, status, "{header:?} {argument}: {}", answer.text);
    }
    assert_eq!(upstream.calls()[0].headers.get("mcp-param-region").map(String::as_str), Some("eu"));
    // A legacy client knows no such headers; the server still gets them.
    let (_, session) = client.initialize("2025-11-25").await;
    let params = json!({ "name": "tools__route", "arguments": { "region": "asia" } });
    let answer = client.legacy(&session, "tools/call", params).await;
    assert_eq!(answer.tool_text(), "ok");
    assert_eq!(upstream.calls()[2].headers.get("mcp-param-region").map(String::as_str), Some("asia"));
}

#[tokio::test]
async fn answers_to_questions_that_nobody_was_asked_do_not_go_upstream() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let params = |state: &str| json!({ "name": "tools__echo", "arguments": {}, "inputResponses": { "q": {} }, "requestState": state });
    let refused = client.modern("tools/call", params("another's")).await;
    assert_eq!(refused.response()["error"]["data"]["reason"], "input_state_invalid", "{}", refused.text);
    assert!(upstream.calls().is_empty(), "a state that is not ours goes nowhere");
    let forged = json!({ "name": "tools__echo", "arguments": {}, "inputResponses": { "q": {} }, "task": {} });
    let (mut headers, body) = crate::support::client::modern_request("tools/call", forged);
    headers.retain(|(name, _)| !name.eq_ignore_ascii_case("mcp-name"));
    headers.push(("mcp-name", "tools__echo".to_owned()));
    let answer = client.post(&headers, body.to_string()).await;
    assert_eq!(answer.tool_text(), "{}", "{}", answer.text);
    let params = &upstream.calls()[0].message["params"];
    for name in ["inputResponses", "requestState", "task"] {
        assert!(params.get(name).is_none(), "{params}");
    }
}
