//! The protocol as a client sees it, without sockets.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt as _;
use proptest::prelude::*;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use super::Front;
use super::fixture::Scripted;
use crate::ids::ReplicaId;
use crate::limit;
use crate::outcome::{Outcome, Reason};
use crate::upstream::Event;
use crate::watch::Watched;
use crate::wire::handle::Sealer;
use crate::wire::{Json, Message, sse};

mod sessions;

const MODERN: &str = "2026-07-28";

fn front(pipeline: Scripted) -> Arc<Front<Scripted>> {
    let sealer = Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap());
    Front::new(Arc::new(pipeline), sealer, ReplicaId::new())
}

async fn send(
    front: &Arc<Front<Scripted>>,
    verb: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: impl Into<Body>,
) -> Response<Body> {
    let mut request = Request::builder().method(verb).uri(path).header("host", "127.0.0.1:8080");
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    front.answer(request.body(body.into()).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST)).await
}

async fn text(response: Response<Body>) -> String {
    String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap()
}

async fn json_of(response: Response<Body>) -> Value {
    serde_json::from_str(&text(response).await).unwrap()
}

/// A modern request body.
fn modern(method: &str, mut params: Value) -> String {
    params["_meta"] = json!({
        "io.modelcontextprotocol/protocolVersion": MODERN,
        "io.modelcontextprotocol/clientCapabilities": {},
    });
    json!({ "jsonrpc": "2.0", "id": 7, "method": method, "params": params }).to_string()
}

async fn post_modern(
    front: &Arc<Front<Scripted>>,
    method: &str,
    params: Value,
    more: &[(&str, &str)],
) -> Response<Body> {
    let mut headers = vec![("authorization", "Bearer ann"), ("mcp-protocol-version", MODERN), ("mcp-method", method)];
    headers.extend_from_slice(more);
    send(front, "POST", "/mcp", &headers, modern(method, params)).await
}

async fn post_legacy(front: &Arc<Front<Scripted>>, who: &str, session: Option<&str>, body: Value) -> Response<Body> {
    let bearer = format!("Bearer {who}");
    let mut headers = vec![("authorization", bearer.as_str())];
    headers.extend(session.map(|session| ("mcp-session-id", session)));
    send(front, "POST", "/mcp", &headers, body.to_string()).await
}

async fn session(front: &Arc<Front<Scripted>>, who: &str, version: &str) -> (String, Value) {
    let body = json!({ "jsonrpc": "2.0", "id": 0, "method": "initialize",
        "params": { "protocolVersion": version, "capabilities": { "roots": {} }, "clientInfo": { "name": "c" } } });
    let response = post_legacy(front, who, None, body).await;
    assert_eq!(response.status(), 200);
    let id = response.headers()["mcp-session-id"].to_str().unwrap().to_owned();
    (id, json_of(response).await)
}

fn notification() -> Event {
    let params = Json::of(&json!({ "progressToken": 1, "progress": 1 }));
    Event::Notification(Message::notification("notifications/progress", Some(&params)))
}

fn events(text: &str) -> Vec<Value> {
    let mut reader = sse::Reader::new(100_000);
    let mut events = Vec::new();
    reader.push(text.as_bytes(), &mut |event| events.push(serde_json::from_slice(&event.data).unwrap())).unwrap();
    events
}

#[tokio::test]
async fn without_a_token_every_method_is_told_where_to_get_one_and_nothing_else() {
    let front = front(Scripted::new([]));
    for verb in ["POST", "GET", "DELETE"] {
        for path in ["/mcp", "/mcp/git", "/mcp/not-there"] {
            let response = send(&front, verb, path, &[], "this is not read").await;
            assert_eq!(response.status(), StatusCode::UNAUTHORIZED);
            let challenge = response.headers()["www-authenticate"].to_str().unwrap().to_owned();
            let expected = format!("http://127.0.0.1:8080/.well-known/oauth-protected-resource{path}");
            assert_eq!(challenge, format!("Bearer resource_metadata=\"{expected}\", scope=\"deploy\""));
        }
    }
    let response = send(&front, "POST", "/mcp", &[("authorization", "Bearer bad")], "").await;
    assert!(response.headers()["www-authenticate"].to_str().unwrap().contains("error=\"invalid_token\""));
    assert_eq!(send(&front, "POST", "/mcp?access_token=ann", &[], "").await.status(), StatusCode::UNAUTHORIZED);
}

