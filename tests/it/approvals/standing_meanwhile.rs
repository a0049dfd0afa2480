//! What changes between a standing approval and the calls that it would let through.

use std::path::Path;

use super::standing::{CONDITIONS, STANDS, begin, staging, standing_setup};
use super::*;
use crate::support::eventually;

const ROOTS: &str = "\
g, group:test/roots, role:root, *
p, role:root, *, bailiwick/reload, admin, -, allow
p, role:root, *, bailiwick/revocations, admin, -, allow
p, role:root, *, bailiwick/lift, admin, -, allow
p, role:root, *, bailiwick/explain, admin, -, allow
";

fn root(running: &Running) -> String {
    running.person("root", &["roots"])
}

fn write(running: &Running, name: &str, text: &str) {
    std::fs::write(Path::new(running.gateway.directory()).join("policies").join(name), text).unwrap();
}

async fn reload(running: &Running) {
    let order = json!({ "allow_widening": true }).to_string();
    let answer = running.at("/reload", &root(running)).post(&[], order).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

fn command(running: &Running, words: &[&str]) {
    let done = running.gateway.command(&[words, &["--config", "servers.toml"]].concat());
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
}

/// Lifts every revocation.
async fn lift_all(running: &Running) {
    let held = running.at("/revocations", &root(running)).bare(reqwest::Method::GET, &[]).await;
    for one in held.response()["revocations"].as_array().unwrap() {
        let path = format!("/revocations/{}", one["since"]);
        let lifted = running.at(&path, &root(running)).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
    }
}

async fn standing() -> (Running, String) {
    let running = begin(GATES, ROOTS).await;
    let id = running.stands("alice", 100).await;
    running.passes("alice", staging(1)).await;
    (running, id)
}

/// That the next call waits for somebody, and nothing went out since.
async fn waits_again(running: &Running, sent: usize) {
    running.asks("alice", staging(500)).await;
    assert_eq!(running.calls(), sent);
}

#[tokio::test]
async fn whoever_gave_it_and_is_gone_has_given_nothing_also_after_that_is_lifted() {
    for seen_meanwhile in [true, false] {
        let (running, id) = standing().await;
        command(&running, &["revoke", "subject", "user:test/bob"]);
        if seen_meanwhile {
            waits_again(&running, 1).await;
            // Such lines are written a moment later.
            let is_told = async || running.events(&id).contains(&"standing_void".to_owned());
            eventually("that it is void", is_told).await;
        }
        lift_all(&running).await;
        waits_again(&running, 1).await;
        assert_eq!(running.standing(&id).await["reason"], "target_unknown");
    }
}

#[tokio::test]
async fn a_caller_from_whom_access_was_taken_has_none_when_they_have_it_again() {
    let (running, id) = standing().await;
    running.stands("dora", 5).await;
    command(&running, &["revoke", "subject", "user:test/alice"]);
    lift_all(&running).await;
    waits_again(&running, 1).await;
    assert_eq!(running.standing(&id).await["reason"], "target_unknown");
    running.passes("dora", staging(2)).await;
}

#[tokio::test]
async fn a_gate_that_names_others_or_more_of_them_or_forbids_it_voids_it() {
    for changed in [
        "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/managers\"]\n",
        "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/approvers\"]\napprovals = 3\n",
        "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/approvers\"]\nirreversible = true\n",
        "[gates.deploy]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\n",
    ] {
        let (running, id) = standing().await;
        write(&running, "gates.toml", changed);
        reload(&running).await;
        assert_eq!(running.standing(&id).await["state"], "void", "{changed}");
        let answer = running.call("alice", staging(500)).await;
        assert!(["approval_required", "confirmation_required"].contains(&reason(&answer).as_str()), "{}", answer.text);
        assert_eq!(running.calls(), 1);
    }
}

#[tokio::test]
async fn a_rule_that_denies_wins_one_gate_more_waits_and_what_does_not_concern_it_voids_nothing() {
    let (running, id) = standing().await;
    let rules = format!("{DEVELOPERS_MAY}{RULES}{STANDS}{ROOTS}");
    write(&running, "policy.csv", &format!("{rules}p, user:test/alice, *, tools/echo, call, -, deny\n"));
    reload(&running).await;
    let denied = running.call("alice", staging(1)).await;
    assert!(running.calls() == 1 && !denied.text.contains("approval"), "{}", denied.text);
    write(&running, "policy.csv", &format!("{rules}p, user:test/zoe, *, tools/look, call, -, deny\n"));
    reload(&running).await;
    running.passes("alice", staging(2)).await;
    let more = format!("{GATES}[gates.second]\nobjects = [\"*/echo\"]\napprovers = [\"group:test/managers\"]\n");
    write(&running, "gates.toml", &more);
    reload(&running).await;
    waits_again(&running, 2).await;
    assert_eq!(running.standing(&id).await["state"], "active", "it is for calls that meet one gate");
    let question = json!({ "object": "tools/echo", "as": "user:test/alice", "groups": ["group:test/developers"],
        "agent": "assistant", "arguments": {} });
    let told = running.at("/explain", &root(&running)).post(&[], question.to_string()).await.text;
    assert!(told.contains(&format!("{id}: a standing approval lets 98 more calls through")), "{told}");
    write(&running, "gates.toml", GATES);
    reload(&running).await;
    running.passes("alice", staging(3)).await;
}

#[tokio::test]
async fn a_condition_that_says_something_else_is_another_one() {
    let (running, _) = standing().await;
    write(&running, "conditions.toml", &CONDITIONS.replace("1000", "2000"));
    reload(&running).await;
    waits_again(&running, 1).await;
    write(&running, "conditions.toml", CONDITIONS);
    reload(&running).await;
    waits_again(&running, 1).await;
}

#[tokio::test]
async fn another_definition_is_another_tool() {
    let (running, _) = standing().await;
    let mut changed = tool("echo");
    changed["description"] = json!("the tool echo, which now also deletes");
    running.upstream.set_tools(json!([changed, tool("look")]));
    running.upstream.forget("look");
    running.caller("alice").call_tool("tools__look", json!({})).await;
    eventually("the new definition", async || {
        running.caller("alice").modern("tools/list", json!({})).await.text.contains("also deletes")
    })
    .await;
    let sent = running.calls();
    waits_again(&running, sent).await;
}

#[tokio::test]
async fn whoever_is_at_the_machine_takes_it_back_and_the_next_call_waits() {
    let (running, id) = standing().await;
    command(&running, &["standing", "revoke", &id, "--note", "done with it"]);
    waits_again(&running, 1).await;
    let told = running.gateway.records("approval");
    let told = told.iter().find(|record| record["approval"]["event"] == "standing_revoked").unwrap();
    assert!(told["approval"]["detail"].as_str().unwrap().ends_with("done with it"), "{told}");
    let gone = running.gateway.command(&["standing", "show", &id, "--config", "servers.toml"]);
    assert_eq!(gone.status.code(), Some(1), "{gone:?}");
}

async fn restored(running: &mut Running) {
    let place = running.gateway.state();
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(place.with_file_name("kept").join("store.sqlite"), place.join("store.sqlite")).unwrap();
}

#[tokio::test]
async fn uses_that_a_restored_store_has_forgotten_end_it_and_a_restart_alone_does_not() {
    let mut running = begin(GATES, ROOTS).await;
    let id = running.stands("alice", 2).await;
    running.passes("alice", staging(1)).await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    running.passes("alice", staging(2)).await;
    // It was stopped after its intent was written, and used nothing.
    running.asks("alice", staging(3)).await;
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert_eq!(running.standing(&id).await["used"], 2);
    restored(&mut running).await;
    running.gateway.launch().await;
    waits_again(&running, 2).await;
    assert_eq!(running.standing(&id).await["reason"], "target_unknown", "nobody knows how many are left");
}

#[tokio::test]
async fn one_that_was_taken_back_does_not_come_back_with_the_store_of_before() {
    let (mut running, id) = standing().await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    command(&running, &["standing", "revoke", &id]);
    restored(&mut running).await;
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    waits_again(&running, 1).await;
    assert_eq!(running.standing(&id).await["reason"], "target_unknown");
}

#[tokio::test]
async fn it_ends_in_time_and_a_proposal_that_nobody_joins_is_none() {
    let running = begin(GATES, "").await;
    let like = running.asks("alice", staging(0)).await;
    let wish = json!({ "like": like, "condition": "small", "uses": 100, "seconds": 2 });
    let proposed = running.propose(&running.bob(), &wish).await;
    let id = proposed.response()["id"].as_str().unwrap().to_owned();
    assert_eq!(running.give(&id, &running.carol()).await.status, 200);
    running.passes("alice", staging(1)).await;
    let mut sent = 1;
    for number in 2..200 {
        let answer = running.call("alice", staging(number)).await;
        if reason(&answer) == "approval_required" {
            sent = running.calls();
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert!(sent > 1);
    waits_again(&running, sent).await;
    assert_eq!(running.standing(&id).await["reason"], "target_unknown");
}

#[tokio::test]
async fn a_clock_that_jumps_ends_it_early_and_brings_no_use_back() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let Some(setup) = standing_setup(&issuer, &upstream, GATES, "").own_clock() else { return };
    let running = Running { gateway: setup.start().await, issuer, upstream };
    let id = running.stands("alice", 2).await;
    running.passes("alice", staging(1)).await;
    running.gateway.set_clock("+7200");
    let mut claims = running.issuer.claims("alice", &["developers"], &running.gateway.resource());
    let later = jiff::Timestamp::now().as_second() + 7200;
    (claims["iat"], claims["exp"]) = (json!(later), json!(later + 600));
    let alice = running.gateway.client(&running.issuer.sign(&claims));
    eventually("it to be over", async || {
        reason(&alice.call_tool("tools__echo", staging(2)).await) == "approval_required"
    })
    .await;
    let sent = running.calls();
    running.gateway.set_clock("+0");
    // It may be there again, or was swept: what was used is used.
    for number in 10..14 {
        running.call("alice", staging(number)).await;
    }
    assert!(running.calls() <= 2 && sent == 1, "{sent} {}: {id}", running.calls());
}

#[tokio::test]
async fn whoever_gave_it_and_whom_no_rule_lets_give_one_any_more_has_given_nothing() {
    let (running, id) = standing().await;
    let path = Path::new(running.gateway.directory()).join("policies/policy.csv");
    let rows = std::fs::read_to_string(&path).unwrap();
    let without: Vec<&str> = rows.lines().filter(|row| !row.contains("bailiwick/standing, ")).collect();
    assert!(without.len() < rows.lines().count(), "{rows}");
    write(&running, "policy.csv", &without.join("\n"));
    reload(&running).await;
    waits_again(&running, 1).await;
    eventually("that it is void", async || running.events(&id).contains(&"standing_void".to_owned())).await;
}
