//! Bounds that only many at once reach: connections, waiting calls, sessions and processes of one server.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use axum::routing::any;
use bailiwick::limit;
use futures_util::StreamExt as _;
use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason};
use crate::stdio::marked;
use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::python;
use crate::support::scripted::{Scripted, raw, tool};

const HEALTH: &[u8] = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";

/// Whether something is answered on this connection within a time.
fn answers(mut stream: &TcpStream, within: Duration) -> bool {
    stream.set_read_timeout(Some(within)).unwrap();
    stream.read(&mut [0; 256]).is_ok_and(|count| count > 0)
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_until_one_goes() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    // Both ends need a descriptor for each; systems give fewer by default and let processes ask for more.
    let wanted = u64::try_from(limit::CONNECTIONS_MAX).unwrap() + 2_000;
    let more = |process: u32| {
        let arguments = [format!("--nofile={wanted}:"), "--pid".to_owned(), process.to_string()];
        std::process::Command::new("prlimit").args(arguments).status().unwrap().success()
    };
    assert!(more(std::process::id()) && more(gateway.process_id()), "this test needs {wanted} descriptors");
    let address = gateway.url.trim_start_matches("http://").to_owned();
    let began = Instant::now();
    // Kept-alive connections of the test's own clients count as well.
    let mut idle: Vec<TcpStream> = Vec::new();
    let beyond = loop {
        let stream = TcpStream::connect(&address).unwrap();
        (&stream).write_all(HEALTH).unwrap();
        if !answers(&stream, Duration::from_secs(2)) {
            break stream;
        }
        idle.push(stream);
    };
    let took = began.elapsed();
    assert!(took < limit::HEADER_READ_TIMEOUT, "the first may be closed already: {took:?}");
    let near = limit::CONNECTIONS_MAX - 20..=limit::CONNECTIONS_MAX;
    assert!(near.contains(&idle.len()), "{} connections were answered", idle.len());
    drop(idle.pop());
    assert!(answers(&beyond, Duration::from_secs(10)), "its place has become free");
}

#[tokio::test]
async fn calls_that_wait_for_people_are_bounded_over_all_callers() {
    let upstream = Old::start(&["form", "plain"], |turn: Turn| async move {
        let form = json!({ "message": "m", "requestedSchema": { "type": "object", "properties": {} } });
        if turn.call["params"]["name"] == "form" {
            turn.ask("elicitation/create", form).await;
        }
        turn.done("done");
    })
    .await;
    let issuer = Issuer::start().await;
    let gateway =
        Setup::new(&issuer).policy(&may_ask(&["elicit"])).http_server("tools", &upstream.url, "").start().await;
    let client =
        |user: usize| gateway.client(&issuer.token(&format!("user-{user}"), &["developers"], &gateway.resource()));
    let ask = async |user: usize| {
        call(&client(user), &all_capabilities(), json!({ "name": "tools__form", "arguments": {} })).await
    };
    let users = limit::PARKED_MAX.div_ceil(limit::PARKED_PER_PRINCIPAL_MAX);
    let waiting = futures_util::stream::iter(0..limit::PARKED_MAX).map(|number| ask(number % users));
    let asked: Vec<_> = waiting.buffer_unordered(16).collect().await;
    for asked in &asked {
        assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    }
    let refused = ask(users + 1).await;
    assert_eq!(reason(&refused), "input_limited", "{}", refused.text);
    let plain = client(users + 1).call_tool("tools__plain", json!({})).await;
    assert_eq!(plain.tool_text(), "done", "who asks nothing is not held up");
}

/// A legacy server that remembers which sessions were ended.
#[derive(Default)]
struct Sessions {
    begun: AtomicUsize,
    ended: std::sync::Mutex<Vec<String>>,
}

async fn session(State(state): State<Arc<Sessions>>, verb: Method, headers: HeaderMap, body: Bytes) -> Response<Body> {
    let empty = |status: u16| Response::builder().status(status).body(Body::empty()).unwrap();
    if verb == Method::DELETE {
        let id = headers.get("mcp-session-id").unwrap().to_str().unwrap().to_owned();
        state.ended.lock().unwrap().push(id);
        return empty(200);
    } else if verb != Method::POST {
        return empty(405);
    }
    let message: Value = serde_json::from_slice(&body).unwrap();
    let mut begun = None;
    let result = match message["method"].as_str() {
        Some("initialize") => {
            begun = Some(state.begun.fetch_add(1, Ordering::SeqCst));
            json!({ "protocolVersion": "2025-11-25", "capabilities": { "tools": {} }, "serverInfo": { "name": "s", "version": "1" } })
        }
        Some("tools/list") => json!({ "tools": [tool("echo")] }),
        Some("tools/call") => json!({ "content": [{ "type": "text", "text": "done" }] }),
        Some(_) if message.get("id").is_none() => return empty(202),
        _ => {
            let error = json!({ "code": -32601, "message": "Method not found" });
            let error = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            return raw("application/json", error.to_string());
        }
    };
    let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "result": result });
    let mut response = raw("application/json", answer.to_string());
    if let Some(number) = begun {
        response.headers_mut().insert("mcp-session-id", format!("session-{number}").parse().unwrap());
    }
    response
}

