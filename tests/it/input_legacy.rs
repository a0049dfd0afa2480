//! Input from the user in the middle of a call, where one side or both speak the legacy era: the open call
//! waits upstream, and a legacy client is asked on the stream of its own call.

use std::time::Duration;

use bailiwick::limit;
use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason, retry};
use crate::support::client::{Client, Stream, modern_request};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::sts::{Revocation, Sts, claims};

const EVERYTHING: [&str; 3] = ["elicit", "sample", "roots"];

fn form() -> Value {
    json!({ "message": "Your name?", "requestedSchema": { "type": "object", "properties": { "name": { "type": "string" } } } })
}

fn sampling() -> Value {
    json!({ "messages": [{ "role": "user", "content": { "type": "text", "text": "hi" } }], "maxTokens": 5, "includeContext": "thisServer" })
}

/// A legacy server that asks what its tool is called after, and answers with what it got.
async fn old() -> Old {
    Old::start(&["form", "sampling", "roots", "twice", "elsewhere", "hang", "plain"], |turn: Turn| async move {
        let got = match turn.call["params"]["name"].as_str().unwrap() {
            "form" => turn.ask("elicitation/create", form()).await,
            "sampling" => turn.ask("sampling/createMessage", sampling()).await,
            "roots" => turn.ask("roots/list", json!({})).await,
            "elsewhere" => turn.ask_elsewhere("elicitation/create", form()).await,
            "hang" => std::future::pending().await,
            "twice" => {
                let first = turn.ask("elicitation/create", form()).await;
                turn.notify(
                    "notifications/progress",
                    json!({ "progressToken": turn.call["params"]["_meta"]["progressToken"], "progress": 1 }),
                );
                let second = turn.ask("elicitation/create", form()).await;
                json!([first["result"], second["result"]])
            }
            _ => Value::Null,
        };
        let got = if got.get("jsonrpc").is_some() { got.get("result").unwrap_or(&got["error"]).clone() } else { got };
        turn.done(&got.to_string());
    })
    .await
}

async fn start(url: &str, rows: &str, more: &str) -> (Issuer, Gateway, Client) {
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).policy(rows).http_server("tools", url, more).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, gateway, client)
}

/// A legacy session that declares these capabilities.
pub async fn session(client: &Client, capabilities: &Value) -> String {
    let params = json!({ "protocolVersion": "2025-11-25", "capabilities": capabilities, "clientInfo": { "name": "c", "version": "1" } });
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize", "params": params });
    client.post(&[], body.to_string()).await.header("mcp-session-id").to_owned()
}

fn headers(session: &str) -> Vec<(&'static str, String)> {
    vec![("mcp-session-id", session.to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())]
}

/// The stream of a tool call in a legacy session.
pub async fn stream(client: &Client, session: &str, id: u32, name: &str) -> Stream {
    let body =
        json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": { "name": name, "arguments": {} } });
    client.stream(&headers(session), Some(body.to_string())).await
}

pub async fn respond(client: &Client, session: &str, question: &Value, result: Value) {
    let body = json!({ "jsonrpc": "2.0", "id": question["id"], "result": result });
    let accepted = client.post(&headers(session), body.to_string()).await;
    assert_eq!((accepted.status, accepted.text.as_str()), (202, ""));
}

pub fn arguments(name: &str) -> Value {
    json!({ "name": name, "arguments": {} })
}

/// What a tool told, read as JSON.
pub fn told(message: &Value) -> Value {
    let text = message["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text in {message}"));
    serde_json::from_str(text).unwrap()
}

