//! What was granted is taken back: at once, durably, and also while the gateway is down.

use serde_json::json;

use crate::support::client::modern_request;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

fn revoke(gateway: &Gateway, arguments: &[&str]) {
    let arguments: Vec<_> = ["revoke"].iter().chain(arguments).chain(&["--config", "servers.toml"]).copied().collect();
    let output = gateway.command(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[tokio::test]
async fn a_revoked_subject_is_refused_on_the_next_call_and_others_are_not() {
    let (issuer, upstream, gateway) = start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["subject", "user:test/alice"]);
    let answer = alice.call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.status, 401, "{}", answer.text);
    assert!(answer.text.contains("revoked"), "{}", answer.text);
    let fresh = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(fresh.call_tool("tools__echo", json!({})).await.status, 401, "a block outlives the token");
    assert_eq!(bob.call_tool("tools__echo", json!({})).await.status, 200);
    assert_eq!(upstream.calls().len(), 2);
}

#[tokio::test]
async fn one_token_can_be_revoked_by_its_id() {
    let (issuer, _upstream, gateway) = start().await;
    let claims = issuer.claims("alice", &["developers"], &gateway.resource());
    let alice = gateway.client(&issuer.sign(&claims));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["token", claims["jti"].as_str().unwrap()]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    let other = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn whoever_stands_in_a_chain_and_is_blocked_stops_the_calls_that_go_through_them() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let agent = |name: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{name}-client\" }}]\n"
        )
    };
    let agents = ["assistant", "desk", "planner", "writer"];
    let rows: String = agents.map(|name| format!("p, agent:{name}, *, */*, call, -, allow\n")).concat();
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .policy(&format!("p, user:test/alice, *, */*, call, -, allow\n{rows}"))
        .policy_file("agents.toml", &agents.map(agent).concat())
        .start()
        .await;
    let through = |hops: &[&str]| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["client_id"] = json!("desk-client");
        for hop in hops.iter().rev() {
            let inner = claims.as_object_mut().unwrap().remove("act");
            claims["act"] = json!({ "sub": hop });
            inner.into_iter().for_each(|inner| claims["act"]["act"] = inner);
        }
        gateway.client(&issuer.sign(&claims))
    };
    let (deep, outer) = (through(&["desk-client", "planner-client"]), through(&["planner-client"]));
    let (writers, direct) = (through(&["desk-client", "writer-client"]), through(&["desk-client"]));
    for client in [&deep, &outer, &writers, &direct] {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    }
    revoke(&gateway, &["client", "test/planner-client"]);
    let fresh = through(&["desk-client", "planner-client"]);
    for client in [&deep, &outer, &fresh] {
        let answer = client.call_tool("tools__echo", json!({})).await;
        assert!(answer.status == 401 && answer.text.contains("revoked"), "{} {}", answer.status, answer.text);
    }
    // An issuer may call software a subject: whichever of the two an administrator writes is meant.
    revoke(&gateway, &["subject", "user:test/writer-client"]);
    assert_eq!(writers.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(direct.call_tool("tools__echo", json!({})).await.status, 200, "who has nothing to do with them goes on");
    assert_eq!(upstream.calls().len(), 5);
}

