//! The journal as a whole: format, durability, repair and refusal, on real files.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::fixture::{CANARY, Proof, json, outgoing, start, start_with, write_every_type};
use super::journal::directory;
use super::*;
use crate::config::Durability;
use crate::ids::{CallId, LegId, ReplicaId, RevocationEpoch};
use crate::limit;
use crate::outcome::{Failure, Outcome, Reason, Stop};

/// All lines of all segments.
fn lines(state: &Path) -> Vec<Value> {
    let segments = segment::segments(&directory(state)).unwrap();
    let text: String = segments.iter().map(|(_, path)| std::fs::read_to_string(path).unwrap()).collect();
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

fn kinds(state: &Path) -> Vec<String> {
    lines(state).iter().map(|line| line["type"].as_str().unwrap().to_owned()).collect()
}

fn whole(state: &Path) -> verify::Walk {
    match verify(&directory(state)).unwrap() {
        Verdict::Whole(walk) => walk,
        broken => panic!("{broken:?}"),
    }
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    for _ in 0..500 {
        if holds() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    panic!("in vain waited until {what}");
}

fn syncs(metrics: &Metrics) -> u64 {
    let text = metrics.encode();
    let line = text.lines().find_map(|line| line.strip_prefix("bailiwick_journal_sync_seconds_count "));
    line.unwrap().parse().unwrap()
}

fn last_segment(state: &Path) -> std::path::PathBuf {
    segment::segments(&directory(state)).unwrap().pop().unwrap().1
}

#[tokio::test]
async fn every_record_type_has_its_format() {
    let state = tempfile::tempdir().unwrap();
    write_every_type(state.path()).await;
    let text = std::fs::read_to_string(last_segment(state.path())).unwrap();
    assert!(!text.contains(CANARY), "a secret reached the disk");
    let walk = whole(state.path());
    assert_eq!((walk.first_sequence, walk.last_sequence), (1, walk.records));
    let mut shown = String::new();
    for mut line in lines(state.path()) {
        for field in ["prev", "replica", "at", "call", "leg"] {
            if let Some(value) = line.get_mut(field) {
                *value = Value::from(format!("[{field}]"));
            }
        }
        if let Some(latency) = line.pointer_mut("/result/latency_us") {
            *latency = Value::from("[latency]");
        }
        if let Some(since) = line.pointer_mut("/noise/since") {
            *since = Value::from("[since]");
        }
        shown.push_str(&serde_json::to_string(&line).unwrap());
        shown.push('\n');
    }
    insta::assert_snapshot!("records", shown);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn calls_that_come_together_share_a_batch() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let calls = 200;
    let opens: Vec<_> = (0..calls)
        .map(|_| {
            let journal = journal.clone();
            tokio::spawn(async move {
                let entry = journal.open(Proof::new(), outgoing()).await.unwrap();
                entry.close(&Outcome::Complete(json("{}")));
            })
        })
        .collect();
    for open in opens {
        open.await.unwrap();
    }
    let metrics = Arc::clone(journal.metrics());
    journal.stop("test").await.unwrap();
    assert_eq!(whole(state.path()).records, 2 * calls + 1);
    assert!(syncs(&metrics) < calls, "every call had a sync of its own");
    assert_eq!(metrics.calls_in_flight.get(), 0);
}

#[tokio::test]
async fn two_lines_that_wait_together_are_made_safe_by_one_sync() {
    let state = tempfile::tempdir().unwrap();
    let replica = ReplicaId::new();
    let (appender, _) = appender::Appender::open(state.path(), replica).unwrap();
    let appender = Arc::new(std::sync::Mutex::new(appender));
    let shared = Arc::new(writer::Shared::new(Metrics::new(), None));
    let mark = appender::Mark::Plain;
    let one = shared.push_urgent(br#","type":"stop"}"#, mark).unwrap();
    let two = shared.push_urgent(br#","type":"stop"}"#, mark).unwrap();
    // The writer comes late, as it does when it is busy with the batch before.
    let writer = writer::Writer { shared: Arc::clone(&shared), appender, durability: Durability::Fsync, replica };
    let thread = std::thread::spawn(move || writer.run());
    assert_eq!(tokio::join!(one, two), (true, true));
    assert_eq!(syncs(&shared.metrics), 1);
    shared.close();
    thread.join().unwrap();
}

#[tokio::test]
async fn an_intent_is_on_the_disk_when_its_entry_exists() {
    for durability in [Durability::Fsync, Durability::Os] {
        let state = tempfile::tempdir().unwrap();
        let (journal, _) = start_with(state.path(), durability);
        let entry = journal.open(Proof::new(), outgoing()).await.unwrap();
        let written = lines(state.path());
        assert_eq!(written.last().unwrap()["leg"], entry.leg_id().to_string());
        assert_eq!(written.last().unwrap()["type"], "intent");
    }
}

#[tokio::test]
async fn a_proof_that_no_longer_holds_never_becomes_an_entry() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let proof = Proof::new();
    proof.revoked.store(true, Ordering::SeqCst);
    let stop = journal.open(proof, outgoing()).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::Revoked);
    assert!(kinds(state.path()).is_empty(), "nothing was intended");

    // Revoked while the intent is being written.
    let proof = Proof::new();
    let (call, leg, revoked) = (proof.call, proof.leg, Arc::clone(&proof.revoked));
    let open = journal.open(proof, outgoing());
    tokio::pin!(open);
    assert!(futures_util::poll!(open.as_mut()).is_pending());
    revoked.store(true, Ordering::SeqCst);
    let stop = open.await.unwrap_err();
    assert_eq!(stop.reason(), Reason::Revoked);
    journal.stopped(&Attempt { call, leg, ..Proof::new().attempt() }, &stop);
    journal.stop("test").await.unwrap();
    assert_eq!(kinds(state.path()), ["intent", "refusal", "stop"]);
}

#[tokio::test]
async fn what_was_consumed_is_told_also_where_nothing_was_forwarded_then() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    journal.open(Proof::new(), outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    // Access is taken back while it is consumed.
    let proof = Proof::new();
    proof.falls.store(true, Ordering::SeqCst);
    let (call, leg) = (proof.call, proof.leg);
    let stop = journal.open(proof, outgoing()).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::Revoked);
    journal.stopped(&Attempt { call, leg, ..Proof::new().attempt() }, &stop);
    journal.stop("test").await.unwrap();
    let written = lines(state.path());
    let told: Vec<_> = written.iter().filter(|line| line["approval"]["event"] == "consumed").collect();
    assert_eq!(told.len(), 1, "of the one that consumed something");
    assert_eq!(told[0]["leg"], leg.to_string());
}

#[tokio::test]
async fn an_entry_dropped_without_an_end_is_recorded_as_unknown() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let entry = journal.open(Proof::new(), outgoing()).await.unwrap();
    let leg = entry.leg_id();
    drop(entry);
    journal.stop("test").await.unwrap();
    let lines = lines(state.path());
    assert_eq!(lines[1]["result"]["outcome"], "unknown");
    assert_eq!(lines[1]["leg"], leg.to_string());
}

