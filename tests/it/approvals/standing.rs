//! Standing approvals: two persons say yes beforehand, to so many calls, of one caller, with arguments that a condition
//! closes; each of them is counted, and everything else waits as before.

use bailiwick::limit;

use super::*;
use crate::input::{call, retry};
use crate::support::schema::problems;

pub(super) const CONDITIONS: &str = "\
[small]
only = [\"to\", \"n\"]
all = [{ argument = \"to\", equals = \"staging\" }, { argument = \"n\", at_most = 1000 }]

[open]
argument = \"to\"
equals = \"staging\"
";

pub(super) const STANDS: &str = "\
p, role:approver, *, bailiwick/standing, admin, -, allow
p, role:approver, *, bailiwick/standing-revoke, admin, -, allow
";

pub(super) fn standing_setup(issuer: &Issuer, upstream: &Scripted, gates: &str, more: &str) -> Setup {
    setup(issuer, upstream, gates)
        .policy(&format!("{DEVELOPERS_MAY}{RULES}{STANDS}{more}"))
        .policy_file("conditions.toml", CONDITIONS)
}

pub(super) async fn begin(gates: &str, more: &str) -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = standing_setup(&issuer, &upstream, gates, more).start().await;
    Running { issuer, upstream, gateway }
}

async fn begin_shared(gates: &str) -> Option<Running> {
    let database = Database::fresh().await?;
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = standing_setup(&issuer, &upstream, gates, "").shared(&database).start().await;
    Some(Running { issuer, upstream, gateway })
}

pub(super) fn staging(n: u32) -> Value {
    json!({ "to": "staging", "n": n })
}

fn wish(like: &str, uses: u32) -> Value {
    json!({ "like": like, "condition": "small", "uses": uses, "seconds": 3600, "note": "the migration" })
}

impl Running {
    pub(super) fn carol(&self) -> String {
        self.person("carol", &["approvers"])
    }

    pub(super) async fn propose(&self, token: &str, wish: &Value) -> Answer {
        self.at("/standing", token).post(&[], wish.to_string()).await
    }

    pub(super) async fn give(&self, id: &str, token: &str) -> Answer {
        let shown = self.standing(id).await["shown"].clone();
        let order = json!({ "shown": shown }).to_string();
        self.at(&format!("/standing/{id}/approve"), token).post(&[], order).await
    }

    pub(super) async fn standing(&self, id: &str) -> Value {
        let looker = self.person("looker", &["lookers"]);
        let answer = self.at(&format!("/standing/{id}"), &looker).bare(reqwest::Method::GET, &[]).await;
        assert!([200, 404].contains(&answer.status), "{}", answer.text);
        answer.response().clone()
    }

    /// One that lets `uses` of a caller's small calls through.
    pub(super) async fn stands(&self, user: &str, uses: u32) -> String {
        let like = self.asks(user, staging(0)).await;
        let proposed = self.propose(&self.bob(), &wish(&like, uses)).await;
        assert_eq!((proposed.status, &proposed.response()["state"]), (200, &json!("proposed")), "{}", proposed.text);
        let id = proposed.response()["id"].as_str().unwrap().to_owned();
        let given = self.give(&id, &self.carol()).await;
        assert_eq!((given.status, &given.response()["state"]), (200, &json!("active")), "{}", given.text);
        id
    }

    pub(super) async fn passes(&self, user: &str, arguments: Value) {
        let answer = self.call(user, arguments.clone()).await;
        assert_eq!(answer.tool_text(), arguments.to_string(), "{}", answer.text);
    }
}

async fn so_many_calls_pass_and_no_other(running: &Running) {
    let like = running.asks("alice", staging(0)).await;
    let proposed = running.propose(&running.bob(), &wish(&like, 2)).await;
    let view = proposed.response();
    let left = limit::STANDING_PERSONS_MIN - 1;
    assert_eq!((proposed.status, &view["state"], &view["missing"]), (200, &json!("proposed"), &json!(left)), "{view}");
    assert_eq!((&view["requester"], &view["gates"]), (&json!("user:test/alice"), &json!(["deploy"])), "{view}");
    assert!(view["says"].as_str().unwrap().contains("staging"), "{view}");
    let id = view["id"].as_str().unwrap().to_owned();
    assert_eq!(running.asks("alice", staging(0)).await, like, "one person is not enough");
    let again = running.give(&id, &running.bob()).await;
    assert_eq!((again.status, reason(&again).as_str()), (403, "approver_refused"), "nor is the same one twice");
    let own = running.give(&id, &running.person("alice", &["approvers"])).await;
    assert_eq!((own.status, reason(&own).as_str()), (403, "approver_refused"), "{}", own.text);
    let other = json!({ "shown": "0".repeat(64) }).to_string();
    let unseen = running.at(&format!("/standing/{id}/approve"), &running.carol()).post(&[], other).await;
    assert_eq!((unseen.status, reason(&unseen).as_str()), (409, "approval_changed"), "{}", unseen.text);
    assert_eq!(running.asks("alice", staging(0)).await, like);
    let given = running.give(&id, &running.carol()).await;
    assert_eq!(given.response()["state"], "active", "{}", given.text);
    let late = running.give(&id, &running.person("cleo", &["approvers"])).await;
    assert_eq!((late.status, reason(&late).as_str()), (409, "approval_over"));
    assert_eq!(running.calls(), 0);
    running.passes("alice", staging(1)).await;
    // Everything else waits for somebody, as before: other arguments, more of them, other callers.
    for arguments in [
        json!({ "to": "stagind", "n": 1 }),
        json!({ "to": "staging", "n": 1001 }),
        json!({ "to": "staging", "n": 1, "force": true }),
        json!({ "to": "staging" }),
        json!({}),
    ] {
        running.asks("alice", arguments).await;
    }
    running.asks("dave", staging(1)).await;
    assert_eq!((running.calls(), &running.standing(&id).await["used"]), (1, &json!(1)));
    running.passes("alice", staging(1)).await;
    let spent = running.standing(&id).await;
    assert_eq!((&spent["state"], &spent["used"]), (&json!("used_up"), &json!(2)), "{spent}");
    running.asks("alice", staging(2)).await;
    assert_eq!(running.calls(), 2);
    let events = ["standing_proposed", "refused", "standing_approved", "standing_used", "standing_used"];
    assert_eq!(running.events(&id), events);
    let intents = running.gateway.records("intent");
    assert_eq!(intents.iter().filter(|intent| intent["approval"] == *id).count(), 2, "each intent says what it uses");
    let used = running.gateway.records("approval");
    let used = used.iter().find(|record| record["approval"]["event"] == "standing_used").unwrap();
    let givers = used["approval"]["approvers"].as_array().unwrap();
    let givers: Vec<_> = givers.iter().map(|giver| giver["id"].as_str().unwrap()).collect();
    assert_eq!(givers, ["user:test/bob", "user:test/carol"], "{used}");
}

#[tokio::test]
async fn what_two_persons_approve_beforehand_lets_so_many_calls_through_and_no_other() {
    let running = begin(GATES, "").await;
    so_many_calls_pass_and_no_other(&running).await;
    let url = format!("{}/api/v1/openapi.json", running.gateway.admin);
    let document = Client::new(&url, None).bare(reqwest::Method::GET, &[]).await.response().clone();
    let all = running.at("/standing", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    for one in all.response().as_array().unwrap() {
        let schema = &document["components"]["schemas"]["Standing"];
        assert!(problems(&document, schema, one, "").is_empty(), "{one}");
    }
    let shown = running.gateway.command(&["standing", "list", "--config", "servers.toml"]);
    let text = String::from_utf8_lossy(&shown.stdout).into_owned();
    assert!(shown.status.success() && text.contains("2 of 2 used"), "{text}");
}

#[tokio::test]
async fn the_same_is_approved_beforehand_where_the_rows_are_in_postgresql() {
    let Some(running) = begin_shared(GATES).await else { return };
    so_many_calls_pass_and_no_other(&running).await;
    fifty_at_once_are_as_many_as_are_left(&running, "dora").await;
}

async fn fifty_at_once_are_as_many_as_are_left(running: &Running, user: &str) {
    let (before, id) = (running.calls(), running.stands(user, 3).await);
    let caller = running.caller(user);
    let calls: Vec<_> = (0..50_u32)
        .map(|number| {
            // The same call more than once, and different ones.
            let (caller, arguments) = (caller.clone(), staging(number % 5 + 1));
            tokio::spawn(async move { caller.call_tool("tools__echo", arguments).await })
        })
        .collect();
    let mut answered = 0;
    for call in calls {
        let answer = call.await.unwrap();
        match reason(&answer).as_str() {
            _ if answer.status == 429 => {}
            "" if answer.result()["isError"] != true => answered += 1,
            // Some take the last one at the same moment; the others ask somebody.
            "approval_consumed" | "approval_required" | "approval_changed" => {}
            other => panic!("{other}: {}", answer.text),
        }
    }
    assert_eq!((answered, running.calls() - before), (3, 3), "exactly as many as were left");
    assert_eq!(running.standing(&id).await["used"], 3);
}

#[tokio::test]
async fn of_fifty_at_once_exactly_as_many_happen_as_are_left() {
    let running = begin(GATES, "").await;
    fifty_at_once_are_as_many_as_are_left(&running, "alice").await;
}

#[tokio::test]
async fn of_two_at_once_with_one_use_left_exactly_one_happens() {
    let running = begin(GATES, "").await;
    running.stands("alice", 1).await;
    let (one, other) = (running.caller("alice"), running.caller("alice"));
    let (one, other) =
        tokio::join!(one.call_tool("tools__echo", staging(1)), other.call_tool("tools__echo", staging(1)));
    let done = [&one, &other].iter().filter(|answer| answer.result()["isError"] != true).count();
    assert_eq!((done, running.calls()), (1, 1), "{} {}", one.text, other.text);
}

#[tokio::test]
async fn what_cannot_be_undone_confirmed_or_closed_is_never_approved_beforehand() {
    let gates = format!(
        "{GATES}[gates.final]\nobjects = [\"tools/look\"]\napprovers = [\"group:test/approvers\"]\nirreversible = true\n"
    );
    let running = begin(&gates, "").await;
    let like = running.asks("alice", staging(0)).await;
    let (bob, plain) = (running.bob(), wish(&like, 2));
    for (key, value) in [
        ("uses", json!(0)),
        ("uses", json!(limit::STANDING_USES_MAX + 1)),
        ("seconds", json!(0)),
        ("seconds", json!(limit::STANDING_FOR_MAX.as_secs() + 1)),
        ("condition", json!("open")),
        ("condition", json!("none")),
        ("condition", json!("")),
        ("more", json!(1)),
    ] {
        let mut wish = plain.clone();
        wish[key] = value;
        let refused = running.propose(&bob, &wish).await;
        assert_eq!(
            (refused.status, reason(&refused).as_str()),
            (400, "parameters_invalid"),
            "{wish}: {}",
            refused.text
        );
    }
    let look = waits(&running.caller("alice").call_tool("tools__look", staging(0)).await);
    let refused = running.propose(&bob, &wish(&look, 2)).await;
    assert_eq!((refused.status, reason(&refused).as_str()), (403, "standing_refused"), "{}", refused.text);
    let unknown = running.propose(&bob, &wish(&"0".repeat(32), 2)).await;
    assert_eq!((unknown.status, reason(&unknown).as_str()), (404, "target_unknown"), "{}", unknown.text);
    // The most that can be asked for.
    let mut most = plain.clone();
    most["uses"] = json!(limit::STANDING_USES_MAX);
    most["seconds"] = json!(limit::STANDING_FOR_MAX.as_secs());
    most["note"] = json!("x".repeat(limit::STANDING_NOTE_CHARACTERS_MAX + 1));
    let proposed = running.propose(&bob, &most).await;
    let note = proposed.response()["note"].as_str().unwrap_or_else(|| panic!("{}", proposed.text));
    assert_eq!(note.len(), limit::STANDING_NOTE_CHARACTERS_MAX);
    for _ in 1..limit::STANDING_OF_ONE_SCOPE_MAX {
        assert_eq!(running.propose(&bob, &plain).await.status, 200);
    }
    let more = running.propose(&bob, &plain).await;
    assert_eq!(reason(&more), "approvals_limited", "{}", more.text);
}

#[tokio::test]
async fn only_persons_who_could_approve_the_call_and_have_just_logged_in_say_yes_beforehand() {
    let running = begin(GATES, "p, role:looker, *, bailiwick/standing, admin, -, allow\n").await;
    let like = running.asks("alice", staging(0)).await;
    let plain = wish(&like, 2);
    let refused = async |token: &str, status: u16, wanted: &str| {
        let answer = running.propose(token, &plain).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, wanted), "{}", answer.text);
    };
    refused(&running.person("looker", &["lookers"]), 403, "approver_refused").await;
    refused(&running.person("zoe", &["managers"]), 403, "approver_refused").await;
    refused(&running.person("alice", &["approvers"]), 403, "approver_refused").await;
    refused(&running.person("eve", &[]), 403, "not_allowed").await;
    let mut claims = running.issuer.administrator("bob", &["approvers"], &running.gateway.admin);
    claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - 4000);
    refused(&running.issuer.sign(&claims), 401, "insufficient_user_authentication").await;
    claims["client_id"] = json!("test-assistant");
    refused(&running.issuer.sign(&claims), 403, "not_allowed").await;
    let socket = running.gateway.state().join("control.sock");
    let output = std::process::Command::new("curl")
        .args(["-s", "-X", "POST", "--unix-socket", socket.to_str().unwrap(), "-d", &plain.to_string()])
        .arg("http://localhost/api/v1/standing")
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("administrator_required"), "{output:?}");
    let all = running.at("/standing", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    assert_eq!(all.response(), &json!([]));
}

