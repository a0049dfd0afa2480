//! How a client is told that its call waits: the best that it can be told, and never less than a refusal.

use super::*;
use crate::input::{call, retry};
use crate::input_legacy::{respond, session};

const CONFIRM: &str = "[gates.sure]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\n";

fn form() -> Value {
    json!({ "elicitation": { "form": {} } })
}

fn pages() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} } })
}

fn params(arguments: &Value) -> Value {
    json!({ "name": "tools__echo", "arguments": arguments })
}

fn yes() -> Value {
    json!({ "confirm": { "action": "accept", "content": { "confirm": true } } })
}

#[tokio::test]
async fn whoever_can_visit_pages_is_sent_to_the_one_that_says_how_it_stands() {
    let running = start(GATES).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let asked = call(&alice, &pages(), params(&arguments)).await;
    let question = &asked.result()["inputRequests"]["approval"];
    assert_eq!(question["params"]["mode"], "url", "{}", asked.text);
    let url = question["params"]["url"].as_str().unwrap();
    let id = url.rsplit('/').next().unwrap().to_owned();
    assert_eq!(url, format!("{}/approvals/{id}", running.gateway.admin));
    // To have seen the page is no approval.
    let accepted = json!({ "approval": { "action": "accept" } });
    let seen = call(&alice, &pages(), retry("tools__echo", &arguments, &asked, accepted.clone())).await;
    assert_eq!(waits(&seen), id, "and it is not sent there again and again");
    assert_eq!(running.calls(), 0);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let answer = call(&alice, &pages(), retry("tools__echo", &arguments, &asked, accepted.clone())).await;
    assert_eq!(answer.tool_text(), r#"{"n":1}"#, "{}", answer.text);
    let arrived = &running.upstream.calls()[0].message["params"];
    assert!(arrived.get("requestState").is_none() && arrived.get("inputResponses").is_none(), "{arrived}");
    let again = call(&alice, &pages(), retry("tools__echo", &arguments, &asked, accepted)).await;
    assert_eq!((reason(&again).as_str(), running.calls()), ("approval_consumed", 1));
}

#[tokio::test]
async fn whoever_calls_confirms_exactly_what_is_shown_and_once() {
    let running = start(CONFIRM).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "to": "all\u{202e}", "n": 1 }));
    let asked = call(&alice, &form(), params(&arguments)).await;
    let question = &asked.result()["inputRequests"]["confirm"]["params"];
    let message = question["message"].as_str().unwrap();
    assert!(message.contains("echo at tools, in development") && message.contains("<U+202E>"), "{message}");
    assert_eq!(question["requestedSchema"]["required"], json!(["confirm"]));
    let no = json!({ "confirm": { "action": "accept", "content": { "confirm": false } } });
    for no in [no, json!({ "confirm": { "action": "decline" } }), json!({ "confirm": { "action": "cancel" } })] {
        let declined = call(&alice, &form(), retry("tools__echo", &arguments, &asked, no)).await;
        assert_eq!(reason(&declined), "confirmation_declined", "{}", declined.text);
    }
    let silent = call(&alice, &form(), retry("tools__echo", &arguments, &asked, json!({}))).await;
    assert_eq!(silent.result()["resultType"], "input_required", "nothing said is nothing: {}", silent.text);
    let other = call(&alice, &form(), retry("tools__echo", &json!({ "to": "all", "n": 1 }), &asked, yes())).await;
    assert_eq!(other.response()["error"]["data"]["reason"], "input_state_invalid", "{}", other.text);
    let theirs = call(&running.caller("mallory"), &form(), retry("tools__echo", &arguments, &asked, yes())).await;
    assert_eq!(theirs.response()["error"]["data"]["reason"], "input_state_invalid", "{}", theirs.text);
    assert_eq!(running.calls(), 0);
    let done = call(&alice, &form(), retry("tools__echo", &arguments, &asked, yes())).await;
    assert!(done.tool_text().contains("all"), "{}", done.text);
    let again = call(&alice, &form(), retry("tools__echo", &arguments, &asked, yes())).await;
    assert_eq!((reason(&again).as_str(), running.calls()), ("approval_consumed", 1), "{}", again.text);
    let anew = call(&alice, &form(), params(&arguments)).await;
    assert_eq!(anew.result()["resultType"], "input_required", "the next call is confirmed anew");
    let old = call(&alice, &form(), retry("tools__echo", &arguments, &asked, yes())).await;
    assert_eq!(old.result()["resultType"], "input_required", "an answer to the first says nothing to the second");
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_client_that_cannot_ask_its_user_is_refused_and_nothing_is_sent() {
    let running = start(CONFIRM).await;
    let alice = running.caller("alice");
    for capabilities in [json!({}), json!({ "elicitation": { "url": {} } }), json!({ "elicitation": true })] {
        let refused = call(&alice, &capabilities, params(&json!({ "n": 1 }))).await;
        assert_eq!((reason(&refused).as_str(), refused.status), ("confirmation_required", 200), "{}", refused.text);
        assert_eq!(refused.result()["isError"], true);
    }
    let (_, session) = alice.initialize("2025-11-25").await;
    let legacy = alice.legacy(&session, "tools/call", params(&json!({ "n": 1 }))).await;
    assert_eq!(reason(&legacy), "confirmation_required", "{}", legacy.text);
    // To say yes without having been asked is none.
    let mut unasked = params(&json!({ "n": 1 }));
    unasked["inputResponses"] = yes();
    assert_eq!(call(&alice, &form(), unasked).await.result()["resultType"], "input_required");
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn a_confirmation_is_no_approval_and_an_approval_is_no_confirmation() {
    let running = start(&format!("{GATES}{CONFIRM}")).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let asked = call(&alice, &form(), params(&arguments)).await;
    let confirmed = call(&alice, &form(), retry("tools__echo", &arguments, &asked, yes())).await;
    let id = waits(&confirmed);
    let view = running.view(&id, &running.bob()).await;
    assert_eq!(view["missing"], json!(["deploy: 1 of group:test/approvers"]), "{view}");
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_eq!(call(&alice, &form(), params(&arguments)).await.tool_text(), r#"{"n":1}"#);
    assert_eq!(running.calls(), 1);
    // The other way round.
    let asked = call(&alice, &form(), params(&json!({ "n": 2 }))).await;
    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let id = waiting.response()[0]["id"].as_str().unwrap().to_owned();
    let approved = running.approve(&id, &running.bob()).await;
    assert_eq!(approved.response()["missing"], json!(["sure: whoever called has to confirm it"]), "{}", approved.text);
    let again = call(&alice, &form(), params(&json!({ "n": 2 }))).await;
    assert_eq!(again.result()["resultType"], "input_required", "{}", again.text);
    assert_eq!(running.calls(), 1);
    let done = call(&alice, &form(), retry("tools__echo", &json!({ "n": 2 }), &asked, yes())).await;
    assert_eq!((done.tool_text(), running.calls()), (r#"{"n":2}"#, 2));
}

#[tokio::test]
async fn a_legacy_client_confirms_on_the_stream_of_its_own_call() {
    let running = start(CONFIRM).await;
    let alice = running.caller("alice");
    let session = session(&alice, &json!({ "elicitation": {} })).await;
    let begin = async |id: u32| {
        let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": params(&json!({ "n": 1 })) });
        let headers = [("mcp-session-id", session.clone()), ("mcp-protocol-version", "2025-11-25".to_owned())];
        alice.stream(&headers, Some(body.to_string())).await
    };
    let mut stream = begin(1).await;
    let question = stream.next().await;
    assert_eq!(question["method"], "elicitation/create", "{question}");
    respond(&alice, &session, &question, json!({ "action": "decline" })).await;
    let declined = stream.next().await;
    assert!(
        declined["result"]["isError"] == true && declined.to_string().contains("confirmation_declined"),
        "{declined}"
    );
    let mut stream = begin(2).await;
    let question = stream.next().await;
    respond(&alice, &session, &question, yes()["confirm"].clone()).await;
    let done = stream.next().await;
    assert_eq!((&done["result"]["content"][0]["text"], running.calls()), (&json!(r#"{"n":1}"#), 1), "{done}");
}

#[tokio::test]
async fn a_legacy_client_that_can_visit_pages_is_sent_to_the_one_that_says_how_it_stands() {
    let running = start(GATES).await;
    let alice = running.caller("alice");
    let session = session(&alice, &pages()).await;
    let mut stream = {
        let body = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params(&json!({ "n": 1 })) });
        let headers = [("mcp-session-id", session.clone()), ("mcp-protocol-version", "2025-11-25".to_owned())];
        alice.stream(&headers, Some(body.to_string())).await
    };
    let question = stream.next().await;
    assert_eq!(
        (&question["method"], &question["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url")),
        "{question}"
    );
    let url = question["params"]["url"].as_str().unwrap();
    let id = url.rsplit('/').next().unwrap().to_owned();
    assert_eq!(url, format!("{}/approvals/{id}", running.gateway.admin));
    // To have seen the page is no approval.
    respond(&alice, &session, &question, json!({ "action": "accept" })).await;
    let seen = stream.next().await;
    assert!(seen["result"]["isError"] == true && seen.to_string().contains("approval_required"), "{seen}");
    assert_eq!(running.calls(), 0);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let done = alice.legacy(&session, "tools/call", params(&json!({ "n": 1 }))).await;
    assert_eq!((done.tool_text(), running.calls()), (r#"{"n":1}"#, 1), "{}", done.text);
}

#[tokio::test]
async fn a_call_that_was_let_through_goes_on_when_its_server_asks_and_each_round_of_it_once() {
    let upstream = Scripted::start(json!([tool("echo")]), |request| {
        let params = &request["params"];
        if params.get("inputResponses").is_some() {
            return result(request, text(&params["inputResponses"].to_string()));
        }
        let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
        let question = json!({ "mode": "form", "message": "Your name?", "requestedSchema": schema });
        let questions = json!({ "who": { "method": "elicitation/create", "params": question } });
        result(request, json!({ "resultType": "input_required", "inputRequests": questions, "requestState": "theirs" }))
    })
    .await;
    let issuer = Issuer::start().await;
    let rules = format!("{}{RULES}", crate::input::may_ask(&["elicit"]));
    let gateway = setup(&issuer, &upstream, GATES).policy(&rules).start().await;
    let running = Running { issuer, upstream, gateway };
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let id = waits(&call(&alice, &form(), params(&arguments)).await);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let asked = call(&alice, &form(), params(&arguments)).await;
    let name = json!({ "who": { "action": "accept", "content": { "name": "Ada" } } });
    let done = call(&alice, &form(), retry("tools__echo", &arguments, &asked, name.clone())).await;
    assert!(done.tool_text().contains("Ada"), "no second approval is asked for: {}", done.text);
    let again = call(&alice, &form(), retry("tools__echo", &arguments, &asked, name)).await;
    assert_eq!((reason(&again).as_str(), running.calls()), ("approval_consumed", 2), "{}", again.text);
}

#[tokio::test]
async fn clients_of_both_eras_are_told_in_a_result_and_never_with_a_403() {
    let gates = "[gates.all]\nobjects = [\"tools/*\"]\napprovers = [\"group:test/approvers\"]\n";
    let running = start(gates).await;
    let answer = running.call("alice", json!({ "n": 1 })).await;
    waits(&answer);
    let (_, session) = running.caller("alice").initialize("2025-11-25").await;
    let legacy = running.caller("alice").legacy(&session, "tools/call", params(&json!({ "n": 1 }))).await;
    assert_eq!(legacy.result()["structuredContent"]["status"], "approval_required", "{}", legacy.text);
    assert!(legacy.result().get("resultType").is_none() && legacy.status == 200);
    assert_eq!(running.calls(), 0);
}
