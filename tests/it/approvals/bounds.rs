//! What is kept of requests, and for whom there is room.

use super::*;
use crate::input::{call, retry};
use bailiwick::limit;

const CONFIRM: &str = "[gates.sure]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\n";

async fn listed(running: &Running) -> Vec<Value> {
    let all = running.at("/approvals?state=all", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    all.response().as_array().unwrap_or_else(|| panic!("{}", all.text)).clone()
}

#[tokio::test]
async fn one_caller_fills_nothing_up_with_requests_that_are_over() {
    let running = start(CONFIRM).await;
    let alice = running.caller("alice");
    let form = json!({ "elicitation": { "form": {} } });
    let yes = json!({ "confirm": { "action": "accept", "content": { "confirm": true } } });
    let most = limit::APPROVALS_OVER_PER_PRINCIPAL_MAX;
    for number in 0..most + limit::APPROVALS_REMOVED_AT_ONCE_MAX {
        let arguments = json!({ "n": number });
        let asked = call(&alice, &form, json!({ "name": "tools__echo", "arguments": arguments })).await;
        let done = call(&alice, &form, retry("tools__echo", &arguments, &asked, yes.clone())).await;
        assert!(done.result()["isError"] != true, "{}", done.text);
    }
    let all = listed(&running).await;
    assert_eq!(all.len(), most, "the newest are kept");
    assert!(all.iter().all(|view| view["only_confirmed"] == true), "{:?}", all.first());
    // They do not hide how many wait.
    for number in 0..limit::APPROVALS_PENDING_PER_PRINCIPAL_MAX {
        let asked = call(&alice, &form, json!({ "name": "tools__echo", "arguments": { "w": number } })).await;
        assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    }
    let more = call(&alice, &form, json!({ "name": "tools__echo", "arguments": { "w": "more" } })).await;
    assert_eq!(reason(&more), "approvals_limited", "{}", more.text);
}

#[tokio::test]
async fn what_only_its_caller_can_confirm_waits_for_nobody_else() {
    let running = start(CONFIRM).await;
    let form = json!({ "elicitation": { "form": {} } });
    call(&running.caller("alice"), &form, json!({ "name": "tools__echo", "arguments": { "n": 1 } })).await;
    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(waiting.response(), &json!([]), "{}", waiting.text);
    assert_eq!(listed(&running).await.len(), 1);
}

#[tokio::test]
async fn an_approver_of_many_groups_approves_a_call_that_is_long() {
    let running = start(GATES).await;
    // Each quotation mark is four bytes where it is kept, and two where it is shown.
    let long = json!({ "all": vec!["\"".repeat(1_900); 7] });
    let id = running.asks("alice", long.clone()).await;
    let name = |number: usize| format!("a-group-with-a-rather-long-name-of-its-own-{number:04}");
    let groups: Vec<String> = (0..200).map(name).collect();
    let mut groups: Vec<&str> = groups.iter().map(String::as_str).collect();
    groups.push("approvers");
    let approved = running.approve(&id, &running.person("bob", &groups)).await;
    assert_eq!(approved.status, 200, "{}", approved.text);
    assert!(running.call("alice", long).await.result()["isError"] != true);
    // What leaves no room for the decisions of persons is not asked for.
    let larger = json!({ "all": vec!["\"".repeat(1_975); 8] });
    let (shown, kept) = (larger.to_string().len(), 2 * larger.to_string().len());
    assert!(shown < limit::APPROVAL_PREVIEW_BYTES_MAX && kept < limit::SHELF_BODY_BYTES_MAX, "{shown} {kept}");
    assert!(kept + limit::APPROVAL_DECISION_BYTES_MAX > limit::SHELF_BODY_BYTES_MAX - 1_000, "{kept}");
    let refused = running.call("alice", larger).await;
    assert_eq!(reason(&refused), "arguments_unfit");
    assert!(refused.tool_text().contains("until everybody has approved"), "{}", refused.text);
}

#[tokio::test]
async fn a_credential_is_used_no_longer_than_the_approval_that_the_call_has() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let sts = crate::support::sts::Sts::start(crate::support::sts::Revocation::Has).await;
    let credential = format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", audience = \"https://paid.example\" }}\n\
         pins = \"off\"",
        sts.url
    );
    let gates = GATES.replace("tools/echo", "paid/echo") + "approved_for = \"40s\"\n";
    let gateway = setup(&issuer, &upstream, &gates).http_server("paid", &upstream.url, &credential).start().await;
    let running = Running { issuer, upstream, gateway };
    let call = async |name: &str| running.caller("alice").call_tool(name, json!({ "n": 1 })).await;
    assert_eq!(call("paid__look").await.status, 200);
    let id = waits(&call("paid__echo").await);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let approved_until = jiff::Timestamp::now().as_second() + 40;
    assert_eq!(call("paid__echo").await.tool_text(), "{\"n\":1}");
    let intents = running.gateway.records("intent");
    let ends = |name: &str| {
        let own = intents.iter().rfind(|intent| intent["mcp"]["name"] == name).unwrap();
        let credential = &own["credential"];
        (credential["used_until"].as_i64().unwrap(), credential["expires_at"].as_i64().unwrap())
    };
    let (free, gated) = (ends("look"), ends("echo"));
    assert!(gated.0 <= approved_until + 1 && gated.0 < gated.1, "{gated:?} {approved_until}");
    assert!(free.0 > approved_until + 60, "nobody approved that one: {free:?}");
}
