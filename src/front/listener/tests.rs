//! What only a real connection shows: disconnects, TLS, HTTP/2, limits of the head, stopping.

use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::JoinHandle;

use hyper_util::rt::TokioExecutor;

use super::*;
use crate::config::TlsConfig;
use crate::front::fixture::Scripted;
use crate::gateway::Gateway;
use crate::ids::ReplicaId;
use crate::wire::handle::Sealer;

struct Bench {
    pipeline: Arc<Scripted>,
    address: SocketAddr,
    shutdown: CancellationToken,
    serving: JoinHandle<()>,
}

async fn bench(pipeline: Scripted, certificates: Option<Certificates>) -> Bench {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
    let address = listener.local_addr().unwrap();
    let pipeline = Arc::new(pipeline);
    let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
    let front = Front::new(Arc::clone(&pipeline), sealer, ReplicaId::new());
    let shutdown = CancellationToken::new();
    let serving =
        tokio::spawn(serve(front, listener, certificates.map(Arc::new), Arc::new(Lanes::none()), shutdown.clone()));
    Bench { pipeline, address, shutdown, serving }
}

fn post(headers: &str, body: &str) -> String {
    let length = body.len();
    format!(
        "POST /mcp HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer ann\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
}

async fn said(stream: &mut TcpStream) -> String {
    let mut bytes = vec![0; 16 * 1024];
    let count = tokio::time::timeout(Duration::from_secs(10), stream.read(&mut bytes)).await.unwrap().unwrap();
    String::from_utf8_lossy(&bytes[..count]).into_owned()
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    for _ in 0..400 {
        if holds() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

#[tokio::test]
async fn a_modern_client_that_hangs_up_before_the_answer_cancels_its_call() {
    let bench = bench(Scripted { hang: true, ..Scripted::new([]) }, None).await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let headers = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/call\r\nmcp-name: a\r\n";
    stream.write_all(post(headers, body).as_bytes()).await.unwrap();
    until("the call began", || bench.pipeline.seen.lock().unwrap().len() == 1).await;
    assert_eq!(*bench.pipeline.cancelled.lock().unwrap(), 0);
    drop(stream);
    until("the call was cancelled", || *bench.pipeline.cancelled.lock().unwrap() == 1).await;
}

#[tokio::test]
async fn a_legacy_client_that_hangs_up_before_the_answer_cancels_nothing() {
    let bench = bench(Scripted { hang: true, ..Scripted::new([]) }, None).await;
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let body =
        r#"{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{}}}"#;
    stream.write_all(post("", body).as_bytes()).await.unwrap();
    let answer = said(&mut stream).await;
    let session = answer.lines().find_map(|line| line.strip_prefix("mcp-session-id: ")).unwrap().to_owned();
    let session = format!("mcp-session-id: {session}\r\n");
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a"}}"#;
    stream.write_all(post(&session, body).as_bytes()).await.unwrap();
    until("the call began", || bench.pipeline.seen.lock().unwrap().len() == 2).await;
    drop(stream);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(*bench.pipeline.cancelled.lock().unwrap(), 0);
    let mut stream = TcpStream::connect(bench.address).await.unwrap();
    let body = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":1}}"#;
    stream.write_all(post(&session, body).as_bytes()).await.unwrap();
    assert!(said(&mut stream).await.starts_with("HTTP/1.1 202"));
    until("the call was cancelled", || *bench.pipeline.cancelled.lock().unwrap() == 1).await;
}

#[tokio::test]
async fn a_head_beyond_the_limits_is_refused() {
    let bench = bench(Scripted::new([]), None).await;
    let long = format!("x-long: {}\r\n", "a".repeat(2 * limit::HEADER_BYTES_MAX));
    let many: String = (0..=limit::HEADERS_MAX).map(|number| format!("x-{number}: 1\r\n")).collect();
    for headers in [long, many] {
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(post(&headers, "").as_bytes()).await.unwrap();
        let answer = said(&mut stream).await;
        assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    }
    assert!(bench.pipeline.seen.lock().unwrap().is_empty());
}

/// A connection in memory, over which nothing but time passes.
fn in_memory(pipeline: Scripted, http2: bool) -> (tokio::io::DuplexStream, Arc<Scripted>, GracefulShutdown) {
    let pipeline = Arc::new(pipeline);
    let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
    let front = Front::new(Arc::clone(&pipeline), sealer, ReplicaId::new());
    let (client, server) = tokio::io::duplex(1024 * 1024);
    let graceful = GracefulShutdown::new();
    tokio::spawn(requests(front, server, ([127, 0, 0, 1].into(), None), http2, graceful.watcher()));
    (client, pipeline, graceful)
}

#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_arrive_is_waited_for_so_long_also_on_a_kept_connection() {
    let whole = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
    for (before, sent) in [("", ""), ("", "GET /healthz HTTP/1.1\r\nhost: "), (whole, ""), (whole, "GET /")] {
        let (mut client, _, _running) = in_memory(Scripted::new([]), false);
        client.write_all(before.as_bytes()).await.unwrap();
        if !before.is_empty() {
            let count = client.read(&mut [0; 4096]).await.unwrap();
            assert!(count > 0);
        }
        let began = tokio::time::Instant::now();
        client.write_all(sent.as_bytes()).await.unwrap();
        client.read_to_end(&mut Vec::new()).await.unwrap();
        let took = began.elapsed();
        let (max, more) = (limit::HEADER_READ_TIMEOUT, Duration::from_secs(1));
        assert!(took >= max && took < max + more, "{before:?} {sent:?}: {took:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_handshake_that_does_not_go_on_is_waited_for_so_long() {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsConfig { certificate: directory.path().join("crt"), key: directory.path().join("key") };
    std::fs::write(&files.certificate, include_str!("../fixture/localhost.crt")).unwrap();
    std::fs::write(&files.key, include_str!("../fixture/localhost.key")).unwrap();
    for sent in [&b""[..], b"\x16\x03\x01\x02\x00"] {
        let bench = bench(Scripted::new([]), Some(Certificates::load(files.clone()).unwrap())).await;
        let began = tokio::time::Instant::now();
        let mut stream = TcpStream::connect(bench.address).await.unwrap();
        stream.write_all(sent).await.unwrap();
        // An end, or a reset.
        let _ = stream.read_to_end(&mut Vec::new()).await;
        let took = began.elapsed();
        let max = limit::TLS_HANDSHAKE_TIMEOUT;
        assert!(took >= max && took < 2 * max, "{sent:?}: {took:?}");
    }
}

/// A request that is refused before anybody looks at its body.
fn nowhere(length: usize, headers: &str) -> String {
    format!("POST /nowhere HTTP/1.1\r\nhost: localhost\r\n{headers}content-length: {length}\r\n\r\n")
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_before_its_body_is_here_leaves_its_connection_to_the_next() {
    let (mut client, _, _running) = in_memory(Scripted::new([]), false);
    for _ in 0..2 {
        client.write_all(nowhere(10, "").as_bytes()).await.unwrap();
        tokio::time::sleep(limit::BODY_LEFT_TIMEOUT / 2).await;
        client.write_all(b"0123456789").await.unwrap();
        let mut answer = [0; 4096];
        let count = client.read(&mut answer).await.unwrap();
        let answer = String::from_utf8_lossy(&answer[..count]).into_owned();
        assert!(answer.starts_with("HTTP/1.1 404") && !answer.contains("connection:"), "{answer}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_too_long_or_too_late_for_that_ends_its_connection_with_a_word() {
    let max = limit::BODY_LEFT_BYTES_MAX;
    let cases = [
        (nowhere(max + 1, ""), max + 1, Duration::ZERO),
        (nowhere(10, ""), 9, limit::BODY_LEFT_TIMEOUT),
        (nowhere(10, "expect: 100-continue\r\n"), 0, Duration::ZERO),
    ];
    for (head, sent, waited) in cases {
        let (mut client, _, _running) = in_memory(Scripted::new([]), false);
        client.write_all(head.as_bytes()).await.unwrap();
        client.write_all(&vec![b'a'; sent]).await.unwrap();
        let (began, mut answer) = (tokio::time::Instant::now(), String::new());
        client.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 404") && answer.contains("connection: close"), "{head}: {answer}");
        let took = began.elapsed();
        assert!(took >= waited && took < waited + Duration::from_millis(100), "{head}: {took:?}");
    }
}

#[tokio::test]
async fn so_many_requests_of_one_connection_of_http_2_are_answered_at_once() {
    let (client, pipeline, _running) = in_memory(Scripted { hang: true, ..Scripted::new([]) }, true);
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let body = r#"{"jsonrpc":"2.0","id":1,"method":"tools/call","params":{"name":"a","_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
    let max = usize::try_from(limit::HTTP2_STREAMS_MAX).unwrap();
    for _ in 0..max + 50 {
        let request = Request::post("http://localhost/mcp")
            .header("host", "localhost")
            .header("authorization", "Bearer ann")
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/call")
            .header("mcp-name", "a")
            .body(Full::new(bytes::Bytes::from_static(body.as_bytes())))
            .unwrap();
        let mut sender = sender.clone();
        tokio::spawn(async move { sender.send_request(request).await });
    }
    until("as many as may be", || pipeline.seen.lock().unwrap().len() == max).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(pipeline.seen.lock().unwrap().len(), max);
}

/// What asks for a list, and how long each is that there may be four of at once.
const LIST: &str = r#"{"jsonrpc":"2.0","id":1,"method":"tools/list","params":{"_meta":{"io.modelcontextprotocol/protocolVersion":"2026-07-28","io.modelcontextprotocol/clientCapabilities":{}}}}"#;
const LONG: usize = limit::HELD_PER_PRINCIPAL_BYTES_MAX / 4 - 100_000;

#[tokio::test(start_paused = true)]
async fn answers_that_nobody_reads_count_for_their_principal_and_are_given_up_alone_after_a_while() {
    let (client, _, _running) = in_memory(Scripted { long: LONG, ..Scripted::new([]) }, true);
    let mut builder = hyper::client::conn::http2::Builder::new(TokioExecutor::new());
    builder.initial_stream_window_size(0);
    let (sender, connection) = builder.handshake(TokioIo::new(client)).await.unwrap();
    tokio::spawn(connection);
    let asked = async |name: &str| {
        let request = Request::post("http://localhost/mcp")
            .header("host", "localhost")
            .header("authorization", format!("Bearer {name}"))
            .header("mcp-protocol-version", "2026-07-28")
            .header("mcp-method", "tools/list")
            .body(Full::new(bytes::Bytes::from_static(LIST.as_bytes())))
            .unwrap();
        sender.clone().send_request(request).await.unwrap()
    };
    let mut unread = Vec::new();
    for _ in 0..4 {
        let response = asked("ann").await;
        assert_eq!(response.status(), 200);
        unread.push(response);
    }
    assert_eq!(asked("ann").await.status(), 429);
    assert_eq!(asked("bob").await.status(), 200, "what one principal leaves is no other's");
    tokio::time::sleep(2 * limit::WRITE_STALL_MAX + Duration::from_secs(1)).await;
    for response in unread {
        assert!(response.into_body().frame().await.unwrap().is_err(), "its stream is reset");
    }
    assert_eq!(asked("ann").await.status(), 200, "the connection goes on, and there is room again");
}

#[tokio::test(start_paused = true)]
async fn a_connection_whose_client_takes_nothing_of_an_answer_is_given_up() {
    let (mut client, _, _running) = in_memory(Scripted { long: LONG, ..Scripted::new([]) }, false);
    let headers = "mcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n";
    client.write_all(post(headers, LIST).as_bytes()).await.unwrap();
    tokio::time::sleep(limit::WRITE_STALL_MAX + Duration::from_secs(1)).await;
    let mut read = Vec::new();
    client.read_to_end(&mut read).await.unwrap();
    assert!(read.starts_with(b"HTTP/1.1 200") && read.len() < LONG, "{}", read.len());
}

#[tokio::test(start_paused = true)]
async fn a_client_that_reads_slowly_gets_all_of_its_answer() {
    let (mut client, _, _running) = in_memory(Scripted { long: LONG, ..Scripted::new([]) }, false);
    let headers = "connection: close\r\nmcp-protocol-version: 2026-07-28\r\nmcp-method: tools/list\r\n";
    client.write_all(post(headers, LIST).as_bytes()).await.unwrap();
    let (mut read, mut piece) = (0, vec![0; 512 * 1024]);
    loop {
        tokio::time::sleep(limit::WRITE_STALL_MAX / 2).await;
        match client.read(&mut piece).await.unwrap() {
            0 => break,
            count => read += count,
        }
    }
    assert!(read > LONG, "{read}");
}

#[tokio::test]
async fn stopping_finishes_what_is_being_answered_and_accepts_nothing_new() {
    let bench = bench(Scripted { hang: true, ..Scripted::new([]) }, None).await;
    let mut idle = TcpStream::connect(bench.address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    assert!(said(&mut idle).await.starts_with("HTTP/1.1 200"));
    bench.shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), bench.serving).await.unwrap().unwrap();
    assert_eq!(idle.read(&mut [0]).await.unwrap(), 0, "an idle connection is closed at once");
    assert!(TcpStream::connect(bench.address).await.is_err());
}

#[tokio::test]
async fn both_versions_of_http_are_spoken_over_tls_as_agreed() {
    let directory = tempfile::tempdir().unwrap();
    let files = TlsConfig { certificate: directory.path().join("crt"), key: directory.path().join("key") };
    let certificate = include_str!("../fixture/localhost.crt");
    std::fs::write(&files.certificate, certificate).unwrap();
    std::fs::write(&files.key, include_str!("../fixture/localhost.key")).unwrap();
    let bench = bench(Scripted::new([]), Some(Certificates::load(files).unwrap())).await;
    for protocol in ["h2", "http/1.1"] {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let mut client = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        client.alpn_protocols = vec![protocol.into()];
        let stream = TcpStream::connect(bench.address).await.unwrap();
        let connector = tokio_rustls::TlsConnector::from(Arc::new(client));
        let stream = connector.connect(ServerName::try_from("localhost").unwrap(), stream).await.unwrap();
        let io = TokioIo::new(stream);
        let request =
            Request::get("https://localhost/.well-known/oauth-protected-resource").header("host", "localhost");
        let request = request.body(Full::new(bytes::Bytes::new())).unwrap();
        let response = if protocol == "h2" {
            let (mut sender, connection) =
                hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        } else {
            let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
            tokio::spawn(connection);
            sender.send_request(request).await.unwrap()
        };
        assert_eq!(response.status(), 200, "{protocol}");
        let body = response.into_body().collect().await.unwrap().to_bytes();
        assert!(std::str::from_utf8(&body).unwrap().contains("authorization_servers"));
    }
    // A client that speaks no TLS is cut off and disturbs nobody.
    let mut plain = TcpStream::connect(bench.address).await.unwrap();
    plain.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    assert!(!said(&mut plain).await.starts_with("HTTP/1.1"));
}

#[tokio::test]
async fn the_official_client_is_at_home_in_both_eras() {
    use rmcp::model::{CallToolRequestParams, ProtocolVersion};
    use rmcp::service::{ClientLifecycleMode, ClientServiceExt as _};
    use rmcp::transport::StreamableHttpClientTransport;
    use rmcp::transport::streamable_http_client::StreamableHttpClientTransportConfig;

    let modern = ClientLifecycleMode::Discover { preferred_versions: vec![ProtocolVersion::V_2026_07_28] };
    for (lifecycle, version) in [(modern, "2026-07-28"), (ClientLifecycleMode::Initialize, "2025-11-25")] {
        let bench = bench(Scripted::new([]), None).await;
        let config = StreamableHttpClientTransportConfig::with_uri(format!("http://{}/mcp", bench.address));
        let transport = StreamableHttpClientTransport::from_config(config.auth_header("ann"));
        let client = ().serve_with_lifecycle(transport, lifecycle).await.unwrap();
        let tools = client.list_tools(None).await.unwrap();
        assert_eq!(tools.tools[0].name, "ann", "{version}");
        client.call_tool(CallToolRequestParams::new("ann")).await.unwrap();
        client.cancel().await.unwrap();
        let seen = bench.pipeline.seen.lock().unwrap();
        assert!(seen.iter().all(|request| request.client.version.as_str() == version), "{version}");
        assert_eq!(seen.len(), 3, "{version}: the beginning, the list and the call");
    }
}

/// How much room what a function promises takes.
fn room<A, B, C, F: Future>(_: impl Fn(A, B, C) -> F) -> usize {
    size_of::<F>()
}

/// What answers a request is moved a few times before it is first polled, all of its room each time: rooms for what seldom
/// happens are boxed.
#[test]
fn what_answers_a_request_is_small_enough_to_be_moved() {
    let room = room(<Front<Gateway> as Answers>::answer);
    assert!(room <= 12 * 1024, "{room} bytes");
}
