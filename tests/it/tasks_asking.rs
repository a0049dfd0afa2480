//! Tasks of 2025-11-25 that ask their user, followed by clients that know tasks as the extension has them.

use serde_json::{Value, json};

use crate::input::{self, may_ask};
use crate::input_legacy::{respond, session, stream};
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::tasks::{ask, ask_askable, listen_to, started_process};

/// `once` and `twice` ask so often, over the stream of the result; `mute` says that it asks, and asks nothing. `behind`
/// and `further` ask again when they are looked at next: with `tasks/get`, and with another `tasks/result`.
pub const PROCESS: &str = r#"
import json, sys

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def schema():
    return {"type": "object", "properties": {}}

task = {"taskId": "inner-7f3a", "createdAt": "2026-11-24T10:00:00Z", "lastUpdatedAt": "2026-11-24T10:00:00Z",
        "ttl": 60000, "pollInterval": 1}
name, status, answers, waiting, asked, cancelled = None, "input_required", [], [], 0, False

def go_on():
    """Asks what is not asked yet, or ends."""
    global status, asked
    if name == "mute":
        return
    if len(answers) == {"once": 1, "twice": 2, "behind": 7, "further": 7}[name]:
        status = "completed"
        for id in waiting:
            text = json.dumps({"answers": answers, "asked": asked})
            say({"id": id, "result": {"content": [{"type": "text", "text": text}]}})
        waiting.clear()
    elif asked == len(answers) and waiting:
        asked += 1
        say({"id": "q%d" % asked, "method": "elicitation/create",
             "params": {"message": "Sure %d?" % asked, "requestedSchema": schema(),
                        "_meta": {"io.modelcontextprotocol/related-task": {"taskId": task["taskId"]}}}})

for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    if method is None:
        answers.append(message["result"]["action"])
        if name in ("once", "twice") or len(answers) == 7:
            go_on()
    elif method == "initialize":
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "child", "version": "1"},
             "capabilities": {"tools": {}, "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}}}}})
    elif method == "tools/list":
        say({"id": id, "result": {"tools": [{"name": one, "inputSchema": schema(), "execution":
             {"taskSupport": "required"}} for one in ("once", "twice", "mute", "behind", "further")] + [{"name": "seen", "inputSchema": schema()}]}})
    elif method == "tools/call" and params["name"] == "seen":
        text = json.dumps({"cancelled": cancelled, "waiting": len(waiting)})
        say({"id": id, "result": {"content": [{"type": "text", "text": text}]}})
    elif method == "tools/call":
        name = params["name"]
        say({"id": id, "result": {"task": {**task, "status": status}}})
    elif method == "tasks/get":
        if name == "behind":
            go_on()
        say({"id": id, "result": {**task, "status": status}})
    elif method == "tasks/cancel":
        cancelled, status = True, "cancelled"
        say({"id": id, "result": {**task, "status": status}})
    elif method == "tasks/result":
        waiting.append(id)
        go_on()
    elif method == "notifications/cancelled":
        waiting = [one for one in waiting if one != params["requestId"]]
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

struct Test {
    _issuer: Issuer,
    _directory: tempfile::TempDir,
    gateway: Gateway,
    client: Client,
}

async fn start() -> Test {
    start_with(|setup| setup).await
}

async fn start_with(more: impl FnOnce(Setup) -> Setup) -> Test {
    let started = started_process(PROCESS, |setup| more(setup.policy(&may_ask(&["elicit"]))));
    let (_issuer, _directory, gateway, client) = started.await;
    Test { _issuer, _directory, gateway, client }
}

async fn begin(client: &Client, name: &str) -> String {
    let params = json!({ "name": format!("tools__{name}"), "arguments": {} });
    let answer = ask_askable(client, "tools/call", params).await;
    assert_eq!(answer.result()["resultType"], "task", "{}", answer.text);
    answer.result()["taskId"].as_str().unwrap().to_owned()
}

async fn get(client: &Client, id: &str) -> Answer {
    ask_askable(client, "tasks/get", json!({ "taskId": id })).await
}

async fn update(client: &Client, id: &str, action: &str) -> Answer {
    let answers = json!({ "elicitation": { "action": action, "content": {} } });
    ask_askable(client, "tasks/update", json!({ "taskId": id, "inputResponses": answers })).await
}

fn question(answer: &Answer) -> &str {
    assert_eq!(answer.result()["status"], "input_required", "{}", answer.text);
    answer.result()["inputRequests"]["elicitation"]["params"]["message"].as_str().unwrap()
}

fn told(result: &Value) -> Value {
    serde_json::from_str(result["content"][0]["text"].as_str().unwrap()).unwrap()
}

#[tokio::test]
async fn what_a_task_of_2025_asks_stands_in_the_task_and_its_answers_reach_it() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "twice").await;
    for _ in 0..2 {
        let asked = get(&test.client, &id).await;
        assert_eq!(question(&asked), "[tools] Sure 1?", "{}", asked.text);
        assert!(!asked.text.contains("inner-7f3a") && asked.result().get("requestState").is_none(), "{}", asked.text);
    }
    let other = json!({ "taskId": id, "inputResponses": { "another": {} } });
    assert_eq!(ask_askable(&test.client, "tasks/update", other).await.result()["resultType"], "complete");
    assert_eq!(question(&get(&test.client, &id).await), "[tools] Sure 1?", "that answered something else");
    let taken = update(&test.client, &id, "accept").await;
    assert_eq!(taken.result(), &json!({ "resultType": "complete" }), "{}", taken.text);
    eventually("the second question", async || question(&get(&test.client, &id).await) == "[tools] Sure 2?").await;
    update(&test.client, &id, "decline").await;
    eventually("the end", async || get(&test.client, &id).await.result()["status"] == "completed").await;
    let done = get(&test.client, &id).await;
    let told = told(&done.result()["result"]);
    assert_eq!(told, json!({ "answers": ["accept", "decline"], "asked": 2 }), "each was asked once: {}", done.text);
}

