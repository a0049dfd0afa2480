//! Several replicas with one store: what is taken back at one is taken back at all, and none decides by what it cannot
//! see.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::client::{Client, Lost, modern_request};
use crate::support::gateway::{DEVELOPERS_MAY, Gateway, Setup};
use crate::support::issuer::Issuer;
use crate::support::replicas::Replicas;
use crate::support::scripted::{Scripted, raw, tool};
use crate::support::{eventually, eventually_within};

/// Three replicas before one upstream.
async fn three() -> Option<(Issuer, Scripted, Replicas)> {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let replicas = Replicas::start(Setup::new(&issuer).http_server("tools", &upstream.url, ""), 3).await?;
    Some((issuer, upstream, replicas))
}

fn run(gateway: &Gateway, arguments: &[&str]) -> String {
    let arguments: Vec<_> = arguments.iter().chain(&["--config", "servers.toml"]).copied().collect();
    let output = gateway.command(&arguments);
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    text
}

/// Why another start of a replica that does not run is refused.
fn refused_start(gateway: &Gateway) -> String {
    let anywhere = ["--listen", "127.0.0.1:0", "--cluster-listen", "127.0.0.1:0", "--advertise", "localhost:1"];
    let started = gateway.command(&[&["serve", "--config", "servers.toml"][..], &anywhere].concat());
    assert!(!started.status.success());
    String::from_utf8_lossy(&started.stderr).into_owned()
}

async fn status(client: &Client) -> u16 {
    client.call_tool("tools__echo", json!({})).await.status
}

/// The details of readiness.
fn readiness(gateway: &Gateway, name: &str) -> Option<String> {
    let socket = gateway.state().join("control.sock");
    let output = std::process::Command::new("curl")
        .args(["-s", "--unix-socket", socket.to_str().unwrap(), "http://localhost/readyz"])
        .output()
        .unwrap();
    let all: Value = serde_json::from_slice(&output.stdout).unwrap();
    let check = all["checks"].as_array().unwrap().iter().find(|check| check["name"] == name).cloned();
    let check = check.unwrap_or_else(|| panic!("no {name} in {all}"));
    (check["well"] == false).then(|| check["detail"].as_str().unwrap().to_owned())
}

async fn ready(gateway: &Gateway) -> bool {
    Client::new(&format!("{}/readyz", gateway.url), None).bare(reqwest::Method::GET, &[]).await.status == 200
}

