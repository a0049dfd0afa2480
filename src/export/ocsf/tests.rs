//! Records as events of OCSF.

use super::*;
use crate::record::KINDS;

fn line(kind: &str, more: &Value) -> Value {
    let mut line = json!({"v": 1, "seq": 7, "prev": "p", "replica": "r", "at": "2026-11-27T07:00:00.5Z", "type": kind,
        "call": "c1", "leg": "l1"});
    line.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    line
}

fn intent() -> Value {
    line(
        "intent",
        &json!({
        "subject": {"id": "user:corp/alice"}, "agent": {"id": "assistant", "client": "cursor", "proof": "public"},
        "token": {"issuer": "corp", "id": "j1", "digest": "abcdef", "expires_at": 1_764_000_000},
        "mcp": {"method": "tools/call", "server": "crm", "environment": "production", "name": "search"},
        "decision": {"effect": "allow", "rule": "policy.csv:3", "revision": "rev"},
        "arguments": {"hmac": "argument-digest", "bytes": 9, "values": {"argument.amount": "hunter2"}}}),
    )
}

#[test]
fn a_call_is_two_events_of_one_class_that_belong_together() {
    let mut open = Open::default();
    let began = event(&intent(), &mut open).unwrap();
    let end =
        event(&line("result", &json!({"result": {"outcome": "complete", "latency_us": 12_345}})), &mut open).unwrap();
    for event in [&began, &end] {
        assert_eq!((event["class_uid"].as_u64(), event["type_uid"].as_u64()), (Some(6003), Some(600_399)));
        assert_eq!(
            (&event["api"]["operation"], &event["resources"][0]["name"]),
            (&json!("tools/call"), &json!("search"))
        );
        assert_eq!(event["metadata"]["correlation_uid"], "c1");
        assert_eq!(event["actor"]["user"]["uid"], "user:corp/alice");
    }
    assert_eq!((began["action_id"].as_u64(), began["status_id"].as_u64()), (Some(1), Some(0)));
    assert_eq!((end["status_id"].as_u64(), end["duration"].as_u64()), (Some(1), Some(12)));
    assert_eq!(began["time"], 1_795_762_800_500_u64);
    assert!(open.legs.is_empty() && open.order.is_empty());
}

#[test]
fn no_argument_and_no_free_text_leaves() {
    let mut open = Open::default();
    let refused = line(
        "refusal",
        &json!({"mcp": {"method": "tools/call"},
        "decision": {"effect": "deny", "reason": "condition_unmet", "detail": "hunter2 is too much"}}),
    );
    for line in [intent(), refused.clone()] {
        let event = event(&line, &mut open).unwrap().to_string();
        assert!(!event.contains("hunter2") && !event.contains("argument-digest"), "{event}");
    }
    let event = event(&refused, &mut open).unwrap();
    assert_eq!((event["action_id"].as_u64(), event["disposition_id"].as_u64()), (Some(2), Some(2)));
    assert_eq!(event["status_code"], "condition_unmet");
}

#[test]
fn every_kind_has_its_class() {
    let class = |kind: &str, more: &Value| {
        let event = event(&line(kind, more), &mut Open::default())?;
        Some((event["class_uid"].as_u64().unwrap(), event["activity_id"].as_u64().unwrap()))
    };
    assert_eq!(
        class("noise", &json!({"noise": {"reason": "token_missing", "source": "192.0.2.1", "count": 3}})),
        Some((3002, 1))
    );
    let caller = json!({"subject": {"id": "user:corp/alice"}, "noise": {"reason": "rate_limited", "count": 3}});
    assert_eq!(class("noise", &caller), Some((6003, 99)));
    let event = event(&line("noise", &caller), &mut Open::default()).unwrap();
    assert_eq!((&event["count"], &event["status_code"]), (&json!(3), &json!("rate_limited")));
    assert_eq!((&event["action_id"], &event["actor"]["user"]["uid"]), (&json!(2), &json!("user:corp/alice")));
    let revoked = |target: &str, mode: &str, lifted: bool| {
        class("revocation", &json!({"revocation": {"target": target, "mode": mode, "lifted": lifted, "value": "x"}}))
    };
    assert_eq!(revoked("subject", "block", false), Some((3001, 5)));
    assert_eq!(revoked("subject", "block", true), Some((3001, 2)));
    assert_eq!(revoked("subject", "sign_out", false), Some((3002, 2)));
    assert_eq!(revoked("subject", "sign_out", true), Some((3002, 99)), "nobody is signed out by that");
    for target in ["server", "token", "session", "everything"] {
        assert_eq!(
            (revoked(target, "block", false), revoked(target, "block", true)),
            (Some((3004, 9)), Some((3004, 8))),
            "{target}"
        );
    }
    assert_eq!(class("reload", &json!({"reload": {"outcome": "loaded"}})), Some((3004, 3)));
    for (state, activity) in [("accepted", 8), ("rejected", 9), ("quarantined", 3)] {
        assert_eq!(class("pin", &json!({"pin": {"state": state}})), Some((3004, activity)));
    }
    assert_eq!(class("start", &json!({})), Some((6002, 3)));
    assert_eq!(class("repair", &json!({})), Some((6002, 99)));
}

#[test]
fn every_kind_that_the_journal_writes_is_sent_or_is_named_here() {
    let unsent: Vec<&str> =
        KINDS.into_iter().filter(|kind| event(&line(kind, &json!({})), &mut Open::default()).is_none()).collect();
    assert_eq!(unsent, ["relay", "rotation"], "docs/export.md says why these are not sent");
}

#[test]
fn an_operation_of_an_administrator_is_told_without_what_people_wrote() {
    let told = |outcome: &str, more: Value| {
        let mut admin = json!({"operation": "revoke", "object": "bailiwick/revoke", "actor": "user:corp/alice",
            "client": "console", "outcome": outcome, "rule": "policy.csv:7", "about": "hunter2", "detail": "hunter2"});
        admin.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let event = event(&line("admin", &json!({ "admin": admin })), &mut Open::default()).unwrap();
        assert!(!event.to_string().contains("hunter2"), "{event}");
        assert_eq!((&event["class_uid"], &event["api"]["operation"]), (&json!(6003), &json!("revoke")));
        assert_eq!(event["actor"]["user"]["uid"], "user:corp/alice");
        assert_eq!(event["actor"]["authorizations"][0]["policy"]["name"], "policy.csv:7");
        assert_eq!(event["src_endpoint"]["name"], "console");
        event
    };
    let refused = told("refused", json!({"reason": "not_permitted"}));
    assert_eq!((&refused["action_id"], &refused["status_id"]), (&json!(2), &json!(2)));
    assert_eq!((&refused["status"], &refused["status_code"]), (&json!("refused"), &json!("not_permitted")));
    assert_eq!(refused["actor"]["authorizations"][0]["decision"], "deny");
    let outcomes = ["begun", "done", "failed"].map(|outcome| told(outcome, json!({}))["status_id"].clone());
    assert_eq!(outcomes, [0, 1, 2]);
}

#[test]
fn what_is_remembered_of_calls_under_way_is_bounded() {
    let mut open = Open::default();
    for number in 0..=limit::EXPORT_OPEN_LEGS_MAX {
        open.begin(&number.to_string(), Map::new());
    }
    assert_eq!((open.legs.len(), open.order.len()), (limit::EXPORT_OPEN_LEGS_MAX, limit::EXPORT_OPEN_LEGS_MAX));
    assert!(open.end("0").is_none() && open.end("1").is_some());
}