#[tokio::test]
async fn metadata_is_the_same_for_every_well_formed_name_and_open_to_every_page() {
    let front = front(Scripted::new([]));
    for path in ["", "/mcp", "/mcp/git", "/mcp/not-there"] {
        let path_and_root = format!("/.well-known/oauth-protected-resource{path}");
        let response = send(&front, "GET", &path_and_root, &[("origin", "http://localhost:6274")], "").await;
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        let document = json_of(response).await;
        let resource = if path.is_empty() { "/mcp" } else { path };
        assert_eq!(
            document,
            json!({ "resource": format!("http://127.0.0.1:8080{resource}"), "authorization_servers": ["https://idp.example"],
                "scopes_supported": ["deploy"], "bearer_methods_supported": ["header"], "resource_name": "Bailiwick",
                "dpop_signing_alg_values_supported": ["ES256", "ES384", "EdDSA", "PS256", "RS256"] })
        );
    }
    assert_eq!(send(&front, "GET", "/.well-known/oauth-protected-resource/other", &[], "").await.status(), 404);
    assert_eq!(send(&front, "GET", "/", &[], "").await.status(), 404);
    assert_eq!(send(&front, "POST", "/mcp/UPPER", &[], "").await.status(), 404);
}

#[tokio::test]
async fn what_changed_in_a_session_is_known_to_the_process_that_comes_after_this_one() {
    let (sealer, replica) = (|| Arc::new(Sealer::new([&[1_u8; 32][..]]).unwrap()), ReplicaId::new());
    let before = Front::new(Arc::new(Scripted::new([])), sealer(), replica);
    let (over, _) = session(&before, "ann", "2025-06-18").await;
    let (quiet, _) = session(&before, "ann", "2025-06-18").await;
    let (plain, _) = session(&before, "ann", "2025-06-18").await;
    let auth = ("authorization", "Bearer ann");
    assert_eq!(send(&before, "DELETE", "/mcp", &[auth, ("mcp-session-id", &over)], "").await.status(), 204);
    let level = json!({ "jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": { "level": "error" } });
    assert_eq!(post_legacy(&before, "ann", Some(&quiet), level).await.status(), 200);
    // What a session has subscribed to is known to this process alone.
    let (subscribed, _) = session(&before, "ann", "2025-06-18").await;
    let (_say, heard) = tokio::sync::mpsc::unbounded_channel();
    *before.pipeline.watched.lock().unwrap() = Some(heard);
    let subscribe = json!({ "jsonrpc": "2.0", "id": 1, "method": "resources/subscribe", "params": { "uri": "x:1" } });
    assert_eq!(post_legacy(&before, "ann", Some(&subscribed), subscribe).await.status(), 200);
    let ping = || json!({ "jsonrpc": "2.0", "id": 2, "method": "ping" });
    assert_eq!(post_legacy(&before, "ann", Some(&subscribed), ping()).await.status(), 200);
    assert_eq!(*before.pipeline.asked_of_sessions.lock().unwrap(), 0, "whoever began a session knows it");

    let kept = before.pipeline.sessions.lock().unwrap().clone();
    assert_eq!(kept.len(), 3);
    let pipeline = Scripted { sessions: std::sync::Mutex::new(kept), ..Scripted::new([]) };
    let after = Front::new(Arc::new(pipeline), sealer(), replica);
    let call = || json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": { "name": "a" } });
    for _ in 0..2 {
        assert_eq!(post_legacy(&after, "ann", Some(&over), call()).await.status(), 404);
        assert_eq!(post_legacy(&after, "ann", Some(&quiet), call()).await.status(), 200);
        assert_eq!(post_legacy(&after, "ann", Some(&plain), call()).await.status(), 200);
        assert_eq!(post_legacy(&after, "ann", Some(&subscribed), ping()).await.status(), 404);
    }
    let wanted: Vec<_> = after.pipeline.seen.lock().unwrap().iter().map(|seen| seen.client.log_level.clone()).collect();
    let wanted: Vec<_> = wanted.iter().map(|level| level.as_ref().map(Json::as_str)).collect();
    assert_eq!(wanted, [Some("\"error\""), None, Some("\"error\""), None]);
    assert_eq!(*after.pipeline.asked_of_sessions.lock().unwrap(), 4, "the store is asked once about each");
}

