//! Rejections where it matters most: of what was decided a moment ago, after an older store was restored, and of
//! definitions whose names nobody can type.

use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::upstream::{Changing, tool, tools};
use super::{SOON, pins, setup, shows, start, words};
use crate::support::client::Client;
use crate::support::eventually_within;
use crate::support::gateway::Gateway;
use crate::support::issuer::Issuer;

/// Puts a store back that was copied before.
fn put_back(from: &Path, to: &Path) {
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(to.join(name));
    }
    std::fs::copy(from.join("store.sqlite"), to.join("store.sqlite")).unwrap();
}

#[tokio::test]
async fn a_rejection_is_not_forgotten_with_a_store_that_is_restored() {
    let mut running = start(tools(&[tool("log", "Shows the log"), tool("diff", "Shows a diff")]), "").await;
    running.shows(&["up__diff", "up__log"]).await;
    let digest = |name: &str| running.pin(name, "accepted")["digest"].as_str().unwrap().to_owned();
    let (log, diff) = (digest("log"), digest("diff"));
    let kept = running.gateway.command(&["state", "backup", "kept"]);
    assert!(kept.status.success(), "{}", String::from_utf8_lossy(&kept.stderr));
    let rejected = words(&running.gateway, &["pins", "reject", "up/log", &log[..12], "--note", "asks for keys"]);
    assert!(rejected.contains("rejected"), "{rejected}");
    // One that was accepted again meanwhile is left to whoever accepts.
    words(&running.gateway, &["pins", "reject", "up/diff", &diff]);
    let accepted = json!({ "server": "up", "pins": [diff] });
    assert_eq!(running.order("accept", &accepted).await.status, 200);
    running.shows(&["up__diff"]).await;
    let record = running.gateway.records("pin").into_iter().find(|record| record["pin"]["note"] == "asks for keys");
    let record = record.unwrap();
    assert_eq!((&record["pin"]["together"], record["pin"]["epoch"].is_u64()), (&json!(1), true), "{record}");
    assert!(running.gateway.stop().await.success());

    put_back(&running.gateway.state().with_file_name("kept"), &running.gateway.state());
    let refused = words(&running.gateway, &["serve"]);
    assert!(refused.contains("store reconcile"), "{refused}");
    let reconciled = running.gateway.command(&["store", "reconcile", "--json"]);
    assert!(reconciled.status.success(), "{}", String::from_utf8_lossy(&reconciled.stderr));
    let reconciled: Value = serde_json::from_slice(&reconciled.stdout).unwrap();
    assert_eq!((&reconciled["gaps"], &reconciled["taken"]), (&json!([]), &json!(3)), "{reconciled}");
    running.gateway.launch().await;
    let client = running.gateway.client(&running.issuer.token("alice", &["developers"], &running.gateway.resource()));
    shows(&client, &["up__diff"]).await;
    assert_eq!(client.call_tool("up__log", json!({})).await.error_code(), -32602);
    assert_eq!(running.pin("log", "rejected")["note"], "asks for keys");
}

