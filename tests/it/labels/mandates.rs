//! What was seen under a mandate, above it, below it and beside it.

use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};

use super::{LABELS, TOOLS, sent, upstream};
use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works\"
kind = \"autonomous\"
mandates = \"optional\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
[agents.chief]
owner = \"user:test/owner\"
purpose = \"gives tasks to others\"
kind = \"autonomous\"
mandates = \"optional\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"chief\", proof = \"private_key\" }]
";

const TEMPLATES: &str = "\
[templates.task]
title = \"anything\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\", \"chief\"]
may_isolate = true
";

const RULES: &str = "\
p, anyone, *, tools/*, call, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, agent:chief, *, tools/*, call, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, user:test/chief, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:chief, *, bailiwick/mandate:*, admin, -, allow
";

pub(super) struct Running {
    issuer: Issuer,
    upstream: Scripted,
    pub(super) gateway: Gateway,
}

pub(super) async fn start(upstream: Scripted) -> Running {
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .policy_file("labels.toml", LABELS)
        .http_server("tools", &upstream.url, "")
        .start()
        .await;
    Running { issuer, upstream, gateway }
}

impl Running {
    pub(super) fn software(&self, client: &str) -> Client {
        let mut claims = self.issuer.claims(client, &[], &self.gateway.resource());
        claims["client_id"] = json!(client);
        self.gateway.client(&self.issuer.sign(&claims))
    }
}

#[expect(clippy::needless_pass_by_value, reason = "each test makes its wish on the spot")]
fn params(name: &str, arguments: Value, handle: Option<&str>) -> Value {
    let mut params = json!({ "name": name, "arguments": arguments });
    if let Some(handle) = handle {
        params["_meta"] = json!({ "dev.bailiwick/mandate": handle });
    }
    params
}

/// The handle of a mandate that was opened just now, below another one where that is named.
pub(super) async fn open(client: &Client, wish: Value, above: Option<&str>) -> String {
    let answer = client.modern("tools/call", params("bailiwick__mandate_open", wish, above)).await;
    let handle = &answer.result()["structuredContent"]["handle"];
    handle.as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

/// The reason that a call was refused for, or that of nobody.
pub(super) async fn call(client: &Client, name: &str, handle: Option<&str>) -> Option<String> {
    let answer = client.modern("tools/call", params(&format!("tools__{name}"), json!({}), handle)).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let refused = answer.result()["isError"].as_bool().unwrap_or(false);
    refused.then(|| answer.tool_text().split(':').next().unwrap().to_owned())
}

async fn sees_too_much(client: &Client, handle: Option<&str>) {
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(client, name, handle).await, None);
    }
}

const REFUSED: Option<&str> = Some("flow_refused");

#[tokio::test]
async fn what_was_seen_under_a_mandate_is_seen_below_it_also_where_that_began_clean() {
    let running = start(upstream().await).await;
    let (chief, bot) = (running.software("chief"), running.software("bot"));
    let wish = json!({ "template": "task", "agent": "bot", "isolate": true });
    let above = open(&chief, wish, None).await;
    sees_too_much(&bot, Some(&above)).await;
    assert_eq!(call(&bot, "send", Some(&above)).await.as_deref(), REFUSED);
    let mut below = above;
    for _ in 1..bailiwick::limit::MANDATE_DEPTH_MAX {
        below = open(&bot, json!({ "template": "task" }), Some(&below)).await;
        assert_eq!(call(&bot, "send", Some(&below)).await.as_deref(), REFUSED, "one more is no way out");
    }
    assert_eq!(sent(&running.upstream), 0);
}

#[tokio::test]
async fn whoever_gives_a_task_hands_on_what_it_has_seen() {
    let running = start(upstream().await).await;
    let (chief, bot) = (running.software("chief"), running.software("bot"));
    sees_too_much(&chief, None).await;
    assert_eq!(call(&bot, "send", None).await, None, "it was told nothing yet");
    let handle = open(&chief, json!({ "template": "task", "agent": "bot" }), None).await;
    assert_eq!(call(&bot, "send", Some(&handle)).await.as_deref(), REFUSED);
    // What somebody else has begun without it is without it, whatever its holder has seen elsewhere.
    sees_too_much(&bot, None).await;
    let apart = open(&chief, json!({ "template": "task", "agent": "bot", "isolate": true }), None).await;
    assert_eq!(call(&bot, "send", Some(&apart)).await, None);
    assert_eq!(sent(&running.upstream), 2);
}

