//! The record can be trusted afterwards: checkpoints are signed, and whatever was done to the files is named.

use std::path::Path;

use bailiwick::record::checkpoint::{SignedCheckpoint, Standing, VerifierKey};
use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

/// A gateway that has served some calls, each with an intent and a result.
pub async fn served(calls: usize, record: &str) -> Gateway {
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
    let gateway = served(8, "checkpoint_interval = \"100ms\"\nsegment_bytes = \"4KiB\"\ncompress = false\n").await;
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

/// The journal of a stopped gateway: some calls in several segments, a copy to be spoilt, and the key.
pub struct Copy {
    pub place: tempfile::TempDir,
    pub key: String,
}

impl Copy {
    async fn taken() -> Self {
        let mut gateway = served(8, "segment_bytes = \"4KiB\"\ncompress = false\n").await;
        assert!(gateway.stop().await.success());
        Self::of(&gateway)
    }

    pub fn of(gateway: &Gateway) -> Self {
        let place = tempfile::tempdir().unwrap();
        copy_directory(&gateway.state().join("journal"), &place.path().join("journal"));
        Self { place, key: key(gateway) }
    }

    pub fn file(&self, name: &str) -> std::path::PathBuf {
        self.place.path().join("journal").join(name)
    }

    pub fn segments(&self) -> Vec<std::path::PathBuf> {
        let entries = std::fs::read_dir(self.file("")).unwrap().map(|entry| entry.unwrap().path());
        let mut paths: Vec<_> = entries.filter(|path| path.to_string_lossy().contains(".jsonl")).collect();
        paths.sort();
        paths
    }

    fn edit(&self, segment: usize, edit: impl FnOnce(&mut Vec<String>)) {
        let path = &self.segments()[segment];
        let mut lines: Vec<String> = std::fs::read_to_string(path).unwrap().lines().map(str::to_owned).collect();
        edit(&mut lines);
        std::fs::write(path, lines.iter().map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    }

    /// Verifies with some more arguments: the exit code, and what was printed as JSON.
    pub fn verify(&self, more: &[&str]) -> (i32, serde_json::Value) {
        let journal = self.file("").to_string_lossy().into_owned();
        let mut arguments = vec!["audit", "verify", "--json", "--journal", &journal];
        arguments.extend(more);
        let output = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick")).args(arguments).output().unwrap();
        let printed = serde_json::from_slice(&output.stdout)
            .unwrap_or_else(|_| json!(String::from_utf8_lossy(&output.stderr).into_owned()));
        (output.status.code().unwrap(), printed)
    }

    /// What is found with the right key: exit code 1, and the finding.
    pub fn tampered(&self) -> serde_json::Value {
        let (code, printed) = self.verify(&["--key", &self.key]);
        assert_eq!((code, &printed["verdict"]), (1, &json!("tampered")), "{printed}");
        printed
    }
}

fn copy_directory(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => copy_directory(&path, &target),
            false => drop(std::fs::copy(&path, &target).unwrap()),
        }
    }
}

/// Chains lines anew, as somebody would who has read the format and has no key.
fn chain_again(lines: &mut [String], mut previous: Option<String>) {
    for line in lines {
        let prev = serde_json::from_str::<serde_json::Value>(line).unwrap()["prev"].as_str().unwrap().to_owned();
        if let Some(digest) = previous {
            *line = line.replacen(&prev, &digest, 1);
        }
        let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, line.as_bytes());
        previous = Some(data_encoding::HEXLOWER.encode(digest.as_ref()));
    }
}

