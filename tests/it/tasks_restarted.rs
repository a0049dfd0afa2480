//! Tasks of processes that number them anew with every start: what one process made is never looked for in another.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::input::may_ask;
use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::python;
use crate::support::replicas::Replicas;
use crate::tasks::{ask, ask_askable, listen_to};

/// A process whose tasks are `1`, `2` and so on. `job` becomes one, which ends with the text that it was given once it was
/// looked at so often; `die` ends the process, and `seen` says what was asked about its tasks.
const PROCESS: &str = r#"
import json, os, signal, sys

MODERN = False
PLAIN = {"resultType": "complete"} if MODERN else {}
KEPT = {**PLAIN, "ttlMs": 0, "cacheScope": "private"} if MODERN else {}
tasks, asked = [], []

def say(message):
    print(json.dumps({"jsonrpc": "2.0", **message}), flush=True)

def text(value):
    return {**PLAIN, "content": [{"type": "text", "text": value}]}

def task(named):
    ttl, pause = ("ttlMs", "pollIntervalMs") if MODERN else ("ttl", "pollInterval")
    status = "working" if tasks[int(named) - 1].get("looks", 0) > asked.count("tasks/get") else "completed"
    return {"taskId": named, "status": status, "statusMessage": "half way", "createdAt": "2026-11-28T10:00:00Z",
            "lastUpdatedAt": "2026-11-28T10:00:00Z", ttl: None, pause: 1}

for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    named = params.get("taskId", "")
    known = named.isdecimal() and 0 < int(named) <= len(tasks)
    if method == "server/discover" and MODERN:
        say({"id": id, "result": {**KEPT, "supportedVersions": ["2026-07-28"], "capabilities":
             {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}}})
    elif method == "initialize" and not MODERN:
        say({"id": id, "result": {"protocolVersion": "2025-11-25", "serverInfo": {"name": "child", "version": "1"},
             "capabilities": {"tools": {}, "tasks": {"cancel": {}, "requests": {"tools": {"call": {}}}}}}})
    elif method == "tools/list":
        tools = [{"name": "job", "execution": {"taskSupport": "required"}}, {"name": "die"}, {"name": "seen"}]
        say({"id": id, "result": {**KEPT, "tools": [{**tool, "inputSchema": {"type": "object"}} for tool in tools]}})
    elif method == "tools/call" and params["name"] == "die":
        os.kill(os.getpid(), signal.SIGKILL)
    elif method == "tools/call" and params["name"] == "seen":
        say({"id": id, "result": text(json.dumps(asked))})
    elif method == "tools/call":
        tasks.append(params["arguments"])
        made = {**task(str(len(tasks))), "status": "working"}
        say({"id": id, "result": {**made, "resultType": "task"} if MODERN else {"task": made}})
    elif method.startswith("tasks/") and known:
        asked.append(method)
        result = {**task(named), **PLAIN}
        if method == "tasks/get" and MODERN and result["status"] == "completed":
            result["result"] = text(tasks[int(named) - 1]["says"])
        elif method == "tasks/result":
            result = text(tasks[int(named) - 1]["says"])
        elif method != "tasks/get":
            result = PLAIN if MODERN else {**result, "status": "cancelled"}
        say({"id": id, "result": result})
    elif method.startswith("tasks/"):
        asked.append(method)
        say({"id": id, "error": {"code": -32602, "message": "Task not found"}})
    elif id is not None:
        say({"id": id, "error": {"code": -32601, "message": "method not found"}})
"#;

/// The process of that era, in a directory of its own, as a server's command and what else its table says.
pub fn process(modern: bool, more: &str) -> (tempfile::TempDir, [String; 2], String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.py");
    let era = if modern { "MODERN = True" } else { "MODERN = False" };
    std::fs::write(&path, PROCESS.replace("MODERN = False", era)).unwrap();
    let more = format!("read = [\"{}\"]\n{more}", directory.path().display());
    let command = [python(), path.display().to_string()];
    (directory, command, more)
}

struct Test {
    issuer: Issuer,
    _directory: tempfile::TempDir,
    gateway: Gateway,
}

impl Test {
    async fn start(modern: bool, more: &str) -> Self {
        let issuer = Issuer::start().await;
        let (_directory, [python, path], more) = process(modern, more);
        let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"]));
        let gateway = setup.stdio_server("tools", &[&python, &path], &more).start().await;
        let test = Self { issuer, _directory, gateway };
        let client = test.client("alice");
        eventually("the tools of the process", async || client.tool_names().await.contains(&"tools__job".to_owned()))
            .await;
        test
    }

