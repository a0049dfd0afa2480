//! What people see of every kind of record.

use clap::Parser as _;

use super::*;
use crate::record::{fixture, related};

#[derive(Debug, clap::Parser)]
struct Line {
    #[command(flatten)]
    logs: LogsArguments,
}

fn typed(words: &[&str]) -> LogsArguments {
    Line::try_parse_from([&["logs"], words].concat()).unwrap().logs
}

async fn journal() -> (tempfile::TempDir, String) {
    let state = tempfile::tempdir().unwrap();
    fixture::write_every_type(state.path()).await;
    let path = state.path().to_str().unwrap().to_owned();
    (state, path)
}

async fn printed(words: &[&str], json: bool) -> String {
    let mut out = Vec::new();
    let ending = run(&typed(words), Output { json }, &mut out).await;
    assert_eq!(ending, Ending::Done);
    String::from_utf8(out).unwrap()
}

/// The same journal at another time, so that lines can be compared.
fn at_a_fixed_time(lines: &str) -> String {
    let mut fixed = String::new();
    for (index, line) in lines.lines().enumerate() {
        let mut record: serde_json::Value = serde_json::from_str(line).unwrap();
        record["at"] = format!("2026-11-23T10:15:{index:02}.123456Z").into();
        for id in ["call", "leg"] {
            if let Some(id) = record.get_mut(id) {
                // Intent and result of one leg stand next to each other.
                *id = format!("01KAXPZZZZZZZZZZZZ{:08}", index.div_ceil(2)).into();
            }
        }
        if let Some(latency) = record.pointer_mut("/result/latency_us") {
            *latency = (index as u64 * 3_456).into();
        }
        fixed.push_str(&record.to_string());
        fixed.push('\n');
    }
    fixed
}

fn rendered(lines: &str, wide: bool) -> String {
    let look = Look { json: false, wide, color: false, zone: jiff::tz::TimeZone::UTC };
    let mut joiner = Joiner::new(100);
    let shown = lines.lines().filter_map(|line| joiner.see(line).and_then(|seen| look.line(&seen)));
    shown.map(|line| line + "\n").collect()
}

#[tokio::test]
async fn every_kind_of_event_has_a_line_that_fits() {
    let (state, _path) = journal().await;
    let lines = at_a_fixed_time(&fixture::lines(state.path()));
    let shown = rendered(&lines, false);
    for line in shown.lines() {
        assert!(line.chars().count() <= line::COLUMNS, "{} columns: {line}", line.chars().count());
    }
    insta::assert_snapshot!("lines", shown);
    insta::assert_snapshot!("lines_wide", rendered(&lines, true));
}

#[tokio::test]
async fn filters_look_at_the_whole_call() {
    let (_state, path) = journal().await;
    let state = ["--no-color", "--state", &path];
    let count = async |words: &[&str]| {
        let limit: &[&str] = if words.contains(&"-n") { &[] } else { &["-n", "1000"] };
        printed(&[&state, limit, words].concat(), false).await.lines().count()
    };
    let all = count(&[]).await;
    assert_eq!(count(&["--since", "1h"]).await, all);
    assert_eq!(count(&["--since", "2100-01-01T00:00:00Z"]).await, 0);
    // Eight forwarded calls, a refusal, a failure and a list name the server; the results alone do not.
    assert_eq!(count(&["--server", "deploy"]).await, 11);
    assert_eq!(count(&["--server", "deplo"]).await, 0);
    assert_eq!(count(&["--subject", "ann"]).await, 10);
    assert_eq!(count(&["--agent", "claude"]).await, 10);
    assert_eq!(count(&["--tool", "roll", "--decision", "deny"]).await, 2);
    assert_eq!(count(&["--decision", "fail"]).await, 3);
    assert_eq!(count(&["--reason", "token_missing"]).await, 1);
    assert_eq!(count(&["--grep", "policies/policy.csv:9"]).await, 1);
    assert_eq!(count(&["-n", "3"]).await, 3);
    let json = printed(&["-n", "1000", "--state", &path], true).await;
    assert!(json.lines().all(|line| line.starts_with("{\"v\":1,")), "records as they are");
    assert!(json.lines().count() > all, "intents are records of their own");
}

