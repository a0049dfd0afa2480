//! Tasks that were given on, and tasks that end together: with the access of whoever holds them, at once and for good.

use bailiwick::control::client::request;

use super::*;
use crate::support::{eventually, eventually_within};
use crate::tasks::{self, Task, ask, working};

const WHOLE: &str = "\
[templates.whole]
title = \"gives tasks to others\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"chief\"]
";

/// The one that gives tasks on has an owner of its own.
fn agents() -> String {
    let (others, chief) = AGENTS.split_once("[agents.chief]\n").unwrap();
    format!("{others}[agents.chief]\n{}", chief.replacen("user:test/owner", "user:test/boss", 1))
}

fn rules() -> String {
    format!("{RULES}p, agent:chief, *, bailiwick/mandate:*, admin, -, allow\n")
}

/// What takes access from the agent that gives tasks on, without naming its client or its user.
const TARGETS: [&[&str]; 2] = [&["agent", "chief"], &["owner", "user:test/boss"]];

fn taken(gateway: &Gateway, target: &[&str]) {
    let revoked = gateway.command(&[&["revoke"], target, &["--config", "servers.toml"]].concat());
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
}

/// A mandate of the one that gives tasks on, and a part of it for another: the id and the handle of that.
async fn given_on(chief: &Client) -> (String, String) {
    let (_, own) = open(chief, json!({ "template": "whole" })).await;
    let params = json!({ "name": "bailiwick__mandate_open", "_meta": { "dev.bailiwick/mandate": own },
        "arguments": { "template": "nightly", "agent": "bot" } });
    let opened = chief.modern("tools/call", params).await;
    let content = &opened.result()["structuredContent"];
    let text = |name: &str| content[name].as_str().unwrap_or_else(|| panic!("{}", opened.text)).to_owned();
    (text("id"), text("handle"))
}

impl Running {
    async fn asked(&self, method: reqwest::Method, path: &str) -> Answer {
        let url = format!("{}/api/v1{path}", self.gateway.admin);
        Client::new(&url, Some(&self.administrator())).bare(method, &[]).await
    }

    async fn lifted(&self) {
        let held = self.asked(reqwest::Method::GET, "/revocations").await.response()["revocations"].clone();
        let lifted = self.asked(reqwest::Method::DELETE, &format!("/revocations/{}", held[0]["since"])).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
    }

    fn told(&self, event: &str) -> Vec<Value> {
        let lines = self.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
        lines.filter(|line| line["event"] == event).collect()
    }
}

#[tokio::test]
async fn nothing_goes_on_under_a_task_that_was_given_on_by_an_agent_whose_access_is_taken() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gates = "[gates.small]\nobjects = [\"tools/small\"]\napprovers = [\"group:test/admins\"]\n";
    let setup = setup(&issuer, &upstream).claims("person = \"person\"\n").admin(&approving()).policy(&rules());
    let setup = setup.policy_file("agents.toml", &agents()).policy_file("gates.toml", gates);
    let setup = setup.policy_file("mandates.toml", &format!("{TEMPLATES}{WHOLE}"));
    let running = Running { gateway: setup.start().await, issuer, upstream };
    for target in TARGETS {
        let (bot, before) = (running.bot(), running.upstream.calls().len());
        let (id, handle) = given_on(&running.software("chief")).await;
        assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done", "{target:?}");
        let waiting = call(&bot, &handle, "tools__small", json!({})).await;
        assert_eq!(reason(&waiting), "approval_required", "{}", waiting.text);
        let under_way = {
            let (bot, handle) = (bot.clone(), handle.clone());
            tokio::spawn(async move { call(&bot, &handle, "tools__wait", json!({})).await })
        };
        eventually("the call to arrive", async || running.upstream.calls().len() == before + 2).await;
        taken(&running.gateway, target);
        let cut = under_way.await.unwrap();
        assert_eq!(reason(&cut), "mandate_ended", "{target:?}: {}", cut.text);
        let over = call(&bot, &handle, "tools__echo", json!({})).await;
        assert_eq!(reason(&over), "mandate_ended", "{target:?}: {}", over.text);
        assert_eq!(running.upstream.calls().len(), before + 2);
        let place = format!("/mandates/{id}");
        let shown = request::<()>(&running.gateway.state(), http::Method::GET, &place, None).await.unwrap();
        let shown: Value = serde_json::from_slice(&shown.body).unwrap();
        assert_eq!(shown["state"], "revoked", "{target:?}: {shown}");
        let listed = running.asked(reqwest::Method::GET, "/approvals").await;
        assert_eq!(listed.response(), &json!([]), "{target:?}: what waits under it waits for nobody");
        running.lifted().await;
        let over = call(&bot, &handle, "tools__echo", json!({})).await;
        assert_eq!(reason(&over), "mandate_ended", "{target:?}: it stays over");
        // What is given on afterwards is another one.
        let (_, fresh) = given_on(&running.software("chief")).await;
        assert_eq!(call(&bot, &fresh, "tools__echo", json!({})).await.tool_text(), "done", "{target:?}");
    }
}