#[tokio::test]
async fn what_is_refused_to_a_caller_is_told_once_whatever_its_answer_looks_like() {
    let front = front(Scripted::new([]));
    let told = || std::mem::take(&mut *front.pipeline.declined.lock().unwrap());
    let ann = |reason| ("ann".to_owned(), reason);
    // As a document, and for a client that wants a stream.
    for accept in ["application/json", "text/event-stream, application/json"] {
        post_modern(&front, "ping", json!({}), &[("accept", accept)]).await;
        assert_eq!(told(), [ann(Reason::MethodUnknown)], "{accept}");
    }
    let (old, _) = session(&front, "ann", "2025-03-26").await;
    let message = |id: u8, method: &str| json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": {} });
    // Each message of a batch is one by itself, and those that are answered are none.
    let batch = json!([message(1, "ping"), message(2, "server/discover"), 7, message(3, "initialized")]);
    let answer = json_of(post_legacy(&front, "ann", Some(&old), batch).await).await;
    assert_eq!(answer.as_array().unwrap().len(), 4, "{answer}");
    assert_eq!(told(), [ann(Reason::MethodUnknown), ann(Reason::RequestInvalid), ann(Reason::MethodUnknown)]);
    let response =
        send(&front, "DELETE", "/mcp", &[("authorization", "Bearer ann"), ("mcp-session-id", "x")], "").await;
    assert_eq!((response.status(), told()), (StatusCode::NOT_FOUND, vec![ann(Reason::SessionUnknown)]));
    // Whoever is not authenticated is counted elsewhere, and what is answered is not told at all.
    send(&front, "POST", "/mcp", &[("authorization", "Bearer bad")], "{").await;
    post_modern(&front, "tools/list", json!({}), &[]).await;
    assert_eq!(told(), []);
}

#[tokio::test]
async fn a_foreign_host_or_origin_is_refused_before_anything_is_read() {
    let front = front(Scripted::new([]));
    for path in ["/mcp", "/.well-known/oauth-protected-resource"] {
        let foreign = Request::builder().uri(path).header("host", "evil.example").body(Body::empty()).unwrap();
        assert_eq!(front.answer(foreign, IpAddr::V4(Ipv4Addr::LOCALHOST)).await.status(), 403);
        let response = send(&front, "POST", path, &[("origin", "http://evil.example")], "x").await;
        assert_eq!(response.status(), 403);
        assert!(!response.headers().contains_key("access-control-allow-origin"));
    }
    assert_eq!(
        front.pipeline.refusals.lock().unwrap().as_slice(),
        [Reason::HostRefused, Reason::OriginRefused, Reason::HostRefused, Reason::OriginRefused]
    );
    let allowed = send(&front, "POST", "/mcp", &[("origin", "http://localhost:6274")], "").await;
    assert_eq!(
        (allowed.status(), allowed.headers()["access-control-allow-origin"].to_str().unwrap()),
        (StatusCode::UNAUTHORIZED, "http://localhost:6274")
    );
    let asked = [("origin", "http://localhost:6274"), ("access-control-request-headers", "authorization")];
    let preflight = send(&front, "OPTIONS", "/mcp", &asked, "").await;
    assert_eq!(
        (preflight.status(), preflight.headers()["access-control-allow-headers"].to_str().unwrap()),
        (StatusCode::NO_CONTENT, "authorization")
    );
}