#[tokio::test]
async fn a_modern_client_answers_what_a_legacy_server_asks() {
    let upstream = old().await;
    let (_issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    for (name, key, method, answer) in [
        ("form", "elicitation", "elicitation/create", json!({ "action": "accept", "content": { "name": "Ada" } })),
        (
            "sampling",
            "sampling",
            "sampling/createMessage",
            json!({ "role": "assistant", "model": "m", "x": 1, "content": { "type": "text", "text": "ho" } }),
        ),
        ("roots", "roots", "roots/list", json!({ "roots": [{ "uri": "file:///a" }] })),
    ] {
        let name = format!("tools__{name}");
        let asked = call(&client, &all_capabilities(), arguments(&name)).await;
        let question = &asked.result()["inputRequests"][key];
        assert_eq!(question["method"], method, "{}", asked.text);
        assert_eq!(question["params"]["_meta"]["dev.bailiwick/server"], "tools");
        assert!(question["params"].get("includeContext").is_none(), "{}", asked.text);
        if key == "elicitation" {
            assert_eq!(question["params"]["message"], "[tools] Your name?");
        }
        // Nothing was answered, so it is asked again.
        let again = call(&client, &all_capabilities(), retry(&name, &json!({}), &asked, json!({}))).await;
        let done = call(&client, &all_capabilities(), retry(&name, &json!({}), &again, json!({ key: answer }))).await;
        assert_eq!(told(done.response()), answer, "{}", done.text);
        assert_eq!(done.result()["resultType"], "complete");
        let used = call(&client, &all_capabilities(), retry(&name, &json!({}), &again, json!({ key: answer }))).await;
        assert_eq!(reason(&used), "input_expired", "a question is answered once: {}", used.text);
    }
    assert_eq!(upstream.saw("tools/call").len(), 3, "each call was sent once");
    let declared: Vec<_> =
        upstream.saw("initialize").iter().map(|seen| seen.message["params"]["capabilities"].clone()).collect();
    // One for the lists, one for the caller.
    assert!(declared.contains(&json!({})), "{declared:?}");
    assert!(
        declared.contains(
            &json!({ "elicitation": { "form": {} }, "sampling": { "tools": {} }, "roots": { "listChanged": true } })
        ),
        "{declared:?}"
    );
    let intents = gateway.records("intent");
    assert_eq!(intents[0]["call"], intents[2]["call"]);
    eventually("input_required on the record", async || {
        gateway.records("result").iter().any(|end| end["result"]["asked"] == json!(["sampling/createMessage"]))
    })
    .await;
}

#[tokio::test]
async fn the_context_of_a_server_is_asked_for_where_that_server_is_all_that_a_client_has() {
    let upstream = old().await;
    let (issuer, gateway, merged) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let own = gateway.server_client("tools", &issuer.token("alice", &["developers"], &gateway.resource()));
    let mut capabilities = all_capabilities();
    capabilities["sampling"]["context"] = json!({});
    for (client, name, context) in [(&own, "sampling", Some("thisServer")), (&merged, "tools__sampling", None)] {
        let asked = call(client, &capabilities, arguments(name)).await;
        let question = &asked.result()["inputRequests"]["sampling"]["params"];
        assert_eq!(question.get("includeContext").and_then(Value::as_str), context, "{}", asked.text);
        let answer = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ho" } });
        let answers = json!({ "sampling": answer });
        let done = call(client, &capabilities, retry(name, &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), answer, "{}", done.text);
    }
    let declared: Vec<_> = upstream
        .saw("initialize")
        .iter()
        .map(|seen| seen.message["params"]["capabilities"]["sampling"].clone())
        .filter(Value::is_object)
        .collect();
    assert_eq!(declared, [json!({ "tools": {}, "context": {} }), json!({ "tools": {} })]);
}

#[tokio::test]
async fn a_legacy_client_answers_what_a_modern_server_asks() {
    let upstream = Scripted::start(json!([tool("ask")]), |request| match request["params"].get("inputResponses") {
        Some(responses) => result(request, text(&responses.to_string())),
        None => result(
            request,
            json!({ "resultType": "input_required", "requestState": "s", "inputRequests": {
                "who": { "method": "elicitation/create", "params": form() },
                "what": { "method": "sampling/createMessage", "params": sampling() },
                "where": { "method": "roots/list" },
            } }),
        ),
    })
    .await;
    let (_issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let session = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &session, 7, "tools__ask").await;
    let mut answers = json!({});
    for _ in 0..3 {
        let question = events.next().await;
        let (key, answer) = match question["method"].as_str().unwrap() {
            "elicitation/create" => {
                assert_eq!(question["params"]["message"], "[tools] Your name?");
                ("who", json!({ "action": "accept", "content": { "name": "Ada" } }))
            }
            "sampling/createMessage" => {
                ("what", json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ho" } }))
            }
            _ => ("where", json!({ "roots": [] })),
        };
        answers[key] = answer.clone();
        respond(&client, &session, &question, answer).await;
        // A second answer reaches nobody.
        respond(&client, &session, &question, json!({ "action": "decline" })).await;
    }
    let done = events.next().await;
    assert_eq!((told(&done), &done["id"]), (answers, &json!(7)));
    assert!(done["result"].get("resultType").is_none(), "{done}");
    let retry = upstream.calls()[1].message["params"].clone();
    assert_eq!(retry["requestState"], "s");
    let intents = gateway.records("intent");
    assert_eq!((intents.len(), &intents[0]["call"]), (2, &intents[1]["call"]));
}

/// A person's claims that are good for so many seconds.
fn claims_for(issuer: &Issuer, gateway: &Gateway, seconds: i64) -> Value {
    let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
    claims["exp"] = json!(jiff::Timestamp::now().as_second() + seconds);
    claims
}

/// A server that asks a person, or says that it is to be asked again after so long.
async fn again(after: Option<Duration>) -> Scripted {
    Scripted::start(json!([tool("ask")]), move |request| {
        if request["params"].get("requestState").is_some() {
            return result(request, text("done"));
        }
        let questions = match after {
            None => json!({ "who": { "method": "elicitation/create", "params": form() } }),
            Some(after) => {
                std::thread::sleep(after);
                json!({})
            }
        };
        result(request, json!({ "resultType": "input_required", "requestState": "s", "inputRequests": questions }))
    })
    .await
}

#[tokio::test]
async fn what_is_done_with_an_answer_is_decided_for_the_token_that_came_with_it() {
    let upstream = again(None).await;
    let (issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let session = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &session, 7, "tools__ask").await;
    let question = events.next().await;
    let claims = claims_for(&issuer, &gateway, 600);
    let later = gateway.client(&issuer.sign(&claims));
    respond(&later, &session, &question, json!({ "action": "accept", "content": { "name": "Ada" } })).await;
    assert_eq!(events.next().await["result"]["content"][0]["text"], "done");
    let intents = gateway.records("intent");
    assert_eq!((intents.len(), &intents[0]["call"]), (2, &intents[1]["call"]));
    assert_ne!(intents[0]["token"], intents[1]["token"]);
    assert_eq!(intents[1]["token"]["id"], claims["jti"]);
}

#[tokio::test]
async fn a_call_that_goes_on_without_its_client_ends_when_its_token_has_run_out() {
    let upstream = again(Some(Duration::from_millis(2_100))).await;
    let issuer = Issuer::start().await;
    let setup = Setup::new(&issuer).policy(&may_ask(&EVERYTHING)).issuer_lines("leeway = \"1ms\"\n");
    let gateway = setup.http_server("tools", &upstream.url, "").start().await;
    let lasting = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let session = session(&lasting, &all_capabilities()).await;
    eventually("the list", async || !lasting.tool_names().await.is_empty()).await;
    let client = gateway.client(&issuer.sign(&claims_for(&issuer, &gateway, 2)));
    let mut events = stream(&client, &session, 7, "tools__ask").await;
    let end = events.next().await;
    assert!(end.to_string().contains("token_expired"), "{end}");
    assert_eq!(upstream.calls().len(), 1);
}

#[tokio::test]
async fn a_legacy_client_answers_what_a_legacy_server_asks_in_as_many_rounds_as_it_takes() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let session = session(&client, &json!({ "elicitation": {} })).await;
    let mut events = stream(&client, &session, 1, "tools__twice").await;
    for action in ["accept", "decline"] {
        let question = events.next().await;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        respond(&client, &session, &question, json!({ "action": action })).await;
    }
    assert_eq!(told(&events.next().await), json!([{ "action": "accept" }, { "action": "decline" }]));
    assert_eq!(upstream.saw("tools/call").len(), 1);
}

#[tokio::test]
async fn a_legacy_client_is_asked_only_what_it_declared() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let session = session(&client, &json!({ "roots": {} })).await;
    // The server is told that nobody answers, and the client hears the end of the call only.
    let answer = client.legacy(&session, "tools/call", arguments("tools__form")).await;
    assert_eq!(told(answer.response())["code"], -32601, "{}", answer.text);
    let modern = call(&client, &json!({}), arguments("tools__sampling")).await;
    assert_eq!(told(modern.response())["code"], -32601);
}

