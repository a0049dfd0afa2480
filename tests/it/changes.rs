//! Changed lists: whoever sees the list hears of it, from every kind of upstream, and nobody else does.

use std::time::Duration;

use serde_json::{Value, json};

use crate::support::talkative::{RULES, Talkative, UPSTREAMS};

const QUIET: Duration = Duration::from_secs(1);
/// A changed list is fetched before anybody is told of it.
const SOON: Duration = Duration::from_secs(20);

fn wishes() -> Value {
    json!({ "toolsListChanged": true, "promptsListChanged": true, "resourcesListChanged": true })
}

/// Looks at every list, so that there is something to compare with.
async fn look(test: &Talkative, token: &str) {
    for method in ["tools/list", "prompts/list", "resources/list"] {
        test.gateway.client(token).modern(method, json!({})).await;
    }
}

#[tokio::test]
async fn a_list_that_an_upstream_changes_is_heard_of_in_both_eras() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        // With a process for each caller, what one of them changes is its own: the gateway lists another one.
        let test = Talkative::with(upstream, &[], "isolation = \"shared\"").await;
        look(&test, &test.token).await;
        let mut modern = test.listen(&test.token, wishes()).await;
        modern.next().await;
        let (_, mut legacy) = test.session(&test.token).await;
        // The gateway's own listening has begun by now, or begins: a gap counts as a change.
        tokio::time::sleep(QUIET).await;
        for kind in ["tools", "prompts", "resources"] {
            test.tool("grow", json!({ "kind": kind })).await;
            let method = format!("notifications/{kind}/list_changed");
            for stream in [&mut modern, &mut legacy] {
                let told = stream.next_within(SOON).await.unwrap_or_else(|| panic!("{upstream:?}: no {method}"));
                assert_eq!(told["method"], *method, "{upstream:?}: {told}");
            }
        }
    }
}

#[tokio::test]
async fn a_list_that_is_a_callers_own_is_listened_to_for_them() {
    crate::needs_python!();
    for upstream in UPSTREAMS {
        let test = Talkative::with(upstream, &[], "list_as = \"caller\"").await;
        let bob = test.issuer.token("bob", &["developers"], &test.gateway.resource());
        for token in [&test.token, &bob] {
            look(&test, token).await;
        }
        let mut modern = test.listen(&test.token, wishes()).await;
        modern.next().await;
        let (_, mut legacy) = test.session(&test.token).await;
        let mut other = test.listen(&bob, wishes()).await;
        other.next().await;
        tokio::time::sleep(QUIET).await;
        for kind in ["tools", "prompts", "resources"] {
            test.tool("grow", json!({ "kind": kind })).await;
            let method = format!("notifications/{kind}/list_changed");
            for stream in [&mut modern, &mut legacy] {
                let told = stream.next_within(SOON).await.unwrap_or_else(|| panic!("{upstream:?}: no {method}"));
                assert_eq!(told["method"], *method, "{upstream:?}: {told}");
            }
        }
        if upstream.1 == "stdio" {
            assert_eq!(other.next_within(QUIET).await, None::<Value>, "{upstream:?}: it was another process");
        } else {
            assert!(other.next_within(SOON).await.is_some(), "{upstream:?}: the server changed it for everybody");
        }
    }
}

#[tokio::test]
async fn a_listen_hears_of_the_kinds_only_that_it_asked_for() {
    crate::needs_python!();
    let test = Talkative::start(("modern", "http")).await;
    look(&test, &test.token).await;
    let mut stream = test.listen(&test.token, json!({ "promptsListChanged": true })).await;
    let honoured = json!({ "promptsListChanged": true });
    assert_eq!(stream.next().await["params"]["notifications"], honoured);
    tokio::time::sleep(QUIET).await;
    test.tool("grow", json!({ "kind": "tools" })).await;
    test.tool("grow", json!({ "kind": "prompts" })).await;
    let told = stream.next_within(SOON).await.expect("the change of prompts");
    assert_eq!(told["method"], "notifications/prompts/list_changed");
}

#[tokio::test]
async fn a_policy_change_is_heard_of_by_whose_prompts_and_resources_it_changes() {
    crate::needs_python!();
    const TESTERS: &str = "g, group:test/testers, role:tester, *\np, role:tester, *, up/first, get, -, allow\n";
    let test = Talkative::start(("modern", "http")).await;
    test.gateway.write_policy(&format!("{RULES}{TESTERS}"));
    assert!(test.gateway.command(&["reload", "--allow-widening"]).status.success());
    let tester = test.issuer.token("tina", &["testers"], &test.gateway.resource());
    let mut heard = test.listen(&test.token, wishes()).await;
    let mut unmoved = test.listen(&tester, wishes()).await;
    heard.next().await;
    unmoved.next().await;
    for token in [&test.token, &tester] {
        look(&test, token).await;
    }
    let denied = "p, role:developer, *, up/first, get, -, deny\np, role:developer, *, up/test://a, read, -, deny\n";
    test.gateway.write_policy(&format!("{RULES}{TESTERS}{denied}"));
    assert!(test.gateway.command(&["reload"]).status.success());
    let mut methods = [heard.next().await, heard.next().await].map(|told| told["method"].clone());
    methods.sort_by_key(ToString::to_string);
    assert_eq!(methods, ["notifications/prompts/list_changed", "notifications/resources/list_changed"]);
    assert_eq!(heard.next_within(QUIET).await, None::<Value>, "tools have not changed");
    assert_eq!(unmoved.next_within(QUIET).await, None::<Value>);
}