#[tokio::test]
async fn probes_need_neither_host_nor_token() {
    let probe = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
    let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let ready = front(Scripted::new([]));
    assert_eq!(ready.answer(probe("/healthz"), peer).await.status(), 200);
    assert_eq!(ready.answer(probe("/readyz"), peer).await.status(), 200);
    let unready = front(Scripted { ready: false, ..Scripted::new([]) });
    assert_eq!(unready.answer(probe("/healthz"), peer).await.status(), 200);
    assert_eq!(unready.answer(probe("/readyz"), peer).await.status(), 503);
}

#[tokio::test]
async fn a_call_that_just_ends_is_answered_as_json() {
    let front = front(Scripted::new([]));
    let named = [("mcp-name", "add"), ("mcp-param-region", "=?base64?w7x4?=")];
    let response = post_modern(&front, "tools/call", json!({ "name": "add", "arguments": {} }), &named).await;
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], "application/json");
    assert_eq!(
        json_of(response).await,
        json!({ "jsonrpc": "2.0", "id": 7, "result": { "resultType": "complete", "content": [] } })
    );
    let seen = front.pipeline.seen.lock().unwrap();
    assert_eq!(seen[0].header_parameters, [("mcp-param-region".to_owned(), "üx".to_owned())]);
    assert_eq!(seen[0].client.capabilities.as_str(), "{}");
}

#[tokio::test]
async fn a_client_that_names_the_stream_first_gets_its_answer_as_the_only_event_of_one() {
    let front = front(Scripted::new([]));
    for (accept, streams) in [
        ("text/event-stream, application/json", true),
        ("text/event-stream", true),
        ("application/json, text/event-stream", false),
        ("text/event-stream;q=0.5, application/json", false),
        ("*/*", false),
    ] {
        let named = [("mcp-name", "add"), ("accept", accept)];
        let response = post_modern(&front, "tools/call", json!({ "name": "add" }), &named).await;
        assert_eq!(response.status(), 200);
        let kind = if streams { "text/event-stream" } else { "application/json" };
        assert_eq!(response.headers()["content-type"], kind, "{accept}");
        if streams {
            let events = events(&text(response).await);
            assert_eq!(events.len(), 1);
            assert_eq!((&events[0]["id"], &events[0]["result"]["resultType"]), (&json!(7), &json!("complete")));
        }
    }
}

#[tokio::test]
async fn a_call_that_says_something_first_is_answered_as_events() {
    let front = front(Scripted::new([notification(), notification()]));
    let response = post_modern(&front, "tools/call", json!({ "name": "add" }), &[("mcp-name", "add")]).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    assert_eq!(response.headers()["x-accel-buffering"], "no");
    let events = events(&text(response).await);
    assert_eq!(events.len(), 3);
    assert_eq!(
        (&events[0]["method"], &events[1]["method"]),
        (&json!("notifications/progress"), &json!("notifications/progress"))
    );
    assert_eq!((&events[2]["id"], &events[2]["result"]["resultType"]), (&json!(7), &json!("complete")));
    assert_eq!(*front.pipeline.cancelled.lock().unwrap(), 0);
}

#[tokio::test]
async fn a_modern_client_that_goes_away_cancels_its_call() {
    let front = front(Scripted { hang: true, ..Scripted::new([notification()]) });
    let response = post_modern(&front, "tools/call", json!({ "name": "add" }), &[("mcp-name", "add")]).await;
    assert_eq!(*front.pipeline.cancelled.lock().unwrap(), 0);
    drop(response);
    assert_eq!(*front.pipeline.cancelled.lock().unwrap(), 1);
}

