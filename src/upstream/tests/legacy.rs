//! Upstreams of 2025-11-25 and before over HTTP: sessions, requests from the server, cancellation.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::wire::mcp::{Kind, Version};

/// A legacy upstream that knows sessions; tool calls and GET are answered as a test says.
async fn legacy_fake<F, R>(answer: F) -> Fake
where
    F: Fn(Seen) -> R + Clone + Send + Sync + 'static,
    R: Future<Output = Response> + Send,
{
    let sessions = Arc::new(AtomicUsize::new(0));
    Fake::start(move |seen: Seen| {
        let (answer, sessions) = (answer.clone(), Arc::clone(&sessions));
        async move {
            match seen.method() {
                "initialize" => {
                    // Slow, so that many at once really are many at once.
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    let number = sessions.fetch_add(1, Ordering::SeqCst) + 1;
                    let result = json!({ "protocolVersion": seen.body["params"]["protocolVersion"],
                        "capabilities": { "tools": { "listChanged": true } }, "instructions": "old",
                        "serverInfo": { "name": "old", "version": "0" } });
                    let mut response = seen.result(result);
                    response.headers_mut().insert("mcp-session-id", format!("session-{number}").parse().unwrap());
                    response
                }
                "server/discover" => seen.error(400, -32000),
                "notifications/initialized" => empty(202),
                method if method.starts_with("notifications/") => empty(202),
                _ if seen.verb == Method::DELETE => empty(200),
                _ if seen.verb == Method::POST && seen.body.get("result").or(seen.body.get("error")).is_some() => {
                    empty(202)
                }
                _ => answer(seen).await,
            }
        }
    })
    .await
}

fn no_stream(seen: &Seen) -> Option<Response> {
    (seen.verb == Method::GET).then(|| empty(405))
}

async fn plain() -> Fake {
    legacy_fake(|seen: Seen| async move {
        no_stream(&seen).unwrap_or_else(|| {
            let session = seen.header("mcp-session-id").unwrap().to_owned();
            seen.result(json!({ "session": session, "resultType": "input_required" }))
        })
    })
    .await
}

#[tokio::test]
async fn each_principal_has_a_session_of_its_own_made_once() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    let calls: Vec<_> = (0..12)
        .map(|n| tokio::spawn(outcome(upstreams.send(dispatch(n % 3, tool_call("t", json!({ "n": n })))))))
        .collect();
    let mut sessions: Vec<Vec<String>> = vec![Vec::new(); 3];
    for (n, call) in calls.into_iter().enumerate() {
        let result = completed(call.await.unwrap());
        assert!(result.get("resultType").is_none(), "a legacy server cannot ask for input like that");
        sessions[n % 3].push(result["session"].as_str().unwrap().to_owned());
    }
    for own in &mut sessions {
        own.dedup();
        assert_eq!(own.len(), 1);
    }
    sessions.dedup();
    assert_eq!(sessions.len(), 3);
    let seen = fake.seen("tools/call").remove(0);
    assert_eq!(seen.header("mcp-protocol-version"), Some("2025-11-25"));
    assert_eq!(seen.header("mcp-method"), None);
    assert!(seen.body["params"].get("_meta").is_none(), "modern keys are not for legacy servers");
    let initialize = fake.seen("initialize").remove(0);
    assert_eq!(initialize.body["params"]["capabilities"], json!({}));
}

#[tokio::test]
async fn a_session_that_nobody_uses_is_ended_and_the_next_call_begins_another() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    let session = async || completed(call(&upstreams, 1).await)["session"].as_str().unwrap().to_owned();
    let first = session().await;
    assert_eq!(session().await, first);
    tokio::time::pause();
    tokio::time::advance(crate::limit::SESSION_IDLE + crate::limit::IDLE_SWEEP).await;
    tokio::time::resume();
    // Its server is told.
    fake.saw(|seen| seen.verb == Method::DELETE && seen.header("mcp-session-id") == Some(first.as_str())).await;
    assert_ne!(session().await, first);
}

#[tokio::test]
async fn a_shared_server_has_one_session_for_all() {
    let fake = plain().await;
    let upstreams = upstreams(ServerConfig { isolation: Isolation::Shared, ..entry(fake.transport()) });
    let one = completed(call(&upstreams, 1).await);
    assert_eq!(one, completed(call(&upstreams, 2).await));
}

