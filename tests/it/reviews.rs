//! Reviews: what was never used shows, what nobody answers for ends, and what was used is suggested.

use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::eventually;
use crate::support::gateway::{Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;
use crate::support::scripted::{Scripted, result, text, tool};
use crate::support::sts::{Revocation, Sts};

const RULES: &str = "\
p, anyone, *, tools/used, call, -, allow
p, anyone, *, tools/unused, call, -, allow
p, agent:assistant, *, tools/*, call, -, allow
p, group:test/admins, *, bailiwick/*, admin, -, allow
";

const ADMIN: &str = "clients = [{ issuer = \"test\", client_id = \"test-admin\" }]";

async fn upstream() -> Scripted {
    Scripted::start(json!([tool("used"), tool("unused")]), |call| result(call, text("done"))).await
}

fn setup(issuer: &Issuer, upstream: &Scripted) -> Setup {
    bare(issuer, upstream).admin(ADMIN)
}

/// Without a listener for administrators: whoever is at the machine may widen.
fn bare(issuer: &Issuer, upstream: &Scripted) -> Setup {
    Setup::new(issuer).http_server("tools", &upstream.url, "").policy(RULES)
}

fn printed(gateway: &Gateway, arguments: &[&str]) -> String {
    let output = gateway.command(&[arguments, &["--config", "servers.toml"]].concat());
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn answered(gateway: &Gateway, arguments: &[&str]) -> Value {
    serde_json::from_str(&printed(gateway, &[arguments, &["--json"]].concat())).unwrap()
}

async fn may(client: &Client, name: &str) -> bool {
    let answer = client.call_tool(&format!("tools__{name}"), json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.response()["error"].is_null() && !answer.result()["isError"].as_bool().unwrap_or(false)
}

/// The name of the grant of that row of the rules, in a review.
fn grant(report: &Value, object: &str) -> String {
    let grants = report["grants"].as_array().unwrap();
    let found = grants.iter().find(|reviewed| reviewed["grant"]["object"] == object).unwrap();
    found["grant"]["id"].as_str().unwrap().to_owned()
}

async fn post(gateway: &Gateway, path: &str, token: &str, body: Value) -> (u16, String) {
    let client = Client::new(&format!("{}/api/v1{path}", gateway.admin), Some(token));
    let answer = client.post(&[], body.to_string()).await;
    (answer.status, answer.text)
}

#[tokio::test]
async fn a_grant_that_nobody_attests_ends_when_the_review_is_closed_and_can_be_restored() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let mut gateway = setup(&issuer, &upstream).start().await;
    let token = issuer.token("alice", &[], &gateway.resource());
    assert!(may(&gateway.client(&token), "used").await);

    let review = answered(&gateway, &["review", "open"]);
    let id = review["id"].as_str().unwrap().to_owned();
    let report = answered(&gateway, &["review", "show", &id]);
    let of = |object: &str| {
        let grants = report["grants"].as_array().unwrap();
        grants.iter().find(|reviewed| reviewed["grant"]["object"] == object).unwrap().clone()
    };
    assert_eq!(report["grants"].as_array().unwrap().len(), 3, "the gateway's own operations are nobody's calls");
    assert_eq!(of("tools/used")["used"]["count"], 1);
    assert_eq!(of("tools/used")["confidence"], "exact");
    assert_eq!(of("tools/unused")["used"], Value::Null);
    let csv = printed(&gateway, &["review", "show", &id, "--format", "csv"]);
    assert!(csv.starts_with("grant,place,subject") && csv.contains("tools/unused,call,,"), "{csv}");
    let html = printed(&gateway, &["review", "show", &id, "--format", "html"]);
    assert!(html.contains("anyone may call tools/unused in *") && html.contains("never used"), "{html}");

    // Somebody at the machine may end, and may not say that something is needed.
    let (used, all) = (grant(&report, "tools/used"), grant(&report, "tools/*"));
    let refused = gateway.command(&["review", "attest", &id, &used, "--config", "servers.toml"]);
    assert_eq!(refused.status.code(), Some(1), "{}", String::from_utf8_lossy(&refused.stderr));
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let (status, said) = post(&gateway, &format!("/reviews/{id}/attest"), &ann, json!({ "grants": [used, all] })).await;
    assert_eq!((status, said.as_str()), (200, "{\"grants\":2}"));
    assert!(may(&gateway.client(&token), "unused").await, "it is asked, and nothing has ended yet");

    // A review that is open for longer than this is none.
    let most = bailiwick::limit::REVIEW_OPEN_MAX.as_secs() / (24 * 3600);
    for (days, expected) in [(most, 200), (most + 1, 400), (0, 400)] {
        let (status, said) = post(&gateway, "/reviews", &ann, json!({ "deadline_days": days })).await;
        assert_eq!(status, expected, "{days}: {said}");
    }

    let closed = answered(&gateway, &["review", "close", &id]);
    assert_eq!(closed["grants"], 1);
    assert!(!may(&gateway.client(&token), "unused").await);
    assert!(may(&gateway.client(&token), "used").await);
    assert!(!gateway.client(&token).tool_names().await.contains(&"tools__unused".to_owned()));

    // The same files again give nothing back, nor does another start.
    assert!(gateway.command(&["reload", "--config", "servers.toml"]).status.success());
    assert!(!may(&gateway.client(&token), "unused").await);
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert!(!may(&gateway.client(&token), "unused").await);

    let unused = grant(&report, "tools/unused");
    let late = post(&gateway, &format!("/reviews/{id}/attest"), &ann, json!({ "grants": [unused] })).await;
    assert_eq!(late.0, 404, "{}", late.1);
    let restored = post(&gateway, &format!("/grants/{unused}/restore"), &ann, json!({})).await;
    assert_eq!(restored.0, 200, "{}", restored.1);
    assert!(may(&gateway.client(&token), "unused").await);

    let told: Vec<_> = gateway.records("admin").into_iter().map(|record| record["admin"].clone()).collect();
    let done = |operation: &str| told.iter().any(|told| told["operation"] == operation && told["outcome"] == "done");
    assert!(done("review") && done("attest"), "{told:?}");
}

#[tokio::test]
async fn a_store_of_before_brings_no_grant_back() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let mut gateway = setup(&issuer, &upstream).start().await;
    let token = issuer.token("alice", &[], &gateway.resource());
    let review = answered(&gateway, &["review", "open"]);
    let id = review["id"].as_str().unwrap().to_owned();
    let unused = grant(&answered(&gateway, &["review", "show", &id]), "tools/unused");
    let all = grant(&answered(&gateway, &["review", "show", &id]), "tools/*");
    let (place, kept) = (gateway.state(), gateway.state().with_file_name("kept"));
    assert!(gateway.command(&["state", "backup", "kept"]).status.success());
    answered(&gateway, &["review", "end", &id, &unused, &all]);
    assert!(!may(&gateway.client(&token), "unused").await);
    assert!(gateway.stop().await.success());
    for name in ["store.sqlite-wal", "store.sqlite-shm"] {
        let _ = std::fs::remove_file(place.join(name));
    }
    std::fs::copy(kept.join("store.sqlite"), place.join("store.sqlite")).unwrap();
    assert_eq!(gateway.command(&["serve"]).status.code(), Some(2));
    let reconciled = gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    gateway.launch().await;
    assert!(!may(&gateway.client(&token), "unused").await && may(&gateway.client(&token), "used").await);
    // Why it ended is on the record by its name.
    assert!(gateway.records("change").iter().any(|record| record.to_string().contains(&unused)));
}

#[tokio::test]
async fn a_review_comes_back_with_its_deadline_where_the_store_of_before_is_restored() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let Some(setup) = setup(&issuer, &upstream).own_clock() else { return };
    let mut gateway = setup.start().await;
    assert!(gateway.command(&["state", "backup", "kept"]).status.success());
    let open = answered(&gateway, &["review", "open", "--deadline", "14"]);
    let closed = answered(&gateway, &["review", "open", "--deadline", "7"]);
    let grants = answered(&gateway, &["review", "show", open["id"].as_str().unwrap()])["grants"].clone();
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let path = format!("/reviews/{}/attest", closed["id"].as_str().unwrap());
    assert_eq!(post(&gateway, &path, &ann, json!({ "all": true })).await.0, 200);
    assert!(gateway.command(&["review", "close", closed["id"].as_str().unwrap()]).status.success());
    gateway.store_of_before().await;
    assert_eq!(gateway.command(&["serve"]).status.code(), Some(2), "the store is older than the journal");
    let reconciled = gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    gateway.launch().await;
    let reviews = answered(&gateway, &["review", "list"]);
    let find = |id: &Value| reviews.as_array().unwrap().iter().find(|review| review["id"] == *id).cloned().unwrap();
    assert_eq!(find(&open["id"]), open);
    assert!(find(&closed["id"])["closed"]["by"].is_string(), "it is not closed again, with what was attested in it");
    eventually("its grants to be there again", async || {
        let again = answered(&gateway, &["review", "show", open["id"].as_str().unwrap()])["grants"].clone();
        let named = |grants: &Value| -> Vec<Value> {
            grants.as_array().unwrap().iter().map(|one| one["grant"]["id"].clone()).collect()
        };
        named(&again) == named(&grants) && again.as_array().unwrap().iter().all(|one| one["answer"] == "open")
    })
    .await;
    // Where its deadline has passed, it is closed with its grants and not without them.
    gateway.store_of_before().await;
    let reconciled = gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");
    gateway.set_clock(&format!("+{}", 15 * 24 * 3600));
    gateway.launch().await;
    eventually("it is closed with its grants", async || {
        let shown = answered(&gateway, &["review", "show", open["id"].as_str().unwrap()]);
        let all = shown["grants"].as_array().unwrap();
        shown["closed"]["by"] == "deadline" && !all.is_empty() && all.iter().all(|one| one["answer"] == "ended")
    })
    .await;
}

#[tokio::test]
async fn a_review_that_came_back_stays_open_while_its_grants_cannot_be_looked_up() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let setup = setup(&issuer, &upstream).record("segment_bytes = \"4KiB\"\ncompress = false\n");
    let Some(setup) = setup.issuer_lines("token_life_max = \"60d\"\n").own_clock() else { return };
    let mut gateway = setup.start().await;
    let mut claims = issuer.claims("alice", &[], &gateway.resource());
    claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 30 * 24 * 3600);
    let alice = gateway.client(&issuer.sign(&claims));
    // The record goes on in other files, the first of which no later start has to read.
    for _ in 0..10 {
        assert!(may(&alice, "used").await);
    }
    assert!(gateway.stop().await.success());
    gateway.launch().await;
    assert!(gateway.command(&["state", "backup", "kept"]).status.success());
    let review = answered(&gateway, &["review", "open", "--deadline", "14"]);
    let id = review["id"].as_str().unwrap().to_owned();
    gateway.store_of_before().await;
    let reconciled = gateway.command(&["store", "reconcile"]);
    assert!(reconciled.status.success(), "{reconciled:?}");

    // Its deadline has passed, and what was used nobody can read: that is where a link stands.
    let mut segments: Vec<_> = std::fs::read_dir(gateway.state().join("journal"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "jsonl"))
        .collect();
    segments.sort();
    assert!(segments.len() > 2, "{segments:?}");
    let aside = gateway.place().join("aside.jsonl");
    std::fs::rename(&segments[0], &aside).unwrap();
    std::os::unix::fs::symlink(&aside, &segments[0]).unwrap();
    gateway.set_clock(&format!("+{}", 15 * 24 * 3600));
    gateway.launch().await;
    eventually("it not to be closed", async || gateway.log().contains("a review is over, and could not be closed"))
        .await;
    let refused = gateway.command(&["review", "close", &id, "--config", "servers.toml"]);
    assert!(!refused.status.success(), "{refused:?}");
    let shown = answered(&gateway, &["review", "show", &id]);
    assert!(shown["closed"].is_null() && shown["grants"].as_array().unwrap().is_empty(), "{shown}");
    assert!(may(&alice, "unused").await, "nothing has ended unseen");

    // As soon as it can be read again, it is closed with its grants.
    assert!(gateway.stop().await.success());
    std::fs::remove_file(&segments[0]).unwrap();
    std::fs::rename(&aside, &segments[0]).unwrap();
    gateway.launch().await;
    eventually("it to be closed with its grants", async || {
        let shown = answered(&gateway, &["review", "show", &id]);
        let all = shown["grants"].as_array().unwrap();
        shown["closed"]["by"] == "deadline" && all.len() == 3 && all.iter().all(|one| one["answer"] == "ended")
    })
    .await;
    assert!(!may(&alice, "unused").await);
}

#[tokio::test]
async fn a_review_that_misses_its_deadline_is_closed_by_itself() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let Some(setup) = setup(&issuer, &upstream).issuer_lines("token_life_max = \"60d\"\n").own_clock() else { return };
    let mut gateway = setup.start().await;
    let mut claims = issuer.claims("alice", &[], &gateway.resource());
    claims["exp"] = json!(claims["exp"].as_i64().unwrap() + 30 * 24 * 3600);
    let alice = gateway.client(&issuer.sign(&claims));
    assert!(may(&alice, "unused").await);
    let review = answered(&gateway, &["review", "open", "--deadline", "14"]);
    let report = answered(&gateway, &["review", "show", review["id"].as_str().unwrap()]);
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let attested = json!({ "grants": [grant(&report, "tools/used"), grant(&report, "tools/*")] });
    let path = format!("/reviews/{}/attest", review["id"].as_str().unwrap());
    assert_eq!(post(&gateway, &path, &ann, attested).await.0, 200);
    assert!(gateway.stop().await.success());
    gateway.set_clock(&format!("+{}", 15 * 24 * 3600));
    gateway.launch().await;
    eventually("the grant has ended", async || !may(&alice, "unused").await).await;
    assert!(may(&alice, "used").await);
    let reviews = answered(&gateway, &["review", "list"]);
    assert_eq!(reviews[0]["closed"]["by"], "deadline", "{reviews}");
}

#[tokio::test]
async fn a_grant_that_is_written_twice_is_one_grant_and_attested_once() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let twice = format!("{RULES}p, anyone, *, tools/used, call, -, allow\n");
    let gateway = setup(&issuer, &upstream).policy(&twice).start().await;
    let alice = gateway.client(&issuer.token("alice", &[], &gateway.resource()));
    let id = answered(&gateway, &["review", "open"])["id"].as_str().unwrap().to_owned();
    let report = answered(&gateway, &["review", "show", &id]);
    let named = json!({ "grants": [grant(&report, "tools/used"), grant(&report, "tools/*")] });
    let ann = issuer.sign(&issuer.administrator("ann", &["admins"], &gateway.admin));
    let (status, said) = post(&gateway, &format!("/reviews/{id}/attest"), &ann, named).await;
    assert_eq!((status, said.as_str()), (200, "{\"grants\":2}"));
    assert_eq!(answered(&gateway, &["review", "close", &id])["grants"], 1, "that of tools/unused");
    assert!(may(&alice, "used").await && !may(&alice, "unused").await);
    let report = answered(&gateway, &["review", "show", &id]);
    let answers: Vec<_> = report["grants"].as_array().unwrap().iter().map(|one| one["answer"].clone()).collect();
    assert_eq!(answers, ["attested", "ended", "attested", "attested"]);
}

#[tokio::test]
async fn a_grant_that_ends_between_the_decision_and_the_call_keeps_it_back() {
    let (issuer, sts) = (Issuer::start().await, Sts::start(Revocation::HasNot).await);
    let upstream = upstream().await;
    let credential = format!(
        "[servers.tools.tool_credentials.unused]\nkind = \"exchange\"\nissuer = \"{}\"\nclient_id = \"gateway\"\n\
         audience = \"up\"\n",
        sts.url
    );
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, &credential).policy(RULES);
    let gateway = setup.start().await;
    let alice = gateway.client(&issuer.token("alice", &[], &gateway.resource()));
    eventually("the list", async || alice.tool_names().await.contains(&"tools__unused".to_owned())).await;
    let id = answered(&gateway, &["review", "open"])["id"].as_str().unwrap().to_owned();
    let unused = grant(&answered(&gateway, &["review", "show", &id]), "tools/unused");
    let before = sts.asked().len();
    sts.hold(true);
    let calling = tokio::spawn({
        let alice = alice.clone();
        async move { may(&alice, "unused").await }
    });
    eventually("its credential is asked for", async || sts.asked().len() > before).await;
    answered(&gateway, &["review", "end", &id, &unused]);
    sts.hold(false);
    assert!(!calling.await.unwrap(), "ended, and that was in force");
    assert!(upstream.calls().is_empty());
    assert!(may(&alice, "used").await);
}

#[tokio::test]
async fn what_the_record_never_tells_of_is_not_called_unused() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let asks = format!("{RULES}p, anyone, *, tools/, elicit, -, allow\n");
    let gateway = setup(&issuer, &upstream).policy(&asks).start().await;
    let unused = answered(&gateway, &["policy", "unused"]);
    let actions: Vec<_> =
        unused["grants"].as_array().unwrap().iter().map(|one| one["grant"]["action"].clone()).collect();
    assert_eq!(actions, ["call", "call", "call"], "{unused}");
    let id = answered(&gateway, &["review", "open"])["id"].as_str().unwrap().to_owned();
    let page = printed(&gateway, &["review", "show", &id]);
    let line = page.lines().find(|line| line.contains("elicit")).unwrap();
    assert!(line.contains("the record does not tell") && !line.contains("never used"), "{page}");
    assert!(page.contains("The record goes back to "), "{page}");
}

#[tokio::test]
async fn a_grant_that_ended_at_one_replica_has_ended_at_all() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let Some(replicas) = Replicas::start(bare(&issuer, &upstream), 2).await else { return };
    let token = issuer.token("alice", &[], &replicas.resource());
    let [here, there] = [0, 1].map(|index: usize| &replicas.all[index]);
    assert!(may(&there.client(&token), "unused").await);
    let review = answered(here, &["review", "open"]);
    let id = review["id"].as_str().unwrap();
    let report = answered(here, &["review", "show", id]);
    answered(here, &["review", "end", id, &grant(&report, "tools/unused")]);
    assert!(!may(&here.client(&token), "unused").await);
    eventually("it has ended at the other", async || !may(&there.client(&token), "unused").await).await;
    assert!(may(&there.client(&token), "used").await);
}

#[tokio::test]
async fn what_another_replica_used_is_not_called_unused() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let Some(replicas) = Replicas::start(bare(&issuer, &upstream), 2).await else { return };
    let token = issuer.token("alice", &[], &replicas.resource());
    let [here, there] = [0, 1].map(|index: usize| &replicas.all[index]);
    assert!(may(&there.client(&token), "used").await);
    let unused = answered(here, &["policy", "unused"]);
    assert!(unused["own_record_only"] == true && unused["grants"].to_string().contains("tools/used"), "{unused}");
    // Each opens a review, which stays: one in a while.
    let began = std::time::Instant::now();
    let (review, report) = loop {
        let review = answered(here, &["review", "open"]);
        let report = answered(here, &["review", "show", review["id"].as_str().unwrap()]);
        if review["silent_replicas"].is_null() && !used(&report, "tools/used").is_null() {
            break (review, report);
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{report}");
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    };
    let grants = report["grants"].as_array().unwrap();
    let found = |object: &str| grants.iter().find(|one| one["grant"]["object"] == object).unwrap();
    assert_eq!(
        (&found("tools/used")["confidence"], &found("tools/used")["used"]["count"]),
        (&json!("elsewhere"), &json!(0))
    );
    assert_eq!(found("tools/*")["confidence"], "elsewhere", "the agent's as well: {report}");
    assert!(found("tools/unused")["used"].is_null(), "nobody used it: {report}");
    // What was used before they told each other is not known, and that is said.
    let page = printed(here, &["review", "show", review["id"].as_str().unwrap()]);
    assert!(page.contains("used at another replica, last "), "{page}");
    assert!(review["others_known_since"].is_string() && page.contains("What other replicas used before "), "{page}");
}

/// When a grant was used, as a review has it.
fn used(report: &Value, object: &str) -> Value {
    let grants = report["grants"].as_array().unwrap();
    grants.iter().find(|one| one["grant"]["object"] == object).unwrap()["used"].clone()
}

#[tokio::test]
async fn the_record_says_which_allows_nobody_used_and_which_rules_would_be_enough() {
    let issuer = Issuer::start().await;
    let upstream = upstream().await;
    let gateway = bare(&issuer, &upstream).start().await;
    let alice = gateway.client(&issuer.token("alice", &[], &gateway.resource()));
    for _ in 0..3 {
        assert!(may(&alice, "used").await);
    }
    let unused = answered(&gateway, &["policy", "unused"]);
    let unused: Vec<_> =
        unused["grants"].as_array().unwrap().iter().map(|use_| use_["grant"]["object"].clone()).collect();
    assert_eq!(unused, ["tools/unused"]);
    let all = answered(&gateway, &["policy", "unused", "--all"]);
    assert_eq!(all["grants"][0]["used"]["count"], 3, "{all}");

    let suggested = answered(&gateway, &["policy", "suggest"]);
    let rows: Vec<_> =
        suggested["rows"].as_array().unwrap().iter().map(|row| row.as_str().unwrap().to_owned()).collect();
    assert_eq!(
        rows,
        [
            "p, agent:assistant, development, tools/used, call, -, allow",
            "p, user:test/alice, development, tools/used, call, -, allow"
        ]
    );
    // They would be enough: the same call under these alone.
    let only = format!("{}\np, group:test/admins, *, bailiwick/*, admin, -, allow\n", rows.join("\n"));
    gateway.write_policy(&only);
    let reloaded = gateway.command(&["reload", "--allow-widening", "--config", "servers.toml"]);
    assert!(reloaded.status.success(), "{}", String::from_utf8_lossy(&reloaded.stderr));
    assert!(may(&alice, "used").await);
    assert!(!may(&alice, "unused").await);
}
