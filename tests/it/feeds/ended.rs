//! What else ends with the access of whom a feed names: calls that wait for approval, mandates, and what was issued for them.

use super::events::{claims as event, signed as statement};
use super::*;
use crate::support::client::Answer;
use crate::support::eventually;
use crate::support::gateway::DEVELOPERS_MAY;
use crate::support::sts::{self, Revocation, Sts};

const LINES: &str = "[feeds.corp]\nissuer = \"test\"\n[feeds.corp.logout]\naudiences = [\"test-assistant\"]\n\
                     [feeds.corp.events]\naudiences = [\"https://gateway.example\"]\nsecret = \"file:feed-secret\"\n\
                     [feeds.corp.scim]\nsecret = \"file:feed-secret\"\nsubject = \"userName\"\n";
const ADMIN: &str =
    "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }]";
const RULES: &str = "p, role:developer, *, bailiwick/mandate:*, admin, -, allow\n\
                     p, agent:assistant, *, bailiwick/mandate:*, admin, -, allow\n\
                     g, group:test/admins, role:admin, *\np, role:admin, *, bailiwick/*, admin, -, allow\n";
const GATES: &str = "[gates.deploy]\nobjects = [\"gated/echo\"]\napprovers = [\"group:test/admins\"]\n";
const TEMPLATES: &str = "[templates.task]\ntitle = \"a task\"\ntools = [\"tools/echo\"]\n\
                         environments = [\"development\"]\nagents = [\"assistant\"]\nwall_time = \"10m\"\n";
const AGENTS: &str = "[breaker]\ndenials_per_minute = 1000\nerrors_of = 1000\nerrors_percent = 100\n[agents.assistant]\n\
                      owner = \"user:test/owner\"\nowner_person = \"owner\"\npurpose = \"tests\"\n\
                      kind = \"interactive\"\nenvironments = [\"development\"]\n";

/// What somebody has when the message comes.
struct Has {
    request: String,
    mandate: String,
    credential: String,
}

fn reason(answer: &Answer) -> String {
    let response = answer.response();
    let own = response["reason"].as_str().or(response["result"]["_meta"]["dev.bailiwick/reason"].as_str());
    own.or(response["error"]["data"]["reason"].as_str()).unwrap_or_default().to_owned()
}

async fn asks(client: &Client) -> String {
    let answer = client.call_tool("gated__echo", json!({ "to": "production" })).await;
    let id = answer.result()["structuredContent"]["approval_id"].as_str();
    id.unwrap_or_else(|| panic!("{}", answer.text)).to_owned()
}

async fn under(client: &Client, mandate: &str) -> Answer {
    let meta = json!({ "dev.bailiwick/mandate": mandate });
    client.modern("tools/call", json!({ "name": "tools__echo", "arguments": {}, "_meta": meta })).await
}

async fn has(fed: &Fed, bank: &Scripted, name: &str) -> Has {
    let client = fed.person(name);
    let opened = client.call_tool("bailiwick__mandate_open", json!({ "template": "task" })).await;
    let mandate = opened.result()["structuredContent"]["handle"].as_str();
    let mandate = mandate.unwrap_or_else(|| panic!("{}", opened.text)).to_owned();
    assert_eq!(under(&client, &mandate).await.tool_text(), "{}");
    let used = client.call_tool("bank__echo", json!({ "of": name })).await;
    assert_eq!(used.status, 200, "{}", used.text);
    let presented = bank.calls().pop().unwrap().headers["authorization"].replace("Bearer ", "");
    Has { request: asks(&client).await, mandate, credential: presented }
}

/// An order of an administrator who has just logged in.
async fn order(fed: &Fed, method: reqwest::Method, path: &str, body: Option<Value>) -> Answer {
    let token = fed.issuer.sign(&fed.issuer.administrator("root", &["admins"], &fed.gateway.admin));
    let client = Client::new(&format!("{}/api/v1{path}", fed.gateway.admin), Some(&token));
    match body {
        Some(body) => client.post(&[], body.to_string()).await,
        None => client.bare(method, &[]).await,
    }
}

async fn view(fed: &Fed, request: &str) -> Value {
    order(fed, reqwest::Method::GET, &format!("/approvals/{request}"), None).await.response().clone()
}

async fn approve(fed: &Fed, request: &str) -> Answer {
    let shown = view(fed, request).await["shown"].clone();
    let path = format!("/approvals/{request}/approve");
    order(fed, reqwest::Method::POST, &path, Some(json!({ "shown": shown }))).await
}

/// A token of after the sign-out that the record told of last.
fn later(fed: &Fed, name: &str) -> Client {
    let mut sign_outs = fed.ordered().into_iter().filter(|record| record["revocation"]["mode"] == "sign_out");
    let before = sign_outs.next_back().unwrap()["revocation"]["issued_before"].as_i64().unwrap();
    let mut claims = fed.issuer.claims(name, &["developers"], &fed.gateway.resource());
    claims["iat"] = json!(before + 1);
    fed.gateway.client(&fed.issuer.sign(&claims))
}

