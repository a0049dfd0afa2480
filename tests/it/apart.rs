//! Two callers who differ in anything are two callers: whatever is generated for them, they share no credential, no
//! process, and nothing that is a principal's.
//!
//! A credential and a process hang on everything that a call comes with. A session at an upstream and a list are a
//! principal's (issuer, subject, client, agent, chain): of two logins of the same one, each presents its own credential
//! in the session that both have.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, Method, Response};
use proptest::prelude::*;
use proptest::strategy::ValueTree as _;
use proptest::test_runner::TestRunner;
use serde_json::{Value, json};

use crate::processes::command;
use crate::support::client::Client;
use crate::support::eventually_within;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, raw, result, text, tool};
use crate::support::sts::{Revocation, Sts, claims};

/// Everything that a call comes with, each of one of two kinds: issuer, subject, client, chain, mandate, scopes, login.
type Inputs = [bool; 7];
const NAMES: [&str; 7] = ["issuer", "subject", "client", "chain", "mandate", "scopes", "login"];
const SERVERS: [&str; 3] = ["web", "old", "process"];
/// How many generated callers there are, each with somebody who differs in one input.
const PAIRS: usize = 7;
/// How many of them one person is at most.
const PER_PERSON: usize = 4;

/// What of the inputs makes the principal.
fn principal(inputs: Inputs) -> [bool; 4] {
    [inputs[0], inputs[1], inputs[2], inputs[3]]
}

fn generated() -> BTreeSet<Inputs> {
    // The same ones each time: what fails here fails again.
    let mut runner = TestRunner::deterministic();
    let mut all = BTreeSet::new();
    for which in 0..PAIRS {
        loop {
            let one: Inputs = any::<Inputs>().new_tree(&mut runner).unwrap().current();
            let mut other = one;
            other[which] = !other[which];
            let mut more: BTreeSet<Inputs> = all.clone();
            more.extend([one, other]);
            // No person has more processes than fit: one for each of these, and one for each principal's list.
            let of = |person: [bool; 2]| more.iter().filter(|inputs| inputs[..2] == person).count();
            if more.len() > all.len() && more.iter().all(|inputs| of([inputs[0], inputs[1]]) <= PER_PERSON) {
                all = more;
                break;
            }
        }
    }
    all
}

/// A server with sessions, which tells in which one it was asked, and with what.
async fn old() -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/mcp", listener.local_addr().unwrap());
    let router = axum::Router::new().route("/mcp", axum::routing::any(answer)).with_state(Arc::default());
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    url
}

