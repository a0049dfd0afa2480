//! Upstreams of 2026-07-28 over HTTP, well-behaved and not.

use super::*;

#[tokio::test]
async fn a_json_answer_comes_back_as_it_was_and_the_request_has_all_that_it_must() {
    let fake = modern_fake(|seen: Seen| async move {
        let text = format!(
            r#"{{"jsonrpc":"2.0", "id":{},"result":{{"z":1.50,"content":[],"a":{{"k":"é"}},"resultType":"complete"}}}}"#,
            seen.body["id"]
        );
        Response::builder().header("content-type", "application/json; charset=utf-8").body(Body::from(text)).unwrap()
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut outgoing = tool_call("gr\u{fc}n", json!({ "a": 1 }));
    outgoing.headers = vec![
        ("x-request-id".to_owned(), "r1".to_owned()),
        ("authorization".to_owned(), "Bearer inbound".to_owned()),
        ("cookie".to_owned(), "inbound".to_owned()),
        ("mcp-session-id".to_owned(), "inbound".to_owned()),
    ];
    outgoing.header_parameters = vec![("mcp-param-region".to_owned(), "eu".to_owned())];
    let credential = Some(CredentialHeader::new(http::header::AUTHORIZATION, "Bearer ours".to_owned().into()));
    let exchange = upstreams.send(Dispatch { credential, ..dispatch(1, outgoing) });
    let Outcome::Complete(result) = outcome(exchange).await else { panic!() };
    assert_eq!(result.as_str(), r#"{"z":1.50,"content":[],"a":{"k":"é"},"resultType":"complete"}"#);

    let seen = fake.seen("tools/call").remove(0);
    assert_eq!(seen.verb, Method::POST);
    for (name, value) in [
        ("mcp-protocol-version", "2026-07-28"),
        ("mcp-method", "tools/call"),
        ("mcp-name", "=?base64?Z3LDvG4=?="),
        ("mcp-param-region", "eu"),
        ("accept", "application/json, text/event-stream"),
        ("content-type", "application/json"),
        ("authorization", "Bearer ours"),
        ("x-request-id", "r1"),
    ] {
        assert_eq!(seen.header(name), Some(value), "{name}");
    }
    assert_eq!(seen.header("cookie"), None);
    assert_eq!(seen.header("mcp-session-id"), None);
    let meta = &seen.body["params"]["_meta"];
    assert_eq!(meta["io.modelcontextprotocol/protocolVersion"], "2026-07-28");
    assert_eq!(meta["io.modelcontextprotocol/clientCapabilities"], json!({ "sampling": {} }));
    assert!(meta.get("progressToken").is_none(), "progress was not asked for");
    assert_eq!(fake.seen("server/discover").len(), 1, "the era was found out once");
}

#[tokio::test]
async fn a_stream_brings_notifications_and_one_end_however_it_is_split() {
    let fake = modern_fake(|seen: Seen| async move {
        let id = seen.body["id"].clone();
        let token = seen.body["params"]["_meta"]["progressToken"].clone();
        let progress = |token: Value| {
            json!({ "jsonrpc": "2.0", "method": "notifications/progress",
            "params": { "progressToken": token, "progress": 1 } })
        };
        let log =
            json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": { "level": "info", "data": "x" } });
        let answer = |id: &Value, n: u8| json!({ "jsonrpc": "2.0", "id": id, "result": { "n": n } });
        let all = [
            Some(": keep-alive\r\n\r\nid: 1\r\ndata:\r\n\r\n".to_owned()),
            event(&progress(token)),
            event(&progress(json!("another"))),
            event(&log),
            event(&answer(&json!(4711), 9)),
            event(&answer(&id, 1)),
            event(&answer(&id, 2)),
        ];
        let text: String = all.into_iter().flatten().collect();
        stream(text.as_bytes().chunks(7).map(|part| Some(String::from_utf8(part.to_vec()).unwrap())).collect())
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut outgoing = tool_call("t", json!({}));
    outgoing.progress_token = Some(Json::of("mine"));
    let mut exchange = upstreams.send(dispatch(1, outgoing));
    let mut methods = Vec::new();
    let result = loop {
        match exchange.next().await {
            Event::Notification(message) => methods.push(message),
            Event::StreamClosed => panic!("a modern stream is not taken up again"),
            Event::Done(outcome) => break completed(outcome),
        }
    };
    assert_eq!(result, json!({ "n": 1 }));
    assert_eq!(methods.len(), 2);
    assert_eq!(methods[0].params().unwrap().get("progressToken").unwrap().raw(), "\"mine\"");
    assert_eq!(methods[1].method(), "notifications/message");
    // The second answer reaches nobody.
    assert!(matches!(exchange.next().await, Event::Done(Outcome::Failed(_))));
    assert_eq!(upstreams.dropped()[0].1.strays, 2);
}

#[tokio::test]
async fn whatever_is_not_an_answer_is_garbage_and_is_called_so() {
    let bodies = [
        ("application/json", "not json".to_owned()),
        ("application/json", "[]".to_owned()),
        ("application/json", r#"{"jsonrpc":"2.0","id":4711,"result":{}}"#.to_owned()),
        ("application/json", r#"{"jsonrpc":"2.0","method":"notifications/message"}"#.to_owned()),
        ("application/json", r#"{"jsonrpc":"2.0","id":1,"id":1,"result":{}}"#.to_owned()),
        ("application/json", String::new()),
        ("text/html", "<h1>hello</h1>".to_owned()),
        ("text/event-stream", "data: nothing\n\n".to_owned()),
        ("text/event-stream", format!("data: {}\n", "x".repeat(crate::limit::RESPONSE_BYTES_MAX + 10))),
        ("application/json", " ".repeat(crate::limit::RESPONSE_BYTES_MAX + 10)),
    ];
    for (kind, body) in bodies {
        let shown: String = body.chars().take(40).collect();
        let fake = modern_fake(move |_| {
            let body = body.clone();
            async move { Response::builder().header("content-type", kind).body(Body::from(body)).unwrap() }
        })
        .await;
        let upstreams = upstreams(entry(fake.transport()));
        assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamGarbage, true), "{kind} {shown}");
    }
}

#[tokio::test]
async fn a_megabyte_on_one_line_is_an_answer_like_any_other() {
    let fake = modern_fake(|seen: Seen| async move {
        let text = "x".repeat(3 << 20);
        let answer = json!({ "jsonrpc": "2.0", "id": seen.body["id"], "result": { "text": text } });
        if seen.body["params"]["arguments"]["stream"] == true {
            stream(vec![event(&answer)])
        } else {
            json_answer(200, answer)
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    for as_stream in [false, true] {
        let exchange = upstreams.send(dispatch(1, tool_call("t", json!({ "stream": as_stream }))));
        assert_eq!(completed(outcome(exchange).await)["text"].as_str().unwrap().len(), 3 << 20);
    }
}

#[tokio::test]
async fn an_upstream_that_never_answers_is_given_up_in_time() {
    let fake = modern_fake(|seen: Seen| async move {
        let log = json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} });
        match seen.body["params"]["arguments"]["how"].as_str().unwrap() {
            "silent" => std::future::pending().await,
            "stuck" => stream(vec![event(&log), None]),
            "half" => Response::builder()
                .header("content-type", "application/json")
                .body(Body::from_stream(futures_util::stream::pending::<Result<Bytes, std::io::Error>>()))
                .unwrap(),
            _ => {
                let endless = futures_util::stream::unfold((), move |()| {
                    let log = event(&json!({ "jsonrpc": "2.0", "method": "notifications/message", "params": {} }));
                    async move {
                        tokio::time::sleep(Duration::from_millis(20)).await;
                        Some((Ok::<_, std::io::Error>(log.unwrap()), ()))
                    }
                });
                let answer = Response::builder().header("content-type", "text/event-stream");
                answer.body(Body::from_stream(endless)).unwrap()
            }
        }
    })
    .await;
    let mut entry = entry(fake.transport());
    entry.health.first_byte_timeout = Duration::from_millis(300);
    entry.health.idle_timeout = Duration::from_millis(300);
    entry.health.call_timeout = Duration::from_millis(900);
    let upstreams = upstreams(entry);
    for how in ["silent", "stuck", "half", "endless"] {
        let exchange = upstreams.send(dispatch(1, tool_call("t", json!({ "how": how }))));
        let began = std::time::Instant::now();
        assert_eq!(told(outcome(exchange).await), (Reason::UpstreamTimeout, true), "{how}");
        let limit = if how == "endless" { 800..2_000 } else { 250..800 };
        assert!(limit.contains(&began.elapsed().as_millis()), "{how} took {:?}", began.elapsed());
    }
}

#[tokio::test]
async fn an_upstream_that_hangs_up_mid_call_is_named() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            tokio::spawn(async move {
                let mut bytes = vec![0; 65_536];
                loop {
                    let length = socket.read(&mut bytes).await.unwrap_or(0);
                    let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                    let Some(body) = text.split("\r\n\r\n").nth(1).filter(|body| body.contains("discover")) else {
                        let half = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{";
                        let _ = socket.write_all(half.as_bytes()).await;
                        return;
                    };
                    let id = serde_json::from_str::<Value>(body).unwrap()["id"].clone();
                    let answer = json!({ "jsonrpc": "2.0", "id": id, "result": discovered() }).to_string();
                    let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ";
                    socket.write_all(format!("{head}{}\r\n\r\n{answer}", answer.len()).as_bytes()).await.unwrap();
                }
            });
        }
    });
    let upstreams = upstreams(entry(http_transport(address)));
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamClosed, true));
}

#[tokio::test]
async fn an_http_error_is_relayed_where_it_is_mcps_and_named_where_it_is_not() {
    let fake = modern_fake(|seen: Seen| async move {
        match seen.body["params"]["arguments"]["how"].as_str().unwrap() {
            "unknown" => seen.error(404, -32601),
            "header" => seen.error(400, -32020),
            "capability" => seen.error(400, -32021),
            "token" => seen.error(401, -32600),
            "forbidden" => empty(403),
            "broken" => seen.error(500, -32603),
            "moved" => {
                Response::builder().status(302).header("location", "http://127.0.0.1:1/").body(Body::empty()).unwrap()
            }
            _ => seen.error(200, -32602),
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let ask = |how: &'static str| outcome(upstreams.send(dispatch(1, tool_call("t", json!({ "how": how })))));
    for (how, code) in [("unknown", -32601), ("header", -32020), ("capability", -32021), ("plain", -32602)] {
        let Outcome::Error(error) = ask(how).await else { panic!("{how}") };
        assert_eq!(crate::upstream::answer::error_code(&error), Some(code), "{how}");
    }
    for (how, status) in [("token", "401"), ("forbidden", "403"), ("broken", "500"), ("moved", "302")] {
        let failure = failed(ask(how).await);
        assert_eq!(failure.reason, Reason::UpstreamStatus, "{how}");
        assert!(failure.detail.contains(status), "{how}: {}", failure.detail);
    }
}

#[tokio::test]
async fn dropping_an_exchange_hangs_up() {
    struct Gone(Arc<tokio::sync::Notify>);
    impl Drop for Gone {
        fn drop(&mut self) {
            self.0.notify_one();
        }
    }
    let (gone, begun) = (Arc::new(tokio::sync::Notify::new()), Arc::new(tokio::sync::Notify::new()));
    let (notice, begin) = (Arc::clone(&gone), Arc::clone(&begun));
    let fake = modern_fake(move |_| {
        let (gone, begun) = (Gone(Arc::clone(&notice)), Arc::clone(&begin));
        async move {
            begun.notify_one();
            let _gone = gone;
            std::future::pending().await
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut exchange = upstreams.send(dispatch(1, tool_call("t", json!({}))));
    tokio::select! { _ = exchange.next() => panic!("it has no end"), () = begun.notified() => {} }
    drop(exchange);
    tokio::time::timeout(Duration::from_secs(5), gone.notified()).await.expect("the upstream never knew");
}

#[tokio::test]
async fn a_dead_upstream_fails_at_once_and_is_found_again() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let upstreams = upstreams(entry(http_transport(address)));
    let mut changes = upstreams.changes();
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamUnreachable, false));
    let began = std::time::Instant::now();
    for _ in 0..1_000 {
        assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamUnreachable, false));
    }
    assert!(began.elapsed() < Duration::from_secs(1), "being down costs nothing, not {:?}", began.elapsed());
    assert!(matches!(&upstreams.health()[0].1, crate::upstream::Health::Down { reason, .. } if !reason.is_empty()));
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.set_reuseaddr(true).unwrap();
    socket.bind(address).unwrap();
    let _fake = Fake::on(socket.listen(64).unwrap(), |seen| async move {
        match seen.method() {
            "server/discover" => seen.result(discovered()),
            _ => seen.result(json!({ "up": true })),
        }
    });
    next_change(&mut changes, &Change::Up(id())).await;
    assert_eq!(completed(call(&upstreams, 1).await), json!({ "up": true }));
    assert_eq!(upstreams.health()[0].1, crate::upstream::Health::Up);
}

#[tokio::test]
async fn more_calls_than_it_may_have_wait_and_more_than_may_wait_are_turned_away() {
    let release = Arc::new(tokio::sync::Semaphore::new(0));
    let gate = Arc::clone(&release);
    let fake = modern_fake(move |seen: Seen| {
        let gate = Arc::clone(&gate);
        async move {
            gate.acquire().await.unwrap().forget();
            seen.result(json!({}))
        }
    })
    .await;
    let mut entry = entry(fake.transport());
    entry.health.calls_in_flight_max = 2;
    let upstreams = upstreams(entry);
    let calls: Vec<_> =
        (0..6).map(|_| tokio::spawn(outcome(upstreams.send(dispatch(1, tool_call("t", json!({}))))))).collect();
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(fake.seen("tools/call").len(), 2);
    release.add_permits(10);
    let mut busy = 0;
    for call in calls {
        match call.await.unwrap() {
            Outcome::Complete(_) => {}
            other => {
                assert_eq!(told(other), (Reason::UpstreamBusy, false));
                busy += 1;
            }
        }
    }
    assert_eq!(busy, 2);
}

#[tokio::test]
async fn all_pages_of_a_list_come_and_the_hundred_and_first_tool_hides_itself_only() {
    let fake = modern_fake(|seen: Seen| async move {
        let tool = |n: usize| json!({ "name": format!("tool_{n}"), "inputSchema": { "type": "object" }, "x-new": { "b": 1, "a": 2 } });
        match seen.body["params"]["cursor"].as_str() {
            None => {
                let mut tools: Vec<_> = (0..100).map(tool).collect();
                tools.push(json!({ "name": "broken", "inputSchema": "no schema" }));
                seen.result(json!({ "tools": tools, "nextCursor": "two", "ttlMs": 1000, "cacheScope": "public" }))
            }
            Some("two") => seen.result(json!({ "tools": [tool(200)], "ttlMs": 500, "cacheScope": "public" })),
            other => panic!("{other:?}"),
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let listing = upstreams.list(&id(), &Access::bare(), crate::wire::mcp::Kind::Tool).await.unwrap();
    assert_eq!((listing.items.len(), listing.dropped), (101, 1));
    assert_eq!((listing.ttl, listing.public), (Some(Duration::from_millis(500)), true));
    assert!(listing.items[0].as_str().contains(r#""x-new":{"b":1,"a":2}"#));
    assert_eq!(upstreams.dropped()[0].1.items, 1);
    let facts = upstreams.facts(&id(), &Access::bare()).await.unwrap();
    assert_eq!(facts.version, crate::wire::mcp::Version::V2026_07_28);
    assert_eq!(facts.instructions.as_deref(), Some("be kind"));
    assert_eq!(facts.info.unwrap().as_str(), r#"{"name":"fake","version":"1"}"#);
}

#[tokio::test]
async fn cursors_that_go_in_a_circle_are_given_up() {
    let fake =
        modern_fake(|seen: Seen| async move { seen.result(json!({ "tools": [], "nextCursor": "again" })) }).await;
    let upstreams = upstreams(entry(fake.transport()));
    let failure = upstreams.list(&id(), &Access::bare(), crate::wire::mcp::Kind::Tool).await.unwrap_err();
    assert_eq!(failure.reason, Reason::UpstreamGarbage);
    assert_eq!(fake.seen("tools/list").len(), 2);
}

#[tokio::test]
async fn a_kept_listen_tells_that_a_list_changed() {
    let fake = Fake::start(|seen: Seen| async move {
        match seen.method() {
            "server/discover" => {
                let mut facts = discovered();
                facts["capabilities"] = json!({ "tools": { "listChanged": true } });
                seen.result(facts)
            }
            "subscriptions/listen" => {
                let meta = json!({ "io.modelcontextprotocol/subscriptionId": seen.body["id"] });
                let say =
                    |method: &str| event(&json!({ "jsonrpc": "2.0", "method": method, "params": { "_meta": meta } }));
                stream(vec![
                    say("notifications/subscriptions/acknowledged"),
                    say("notifications/tools/list_changed"),
                    None,
                ])
            }
            _ => seen.result(json!({ "tools": [] })),
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut changes = upstreams.changes();
    upstreams.list(&id(), &Access::bare(), crate::wire::mcp::Kind::Tool).await.unwrap();
    next_change(&mut changes, &Change::Listed(id(), crate::wire::mcp::Kind::Tool)).await;
    let listen = fake.seen("subscriptions/listen").remove(0);
    assert_eq!(listen.body["params"]["notifications"]["toolsListChanged"], true);
}

#[tokio::test]
async fn a_listener_that_is_slower_than_what_changes_is_told_that_it_missed_something() {
    let fake = Fake::start(|seen: Seen| async move {
        match seen.method() {
            "server/discover" => {
                let mut facts = discovered();
                facts["capabilities"] = json!({ "tools": { "listChanged": true } });
                seen.result(facts)
            }
            "subscriptions/listen" => {
                let meta = json!({ "io.modelcontextprotocol/subscriptionId": seen.body["id"] });
                let say =
                    |method: &str| event(&json!({ "jsonrpc": "2.0", "method": method, "params": { "_meta": meta } }));
                let mut told = vec![say("notifications/subscriptions/acknowledged")];
                told.extend((0..=crate::limit::CHANGES_QUEUED_MAX).map(|_| say("notifications/tools/list_changed")));
                told.push(None);
                stream(told)
            }
            _ => seen.result(json!({ "tools": [] })),
        }
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let mut changes = upstreams.changes();
    upstreams.list(&id(), &Access::bare(), crate::wire::mcp::Kind::Tool).await.unwrap();
    for _ in 0..2_000 {
        if changes.len() > crate::limit::CHANGES_QUEUED_MAX {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let missed = changes.recv().await.unwrap_err();
    assert!(matches!(missed, tokio::sync::broadcast::error::RecvError::Lagged(1..)), "{missed:?}");
    // The rest is still there, and no more of it than fits.
    assert_eq!(changes.len(), crate::limit::CHANGES_QUEUED_MAX);
    assert_eq!(changes.recv().await.unwrap(), Change::Listed(id(), crate::wire::mcp::Kind::Tool));
}

#[tokio::test]
async fn a_changed_entry_is_served_anew_and_an_equal_one_keeps_what_it_has() {
    let (one, two) = (
        modern_fake(|seen: Seen| async move { seen.result(json!({ "at": 1 })) }).await,
        modern_fake(|seen: Seen| async move { seen.result(json!({ "at": 2 })) }).await,
    );
    let upstreams = upstreams(entry(one.transport()));
    assert_eq!(completed(call(&upstreams, 1).await)["at"], 1);
    upstreams.reconfigure(&config(vec![entry(one.transport())]));
    assert_eq!(completed(call(&upstreams, 1).await)["at"], 1);
    assert_eq!(one.seen("server/discover").len(), 1, "its era is still known");
    upstreams.reconfigure(&config(vec![entry(two.transport())]));
    assert_eq!(completed(call(&upstreams, 1).await)["at"], 2);
    upstreams.reconfigure(&config(Vec::new()));
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamUnreachable, false));
}

#[tokio::test]
async fn an_error_page_beyond_the_bound_is_not_read_and_the_status_is_what_counts() {
    let fake = modern_fake(|_| async {
        let page = "x".repeat(crate::limit::ERROR_BODY_BYTES_MAX + 1);
        json_answer(418, json!({ "jsonrpc": "2.0", "error": { "code": 1, "message": page } }))
    })
    .await;
    let upstreams = upstreams(entry(fake.transport()));
    let failure = failed(call(&upstreams, 1).await);
    assert_eq!(failure.reason, Reason::UpstreamStatus);
    assert!(failure.detail.contains("418"), "{}", failure.detail);
}

#[tokio::test]
async fn a_private_address_is_reached_only_where_that_is_written() {
    let fake = modern_fake(|seen: Seen| async move { seen.result(json!({})) }).await;
    let TransportConfig::Http { url, .. } = fake.transport() else { panic!() };
    let upstreams = upstreams(entry(TransportConfig::Http { url, allow_private: false }));
    assert_eq!(told(call(&upstreams, 1).await), (Reason::UpstreamUnreachable, false));
    assert!(fake.seen.lock().unwrap().is_empty(), "nothing was sent");
}

#[tokio::test]
async fn what_was_made_for_a_server_goes_to_no_other_of_its_name() {
    let old = modern_fake(|seen: Seen| async move { seen.result(json!({ "of": "old" })) }).await;
    let new = modern_fake(|seen: Seen| async move { seen.result(json!({ "of": "new" })) }).await;
    let (old_entry, new_entry) = (Arc::new(entry(old.transport())), Arc::new(entry(new.transport())));
    let upstreams = upstreams((*old_entry).clone());
    let call_for = async |entry: &Arc<ServerConfig>| {
        let value = "Bearer of this server".to_owned().into();
        let credential = Some(CredentialHeader::new(http::header::AUTHORIZATION, value));
        let made_for = Some(Arc::clone(entry));
        let exchange = upstreams.send(Dispatch { credential, made_for, ..dispatch(1, tool_call("t", json!({}))) });
        outcome(exchange).await
    };
    assert!(matches!(call_for(&old_entry).await, Outcome::Complete(_)));
    // A reload: decisions are still made for the old one while the new one is in service.
    upstreams.reconfigure(&config(vec![(*new_entry).clone()]));
    assert_eq!(told(call_for(&old_entry).await), (Reason::UpstreamUnreachable, false));
    let failure = upstreams.list_for(&old_entry, &Access::bare(), crate::wire::mcp::Kind::Tool).await.unwrap_err();
    assert_eq!(failure.reason, Reason::UpstreamUnreachable);
    assert!(upstreams.facts_for(&old_entry, &Access::bare()).await.is_err());
    assert!(matches!(call_for(&new_entry).await, Outcome::Complete(_)), "another entry that means the same will do");
    let arrived = new.seen("tools/call");
    assert_eq!((arrived.len(), new.seen("tools/list").len()), (1, 0));
}

#[tokio::test]
async fn what_is_said_in_words_of_ours_goes_to_no_server_that_became_modern() {
    let fake = modern_fake(|seen: Seen| async move { seen.result(json!({ "resultType": "complete" })) }).await;
    let upstreams = upstreams(entry(fake.transport()));
    let params = json!({ "notifications": { (crate::upstream::TASKS_OF_2025): ["inner"] } });
    let outgoing = Outgoing {
        method: "subscriptions/listen".to_owned(),
        params: Json::of(&params),
        name: None,
        ..tool_call("t", json!({}))
    };
    let refused = failed(outcome(upstreams.send(dispatch(1, outgoing))).await);
    assert_eq!((refused.reason, refused.may_have_acted), (Reason::UpstreamGarbage, false));
    assert!(!fake.seen.lock().unwrap().iter().any(|seen| seen.body.to_string().contains("inner")));
}
