//! Taking a label off: two persons, neither of whom has a part in it; and what comes back afterwards.

use std::sync::{Mutex, mpsc};

use serde_json::{Value, json};

use super::{LABELS, TOOLS, call, client, in_postgresql, sent, upstream};
use crate::console::Browser;
use crate::support::client::{Answer, Client};
use crate::support::door::Person;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::scripted::{Scripted, result, text, tool};

const ADMIN: &str = "acr = [\"strong\"]\nclients = [{ issuer = \"test\", client_id = \"test-admin\", approves = true }]\n\
                     [admin.console]\nissuer = \"test\"\nclient_id = \"test-console\"";

const RULES: &str = "\
p, anyone, *, tools/*, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
g, group:test/guards, role:guard, *
p, role:guard, *, bailiwick/labels, admin, -, allow
p, role:guard, *, bailiwick/declassify, admin, -, allow
";

/// The file that every test has, with the human whom its owner is.
const AGENTS: &str = "\
[breaker]
denials_per_minute = 1000
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

fn setup(issuer: &Issuer, upstream: &Scripted) -> Setup {
    Setup::new(issuer)
        .claims("person = \"person\"\n")
        .policy(RULES)
        .policy_file("labels.toml", LABELS)
        .policy_file("agents.toml", AGENTS)
        .http_server("tools", &upstream.url, "")
        .admin(ADMIN)
}

async fn start() -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = setup(&issuer, &upstream).start().await;
    Running { issuer, upstream, gateway }
}

const ALICE: &str = "user:test/alice assistant";

fn order(kind: &str, name: &str, labels: &[&str]) -> Value {
    json!({ "kind": kind, "name": name, "labels": labels, "reason": "it was test data" })
}

fn reason(answer: &Answer) -> String {
    answer.response()["reason"].as_str().unwrap_or_default().to_owned()
}

/// Somebody who may take labels off and has just logged in, at one of the gateways of an issuer.
struct Guard<'a> {
    issuer: &'a Issuer,
    gateway: &'a Gateway,
    token: String,
}

impl<'a> Guard<'a> {
    fn new(issuer: &'a Issuer, gateway: &'a Gateway, user: &str) -> Self {
        let token = issuer.sign(&issuer.administrator(user, &["guards"], &gateway.admin));
        Self { issuer, gateway, token }
    }

    fn at(&self, path: &str) -> Client {
        Client::new(&format!("{}/api/v1{path}", self.gateway.admin), Some(&self.token))
    }

    async fn list(&self) -> Value {
        let answer = self.at("/labels").bare(reqwest::Method::GET, &[]).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.response().clone()
    }

    async fn ask(&self, order: &Value) -> Answer {
        self.at("/labels/declassify").post(&[], order.to_string()).await
    }

    async fn asked(&self, order: &Value) -> String {
        let answer = self.ask(order).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        answer.response()["id"].as_str().unwrap().to_owned()
    }

    async fn confirm(&self, id: &str) -> Answer {
        self.at(&format!("/labels/declassify/{id}/confirm")).post(&[], String::new()).await
    }

    fn other(&self, user: &str) -> Self {
        Self::new(self.issuer, self.gateway, user)
    }
}

impl Running {
    fn guard(&self, user: &str) -> Guard<'_> {
        Guard::new(&self.issuer, &self.gateway, user)
    }

    fn client(&self, user: &str) -> Client {
        client(&self.issuer, &self.gateway, user)
    }

    /// Alice has seen private data and somebody else's words.
    async fn alice_has_seen(&self) -> Client {
        let alice = self.client("alice");
        for name in ["read_customer", "fetch"] {
            assert_eq!(call(&alice, name, json!({})).await, None);
        }
        alice
    }
}

