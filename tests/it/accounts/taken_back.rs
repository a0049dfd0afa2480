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
