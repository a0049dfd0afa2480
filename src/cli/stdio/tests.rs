//! The bridge against a real front over a real socket.

use std::time::Duration;

use serde_json::{Value as Tree, json};
use tokio::io::{AsyncBufReadExt as _, DuplexStream, Lines};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use super::*;
use crate::front::fixture::Scripted;
use crate::front::{Front, serve};
use crate::ids::ReplicaId;
use crate::upstream::Event;
use crate::watch::Watched;
use crate::wire::handle::Sealer;

/// A bridge, a gateway behind it, and the ends that a client holds.
struct Bench {
    pipeline: Arc<Scripted>,
    input: DuplexStream,
    output: Lines<BufReader<DuplexStream>>,
    bridge: JoinHandle<std::io::Result<()>>,
    _serving: tokio_util::sync::DropGuard,
}

async fn bench(pipeline: Scripted, token: Option<&str>) -> Bench {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
    let pipeline = Arc::new(pipeline);
    let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
    let front = Front::new(Arc::clone(&pipeline), sealer, ReplicaId::new());
    let shutdown = CancellationToken::new();
    tokio::spawn(serve(front, listener, None, Arc::new(crate::lanes::Lanes::none()), shutdown.clone()));
    let (input, theirs) = tokio::io::duplex(64 * 1024);
    let (ours, output) = tokio::io::duplex(64 * 1024);
    let bridge = Bridge::new(&url, Way::with_token(&url, token.map(SecretString::from).as_ref()).unwrap()).unwrap();
    let bridge = tokio::spawn(bridge.run(theirs, ours));
    Bench { pipeline, input, output: BufReader::new(output).lines(), bridge, _serving: shutdown.drop_guard() }
}

impl Bench {
    async fn write(&mut self, message: Tree) {
        self.input.write_all(format!("{message}\n").as_bytes()).await.unwrap();
    }

    async fn read(&mut self) -> Tree {
        let line = tokio::time::timeout(Duration::from_secs(10), self.output.next_line()).await.unwrap().unwrap();
        serde_json::from_str(&line.unwrap()).unwrap()
    }

    /// Ends the input; answers what was still written.
    async fn end(mut self) -> Vec<Tree> {
        drop(self.input);
        let mut rest = Vec::new();
        while let Some(line) = self.output.next_line().await.unwrap() {
            rest.push(serde_json::from_str(&line).unwrap());
        }
        tokio::time::timeout(Duration::from_secs(10), self.bridge).await.unwrap().unwrap().unwrap();
        rest
    }
}

fn modern(id: u64, method: &str, mut params: Tree) -> Tree {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": "2026-07-28",
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params })
}

fn progress() -> Event {
    Event::Notification(Message::notification("notifications/progress", None))
}

#[tokio::test]
async fn a_modern_client_is_passed_on_with_the_headers_of_its_bodies() {
    let mut bench = bench(Scripted::new([progress()]), Some("ann")).await;
    bench.write(modern(1, "server/discover", json!({}))).await;
    assert_eq!(bench.read().await["result"]["supportedVersions"], json!(["2026-07-28"]));
    bench.write(modern(2, "tools/call", json!({ "name": "grün" }))).await;
    assert_eq!(bench.read().await["method"], "notifications/progress");
    assert_eq!(bench.read().await["id"], 2);
    bench.write(modern(3, "ping", json!({}))).await;
    let refused = bench.read().await;
    assert_eq!((&refused["id"], &refused["error"]["code"]), (&json!(3), &json!(-32601)));
    bench.input.write_all(b"{\"jsonrpc\":\n\n").await.unwrap();
    assert_eq!(bench.read().await["error"]["code"], -32700);
    assert!(bench.end().await.is_empty());
}

#[tokio::test]
async fn a_legacy_client_has_one_session_with_its_stream_until_the_input_ends() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pipeline = Scripted::new([]);
    *pipeline.watched.lock().unwrap() = Some(receiver);
    let mut bench = bench(pipeline, Some("ann")).await;
    let params = json!({ "protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {} });
    bench.write(json!({ "jsonrpc": "2.0", "id": "i", "method": "initialize", "params": params })).await;
    assert_eq!(bench.read().await["result"]["protocolVersion"], "2025-06-18");
    bench.write(json!({ "jsonrpc": "2.0", "method": "notifications/initialized" })).await;
    bench.write(json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" })).await;
    assert_eq!(bench.read().await["result"]["tools"][0]["name"], "ann");
    sender.send(Watched::Notification(Message::notification("notifications/tools/list_changed", None))).unwrap();
    assert_eq!(bench.read().await["method"], "notifications/tools/list_changed");
    assert!(bench.end().await.is_empty());
    // The session's end ended its stream.
    tokio::time::timeout(Duration::from_secs(10), sender.closed()).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_modern_request_is_closed_and_not_answered() {
    let mut bench = bench(Scripted { hang: true, ..Scripted::new([progress()]) }, Some("ann")).await;
    bench.write(modern(1, "tools/call", json!({ "name": "slow" }))).await;
    assert_eq!(bench.read().await["method"], "notifications/progress");
    bench.write(json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 1 } })).await;
    let cancelled = Arc::clone(&bench.pipeline.cancelled);
    for _ in 0..200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
        if *cancelled.lock().unwrap() == 1 {
            break;
        }
    }
    assert_eq!(*cancelled.lock().unwrap(), 1);
    assert!(bench.end().await.is_empty());
}

