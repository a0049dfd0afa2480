//! Accounts that people link: asked for in either era, linked on pages by their owner alone, renewed once, taken back.

use serde_json::{Value, json};

use crate::input::{all_capabilities, call, reason, retry};
pub use crate::support::browser::Browser;
use crate::support::browser::Page;
use crate::support::client::{Answer, Client, modern_request};
use crate::support::door::Person;
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::linked::{CANARY, Linked};

mod attack;
mod renew;
mod taken_back;
mod wider;

pub const OAUTH: &str = "title = \"Notes\"\n[servers.notes.credential]\nkind = \"oauth\"\n";

struct Running {
    issuer: Issuer,
    service: Linked,
    gateway: Gateway,
}

fn setup(issuer: &Issuer, service: &Linked) -> Setup {
    Setup::new(issuer).issuer_lines("link_client_id = \"test-link\"\n").http_server("notes", &service.url(), OAUTH)
}

async fn start() -> Running {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let gateway = setup(&issuer, &service).start().await;
    Running { issuer, service, gateway }
}

impl Running {
    fn client(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &["developers"], &self.gateway.resource()))
    }

    /// The link that a client gets which cannot be asked.
    async fn link(&self, user: &str) -> String {
        let client = self.client(user);
        let answer = client.call_tool("notes__link_account", json!({})).await;
        assert_eq!(reason(&answer), "account_link_required", "{}", answer.text);
        address(answer.tool_text())
    }

    /// Somebody sits in front of a browser, and links their account with that link.
    async fn links(&self, user: &str, link: &str) -> Page {
        self.issuer.seat(vec![Person::new(user, &["developers"])]);
        let mut browser = Browser::default();
        let welcome = browser.get(link).await;
        assert_eq!(welcome.status, 200, "{}", welcome.text);
        let mut page = browser.follow(&format!("{link}/sign-in")).await;
        if let Some(go) = page.button() {
            page = browser.follow(&go).await;
        }
        page
    }

    async fn linked(&self, user: &str) {
        let page = self.links(user, &self.link(user).await).await;
        assert!(page.status == 200 && page.text.contains("is linked"), "{}", page.text);
    }

    async fn whoami(&self, user: &str) -> Answer {
        self.client(user).call_tool("notes__whoami", json!({})).await
    }
}

/// The address in a text.
fn address(text: &str) -> String {
    text.split_whitespace()
        .find(|word| word.contains("/link/"))
        .unwrap_or_else(|| panic!("no link in {text}"))
        .to_owned()
}

#[tokio::test]
async fn a_client_that_cannot_be_asked_gets_the_link_in_the_refusal_and_goes_on_afterwards() {
    let running = start().await;
    let client = running.client("ann");
    assert_eq!(client.tool_names().await, ["notes__link_account"], "without an account there is one thing to do");
    let link = running.link("ann").await;
    eventually("the refusal is on the record", async || !running.gateway.records("refusal").is_empty()).await;
    let refusals = running.gateway.records("refusal");
    assert!(
        !refusals.is_empty() && !refusals.iter().any(|refusal| refusal.to_string().contains("/link/")),
        "{refusals:?}"
    );
    let page = running.links("ann", &link).await;
    assert!(page.text.contains("ann@service") && page.text.contains("is linked"), "{}", page.text);
    assert_eq!(client.tool_names().await, ["notes__whoami"], "its tools are listed at once");
    let answer = running.whoami("ann").await;
    assert_eq!(answer.tool_text(), "ann@service", "{}", answer.text);
    let intent = running.gateway.records("intent").pop().unwrap();
    assert_eq!(intent["credential"]["kind"], "oauth");
    assert_eq!(intent["credential"]["audience"], running.service.url());
    let asked = running.service.state().asked.pop().unwrap();
    assert_eq!(asked["resource"], running.service.url());
    assert_eq!(
        (asked["code_challenge_method"].as_str(), asked["scope"].as_str()),
        ("S256", "notes:read offline_access")
    );
    // On the record with whose it is, and without anything of it.
    let admin: Vec<Value> = running.gateway.records("admin").iter().map(|line| line["admin"].clone()).collect();
    let linked = admin.iter().rfind(|admin| admin["operation"] == "link_account").unwrap();
    assert_eq!((&linked["actor"], &linked["outcome"]), (&json!("user:test/ann"), &json!("done")), "{linked}");
    assert!(linked["about"].as_str().unwrap().contains("ann@service"), "{linked}");
    // Nobody else has it.
    assert_eq!(
        reason(&running.client("bob").call_tool("notes__link_account", json!({})).await),
        "account_link_required"
    );
}

