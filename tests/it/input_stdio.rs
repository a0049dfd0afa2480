//! Input from the user in the middle of a call, where the server is a child process of either era.

use std::path::Path;

use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason, retry};
use crate::input_legacy::{arguments, respond, session, stream, told};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;

/// A process of the legacy era: `form`, `sampling` and `roots` ask, `hang` is in flight until it is cancelled, `hold`
/// asks and is then.
pub const LEGACY: &str = r#"
import json, sys

METHODS = {"form": "elicitation/create", "sampling": "sampling/createMessage", "roots": "roots/list",
           "hold": "elicitation/create", "tooled": "sampling/createMessage"}
PARAMS = {"form": {"message": "Your name?", "requestedSchema": {"type": "object", "properties": {}}},
          "sampling": {"messages": [], "maxTokens": 5}, "roots": {},
          "tooled": {"messages": [], "maxTokens": 5, "tools": [{"name": "t", "inputSchema": {"type": "object"}}]}}
PARAMS["hold"] = PARAMS["form"]
asked, declared, cancelled, heard = {}, None, 0, []

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def text(id, value):
    say({"id": id, "result": {"content": [{"type": "text", "text": json.dumps(value)}]}})

for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method is None:
        name, call = asked.pop(id)
        if name == "hold":
            heard.append("answered")
        else:
            text(call, message.get("result", message.get("error")))
    elif method == "initialize":
        declared = params["capabilities"]
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                                  "serverInfo": {"name": "child", "version": "1"}}})
    elif method == "tools/list":
        names = list(METHODS) + ["hang", "declared"]
        say({"id": id, "result": {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in names]}})
    elif method == "notifications/cancelled":
        cancelled += 1
        heard.append(params)
    elif method == "notifications/roots/list_changed":
        heard.append("roots")
    elif method == "tools/call":
        name = params["name"]
        if name in METHODS:
            asked["q%d" % id] = (name, id)
            say({"id": "q%d" % id, "method": METHODS[name], "params": PARAMS[name]})
        elif name == "declared":
            text(id, {"declared": declared, "cancelled": cancelled, "heard": heard})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

/// A process of the modern era that asks with `input_required`.
const MODERN: &str = r#"
import json, sys

def say(id, result):
    print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)