#[tokio::test]
async fn a_legacy_server_may_not_ask_what_no_rule_allows() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&["elicit"]), "").await;
    let refused = call(&client, &all_capabilities(), arguments("tools__sampling")).await;
    assert_eq!(told(refused.response())["code"], -32601, "{}", refused.text);
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    let declared = upstream.saw("initialize").pop().unwrap();
    assert_eq!(declared.message["params"]["capabilities"], json!({ "elicitation": { "form": {} } }));
    let none = old().await;
    let (_issuer, _gateway, client) = start(&none.url, DEVELOPERS_MAY, "").await;
    let refused = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(told(refused.response())["code"], -32601, "{}", refused.text);
}

#[tokio::test]
async fn two_users_of_one_server_never_get_each_others_questions() {
    let upstream = old().await;
    let (issuer, gateway, alice) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let (one, other) = (
        call(&alice, &all_capabilities(), arguments("tools__form")).await,
        call(&bob, &all_capabilities(), arguments("tools__form")).await,
    );
    let answer = |name: &str| json!({ "elicitation": { "action": "accept", "content": { "name": name } } });
    let stolen = call(&bob, &all_capabilities(), retry("tools__form", &json!({}), &one, answer("mallory"))).await;
    assert_eq!(reason(&stolen), "input_state_invalid", "{}", stolen.text);
    for (client, asked, name) in [(&bob, &other, "Bob"), (&alice, &one, "Alice")] {
        let done = call(client, &all_capabilities(), retry("tools__form", &json!({}), asked, answer(name))).await;
        assert_eq!(told(done.response())["content"]["name"], name, "{}", done.text);
    }
    let sessions: std::collections::HashSet<_> =
        upstream.saw("tools/call").into_iter().map(|seen| seen.session).collect();
    assert_eq!(sessions.len(), 2);
    // The same in legacy sessions: an answer that is posted in another session reaches nobody.
    let (mine, theirs) = (session(&alice, &all_capabilities()).await, session(&bob, &all_capabilities()).await);
    let mut events = stream(&alice, &mine, 1, "tools__form").await;
    let question = events.next().await;
    respond(&bob, &theirs, &question, json!({ "action": "decline" })).await;
    assert!(events.next_within(Duration::from_millis(300)).await.is_none());
    respond(&alice, &mine, &question, json!({ "action": "accept" })).await;
    assert_eq!(told(&events.next().await), json!({ "action": "accept" }));
}