#[tokio::test]
async fn why_a_client_cancelled_is_on_the_line_of_the_end_or_was_never_said() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let words = crate::wire::LastWords::default();
    let said = crate::wire::Outgoing { last_words: Some(words.clone()), ..outgoing() };
    let entry = journal.open(Proof::new(), said.clone()).await.unwrap();
    words.say("it took too long, with Bearer abcdefghijklmnopqrstuvwxyz0123456789");
    drop(entry);
    let words = crate::wire::LastWords::default();
    let said = crate::wire::Outgoing { last_words: Some(words.clone()), ..said };
    let entry = journal.open(Proof::new(), said.clone()).await;
    entry.unwrap().close(&Outcome::Complete(json("{}")));
    words.say("too late");
    assert_eq!(words.end(), None);
    // Another leg of the same request.
    let entry = journal.open(Proof::new(), said).await.unwrap();
    words.say("in the middle of the second leg");
    drop(entry);
    journal.stop("test").await.unwrap();
    let lines = lines(state.path());
    assert_eq!(lines[1]["result"]["cancelled_with"], "it took too long, with Bearer [redacted]");
    assert!(lines[3]["result"]["outcome"] == "complete" && lines[3]["result"].get("cancelled_with").is_none());
    assert_eq!(lines[5]["result"]["cancelled_with"], "in the middle of the second leg");
}

#[tokio::test]
async fn a_client_that_goes_while_its_intent_is_written_leaves_no_open_end() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    {
        let open = journal.open(Proof::new(), outgoing());
        tokio::pin!(open);
        assert!(futures_util::poll!(open.as_mut()).is_pending());
    }
    journal.stop("test").await.unwrap();
    let lines = lines(state.path());
    assert_eq!(lines[1]["result"]["reason"], "cancelled");
    assert_eq!(lines[1]["result"]["may_have_acted"], false);
}

