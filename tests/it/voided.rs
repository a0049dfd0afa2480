//! What was handed out before access was taken back is void for good: also once that is lifted, and after a new login.

use std::sync::Mutex;
use std::time::Duration;

use serde_json::{Value, json};

use crate::input::{all_capabilities, call, may_ask, reason, retry};
use crate::support::client::Client;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::peer::{Peer, Reached};
use crate::support::postgres::Database;
use crate::support::scripted::tool;
use crate::tasks::{EXTENSION, Task, ask, begin, extension, working};

pub const ADMIN: &str = "clients = [{ issuer = \"test\", client_id = \"test-admin\" }]";
pub const RULES: &str = "g, group:test/admins, role:admin, *\np, role:admin, *, bailiwick/*, admin, -, allow\n";

/// More tools than a page has; `job` becomes a task, and `ask` asks.
async fn upstream() -> Peer {
    let state = Task::new(Mutex::new(working()));
    let mut tools = vec![tool("job"), tool("ask")];
    tools.extend((0..bailiwick::limit::LIST_PAGE_ITEMS_MAX).map(|number| tool(&format!("t{number}"))));
    Peer::modern(json!({ "extensions": { EXTENSION: {} } }), json!(tools), move |request: &Reached| {
        let asks = request.method == "tools/call" && request.params["name"] == "ask";
        if !asks {
            return extension(request, &state);
        }
        if request.params.get("inputResponses").is_some() {
            return Ok(json!({ "resultType": "complete", "content": [] }));
        }
        let question = json!({ "method": "elicitation/create", "params": { "mode": "form", "message": "Your name?",
            "requestedSchema": { "type": "object", "properties": { "name": { "type": "string" } } } } });
        Ok(json!({ "resultType": "input_required", "inputRequests": { "q": question }, "requestState": "inner" }))
    })
    .await
}

/// One of each that somebody is handed.
struct Handles {
    session: String,
    cursor: Value,
    task: String,
    retry: Value,
}

impl Handles {
    async fn of(client: &Client) -> Self {
        let (_, session) = client.initialize("2025-11-25").await;
        let cursor = client.modern("tools/list", json!({})).await.result()["nextCursor"].clone();
        assert!(cursor.is_string(), "there is a second page");
        let task = begin(client).await;
        let params = json!({ "name": "tools__ask", "arguments": {} });
        let asked = call(client, &all_capabilities(), params).await;
        let answers = json!({ "q": { "action": "accept", "content": { "name": "a" } } });
        Self { session, cursor, task, retry: retry("tools__ask", &json!({}), &asked, answers) }
    }

    /// Which of them are good for this client: session, cursor, task, state of a question. What is not looks like one
    /// that never was.
    async fn good(&self, client: &Client) -> [bool; 4] {
        let session = client.legacy(&self.session, "ping", json!({})).await;
        assert!(matches!(session.status, 200 | 404), "{} {}", session.status, session.text);
        let page = client.modern("tools/list", json!({ "cursor": self.cursor })).await;
        let task = ask(client, "tasks/get", json!({ "taskId": self.task })).await;
        for answer in [&page, &task] {
            let told = &answer.response()["error"]["code"];
            assert!(told.is_null() || *told == -32602, "{}", answer.text);
        }
        let state = call(client, &all_capabilities(), self.retry.clone()).await;
        assert!(matches!(reason(&state), "" | "input_state_invalid"), "{}", state.text);
        let answered = |answer: &crate::support::client::Answer| answer.response()["error"]["code"].is_null();
        [session.status == 200, answered(&page), answered(&task), reason(&state).is_empty()]
    }
}

const GOOD: [bool; 4] = [true; 4];
const VOID: [bool; 4] = [false; 4];

