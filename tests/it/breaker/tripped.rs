//! Tasks and tools that trip the breaker: they are stopped, and nothing else is.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{Method, StatusCode};
use bailiwick::control::client::request;
use serde_json::{Value, json};

use crate::breaker::{AGENTS, RULES, Running, status};
use crate::support::client::{Answer, Client};
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::{eventually, eventually_within};

/// More software of the same owner.
const CRAWLER: &str = "[agents.crawler]\nowner = \"user:test/owner\"\npurpose = \"reads\"\nkind = \"autonomous\"\n\
                       environments = [\"development\"]\nmandates = \"optional\"\n\
                       clients = [{ issuer = \"test\", client_id = \"crawler\", proof = \"private_key\" }]\n";

/// Messages are sent now and then.
const MESSAGE: std::time::Duration = std::time::Duration::from_secs(30);

/// What a webhook was told.
async fn receiver() -> (String, Arc<Mutex<Vec<Value>>>) {
    let taken = Arc::<Mutex<Vec<Value>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = async |State(taken): State<Arc<Mutex<Vec<Value>>>>, body: String| {
        taken.lock().unwrap().push(serde_json::from_str::<Value>(&body).unwrap()["data"].clone());
        StatusCode::NO_CONTENT
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(hook)).with_state(Arc::clone(&taken));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, taken)
}

async fn start(breaker: &str) -> (Running, Arc<Mutex<Vec<Value>>>) {
    let (issuer, (url, taken)) = (Issuer::start().await, receiver().await);
    let upstream =
        Scripted::start(json!(["good", "bad", "wrong", "never"].map(tool)), |request| match request["params"]["name"]
            .as_str()
        {
            Some("bad") => {
                let mut answer = text("done");
                answer["isError"] = json!(true);
                result(request, answer)
            }
            Some("wrong") => {
                let error = json!({ "code": -32602, "message": "not like that" });
                let answer = json!({ "jsonrpc": "2.0", "id": request["id"], "error": error });
                crate::support::scripted::raw("application/json", answer.to_string())
            }
            _ => result(request, text("done")),
        })
        .await;
    let rules = "p, agent:assistant, *, tools/wrong, call, -, allow\np, user:test/alice, *, tools/wrong, call, -, allow\n\
                 p, user:test/bob, *, tools/*, call, -, allow\np, agent:bot, *, bailiwick/mandate:*, admin, -, allow\n\
                 p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow\np, user:test/owner, *, tools/*, call, -, allow\n\
                 p, agent:crawler, *, tools/*, call, -, allow\np, user:test/crawler, *, tools/*, call, -, allow\n";
    let template = "[templates.nightly]\ntitle = \"at night\"\ntools = [\"tools/good\", \"tools/bad\"]\n\
                    environments = [\"development\"]\nagents = [\"bot\"]\n";
    let gateway = Setup::new(&issuer)
        .policy(&format!("{RULES}{rules}"))
        .policy_file("agents.toml", &format!("[breaker]\n{breaker}{CRAWLER}{AGENTS}"))
        .policy_file("mandates.toml", template)
        .http_server("tools", &upstream.url, "")
        .sections(&format!("[webhooks.chat]\nurl = \"{url}\"\nevents = [\"breaker.tripped\"]\nallow_private = true\n"))
        .start()
        .await;
    (Running { issuer, upstream, gateway }, taken)
}

fn reason(answer: &Answer) -> &'static str {
    ["tool_suspended", "mandate_ended", "mandate_scope"]
        .into_iter()
        .find(|reason| answer.text.contains(reason))
        .unwrap_or_default()
}

async fn trips(running: &Running, kind: &str) -> String {
    let answer = request::<()>(&running.gateway.state(), Method::GET, "/metrics", None).await.unwrap();
    let shown = String::from_utf8(answer.body.to_vec()).unwrap();
    let line = format!("bailiwick_breaker_trips_total{{kind=\"{kind}\"}} ");
    shown.lines().find_map(|told| told.strip_prefix(&line)).unwrap_or_default().to_owned()
}

