//! Input from the user where one side speaks another era: pages to visit, several questions at once, and how often a
//! client is asked.

use bailiwick::limit;
use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, retry};
use crate::input_legacy::{arguments, respond, session, stream, told};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::old::{Old, Turn};
use crate::support::scripted::{Scripted, result, text, tool};

const PAGE: &str = "https://accounts.example.com/grant?x=1";

fn page() -> Value {
    json!({ "mode": "url", "message": "Sign in", "url": PAGE, "elicitationId": "e-1" })
}

/// A server of that era whose tool `page` sends its user to a page, and tells what came of it.
async fn asking(era: &str) -> (String, Box<dyn std::any::Any>) {
    if era == "legacy" {
        let upstream = Old::start(&["page"], |turn: Turn| async move {
            let got = turn.ask("elicitation/create", page()).await;
            turn.notify("notifications/elicitation/complete", json!({ "elicitationId": "e-1" }));
            turn.done(&got["result"].to_string());
        })
        .await;
        return (upstream.url.clone(), Box::new(upstream));
    }
    let upstream = Scripted::start(json!([tool("page")]), |request| match request["params"].get("inputResponses") {
        Some(responses) => result(request, text(&responses["elicitation"].to_string())),
        None => result(
            request,
            json!({ "resultType": "input_required", "requestState": "s",
            "inputRequests": { "elicitation": { "method": "elicitation/create", "params": page() } } }),
        ),
    })
    .await;
    (upstream.url.clone(), Box::new(upstream))
}

async fn start(url: &str, actions: &[&str], more: &str) -> (Issuer, Gateway, Client) {
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).policy(&may_ask(actions)).http_server("tools", url, more).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    (issuer, gateway, client)
}

#[tokio::test]
async fn a_user_is_sent_to_a_page_by_servers_and_through_clients_of_both_eras() {
    let visited = json!({ "action": "accept" });
    for era in ["modern", "legacy"] {
        let (url, _upstream) = asking(era).await;
        let hosts = "elicit_url_hosts = [\"accounts.example.com\"]";
        let (_issuer, _gateway, client) = start(&url, &["elicit"], hosts).await;
        let asked = call(&client, &all_capabilities(), arguments("tools__page")).await;
        let question = &asked.result()["inputRequests"]["elicitation"]["params"];
        assert_eq!((&question["mode"], &question["url"]), (&json!("url"), &json!(PAGE)), "{era}: {}", asked.text);
        assert_eq!(question["message"], "[tools] Sign in", "{era}");
        let answers = json!({ "elicitation": visited });
        let done = call(&client, &all_capabilities(), retry("tools__page", &json!({}), &asked, answers)).await;
        assert_eq!(told(done.response()), visited, "{era}: {}", done.text);
        assert_eq!(done.messages.len(), 1, "{era}: there is no other message in this era: {}", done.text);

        let session = session(&client, &json!({ "elicitation": { "form": {}, "url": {} } })).await;
        let mut events = stream(&client, &session, 1, "tools__page").await;
        let question = events.next().await;
        let params = &question["params"];
        assert_eq!((&params["mode"], &params["url"]), (&json!("url"), &json!(PAGE)), "{era}: {question}");
        assert!(params["elicitationId"].is_string(), "{era}: older clients require one: {question}");
        respond(&client, &session, &question, visited.clone()).await;
        let mut last = events.next().await;
        if era == "legacy" {
            assert_eq!(last["method"], "notifications/elicitation/complete", "{last}");
            assert_eq!(last["params"]["elicitationId"], params["elicitationId"], "the id that it was asked under");
            last = events.next().await;
        }
        assert_eq!(told(&last), visited, "{era}");
    }
}

#[tokio::test]
async fn a_client_that_knows_only_forms_is_sent_to_no_page() {
    for era in ["modern", "legacy"] {
        let (url, _upstream) = asking(era).await;
        let hosts = "elicit_url_hosts = [\"accounts.example.com\"]";
        let (_issuer, _gateway, client) = start(&url, &["elicit"], hosts).await;
        let modern = call(&client, &json!({ "elicitation": { "form": {} } }), arguments("tools__page")).await;
        assert!(!modern.text.contains(PAGE), "{era}: {}", modern.text);
        assert_ne!(modern.result()["resultType"], "input_required", "{era}: {}", modern.text);
        let session = session(&client, &json!({ "elicitation": {} })).await;
        let answer = client.legacy(&session, "tools/call", arguments("tools__page")).await;
        assert!(!answer.text.contains(PAGE), "{era}: {}", answer.text);
    }
}

/// A legacy server that asks four things at once in its tool `four`, and one thing a while after another in `later`.
async fn asking_at_once() -> Old {
    Old::start(&["four", "later"], |turn: Turn| async move {
        let form = |message: &str| json!({ "message": message, "requestedSchema": { "type": "object" } });
        let sampling = json!({ "messages": [], "maxTokens": 5 });
        let four = turn.call["params"]["name"] == "four";
        let second = async {
            if !four {
                tokio::time::sleep(limit::INPUT_GATHERED_WITHIN * 20).await;
            }
            turn.ask("elicitation/create", form("Second?")).await
        };
        let others = async {
            if four {
                let asked = (turn.ask("sampling/createMessage", sampling), turn.ask("roots/list", json!({})));
                let (sampled, roots) = tokio::join!(asked.0, asked.1);
                return json!([sampled["result"], roots["result"]]);
            }
            json!([])
        };
        let (first, second, others) = tokio::join!(turn.ask("elicitation/create", form("First?")), second, others);
        turn.done(&json!([first["result"], second["result"], others]).to_string());
    })
    .await
}

