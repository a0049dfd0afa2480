//! Whoever has a part in a call approves nothing of it: as an account, as the human behind it, or as who answers for it.

use super::meanwhile::{ROOTS, root};
use super::*;
use crate::support::eventually;

const KEY: &str = "bwk_AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

fn agents() -> String {
    let digest = bailiwick::ids::Digest::sha256(KEY.as_bytes());
    let today = jiff::Timestamp::now();
    let day = jiff::tz::TimeZone::UTC.to_datetime(today).date();
    let agent = |id: &str, owner: &str, client: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:test/{owner}\"\nowner_person = \"{owner}\"\npurpose = \"tests\"\n\
             kind = \"autonomous\"\nmandates = \"optional\"\nenvironments = [\"development\"]\n{client}"
        )
    };
    let client =
        |id: &str| format!("clients = [{{ issuer = \"test\", client_id = \"{id}\", proof = \"private_key\" }}]\n");
    let key = format!(
        "[[agents.ci.keys]]\nid = \"ci-1\"\nsha256 = \"{digest}\"\nowner = \"user:test/carol\"\n\
         owner_person = \"Carol\"\ncreated = \"{today}\"\nexpires = {day}\n"
    );
    [
        AGENTS.to_owned(),
        agent("ci", "somebody", ""),
        key,
        agent("bot", "somebody", &client("bot")),
        agent("chief", "petra", &client("chief")),
    ]
    .concat()
}