#[tokio::test]
async fn what_is_revoked_at_one_replica_is_refused_at_the_others_within_a_second() {
    let Some((issuer, _upstream, replicas)) = three().await else { return };
    let mut took = Vec::new();
    for number in 0..50 {
        let token = issuer.token(&format!("user-{number}"), &["developers"], &replicas.resource());
        let clients: Vec<_> = replicas.all.iter().map(|gateway| gateway.client(&token)).collect();
        for client in &clients {
            assert_eq!(status(client).await, 200);
        }
        let own = number % 3;
        run(&replicas.all[own], &["revoke", "subject", &format!("user:test/user-{number}")]);
        assert_eq!(status(&clients[own]).await, 401, "in force where it was ordered, when that was acknowledged");
        let acknowledged = Instant::now();
        for other in [&clients[(own + 1) % 3], &clients[(own + 2) % 3]] {
            while status(other).await != 401 {
                assert!(acknowledged.elapsed() < Duration::from_secs(20));
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            took.push(acknowledged.elapsed());
        }
    }
    took.sort();
    let (median, p99, longest) = (took[49], took[98], took[99]);
    eprintln!("revoked to refused at two other replicas: median {median:?}, p99 {p99:?}, longest {longest:?}");
    // The longest one tells more of a loaded machine than of the gateway.
    assert!(p99 < Duration::from_secs(1) && longest < Duration::from_secs(10), "{took:?}");
}

#[tokio::test]
async fn a_call_under_way_at_another_replica_ends_and_both_records_tell_of_the_revocation() {
    let issuer = Issuer::start().await;
    let silent = |_: &Value| {
        let never = futures_util::stream::pending::<Result<axum::body::Bytes, std::convert::Infallible>>();
        raw("text/event-stream", axum::body::Body::from_stream(never))
    };
    let upstream = Scripted::start(json!([tool("wait")]), silent).await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let Some(replicas) = Replicas::start(setup, 2).await else { return };
    let client = replicas.all[1].client(&issuer.token("alice", &["developers"], &replicas.resource()));
    let call = tokio::spawn(async move { client.call_tool("tools__wait", json!({})).await });
    eventually("the call to arrive", async || upstream.calls().len() == 1).await;
    run(&replicas.all[0], &["revoke", "subject", "user:test/alice", "--note", "left"]);
    let answer = tokio::time::timeout(Duration::from_secs(2), call).await.unwrap().unwrap();
    assert_eq!(answer.status, 401, "{}", answer.text);
    eventually("the revocation on the record", async || !replicas.all[1].records("revocation").is_empty()).await;
    let (ordered, taken) = (&replicas.all[0].records("revocation")[0], &replicas.all[1].records("revocation")[0]);
    assert!(ordered["revocation"].get("ordered_at").is_none(), "{ordered}");
    assert_eq!(taken["revocation"]["ordered_at"], ordered["replica"]);
    for key in ["actor", "target", "value", "note", "epoch"] {
        assert_eq!(taken["revocation"][key], ordered["revocation"][key], "{key}");
    }
}

#[tokio::test]
async fn a_replica_that_was_away_has_the_revocations_on_its_record_before_it_serves() {
    let Some((issuer, _upstream, mut replicas)) = three().await else { return };
    assert!(replicas.all[2].stop().await.success());
    run(&replicas.all[0], &["revoke", "subject", "user:test/alice"]);
    run(&replicas.all[1], &["revoke", "subject", "user:test/bob"]);
    replicas.all[2].launch().await;
    assert_eq!(told(&replicas.all[2]), [(1, true), (2, true)]);
    let token = issuer.token("bob", &["developers"], &replicas.resource());
    assert_eq!(status(&replicas.all[2].client(&token)).await, 401);
    // A store that was restored from before is brought up to what this journal tells.
    for gateway in &mut replicas.all {
        gateway.stop().await;
    }
    replicas.database.execute("UPDATE meta SET epoch = 0; DELETE FROM revocations; DELETE FROM changes").await;
    let said = refused_start(&replicas.all[2]);
    assert!(said.contains("store reconcile"), "{said}");
    let backup = tempfile::tempdir().unwrap();
    let copied = run(&replicas.all[2], &["state", "backup", backup.path().join("copy").to_str().unwrap()]);
    assert!(copied.contains("the store is on PostgreSQL"), "{copied}");
    let told = run(&replicas.all[2], &["store", "reconcile"]);
    assert!(told.contains("epoch 0 -> 2"), "{told}");
    replicas.all[2].launch().await;
    assert_eq!(status(&replicas.all[2].client(&token)).await, 401);
}

/// The epochs that a replica's record tells, and whether they were ordered elsewhere.
fn told(gateway: &Gateway) -> Vec<(u64, bool)> {
    let told = |record: &Value| {
        let revocation = &record["revocation"];
        (revocation["epoch"].as_u64().unwrap(), revocation.get("ordered_at").is_some())
    };
    gateway.records("revocation").iter().map(told).collect()
}

#[tokio::test]
async fn a_revocation_at_a_replica_that_is_stopped_puts_what_it_missed_on_its_record_first() {
    let Some((_issuer, _upstream, mut replicas)) = three().await else { return };
    assert!(replicas.all[2].stop().await.success());
    run(&replicas.all[0], &["revoke", "subject", "user:test/alice"]);
    run(&replicas.all[2], &["revoke", "subject", "user:test/bob"]);
    assert_eq!(told(&replicas.all[2]), [(1, true), (2, false)]);
    eventually("the other's record", async || told(&replicas.all[0]) == [(1, false), (2, true)]).await;
}

#[tokio::test]
async fn what_was_ordered_here_and_not_recorded_any_more_is_on_the_record_after_the_next_start() {
    let Some((_issuer, _upstream, mut replicas)) = three().await else { return };
    run(&replicas.all[0], &["revoke", "subject", "user:test/alice"]);
    assert!(replicas.all[0].stop().await.success());
    // As if it had been killed after the store had it.
    let ordered = "UPDATE meta SET epoch = 2;
        INSERT INTO changes SELECT 2, replica, lifted, kind, issuer, 'bob', mode, issued_before, actor, note, at
            FROM changes WHERE epoch = 1;";
    replicas.database.execute(ordered).await;
    replicas.all[0].launch().await;
    assert_eq!(told(&replicas.all[0]), [(1, false), (2, false)]);
}

#[tokio::test]
async fn what_changed_at_one_replica_is_on_the_record_of_the_others_and_reconciled_from_any_of_them() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let agents = "[agents.assistant]\nowner = \"user:test/owner\"\npurpose = \"tests\"\nkind = \"interactive\"\n\
                  environments = [\"development\"]\n";
    let setup = Setup::new(&issuer).policy_file("agents.toml", agents).http_server("tools", &upstream.url, "");
    let Some(mut replicas) = Replicas::start(setup, 2).await else { return };
    run(&replicas.all[0], &["agents", "suspend", "assistant", "--for", "user:test/alice"]);
    eventually("the other's record", async || replicas.all[1].records("change").len() == 1).await;
    let told = replicas.all[1].records("change").remove(0);
    assert_eq!(told["change"]["ordered_at"], replicas.all[0].records("change")[0]["replica"], "{told}");
    for gateway in &mut replicas.all {
        gateway.stop().await;
    }
    replicas.database.execute("UPDATE meta SET epoch = 0; DELETE FROM changes; DELETE FROM shelf").await;
    let told = run(&replicas.all[1], &["store", "reconcile"]);
    assert!(told.contains("1 changes taken over, epoch 0 -> 1"), "{told}");
    replicas.all[1].launch().await;
    let client = |name: &str| replicas.all[1].client(&issuer.token(name, &["developers"], &replicas.resource()));
    assert_eq!((status(&client("alice")).await, status(&client("bob")).await), (403, 200));
}

