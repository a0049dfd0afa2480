//! Input from the user in the middle of a call, where the server speaks the modern era: passed through,
//! decided by policy, and the retry found without anything kept.

use bailiwick::limit;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client, modern_request};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

/// Rules under which servers may ask developers everything.
pub fn may_ask(actions: &[&str]) -> String {
    let rows = actions.iter().flat_map(|action| {
        ["role:developer", "agent:assistant"].map(|who| format!("p, {who}, *, */, {action}, -, allow\n"))
    });
    DEVELOPERS_MAY.to_owned() + rows.collect::<String>().as_str()
}

/// Everything that a client can declare, and something that nobody has heard of.
pub fn all_capabilities() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} }, "sampling": { "tools": {} }, "roots": { "listChanged": true },
        "extensions": { "com.example/new": { "x": 1 }, "io.modelcontextprotocol/tasks": {} }, "zeta": { "y": [1.0] } })
}

/// A modern call of a client with these capabilities.
pub async fn call(client: &Client, capabilities: &Value, params: Value) -> Answer {
    let (headers, mut body) = modern_request("tools/call", params);
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = capabilities.clone();
    client.post(&headers, body.to_string()).await
}

/// The retry of a call whose answer asked for input.
#[expect(clippy::needless_pass_by_value, reason = "each test makes its answers on the spot")]
pub fn retry(name: &str, arguments: &Value, asked: &Answer, responses: Value) -> Value {
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    let state = &asked.result()["requestState"];
    assert!(state.is_string(), "{}", asked.text);
    json!({ "name": name, "arguments": arguments, "requestState": state, "inputResponses": responses })
}

pub fn reason(answer: &Answer) -> &str {
    let told = &answer.response()["result"]["_meta"]["dev.bailiwick/reason"];
    told.as_str().or_else(|| answer.response()["error"]["data"]["reason"].as_str()).unwrap_or_default()
}

pub fn form() -> Value {
    json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Your name?",
        "requestedSchema": { "type": "object", "properties": { "name": { "type": "string", "x-new": 1 } } } } })
}

/// An upstream that asks these questions once, with a state or without, and then answers what it got.
pub async fn asking(questions: Value, state: Option<&'static str>) -> Scripted {
    Scripted::start(json!([tool("ask"), tool("other")]), move |request| {
        let params = &request["params"];
        if params.get("inputResponses").is_some() {
            let got = json!({ "responses": params["inputResponses"], "state": params["requestState"] });
            return result(request, text(&got.to_string()));
        }
        let mut asked = json!({ "resultType": "input_required", "inputRequests": questions, "x-new": true });
        if let Some(state) = state {
            asked["requestState"] = json!(state);
        }
        result(request, asked)
    })
    .await
}

async fn start(upstream: &Scripted, rows: &str, more: &str) -> (Issuer, Gateway, Client) {
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).policy(rows).http_server("tools", &upstream.url, more).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, gateway, client)
}

#[tokio::test]
async fn a_form_goes_to_the_user_with_the_name_of_its_server_and_the_answer_comes_back() {
    for state in [Some("inner state"), None] {
        let upstream = asking(json!({ "who": form() }), state).await;
        let (_issuer, gateway, client) = start(&upstream, &may_ask(&["elicit"]), "").await;
        let arguments = json!({ "b": 1, "a": [true] });
        let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": arguments })).await;
        assert_eq!(asked.result()["x-new"], true, "{}", asked.text);
        let question = &asked.result()["inputRequests"]["who"];
        assert_eq!(question["method"], "elicitation/create");
        assert_eq!(question["params"]["message"], "[tools] Your name?");
        assert_eq!(question["params"]["_meta"]["dev.bailiwick/server"], "tools");
        assert_eq!(question["params"]["requestedSchema"], form()["params"]["requestedSchema"]);
        assert!(!asked.text.contains("inner state"), "{}", asked.text);
        // Spelled in another order, as clients may.
        let again = json!({ "a": [true], "b": 1 });
        let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
        let done = call(
            &client,
            &all_capabilities(),
            retry("tools__ask", &again, &asked, json!({ "who": answer, "zzz": {} })),
        )
        .await;
        let got: Value = serde_json::from_str(done.tool_text()).unwrap();
        assert_eq!(got, json!({ "responses": { "who": answer }, "state": state }), "{}", done.text);
        let legs: Vec<_> = gateway.records("intent");
        assert_eq!(legs.len(), 2);
        assert_eq!(legs[0]["call"], legs[1]["call"]);
        assert_ne!(legs[0]["leg"], legs[1]["leg"]);
        crate::support::eventually("both ends on the record", async || gateway.records("result").len() == 2).await;
        let ends = gateway.records("result");
        assert_eq!(ends[0]["result"]["outcome"], "input_required");
        assert_eq!(ends[0]["result"]["asked"], json!(["elicitation/create"]));
        assert!(!gateway.journal().iter().any(|record| record.to_string().contains("Your name")));
    }
}

