//! How a mandate ends: its credentials go with it, the record says so, and what grows afterwards needs somebody's word.

use bailiwick::control::client::request;

use super::*;
use crate::support::sts::{Revocation, Sts};
use crate::support::{eventually, eventually_within};

fn exchange(sts: &Sts) -> String {
    format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", \
         audience = \"https://tools.example\", scope = \"read\" }}",
        sts.url
    )
}

async fn with_credentials(sts: &Sts) -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", &format!("{TEMPLATES}{IDLE}"))
        .policy_file("conditions.toml", CONDITIONS)
        .http_server("tools", &upstream.url, &exchange(sts))
        .admin(&approving())
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

#[tokio::test]
async fn what_expires_takes_its_credentials_along_and_is_told_once() {
    let sts = Sts::start(Revocation::Has).await;
    let running = with_credentials(&sts).await;
    let bot = running.bot();
    let (unused, _) = open(&bot, json!({ "template": "idle" })).await;
    let (id, handle) = open(&bot, json!({ "template": "nightly", "seconds": 3 })).await;
    assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
    assert!(sts.revoked().is_empty());
    let presented = running.upstream.calls()[0].headers["authorization"].clone();
    let within = bailiwick::limit::MANDATES_LOOK_INTERVAL + std::time::Duration::from_secs(20);
    let told = || running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
    let began = std::time::Instant::now();
    while sts.revoked().is_empty() || told().filter(|line| line["event"] == "expired").count() < 2 {
        assert!(began.elapsed() < within, "{:?} {:?}", sts.revoked(), told().collect::<Vec<_>>());
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_eq!(format!("Bearer {}", sts.revoked()[0]["token"]), presented);
    let line = told().find(|line| line["event"] == "expired" && line["id"] == unused).unwrap();
    assert_eq!((&line["actor"], &line["note"]), (&json!("clock"), &json!("nobody used it")), "{line}");
    let line = told().find(|line| line["event"] == "expired" && line["id"] == id).unwrap();
    assert_eq!((&line["id"], &line["calls"]), (&json!(id), &json!([["tools", 1]])), "{line}");
    tokio::time::sleep(bailiwick::limit::MANDATES_LOOK_INTERVAL).await;
    assert_eq!(told().filter(|line| line["event"] == "expired").count(), 2);
    assert_eq!(sts.revoked().len(), 1);
}

#[tokio::test]
async fn a_task_that_nobody_goes_on_with_ends_and_one_with_something_under_way_does_not() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let templates = format!("{TEMPLATES}{IDLE}");
    let gateway = setup(&issuer, &upstream).policy_file("mandates.toml", &templates).start().await;
    let running = Running { issuer, upstream, gateway };
    let bot = running.bot();
    let (_, busy) = open(&bot, json!({ "template": "patient" })).await;
    let under_way = {
        let (bot, busy) = (bot.clone(), busy.clone());
        tokio::spawn(async move { call(&bot, &busy, "tools__wait", json!({})).await })
    };
    eventually("the call to arrive", async || running.upstream.calls().len() == 1).await;
    let (id, handle) = open(&bot, json!({ "template": "idle" })).await;
    let (_, above) = open(&bot, json!({ "template": "idle" })).await;
    let below = bot.modern(
        "tools/call",
        json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
            "_meta": { "dev.bailiwick/mandate": above } }),
    );
    let below = below.await.result()["structuredContent"]["handle"].as_str().unwrap().to_owned();
    // Nothing can be waited for: that nothing happens is what is looked at.
    tokio::time::sleep(std::time::Duration::from_millis(5_500)).await;
    let late = call(&bot, &handle, "tools__echo", json!({})).await;
    assert_eq!(reason(&late), "mandate_ended", "{}", late.text);
    assert_eq!(
        reason(&call(&bot, &below, "tools__echo", json!({})).await),
        "mandate_ended",
        "what is above it is over"
    );
    assert!(!under_way.is_finished(), "what is under way is use");
    assert_eq!(call(&bot, &busy, "tools__echo", json!({})).await.tool_text(), "done");
    let line = running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
    let line = line.into_iter().find(|line| line["event"] == "expired" && line["id"] == id).unwrap();
    assert_eq!((&line["actor"], &line["note"]), (&json!("clock"), &json!("nobody used it")), "{line}");
    let status = bot.call_tool("bailiwick__mandate_status", json!({ "id": id })).await;
    assert_eq!(status.result()["structuredContent"]["state"], "expired", "{}", status.text);
}