#[tokio::test]
async fn a_store_that_went_back_and_came_to_the_same_epoch_again_is_seen_to_be_another() {
    let Some((issuer, _upstream, mut replicas)) = three().await else { return };
    for name in ["alice", "bob", "erin"] {
        run(&replicas.all[0], &["revoke", "subject", &format!("user:test/{name}")]);
    }
    // Somebody lifts the last one.
    let lifted = "UPDATE meta SET epoch = 4; DELETE FROM revocations WHERE epoch = 3;
        INSERT INTO changes SELECT 4, replica, true, kind, issuer, value, mode, issued_before, actor, note, at, 7
            FROM changes WHERE epoch = 3;";
    replicas.database.execute(lifted).await;
    eventually("the lift on the record", async || told(&replicas.all[0]).len() == 4).await;
    for gateway in &mut replicas.all {
        gateway.stop().await;
    }
    let back =
        "UPDATE meta SET epoch = 1; DELETE FROM revocations WHERE epoch > 1; DELETE FROM changes WHERE epoch > 1";
    replicas.database.execute(back).await;
    // One that knows nothing of it starts first, and others are revoked until the number is passed.
    replicas.add().await;
    for name in ["carol", "dave", "erin"] {
        run(&replicas.all[3], &["revoke", "subject", &format!("user:test/{name}")]);
    }
    let refused = replicas.all[0].command(&[
        "serve",
        "--config",
        "servers.toml",
        "--listen",
        "127.0.0.1:0",
        "--cluster-listen",
        "127.0.0.1:0",
        "--advertise",
        "localhost:1",
    ]);
    let said = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert!(said.contains("came to epoch 4 again") && said.contains("store reconcile"), "{said}");
    // Who was taken back again since is not let in by a lift of before.
    let reconciled = replicas.all[0].command(&["store", "reconcile", "--config", "servers.toml"]);
    let told =
        format!("{}{}", String::from_utf8_lossy(&reconciled.stdout), String::from_utf8_lossy(&reconciled.stderr));
    assert!(told.contains("2 changes taken over, epoch 4 -> 7"), "{told}");
    assert!(told.contains("left out: epoch 4 lifts subject test/erin"), "{told}");
    replicas.all[0].launch().await;
    for gateway in [&replicas.all[0], &replicas.all[3]] {
        for name in ["alice", "bob", "carol", "dave", "erin"] {
            let client = gateway.client(&issuer.token(name, &["developers"], &replicas.resource()));
            eventually("all of them to be refused", async || status(&client).await == 401).await;
        }
    }
    let epochs: Vec<u64> = told_epochs(&replicas.all[3]);
    assert_eq!(epochs, [2, 3, 4, 5, 6], "and its record tells what was reconciled elsewhere");
}

