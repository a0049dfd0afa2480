//! Upstreams that die and come back while they are called: no call hangs, none is lost from the record, and nobody
//! has to help.

use std::collections::BTreeMap;
use std::io::BufRead as _;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde_json::{Value, json};

use crate::stdio::marked;
use crate::support::client::Client;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::python;
use crate::support::talkative::RULES;
use crate::support::{eventually, eventually_within};

const SCRIPT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/support/upstream.py");
const CLIENTS: usize = 8;
/// Longer than any time-out of these servers: what takes longer hangs.
const HANGS: Duration = Duration::from_secs(12);
/// More than the pause before a process is started that ended again and again, and the start of one for each client.
const PAUSES: Duration = Duration::from_secs(45);

/// A server that can be killed and started again at the same place.
enum Up {
    Http { era: &'static str, port: u16, child: Child },
    Stdio { mark: String },
}

impl Up {
    fn http(era: &'static str, port: u16) -> Self {
        let mut child = Command::new(python())
            .args([SCRIPT, era, "http", &format!("port={port}")])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        std::io::BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Self::Http { era, port: line.trim().parse().unwrap_or(port), child }
    }

    /// Ends it without a word, and starts it again a little later; a process is started by the gateway.
    async fn restart(&mut self) {
        match self {
            Self::Http { era, port, child } => {
                let (era, port) = (*era, *port);
                child.kill().unwrap();
                child.wait().unwrap();
                tokio::time::sleep(Duration::from_millis(400)).await;
                *self = Self::http(era, port);
            }
            Self::Stdio { mark } => {
                for process in marked(mark) {
                    let cmdline = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
                    if !cmdline.contains("supervise") {
                        let _ =
                            Command::new("kill").args(["-KILL", &process.to_string()]).stderr(Stdio::null()).status();
                    }
                }
            }
        }
    }
}

impl Drop for Up {
    fn drop(&mut self) {
        if let Self::Http { child, .. } = self {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// How each call ended: well, or with the reason that its client was told.
async fn load(client: Client, stop: Arc<AtomicBool>) -> Vec<String> {
    let mut ends = Vec::new();
    while !stop.load(Ordering::SeqCst) {
        let call = client.call_tool("up__touch", json!({ "uri": "test://a", "number": ends.len() }));
        let answer = tokio::time::timeout(HANGS, call).await.expect("no call hangs");
        let told = &answer.response()["result"]["_meta"]["dev.bailiwick/reason"];
        let told = told.as_str().or_else(|| answer.response()["error"]["data"]["reason"].as_str());
        let well = || answer.result()["content"][0]["text"] == "done" && answer.result().get("isError").is_none();
        assert!(told.is_some() || well(), "neither done nor a reason: {}", answer.text);
        ends.push(told.unwrap_or("done").to_owned());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    ends
}

/// The outcome of every call is on the record, and of each only one.
fn recorded(journal: &[Value]) -> BTreeMap<String, usize> {
    let mut open = BTreeMap::new();
    let mut ends = BTreeMap::new();
    let mut count = |end: &Value| *ends.entry(end.as_str().unwrap_or("done").to_owned()).or_default() += 1;
    for record in journal {
        let leg = record["leg"].to_string();
        match record["type"].as_str().unwrap_or_default() {
            "intent" => assert!(open.insert(leg, ()).is_none(), "two intents of one leg"),
            "result" => {
                assert!(open.remove(&leg).is_some(), "a result without its intent, or a second one: {record}");
                count(&record["result"]["reason"]);
            }
            "refusal" => count(&record["decision"]["reason"]),
            _ => {}
        }
    }
    assert!(open.is_empty(), "without an end: {open:?}");
    ends
}

#[tokio::test]
async fn an_upstream_that_restarts_under_load_loses_no_call_and_recovers_without_help() {
    crate::needs_python!();
    for (era, transport) in crate::support::talkative::UPSTREAMS {
        let issuer = Issuer::start().await;
        let more = "pins = \"off\"\non_down = \"10m\"\n[servers.up.health]\nfirst_byte_timeout = \"3s\"\nconnect_timeout = \"3s\"\n";
        let setup = Setup::new(&issuer).policy(RULES);
        let (setup, mut up) = if transport == "stdio" {
            let mark = format!("mark={}", ulid::Ulid::generate());
            let command = [python().as_str(), SCRIPT, era, transport, &mark].map(str::to_owned);
            let command: Vec<&str> = command.iter().map(String::as_str).collect();
            (setup.stdio_server("up", &command, more), Up::Stdio { mark })
        } else {
            let port = crate::support::free_address().port();
            let up = Up::http(era, port);
            (setup.http_server("up", &format!("http://127.0.0.1:{port}/mcp"), more), up)
        };
        let gateway = setup.start().await;
        let clients: Vec<_> = (0..CLIENTS)
            .map(|number| issuer.token(&format!("user-{}", number / 2), &["developers"], &gateway.resource()))
            .map(|token| gateway.client(&token))
            .collect();
        let works = async |client: &Client| {
            let answer = client.call_tool("up__touch", json!({ "uri": "test://a" })).await;
            answer.response()["result"]["content"][0]["text"] == "done"
        };
        eventually("the upstream works", async || works(&clients[0]).await).await;
        let stop = Arc::new(AtomicBool::new(false));
        let loads: Vec<_> =
            clients.iter().map(|client| tokio::spawn(load(client.clone(), Arc::clone(&stop)))).collect();
        for _ in 0..3 {
            tokio::time::sleep(Duration::from_millis(500)).await;
            up.restart().await;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        stop.store(true, Ordering::SeqCst);
        let mut ends: BTreeMap<String, usize> = BTreeMap::new();
        for load in loads {
            for end in load.await.unwrap() {
                *ends.entry(end).or_default() += 1;
            }
        }
        let failed: usize = ends.iter().filter(|(end, _)| *end != "done").map(|(_, count)| count).sum();
        assert!(ends["done"] > 0 && failed > 0, "{era} {transport}: it was not called while it restarted: {ends:?}");
        for reason in ends.keys() {
            let known = [
                "done",
                "upstream_closed",
                "upstream_unreachable",
                "upstream_session_lost",
                "upstream_timeout",
                "upstream_garbage",
                "upstream_status",
                "upstream_busy",
            ];
            assert!(known.contains(&reason.as_str()), "{era} {transport}: {ends:?}");
        }
        for client in &clients {
            eventually_within(PAUSES, "the upstream works again for everybody", async || works(client).await).await;
        }
        // What was called before and after counts as done as well, so the failures are what must be equal.
        eventually("the end of every call on the record", async || {
            let journal = gateway.journal();
            let of = |kind: &str| journal.iter().filter(|record| record["type"] == kind).count();
            of("intent") == of("result")
        })
        .await;
        let recorded = recorded(&gateway.journal());
        for (reason, count) in ends.iter().filter(|(reason, _)| *reason != "done") {
            assert!(recorded.get(reason) >= Some(count), "{era} {transport}: {reason}: {recorded:?} of {ends:?}");
        }
        assert!(recorded["done"] > ends["done"], "{era} {transport}: {recorded:?} of {ends:?}");
        assert!(!gateway.log().contains("panicked"));
    }
}

/// A process of either era that says on its standard error that it was called, and ends.
const DIES: &str = r#"
import json, os, sys
modern = sys.argv[1] == "modern"
kept = {"resultType": "complete", "ttlMs": 0, "cacheScope": "private"} if modern else {}
for line in sys.stdin:
    message = json.loads(line)
    method, id = message.get("method"), message.get("id")
    result = None
    if method == "server/discover" and modern:
        result = {**kept, "supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}}
    elif method == "initialize" and not modern:
        result = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}}, "serverInfo": {"name": "d", "version": "1"}}
    elif method == "tools/list":
        result = {**kept, "tools": [{"name": "die", "inputSchema": {"type": "object"}}]}
    elif method == "tools/call":
        print("it was called", file=sys.stderr, flush=True)
        os._exit(1)
    if id is not None:
        answer = {"result": result} if result is not None else {"error": {"code": -32601, "message": "no"}}
        print(json.dumps({"jsonrpc": "2.0", "id": id, **answer}), flush=True)
"#;

/// Servers of every kind that go away in the middle of a call, with these further lines of their tables; how a call
/// ended, and how often each was called.
async fn called_of_every_kind(more: &str, times: usize) {
    let dies = crate::support::scripted::tool("die");
    for (era, transport) in crate::support::talkative::UPSTREAMS {
        let issuer = Issuer::start().await;
        let gone = |_: &Value| crate::support::scripted::gone();
        let modern = crate::support::scripted::Scripted::start(json!([dies]), gone).await;
        // It drops the stream of the call without an answer.
        let legacy = crate::support::old::Old::start(&["die"], |turn| async move { drop(turn) }).await;
        let setup = match (era, transport) {
            (_, "stdio") => Setup::new(&issuer).stdio_server("up", &[&python(), "-c", DIES, era], more),
            ("modern", _) => Setup::new(&issuer).http_server("up", &modern.url, more),
            _ => Setup::new(&issuer).http_server("up", &legacy.url, more),
        };
        let gateway = setup.start().await;
        let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        eventually("its tool", async || client.tool_names().await == ["up__die"]).await;
        let answer = client.call_tool("up__die", json!({})).await;
        let reason = &answer.response()["result"]["_meta"]["dev.bailiwick/reason"];
        assert_eq!(reason, "upstream_closed", "{era} {transport}: {}", answer.text);
        let called = || match (era, transport) {
            (_, "stdio") => gateway.log().matches("it was called").count(),
            ("modern", _) => modern.calls().len(),
            _ => legacy.saw("tools/call").len(),
        };
        eventually("its last words", async || called() >= times).await;
        let intents = gateway.records("intent");
        assert_eq!((called(), intents.len()), (times, times), "{era} {transport}: {}", gateway.log());
        assert!(intents.iter().all(|intent| intent["call"] == intents[0]["call"]), "they are legs of one call");
    }
}

#[tokio::test]
async fn a_call_that_may_have_been_executed_is_sent_once_to_every_kind_of_upstream() {
    crate::needs_python!();
    called_of_every_kind("", 1).await;
}

#[tokio::test]
async fn a_call_of_a_tool_that_its_administrator_marked_is_made_once_more() {
    crate::needs_python!();
    called_of_every_kind("idempotent = [\"die\"]", 2).await;
}

#[tokio::test]
async fn a_call_that_is_made_once_more_ends_as_its_second_leg_does() {
    let first = Arc::new(AtomicBool::new(true));
    let upstream =
        crate::support::scripted::Scripted::start(json!([crate::support::scripted::tool("die")]), move |call| {
            if first.swap(false, Ordering::SeqCst) {
                return crate::support::scripted::gone();
            }
            crate::support::scripted::result(call, crate::support::scripted::text("at last"))
        })
        .await;
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("up", &upstream.url, "idempotent = [\"die\"]").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let answer = client.call_tool("up__die", json!({ "n": 1 })).await;
    assert_eq!(answer.tool_text(), "at last", "{}", answer.text);
    let ends =
        || -> Vec<_> { gateway.records("result").iter().map(|record| record["result"]["outcome"].clone()).collect() };
    eventually("each leg's own end on the record", async || ends() == ["unknown", "complete"]).await;
    let [one, two] = [0, 1].map(|at| upstream.calls()[at].message["params"].clone());
    assert_eq!(one["arguments"], two["arguments"]);
}
