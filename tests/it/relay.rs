//! What is bound to one replica, and asked for at another: handed on, with both records telling of it, once, and only
//! among replicas.

use std::net::SocketAddr;
use std::process::Command;
use std::sync::Mutex;

use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason, retry};
use crate::input_legacy::{arguments, respond, session, stream, told};
use crate::input_stdio::LEGACY;
use crate::support::client::{Client, Stream};
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::python;
use crate::support::replicas::Replicas;
use crate::support::scripted::Scripted;
use crate::support::talkative::RULES;
use crate::support::{eventually, eventually_within};
use crate::tasks::{Task, ask, begin, experiment, working};

/// A client of each replica, all of the same caller.
fn clients(issuer: &Issuer, replicas: &Replicas) -> Vec<Client> {
    let token = issuer.token("alice", &["developers"], &replicas.resource());
    replicas.all.iter().map(|gateway| gateway.client(&token)).collect()
}

async fn echoing() -> Option<(Issuer, Scripted, Replicas)> {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let replicas = Replicas::start(Setup::new(&issuer).http_server("tools", &upstream.url, ""), 2).await?;
    Some((issuer, upstream, replicas))
}

fn streaming(session: &str) -> [(&'static str, String); 2] {
    [("mcp-session-id", session.to_owned()), ("accept", "text/event-stream".to_owned())]
}

/// A bare request to a replica's listener for others, as `curl` sends it with these files.
fn knock(replicas: &Replicas, address: SocketAddr, files: &[&str], headers: &[String]) -> (bool, String) {
    let url = format!("https://localhost:{}/mcp", address.port());
    let headers = headers.iter().flat_map(|header| ["-H", header.as_str()]);
    let output = Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", "--cacert", "ca.crt", "-X", "DELETE"])
        .args(files)
        .args(headers)
        .arg(&url)
        .current_dir(replicas.place())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn a_legacy_session_is_used_at_every_replica_and_goes_on_where_it_was_begun() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/upstream.py");
    let python = python();
    let setup =
        Setup::new(&issuer).policy(RULES).stdio_server("up", &[&python, script, "modern", "stdio"], "pins = \"off\"");
    let Some(replicas) = Replicas::start(setup, 3).await else { return };
    let clients = clients(&issuer, &replicas);
    eventually("the upstream's lists", async || {
        let answer = clients[0].modern("resources/list", json!({})).await;
        answer.result()["resources"].as_array().is_some_and(|resources| !resources.is_empty())
    })
    .await;
    let (_, session) = clients[0].initialize("2025-11-25").await;
    // The others learn of each other by and by.
    eventually("the first to be known", async || clients[1].legacy(&session, "ping", json!({})).await.status == 200)
        .await;
    let subscribed = clients[1].legacy(&session, "resources/subscribe", json!({ "uri": "test://a" })).await;
    assert_eq!(subscribed.result(), &json!({}), "{}", subscribed.text);
    let mut stream = clients[2].stream(&streaming(&session), None).await;
    let touch = json!({ "name": "up__touch", "arguments": { "uri": "test://a" } });
    let touched = clients[1].legacy(&session, "tools/call", touch).await;
    assert_eq!(touched.tool_text(), "done");
    assert_eq!(stream.next().await["params"]["uri"], "test://a");

    let intent = replicas.all[0].records("intent").pop().unwrap();
    eventually("the hand-over on the record", async || replicas.all[1].records("relay").len() >= 2).await;
    let relay = replicas.all[1].records("relay").pop().unwrap();
    assert_eq!(intent["via"], relay["replica"]);
    assert_eq!(relay["relay"], json!({ "to": intent["replica"], "verb": "POST", "status": 200 }));
    assert_eq!((&relay["subject"], &relay["token"]), (&intent["subject"], &intent["token"]));
    assert!(replicas.all[1].records("intent").is_empty());

    let ended = clients[2].bare(reqwest::Method::DELETE, &[("mcp-session-id", session.clone())]).await;
    assert_eq!(ended.status, 204);
    tokio::time::timeout(std::time::Duration::from_secs(5), stream.end()).await.unwrap();
    for client in &clients {
        assert_eq!(client.legacy(&session, "ping", json!({})).await.status, 404);
    }
}

#[tokio::test]
async fn a_call_that_waits_at_one_replica_goes_on_with_an_answer_that_comes_to_another() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let python = python();
    let more = format!("read = [\"{}\"]", directory.path().display());
    let mut setup = Setup::new(&issuer).policy(&may_ask(&["elicit"]));
    for (id, script) in [("tools", LEGACY), ("jobs", crate::tasks_legacy::MODERN)] {
        let path = directory.path().join(format!("{id}.py"));
        std::fs::write(&path, script).unwrap();
        setup = setup.stdio_server(id, &[&python, path.to_str().unwrap()], &more);
    }
    let Some(mut replicas) = Replicas::start(setup, 2).await else { return };
    let clients = clients(&issuer, &replicas);
    let ask_at = async |client: &Client| call(client, &all_capabilities(), arguments("tools__form")).await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let retried = |asked| retry("tools__form", &json!({}), asked, json!({ "elicitation": answer }));

    let asked = ask_at(&clients[0]).await;
    let mut done = call(&clients[1], &all_capabilities(), retried(&asked)).await;
    for _ in 0..20 {
        // Replicas learn of each other by and by; a state is good until it is used.
        if reason(&done) != "replica_unreachable" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
        done = call(&clients[1], &all_capabilities(), retried(&asked)).await;
    }
    assert_eq!(told(done.response()), answer, "{}", done.text);
    eventually("the hand-over on the record", async || !replicas.all[1].records("relay").is_empty()).await;
    let intents = replicas.all[0].records("intent");
    assert_eq!((intents.len(), &intents[0]["call"]), (2, &intents[1]["call"]));
    assert_eq!((intents[0].get("via"), &intents[1]["via"]), (None, &replicas.all[1].records("relay")[0]["replica"]));

    // Of a replica that was killed nothing is left, and that is what its client is told: of a call that waited there, and
    // of a task of a process there, which no other process is asked for.
    let lists = async || clients[1].tool_names().await.contains(&"jobs__job".to_owned());
    eventually("the tools at the other replica", lists).await;
    let asked = ask_at(&clients[0]).await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    let begun = ask(&clients[0], "tools/call", json!({ "name": "jobs__job", "arguments": {} })).await;
    let task = json!({ "taskId": begun.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", begun.text)) });
    let (_, session) = clients[0].initialize("2025-11-25").await;
    replicas.all[0].signal("KILL");
    replicas.all[0].wait().await;
    let within = 3 * bailiwick::limit::MEMBER_GONE_AFTER;
    eventually_within(within, "the replica to be gone", async || {
        clients[1].legacy(&session, "ping", json!({})).await.status == 404
    })
    .await;
    let done = call(&clients[1], &all_capabilities(), retried(&asked)).await;
    assert_eq!(reason(&done), "replica_lost", "{}", done.text);
    assert!(done.tool_text().contains("it may have acted"), "{}", done.text);
    for method in ["tasks/get", "tasks/cancel"] {
        let about = ask(&clients[1], method, task.clone()).await;
        assert_eq!((about.error_code(), reason(&about)), (-32603, "replica_lost"), "{method}: {}", about.text);
    }
    let lost = async || {
        let failures = replicas.all[1].records("failure");
        failures.iter().filter(|failure| failure.to_string().contains("replica_lost")).count() == 3
    };
    eventually("all of it on the record", lost).await;
}

#[tokio::test]
async fn a_modern_servers_question_is_answered_at_any_replica_and_handed_to_none() {
    let issuer = Issuer::start().await;
    let upstream = crate::input::asking(json!({ "who": crate::input::form() }), Some("inner")).await;
    let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"])).http_server("tools", &upstream.url, "");
    let Some(replicas) = Replicas::start(setup, 2).await else { return };
    let clients = clients(&issuer, &replicas);
    for client in &clients {
        eventually("the tools", async || client.tool_names().await.contains(&"tools__ask".to_owned())).await;
    }
    let asked = call(&clients[0], &all_capabilities(), arguments("tools__ask")).await;
    let answers = json!({ "who": { "action": "accept", "content": { "name": "Ada" } } });
    let again = retry("tools__ask", &json!({}), &asked, answers.clone());
    let done = call(&clients[1], &all_capabilities(), again).await;
    assert_eq!(told(done.response()), json!({ "responses": answers, "state": "inner" }), "{}", done.text);
    eventually("its end on the record", async || replicas.all[1].records("result").len() == 1).await;
    assert_eq!(replicas.all[0].records("intent")[0]["call"], replicas.all[1].records("intent")[0]["call"], "one call");
    assert!(replicas.all.iter().all(|replica| replica.records("relay").is_empty()), "nobody had to be asked for it");
}

#[tokio::test]
async fn a_task_is_asked_for_where_it_was_begun() {
    let issuer = Issuer::start().await;
    let state = Task::new(Mutex::new(working()));
    let upstream = experiment(&state).await;
    let Some(replicas) = Replicas::start(Setup::new(&issuer).http_server("tools", &upstream.url, ""), 2).await else {
        return;
    };
    let clients = clients(&issuer, &replicas);
    let id = begin(&clients[0]).await;
    eventually("the first to be known", async || {
        let working = ask(&clients[1], "tasks/get", json!({ "taskId": id })).await;
        assert_eq!(working.result()["status"], "working", "{}", working.text);
        !replicas.all[1].records("relay").is_empty()
    })
    .await;
    assert!(replicas.all[0].records("intent").iter().any(|intent| intent["via"].is_string()));

    // A legacy client names it in a session of the other replica, which has the session and not the task.
    let (_, session) = clients[1].initialize("2025-11-25").await;
    let relayed = replicas.all[1].records("relay").len();
    let working = clients[1].legacy(&session, "tasks/get", json!({ "taskId": id })).await;
    assert_eq!((working.status, &working.result()["status"]), (200, &json!("working")), "{}", working.text);
    eventually("the hand-over on the record", async || replicas.all[1].records("relay").len() > relayed).await;
    assert_eq!(clients[1].legacy(&session, "ping", json!({})).await.status, 200, "the session goes on");
    // Of a session that has ended nothing is handed on.
    clients[1].bare(reqwest::Method::DELETE, &[("mcp-session-id", session.clone())]).await;
    assert_eq!(clients[1].legacy(&session, "tasks/get", json!({ "taskId": id })).await.status, 404);
}

#[tokio::test]
async fn a_request_that_was_handed_on_is_cancelled_where_it_went() {
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("child.py");
    std::fs::write(&script, crate::tasks_asking::PROCESS).unwrap();
    let (python, script) = (python(), script.display().to_string());
    let more = format!("read = [\"{}\"]", directory.path().display());
    let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"])).stdio_server("tools", &[&python, &script], &more);
    let Some(replicas) = Replicas::start(setup, 2).await else { return };
    let clients = clients(&issuer, &replicas);
    let sessions = [clients[0].initialize("2025-11-25").await.1, clients[1].initialize("2025-11-25").await.1];
    let params = json!({ "name": "tools__mute", "arguments": {}, "task": {} });
    let created = clients[0].legacy(&sessions[0], "tools/call", params).await;
    let id = created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned();
    let about = json!({ "taskId": id });
    eventually("the first to be known", async || {
        clients[1].legacy(&sessions[1], "tasks/get", about.clone()).await.response().get("result").is_some()
    })
    .await;
    let waiting = async || {
        let params = json!({ "name": "tools__seen", "arguments": {} });
        let seen = clients[0].legacy(&sessions[0], "tools/call", params).await;
        serde_json::from_str::<Value>(seen.tool_text()).unwrap()["waiting"].clone()
    };
    let (client, session) = (clients[1].clone(), sessions[1].clone());
    let calling = tokio::spawn(async move { client.legacy(&session, "tasks/result", about).await });
    eventually("the task's result to be waited for", async || waiting().await == 1).await;
    let body = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 7 } });
    let cancelled = clients[1].post(&[("mcp-session-id", sessions[1].clone())], body.to_string()).await;
    assert_eq!(cancelled.status, 202, "{}", cancelled.text);
    eventually("nobody to wait any more", async || waiting().await == 0).await;
    calling.abort();
}