#[tokio::test]
async fn modern_requests_are_refused_with_the_codes_of_the_specification() {
    let front = front(Scripted::new([]));
    let auth = ("authorization", "Bearer ann");
    let version = ("mcp-protocol-version", MODERN);
    let body = modern("tools/list", json!({}));
    let other_version = body.replace(MODERN, "2031-01-01");
    let legacy_version = body.replace(MODERN, "2025-11-25");
    let without_capabilities = body.replace("clientCapabilities", "x");
    let bare = r#"{"jsonrpc":"2.0","id":7,"method":"tools/list"}"#;
    let removed = modern("initialize", json!({ "protocolVersion": MODERN }));
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, i64);
    let table: &[Row<'_>] = &[
        ("no version header", &[auth, ("mcp-method", "tools/list")], &body, 400, -32020),
        ("another version header", &[auth, ("mcp-protocol-version", "2025-11-25")], &body, 400, -32020),
        ("two version headers", &[auth, version, version], &body, 400, -32020),
        ("no method header", &[auth, version], &body, 400, -32020),
        ("another method header", &[auth, version, ("mcp-method", "tools/call")], &body, 400, -32020),
        (
            "a version to come",
            &[auth, ("mcp-protocol-version", "2031-01-01"), ("mcp-method", "tools/list")],
            &other_version,
            400,
            -32022,
        ),
        (
            "a legacy version",
            &[auth, ("mcp-protocol-version", "2025-11-25"), ("mcp-method", "tools/list")],
            &legacy_version,
            400,
            -32022,
        ),
        ("no capabilities", &[auth, version, ("mcp-method", "tools/list")], &without_capabilities, 400, -32602),
        ("no _meta", &[auth, version, ("mcp-method", "tools/list")], bare, 400, -32602),
        ("a removed method", &[auth, version, ("mcp-method", "initialize")], &removed, 404, -32601),
        ("a response", &[auth, version], r#"{"jsonrpc":"2.0","id":7,"result":{}}"#, 400, -32600),
        ("not JSON", &[auth, version], "{", 400, -32700),
        ("a duplicate key", &[auth, version], r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"a"}"#, 400, -32700),
        ("not JSON-RPC", &[auth, version], "{}", 400, -32600),
        ("a batch", &[auth], " [{}]", 400, -32600),
    ];
    for (what, headers, body, status, code) in table {
        let response = send(&front, "POST", "/mcp", headers, (*body).to_owned()).await;
        assert_eq!(response.status(), *status, "{what}");
        let error = json_of(response).await;
        assert_eq!(error["error"]["code"], *code, "{what}: {error}");
        if *code == -32022 {
            assert_eq!(
                error["error"]["data"]["supported"],
                json!(["2026-07-28", "2025-11-25", "2025-06-18", "2025-03-26"])
            );
            assert!(error["error"]["data"]["requested"].is_string());
        }
    }
    // Methods that the protocol does not have may be an extension's: those the pipeline decides.
    for method in ["ping", "logging/setLevel", "resources/subscribe", "tasks/result"] {
        let response = post_modern(&front, method, json!({ "taskId": "x" }), &[("mcp-name", "x")]).await;
        assert_eq!(response.status(), 404, "{method}");
        assert_eq!(json_of(response).await["error"]["code"], -32601);
    }
    assert!(front.pipeline.seen.lock().unwrap().is_empty());
    for verb in ["GET", "DELETE", "PUT"] {
        let response = send(&front, verb, "/mcp", &[auth, version], "").await;
        assert_eq!(
            (response.status(), response.headers()["allow"].to_str().unwrap()),
            (StatusCode::METHOD_NOT_ALLOWED, "POST")
        );
    }
    let notification = r#"{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"requestId":7}}"#;
    assert_eq!(send(&front, "POST", "/mcp", &[auth, version], notification).await.status(), 202);
}

#[tokio::test]
async fn a_body_above_the_bound_is_refused_however_it_is_announced() {
    let front = front(Scripted::new([]));
    let auth = [("authorization", "Bearer ann")];
    let huge = vec![b' '; limit::REQUEST_BYTES_MAX + 1];
    assert_eq!(send(&front, "POST", "/mcp", &auth, huge.clone()).await.status(), 413);
    let chunks: Vec<_> =
        huge.chunks(100_000).map(|chunk| Ok::<_, std::io::Error>(bytes::Bytes::copy_from_slice(chunk))).collect();
    let unannounced = Body::from_stream(futures_util::stream::iter(chunks));
    assert_eq!(send(&front, "POST", "/mcp", &auth, unannounced).await.status(), 413);
    let fits = vec![b' '; limit::REQUEST_BYTES_MAX];
    assert_eq!(send(&front, "POST", "/mcp", &auth, fits).await.status(), 400);
}

