//! What is counted of a call under a mandate: each once, whoever asks something in the middle of it.

use super::*;
use crate::input::{self, may_ask, retry};
use crate::support::sts::{Revocation, Sts};
use crate::tasks::{self, Task, ask, working};

const CONFIRM: &str = "[gates.sure]\nobjects = [\"tools/other\"]\nkind = \"confirm\"\n";

fn askable() -> Value {
    json!({ "elicitation": { "form": {} } })
}

/// Tools of which `small` asks for something before it answers.
async fn asking() -> Scripted {
    let tools = json!([tool("echo"), tool("other"), tool("wait"), tool("small")]);
    Scripted::start(tools, |request| {
        let params = &request["params"];
        if params["name"] != "small" || params.get("inputResponses").is_some() {
            return result(request, text("done"));
        }
        let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Sure?",
            "requestedSchema": { "type": "object", "properties": {} } } });
        let asked = json!({ "resultType": "input_required", "inputRequests": { "sure": question },
            "requestState": "theirs" });
        result(request, asked)
    })
    .await
}

async fn begin() -> Running {
    let (issuer, upstream) = (Issuer::start().await, asking().await);
    let rows = "p, agent:bot, *, */*, elicit, -, allow\np, user:test/bot, *, */*, elicit, -, allow\n";
    let gateway = setup(&issuer, &upstream)
        .policy(&format!("{RULES}{rows}"))
        .policy_file("gates.toml", CONFIRM)
        .admin(ADMIN)
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

fn under(handle: &str, mut params: Value) -> Value {
    params["_meta"] = json!({ "dev.bailiwick/mandate": handle });
    params
}

#[tokio::test]
async fn a_call_that_is_confirmed_first_is_counted_like_any_other() {
    let running = begin().await;
    let bot = running.bot();
    let (_, handle) = open(&bot, json!({ "template": "counted", "budget": { "calls": 1 } })).await;
    let yes = || json!({ "confirm": { "action": "accept", "content": { "confirm": true } } });
    for (number, outcome) in [(1, "done"), (2, "budget_exhausted")] {
        let arguments = json!({ "n": number });
        let plain = under(&handle, json!({ "name": "tools__other", "arguments": arguments }));
        let asked = input::call(&bot, &askable(), plain).await;
        let confirmed = retry("tools__other", &arguments, &asked, yes());
        let answer = input::call(&bot, &askable(), under(&handle, confirmed)).await;
        let told = reason(&answer);
        assert_eq!(if told.is_empty() { answer.tool_text() } else { &told }, outcome, "{}", answer.text);
    }
    assert_eq!(running.upstream.calls().len(), 1);
}

#[tokio::test]
async fn an_answer_is_part_of_its_call_and_good_for_one_request() {
    let running = begin().await;
    let bot = running.bot();
    let (id, handle) = open(&bot, json!({ "template": "counted", "budget": { "calls": 1 } })).await;
    let params = under(&handle, json!({ "name": "tools__small", "arguments": {} }));
    let asked = input::call(&bot, &askable(), params).await;
    let answer = retry("tools__small", &json!({}), &asked, json!({ "sure": { "action": "accept", "content": {} } }));
    let done = input::call(&bot, &askable(), under(&handle, answer.clone())).await;
    assert_eq!(done.tool_text(), "done", "the call was counted when it began: {}", done.text);
    for _ in 0..3 {
        let again = input::call(&bot, &askable(), under(&handle, answer.clone())).await;
        assert_eq!(reason(&again), "input_state_invalid", "{}", again.text);
    }
    assert_eq!(running.upstream.calls().len(), 2, "the question and its answer");
    crate::support::eventually("one call to be told", async || {
        let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
        status.result()["structuredContent"]["calls"]["tools"] == 1
    })
    .await;
    // Where nothing is counted nothing is kept, and a state is what it was.
    let (_, free) = open(&bot, json!({ "template": "nightly" })).await;
    let asked = input::call(&bot, &askable(), under(&free, json!({ "name": "tools__small", "arguments": {} }))).await;
    let answer = retry("tools__small", &json!({}), &asked, json!({ "sure": { "action": "accept", "content": {} } }));
    for _ in 0..2 {
        assert_eq!(input::call(&bot, &askable(), under(&free, answer.clone())).await.tool_text(), "done");
    }
}

/// A gateway with a server whose tool `job` becomes a task.
async fn with_tasks(state: &Task) -> (Issuer, crate::support::peer::Peer, Gateway) {
    let (issuer, upstream) = (Issuer::start().await, tasks::modern(state).await);
    let gateway = Setup::new(&issuer)
        .policy(&format!("{RULES}{}", may_ask(&[])))
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", &format!("{TEMPLATES}{IDLE}"))
        .policy_file("conditions.toml", CONDITIONS)
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    (issuer, upstream, gateway)
}

fn bot_of(issuer: &Issuer, gateway: &Gateway) -> Client {
    let mut claims = issuer.claims("bot", &[], &gateway.resource());
    claims["client_id"] = json!("bot");
    gateway.client(&issuer.sign(&claims))
}

#[tokio::test]
async fn the_result_of_a_task_uses_up_the_bytes_of_its_mandate() {
    let state = Task::new(std::sync::Mutex::new(working()));
    let (issuer, _upstream, gateway) = with_tasks(&state).await;
    let bot = bot_of(&issuer, &gateway);
    let (id, handle) = open(&bot, json!({ "template": "counted", "budget": { "bytes": 2000 } })).await;
    let job = ask(&bot, "tools/call", under(&handle, json!({ "name": "tools__job", "arguments": {} }))).await;
    let task = job.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", job.text)).to_owned();
    for _ in 0..10 {
        assert_eq!(ask(&bot, "tasks/get", json!({ "taskId": task })).await.result()["status"], "working");
    }
    let plain = || under(&handle, json!({ "name": "tools__plain", "arguments": {} }));
    assert_eq!(ask(&bot, "tools/call", plain()).await.tool_text(), "done", "to look how it stands costs nothing");
    let long = json!({ "content": [{ "type": "text", "text": "x".repeat(4000) }] });
    *state.lock().unwrap() = json!({ "status": "completed", "result": long });
    assert_eq!(ask(&bot, "tasks/get", json!({ "taskId": task })).await.result()["status"], "completed");
    crate::support::eventually("the result to be counted", async || {
        reason(&ask(&bot, "tools/call", plain()).await) == "budget_exhausted"
    })
    .await;
    let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
    let calls = status.result()["structuredContent"]["calls"]["tools"].as_u64().unwrap();
    assert!(calls >= 2, "the job and the plain call: {}", status.text);
}

#[tokio::test]
async fn the_end_of_a_mandate_cancels_its_tasks_and_leaves_the_brake_to_its_caller() {
    let state = Task::new(std::sync::Mutex::new(working()));
    let (issuer, upstream, gateway) = with_tasks(&state).await;
    let bot = bot_of(&issuer, &gateway);
    // One that its client follows.
    let (id, handle) = open(&bot, json!({ "template": "counted" })).await;
    let job = ask(&bot, "tools/call", under(&handle, json!({ "name": "tools__job", "arguments": {} }))).await;
    let task = job.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", job.text)).to_owned();
    bot.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
    let looked = ask(&bot, "tasks/get", json!({ "taskId": task })).await;
    assert_eq!(reason(&looked), "mandate_ended", "{}", looked.text);
    crate::support::eventually("the server to hear of it", async || upstream.reached("tasks/cancel").len() == 1).await;
    let cancelled = ask(&bot, "tasks/cancel", json!({ "taskId": task })).await;
    assert_eq!(cancelled.result()["resultType"], "complete", "{}", cancelled.text);
    assert_eq!(upstream.reached("tasks/cancel").len(), 2);
}

#[tokio::test]
async fn a_task_that_goes_on_at_its_server_is_use_of_its_mandate_until_it_is_over_there() {
    let state = Task::new(std::sync::Mutex::new(working()));
    let (issuer, upstream, gateway) = with_tasks(&state).await;
    let bot = bot_of(&issuer, &gateway);
    let (id, handle) = open(&bot, json!({ "template": "idle", "budget": { "bytes": 10_000 } })).await;
    let call = async |tool: &str| {
        ask(&bot, "tools/call", under(&handle, json!({ "name": format!("tools__{tool}"), "arguments": {} }))).await
    };
    let left = async || {
        let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
        status.result()["structuredContent"]["left"]["bytes"].as_i64().unwrap_or_else(|| panic!("{}", status.text))
    };
    let job = call("job").await;
    assert_eq!(job.result()["resultType"], "task", "{}", job.text);
    // Its client asks nothing. Nothing can be waited for: that nothing happens is what is looked at.
    tokio::time::sleep(std::time::Duration::from_millis(4_500)).await;
    assert_eq!(call("plain").await.tool_text(), "done", "what is under way is use, however long it lasts");
    let before = left().await;
    let long = json!({ "content": [{ "type": "text", "text": "x".repeat(5_000) }] });
    *state.lock().unwrap() = json!({ "status": "completed", "result": long });
    tokio::time::sleep(std::time::Duration::from_secs(5)).await;
    let over = call("plain").await;
    assert_eq!(reason(&over), "mandate_ended", "{}", over.text);
    assert!(before - left().await < 5_000, "what the gateway looked at itself uses up nothing");
    let asked = upstream.reached("tasks/get").len();
    tokio::time::sleep(std::time::Duration::from_millis(2_500)).await;
    assert_eq!(upstream.reached("tasks/get").len(), asked, "what is over is asked about no more");
    assert!(upstream.reached("tasks/cancel").is_empty(), "and cancelled by nobody");
}

/// A tool whose credential comes late, with a mandate for it; the policies' place.
async fn with_a_late_credential(late: impl AsyncFnOnce(&Gateway) -> ()) -> (Answer, Scripted) {
    let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::HasNot).await);
    let upstream = asking().await;
    let credential = format!(
        "[servers.slow.tool_credentials.echo]\nkind = \"exchange\"\nissuer = \"{}\"\nclient_id = \"gateway\"\n\
         audience = \"up\"\n",
        sts.url
    );
    let templates = TEMPLATES.replace("\"tools/", "\"*/");
    let rules = RULES.replace("tools/*", "*/*");
    let gateway = Setup::new(&issuer)
        .policy(&rules)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", &templates)
        .policy_file("conditions.toml", CONDITIONS)
        .http_server("slow", &upstream.url, &credential)
        .start()
        .await;
    let bot = bot_of(&issuer, &gateway);
    let (_, handle) = open(&bot, json!({ "template": "nightly" })).await;
    sts.hold(true);
    let before = sts.asked().len();
    let calling = tokio::spawn(async move { call(&bot, &handle, "slow__echo", json!({})).await });
    crate::support::eventually("its credential is asked for", async || sts.asked().len() > before).await;
    late(&gateway).await;
    sts.hold(false);
    (calling.await.unwrap(), upstream)
}

