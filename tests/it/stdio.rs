//! Upstreams that are child processes: through the gateway, with a clean environment, and gone with it.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::python;

/// A server of the legacy era that tells its environment and starts a daemon.
const SERVER: &str = r#"
import json, os, subprocess, sys

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("environment", "daemon", "echo")]

def call(name, arguments):
    if name == "environment":
        return json.dumps(dict(os.environ))
    if name == "daemon":
        # A session of its own, as daemons have one: neither its group nor its parent tell where it came from.
        script = "import os, time\nif os.fork(): os._exit(0)\nopen('daemon.pid', 'w').write(str(os.getpid()))\ntime.sleep(600)"
        child = subprocess.Popen([sys.executable, "-c", script], start_new_session=True, stdin=subprocess.DEVNULL,
                                 stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        child.wait()
        while not (os.path.exists("daemon.pid") and open("daemon.pid").read()):
            pass
        return json.dumps([os.getpid(), int(open("daemon.pid").read())])
    return json.dumps(arguments)

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    method, params = message.get("method"), message.get("params", {})
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "child", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        answer["result"] = {"content": [{"type": "text", "text": call(params["name"], params.get("arguments", {}))}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    print(json.dumps(answer), flush=True)
"#;

/// A gateway in front of the script, with a working directory and one variable of its own.
async fn start(issuer: &Issuer, directory: &Path) -> Gateway {
    let script = directory.join("server.py");
    std::fs::write(&script, SERVER).unwrap();
    let more = format!("directory = {:?}\nvariables = {{ GREETING = \"hello\" }}", directory.display().to_string());
    let python = python();
    Setup::new(issuer).stdio_server("child", &[&python, &script.display().to_string()], &more).start().await
}

pub fn lives(process: u64) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

/// The living processes that have this on their command line.
pub fn marked(mark: &str) -> Vec<u64> {
    let processes =
        std::fs::read_dir("/proc").unwrap().filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let has = |process: &u64| {
        let text = std::fs::read(format!("/proc/{process}/cmdline")).unwrap_or_default();
        text.split(|byte| *byte == 0).any(|argument| argument == mark.as_bytes()) && lives(*process)
    };
    processes.filter(has).collect()
}

pub async fn are_gone(processes: &[u64], within: Duration) {
    let deadline = Instant::now() + within;
    while processes.iter().any(|process| lives(*process)) {
        assert!(Instant::now() < deadline, "some of {processes:?} live on");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// The server and the daemon that it started, both alive.
async fn family(gateway: &Gateway, token: &str) -> Vec<u64> {
    let answer = gateway.client(token).call_tool("child__daemon", json!({})).await;
    let processes: Vec<u64> = serde_json::from_str(answer.tool_text()).unwrap();
    assert_eq!(processes.len(), 2);
    assert!(processes.iter().all(|process| lives(*process)), "{processes:?}");
    processes
}

#[tokio::test]
async fn a_child_process_is_a_server_like_any_other() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let gateway = start(&issuer, directory.path()).await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["child__environment", "child__daemon", "child__echo"]);
    let answer = client.call_tool("child__echo", json!({ "word": "ä\n\"" })).await;
    assert_eq!(serde_json::from_str::<serde_json::Value>(answer.tool_text()).unwrap(), json!({ "word": "ä\n\"" }));
}

#[tokio::test]
async fn a_child_gets_the_environment_of_its_configuration_and_nothing_of_the_gateway_s() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let gateway = start(&issuer, directory.path()).await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let answer = gateway.client(&token).call_tool("child__environment", json!({})).await;
    let environment: std::collections::BTreeMap<String, String> = serde_json::from_str(answer.tool_text()).unwrap();
    assert_eq!(environment.get("GREETING").map(String::as_str), Some("hello"));
    // The gateway of these tests runs with RUST_LOG; nothing that begins with our name reaches a child.
    let known = ["GREETING", "PATH", "HOME", "LANG", "LC_ALL", "LC_CTYPE", "TMPDIR", "TZ", "USER", "LOGNAME"];
    let strange: Vec<&String> = environment.keys().filter(|name| !known.contains(&name.as_str())).collect();
    assert!(strange.is_empty(), "{strange:?}");
    assert!(!answer.text.contains(&token));
}

#[tokio::test]
async fn a_gateway_that_stops_takes_its_children_along() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let mut gateway = start(&issuer, directory.path()).await;
    let processes = family(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    assert!(gateway.stop().await.success(), "{}", gateway.log());
    are_gone(&processes, Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_gateway_that_is_killed_leaves_neither_child_nor_grandchild() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let mut gateway = start(&issuer, directory.path()).await;
    let processes = family(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    gateway.signal("KILL");
    assert!(!gateway.wait().await.success());
    are_gone(&processes, Duration::from_secs(2)).await;
}