#[tokio::test]
async fn a_call_that_nobody_answers_is_cancelled_upstream() {
    let upstream = old().await;
    let (_issuer, _gateway, client) =
        start(&upstream.url, &may_ask(&EVERYTHING), "health = { input_timeout = \"1s\" }").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    eventually("the cancellation", async || upstream.saw("notifications/cancelled").len() == 1).await;
    let (cancelled, called) = (upstream.saw("notifications/cancelled").remove(0), upstream.saw("tools/call").remove(0));
    assert_eq!(cancelled.message["params"]["requestId"], called.message["id"]);
    let late = retry("tools__form", &json!({}), &asked, json!({ "elicitation": { "action": "accept" } }));
    let late = call(&client, &all_capabilities(), late).await;
    assert_eq!(reason(&late), "input_expired", "{}", late.text);
    // A legacy client that says nothing gets an end.
    let session = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &session, 1, "tools__form").await;
    events.next().await;
    let end = events.next().await;
    assert_eq!(end["result"]["_meta"]["dev.bailiwick/reason"], "input_expired", "{end}");
}

#[tokio::test]
async fn a_legacy_client_that_cancels_while_it_is_asked_cancels_upstream() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let session = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &session, 5, "tools__form").await;
    events.next().await;
    assert!(upstream.saw("notifications/cancelled").is_empty());
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 5 } });
    client.post(&headers(&session), cancel.to_string()).await;
    eventually("the cancellation", async || upstream.saw("notifications/cancelled").len() == 1).await;
    events.end().await;
}

