//! Roots of a legacy client that change: who is not told of it, and what is on the record then.

use std::sync::Mutex;

use serde_json::{Value, json};

use crate::input::may_ask;
use crate::input_legacy::{arguments, session, told};
use crate::input_stdio::LEGACY;
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::{eventually, eventually_within, python};

/// A process that tells what it heard, a client of it, and the client's session, which declares that roots may change.
async fn start(issuer: &Issuer, limits: &str) -> (tempfile::TempDir, Gateway, Client, String) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("server.py");
    std::fs::write(&path, LEGACY).unwrap();
    let (python, path) = (python(), path.display().to_string());
    let setup = Setup::new(issuer).policy(&may_ask(&["roots"])).limits(limits);
    let gateway = setup.stdio_server("tools", &[&python, &path], "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let session = session(&client, &json!({ "roots": { "listChanged": true } })).await;
    (directory, gateway, client, session)
}

/// What the process has heard; `None` where it cannot be asked now.
async fn heard(client: &Client, session: &str) -> Option<Value> {
    let answer = client.legacy(session, "tools/call", arguments("tools__declared")).await;
    let is_there = answer.response()["result"]["content"].is_array() && answer.result().get("isError").is_none();
    let told = is_there.then(|| told(answer.response()))?;
    assert_eq!(told["declared"], json!({ "roots": { "listChanged": true } }), "the process that was told so");
    Some(told["heard"].clone())
}

async fn say_changed(client: &Client, session: &str) {
    let said = json!({ "jsonrpc": "2.0", "method": "notifications/roots/list_changed" });
    assert_eq!(client.post(&[("mcp-session-id", session.to_owned())], said.to_string()).await.status, 202);
}

#[tokio::test]
async fn a_process_does_not_hear_that_roots_have_changed_that_it_may_not_ask_for_now() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let (_directory, gateway, client, session) = start(&issuer, "").await;
    eventually("the process", async || heard(&client, &session).await == Some(json!([]))).await;
    gateway.write_policy(&may_ask(&[]));
    assert!(gateway.command(&["reload"]).status.success());
    say_changed(&client, &session).await;
    // Nobody waits for that to be told, or not.
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    gateway.write_policy(&may_ask(&["roots"]));
    assert!(gateway.command(&["reload", "--allow-widening"]).status.success());
    assert_eq!(heard(&client, &session).await, Some(json!([])), "it lives, and was not told");
    say_changed(&client, &session).await;
    eventually("the next change", async || heard(&client, &session).await == Some(json!(["roots"]))).await;
}

#[tokio::test]
async fn a_change_of_roots_that_is_too_much_is_told_to_nobody_and_is_on_the_record() {
    crate::needs_python!();
    let issuer = Issuer::start().await;
    let limits = "requests_per_second = 1\nrequests_burst = 6\n";
    let (_directory, mut gateway, client, session) = start(&issuer, limits).await;
    eventually("the process", async || heard(&client, &session).await == Some(json!([]))).await;
    for _ in 0..12 {
        say_changed(&client, &session).await;
    }
    let told = Mutex::new(None);
    eventually_within(std::time::Duration::from_secs(30), "the process to be asked", async || {
        // Whoever asks too often is told so, which is a refusal of a call and no count.
        tokio::time::sleep(std::time::Duration::from_millis(300)).await;
        let found = heard(&client, &session).await;
        let is_there = found.is_some();
        *told.lock().unwrap() = found;
        is_there
    })
    .await;
    assert!(gateway.stop().await.success());
    let counts = gateway.records("noise");
    let limited = counts.iter().filter(|line| line["noise"]["reason"] == "rate_limited");
    let limited: u64 = limited.map(|line| line["noise"]["count"].as_u64().unwrap()).sum();
    let told = told.into_inner().unwrap().unwrap().as_array().unwrap().len() as u64;
    assert!(limited > 0 && told + limited <= 12, "{told} were told, and {limited} refused");
}
