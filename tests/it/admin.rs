//! The administrators' listener: who may operate the gateway from elsewhere, and what that leaves on the record.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

mod api;
mod attack;
mod cli;
mod logs;
mod table;

/// What every listener of these tests has.
const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]";

/// Admins may do everything, operators look and brake, and so may the agent that monitors.
const RULES: &str = "\
g, group:test/admins, role:admin, *
g, group:test/operators, role:operator, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, role:operator, *, bailiwick/status, admin, -, allow
p, role:operator, *, bailiwick/revoke, admin, -, allow
p, role:operator, *, bailiwick/reload, admin, -, allow
p, role:developer, *, bailiwick/status, admin, -, allow
p, agent:assistant, *, bailiwick/status, admin, -, allow
p, agent:assistant, *, bailiwick/reload, admin, -, allow
";

struct Running {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

async fn start() -> Running {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .http_server("tools", &upstream.url, "title = \"Tools\"")
        .admin(ADMIN)
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

impl Running {
    /// A client of one path of the API with this token.
    fn at(&self, path: &str, token: &str) -> Client {
        Client::new(&format!("{}/api/v1{path}", self.gateway.admin), Some(token))
    }

    fn administrator(&self, user: &str, groups: &[&str]) -> String {
        self.issuer.sign(&self.issuer.administrator(user, groups, &self.gateway.admin))
    }

    async fn get(&self, path: &str, token: &str) -> Answer {
        self.at(path, token).bare(reqwest::Method::GET, &[]).await
    }

    async fn post(&self, path: &str, token: &str, body: Value) -> Answer {
        self.at(path, token).post(&[], body.to_string()).await
    }

    /// The records of operations that did something, or were refused.
    fn ended(&self) -> Vec<Value> {
        let all = self.gateway.records("admin").into_iter().map(|record| record["admin"].clone());
        all.filter(|admin| admin["outcome"] != "begun").collect()
    }
}

fn reason(answer: &Answer) -> String {
    answer.response()["reason"].as_str().unwrap_or_default().to_owned()
}

fn command(gateway: &Gateway, arguments: &[&str]) -> std::process::Output {
    gateway.command(&[arguments, &["--config", "servers.toml"]].concat())
}

#[tokio::test]
async fn an_administrator_looks_and_brakes_and_both_are_on_the_record() {
    let running = start().await;
    let token = running.administrator("ann", &["admins"]);
    let status = running.get("/status", &token).await;
    assert_eq!(status.status, 200, "{}", status.text);
    assert_eq!(status.header("cache-control"), "no-store");
    let servers = running.get("/servers", &token).await;
    assert_eq!(servers.response()[0]["server"], "tools", "{}", servers.text);
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    let order = json!({ "target": "subject", "issuer": "test", "value": "alice", "note": "left" });
    let revoked = running.post("/revoke", &token, order).await;
    assert_eq!(revoked.status, 200, "{}", revoked.text);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(running.upstream.calls().len(), 1);
    let record = running.ended().pop().unwrap();
    assert_eq!(record["operation"], "revoke");
    assert_eq!(record["object"], "bailiwick/revoke");
    assert_eq!(record["actor"], "user:test/ann");
    assert_eq!(record["client"], "test-admin");
    assert_eq!(record["outcome"], "done");
    assert_eq!(record["about"], "subject test/alice");
    assert!(record["rule"].as_str().unwrap().starts_with("policy.csv:"), "{record}");
    assert_eq!(running.gateway.records("revocation")[0]["revocation"]["actor"], "user:test/ann");
    let metrics = running.get("/metrics", &token).await;
    let line = r#"bailiwick_admin_operations_total{operation="revoke",actor_kind="user",outcome="done"} 1"#;
    assert!(metrics.text.contains(line), "{}", metrics.text);
    assert_eq!(running.get("/readyz", &token).await.status, 200);
    assert!(running.get("/revocations", &token).await.text.contains("alice"));
    assert_eq!(running.get("/shadow", &token).await.status, 200);
}

#[tokio::test]
async fn a_token_for_mcp_opens_nothing_here_and_one_for_administrators_nothing_there() {
    let running = start().await;
    let gateway = &running.gateway;
    for audience in [gateway.resource(), format!("{}/tools", gateway.resource()), format!("{}/admin", gateway.url)] {
        let token = running.issuer.sign(&running.issuer.administrator("ann", &["admins", "developers"], &audience));
        let answer = running.get("/status", &token).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (401, "audience_mismatch"), "{audience}");
    }
    let both = json!([gateway.admin, gateway.resource()]);
    for audience in [json!(gateway.admin), both] {
        let mut claims = running.issuer.administrator("ann", &["admins", "developers"], "");
        claims["aud"] = audience;
        let token = running.issuer.sign(&claims);
        let answer = gateway.client(&token).call_tool("tools__echo", json!({})).await;
        assert_eq!(answer.status, 401, "{}", answer.text);
        assert!(answer.text.contains("audience_mismatch"), "{}", answer.text);
        assert_eq!(running.get("/status", &token).await.status, 200);
    }
    assert!(running.upstream.calls().is_empty());
}

#[tokio::test]
async fn nobody_without_a_token_learns_more_than_where_to_get_one() {
    let running = start().await;
    let admin = &running.gateway.admin;
    let mut seen = Vec::new();
    for path in ["/api/v1/status", "/api/v1/not-there", "/api/v1", "/api/v1/revoke"] {
        let answer = Client::new(&format!("{admin}{path}"), None).bare(reqwest::Method::GET, &[]).await;
        assert_eq!(answer.status, 401, "{path}");
        seen.push((answer.header("www-authenticate").to_owned(), answer.text));
    }
    seen.dedup();
    let [(challenge, _)] = &seen[..] else { panic!("they differ: {seen:?}") };
    let origin = admin.trim_end_matches("/admin");
    let metadata = format!("{origin}/.well-known/oauth-protected-resource/admin");
    assert_eq!(*challenge, format!("Bearer resource_metadata=\"{metadata}\""));
    let document = Client::new(&metadata, None).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(document.response()["resource"], *admin);
    assert_eq!(document.response()["authorization_servers"], json!([running.issuer.url]));
    assert!(running.ended().is_empty(), "somebody unknown is counted, not recorded one by one");
}

#[tokio::test]
async fn what_no_rule_allows_is_refused_and_the_refusal_is_on_the_record() {
    let running = start().await;
    let operator = running.administrator("otto", &["operators"]);
    assert_eq!(running.get("/status", &operator).await.status, 200);
    let answer = running.get("/metrics", &operator).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (403, "not_allowed"));
    assert_eq!(answer.header("content-type"), "application/problem+json");
    let record = running.ended().pop().unwrap();
    assert_eq!((&record["operation"], &record["outcome"]), (&json!("metrics"), &json!("refused")));
    assert_eq!((&record["reason"], &record["actor"]), (&json!("not_allowed"), &json!("user:test/otto")));
    // Rules about tools, however wide, allow no operation: developers may call everything.
    let developer = running.administrator("dora", &["developers"]);
    assert_eq!(running.get("/metrics", &developer).await.status, 403);
    let shown = command(&running.gateway, &["logs", "--decision", "deny"]);
    let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.contains("metrics refused by user:test/otto"), "{shown}");
}