#[tokio::test]
async fn two_tasks_have_two_credentials_and_the_end_of_one_takes_back_its_own() {
    let sts = Sts::start(Revocation::Has).await;
    let running = with_credentials(&sts).await;
    let bot = running.bot();
    let (one, first) = open(&bot, json!({ "template": "nightly" })).await;
    let (_, second) = open(&bot, json!({ "template": "nightly" })).await;
    for handle in [&first, &second, &first] {
        assert_eq!(call(&bot, handle, "tools__echo", json!({})).await.tool_text(), "done");
    }
    let presented: Vec<String> =
        running.upstream.calls().iter().map(|call| call.headers["authorization"].clone()).collect();
    assert!(presented[0] == presented[2] && presented[0] != presented[1], "each has one of its own");
    let ids: std::collections::BTreeSet<String> = running
        .gateway
        .records("intent")
        .iter()
        .filter_map(|line| line["credential"]["id"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(ids.len(), 2, "{ids:?}");
    let completed = running.order(&format!("/mandates/{one}/complete"), json!({})).await;
    assert_eq!(completed.response()["state"], "completed", "{}", completed.text);
    let revoked = json!([["tools", "revoked"]]);
    let told = |answer: &Answer| -> Value {
        let response = answer.response();
        let upstreams = response["upstreams"].as_array().cloned().unwrap_or_default();
        upstreams.iter().map(|one| json!([one["server"], one["state"]])).collect()
    };
    assert_eq!(told(&completed), revoked, "{}", completed.text);
    // However fast the gateway itself looks for what is over.
    for _ in 0..5 {
        let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
        assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
        let completed = running.order(&format!("/mandates/{id}/complete"), json!({})).await;
        assert_eq!(told(&completed), revoked, "{}", completed.text);
    }
    let within = std::time::Duration::from_secs(60);
    eventually_within(within, "its credential to be taken back", async || {
        sts.revoked().iter().any(|form| format!("Bearer {}", form["token"]) == presented[0])
    })
    .await;
    assert_eq!(call(&bot, &second, "tools__echo", json!({})).await.tool_text(), "done", "the other task goes on");
}

#[tokio::test]
async fn what_ends_while_a_credential_is_waited_for_is_not_sent() {
    let sts = Sts::start(Revocation::Has).await;
    let running = with_credentials(&sts).await;
    let bot = running.bot();
    for ends in ["complete", "revoke"] {
        let before = sts.asked().len();
        sts.hold(true);
        let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
        let calling = {
            let (bot, handle) = (bot.clone(), handle.clone());
            tokio::spawn(async move { call(&bot, &handle, "tools__echo", json!({})).await })
        };
        eventually("the credential to be asked for", async || sts.asked().len() > before).await;
        match ends {
            "complete" => {
                let done = bot.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
                assert_eq!(done.result()["structuredContent"]["state"], "completed", "{}", done.text);
            }
            _ => {
                let revoked = running.gateway.command(&["revoke", "mandate", &id, "--config", "servers.toml"]);
                assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
            }
        }
        sts.hold(false);
        let answer = calling.await.unwrap();
        assert_eq!((reason(&answer).as_str(), running.upstream.calls().len()), ("mandate_ended", 0), "{}", answer.text);
    }
    // It was refused, and not sent and cut.
    eventually("both refusals on the record", async || {
        let refused = running.gateway.records("refusal");
        refused.iter().filter(|line| line["decision"]["reason"] == "mandate_ended").count() == 2
    })
    .await;
}

#[tokio::test]
async fn a_template_that_grows_needs_somebodys_word_and_one_that_shrinks_does_not() {
    let running = start().await;
    let bot = running.bot();
    let (_, handle) = open(&bot, json!({ "template": "nightly" })).await;
    let (_, counted) = open(&bot, json!({ "template": "counted" })).await;
    let file = running.gateway.place().join("policies/mandates.toml");
    let reload = |words: &[&str]| running.gateway.command(&[&["reload", "--config", "servers.toml"], words].concat());
    let written = |text: &str| std::fs::write(&file, text).unwrap();
    let wider = TEMPLATES.replace("\"tools/echo\", \"tools/wait\", \"tools/small\"", "\"*/*\"");
    assert_ne!(wider, TEMPLATES);
    written(&wider);
    let refused = reload(&[]);
    let said = String::from_utf8_lossy(&refused.stdout).into_owned();
    assert!(refused.status.code() == Some(1) && said.contains("--allow-widening"), "{said}");
    assert_eq!(reason(&call(&bot, &handle, "tools__other", json!({})).await), "mandate_scope");
    // A seal that it does not fit is no way around it.
    written(TEMPLATES);
    assert!(running.gateway.command(&["check", "--seal", "--config", "servers.toml"]).status.success());
    written(&wider);
    for words in [&[][..], &["--allow-widening"]] {
        let refused = reload(words);
        assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stdout));
        assert_eq!(reason(&call(&bot, &handle, "tools__other", json!({})).await), "mandate_scope");
    }
    // A budget that shrinks counts for what is open.
    assert_eq!(call(&bot, &counted, "tools__echo", json!({})).await.tool_text(), "done");
    written(&TEMPLATES.replace("calls = 7", "calls = 1"));
    let narrowed = reload(&[]);
    assert!(narrowed.status.success(), "{}", String::from_utf8_lossy(&narrowed.stdout));
    assert_eq!(reason(&call(&bot, &counted, "tools__echo", json!({})).await), "budget_exhausted");
    // And so does a shorter time.
    let shorter = TEMPLATES.replace("calls = 7", "calls = 1").replace("wall_time = \"10m\"", "wall_time = \"1s\"");
    written(&shorter);
    assert!(reload(&[]).status.success());
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(reason(&call(&bot, &handle, "tools__echo", json!({})).await), "mandate_ended");
}