async fn answer(
    State(sessions): State<Arc<AtomicUsize>>,
    verb: Method,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    if verb != Method::POST {
        return Response::builder().status(405).body(Body::empty()).unwrap();
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned();
    let (session, token) = (header("mcp-session-id"), header("authorization").replace("Bearer ", ""));
    let message: Value = serde_json::from_slice(&body).unwrap();
    let say = |kind: &str, content: Value| {
        let answer = json!({ "jsonrpc": "2.0", "id": message["id"], kind: content });
        raw("application/json", answer.to_string())
    };
    let listed =
        json!({ "name": "whoami", "description": format!("with {token}"), "inputSchema": { "type": "object" } });
    match message["method"].as_str().unwrap_or_default() {
        "initialize" => {
            let number = sessions.fetch_add(1, Ordering::SeqCst);
            let mut answer = say(
                "result",
                json!({
                    "protocolVersion": "2025-11-25", "capabilities": { "tools": {} },
                    "serverInfo": { "name": "old", "version": "1" },
                }),
            );
            answer.headers_mut().insert("mcp-session-id", format!("s{number}").parse().unwrap());
            answer
        }
        "tools/list" => say("result", json!({ "tools": [listed] })),
        "tools/call" => {
            let told = json!({ "session": session, "token": token }).to_string();
            say("result", json!({ "content": [{ "type": "text", "text": told }] }))
        }
        "ping" => say("result", json!({})),
        _ if message.get("id").is_none() => Response::builder().status(202).body(Body::empty()).unwrap(),
        _ => say("error", json!({ "code": -32601, "message": "method not found" })),
    }
}

const RULES: &str = "p, anyone, *, */*, call, -, allow\np, anyone, *, bailiwick/mandate:*, admin, -, allow\n";

fn agents() -> String {
    let agent = |id: &str, client: &str| {
        format!(
            "[agents.{id}]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
             environments = [\"development\"]\nclients = [{{ issuer = \"test\", client_id = \"{client}\" }}, \
             {{ issuer = \"other\", client_id = \"{client}\" }}]\n"
        )
    };
    [agent("assistant", "test-assistant"), agent("second", "second-client"), agent("planner", "planner")].concat()
}

struct World {
    issuers: [Issuer; 2],
    gateway: Gateway,
}

impl World {
    fn token(&self, inputs: Inputs) -> String {
        let pick = |index: usize, names: [&'static str; 2]| names[usize::from(inputs[index])];
        let issuer = &self.issuers[usize::from(inputs[0])];
        let mut login = issuer.claims(pick(1, ["alice", "bob"]), &[], &self.gateway.resource());
        login["client_id"] = json!(pick(2, ["test-assistant", "second-client"]));
        login["scope"] = json!(pick(5, ["mcp", "mcp more"]));
        login["jti"] = json!(pick(6, ["one", "two"]));
        if inputs[3] {
            login["act"] = json!({ "sub": "planner" });
        }
        issuer.sign(&login)
    }

    /// Opens one of the two mandates that each principal has.
    async fn mandate(&self, client: &Client) -> String {
        let opened = client.call_tool("bailiwick__mandate_open", json!({ "template": "all" })).await;
        opened.result()["structuredContent"]["handle"].as_str().unwrap_or_else(|| panic!("{}", opened.text)).to_owned()
    }
}

#[tokio::test]
async fn callers_who_differ_in_one_generated_input_share_nothing() {
    let (issuers, sts) = ([Issuer::start().await, Issuer::start().await], Sts::start(Revocation::Has).await);
    let web = Scripted::start(json!([tool("whoami")]), |call| result(call, text("done"))).await;
    let place = tempfile::tempdir().unwrap();
    let command = command(place.path());
    let credential = format!(
        "credential = {{ kind = \"exchange\", issuer = \"{}\", client_id = \"gateway\", audience = \"https://s.example\" }}\n\
         pins = \"off\"\n",
        sts.url
    );
    let slow = |id: &str| format!("[servers.{id}.health]\nconnect_timeout = \"60s\"\n");
    let gateway = Setup::new(&issuers[0])
        .http_server("web", &web.url, &credential)
        .http_server("old", &old().await, &credential)
        .stdio_server(
            "process",
            &command.iter().map(String::as_str).collect::<Vec<_>>(),
            &format!("{credential}credential_variable = \"SERVICE_TOKEN\"\n{}", slow("process")),
        )
        .sections(&format!(
            "[issuers.other]\nissuer = \"{}\"\nalgorithms = [\"ES256\"]\n[issuers.other.claims]\ngroups = \"groups\"\n",
            issuers[1].url
        ))
        .policy(RULES)
        .policy_file("agents.toml", &agents())
        .policy_file(
            "mandates.toml",
            "[templates.all]\ntitle = \"everything\"\ntools = [\"web/*\", \"old/*\", \"process/*\"]\n\
             environments = [\"development\"]\nagents = [\"assistant\", \"second\"]\nwall_time = \"10m\"\n",
        )
        .start()
        .await;
    let world = World { issuers, gateway };
    let all: Vec<Inputs> = generated().into_iter().collect();
    assert!(all.len() > PAIRS, "{all:?}");

    // One token for each login, and two mandates for each principal.
    let clients: Vec<(Inputs, Client)> =
        all.iter().map(|one| (*one, world.gateway.client(&world.token(*one)))).collect();
    let mut mandates: BTreeMap<([bool; 4], bool), String> = BTreeMap::new();
    for (one, client) in &clients {
        let of = (principal(*one), one[4]);
        if let std::collections::btree_map::Entry::Vacant(place) = mandates.entry(of) {
            place.insert(world.mandate(client).await);
        }
    }
    // Everybody's lists first, however long many of them take at once.
    for (one, client) in &clients {
        eventually_within(Duration::from_secs(60), "the lists to be there", async || {
            let listed = client.modern("tools/list", json!({})).await;
            let tools = listed.response()["result"]["tools"].as_array().cloned().unwrap_or_default();
            let names = SERVERS.map(|server| json!(format!("{server}__whoami")));
            assert!(listed.status != 403, "{one:?}: {}", listed.text);
            names.iter().all(|name| tools.iter().any(|tool| tool["name"] == *name))
        })
        .await;
    }
    // Twice at once, so that two may come while something is made for the first, and once more afterwards.
    let call = async |one: Inputs, client: &Client, server: &str| {
        let meta = json!({ "dev.bailiwick/mandate": mandates[&(principal(one), one[4])] });
        let arguments = json!({ "mark": format!("{one:?}") });
        let params = json!({ "name": format!("{server}__whoami"), "arguments": arguments, "_meta": meta });
        let answer = client.modern("tools/call", params).await;
        let well = answer.status == 200 && answer.result()["isError"] != true;
        assert!(well && answer.response().get("error").is_none(), "{one:?} {server}: {}", answer.text);
        answer.tool_text().to_owned()
    };
    let each = || clients.iter().flat_map(|(one, client)| SERVERS.map(|server| (*one, client, server)));
    let calls = each().flat_map(|(one, client, server)| [call(one, client, server), call(one, client, server)]);
    let first = futures_util::future::join_all(calls).await;

    let (mut tokens, mut processes, mut sessions) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
    let mut own = |token: String, one: Inputs, server: &'static str| {
        let holder = *tokens.entry(token).or_insert((one, server));
        let differ: Vec<&str> =
            NAMES.into_iter().enumerate().filter(|(at, _)| holder.0[*at] != one[*at]).map(|(_, name)| name).collect();
        assert_eq!(holder, (one, server), "one credential for two who differ in {differ:?}");
    };
    for ((one, client, server), told) in each().zip(first.chunks(2)) {
        let told = [told[0].clone(), told[1].clone(), call(one, client, server).await];
        let told = told.map(|told| serde_json::from_str::<Value>(&told).unwrap_or_default());
        match server {
            "web" => {
                let mark = format!("{one:?}");
                let calls = web.calls();
                let marked = calls.iter().filter(|call| call.message["params"]["arguments"]["mark"] == mark.as_str());
                let shown: BTreeSet<&String> = marked.map(|call| &call.headers["authorization"]).collect();
                assert_eq!(shown.len(), 1, "{one:?}: one for the same inputs");
                own(shown.into_iter().next().unwrap().replace("Bearer ", ""), one, server);
            }
            "old" => {
                for told in &told {
                    own(told["token"].as_str().unwrap().to_owned(), one, server);
                    let session = told["session"].as_str().unwrap().to_owned();
                    let of = *sessions.entry(session.clone()).or_insert(principal(one));
                    assert_eq!(of, principal(one), "the session {session} is two principals'");
                }
            }
            _ => {
                assert!(told.iter().all(|other| other == &told[0]), "{one:?}: one process for the same inputs");
                own(told[0]["token"].as_str().unwrap().to_owned(), one, server);
                let process = told[0]["process"].as_u64().unwrap();
                assert_eq!(processes.insert(process, one), None, "one process for two: {:?}", told[0]);
            }
        }
    }
    assert_eq!((tokens.len(), processes.len()), (all.len() * SERVERS.len(), all.len()));
    for (token, (one, _)) in &tokens {
        assert_eq!(claims(token)["sub"], ["alice", "bob"][usize::from(one[1])]);
    }
    // A list is what the server told that principal, and nobody else.
    let first_of = |one: Inputs| {
        let (token, _) = tokens.iter().find(|(_, (of, _))| *of == one).unwrap();
        token.clone()
    };
    for (one, client) in &clients {
        let listed = client.modern("tools/list", json!({})).await;
        let tools = listed.result()["tools"].as_array().unwrap_or_else(|| panic!("{}", listed.text));
        for server in ["old", "process"] {
            let name = format!("{server}__whoami");
            let shown =
                tools.iter().find(|tool| tool["name"] == name.as_str()).unwrap_or_else(|| panic!("{}", listed.text));
            let with = shown["description"].as_str().unwrap().split("with ").nth(1).unwrap().trim();
            let of = claims(with)["for"].clone();
            assert_eq!(of, claims(&first_of(*one))["for"], "{one:?} sees another one's list");
        }
    }
}