fn told_epochs(gateway: &Gateway) -> Vec<u64> {
    told(gateway).into_iter().map(|(epoch, _)| epoch).collect()
}

#[tokio::test]
async fn a_store_that_was_seen_to_go_back_is_served_by_nobody_who_starts_before_it_is_reconciled() {
    let Some((_issuer, _upstream, mut replicas)) = three().await else { return };
    run(&replicas.all[0], &["revoke", "subject", "user:test/alice"]);
    eventually("the others to know", async || told(&replicas.all[2]).len() == 1).await;
    replicas.database.execute("UPDATE meta SET epoch = 0; DELETE FROM revocations; DELETE FROM changes").await;
    eventually("it to be seen", async || replicas.all[2].log().contains("went back from epoch 1 to 0")).await;
    // What it acknowledged now nobody would see.
    let suspended = replicas.all[2].command(&["agents", "suspend", "assistant", "--config", "servers.toml"]);
    let said = format!("{}{}", String::from_utf8_lossy(&suspended.stdout), String::from_utf8_lossy(&suspended.stderr));
    assert!(!suspended.status.success() && said.contains("store_unavailable"), "{said}");
    for gateway in &mut replicas.all {
        gateway.stop().await;
    }
    // As if others had been revoked since, so that the number alone says nothing.
    replicas.database.execute("UPDATE meta SET epoch = 9").await;
    let said = refused_start(&replicas.all[1]);
    assert!(said.contains("went back from epoch 1 to 0") && said.contains("store reconcile"), "{said}");
}

