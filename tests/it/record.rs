//! Every call, refusal and failure is on the record, in order, chained, and without secrets.

use serde_json::json;

use crate::support::eventually;
use crate::support::gateway::Setup;
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};

#[tokio::test]
async fn an_allowed_call_has_an_intent_before_and_a_result_after() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    client.call_tool("tools__echo", json!({ "a": 1 })).await;
    eventually("the result record", async || !gateway.records("result").is_empty()).await;
    let (intents, results) = (gateway.records("intent"), gateway.records("result"));
    assert_eq!((intents.len(), results.len()), (1, 1));
    assert_eq!(intents[0]["call"], results[0]["call"]);
    assert_eq!(intents[0]["subject"]["id"], "user:test/alice");
    assert!(intents[0]["seq"].as_u64() < results[0]["seq"].as_u64());
    assert!(intents[0].to_string().contains("policy.csv:"), "the rule that allowed it: {}", intents[0]);
}

#[tokio::test]
async fn the_chain_holds_over_a_restart() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    client.call_tool("tools__echo", json!({})).await;
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    client.call_tool("tools__echo", json!({})).await;
    assert!(gateway.stop().await.success());
    let sequence: Vec<_> = gateway.journal().iter().map(|record| record["seq"].as_u64().unwrap()).collect();
    assert!(sequence.windows(2).all(|pair| pair[1] == pair[0] + 1), "{sequence:?}");
    bailiwick::record::verify(&gateway.state().join("journal")).expect("the chain is whole");
}

#[tokio::test]
async fn a_kill_in_the_middle_leaves_an_unknown_outcome_and_never_a_missing_one() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("slow")]), |_| {
        raw(
            "text/event-stream",
            axum::body::Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>()),
        )
    })
    .await;
    let mut gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let call = tokio::spawn({
        let client = client.clone();
        async move {
            let (headers, body) =
                crate::support::client::modern_request("tools/call", json!({ "name": "tools__slow", "arguments": {} }));
            let _ =
                tokio::time::timeout(std::time::Duration::from_secs(5), client.post(&headers, body.to_string())).await;
        }
    });
    eventually("the call to reach the upstream", async || upstream.calls().len() == 1).await;
    gateway.signal("KILL");
    gateway.wait().await;
    call.abort();
    gateway.launch().await;
    let results = gateway.records("result");
    assert_eq!(results.len(), 1, "{results:?}");
    assert!(results[0].to_string().contains("unknown"), "{}", results[0]);
}

#[tokio::test]
async fn a_client_that_leaves_is_recorded_too() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("slow")]), |_| {
        raw(
            "text/event-stream",
            axum::body::Body::from_stream(futures_util::stream::pending::<Result<String, std::io::Error>>()),
        )
    })
    .await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let call = tokio::spawn(async move { client.call_tool("tools__slow", json!({})).await });
    eventually("the call to reach the upstream", async || upstream.calls().len() == 1).await;
    call.abort();
    eventually("a result record", async || gateway.records("result").len() == 1).await;
}

#[tokio::test]
async fn refusals_are_recorded_with_their_reason_and_rule() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let rules = format!("{}p, anyone, *, tools/echo, call, -, deny\n", crate::support::gateway::DEVELOPERS_MAY);
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rules).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    client.call_tool("tools__echo", json!({})).await;
    eventually("the refusal record", async || !gateway.records("refusal").is_empty()).await;
    let refusal = &gateway.records("refusal")[0];
    assert_eq!(refusal["decision"]["reason"], "denied_by_rule", "the record knows why, the client does not: {refusal}");
    assert!(refusal.to_string().contains("policy.csv:8"), "{refusal}");
    assert!(upstream.calls().is_empty());
}

#[tokio::test]
async fn no_canary_secret_is_ever_written() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("t")]), |call| result(call, text("canary-result-7f3a"))).await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    gateway.client(&token).call_tool("tools__t", json!({ "password": "canary-argument-91bc" })).await;
    gateway.client("canary-token-55aa").call_tool("tools__t", json!({})).await;
    eventually("the result record", async || !gateway.records("result").is_empty()).await;
    let journal = gateway.journal().iter().map(ToString::to_string).collect::<String>();
    for text in [journal, gateway.log()] {
        for canary in ["canary-result-7f3a", "canary-argument-91bc", "canary-token-55aa", token.as_str()] {
            assert!(!text.contains(canary), "{canary} was written");
        }
    }
}

#[tokio::test]
async fn a_journal_that_cannot_be_written_refuses_and_recovers_by_itself() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    assert_eq!(client.call_tool("tools__echo", json!({})).await.status, 200);
    // A line that fails later would refuse the next call before its own intent is tried.
    eventually("all of it on the record", async || gateway.records("result").len() == 1).await;
    // What a full disk looks like to a process: no file may grow.
    let limit = |bytes: &str| {
        let process = gateway.process_id().to_string();
        let status =
            std::process::Command::new("prlimit").args([&format!("--fsize={bytes}"), "--pid", &process]).status();
        assert!(status.unwrap().success());
    };
    limit("1:unlimited");
    let answer = client.call_tool("tools__echo", json!({})).await;
    assert_eq!(answer.status, 503, "{}", answer.text);
    assert!(answer.text.contains("record_unavailable"), "{}", answer.text);
    assert_eq!(upstream.calls().len(), 1, "nothing is forwarded without its intent");
    // Lists and refusals are recorded without waiting for the disk, and so they are answered without it.
    assert_eq!(client.tool_names().await, ["tools__echo"]);
    assert!(client.call_tool("tools__absent", json!({})).await.text.contains("Unknown tool"));
    limit("unlimited:unlimited");
    eventually("recovery", async || client.call_tool("tools__echo", json!({})).await.status == 200).await;
}