KEPT = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
SAMPLING = {"messages": [], "maxTokens": 5}
TOOLS = [{"name": "t", "inputSchema": {"type": "object"}}]
ASKS = {"form": ("elicitation", "elicitation/create",
                 {"message": "Your name?", "requestedSchema": {"type": "object", "properties": {}}}),
        "sampling": ("sampling", "sampling/createMessage", SAMPLING), "roots": ("roots", "roots/list", {}),
        "tooled": ("sampling", "sampling/createMessage", {**SAMPLING, "tools": TOOLS})}
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method == "server/discover":
        say(id, {**KEPT, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}})
    elif method == "tools/list":
        say(id, {**KEPT, "tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ASKS]})
    elif method == "tools/call" and "inputResponses" not in params:
        key, asks, form = ASKS[params["name"]]
        say(id, {"resultType": "input_required", "requestState": "s",
                 "inputRequests": {key: {"method": asks, "params": form}}})
    elif method == "tools/call":
        key = ASKS[params["name"]][0]
        answer = json.dumps(params["inputResponses"][key]) if params["requestState"] == "s" else "lost"
        say(id, {"resultType": "complete", "content": [{"type": "text", "text": answer}]})
    elif id is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": id, "error": {"code": -32601, "message": "no"}}), flush=True)
"#;

async fn start(directory: &Path, script: &str, more: &str) -> (Issuer, Gateway, Client) {
    let issuer = Issuer::start().await;
    let path = directory.join("server.py");
    std::fs::write(&path, script).unwrap();
    let python = crate::support::python();
    let gateway = Setup::new(&issuer)
        .policy(&may_ask(&["elicit", "sample", "roots"]))
        .stdio_server("tools", &[&python, &path.display().to_string()], more)
        .start()
        .await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, gateway, client)
}

#[tokio::test]
async fn clients_of_both_eras_answer_what_processes_of_both_eras_ask() {
    crate::needs_python!();
    for script in [LEGACY, MODERN] {
        let directory = tempfile::tempdir().unwrap();
        let (_issuer, gateway, client) = start(directory.path(), script, "").await;
        let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
        let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
        let question = &asked.result()["inputRequests"]["elicitation"]["params"];
        assert_eq!(question["message"], "[tools] Your name?", "{}", asked.text);
        let answers = json!({ "elicitation": answer });
        let done = call(&client, &all_capabilities(), retry("tools__form", &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), answer, "{}", done.text);

        let session = session(&client, &json!({ "elicitation": {} })).await;
        let mut events = stream(&client, &session, 1, "tools__form").await;
        let question = events.next().await;
        assert_eq!(question["params"]["message"], "[tools] Your name?");
        respond(&client, &session, &question, answer.clone()).await;
        assert_eq!(told(&events.next().await), answer);
        assert_eq!(gateway.records("intent").len(), 4);
    }
}

#[tokio::test]
async fn a_process_of_either_era_asks_the_model_and_the_roots_of_clients_of_both_eras() {
    crate::needs_python!();
    let sampled = json!({ "role": "assistant", "model": "m" });
    for script in [MODERN, LEGACY] {
        let directory = tempfile::tempdir().unwrap();
        let (_issuer, gateway, client) = start(directory.path(), script, "").await;
        let session = session(&client, &all_capabilities()).await;
        for (name, key, method, answer) in [
            ("sampling", "sampling", "sampling/createMessage", sampled.clone()),
            ("tooled", "sampling", "sampling/createMessage", sampled.clone()),
            ("roots", "roots", "roots/list", json!({ "roots": [] })),
        ] {
            let name = format!("tools__{name}");
            let asked = call(&client, &all_capabilities(), arguments(&name)).await;
            let question = &asked.result()["inputRequests"][key];
            assert_eq!(question["method"], method, "{}", asked.text);
            assert_eq!(question["params"]["tools"].is_array(), name == "tools__tooled", "{}", asked.text);
            let answers = json!({ key: answer });
            let done = call(&client, &all_capabilities(), retry(&name, &json!({}), &asked, answers)).await;
            assert_eq!(told(done.response()), answer, "{}", done.text);
            let mut events = stream(&client, &session, 1, &name).await;
            let question = events.next().await;
            assert_eq!(question["method"], method, "{question}");
            respond(&client, &session, &question, answer.clone()).await;
            assert_eq!(told(&events.next().await), answer);
        }
        // What was not declared is not asked.
        let answer = call(&client, &json!({ "roots": {} }), arguments("tools__sampling")).await;
        assert_ne!(answer.result()["resultType"], "input_required", "{}", answer.text);
        // Nor is what a rule denies, whichever era the process speaks.
        gateway.write_policy(&may_ask(&["elicit"]));
        assert!(gateway.command(&["reload"]).status.success());
        let denied = call(&client, &all_capabilities(), arguments("tools__sampling")).await;
        if script == MODERN {
            assert_eq!(reason(&denied), "input_refused", "{}", denied.text);
        } else {
            assert_eq!(told(denied.response())["code"], -32601, "{}", denied.text);
        }
    }
}

#[tokio::test]
async fn a_process_is_told_what_its_client_declared_and_nothing_that_no_rule_allows() {
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, gateway, client) = start(directory.path(), LEGACY, "").await;
    let declared = told(call(&client, &all_capabilities(), arguments("tools__declared")).await.response());
    assert_eq!(
        declared["declared"],
        json!({ "elicitation": { "form": {} }, "sampling": { "tools": {} }, "roots": { "listChanged": true } })
    );
    let other = told(call(&client, &json!({ "roots": {} }), arguments("tools__declared")).await.response());
    assert_eq!(other["declared"], json!({ "roots": {} }), "another process, which was told something else");
    gateway.write_policy(&may_ask(&["elicit"]));
    assert!(gateway.command(&["reload"]).status.success());
    let less = told(call(&client, &all_capabilities(), arguments("tools__declared")).await.response());
    assert_eq!(less["declared"], json!({ "elicitation": { "form": {} } }));
    let denied = call(&client, &all_capabilities(), arguments("tools__sampling")).await;
    assert_eq!(told(denied.response())["code"], -32601, "{}", denied.text);
}

