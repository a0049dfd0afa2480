//! Resources and prompts behind gates: the address of what is read is all that is asked for.

use std::sync::{Arc, Mutex};

use axum::extract::State;

use super::*;
use crate::console::Browser;
use crate::support::door::Person;
use crate::support::eventually_within;

const LIBRARY: &str =
    "[gates.all]\nobjects = [\"tools/**\"]\nactions = [\"read\", \"get\"]\napprovers = [\"group:test/approvers\"]\n";

/// A server with a prompt and a template; what was asked of it that is no list.
pub async fn library() -> (String, Arc<Mutex<Vec<String>>>) {
    let asked = Arc::<Mutex<Vec<String>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let answer = async |State(asked): State<Arc<Mutex<Vec<String>>>>, body: String| {
        let message: Value = serde_json::from_str(&body).unwrap();
        let method = message["method"].as_str().unwrap_or_default().to_owned();
        let mut answer = match method.as_str() {
            "server/discover" => {
                json!({ "supportedVersions": ["2026-07-28"], "capabilities": { "resources": {}, "prompts": {} } })
            }
            "resources/list" => json!({ "resources": [] }),
            "resources/templates/list" => {
                json!({ "resourceTemplates": [{ "uriTemplate": "crm://customer/{id}", "name": "customer" }] })
            }
            "prompts/list" => json!({ "prompts": [{ "name": "letter" }] }),
            "tools/list" => json!({ "tools": [] }),
            "resources/read" => json!({ "contents": [{ "uri": message["params"]["uri"], "text": "read" }] }),
            _ => json!({ "messages": [] }),
        };
        if !method.ends_with("/list") && method != "server/discover" {
            asked.lock().unwrap().push(method);
        }
        answer["resultType"] = json!("complete");
        answer["ttlMs"] = json!(0);
        answer["cacheScope"] = json!("private");
        crate::support::scripted::result(&message, answer)
    };
    let router = axum::Router::new().route("/mcp", axum::routing::post(answer)).with_state(Arc::clone(&asked));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, asked)
}

/// Whoever wants to know that a call waits, and what they were told.
async fn listener() -> (String, Arc<Mutex<Vec<String>>>) {
    let told = Arc::<Mutex<Vec<String>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let hook = async |State(told): State<Arc<Mutex<Vec<String>>>>, body: String| {
        told.lock().unwrap().push(body);
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(hook)).with_state(Arc::clone(&told));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    (url, told)
}

#[tokio::test]
async fn an_address_is_shown_whole_to_whoever_approves_and_told_nobody_else() {
    let ((url, asked), (hook, told)) = (library().await, listener().await);
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let hook = format!("[webhooks.chat]\nurl = \"{hook}\"\nevents = [\"approval.requested\"]\nallow_private = true\n");
    let gateway = Setup::new(&issuer)
        .claims("person = \"person\"\n")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("gates.toml", LIBRARY)
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &url, "pins = \"off\"")
        .sections(&hook)
        .admin(ADMIN)
        .start()
        .await;
    let running = Running { issuer, upstream, gateway };
    let alice = running.caller("alice");
    let address = format!("crm://customer/jane-canary-{}-the-end", "x".repeat(2_000));
    let read = async || alice.modern("resources/read", json!({ "uri": address })).await;
    let refused = read().await;
    assert_eq!((refused.status, refused.error_code()), (200, -32602), "{}", refused.text);
    assert_eq!(refused.response()["error"]["data"]["reason"], "approval_required", "{}", refused.text);
    let prompt = alice.modern("prompts/get", json!({ "name": "tools__letter" })).await;
    assert_eq!(prompt.response()["error"]["data"]["reason"], "approval_required", "{}", prompt.text);
    assert!(asked.lock().unwrap().is_empty(), "nothing was read: {:?}", asked.lock().unwrap());

    let limit = std::time::Duration::from_secs(20);
    eventually_within(limit, "two messages", async || told.lock().unwrap().len() == 2).await;
    let messages = told.lock().unwrap().clone();
    assert!(messages.iter().all(|message| !message.contains("canary")), "{messages:?}");
    assert!(messages.iter().any(|message| message.contains("letter")), "{messages:?}");

    let waiting = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let all = waiting.response().as_array().unwrap().clone();
    let id = all.iter().find(|view| view["action"] == "read").unwrap()["id"].as_str().unwrap().to_owned();
    running.issuer.seat(vec![Person::new("bob", &["approvers"])]);
    let mut bob = Browser::of(&running.gateway);
    let back = bob.come_back("/admin/login/start?fresh=1").await;
    assert_eq!(bob.get(&back).await.status, 303);
    let page = bob.get(&format!("/admin/approvals/{id}")).await;
    assert!(page.text.contains("-the-end"), "what is approved stands there whole: {}", page.text);
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    assert_eq!(read().await.result()["contents"][0]["text"], "read");
    assert_eq!(*asked.lock().unwrap(), ["resources/read"]);
}