#[tokio::test]
async fn a_replica_that_does_not_see_the_store_refuses_within_ten_seconds_and_recovers_by_itself() {
    let Some((issuer, upstream, replicas)) = three().await else { return };
    let token = issuer.token("alice", &["developers"], &replicas.resource());
    let (cut, other) = (replicas.all[0].client(&token), replicas.all[1].client(&token));
    assert_eq!((status(&cut).await, status(&other).await), (200, 200));
    let listen = json!({ "notifications": { "toolsListChanged": true } });
    let (headers, body) = modern_request("subscriptions/listen", listen);
    let mut listening = cut.stream(&headers, Some(body.to_string())).await;
    listening.next().await;
    let began = Instant::now();
    replicas.ways[0].cut();
    let refused = loop {
        let answer = cut.call_tool("tools__echo", json!({})).await;
        if answer.status != 200 {
            break answer;
        }
        assert!(began.elapsed() < Duration::from_secs(12));
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    assert_eq!(refused.status, 503, "{}", refused.text);
    assert!(refused.text.contains("store_unavailable"), "{}", refused.text);
    assert!(!ready(&replicas.all[0]).await && ready(&replicas.all[1]).await);
    assert!(readiness(&replicas.all[0], "replication").unwrap().contains("not heard of for too long"));
    tokio::time::timeout(Duration::from_secs(3), listening.end()).await.expect("what only listens ends, too");
    let calls = upstream.calls().len();
    run(&replicas.all[1], &["revoke", "subject", "user:test/alice"]);
    assert_eq!((status(&other).await, status(&cut).await), (401, 503));
    assert_eq!(upstream.calls().len(), calls, "nothing was forwarded meanwhile");
    replicas.ways[0].mend();
    eventually("the replica to see the store again", async || status(&cut).await == 401).await;
    eventually("the replica to be ready", async || ready(&replicas.all[0]).await).await;
    let bob = replicas.all[0].client(&issuer.token("bob", &["developers"], &replicas.resource()));
    assert_eq!(status(&bob).await, 200);
}

#[tokio::test]
async fn a_database_that_is_gone_for_a_minute_costs_refusals_and_nothing_else() {
    let Some((issuer, upstream, replicas)) = three().await else { return };
    let clients: Vec<Client> = (0..3)
        .map(|at| {
            replicas.all[at].client(&issuer.token(&format!("person-{at}"), &["developers"], &replicas.resource()))
        })
        .collect();
    for client in &clients {
        assert_eq!(status(client).await, 200);
    }
    let began = Instant::now();
    replicas.ways.iter().for_each(|way| way.cut());
    let (mut last_answer, mut forwarded) = (began, 0);
    let mut turned_away = [0; 3];
    while began.elapsed() < Duration::from_secs(60) {
        for (at, client) in clients.iter().enumerate() {
            match status(client).await {
                200 => (last_answer, forwarded) = (Instant::now(), upstream.calls().len()),
                503 => turned_away[at] += 1,
                other => panic!("HTTP {other} after {:?}", began.elapsed()),
            }
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    assert!(last_answer.duration_since(began) < Duration::from_secs(10), "{:?}", last_answer.duration_since(began));
    assert_eq!(upstream.calls().len(), forwarded, "nothing was forwarded while nobody knew who is revoked");
    replicas.ways.iter().for_each(|way| way.mend());
    for (at, client) in clients.iter().enumerate() {
        let mended = Instant::now();
        while status(client).await != 200 {
            turned_away[at] += 1;
            assert!(mended.elapsed() < Duration::from_secs(10), "it does not recover by itself");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        eventually("the replica to be ready", async || ready(&replicas.all[at]).await).await;
        let gateway = &replicas.all[at];
        // Before anybody is known refusals are counted, not written one by one; one may fall between that and the call.
        let refused = || -> u64 {
            let noise =
                gateway.records("noise").into_iter().filter(|line| line["noise"]["reason"] == "store_unavailable");
            let counted: u64 = noise.map(|line| line["noise"]["count"].as_u64().unwrap()).sum();
            let late = |line: &&Value| line["decision"]["reason"] == "store_unavailable";
            counted + gateway.records("refusal").iter().filter(late).count() as u64
        };
        eventually_within(bailiwick::limit::NOISE_INTERVAL * 2, "every refusal on the record", async || {
            refused() == turned_away[at]
        })
        .await;
        eventually("no call without its end", async || {
            gateway.records("intent").len() == gateway.records("result").len()
        })
        .await;
    }
}

#[tokio::test]
async fn a_replica_whose_clock_is_not_the_stores_is_not_ready() {
    let Some((_issuer, _upstream, replicas)) = three().await else { return };
    eventually("all to be ready", async || ready(&replicas.all[0]).await).await;
    // The store's clock goes wrong, from where the replicas look.
    let wrong = "CREATE SCHEMA wrong;
        CREATE FUNCTION wrong.clock_timestamp() RETURNS timestamptz LANGUAGE sql
            AS 'SELECT pg_catalog.clock_timestamp() + interval ''3 s''';";
    replicas.database.execute(wrong).await;
    let name = &replicas.database.name;
    let path = format!("ALTER DATABASE {name} SET search_path = wrong, pg_catalog, public");
    replicas.database.execute(&path).await;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
               WHERE datname = current_database() AND pid <> pg_backend_pid()";
    replicas.database.execute(end).await;
    eventually("none to be ready", async || !ready(&replicas.all[0]).await && !ready(&replicas.all[2]).await).await;
    assert!(readiness(&replicas.all[0], "clock").unwrap().contains("behind the store's"));
    // What is ordered here is dated by the store's all the same.
    let before = jiff::Timestamp::now().as_second();
    run(&replicas.all[0], &["agents", "suspend", "assistant", "--for", "user:test/alice"]);
    eventually("the record", async || !replicas.all[0].records("change").is_empty()).await;
    let told = replicas.all[0].records("change")[0]["change"]["rows"][0]["says"].clone();
    let halted: Value = serde_json::from_str(told.as_str().unwrap()).unwrap();
    assert!(halted["at"].as_i64().unwrap() >= before + 3, "{halted} {before}");
}

#[tokio::test]
async fn a_reload_at_one_replica_is_taken_up_by_all_and_a_start_changes_nothing() {
    let Some((issuer, _upstream, mut replicas)) = three().await else { return };
    let token = issuer.token("alice", &["developers"], &replicas.resource());
    let clients: Vec<_> = replicas.all.iter().map(|gateway| gateway.client(&token)).collect();
    replicas.write_policy(&format!("{DEVELOPERS_MAY}p, role:developer, *, tools/echo, call, -, deny\n"));
    tokio::time::sleep(Duration::from_millis(600)).await;
    // Whoever starts with other files than the store names waits for somebody to say that they are right.
    replicas.add().await;
    assert!(!ready(&replicas.all[3]).await);
    assert!(readiness(&replicas.all[3], "revision").unwrap().contains("bailiwick reload"));
    assert_eq!(status(&clients[0]).await, 200);
    assert!(ready(&replicas.all[0]).await);
    run(&replicas.all[1], &["reload"]);
    for client in &clients {
        eventually("the denial", async || {
            client.call_tool("tools__echo", json!({})).await.text.contains("Unknown tool")
        })
        .await;
    }
    for gateway in &replicas.all {
        eventually("all to be ready", async || ready(gateway).await).await;
    }
    let taken = replicas.all[0].records("reload");
    assert_eq!(taken.last().unwrap()["reload"]["actor"], "store", "{taken:?}");
}

#[tokio::test]
async fn a_replica_that_does_not_see_the_store_takes_up_files_that_only_narrow() {
    let issuer = Issuer::start().await;
    let upstream = Scripted::echo().await;
    let setup = Setup::new(&issuer).http_server("tools", &upstream.url, "");
    let Some(replicas) = Replicas::start(setup, 1).await else { return };
    let client = replicas.all[0].client(&issuer.token("alice", &["developers"], &replicas.resource()));
    assert_eq!(status(&client).await, 200);
    replicas.ways[0].cut();
    replicas.write_policy(&format!("{DEVELOPERS_MAY}p, role:developer, *, tools/echo, call, -, deny\n"));
    run(&replicas.all[0], &["reload"]);
    replicas.ways[0].mend();
    eventually("the denial", async || client.call_tool("tools__echo", json!({})).await.text.contains("Unknown tool"))
        .await;
}

/// What became of one client's calls.
#[derive(Default)]
struct Load {
    /// The numbers of those that were answered with a result.
    acknowledged: Vec<u64>,
    /// Those that somebody else had to be asked for: nobody listened, or whoever did refused.
    elsewhere: usize,
    /// Those whose connection ended without an answer.
    lost: Vec<u64>,
}

/// Calls round robin, with a connection for each call; goes to the next replica where one does not answer or says 503.
async fn call_round(clients: Vec<Client>, stop: Arc<AtomicBool>, answered: Arc<AtomicUsize>, first: u64) -> Load {
    let (mut load, mut number, mut turn) = (Load::default(), first, 0);
    while !stop.load(Ordering::SeqCst) {
        number += 1;
        let mut asked = 0;
        loop {
            turn += 1;
            let answer = clients[turn % clients.len()].try_tool("tools__echo", json!({ "number": number })).await;
            match answer {
                Ok((200, text)) => {
                    assert!(text.contains(&number.to_string()) && !text.contains("isError\":true"), "{text}");
                    load.acknowledged.push(number);
                    answered.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                Ok((503, _)) | Err(Lost::Unsent) => {
                    load.elsewhere += 1;
                    asked += 1;
                    assert!(asked < 20, "no replica serves");
                }
                Ok((status, text)) => panic!("{status} {text}"),
                Err(Lost::Midway) => {
                    load.lost.push(number);
                    break;
                }
            }
        }
    }
    load
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_rolling_restart_under_load_loses_no_call_that_was_acknowledged() {
    let Some((issuer, upstream, mut replicas)) = three().await else { return };
    let token = issuer.token("alice", &["developers"], &replicas.resource());
    let clients: Vec<_> = replicas.all.iter().map(|gateway| gateway.client(&token)).collect();
    let (stop, answered) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let round = |client: u64| call_round(clients.clone(), Arc::clone(&stop), Arc::clone(&answered), client * 1_000_000);
    let calling: Vec<_> = (0..6).map(|client| tokio::spawn(round(client))).collect();
    let more = async || {
        let before = answered.load(Ordering::SeqCst);
        let minute = Duration::from_secs(60);
        eventually_within(minute, "more calls", async || answered.load(Ordering::SeqCst) > before + 30).await;
    };
    more().await;
    for gateway in &mut replicas.all {
        assert!(gateway.stop().await.success());
        gateway.launch().await;
        eventually("it to be ready again", async || ready(gateway).await).await;
        more().await;
    }
    stop.store(true, Ordering::SeqCst);
    let mut all = Load::default();
    for load in calling {
        let load = load.await.unwrap();
        all.acknowledged.extend(load.acknowledged);
        all.lost.extend(load.lost);
        all.elsewhere += load.elsewhere;
    }
    eprintln!(
        "{} acknowledged, {} asked elsewhere, {} without an answer",
        all.acknowledged.len(),
        all.elsewhere,
        all.lost.len()
    );
    assert!(all.acknowledged.len() > 100 && all.elsewhere > 0, "there was load, and it met the restarts");
    for gateway in &mut replicas.all {
        gateway.stop().await;
    }
    // Each has an intent and its end, on the record of one replica, and the upstream saw each once. A connection that
    // was closed before its request was read is no call: the upstream saw none of those.
    let (mut intents, mut ends) = (0, 0);
    for gateway in &replicas.all {
        let (opened, closed) = (gateway.records("intent"), gateway.records("result"));
        let legs: std::collections::BTreeSet<_> = opened.iter().map(|record| record["leg"].to_string()).collect();
        for end in &closed {
            assert!(legs.contains(&end["leg"].to_string()), "an end without its intent: {end}");
            assert_ne!(end["result"]["outcome"], "unknown", "{end}");
        }
        assert_eq!(opened.len(), closed.len());
        intents += opened.len();
        ends += closed.len();
    }
    let mut seen: Vec<u64> =
        upstream.calls().iter().map(|call| call.message["params"]["arguments"]["number"].as_u64().unwrap()).collect();
    assert_eq!((intents, ends, seen.len()), (all.acknowledged.len(), all.acknowledged.len(), all.acknowledged.len()));
    seen.sort_unstable();
    all.acknowledged.sort_unstable();
    assert_eq!(seen, all.acknowledged);
}

#[tokio::test(flavor = "multi_thread")]
async fn doctor_says_whether_the_store_is_reached() {
    let Some((_issuer, _upstream, replicas)) = three().await else { return };
    let looked = || {
        let output = replicas.all[0].command(&["doctor", "--json", "--config", "servers.toml"]);
        let report: Value = serde_json::from_slice(&output.stdout).unwrap();
        let groups = report["groups"].as_array().unwrap();
        groups.iter().find(|group| group["name"] == "store").expect("a store")["findings"][0].clone()
    };
    let found = looked();
    assert!(found["mark"] == "ok" && found["found"].as_str().unwrap().contains("reached"), "{found}");
    replicas.ways[0].cut();
    let found = looked();
    assert!(found["mark"] == "bad" && found["fix"].as_str().unwrap().contains("store status"), "{found}");
    assert!(!found.to_string().contains(crate::support::postgres::PASSWORD), "{found}");
}
