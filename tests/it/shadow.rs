//! The next policies are tried out on real calls, and change none of them.

use bailiwick::control::client::request;
use bailiwick::limit;
use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

const DENY: &str = "p, anyone, *, tools/one, call, -, deny\n";

async fn start() -> (Issuer, Scripted, Gateway) {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("one"), tool("two")]), |request| result(request, text("done"))).await;
    let rules = format!("{DEVELOPERS_MAY}{}", DENY.replace("tools/one", "tools/two"));
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rules).start().await;
    (issuer, upstream, gateway)
}

fn write_next(gateway: &Gateway, rules: &str) -> Value {
    let policies = gateway.state().with_file_name("policies");
    let next = gateway.state().with_file_name("policies.next");
    std::fs::create_dir_all(&next).unwrap();
    for name in ["model.conf", "agents.toml"] {
        std::fs::copy(policies.join(name), next.join(name)).unwrap();
    }
    std::fs::write(next.join("policy.csv"), rules).unwrap();
    let output = gateway.command(&["reload", "--json"]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).unwrap()
}

fn shadow(gateway: &Gateway) -> Value {
    serde_json::from_slice(&gateway.command(&["shadow", "--json"]).stdout).unwrap()
}

async fn metrics(gateway: &Gateway) -> String {
    let answer = request::<()>(&gateway.state(), http::Method::GET, "/metrics", None).await.unwrap();
    String::from_utf8(answer.body.to_vec()).unwrap()
}

#[tokio::test]
async fn what_the_next_policies_would_change_is_counted_and_changes_no_answer() {
    let (issuer, upstream, gateway) = start().await;
    let client = |name: &str| gateway.client(&issuer.token(name, &["developers"], &gateway.resource()));
    let (alice, bob) = (client("alice"), client("bob"));
    assert_eq!(shadow(&gateway)["next"], Value::Null);
    write_next(&gateway, &format!("{DEVELOPERS_MAY}{DENY}"));
    for client in [&alice, &alice, &bob] {
        assert_eq!(client.call_tool("tools__one", json!({})).await.tool_text(), "done", "allowed as before");
    }
    assert_eq!(alice.call_tool("tools__two", json!({})).await.error_code(), -32602, "refused as before");
    assert_eq!(alice.tool_names().await, ["tools__one"]);
    eventually("every decision under both", async || shadow(&gateway)["evaluated"] == 4).await;
    let report = shadow(&gateway);
    let row = |change: &str| {
        let rows = report["differences"].as_array().unwrap();
        rows.iter().find(|row| row["change"] == change).unwrap_or_else(|| panic!("{report}")).clone()
    };
    let refused = row("newly_refused");
    assert_eq!(
        (&refused["object"], &refused["count"], &refused["reason"]),
        (&json!("tools/one"), &json!(3), &json!("denied_by_rule"))
    );
    assert_eq!(
        refused["who"],
        json!({ "user:test/alice with agent:assistant": 2, "user:test/bob with agent:assistant": 1 })
    );
    let allowed = row("newly_allowed");
    assert_eq!((&allowed["object"], &allowed["count"]), (&json!("tools/two"), &json!(1)));
    let text = metrics(&gateway).await;
    assert!(text.contains("bailiwick_shadow_differences_total{change=\"newly_refused\"} 3"), "{text}");
    let told = gateway.log().matches("policies.next would decide otherwise").count();
    assert_eq!(told, 2, "once for each difference, not for each call");
    assert_eq!(upstream.calls().len(), 3);
    let said = String::from_utf8(gateway.command(&["shadow"]).stdout).unwrap();
    assert!(said.contains("newly refused       3  call tools/one"), "{said}");

    // Put in force, they are what was announced.
    gateway.write_policy(&format!("{DEVELOPERS_MAY}{DENY}"));
    let output = gateway.command(&["reload", "--allow-widening", "--json"]);
    let loaded: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(loaded["to"], report["next"]);
    assert_eq!(shadow(&gateway)["evaluated"], 0, "another pair");
    std::fs::remove_dir_all(gateway.state().with_file_name("policies.next")).unwrap();
    assert!(gateway.command(&["reload"]).status.success());
    assert_eq!(alice.call_tool("tools__two", json!({})).await.tool_text(), "done");
    assert_eq!((&shadow(&gateway)["next"], &shadow(&gateway)["evaluated"]), (&Value::Null, &json!(0)));
}

#[tokio::test]
async fn a_grant_that_a_review_has_ended_is_ended_in_the_next_policies_too() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("one"), tool("two")]), |request| result(request, text("done"))).await;
    let each = "p, role:developer, *, tools/one, call, -, allow\np, role:developer, *, tools/two, call, -, allow";
    let rules = DEVELOPERS_MAY.replace("p, role:developer, *, */*, call, -, allow", each);
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rules).start().await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    write_next(&gateway, &rules);
    let answered = |words: &[&str]| -> Value {
        let output = gateway.command(&[words, &["--json", "--config", "servers.toml"]].concat());
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap()
    };
    let review = answered(&["review", "open"])["id"].as_str().unwrap().to_owned();
    let report = answered(&["review", "show", &review]);
    let grants = report["grants"].as_array().unwrap();
    let one = grants.iter().find(|reviewed| reviewed["grant"]["object"] == "tools/one").unwrap();
    answered(&["review", "end", &review, one["grant"]["id"].as_str().unwrap()]);
    // As it was read before the review, and as it is read afterwards.
    for reads in [false, true] {
        if reads {
            write_next(&gateway, &rules);
        }
        let before = shadow(&gateway)["evaluated"].as_u64().unwrap();
        assert_eq!(alice.call_tool("tools__one", json!({})).await.error_code(), -32602, "it has ended");
        eventually("the decision", async || shadow(&gateway)["evaluated"].as_u64().unwrap() > before).await;
        assert_eq!(shadow(&gateway)["differences"], json!([]), "{reads}");
    }
}

#[tokio::test]
async fn a_mistake_in_the_next_policies_is_told_and_keeps_no_reload_back() {
    let (issuer, _upstream, gateway) = start().await;
    let report = write_next(&gateway, "p, nobody\n");
    assert!(report["warnings"][0].as_str().unwrap().contains("policies.next/policy.csv"), "{report}");
    assert!(shadow(&gateway)["problem"].as_str().unwrap().contains("not evaluated"));
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.tool_names().await, ["tools__one"]);
}

#[tokio::test]
async fn arguments_that_are_too_long_to_keep_are_counted_and_not_evaluated() {
    let (issuer, _upstream, gateway) = start().await;
    write_next(&gateway, DEVELOPERS_MAY);
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let long = "x".repeat(limit::SHADOW_ARGUMENTS_BYTES_MAX);
    assert_eq!(client.call_tool("tools__one", json!({ "long": long })).await.tool_text(), "done");
    assert_eq!(client.call_tool("tools__one", json!({})).await.tool_text(), "done");
    eventually("the other decision", async || shadow(&gateway)["evaluated"] == 1).await;
    assert_eq!(shadow(&gateway)["not_evaluated"], 1);
    assert!(metrics(&gateway).await.contains("bailiwick_shadow_dropped_total 1"));
}