#[tokio::test]
async fn a_crash_between_intent_and_result_is_closed_as_unknown_at_the_next_start() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let entry = journal.open(Proof::new(), outgoing()).await.unwrap();
    let leg = entry.leg_id().to_string();
    let done = journal.open(Proof::new(), outgoing()).await.unwrap();
    done.close(&Outcome::Complete(json("{}")));
    until("the result is written", || kinds(state.path()).len() == 3).await;
    // What a killed process leaves behind: the files as they are now.
    let copy = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory(copy.path())).unwrap();
    let torn = last_segment(state.path());
    let mut bytes = std::fs::read(&torn).unwrap();
    bytes.extend_from_slice(br#"{"v":1,"seq":4,"pre"#);
    std::fs::write(directory(copy.path()).join(torn.file_name().unwrap()), &bytes).unwrap();

    let (journal, recovered) = start(copy.path());
    assert_eq!(recovered, Recovered { epoch: None, history: None, unknown: 1, repairs: 1 });
    journal.stop("test").await.unwrap();
    let lines = lines(copy.path());
    assert_eq!(kinds(copy.path()), ["intent", "intent", "result", "repair", "result", "stop"]);
    assert_eq!(lines[3]["repair"]["problem"], "torn_tail");
    assert_eq!(lines[3]["repair"]["bytes"], 19);
    assert_eq!(lines[4]["leg"], leg);
    assert_eq!(lines[4]["result"]["outcome"], "unknown");
    whole(copy.path());

    let (_journal, recovered) = start(copy.path());
    assert_eq!(recovered, Recovered { epoch: None, history: None, unknown: 0, repairs: 0 }, "once is enough");
    drop(entry);
}

#[tokio::test]
async fn a_segment_that_never_got_a_line_is_no_obstacle() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    journal.stop("test").await.unwrap();
    std::fs::write(segment::path(&directory(state.path()), 2), b"").unwrap();
    let (journal, recovered) = start(state.path());
    assert_eq!(recovered.repairs, 0);
    journal.stop("test").await.unwrap();
    assert_eq!(whole(state.path()).records, 2);
}

#[tokio::test]
async fn a_changed_byte_and_a_removed_line_are_named() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    for _ in 0..4 {
        journal.open(Proof::new(), outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    }
    journal.stop("test").await.unwrap();
    let path = last_segment(state.path());
    let text = std::fs::read_to_string(&path).unwrap();
    let lines: Vec<&str> = text.lines().collect();

    let found = |text: String| {
        std::fs::write(&path, text).unwrap();
        match verify(&directory(state.path())).unwrap() {
            Verdict::Broken { sequence, problem, .. } => Some((sequence, problem)),
            Verdict::Whole(_) => None,
        }
    };
    for line in 0..lines.len() - 1 {
        let mut changed: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        changed[line] = changed[line].replace("rollout", "rollouT").replace("complete", "completE");
        let sequence = line as u64 + 1;
        assert_eq!(found(changed.join("\n") + "\n"), Some((sequence, "was changed")));
        let mut removed = lines.clone();
        removed.remove(line);
        assert_eq!(found(removed.join("\n") + "\n"), Some((sequence, "is missing")));
    }
    let mut swapped = lines.clone();
    swapped.swap(2, 3);
    assert_eq!(found(swapped.join("\n") + "\n"), Some((3, "is missing")));
    assert_eq!(found(text.replacen("\"seq\":3,", "\"seq\":3;", 1)), Some((3, "is unreadable")));
    assert_eq!(found(text.clone()), None);

    // A break is kept as evidence, and the record goes on beside it.
    std::fs::write(&path, text.replacen("rollout", "rollouT", 1)).unwrap();
    let before = std::fs::read(&path).unwrap();
    let (journal, recovered) = start(state.path());
    assert_eq!(recovered.repairs, 1);
    journal.stop("test").await.unwrap();
    assert_eq!(std::fs::read(&path).unwrap(), before);
    assert_eq!(kinds(state.path())[9..], ["rotation", "repair", "stop"]);
}

