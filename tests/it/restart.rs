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
use crate::support::talkative::{RULES, python};
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
