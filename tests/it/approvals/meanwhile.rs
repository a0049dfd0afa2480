//! What changes between the approval and the call that uses it.

use std::path::Path;
use std::sync::Arc;

use super::*;
use crate::support::eventually;

fn write(gateway: &Gateway, name: &str, text: &str) {
    std::fs::write(Path::new(gateway.directory()).join("policies").join(name), text).unwrap();
}

async fn reload(running: &Running) {
    let order = json!({ "allow_widening": true }).to_string();
    let answer = running.at("/reload", &root(running)).post(&[], order).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

pub const ROOTS: &str = "\
g, group:test/roots, role:root, *
p, role:root, *, bailiwick/reload, admin, -, allow
p, role:root, *, bailiwick/revocations, admin, -, allow
p, role:root, *, bailiwick/lift, admin, -, allow
";

pub fn root(running: &Running) -> String {
    let mut admin = running.issuer.administrator("root", &["roots"], &running.gateway.admin);
    admin["person"] = json!("root");
    running.issuer.sign(&admin)
}

async fn approved(gates: &str) -> (Running, String) {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let rules = format!("{DEVELOPERS_MAY}{RULES}{ROOTS}");
    let gateway = setup(&issuer, &upstream, gates).policy(&rules).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let answer = running.approve(&id, &running.bob()).await;
    assert_eq!(answer.response()["state"], "approved", "{}", answer.text);
    (running, id)
}

#[tokio::test]
async fn a_rule_that_denies_meanwhile_wins_and_an_edit_that_does_not_concern_the_call_voids_nothing() {
    let (running, _) = approved(GATES).await;
    let rules = format!("{DEVELOPERS_MAY}{RULES}{ROOTS}");
    let denied = format!("{rules}p, user:test/alice, *, tools/echo, call, -, deny\n");
    write(&running.gateway, "policy.csv", &denied);
    reload(&running).await;
    let answer = running.call("alice", json!({ "n": 1 })).await;
    assert!(answer.status == 200 && running.calls() == 0 && !answer.text.contains("approval"), "{}", answer.text);
    let unrelated = format!("{rules}p, user:test/zoe, *, tools/look, call, -, deny\n");
    write(&running.gateway, "policy.csv", &unrelated);
    write(
        &running.gateway,
        "gates.toml",
        &format!("{GATES}[gates.other]\nobjects = [\"tools/look\"]\napprovers = [\"owner\"]\n"),
    );
    reload(&running).await;
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#, "what was approved still is");
}

#[tokio::test]
async fn another_definition_is_another_call() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, GATES).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let mut changed = tool("echo");
    changed["description"] = json!("the tool echo, which now also deletes");
    running.upstream.set_tools(json!([changed, tool("look")]));
    // A tool that its server does not know any more makes the gateway list again.
    running.upstream.forget("look");
    running.caller("alice").call_tool("tools__look", json!({})).await;
    eventually("the new definition", async || {
        running.caller("alice").modern("tools/list", json!({})).await.text.contains("also deletes")
    })
    .await;
    let before = running.calls();
    assert_ne!(running.asks("alice", json!({ "n": 1 })).await, id);
    assert_eq!(running.calls(), before);
}

#[tokio::test]
async fn an_approver_from_whom_access_was_taken_has_approved_nothing() {
    let (running, id) = approved(GATES).await;
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/bob", "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{}", String::from_utf8_lossy(&revoked.stderr));
    assert_eq!(running.asks("alice", json!({ "n": 1 })).await, id, "it waits again");
    assert_eq!(running.calls(), 0);
    let carol = running.person("carol", &["approvers"]);
    assert!(running.view(&id, &carol).await["approvers"].as_array().unwrap().is_empty());
    assert!(running.events(&id).contains(&"voided".to_owned()), "{:?}", running.events(&id));
    assert_eq!(running.approve(&id, &carol).await.status, 200);
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
}

