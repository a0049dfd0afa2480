//! What the gateway presents to upstreams: never what was presented to it, never another caller's, never for too long,
//! and taken back where that is possible.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, Response};
use serde_json::{Value, json};

use crate::support::client::{Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::linked::Linked;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::sts::{Revocation, Sts, claims};

fn exchange(sts: &Sts, more: &str) -> String {
    format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", \
         audience = \"https://tools.example\", scope = \"read\"{more} }}",
        sts.url
    )
}

/// What an upstream was presented with by a call that had this among its arguments.
fn presented(upstream: &Scripted, mark: &str) -> Vec<String> {
    let marked = upstream.calls().into_iter().filter(|call| call.message["params"]["arguments"]["mark"] == mark);
    marked.map(|call| call.headers["authorization"].strip_prefix("Bearer ").unwrap().to_owned()).collect()
}

fn json_of(gateway: &Gateway, arguments: &[&str]) -> Value {
    let output = gateway.command(&[arguments, &["--config", "servers.toml", "--json"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[tokio::test]
async fn no_inbound_token_reaches_an_upstream_and_what_does_is_for_that_upstream() {
    let (issuer, sts, upstream) = (Issuer::start().await, Sts::start(Revocation::Has).await, Scripted::echo().await);
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, &exchange(&sts, "")).start().await;
    let mut inbound = BTreeSet::new();
    for user in ["alice", "bob"] {
        let token = issuer.token(user, &["developers"], &gateway.resource());
        let client = gateway.client(&token);
        assert_eq!(client.tool_names().await, ["tools__echo"]);
        assert_eq!(client.call_tool("tools__echo", json!({ "mark": user })).await.status, 200);
        inbound.insert(token);
    }
    let arrived = upstream.everything();
    assert!(arrived.len() >= 4, "lists and calls");
    for request in &arrived {
        for token in &inbound {
            assert!(!request.text.contains(token.as_str()));
            assert!(request.headers.values().all(|value| !value.contains(token.as_str())));
        }
        if let Some(authorization) = request.headers.get("authorization") {
            assert_eq!(claims(authorization)["aud"], "https://tools.example");
        }
    }
    let (hers, his) = (presented(&upstream, "alice"), presented(&upstream, "bob"));
    assert_eq!((claims(&hers[0])["sub"].clone(), claims(&his[0])["sub"].clone()), (json!("alice"), json!("bob")));
    // The record has both ends of each, and neither of them.
    let intents = gateway.records("intent");
    let credential = &intents[0]["credential"];
    assert_eq!(credential["id"], claims(&hers[0])["jti"]);
    let (ends, used) = (credential["expires_at"].as_i64().unwrap(), credential["used_until"].as_i64().unwrap());
    assert!(used < ends && credential["issue"].is_string(), "{credential}");
    let record = gateway.journal().iter().map(Value::to_string).collect::<String>();
    assert!(!record.contains(&hers[0]) && !gateway.log().contains(&hers[0]));
}

#[tokio::test]
async fn a_hundred_first_calls_ask_for_one_credential() {
    let (issuer, sts, upstream) = (Issuer::start().await, Sts::start(Revocation::Has).await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .http_server("tools", &upstream.url, &exchange(&sts, ""))
        .limits("requests_per_second = 10000\nrequests_burst = 10000\ncalls_in_flight_max = 200\n")
        .start()
        .await;
    let client = gateway.server_client("tools", &issuer.token("alice", &["developers"], &gateway.resource()));
    let calls = (0..100).map(|_| client.call_tool("echo", json!({ "mark": "m" })));
    let answers = futures_util::future::join_all(calls).await;
    let well = answers.iter().filter(|answer| answer.status == 200 && answer.result()["isError"] != true).count();
    assert_eq!(well, 100, "{}", answers[0].text);
    assert_eq!(sts.asked().len(), 1);
    assert_eq!(presented(&upstream, "m").into_iter().collect::<BTreeSet<_>>().len(), 1);
}

/// Everything that two calls may differ in: whoever calls, with which login, by which agent, which server and tool.
#[tokio::test]
async fn callers_who_differ_in_one_input_never_share_a_credential() {
    let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::Has).await);
    let tools = || Scripted::start(json!([tool("read"), tool("write")]), |call| result(call, text("done")));
    let (one, two) = (tools().await, tools().await);
    let credential = format!(
        "{}\ntool_credentials = {{ write = {{ {} }} }}",
        exchange(&sts, ""),
        exchange(&sts, "")
            .trim_start_matches("credential = { ")
            .trim_end_matches(" }")
            .replace("\"read\"", "\"write\"")
    );
    let agent = |id: &str, client: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{client}\" }}]\n"
        )
    };
    let rows = format!("{DEVELOPERS_MAY}{}", DEVELOPERS_MAY.replace("agent:assistant", "agent:second"));
    let rows: BTreeSet<&str> = rows.lines().collect();
    let gateway = Setup::new(&issuer)
        .http_server("one", &one.url, &credential)
        .http_server("two", &two.url, &credential)
        .policy(&(rows.into_iter().collect::<Vec<_>>().join("\n") + "\n"))
        .policy_file(
            "agents.toml",
            &format!("{}{}", agent("assistant", "test-assistant"), agent("second", "second-client")),
        )
        .start()
        .await;
    let login = |user: &str, client: &str, number: u8| {
        let mut claims = issuer.claims(user, &["developers"], &gateway.resource());
        claims["client_id"] = json!(client);
        claims["jti"] = json!(format!("{user}-{client}-{number}"));
        issuer.sign(&claims)
    };
    let mut callers: Vec<(String, Client)> = Vec::new();
    for user in ["alice", "bob"] {
        for client in ["test-assistant", "second-client"] {
            for number in [1, 2] {
                let token = login(user, client, number);
                for server in ["one", "two"] {
                    callers.push((format!("{user} {client} {number} {server}"), gateway.server_client(server, &token)));
                }
            }
        }
    }
    let mut calls = Vec::new();
    for (who, client) in &callers {
        for tool in ["read", "write"] {
            let mark = format!("{who} {tool}");
            // Twice at once, and once more later.
            calls.extend((0..2).map(|_| client.call_tool(tool, json!({ "mark": mark }))));
        }
    }
    let count = calls.len();
    let answers = futures_util::future::join_all(calls).await;
    assert!(answers.iter().all(|answer| answer.status == 200), "{}", answers[0].text);
    for (who, client) in &callers {
        assert_eq!(client.call_tool("read", json!({ "mark": format!("{who} read") })).await.status, 200);
    }
    let mut tokens: BTreeMap<String, String> = BTreeMap::new();
    for (who, _) in &callers {
        for tool in ["read", "write"] {
            let mark = format!("{who} {tool}");
            let upstream = if who.ends_with("one") { &one } else { &two };
            let shown: BTreeSet<String> = presented(upstream, &mark).into_iter().collect();
            assert_eq!(shown.len(), 1, "{mark}: one for the same inputs");
            let token = shown.into_iter().next().unwrap();
            assert_eq!(claims(&token)["sub"], mark.split(' ').next().unwrap());
            assert_eq!(claims(&token)["scope"], tool);
            assert_eq!(tokens.insert(token, mark.clone()), None, "{mark} has one that is another's");
        }
    }
    assert_eq!(tokens.len(), count / 2);
}