#[tokio::test]
async fn so_many_are_opened_in_a_day_by_one_caller_and_others_open_theirs() {
    use sqlx::Connection as _;
    let mut running = start().await;
    open(&running.bot(), json!({ "template": "nightly" })).await;
    assert!(running.gateway.stop().await.success());
    let file = running.gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    let filled = sqlx::query("UPDATE shelf SET number = ? WHERE section = 'count' AND key LIKE 'opener/%'")
        .bind(i64::from(bailiwick::limit::MANDATES_OPENED_PER_DAY_MAX) - 1)
        .execute(&mut store)
        .await
        .unwrap();
    assert_eq!(filled.rows_affected(), 1);
    drop(store);
    running.gateway.launch().await;
    open(&running.bot(), json!({ "template": "nightly" })).await;
    let refused = running.bot().call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
    assert_eq!(reason(&refused), "mandate_refused", "{}", refused.text);
    open(&running.software("chief"), json!({ "template": "nightly", "agent": "bot" })).await;
    // Nor is one of them as long as its opener likes.
    let long: Vec<String> = (0..200).map(|number| format!("tools/{number}{}", "x".repeat(100))).collect();
    let wish = json!({ "agent": "bot", "tools": long, "environments": ["development"] });
    let refused = running.order("/mandates", wish).await;
    assert_eq!(refused.response()["reason"], "mandate_refused", "{}", refused.text);
    assert!(refused.text.contains(&bailiwick::limit::MANDATE_BYTES_MAX.to_string()), "{}", refused.text);
}