#[tokio::test]
async fn what_a_condition_reads_is_recorded_but_for_what_the_tool_or_the_configuration_calls_a_secret() {
    let issuer = Issuer::start().await;
    let mut login = tool("login");
    login["inputSchema"] = json!({ "type": "object", "properties": {
        "pin": { "type": "string", "format": "password" },
        "account": { "type": "object", "properties": { "word": { "writeOnly": true } } },
    } });
    let upstream = Scripted::start(json!([login]), |call| result(call, text("done"))).await;
    let conditions = "[known]\nall = [{ argument = \"pin\", length_at_most = 9 }, { argument = \"amount\", at_most = 9 }, \
                      { argument = \"account.word\", length_at_most = 9 }, { argument = \"note\", present = true }, \
                      { argument = \"card.number\", length_at_most = 9 }, { argument = \"cards\", present = true }]\n";
    let rules = crate::support::gateway::DEVELOPERS_MAY
        .replace("p, role:developer, *, */*, call, -, allow", "p, role:developer, *, */*, call, known, allow");
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "").policy(&rules);
    let record = "redact = [\"tools/login:card\", \"nowhere/login:card\", \"*/other:amount\"]\nsinks = [\"file:kept\"]\n\
                  checkpoint_interval = \"100ms\"\n[export.siem]\nformat = \"ocsf\"\nto = \"file:events\"\n";
    let gateway = setup.record(record).policy_file("conditions.toml", conditions).start().await;
    assert!(gateway.log().contains("there is no server `nowhere`"), "{}", gateway.log());
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let arguments = json!({ "pin": "hush-1", "account": { "word": "hush-2" }, "amount": 1.50, "note": "hush-3",
        "card": { "number": "hush-4" }, "cards": [] });
    assert_eq!(client.call_tool("tools__login", arguments).await.tool_text(), "done");
    let intent = gateway.records("intent").remove(0);
    let expected = json!({
        "pin": "[6 characters hidden]", "account.word": "[6 characters hidden]", "amount": 1.5, "note": "present",
        "card.number": "[redacted]", "cards": "present",
    });
    assert_eq!(intent["arguments"]["values"], expected);
    assert!(!json!(gateway.journal()).to_string().contains("hush"), "not anywhere else");
    let sent = |name: &str| std::fs::read_to_string(gateway.directory().join(name)).unwrap_or_default();
    eventually("the call at its export and its sink", async || {
        sent("events").contains("login") && !sent("kept").is_empty()
    })
    .await;
    assert!(!sent("events").contains("hush"), "{}", sent("events"));
    assert!(!sent("kept").contains("hush"));
}

#[tokio::test]
async fn what_is_left_out_of_the_arguments_is_not_in_what_their_client_declares_either() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("login"), tool("other")]), |call| result(call, text("done"))).await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let gateway = setup.record("redact = [\"tools/login:card\"]\n").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let long = "long-4711 ".repeat(150_000);
    let call = async |name: &str, mandate: Option<&str>| {
        let intent = json!({ "task": "pay with hush-4", "purpose": long[..90], "plan_step": "hush-4",
            "prompt_sha256": "ab".repeat(32) });
        let mut own = json!({ "dev.bailiwick/intent": intent });
        if let Some(mandate) = mandate {
            own["dev.bailiwick/mandate"] = json!(mandate);
        }
        let arguments = json!({ "card": { "number": "hush-4", "note": long }, "amount": 1 });
        client.modern("tools/call", json!({ "name": name, "arguments": arguments, "_meta": own })).await
    };
    let clean = json!({ "task": "pay with [redacted]", "purpose": "[redacted]", "plan_step": "[redacted]",
        "prompt_sha256": "ab".repeat(32) });
    assert_eq!(call("tools__login", None).await.tool_text(), "done");
    let said = |kind: &str, name: &str| {
        let lines = gateway.records(kind).into_iter();
        lines.filter(|line| line["mcp"]["name"] == name).map(|line| line["declared"].clone()).collect::<Vec<_>>()
    };
    assert_eq!(said("intent", "login"), std::slice::from_ref(&clean));
    // Nobody has named anything of this one.
    assert_eq!(call("tools__other", None).await.tool_text(), "done");
    assert_eq!(said("intent", "other")[0]["task"], "pay with hush-4");
    // Refused before anybody knows which tool it is.
    let refused = call("tools__other", Some("AAAA")).await;
    assert!(refused.text.contains("mandate_unknown"), "{}", refused.text);
    eventually("what a refused call declared", async || said("refusal", "tools__other") == [clean.clone()]).await;
}