pub fn revoke(gateway: &Gateway, arguments: &[&str]) {
    let arguments: Vec<_> = ["revoke"].iter().chain(arguments).chain(&["--config", "servers.toml"]).copied().collect();
    let output = gateway.command(&arguments);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// Lifts all that holds.
pub async fn lift(issuer: &Issuer, gateway: &Gateway) {
    let token = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let at = |path: &str| Client::new(&format!("{}/api/v1{path}", gateway.admin), Some(&token));
    let held = at("/revocations").bare(reqwest::Method::GET, &[]).await;
    let held = held.response()["revocations"].as_array().unwrap().clone();
    assert!(!held.is_empty());
    for held in held {
        let lifted = at(&format!("/revocations/{}", held["since"])).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
    }
}

async fn stays_void(database: Option<Database>) {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = Setup::new(&issuer)
        .issuer_lines("leeway = \"60s\"\n")
        .policy(&format!("{}{RULES}", may_ask(&["elicit"])))
        .http_server("tools", &upstream.url, "")
        .admin(ADMIN);
    let setup = if let Some(database) = &database { setup.shared(database) } else { setup };
    let mut gateway = setup.start().await;
    let resource = gateway.resource();
    let token = |user: &str, ahead: i64| {
        let mut claims = issuer.claims(user, &["developers"], &resource);
        claims["iat"] = json!(jiff::Timestamp::now().as_second() + ahead);
        issuer.sign(&claims)
    };
    let (alice, bob) = (token("alice", 0), token("bob", 0));
    let before = Handles::of(&gateway.client(&alice)).await;
    let others = Handles::of(&gateway.client(&bob)).await;
    assert_eq!(before.good(&gateway.client(&alice)).await, GOOD);

    // A block that is lifted: the same token is good again, and nothing of before.
    revoke(&gateway, &["subject", "user:test/alice"]);
    assert_eq!(gateway.client(&alice).call_tool("tools__t0", json!({})).await.status, 401);
    lift(&issuer, &gateway).await;
    assert_eq!(before.good(&gateway.client(&alice)).await, VOID);
    let after = Handles::of(&gateway.client(&alice)).await;
    assert_eq!(after.good(&gateway.client(&alice)).await, GOOD);

    // A sign-out, and a new login.
    revoke(&gateway, &["subject", "user:test/alice", "--sign-out"]);
    assert_eq!(gateway.client(&alice).call_tool("tools__t0", json!({})).await.status, 401);
    tokio::time::sleep(Duration::from_secs(2)).await;
    let alice = token("alice", 60);
    for old in [&before, &after] {
        assert_eq!(old.good(&gateway.client(&alice)).await, VOID);
    }
    let anew = Handles::of(&gateway.client(&alice)).await;
    assert_eq!(anew.good(&gateway.client(&alice)).await, GOOD);
    assert_eq!(others.good(&gateway.client(&bob)).await, GOOD, "nothing of anybody else's is void");

    // What leads to a server that was taken back; a session leads to none, and a list may be another one.
    let but_cursor = |good: [bool; 4]| [good[0], good[2], good[3]];
    revoke(&gateway, &["server", "tools"]);
    lift(&issuer, &gateway).await;
    for (handles, token) in [(&anew, &alice), (&others, &bob)] {
        assert_eq!(but_cursor(handles.good(&gateway.client(token)).await), [true, false, false]);
    }

    // An agent, which is everybody's here; it is back once that is lifted, like the server.
    revoke(&gateway, &["agent", "assistant"]);
    assert_ne!(gateway.client(&bob).call_tool("tools__t0", json!({})).await.status, 200);
    lift(&issuer, &gateway).await;
    for (handles, token) in [(&anew, &alice), (&others, &bob)] {
        assert_eq!(handles.good(&gateway.client(token)).await, VOID);
    }

    // Whoever starts has never seen any of it.
    assert!(gateway.stop().await.success());
    if database.is_some() {
        gateway = gateway.replica("state-of-another", &[], &[]);
    }
    gateway.launch().await;
    for (handles, token) in [(&before, &alice), (&after, &alice), (&anew, &alice), (&others, &bob)] {
        assert_eq!(handles.good(&gateway.client(token)).await, VOID);
    }
    let last = Handles::of(&gateway.client(&alice)).await;
    assert_eq!(last.good(&gateway.client(&alice)).await, GOOD);
}

#[tokio::test]
async fn what_was_handed_out_before_a_revocation_is_void_once_it_is_lifted_and_after_a_new_login() {
    stays_void(None).await;
}

#[tokio::test]
async fn with_postgresql_it_is_void_at_a_replica_that_has_seen_none_of_it() {
    let Some(database) = Database::fresh().await else { return };
    stays_void(Some(database)).await;
}

/// Writes who answers for what stands under that heading, and has it read.
async fn give(issuer: &Issuer, gateway: &Gateway, (file, heading): (&str, &str), owner: &str) {
    let path = gateway.directory().join(file);
    let text = std::fs::read_to_string(&path).unwrap();
    let (head, tail) = text.split_at(text.find(heading).unwrap());
    let (_, rest) = tail.split_once("owner = \"").unwrap();
    let (_, rest) = rest.split_once('"').unwrap();
    std::fs::write(&path, format!("{head}{heading}\nowner = \"{owner}\"{rest}")).unwrap();
    // Another owner is more than a brake, which takes an administrator here.
    let token = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let url = format!("{}/api/v1/reload", gateway.admin);
    let loaded = Client::new(&url, Some(&token)).post(&[], json!({ "allow_widening": true }).to_string()).await;
    assert_eq!(loaded.status, 200, "{}", loaded.text);
}

#[tokio::test]
async fn what_was_handed_out_is_void_with_whoever_answers_for_its_agent_or_server_when_access_is_taken() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let setup = Setup::new(&issuer)
        .policy(&format!("{}{RULES}", may_ask(&["elicit"])))
        .http_server("tools", &upstream.url, "")
        .admin(ADMIN);
    let gateway = setup.start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    for (place, owner, session_is_good) in [
        (("policies/agents.toml", "[agents.assistant]"), "user:test/one", false),
        (("servers.toml", "[servers.tools]"), "user:test/other", true),
    ] {
        // Somebody else answers for it since; is taken back, and is back.
        let before = Handles::of(&client).await;
        give(&issuer, &gateway, place, owner).await;
        // A list under other files begins again; that is no matter of whose it is.
        let [session, _, task, state] = before.good(&client).await;
        assert_eq!([session, task, state], [true; 3], "another owner alone voids nothing: {place:?}");
        revoke(&gateway, &["owner", owner]);
        let stopped = client.call_tool("tools__t0", json!({})).await;
        assert!(stopped.status != 200 || stopped.response()["error"].is_object(), "{}", stopped.text);
        lift(&issuer, &gateway).await;
        let [session, _, task, state] = before.good(&client).await;
        assert_eq!([session, task, state], [session_is_good, false, false], "{place:?}");
        let after = Handles::of(&client).await;
        assert_eq!(after.good(&client).await, GOOD, "{place:?}");
    }
}