#[tokio::test]
async fn a_task_at_a_server_is_cancelled_once_whoever_gave_it_on_has_no_access_any_more() {
    for target in TARGETS {
        let state = Task::new(std::sync::Mutex::new(working()));
        let (issuer, upstream) = (Issuer::start().await, tasks::modern(&state).await);
        let gateway = Setup::new(&issuer)
            .policy(&rules())
            .policy_file("agents.toml", &agents())
            .policy_file("mandates.toml", &format!("{WHOLE}{}", TEMPLATES.replace("\"tools/echo\"", "\"tools/job\"")))
            .policy_file("conditions.toml", CONDITIONS)
            .http_server("tools", &upstream.url, "")
            .start()
            .await;
        let software = |client: &str| {
            let mut claims = issuer.claims(client, &[], &gateway.resource());
            claims["client_id"] = json!(client);
            gateway.client(&issuer.sign(&claims))
        };
        let (bot, chief) = (software("bot"), software("chief"));
        let (_, handle) = given_on(&chief).await;
        let params = json!({ "name": "tools__job", "arguments": {}, "_meta": { "dev.bailiwick/mandate": handle } });
        let job = ask(&bot, "tools/call", params).await;
        let task = job.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", job.text)).to_owned();
        taken(&gateway, target);
        eventually("its server to hear of it", async || upstream.reached("tasks/cancel").len() == 1).await;
        let looked = ask(&bot, "tasks/get", json!({ "taskId": task })).await;
        assert_eq!(reason(&looked), "mandate_ended", "{target:?}: {}", looked.text);
    }
}

/// So many copies of a mandate in a gateway that is stopped, as if they had been opened before it; with this changed.
async fn copied(running: &Running, id: &str, count: usize, changed: &str) {
    use sqlx::Connection as _;
    let file = running.gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    let copy = format!(
        "INSERT INTO shelf (section, key, version, owner, body, number, expires_at)
         SELECT section, ?1, version, owner, json_set(body, '$.id', ?1{changed}), number, expires_at
         FROM shelf WHERE section = 'mandate' AND key = ?2"
    );
    let mut all = store.begin().await.unwrap();
    for number in 1..=count {
        // Names sort by age.
        let name = format!("{number:026}");
        let done =
            sqlx::query(sqlx::AssertSqlSafe(copy.as_str())).bind(name).bind(id).execute(&mut *all).await.unwrap();
        assert_eq!(done.rows_affected(), 1);
    }
    all.commit().await.unwrap();
}

#[tokio::test]
async fn what_a_lift_ends_is_ended_together() {
    let mut running = start().await;
    let (id, handle) = open(&running.bot(), json!({ "template": "nightly" })).await;
    assert!(running.gateway.stop().await.success());
    copied(&running, &id, 299, "").await;
    running.gateway.launch().await;
    taken(&running.gateway, &["client", "test/bot"]);
    let changes = || running.gateway.records("change").len();
    let before = changes();
    running.lifted().await;
    let ended = running.told("completed");
    assert!(ended.iter().all(|told| told["actor"] == "user:test/ann"), "{:?}", ended.first());
    assert_eq!(ended.len(), 300, "each is on the record before anything is given back");
    let epochs = 300_usize.div_ceil(bailiwick::limit::SHELF_CHANGES_MAX);
    assert_eq!(changes() - before, epochs, "with an epoch for as many as fit into a change");
    let over = call(&running.bot(), &handle, "tools__echo", json!({})).await;
    assert_eq!(reason(&over), "mandate_ended", "{}", over.text);
    // And once: what was told of is not looked for again.
    tokio::time::sleep(bailiwick::limit::MANDATES_LOOK_INTERVAL + std::time::Duration::from_secs(2)).await;
    assert_eq!(running.told("completed").len(), 300);
}

#[tokio::test]
async fn a_mandate_that_nobody_uses_is_found_however_many_that_are_over_are_kept() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = setup(&issuer, &upstream).policy_file("mandates.toml", &format!("{TEMPLATES}{IDLE}"));
    let mut running = Running { gateway: setup.start().await, issuer, upstream };
    let (id, _) = open(&running.bot(), json!({ "template": "idle" })).await;
    assert!(running.gateway.stop().await.success());
    let pages = 4;
    let over = ", '$.ended', json('{\"at_us\":1,\"by\":\"clock\"}'), '$.told', json('true')";
    copied(&running, &id, pages * bailiwick::limit::SHELF_ROWS_READ_MAX, over).await;
    running.gateway.launch().await;
    eventually_within(bailiwick::limit::MANDATES_LOOK_INTERVAL * 2, "its end to be told", async || {
        running.told("expired").iter().any(|told| told["id"] == json!(id))
    })
    .await;
    assert_eq!(running.told("expired").len(), 1, "the others were told of before");
}