#[tokio::test]
async fn a_retry_finds_its_way_at_a_gateway_that_was_started_since() {
    let upstream = asking(json!({ "who": form() }), Some("inner")).await;
    let (_issuer, mut gateway, client) = start(&upstream, &may_ask(&["elicit"]), "").await;
    let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let again = retry("tools__ask", &json!({}), &asked, json!({ "who": answer }));
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    let mut done = call(&client, &all_capabilities(), again.clone()).await;
    for _ in 0..100 {
        if done.text.contains("responses") {
            break;
        }
        // Its upstream is not known again yet; a state is good until its time is over.
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
        done = call(&client, &all_capabilities(), again.clone()).await;
    }
    let got: Value = serde_json::from_str(done.tool_text()).unwrap();
    assert_eq!(got, json!({ "responses": { "who": answer }, "state": "inner" }), "{}", done.text);
    assert_eq!(upstream.calls().len(), 2, "asked once, and answered once");
}

#[tokio::test]
async fn a_server_learns_of_what_the_client_declared_less_what_policy_denies() {
    let upstream = Scripted::echo().await;
    let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit", "roots"]), "").await;
    call(&client, &all_capabilities(), json!({ "name": "tools__echo", "arguments": {} })).await;
    call(&client, &json!({}), json!({ "name": "tools__echo", "arguments": {} })).await;
    let shown = |at: usize| {
        upstream.calls()[at].message["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"].clone()
    };
    assert_eq!(
        shown(0),
        json!({ "elicitation": { "form": {} }, "roots": { "listChanged": true },
            "extensions": { "com.example/new": { "x": 1 }, "io.modelcontextprotocol/tasks": {} }, "zeta": { "y": [1.0] } })
    );
    assert_eq!(shown(1), json!({}));
}

#[tokio::test]
async fn nothing_is_asked_that_no_rule_allows_or_that_the_client_did_not_declare() {
    let sampling = json!({ "method": "sampling/createMessage", "params": { "messages": [], "maxTokens": 5 } });
    let roots = json!({ "method": "roots/list" });
    for (question, action) in [(form(), "elicit"), (sampling, "sample"), (roots, "roots")] {
        let upstream = asking(json!({ "q": question }), None).await;
        let (issuer, gateway, client) = start(&upstream, DEVELOPERS_MAY, "").await;
        let params = || json!({ "name": "tools__ask", "arguments": {} });
        let denied = call(&client, &all_capabilities(), params()).await;
        assert_eq!(
            (denied.result()["isError"].as_bool(), reason(&denied)),
            (Some(true), "input_refused"),
            "{}",
            denied.text
        );
        gateway.write_policy(&may_ask(&[action]));
        let reloaded = gateway.command(&["reload", "--allow-widening", "--config", "servers.toml"]);
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
        let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        let allowed = call(&client, &all_capabilities(), params()).await;
        assert_eq!(allowed.result()["resultType"], "input_required", "{action}: {}", allowed.text);
        let incapable = call(&client, &json!({}), params()).await;
        assert_eq!(reason(&incapable), "upstream_garbage", "{}", incapable.text);
    }
}