#[tokio::test]
async fn colours_stay_away_where_they_are_not_wanted() {
    let (_state, path) = journal().await;
    assert!(printed(&["--state", &path], false).await.contains('\u{1b}'));
    assert!(!printed(&["--state", &path, "--no-color"], false).await.contains('\u{1b}'));
}

#[tokio::test]
async fn show_finds_a_call_by_either_end_of_its_id() {
    let (state, path) = journal().await;
    let lines = fixture::lines(state.path());
    let record: serde_json::Value = serde_json::from_str(lines.lines().nth(1).unwrap()).unwrap();
    let call = record["call"].as_str().unwrap();
    for id in [call, &call[18..], &call[18..].to_lowercase()] {
        let shown = printed(&["show", id, "--records", "--state", &path], false).await;
        assert!(shown.contains("decision.rule"), "{shown}");
        assert!(shown.contains("result.outcome"), "{shown}");
        assert!(shown.contains("argument.replicas"), "{shown}");
    }
    let json = printed(&["show", call, "--state", &path], true).await;
    assert_eq!(json.lines().count(), 2);
    let mut out = Vec::new();
    let ambiguous = run(&typed(&["show", &call[..4], "--state", &path]), Output { json: false }, &mut out).await;
    assert_eq!(ambiguous, Ending::Refused, "several calls begin like that");
    assert!(out.is_empty());
}