#[tokio::test]
async fn a_tool_that_fails_several_callers_is_closed_for_everybody_and_opens_by_itself() {
    let (running, told) =
        start("errors_of = 1000\ntool_errors_of = 8\ntool_errors_percent = 50\ntool_pause = \"5s\"\n").await;
    let (alice, bob) = (running.person("alice"), running.person("bob"));
    // Nobody closes it alone, and whoever calls it wrongly closes nothing.
    for _ in 0..20 {
        assert_eq!(status(&alice, "tools__bad").await, 200);
        status(&alice, "tools__wrong").await;
        status(&bob, "tools__wrong").await;
    }
    status(&bob, "tools__bad").await;
    assert!(running.told().is_empty(), "{:?}", running.told());
    // The second one of somebody else's.
    status(&bob, "tools__bad").await;
    eventually("the tool to be closed", async || {
        reason(&alice.call_tool("tools__bad", json!({})).await) == "tool_suspended"
    })
    .await;
    let before = running.upstream.calls().len();
    assert_eq!(reason(&running.bot().call_tool("tools__bad", json!({})).await), "tool_suspended", "whoever calls");
    assert_eq!(running.upstream.calls().len(), before, "and nothing reaches its server");
    assert_eq!(alice.call_tool("tools__good", json!({})).await.tool_text(), "done", "others are called");
    assert_eq!(reason(&bob.call_tool("tools__wrong", json!({})).await), "", "also those that are called wrongly");
    eventually("the record to say so", async || !running.told().is_empty()).await;
    let line = running.told().remove(0);
    let expected = json!({ "event": "suspended", "kind": "tool", "id": "tools/bad", "owner": "user:test/owner",
        "actor": "breaker", "note": line["note"] });
    assert_eq!(line, expected);
    let note = line["note"].as_str().unwrap();
    assert!(note.ends_with("of the last 8 calls, of several callers, were errors: closed for 5 seconds"), "{note}");
    eventually_within(MESSAGE, "its owner to be told", async || told.lock().unwrap().len() == 1).await;
    let told = told.lock().unwrap().remove(0);
    assert_eq!((&told["tool"], &told["owner"]), (&json!("tools/bad"), &json!("user:test/owner")), "{told}");
    assert_eq!((trips(&running, "tool").await.as_str(), trips(&running, "agent").await.as_str()), ("1", "0"));
    eventually("it to be called again", async || {
        reason(&alice.call_tool("tools__bad", json!({})).await) != "tool_suspended"
    })
    .await;
}

/// With the gateway's own tool; its id and its handle.
async fn open(bot: &Client, wish: Value) -> (String, String) {
    let answer = bot.call_tool("bailiwick__mandate_open", wish).await;
    let opened = &answer.result()["structuredContent"];
    let text = |name: &str| opened[name].as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned();
    (text("id"), text("handle"))
}

async fn call(bot: &Client, handle: &str, name: &str) -> Answer {
    let params = json!({ "name": name, "arguments": {}, "_meta": { "dev.bailiwick/mandate": handle } });
    bot.modern("tools/call", params).await
}

