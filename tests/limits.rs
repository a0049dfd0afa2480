//! Every bound is used, and is named in a test that reaches it or stands here with the reason why none does.
//!
//! A bound that is added needs its test at once; one that gets its test has to leave these lists. They may only
//! grow shorter.

#![expect(clippy::unwrap_used, reason = "a test says what must hold, and fails where it does not")]

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

/// How often, or how long after something, we do something of our own accord: nothing that comes from outside
/// can reach them or grow with them.
const PACE: &[&str] = &[
    "JWKS_REFRESH",
    "JWKS_RETRY_MIN",
    "JWKS_RETRY_MAX",
    "BODY_RESERVED_BYTES_MAX",
    "TLS_RELOAD_INTERVAL",
    "ACCEPT_RETRY_PAUSE",
    "SUBSCRIPTION_CHANGE_PAUSE",
    "SUBSCRIPTION_RETRY_MIN",
    "SUBSCRIPTION_RETRY_MAX",
    "BRIDGE_STREAM_RETRY",
    "JOURNAL_FLUSH_INTERVAL",
    "JOURNAL_IDLE_AFTER",
    "JOURNAL_RETRY_INTERVAL",
    "LEDGER_LOOK_INTERVAL",
    "DISCOVER_TTL_MS",
    "WATCH_RECHECK",
    "WATCH_DEBOUNCE",
    "HOUSEKEEPING_INTERVAL",
    "BREAKER_RETRY_PAUSES",
    "TOOL_CLOSED_TOLD_EVERY",
    "GRANT_USES_LOOK_INTERVAL",
    "GRANT_USE_TOLD_EVERY",
    "SLOT_TRIES_MAX",
    "TASK_CANCEL_TRIES_MAX",
    "CALL_AGAIN_PAUSE",
    "MANDATE_TOLD_WITHIN",
    "MANDATE_USE_RETRY",
    "MANDATES_TOLD_AT_ONCE_MAX",
    "PROCESSES_LOOK_INTERVAL",
    "EXCHANGED_MARGIN",
    "EXCHANGED_UNKNOWN_LIFE",
    "UPSTREAM_KEEPALIVE",
    "DEMO_LINE_POLL",
    "LOGS_POLL_INTERVAL",
    "TASK_LIFE_ASKED",
    "TASKS_LISTED_AT_ONCE_MAX",
    "ADMIN_LOG_KEEPALIVE",
    "LOGIN_PAUSE",
    "CONSOLE_METADATA_AGE_MAX",
    "CONSOLE_METADATA_RETRY",
    "CONSOLE_RENEW_BEFORE",
    "LOGIN_TURN_POLL",
    "DOCTOR_PROGRESS_AFTER",
    "DOCTOR_CLEAR_PAUSE",
    "DOCTOR_CLEAR_TRIES",
    "EXPORT_LOOK_INTERVAL",
    "EXPORT_RETRY_MAX",
    "TRACES_PAUSE",
    "STORE_LOOK_INTERVAL",
    "STORE_LISTEN_RETRY",
    "STORE_ALONE_INTERVAL",
    "STORE_LISTEN_LIFE",
    "RELAY_PING",
    "FEED_POLL_RETRY_MAX",
    "FEED_SPENT_INTERVAL",
    "FEED_SPENT_LIFTED_MAX",
    "SHELF_SWEPT_MAX",
    "VAULT_LEASE_POLL",
    "VAULT_AUTHORITY_AGE_MAX",
    "VAULT_REFUSED_PAUSE",
    "METADATA_RETRY",
    "LINK_LOOK_INTERVAL",
    "LINK_LIST_TTL",
    "APPROVAL_KEPT_FOR",
    "APPROVAL_CONFIRMED_KEPT_FOR",
    "APPROVAL_TASK_BELIEVED_FOR_US",
    "APPROVAL_TASK_KEPT_FOR_US",
    "APPROVAL_TASK_POLL_MS",
    "APPROVAL_TASK_RENEWED_AFTER",
    "WEBHOOK_KEPT_FOR_US",
    "WEBHOOK_LOOK_INTERVAL",
    "WEBHOOK_RETRY_MIN_US",
    "WEBHOOK_RETRY_MAX_US",
    "WEBHOOK_SENT_AT_ONCE_MAX",
    "LABELS_RENEWED_AFTER_MAX",
    "MANDATE_KEPT",
    "STANDING_PROPOSED_FOR_US",
    "STANDING_CALL_KEPT_FOR_US",
    "STANDING_COUNT_KEPT_FOR_US",
    "BREAK_GLASS_ASKED_FOR_US",
    "BREAK_GLASS_KEPT_FOR_US",
    "ACCESS_WISH_KEPT_FOR_US",
    "COUNT_KEPT",
];