#[tokio::test]
async fn an_approver_whom_the_gate_names_no_more_has_approved_nothing_and_neither_are_too_few_enough() {
    for changed in [
        "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/managers\"]\n",
        "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/approvers\", \"group:test/managers\"]\napprovals = 2\n",
    ] {
        let (running, id) = approved(GATES).await;
        write(&running.gateway, "gates.toml", changed);
        reload(&running).await;
        assert_eq!(running.asks("alice", json!({ "n": 1 })).await, id, "it waits again");
        assert_eq!(running.calls(), 0);
        assert_eq!(running.approve(&id, &running.person("mia", &["managers"])).await.response()["state"], "approved");
        assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
    }
}

#[tokio::test]
async fn one_gate_more_is_another_call_and_needs_no_leave_to_widen() {
    let (running, id) = approved(GATES).await;
    write(
        &running.gateway,
        "gates.toml",
        &format!("{GATES}[gates.second]\nobjects = [\"*/echo\"]\napprovers = [\"group:test/managers\"]\n"),
    );
    let reloaded = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(reloaded.status.success(), "a gate more is a brake: {}", String::from_utf8_lossy(&reloaded.stdout));
    assert_ne!(running.asks("alice", json!({ "n": 1 })).await, id);
    assert_eq!(running.calls(), 0);
    write(&running.gateway, "gates.toml", GATES);
    let reloaded = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(!reloaded.status.success(), "a gate less lets somebody do more");
}

#[tokio::test]
async fn a_kill_after_it_was_used_leaves_unknown_and_it_is_never_run_again() {
    let (mut running, id) = approved(GATES).await;
    running.upstream.mute("echo");
    let alice = running.caller("alice");
    let call = tokio::spawn(async move { alice.try_tool("tools__echo", json!({ "n": 1 })).await });
    eventually("the call to reach the upstream", async || running.calls() == 1).await;
    running.gateway.signal("KILL");
    running.gateway.wait().await;
    assert!(call.await.unwrap().is_err(), "nobody was told how it ended");
    running.upstream.mute("");
    running.gateway.launch().await;
    let intents = running.gateway.records("intent");
    let intent = intents.iter().find(|intent| intent["approval"] == *id).unwrap();
    let ends = running.gateway.records("result");
    let end = ends.iter().find(|end| end["leg"] == intent["leg"]).unwrap();
    assert_eq!(end["result"]["outcome"], "unknown");
    let next = running.asks("alice", json!({ "n": 1 })).await;
    assert_ne!(next, id, "what was used is used");
    assert_eq!(running.calls(), 1, "nothing ran again by itself");
}

/// Stands before an upstream; while it holds, it takes what comes and hands on nothing.
async fn relay(to: &str) -> (String, Arc<tokio::sync::watch::Sender<bool>>) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (url, to) = (format!("http://{}/mcp", listener.local_addr().unwrap()), to.to_owned());
    let (holds, _) = tokio::sync::watch::channel(false);
    let (holds, told) = (Arc::new(holds), to.trim_start_matches("http://").trim_end_matches("/mcp").to_owned());
    let holding = Arc::clone(&holds);
    tokio::spawn(async move {
        loop {
            let (mut client, _) = listener.accept().await.unwrap();
            let (mut held, told) = (holding.subscribe(), told.clone());
            tokio::spawn(async move {
                if *held.borrow() {
                    return std::future::pending::<()>().await;
                }
                let mut server = tokio::net::TcpStream::connect(told).await.unwrap();
                // Connections of before stay open, and nothing comes through them any more.
                tokio::select! {
                    biased;
                    _ = held.changed() => std::future::pending().await,
                    _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                }
            });
        }
    });
    (url, holds)
}

