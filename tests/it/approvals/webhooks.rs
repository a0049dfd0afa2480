//! Outgoing webhooks: a link and no arguments, signed, until somebody takes it.

use std::sync::{Arc, Mutex};

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::support::eventually_within;

#[derive(Clone)]
struct Taken {
    headers: HeaderMap,
    body: String,
}

/// Refuses the first, and takes all others.
async fn receiver() -> (String, Arc<Mutex<Vec<Taken>>>) {
    let taken = Arc::<Mutex<Vec<Taken>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = async |State(taken): State<Arc<Mutex<Vec<Taken>>>>, headers: HeaderMap, body: String| {
        let mut taken = taken.lock().unwrap();
        taken.push(Taken { headers, body });
        if taken.len() == 1 { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::NO_CONTENT }
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(hook)).with_state(Arc::clone(&taken));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, taken)
}

#[tokio::test]
async fn whoever_wants_to_know_is_told_where_to_look_signed_and_until_they_take_it() {
    let (url, taken) = receiver().await;
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let hook = |name: &str, event: &str| {
        format!("[webhooks.{name}]\nurl = \"{url}\"\nevents = [\"{event}\"]\nallow_private = true\n")
    };
    let hooks = [hook("chat", "approval.requested"), hook("other", "pin.changed")].concat();
    let key = "7b".repeat(32);
    let keys = "[keys]\nwebhook = [\"file:hook-key\", \"file:old-key\"]\n";
    let setup = setup(&issuer, &upstream, GATES).sections(&format!("{hooks}{keys}"));
    for (name, key) in [("hook-key", &key), ("old-key", &"6a".repeat(32))] {
        let path = setup.directory().join(name);
        std::fs::write(&path, key).unwrap();
        std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    }
    let mut gateway = setup.start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let answer = gateway.client(&token).call_tool("tools__echo", json!({ "to": "canary-argument" })).await;
    let id = waits(&answer);
    let limit = std::time::Duration::from_secs(20);
    eventually_within(limit, "the first try", async || !taken.lock().unwrap().is_empty()).await;
    gateway.signal("KILL");
    gateway.wait().await;
    gateway.launch().await;
    eventually_within(limit, "another try after a restart", async || taken.lock().unwrap().len() >= 2).await;
    let all = taken.lock().unwrap().clone();
    let (first, second) = (&all[0], &all[1]);
    assert_eq!(first.headers["webhook-id"], second.headers["webhook-id"], "it is the same message");
    assert_eq!(first.body, second.body);
    let body: Value = serde_json::from_str(&second.body).unwrap();
    assert_eq!((&body["type"], &body["data"]["approval_id"]), (&json!("approval.requested"), &json!(id)));
    assert_eq!(body["data"]["url"], json!(format!("{}/approvals/{id}", gateway.admin)));
    assert!(!second.body.contains("canary"), "{}", second.body);
    let text = |name: &str| second.headers[name].to_str().unwrap().to_owned();
    let signed = format!("{}.{}.{}", text("webhook-id"), text("webhook-timestamp"), second.body);
    let printed = |place: &str| {
        let output = gateway.command(&["keys", "webhook", place, "--config", "servers.toml"]);
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let keys = String::from_utf8(output.stdout).unwrap();
        keys.lines().map(|key| data_encoding::HEXLOWER.decode(key.as_bytes()).unwrap()).collect::<Vec<_>>()
    };
    let verifies = |key: &[u8], signature: &str| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, key);
        let signature = STANDARD.decode(signature.strip_prefix("v1,").unwrap()).unwrap();
        aws_lc_rs::hmac::verify(&key, signed.as_bytes(), &signature).is_ok()
    };
    let (own, others) = (printed("chat"), printed("other"));
    let signatures = text("webhook-signature");
    let signatures: Vec<&str> = signatures.split(' ').collect();
    assert_eq!((own.len(), signatures.len()), (2, 2), "one for the key that is on its way out");
    for (key, signature) in own.iter().zip(&signatures) {
        assert!(verifies(key, signature));
        assert!(!others.iter().any(|other| verifies(other, signature)), "another place can forge nothing for this one");
    }
    let printed = gateway.command(&["keys", "webhook", "chat", "--json", "--config", "servers.toml"]);
    let printed: Value = serde_json::from_slice(&printed.stdout).unwrap();
    let named: Vec<&str> = printed["ids"].as_array().unwrap().iter().filter_map(Value::as_str).collect();
    assert_eq!((text("webhook-key-id"), named.len()), (named.join(" "), 2), "each signature names its key");
    let now = jiff::Timestamp::now().as_second();
    assert!((now - 60..=now + 5).contains(&text("webhook-timestamp").parse::<i64>().unwrap()));
    tokio::time::sleep(std::time::Duration::from_secs(4)).await;
    assert_eq!(taken.lock().unwrap().len(), 2, "what was taken is not sent again, and nobody else is told");
}

