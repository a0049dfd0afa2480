//! The record can be trusted afterwards: checkpoints are signed, and whatever was done to the files is named.

use std::path::Path;

use bailiwick::record::checkpoint::{SignedCheckpoint, Standing, VerifierKey};
use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

/// A gateway that has served some calls, each with an intent and a result.
async fn served(calls: usize, record: &str) -> Gateway {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").record(record).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for _ in 0..calls {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    }
    eventually("the results", async || gateway.records("result").len() == calls).await;
    gateway
}

fn checkpoint(path: &Path) -> SignedCheckpoint {
    SignedCheckpoint::parse(&std::fs::read_to_string(path).unwrap()).expect("a checkpoint")
}

fn key(gateway: &Gateway) -> String {
    let output = gateway.command(&["audit", "key", "--config", "servers.toml"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// The tree of RFC 6962, written as it is defined.
fn root(lines: &[&str]) -> Vec<u8> {
    let sha256 =
        |parts: &[&[u8]]| aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, &parts.concat()).as_ref().to_vec();
    match lines {
        [one] => sha256(&[&[0], one.as_bytes()]),
        more => {
            let split = (more.len() - 1).next_power_of_two() / if (more.len() - 1).is_power_of_two() { 1 } else { 2 };
            sha256(&[&[1], &root(&more[..split]), &root(&more[split..])])
        }
    }
}

#[tokio::test]
async fn a_stopped_gateway_has_signed_everything_and_its_key_verifies_it() {
    let mut gateway = served(3, "").await;
    assert!(gateway.stop().await.success());
    let signed = checkpoint(&gateway.state().join("journal/checkpoint"));
    let text = std::fs::read_to_string(gateway.state().join("journal/00000000000000000001.jsonl")).unwrap();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(signed.checkpoint.size, lines.len() as u64);
    assert_eq!(signed.checkpoint.root.as_bytes().to_vec(), root(&lines));
    let key: VerifierKey = key(&gateway).parse().unwrap();
    assert_eq!(signed.standing(&[key]), Standing::Signed);
}

#[tokio::test]
async fn checkpoints_are_signed_while_it_runs_and_for_every_closed_segment() {
    let gateway = served(8, "checkpoint_interval = \"100ms\"\nsegment_bytes = \"4KiB\"\n").await;
    let records = gateway.journal().len() as u64;
    let latest = gateway.state().join("journal/checkpoint");
    eventually("the checkpoint of everything", async || {
        latest.exists() && checkpoint(&latest).checkpoint.size >= records
    })
    .await;
    let mut segments: Vec<_> = std::fs::read_dir(gateway.state().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter_map(|name| name.strip_suffix(".jsonl").map(|first| first.parse::<u64>().unwrap()))
        .collect();
    segments.sort_unstable();
    assert!(segments.len() > 1, "{segments:?}");
    for first in &segments[1..] {
        let kept = checkpoint(&gateway.state().join(format!("journal/checkpoints/{:020}", first - 1)));
        assert_eq!(kept.checkpoint.size, first - 1);
    }
}