#[tokio::test]
async fn a_person_opens_one_for_an_agent_that_has_an_api_key_and_nothing_else() {
    let running = start().await;
    let robot = "[agents.robot]\nowner = \"user:test/owner\"\npurpose = \"has a key\"\nkind = \"autonomous\"\n\
                 environments = [\"development\"]\n";
    let agents = running.gateway.place().join("policies/agents.toml");
    std::fs::write(&agents, format!("{AGENTS}{robot}")).unwrap();
    let made = running.gateway.command(&[
        "keys",
        "api",
        "new",
        "--agent",
        "robot",
        "--owner",
        "user:test/owner",
        "--json",
        "--config",
        "servers.toml",
    ]);
    let made: Value = serde_json::from_slice(&made.stdout).unwrap_or_else(|_| panic!("{made:?}"));
    std::fs::write(&agents, format!("{AGENTS}{robot}{}", made["row"].as_str().unwrap())).unwrap();
    let rules = format!("{RULES}p, agent:robot, *, tools/*, call, -, allow\n");
    std::fs::write(running.gateway.place().join("policies/policy.csv"), rules).unwrap();
    for words in [&["check", "--seal"][..], &["reload"]] {
        let ran = running.gateway.command(&[words, &["--config", "servers.toml"]].concat());
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stdout));
    }
    let client = running.gateway.client(made["key"].as_str().unwrap());
    assert_eq!(reason(&client.call_tool("tools__echo", json!({})).await), "mandate_required");
    let mut wish = json!({ "agent": "robot", "tools": ["tools/echo"], "environments": ["development"] });
    for named in [None, made["id"].as_str()] {
        if let Some(key) = named {
            wish["client"] = json!(key);
        }
        let opened = running.order("/mandates", wish.clone()).await;
        assert_eq!(opened.status, 200, "{}", opened.text);
        let handle = opened.response()["handle"].as_str().unwrap();
        let answer = call(&client, handle, "tools__echo", json!({})).await;
        assert_eq!(answer.tool_text(), "done", "{named:?}: {}", answer.text);
    }
    wish["client"] = json!("another");
    let unknown = running.order("/mandates", wish).await;
    assert_eq!(unknown.response()["reason"], "mandate_refused", "{}", unknown.text);
}