#[tokio::test]
async fn a_listen_hears_what_a_task_of_2025_asks_and_how_it_ends() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "twice").await;
    let (headers, mut body) = listen_to(&[&id]);
    let capabilities = &mut body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"];
    capabilities["elicitation"] = json!({});
    let mut stream = test.client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]), "it is acknowledged");
    for (number, action) in [(1, "accept"), (2, "decline")] {
        let told = stream.next().await;
        assert_eq!(told["method"], "notifications/tasks", "{told}");
        let (task, asked) = (&told["params"], &told["params"]["inputRequests"]["elicitation"]["params"]["message"]);
        assert_eq!((&task["taskId"], &task["status"]), (&json!(id), &json!("input_required")), "{told}");
        assert_eq!(asked, &json!(format!("[tools] Sure {number}?")), "{told}");
        assert!(!told.to_string().contains("inner-7f3a"), "{told}");
        update(&test.client, &id, action).await;
    }
    let mut done = stream.next().await;
    // The first look after an answer may come before the server has understood it.
    while done["params"]["status"] == "working" {
        done = stream.next().await;
    }
    assert_eq!(done["params"]["status"], "completed", "{done}");
    assert_eq!(told(&done["params"]["result"]), json!({ "answers": ["accept", "decline"], "asked": 2 }));
}

#[tokio::test]
async fn a_listen_of_a_client_that_says_nothing_of_questions_ends_no_task_that_asks() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "once").await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = test.client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]), "it is acknowledged");
    // It is looked at once more in the meantime.
    assert_eq!(stream.next_within(std::time::Duration::from_millis(1_500)).await, None, "there is nothing to tell");
    assert_eq!(question(&get(&test.client, &id).await), "[tools] Sure 1?", "it asks still");
}

#[tokio::test]
async fn a_legacy_client_that_knows_no_tasks_is_asked_what_a_task_of_2025_asks() {
    crate::needs_python!();
    let test = start().await;
    let session = session(&test.client, &json!({ "elicitation": {} })).await;
    let mut events = stream(&test.client, &session, 1, "tools__twice").await;
    for number in 1..=2 {
        let asked = events.next().await;
        assert_eq!(asked["params"]["message"], format!("[tools] Sure {number}?"), "{asked}");
        respond(&test.client, &session, &asked, json!({ "action": "accept", "content": {} })).await;
    }
    let done = events.next().await;
    assert_eq!(told(&done["result"]), json!({ "answers": ["accept", "accept"], "asked": 2 }), "{done}");
}