/// A mandate with a call that was approved, run and retried, a call of another kind beside it, and what was taken back.
const GOVERNED: &str = r#"{"v":1,"seq":1,"at":"2026-11-23T10:00:00Z","type":"mandate","mandate":{"event":"opened","id":"01KAA00000000000000000000A","template":"nightly","purpose_declared":"close the books","actor":"user:corp/anna","agent":"bot","ends_at":1795431600}}
{"v":1,"seq":2,"at":"2026-11-23T10:01:00Z","type":"mandate","mandate":{"event":"opened","id":"01KBB00000000000000000000B","template":"refund","parent":"01KAA00000000000000000000A","purpose_declared":"one refund","actor":"agent:bot","agent":"bot","ends_at":1795429800}}
{"v":1,"seq":3,"at":"2026-11-23T10:02:00Z","type":"refusal","call":"01KCC00000000000000000000C","leg":"01KL100000000000000000000L","subject":{"id":"agent:bot"},"mcp":{"method":"tools/call","server":"billing","environment":"production","name":"refund"},"mandate":{"id":"01KBB00000000000000000000B","template":"refund","parent":"01KAA00000000000000000000A","purpose_declared":"one refund"},"decision":{"effect":"deny","reason":"approval_pending","epoch":7}}
{"v":1,"seq":4,"at":"2026-11-23T10:02:00.010Z","type":"approval","call":"01KCC00000000000000000000C","leg":"01KL100000000000000000000L","approval":{"event":"requested","id":"00112233445566778899aabbccddeeff","gates":["production","regulated"],"server":"billing","name":"refund","requester":"agent:bot"}}
{"v":1,"seq":5,"at":"2026-11-23T10:03:00Z","type":"approval","approval":{"event":"approved","id":"00112233445566778899aabbccddeeff","gates":["production"],"server":"billing","name":"refund","requester":"agent:bot","approvers":[{"id":"user:corp/bo","authenticated_at":1795428120,"acr":"mfa"}]}}
{"v":1,"seq":6,"at":"2026-11-23T10:04:00Z","type":"intent","call":"01KCC00000000000000000000C","leg":"01KL200000000000000000000L","subject":{"id":"agent:bot"},"agent":{"id":"bot","client":"bot-client","proof":"private_key"},"chain":["agent:planner"],"token":{"issuer":"corp","digest":"3c469e9d6c58"},"mcp":{"method":"tools/call","server":"billing","environment":"production","name":"refund","definition":"4c4ed1afbfdaa1e4c3bf7bbb82d730cecb7e384da91eea4f3cc093fd545524d6"},"mandate":{"id":"01KBB00000000000000000000B","template":"refund","parent":"01KAA00000000000000000000A","purpose_declared":"one refund"},"owners":{"agent":"user:corp/kim","server":"user:corp/lee"},"decision":{"effect":"allow","rule":"policies/policy.csv:12","revision":"823412d1eacb67956220e532959f0104603057c88704863ca38e7cd188fda812","epoch":7},"credential":{"kind":"exchange","issue":"01KDD00000000000000000000D","audience":"https://billing.example","expires_at":1795428540,"used_until":1795428480},"arguments":{"hmac":"937be347fec13d2da1656be7578944afc50926efd3a7a80416d278c717e00743","key":"893ce2a0","bytes":29,"values":{"argument.amount":120}},"approval":"00112233445566778899aabbccddeeff","labels":{"before":["private"],"after":["private","untrusted"],"tool":["external"]}}
{"v":1,"seq":7,"at":"2026-11-23T10:04:00.200Z","type":"result","call":"01KCC00000000000000000000C","leg":"01KL200000000000000000000L","result":{"outcome":"complete","hmac":"e3dd7b004b6829f32b3609887338bbd256930e5f591e90e450af271e5d4d1da7","key":"893ce2a0","bytes":40,"latency_us":200000}}
{"v":1,"seq":8,"at":"2026-11-23T10:05:00Z","type":"intent","call":"01KEE00000000000000000000E","leg":"01KL300000000000000000000L","subject":{"id":"agent:bot"},"mcp":{"method":"tools/call","server":"billing","name":"balance"},"mandate":{"id":"01KAA00000000000000000000A","template":"nightly","purpose_declared":"close the books"},"decision":{"effect":"allow","rule":"policies/policy.csv:9","epoch":7}}
{"v":1,"seq":9,"at":"2026-11-23T10:06:00Z","type":"revocation","revocation":{"actor":"user:corp/anna","target":"credential","value":"01KDD00000000000000000000D","mode":"block","note":"wrong account","epoch":8}}
{"v":1,"seq":10,"at":"2026-11-23T10:07:00Z","type":"mandate","mandate":{"event":"completed","id":"01KAA00000000000000000000A","template":"nightly","purpose_declared":"close the \u001b[2Jbooks","actor":"user:corp/anna","ends_at":1795431600,"calls":[["billing",2]],"epoch":9}}
"#;

fn governed() -> tempfile::TempDir {
    let state = tempfile::tempdir().unwrap();
    let directory = journal::directory(state.path());
    std::fs::create_dir_all(&directory).unwrap();
    std::fs::write(directory.join("00000000000000000001.jsonl"), GOVERNED).unwrap();
    state
}

fn tree(id: &str) -> String {
    let state = governed();
    let directory = journal::directory(state.path());
    let root = related::find(&directory, id).unwrap().into_iter().next().unwrap();
    let found = related::lines(&directory, &mut related::Related::of(&root), usize::MAX).unwrap();
    let all: Vec<_> = found.lines.iter().map(|line| serde_json::from_str(line).unwrap()).collect();
    let records = tree::Records { all: &all, zone: &jiff::tz::TimeZone::UTC };
    let mut out = Vec::new();
    let node = match &root {
        related::Root::Call(id) => records.call(id),
        related::Root::Mandate(id) => records.mandate(id, 10),
        related::Root::Approval(id) => records.approval(id),
    };
    node.write(&mut out).unwrap();
    anstream::adapter::strip_str(std::str::from_utf8(&out).unwrap()).to_string()
}