#[tokio::test]
async fn an_end_that_was_cut_off_before_it_was_told_is_taken_up_again() {
    use sqlx::Connection as _;
    let mut running = start().await;
    let mut ids = Vec::new();
    for _ in 0..2 {
        let (id, _) = open(&running.bot(), json!({ "template": "nightly" })).await;
        running.bot().call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
        ids.push(id);
    }
    let told = |running: &Running, id: &str| {
        let all = running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
        all.filter(|line| line["event"] == "completed" && line["id"] == json!(id)).count()
    };
    assert_eq!([told(&running, &ids[0]), told(&running, &ids[1])], [1, 1]);
    assert!(running.gateway.stop().await.success());
    // As if the process had died in between, for the second one a while ago.
    let file = running.gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    let cut = "UPDATE shelf SET body = json_remove(body, '$.told') WHERE section = 'mandate'";
    assert_eq!(sqlx::query(cut).execute(&mut store).await.unwrap().rows_affected(), 2);
    let earlier = "UPDATE shelf SET body = json_set(body, '$.ended.at_us', 1) WHERE section = 'mandate' AND key = ?";
    assert_eq!(sqlx::query(earlier).bind(&ids[1]).execute(&mut store).await.unwrap().rows_affected(), 1);
    drop(store);
    running.gateway.launch().await;
    let complete = async || running.bot().call_tool("bailiwick__mandate_complete", json!({ "id": ids[0] })).await;
    let again = complete().await;
    assert_eq!(again.result()["structuredContent"]["state"], "completed", "{}", again.text);
    assert_eq!(told(&running, &ids[0]), 2);
    assert_eq!(reason(&complete().await), "mandate_ended", "it is told of now");
    let began = std::time::Instant::now();
    while told(&running, &ids[1]) < 2 {
        assert!(
            began.elapsed() < bailiwick::limit::MANDATES_LOOK_INTERVAL * 3,
            "{:?}",
            running.gateway.records("mandate")
        );
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn a_process_that_was_started_under_a_mandate_ends_with_it_and_is_no_other_mandates() {
    crate::needs_python!();
    let (sts, issuer, place) = (Sts::start(Revocation::Has).await, Issuer::start().await, tempfile::tempdir().unwrap());
    let command = crate::processes::command(place.path());
    let command: Vec<&str> = command.iter().map(String::as_str).collect();
    let more = format!("{}\ncredential_variable = \"SERVICE_TOKEN\"\npins = \"off\"", exchange(&sts));
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .policy_file("conditions.toml", CONDITIONS)
        .stdio_server("tools", &command, &more)
        .start()
        .await;
    let mut claims = issuer.claims("bot", &[], &gateway.resource());
    claims["client_id"] = json!("bot");
    let bot = gateway.client(&issuer.sign(&claims));
    let mut processes = Vec::new();
    for _ in 0..2 {
        let (id, handle) = open(&bot, json!({ "template": "counted" })).await;
        let answer = call(&bot, &handle, "tools__whoami", json!({})).await;
        let told: Value = serde_json::from_str(answer.tool_text()).unwrap_or_else(|_| panic!("{}", answer.text));
        processes.push((id, told["process"].as_u64().unwrap(), told["token"].clone()));
    }
    assert!(processes[0].1 != processes[1].1 && processes[0].2 != processes[1].2, "{processes:?}");
    let (first, second) = (processes[0].1, processes[1].1);
    let done = bot.call_tool("bailiwick__mandate_complete", json!({ "id": processes[0].0 })).await;
    assert_eq!(done.result()["structuredContent"]["state"], "completed", "{}", done.text);
    crate::stdio::are_gone(&[first], std::time::Duration::from_secs(1)).await;
    assert!(crate::stdio::lives(second), "the other mandate goes on");
    let revoked = gateway.command(&["revoke", "mandate", &processes[1].0, "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    crate::stdio::are_gone(&[second], std::time::Duration::from_secs(1)).await;
}

#[tokio::test]
async fn what_has_expired_stays_over_also_where_the_clock_goes_back() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gates = "[gates.small]\nobjects = [\"tools/small\"]\napprovers = [\"group:test/admins\"]\n";
    let rules = format!("{RULES}p, user:test/bot, *, tools/*, call, -, allow\n");
    let setup = setup(&issuer, &upstream).admin(&approving()).policy(&rules).policy_file("gates.toml", gates);
    let Some(setup) = setup.claims("person = \"person\"\n").own_clock() else { return };
    let running = Running { gateway: setup.start().await, issuer, upstream };
    let bot = running.bot();
    let (id, handle) = open(&bot, json!({ "template": "nightly" })).await;
    assert_eq!(call(&bot, &handle, "tools__echo", json!({})).await.tool_text(), "done");
    let (_, waiting) = open(&bot, json!({ "template": "counted" })).await;
    let asked = call(&bot, &waiting, "tools__small", json!({})).await;
    assert_eq!(reason(&asked), "approval_required", "{}", asked.text);
    let within = bailiwick::limit::MANDATES_LOOK_INTERVAL * 6;
    let told = || {
        let lines = running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
        lines.filter(|line| line["event"] == "expired" && line["id"] == json!(id)).collect::<Vec<_>>()
    };
    let approvals = |event: &str| {
        let lines = running.gateway.records("approval").into_iter();
        lines.filter(|line| line["approval"]["event"] == event).count()
    };
    // Two hours later everything of it has run out, and that is told.
    running.gateway.set_clock("+7200");
    eventually_within(within, "the end to be told", async || {
        let _listed = running.gateway.command(&["approvals", "list", "--config", "servers.toml"]);
        told().len() == 1 && approvals("expired") + approvals("withdrawn") == 1
    })
    .await;
    assert_eq!((&told()[0]["actor"], told()[0]["epoch"].is_u64()), (&json!("clock"), true), "{:?}", told());
    running.gateway.set_clock("+0");
    let bot = running.bot();
    eventually_within(within, "the clock to be the true one", async || {
        call(&bot, &handle, "tools__echo", json!({})).await.status == 200
    })
    .await;
    let over = call(&bot, &handle, "tools__echo", json!({})).await;
    assert_eq!(reason(&over), "mandate_ended", "{}", over.text);
    let place = format!("/mandates/{id}");
    let shown = request::<()>(&running.gateway.state(), http::Method::GET, &place, None).await.unwrap();
    let shown: Value = serde_json::from_slice(&shown.body).unwrap();
    assert_eq!(shown["state"], "expired", "{shown}");
}

#[tokio::test]
async fn what_waits_for_approval_under_a_mandate_waits_no_more_when_that_is_over() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gates = "[gates.small]\nobjects = [\"tools/small\"]\napprovers = [\"group:test/admins\"]\n";
    let setup = setup(&issuer, &upstream).claims("person = \"person\"\n").admin(&approving());
    let gateway = setup.policy_file("gates.toml", gates).start().await;
    let running = Running { gateway, issuer, upstream };
    let bot = running.bot();
    let (id, handle) = open(&bot, json!({ "template": "counted" })).await;
    let asked = call(&bot, &handle, "tools__small", json!({})).await;
    assert_eq!(reason(&asked), "approval_required", "{}", asked.text);
    let look = async |path: &str| {
        let url = format!("{}/api/v1{path}", running.gateway.admin);
        Client::new(&url, Some(&running.administrator())).bare(reqwest::Method::GET, &[]).await.response().clone()
    };
    let listed = look("/approvals").await;
    let request = listed[0]["id"].as_str().unwrap_or_else(|| panic!("{listed}")).to_owned();
    let shown = look(&format!("/approvals/{request}")).await["shown"].clone();
    let completed = bot.call_tool("bailiwick__mandate_complete", json!({ "id": id })).await;
    assert_eq!(completed.result()["structuredContent"]["state"], "completed", "{}", completed.text);
    assert_eq!(look("/approvals").await, json!([]), "it waits for nobody");
    let approved = running.order(&format!("/approvals/{request}/approve"), json!({ "shown": shown })).await;
    assert_eq!(approved.response()["reason"], "approval_over", "{}", approved.text);
    eventually("the record to say so", async || {
        let lines = running.gateway.records("approval").into_iter();
        lines
            .map(|line| line["approval"].clone())
            .any(|told| told["event"] == "withdrawn" && told["id"] == json!(request))
    })
    .await;
}

#[tokio::test]
async fn with_its_holders_access_a_mandate_is_over_for_good_whoever_opened_it() {
    let running = start().await;
    let asked = async |method: reqwest::Method, path: &str| {
        let url = format!("{}/api/v1{path}", running.gateway.admin);
        Client::new(&url, Some(&running.administrator())).bare(method, &[]).await
    };
    for target in ["client test/bot", "subject user:test/bot", "agent bot", "owner user:test/owner"] {
        let bot = running.bot();
        let (id, own) = open(&bot, json!({ "template": "nightly" })).await;
        let given = running.order("/mandates", json!({ "template": "nightly", "agent": "bot" })).await;
        let given = given.response()["handle"].as_str().unwrap_or_else(|| panic!("{}", given.text)).to_owned();
        for handle in [&own, &given] {
            let answer = call(&bot, handle, "tools__echo", json!({})).await;
            assert_eq!(answer.tool_text(), "done", "{target}: {}", answer.text);
        }
        let words: Vec<&str> = ["revoke"].into_iter().chain(target.split(' ')).collect();
        let revoked = running.gateway.command(&[&words[..], &["--config", "servers.toml"]].concat());
        assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
        let held = asked(reqwest::Method::GET, "/revocations").await.response()["revocations"].clone();
        let lifted = asked(reqwest::Method::DELETE, &format!("/revocations/{}", held[0]["since"])).await;
        assert_eq!(lifted.status, 200, "{target}: {}", lifted.text);
        eventually("the server to be there", async || {
            asked(reqwest::Method::GET, "/servers").await.response()[0]["health"] == "up"
        })
        .await;
        let bot = running.bot();
        for handle in [&own, &given] {
            let over = call(&bot, handle, "tools__echo", json!({})).await;
            assert_eq!(reason(&over), "mandate_ended", "{target}: {}", over.text);
        }
        let told = running.gateway.records("mandate").into_iter().map(|line| line["mandate"].clone());
        let told: Vec<Value> = told.filter(|told| told["event"] == "completed" && told["id"] == json!(id)).collect();
        assert_eq!((told.len(), &told[0]["actor"]), (1, &json!("user:test/ann")), "{target}: {told:?}");
        // What is opened afterwards is another one.
        let (_, fresh) = open(&bot, json!({ "template": "nightly" })).await;
        let answer = call(&bot, &fresh, "tools__echo", json!({})).await;
        assert_eq!(answer.tool_text(), "done", "{target}: {}", answer.text);
    }
}

#[tokio::test]
async fn while_its_holders_access_is_taken_back_a_mandate_is_shown_as_revoked_and_so_is_what_is_below_it() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let bots = AGENTS.replace("[agents.bot]\nowner = \"user:test/owner\"", "[agents.bot]\nowner = \"user:test/bots\"");
    assert_ne!(bots, AGENTS);
    let helper = "[agents.helper]\nowner = \"user:test/owner\"\npurpose = \"helps\"\nkind = \"autonomous\"\n\
                  environments = [\"development\"]\n\
                  clients = [{ issuer = \"test\", client_id = \"helper\", proof = \"private_key\" }]\n";
    let agents = format!("{bots}{helper}");
    let rules = format!(
        "{RULES}p, agent:helper, *, tools/*, call, -, allow\np, user:test/helper, *, tools/*, call, -, allow\n"
    );
    let templates = TEMPLATES.replace("agents = [\"bot\"]", "agents = [\"bot\", \"helper\", \"chief\"]");
    let setup = setup(&issuer, &upstream).policy(&rules).policy_file("mandates.toml", &templates);
    let gateway = setup.policy_file("agents.toml", &agents).admin(ADMIN).start().await;
    let running = Running { issuer, upstream, gateway };
    let states = |words: &[&str]| {
        let listed =
            running.gateway.command(&[&["mandates", "list", "--json", "--config", "servers.toml"], words].concat());
        let listed: Value = serde_json::from_slice(&listed.stdout).unwrap_or_else(|_| panic!("{listed:?}"));
        let all = listed.as_array().unwrap().iter();
        let told = all.map(|one| (one["mandate"]["id"].as_str().unwrap().to_owned(), one["state"].clone()));
        told.collect::<std::collections::BTreeMap<_, _>>()
    };
    for target in ["client test/bot", "subject user:test/bot", "agent bot", "owner user:test/bots"] {
        let bot = running.bot();
        let (above, handle) = open(&bot, json!({ "template": "nightly" })).await;
        let given = json!({ "template": "nightly", "agent": "helper" });
        let params = json!({ "name": "bailiwick__mandate_open", "arguments": given,
            "_meta": { "dev.bailiwick/mandate": handle } });
        let below = bot.modern("tools/call", params).await;
        let opened = &below.result()["structuredContent"];
        let text = |name: &str| opened[name].as_str().unwrap_or_else(|| panic!("{}", below.text)).to_owned();
        let (below, part) = (text("id"), text("handle"));
        let (other, _) = open(&running.software("chief"), json!({ "template": "nightly", "agent": "chief" })).await;
        let helper = running.software("helper");
        let answer = call(&helper, &part, "tools__echo", json!({})).await;
        assert_eq!(answer.tool_text(), "done", "{target}: {}", answer.text);
        let words: Vec<&str> = ["revoke"].into_iter().chain(target.split(' ')).collect();
        let revoked = running.gateway.command(&[&words[..], &["--config", "servers.toml"]].concat());
        assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));

        let told = states(&[]);
        assert_eq!((&told[&above], &told[&below]), (&json!("revoked"), &json!("revoked")), "{target}: {told:?}");
        assert_eq!(told[&other], "active", "{target}: {told:?}");
        assert_eq!(states(&["--active"]).keys().collect::<Vec<_>>(), [&other], "{target}");
        let shown = running.gateway.command(&["mandates", "show", &above, "--json", "--config", "servers.toml"]);
        let shown: Value = serde_json::from_slice(&shown.stdout).unwrap_or_else(|_| panic!("{shown:?}"));
        assert_eq!(shown["state"], "revoked", "{target}: {shown}");
        let over = call(&helper, &part, "tools__echo", json!({})).await;
        assert_eq!(reason(&over), "mandate_ended", "{target}: {}", over.text);

        crate::voided::lift(&running.issuer, &running.gateway).await;
        let told = states(&[]);
        assert_eq!((&told[&above], &told[&below]), (&json!("completed"), &json!("completed")), "{target}: {told:?}");
        let ended = running.order(&format!("/mandates/{other}/complete"), json!({})).await;
        assert_eq!(ended.status, 200, "{}", ended.text);
    }
}