/// The size or the idle time of something that is remembered only to be faster: beyond it the same answer is
/// found out again. That what is forgotten changes no answer is tested where it is remembered.
const REMEMBERED: &[&str] = &[
    "TOKEN_CACHE_BYTES_MAX",
    "TOKEN_CACHE_ENTRY_BYTES_MIN",
    "TOKEN_REFUSED_ENTRIES_MAX",
    "TOKEN_REFUSED_LIFE",
    "CLASSES_MAX",
    "CLASS_LOOKUPS_MAX",
    "TABLE_ITEMS_MAX",
    "CONDITION_ANSWERS_MAX",
    "ENFORCERS_IDLE_MAX",
    "PRINCIPAL_SLICES_BYTES_MAX",
    "PRINCIPAL_SLICE_IDLE_MAX",
    "VIEW_ITEMS_CACHED_MAX",
    "VIEW_MEMOS_MAX",
    "CONFLICTS_REMEMBERED_MAX",
    "LIST_BYTES_CACHED_MAX",
    "LIST_CACHED_IDLE",
    "EXCHANGED_BYTES_MAX",
    "EXCHANGED_ENTRY_BYTES_MIN",
    "TOKEN_ENDPOINTS_MAX",
    "STORE_READERS_MAX",
    "OAUTH_IDLE_TIMEOUT",
    "OAUTH_IDLE_CONNECTIONS_MAX",
    "UPSTREAM_IDLE_TIMEOUT",
    "UPSTREAM_IDLE_CONNECTIONS_MAX",
    "VAULT_HELD_MAX",
    "VAULT_AUTHORITIES_MAX",
    "LABELS_REMEMBERED_MAX",
    "MANDATES_REMEMBERED_MAX",
];

/// Of commands and of the demo on loopback: they bound what the person who started them does to themselves.
const OF_ONES_OWN: &[&str] = &[
    "DOCTOR_FILES_MAX",
    "BRIDGE_LINES_MAX",
    "BRIDGE_CONNECT_TIMEOUT",
    "BRIDGE_DRAIN_TIMEOUT",
    "BRIDGE_GOODBYE_TIMEOUT",
    "BRIDGE_LIST_PAGES_MAX",
    "LOGIN_TIMEOUT",
    "USER_NAME_TIMEOUT",
    "REPLICAS_MAX",
    "DEMO_REQUEST_TIMEOUT",
    "DEMO_SESSIONS_MAX",
    "DEMO_REGISTRATION_LIFE",
    "DEMO_PAGE_LIFE",
    "DEMO_CODE_LIFE",
    "DEMO_SESSION_LIFE",
    "DEMO_TOKEN_LIFE_MAX",
    "DEMO_EXCHANGED_LIFE",
    "CONTROL_TIMEOUT",
    "DEMO_LINE_TIMEOUT",
    "DEMO_TOLD_MAX",
    "DEMO_TELL_TIMEOUT",
    "TOOLS_LIST_TIMEOUT",
    "DEMO_OPEN_CALLS_MAX",
    "LOGS_OPEN_CALLS_MAX",
    "LOGS_CANDIDATES_MAX",
    "LOGS_TREE_CALLS_MAX",
    "LOGS_RELATED_MAX",
    "REVOKE_WAIT_MAX",
    "SEAL_KEY_KEPT",
    "BACKUP_DEPTH_MAX",
    "RECONCILE_GAPS_SHOWN_MAX",
    "RECONCILE_WAIT_MAX",
    "PINS_TOLD_MAX",
    "EVIDENCE_ROWS_MAX",
    "MANDATES_LISTED_MAX",
];