#[test]
fn a_call_is_shown_with_what_led_to_it_and_what_became_of_it() {
    let shown = tree("01KCC");
    assert!(!shown.contains("balance"), "what else was done under the mandate is not part of the call: {shown}");
    insta::assert_snapshot!("tree_of_a_call", shown);
}

#[test]
fn a_mandate_is_shown_with_those_below_it_and_their_calls() {
    insta::assert_snapshot!("tree_of_a_mandate", tree("01KAA"));
}

#[test]
fn an_approval_is_shown_with_the_call_that_used_it() {
    insta::assert_snapshot!("tree_of_an_approval", tree("00112233"));
}

#[tokio::test]
async fn what_belongs_to_a_call_is_printed_as_records_too() {
    let state = governed();
    let path = state.path().to_str().unwrap().to_owned();
    let shown = printed(&["show", "01KCC00000000000000000000C", "--state", &path], true).await;
    let numbers: Vec<i64> = shown
        .lines()
        .map(|line| serde_json::from_str::<serde_json::Value>(line).unwrap()["seq"].as_i64().unwrap())
        .collect();
    assert_eq!(numbers, [1, 2, 3, 4, 5, 6, 7, 9, 10]);
}

#[test]
fn text_from_the_record_cannot_move_the_cursor() {
    assert_eq!(line::safe("a\u{1b}[2Jb\nc\u{202e}d", 80), "a\u{fffd}[2Jb\u{fffd}c\u{fffd}d");
    assert_eq!(line::safe("abcdef", 4), "abc…");
}

#[tokio::test]
async fn a_call_under_way_is_shown_without_an_end() {
    let (state, path) = journal().await;
    let lines = fixture::lines(state.path());
    let upto_intent: String = lines.lines().take(2).map(|line| format!("{line}\n")).collect();
    std::fs::write(journal::directory(state.path()).join("00000000000000000001.jsonl"), upto_intent + "{\"v\":1,")
        .unwrap();
    let shown = printed(&["--no-color", "--state", &path], false).await;
    assert!(shown.lines().last().unwrap().contains("under way"), "{shown}");
}

#[tokio::test]
async fn without_a_journal_there_is_a_hint() {
    let state = tempfile::tempdir().unwrap();
    let mut out = Vec::new();
    let arguments = typed(&["--state", state.path().to_str().unwrap()]);
    assert_eq!(run(&arguments, Output { json: false }, &mut out).await, Ending::Trouble);
}

/// What a terminal would have got by now.
#[derive(Clone, Default)]
struct Screen(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl Screen {
    fn text(&self) -> String {
        String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
    }

    async fn until(&self, holds: impl Fn(&str) -> bool) {
        for _ in 0..500 {
            if holds(&self.text()) {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        panic!("in vain: {}", self.text());
    }
}

impl Write for Screen {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn following_shows_a_call_once_when_it_ends() {
    let state = tempfile::tempdir().unwrap();
    let path = state.path().to_str().unwrap().to_owned();
    let screen = Screen::default();
    let mut out = screen.clone();
    // It may be started before the gateway has ever run.
    let following = tokio::spawn(async move {
        run(&typed(&["-f", "--no-color", "--state", &path]), Output { json: false }, &mut out).await
    });
    let (journal, _) = fixture::start(state.path());
    let first = journal.open(fixture::Proof::new(), fixture::outgoing()).await.unwrap();
    let second = journal.open(fixture::Proof::new(), fixture::outgoing()).await.unwrap();
    second.close(&crate::outcome::Outcome::Complete(fixture::json("{}")));
    screen.until(|text| text.lines().count() == 1 && text.contains(" ok ")).await;
    drop(first);
    screen.until(|text| text.lines().count() == 2 && text.contains("unknown")).await;
    journal.stop("test").await.unwrap();
    screen.until(|text| text.contains("stop   test")).await;
    assert_eq!(screen.text().matches("deploy/rollout").count(), 2);
    following.abort();
}
