//! The breaker: who is refused, fails or tries new things too often is stopped, and the owner can read why.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};
use crate::tasks::{self, Task};

mod tripped;

const RULES: &str = "\
p, agent:assistant, *, tools/good, call, -, allow
p, agent:assistant, *, tools/bad, call, -, allow
p, user:test/alice, *, tools/good, call, -, allow
p, user:test/alice, *, tools/bad, call, -, allow
p, user:test/bob, *, tools/good, call, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, tools/*, call, -, allow
p, anyone, *, tools/never, call, -, deny
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

async fn start(breaker: &str) -> Running {
    let issuer = Issuer::start().await;
    let names = ["good", "bad", "never", "t1", "t2", "t3", "t4", "t5", "t6"];
    let upstream = Scripted::start(json!(names.map(tool)), |request| {
        let mut answer = text("done");
        if request["params"]["name"] == "bad" {
            answer["isError"] = json!(true);
        }
        result(request, answer)
    })
    .await;
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", &format!("{breaker}{AGENTS}"))
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

impl Running {
    fn person(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &[], &self.gateway.resource()))
    }

    fn bot(&self) -> Client {
        let mut claims = self.issuer.claims("bot", &[], &self.gateway.resource());
        claims["client_id"] = json!("bot");
        self.gateway.client(&self.issuer.sign(&claims))
    }

    /// What the record says of whom the breaker stopped.
    fn told(&self) -> Vec<Value> {
        self.gateway.records("lifecycle").into_iter().map(|line| line["lifecycle"].clone()).collect()
    }
}

async fn status(client: &Client, tool: &str) -> u16 {
    client.call_tool(tool, json!({})).await.status
}

#[tokio::test]
async fn whoever_is_refused_twenty_times_a_minute_is_stopped_for_themselves_alone() {
    let running = start("").await;
    let (alice, bob) = (running.person("alice"), running.person("bob"));
    for _ in 0..19 {
        assert_eq!(status(&alice, "tools__never").await, 200, "a refusal is told as a result");
    }
    assert!(running.told().is_empty());
    assert_eq!(status(&alice, "tools__good").await, 200);
    status(&alice, "tools__never").await;
    eventually("alice to be stopped", async || status(&alice, "tools__good").await == 403).await;
    assert_eq!(status(&bob, "tools__good").await, 200, "the assistant serves the others");
    eventually("the record to say so", async || running.told().len() == 1).await;
    let told = running.told().remove(0);
    let expected = json!({ "event": "suspended", "kind": "agent", "id": "assistant", "owner": "user:test/owner",
        "actor": "breaker", "subject": "user:test/alice", "note": "20 calls were refused within a minute",
        "epoch": told["epoch"] });
    assert_eq!(told, expected);
    let shown = running.gateway.command(&["agents", "show", "assistant", "--config", "servers.toml"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains("user:test/alice"), "{shown:?}");
}

#[tokio::test]
async fn an_agent_whose_calls_fail_half_of_the_time_is_stopped() {
    let running = start("").await;
    let bot = running.bot();
    for _ in 0..10 {
        assert_eq!(status(&bot, "tools__good").await, 200);
    }
    for _ in 0..9 {
        assert_eq!(status(&bot, "tools__bad").await, 200);
    }
    assert!(running.told().is_empty(), "nine of nineteen");
    status(&bot, "tools__bad").await;
    eventually("the agent to be stopped", async || status(&bot, "tools__good").await == 403).await;
    eventually("the record to say so", async || running.told().len() == 1).await;
    assert_eq!(running.told()[0]["note"], "10 of the last 20 calls were errors");
    assert_eq!(running.told()[0]["subject"], Value::Null, "it acts on its own");
}

#[tokio::test]
async fn an_agent_that_is_known_and_calls_five_new_tools_is_stopped() {
    let running = start("[breaker]\nlearning = \"1ms\"\n").await;
    let bot = running.bot();
    // With the first one it may still have been learning.
    for tool in ["good", "t1", "t2", "t3"] {
        assert_eq!(status(&bot, &format!("tools__{tool}")).await, 200, "{tool}");
    }
    for _ in 0..3 {
        assert_eq!(status(&bot, "tools__t1").await, 200, "nothing new");
    }
    for tool in ["t4", "t5"] {
        status(&bot, &format!("tools__{tool}")).await;
    }
    eventually("the agent to be stopped", async || status(&bot, "tools__good").await == 403).await;
    eventually("the record to say so", async || running.told().len() == 1).await;
    assert_eq!(running.told()[0]["note"], "5 tools were called for the first time within 600 seconds");
}

#[tokio::test]
async fn each_threshold_is_what_the_files_say_and_a_new_agent_may_learn() {
    let breaker = "[breaker]\ndenials_per_minute = 2\nnew_tools = 1\nerrors_percent = 100\nerrors_of = 3\n";
    let running = start(breaker).await;
    let bot = running.bot();
    for tool in ["t1", "t2", "t3", "t4", "t5", "t6"] {
        assert_eq!(status(&bot, &format!("tools__{tool}")).await, 200, "it has a day to learn");
    }
    for tool in ["bad", "bad", "good", "bad", "bad"] {
        assert_eq!(status(&bot, &format!("tools__{tool}")).await, 200);
    }
    status(&bot, "tools__bad").await;
    eventually("three errors in a row", async || status(&bot, "tools__good").await == 403).await;
    let alice = running.person("alice");
    status(&alice, "tools__never").await;
    assert_eq!(status(&alice, "tools__good").await, 200);
    status(&alice, "tools__never").await;
    eventually("two refusals", async || status(&alice, "tools__good").await == 403).await;
}

#[tokio::test]
async fn how_many_new_tools_within_which_time_is_what_the_files_say() {
    let within =
        |seconds: u32| format!("[breaker]\nlearning = \"1ms\"\nnew_tools = 2\nnew_tools_within = \"{seconds}s\"\n");
    let running = start(&within(3600)).await;
    let bot = running.bot();
    // With the first of all an agent may still be learning, or not any more.
    for tool in ["t1", "t2", "t3"] {
        status(&bot, &format!("tools__{tool}")).await;
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
    eventually("two new tools", async || status(&bot, "tools__t1").await == 403).await;
    eventually("the record to say so", async || running.told().len() == 1).await;
    assert_eq!(running.told()[0]["note"], "2 tools were called for the first time within 3600 seconds");
    let running = start(&within(1)).await;
    let bot = running.bot();
    for tool in ["t1", "t2", "t3"] {
        assert_eq!(status(&bot, &format!("tools__{tool}")).await, 200, "{tool}");
        tokio::time::sleep(std::time::Duration::from_millis(1_600)).await;
    }
    assert_eq!(status(&bot, "tools__t1").await, 200, "one in a second is none too many");
}

/// Server `broken` answers nothing but errors, `tools` is well.
#[tokio::test]
async fn a_server_that_fails_stops_nobody_who_also_calls_others() {
    let issuer = Issuer::start().await;
    let well = Scripted::start(json!([tool("good")]), |request| result(request, text("done"))).await;
    let broken = Scripted::start(json!([tool("bad")]), |request| {
        let mut answer = text("no");
        answer["isError"] = json!(true);
        result(request, answer)
    })
    .await;
    let gateway = Setup::new(&issuer)
        .policy("p, agent:bot, *, */*, call, -, allow\np, user:test/bot, *, */*, call, -, allow\n")
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &well.url, "")
        .http_server("broken", &broken.url, "")
        .start()
        .await;
    let running = Running { issuer, upstream: well, gateway };
    let bot = running.bot();
    for _ in 0..20 {
        assert_eq!(status(&bot, "tools__good").await, 200);
        assert_eq!(status(&bot, "broken__bad").await, 200);
    }
    tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    assert_eq!(status(&bot, "tools__good").await, 200);
    assert!(running.told().is_empty(), "{:?}", running.told());
    // Whoever calls nothing else fails by their own doing, as far as anybody can tell.
    for _ in 0..20 {
        status(&bot, "broken__bad").await;
    }
    eventually("the agent to be stopped", async || status(&bot, "tools__good").await == 403).await;
}

#[tokio::test]
async fn a_person_with_a_very_long_name_is_stopped_like_everybody_else() {
    let running = start("").await;
    let name = "/".repeat(300);
    let mallory = running.person(&name);
    for _ in 0..20 {
        status(&mallory, "tools__never").await;
    }
    eventually("them to be stopped", async || status(&mallory, "tools__never").await == 403).await;
    assert_eq!(status(&running.person("alice"), "tools__good").await, 200);
    eventually("the record to say so", async || running.told().len() == 1).await;
    let shown = running.gateway.command(&["agents", "show", "assistant", "--config", "servers.toml"]);
    assert!(String::from_utf8_lossy(&shown.stdout).contains(&"%2F".repeat(300)), "{shown:?}");
}

#[tokio::test]
async fn what_does_not_answer_and_what_answers_nothing_readable_has_failed() {
    let running = start_slow("[breaker]\nerrors_of = 4\n").await;
    let bot = running.bot();
    for tool in ["good", "good", "late"] {
        status(&bot, &format!("tools__{tool}")).await;
    }
    assert!(running.told().is_empty(), "one of three");
    status(&bot, "tools__garbage").await;
    eventually("the agent to be stopped", async || status(&bot, "tools__good").await == 403).await;
    eventually("the record to say so", async || running.told().len() == 1).await;
    assert_eq!(running.told()[0]["note"], "2 of the last 4 calls were errors");
}

async fn start_slow(breaker: &str) -> Running {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!(["good", "late", "garbage"].map(tool)), |request| {
        match request["params"]["name"].as_str() {
            Some("late") => {
                let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
                raw("text/event-stream", axum::body::Body::from_stream(never))
            }
            Some("garbage") => raw("application/json", "{"),
            _ => result(request, text("done")),
        }
    })
    .await;
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", &format!("{breaker}{AGENTS}"))
        .http_server("tools", &upstream.url, "health = { call_timeout = \"1s\" }")
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

#[tokio::test]
async fn a_call_that_went_on_as_a_task_counts_by_how_that_ended() {
    let issuer = Issuer::start().await;
    let failed = json!({ "status": "failed", "error": { "code": -32603, "message": "no" } });
    let state = Task::new(std::sync::Mutex::new(failed));
    let upstream = tasks::modern(&state).await;
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", &format!("[breaker]\nerrors_of = 4\n{AGENTS}"))
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    let mut claims = issuer.claims("bot", &[], &gateway.resource());
    claims["client_id"] = json!("bot");
    let bot = gateway.client(&issuer.sign(&claims));
    // It declares no tasks: the gateway follows them.
    for tool in ["plain", "job", "plain", "job"] {
        assert_eq!(status(&bot, &format!("tools__{tool}")).await, 200, "{tool}");
    }
    eventually("the agent to be stopped", async || status(&bot, "tools__plain").await == 403).await;
}