#[tokio::test]
async fn a_kill_between_its_use_and_what_reaches_the_upstream_leaves_unknown_and_it_is_never_run() {
    let (issuer, mut upstream) = (Issuer::start().await, upstream().await);
    let (url, holds) = relay(&upstream.url).await;
    upstream.url = url;
    let gateway = setup(&issuer, &upstream, GATES).start().await;
    let mut running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.response()["state"], "approved");
    holds.send_replace(true);
    let alice = running.caller("alice");
    let call = tokio::spawn(async move { alice.try_tool("tools__echo", json!({ "n": 1 })).await });
    eventually("it to be used", async || running.events(&id).iter().any(|event| event == "consumed")).await;
    running.gateway.signal("KILL");
    running.gateway.wait().await;
    assert!(call.await.unwrap().is_err(), "nobody was told how it ended");
    holds.send_replace(false);
    running.gateway.launch().await;
    let intents = running.gateway.records("intent");
    let intent = intents.iter().find(|intent| intent["approval"] == *id).unwrap();
    let ends = running.gateway.records("result");
    let end = ends.iter().find(|end| end["leg"] == intent["leg"]).unwrap();
    assert_eq!(end["result"]["outcome"], "unknown", "nobody can tell whether it got there");
    assert_ne!(running.asks("alice", json!({ "n": 1 })).await, id, "what was used is used");
    assert_eq!(running.calls(), 0, "nothing ran, then or by itself");
}