const MORE: &str = "\
p, agent:ci, *, tools/*, call, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, tools/*, call, -, allow
p, user:test/chief, *, bailiwick/mandate:*, admin, -, allow
p, agent:chief, *, bailiwick/mandate:*, admin, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
g, group:test/openers, role:opener, *
p, role:opener, *, bailiwick/*, admin, -, allow
";

const TEMPLATES: &str = "\
[templates.nightly]
title = \"echoes at night\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
wall_time = \"10m\"
";

async fn governed() -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, GATES)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}{MORE}"))
        .policy_file("agents.toml", &agents())
        .policy_file("mandates.toml", TEMPLATES)
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

impl Running {
    fn software(&self, client: &str) -> Client {
        let mut claims = self.issuer.claims(client, &[], &self.gateway.resource());
        claims["client_id"] = json!(client);
        self.gateway.client(&self.issuer.sign(&claims))
    }

    /// Somebody who approves, of that human.
    fn account(&self, user: &str, person: &str) -> String {
        let mut claims = self.issuer.administrator(user, &["approvers"], &self.gateway.admin);
        claims["person"] = json!(person);
        self.issuer.sign(&claims)
    }

    async fn refuses(&self, id: &str, token: &str) {
        let answer = self.approve(id, token).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, "approver_refused"), "{}", answer.text);
    }
}

async fn under(client: &Client, handle: &str, arguments: Value) -> Answer {
    let params = json!({ "name": "tools__echo", "arguments": arguments, "_meta": { "dev.bailiwick/mandate": handle } });
    client.modern("tools/call", params).await
}

#[tokio::test]
async fn a_caller_whose_token_does_not_say_who_they_are_is_approved_by_nobody() {
    let running = start(GATES).await;
    let mut claims = running.issuer.claims("alice", &["developers"], &running.gateway.resource());
    claims.as_object_mut().unwrap().remove("person");
    let alice = running.gateway.client(&running.issuer.sign(&claims));
    let refused = alice.call_tool("tools__echo", json!({ "n": 1 })).await;
    assert_eq!(reason(&refused), "person_unknown", "{}", refused.text);
    let confirm = "[gates.sure]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\n";
    let running = start(confirm).await;
    let mut claims = running.issuer.claims("alice", &["developers"], &running.gateway.resource());
    claims.as_object_mut().unwrap().remove("person");
    let alice = running.gateway.client(&running.issuer.sign(&claims));
    let asked = alice.call_tool("tools__echo", json!({ "n": 1 })).await;
    assert_eq!(reason(&asked), "confirmation_required", "who confirms is whoever calls: {}", asked.text);
}

#[tokio::test]
async fn an_owner_with_a_second_account_is_the_owner() {
    let running = start(GATES).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    for person in ["owner", " OWNER "] {
        running.refuses(&id, &running.account("owner-admin", person)).await;
    }
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
}

#[tokio::test]
async fn where_nobody_knows_which_human_an_owner_is_nobody_is_somebody_else() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let agents = AGENTS.replace("owner_person = \"owner\"\n", "");
    let gateway = setup(&issuer, &upstream, GATES).policy_file("agents.toml", &agents).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let answer = running.approve(&id, &running.bob()).await;
    assert_eq!((answer.status, reason(&answer).as_str()), (403, "approver_refused"), "{}", answer.text);
    assert!(answer.text.contains("owner_person"), "it says what to write: {}", answer.text);
    let checked = running.gateway.command(&["check", "--config", "servers.toml"]);
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(told.contains("the agent `assistant`") && told.contains("owner_person"), "{told}");
    // Where the claim is the account itself, everybody knows.
    let (issuer, upstream) = (Issuer::start().await, self::upstream().await);
    let gateway = Setup::new(&issuer)
        .claims("person = \"sub\"\n")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("gates.toml", GATES)
        .policy_file("agents.toml", &agents)
        .http_server("tools", &upstream.url, "pins = \"off\"")
        .admin(ADMIN)
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    running.refuses(&id, &running.person("owner", &["approvers"])).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
}

#[tokio::test]
async fn whoever_answers_for_an_api_key_does_not_approve_what_is_called_with_it() {
    let running = governed().await;
    let id = waits(&running.gateway.client(KEY).call_tool("tools__echo", json!({ "n": 1 })).await);
    running.refuses(&id, &running.person("carol", &["approvers"])).await;
    running.refuses(&id, &running.account("carol-admin", "carol")).await;
    running.refuses(&id, &running.person("somebody", &["approvers"])).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let done = running.gateway.client(KEY).call_tool("tools__echo", json!({ "n": 1 })).await;
    assert_eq!((done.tool_text(), running.calls()), (r#"{"n":1}"#, 1), "{}", done.text);
}

#[tokio::test]
async fn what_somebody_answered_for_is_asked_for_anew_once_their_block_is_lifted() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, GATES)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}{MORE}{ROOTS}"))
        .policy_file("agents.toml", &agents())
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let ci = running.gateway.client(KEY);
    // For the key, for the server, for the agent.
    for owner in ["user:test/carol", "user:test/owner", "user:test/somebody"] {
        let arguments = json!({ "n": owner });
        let id = waits(&ci.call_tool("tools__echo", arguments.clone()).await);
        assert_eq!(running.approve(&id, &running.bob()).await.response()["state"], "approved", "{owner}");
        let revoked = running.gateway.command(&["revoke", "owner", owner, "--config", "servers.toml"]);
        assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
        let held = running.at("/revocations", &root(&running)).bare(reqwest::Method::GET, &[]).await;
        let path = format!("/revocations/{}", held.response()["revocations"][0]["since"]);
        let lifted = running.at(&path, &root(&running)).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
        eventually("the server to be there", async || {
            ci.modern("tools/list", json!({})).await.text.contains("tools__echo")
        })
        .await;
        assert_ne!(waits(&ci.call_tool("tools__echo", arguments).await), id, "{owner}");
        assert_eq!(
            (running.view(&id, &running.bob()).await["state"].as_str(), running.calls()),
            (Some("withdrawn"), 0)
        );
    }
}

#[tokio::test]
async fn whoever_opened_a_mandate_or_one_above_it_does_not_approve_what_is_done_under_it() {
    let running = governed().await;
    // Dave opens the outer one, and the agent a narrower one below it.
    let mut dave = running.issuer.administrator("dave", &["openers"], &running.gateway.admin);
    dave["person"] = json!("Dave");
    let wish = json!({ "template": "nightly", "agent": "bot", "seconds": 300 });
    let opened = running.at("/mandates", &running.issuer.sign(&dave)).post(&[], wish.to_string()).await;
    assert_eq!(opened.status, 200, "{}", opened.text);
    assert!(!opened.text.contains("opened_by"), "which human that is, is told nobody: {}", opened.text);
    let outer = opened.response()["handle"].as_str().unwrap().to_owned();
    let bot = running.software("bot");
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": "nightly" },
        "_meta": { "dev.bailiwick/mandate": outer } });
    let inner = bot.modern("tools/call", params).await;
    let inner = inner.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", inner.text));
    for handle in [outer.as_str(), inner] {
        let id = waits(&under(&bot, handle, json!({ "n": 1 })).await);
        running.refuses(&id, &running.person("dave", &["approvers"])).await;
        running.refuses(&id, &running.account("dave-admin", " dave")).await;
        running.refuses(&id, &running.person("somebody", &["approvers"])).await;
        assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
        let done = under(&bot, handle, json!({ "n": 1 })).await;
        assert_eq!(done.tool_text(), r#"{"n":1}"#, "{}", done.text);
    }
    assert_eq!(running.calls(), 2);
}

#[tokio::test]
async fn whoever_answers_for_the_software_that_opened_a_mandate_does_not_approve_what_is_done_under_it() {
    let running = governed().await;
    let wish = json!({ "template": "nightly", "agent": "bot" });
    let opened = running.software("chief").call_tool("bailiwick__mandate_open", wish).await;
    let handle = opened.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", opened.text));
    let bot = running.software("bot");
    let id = waits(&under(&bot, handle, json!({ "n": 1 })).await);
    running.refuses(&id, &running.account("petra-admin", "petra")).await;
    running.refuses(&id, &running.person("petra", &["approvers"])).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    // And the approval is of this mandate.
    let bare = waits(&bot.call_tool("tools__echo", json!({ "n": 1 })).await);
    assert_ne!(bare, id);
    assert_eq!(under(&bot, handle, json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
    assert_eq!(running.calls(), 1);
    // What led to it and what came of it is one tree, also by the id that the upstream was sent.
    let sent = running.upstream.calls()[0].headers["x-request-id"].clone();
    let mandate = opened.result()["structuredContent"]["id"].as_str().unwrap();
    let shows = async |asked: &str, expected: &[&str]| {
        crate::support::eventually("the tree", async || {
            let shown = running.gateway.command(&["logs", "show", asked, "--config", "servers.toml"]);
            let shown = String::from_utf8_lossy(&shown.stdout).into_owned();
            expected.iter().all(|word| shown.contains(word))
        })
        .await;
    };
    shows(&sent, &[mandate, &id, "user:test/bob", "tools", "echo", "complete"]).await;
    shows(mandate, &["nightly", "tools/echo", "complete"]).await;
    shows(&id, &["user:test/bob", "tools/echo", "complete"]).await;
}

#[tokio::test]
async fn what_was_approved_under_one_mandate_is_not_called_under_another() {
    let running = governed().await;
    let bot = running.software("bot");
    let open = async || {
        let opened = bot.call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
        opened.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", opened.text)).to_owned()
    };
    let (own, other) = (open().await, open().await);
    let id = waits(&under(&bot, &own, json!({ "n": 1 })).await);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_ne!(waits(&under(&bot, &other, json!({ "n": 1 })).await), id, "another task is another call");
    assert_eq!(running.calls(), 0);
    assert_eq!(under(&bot, &own, json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_task_keeps_the_mandate_of_its_call() {
    let running = governed().await;
    let bot = running.software("bot");
    let open = async || {
        let opened = bot.call_tool("bailiwick__mandate_open", json!({ "template": "nightly" })).await;
        opened.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", opened.text)).to_owned()
    };
    let (handle, other) = (open().await, open().await);
    let tasks = json!({ "extensions": { crate::tasks::EXTENSION: {} } });
    let params =
        json!({ "name": "tools__echo", "arguments": { "n": 1 }, "_meta": { "dev.bailiwick/mandate": handle } });
    let began = crate::input::call(&bot, &tasks, params).await;
    let task = began.result()["taskId"].as_str().unwrap_or_else(|| panic!("{}", began.text)).to_owned();
    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let id = waiting.response()[0]["id"].as_str().unwrap().to_owned();
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let get = async |mandate: Option<&str>| {
        let mut params = json!({ "taskId": task });
        if let Some(mandate) = mandate {
            params["_meta"] = json!({ "dev.bailiwick/mandate": mandate });
        }
        let (mut headers, mut body) = crate::support::client::modern_request("tasks/get", params);
        headers.push(("mcp-name", task.clone()));
        body["params"]["_meta"]["io.modelcontextprotocol/clientCapabilities"] = tasks.clone();
        bot.post(&headers, body.to_string()).await
    };
    let differing = get(Some(&other)).await;
    assert_eq!(differing.response()["error"]["data"]["reason"], "mandate_unknown", "{}", differing.text);
    assert_eq!(running.calls(), 0);
    let done = get(None).await;
    assert_eq!(done.result()["result"]["content"][0]["text"], r#"{"n":1}"#, "{}", done.text);
    let intents = running.gateway.records("intent");
    let intent = intents.iter().find(|intent| intent["mcp"]["name"] == "echo").unwrap();
    assert_eq!(intent["approval"], json!(id));
    assert!(intent["mandate"]["id"].is_string(), "{intent}");
}
