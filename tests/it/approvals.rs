//! Gates: a call that needs a person waits for one, and what they approve is good for exactly that call, once.

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::postgres::Database;
use crate::support::scripted::{Scripted, result, text, tool};

mod approver;
mod binding;
mod bounds;
mod break_glass;
mod console;
mod delivery;
mod meanwhile;
mod parties;
pub mod reading;
mod replay;
mod standing;
mod standing_meanwhile;
mod tasks;
mod webhooks;

const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }]\n\
                     [admin.console]\nissuer = \"test\"\nclient_id = \"test-console\"";

/// Approvers and managers may decide; what about is what the gates say.
const RULES: &str = "\
g, group:test/approvers, role:approver, *
g, group:test/managers, role:approver, *
g, group:test/lookers, role:looker, *
p, role:approver, *, bailiwick/approvals, admin, -, allow
p, role:approver, *, bailiwick/approve, admin, -, allow
p, role:approver, *, bailiwick/deny, admin, -, allow
p, role:looker, *, bailiwick/approvals, admin, -, allow
";

const GATES: &str = "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/approvers\"]\n";

/// The file that every test has, with the human whom its owner is.
const AGENTS: &str = "\
[breaker]
denials_per_minute = 1000
errors_of = 1000
errors_percent = 100
[agents.assistant]
owner = \"user:test/owner\"
owner_person = \"owner\"
purpose = \"tests\"
kind = \"interactive\"
environments = [\"development\"]
";

struct Running {
    issuer: Issuer,
    upstream: Scripted,
    gateway: Gateway,
}

fn setup(issuer: &Issuer, upstream: &Scripted, gates: &str) -> Setup {
    Setup::new(issuer)
        .claims("person = \"person\"\n")
        .policy(&format!("{DEVELOPERS_MAY}{RULES}"))
        .policy_file("gates.toml", gates)
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &upstream.url, "title = \"Tools\"\npins = \"off\"\nidempotent = [\"echo\"]")
        .admin(ADMIN)
}

/// Tools that answer their arguments.
async fn upstream() -> Scripted {
    Scripted::start(json!([tool("echo"), tool("look")]), |call| {
        result(call, text(&call["params"]["arguments"].to_string()))
    })
    .await
}

async fn start(gates: &str) -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream, gates).start().await;
    Running { issuer, upstream, gateway }
}

/// The same with its rows in PostgreSQL; nothing where there is none.
async fn start_shared(gates: &str) -> Option<Running> {
    let database = Database::fresh().await?;
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = setup(&issuer, &upstream, gates);
    let gateway = setup.shared(&database).start().await;
    Some(Running { issuer, upstream, gateway })
}

impl Running {
    fn caller(&self, user: &str) -> Client {
        self.gateway.client(&self.issuer.token(user, &["developers"], &self.gateway.resource()))
    }

    async fn call(&self, user: &str, arguments: Value) -> Answer {
        self.caller(user).call_tool("tools__echo", arguments).await
    }

    /// The request that a call waits for.
    async fn asks(&self, user: &str, arguments: Value) -> String {
        let answer = self.call(user, arguments).await;
        waits(&answer)
    }

    /// A person who has just logged in to decide.
    fn person(&self, user: &str, groups: &[&str]) -> String {
        self.issuer.sign(&self.issuer.administrator(user, groups, &self.gateway.admin))
    }

    fn bob(&self) -> String {
        self.person("bob", &["approvers"])
    }

    fn at(&self, path: &str, token: &str) -> Client {
        Client::new(&format!("{}/api/v1{path}", self.gateway.admin), Some(token))
    }