#[tokio::test]
async fn a_modern_client_is_asked_to_open_the_page_and_the_call_waits_for_it() {
    let running = start().await;
    let client = running.client("ann");
    let name = "notes__link_account";
    let asked = call(&client, &all_capabilities(), json!({ "name": name, "arguments": {} })).await;
    let question = &asked.result()["inputRequests"]["bailiwick-link"];
    assert_eq!(
        (&question["method"], &question["params"]["mode"]),
        (&json!("elicitation/create"), &json!("url")),
        "{}",
        asked.text
    );
    let link = question["params"]["url"].as_str().unwrap().to_owned();
    // Whoever does not agree is not asked again.
    let declined = retry(name, &json!({}), &asked, json!({ "bailiwick-link": { "action": "decline" } }));
    let declined = call(&client, &all_capabilities(), declined).await;
    assert_eq!(reason(&declined), "account_link_required", "{}", declined.text);
    let agreed = retry(name, &json!({}), &asked, json!({ "bailiwick-link": { "action": "accept" } }));
    let waiting = tokio::spawn({
        let client = client.clone();
        async move { call(&client, &all_capabilities(), agreed).await }
    });
    let page = running.links("ann", &link).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let done = waiting.await.unwrap();
    assert!(done.tool_text().contains("linked"), "{}", done.text);
}

#[tokio::test]
async fn a_call_of_a_tool_that_was_listed_asks_when_the_account_is_gone_and_goes_on_when_it_is_back() {
    let running = start().await;
    running.linked("ann").await;
    assert_eq!(running.whoami("ann").await.tool_text(), "ann@service");
    let removed = running.gateway.command(&["vault", "revoke", "user:test/ann", "notes"]);
    assert!(removed.status.success(), "{removed:?}");
    let client = running.client("ann");
    let params = json!({ "name": "notes__whoami", "arguments": { "x": 1 } });
    let asked = call(&client, &all_capabilities(), params).await;
    let link = asked.result()["inputRequests"]["bailiwick-link"]["params"]["url"].as_str().unwrap().to_owned();
    running.service.state().account = "ann@elsewhere".to_owned();
    let page = running.links("ann", &link).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let agreed =
        retry("notes__whoami", &json!({ "x": 1 }), &asked, json!({ "bailiwick-link": { "action": "accept" } }));
    let done = call(&client, &all_capabilities(), agreed).await;
    assert_eq!(done.tool_text(), "ann@elsewhere", "{}", done.text);
    // Our question and its answer are nobody else's business.
    let seen = &done.result()["params"];
    assert!(seen.get("inputResponses").is_none() && seen.get("requestState").is_none(), "{seen}");
}

#[tokio::test]
async fn a_legacy_client_is_asked_on_the_stream_of_its_call() {
    use crate::input_legacy::{respond, session, stream};
    let running = start().await;
    let client = running.client("ann");
    let session = session(&client, &json!({ "elicitation": { "url": {} } })).await;
    let mut call = stream(&client, &session, 7, "notes__link_account").await;
    let question = call.next().await;
    assert_eq!((&question["method"], &question["params"]["mode"]), (&json!("elicitation/create"), &json!("url")));
    assert!(question["params"]["elicitationId"].is_string(), "{question}");
    let link = question["params"]["url"].as_str().unwrap().to_owned();
    respond(&client, &session, &question, json!({ "action": "accept" })).await;
    let page = running.links("ann", &link).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let done = call.next().await;
    assert!(done["result"]["content"][0]["text"].as_str().unwrap().contains("linked"), "{done}");
}

