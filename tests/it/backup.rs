//! What a gateway must not lose is copied while it serves, comes back whole, and never forgets a revocation.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::json;
use sqlx::Connection as _;

use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::Scripted;

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    (issuer, upstream, gateway)
}

fn ran(gateway: &Gateway, words: &[&str]) -> (Option<i32>, String) {
    let output = gateway.command(words);
    (output.status.code(), String::from_utf8([output.stdout, output.stderr].concat()).unwrap())
}

/// What the record tells of a command that worked on the state itself, by us.
fn on_the_machine(gateway: &Gateway, operation: &str) -> Vec<serde_json::Value> {
    let lines = gateway.records("admin").into_iter().map(|line| line["admin"].clone());
    let lines: Vec<_> = lines.filter(|line| line["operation"] == operation).collect();
    let us = format!("host:{}", rustix::process::geteuid().as_raw());
    assert!(lines.iter().all(|line| line["actor"] == us.as_str()), "{lines:?}");
    lines
}

fn everything_below(directory: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(everything_below(&path));
        }
        found.push(path);
    }
    found
}

fn copy_store(from: &Path, to: &Path) {
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(to.join(name));
    }
    std::fs::copy(from.join("store.sqlite"), to.join("store.sqlite")).unwrap();
}

#[tokio::test]
async fn a_backup_is_made_while_calls_are_served_and_brings_everything_back() {
    let (issuer, _upstream, mut gateway) = start().await;
    let alice = issuer.token("alice", &["developers"], &gateway.resource());
    let bob = issuer.token("bob", &["developers"], &gateway.resource());
    let session = crate::input_legacy::session(&gateway.client(&bob), &json!({})).await;
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/alice"]).0, Some(0));
    let load = tokio::spawn({
        let client = gateway.client(&bob);
        async move {
            for _ in 0..50 {
                assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
            }
        }
    });
    tokio::task::yield_now().await;
    let place = gateway.state().parent().unwrap().to_owned();
    let binary = env!("CARGO_BIN_EXE_bailiwick");
    let backup = tokio::process::Command::new(binary).args(["state", "backup", "kept"]).current_dir(&place).output();
    let backup = backup.await.unwrap();
    assert!(backup.status.success(), "{}", String::from_utf8_lossy(&backup.stderr));
    load.await.unwrap();
    let kept = place.join("kept");
    for path in everything_below(&kept).into_iter().chain([kept.clone()]) {
        let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode, if path.is_dir() { 0o700 } else { 0o600 }, "{}", path.display());
    }
    bailiwick::record::verify(&kept.join("journal")).expect("the chain is whole");
    assert_eq!(ran(&gateway, &["state", "backup", "kept"]).0, Some(2), "a backup is never written over");

    let (code, said) = ran(&gateway, &["state", "restore", "kept", "--force"]);
    assert!(code == Some(2) && said.contains("in use by process"), "{said}");
    let records = gateway.journal().len();
    assert!(gateway.stop().await.success());
    std::fs::remove_dir_all(gateway.state()).unwrap();
    let (code, said) = ran(&gateway, &["state", "restore", "kept"]);
    assert_eq!(code, Some(0), "{said}");
    let restored = on_the_machine(&gateway, "state-restore");
    assert!(restored.len() == 1 && restored[0]["about"].as_str().unwrap().contains("at epoch 1"), "{restored:?}");
    gateway.launch().await;
    assert_eq!(gateway.client(&alice).call_tool("tools__echo", json!({})).await.status, 401, "still revoked");
    assert_eq!(gateway.client(&bob).call_tool("tools__echo", json!({})).await.status, 200);
    assert!(!gateway.journal().is_empty() && records > 0);
    let keys = |state: &Path| std::fs::read(state.join("keys/seal")).unwrap();
    assert_eq!(keys(&gateway.state()), keys(&kept), "handles are still understood");
    assert!(!session.is_empty());
}

#[tokio::test]
async fn a_state_is_moved_aside_only_on_demand_and_what_it_knew_more_is_told() {
    let (_issuer, _upstream, mut gateway) = start().await;
    assert_eq!(ran(&gateway, &["state", "backup", "kept"]).0, Some(0));
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/alice"]).0, Some(0));
    assert!(gateway.stop().await.success());
    let (code, said) = ran(&gateway, &["state", "restore", "kept"]);
    assert!(code == Some(2) && said.contains("--force"), "{said}");
    let (code, said) = ran(&gateway, &["state", "restore", "kept", "--force"]);
    assert!(code == Some(0) && said.contains("it was at epoch 1: revoke again"), "{said}");
    let aside = said.split("what was there is in ").nth(1).unwrap().lines().next().unwrap();
    assert!(Path::new(aside).join("store.sqlite").exists());
    gateway.launch().await;
    std::fs::remove_file(gateway.state().with_file_name("kept/backup.json")).unwrap();
    assert!(gateway.stop().await.success());
    let (code, said) = ran(&gateway, &["state", "restore", "kept", "--force"]);
    assert!(code == Some(2) && said.contains("no complete backup"), "{said}");
}