#[tokio::test]
async fn so_many_sessions_are_kept_at_one_server_and_the_least_used_makes_room() {
    let state = Arc::<Sessions>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/mcp", any(session)).with_state(Arc::clone(&state));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("tools", &url, "").start().await;
    let use_it = async |user: usize| {
        let token = issuer.token(&format!("user-{user}"), &["developers"], &gateway.resource());
        let answer = gateway.client(&token).call_tool("tools__echo", json!({})).await;
        assert_eq!(answer.tool_text(), "done", "{user}");
    };
    eventually("the tools", async || {
        let token = issuer.token("user-0", &["developers"], &gateway.resource());
        gateway.client(&token).tool_names().await == ["tools__echo"]
    })
    .await;
    // The gateway has one of its own, in which it lists.
    let users = limit::SESSIONS_PER_SERVER_MAX - 1;
    use_it(0).await;
    futures_util::stream::iter(1..users).map(&use_it).buffer_unordered(8).collect::<Vec<_>>().await;
    let begun = state.begun.load(Ordering::SeqCst);
    assert!((users..=users + 1).contains(&begun), "{begun}");
    assert_eq!(*state.ended.lock().unwrap(), Vec::<String>::new(), "there is room for all of these");
    for more in 0..5 {
        use_it(users + more).await;
    }
    let ended = || state.ended.lock().unwrap().len();
    eventually("sessions that made room", async || (4..=5).contains(&ended())).await;
    // Who has been used last is still there.
    use_it(users + 4).await;
    assert_eq!(state.begun.load(Ordering::SeqCst), begun + 5);
}

/// A server whose tool `hang` answers when its file is there.
const SERVER: &str = r#"
import json, os, sys, time
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
        answer["result"] = {"tools": [{"name": name, "inputSchema": {"type": "object"}} for name in ("hang", "plain")]}
    elif method == "tools/call":
        while params["name"] == "hang" and not os.path.exists(sys.argv[1].removeprefix("mark=") + "/go"):
            time.sleep(0.05)
        answer["result"] = {"content": [{"type": "text", "text": "done"}]}
    else:
        answer["error"] = {"code": -32601, "message": "method not found"}
    print(json.dumps(answer), flush=True)
"#;

#[tokio::test]
async fn so_many_processes_of_one_server_run_and_one_in_use_makes_no_room() {
    crate::needs_python!();
    let (issuer, directory) = (Issuer::start().await, tempfile::tempdir().unwrap());
    let mark = format!("mark={}", directory.path().display());
    let command = [python(), "-c".to_owned(), SERVER.to_owned(), mark.clone()];
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    // Many start at once, on whatever machine this is.
    let health = "[servers.child.health]\nconnect_timeout = \"60s\"\n";
    let gateway = Setup::new(&issuer).stdio_server("child", &command, health).start().await;
    let client =
        |user: usize| gateway.client(&issuer.token(&format!("user-{user}"), &["developers"], &gateway.resource()));
    eventually("the tools", async || client(0).tool_names().await.len() == 2).await;
    // The server and its supervisor carry the mark; the gateway's own process lists and is idle.
    let running = || marked(&mark).len() / 2;
    let most = limit::PROCESSES_PER_SERVER_MAX;
    let hanging: Vec<_> = (0..most)
        .map(|user| {
            let client = client(user);
            tokio::spawn(async move { client.call_tool("child__hang", json!({})).await.tool_text().to_owned() })
        })
        .collect();
    let full = async || {
        assert!(running() <= most + 1, "{} processes", running());
        gateway.records("intent").len() == most && running() >= most
    };
    for _ in 0..6 {
        if tokio::time::timeout(Duration::from_secs(9), eventually("all of them to run", &full)).await.is_ok() {
            break;
        }
    }
    let busy = client(most).call_tool("child__plain", json!({})).await;
    assert_eq!(reason(&busy), "upstream_busy", "{}", busy.text);
    std::fs::write(directory.path().join("go"), "").unwrap();
    for hanging in hanging {
        assert_eq!(hanging.await.unwrap(), "done");
    }
    assert_eq!(client(most).call_tool("child__plain", json!({})).await.tool_text(), "done", "an idle one made room");
    eventually("no more than may be", async || running() <= most).await;
}