#[tokio::test]
async fn a_call_whose_server_asks_is_one_use_and_each_of_its_answers_goes_out_once() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::start(json!([tool("echo"), tool("look")]), |call| {
        let answered = &call["params"]["inputResponses"];
        if answered.is_null() {
            let question = json!({ "method": "elicitation/create", "params": {
                "mode": "form", "message": "Sure?", "requestedSchema": { "type": "object", "properties": {} } } });
            return result(
                call,
                json!({ "resultType": "input_required", "inputRequests": { "sure": question }, "requestState": "s" }),
            );
        }
        result(call, text("done"))
    })
    .await;
    let asks = "p, role:developer, *, */, elicit, -, allow\np, agent:assistant, *, */, elicit, -, allow\n";
    let gateway = standing_setup(&issuer, &upstream, GATES, asks).start().await;
    let mut running = Running { issuer, upstream, gateway };
    let id = running.stands("alice", 2).await;
    let (alice, form) = (running.caller("alice"), json!({ "elicitation": { "form": {} } }));
    let arguments = staging(1);
    let asked = call(&alice, &form, json!({ "name": "tools__echo", "arguments": arguments })).await;
    assert_eq!(asked.result()["resultType"], "input_required", "{}", asked.text);
    let yes = json!({ "sure": { "action": "accept", "content": {} } });
    let done = call(&alice, &form, retry("tools__echo", &arguments, &asked, yes.clone())).await;
    assert_eq!(done.tool_text(), "done", "{}", done.text);
    let again = call(&alice, &form, retry("tools__echo", &arguments, &asked, yes)).await;
    assert_eq!(reason(&again), "approval_consumed", "{}", again.text);
    assert_eq!((running.calls(), &running.standing(&id).await["used"]), (2, &json!(1)));
    // Its record tells of two requests, which are one use.
    assert!(running.gateway.stop().await.success());
    running.gateway.launch().await;
    assert_eq!(running.standing(&id).await["state"], "active");
}

