//! `bailiwick stdio --standalone`: the gateway in the assistant's own process, the real binary on real pipes.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::bridge::{Process, bailiwick, modern};

/// A server of the legacy era with two tools, one of which says which process it is.
const SERVER: &str = r#"
import json, os, sys

TOOLS = [{"name": name, "inputSchema": {"type": "object"}} for name in ("process", "secret")]

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    answer = {"jsonrpc": "2.0", "id": message["id"]}
    method = message.get("method")
    if method == "initialize":
        answer["result"] = {"protocolVersion": "2025-11-25", "capabilities": {"tools": {}},
                            "serverInfo": {"name": "child", "version": "1"}}
    elif method == "tools/list":
        answer["result"] = {"tools": TOOLS}
    elif method == "tools/call":
        print(json.dumps({"jsonrpc": "2.0", "method": "notifications/message",
                          "params": {"level": "info", "data": "working"}}), flush=True)
        answer["result"] = {"content": [{"type": "text", "text": str(os.getpid())}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    print(json.dumps(answer), flush=True)
"#;

/// The name that rules know this test's user by.
fn user() -> String {
    let asked = std::process::Command::new("id").arg("-un").output().unwrap();
    String::from_utf8(asked.stdout).unwrap().trim().to_owned()
}

fn files(directory: &Path, environment: &str, more: &str) {
    let policies = directory.join("policies");
    std::fs::create_dir_all(&policies).unwrap();
    std::fs::write(directory.join("server.py"), SERVER).unwrap();
    let command = json!([crate::support::python(), directory.join("server.py")]);
    let owner = format!("user:local/{}", user());
    let servers = format!(
        "[gateway]\n{more}\n[servers.child]\nowner = \"{owner}\"\nenvironment = \"{environment}\"\ncommand = {command}\n"
    );
    std::fs::write(directory.join("servers.toml"), servers).unwrap();
    let agents = format!(
        "[agents.desk]\nowner = \"{owner}\"\npurpose = \"tests\"\nkind = \"interactive\"\nenvironments = [\"{environment}\"]\n"
    );
    std::fs::write(policies.join("agents.toml"), agents).unwrap();
    let rules = format!("p, {owner}, *, child/process, call, -, allow\np, agent:desk, *, */*, call, -, allow\n");
    std::fs::write(policies.join("policy.csv"), rules).unwrap();
    std::fs::write(policies.join("model.conf"), include_str!("../../policies/model.conf")).unwrap();
}

fn standalone(directory: &Path) -> Process {
    Process::start(bailiwick(directory, &["stdio", "--standalone", "--config", "servers.toml"]))
}

fn journal(directory: &Path) -> Vec<Value> {
    let entries = std::fs::read_dir(directory.join("state/journal")).unwrap().map(|entry| entry.unwrap().path());
    let mut segments: Vec<_> = entries.filter(|path| path.extension().is_some_and(|kind| kind == "jsonl")).collect();
    segments.sort();
    let text: String = segments.iter().map(|path| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn lives(process: &str) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{process}/stat")).unwrap_or_default();
    stat.rsplit_once(')').is_some_and(|(_, rest)| !rest.trim_start().starts_with(['Z', 'X']))
}

fn call(id: u64, tool: &str) -> Value {
    modern(id, "tools/call", json!({ "name": tool, "arguments": {} }))
}

fn text(answer: &Value) -> String {
    answer["result"]["content"][0]["text"].as_str().unwrap_or_else(|| panic!("no text: {answer}")).to_owned()
}

#[test]
fn the_local_user_lists_and_calls_what_the_rules_allow_and_everything_is_on_the_record() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), "development", "");
    let mut process = standalone(directory.path());
    let tools = process.ask(&modern(1, "tools/list", json!({})));
    let names: Vec<&str> =
        tools["result"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["child__process"], "what could never be called is not shown");
    let child = text(&process.ask(&call(2, "child__process")));
    assert!(lives(&child));
    let hidden = process.ask(&call(3, "child__secret"));
    let absent = process.ask(&call(4, "child__no-such"));
    assert_eq!(hidden["error"]["code"], -32602, "{hidden}");
    assert_eq!(hidden["error"]["code"], absent["error"]["code"]);

    let records = journal(directory.path());
    let subject = format!("user:local/{}", user());
    let of_child = |record: &&Value| record.to_string().contains("process") && record.to_string().contains(&subject);
    let intent = records.iter().find(|record| record["type"] == "intent").filter(of_child).expect("an intent");
    assert!(intent.to_string().contains("desk"), "{intent}");

    let (status, took, rest) = process.end();
    assert!(status.success() && rest.is_empty(), "{rest:?}");
    // A refusal does not wait for the disk.
    let refused = |record: &Value| record["type"] == "refusal" && record.to_string().contains("secret");
    assert!(journal(directory.path()).iter().any(refused));
    assert!(took < Duration::from_secs(5), "it took {took:?} to stop with nothing open");
    let gone = Instant::now() + Duration::from_secs(2);
    while lives(&child) {
        assert!(Instant::now() < gone, "the child outlives the gateway");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn both_eras_are_spoken_and_a_reload_reaches_the_client() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), "development", "");
    let mut process = standalone(directory.path());
    let params =
        json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": { "name": "t", "version": "1" } });
    let begun = process.ask(&json!({ "jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params }));
    assert_eq!(begun["result"]["protocolVersion"], "2025-06-18", "{begun}");
    process.write(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    let listed = process.ask(&json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" }));
    assert_eq!(listed["result"]["tools"][0]["name"], "child__process");
    let params = json!({ "name": "child__process", "arguments": {} });
    let called = process.ask(&json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": params }));
    assert!(lives(&text(&called)));
    // The other commands find it: it has a control socket, and no other address.
    let rules = directory.path().join("policies/policy.csv");
    let wider = std::fs::read_to_string(&rules).unwrap().replace("child/process", "child/*");
    std::fs::write(rules, wider).unwrap();
    let reloaded = bailiwick(directory.path(), &["reload", "--allow-widening"]).output().unwrap();
    assert!(reloaded.status.success(), "{reloaded:?}");
    let told = process.read();
    assert_eq!(told["method"], "notifications/tools/list_changed", "{told}");
    let listed = process.ask(&json!({ "jsonrpc": "2.0", "id": 3, "method": "tools/list" }));
    assert_eq!(listed["result"]["tools"].as_array().unwrap().len(), 2);
}

#[test]
fn production_is_never_served_this_way() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), "production", "");
    let process = standalone(directory.path());
    let line = process.wait_for_error("never serves production");
    assert!(line.contains("servers.toml:5:") && line.contains("stdio --url"), "{line}");
    let (status, _, rest) = process.end();
    assert_eq!((status.code(), rest), (Some(1), Vec::<String>::new()));
    assert!(!directory.path().join("state").exists(), "nothing was opened");
}

#[test]
fn one_process_at_a_time_has_the_state() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), "development", "");
    let mut first = standalone(directory.path());
    assert!(first.ask(&modern(1, "tools/list", json!({})))["result"].is_object());
    let second = standalone(directory.path());
    let line = second.wait_for_error("in use by process");
    assert!(line.contains("state"), "{line}");
    assert_eq!(second.end().0.code(), Some(2));
    assert!(first.ask(&modern(2, "tools/list", json!({})))["result"].is_object());
}

