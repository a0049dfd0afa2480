//! Conditions that read what was seen, and which mandate a call is part of.

use serde_json::{Value, json};

use super::{LABELS, call, client, sent, upstream};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;
use crate::support::scripted::Scripted;

const CONDITIONS: &str = "\
[clean]
not = { seen = [\"private\"] }
hint = \"begin a conversation that has read nothing private\"

[of-a-task]
mandate = true
mandate_template = [\"task\"]
";

const RULES: &str = "\
g2, tools/read_customer, tools/@plain
g2, tools/fetch, tools/@plain
g2, tools/plain, tools/@plain
p, anyone, *, tools/@plain, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, anyone, *, tools/send, call, clean, allow
p, anyone, *, tools/save, call, of-a-task, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
";

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
";

const TEMPLATES: &str = "\
[templates.task]
title = \"anything\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
[templates.other]
title = \"anything else\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
";

fn setup(issuer: &Issuer, upstream: &Scripted) -> Setup {
    Setup::new(issuer)
        .policy(RULES)
        .policy_file("labels.toml", LABELS)
        .policy_file("conditions.toml", CONDITIONS)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .http_server("tools", &upstream.url, "pins = \"off\"")
}

async fn start() -> (Issuer, Scripted, Gateway) {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream).start().await;
    (issuer, upstream, gateway)
}

async fn a_rule_ends_where_its_caller_has_seen_more(issuer: &Issuer, gateways: [&Gateway; 2], upstream: &Scripted) {
    let token = issuer.token("alice", &[], &gateways[0].resource());
    let [alice, there] = gateways.map(|gateway| gateway.client(&token));
    assert_eq!(call(&alice, "send", json!({})).await, None);
    assert_eq!(call(&alice, "fetch", json!({})).await, None);
    assert_eq!(call(&there, "send", json!({})).await, None, "somebody else's words are no private data");
    assert_eq!(call(&alice, "read_customer", json!({})).await, None);
    let before = sent(upstream);
    for client in [&alice, &there] {
        let refused = client.call_tool("tools__send", json!({})).await;
        assert!(refused.tool_text().starts_with("condition_unmet: begin a conversation"), "{}", refused.text);
    }
    assert_eq!(sent(upstream), before);
}

#[tokio::test]
async fn a_rule_can_end_where_its_caller_has_seen_private_data() {
    let (issuer, upstream, gateway) = start().await;
    a_rule_ends_where_its_caller_has_seen_more(&issuer, [&gateway, &gateway], &upstream).await;
    let bob = client(&issuer, &gateway, "bob");
    assert_eq!(call(&bob, "send", json!({})).await, None, "nobody else has seen it");
    let alice = client(&issuer, &gateway, "alice");
    let listed = alice.modern("tools/list", json!({})).await;
    assert!(listed.text.contains("tools__send"), "lists do not know what was seen: {}", listed.text);
    let refused = gateway.records("refusal");
    let refused = refused.iter().find(|record| record["decision"]["reason"] == "condition_unmet").unwrap();
    assert!(refused["decision"]["rule"].as_str().unwrap().starts_with("policy.csv:"), "{refused}");
    let intents = gateway.records("intent");
    let read = |name: &str| intents.iter().rfind(|record| record["mcp"]["name"] == name).unwrap().clone();
    assert_eq!(read("send")["arguments"]["values"]["seen"], json!("nothing"), "{}", read("send"));
}

#[tokio::test]
async fn the_same_holds_at_two_replicas_with_their_rows_in_postgresql() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let Some(replicas) = Replicas::start(setup(&issuer, &upstream), 2).await else { return };
    let gateways = [&replicas.all[0], &replicas.all[1]];
    a_rule_ends_where_its_caller_has_seen_more(&issuer, gateways, &upstream).await;
}

/// The reason that a call under a mandate was refused for.
async fn under(client: &Client, name: &str, handle: Option<&str>) -> Option<String> {
    let mut params = json!({ "name": format!("tools__{name}"), "arguments": {} });
    if let Some(handle) = handle {
        params["_meta"] = json!({ "dev.bailiwick/mandate": handle });
    }
    let answer = client.modern("tools/call", params).await;
    let refused = answer.result()["isError"].as_bool().unwrap_or(false);
    refused.then(|| answer.tool_text().split(':').next().unwrap().to_owned())
}

async fn open(client: &Client, template: &str) -> String {
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": { "template": template } });
    let answer = client.modern("tools/call", params).await;
    let handle: &Value = &answer.result()["structuredContent"]["handle"];
    handle.as_str().unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

#[tokio::test]
async fn a_rule_can_ask_for_a_mandate_of_a_template() {
    let (issuer, _upstream, gateway) = start().await;
    let mut claims = issuer.claims("bot", &[], &gateway.resource());
    claims["client_id"] = json!("bot");
    let bot = gateway.client(&issuer.sign(&claims));
    assert_eq!(under(&bot, "save", None).await.as_deref(), Some("condition_unmet"));
    let other = open(&bot, "other").await;
    assert_eq!(under(&bot, "save", Some(&other)).await.as_deref(), Some("condition_unmet"));
    let task = open(&bot, "task").await;
    assert_eq!(under(&bot, "save", Some(&task)).await, None);
}

#[tokio::test]
async fn explain_takes_what_was_seen_and_the_mandate_and_knows_nothing_of_them_otherwise() {
    let (_issuer, _upstream, gateway) = start().await;
    let explain = |object: &str, more: &[&str]| {
        let words = [&["explain", object, "--as", "user:test/alice"], more].concat();
        let output = gateway.command(&words);
        (output.status.success(), String::from_utf8_lossy(&output.stdout).into_owned())
    };
    let (allowed, told) = explain("tools/send", &[]);
    assert!(!allowed && told.contains("seen = unknown"), "what nobody says is unknown: {told}");
    assert!(explain("tools/send", &["--seen", ""]).0);
    assert!(explain("tools/send", &["--seen", "untrusted"]).0);
    let (allowed, told) = explain("tools/send", &["--seen", "untrusted,regulated"]);
    assert!(!allowed && told.contains("seen = untrusted, regulated"), "{told}");
    assert!(!explain("tools/save", &["--mandate", ""]).0);
    assert!(!explain("tools/save", &["--mandate", "other"]).0);
    assert!(explain("tools/save", &["--mandate", "task"]).0);
}

#[tokio::test]
async fn what_cannot_be_known_where_it_is_read_is_a_mistake() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let check = |labels: &str, conditions: &str| {
        let written = setup(&issuer, &upstream)
            .policy_file("labels.toml", labels)
            .policy_file("conditions.toml", &format!("{CONDITIONS}{conditions}"))
            .written();
        let checked = written.command(&["check"]);
        let text = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
        (checked.status.success(), text)
    };
    let flow = format!("{LABELS}\n[[flow]]\nfrom = [\"private\"]\nunless = \"of-a-task\"\n");
    let (sound, told) = check(&flow, "");
    assert!(!sound && told.contains("neither [[label]] nor [[flow]]"), "{told}");
    let (sound, told) = check(LABELS, "[odd]\nseen = [\"secret\"]\n");
    assert!(!sound && told.contains("nothing that is seen"), "{told}");
    let written = setup(&issuer, &upstream).written();
    std::fs::remove_file(written.place().join("policies/labels.toml")).unwrap();
    let checked = written.command(&["check"]);
    let told = format!("{}{}", String::from_utf8_lossy(&checked.stdout), String::from_utf8_lossy(&checked.stderr));
    assert!(!checked.status.success() && told.contains("labels are not kept"), "{told}");
}