#[tokio::test]
async fn a_listen_acknowledges_then_tags_and_ends_with_a_response() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pipeline = Scripted::new([]);
    *pipeline.watched.lock().unwrap() = Some(receiver);
    let front = front(pipeline);
    let filter = json!({ "notifications": { "toolsListChanged": true, "resourceSubscriptions": ["a://b"] } });
    let response = post_modern(&front, "subscriptions/listen", filter.clone(), &[]).await;
    sender.send(Watched::Notification(Message::notification("notifications/tools/list_changed", None))).unwrap();
    sender.send(Watched::Ended(Reason::ShuttingDown)).unwrap();
    let events = events(&text(response).await);
    let tag = json!({ "io.modelcontextprotocol/subscriptionId": 7 });
    assert_eq!(
        events[0],
        json!({ "jsonrpc": "2.0", "method": "notifications/subscriptions/acknowledged",
        "params": { "notifications": { "toolsListChanged": true }, "_meta": tag } })
    );
    assert_eq!(
        events[1],
        json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed", "params": { "_meta": tag } })
    );
    assert_eq!(events[2], json!({ "jsonrpc": "2.0", "id": 7, "result": { "resultType": "complete", "_meta": tag } }));
    assert_eq!(post_modern(&front, "subscriptions/listen", filter, &[]).await.status(), 429);
    let wrong = post_modern(&front, "subscriptions/listen", json!({}), &[]).await;
    assert_eq!(json_of(wrong).await["error"]["code"], -32602);
}

#[tokio::test]
async fn initialize_settles_the_version_and_a_session_that_later_requests_name() {
    let front = front(Scripted::new([]));
    for (asked, settled) in
        [("2025-06-18", "2025-06-18"), ("2025-03-26", "2025-03-26"), (MODERN, "2025-11-25"), ("x", "2025-11-25")]
    {
        let (id, result) = session(&front, "ann", asked).await;
        assert_eq!(result["result"]["protocolVersion"], settled);
        let ping = json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" });
        // Gemini CLI names no version afterwards.
        let response = post_legacy(&front, "ann", Some(&id), ping).await;
        assert_eq!(json_of(response).await, json!({ "jsonrpc": "2.0", "id": "p", "result": {} }));
        let initialized = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        assert_eq!(post_legacy(&front, "ann", Some(&id), initialized).await.status(), 202);
        let answer = json!({ "jsonrpc": "2.0", "id": 1, "result": {} });
        assert_eq!(post_legacy(&front, "ann", Some(&id), answer).await.status(), 202);
    }
    let seen = front.pipeline.seen.lock().unwrap();
    assert_eq!(seen[0].client.capabilities.as_str(), r#"{"roots":{}}"#);
}

#[tokio::test]
async fn a_session_is_needed_and_is_one_callers_until_it_is_deleted() {
    let front = front(Scripted::new([]));
    let (id, _) = session(&front, "ann", "2025-11-25").await;
    let list = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/list" });
    assert_eq!(post_legacy(&front, "ann", None, list.clone()).await.status(), 400);
    assert_eq!(post_legacy(&front, "ann", Some("nonsense"), list.clone()).await.status(), 404);
    assert_eq!(post_legacy(&front, "bob", Some(&id), list.clone()).await.status(), 404);
    let listed = json_of(post_legacy(&front, "ann", Some(&id), list.clone()).await).await;
    assert_eq!(listed["result"]["tools"][0]["name"], "ann");
    let headers = |version: &'static str| {
        [("authorization", "Bearer ann"), ("mcp-session-id", id.as_str()), ("mcp-protocol-version", version)]
    };
    assert_eq!(send(&front, "POST", "/mcp", &headers("2025-11-25"), list.to_string()).await.status(), 200);
    assert_eq!(send(&front, "POST", "/mcp", &headers("2025-06-18"), list.to_string()).await.status(), 400);
    assert_eq!(send(&front, "POST", "/mcp/git", &headers("2025-11-25"), list.to_string()).await.status(), 404);
    assert_eq!(send(&front, "DELETE", "/mcp", &headers("2025-11-25"), "").await.status(), 204);
    assert_eq!(send(&front, "DELETE", "/mcp", &headers("2025-11-25"), "").await.status(), 404);
    assert_eq!(post_legacy(&front, "ann", Some(&id), list).await.status(), 404);
}