#[tokio::test]
async fn users_are_sent_to_listed_hosts_only() {
    let page = |url: &str| json!({ "q": { "method": "elicitation/create", "params": { "mode": "url", "message": "Sign in", "url": url, "elicitationId": "e" } } });
    let listed = "elicit_url_hosts = [\"accounts.example.com\"]";
    for (url, more, may) in [
        ("https://accounts.example.com/x", listed, true),
        ("https://evil.example.com/x", listed, false),
        ("https://accounts.example.com@evil.org/", listed, false),
        ("https://accounts.example.com/x", "", false),
    ] {
        let upstream = asking(page(url), None).await;
        let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit"]), more).await;
        let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
        if may {
            let params = &asked.result()["inputRequests"]["q"]["params"];
            assert_eq!(
                (&params["url"], &params["message"]),
                (&json!(url), &json!("[tools] Sign in")),
                "{}",
                asked.text
            );
        } else {
            assert_eq!(reason(&asked), "input_refused", "{url} {}", asked.text);
            assert!(!asked.text.contains("https://"), "{}", asked.text);
        }
    }
}

#[tokio::test]
async fn a_state_is_good_for_its_caller_its_tool_and_its_arguments_only() {
    let upstream = asking(json!({ "who": form() }), Some("inner")).await;
    let (issuer, gateway, client) = start(&upstream, &may_ask(&["elicit"]), "").await;
    let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": { "n": 1 } })).await;
    let answers = || json!({ "who": { "action": "decline" } });
    let right = retry("tools__ask", &json!({ "n": 1 }), &asked, answers());
    let mut tampered = right.clone();
    let state = tampered["requestState"].as_str().unwrap();
    let middle = state.len() / 2;
    let other = if &state[middle..=middle] == "A" { "B" } else { "A" };
    tampered["requestState"] = json!(format!("{}{other}{}", &state[..middle], &state[middle + 1..]));
    let mut theirs = right.clone();
    theirs["requestState"] = json!("inner");
    let mut number = right.clone();
    number["requestState"] = json!(7);
    for wrong in [
        tampered,
        theirs,
        number,
        retry("tools__ask", &json!({ "n": 2 }), &asked, answers()),
        retry("tools__other", &json!({ "n": 1 }), &asked, answers()),
    ] {
        let refused = call(&client, &all_capabilities(), wrong).await;
        assert_eq!((refused.error_code(), reason(&refused)), (-32602, "input_state_invalid"), "{}", refused.text);
    }
    let mallory = gateway.client(&issuer.token("mallory", &["developers"], &gateway.resource()));
    let refused = call(&mallory, &all_capabilities(), right.clone()).await;
    assert_eq!(reason(&refused), "input_state_invalid", "{}", refused.text);
    assert_eq!(upstream.calls().len(), 1, "nothing of that was forwarded");
    assert_eq!(call(&client, &all_capabilities(), right).await.result()["resultType"], "complete");
}