#[tokio::test]
async fn what_waits_for_approval_mandates_and_what_was_issued_end_with_the_access_and_stay_so() {
    let (bank, sts) = (Scripted::echo().await, Sts::start(Revocation::Has).await);
    let credential = format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", audience = \"https://bank.example\" }}",
        sts.url
    );
    let fed = Fed::with(LINES, |setup| {
        setup
            .issuer_lines("leeway = \"60s\"\n")
            .claims("person = \"person\"\n")
            .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
            .policy_file("agents.toml", AGENTS)
            .policy_file("gates.toml", GATES)
            .policy_file("mandates.toml", TEMPLATES)
            .http_server("bank", &bank.url, &credential)
            .http_server("gated", &bank.url, "")
            .admin(ADMIN)
    })
    .await;
    let bystander = has(&fed, &bank, "dora").await;
    let user = base64::Engine::encode(&base64::engine::general_purpose::URL_SAFE_NO_PAD, "cid");
    for (name, way) in [("ann", "event"), ("ben", "logout"), ("cid", "scim")] {
        let had = has(&fed, &bank, name).await;
        let status = match way {
            "event" => {
                let kind = "https://schemas.openid.net/secevent/caep/event-type/session-revoked";
                let token = statement(&fed.issuer, &event(&fed, kind, name));
                let headers = [("content-type", "application/secevent+jwt"), bearer()];
                fed.post("/feeds/corp/events", &headers, &token).await.status
            }
            "logout" => {
                let now = jiff::Timestamp::now().as_second();
                let claims = json!({
                    "iss": fed.issuer.url, "aud": "test-assistant", "iat": now, "exp": now + 120, "sub": name,
                    "jti": ulid::Ulid::generate().to_string(),
                    "events": { "http://schemas.openid.net/event/backchannel-logout": {} },
                });
                let token = fed.issuer.sign_with(&claims, |header| header.typ = Some("logout+jwt".to_owned()));
                let form = ("content-type", "application/x-www-form-urlencoded");
                fed.post("/feeds/corp/logout", &[form], &format!("logout_token={token}")).await.status
            }
            _ => {
                let headers = [bearer(), ("content-type", "application/scim+json")];
                let gone = json!({ "Operations": [{ "op": "replace", "path": "active", "value": false }] });
                let path = format!("/feeds/corp/scim/v2/Users/{user}");
                fed.send(reqwest::Method::PATCH, &path, &headers, &gone.to_string()).await.status
            }
        };
        assert!((200..300).contains(&status), "{way}: {status}");
        // What was issued is given back, and nobody approves what nobody can call.
        eventually("what was issued to be given back", async || {
            sts.revoked().iter().any(|form| form["token"] == had.credential)
        })
        .await;
        let late = approve(&fed, &had.request).await;
        assert_eq!((late.status, reason(&late).as_str()), (409, "approval_over"), "{way}: {}", late.text);
        // With the next login nothing of it is there.
        let again = later(&fed, name);
        // Its time comes; whoever is refused too often meanwhile is not heard at all.
        tokio::time::sleep(Duration::from_secs(1)).await;
        eventually("the new login to be good", async || works(&again).await).await;
        let over = under(&again, &had.mandate).await;
        assert_eq!(reason(&over), "mandate_ended", "{way}: {}", over.text);
        let next = asks(&again).await;
        assert_ne!(next, had.request, "{way}");
        assert_eq!(view(&fed, &had.request).await["state"], "withdrawn", "{way}");
        // Nor once the sign-out is lifted, which leaves what was asked for since.
        let held = order(&fed, reqwest::Method::GET, "/revocations", None).await;
        let held = held.response()["revocations"].as_array().unwrap().clone();
        let own = held.iter().find(|held| held["target"] == "subject" && held["value"] == name).unwrap();
        let path = format!("/revocations/{}", own["since"]);
        let lifted = order(&fed, reqwest::Method::DELETE, &path, None).await;
        assert_eq!(lifted.status, 200, "{way}: {}", lifted.text);
        let over = under(&again, &had.mandate).await;
        assert_eq!(reason(&over), "mandate_ended", "{way}: {}", over.text);
        assert_eq!((asks(&again).await, view(&fed, &next).await["state"].clone()), (next, json!("pending")), "{way}");
    }
    // Nobody else's is touched.
    let dora = fed.person("dora");
    assert_eq!(under(&dora, &bystander.mandate).await.tool_text(), "{}");
    assert!(sts.revoked().iter().all(|form| sts::claims(&form["token"])["sub"] != "dora"), "{:?}", sts.revoked());
    let approved = approve(&fed, &bystander.request).await;
    assert_eq!(approved.response()["state"], "approved", "{}", approved.text);
    // The record tells of each mandate that ended.
    let ended = |record: &Value| record["mandate"]["event"] == "completed";
    assert_eq!(fed.gateway.records("mandate").iter().filter(|record| ended(record)).count(), 3);
}