#[tokio::test]
async fn without_a_good_token_every_request_is_told_what_to_do() {
    for (token, what) in [(None, "needs an access token"), (Some("bad"), "refused the access token")] {
        let mut bench = bench(Scripted::new([]), token).await;
        bench.write(json!({ "jsonrpc": "2.0", "id": 5, "method": "initialize", "params": {} })).await;
        let answer = bench.read().await;
        assert_eq!(answer["id"], 5);
        let message = answer["error"]["message"].as_str().unwrap();
        assert!(message.contains(what) && message.contains("BAILIWICK_TOKEN"), "{message}");
        assert!(message.contains("/.well-known/oauth-protected-resource/mcp"), "{message}");
        assert!(bench.end().await.is_empty());
    }
}

#[tokio::test]
async fn a_gateway_that_is_away_is_an_error_of_each_request() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
    drop(listener);
    let bridge = Bridge::new(&url, Way::with_token(&url, None).unwrap()).unwrap();
    let (ours, output) = tokio::io::duplex(64 * 1024);
    bridge.run(format!("{}\n", modern(1, "tools/list", json!({}))).as_bytes(), ours).await.unwrap();
    let line = BufReader::new(output).lines().next_line().await.unwrap().unwrap();
    let answer: Tree = serde_json::from_str(&line).unwrap();
    assert_eq!(answer["id"], 1);
    assert!(answer["error"]["message"].as_str().unwrap().contains("cannot be reached"), "{answer}");
}

#[test]
fn a_token_is_never_sent_in_the_clear_over_a_network() {
    for good in ["https://gw.example/mcp", "http://127.0.0.1:1/mcp", "http://localhost/mcp", "http://[::1]:1/mcp"] {
        assert!(Way::with_token(&Url::parse(good).unwrap(), None).is_ok(), "{good}");
    }
    for bad in ["http://gw.example/mcp", "http://10.0.0.1/mcp", "http://localhost.evil.example/mcp", "ftp://127.0.0.1/"]
    {
        assert!(Way::with_token(&Url::parse(bad).unwrap(), None).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_token_file_that_others_can_read_is_refused() {
    use std::os::unix::fs::PermissionsExt as _;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "secret-token\n").unwrap();
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o644)).unwrap();
    let problem = token(None, Some(file.path())).await.err().unwrap();
    assert!(problem.contains("chmod 600") && !problem.contains("secret-token"), "{problem}");
    std::fs::set_permissions(file.path(), std::fs::Permissions::from_mode(0o600)).unwrap();
    use secrecy::ExposeSecret as _;
    assert_eq!(token(None, Some(file.path())).await.unwrap().unwrap().expose_secret(), "secret-token");
}

/// A gateway that answers a request, each on a connection of its own, when it has a permit; counts what arrived.
async fn slow_gateway(permits: Arc<Semaphore>, arrived: Arc<std::sync::atomic::AtomicUsize>) -> Url {
    use tokio::io::AsyncReadExt as _;
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let url = Url::parse(&format!("http://{}/mcp", listener.local_addr().unwrap())).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (permits, arrived) = (Arc::clone(&permits), Arc::clone(&arrived));
            tokio::spawn(async move {
                let mut request = String::new();
                let message: Tree = loop {
                    let mut more = [0; 4_096];
                    let length = stream.read(&mut more).await.unwrap();
                    request.push_str(std::str::from_utf8(&more[..length]).unwrap());
                    let body = request.split_once("\r\n\r\n").map(|(_, body)| serde_json::from_str(body));
                    match body {
                        Some(Ok(message)) => break message,
                        // The other end has gone.
                        _ if length == 0 => return,
                        _ => {}
                    }
                };
                arrived.fetch_add(1, std::sync::atomic::Ordering::AcqRel);
                permits.acquire().await.unwrap().forget();
                let body = json!({ "jsonrpc": "2.0", "id": message["id"], "result": {} }).to_string();
                let head = "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\ncontent-length: ";
                let _ = stream.write_all(format!("{head}{}\r\n\r\n{body}", body.len()).as_bytes()).await;
            });
        }
    });
    url
}

#[tokio::test]
async fn so_many_requests_are_open_at_once_and_the_next_waits_for_one_of_them() {
    let (permits, arrived) = (Arc::new(Semaphore::new(0)), Arc::default());
    let url = slow_gateway(Arc::clone(&permits), Arc::clone(&arrived)).await;
    let (mut input, theirs) = tokio::io::duplex(1024 * 1024);
    let (ours, output) = tokio::io::duplex(64 * 1024);
    let way = Way::with_token(&url, Some(&SecretString::from("ann"))).unwrap();
    let bridge = tokio::spawn(Bridge::new(&url, way).unwrap().run(theirs, ours));
    for id in 0..=limit::BRIDGE_REQUESTS_MAX as u64 {
        input.write_all(format!("{}\n", modern(id, "tools/list", json!({}))).as_bytes()).await.unwrap();
    }
    let count = || arrived.load(std::sync::atomic::Ordering::Acquire);
    let until = async |wanted: usize| {
        for _ in 0..3_000 {
            if count() == wanted {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{} requests arrived, and not {wanted}", count());
    };
    until(limit::BRIDGE_REQUESTS_MAX).await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(count(), limit::BRIDGE_REQUESTS_MAX, "one more is open than there are places");
    permits.add_permits(1);
    until(limit::BRIDGE_REQUESTS_MAX + 1).await;
    permits.add_permits(limit::BRIDGE_REQUESTS_MAX);
    drop(input);
    let mut answers = BufReader::new(output).lines();
    let mut answered = std::collections::BTreeSet::new();
    while let Some(line) = answers.next_line().await.unwrap() {
        let answer: Tree = serde_json::from_str(&line).unwrap();
        assert!(answer["result"].is_object() && answered.insert(answer["id"].as_u64().unwrap()), "{line}");
    }
    assert_eq!(answered.len(), limit::BRIDGE_REQUESTS_MAX + 1);
    bridge.await.unwrap().unwrap();
}