#[tokio::test]
async fn a_state_expires() {
    let upstream = asking(json!({ "who": form() }), Some("inner")).await;
    let more = "health = { input_timeout = \"1s\" }";
    let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit"]), more).await;
    let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    let late = retry("tools__ask", &json!({}), &asked, json!({ "who": { "action": "accept" } }));
    let late = call(&client, &all_capabilities(), late).await;
    assert_eq!(reason(&late), "input_expired", "{}", late.text);
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_is_decided_again_under_the_rules_of_its_moment() {
    let upstream = asking(json!({ "who": form() }), Some("inner")).await;
    let (_issuer, gateway, client) = start(&upstream, &may_ask(&["elicit"]), "").await;
    let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
    gateway.write_policy(&(may_ask(&["elicit"]) + "p, anyone, *, tools/ask, call, -, deny\n"));
    assert!(gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    let answered = retry("tools__ask", &json!({}), &asked, json!({ "who": { "action": "accept" } }));
    let refused = call(&client, &all_capabilities(), answered).await;
    // It is hidden now, like a tool that does not exist.
    assert_eq!(refused.error_code(), -32602, "{}", refused.text);
    assert_eq!(upstream.calls().len(), 1);
    crate::support::eventually("the refusal on the record", async || !gateway.records("refusal").is_empty()).await;
    let refusal = gateway.records("refusal").pop().unwrap();
    assert_eq!(refusal["call"], gateway.records("intent")[0]["call"], "{refusal}");
}

#[tokio::test]
async fn rounds_are_counted_and_a_circle_ends() {
    let upstream = Scripted::start(json!([tool("ask")]), |request| {
        let round = request["params"]["requestState"].as_str().and_then(|state| state.parse::<u32>().ok()).unwrap_or(0);
        result(
            request,
            json!({ "resultType": "input_required", "requestState": (round + 1).to_string(),
            "inputRequests": { "q": { "method": "roots/list" } } }),
        )
    })
    .await;
    let (_issuer, gateway, client) = start(&upstream, &may_ask(&["roots"]), "").await;
    let mut asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
    let mut rounds = 1;
    while asked.result()["resultType"] == "input_required" {
        assert!(rounds <= limit::INPUT_ROUNDS_MAX, "it never ends");
        let next = retry("tools__ask", &json!({}), &asked, json!({ "q": { "roots": [] } }));
        asked = call(&client, &all_capabilities(), next).await;
        rounds += 1;
    }
    assert_eq!((rounds, reason(&asked)), (limit::INPUT_ROUNDS_MAX + 1, "upstream_garbage"), "{}", asked.text);
    let calls: std::collections::HashSet<_> =
        gateway.records("intent").iter().map(|intent| intent["call"].to_string()).collect();
    assert_eq!(calls.len(), 1, "it was one call");
}

/// A call of a tool that answers with this text as its result or error, by somebody who may be asked everything.
async fn answered_with(member: &'static str, text: &'static str) -> Answer {
    let upstream = Scripted::start(json!([tool("ask")]), move |request| {
        raw("application/json", format!(r#"{{"jsonrpc":"2.0","id":{},"{member}":{text}}}"#, request["id"]))
    })
    .await;
    let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit", "roots"]), "").await;
    call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await
}

#[tokio::test]
async fn a_question_that_two_readers_could_read_differently_reaches_nobody() {
    for question in [
        r#"{"method":"elicitation/create","params":{"mode":"form","mode":"url","message":"m","url":"https://evil.example/"}}"#,
        r#"{"method":"roots/list","method":"sampling/createMessage","params":{}}"#,
    ] {
        let result = format!(r#"{{"resultType":"input_required","inputRequests":{{"q":{question}}}}}"#);
        let answer = answered_with("result", result.leak()).await;
        assert_eq!(reason(&answer), "upstream_garbage", "{question} {}", answer.text);
    }
}

#[tokio::test]
async fn pages_to_visit_that_cannot_be_read_are_not_passed_on() {
    for pages in [r#"[{"url":"https://evil.example/"},7]"#, r#"{"url":"https://evil.example/"}"#] {
        let error = format!(r#"{{"code":-32042,"message":"m","data":{{"elicitations":{pages}}}}}"#);
        let answer = answered_with("error", error.leak()).await;
        assert!(!answer.text.contains("evil.example"), "{}", answer.text);
        assert_eq!(reason(&answer), "upstream_garbage", "{}", answer.text);
    }
}

#[tokio::test]
async fn a_server_that_misses_a_capability_says_so_to_the_client() {
    let upstream = Scripted::start(json!([tool("ask")]), |request| {
        let error =
            json!({ "code": -32021, "message": "Missing", "data": { "requiredCapabilities": { "sampling": {} } } });
        let mut response =
            raw("application/json", json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string());
        *response.status_mut() = axum::http::StatusCode::BAD_REQUEST;
        response
    })
    .await;
    let (_issuer, _gateway, client) = start(&upstream, DEVELOPERS_MAY, "").await;
    let answer = call(&client, &json!({}), json!({ "name": "tools__ask", "arguments": {} })).await;
    assert_eq!((answer.status, answer.error_code()), (400, -32021), "{}", answer.text);
    assert_eq!(answer.response()["error"]["data"], json!({ "requiredCapabilities": { "sampling": {} } }));
}

#[tokio::test]
async fn questions_that_are_none_or_too_many_reach_nobody() {
    let many: serde_json::Map<String, Value> =
        (0..=limit::INPUT_REQUESTS_MAX).map(|n| (n.to_string(), json!({ "method": "roots/list" }))).collect();
    for questions in [
        json!({ "q": { "method": "tools/call", "params": {} } }),
        json!({ "q": { "method": "elicitation/create", "params": { "mode": "telepathy" } } }),
        json!({ "q": 7 }),
        json!([]),
        json!({}),
        Value::Object(many),
        json!({ "k".repeat(limit::INPUT_KEY_BYTES_MAX + 1): { "method": "roots/list" } }),
    ] {
        let upstream = asking(questions.clone(), None).await;
        let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit", "roots"]), "").await;
        let answer = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
        assert_eq!(reason(&answer), "upstream_garbage", "{questions} {}", answer.text);
    }
}

#[tokio::test]
async fn an_older_servers_error_that_wants_a_page_visited_is_a_question_like_any_other() {
    for (url, may) in [("https://accounts.example.com/x", true), ("https://evil.org/x", false)] {
        let upstream = Scripted::start(json!([tool("ask")]), move |request| {
            if request["params"].get("inputResponses").is_some() {
                return result(request, text("thanks"));
            }
            let page = json!({ "mode": "url", "elicitationId": "e", "url": url, "message": "Sign in" });
            let error = json!({ "code": -32042, "message": "URL required", "data": { "elicitations": [page] } });
            raw("application/json", json!({ "jsonrpc": "2.0", "id": request["id"], "error": error }).to_string())
        })
        .await;
        let more = "elicit_url_hosts = [\"*.example.com\"]";
        let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit"]), more).await;
        let asked = call(&client, &all_capabilities(), json!({ "name": "tools__ask", "arguments": {} })).await;
        if may {
            assert_eq!(
                asked.result()["inputRequests"]["page-0"]["params"]["message"],
                "[tools] Sign in",
                "{}",
                asked.text
            );
            let answers = json!({ "page-0": { "action": "accept" } });
            let done = call(&client, &all_capabilities(), retry("tools__ask", &json!({}), &asked, answers)).await;
            assert_eq!(done.tool_text(), "thanks", "{}", done.text);
        } else {
            assert_eq!(reason(&asked), "input_refused", "{}", asked.text);
        }
    }
}

#[tokio::test]
async fn answers_that_nobody_asked_for_reach_a_server_only_where_it_may_ask() {
    let upstream = asking(json!({ "who": form() }), None).await;
    let answers = json!({ "who": { "action": "accept" }, "more": { "x": 1 } });
    let params = || json!({ "name": "tools__ask", "arguments": {}, "inputResponses": answers });
    let (_issuer, _gateway, client) = start(&upstream, &may_ask(&["elicit"]), "").await;
    let done = call(&client, &all_capabilities(), params()).await;
    assert_eq!(serde_json::from_str::<Value>(done.tool_text()).unwrap()["responses"], answers, "{}", done.text);
    let (_issuer, _gateway, client) = start(&upstream, DEVELOPERS_MAY, "").await;
    assert_eq!(reason(&call(&client, &all_capabilities(), params()).await), "input_refused");
    let incapable = call(&client, &json!({}), params()).await;
    assert_eq!(reason(&incapable), "upstream_garbage", "it was asked nothing, so it answered nothing");
}
