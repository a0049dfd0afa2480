//! What several replicas have on their records, asked for at one of them: all of it, or said who is missing.

use std::net::SocketAddr;
use std::process::Command;

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;
use crate::support::scripted::{Scripted, result, text, tool};

const RULES: &str = "\
p, anyone, *, tools/*, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
p, agent:bot, *, tools/*, call, -, allow
p, user:test/bot, *, bailiwick/mandate:*, admin, -, allow
p, agent:bot, *, bailiwick/mandate:*, admin, -, allow
";

const AGENTS: &str = "\
[agents.assistant]
owner = \"user:test/owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
[agents.bot]
owner = \"user:test/owner\"
purpose = \"works\"
kind = \"autonomous\"
mandates = \"optional\"
environments = [\"development\"]
clients = [{ issuer = \"test\", client_id = \"bot\", proof = \"private_key\" }]
";

const TEMPLATES: &str = "\
[templates.task]
title = \"anything\"
tools = [\"tools/*\"]
environments = [\"development\"]
agents = [\"bot\"]
";

struct Running {
    issuer: Issuer,
    _upstream: Scripted,
    replicas: Replicas,
}

/// So many replicas, each of which knows the others: it is asked about their records, and has them.
async fn start(count: usize) -> Option<Running> {
    let running = begin(count).await?;
    for gateway in &running.replicas.all {
        eventually("it knows the others", async || {
            let told = answered(gateway, &["policy", "suggest"]);
            told["replicas"].as_array().is_some_and(|all| all.len() == count) && missing(&told).is_empty()
        })
        .await;
    }
    Some(running)
}

async fn begin(count: usize) -> Option<Running> {
    let issuer = Issuer::start().await;
    let tools = ["one", "two", "three"].map(tool);
    let upstream = Scripted::start(json!(tools), |call| result(call, text("done"))).await;
    let setup = Setup::new(&issuer)
        .policy(RULES)
        .policy_file("agents.toml", AGENTS)
        .policy_file("mandates.toml", TEMPLATES)
        .http_server("tools", &upstream.url, "");
    let replicas = Replicas::start(setup, count).await?;
    Some(Running { issuer, _upstream: upstream, replicas })
}

impl Running {
    fn client(&self, number: usize, user: &str) -> Client {
        self.replicas.all[number].client(&self.issuer.token(user, &[], &self.replicas.resource()))
    }

    fn bot(&self, number: usize) -> Client {
        let mut claims = self.issuer.claims("bot", &[], &self.replicas.resource());
        claims["client_id"] = json!("bot");
        self.replicas.all[number].client(&self.issuer.sign(&claims))
    }

    fn name(&self, number: usize) -> String {
        self.replicas.all[number].records("start")[0]["replica"].as_str().unwrap().to_owned()
    }
}

fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.command(arguments);
    assert!(output.status.code().unwrap() < 2, "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn answered(gateway: &Gateway, arguments: &[&str]) -> Value {
    let text = printed(gateway, &[arguments, &["--json"]].concat());
    serde_json::from_str(&text).unwrap_or_else(|_| panic!("{text}"))
}

async fn calls(client: &Client, name: &str) {
    let answer = client.call_tool(&format!("tools__{name}"), json!({})).await;
    assert!(answer.text.contains("done"), "{}", answer.text);
}

/// The problems of replicas whose records are no part of an answer, by their names.
fn missing(answer: &Value) -> Vec<(String, String)> {
    let replicas = answer["replicas"].as_array().unwrap_or_else(|| panic!("{answer}"));
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let silent = replicas.iter().filter(|replica| replica["problem"].is_string());
    silent.map(|replica| (text(&replica["replica"]), text(&replica["problem"]))).collect()
}

#[tokio::test]
async fn what_was_done_at_any_replica_is_in_what_one_of_them_suggests_and_simulates() {
    let Some(running) = start(3).await else { return };
    for (number, name) in ["one", "two", "three"].into_iter().enumerate() {
        calls(&running.client(number, "alice"), name).await;
    }
    calls(&running.client(0, "alice"), "two").await;
    let policies = running.replicas.place().join("policies");
    let next = running.replicas.place().join("policies.next");
    std::fs::create_dir_all(&next).unwrap();
    for entry in std::fs::read_dir(&policies).unwrap().flatten().filter(|entry| entry.path().is_file()) {
        std::fs::copy(entry.path(), next.join(entry.file_name())).unwrap();
    }
    std::fs::write(next.join("policy.csv"), RULES.replace("p, anyone, *, tools/*", "p, anyone, *, tools/one")).unwrap();

    let asked = &running.replicas.all[1];
    let simulated = async || answered(asked, &["policy", "simulate", "--since", "1d"]);
    eventually("all of it is on the records", async || simulated().await["decisions"] == 4).await;
    let found = simulated().await;
    assert_eq!((&found["unchanged"], missing(&found)), (&json!(1), Vec::new()), "{found}");
    let flips: Vec<_> =
        found["changes"].as_array().unwrap().iter().map(|flip| (&flip["object"], &flip["count"])).collect();
    assert_eq!(flips, [(&json!("tools/two"), &json!(2)), (&json!("tools/three"), &json!(1))], "{found}");

    let suggested = answered(asked, &["policy", "suggest"]);
    assert_eq!((suggested["replicas"].as_array().unwrap().len(), missing(&suggested)), (3, Vec::new()));
    let rows = suggested["rows"].to_string();
    for name in ["one", "two", "three"] {
        assert!(rows.contains(&format!("p, user:test/alice, development, tools/{name}, call, -, allow")), "{rows}");
    }
    assert!(printed(asked, &["policy", "suggest"]).contains("# the records of 3 of 3 replicas"));
    // It is on the record of whoever was asked who wanted to know, and where.
    let told = |gateway: &Gateway| {
        let own: Vec<Value> =
            gateway.records("admin").into_iter().filter(|one| one["admin"]["operation"] == "logs").collect();
        own.into_iter().rfind(|one| one["admin"]["about"].as_str().unwrap_or_default().starts_with("suggest since"))
    };
    let here = told(asked).unwrap();
    let there = told(&running.replicas.all[2]).unwrap();
    assert_eq!(there["admin"]["actor"], here["admin"]["actor"]);
    assert!(there["admin"]["about"].as_str().unwrap().ends_with(&format!("asked at replica {}", running.name(1))));
}

#[tokio::test]
async fn a_call_at_one_replica_under_a_mandate_of_another_is_one_tree_at_a_third() {
    let Some(mut running) = start(3).await else { return };
    let wish = json!({ "template": "task", "purpose": "close the books" });
    let params = json!({ "name": "bailiwick__mandate_open", "arguments": wish });
    let opened = running.bot(0).modern("tools/call", params).await;
    let mandate = &opened.result()["structuredContent"];
    let (handle, id) = (mandate["handle"].as_str().unwrap(), mandate["id"].as_str().unwrap().to_owned());
    let under = json!({ "name": "tools__one", "arguments": {}, "_meta": { "dev.bailiwick/mandate": handle } });
    let answer = running.bot(1).modern("tools/call", under).await;
    assert!(answer.text.contains("done"), "{}", answer.text);
    let ended = || {
        running.replicas.all[1].records("result").into_iter().find(|record| record["result"]["outcome"] == "complete")
    };
    eventually("the call is on its record", async || ended().is_some()).await;
    let call = ended().unwrap()["call"].as_str().unwrap().to_owned();
    let [first, second] = [running.name(0), running.name(1)];

    let shown = printed(&running.replicas.all[2], &["logs", "show", &call]);
    assert!(shown.starts_with(&format!("call       {call} tools/call tools/one")), "{shown}");
    for line in
        [format!("opened by user:test/bot at replica {first}"), format!("at replica {second}"), "complete".to_owned()]
    {
        assert!(shown.contains(&line), "{line} is missing in {shown}");
    }
    let records = printed(&running.replicas.all[2], &["logs", "show", &call[18..], "--json"]);
    let told: Vec<(String, String)> = records
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|record| (record["replica"].as_str().unwrap().to_owned(), record["type"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [(&first, "mandate"), (&second, "intent"), (&second, "result")];
    assert_eq!(told, expected.map(|(replica, kind)| (replica.clone(), kind.to_owned())), "{records}");
    // From the mandate down, asked for where only the call is.
    let shown = printed(&running.replicas.all[1], &["logs", "show", &id]);
    assert!(shown.contains("close the books") && shown.contains(&call), "{shown}");

    // What is not heard is said, in words and for programs.
    running.replicas.all[1].stop().await;
    let shown = printed(&running.replicas.all[2], &["logs", "show", &id]);
    assert!(shown.contains("close the books") && !shown.contains(&call), "{shown}");
    assert!(shown.contains(&format!("without the record of replica {second}: it does not run")), "{shown}");
    let last = printed(&running.replicas.all[2], &["logs", "show", &id, "--json"]);
    let last: Value = serde_json::from_str(last.lines().last().unwrap()).unwrap();
    assert_eq!(last["type"], "missing");
    assert_eq!(missing(&last["missing"])[0].0, second, "{last}");
}

#[tokio::test]
async fn a_replica_that_does_not_answer_is_named_and_without_a_gateway_the_own_record_is_told_as_that() {
    let Some(mut running) = start(3).await else { return };
    for number in 0..3 {
        calls(&running.client(number, &format!("user-{number}")), "one").await;
    }
    let own = || running.replicas.all[0].records("result").len();
    eventually("the call is on the record", async || own() == 1).await;
    let second = running.name(1);
    running.replicas.all[1].signal("KILL");
    running.replicas.all[1].wait().await;
    // Until it counts as gone it is asked; afterwards it does not run.
    let suggested = answered(&running.replicas.all[0], &["policy", "suggest"]);
    let silent = missing(&suggested);
    assert!(silent.len() == 1 && silent[0].0 == second, "{suggested}");
    let rows = suggested["rows"].to_string();
    assert!(rows.contains("user-0") && rows.contains("user-2") && !rows.contains("user-1"), "{rows}");
    let text = printed(&running.replicas.all[0], &["policy", "suggest"]);
    assert!(text.contains("# the records of 2 of 3 replicas"), "{text}");
    assert!(text.contains(&format!("# without the record of replica {second}: ")), "{text}");

    running.replicas.all[0].stop().await;
    let suggested = answered(&running.replicas.all[0], &["policy", "suggest"]);
    assert!(suggested["own_record_only"].as_str().unwrap().contains("no gateway runs here"), "{suggested}");
    assert!(suggested["rows"].to_string().contains("user-0") && !suggested["rows"].to_string().contains("user-2"));
    let call = running.replicas.all[0].records("result")[0]["call"].as_str().unwrap().to_owned();
    let shown = printed(&running.replicas.all[0], &["logs", "show", &call]);
    assert!(shown.contains("outcome") && shown.contains("this is the record of one replica"), "{shown}");
}

/// What a listener says to a question of whoever has these files and headers.
fn asked(
    replicas: &Replicas,
    (scheme, address): (&str, SocketAddr),
    files: &[&str],
    headers: &[&str],
) -> (bool, String) {
    let question = r#"{"suggest":{"since":"2020-01-01T00:00:00Z","until":"2100-01-01T00:00:00Z","agent":null}}"#;
    let headers = headers.iter().flat_map(|header| ["-H", *header]);
    let output = Command::new("curl")
        .args(["-s", "-w", "\n%{http_code}", "--cacert", "ca.crt", "-d", question])
        .args(files)
        .args(headers)
        .arg(format!("{scheme}://localhost:{}/replica/record", address.port()))
        .current_dir(replicas.place())
        .output()
        .unwrap();
    (output.status.success(), String::from_utf8(output.stdout).unwrap())
}

#[tokio::test]
async fn nobody_but_a_replica_is_told_anything_of_a_record() {
    let Some(running) = begin(2).await else { return };
    calls(&running.client(0, "alice"), "one").await;
    let cluster = ("https", running.replicas.clusters[0]);
    let stranger = running.replicas.place().join("stranger.key");
    let made = Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=x"])
        .args(["-keyout", stranger.to_str().unwrap(), "-out", "stranger.crt"])
        .current_dir(running.replicas.place())
        .output()
        .unwrap();
    assert!(made.status.success());
    let proof = format!("bailiwick-question: {}", "A".repeat(200));
    for files in [&[][..], &["--cert", "stranger.crt", "--key", "stranger.key"]] {
        let (answered, text) = asked(&running.replicas, cluster, files, &[&proof]);
        assert!(!answered, "{files:?}: {text}");
    }
    // A certificate of the replicas' authority is not enough, nor is a handle that was sealed with their keys for a client.
    let replica = ["--cert", "replica.crt", "--key", "replica.key"];
    let (_, session) = running.client(0, "alice").initialize("2025-11-25").await;
    let handle = format!("bailiwick-question: {session}");
    for headers in [&[][..], &[proof.as_str()], &[handle.as_str()]] {
        let (_, text) = asked(&running.replicas, cluster, &replica, headers);
        assert_eq!(text, "not found\n\n404", "{headers:?}");
    }
    // Where clients come in there is no such path, whoever asks.
    let public = running.replicas.all[0].url.parse::<reqwest::Url>().unwrap();
    let public = ("http", SocketAddr::from(([127, 0, 0, 1], public.port().unwrap())));
    let (_, text) = asked(&running.replicas, public, &[], &[&proof]);
    assert!(text.ends_with("\n404") && !text.contains("rows"), "{text}");
    let told = running.replicas.all[0].records("admin");
    assert!(told.iter().all(|one| !one["admin"]["about"].as_str().unwrap_or_default().contains("asked at replica")));
    let knocked =
        || running.replicas.all[0].records("noise").iter().any(|one| one["noise"]["reason"] == "request_invalid");
    eventually("that somebody tried is on the record", async || knocked()).await;
}