#[tokio::test]
async fn an_agents_token_may_look_where_person_and_agent_may_and_gives_nothing_back() {
    let running = start().await;
    let token = running.issuer.token("dora", &["developers", "operators"], &running.gateway.admin);
    assert_eq!(running.get("/status", &token).await.status, 200, "dora and the assistant may");
    let order = json!({ "target": "subject", "issuer": "test", "value": "x" });
    assert_eq!(running.post("/revoke", &token, order).await.status, 403, "dora may, the assistant may not");
    let mut claims = running.issuer.administrator("dora", &["operators"], &running.gateway.admin);
    claims["client_id"] = json!("test-assistant");
    let recent = running.issuer.sign(&claims);
    assert_eq!(running.post("/reload", &recent, json!({})).await.status, 200);
    let answer = running.post("/reload", &recent, json!({ "allow_widening": true })).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (403, "administrator_required"));
    let record = running.ended().pop().unwrap();
    assert_eq!((&record["about"], &record["outcome"]), (&json!("widening is allowed"), &json!("refused")));
    // Neither does an administrators' client whose token says that an agent uses it, nor one without a person.
    let mut claims = running.issuer.administrator("dora", &["operators"], &running.gateway.admin);
    claims["act"] = json!({ "sub": "test-assistant" });
    let answer = running.post("/reload", &running.issuer.sign(&claims), json!({ "allow_widening": true })).await;
    assert!(matches!(answer.status, 401 | 403), "{}", answer.text);
    let own = running.issuer.administrator("test-admin", &["operators"], &running.gateway.admin);
    let answer = running.post("/reload", &running.issuer.sign(&own), json!({ "allow_widening": true })).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (403, "agent_unknown"), "{}", answer.text);
}