#[tokio::test]
async fn a_process_hears_that_the_roots_of_its_own_client_have_changed_and_why_a_call_was_cancelled() {
    let directory = tempfile::tempdir().unwrap();
    let (issuer, gateway, client) = start(directory.path(), LEGACY, "").await;
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    let declaring = json!({ "roots": { "listChanged": true } });
    let (own, others) = (session(&client, &declaring).await, session(&bob, &declaring).await);
    let seen = async |client: &Client, session: &str| {
        let seen = client.legacy(session, "tools/call", arguments("tools__declared")).await;
        told(seen.response())
    };
    for (client, session) in [(&client, &own), (&bob, &others)] {
        assert_eq!(seen(client, session).await["declared"], declaring);
    }
    let say = async |message: Value| {
        assert_eq!(client.post(&[("mcp-session-id", own.clone())], message.to_string()).await.status, 202);
    };
    say(json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" })).await;
    eventually("the change to be heard", async || seen(&client, &own).await["heard"] == json!(["roots"])).await;
    assert_eq!(seen(&bob, &others).await["heard"], json!([]), "another's process");

    let mut hanging = stream(&client, &own, 31, "tools__hang").await;
    say(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": 31, "reason": "changed my mind", "com.example/odd": 1.5, "_meta": { "x": 1 } } }))
    .await;
    hanging.end().await;
    let heard = async |count: usize| {
        let all = async || seen(&client, &own).await["heard"].as_array().unwrap().clone();
        eventually("the cancellation", async || all().await.len() == count).await;
        let mut cancelled = all().await.pop().unwrap();
        assert!(cancelled.as_object_mut().unwrap().remove("requestId").is_some_and(|id| id.is_i64()));
        cancelled
    };
    // What no rule has seen goes no further: of its words the reason alone, and that is on the record.
    assert_eq!(heard(2).await, json!({ "reason": "changed my mind" }));
    eventually("the end on the record", async || {
        gateway.journal().iter().any(|line| line["result"]["cancelled_with"] == "changed my mind")
    })
    .await;

    // Where a condition has read something about this call, not that either.
    let odd = "[odd]\nargument = \"x\"\nequals = \"odd\"\n";
    std::fs::write(gateway.directory().join("policies/conditions.toml"), odd).unwrap();
    gateway.write_policy(
        &(may_ask(&["elicit", "sample", "roots"]) + "p, role:developer, *, tools/hang, call, odd, deny\n"),
    );
    assert!(gateway.command(&["reload", "--allow-widening"]).status.success());
    let body = json!({ "jsonrpc": "2.0", "id": 32, "method": "tools/call",
        "params": { "name": "tools__hang", "arguments": { "x": "even" } } });
    let mut hanging = client.stream(&[("mcp-session-id", own.clone())], Some(body.to_string())).await;
    say(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled",
        "params": { "requestId": 32, "reason": "a secret of mine" } }))
    .await;
    hanging.end().await;
    assert_eq!(heard(3).await, json!({ "reason": "nobody waits for it any more" }));
    assert!(!gateway.journal().iter().any(|line| line.to_string().contains("a secret of mine")));
}

