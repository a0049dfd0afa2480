//! A store that replicas have in common, and what they need with it.

use super::*;

/// The smallest file with these lines in `[gateway]`, and these behind everything.
fn with_store(gateway: &str, more: &str) -> String {
    SMALLEST.replace("[issuers.corp]", &format!("{gateway}\n[issuers.corp]")) + more
}

const KEYS: &str = "[keys]\nseal = [\"env:SEAL\"]\njournal = [\"env:JOURNAL\"]\ncheckpoint = [\"env:CHECKPOINT\"]\n";

#[test]
fn a_store_on_postgresql_needs_keys_that_all_replicas_have() {
    let store = "store = \"postgres://bailiwick@localhost/bailiwick\"\nstore_password = \"env:PASSWORD\"";
    assert!(config(&with_store(store, KEYS)).gateway.store.is_shared());
    assert!(!config(SMALLEST).gateway.store.is_shared());
    let without = mistakes(&with_store(store, ""));
    for name in ["seal", "journal", "checkpoint"] {
        assert!(without.contains(&format!("write {name} = [\"env:NAME\"]")), "{without}");
    }
    assert!(without.contains("openssl rand -hex 32"), "{without}");
    let one = mistakes(&with_store(store, "[keys]\nseal = [\"env:SEAL\"]\njournal = [\"env:JOURNAL\"]\n"));
    assert_eq!(one.lines().count(), 1, "{one}");
    assert!(one.starts_with("servers.toml:12:") && one.contains("checkpoint"), "{one}");
}

#[test]
fn a_store_that_is_not_understood_is_a_mistake_with_its_place() {
    for (store, what) in [
        ("store = \"postgres://me:hunter2@localhost/b\"", "servers.toml:4:9: a password is never written here"),
        ("store = \"postgres\"", "servers.toml:4:9: write \"sqlite\""),
        ("store_password = \"hunter2\"", "servers.toml:4:18: a secret is never written here"),
        ("store_password = \"env:P\"", "store_password means nothing"),
    ] {
        let message = mistakes(&with_store(store, KEYS));
        assert!(message.contains(what) && !message.contains("hunter2"), "{store}: {message}");
    }
}