#[tokio::test]
async fn what_waits_and_what_was_approved_survives_a_kill() {
    let (mut running, _) = approved(GATES).await;
    let waiting = running.asks("alice", json!({ "n": 2 })).await;
    running.gateway.signal("KILL");
    running.gateway.wait().await;
    running.gateway.launch().await;
    assert_eq!(running.asks("alice", json!({ "n": 2 })).await, waiting);
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn a_caller_from_whom_access_was_taken_asks_anew_when_they_have_it_again() {
    let (running, id) = approved(GATES).await;
    let waiting = running.asks("alice", json!({ "n": 2 })).await;
    let others = running.asks("carol", json!({ "n": 2 })).await;
    let command = |words: &[&str]| {
        let done = running.gateway.command(&[words, &["--config", "servers.toml"]].concat());
        assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    };
    command(&["revoke", "subject", "user:test/alice"]);
    let late = running.approve(&waiting, &running.bob()).await;
    assert_eq!((late.status, reason(&late).as_str()), (409, "approval_over"), "{}", late.text);
    let held = running.at("/revocations", &root(&running)).bare(reqwest::Method::GET, &[]).await;
    let since = held.response()["revocations"][0]["since"].as_u64().unwrap();
    let path = format!("/revocations/{since}");
    let lifted = running.at(&path, &root(&running)).bare(reqwest::Method::DELETE, &[]).await;
    assert_eq!(lifted.status, 200, "{}", lifted.text);
    assert_ne!(running.asks("alice", json!({ "n": 1 })).await, id, "what was approved is void");
    assert_ne!(running.asks("alice", json!({ "n": 2 })).await, waiting);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "withdrawn");
    assert_eq!(running.asks("carol", json!({ "n": 2 })).await, others, "nobody else's");
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn whoever_was_signed_out_asks_anew_with_their_next_login() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    // So that a token can be of after the skew that a sign-out allows for.
    let gateway = setup(&issuer, &upstream, GATES).issuer_lines("leeway = \"60s\"\n").start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let words = ["revoke", "subject", "user:test/alice", "--sign-out", "--config", "servers.toml"];
    let done = running.gateway.command(&words);
    assert!(done.status.success(), "{}", String::from_utf8_lossy(&done.stderr));
    let mut claims = running.issuer.claims("alice", &["developers"], &running.gateway.resource());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    // As late as the leeway allows: a sign-out reaches what an issuer whose clock is ahead by it had issued before.
    claims["iat"] = json!(jiff::Timestamp::now().as_second() + 60);
    let alice = running.gateway.client(&running.issuer.sign(&claims));
    let next = waits(&alice.call_tool("tools__echo", json!({ "n": 1 })).await);
    assert_ne!(next, id);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "withdrawn");
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn what_one_of_two_approved_long_ago_is_not_enough_when_one_is_asked_for() {
    let of = |approvals: u32| format!("{GATES}approvals = {approvals}\napproved_for = \"4s\"\n");
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let rules = format!("{DEVELOPERS_MAY}{RULES}{ROOTS}");
    let gateway = setup(&issuer, &upstream, &of(2)).policy(&rules).start().await;
    let running = Running { issuer, upstream, gateway };
    let id = running.asks("alice", json!({ "n": 1 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.response()["state"], "pending");
    tokio::time::sleep(std::time::Duration::from_millis(4_200)).await;
    write(&running.gateway, "gates.toml", &of(1));
    reload(&running).await;
    assert_eq!(running.asks("alice", json!({ "n": 1 })).await, id, "it waits again");
    assert_eq!(running.calls(), 0);
    assert_eq!(running.approve(&id, &running.bob()).await.response()["state"], "approved", "they may say it again");
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
}

#[tokio::test]
async fn an_approval_that_was_used_is_not_used_again_when_the_store_of_before_is_restored() {
    let mut running = start(GATES).await;
    let id = running.asks("alice", json!({ "to": "production" })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let other = running.asks("alice", json!({ "to": "staging" })).await;
    assert_eq!(running.approve(&other, &running.bob()).await.status, 200);
    let place = running.gateway.state();
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    running.call("alice", json!({ "to": "production" })).await;
    assert_eq!(running.calls(), 1);
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(place.with_file_name("kept").join("store.sqlite"), place.join("store.sqlite")).unwrap();
    // No epoch has moved since: it starts, and knows it from the record.
    running.gateway.launch().await;
    let again = running.asks("alice", json!({ "to": "production" })).await;
    assert_ne!(again, id);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "consumed");
    running.call("alice", json!({ "to": "staging" })).await;
    assert_eq!(running.calls(), 2, "what was not used is as good as before");
}

#[tokio::test]
async fn an_approver_whom_no_rule_lets_approve_any_more_has_approved_nothing() {
    let (running, id) = approved(GATES).await;
    let rules = format!("{DEVELOPERS_MAY}{RULES}{ROOTS}");
    let managers = rules.replace("p, role:approver, *, bailiwick/approve, admin, -, allow\n", "")
        + "p, group:test/managers, *, bailiwick/approve, admin, -, allow\n";
    write(&running.gateway, "policy.csv", &managers);
    reload(&running).await;
    assert_eq!(running.asks("alice", json!({ "n": 1 })).await, id, "it waits again");
    assert_eq!(running.calls(), 0);
    eventually("the record", async || running.events(&id).contains(&"voided".to_owned())).await;
    // Somebody whom the gate names and a rule lets.
    let both = running.person("mia", &["managers", "approvers"]);
    assert_eq!(running.approve(&id, &both).await.response()["state"], "approved");
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);
}

#[tokio::test]
async fn one_more_yes_to_what_is_approved_does_not_make_the_others_good_for_longer() {
    let (running, id) = approved(GATES).await;
    let until = running.view(&id, &running.bob()).await["until"].clone();
    let late = running.approve(&id, &running.person("carol", &["approvers"])).await;
    assert_eq!((late.status, reason(&late).as_str()), (409, "approval_over"), "{}", late.text);
    assert_eq!(running.view(&id, &running.bob()).await["until"], until);
    assert_eq!(running.call("alice", json!({ "n": 1 })).await.tool_text(), r#"{"n":1}"#);

    // Where one of two fell away, whoever says yes in their place renews nothing that the other one has said.
    let (running, id) = {
        let (issuer, upstream) = (Issuer::start().await, upstream().await);
        let gateway = setup(&issuer, &upstream, &format!("{GATES}approvals = 2\n")).start().await;
        let running = Running { issuer, upstream, gateway };
        let id = running.asks("alice", json!({ "n": 1 })).await;
        (running, id)
    };
    for user in ["bob", "carol"] {
        assert_eq!(running.approve(&id, &running.person(user, &["approvers"])).await.status, 200);
    }
    let until = running.view(&id, &running.bob()).await["until"].clone();
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/carol", "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let third = running.approve(&id, &running.person("dave", &["approvers"])).await;
    assert_eq!((third.status, &third.response()["until"]), (200, &until), "{}", third.text);
}