#[tokio::test]
async fn a_call_that_was_asked_something_is_cancelled_with_its_clients_reason_and_while_it_is_asked_without() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, gateway, client) = start(directory.path(), LEGACY, "").await;
    let session = session(&client, &json!({ "elicitation": {} })).await;
    let heard = async || {
        let seen = client.legacy(&session, "tools/call", arguments("tools__declared")).await;
        told(seen.response())["heard"].as_array().unwrap().clone()
    };
    let mut hears = 0;
    for (id, answers) in [(31, true), (32, false)] {
        let mut events = stream(&client, &session, id, "tools__hold").await;
        let question = events.next().await;
        if answers {
            respond(&client, &session, &question, json!({ "action": "accept", "content": {} })).await;
            hears += 1;
            eventually("the answer at the server", async || heard().await.len() == hears).await;
        }
        let params = json!({ "requestId": id, "reason": format!("wrong branch {id}") });
        let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": params });
        assert_eq!(client.post(&[("mcp-session-id", session.clone())], cancel.to_string()).await.status, 202);
        events.end().await;
        hears += 1;
        eventually("the cancellation at the server", async || heard().await.len() == hears).await;
    }
    let reasons: Vec<_> = heard().await.iter().filter_map(|heard| heard.get("reason").cloned()).collect();
    // Nothing on the record is left to say it where the call had been asked something: that is the end of a leg.
    assert_eq!(reasons, ["wrong branch 31", "nobody waits for it any more"]);
    let ends = || gateway.records("result");
    eventually("the end on the record", async || ends().iter().any(|end| end["result"]["cancelled_with"].is_string()))
        .await;
    let said: Vec<_> = ends().iter().filter_map(|end| end["result"].get("cancelled_with").cloned()).collect();
    assert_eq!(said, ["wrong branch 31"]);
}

#[tokio::test]
async fn whose_question_it_is_is_never_guessed_among_several_calls() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, _gateway, client) = start(directory.path(), LEGACY, "").await;
    let hanging = client.clone();
    let hanging = tokio::spawn(async move { call(&hanging, &all_capabilities(), arguments("tools__hang")).await });
    // Until the other call has arrived the question has only one to belong to.
    eventually("an error instead of a guess", async || {
        let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
        asked.result().get("content").is_some() && told(asked.response())["code"] == -32603
    })
    .await;
    hanging.abort();
}

#[tokio::test]
async fn a_question_that_nobody_answers_leaves_the_next_calls_questions_alone() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, _gateway, client) = start(directory.path(), LEGACY, "").await;
    let open = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(open.result()["resultType"], "input_required", "{}", open.text);
    let roots = json!({ "roots": [{ "uri": "file:///x" }] });
    for _ in 0..2 {
        let asked = call(&client, &all_capabilities(), arguments("tools__roots")).await;
        assert_eq!(asked.result()["inputRequests"]["roots"]["method"], "roots/list", "{}", asked.text);
        let answers = json!({ "roots": roots });
        let done = call(&client, &all_capabilities(), retry("tools__roots", &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), roots, "{}", done.text);
    }
    let answer = json!({ "action": "decline" });
    let answers = json!({ "elicitation": answer });
    let done = call(&client, &all_capabilities(), retry("tools__form", &json!({}), &open, answers)).await;
    assert_eq!(told(done.response()), answer, "{}", done.text);
}

#[tokio::test]
async fn a_shared_process_can_ask_nobody() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, _gateway, client) = start(directory.path(), LEGACY, "isolation = \"shared\"").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(told(asked.response())["code"], -32601, "{}", asked.text);
    let declared = told(call(&client, &all_capabilities(), arguments("tools__declared")).await.response());
    assert_eq!(declared["declared"], json!({}));
}

#[tokio::test]
async fn a_process_is_told_that_nobody_answers() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let (_issuer, _gateway, client) = start(directory.path(), LEGACY, "health = { input_timeout = \"1s\" }").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    eventually("the cancellation", async || {
        let told: Value = told(call(&client, &all_capabilities(), arguments("tools__declared")).await.response());
        told["cancelled"] == 1
    })
    .await;
}