    fn client(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &["developers"], &self.gateway.resource()))
    }
}

/// The id of a task that ends with this text; a process that has just ended is started again meanwhile.
async fn begin(client: &Client, says: &str) -> String {
    let begun = Mutex::new(None);
    eventually("a task", async || {
        let answer = ask(client, "tools/call", json!({ "name": "tools__job", "arguments": { "says": says } })).await;
        let id = answer.response()["result"]["taskId"].as_str().map(str::to_owned);
        let is_there = id.is_some();
        *begun.lock().unwrap() = id;
        is_there
    })
    .await;
    begun.into_inner().unwrap().unwrap()
}

async fn get(client: &Client, id: &str) -> Answer {
    ask(client, "tasks/get", json!({ "taskId": id })).await
}

fn said(answer: &Answer) -> &str {
    answer.result()["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("{}", answer.text))
}

async fn die(client: &Client) {
    let answer = client.call_tool("tools__die", json!({})).await;
    assert!(answer.tool_text().contains("upstream_closed"), "{}", answer.text);
}

/// What the process of whoever asks was asked about tasks.
async fn seen(client: &Client) -> Value {
    let seen = Mutex::new(None);
    eventually("the process", async || {
        let answer = client.call_tool("tools__seen", json!({})).await;
        let told: Option<Value> = serde_json::from_str(answer.tool_text()).ok();
        let is_there = told.is_some();
        *seen.lock().unwrap() = told;
        is_there
    })
    .await;
    seen.into_inner().unwrap().unwrap()
}

async fn is_unknown(client: &Client, id: &str) {
    for method in ["tasks/get", "tasks/update", "tasks/cancel"] {
        let params = |id: &str| json!({ "taskId": id, "inputResponses": {} });
        let unknown = ask(client, method, params("no-such-task")).await;
        assert_eq!((unknown.status, unknown.error_code()), (200, -32602), "{}", unknown.text);
        assert_eq!(ask(client, method, params(id)).await.text, unknown.text, "{method}");
    }
}

#[tokio::test]
async fn a_task_of_a_process_that_has_ended_is_unknown_and_never_the_next_ones_of_the_same_number() {
    crate::needs_python!();
    for modern in [true, false] {
        for isolation in ["shared", "principal"] {
            let test = Test::start(modern, &format!("isolation = \"{isolation}\"")).await;
            let [alice, bob] = ["alice", "bob"].map(|user| test.client(user));
            let bobs = begin(&bob, "bob's first").await;
            let alices = begin(&alice, "alice's first").await;
            assert_eq!(said(&get(&alice, &alices).await), "alice's first");
            die(&alice).await;
            let bobs_next = begin(&bob, "bob's next").await;
            let alices_next = begin(&alice, "alice's next").await;
            is_unknown(&alice, &alices).await;
            let (headers, body) = listen_to(&[&alices]);
            let mut listening = alice.stream(&headers, Some(body.to_string())).await;
            let agreed = listening.next().await["params"]["notifications"].clone();
            assert!(agreed.get("taskIds").is_none_or(|ids| *ids == json!([])), "{agreed}");
            drop(listening);
            assert_eq!(seen(&alice).await, json!([]), "{modern} {isolation}: no other process was asked");
            assert_eq!(said(&get(&alice, &alices_next).await), "alice's next");
            assert_eq!(said(&get(&bob, &bobs_next).await), "bob's next");
            if isolation == "shared" {
                is_unknown(&bob, &bobs).await;
            } else {
                assert_eq!(said(&get(&bob, &bobs).await), "bob's first", "his process is the same one");
            }
        }
    }
}

#[tokio::test]
async fn a_legacy_client_has_no_task_of_a_process_that_has_ended_and_it_is_not_on_the_list() {
    crate::needs_python!();
    let test = Test::start(false, "isolation = \"shared\"").await;
    let [alice, bob] = ["alice", "bob"].map(|user| test.client(user));
    let (_, session) = alice.initialize("2025-11-25").await;
    let own = async |says: &str| {
        let params = json!({ "name": "tools__job", "arguments": { "says": says }, "task": {} });
        let created = alice.legacy(&session, "tools/call", params).await;
        created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned()
    };
    let listed = async || {
        let listed = alice.legacy(&session, "tasks/list", json!({})).await;
        let tasks = listed.result()["tasks"].as_array().unwrap().clone();
        tasks.into_iter().map(|task| task["taskId"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let first = own("alice's first").await;
    assert_eq!(listed().await, std::slice::from_ref(&first));
    die(&alice).await;
    begin(&bob, "bob's").await;
    for method in ["tasks/get", "tasks/result", "tasks/cancel"] {
        let unknown = alice.legacy(&session, method, json!({ "taskId": "none" })).await;
        let gone = alice.legacy(&session, method, json!({ "taskId": first })).await;
        assert_eq!((gone.error_code(), &gone.text), (-32602, &unknown.text), "{method}");
    }
    assert!(listed().await.is_empty());
    assert_eq!(seen(&bob).await, json!([]));
    let second = own("alice's second").await;
    assert_eq!(listed().await, std::slice::from_ref(&second));
    let result = alice.legacy(&session, "tasks/result", json!({ "taskId": second })).await;
    assert_eq!(result.tool_text(), "alice's second");
}

#[tokio::test]
async fn a_task_that_is_followed_ends_with_its_process_and_no_other_one_is_asked() {
    crate::needs_python!();
    for modern in [true, false] {
        let test = Test::start(modern, "isolation = \"shared\"").await;
        let [alice, bob] = ["alice", "bob"].map(|user| test.client(user));
        let (_, session) = alice.initialize("2025-11-25").await;
        let params = json!({ "name": "tools__job", "arguments": { "says": "alice's", "looks": 1_000 } });
        let calling = tokio::spawn(async move { alice.legacy(&session, "tools/call", params).await });
        eventually("the task to be followed", async || seen(&bob).await != json!([])).await;
        die(&bob).await;
        begin(&bob, "bob's").await;
        let answer = calling.await.unwrap();
        assert!(answer.tool_text().contains("upstream_closed"), "{modern}: {}", answer.text);
        assert!(!answer.text.contains("bob's"), "{}", answer.text);
        assert_eq!(seen(&bob).await, json!([]), "{modern}: neither asked about nor cancelled");
    }
}

#[tokio::test]
async fn a_task_of_a_process_is_unknown_once_the_gateway_was_started_anew() {
    crate::needs_python!();
    let mut test = Test::start(true, "isolation = \"shared\"").await;
    let alices = begin(&test.client("alice"), "alice's").await;
    assert!(test.gateway.stop().await.success());
    test.gateway.launch().await;
    let [alice, bob] = ["alice", "bob"].map(|user| test.client(user));
    begin(&bob, "bob's").await;
    is_unknown(&alice, &alices).await;
    assert_eq!(seen(&bob).await, json!([]));
}

#[tokio::test]
async fn a_task_is_asked_for_in_the_process_that_has_it_whatever_its_client_declares_now() {
    crate::needs_python!();
    let test = Test::start(false, "").await;
    let alice = test.client("alice");
    let id = begin(&alice, "alice's").await;
    // Processes of the legacy era are kept apart by what was declared to them; the other one has made a task as well.
    let params = json!({ "name": "tools__job", "arguments": { "says": "the other's" } });
    let other = ask_askable(&alice, "tools/call", params).await.result()["taskId"].as_str().unwrap().to_owned();
    let about = async |id: &str| ask_askable(&alice, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!(said(&about(&id).await), "alice's");
    assert_eq!(said(&about(&other).await), "the other's");
    assert_eq!(said(&get(&alice, &other).await), "the other's");
}

#[tokio::test]
async fn a_task_of_a_process_that_has_ended_is_unknown_at_every_replica() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let (_directory, [python, path], more) = process(true, "isolation = \"shared\"");
    let setup = Setup::new(&issuer).stdio_server("tools", &[&python, &path], &more);
    let Some(replicas) = Replicas::start(setup, 2).await else { return };
    let client =
        |at: usize, user: &str| replicas.all[at].client(&issuer.token(user, &["developers"], &replicas.resource()));
    let (alice, alice_elsewhere, bob) = (client(0, "alice"), client(1, "alice"), client(0, "bob"));
    let alices = begin(&alice, "alice's").await;
    eventually("the first to be known", async || {
        get(&alice_elsewhere, &alices).await.response()["result"]["result"].is_object()
    })
    .await;
    die(&alice).await;
    begin(&bob, "bob's").await;
    let relayed = replicas.all[1].records("relay").len();
    is_unknown(&alice_elsewhere, &alices).await;
    is_unknown(&alice, &alices).await;
    eventually("it to be handed on", async || replicas.all[1].records("relay").len() > relayed).await;
    assert_eq!(seen(&bob).await, json!([]));
}
