//! Calls that go on as tasks and are awaited for clients that cannot follow them: what these hear meanwhile from every kind
//! of server, and what ends the waiting.

use std::sync::Mutex;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Answer, Client};
use crate::support::eventually;
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::peer::Peer;
use crate::tasks::{Task, experiment, modern, started, working};
use crate::tasks_legacy::extended;

fn params() -> Value {
    let arguments = json!({ "says": "at last", "looks": 3 });
    json!({ "name": "tools__job", "arguments": arguments, "_meta": { "progressToken": "mine" } })
}

/// That a call had this end, and that its client was told before how far its task was.
fn is_told(answer: &Answer, of: &str) {
    assert_eq!(answer.tool_text(), "at last", "{of}: {}", answer.text);
    let progress: Vec<_> = answer.messages.iter().filter(|one| one["method"] == "notifications/progress").collect();
    assert!(!progress.is_empty(), "{of}: {}", answer.text);
    for told in &progress {
        let told = (&told["params"]["progressToken"], &told["params"]["message"]);
        assert_eq!(told, (&json!("mine"), &json!("half way")), "{of}: {}", answer.text);
    }
    let steps: Vec<_> = progress.iter().map(|told| told["params"]["progress"].as_i64().unwrap()).collect();
    assert!(steps.is_sorted_by(|one, next| one < next), "{of}: {steps:?}");
}

fn half_way() -> Value {
    json!({ "status": "working", "statusMessage": "half way" })
}

/// Calls a tool that becomes a task; lets the task end once it was looked at more than once.
async fn called(state: &Task, upstream: &Peer, call: impl Future<Output = Answer> + Send + 'static) -> Answer {
    *state.lock().unwrap() = half_way();
    let before = upstream.reached("tasks/get").len();
    let calling = tokio::spawn(call);
    eventually("the task to be looked at", async || upstream.reached("tasks/get").len() > before + 1).await;
    *state.lock().unwrap() =
        json!({ "status": "completed", "result": { "content": [{ "type": "text", "text": "at last" }] } });
    calling.await.unwrap()
}

#[tokio::test]
async fn a_client_whose_task_is_awaited_hears_how_far_it_is_from_servers_of_both_eras_over_http() {
    let servers: [(&str, AsyncServer); 3] = [
        ("modern", |state| Box::pin(modern(state))),
        ("2025-11-25 with its own tasks", |state| Box::pin(experiment(state))),
        ("2025-11-25 with the extension", |state| Box::pin(extended(state))),
    ];
    for (name, server) in servers {
        let (_issuer, state, upstream, _gateway, client) = started(async |state| server(state).await, half_way()).await;
        let (_, session) = client.initialize("2025-11-25").await;
        let legacy = client.clone();
        let call = async move { legacy.legacy(&session, "tools/call", params()).await };
        is_told(&called(&state, &upstream, call).await, &format!("a legacy client of {name}"));
        // A modern client that says nothing of tasks is waited for where a tool insists on one of 2025-11-25.
        if name == "2025-11-25 with its own tasks" {
            let call = async move { client.modern("tools/call", params()).await };
            is_told(&called(&state, &upstream, call).await, "a modern client");
        }
    }
}

type AsyncServer = fn(&Task) -> std::pin::Pin<Box<dyn Future<Output = Peer> + '_>>;

#[tokio::test]
async fn a_client_whose_task_is_awaited_hears_how_far_it_is_from_processes_of_both_eras() {
    crate::needs_python!();
    for modern in [true, false] {
        let issuer = Issuer::start().await;
        let (_directory, [python, path], more) = crate::tasks_restarted::process(modern, "");
        let gateway = Setup::new(&issuer).stdio_server("tools", &[&python, &path], &more).start().await;
        let legacy = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
        eventually("the process", async || legacy.tool_names().await.contains(&"tools__job".to_owned())).await;
        let (_, session) = legacy.initialize("2025-11-25").await;
        let answer = legacy.legacy(&session, "tools/call", params()).await;
        is_told(&answer, &format!("a legacy client, modern process: {modern}"));
        if !modern {
            let other = gateway.client(&issuer.token("bob", &["developers"], &gateway.resource()));
            is_told(&other.modern("tools/call", params()).await, "a modern client");
        }
    }
}

/// A call of a legacy client whose task is looked at, and goes on.
async fn awaited(client: &Client, upstream: &Peer) -> tokio::task::JoinHandle<Answer> {
    let (_, session) = client.initialize("2025-11-25").await;
    let calling = client.clone();
    let calling = tokio::spawn(async move { calling.legacy(&session, "tools/call", params()).await });
    eventually("the task to be looked at", async || !upstream.reached("tasks/get").is_empty()).await;
    calling
}