#[tokio::test]
async fn a_client_and_everything_can_be_revoked() {
    let (issuer, _upstream, gateway) = start().await;
    let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
    claims["client_id"] = json!("other-assistant");
    let other = gateway.client(&issuer.sign(&claims));
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    revoke(&gateway, &["client", "test/test-assistant"]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["everything"]);
    assert_eq!(other.call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn revoking_works_while_the_gateway_is_down_and_survives_restarts() {
    let (issuer, _upstream, mut gateway) = start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    assert!(gateway.stop().await.success());
    revoke(&gateway, &["subject", "user:test/alice"]);
    gateway.launch().await;
    assert_eq!(gateway.client(&token).call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn whatever_is_revoked_while_the_gateway_is_down_is_from_the_start() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let agent = |name: &str, owner: &str| {
        format!(
            "[agents.{name}]\nowner = \"user:test/{owner}\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{name}-client\" }}]\n"
        )
    };
    let agents = [agent("assistant", "owner"), agent("desk", "owner"), agent("planner", "second")].concat();
    let rows = ["assistant", "desk", "planner"].map(|name| format!("p, agent:{name}, *, */*, call, -, allow\n"));
    let mut gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, "")
        .http_server("other", &upstream.url, "")
        .policy(&format!(
            "p, role:person, *, */*, call, -, allow\ng, group:test/developers, role:person, *\n{}",
            rows.concat()
        ))
        .policy_file("agents.toml", &agents)
        .start()
        .await;
    let resource = gateway.resource();
    let with = |claim: &str, value: &str| {
        let mut claims = issuer.claims("alice", &["developers"], &resource);
        claims[claim] = json!(value);
        claims
    };
    let token = with("sid", "phone");
    let of = [
        with("client_id", "desk-client"),
        with("client_id", "planner-client"),
        with("sid", "laptop"),
        with("client_id", "some-client"),
        token.clone(),
    ];
    let clients = |gateway: &Gateway| of.clone().map(|claims| gateway.client(&issuer.sign(&claims)));
    for client in clients(&gateway) {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    }
    let free = |gateway: &Gateway| gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert!(free(&gateway).call_tool("other__echo", json!({})).await.response()["result"].is_object());
    assert!(gateway.stop().await.success());
    for order in [
        ["agent", "desk"],
        ["owner", "user:test/second"],
        ["session", "laptop"],
        ["client", "test/some-client"],
        ["token", token["jti"].as_str().unwrap()],
        ["server", "other"],
    ] {
        revoke(&gateway, &order);
    }
    gateway.launch().await;
    let before = upstream.calls().len();
    for client in clients(&gateway) {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 401);
    }
    let alice = free(&gateway);
    let gone = alice.call_tool("other__echo", json!({})).await;
    assert_eq!(gone.response()["error"], alice.call_tool("tools__nothing", json!({})).await.response()["error"]);
    assert_eq!(upstream.calls().len(), before, "nothing of it came through");
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200, "nobody else is meant");
    assert_eq!(gateway.records("revocation").len(), 6);
    assert!(gateway.stop().await.success());
    revoke(&gateway, &["everything"]);
    gateway.launch().await;
    assert_eq!(free(&gateway).call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn whoever_is_signed_out_by_token_session_client_or_with_everybody_comes_back_with_a_new_login() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let leeway = Setup::new(&issuer).issuer_lines("leeway = \"60s\"\n");
    let gateway = leeway.http_server("tools", &upstream.url, "").start().await;
    let resource = gateway.resource();
    let with = |claim: &str, value: &str| {
        let mut claims = issuer.claims("alice", &["developers"], &resource);
        claims[claim] = json!(value);
        claims
    };
    let status = async |claims: &serde_json::Value| {
        gateway.client(&issuer.sign(claims)).call_tool("tools__echo", json!({})).await.status
    };
    // What an issuer issues whose clock is as far ahead as is allowed: a sign-out reaches that, too, for as long.
    let anew = async |claims: &serde_json::Value, ahead: i64| {
        let mut claims = claims.clone();
        claims["iat"] = json!(jiff::Timestamp::now().as_second() + ahead);
        status(&claims).await
    };
    let token = with("jti", "the-token");
    let [session, client] = [with("sid", "laptop"), with("client_id", "other-assistant")];
    let bystander = with("sid", "phone");
    for claims in [&token, &session, &client, &bystander] {
        assert_eq!(status(claims).await, 200);
    }
    revoke(&gateway, &["token", "the-token", "--sign-out"]);
    revoke(&gateway, &["session", "laptop", "--sign-out"]);
    revoke(&gateway, &["client", "test/other-assistant", "--sign-out"]);
    for claims in [&token, &session, &client] {
        assert_eq!(status(claims).await, 401, "{claims}");
    }
    assert_eq!(status(&bystander).await, 200);
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    for claims in [&session, &client] {
        assert_eq!(anew(claims, 60).await, 200, "{claims}");
    }
    assert_eq!(status(&with("jti", "another-token")).await, 200);
    revoke(&gateway, &["everything", "--sign-out"]);
    assert_eq!((status(&bystander).await, anew(&token, 50).await), (401, 401));
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    assert_eq!((anew(&bystander, 60).await, status(&bystander).await), (200, 401));
}

#[tokio::test]
async fn a_revocation_is_on_the_record_with_its_actor_and_epoch() {
    let (_issuer, _upstream, gateway) = start().await;
    revoke(&gateway, &["subject", "user:test/alice"]);
    let record = &gateway.records("revocation")[0];
    assert!(record.to_string().contains("host:"), "{record}");
    assert!(record["revocation"]["epoch"].as_u64().is_some(), "{record}");
}

#[tokio::test]
async fn a_call_under_way_ends_when_its_caller_is_revoked() {
    let issuer = Issuer::start().await;
    let silent = |_: &serde_json::Value| {
        let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
        raw("text/event-stream", axum::body::Body::from_stream(never))
    };
    let upstream = Scripted::start(json!([tool("wait")]), silent).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let call = tokio::spawn(async move { client.call_tool("tools__wait", json!({})).await });
    crate::support::eventually("the call to arrive", async || upstream.calls().len() == 1).await;
    revoke(&gateway, &["subject", "user:test/bob"]);
    assert!(!call.is_finished(), "somebody else's revocation ends nothing");
    revoke(&gateway, &["subject", "user:test/alice"]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(2), call).await.unwrap().unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text);
    crate::support::eventually("the end on the record", async || {
        gateway.records("result").iter().any(|record| record.to_string().contains("\"revoked\""))
    })
    .await;
}