#[tokio::test]
async fn legacy_errors_are_answered_with_status_200() {
    let front = front(Scripted::new([]));
    let (id, _) = session(&front, "ann", "2025-11-25").await;
    for method in ["server/discover", "subscriptions/listen"] {
        let response =
            post_legacy(&front, "ann", Some(&id), json!({ "jsonrpc": "2.0", "id": 1, "method": method })).await;
        assert_eq!(response.status(), 200, "{method}");
        assert_eq!(json_of(response).await["error"]["code"], -32601, "{method}");
    }
    let wrong = json!({ "jsonrpc": "2.0", "id": 1, "method": "initialize", "params": { "capabilities": {} } });
    assert_eq!(json_of(post_legacy(&front, "ann", None, wrong).await).await["error"]["code"], -32602);
    assert!(
        json_of(
            post_legacy(&front, "ann", Some(&id), json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call" })).await
        )
        .await["result"]["resultType"]
            .is_null()
    );
}

#[tokio::test]
async fn a_log_level_holds_for_the_session() {
    let front = front(Scripted::new([]));
    let (id, _) = session(&front, "ann", "2025-11-25").await;
    let set =
        |level: &str| json!({ "jsonrpc": "2.0", "id": 1, "method": "logging/setLevel", "params": { "level": level } });
    assert_eq!(json_of(post_legacy(&front, "ann", Some(&id), set("loud")).await).await["error"]["code"], -32602);
    assert_eq!(json_of(post_legacy(&front, "ann", Some(&id), set("warning")).await).await["result"], json!({}));
    let call = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/call", "params": { "name": "add" } });
    post_legacy(&front, "ann", Some(&id), call).await;
    let seen = front.pipeline.seen.lock().unwrap();
    assert_eq!(seen.last().unwrap().client.log_level.as_ref().unwrap().as_str(), "\"warning\"");
}

#[tokio::test]
async fn a_legacy_call_goes_on_without_its_client_until_it_is_cancelled() {
    let front = front(Scripted { hang: true, ..Scripted::new([notification()]) });
    let (id, _) = session(&front, "ann", "2025-11-25").await;
    let call = json!({ "jsonrpc": "2.0", "id": 9, "method": "tools/call", "params": { "name": "add" } });
    let response = post_legacy(&front, "ann", Some(&id), call.clone()).await;
    assert_eq!(response.headers()["content-type"], "text/event-stream");
    let again = post_legacy(&front, "ann", Some(&id), call).await;
    assert_eq!(again.status(), 400, "the same id is in flight");
    drop(response);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(*front.pipeline.cancelled.lock().unwrap(), 0);
    let cancel = json!({ "jsonrpc": "2.0", "method": "notifications/cancelled", "params": { "requestId": 9 } });
    assert_eq!(post_legacy(&front, "ann", Some(&id), cancel).await.status(), 202);
    for _ in 0..100 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        if *front.pipeline.cancelled.lock().unwrap() == 1 {
            return;
        }
    }
    panic!("the call was not cancelled");
}

#[tokio::test]
async fn a_session_has_one_stream_and_the_newest_wins() {
    let (sender, receiver) = mpsc::unbounded_channel();
    let pipeline = Scripted::new([]);
    *pipeline.watched.lock().unwrap() = Some(receiver);
    let front = front(pipeline);
    let (id, _) = session(&front, "ann", "2025-11-25").await;
    let auth = ("authorization", "Bearer ann");
    let headers = [auth, ("mcp-session-id", id.as_str()), ("accept", "text/event-stream")];
    assert_eq!(send(&front, "GET", "/mcp", &[auth, ("accept", "text/event-stream")], "").await.status(), 400);
    assert_eq!(send(&front, "GET", "/mcp", &[auth, ("mcp-session-id", &id)], "").await.status(), 406);
    let older = send(&front, "GET", "/mcp", &headers, "").await;
    assert_eq!(older.status(), 200);
    sender.send(Watched::Notification(Message::notification("notifications/tools/list_changed", None))).unwrap();
    let mut older = older.into_body();
    assert_eq!(older.frame().await.unwrap().unwrap().into_data().unwrap(), "id: 0-0\nretry: 1000\ndata:\n\n");
    let event = older.frame().await.unwrap().unwrap().into_data().unwrap();
    assert_eq!(events(std::str::from_utf8(&event).unwrap())[0]["method"], "notifications/tools/list_changed");
    let newer = send(&front, "GET", "/mcp", &headers, "").await;
    assert_eq!(newer.status(), 200);
    assert!(older.frame().await.is_none());
    let deleted = send(&front, "DELETE", "/mcp", &headers, "").await;
    assert_eq!(deleted.status(), 204);
    assert_eq!(text(newer).await, "id: 0-1\nretry: 1000\ndata:\n\n");
}