#[tokio::test]
async fn a_place_that_does_not_answer_holds_up_no_other_and_a_confirmation_is_told_nobody() {
    let (url, taken) = receiver().await;
    // It takes connections and answers none.
    let silent = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let hook = |name: &str, url: &str| {
        format!("[webhooks.{name}]\nurl = \"{url}\"\nevents = [\"approval.requested\"]\nallow_private = true\n")
    };
    let dead = format!("http://{}/hook", silent.local_addr().unwrap());
    let hooks = [hook("a", &dead), hook("b", &url)].concat();
    let gates = format!(
        "{GATES}when = \"asks\"\n[gates.sure]\nobjects = [\"tools/echo\"]\nkind = \"confirm\"\nwhen = \"confirms\"\n"
    );
    let conditions =
        "[asks]\nargument = \"kind\"\nequals = \"ask\"\n[confirms]\nargument = \"kind\"\nequals = \"confirm\"\n";
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = setup(&issuer, &upstream, &gates).policy_file("conditions.toml", conditions).sections(&hooks);
    let gateway = setup.start().await;
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    let alice = gateway.client(&token);
    let confirms = alice.call_tool("tools__echo", json!({ "kind": "confirm" })).await;
    assert_eq!(reason(&confirms), "confirmation_required", "{}", confirms.text);
    for number in 0..3 {
        waits(&alice.call_tool("tools__echo", json!({ "kind": "ask", "n": number })).await);
        // One round with the silent place lasts longer than this.
        let within = std::time::Duration::from_secs(5);
        // The first try of all is refused, and tried again.
        eventually_within(within, "the other place is told", async || taken.lock().unwrap().len() == number + 2).await;
    }
    drop(silent);
}

#[tokio::test]
async fn a_key_of_webhooks_that_is_lost_while_the_gateway_runs_signs_on_and_no_other_is_made() {
    let (url, taken) = receiver().await;
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let hook = format!("[webhooks.chat]\nurl = \"{url}\"\nevents = [\"approval.requested\"]\nallow_private = true\n");
    let gateway = setup(&issuer, &upstream, GATES).sections(&hook).start().await;
    let file = gateway.state().join("keys/webhook");
    assert!(file.exists(), "a start makes it");
    let printed = || gateway.command(&["keys", "webhook", "chat", "--json", "--config", "servers.toml"]);
    let known: Value = serde_json::from_slice(&printed().stdout).unwrap();
    std::fs::remove_file(&file).unwrap();
    let token = issuer.token("alice", &["developers"], &gateway.resource());
    waits(&gateway.client(&token).call_tool("tools__echo", json!({ "to": "x" })).await);
    let limit = std::time::Duration::from_secs(20);
    eventually_within(limit, "a message", async || !taken.lock().unwrap().is_empty()).await;
    assert_eq!(taken.lock().unwrap()[0].headers["webhook-key-id"], known["ids"][0].as_str().unwrap());
    // Nobody is told of a key that signs nothing.
    let output = printed();
    assert!(!output.status.success() && String::from_utf8_lossy(&output.stderr).contains("keys/webhook"), "{output:?}");
    let reloaded = gateway.command(&["reload"]);
    let told = String::from_utf8_lossy(&[reloaded.stdout, reloaded.stderr].concat()).into_owned();
    assert!(told.contains("keys/webhook") && told.contains("the keys in use stay"), "{told}");
    assert!(!file.exists());
}

/// What of a webhook's messages came, by type.
fn types(taken: &Mutex<Vec<Taken>>) -> Vec<String> {
    let of = |taken: &Taken| serde_json::from_str::<Value>(&taken.body).unwrap()["type"].as_str().unwrap().to_owned();
    taken.lock().unwrap().iter().map(of).collect()
}

#[tokio::test]
async fn every_event_that_can_be_asked_for_is_told_and_one_that_takes_nothing_keeps_no_other_waiting() {
    let (url, taken) = receiver().await;
    // Connections to it are refused.
    let dead = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let events = ["approval.requested", "agent.suspended", "pin.changed", "server.suspended"];
    let hook = |name: &str, url: &str| {
        format!("[webhooks.{name}]\nurl = \"{url}\"\nevents = {events:?}\nallow_private = true\n")
    };
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                  environments = [\"development\"]\n";
    let gateway = Setup::new(&issuer)
        .claims("person = \"person\"\n")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("gates.toml", GATES)
        .policy_file("agents.toml", agents)
        .http_server("tools", &upstream.url, "title = \"Tools\"\nlist_refresh_min = \"1ms\"")
        .admin(ADMIN)
        .sections(&[hook("chat", &url), hook("dead", &format!("http://{dead}/hook"))].concat())
        .start()
        .await;
    let alice = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    waits(&alice.call_tool("tools__echo", json!({})).await);
    upstream.set_tools(json!([tool("echo"), tool("look"), tool("new")]));
    let limit = std::time::Duration::from_secs(30);
    eventually_within(limit, "the definition to be kept back", async || {
        let _listed = alice.tool_names().await;
        !gateway.records("pin").iter().all(|record| record["pin"]["state"] != "quarantined")
    })
    .await;
    // The breaker stops the assistant for whoever tries what is not there.
    let bob = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
    for _ in 0..20 {
        let _refused = bob.call_tool("tools__nothing", json!({})).await;
    }
    assert!(gateway.command(&["agents", "suspend", "tools", "--server"]).status.success());
    eventually_within(limit, "all of them", async || {
        let types = types(&taken);
        events.iter().all(|event| types.iter().any(|told| told == event))
    })
    .await;
    let all = taken.lock().unwrap().clone();
    let told = |event: &str| {
        let of = |taken: &Taken| serde_json::from_str::<Value>(&taken.body).unwrap();
        all.iter().map(of).find(|body| body["type"] == event).unwrap()["data"].clone()
    };
    let stopped = told("agent.suspended");
    assert_eq!((&stopped["agent"], &stopped["subject"]), (&json!("assistant"), &json!("user:test/bob")), "{stopped}");
    assert_eq!((&stopped["owner"], &stopped["by"]), (&json!("user:test/owner"), &json!("breaker")), "{stopped}");
    let gone = told("server.suspended");
    assert_eq!((&gone["server"], &gone["owner"]), (&json!("tools"), &json!("user:test/owner")), "{gone}");
    let kept = told("pin.changed");
    assert_eq!((&kept["server"], &kept["definitions"][0]["name"]), (&json!("tools"), &json!("new")), "{kept}");
}