#[tokio::test]
async fn a_revoked_session_is_refused_and_another_login_of_the_same_person_is_not() {
    let (issuer, _upstream, gateway) = start().await;
    let of_session = |session: &str| {
        let mut claims = issuer.claims("alice", &["developers"], &gateway.resource());
        claims["sid"] = json!(session);
        gateway.client(&issuer.sign(&claims))
    };
    let (laptop, phone) = (of_session("laptop"), of_session("phone"));
    assert_eq!(laptop.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["session", "laptop"]);
    assert_eq!(laptop.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(phone.call_tool("tools__echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn a_revoked_agent_and_the_agents_of_a_revoked_owner_act_no_more() {
    let (issuer, upstream, mut gateway) = start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    let (headers, body) =
        modern_request("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut stream = alice.stream(&headers, Some(body.to_string())).await;
    revoke(&gateway, &["agent", "assistant"]);
    let answer = alice.call_tool("tools__echo", json!({})).await;
    assert!(answer.status == 401 && answer.text.contains("revoked"), "{}", answer.text);
    tokio::time::timeout(std::time::Duration::from_secs(1), stream.end()).await.expect("the stream to end");
    // Also after a restart, which reads the files anew.
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    let again = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(again.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(upstream.calls().len(), 1);

    let (issuer, _upstream, gateway) = start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    revoke(&gateway, &["owner", "user:test/somebody"]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200, "nothing is theirs");
    revoke(&gateway, &["owner", "user:test/owner"]);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
}

#[tokio::test]
async fn a_server_whose_owner_is_gone_is_there_for_nobody() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let config = gateway.directory().join("servers.toml");
    let written = std::fs::read_to_string(&config).unwrap();
    let (before, server) = written.split_once("[servers.tools]").unwrap();
    // The agent is somebody else's, so that only the server goes.
    let server = server.replacen("user:test/owner", "user:test/lee", 1);
    std::fs::write(&config, format!("{before}[servers.tools]{server}")).unwrap();
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    revoke(&gateway, &["owner", "user:test/lee"]);
    assert!(client.tool_names().await.is_empty());
    let refused = client.call_tool("tools__echo", json!({})).await;
    assert_eq!(refused.response()["error"]["code"], -32602, "{}", refused.text);
    assert_eq!(upstream.calls().len(), 1);
    // And a server that nobody answers for is no server.
    let unowned = std::fs::read_to_string(&config).unwrap().replace("owner = \"user:test/lee\"\n", "");
    std::fs::write(&config, unowned).unwrap();
    let checked = gateway.command(&["check"]);
    let said = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(!checked.status.success() && said.contains("owner"), "{said}");
}

#[tokio::test]
async fn a_revoked_server_is_there_for_nobody_and_the_others_go_on() {
    let issuer = Issuer::start().await;
    let silent = |request: &serde_json::Value| {
        if request["params"]["name"] == "echo" {
            return result(request, text("done"));
        }
        let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
        raw("text/event-stream", axum::body::Body::from_stream(never))
    };
    let upstream = Scripted::start(json!([tool("wait"), tool("echo")]), silent).await;
    let other = Scripted::echo().await;
    let gateway =
        Setup::new(&issuer).http_server("tools", &upstream.url, "").http_server("other", &other.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    crate::support::eventually("both servers to be listed", async || {
        let listed = client.modern("tools/list", json!({})).await;
        listed.text.contains("tools__wait") && listed.text.contains("other__echo")
    })
    .await;
    let waiting = client.clone();
    let call = tokio::spawn(async move { waiting.call_tool("tools__wait", json!({})).await });
    crate::support::eventually("the call to arrive", async || upstream.calls().len() == 1).await;
    revoke(&gateway, &["server", "tools"]);
    let answer = tokio::time::timeout(std::time::Duration::from_secs(2), call).await.unwrap().unwrap();
    assert!(answer.status == 200 && answer.text.contains("server_revoked"), "{}", answer.text);

    let listed = client.modern("tools/list", json!({})).await;
    assert!(!listed.text.contains("tools__") && listed.text.contains("other__echo"), "{}", listed.text);
    let gone = client.call_tool("tools__echo", json!({})).await;
    let never = client.call_tool("tools__nothing", json!({})).await;
    assert_eq!(gone.response()["error"], never.response()["error"]);
    assert_eq!(upstream.calls().len(), 1, "nothing was sent after the revocation");
    assert_eq!(client.call_tool("other__echo", json!({})).await.status, 200);
    // A reload does not bring it back.
    assert!(gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    assert_eq!(client.call_tool("tools__echo", json!({})).await.response()["error"], never.response()["error"]);
    let mistaken = gateway.command(&["revoke", "server", "NOT-A-SERVER", "--config", "servers.toml"]);
    assert_eq!(mistaken.status.code(), Some(2), "a name that no server can have is a mistake");
}

/// A tool call on a connection of its own whose answer is never read; its upstream says more and more.
async fn unread_call(gateway: &Gateway, token: &str) -> tokio::net::TcpStream {
    use tokio::io::AsyncWriteExt as _;
    let params = json!({ "name": "tools__talk", "arguments": {}, "_meta": { "progressToken": "p" } });
    let (headers, body) = crate::support::client::modern_request("tools/call", params);
    let body = body.to_string();
    let mut head = format!(
        "POST /mcp HTTP/1.1\r\nhost: {}\r\nauthorization: Bearer {token}\r\ncontent-type: application/json\r\n\
         accept: application/json, text/event-stream\r\ncontent-length: {}\r\n",
        gateway.url.trim_start_matches("http://"),
        body.len()
    );
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    let mut stream = tokio::net::TcpStream::connect(gateway.url.trim_start_matches("http://")).await.unwrap();
    stream.write_all(format!("{head}\r\n{body}").as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn a_stream_that_its_client_does_not_read_is_cut_within_a_second_too() {
    use tokio::io::AsyncReadExt as _;
    let issuer = Issuer::start().await;
    let written = std::sync::Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let count = std::sync::Arc::clone(&written);
    let talk = move |call: &serde_json::Value| {
        let token = call["params"]["_meta"]["progressToken"].clone();
        let params = json!({ "progressToken": token, "progress": 1, "message": "x".repeat(60_000) });
        let event = json!({ "jsonrpc": "2.0", "method": "notifications/progress", "params": params });
        let (event, count) = (format!("data: {event}\n\n"), std::sync::Arc::clone(&count));
        let endless = futures_util::stream::repeat_with(move || {
            count.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
            Ok::<_, std::convert::Infallible>(event.clone())
        });
        raw("text/event-stream", axum::body::Body::from_stream(endless))
    };
    let upstream = Scripted::start(json!([tool("talk")]), talk).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    gateway.client(&issuer.token("bob", &["developers"], &gateway.resource())).tool_names().await;
    let mut unread = unread_call(&gateway, &issuer.token("alice", &["developers"], &gateway.resource())).await;
    // Every buffer on the way is full once nothing moves any more.
    let mut before = 0;
    loop {
        tokio::time::sleep(std::time::Duration::from_millis(500)).await;
        let now = written.load(std::sync::atomic::Ordering::SeqCst);
        if now > 0 && now == before {
            break;
        }
        before = now;
    }
    revoke(&gateway, &["subject", "user:test/alice"]);
    let ended = || gateway.records("result").into_iter().find(|record| record.to_string().contains("\"revoked\""));
    crate::support::eventually("the end on the record", async || ended().is_some()).await;
    // By the gateway's own clock: how long a command takes to start is none of its doing.
    let at = |record: &serde_json::Value| record["at"].as_str().unwrap().parse::<jiff::Timestamp>().unwrap();
    let took = at(&ended().unwrap()).duration_since(at(&gateway.records("revocation")[0]));
    assert!(took < jiff::SignedDuration::from_secs(1), "{took:?}");
    // What was under way still arrives; then the connection is over.
    let mut rest = Vec::new();
    let read = tokio::time::timeout(std::time::Duration::from_secs(10), unread.read_to_end(&mut rest)).await;
    assert!(read.is_ok(), "the connection is let go");
}
