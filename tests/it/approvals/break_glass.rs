//! Emergency access: a role that was written down beforehand, for a moment, asked for by one person and agreed to by
//! another; every call is told of, somebody looks at them afterwards, and what is denied or revoked stays so.

use std::sync::{Arc, Mutex};

use super::*;
use crate::support::{eventually, eventually_within};

const EMERGENCY: &str = "\
[gates.unused]
objects = [\"tools/nothing\"]
approvers = [\"group:test/approvers\"]
[break_glass.outage]
role = \"role:firefighter\"
who = [\"group:test/oncall\"]
approvers = [\"group:test/approvers\"]
";

/// Nobody has the role of these rows but in an emergency.
const FIRE: &str = "\
p, role:firefighter, *, tools/look, call, -, allow
p, role:firefighter, *, tools/echo, call, -, allow
p, anyone, *, tools/echo, call, -, deny
g, group:test/oncall, role:approver, *
p, role:approver, *, bailiwick/break-glass, admin, -, allow
p, role:approver, *, bailiwick/break-glass-approve, admin, -, allow
p, role:approver, *, bailiwick/break-glass-end, admin, -, allow
p, role:approver, *, bailiwick/break-glass-review, admin, -, allow
p, agent:assistant, *, tools/*, call, -, allow
g, group:test/roots, role:root, *
p, role:root, *, bailiwick/reload, admin, -, allow
";

fn emergency_setup(issuer: &Issuer, upstream: &Scripted, lasts: &str) -> Setup {
    setup(issuer, upstream, &format!("{EMERGENCY}lasts = \"{lasts}\"\n")).policy(&format!("{RULES}{FIRE}"))
}

pub(super) async fn begin(lasts: &str) -> Running {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = emergency_setup(&issuer, &upstream, lasts).start().await;
    Running { issuer, upstream, gateway }
}

impl Running {
    fn olga(&self) -> String {
        self.person("olga", &["oncall"])
    }

    fn olga_calls(&self) -> Client {
        self.gateway.client(&self.issuer.token("olga", &["oncall"], &self.gateway.resource()))
    }

    async fn asks_for_it(&self, token: &str) -> Answer {
        self.at("/break-glass", token).post(&[], json!({ "name": "outage", "reason": "it burns" }).to_string()).await
    }

    async fn agrees(&self, view: &Value, token: &str) -> Answer {
        let path = format!("/break-glass/{}/approve", view["id"].as_str().unwrap());
        self.at(&path, token).post(&[], json!({ "shown": view["shown"] }).to_string()).await
    }

    async fn noted(&self, view: &Value, what: &str, token: &str) -> Answer {
        let path = format!("/break-glass/{}/{what}", view["id"].as_str().unwrap());
        self.at(&path, token).post(&[], json!({ "note": "looked at" }).to_string()).await
    }

    async fn opened(&self) -> Value {
        let asked = self.asks_for_it(&self.olga()).await;
        assert_eq!((asked.status, &asked.response()["state"]), (200, &json!("asked")), "{}", asked.text);
        let given = self.agrees(asked.response(), &self.bob()).await;
        assert_eq!((given.status, &given.response()["state"]), (200, &json!("open")), "{}", given.text);
        given.response().clone()
    }

    pub(super) async fn looks(&self) -> Answer {
        self.olga_calls().call_tool("tools__look", json!({ "x": 1 })).await
    }
}

/// That what the role allows is not there for somebody.
fn is_hidden(answer: &Answer) -> bool {
    answer.text.contains("Unknown tool")
}

async fn two_persons_open_it_and_a_third_looks_afterwards(running: &Running) {
    assert!(is_hidden(&running.looks().await), "nobody has the role");
    let asked = running.asks_for_it(&running.olga()).await;
    let view = asked.response().clone();
    assert_eq!((asked.status, &view["state"], &view["reason"]), (200, &json!("asked"), &json!("it burns")), "{view}");
    assert!(is_hidden(&running.looks().await), "to ask for it gives nothing");
    let own = running.agrees(&view, &running.person("olga", &["approvers"])).await;
    assert_eq!((own.status, reason(&own).as_str()), (403, "approver_refused"), "{}", own.text);
    let other = json!({ "id": view["id"], "shown": "0".repeat(64) });
    assert_eq!(running.agrees(&other, &running.bob()).await.status, 409, "what was shown is agreed to");
    assert!(is_hidden(&running.looks().await));
    let given = running.agrees(&view, &running.bob()).await;
    assert_eq!(given.response()["state"], "open", "{}", given.text);
    assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
    let denied = running.olga_calls().call_tool("tools__echo", json!({})).await;
    assert!(is_hidden(&denied), "a denial wins: {}", denied.text);
    let bea = running.gateway.client(&running.issuer.token("bea", &["oncall"], &running.gateway.resource()));
    assert!(is_hidden(&bea.call_tool("tools__look", json!({})).await), "it is one person's");
    assert_eq!(running.calls(), 1);
    let early = running.noted(&view, "review", &running.bob()).await;
    assert_eq!((early.status, reason(&early).as_str()), (409, "approval_over"), "{}", early.text);
    let ended = running.noted(&view, "end", &running.bob()).await;
    assert_eq!(ended.response()["state"], "to_review", "{}", ended.text);
    assert!(is_hidden(&running.looks().await), "it is over");
    let own = running.noted(&view, "review", &running.olga()).await;
    assert_eq!((own.status, reason(&own).as_str()), (403, "approver_refused"), "{}", own.text);
    let reviewed = running.noted(&view, "review", &running.person("rita", &["approvers"])).await;
    assert_eq!((&reviewed.response()["state"], reviewed.status), (&json!("reviewed"), 200), "{}", reviewed.text);
    assert_eq!(running.calls(), 1);
    let id = view["id"].as_str().unwrap();
    let wanted = ["asked", "refused", "opened", "used", "ended", "reviewed"];
    let events: Vec<String> = running.events(id).iter().map(|event| event.replace("break_glass_", "")).collect();
    assert_eq!(events, wanted);
    let used = running.gateway.records("approval");
    let used = used.iter().find(|record| record["approval"]["event"] == "break_glass_used").unwrap();
    assert_eq!(
        (&used["approval"]["name"], &used["approval"]["detail"]),
        (&json!("look"), &json!("it burns")),
        "{used}"
    );
    let intents = running.gateway.records("intent");
    assert!(intents.iter().any(|intent| intent["call"] == used["call"]), "it belongs to its call");
}

#[tokio::test]
async fn one_person_asks_another_agrees_every_call_is_told_and_somebody_else_looks_afterwards() {
    let running = begin("1h").await;
    two_persons_open_it_and_a_third_looks_afterwards(&running).await;
    let url = format!("{}/api/v1/openapi.json", running.gateway.admin);
    let document = Client::new(&url, None).bare(reqwest::Method::GET, &[]).await.response().clone();
    let all = running.at("/break-glass", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    for one in all.response().as_array().unwrap() {
        let schema = &document["components"]["schemas"]["BreakGlass"];
        assert!(crate::support::schema::problems(&document, schema, one, "").is_empty(), "{one}");
    }
}

#[tokio::test]
async fn emergency_access_is_the_same_where_the_rows_are_in_postgresql() {
    let Some(database) = Database::fresh().await else { return };
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let gateway = emergency_setup(&issuer, &upstream, "1h").shared(&database).start().await;
    two_persons_open_it_and_a_third_looks_afterwards(&Running { issuer, upstream, gateway }).await;
}

#[tokio::test]
async fn emergency_access_is_over_in_time() {
    let running = begin("2s").await;
    let view = running.opened().await;
    assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
    eventually("its end", async || is_hidden(&running.looks().await)).await;
    let calls = running.calls();
    assert!(is_hidden(&running.looks().await));
    assert_eq!(running.calls(), calls);
    let all = running.at("/break-glass", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    assert_eq!((&all.response()[0]["id"], &all.response()[0]["state"]), (&view["id"], &json!("to_review")));
}

#[tokio::test]
async fn only_whom_the_files_name_ask_and_agree_with_a_reason_and_a_login_of_a_moment_ago() {
    let running = begin("1h").await;
    let refused = async |token: &str, body: Value, status: u16, wanted: &str| {
        let answer = running.at("/break-glass", token).post(&[], body.to_string()).await;
        assert_eq!((answer.status, reason(&answer).as_str()), (status, wanted), "{}", answer.text);
    };
    let plain = json!({ "name": "outage", "reason": "it burns" });
    refused(&running.bob(), plain.clone(), 403, "approver_refused").await;
    refused(&running.olga(), json!({ "name": "outage", "reason": " " }), 400, "parameters_invalid").await;
    refused(&running.olga(), json!({ "name": "other", "reason": "x" }), 400, "parameters_invalid").await;
    let most = bailiwick::limit::BREAK_GLASS_REASON_CHARACTERS_MAX;
    let long = json!({ "name": "outage", "reason": "x".repeat(most + 1) }).to_string();
    let long = running.at("/break-glass", &running.olga()).post(&[], long).await;
    assert_eq!(long.response()["reason"].as_str().map(str::len), Some(most), "{}", long.text);
    let mut claims = running.issuer.administrator("olga", &["oncall"], &running.gateway.admin);
    claims["auth_time"] = json!(jiff::Timestamp::now().as_second() - 4000);
    refused(&running.issuer.sign(&claims), plain, 401, "insufficient_user_authentication").await;
    let asked = running.asks_for_it(&running.olga()).await;
    let unnamed = running.agrees(asked.response(), &running.person("mia", &["managers"])).await;
    assert_eq!((unnamed.status, reason(&unnamed).as_str()), (403, "approver_refused"), "{}", unnamed.text);
    let nobody = running.agrees(asked.response(), &running.person("eve", &[])).await;
    assert_eq!((nobody.status, reason(&nobody).as_str()), (403, "not_allowed"), "{}", nobody.text);
    assert!(is_hidden(&running.looks().await));
}

#[tokio::test]
async fn whoever_agreed_and_is_gone_has_agreed_to_nothing_and_so_it_is_with_whoever_asked() {
    for gone in ["user:test/bob", "user:test/olga"] {
        let running = begin("1h").await;
        running.opened().await;
        assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
        let revoked = running.gateway.command(&["revoke", "subject", gone, "--config", "servers.toml"]);
        assert!(revoked.status.success(), "{revoked:?}");
        assert_ne!(running.looks().await.result()["content"][0]["text"], r#"{"x":1}"#, "{gone}");
        assert_eq!(running.calls(), 1);
    }
}

#[tokio::test]
async fn files_that_do_not_have_it_any_more_end_it_and_adding_one_widens() {
    let running = begin("1h").await;
    running.opened().await;
    let gates = running.gateway.directory().join("policies/gates.toml");
    let before = std::fs::read_to_string(&gates).unwrap();
    std::fs::write(&gates, before.replace("group:test/oncall", "group:test/others")).unwrap();
    let narrower = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(!narrower.status.success(), "it is for others now");
    std::fs::write(&gates, before.split("[break_glass").next().unwrap()).unwrap();
    std::fs::write(
        running.gateway.directory().join("policies/policy.csv"),
        format!("{RULES}{FIRE}").lines().filter(|line| !line.contains("firefighter")).collect::<Vec<_>>().join("\n"),
    )
    .unwrap();
    let gone = running.gateway.command(&["reload", "--config", "servers.toml"]);
    assert!(gone.status.success(), "to take it away is a brake: {}", String::from_utf8_lossy(&gone.stdout));
    assert!(is_hidden(&running.looks().await));
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn whoever_wants_to_know_is_told_of_the_emergency_and_of_every_call() {
    let taken = Arc::<Mutex<Vec<Value>>>::default();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/hook", listener.local_addr().unwrap());
    let keeps = Arc::clone(&taken);
    let hook = async move |body: String| {
        keeps.lock().unwrap().push(serde_json::from_str::<Value>(&body).unwrap());
        axum::http::StatusCode::NO_CONTENT
    };
    let router = axum::Router::new().route("/hook", axum::routing::post(hook));
    tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let hooks = format!(
        "[webhooks.pager]\nurl = \"{url}\"\nevents = [\"break_glass.opened\", \"break_glass.used\"]\nallow_private = true\n"
    );
    let gateway = emergency_setup(&issuer, &upstream, "1h").sections(&hooks).start().await;
    let running = Running { issuer, upstream, gateway };
    let view = running.opened().await;
    for _ in 0..2 {
        assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
    }
    let limit = std::time::Duration::from_secs(20);
    eventually_within(limit, "all three", async || taken.lock().unwrap().len() >= 3).await;
    let all = taken.lock().unwrap().clone();
    let of = |kind: &str| all.iter().filter(|told| told["type"] == kind).count();
    assert_eq!((of("break_glass.opened"), of("break_glass.used")), (1, 2), "{all:?}");
    assert!(all.iter().all(|told| told["data"]["id"] == view["id"] && told["data"]["user"] == "user:test/olga"));
    assert!(!format!("{all:?}").contains("\"x\""), "no argument is told: {all:?}");
}

#[tokio::test]
async fn an_end_that_a_restored_store_has_forgotten_is_an_end() {
    let mut running = begin("1h").await;
    let view = running.opened().await;
    assert!(running.gateway.command(&["state", "backup", "kept"]).status.success());
    let id = view["id"].as_str().unwrap();
    let ended = running.gateway.command(&["break-glass", "end", id, "--config", "servers.toml"]);
    assert!(ended.status.success(), "{ended:?}");
    let place = running.gateway.state();
    assert!(running.gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(place.with_file_name("kept").join("store.sqlite"), place.join("store.sqlite")).unwrap();
    let reconciled = running.gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    running.gateway.launch().await;
    assert!(is_hidden(&running.looks().await));
    assert_eq!(running.calls(), 0);
}

/// A call of hers that its server does not answer; ends only when the gateway ends it.
async fn under_way(running: &Running) -> tokio::task::JoinHandle<Answer> {
    running.upstream.mute("look");
    let (before, olga) = (running.calls(), running.olga_calls());
    let call = tokio::spawn(async move { olga.call_tool("tools__look", json!({ "x": 1 })).await });
    eventually("the call to reach its server", async || running.calls() > before).await;
    call
}

async fn is_cut_off(call: tokio::task::JoinHandle<Answer>) {
    let ended = tokio::time::timeout(std::time::Duration::from_secs(10), call).await.expect("it goes on").unwrap();
    assert_eq!(reason(&ended), "break_glass_over", "{}", ended.text);
}

fn take_it_out_of_the_files(running: &Running) {
    let policies = running.gateway.directory().join("policies");
    let gates = std::fs::read_to_string(policies.join("gates.toml")).unwrap();
    std::fs::write(policies.join("gates.toml"), gates.split("[break_glass").next().unwrap()).unwrap();
    let rows =
        format!("{RULES}{FIRE}").lines().filter(|line| !line.contains("firefighter")).collect::<Vec<_>>().join("\n");
    std::fs::write(policies.join("policy.csv"), rows).unwrap();
    assert!(running.gateway.command(&["reload", "--config", "servers.toml"]).status.success());
}

#[tokio::test]
async fn what_is_under_way_ends_when_whoever_agreed_is_revoked_and_when_the_files_have_it_no_more() {
    let running = begin("1h").await;
    running.opened().await;
    let call = under_way(&running).await;
    let revoked = running.gateway.command(&["revoke", "subject", "user:test/bob", "--config", "servers.toml"]);
    assert!(revoked.status.success(), "{revoked:?}");
    is_cut_off(call).await;

    let running = begin("1h").await;
    running.opened().await;
    let call = under_way(&running).await;
    take_it_out_of_the_files(&running);
    is_cut_off(call).await;
}

#[tokio::test]
async fn whoever_asked_and_was_signed_out_since_has_it_no_more_with_their_next_login() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    // So that a token can be of after the skew that a sign-out allows for.
    let gateway = emergency_setup(&issuer, &upstream, "1h").issuer_lines("leeway = \"60s\"\n").start().await;
    let running = Running { issuer, upstream, gateway };
    running.opened().await;
    let words = ["revoke", "subject", "user:test/olga", "--sign-out", "--config", "servers.toml"];
    assert!(running.gateway.command(&words).status.success());
    let mut claims = running.issuer.claims("olga", &["oncall"], &running.gateway.resource());
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    claims["iat"] = json!(jiff::Timestamp::now().as_second() + 60);
    let olga = running.gateway.client(&running.issuer.sign(&claims));
    let answer = olga.call_tool("tools__look", json!({})).await;
    assert!(is_hidden(&answer), "she has to ask again: {}", answer.text);
    assert_eq!(running.calls(), 0);
}

#[tokio::test]
async fn access_that_is_given_back_to_somebody_with_a_part_in_it_does_not_bring_it_back() {
    for gone in ["user:test/bob", "user:test/olga"] {
        let (issuer, upstream) = (Issuer::start().await, upstream().await);
        let lifts = "p, role:root, *, bailiwick/revocations, admin, -, allow\np, role:root, *, bailiwick/lift, admin, -, allow\n";
        let rules = format!("{RULES}{FIRE}{lifts}");
        let gateway = emergency_setup(&issuer, &upstream, "1h").policy(&rules).start().await;
        let running = Running { issuer, upstream, gateway };
        let view = running.opened().await;
        let revoked = running.gateway.command(&["revoke", "subject", gone, "--config", "servers.toml"]);
        assert!(revoked.status.success(), "{revoked:?}");
        let root = running.person("root", &["roots"]);
        let held = running.at("/revocations", &root).bare(reqwest::Method::GET, &[]).await;
        let since = held.response()["revocations"][0]["since"].as_u64().unwrap();
        let lifted = running.at(&format!("/revocations/{since}"), &root).bare(reqwest::Method::DELETE, &[]).await;
        assert_eq!(lifted.status, 200, "{}", lifted.text);
        assert!(is_hidden(&running.looks().await), "{gone}");
        let all =
            running.at("/break-glass", &running.person("bea", &["approvers"])).bare(reqwest::Method::GET, &[]).await;
        assert_eq!(
            (&all.response()[0]["id"], &all.response()[0]["state"]),
            (&view["id"], &json!("to_review")),
            "{gone}"
        );
        assert_eq!(running.calls(), 0);
    }
}

#[tokio::test]
async fn whoever_agreed_and_whom_no_rule_lets_agree_any_more_has_agreed_to_nothing() {
    let running = begin("1h").await;
    running.opened().await;
    assert_eq!(running.looks().await.tool_text(), r#"{"x":1}"#);
    let rows =
        format!("{RULES}{FIRE}").replace("p, role:approver, *, bailiwick/break-glass-approve, admin, -, allow\n", "");
    running.gateway.write_policy(&rows);
    assert!(running.gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    assert!(is_hidden(&running.looks().await));
    assert_eq!(running.calls(), 1);
}

#[tokio::test]
async fn what_is_no_call_of_a_server_is_told_as_well() {
    let (issuer, upstream) = (Issuer::start().await, upstream().await);
    let templates = "[templates.nightly]\ntitle = \"at night\"\ntools = [\"tools/look\"]\n\
                     environments = [\"development\"]\nagents = [\"assistant\"]\nwall_time = \"10m\"\n";
    let gateway = emergency_setup(&issuer, &upstream, "1h").policy_file("mandates.toml", templates).start().await;
    let running = Running { issuer, upstream, gateway };
    let view = running.opened().await;
    let answer = running.olga_calls().call_tool("bailiwick__mandate_status", json!({ "id": "none" })).await;
    assert!(!is_hidden(&answer), "{}", answer.text);
    let used = async || {
        let mut all = running.gateway.records("approval");
        all.retain(|record| {
            record["approval"]["event"] == "break_glass_used" && record["approval"]["id"] == view["id"]
        });
        all
    };
    eventually("the record", async || !used().await.is_empty()).await;
    let told = used().await.remove(0);
    assert_eq!(
        (&told["approval"]["server"], &told["approval"]["name"], &told["approval"]["detail"]),
        (&json!("bailiwick"), &json!("mandate_status"), &json!("it burns")),
        "{told}"
    );
    assert_eq!(told["approval"]["approvers"][0]["id"], "user:test/bob", "{told}");
}

#[tokio::test]
async fn a_person_asks_for_a_few_at_once_and_others_can_ask_all_the_same() {
    let running = begin("1h").await;
    for _ in 0..bailiwick::limit::BREAK_GLASS_ASKED_PER_PERSON_MAX {
        assert_eq!(running.asks_for_it(&running.olga()).await.status, 200);
    }
    let more = running.asks_for_it(&running.olga()).await;
    assert_eq!(reason(&more), "approvals_limited", "{}", more.text);
    let other = running.asks_for_it(&running.person("oskar", &["oncall"])).await;
    assert_eq!(other.status, 200, "{}", other.text);
    // One that is withdrawn makes room.
    let all = running.at("/break-glass", &running.bob()).bare(reqwest::Method::GET, &[]).await;
    let own = all.response().as_array().unwrap().iter().find(|one| one["user"] == "user:test/olga").unwrap().clone();
    assert_eq!(running.noted(&own, "end", &running.bob()).await.status, 200);
    assert_eq!(running.asks_for_it(&running.olga()).await.status, 200);
}

#[tokio::test]
async fn of_an_agreement_and_an_end_at_the_same_moment_neither_is_lost() {
    let running = begin("1h").await;
    for _ in 0..6 {
        let asked = running.asks_for_it(&running.olga()).await.response().clone();
        let (bob, carol) = (running.bob(), running.person("carol", &["approvers"]));
        let (agreed, ended) = tokio::join!(running.agrees(&asked, &bob), running.noted(&asked, "end", &carol));
        let all = running.at("/break-glass", &bob).bare(reqwest::Method::GET, &[]).await;
        let one = all.response().as_array().unwrap().iter().find(|one| one["id"] == asked["id"]).unwrap().clone();
        let wanted = match (agreed.status, ended.status) {
            (200, 200) => "to_review",
            (200, _) => "open",
            _ => "expired",
        };
        assert_eq!(one["state"], wanted, "{} {} {one}", agreed.text, ended.text);
    }
}