#[tokio::test]
async fn a_first_list_is_not_taken_again_from_a_store_of_before() {
    let issuer = Issuer::start().await;
    let upstream = Changing::start(tools(&[])).await;
    let mut gateway = setup(&issuer, &upstream, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    shows(&client, &[]).await;
    assert!(gateway.command(&["state", "backup", "kept"]).status.success());
    upstream.says(tools(&[tool("log", "Shows the log"), tool("odd", "\u{200b}")]));
    shows(&client, &["up__log"]).await;
    // Whatever raises the epoch makes the older store show.
    let odd = pins(&gateway).into_iter().find(|pin| pin["name"] == "odd").unwrap();
    words(&gateway, &["pins", "reject", "up/odd", odd["digest"].as_str().unwrap()]);
    assert!(gateway.stop().await.success());
    put_back(&gateway.state().with_file_name("kept"), &gateway.state());
    let reconciled = gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{}", String::from_utf8_lossy(&reconciled.stderr));
    upstream.says(tools(&[tool("log", "Shows the log"), tool("push", "Pushes")]));
    gateway.launch().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    shows(&client, &["up__log"]).await;
}

/// A call that was decided, and waits for its credential while something is done; what it is answered, and why.
struct Waiting {
    issuer: Issuer,
    upstream: Changing,
    gateway: Gateway,
}

impl Waiting {
    async fn start(pins: &str) -> Self {
        let issuer = Issuer::start().await;
        let upstream = Changing::start(tools(&[tool("log", "Shows the log")])).await;
        let more = format!(
            "pins = \"{pins}\"\nlist_as = \"caller\"\ncredential = {{ kind = \"exchange\", token_endpoint = \"{}\", client_id = \"gateway\", audience = \"up\" }}\n",
            upstream.token_url
        );
        let gateway = setup(&issuer, &upstream, &more).start().await;
        let waiting = Self { issuer, upstream, gateway };
        shows(&waiting.client(), &["up__log"]).await;
        waiting
    }

    fn client(&self) -> Client {
        self.gateway.client(&self.issuer.token("alice", &["developers"], &self.gateway.resource()))
    }

    async fn call_while(&self, done: impl FnOnce()) {
        // The same person with another token, which has to be exchanged before the call can be sent.
        let asked = self.upstream.exchanges();
        self.upstream.holds(true);
        let calling = tokio::spawn({
            let client = self.client();
            async move { client.call_tool("up__log", json!({})).await }
        });
        eventually_within(SOON, "the exchange to begin", async || self.upstream.exchanges() > asked).await;
        done();
        self.upstream.holds(false);
        let answer = tokio::time::timeout(Duration::from_secs(20), calling).await.unwrap().unwrap();
        assert_eq!(answer.error_code(), -32602, "{}", answer.text);
        assert_eq!(self.upstream.calls(), 0);
        // A refusal is recorded without waiting for the disk.
        eventually_within(SOON, "why it was refused", async || {
            let refused = self.gateway.journal().into_iter().filter(|record| record["mcp"]["name"] == "log");
            refused.map(|record| record["decision"]["reason"].clone()).any(|reason| reason == "definition_quarantined")
        })
        .await;
    }
}

#[tokio::test]
async fn what_was_decided_and_not_sent_when_it_was_rejected_is_not_sent() {
    let waiting = Waiting::start("first_use").await;
    let digest = pins(&waiting.gateway)[0]["digest"].as_str().unwrap().to_owned();
    waiting
        .call_while(|| {
            let rejected = words(&waiting.gateway, &["pins", "reject", "up/log", &digest]);
            assert!(rejected.contains("rejected"), "{rejected}");
        })
        .await;
}

#[tokio::test]
async fn what_was_decided_before_its_server_became_strict_is_not_sent() {
    let waiting = Waiting::start("off").await;
    waiting
        .call_while(|| {
            let file = waiting.gateway.directory().join("servers.toml");
            let files = std::fs::read_to_string(&file).unwrap();
            std::fs::write(&file, files.replace("pins = \"off\"", "pins = \"strict\"")).unwrap();
            let reloaded = words(&waiting.gateway, &["reload"]);
            assert!(reloaded.contains("loaded"), "{reloaded}");
        })
        .await;
}

#[tokio::test]
async fn what_nobody_can_type_is_named_as_it_was_printed_and_accepted_by_its_whole_digest() {
    let running = start(tools(&[tool("plain", "Shows"), tool("hid\u{200b}den\n", "Shows the log")]), "").await;
    running.shows(&["up__plain"]).await;
    let listed = words(&running.gateway, &["pins", "list", "--only", "waiting"]);
    let line = listed.lines().find(|line| line.contains("up/hid")).unwrap();
    let (name, digest) = (r"up/hid\u{200b}den\n", line.split_whitespace().nth(3).unwrap());
    assert!(line.contains(name), "{line}");
    let shown = words(&running.gateway, &["pins", "diff", name]);
    let whole = shown.split("whole digest ").nth(1).unwrap_or_else(|| panic!("{shown}")).lines().next().unwrap();
    assert!(whole.starts_with(digest) && whole.len() == 64 && shown.contains("Shows the log"), "{shown}");
    let refused = words(&running.gateway, &["pins", "accept", name, digest]);
    assert!(refused.contains("wants the whole digest"), "{refused}");
    let refused = words(&running.gateway, &["pins", "accept", name, whole]);
    assert!(refused.contains("administrator_required"), "{refused}");
    let rejected = words(&running.gateway, &["pins", "reject", name, digest]);
    assert!(rejected.contains("rejected"), "{rejected}");
}
