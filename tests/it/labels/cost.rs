//! What labels cost a call, in operations of the store: none, or one that changes it, and one look where it is judged.

use bailiwick::control::client::request;
use serde_json::json;

use super::{LABELS, TOOLS, call, client, in_postgresql, mandates, setup, upstream};
use crate::support::gateway::Gateway;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

/// Sends a question out and comes back with somebody else's words.
const SEARCH: &str = "\n[[label]]\nobjects = [\"tools/search\"]\nsends = \"external\"\ncontent = \"untrusted\"\n";

/// How often rows of labels were read, and how often they were changed, since the start.
async fn operations(gateway: &Gateway) -> (u64, u64) {
    let scraped = request::<()>(&gateway.state(), http::Method::GET, "/metrics", None).await.unwrap();
    let scraped = String::from_utf8(scraped.body.to_vec()).unwrap();
    let sum = |operation: &str| {
        let of = |line: &&str| {
            let label = line.strip_prefix("bailiwick_store_operations_total{section=\"label");
            label.is_some_and(|rest| rest.contains(&format!("operation=\"{operation}\"")))
        };
        scraped.lines().filter(of).map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    };
    (sum("read"), sum("change"))
}

/// How many looks and changes that costs.
async fn cost(gateway: &Gateway, what: impl Future<Output = Option<String>>) -> (u64, u64) {
    let before = operations(gateway).await;
    assert_eq!(what.await, None, "nobody refuses it");
    let after = operations(gateway).await;
    (after.0 - before.0, after.1 - before.1)
}

async fn costs_so_much(issuer: &Issuer, gateway: &Gateway) {
    let alice = client(issuer, gateway, "alice");
    let of = async |name: &str| cost(gateway, call(&alice, name, json!({}))).await;
    assert_eq!(of("plain").await, (1, 1), "what she had seen before is looked up once");
    assert_eq!(of("plain").await, (0, 0), "what brings nothing new costs nothing");
    assert_eq!(of("read_customer").await, (0, 1), "what raises a label is one change");
    assert_eq!(of("read_customer").await, (0, 0));
    assert_eq!(of("send").await, (1, 0), "what reaches a gated sink is one look");
    assert_eq!(of("send").await, (1, 0));
    assert_eq!(of("save").await, (1, 1), "she and the store are looked at together, and the store gets her labels");
    assert_eq!(of("save").await, (1, 0));
    assert_eq!(of("load").await, (2, 0), "once when it goes out, and once more for what was put there meanwhile");

    // What goes out is judged by the rows before what comes back is added to them.
    let bob = client(issuer, gateway, "bob");
    let of = async |name: &str| cost(gateway, call(&bob, name, json!({}))).await;
    assert_eq!(of("search").await, (1, 1));
    assert_eq!(of("search").await, (1, 0));
}

async fn searching() -> Scripted {
    let tools = TOOLS.iter().chain(&["search"]).map(|name| tool(name)).collect();
    Scripted::start(tools, |call| result(call, text("done"))).await
}

#[tokio::test]
async fn a_call_that_raises_a_label_or_reaches_a_gated_sink_pays_one_operation_and_any_other_none() {
    let (issuer, upstream) = (Issuer::start().await, searching().await);
    let labels = format!("{LABELS}{SEARCH}");
    let gateway = setup(&issuer, &upstream, &labels).start().await;
    costs_so_much(&issuer, &gateway).await;
    if let Some(gateway) = in_postgresql(setup(&issuer, &upstream, &labels)).await {
        costs_so_much(&issuer, &gateway).await;
    }
}

#[tokio::test]
async fn however_many_mandates_are_above_a_call_its_labels_are_one_look_and_one_change() {
    let running = mandates::start(upstream().await).await;
    let (chief, bot) = (running.software("chief"), running.software("bot"));
    let mut handle = mandates::open(&chief, json!({ "template": "task", "agent": "bot" }), None).await;
    for _ in 1..3 {
        handle = mandates::open(&bot, json!({ "template": "task" }), Some(&handle)).await;
    }
    let of = async |name: &str| cost(&running.gateway, mandates::call(&bot, name, Some(&handle))).await;
    assert_eq!(of("plain").await, (1, 1));
    assert_eq!(of("plain").await, (0, 0));
    assert_eq!(of("read_customer").await, (0, 1));
    assert_eq!(of("send").await, (1, 0));
}