#[tokio::test]
async fn a_legacy_client_that_waits_for_the_result_itself_is_asked_what_its_task_asks() {
    crate::needs_python!();
    let test = start().await;
    let session = session(&test.client, &json!({ "elicitation": {}, "tasks": {} })).await;
    let params = json!({ "name": "tools__once", "arguments": {}, "task": {} });
    let begun = test.client.legacy(&session, "tools/call", params).await;
    let id = begun.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", begun.text)).to_owned();
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tasks/result", "params": { "taskId": id } });
    let headers = [("mcp-session-id", session.clone()), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let mut events = test.client.stream(&headers, Some(body.to_string())).await;
    let asked = events.next().await;
    assert_eq!(asked["params"]["message"], "[tools] Sure 1?", "{asked}");
    respond(&test.client, &session, &asked, json!({ "action": "decline" })).await;
    let done = events.next().await;
    assert_eq!(told(&done["result"]), json!({ "answers": ["decline"], "asked": 1 }), "{done}");
}

/// Seven questions, each of which comes while something else of the task is under way.
async fn asks_at_an_awkward_moment(name: &str) {
    let test = start().await;
    let id = begin(&test.client, name).await;
    for number in 1..=7 {
        let asked = get(&test.client, &id).await;
        assert_eq!(question(&asked), format!("[tools] Sure {number}?"), "{}", asked.text);
        assert_eq!(update(&test.client, &id, "accept").await.result(), &json!({ "resultType": "complete" }));
    }
    eventually("the end", async || get(&test.client, &id).await.result()["status"] == "completed").await;
}

#[tokio::test]
async fn what_a_task_of_2025_asks_while_it_is_looked_at_stands_in_the_task() {
    crate::needs_python!();
    asks_at_an_awkward_moment("behind").await;
}

#[tokio::test]
async fn what_a_task_of_2025_asks_of_one_of_two_who_wait_for_it_stands_in_the_task_at_once() {
    crate::needs_python!();
    asks_at_an_awkward_moment("further").await;
}

#[tokio::test]
async fn a_task_of_2025_that_asks_what_no_rule_allows_is_neither_shown_nor_answered() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "once").await;
    assert_eq!(question(&get(&test.client, &id).await), "[tools] Sure 1?");
    test.gateway.write_policy(DEVELOPERS_MAY);
    assert!(test.gateway.command(&["reload"]).status.success());
    let refused = get(&test.client, &id).await;
    assert!(refused.text.contains("input_refused") && !refused.text.contains("Sure"), "{}", refused.text);
    let refused = update(&test.client, &id, "accept").await;
    assert!(refused.text.contains("input_refused"), "{}", refused.text);
}

#[tokio::test]
async fn a_task_of_2025_that_asks_a_client_that_cannot_be_asked_has_failed() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "once").await;
    let failed = ask(&test.client, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(failed.result()["status"], "failed", "{}", failed.text);
    assert!(!failed.text.contains("Sure"), "{}", failed.text);
}

#[tokio::test]
async fn what_waits_for_an_answer_goes_when_its_task_is_cancelled() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "once").await;
    question(&get(&test.client, &id).await);
    let seen = async || {
        let params = json!({ "name": "tools__seen", "arguments": {} });
        told(ask_askable(&test.client, "tools/call", params).await.result())
    };
    assert_eq!(seen().await, json!({ "cancelled": false, "waiting": 1 }));
    assert_eq!(ask_askable(&test.client, "tasks/cancel", json!({ "taskId": id })).await.status, 200);
    eventually("the end of what waited", async || seen().await == json!({ "cancelled": true, "waiting": 0 })).await;
}

#[tokio::test]
async fn a_task_of_2025_that_says_that_it_asks_and_not_what_is_shown_as_working() {
    crate::needs_python!();
    let test = start().await;
    let id = begin(&test.client, "mute").await;
    let begun = std::time::Instant::now();
    let shown = get(&test.client, &id).await;
    assert!(begun.elapsed() >= bailiwick::limit::TASK_QUESTION_WAIT, "it was waited for");
    assert_eq!(shown.result()["status"], "working", "{}", shown.text);
}

#[tokio::test]
async fn a_call_that_was_confirmed_goes_on_with_what_its_task_of_2025_asks() {
    crate::needs_python!();
    let gate = "[gates.sure]\nobjects = [\"tools/twice\"]\nkind = \"confirm\"\n";
    let test = start_with(|setup| setup.policy_file("gates.toml", gate)).await;
    // The gateway follows the task: this client knows of none.
    let askable = json!({ "elicitation": { "form": {} } });
    let params = json!({ "name": "tools__twice", "arguments": {} });
    let confirm = input::call(&test.client, &askable, params).await;
    let yes = json!({ "confirm": { "action": "accept", "content": { "confirm": true } } });
    let mut answer = input::call(&test.client, &askable, input::retry("tools__twice", &json!({}), &confirm, yes)).await;
    for number in 1..=2 {
        let asked = &answer.result()["inputRequests"]["elicitation"]["params"]["message"];
        assert_eq!(asked, &json!(format!("[tools] Sure {number}?")), "{}", answer.text);
        let given = json!({ "elicitation": { "action": "accept", "content": {} } });
        answer = input::call(&test.client, &askable, input::retry("tools__twice", &json!({}), &answer, given)).await;
    }
    assert_eq!(told(answer.result()), json!({ "answers": ["accept", "accept"], "asked": 2 }), "{}", answer.text);
}
