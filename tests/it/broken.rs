//! Processes that break in the middle of a call: each call has an end, the record has it, and nothing else is lost.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually_within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::python;

/// Each of its tools breaks in its own way.
const SERVER: &str = r#"
import json, os, sys

TOOLS = ("die", "silent", "foreign", "garbage", "twice", "large", "plain")
modern = sys.argv[1] == "modern"

def say(number, result):
    print(json.dumps({"jsonrpc": "2.0", "id": number, "result": result}), flush=True)

def text(words):
    return {"resultType": "complete", "content": [{"type": "text", "text": words}]}

for line in sys.stdin:
    message = json.loads(line)
    if "id" not in message:
        continue
    number, method = message["id"], message.get("method")
    about = {"capabilities": {"tools": {}}, "serverInfo": {"name": "broken", "version": "1"}}
    if method == "server/discover" and modern:
        say(number, {"resultType": "complete", "supportedVersions": ["2026-07-28"], "ttlMs": 0, "cacheScope": "private", **about})
    elif method == "initialize" and not modern:
        say(number, {"protocolVersion": "2025-11-25", **about})
    elif method == "tools/list":
        tools = [{"name": name, "inputSchema": {"type": "object"}} for name in TOOLS]
        say(number, {"resultType": "complete", "tools": tools, "ttlMs": 60000, "cacheScope": "private"})
    elif method == "tools/call":
        name = message["params"]["name"]
        if name == "die":
            os._exit(1)
        elif name == "foreign":
            say("foreign", text("for somebody else"))
        elif name == "garbage":
            print("<html>", flush=True)
        elif name == "twice":
            say(number, text("first"))
            say(number, text("second"))
        elif name == "large":
            say(number, text("x" * 1000000))
        elif name == "plain":
            say(number, text("plain"))
    else:
        answer = {"jsonrpc": "2.0", "id": number, "error": {"code": -32601, "message": "method not found"}}
        print(json.dumps(answer), flush=True)
"#;

/// What each call of one server becomes; after each of them the server is as it was.
async fn broken_in_every_way(gateway: &Gateway, client: &Client, server: &str) {
    let call = async |tool: &str| client.call_tool(&format!("{server}__{tool}"), json!({})).await;
    let plain = async || {
        let is_back = async || call("plain").await.result()["content"][0]["text"] == "plain";
        eventually_within(Duration::from_secs(30), "it answers", is_back).await;
    };
    for (tool, reason) in [
        ("die", "upstream_closed"),
        ("silent", "upstream_timeout"),
        ("foreign", "upstream_timeout"),
        ("garbage", "upstream_timeout"),
    ] {
        let answer = call(tool).await;
        let told = &answer.result()["_meta"]["dev.bailiwick/reason"];
        assert_eq!(
            (answer.result()["isError"].as_bool(), told.as_str()),
            (Some(true), Some(reason)),
            "{server} {tool}"
        );
        let has_its_end = async || {
            let records = gateway.journal();
            let intent = records.iter().find(|line| {
                line["type"] == "intent" && line["mcp"]["server"] == server && line["mcp"]["name"] == tool
            });
            let leg = &intent.expect("an intent before anything was sent")["leg"];
            let end: Vec<&Value> =
                records.iter().filter(|line| line["type"] == "result" && line["leg"] == *leg).collect();
            assert!(end.len() <= 1, "{end:?}");
            end.first().is_some_and(|end| end["result"]["reason"] == reason && end["result"]["may_have_acted"] == true)
        };
        eventually_within(Duration::from_secs(30), "its end is on the record", has_its_end).await;
        plain().await;
    }
    assert_eq!(call("twice").await.tool_text(), "first", "{server}");
    // The second answer is nobody's: not the next call's either.
    assert_eq!(call("twice").await.tool_text(), "first", "{server}");
    plain().await;
    assert_eq!(call("large").await.tool_text().len(), 1_000_000, "{server}: one line is one message");
    plain().await;
}

#[tokio::test]
async fn a_process_of_either_era_that_breaks_in_a_call_ends_that_call_alone_and_the_record_has_it() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let health = |server: &str| {
        format!("pins = \"off\"\n[servers.{server}.health]\nfirst_byte_timeout = \"3s\"\nidle_timeout = \"3s\"\n")
    };
    let mut setup = Setup::new(&issuer);
    for server in ["modern", "legacy"] {
        setup = setup.stdio_server(server, &[&python(), "-c", SERVER, server], &health(server));
    }
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let listed = async || client.tool_names().await.len() == 14;
    eventually_within(Duration::from_secs(30), "both lists", listed).await;
    tokio::join!(broken_in_every_way(&gateway, &client, "modern"), broken_in_every_way(&gateway, &client, "legacy"),);
    assert!(!gateway.log().contains("panicked"));
}