#[tokio::test]
async fn two_persons_take_a_label_off_and_the_record_tells_what_was_carried_before_and_after() {
    let mut running = start().await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    let alice = running.alice_has_seen().await;
    let refused = alice.call_tool("tools__send", json!({})).await;
    assert!(refused.tool_text().starts_with("flow_refused: "), "{}", refused.text);
    assert!(refused.tool_text().contains("bailiwick labels declassify"), "{}", refused.text);

    let bob = running.guard("bob");
    let listed = bob.list().await;
    let carrier = &listed["carriers"][0];
    assert_eq!((&carrier["kind"], &carrier["name"]), (&json!("caller"), &json!(ALICE)), "{listed}");
    let intents = running.gateway.records("intent");
    for (label, tool) in [("private", "read_customer"), ("untrusted", "fetch")] {
        let labels = carrier["labels"].as_array().unwrap();
        let told = labels.iter().find(|told| told["label"] == label).unwrap();
        let brought = intents.iter().find(|intent| intent["mcp"]["name"] == tool).unwrap();
        assert_eq!((&told["call"], &told["by"]), (&brought["call"], &json!("user:test/alice")));
        assert!(told["since"].is_string() && carrier["until"].is_string(), "{carrier}");
    }

    let id = bob.asked(&order("caller", ALICE, &["private"])).await;
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"), "one person is not enough");
    let own = bob.confirm(&id).await;
    assert_eq!((own.status, reason(&own).as_str()), (403, "approver_refused"), "{}", own.text);
    let done = bob.other("carol").confirm(&id).await;
    assert_eq!(done.status, 200, "{}", done.text);
    assert_eq!(done.response()["before"], json!(["untrusted", "private"]));
    assert_eq!(done.response()["after"], json!(["untrusted"]));
    assert_eq!(call(&alice, "send", json!({})).await, None);
    assert_eq!(sent(&running.upstream), 1);
    let again = bob.other("carol").confirm(&id).await;
    assert_eq!((again.status, reason(&again).as_str()), (404, "target_unknown"), "once: {}", again.text);

    // A store of before is told what was left, and not what was taken off.
    running.gateway.store_of_before().await;
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    let (alice, bob) = (running.client("alice"), running.guard("bob"));
    let left = bob.list().await["carriers"][0]["labels"].to_string();
    assert!(left.contains("untrusted") && !left.contains("private"), "{left}");
    assert_eq!(call(&alice, "send", json!({})).await, None);

    let records = running.gateway.records("admin");
    let of = |outcome: &str, user: &str| {
        let meant = |record: &&Value| {
            record["admin"]["operation"] == "declassify"
                && record["admin"]["outcome"] == outcome
                && record["admin"]["actor"] == format!("user:test/{user}")
        };
        records.iter().find(meant).unwrap_or_else(|| panic!("{outcome} {user}: {records:?}"))["admin"].clone()
    };
    assert_eq!(of("begun", "carol")["about"], format!("confirm declassification {id}"));
    let told = of("done", "carol")["detail"].as_str().unwrap().to_owned();
    let expected = format!(
        "caller {ALICE}: before untrusted, private; after untrusted; user:test/bob asked, because it was test data"
    );
    assert_eq!(told, expected);
    assert!(of("done", "bob")["detail"].as_str().unwrap().contains("waits for a second person"));

    // What is read again counts again, though this replica knew of it before.
    assert_eq!(call(&alice, "read_customer", json!({})).await, None);
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
    assert!(bob.list().await["carriers"][0]["labels"].to_string().contains("private"));
}

#[tokio::test]
async fn nobody_takes_off_what_they_have_a_part_in() {
    let running = start().await;
    running.alice_has_seen().await;
    let wanted = order("caller", ALICE, &["private"]);
    for user in ["alice", "owner"] {
        let answer = running.guard(user).ask(&wanted).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, "approver_refused"), "{user}: {}", answer.text);
    }
    let id = running.guard("bob").asked(&wanted).await;
    for user in ["alice", "owner"] {
        let answer = running.guard(user).confirm(&id).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (403, "approver_refused"), "{user}: {}", answer.text);
    }
    // Another account of the same person is the same person.
    let mut claims = running.issuer.administrator("bob-2", &["guards"], &running.gateway.admin);
    claims["person"] = json!("Bob");
    let second = Guard { token: running.issuer.sign(&claims), ..running.guard("bob") };
    assert_eq!(reason(&second.confirm(&id).await), "approver_refused");
    claims.as_object_mut().unwrap().remove("person");
    claims["jti"] = json!("nobody-1");
    let nobody = Guard { token: running.issuer.sign(&claims), ..running.guard("bob") };
    assert_eq!(reason(&nobody.confirm(&id).await), "approver_refused", "nobody knows who that is");
    // A login of yesterday, and whoever has no rule.
    let mut claims = running.issuer.administrator("carol", &["guards"], &running.gateway.admin);
    claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - 24 * 3600);
    let stale = Guard { token: running.issuer.sign(&claims), ..running.guard("bob") };
    assert_eq!(stale.confirm(&id).await.status, 401);
    let otto = running.issuer.sign(&running.issuer.administrator("otto", &[], &running.gateway.admin));
    let otto = Guard { token: otto, ..running.guard("bob") };
    assert_eq!(otto.confirm(&id).await.status, 403);
    assert_eq!(otto.ask(&wanted).await.status, 403);
    assert_eq!(call(&running.client("alice"), "send", json!({})).await.as_deref(), Some("flow_refused"));
    assert_eq!(running.guard("carol").confirm(&id).await.status, 200);
}