#[tokio::test]
async fn what_is_seen_below_a_mandate_is_seen_above_it_and_by_whoever_holds_that() {
    let running = start(upstream().await).await;
    let (chief, bot) = (running.software("chief"), running.software("bot"));
    let above = open(&chief, json!({ "template": "task" }), None).await;
    let below = open(&chief, json!({ "template": "task", "agent": "bot" }), Some(&above)).await;
    for handle in [Some(&*above), None] {
        assert_eq!(call(&chief, "send", handle).await, None, "nothing was seen yet");
    }
    sees_too_much(&bot, Some(&below)).await;
    for handle in [Some(&*above), None] {
        assert_eq!(call(&chief, "send", handle).await.as_deref(), REFUSED, "{handle:?}");
    }
    assert_eq!(sent(&running.upstream), 2);
}

#[tokio::test]
async fn what_is_seen_beside_a_mandate_counts_in_it() {
    let running = start(upstream().await).await;
    let (chief, bot) = (running.software("chief"), running.software("bot"));
    let one = open(&bot, json!({ "template": "task" }), None).await;
    let other = open(&bot, json!({ "template": "task" }), None).await;
    // Each of them has seen something of its own by now.
    assert_eq!(call(&bot, "fetch", Some(&one)).await, None);
    assert_eq!(call(&bot, "read_customer", Some(&other)).await, None);
    for handle in [&one, &other] {
        assert_eq!(call(&bot, "send", Some(handle)).await.as_deref(), REFUSED);
    }
    let own = open(&chief, json!({ "template": "task" }), None).await;
    assert_eq!(call(&chief, "plain", Some(&own)).await, None);
    sees_too_much(&chief, None).await;
    assert_eq!(call(&chief, "send", Some(&own)).await.as_deref(), REFUSED);
    assert_eq!(sent(&running.upstream), 0);
}

#[tokio::test]
async fn no_agent_sheds_what_it_has_seen_by_itself() {
    let running = start(upstream().await).await;
    let bot = running.software("bot");
    for wish in
        [json!({ "template": "task", "isolate": true }), json!({ "template": "task", "agent": "bot", "isolate": true })]
    {
        let answer = bot.call_tool("bailiwick__mandate_open", wish).await;
        assert!(answer.tool_text().starts_with("mandate_refused: "), "{}", answer.text);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_into_a_store_while_it_is_read_under_a_mandate_is_seen_outside_of_it() {
    let (go_on, gone_on) = mpsc::channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let tools = TOOLS.iter().map(|name| tool(name)).collect();
    let upstream = Scripted::start(tools, move |call| {
        if call["params"]["name"] == "load" {
            tokio::task::block_in_place(|| gone_on.lock().unwrap().recv().unwrap());
        }
        result(call, text("done"))
    })
    .await;
    let running = start(upstream).await;
    let bot = running.software("bot");
    let handle = open(&bot, json!({ "template": "task" }), None).await;
    let loading = tokio::spawn({
        let (bot, handle) = (bot.clone(), handle.clone());
        async move { call(&bot, "load", Some(&handle)).await }
    });
    eventually("the load is under way", async || !running.upstream.calls().is_empty()).await;
    let chief = running.software("chief");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&chief, name, None).await, None);
    }
    go_on.send(()).unwrap();
    assert_eq!(loading.await.unwrap(), None);
    for handle in [Some(&*handle), None] {
        assert_eq!(call(&bot, "send", handle).await.as_deref(), REFUSED, "{handle:?}");
    }
}

#[tokio::test]
async fn a_store_that_was_restored_knows_what_was_seen_and_kept_since() {
    let mut running = start(upstream().await).await;
    let bot = running.software("bot");
    let handle = open(&bot, json!({ "template": "task" }), None).await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    sees_too_much(&bot, Some(&handle)).await;
    running.gateway.store_of_before().await;
    running.gateway.launch().await;
    for handle in [Some(handle.as_str()), None] {
        assert_eq!(call(&running.software("bot"), "send", handle).await.as_deref(), Some("flow_refused"), "{handle:?}");
    }
    // What lost nothing is not changed: a restart brings no label to anybody.
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert_eq!(running.gateway.log().matches("the store has forgotten").count(), 1);
}