    async fn view(&self, id: &str, token: &str) -> Value {
        let answer = self.at(&format!("/approvals/{id}"), token).bare(reqwest::Method::GET, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.response().clone()
    }

    async fn approve(&self, id: &str, token: &str) -> Answer {
        let shown = self.view(id, &self.person("looker", &["lookers"])).await["shown"].clone();
        let order = json!({ "shown": shown }).to_string();
        self.at(&format!("/approvals/{id}/approve"), token).post(&[], order).await
    }

    async fn deny(&self, id: &str, token: &str) -> Answer {
        self.at(&format!("/approvals/{id}/deny"), token).post(&[], json!({ "note": "not today" }).to_string()).await
    }

    /// What happened to a request, as the record tells it.
    fn events(&self, id: &str) -> Vec<String> {
        let all = self.gateway.records("approval").into_iter().map(|record| record["approval"].clone());
        all.filter(|approval| approval["id"] == id)
            .map(|approval| approval["event"].as_str().unwrap().to_owned())
            .collect()
    }

    fn calls(&self) -> usize {
        self.upstream.calls().len()
    }
}

/// The request that an answer says the call waits for.
fn waits(answer: &Answer) -> String {
    let content = &answer.result()["structuredContent"];
    assert_eq!((answer.status, &answer.result()["isError"]), (200, &json!(true)), "{}", answer.text);
    assert_eq!(content["status"], "approval_required", "{}", answer.text);
    content["approval_id"].as_str().unwrap().to_owned()
}

fn reason(answer: &Answer) -> String {
    let response = answer.response();
    let own = response["reason"].as_str().or(response["result"]["_meta"]["dev.bailiwick/reason"].as_str());
    own.unwrap_or_default().to_owned()
}

async fn a_call_waits_is_approved_and_happens_once(running: &Running) {
    let id = running.asks("alice", json!({ "to": "production" })).await;
    assert_eq!(running.asks("alice", json!({ "to": "production" })).await, id, "the identical call attaches to it");
    assert_eq!(running.calls(), 0);
    let view = running.view(&id, &running.bob()).await;
    assert_eq!((&view["state"], &view["arguments"]), (&json!("pending"), &json!({ "to": "production" })));
    assert_eq!((&view["requester"], &view["server"]), (&json!("user:test/alice"), &json!("tools")));
    let approved = running.approve(&id, &running.bob()).await;
    assert_eq!((approved.status, &approved.response()["state"]), (200, &json!("approved")), "{}", approved.text);
    let answer = running.call("alice", json!({ "to": "production" })).await;
    assert_eq!((answer.tool_text(), running.calls()), (r#"{"to":"production"}"#, 1));
    let next = running.asks("alice", json!({ "to": "production" })).await;
    assert_ne!(next, id, "it is good once");
    assert_eq!(running.calls(), 1);
    assert_eq!(running.view(&id, &running.bob()).await["state"], "consumed");
}

#[tokio::test]
async fn what_one_person_approves_happens_once_and_the_record_tells_it_all() {
    let running = start(GATES).await;
    a_call_waits_is_approved_and_happens_once(&running).await;
    let records = running.gateway.records("approval");
    let first = records[0]["approval"].clone();
    let id = first["id"].as_str().unwrap();
    assert_eq!(running.events(id), ["requested", "viewed", "viewed", "approved", "consumed", "viewed"]);
    let of = |event: &str| records.iter().find(|record| record["approval"]["event"] == event).unwrap();
    assert_eq!(of("requested")["subject"]["id"], "user:test/alice");
    let approved = of("approved");
    assert_eq!(approved["subject"]["id"], "user:test/bob");
    let approver = &approved["approval"]["approvers"][0];
    assert_eq!((&approver["id"], &approver["acr"]), (&json!("user:test/bob"), &json!("strong")));
    assert!(approver["authenticated_at"].is_i64(), "{approver}");
    let consumed = of("consumed");
    let intents = running.gateway.records("intent");
    let intent = intents.iter().find(|intent| intent["call"] == consumed["call"]).unwrap();
    assert_eq!((&intent["approval"], &intent["leg"]), (&json!(id), &consumed["leg"]), "the intent says what it uses");
    for key in ["binding", "shown", "revision", "gates", "environment", "requester"] {
        assert_eq!(first[key], consumed["approval"][key], "{key}");
    }
    assert!(!records.iter().any(|record| record.to_string().contains("production\"")), "no argument is on the record");
    let begun = running.gateway.records("admin").into_iter().find(|record| record["admin"]["operation"] == "approve");
    assert_eq!(begun.unwrap()["admin"]["outcome"], "begun", "it was on the record before it was done");
}

#[tokio::test]
async fn the_same_holds_where_the_rows_are_in_postgresql() {
    let Some(running) = start_shared(GATES).await else { return };
    a_call_waits_is_approved_and_happens_once(&running).await;
    two_retries_at_once_are_one_call(&running).await;
}

async fn two_retries_at_once_are_one_call(running: &Running) {
    let before = running.calls();
    let id = running.asks("carol", json!({ "n": 7 })).await;
    assert_eq!(running.approve(&id, &running.bob()).await.status, 200);
    let caller = running.caller("carol");
    let calls: Vec<_> = (0..8)
        .map(|_| {
            let caller = caller.clone();
            tokio::spawn(async move { caller.call_tool("tools__echo", json!({ "n": 7 })).await })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        let answer = call.await.unwrap();
        if answer.result()["isError"] != true {
            answered += 1;
        } else {
            assert!(["approval_consumed", "approval_required"].contains(&reason(&answer).as_str()), "{}", answer.text);
        }
    }
    assert_eq!((answered, running.calls() - before), (1, 1), "exactly one of them happened");
}

#[tokio::test]
async fn of_retries_at_once_exactly_one_happens() {
    let running = start(GATES).await;
    two_retries_at_once_are_one_call(&running).await;
}

#[tokio::test]
async fn what_no_gate_means_waits_for_nobody() {
    let running = start(GATES).await;
    let answer = running.caller("alice").call_tool("tools__look", json!({ "x": 1 })).await;
    assert_eq!((answer.tool_text(), running.calls()), (r#"{"x":1}"#, 1));
    assert!(running.gateway.records("approval").is_empty());
}

#[tokio::test]
async fn what_is_denied_stays_denied_for_as_long_as_it_would_have_waited() {
    let gates = format!("{GATES}pending_for = \"3s\"\n");
    let running = start(&gates).await;
    let id = running.asks("alice", json!({ "n": 1 })).await;
    let denied = running.deny(&id, &running.bob()).await;
    assert_eq!((denied.status, &denied.response()["state"]), (200, &json!("denied")), "{}", denied.text);
    let answer = running.call("alice", json!({ "n": 1 })).await;
    assert_eq!(reason(&answer), "approval_denied");
    assert!(answer.tool_text().contains("not today"), "{}", answer.text);
    let late = running.approve(&id, &running.bob()).await;
    assert_eq!((late.status, reason(&late).as_str()), (409, "approval_over"));
    let mut next = id.clone();
    for _ in 0..100 {
        let answer = running.call("alice", json!({ "n": 1 })).await;
        if reason(&answer) != "approval_denied" {
            next = waits(&answer);
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert_ne!(next, id, "then it can be asked for again");
    assert_eq!(running.calls(), 0);
    assert!(running.events(&id).contains(&"denied".to_owned()));
}

#[tokio::test]
async fn nobody_in_time_is_a_no_and_what_was_approved_does_not_keep() {
    let gates = "[gates.deploy]\nobjects = [\"tools/echo\"]\napprovers = [\"group:test/approvers\"]\n\
                 pending_for = \"1s\"\napproved_for = \"1s\"\n";
    let running = start(gates).await;
    let unseen = running.asks("alice", json!({ "n": 1 })).await;
    let state = async |id: &str, wanted: &str| {
        for _ in 0..100 {
            if running.view(id, &running.bob()).await["state"] == wanted {
                return;
            }
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        panic!("{id} is never {wanted}");
    };
    state(&unseen, "expired").await;
    assert_eq!(running.approve(&unseen, &running.bob()).await.status, 409, "it is too late");
    let unused = running.asks("alice", json!({ "n": 1 })).await;
    assert_ne!(unused, unseen);
    assert_eq!(running.approve(&unused, &running.bob()).await.status, 200);
    state(&unused, "expired").await;
    let again = running.asks("alice", json!({ "n": 1 })).await;
    assert!(![&unseen, &unused].contains(&&again));
    assert_eq!(running.calls(), 0);
    for id in [&unseen, &unused] {
        assert_eq!(running.events(id).iter().filter(|event| *event == "expired").count(), 1, "told once");
    }
}

#[tokio::test]
async fn a_caller_has_so_many_requests_that_wait_and_no_more() {
    let running = start(GATES).await;
    let most = bailiwick::limit::APPROVALS_PENDING_PER_PRINCIPAL_MAX;
    for number in 0..most {
        running.asks("alice", json!({ "n": number })).await;
    }
    assert_eq!(reason(&running.call("alice", json!({ "n": "more" })).await), "approvals_limited");
    running.asks("alice", json!({ "n": 0 })).await;
    running.asks("dave", json!({ "n": "more" })).await;
}

#[tokio::test]
async fn arguments_that_nobody_can_look_at_are_not_approved() {
    let running = start(GATES).await;
    let big: Vec<String> = (0..40).map(|_| "x".repeat(bailiwick::limit::APPROVAL_TEXT_CHARACTERS_MAX)).collect();
    assert!(big.concat().len() > bailiwick::limit::APPROVAL_PREVIEW_BYTES_MAX);
    assert_eq!(reason(&running.call("alice", json!({ "all": big })).await), "arguments_unfit");
    let body = |arguments: &str| {
        let (headers, body) = crate::support::client::modern_request(
            "tools/call",
            json!({ "name": "tools__echo", "arguments": { "n": "HERE" } }),
        );
        (headers, body.to_string().replace("\"HERE\"", arguments))
    };
    for number in ["9007199254740993", "1e400", "0.10000000000000000001"] {
        let (headers, body) = body(number);
        assert_eq!(reason(&running.caller("alice").post(&headers, body).await), "arguments_unfit", "{number}");
    }
    assert_eq!(running.calls(), 0);
}