/// How many rows fit into a section of the store. Whatever its size, a full section is full in the same way, which the
/// store's own tests reach with a small one.
const SECTIONS: &[&str] = &[
    "LABELS_MAX",
    "LABEL_STORES_MAX",
    "REVIEWS_MAX",
    "ACCESS_WISHES_MAX",
    "REVIEW_GRANTS_MAX",
    "ENDED_GRANTS_MAX",
    "GRANTS_USED_MAX",
    "REPLICAS_TELLING_MAX",
    "MANDATES_MAX",
    "COUNTS_MAX",
    "STOPPED_MAX",
    "SESSION_ROWS_MAX",
    "ATTESTATIONS_MAX",
    "TOOLS_SEEN_MAX",
    "STANDING_MAX",
    "STANDING_COUNTS_MAX",
    "STANDING_CALLS_MAX",
    "BREAK_GLASS_KEPT_MAX",
];

/// The names of all bounds.
fn bounds() -> BTreeSet<String> {
    let files = sources("src/limit").into_iter().chain([PathBuf::from("src/limit.rs")]);
    let text: String = files.map(|file| std::fs::read_to_string(file).unwrap()).collect();
    let names = text.lines().filter_map(|line| line.strip_prefix("pub const ")?.split_once(':'));
    names.map(|(name, _)| name.to_owned()).collect()
}

fn sources(directory: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut directories = vec![PathBuf::from(directory)];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => directories.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
                false => {}
            }
        }
    }
    files
}

/// The part of a file that is tests and the part that is not: a file of tests, or what follows the line that
/// begins them.
fn parts(path: &Path) -> (String, String) {
    let text = std::fs::read_to_string(path).unwrap();
    let shown = path.to_string_lossy();
    let whole = ["/tests/", "/tests.rs", "_tests.rs", "/property.rs", "/mistakes.rs"];
    if shown.starts_with("tests/") || whole.iter().any(|part| shown.contains(part)) {
        return (text, String::new());
    }
    // The module of tests may be visible to others of its room.
    let begins = |(at, _): &(usize, &str)| text[*at..].lines().nth(1).is_some_and(|line| line.ends_with("mod tests {"));
    match text.match_indices("#[cfg(test)]\n").find(begins) {
        Some((at, _)) => (text[at..].to_owned(), text[..at].to_owned()),
        None => (String::new(), text),
    }
}

fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(|character: char| !(character.is_ascii_alphanumeric() || character == '_'))
}

#[test]
fn every_bound_is_used_and_named_in_a_test_or_listed_with_the_reason() {
    let bounds = bounds();
    assert!(bounds.len() > 150, "src/limit.rs was not understood: {bounds:?}");
    let (mut tested, mut used) = (BTreeSet::new(), BTreeSet::new());
    for path in sources("src").into_iter().chain(sources("tests")) {
        if path == Path::new("src/limit.rs") || path.starts_with("src/limit") || path == Path::new("tests/limits.rs") {
            continue;
        }
        let (tests, code) = parts(&path);
        tested.extend(words(&tests).filter(|word| bounds.contains(*word)).map(str::to_owned));
        used.extend(words(&code).filter(|word| bounds.contains(*word)).map(str::to_owned));
    }
    let lists = [PACE, REMEMBERED, OF_ONES_OWN, SECTIONS].concat();
    let listed: BTreeSet<String> = lists.iter().map(|name| (*name).to_owned()).collect();
    assert_eq!(listed.len(), lists.len(), "a bound is listed twice");
    let none = Vec::<&String>::new();
    assert_eq!(listed.difference(&bounds).collect::<Vec<_>>(), none, "listed here, and no bound");
    assert_eq!(bounds.difference(&used).collect::<Vec<_>>(), none, "bounds that nothing keeps");
    assert_eq!(listed.intersection(&tested).collect::<Vec<_>>(), none, "tested by now: take them off the lists");
    let missing: Vec<_> = bounds.iter().filter(|name| !tested.contains(*name) && !listed.contains(*name)).collect();
    assert_eq!(missing, none, "bounds without a test that names them");
}
