//! Taking accounts back: by the administrator, by their owner, with a revocation, and at the service itself.

use super::*;

fn listed(running: &Running) -> Vec<Value> {
    let listed = running.gateway.command(&["vault", "list", "--json"]);
    assert!(listed.status.success(), "{listed:?}");
    let listed: Value = serde_json::from_slice(&listed.stdout).unwrap();
    listed["accounts"].as_array().unwrap().clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_account_that_is_taken_back_is_used_by_nobody_and_given_back_to_the_service() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let all = listed(&running);
    assert_eq!(all.len(), 1, "{all:?}");
    assert_eq!((&all[0]["owner"], &all[0]["server"]), (&json!("user:test/ann"), &json!("notes")));
    assert_eq!((&all[0]["account"], &all[0]["usable"]), (&json!("ann@service"), &json!(true)), "{all:?}");
    assert!(!all[0].to_string().contains(CANARY));
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes", "--json"]);
    assert!(removed.status.success(), "{removed:?}");
    let removed: Value = serde_json::from_slice(&removed.stdout).unwrap();
    assert_eq!(removed["upstream"], "revoked", "{removed}");
    let given_back = running.service.state().revoked.clone();
    assert!(given_back.len() == 1 && given_back[0].starts_with("rt-"), "{given_back:?}");
    assert_eq!(reason(&running.whoami("ann").await), "account_link_required");
    assert!(listed(&running).is_empty());
    let none = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(!none.status.success(), "there is none any more");
    let admin = running.gateway.records("admin").into_iter().map(|line| line["admin"].clone());
    let told: Vec<Value> = admin.filter(|admin| admin["operation"] == "unlink").collect();
    assert!(told[0]["about"].as_str().unwrap().contains("user:test/ann"), "{told:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_is_revoked_loses_their_accounts_and_nobody_else_does() {
    let running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/ann"]);
    assert!(revoked.status.success(), "{revoked:?}");
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
    assert_eq!(running.whoami("bob").await.tool_text(), "ann@service");
    let revoked = running.gateway.command(&["revoke", "server", "notes"]);
    assert!(revoked.status.success(), "{revoked:?}");
    assert!(listed(&running).is_empty());
    assert_eq!(running.service.state().revoked.len(), 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_of_before_brings_no_account_back() {
    let mut running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    let place = running.gateway.state();
    let kept = place.with_file_name("kept");
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    assert!(running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]).status.success());
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(kept.join("store.sqlite"), place.join("store.sqlite")).unwrap();
    let refused = running.gateway.command(&["serve"]);
    assert_eq!(refused.status.code(), Some(2), "{refused:?}");
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_has_left_leaves_no_account_behind() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let feed =
        "[feeds.hr]\nissuer = \"test\"\n[feeds.hr.scim]\nsecret = \"file:feed-secret\"\nsubject = \"userName\"\n";
    let setup = setup(&issuer, &service).sections(feed);
    std::fs::write(setup.directory().join("feed-secret"), "a secret of the directory's own").unwrap();
    let running = Running { issuer, service, gateway: setup.start().await };
    running.linked("ann").await;
    running.linked("bob").await;
    let ann = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, "ann");
    let user = Client::new(&format!("{}/feeds/hr/scim/v2/Users/{ann}", running.gateway.url), None);
    let secret = ("authorization", "Bearer a secret of the directory's own".to_owned());
    assert_eq!(user.bare(reqwest::Method::DELETE, &[secret]).await.status, 204);
    let left: Vec<Value> = listed(&running).iter().map(|account| account["owner"].clone()).collect();
    assert_eq!(left, [json!("user:test/bob")]);
    let service = &running.service;
    eventually("the service to be told", async || service.state().revoked.len() == 1).await;
    let admin = running.gateway.records("admin").into_iter().map(|line| line["admin"].clone());
    let told: Vec<Value> = admin.filter(|admin| admin["operation"] == "unlink_account").collect();
    assert_eq!((told.len(), &told[0]["actor"]), (1, &json!("feed:hr")), "{told:?}");
    assert!(told[0]["about"].as_str().unwrap().contains("user:test/ann"), "{told:?}");
}