#[tokio::test]
async fn a_lost_session_is_replaced_in_silence_only_while_it_carried_nothing() {
    let lost = Arc::new(Mutex::new(Vec::<String>::new()));
    let gone = Arc::clone(&lost);
    let fake = legacy_fake(move |seen: Seen| {
        let session = seen.header("mcp-session-id").unwrap().to_owned();
        let gone = gone.lock().unwrap().contains(&session);
        async move {
            match no_stream(&seen) {
                Some(response) => response,
                None if gone => empty(404),
                None => seen.result(json!({ "session": session, "tools": [] })),
            }
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let access = Access { principal: Some(principal(1)), ..Access::bare() };
    upstreams.list(&id(), &access, Kind::Tool).await.unwrap();
    let first = fake.seen("tools/list").remove(0).header("mcp-session-id").unwrap().to_owned();
    lost.lock().unwrap().push(first.clone());
    let second = completed(call(&upstreams, 1).await)["session"].as_str().unwrap().to_owned();
    assert_ne!(first, second, "nothing was executed in the first, so it is replaced");
    lost.lock().unwrap().push(second.clone());
    assert_eq!(told(call(&upstreams, 1).await).0, Reason::UpstreamSessionLost);
    let third = completed(call(&upstreams, 1).await)["session"].as_str().unwrap().to_owned();
    assert_ne!(second, third, "the next call begins anew");
}

#[tokio::test]
async fn a_call_that_went_wrong_with_a_code_of_lost_sessions_is_not_sent_again() {
    for code in [-32000, -32001] {
        // It does what it is called for, and then says that something went wrong.
        let fake = legacy_fake(move |seen: Seen| async move {
            match no_stream(&seen) {
                Some(response) => response,
                None => seen.error(400, code),
            }
        })
        .await;
        for isolation in [Isolation::Principal, Isolation::Shared] {
            fake.seen.lock().unwrap().clear();
            let upstreams = upstreams(ServerConfig { isolation, ..entry(fake.transport()) });
            assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamSessionLost, true), "{code}");
            assert_eq!(fake.seen("tools/call").len(), 1, "{code}: it may have been executed");
        }
        let access = Access { principal: Some(principal(2)), ..Access::bare() };
        let fresh = legacy_fake(move |seen: Seen| async move {
            match no_stream(&seen) {
                Some(response) => response,
                None if seen.header("mcp-session-id") == Some("session-1") => seen.error(400, code),
                None => seen.result(json!({ "tools": [] })),
            }
        })
        .await;
        let upstreams = upstreams(ServerConfig { isolation: Isolation::Shared, ..entry(fresh.transport()) });
        upstreams.list(&id(), &access, Kind::Tool).await.unwrap();
        assert_eq!(fresh.seen("tools/list").len(), 2, "{code}: a list may be asked for again");
    }
}

#[tokio::test]
async fn whoever_calls_next_is_told_that_housekeeping_has_replaced_a_session_that_carried_calls() {
    let lost = Arc::new(Mutex::new(Vec::<String>::new()));
    let gone = Arc::clone(&lost);
    let fake = legacy_fake(move |seen: Seen| {
        let session = seen.header("mcp-session-id").unwrap().to_owned();
        let gone = gone.lock().unwrap().contains(&session);
        async move {
            match no_stream(&seen) {
                Some(response) => response,
                None if gone => empty(404),
                None => seen.result(json!({ "session": session, "tools": [] })),
            }
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let first = completed(call(&upstreams, 1).await)["session"].as_str().unwrap().to_owned();
    lost.lock().unwrap().push(first.clone());
    let access = Access { principal: Some(principal(1)), ..Access::bare() };
    upstreams.list(&id(), &access, Kind::Tool).await.unwrap();
    assert_eq!(fake.seen("tools/list").len(), 2, "a list is none the worse for it");
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamSessionLost, false));
    assert_eq!(fake.seen("tools/call").len(), 1, "nothing of it was sent");
    assert_ne!(completed(call(&upstreams, 1).await)["session"], first, "once is enough");
}

#[tokio::test]
async fn a_server_that_asks_within_a_call_is_answered_and_the_call_goes_on() {
    let fake = legacy_fake(|seen: Seen| async move {
        no_stream(&seen).unwrap_or_else(|| {
            stream(vec![
                event(&json!({ "jsonrpc": "2.0", "id": "p", "method": "ping" })),
                event(&json!({ "jsonrpc": "2.0", "id": "q", "method": "elicitation/create", "params": {} })),
                event(&json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": { "content": [] } })),
            ])
        })
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(completed(call(&upstreams, 1).await), json!({ "content": [] }));
    let ping = fake.saw(|seen| seen.body["id"] == "p").await;
    assert_eq!(ping.body["result"], json!({}));
    assert!(ping.header("mcp-session-id").is_some());
    assert_eq!(fake.saw(|seen| seen.body["id"] == "q").await.body["error"]["code"], -32601);
    assert!(fake.seen("notifications/cancelled").is_empty());
}

#[tokio::test]
async fn dropping_an_exchange_sends_a_cancellation() {
    for as_stream in [false, true] {
        let fake = legacy_fake(move |seen: Seen| async move {
            match no_stream(&seen) {
                Some(response) => response,
                None if as_stream => {
                    let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
                    stream(vec![event(&log), None])
                }
                None => std::future::pending().await,
            }
        })
        .await;
        let upstreams = upstreams(entry(fake.transport()));
        let mut exchange = upstreams.send(dispatch(1, tool_call("t", json!({}))));
        let _ = tokio::time::timeout(Duration::from_millis(500), exchange.next()).await;
        let request = fake.saw(|seen| seen.method() == "tools/call").await;
        drop(exchange);
        let cancelled = fake.saw(|seen| seen.method() == "notifications/cancelled").await;
        assert_eq!(cancelled.body["params"]["requestId"], request.body["id"]);
        assert_eq!(cancelled.header("mcp-session-id"), request.header("mcp-session-id"));
    }
}

#[tokio::test]
async fn a_stream_that_breaks_off_is_taken_up_where_it_ended() {
    let fake = legacy_fake(|seen: Seen| async move {
        if seen.verb == Method::GET {
            let Some(last) = seen.header("last-event-id") else { return empty(405) };
            let number: i64 = last.strip_prefix("e-").unwrap().parse().unwrap();
            return stream(vec![event(&json!({ "jsonrpc": "2.0", "id": number, "result": { "resumed": true } }))]);
        }
        stream(vec![Some(format!("id: e-{}\nretry: 10\ndata:\n\n", seen.body["id"]))])
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(completed(call(&upstreams, 1).await), json!({ "resumed": true }));
}

#[tokio::test]
async fn sessions_are_ended_when_the_gateway_stops() {
    let fake = plain().await;
    let upstreams = upstreams(entry(fake.transport()));
    let session = completed(call(&upstreams, 1).await)["session"].as_str().unwrap().to_owned();
    upstreams.shutdown().await;
    let ended: Vec<_> = fake.seen.lock().unwrap().iter().filter(|seen| seen.verb == Method::DELETE).cloned().collect();
    assert!(ended.iter().any(|seen| seen.header("mcp-session-id") == Some(&session)));
}

#[tokio::test]
async fn the_stream_of_the_gateways_session_tells_that_a_list_changed() {
    let fake = legacy_fake(|seen: Seen| async move {
        if seen.verb == Method::GET {
            return stream(vec![
                event(&json!({ "jsonrpc": "2.0", "method": "notifications/tools/list_changed" })),
                event(&json!({ "jsonrpc": "2.0", "id": 5, "method": "ping" })),
                None,
            ]);
        }
        seen.result(json!({ "tools": [] }))
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut changes = upstreams.changes();
    let listing = upstreams.list(&id(), &Access::bare(), Kind::Tool).await.unwrap();
    assert_eq!(listing.ttl, None);
    next_change(&mut changes, &Change::Listed(id(), Kind::Tool)).await;
    fake.saw(|seen| seen.body["id"] == 5 && seen.body.get("result").is_some()).await;
    let facts = upstreams.facts(&id(), &Access::bare()).await.unwrap();
    assert_eq!((facts.version, facts.instructions.as_deref()), (Version::V2025_11_25, Some("old")));
}

#[tokio::test]
async fn the_gateways_own_credential_is_not_presented_in_the_background_once_it_is_used_up_or_taken_back() {
    for how in ["taken back", "used up"] {
        let (open, closed) = (Arc::new(AtomicUsize::new(0)), tokio_util::sync::CancellationToken::new());
        let (opened, over) = (Arc::clone(&open), closed.clone());
        let fake = legacy_fake(move |seen: Seen| {
            let (opened, over) = (Arc::clone(&opened), over.clone());
            async move {
                if seen.verb != Method::GET {
                    return seen.result(json!({ "tools": [] }));
                }
                opened.fetch_add(1, Ordering::SeqCst);
                let ends = over.drop_guard();
                let body = futures_util::stream::unfold(ends, |ends| async move {
                    std::future::pending::<()>().await;
                    Some((Ok::<_, std::convert::Infallible>(Bytes::new()), ends))
                });
                let answer = Response::builder().header("content-type", "text/event-stream");
                answer.body(Body::from_stream(body)).unwrap()
            }
        })
        .await;
        let upstreams = upstreams(entry(fake.transport()));
        let taken_back = tokio_util::sync::CancellationToken::new();
        let until = jiff::Timestamp::now().as_second() + if how == "used up" { 2 } else { 600 };
        let header = CredentialHeader::new(http::header::AUTHORIZATION, "Bearer own".to_owned().into());
        let credential = Some(header.until(Some(until)).standing(&taken_back));
        upstreams.facts(&id(), &Access { credential, ..Access::bare() }).await.unwrap();
        fake.saw(|seen| seen.verb == Method::GET && seen.header("authorization") == Some("Bearer own")).await;
        if how == "taken back" {
            taken_back.cancel();
        }
        let ended = tokio::time::timeout(Duration::from_secs(5), closed.cancelled());
        assert!(ended.await.is_ok(), "{how}: what it opened is over");
        fake.seen.lock().unwrap().clear();
        // Both that listen and that probe go on by themselves.
        let server = upstreams.server(&id()).unwrap();
        server.link.found.notify_one();
        server.link.unreachable("for a moment".to_owned());
        fake.saw(|seen| seen.method() == "server/discover").await;
        // As long as a listener would take to come back.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let presented = fake.seen.lock().unwrap().iter().any(|seen| seen.headers.contains_key("authorization"));
        assert!(!presented, "{how}");
    }
}

#[tokio::test]
async fn every_way_of_not_knowing_discover_is_legacy() {
    for how in 0..9 {
        let fake = Fake::start(move |seen: Seen| async move {
            match seen.method() {
                "server/discover" => match how {
                    0 => seen.error(200, -32601),
                    1 => seen.error(200, -32602),
                    2 => seen.error(400, -32000),
                    3 => empty(404),
                    4 => empty(405),
                    5 => empty(500),
                    6 => Response::new(Body::from("hello")),
                    7 => seen.result(json!({})),
                    _ => empty(202),
                },
                "initialize" => seen.result(json!({ "protocolVersion": "2025-06-18", "capabilities": {} })),
                "notifications/initialized" => empty(202),
                _ => seen.result(json!({ "ok": true })),
            }
        })
        .await;
        let upstreams = upstreams(entry(fake.transport()));
        assert_eq!(completed(call(&upstreams, 1).await), json!({ "ok": true }), "{how}");
        let seen = fake.seen("tools/call").remove(0);
        assert_eq!(seen.header("mcp-protocol-version"), Some("2025-06-18"));
        assert_eq!(seen.header("mcp-session-id"), None, "it has no sessions");
    }
}

#[tokio::test]
async fn a_server_that_changes_its_era_is_asked_again_and_the_call_is_sent_once_more() {
    let modern = Arc::new(std::sync::atomic::AtomicBool::new(true));
    let now = Arc::clone(&modern);
    let fake = Fake::start(move |seen: Seen| {
        let modern = now.load(Ordering::SeqCst);
        async move {
            match seen.method() {
                "server/discover" if modern => seen.result(discovered()),
                "initialize" if !modern => seen.result(json!({ "protocolVersion": "2025-11-25", "capabilities": {} })),
                "notifications/initialized" => empty(202),
                "tools/call" if modern == seen.headers.contains_key("mcp-method") => {
                    seen.result(json!({ "modern": modern }))
                }
                _ if modern => seen.error(404, -32601),
                _ => seen.error(400, -32022),
            }
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(completed(call(&upstreams, 1).await)["modern"], true);
    modern.store(false, Ordering::SeqCst);
    assert_eq!(completed(call(&upstreams, 1).await)["modern"], false);
}

#[tokio::test]
async fn a_server_that_asks_without_end_or_breaks_off_without_end_is_given_up() {
    let fake = legacy_fake(|seen: Seen| async move {
        if seen.verb == Method::GET {
            return match seen.header("last-event-id") {
                Some(_) => stream(vec![Some("id: again\nretry: 1\ndata:\n\n".to_owned())]),
                None => empty(405),
            };
        }
        if seen.body["params"]["arguments"]["how"] == "asks" {
            let ping = event(&json!({ "jsonrpc": "2.0", "id": 1, "method": "ping" })).unwrap();
            return stream(vec![Some(ping.repeat(crate::limit::SERVER_REQUESTS_PER_CALL_MAX + 1)), None]);
        }
        stream(vec![Some("id: first\nretry: 1\ndata:\n\n".to_owned())])
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    for (how, reason) in [("asks", Reason::UpstreamGarbage), ("breaks", Reason::UpstreamClosed)] {
        let exchange = upstreams.send(dispatch(1, tool_call("t", json!({ "how": how }))));
        assert_eq!(told(outcome(exchange).await), (reason, true), "{how}");
    }
    let resumed = fake.seen.lock().unwrap().iter().filter(|seen| seen.header("last-event-id").is_some()).count();
    assert_eq!(resumed, crate::limit::RESUMES_PER_CALL_MAX);
}

#[tokio::test]
async fn a_session_id_beyond_the_bound_is_garbage() {
    let fake = Fake::start(|seen: Seen| async move {
        let mut response = seen.result(json!({ "protocolVersion": "2025-11-25", "capabilities": {} }));
        let long = "x".repeat(crate::limit::SESSION_ID_BYTES_MAX + 1);
        response.headers_mut().insert("mcp-session-id", long.parse().unwrap());
        response
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    assert_eq!(told(call(&upstreams, 1).await).0, Reason::UpstreamGarbage);
}