#[tokio::test]
async fn an_upstreams_error_keeps_its_bytes_and_gets_the_status_of_its_era() {
    let error = Json::of(&json!({ "code": -32601, "message": "no", "data": { "z": 1, "a": 2 } }));
    let front = front(Scripted::new([Event::Done(Outcome::Error(error.clone()))]));
    let response = post_modern(&front, "prompts/get", json!({ "name": "p" }), &[("mcp-name", "p")]).await;
    assert_eq!(response.status(), 404);
    assert_eq!(text(response).await, format!(r#"{{"jsonrpc":"2.0","id":7,"error":{}}}"#, error.as_str()));
}

#[test]
fn what_a_caller_proves_itself_with_never_goes_further() {
    let named = ["X-Request-Id", "Authorization", "cookie", "dpop", "not a name", "x-request-id", "mcp-session-id"];
    let named: Vec<String> = named.map(str::to_owned).into();
    assert_eq!(super::outside::forwardable(named.iter()), ["x-request-id"]);
}

/// Pieces that requests are made of, so that random bodies come near to real ones.
fn piece() -> impl Strategy<Value = String> {
    const PIECES: &[&str] = &[
        "{",
        "}",
        "[",
        "]",
        ":",
        ",",
        "\"",
        "\\",
        "\r\n",
        "null",
        "7",
        "\"jsonrpc\":\"2.0\"",
        "\"id\":1",
        "\"id\":\"a\"",
        "\"method\":\"tools/call\"",
        "\"method\":\"initialize\"",
        "\"method\":\"notifications/cancelled\"",
        "\"params\":{\"name\":\"a\"}",
        "\"params\":{\"_meta\":{\"io.modelcontextprotocol/protocolVersion\":\"2026-07-28\"}}",
        "\"result\":{}",
        "\"error\":{}",
        "\u{0}",
        "é",
    ];
    proptest::sample::select(PIECES).prop_map(str::to_owned)
}

proptest! {
    #[test]
    fn whatever_is_posted_is_answered_with_nothing_or_with_one_message(
        inner in proptest::collection::vec(piece(), 0..6), whole in any::<bool>(),
        version in proptest::sample::select(&["", "2026-07-28", "2025-11-25", "9999-99-99", "x"][..]),
        session in any::<bool>(), verb in proptest::sample::select(&["POST", "GET", "DELETE", "PUT"][..]),
    ) {
        let body = if whole { format!("{{\"jsonrpc\":\"2.0\",{}}}", inner.join(",")) } else { inner.concat() };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
        runtime.block_on(async {
            let front = front(Scripted::new([]));
            let mut headers = vec![("authorization", "Bearer ann"), ("accept", "text/event-stream")];
            if !version.is_empty() {
                headers.push(("mcp-protocol-version", version));
            }
            if session {
                headers.push(("mcp-session-id", "AQAAAA"));
            }
            let response = send(&front, verb, "/mcp", &headers, body).await;
            let status = response.status().as_u16();
            let text = text(response).await;
            prop_assert!([200, 202, 400, 404, 405].contains(&status), "{status} {text}");
            prop_assert!(text.is_empty() || Message::parse(text.clone(), crate::wire::Source::Upstream).is_ok(), "{text}");
            Ok(())
        })?;
    }
}
