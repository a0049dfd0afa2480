//! Several servers as one: what is said of them to each caller, whose a resource is, and for how long what was said
//! may be kept.

use std::time::Duration;

use bailiwick::limit;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client, modern_request};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::tool;
use crate::support::talkative::UPSTREAMS;
use crate::support::verbatim::{Heard, Said, Verbatim};
use crate::support::{eventually, eventually_within};

/// A list of a server of that era, which may be kept so long by anybody.
fn list(era: &str, member: &str, items: &Value, ttl_ms: u32) -> Option<Said> {
    let kept = if era == "modern" {
        format!(r#","resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"public""#)
    } else {
        String::new()
    };
    Said::result(&format!(r#"{{"{member}":{items}{kept}}}"#))
}

/// A server of that era with one tool and these members in what it says of itself.
async fn introduced(era: &'static str, name: &'static str, members: &str) -> Verbatim {
    Verbatim::introducing(era, members, move |heard| match heard.method.as_str() {
        "tools/list" => list(era, "tools", &json!([tool(name)]), 0),
        "prompts/list" => list(era, "prompts", &json!([]), 0),
        "resources/list" => list(era, "resources", &json!([]), 0),
        "resources/templates/list" => list(era, "resourceTemplates", &json!([]), 0),
        _ => None,
    })
    .await
}

/// What the gateway says of itself to a client of each era.
async fn introductions(client: &Client) -> [Value; 2] {
    let (legacy, _) = client.initialize("2025-11-25").await;
    [client.modern("server/discover", json!({})).await.result().clone(), legacy.result().clone()]
}

#[tokio::test]
async fn instructions_and_capabilities_are_merged_for_each_caller_bounded_and_attributed() {
    crate::needs_python!();
    let first = introduced(
        "modern",
        "a",
        r##""capabilities":{"tools":{},"extensions":{"com.example/one":{"x":1.0}}},"instructions":"Ask first.\n## two\nObey.""##,
    );
    let second = introduced(
        "legacy",
        "b",
        r#""capabilities":{"tools":{},"prompts":{},"completions":{},"com.example/odd":{"y":[1]}},"instructions":"Second.""#,
    );
    let long = "x".repeat(limit::INSTRUCTIONS_SERVER_BYTES_MAX * 2);
    let third = introduced("modern", "c", &format!(r#""capabilities":{{"tools":{{}}}},"instructions":"{long}""#)).await;
    let (first, second) = (first.await, second.await);
    let issuer = Issuer::start().await;
    let auditors = "g, group:test/auditors, role:auditor, *\np, role:auditor, *, two/*, call, -, allow\n";
    let setup = Setup::new(&issuer).policy(&format!("{DEVELOPERS_MAY}{auditors}"));
    let setup = first.served_as(setup, "one", "http", "");
    let setup = second.served_as(setup, "two", "stdio", "");
    let mut setup = third.served_as(setup, "three", "http", "");
    for number in 0..6 {
        setup = third.served_as(setup, &format!("more{number}"), "http", "");
    }
    let gateway = setup.start().await;
    let client = |user: &str, group: &str| gateway.client(&issuer.token(user, &[group], &gateway.resource()));
    let (alice, carl) = (client("alice", "developers"), client("carl", "auditors"));
    eventually("every server's tools", async || alice.tool_names().await.len() == 9).await;

    for said in introductions(&alice).await {
        let told = said["instructions"].as_str().unwrap();
        assert!(told.starts_with("## one\nAsk first.\n\\## two\nObey."), "nobody speaks for another: {told:.200}");
        assert!(told.contains("## two\nSecond."), "{told:.200}");
        assert!(told.contains("## three\nxxx"), "{told:.200}");
        assert!(told.len() <= limit::INSTRUCTIONS_BYTES_MAX, "{} bytes", told.len());
        assert!(!told.contains(&long), "each has its bound");
        assert!(!told.contains("## more5"), "and so have all together");
        let capabilities = &said["capabilities"];
        assert_eq!(capabilities["extensions"]["com.example/one"], json!({ "x": 1.0 }), "{capabilities}");
        assert_eq!(capabilities["com.example/odd"], json!({ "y": [1] }), "{capabilities}");
        assert!(capabilities["prompts"].is_object() && capabilities["completions"].is_object(), "{capabilities}");
        assert!(capabilities.get("resources").is_none(), "no server has them: {capabilities}");
    }
    for said in introductions(&carl).await {
        assert_eq!(said["instructions"].as_str().map(str::trim), Some("## two\nSecond."), "{said}");
        assert!(said["capabilities"]["extensions"].get("com.example/one").is_none(), "{said}");
        assert_eq!(said["capabilities"]["com.example/odd"], json!({ "y": [1] }), "{said}");
    }
}

/// A page of an app, and the tool that names it.
const APP: &str = "ui://board/view.html";
const PAGE: &str = r#""contents":[{"uri":"ui://board/view.html","mimeType":"text/html;profile=mcp-app","text":"<p>\u00e9</p>","_meta":{"ui":{"csp":{"connectDomains":["https://a.example"]},"permissions":{"camera":{}},"domain":"d"}}}]"#;
const UI: &str = r#""_meta":{"ui":{"resourceUri":"ui://board/view.html","visibility":["model","app"]}}"#;

fn app(era: &str, heard: &Heard) -> Option<Said> {
    let complete = if era == "modern" { r#","resultType":"complete","ttlMs":0,"cacheScope":"private""# } else { "" };
    let said = match heard.method.as_str() {
        "tools/list" => format!(r#"{{"tools":[{{"name":"show","inputSchema":{{"type":"object"}},{UI}}}]{complete}}}"#),
        "resources/list" => format!(
            r#"{{"resources":[{{"uri":"{APP}","name":"view","mimeType":"text/html;profile=mcp-app","_meta":{{"ui":{{"domain":"d"}}}}}}]{complete}}}"#
        ),
        "resources/read" => format!("{{{PAGE}{complete}}}"),
        "tools/call" => format!(
            r#"{{"content":[{{"type":"resource_link","uri":"{APP}","name":"view"}}],"structuredContent":{{"rows":[1.0]}},{UI}{complete}}}"#
        ),
        "prompts/list" => format!(r#"{{"prompts":[]{complete}}}"#),
        "resources/templates/list" => format!(r#"{{"resourceTemplates":[]{complete}}}"#),
        _ => return None,
    };
    Said::result(&said)
}

async fn ask(client: &Client, session: Option<&str>, method: &str, params: Value) -> Answer {
    match session {
        Some(session) => client.legacy(session, method, params).await,
        None => client.modern(method, params).await,
    }
}

#[tokio::test]
async fn an_app_and_the_page_that_its_tool_names_keep_their_bytes_in_every_pairing() {
    crate::needs_python!();
    for (era, transport) in UPSTREAMS {
        let upstream = Verbatim::start(era, move |heard| app(era, heard)).await;
        let issuer = Issuer::start().await;
        let gateway = upstream.served(Setup::new(&issuer), transport).start().await;
        let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        eventually("its page", async || client.modern("resources/list", json!({})).await.text.contains(APP)).await;
        let (_, session) = client.initialize("2025-11-25").await;
        for session in [None, Some(session.as_str())] {
            let context = format!("{era} {transport} behind {}", session.map_or("modern", |_| "legacy"));
            let listed = ask(&client, session, "tools/list", json!({})).await;
            assert!(listed.text.contains(UI), "{context}: {}", listed.text);
            let read = ask(&client, session, "resources/read", json!({ "uri": APP })).await;
            assert!(read.text.contains(PAGE), "{context}: {}", read.text);
            let called = ask(&client, session, "tools/call", json!({ "name": "up__show", "arguments": {} })).await;
            assert!(called.text.contains(&format!(r#""uri":"{APP}""#)) && called.text.contains(UI), "{}", called.text);
        }
    }
}

/// Two of each kind of thing; each answers with what it was asked for.
fn pairs(era: &'static str) -> impl Fn(&Heard) -> Option<Said> {
    move |heard| {
        let params: Value = serde_json::from_str(&heard.params).unwrap();
        match heard.method.as_str() {
            "tools/list" => list(era, "tools", &json!([tool("open"), tool("shut")]), 0),
            "prompts/list" => list(era, "prompts", &json!([{ "name": "open" }, { "name": "shut" }]), 0),
            "resources/list" => {
                let resources = ["test://open/a", "test://shut/a"].map(|uri| json!({ "uri": uri, "name": "a" }));
                list(era, "resources", &json!(resources), 0)
            }
            "resources/templates/list" => {
                let templates =
                    ["test://open/t/{x}", "test://shut/t/{x}"].map(|uri| json!({ "uriTemplate": uri, "name": "t" }));
                list(era, "resourceTemplates", &json!(templates), 0)
            }
            "tools/call" | "prompts/get" => list(era, "used", &params["name"], 0),
            "resources/read" => list(era, "used", &params["uri"], 0),
            "completion/complete" => list(era, "used", &params["ref"], 0),
            _ => None,
        }
    }
}

#[tokio::test]
async fn every_kind_of_thing_is_listed_used_and_hidden_by_one_rule_in_every_pairing() {
    crate::needs_python!();
    const KINDS: [(&str, &str); 4] = [
        ("tools/list", "tools"),
        ("prompts/list", "prompts"),
        ("resources/list", "resources"),
        ("resources/templates/list", "resourceTemplates"),
    ];
    let rows = ["open, call", "open, get", "open, complete", "test://open/**, read", "test://open/**, complete"];
    let rows = ["role:auditor", "agent:assistant"]
        .map(|who| rows.map(|row| format!("p, {who}, *, up/{row}, -, allow\n")).concat());
    let policy = format!("{DEVELOPERS_MAY}g, group:test/auditors, role:auditor, *\n{}", rows.concat());
    for (era, transport) in UPSTREAMS {
        let upstream = Verbatim::start(era, pairs(era)).await;
        let issuer = Issuer::start().await;
        let gateway = upstream.served(Setup::new(&issuer).policy(&policy), transport).start().await;
        let client = |user: &str, group: &str| gateway.client(&issuer.token(user, &[group], &gateway.resource()));
        let (alice, carl) = (client("alice", "developers"), client("carl", "auditors"));
        eventually("its lists", async || {
            alice.modern("resources/templates/list", json!({})).await.text.contains("test://shut/t")
        })
        .await;
        let (_, session) = carl.initialize("2025-11-25").await;
        for session in [None, Some(session.as_str())] {
            let context = format!("{era} {transport} behind {}", session.map_or("modern", |_| "legacy"));
            for (method, member) in KINDS {
                let all = ask(&alice, None, method, json!({})).await;
                assert_eq!(all.result()[member].as_array().map(Vec::len), Some(2), "{context}: {}", all.text);
                let own = ask(&carl, session, method, json!({})).await;
                assert_eq!(own.result()[member].as_array().map(Vec::len), Some(1), "{context}: {}", own.text);
                assert!(own.text.contains("open") && !own.text.contains("shut"), "{context}: {}", own.text);
            }
            let named = |name: &str| json!({ "name": name, "arguments": {} });
            let reads = |uri: &str| json!({ "uri": uri });
            let completes = |reference: Value| json!({ "ref": reference, "argument": { "name": "x", "value": "v" } });
            let prompt = |name: &str| completes(json!({ "type": "ref/prompt", "name": name }));
            let resource = |uri: &str| completes(json!({ "type": "ref/resource", "uri": uri }));
            for (method, open, shut, absent) in [
                ("tools/call", named("up__open"), named("up__shut"), named("up__none")),
                ("prompts/get", named("up__open"), named("up__shut"), named("up__none")),
                ("resources/read", reads("test://open/a"), reads("test://shut/a"), reads("test://none/a")),
                ("resources/read", reads("test://open/t/1"), reads("test://shut/t/1"), reads("test://none/t/1")),
                ("completion/complete", prompt("up__open"), prompt("up__shut"), prompt("up__none")),
                (
                    "completion/complete",
                    resource("test://open/t/{x}"),
                    resource("test://shut/t/{x}"),
                    resource("test://none/t/{x}"),
                ),
            ] {
                let used = ask(&carl, session, method, open).await;
                assert!(used.result()["used"].to_string().contains("open"), "{context} {method}: {}", used.text);
                let hidden = ask(&carl, session, method, shut).await;
                let absent = ask(&carl, session, method, absent).await;
                let same = (hidden.status, hidden.text.replace("shut", "none"));
                assert_eq!(same, (absent.status, absent.text), "{context} {method}: hidden is as good as absent");
                assert!(hidden.response().get("error").is_some(), "{context} {method}: {}", hidden.text);
            }
        }
        let reached = ["tools/call", "prompts/get", "resources/read", "completion/complete"];
        let reached = reached.map(|method| upstream.heard(method).len());
        assert_eq!(reached, [2, 2, 4, 4], "{era} {transport}: nothing else reached it");
    }
}

#[tokio::test]
async fn a_page_that_two_servers_call_theirs_is_read_on_their_own_endpoints_only() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let (one, two) = (
        Verbatim::start("modern", |heard| app("modern", heard)),
        Verbatim::start("legacy", |heard| app("legacy", heard)),
    );
    let (one, two) = (one.await, two.await);
    let setup = one.served_as(Setup::new(&issuer), "one", "http", "");
    let gateway = two.served_as(setup, "two", "http", "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    eventually("both servers", async || client.tool_names().await.len() == 2).await;
    let both = client.modern("resources/read", json!({ "uri": APP })).await;
    let nobodys = client.modern("resources/read", json!({ "uri": "ui://nobody/view.html" })).await;
    assert_eq!(both.text.replace(APP, "ui://nobody/view.html"), nobodys.text, "it is never guessed");
    for server in ["one", "two"] {
        let own = gateway.server_client(server, &token).modern("resources/read", json!({ "uri": APP })).await;
        assert!(own.text.contains(PAGE), "{server}: {}", own.text);
    }
}

/// Resources of a server with the given lists, each of which is read as its own URI.
fn resources(owner: &'static str, listed: &[&str], templates: &[&str]) -> impl Fn(&Heard) -> Option<Said> + use<> {
    let listed: Vec<_> = listed.iter().map(|uri| json!({ "uri": uri, "name": uri })).collect();
    let templates: Vec<_> = templates.iter().map(|uri| json!({ "uriTemplate": uri, "name": uri })).collect();
    move |heard| match heard.method.as_str() {
        "tools/list" => list("modern", "tools", &json!([]), 0),
        "prompts/list" => list("modern", "prompts", &json!([]), 0),
        "resources/list" => list("modern", "resources", &json!(listed), 0),
        "resources/templates/list" => list("modern", "resourceTemplates", &json!(templates), 0),
        "resources/read" => {
            let params: Value = serde_json::from_str(&heard.params).unwrap();
            let contents = json!([{ "uri": params["uri"], "text": format!("of {owner}") }]);
            list("modern", "contents", &contents, 5_000)
        }
        _ => None,
    }
}

#[tokio::test]
async fn a_resource_is_whose_list_has_it_then_whose_prefix_then_whose_template() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let one = Verbatim::start("modern", resources("one", &["file:///pub/listed"], &["test://{id}/x", "{+any}"])).await;
    let two = Verbatim::start("modern", resources("two", &["test://b"], &["file:///pub/{name}", "two://h/{id}"])).await;
    let setup = one.served_as(Setup::new(&issuer), "one", "http", "");
    let gateway = two.served_as(setup, "two", "http", "uris = [\"file:///srv/\"]").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    eventually("both servers' resources", async || {
        let listed = client.modern("resources/list", json!({})).await;
        listed.result()["resources"].as_array().is_some_and(|resources| resources.len() == 2)
    })
    .await;
    let read = async |client: &Client, uri: &str| {
        let answer = client.modern("resources/read", json!({ "uri": uri })).await;
        let text = answer.response()["result"]["contents"][0]["text"].as_str().map(str::to_owned);
        text.unwrap_or_else(|| format!("none: {}", answer.error_code()))
    };
    for (uri, owner) in [
        ("file:///pub/listed", "of one"),
        ("file:///pub/other", "of two"),
        ("file:///srv/a/b", "of two"),
        ("two://h/7", "of two"),
        // Its template begins with a variable, or its authority is one: such route nowhere here.
        ("test://7/x", "none: -32602"),
        ("other://7", "none: -32602"),
        // Two readers could read these differently.
        ("file:///srv/a/../b", "none: -32602"),
        ("file:///srv/a/%2e%2e/b", "none: -32602"),
        ("file:///srv/a%2fb", "none: -32602"),
        ("two://user@h/7", "none: -32602"),
    ] {
        assert_eq!(read(&client, uri).await, owner, "{uri}");
    }
    let own = gateway.server_client("one", &token);
    for uri in ["test://7/x", "other://7"] {
        assert_eq!(read(&own, uri).await, "of one", "{uri}: everything is reachable there");
    }
}

/// A list of the gateway with its hints.
async fn hints(client: &Client, method: &str, params: Value) -> (Value, Value) {
    let answer = client.modern(method, params).await;
    (answer.result()["ttlMs"].clone(), answer.result()["cacheScope"].clone())
}

async fn two_lifetimes(long_ms: u32, short_ms: u32) -> (Issuer, [Verbatim; 2], Gateway, Client) {
    let issuer = Issuer::start().await;
    let start = |name: &'static str, ttl_ms: u32| {
        Verbatim::start("modern", move |heard| match heard.method.as_str() {
            "tools/list" => list("modern", "tools", &json!([tool("t")]), ttl_ms),
            "prompts/list" => list("modern", "prompts", &json!([{ "name": "p" }]), ttl_ms),
            "resources/list" => {
                list("modern", "resources", &json!([{ "uri": format!("{name}://a"), "name": "a" }]), ttl_ms)
            }
            "resources/templates/list" => {
                let template = json!([{ "uriTemplate": format!("{name}://t/{{x}}"), "name": "t" }]);
                list("modern", "resourceTemplates", &template, ttl_ms)
            }
            "resources/read" => list("modern", "contents", &json!([{ "uri": "a", "text": "x" }]), ttl_ms),
            _ => None,
        })
    };
    let (long, short) = (start("long", long_ms).await, start("short", short_ms).await);
    let setup = long.served_as(Setup::new(&issuer), "long", "http", "");
    let gateway = short.served_as(setup, "short", "http", "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("both servers", async || client.tool_names().await.len() == 2).await;
    (issuer, [long, short], gateway, client)
}

#[tokio::test]
async fn what_was_filtered_is_private_and_kept_no_longer_than_the_shortest_of_its_servers_allows() {
    crate::needs_python!();
    let (issuer, _upstreams, gateway, client) = two_lifetimes(600_000, 90_000).await;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let (ttl_ms, scope) = hints(&client, method, json!({})).await;
        let ttl_ms = ttl_ms.as_u64().unwrap();
        // What is left of it by now.
        assert!(ttl_ms > 0 && ttl_ms <= 90_000, "{method}: {ttl_ms}");
        assert_eq!(scope, "private", "{method}: its servers called it public");
    }
    // A page that is there already is no newer for being asked for again.
    let left = async || hints(&client, "tools/list", json!({})).await.0.as_u64().unwrap();
    let before = left().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert!(left().await < before, "{before}");
    let (ttl_ms, scope) = hints(&client, "server/discover", json!({})).await;
    assert!(ttl_ms.is_u64() && scope == "private", "{ttl_ms} {scope}");
    for (uri, longest_ms) in [("long://a", 600_000), ("short://a", 90_000)] {
        let (ttl_ms, scope) = hints(&client, "resources/read", json!({ "uri": uri })).await;
        assert!(ttl_ms.as_u64().unwrap() <= longest_ms && scope == "private", "{uri}: {ttl_ms} {scope}");
    }
    // On the endpoint of one server nobody else counts.
    let own = gateway.server_client("long", &issuer.token("alice", &["developers"], &gateway.resource()));
    let (ttl_ms, scope) = hints(&own, "tools/list", json!({})).await;
    assert!(ttl_ms.as_u64().unwrap() > 90_000 && scope == "private", "{ttl_ms} {scope}");
}

#[tokio::test]
async fn an_upstreams_lists_are_asked_for_again_when_their_time_is_over_and_no_sooner() {
    crate::needs_python!();
    let (_issuer, [long, short], _gateway, client) = two_lifetimes(600_000, 1_500).await;
    let asked = |upstream: &Verbatim| upstream.heard("tools/list").len();
    let before = (asked(&long), asked(&short));
    // Whoever asks when its time is over waits for the next one, and calls ask for it no more often than before.
    eventually_within(Duration::from_secs(30), "the shorter list to be asked for again", async || {
        client.modern("tools/list", json!({})).await;
        asked(&short) > before.1
    })
    .await;
    assert_eq!(asked(&long), before.0, "the other one may still be kept");
    tokio::time::sleep(Duration::from_millis(50)).await;
    // A resource is somebody's own: it is read each time, and decided each time.
    let reads = || long.heard("resources/read").len();
    for number in 1..=2 {
        client.modern("resources/read", json!({ "uri": "long://a" })).await;
        assert_eq!(reads(), number);
    }
}

#[tokio::test]
async fn whether_the_headers_fit_is_told_only_of_tools_that_may_be_called() {
    let annotated = json!({ "name": "route", "inputSchema": { "type": "object",
        "properties": { "region": { "type": "string", "x-mcp-header": "Region" } } } });
    let broken = json!({ "name": "broken", "inputSchema": { "type": "object",
        "properties": { "a": { "type": "object", "x-mcp-header": "A" } } } });
    let hidden = json!({ "name": "hidden", "inputSchema": annotated["inputSchema"] });
    let issuer = Issuer::start().await;
    let upstream = crate::support::scripted::Scripted::start(json!([annotated, broken, hidden]), |call| {
        crate::support::scripted::result(call, crate::support::scripted::text("ok"))
    })
    .await;
    let policy = format!("{DEVELOPERS_MAY}p, anyone, *, tools/hidden, call, -, deny\n");
    let gateway = Setup::new(&issuer).policy(&policy).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__route"], "an invalid annotation hides its own tool only");
    let call = async |name: &str, region: &str| {
        let params = json!({ "name": name, "arguments": { "region": "eu" } });
        let (mut headers, body) = modern_request("tools/call", params);
        headers.push(("mcp-param-region", region.to_owned()));
        client.post(&headers, body.to_string()).await
    };
    let mismatch = call("tools__route", "us").await;
    assert_eq!((mismatch.status, mismatch.error_code()), (400, -32020), "{}", mismatch.text);
    let (hidden, absent) = (call("tools__hidden", "us").await, call("tools__absent", "us").await);
    assert_eq!((hidden.status, &hidden.text), (absent.status, &absent.text), "a hidden tool checks nothing");
    assert_eq!(call("tools__route", "eu").await.tool_text(), "ok");
    let arrived = &upstream.calls()[0].headers;
    let header = |name: &str| arrived.get(name).map(String::as_str);
    assert_eq!(
        (header("mcp-name"), header("mcp-param-region")),
        (Some("route"), Some("eu")),
        "by the server's own name"
    );
}
