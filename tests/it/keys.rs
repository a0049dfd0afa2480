//! Keys are exchanged while calls are under way: nobody who comes back with an older handle is turned away.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, retry};
use crate::input_legacy::{arguments, respond, session, stream, told};
use crate::support::client::Client;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::scripted::Scripted;

async fn asking() -> Old {
    Old::start(&["form", "plain"], |turn: Turn| async move {
        let schema = json!({ "type": "object", "properties": { "name": { "type": "string" } } });
        let got = match turn.call["params"]["name"].as_str().unwrap() {
            "form" => turn.ask("elicitation/create", json!({ "message": "?", "requestedSchema": schema })).await,
            _ => Value::Null,
        };
        turn.done(&got["result"].to_string());
    })
    .await
}

fn ran(gateway: &Gateway, words: &[&str]) -> (Option<i32>, String) {
    let output = gateway.command(words);
    let said = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(said).unwrap())
}

async fn reads(client: &Client, session: &str) -> bool {
    // Two requests of one session never have the same id.
    static NEXT: AtomicU32 = AtomicU32::new(100);
    let id = NEXT.fetch_add(1, Ordering::Relaxed);
    let body = json!({ "jsonrpc": "2.0", "id": id, "method": "tools/call", "params": arguments("tools__plain") });
    let headers = [("mcp-session-id", session.to_owned()), ("mcp-protocol-version", "2025-11-25".to_owned())];
    let answer = client.post(&headers, body.to_string()).await;
    answer.status == 200 && answer.response().get("result").is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_key_of_handles_is_exchanged_under_load_and_no_call_fails() {
    let upstream = asking().await;
    let issuer = Issuer::start().await;
    let gateway =
        Setup::new(&issuer).policy(&may_ask(&["elicit"])).http_server("tools", &upstream.url, "").start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let client = gateway.client(&token);
    let old_session = session(&client, &all_capabilities()).await;
    let mut asked_in_session = stream(&client, &old_session, 1, "tools__form").await;
    let question = asked_in_session.next().await;
    let parked = call(&client, &all_capabilities(), arguments("tools__form")).await;

    let (stop, good, bad) =
        (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let load: Vec<_> = (0..2)
        .map(|_| {
            let (client, session) = (gateway.client(&token), old_session.clone());
            let (stop, good, bad) = (Arc::clone(&stop), Arc::clone(&good), Arc::clone(&bad));
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let modern = call(&client, &json!({}), arguments("tools__plain")).await;
                    let well = modern.status == 200 && modern.response().get("result").is_some();
                    let legacy = reads(&client, &session).await;
                    if well && legacy { &good } else { &bad }.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    let mut keys = std::collections::BTreeSet::new();
    for round in 1..=3 {
        let (code, said) = ran(&gateway, &["keys", "rotate", "seal", "--json"]);
        assert_eq!(code, Some(0), "{said}");
        let rotated: Value = serde_json::from_str(&said).unwrap();
        assert_eq!(rotated["kept"], round);
        let (code, said) = ran(&gateway, &["keys", "rotate", "seal"]);
        assert_eq!(code, Some(2), "what the gateway seals with would be on its way out already: {said}");
        let (code, said) = ran(&gateway, &["reload"]);
        assert_eq!(code, Some(0), "{said}");
        let key = rotated["key"].as_str().unwrap().to_owned();
        assert!(said.contains(&format!("sealed with key {key}, {round} more read")), "{said}");
        keys.insert(key);
        let before = good.load(Ordering::Relaxed);
        crate::support::eventually("calls", async || good.load(Ordering::Relaxed) > before + 4).await;
    }
    stop.store(true, Ordering::Relaxed);
    for task in load {
        task.await.unwrap();
    }
    assert_eq!((bad.load(Ordering::Relaxed), keys.len()), (0, 3));

    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let responses = json!({ "elicitation": answer });
    let done = call(&client, &all_capabilities(), retry("tools__form", &json!({}), &parked, responses)).await;
    assert_eq!(told(done.response()), answer, "{}", done.text);
    respond(&client, &old_session, &question, answer.clone()).await;
    assert_eq!(told(&asked_in_session.next().await), answer);
    let file = std::fs::read_to_string(gateway.state().join("keys/seal")).unwrap();
    let shown = ran(&gateway, &["keys", "show"]).1 + gateway.log().as_str();
    assert!(file.lines().all(|line| !shown.contains(&line[..64])), "a key was printed");
}

#[tokio::test]
async fn keys_by_reference_are_exchanged_in_the_files() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let limits = "requests_per_second = 10000\nrequests_burst = 10000\n[keys]\nseal = [\"file:policies/one\"]\njournal = [\"file:policies/log\"]";
    let setup = Setup::new(&issuer).policy(DEVELOPERS_MAY).http_server("tools", &upstream.url, "").limits(limits);
    let setup = setup.policy_file("one", &"11".repeat(32)).policy_file("two", &"22".repeat(32));
    let mut gateway = setup.policy_file("log", &"33".repeat(32)).start().await;
    for unused in ["seal", "journal"] {
        assert!(!gateway.state().join("keys").join(unused).exists(), "no key is made that nobody uses: {unused}");
    }
    assert!(gateway.stop().await.success());
    let (code, said) = ran(&gateway, &["revoke", "session", "nobodys"]);
    assert_eq!(code, Some(0), "{said}");
    assert!(!gateway.state().join("keys/journal").exists(), "nor by a brake while it is stopped");
    gateway.launch().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let session = session(&client, &json!({})).await;
    let works = async || {
        let params = json!({ "name": "tools__echo", "arguments": {} });
        client.legacy(&session, "tools/call", params).await.status == 200
    };
    assert!(works().await);
    let (code, said) = ran(&gateway, &["keys", "rotate", "seal"]);
    assert!(code == Some(2) && said.contains("[keys] seal"), "{said}");

    let file = gateway.state().with_file_name("servers.toml");
    let name = |names: &str| {
        let text = std::fs::read_to_string(&file).unwrap();
        let at = text.find("seal = [").unwrap();
        let end = at + text[at..].find(']').unwrap();
        std::fs::write(&file, format!("{}seal = [{names}{}", &text[..at], &text[end..])).unwrap();
        ran(&gateway, &["reload", "--allow-widening"])
    };
    let (code, said) = name("\"file:policies/nowhere\", \"file:policies/one\"");
    assert!(code == Some(1) && said.contains("policies/nowhere"), "{said}");
    assert!(works().await, "nothing was changed");
    let (code, said) = name("\"file:policies/two\", \"file:policies/one\"");
    assert!(code == Some(0) && said.contains("1 more read"), "{said}");
    assert!(works().await, "the older key is still read");
    assert_eq!(name("\"file:policies/two\"").0, Some(0));
    assert!(!works().await, "a key that is not in the list opens nothing");
    let rows: Vec<String> = gateway
        .records("reload")
        .iter()
        .flat_map(|reload| reload["reload"]["rows"].as_array().unwrap().clone())
        .filter_map(|row| Some(row.as_str()?.to_owned()))
        .filter(|row| row.contains("key, seal, "))
        .collect();
    let signs: Vec<&str> = rows.iter().map(|row| &row[..1]).collect();
    assert_eq!(signs, ["+", "-"], "who exchanged keys is on the record, and which: {rows:?}");
}

/// What the record says that arguments were digested with: the key, and the digest.
async fn digested(gateway: &Gateway, client: &Client, arguments: &Value) -> (String, String) {
    let before = gateway.records("intent").len();
    assert_eq!(client.call_tool("tools__echo", arguments.clone()).await.status, 200);
    crate::support::eventually("the intent", async || gateway.records("intent").len() > before).await;
    let intent = gateway.records("intent").pop().unwrap();
    let text = |name: &str| intent["arguments"][name].as_str().unwrap().to_owned();
    (text("key"), text("hmac"))
}

#[tokio::test]
async fn every_key_is_exchanged_with_a_reload_and_digests_of_older_ones_are_still_known() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).policy(DEVELOPERS_MAY).http_server("tools", &upstream.url, "");
    let mut gateway = setup.record("checkpoint_interval = \"1s\"\n").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let arguments = json!({ "amount": 100 });
    let old = digested(&gateway, &client, &arguments).await;
    for purpose in ["journal", "vault", "checkpoint"] {
        let (code, said) = ran(&gateway, &["keys", "rotate", purpose]);
        assert_eq!(code, Some(0), "{said}");
    }
    assert_eq!(digested(&gateway, &client, &arguments).await, old, "nothing is exchanged by itself");
    let (code, said) = ran(&gateway, &["reload"]);
    assert_eq!(code, Some(0), "{said}");
    let new = digested(&gateway, &client, &arguments).await;
    assert_ne!(new, old);
    let shown = ran(&gateway, &["keys", "show"]).1;
    assert!(shown.contains(&format!("journal     {} {}\n", new.0, old.0)), "{shown}");
    let reload = gateway.records("reload").pop().unwrap();
    // Who did it, and not who reloaded.
    let us = format!("host:{}", rustix::process::geteuid().as_raw());
    let told: Vec<Value> = gateway.records("admin").into_iter().map(|record| record["admin"].clone()).collect();
    let told = told.iter().filter(|admin| admin["operation"] == "keys-rotate");
    let told: Vec<_> = told.map(|admin| (admin["about"].clone(), admin["actor"].clone())).collect();
    assert_eq!(told, ["journal", "vault", "checkpoint"].map(|purpose| (json!(purpose), json!(us))));
    for purpose in ["journal", "vault", "checkpoint"] {
        let names = |row: &&Value| row.as_str().unwrap().contains(&format!("+ key, {purpose}, "));
        assert_eq!(reload["reload"]["rows"].as_array().unwrap().iter().filter(names).count(), 1, "{reload}");
    }

    let file = gateway.state().with_file_name("arguments.json");
    std::fs::write(&file, format!("{arguments}\n")).unwrap();
    let file = file.display().to_string();
    let (code, said) = ran(&gateway, &["audit", "digest", &file]);
    assert_eq!((code, said), (Some(0), format!("{}  {}\n{}  {}\n", new.0, new.1, old.0, old.1)));
    let (code, said) = ran(&gateway, &["audit", "digest", &file, "--of", &old.1]);
    assert_eq!((code, said), (Some(0), format!("{}  {}\n", old.0, old.1)));
    assert_eq!(ran(&gateway, &["audit", "digest", &file, "--of", &"0".repeat(64)]).0, Some(1));

    let vault = gateway.state().join("keys/vault");
    let kept = std::fs::read(&vault).unwrap();
    std::fs::write(&vault, "no key").unwrap();
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/nothing, call, -, deny\n"));
    let (code, said) = ran(&gateway, &["reload"]);
    assert!(code == Some(0) && said.contains("the keys in use stay"), "the brake needs no key: {said}");
    assert_eq!(digested(&gateway, &client, &arguments).await, new);
    // What is gone is not made anew in the place of what is in use.
    std::fs::remove_file(&vault).unwrap();
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/no, call, -, deny\n"));
    let (code, said) = ran(&gateway, &["reload", "--allow-widening"]);
    assert!(code == Some(1) && said.contains("keys/vault") && !vault.exists(), "{said}");
    std::fs::write(&vault, kept).unwrap();

    let signer = ran(&gateway, &["keys", "show", "--json"]).1;
    let signer: Value = serde_json::from_str(&signer).unwrap();
    let signer = signer["checkpoint"][0].as_str().unwrap().to_owned();
    let checkpoint = gateway.state().join("journal/checkpoint.pub");
    crate::support::eventually("the new key to sign and to be published", async || {
        std::fs::read_to_string(&checkpoint).is_ok_and(|keys| keys.starts_with(&signer))
    })
    .await;
    assert!(gateway.stop().await.success());
    let (code, said) = ran(&gateway, &["audit", "verify"]);
    assert_eq!(code, Some(0), "of both keys: {said}");

    let (code, said) = ran(&gateway, &["keys", "rotate", "journal"]);
    assert_eq!(code, Some(0), "{said}");
    let told = gateway.records("admin").pop().unwrap();
    assert_eq!((&told["admin"]["operation"], &told["admin"]["about"]), (&json!("keys-rotate"), &json!("journal")));
    assert_eq!(told["admin"]["actor"], json!(us));
    gateway.launch().await;
}