#[tokio::test]
async fn loosening_needs_a_login_of_a_moment_ago_and_of_the_right_kind() {
    let running = start().await;
    let wide = format!("{DEVELOPERS_MAY}{RULES}p, role:developer, *, */*, complete, -, allow\n");
    running.gateway.write_policy(&wide);
    let now = jiff::Timestamp::now().as_second();
    let good = running.issuer.administrator("ann", &["admins"], &running.gateway.admin);
    let widen = async |claims: &Value| {
        let token = running.issuer.sign(claims);
        running.post("/reload", &token, json!({ "allow_widening": true })).await
    };
    let spoiled: [(&str, Value); 5] = [
        ("auth_time", json!(now - 400)),
        ("auth_time", json!(null)),
        ("auth_time", json!(now + 4000)),
        ("acr", json!("weak")),
        ("acr", json!(null)),
    ];
    for (claim, value) in spoiled {
        let mut claims = good.clone();
        claims[claim] = value;
        let answer = widen(&claims).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (401, "insufficient_user_authentication"), "{claims}");
        let challenge = answer.header("www-authenticate");
        for part in ["error=\"insufficient_user_authentication\"", "acr_values=\"strong\"", "max_age=\"300\""] {
            assert!(challenge.contains(part), "{challenge}");
        }
    }
    let mut claims = good.clone();
    claims["client_id"] = json!("some-other-client");
    let answer = widen(&claims).await;
    assert_eq!(
        (answer.status, reason(&answer).as_str()),
        (403, "administrator_required"),
        "the assistant stands between"
    );
    let narrow = running.post("/reload", &running.issuer.sign(&good), json!({})).await;
    assert_eq!(narrow.status, 409, "nothing widens that nobody says may: {}", narrow.text);
    let answer = widen(&good).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let outcomes: Vec<Value> =
        running.gateway.records("admin").iter().map(|record| record["admin"]["outcome"].clone()).collect();
    assert_eq!(
        outcomes[outcomes.len() - 2..],
        [json!("begun"), json!("done")],
        "it was on the record before it was done"
    );
    assert_eq!(running.gateway.records("reload").last().unwrap()["reload"]["actor"], "user:test/ann");
}

#[tokio::test]
async fn the_socket_brakes_and_looks_and_its_user_is_on_the_record() {
    let running = start().await;
    let gateway = &running.gateway;
    let host = format!("host:{}", rustix::process::geteuid().as_raw());
    let revoked = command(gateway, &["revoke", "subject", "user:test/alice"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    let record = running.ended().pop().unwrap();
    assert_eq!((&record["actor"], &record["operation"]), (&json!(host), &json!("revoke")));
    let wide = format!("{DEVELOPERS_MAY}{RULES}p, role:developer, *, */*, complete, -, allow\n");
    gateway.write_policy(&wide);
    let widened = command(gateway, &["reload", "--allow-widening"]);
    assert_eq!(widened.status.code(), Some(1), "{}", String::from_utf8_lossy(&widened.stdout));
    let said = String::from_utf8_lossy(&widened.stderr).into_owned();
    assert!(said.contains("administrator_required"), "{said}");
    let record = running.ended().pop().unwrap();
    assert_eq!((&record["outcome"], &record["reason"]), (&json!("refused"), &json!("administrator_required")));
    assert!(gateway.records("reload").is_empty());
}

#[tokio::test]
async fn a_revoked_administrator_is_refused_at_once() {
    let running = start().await;
    let (ann, bea) = (running.administrator("ann", &["admins"]), running.administrator("bea", &["admins"]));
    assert_eq!(running.get("/status", &ann).await.status, 200);
    let order = json!({ "target": "subject", "issuer": "test", "value": "ann" });
    assert_eq!(running.post("/revoke", &bea, order).await.status, 200);
    let answer = running.get("/status", &ann).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (401, "revoked"));
}

#[tokio::test]
async fn an_agent_an_owner_and_a_server_come_back_when_an_administrator_lifts_it() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    let works = async || {
        let answer = alice.call_tool("tools__echo", json!({})).await;
        answer.status == 200 && answer.response()["result"].is_object()
    };
    crate::support::eventually("a call", works).await;
    for (target, value) in [("agent", "assistant"), ("owner", "user:test/owner"), ("server", "tools")] {
        let revoked = running.post("/revoke", &ann, json!({ "target": target, "value": value })).await;
        assert_eq!(revoked.status, 200, "{target}: {}", revoked.text);
        let before = running.upstream.calls().len();
        assert!(!works().await && running.upstream.calls().len() == before, "{target}");
        let held = running.get("/revocations", &ann).await;
        let path = format!("/revocations/{}", held.response()["revocations"][0]["since"]);
        let state = running.gateway.state();
        let at_socket =
            bailiwick::control::client::request(&state, http::Method::DELETE, &path, None::<&()>).await.unwrap();
        assert_eq!(at_socket.status, 403, "{target}");
        assert!(!works().await, "{target}");
        let lifted = running.at(&path, &ann).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{target}: {}", lifted.text);
        // What a server lists is asked for anew.
        crate::support::eventually(target, works).await;
    }
}