#[tokio::test]
async fn what_goes_is_what_both_have_looked_at() {
    let running = start().await;
    let alice = running.alice_has_seen().await;
    let (bob, carol) = (running.guard("bob"), running.guard("carol"));
    let wanted = order("caller", ALICE, &["private"]);
    let id = bob.asked(&wanted).await;
    assert_eq!(call(&alice, "plain", json!({})).await, None, "it has seen something else since");
    let changed = carol.confirm(&id).await;
    assert_eq!((changed.status, reason(&changed).as_str()), (409, "approval_changed"), "{}", changed.text);
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));

    let id = bob.asked(&wanted).await;
    let revoke = running.gateway.command(&["revoke", "subject", "user:test/bob", "--note", "left"]);
    assert!(revoke.status.success(), "{}", String::from_utf8_lossy(&revoke.stderr));
    let void = carol.confirm(&id).await;
    assert_eq!((void.status, reason(&void).as_str()), (409, "approval_void"), "{}", void.text);

    let dave = running.guard("dave");
    let id = dave.asked(&wanted).await;
    let withdrawn = carol.at(&format!("/labels/declassify/{id}/withdraw")).post(&[], String::new()).await;
    assert_eq!(withdrawn.status, 200, "{}", withdrawn.text);
    assert_eq!(carol.confirm(&id).await.status, 404);
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn an_order_that_makes_no_sense_is_told_why() {
    let running = start().await;
    running.alice_has_seen().await;
    let bob = running.guard("bob");
    for (wanted, status, told) in [
        (json!({ "kind": "caller", "name": ALICE, "labels": ["private"], "reason": " " }), 400, "say why"),
        (json!({ "kind": "caller", "name": ALICE, "labels": [], "reason": "so" }), 400, "which labels"),
        (json!({ "kind": "caller", "name": ALICE, "labels": ["secret"], "reason": "so" }), 400, "no label"),
        (json!({ "kind": "team", "name": ALICE, "labels": ["private"], "reason": "so" }), 400, "team"),
        (json!({ "kind": "caller", "name": ALICE, "labels": ["regulated"], "reason": "so" }), 400, "not regulated"),
        (order("caller", "user:test/zoe assistant", &["private"]), 404, "carries no label"),
        (order("store", "memory", &["private"]), 404, "carries no label"),
    ] {
        let answer = bob.ask(&wanted).await;
        assert_eq!(answer.status, status, "{wanted}: {}", answer.text);
        assert!(answer.text.contains(told), "{wanted}: {}", answer.text);
    }
    // At the socket is no person.
    let host =
        running.gateway.command(&["labels", "declassify", "caller", ALICE, "--label", "private", "--reason", "so"]);
    assert_eq!(host.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&host.stderr).contains("administrator_required"), "{host:?}");
}