#[tokio::test]
async fn a_task_that_is_refused_or_fails_too_often_ends_with_all_below_it_and_its_agent_goes_on() {
    let (running, told) = start("mandate_denials_per_minute = 3\nmandate_errors_of = 4\nerrors_of = 1000\n").await;
    let bot = running.bot();
    let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
    let below = bot.modern(
        "tools/call",
        json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
            "_meta": { "dev.bailiwick/mandate": handle } }),
    );
    let below = below.await.result()["structuredContent"]["handle"].as_str().unwrap().to_owned();
    // Counted for the task, whether in it or in a part of it.
    assert_eq!(reason(&call(&bot, &handle, "tools__never").await), "");
    for part in [&below, &handle, &below] {
        call(&bot, part, "tools__t1").await;
    }
    eventually("the task to be over", async || reason(&call(&bot, &handle, "tools__good").await) == "mandate_ended")
        .await;
    assert_eq!(reason(&call(&bot, &below, "tools__good").await), "mandate_ended", "and what is below it");
    let ended = |running: &Running| -> Vec<Value> {
        let lines = running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
        lines.filter(|mandate| mandate["event"] == "completed").collect()
    };
    eventually("the record to say so", async || ended(&running).len() == 1).await;
    let line = ended(&running).remove(0);
    assert_eq!((&line["id"], &line["actor"]), (&json!(id), &json!("breaker")), "{line}");
    assert!(line["note"].as_str().unwrap().ends_with("calls were refused within a minute"), "{line}");
    eventually_within(MESSAGE, "its agent's owner to be told", async || told.lock().unwrap().len() == 1).await;
    let first = told.lock().unwrap().remove(0);
    assert_eq!((&first["mandate"], &first["owner"]), (&json!(id), &json!("user:test/owner")), "{first}");

    // Its agent goes on with another task, until that fails.
    let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
    for name in ["tools__good", "tools__bad", "tools__good"] {
        assert_eq!(reason(&call(&bot, &handle, name).await), "");
    }
    assert_eq!(ended(&running).len(), 1, "one of three");
    call(&bot, &handle, "tools__bad").await;
    eventually("the other task to be over", async || {
        reason(&call(&bot, &handle, "tools__good").await) == "mandate_ended"
    })
    .await;
    eventually("the record to say so", async || ended(&running).len() == 2).await;
    let line = ended(&running).remove(1);
    assert_eq!((&line["id"], &line["note"]), (&json!(id), &json!("2 of the last 4 calls were errors")), "{line}");
    assert!(running.told().is_empty(), "no agent was suspended: {:?}", running.told());
    eventually("both to be counted", async || trips(&running, "mandate").await == "2").await;
    assert_eq!(bot.call_tool("tools__good", json!({})).await.tool_text(), "done", "it needs no task");
}

#[tokio::test]
async fn a_person_closes_no_tool_together_with_the_software_that_they_answer_for() {
    let breaker = "errors_of = 1000\ntool_errors_of = 8\ntool_errors_percent = 50\ntool_pause = \"60s\"\n";
    let (running, _) = start(breaker).await;
    let mut claims = running.issuer.claims("crawler", &[], &running.gateway.resource());
    claims["client_id"] = json!("crawler");
    let crawler = running.gateway.client(&running.issuer.sign(&claims));
    let (owner, bot, alice) = (running.person("owner"), running.bot(), running.person("alice"));
    for _ in 0..20 {
        for client in [&owner, &bot, &crawler] {
            let answer = client.call_tool("tools__bad", json!({})).await;
            assert_eq!((answer.status, reason(&answer)), (200, ""), "{}", answer.text);
        }
    }
    assert!(running.told().is_empty(), "{:?}", running.told());
    // Somebody else's count as they always did.
    for _ in 0..2 {
        assert_eq!(reason(&alice.call_tool("tools__bad", json!({})).await), "");
    }
    eventually("the tool to be closed", async || {
        reason(&owner.call_tool("tools__bad", json!({})).await) == "tool_suspended"
    })
    .await;
}

#[tokio::test]
async fn what_comes_too_late_for_a_part_of_a_task_ends_nothing_above_it() {
    let (running, _) = start("mandate_denials_per_minute = 3\ndenials_per_minute = 30\n").await;
    let bot = running.bot();
    let (_, handle) = open(&bot, json!({ "template": "nightly" })).await;
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
        "_meta": { "dev.bailiwick/mandate": handle } });
    let below = bot.modern("tools/call", params).await.result()["structuredContent"].clone();
    let part = below["handle"].as_str().unwrap();
    let completed = bot.call_tool("bailiwick__mandate_complete", json!({ "id": below["id"] })).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    for _ in 0..25 {
        assert_eq!(reason(&call(&bot, part, "tools__good").await), "mandate_ended");
    }
    // What would end it is done in the background.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    assert_eq!(call(&bot, &handle, "tools__good").await.tool_text(), "done");
    // Its agent goes on trying, and that counts for the agent.
    for _ in 0..5 {
        call(&bot, part, "tools__good").await;
    }
    eventually("the agent to be stopped", async || status(&bot, "tools__good").await == 403).await;
}