fn revoke(gateway: &Gateway, whom: &str) {
    assert!(gateway.command(&["revoke", "subject", &format!("user:test/{whom}")]).status.success());
}

#[tokio::test]
async fn a_call_whose_task_is_awaited_ends_once_rules_do_not_let_it_be_made_any_more() {
    // It is looked at every ten seconds, and ends before.
    let state = json!({ "status": "working", "pollIntervalMs": 10_000 });
    let (_issuer, _state, upstream, gateway, client) = started(modern, state).await;
    let calling = awaited(&client, &upstream).await;
    // A change that is not about it ends nothing.
    gateway.write_policy(&format!("{DEVELOPERS_MAY}p, anyone, *, tools/plain, call, -, deny\n"));
    assert!(gateway.command(&["reload"]).status.success());
    revoke(&gateway, "somebody");
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!calling.is_finished());
    gateway.write_policy(&format!(
        "{DEVELOPERS_MAY}p, anyone, *, tools/plain, call, -, deny\np, anyone, *, tools/job, call, -, deny\n"
    ));
    let began = Instant::now();
    assert!(gateway.command(&["reload"]).status.success());
    let answer = calling.await.unwrap();
    assert!(answer.tool_text().contains("denied_by_rule"), "{}", answer.text);
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    let looks = upstream.reached("tasks/get").len();
    tokio::time::sleep(Duration::from_millis(500)).await;
    assert_eq!((upstream.reached("tasks/get").len(), upstream.reached("tasks/cancel").len()), (looks, 0));
}

#[tokio::test]
async fn decisions_about_others_do_not_put_off_when_an_awaited_task_is_looked_at() {
    let state = Task::new(Mutex::new(working()));
    let upstream = modern(&state).await;
    let issuer = Issuer::start().await;
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    // It is looked at after a second, and somebody is revoked more often.
    state.lock().unwrap()["pollIntervalMs"] = json!(1_500);
    let calling = awaited(&client, &upstream).await;
    let before = upstream.reached("tasks/get").len();
    let began = Instant::now();
    for number in 0.. {
        if began.elapsed() > Duration::from_secs(5) {
            break;
        }
        revoke(&gateway, &format!("somebody-{number}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert!(upstream.reached("tasks/get").len() > before + 1, "{:?}", upstream.reached("tasks/get").len());
    calling.abort();
}

#[tokio::test]
async fn a_page_of_tasks_ends_where_the_rate_does_and_the_next_one_goes_on_there() {
    let issuer = Issuer::start().await;
    let upstream = experiment(&Task::new(Mutex::new(working()))).await;
    let limits = "requests_per_second = 5\nrequests_burst = 20\n";
    let gateway = Setup::new(&issuer).http_server("tools", &upstream.url, "").limits(limits).start().await;
    let client = gateway.client(&issuer.token("alice", &["developers"], &gateway.resource()));
    let (_, session) = client.initialize("2025-11-25").await;
    let mut made = Vec::new();
    for _ in 0..12 {
        let params = json!({ "name": "tools__either", "arguments": {}, "task": {} });
        let created = client.legacy(&session, "tools/call", params).await;
        made.push(created.result()["task"]["taskId"].as_str().unwrap_or_else(|| panic!("{}", created.text)).to_owned());
    }
    let listed = async |cursor: Option<&Value>| {
        let params = cursor.map_or_else(|| json!({}), |cursor| json!({ "cursor": cursor }));
        loop {
            let listed = client.legacy(&session, "tasks/list", params.clone()).await;
            if listed.status != 429 {
                let ids = listed.result()["tasks"].as_array().unwrap_or_else(|| panic!("{}", listed.text)).iter();
                let ids: Vec<_> = ids.map(|task| task["taskId"].as_str().unwrap().to_owned()).collect();
                return (ids, listed.result().get("nextCursor").cloned());
            }
            tokio::time::sleep(Duration::from_millis(300)).await;
        }
    };
    // All of it is listed until so much was asked that the rest of a page is too much.
    let mut first = listed(None).await;
    for _ in 0..20 {
        if first.1.is_some() {
            break;
        }
        assert_eq!(first.0, made, "a page that ends nowhere else has all");
        first = listed(None).await;
    }
    let (mut seen, mut next) = first;
    assert!(!seen.is_empty() && seen.len() < made.len(), "{} of {}", seen.len(), made.len());
    assert!(next.is_some(), "and it says that there is more");
    while let Some(cursor) = next {
        let page = listed(Some(&cursor)).await;
        assert!(!page.0.is_empty(), "whatever the rate, there is one on each");
        seen.extend(page.0);
        next = page.1;
    }
    assert_eq!(seen, made, "each once, in the order in which they were made");
}