#[tokio::test]
async fn a_directory_that_was_moved_away_refuses_calls_and_the_journal_recovers_by_itself() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let entry = journal.open(Proof::new(), outgoing()).await.unwrap();
    let place = directory(state.path());
    std::fs::rename(&place, state.path().join("gone")).unwrap();
    // A file in its place: the directory cannot be made again.
    std::fs::write(&place, b"").unwrap();
    // Nothing is lost under another name, so that is looked for only so often.
    tokio::time::sleep(limit::JOURNAL_PATH_INTERVAL).await;
    let stop = journal.open(Proof::new(), outgoing()).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::RecordUnavailable);
    assert!(!journal.is_well());
    let stop = journal.open(Proof::new(), outgoing()).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::RecordUnavailable);
    entry.close(&Outcome::Complete(json("{}")));

    std::fs::remove_file(&place).unwrap();
    until("the journal is well again", || journal.is_well()).await;
    journal.open(Proof::new(), outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    journal.stop("test").await.unwrap();
    let kinds = kinds(state.path());
    assert_eq!(kinds, ["rotation", "repair", "result", "intent", "result", "stop"]);
    let lines = lines(state.path());
    assert_eq!(lines[0]["rotation"]["open"].as_array().unwrap().len(), 1, "the open call is carried over");
    assert_eq!(lines[1]["repair"]["refused"], 1);
    // With the part that was moved away, the chain is whole.
    for (_, path) in segment::segments(&state.path().join("gone")).unwrap() {
        std::fs::rename(&path, place.join(path.file_name().unwrap())).unwrap();
    }
    assert_eq!(whole(state.path()).records, 7);
}

#[tokio::test]
async fn what_was_written_to_a_file_without_a_name_is_not_taken_for_recorded() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    journal.open(Proof::new(), outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    let place = directory(state.path());
    std::fs::remove_dir_all(&place).unwrap();
    let stop = journal.open(Proof::new(), outgoing()).await.unwrap_err();
    assert_eq!(stop.reason(), Reason::RecordUnavailable);
    until("the journal is well again", || journal.is_well()).await;
    journal.open(Proof::new(), outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    journal.stop("test").await.unwrap();
    assert_eq!(kinds(state.path())[..2], ["rotation", "repair"]);
}

#[tokio::test]
async fn calls_in_flight_are_carried_over_to_the_next_segment_however_many_there_are() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start_with(state.path(), Durability::Os);
    let count = limit::JOURNAL_OPEN_LEGS_MAX + 1;
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(journal.open(Proof::new(), outgoing()).await.unwrap());
    }
    // What was written so far is lost; only what the next segment begins with knows of them.
    let place = directory(state.path());
    std::fs::remove_dir_all(&place).unwrap();
    assert!(journal.open(Proof::new(), outgoing()).await.is_err());
    until("the journal is well again", || journal.is_well()).await;
    let lines = lines(state.path());
    let named: Vec<usize> = lines.iter().filter_map(|line| Some(line["rotation"]["open"].as_array()?.len())).collect();
    assert_eq!(named, [limit::JOURNAL_OPEN_LEGS_MAX, 1]);
    // As if it were killed: a copy is found by the next start.
    let after = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory(after.path())).unwrap();
    for (_, path) in segment::segments(&place).unwrap() {
        std::fs::copy(&path, directory(after.path()).join(path.file_name().unwrap())).unwrap();
    }
    let (next, recovered) = start(after.path());
    assert_eq!(recovered.unknown, count);
    next.stop("test").await.unwrap();
    drop(open);
    journal.stop("test").await.unwrap();
}

#[test]
fn what_nobody_waits_for_is_dropped_and_counted_once_so_much_of_it_is_queued() {
    let metrics = Metrics::new();
    let shared = writer::Shared::new(Arc::clone(&metrics), None);
    let body = vec![b'x'; 1024 * 1024];
    for _ in 0..limit::JOURNAL_QUEUE_BYTES_MAX / body.len() {
        shared.push(&body, appender::Mark::Plain);
    }
    assert_eq!(metrics.journal_dropped.get(), 0);
    shared.push(&body, appender::Mark::Plain);
    assert_eq!(metrics.journal_dropped.get(), 1);
}

#[tokio::test]
async fn an_intent_keeps_only_so_many_values_that_conditions_read() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let mut proof = Proof::new();
    proof.read_values(limit::RECORD_VALUES_MAX + 1);
    journal.open(proof, outgoing()).await.unwrap().close(&Outcome::Complete(json("{}")));
    journal.stop("test").await.unwrap();
    let intent = &lines(state.path())[0];
    assert_eq!(intent["arguments"]["values"].as_object().unwrap().len(), limit::RECORD_VALUES_MAX, "{intent}");
}