#[test]
fn a_signal_ends_it_with_a_call_open_and_its_children_too() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    files(directory.path(), "development", "");
    let script = SERVER.replace("        answer[\"result\"] = {\"content\"", "        import time; time.sleep(600 if message[\"params\"].get(\"arguments\", {}).get(\"hang\") else 0)\n        answer[\"result\"] = {\"content\"");
    assert!(script.contains("time.sleep"));
    std::fs::write(directory.path().join("server.py"), script).unwrap();
    let mut process = standalone(directory.path());
    let child = text(&process.ask(&call(1, "child__process")));
    process.write(&modern(2, "tools/call", json!({ "name": "child__process", "arguments": { "hang": true } })));
    std::thread::sleep(Duration::from_millis(300));
    let killed = std::process::Command::new("kill").args(["-TERM", &process.id().to_string()]).status().unwrap();
    assert!(killed.success());
    let (status, took, _) = process.end();
    assert!(status.success() && took < Duration::from_secs(8), "{status} after {took:?}");
    assert!(!lives(&child));
    assert_eq!(journal(directory.path()).last().unwrap()["type"], "stop");
}

#[test]
fn the_local_user_exists_in_no_file_of_a_gateway_that_is_served() {
    crate::needs_python!();
    let directory = tempfile::tempdir().unwrap();
    let listen = "listen = \"127.0.0.1:0\"\npublic_url = \"http://127.0.0.1:7800\"\nallow_loopback_issuers = true\n\
                  [issuers.local]\nissuer = \"http://127.0.0.1:9\"";
    files(directory.path(), "development", listen);
    let check = |words: &[&str]| {
        let output = bailiwick(directory.path(), words).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, problem) = check(&["check"]);
    assert!(code == Some(1) && problem.contains("`local` is the gateway's own"), "{problem}");
    // Without that issuer its rows are about nobody.
    files(directory.path(), "development", &listen.replace("[issuers.local]", "[issuers.corp]"));
    let (code, problem) = check(&["check"]);
    assert!(code == Some(1) && problem.contains("`local` is not declared"), "{problem}");
    let (code, problem) = check(&["check", "--standalone"]);
    assert_eq!(code, Some(0), "{problem}");
}
