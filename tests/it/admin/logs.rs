//! The live tail of the record.

use std::time::Duration;

use serde_json::{Value, json};

use super::{Running, start};
use crate::support::client::{Client, Stream};

async fn tail(running: &Running, token: &str, query: &str) -> Stream {
    let client = Client::new(&format!("{}/api/v1/logs{query}", running.gateway.admin), Some(token));
    client.stream(&[], None).await
}

/// The next record of one type.
async fn next(stream: &mut Stream, kind: &str) -> Value {
    loop {
        let record = stream.next().await;
        if record["type"] == kind {
            return record;
        }
    }
}

#[tokio::test]
async fn what_happens_is_told_while_it_happens_and_only_what_was_asked_for() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let mut all = tail(&running, &ann, "?lines=0").await;
    let mut refusals = tail(&running, &ann, "?lines=0&decision=deny&subject=otto").await;
    let dora = running.gateway.client(&running.issuer.token("dora", &["developers"], &running.gateway.resource()));
    assert_eq!(dora.call_tool("tools__echo", json!({})).await.status, 200);
    let intent = next(&mut all, "intent").await;
    assert_eq!(intent["subject"]["id"], "user:test/dora");
    assert_eq!(next(&mut all, "result").await["call"], intent["call"]);
    let otto = running.gateway.client(&running.issuer.token("otto", &["operators"], &running.gateway.resource()));
    otto.call_tool("tools__echo", json!({})).await;
    let refusal = refusals.next().await;
    assert_eq!((&refusal["type"], &refusal["subject"]["id"]), (&json!("refusal"), &json!("user:test/otto")));
    // One that is not followed ends, and brings the intent that an end belongs to.
    let client = running.at("/logs?follow=false&lines=1000&server=tools", &ann);
    let told = client.bare(reqwest::Method::GET, &[]).await;
    // What otto was refused is hidden from him, so its record names no server.
    let kinds: Vec<&str> = told.messages.iter().map(|record| record["type"].as_str().unwrap()).collect();
    assert_eq!(kinds, ["intent", "result"], "{}", told.text);
}

#[tokio::test]
async fn a_tail_ends_when_its_reader_may_not_look_any_more() {
    let running = start().await;
    let (ann, bea) = (running.administrator("ann", &["admins"]), running.administrator("bea", &["admins"]));
    let mut stream = tail(&running, &ann, "?lines=0").await;
    let began = std::time::Instant::now();
    let order = json!({ "target": "subject", "issuer": "test", "value": "ann" });
    assert_eq!(running.post("/revoke", &bea, order).await.status, 200);
    tokio::time::timeout(Duration::from_secs(5), stream.end()).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    // A token that is not good any more ends it, too: half a minute of leeway after it expired, and not before.
    let mut claims = running.issuer.administrator("bea", &["admins"], &running.gateway.admin);
    claims["exp"] = json!(jiff::Timestamp::now().as_second() + 3 - 30);
    let began = std::time::Instant::now();
    let mut stream = tail(&running, &running.issuer.sign(&claims), "?lines=0").await;
    tokio::time::timeout(Duration::from_secs(8), stream.end()).await.unwrap();
    assert!(began.elapsed() > Duration::from_secs(1), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_gateway_that_stops_does_not_wait_for_who_reads_its_record() {
    let mut running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let mut stream = tail(&running, &ann, "").await;
    let began = std::time::Instant::now();
    assert!(running.gateway.stop().await.success());
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
    stream.end().await;
}

#[tokio::test]
async fn so_many_tails_may_be_open_and_no_more() {
    let running = start().await;
    let ann = running.administrator("ann", &["admins"]);
    let mut open = Vec::new();
    for _ in 0..bailiwick::limit::ADMIN_LOG_STREAMS_MAX {
        open.push(tail(&running, &ann, "?lines=0").await);
    }
    let answer = running.get("/logs", &ann).await;
    assert_eq!((answer.status, super::reason(&answer).as_str()), (429, "streams_limited"));
    drop(open);
    crate::support::eventually("a place to be free again", async || {
        running.get("/logs?follow=false", &ann).await.status == 200
    })
    .await;
}
