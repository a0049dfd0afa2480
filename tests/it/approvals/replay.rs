//! One yes is one call: states of questions that were asked before it was used, and what clients send that nobody asked.

use super::*;
use crate::accounts::{Browser, OAUTH};
use crate::input::{call, may_ask, retry};
use crate::support::door::Person;
use crate::support::linked::Linked;

const CONFIRM: &str = "[gates.sure]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\n";

fn form() -> Value {
    json!({ "elicitation": { "form": {}, "url": {} } })
}

fn params(arguments: &Value) -> Value {
    json!({ "name": "tools__echo", "arguments": arguments })
}

fn yes() -> Value {
    json!({ "confirm": { "action": "accept", "content": { "confirm": true } } })
}

/// Three states of one call's question, the later ones because nothing was answered to the earlier.
async fn asked(alice: &Client, arguments: &Value) -> [Answer; 3] {
    let first = call(alice, &form(), params(arguments)).await;
    let second = call(alice, &form(), retry("tools__echo", arguments, &first, json!({}))).await;
    let third = call(alice, &form(), retry("tools__echo", arguments, &second, json!({}))).await;
    [first, second, third]
}

#[tokio::test]
async fn one_confirmation_is_one_call_with_however_many_states_it_was_asked_for() {
    let running = start(CONFIRM).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let [first, second, third] = asked(&alice, &arguments).await;
    let done = call(&alice, &form(), retry("tools__echo", &arguments, &first, yes())).await;
    assert_eq!(done.tool_text(), r#"{"n":1}"#, "{}", done.text);
    for state in [&first, &second, &third] {
        for said in [json!({}), yes()] {
            let again = call(&alice, &form(), retry("tools__echo", &arguments, state, said)).await;
            assert_eq!(reason(&again), "approval_consumed", "{}", again.text);
        }
    }
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn what_somebody_approved_is_not_made_again_although_its_server_went_away() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("echo")]), |_| crate::support::scripted::gone()).await;
    let gateway = setup(&issuer, &upstream, GATES).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let answer = running.call("alice", json!({ "n": 1 })).await;
    assert_eq!((reason(&answer).as_str(), running.calls()), ("upstream_closed", 1), "it is marked: {}", answer.text);
}