#[tokio::test]
async fn a_revoked_caller_loses_the_calls_that_wait() {
    let upstream = old().await;
    let (_issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    let revoked = gateway.command(&["revoke", "subject", "user:test/alice", "--config", "servers.toml"]);
    assert!(revoked.status.success());
    eventually("the cancellation", async || upstream.saw("notifications/cancelled").len() == 1).await;
    let answer = retry("tools__form", &json!({}), &asked, json!({ "elicitation": { "action": "accept" } }));
    assert_eq!(call(&client, &all_capabilities(), answer).await.status, 401);
}

#[tokio::test]
async fn a_call_that_waits_is_given_up_when_the_rules_take_it_back() {
    let upstream = old().await;
    let (_issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    gateway.write_policy(&(may_ask(&EVERYTHING) + "p, anyone, *, tools/form, call, -, deny\n"));
    assert!(gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    eventually("the cancellation", async || upstream.saw("notifications/cancelled").len() == 1).await;
    let answer = retry("tools__form", &json!({}), &asked, json!({ "elicitation": { "action": "accept" } }));
    assert_eq!(call(&client, &all_capabilities(), answer).await.error_code(), -32602);
}

#[tokio::test]
async fn calls_that_wait_are_counted_for_each_caller() {
    let upstream = old().await;
    let (issuer, gateway, alice) =
        start(&upstream.url, &may_ask(&EVERYTHING), "health = { calls_in_flight_max = 2 }").await;
    // More than may be in flight: what waits takes no place.
    for _ in 0..limit::PARKED_PER_PRINCIPAL_MAX {
        let asked = call(&alice, &all_capabilities(), arguments("tools__form")).await;
        assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    }
    let refused = call(&alice, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(reason(&refused), "input_limited", "{}", refused.text);
    eventually("the cancellation", async || upstream.saw("notifications/cancelled").len() == 1).await;
    assert_eq!(told(call(&alice, &all_capabilities(), arguments("tools__plain")).await.response()), Value::Null);
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let asked = call(&bob, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
}

#[tokio::test]
async fn an_answer_that_finds_no_place_can_be_given_again_and_the_call_may_have_acted() {
    let upstream = old().await;
    let (issuer, gateway, alice) =
        start(&upstream.url, &may_ask(&EVERYTHING), "health = { calls_in_flight_max = 1 }").await;
    let asked = call(&alice, &all_capabilities(), arguments("tools__form")).await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let hanging: Vec<_> = (0..2)
        .map(|_| {
            let bob = bob.clone();
            // Until each has its place: one of ours below may have been there first.
            tokio::spawn(async move {
                while reason(&call(&bob, &all_capabilities(), arguments("tools__hang")).await) == "upstream_busy" {}
            })
        })
        .collect();
    eventually("one is in flight and one waits", async || {
        let capabilities = all_capabilities();
        let third = call(&bob, &capabilities, arguments("tools__plain"));
        let third = tokio::time::timeout(Duration::from_secs(1), third).await;
        third.is_ok_and(|third| reason(&third) == "upstream_busy")
    })
    .await;
    let answer = json!({ "elicitation": { "action": "accept", "content": { "name": "Alice" } } });
    let answer = || retry("tools__form", &json!({}), &asked, answer.clone());
    let busy = call(&alice, &all_capabilities(), answer()).await;
    assert_eq!(reason(&busy), "upstream_busy", "{}", busy.text);
    let is_hers =
        |record: &Value| record["result"]["reason"] == "upstream_busy" && record["result"]["may_have_acted"] == true;
    eventually("that it may have acted is on the record", async || gateway.records("result").iter().any(is_hers)).await;
    for hanging in hanging {
        hanging.abort();
    }
    // They are given up when the gateway has seen that nobody waits for them.
    eventually("there is a place again", async || {
        reason(&call(&bob, &all_capabilities(), arguments("tools__plain")).await).is_empty()
    })
    .await;
    let done = call(&alice, &all_capabilities(), answer()).await;
    assert_eq!(told(done.response())["content"]["name"], "Alice", "{}", done.text);
}

#[tokio::test]
async fn progress_goes_to_the_leg_that_is_under_way() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let with_token = |mut params: Value, token: &str| {
        params["_meta"]["progressToken"] = json!(token);
        params
    };
    let asked = call(&client, &all_capabilities(), with_token(arguments("tools__twice"), "first")).await;
    let answer = json!({ "elicitation": { "action": "accept" } });
    let second = retry("tools__twice", &json!({}), &asked, answer);
    let (headers, mut body) = modern_request("tools/call", with_token(second, "second"));
    body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = all_capabilities();
    let second = client.post(&headers, body.to_string()).await;
    assert_eq!(second.messages[0]["params"]["progressToken"], "second", "{}", second.text);
    assert_eq!(second.result()["resultType"], "input_required", "{}", second.text);
}

#[tokio::test]
async fn a_question_on_the_sessions_own_stream_belongs_to_the_only_call_in_flight() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__elsewhere")).await;
    assert_eq!(
        asked.result()["inputRequests"]["elicitation"]["params"]["message"],
        "[tools] Your name?",
        "{}",
        asked.text
    );
    // Another call in the same session asks the same way, while the first one waits and so is in flight no more.
    let other = call(&client, &all_capabilities(), arguments("tools__elsewhere")).await;
    assert_eq!(other.result()["resultType"], "input_required", "{}", other.text);
    for (asked, action) in [(other, "decline"), (asked, "accept")] {
        let answer = json!({ "action": action });
        let answers = json!({ "elicitation": answer });
        let done = call(&client, &all_capabilities(), retry("tools__elsewhere", &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), answer, "{}", done.text);
    }
}

#[tokio::test]
async fn a_question_on_the_sessions_own_stream_is_never_guessed_among_several_calls() {
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let hanging = client.clone();
    let hanging = tokio::spawn(async move { call(&hanging, &all_capabilities(), arguments("tools__hang")).await });
    eventually("the call to arrive", async || !upstream.saw("tools/call").is_empty()).await;
    let asked = call(&client, &all_capabilities(), arguments("tools__elsewhere")).await;
    assert_eq!(told(asked.response())["code"], -32603, "{}", asked.text);
    // On the stream of a call there is no doubt.
    let own = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(own.result()["resultType"], "input_required", "{}", own.text);
    hanging.abort();
}

#[tokio::test]
async fn the_time_that_a_person_takes_is_not_the_calls() {
    let upstream = old().await;
    let more = "health = { call_timeout = \"1s\", first_byte_timeout = \"1s\", idle_timeout = \"1s\" }";
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), more).await;
    for name in ["tools__form", "tools__elsewhere"] {
        let asked = call(&client, &all_capabilities(), arguments(name)).await;
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let answers = json!({ "elicitation": { "action": "accept" } });
        let done = call(&client, &all_capabilities(), retry(name, &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), json!({ "action": "accept" }), "{}", done.text);
    }
}

#[tokio::test]
async fn a_legacy_client_may_refuse_with_an_error() {
    let refuse = async |client: &Client, session: &str, question: &Value| {
        let error = json!({ "code": -1, "message": "User rejected sampling request" });
        let body = json!({ "jsonrpc": "2.0", "id": question["id"], "error": error });
        assert_eq!(client.post(&headers(session), body.to_string()).await.status, 202);
    };
    // A legacy server is told the very error, and its tool goes on.
    let upstream = old().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), "").await;
    let own = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &own, 1, "tools__sampling").await;
    refuse(&client, &own, &events.next().await).await;
    assert_eq!(told(&events.next().await), json!({ "code": -1, "message": "User rejected sampling request" }));
    // A modern server has no way to be told, so the call ends.
    let modern = Scripted::start(json!([tool("ask")]), |request| {
        let asked = json!({ "q": { "method": "sampling/createMessage", "params": sampling() } });
        result(request, json!({ "resultType": "input_required", "inputRequests": asked }))
    })
    .await;
    let (_issuer, _gateway, client) = start(&modern.url, &may_ask(&EVERYTHING), "").await;
    let own = session(&client, &all_capabilities()).await;
    let mut events = stream(&client, &own, 1, "tools__ask").await;
    refuse(&client, &own, &events.next().await).await;
    let end = events.next().await;
    assert_eq!(end["result"]["_meta"]["dev.bailiwick/reason"], "input_declined", "{end}");
    assert_eq!(modern.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_is_sent_with_the_credential_that_was_granted_for_it() {
    let (upstream, sts) = (old().await, Sts::start(Revocation::Has).await);
    let credential = format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", \
         audience = \"https://tools.example\", use_max = \"2s\" }}",
        sts.url
    );
    let (_issuer, gateway, client) = start(&upstream.url, &may_ask(&EVERYTHING), &credential).await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(asked.result()["inputRequests"]["elicitation"]["method"], "elicitation/create", "{}", asked.text);
    // Longer than the first credential is used.
    tokio::time::sleep(Duration::from_millis(2_500)).await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let done =
        call(&client, &all_capabilities(), retry("tools__form", &json!({}), &asked, json!({ "elicitation": answer })))
            .await;
    assert_eq!(told(done.response()), answer, "{}", done.text);
    let intents = gateway.records("intent");
    let ids: Vec<Value> = intents.iter().map(|intent| intent["credential"]["id"].clone()).collect();
    assert_ne!(ids[0], ids[1], "{ids:?}");
    let jti = |authorization: &str| claims(authorization.strip_prefix("Bearer ").unwrap())["jti"].clone();
    let sent = upstream.saw("tools/call");
    assert_eq!(jti(&sent[0].authorization), ids[0]);
    let answers: Vec<_> = upstream.answers();
    assert_eq!(jti(&answers[0].authorization), ids[1], "what the record names is what was presented");
}