#[tokio::test]
async fn a_template_that_leaves_out_a_tool_at_the_last_moment_keeps_its_call_back() {
    let (answer, upstream) = with_a_late_credential(async |gateway: &Gateway| {
        let path = gateway.directory().join("policies/mandates.toml");
        let narrower = TEMPLATES.replace("\"tools/echo\", ", "").replace("\"tools/", "\"*/");
        std::fs::write(path, narrower).unwrap();
        let reloaded = gateway.command(&["reload", "--config", "servers.toml"]);
        assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stdout));
    })
    .await;
    assert_eq!(reason(&answer), "mandate_scope", "{}", answer.text);
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn a_store_that_was_restored_gives_no_budget_back() {
    let mut running = start().await;
    let (_, handle) = open(&running.bot(), json!({ "template": "counted" })).await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    for _ in 0..5 {
        assert_eq!(call(&running.bot(), &handle, "tools__echo", json!({})).await.tool_text(), "done");
    }
    running.gateway.store_of_before().await;
    running.gateway.launch().await;
    let mut done = 0;
    for _ in 0..7 {
        let answer = call(&running.bot(), &handle, "tools__echo", json!({})).await;
        if answer.tool_text() == "done" {
            done += 1;
        } else {
            assert_eq!(reason(&answer), "budget_exhausted", "{}", answer.text);
        }
    }
    assert_eq!(done, 2, "five of seven were used before");
}

#[tokio::test]
async fn the_budget_of_an_agent_counts_over_all_its_mandates_also_those_below_another() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let budget = "[agents.bot]\nbudget = { calls_per_day = 3 }\n";
    let setup = setup(&issuer, &upstream).policy_file("agents.toml", &AGENTS.replace("[agents.bot]\n", budget));
    let running = Running { gateway: setup.start().await, issuer, upstream };
    let bot = running.bot();
    let (_, one) = open(&bot, json!({ "template": "nightly" })).await;
    let (_, two) = open(&bot, json!({ "template": "counted" })).await;
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" } });
    let below = bot.modern("tools/call", under(&one, params)).await;
    let below = below.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", below.text));
    let mut done = 0;
    for handle in [&one, &two, below, &one, &two, below, &one, &two] {
        let answer = call(&bot, handle, "tools__echo", json!({})).await;
        if answer.tool_text() == "done" {
            done += 1;
        } else {
            assert_eq!(reason(&answer), "budget_exhausted", "{}", answer.text);
        }
    }
    // Midnight may pass in between, once.
    assert!(done == 3 || done == 6, "{done} calls were let through");
}