#[tokio::test]
async fn a_revocation_is_lifted_by_an_administrator_and_by_nobody_at_the_socket() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    let order = json!({ "target": "subject", "issuer": "test", "value": "alice" });
    assert_eq!(running.post("/revoke", &ann, order).await.status, 200);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    let held = running.get("/revocations", &ann).await;
    let since = held.response()["revocations"][0]["since"].clone();
    let path = format!("/revocations/{since}");
    let state = running.gateway.state();
    let at_socket =
        bailiwick::control::client::request(&state, http::Method::DELETE, &path, None::<&()>).await.unwrap();
    assert_eq!(at_socket.status, 403);
    let operator = running.administrator("otto", &["operators"]);
    assert_eq!(running.at(&path, &operator).bare(reqwest::Method::DELETE, &[]).await.status, 403);
    let mut stale = running.issuer.administrator("ann", &["admins"], &running.gateway.admin);
    stale["auth_time"] = json!(jiff::Timestamp::now().as_second() - 3_000);
    let stale = running.issuer.sign(&stale);
    assert_eq!(running.at(&path, &stale).bare(reqwest::Method::DELETE, &[]).await.status, 401);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401, "it still holds");
    for wrong in ["/revocations/none", "/revocations/-1", "/revocations/99999999999999999999999999"] {
        assert_eq!(running.at(wrong, &ann).bare(reqwest::Method::DELETE, &[]).await.status, 400, "{wrong}");
    }
    let lifted = running.at(&path, &ann).bare(reqwest::Method::DELETE, &[]).await;
    assert_eq!(lifted.status, 200, "{}", lifted.text);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    let again = running.at(&path, &ann).bare(reqwest::Method::DELETE, &[]).await;
    assert_eq!((again.status, reason(&again).as_str()), (404, "target_unknown"));
    let lifts: Vec<(Value, Value)> = running
        .ended()
        .into_iter()
        .filter(|admin| admin["operation"] == "lift" && admin["reason"] != "parameters_invalid")
        .map(|admin| (admin["actor"].clone(), admin["outcome"].clone()))
        .collect();
    let host = format!("host:{}", rustix::process::geteuid().as_raw());
    let expected = [
        (host.as_str(), "refused"),
        ("user:test/otto", "refused"),
        ("user:test/ann", "refused"),
        ("user:test/ann", "done"),
        ("user:test/ann", "refused"),
    ];
    assert_eq!(lifts, expected.map(|(actor, outcome)| (json!(actor), json!(outcome))));
}

#[tokio::test]
async fn everything_can_be_taken_back_and_an_administrator_can_lift_that() {
    let running = start().await;
    let alice = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    let agent = running.issuer.token("dora", &["operators"], &running.gateway.admin);
    assert_eq!(running.get("/status", &agent).await.status, 200);
    let revoked = command(&running.gateway, &["revoke", "everything"]);
    assert!(revoked.status.success());
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(running.get("/status", &agent).await.status, 401, "an assistant is no administrators' client");
    let ann = running.administrator("ann", &["admins"]);
    let held = running.get("/revocations", &ann).await;
    let path = format!("/revocations/{}", held.response()["revocations"][0]["since"]);
    assert_eq!(running.at(&path, &ann).bare(reqwest::Method::DELETE, &[]).await.status, 200);
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
}

#[tokio::test]
async fn the_listener_cannot_be_taken_out_of_the_files_to_widen_over_the_socket() {
    let running = start().await;
    let file = running.gateway.directory().join("servers.toml");
    let before = std::fs::read_to_string(&file).unwrap();
    let without = before.split("\n[admin]\n").next().unwrap().to_owned();
    std::fs::write(&file, without).unwrap();
    let narrowed = command(&running.gateway, &["reload"]);
    assert_eq!(narrowed.status.code(), Some(1), "{}", String::from_utf8_lossy(&narrowed.stdout));
    let widened = command(&running.gateway, &["reload", "--allow-widening"]);
    assert_eq!(widened.status.code(), Some(1), "{}", String::from_utf8_lossy(&widened.stdout));
    assert_eq!(running.get("/status", &running.administrator("ann", &["admins"])).await.status, 200);
    // A brake is loaded whoever asks.
    std::fs::write(&file, before.replace("{ issuer = \"test\", client_id = \"test-admin\" }", "")).unwrap();
    let narrowed = command(&running.gateway, &["reload"]);
    assert!(narrowed.status.success(), "{}", String::from_utf8_lossy(&narrowed.stdout));
    let ann = running.administrator("ann", &["admins"]);
    let answer = running.post("/reload", &ann, json!({ "allow_widening": true })).await;
    assert_ne!(answer.status, 200, "her client is an administrators' client no more: {}", answer.text);
}