#[tokio::test]
async fn pages_cannot_run_or_be_framed_and_say_nothing_before_it_is_known_who_looks() {
    let running = start().await;
    let link = running.link("ann").await;
    let mut browser = Browser::default();
    let welcome = browser.get(&link).await;
    let policy = welcome.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'") && policy.contains("frame-ancestors 'none'"), "{policy}");
    assert!(!policy.contains("script") && !policy.contains("unsafe"), "{policy}");
    assert_eq!(welcome.headers["x-frame-options"], "DENY");
    assert_eq!(welcome.headers["referrer-policy"], "no-referrer");
    assert!(!welcome.text.contains("ann") && !welcome.text.to_lowercase().contains("notes"), "{}", welcome.text);
    running.issuer.seat(vec![Person::new("ann", &["developers"])]);
    let page = browser.follow(&format!("{link}/sign-in")).await;
    for named in ["Notes", "127.0.0.1", "notes:read", "user:test/ann", &running.service.origin] {
        assert!(page.text.contains(named), "{named}: {}", page.text);
    }
    assert_eq!(browser.get(&format!("{}/link/x/y", running.gateway.url)).await.status, 404);
    assert_eq!(browser.get(&format!("{}/link/nonsense", running.gateway.url)).await.status, 410);
    assert_eq!(browser.get(&format!("{}/.well-known/oauth-client/other", running.gateway.url)).await.status, 404);
}

#[tokio::test]
async fn who_we_are_is_written_or_a_document_or_registered_once() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let more = format!("{OAUTH}issuer = \"{}\"\nclient_id = \"written\"\n", service.origin);
    let gateway = Setup::new(&issuer)
        .issuer_lines("link_client_id = \"test-link\"\n")
        .http_server("notes", &service.url(), &more)
        .start()
        .await;
    let running = Running { issuer, service, gateway };
    running.linked("ann").await;
    assert_eq!(running.service.state().asked.pop().unwrap()["client_id"], "written");

    let running = start().await;
    running.service.state().cimd = true;
    running.linked("ann").await;
    let id = running.service.state().asked.pop().unwrap()["client_id"].clone();
    let document = Browser::default().get(&id).await;
    let document: Value = serde_json::from_str(&document.text).unwrap();
    assert_eq!((&document["client_id"], &document["token_endpoint_auth_method"]), (&json!(id), &json!("none")));
    assert_eq!(document["redirect_uris"], json!([format!("{}/link/callback", running.gateway.url)]));
    assert_eq!(running.service.state().registrations, 0);

    let running = start().await;
    running.linked("ann").await;
    running.linked("bob").await;
    assert_eq!(running.service.state().registrations, 1);
}

#[tokio::test]
async fn a_call_that_waits_for_an_account_is_one_of_its_callers_calls() {
    let (issuer, service) = (Issuer::start().await, Linked::start().await);
    let gateway = setup(&issuer, &service).limits("calls_in_flight_max = 1\n").start().await;
    let running = Running { issuer, service, gateway };
    let client = running.client("ann");
    let name = "notes__link_account";
    let agrees = async || {
        let asked = call(&client, &all_capabilities(), json!({ "name": name, "arguments": {} })).await;
        let link = asked.result()["inputRequests"]["bailiwick-link"]["params"]["url"].as_str().unwrap().to_owned();
        (link, retry(name, &json!({}), &asked, json!({ "bailiwick-link": { "action": "accept" } })))
    };
    let ((link, first), (_, second)) = (agrees().await, agrees().await);
    let waiting = [first, second].map(|agreed| {
        let client = client.clone();
        tokio::spawn(async move { call(&client, &all_capabilities(), agreed).await })
    });
    // One of them waits, and the other one is told at once.
    let limited = async || waiting.iter().filter(|waiting| waiting.is_finished()).count() == 1;
    eventually("one that is too many", limited).await;
    // Somebody else has calls of their own.
    assert_eq!(reason(&running.client("bob").call_tool(name, json!({})).await), "account_link_required");
    let page = running.links("ann", &link).await;
    assert!(page.text.contains("is linked"), "{}", page.text);
    let mut told = Vec::new();
    for waiting in waiting {
        told.push(waiting.await.unwrap());
    }
    assert_eq!(told.iter().filter(|answer| reason(answer) == "concurrency_limited").count(), 1, "{told:?}");
    assert_eq!(told.iter().filter(|answer| answer.text.contains("linked")).count(), 1);
}
