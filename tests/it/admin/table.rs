//! Every path of the API, one after the other: who has no rule, who came through the socket, whose login is old.

use std::collections::BTreeSet;

use bailiwick::control::routes::{ROUTES, Verb};
use bailiwick::policy::{AdminOperation, Weight};
use serde_json::{Value, json};

use super::*;

const NAME: &str = "0123456789abcdef0123456789abcdef";

/// A path with something in the place of what it names.
fn path(of: &str) -> String {
    of.split('/')
        .map(|part| match part {
            "{agent}" => "assistant",
            "{server}" => "tools",
            "{since}" => "1",
            // A grant has a shorter name than everything else.
            "{id}" if of.starts_with("/grants") => "0123456789abcdef",
            part if part.starts_with('{') => NAME,
            part => part,
        })
        .collect::<Vec<_>>()
        .join("/")
}

fn verb(verb: Verb) -> reqwest::Method {
    verb.as_str().parse().unwrap()
}

impl Running {
    async fn send(&self, method: &reqwest::Method, path: &str, token: &str, body: &Value) -> Answer {
        let client = self.at(path, token);
        match *method {
            reqwest::Method::POST => client.post(&[], body.to_string()).await,
            _ => client.bare(method.clone(), &[]).await,
        }
    }
}

#[tokio::test]
async fn whom_no_rule_names_is_refused_at_every_path_and_each_try_is_on_the_record() {
    let running = start().await;
    let token = running.administrator("nobody", &["strangers"]);
    for route in ROUTES {
        let answer = running.send(&verb(route.verb), &path(route.path), &token, &json!({})).await;
        let told = (answer.status, reason(&answer));
        assert_eq!(told, (403, "not_allowed".to_owned()), "{} {}: {}", route.verb.as_str(), route.path, answer.text);
    }
    let record = running.ended();
    let tried: Vec<&str> = record.iter().map(|admin| admin["operation"].as_str().unwrap()).collect();
    let expected: Vec<&str> = ROUTES.iter().map(|route| route.operation.name()).collect();
    assert_eq!(tried, expected);
    let by_them = |admin: &Value| admin["actor"] == "user:test/nobody" && admin["outcome"] == "refused";
    assert!(record.iter().all(by_them), "{record:?}");
    let every: BTreeSet<&str> = AdminOperation::ALL.iter().map(|operation| operation.name()).collect();
    assert_eq!(expected.into_iter().collect::<BTreeSet<_>>(), every, "no operation is without a path");
}

/// An order for every path that gives something back, and for those that do with these words.
fn loosening() -> Vec<(Verb, &'static str, Value)> {
    let shown = "0".repeat(64);
    vec![
        (Verb::Delete, "/revocations/{since}", json!({})),
        (Verb::Post, "/agents/{agent}", json!({ "step": "resume" })),
        (Verb::Post, "/agents/{agent}/attest", json!({})),
        (Verb::Post, "/servers/{server}/attest", json!({})),
        (Verb::Post, "/mandates", json!({})),
        (Verb::Post, "/approvals/{id}/approve", json!({ "shown": shown })),
        (
            Verb::Post,
            "/standing",
            json!({ "like": NAME, "condition": "small", "uses": 2, "seconds": 60, "note": "a test" }),
        ),
        (Verb::Post, "/standing/{id}/approve", json!({ "shown": shown })),
        (Verb::Post, "/break-glass", json!({ "name": "night", "reason": "a test" })),
        (Verb::Post, "/break-glass/{id}/approve", json!({ "shown": shown })),
        (Verb::Post, "/break-glass/{id}/review", json!({ "note": "a test" })),
        (
            Verb::Post,
            "/labels/declassify",
            json!({ "kind": "caller", "name": "user:test/alice", "labels": ["private"], "reason": "a test" }),
        ),
        (Verb::Post, "/labels/declassify/{id}/confirm", json!({})),
        (Verb::Post, "/reload", json!({ "allow_widening": true })),
        (Verb::Post, "/pins/accept", json!({ "server": "tools", "pins": [shown] })),
        (Verb::Post, "/reviews/{id}/attest", json!({ "all": true })),
        (Verb::Post, "/grants/{id}/restore", json!({})),
    ]
}

#[tokio::test]
async fn whatever_gives_something_back_needs_a_login_of_a_moment_ago_and_is_not_done_at_the_socket() {
    let running = start().await;
    let mut claims = running.issuer.administrator("ann", &["admins"], &running.gateway.admin);
    claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - 3_000);
    let stale = running.issuer.sign(&claims);
    let wide = format!("{DEVELOPERS_MAY}{RULES}p, role:developer, *, */*, complete, -, allow\n");
    running.gateway.write_policy(&wide);
    let before = running.ended().len();
    let state = running.gateway.state();
    let orders = loosening();
    let mut wrong = Vec::new();
    for (how, of, body) in &orders {
        let answer = running.send(&verb(*how), &path(of), &stale, body).await;
        let asks = answer.header("www-authenticate").contains("max_age=\"300\"");
        if (answer.status, reason(&answer).as_str(), asks) != (401, "insufficient_user_authentication", true) {
            wrong.push(format!("{of}: {}", answer.text));
        }
        let method: http::Method = how.as_str().parse().unwrap();
        let body = (*how == Verb::Post).then_some(body);
        let at_socket = bailiwick::control::client::request(&state, method, &path(of), body).await.unwrap();
        let said: Value = serde_json::from_slice(&at_socket.body).unwrap();
        if (at_socket.status.as_u16(), &said["reason"]) != (403, &json!("administrator_required")) {
            wrong.push(format!("{of} at the socket: {said}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    let record = running.ended().split_off(before);
    assert_eq!(record.len(), 2 * orders.len());
    assert!(record.iter().all(|admin| admin["outcome"] == "refused"), "{record:?}");
    assert!(running.gateway.records("reload").is_empty() && running.gateway.records("revocation").is_empty());
    let tried: BTreeSet<&str> = record.iter().map(|admin| admin["operation"].as_str().unwrap()).collect();
    let loosens = AdminOperation::ALL.iter().filter(|operation| operation.weight() == Weight::Loosen);
    for operation in loosens {
        assert!(tried.contains(operation.name()), "{} is not tried", operation.name());
    }
}