#[tokio::test]
async fn what_somebody_approved_is_one_call_where_it_was_confirmed_as_well() {
    let running = start(&format!("{GATES}{CONFIRM}")).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let [first, second, third] = asked(&alice, &arguments).await;
    let page = call(&alice, &form(), retry("tools__echo", &arguments, &first, yes())).await;
    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let id = waiting.response()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let done = call(&alice, &form(), retry("tools__echo", &arguments, &first, yes())).await;
    assert_eq!(done.tool_text(), r#"{"n":1}"#, "{}", done.text);
    for state in [&first, &second, &third, &page] {
        let again = call(&alice, &form(), retry("tools__echo", &arguments, state, yes())).await;
        assert_eq!(reason(&again), "approval_consumed", "{}", again.text);
    }
    assert_eq!(running.calls(), 1);
}

/// A server that asks `question` unless something was answered, and allows that it asks.
async fn asking(gates: &str, question: &'static str) -> Running {
    let upstream = Scripted::start(json!([tool("echo")]), move |request| {
        let params = &request["params"];
        if params.get("inputResponses").is_some() {
            return result(request, text(&params["inputResponses"].to_string()));
        }
        let schema = json!({ "type": "object", "properties": { "confirm": { "type": "boolean" } } });
        let form = json!({ "mode": "form", "message": "Delete all?", "requestedSchema": schema });
        let questions = json!({ question: { "method": "elicitation/create", "params": form } });
        result(request, json!({ "resultType": "input_required", "inputRequests": questions, "requestState": "theirs" }))
    })
    .await;
    let issuer = Issuer::start().await;
    let rules = format!("{}{RULES}", may_ask(&["elicit"]));
    let gateway = setup(&issuer, &upstream, gates).policy(&rules).start().await;
    Running { issuer, upstream, gateway }
}

#[tokio::test]
async fn a_yes_to_the_gateway_is_no_answer_to_the_server() {
    let running = asking(CONFIRM, "confirm").await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let ours = call(&alice, &form(), params(&arguments)).await;
    let theirs = call(&alice, &form(), retry("tools__echo", &arguments, &ours, yes())).await;
    let question = &theirs.result()["inputRequests"]["confirm"]["params"];
    assert_eq!(question["message"], "[tools] Delete all?", "its user is asked: {}", theirs.text);
    let arrived = &running.upstream.calls()[0].message["params"];
    assert!(arrived.get("inputResponses").is_none() && arrived.get("requestState").is_none(), "{arrived}");
    let no = json!({ "confirm": { "action": "decline" } });
    let done = call(&alice, &form(), retry("tools__echo", &arguments, &theirs, no)).await;
    assert!(done.tool_text().contains("decline"), "{}", done.text);
    let again = call(&alice, &form(), retry("tools__echo", &arguments, &theirs, yes())).await;
    assert_eq!((reason(&again).as_str(), running.calls()), ("approval_consumed", 2), "{}", again.text);
}

#[tokio::test]
async fn what_a_client_answers_beforehand_is_no_part_of_what_was_approved() {
    let running = asking(GATES, "target").await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let plain = json!({ "elicitation": { "form": {} } });
    let beforehand = |target: &str| {
        let mut params = params(&arguments);
        params["inputResponses"] = json!({ "target": { "action": "accept", "content": { "to": target } } });
        params
    };
    let id = waits(&call(&alice, &plain, beforehand("staging")).await);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let asked = call(&alice, &plain, beforehand("production")).await;
    assert_eq!(asked.result()["resultType"], "input_required", "its server asks: {}", asked.text);
    assert!(!running.upstream.calls()[0].text.contains("production"));
}

#[tokio::test]
async fn one_confirmation_at_the_same_moment_as_others_is_one_call() {
    let running = start(CONFIRM).await;
    let (alice, arguments) = (running.caller("alice"), json!({ "n": 1 }));
    let asked = asked(&alice, &arguments).await;
    let all = (0..12).map(|number| {
        let said = if number % 3 == 0 { json!({}) } else { yes() };
        let (alice, params) = (alice.clone(), retry("tools__echo", &arguments, &asked[number % 3], said));
        tokio::spawn(async move { call(&alice, &form(), params).await })
    });
    let mut done = 0;
    for answer in all.collect::<Vec<_>>() {
        let answer = answer.await.unwrap();
        if answer.result()["resultType"] == "complete" && answer.result()["isError"] != true {
            done += 1;
        }
    }
    assert_eq!((done, running.calls()), (1, 1));
}

#[tokio::test]
async fn what_was_approved_is_one_call_where_an_account_was_linked_on_the_way() {
    let (issuer, service, upstream) = (Issuer::start().await, Linked::start().await, upstream().await);
    let gates = "[gates.read]\nobjects = [\"notes/whoami\"]\napprovers = [\"group:test/approvers\"]\n";
    let setup = setup(&issuer, &upstream, gates).issuer_lines("link_client_id = \"test-link\"\n");
    let gateway = setup.http_server("notes", &service.url(), OAUTH).start().await;
    let running = Running { issuer, upstream, gateway };
    let (alice, arguments) = (running.caller("alice"), json!({}));
    running.issuer.seat(vec![Person::new("alice", &["developers"])]);
    let links = async |address: &str| {
        let mut browser = Browser::default();
        assert_eq!(browser.get(address).await.status, 200);
        let mut page = browser.follow(&format!("{address}/sign-in")).await;
        if let Some(go) = page.button() {
            page = browser.follow(&go).await;
        }
        assert!(page.text.contains("is linked"), "{}", page.text);
    };
    // What a server lists is known once somebody's account is linked; then it is gone again.
    let told = alice.call_tool("notes__link_account", json!({})).await;
    links(told.tool_text().split_whitespace().find(|word| word.contains("/link/")).unwrap()).await;
    waits(&alice.call_tool("notes__whoami", json!({ "first": true })).await);
    let removed = running.gateway.command(&["vault", "revoke", "user:test/alice", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    let begin = json!({ "name": "notes__whoami", "arguments": arguments });
    let link = call(&alice, &form(), begin).await;
    let address = link.result()["inputRequests"]["bailiwick-link"]["params"]["url"].as_str();
    links(address.unwrap_or_else(|| panic!("{}", link.text))).await;
    let linked = json!({ "bailiwick-link": { "action": "accept" } });
    let page = call(&alice, &form(), retry("notes__whoami", &arguments, &link, linked.clone())).await;
    let url = page.result()["inputRequests"]["approval"]["params"]["url"].as_str();
    let id = url.unwrap_or_else(|| panic!("{}", page.text)).rsplit('/').next().unwrap().to_owned();
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let done = call(&alice, &form(), retry("notes__whoami", &arguments, &link, linked.clone())).await;
    assert!(done.result()["isError"] != true, "{}", done.text);
    let seen = json!({ "approval": { "action": "accept" } });
    for (state, said) in [(&page, seen), (&link, linked)] {
        let again = call(&alice, &form(), retry("notes__whoami", &arguments, state, said)).await;
        assert_eq!(reason(&again), "approval_consumed", "{}", again.text);
    }
    assert_eq!(service.state().called_as.len(), 1);
}