#[tokio::test]
async fn the_use_of_a_credential_ends_in_time() {
    let (issuer, sts, upstream) = (Issuer::start().await, Sts::start(Revocation::Has).await, Scripted::echo().await);
    let gateway =
        Setup::new(&issuer).http_server("tools", &upstream.url, &exchange(&sts, ", use_max = \"2s\"")).start().await;
    let client = gateway.server_client("tools", &issuer.token("alice", &["developers"], &gateway.resource()));
    let tokens = || presented(&upstream, "m").into_iter().collect::<BTreeSet<_>>().len();
    eventually("another credential", async || {
        assert_eq!(client.call_tool("echo", json!({ "mark": "m" })).await.status, 200);
        tokens() > 1
    })
    .await;
    for intent in gateway.records("intent") {
        let credential = &intent["credential"];
        let at: jiff::Timestamp = intent["at"].as_str().or(intent["time"].as_str()).unwrap().parse().unwrap();
        assert!(at.as_second() <= credential["used_until"].as_i64().unwrap(), "{intent}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_issued_is_listed_and_taken_back_and_the_report_is_honest() {
    let issuer = Issuer::start().await;
    let (takes, fails, has_not) =
        (Sts::start(Revocation::Has).await, Sts::start(Revocation::Has).await, Sts::start(Revocation::HasNot).await);
    fails.revoking(500);
    let (a, b, c) = (Scripted::echo().await, Scripted::echo().await, Scripted::echo().await);
    let mut gateway = Setup::new(&issuer)
        .http_server("a", &a.url, &exchange(&takes, ""))
        .http_server("b", &b.url, &exchange(&fails, ""))
        .http_server("c", &c.url, &exchange(&has_not, ""))
        .start()
        .await;
    let client = |user: &str, server: &str| {
        gateway.server_client(server, &issuer.token(user, &["developers"], &gateway.resource()))
    };
    for server in ["a", "b", "c"] {
        assert_eq!(client("alice", server).call_tool("echo", json!({ "mark": "m" })).await.status, 200);
    }
    let bob = client("bob", "a");
    assert_eq!(bob.call_tool("echo", json!({ "mark": "bob" })).await.status, 200);
    let listed = json_of(&gateway, &["credentials", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 4, "{listed}");
    assert!(listed.as_array().unwrap().iter().all(|one| one["state"] == "in_use"), "{listed}");

    // One by its name: the next call of his gets another.
    let his = listed.as_array().unwrap().iter().find(|one| one["subject"] == "bob").unwrap();
    let told = json_of(&gateway, &["revoke", "credential", his["id"].as_str().unwrap()]);
    assert_eq!(told["upstreams"][0]["state"], "revoked", "{told}");
    assert_eq!(takes.revoked()[0]["token"], presented(&a, "bob")[0]);
    assert_eq!(bob.call_tool("echo", json!({ "mark": "bob" })).await.status, 200);
    assert_eq!(presented(&a, "bob").into_iter().collect::<BTreeSet<_>>().len(), 2);

    // All of hers, and what became of each.
    let told = json_of(&gateway, &["revoke", "subject", "user:test/alice"]);
    let states: Vec<_> =
        told["upstreams"].as_array().unwrap().iter().map(|one| (&one["server"], &one["state"])).collect();
    assert_eq!(json!(states), json!([["a", "revoked"], ["b", "pending"], ["c", "unsupported"]]), "{told}");
    assert!(told["upstreams"][1]["expires_at"].is_i64() && told["upstreams"][2]["expires_at"].is_i64(), "{told}");
    let told = gateway.command(&["revoke", "agent", "assistant", "--config", "servers.toml"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("a: 1 credential revoked") && told.contains("b: 1 credential not held here"), "{told}");
    // It is tried again until it is taken back.
    fails.revoking(200);
    let state_of_b = || {
        let listed = json_of(&gateway, &["credentials", "list"]);
        listed.as_array().unwrap().iter().find(|one| one["server"] == "b").unwrap()["state"].clone()
    };
    eventually("it to be taken back", async || state_of_b() == "revoked").await;
    assert!(fails.revoked().iter().all(|form| form["token"] == presented(&b, "m")[0]));

    // A token is in memory only: after a restart it ends by itself, and that is said.
    assert!(gateway.stop().await.success());
    let told = json_of(&gateway, &["revoke", "everything"]);
    let states: Vec<_> =
        told["upstreams"].as_array().unwrap().iter().map(|one| (&one["server"], &one["state"])).collect();
    assert_eq!(json!(states), json!([["c", "expires_at"]]), "{told}");
    gateway.launch().await;
    let listed = json_of(&gateway, &["credentials", "list"]);
    assert_eq!(listed.as_array().unwrap().len(), 5, "{listed}");
}

/// Stopped, and killed: what an authorization server has not taken back is not forgotten.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_authorization_server_has_not_taken_back_yet_is_given_back_after_a_restart() {
    let (issuer, sts, upstream) = (Issuer::start().await, Sts::start(Revocation::Has).await, Scripted::echo().await);
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, &exchange(&sts, "")).start().await;
    for (user, ends) in [("alice", "TERM"), ("bob", "KILL")] {
        sts.revoking(503);
        let token = issuer.token(user, &["developers"], &gateway.resource());
        let call = gateway.client(&token).call_tool("tools__echo", json!({ "mark": user })).await;
        assert_eq!(call.status, 200, "{}", call.text);
        let owed = presented(&upstream, user).remove(0);
        let told = json_of(&gateway, &["revoke", "subject", &format!("user:test/{user}")]);
        assert_eq!(told["upstreams"][0]["state"], "pending", "{told}");
        gateway.signal(ends);
        gateway.wait().await;
        // Sealed, and nothing else of what it ever issued.
        for file in std::fs::read_dir(gateway.state()).unwrap().map(|entry| entry.unwrap().path()) {
            let held = std::fs::read(&file).unwrap_or_default();
            assert!(!held.windows(owed.len()).any(|part| part == owed.as_bytes()), "{}", file.display());
        }
        let before = sts.revoked().len();
        sts.revoking(200);
        gateway.launch().await;
        eventually("it to be given back", async || sts.revoked().len() > before).await;
        assert_eq!(sts.revoked().last().unwrap()["token"], owed);
        let state = || {
            let listed = json_of(&gateway, &["credentials", "list"]);
            let own = listed.as_array().unwrap().iter().find(|one| one["subject"] == user).unwrap();
            own["state"].clone()
        };
        eventually("the ledger to say so", async || state() == "revoked").await;
    }
    // Once, and not with every look.
    let given_back = sts.revoked().len();
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(sts.revoked().len(), given_back);
}

/// Which keys an upstream accepts, and what it was shown.
#[derive(Clone, Default)]
struct Keyed {
    /// It has sessions, and speaks the legacy era.
    legacy: bool,
    accepted: Arc<Mutex<Vec<String>>>,
    refused: Arc<Mutex<usize>>,
}

impl Keyed {
    async fn start(&self) -> String {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/mcp", listener.local_addr().unwrap());
        let router = axum::Router::new().route("/mcp", axum::routing::post(keyed)).with_state(self.clone());
        tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        url
    }

    fn accept(&self, keys: &[&str]) {
        *self.accepted.lock().unwrap() = keys.iter().map(|key| (*key).to_owned()).collect();
    }
}

async fn keyed(State(keyed): State<Keyed>, headers: HeaderMap, body: axum::body::Bytes) -> Response<Body> {
    let shown = headers.get("x-api-key").and_then(|value| value.to_str().ok()).unwrap_or("").to_owned();
    if !keyed.accepted.lock().unwrap().contains(&shown) {
        *keyed.refused.lock().unwrap() += 1;
        return Response::builder().status(401).body(Body::empty()).unwrap();
    }
    let message: Value = serde_json::from_slice(&body).unwrap();
    if keyed.legacy {
        return in_sessions(&headers, &message);
    }
    let said = match message["method"].as_str().unwrap() {
        "tools/list" => {
            json!({ "tools": [tool("echo")], "resultType": "complete", "ttlMs": 0, "cacheScope": "private" })
        }
        "server/discover" => json!({
            "supportedVersions": ["2026-07-28"], "capabilities": { "tools": {} }, "resultType": "complete",
            "serverInfo": { "name": "keyed", "version": "1" }, "ttlMs": 0, "cacheScope": "private",
        }),
        _ => text("done"),
    };
    result(&message, said)
}

/// What a server with sessions says; it forgets none, whatever key opened them.
fn in_sessions(headers: &HeaderMap, message: &Value) -> Response<Body> {
    let method = message["method"].as_str().unwrap();
    if method != "initialize" && method != "server/discover" && !headers.contains_key("mcp-session-id") {
        return Response::builder().status(400).body(Body::empty()).unwrap();
    }
    match method {
        "initialize" => {
            let said = json!({
                "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                "serverInfo": { "name": "keyed", "version": "1" },
            });
            let mut answer = result(message, said);
            answer.headers_mut().insert("mcp-session-id", ulid::Ulid::generate().to_string().parse().unwrap());
            answer
        }
        "tools/list" => result(message, json!({ "tools": [tool("echo")] })),
        "tools/call" => result(message, json!({ "content": [{ "type": "text", "text": "done" }] })),
        "ping" => result(message, json!({})),
        _ if message.get("id").is_none() => Response::builder().status(202).body(Body::empty()).unwrap(),
        _ => {
            let error = json!({ "code": -32601, "message": "method not found" });
            let answer = json!({ "jsonrpc": "2.0", "id": message["id"], "error": error });
            Response::builder().header("content-type", "application/json").body(Body::from(answer.to_string())).unwrap()
        }
    }
}

#[tokio::test]
async fn a_secret_is_changed_under_load_and_no_call_fails() {
    is_changed_under_load(Keyed::default()).await;
}

#[tokio::test]
async fn a_secret_is_changed_under_load_also_where_there_are_sessions() {
    is_changed_under_load(Keyed { legacy: true, ..Keyed::default() }).await;
}

async fn is_changed_under_load(upstream: Keyed) {
    let issuer = Issuer::start().await;
    upstream.accept(&["old"]);
    let url = upstream.start().await;
    let secrets = tempfile::tempdir().unwrap();
    let place = |name: &str| format!("file:{}", secrets.path().join(name).display());
    std::fs::write(secrets.path().join("one"), "new").unwrap();
    std::fs::write(secrets.path().join("two"), "old").unwrap();
    let credential = format!(
        "credential = {{ kind = \"static\", header = \"x-api-key\", secret = [\"{}\", \"{}\"], max_age = \"1h\" }}",
        place("one"),
        place("two")
    );
    let gateway = Setup::new(&issuer).http_server("tools", &url, &credential).start().await;
    let client = Arc::new(gateway.server_client("tools", &issuer.token("alice", &["developers"], &gateway.resource())));
    let (done, failed) = (Arc::new(Mutex::new(0)), Arc::new(Mutex::new(Vec::new())));
    let load: Vec<_> = (0..4)
        .map(|_| {
            let (client, done, failed) = (Arc::clone(&client), Arc::clone(&done), Arc::clone(&failed));
            tokio::spawn(async move {
                loop {
                    let answer = client.call_tool("echo", json!({})).await;
                    if answer.status != 200 || answer.result()["isError"] == true {
                        failed.lock().unwrap().push(answer.text);
                    }
                    *done.lock().unwrap() += 1;
                }
            })
        })
        .collect();
    let after = async |more: usize| {
        let until = *done.lock().unwrap() + more;
        eventually("calls to go on", async || *done.lock().unwrap() >= until).await;
    };
    after(20).await;
    // The upstream takes the new one, then the new one only, then one that has come to stand in the file.
    upstream.accept(&["old", "new"]);
    after(20).await;
    upstream.accept(&["new"]);
    after(20).await;
    let listed = json_of(&gateway, &["secrets", "list"]);
    let shown: Vec<_> = listed.as_array().unwrap().iter().map(|one| one["presented"].as_bool().unwrap()).collect();
    assert_eq!(shown, [true, false], "{listed}");
    assert!(!listed.to_string().contains("\"new\"") && !gateway.log().contains("new\""), "places only");
    upstream.accept(&["new", "newest"]);
    std::fs::write(secrets.path().join("two"), "newest").unwrap();
    after(20).await;
    for task in load {
        task.abort();
    }
    assert_eq!(*failed.lock().unwrap(), Vec::<String>::new());
    assert!(*upstream.refused.lock().unwrap() > 0, "the wrong one was tried");

    // One that is too old is named, and readiness says so.
    let long_ago = std::time::SystemTime::now() - std::time::Duration::from_secs(7_200);
    let file = std::fs::File::options().write(true).open(secrets.path().join("one")).unwrap();
    file.set_modified(long_ago).unwrap();
    let stale = || gateway.command(&["secrets", "list", "--stale", "--config", "servers.toml"]);
    eventually("the old one to be noticed", async || stale().status.code() == Some(1)).await;
    let told = String::from_utf8_lossy(&stale().stdout).into_owned();
    assert!(told.contains("stale") && told.contains("one") && told.lines().count() == 1, "{told}");
}

#[tokio::test]
async fn a_stream_that_goes_on_presents_a_credential_that_was_granted_anew() {
    let (issuer, sts, service) = (Issuer::start().await, Sts::start(Revocation::Has).await, Linked::start().await);
    {
        let mut service = service.state();
        (service.lively, service.trusting) = (true, true);
    }
    let rules = format!(
        "{DEVELOPERS_MAY}p, role:developer, *, */**, subscribe, -, allow\np, agent:assistant, *, */**, subscribe, -, allow\n"
    );
    let credential = exchange(&sts, ", use_max = \"2s\"");
    let gateway = Setup::new(&issuer).policy(&rules).http_server("notes", &service.url(), &credential).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let listen = async |uri: &str| {
        let wanted = json!({ "notifications": { "resourceSubscriptions": [uri] } });
        let (headers, body) = modern_request("subscriptions/listen", wanted);
        let mut stream = client.stream(&headers, Some(body.to_string())).await;
        let agreed = stream.next().await;
        assert_eq!(agreed["params"]["notifications"]["resourceSubscriptions"], json!([uri]), "{agreed}");
        stream
    };
    let _first = listen("notes://a").await;
    let second = listen("notes://b").await;
    let before = service.state().listened_with.clone();
    // Longer than the first credential is used, and than it takes to get the next.
    tokio::time::sleep(std::time::Duration::from_millis(3_500)).await;
    drop(second);
    eventually("a listen without what nobody hears", async || service.state().listened_with.len() > before.len()).await;
    let with = service.state().listened_with.last().unwrap().clone();
    assert!(!before.contains(&with), "its use has ended");
    // Each was granted, and stands on the record.
    let jti = claims(with.trim_start_matches("Bearer "))["jti"].clone();
    let intents = gateway.records("intent");
    assert!(intents.iter().any(|intent| intent["credential"]["id"] == jti), "{intents:?}");
}
