//! What was seen keeps data in the house: labels, flows, stores, and what the record says of them.

use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::Database;
use crate::support::replicas::Replicas;
use crate::support::scripted::{Scripted, result, text, tool};

mod answers;
mod asking;
mod cost;
mod declassify;
mod mandates;
mod situations;
mod stores;
mod tasks;

const LABELS: &str = r#"
[[label]]
objects = ["tools/read_customer", "tools/crm:*"]
reads = "private"

[[label]]
objects = ["tools/fetch"]
content = "untrusted"

[[label]]
objects = ["tools/send"]
sends = "external"
effect = "write"

[[label]]
objects = ["tools/plain"]
reads = "internal"

[[label]]
objects = ["tools/save"]
effect = "write"
store = "memory"

[[label]]
objects = ["tools/load"]
store = "memory"
"#;

const TOOLS: [&str; 6] = ["read_customer", "fetch", "send", "plain", "save", "load"];

async fn upstream() -> Scripted {
    Scripted::start(TOOLS.iter().map(|name| tool(name)).collect(), |call| result(call, text("done"))).await
}

fn setup(issuer: &Issuer, upstream: &Scripted, labels: &str) -> Setup {
    let rules = "p, anyone, *, tools/*, call, -, allow\np, agent:assistant, *, tools/*, call, -, allow\n";
    Setup::new(issuer)
        .http_server("tools", &upstream.url, "")
        .policy(rules)
        .policy_file("labels.toml", labels)
        .policy_file("conditions.toml", "[to-us]\nargument = \"to\"\nends_with = \"@example.com\"\n")
}

/// The same with its rows in PostgreSQL; nothing where there is none.
async fn in_postgresql(setup: Setup) -> Option<Gateway> {
    let database = Database::fresh().await?;
    Some(setup.shared(&database).start().await)
}

fn client(issuer: &Issuer, gateway: &Gateway, user: &str) -> Client {
    gateway.client(&issuer.token(user, &[], &gateway.resource()))
}

/// The reason that a call was refused for, or that of nobody.
async fn call(client: &Client, name: &str, arguments: Value) -> Option<String> {
    let answer = client.call_tool(&format!("tools__{name}"), arguments).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    let refused = answer.result()["isError"].as_bool().unwrap_or(false);
    refused.then(|| answer.tool_text().split(':').next().unwrap().to_owned())
}

fn sent(upstream: &Scripted) -> usize {
    upstream.calls().iter().filter(|call| call.message["params"]["name"] == "send").count()
}

#[tokio::test]
async fn after_private_data_and_untrusted_content_nothing_leaves_the_house_in_whichever_order_they_came() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, LABELS).start().await;
    for (user, order) in [("alice", ["read_customer", "fetch"]), ("bob", ["fetch", "read_customer"])] {
        let client = client(&issuer, &gateway, user);
        assert_eq!(call(&client, "send", json!({})).await, None, "nothing was seen yet");
        assert_eq!(call(&client, order[0], json!({})).await, None);
        assert_eq!(call(&client, "send", json!({})).await, None, "one of them alone may be sent on");
        assert_eq!(call(&client, order[1], json!({})).await, None);
        let before = sent(&upstream);
        let answer = client.call_tool("tools__send", json!({})).await;
        assert!(answer.tool_text().starts_with("flow_refused: "), "{}", answer.text);
        assert_eq!(sent(&upstream), before, "nothing reached the server");
        assert_eq!(call(&client, "plain", json!({})).await, None, "what stays in the house goes on");
    }
    // Nobody else has seen it.
    assert_eq!(call(&client(&issuer, &gateway, "carol"), "send", json!({})).await, None);

    let refused = gateway.records("refusal");
    let refused: Vec<_> = refused.iter().filter(|record| record["decision"]["reason"] == "flow_refused").collect();
    assert_eq!(refused.len(), 2, "{refused:?}");
    assert_eq!(refused[0]["decision"]["rule"], "labels.toml");
    let intents = gateway.records("intent");
    let reads = |user: &str| {
        let of = |record: &&Value| {
            record["subject"]["id"] == format!("user:test/{user}") && record["mcp"]["name"] == "read_customer"
        };
        intents.iter().find(of).unwrap()["labels"].clone()
    };
    assert_eq!(reads("alice"), json!({ "before": [], "after": ["private"], "tool": ["private"] }));
    assert_eq!(
        reads("bob"),
        json!({ "before": ["untrusted"], "after": ["untrusted", "private"], "tool": ["private"] })
    );
}