fn accepted(name: &str) -> Value {
    json!({ "action": "accept", "content": { "name": name } })
}

#[tokio::test]
async fn what_a_legacy_server_asks_at_once_a_modern_client_is_asked_at_once() {
    let upstream = asking_at_once().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &["elicit", "sample", "roots"], "").await;
    let asked = call(&client, &all_capabilities(), arguments("tools__four")).await;
    let methods = |answer: &crate::support::client::Answer| -> Vec<(String, Value)> {
        let requests = answer.result()["inputRequests"].as_object().unwrap_or_else(|| panic!("{}", answer.text));
        let mut named: Vec<_> =
            requests.iter().map(|(key, request)| (key.clone(), request["method"].clone())).collect();
        named.sort_by(|one, other| one.0.cmp(&other.0));
        named
    };
    let expected = [
        ("elicitation", "elicitation/create"),
        ("elicitation-2", "elicitation/create"),
        ("roots", "roots/list"),
        ("sampling", "sampling/createMessage"),
    ];
    assert_eq!(methods(&asked), expected.map(|(key, method)| (key.to_owned(), json!(method))), "{}", asked.text);
    assert_eq!(asked.result()["inputRequests"]["elicitation-2"]["params"]["message"], "[tools] Second?");
    // Who answers some is asked the others again, under the same names.
    let sampled = json!({ "role": "assistant", "model": "m", "content": { "type": "text", "text": "ho" } });
    let some = json!({ "elicitation-2": accepted("two"), "sampling": sampled });
    let again = call(&client, &all_capabilities(), retry("tools__four", &json!({}), &asked, some)).await;
    assert_eq!(methods(&again).iter().map(|(key, _)| key.as_str()).collect::<Vec<_>>(), ["elicitation", "roots"]);
    let rest = json!({ "elicitation": accepted("one"), "roots": { "roots": [] } });
    let done = call(&client, &all_capabilities(), retry("tools__four", &json!({}), &again, rest)).await;
    assert_eq!(told(done.response()), json!([accepted("one"), accepted("two"), [sampled, { "roots": [] }]]));
    assert_eq!(upstream.answers().len(), 4, "each was answered once");
    assert_eq!(upstream.saw("tools/call").len(), 1, "it is one call");
}

#[tokio::test]
async fn what_a_legacy_server_asks_at_once_a_legacy_client_is_asked_at_once() {
    let upstream = asking_at_once().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &["elicit", "sample", "roots"], "").await;
    let session = session(&client, &json!({ "elicitation": {}, "sampling": {}, "roots": {} })).await;
    let mut events = stream(&client, &session, 1, "tools__four").await;
    let mut questions = Vec::new();
    for _ in 0..4 {
        questions.push(events.next().await);
    }
    for question in questions.iter().rev() {
        let answer = match question["method"].as_str().unwrap() {
            "elicitation/create" => accepted(question["params"]["message"].as_str().unwrap()),
            "roots/list" => json!({ "roots": [] }),
            _ => json!({ "role": "assistant", "model": "m" }),
        };
        respond(&client, &session, question, answer).await;
    }
    let others = json!([{ "role": "assistant", "model": "m" }, { "roots": [] }]);
    let expected = json!([accepted("[tools] First?"), accepted("[tools] Second?"), others]);
    assert_eq!(told(&events.next().await), expected);
}

#[tokio::test]
async fn what_a_legacy_server_asks_later_is_another_round() {
    let upstream = asking_at_once().await;
    let (_issuer, _gateway, client) = start(&upstream.url, &["elicit"], "").await;
    let first = call(&client, &all_capabilities(), arguments("tools__later")).await;
    assert_eq!(first.result()["inputRequests"].as_object().map(serde_json::Map::len), Some(1), "{}", first.text);
    let answers = json!({ "elicitation": accepted("one") });
    let second = call(&client, &all_capabilities(), retry("tools__later", &json!({}), &first, answers)).await;
    assert_eq!(second.result()["inputRequests"]["elicitation"]["params"]["message"], "[tools] Second?");
    let answers = json!({ "elicitation": accepted("two") });
    let done = call(&client, &all_capabilities(), retry("tools__later", &json!({}), &second, answers)).await;
    assert_eq!(told(done.response()), json!([accepted("one"), accepted("two"), []]));
}

#[tokio::test]
async fn a_legacy_client_is_asked_by_a_modern_server_in_so_many_rounds_only() {
    let upstream = Scripted::start(json!([tool("ask")]), |request| {
        let round = request["params"]["requestState"].as_str().and_then(|state| state.parse::<u32>().ok()).unwrap_or(0);
        result(
            request,
            json!({ "resultType": "input_required", "requestState": (round + 1).to_string(),
            "inputRequests": { "q": { "method": "roots/list" } } }),
        )
    })
    .await;
    let (_issuer, gateway, client) = start(&upstream.url, &["roots"], "").await;
    let session = session(&client, &json!({ "roots": {} })).await;
    let mut events = stream(&client, &session, 1, "tools__ask").await;
    let mut rounds = 0;
    let end = loop {
        let event = events.next().await;
        if event.get("method").is_none() {
            break event;
        }
        rounds += 1;
        assert!(rounds <= limit::INPUT_ROUNDS_MAX, "it never ends");
        respond(&client, &session, &event, json!({ "roots": [] })).await;
    };
    assert_eq!(rounds, limit::INPUT_ROUNDS_MAX);
    assert_eq!(end["result"]["_meta"]["dev.bailiwick/reason"], "upstream_garbage", "{end}");
    let calls: std::collections::HashSet<_> =
        gateway.records("intent").iter().map(|intent| intent["call"].to_string()).collect();
    assert_eq!(calls.len(), 1, "it was one call");
}