/// The stream of `tasks/result` in a session.
async fn awaited(client: &Client, session: &str, id: &str) -> Stream {
    let body = json!({ "jsonrpc": "2.0", "id": 5, "method": "tasks/result", "params": { "taskId": id } });
    let headers = [("mcp-session-id", session.to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())];
    client.stream(&headers, Some(body.to_string())).await
}

#[tokio::test]
async fn what_is_asked_within_a_request_that_was_handed_on_is_answered_where_it_was_asked() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("child.py");
    std::fs::write(&script, crate::tasks_asking::PROCESS).unwrap();
    let (python, script) = (python(), script.display().to_string());
    let more = format!("read = [\"{}\"]", directory.path().display());
    let gate = "[gates.sure]\nobjects = [\"tools/seen\"]\nkind = \"confirm\"\n";
    let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"])).policy_file("gates.toml", gate);
    let setup = setup.stdio_server("tools", &[&python, &script], &more);
    let Some(replicas) = Replicas::start(setup, 3).await else { return };
    let clients = clients(&issuer, &replicas);
    let declared = json!({ "elicitation": {}, "tasks": {} });
    let sessions = [session(&clients[0], &declared).await, session(&clients[1], &declared).await];
    // A task at the first, asked for in a session of the second, and the third is where most requests come to.
    let params = json!({ "name": "tools__twice", "arguments": {}, "task": {} });
    let begun = clients[0].legacy(&sessions[0], "tools/call", params).await;
    let id = begun.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", begun.text)).to_owned();
    for (client, other) in [(&clients[1], &sessions[0]), (&clients[2], &sessions[1])] {
        eventually("the others to be known", async || client.legacy(other, "ping", json!({})).await.status == 200)
            .await;
    }
    eventually("the tools", async || clients[1].tool_names().await.contains(&"tools__seen".to_owned())).await;
    let mut confirming = stream(&clients[1], &sessions[1], 6, "tools__seen").await;
    let confirm = confirming.next().await;
    let mut events = awaited(&clients[2], &sessions[1], &id).await;
    let greeting = events.block().await;
    let asked = events.next().await;
    assert_eq!(asked["params"]["message"], "[tools] Sure 1?", "{asked}");
    assert_ne!(asked["id"], confirm["id"]);
    // What the server asks looks like what the gateway itself has asked in another call.
    let yes = json!({ "action": "accept", "content": { "confirm": true } });
    respond(&clients[1], &sessions[1], &asked, yes.clone()).await;
    let asked = events.next().await;
    assert_eq!(asked["params"]["message"], "[tools] Sure 2?", "{asked}");
    assert_eq!(confirming.next_within(std::time::Duration::from_millis(500)).await, None, "that is still open");
    // The rest is read on after the connection broke, wherever that comes to.
    drop(events);
    respond(&clients[2], &sessions[1], &asked, json!({ "action": "decline" })).await;
    let last = greeting.lines().find_map(|line| line.strip_prefix("id: ")).unwrap();
    let headers = [("mcp-session-id", sessions[1].clone()), ("last-event-id", last.to_owned())];
    let mut events = clients[2].stream(&headers, None).await;
    let mut said = [events.next().await, events.next().await, events.next().await];
    let done = said[2]["result"].take();
    assert_eq!(told(&json!({ "result": done })), json!({ "answers": ["accept", "decline"], "asked": 2 }), "{said:?}");
    // And the one that is asked at home.
    respond(&clients[2], &sessions[1], &confirm, json!({ "action": "decline" })).await;
    let declined = confirming.next().await;
    assert!(declined.to_string().contains("confirmation_declined"), "{declined}");
    // Another's stream is no stream of this session.
    let headers = [("mcp-session-id", sessions[0].clone()), ("last-event-id", last.to_owned())];
    assert_eq!(clients[0].try_stream(&headers, None).await.unwrap_err().status, 400);
}