#[tokio::test]
async fn what_a_call_brings_counts_from_when_it_goes_out_and_not_from_when_it_comes_back() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, LABELS).start().await;
    let alice = client(&issuer, &gateway, "alice");
    assert_eq!(call(&alice, "fetch", json!({})).await, None);
    upstream.mute("read_customer");
    let reading = tokio::spawn({
        let alice = client(&issuer, &gateway, "alice");
        async move { alice.try_tool("tools__read_customer", json!({})).await }
    });
    eventually("the read is under way", async || {
        upstream.calls().iter().any(|call| call.message["params"]["name"] == "read_customer")
    })
    .await;
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
    assert_eq!(sent(&upstream), 0);
    reading.abort();
}

#[tokio::test]
async fn of_a_read_and_a_send_at_once_the_send_never_goes_out_after_the_read_came_back() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, LABELS).start().await;
    for round in 0..20 {
        let alice = client(&issuer, &gateway, &format!("alice-{round}"));
        assert_eq!(call(&alice, "fetch", json!({})).await, None);
        let read = call(&alice, "read_customer", json!({}));
        let (read, _) = futures_util::future::join(read, call(&alice, "send", json!({}))).await;
        assert_eq!(read, None);
        let before = sent(&upstream);
        assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
        assert_eq!(sent(&upstream), before);
    }
}

#[tokio::test]
async fn a_store_hands_on_what_its_writers_had_seen_to_whoever_reads_it() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, LABELS).start().await;
    let (alice, bob) = (client(&issuer, &gateway, "alice"), client(&issuer, &gateway, "bob"));
    assert_eq!(call(&bob, "load", json!({})).await, None);
    assert_eq!(call(&bob, "send", json!({})).await, None, "nothing was put there yet");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    assert_eq!(call(&bob, "send", json!({})).await, None, "bob has not read it since");
    assert_eq!(call(&bob, "load", json!({})).await, None);
    assert_eq!(call(&bob, "send", json!({})).await.as_deref(), Some("flow_refused"), "read again from the store");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_into_a_store_while_it_is_read_counts_for_the_reader_before_the_answer() {
    let issuer = Issuer::start().await;
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
    let gateway = setup(&issuer, &upstream, LABELS).start().await;
    let bob = client(&issuer, &gateway, "bob");
    let loading = tokio::spawn({
        let bob = client(&issuer, &gateway, "bob");
        async move { call(&bob, "load", json!({})).await }
    });
    eventually("the load is under way", async || !upstream.calls().is_empty()).await;
    let alice = client(&issuer, &gateway, "alice");
    for name in ["read_customer", "fetch", "save"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    go_on.send(()).unwrap();
    assert_eq!(loading.await.unwrap(), None);
    assert_eq!(call(&bob, "send", json!({})).await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn what_was_seen_is_still_seen_after_a_restart_and_at_another_replica() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let mut gateway = setup(&issuer, &upstream, LABELS).start().await;
    let token = issuer.token("alice", &[], &gateway.resource());
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&gateway.client(&token), name, json!({})).await, None);
    }
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert_eq!(call(&gateway.client(&token), "send", json!({})).await.as_deref(), Some("flow_refused"));

    let Some(replicas) = Replicas::start(setup(&issuer, &upstream, LABELS), 2).await else { return };
    let token = issuer.token("alice", &[], &replicas.resource());
    let [here, there] = [0, 1].map(|index: usize| replicas.all[index].client(&token));
    assert_eq!(call(&there, "send", json!({})).await, None, "nothing was seen yet");
    assert_eq!(call(&here, "read_customer", json!({})).await, None);
    assert_eq!(call(&there, "fetch", json!({})).await, None);
    for replica in [&here, &there] {
        assert_eq!(call(replica, "send", json!({})).await.as_deref(), Some("flow_refused"));
    }
}