#[tokio::test]
async fn what_is_denied_stays_denied_and_how_long_people_took_is_counted() {
    let running = begin(GATES, "p, role:approver, *, bailiwick/metrics, admin, -, allow\n").await;
    running.stands("alice", 3).await;
    let one = running.asks("alice", json!({ "to": "production" })).await;
    assert_eq!(running.approve(&one, &running.bob()).await.status, 200);
    let mut all = running.at("/approvals", &running.bob()).bare(reqwest::Method::GET, &[]).await.response().clone();
    let waiting = all.as_array_mut().unwrap().pop().unwrap()["id"].as_str().unwrap().to_owned();
    assert_eq!(running.deny(&waiting, &running.bob()).await.status, 200);
    let answer = running.call("alice", staging(0)).await;
    assert_eq!(reason(&answer), "approval_denied", "a no to this very call comes first");
    running.passes("alice", staging(1)).await;
    let metrics = running.at("/metrics", &running.bob()).bare(reqwest::Method::GET, &[]).await.text;
    for line in [
        "bailiwick_approval_wait_seconds_count{event=\"approved\"} 1",
        "bailiwick_approval_wait_seconds_count{event=\"denied\"} 1",
        "bailiwick_approval_wait_seconds_bucket{le=\"5.0\",event=\"approved\"} 1",
        "bailiwick_approvals_total{event=\"standing_used\"} 1",
    ] {
        assert!(metrics.contains(line), "{line} is missing in {metrics}");
    }
}
