//! Agents while the gateway runs: suspended, resumed, retired, attested, and always with their actor on the record.

use bailiwick::control::client::request;
use serde_json::{Value, json};

use crate::support::client::{Answer, Client, modern_request};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\" }]";

const RULES: &str = "\
g, group:test/admins, role:admin, *
p, role:admin, *, bailiwick/*, admin, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, tools/*, call, -, allow
";

const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works at night\"
kind = \"autonomous\"
environments = [\"development\"]
mandates = \"optional\"
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
";

struct Running {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

async fn start_with(agents: &str) -> Running {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("agents.toml", agents)
        .http_server("tools", &upstream.url, "")
        .admin(ADMIN)
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

async fn start() -> Running {
    start_with(AGENTS).await
}

impl Running {
    fn bot(&self) -> Client {
        self.software("bot")
    }

    fn software(&self, client: &str) -> Client {
        let mut claims = self.issuer.claims(client, &[], &self.gateway.resource());
        claims["client_id"] = json!(client);
        self.gateway.client(&self.issuer.sign(&claims))
    }

    fn person(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &["developers"], &self.gateway.resource()))
    }

    async fn order(&self, user: &str, path: &str, body: Value) -> Answer {
        let token = self.issuer.sign(&self.issuer.administrator(user, &["admins"], &self.gateway.admin));
        Client::new(&format!("{}/api/v1{path}", self.gateway.admin), Some(&token)).post(&[], body.to_string()).await
    }

    fn command(&self, arguments: &[&str]) -> std::process::Output {
        self.gateway.command(&[arguments, &["--config", "servers.toml"]].concat())
    }

    fn shown(&self, agent: &str) -> Value {
        let shown = self.command(&["agents", "show", agent, "--json"]);
        serde_json::from_slice(&shown.stdout).unwrap()
    }

    /// What became of agents, as the record tells it.
    fn told(&self) -> Vec<(String, String)> {
        let lines = self.gateway.records("lifecycle").into_iter().map(|line| line["lifecycle"].clone());
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        lines.map(|life| (text(&life["event"]), text(&life["actor"]))).collect()
    }
}

async fn called(client: &Client) -> (u16, String) {
    let answer = client.call_tool("tools__echo", json!({})).await;
    (answer.status, answer.response()["error"]["data"]["reason"].as_str().unwrap_or_default().to_owned())
}

#[tokio::test]
async fn a_suspended_agent_acts_no_more_until_a_person_resumes_it() {
    let mut running = start().await;
    assert_eq!(called(&running.bot()).await.0, 200);
    let (headers, body) =
        modern_request("subscriptions/listen", json!({ "notifications": { "toolsListChanged": true } }));
    let mut stream = running.bot().stream(&headers, Some(body.to_string())).await;
    let suspended = running.command(&["agents", "suspend", "bot", "--note", "odd calls"]);
    assert!(suspended.status.success(), "{}", String::from_utf8_lossy(&suspended.stderr));
    assert_eq!(called(&running.bot()).await, (403, "agent_inactive".to_owned()));
    tokio::time::timeout(std::time::Duration::from_secs(1), stream.end()).await.expect("its streams end");
    assert_eq!(called(&running.person("alice")).await.0, 200, "others go on");
    let shown = running.shown("bot");
    assert_eq!(shown["state"], "suspended");
    assert!(shown["because"].as_str().unwrap().ends_with(": odd calls"), "{shown}");
    // Also after a restart and a reload: it is a row, and no file.
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert!(running.command(&["reload"]).status.success());
    assert_eq!(called(&running.bot()).await.0, 403);
    // Giving back is for a person.
    let at_socket = running.command(&["agents", "resume", "bot"]);
    assert_eq!(at_socket.status.code(), Some(1), "{}", String::from_utf8_lossy(&at_socket.stderr));
    assert_eq!(called(&running.bot()).await.0, 403);
    let resumed = running.order("ann", "/agents/bot", json!({ "step": "resume" })).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text);
    assert_eq!(called(&running.bot()).await.0, 200);
    let told = running.told();
    assert_eq!((told[0].0.as_str(), told[1].clone()), ("suspended", ("resumed".into(), "user:test/ann".into())));
    assert!(told[0].1.starts_with("host:"), "{told:?}");
    let again = running.order("ann", "/agents/bot", json!({ "step": "resume" })).await;
    assert_eq!(again.response()["reason"], "parameters_invalid", "{}", again.text);
}

#[tokio::test]
async fn a_retired_agent_stays_retired_and_what_the_files_stop_is_not_resumed() {
    let running =
        start_with(&AGENTS.replace("kind = \"autonomous\"", "kind = \"autonomous\"\nstate = \"suspended\"")).await;
    let resumed = running.order("ann", "/agents/bot", json!({ "step": "resume" })).await;
    assert_eq!(resumed.response()["reason"], "parameters_invalid", "{}", resumed.text);
    assert_eq!(called(&running.bot()).await.0, 403);
    assert!(running.command(&["agents", "retire", "assistant"]).status.success());
    assert_eq!(called(&running.person("alice")).await, (403, "agent_inactive".to_owned()));
    assert_eq!(running.shown("assistant")["state"], "retired");
    let resumed = running.order("ann", "/agents/assistant", json!({ "step": "resume" })).await;
    assert_eq!(resumed.response()["reason"], "parameters_invalid", "{}", resumed.text);
    let unknown = running.order("ann", "/agents/nobody", json!({ "step": "suspend" })).await;
    assert_eq!(unknown.status, 404, "{}", unknown.text);
    let long = "x".repeat(bailiwick::limit::LIFECYCLE_NOTE_BYTES_MAX + 1);
    let wordy = running.order("ann", "/agents/bot", json!({ "step": "suspend", "note": long })).await;
    assert_eq!(wordy.status, 400, "{}", wordy.text);
}

#[tokio::test]
async fn an_assistant_is_stopped_for_one_person_and_serves_the_others() {
    let running = start().await;
    assert_eq!(called(&running.person("alice")).await.0, 200);
    let stopped = running.command(&["agents", "suspend", "assistant", "--for", "user:test/alice"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert_eq!(called(&running.person("alice")).await, (403, "agent_inactive".to_owned()));
    assert_eq!(called(&running.person("bob")).await.0, 200);
    assert_eq!(running.shown("assistant")["stopped_for"], json!(["user:test/alice"]));
    let order = json!({ "step": "resume", "subject": "user:test/alice" });
    assert_eq!(running.order("ann", "/agents/assistant", order).await.status, 200);
    assert_eq!(called(&running.person("alice")).await.0, 200);
}

#[tokio::test]
async fn a_suspension_for_one_person_holds_behind_another_agent_and_is_counted() {
    let planner = AGENTS.replace("[agents.bot]", "[agents.desk]").replace("autonomous", "interactive");
    let planner = planner.replace("client_id = \"bot\", proof = \"private_key\"", "client_id = \"desk\"");
    let desk = planner.split_once("[agents.desk]").unwrap().1.replace("mandates = \"optional\"\n", "");
    let running = start_with(&format!("{AGENTS}[agents.desk]{desk}")).await;
    let token = |user: &str| {
        let mut claims = running.issuer.claims(user, &["developers"], &running.gateway.resource());
        claims["act"] = json!({ "sub": "desk" });
        running.gateway.client(&running.issuer.sign(&claims))
    };
    let stopped = running.command(&["agents", "suspend", "desk", "--for", "user:test/alice"]);
    assert!(stopped.status.success(), "{}", String::from_utf8_lossy(&stopped.stderr));
    assert_eq!(called(&token("alice")).await, (403, "agent_inactive".to_owned()));
    assert_ne!(called(&token("bob")).await.0, 403, "for others it acts on");
    let metrics = request::<()>(&running.gateway.state(), http::Method::GET, "/metrics", None).await.unwrap();
    let metrics = String::from_utf8(metrics.body.to_vec()).unwrap();
    let counted = metrics.lines().find(|line| line.contains("refusals_total") && line.contains("agent_inactive"));
    assert!(counted.is_some_and(|line| line.ends_with(" 1")), "{counted:?}");
}

#[tokio::test]
async fn agents_and_servers_that_nobody_attests_are_stopped_until_their_owner_does() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let Some(setup) = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}{}", brief_rules()))
        .policy_file("agents.toml", &format!("attest_every = \"30d\"\n{AGENTS}{}", brief_agent()))
        .http_server("tools", &upstream.url, "")
        .http_server("brief", &upstream.url, &format!("expires = {}", days_from_now(7)))
        .admin(ADMIN)
        .own_clock()
    else {
        return;
    };
    let mut running = Running { gateway: setup.start().await, issuer, upstream };
    assert_eq!(called(&running.bot()).await.0, 200);
    assert_eq!(called(&running.software("brief")).await.0, 200);
    assert_eq!(running.shown("bot")["attested_by"], "files");
    let stopped = running.gateway.stop().await;
    assert!(stopped.success());
    // A month later, by the gateway's clock; tokens of the test are of now, and last as long as it believes.
    running.gateway.set_clock(&format!("+{}", 31 * 86_400));
    running.gateway.launch().await;
    let shown = running.shown("bot");
    assert_eq!(shown["state"], "suspended", "{shown}");
    assert!(shown["because"].as_str().unwrap().contains("attested"), "{shown}");
    // So is the server, for everybody.
    let later = |mut claims: Value| {
        for name in ["iat", "nbf", "exp", "auth_time"] {
            if let Some(moment) = claims[name].as_i64() {
                claims[name] = json!(moment + 31 * 86_400);
            }
        }
        running.issuer.sign(&claims)
    };
    let server = async |which: &str| {
        let answer = request::<()>(&running.gateway.state(), http::Method::GET, "/servers", None).await.unwrap();
        let all = serde_json::from_slice::<Value>(&answer.body).unwrap();
        all.as_array().unwrap().iter().find(|server| server["server"] == which).unwrap().clone()
    };
    let overdue = server("tools").await;
    assert_eq!(overdue["health"], "revoked", "{overdue}");
    assert!(overdue["reason"].as_str().unwrap().contains("has not attested in time"), "{overdue}");
    let owner = later(running.issuer.administrator("owner", &["admins"], &running.gateway.admin));
    let attests = async |what: &str| {
        let place = format!("{}/api/v1/{what}/attest", running.gateway.admin);
        let answer = Client::new(&place, Some(&owner)).post(&[], "{}".to_owned()).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
    };
    attests("agents/assistant").await;
    let alice = later(running.issuer.claims("alice", &["developers"], &running.gateway.resource()));
    let alice = running.gateway.client(&alice);
    let absent = alice.call_tool("tools__echo", json!({})).await;
    assert!(absent.text.contains("Unknown tool"), "{}", absent.text);
    attests("servers/tools").await;
    assert_ne!(server("tools").await["health"], "revoked");
    eventually("the server", async || alice.call_tool("tools__echo", json!({})).await.text.contains("\"result\""))
        .await;
    running.gateway.set_clock("+0");
    let stranger = running.order("ann", "/agents/bot/attest", json!({})).await;
    assert_eq!(stranger.response()["reason"], "not_allowed", "{}", stranger.text);
    assert_eq!(called(&running.bot()).await.0, 403);
    let attested = running.order("owner", "/agents/bot/attest", json!({})).await;
    assert_eq!(attested.status, 200, "{}", attested.text);
    assert_eq!(called(&running.bot()).await.0, 200);
    assert_eq!(running.shown("bot")["attested_by"], "user:test/owner");
    assert_eq!(running.order("owner", "/servers/tools/attest", json!({})).await.status, 200);
    let told = |event: &str, by: &str| running.told().iter().filter(|told| *told == &(event.into(), by.into())).count();
    assert_eq!(told("attested", "user:test/owner"), 4);
    // What the clock has stopped is told like what persons stop, each once: three agents, two servers, and what has expired.
    assert_eq!((told("suspended", "clock"), told("expired", "clock")), (5, 2), "{:?}", running.told());
    let lines = running.gateway.records("lifecycle").into_iter().map(|line| line["lifecycle"].clone());
    for life in lines.filter(|life| life["event"] == "expired") {
        assert!(life["id"] == "brief" && life["epoch"].is_u64() && life["owner"] == "user:test/owner", "{life}");
    }
    assert_eq!(running.order("owner", "/agents/brief/attest", json!({})).await.status, 200);
    assert_eq!(called(&running.software("brief")).await.0, 403, "an attestation gives it no more days");
    assert_eq!(server("brief").await["health"], "revoked", "also where the clock goes back");
    assert!(!running.upstream.calls().is_empty());
}

#[tokio::test]
async fn a_suspended_server_is_there_for_nobody_until_a_person_resumes_it() {
    let mut running = start().await;
    let alice = running.person("alice");
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.tool_text(), "{}");
    let gone = async |running: &Running| {
        running.person("alice").call_tool("tools__echo", json!({})).await.text.contains("Unknown tool")
    };
    let stopped = running.command(&["agents", "suspend", "tools", "--server", "--note", "odd answers"]);
    assert!(stopped.status.success(), "{stopped:?}");
    assert!(gone(&running).await);
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert!(gone(&running).await, "also after a restart");
    let socket = running.command(&["agents", "resume", "tools", "--server"]);
    assert!(!socket.status.success(), "that gives something back: {socket:?}");
    for (body, reason) in [
        (json!({ "step": "suspend" }), "parameters_invalid"),
        (json!({ "step": "suspend", "subject": "user:test/alice" }), "parameters_invalid"),
    ] {
        let refused = running.order("ann", "/servers/tools", body).await;
        assert_eq!(refused.response()["reason"], reason, "{}", refused.text);
    }
    assert_eq!(
        running.order("ann", "/servers/nothing", json!({ "step": "suspend" })).await.response()["reason"],
        "target_unknown"
    );
    let resumed = running.order("ann", "/servers/tools", json!({ "step": "resume" })).await;
    assert_eq!(resumed.status, 200, "{}", resumed.text);
    eventually("the server", async || !gone(&running).await).await;
    assert_eq!(running.order("ann", "/servers/tools", json!({ "step": "retire" })).await.status, 200);
    assert!(gone(&running).await);
    let again = running.order("ann", "/servers/tools", json!({ "step": "resume" })).await;
    assert_eq!(again.response()["reason"], "parameters_invalid", "it is retired for good: {}", again.text);
    let told = running.told();
    let events: Vec<&str> = told.iter().map(|(event, _)| event.as_str()).collect();
    assert_eq!(events, ["suspended", "resumed", "retired"]);
    assert!(told[0].1.starts_with("host:") && told[1].1 == "user:test/ann", "{told:?}");
}

fn brief_rules() -> String {
    RULES.lines().filter(|row| row.contains("bot")).map(|row| row.replace("bot", "brief") + "\n").collect()
}

/// An agent of a few days.
fn brief_agent() -> String {
    let bot = &AGENTS[AGENTS.find("[agents.bot]").unwrap()..];
    format!("{}expires = {}\n", bot.replace("bot", "brief"), days_from_now(7))
}

/// A day in UTC.
fn days_from_now(days: i64) -> String {
    let moment = jiff::Timestamp::now().as_second() + days * 86_400;
    jiff::Timestamp::from_second(moment).unwrap().to_string()[..10].to_owned()
}

#[tokio::test]
async fn a_tools_own_budget_counts_over_all_that_call_it() {
    let (issuer, upstream) = (Issuer::start().await, Scripted::echo().await);
    let gateway = Setup::new(&issuer)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &upstream.url, "tool_budgets = { echo = { calls_per_day = 3 } }")
        .http_server("other", &upstream.url, "")
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let (alice, bob, bot) = (running.person("alice"), running.person("bob"), running.bot());
    let mut done = 0;
    for client in [&alice, &bob, &alice, &bob, &bot, &alice, &bot, &bob] {
        let answer = client.call_tool("tools__echo", json!({})).await;
        let exhausted = answer.text.contains("budget_exhausted");
        assert!(exhausted || answer.tool_text() == "{}", "{}", answer.text);
        done += usize::from(!exhausted);
    }
    // Midnight may pass in between, once.
    assert!(done == 3 || done == 6, "{done} calls were let through");
    assert_eq!(running.upstream.calls().len(), done);
    assert_eq!(alice.call_tool("other__echo", json!({})).await.tool_text(), "{}", "every other tool goes on");
    let charged = |line: &Value| line["result"]["budget"][0].clone();
    eventually("the record to have what was used up", async || {
        let of = |charge: &Value| (charge["of"].clone(), charge["id"].clone(), charge["what"].clone());
        let lines: Vec<Value> =
            running.gateway.records("result").iter().map(charged).filter(Value::is_object).collect();
        lines.len() == done && lines.iter().all(|one| of(one) == (json!("tool"), json!("tools/echo"), json!("day")))
    })
    .await;
}

#[tokio::test]
async fn an_agents_own_budget_counts_over_all_that_it_does() {
    let budget = "mandates = \"optional\"\nbudget = { calls_per_day = 3 }";
    let running = start_with(&AGENTS.replace("mandates = \"optional\"", budget)).await;
    let mut done = 0;
    for _ in 0..8 {
        let answer = running.bot().call_tool("tools__echo", json!({})).await;
        let exhausted = answer.text.contains("budget_exhausted");
        assert!(exhausted || answer.tool_text() == "{}", "{}", answer.text);
        done += usize::from(!exhausted);
    }
    // Midnight may pass in between, once.
    assert!(done == 3 || done == 6, "{done} calls were let through");
    assert_eq!(running.upstream.calls().len(), done);
    assert_eq!(called(&running.person("alice")).await.0, 200, "others have their own");
}
