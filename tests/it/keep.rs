//! The record over time: segments are closed, compressed and removed, and a full disk refuses and recovers.

use std::time::{Duration, Instant};

use bailiwick::control::client::request;
use http::Method;
use serde_json::json;

use crate::audit::{Copy, served};
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;
use crate::support::{eventually, figure};

const SMALL: &str = "checkpoint_interval = \"100ms\"\nsegment_bytes = \"4KiB\"\n";

/// Calls that are made, and refused, while something is wrong.
const REFUSED: usize = 100;

/// Prints the figures of what was wrong. Nothing was forwarded whose intent is not on the record.
fn told(gateway: &Gateway, upstream: &Scripted, what: &str, recovered: Duration) {
    let without = upstream.calls().len().saturating_sub(gateway.records("intent").len());
    figure(what, REFUSED, without, recovered);
    assert_eq!(without, 0, "an intent is there before its call is forwarded");
}

/// File names of the segments, oldest first.
fn segments(gateway: &Gateway) -> Vec<String> {
    let entries = std::fs::read_dir(gateway.state().join("journal")).unwrap();
    let names = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<_> = names.filter(|name| name.contains(".jsonl")).collect();
    names.sort();
    names
}

fn logs(gateway: &Gateway, arguments: &[&str]) -> String {
    let arguments: Vec<_> = ["logs"].iter().chain(arguments).chain(&["--config", "servers.toml"]).copied().collect();
    let output = gateway.command(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn closed_segments_are_compressed_and_everything_still_reads_them() {
    let mut gateway = served(12, SMALL).await;
    eventually("all closed segments to be compressed", async || {
        let names = segments(&gateway);
        names.len() > 3 && names.iter().rev().skip(1).all(|name| name.ends_with(".zst"))
    })
    .await;
    let first = gateway.records("intent")[0].clone();
    let shown = logs(&gateway, &["-n", "1000", "--json"]);
    assert!(shown.contains(first["call"].as_str().unwrap()), "{shown}");
    let one = logs(&gateway, &["show", first["call"].as_str().unwrap(), "--json"]);
    assert_eq!(one.lines().count(), 2, "its intent and its result: {one}");
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert!(gateway.stop().await.success());
    let copy = Copy::of(&gateway);
    let (code, printed) = copy.verify(&["--key", &copy.key]);
    assert_eq!((code, &printed["signed"]), (0, &printed["last"]), "{printed}");
    // A byte in the middle of a compressed segment.
    let segment = &copy.segments()[1];
    let mut bytes = std::fs::read(segment).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x10;
    std::fs::write(segment, bytes).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["file"], json!(segment.file_name().unwrap().to_string_lossy()), "{printed}");
}

#[tokio::test]
async fn a_segment_that_is_old_enough_is_closed_by_the_next_record() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let record = "checkpoint_interval = \"100ms\"\nsegment_age = \"300ms\"\ncompress = false\n";
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").record(record).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    eventually("a second segment", async || {
        client.call_tool("tools__echo", json!({})).await;
        segments(&gateway).len() > 1
    })
    .await;
}

#[tokio::test]
async fn old_segments_are_removed_on_the_record_and_their_checkpoint_explains_it() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let record = format!("{SMALL}compress = false\nkeep_bytes = \"16KiB\"\n");
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").record(&record).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    // Enough records for full tiles, which go, too.
    eventually("old segments to be removed", async || {
        for _ in 0..20 {
            client.call_tool("tools__echo", json!({})).await;
        }
        gateway.journal()[0]["seq"].as_u64().unwrap() > 300
    })
    .await;
    assert!(!gateway.state().join("journal/tile/0/000").exists(), "hashes of removed records are not kept");
    assert!(gateway.log().contains("the journal nears `keep_bytes`"), "somebody was told before");
    let metrics = request::<()>(&gateway.state(), Method::GET, "/metrics", None).await.unwrap();
    assert!(String::from_utf8(metrics.body.to_vec()).unwrap().contains("bailiwick_journal_kept_percent"));
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert!(gateway.stop().await.success());
    assert!(gateway.records("repair").is_empty(), "the tree went on from where it was");
    let removed = gateway.records("retention").pop().unwrap();
    let first = gateway.journal()[0]["seq"].as_u64().unwrap();
    assert_eq!(removed["retention"]["last"], json!(first - 1), "{removed}");
    assert!(logs(&gateway, &["-n", "1000"]).contains("because of bytes"));
    let copy = Copy::of(&gateway);
    let (code, printed) = copy.verify(&["--key", &copy.key]);
    assert_eq!((code, &printed["first"]), (0, &json!(first)), "{printed}");
    assert!(printed["notes"].to_string().contains("explains them"), "{printed}");
    // One more segment is missing, and no record says that it was removed.
    std::fs::remove_file(&copy.segments()[0]).unwrap();
    assert!(copy.tampered()["problem"].to_string().contains("no record says"), "{}", copy.tampered());
    // The checkpoint that explains the beginning is gone.
    let copy = Copy::of(&gateway);
    std::fs::remove_file(copy.file(&format!("checkpoints/{:020}", first - 1))).unwrap();
    assert!(copy.tampered()["problem"].to_string().contains("explains the beginning"), "{}", copy.tampered());
}