#[tokio::test]
async fn a_store_that_is_older_than_the_journal_starts_only_after_it_was_reconciled() {
    let (issuer, _upstream, mut gateway) = start().await;
    let alice = issuer.token("alice", &["developers"], &gateway.resource());
    assert_eq!(ran(&gateway, &["revoke", "client", "test/another"]).0, Some(0));
    assert_eq!(ran(&gateway, &["state", "backup", "kept"]).0, Some(0));
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/alice", "--note", "left"]).0, Some(0));
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/bob", "--sign-out"]).0, Some(0));
    let (code, said) = ran(&gateway, &["store", "reconcile"]);
    assert!(code == Some(2) && said.contains("in use by process"), "{said}");
    assert!(gateway.stop().await.success());
    copy_store(&gateway.state().with_file_name("kept"), &gateway.state());

    let (code, said) = ran(&gateway, &["serve"]);
    assert!(code == Some(2) && said.contains("bailiwick store reconcile"), "{said}");
    let (code, said) = ran(&gateway, &["store", "reconcile", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let done: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(done, json!({ "from": 1, "to": 3, "taken": 2, "gaps": [], "left_out": [] }));
    let reconciled = on_the_machine(&gateway, "store-reconcile");
    let outcomes: Vec<_> = reconciled.iter().map(|line| line["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["begun", "done"]);
    assert_eq!(reconciled[1]["detail"], "2 changes taken over, epoch 1 -> 3");
    gateway.launch().await;
    assert_eq!(gateway.client(&alice).call_tool("tools__echo", json!({})).await.status, 401);
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    assert_eq!(bob.call_tool("tools__echo", json!({})).await.status, 401, "issued before the sign-out, with its skew");
    let status = ran(&gateway, &["store", "status"]).1;
    assert!(status.contains("epoch 3, 3 revocations") && status.starts_with("version 7 of 7"), "{status}");
}

#[tokio::test]
async fn a_store_of_before_brings_back_no_agent_that_was_stopped() {
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                  environments = [\"development\"]\n";
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).policy_file("agents.toml", agents).http_server("tools", &upstream.url, "");
    let mut gateway = setup.start().await;
    let person =
        |gateway: &Gateway, name: &str| gateway.client(&issuer.token(name, &["developers"], &gateway.resource()));
    assert_eq!(ran(&gateway, &["state", "backup", "kept"]).0, Some(0));
    let for_alice = ["agents", "suspend", "assistant", "--for", "user:test/alice", "--note", "odd calls"];
    assert_eq!(ran(&gateway, &for_alice).0, Some(0));
    assert!(gateway.stop().await.success());
    copy_store(&gateway.state().with_file_name("kept"), &gateway.state());
    let (code, said) = ran(&gateway, &["serve"]);
    assert!(code == Some(2) && said.contains("bailiwick store reconcile"), "{said}");
    let (code, said) = ran(&gateway, &["store", "reconcile", "--json"]);
    assert_eq!(code, Some(0), "{said}");
    let done: serde_json::Value = serde_json::from_str(&said).unwrap();
    assert_eq!(done, json!({ "from": 0, "to": 1, "taken": 1, "gaps": [], "left_out": [] }));
    gateway.launch().await;
    assert_eq!(person(&gateway, "alice").call_tool("tools__echo", json!({})).await.status, 403);
    assert_eq!(person(&gateway, "bob").call_tool("tools__echo", json!({})).await.status, 200);

    // What came in between a revocation and another is no gap.
    assert_eq!(ran(&gateway, &["agents", "suspend", "assistant", "--note", "all of it"]).0, Some(0));
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/carol"]).0, Some(0));
    assert!(gateway.stop().await.success());
    copy_store(&gateway.state().with_file_name("kept"), &gateway.state());
    let (code, said) = ran(&gateway, &["store", "reconcile"]);
    assert!(code == Some(0) && said.contains("3 changes taken over, epoch 0 -> 3"), "{said}");
    gateway.launch().await;
    assert_eq!(person(&gateway, "bob").call_tool("tools__echo", json!({})).await.status, 403);
    let shown = ran(&gateway, &["agents", "show", "assistant", "--json"]).1;
    assert!(shown.contains("all of it"), "who did it and why is told as before: {shown}");
}

#[tokio::test]
async fn what_the_journal_does_not_tell_is_not_passed_over_in_silence() {
    let (_issuer, _upstream, mut gateway) = start().await;
    assert_eq!(ran(&gateway, &["state", "backup", "kept"]).0, Some(0));
    let long = format!("user:test/{}", "x".repeat(600));
    assert_eq!(ran(&gateway, &["revoke", "subject", &long]).0, Some(0));
    assert_eq!(ran(&gateway, &["revoke", "subject", "user:test/alice"]).0, Some(0));
    assert!(gateway.stop().await.success());
    copy_store(&gateway.state().with_file_name("kept"), &gateway.state());
    let (code, said) = ran(&gateway, &["store", "reconcile"]);
    assert!(code == Some(1) && said.contains("epoch 1: record") && said.contains("cut or redacted"), "{said}");
    assert!(ran(&gateway, &["store", "status"]).1.contains("epoch 0, 0 revocations"), "nothing was changed");
    assert_eq!(ran(&gateway, &["serve"]).0, Some(2));
    let (code, said) = ran(&gateway, &["store", "reconcile", "--accept-gaps"]);
    assert!(code == Some(0) && said.contains("revoke again"), "{said}");
    assert!(ran(&gateway, &["store", "status"]).1.contains("epoch 2, 1 revocations"));
}

#[tokio::test]
async fn a_store_of_a_newer_program_is_refused_and_says_so() {
    let (_issuer, _upstream, mut gateway) = start().await;
    assert!(gateway.stop().await.success());
    let file = gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    let later = "INSERT INTO _sqlx_migrations (version, description, success, checksum, execution_time)
                 VALUES (99, 'later', true, x'00', 0)";
    sqlx::query(later).execute(&mut store).await.unwrap();
    store.close().await.unwrap();
    let (code, said) = ran(&gateway, &["serve"]);
    assert_eq!(code, Some(2));
    assert!(said.contains("has version 99") && said.contains("newer program"), "{said}");
    assert!(ran(&gateway, &["store", "status"]).1.contains("version 99 of 7"));
}

#[tokio::test]
async fn an_older_store_is_upgraded_without_being_served_and_the_record_says_by_whom() {
    let (_issuer, _upstream, mut gateway) = start().await;
    let (code, said) = ran(&gateway, &["store", "upgrade"]);
    assert!(code == Some(2) && said.contains("in use by process"), "{said}");
    assert!(gateway.stop().await.success());
    let (code, said) = ran(&gateway, &["store", "upgrade"]);
    assert_eq!((code, said.as_str()), (Some(0), "the store is at version 7 already\n"));
    let file = gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    for older in ["DROP TABLE changes", "DELETE FROM _sqlx_migrations WHERE version = 7"] {
        sqlx::query(older).execute(&mut store).await.unwrap();
    }
    store.close().await.unwrap();
    assert!(ran(&gateway, &["store", "status"]).1.starts_with("version 6 of 7; the next start upgrades it"));
    let (code, said) = ran(&gateway, &["store", "upgrade"]);
    assert!(code == Some(0) && said.contains("version 6 to 7; what it was is in "), "{said}");
    assert!(gateway.state().join("store.version-6.sqlite").is_file());
    let told = on_the_machine(&gateway, "store-upgrade");
    assert!(told.len() == 1 && told[0]["about"] == "version 6 to 7", "{told:?}");
    gateway.launch().await;
    assert!(ran(&gateway, &["store", "status"]).1.starts_with("version 7 of 7\n"));
}

#[tokio::test]
async fn a_row_that_cannot_be_read_keeps_no_revocation_from_being_in_force() {
    let (issuer, _upstream, gateway) = start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 200);
    let file = gateway.state().join("store.sqlite");
    let mut store = sqlx::SqliteConnection::connect(file.to_str().unwrap()).await.unwrap();
    let spoilt =
        "INSERT INTO shelf (section, key, version, owner, body, number) VALUES ('stopped', 'bot', 1, '', 'x', 0)";
    sqlx::query(spoilt).execute(&mut store).await.unwrap();
    let (code, said) = ran(&gateway, &["revoke", "subject", "user:test/alice"]);
    assert_eq!(code, Some(0), "{said}");
    assert_eq!(alice.call_tool("tools__echo", json!({})).await.status, 401);
    assert_eq!(gateway.records("revocation").len(), 1);
    assert!(gateway.log().contains("which agents are stopped cannot be read"), "{}", gateway.log());
    // It is looked at again by itself.
    sqlx::query("DELETE FROM shelf WHERE key = 'bot'").execute(&mut store).await.unwrap();
    store.close().await.unwrap();
    assert_eq!(ran(&gateway, &["agents", "list"]).0, Some(0));
}
