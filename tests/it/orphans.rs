//! What the children of a gateway that is killed leave behind: nothing, however they try.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::stdio::marked;
use crate::support::client::modern_request;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::python;

/// A server that ignores every signal and the end of its input, and starts descendants of every kind that does the
/// same. All of them carry a mark on their command line, and end by themselves should this test be broken.
const SERVER: &str = r#"
import json, os, signal, subprocess, sys, time

MARK = sys.argv[1]
DEAF = "import os, signal, sys, time\nfor number in (1, 2, 3, 10, 12, 13, 14, 15): signal.signal(number, signal.SIG_IGN)\nend = time.time() + 60\n"
WAIT = "while time.time() < end: time.sleep(0.05)\n"
KINDS = {
    "plain": DEAF + WAIT,
    "group": DEAF + "os.setpgid(0, 0)\n" + WAIT,
    "session": DEAF + "os.setsid()\n" + WAIT,
    "daemon": DEAF + "if os.fork(): os._exit(0)\nos.setsid()\nif os.fork(): os._exit(0)\nos.chdir('/')\n" + WAIT,
    "family": DEAF + "os.setsid()\nfor _ in range(3):\n  if os.fork() == 0:\n    os.setsid()\n    if os.fork(): os._exit(0)\n" + WAIT,
    # Never the same process for long: whoever looks for it finds one that has just gone.
    "hopper": DEAF + "while time.time() < end:\n  if os.fork(): os._exit(0)\n  os.setsid()\n  time.sleep(0.003)\n",
}
for number in (1, 2, 3, 10, 12, 13, 14, 15):
    signal.signal(number, signal.SIG_IGN)

def start(kind):
    subprocess.Popen([sys.executable, "-c", KINDS[kind], MARK], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                     stderr=subprocess.DEVNULL)

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
        answer["result"] = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("breed", "hang")]}
    elif method == "tools/call" and params["name"] == "hang":
        open(MARK.removeprefix("mark=") + "/hangs", "w").close()
        time.sleep(600)
    elif method == "tools/call":
        for kind in KINDS:
            start(kind)
        answer["result"] = {"content": [{"type": "text", "text": "bred"}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    print(json.dumps(answer), flush=True)
while True:
    time.sleep(0.05)
"#;

#[tokio::test]
async fn two_seconds_after_a_kill_nothing_that_a_child_started_is_alive_whatever_it_ignores() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let mark = format!("mark={}", directory.path().display());
    let command = [python(), "-c".to_owned(), SERVER.to_owned(), mark.clone()];
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let mut gateway =
        Setup::new(&issuer).stdio_server("child", &command, &format!("write = [{:?}]", directory.path())).start().await;
    let client = |user: &str| gateway.client(&issuer.token(user, &["developers"], &gateway.resource()));
    // A process for each of them, with a family of its own.
    for user in ["alice", "bob"] {
        assert_eq!(client(user).call_tool("child__breed", json!({})).await.tool_text(), "bred");
    }
    let hanging = client("alice");
    let call = tokio::spawn(async move {
        let (headers, body) = modern_request("tools/call", json!({ "name": "child__hang", "arguments": {} }));
        hanging.stream(&headers, Some(body.to_string())).await;
    });
    eventually("the call that hangs", async || directory.path().join("hangs").exists()).await;
    // For each: the supervisor, the server, a plain one, a group, a session, a daemon, four of a family, a hopper.
    eventually("both families to be complete", async || marked(&mark).len() >= 2 * 11).await;
    gateway.signal("KILL");
    let killed = Instant::now();
    assert!(!gateway.wait().await.success());
    call.abort();
    tokio::time::sleep_until((killed + Duration::from_secs(2)).into()).await;
    // More than one look, because one may fall between two lives.
    for _ in 0..20 {
        assert_eq!(described(&mark), Vec::<String>::new());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn described(mark: &str) -> Vec<String> {
    let shown = |process: &u64| {
        let text = std::fs::read_to_string(format!("/proc/{process}/cmdline")).unwrap_or_default();
        format!("{process} {}", text.replace('\0', " ").replace('\n', ";"))
    };
    marked(mark).iter().map(shown).collect()
}