#[test]
fn a_full_disk_writes_nothing_and_the_chain_goes_on_when_there_is_room() {
    let state = tempfile::tempdir().unwrap();
    let (mut appender, _) = appender::Appender::open(state.path(), ReplicaId::new()).unwrap();
    let mut batch = appender::Lines::default();
    batch.push(br#","type":"stop"}"#, appender::Mark::Plain);
    appender.append(&batch).unwrap();
    appender.replace_file(std::fs::File::options().append(true).open("/dev/full").unwrap());
    let error = appender.append(&batch).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::StorageFull);
    appender.append(&batch).unwrap();
    let Verdict::Whole(walk) = verify(state.path()).unwrap() else { panic!("the chain broke") };
    // The file that could not be cut is left alone; the record goes on in a new one.
    assert_eq!((walk.segments, walk.records, walk.torn_bytes), (2, 3, 0));
}

#[tokio::test]
async fn a_segment_ends_at_its_limit_and_the_next_knows_what_is_open() {
    let state = tempfile::tempdir().unwrap();
    let place = directory(state.path());
    let leg = {
        let (mut appender, _) = appender::Appender::open(&place, ReplicaId::new()).unwrap();
        appender.limit_segments(200);
        let open = fields::OpenLeg { call: CallId::new(), leg: LegId::new() };
        let mut batch = appender::Lines::default();
        let body = format!(r#","type":"intent","call":"{}","leg":"{}"}}"#, open.call, open.leg);
        batch.push(body.as_bytes(), appender::Mark::Opens(open));
        appender.append(&batch).unwrap();
        batch.clear();
        batch.push(
            br#","type":"revocation","revocation":{"epoch":5,"nonce":7}}"#,
            appender::Mark::Epoch(RevocationEpoch(5), Some(7)),
        );
        for _ in 0..5 {
            appender.append(&batch).unwrap();
        }
        open.leg
    };
    let walk = whole(state.path());
    assert!(walk.segments >= 3, "{walk:?}");
    let (journal, recovered) = start(state.path());
    assert_eq!(
        recovered,
        Recovered { epoch: Some(RevocationEpoch(5)), history: Some((RevocationEpoch(5), 7)), unknown: 1, repairs: 0 }
    );
    journal.stop("test").await.unwrap();
    assert!(lines(state.path()).iter().any(|line| line["type"] == "result" && line["leg"] == leg.to_string()));
}

#[tokio::test]
async fn a_full_queue_refuses_intents_but_still_takes_results() {
    let shared = writer::Shared::new(Metrics::new(), None);
    // No writer runs here, so that the queue fills.
    let line = vec![b'x'; limit::JOURNAL_LINE_BYTES_MAX];
    let mut taken = 0;
    while shared.push_urgent(&line, appender::Mark::Plain).is_some() {
        taken += 1;
    }
    assert_eq!(taken, limit::JOURNAL_QUEUE_INTENT_BYTES_MAX / line.len());
    for _ in 0..2 * taken {
        shared.push(&line, appender::Mark::Plain);
    }
    assert_eq!(shared.metrics.journal_dropped.get(), taken as u64, "the other half is for results, and no more");
}

/// A writer whose files are written by whoever waits, with the appender to break.
fn start_direct(state: &Path) -> (Arc<writer::Shared>, Arc<std::sync::Mutex<appender::Appender>>) {
    let replica = ReplicaId::new();
    let (appender, _) = appender::Appender::open(&directory(state), replica).unwrap();
    let appender = Arc::new(std::sync::Mutex::new(appender));
    let direct = direct::Direct::new(Arc::clone(&appender));
    let shared = Arc::new(writer::Shared::new(Metrics::new(), Some(direct)));
    let writer = writer::Writer {
        shared: Arc::clone(&shared),
        appender: Arc::clone(&appender),
        durability: Durability::Os,
        replica,
    };
    std::thread::spawn(move || writer.run());
    (shared, appender)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn who_waits_writes_and_no_line_is_left_behind_or_written_twice() {
    let state = tempfile::tempdir().unwrap();
    let (shared, _appender) = start_direct(state.path());
    let tasks: Vec<_> = (0..8)
        .map(|_| {
            let shared = Arc::clone(&shared);
            tokio::spawn(async move {
                for _ in 0..100 {
                    shared.push(br#","type":"stop"}"#, appender::Mark::Plain);
                    let waiting = shared.push_urgent(br#","type":"stop"}"#, appender::Mark::Plain).unwrap();
                    shared.write_here().await;
                    assert!(waiting.await);
                }
            })
        })
        .collect();
    for task in tasks {
        tokio::time::timeout(Duration::from_secs(30), task).await.expect("a line was left behind").unwrap();
    }
    shared.close();
    let deadline = Instant::now() + Duration::from_secs(10);
    while whole(state.path()).records < 1_600 && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(whole(state.path()).records, 1_600);
}

#[tokio::test]
async fn intents_of_one_lane_are_written_together() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start_with(state.path(), Durability::Os);
    let opened = futures_util::future::join_all((0..10).map(|_| {
        let journal = journal.clone();
        tokio::spawn(async move { journal.open(Proof::new(), outgoing()).await.map(drop) })
    }));
    assert!(opened.await.into_iter().all(|opened| opened.unwrap().is_ok()));
    let text = journal.metrics().encode();
    let count = |name: &str| {
        let line = text.lines().find_map(|line| line.strip_prefix(&format!("bailiwick_journal_batch_lines_{name} ")));
        line.unwrap().parse::<f64>().unwrap()
    };
    assert!(count("sum") >= 10.0 && count("count") < 5.0, "{} lines in {} writes", count("sum"), count("count"));
    journal.stop("test").await.unwrap();
}

#[tokio::test]
async fn a_client_that_goes_while_its_intent_waits_for_others_leaves_an_end() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start_with(state.path(), Durability::Os);
    {
        let opening = journal.open(Proof::new(), outgoing());
        tokio::pin!(opening);
        assert!(futures_util::poll!(&mut opening).is_pending());
    }
    journal.stop("test").await.unwrap();
    assert_eq!(kinds(state.path()), ["intent", "result", "stop"]);
}

#[tokio::test]
async fn who_waits_is_refused_on_a_full_disk_until_the_thread_could_write_again() {
    let state = tempfile::tempdir().unwrap();
    let (shared, appender) = start_direct(state.path());
    let written = async || {
        let waiting = shared.push_urgent(br#","type":"stop"}"#, appender::Mark::Plain).unwrap();
        shared.write_here().await;
        waiting.await
    };
    assert!(written().await);
    let full = std::fs::File::options().append(true).open("/dev/full").unwrap();
    appender.lock().unwrap().replace_file(full);
    assert!(!written().await);
    let deadline = Instant::now() + Duration::from_secs(20);
    while !shared.is_well() && Instant::now() < deadline {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert!(written().await);
    // A file that could not be cut is left alone; what was queued is kept behind the note of what happened.
    assert_eq!(kinds(state.path()), ["stop", "rotation", "repair", "stop", "stop"]);
}

#[tokio::test]
async fn nothing_is_taken_after_the_stop() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    journal.stop("test").await.unwrap();
    let stop = journal.open(Proof::new(), outgoing()).await.unwrap_err();
    assert!(matches!(stop, Stop::Failed(Failure { reason: Reason::RecordUnavailable, .. })));
    assert_eq!(kinds(state.path()), ["stop"]);
}

#[tokio::test]
async fn every_row_of_a_reload_is_on_the_record_in_so_many_lines_as_they_need() {
    let state = tempfile::tempdir().unwrap();
    let (journal, _) = start(state.path());
    let most = limit::RECORD_ROWS_MAX;
    let at_once = limit::RECORD_RELOAD_LINES_AT_ONCE;
    let rows: Vec<String> = (0..=at_once * most).map(|number| format!("p, row {number}")).collect();
    for (added, removed, parts) in
        [(0, 0, 1), (most, 0, 1), (most, 1, 2), (2 * most, 1, 3), (at_once * most, 1, at_once + 1)]
    {
        let before = lines(state.path()).len();
        let (added, removed) = (&rows[..added], &rows[rows.len() - removed..]);
        let note = event::ReloadNote { actor: "test", from: None, to: None, added, removed, problem: None };
        journal.reloaded(&note).await.unwrap();
        let written = lines(state.path()).split_off(before);
        assert_eq!(written.len(), parts);
        let told = written.iter().flat_map(|line| line["reload"]["rows"].as_array().unwrap().clone());
        let expected = removed.iter().map(|row| format!("- {row}")).chain(added.iter().map(|row| format!("+ {row}")));
        assert_eq!(told.collect::<Vec<_>>(), expected.collect::<Vec<_>>());
        for (number, line) in written.iter().enumerate() {
            let reload = &line["reload"];
            assert_eq!((&reload["added"], &reload["removed"]), (&added.len().into(), &removed.len().into()));
            let (part, count) = (reload["part"].as_u64(), reload["parts"].as_u64());
            let expected = (parts > 1).then_some((number as u64 + 1, parts as u64)).unzip();
            assert_eq!((part, count), expected);
        }
    }
}