#[tokio::test]
async fn a_copy_verifies_with_the_key_alone_and_without_one_nobody_can_say() {
    let copy = Copy::taken().await;
    let (code, printed) = copy.verify(&["--key", &copy.key]);
    assert_eq!((code, &printed["verdict"]), (0, &json!("good")), "{printed}");
    assert_eq!(printed["signed"], printed["last"]);
    assert!(printed["segments"].as_u64().unwrap() > 2, "{printed}");
    assert_eq!(printed["checkpoints"], printed["segments"], "one for each closed segment, and the last one");
    let file = copy.place.path().join("key");
    std::fs::write(&file, format!("{}\n", copy.key)).unwrap();
    assert_eq!(copy.verify(&["--key", file.to_str().unwrap()]).0, 0);
    let (code, printed) = copy.verify(&[]);
    assert_eq!((code, &printed["verdict"]), (2, &json!("undecided")), "{printed}");
    let other = Copy::taken().await;
    let (code, printed) = copy.verify(&["--key", &other.key]);
    assert_eq!(code, 2, "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("no checkpoint is signed by one of the keys"), "{printed}");
    assert_eq!(copy.verify(&["--key", "nonsense+key"]).0, 2);
    let nowhere = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"))
        .args(["audit", "verify", "--journal", "/nowhere", "--key", &copy.key])
        .output()
        .unwrap();
    assert_eq!(nowhere.status.code(), Some(2));
}

#[tokio::test]
async fn a_gateway_verifies_its_own_record_while_it_runs() {
    let gateway = served(2, "checkpoint_interval = \"100ms\"\n").await;
    eventually("a checkpoint", async || gateway.state().join("journal/checkpoint").exists()).await;
    let output = gateway.command(&["audit", "verify", "--config", "servers.toml"]);
    let text = String::from_utf8_lossy(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{text}");
    assert!(text.contains("the record is what was signed") && text.contains("gateway's own"), "{text}");
}

#[tokio::test]
async fn a_changed_byte_is_named() {
    let copy = Copy::taken().await;
    let segment = copy.segments()[1].file_name().unwrap().to_string_lossy().into_owned();
    let first: u64 = segment.trim_end_matches(".jsonl").parse().unwrap();
    copy.edit(1, |lines| lines[2] = lines[2].replacen("\"type\":\"", "\"type\":\"X", 1));
    let printed = copy.tampered();
    assert_eq!((&printed["file"], &printed["line"]), (&json!(segment), &json!(3)), "{printed}");
    assert_eq!(printed["seq"], json!(first + 2), "{printed}");
    assert_eq!(printed["problem"], "was changed");
}

#[tokio::test]
async fn a_changed_record_is_named_although_everything_after_it_was_chained_again() {
    let copy = Copy::taken().await;
    let mut previous = None;
    for segment in 0..copy.segments().len() {
        copy.edit(segment, |lines| {
            if segment == 1 {
                lines[2] = lines[2].replacen("\"type\":\"", "\"type\":\"X", 1);
            }
            chain_again(lines, previous.take());
            let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, lines.last().unwrap().as_bytes());
            previous = Some(data_encoding::HEXLOWER.encode(digest.as_ref()));
        });
    }
    let printed = copy.tampered();
    assert_eq!(printed["line"], json!(3), "{printed}");
    assert_eq!(printed["problem"], "is not the one that was signed");
    // Without the tiles it is still noticed, between two checkpoints.
    std::fs::remove_dir_all(copy.file("tile")).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["file"], json!(copy.segments()[1].file_name().unwrap().to_string_lossy()), "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("or one after it"), "{printed}");
}

#[tokio::test]
async fn a_removed_line_is_named() {
    let copy = Copy::taken().await;
    let mut number = 0;
    copy.edit(0, |lines| {
        number = serde_json::from_str::<serde_json::Value>(&lines[3]).unwrap()["seq"].as_u64().unwrap();
        lines.remove(3);
    });
    let printed = copy.tampered();
    assert_eq!((&printed["line"], &printed["seq"]), (&json!(4), &json!(number)), "{printed}");
    assert_eq!(printed["problem"], "is missing");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_named_by_a_checkpoint_also_by_one_kept_elsewhere() {
    let copy = Copy::taken().await;
    let elsewhere = copy.place.path().join("elsewhere");
    std::fs::copy(copy.file("checkpoint"), &elsewhere).unwrap();
    let last = copy.segments().len() - 1;
    let mut number = 0;
    copy.edit(last, |lines| {
        let line = lines.pop().unwrap();
        number = serde_json::from_str::<serde_json::Value>(&line).unwrap()["seq"].as_u64().unwrap();
    });
    let printed = copy.tampered();
    assert_eq!(printed["seq"], json!(number), "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("is missing: checkpoint says"), "{printed}");
    // Whoever cuts the record puts an older checkpoint in the place of the last one.
    let mut kept: Vec<_> = std::fs::read_dir(copy.file("checkpoints")).unwrap().map(|e| e.unwrap().path()).collect();
    kept.sort();
    std::fs::copy(kept.last().unwrap(), copy.file("checkpoint")).unwrap();
    assert_eq!(copy.verify(&["--key", &copy.key]).0, 0, "nothing in the directory shows it");
    let (code, printed) = copy.verify(&["--key", &copy.key, "--checkpoint", elsewhere.to_str().unwrap()]);
    assert_eq!((code, &printed["seq"]), (1, &json!(number)), "{printed}");
}

#[tokio::test]
async fn a_segment_swapped_with_another_is_named() {
    let copy = Copy::taken().await;
    let segments = copy.segments();
    std::fs::rename(&segments[1], copy.file("other")).unwrap();
    std::fs::rename(&segments[2], &segments[1]).unwrap();
    std::fs::rename(copy.file("other"), &segments[2]).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["file"], json!(segments[1].file_name().unwrap().to_string_lossy()), "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("renamed or swapped"), "{printed}");
}

#[tokio::test]
async fn a_segment_of_another_gateway_is_named() {
    let (copy, other) = (Copy::taken().await, Copy::taken().await);
    std::fs::copy(&other.segments()[0], &copy.segments()[0]).unwrap();
    let printed = copy.tampered();
    assert!(printed["seq"].as_u64().unwrap() <= 2, "{printed}");
    assert_eq!(printed["file"], "00000000000000000001.jsonl", "{printed}");
}

#[tokio::test]
async fn two_segments_signed_with_different_keys_need_both() {
    let mut gateway = served(4, "segment_bytes = \"4KiB\"\ncompress = false\n").await;
    assert!(gateway.stop().await.success());
    let first = key(&gateway);
    let file = gateway.state().join("keys/checkpoint");
    let old = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, format!("{}\n{old}", "5a".repeat(32))).unwrap();
    gateway.launch().await;
    assert!(gateway.stop().await.success());
    let both = key(&gateway);
    let second = both.lines().next().unwrap().to_owned();
    assert_eq!(both.lines().nth(1), Some(first.as_str()));
    let copy = Copy::of(&gateway);
    assert_eq!(copy.verify(&["--key", &first, "--key", &second]).0, 0);
    let (code, printed) = copy.verify(&["--key", &second]);
    assert_eq!(code, 1, "{printed}");
    assert!(printed["file"].as_str().unwrap().starts_with("checkpoints/"), "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("none of the keys"), "{printed}");
    // A key that came in the place of the old one vouches for nothing that was before it.
    std::fs::write(&file, format!("{}\n", "7b".repeat(32))).unwrap();
    gateway.launch().await;
    eventually("the contradiction on the record", async || {
        gateway.records("repair").iter().any(|record| record["repair"]["problem"] == "checkpoint_contradicted")
    })
    .await;
}

#[tokio::test]
async fn a_forged_checkpoint_is_named() {
    let copy = Copy::taken().await;
    let last = copy.segments().len() - 1;
    copy.edit(last, |lines| drop(lines.pop()));
    let note = std::fs::read_to_string(copy.file("checkpoint")).unwrap();
    let size = note.lines().nth(1).unwrap().to_owned();
    let fewer = (size.parse::<u64>().unwrap() - 1).to_string();
    std::fs::write(copy.file("checkpoint"), note.replacen(&size, &fewer, 1)).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["file"], "checkpoint", "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("forged"), "{printed}");
    std::fs::write(copy.file("checkpoint"), "no note\n").unwrap();
    assert_eq!(copy.tampered()["problem"], "is no checkpoint");
}

#[tokio::test]
async fn a_changed_tile_is_named() {
    let copy = Copy::taken().await;
    let partials = copy.file("tile/0/000.p");
    let widths = std::fs::read_dir(&partials).unwrap().map(|entry| entry.unwrap().path());
    let last = widths.max_by_key(|path| path.metadata().unwrap().len()).unwrap();
    let mut bytes = std::fs::read(&last).unwrap();
    bytes[40] ^= 1;
    std::fs::write(&last, bytes).unwrap();
    let printed = copy.tampered();
    assert_eq!(printed["file"], "tile/0/000", "{printed}");
    assert!(printed["problem"].as_str().unwrap().contains("from record 2 on"), "{printed}");
}

#[tokio::test]
async fn a_gateway_that_was_killed_before_its_first_checkpoint_signs_after_the_next_start() {
    let mut gateway = served(2, "checkpoint_interval = \"100ms\"\n").await;
    eventually("a checkpoint", async || gateway.state().join("journal/checkpoint.pub").exists()).await;
    gateway.signal("KILL");
    gateway.wait().await;
    // As it was in the first half of a second.
    let journal = gateway.state().join("journal");
    for file in ["checkpoint", "checkpoint.pub"] {
        std::fs::remove_file(journal.join(file)).unwrap();
    }
    std::fs::remove_dir_all(journal.join("tile")).unwrap();
    gateway.launch().await;
    eventually("a checkpoint", async || journal.join("checkpoint").exists()).await;
    assert!(gateway.stop().await.success());
    assert!(gateway.records("repair").iter().all(|record| record["repair"]["problem"] != "checkpoint_contradicted"));
    let copy = Copy::of(&gateway);
    let (code, printed) = copy.verify(&["--key", &copy.key]);
    assert_eq!((code, &printed["signed"]), (0, &printed["last"]), "{printed}");
}

#[tokio::test]
async fn a_tail_torn_by_a_kill_is_repaired_at_start_noted_and_verifies() {
    let mut gateway = served(2, "checkpoint_interval = \"100ms\"\n").await;
    eventually("a checkpoint", async || gateway.state().join("journal/checkpoint").exists()).await;
    gateway.signal("KILL");
    gateway.wait().await;
    let path = gateway.state().join("journal/00000000000000000001.jsonl");
    let mut torn = std::fs::read(&path).unwrap();
    torn.extend_from_slice(br#"{"v":1,"seq":9999,"pr"#);
    std::fs::write(&path, torn).unwrap();
    let before = Copy::of(&gateway);
    let (code, printed) = before.verify(&["--key", &before.key]);
    assert_eq!(code, 0, "{printed}");
    assert!(printed["notes"].to_string().contains("21 bytes"), "{printed}");
    gateway.launch().await;
    assert!(gateway.stop().await.success());
    assert_eq!(gateway.records("repair")[0]["repair"]["problem"], "torn_tail");
    let after = Copy::of(&gateway);
    let (code, printed) = after.verify(&["--key", &after.key]);
    assert_eq!((code, &printed["signed"]), (0, &printed["last"]), "{printed}");
}

#[tokio::test]
async fn a_tail_that_was_cut_off_is_named_by_what_was_sent_to_a_log() {
    let log = tempfile::tempdir().unwrap();
    let socket = std::os::unix::net::UnixDatagram::bind(log.path().join("log")).unwrap();
    let kept = log.path().join("kept");
    let sinks = format!(
        "checkpoint_interval = \"100ms\"\nsinks = [\"syslog:{}\", \"file:{}\"]\n",
        log.path().join("log").display(),
        kept.display()
    );
    let mut gateway = served(2, &sinks).await;
    assert!(gateway.stop().await.success());
    let copy = Copy::of(&gateway);
    // What a collector wrote down, among other lines.
    socket.set_nonblocking(true).unwrap();
    let mut collected = String::from("Nov 27 10:00:00 host sshd[1]: session opened\n");
    let mut bytes = [0; 4096];
    while let Ok(length) = socket.recv(&mut bytes) {
        collected.push_str(std::str::from_utf8(&bytes[..length]).unwrap());
        collected.push('\n');
    }
    let collector = log.path().join("collected");
    std::fs::write(&collector, collected).unwrap();
    for sent in [&collector, &kept] {
        let sent = sent.to_str().unwrap();
        let (code, printed) = copy.verify(&["--key", &copy.key, "--checkpoint", sent]);
        assert_eq!(code, 0, "{printed}");
        let elsewhere = Copy::of(&gateway);
        elsewhere.edit(0, |lines| drop(lines.pop()));
        std::fs::remove_file(elsewhere.file("checkpoint")).unwrap();
        let (code, printed) = elsewhere.verify(&["--key", &copy.key, "--checkpoint", sent]);
        assert_eq!(code, 1, "{printed}");
        assert!(printed["problem"].as_str().unwrap().contains("a checkpoint kept elsewhere says"), "{printed}");
    }
}

#[tokio::test]
async fn a_key_that_was_named_by_reference_signs_and_is_never_written_down() {
    let secret = "4d".repeat(32);
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("key"), &secret).unwrap();
    let keys = format!("[keys]\ncheckpoint = [\"file:{}\"]\n", place.path().join("key").display());
    let mut gateway = served(1, &keys).await;
    assert!(gateway.stop().await.success());
    assert!(!gateway.state().join("keys/checkpoint").exists());
    let copy = Copy::of(&gateway);
    assert_eq!(copy.verify(&["--key", &copy.key]).0, 0);
    gateway.launch().await;
    assert!(gateway.stop().await.success());
    assert!(gateway.records("repair").is_empty(), "{:?}", gateway.records("repair"));
    let output = gateway.command(&["audit", "verify", "--config", "servers.toml"]);
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stdout));
    let written = std::process::Command::new("grep").args(["-r", &secret]).arg(gateway.state()).output().unwrap();
    assert!(written.stdout.is_empty());
}
