//! What the record tells of calls is asked of the next policies; what it does not tell is said, and not guessed.

use serde_json::{Value, json};

use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

const RULES: &str = "\
g, group:test/developers, role:developer, *
p, role:developer, *, tools/one, call, -, allow
p, role:developer, *, tools/two, call, small, allow
p, anyone, *, tools/three, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
";

/// One asks for what was not read, two for less than before, three and four are for leads.
const NEXT: &str = "\
g, group:test/developers, role:developer, *
p, role:developer, *, tools/one, call, small, allow
p, role:developer, *, tools/two, call, tiny, allow
p, group:test/leads, *, tools/three, call, -, allow
p, group:test/leads, *, tools/four, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
";

const CONDITIONS: &str = "[small]\nargument = \"n\"\nat_most = 5\n[tiny]\nargument = \"n\"\nat_most = 2\n";

fn write_next(gateway: &Gateway) {
    let policies = gateway.state().with_file_name("policies");
    let next = gateway.state().with_file_name("policies.next");
    std::fs::create_dir_all(&next).unwrap();
    for name in ["model.conf", "agents.toml", "conditions.toml"] {
        std::fs::copy(policies.join(name), next.join(name)).unwrap();
    }
    std::fs::write(next.join("policy.csv"), NEXT).unwrap();
}

fn simulated(gateway: &Gateway) -> (Option<i32>, Value) {
    let output = gateway.command(&["policy", "simulate", "--since", "1d", "--json"]);
    let told = serde_json::from_slice(&output.stdout);
    let told = told.unwrap_or_else(|_| panic!("{}", String::from_utf8_lossy(&output.stderr)));
    (output.status.code(), told)
}

#[tokio::test]
async fn recorded_calls_are_asked_of_the_next_policies_and_what_nobody_can_tell_is_counted_with_its_reason() {
    const GROUPS_MAX: usize = bailiwick::limit::RECORD_GROUPS_MAX;
    let issuer = Issuer::start().await;
    let tools = ["one", "two", "three", "four"].map(tool);
    let upstream = Scripted::start(json!(tools), |request| result(request, text("done"))).await;
    let setup = Setup::new(&issuer).policy(RULES).policy_file("conditions.toml", CONDITIONS);
    let gateway = setup.http_server("tools", &upstream.url, "").start().await;
    let missing = gateway.command(&["policy", "simulate"]);
    assert_eq!(missing.status.code(), Some(2), "there are no next policies: {missing:?}");
    write_next(&gateway);
    assert_eq!(simulated(&gateway).0, Some(0), "nothing was called yet");

    let many: Vec<String> = (0..=GROUPS_MAX).map(|n| format!("team-{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let client = |user: &str, groups: &[&str]| gateway.client(&issuer.token(user, groups, &gateway.resource()));
    let alice = client("alice", &["developers"]);
    for (name, n, is_allowed) in [("one", 1, true), ("two", 1, true), ("two", 4, true), ("two", 9, false)] {
        let answer = alice.call_tool(&format!("tools__{name}"), json!({ "n": n })).await;
        assert_eq!(answer.text.contains("done"), is_allowed, "{}", answer.text);
    }
    for (user, groups) in [("bob", &[][..]), ("lea", &["leads"][..]), ("erin", &many[..])] {
        assert!(client(user, groups).call_tool("tools__three", json!({})).await.text.contains("done"), "{user}");
    }
    assert!(!client("lea", &["leads"]).call_tool("tools__four", json!({})).await.text.contains("done"));

    eventually("all of it is on the record", async || simulated(&gateway).1["decisions"] == 8).await;
    let (code, found) = simulated(&gateway);
    assert_eq!(code, Some(1), "something would change");
    let flips = found["changes"].as_array().unwrap();
    let flip = |change: &str, object: &str, subject: &str| {
        let meant = |flip: &&Value| {
            flip["change"] == change && flip["object"] == object && flip["subject"] == format!("user:test/{subject}")
        };
        flips.iter().find(meant).unwrap_or_else(|| panic!("{change} {object} {subject}: {found}"))
    };
    assert_eq!(flips.len(), 3, "{found}");
    assert!(flip("newly_refused", "tools/two", "alice")["would_be"].as_str().unwrap().starts_with("condition_unmet"));
    assert_eq!(flip("newly_refused", "tools/three", "bob")["would_be"], "not_allowed");
    let allowed = flip("newly_allowed", "tools/four", "lea");
    assert_eq!((&allowed["was"], &allowed["count"]), (&json!("not_allowed"), &json!(1)));
    let untold: Vec<(&str, u64)> = found["cannot_tell"]
        .as_array()
        .unwrap()
        .iter()
        .map(|untold| (untold["why"].as_str().unwrap(), untold["count"].as_u64().unwrap()))
        .collect();
    let expected = [
        ("what the condition `small` reads is not on the record", 1),
        ("what the condition `tiny` reads is not on the record", 1),
        ("whether its caller was in group:test/leads is not on the record", 1),
    ];
    assert_eq!(untold, expected, "{found}");
    assert_eq!(found["unchanged"], 2, "what two did with little, and what a lead did: {found}");

    let told = gateway.command(&["policy", "simulate"]);
    let told = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.contains("3 nobody can tell") && told.contains("would be not_allowed"), "{told}");
    assert_eq!(upstream.calls().len(), 6, "nothing was called again");
}