/// Tasks that are counted, and told who may see them by nothing but the count.
const COUNTING: &str = r#"
import json, sys

KEPT = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"}
count = 0
for line in sys.stdin:
    message = json.loads(line)
    method, id, params = message.get("method"), message.get("id"), message.get("params", {})
    task = {"createdAt": "2026-11-24T10:00:00Z", "lastUpdatedAt": "2026-11-24T10:00:00Z", "ttlMs": None}
    if method == "server/discover":
        result = {**KEPT, "supportedVersions": ["2026-07-28"], "capabilities":
                  {"tools": {}, "extensions": {"io.modelcontextprotocol/tasks": {}}}}
    elif method == "tools/list":
        result = {**KEPT, "tools": [{"name": "job", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        count += 1
        result = {**task, "taskId": str(count), "resultType": "task", "status": "working"}
    elif method == "tasks/get":
        result = {**task, "taskId": params["taskId"], "resultType": "complete", "status": "working"}
    else:
        result = {"resultType": "complete"}
    if id is not None:
        print(json.dumps({"jsonrpc": "2.0", "id": id, "result": result}), flush=True)
"#;

#[tokio::test]
async fn without_a_way_to_its_replica_no_other_process_is_asked_for_a_task_or_a_call_that_waits() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let directory = tempfile::tempdir().unwrap();
    let python = python();
    let mut setup = Setup::new(&issuer).policy(&may_ask(&["elicit"]));
    for (id, script, more) in [("jobs", COUNTING, "isolation = \"shared\"\n"), ("tools", LEGACY, "")] {
        let path = directory.path().join(format!("{id}.py"));
        std::fs::write(&path, script).unwrap();
        let more = format!("{more}read = [\"{}\"]", directory.path().display());
        setup = setup.stdio_server(id, &[&python, path.to_str().unwrap()], &more);
    }
    let Some(replicas) = Replicas::start_apart(setup, 2).await else { return };
    let ann = clients(&issuer, &replicas);
    let bob = replicas.all[1].client(&issuer.token("bob", &["developers"], &replicas.resource()));
    for client in [&ann[0], &ann[1], &bob] {
        let listed = async || {
            let names = client.tool_names().await;
            ["jobs__job", "tools__form"].iter().all(|name| names.contains(&(*name).to_owned()))
        };
        eventually("the tools", listed).await;
    }
    let job = async |client: &Client| {
        let begun = ask(client, "tools/call", json!({ "name": "jobs__job", "arguments": {} })).await;
        json!({ "taskId": begun.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", begun.text)) })
    };
    // The first of each process: both go by the same id there.
    let (anns, bobs) = (job(&ann[0]).await, job(&bob).await);
    for method in ["tasks/get", "tasks/cancel"] {
        let about = ask(&ann[1], method, anns.clone()).await;
        assert_eq!((about.status, reason(&about)), (503, "replica_unreachable"), "{method}: {}", about.text);
    }
    for (client, task) in [(&ann[0], &anns), (&bob, &bobs)] {
        let about = ask(client, "tasks/get", task.clone()).await;
        assert_eq!(about.result()["status"], "working", "{}", about.text);
    }
    let asked_about = |replica: usize| {
        let intents = replicas.all[replica].records("intent");
        intents
            .iter()
            .filter(|intent| intent["mcp"]["method"].as_str().is_some_and(|name| name.starts_with("tasks/")))
            .count()
    };
    assert_eq!((asked_about(0), asked_about(1)), (1, 1), "nothing but what each has");

    // A call that waits is not over because somebody else cannot answer it.
    let asked = call(&ann[0], &all_capabilities(), arguments("tools__form")).await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let retried = || retry("tools__form", &json!({}), &asked, json!({ "elicitation": answer }));
    let elsewhere = call(&ann[1], &all_capabilities(), retried()).await;
    assert_eq!((elsewhere.status, reason(&elsewhere)), (503, "replica_unreachable"), "{}", elsewhere.text);
    let done = call(&ann[0], &all_capabilities(), retried()).await;
    assert_eq!(told(done.response()), answer, "{}", done.text);
}

#[tokio::test]
async fn a_session_of_a_replica_that_stopped_is_gone_and_one_that_does_not_answer_is_asked_for_again() {
    let Some((issuer, _upstream, mut replicas)) = echoing().await else { return };
    let clients = clients(&issuer, &replicas);
    let (_, session) = clients[0].initialize("2025-11-25").await;
    let ping = async || clients[1].legacy(&session, "ping", json!({})).await;
    eventually("the first to be known", async || ping().await.status == 200).await;
    replicas.all[0].signal("KILL");
    replicas.all[0].wait().await;
    let answer = ping().await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("replica_unreachable"), "{}", answer.text);
    let killed = std::time::Instant::now();
    while ping().await.status != 404 {
        assert!(killed.elapsed() < bailiwick::limit::MEMBER_GONE_AFTER + 3 * bailiwick::limit::HEARTBEAT_INTERVAL);
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
    replicas.all[0].launch().await;
    eventually("the replica to be back, with its sessions", async || ping().await.status == 200).await;
    replicas.all[0].stop().await;
    let answer = ping().await;
    assert!([404, 503].contains(&answer.status), "{}", answer.text);
    eventually("the replica to be gone", async || ping().await.status == 404).await;
}

#[tokio::test]
async fn only_replicas_are_listened_to_and_what_they_hand_on_goes_no_further() {
    let Some((issuer, _upstream, replicas)) = echoing().await else { return };
    let clients = clients(&issuer, &replicas);
    let (_, session) = clients[0].initialize("2025-11-25").await;
    eventually("the first to be known", async || clients[1].legacy(&session, "ping", json!({})).await.status == 200)
        .await;
    let openssl = |arguments: &[&str]| {
        assert!(
            Command::new("openssl").args(arguments).current_dir(replicas.place()).output().unwrap().status.success()
        );
    };
    openssl(&[
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:prime256v1",
        "-nodes",
        "-subj",
        "/CN=x",
        "-keyout",
        "stranger.key",
        "-out",
        "stranger.crt",
    ]);
    let token = clients[0].token.clone().unwrap();
    let other = replicas.all[1].records("start")[0]["replica"].as_str().unwrap().to_owned();
    let headers = [
        format!("authorization: Bearer {token}"),
        format!("mcp-session-id: {session}"),
        format!("bailiwick-relayed-by: {other}"),
        "bailiwick-relayed-for: 192.0.2.7".to_owned(),
    ];
    for files in [&[][..], &["--cert", "stranger.crt", "--key", "stranger.key"]] {
        let (answered, text) = knock(&replicas, replicas.clusters[0], files, &headers);
        assert!(!answered, "{files:?}: {text}");
    }
    let replica = ["--cert", "replica.crt", "--key", "replica.key"];
    // The second does not have it, and does not look any further.
    let (_, text) = knock(&replicas, replicas.clusters[1], &replica, &headers);
    assert!(text.ends_with("\n404"), "{text}");
    let relays = replicas.all[1].records("relay").len();
    // Not even a replica is believed without the token.
    let (_, text) = knock(&replicas, replicas.clusters[0], &replica, &headers[1..]);
    assert!(text.ends_with("\n401"), "{text}");
    let (_, text) = knock(&replicas, replicas.clusters[0], &replica, &headers[..2]);
    assert!(text.contains("only replicas connect here"), "{text}");
    let (_, text) = knock(&replicas, replicas.clusters[0], &replica, &headers);
    assert!(text.ends_with("\n204"), "{text}");
    assert_eq!(replicas.all[1].records("relay").len(), relays);
    // Whoever is no replica says nothing with these headers.
    let forged =
        [("mcp-session-id", session), ("bailiwick-relayed-by", other), ("bailiwick-relayed-for", "x".to_owned())];
    let answer: Value = json!(clients[0].bare(reqwest::Method::DELETE, &forged).await.status);
    assert_eq!(answer, 404);
}