#[tokio::test]
async fn observed_flows_are_written_down_and_go_on() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, &format!("mode = \"observe\"\n{LABELS}")).start().await;
    let alice = client(&issuer, &gateway, "alice");
    for name in ["read_customer", "fetch", "send"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    assert_eq!(sent(&upstream), 1);
    let intents = gateway.records("intent");
    let send = intents.iter().find(|record| record["mcp"]["name"] == "send").unwrap();
    let expected = json!({
        "before": ["untrusted", "private"],
        "after": ["untrusted", "private"],
        "tool": ["write", "external"],
        "observed": "labels.toml",
    });
    assert_eq!(send["labels"], expected);
}

#[tokio::test]
async fn a_destination_that_a_condition_surely_means_stays_open() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let labels = format!("{LABELS}\n[[flow]]\nfrom = [\"private\"]\nunless = \"to-us\"\n");
    let gateway = setup(&issuer, &upstream, &labels).start().await;
    let alice = client(&issuer, &gateway, "alice");
    assert_eq!(call(&alice, "read_customer", json!({})).await, None);
    assert_eq!(call(&alice, "send", json!({ "to": "bob@example.com" })).await, None);
    for to in [json!("bob@example.org"), json!(["bob@example.com", "eve@example.org"]), json!(null)] {
        assert_eq!(call(&alice, "send", json!({ "to": to })).await.as_deref(), Some("flow_refused"), "{to}");
    }
    assert_eq!(sent(&upstream), 1);
}

#[tokio::test]
async fn what_nobody_has_labelled_is_private_untrusted_and_sent_out() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = setup(&issuer, &upstream, "label_memory = \"1h\"\n").start().await;
    let alice = client(&issuer, &gateway, "alice");
    // The first brings what the second may not carry out.
    assert_eq!(call(&alice, "plain", json!({})).await, None);
    assert_eq!(call(&alice, "plain", json!({})).await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn what_was_seen_is_forgotten_after_the_time_that_the_file_names_and_not_before() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let labels = format!("label_memory = \"30m\"\n{LABELS}");
    let Some(setup) = setup(&issuer, &upstream, &labels).issuer_lines("token_life_max = \"10h\"\n").own_clock() else {
        return;
    };
    let gateway = setup.start().await;
    let mut claims = issuer.claims("alice", &[], &gateway.resource());
    claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 4 * 3600);
    let alice = gateway.client(&issuer.sign(&claims));
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    gateway.set_clock("+1500");
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
    // Nor does what was remembered of it bring it back: a call that nobody judges comes first.
    gateway.set_clock("+4000");
    assert_eq!(call(&alice, "plain", json!({})).await, None);
    assert_eq!(call(&alice, "send", json!({})).await, None);
}

#[tokio::test]
async fn a_tool_whose_only_entry_does_not_hold_is_a_tool_of_which_nobody_has_said_anything() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let labels = "[[label]]\nobjects = [\"tools/plain\"]\nwhen = \"to-us\"\nreads = \"internal\"\n";
    let gateway = setup(&issuer, &upstream, labels).start().await;
    let alice = client(&issuer, &gateway, "alice");
    for _ in 0..2 {
        assert_eq!(call(&alice, "plain", json!({ "to": "bob@example.com" })).await, None, "labelled, and harmless");
    }
    let away = json!({ "to": "eve@example.org" });
    assert_eq!(call(&alice, "plain", away.clone()).await, None);
    assert_eq!(call(&alice, "plain", away).await.as_deref(), Some("flow_refused"));
}