#[tokio::test]
async fn a_record_of_a_removal_that_somebody_chained_to_the_end_explains_nothing() {
    let mut gateway = served(8, &format!("{SMALL}compress = false\n")).await;
    assert!(gateway.stop().await.success());
    let copy = Copy::of(&gateway);
    let segments = copy.segments();
    let second = segments[1].file_name().unwrap().to_string_lossy().into_owned();
    let removed: u64 = second.trim_end_matches(".jsonl").parse::<u64>().unwrap() - 1;
    let last = segments.last().unwrap();
    let text = std::fs::read_to_string(last).unwrap();
    let line = text.lines().last().unwrap();
    let sequence = serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_u64().unwrap() + 1;
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, line.as_bytes());
    let previous = data_encoding::HEXLOWER.encode(digest.as_ref());
    let forged = format!(
        "{{\"v\":1,\"seq\":{sequence},\"prev\":\"{previous}\",\"type\":\"retention\",\"retention\":{{\"first\":1,\"last\":{removed}}}}}"
    );
    std::fs::write(last, format!("{text}{forged}\n")).unwrap();
    assert_eq!(copy.verify(&["--key", &copy.key]).0, 0, "the end that is not signed yet is chained");
    std::fs::remove_file(&segments[0]).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["seq"], json!(removed), "{printed}");
    assert!(printed["problem"].to_string().contains("which says so, is not signed"), "{printed}");
}

#[tokio::test]
async fn a_full_disk_refuses_calls_keeps_room_for_the_last_words_and_recovers_by_itself() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let Some(setup) = setup.record("reserve_bytes = \"256KiB\"\n").disk("4m") else { return };
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    let reserve = gateway.state().join("reserve");
    if std::fs::metadata(gateway.state()).is_err() {
        crate::support::untested("the disk of another process cannot be looked at here");
        return;
    }
    eventually("the reserve", async || reserve.metadata().is_ok_and(|metadata| metadata.len() == 256 * 1024)).await;
    let filler = gateway.state().join("filler");
    let mut file = std::fs::File::create(&filler).unwrap();
    while std::io::Write::write_all(&mut file, &[1; 4096]).is_ok() {}
    drop(file);
    // What is left of the last page is used up by some calls.
    eventually("calls to be refused", async || client.call_tool("tools__echo", json!({})).await.status == 503).await;
    eventually("a warning", async || gateway.log().contains("the journal's disk fills up")).await;
    eventually("the reserve to be given back", async || !reserve.exists()).await;
    eventually("the failure on the record", async || {
        gateway.records("repair").iter().any(|record| record["repair"]["problem"] == "write_failed")
    })
    .await;
    let forwarded = upstream.calls().len();
    for _ in 0..REFUSED {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 503, "what is left is for the last words");
    }
    assert_eq!(upstream.calls().len(), forwarded, "nothing is forwarded without its intent");
    std::fs::remove_file(&filler).unwrap();
    let over = Instant::now();
    eventually("recovery", async || client.call_tool("tools__echo", json!({})).await.status == 200).await;
    told(&gateway, &upstream, "a full disk", over.elapsed());
    eventually("the recovery on the record", async || {
        gateway.records("repair").iter().any(|record| record["repair"]["problem"] == "disk_full")
    })
    .await;
    assert!(reserve.exists(), "the room is held back again");
}

#[tokio::test]
async fn a_directory_that_becomes_read_only_refuses_calls_and_recovers_by_itself() {
    if rustix::process::geteuid().is_root() {
        let tried = std::process::Command::new("setpriv").arg("--version").output();
        if tried.is_err() {
            crate::support::untested("root writes into read-only directories, and setpriv is not here");
            return;
        }
    }
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").record(SMALL).without_override();
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    let journal = gateway.state().join("journal");
    let mode = |mode: u32| {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(&journal, std::fs::Permissions::from_mode(mode)).unwrap();
    };
    mode(0o500);
    // The open segment can still be written; the next one cannot be made.
    eventually("calls to be refused", async || client.call_tool("tools__echo", json!({})).await.status == 503).await;
    let forwarded = upstream.calls().len();
    for _ in 0..REFUSED {
        assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 503);
    }
    assert_eq!(upstream.calls().len(), forwarded, "nothing is forwarded without its intent");
    mode(0o700);
    let over = Instant::now();
    eventually("recovery", async || client.call_tool("tools__echo", json!({})).await.status == 200).await;
    told(&gateway, &upstream, "a journal's directory that is read-only", over.elapsed());
    let verified = || gateway.command(&["audit", "verify", "--config", "servers.toml"]);
    eventually("a record that verifies", async || verified().status.code() == Some(0)).await;
}