#[tokio::test]
async fn so_many_wait_for_a_second_person_and_none_for_longer_than_a_quarter_of_an_hour() {
    const WAITING: u32 = bailiwick::limit::DECLASSIFICATIONS_WAITING_MAX;
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let Some(setup) = setup(&issuer, &upstream).issuer_lines("token_life_max = \"10h\"\n").own_clock() else { return };
    let gateway = setup.start().await;
    let running = Running { issuer, upstream, gateway };
    running.alice_has_seen().await;
    let bob = running.guard("bob");
    let wanted = order("caller", ALICE, &["private"]);
    let mut id = String::new();
    for _ in 0..WAITING {
        id = bob.asked(&wanted).await;
    }
    let full = bob.ask(&wanted).await;
    assert_eq!((full.status, reason(&full).as_str()), (409, "approvals_limited"), "{}", full.text);
    let waits_max = i64::try_from(bailiwick::limit::DECLASSIFICATION_WAITS_MAX.as_secs()).unwrap();
    running.gateway.set_clock(&format!("+{}", waits_max + 5));
    let mut claims = running.issuer.administrator("carol", &["guards"], &running.gateway.admin);
    for claim in ["iat", "auth_time", "exp"] {
        claims[claim] = json!(claims[claim].as_i64().unwrap() + waits_max);
    }
    let carol = Guard { token: running.issuer.sign(&claims), ..running.guard("bob") };
    let late = carol.confirm(&id).await;
    assert_eq!((late.status, reason(&late).as_str()), (404, "target_unknown"), "{}", late.text);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_under_way_when_a_label_goes_brings_it_back_before_its_answer() {
    let issuer = Issuer::start().await;
    let (go_on, gone_on) = mpsc::channel::<()>();
    let gone_on = Mutex::new(gone_on);
    let tools = TOOLS.iter().map(|name| tool(name)).collect();
    let upstream = Scripted::start(tools, move |call| {
        if call["params"]["name"] == "read_customer" {
            tokio::task::block_in_place(|| gone_on.lock().unwrap().recv().unwrap());
        }
        result(call, text("done"))
    })
    .await;
    let gateway = setup(&issuer, &upstream).start().await;
    let running = Running { issuer, upstream, gateway };
    let alice = running.client("alice");
    assert_eq!(call(&alice, "fetch", json!({})).await, None);
    let reading = tokio::spawn({
        let alice = running.client("alice");
        async move { call(&alice, "read_customer", json!({})).await }
    });
    eventually("the read is under way", async || {
        running.upstream.calls().iter().any(|call| call.message["params"]["name"] == "read_customer")
    })
    .await;
    let id = running.guard("bob").asked(&order("caller", ALICE, &["private"])).await;
    assert_eq!(running.guard("carol").confirm(&id).await.status, 200);
    assert_eq!(call(&alice, "send", json!({})).await, None, "nothing private has come back");
    go_on.send(()).unwrap();
    assert_eq!(reading.await.unwrap(), None);
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn a_store_forgets_what_is_taken_off_it_and_its_writer_does_not() {
    let running = start().await;
    let alice = running.alice_has_seen().await;
    assert_eq!(call(&alice, "save", json!({})).await, None);
    let listed = running.guard("bob").list().await;
    let store =
        listed["carriers"].as_array().unwrap().iter().find(|carrier| carrier["kind"] == "store").unwrap().clone();
    assert_eq!((&store["name"], store["until"].is_null()), (&json!("memory"), true));
    let id = running.guard("bob").asked(&order("store", "memory", &["private", "untrusted"])).await;
    assert_eq!(running.guard("carol").confirm(&id).await.status, 200);
    let bob = running.client("bob");
    for name in ["load", "send"] {
        assert_eq!(call(&bob, name, json!({})).await, None, "{name}");
    }
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
}

#[tokio::test]
async fn the_same_holds_where_the_rows_are_in_postgresql() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let Some(gateway) = in_postgresql(setup(&issuer, &upstream)).await else { return };
    let running = Running { issuer, upstream, gateway };
    let alice = running.alice_has_seen().await;
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"));
    let id = running.guard("bob").asked(&order("caller", ALICE, &["private", "untrusted"])).await;
    let done = running.guard("carol").confirm(&id).await;
    assert_eq!((done.status, &done.response()["after"]), (200, &json!([])), "{}", done.text);
    assert_eq!(running.guard("bob").list().await, json!({ "carriers": [] }));
    assert_eq!(call(&alice, "send", json!({})).await, None);
    for name in ["read_customer", "fetch"] {
        assert_eq!(call(&alice, name, json!({})).await, None);
    }
    assert_eq!(call(&alice, "send", json!({})).await.as_deref(), Some("flow_refused"), "it was raised again");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_command_line_lists_asks_and_withdraws() {
    let running = start().await;
    running.alice_has_seen().await;
    let listed = running.gateway.command(&["labels", "list"]);
    let told = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(told.contains(ALICE) && told.contains("private") && told.contains("by user:test/alice"), "{told}");
    let of = running.gateway.command(&["labels", "list", "--of", "user:test/zoe", "--json"]);
    let of: Value = serde_json::from_slice(&of.stdout).unwrap();
    assert_eq!(of, json!({ "carriers": [] }));
    let admin = running.gateway.admin.clone();
    let token = running.guard("bob").token.clone();
    let run = async |words: &[&str]| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_bailiwick"));
        command.args(words).env("BAILIWICK_ADMIN_TOKEN", &token).env("BAILIWICK_ADMIN", &admin);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    };
    let words = ["labels", "declassify", "caller", ALICE, "--label", "private", "--reason", "test data", "--json"];
    let asked = run(&words).await;
    assert!(asked.status.success(), "{asked:?}");
    let asked: Value = serde_json::from_slice(&asked.stdout).unwrap();
    let id = asked["id"].as_str().unwrap();
    assert_eq!(asked["url"], format!("{admin}/labels"));
    let listed = run(&["labels", "list"]).await;
    let listed = String::from_utf8_lossy(&listed.stdout).into_owned();
    assert!(listed.contains(id) && listed.contains("test data"), "{listed}");
    let withdrawn = running.gateway.command(&["labels", "withdraw", id]);
    assert!(withdrawn.status.success(), "braking works at the socket: {withdrawn:?}");
    assert_eq!(running.guard("carol").confirm(id).await.status, 404);
    let unknown = run(&["labels", "confirm", id]).await;
    assert_eq!(unknown.status.code(), Some(1));
}

async fn signed_in(running: &Running, user: &str, to: &str) -> Browser {
    running.issuer.seat(vec![Person::new(user, &["guards"])]);
    let mut browser = Browser::of(&running.gateway);
    let back = browser.come_back(&format!("/admin/login/start?fresh=1&to={to}")).await;
    assert_eq!(browser.get(&back).await.status, 303);
    browser
}

#[tokio::test]
async fn in_the_console_one_person_asks_and_another_one_confirms() {
    let running = start().await;
    let alice = running.alice_has_seen().await;
    let mut bob = signed_in(&running, "bob", "/labels").await;
    let list = bob.get("/admin/labels").await;
    assert!(list.text.contains(ALICE) && list.text.contains("from call"), "{}", list.text);
    let page = "/admin/labels/ask?kind=caller&name=user%3Atest%2Falice%20assistant";
    let one = bob.get(page).await;
    assert!(one.text.contains("label-private"), "{}", one.text);
    let csrf = one.csrf();
    let mut fields = vec![("csrf", csrf.as_str()), ("kind", "caller"), ("name", ALICE), ("label-private", "on")];
    let without = bob.post("/admin/labels/ask", &fields).await;
    assert!(without.status == 400 && without.text.contains("say why"), "{}", without.text);
    fields.push(("reason", "<b>test</b> data"));
    assert_eq!(bob.post("/admin/labels/ask", &fields).await.status, 303);
    let list = bob.get("/admin/labels?done=asked").await;
    assert!(list.text.contains("&lt;b&gt;test&lt;/b&gt; data") && list.text.contains("Take it off"), "{}", list.text);
    let waiting = running.guard("bob").list().await["waiting"][0]["id"].as_str().unwrap().to_owned();
    let confirm = format!("/admin/labels/{waiting}/confirm");
    let own = bob.post(&confirm, &[("csrf", &csrf)]).await;
    assert!(own.status == 403 && own.text.contains("somebody else has to confirm it"), "{}", own.text);
    let mut carol = signed_in(&running, "carol", "/labels").await;
    let csrf = carol.get("/admin/labels").await.csrf();
    assert_eq!(carol.post(&confirm, &[("csrf", "x")]).await.status, 403, "a forged form");
    let done = carol.post(&confirm, &[("csrf", &csrf)]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    assert!(carol.get("/admin/labels?done=confirmed").await.text.contains("It is taken off"));
    assert_eq!(call(&alice, "send", json!({})).await, None);
}
