//! A server that speaks HTTP+SSE of 2024-11-05, behind the real gateway, for clients of both newer eras.

use serde_json::json;

use crate::input::{all_capabilities, call, may_ask, retry};
use crate::input_legacy::{arguments, told};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::oldest::{Oldest, TASK};
use crate::tasks::{begin, listen_to};

async fn start() -> (Issuer, Oldest, Gateway, Client) {
    let issuer = Issuer::start().await;
    let upstream = Oldest::start().await;
    let setup = Setup::new(&issuer).policy(&may_ask(&["elicit"])).http_server("tools", &upstream.url, "");
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, upstream, gateway, client)
}

#[tokio::test]
async fn a_tool_of_the_oldest_transport_is_called_by_clients_of_both_eras() {
    let (_issuer, upstream, gateway, client) = start().await;
    let modern = call(&client, &json!({}), arguments("tools__echo")).await;
    assert_eq!(modern.tool_text(), "{}", "{}", modern.text);
    let (_, session) = client.initialize("2025-11-25").await;
    let legacy = client.legacy(&session, "tools/call", json!({ "name": "tools__echo", "arguments": {} })).await;
    assert_eq!(legacy.tool_text(), "{}", "{}", legacy.text);
    assert_eq!(upstream.saw("tools/call").len(), 2);
    assert_eq!(gateway.records("intent").len(), 2);
}

#[tokio::test]
async fn what_a_server_of_the_oldest_transport_asks_waits_for_its_answer() {
    let (_issuer, upstream, _gateway, client) = start().await;
    let answer = json!({ "action": "accept", "content": { "name": "Ada" } });
    let asked = call(&client, &all_capabilities(), arguments("tools__form")).await;
    let question = &asked.result()["inputRequests"]["elicitation"]["params"];
    assert_eq!(question["message"], "[tools] Your name?", "{}", asked.text);
    let answers = json!({ "elicitation": answer });
    let done = call(&client, &all_capabilities(), retry("tools__form", &json!({}), &asked, answers)).await;
    assert_eq!(told(done.response()), answer, "{}", done.text);
    assert_eq!(upstream.saw("tools/call").len(), 1, "it is the same call");
}

#[tokio::test]
async fn a_listen_hears_what_a_server_of_the_oldest_transport_tells_of_a_task() {
    let (_issuer, upstream, _gateway, client) = start().await;
    let id = begin(&client).await;
    let (headers, body) = listen_to(&[&id]);
    let mut stream = client.stream(&headers, Some(body.to_string())).await;
    assert_eq!(stream.next().await["params"]["notifications"]["taskIds"], json!([id]), "it is acknowledged");
    assert!(upstream.saw("subscriptions/listen").is_empty(), "it does not know that");
    upstream.tell(&json!({ "taskId": "another", "status": "working", "ttlMs": null }));
    upstream.tell(&json!({ "taskId": TASK, "status": "completed", "ttlMs": null, "result": { "content": [] } }));
    let done = stream.next().await;
    assert_eq!((&done["params"]["taskId"], &done["params"]["status"]), (&json!(id), &json!("completed")), "{done}");
}

#[tokio::test]
async fn clients_are_not_offered_the_oldest_version() {
    let (_issuer, _upstream, _gateway, client) = start().await;
    let (answer, _) = client.initialize("2024-11-05").await;
    assert_eq!(answer.result()["protocolVersion"], "2025-11-25", "{}", answer.text);
}