#[tokio::test]
async fn how_far_an_answer_is_is_told_in_numbers_and_where_nothing_hung_on_what_its_client_says() {
    let task = "[templates.task]\ntitle = \"a task\"\ntools = [\"tools/form\"]\nenvironments = [\"development\"]\n\
                agents = [\"assistant\"]\n";
    let opens = "p, role:developer, *, bailiwick/mandate:*, admin, -, allow\n\
                 p, agent:assistant, *, bailiwick/mandate:*, admin, -, allow\n";
    for (condition, under_mandate) in [(false, false), (true, false), (false, true)] {
        let upstream = Old::start(&["form"], |turn: Turn| async move {
            let mut asks = form();
            asks["_meta"] = json!({ "progressToken": "far" });
            let answer = turn.ask("elicitation/create", asks).await;
            turn.done(&answer["result"].to_string());
        })
        .await;
        let rules = may_ask(&["elicit"]) + opens;
        let rules = if condition { rules.replace("call, -, allow", "call, small, allow") } else { rules };
        let issuer = Issuer::start().await;
        let gateway = Setup::new(&issuer)
            .policy(&rules)
            .policy_file("conditions.toml", "[small]\nargument = \"a\"\nat_most = 9\n")
            .policy_file("mandates.toml", task)
            .http_server("tools", &upstream.url, "")
            .start()
            .await;
        let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        let mut own = json!({});
        if under_mandate {
            let opened = client.call_tool("bailiwick__mandate_open", json!({ "template": "task" })).await;
            let handle = &opened.result()["structuredContent"]["handle"];
            assert!(handle.is_string(), "{}", opened.text);
            own["dev.bailiwick/mandate"] = handle.clone();
        }
        let session = session(&client, &json!({ "elicitation": {} })).await;
        let params = json!({ "name": "tools__form", "arguments": { "a": 1 }, "_meta": own });
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let mut events = client.stream(&headers(&session), Some(body.to_string())).await;
        let question = events.next().await;
        let is_told = !condition && !under_mandate;
        assert_eq!(question["method"], "elicitation/create", "{question}");
        let token = question["params"]["_meta"].get("progressToken");
        assert_eq!(token, question.get("id").filter(|_| is_told), "{condition} {under_mandate}: {question}");
        // Told all the same, it reaches nobody.
        let said =
            json!({ "progressToken": question["id"], "progress": 1, "total": 3, "message": "seen", "more": ["seen"] });
        let said = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": said });
        assert_eq!(client.post(&headers(&session), said.to_string()).await.status, 202);
        let heard = upstream.saw("notifications/progress").into_iter().map(|seen| seen.message["params"].clone());
        let numbers = json!({ "progressToken": "far", "progress": 1, "total": 3 });
        assert_eq!(heard.collect::<Vec<_>>(), is_told.then_some(numbers).into_iter().collect::<Vec<_>>());
        respond(&client, &session, &question, json!({ "action": "accept" })).await;
        assert_eq!(told(&events.next().await), json!({ "action": "accept" }));
    }
}
