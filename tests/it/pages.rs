//! Long lists in pages, those that upstreams send and those that clients get; and a thousand tools at once.

use std::sync::atomic::{AtomicUsize, Ordering};

use bailiwick::limit;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::talkative::{RULES, UPSTREAMS};
use crate::support::verbatim::{Heard, Said, Verbatim};

/// Cursors as servers may spell them: each means only what its server says.
const CURSORS: [&str; 4] = [r#""2""#, r#""\u00e9 \"\\\u0000""#, r#""eyJwIjoz""#, r#""null""#];

/// The position of a request's cursor among those; 0 without one.
fn asked_for(heard: &Heard) -> usize {
    let cursor = |cursor: &str| serde_json::from_str::<Value>(cursor).unwrap();
    let params: Value = serde_json::from_str(&heard.params).unwrap();
    match params.get("cursor") {
        None => 0,
        Some(sent) => CURSORS.iter().position(|known| cursor(known) == *sent).unwrap() + 1,
    }
}

async fn client_of(issuer: &Issuer, gateway: &Gateway, user: &str) -> Client {
    gateway.client(&issuer.token(user, &["developers"], &gateway.resource()))
}

/// Where the items of a list stand, and one of that name.
fn listed(method: &str, name: &str) -> Option<(&'static str, Value)> {
    Some(match method {
        "tools/list" => ("tools", tool(name)),
        "prompts/list" => ("prompts", json!({ "name": name })),
        "resources/list" => ("resources", json!({ "uri": format!("test://{name}"), "name": name })),
        "resources/templates/list" => {
            ("resourceTemplates", json!({ "uriTemplate": format!("test://{name}/{{x}}"), "name": name }))
        }
        _ => return None,
    })
}

#[tokio::test]
async fn an_upstream_that_pages_is_read_to_its_end_with_its_own_cursors_whatever_it_lists_and_however_it_is_reached() {
    crate::needs_python!();
    for (era, transport) in UPSTREAMS {
        let upstream = Verbatim::start(era, |heard| {
            let (member, _) = listed(&heard.method, "")?;
            let page = asked_for(heard);
            let items: Vec<_> =
                (0..3).filter_map(|number| Some(listed(&heard.method, &format!("t{page}-{number}"))?.1)).collect();
            let next = CURSORS.get(page).map_or_else(String::new, |cursor| format!(r#","nextCursor":{cursor}"#));
            let ttl_ms = if page == 2 { 0 } else { 60_000 };
            Said::result(&format!(
                r#"{{"{member}":{}{next},"resultType":"complete","ttlMs":{ttl_ms},"cacheScope":"private"}}"#,
                json!(items)
            ))
        })
        .await;
        let issuer = Issuer::start().await;
        let gateway = upstream.served(Setup::new(&issuer).policy(RULES), transport).start().await;
        let client = client_of(&issuer, &gateway, "alice").await;
        for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
            let (member, _) = listed(method, "").unwrap();
            let prefix = if method.starts_with("resources") { "" } else { "up__" };
            let expected: Vec<String> =
                (0..5).flat_map(|page| (0..3).map(move |number| format!("{prefix}t{page}-{number}"))).collect();
            eventually("all pages", async || {
                let answer = client.modern(method, json!({})).await;
                let items = answer.response()["result"][member].as_array().cloned().unwrap_or_default();
                let names: Vec<_> = items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect();
                names == expected
            })
            .await;
            let pages: Vec<usize> = upstream.heard(method).iter().map(asked_for).collect();
            assert_eq!(pages[..5], [0, 1, 2, 3, 4], "{era} {transport} {method}: each page once, in order");
        }
    }
}

#[tokio::test]
async fn a_list_whose_cursors_never_end_is_given_up_and_hides_nothing_else() {
    crate::needs_python!();
    // The same cursor again and again, two that take turns, and always another one.
    for kind in ["one", "two", "new"] {
        let (asked, longest) = (AtomicUsize::new(0), std::sync::Arc::new(AtomicUsize::new(0)));
        let seen = std::sync::Arc::clone(&longest);
        let upstream = Verbatim::start("modern", move |heard| {
            if heard.method == "prompts/list" {
                return Said::result(r#"{"resultType":"complete","prompts":[{"name":"p"}],"ttlMs":0}"#);
            } else if heard.method != "tools/list" {
                return None;
            }
            if !heard.params.contains("\"cursor\"") {
                asked.store(0, Ordering::SeqCst);
            }
            let number = asked.fetch_add(1, Ordering::SeqCst);
            seen.fetch_max(number + 1, Ordering::SeqCst);
            let next = match kind {
                "one" => 1,
                "two" => number % 2,
                _ => number,
            };
            let tools = json!([tool(&format!("t{number}"))]);
            Said::result(&format!(
                r#"{{"resultType":"complete","tools":{tools},"nextCursor":"c{next}","ttlMs":0,"cacheScope":"private"}}"#
            ))
        })
        .await;
        let issuer = Issuer::start().await;
        let other = Scripted::echo().await;
        let setup = upstream.served(Setup::new(&issuer), "http").http_server("other", &other.url, "");
        let gateway = setup.start().await;
        let client = client_of(&issuer, &gateway, "alice").await;
        eventually("the prompts of the server", async || {
            let prompts = client.modern("prompts/list", json!({})).await;
            prompts.response()["result"]["prompts"][0]["name"] == "up__p"
        })
        .await;
        assert_eq!(client.tool_names().await, ["other__echo"], "{kind}");
        let told =
            "cannot list; what was listed before is kept server=up list=\"tools/list\" reason=\"upstream_garbage\"";
        assert!(gateway.log().contains(told), "{kind}: {}", gateway.log());
        let pages = longest.load(Ordering::SeqCst);
        let asked = match kind {
            "one" => 2,
            "two" => 3,
            _ => limit::LIST_PAGES_MAX + 1,
        };
        assert_eq!(pages, asked, "{kind}");
        assert_eq!(client.call_tool("other__echo", json!({})).await.tool_text(), "{}", "{kind}");
    }
}

/// More than one page of tools, in bytes.
async fn heavy() -> Scripted {
    let tools = (0..25).map(|number| {
        let mut tool = tool(&format!("t{number}"));
        tool["description"] = json!("x".repeat(200 * 1024));
        tool
    });
    Scripted::start(json!(tools.collect::<Vec<_>>()), |call| result(call, text(""))).await
}

/// The first page, once the list is there at all.
async fn first_page(client: &Client) -> Answer {
    eventually("a first page", async || {
        client.modern("tools/list", json!({})).await.response()["result"]["nextCursor"].is_string()
    })
    .await;
    client.modern("tools/list", json!({})).await
}

fn names(answer: &Answer) -> Vec<&str> {
    let tools = answer.result()["tools"].as_array().unwrap_or_else(|| panic!("no list in {}", answer.status));
    tools.iter().map(|tool| tool["name"].as_str().unwrap()).collect()
}

#[tokio::test]
async fn a_page_ends_where_it_has_so_many_bytes_in_both_eras() {
    let issuer = Issuer::start().await;
    let upstream = heavy().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = client_of(&issuer, &gateway, "alice").await;
    first_page(&client).await;
    let (_, session) = client.initialize("2025-11-25").await;
    let expected: Vec<String> = (0..25).map(|number| format!("tools__t{number}")).collect();
    for era in ["modern", "legacy"] {
        let list = async |params: Value| match era {
            "modern" => client.modern("tools/list", params).await,
            _ => client.legacy(&session, "tools/list", params).await,
        };
        let first = list(json!({ "cursor": null })).await;
        let fits = limit::LIST_PAGE_BYTES_MAX..limit::LIST_PAGE_BYTES_MAX + limit::DEFINITION_BYTES_MAX + 1024;
        assert!(fits.contains(&first.text.len()), "{era}: {}", first.text.len());
        let second = list(json!({ "cursor": first.result()["nextCursor"] })).await;
        assert_eq!([names(&first), names(&second)].concat(), expected, "{era}");
        assert!(second.result().get("nextCursor").is_none(), "{era}");
    }
}

#[tokio::test]
async fn a_page_ends_where_it_has_so_many_items_whatever_is_listed_in_both_eras() {
    let upstream = Verbatim::start("modern", |heard| {
        let (member, _) = listed(&heard.method, "")?;
        let items =
            (0..=limit::LIST_PAGE_ITEMS_MAX).filter_map(|number| Some(listed(&heard.method, &format!("t{number}"))?.1));
        let items = json!(items.collect::<Vec<_>>());
        Said::result(&format!(r#"{{"{member}":{items},"resultType":"complete","ttlMs":60000,"cacheScope":"private"}}"#))
    })
    .await;
    let issuer = Issuer::start().await;
    let gateway = upstream.served(Setup::new(&issuer).policy(RULES), "http").start().await;
    let client = client_of(&issuer, &gateway, "alice").await;
    let (_, session) = client.initialize("2025-11-25").await;
    for method in ["tools/list", "prompts/list", "resources/list", "resources/templates/list"] {
        let (member, _) = listed(method, "").unwrap();
        let prefix = if method.starts_with("resources") { "" } else { "up__" };
        let expected: Vec<String> =
            (0..=limit::LIST_PAGE_ITEMS_MAX).map(|number| format!("{prefix}t{number}")).collect();
        for era in ["modern", "legacy"] {
            let list = async |params: Value| match era {
                "modern" => client.modern(method, params).await,
                _ => client.legacy(&session, method, params).await,
            };
            let names = |answer: &Answer| -> Vec<String> {
                let items =
                    answer.result()[member].as_array().unwrap_or_else(|| panic!("{era} {method}: {}", answer.text));
                items.iter().map(|item| item["name"].as_str().unwrap().to_owned()).collect()
            };
            eventually("a first page", async || list(json!({})).await.response()["result"]["nextCursor"].is_string())
                .await;
            let first = list(json!({})).await;
            assert_eq!(names(&first), expected[..limit::LIST_PAGE_ITEMS_MAX], "{era} {method}");
            let second = list(json!({ "cursor": first.result()["nextCursor"] })).await;
            assert_eq!(names(&second), expected[limit::LIST_PAGE_ITEMS_MAX..], "{era} {method}");
            assert!(second.result().get("nextCursor").is_none(), "{era} {method}");
        }
    }
}

#[tokio::test]
async fn a_cursor_is_good_for_its_own_principal_list_and_endpoint_only() {
    let issuer = Issuer::start().await;
    let upstream = heavy().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let (alice, bob) = (client_of(&issuer, &gateway, "alice").await, client_of(&issuer, &gateway, "bob").await);
    let first = first_page(&alice).await;
    let cursor = first.result()["nextCursor"].as_str().unwrap();
    // Another token of the same person goes on where this one was.
    let again = client_of(&issuer, &gateway, "alice").await;
    let second = again.modern("tools/list", json!({ "cursor": cursor })).await;
    assert_eq!(names(&first).len() + names(&second).len(), 25);
    let spoilt = format!("{}{}", &cursor[..cursor.len() - 1], if cursor.ends_with('A') { 'B' } else { 'A' });
    let own = gateway.server_client("tools", alice.token.as_deref().unwrap());
    for (what, answer) in [
        ("another person", bob.modern("tools/list", json!({ "cursor": cursor })).await),
        ("another list", alice.modern("prompts/list", json!({ "cursor": cursor })).await),
        ("another endpoint", own.modern("tools/list", json!({ "cursor": cursor })).await),
        ("spoilt", alice.modern("tools/list", json!({ "cursor": spoilt })).await),
        ("cut", alice.modern("tools/list", json!({ "cursor": &cursor[..cursor.len() / 2] })).await),
        ("no text", alice.modern("tools/list", json!({ "cursor": 1000 })).await),
        ("empty", alice.modern("tools/list", json!({ "cursor": "" })).await),
    ] {
        assert_eq!(answer.error_code(), -32602, "{what}: {}", answer.text);
        assert!(!answer.text.contains("tools__"), "{what}");
    }
    assert!(!cursor.contains("tools"), "a cursor says nothing: {cursor}");
}

#[tokio::test]
async fn a_cursor_of_a_list_that_has_changed_begins_nothing_in_the_middle() {
    let issuer = Issuer::start().await;
    let upstream = heavy().await;
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "list_refresh_min = \"100ms\"\npins = \"off\"\n")
        .start()
        .await;
    let client = client_of(&issuer, &gateway, "alice").await;
    let first = first_page(&client).await;
    upstream.set_tools(json!([tool("only")]));
    eventually("the changed list", async || client.tool_names().await == ["tools__only"]).await;
    let answer = client.modern("tools/list", json!({ "cursor": first.result()["nextCursor"] })).await;
    assert_eq!(answer.error_code(), -32602, "{}", answer.text);
}

#[tokio::test]
async fn one_of_a_thousand_tools_with_a_broken_schema_hides_itself_only_and_the_order_stays() {
    crate::needs_python!();
    let broken = [
        r#"{"type":"object","properties":{"x":{"type":"string","type":"integer"}}}"#,
        r#"{"type":"array"}"#,
        r#""a text""#,
        r#"{"type":"object","properties":{"x":{"type":"number","x-mcp-header":"X"}}}"#,
    ];
    for schema in broken {
        // Neither alphabetical nor in the order of their numbers.
        let place = |number: usize| number * 617 % 1_000;
        let definition = |number: usize| {
            let own = if number == 500 { schema } else { r#"{"type":"object"}"# };
            format!(r#"{{"name":"t{}","description":"d","inputSchema":{own}}}"#, place(number))
        };
        let listed = (0..1_000).map(definition).collect::<Vec<_>>().join(",");
        let upstream = Verbatim::start("modern", move |heard| match heard.method.as_str() {
            "tools/list" => Said::result(&format!(
                r#"{{"resultType":"complete","tools":[{listed}],"ttlMs":0,"cacheScope":"private"}}"#
            )),
            "tools/call" => Said::result(r#"{"resultType":"complete","content":[{"type":"text","text":"called"}]}"#),
            _ => None,
        })
        .await;
        let issuer = Issuer::start().await;
        let mut gateway = upstream.served(Setup::new(&issuer), "http").start().await;
        let client = client_of(&issuer, &gateway, "alice").await;
        let expected: Vec<String> =
            (0..1_000).filter(|number| *number != 500).map(|number| format!("up__t{}", place(number))).collect();
        assert_eq!(client.tool_names().await, expected, "{schema}");
        let (_, session) = client.initialize("2025-06-18").await;
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }).to_string();
        let legacy = client.post(&[("mcp-session-id", session)], body).await;
        assert_eq!(names(&legacy), expected, "{schema}");
        let hidden = client.call_tool(&format!("up__t{}", place(500)), json!({})).await;
        assert_eq!(hidden.error_code(), -32602, "{schema}: {}", hidden.text);
        let next = client.call_tool(&format!("up__t{}", place(501)), json!({})).await;
        assert_eq!(next.tool_text(), "called", "{schema}");
        assert!(gateway.stop().await.success());
        gateway.launch().await;
        assert_eq!(client.tool_names().await, expected, "{schema}: after a restart");
    }
}
